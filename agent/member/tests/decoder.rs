//! The frame decoder takes whatever comes.

#![allow(clippy::unwrap_used)]

use tiebreaker_member::{Decoder, Frame, Hello, Purpose, RefuseCode, encode};

/// xorshift64*: the same bytes on every run, and a failing case is its number.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next() >> 56).unwrap()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
}

/// Feeds `stream` in pieces; every frame that comes out is one that can be sent again.
fn digest(stream: &[u8], random: &mut Bytes) {
    let mut decoder = Decoder::new(16 << 10);
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, tail) = rest.split_at(1 + random.below(rest.len()));
        decoder.feed(piece);
        rest = tail;
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    let bytes = encode(&frame).unwrap();
                    let mut again = Decoder::new(1 << 20);
                    again.feed(&bytes);
                    assert_eq!(again.next_frame().unwrap(), Some(frame));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

#[test]
fn random_bytes_do_no_harm() {
    for case in 1..20_000_u64 {
        let mut random = Bytes(case);
        let len = 1 + random.below(200);
        let mut stream: Vec<u8> = (0..len).map(|_| random.byte()).collect();
        if case % 2 == 0 && len > 4 {
            // A length that fits, so that the body is looked at.
            stream[..4].copy_from_slice(&u32::try_from(len - 4).unwrap().to_be_bytes());
        }
        digest(&stream, &mut random);
    }
}

#[test]
fn bent_frames_do_no_harm() {
    let frames = [
        Frame::Hello(Hello { min: 1, max: 1, purpose: Purpose::Relay { to: "n1".parse().unwrap() } }),
        Frame::Refuse { code: RefuseCode::Busy, text: "later".into(), epoch: None },
        Frame::Urgent(vec![1; 40]),
        Frame::Data { more: true, bytes: vec![2; 40] },
        Frame::Ping { n: u64::MAX },
    ];
    let stream: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
    for case in 1..20_000_u64 {
        let mut random = Bytes(case);
        let mut bent = stream.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bent.len());
            match random.below(3) {
                0 => bent[at] = random.byte(),
                1 => bent.truncate(at.max(1)),
                _ => bent.insert(at, random.byte()),
            }
        }
        digest(&bent, &mut random);
    }
}
