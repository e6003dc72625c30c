//! Names of resources, theirs and ours, and the faults that some of their names encode.

use crate::scenario::Fails;

/// What an operator wants of a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Requested {
    Started,
    Stopped,
    Disabled,
    Ignored,
}

impl Requested {
    /// `enabled` is the old word for `started`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "started" | "enabled" => Some(Self::Started),
            "stopped" => Some(Self::Stopped),
            "disabled" => Some(Self::Disabled),
            "ignored" => Some(Self::Ignored),
            _ => None,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Ignored => "ignored",
        }
    }
}

/// A resource's name with us, and what its programs do wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Named {
    /// Ours.
    pub(crate) id: String,
    /// Its faults.
    pub(crate) fails: Fails,
}

/// Gives a resource of theirs its name with us; `None` if theirs is no name.
///
/// Machines and containers keep theirs. A resource that only exists to fail (`fa:`) becomes a service of the same number,
/// which sorts in the same place among the others. One whose moves fail becomes a machine, because only live migration
/// can fail without harm; the zero before its number keeps it in front of the real machines, where theirs is.
pub(crate) fn named(sid: &str) -> Option<Named> {
    let (kind, digits) = sid.split_once(':')?;
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    match kind {
        "vm" | "ct" => Some(Named { id: sid.to_owned(), fails: Fails::default() }),
        "fa" => {
            let fails = fails(digits);
            let id = if fails.migrate == 0 { format!("service:{digits}") } else { format!("vm:0{digits}") };
            Some(Named { id, fails })
        }
        _ => None,
    }
}

/// The digits: a number, failing starts, failing moves, whether stops fail, whether it exists, the only node that fails.
fn fails(digits: &str) -> Fails {
    let digit = |at: usize| digits.as_bytes().get(at).map_or(0, |digit| u32::from(digit - b'0'));
    let node = digit(5);
    Fails {
        start: digit(1),
        migrate: digit(2),
        stop: digit(3) != 0,
        only_on: if node == 0 { Vec::new() } else { vec![format!("node{node}")] },
    }
}
