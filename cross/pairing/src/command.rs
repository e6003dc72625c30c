//! What a client can ask to have run. Nothing here is a shell: a command is one of these or it is refused.

use thiserror::Error;

use crate::place::{Place, REQUEST, is_cluster};

/// The longest that comes is ssh-copy-id's line, of about 500 bytes.
const LONGEST: usize = 4096;

/// A command that is understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// `exit`: ssh-copy-id looks whether a key is known already.
    Exit,
    /// ssh-copy-id's line of shell: what follows on the standard input are keys.
    TakeKeys,
    /// `corosync-qnetd-certutil -i`
    Initialise,
    /// `corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n CLUSTER`
    Sign(String),
    /// `scp -f PATH`: the far side of a copy from here.
    Send(Place),
    /// `scp -t PATH`: the far side of a copy to here.
    Receive(Place),
}

/// Why a command is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NotACommand {
    /// There is no such program here.
    #[error("there is no such command here")]
    Unknown,
    /// The program is there, and doesn't do this.
    #[error("{0} is not done here")]
    NotThis(&'static str),
    /// A path that nobody needs for this.
    #[error("that path is not there")]
    NoSuchPlace,
}

impl NotACommand {
    /// What a shell ends with in such a case.
    #[must_use]
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Unknown => 127,
            Self::NotThis(_) | Self::NoSuchPlace => 126,
        }
    }
}

impl Command {
    /// Understands what a client sent.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn parse(line: &[u8]) -> Result<Self, NotACommand> {
        let line = std::str::from_utf8(line).map_err(|_| NotACommand::Unknown)?;
        if line.len() > LONGEST {
            return Err(NotACommand::Unknown);
        }
        if let Some(script) = line.strip_prefix("exec sh -c '").and_then(|rest| rest.strip_suffix('\'')) {
            return if takes_keys(script) { Ok(Self::TakeKeys) } else { Err(NotACommand::Unknown) };
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["exit"] => Ok(Self::Exit),
            ["corosync-qnetd-certutil", "-i"] => Ok(Self::Initialise),
            ["corosync-qnetd-certutil", "-s", "-c", REQUEST, "-n", cluster] if is_cluster(cluster) => {
                Ok(Self::Sign(cluster.to_owned()))
            }
            ["corosync-qnetd-certutil", ..] => {
                Err(NotACommand::NotThis("another use of corosync-qnetd-certutil than pvecm's"))
            }
            ["scp", ref options @ .., path] => scp(options, path),
            _ => Err(NotACommand::Unknown),
        }
    }
}

fn scp(options: &[&str], path: &str) -> Result<Command, NotACommand> {
    let (mut sends, mut receives) = (false, false);
    for option in options {
        match *option {
            "-f" => sends = true,
            "-t" => receives = true,
            // Talk about it, keep times, the target is a folder, what follows is no option: nothing changes here.
            "-v" | "-p" | "-d" | "--" => {}
            _ => return Err(NotACommand::NotThis("scp with this option")),
        }
    }
    let place = Place::of(path).ok_or(NotACommand::NoSuchPlace)?;
    match (sends, receives, &place) {
        (true, false, Place::Authority | Place::Certificate(_)) => Ok(Command::Send(place)),
        (false, true, Place::Request | Place::Folder) => Ok(Command::Receive(place)),
        (true, false, _) | (false, true, _) => Err(NotACommand::NoSuchPlace),
        (true, true, _) | (false, false, _) => Err(NotACommand::NotThis("scp without one direction")),
    }
}

/// Whether a script is one of ssh-copy-id's: each version writes another one, of the same words. None of them is run, so
/// it only has to be certain that the keys are meant to be appended to root's file.
fn takes_keys(script: &str) -> bool {
    const FILE: &str = ".ssh/authorized_keys";
    const VARIABLE: &str = "${AUTH_KEY_FILE}";
    let plain: String = script.chars().map(|letter| if "\"`\\;".contains(letter) { ' ' } else { letter }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let known = |word: &&str| {
        matches!(
            *word,
            "cd" | "umask"
                | "077"
                | "mkdir"
                | "-p"
                | ".ssh"
                | "&&"
                | "||"
                | "{"
                | "}"
                | "["
                | "]"
                | "-z"
                | "tail"
                | "-1c"
                | "2>/dev/null"
                | "echo"
                | ">>"
                | "exit"
                | "1"
                | "cat"
                | "if"
                | "type"
                | "restorecon"
                | ">/dev/null"
                | "2>&1"
                | "then"
                | "-F"
                | "fi"
                | "-f"
                | "="
                | "root"
                | "dirname"
                | FILE
                | VARIABLE
                | "$LOGNAME"
                | "/etc/openwrt_release"
                | "AUTH_KEY_FILE="
                | "AUTH_KEY_DIR="
                | "${AUTH_KEY_DIR}"
                | "AUTH_KEY_FILE=/etc/dropbear/authorized_keys"
                | "AUTH_KEY_FILE=config/settings/ssh/authorized_keys"
                | "$(id"
                | "-u)"
                | "0"
                | "uname"
                | "-s"
                | "Haiku"
        )
    };
    let appends_to = |target: &str| words.windows(3).any(|three| three == ["cat", ">>", target]);
    let variable_is_file = words.windows(2).any(|two| two == ["AUTH_KEY_FILE=", FILE]);
    words.iter().all(known) && (appends_to(FILE) || (appends_to(VARIABLE) && variable_is_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ssh-copy-id of OpenSSH 8.4, 9.2, 10.0 (Debian 11, 12, 13) and one of 2026 sends: it was run, and this taken down.
    const LINES: [&str; 4] = [
        "exec sh -c 'cd; umask 077; mkdir -p .ssh &&   { [ -z `tail -1c .ssh/authorized_keys 2>/dev/null` ] || echo >> \
         .ssh/authorized_keys; } &&   cat >> .ssh/authorized_keys ||   exit 1; if type restorecon >/dev/null 2>&1; then   \
         restorecon -F .ssh .ssh/authorized_keys; fi '",
        "exec sh -c 'cd; umask 077; mkdir -p \".ssh\" && { [ -z `tail -1c .ssh/authorized_keys 2>/dev/null` ] || echo >> \
         \".ssh/authorized_keys\" || exit 1; } && cat >> \".ssh/authorized_keys\" || exit 1; if type restorecon \
         >/dev/null 2>&1; then restorecon -F \".ssh\" \".ssh/authorized_keys\"; fi '",
        "exec sh -c ' cd; umask 077; AUTH_KEY_FILE=\".ssh/authorized_keys\"; [ -f /etc/openwrt_release ] && [ \
         \"$LOGNAME\" = \"root\" ] && AUTH_KEY_FILE=/etc/dropbear/authorized_keys; AUTH_KEY_DIR=`dirname \
         \"${AUTH_KEY_FILE}\"`; mkdir -p \"${AUTH_KEY_DIR}\" && { [ -z \"`tail -1c \"${AUTH_KEY_FILE}\" \
         2>/dev/null`\" ] || echo >> \"${AUTH_KEY_FILE}\" || exit 1; } && cat >> \"${AUTH_KEY_FILE}\" || exit 1; if \
         type restorecon >/dev/null 2>&1; then restorecon -F \"${AUTH_KEY_DIR}\" \"${AUTH_KEY_FILE}\"; fi '",
        "exec sh -c ' cd; umask 077; AUTH_KEY_FILE=\".ssh/authorized_keys\"; [ -f /etc/openwrt_release ] && { [ \
         \"$LOGNAME\" = \"root\" ] || [ \"$(id -u)\" = \"0\" ]; } && AUTH_KEY_FILE=/etc/dropbear/authorized_keys; [ \
         \"`uname -s`\" = \"Haiku\" ] && AUTH_KEY_FILE=config/settings/ssh/authorized_keys; AUTH_KEY_DIR=`dirname \
         \"${AUTH_KEY_FILE}\"`; mkdir -p \"${AUTH_KEY_DIR}\" && { [ -z \"`tail -1c \"${AUTH_KEY_FILE}\" \
         2>/dev/null`\" ] || echo >> \"${AUTH_KEY_FILE}\" || exit 1; } && cat >> \"${AUTH_KEY_FILE}\" || exit 1; if \
         type restorecon >/dev/null 2>&1; then restorecon -F \"${AUTH_KEY_DIR}\" \"${AUTH_KEY_FILE}\"; fi '",
    ];

    #[test]
    fn what_pvecm_sends_is_understood() {
        for (line, command) in [
            ("exit", Command::Exit),
            ("corosync-qnetd-certutil -i", Command::Initialise),
            ("corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n pve", Command::Sign("pve".into())),
            ("scp -f /etc/corosync/qnetd/nssdb/qnetd-cacert.crt", Command::Send(Place::Authority)),
            ("scp -v -f /etc/corosync/qnetd/nssdb/cluster-a.crt", Command::Send(Place::Certificate("a".into()))),
            ("scp -t /tmp", Command::Receive(Place::Folder)),
            ("scp -p -t -- /tmp/qdevice-net-node.crq", Command::Receive(Place::Request)),
        ] {
            assert_eq!(Command::parse(line.as_bytes()), Ok(command), "{line}");
        }
        for line in LINES {
            assert_eq!(Command::parse(line.as_bytes()), Ok(Command::TakeKeys), "{line}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (line, code) in [
            ("", 127),
            ("id", 127),
            ("sh", 127),
            ("exit 0", 127),
            ("cat /etc/shadow", 127),
            ("$(id)", 127),
            (" corosync-qnetd-certutil -i", 127),
            ("/usr/bin/corosync-qnetd-certutil -i", 127),
            ("corosync-qnetd-certutil", 126),
            ("corosync-qnetd-certutil -i; id", 126),
            ("corosync-qnetd-certutil -i && id", 126),
            ("corosync-qnetd-certutil -i\nid", 126),
            ("corosync-qnetd-certutil  -i", 126),
            ("corosync-qnetd-certutil -i -G", 126),
            ("corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n", 126),
            ("corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n $(id)", 126),
            ("corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n a;id", 126),
            ("corosync-qnetd-certutil -s -c /tmp/qdevice-net-node.crq -n -i", 126),
            ("corosync-qnetd-certutil -s -c /etc/shadow -n pve", 126),
            ("corosync-qnetd-certutil -s -c /tmp/../tmp/qdevice-net-node.crq -n pve", 126),
            ("scp", 127),
            ("scp /tmp", 126),
            ("scp -t -f /tmp", 126),
            ("scp -r -t /tmp", 126),
            ("scp -S id -t /tmp", 126),
            ("scp -f /etc/shadow", 126),
            ("scp -f /tmp/../etc/shadow", 126),
            ("scp -f /tmp/qdevice-net-node.crq", 126),
            ("scp -f /root/.ssh/authorized_keys", 126),
            ("scp -t /etc/corosync/qnetd/nssdb/qnetd-cacert.crt", 126),
            ("scp -t /root/.ssh/authorized_keys", 126),
            ("exec sh -c 'id'", 127),
            ("exec sh -c 'cat >> .ssh/authorized_keys; id'", 127),
            ("exec sh -c 'cat >> .ssh/authorized_keys'; id", 127),
            ("exec sh -c 'cat >> .ssh/authorized_keys $(id)'", 127),
            ("exec sh -c 'cat >> .ssh/authorized_keys && cat /etc/shadow'", 127),
            ("exec sh -c 'cat >> /etc/dropbear/authorized_keys'", 127),
            ("exec sh -c 'cat >> ${AUTH_KEY_FILE}'", 127),
            ("exec sh -c 'cd; umask 077; echo >> .ssh/authorized_keys'", 127),
        ] {
            let refused = Command::parse(line.as_bytes()).unwrap_err();
            assert_eq!(refused.exit_code(), code, "{line}: {refused}");
        }
        assert!(Command::parse(&[0xff]).is_err());
        let long = format!("exec sh -c '{} cat >> .ssh/authorized_keys'", "cd; ".repeat(2000));
        assert!(Command::parse(long.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(exec sh -c ')?[a-z ;'$()/.>-]{0,80}") {
            let _ = Command::parse(text.as_bytes());
        }
    }
}
