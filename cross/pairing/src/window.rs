//! What may still happen: who may log in, what is there to read, and when it is over. Sans-IO; times count from the start.
//!
//! It opens once. It closes for good when a certificate was signed and fetched, when the time is over, or when too many
//! wrong codes came, from whomever.

use std::time::Duration;

use russh::keys::PublicKey;
use thiserror::Error;

use crate::code::Code;
use crate::place::Place;

/// From the start to the end, whatever is going on: time enough to walk from the screen to a node.
pub const OPEN_FOR: Duration = Duration::from_secs(15 * 60);
/// Wrong codes, counted over all connections.
pub const WRONG_CODES: u32 = 10;
/// From the signature to the end: the node fetches its certificate at once.
const FETCH_WITHIN: Duration = Duration::from_secs(120);
/// From the fetch to the end: the client says goodbye.
const PART_WITHIN: Duration = Duration::from_secs(3);
/// The answer to a wrong code waits one second longer each time, and at most so long.
const SLOWEST_ANSWER: Duration = Duration::from_secs(5);
/// Bytes of a file that is written here. A request of a 4096-bit key has 1.1 kB, its public key as OpenSSH writes it 0.8.
pub const FILE_BYTES: usize = 8192;
/// Keys that one file may name.
const KEYS: usize = 16;
/// Nobody else exists here.
const USER: &str = "root";

/// How it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A cluster was signed for.
    Signed {
        /// Its name.
        cluster: String,
        /// Whether a node has fetched the certificate.
        fetched: bool,
    },
    /// Nobody came in time.
    Late,
    /// Too many wrong codes.
    Guessed,
}

/// What becomes of a code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the right one.
    Right,
    /// It is not, or it no longer counts. The answer comes after this time.
    Wrong(Duration),
}

/// Why something isn't done.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refused {
    /// It is too late for it.
    #[error("this machine is closed: one setup is over, and another one needs its restart")]
    Closed,
    /// Another client is at it.
    #[error("a certificate is being signed for another client")]
    Busy,
    /// It was not written.
    #[error("there is no {0} yet: copy it there first")]
    Missing(&'static str),
    /// It is nobody's business.
    #[error("that can't be read or written here")]
    NotYours,
    /// A file is too large.
    #[error("a file has {FILE_BYTES} bytes here at most")]
    TooLarge,
    /// It holds no key that can be used.
    #[error("these are no public keys as OpenSSH writes them, or more than {KEYS}")]
    NoKeys,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Codes count. `signing`: a request is with the server.
    Open { until: Duration, signing: bool },
    /// The certificate waits for its node.
    Signed { until: Duration, cluster: String, certificate: Vec<u8>, fetched: bool },
    /// It is over.
    Closed(Outcome),
}

/// The window in which one setup may happen.
#[derive(Debug)]
pub struct Window {
    code: Code,
    authority: Vec<u8>,
    stage: Stage,
    wrong: u32,
    keys: Vec<PublicKey>,
    request: Option<Vec<u8>>,
}

impl Window {
    /// An open one. `authority` is the certificate that nodes fetch first.
    #[must_use]
    pub fn new(code: Code, authority: Vec<u8>) -> Self {
        let stage = Stage::Open { until: OPEN_FOR, signing: false };
        Self { code, authority, stage, wrong: 0, keys: Vec::new(), request: None }
    }

    /// A client gives a code.
    pub fn code(&mut self, now: Duration, user: &str, typed: &str) -> Verdict {
        self.poll(now);
        if !matches!(self.stage, Stage::Open { .. }) {
            return Verdict::Wrong(SLOWEST_ANSWER);
        }
        if self.code.is(typed) && user == USER {
            return Verdict::Right;
        }
        self.wrong += 1;
        if self.wrong >= WRONG_CODES {
            self.stage = Stage::Closed(Outcome::Guessed);
            self.keys.clear();
        }
        Verdict::Wrong(Duration::from_secs(self.wrong.into()).min(SLOWEST_ANSWER))
    }

    /// How many wrong codes came.
    #[must_use]
    pub fn wrong_codes(&self) -> u32 {
        self.wrong
    }

    /// Whether a client that has this key may come in.
    pub fn knows(&mut self, now: Duration, user: &str, key: &PublicKey) -> bool {
        self.poll(now);
        let lasts = matches!(self.stage, Stage::Open { .. } | Stage::Signed { fetched: false, .. });
        lasts && user == USER && self.keys.iter().any(|known| known.key_data() == key.key_data())
    }

    /// What can be read of a place.
    ///
    /// # Errors
    /// Why it can't.
    pub fn read(&mut self, now: Duration, place: &Place) -> Result<Vec<u8>, Refused> {
        self.poll(now);
        match (place, &self.stage) {
            (_, Stage::Closed(_)) => Err(Refused::Closed),
            (Place::Authority, _) => Ok(self.authority.clone()),
            (Place::Certificate(name), Stage::Signed { cluster, certificate, .. }) if name == cluster => {
                Ok(certificate.clone())
            }
            (Place::Certificate(_), _) => Err(Refused::Missing("certificate of this cluster")),
            (Place::Keys, _) if self.keys.is_empty() => Err(Refused::Missing("file of keys")),
            (Place::Keys, _) => Ok(self.keys_as_text().into_bytes()),
            (Place::Request | Place::Folder, _) => Err(Refused::NotYours),
        }
    }

    /// How many bytes the file of a place has, if it is there.
    pub fn size(&mut self, now: Duration, place: &Place) -> Option<usize> {
        match place {
            Place::Request => self.request.as_ref().map(Vec::len),
            Place::Folder | Place::Authority | Place::Certificate(_) | Place::Keys => {
                self.read(now, place).ok().map(|bytes| bytes.len())
            }
        }
    }

    /// Whether this place can be written to now.
    ///
    /// # Errors
    /// Why not.
    pub fn writable(&mut self, now: Duration, place: &Place) -> Result<(), Refused> {
        self.poll(now);
        match (place, &self.stage) {
            (Place::Request | Place::Keys, Stage::Open { signing: false, .. }) => Ok(()),
            (Place::Request | Place::Keys, Stage::Open { signing: true, .. }) => Err(Refused::Busy),
            (Place::Request | Place::Keys, Stage::Signed { .. } | Stage::Closed(_)) => Err(Refused::Closed),
            (Place::Folder | Place::Authority | Place::Certificate(_), _) => Err(Refused::NotYours),
        }
    }

    /// Writes the whole file of a place.
    ///
    /// # Errors
    /// It can't be written, is too large, or isn't what belongs there.
    pub fn write(&mut self, now: Duration, place: &Place, bytes: Vec<u8>) -> Result<(), Refused> {
        self.writable(now, place)?;
        if bytes.len() > FILE_BYTES {
            return Err(Refused::TooLarge);
        }
        if *place == Place::Keys {
            self.keys = keys(&bytes)?;
        } else {
            self.request = Some(bytes);
        }
        Ok(())
    }

    /// Adds the keys of a text to those that are known.
    ///
    /// # Errors
    /// They can't be used, or it is too late.
    pub fn add_keys(&mut self, now: Duration, bytes: &[u8]) -> Result<usize, Refused> {
        self.writable(now, &Place::Keys)?;
        if bytes.len() > FILE_BYTES {
            return Err(Refused::TooLarge);
        }
        let mut added = 0;
        for key in keys(bytes)? {
            if !self.keys.iter().any(|known| known.key_data() == key.key_data()) {
                if self.keys.len() == KEYS {
                    return Err(Refused::NoKeys);
                }
                self.keys.push(key);
            }
            added += 1;
        }
        Ok(added)
    }

    /// A client wants a cluster to be signed for. The request goes to the server, and [`Window::signed`] follows whatever
    /// becomes of it.
    ///
    /// # Errors
    /// Why not.
    pub fn sign(&mut self, now: Duration) -> Result<Vec<u8>, Refused> {
        self.writable(now, &Place::Request)?;
        let request = self.request.clone().ok_or(Refused::Missing("request in /tmp/qdevice-net-node.crq"))?;
        if let Stage::Open { signing, .. } = &mut self.stage {
            *signing = true;
        }
        Ok(request)
    }

    /// The server has signed, or has refused to: then another try is free.
    pub fn signed(&mut self, now: Duration, cluster: &str, certificate: Option<Vec<u8>>) {
        match (&mut self.stage, certificate) {
            (Stage::Open { .. }, Some(certificate)) => {
                let cluster = cluster.to_owned();
                self.stage = Stage::Signed { until: now + FETCH_WITHIN, cluster, certificate, fetched: false };
            }
            (Stage::Open { signing, .. }, None) => *signing = false,
            // It was signed when everything was over already: nobody gets to see it.
            (Stage::Signed { .. } | Stage::Closed(_), _) => {}
        }
    }

    /// A file was read to its end.
    pub fn fetched(&mut self, now: Duration, place: &Place) {
        if let (Place::Certificate(_), Stage::Signed { until, fetched, .. }) = (place, &mut self.stage)
            && !*fetched
        {
            *fetched = true;
            *until = now + PART_WITHIN;
        }
    }

    /// Looks at the time. How it ended, if it has.
    pub fn poll(&mut self, now: Duration) -> Option<Outcome> {
        let ended = match &self.stage {
            Stage::Open { until, .. } if now >= *until => Outcome::Late,
            Stage::Signed { until, cluster, fetched, .. } if now >= *until => {
                Outcome::Signed { cluster: cluster.clone(), fetched: *fetched }
            }
            Stage::Closed(outcome) => return Some(outcome.clone()),
            Stage::Open { .. } | Stage::Signed { .. } => return None,
        };
        self.keys.clear();
        self.stage = Stage::Closed(ended.clone());
        Some(ended)
    }

    /// When to look again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Open { until, .. } | Stage::Signed { until, .. } => Some(*until),
            Stage::Closed(_) => None,
        }
    }

    fn keys_as_text(&self) -> String {
        let lines = self.keys.iter().filter_map(|key| key.to_openssh().ok());
        lines.map(|line| line + "\n").collect()
    }
}

/// The keys of a file like `authorized_keys`. Lines with options are refused: what they ask for would not be done.
fn keys(bytes: &[u8]) -> Result<Vec<PublicKey>, Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::NoKeys)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<PublicKey> =
        lines.map(|line| PublicKey::from_openssh(line).map_err(|_| Refused::NoKeys)).collect::<Result<_, _>>()?;
    if keys.is_empty() || keys.len() > KEYS { Err(Refused::NoKeys) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(number: u8) -> PublicKey {
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&[number; 32]));
        PrivateKey::new(pair, "a node").unwrap().public_key().clone()
    }

    fn line(number: u8) -> Vec<u8> {
        format!("{}\n", key(number).to_openssh().unwrap()).into_bytes()
    }

    fn window() -> Window {
        Window::new(Code::known(), b"authority".to_vec())
    }

    fn pve() -> Place {
        Place::Certificate("pve".into())
    }

    const RIGHT: &str = "k7m-xp2-9qd-fhw";

    /// As far as to the signature.
    fn signed(now: Duration) -> Window {
        let mut window = window();
        assert_eq!(window.code(now, "root", RIGHT), Verdict::Right);
        window.add_keys(now, &line(1)).unwrap();
        window.write(now, &Place::Request, b"request".to_vec()).unwrap();
        assert_eq!(window.sign(now), Ok(b"request".to_vec()));
        window.signed(now, "pve", Some(b"certificate".to_vec()));
        window
    }

    #[test]
    fn one_setup_goes_through_and_closes_the_window() {
        let mut window = signed(s(60));
        assert!(window.knows(s(61), "root", &key(1)));
        assert_eq!(window.read(s(61), &pve()), Ok(b"certificate".to_vec()));
        assert_eq!(window.poll(s(61)), None);
        window.fetched(s(62), &pve());
        assert_eq!(window.poll_timeout(), Some(s(65)));
        assert!(!window.knows(s(63), "root", &key(1)), "who comes now comes for something else");
        assert_eq!(window.poll(s(65)), Some(Outcome::Signed { cluster: "pve".into(), fetched: true }));
        assert_eq!(window.read(s(65), &Place::Authority), Err(Refused::Closed));
    }

    #[test]
    fn a_second_setup_finds_it_closed() {
        let mut window = signed(s(60));
        assert_ne!(window.code(s(61), "root", RIGHT), Verdict::Right);
        assert_eq!(window.wrong_codes(), 0, "it was the right one");
        assert_eq!(window.add_keys(s(61), &line(2)), Err(Refused::Closed));
        assert_eq!(window.write(s(61), &Place::Request, vec![1]), Err(Refused::Closed));
        assert_eq!(window.sign(s(61)), Err(Refused::Closed));
        assert_eq!(
            window.read(s(61), &Place::Certificate("other".into())),
            Err(Refused::Missing("certificate of this cluster"))
        );
    }

    #[test]
    fn a_certificate_that_nobody_fetches_ends_it_too() {
        let mut window = signed(s(60));
        assert_eq!(window.poll(s(179)), None);
        assert_eq!(window.poll(s(180)), Some(Outcome::Signed { cluster: "pve".into(), fetched: false }));
    }

    #[test]
    fn it_closes_after_a_quarter_of_an_hour_and_forgets_its_keys() {
        let mut window = window();
        window.add_keys(s(1), &line(1)).unwrap();
        assert_eq!((window.poll_timeout(), window.poll(s(899))), (Some(s(900)), None));
        assert!(window.knows(s(899), "root", &key(1)));
        assert!(!window.knows(s(900), "root", &key(1)));
        assert_ne!(window.code(s(900), "root", RIGHT), Verdict::Right);
        assert_eq!(window.poll(s(900)), Some(Outcome::Late));
        assert!(window.keys.is_empty());
        assert_eq!(window.poll_timeout(), None);
    }

    #[test]
    fn ten_wrong_codes_close_it_and_each_answer_takes_longer() {
        let mut window = window();
        for (number, wait) in [1, 2, 3, 4, 5, 5, 5, 5, 5].into_iter().enumerate() {
            let user = if number == 3 { "admin" } else { "root" };
            let typed = if number == 3 { RIGHT } else { "aaa-aaa-aaa-aaa" };
            assert_eq!(window.code(s(1), user, typed), Verdict::Wrong(s(wait)));
        }
        assert_eq!(window.code(s(1), "root", RIGHT), Verdict::Right, "nine are not too many");
        window.add_keys(s(1), &line(1)).unwrap();
        assert_eq!(window.code(s(2), "root", "aaa-aaa-aaa-aaa"), Verdict::Wrong(s(5)));
        assert_ne!(window.code(s(2), "root", RIGHT), Verdict::Right);
        assert!(!window.knows(s(2), "root", &key(1)));
        assert_eq!(window.poll(s(2)), Some(Outcome::Guessed));
    }

    #[test]
    fn what_the_server_refuses_to_sign_can_be_tried_again() {
        let mut window = window();
        assert_eq!(window.sign(s(1)), Err(Refused::Missing("request in /tmp/qdevice-net-node.crq")));
        window.write(s(1), &Place::Request, vec![1]).unwrap();
        window.sign(s(1)).unwrap();
        assert_eq!(window.sign(s(1)), Err(Refused::Busy));
        assert_eq!(window.write(s(1), &Place::Request, vec![2]), Err(Refused::Busy));
        window.signed(s(2), "pve", None);
        assert!(window.read(s(2), &pve()).is_err());
        window.write(s(2), &Place::Request, vec![2]).unwrap();
        assert_eq!(window.sign(s(2)), Ok(vec![2]));
        assert_eq!(window.poll(s(900)), Some(Outcome::Late));
        window.signed(s(901), "pve", Some(vec![3]));
        assert_eq!(window.read(s(901), &pve()), Err(Refused::Closed), "it came too late");
    }

    #[test]
    fn nothing_but_the_request_and_keys_can_be_written_and_neither_is_large() {
        let mut window = window();
        for place in [Place::Authority, pve(), Place::Folder] {
            assert_eq!(window.write(s(1), &place, vec![1]), Err(Refused::NotYours));
        }
        assert_eq!(window.write(s(1), &Place::Request, vec![1; FILE_BYTES + 1]), Err(Refused::TooLarge));
        window.write(s(1), &Place::Request, vec![1; FILE_BYTES]).unwrap();
        assert_eq!(window.read(s(1), &Place::Request), Err(Refused::NotYours));
        assert_eq!(window.size(s(1), &Place::Request), Some(FILE_BYTES));
        assert_eq!(window.add_keys(s(1), &vec![b'\n'; FILE_BYTES + 1]), Err(Refused::TooLarge));
        let many: Vec<u8> = (0..=16).flat_map(line).collect();
        assert_eq!(window.add_keys(s(1), &many), Err(Refused::NoKeys));
        assert_eq!(window.size(s(1), &Place::Keys), None);
    }

    #[test]
    fn keys_are_taken_as_openssh_writes_them() {
        let mut window = window();
        for text in ["", "# nothing\n", "ssh-ed25519 AAAA", "from=\"*\" ssh-ed25519 AAAA", "\u{fffd}"] {
            assert_eq!(window.add_keys(s(1), text.as_bytes()), Err(Refused::NoKeys), "{text}");
        }
        assert_eq!(window.add_keys(s(1), &[line(1), line(2)].concat()), Ok(2));
        assert_eq!(window.add_keys(s(1), &line(1)), Ok(1));
        assert_eq!(window.read(s(1), &Place::Keys), Ok([line(1), line(2)].concat()));
        assert!(window.knows(s(1), "root", &key(2)) && !window.knows(s(1), "admin", &key(2)));
        window.write(s(1), &Place::Keys, line(3)).unwrap();
        assert!(window.knows(s(1), "root", &key(3)) && !window.knows(s(1), "root", &key(2)));
    }
}
