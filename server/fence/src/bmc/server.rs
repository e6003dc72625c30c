//! The BMC on a socket.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{Account, Chassis, Dice, Engine, FaultSwitch, Faults, faults::Faulty};
use crate::{Secret, ipmi::packet::MAX_DATAGRAM};

/// Replies that wait for their time in a slow BMC. More are dropped, as a network would.
const MAX_DELAYED: usize = 256;

/// A BMC for one machine.
pub struct Bmc<C> {
    engine: Engine,
    chassis: C,
    faults: FaultSwitch,
    delayed: BTreeMap<(Instant, u64), (SocketAddr, Vec<u8>)>,
    sent: u64,
    /// What the fault `stale` holds back.
    withheld: Option<Vec<u8>>,
}

impl<C: Chassis> Bmc<C> {
    /// A BMC that lets these accounts at this machine. `guid` is the machine's system GUID in the byte order of the wire;
    /// all zeros where it has none. `kg` is the BMC's own key, where consoles shall need one.
    pub fn new(accounts: Vec<Account>, kg: Option<Secret>, guid: [u8; 16], chassis: C) -> Self {
        Self {
            engine: Engine::new(accounts, kg, guid),
            chassis,
            faults: FaultSwitch::default(),
            delayed: BTreeMap::new(),
            sent: 0,
            withheld: None,
        }
    }

    /// The handle that makes it misbehave.
    #[must_use]
    pub fn faults(&self) -> FaultSwitch {
        self.faults.clone()
    }

    /// Serves until the future is dropped or the socket breaks.
    ///
    /// # Errors
    /// The socket's, but for those that a vanished console causes; or the system has no random numbers.
    pub async fn serve(mut self, socket: UdpSocket) -> io::Result<()> {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        loop {
            let due = self.delayed.keys().next().map(|(due, _)| *due);
            tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((length, peer)) => self.receive(&socket, peer, &buffer[..length]).await?,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return Err(error),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, (peer, datagram))) = self.delayed.pop_first() {
                        send(&socket, peer, &datagram).await;
                    }
                }
            }
        }
    }

    async fn receive(&mut self, socket: &UdpSocket, peer: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let faults = self.faults.get();
        if faults.mute {
            return Ok(());
        }
        let faulty = Faulty { chassis: &self.chassis, faults };
        let reply = match self.engine.handle(Instant::now().into_std(), dice()?, &faulty, datagram) {
            Ok(Some(reply)) => reply,
            Ok(None) => return Ok(()),
            Err(what) => {
                debug!(%peer, %what, "skipped a datagram");
                return Ok(());
            }
        };
        for datagram in self.schedule(faults, reply.command, reply.datagram) {
            if faults.slow == Duration::ZERO {
                send(socket, peer, &datagram).await;
            } else if self.delayed.len() < MAX_DELAYED {
                self.sent += 1;
                self.delayed.insert((Instant::now() + faults.slow, self.sent), (peer, datagram));
            }
        }
        Ok(())
    }

    /// What to send for a reply, under the faults.
    fn schedule(&mut self, faults: Faults, command: bool, reply: Vec<u8>) -> Vec<Vec<u8>> {
        let mut out = vec![reply];
        if !faults.stale {
            self.withheld = None;
        } else if command {
            match self.withheld.take() {
                Some(old) => out.insert(0, old),
                None => self.withheld = out.pop(),
            }
        }
        if faults.duplicate {
            out = out.into_iter().flat_map(|datagram| [datagram.clone(), datagram]).collect();
        }
        out
    }
}

async fn send(socket: &UdpSocket, peer: SocketAddr, datagram: &[u8]) {
    if let Err(error) = socket.send_to(datagram, peer).await {
        debug!(%peer, %error, "a reply was not sent");
    }
}

fn dice() -> io::Result<Dice> {
    let mut bytes = [0; 36];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let (id, rest) = bytes.split_first_chunk().expect("36 bytes");
    let (random, iv) = rest.split_first_chunk().expect("32 bytes");
    Ok(Dice { session_id: u32::from_le_bytes(*id), random: *random, iv: *iv.first_chunk().expect("16 bytes") })
}
