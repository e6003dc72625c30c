//! The marks of operations: variables that every process of an operation is started with, and so the workload too.

use super::Kind;

/// The variable that names the operation.
pub const MARK: &str = "TIEBREAKER_OP";

/// The variable that names the agent by its folder, which its successors on this boot keep.
pub const AGENT: &str = "TIEBREAKER_AGENT";

const PREFIX: &str = "tiebreaker-op";

/// What the environment of a process says of where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Whose operation started it.
    pub resource: String,
    /// Which one.
    pub kind: Kind,
}

impl Mark {
    /// An operation's name.
    pub fn name(resource: &str, kind: Kind, number: u64) -> String {
        format!("{PREFIX}-{resource}-{}-{number}", kind.as_str())
    }

    /// The mark in an environment as `/proc/PID/environ` shows it, if it is that of an operation of this agent or of one
    /// before it.
    pub fn find(environment: &[u8], agent: &[u8]) -> Option<Self> {
        let value = |name: &str| {
            environment.split(|byte| *byte == 0).find_map(|variable| {
                let (key, value) = variable.split_at_checked(name.len())?;
                (key == name.as_bytes()).then_some(value)?.strip_prefix(b"=")
            })
        };
        if value(AGENT)? != agent {
            return None;
        }
        Self::parse(std::str::from_utf8(value(MARK)?).ok()?)
    }

    fn parse(name: &str) -> Option<Self> {
        // No kind has a hyphen in it, so what is left of the last two is the resource, whatever is in its name.
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('-')?.rsplitn(3, '-');
        let (_number, kind, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Some(Self { resource: resource.to_owned(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_resource_and_its_kind_whatever_the_resource_is_called() {
        for resource in ["web", "vm:101", "a-start-7", "x-migrate_to"] {
            for kind in Kind::ALL {
                let mark = Mark { resource: resource.to_owned(), kind };
                assert_eq!(Mark::parse(&Mark::name(resource, kind, 7)), Some(mark));
            }
        }
        for other in ["", "tiebreaker-op", "tiebreaker-op-web-start", "tiebreaker-op-web-dance-7"] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_mark_of_another_agent_is_none() {
        let environment = b"PATH=/bin\0TIEBREAKER_OP=tiebreaker-op-web-start-7\0TIEBREAKER_AGENT=/run/a\0";
        assert_eq!(Mark::find(environment, b"/run/a").map(|mark| mark.resource).as_deref(), Some("web"));
        assert_eq!(Mark::find(environment, b"/run/b"), None);
        assert_eq!(Mark::find(b"TIEBREAKER_OP=tiebreaker-op-web-start-7\0", b"/run/a"), None);
        assert_eq!(Mark::find(b"", b""), None);
    }
}
