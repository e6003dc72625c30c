//! Any bytes as what a smart plug or a fence agent says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiebreaker_fence::fuzzing::plug_answer(data));
