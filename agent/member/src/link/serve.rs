//! What is done for those who come in.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::acceptor::{Admitted, linger, refuse_with};
use super::dial::dial_tcp;
use super::incoming::{Incoming, JoinReply, JoinRequest, Requester, Via};
use super::relay::{PREFACE, splice};
use super::request::{answer_join, serve_client};
use super::shared::{Shared, Standing, objection};
use super::timing::{HANDSHAKE, JOIN_ANSWER, JOIN_SEND, RELAY_IDLE};
use crate::identity::{MemberName, PeerCert, Role, TokenSecret};
use crate::wire::{Frame, Framed, Purpose, RefuseCode, StreamError};

/// A refusal and its words.
struct No(RefuseCode, String, Option<u64>);

impl No {
    fn new(code: RefuseCode, text: impl Into<String>) -> Self {
        Self(code, text.into(), None)
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve(shared: Arc<Shared>, admitted: Admitted) {
    let Admitted { mut framed, cert, purpose, version, relayed, from } = admitted;
    let result = match purpose {
        Purpose::Member { epoch } => match check_member(&shared, cert, epoch) {
            Ok(cert) => {
                let via = if relayed { Via::Relayed } else { Via::Direct };
                if welcome(&mut framed, version).await.is_ok() {
                    shared.board.called(&cert.subject.peer.name);
                    shared.run_member(framed, &cert, epoch, via, None).await;
                }
                return;
            }
            Err(no) => Err(no),
        },
        Purpose::Request => match check_client(&shared, cert) {
            Ok((cert, _place)) => {
                if welcome(&mut framed, version).await.is_ok() {
                    let requester = Requester::Certified(cert.subject.peer.clone());
                    tokio::select! {
                        () = serve_client(framed, requester, &shared.inbox) => {}
                        why = shared.revoked(&cert, Standing::Certified) => {
                            tracing::info!(peer = %cert.subject.peer, why, "client cut off");
                        }
                    }
                }
                return;
            }
            Err(no) => Err(no),
        },
        Purpose::Relay { to } => relay(&shared, &mut framed, cert, &to, relayed, version).await,
        Purpose::Join => match shared.joins.try_acquire() {
            _ if shared.me.role != Role::Appliance => {
                let text = "this is a node; joining is done at the appliance: use its address";
                Err(No::new(RefuseCode::NotAppliance, text))
            }
            Ok(_place) => {
                if welcome(&mut framed, version).await.is_ok() {
                    join(&shared, framed, from).await;
                }
                return;
            }
            Err(_) => Err(No::new(RefuseCode::Busy, "too many machines join at once: try again in a minute")),
        },
    };
    match result {
        Err(No(code, text, epoch)) => {
            tracing::debug!(%from, ?code, text, "refused");
            refuse_with(framed, Frame::Refuse { code, text, epoch }).await;
        }
        Ok(splice) => {
            if let Some(to) = framed.into_stream() {
                splice.run(&shared, to).await;
            }
        }
    }
}

async fn welcome(framed: &mut Framed, version: u16) -> Result<(), StreamError> {
    match timeout(HANDSHAKE, framed.write(&Frame::Welcome { version })).await {
        Ok(written) => written,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

fn certified(cert: Option<PeerCert>) -> Result<PeerCert, No> {
    cert.ok_or_else(|| No::new(RefuseCode::NoCertificate, "this needs a certificate: join the cluster first"))
}

fn check_member(shared: &Shared, cert: Option<PeerCert>, epoch: u64) -> Result<PeerCert, No> {
    let cert = certified(cert)?;
    let peer = &cert.subject.peer;
    if !peer.role.is_member() {
        return Err(No::new(RefuseCode::Role, format!("a certificate of role '{}' is no member's", peer.role)));
    }
    if peer.name == shared.me.name {
        let text = "it bears this very name: was this machine's disk cloned? let the copy join under a name of its own";
        return Err(No::new(RefuseCode::NotAMember, text));
    }
    let table = shared.table();
    if epoch != table.epoch {
        if epoch > table.epoch {
            shared.tell_newer(&cert, epoch);
        }
        let text = format!(
            "the cluster's epoch is {} here and {epoch} there: an operator took the cluster over with a lone member, \
             and gave up all others; the side with the lower number must be wiped and join again",
            table.epoch
        );
        return Err(No(RefuseCode::Epoch, text, Some(table.epoch)));
    }
    match objection(&table, &cert, Standing::Member { epoch }) {
        Some(why) => Err(No::new(RefuseCode::NotAMember, format!("'{}' is not let in: {why}", peer.name))),
        None => Ok(cert),
    }
}

type ClientPlace = tokio::sync::OwnedSemaphorePermit;

fn check_client(shared: &Shared, cert: Option<PeerCert>) -> Result<(PeerCert, ClientPlace), No> {
    let cert = certified(cert)?;
    if let Some(why) = objection(&shared.table(), &cert, Standing::Certified) {
        return Err(No::new(RefuseCode::NotAMember, format!("'{}' is not let in: {why}", cert.subject.peer.name)));
    }
    let place = Arc::clone(&shared.requests)
        .try_acquire_owned()
        .map_err(|_| No::new(RefuseCode::Busy, "too many clients are connected: close some, or try again"))?;
    Ok((cert, place))
}

/// A splice that is set up.
struct Splice {
    source: PeerCert,
    epoch: u64,
    to: MemberName,
    target: tokio::net::TcpStream,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Splice {
    async fn run(self, shared: &Shared, source: crate::wire::BoxStream) {
        tokio::select! {
            () = splice(source, self.target, RELAY_IDLE) => {}
            why = shared.revoked(&self.source, Standing::Member { epoch: self.epoch }) => {
                tracing::info!(peer = %self.source.subject.peer, why, "relaying ended");
            }
            () = gone(shared, &self.to) => {
                tracing::info!(to = %self.to, "relaying ended: the target is no member any more");
            }
        }
    }
}

/// Waits until `name` is no member any more.
async fn gone(shared: &Shared, name: &MemberName) {
    let mut peers = shared.peers.clone();
    while peers.borrow_and_update().members.contains_key(name) {
        if peers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn relay(
    shared: &Shared,
    framed: &mut Framed,
    cert: Option<PeerCert>,
    to: &MemberName,
    relayed: bool,
    version: u16,
) -> Result<Splice, No> {
    if relayed {
        return Err(No::new(RefuseCode::RelayOfRelay, "what was relayed once is not relayed again"));
    }
    let table = shared.table();
    let source = check_member(shared, cert, table.epoch)?;
    let target = match table.members.get(to) {
        Some(entry) if *to != shared.me.name && *to != source.subject.peer.name => entry,
        Some(_) | None => return Err(No::new(RefuseCode::NoSuchMember, format!("it knows no way to a member '{to}'"))),
    };
    let place = Arc::clone(&shared.relays)
        .try_acquire_owned()
        .map_err(|_| No::new(RefuseCode::Busy, "it relays too many connections already"))?;
    let deadline = Instant::now() + HANDSHAKE;
    let unreachable = |error: &dyn std::fmt::Display| No::new(RefuseCode::Unreachable, error.to_string());
    let mut stream = dial_tcp(&format!("'{to}'"), &target.addresses, shared.config.source, deadline)
        .await
        .map_err(|error| unreachable(&error))?;
    stream.write_all(PREFACE).await.map_err(|error| unreachable(&error))?;
    welcome(framed, version).await.map_err(|error| unreachable(&error))?;
    Ok(Splice { source, epoch: table.epoch, to: to.clone(), target: stream, _place: place })
}

async fn join(shared: &Shared, mut framed: Framed, from: std::net::SocketAddr) {
    let asked = match timeout(JOIN_SEND, framed.next()).await {
        Ok(Ok(Some(Frame::Join(asked)))) => asked,
        Ok(Ok(_) | Err(_)) => return,
        Err(_) => {
            tracing::debug!(%from, "joiner dropped: it sent nothing");
            return;
        }
    };
    let (reply, answer) = JoinReply::channel();
    let answer = match TokenSecret::from_slice(&asked.secret) {
        None => Err("the token's secret has the wrong length: use the same version on both machines".to_owned()),
        Some(secret) => {
            let request = JoinRequest {
                name: asked.name.clone(),
                secret,
                csr: asked.csr.clone(),
                clock: asked.clock,
                info: asked.info.clone(),
            };
            if !shared.inbox.offer(Incoming::Join { from, request, reply }) {
                Err("the appliance is overloaded: try again".to_owned())
            } else {
                match timeout(JOIN_ANSWER, answer).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(_)) => Err("the appliance gave no answer: look at its log".to_owned()),
                    Err(_) => Err("the cluster took too long: it may have no majority now; try again".to_owned()),
                }
            }
        }
    };
    if answer_join(&mut framed, answer).await.is_ok() {
        linger(framed.into_parts().0).await;
    }
}
