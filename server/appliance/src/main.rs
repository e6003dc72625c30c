//! The appliance's daemon and its command line.

/// Passwords of power devices pass through the buffers of libraries that don't wipe them (a header of HTTP, a record of
/// TLS): so everything is wiped when it is freed.
#[global_allocator]
static WIPING: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> std::process::ExitCode {
    tiebreaker_server::cli::main_from(std::env::args_os().collect())
}
