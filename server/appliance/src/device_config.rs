//! Power devices in `server.toml`: one table for each, whose `kind` says which other keys it has.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_fence::{
    AccountName, Device, Fingerprint, IpmiConfig, IpmiDevice, Pins, Privilege, RedfishConfig, RedfishDevice,
    RedfishLogin, Secret, Suite, SystemGuid, UserName,
};
use tiebreaker_pipeline::name::MemberName;
use toml::Spanned;

/// The table as it is written: the keys of all kinds, so that toml itself points at any other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDevice {
    node: String,
    pub(crate) name: String,
    kind: Spanned<Kind>,
    address: Spanned<String>,
    user: String,
    password_file: String,
    #[serde(default)]
    drilled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suite: Option<Spanned<u8>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificates: Option<Spanned<Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uuid: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<Spanned<RedfishLogin>>,
}

/// The protocol of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// IPMI v2.0.
    Ipmi,
    /// Redfish.
    Redfish,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
        }
    }
}

/// One power device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceConfig {
    /// Whose power it switches.
    pub(crate) node: MemberName,
    /// Its name, unique per node.
    pub(crate) name: String,
    /// An operator saw it cut this node's power, and no other's.
    pub(crate) drilled: bool,
    /// How to reach it.
    pub(crate) access: Access,
}

/// How to reach a device.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// By IPMI.
    Ipmi(IpmiConfig),
    /// By Redfish.
    Redfish(RedfishConfig),
}

impl Access {
    /// What it is called in the cluster's state.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Ipmi(_) => Kind::Ipmi.name(),
            Self::Redfish(_) => Kind::Redfish.name(),
        }
    }

    /// What it switches.
    pub(crate) fn outlet(&self) -> Outlet {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match self {
            Self::Ipmi(config) => Outlet { address: canonical(config.address), part: None },
            Self::Redfish(config) => {
                let system = config.system.as_str().trim_end_matches('/').to_owned();
                Outlet { address: canonical(config.address), part: Some(system) }
            }
        }
    }

    /// The driver. Nothing is sent yet.
    pub(crate) fn open(self) -> Box<dyn Device> {
        match self {
            Self::Ipmi(config) => Box::new(IpmiDevice::new(config)),
            Self::Redfish(config) => Box::new(RedfishDevice::new(config)),
        }
    }
}

/// What a device switches: an address, and which of those that it has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Outlet {
    address: SocketAddr,
    part: Option<String>,
}

impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.part.as_ref().map_or(Ok(()), |part| write!(f, " {part}"))
    }
}

impl RawDevice {
    /// Checks one table. `text` is the file's, for the places of mistakes; secrets are read beside it, from `dir`.
    pub(crate) fn check(self, text: &str, dir: &Path) -> Result<DeviceConfig> {
        let node = MemberName::new(&self.node).context("node")?;
        let (name, drilled) = (self.name.clone(), self.drilled);
        let access = match self.kind.get_ref() {
            Kind::Ipmi => {
                self.has_none(
                    text,
                    &[
                        ("certificates", span(&self.certificates)),
                        ("system", span(&self.system)),
                        ("uuid", span(&self.uuid)),
                        ("login", span(&self.login)),
                    ],
                )?;
                Access::Ipmi(self.ipmi(text, dir)?)
            }
            Kind::Redfish => {
                self.has_none(text, &[("suite", span(&self.suite))])?;
                Access::Redfish(self.redfish(text, dir)?)
            }
        };
        Ok(DeviceConfig { node, name, drilled, access })
    }

    fn ipmi(self, text: &str, dir: &Path) -> Result<IpmiConfig> {
        let address = self.address(text, 623)?;
        let suite = self.suite.as_ref().ok_or_else(|| self.lacks(text, "suite", "the cipher suite, 17 or 3"))?;
        let suite = Suite::try_from(*suite.get_ref()).with_context(|| place(text, suite.span()))?;
        let password = read_secret(dir, &self.password_file, Secret::new)?;
        let privilege = Privilege::default();
        Ok(IpmiConfig { address, user: UserName::new(self.user)?, password, suite, kg: None, privilege })
    }

    fn redfish(self, text: &str, dir: &Path) -> Result<RedfishConfig> {
        let address = self.address(text, tiebreaker_fence::HTTPS_PORT)?;
        let fingerprints = "the SHA-256 fingerprint of the BMC's certificate, and of its next one if there is one";
        let pins = self.certificates.as_ref().ok_or_else(|| self.lacks(text, "certificates", fingerprints))?;
        let at = || format!("{}: certificates", place(text, pins.span()));
        let parsed: Result<Vec<Fingerprint>, _> = pins.get_ref().iter().map(|text| text.parse()).collect();
        let pins = match parsed.with_context(at)?[..] {
            [current] => Pins { current, next: None },
            [current, next] => Pins { current, next: Some(next) },
            _ => bail!("{}: one or two: {fingerprints}", at()),
        };
        let example = "the path of the node's system, for instance \"/redfish/v1/Systems/1\"";
        let system = self.system.as_ref().ok_or_else(|| self.lacks(text, "system", example))?;
        let system_path =
            system.get_ref().parse().with_context(|| format!("{}: system", place(text, system.span())))?;
        let uuid = match &self.uuid {
            Some(uuid) if SystemGuid::from_uuid(uuid.get_ref()).is_some() => Some(uuid.get_ref().clone()),
            Some(uuid) => bail!("{}: uuid: {:?} is no UUID", place(text, uuid.span()), uuid.get_ref()),
            None if self.drilled => None,
            None => {
                let what = "what /sys/class/dmi/id/product_uuid says on the node; where the BMC tells none, fence the \
                            node once by hand, see that this very machine goes dark, then set drilled = true";
                return Err(self.lacks(text, "uuid", what));
            }
        };
        let login = self.login.as_ref().map(|login| *login.get_ref()).unwrap_or_default();
        let password = read_secret(dir, &self.password_file, Secret::for_web)?;
        let user = AccountName::new(self.user)?;
        Ok(RedfishConfig { address, pins, user, password, login, system: system_path, uuid, drilled: self.drilled })
    }

    fn address(&self, text: &str, port: u16) -> Result<SocketAddr> {
        let address = self.address.get_ref();
        address.parse().with_context(|| {
            let at = place(text, self.address.span());
            format!("{at}: address: {address:?} is no ADDRESS:PORT, for instance 192.0.2.7:{port}")
        })
    }

    /// Refuses keys of other kinds.
    fn has_none(&self, text: &str, others: &[(&str, Option<Range<usize>>)]) -> Result<()> {
        let kind = self.kind.get_ref().name();
        for (key, span) in others {
            if let Some(span) = span {
                bail!("{}: {key}: devices of kind = {kind:?} have no such key", place(text, span.clone()));
            }
        }
        Ok(())
    }

    fn lacks(&self, text: &str, key: &str, what: &str) -> anyhow::Error {
        let kind = self.kind.get_ref().name();
        anyhow!("{}: kind = {kind:?} needs {key}: {what}", place(text, self.kind.span()))
    }
}

fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
    value.as_ref().map(Spanned::span)
}

/// Where a value begins, as an editor counts.
fn place(text: &str, span: Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    format!("line {line}, column {column}")
}

/// Reads a password from a file that its owner alone may read.
fn read_secret<E: std::error::Error + Send + Sync + 'static>(
    dir: &Path,
    file: &str,
    make: impl FnOnce(Vec<u8>) -> Result<Secret, E>,
) -> Result<Secret> {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(file);
    let at = || format!("password_file {}", path.display());
    let mode = std::fs::metadata(&path).with_context(at)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{}: others may read it (mode {:o}): run `chmod 600` on it", at(), mode & 0o777);
    }
    let text = zeroize::Zeroizing::new(std::fs::read(&path).with_context(at)?);
    let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    make(text[..end].to_vec()).with_context(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "node = 'node1'\nname = 'bmc'\naddress = '192.0.2.7:443'\nuser = 'tb'\npassword_file = 'bmc'\n";
    const UUID: &str = "uuid = '4c4c4544-0042-3510-8054-b4c04f4d3132'\n";

    fn redfish() -> String {
        let pin = Fingerprint::of(b"a certificate");
        format!("{HEAD}kind = 'redfish'\ncertificates = ['{pin}']\nsystem = '/redfish/v1/Systems/1'\n{UUID}")
    }

    fn check(text: &str) -> Result<DeviceConfig, String> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("bmc");
        std::fs::write(&secret, "correct-horse-battery\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let raw: RawDevice = toml::from_str(text).map_err(|error| error.to_string())?;
        raw.check(text, dir.path()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_redfish_device_is_read_with_its_defaults() {
        let config = check(&redfish()).unwrap();
        assert_eq!((config.access.kind(), config.drilled), ("redfish", false));
        assert_eq!(config.access.outlet().to_string(), "192.0.2.7:443 /redfish/v1/Systems/1");
        let Access::Redfish(access) = config.access else { panic!("no redfish") };
        assert_eq!((access.login, access.pins.next), (RedfishLogin::Basic, None));
        assert_eq!(access.password.expose(), b"correct-horse-battery", "longer than IPMI allows");
        let session = check(&format!("{}login = 'session'", redfish())).unwrap();
        assert!(matches!(session.access, Access::Redfish(RedfishConfig { login: RedfishLogin::Session, .. })));
    }

    #[test]
    fn mistakes_are_named_with_line_column_and_a_way_out() {
        let has = |text: String, words: &[&str]| {
            let error = check(&text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
            assert!(!error.contains("battery"), "{error}");
        };
        has(format!("{}sytem = '/'", redfish()), &["line 10, column 1", "sytem", "`system`"]);
        has(redfish().replace("'redfish'", "'magic'"), &["line 6, column 8", "magic", "`ipmi`", "`redfish`"]);
        has(format!("{}suite = 17", redfish()), &["line 10, column 9", "suite", "no such key", "redfish"]);
        has(format!("{HEAD}kind = 'ipmi'\nsuite = 17\n{UUID}"), &["line 8, column 8", "uuid", "no such key"]);
        has(format!("{HEAD}kind = 'ipmi'\n"), &["line 6, column 8", "needs suite"]);
        has(format!("{HEAD}kind = 'ipmi'\nsuite = 2\n"), &["line 7, column 9", "suite 2"]);
        has(redfish().replace("/redfish/v1/Systems/1", "Systems"), &["line 8, column 10", "system", "/redfish/v1/"]);
        has(redfish().replace("192.0.2.7:443", "bmc.lan"), &["line 3, column 11", "bmc.lan", "192.0.2.7:443"]);
        has(redfish().replace(UUID, ""), &["needs uuid", "product_uuid", "drilled = true"]);
        has(redfish().replace("4c4c4544", "4c4c"), &["line 9, column 8", "no UUID"]);
        has(redfish().replace("certificates = ['", "certificates = ['AB:"), &["line 7, column 16", "openssl"]);
        has(redfish().replace("certificates = [", "certificates = [] # ["), &["one or two"]);
        has(format!("{}login = 'digest'", redfish()), &["line 10", "digest", "`basic`", "`session`"]);
        // A password that IPMI would cut.
        has(format!("{HEAD}kind = 'ipmi'\nsuite = 17\n"), &["password_file", "21 bytes", "20"]);
    }

    #[test]
    fn a_drill_stands_in_for_the_uuid() {
        let config = check(&format!("{}drilled = true", redfish().replace(UUID, ""))).unwrap();
        assert!(matches!(config.access, Access::Redfish(RedfishConfig { uuid: None, drilled: true, .. })));
    }

    #[test]
    fn two_systems_of_one_bmc_are_two_outlets() {
        let outlet = |text: &str| check(text).unwrap().access.outlet();
        let one = outlet(&redfish());
        assert_eq!(outlet(&redfish().replace("Systems/1", "Systems/1/")), one);
        assert_ne!(outlet(&redfish().replace("Systems/1", "Systems/2")), one);
    }
}
