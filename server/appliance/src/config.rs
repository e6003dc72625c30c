//! `server.toml`: read strictly, so that a typo is an error with its line, never a setting that silently isn't there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tiebreaker_member::program::{listen_addresses, read_config};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::profile::Profile;

use crate::board::{Board, RawBoard};
use crate::device_config::{Outlet, RawDevice};
use crate::door::{DoorSettings, RawDoor};
use crate::mdns::RawMdns;
use crate::qdevice::{RawQdevice, Settings as QdeviceSettings};
use crate::recipe::Recipe;
use crate::secrets::Vault;
use crate::status_page::{self, RawStatus};

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    name: String,
    listen: Vec<String>,
    #[serde(default)]
    addresses: Vec<String>,
    // Left out while it is empty: its heading would swallow whatever is added below it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    clusters: BTreeMap<String, RawCluster>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    corosync: BTreeMap<String, RawDoor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qdevice: Option<RawQdevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    board: Option<RawBoard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<RawStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mdns: Option<RawMdns>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    profile: Option<String>,
    takeback_s: Option<u64>,
    prove_every_s: Option<u64>,
    brake_window_s: Option<u64>,
    #[serde(default)]
    devices: Vec<RawDevice>,
}

/// The configuration.
#[derive(Debug)]
pub struct Config {
    /// The appliance's name in every cluster.
    pub name: MemberName,
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it.
    pub addresses: Vec<String>,
    clusters: BTreeMap<ClusterName, ClusterConfig>,
    /// Corosync clusters whose nodes are fenced from here.
    pub(crate) corosync: BTreeMap<ClusterName, DoorSettings>,
    /// The QDevice service, if it is wanted.
    pub qdevice: Option<QdeviceSettings>,
    /// What is wired to the appliance itself.
    pub(crate) board: Board,
    /// Where the status page is.
    pub(crate) status_listen: Vec<SocketAddr>,
    /// The name on the network, if one is wanted.
    pub(crate) mdns: Option<String>,
}

/// What is wrong with the file, for programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Mistake {
    /// From 1, as an editor counts; not every mistake has a place.
    line: Option<usize>,
    /// Likewise.
    column: Option<usize>,
    /// What is wrong, and what is right: without the file's name, and without the line itself, in which a secret may stand.
    what: String,
}

impl Mistake {
    /// What an error of reading the file says.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let place = place_in_words(&format!("{error:#}"));
        let mut words: Vec<String> = Vec::new();
        for cause in error.chain() {
            let said = match cause.downcast_ref::<toml::de::Error>() {
                Some(error) => error.message().to_owned(),
                None => cause.to_string(),
            };
            // The outermost names the file, which whoever asks has named himself.
            if !said.starts_with("in /") {
                words.push(said);
            }
        }
        let mut what = words.join(": ");
        if let Some((line, column)) = place {
            what = what.replacen(&format!("line {line}, column {column}: "), "", 1);
        }
        Self { line: place.map(|(line, _)| line), column: place.map(|(_, column)| column), what }
    }
}

/// The first `line N, column M` in what an error says.
fn place_in_words(text: &str) -> Option<(usize, usize)> {
    text.match_indices("line ").find_map(|(at, word)| {
        let (line, rest) = text.get(at + word.len()..)?.split_once(", column ")?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        Some((line.parse().ok()?, rest.get(..digits)?.parse().ok()?))
    })
}

/// What is configured for one cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// The profile to set, if any: the cluster remembers it.
    pub profile: Option<Profile>,
    /// The time of good health after which the appliance leads again, to be set, if any.
    pub takeback: Option<Duration>,
    /// The time between two proofs of a power device that is in order.
    pub prove_every: Option<Duration>,
    /// The time in which fences are counted before power is held; zero for no brake.
    pub brake_window: Option<Duration>,
    /// The highest feature level that it may get, where the command line gives one; the file doesn't.
    pub(crate) most_level: Option<Level>,
    /// Power devices.
    pub(crate) devices: Vec<Recipe>,
}

impl Config {
    /// Reads the file. Secrets are read from files of their own beside it.
    ///
    /// # Errors
    /// Names the file, the place in it and the way out.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_beside(path, path.parent().unwrap_or(Path::new(".")))
    }

    /// The same for a file that lies elsewhere: what it names lies in `dir`.
    ///
    /// # Errors
    /// Names the file, the place in it and the way out.
    pub(crate) fn load_beside(path: &Path, dir: &Path) -> Result<Self> {
        let raw: RawConfig = read_config(path, "run `tiebreaker-server init` first")?;
        // What is wrong with one device is found after parsing, and shall have its place too.
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::check(raw, &text, dir).with_context(|| format!("in {}", path.display()))
    }

    /// The same from its text, with what lies beside it in `dir`.
    ///
    /// # Errors
    /// Names the place and the way out.
    pub(crate) fn parse(text: &str, dir: &Path) -> Result<Self> {
        Self::check(toml::from_str(text)?, text, dir)
    }

    fn check(raw: RawConfig, text: &str, dir: &Path) -> Result<Self> {
        let name = MemberName::new(&raw.name).context("name")?;
        let listen = listen_addresses(&raw.listen)?;
        let beside = Beside { text: Arc::from(text), dir, vault: Vault::of(dir) };
        let mut clusters = BTreeMap::new();
        let mut outlets: BTreeMap<Outlet, String> = BTreeMap::new();
        for (name, cluster) in raw.clusters {
            let at = format!("clusters.{name}");
            let key = ClusterName::new(&name).context("clusters")?;
            let profile = cluster.profile.map(|text| text.parse()).transpose().with_context(|| at.clone())?;
            let devices = power_devices(&key, cluster.devices, &at, &mut outlets, &beside)?;
            let takeback = cluster.takeback_s.map(Duration::from_secs);
            let prove_every = cluster.prove_every_s.map(prove_every).transpose().with_context(|| at.clone())?;
            let brake_window = cluster.brake_window_s.map(brake_window).transpose().with_context(|| at.clone())?;
            clusters
                .insert(key, ClusterConfig { profile, takeback, prove_every, brake_window, most_level: None, devices });
        }
        let qdevice = raw.qdevice.as_ref().map(QdeviceSettings::check).transpose()?;
        let mut corosync = BTreeMap::new();
        for (name, mut door) in raw.corosync {
            let at = format!("corosync.{name}");
            let key = ClusterName::new(&name).context("corosync")?;
            if clusters.contains_key(&key) {
                bail!("{at}: there is a [clusters.{name}] too: give the Corosync cluster another name here");
            }
            let devices = std::mem::take(&mut door.devices);
            let devices = power_devices(&key, devices, &at, &mut outlets, &beside)?;
            let every = door.prove_every_s().map(prove_every).transpose().with_context(|| at.clone())?;
            let settings = door.check(&key, devices, every, qdevice.as_ref()).with_context(|| at)?;
            corosync.insert(key, settings);
        }
        let board = raw.board.map(|board| board.check(&beside.text)).transpose()?.unwrap_or_default();
        for wire in board.wires() {
            if let Some(owner) = outlets.get(&Outlet::line(wire)) {
                bail!("[board]: GPIO line {} is the device of {owner} already", wire.line);
            }
        }
        let status_listen = status_page::listen(raw.status.as_ref())?;
        let mdns = raw.mdns.map(|mdns| mdns.check()).transpose()?.flatten();
        let addresses = raw.addresses;
        Ok(Self { name, listen, addresses, clusters, corosync, qdevice, board, status_listen, mdns })
    }

    /// What is configured for a cluster.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> ClusterConfig {
        let of_corosync = || self.corosync.get(name).map(|door| &door.devices);
        self.clusters.get(name).or_else(of_corosync).cloned().unwrap_or_default()
    }

    /// The section below which a cluster's devices stand.
    pub(crate) fn section(&self, name: &ClusterName) -> &'static str {
        if self.corosync.contains_key(name) { "corosync" } else { "clusters" }
    }

    /// Clusters that are configured and don't exist.
    pub fn unknown_clusters<'a>(&'a self, known: &'a [ClusterName]) -> impl Iterator<Item = &'a ClusterName> {
        self.clusters.keys().filter(|name| !known.contains(name))
    }

    /// The text of a first configuration file.
    ///
    /// # Errors
    /// When it can't be written as TOML.
    pub fn first(name: &MemberName, listen: &[SocketAddr], addresses: &[String]) -> Result<String> {
        let raw = RawConfig {
            name: name.to_string(),
            listen: listen.iter().map(ToString::to_string).collect(),
            addresses: addresses.to_vec(),
            clusters: BTreeMap::new(),
            corosync: BTreeMap::new(),
            qdevice: None,
            board: None,
            status: None,
            mdns: None,
        };
        Ok(toml::to_string(&raw)?)
    }
}

/// What a device's table is read with.
struct Beside<'a> {
    /// The whole file.
    text: Arc<str>,
    /// Where secrets may lie.
    dir: &'a Path,
    vault: Vault,
}

/// Checks the power devices of one cluster. `outlets` has those of all.
fn power_devices(
    cluster: &ClusterName,
    raw: Vec<RawDevice>,
    at: &str,
    outlets: &mut BTreeMap<Outlet, String>,
    beside: &Beside<'_>,
) -> Result<Vec<Recipe>> {
    let mut devices: Vec<Recipe> = Vec::new();
    for device in raw {
        let at = format!("{at}.devices {:?}", device.name);
        let device =
            Recipe::check(cluster, device, &beside.text, beside.dir, &beside.vault).with_context(|| at.clone())?;
        if devices.iter().any(|other| other.node == device.node && other.name == device.name) {
            bail!("{at}: {} has two devices of this name", device.node);
        }
        // An outlet belongs to one node of one cluster: two that share it would cut each other's power.
        let owner = format!("{} of cluster {cluster}", device.node);
        for outlet in device.outlets.clone() {
            if let Some(other) = outlets.insert(outlet.clone(), owner.clone())
                && other != owner
            {
                bail!("{at}: {outlet} is already the device of {other}");
            }
        }
        devices.push(device);
    }
    Ok(devices)
}

/// Proofs are logins: more often than each minute is a burden for a BMC, and rarer than each day finds out too late.
fn prove_every(seconds: u64) -> Result<Duration> {
    if !(60..=86_400).contains(&seconds) {
        bail!("prove_every_s: {seconds} s between two proofs of a device: 60 to 86400 are allowed");
    }
    Ok(Duration::from_secs(seconds))
}

/// A round of fence and boot takes minutes, so less sees no storm; more than a day would hold today for what was mended yesterday.
fn brake_window(seconds: u64) -> Result<Duration> {
    if seconds != 0 && !(60..=86_400).contains(&seconds) {
        bail!("brake_window_s: {seconds} s in which fences are counted: 60 to 86400 are allowed, and 0 for no brake");
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        let raw: Result<RawConfig, _> = toml::from_str(text);
        match raw {
            Ok(raw) => match Config::check(raw, text, Path::new("/nonexistent")) {
                Ok(_) => "ok".into(),
                Err(error) => format!("{error:#}"),
            },
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        assert_eq!(parse("name = 'pi'\nlisten = ['[::]:8405']"), "ok");
        let unknown = parse("name = 'pi'\nlisten = ['[::]:8405']\nlisen = 3");
        assert!(unknown.contains("line 3") && unknown.contains("lisen"), "{unknown}");
        let wrong = parse("name = 'pi'\nlisten = 3");
        assert!(wrong.contains("line 2"), "{wrong}");
        assert!(parse("name = 'Pi'\nlisten = ['[::]:8405']").contains("no valid name"));
        assert!(parse("name = 'pi'\nlisten = ['here']").contains("ADDRESS:PORT"));
        let profile = parse("name = 'pi'\nlisten = ['[::]:8405']\n[clusters.home]\nprofile = 'quick'");
        assert!(profile.contains("clusters.home") && profile.contains("balanced"), "{profile}");
        let often = parse("name = 'pi'\nlisten = ['[::]:8405']\n[clusters.home]\nprove_every_s = 5");
        assert!(often.contains("clusters.home") && often.contains("60 to 86400"), "{often}");
        let storm = parse("name = 'pi'\nlisten = ['[::]:8405']\n[clusters.home]\nbrake_window_s = 5");
        assert!(storm.contains("clusters.home") && storm.contains("0 for no brake"), "{storm}");
        let head = "name = 'pi'\nlisten = ['[::]:8405']\n";
        assert_eq!(parse(&format!("{head}[clusters.home]\nbrake_window_s = 0")), "ok");
        assert_eq!(parse(&format!("{head}[qdevice.clusters.'Prod 1']\nplain_text = true")), "ok");
        let port = parse(&format!("{head}[qdevice]\nlisten = ['5403']"));
        assert!(port.contains("qdevice.listen") && port.contains("[::]:5403"), "{port}");
        let typo = parse(&format!("{head}[qdevice.clusters.home]\nplaintext = true"));
        assert!(typo.contains("line 4") && typo.contains("plaintext"), "{typo}");
        let short = parse(&format!("{head}[qdevice]\nanswer_within_ms = 5"));
        assert!(short.contains("answer_within_ms"), "{short}");
    }

    #[test]
    fn a_place_is_found_in_words() {
        assert_eq!(place_in_words("in x: TOML parse error at line 10, column 3\n  |"), Some((10, 3)));
        assert_eq!(place_in_words("a line here; line 2, column 14: no"), Some((2, 14)));
        assert_eq!(place_in_words("GPIO line 4 is taken"), None);
    }

    #[test]
    fn a_mistake_is_told_to_programs_without_the_line_itself() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.toml");
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            let Mistake { line, column, what } = Mistake::of(&Config::load(&file).unwrap_err());
            (line.zip(column), what)
        };
        let (place, what) = of("name = 'pi'\nlisten = ['[::]:8405']\npassword = 'hunter2'\n");
        assert_eq!(place, Some((3, 1)));
        assert!(what.starts_with("unknown field `password`") && !what.contains("hunter2"), "{what}");
        let (place, what) =
            of("name = 'pi'\nlisten = ['[::]:8405']\n[board]\nwatchdogs = ['/dev/watchdog0', '/dev/watchdog0']\n");
        assert_eq!(place.map(|(line, _)| line), Some(4), "{what}");
        let (place, what) = of("name = 'pi'\nlisten = ['here']\n");
        assert!(place.is_none() && what.contains("ADDRESS:PORT"), "{what}");
    }

    #[test]
    fn a_corosync_cluster_has_its_nodes_and_somebody_who_decides() {
        let head = "name = 'pi'\nlisten = ['[::]:8405']\n";
        let votes = "[qdevice.clusters.'Prod 1']\n[qdevice.clusters.prod]\n";
        let nodes = "nodes = { pve1 = 1, pve2 = 2 }\n";
        let of = |more: &str| parse(&format!("{head}{votes}[corosync.prod]\n{more}"));
        assert_eq!(of(nodes), "ok");
        assert_eq!(of(&format!("{nodes}qdevice = 'Prod 1'")), "ok");
        assert_eq!(parse(&format!("{head}[corosync.prod]\ntrusted = true\n{nodes}")), "ok");
        for (more, said) in [
            ("nodes = { pve1 = 1 }", "name all of the cluster's nodes"),
            ("nodes = { pve1 = 1, pve2 = 1 }", "same nodeid 1"),
            ("nodes = { pve1 = 1, pve2 = 0 }", "1 or more"),
            ("nodes = { Pve1 = 1, pve2 = 2 }", "no valid name"),
            ("nodes = { pve1 = 1, pve2 = 2 }\nqdevice = 'other'", "nobody decides which half"),
            ("nodes = { pve1 = 1, pve2 = 2 }\nqdevice = 'prod'\ntrusted = true", "give one of them"),
            ("nodes = { pve1 = 1, pve2 = 2 }\nprove_every_s = 5", "60 to 86400"),
            (
                "nodes = { pve1 = 1, pve2 = 2 }\n[[corosync.prod.devices]]\nnode = 'pve3'\nname = 'plug'\nkind = 'shelly'\n\
                 address = '192.0.2.7:80'\nmac = 'A8032ABE54DC'\nno_password = true",
                "pve3 is none of the cluster's nodes",
            ),
        ] {
            let text = of(more);
            assert!(text.contains(said) && text.contains("corosync"), "{more}: {text}");
        }
        let both = parse(&format!("{head}[clusters.prod]\n{votes}[corosync.prod]\n{nodes}"));
        assert!(both.contains("there is a [clusters.prod] too"), "{both}");
        let unserved = parse(&format!("{head}[corosync.prod]\n{nodes}"));
        assert!(unserved.contains("[qdevice.clusters.\"prod\"]"), "{unserved}");
        let shared = "kind = 'shelly'\naddress = '192.0.2.7:80'\nmac = 'A8032ABE54DC'\nno_password = true\n";
        let text = format!(
            "{head}[[clusters.home.devices]]\nnode = 'node1'\nname = 'plug'\n{shared}{votes}[corosync.prod]\n{nodes}\
             [[corosync.prod.devices]]\nnode = 'pve1'\nname = 'plug'\n{shared}"
        );
        let text = parse(&text);
        assert!(text.contains("already the device of node1 of cluster home"), "row 46: {text}");
    }

    /// Devices (cluster, node, name, kind, address), with a password file that only its owner may read.
    fn devices(devices: &[(&str, &str, &str, &str, &str)]) -> String {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("bmc");
        std::fs::write(&secret, "hunter2").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut text = "name = 'pi'\nlisten = ['[::]:8405']\n".to_owned();
        for (cluster, node, name, kind, address) in devices {
            text += &format!(
                "[[clusters.{cluster}.devices]]\nnode = '{node}'\nname = '{name}'\nkind = '{kind}'\n\
                 address = '{address}'\nuser = 'admin'\nsuite = 17\npassword_file = 'bmc'\n"
            );
        }
        match toml::from_str(&text) {
            Ok(raw) => match Config::check(raw, &text, dir.path()) {
                Ok(_) => "ok".into(),
                Err(error) => format!("{error:#}"),
            },
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn row_46_a_device_belongs_to_one_node_of_one_cluster() {
        let mine = ("home", "node1", "bmc", "ipmi", "192.0.2.7:623");
        assert_eq!(devices(&[mine, ("home", "node2", "bmc", "ipmi", "192.0.2.8:623")]), "ok");
        let of_another_node = devices(&[mine, ("home", "node2", "bmc", "ipmi", "192.0.2.7:623")]);
        assert!(of_another_node.contains("already the device of node1 of cluster home"), "{of_another_node}");
        let of_another_cluster = devices(&[mine, ("work", "node1", "bmc", "ipmi", "192.0.2.7:623")]);
        assert!(of_another_cluster.contains("already the device of node1 of cluster home"), "{of_another_cluster}");
        let in_other_words = devices(&[mine, ("work", "node1", "bmc", "ipmi", "[::ffff:192.0.2.7]:623")]);
        assert!(in_other_words.contains("already the device of node1 of cluster home"), "{in_other_words}");
        let twice = devices(&[mine, ("home", "node1", "bmc", "ipmi", "192.0.2.9:623")]);
        assert!(twice.contains("two devices of this name"), "{twice}");
    }

    /// The keys of a plug, a PDU and a fence agent beyond those that all devices have.
    const SUPPLIES: [&str; 3] = [
        "kind = 'shelly'\naddress = '192.0.2.7:80'\nmac = 'A8032ABE54DC'\nno_password = true\noutlets = [0, 1]\n",
        "kind = 'snmp'\naddress = '192.0.2.7:161'\ntable = 'eaton'\nserial = 'S1'\noutlets = [3, 4]\nversion = '2c'\n\
         password_file = 'bmc'\n",
        "kind = 'program'\nagent = '/usr/sbin/fence_x'\noptions = { ip = 'pdu', plug = 3 }\nrun_as = 'nobody'\n\
         no_password = true\n",
    ];

    fn written(tables: &[(&str, &str)]) -> String {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("bmc");
        std::fs::write(&secret, "hunter2").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut text = "name = 'pi'\nlisten = ['[::]:8405']\n".to_owned();
        for (node, keys) in tables {
            text += &format!("[[clusters.home.devices]]\nnode = '{node}'\nname = 'supply'\n{keys}");
        }
        match toml::from_str(&text) {
            Ok(raw) => match Config::check(raw, &text, dir.path()) {
                Ok(_) => "ok".into(),
                Err(error) => format!("{error:#}"),
            },
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn row_45_what_cuts_a_supply_is_refused_where_the_node_has_a_battery() {
        for keys in &SUPPLIES[..2] {
            assert_eq!(written(&[("node1", &format!("{keys}battery = false\n"))]), "ok");
            let answer = written(&[("node1", &format!("{keys}battery = true\n"))]);
            assert!(answer.contains("battery: a node with a battery runs on") && answer.contains("line "), "{answer}");
        }
        let bmc = "kind = 'ipmi'\naddress = '192.0.2.7:623'\nuser = 'a'\nsuite = 17\npassword_file = 'bmc'\n";
        assert!(written(&[("node1", &format!("{bmc}battery = true\n"))]).contains("no such key"));
    }

    #[test]
    fn row_46_an_outlet_of_a_supply_belongs_to_one_node() {
        for keys in SUPPLIES {
            assert_eq!(written(&[("node1", keys)]), "ok", "{keys}");
            let shared = written(&[("node1", keys), ("node2", keys)]);
            assert!(shared.contains("already the device of node1 of cluster home"), "{shared}");
        }
        // Another address doesn't make another plug of it, and one outlet in common is enough.
        let moved = SUPPLIES[0].replace("192.0.2.7", "192.0.2.8").replace("[0, 1]", "[1, 2]");
        assert!(written(&[("node1", SUPPLIES[0]), ("node2", &moved)]).contains("already the device of node1"));
        let beside = SUPPLIES[0].replace("[0, 1]", "[2]");
        assert_eq!(written(&[("node1", SUPPLIES[0]), ("node2", &beside)]), "ok");
    }

    #[test]
    fn the_example_of_the_package_is_in_order() {
        assert_eq!(parse(include_str!("../debian/server.toml")), "ok");
    }

    #[test]
    fn the_example_of_each_kind_is_read() {
        use std::os::unix::fs::PermissionsExt;
        let text = include_str!("../../../docs/examples/devices.toml");
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "correct-horse\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = Config::check(toml::from_str(text).unwrap(), text, dir.path()).unwrap();
        let devices = config.cluster(&ClusterName::new("home").unwrap()).devices;
        let kinds: std::collections::BTreeSet<&str> = devices.iter().map(|device| device.kind).collect();
        let all = ["board", "ipmi", "program", "redfish", "relay", "shelly", "shelly-gen1", "snmp", "tasmota"];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
        let signs: Vec<_> = devices.into_iter().map(|device| device.open().unwrap().sign()).collect();
        use tiebreaker_fence::OffSign::{Bmc, Led, Meter, Program, Relay};
        assert_eq!(signs, [Bmc, Bmc, Meter, Relay, Meter, Meter, Relay, Program, Led, Relay, Bmc, Meter, Meter]);
        assert!(config.board.has_panel() && config.board.watchdogs.is_some());
    }

    #[test]
    fn a_level_has_a_number_and_a_device_a_name_that_can_be_told_from_a_level() {
        let relay = |more: &str| format!("kind = 'relay'\nline = 'GPIO25'\ndrilled = true\n{more}");
        assert_eq!(written(&[("node1", &relay("level = 1\n"))]), "ok");
        for level in ["0", "10"] {
            let answer = written(&[("node1", &relay(&format!("level = {level}\n")))]);
            assert!(answer.contains("level: 1 is tried first, 9 is the last") && answer.contains("line 9"), "{answer}");
        }
        for name in ["psu/a", "psu-a+psu-b", ""] {
            let answer = devices(&[("home", "node1", name, "ipmi", "192.0.2.7:623")]);
            assert!(answer.contains("without / and +"), "{answer}");
        }
    }

    #[test]
    fn tables_of_the_own_pins_name_their_mistakes() {
        let board = "kind = 'board'\nbutton = 'GPIO23'\nled = '!GPIO24'\ndrilled = true\n";
        let relay = "kind = 'relay'\nline = 'GPIO25'\ndrilled = true\n";
        assert_eq!(written(&[("node1", board), ("node2", relay)]), "ok");
        for (device, words) in [
            (board.replace("led = '!GPIO24'\n", ""), ["needs led", "!GPIO23"]),
            (board.replace("!GPIO24", "!GPIO23"), ["led", "the button's line"]),
            (board.replace("GPIO23", "23"), ["button", "gpiochip0:23"]),
            (format!("{board}dark_is_off_s = 1\n"), ["dark_is_off_s", "between 2 and 6"]),
            (format!("{board}led_pull = 'left'\n"), ["left", "`up`"]),
            (format!("{relay}button = 'GPIO2'\n"), ["button", "no such key"]),
            (format!("{relay}drain_s = 60\n"), ["drain_s", "between 1 and 8"]),
            (format!("{relay}battery = true\n"), ["battery", "line"]),
        ] {
            let answer = written(&[("node1", &device)]);
            assert!(words.iter().all(|word| answer.contains(word)), "{answer}");
        }
        let shared = written(&[("node1", board), ("node2", &relay.replace("GPIO25", "!GPIO23"))]);
        assert!(shared.contains("GPIO line GPIO23 is already the device of node1"), "{shared}");
    }
}
