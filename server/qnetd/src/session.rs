//! One connection: what it has said of itself, and what it may say next.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    config::{Config, TlsMode},
    id::ClusterName,
    wire::{Algorithm, ErrorCode, Fields, Inbox, MessageKind, NodeId, Opt, RingId, SUPPORTED_OPTIONS, TieBreaker},
};

/// How far the connection's encryption is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tls {
    /// Plain text.
    Plain,
    /// STARTTLS has come; the shell shakes hands.
    Starting,
    /// It is up; whether the peer's certificate was checked against its cluster.
    Up { verified: bool },
}

/// How far the client has introduced itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// It has said nothing.
    New,
    /// It has named its cluster.
    Named { cluster: ClusterName, mode: TlsMode },
    /// It is a member.
    Joined { cluster: ClusterName, mode: TlsMode, node: NodeId },
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) address: SocketAddr,
    pub(crate) inbox: Inbox,
    pub(crate) stage: Stage,
    pub(crate) tls: Tls,
    pub(crate) heartbeat: Duration,
    /// When its last message came.
    pub(crate) heard: Instant,
    /// Messages under way to it.
    pub(crate) queued: usize,
    /// Whether messages wait in the inbox because too many answers do.
    pub(crate) paused: bool,
    /// The number of the last sign of life asked for.
    pub(crate) asked: u32,
}

impl Session {
    pub(crate) fn new(address: SocketAddr, config: &Config, now: Instant) -> Self {
        Self {
            address,
            inbox: Inbox::default(),
            stage: Stage::New,
            tls: Tls::Plain,
            heartbeat: config.heartbeat_max,
            heard: now,
            queued: 0,
            paused: false,
            asked: SIGN_OF_LIFE,
        }
    }

    pub(crate) fn mode(&self, config: &Config) -> TlsMode {
        match &self.stage {
            Stage::New => config.clusters.unnamed(),
            Stage::Named { mode, .. } | Stage::Joined { mode, .. } => *mode,
        }
    }

    /// Whether a message other than PREINIT and STARTTLS is served at all.
    pub(crate) fn secure_enough(&self, config: &Config) -> bool {
        match (self.mode(config), self.tls) {
            (TlsMode::Required, Tls::Plain | Tls::Starting) => false,
            (TlsMode::Required, Tls::Up { .. }) | (TlsMode::Optional | TlsMode::Off, _) => true,
        }
    }

    /// The member that it is.
    pub(crate) fn member(&self) -> Option<(ClusterName, NodeId)> {
        match &self.stage {
            Stage::New | Stage::Named { .. } => None,
            Stage::Joined { cluster, node, .. } => Some((cluster.clone(), *node)),
        }
    }
}

/// Questions for a sign of life are numbered from here, far from the numbers of votes.
pub(crate) const SIGN_OF_LIFE: u32 = 1 << 31;

/// What a good INIT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Introduction {
    pub(crate) node: NodeId,
    pub(crate) ring: RingId,
    pub(crate) algorithm: Algorithm,
    pub(crate) tie_breaker: TieBreaker,
}

/// Checks an INIT as the original does: of several faults a bad interval or algorithm is told rather than what is
/// missing before it.
pub(crate) fn introduction(
    named: bool,
    fields: &Fields,
    config: &Config,
) -> (Option<Duration>, Result<Introduction, ErrorCode>) {
    let mut fault = (!named).then_some(ErrorCode::PreinitRequired);
    let need = |there: bool, fault: Option<ErrorCode>| match fault {
        None if !there => Some(ErrorCode::MissingOption),
        Some(_) | None => fault,
    };
    fault = need(fields.node_id.is_some(), fault);
    fault = need(fields.ring.is_some(), fault);
    let heartbeat = Duration::from_millis(fields.heartbeat_ms.unwrap_or_default().into());
    let in_bounds = (config.heartbeat_min..=config.heartbeat_max).contains(&heartbeat);
    if fault.is_none() && fields.heartbeat_ms.is_none() {
        fault = Some(ErrorCode::MissingOption);
    } else if !in_bounds {
        fault = Some(ErrorCode::InvalidHeartbeat);
    }
    fault = need(fields.tie_breaker.is_some(), fault);
    let algorithm = Algorithm::from_number(fields.algorithm.unwrap_or_default());
    if fault.is_none() && fields.algorithm.is_none() {
        fault = Some(ErrorCode::MissingOption);
    } else if algorithm.is_none() {
        fault = Some(ErrorCode::UnsupportedAlgorithm);
    }
    let introduction = match (fault, fields.node_id, fields.ring, fields.tie_breaker, algorithm) {
        (None, Some(node), Some(ring), Some(tie_breaker), Some(algorithm)) => {
            Ok(Introduction { node, ring, algorithm, tie_breaker })
        }
        (fault, ..) => Err(fault.unwrap_or(ErrorCode::MissingOption)),
    };
    (in_bounds.then_some(heartbeat), introduction)
}

/// The answer to an INIT, good or bad, in the original's order.
pub(crate) fn init_reply(fields: &Fields, code: ErrorCode, max_message: u32) -> Vec<Opt> {
    let mut options = vec![Opt::ReplyErrorCode(code.number())];
    if fields.supported_messages.is_some() {
        options.push(Opt::SupportedMessages(MessageKind::ALL.iter().map(|kind| kind.number()).collect()));
    }
    if fields.supported_options.is_some() {
        options.push(Opt::SupportedOptions(SUPPORTED_OPTIONS.collect()));
    }
    options.extend(fields.seq.map(Opt::Seq));
    options.push(Opt::MaxRequestSize(max_message));
    options.push(Opt::MaxReplySize(max_message));
    options.push(Opt::SupportedAlgorithms(Algorithm::ALL.iter().map(|algorithm| algorithm.number()).collect()));
    options
}
