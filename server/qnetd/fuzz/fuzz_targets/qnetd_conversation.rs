//! Any bytes as the conversation of several clients with the server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_qnetd::fuzzing::conversation(data));
