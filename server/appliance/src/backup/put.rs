//! Restoring: into an empty folder, whole or not at all.
//!
//! Everything is written below a folder of its own, flushed, and moved to its place; `server.toml`, without which no daemon
//! starts, comes last. Until then the folder of its own is there, and tells a restore that was cut off from anything else.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tiebreaker_member::{Address, Ca, replace_private};
use tiebreaker_pipeline::name::ClusterName;
use tiebreaker_qnetd::Remembered;

use super::BackupError;
use super::contents::Contents;
use crate::config::Config;
use crate::door;
use crate::layout::Layout;
use crate::qdevice::{Folder, HolderFile, Pki};
use crate::rejoin::Pending;
use crate::secrets::Vault;

/// Where everything is written first.
const HALF: &str = ".restoring";

/// What an empty folder may hold: every file system of Linux's own makes it.
const OF_THE_SYSTEM: &str = "lost+found";

/// How a backup is restored.
#[derive(Debug, Default)]
pub(crate) struct Restoring {
    /// Where else nodes may be reached, by cluster.
    pub(crate) asks: BTreeMap<ClusterName, Vec<Address>>,
    /// The operator's word that every other machine with this identity is switched off for good.
    pub(crate) others_are_off: bool,
}

/// What has to be told about a restore.
#[derive(Debug)]
pub(crate) struct Restored {
    /// What is not in order with the settings on this machine.
    pub(crate) settings_fault: Option<String>,
}

/// Before anything reads or makes files in a data folder: finishes a restore that got to its end, and refuses one that didn't.
///
/// # Errors
/// A restore was cut off, or what is left of one can't be removed.
pub(crate) fn finish_or_refuse(layout: &Layout) -> Result<(), BackupError> {
    refuse_interrupted(layout)?;
    let half = layout.root().join(HALF);
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BackupError::io("removing", &half)(error)),
        _ => Ok(()),
    }
}

/// The same, changing nothing.
///
/// # Errors
/// A restore was cut off.
fn refuse_interrupted(layout: &Layout) -> Result<(), BackupError> {
    if layout.root().join(HALF).exists() && !layout.config().exists() {
        return Err(BackupError::Interrupted { folder: layout.root().to_owned() });
    }
    Ok(())
}

impl Restoring {
    /// Whether this could be restored into the folder. Changes nothing.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn check(&self, contents: &Contents, data: &Path) -> Result<(), BackupError> {
        let manifest = &contents.manifest;
        for name in self.asks.keys() {
            if !manifest.clusters.iter().any(|cluster| cluster.name == *name) {
                let known: Vec<&str> = manifest.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(BackupError::UnknownCluster { name: name.to_string(), known });
            }
        }
        if manifest.serves_corosync() && !self.others_are_off {
            return Err(BackupError::OthersMayBeOn);
        }
        if let Some((folder, pki)) = outside_authority(contents)?
            && folder.has_authority()
            && folder.open().map_or(true, |there| there.certificate() != pki.certificate())
        {
            return Err(BackupError::OtherAuthority { file: folder.authority() });
        }
        vacant(data).map(drop)
    }

    /// Restores.
    ///
    /// # Errors
    /// It can't be, or was refused. A folder in which it was begun is told from an empty one, and the next try begins anew.
    pub(crate) fn restore(&self, contents: &Contents, data: &Path) -> Result<Restored, BackupError> {
        self.check(contents, data)?;
        DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(BackupError::io("creating", data))?;
        let folder = File::open(data).map_err(BackupError::io("opening", data))?;
        flock(&folder, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| BackupError::Busy { folder: data.to_owned() })?;
        let sync = || folder.sync_all().map_err(BackupError::io("flushing", data));
        for left in vacant(data)? {
            remove(&left)?;
        }
        let half = data.join(HALF);
        DirBuilder::new().mode(0o700).create(&half).map_err(BackupError::io("creating", &half))?;
        sync()?;
        self.write(contents, &half)?;
        let settings_fault = Config::load_beside(&half.join("server.toml"), &half).err();
        if let Some((folder, pki)) = outside_authority(contents)?
            && !folder.has_authority()
        {
            folder
                .make_path(0o750)
                .and_then(|_| folder.put(&pki))
                .map_err(BackupError::part("the QDevice authority can't be put in its place"))?;
        }
        let config = Layout::new(data).config();
        for name in names_in(&half)? {
            if Some(name.as_os_str()) != config.file_name() {
                let (from, to) = (half.join(&name), data.join(&name));
                fs::rename(&from, &to).map_err(BackupError::io("putting in place", &to))?;
            }
        }
        sync()?;
        fs::rename(half.join("server.toml"), &config).map_err(BackupError::io("putting in place", &config))?;
        sync()?;
        fs::remove_dir(&half).map_err(BackupError::io("removing", &half))?;
        sync()?;
        Ok(Restored { settings_fault: settings_fault.map(|error| format!("{error:#}")) })
    }

    /// Writes the whole data folder to another place.
    fn write(&self, contents: &Contents, half: &Path) -> Result<(), BackupError> {
        let layout = Layout::new(half);
        let unwritten = |what: &str| format!("{what} can't be restored");
        Ca::restore(half, &contents.authority).map_err(BackupError::part(unwritten("the authority")))?;
        for (name, text) in &contents.files {
            if !is_below(Path::new(name)) {
                let why = format!("{name:?} is no file of the data folder");
                return Err(BackupError::part(unwritten("a file that server.toml names"))(why));
            }
            replace_private(&half.join(name), text.as_bytes())?;
        }
        if let Some(secrets) = &contents.secrets {
            Vault::of(half)
                .import(secrets.clone())
                .map_err(BackupError::part(unwritten("the secrets of power devices")))?;
        }
        if let (Some(pem), None) = (&contents.qdevice_authority, outside_authority(contents)?) {
            let folder = Folder::of_appliance(half);
            let pki = Pki::from_pem(&folder.authority(), pem)
                .map_err(BackupError::part(unwritten("the QDevice authority")))?;
            folder.put(&pki).map_err(BackupError::part(unwritten("the QDevice authority")))?;
        }
        // Who held a vote is not in the backup: anybody may (ADR 0014).
        HolderFile::in_folder(half).write(&Remembered { holders: BTreeMap::new(), whole: false })?;
        for (name, book) in &contents.doors {
            let what = format!("what was kept of {name}");
            door::restore(&layout, name, book.clone()).map_err(BackupError::part(unwritten(&what)))?;
        }
        for cluster in &contents.manifest.clusters {
            let asks = self.asks.get(&cluster.name).cloned().unwrap_or_default();
            let pending = Pending::new(cluster.clone(), asks, self.others_are_off);
            pending.write(&layout).map_err(BackupError::part(unwritten(&format!("cluster {}", cluster.name))))?;
        }
        replace_private(&half.join("server.toml"), contents.settings.as_bytes())?;
        Ok(())
    }
}

/// Whether a name leads to a place in the folder in which it stands.
pub(super) fn is_below(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_))) && path.file_name().is_some()
}

/// The QDevice authority that lies outside of the data folder, and where.
fn outside_authority(contents: &Contents) -> Result<Option<(Folder, Pki)>, BackupError> {
    let Some(pem) = &contents.qdevice_authority else { return Ok(None) };
    let path = toml::from_str::<toml::Table>(&contents.settings)
        .ok()
        .and_then(|table| Some(PathBuf::from(table.get("qdevice")?.get("authority")?.as_str()?)));
    let Some(path) = path else { return Ok(None) };
    let folder = Folder::of_corosync(&path);
    let damaged = BackupError::part("the QDevice authority in the backup can't be read");
    let pki = Pki::from_pem(&folder.authority(), pem).map_err(damaged)?;
    Ok(Some((folder, pki)))
}

/// What an interrupted restore has left in a folder that is empty but for that.
fn vacant(data: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let names = names_in(data)?;
    let was_begun = names.iter().any(|name| name == Path::new(HALF));
    let is_done = names.iter().any(|name| name == Path::new("server.toml"));
    let mut rest = names.into_iter().filter(|name| name != Path::new(OF_THE_SYSTEM));
    if was_begun && !is_done {
        // The folder that tells goes last.
        let (mark, others): (Vec<PathBuf>, Vec<PathBuf>) = rest.partition(|name| name == Path::new(HALF));
        return Ok(others.into_iter().chain(mark).map(|name| data.join(name)).collect());
    }
    match rest.next() {
        None => Ok(Vec::new()),
        Some(found) => {
            let found = found.display().to_string();
            Err(BackupError::NotEmpty { folder: data.to_owned(), found })
        }
    }
}

fn names_in(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::io("reading", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(PathBuf::from(entry.map_err(BackupError::io("reading", folder))?.file_name()));
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> Result<(), BackupError> {
    let is_folder = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(BackupError::io("removing", path))
}
