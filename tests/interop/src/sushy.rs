//! `sushy-emulator` of the Python package sushy-tools as a BMC that speaks Redfish, over TLS, with its own fake system.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::tool;

/// The release that the tests are about.
const PACKAGE: &str = "sushy-tools==2.2.0";
/// The emulator's account.
pub const USER: &str = "oper";
/// Its password: no word that the memory of a process holds by chance.
pub const PASSWORD: &str = "quarterdeck-lantern-7";
/// The password's hash, by bcrypt at its lowest cost.
const HASH: &str = "$2b$04$pAxZ1j7zEpWO0yj4DlSmH.6EMSadsB.9rE3Qw8rGGwNqa82Ly2eMG";
/// The UUID of the system, which is also its name in paths.
pub const UUID: &str = "27946b59-9e44-4fa7-8e91-f3527a1ef094";

/// A running emulator whose system is on. Ends when dropped.
pub struct Sushy {
    emulator: Child,
    address: SocketAddr,
    certificate: Vec<u8>,
    log: PathBuf,
    _dir: TempDir,
}

impl Sushy {
    /// Installs the emulator, unless an earlier run did, and starts it on a free port of loopback.
    ///
    /// # Errors
    /// Python, its module venv or the package can't be had, or the emulator doesn't start.
    pub fn start() -> Result<Self> {
        let program = installed()?;
        let dir = tempfile::Builder::new().prefix("sushy").tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["bmc.invalid".to_owned()])?.self_signed(&key)?;
        fs::write(at("certificate.pem"), certificate.pem())?;
        fs::write(at("key.pem"), key.serialize_pem())?;
        fs::write(at("users"), format!("{USER}:{HASH}\n"))?;
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{ip}'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_SSL_CERT = '{dir}/certificate.pem'\nSUSHY_EMULATOR_SSL_KEY = '{dir}/key.pem'\n\
             SUSHY_EMULATOR_AUTH_FILE = '{dir}/users'\nSUSHY_EMULATOR_STATE_DIR = '{dir}'\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{UUID}', 'name': 'node1', 'power_state': 'On', \
             'external_notifier': False, 'nics': []}}]\n",
            ip = address.ip(),
            port = address.port(),
            dir = dir.path().display(),
        );
        fs::write(at("emulator.conf"), config)?;
        let log = at("log");
        let output = File::create(&log)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(at("emulator.conf")).arg("--fake");
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let emulator = command.spawn().context("sushy-emulator")?;
        Ok(Self { emulator, address, certificate: certificate.der().to_vec(), log, _dir: dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that it shows, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Sushy {
    fn drop(&mut self) {
        // The child is ours and not reaped yet, so its id can't be another's.
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

/// The emulator in an environment of its own below the build's folder.
fn installed() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    fs::create_dir_all(&target)?;
    let folder = target.canonicalize()?.join(PACKAGE.replace("==", "-"));
    // Tests run beside each other: the first installs, the others wait.
    let lock = File::create(target.join("sushy-tools.lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let done = folder.join("installed");
    if !done.is_file() {
        let _ = fs::remove_dir_all(&folder);
        let python = tool("python3", "python3-venv")?;
        ran(Command::new(python).args(["-m", "venv"]).arg(&folder), "install the Debian package python3-venv")?;
        let pip = folder.join("bin/pip");
        let install = ["install", "--quiet", "--disable-pip-version-check", PACKAGE];
        ran(Command::new(pip).args(install), "the Python package index must be reachable")?;
        fs::write(done, "")?;
    }
    Ok(folder.join("bin/sushy-emulator"))
}

fn ran(command: &mut Command, way_out: &str) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| way_out.to_owned())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{PACKAGE} can't be installed ({way_out}): {error}");
    Ok(())
}
