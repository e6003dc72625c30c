//! A client of DHCP for one interface (RFC 2131). Sans-IO: it is given datagrams and the time, and says what to send and
//! which address holds.

mod packet;

use std::net::Ipv4Addr;
use std::time::Duration;

use packet::{Answer, Asks, Question, Says};

/// The first wait for an answer; each later one is twice as long, up to the last.
const WAIT_FIRST: Duration = Duration::from_secs(2);
const WAIT_LAST: Duration = Duration::from_secs(32);
/// An offer that isn't confirmed after so many questions is forgotten.
const TAKES: u32 = 4;
/// RFC 2131 has no one ask again within less.
const EXTEND_AGAIN: Duration = Duration::from_secs(60);
/// A lease that is shorter would have the client ask all the time; servers that give such are misread as this.
const LEASE_SHORTEST: Duration = Duration::from_secs(60);
/// What a server means that names no time.
const LEASE_UNSAID: Duration = Duration::from_secs(3600);

/// An address, and what came with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network.
    pub prefix: u8,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send this datagram to port 67: of this server, or of everybody.
    Send {
        /// The server; `None` is everybody, from no address.
        to: Option<Ipv4Addr>,
        /// The datagram.
        bytes: Vec<u8>,
    },
    /// The interface has this address from now on, and no other of DHCP's.
    Set(Lease),
    /// The interface has none any more.
    Clear,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    hardware: [u8; 6],
    host_name: String,
    transaction: u32,
    began: Duration,
    state: State,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Asks who is there.
    Discovering { ask_at: Duration, wait: Duration },
    /// Has taken an offer, and waits for the word.
    Taking { address: Ipv4Addr, server: Ipv4Addr, asked: u32, ask_at: Duration },
    /// Has an address.
    Bound { lease: Lease, server: Option<Ipv4Addr>, times: Times, ask_at: Duration },
}

/// When a lease is extended with its server, with any server, and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Times {
    rebind: Duration,
    ends: Duration,
}

impl Client {
    /// A client that begins to ask now. `random` makes its questions its own.
    #[must_use]
    pub fn new(now: Duration, hardware: [u8; 6], host_name: &str, random: u32) -> Self {
        let state = State::Discovering { ask_at: now, wait: WAIT_FIRST };
        Self { hardware, host_name: host_name.into(), transaction: random, began: now, state }
    }

    /// When it wants to be polled next.
    #[must_use]
    pub fn next(&self) -> Duration {
        match &self.state {
            State::Discovering { ask_at, .. } | State::Taking { ask_at, .. } => *ask_at,
            State::Bound { times, ask_at, .. } => (*ask_at).min(times.ends),
        }
    }

    /// What is due.
    pub fn poll(&mut self, now: Duration) -> Option<Action> {
        if now < self.next() {
            return None;
        }
        match self.state.clone() {
            State::Discovering { wait, .. } => {
                self.transaction = self.transaction.wrapping_add(1);
                self.state = State::Discovering { ask_at: now + wait, wait: (wait * 2).min(WAIT_LAST) };
                Some(self.send(now, Asks::Discover, None))
            }
            State::Taking { asked, .. } if asked >= TAKES => {
                self.start_over(now);
                self.poll(now)
            }
            State::Taking { address, server, asked, .. } => {
                self.state =
                    State::Taking { address, server, asked: asked + 1, ask_at: now + WAIT_FIRST * (asked + 1) };
                Some(self.send(now, Asks::Take { address, server }, None))
            }
            State::Bound { times, .. } if now >= times.ends => {
                self.start_over(now);
                Some(Action::Clear)
            }
            State::Bound { lease, server, times, .. } => {
                let address = lease.address;
                let (goal, to) = if now < times.rebind { (times.rebind, server) } else { (times.ends, None) };
                let ask_at = now + ((goal.saturating_sub(now)) / 2).max(EXTEND_AGAIN);
                self.transaction = self.transaction.wrapping_add(1);
                self.state = State::Bound { lease, server, times, ask_at };
                Some(self.send(now, Asks::Extend { address }, to))
            }
        }
    }

    /// Takes a datagram that came. What isn't an answer to this client's last question is passed over.
    pub fn handle(&mut self, now: Duration, datagram: &[u8]) -> Option<Action> {
        let answer = Answer::decode(datagram)?;
        if answer.transaction != self.transaction || answer.hardware != self.hardware {
            return None;
        }
        match (&self.state, answer.kind) {
            (State::Discovering { .. }, Says::Offer) => {
                let server = answer.server?;
                usable(answer.address).then_some(())?;
                self.state = State::Taking { address: answer.address, server, asked: 0, ask_at: now };
                self.poll(now)
            }
            (State::Taking { address, server, .. }, Says::Yes) => {
                (answer.address == *address && answer.server.is_none_or(|by| by == *server)).then_some(())?;
                let server = Some(*server);
                self.bind(now, &answer, server)
            }
            (State::Bound { lease, server, .. }, Says::Yes) => {
                (answer.address == lease.address).then_some(())?;
                let server = answer.server.or(*server);
                self.bind(now, &answer, server)
            }
            (State::Taking { server, .. }, Says::No) => {
                answer.server.is_none_or(|by| by == *server).then_some(())?;
                self.start_over(now + WAIT_FIRST);
                None
            }
            (State::Bound { .. }, Says::No) => {
                self.start_over(now);
                Some(Action::Clear)
            }
            (State::Discovering { .. }, Says::Yes | Says::No)
            | (State::Taking { .. } | State::Bound { .. }, Says::Offer) => None,
        }
    }

    fn bind(&mut self, now: Duration, answer: &Answer, server: Option<Ipv4Addr>) -> Option<Action> {
        let lease = Lease {
            address: answer.address,
            prefix: answer.mask.map_or_else(|| class(answer.address), prefix),
            router: answer.router,
            dns: answer.dns.clone(),
        };
        let seconds = |given: Option<u32>| given.map(|given| Duration::from_secs(given.into()));
        let length = seconds(answer.lease_s).unwrap_or(LEASE_UNSAID).max(LEASE_SHORTEST);
        let rebind = seconds(answer.rebinding_s).filter(|at| *at < length).unwrap_or(length * 7 / 8);
        let renew = seconds(answer.renewal_s).filter(|at| *at < rebind).unwrap_or(length / 2);
        let times = Times { rebind: now + rebind, ends: now + length };
        self.state = State::Bound { lease: lease.clone(), server, times, ask_at: now + renew };
        Some(Action::Set(lease))
    }

    fn start_over(&mut self, at: Duration) {
        self.began = at;
        self.state = State::Discovering { ask_at: at, wait: WAIT_FIRST };
    }

    fn send(&self, now: Duration, kind: Asks, to: Option<Ipv4Addr>) -> Action {
        let seconds = u16::try_from(now.saturating_sub(self.began).as_secs()).unwrap_or(u16::MAX);
        let question = Question {
            kind,
            transaction: self.transaction,
            seconds,
            hardware: self.hardware,
            host_name: &self.host_name,
        };
        Action::Send { to, bytes: question.encode() }
    }
}

fn usable(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

/// The length of a network by its mask; what no mask may be is cut at its first zero.
fn prefix(mask: Ipv4Addr) -> u8 {
    // At most 32.
    mask.to_bits().leading_ones() as u8
}

/// What a server that names no mask means.
fn class(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        192..=255 => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0xb8, 0x27, 0xeb, 1, 2, 3];
    const MINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OPTIONS: [u8; 24] = [54, 4, 192, 0, 2, 1, 1, 4, 255, 255, 255, 0, 3, 4, 192, 0, 2, 1, 51, 4, 0, 0, 14, 16];

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn kind_of(action: Option<Action>) -> Option<(u8, Option<Ipv4Addr>)> {
        match action {
            Some(Action::Send { to, bytes }) => Some((bytes[242], to)),
            Some(Action::Set(_) | Action::Clear) | None => None,
        }
    }

    fn says(client: &Client, kind: u8) -> Vec<u8> {
        packet::written(kind, client.transaction, MAC, MINE, &OPTIONS)
    }

    fn bound() -> Client {
        let mut client = Client::new(s(0), MAC, "pi", 100);
        assert_eq!(kind_of(client.poll(s(0))), Some((1, None)));
        let offer = says(&client, 2);
        assert_eq!(kind_of(client.handle(s(1), &offer)), Some((3, None)), "the offer is taken at once");
        let yes = says(&client, 5);
        let lease = Lease { address: MINE, prefix: 24, router: Some(SERVER), dns: vec![] };
        assert_eq!(client.handle(s(1), &yes), Some(Action::Set(lease)));
        client
    }

    #[test]
    fn an_address_is_asked_for_taken_and_extended() {
        let mut client = bound();
        assert_eq!(client.next(), s(1801), "half of the lease");
        assert_eq!(client.poll(s(1800)), None);
        assert_eq!(kind_of(client.poll(s(1801))), Some((3, Some(SERVER))), "from the server itself");
        let yes = says(&client, 5);
        assert!(matches!(client.handle(s(1802), &yes), Some(Action::Set(_))));
        assert_eq!(client.next(), s(1802 + 1800));
    }

    #[test]
    fn a_lease_that_nobody_extends_is_asked_of_everybody_and_then_given_up() {
        let mut client = bound();
        let (mut asked_all, mut now) = (false, s(0));
        loop {
            now = now.max(client.next());
            match client.poll(now) {
                Some(Action::Send { to, .. }) => asked_all |= to.is_none(),
                Some(Action::Clear) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((now, asked_all), (s(3601), true));
        assert_eq!(kind_of(client.poll(now)), Some((1, None)), "and asked for anew");
    }

    #[test]
    fn a_refusal_ends_it_and_what_is_for_others_does_not() {
        let mut client = bound();
        assert!(client.poll(s(1801)).is_some());
        let mut of_another = says(&client, 6);
        of_another[28] ^= 1;
        assert_eq!(client.handle(s(1802), &of_another), None);
        let old = packet::written(6, client.transaction.wrapping_sub(1), MAC, MINE, &OPTIONS);
        assert_eq!(client.handle(s(1802), &old), None);
        let no = says(&client, 6);
        assert_eq!(client.handle(s(1802), &no), Some(Action::Clear));
    }

    #[test]
    fn silence_is_asked_again_ever_more_rarely() {
        let mut client = Client::new(s(0), MAC, "pi", 7);
        let mut times = Vec::new();
        for _ in 0..7 {
            let now = client.next();
            assert_eq!(kind_of(client.poll(now)), Some((1, None)));
            times.push(now.as_secs());
        }
        assert_eq!(times, [0, 2, 6, 14, 30, 62, 94]);
    }

    #[test]
    fn an_offer_that_is_not_confirmed_is_forgotten() {
        let mut client = Client::new(s(0), MAC, "pi", 7);
        client.poll(s(0));
        let offer = says(&client, 2);
        assert!(client.handle(s(0), &offer).is_some());
        let kinds: Vec<_> = (0..5).filter_map(|_| kind_of(client.poll(client.next()))).map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [3, 3, 3, 1, 1]);
    }

    #[test]
    fn senseless_leases_are_not_believed() {
        let mut client = Client::new(s(0), MAC, "pi", 7);
        client.poll(s(0));
        let offer = packet::written(2, client.transaction, MAC, Ipv4Addr::UNSPECIFIED, &OPTIONS);
        assert_eq!(client.handle(s(0), &offer), None);
        let good = says(&client, 2);
        client.handle(s(0), &good);
        // A lease of no time at all.
        let yes = packet::written(5, client.transaction, MAC, MINE, &[51, 4, 0, 0, 0, 0]);
        let Some(Action::Set(lease)) = client.handle(s(0), &yes) else { panic!("not taken") };
        assert_eq!((lease.prefix, client.next()), (24, s(30)));
    }
}
