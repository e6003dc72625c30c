//! Does the kernel let go of an output when its process dies?

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::string::String;

const MODULES: &str = "/sys/module";
const PARAMETER: &str = "parameters/persist_gpio_outputs";

/// What the kernel does with an output whose process has died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Released {
    /// It becomes an input, and what is wired to it decides.
    LetGo,
    /// No driver of this kernel says. Those without such a setting let go.
    NotSaid,
}

/// An output would keep its last level when this process dies, or it can't be found out.
#[derive(Debug)]
pub enum ReleaseError {
    /// It would keep it: a button that is pressed at that moment stays pressed.
    Kept {
        /// The driver's module.
        module: String,
    },
    /// The setting can't be read.
    Unreadable {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept { module } => write!(
                f,
                "this kernel leaves GPIO outputs as they are when their process dies, so a power button would stay \
                 pressed and a supply cut: put dtparam=strict_gpiod into config.txt, or {module}.persist_gpio_outputs=n into cmdline.txt, \
                 and reboot"
            ),
            Self::Unreadable { path, .. } => write!(f, "{} can't be read", path.display()),
        }
    }
}

impl std::error::Error for ReleaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Kept { .. } => None,
        }
    }
}

/// Makes sure that no driver keeps outputs as they are (`persist_gpio_outputs`, which the Raspberry Pi's kernels set).
///
/// # Errors
/// One does, or that can't be found out.
pub fn check_release() -> Result<Released, ReleaseError> {
    check_release_in(Path::new(MODULES))
}

fn check_release_in(modules: &Path) -> Result<Released, ReleaseError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        |source| ReleaseError::Unreadable { path, source }
    };
    let entries = match fs::read_dir(modules) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Released::NotSaid),
        other => other.map_err(unreadable(modules))?,
    };
    let mut released = Released::NotSaid;
    for entry in entries {
        let entry = entry.map_err(unreadable(modules))?;
        let path = entry.path().join(PARAMETER);
        match fs::read_to_string(&path) {
            Ok(value) if matches!(value.trim(), "N" | "0") => released = Released::LetGo,
            Ok(_) => return Err(ReleaseError::Kept { module: entry.file_name().to_string_lossy().into_owned() }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(unreadable(&path)(error)),
        }
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn modules(name: &str, value: Option<&str>) -> PathBuf {
        let modules = std::env::temp_dir().join(std::format!("tiebreaker-release-{name}-{}", std::process::id()));
        let parameters = modules.join("pinctrl_bcm2835/parameters");
        fs::create_dir_all(&parameters).unwrap();
        fs::create_dir_all(modules.join("i2c_dev")).unwrap();
        if let Some(value) = value {
            fs::write(parameters.join("persist_gpio_outputs"), std::format!("{value}\n")).unwrap();
        }
        modules
    }

    #[test]
    fn a_kernel_that_keeps_outputs_is_refused_with_the_remedy() {
        for kept in ["Y", "1", ""] {
            let modules = modules("kept", Some(kept));
            let error = check_release_in(&modules).unwrap_err().to_string();
            assert!(error.contains("pinctrl_bcm2835.persist_gpio_outputs=n"), "{error}");
            assert!(error.contains("dtparam=strict_gpiod"), "{error}");
            fs::remove_dir_all(modules).unwrap();
        }
    }

    #[test]
    fn one_that_lets_go_and_one_that_does_not_say_are_told_apart() {
        let lets_go = modules("lets-go", Some("N"));
        assert_eq!(check_release_in(&lets_go).unwrap(), Released::LetGo);
        let not_said = modules("not-said", None);
        assert_eq!(check_release_in(&not_said).unwrap(), Released::NotSaid);
        assert_eq!(check_release_in(&not_said.join("none")).unwrap(), Released::NotSaid);
        fs::remove_dir_all(lets_go).unwrap();
        fs::remove_dir_all(not_said).unwrap();
    }
}
