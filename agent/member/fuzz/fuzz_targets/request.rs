//! What operators ask in CBOR, of a member or through a daemon's socket, and how the daemons look at it first: no panic, what
//! is understood says the same when it is passed on, and what a client writes about itself is no signature.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use tiebreaker_member::ask::LocalRequest;
use tiebreaker_member::core::{Origin, Request};

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
    if let Ok(request) = cbor4ii::serde::from_slice::<Request>(bytes) {
        again(&request);
        let signed = request.signed("the one who asks".into());
        if let Request::Fence { by, .. } | Request::Confirm { by, .. } | Request::Force { by, .. } = &signed {
            assert_eq!(by, "the one who asks");
        }
        for origin in [Origin::Daemon, Origin::Operator, Origin::Node, Origin::Appliance] {
            if let Err(why) = signed.permitted(origin) {
                assert!(!why.is_empty());
            }
        }
    }
    if let Ok(request) = cbor4ii::serde::from_slice::<LocalRequest>(bytes) {
        again(&request);
        // Logs show it, and no password that may be in it.
        let _shown = format!("{request:?}");
    }
});
