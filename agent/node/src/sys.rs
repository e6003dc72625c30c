//! What neither the standard library nor rustix does safely: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes the child of `command` die by SIGKILL when the *thread* that spawns it dies, and lets it inherit `kept`
/// under the numbers that they have here.
///
/// The descriptors must stay open until the child has been spawned.
pub fn die_with_parent(command: &mut Command, kept: Vec<RawFd>) {
    let parent = rustix::process::getpid();
    let hook = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent died before the signal was asked for, so it would never come.
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        }
        for fd in &kept {
            // SAFETY: the child has a copy of every descriptor of the parent, which keeps these open meanwhile.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the hook runs between fork and exec. It makes system calls only and neither allocates nor locks: the
    // vector it reads was built before the fork, and io::Error from an error number is plain data.
    unsafe { command.pre_exec(hook) };
}

/// Puts the calling thread under SCHED_RR at the lowest real-time priority, its children excepted.
pub fn schedule_round_robin() -> io::Result<()> {
    // SAFETY: sched_param is plain data for which all zeroes is a valid value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: pid 0 is the calling thread, and `param` lives through the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const param) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor that tokio watches for something to read. Belongs to a runtime.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor for as long as it exists, and AsyncFd owns it from here on.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Clock ticks in a second, the unit of processor time in `/proc`.
pub fn clock_ticks_per_second() -> u64 {
    // SAFETY: sysconf reads a constant of the running system and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // It is 100 on every Linux that this runs on, and known wherever /proc is.
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// A process id as rustix wants it; `None` for numbers that no process has.
pub fn pid(raw: i32) -> Option<Pid> {
    if raw > 0 { Pid::from_raw(raw) } else { None }
}
