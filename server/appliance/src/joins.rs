//! Letting machines and operators in, and renewing certificates.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_member::core::{Reply, Request};
use tiebreaker_member::join::{JoinGrant, JoinInfo, JoinedMember};
use tiebreaker_member::runtime::MemberHandle;
use tiebreaker_member::{
    Address, Ca, Identity, JoinRequest, LEAF_VALIDITY, PeerId, Role, Subject, TokenBook, TrustedTime, request_key,
    signing_time, trusted_seconds,
};
use tiebreaker_pipeline::command::Command;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::state;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::layout::unix_seconds;

/// A joiner waits this long for a leader.
const LEADER_WITHIN: Duration = Duration::from_secs(10);
/// And asks this often.
const LEADER_AGAIN: Duration = Duration::from_millis(200);
/// Addresses of a joiner at most.
const ADDRESSES_MAX: usize = 8;

/// The authority and the tokens, shared by all clusters.
pub struct Gate {
    ca: Ca,
    tokens: Mutex<TokenBook>,
}

impl Gate {
    /// An authority with its tokens.
    #[must_use]
    pub fn new(ca: Ca, tokens: TokenBook) -> Self {
        Self { ca, tokens: Mutex::new(tokens) }
    }

    /// The authority.
    #[must_use]
    pub const fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Now, for tokens and certificates: the clock, or where that was never set the newest time that the cluster knows. A
    /// token is made and judged by the same clock, never by the joiner's.
    pub fn now(&self, member: &MemberHandle) -> u64 {
        trusted_seconds(unix_seconds(), member.state().borrow().newest_ms / 1000)
    }

    /// Makes a token that counts from `now` (seconds since 1970); it is durable when this returns.
    ///
    /// # Errors
    /// When kind or time are not allowed, or the file can't be written.
    pub async fn create_token(
        &self,
        cluster: &ClusterName,
        kind: &str,
        now: u64,
        ttl_s: u64,
    ) -> Result<(Zeroizing<String>, u64)> {
        let role = match kind {
            "node" => Role::Node,
            "operator" => Role::Operator,
            "fence-client" => Role::FenceClient,
            other => bail!("there is no token of the kind {other:?}: use node, operator or fence-client"),
        };
        let mut tokens = self.tokens.lock().await;
        let token = tokens.create(self.ca.certificate().fingerprint(), cluster, role, now, ttl_s)?;
        Ok((token.to_text(), now + ttl_s))
    }

    /// Lets a joiner in: uses the token up, makes it a member through the log, signs its certificate.
    ///
    /// # Errors
    /// The reason, in words for the joiner.
    pub async fn admit(&self, cluster: &ClusterName, member: &MemberHandle, request: JoinRequest) -> Result<Vec<u8>> {
        let info: JoinInfo =
            cbor4ii::serde::from_slice(&request.info[..]).context("the join request can't be decoded")?;
        if info.addresses.len() > ADDRESSES_MAX {
            bail!("a member may have {ADDRESSES_MAX} addresses at most");
        }
        for address in &info.addresses {
            address.parse::<Address>().with_context(|| format!("the joiner's address {address:?} can't be used"))?;
        }
        let key = request_key(&request.csr).context("the certificate request is not valid")?;
        let now = signing_time(self.now(member), request.clock);
        let redeemed = {
            let mut tokens = self.tokens.lock().await;
            // A name that is taken must not cost the token.
            self.check_name(member, &request, &key)?;
            tokens.redeem(cluster, &request.secret, &request.name, &request.csr, self.now(member))?
        };
        let raft_id = match redeemed.role {
            Role::Node if info.addresses.is_empty() => {
                bail!("a node needs an address at which the other members reach it: give --address HOST:PORT")
            }
            Role::Node => Some(self.add_node(member, &request, info.addresses, key).await?),
            Role::Operator => {
                self.add_operator(member, &request, key).await?;
                None
            }
            Role::FenceClient => bail!("a fence agent joins a Corosync cluster, and this is one of Tiebreaker's own"),
            Role::Appliance | Role::Observer | Role::Authority => {
                bail!("nobody can join with the role {} yet", redeemed.role)
            }
        };
        let peer = PeerId { cluster: cluster.clone(), role: redeemed.role, name: request.name.clone() };
        let certificate = self.ca.sign(&request.csr, &Subject { peer, raft_id }, now, LEAF_VALIDITY)?.to_vec();
        let member = match raft_id {
            Some(raft_id) => {
                let snapshot = member.snapshot().await.context("the cluster's state can't be handed over just now")?;
                Some(JoinedMember { raft_id, snapshot })
            }
            None => None,
        };
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &JoinGrant { certificate, member })?;
        Ok(bytes)
    }

    /// Lets the fence agent of a Corosync cluster's node in: uses the token up, and signs its certificate at `now` (seconds since
    /// 1970). Gives the answer for it, its key, and its certificate's number.
    ///
    /// # Errors
    /// The reason, in words for the joiner.
    pub(crate) async fn admit_fence_client(
        &self,
        cluster: &ClusterName,
        now: u64,
        request: JoinRequest,
    ) -> Result<(Vec<u8>, String)> {
        let key = request_key(&request.csr).context("the certificate request is not valid")?;
        let redeemed = self.tokens.lock().await.redeem(cluster, &request.secret, &request.name, &request.csr, now)?;
        if redeemed.role != Role::FenceClient {
            bail!("this token is for the role {}, not for a fence agent", redeemed.role);
        }
        let certificate =
            self.certify_fence_client(cluster, &request.name, &request.csr, signing_time(now, request.clock))?;
        let mut bytes = Vec::new();
        cbor4ii::serde::to_writer(&mut bytes, &JoinGrant { certificate, member: None })?;
        Ok((bytes, key))
    }

    /// Signs a certificate of the fence agent of a Corosync cluster's node. Gives it, DER.
    ///
    /// # Errors
    /// The request is bad, or the date unknown.
    pub(crate) fn certify_fence_client(
        &self,
        cluster: &ClusterName,
        node: &MemberName,
        csr: &[u8],
        now: u64,
    ) -> Result<Vec<u8>> {
        let peer = PeerId { cluster: cluster.clone(), role: Role::FenceClient, name: node.clone() };
        Ok(self.ca.sign(csr, &Subject { peer, raft_id: None }, now, LEAF_VALIDITY)?.to_vec())
    }

    fn check_name(&self, member: &MemberHandle, request: &JoinRequest, key: &str) -> Result<()> {
        let state = member.state();
        let state = state.borrow();
        let name = &request.name;
        if let Some(existing) = state.members.get(name)
            && existing.key != key
        {
            bail!(
                "{name} is a member already: choose another name, or remove that one first (`tiebreaker member remove \
                 {name}`)"
            );
        }
        if let Some(existing) = state.operators.get(name.as_str())
            && existing != key
        {
            bail!(
                "there is an operator {name} already: choose another name, or remove that one first (`tiebreaker operator \
                 remove {name}`)"
            );
        }
        Ok(())
    }

    async fn add_node(
        &self,
        member: &MemberHandle,
        request: &JoinRequest,
        addresses: Vec<String>,
        key: String,
    ) -> Result<u64> {
        let name = request.name.clone();
        let command = Command::AddMember { name: name.clone(), role: state::Role::Node, addresses, key };
        done(propose(member, command).await)?;
        let mut state = member.state();
        let state =
            state.wait_for(|state| state.members.contains_key(&name)).await.context("the daemon is stopping")?;
        state.members.get(&name).map(|member| member.raft_id).context("the member was removed meanwhile")
    }

    async fn add_operator(&self, member: &MemberHandle, request: &JoinRequest, key: String) -> Result<()> {
        let name = request.name.as_str().to_owned();
        if member.state().borrow().operators.get(&name) == Some(&key) {
            return Ok(());
        }
        done(propose(member, Command::AddOperator { name, key }).await)
    }

    /// A new certificate, with a new key, for the appliance itself, which counts from the trusted time.
    ///
    /// # Errors
    /// When neither the clock nor the cluster knows the date, or the system gives no randomness.
    pub fn issue_own(&self, subject: &Subject, time: &TrustedTime) -> Result<Identity> {
        self.ca.issue(subject, time.now(), LEAF_VALIDITY).context("signing")
    }

    /// Signs a new certificate for who has a good one: the same name, role and number, and the key in the request.
    ///
    /// # Errors
    /// When it is no member any more, or the request is bad.
    pub fn renew(&self, member: &MemberHandle, from: &PeerId, csr: &[u8]) -> Result<Vec<u8>> {
        let state = member.state();
        let state = state.borrow();
        let key = request_key(csr).context("the certificate request is not valid")?;
        let raft_id = match from.role {
            Role::Node => {
                let known = state.members.get(&from.name).context("this node is not a member any more")?;
                if known.key != key {
                    bail!("the request is for another key than the member's: join again with a new token");
                }
                Some(known.raft_id)
            }
            Role::Operator => {
                if state.operators.get(from.name.as_str()) != Some(&key) {
                    bail!("the request is for another key than the operator's: join again with a new token");
                }
                None
            }
            Role::Appliance | Role::FenceClient | Role::Observer | Role::Authority => {
                bail!("certificates of the role {} are not renewed this way", from.role)
            }
        };
        drop(state);
        let now = self.now(member);
        let subject = Subject { peer: from.clone(), raft_id };
        Ok(self.ca.sign(csr, &subject, now, LEAF_VALIDITY)?.to_vec())
    }
}

/// Proposes, and waits for a leader where there is none just now: a new cluster needs a moment, and so does a restart.
/// Proposing twice is harmless, because the same member under the same key is added once.
async fn propose(member: &MemberHandle, command: Command) -> Reply {
    let until = tokio::time::Instant::now() + LEADER_WITHIN;
    loop {
        let reply = member.ask(Request::Propose(command.clone())).await;
        if !matches!(reply, Reply::NoLeader { .. }) || tokio::time::Instant::now() >= until {
            return reply;
        }
        tokio::time::sleep(LEADER_AGAIN).await;
    }
}

/// A shared gate.
pub type SharedGate = Arc<Gate>;

fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done { .. } => Ok(()),
        Reply::Void { why } => bail!("{why}"),
        Reply::Refused { why } | Reply::NoLeader { why } => bail!("{why}"),
        Reply::Status(_)
        | Reply::Log { .. }
        | Reply::Why { .. }
        | Reply::Journal { .. }
        | Reply::NotYet { .. }
        | Reply::NotHeard { .. }
        | Reply::Drain(_)
        | Reply::State { .. }
        | Reply::ReadIndex { .. }
        | Reply::Certificate { .. } => bail!("the cluster answered something else than was asked"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tiebreaker_member::TimeFloor;

    use super::*;

    #[test]
    fn an_appliance_whose_clock_stands_at_1970_signs_by_the_time_of_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::new(Ca::new_in_memory().unwrap(), TokenBook::open(dir.path()).unwrap());
        let subject = Subject::from_uri("tiebreaker://home/appliance/pi").unwrap();
        let newest = 1_900_000_000;
        let time = TrustedTime::new(Arc::new(|| 7), TimeFloor::new(newest));
        let own = gate.issue_own(&subject, &time).unwrap();
        assert_eq!(own.cert().not_before, newest);
        assert!(!own.renewal_due(newest), "it needs no other at once");
    }
}
