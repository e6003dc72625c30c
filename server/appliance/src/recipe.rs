//! How a configured device is opened, each time anew: a password is in memory while its device is worked, and not longer.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof, Secret};
use tiebreaker_member::ask::Hidden;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::device_config::{Access, Outlet, RawDevice};
use crate::secrets::Vault;

/// Where the secrets of one device come from.
pub(crate) struct Keeper<'a> {
    dir: &'a Path,
    vault: &'a Vault,
    /// The device, as the vault names it.
    name: String,
    /// The configuration is only looked at: what lies in the vault isn't needed yet.
    blank: bool,
    used: Cell<bool>,
    /// The secret of a device that is only tried, and is in no vault yet.
    trial: Option<&'a Hidden>,
}

impl Keeper<'_> {
    /// Reads the secret of a device: from the file beside the configuration, from the service manager's credential, or
    /// from the vault where the configuration names neither.
    ///
    /// # Errors
    /// Names the file and the way out, never the secret.
    pub(crate) fn read<E: std::error::Error + Send + Sync + 'static>(
        &self,
        file: Option<&str>,
        credential: Option<&str>,
        make: impl FnOnce(Vec<u8>) -> Result<Secret, E>,
    ) -> Result<Secret> {
        self.used.set(true);
        match (file, credential) {
            (Some(_), Some(_)) => bail!("password_file and credential: give one of them"),
            (Some(file), None) => read_file(&self.dir.join(file), "password_file", make),
            (None, Some(_)) | (None, None) if self.blank => make(Vec::new()).context("an empty secret"),
            (None, Some(credential)) => {
                let dir = std::env::var_os("CREDENTIALS_DIRECTORY").with_context(|| {
                    format!(
                        "credential {credential}: the service manager gave this process none: add \
                         LoadCredentialEncrypted={credential} to the unit of tiebreaker-server"
                    )
                })?;
                read_file(&Path::new(&dir).join(credential), "credential", make)
            }
            (None, None) => match self.trial {
                Some(trial) => make(trial.expose().as_bytes().to_vec()).context("the secret"),
                None => {
                    let secret = self.vault.get(&self.name)?;
                    make(secret.to_vec()).with_context(|| format!("the secret of {} in the vault", self.name))
                }
            },
        }
    }
}

/// Reads a password from a file that its owner alone may read.
fn read_file<E: std::error::Error + Send + Sync + 'static>(
    path: &Path,
    key: &str,
    make: impl FnOnce(Vec<u8>) -> Result<Secret, E>,
) -> Result<Secret> {
    use std::os::unix::fs::PermissionsExt;
    let at = || format!("{key} {}", path.display());
    let mode = std::fs::metadata(path).with_context(at)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{}: others may read it (mode {:o}): run `chmod 600` on it", at(), mode & 0o777);
    }
    let text = zeroize::Zeroizing::new(std::fs::read(path).with_context(at)?);
    make(without_line_end(&text).to_vec()).with_context(at)
}

/// What an editor or `echo` puts behind a password is no part of it.
pub(crate) fn without_line_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    &text[..end]
}

/// A device as it is configured.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// Of which cluster.
    pub(crate) cluster: ClusterName,
    /// Whose power it switches.
    pub(crate) node: MemberName,
    /// Its name, unique per node.
    pub(crate) name: String,
    /// An operator saw it cut this node's power, and no other's.
    pub(crate) drilled: bool,
    /// The level of its node's plan, if the configuration names one.
    pub(crate) level: Option<u8>,
    /// What it is called in the cluster's state.
    pub(crate) kind: &'static str,
    /// All that it switches.
    pub(crate) outlets: Vec<Outlet>,
    /// What stands behind its word, if it takes a secret, and so is opened each time anew.
    secret: Option<OffSign>,
    raw: RawDevice,
    text: Arc<str>,
    dir: PathBuf,
    vault: Vault,
    trial: Option<Hidden>,
}

impl Recipe {
    /// Checks one table of the configuration whose text is `text`, beside which secrets may lie in `dir`. What is in the
    /// vault is read when it is used.
    ///
    /// # Errors
    /// Names the place and the way out.
    pub(crate) fn check(
        cluster: &ClusterName,
        raw: RawDevice,
        text: &Arc<str>,
        dir: &Path,
        vault: &Vault,
    ) -> Result<Self> {
        let keeper = Keeper { dir, vault, name: String::new(), blank: true, used: Cell::new(false), trial: None };
        let config = raw.clone().check(text, &keeper)?;
        let (kind, outlets) = (config.access.kind(), config.access.outlets());
        let secret = keeper.used.get().then(|| config.access.open().sign());
        Ok(Self {
            cluster: cluster.clone(),
            node: config.node,
            name: config.name,
            drilled: config.drilled,
            level: config.level,
            kind,
            outlets,
            secret,
            raw,
            text: Arc::clone(text),
            dir: dir.to_owned(),
            vault: vault.clone(),
            trial: None,
        })
    }

    /// The same with a secret that is in no vault yet.
    pub(crate) fn with_trial(self, secret: Option<Hidden>) -> Self {
        Self { trial: secret, ..self }
    }

    /// What it switches, in words.
    pub(crate) fn address(&self) -> String {
        self.outlets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether its secret lies in the vault.
    pub(crate) fn is_in_vault(&self) -> bool {
        self.secret.is_some() && self.raw.names_no_secret()
    }

    /// The name under which the vault keeps its secret.
    pub(crate) fn secret_name(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.node, self.name)
    }

    /// How it is reached, with its secret.
    ///
    /// # Errors
    /// The secret can't be had.
    pub(crate) fn access(&self) -> Result<Access> {
        let (dir, vault) = (self.dir.as_path(), &self.vault);
        let (name, used) = (self.secret_name(), Cell::new(false));
        let keeper = Keeper { dir, vault, name, blank: false, used, trial: self.trial.as_ref() };
        Ok(self.raw.clone().check(&self.text, &keeper)?.access)
    }

    /// The device. One that takes a secret reads it for each operation.
    ///
    /// # Errors
    /// It takes none and can't be opened.
    pub(crate) fn open(&self) -> Result<Box<dyn Device>> {
        match self.secret {
            Some(sign) => Ok(Box::new(Kept::new(self.clone(), sign))),
            None => Ok(self.access()?.open()),
        }
    }
}

/// A device whose secret is read for each operation, and wiped after it.
struct Kept {
    name: String,
    sign: OffSign,
    recipe: Arc<Recipe>,
    /// Its driver is made anew each time, so the rule of one operation at a time is kept here.
    lane: Mutex<()>,
}

impl Kept {
    fn new(recipe: Recipe, sign: OffSign) -> Self {
        Self {
            name: format!("{} {}", recipe.kind, recipe.address()),
            sign,
            recipe: Arc::new(recipe),
            lane: Mutex::new(()),
        }
    }

    /// The device, for one operation.
    async fn open(&self, deadline: Instant) -> Result<(MutexGuard<'_, ()>, Box<dyn Device>), DeviceError> {
        let Ok(lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        let recipe = Arc::clone(&self.recipe);
        // Files are read and decrypted: on a card that stalls that takes its time.
        let opened = tokio::task::spawn_blocking(move || recipe.access().map(Access::open));
        match opened.await {
            Ok(Ok(device)) => Ok((lane, device)),
            // Nothing was sent, and trying again doesn't mend it.
            Ok(Err(error)) => Err(DeviceError::new(&self.name, Fault::Credentials, format!("{error:#}"))),
            Err(error) => Err(DeviceError::new(&self.name, Fault::Credentials, error)),
        }
    }
}

impl Device for Kept {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        self.sign
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(async move {
            let (_lane, device) = self.open(deadline).await?;
            device.state(deadline).await
        })
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let (_lane, device) = self.open(deadline).await?;
            device.off(deadline).await
        })
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            let (_lane, device) = self.open(deadline).await?;
            device.on(deadline).await
        })
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move {
            let (_lane, device) = self.open(deadline).await?;
            device.prove(deadline).await
        })
    }
}
