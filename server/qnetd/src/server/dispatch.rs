//! One message of one client: who may send it when, and the answer.

use std::time::{Duration, Instant};

use super::{Action, Server};
use crate::{
    cluster::{Cluster, Member},
    config::TlsMode,
    id::{ClientId, ClusterName},
    notice::{CloseReason, Notice},
    session::{SIGN_OF_LIFE, Stage, Tls, init_reply, introduction},
    timers::Timer,
    wire::{
        ErrorCode, Fields, Frame, Heuristics, ListKind, MAX_MESSAGE, Message, MessageKind, NodeId, Opt, RingId,
        Skipped, Vote,
    },
};

const MAX_MESSAGE_U32: u32 = 32_768;
const _: () = assert!(MAX_MESSAGE == MAX_MESSAGE_U32 as usize);

impl Server {
    pub(super) fn skipped(&mut self, client: ClientId, skipped: Skipped) {
        let code = match skipped {
            Skipped::UnknownKind(_) => ErrorCode::UnsupportedMessage,
            Skipped::TooLong(_) => ErrorCode::MessageTooLong,
        };
        self.error(client, None, code);
    }

    pub(super) fn frame(&mut self, now: Instant, client: ClientId, frame: &Frame) {
        let fields = match Fields::read(&frame.body) {
            Ok(fields) => fields,
            Err(malformed) => return self.error(client, malformed.seq, ErrorCode::Decoding),
        };
        let seq = fields.seq;
        match frame.kind {
            MessageKind::Preinit => self.preinit(client, &fields),
            MessageKind::StartTls => self.start_tls(client, seq),
            MessageKind::Init => self.init(now, client, &fields),
            MessageKind::SetOption => self.set_option(now, client, &fields),
            MessageKind::EchoRequest => {
                if self.joined(client, seq).is_some() {
                    self.send(client, frame.echo_reply());
                }
            }
            MessageKind::NodeList => self.node_list(now, client, &fields),
            MessageKind::AskForVote => self.ask_for_vote(now, client, seq),
            MessageKind::VoteInfoReply => self.vote_info_reply(now, client, seq),
            MessageKind::HeuristicsChange => self.heuristics_change(now, client, &fields),
            MessageKind::PreinitReply
            | MessageKind::InitReply
            | MessageKind::ServerError
            | MessageKind::SetOptionReply
            | MessageKind::EchoReply
            | MessageKind::NodeListReply
            | MessageKind::AskForVoteReply
            | MessageKind::VoteInfo
            | MessageKind::HeuristicsChangeReply => self.error(client, seq, ErrorCode::UnexpectedMessage),
        }
    }

    fn preinit(&mut self, client: ClientId, fields: &Fields) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let Some(name) = &fields.cluster_name else { return self.error(client, fields.seq, ErrorCode::MissingOption) };
        if session.stage != Stage::New {
            return self.doom(client, CloseReason::SecondIntroduction);
        }
        let cluster = ClusterName::new(name);
        // One copy of a name serves all of its clients.
        let cluster = self.clusters.get_key_value(&cluster).map_or(cluster, |(known, _)| known.clone());
        let Some(mode) = self.config.clusters.mode(&cluster) else {
            return self.doom(client, CloseReason::UnknownCluster(cluster));
        };
        session.stage = Stage::Named { cluster, mode };
        let mut options: Vec<Opt> = fields.seq.map(Opt::Seq).into_iter().collect();
        options.push(Opt::TlsSupported(mode.advertised()));
        options.push(Opt::TlsClientCertRequired(u8::from(self.config.certificate_needed())));
        self.answer(client, MessageKind::PreinitReply, options);
    }

    fn start_tls(&mut self, client: ClientId, seq: Option<u32>) {
        let Some(session) = self.sessions.get_mut(&client) else { return };
        match (&session.stage, session.tls) {
            (Stage::New, _) => self.error(client, seq, ErrorCode::PreinitRequired),
            (Stage::Named { mode: TlsMode::Off, .. } | Stage::Joined { mode: TlsMode::Off, .. }, _) => {
                self.doom(client, CloseReason::NoTlsHere);
            }
            (Stage::Named { .. }, Tls::Plain) => {
                session.tls = Tls::Starting;
                let rest = session.inbox.rest();
                self.actions.push_back(Action::StartTls { client, rest });
            }
            // Inside of TLS, or by a member: no stock client does it, and the identity is bound to the connection.
            (Stage::Named { .. } | Stage::Joined { .. }, _) => self.doom(client, CloseReason::SecondIntroduction),
        }
    }

    fn init(&mut self, now: Instant, client: ClientId, fields: &Fields) {
        if !self.served(client, fields.seq) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&client) else { return };
        let named = match &session.stage {
            Stage::New => None,
            Stage::Named { cluster, mode } => Some((cluster.clone(), *mode)),
            Stage::Joined { .. } => return self.doom(client, CloseReason::SecondIntroduction),
        };
        let (heartbeat, introduction) = introduction(named.is_some(), fields, &self.config);
        if let Some(heartbeat) = heartbeat {
            session.heartbeat = heartbeat;
        }
        let address = session.address;
        let joined = introduction.and_then(|who| {
            let (name, mode) = named.ok_or(ErrorCode::PreinitRequired)?;
            let (algorithm, tie_breaker) = (who.algorithm, who.tie_breaker);
            let cluster = self.clusters.entry(name.clone()).or_insert_with(|| {
                let holder = self.holders.get(&name);
                let former = || self.past.former(now, &name, holder.is_some()).map(Box::new);
                let unheard = self.unheard.remove(&name).or_else(former);
                Cluster::new(algorithm, tie_breaker, self.config.lms_as_original, holder.cloned(), unheard)
            });
            cluster.check(who.node, algorithm, tie_breaker)?;
            let keep = self.config.keep_active;
            let member = Member::new(client, address, session.heartbeat, who.ring, keep);
            cluster.join(who.node, member, self.past.since());
            session.stage = Stage::Joined { cluster: name.clone(), mode, node: who.node };
            Ok((name, who.node))
        });
        self.restart_dead(now, client);
        let code = joined.as_ref().err().copied().unwrap_or(ErrorCode::None);
        self.answer(client, MessageKind::InitReply, init_reply(fields, code, MAX_MESSAGE_U32));
        match joined {
            Ok((cluster, node)) => {
                self.no_stranger(address.ip());
                self.timers.cancel(client, Timer::Join);
                self.actions.push_back(Action::Tell(Notice::Joined { cluster, node, address }));
            }
            Err(code) => self.actions.push_back(Action::Tell(Notice::Refused { address, code })),
        }
    }

    fn set_option(&mut self, now: Instant, client: ClientId, fields: &Fields) {
        let Some((name, node)) = self.joined(client, fields.seq) else { return };
        let heartbeat = fields.heartbeat_ms.map(|ms| Duration::from_millis(ms.into()));
        if heartbeat
            .is_some_and(|heartbeat| !(self.config.heartbeat_min..=self.config.heartbeat_max).contains(&heartbeat))
        {
            return self.error(client, fields.seq, ErrorCode::InvalidHeartbeat);
        }
        let Some(member) = self.clusters.get_mut(&name).and_then(|cluster| cluster.members.get_mut(&node)) else {
            return;
        };
        if let Some(heartbeat) = heartbeat {
            member.heartbeat = heartbeat;
        }
        if let Some(keep) = fields.keep_active {
            member.keep_active = keep;
        }
        if let (Some(heartbeat), Some(session)) = (heartbeat, self.sessions.get_mut(&client)) {
            session.heartbeat = heartbeat;
            self.restart_dead(now, client);
        }
        let mut options: Vec<Opt> = fields.seq.map(Opt::Seq).into_iter().collect();
        options.extend(fields.heartbeat_ms.map(Opt::HeartbeatInterval));
        options.extend(fields.keep_active.map(Opt::KeepActivePartition));
        self.answer(client, MessageKind::SetOptionReply, options);
    }

    fn node_list(&mut self, now: Instant, client: ClientId, fields: &Fields) {
        let Some((name, node)) = self.joined(client, fields.seq) else { return };
        let (Some(kind), Some(seq)) = (fields.list, fields.seq) else {
            return self.error(client, fields.seq, ErrorCode::MissingOption);
        };
        let lacks = match kind {
            ListKind::InitialConfig | ListKind::ChangedConfig => false,
            ListKind::Membership => fields.ring.is_none(),
            ListKind::Quorum => fields.quorate.is_none(),
        };
        if lacks {
            return self.error(client, fields.seq, ErrorCode::MissingOption);
        }
        self.decide(
            now,
            client,
            &name,
            node,
            seq,
            |cluster| cluster.list(now, node, kind, fields),
            |vote, ring| {
                let options = vec![Opt::Seq(seq), Opt::NodeListType(kind), Opt::RingId(ring), Opt::Vote(vote)];
                Message::new(MessageKind::NodeListReply, options)
            },
        );
    }

    fn ask_for_vote(&mut self, now: Instant, client: ClientId, seq: Option<u32>) {
        let Some((name, node)) = self.joined(client, seq) else { return };
        let Some(seq) = seq else { return self.error(client, None, ErrorCode::MissingOption) };
        self.decide(
            now,
            client,
            &name,
            node,
            seq,
            |cluster| cluster.ask(now, node),
            |vote, ring| {
                Message::new(MessageKind::AskForVoteReply, vec![Opt::Seq(seq), Opt::Vote(vote), Opt::RingId(ring)])
            },
        );
    }

    fn heuristics_change(&mut self, now: Instant, client: ClientId, fields: &Fields) {
        let Some((name, node)) = self.joined(client, fields.seq) else { return };
        let result = fields.heuristics;
        let Some(seq) = fields.seq.filter(|_| result != Heuristics::Undefined) else {
            return self.error(client, fields.seq, ErrorCode::MissingOption);
        };
        self.decide(
            now,
            client,
            &name,
            node,
            seq,
            |cluster| cluster.heuristics(now, node, result),
            |vote, ring| {
                let options = vec![Opt::Seq(seq), Opt::Vote(vote), Opt::RingId(ring), Opt::Heuristics(result)];
                Message::new(MessageKind::HeuristicsChangeReply, options)
            },
        );
    }

    /// Runs the algorithm; what it tells others goes out before the reply.
    #[allow(clippy::too_many_arguments, reason = "two closures over one message")]
    fn decide(
        &mut self,
        now: Instant,
        client: ClientId,
        name: &ClusterName,
        node: NodeId,
        seq: u32,
        run: impl FnOnce(&mut Cluster) -> Result<Vote, ErrorCode>,
        reply: impl FnOnce(Vote, RingId) -> Message,
    ) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let result = run(cluster);
        let ring = cluster.members.get(&node).map(|member| member.ring).unwrap_or_default();
        self.carry_out(now, name);
        match result {
            Ok(vote) => self.send(client, reply(vote, ring).encode()),
            Err(code) => self.error(client, Some(seq), code),
        }
    }

    fn vote_info_reply(&mut self, now: Instant, client: ClientId, seq: Option<u32>) {
        let Some((name, node)) = self.joined(client, seq) else { return };
        let Some(seq) = seq else { return self.error(client, None, ErrorCode::MissingOption) };
        // That it came is all that a sign of life says.
        let asked = self.sessions.get(&client).map_or(SIGN_OF_LIFE, |session| session.asked);
        if seq > SIGN_OF_LIFE && seq <= asked {
            return;
        }
        if let Some(cluster) = self.clusters.get_mut(&name) {
            cluster.confirmed(now, node, seq);
        }
        self.carry_out(now, &name);
    }

    /// The member that a client is; if it is none, it was told so.
    fn joined(&mut self, client: ClientId, seq: Option<u32>) -> Option<(ClusterName, NodeId)> {
        if !self.served(client, seq) {
            return None;
        }
        let member = self.sessions.get(&client).and_then(|session| session.member());
        if member.is_none() {
            self.error(client, seq, ErrorCode::InitRequired);
        }
        member
    }

    /// Whether the connection is secure enough; if not, the client was told so.
    fn served(&mut self, client: ClientId, seq: Option<u32>) -> bool {
        let secure = self.sessions.get(&client).is_some_and(|session| session.secure_enough(&self.config));
        if !secure {
            self.error(client, seq, ErrorCode::TlsRequired);
        }
        secure
    }

    fn error(&mut self, client: ClientId, seq: Option<u32>, code: ErrorCode) {
        let mut options: Vec<Opt> = seq.map(Opt::Seq).into_iter().collect();
        options.push(Opt::ReplyErrorCode(code.number()));
        self.answer(client, MessageKind::ServerError, options);
        if let Some(session) = self.sessions.get(&client) {
            let address = session.address;
            self.actions.push_back(Action::Tell(Notice::Refused { address, code }));
        }
    }

    fn answer(&mut self, client: ClientId, kind: MessageKind, options: Vec<Opt>) {
        self.send(client, Message::new(kind, options).encode());
    }
}
