//! What a joiner and the appliance send each other in CBOR: no panic, and what is understood says the same when it is sent
//! again. The addresses in it are read, too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use tiebreaker_member::Address;
use tiebreaker_member::join::{JoinGrant, JoinInfo};

fn again<T: Serialize + DeserializeOwned + PartialEq>(value: &T) {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, value).expect("what was read can be written");
    assert!(cbor4ii::serde::from_slice::<T>(&bytes[..]).expect("what was written can be read") == *value);
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = cbor4ii::serde::from_slice::<JoinInfo>(bytes) {
        again(&info);
        for text in &info.addresses {
            if let Ok(address) = text.parse::<Address>() {
                assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
    if let Ok(grant) = cbor4ii::serde::from_slice::<JoinGrant>(bytes) {
        again(&grant);
    }
});
