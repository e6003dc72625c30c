//! The kernel's watchdog ioctls (`include/uapi/linux/watchdog.h`): the only unsafe code of this crate.
#![allow(unsafe_code)]

use rustix::fd::BorrowedFd;
use rustix::io::Result;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

const GETSUPPORT: Opcode = opcode::read::<Info>(b'W', 0);
const GETBOOTSTATUS: Opcode = opcode::read::<i32>(b'W', 2);
const KEEPALIVE: Opcode = opcode::read::<i32>(b'W', 5);
const SETTIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
const GETTIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);
const SETPRETIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 8);
const GETTIMELEFT: Opcode = opcode::read::<i32>(b'W', 10);

/// `WDIOF_OVERHEAT`: the last boot was caused by heat.
pub const OVERHEAT: u32 = 0x0001;
/// `WDIOF_FANFAULT`: by a fan that stood still.
pub const FAN_FAULT: u32 = 0x0002;
/// `WDIOF_POWERUNDER`: by a supply that was too low.
pub const POWER_UNDER: u32 = 0x0010;
/// `WDIOF_POWEROVER`: by one that was too high.
pub const POWER_OVER: u32 = 0x0040;
/// `WDIOF_CARDRESET`: the last boot was caused by the watchdog.
pub const CARD_RESET: u32 = 0x0020;
/// `WDIOF_SETTIMEOUT`.
pub const SET_TIMEOUT: u32 = 0x0080;
/// `WDIOF_MAGICCLOSE`.
pub const MAGIC_CLOSE: u32 = 0x0100;
/// `WDIOF_PRETIMEOUT`.
pub const PRETIMEOUT: u32 = 0x0200;
/// `WDIOF_KEEPALIVEPING`.
pub const KEEPALIVE_PING: u32 = 0x8000;

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Info {
    pub options: u32,
    pub firmware_version: u32,
    pub identity: [u8; 32],
}

pub fn support(fd: BorrowedFd<'_>) -> Result<Info> {
    let mut info = Info::default();
    // SAFETY: the kernel writes at most one `struct watchdog_info`, whose layout `Info` has; every bit pattern is
    // valid for its fields, and it is initialised even when a driver writes less.
    unsafe { ioctl(fd, Updater::<GETSUPPORT, Info>::new(&mut info))? };
    Ok(info)
}

pub fn boot_status(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut value = 0;
    // SAFETY: WDIOC_GETBOOTSTATUS writes at most one int.
    unsafe { ioctl(fd, Updater::<GETBOOTSTATUS, i32>::new(&mut value))? };
    Ok(value)
}

pub fn keep_alive(fd: BorrowedFd<'_>) -> Result<()> {
    let mut ignored = 0;
    // SAFETY: WDIOC_KEEPALIVE takes no argument; a driver that wrote one would write at most one int.
    unsafe { ioctl(fd, Updater::<KEEPALIVE, i32>::new(&mut ignored)) }
}

pub fn set_timeout(fd: BorrowedFd<'_>, seconds: i32) -> Result<i32> {
    let mut value = seconds;
    // SAFETY: WDIOC_SETTIMEOUT reads one int and writes back the timeout that was taken into the same int.
    unsafe { ioctl(fd, Updater::<SETTIMEOUT, i32>::new(&mut value))? };
    Ok(value)
}

pub fn timeout(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut value = 0;
    // SAFETY: WDIOC_GETTIMEOUT writes at most one int.
    unsafe { ioctl(fd, Updater::<GETTIMEOUT, i32>::new(&mut value))? };
    Ok(value)
}

pub fn set_pretimeout(fd: BorrowedFd<'_>, seconds: i32) -> Result<i32> {
    let mut value = seconds;
    // SAFETY: WDIOC_SETPRETIMEOUT reads one int and writes at most one into its place.
    unsafe { ioctl(fd, Updater::<SETPRETIMEOUT, i32>::new(&mut value))? };
    Ok(value)
}

pub fn time_left(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut value = 0;
    // SAFETY: WDIOC_GETTIMELEFT writes at most one int.
    unsafe { ioctl(fd, Updater::<GETTIMELEFT, i32>::new(&mut value))? };
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_the_kernels() {
        // On the architectures that this project builds for (x86, ARM) these are the values of the C macros.
        assert_eq!(GETSUPPORT, 0x8028_5700);
        assert_eq!(GETBOOTSTATUS, 0x8004_5702);
        assert_eq!(KEEPALIVE, 0x8004_5705);
        assert_eq!(SETTIMEOUT, 0xC004_5706);
        assert_eq!(GETTIMEOUT, 0x8004_5707);
        assert_eq!(SETPRETIMEOUT, 0xC004_5708);
        assert_eq!(GETTIMELEFT, 0x8004_570A);
    }
}
