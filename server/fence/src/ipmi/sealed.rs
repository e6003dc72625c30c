//! Packets inside a session: encrypted, authenticated, numbered.

use super::{
    crypto::{AES_BLOCK, Keys, code_matches},
    error::Malformed,
    packet::{PayloadType, RMCP_BYTES, Rmcp20, protected_head},
};

/// Section 13.28.4: after the padding its length, then this constant, then the code.
const NEXT_HEADER: u8 = 0x07;

/// Encrypts and signs an IPMI message.
pub(crate) fn seal(keys: &Keys, session_id: u32, sequence: u32, iv: [u8; AES_BLOCK], plain: &[u8]) -> Vec<u8> {
    let mut out = protected_head(session_id, sequence, &keys.encrypt(iv, plain));
    sign(keys, &mut out);
    out
}

/// Appends the trailer to a packet whose head says that it has one.
pub(crate) fn sign(keys: &Keys, out: &mut Vec<u8>) {
    let pad = (4 - (out.len() - RMCP_BYTES + 2) % 4) % 4;
    out.extend(std::iter::repeat_n(0xFF, pad));
    out.push(u8::try_from(pad).expect("less than 4"));
    out.push(NEXT_HEADER);
    let code = keys.code(&out[RMCP_BYTES..]);
    out.extend_from_slice(&code[..keys.suite().icv_bytes()]);
}

/// Checks everything about a packet of a session and decrypts it. Nothing of an unauthenticated packet is looked at
/// but where it belongs.
pub(crate) fn open(
    keys: &Keys,
    window: &mut Window,
    session_id: u32,
    packet: &Rmcp20<'_>,
) -> Result<Vec<u8>, Malformed> {
    if packet.session_id != session_id {
        return Err(Malformed::OTHER_SESSION);
    }
    if !packet.encrypted || !packet.authenticated {
        return Err(Malformed("packet of the session without protection"));
    }
    if packet.kind != PayloadType::Ipmi {
        return Err(Malformed("payload of another kind inside the session"));
    }
    let icv = keys.suite().icv_bytes();
    let split = packet.body.len().checked_sub(icv).ok_or(Malformed("packet without its trailer"))?;
    let (signed, code) = packet.body.split_at(split);
    if !code_matches(code, &keys.code(signed), icv) {
        return Err(Malformed("wrong integrity code"));
    }
    // From here on the sender knew the key. The rest guards against replays and against bugs of firmware.
    let Some([pad @ .., pad_bytes, next]) = signed.get(packet.payload_end..) else {
        return Err(Malformed("packet without its trailer"));
    };
    if *next != NEXT_HEADER || usize::from(*pad_bytes) != pad.len() {
        return Err(Malformed("wrong trailer"));
    }
    window.accept(packet.sequence)?;
    keys.decrypt(packet.payload)
}

/// The session sequence numbers already seen (section 6.12.13). Each is taken once, and only near the newest.
#[derive(Debug, Default)]
pub(crate) struct Window {
    newest: u32,
    /// Bit n: `newest - n` was seen.
    seen: u16,
}

impl Window {
    const BEHIND: u32 = 15;
    const AHEAD: u32 = 16;

    fn accept(&mut self, sequence: u32) -> Result<(), Malformed> {
        if sequence == 0 {
            return Err(Malformed("session sequence number zero"));
        }
        if self.newest == 0 {
            // The keys are new with each session, so the first authentic number can't be a replay.
            *self = Self { newest: sequence, seen: 1 };
            return Ok(());
        }
        let ahead = sequence.wrapping_sub(self.newest);
        let behind = self.newest.wrapping_sub(sequence);
        if (1..=Self::AHEAD).contains(&ahead) {
            self.newest = sequence;
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            return Ok(());
        }
        if behind > Self::BEHIND {
            return Err(Malformed("session sequence number outside the window"));
        }
        if self.seen & (1 << behind) != 0 {
            return Err(Malformed::SEEN_BEFORE);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{config::Suite, packet::Packet};
    use super::*;

    const ID: u32 = 0xA1B2_C3D4;

    fn keys(suite: Suite) -> Keys {
        Keys::derive(suite, b"any integrity key")
    }

    fn open_bytes(keys: &Keys, window: &mut Window, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        match Packet::parse(bytes)? {
            Packet::Rmcp20(packet) => open(keys, window, ID, &packet),
            Packet::Plain15 { .. } => Err(Malformed("v1.5")),
        }
    }

    #[test]
    fn what_is_sealed_opens_for_every_length() {
        for suite in [Suite::Sha1, Suite::Sha256] {
            let keys = keys(suite);
            for length in 0..70 {
                let plain: Vec<u8> = (0..length).collect();
                let bytes = seal(&keys, ID, 9, [3; 16], &plain);
                assert_eq!((bytes.len() - RMCP_BYTES - suite.icv_bytes()) % 4, 0);
                assert_eq!(open_bytes(&keys, &mut Window::default(), &bytes).unwrap(), plain);
            }
        }
    }

    #[test]
    fn any_flipped_bit_any_cut_and_any_other_key_is_refused() {
        for suite in [Suite::Sha1, Suite::Sha256] {
            let keys = keys(suite);
            let good = seal(&keys, ID, 9, [3; 16], b"status");
            for bit in RMCP_BYTES * 8..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(open_bytes(&keys, &mut Window::default(), &bad).is_err(), "bit {bit}");
            }
            for length in 0..good.len() {
                assert!(open_bytes(&keys, &mut Window::default(), &good[..length]).is_err());
            }
            let other = Keys::derive(suite, b"another integrity key");
            let error = open_bytes(&other, &mut Window::default(), &good).unwrap_err();
            assert_eq!(error, Malformed("wrong integrity code"));
        }
    }

    #[test]
    fn a_payload_that_is_no_multiple_of_16_is_an_error_even_when_signed() {
        let keys = keys(Suite::Sha256);
        for length in (0..50).filter(|n| n % 16 != 0 || *n < 32) {
            let mut bytes = protected_head(ID, 9, &vec![7; length]);
            sign(&keys, &mut bytes);
            assert!(open_bytes(&keys, &mut Window::default(), &bytes).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn unprotected_and_foreign_packets_are_refused() {
        let keys = keys(Suite::Sha1);
        let good = seal(&keys, ID, 9, [3; 16], b"status");
        let mut plain = good.clone();
        plain[5] = 0;
        assert_eq!(
            open_bytes(&keys, &mut Window::default(), &plain).unwrap_err(),
            Malformed("packet of the session without protection")
        );
        let foreign = seal(&keys, ID + 1, 9, [3; 16], b"status");
        assert_eq!(
            open_bytes(&keys, &mut Window::default(), &foreign).unwrap_err(),
            Malformed("packet of another session")
        );
    }

    #[test]
    fn a_replayed_packet_is_refused() {
        let keys = keys(Suite::Sha256);
        let mut window = Window::default();
        let bytes = seal(&keys, ID, 9, [3; 16], b"status");
        assert!(open_bytes(&keys, &mut window, &bytes).is_ok());
        let error = open_bytes(&keys, &mut window, &bytes).unwrap_err();
        assert_eq!(error, Malformed("session sequence number seen before"));
    }

    #[test]
    fn the_window_takes_each_number_once_and_only_near_the_newest() {
        let mut window = Window::default();
        assert!(window.accept(0).is_err());
        let steps = [
            (100, true),
            (99, true),
            (99, false),
            (101, true),
            (100, false),
            (86, true),   // 15 behind
            (85, false),  // 16 behind
            (118, false), // 17 ahead
            (117, true),  // 16 ahead
            (117, false),
            (101, false), // now 16 behind
            (102, true),
        ];
        for (sequence, fresh) in steps {
            assert_eq!(window.accept(sequence).is_ok(), fresh, "{sequence}");
        }
    }

    #[test]
    fn the_window_survives_the_wrap() {
        let mut window = Window::default();
        assert!(window.accept(u32::MAX).is_ok());
        assert!(window.accept(1).is_ok());
        assert!(window.accept(u32::MAX).is_err());
    }
}
