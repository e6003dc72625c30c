//! The appliance's own watchdog: fed for as long as the appliance answers itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tiebreaker_firmware::{
    BootReason, Capabilities, I2CError, I2cWatchdog, I2cWatchdogError, I2cdev, LinuxWatchdog, LinuxWatchdogError,
    Nature, Pair, SEQUENT_SUPER_WATCHDOG, Watchdog, i2c_watchdog,
};
use tiebreaker_member::service_manager::{FdStoreError, ServiceManager};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::clusters;
use super::settings::{Watchdogs, Which};

/// So often within its timeout a watchdog is fed.
const FEEDS: u32 = 4;

/// The task that feeds it.
pub(crate) struct Guard {
    ends: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Guard {
    /// Starts to feed: the watchdogs are armed once the daemon behind `socket` has answered for the first time.
    pub(crate) fn start(watchdogs: Watchdogs, socket: PathBuf) -> Self {
        let (ends, ended) = oneshot::channel();
        let timeout = watchdogs.timeout;
        let task = match watchdogs.second.clone() {
            None => tokio::spawn(feed(socket, timeout, move || open(&watchdogs.first), ended)),
            Some(second) => {
                let open_both = move || Ok(Pair::new(open(&watchdogs.first)?, open(&second)?));
                tokio::spawn(feed(socket, timeout, open_both, ended))
            }
        };
        Self { ends, task }
    }

    /// Starts to prove to the service manager that the daemon behind `socket` answers, as often as it asks for that.
    pub(crate) fn prove(manager: ServiceManager, every: Duration, socket: PathBuf) -> Self {
        let (ends, ended) = oneshot::channel();
        let open = move || Ok(ManagerDog(manager.clone()));
        Self { ends, task: tokio::spawn(feed(socket, every, open, ended)) }
    }

    /// The daemon ends as it was told: so do the watchdogs, where they can.
    pub(crate) async fn end(self) {
        // A task that has ended by itself disarms nothing.
        let _ = self.ends.send(());
        let _ = self.task.await;
    }
}

async fn feed<W: Watchdog<Error: fmt::Display>>(
    socket: PathBuf,
    timeout: Duration,
    open: impl FnMut() -> Result<W>,
    mut ended: oneshot::Receiver<()>,
) {
    let every = timeout / FEEDS;
    let mut feeder = Feeder::new(timeout, open);
    let mut beat = interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = &mut ended => break,
        }
        let answered = answers(&socket, every).await;
        feeder.beat(answered);
    }
    feeder.end();
}

/// Whether the daemon answers a program on this machine.
async fn answers(socket: &Path, within: Duration) -> Result<()> {
    clusters(socket, within).await.map(drop)
}

fn open(which: &Which) -> Result<Dog> {
    let at = || format!("opening {which}");
    match which {
        Which::Kernel(path) => Ok(Dog::Kernel(LinuxWatchdog::open(path).with_context(at)?)),
        Which::Sequent(bus) => Ok(Dog::Sequent(i2c_watchdog(bus, SEQUENT_SUPER_WATCHDOG).with_context(at)?)),
    }
}

/// A watchdog, and what is done to it at each answer of the daemon.
struct Feeder<W, O> {
    timeout: Duration,
    open: O,
    state: State<W>,
    /// What went wrong the last time, so that it is said once.
    trouble: Option<String>,
}

enum State<W> {
    Unarmed,
    /// The countdown runs.
    Armed(W),
}

impl<W: Watchdog<Error: fmt::Display>, O: FnMut() -> Result<W>> Feeder<W, O> {
    fn new(timeout: Duration, open: O) -> Self {
        Self { timeout, open, state: State::Unarmed, trouble: None }
    }

    /// The daemon answered, or it didn't: then nothing is fed.
    fn beat(&mut self, answered: Result<()>) {
        let done = match (answered, &mut self.state) {
            (Err(why), State::Unarmed) => Err(format!("the appliance doesn't answer itself: {why:#}")),
            (Err(why), State::Armed(_)) => Err(format!(
                "the appliance doesn't answer itself, so its watchdog isn't fed and will restart the machine: {why:#}"
            )),
            (Ok(()), State::Armed(dog)) => dog.pet().map_err(|why| format!("the watchdog can't be fed: {why}")),
            (Ok(()), State::Unarmed) => self.arm().map_err(|why| format!("the watchdog can't be armed: {why:#}")),
        };
        match done {
            Ok(()) if self.trouble.take().is_some() => info!("the watchdog is fed again"),
            Ok(()) => {}
            Err(why) => {
                if self.trouble.as_ref() != Some(&why) {
                    error!("{why}");
                    self.trouble = Some(why);
                }
            }
        }
    }

    fn arm(&mut self) -> Result<()> {
        let mut dog = (self.open)()?;
        match dog.boot_reason() {
            Ok(BootReason::Watchdog) => warn!("the watchdog restarted this machine the last time"),
            Ok(reason @ (BootReason::Heat | BootReason::Supply)) => warn!(?reason, "why this machine started last"),
            Ok(BootReason::NotSaid) => {}
            Err(why) => info!("why this machine started last isn't known: {why}"),
        }
        let taken = dog.arm(self.timeout).map_err(|why| anyhow::anyhow!("{why}"))?;
        info!(identity = dog.capabilities().identity, timeout = ?taken, "the watchdog is armed");
        self.state = State::Armed(dog);
        Ok(())
    }

    fn end(self) {
        if let State::Armed(mut dog) = self.state
            && let Err(why) = dog.disarm()
        {
            warn!("the watchdog goes on and restarts the machine unless the daemon comes back in time: {why}");
        }
    }
}

/// A watchdog of either kind.
enum Dog {
    Kernel(LinuxWatchdog),
    Sequent(I2cWatchdog<I2cdev>),
}

/// The service manager, which ends the daemon, or the machine, unless it hears in time.
struct ManagerDog(ServiceManager);

impl Watchdog for ManagerDog {
    type Error = FdStoreError;

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            identity: "service manager",
            nature: Nature::Simulated,
            magic_close: true,
            no_way_out: None,
            settable: false,
        }
    }

    fn arm(&mut self, timeout: Duration) -> Result<Duration, FdStoreError> {
        self.pet().map(|()| timeout)
    }

    fn pet(&mut self) -> Result<(), FdStoreError> {
        self.0.works()
    }

    /// It sees the process end.
    fn disarm(&mut self) -> Result<(), FdStoreError> {
        Ok(())
    }
}

/// What a watchdog of either kind says.
#[derive(Debug, thiserror::Error)]
enum DogError {
    #[error("{0}")]
    Kernel(LinuxWatchdogError),
    #[error("{0}")]
    Sequent(I2cWatchdogError<I2CError>),
}

impl Watchdog for Dog {
    type Error = DogError;

    fn capabilities(&self) -> Capabilities<'_> {
        match self {
            Self::Kernel(dog) => dog.capabilities(),
            Self::Sequent(dog) => dog.capabilities(),
        }
    }

    fn arm(&mut self, timeout: Duration) -> Result<Duration, DogError> {
        match self {
            Self::Kernel(dog) => dog.arm(timeout).map_err(DogError::Kernel),
            Self::Sequent(dog) => dog.arm(timeout).map_err(DogError::Sequent),
        }
    }

    fn pet(&mut self) -> Result<(), DogError> {
        match self {
            Self::Kernel(dog) => dog.pet().map_err(DogError::Kernel),
            Self::Sequent(dog) => dog.pet().map_err(DogError::Sequent),
        }
    }

    fn disarm(&mut self) -> Result<(), DogError> {
        match self {
            Self::Kernel(dog) => dog.disarm().map_err(DogError::Kernel),
            Self::Sequent(dog) => dog.disarm().map_err(DogError::Sequent),
        }
    }

    fn boot_reason(&mut self) -> Result<BootReason, DogError> {
        match self {
            Self::Kernel(dog) => dog.boot_reason().map_err(DogError::Kernel),
            Self::Sequent(dog) => dog.boot_reason().map_err(DogError::Sequent),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use anyhow::bail;

    #[derive(Default)]
    struct Seen {
        opened: u32,
        pets: u32,
        disarmed: bool,
        fails: bool,
    }

    struct Bench(Rc<RefCell<Seen>>);

    impl Bench {
        fn works(&self) -> Result<(), &'static str> {
            if self.0.borrow().fails { Err("broken") } else { Ok(()) }
        }
    }

    impl Watchdog for Bench {
        type Error = &'static str;

        fn capabilities(&self) -> Capabilities<'_> {
            Capabilities {
                identity: "bench",
                nature: Nature::Simulated,
                magic_close: true,
                no_way_out: None,
                settable: true,
            }
        }

        fn arm(&mut self, timeout: Duration) -> Result<Duration, &'static str> {
            self.works().map(|()| timeout)
        }

        fn pet(&mut self) -> Result<(), &'static str> {
            self.works()?;
            self.0.borrow_mut().pets += 1;
            Ok(())
        }

        fn disarm(&mut self) -> Result<(), &'static str> {
            self.works()?;
            self.0.borrow_mut().disarmed = true;
            Ok(())
        }
    }

    fn feeder(seen: &Rc<RefCell<Seen>>) -> Feeder<Bench, impl FnMut() -> Result<Bench>> {
        let seen = Rc::clone(seen);
        Feeder::new(Duration::from_secs(15), move || {
            seen.borrow_mut().opened += 1;
            if seen.borrow().fails {
                bail!("not there");
            }
            Ok(Bench(Rc::clone(&seen)))
        })
    }

    #[test]
    fn an_appliance_that_does_not_answer_itself_is_not_fed() {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let mut feeder = feeder(&seen);
        feeder.beat(Err(anyhow::anyhow!("not up yet")));
        assert_eq!(seen.borrow().opened, 0, "nothing is armed before the daemon has answered");
        feeder.beat(Ok(()));
        feeder.beat(Ok(()));
        feeder.beat(Err(anyhow::anyhow!("hung")));
        feeder.beat(Err(anyhow::anyhow!("hung")));
        assert_eq!((seen.borrow().opened, seen.borrow().pets), (1, 1));
        feeder.beat(Ok(()));
        assert_eq!(seen.borrow().pets, 2);
        feeder.end();
        assert!(seen.borrow().disarmed, "an orderly end restarts no machine");
    }

    #[test]
    fn one_that_can_not_be_armed_is_tried_again() {
        let seen = Rc::new(RefCell::new(Seen { fails: true, ..Seen::default() }));
        let mut feeder = feeder(&seen);
        feeder.beat(Ok(()));
        feeder.beat(Ok(()));
        assert!(feeder.trouble.as_ref().is_some_and(|why| why.contains("not there")), "{:?}", feeder.trouble);
        seen.borrow_mut().fails = false;
        feeder.beat(Ok(()));
        feeder.beat(Ok(()));
        assert_eq!((seen.borrow().opened, seen.borrow().pets, &feeder.trouble), (3, 1, &None));
        seen.borrow_mut().fails = true;
        feeder.beat(Ok(()));
        assert!(feeder.trouble.is_some());
    }

    #[test]
    fn the_service_manager_hears_of_each_answer_and_of_no_silence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let said = || {
            let mut bytes = [0; 64];
            manager.recv(&mut bytes).ok().map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned())
        };
        let mut feeder = Feeder::new(Duration::from_secs(20), || Ok(ManagerDog(ServiceManager::at(&path))));
        feeder.beat(Err(anyhow::anyhow!("hung")));
        assert_eq!(said(), None);
        for _ in 0..3 {
            feeder.beat(Ok(()));
            assert_eq!(said().as_deref(), Some("WATCHDOG=1"));
        }
        feeder.beat(Err(anyhow::anyhow!("hung")));
        assert_eq!(said(), None);
    }

    #[tokio::test]
    async fn a_socket_behind_which_nobody_answers_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        assert!(answers(&path, Duration::from_millis(100)).await.is_err());
        // One that hangs: it accepts, and says nothing.
        let _hung = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(answers(&path, Duration::from_millis(100)).await.is_err());
    }
}
