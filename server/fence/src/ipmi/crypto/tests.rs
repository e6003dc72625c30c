//! Golden values computed with Python's hmac and hashlib and with OpenSSL, so that they owe nothing to this code.

use super::*;
use crate::ipmi::{
    packet::Packet,
    sealed::{Window, open, seal},
};

struct Golden {
    suite: Suite,
    rakp2: &'static str,
    rakp3: &'static str,
    integrity_key: &'static str,
    rakp4: &'static str,
    packet: &'static str,
}

const GOLDEN: [Golden; 2] = [
    Golden {
        suite: Suite::Sha1,
        rakp2: "78f50e9ee647bc4228d5245a59227b9419c83c26",
        rakp3: "d3fe8a79d97b885277da5d762b904f5b1da134ac",
        integrity_key: "989e767c82425df56b5a68bc0ce496e21bda712d",
        rakp4: "b8b301a465cc52d374e2184d",
        packet: "0600ff0706c0b3b2b1b00100000020007777777777777777777777777777777746758315fd67d6596091d4a1a4db8d2dffff0207\
                 2f0a2fb6ddb3b67c94abb527",
    },
    Golden {
        suite: Suite::Sha256,
        rakp2: "a4a76dd07309afac602c7d781dc163feabd975ad21fd8dfdc17dce354401bc45",
        rakp3: "6277777705b2c10e4f9e754caadc1b5b89e791e587afc6c4f1dbc0575bb8af4d",
        integrity_key: "3108e1c7ad979b450a2c278d166d9c4c9e2177b61140d1673582bea88c50ee70",
        rakp4: "0e4b08d6835cd537deb4c5c9042e47ac",
        packet: "0600ff0706c0b3b2b1b001000000200077777777777777777777777777777777fe1e76e84432d4ad968801d9515a6473ffff0207\
                 57e5e059b3449ad0e7d6086a98941def",
    },
];

/// Get Chassis Status under request number 5.
const PLAIN: [u8; 7] = [0x20, 0x00, 0xE0, 0x81, 0x14, 0x01, 0x6A];
const BMC_ID: u32 = 0xB0B1_B2B3;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn count_from(first: u8) -> [u8; 16] {
    std::array::from_fn(|n| first + u8::try_from(n).unwrap())
}

fn exchange(suite: Suite) -> Exchange {
    Exchange {
        suite,
        console_id: 0xA0A1_A2A3,
        bmc_id: BMC_ID,
        console_random: count_from(0),
        bmc_random: count_from(16),
        bmc_guid: count_from(32),
        role: 0x13,
        user: b"fence".to_vec(),
    }
}

#[test]
fn codes_and_keys_have_the_values_of_an_independent_computation() {
    let password = Secret::new("correct horse").unwrap();
    let kg = Secret::new("another key").unwrap();
    for golden in GOLDEN {
        let exchange = exchange(golden.suite);
        assert_eq!(hex(&exchange.rakp2_code(&password)), golden.rakp2);
        assert_eq!(hex(&exchange.rakp3_code(&password)), golden.rakp3);
        let integrity_key = exchange.integrity_key(&kg);
        assert_eq!(hex(&integrity_key), golden.integrity_key);
        assert_eq!(hex(&exchange.rakp4_code(&integrity_key)[..golden.suite.icv_bytes()]), golden.rakp4);
    }
}

#[test]
fn a_sealed_packet_has_the_bytes_of_an_independent_computation() {
    for golden in GOLDEN {
        let kg = Secret::new("another key").unwrap();
        let keys = Keys::derive(golden.suite, &exchange(golden.suite).integrity_key(&kg));
        let bytes = seal(&keys, BMC_ID, 1, [0x77; 16], &PLAIN);
        assert_eq!(hex(&bytes), golden.packet);
        let Packet::Rmcp20(packet) = Packet::parse(&bytes).unwrap() else { panic!("not v2.0") };
        assert_eq!(open(&keys, &mut Window::default(), BMC_ID, &packet).unwrap(), PLAIN);
    }
}

#[test]
fn wrong_padding_is_refused() {
    let keys = Keys::derive(Suite::Sha256, b"any");
    // Padding of a whole block, longer than the payload, and of the wrong bytes.
    for (last, pad) in [(16u8, 16u8), (2, 255), (9, 2)] {
        let mut body = [0u8; 16];
        (body[14], body[15]) = (last, pad);
        cbc::Encryptor::<Aes128>::new(&(*keys.encryption).into(), &[0; 16].into())
            .encrypt_padded::<NoPadding>(&mut body, 16)
            .unwrap();
        assert!(keys.decrypt(&[[0; 16], body].concat()).is_err(), "pad {pad}");
    }
}

#[test]
fn a_code_matches_at_its_full_length_only() {
    assert!(code_matches(&[1, 2, 3], &[1, 2, 3, 4], 3));
    assert!(!code_matches(&[1, 2], &[1, 2, 3, 4], 3));
    assert!(!code_matches(&[1, 2, 3, 4], &[1, 2, 3, 4], 3));
    assert!(!code_matches(&[], &[1, 2, 3, 4], 3));
    assert!(!code_matches(&[1, 2, 3, 4, 5], &[1, 2, 3, 4], 5));
}
