//! Clients that come and go at random, and what a server keeps of them.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tiebreaker_qnetd::wire::{Algorithm, NodeId, RingId};

use crate::{QdeviceClient, process};

/// The server notices who has come and gone.
const SETTLES: Duration = Duration::from_secs(3);

/// The same after all have gone: for so long somebody may still cast the vote of a client that was cut off. Then the server forgets the
/// cluster, and gives memory back.
const FORGETS: Duration = Duration::from_secs(20);

/// The C library keeps up to seven pieces of each of 64 sizes for each thread that has freed some, and each may keep a page of four
/// kilobytes: in bytes, for one thread and a bit.
const CACHES: f64 = 2.0 * 1024.0 * 1024.0;

/// What is to be done to a server.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Where it listens for plain clients.
    pub server: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// So many clients at once, two of a cluster.
    pub clients: usize,
    /// So often they all come, change places at random, and leave.
    pub rounds: u32,
    /// The same number gives the same order.
    pub seed: u64,
}

/// The process's own memory in bytes: before anybody came, and in each round with all clients and after they had left.
#[derive(Clone, PartialEq, Debug)]
pub struct Soaked {
    before: f64,
    rounds: Vec<(f64, f64)>,
}

impl Soaked {
    /// Whether memory is back where it was. A tenth of what the clients took may stay, with what is counted of each of their clusters
    /// from then on, and the pages on which the allocator's caches lie; what stays must not become more with the rounds.
    #[must_use]
    pub fn returned(&self) -> bool {
        let (Some((full, first)), Some((_, last))) = (self.rounds.first(), self.rounds.last()) else { return false };
        let taken = full - self.before;
        last - self.before <= taken / 10.0 + CACHES && last - first <= taken / 20.0
    }

    /// Whether it stays bounded, however often clients come and go: were anything kept of each, every round would add what
    /// all of them take, and more. Looser than [`Soaked::returned`], which counts pages that an allocator keeps.
    #[must_use]
    pub fn bounded(&self) -> bool {
        let (Some((full, _)), Some((_, last))) = (self.rounds.first(), self.rounds.last()) else { return false };
        self.rounds.len() > 2 && last - self.before <= (full - self.before) * 1.5
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|(full, empty)| json!({ "full_bytes": full, "empty_bytes": empty }));
        json!({ "before_bytes": self.before, "rounds": rounds.collect::<Vec<_>>(), "returned": self.returned() })
    }
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: f64| bytes / 1024.0 / 1024.0;
        write!(f, "before {:.2} MB", mb(self.before))?;
        for (full, empty) in &self.rounds {
            write!(f, "; full {:.2} MB, empty again {:.2} MB", mb(*full), mb(*empty))?;
        }
        f.write_str(if self.returned() { ": memory returns" } else { ": memory does NOT return" })
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let sides = u64::try_from(sides).unwrap_or(u64::MAX);
        usize::try_from((self.0 >> 33) % sides).unwrap_or_default()
    }
}

impl Soak {
    /// Runs all rounds. Clusters are named, and clients given addresses, by number.
    ///
    /// # Errors
    /// A client doesn't get what it should.
    pub fn run(
        &self,
        name: impl Fn(usize) -> String,
        source: impl Fn(usize) -> Ipv4Addr,
        say: impl Fn(&str),
    ) -> Result<Soaked> {
        let come = |place: usize| -> Result<QdeviceClient> {
            let node = if place.is_multiple_of(2) { 1 } else { 2 };
            let mut client = QdeviceClient::connect(self.server, source(place))?;
            client.name(&name(place / 2))?;
            client.join(node, Algorithm::Lms)?;
            client.configure(&[1, 2])?;
            let ring = RingId { node: NodeId(1), seq: 5 };
            let asked = client.sees(ring, &[1, 2])?;
            client.voted(asked, ring)?;
            Ok(client)
        };
        let mut dice = Dice(self.seed);
        // Whatever is done for the first time takes memory once.
        drop([come(0)?, come(1)?]);
        thread::sleep(FORGETS);
        let before = process::memory(self.pid)?.own;
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            let mut places = (0..self.clients).map(|place| come(place).map(Some)).collect::<Result<Vec<_>>>()?;
            for _ in 0..self.clients {
                let place = dice.roll(self.clients);
                if let Some(client) = places.get_mut(place) {
                    // Without a word, mostly; and back, mostly at once.
                    if client.take().is_none() || dice.roll(3) > 0 {
                        *client = until_taken(|| come(place))?.into();
                    }
                }
            }
            thread::sleep(SETTLES);
            let full = process::memory(self.pid)?.own;
            while !places.is_empty() {
                places.swap_remove(dice.roll(places.len()));
            }
            thread::sleep(FORGETS);
            let empty = process::memory(self.pid)?.own;
            say(&format!("round {}: {full:.0} bytes with all clients, {empty:.0} without", round + 1));
            rounds.push((full, empty));
        }
        Ok(Soaked { before, rounds })
    }
}

/// A client's number is free only when the server has seen that its last connection has ended.
fn until_taken(come: impl Fn() -> Result<QdeviceClient>) -> Result<QdeviceClient> {
    for _ in 0..20 {
        if let Ok(client) = come() {
            return Ok(client);
        }
        thread::sleep(Duration::from_millis(10));
    }
    come()
}
