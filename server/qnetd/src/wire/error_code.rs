//! What the server tells a client that it won't serve.

/// The code in an INIT_REPLY or a SERVER_ERROR.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
#[repr(u16)]
pub enum ErrorCode {
    /// Nothing is wrong.
    #[error("no error")]
    None = 0,
    /// The client lacks a message that the server needs.
    #[error("a needed message is not supported")]
    UnsupportedNeededMessage = 1,
    /// The client lacks an option that the server needs.
    #[error("a needed option is not supported")]
    UnsupportedNeededOption = 2,
    /// This cluster is served under TLS alone.
    #[error("TLS is required")]
    TlsRequired = 3,
    /// There is no message of this number.
    #[error("unsupported message")]
    UnsupportedMessage = 4,
    /// The message is longer than the server takes.
    #[error("message too long")]
    MessageTooLong = 5,
    /// PREINIT comes first.
    #[error("preinit required")]
    PreinitRequired = 6,
    /// An option without which the message says nothing is missing.
    #[error("a required option is missing")]
    MissingOption = 7,
    /// Only servers send this message.
    #[error("unexpected message")]
    UnexpectedMessage = 8,
    /// The message can't be decoded.
    #[error("the message can't be decoded")]
    Decoding = 9,
    /// The server's own fault. This server never sends it: it closes the connection instead.
    #[error("internal error")]
    Internal = 10,
    /// INIT comes first.
    #[error("init required")]
    InitRequired = 11,
    /// There is no such algorithm, or not for so many nodes.
    #[error("unsupported decision algorithm")]
    UnsupportedAlgorithm = 12,
    /// The heartbeat interval is out of bounds.
    #[error("invalid heartbeat interval")]
    InvalidHeartbeat = 13,
    /// The algorithm knows no such message.
    #[error("message not supported by the algorithm")]
    UnsupportedByAlgorithm = 14,
    /// Other nodes of the cluster have another tie-breaker.
    #[error("tie-breaker differs from other nodes'")]
    TieBreakerDiffers = 15,
    /// Other nodes of the cluster have another algorithm.
    #[error("algorithm differs from other nodes'")]
    AlgorithmDiffers = 16,
    /// Another client is connected under this node id.
    #[error("duplicate node id")]
    DuplicateNodeId = 17,
    /// The configured nodes are none, or the sender isn't one.
    #[error("invalid config node list")]
    InvalidConfigList = 18,
    /// The members are none, or the sender isn't one.
    #[error("invalid membership node list")]
    InvalidMembershipList = 19,
}

impl ErrorCode {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::None,
        Self::UnsupportedNeededMessage,
        Self::UnsupportedNeededOption,
        Self::TlsRequired,
        Self::UnsupportedMessage,
        Self::MessageTooLong,
        Self::PreinitRequired,
        Self::MissingOption,
        Self::UnexpectedMessage,
        Self::Decoding,
        Self::Internal,
        Self::InitRequired,
        Self::UnsupportedAlgorithm,
        Self::InvalidHeartbeat,
        Self::UnsupportedByAlgorithm,
        Self::TieBreakerDiffers,
        Self::AlgorithmDiffers,
        Self::DuplicateNodeId,
        Self::InvalidConfigList,
        Self::InvalidMembershipList,
    ];

    /// The code with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}
