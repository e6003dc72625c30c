//! The conversation with the appliance.

use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use tiebreaker_member::ask::{FenceAnswer, FenceAsk, FenceRequest};
use tiebreaker_member::errors::chain;
use tiebreaker_member::join::{JoinGrant, JoinInfo};
use tiebreaker_member::{
    Address, Client, Identity, JoinAsk, Keypair, LinkError, MemberName, Role, SystemClock, TimeFloor, Token,
    TrustedTime, join as join_at,
};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::options::{Action, Join, Options};
use crate::connection::{store_addresses, stored_addresses};

/// Connecting takes at most this long; the appliance may be starting, so it is tried again where there is time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(500);
/// An answer about which nothing is decided: a read of devices, each with its own time.
const READ_WITHIN: Duration = Duration::from_secs(45);
/// The appliance is to answer before the agent gives up.
const SPARE: Duration = Duration::from_secs(1);
const JOIN_WITHIN: Duration = Duration::from_secs(40);
/// The machine's own UUID, which root may read.
const PRODUCT_UUID: &str = "/sys/class/dmi/id/product_uuid";

/// This node, ready to ask.
pub struct Asking {
    identity: Identity,
    addresses: Vec<Address>,
    options: Options,
}

impl Asking {
    /// Checks what it takes to ask.
    pub fn check(options: &Options) -> Result<Self, String> {
        let dir = &options.identity;
        if !Identity::exists(dir) {
            return Err(format!(
                "{} holds no identity: enrol this node with `fence_tiebreaker --join HOST --token TOKEN`; `tiebreaker-server token \
                 create --cluster NAME --kind fence-client` on the appliance prints the token",
                dir.display()
            ));
        }
        let identity = Identity::load(dir).map_err(|error| chain(&error))?;
        if identity.peer().role != Role::FenceClient {
            return Err(format!(
                "the identity in {} is of a {}, not of a fence client",
                dir.display(),
                identity.peer().role
            ));
        }
        let addresses = match &options.address {
            Some(address) => vec![address.clone()],
            None => stored_addresses(dir).map_err(|failure| failure.to_string())?,
        };
        Ok(Self { identity, addresses, options: options.clone() })
    }

    /// Asks. What outlives the connection is asked for again until its time is over: a fence is joined, not begun anew.
    pub async fn ask(&self, ask: FenceAsk) -> Result<FenceAnswer, String> {
        let switches = matches!(ask, FenceAsk::Off { .. } | FenceAsk::On { .. });
        let within = if switches { self.options.answer_within } else { READ_WITHIN.min(self.options.answer_within) };
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let result = self.once(&ask, left).await;
            let enough = left > AGAIN + SPARE;
            match result {
                Ok(FenceAnswer::Working { .. }) if enough => {}
                Ok(answer) => return Ok(answer),
                Err(error) if !enough || is_final(&error) => return Err(chain(&error)),
                Err(_) => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// Shows an identity for the first time. Whatever comes of it, the node is enrolled: its token is spent.
    async fn check_in(&self) -> Result<(), String> {
        let why = match self.ask(FenceAsk::List).await {
            Ok(FenceAnswer::Nodes { .. }) => return Ok(()),
            Ok(FenceAnswer::Refused { why } | FenceAnswer::Failed { why }) => why,
            Ok(
                FenceAnswer::State { .. }
                | FenceAnswer::Done { .. }
                | FenceAnswer::Working { .. }
                | FenceAnswer::Certificate { .. },
            ) => "the appliance answers something else than was asked".to_owned(),
            Err(why) => why,
        };
        let again = format!("`{} --action monitor` looks again", super::NAME);
        Err(format!("this node is enrolled, but the look afterwards has failed: {why}; {again}"))
    }

    async fn once(&self, ask: &FenceAsk, left: Duration) -> Result<FenceAnswer, LinkError> {
        let mut ask = ask.clone();
        let soon = u64::try_from(left.saturating_sub(SPARE).as_millis()).unwrap_or(u64::MAX);
        match &mut ask {
            FenceAsk::Off { within_ms, .. } | FenceAsk::On { within_ms, .. } => *within_ms = soon,
            FenceAsk::List | FenceAsk::States | FenceAsk::State { .. } | FenceAsk::Monitor | FenceAsk::Renew { .. } => {
            }
        }
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
        let connect = CONNECT_WITHIN.min(left.max(AGAIN));
        let mut client = Client::connect(&self.addresses, None, &self.identity, &time, connect).await?;
        let answer = exchange(&mut client, ask, left.max(AGAIN)).await?;
        // Not beside a fence: somebody waits for that.
        if matches!(self.options.action, Action::Monitor | Action::List | Action::ListStatus)
            && self.identity.renewal_due(time.now())
            && let Err(why) = self.renew(&mut client).await
        {
            let days = self.identity.cert().not_after.saturating_sub(time.now()) / 86_400;
            eprintln!("{}: warning: the certificate ends in {days} days, and can't be renewed now: {why}", super::NAME);
        }
        Ok(answer)
    }

    async fn renew(&self, client: &mut Client) -> Result<(), String> {
        let csr = self.identity.csr().map_err(|error| chain(&error))?;
        match exchange(client, FenceAsk::Renew { csr }, CONNECT_WITHIN).await.map_err(|error| chain(&error))? {
            FenceAnswer::Certificate { der } => {
                let next = self.identity.renewed(&der).map_err(|error| chain(&error))?;
                next.store(&self.options.identity).map_err(|error| chain(&error))
            }
            FenceAnswer::Refused { why } | FenceAnswer::Failed { why } => Err(why),
            _ => Err("the appliance answers something else than was asked".into()),
        }
    }
}

/// Asking again doesn't change it.
fn is_final(error: &LinkError) -> bool {
    matches!(
        error,
        LinkError::Refused { .. }
            | LinkError::PeerCertificate { .. }
            | LinkError::OwnCertificate { .. }
            | LinkError::NotServed { .. }
            | LinkError::NotTiebreaker { .. }
            | LinkError::TooLarge { .. }
    )
}

async fn exchange(client: &mut Client, ask: FenceAsk, within: Duration) -> Result<FenceAnswer, LinkError> {
    let request = FenceRequest { machine: machine(), ask };
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &request)
        .expect("writing to memory can't fail, and every field is encodable");
    let answer = client.ask(&bytes, within).await?;
    decode(&answer).map_err(|text| LinkError::Failed { text })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    cbor4ii::serde::from_slice(bytes)
        .map_err(|error| format!("the appliance's answer can't be decoded ({error}): are both of the same version?"))
}

/// The UUID of this machine, where it has one and this user may read it.
fn machine() -> Option<String> {
    let text = std::fs::read_to_string(PRODUCT_UUID).ok()?;
    let text = text.trim();
    let is_uuid = text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uuid.then(|| text.to_owned())
}

/// The machine's name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Enrols this node: fetches its identity for a token, and stores it.
pub async fn join(join: Join) -> Result<String, String> {
    let Join { address, token, name, identity: dir } = join;
    let mut text = Zeroizing::new(token);
    if *text == "-" {
        text.clear();
        std::io::stdin().lock().read_line(&mut text).map_err(|error| chain(&error))?;
    }
    let token: Token = text.trim().parse().map_err(|error| chain(&error))?;
    if token.role != Role::FenceClient {
        return Err(format!(
            "this token is for the role {}: make one with `tiebreaker-server token create --cluster {} --kind fence-client`",
            token.role, token.cluster
        ));
    }
    if Identity::exists(&dir) {
        return Err(format!("{} holds an identity already: move it away to enrol anew", dir.display()));
    }
    let name = match name {
        Some(name) => name,
        None => {
            let host = std::fs::read_to_string(HOSTNAME).map_err(|error| format!("reading {HOSTNAME}: {error}"))?;
            host.trim().split('.').next().unwrap_or_default().to_owned()
        }
    };
    let name: MemberName = name.parse().map_err(|error| format!("{error}; give this node's name with --name"))?;
    let key = Keypair::generate().map_err(|error| chain(&error))?;
    let mut info = Vec::new();
    cbor4ii::serde::to_writer(&mut info, &JoinInfo::default()).expect("writing to memory can't fail");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let ask = JoinAsk { name, csr: key.csr().map_err(|error| chain(&error))?, clock, info };
    let addresses = [address];
    let joined = join_at(&addresses, None, &token, ask, JOIN_WITHIN).await.map_err(|error| chain(&error))?;
    let grant: JoinGrant = decode(&joined.reply)?;
    let identity = Identity::new(key, &grant.certificate, joined.ca).map_err(|error| chain(&error))?;
    make_private(&dir)?;
    // The address goes first: where the identity is, the rest is there too.
    store_addresses(&dir, &addresses).map_err(|failure| failure.to_string())?;
    identity.store(&dir).map_err(|error| chain(&error))?;
    let said = format!("This node is {}; its identity is in {}.", identity.peer(), dir.display());
    // Its machine's UUID, by which its BMC is known, is told at once.
    let options = Options {
        action: Action::List,
        plug: None,
        address: None,
        identity: dir,
        answer_within: Duration::from_secs(super::options::ANSWER_WITHIN_S),
    };
    if let Err(why) = (Asking { identity, addresses: addresses.into(), options }).check_in().await {
        eprintln!("{}: warning: {why}", super::NAME);
    }
    Ok(said)
}

fn make_private(dir: &Path) -> Result<(), String> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| format!("creating {}: {error}", dir.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, SocketAddr};

    use tiebreaker_member::{
        Acceptor, Ca, Incoming, LEAF_VALIDITY, LinkConfig, Links, PeerId, PeerTable, Subject, Timing, TokenBook,
    };
    use tokio::sync::watch;

    use super::*;

    fn subject(role: Role, name: &str) -> Subject {
        let peer = PeerId { cluster: "prod".parse().unwrap(), role, name: name.parse().unwrap() };
        Subject { peer, raft_id: None }
    }

    #[tokio::test]
    async fn a_node_is_enrolled_though_the_appliance_does_not_answer_the_look_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, mut tokens) = (Ca::new_in_memory().unwrap(), TokenBook::open(dir.path()).unwrap());
        let time = TrustedTime::new(Arc::new(SystemClock), TimeFloor::default());
        let (pin, cluster) = (ca.certificate().fingerprint(), "prod".parse().unwrap());
        let token = tokens.create(pin, &cluster, Role::FenceClient, time.now(), 60).unwrap();
        let acceptor = Acceptor::bind(&[SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]).await.unwrap();
        let own = ca.issue(&subject(Role::Appliance, "pi"), time.now(), LEAF_VALIDITY).unwrap();
        let (_identity, identity) = watch::channel(Arc::new(own));
        // Nobody is let in with a certificate.
        let mut table = PeerTable::default();
        table.roster.bind_keys(Role::FenceClient, BTreeMap::new());
        let (_table, table) = watch::channel(Arc::new(table));
        let config = LinkConfig { identity, time: time.clone(), source: None, timing: Timing::default() };
        let (_links, mut incoming) = Links::start(config, &acceptor, table).unwrap();
        let grant = async {
            let Some(Incoming::Join { request, reply, .. }) = incoming.recv().await else { panic!("nobody joins") };
            let leaf = ca.sign(&request.csr, &subject(Role::FenceClient, "pve1"), time.now(), LEAF_VALIDITY).unwrap();
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &JoinGrant { certificate: leaf.to_vec(), member: None }).unwrap();
            reply.accept(bytes).unwrap();
        };
        let identity = dir.path().join("identity");
        let asked = Join {
            address: acceptor.local_addrs()[0].to_string().parse().unwrap(),
            token: token.to_text().to_string(),
            name: Some("pve1".into()),
            identity: identity.clone(),
        };
        let (said, ()) = tokio::join!(join(asked), grant);
        assert!(said.unwrap().contains("This node is "));
        assert!(Identity::exists(&identity));
    }
}
