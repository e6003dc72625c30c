//! The time, by SNTP. A Pi has none of its own; nothing that keeps a cluster safe depends on it, and audit logs, metrics
//! and people do.

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::thread::{self, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, Timespec, clock_settime};
use sntpc::{NtpContext, NtpUdpSocket, StdTimestampGen};

use crate::known::{boot_s, know};
use crate::log::say;

const PORT: u16 = 123;
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Until it is set for the first time, and from then on.
const FIRST: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(1024);
/// Smaller errors are left alone: a network's own delays are no smaller.
const OFF_BY_US: u64 = 50_000;
const US_PER_S: i64 = 1_000_000;

/// Starts to keep the clock.
pub fn start(servers: Vec<String>) {
    know(|known| known.clock.asks = !servers.is_empty());
    if servers.is_empty() {
        return;
    }
    thread::spawn(move || {
        let (mut set, mut said) = (false, false);
        loop {
            match servers.iter().map(|server| ask(server)).find_map(Result::ok) {
                Some(offset_us) => {
                    adjust(offset_us, &mut set);
                    know(|known| (known.clock.answers, known.clock.answered_at_s) = (true, Some(boot_s())));
                    said = false;
                }
                None if !said => {
                    said = true;
                    know(|known| known.clock.answers = false);
                    say(format_args!("time: none of {} answers; they are asked again", servers.join(", ")));
                }
                None => {}
            }
            sleep(if set { LATER } else { FIRST });
        }
    });
}

fn adjust(offset_us: i64, set: &mut bool) {
    if offset_us.unsigned_abs() < OFF_BY_US {
        *set = true;
        return;
    }
    // A clock before 1970 is none, and is set as if it were 1970.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match clock_settime(ClockId::Realtime, moved(now, offset_us)) {
        Ok(()) => {
            say(format_args!("time: set, it was off by {:.3} s", offset_us as f64 / US_PER_S as f64));
            *set = true;
        }
        Err(error) => say(format_args!("time: the clock can't be set: {error}")),
    }
}

/// The time that it is, as far as since 1970, moved.
fn moved(now: Duration, offset_us: i64) -> Timespec {
    let us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX).saturating_add(offset_us);
    Timespec { tv_sec: us.div_euclid(US_PER_S), tv_nsec: (us.rem_euclid(US_PER_S) * 1000) as _ }
}

/// How far the clock is behind a server, in microseconds.
fn ask(server: &str) -> Result<i64> {
    let Some(address) = addresses(server)?.next() else { bail!("{server} has no address") };
    let own = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(own).context("opening a socket for the time")?;
    socket.set_read_timeout(Some(ANSWER_WITHIN)).context("waiting for the time")?;
    let answer = sntpc::sync::get_time(address, &Wire(socket), NtpContext::new(StdTimestampGen::default()));
    match answer {
        Ok(answer) => Ok(answer.offset()),
        Err(error) => bail!("{server}: {error:?}"),
    }
}

fn addresses(server: &str) -> Result<impl Iterator<Item = SocketAddr>> {
    (server, PORT).to_socket_addrs().with_context(|| format!("looking for {server}"))
}

struct Wire(UdpSocket);

impl NtpUdpSocket for Wire {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> sntpc::Result<usize> {
        self.0.send_to(bytes, to).map_err(|_| sntpc::Error::Network)
    }

    async fn recv_from(&self, bytes: &mut [u8]) -> sntpc::Result<(usize, SocketAddr)> {
        self.0.recv_from(bytes).map_err(|_| sntpc::Error::Network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_moved_both_ways_across_the_second() {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        let parts = |time: Timespec| (time.tv_sec, time.tv_nsec);
        assert_eq!(parts(moved(ms(10_900), 200_000)), (11, 100_000_000));
        assert_eq!(parts(moved(ms(10_100), -200_000)), (9, 900_000_000));
        assert_eq!(parts(moved(s(0), 1_790_000_000 * US_PER_S)), (1_790_000_000, 0));
    }

    #[test]
    fn a_server_s_answer_is_read() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let mut packet = [0; 48];
            let (_, from) = server.recv_from(&mut packet).unwrap();
            let sent: [u8; 8] = packet[40..48].try_into().unwrap();
            // A server of stratum 2 whose clock is 1000 s ahead.
            let ahead = (u64::from_be_bytes(sent) + (1000 << 32)).to_be_bytes();
            packet[0] = 0b00_100_100;
            packet[1] = 2;
            packet[24..32].copy_from_slice(&sent);
            packet[32..40].copy_from_slice(&ahead);
            packet[40..48].copy_from_slice(&ahead);
            server.send_to(&packet, from).unwrap();
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let answer =
            sntpc::sync::get_time(address, &Wire(socket), NtpContext::new(StdTimestampGen::default())).unwrap();
        answers.join().unwrap();
        let seconds = answer.offset() as f64 / US_PER_S as f64;
        assert!((960.0..=1001.0).contains(&seconds), "{seconds}");
    }
}
