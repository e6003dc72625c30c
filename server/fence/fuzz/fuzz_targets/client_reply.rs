//! Any bytes as a BMC's reply, at each stage of a login and inside a session.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_fence::fuzzing::client_reply(data));
