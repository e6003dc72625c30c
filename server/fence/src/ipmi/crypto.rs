//! The algorithms of the two suites: HMAC, the keys of a session, AES-CBC with IPMI's own padding.

use aes::{
    Aes128,
    cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{config::Suite, error::Malformed};
use crate::Secret;

/// Bytes of an AES block and of its initialisation vector.
pub(crate) const AES_BLOCK: usize = 16;
/// The constants that K1 and K2 are derived from have 20 bytes, for SHA-256 too: what the specification says of SHA-1
/// (section 13.32) all implementations kept.
const KEY_CONSTANT_BYTES: usize = 20;

/// Key material, wiped on drop.
pub(crate) type Digest = Zeroizing<Vec<u8>>;

/// The algorithm numbers of a suite in an Open Session payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Algorithms {
    pub(crate) authentication: u8,
    pub(crate) integrity: u8,
    pub(crate) confidentiality: u8,
}

impl Suite {
    pub(crate) const fn algorithms(self) -> Algorithms {
        match self {
            Suite::Sha1 => Algorithms { authentication: 1, integrity: 1, confidentiality: 1 },
            Suite::Sha256 => Algorithms { authentication: 3, integrity: 4, confidentiality: 1 },
        }
    }

    /// Bytes of the key exchange codes in RAKP messages 2 and 3.
    pub(crate) const fn code_bytes(self) -> usize {
        match self {
            Suite::Sha1 => 20,
            Suite::Sha256 => 32,
        }
    }

    /// Bytes of the integrity check value in RAKP message 4, and of each packet's trailer.
    pub(crate) const fn icv_bytes(self) -> usize {
        match self {
            Suite::Sha1 => 12,
            Suite::Sha256 => 16,
        }
    }

    /// HMAC over the parts put together.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        fn run<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
            parts.iter().for_each(|part| mac.update(part));
            Zeroizing::new(mac.finalize().into_bytes().to_vec())
        }
        match self {
            Suite::Sha1 => run::<Hmac<Sha1>>(key, parts),
            Suite::Sha256 => run::<Hmac<Sha256>>(key, parts),
        }
    }
}

/// Compares codes without telling by its time where they differ. `got` may be cut shorter than `full` by the suite, so
/// the caller names the length that it must have.
pub(crate) fn code_matches(got: &[u8], full: &[u8], bytes: usize) -> bool {
    match full.get(..bytes) {
        Some(wanted) => got.ct_eq(wanted).into(),
        None => false,
    }
}

/// What both sides must agree on before there are keys: everything that the RAKP messages exchange.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) suite: Suite,
    /// The console's (our) session id.
    pub(crate) console_id: u32,
    /// The BMC's session id.
    pub(crate) bmc_id: u32,
    pub(crate) console_random: [u8; 16],
    pub(crate) bmc_random: [u8; 16],
    pub(crate) bmc_guid: [u8; 16],
    /// The role byte as sent, name-only lookup bit included.
    pub(crate) role: u8,
    pub(crate) user: Vec<u8>,
}

impl Exchange {
    fn user_length(&self) -> [u8; 1] {
        [u8::try_from(self.user.len()).expect("names have at most 16 bytes")]
    }

    /// The code in RAKP message 2, by which the BMC shows that it knows the password.
    pub(crate) fn rakp2_code(&self, password: &Secret) -> Digest {
        self.suite.hmac(
            password.expose(),
            &[
                &self.console_id.to_le_bytes(),
                &self.bmc_id.to_le_bytes(),
                &self.console_random,
                &self.bmc_random,
                &self.bmc_guid,
                &[self.role],
                &self.user_length(),
                &self.user,
            ],
        )
    }

    /// The code in RAKP message 3, by which the console shows that it knows the password.
    pub(crate) fn rakp3_code(&self, password: &Secret) -> Digest {
        self.suite.hmac(
            password.expose(),
            &[&self.bmc_random, &self.console_id.to_le_bytes(), &[self.role], &self.user_length(), &self.user],
        )
    }

    /// The session integrity key, from which all others come. K_G is the password where the BMC has none of its own.
    pub(crate) fn integrity_key(&self, kg: &Secret) -> Digest {
        self.suite
            .hmac(kg.expose(), &[&self.console_random, &self.bmc_random, &[self.role], &self.user_length(), &self.user])
    }

    /// The whole code in RAKP message 4, of which the first [`Suite::icv_bytes`] are sent.
    pub(crate) fn rakp4_code(&self, integrity_key: &[u8]) -> Digest {
        self.suite.hmac(integrity_key, &[&self.console_random, &self.bmc_id.to_le_bytes(), &self.bmc_guid])
    }
}

/// The keys of one session.
pub(crate) struct Keys {
    suite: Suite,
    integrity: Digest,
    encryption: Zeroizing<[u8; 16]>,
}

impl Keys {
    pub(crate) fn derive(suite: Suite, integrity_key: &[u8]) -> Self {
        let integrity = suite.hmac(integrity_key, &[&[1; KEY_CONSTANT_BYTES]]);
        let k2 = suite.hmac(integrity_key, &[&[2; KEY_CONSTANT_BYTES]]);
        let mut encryption = Zeroizing::new([0; 16]);
        encryption.copy_from_slice(&k2[..16]);
        Self { suite, integrity, encryption }
    }

    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// The code over a packet, of which the first [`Suite::icv_bytes`] are sent.
    pub(crate) fn code(&self, signed: &[u8]) -> Digest {
        self.suite.hmac(&self.integrity, &[signed])
    }

    /// Initialisation vector, then the plain bytes, padded and encrypted (section 13.29).
    pub(crate) fn encrypt(&self, iv: [u8; AES_BLOCK], plain: &[u8]) -> Vec<u8> {
        let pad = (AES_BLOCK - (plain.len() + 1) % AES_BLOCK) % AES_BLOCK;
        let mut body = Vec::with_capacity(AES_BLOCK + plain.len() + pad + 1);
        body.extend_from_slice(plain);
        body.extend((1..=pad).map(|n| u8::try_from(n).expect("less than a block")));
        body.push(u8::try_from(pad).expect("less than a block"));
        let length = body.len();
        cbc::Encryptor::<Aes128>::new(&(*self.encryption).into(), &iv.into())
            .encrypt_padded::<NoPadding>(&mut body, length)
            .expect("the length is a multiple of the block");
        let mut out = iv.to_vec();
        out.append(&mut body);
        out
    }

    /// The reverse. Only called on bytes whose code was right.
    pub(crate) fn decrypt(&self, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
        let (iv, body) = bytes.split_first_chunk::<AES_BLOCK>().ok_or(Malformed("encrypted payload without its IV"))?;
        let mut plain = body.to_vec();
        cbc::Decryptor::<Aes128>::new(&(*self.encryption).into(), &(*iv).into())
            .decrypt_padded::<NoPadding>(&mut plain)
            .map_err(|_| Malformed("encrypted payload is no multiple of 16 bytes"))?;
        let pad = usize::from(plain.pop().ok_or(Malformed("encrypted payload is empty"))?);
        let keep = plain.len().checked_sub(pad).ok_or(Malformed("padding longer than the payload"))?;
        if pad >= AES_BLOCK || plain[keep..].iter().enumerate().any(|(at, byte)| usize::from(*byte) != at + 1) {
            return Err(Malformed("wrong padding in the encrypted payload"));
        }
        plain.truncate(keep);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests;
