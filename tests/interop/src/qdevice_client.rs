//! A client of a QDevice server that speaks as the stock one does, for load and measurements.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use tiebreaker_qnetd::wire::{
    Algorithm, Fields, ListKind, Message, MessageKind, NodeId, NodeInfo, Opt, RingId, SUPPORTED_OPTIONS, TieBreaker,
    Vote,
};

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A client.
#[derive(Debug)]
pub struct QdeviceClient {
    stream: Stream,
    seq: u32,
    node: u32,
    hurried: bool,
}

impl QdeviceClient {
    /// Connects from an address of loopback: servers bound how many come from one.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn connect(server: SocketAddr, from: Ipv4Addr) -> Result<Self> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::from((from, 0)))?;
        loop {
            match connect(&socket, &server) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).with_context(|| format!("connecting from {from}")),
            }
        }
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        Ok(Self { stream: Stream::Plain(stream), seq: 0, node: 0, hurried: false })
    }

    /// Names its cluster.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn name(&mut self, cluster: &str) -> Result<()> {
        let (kind, _) = self.ask(MessageKind::Preinit, vec![Opt::ClusterName(cluster.into())])?;
        ensure!(kind == MessageKind::PreinitReply, "cluster {cluster}: {kind:?}");
        Ok(())
    }

    /// Begins TLS.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn secure(self, tls: &Arc<ClientConfig>) -> Result<Self> {
        let Self { stream, mut seq, node, hurried } = self;
        let Stream::Plain(mut stream) = stream else { bail!("it is secure already") };
        seq += 1;
        stream.write_all(&Message::new(MessageKind::StartTls, vec![Opt::Seq(seq)]).encode())?;
        let name = ServerName::IpAddress(IpAddr::from(Ipv4Addr::LOCALHOST).into());
        let mut connection = ClientConnection::new(Arc::clone(tls), name)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).context("the TLS handshake")?;
        }
        Ok(Self { stream: Stream::Tls(Box::new(StreamOwned::new(connection, stream))), seq, node, hurried })
    }

    /// Joins the cluster.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn join(&mut self, node: u32, algorithm: Algorithm) -> Result<()> {
        self.join_with(node, algorithm, 120_000)
    }

    /// Joins with another time between its echoes: the original's lms waits for a quarter of it.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn join_with(&mut self, node: u32, algorithm: Algorithm, heartbeat_ms: u32) -> Result<()> {
        self.node = node;
        let options = vec![
            Opt::SupportedMessages(MessageKind::ALL.iter().map(|kind| kind.number()).collect()),
            Opt::SupportedOptions(SUPPORTED_OPTIONS.collect()),
            Opt::NodeId(NodeId(node)),
            Opt::DecisionAlgorithm(algorithm.number()),
            Opt::HeartbeatInterval(heartbeat_ms),
            Opt::TieBreaker(TieBreaker::Lowest),
            Opt::RingId(RingId { node: NodeId(node), seq: 1 }),
        ];
        let (kind, reply) = self.ask(MessageKind::Init, options)?;
        ensure!(kind == MessageKind::InitReply && reply.error_code == Some(0), "node {node}: {kind:?} {reply:?}");
        Ok(())
    }

    /// Tells which nodes are configured.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn configure(&mut self, nodes: &[u32]) -> Result<()> {
        let mut options = vec![Opt::NodeListType(ListKind::InitialConfig), Opt::ConfigVersion(1)];
        options.extend(nodes.iter().map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(*node)))));
        self.send(MessageKind::NodeList, options)?;
        while self.hear()?.0 != MessageKind::NodeListReply {}
        Ok(())
    }

    /// Tells which nodes it sees, without waiting for an answer. Gives the message's number.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn sees(&mut self, ring: RingId, nodes: &[u32]) -> Result<u32> {
        let mut options = vec![Opt::NodeListType(ListKind::Membership), Opt::RingId(ring)];
        options.extend(nodes.iter().map(|node| Opt::NodeInfo(NodeInfo::new(NodeId(*node)))));
        self.send(MessageKind::NodeList, options)
    }

    /// Waits for the answer to a list and for a vote of that ring, either way.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn voted(&mut self, asked: u32, ring: RingId) -> Result<Vote> {
        let (mut replied, mut vote) = (false, None);
        loop {
            let (kind, fields) = self.hear()?;
            replied |= kind == MessageKind::NodeListReply && fields.seq == Some(asked);
            if let Some(said @ (Vote::Ack | Vote::Nack)) = fields.vote
                && fields.ring == Some(ring)
            {
                vote = Some(said);
            }
            if let Some(vote) = vote.filter(|_| replied) {
                return Ok(vote);
            }
        }
    }

    /// The next message; votes are confirmed.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn hear(&mut self) -> Result<(MessageKind, Fields)> {
        let mut head = [0; 6];
        self.read(&mut head)?;
        let [k0, k1, l0, l1, l2, l3] = head;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes([l0, l1, l2, l3]))?];
        self.read(&mut body)?;
        let kind = MessageKind::from_number(u16::from_be_bytes([k0, k1])).context("a known message")?;
        let fields = Fields::read(&body)?;
        ensure!(kind != MessageKind::ServerError, "the server says {:?}", fields.error_code);
        if kind == MessageKind::VoteInfo {
            let seq = fields.seq.context("a vote has a number")?;
            self.write(&Message::new(MessageKind::VoteInfoReply, vec![Opt::Seq(seq)]).encode())?;
        }
        Ok((kind, fields))
    }

    /// Acknowledges what comes at once, or as the system does by itself. The original leaves Nagle's algorithm on and waits
    /// for acknowledgements: who only wants to be done with joining is hurried.
    pub fn hurry(&mut self, hurried: bool) {
        self.hurried = hurried;
    }

    /// An echo and its answer.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn echo(&mut self) -> Result<()> {
        let (kind, _) = self.ask(MessageKind::EchoRequest, vec![])?;
        ensure!(kind == MessageKind::EchoReply, "{kind:?} in answer to an echo");
        Ok(())
    }

    /// The bare socket of a plain client.
    ///
    /// # Errors
    /// The server refuses it or is gone.
    pub fn into_socket(self) -> Result<TcpStream> {
        match self.stream {
            Stream::Plain(stream) => Ok(stream),
            Stream::Tls(_) => bail!("it speaks TLS"),
        }
    }

    fn ask(&mut self, kind: MessageKind, options: Vec<Opt>) -> Result<(MessageKind, Fields)> {
        self.send(kind, options)?;
        self.hear()
    }

    fn send(&mut self, kind: MessageKind, mut options: Vec<Opt>) -> Result<u32> {
        self.seq += 1;
        options.push(Opt::Seq(self.seq));
        self.write(&Message::new(kind, options).encode())?;
        Ok(self.seq)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        if let (true, Stream::Plain(stream)) = (self.hurried, &self.stream) {
            sockopt::set_tcp_quickack(stream, true)?;
        }
        match &mut self.stream {
            Stream::Plain(stream) => stream.read_exact(bytes),
            Stream::Tls(stream) => stream.read_exact(bytes),
        }
        .with_context(|| format!("node {} hears nothing", self.node))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
        .with_context(|| format!("node {} can't write", self.node))
    }
}
