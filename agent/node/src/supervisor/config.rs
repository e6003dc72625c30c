//! What the supervisor is told, and how it fails.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The variable in which an agent finds its boot's id, 32 hexadecimal digits. It changes with each simulated reboot,
/// and stays when only the agent is started again.
pub const BOOT_ID_VARIABLE: &str = "TIEBREAKER_BOOT_ID";

/// The variable in which an agent finds the socket of the simulated watchdog.
pub const WATCHDOG_VARIABLE: &str = "TIEBREAKER_WATCHDOG";

/// The variable in which an agent finds the file that says how its machine goes, while it does: `reboot`.
pub const GOING_VARIABLE: &str = "TIEBREAKER_GOING";

/// What the supervisor runs, and how.
#[derive(Clone, Debug)]
pub struct SupervisorConfig {
    /// The agent: a program and its arguments.
    pub command: Vec<OsString>,
    /// Variables for the agent, on top of the supervisor's own.
    pub env: Vec<(OsString, OsString)>,
    /// A folder of this node alone, for the supervisor's sockets; made if it is missing.
    pub runtime_dir: PathBuf,
    /// The pause before an agent that has exited is started again. It doubles while the agent exits quickly.
    pub restart_delay: Duration,
    /// The longest such pause.
    pub restart_delay_max: Duration,
    /// How long a simulated reboot takes.
    pub reboot_delay: Duration,
}

impl SupervisorConfig {
    /// The usual delays: 200 ms to 2 s between restarts, 2 s for a reboot.
    #[must_use]
    pub fn new(command: Vec<OsString>, runtime_dir: PathBuf) -> Self {
        Self {
            command,
            env: Vec::new(),
            runtime_dir,
            restart_delay: Duration::from_millis(200),
            restart_delay_max: Duration::from_secs(2),
            reboot_delay: Duration::from_secs(2),
        }
    }
}

/// Why the supervisor could not go on.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// There is nothing to run.
    #[error("the supervisor was given no command to run")]
    NoCommand,
    /// Another supervisor has this folder.
    #[error("another supervisor is running in {path}")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Something it needs from the system failed.
    #[error("the supervisor could not {what}")]
    System {
        /// What it tried.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}
