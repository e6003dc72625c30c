//! Any bytes as requests to our BMC, in each of its states.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_fence::fuzzing::bmc_packet(data));
