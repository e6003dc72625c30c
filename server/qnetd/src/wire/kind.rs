//! The messages' types.

/// The type of a message. What begins with a verb of the client's goes to the server, `*Reply`, `ServerError` and
/// `VoteInfo` go to the client; `VoteInfoReply` goes to the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u16)]
pub enum MessageKind {
    /// The client names its cluster.
    Preinit = 0,
    /// What the server thinks of TLS.
    PreinitReply = 1,
    /// TLS begins with the next byte.
    StartTls = 2,
    /// The client names itself, its algorithm and its timing.
    Init = 3,
    /// Welcome, or what is wrong.
    InitReply = 4,
    /// What is wrong; the stock client ends when it gets one.
    ServerError = 5,
    /// New heartbeat or tie-breaker setting.
    SetOption = 6,
    /// The settings now in force.
    SetOptionReply = 7,
    /// Are you there?
    EchoRequest = 8,
    /// Yes.
    EchoReply = 9,
    /// One of four lists of nodes.
    NodeList = 10,
    /// The vote that follows from it.
    NodeListReply = 11,
    /// The client wants its vote.
    AskForVote = 12,
    /// The vote.
    AskForVoteReply = 13,
    /// The server changes a vote by itself.
    VoteInfo = 14,
    /// The client has taken it.
    VoteInfoReply = 15,
    /// The client's periodic checks have another result.
    HeuristicsChange = 16,
    /// The vote that follows from it.
    HeuristicsChangeReply = 17,
}

impl MessageKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 18] = [
        Self::Preinit,
        Self::PreinitReply,
        Self::StartTls,
        Self::Init,
        Self::InitReply,
        Self::ServerError,
        Self::SetOption,
        Self::SetOptionReply,
        Self::EchoRequest,
        Self::EchoReply,
        Self::NodeList,
        Self::NodeListReply,
        Self::AskForVote,
        Self::AskForVoteReply,
        Self::VoteInfo,
        Self::VoteInfoReply,
        Self::HeuristicsChange,
        Self::HeuristicsChangeReply,
    ];

    /// The type with this number, if there is one.
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
