//! The supervisor's process.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::WaitOptions;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::Serialize;
use tiebreaker_member::clock;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::config::{BOOT_ID_VARIABLE, GOING_VARIABLE, SupervisorConfig, SupervisorError, WATCHDOG_VARIABLE};
use super::device::SimulatedDevice;
use super::keeper::{Keeper, receive};
use crate::processes::kill_descendants;
use crate::sys;
use crate::watchdog::{Reply, Request};
use tiebreaker_member::service_manager as fdstore;
use tiebreaker_member::service_manager::SUPERVISOR_VARIABLE;

/// An agent that lives this long is well: the next restart is quick again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Connections to the simulated watchdog at one time; an agent needs one, and one more while it is replaced.
const CONNECTIONS_MAX: usize = 8;

/// In the runtime folder: how the machine goes, while it does.
const GOING_FILE: &str = "going";

/// Requests on their way from connections to the watchdog.
const REQUESTS_MAX: usize = 64;

/// One line of the supervisor's output: what it did, and why.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Report<'a> {
    /// The agent runs; `boot` is the id of this boot.
    Started { pid: u32, boot: &'a str },
    /// The agent could not be started.
    NotStarted { why: String, retry_ms: u128 },
    /// The agent has ended and will be started again on the same boot. The watchdog is as it was.
    AgentExited { status: String, restart_ms: u128, watchdog_armed: bool },
    /// The watchdog was armed.
    Armed { timeout_ms: u128 },
    /// The watchdog was disarmed.
    Disarmed,
    /// The watchdog was not petted in time: everything on the node was killed.
    Reset { why: String, killed: usize, reboot_ms: u128 },
    /// The machine was told to reboot: its agent has ended, and then everything else.
    Rebooted { killed: usize, reboot_ms: u128 },
    /// Something would not die; it is tried again and the node stays down meanwhile.
    KillFailed { why: String },
    /// The supervisor was told to end and has killed everything.
    Stopped { killed: usize },
}

impl Report<'_> {
    fn print(&self) {
        let mut line = serde_json::to_vec(self).expect("a report is plain data");
        line.push(b'\n');
        // Nobody may be reading; the node is supervised all the same.
        let _unread = io::stdout().lock().write_all(&line);
    }
}

/// Runs the agent, and a simulated watchdog beside it, until SIGTERM or SIGINT; then kills everything that the agent
/// and its workloads have started.
///
/// The agent is started again whenever it exits, on the same boot and with the watchdog as it is: its death neither
/// pets nor disarms. On SIGUSR1 the machine reboots in good order: the agent is told to end, for as long as it takes, and
/// how its machine goes; then everything else is killed, and it boots anew. Once armed and not petted for its timeout, the watchdog kills every descendant, whatever its
/// session or process group, and then "reboots": a new boot id, an empty descriptor store, a disarmed watchdog.
///
/// Blocks; call it on the process's main thread and start no thread before. The agent dies with that thread
/// (PR_SET_PDEATHSIG). **Limit**: if the supervisor alone is killed by SIGKILL, the agent dies with it and running
/// operations with the agent, but workloads in sessions of their own live on, unwatched.
///
/// What it does goes to the standard output, one JSON object per line.
pub fn run(config: &SupervisorConfig) -> Result<(), SupervisorError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("start its event loop"))?;
    runtime.block_on(async { Supervisor::new(config)?.run().await })
}

fn system(what: &'static str) -> impl Fn(io::Error) -> SupervisorError {
    move |source| SupervisorError::System { what, source }
}

/// A request from a connection, and where its answer goes.
struct Asked {
    /// The boot that the connection was made in.
    boot_number: u64,
    request: Request,
    answer: Option<oneshot::Sender<Reply>>,
}

/// How a boot ends.
#[derive(Clone)]
enum End {
    /// By the watchdog, for this reason.
    Reset(String),
    /// In good order, as somebody asked.
    Reboot,
}

/// Where the node is in its life.
enum Node {
    /// The agent runs.
    Up { pid: u32, since: Instant, going: bool },
    /// The agent is started at this time.
    Down { start_at: Instant },
    /// Everything is to be killed, and could not be so far.
    Dying { end: End, retry_at: Instant },
}

struct Supervisor<'a> {
    config: &'a SupervisorConfig,
    node: Node,
    boot: String,
    /// Counts the boots; what was said in an earlier one is not heard in this one.
    boot_number: u64,
    device: SimulatedDevice,
    keeper: Keeper,
    restart_delay: Duration,
    timer: AsyncFd<OwnedFd>,
    notify: AsyncFd<OwnedFd>,
    listener: AsyncFd<OwnedFd>,
    asked: mpsc::Receiver<Asked>,
    ask: mpsc::Sender<Asked>,
    connections: std::sync::Arc<tokio::sync::Semaphore>,
    notify_path: PathBuf,
    watchdog_path: PathBuf,
    /// Held for as long as the supervisor runs.
    _lock: OwnedFd,
}

impl<'a> Supervisor<'a> {
    fn new(config: &'a SupervisorConfig) -> Result<Self, SupervisorError> {
        if config.command.is_empty() {
            return Err(SupervisorError::NoCommand);
        }
        let folder = &config.runtime_dir;
        // Only this user may pet or disarm.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(system("make its runtime folder"))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(system("close its runtime folder"))?;
        let lock = lock(folder)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| system("become the parent of orphans")(errno.into()))?;
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
                .map_err(|errno| system("make a timer")(errno.into()))?;
        let (notify_path, watchdog_path) = (folder.join("notify.sock"), folder.join("watchdog.sock"));
        let notify = socket(&notify_path, SocketType::DGRAM).map_err(system("make its notification socket"))?;
        let listener = socket(&watchdog_path, SocketType::SEQPACKET)
            .and_then(|socket| {
                rustix::net::listen(&socket, 8)?;
                Ok(socket)
            })
            .map_err(system("make the watchdog's socket"))?;
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        let readable = |fd| sys::watch_readable(fd).map_err(system("watch its sockets"));
        Ok(Self {
            config,
            node: Node::Down { start_at: Instant::now() },
            boot: new_boot_id()?,
            boot_number: 0,
            device: SimulatedDevice::default(),
            keeper: Keeper::default(),
            restart_delay: config.restart_delay,
            timer: readable(timer)?,
            notify: readable(notify)?,
            listener: readable(listener)?,
            asked,
            ask,
            connections: std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX)),
            notify_path,
            watchdog_path,
            _lock: lock,
        })
    }

    async fn run(mut self) -> Result<(), SupervisorError> {
        let on = |kind| signal(kind).map_err(system("listen to signals"));
        let (mut terminate, mut interrupt, mut child) =
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::child())?);
        let mut reboot = on(SignalKind::user_defined1())?;
        loop {
            self.collect()?;
            // The watchdog is looked at before any pet that waits to be read: none may save a countdown that ran out.
            if self.device.expired(clock::now().boottime_ns) {
                let timeout = self.device.timeout().unwrap_or_default();
                self.end(End::Reset(format!("the watchdog was not petted for {} ms", timeout.as_millis())));
            }
            self.set_timer()?;
            let wake_at = match &self.node {
                Node::Up { .. } => None,
                Node::Down { start_at } => Some(*start_at),
                Node::Dying { retry_at, .. } => Some(*retry_at),
            };
            tokio::select! {
                biased;
                () = ended(&mut terminate, &mut interrupt) => {
                    return self.stop().await;
                }
                ready = self.timer.readable() => {
                    let mut ready = ready.map_err(system("watch its timer"))?;
                    // The timer only wakes the loop, which judges by the clock.
                    let mut ticks = [0; 8];
                    if rustix::io::read(ready.get_inner(), &mut ticks).is_err() {
                        ready.clear_ready();
                    }
                }
                _ = child.recv() => {}
                _ = reboot.recv() => self.reboot()?,
                () = sleep_until(wake_at) => self.wake()?,
                asked = self.asked.recv() => {
                    if let Some(asked) = asked {
                        self.answer(asked);
                    }
                }
                ready = self.notify.readable() => {
                    let mut ready = ready.map_err(system("watch its notification socket"))?;
                    match receive(ready.get_inner().as_fd()) {
                        Ok(said) => {
                            if let Some(word) = self.keeper.hear(said) {
                                tracing::debug!("{word}");
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                        Err(error) => tracing::warn!(%error, "a notification could not be read"),
                    }
                }
                ready = self.listener.readable() => {
                    let mut ready = ready.map_err(system("watch the watchdog's socket"))?;
                    match rustix::net::accept_with(ready.get_inner(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                        Ok(connection) => self.connect(connection),
                        Err(rustix::io::Errno::WOULDBLOCK) => ready.clear_ready(),
                        Err(error) => tracing::warn!(%error, "a connection to the watchdog failed"),
                    }
                }
            }
        }
    }

    /// Collects what has died; orphans too, whose parent this is.
    fn collect(&mut self) -> Result<(), SupervisorError> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Node::Up { pid: agent, since, going } = self.node
                        && pid.as_raw_nonzero().get().cast_unsigned() == agent
                    {
                        self.agent_exited(status, since);
                        if going {
                            self.end(End::Reboot);
                        }
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(system("wait for its children")(errno.into())),
            }
        }
    }

    fn agent_exited(&mut self, status: rustix::process::WaitStatus, since: Instant) {
        if since.elapsed() >= HEALTHY_AFTER {
            self.restart_delay = self.config.restart_delay;
        }
        let delay = self.restart_delay;
        self.restart_delay = (delay * 2).min(self.config.restart_delay_max);
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(number)) => format!("signal {number}"),
            (None, None) => "unknown".to_owned(),
        };
        Report::AgentExited { status, restart_ms: delay.as_millis(), watchdog_armed: self.device.timeout().is_some() }
            .print();
        self.node = Node::Down { start_at: Instant::now() + delay };
    }

    fn wake(&mut self) -> Result<(), SupervisorError> {
        match &self.node {
            Node::Up { .. } => Ok(()),
            Node::Down { .. } => self.start_agent(),
            Node::Dying { end, .. } => {
                let end = end.clone();
                self.end(end);
                Ok(())
            }
        }
    }

    /// What a machine does that is told to reboot: everybody is asked to end, and here that is the agent.
    fn reboot(&mut self) -> Result<(), SupervisorError> {
        match &mut self.node {
            Node::Up { pid, going, .. } => {
                fs::write(self.config.runtime_dir.join(GOING_FILE), "reboot")
                    .map_err(system("say how the node goes"))?;
                *going = true;
                if let Some(agent) = sys::pid(pid.cast_signed()) {
                    // It was not collected yet, so the number is its own; it may have ended a moment ago.
                    let _ended = rustix::process::kill_process(agent, rustix::process::Signal::TERM);
                }
            }
            Node::Down { .. } => self.end(End::Reboot),
            Node::Dying { .. } => {}
        }
        Ok(())
    }

    fn start_agent(&mut self) -> Result<(), SupervisorError> {
        let (program, arguments) = self.config.command.split_first().ok_or(SupervisorError::NoCommand)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(self.config.env.iter().map(|(name, value)| (name, value)))
            .env("NOTIFY_SOCKET", &self.notify_path)
            .env(fdstore::STORE_VARIABLE, fdstore::MAX_KEPT.to_string())
            .env(WATCHDOG_VARIABLE, &self.watchdog_path)
            .env(BOOT_ID_VARIABLE, &self.boot)
            .env(GOING_VARIABLE, self.config.runtime_dir.join(GOING_FILE))
            .env(SUPERVISOR_VARIABLE, std::process::id().to_string())
            .env(fdstore::KEPT_VARIABLE, self.keeper.announcement())
            // What systemd may have handed to the supervisor isn't for the agent.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES");
        sys::die_with_parent(&mut command, self.keeper.numbers());
        match command.spawn() {
            Ok(child) => {
                // Its end is seen by `collect`, which waits for all children; dropping the handle does nothing.
                let pid = child.id();
                Report::Started { pid, boot: &self.boot }.print();
                self.node = Node::Up { pid, since: Instant::now(), going: false };
            }
            Err(error) => {
                let delay = self.restart_delay;
                self.restart_delay = (delay * 2).min(self.config.restart_delay_max);
                let why = format!("{}: {error}", program.to_string_lossy());
                Report::NotStarted { why, retry_ms: delay.as_millis() }.print();
                self.node = Node::Down { start_at: Instant::now() + delay };
            }
        }
        Ok(())
    }

    /// The end of a boot: everything dies, and the machine boots again.
    fn end(&mut self, end: End) {
        match kill_descendants(std::process::id()) {
            Ok(killed) => {
                let delay = self.config.reboot_delay;
                let reboot_ms = delay.as_millis();
                match end {
                    End::Reset(why) => Report::Reset { why, killed, reboot_ms },
                    End::Reboot => Report::Rebooted { killed, reboot_ms },
                }
                .print();
                if let Err(error) = fs::remove_file(self.config.runtime_dir.join(GOING_FILE))
                    && error.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!(%error, "the next agent may take its end for a reboot");
                }
                self.device.disarm();
                self.forget_the_dead();
                self.restart_delay = self.config.restart_delay;
                match new_boot_id() {
                    Ok(boot) => {
                        self.boot = boot;
                        self.node = Node::Down { start_at: Instant::now() + delay };
                    }
                    Err(error) => {
                        // The node stays down rather than coming back as the life that was reset.
                        let why = error.to_string();
                        Report::KillFailed { why: why.clone() }.print();
                        self.node = Node::Dying { end: End::Reset(why), retry_at: Instant::now() + delay };
                    }
                }
            }
            Err(error) => {
                Report::KillFailed { why: error.to_string() }.print();
                // Nothing counts as reset while something lives. The countdown has done its work.
                self.device.disarm();
                self.node = Node::Dying { end, retry_at: Instant::now() + Duration::from_millis(100) };
            }
        }
    }

    /// Throws away what the dead had said and nobody had read: an order of theirs must not reach the next boot's
    /// watchdog, nor a descriptor its agent.
    fn forget_the_dead(&mut self) {
        self.boot_number += 1;
        // Both queues are bounded by the kernel, and nobody is alive to fill them.
        while rustix::net::accept_with(self.listener.get_ref(), SocketFlags::CLOEXEC).is_ok() {}
        while receive(self.notify.get_ref().as_fd()).is_ok() {}
        self.keeper.clear();
    }

    async fn stop(mut self) -> Result<(), SupervisorError> {
        // From here on nothing is started again; what won't die is killed until it does.
        loop {
            match kill_descendants(std::process::id()) {
                Ok(killed) => {
                    self.collect()?;
                    Report::Stopped { killed }.print();
                    for path in [&self.notify_path, &self.watchdog_path] {
                        if let Err(error) = fs::remove_file(path) {
                            tracing::debug!(%error, path = %path.display(), "a socket was not removed");
                        }
                    }
                    return Ok(());
                }
                Err(error) => {
                    Report::KillFailed { why: error.to_string() }.print();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn answer(&mut self, Asked { boot_number, request, answer }: Asked) {
        if boot_number != self.boot_number {
            return;
        }
        let now_ns = clock::now().boottime_ns;
        // The dead say nothing: only the watchdog of a node that is up can be spoken to.
        let reply = match (&self.node, request) {
            (Node::Dying { .. }, _) => None,
            (_, Request::Pet { boottime_ns }) => {
                self.device.pet(now_ns, boottime_ns);
                None
            }
            (_, Request::Arm { nonce, timeout_ms }) => {
                let timeout = Duration::from_millis(timeout_ms.into());
                self.device.arm(now_ns, timeout);
                Report::Armed { timeout_ms: timeout.as_millis() }.print();
                Some(Reply::Armed { nonce, timeout_ms })
            }
            (_, Request::Disarm { nonce }) => {
                self.device.disarm();
                Report::Disarmed.print();
                Some(Reply::Disarmed { nonce })
            }
            (_, Request::Ask { nonce }) => {
                let timeout = self.device.timeout().unwrap_or_default();
                // It was armed with a number that fits.
                Some(Reply::Runs { nonce, timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX) })
            }
        };
        if let (Some(reply), Some(answer)) = (reply, answer) {
            // The connection may have gone; what was done stays done.
            let _gone = answer.send(reply);
        }
    }

    fn connect(&mut self, connection: OwnedFd) {
        let Ok(permit) = std::sync::Arc::clone(&self.connections).try_acquire_owned() else {
            tracing::warn!("a connection to the watchdog was refused: there are too many");
            return;
        };
        let (ask, boot_number) = (self.ask.clone(), self.boot_number);
        // It ends with the connection; there are at most as many as permits.
        let _serving = tokio::spawn(async move {
            if let Err(error) = serve(connection, boot_number, ask).await {
                tracing::debug!(%error, "a connection to the watchdog ended");
            }
            drop(permit);
        });
    }

    fn set_timer(&self) -> Result<(), SupervisorError> {
        let deadline_ns = self.device.deadline_ns().unwrap_or(0);
        let value = Timespec {
            tv_sec: i64::try_from(deadline_ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (deadline_ns % 1_000_000_000) as _,
        };
        // A deadline of zero turns it off, which is what an unarmed watchdog wants.
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &setting)
            .map(drop)
            .map_err(|errno| system("set its timer")(errno.into()))
    }
}

async fn ended(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Carries one connection's requests to the watchdog, and the answers back. Its end means nothing.
async fn serve(connection: OwnedFd, boot_number: u64, ask: mpsc::Sender<Asked>) -> io::Result<()> {
    let connection = sys::watch_readable(connection)?;
    loop {
        let mut ready = connection.readable().await?;
        // One byte more than a packet, so that a longer one is seen to be none.
        let mut buffer = [0; crate::watchdog::PACKET + 1];
        let length = match rustix::net::recv(ready.get_inner(), &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Ok(()),
            Ok((length, _)) => length,
            Err(rustix::io::Errno::WOULDBLOCK) => {
                ready.clear_ready();
                continue;
            }
            Err(errno) => return Err(errno.into()),
        };
        drop(ready);
        let Some(request) = Request::decode(&buffer[..length]) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let (answer, answered) = match request {
            Request::Pet { .. } => (None, None),
            Request::Arm { .. } | Request::Disarm { .. } | Request::Ask { .. } => {
                let (answer, answered) = oneshot::channel();
                (Some(answer), Some(answered))
            }
        };
        if ask.send(Asked { boot_number, request, answer }).await.is_err() {
            return Ok(());
        }
        if let Some(answered) = answered
            && let Ok(reply) = answered.await
        {
            // One small packet for each request that was read: there is room, or the peer doesn't read and is cut off.
            rustix::net::send(&connection, &reply.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        }
    }
}

fn lock(folder: &Path) -> Result<OwnedFd, SupervisorError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let lock = rustix::fs::open(folder.join("supervisor.lock"), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| system("open its lock")(errno.into()))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SupervisorError::Busy { path: folder.into() }),
        Err(errno) => Err(system("take its lock")(errno.into())),
    }
}

/// A bound socket at `path`. Whatever is there is left over from a supervisor that has gone: this one has the lock.
fn socket(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn new_boot_id() -> Result<String, SupervisorError> {
    let mut bytes = [0; 16];
    let read = fs::File::open("/dev/urandom").and_then(|mut source| io::Read::read_exact(&mut source, &mut bytes));
    read.map_err(system("draw a boot id"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
