use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tiebreaker_member::clock;

use super::*;
use crate::watchdog::{PACKET, Reply, Request};

/// A watchdog's end of its connections, and what it was told.
#[derive(Clone, Default)]
struct Device {
    /// It takes twice the timeout that it is asked for.
    slower: Arc<AtomicBool>,
    armed: Arc<AtomicBool>,
    disarms: Arc<Mutex<u32>>,
}

impl Device {
    /// Serves one connection in a thread that ends with it.
    fn serve(&self, connection: OwnedFd) {
        let device = self.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; PACKET];
            while let Ok((length @ 1.., _)) = rustix::net::recv(&connection, &mut buffer[..], RecvFlags::empty()) {
                let reply = match Request::decode(&buffer[..length]).unwrap() {
                    Request::Pet { .. } => continue,
                    Request::Arm { nonce, timeout_ms } => {
                        device.armed.store(true, Ordering::Release);
                        let factor = if device.slower.load(Ordering::Acquire) { 2 } else { 1 };
                        Reply::Armed { nonce, timeout_ms: timeout_ms * factor }
                    }
                    Request::Disarm { nonce } => {
                        device.armed.store(false, Ordering::Release);
                        *device.disarms.lock().unwrap() += 1;
                        Reply::Disarmed { nonce }
                    }
                    Request::Ask { nonce } => Reply::Runs { nonce, timeout_ms: 7_000 },
                };
                if rustix::net::send(&connection, &reply.encode(), SendFlags::NOSIGNAL).is_err() {
                    return;
                }
            }
        });
    }

    fn listen(&self, path: &Path) {
        let listener = bound(path, SocketType::SEQPACKET);
        rustix::net::listen(&listener, 4).unwrap();
        let device = self.clone();
        // Ends with the test's process: a listener that nobody connects to.
        std::thread::spawn(move || {
            while let Ok(connection) = rustix::net::accept(&listener) {
                device.serve(connection);
            }
        });
    }

    fn kept(&self) -> OwnedFd {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        self.serve(theirs);
        ours
    }
}

fn bound(path: &Path, kind: SocketType) -> OwnedFd {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    socket
}

/// What the service manager was told so far, the first word of each message.
fn told(manager: BorrowedFd<'_>) -> Vec<String> {
    let mut buffer = [0; 256];
    let mut words = Vec::new();
    while let Ok((length, _)) = rustix::net::recv(manager, &mut buffer[..], RecvFlags::DONTWAIT) {
        words.extend(String::from_utf8_lossy(&buffer[..length]).lines().next().map(str::to_owned));
    }
    words
}

struct Stage {
    folder: tempfile::TempDir,
    device: Device,
    manager: OwnedFd,
    guard: Guard,
}

fn stage(is_kept: bool) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::default();
    let source = folder.path().join("watchdog");
    device.listen(&source);
    let notify = folder.path().join("notify");
    let manager = bound(&notify, SocketType::DGRAM);
    let guard = Guard::new(GuardConfig {
        source: WatchdogSource::Simulated(source),
        promised: Duration::from_secs(20),
        kept: is_kept.then(|| device.kept()),
        manager: Some(ServiceManager::at(&notify)),
        clock: clock::now,
        realtime: Realtime::Off,
    });
    Stage { folder, device, manager, guard }
}

fn valid() -> Reading {
    clock::now().after(Duration::from_secs(3600))
}

#[test]
fn a_kept_watchdog_is_tried_again_until_it_can_be_fed_and_the_node_knows() {
    let Stage { device, manager, mut guard, folder: _folder } = stage(true);
    assert_eq!(
        guard.config.source.running_timeout(guard.config.kept.as_ref().unwrap()).unwrap(),
        Some(Duration::from_secs(7))
    );
    // A lease that has ended touches nothing and is no trouble.
    assert_eq!(guard.extend(Reading::both(1)), None);
    assert!(!device.armed.load(Ordering::Acquire));
    device.slower.store(true, Ordering::Release);
    assert!(matches!(guard.extend(valid()), Some(Event::Armed(Err(why))) if why.contains("slower")));
    // Something may rely on it: neither disarmed nor given up.
    assert_eq!(*device.disarms.lock().unwrap(), 0);
    assert!(guard.stands().is_err() && guard.disarm().is_err());
    device.slower.store(false, Ordering::Release);
    assert_eq!(guard.extend(valid()), Some(Event::Armed(Ok(()))));
    assert_eq!(guard.stands(), Ok(()));
    assert_eq!(guard.extend(valid()), None);
    assert!(told(manager.as_fd()).is_empty());
}

#[test]
fn a_fresh_watchdog_that_can_not_be_armed_is_stopped_and_given_up() {
    let Stage { device, manager, mut guard, folder: _folder } = stage(false);
    device.slower.store(true, Ordering::Release);
    assert!(guard.arm(Some(valid())).unwrap_err().contains("slower"));
    assert!(!device.armed.load(Ordering::Acquire));
    assert_eq!(told(manager.as_fd()), ["FDSTORE=1", "FDSTOREREMOVE=1"]);
    device.slower.store(false, Ordering::Release);
    guard.arm(Some(valid())).unwrap();
    assert_eq!(guard.stands(), Ok(()));
    assert_eq!(told(manager.as_fd()), ["FDSTORE=1"]);
}

#[test]
fn a_watchdog_that_was_disarmed_late_is_not_believed_armed() {
    let Stage { device: _, manager, mut guard, folder: _folder } = stage(false);
    assert_eq!(guard.stands(), Err("the watchdog is not armed".into()));
    assert!(guard.arm(None).is_err());
    for by_extension in [true, false] {
        guard.arm(Some(valid())).unwrap();
        told(manager.as_fd());
        // As a disarm that was given up as hung ends: behind the guard's back.
        guard.feeder.as_mut().unwrap().disarm().unwrap();
        assert!(guard.stands().is_err());
        if by_extension {
            assert_eq!(guard.extend(valid()), Some(Event::Disarmed(Ok(()))));
            assert_eq!(guard.extend(valid()), None);
        } else {
            assert_eq!(guard.disarm(), Ok(()));
        }
        assert!(guard.is_unfed());
        assert_eq!(told(manager.as_fd()), ["FDSTOREREMOVE=1"]);
        // However often the node asks.
        assert_eq!(guard.disarm(), Ok(()));
    }
}

#[test]
fn a_lease_that_ends_leaves_it_armed_and_a_new_one_feeds_it_again() {
    static NOW: AtomicU64 = AtomicU64::new(1_000);
    let Stage { device, manager: _manager, mut guard, folder: _folder } = stage(false);
    guard.config.clock = || Reading::both(NOW.load(Ordering::Acquire));
    guard.arm(Some(Reading::both(5_000))).unwrap();
    NOW.store(5_000, Ordering::Release);
    let end = Instant::now() + Duration::from_secs(20);
    while guard.feeder.as_ref().unwrap().state().phase != FeederPhase::LeaseEnded {
        assert!(Instant::now() < end, "the lease's end was not seen");
        std::thread::yield_now();
    }
    assert_eq!(guard.extend(Reading::both(9_000)), None);
    // Armed and about to be fed: no reason to refuse a start.
    assert_eq!(guard.stands(), Ok(()));
    assert!(device.armed.load(Ordering::Acquire));
    assert_eq!(*device.disarms.lock().unwrap(), 0);
}
