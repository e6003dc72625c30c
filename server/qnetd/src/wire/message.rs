//! Messages as they are written: a type and options in the order of the wire.

use super::frame::HEADER;
use super::kind::MessageKind;
use super::option::Opt;

/// A message to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its type.
    pub kind: MessageKind,
    /// Its options, in the order of the wire.
    pub options: Vec<Opt>,
}

impl Message {
    /// A message of these options.
    #[must_use]
    pub fn new(kind: MessageKind, options: Vec<Opt>) -> Self {
        Self { kind, options }
    }

    /// Its bytes, header included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        for option in &self.options {
            option.write(&mut out);
        }
        seal(self.kind.number(), out)
    }
}

/// Fills in the header in front of a body.
pub(super) fn seal(kind: u16, mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len().saturating_sub(HEADER)).unwrap_or(u32::MAX);
    if let Some((head, _)) = out.split_first_chunk_mut::<HEADER>() {
        let [k0, k1] = kind.to_be_bytes();
        let [l0, l1, l2, l3] = length.to_be_bytes();
        *head = [k0, k1, l0, l1, l2, l3];
    }
    out
}
