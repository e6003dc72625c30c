//! The payloads of a login: Open Session and RAKP messages 1 to 4 (sections 13.17 to 13.24), both directions of each.

use std::fmt;

use super::{
    config::{Suite, UserName},
    crypto::Algorithms,
    error::Malformed,
    packet::Reader,
};

/// Set in the role byte: the BMC finds the account by its name alone. Without it some BMCs also match the privilege
/// and refuse a level below the account's limit.
pub(crate) const NAME_ONLY_LOOKUP: u8 = 0x10;

/// A status of table 13-15, as a BMC sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    pub(crate) const OK: Status = Status(0x00);
    pub(crate) const NO_RESOURCES: Status = Status(0x01);
    pub(crate) const INVALID_SESSION: Status = Status(0x02);
    pub(crate) const BAD_AUTHENTICATION: Status = Status(0x04);
    pub(crate) const BAD_INTEGRITY: Status = Status(0x05);
    pub(crate) const NO_AUTHENTICATION_MATCH: Status = Status(0x06);
    pub(crate) const NO_INTEGRITY_MATCH: Status = Status(0x07);
    pub(crate) const INVALID_ROLE: Status = Status(0x09);
    pub(crate) const UNAUTHORIZED_ROLE: Status = Status(0x0A);
    pub(crate) const NO_RESOURCES_FOR_ROLE: Status = Status(0x0B);
    pub(crate) const INVALID_NAME_LENGTH: Status = Status(0x0C);
    pub(crate) const UNAUTHORIZED_NAME: Status = Status(0x0D);
    pub(crate) const INVALID_CHECK_VALUE: Status = Status(0x0F);
    pub(crate) const BAD_CONFIDENTIALITY: Status = Status(0x10);
    pub(crate) const NO_SUITE_MATCH: Status = Status(0x11);
    pub(crate) const ILLEGAL_PARAMETER: Status = Status(0x12);
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Status::OK => "no error",
            Status::NO_RESOURCES => "insufficient resources to create a session",
            Status::INVALID_SESSION => "invalid session id",
            Status::BAD_AUTHENTICATION => "invalid authentication algorithm",
            Status::BAD_INTEGRITY => "invalid integrity algorithm",
            Status::NO_AUTHENTICATION_MATCH => "no matching authentication payload",
            Status::NO_INTEGRITY_MATCH => "no matching integrity payload",
            Status::INVALID_ROLE => "invalid role",
            Status::UNAUTHORIZED_ROLE => "unauthorized role",
            Status::NO_RESOURCES_FOR_ROLE => "insufficient resources at the requested role",
            Status::INVALID_NAME_LENGTH => "invalid name length",
            Status::UNAUTHORIZED_NAME => "unauthorized name",
            Status::INVALID_CHECK_VALUE => "invalid integrity check value",
            Status::BAD_CONFIDENTIALITY => "invalid confidentiality algorithm",
            Status::NO_SUITE_MATCH => "no cipher suite match",
            Status::ILLEGAL_PARAMETER => "illegal parameter",
            Status(other) => return write!(f, "status {other:#04x}"),
        };
        f.write_str(text)
    }
}

/// What every reply of a login starts with. A refusal may end here, or after the session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplyHead {
    pub(crate) tag: u8,
    pub(crate) status: Status,
}

impl ReplyHead {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let [tag, status] = Reader(payload).array("login reply shorter than its status")?;
        Ok(Self { tag, status: Status(status) })
    }

    /// The session id of a refusal, where the BMC sent one.
    pub(crate) fn refused_session(payload: &[u8]) -> Option<u32> {
        Some(u32::from_le_bytes(payload.get(4..8)?.try_into().ok()?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenRequest {
    pub(crate) tag: u8,
    pub(crate) console_id: u32,
    pub(crate) algorithms: Algorithms,
}

impl OpenRequest {
    pub(crate) fn new(tag: u8, console_id: u32, suite: Suite) -> Self {
        Self { tag, console_id, algorithms: suite.algorithms() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        // Privilege 0 asks for the highest that the account and the suite allow; RAKP message 1 then names the role.
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        put_algorithms(&mut out, self.algorithms);
        out
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: &str = "short Open Session request";
        let mut reader = Reader(payload);
        let [tag, _privilege, _, _] = reader.array(SHORT)?;
        let console_id = reader.u32(SHORT)?;
        Ok(Self { tag, console_id, algorithms: get_algorithms(&mut reader)? })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenReply {
    pub(crate) tag: u8,
    pub(crate) console_id: u32,
    pub(crate) bmc_id: u32,
    pub(crate) algorithms: Algorithms,
}

impl OpenReply {
    pub(crate) fn encode(&self, privilege: u8) -> Vec<u8> {
        let mut out = vec![self.tag, Status::OK.0, privilege, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        out.extend_from_slice(&self.bmc_id.to_le_bytes());
        put_algorithms(&mut out, self.algorithms);
        out
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: &str = "short Open Session reply";
        let mut reader = Reader(payload);
        let [tag, _status, _privilege, _] = reader.array(SHORT)?;
        let console_id = reader.u32(SHORT)?;
        let bmc_id = reader.u32(SHORT)?;
        Ok(Self { tag, console_id, bmc_id, algorithms: get_algorithms(&mut reader)? })
    }
}

fn put_algorithms(out: &mut Vec<u8>, algorithms: Algorithms) {
    let Algorithms { authentication, integrity, confidentiality } = algorithms;
    for (kind, number) in [(0, authentication), (1, integrity), (2, confidentiality)] {
        out.extend_from_slice(&[kind, 0, 0, 8, number, 0, 0, 0]);
    }
}

fn get_algorithms(reader: &mut Reader<'_>) -> Result<Algorithms, Malformed> {
    let mut numbers = [0; 3];
    for (kind, number) in (0u8..).zip(&mut numbers) {
        let [got, _, _, length, algorithm, _, _, _] = reader.array("short algorithm payload")?;
        if got != kind || length != 8 {
            return Err(Malformed("algorithm payloads missing or out of order"));
        }
        *number = algorithm & 0x3F;
    }
    let [authentication, integrity, confidentiality] = numbers;
    Ok(Algorithms { authentication, integrity, confidentiality })
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rakp1 {
    pub(crate) tag: u8,
    pub(crate) bmc_id: u32,
    pub(crate) console_random: [u8; 16],
    pub(crate) role: u8,
    pub(crate) user: Vec<u8>,
}

impl Rakp1 {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend_from_slice(&self.bmc_id.to_le_bytes());
        out.extend_from_slice(&self.console_random);
        let length = u8::try_from(self.user.len()).expect("names have at most 16 bytes");
        out.extend_from_slice(&[self.role, 0, 0, length]);
        out.extend_from_slice(&self.user);
        out
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: &str = "short RAKP message 1";
        let mut reader = Reader(payload);
        let [tag, _, _, _] = reader.array(SHORT)?;
        let bmc_id = reader.u32(SHORT)?;
        let console_random = reader.array(SHORT)?;
        let [role, _, _, length] = reader.array(SHORT)?;
        let length = usize::from(length);
        if length > UserName::MAX_BYTES {
            return Err(Malformed("user name of more than 16 bytes"));
        }
        // Some consoles always send 16 bytes of name, so a rest is no error.
        let user = reader.take(length, "user name shorter than it says")?.to_vec();
        Ok(Self { tag, bmc_id, console_random, role, user })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rakp2 {
    pub(crate) tag: u8,
    pub(crate) console_id: u32,
    pub(crate) bmc_random: [u8; 16],
    pub(crate) bmc_guid: [u8; 16],
    pub(crate) code: Vec<u8>,
}

impl Rakp2 {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, Status::OK.0, 0, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        out.extend_from_slice(&self.bmc_random);
        out.extend_from_slice(&self.bmc_guid);
        out.extend_from_slice(&self.code);
        out
    }

    pub(crate) fn parse(payload: &[u8], suite: Suite) -> Result<Self, Malformed> {
        const SHORT: &str = "short RAKP message 2";
        let mut reader = Reader(payload);
        let [tag, _status, _, _] = reader.array(SHORT)?;
        let console_id = reader.u32(SHORT)?;
        let bmc_random = reader.array(SHORT)?;
        let bmc_guid = reader.array(SHORT)?;
        let code = exact_code(&reader, suite.code_bytes(), "RAKP message 2 with a code of the wrong length")?;
        Ok(Self { tag, console_id, bmc_random, bmc_guid, code })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rakp3 {
    pub(crate) tag: u8,
    pub(crate) status: Status,
    pub(crate) bmc_id: u32,
    /// Empty when the console gives up.
    pub(crate) code: Vec<u8>,
}

impl Rakp3 {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend_from_slice(&self.bmc_id.to_le_bytes());
        out.extend_from_slice(&self.code);
        out
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        const SHORT: &str = "short RAKP message 3";
        let mut reader = Reader(payload);
        let [tag, status, _, _] = reader.array(SHORT)?;
        let bmc_id = reader.u32(SHORT)?;
        Ok(Self { tag, status: Status(status), bmc_id, code: reader.0.to_vec() })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rakp4 {
    pub(crate) tag: u8,
    pub(crate) console_id: u32,
    pub(crate) code: Vec<u8>,
}

impl Rakp4 {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, Status::OK.0, 0, 0];
        out.extend_from_slice(&self.console_id.to_le_bytes());
        out.extend_from_slice(&self.code);
        out
    }

    pub(crate) fn parse(payload: &[u8], suite: Suite) -> Result<Self, Malformed> {
        const SHORT: &str = "short RAKP message 4";
        let mut reader = Reader(payload);
        let [tag, _status, _, _] = reader.array(SHORT)?;
        let console_id = reader.u32(SHORT)?;
        let code = exact_code(&reader, suite.icv_bytes(), "RAKP message 4 with a code of the wrong length")?;
        Ok(Self { tag, console_id, code })
    }
}

fn exact_code(reader: &Reader<'_>, bytes: usize, what: &'static str) -> Result<Vec<u8>, Malformed> {
    if reader.0.len() == bytes { Ok(reader.0.to_vec()) } else { Err(Malformed(what)) }
}

/// A reply that refuses, of any stage: eight bytes.
pub(crate) fn refusal(tag: u8, status: Status, console_id: u32) -> Vec<u8> {
    let mut out = vec![tag, status.0, 0, 0];
    out.extend_from_slice(&console_id.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_round_trip_and_no_truncation_does() {
        let suite = Suite::Sha256;
        let open = OpenRequest::new(7, 0x0102_0304, suite);
        let reply = OpenReply { tag: 7, console_id: 1, bmc_id: 2, algorithms: suite.algorithms() };
        let one = Rakp1 { tag: 7, bmc_id: 2, console_random: [9; 16], role: 0x13, user: b"tb".to_vec() };
        let two = Rakp2 { tag: 7, console_id: 1, bmc_random: [8; 16], bmc_guid: [7; 16], code: vec![6; 32] };
        let three = Rakp3 { tag: 7, status: Status::OK, bmc_id: 2, code: vec![5; 32] };
        let four = Rakp4 { tag: 7, console_id: 1, code: vec![4; 16] };
        assert_eq!(OpenRequest::parse(&open.encode()), Ok(open));
        assert_eq!(OpenReply::parse(&reply.encode(4)), Ok(reply));
        assert_eq!(Rakp1::parse(&one.encode()), Ok(one.clone()));
        assert_eq!(Rakp2::parse(&two.encode(), suite), Ok(two.clone()));
        assert_eq!(Rakp3::parse(&three.encode()), Ok(three.clone()));
        assert_eq!(Rakp4::parse(&four.encode(), suite), Ok(four.clone()));
        // The shapes of a Gigabyte BMC captured with suite 17: RAKP 2 has 72 bytes, 3 has 40, 4 has 24.
        assert_eq!((two.encode().len(), three.encode().len(), four.encode().len()), (72, 40, 24));
        for n in 0..open.encode().len() {
            assert!(OpenRequest::parse(&open.encode()[..n]).is_err());
        }
        for n in 0..reply.encode(4).len() {
            assert!(OpenReply::parse(&reply.encode(4)[..n]).is_err());
        }
        for n in 0..one.encode().len() {
            assert!(Rakp1::parse(&one.encode()[..n]).is_err());
        }
        for n in 0..two.encode().len() {
            assert!(Rakp2::parse(&two.encode()[..n], suite).is_err());
        }
        for n in 0..four.encode().len() {
            assert!(Rakp4::parse(&four.encode()[..n], suite).is_err());
        }
        for n in 0..8 {
            assert!(Rakp3::parse(&three.encode()[..n]).is_err());
        }
    }
}
