//! Frames over a byte stream.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroize;

use super::codec::{Decoder, FrameError, MAX_GREETING, encode};
use super::frame::Frame;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// A byte stream of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A byte stream whose kind no longer matters.
pub(crate) type BoxStream = Box<dyn Duplex>;

/// Reading or writing a frame failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads frames. Dropping a pending read loses nothing.
pub(crate) struct FrameReader<R> {
    inner: R,
    decoder: Decoder,
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(inner: R, decoder: Decoder) -> Self {
        Self { inner, decoder, chunk: vec![0; CHUNK] }
    }

    /// The next frame; `None` at a clean end of the stream. `heard` is called whenever bytes arrive.
    pub(crate) async fn next(&mut self, heard: impl Fn()) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let len = self.inner.read(&mut self.chunk).await?;
            if len == 0 {
                return if self.decoder.is_empty() { Ok(None) } else { Err(FrameError::Torn.into()) };
            }
            heard();
            self.decoder.feed(&self.chunk[..len]);
        }
    }
}

/// Writes one frame, all the way to the socket.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> Result<(), StreamError> {
    let mut bytes = encode(frame)?;
    let written = stream.write_all(&bytes).await;
    if matches!(frame, Frame::Join(_)) {
        // It carries the token's secret.
        bytes.zeroize();
    }
    written?;
    stream.flush().await?;
    Ok(())
}

/// A stream with its reader's state, as it goes from the greeting to whatever follows.
pub(crate) struct Framed {
    reader: FrameReader<BoxStream>,
}

impl Framed {
    /// A stream whose peer may send a greeting, and nothing larger.
    pub(crate) fn new(stream: BoxStream) -> Self {
        Self { reader: FrameReader::new(stream, Decoder::new(MAX_GREETING)) }
    }

    /// Allows frames up to `max` bytes from here on.
    pub(crate) fn allow(&mut self, max: usize) {
        self.reader.decoder.allow(max);
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        self.reader.next(|| {}).await
    }

    pub(crate) async fn write(&mut self, frame: &Frame) -> Result<(), StreamError> {
        write_frame(&mut self.reader.inner, frame).await
    }

    /// The bare stream, when nothing that was read is left over: what follows isn't framed.
    pub(crate) fn into_stream(self) -> Option<BoxStream> {
        self.reader.decoder.is_empty().then_some(self.reader.inner)
    }

    /// The stream and what was read of it but not yet used.
    pub(crate) fn into_parts(self) -> (BoxStream, Decoder) {
        (self.reader.inner, self.reader.decoder)
    }
}
