//! RMCP and the two session headers under it. Borrowed views into a datagram; nothing here knows a key.

use super::error::Malformed;

/// The largest datagram that either side takes. The longest of ours has less than 150 bytes.
pub(crate) const MAX_DATAGRAM: usize = 1024;

/// RMCP version 1.0, reserved, sequence 255 (no RMCP acknowledgement wanted), class IPMI.
const RMCP_IPMI: [u8; 4] = [0x06, 0x00, 0xFF, 0x07];
const AUTH_NONE: u8 = 0x00;
const AUTH_RMCP_PLUS: u8 = 0x06;
const FLAG_ENCRYPTED: u8 = 0x80;
const FLAG_AUTHENTICATED: u8 = 0x40;

/// The payload types in use (table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadType {
    Ipmi,
    OpenSessionRequest,
    OpenSessionResponse,
    Rakp1,
    Rakp2,
    Rakp3,
    Rakp4,
}

impl PayloadType {
    const fn number(self) -> u8 {
        match self {
            PayloadType::Ipmi => 0x00,
            PayloadType::OpenSessionRequest => 0x10,
            PayloadType::OpenSessionResponse => 0x11,
            PayloadType::Rakp1 => 0x12,
            PayloadType::Rakp2 => 0x13,
            PayloadType::Rakp3 => 0x14,
            PayloadType::Rakp4 => 0x15,
        }
    }

    fn parse(number: u8) -> Result<Self, Malformed> {
        Ok(match number {
            0x00 => PayloadType::Ipmi,
            0x10 => PayloadType::OpenSessionRequest,
            0x11 => PayloadType::OpenSessionResponse,
            0x12 => PayloadType::Rakp1,
            0x13 => PayloadType::Rakp2,
            0x14 => PayloadType::Rakp3,
            0x15 => PayloadType::Rakp4,
            _ => return Err(Malformed("unknown payload type")),
        })
    }
}

/// A datagram, taken apart as far as that goes without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// IPMI v1.5 framing without authentication. Only the discovery before a login uses it.
    Plain15 { payload: &'a [u8] },
    /// IPMI v2.0 framing.
    Rmcp20(Rmcp20<'a>),
}

/// An RMCP+ packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rmcp20<'a> {
    pub(crate) kind: PayloadType,
    pub(crate) encrypted: bool,
    pub(crate) authenticated: bool,
    pub(crate) session_id: u32,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
    /// All from the session header on: what the trailer's code is computed over, and the code itself.
    pub(crate) body: &'a [u8],
    /// Where the payload ends in `body`.
    pub(crate) payload_end: usize,
}

/// Bytes read one after the other; running out is an error, never a panic.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(bytes).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(head)
    }
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(Malformed("datagram too long"));
        }
        let mut reader = Reader(datagram);
        let [version, _, _, class] = reader.array::<4>("shorter than an RMCP header")?;
        if version != RMCP_IPMI[0] || class != RMCP_IPMI[3] {
            return Err(Malformed("not RMCP of class IPMI"));
        }
        let body = reader.0;
        match reader.byte("no session header")? {
            AUTH_NONE => Self::parse_15(reader),
            AUTH_RMCP_PLUS => Self::parse_20(reader, body),
            _ => Err(Malformed("unsupported authentication type")),
        }
    }

    fn parse_15(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let sequence = reader.u32("short IPMI v1.5 session header")?;
        let session = reader.u32("short IPMI v1.5 session header")?;
        if sequence != 0 || session != 0 {
            return Err(Malformed("IPMI v1.5 session without authentication"));
        }
        let length = reader.byte("short IPMI v1.5 session header")?;
        // Old network chips need one pad byte after some lengths (section 12.7.2), so a rest is no error.
        let payload = reader.take(usize::from(length), "IPMI v1.5 payload shorter than it says")?;
        Ok(Packet::Plain15 { payload })
    }

    fn parse_20(mut reader: Reader<'a>, body: &'a [u8]) -> Result<Self, Malformed> {
        const SHORT: &str = "short RMCP+ session header";
        let flags = reader.byte(SHORT)?;
        let kind = PayloadType::parse(flags & 0x3F)?;
        let session_id = reader.u32(SHORT)?;
        let sequence = reader.u32(SHORT)?;
        let length = reader.u16(SHORT)?;
        let payload = reader.take(usize::from(length), "RMCP+ payload shorter than it says")?;
        Ok(Packet::Rmcp20(Rmcp20 {
            kind,
            encrypted: flags & FLAG_ENCRYPTED != 0,
            authenticated: flags & FLAG_AUTHENTICATED != 0,
            session_id,
            sequence,
            payload,
            body,
            payload_end: body.len() - reader.0.len(),
        }))
    }
}

impl<'a> Rmcp20<'a> {
    /// The payload of a packet outside every session: no id, no number, no protection. `Err` for anything else.
    pub(crate) fn sessionless(&self, wanted: PayloadType) -> Result<&'a [u8], Malformed> {
        if self.kind != wanted {
            return Err(Malformed::OTHER_KIND);
        }
        if self.session_id != 0 || self.sequence != 0 || self.encrypted || self.authenticated {
            return Err(Malformed("login message inside a session"));
        }
        Ok(self.payload)
    }
}

/// An unprotected RMCP+ packet outside every session.
pub(crate) fn sessionless(kind: PayloadType, payload: &[u8]) -> Vec<u8> {
    header_20(kind.number(), 0, 0, payload)
}

/// An RMCP+ packet with both protection flags, before its trailer.
pub(crate) fn protected_head(session_id: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    header_20(PayloadType::Ipmi.number() | FLAG_ENCRYPTED | FLAG_AUTHENTICATED, session_id, sequence, payload)
}

/// An IPMI v1.5 packet outside every session.
pub(crate) fn plain_15(payload: &[u8]) -> Vec<u8> {
    let mut out = RMCP_IPMI.to_vec();
    out.extend_from_slice(&[AUTH_NONE, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.push(u8::try_from(payload.len()).expect("our replies have less than 256 bytes"));
    out.extend_from_slice(payload);
    out
}

/// Bytes before the session header, which the trailer's code leaves out.
pub(crate) const RMCP_BYTES: usize = RMCP_IPMI.len();

fn header_20(flags: u8, session_id: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + payload.len());
    out.extend_from_slice(&RMCP_IPMI);
    out.extend_from_slice(&[AUTH_RMCP_PLUS, flags]);
    out.extend_from_slice(&session_id.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&u16::try_from(payload.len()).expect("our payloads fit a datagram").to_le_bytes());
    out.extend_from_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_the_round_trip() {
        let bytes = sessionless(PayloadType::Rakp1, b"hello");
        let Packet::Rmcp20(packet) = Packet::parse(&bytes).unwrap() else { panic!("not v2.0") };
        assert_eq!(packet.sessionless(PayloadType::Rakp1).unwrap(), b"hello");
        assert!(packet.sessionless(PayloadType::Rakp2).is_err());
        let bytes = plain_15(b"hello");
        assert_eq!(Packet::parse(&bytes).unwrap(), Packet::Plain15 { payload: b"hello" });
    }

    #[test]
    fn every_truncation_is_an_error() {
        for bytes in [sessionless(PayloadType::Rakp1, b"hello"), plain_15(b"hello"), protected_head(1, 1, b"hello")] {
            for length in 0..bytes.len() {
                assert!(Packet::parse(&bytes[..length]).is_err(), "{length} bytes of {bytes:02x?}");
            }
        }
    }

    #[test]
    fn foreign_datagrams_are_refused() {
        // An ASF pong, a v1.5 packet with MD5, an OEM payload, and one that is too long.
        assert!(Packet::parse(&[6, 0, 0xFF, 6, 0, 0, 0x11, 0xBE, 0x40, 0, 0, 16]).is_err());
        assert!(Packet::parse(&[6, 0, 0xFF, 7, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Packet::parse(&[6, 0, 0xFF, 7, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Packet::parse(&[6; MAX_DATAGRAM + 1]).is_err());
    }
}
