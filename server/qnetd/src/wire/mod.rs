//! The bytes of the protocol: frames, options, and what they mean.

mod error_code;
mod fields;
mod frame;
mod kind;
mod message;
mod option;
#[cfg(test)]
mod tests;
mod value;

pub use error_code::ErrorCode;
pub use fields::{Fields, Malformed};
pub use frame::{Frame, HEADER, Inbox, MAX_MESSAGE, Skipped, Taken};
pub use kind::MessageKind;
pub use message::Message;
pub use option::{Fault, Opt, SUPPORTED_OPTIONS, options};
pub use value::{Algorithm, Heuristics, ListKind, NodeId, NodeInfo, NodeState, RingId, TieBreaker, TlsSupport, Vote};
