//! What neither the standard library nor rustix offer: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;

/// Restarts the machine with a word for whoever starts it next: on a Pi the firmware, which on `0 tryboot` starts the other
/// slot once. Returns only if the kernel refuses.
pub fn restart_with(word: &std::ffi::CStr) -> io::Error {
    // SAFETY: reboot(2) takes two constants, a command and, for this one, a string that ends with a zero byte. It reads the
    // string before anything goes down.
    unsafe {
        libc::syscall(
            libc::SYS_reboot,
            libc::LINUX_REBOOT_MAGIC1,
            libc::LINUX_REBOOT_MAGIC2,
            libc::LINUX_REBOOT_CMD_RESTART2,
            word.as_ptr(),
        );
    }
    io::Error::last_os_error()
}
