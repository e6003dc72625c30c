//! The thread that pets the watchdog, and does nothing else.
//!
//! Once it runs it neither allocates nor takes a lock, and where the machine permits, its memory is locked and it runs
//! under real-time scheduling: what makes the rest of the agent slow must not reset the node. It reads both clocks
//! itself and pets only while neither has reached the end of the lease. It may be stopped between the check and the
//! pet; that is why the device runs at half the promised time ([`device_timeout`]).

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use tiebreaker_firmware::device_timeout;
use tiebreaker_pipeline::time::Reading;

use super::{Dog, DogError};
use crate::sys;

/// The longest time between two pets; a faster device is petted four times per timeout.
pub const PET_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// How long disarming may take: one request to a device.
const DISARM_LIMIT: Duration = Duration::from_secs(5);

/// The capability to lock memory beyond the limit, by its number in `/proc/self/status`.
const CAP_IPC_LOCK: u32 = 14;

/// Whether the thread asks for locked memory and real-time scheduling.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Realtime {
    /// It asks, and warns where it is refused.
    Try,
    /// It doesn't: for tests, which share their process with others.
    Off,
}

/// What a feeder needs to know.
pub struct FeederConfig {
    /// The promised time: this long after the lease's end the node is gone. The device runs at half of it.
    pub promised: Duration,
    /// The end of the lease that permits to arm.
    pub lease_end: Reading,
    /// Reads both clocks, `tiebreaker_member::clock::now` but in tests. Neither allocates nor blocks.
    pub clock: fn() -> Reading,
    /// Locked memory and scheduling.
    pub realtime: Realtime,
    /// The watchdog is opened anew, so nothing relies on it yet and a failed start stops it again. What an earlier
    /// agent left armed runs on instead, unfed: something may still rely on it.
    pub fresh: bool,
}

/// Why petting did not begin.
#[derive(Debug, thiserror::Error)]
pub enum FeederError {
    /// Arming needs a valid lease.
    #[error("the watchdog is not armed without a valid lease")]
    NoLease,
    /// The watchdog could not be opened or armed.
    #[error("the watchdog could not be armed")]
    Dog(#[source] DogError),
    /// The device is faster than asked for, so an orderly stop at the lease's end would not fit. A fresh one was
    /// disarmed.
    #[error("the watchdog took a timeout of {taken:?} instead of {asked:?}; it is too fast for this profile")]
    Faster {
        /// What was asked for.
        asked: Duration,
        /// What the device took.
        taken: Duration,
    },
    /// The thread could not be started. The watchdog is armed and unfed.
    #[error("the watchdog's thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Why the watchdog still runs.
#[derive(Debug, thiserror::Error)]
pub enum DisarmError {
    /// It can't be stopped. It is fed on while the lease lasts.
    #[error("the watchdog could not be stopped")]
    Dog(#[source] DogError),
    /// The device did not answer. What it does is unknown, so it counts as armed.
    #[error("the watchdog did not answer")]
    Hung,
    /// It was given up before.
    #[error("the watchdog's thread has ended")]
    Ended,
}

/// What the feeder does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeederPhase {
    /// It pets.
    Feeding,
    /// It does not pet, because the lease has ended on one of the clocks. It pets again under a new lease.
    LeaseEnded,
    /// The device refused the last pet, with this error number. It tries again while the lease lasts.
    Refused(i32),
    /// The watchdog was disarmed.
    Disarmed,
    /// Given up without disarming: the watchdog is armed and unfed.
    Abandoned,
}

/// What the feeder has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeederState {
    /// What it does now.
    pub phase: FeederPhase,
    /// The device's timeout.
    pub device_timeout: Duration,
    /// CLOCK_BOOTTIME of the last pet, taken before it; 0 before the first.
    pub last_pet_boottime_ns: u64,
    /// How often it has petted.
    pub pets: u64,
}

impl FeederState {
    /// Whether the device is armed, as far as is known.
    #[must_use]
    pub fn armed(&self) -> bool {
        match self.phase {
            FeederPhase::Feeding | FeederPhase::LeaseEnded | FeederPhase::Refused(_) | FeederPhase::Abandoned => true,
            FeederPhase::Disarmed => false,
        }
    }
}

const FEEDING: u8 = 0;
const LEASE_ENDED: u8 = 1;
const REFUSED: u8 = 2;
const DISARMED: u8 = 3;
const ABANDONED: u8 = 4;

const FEED: u8 = 0;
const DISARM: u8 = 1;
const ABANDON: u8 = 2;

/// What the thread and its handle share.
struct Shared {
    lease_boottime_ns: AtomicU64,
    lease_raw_ns: AtomicU64,
    order: AtomicU8,
    phase: AtomicU8,
    errno: AtomicI32,
    last_pet_boottime_ns: AtomicU64,
    pets: AtomicU64,
}

impl Shared {
    fn new(lease_end: Reading) -> Self {
        Self {
            lease_boottime_ns: AtomicU64::new(lease_end.boottime_ns),
            lease_raw_ns: AtomicU64::new(lease_end.raw_ns),
            order: AtomicU8::new(FEED),
            phase: AtomicU8::new(FEEDING),
            errno: AtomicI32::new(0),
            last_pet_boottime_ns: AtomicU64::new(0),
            pets: AtomicU64::new(0),
        }
    }

    /// The end of the lease; 0 on both clocks is no lease. Read while it is extended, one clock may still show the
    /// end before, which is earlier.
    fn lease_end(&self) -> Reading {
        Reading {
            boottime_ns: self.lease_boottime_ns.load(Ordering::Acquire),
            raw_ns: self.lease_raw_ns.load(Ordering::Acquire),
        }
    }

    /// One turn of the thread: pets if the lease permits it.
    fn feed(&self, dog: &mut dyn Dog, clock: fn() -> Reading) {
        let now = clock();
        if now.reached_on_either(self.lease_end()) {
            self.phase.store(LEASE_ENDED, Ordering::Release);
            return;
        }
        match dog.pet() {
            Ok(()) => {
                self.last_pet_boottime_ns.store(now.boottime_ns, Ordering::Release);
                self.pets.fetch_add(1, Ordering::AcqRel);
                self.phase.store(FEEDING, Ordering::Release);
            }
            Err(errno) => self.refused(errno),
        }
    }

    fn refused(&self, errno: Errno) {
        self.errno.store(errno.raw_os_error(), Ordering::Release);
        self.phase.store(REFUSED, Ordering::Release);
    }
}

/// Starts feeders.
pub struct Feeder;

impl Feeder {
    /// Opens and arms a watchdog under a valid lease, and feeds it from a thread of its own.
    ///
    /// `open` runs only under the lease, because opening a device arms or pets it.
    pub fn start(
        config: FeederConfig,
        open: impl FnOnce() -> Result<Box<dyn Dog>, DogError>,
    ) -> Result<FeederHandle, FeederError> {
        let FeederConfig { promised, lease_end, clock, realtime, fresh } = config;
        if clock().reached_on_either(lease_end) {
            return Err(FeederError::NoLease);
        }
        let mut dog = open().map_err(FeederError::Dog)?;
        let asked = device_timeout(promised);
        let taken = match dog.arm(asked) {
            Ok(taken) => taken,
            Err(error) => {
                if fresh {
                    // The first error is the one to tell. If stopping fails too, it runs on unfed, which is safe.
                    let _stopped = dog.disarm();
                }
                return Err(FeederError::Dog(error));
            }
        };
        // The kernel's devices count whole seconds, so what is lost to rounding is no fault of the device.
        if taken < Duration::from_secs(asked.as_secs()) {
            if fresh {
                dog.disarm().map_err(FeederError::Dog)?;
            }
            return Err(FeederError::Faster { asked, taken });
        }
        if realtime == Realtime::Try {
            lock_memory();
        }
        let shared = Arc::new(Shared::new(lease_end));
        let (answer, answers) = sync_channel(1);
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("watchdog".to_owned())
                .spawn(move || run(dog, &shared, clock, pet_interval(taken), realtime, &answer))
                .map_err(FeederError::Thread)?
        };
        Ok(FeederHandle { shared, device_timeout: taken, thread: Some(thread), answers, extending: Mutex::new(()) })
    }
}

/// How often a device with this timeout is petted.
fn pet_interval(device_timeout: Duration) -> Duration {
    (device_timeout / 4).min(PET_INTERVAL_MAX)
}

fn run(
    mut dog: Box<dyn Dog>,
    shared: &Shared,
    clock: fn() -> Reading,
    interval: Duration,
    realtime: Realtime,
    answer: &SyncSender<Result<(), DogError>>,
) {
    if realtime == Realtime::Try
        && let Err(error) = sys::schedule_round_robin()
    {
        tracing::warn!(%error, "the watchdog's thread runs without real-time scheduling");
    }
    loop {
        match shared.order.load(Ordering::Acquire) {
            ABANDON => {
                shared.phase.store(ABANDONED, Ordering::Release);
                return;
            }
            DISARM => {
                let result = dog.disarm();
                let stopped = result.is_ok();
                // Before the order is taken back: whoever sees no order any more sees what became of it.
                if stopped {
                    shared.phase.store(DISARMED, Ordering::Release);
                }
                // Unless the handle has gone meanwhile, which asks for more.
                let _abandoned = shared.order.compare_exchange(DISARM, FEED, Ordering::AcqRel, Ordering::Acquire);
                // Who asked may have given up waiting; the phase tells, too.
                let _unheard = answer.try_send(result);
                if stopped {
                    return;
                }
            }
            _ => {}
        }
        shared.feed(&mut *dog, clock);
        std::thread::park_timeout(interval);
    }
}

/// Locks this process's memory, present and future, if that can't make a later allocation fail.
fn lock_memory() {
    use rustix::process::{Resource, getrlimit};
    // Under a limit, future mappings would be refused once it is reached, and a refused allocation ends the agent.
    if getrlimit(Resource::Memlock).current.is_some() && !has_capability(CAP_IPC_LOCK) {
        tracing::warn!("memory is not locked: RLIMIT_MEMLOCK is limited and CAP_IPC_LOCK is missing");
        return;
    }
    if let Err(error) = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        tracing::warn!(%error, "memory is not locked");
    }
}

fn has_capability(number: u32) -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
            u64::from_str_radix(effective.trim(), 16).ok()
        })
        .is_some_and(|bits| bits & (1 << number) != 0)
}

/// The way to a running feeder. Dropping it ends the thread and leaves the watchdog armed and unfed: the service
/// manager keeps it for the next agent, or it resets the node.
pub struct FeederHandle {
    shared: Arc<Shared>,
    device_timeout: Duration,
    thread: Option<JoinHandle<()>>,
    answers: Receiver<Result<(), DogError>>,
    extending: Mutex<()>,
}

impl FeederHandle {
    /// Extends the lease. An end that is not later on both clocks changes nothing: a lease's end never moves back.
    pub fn extend(&self, lease_end: Reading) {
        // Only writers lock; the thread never does. A poisoned lock guards no data.
        let _writing = self.extending.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.shared.lease_end();
        if lease_end.boottime_ns >= known.boottime_ns && lease_end.raw_ns >= known.raw_ns {
            self.shared.lease_boottime_ns.store(lease_end.boottime_ns, Ordering::Release);
            self.shared.lease_raw_ns.store(lease_end.raw_ns, Ordering::Release);
            // Under a new lease it pets at once, not only when its pause is over.
            if self.shared.phase.load(Ordering::Acquire) == LEASE_ENDED
                && let Some(thread) = &self.thread
            {
                thread.thread().unpark();
            }
        }
    }

    /// Whether something may be started that relies on the watchdog: it is armed, fed under a valid lease, and nobody
    /// has asked to stop it.
    #[must_use]
    pub fn guards(&self) -> bool {
        // First the order: once it is taken back, the phase tells what became of it.
        let stopping = self.shared.order.load(Ordering::Acquire) != FEED;
        !stopping && matches!(self.state().phase, FeederPhase::Feeding | FeederPhase::LeaseEnded)
    }

    /// What the feeder does and has done.
    #[must_use]
    pub fn state(&self) -> FeederState {
        FeederState {
            phase: match self.shared.phase.load(Ordering::Acquire) {
                FEEDING => FeederPhase::Feeding,
                LEASE_ENDED => FeederPhase::LeaseEnded,
                REFUSED => FeederPhase::Refused(self.shared.errno.load(Ordering::Acquire)),
                DISARMED => FeederPhase::Disarmed,
                _ => FeederPhase::Abandoned,
            },
            device_timeout: self.device_timeout,
            last_pet_boottime_ns: self.shared.last_pet_boottime_ns.load(Ordering::Acquire),
            pets: self.shared.pets.load(Ordering::Acquire),
        }
    }

    /// Disarms the watchdog and ends the thread; needs no lease. The caller has seen by probes that nothing protected
    /// runs, and has the service manager give up its copy of the descriptor afterwards: a device of the kernel stops
    /// when the last copy is closed. On an error the watchdog is armed, and fed while the lease lasts; after
    /// [`DisarmError::Hung`] the answer may still come, and the next call tells. Disarmed, it stays so: every further
    /// call succeeds.
    ///
    /// Blocks for as long as the device takes, at most 5 s.
    pub fn disarm(&mut self) -> Result<(), DisarmError> {
        self.disarm_within(DISARM_LIMIT)
    }

    fn disarm_within(&mut self, limit: Duration) -> Result<(), DisarmError> {
        if self.state().phase == FeederPhase::Disarmed {
            self.join();
            return Ok(());
        }
        let thread = self.thread.as_ref().ok_or(DisarmError::Ended)?;
        // An answer that came too late for an earlier call is not the answer to this one.
        while self.answers.try_recv().is_ok() {}
        self.shared.order.store(DISARM, Ordering::Release);
        thread.thread().unpark();
        let answer = self.answers.recv_timeout(limit);
        // The phase counts, not the answer: that of an earlier call may have been thrown away just above.
        if self.state().phase == FeederPhase::Disarmed {
            self.join();
            return Ok(());
        }
        match answer {
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => Err(DisarmError::Ended),
            Ok(Err(error)) => Err(DisarmError::Dog(error)),
            Err(RecvTimeoutError::Timeout) => Err(DisarmError::Hung),
        }
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the thread aborts the process in production; in tests it has been printed.
            let _ended = thread.join();
        }
    }
}

impl Drop for FeederHandle {
    fn drop(&mut self) {
        if let Some(thread) = &self.thread {
            self.shared.order.store(ABANDON, Ordering::Release);
            thread.thread().unpark();
            // Not joined: a device that hangs in a pet must not hang the agent's exit.
        }
    }
}

#[cfg(test)]
#[path = "feeder_tests.rs"]
mod tests;
