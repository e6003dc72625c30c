//! The join token's reader: no panic, and a token that it understands says the same when it is written again. Checksums are
//! not looked at in this build, or nothing behind them would ever be reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebreaker_member::Token;

fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.to_text().parse().expect("what was written is a token");
        assert!(again == token);
    }
});
