//! Frames out of a stream of bytes, each bounded before anything is kept of it.

use std::collections::VecDeque;

use super::kind::MessageKind;

/// Bytes in front of a body: type and length.
pub const HEADER: usize = 6;

/// The longest message either way, header included. The stock client refuses servers that take less, and starts out with
/// as much itself.
pub const MAX_MESSAGE: usize = 32_768;

/// A whole message, undecoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its type.
    pub kind: MessageKind,
    /// Its options.
    pub body: Vec<u8>,
}

impl Frame {
    /// The answer to an echo: the same bytes under another type.
    #[must_use]
    pub fn echo_reply(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.body.len());
        out.resize(HEADER, 0);
        out.extend_from_slice(&self.body);
        super::message::seal(MessageKind::EchoReply.number(), out)
    }
}

/// Why a message was dropped without being looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// There is no message of this number.
    UnknownKind(u16),
    /// Longer than [`MAX_MESSAGE`].
    TooLong(u32),
}

/// What has come in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// A message.
    Frame(Frame),
    /// The end of one that was dropped.
    Skipped(Skipped),
}

/// What has come from one peer and was not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    bytes: VecDeque<u8>,
    skipping: Option<(Skipped, usize)>,
}

impl Inbox {
    /// Adds bytes. The caller bounds how many there are before they are taken.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Takes the next message, if it has come in full.
    pub fn take(&mut self) -> Option<Taken> {
        self.take_up_to(MAX_MESSAGE)
    }

    /// The same with another bound on a message's length, header included: what is longer is dropped, never kept.
    pub fn take_up_to(&mut self, longest: usize) -> Option<Taken> {
        if self.skipping.is_none() {
            let head = self.header()?;
            let [k0, k1, l0, l1, l2, l3] = head;
            let number = u16::from_be_bytes([k0, k1]);
            let length = u32::from_be_bytes([l0, l1, l2, l3]);
            let body = usize::try_from(length).unwrap_or(usize::MAX);
            let whole = HEADER.saturating_add(body);
            let skipped = match MessageKind::from_number(number) {
                None => Skipped::UnknownKind(number),
                Some(_) if whole > longest.min(MAX_MESSAGE) => Skipped::TooLong(length),
                Some(kind) => {
                    if self.bytes.len() < whole {
                        return None;
                    }
                    self.bytes.drain(..HEADER);
                    let body = self.bytes.drain(..body).collect();
                    self.shrink();
                    return Some(Taken::Frame(Frame { kind, body }));
                }
            };
            self.bytes.drain(..HEADER);
            self.skipping = Some((skipped, body));
        }
        let (skipped, left) = self.skipping.take()?;
        let now = left.min(self.bytes.len());
        self.bytes.drain(..now);
        self.shrink();
        let left = left - now;
        if left == 0 {
            return Some(Taken::Skipped(skipped));
        }
        self.skipping = Some((skipped, left));
        None
    }

    /// Whether the rest of a message that is dropped is still to come.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping.is_some()
    }

    /// All that was not taken: after STARTTLS it is TLS's.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes).into()
    }

    fn header(&self) -> Option<[u8; HEADER]> {
        let mut head = [0; HEADER];
        let mut bytes = self.bytes.iter();
        for byte in &mut head {
            *byte = *bytes.next()?;
        }
        Some(head)
    }

    /// An idle client shall hold no buffer.
    fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
    }
}
