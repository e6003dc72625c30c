//! Our ssh for one `pvecm qdevice setup`: a program with a Cargo.lock of its own (docs/adr/0033), on a data folder of the server's.

use std::{
    env,
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{Program, program::of_a_package, until};

const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Where it listens.
#[derive(Debug)]
pub enum Listens {
    /// At a socket that it gets, as from process 1 of the image.
    Socket(TcpListener),
    /// At an address of its own place.
    At(SocketAddr),
}

/// The program, once. It ends when this is dropped.
#[derive(Debug)]
pub struct Pairing {
    child: Child,
    log: PathBuf,
    code: String,
    fingerprint: String,
}

impl Pairing {
    /// Starts it and waits until it shows a code. `place` is put before its command; `folder` gets what it says.
    ///
    /// # Errors
    /// It can't be built or started, or shows no code; tells what it said.
    pub fn start(place: &[OsString], folder: &Path, data: &Path, listens: Listens) -> Result<Self> {
        let program = program()?;
        let mut command = match place.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("--data").arg(data).arg("--server").arg(Program::Server.path()?);
        match listens {
            Listens::Socket(listener) => command.stdin(Stdio::from(OwnedFd::from(listener))),
            Listens::At(address) => command.stdin(Stdio::null()).arg("--listen").arg(address.to_string()),
        };
        let (screen, log) = (folder.join("pairing.screen"), folder.join("pairing.log"));
        let mut child = command.stdout(fs::File::create(&screen)?).stderr(fs::File::create(&log)?).spawn()?;
        let shown = until("a code on the screen", STARTS_WITHIN, || {
            if let Some(status) = child.try_wait()? {
                return Ok(Err(status));
            }
            let text = fs::read_to_string(&screen)?;
            let code = text.lines().find_map(|line| line.strip_prefix("    ")).context("there is none")?.to_owned();
            let word = text.split_whitespace().find(|word| word.starts_with("SHA256:")).context("no fingerprint")?;
            Ok(Ok((code, word.to_owned())))
        });
        let said = || fs::read_to_string(&log).unwrap_or_default();
        match shown {
            Ok(Ok((code, fingerprint))) => Ok(Self { child, log, code, fingerprint }),
            Ok(Err(status)) => bail!("it ended with {status}: {}", said()),
            Err(error) => {
                let _gone = child.kill();
                let _reaped = child.wait();
                bail!("{error:#}: {}", said())
            }
        }
    }

    /// Root's password.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// That of its host key, as OpenSSH shows it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It goes on.
    pub fn until_ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let log = self.log();
        until("end of the pairing", within, || self.child.try_wait()?.with_context(|| format!("it goes on: {log}")))
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Pairing {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The program as it is in this checkout; the first call builds it.
fn program() -> Result<PathBuf> {
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path.clone()),
        Err(why) => bail!("{why}"),
    }
}

/// Builds it where `tests/run` does, beside the other programs' folder.
fn build() -> Result<PathBuf> {
    let test = env::current_exe().context("asking for this test's own path")?;
    // target/PROFILE/deps/TEST
    let target = test.ancestors().nth(3).context("the test is not in a target folder")?.join("pairing");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cross/pairing/Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    for (name, _) in env::vars_os().filter(|(name, _)| of_a_package(name)) {
        command.env_remove(name);
    }
    let built = command.stdin(Stdio::null()).output().context("starting cargo")?;
    ensure!(built.status.success(), "tiebreaker-pairing can't be built:\n{}", String::from_utf8_lossy(&built.stderr));
    Ok(target.join("debug/tiebreaker-pairing"))
}
