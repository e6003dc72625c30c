//! Keeping a path to one peer: connect, run, pause, connect again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::dial::{Greeter, Secured, dial_tls, greet, tls_over};
use super::error::LinkError;
use super::incoming::Via;
use super::shared::Shared;
use super::table::{MemberEntry, PeerTable};
use super::timing::{BACKOFF, HANDSHAKE};
use super::tls::client_config;
use crate::identity::{Expected, MemberName, PeerCert, PeerId, Role};
use crate::wire::{Framed, Purpose};

/// A connection that lasted so long was a good one: the next try after it comes soon.
const GOOD: Duration = Duration::from_secs(2);

/// Who should call gets so long, or at least half of it, before it is called instead; and again before each further try.
const STAND_IN_AFTER: Duration = Duration::from_secs(2);

/// Whether `me` dials `peer`, and not the other way round: the appliance sorts first, so it is dialed by all.
pub(super) fn dials(me: &PeerId, peer: &MemberName, role: Role) -> bool {
    (me.role, &me.name) > (role, peer)
}

struct Opened {
    framed: Framed,
    cert: PeerCert,
    relay: Option<MemberName>,
}

/// Keeps one path to `peer` for as long as it is a member. It ends when dropped.
pub(super) async fn keep(shared: Arc<Shared>, peer: MemberName, via: Via) {
    let mut peers = shared.peers.clone();
    let mut pause = BACKOFF.0;
    let mut turn = 0_usize;
    loop {
        let table = Arc::clone(&peers.borrow_and_update());
        let Some(entry) = table.members.get(&peer) else { return };
        let opened = match via {
            Via::Direct => open_direct(&shared, &table, &peer, entry).await,
            Via::Relayed => open_relayed(&shared, &table, &peer, entry, turn).await,
        };
        match opened {
            Ok(Opened { framed, cert, relay }) => {
                let began = Instant::now();
                shared.run_member(framed, &cert, table.epoch, via, relay).await;
                if began.elapsed() >= GOOD {
                    (pause, turn) = (BACKOFF.0, 0);
                } else {
                    turn += 1;
                }
            }
            Err(error) => {
                shared.board.failed(&peer, via, error.to_string());
                turn += 1;
            }
        }
        tokio::select! {
            () = sleep(jittered(pause)) => {}
            () = moved(&mut peers, &table, &peer) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Calls a member that should be the one to call, for as long as it never did: it may not have heard yet that this one
/// joined, and so not know where it is. Ends when dropped.
pub(super) async fn stand_in(shared: Arc<Shared>, peer: MemberName) {
    loop {
        sleep(jittered(STAND_IN_AFTER)).await;
        let table = shared.table();
        let Some(entry) = table.members.get(&peer) else { return };
        if !shared.board.needs_a_call(&peer) {
            continue;
        }
        match open_direct(&shared, &table, &peer, entry).await {
            Ok(Opened { framed, cert, relay }) => {
                shared.run_member(framed, &cert, table.epoch, Via::Direct, relay).await;
            }
            Err(error) => shared.board.failed(&peer, Via::Direct, error.to_string()),
        }
    }
}

/// Waits until the table says something new about `peer`: then there is no point in waiting longer.
async fn moved(peers: &mut watch::Receiver<Arc<PeerTable>>, known: &PeerTable, peer: &MemberName) {
    let news =
        |table: &Arc<PeerTable>| table.epoch != known.epoch || table.members.get(peer) != known.members.get(peer);
    if peers.wait_for(news).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Half to all of `pause`, so that members that lost each other at once don't all come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the pause is merely regular.
    if getrandom::fill(&mut byte).is_err() {
        return pause;
    }
    pause / 2 + pause * u32::from(byte[0]) / 512
}

fn greeter(shared: &Shared, role: Role, name: &MemberName) -> Greeter {
    let expected = Expected::Member(role, name.clone());
    Greeter { config: client_config(&shared.identity(), shared.judge(), expected), cluster: shared.me.cluster.clone() }
}

async fn open_direct(
    shared: &Shared,
    table: &PeerTable,
    peer: &MemberName,
    entry: &MemberEntry,
) -> Result<Opened, LinkError> {
    let deadline = Instant::now() + HANDSHAKE;
    let greeter = greeter(shared, entry.role, peer);
    let who = format!("{} '{peer}'", entry.role);
    let secured = dial_tls(&who, &entry.addresses, shared.config.source, &greeter, deadline).await?;
    become_member(shared, table, secured, None, deadline).await
}

async fn open_relayed(
    shared: &Shared,
    table: &PeerTable,
    peer: &MemberName,
    entry: &MemberEntry,
    turn: usize,
) -> Result<Opened, LinkError> {
    let relays = candidates(shared, table, peer);
    if relays.is_empty() {
        return Err(LinkError::NoRelay(peer.clone()));
    }
    let (relay, relay_entry) = relays[turn % relays.len()];
    let deadline = Instant::now() + HANDSHAKE * 2;
    let who = format!("{} '{relay}'", relay_entry.role);
    let outer = dial_tls(
        &who,
        &relay_entry.addresses,
        shared.config.source,
        &greeter(shared, relay_entry.role, relay),
        deadline,
    )
    .await?;
    let at = format!("'{peer}' through '{relay}' ({})", outer.at);
    let spliced =
        within(deadline, "relaying", greet(&outer.at, outer.stream, Purpose::Relay { to: peer.clone() })).await?;
    let Some(stream) = spliced.into_stream() else {
        return Err(LinkError::NotTiebreaker { at: outer.at });
    };
    let inner = tls_over(greeter(shared, entry.role, peer), at, stream);
    let secured = within(deadline, "the TLS handshake through the relay", inner).await?;
    become_member(shared, table, secured, Some(relay.clone()), deadline).await
}

/// Who could relay, the likeliest first: whom we reach, the appliance before nodes.
fn candidates<'a>(shared: &Shared, table: &'a PeerTable, peer: &MemberName) -> Vec<(&'a MemberName, &'a MemberEntry)> {
    let mut relays: Vec<_> =
        table.members.iter().filter(|(name, _)| *name != peer && **name != shared.me.name).collect();
    relays.sort_by_key(|(name, entry)| (!shared.board.is_fresh(name), entry.role));
    relays
}

async fn become_member(
    shared: &Shared,
    table: &PeerTable,
    secured: Secured,
    relay: Option<MemberName>,
    deadline: Instant,
) -> Result<Opened, LinkError> {
    let Secured { at, stream, leaf } = secured;
    let cert =
        shared.judge().ca.read_leaf(&leaf).map_err(|fault| LinkError::PeerCertificate { at: at.clone(), fault })?;
    let purpose = Purpose::Member { epoch: table.epoch };
    let greeted = within(deadline, "the greeting", greet(&at, stream, purpose)).await;
    if let Err(LinkError::OtherEpoch { epoch, .. }) = &greeted
        && *epoch > table.epoch
    {
        shared.tell_newer(&cert, *epoch);
    }
    Ok(Opened { framed: greeted?, cert, relay })
}

async fn within<T>(
    deadline: Instant,
    what: &'static str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let began = Instant::now();
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::TimedOut { what, after: began.elapsed() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_pair_one_dials_and_nobody_waits_for_the_appliance_to_call() {
        let id = |role, name: &str| PeerId { cluster: "c".parse().unwrap(), role, name: name.parse().unwrap() };
        let all = [id(Role::Appliance, "zz"), id(Role::Node, "a"), id(Role::Node, "b")];
        for one in &all {
            for two in &all {
                let (forth, back) = (dials(one, &two.name, two.role), dials(two, &one.name, one.role));
                assert_eq!(forth ^ back, one != two);
            }
        }
        assert!(dials(&all[1], &all[0].name, Role::Appliance));
    }
}
