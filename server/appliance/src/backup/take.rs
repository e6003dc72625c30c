//! Taking a backup: what is read, in which order, and what is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tiebreaker_member::takeover::last_stored;
use tiebreaker_member::{Ca, Identity, read_private};
use tiebreaker_pipeline::name::ClusterName;
use tiebreaker_pipeline::state::State;

use super::BackupError;
use super::contents::{BackedCluster, Contents, FORMAT, Manifest};
use super::put::is_below;
use crate::config::Config;
use crate::desk::unix_ms;
use crate::door;
use crate::layout::Layout;
use crate::qdevice::Folder;
use crate::rejoin::Pending;
use crate::secrets::Vault;

/// The applied states of the clusters that run.
pub(crate) type Known = BTreeMap<ClusterName, Arc<State>>;

/// The keys of `server.toml` that name files.
const FILE_KEYS: [&str; 2] = ["password_file", "privacy_file"];

/// Takes a backup beside a daemon that doesn't run. The caller holds the daemon's lock.
///
/// # Errors
/// A part of it can't be read.
pub(crate) fn take_stopped(layout: &Layout) -> Result<Contents, BackupError> {
    take(layout, &Known::new())
}

/// Takes a backup. Each file is replaced whole whenever it changes, so each is read as it was at one moment; and the settings come
/// first, since a device's secret is stored before the device: no device is without its secret.
///
/// # Errors
/// A part of it can't be read.
pub(crate) fn take(layout: &Layout, known: &Known) -> Result<Contents, BackupError> {
    let root = layout.root();
    let settings = std::fs::read_to_string(layout.config()).map_err(BackupError::io("reading", &layout.config()))?;
    let config = Config::parse(&settings, root);
    // What is not in order here will not be in order there; but who it is has to be known.
    let config = config.map_err(BackupError::part(format!("{} is not in order", layout.config().display())))?;
    let authority = Ca::load(root).map_err(BackupError::part("the authority can't be read"))?;
    let names = layout.clusters().map_err(BackupError::part("the clusters can't be listed"))?;
    let clusters = names.iter().map(|name| cluster(layout, name, known)).collect::<Result<Vec<_>, _>>()?;
    let (files, left_out) = named_files(&settings, root);
    let vault = Vault::of(root);
    let secrets = vault.export().map_err(BackupError::part("the secrets of power devices can't be read"))?;
    let secret_names = vault.status().map_err(BackupError::part("the secrets of power devices can't be read"))?.names;
    let folder = match &config.qdevice {
        Some(settings) => settings.folder(root).map_err(BackupError::part("the QDevice authority can't be found"))?,
        None => Folder::of_appliance(root),
    };
    let qdevice_authority = match folder.has_authority() {
        true => {
            Some(folder.open().map_err(BackupError::part("the QDevice authority can't be read"))?.to_pem().to_string())
        }
        false => None,
    };
    let mut doors = BTreeMap::new();
    for name in config.corosync.keys() {
        let book = door::for_backup(layout, name);
        if let Some(book) = book.map_err(BackupError::part(format!("what is kept of {name} can't be read")))? {
            doors.insert(name.clone(), book);
        }
    }
    let manifest = Manifest {
        product: env!("CARGO_PKG_VERSION").to_owned(),
        made_ms: unix_ms(),
        name: config.name.clone(),
        fingerprint: authority.certificate().fingerprint().to_string(),
        clusters,
        corosync: config.corosync.keys().cloned().collect(),
        qdevice: config.qdevice.is_some(),
        secrets: secret_names,
        left_out,
    };
    let authority = authority.to_pem().to_string();
    Ok(Contents { format: FORMAT, manifest, authority, settings, files, secrets, qdevice_authority, doors })
}

fn cluster(layout: &Layout, name: &ClusterName, known: &Known) -> Result<BackedCluster, BackupError> {
    let unread = |what: &str| format!("the appliance's {what} in cluster {name} can't be read");
    // A machine that was restored and has not come back yet knows what its own backup told it.
    if let Some(pending) = Pending::read(layout, name).map_err(BackupError::part(unread("way back")))? {
        return Ok(pending.cluster);
    }
    let identity = Identity::load(&layout.cluster(name)).map_err(BackupError::part(unread("identity")))?;
    let number = identity.cert().subject.raft_id.unwrap_or_default();
    if let Some(state) = known.get(name) {
        return Ok(BackedCluster::new(name, number, Some(state)));
    }
    // A store that is damaged must not keep the rest from being saved: the nodes can be named when it is restored.
    let stored = last_stored(&layout.store(name)).ok().flatten();
    Ok(BackedCluster::new(name, number, stored.as_ref()))
}

/// The files that the settings name: those in the data folder with what they hold, and the names of all others.
fn named_files(settings: &str, root: &Path) -> (BTreeMap<String, String>, Vec<String>) {
    let mut names = BTreeSet::new();
    if let Ok(table) = toml::from_str::<toml::Table>(settings) {
        collect(&toml::Value::Table(table), &mut names);
    }
    let (mut files, mut left_out) = (BTreeMap::new(), Vec::new());
    for name in names {
        let path = Path::new(&name);
        match is_below(path).then(|| read_private(&root.join(path), "")) {
            Some(Ok(text)) => {
                files.insert(name, text.to_string());
            }
            Some(Err(_)) | None => left_out.push(name),
        }
    }
    (files, left_out)
}

fn collect(value: &toml::Value, names: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value {
                    toml::Value::String(name) if FILE_KEYS.contains(&key.as_str()) => {
                        names.insert(name.clone());
                    }
                    other => collect(other, names),
                }
            }
        }
        toml::Value::Array(all) => all.iter().for_each(|value| collect(value, names)),
        toml::Value::String(_)
        | toml::Value::Integer(_)
        | toml::Value::Float(_)
        | toml::Value::Boolean(_)
        | toml::Value::Datetime(_) => {}
    }
}
