//! The packets of DHCP (RFC 2131, options of RFC 2132): what this client sends and reads of them.

use std::net::Ipv4Addr;

/// Bytes up to the options, with the magic cookie.
const HEADER: usize = 240;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Old relays drop what is shorter.
const SHORTEST: usize = 300;
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;

mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOST_NAME: u8 = 12;
    pub(super) const REQUESTED: u8 = 50;
    pub(super) const LEASE: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const KIND: u8 = 53;
    pub(super) const SERVER: u8 = 54;
    pub(super) const WANTED: u8 = 55;
    pub(super) const RENEWAL: u8 = 58;
    pub(super) const REBINDING: u8 = 59;
    pub(super) const END: u8 = 255;
}

/// What a client sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question<'a> {
    pub(super) kind: Asks,
    pub(super) transaction: u32,
    pub(super) seconds: u16,
    pub(super) hardware: [u8; 6],
    pub(super) host_name: &'a str,
}

/// What for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asks {
    /// Which servers are there?
    Discover,
    /// This one's offer is taken.
    Take { address: Ipv4Addr, server: Ipv4Addr },
    /// The address that is in use shall be so for longer.
    Extend { address: Ipv4Addr },
}

impl Question<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[0] = BOOT_REQUEST;
        bytes[1] = ETHERNET;
        bytes[2] = 6;
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.seconds.to_be_bytes());
        match self.kind {
            // Answers go to everybody: without an address a unicast one could not be received.
            Asks::Discover | Asks::Take { .. } => bytes[10] = 0x80,
            Asks::Extend { address } => bytes[12..16].copy_from_slice(&address.octets()),
        }
        bytes[28..34].copy_from_slice(&self.hardware);
        bytes[HEADER - 4..].copy_from_slice(&COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            // Every value here is shorter than 64 bytes.
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        match self.kind {
            Asks::Discover => put(option::KIND, &[1]),
            Asks::Take { address, server } => {
                put(option::KIND, &[3]);
                put(option::REQUESTED, &address.octets());
                put(option::SERVER, &server.octets());
            }
            Asks::Extend { .. } => put(option::KIND, &[3]),
        }
        if !self.host_name.is_empty() && self.host_name.len() < 64 {
            put(option::HOST_NAME, self.host_name.as_bytes());
        }
        put(
            option::WANTED,
            &[option::MASK, option::ROUTER, option::DNS, option::LEASE, option::RENEWAL, option::REBINDING],
        );
        bytes.push(option::END);
        bytes.resize(bytes.len().max(SHORTEST), option::PAD);
        bytes
    }
}

/// What a server answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) kind: Says,
    pub(super) transaction: u32,
    pub(super) hardware: [u8; 6],
    pub(super) address: Ipv4Addr,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) mask: Option<Ipv4Addr>,
    pub(super) router: Option<Ipv4Addr>,
    pub(super) dns: Vec<Ipv4Addr>,
    pub(super) lease_s: Option<u32>,
    pub(super) renewal_s: Option<u32>,
    pub(super) rebinding_s: Option<u32>,
}

/// Its word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Says {
    Offer,
    Yes,
    No,
}

impl Answer {
    /// Reads a datagram; `None` if it is no answer of a DHCP server, or damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEADER)?;
        if head[0] != BOOT_REPLY || head[1] != ETHERNET || head[2] != 6 || head[HEADER - 4..] != COOKIE {
            return None;
        }
        let mut answer = Self {
            kind: Says::No,
            transaction: u32::from_be_bytes(head[4..8].try_into().ok()?),
            hardware: head[28..34].try_into().ok()?,
            address: Ipv4Addr::from(<[u8; 4]>::try_from(&head[16..20]).ok()?),
            server: None,
            mask: None,
            router: None,
            dns: Vec::new(),
            lease_s: None,
            renewal_s: None,
            rebinding_s: None,
        };
        let mut kind = None;
        let mut rest = &bytes[HEADER..];
        while let Some((&code, after)) = rest.split_first() {
            match code {
                option::PAD => {
                    rest = after;
                    continue;
                }
                option::END => break,
                _ => {}
            }
            let (&length, after) = after.split_first()?;
            let value = after.get(..usize::from(length))?;
            rest = &after[usize::from(length)..];
            match code {
                option::KIND => kind = Some(*value.first()?),
                option::SERVER => answer.server = addresses(value).next(),
                option::MASK => answer.mask = addresses(value).next(),
                option::ROUTER => answer.router = addresses(value).next(),
                option::DNS => answer.dns = addresses(value).collect(),
                option::LEASE => answer.lease_s = number(value),
                option::RENEWAL => answer.renewal_s = number(value),
                option::REBINDING => answer.rebinding_s = number(value),
                // Options that go on in the fields for names: nobody needs that for what is asked for here.
                option::OVERLOAD => {}
                _ => {}
            }
        }
        answer.kind = match kind? {
            2 => Says::Offer,
            5 => Says::Yes,
            6 => Says::No,
            _ => return None,
        };
        Some(answer)
    }
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> + '_ {
    value.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets))
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

/// An answer as a server writes it, for tests.
#[cfg(test)]
pub(super) fn written(kind: u8, transaction: u32, hardware: [u8; 6], address: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..3].copy_from_slice(&[BOOT_REPLY, ETHERNET, 6]);
    bytes[4..8].copy_from_slice(&transaction.to_be_bytes());
    bytes[16..20].copy_from_slice(&address.octets());
    bytes[28..34].copy_from_slice(&hardware);
    bytes[HEADER - 4..].copy_from_slice(&COOKIE);
    bytes.extend([option::KIND, 1, kind]);
    bytes.extend(options);
    bytes.push(option::END);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0xb8, 0x27, 0xeb, 1, 2, 3];

    #[test]
    fn a_question_is_laid_out_as_the_rfc_says() {
        let question =
            Question { kind: Asks::Discover, transaction: 0x0102_0304, seconds: 5, hardware: MAC, host_name: "pi" };
        let bytes = question.encode();
        assert_eq!(bytes.len(), 300);
        assert_eq!(bytes[..12], [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0x80, 0], "the broadcast flag is the highest bit");
        assert_eq!(bytes[28..34], MAC);
        assert_eq!(bytes[236..250], [99, 130, 83, 99, 53, 1, 1, 12, 2, b'p', b'i', 55, 6, 1]);
        let address = Ipv4Addr::new(192, 0, 2, 7);
        let longer = Question { kind: Asks::Extend { address }, ..question }.encode();
        assert_eq!((&longer[10..12], &longer[12..16]), (&[0, 0][..], &[192, 0, 2, 7][..]));
    }

    #[test]
    fn an_answer_is_read_with_padding_and_what_is_not_known() {
        let options =
            [0, 0, 1, 4, 255, 255, 255, 0, 200, 2, 1, 2, 3, 8, 192, 0, 2, 1, 192, 0, 2, 2, 51, 4, 0, 0, 14, 16];
        let bytes = written(5, 7, MAC, Ipv4Addr::new(192, 0, 2, 7), &options);
        let answer = Answer::decode(&bytes).unwrap();
        assert_eq!((answer.kind, answer.transaction, answer.lease_s), (Says::Yes, 7, Some(3600)));
        assert_eq!(answer.mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
        assert_eq!(answer.router, Some(Ipv4Addr::new(192, 0, 2, 1)));
        // A server that writes no end is understood; one that is cut within an option is not.
        assert!(Answer::decode(&bytes[..bytes.len() - 1]).is_some());
        assert_eq!(Answer::decode(&bytes[..bytes.len() - 3]), None);
        assert_eq!(Answer::decode(&bytes[..200]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(options in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = Answer::decode(&written(2, 1, MAC, Ipv4Addr::LOCALHOST, &options));
            let _ = Answer::decode(&options);
        }
    }
}
