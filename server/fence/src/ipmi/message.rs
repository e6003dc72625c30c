//! IPMI messages as they travel in a LAN session (section 13.8): addresses, two checksums, a request number.

use ipmi_rs_core::connection::{CompletionErrorCode, Message, NetFn};

use super::{error::Malformed, packet::Reader};

/// The BMC's address on its own bus.
const BMC_ADDRESS: u8 = 0x20;
/// The address that remote consoles use.
const CONSOLE_ADDRESS: u8 = 0x81;

/// Numbers a request so that its answer can be told from others. Six bits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestNumber(u8);

impl RequestNumber {
    pub(crate) const LIMIT: u8 = 64;

    pub(crate) fn new(number: u8) -> Option<Self> {
        (number < Self::LIMIT).then_some(Self(number))
    }
}

/// A request as a BMC sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LanRequest {
    pub(crate) number: RequestNumber,
    pub(crate) message: Message,
    responder: u8,
    requester: u8,
    requester_lun: u8,
}

/// A reply as a console sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LanReply {
    pub(crate) number: RequestNumber,
    pub(crate) netfn: u8,
    pub(crate) command: u8,
    pub(crate) code: u8,
    pub(crate) data: Vec<u8>,
}

impl LanReply {
    /// The data of a success.
    pub(crate) fn success(&self) -> Result<&[u8], CompletionErrorCode> {
        match CompletionErrorCode::try_from(self.code) {
            Ok(error) => Err(error),
            Err(()) => Ok(&self.data),
        }
    }
}

/// A request to the BMC.
pub(crate) fn encode_request(number: RequestNumber, message: &Message) -> Vec<u8> {
    encode(
        [BMC_ADDRESS, message.netfn_raw() << 2],
        [CONSOLE_ADDRESS, number.0 << 2, message.cmd()],
        None,
        message.data(),
    )
}

/// The reply to a request.
pub(crate) fn encode_reply(request: &LanRequest, code: u8, data: &[u8]) -> Vec<u8> {
    let netfn = request.message.netfn().response_value();
    encode(
        [request.requester, netfn << 2 | request.requester_lun],
        [request.responder, request.number.0 << 2, request.message.cmd()],
        Some(code),
        data,
    )
}

fn encode(head: [u8; 2], body: [u8; 3], code: Option<u8>, data: &[u8]) -> Vec<u8> {
    let mut out = head.to_vec();
    out.push(checksum(&head));
    let start = out.len();
    out.extend_from_slice(&body);
    out.extend(code);
    out.extend_from_slice(data);
    out.push(checksum(&out[start..]));
    out
}

struct Parts<'a> {
    to: u8,
    netfn: u8,
    from: u8,
    from_lun: u8,
    number: RequestNumber,
    command: u8,
    data: &'a [u8],
}

fn decode(bytes: &[u8]) -> Result<Parts<'_>, Malformed> {
    const SHORT: &str = "short IPMI message";
    let (last, rest) = bytes.split_last().ok_or(Malformed(SHORT))?;
    let mut reader = Reader(rest);
    let [to, netfn_lun, head_sum] = reader.array(SHORT)?;
    if checksum(&[to, netfn_lun]) != head_sum || checksum(reader.0) != *last {
        return Err(Malformed("wrong checksum in an IPMI message"));
    }
    let [from, number_lun, command] = reader.array(SHORT)?;
    let number = RequestNumber(number_lun >> 2);
    Ok(Parts { to, netfn: netfn_lun >> 2, from, from_lun: number_lun & 3, number, command, data: reader.0 })
}

pub(crate) fn decode_request(bytes: &[u8]) -> Result<LanRequest, Malformed> {
    let Parts { to, netfn, from, from_lun, number, command, data } = decode(bytes)?;
    if to != BMC_ADDRESS || !NetFn::is_request_value(netfn) {
        return Err(Malformed("not a request to the BMC"));
    }
    let message = Message::new_raw(netfn, command, data.to_vec());
    Ok(LanRequest { number, message, responder: to, requester: from, requester_lun: from_lun })
}

pub(crate) fn decode_reply(bytes: &[u8]) -> Result<LanReply, Malformed> {
    let Parts { to, netfn, from, from_lun: _, number, command, data } = decode(bytes)?;
    if to != CONSOLE_ADDRESS || from != BMC_ADDRESS || !NetFn::is_response_value(netfn) {
        return Err(Malformed("not a reply of the BMC"));
    }
    let (code, data) = data.split_first().ok_or(Malformed("reply without a completion code"))?;
    Ok(LanReply { number, netfn, command, code: *code, data: data.to_vec() })
}

/// The two's complement of the sum: all bytes and their checksum add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_request() -> Message {
        Message::new_request(NetFn::Chassis, 0x01, vec![])
    }

    #[test]
    fn a_request_has_the_bytes_of_the_specification() {
        let bytes = encode_request(RequestNumber(5), &status_request());
        assert_eq!(bytes, [0x20, 0x00, 0xE0, 0x81, 0x14, 0x01, 0x6A]);
    }

    #[test]
    fn a_reply_carries_its_request_number() {
        let request = decode_request(&encode_request(RequestNumber(63), &status_request())).unwrap();
        let reply = decode_reply(&encode_reply(&request, 0, &[0x21, 0x10, 0x40])).unwrap();
        assert_eq!((reply.number, reply.netfn, reply.command), (RequestNumber(63), 1, 1));
        assert_eq!(reply.success().unwrap(), [0x21, 0x10, 0x40]);
        let refused = decode_reply(&encode_reply(&request, 0xD4, &[])).unwrap();
        assert_eq!(refused.success(), Err(CompletionErrorCode::InsufficientPrivilege));
    }

    #[test]
    fn truncation_and_bit_flips_are_errors() {
        let request = decode_request(&encode_request(RequestNumber(1), &status_request())).unwrap();
        let good = encode_reply(&request, 0, &[1, 2, 3]);
        for n in 0..good.len() {
            assert!(decode_reply(&good[..n]).is_err());
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_reply(&bad).is_err(), "bit {bit}");
        }
        assert!(decode_reply(&encode_request(RequestNumber(1), &status_request())).is_err());
        assert!(decode_request(&good).is_err());
    }
}
