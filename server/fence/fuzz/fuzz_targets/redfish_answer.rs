//! Any bytes as the answers of a BMC that speaks Redfish.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_fence::fuzzing::redfish_answer(data));
