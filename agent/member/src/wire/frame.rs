//! The frames. Their encoding is pinned by a golden test below: changing it needs a new protocol version.

use serde::{Deserialize, Serialize};

use crate::identity::MemberName;

/// The protocol that this program speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The oldest protocol that it still speaks: the one before, once there is one.
pub const MIN_VERSION: u16 = 1;

/// What a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Messages between members.
    Member {
        /// The cluster's epoch as the dialer knows it.
        epoch: u64,
    },
    /// Requests of a client.
    Request,
    /// Splice this connection to another member.
    Relay {
        /// Which.
        to: MemberName,
    },
    /// Join the cluster with a token.
    Join,
}

/// The first frame of a connection, sent by whoever dialed. It says nothing about who that is: the certificate does.
/// Fields that a later version adds are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version that the dialer speaks.
    pub min: u16,
    /// Newest.
    pub max: u16,
    /// What it wants.
    pub purpose: Purpose,
}

/// Why a connection is refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefuseCode {
    /// No protocol version in common.
    Version,
    /// This needs a certificate.
    NoCertificate,
    /// The certificate's role may not do this.
    Role,
    /// The certificate is good, but its holder is no member (yet).
    NotAMember,
    /// The dialer's cluster epoch is not this one's.
    Epoch,
    /// The relay doesn't know the target, or is the target.
    NoSuchMember,
    /// The relay can't reach the target.
    Unreachable,
    /// A relayed connection asks to be relayed.
    RelayOfRelay,
    /// Too many at once.
    Busy,
    /// Only the appliance lets members in.
    NotAppliance,
    /// A code of a newer version.
    #[serde(other)]
    Other,
}

/// A wish to join.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFrame {
    /// The name that the joiner wants.
    pub name: MemberName,
    /// The token's secret.
    #[serde(with = "serde_bytes")]
    pub secret: Vec<u8>,
    /// The certificate request, DER.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
    /// The joiner's wall clock, seconds since 1970.
    pub clock: u64,
    /// The layer above's part.
    #[serde(with = "serde_bytes")]
    pub info: Vec<u8>,
}

impl Drop for JoinFrame {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

impl std::fmt::Debug for JoinFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinFrame").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The dialer's greeting.
    Hello(Hello),
    /// The greeting's answer: let's go.
    Welcome {
        /// The protocol version from here on.
        version: u16,
    },
    /// The greeting's answer: no.
    Refuse {
        /// Why, for programs.
        code: RefuseCode,
        /// Why, for people.
        text: String,
        /// Where the epoch is the reason: the refusing side's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
    },
    /// A wish to join.
    Join(JoinFrame),
    /// "Are you there?"
    Ping {
        /// Counts up.
        n: u64,
    },
    /// "I am", with the ping's number.
    Pong {
        /// The ping's number.
        n: u64,
    },
    /// A whole urgent message.
    Urgent(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A fragment of a bulk message, a request or a part.
    Data {
        /// Whether more of the same message follows.
        more: bool,
        /// The fragment.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The reply is complete.
    End,
    /// The request failed.
    Fail {
        /// Why, for people.
        text: String,
    },
}

/// The newest version that both sides speak.
#[must_use]
pub fn negotiate(hello: &Hello) -> Option<u16> {
    let version = hello.max.min(PROTOCOL_VERSION);
    (version >= hello.min && version >= MIN_VERSION).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_taken() {
        let hello = |min, max| Hello { min, max, purpose: Purpose::Join };
        assert_eq!(negotiate(&hello(1, 1)), Some(1));
        assert_eq!(negotiate(&hello(1, 2)), Some(1));
        assert_eq!(negotiate(&hello(2, 3)), None);
        assert_eq!(negotiate(&hello(0, 0)), None);
    }

    /// Bytes that members of this version send and understand. A difference here is a new protocol version.
    #[test]
    fn the_encoding_is_pinned() {
        let golden: [(Frame, &str); 9] = [
            (
                Frame::Hello(Hello { min: 1, max: 1, purpose: Purpose::Member { epoch: 0 } }),
                "a16548656c6c6fa3636d696e01636d61780167707572706f7365a1664d656d626572a16565706f636800",
            ),
            (Frame::Welcome { version: 1 }, "a16757656c636f6d65a16776657273696f6e01"),
            (
                Frame::Refuse { code: RefuseCode::Busy, text: "x".into(), epoch: None },
                "a166526566757365a264636f6465644275737964746578746178",
            ),
            (
                Frame::Refuse { code: RefuseCode::Epoch, text: "x".into(), epoch: Some(1) },
                "a166526566757365a364636f64656545706f6368647465787461786565706f636801",
            ),
            (Frame::Ping { n: 7 }, "a16450696e67a1616e07"),
            (Frame::Pong { n: 7 }, "a164506f6e67a1616e07"),
            (Frame::Urgent(vec![1, 2]), "a166557267656e74420102"),
            (Frame::Data { more: true, bytes: vec![3] }, "a16444617461a2646d6f7265f56562797465734103"),
            (Frame::End, "63456e64"),
        ];
        for (frame, hex) in golden {
            let mut bytes = Vec::new();
            cbor4ii::serde::to_writer(&mut bytes, &frame).unwrap();
            let shown: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(shown, hex, "{frame:?}");
        }
    }
}
