use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tiebreaker_firmware::{Capabilities, Nature, NoPromise, Promise};

use super::*;
use crate::supervisor::SimulatedDevice;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a test's watchdog was told.
#[derive(Default)]
struct Log {
    pets: AtomicU64,
    disarmed: AtomicBool,
    refuse_pets: AtomicBool,
    refuse_disarm: AtomicBool,
    refuse_arm: AtomicBool,
    /// A disarm waits here while it is set.
    hang_disarm: AtomicBool,
}

struct TestDog {
    log: Arc<Log>,
    taken: Duration,
}

impl Dog for TestDog {
    fn arm(&mut self, _timeout: Duration) -> Result<Duration, DogError> {
        if self.log.refuse_arm.load(Ordering::Acquire) {
            return Err(DogError::NoKeeper { why: "a test".into() });
        }
        Ok(self.taken)
    }

    fn pet(&mut self) -> Result<(), Errno> {
        if self.log.refuse_pets.load(Ordering::Acquire) {
            return Err(Errno::IO);
        }
        self.log.pets.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    fn disarm(&mut self) -> Result<(), DogError> {
        while self.log.hang_disarm.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        if self.log.refuse_disarm.load(Ordering::Acquire) {
            return Err(DogError::NoKeeper { why: "a test".into() });
        }
        self.log.disarmed.store(true, Ordering::Release);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            identity: "test",
            nature: Nature::Hardware,
            magic_close: false,
            no_way_out: None,
            settable: true,
        }
    }
}

/// A clock that each test sets, without touching those of tests that run beside it.
macro_rules! test_clock {
    ($boottime:ident, $raw:ident, $clock:ident) => {
        static $boottime: AtomicU64 = AtomicU64::new(1_000);
        static $raw: AtomicU64 = AtomicU64::new(1_000);
        fn $clock() -> Reading {
            Reading { boottime_ns: $boottime.load(Ordering::Acquire), raw_ns: $raw.load(Ordering::Acquire) }
        }
    };
}

fn start(log: &Arc<Log>, clock: fn() -> Reading, lease_end: Reading) -> Result<FeederHandle, FeederError> {
    // Ten milliseconds at the device: petted every 2.5 ms, so that tests are quick.
    let (promised, taken) = (Duration::from_millis(20), Duration::from_millis(10));
    let config = FeederConfig { promised, lease_end, clock, realtime: Realtime::Off, fresh: true };
    Feeder::start(config, || Ok(Box::new(TestDog { log: Arc::clone(log), taken })))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never came: {what}");
        std::thread::yield_now();
    }
}

/// Waits until the feeder has seen the lease's end, and proves that it then pets no more.
fn assert_starved(feeder: &FeederHandle, log: &Log) {
    wait_until("the lease's end is seen", || feeder.state().phase == FeederPhase::LeaseEnded);
    let pets = log.pets.load(Ordering::Acquire);
    for _ in 0..20 {
        // Each turn of the thread is provoked, so this doesn't hang on time.
        feeder.thread.as_ref().unwrap().thread().unpark();
        std::thread::yield_now();
    }
    assert_eq!(feeder.state().phase, FeederPhase::LeaseEnded);
    assert_eq!(log.pets.load(Ordering::Acquire), pets);
    assert!(feeder.state().armed());
}

#[test]
fn petting_ends_when_boottime_reaches_the_lease_end() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    wait_until("pets", || feeder.state().pets > 2);
    BOOTTIME.store(5_000, Ordering::Release);
    assert_starved(&feeder, &log);
    // A new lease feeds the same watchdog again.
    feeder.extend(Reading::both(9_000));
    wait_until("pets again", || feeder.state().phase == FeederPhase::Feeding);
}

#[test]
fn petting_ends_when_the_raw_clock_reaches_the_lease_end() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    wait_until("pets", || feeder.state().pets > 2);
    RAW.store(5_000, Ordering::Release);
    assert_starved(&feeder, &log);
}

#[test]
fn the_lease_end_never_moves_back() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    feeder.extend(Reading { boottime_ns: 6_000, raw_ns: 4_999 });
    assert_eq!(feeder.shared.lease_end(), Reading::both(5_000));
    feeder.extend(Reading::both(4_000));
    assert_eq!(feeder.shared.lease_end(), Reading::both(5_000));
    feeder.extend(Reading::both(7_000));
    assert_eq!(feeder.shared.lease_end(), Reading::both(7_000));
}

#[test]
fn without_a_lease_the_watchdog_is_not_even_opened() {
    test_clock!(BOOTTIME, RAW, clock);
    for lease_end in [Reading::default(), Reading::both(1_000), Reading { boottime_ns: 9_000, raw_ns: 1_000 }] {
        let promised = Duration::from_secs(10);
        let config = FeederConfig { promised, lease_end, clock, realtime: Realtime::Off, fresh: true };
        let started = Feeder::start(config, || panic!("opened without a lease"));
        assert!(matches!(started, Err(FeederError::NoLease)));
    }
}

#[test]
fn disarming_is_explicit_and_needs_no_lease() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let mut feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    BOOTTIME.store(9_000, Ordering::Release);
    assert_starved(&feeder, &log);
    assert!(!log.disarmed.load(Ordering::Acquire));
    feeder.disarm().unwrap();
    assert!(log.disarmed.load(Ordering::Acquire));
    assert_eq!(feeder.state().phase, FeederPhase::Disarmed);
    assert!(!feeder.state().armed());
    assert!(!feeder.guards());
    // Asked again, it says so again: the node may have missed the first answer.
    feeder.disarm().unwrap();
}

#[test]
fn dropping_the_handle_does_not_disarm() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    let shared = Arc::clone(&feeder.shared);
    drop(feeder);
    wait_until("the thread's end", || shared.phase.load(Ordering::Acquire) == ABANDONED);
    assert!(!log.disarmed.load(Ordering::Acquire));
}

#[test]
fn a_watchdog_that_cannot_be_disarmed_is_fed_on() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    log.refuse_disarm.store(true, Ordering::Release);
    let mut feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    assert!(matches!(feeder.disarm(), Err(DisarmError::Dog(_))));
    let pets = feeder.state().pets;
    wait_until("pets after the refusal", || feeder.state().pets > pets + 2);
    assert!(feeder.state().armed());
}

#[test]
fn a_refused_pet_is_told() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    log.refuse_pets.store(true, Ordering::Release);
    wait_until("the refusal", || feeder.state().phase == FeederPhase::Refused(Errno::IO.raw_os_error()));
}

#[test]
fn a_device_faster_than_asked_for_is_refused_and_disarmed() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let config = FeederConfig {
        promised: Duration::from_secs(10),
        lease_end: Reading::both(5_000),
        clock,
        realtime: Realtime::Off,
        fresh: true,
    };
    let dog = TestDog { log: Arc::clone(&log), taken: Duration::from_secs(2) };
    assert!(matches!(Feeder::start(config, || Ok(Box::new(dog))), Err(FeederError::Faster { .. })));
    assert!(log.disarmed.load(Ordering::Acquire));
}

#[test]
fn a_failed_start_stops_what_it_opened_and_nothing_that_was_armed_before() {
    test_clock!(BOOTTIME, RAW, clock);
    for fresh in [true, false] {
        let log = Arc::new(Log::default());
        log.refuse_arm.store(true, Ordering::Release);
        let (promised, lease_end) = (Duration::from_secs(10), Reading::both(5_000));
        let config = FeederConfig { promised, lease_end, clock, realtime: Realtime::Off, fresh };
        let dog = TestDog { log: Arc::clone(&log), taken: Duration::from_secs(5) };
        assert!(matches!(Feeder::start(config, || Ok(Box::new(dog))), Err(FeederError::Dog(_))));
        assert_eq!(log.disarmed.load(Ordering::Acquire), fresh);
    }
}

#[test]
fn a_disarm_that_hung_counts_when_it_comes_and_guards_nothing_meanwhile() {
    test_clock!(BOOTTIME, RAW, clock);
    let log = Arc::new(Log::default());
    let mut feeder = start(&log, clock, Reading::both(5_000)).unwrap();
    wait_until("pets", || feeder.state().pets > 0);
    assert!(feeder.guards());
    log.hang_disarm.store(true, Ordering::Release);
    assert!(matches!(feeder.disarm_within(Duration::from_millis(1)), Err(DisarmError::Hung)));
    // It may be disarmed at any moment now, so nothing may be started that relies on it.
    assert!(!feeder.guards() && feeder.state().armed());
    log.hang_disarm.store(false, Ordering::Release);
    wait_until("the late end", || feeder.state().phase == FeederPhase::Disarmed);
    assert!(!feeder.guards());
    feeder.disarm().unwrap();
}

#[test]
fn pets_come_four_times_per_timeout_and_at_least_twice_a_second() {
    assert_eq!(pet_interval(Duration::from_secs(1)), Duration::from_millis(250));
    assert_eq!(pet_interval(Duration::from_secs(30)), Duration::from_millis(500));
}

#[test]
fn a_dog_without_magic_close_promises_nothing() {
    let dog = TestDog { log: Arc::default(), taken: Duration::ZERO };
    assert_eq!(dog.capabilities().promise(), Promise::None(NoPromise::StopsWhenClosed));
}

/// When a device with `timeout` resets a node whose feeder checks the lease at `check_ns` after its last undisturbed
/// pet, is stopped for `pause_ns` and then pets. All times in nanoseconds.
fn reset_after_check_pause_pet(timeout: Duration, check_ns: u64, pause_ns: u64, lease_end_ns: u64) -> u64 {
    let mut device = SimulatedDevice::default();
    device.arm(0, timeout);
    if check_ns < lease_end_ns {
        device.pet(check_ns, check_ns);
        // The next check falls just before the lease's end; the pet follows the pause.
        let pet_ns = lease_end_ns - 1 + pause_ns;
        if device.deadline_ns().is_some_and(|deadline| pet_ns < deadline) {
            device.pet(pet_ns, pet_ns);
        }
    }
    device.deadline_ns().unwrap()
}

/// Row 2 of the safety table, in virtual time: check, pause, pet.
#[test]
fn check_pause_pet_stays_within_the_promised_time_at_half_of_it_only() {
    let promised = Duration::from_secs(10);
    let promised_ns = 10_000_000_000;
    let lease_end_ns = 3_000_000_000;
    let worst = |timeout: Duration| {
        (0..=1_000)
            .flat_map(|step| (0..30).map(move |check| (step, check)))
            .map(|(step, check)| {
                let pause_ns = step * 10_000_000;
                reset_after_check_pause_pet(timeout, check * 100_000_000, pause_ns, lease_end_ns)
            })
            .max()
            .unwrap()
    };
    assert!(worst(device_timeout(promised)) <= lease_end_ns + promised_ns);
    // The rule switched off: a device at the full promised time outlives the promise.
    assert!(worst(promised) > lease_end_ns + promised_ns);
}
