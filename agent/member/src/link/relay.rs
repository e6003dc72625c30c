//! Splicing two streams: what one says the other hears, nobody looks inside, and neither outlives the other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

/// What a relay says, in the clear, before the stream that it splices. It takes a right away (to be relayed further)
/// and gives none, so nobody gains by forging it.
pub(super) const PREFACE: &[u8; 8] = b"TBrelay1";

/// Bytes held in each direction.
const BUFFER: usize = 32 << 10;

/// Splices two streams until both directions have ended, one breaks, or nothing has moved for `idle`. An end in one
/// direction is passed on and leaves the other open.
pub(super) async fn splice<A, B>(a: A, b: B, idle: Duration)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let began = Instant::now();
    let moved = AtomicU64::new(0);
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let touch = || {
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        moved.fetch_max(ms, Ordering::Relaxed);
    };
    let both = async { tokio::try_join!(copy(a_read, b_write, touch), copy(b_read, a_write, touch)) };
    let stalled = async {
        loop {
            let until = began + Duration::from_millis(moved.load(Ordering::Relaxed)) + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        // However it ended: the two ends notice by themselves, and say more about it than the relay could.
        _ = both => {}
        () = stalled => {}
    }
}

async fn copy<R, W>(mut from: R, mut to: W, touch: impl Fn()) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return to.shutdown().await;
        }
        touch();
        to.write_all(&buffer[..len]).await?;
        to.flush().await?;
        touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_half_close_is_passed_on_and_the_other_half_lives() {
        let (mut left, a) = tokio::io::duplex(64);
        let (mut right, b) = tokio::io::duplex(64);
        let splicing = tokio::spawn(splice(a, b, Duration::from_secs(60)));
        left.write_all(b"over").await.unwrap();
        left.shutdown().await.unwrap();
        let mut heard = Vec::new();
        right.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"over");
        right.write_all(b"and back").await.unwrap();
        right.shutdown().await.unwrap();
        heard.clear();
        left.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"and back");
        splicing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_splice_ends() {
        let (_left, a) = tokio::io::duplex(64);
        let (_right, b) = tokio::io::duplex(64);
        let began = Instant::now();
        splice(a, b, Duration::from_secs(10)).await;
        assert!(began.elapsed() >= Duration::from_secs(10));
    }
}
