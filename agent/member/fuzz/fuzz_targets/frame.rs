//! The frame decoder, fed in two pieces: no panic, and whatever it understands can be sent again and means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebreaker_member::{Decoder, encode};

fuzz_target!(|input: (u8, &[u8])| {
    let (cut, stream) = input;
    let (head, tail) = stream.split_at(usize::from(cut).min(stream.len()));
    let mut decoder = Decoder::new(16 << 10);
    for piece in [head, tail] {
        decoder.feed(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    let bytes = encode(&frame).expect("what fitted into a frame fits again");
                    let mut again = Decoder::new(1 << 20);
                    again.feed(&bytes);
                    assert_eq!(again.next_frame(), Ok(Some(frame)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
