//! What the standard library and rustix don't offer: the one place of this crate with `unsafe`.
#![allow(unsafe_code)]

/// Gives memory that was freed back to the system. The allocator does so by itself only where nothing that is in use lies
/// behind it, and a single small thing that was allocated last can keep the memory of thousands of clients.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the allocator's own locks, touches free memory alone, and takes a number by value.
    unsafe {
        libc::malloc_trim(0);
    }
}
