//! The replicated state as snapshots and joins hold it: no panic, and what is understood is the same state when it is stored
//! again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebreaker_pipeline::state::State;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = State::decode(bytes) {
        let stored = state.encode();
        let again = State::decode(&stored).expect("what was stored can be read");
        assert!(again.encode() == stored);
    }
});
