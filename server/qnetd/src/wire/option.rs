//! Options: type, length, value, in any order.

use super::value::{Heuristics, ListKind, NodeId, NodeInfo, NodeState, RingId, TieBreaker, TlsSupport, Vote};

/// The numbers of all options that this server knows, as it advertises them.
pub const SUPPORTED_OPTIONS: std::ops::RangeInclusive<u16> = 0..=23;

/// An option of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opt {
    /// By this number a reply is known.
    Seq(u32),
    /// The cluster.
    ClusterName(Vec<u8>),
    /// What the server thinks of TLS.
    TlsSupported(TlsSupport),
    /// Whether it wants a certificate of the client's.
    TlsClientCertRequired(u8),
    /// Numbers of messages.
    SupportedMessages(Vec<u16>),
    /// Numbers of options.
    SupportedOptions(Vec<u16>),
    /// An [`ErrorCode`](super::ErrorCode)'s number.
    ReplyErrorCode(u16),
    /// The longest message that the server takes, header included.
    MaxRequestSize(u32),
    /// The longest message that the server sends, header included.
    MaxReplySize(u32),
    /// A node.
    NodeId(NodeId),
    /// Numbers of algorithms.
    SupportedAlgorithms(Vec<u16>),
    /// An [`Algorithm`](super::Algorithm)'s number.
    DecisionAlgorithm(u16),
    /// Milliseconds between two echoes.
    HeartbeatInterval(u32),
    /// A membership.
    RingId(RingId),
    /// The version of corosync.conf.
    ConfigVersion(u64),
    /// A data center, outside of a node's entry.
    DataCenterId(u32),
    /// A state, outside of a node's entry.
    NodeState(NodeState),
    /// An entry in a list of nodes.
    NodeInfo(NodeInfo),
    /// What the list is.
    NodeListType(ListKind),
    /// A vote.
    Vote(Vote),
    /// Whether the sender's partition has quorum.
    Quorate(bool),
    /// Who wins a tie.
    TieBreaker(TieBreaker),
    /// The result of the client's checks; [`Heuristics::Undefined`] is never on the wire.
    Heuristics(Heuristics),
    /// Whether a tie goes to the side that had the vote before.
    KeepActivePartition(bool),
}

/// Why bytes are no options.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// No option at all, or one that ends after the message.
    #[error("the options end in the middle of one")]
    Truncated,
    /// A value of the wrong length.
    #[error("option {option} can't have {length} bytes")]
    Length {
        /// The option's number.
        option: u16,
        /// Its length.
        length: usize,
    },
    /// A value that means nothing.
    #[error("option {option} has no value {value}")]
    Value {
        /// The option's number.
        option: u16,
        /// The value.
        value: u8,
    },
    /// An entry in a list without a node id.
    #[error("a node in a list has no node id")]
    NoNodeId,
}

/// The options in a message's body, one by one; those of unknown types are left out. After a fault nothing follows.
pub fn options(body: &[u8]) -> impl Iterator<Item = Result<Opt, Fault>> {
    let mut raw = Raw { rest: Some(body), begun: false };
    let mut broken = false;
    std::iter::from_fn(move || {
        loop {
            if broken {
                return None;
            }
            let item = raw.next()?.and_then(|(number, value)| read(number, value));
            match item {
                Ok(Some(option)) => return Some(Ok(option)),
                Ok(None) => {}
                Err(fault) => {
                    broken = true;
                    return Some(Err(fault));
                }
            }
        }
    })
}

/// Type and value, undecoded. An empty body is a fault, as for the original.
struct Raw<'b> {
    rest: Option<&'b [u8]>,
    begun: bool,
}

impl<'b> Iterator for Raw<'b> {
    type Item = Result<(u16, &'b [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        if rest.is_empty() && self.begun {
            return None;
        }
        self.begun = true;
        self.rest = None;
        let Some((head, rest)) = rest.split_first_chunk::<4>() else { return Some(Err(Fault::Truncated)) };
        let [t0, t1, l0, l1] = *head;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let Some((value, rest)) = rest.split_at_checked(length) else { return Some(Err(Fault::Truncated)) };
        self.rest = Some(rest);
        Some(Ok((u16::from_be_bytes([t0, t1]), value)))
    }
}

fn read(number: u16, value: &[u8]) -> Result<Option<Opt>, Fault> {
    let option = number;
    Ok(Some(match number {
        0 => Opt::Seq(u32::from_be_bytes(fixed(option, value)?)),
        1 => Opt::ClusterName(value.to_vec()),
        2 => Opt::TlsSupported(match byte(option, value)? {
            0 => TlsSupport::Unsupported,
            1 => TlsSupport::Supported,
            2 => TlsSupport::Required,
            value => return Err(Fault::Value { option, value }),
        }),
        3 => Opt::TlsClientCertRequired(byte(option, value)?),
        4 => Opt::SupportedMessages(numbers(option, value)?),
        5 => Opt::SupportedOptions(numbers(option, value)?),
        6 => Opt::ReplyErrorCode(u16::from_be_bytes(fixed(option, value)?)),
        7 => Opt::MaxRequestSize(u32::from_be_bytes(fixed(option, value)?)),
        8 => Opt::MaxReplySize(u32::from_be_bytes(fixed(option, value)?)),
        9 => Opt::NodeId(NodeId(u32::from_be_bytes(fixed(option, value)?))),
        10 => Opt::SupportedAlgorithms(numbers(option, value)?),
        11 => Opt::DecisionAlgorithm(u16::from_be_bytes(fixed(option, value)?)),
        12 => Opt::HeartbeatInterval(u32::from_be_bytes(fixed(option, value)?)),
        13 => {
            let [n0, n1, n2, n3, seq @ ..] = fixed::<12>(option, value)?;
            Opt::RingId(RingId { node: NodeId(u32::from_be_bytes([n0, n1, n2, n3])), seq: u64::from_be_bytes(seq) })
        }
        14 => Opt::ConfigVersion(u64::from_be_bytes(fixed(option, value)?)),
        15 => Opt::DataCenterId(u32::from_be_bytes(fixed(option, value)?)),
        16 => Opt::NodeState(node_state(option, value)?),
        17 => Opt::NodeInfo(node_info(value)?),
        18 => Opt::NodeListType(match byte(option, value)? {
            0 => ListKind::InitialConfig,
            1 => ListKind::ChangedConfig,
            2 => ListKind::Membership,
            3 => ListKind::Quorum,
            value => return Err(Fault::Value { option, value }),
        }),
        19 => Opt::Vote(match byte(option, value)? {
            1 => Vote::Ack,
            2 => Vote::Nack,
            3 => Vote::AskLater,
            4 => Vote::WaitForReply,
            5 => Vote::NoChange,
            value => return Err(Fault::Value { option, value }),
        }),
        20 => Opt::Quorate(flag(option, value)?),
        21 => {
            let [mode, node @ ..] = fixed::<5>(option, value)?;
            Opt::TieBreaker(match mode {
                1 => TieBreaker::Lowest,
                2 => TieBreaker::Highest,
                3 => TieBreaker::Node(NodeId(u32::from_be_bytes(node))),
                value => return Err(Fault::Value { option, value }),
            })
        }
        22 => Opt::Heuristics(match byte(option, value)? {
            1 => Heuristics::Pass,
            2 => Heuristics::Fail,
            value => return Err(Fault::Value { option, value }),
        }),
        23 => Opt::KeepActivePartition(flag(option, value)?),
        _ => return Ok(None),
    }))
}

fn fixed<const N: usize>(option: u16, value: &[u8]) -> Result<[u8; N], Fault> {
    value.try_into().map_err(|_| Fault::Length { option, length: value.len() })
}

fn byte(option: u16, value: &[u8]) -> Result<u8, Fault> {
    fixed::<1>(option, value).map(|[byte]| byte)
}

fn flag(option: u16, value: &[u8]) -> Result<bool, Fault> {
    match byte(option, value)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(Fault::Value { option, value }),
    }
}

fn numbers(option: u16, value: &[u8]) -> Result<Vec<u16>, Fault> {
    let (pairs, rest) = value.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::Length { option, length: value.len() });
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

fn node_state(option: u16, value: &[u8]) -> Result<NodeState, Fault> {
    match byte(option, value)? {
        1 => Ok(NodeState::Member),
        2 => Ok(NodeState::Dead),
        3 => Ok(NodeState::Leaving),
        value => Err(Fault::Value { option, value }),
    }
}

fn node_info(value: &[u8]) -> Result<NodeInfo, Fault> {
    let mut info = NodeInfo::new(NodeId(0));
    for nested in (Raw { rest: Some(value), begun: false }) {
        let (option, value) = nested?;
        match option {
            9 => info.node = NodeId(u32::from_be_bytes(fixed(option, value)?)),
            15 => {
                let number = u32::from_be_bytes(fixed(option, value)?);
                info.data_center = (number != 0).then_some(number);
            }
            16 => info.state = Some(node_state(option, value)?),
            _ => {}
        }
    }
    if info.node == NodeId(0) { Err(Fault::NoNodeId) } else { Ok(info) }
}

impl Opt {
    fn number(&self) -> u16 {
        match self {
            Self::Seq(_) => 0,
            Self::ClusterName(_) => 1,
            Self::TlsSupported(_) => 2,
            Self::TlsClientCertRequired(_) => 3,
            Self::SupportedMessages(_) => 4,
            Self::SupportedOptions(_) => 5,
            Self::ReplyErrorCode(_) => 6,
            Self::MaxRequestSize(_) => 7,
            Self::MaxReplySize(_) => 8,
            Self::NodeId(_) => 9,
            Self::SupportedAlgorithms(_) => 10,
            Self::DecisionAlgorithm(_) => 11,
            Self::HeartbeatInterval(_) => 12,
            Self::RingId(_) => 13,
            Self::ConfigVersion(_) => 14,
            Self::DataCenterId(_) => 15,
            Self::NodeState(_) => 16,
            Self::NodeInfo(_) => 17,
            Self::NodeListType(_) => 18,
            Self::Vote(_) => 19,
            Self::Quorate(_) => 20,
            Self::TieBreaker(_) => 21,
            Self::Heuristics(_) => 22,
            Self::KeepActivePartition(_) => 23,
        }
    }

    /// Appends the option. A value of more than 65535 bytes is cut off at that: nothing of this server's is so long.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.number().to_be_bytes());
        let length_at = out.len();
        out.extend([0; 2]);
        let value_at = out.len();
        match self {
            Self::Seq(n) | Self::MaxRequestSize(n) | Self::MaxReplySize(n) | Self::HeartbeatInterval(n) => {
                out.extend(n.to_be_bytes());
            }
            Self::DataCenterId(n) => out.extend(n.to_be_bytes()),
            Self::NodeId(node) => out.extend(node.0.to_be_bytes()),
            Self::ClusterName(name) => out.extend_from_slice(name),
            Self::TlsSupported(tls) => out.push(match tls {
                TlsSupport::Unsupported => 0,
                TlsSupport::Supported => 1,
                TlsSupport::Required => 2,
            }),
            Self::TlsClientCertRequired(byte) => out.push(*byte),
            Self::SupportedMessages(numbers) | Self::SupportedOptions(numbers) | Self::SupportedAlgorithms(numbers) => {
                out.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            }
            Self::ReplyErrorCode(number) | Self::DecisionAlgorithm(number) => out.extend(number.to_be_bytes()),
            Self::RingId(ring) => {
                out.extend(ring.node.0.to_be_bytes());
                out.extend(ring.seq.to_be_bytes());
            }
            Self::ConfigVersion(version) => out.extend(version.to_be_bytes()),
            Self::NodeState(state) => out.push(state_byte(*state)),
            Self::NodeInfo(info) => {
                Self::NodeId(info.node).write(out);
                if let Some(data_center) = info.data_center {
                    Self::DataCenterId(data_center).write(out);
                }
                if let Some(state) = info.state {
                    Self::NodeState(state).write(out);
                }
            }
            Self::NodeListType(kind) => out.push(match kind {
                ListKind::InitialConfig => 0,
                ListKind::ChangedConfig => 1,
                ListKind::Membership => 2,
                ListKind::Quorum => 3,
            }),
            Self::Vote(vote) => out.push(match vote {
                Vote::Ack => 1,
                Vote::Nack => 2,
                Vote::AskLater => 3,
                Vote::WaitForReply => 4,
                Vote::NoChange => 5,
            }),
            Self::Quorate(flag) | Self::KeepActivePartition(flag) => out.push(u8::from(*flag)),
            Self::TieBreaker(tie_breaker) => {
                let (mode, node) = match tie_breaker {
                    TieBreaker::Lowest => (1, NodeId(0)),
                    TieBreaker::Highest => (2, NodeId(0)),
                    TieBreaker::Node(node) => (3, *node),
                };
                out.push(mode);
                out.extend(node.0.to_be_bytes());
            }
            Self::Heuristics(result) => out.push(match result {
                Heuristics::Pass => 1,
                Heuristics::Fail => 2,
                Heuristics::Undefined => 0,
            }),
        }
        out.truncate(value_at + usize::from(u16::MAX));
        let length = u16::try_from(out.len() - value_at).expect("cut to fit above");
        if let Some(field) = out.get_mut(length_at..value_at) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

fn state_byte(state: NodeState) -> u8 {
    match state {
        NodeState::Member => 1,
        NodeState::Dead => 2,
        NodeState::Leaving => 3,
    }
}
