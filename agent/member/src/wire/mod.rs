//! What crosses the wire: length-prefixed CBOR frames. Messages of the layers above are opaque bytes in them.

mod codec;
mod frame;
mod stream;

pub use codec::{Decoder, FrameError, encode};
pub(crate) use codec::{MAX_FRAME, MAX_GREETING};
pub use frame::{Frame, Hello, JoinFrame, MIN_VERSION, PROTOCOL_VERSION, Purpose, RefuseCode, negotiate};
pub(crate) use stream::{BoxStream, FrameReader, Framed, StreamError, write_frame};
