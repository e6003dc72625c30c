//! The login that goes with each question (RFC 7617).

use bytes::Bytes;
use data_encoding::BASE64;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use crate::Secret;

/// The value of `Authorization`. It never prints, and its memory is wiped once the last question that holds it is gone.
pub(crate) fn basic_login(name: &str, password: &Secret) -> HeaderValue {
    let plain = Zeroizing::new([name.as_bytes(), b":", password.expose()].concat());
    // Room for all of it, so that no half of a password stays behind where the buffer grew.
    let mut value = Zeroizing::new(String::with_capacity(plain.len() * 4 / 3 + 16));
    value.push_str("Basic ");
    BASE64.encode_append(&plain, &mut value);
    let bytes = Bytes::from_owner(Zeroizing::new(value.as_bytes().to_vec()));
    let mut header = HeaderValue::from_maybe_shared(bytes).expect("base64 holds nothing that a header can't");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_rfc_and_never_prints() {
        let header = basic_login("Aladdin", &Secret::for_web("open sesame").unwrap());
        assert_eq!(header.as_bytes(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
