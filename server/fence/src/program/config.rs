//! Which fence agent to run, and with what.

use std::{collections::BTreeMap, path::PathBuf};

use crate::Secret;

/// A user of this machine, by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunAs {
    /// The user's number. Never root's: an agent needs no rights here.
    pub uid: u32,
    /// The number of the user's group.
    pub gid: u32,
}

impl RunAs {
    /// A user of `/etc/passwd`, from that file's text. `None` if it isn't there or is root.
    #[must_use]
    pub fn of(passwd: &str, name: &str) -> Option<Self> {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (uid != 0).then_some(Self { uid, gid })
    }
}

/// One fence agent, for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramConfig {
    /// The agent, by its whole path.
    pub agent: PathBuf,
    /// What it is told over its standard input, besides what is asked of it. No secrets.
    pub options: BTreeMap<String, String>,
    /// Goes in as `password`, over its standard input alone.
    pub password: Option<Secret>,
    /// Whom it runs as. `None`: as whoever runs this, which only tests and daemons without root's rights may want.
    pub run_as: Option<RunAs>,
}

/// Names that an agent is told by us, and no configuration.
pub const OWN_OPTIONS: [&str; 3] = ["action", "password", "passwd"];

/// Whether a name and a value can be one line of an agent's standard input.
#[must_use]
pub fn is_option(name: &str, value: &str) -> bool {
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !name.is_empty() && name.chars().all(proper) && !value.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name_and_root_is_none() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\nbad:x:a:b::/:\n";
        assert_eq!(RunAs::of(passwd, "nobody"), Some(RunAs { uid: 65534, gid: 65533 }));
        for name in ["root", "bad", "nobod", "", "x"] {
            assert_eq!(RunAs::of(passwd, name), None, "{name}");
        }
    }

    #[test]
    fn an_option_is_one_line() {
        assert!(is_option("plug", "1") && is_option("ssl-insecure", ""));
        for (name, value) in [("", "1"), ("a b", "1"), ("a=b", "1"), ("a\n", "1"), ("a", "1\naction=on")] {
            assert!(!is_option(name, value), "{name:?} {value:?}");
        }
    }
}
