//! A message's options by name: of a repeated one the last counts, but nodes add up.

use super::option::{Fault, Opt, options};
use super::value::{Heuristics, ListKind, NodeId, NodeInfo, RingId, TieBreaker, TlsSupport, Vote};

/// What a message says, of any type.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    /// By this number a reply is known.
    pub seq: Option<u32>,
    /// The cluster.
    pub cluster_name: Option<Vec<u8>>,
    /// What the server thinks of TLS.
    pub tls_supported: Option<TlsSupport>,
    /// Whether it wants a certificate of the client's.
    pub tls_client_cert_required: Option<u8>,
    /// Numbers of messages.
    pub supported_messages: Option<Vec<u16>>,
    /// Numbers of options.
    pub supported_options: Option<Vec<u16>>,
    /// An error's number.
    pub error_code: Option<u16>,
    /// The longest request.
    pub max_request_size: Option<u32>,
    /// The longest reply.
    pub max_reply_size: Option<u32>,
    /// A node.
    pub node_id: Option<NodeId>,
    /// Numbers of algorithms.
    pub supported_algorithms: Option<Vec<u16>>,
    /// An algorithm's number.
    pub algorithm: Option<u16>,
    /// Milliseconds between two echoes.
    pub heartbeat_ms: Option<u32>,
    /// A membership.
    pub ring: Option<RingId>,
    /// The version of corosync.conf.
    pub config_version: Option<u64>,
    /// Nodes, in the order of the message.
    pub nodes: Vec<NodeInfo>,
    /// What the nodes are.
    pub list: Option<ListKind>,
    /// A vote.
    pub vote: Option<Vote>,
    /// Whether the sender's partition has quorum.
    pub quorate: Option<bool>,
    /// Who wins a tie.
    pub tie_breaker: Option<TieBreaker>,
    /// The result of the client's checks.
    pub heuristics: Heuristics,
    /// Whether a tie goes to the side that had the vote before.
    pub keep_active: Option<bool>,
}

/// Bytes that are no message's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: {fault}")]
pub struct Malformed {
    /// The number of the message, if it came before the fault.
    pub seq: Option<u32>,
    /// What is wrong.
    #[source]
    pub fault: Fault,
}

impl Fields {
    /// Reads a message's body.
    ///
    /// # Errors
    /// When an option is malformed, or there is none.
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for option in options(body) {
            match option {
                Ok(option) => fields.set(option),
                Err(fault) => return Err(Malformed { seq: fields.seq, fault }),
            }
        }
        Ok(fields)
    }

    fn set(&mut self, option: Opt) {
        match option {
            Opt::Seq(value) => self.seq = Some(value),
            Opt::ClusterName(value) => self.cluster_name = Some(value),
            Opt::TlsSupported(value) => self.tls_supported = Some(value),
            Opt::TlsClientCertRequired(value) => self.tls_client_cert_required = Some(value),
            Opt::SupportedMessages(value) => self.supported_messages = Some(value),
            Opt::SupportedOptions(value) => self.supported_options = Some(value),
            Opt::ReplyErrorCode(value) => self.error_code = Some(value),
            Opt::MaxRequestSize(value) => self.max_request_size = Some(value),
            Opt::MaxReplySize(value) => self.max_reply_size = Some(value),
            Opt::NodeId(value) => self.node_id = Some(value),
            Opt::SupportedAlgorithms(value) => self.supported_algorithms = Some(value),
            Opt::DecisionAlgorithm(value) => self.algorithm = Some(value),
            Opt::HeartbeatInterval(value) => self.heartbeat_ms = Some(value),
            Opt::RingId(value) => self.ring = Some(value),
            Opt::ConfigVersion(value) => self.config_version = Some(value),
            // Outside of a node's entry they say nothing.
            Opt::DataCenterId(_) | Opt::NodeState(_) => {}
            Opt::NodeInfo(value) => self.nodes.push(value),
            Opt::NodeListType(value) => self.list = Some(value),
            Opt::Vote(value) => self.vote = Some(value),
            Opt::Quorate(value) => self.quorate = Some(value),
            Opt::TieBreaker(value) => self.tie_breaker = Some(value),
            Opt::Heuristics(value) => self.heuristics = value,
            Opt::KeepActivePartition(value) => self.keep_active = Some(value),
        }
    }
}
