//! What keeps the passwords of power devices out of files that nobody meant to write.

use anyhow::{Context, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Has the system write no core dump of this process, and lets nobody but root look into its memory: a core dump of the
/// daemon would hold a password whenever a device is being worked.
///
/// # Errors
/// The system refuses.
pub(crate) fn keep_memory_private() -> Result<()> {
    // The limit alone doesn't count where core dumps go to a program, and `systemd-coredump` is one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbidding core dumps")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("forbidding core dumps")
}
