//! Power-off against devices that lie, fail and dawdle, in virtual time.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::*;
use crate::{OffSign, Proof};

const SPACING: Duration = Duration::from_millis(250);

/// What a scripted device says to one read.
#[derive(Clone, Copy)]
enum Says {
    On,
    Off,
    Nothing,
    WrongPassword,
}

/// Answers reads from a script, the last line for ever.
struct Scripted {
    reads: Mutex<VecDeque<Says>>,
    off_fails: AtomicU32,
    offs: AtomicU32,
}

impl Scripted {
    fn new(reads: &[Says]) -> Self {
        let reads = Mutex::new(reads.iter().copied().collect());
        Self { reads, off_fails: AtomicU32::new(0), offs: AtomicU32::new(0) }
    }

    fn offs(&self) -> u32 {
        self.offs.load(Ordering::SeqCst)
    }
}

fn error(fault: Fault) -> DeviceError {
    DeviceError::new("scripted", fault, "as the script says")
}

impl Device for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn sign(&self) -> OffSign {
        OffSign::Bmc
    }

    fn state(&self, _: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        let mut reads = self.reads.lock().unwrap();
        let says = if reads.len() > 1 { reads.pop_front().unwrap() } else { reads[0] };
        Box::pin(async move {
            match says {
                Says::On => Ok(PowerState::On),
                Says::Off => Ok(PowerState::Off),
                Says::Nothing => Err(error(Fault::Unreachable)),
                Says::WrongPassword => Err(error(Fault::Credentials)),
            }
        })
    }

    fn off(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.offs.fetch_add(1, Ordering::SeqCst);
        let failed = self.off_fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        Box::pin(async move { if failed.is_ok() { Err(error(Fault::Unreachable)) } else { Ok(()) } })
    }

    fn on(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        panic!("a power-off never turns on")
    }

    fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        panic!("a power-off proves nothing else")
    }
}

struct Watcher {
    may: AtomicBool,
    steps: Mutex<Vec<Progress>>,
}

impl Watcher {
    fn new(may: bool) -> Self {
        Self { may: AtomicBool::new(may), steps: Mutex::default() }
    }
}

impl Overseer for Watcher {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { self.may.load(Ordering::SeqCst) })
    }

    fn progress(&self, step: Progress) {
        self.steps.lock().unwrap().push(step);
    }
}

async fn run(device: &Scripted, watcher: &Watcher) -> Result<ConfirmedOff, PowerOffError> {
    power_off(device, SPACING, Instant::now() + Duration::from_secs(10), watcher).await
}

#[tokio::test(start_paused = true)]
async fn off_is_commanded_and_then_read_twice() {
    let device = Scripted::new(&[Says::On, Says::On, Says::Off, Says::Off]);
    let watcher = Watcher::new(true);
    assert_eq!(run(&device, &watcher).await.unwrap(), ConfirmedOff { already: false });
    let steps = watcher.steps.into_inner().unwrap();
    use Progress::{OffAcknowledged, Read};
    let (on, off) = (Read(PowerState::On), Read(PowerState::Off));
    assert_eq!(steps, [on.clone(), OffAcknowledged, on, off.clone(), off]);
    assert_eq!(device.offs(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_is_off_already_gets_no_command() {
    let device = Scripted::new(&[Says::Off]);
    assert_eq!(run(&device, &Watcher::new(false)).await.unwrap(), ConfirmedOff { already: true });
    assert_eq!(device.offs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_single_off_between_other_reads_is_no_proof() {
    use Says::{Nothing, Off, On};
    let device = Scripted::new(&[Off, On, Off, On, Off, Nothing, Off, Nothing, On]);
    let error = run(&device, &Watcher::new(true)).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Deadline { last: Some(PowerState::On), .. }), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_bmc_ends_at_the_deadline_and_names_the_last_read() {
    let device = Scripted::new(&[Says::On]);
    let started = Instant::now();
    let error = run(&device, &Watcher::new(true)).await.unwrap_err();
    assert_eq!(error.to_string(), "not confirmed off by the deadline, last read: on");
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    assert_eq!(device.offs(), 1);
}

#[tokio::test(start_paused = true)]
async fn silence_is_never_off() {
    let device = Scripted::new(&[Says::Nothing]);
    let error = run(&device, &Watcher::new(true)).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Deadline { last: None, error: Some(_) }), "{error:?}");
    assert_eq!(device.offs(), 1, "commanded all the same: off needs no state");
}

#[tokio::test(start_paused = true)]
async fn a_lost_command_is_sent_again() {
    let device = Scripted::new(&[Says::On, Says::On, Says::On, Says::Off]);
    device.off_fails.store(2, Ordering::SeqCst);
    assert!(!run(&device, &Watcher::new(true)).await.unwrap().already);
    assert_eq!(device.offs(), 3);
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_fail_at_once() {
    let device = Scripted::new(&[Says::WrongPassword]);
    let started = Instant::now();
    let error = run(&device, &Watcher::new(true)).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Device { error: DeviceError { fault: Fault::Credentials, .. }, .. }));
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_switch_nothing_is_sent() {
    let device = Scripted::new(&[Says::On]);
    let error = run(&device, &Watcher::new(false)).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Withdrawn { last: Some(PowerState::On) }), "{error:?}");
    assert_eq!(device.offs(), 0);
}

#[tokio::test(start_paused = true)]
async fn confirm_off_needs_two_reads_with_the_spacing_between() {
    let deadline = Instant::now() + Duration::from_secs(10);
    let started = Instant::now();
    assert!(confirm_off(&Scripted::new(&[Says::Off]), SPACING, deadline).await.unwrap());
    assert_eq!(started.elapsed(), SPACING);
    assert!(!confirm_off(&Scripted::new(&[Says::Off, Says::On]), SPACING, deadline).await.unwrap());
    assert!(!confirm_off(&Scripted::new(&[Says::On]), SPACING, deadline).await.unwrap());
    assert!(confirm_off(&Scripted::new(&[Says::Off, Says::Nothing]), SPACING, deadline).await.is_err());
    assert!(confirm_off(&Scripted::new(&[Says::Off]), SPACING, Instant::now() + SPACING / 2).await.is_err());
}
