//! The login by a digest (RFC 7616), with SHA-256 and nothing weaker: the password doesn't cross the network.

use data_encoding::HEXLOWER;
use hyper::{HeaderMap, Method, header::WWW_AUTHENTICATE};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Secret;

/// The longest challenge that is read, and the longest value in it.
const MAX_CHALLENGE: usize = 1024;
/// More parameters than any challenge has.
const MAX_PARAMETERS: usize = 16;

/// What a server wants to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    nonce: String,
    opaque: Option<String>,
    /// The answer before was right, but to an older challenge.
    pub(crate) stale: bool,
}

impl Challenge {
    /// The challenge of a 401. `None` if there is none that can be answered: another scheme or hash, no `qop` of `auth`, or
    /// a header that is no challenge.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(WWW_AUTHENTICATE).iter().take(4).find_map(|value| Self::parse(value.to_str().ok()?))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_CHALLENGE {
            return None;
        }
        let (scheme, rest) = text.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let (mut realm, mut nonce, mut opaque, mut algorithm, mut qop, mut stale) =
            (None, None, None, None, None, None);
        let mut rest = rest;
        for _ in 0..MAX_PARAMETERS {
            let (name, value, after) = parameter(rest)?;
            let slot = match name.to_ascii_lowercase().as_str() {
                "realm" => Some(&mut realm),
                "nonce" => Some(&mut nonce),
                "opaque" => Some(&mut opaque),
                "algorithm" => Some(&mut algorithm),
                "qop" => Some(&mut qop),
                "stale" => Some(&mut stale),
                _ => None,
            };
            if slot.is_some_and(|slot| slot.replace(value).is_some()) {
                return None;
            }
            match after {
                Some(after) => rest = after,
                None => {
                    let auth = qop?.split(',').any(|kind| kind.trim() == "auth");
                    let sha = algorithm?.eq_ignore_ascii_case("sha-256");
                    let nonce: String = nonce.filter(|nonce| !nonce.is_empty())?;
                    let stale = stale.is_some_and(|stale| stale.eq_ignore_ascii_case("true"));
                    return (auth && sha).then_some(Self { realm: realm?, nonce, opaque, stale });
                }
            }
        }
        None
    }

    /// The value of `Authorization` for the first question after this challenge. `cnonce` is ours, and new each time.
    pub(crate) fn answer(
        &self,
        user: &str,
        password: &Secret,
        method: &Method,
        path: &str,
        cnonce: [u8; 16],
    ) -> String {
        let (realm, nonce) = (&self.realm, &self.nonce);
        let secret = hashed(&[user.as_bytes(), realm.as_bytes(), password.expose()]);
        let question = hashed(&[method.as_str().as_bytes(), path.as_bytes()]);
        let cnonce = HEXLOWER.encode(&cnonce);
        let count = b"00000001";
        let parts = [secret.as_bytes(), nonce.as_bytes(), count, cnonce.as_bytes(), b"auth", question.as_bytes()];
        let response = hashed(&parts);
        let opaque = self.opaque.as_ref().map(|opaque| format!(", opaque=\"{opaque}\"")).unwrap_or_default();
        format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{path}\", algorithm=SHA-256, qop=auth, \
             nc=00000001, cnonce=\"{cnonce}\", response=\"{}\"{opaque}",
            *response
        )
    }
}

/// What is answered can be a header's value, whatever the challenge was.
pub(crate) fn fuzz(text: &str) {
    let Some(challenge) = Challenge::parse(text) else { return };
    let Ok(password) = Secret::for_web("pw") else { return };
    let answer = challenge.answer("admin", &password, &Method::GET, "/", [0; 16]);
    assert!(hyper::header::HeaderValue::try_from(&answer).is_ok() && !answer.contains('\n'), "{answer:?}");
    assert_eq!(answer.matches('"').count() % 2, 0, "{answer:?}");
}

/// SHA-256 in hex over the parts with colons between them.
fn hashed(parts: &[&[u8]]) -> Zeroizing<String> {
    let mut hash = Sha256::new();
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    let digest = Zeroizing::new(<[u8; 32]>::from(hash.finalize()));
    Zeroizing::new(HEXLOWER.encode(&*digest))
}

/// The first `name=value` or `name="value"`, and what follows its comma. Values with escapes, quotes or control characters
/// are refused: they would have to be sent back.
fn parameter(text: &str) -> Option<(&str, String, Option<&str>)> {
    let (name, rest) = text.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => rest.split_once('"')?,
        None => rest.find(',').map_or((rest.trim_end(), ""), |comma| rest.split_at(comma)),
    };
    let proper = |c: char| c == ' ' || (c.is_ascii_graphic() && !matches!(c, '"' | '\\'));
    if !value.chars().all(proper) || name.trim().is_empty() {
        return None;
    }
    let rest = rest.trim();
    let after = if rest.is_empty() { None } else { Some(rest.strip_prefix(',')?) };
    Some((name.trim(), value.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, \
                       nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                       opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        // RFC 7616, section 3.9.1; its client nonce is text, so the pieces are put together here as there.
        let challenge = Challenge::parse(RFC).unwrap();
        assert_eq!((challenge.realm.as_str(), challenge.stale), ("http-auth@example.org", false));
        let secret = hashed(&[b"Mufasa", challenge.realm.as_bytes(), b"Circle of Life"]);
        let question = hashed(&[b"GET", b"/dir/index.html"]);
        let cnonce = b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let parts = [secret.as_bytes(), challenge.nonce.as_bytes(), b"00000001", cnonce, b"auth", question.as_bytes()];
        assert_eq!(*hashed(&parts), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        let password = Secret::for_web("Circle of Life").unwrap();
        let answer = challenge.answer("Mufasa", &password, &Method::GET, "/dir/index.html", [7; 16]);
        assert!(answer.contains("uri=\"/dir/index.html\"") && answer.contains("opaque=\"FQhe/"), "{answer}");
        assert!(!answer.contains("Circle"));
    }

    #[test]
    fn weaker_and_broken_challenges_are_none() {
        for bad in [
            "",
            "Digest",
            "Basic realm=\"x\"",
            &RFC.replace("SHA-256", "MD5"),
            &RFC.replace("algorithm=SHA-256, ", ""),
            &RFC.replace("auth, auth-int", "auth-int"),
            &RFC.replace("realm=", "reaml="),
            &RFC.replace("nonce=", "once="),
            &RFC.replace("realm=\"http-auth@example.org\"", "realm=\"a\\\"b\""),
            &RFC.replace("realm=\"http-auth@example.org\"", "realm=\"a\r\nb\""),
            &format!("{RFC}, realm=\"another\""),
            &format!("{RFC} realm=\"another\""),
            &format!("Digest {}", "a=b,".repeat(400)),
            &RFC.replace("7ypf", &"7".repeat(2_000)),
        ] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
        assert!(Challenge::parse(&format!("{RFC}, stale=TRUE")).unwrap().stale);
    }
}
