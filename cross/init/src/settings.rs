//! `tiebreaker.toml`, the one file that a person writes: on the card's first partition, which any computer can edit.
//!
//! It is the server's own `server.toml` with four tables more, which are this program's: `[network]`, `[time]`, `[setup]`
//! and `[update]`. The server gets the same text with their lines emptied, so the places that it names in mistakes are those
//! of the file that was written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use serde::Deserialize;
use tiebreaker_update::Key;
use toml::Spanned;

/// Where the server listens if the file doesn't say.
const LISTEN: &str = "listen = [\"[::]:8405\"]";
/// The status page, if the file doesn't say where it is.
const STATUS: &str = "[status]\nlisten = [\"[::]:80\"]\n";
/// The table that gives the machine its name on its own network, if the file doesn't.
const MDNS: &str = "[mdns]\nname = ";
/// Tokens that one start makes, at most: a file that asks for more is a mistake.
const MOST_TOKENS: usize = 16;
const MOST_SERVERS: usize = 8;

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The machine's name, and the appliance's in its clusters.
    pub name: String,
    /// Where its addresses come from.
    pub network: Network,
    /// Time servers, by name or address.
    pub time_servers: Vec<String>,
    /// What is made at each start, for machines and people that are to join.
    pub setup: Setup,
    /// The public key that updates must be signed with, in place of the image's own.
    pub update_key: Option<String>,
    /// The server's part, as `server.toml`.
    pub server: String,
}

/// `[network]`
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Network {
    /// The interface; the first wired one if none is named.
    pub interface: Option<String>,
    /// Addresses that are given and not asked for. Without an IPv4 address among them DHCP is asked for one.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The way out, for each family at most one.
    pub gateways: Vec<IpAddr>,
    /// Name servers; those of DHCP if there are none.
    pub dns: Vec<IpAddr>,
}

impl Network {
    /// Whether DHCP is asked for an address.
    #[must_use]
    pub fn asks_dhcp(&self) -> bool {
        !self.addresses.iter().any(|(address, _)| address.is_ipv4())
    }
}

/// `[setup]`
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    /// The cluster that the tokens are for.
    pub cluster: Option<String>,
    /// Tokens to make, each for one join.
    pub tokens: Vec<TokenKind>,
    /// Corosync clusters that get an invitation to the QDevice service.
    pub qdevices: Vec<String>,
    /// Whether ssh opens for one `pvecm qdevice setup`.
    pub pvecm: bool,
}

/// For whom a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A machine that runs resources.
    Node,
    /// A person.
    Operator,
}

impl TokenKind {
    /// What `tiebreaker-server token create --kind` calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Operator => "operator",
        }
    }
}

/// A mistake in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// Line and column, from 1, as an editor counts.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what is right.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Mistake {}

/// The file as it is written. What is not this program's is the server's, and checked by it.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    name: Option<Spanned<String>>,
    #[serde(default)]
    listen: Option<toml::Value>,
    #[serde(default)]
    addresses: Option<toml::Value>,
    #[serde(default)]
    status: Option<toml::Value>,
    #[serde(default)]
    mdns: Option<toml::Value>,
    #[serde(default)]
    qdevice: Option<toml::Value>,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    time: RawTime,
    #[serde(default)]
    setup: RawSetup,
    #[serde(default)]
    update: RawUpdate,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawNetwork {
    interface: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    gateways: Vec<Spanned<String>>,
    #[serde(default)]
    dns: Vec<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTime {
    servers: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawSetup {
    cluster: Option<Spanned<String>>,
    #[serde(default)]
    tokens: Vec<Spanned<TokenKind>>,
    #[serde(default)]
    qdevices: Vec<Spanned<String>>,
    pvecm: Option<Spanned<bool>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawUpdate {
    public_key: Option<Spanned<String>>,
}

/// The tables that the server doesn't know.
const OWN: [&str; 4] = ["network", "time", "setup", "update"];
const NAME: &str = "tiebreaker";
/// A pool that is open to everybody.
const TIME_SERVERS: [&str; 2] = ["0.pool.ntp.org", "1.pool.ntp.org"];

impl Settings {
    /// What holds where there is no file.
    #[must_use]
    pub fn without_a_file() -> Self {
        Self {
            name: NAME.into(),
            network: Network::default(),
            time_servers: TIME_SERVERS.map(Into::into).to_vec(),
            setup: Setup::default(),
            update_key: None,
            server: format!("name = \"{NAME}\"\n{LISTEN}\n{STATUS}{MDNS}\"{NAME}\"\n"),
        }
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let raw: Raw = toml::from_str(text).map_err(|error| in_toml(text, &error))?;
        let name = match &raw.name {
            Some(name) if is_host_name(name.get_ref()) => name.get_ref().clone(),
            Some(name) => {
                let what = format!(
                    "name: {:?} is no name for a machine: give small letters, digits and hyphens, 63 at most",
                    name.get_ref()
                );
                return Err(at(text, name.span(), what));
            }
            None => NAME.into(),
        };
        let network = network(text, &raw.network)?;
        let time_servers = match &raw.time.servers {
            None => TIME_SERVERS.map(Into::into).to_vec(),
            Some(servers) => {
                if let Some(one_more) = servers.get(MOST_SERVERS) {
                    return Err(at(text, one_more.span(), format!("time.servers: {MOST_SERVERS} at most")));
                }
                servers.iter().map(|server| server.get_ref().clone()).collect()
            }
        };
        let setup = setup(text, &raw)?;
        let update_key = match &raw.update.public_key {
            Some(key) => {
                let wrong =
                    |error: tiebreaker_update::UpdateError| at(text, key.span(), format!("update.public_key: {error}"));
                Key::parse(key.get_ref()).map_err(wrong)?;
                Some(key.get_ref().clone())
            }
            None => None,
        };
        let mut server = without_own_tables(text)?;
        // They go where no line is moved: behind everything, a key would belong to the last table.
        for (given, line) in
            [(raw.name.is_some(), format!("name = \"{name}\"")), (raw.listen.is_some(), LISTEN.to_owned())]
        {
            if !given {
                server = in_an_empty_line(&server, &line)?;
            }
        }
        if raw.status.is_none() {
            server = behind(server, STATUS);
        }
        if raw.mdns.is_none() {
            server = behind(server, &format!("{MDNS}\"{name}\"\n"));
        }
        Ok(Self { name, network, time_servers, setup, update_key, server })
    }
}

fn network(text: &str, raw: &RawNetwork) -> Result<Network, Mistake> {
    let interface = match &raw.interface {
        Some(name) if name.get_ref().is_empty() || name.get_ref().len() > 15 || name.get_ref().contains('/') => {
            let what = format!("network.interface: {:?} is none: give for instance \"eth0\"", name.get_ref());
            return Err(at(text, name.span(), what));
        }
        other => other.as_ref().map(|name| name.get_ref().clone()),
    };
    let mut addresses = Vec::new();
    for address in &raw.addresses {
        let parsed = prefixed(address.get_ref()).ok_or_else(|| {
            let what = format!(
                "network.addresses: {:?} is no address with the length of its network: give for instance \
                 \"192.0.2.10/24\" or \"2001:db8::10/64\"",
                address.get_ref()
            );
            at(text, address.span(), what)
        })?;
        addresses.push(parsed);
    }
    let mut gateways: Vec<IpAddr> = Vec::new();
    for gateway in &raw.gateways {
        let parsed = address(text, "network.gateways", gateway)?;
        if gateways.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
            return Err(at(text, gateway.span(), "network.gateways: one of each family at most".into()));
        }
        if parsed.is_ipv4() && !addresses.iter().any(|(address, _)| address.is_ipv4()) {
            let what = "network.gateways: without an IPv4 address in network.addresses DHCP names the gateway";
            return Err(at(text, gateway.span(), what.into()));
        }
        gateways.push(parsed);
    }
    let dns = raw.dns.iter().map(|server| address(text, "network.dns", server)).collect::<Result<_, _>>()?;
    Ok(Network { interface, addresses, gateways, dns })
}

fn address(text: &str, key: &str, raw: &Spanned<String>) -> Result<IpAddr, Mistake> {
    raw.get_ref().parse().map_err(|_| {
        let what = format!("{key}: {:?} is no address: give for instance \"192.0.2.1\"", raw.get_ref());
        at(text, raw.span(), what)
    })
}

fn setup(text: &str, raw: &Raw) -> Result<Setup, Mistake> {
    let RawSetup { cluster, tokens, qdevices, pvecm } = &raw.setup;
    if let Some(one_more) = tokens.get(MOST_TOKENS) {
        return Err(at(text, one_more.span(), format!("setup.tokens: {MOST_TOKENS} at most")));
    }
    if let Some(one_more) = qdevices.get(MOST_TOKENS) {
        return Err(at(text, one_more.span(), format!("setup.qdevices: {MOST_TOKENS} at most")));
    }
    if let (None, Some(token)) = (cluster, tokens.first()) {
        let what = "setup.tokens: tokens are for a cluster: give it a name, for instance cluster = \"home\"";
        return Err(at(text, token.span(), what.into()));
    }
    // A cluster remembers from its beginning where its appliance is.
    if let (Some(cluster), None) = (cluster, &raw.addresses) {
        let what = "setup.cluster: members must find this machine: give addresses in the first lines of the file, for \
                    instance addresses = [\"192.0.2.10:8405\"]";
        return Err(at(text, cluster.span(), what.into()));
    }
    let pvecm = pvecm.as_ref().filter(|pvecm| *pvecm.get_ref());
    // Whoever got in could get nothing, since the server signs for no cluster that it doesn't serve.
    if let Some(pvecm) = pvecm
        && !raw.qdevice.as_ref().is_some_and(serves_clusters)
    {
        let what = "setup.pvecm: the server must serve the cluster: add [qdevice] with any_certified = true, or with \
                    [qdevice.clusters.NAME]";
        return Err(at(text, pvecm.span(), what.into()));
    }
    Ok(Setup {
        cluster: cluster.as_ref().map(|cluster| cluster.get_ref().clone()),
        tokens: tokens.iter().map(|token| *token.get_ref()).collect(),
        qdevices: qdevices.iter().map(|cluster| cluster.get_ref().clone()).collect(),
        pvecm: pvecm.is_some(),
    })
}

/// Whether the table `[qdevice]` names a cluster or takes all. What else is in it is the server's to judge.
fn serves_clusters(qdevice: &toml::Value) -> bool {
    let any = qdevice.get("any_certified").and_then(toml::Value::as_bool) == Some(true);
    let named = qdevice.get("clusters").and_then(toml::Value::as_table).is_some_and(|clusters| !clusters.is_empty());
    any || named
}

/// The text with the lines of the own tables emptied.
fn without_own_tables(text: &str) -> Result<String, Mistake> {
    let (mut left, mut own) = (String::with_capacity(text.len()), false);
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        if let Some(header) = trimmed.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or(header).trim();
            own = OWN.contains(&name);
        }
        if own {
            left.extend(line.chars().filter(|letter| matches!(letter, '\r' | '\n')));
        } else {
            left.push_str(line);
        }
    }
    // Headers are found by their lines: whether nothing else was taken for one is seen in what is left.
    let mut whole: toml::Table = toml::from_str(text).map_err(|error| in_toml(text, &error))?;
    for table in OWN {
        whole.remove(table);
    }
    if toml::from_str::<toml::Table>(&left).is_ok_and(|left| left == whole) {
        Ok(left)
    } else {
        let what = "write the tables network, time, setup and update under headings of their own ([network]), with each list in \
                    one line";
        Err(Mistake { place: None, what: what.into() })
    }
}

/// The text with a top-level key in a line that had none, so that no other line is moved.
fn in_an_empty_line(text: &str, key: &str) -> Result<String, Mistake> {
    let mut done = String::with_capacity(text.len() + key.len() + 1);
    let mut lines = text.split_inclusive('\n');
    for line in lines.by_ref() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            done.push_str(key);
            done.push('\n');
            done.extend(lines);
            return Ok(done);
        }
        if trimmed.starts_with('[') {
            break;
        }
        done.push_str(line);
    }
    if done.len() == text.len() {
        // No table begins: at the end it is still a key of the top.
        return Ok(format!("{}\n{key}\n", text.trim_end_matches('\n')));
    }
    let what = format!("give {key} before the first table, or leave an empty line or a comment there");
    Err(Mistake { place: Some((1, 1)), what })
}

/// The text with a table behind everything, so that no line is moved.
fn behind(mut text: String, table: &str) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + table
}

fn prefixed(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
    let most = match address {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => return None,
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (1..=most).contains(&length).then_some((address, length))
}

fn is_host_name(text: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|letter| letter != '-');
    (1..=63).contains(&text.len())
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        && edge(text.chars().next())
        && edge(text.chars().last())
}

fn in_toml(text: &str, error: &toml::de::Error) -> Mistake {
    let place = error.span().map(|span| place(text, span));
    Mistake { place, what: error.message().to_owned() }
}

fn at(text: &str, span: Range<usize>, what: String) -> Mistake {
    Mistake { place: Some(place(text, span)), what }
}

fn place(text: &str, span: Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "# mine\nname = \"pi\"\naddresses = [\"192.0.2.10:8405\"]\n\n[network]\naddresses = \
                         [\"192.0.2.10/24\", \"2001:db8::10/64\"]\ngateways = [\"192.0.2.1\"]\ndns = [\"192.0.2.1\"]\n\n\
                         [time]\nservers = [\"192.0.2.2\"]\n\n[setup]\ncluster = \"home\"\ntokens = [\"operator\", \
                         \"node\"]\nqdevices = [\"pve\"]\n\n[qdevice]\nany_certified = true\n";

    #[test]
    fn a_whole_file_is_read_and_the_server_gets_the_rest_on_the_same_lines() {
        let settings = Settings::parse(WHOLE).unwrap();
        assert_eq!(settings.name, "pi");
        assert_eq!(settings.network.addresses.len(), 2);
        assert!(!settings.network.asks_dhcp());
        assert_eq!(settings.time_servers, ["192.0.2.2"]);
        assert_eq!(settings.setup.tokens, [TokenKind::Operator, TokenKind::Node]);
        let (theirs, ours): (Vec<&str>, Vec<&str>) = (settings.server.lines().collect(), WHOLE.lines().collect());
        assert_eq!(
            theirs[ours.len()..],
            ["[status]", "listen = [\"[::]:80\"]", "[mdns]", "name = \"pi\""],
            "what the file doesn't say is behind it"
        );
        for word in ["[network]", "[time]", "[setup]", "operator"] {
            assert!(!settings.server.contains(word), "{word} is left: {}", settings.server);
        }
        let line = |lines: &[&str]| lines.iter().position(|line| *line == "[qdevice]");
        assert_eq!(line(&theirs), line(&ours));
        let server: toml::Table = toml::from_str(&settings.server).unwrap();
        assert_eq!(server["listen"].as_array().unwrap().len(), 1, "a default that the file didn't give");
    }

    #[test]
    fn an_empty_file_is_as_none_and_asks_dhcp() {
        let empty = Settings::parse("").unwrap();
        let none = Settings::without_a_file();
        assert_eq!((&empty.name, &empty.network), (&none.name, &none.network));
        assert_eq!(toml::from_str::<toml::Table>(&empty.server), toml::from_str::<toml::Table>(&none.server));
        assert!(none.network.asks_dhcp());
        assert!(Settings::parse("[network]\naddresses = ['2001:db8::1/64']\n").unwrap().network.asks_dhcp());
    }

    #[test]
    fn ssh_is_asked_for_by_one_word_and_only_for_clusters_that_are_served() {
        for (text, pvecm) in [
            ("", false),
            ("[setup]\npvecm = false\n", false),
            ("\n\n[qdevice]\nany_certified = true\n", false),
            ("[setup]\npvecm = true\n[qdevice]\nany_certified = true\n", true),
            ("[setup]\npvecm = true\n[qdevice.clusters.pve]\n", true),
        ] {
            assert_eq!(Settings::parse(text).unwrap().setup.pvecm, pvecm, "{text}");
        }
    }

    #[test]
    fn the_status_page_is_where_the_file_says_and_else_at_port_80() {
        for (text, listens) in [
            ("name = 'pi'\nlisten = ['[::]:8405']\n[status]\nlisten = []\n", Some(0)),
            ("\n\n[status]\nlisten = ['[::]:81', '[::]:82']", Some(2)),
            ("\n\n[qdevice]\nany_certified = true", None),
            ("", None),
        ] {
            let server: toml::Table = toml::from_str(&Settings::parse(text).unwrap().server).unwrap();
            let at = server["status"]["listen"].as_array().unwrap();
            match listens {
                Some(count) => assert_eq!(at.len(), count, "{text}"),
                None => assert_eq!(at[0].as_str(), Some("[::]:80"), "{text}"),
            }
        }
    }

    #[test]
    fn the_example_on_the_card_is_in_order() {
        let settings = Settings::parse(include_str!("../tiebreaker.toml")).unwrap();
        assert_eq!(settings.setup, Setup::default(), "the card that is shipped makes no token");
    }

    #[test]
    fn what_the_example_comments_out_is_in_order_too() {
        let text: String = include_str!("../tiebreaker.toml")
            .lines()
            .map(|line| format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line)))
            .collect();
        let settings = Settings::parse(&text).unwrap_or_else(|mistake| panic!("{mistake}\n{text}"));
        assert!(settings.setup.cluster.is_some() && !settings.network.addresses.is_empty());
    }

    #[test]
    fn mistakes_are_named_with_line_and_column_and_a_way_out() {
        for (text, place, words) in [
            ("name = \"Pi 3\"\n", Some((1, 8)), "small letters"),
            ("name = 'pi'\n[network]\nadresses = ['192.0.2.1/24']\n", Some((3, 1)), "adresses"),
            ("[network]\naddresses = ['192.0.2.1']\n", Some((2, 14)), "192.0.2.10/24"),
            ("[network]\naddresses = ['192.0.2.1/33']\n", Some((2, 14)), "192.0.2.10/24"),
            ("[network]\ngateways = ['192.0.2.1']\n", Some((2, 13)), "DHCP"),
            ("[network]\naddresses = ['192.0.2.5/24']\ngateways = ['192.0.2.1', '192.0.2.2']\n", Some((3, 26)), "one"),
            ("[network]\ninterface = ''\n", Some((2, 13)), "eth0"),
            ("[setup]\ntokens = ['node']\n", Some((2, 11)), "cluster"),
            ("[setup]\ncluster = 'home'\n", Some((2, 11)), "addresses"),
            ("[setup]\ntokens = ['guest']\n", Some((2, 11)), "guest"),
            ("[setup]\npvecm = true\n", Some((2, 9)), "[qdevice]"),
            ("[setup]\npvecm = true\n[qdevice]\nany_certified = false\n", Some((2, 9)), "any_certified = true"),
            ("[setup]\npvecm = true\n[qdevice.clusters]\n", Some((2, 9)), "[qdevice.clusters.NAME]"),
            ("[setup]\npvecm = 'yes'\n[qdevice]\nany_certified = true\n", Some((2, 9)), "boolean"),
            ("[update]\npublic_key = 'mine'\n", Some((2, 14)), "begins with RW"),
            ("name = 'pi\n", Some((1, 8)), ""),
            ("network = { dns = [] }\n", None, "[network]"),
        ] {
            let mistake = Settings::parse(text).unwrap_err();
            assert!(mistake.what.contains(words), "{text:?}: {mistake}");
            assert_eq!(mistake.place.map(|(line, _)| line), place.map(|(line, _)| line), "{text:?}: {mistake}");
            if !words.is_empty() {
                assert_eq!(mistake.place, place, "{text:?}: {mistake}");
            }
        }
    }

    #[test]
    fn a_line_in_a_list_that_looks_like_a_heading_is_not_taken_for_one() {
        let mistake = Settings::parse("[network]\ndns = [\n\"192.0.2.1\",\n]\n[qdevice]\nx = [\n[\"a\"],\n]\n");
        assert!(mistake.is_ok(), "{mistake:?}");
        let refused = Settings::parse("[qdevice]\nx = [\n[\"a\"],\n]\n[clusters.home]\ny = [\n[time],\n]\n");
        assert!(refused.is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z=\\[\\]\"'#\\n. 0-9/]{0,120}") {
            if let Ok(settings) = Settings::parse(&text) {
                toml::from_str::<toml::Table>(&settings.server).expect("the server's part is a table");
            }
        }
    }
}
