//! From bytes to frames and back: a big-endian length of four bytes, then that much CBOR.

use cbor4ii::{
    core::{dec::Read as _, utils::SliceReader},
    serde::Deserializer,
};
use serde::Deserialize as _;
use zeroize::Zeroize;

use super::frame::Frame;

/// Largest frame of an authenticated peer: a fragment of 64 KiB and what is around it.
pub(crate) const MAX_FRAME: usize = (64 << 10) + 256;

/// Largest frame of a peer that has not shown who it is.
pub(crate) const MAX_GREETING: usize = 16 << 10;

const PREFIX: usize = 4;

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is over the bound.
    #[error("a frame of {len} bytes is announced, {max} are allowed here")]
    TooLong {
        /// Announced.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// No CBOR, or no frame of ours.
    #[error("a frame of {len} bytes can't be understood")]
    Malformed {
        /// Its length.
        len: usize,
    },
    /// A good frame that has no place here.
    #[error("a frame came that has no place here")]
    Unexpected,
    /// The fragments of a message are more than a message may have.
    #[error("a message grows beyond {max} bytes")]
    MessageTooLong {
        /// Allowed.
        max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Torn,
    /// A frame that can't be written.
    #[error("a frame can't be encoded")]
    Encode,
}

/// Encodes one frame with its length.
///
/// # Errors
/// When it doesn't fit into a frame.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    // Sized at once for what is small, so that growing leaves no copies of a secret behind.
    let mut bytes = Vec::with_capacity(2048);
    bytes.extend_from_slice(&[0; PREFIX]);
    cbor4ii::serde::to_writer(&mut bytes, frame).map_err(|_| FrameError::Encode)?;
    let len = bytes.len() - PREFIX;
    let announced =
        u32::try_from(len).ok().filter(|_| len <= MAX_FRAME).ok_or(FrameError::TooLong { len, max: MAX_FRAME })?;
    bytes[..PREFIX].copy_from_slice(&announced.to_be_bytes());
    Ok(bytes)
}

/// Cuts a stream of bytes into frames. It holds at most one frame and what was fed last.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    max: usize,
}

impl Decoder {
    /// A decoder for frames up to `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { buffer: Vec::new(), max }
    }

    /// Changes the bound, for the frames from here on.
    pub fn allow(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes bytes that arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes are left that are no whole frame yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, if there is one. After an error the stream can't be used further.
    ///
    /// # Errors
    /// When what arrived is no frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((prefix, rest)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if len > self.max {
            return Err(FrameError::TooLong { len, max: self.max });
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let mut values = Deserializer::new(SliceReader::new(body));
        let frame = Frame::deserialize(&mut values).map_err(|_| FrameError::Malformed { len })?;
        if !values.into_inner().fill(1).is_ok_and(|rest| rest.as_ref().is_empty()) {
            return Err(FrameError::Malformed { len });
        }
        if matches!(frame, Frame::Join(_)) {
            // It carries the token's secret.
            self.buffer[..PREFIX + len].zeroize();
        }
        self.buffer.drain(..PREFIX + len);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames =
            [Frame::Ping { n: 1 }, Frame::Urgent(vec![9; 300]), Frame::End, Frame::Data { more: false, bytes: vec![] }];
        let stream: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
        for step in 1..stream.len() {
            let mut decoder = Decoder::new(MAX_FRAME);
            let mut got = Vec::new();
            for piece in stream.chunks(step) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames);
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn an_oversize_frame_is_refused_by_its_length_alone() {
        let mut decoder = Decoder::new(MAX_GREETING);
        decoder.feed(&(16_385_u32).to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { len: 16_385, max: MAX_GREETING }));
        assert!(matches!(encode(&Frame::Urgent(vec![0; MAX_FRAME])), Err(FrameError::TooLong { .. })));
        assert!(encode(&Frame::Data { more: true, bytes: vec![0; 64 << 10] }).is_ok());
    }

    #[test]
    fn trailing_bytes_and_deep_nesting_are_refused() {
        for body in [&b"\x63End\x00"[..], &[0x81; 1000][..], b"", b"\xff", b"\x63Enx"] {
            let mut decoder = Decoder::new(MAX_FRAME);
            decoder.feed(&u32::try_from(body.len()).unwrap().to_be_bytes());
            decoder.feed(body);
            assert!(matches!(decoder.next_frame(), Err(FrameError::Malformed { .. })), "{body:x?}");
        }
    }
}
