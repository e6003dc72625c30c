//! The agent's side of operations.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use tiebreaker_member::clock;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::block_in_place;

use super::cleanup::kill_operation;
use super::mark::{AGENT, MARK, Mark};
use super::record::{Done, Keep, Order, Record, Records};
use crate::processes::{KillError, Stat};

/// How much of a program's output an outcome shows, from its end.
pub const OUTPUT_TAIL: u64 = 4096;

/// A file of output that grows past this is emptied.
const OUTPUT_MAX: u64 = 1024 * 1024;

/// How often a running program's file of output is looked at.
const OUTPUT_LOOK: Duration = Duration::from_millis(250);

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Starts the resource. What it leaves behind on success is the workload.
    Start,
    /// Stops the resource.
    Stop,
    /// Looks whether it runs.
    Monitor,
    /// Moves it live to another node.
    Migrate,
    /// Finishes a live move at its target. What it leaves behind on success is the workload.
    Receive,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [Self::Start, Self::Stop, Self::Monitor, Self::Migrate, Self::Receive];

    /// The word for it in names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Monitor => "monitor",
            Self::Migrate => "migrate_to",
            Self::Receive => "migrate_from",
        }
    }
}

/// One operation to run.
#[derive(Clone, PartialEq, Eq)]
pub struct OperationRequest {
    /// Whose operation it is: letters, digits, '-', '_', '.' and ':'.
    pub resource: String,
    /// What it does.
    pub kind: Kind,
    /// The program, by its absolute path or to be found in PATH, and its arguments.
    pub argv: Vec<String>,
    /// Variables for it, on top of the common ones.
    pub env: BTreeMap<String, String>,
    /// How long it may take.
    pub deadline: Duration,
}

impl fmt::Debug for OperationRequest {
    /// Without the values of its variables, among which are the parameters of resources: some of them are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperationRequest")
            .field("resource", &self.resource)
            .field("kind", &self.kind)
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// How an operation ended. Says nothing about whether the resource runs: that is what a probe is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The program exited with 0.
    Done,
    /// The program exited with another code, was ended by a signal (`code` is 128 + its number), or could not be
    /// started (127).
    Failed {
        /// The exit code.
        code: i32,
        /// The end of what it wrote.
        output: String,
    },
    /// It was not done in time; it was killed.
    TimedOut,
    /// It was cancelled; it was killed.
    Cancelled,
    /// Its unit was killed by somebody else, and so was the rest of it, by us.
    KilledLeftover,
}

/// Why an operation was not run, or what became of it is unknown. The resource counts as running.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// Another operation of the same resource runs, or one that was killed would not die.
    #[error("operation {name} of this resource still runs")]
    InFlight {
        /// Its name.
        name: String,
    },
    /// What was killed is still there.
    #[error("operation {name} could not be killed")]
    Unkillable {
        /// Its name.
        name: String,
        /// What survived.
        #[source]
        source: KillError,
    },
    /// A resource's name that can't be part of a file's.
    #[error("{resource:?} can't name a resource's operation")]
    Name {
        /// The name.
        resource: String,
    },
    /// Another agent runs on this node.
    #[error("another agent works in {path}; there must be one per node")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("could not {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Names of resources become parts of files' names.
fn names_a_file(resource: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !resource.is_empty() && !resource.starts_with('.') && resource.bytes().all(fine)
}

fn system(what: &'static str) -> impl Fn(io::Error) -> OperationError {
    move |source| OperationError::System { what, source }
}

/// Where operations live, and what they see.
#[derive(Clone, Debug)]
pub struct OperationsConfig {
    /// A folder of this node's agent alone, on a file system that a reboot empties (`/run/…`).
    pub runtime_dir: PathBuf,
    /// How to run a unit: `/proc/self/exe op-exec`, but in tests. What it runs calls [`super::op_exec`].
    pub unit: Vec<OsString>,
    /// Variables for all programs; they may replace PATH and LANG.
    pub env: BTreeMap<String, String>,
}

impl OperationsConfig {
    /// Units run by this very binary, also after its file was replaced by an upgrade.
    #[must_use]
    pub fn new(runtime_dir: PathBuf) -> Self {
        Self { runtime_dir, unit: vec!["/proc/self/exe".into(), "op-exec".into()], env: BTreeMap::new() }
    }
}

/// What an earlier agent left behind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leftovers {
    /// Operations that ran, or whose unit had been killed; nothing of them is left.
    pub killed: Vec<String>,
    /// Operations of which something would not die. Their resources are in flight.
    pub stuck: Vec<String>,
}

/// All operations of this node. One per node, by a lock in its folder.
#[derive(Debug)]
pub struct Operations {
    config: OperationsConfig,
    records: Records,
    outputs: PathBuf,
    boot: String,
    state: Arc<Mutex<State>>,
    _lock: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    /// By resource: what is in flight.
    flights: BTreeMap<String, Flight>,
    /// By resource: the operation that is about to be run.
    announced: BTreeMap<String, Announcement>,
    last_number: u64,
    last_announced: u64,
}

#[derive(Debug)]
struct Announcement {
    number: u64,
    cancelled: bool,
}

/// An operation that is about to be run: [`Operations::cancel`] finds it, too. Dropped once it has been run.
#[derive(Debug)]
pub struct Announced {
    state: Arc<Mutex<State>>,
    resource: String,
    number: u64,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        // A later one of the same resource is not this one's to end.
        if state.announced.get(&self.resource).is_some_and(|announcement| announcement.number == self.number) {
            state.announced.remove(&self.resource);
        }
    }
}

#[derive(Debug)]
enum Flight {
    /// Runs; the sender cancels it.
    Running { name: String, cancel: Option<oneshot::Sender<()>> },
    /// Was killed and is still there.
    Stuck(Record),
}

impl Flight {
    fn name(&self) -> &str {
        match self {
            Self::Running { name, .. } => name,
            Self::Stuck(record) => &record.name,
        }
    }
}

impl Operations {
    /// Takes the node's lock and kills what an earlier agent left running, before anything is probed. Blocks for as
    /// long as that takes: 5 s for each operation that won't die.
    pub fn open(config: OperationsConfig) -> Result<(Self, Leftovers), OperationError> {
        let (folder, outputs) = (config.runtime_dir.join("ops"), config.runtime_dir.join("output"));
        // Agents that run as another user look for their state below this folder; records and output are ours alone.
        fs::create_dir_all(&config.runtime_dir).map_err(system("make the agent's runtime folder"))?;
        for path in [&folder, &outputs] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(system("make the folder for operations"))?;
        }
        let lock = lock(&config.runtime_dir)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(system("read the boot id"))?;
        let records = Records::new(folder);
        let mut leftovers = Leftovers::default();
        let mut state = State::default();
        for record in records.all().map_err(system("read the records of operations"))? {
            let complete = matches!(
                records.done(&record.name).map_err(system("read an operation's outcome"))?,
                Some(Done::Exited(_) | Done::Signalled(_) | Done::NotStarted(_))
            );
            // Processes of another boot are gone, and their ids may name others now.
            if complete || record.boot != boot.trim() {
                records.forget(&record.name).map_err(system("forget an operation"))?;
                continue;
            }
            match kill_operation(&record) {
                Ok(processes) => {
                    tracing::info!(operation = record.name, processes, "a leftover operation was killed");
                    records.forget(&record.name).map_err(system("forget an operation"))?;
                    leftovers.killed.push(record.name);
                }
                Err(error) => {
                    tracing::error!(operation = record.name, %error, "a leftover operation could not be killed");
                    leftovers.stuck.push(record.name.clone());
                    state.flights.insert(record.resource.clone(), Flight::Stuck(record));
                }
            }
        }
        let boot = boot.trim().to_owned();
        let operations = Self { config, records, outputs, boot, state: Arc::new(Mutex::new(state)), _lock: lock };
        Ok((operations, leftovers))
    }

    /// The folder that this was opened with.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.config.runtime_dir
    }

    /// The resources with an operation that runs, or that would not die. All of them count as running.
    #[must_use]
    pub fn in_flight(&self) -> BTreeSet<String> {
        self.state().flights.keys().cloned().collect()
    }

    /// Announces an operation of the resource that somebody is about to run, so that a cancellation that comes before
    /// [`Operations::run`] does is not lost: nothing is run then.
    #[must_use]
    pub fn announce(&self, resource: &str) -> Announced {
        let mut state = self.state();
        state.last_announced += 1;
        let number = state.last_announced;
        state.announced.insert(resource.to_owned(), Announcement { number, cancelled: false });
        Announced { state: Arc::clone(&self.state), resource: resource.to_owned(), number }
    }

    /// Runs an operation to its end, its deadline or its cancellation.
    ///
    /// The operation doesn't hang on the returned future: dropped, it leaves the operation running, and in flight. Must
    /// be called in a multi-threaded runtime: files are written in place.
    pub async fn run(&self, request: OperationRequest) -> Result<Outcome, OperationError> {
        if !names_a_file(&request.resource) {
            return Err(OperationError::Name { resource: request.resource });
        }
        self.retry_stuck(&request.resource).await?;
        let (cancel, cancelled) = oneshot::channel();
        let Some(name) = self.begin(&request, cancel)? else { return Ok(Outcome::Cancelled) };
        let flight = FlightGuard { state: Arc::clone(&self.state), resource: request.resource.clone(), stuck: None };
        let task = Task {
            records: self.records.clone(),
            unit: self.config.unit.clone(),
            record_boot: self.boot.clone(),
            order: self.order(&name, &request),
            name,
            request,
            flight,
        };
        let running = tokio::spawn(task.run(cancelled));
        running.await.map_err(|error| system("wait for an operation")(io::Error::other(error)))?
    }

    /// Cancels the resource's running or announced operation, if there is one; its `run` returns
    /// [`Outcome::Cancelled`] once nothing of it is left.
    pub fn cancel(&self, resource: &str) {
        let mut state = self.state();
        if let Some(announcement) = state.announced.get_mut(resource) {
            announcement.cancelled = true;
        }
        if let Some(Flight::Running { cancel, .. }) = state.flights.get_mut(resource)
            && let Some(cancel) = cancel.take()
        {
            // If it has just ended, there is nothing to cancel any more.
            let _ended = cancel.send(());
        }
    }

    /// Kills again what would not die before.
    async fn retry_stuck(&self, resource: &str) -> Result<(), OperationError> {
        let record = match self.state().flights.get(resource) {
            None => return Ok(()),
            Some(Flight::Running { name, .. }) => return Err(OperationError::InFlight { name: name.clone() }),
            Some(Flight::Stuck(record)) => record.clone(),
        };
        kill(&record).await?;
        block_in_place(|| self.records.forget(&record.name)).map_err(system("forget an operation"))?;
        let mut state = self.state();
        if matches!(state.flights.get(resource), Some(Flight::Stuck(stuck)) if *stuck == record) {
            state.flights.remove(resource);
        }
        Ok(())
    }

    /// Takes off, unless it was cancelled before.
    fn begin(&self, request: &OperationRequest, cancel: oneshot::Sender<()>) -> Result<Option<String>, OperationError> {
        let mut state = self.state();
        if state.announced.get(&request.resource).is_some_and(|announcement| announcement.cancelled) {
            return Ok(None);
        }
        if let Some(flight) = state.flights.get(&request.resource) {
            return Err(OperationError::InFlight { name: flight.name().to_owned() });
        }
        // The time since boot makes it larger than any number of an earlier agent of this boot, so that no workload
        // ever carries the mark of a later operation.
        state.last_number = clock::now().boottime_ns.max(state.last_number + 1);
        let name = Mark::name(&request.resource, request.kind, state.last_number);
        let flight = Flight::Running { name: name.clone(), cancel: Some(cancel) };
        state.flights.insert(request.resource.clone(), flight);
        Ok(Some(name))
    }

    fn order(&self, name: &str, request: &OperationRequest) -> Order {
        let common = [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
        let mut env: BTreeMap<String, String> =
            common.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        env.extend(self.config.env.clone());
        env.extend(request.env.clone());
        env.insert(MARK.to_owned(), name.to_owned());
        env.insert("TIEBREAKER_RESOURCE".to_owned(), request.resource.clone());
        env.insert(AGENT.to_owned(), self.config.runtime_dir.to_string_lossy().into_owned());
        Order {
            argv: request.argv.clone(),
            env,
            output: self.outputs.join(format!("{}.{}", request.resource, request.kind.as_str())),
            done: self.records.done_path(name),
            keep: match request.kind {
                Kind::Start | Kind::Receive => Keep::AllIfSuccessful,
                Kind::Stop | Kind::Monitor | Kind::Migrate => Keep::OtherSessions,
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code that holds the lock can stop half-way through a change.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock(folder: &Path) -> Result<OwnedFd, OperationError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = rustix::fs::open(folder.join("agent.lock"), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| system("open the agent's lock")(errno.into()))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OperationError::Busy { path: folder.into() }),
        Err(errno) => Err(system("take the agent's lock")(errno.into())),
    }
}

async fn kill(record: &Record) -> Result<(), OperationError> {
    let (record, name) = (record.clone(), record.name.clone());
    let killed = tokio::task::spawn_blocking(move || kill_operation(&record)).await;
    match killed {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(OperationError::Unkillable { name, source }),
        Err(error) => Err(system("kill an operation")(io::Error::other(error))),
    }
}

/// Ends a resource's flight when its task ends, however that is.
struct FlightGuard {
    state: Arc<Mutex<State>>,
    resource: String,
    /// What might still be there.
    stuck: Option<Record>,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        match self.stuck.take() {
            Some(record) => state.flights.insert(self.resource.clone(), Flight::Stuck(record)),
            None => state.flights.remove(&self.resource),
        };
    }
}

/// A running operation.
struct Task {
    records: Records,
    unit: Vec<OsString>,
    record_boot: String,
    order: Order,
    name: String,
    request: OperationRequest,
    flight: FlightGuard,
}

/// Why waiting for a unit ended.
enum Ended {
    ByItself,
    Deadline,
    Cancelled,
}

impl Task {
    async fn run(mut self, mut cancelled: oneshot::Receiver<()>) -> Result<Outcome, OperationError> {
        let order = self.order.encode().map_err(system("write an operation's order"))?;
        let begun = block_in_place(|| {
            self.empty_output().map_err(system("empty a program's file of output"))?;
            if cancelled.try_recv().is_ok() {
                return Ok(None);
            }
            let unit = self.spawn()?;
            let record = self.record(&unit)?;
            Ok(Some((unit, record)))
        })?;
        let Some((mut unit, record)) = begun else { return Ok(Outcome::Cancelled) };
        // From here on, whatever ends this task early leaves the operation in flight until it was seen dead.
        self.flight.stuck = Some(record.clone());
        let ended = self.watch(&mut unit, &order, cancelled).await;
        let done = block_in_place(|| self.records.done(&self.name)).map_err(system("read an operation's outcome"))?;
        let outcome = match (&ended, done) {
            (Ok(Ended::ByItself), Some(Done::Exited(0))) => Outcome::Done,
            (Ok(Ended::ByItself), Some(Done::Exited(code))) => block_in_place(|| self.failed(code)),
            (Ok(Ended::ByItself), Some(Done::Signalled(number))) => block_in_place(|| self.failed(128 + number)),
            (Ok(Ended::ByItself), Some(Done::NotStarted(why))) => Outcome::Failed { code: 127, output: why },
            (Ok(Ended::ByItself), Some(Done::Abandoned | Done::Survivors) | None) => {
                kill(&record).await?;
                Outcome::KilledLeftover
            }
            (Ok(Ended::Deadline), _) => {
                kill(&record).await?;
                Outcome::TimedOut
            }
            (Ok(Ended::Cancelled), _) => {
                kill(&record).await?;
                Outcome::Cancelled
            }
            (Err(_), _) => {
                kill(&record).await?;
                Outcome::KilledLeftover
            }
        };
        block_in_place(|| self.records.forget(&self.name)).map_err(system("forget an operation"))?;
        self.flight.stuck = None;
        ended.map(|_| outcome)
    }

    fn spawn(&self) -> Result<Child, OperationError> {
        let failed = system("start an operation's unit");
        let (program, arguments) =
            self.unit.split_first().ok_or(io::ErrorKind::InvalidInput).map_err(|kind| failed(kind.into()))?;
        Command::new(program)
            .args(arguments)
            .env_clear()
            .env(MARK, &self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map_err(failed)
    }

    /// Writes the record of a unit that waits for its order.
    fn record(&self, unit: &Child) -> Result<Record, OperationError> {
        let failed = system("write the record of an operation");
        let pid = unit.id().and_then(|pid| i32::try_from(pid).ok());
        // The unit can't have been collected yet, so it is found even if it has died.
        let stat = pid.and_then(Stat::read).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let record = Record {
            name: self.name.clone(),
            resource: self.request.resource.clone(),
            pid: stat.pid,
            started: stat.started,
            boot: self.record_boot.clone(),
        };
        // On an error the unit is never told what to run: its input ends as this task does.
        self.records.write(&record).map_err(failed)?;
        Ok(record)
    }

    async fn watch(
        &self,
        unit: &mut Child,
        order: &[u8],
        mut cancelled: oneshot::Receiver<()>,
    ) -> Result<Ended, OperationError> {
        // Held open until this returns: its end tells the unit to kill everything.
        let mut input =
            unit.stdin.take().ok_or_else(|| system("reach an operation's unit")(io::ErrorKind::NotFound.into()))?;
        let deadline = tokio::time::sleep(self.request.deadline);
        tokio::pin!(deadline);
        // One future across all turns: begun again, it would write the order's beginning twice.
        let sending = input.write_all(order);
        tokio::pin!(sending);
        let mut ordered = false;
        let mut look = tokio::time::interval(OUTPUT_LOOK);
        loop {
            tokio::select! {
                biased;
                // First, so that an order that is not sent yet is not sent any more.
                Ok(()) = &mut cancelled => return Ok(Ended::Cancelled),
                sent = &mut sending, if !ordered => {
                    if sent.is_err() {
                        // The unit is gone; that is seen below.
                        tracing::warn!(operation = self.name, "an operation's unit took no order");
                    }
                    ordered = true;
                }
                ended = unit.wait() => return ended.map(|_| Ended::ByItself).map_err(system("wait for an operation")),
                () = &mut deadline => return Ok(Ended::Deadline),
                _ = look.tick() => block_in_place(|| self.bound_output()),
            }
        }
    }

    fn failed(&self, code: i32) -> Outcome {
        Outcome::Failed { code, output: tail(&self.order.output) }
    }

    fn empty_output(&self) -> io::Result<()> {
        match fs::OpenOptions::new().write(true).truncate(true).open(&self.order.output) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Empties the files of output that have grown too long: this operation's, and that of the start, which the
    /// workload may still write. Both append, so what comes next begins the file again.
    fn bound_output(&self) {
        let of_start = self.order.output.with_file_name(format!("{}.{}", self.request.resource, Kind::Start.as_str()));
        for path in [&self.order.output, &of_start] {
            let emptied = match fs::metadata(path) {
                Ok(metadata) if metadata.len() > OUTPUT_MAX => {
                    fs::OpenOptions::new().write(true).truncate(true).open(path).map(drop)
                }
                _ => Ok(()),
            };
            if let Err(error) = emptied {
                tracing::warn!(%error, path = %path.display(), "a file of output could not be emptied");
            }
        }
    }
}

/// The last of a file of output, for people; says so if it can't be read.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(OUTPUT_TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(error) => format!("(its output could not be read: {error})"),
    }
}
