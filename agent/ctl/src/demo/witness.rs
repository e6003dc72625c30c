//! Watching the cluster from outside, as an operator would: the decisions and the status, asked again and again of
//! every member that can still be asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tiebreaker_member::core::{Reply, Request, Status};
use tiebreaker_pipeline::decision::LogLine;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::chassis::Happened;
use super::machine::News;
use super::stage::Stage;
use super::timeline::Timeline;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::render;

/// Between two looks at one member: how exactly the demo knows when something was decided.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A member that doesn't answer within this time is asked anew: it may have passed the question on to a leader that has
/// died, and wait for that.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// The end of the timeline that is asked for.
const LAST_LINES: usize = 100;
/// Sightings that wait to be looked at.
const SIGHTINGS_MAX: usize = 64;
/// Conditions on anything else than sightings are looked at this often.
const NOD: Duration = Duration::from_millis(20);

struct Sighting {
    member: String,
    at: Instant,
    lines: Vec<LogLine>,
    status: Status,
}

/// All that was seen so far.
#[derive(Default)]
pub struct Seen {
    known: BTreeSet<(u64, String)>,
    /// The decisions, each with the moment at which it was seen first.
    pub lines: Vec<(Instant, LogLine)>,
    statuses: BTreeMap<String, (Instant, Status)>,
}

impl Seen {
    /// The newest status of a member that knows a leader, from after `since`.
    #[must_use]
    pub fn status_since(&self, since: Instant) -> Option<&Status> {
        let fresh = self.statuses.values().filter(|(at, status)| *at > since && status.leader.is_some());
        fresh.max_by_key(|(at, status)| (status.term, *at)).map(|(_, status)| status)
    }

    /// The newest status of a member that knows a leader.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        let led = self.statuses.values().filter(|(_, status)| status.leader.is_some());
        led.max_by_key(|(at, status)| (status.term, *at)).map(|(_, status)| status)
    }

    /// The decisions after a log index, with the moments at which they were seen first.
    pub fn lines_after(&self, index: u64) -> impl Iterator<Item = &(Instant, LogLine)> {
        self.lines.iter().filter(move |(_, line)| line.index > index)
    }

    fn note(&mut self, sighting: Sighting, timeline: &Timeline) {
        let Sighting { member, at, lines, status } = sighting;
        for line in lines {
            if self.known.insert((line.index, line.decision.to_string())) {
                timeline.happened(at, &line.decision.to_string());
                self.lines.push((at, line));
            }
        }
        self.statuses.insert(member, (at, status));
    }
}

/// The witness.
pub struct Witness {
    /// What it has seen.
    pub seen: Seen,
    sightings: mpsc::Receiver<Sighting>,
    ignored: watch::Sender<BTreeSet<String>>,
    timeline: Timeline,
    _tasks: JoinSet<()>,
}

impl Witness {
    /// Starts to watch.
    #[must_use]
    pub fn start(sockets: Vec<(&'static str, PathBuf)>, timeline: Timeline) -> Self {
        let (say, sightings) = mpsc::channel(SIGHTINGS_MAX);
        let (ignored, ignores) = watch::channel(BTreeSet::new());
        let mut tasks = JoinSet::new();
        for (member, socket) in sockets {
            tasks.spawn(look(member.to_owned(), socket, ignores.clone(), say.clone()));
        }
        Self { seen: Seen::default(), sightings, ignored, timeline, _tasks: tasks }
    }

    /// From now on nothing is asked of this member: who is broken is no witness.
    pub fn ignore(&mut self, member: &str) {
        self.ignored.send_modify(|ignored| {
            ignored.insert(member.to_owned());
        });
        self.seen.statuses.remove(member);
    }

    /// Ask it again.
    pub fn heed(&mut self, member: &str) {
        self.ignored.send_modify(|ignored| {
            ignored.remove(member);
        });
    }

    /// Watches until `found` says what was waited for.
    ///
    /// # Errors
    /// When it doesn't come in time: says what was waited for, and what holds instead.
    pub async fn until<T>(
        &mut self,
        stage: &mut Stage,
        what: &str,
        within: Duration,
        mut found: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + within;
        loop {
            if let Some(found) = found(&self.seen) {
                return Ok(found);
            }
            if Instant::now() >= end {
                let holds = self.seen.status().map_or_else(|| "nobody leads\n".to_owned(), render::status);
                bail!("waited {within:?} in vain until {what}; at last:\n{holds}");
            }
            self.watch(stage).await;
        }
    }

    /// Watches for a while.
    pub async fn hold(&mut self, stage: &mut Stage, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.watch(stage).await;
        }
    }

    async fn watch(&mut self, stage: &mut Stage) {
        tokio::select! {
            Some(sighting) = self.sightings.recv() => {
                if !self.ignored.borrow().contains(&sighting.member) {
                    self.seen.note(sighting, &self.timeline);
                }
            }
            Some(news) = stage.news.recv() => {
                if let Some(text) = describe(&news) {
                    self.timeline.happened(news.at, &text);
                }
            }
            () = tokio::time::sleep(NOD) => {}
        }
    }
}

fn describe(News { machine, what, .. }: &News) -> Option<String> {
    Some(match what {
        Happened::Ready { .. } => return None,
        Happened::Booted => format!("{machine}: its program starts"),
        Happened::Off { by_bmc: true, killed } => format!("{machine}: its BMC switches it off, {killed} processes die"),
        Happened::Off { by_bmc: false, killed } => format!("{machine}: its power is cut, {killed} processes die"),
        Happened::On { by_bmc: true } => format!("{machine}: its BMC switches it on"),
        Happened::On { by_bmc: false } => format!("{machine}: its power comes on"),
        Happened::Crashed { killed } => format!("{machine}: all of its {killed} processes die, its power stays on"),
        Happened::Signalled { pid } => format!("{machine}: its agent, process {pid}, gets the signal"),
        Happened::Ended { status } => format!("{machine}: its program ends ({status})"),
        Happened::Reset { why, killed } => format!("{machine}: its watchdog resets it, {killed} processes die ({why})"),
        Happened::Failed { why } => format!("{machine}: {why}"),
    })
}

async fn look(
    member: String,
    socket: PathBuf,
    ignored: watch::Receiver<BTreeSet<String>>,
    say: mpsc::Sender<Sighting>,
) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection: Option<Connection> = None;
    loop {
        every.tick().await;
        if ignored.borrow().contains(&member) {
            connection = None;
            continue;
        }
        // Who can't be asked is asked again: that is what a witness of failures is for.
        let looked = timeout(ANSWER_WITHIN, once(&mut connection, &socket)).await;
        let Ok(Ok((lines, status))) = looked else {
            connection = None;
            continue;
        };
        let sighting = Sighting { member: member.clone(), at: Instant::now(), lines, status };
        if say.send(sighting).await.is_err() {
            return;
        }
    }
}

async fn once(connection: &mut Option<Connection>, socket: &Path) -> Result<(Vec<LogLine>, Status), Failure> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::local(socket, None).await?),
    };
    let nonsense = || Failure::demo(anyhow::anyhow!("a member answered something else than was asked"));
    let Reply::Log { lines } = open.ask(Request::Log { last: LAST_LINES }).await? else { return Err(nonsense()) };
    let Reply::Status(status) = open.ask(Request::Status).await? else { return Err(nonsense()) };
    Ok((lines, *status))
}
