//! Events: one short sentence each, as in `isolate node3`.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use tiebreaker_pipeline::name::MemberName;

use super::mistake::{Report, meant};
use super::shape::{self, REQUESTED};
use super::table::one_of;
use super::{BmcSetup, Requested, ResourceId, units};

/// The kernel slews clocks by no more than this.
const DRIFT_MAX: i32 = 100_000;

/// What happens. A machine is a node or the appliance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Do {
    /// A machine gets power and boots.
    PowerOn(MemberName),
    /// A machine loses its power; its BMC doesn't.
    PowerOff(MemberName),
    /// A machine reaches nobody and nobody reaches it.
    Isolate(MemberName),
    /// All links of a machine work again.
    Rejoin(MemberName),
    /// Two machines don't reach each other directly.
    Cut(MemberName, MemberName),
    /// They do again.
    Heal(MemberName, MemberName),
    /// The agent or daemon stands still (SIGSTOP); what it started runs on.
    Freeze(MemberName),
    /// It goes on.
    Thaw(MemberName),
    /// The agent or daemon is killed; the service manager starts it again.
    KillAgent(MemberName),
    /// An operator shuts a node down.
    Shutdown(MemberName),
    /// An operator reboots a node.
    Reboot(MemberName),
    /// An operator takes a node out of service, or puts it back.
    Maintenance {
        /// Which.
        node: MemberName,
        /// Out of service.
        on: bool,
    },
    /// The agent is restarted in an orderly way, as by an upgrade.
    RestartAgent(MemberName),
    /// An operator disarms the cluster.
    Disarm(Disarm),
    /// An operator arms it again.
    Arm,
    /// An operator changes what is wanted of a resource.
    Set {
        /// Which.
        id: ResourceId,
        /// What is wanted.
        state: Requested,
    },
    /// An operator moves a resource, live where it can.
    Migrate {
        /// Which.
        id: ResourceId,
        /// Where to.
        to: MemberName,
    },
    /// An operator moves a resource: stop, then start.
    Relocate {
        /// Which.
        id: ResourceId,
        /// Where to.
        to: MemberName,
    },
    /// An operator adds a resource.
    Add {
        /// Which.
        id: ResourceId,
        /// Where it is configured.
        node: MemberName,
        /// What is wanted.
        state: Requested,
    },
    /// An operator takes a resource out; it is left as it is.
    Remove {
        /// Which.
        id: ResourceId,
    },
    /// A resource dies.
    Fail {
        /// Which.
        id: ResourceId,
    },
    /// A resource is locked, as by a backup: nothing can be done to it.
    Lock {
        /// Which.
        id: ResourceId,
    },
    /// The lock is gone.
    Unlock {
        /// Which.
        id: ResourceId,
    },
    /// A BMC behaves like this from now on.
    Bmc {
        /// Whose.
        node: MemberName,
        /// How.
        mode: BmcSetup,
    },
    /// A time daemon slews a machine's clock.
    Drift {
        /// Whose.
        member: MemberName,
        /// Parts per million, negative for slow.
        ppm: i32,
    },
    /// A machine's disk writes nothing for a while.
    DiskStall {
        /// Whose.
        member: MemberName,
        /// For how long.
        span: Duration,
    },
    /// A machine's disk is lost, and with it the machine's part in the cluster.
    LoseDisk(MemberName),
}

/// What becomes of resources while the cluster is disarmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disarm {
    /// They stay as they are.
    Freeze,
    /// Nobody looks after them.
    Ignore,
}

/// An event's first word, and how it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The word.
    pub verb: &'static str,
    /// What follows it.
    pub rest: &'static str,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb)?;
        if !self.rest.is_empty() {
            write!(f, " {}", self.rest)?;
        }
        Ok(())
    }
}

const fn usage(verb: &'static str, rest: &'static str) -> Usage {
    Usage { verb, rest }
}

impl Usage {
    /// Every event: N is a node, M a machine (a node or `appliance`), ID a resource.
    pub const ALL: [Self; 27] = [
        usage("power-on", "M"),
        usage("power-off", "M"),
        usage("isolate", "M"),
        usage("rejoin", "M"),
        usage("cut", "M M"),
        usage("heal", "M M"),
        usage("freeze", "M"),
        usage("thaw", "M"),
        usage("kill-agent", "M"),
        usage("shutdown", "N"),
        usage("reboot", "N"),
        usage("maintenance", "N on|off"),
        usage("restart-agent", "N"),
        usage("disarm", "freeze|ignore"),
        usage("arm", ""),
        usage("set", "ID state=started|stopped|disabled|ignored"),
        usage("migrate", "ID N"),
        usage("relocate", "ID N"),
        usage("add", "ID N [started|stopped|disabled|ignored]"),
        usage("remove", "ID"),
        usage("fail", "ID"),
        usage("lock", "ID"),
        usage("unlock", "ID"),
        usage("bmc", "N good|stuck|unreachable|slow:SECONDS"),
        usage("drift", "M PPM"),
        usage("disk-stall", "M SECONDS"),
        usage("lose-disk", "M"),
    ];
}

/// A name in an event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Node(&'a MemberName),
    Machine(&'a MemberName),
    Resource(&'a ResourceId),
}

impl Do {
    /// The names in it, in the order of its words after the first.
    pub(super) fn names(&self) -> Vec<Name<'_>> {
        use Name::{Machine, Node, Resource};
        match self {
            Self::PowerOn(who)
            | Self::PowerOff(who)
            | Self::Isolate(who)
            | Self::Rejoin(who)
            | Self::Freeze(who)
            | Self::Thaw(who)
            | Self::KillAgent(who)
            | Self::Drift { member: who, .. }
            | Self::DiskStall { member: who, .. }
            | Self::LoseDisk(who) => vec![Machine(who)],
            Self::Cut(one, other) | Self::Heal(one, other) => vec![Machine(one), Machine(other)],
            Self::Shutdown(node)
            | Self::Reboot(node)
            | Self::Maintenance { node, .. }
            | Self::RestartAgent(node)
            | Self::Bmc { node, .. } => vec![Node(node)],
            Self::Disarm(_) | Self::Arm => vec![],
            Self::Migrate { id, to } | Self::Relocate { id, to } | Self::Add { id, node: to, .. } => {
                vec![Resource(id), Node(to)]
            }
            Self::Set { id, .. }
            | Self::Remove { id }
            | Self::Fail { id }
            | Self::Lock { id }
            | Self::Unlock { id } => {
                vec![Resource(id)]
            }
        }
    }
}

/// As a scenario writes it.
impl fmt::Display for Do {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOn(who) => write!(f, "power-on {who}"),
            Self::PowerOff(who) => write!(f, "power-off {who}"),
            Self::Isolate(who) => write!(f, "isolate {who}"),
            Self::Rejoin(who) => write!(f, "rejoin {who}"),
            Self::Cut(one, other) => write!(f, "cut {one} {other}"),
            Self::Heal(one, other) => write!(f, "heal {one} {other}"),
            Self::Freeze(who) => write!(f, "freeze {who}"),
            Self::Thaw(who) => write!(f, "thaw {who}"),
            Self::KillAgent(who) => write!(f, "kill-agent {who}"),
            Self::Shutdown(node) => write!(f, "shutdown {node}"),
            Self::Reboot(node) => write!(f, "reboot {node}"),
            Self::Maintenance { node, on } => write!(f, "maintenance {node} {}", if *on { "on" } else { "off" }),
            Self::RestartAgent(node) => write!(f, "restart-agent {node}"),
            Self::Disarm(Disarm::Freeze) => f.write_str("disarm freeze"),
            Self::Disarm(Disarm::Ignore) => f.write_str("disarm ignore"),
            Self::Arm => f.write_str("arm"),
            Self::Set { id, state } => write!(f, "set {id} state={state}"),
            Self::Migrate { id, to } => write!(f, "migrate {id} {to}"),
            Self::Relocate { id, to } => write!(f, "relocate {id} {to}"),
            Self::Add { id, node, state } => write!(f, "add {id} {node} {state}"),
            Self::Remove { id } => write!(f, "remove {id}"),
            Self::Fail { id } => write!(f, "fail {id}"),
            Self::Lock { id } => write!(f, "lock {id}"),
            Self::Unlock { id } => write!(f, "unlock {id}"),
            Self::Bmc { node, mode } => write!(f, "bmc {node} {mode}"),
            Self::Drift { member, ppm } => write!(f, "drift {member} {ppm}"),
            Self::DiskStall { member, span } => write!(f, "disk-stall {member} {}", units::Span(*span)),
            Self::LoseDisk(who) => write!(f, "lose-disk {who}"),
        }
    }
}

/// A word of an event, and where it stands.
type Word<'a> = (Range<usize>, &'a str);

/// An event and where its words stand; `None` after a mistake. `at` is where the text stands in the source, its quotes
/// included.
pub(super) fn read(
    source: &str,
    at: &Range<usize>,
    text: &str,
    report: &mut Report,
) -> Option<(Do, Vec<Range<usize>>)> {
    // Where the text is written with escapes, all of it is where each of its words is.
    let plain = source.get(at.start + 1..at.end.saturating_sub(1)) == Some(text);
    let words: Vec<Word<'_>> = text
        .split_ascii_whitespace()
        .map(|word| {
            let begins = at.start + 1 + (word.as_ptr().addr() - text.as_ptr().addr());
            (if plain { begins..begins + word.len() } else { at.clone() }, word)
        })
        .collect();
    let Some(((verb_at, verb), rest)) = words.split_first() else {
        report.add(at, "an event says what happens, for instance \"isolate node3\"");
        return None;
    };
    let Some(usage) = Usage::ALL.into_iter().find(|usage| usage.verb == *verb) else {
        let meant = meant(verb, Usage::ALL.iter().map(|usage| usage.verb));
        report.add(verb_at, format!("there is no event {verb:?}: {meant}"));
        return None;
    };
    let most = usage.rest.split_ascii_whitespace().count();
    let least = usage.rest.split_ascii_whitespace().filter(|word| !word.starts_with('[')).count();
    if rest.len() < least {
        report.add(at, format!("this event is not complete: write \"{usage}\""));
        return None;
    }
    if let Some((extra, _)) = rest.get(most) {
        report.add(extra, format!("this event ends before here: write \"{usage}\""));
        return None;
    }
    let what = Sentence { words: rest, report }.understood(verb)?;
    Some((what, rest.iter().map(|(at, _)| at.clone()).collect()))
}

/// The words after the first.
struct Sentence<'a, 'r> {
    words: &'a [Word<'a>],
    report: &'r mut Report,
}

impl Sentence<'_, '_> {
    fn read<T>(&mut self, nth: usize, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let (at, word) = self.words.get(nth)?;
        read(word).map_err(|why| self.report.add(at, why)).ok()
    }

    fn member(&mut self, nth: usize) -> Option<MemberName> {
        self.read(nth, shape::member)
    }

    fn id(&mut self) -> Option<ResourceId> {
        self.read(0, shape::id)
    }

    fn understood(mut self, verb: &str) -> Option<Do> {
        Some(match verb {
            "power-on" => Do::PowerOn(self.member(0)?),
            "power-off" => Do::PowerOff(self.member(0)?),
            "isolate" => Do::Isolate(self.member(0)?),
            "rejoin" => Do::Rejoin(self.member(0)?),
            "cut" => Do::Cut(self.member(0)?, self.member(1)?),
            "heal" => Do::Heal(self.member(0)?, self.member(1)?),
            "freeze" => Do::Freeze(self.member(0)?),
            "thaw" => Do::Thaw(self.member(0)?),
            "kill-agent" => Do::KillAgent(self.member(0)?),
            "shutdown" => Do::Shutdown(self.member(0)?),
            "reboot" => Do::Reboot(self.member(0)?),
            "maintenance" => {
                let node = self.member(0)?;
                Do::Maintenance { node, on: self.read(1, |word| one_of(word, &[("on", true), ("off", false)]))? }
            }
            "restart-agent" => Do::RestartAgent(self.member(0)?),
            "disarm" => {
                let modes = [("freeze", Disarm::Freeze), ("ignore", Disarm::Ignore)];
                Do::Disarm(self.read(0, |word| one_of(word, &modes))?)
            }
            "arm" => Do::Arm,
            "set" => Do::Set { id: self.id()?, state: self.read(1, wanted)? },
            "migrate" => Do::Migrate { id: self.id()?, to: self.member(1)? },
            "relocate" => Do::Relocate { id: self.id()?, to: self.member(1)? },
            "add" => {
                let (id, node) = (self.id()?, self.member(1)?);
                let state = match self.words.get(2) {
                    Some(_) => self.read(2, |word| one_of(word, &REQUESTED))?,
                    None => Requested::Started,
                };
                Do::Add { id, node, state }
            }
            "remove" => Do::Remove { id: self.id()? },
            "fail" => Do::Fail { id: self.id()? },
            "lock" => Do::Lock { id: self.id()? },
            "unlock" => Do::Unlock { id: self.id()? },
            "bmc" => Do::Bmc { node: self.member(0)?, mode: self.read(1, |word| shape::bmc(word, false))? },
            "drift" => Do::Drift { member: self.member(0)?, ppm: self.read(1, ppm)? },
            "disk-stall" => Do::DiskStall { member: self.member(0)?, span: self.read(1, seconds)? },
            "lose-disk" => Do::LoseDisk(self.member(0)?),
            _ => return None,
        })
    }
}

fn wanted(word: &str) -> Result<Requested, String> {
    match word.split_once('=') {
        Some(("state", state)) => one_of(state, &REQUESTED),
        Some(_) | None => Err(format!("{word:?} can't be set: write \"state=started\", or another state")),
    }
}

fn ppm(word: &str) -> Result<i32, String> {
    let bounds = -DRIFT_MAX..=DRIFT_MAX;
    word.parse()
        .ok()
        .filter(|ppm| bounds.contains(ppm))
        .ok_or_else(|| format!("{word:?} is no drift: write whole parts per million, from -{DRIFT_MAX} to {DRIFT_MAX}"))
}

/// Seconds, with or without their unit.
pub(super) fn seconds(word: &str) -> Result<Duration, String> {
    if word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        units::span(&format!("{word}s"))
    } else {
        units::span(word)
    }
}
