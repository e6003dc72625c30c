//! Our own programs: built once per test run, run to their end with everything they say.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// A program that is run to its end has this long.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// One of our programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// The appliance's daemon.
    Server,
    /// The node's daemon.
    Agent,
    /// The operator's command.
    Operator,
}

impl Program {
    const ALL: [Self; 3] = [Self::Server, Self::Agent, Self::Operator];

    const fn name(self) -> &'static str {
        match self {
            Self::Server => "tiebreaker-server",
            Self::Agent => "tiebreaker-agent",
            Self::Operator => "tiebreaker",
        }
    }

    /// Where it is. The first call builds all of them as they are in this checkout: cargo gives a test the programs of
    /// its own package alone, and what lies in the target folder may be of yesterday.
    ///
    /// # Errors
    /// They can't be built.
    pub fn path(self) -> Result<PathBuf> {
        let folder = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
        match folder {
            Ok(folder) => Ok(folder.join(self.name())),
            Err(why) => bail!("{why}"),
        }
    }

    /// Takes them from this folder instead, as they are: a benchmark's are built before it, with another profile.
    ///
    /// # Errors
    /// Others are in use already.
    pub fn use_built(folder: &Path) -> Result<()> {
        let folder = fs::canonicalize(folder).with_context(|| format!("{}", folder.display()))?;
        let used = FOLDER.get_or_init(|| Ok(folder.clone()));
        ensure!(used.as_ref().is_ok_and(|used| *used == folder), "programs of another folder are in use: {used:?}");
        Ok(())
    }

    /// A command that starts it.
    ///
    /// # Errors
    /// As [`Program::path`].
    pub fn command(self) -> Result<Command> {
        Ok(Command::new(self.path()?))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(self, args: &[&dyn AsRef<OsStr>]) -> Result<Ran> {
        let mut command = self.command()?;
        command.args(args.iter().map(AsRef::as_ref));
        run(command)
    }
}

static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Builds the programs with the profile of this test, and says in which folder they are.
fn build() -> Result<PathBuf> {
    let test = env::current_exe().context("asking for this test's own path")?;
    // target/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).context("the test is not in a target folder")?;
    let profile = match folder.file_name().and_then(OsStr::to_str) {
        Some("debug") => "dev",
        Some(other) => other,
        None => bail!("{} is no folder of a profile", folder.display()),
    };
    let target = folder.parent().context("the target folder has a parent")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--workspace", "--quiet", "--profile", profile, "--target-dir"]).arg(target);
    for program in Program::ALL {
        command.args(["--bin", program.name()]);
    }
    if profile == "dev" {
        // An example has cargo switch on what tests need in the libraries that programs share with them: these are then the very
        // programs that `cargo test` has built, and nothing is built twice.
        command.args(["--example", "manual"]);
    }
    // What cargo tells a test about its package would have build scripts that look at it run again, and all that rests on them built
    // anew, while others use it.
    for (name, _) in env::vars_os().filter(|(name, _)| of_a_package(name)) {
        command.env_remove(name);
    }
    let built = command.stdin(Stdio::null()).output().context("starting cargo")?;
    ensure!(built.status.success(), "our programs can't be built:\n{}", String::from_utf8_lossy(&built.stderr));
    for program in Program::ALL {
        let path = folder.join(program.name());
        ensure!(path.is_file(), "cargo built no {}", path.display());
    }
    Ok(folder.to_owned())
}

/// Whether a variable is one by which cargo tells a process about a package.
pub(crate) fn of_a_package(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.starts_with(prefix)))
}

/// What a program that has ended said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// The standard output of a program that must have done what it was asked.
    ///
    /// # Errors
    /// It ended otherwise; tells how.
    pub fn done(self) -> Result<String> {
        ensure!(self.code == Some(0), "exit code {:?}, {}", self.code, self.stderr.trim());
        Ok(self.stdout)
    }

    /// The standard error of a program that must have been refused what it asked for, with exit code 1.
    ///
    /// # Errors
    /// It ended otherwise; tells how.
    pub fn refused(self) -> Result<String> {
        ensure!(self.code == Some(1), "exit code {:?}, {}{}", self.code, self.stdout, self.stderr);
        Ok(self.stderr)
    }
}

/// Runs a program to its end. No program of these tests may ever panic.
///
/// # Errors
/// It can't be started, doesn't end in time, or panics.
pub fn run(mut command: Command) -> Result<Ran> {
    let name = Path::new(command.get_program()).display().to_string();
    let folder = tempfile::tempdir()?;
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    // Files instead of pipes: whatever the program leaves running can't keep this from its end.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&out)?)
        .stderr(std::fs::File::create(&err)?)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let end = Instant::now() + ENDS_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            let said = std::fs::read(&err)?;
            bail!("{name} did not end within {ENDS_WITHIN:?}; it said: {}", String::from_utf8_lossy(&said));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let ran = Ran { code: status.code(), stdout: text(&out)?, stderr: text(&err)? };
    ensure!(!ran.stderr.contains("panicked"), "{name} panicked: {}", ran.stderr);
    Ok(ran)
}

/// An address of loopback that nobody else has: tests run side by side, and ports are given away.
#[must_use]
pub fn loopback() -> SocketAddr {
    static LAST: AtomicU32 = AtomicU32::new(1);
    let last = LAST.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    // 127.64.0.0/10: two octets from the process, one from the count.
    let [_, _, high, low] = pid.to_be_bytes();
    let [_, _, _, count] = last.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 64 | (high & 0x3f), low, count), 8405))
}
