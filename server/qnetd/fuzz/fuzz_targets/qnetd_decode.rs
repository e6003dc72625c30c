//! Any bytes as a stream of messages.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_qnetd::fuzzing::decode(data));
