//! What members send each other in CBOR: no panic, and what is understood says the same when it is sent again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use tiebreaker_member::core::Message;

/// Compared as bytes: some values hold floating-point numbers, of which not each equals itself.
fn again<T: Serialize + DeserializeOwned>(value: &T) {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, value).expect("what was read can be written");
    let read: T = cbor4ii::serde::from_slice(&bytes[..]).expect("what was written can be read");
    let mut twice = Vec::new();
    cbor4ii::serde::to_writer(&mut twice, &read).expect("what was read can be written");
    assert!(bytes == twice);
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = cbor4ii::serde::from_slice::<Message>(bytes) {
        // The receiver asks this of each before anything else.
        let _number = message.number();
        again(&message);
    }
});
