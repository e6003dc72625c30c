//! The driver for OCF resource agents (Open Cluster Framework, Resource Agent API 1.1).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::resource::unknown_code;
use super::{DriverError, Probe};
use crate::operation::Kind;

/// An OCF agent and its parameters: `ocf:heartbeat:Dummy`.
#[derive(Clone, PartialEq, Eq)]
pub struct OcfSpec {
    /// Its vendor, `heartbeat`.
    pub provider: String,
    /// Its type, `Dummy`.
    pub kind: String,
    /// Its parameters, without the prefix `OCF_RESKEY_`.
    pub params: BTreeMap<String, String>,
}

impl fmt::Debug for OcfSpec {
    /// Without the parameters' values, some of which are passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OcfSpec")
            .field("provider", &self.provider)
            .field("kind", &self.kind)
            .field("params", &self.params.keys())
            .finish()
    }
}

/// Where the machine's OCF agents are: `/usr/lib/ocf`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OcfRoot(pub PathBuf);

impl Default for OcfRoot {
    fn default() -> Self {
        Self("/usr/lib/ocf".into())
    }
}

impl OcfSpec {
    /// Reads `ocf:PROVIDER:TYPE`.
    pub fn parse(class: &str, params: BTreeMap<String, String>) -> Result<Self, DriverError> {
        let refuse = |why| DriverError::Spec { what: "the OCF agent", value: class.to_owned(), why };
        let parts: Vec<&str> = class.split(':').collect();
        let ["ocf", provider, kind] = parts[..] else { return Err(refuse("write it as ocf:PROVIDER:TYPE")) };
        let spec = Self { provider: provider.to_owned(), kind: kind.to_owned(), params };
        spec.check()?;
        Ok(spec)
    }

    /// Both parts of the name become parts of a path, and parameters become names of variables.
    fn check(&self) -> Result<(), DriverError> {
        for (what, value) in [("the OCF provider", &self.provider), ("the OCF agent", &self.kind)] {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if value.is_empty() || value.starts_with('.') || !value.bytes().all(fine) {
                let why = "use letters, digits, '-', '_' and '.', not in front";
                return Err(DriverError::Spec { what, value: value.clone(), why });
            }
        }
        for (name, value) in &self.params {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || !name.bytes().all(fine) {
                let why = "use letters, digits and '_', no digit in front";
                return Err(DriverError::Spec { what: "the OCF parameter", value: name.clone(), why });
            }
            if value.contains('\0') {
                // Its value may be a secret, so only its name is told.
                let why = "its value holds a zero byte";
                return Err(DriverError::Spec { what: "the OCF parameter", value: name.clone(), why });
            }
        }
        Ok(())
    }

    /// The agent's file. Missing is an error that says where agents come from.
    pub fn agent_file(&self, root: &OcfRoot) -> Result<PathBuf, DriverError> {
        self.check()?;
        let path = root.0.join("resource.d").join(&self.provider).join(&self.kind);
        if path.is_file() {
            Ok(path)
        } else {
            Err(DriverError::AgentMissing { provider: self.provider.clone(), kind: self.kind.clone(), path })
        }
    }

    pub(super) fn program(
        &self,
        root: &OcfRoot,
        resource: &str,
        kind: Kind,
        other: Option<&str>,
        deadline: Duration,
        runtime_dir: &Path,
    ) -> Result<(Vec<String>, BTreeMap<String, String>), DriverError> {
        let path = self.agent_file(root)?;
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| DriverError::Spec {
                what: "the path",
                value: path.to_string_lossy().into_owned(),
                why: "it is not UTF-8",
            })
        };
        // Agents keep their state files here. It belongs to one node, and a reboot empties it like all of the folder.
        let state = runtime_dir.join("rsctmp");
        std::fs::create_dir_all(&state)
            .map_err(|source| crate::operation::OperationError::System { what: "make the agents' folder", source })?;
        let mut env: BTreeMap<String, String> =
            self.params.iter().map(|(name, value)| (format!("OCF_RESKEY_{name}"), value.clone())).collect();
        let fixed = [
            ("OCF_ROOT", text(&root.0)?),
            ("OCF_RA_VERSION_MAJOR", "1".to_owned()),
            ("OCF_RA_VERSION_MINOR", "1".to_owned()),
            ("OCF_RESOURCE_INSTANCE", resource.to_owned()),
            ("OCF_RESOURCE_PROVIDER", self.provider.clone()),
            ("OCF_RESOURCE_TYPE", self.kind.clone()),
            ("OCF_CHECK_LEVEL", "0".to_owned()),
            // Milliseconds, as agents expect it.
            ("OCF_RESKEY_CRM_meta_timeout", deadline.as_millis().to_string()),
            // Zero: a probe, not one in a row of monitors. Agents are stricter about what they know for sure then.
            ("OCF_RESKEY_CRM_meta_interval", "0".to_owned()),
            ("OCF_RESKEY_CRM_meta_name", kind.as_str().to_owned()),
            ("HA_RSCTMP", text(&state)?),
        ];
        env.extend(fixed.map(|(name, value)| (name.to_owned(), value)));
        // The other end of a live move, by the name that each end knows it by.
        let end = match kind {
            Kind::Migrate => Some("OCF_RESKEY_CRM_meta_migrate_target"),
            Kind::Receive => Some("OCF_RESKEY_CRM_meta_migrate_source"),
            Kind::Start | Kind::Stop | Kind::Monitor => None,
        };
        env.extend(end.zip(other).map(|(end, other)| (end.to_owned(), other.to_owned())));
        Ok((vec![text(&path)?, kind.as_str().to_owned()], env))
    }

    /// What the exit code of a monitor says.
    pub(super) fn judge(code: i32, output: &str) -> Probe {
        match code {
            // 8 is running as promoted; 190 and 191 are the same two, degraded.
            0 | 8 | 190 | 191 => Probe::Running,
            7 => Probe::Stopped,
            // Generic error and failed promoted: the agent has looked, and it is broken.
            1 | 9 => Probe::Failed,
            2 => unknown_code(code, "invalid argument", output),
            3 => unknown_code(code, "action not implemented", output),
            4 => unknown_code(code, "insufficient privileges", output),
            5 => unknown_code(code, "not installed", output),
            6 => unknown_code(code, "not configured", output),
            _ => unknown_code(code, "not a code of OCF", output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_is_the_only_code_that_means_stopped() {
        for code in (0..=255).filter(|code| *code != 7) {
            assert!(OcfSpec::judge(code, "").counts_as_running(), "{code}");
        }
        assert_eq!(OcfSpec::judge(7, ""), Probe::Stopped);
        assert_eq!(OcfSpec::judge(9, ""), Probe::Failed);
        assert_eq!(OcfSpec::judge(190, ""), Probe::Running);
        let Probe::Unknown { why } = OcfSpec::judge(5, "no such binary") else { panic!("5 is unknown") };
        assert_eq!(why, "the probe ended with code 5 (not installed): no such binary");
    }

    #[test]
    fn names_are_read_and_those_that_leave_the_folder_are_refused() {
        let spec = OcfSpec::parse("ocf:heartbeat:Dummy", BTreeMap::new()).unwrap();
        assert_eq!((spec.provider.as_str(), spec.kind.as_str()), ("heartbeat", "Dummy"));
        for class in ["heartbeat:Dummy", "ocf:heartbeat", "ocf:..:Dummy", "ocf:a/b:c", "ocf::x", "lsb:a:b"] {
            assert!(OcfSpec::parse(class, BTreeMap::new()).is_err(), "{class}");
        }
        let params = BTreeMap::from([("a=b".to_owned(), String::new())]);
        assert!(OcfSpec::parse("ocf:heartbeat:Dummy", params).is_err());
    }

    #[test]
    fn a_missing_agent_names_the_package() {
        let root = OcfRoot("/nonexistent".into());
        let spec = OcfSpec::parse("ocf:heartbeat:Dummy", BTreeMap::new()).unwrap();
        let error = spec.agent_file(&root).unwrap_err().to_string();
        assert!(error.contains("resource-agents") && error.contains("/nonexistent"), "{error}");
    }
}
