//! TLS 1.3 after the handshake, from keys that another process has negotiated: what carries a client's connection over a
//! restart. Nothing but the record layer (RFC 8446, 5.2): data in, data out, and the end. Whoever wants more, new keys
//! above all, loses the connection and comes again; stock clients don't.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls_next::ConnectionTrafficSecrets;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// A record's head: type, version, length.
const HEAD: usize = 5;
/// Plain text in a record at most.
const PLAIN_MAX: usize = 1 << 14;
/// What encryption may add to it at most.
const ADDED_MAX: usize = 256;
/// Records under one key at most: the bound for AES-GCM (RFC 8446, 5.5), with room. An echo every 8 s takes four years.
const RECORDS_MAX: u64 = 1 << 24;

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const CLOSE_NOTIFY: u8 = 0;

/// Why a connection can't go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The peer has ended it.
    #[error("the peer has ended TLS")]
    Closed,
    /// What came is not of this peer, or was changed.
    #[error("a TLS record is not the peer's")]
    Forged,
    /// What came is no record of TLS 1.3 with data.
    #[error("a TLS record holds something other than data, which a connection that was handed over can't do")]
    Unexpected,
    /// The keys were used for as long as they may be.
    #[error("the TLS keys of a connection that was handed over are used up")]
    UsedUp,
    /// The keys don't fit the algorithm.
    #[error("the TLS keys that were handed over are unusable")]
    Keys,
}

/// How records are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Suite {
    /// AES-128 in Galois/counter mode: what stock clients choose.
    Aes128Gcm,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20 and Poly1305.
    Chacha20Poly1305,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// The keys of one direction, to be handed over.
#[derive(Clone, Serialize, Deserialize)]
pub struct Keys {
    suite: Suite,
    key: Vec<u8>,
    iv: [u8; 12],
    /// The number of the next record.
    next: u64,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl Keys {
    /// Takes what the library gives away; `None` for what isn't handed over.
    pub fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Option<Self> {
        let (suite, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::Chacha20Poly1305, key, iv),
            _ => return None,
        };
        Some(Self { suite, key: key.as_ref().to_vec(), iv: iv.as_ref().try_into().ok()?, next })
    }
}

/// One direction at work. The keys are kept as they came, because they may be handed over again.
struct Direction {
    keys: Keys,
    cipher: LessSafeKey,
}

impl Direction {
    fn new(keys: Keys) -> Result<Self, RecordError> {
        let cipher = UnboundKey::new(keys.suite.algorithm(), &keys.key).map_err(|_| RecordError::Keys)?;
        Ok(Self { keys, cipher: LessSafeKey::new(cipher) })
    }

    /// The next record's nonce; none is ever used twice.
    fn nonce(&mut self) -> Result<Nonce, RecordError> {
        if self.keys.next >= RECORDS_MAX {
            return Err(RecordError::UsedUp);
        }
        let mut nonce = self.keys.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(self.keys.next.to_be_bytes()) {
            *byte ^= number;
        }
        self.keys.next += 1;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Both directions of a connection.
pub struct Records {
    receive: Direction,
    send: Direction,
}

impl Records {
    /// Goes on with keys.
    ///
    /// # Errors
    /// They don't fit.
    pub fn new(receive: Keys, send: Keys) -> Result<Self, RecordError> {
        Ok(Self { receive: Direction::new(receive)?, send: Direction::new(send)? })
    }

    /// The keys, to be handed over once more: to receive, and to send.
    pub fn into_keys(self) -> (Keys, Keys) {
        (self.receive.keys, self.send.keys)
    }

    /// Decrypts all whole records at the beginning of `bytes` and takes them out of it.
    ///
    /// # Errors
    /// It is over; what was decrypted before is in `plain`.
    pub fn receive(&mut self, bytes: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), RecordError> {
        loop {
            let Some(&[kind, major, minor, high, low]) = bytes.first_chunk::<HEAD>() else { return Ok(()) };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != APPLICATION_DATA || length > PLAIN_MAX + ADDED_MAX {
                return Err(RecordError::Unexpected);
            }
            let Some(body) = bytes.get_mut(HEAD..HEAD + length) else { return Ok(()) };
            let nonce = self.receive.nonce()?;
            let head = [kind, major, minor, high, low];
            let opened =
                self.receive.cipher.open_in_place(nonce, Aad::from(head), body).map_err(|_| RecordError::Forged)?;
            // Behind the content comes its type, and then only padding.
            let last = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Unexpected)?;
            let (content, rest) = opened.split_at(last);
            match rest.first() {
                Some(&APPLICATION_DATA) => plain.extend_from_slice(content),
                Some(&ALERT) if content.get(1) == Some(&CLOSE_NOTIFY) => return Err(RecordError::Closed),
                _ => return Err(RecordError::Unexpected),
            }
            bytes.drain(..HEAD + length);
        }
    }

    /// Encrypts.
    ///
    /// # Errors
    /// The keys are used up.
    pub fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), RecordError> {
        for content in plain.chunks(PLAIN_MAX) {
            let mut body = Zeroizing::new(content.to_vec());
            body.push(APPLICATION_DATA);
            let length = body.len() + self.send.cipher.algorithm().tag_len();
            let [high, low] = u16::try_from(length).map_err(|_| RecordError::Unexpected)?.to_be_bytes();
            let head = [APPLICATION_DATA, 3, 3, high, low];
            let nonce = self.send.nonce()?;
            self.send
                .cipher
                .seal_in_place_append_tag(nonce, Aad::from(head), &mut *body)
                .map_err(|_| RecordError::Unexpected)?;
            out.extend(head);
            out.extend_from_slice(&body);
        }
        Ok(())
    }
}
