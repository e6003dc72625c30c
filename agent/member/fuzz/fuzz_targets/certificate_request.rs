//! A joiner's certificate request, as the appliance reads it: no panic, and one whose key is taken can be signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tiebreaker_member::{Ca, LEAF_VALIDITY, Subject, request_key};

static CA: LazyLock<Ca> = LazyLock::new(|| Ca::new_in_memory().expect("an authority can be made"));
static SUBJECT: LazyLock<Subject> =
    LazyLock::new(|| Subject::from_uri("tiebreaker://home/node/a?id=2").expect("a subject"));

fuzz_target!(|csr: &[u8]| {
    let signed = CA.sign(csr, &SUBJECT, 1_800_000_000, LEAF_VALIDITY);
    if let Ok(key) = request_key(csr) {
        assert_eq!(key.len(), 64);
        let leaf = signed.expect("a request whose key was taken is signed");
        let cert = CA.certificate().read_leaf(&leaf).expect("what was signed is read");
        assert_eq!(cert.subject, *SUBJECT);
    }
});
