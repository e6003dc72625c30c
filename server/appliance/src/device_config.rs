//! Power devices in `server.toml`: one table for each, whose `kind` says which other keys it has.

mod board;
mod supply;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_fence::{
    AccountName, AllOf, BoardConfig, BoardDevice, Device, Fingerprint, IpmiConfig, IpmiDevice, PduConfig, PduDevice,
    Pins, PlugConfig, PlugDevice, PlugModel, Privilege, ProgramConfig, ProgramDevice, RedfishConfig, RedfishDevice,
    RedfishLogin, RelayConfig, RelayDevice, Secret, SnmpHash, Suite, SystemGuid, UserName, Wake, Waking, Wire,
};
use tiebreaker_pipeline::name::MemberName;
use toml::Spanned;

use crate::recipe::Keeper;

/// Levels of a node's plan that have a number, at most: somebody waits while they are tried one after the other.
const LEVELS_MAX: u8 = 9;

/// The table as it is written: the keys of all kinds, so that toml itself points at any other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDevice {
    node: String,
    pub(crate) name: String,
    kind: Spanned<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<Spanned<String>>,
    /// A file beside this one, of mode 0600. With neither of the two the secret is in the vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_file: Option<String>,
    /// A credential that the service manager gives the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(default)]
    drilled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<Spanned<u8>>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outlets: Option<Spanned<Vec<u32>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    measured: Option<Spanned<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    off_below_watts: Option<Spanned<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    battery: Option<Spanned<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_password: Option<Spanned<bool>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<Spanned<SnmpHash>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    privacy_file: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Spanned<BTreeMap<String, toml::Value>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_as: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    button: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    led: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    led_pull: Option<Spanned<Pull>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dark_is_off_s: Option<Spanned<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain_s: Option<Spanned<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_to: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wake_secure_on: Option<Spanned<String>>,
}

/// What pulls the line of an LED.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pull {
    /// Nothing but what is wired to it.
    None,
    /// The Pi, up.
    Up,
    /// The Pi, down.
    Down,
}

/// The protocol of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// IPMI v2.0.
    Ipmi,
    /// Redfish.
    Redfish,
    /// A Shelly plug from the second generation on.
    Shelly,
    /// A Shelly plug of the first generation.
    ShellyGen1,
    /// A plug with Tasmota.
    Tasmota,
    /// A PDU by SNMP.
    Snmp,
    /// A fence agent of others.
    Program,
    /// A power button and a power LED at the appliance's own pins.
    Board,
    /// A relay at the appliance's own pins.
    Relay,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Ipmi => "ipmi",
            Self::Redfish => "redfish",
            Self::Shelly => PlugModel::Shelly.name(),
            Self::ShellyGen1 => PlugModel::ShellyGen1.name(),
            Self::Tasmota => PlugModel::Tasmota.name(),
            Self::Snmp => "snmp",
            Self::Program => "program",
            Self::Board => "board",
            Self::Relay => "relay",
        }
    }

    /// The keys that tables of this kind have, of those that not all have.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Ipmi => &["address", "user", "suite"],
            Self::Redfish => &["address", "user", "certificates", "system", "uuid", "login"],
            Self::Shelly | Self::ShellyGen1 | Self::Tasmota => &[
                "address",
                "user",
                "mac",
                "outlets",
                "measured",
                "off_below_watts",
                "battery",
                "no_password",
                "wake",
                "wake_to",
                "wake_secure_on",
            ],
            Self::Snmp => &[
                "address",
                "user",
                "table",
                "serial",
                "outlets",
                "measured",
                "off_below_watts",
                "battery",
                "version",
                "hash",
                "privacy_file",
                "wake",
                "wake_to",
                "wake_secure_on",
            ],
            Self::Program => {
                &["user", "agent", "options", "run_as", "no_password", "wake", "wake_to", "wake_secure_on"]
            }
            Self::Board => &["button", "led", "led_pull", "dark_is_off_s"],
            Self::Relay => &["line", "drain_s", "battery", "wake", "wake_to", "wake_secure_on"],
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
    /// The level of its node's plan, if the configuration names one.
    pub(crate) level: Option<u8>,
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
    /// Outlets of a smart plug.
    Plug(PlugModel, Vec<PlugConfig>),
    /// Outlets of a PDU.
    Pdu(Vec<PduConfig>),
    /// A fence agent of others.
    Program(ProgramConfig),
    /// A power button and a power LED.
    Board(BoardConfig),
    /// A relay.
    Relay(RelayConfig),
    /// Any of these, and a packet that wakes the node behind it.
    Waking(Box<Access>, Wake),
}

impl Access {
    /// What it is called in the cluster's state.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Ipmi(_) => Kind::Ipmi.name(),
            Self::Redfish(_) => Kind::Redfish.name(),
            Self::Plug(model, _) => model.name(),
            Self::Pdu(_) => Kind::Snmp.name(),
            Self::Program(_) => Kind::Program.name(),
            Self::Board(_) => Kind::Board.name(),
            Self::Relay(_) => Kind::Relay.name(),
            Self::Waking(access, _) => access.kind(),
        }
    }

    /// All that it switches.
    pub(crate) fn outlets(&self) -> Vec<Outlet> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port()).to_string();
        let numbered = |number: u32| Some(format!("outlet {number}"));
        match self {
            Self::Ipmi(config) => vec![Outlet { place: canonical(config.address), part: None }],
            Self::Redfish(config) => {
                let system = config.system.as_str().trim_end_matches('/').to_owned();
                vec![Outlet { place: canonical(config.address), part: Some(system) }]
            }
            // A plug is known by its MAC address, and a PDU by its serial number, wherever it is.
            Self::Plug(_, plugs) => plugs
                .iter()
                .map(|plug| Outlet { place: plug.mac.to_string(), part: numbered(plug.outlet.into()) })
                .collect(),
            Self::Pdu(pdus) => pdus
                .iter()
                .map(|pdu| Outlet { place: format!("PDU {}", pdu.serial), part: numbered(pdu.outlet) })
                .collect(),
            Self::Program(config) => {
                let options: Vec<String> =
                    config.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
                vec![Outlet { place: config.agent.display().to_string(), part: Some(options.join(" ")) }]
            }
            // Two that share a line would press each other's button.
            Self::Board(config) => vec![Outlet::line(&config.button), Outlet::line(&config.led)],
            Self::Relay(config) => vec![Outlet::line(&config.line)],
            Self::Waking(access, _) => access.outlets(),
        }
    }

    /// The driver. Nothing is sent yet.
    pub(crate) fn open(self) -> Box<dyn Device> {
        match self {
            Self::Ipmi(config) => Box::new(IpmiDevice::new(config)),
            Self::Redfish(config) => Box::new(RedfishDevice::new(config)),
            Self::Plug(_, plugs) => together(plugs.into_iter().map(|plug| Box::new(PlugDevice::new(plug)) as _)),
            Self::Pdu(pdus) => together(pdus.into_iter().map(|pdu| Box::new(PduDevice::new(pdu)) as _)),
            Self::Program(config) => Box::new(ProgramDevice::new(config)),
            Self::Board(config) => Box::new(BoardDevice::new(config)),
            Self::Relay(config) => Box::new(RelayDevice::new(config)),
            Self::Waking(access, wake) => Box::new(Waking::new(access.open(), wake)),
        }
    }
}

/// One device of all feeds of a node.
fn together(feeds: impl Iterator<Item = Box<dyn Device>>) -> Box<dyn Device> {
    let mut feeds: Vec<Box<dyn Device>> = feeds.collect();
    match feeds.pop() {
        Some(only) if feeds.is_empty() => only,
        last => {
            feeds.extend(last);
            Box::new(
                AllOf::new(feeds.into_iter().map(Arc::from).collect())
                    .expect("a checked configuration names at least one outlet"),
            )
        }
    }
}

/// What a device switches: an address or a name, and which of those that it has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Outlet {
    place: String,
    part: Option<String>,
}

impl fmt::Display for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)?;
        self.part.as_ref().map_or(Ok(()), |part| write!(f, " {part}"))
    }
}

impl Outlet {
    /// A line of the appliance itself, whatever its polarity.
    pub(crate) fn line(wire: &Wire) -> Self {
        Self { place: format!("GPIO line {}", wire.line), part: None }
    }
}

impl RawDevice {
    /// Whether it leaves to the vault where its secret is.
    pub(crate) fn names_no_secret(&self) -> bool {
        self.password_file.is_none() && self.credential.is_none()
    }

    /// Checks one table. `text` is the file's, for the places of mistakes; secrets come from `secrets`.
    pub(crate) fn check(self, text: &str, secrets: &Keeper<'_>) -> Result<DeviceConfig> {
        let node = MemberName::new(&self.node).context("node")?;
        let (name, drilled) = (self.name.clone(), self.drilled);
        // NODE/DEVICE is how an operator names one, and DEVICE+DEVICE is a level of two.
        if name.is_empty() || name.contains(['/', '+']) {
            bail!("name {name:?}: a device needs a name, without / and +");
        }
        let level = self.level(text)?;
        self.has_its_keys(text)?;
        let wake = self.wake(text)?;
        let access = match self.kind.get_ref() {
            Kind::Ipmi => Access::Ipmi(self.ipmi(text, secrets)?),
            Kind::Redfish => Access::Redfish(self.redfish(text, secrets)?),
            Kind::Shelly => Access::Plug(PlugModel::Shelly, self.plugs(PlugModel::Shelly, text, secrets)?),
            Kind::ShellyGen1 => Access::Plug(PlugModel::ShellyGen1, self.plugs(PlugModel::ShellyGen1, text, secrets)?),
            Kind::Tasmota => Access::Plug(PlugModel::Tasmota, self.plugs(PlugModel::Tasmota, text, secrets)?),
            Kind::Snmp => Access::Pdu(self.pdus(text, secrets)?),
            Kind::Program => {
                let passwd = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
                Access::Program(self.program(text, secrets, &passwd)?)
            }
            Kind::Board => Access::Board(self.board(text)?),
            Kind::Relay => Access::Relay(self.relay(text)?),
        };
        let access = match wake {
            Some(wake) => Access::Waking(Box::new(access), wake),
            None => access,
        };
        Ok(DeviceConfig { node, name, drilled, level, access })
    }

    fn level(&self, text: &str) -> Result<Option<u8>> {
        let Some(level) = &self.level else { return Ok(None) };
        if !(1..=LEVELS_MAX).contains(level.get_ref()) {
            bail!("{}: level: 1 is tried first, {LEVELS_MAX} is the last that there is", place(text, level.span()));
        }
        Ok(Some(*level.get_ref()))
    }

    fn ipmi(self, text: &str, secrets: &Keeper<'_>) -> Result<IpmiConfig> {
        let address = self.address(text, 623)?;
        let suite = self.suite.as_ref().ok_or_else(|| self.lacks(text, "suite", "the cipher suite, 17 or 3"))?;
        let suite = Suite::try_from(*suite.get_ref()).with_context(|| place(text, suite.span()))?;
        let password = self.secret(secrets, Secret::new)?;
        let privilege = Privilege::default();
        Ok(IpmiConfig { address, user: UserName::new(self.account(text)?)?, password, suite, kg: None, privilege })
    }

    fn redfish(self, text: &str, secrets: &Keeper<'_>) -> Result<RedfishConfig> {
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
        let password = self.secret(secrets, Secret::for_web)?;
        let user = AccountName::new(self.account(text)?)?;
        Ok(RedfishConfig { address, pins, user, password, login, system: system_path, uuid, drilled: self.drilled })
    }

    fn secret<E: std::error::Error + Send + Sync + 'static>(
        &self,
        secrets: &Keeper<'_>,
        make: impl FnOnce(Vec<u8>) -> Result<Secret, E>,
    ) -> Result<Secret> {
        secrets.read(self.password_file.as_deref(), self.credential.as_deref(), make)
    }

    fn account(&self, text: &str) -> Result<String> {
        let user = self.user.as_ref().ok_or_else(|| self.lacks(text, "user", "the account to log in with"))?;
        Ok(user.get_ref().clone())
    }

    fn address(&self, text: &str, port: u16) -> Result<SocketAddr> {
        let example = format!("ADDRESS:PORT, for instance 192.0.2.7:{port}");
        let address = self.address.as_ref().ok_or_else(|| self.lacks(text, "address", &example))?;
        let is_none = || format!("{}: address: {:?} is no {example}", place(text, address.span()), address.get_ref());
        address.get_ref().parse().with_context(is_none)
    }

    /// Refuses keys of other kinds.
    fn has_its_keys(&self, text: &str) -> Result<()> {
        let all = [
            ("address", span(&self.address)),
            ("user", span(&self.user)),
            ("suite", span(&self.suite)),
            ("certificates", span(&self.certificates)),
            ("system", span(&self.system)),
            ("uuid", span(&self.uuid)),
            ("login", span(&self.login)),
            ("mac", span(&self.mac)),
            ("outlets", span(&self.outlets)),
            ("measured", span(&self.measured)),
            ("off_below_watts", span(&self.off_below_watts)),
            ("battery", span(&self.battery)),
            ("no_password", span(&self.no_password)),
            ("table", span(&self.table)),
            ("serial", span(&self.serial)),
            ("version", span(&self.version)),
            ("hash", span(&self.hash)),
            ("privacy_file", span(&self.privacy_file)),
            ("agent", span(&self.agent)),
            ("options", span(&self.options)),
            ("run_as", span(&self.run_as)),
            ("button", span(&self.button)),
            ("led", span(&self.led)),
            ("led_pull", span(&self.led_pull)),
            ("dark_is_off_s", span(&self.dark_is_off_s)),
            ("line", span(&self.line)),
            ("drain_s", span(&self.drain_s)),
            ("wake", span(&self.wake)),
            ("wake_to", span(&self.wake_to)),
            ("wake_secure_on", span(&self.wake_secure_on)),
        ];
        let kind = self.kind.get_ref();
        for (key, span) in all {
            if let (Some(span), false) = (span, kind.keys().contains(&key)) {
                bail!("{}: {key}: devices of kind = {:?} have no such key", place(text, span), kind.name());
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

#[cfg(test)]
mod tests {
    use tiebreaker_pipeline::name::ClusterName;

    use super::*;
    use crate::recipe::Recipe;
    use crate::secrets::Vault;

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
        let (cluster, vault) = (ClusterName::new("home").unwrap(), Vault::with_credentials(dir.path(), None));
        let recipe = Recipe::check(&cluster, raw.clone(), &text.into(), dir.path(), &vault);
        let recipe = recipe.map_err(|error| format!("{error:#}"))?;
        let access = recipe.access().map_err(|error| format!("{error:#}"))?;
        Ok(DeviceConfig { node: recipe.node, name: recipe.name, drilled: recipe.drilled, level: recipe.level, access })
    }

    #[test]
    fn a_redfish_device_is_read_with_its_defaults() {
        let config = check(&redfish()).unwrap();
        assert_eq!((config.access.kind(), config.drilled), ("redfish", false));
        assert_eq!(config.access.outlets()[0].to_string(), "192.0.2.7:443 /redfish/v1/Systems/1");
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
            assert!(!error.contains("horse"), "{error}");
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
    fn without_a_file_the_secret_is_the_vaults() {
        let text = redfish().replace("password_file = 'bmc'\n", "");
        let error = check(&text).unwrap_err();
        assert!(error.contains("no secret for home/node1/bmc") && error.contains("device password"), "{error}");
        let error = check(&format!("{}credential = 'bmc'", redfish())).unwrap_err();
        assert!(error.contains("give one of them"), "{error}");
    }

    #[test]
    fn two_systems_of_one_bmc_are_two_outlets() {
        let outlet = |text: &str| check(text).unwrap().access.outlets();
        let one = outlet(&redfish());
        assert_eq!(outlet(&redfish().replace("Systems/1", "Systems/1/")), one);
        assert_ne!(outlet(&redfish().replace("Systems/1", "Systems/2")), one);
    }

    /// A table of a plug, with these lines more.
    fn plug(more: &str) -> String {
        format!(
            "node = 'node1'\nname = 'plug'\nkind = 'shelly'\naddress = '192.0.2.7:80'\nmac = 'a8:03:2a:be:54:dc'\n\
             password_file = 'bmc'\n{more}"
        )
    }

    /// A table of a PDU, with these lines more.
    fn pdu(more: &str) -> String {
        format!(
            "node = 'node1'\nname = 'pdu'\nkind = 'snmp'\naddress = '192.0.2.7:161'\nserial = 'S1'\nuser = 'u'\n\
             password_file = 'bmc'\n{more}"
        )
    }

    /// A table of a fence agent, with these lines more.
    fn agent(more: &str) -> String {
        format!("node = 'node1'\nname = 'x'\nkind = 'program'\npassword_file = 'bmc'\n{more}")
    }

    #[test]
    fn a_plug_is_measured_unless_it_says_otherwise() {
        let meter = |more: &str| match check(&plug(more)).unwrap().access {
            Access::Plug(_, plugs) => plugs[0].meter,
            other => panic!("{other:?}"),
        };
        assert_eq!(meter(""), tiebreaker_fence::Meter::USUAL);
        assert_eq!(meter("off_below_watts = 3"), tiebreaker_fence::Meter::Below { milliwatts: 3_000 });
        assert_eq!(meter("measured = false"), tiebreaker_fence::Meter::None);
    }

    #[test]
    fn mistakes_in_supplies_are_named_with_their_place_and_a_way_out() {
        let has = |text: String, words: &[&str]| {
            let error = check(&text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
            assert!(!error.contains("horse"), "{error}");
        };
        has(plug("suite = 17"), &["line 7", "suite", "no such key", "shelly"]);
        has(plug("").replace("mac = 'a8:03:2a:be:54:dc'\n", ""), &["line 3", "needs mac", "a8:03"]);
        has(plug("").replace("54:dc", "54"), &["line 5", "mac", "no MAC address"]);
        has(plug("user = 'root'"), &["line 7", "always admin"]);
        has(plug("").replace("'shelly'", "'shelly-gen1'"), &["needs user"]);
        has(plug("").replace("password_file = 'bmc'\n", ""), &["no secret for", "device password"]);
        has(plug("off_below_watts = 0"), &["line 7", "1 to 20"]);
        has(plug("off_below_watts = 3\nmeasured = false"), &["nothing is measured"]);
        for outlets in ["[]", "[0, 0]", "[8]", "[0, 1, 2, 3, 4, 5, 6, 7, 8]"] {
            has(plug(&format!("outlets = {outlets}")), &["line 7", "outlets", "from 0 to 7"]);
        }
        has(plug("wake_to = '192.0.2.255:9'"), &["line 7", "without wake"]);
        has(plug("wake = 'x'"), &["line 7", "wake", "no MAC address"]);
        has(pdu(""), &["needs table", "apc-rpdu2"]);
        has(pdu("table = 'apc'"), &["line 8", "apc-masterswitch"]);
        has(pdu("table = 'eaton'"), &["needs outlets"]);
        has(pdu("table = 'eaton'\noutlets = [1]\nversion = '1'"), &["line 10", "\"3\" or \"2c\""]);
        has(pdu("table = 'eaton'\noutlets = [1]\nversion = '2c'"), &["line 6", "the community"]);
        has(pdu("table = 'cyberpower'\noutlets = [1]\nmeasured = true"), &["line 10", "no watts"]);
        has(pdu("table = 'eaton'\noutlets = [1]\nhash = 'md5'"), &["line 10", "`sha256`"]);
        has(agent(""), &["needs agent", "/usr/sbin/fence_"]);
        has(agent("agent = 'fence_x'"), &["line 5", "/usr/sbin/fence_"]);
        has(agent("agent = '/usr/sbin/fence_x'"), &["needs run_as"]);
        has(agent("agent = '/usr/sbin/fence_x'\nrun_as = 'root'"), &["line 6", "is root"]);
        let whole = |options: &str| agent(&format!("agent = '/sbin/f'\nrun_as = 'nobody'\noptions = {options}"));
        has(whole("{ action = 'on' }"), &["options.action", "don't belong here"]);
        has(whole("{ password = 'x' }"), &["options.password", "password_file"]);
        has(whole("{ ip = \"a\\naction=on\" }"), &["options.ip"]);
        has(whole("{ ip = [] }"), &["options.ip", "a text"]);
        has(agent("address = '192.0.2.7:80'"), &["address", "no such key"]);
    }

    #[test]
    fn several_outlets_are_one_device_and_a_packet_wakes_what_they_feed() {
        let config = check(&plug("outlets = [0, 1]\nwake = '3c:ec:ef:00:00:03'\nmeasured = false")).unwrap();
        assert_eq!((config.access.kind(), config.access.outlets().len()), ("shelly", 2));
        let Access::Waking(_, wake) = &config.access else { panic!("{:?}", config.access) };
        assert_eq!(wake.to.to_string(), "255.255.255.255:9");
        let device = config.access.open();
        assert_eq!(device.name(), "shelly 192.0.2.7:80 outlet 0 and shelly 192.0.2.7:80 outlet 1");
        assert_eq!(device.sign(), tiebreaker_fence::OffSign::Relay);
    }
}
