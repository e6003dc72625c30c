//! `/sys/class/watchdog`: what there is to know about a watchdog without opening it, since opening arms it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

use super::ioctl;
use crate::{Capabilities, Nature};

const CLASS: &str = "/sys/class/watchdog";

/// The identity by which the kernel's own timer (`softdog`) calls itself.
const SOFTDOG: &str = "Software Watchdog";

/// What sysfs says of one watchdog. A field is `None` where this kernel or driver doesn't say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inspected {
    /// The N of `/dev/watchdogN`.
    pub number: u32,
    /// The driver's name for the device.
    pub identity: String,
    /// The timeout that is set, in seconds.
    pub timeout_s: Option<u32>,
    /// It can't be stopped once it runs.
    pub no_way_out: Option<bool>,
    /// It is open or was left running: somebody else has it.
    pub active: Option<bool>,
    /// The driver's boot status bits; bit 5 says that the watchdog caused the last boot.
    pub boot_status: Option<u32>,
    /// The driver's option bits (WDIOF_*).
    pub options: Option<u32>,
}

impl Inspected {
    /// What the device can do, if the kernel tells its options without opening it.
    #[must_use]
    pub fn capabilities(&self) -> Option<Capabilities<'_>> {
        Some(capabilities(&self.identity, self.options?, self.no_way_out))
    }
}

/// sysfs could not be read.
#[derive(Debug)]
pub struct InspectError {
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} could not be read", self.path.display())
    }
}

impl std::error::Error for InspectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// What the kernel says of `/dev/watchdogN`, without opening it.
pub fn inspect(number: u32) -> Result<Inspected, InspectError> {
    inspect_in(Path::new(CLASS), number)
}

/// All watchdogs of this machine, by number, without opening any. Empty where there is none.
pub fn inspect_all() -> Result<Vec<Inspected>, InspectError> {
    inspect_all_in(Path::new(CLASS))
}

fn inspect_all_in(class: &Path) -> Result<Vec<Inspected>, InspectError> {
    let failed = |source| InspectError { path: class.into(), source };
    let entries = match fs::read_dir(class) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_prefix("watchdog")?.parse().ok()) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    numbers.into_iter().map(|number| inspect_in(class, number)).collect()
}

fn inspect_in(class: &Path, number: u32) -> Result<Inspected, InspectError> {
    let folder = class.join(std::format!("watchdog{number}"));
    let identity = attribute(&folder, "identity")?
        .ok_or_else(|| InspectError { path: folder.join("identity"), source: io::ErrorKind::NotFound.into() })?;
    Ok(Inspected {
        number,
        identity,
        timeout_s: attribute(&folder, "timeout")?.as_deref().and_then(parse_number),
        no_way_out: no_way_out_in(&folder)?,
        active: attribute(&folder, "state")?.as_deref().and_then(|state| match state {
            "active" => Some(true),
            "inactive" => Some(false),
            _ => None,
        }),
        boot_status: attribute(&folder, "bootstatus")?.as_deref().and_then(parse_number),
        options: attribute(&folder, "options")?.as_deref().and_then(parse_number),
    })
}

/// Whether the watchdog behind the character device `major:minor` can't be stopped, if the kernel says.
pub fn no_way_out(major: u32, minor: u32) -> Option<bool> {
    /// `/dev/watchdog` is a miscellaneous device and another name for the first watchdog.
    const MISC: (u32, u32) = (10, 130);
    let folder = if (major, minor) == MISC {
        Path::new(CLASS).join("watchdog0")
    } else {
        PathBuf::from(std::format!("/sys/dev/char/{major}:{minor}"))
    };
    no_way_out_in(&folder).ok().flatten()
}

fn no_way_out_in(folder: &Path) -> Result<Option<bool>, InspectError> {
    Ok(attribute(folder, "nowayout")?.as_deref().and_then(|value| match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }))
}

/// Capabilities out of a driver's identity and option bits.
pub fn capabilities(identity: &str, options: u32, no_way_out: Option<bool>) -> Capabilities<'_> {
    Capabilities {
        identity,
        nature: if identity == SOFTDOG { Nature::Software } else { Nature::Hardware },
        magic_close: options & ioctl::MAGIC_CLOSE != 0,
        no_way_out,
        settable: options & ioctl::SET_TIMEOUT != 0,
    }
}

fn attribute(folder: &Path, name: &str) -> Result<Option<String>, InspectError> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InspectError { path, source }),
    }
}

fn parse_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NoPromise, Promise, WeakPromise};

    fn class(name: &str, attributes: &[(&str, &str)]) -> PathBuf {
        let class = std::env::temp_dir().join(std::format!("tiebreaker-sysfs-{name}-{}", std::process::id()));
        let folder = class.join("watchdog0");
        fs::create_dir_all(&folder).unwrap();
        for (name, value) in attributes {
            fs::write(folder.join(name), std::format!("{value}\n")).unwrap();
        }
        class
    }

    #[test]
    fn a_watchdog_is_inspected_without_its_device() {
        let class = class(
            "full",
            &[
                ("identity", "i6300ESB timer"),
                ("timeout", "30"),
                ("nowayout", "0"),
                ("state", "inactive"),
                ("bootstatus", "32"),
                ("options", "0x8180"),
            ],
        );
        let found = inspect_all_in(&class).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].timeout_s, Some(30));
        assert_eq!(found[0].active, Some(false));
        assert_eq!(found[0].boot_status, Some(32));
        assert_eq!(found[0].capabilities().unwrap().promise(), Promise::Evidence);
        fs::remove_dir_all(class).unwrap();
    }

    #[test]
    fn what_the_kernel_does_not_say_is_unknown() {
        let class = class("bare", &[("identity", "Software Watchdog")]);
        let found = inspect_in(&class, 0).unwrap();
        assert_eq!((found.timeout_s, found.no_way_out, found.active), (None, None, None));
        assert!(found.capabilities().is_none());
        assert!(inspect_in(&class, 7).is_err());
        assert!(inspect_all_in(&class.join("none")).unwrap().is_empty());
        fs::remove_dir_all(class).unwrap();
    }

    #[test]
    fn softdog_is_no_evidence_and_no_magic_close_is_no_promise() {
        assert_eq!(capabilities(SOFTDOG, 0x8180, None).promise(), Promise::Weak(WeakPromise::SoftwareTimer));
        assert_eq!(capabilities("old", 0x8080, None).promise(), Promise::None(NoPromise::StopsWhenClosed));
    }
}
