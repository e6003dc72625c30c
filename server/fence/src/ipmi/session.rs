//! An open session as the console sees it. Takes datagrams, gives datagrams.

use ipmi_rs_core::connection::Message;

use super::{
    crypto::{AES_BLOCK, Keys},
    error::Malformed,
    message::{LanReply, RequestNumber, decode_reply, encode_request},
    packet::Packet,
    sealed::{Window, open, seal},
};

/// The keys and counters of a session.
pub(crate) struct Session {
    keys: Keys,
    console_id: u32,
    bmc_id: u32,
    sequence: u32,
    window: Window,
    next_number: u8,
}

/// The one request whose answer is awaited. Older ones are forgotten: their answers tell of the past.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    number: RequestNumber,
    netfn: u8,
    command: u8,
}

impl Session {
    pub(crate) fn new(keys: Keys, console_id: u32, bmc_id: u32) -> Self {
        Self { keys, console_id, bmc_id, sequence: 0, window: Window::default(), next_number: 0 }
    }

    /// The BMC's id of this session.
    pub(crate) fn bmc_id(&self) -> u32 {
        self.bmc_id
    }

    /// A request under a number that this session has never used. `None` once all 64 are spent: a number used twice
    /// would let the answer to its first use pass for the second's.
    pub(crate) fn request(&mut self, message: &Message, iv: [u8; AES_BLOCK]) -> Option<(Awaited, Vec<u8>)> {
        let number = RequestNumber::new(self.next_number)?;
        self.next_number += 1;
        self.sequence += 1;
        let plain = encode_request(number, message);
        let awaited = Awaited { number, netfn: message.netfn().response_value(), command: message.cmd() };
        Some((awaited, seal(&self.keys, self.bmc_id, self.sequence, iv, &plain)))
    }

    /// The answer to the awaited request; an error for every other datagram.
    pub(crate) fn receive(&mut self, awaited: Awaited, datagram: &[u8]) -> Result<LanReply, Malformed> {
        let Packet::Rmcp20(packet) = Packet::parse(datagram)? else {
            return Err(Malformed("IPMI v1.5 packet in an IPMI v2.0 session"));
        };
        let plain = open(&self.keys, &mut self.window, self.console_id, &packet)?;
        let reply = decode_reply(&plain)?;
        if reply.number != awaited.number {
            return Err(Malformed::EARLIER_REQUEST);
        }
        if reply.netfn != awaited.netfn || reply.command != awaited.command {
            return Err(Malformed("answer to another command"));
        }
        Ok(reply)
    }
}
