//! File systems: the kernel's own, and the card's.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::mbr;

/// The partition for people: the settings, and which slot boots.
const SETTINGS_PARTITION: u8 = 1;
/// The partition of the appliance's state.
const STATE_PARTITION: u8 = 4;

/// Where the first is mounted.
pub const SETTINGS: &str = "/boot";
/// Where the last is mounted.
pub const STATE: &str = "/state";

/// Mounts what the kernel itself offers. The root is memory, and stays so.
///
/// # Errors
/// Names what could not be mounted.
pub fn mount_kernels() -> Result<()> {
    let guarded = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, at, flags) in [
        ("devtmpfs", "/dev", guarded),
        ("proc", "/proc", guarded | MountFlags::NODEV),
        ("sysfs", "/sys", guarded | MountFlags::NODEV),
        ("tmpfs", "/run", guarded | MountFlags::NODEV),
        ("tmpfs", "/tmp", guarded | MountFlags::NODEV),
    ] {
        fs::create_dir_all(at).with_context(|| format!("making {at}"))?;
        mount(kind, at, kind, flags, None).with_context(|| format!("mounting {at}"))?;
    }
    Ok(())
}

/// Finds the disk that has this signature, for as long as drivers may still be looking. `alive` is called before each look:
/// the watchdog knows less time than a slow card needs.
///
/// # Errors
/// There is none.
pub fn find(signature: u32, within: Duration, alive: impl FnMut()) -> Result<String> {
    let found = until(within, alive, || look(signature))?;
    found.with_context(|| {
        format!("there is no disk with the signature {signature:08x}: is the card in, and was it written whole?")
    })
}

fn until<T>(
    within: Duration,
    mut alive: impl FnMut(),
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + within;
    loop {
        alive();
        let found = look()?;
        if found.is_some() || Instant::now() >= deadline {
            return Ok(found);
        }
        sleep(Duration::from_millis(50));
    }
}

fn look(signature: u32) -> Result<Option<String>> {
    let entries = fs::read_dir("/sys/class/block").context("looking for disks")?;
    for entry in entries.flatten() {
        let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
        if !path.join("partition").exists() && signature_of(&name) == Some(signature) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn signature_of(disk: &str) -> Option<u32> {
    let mut sector = [0; mbr::SECTOR];
    File::open(device(disk)).ok()?.read_exact(&mut sector).ok()?;
    mbr::signature(&sector)
}

fn device(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

/// Mounts the partition with the settings. It is never mounted to be written.
///
/// # Errors
/// It can't be mounted.
pub fn mount_settings(disk: &str) -> Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_partition(disk, SETTINGS_PARTITION, SETTINGS, "vfat", flags)
}

/// Leaves that partition, whose choice of the slot is to be written. Nothing of it is in use by then; what is mounted all the
/// same is mounted to read.
pub fn leave_settings() {
    let _ = unmount(SETTINGS, UnmountFlags::empty());
}

/// Mounts the state.
///
/// # Errors
/// It can't be mounted. It is never made anew: it holds the cluster's authority.
pub fn mount_state(disk: &str) -> Result<()> {
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_partition(disk, STATE_PARTITION, STATE, "ext4", flags)
}

fn mount_partition(disk: &str, number: u8, at: &str, kind: &str, flags: MountFlags) -> Result<()> {
    let source = device(&mbr::partition(disk, number));
    fs::create_dir_all(at).with_context(|| format!("making {at}"))?;
    mount(&source, at, kind, flags, None).with_context(|| format!("mounting {} on {at}", source.display()))
}

/// Leaves the state as a machine does that goes down: everything is on the card.
///
/// # Errors
/// The kernel refuses both.
pub fn leave_state() -> Result<()> {
    rustix::fs::sync();
    unmount(STATE, UnmountFlags::empty())
        .or_else(|_| mount_remount(STATE, MountFlags::RDONLY, ""))
        .with_context(|| format!("unmounting {STATE}"))
}

/// Replaces a file, so that after a power cut there is the old one or the new one. Writes nothing where it says the same
/// already.
///
/// # Errors
/// It can't be written.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let context = || format!("writing {}", path.display());
    let new = path.with_extension("new");
    fs::write(&new, text).and_then(|()| File::open(&new)?.sync_all()).with_context(context)?;
    fs::rename(&new, path).with_context(context)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_disk_shows_before_each_look_that_it_is_alive() {
        let (mut alive, mut looks) = (0, 0);
        let found = until(
            Duration::from_secs(60),
            || alive += 1,
            || {
                looks += 1;
                Ok((looks == 3).then_some("mmcblk0"))
            },
        );
        assert_eq!((found.unwrap(), alive), (Some("mmcblk0"), 3));
        assert_eq!(until(Duration::ZERO, || (), || Ok(None::<()>)).unwrap(), None);
    }

    #[test]
    fn a_file_is_replaced_whole_and_left_alone_where_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        replace(&path, "a = 1\n").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        replace(&path, "a = 1\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        replace(&path, "a = 2\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a = 2\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-made is left");
    }
}
