//! Who is invited: secrets that are good once and not for long.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64URL_NOPAD;
use ring::digest::{SHA256, digest};
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Invitations that are good at once.
const AT_ONCE: usize = 64;

/// Bytes of a secret.
const SECRET: usize = 32;

type Hash = [u8; 32];

/// Why a secret is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotInvited {
    /// Nobody knows it, or not any more.
    #[error(
        "this invitation is not known or over its time: make a new one with `tiebreaker-server qdevice invite` on the appliance"
    )]
    Unknown,
    /// A certificate was made for it, of another request.
    #[error(
        "this invitation was used already: make a new one with `tiebreaker-server qdevice invite` on the appliance"
    )]
    Used,
}

/// Whether somebody has to open the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// There was no invitation before.
    Anew,
    /// There were others.
    Already,
}

/// One invitation.
#[derive(Debug)]
struct Entry {
    /// Of the secret; so looking it up tells nothing by its time.
    secret: Hash,
    cluster: String,
    ends: Instant,
    /// The request that it was used for; that one may come again, if the answer was lost.
    used_for: Option<Hash>,
}

/// The invitations.
#[derive(Debug, Default)]
pub struct Book {
    entries: Vec<Entry>,
    /// Whether the door is open, by what its keeper was told.
    open: bool,
}

impl Book {
    /// A new invitation; gives its secret.
    ///
    /// # Errors
    /// When there are too many, or the system gives no randomness.
    pub fn add(&mut self, cluster: &str, now: Instant, good_for: Duration) -> Result<(Zeroizing<String>, Opened)> {
        self.entries.retain(|entry| entry.ends > now);
        if self.entries.len() >= AT_ONCE {
            bail!("{AT_ONCE} invitations are good already: wait until some have ended");
        }
        let mut secret = Zeroizing::new([0; SECRET]);
        getrandom::fill(&mut *secret).context("drawing a secret")?;
        let text = Zeroizing::new(BASE64URL_NOPAD.encode(&*secret));
        let entry =
            Entry { secret: hash(text.as_bytes()), cluster: cluster.to_owned(), ends: now + good_for, used_for: None };
        self.entries.push(entry);
        let opened = if self.open { Opened::Already } else { Opened::Anew };
        self.open = true;
        Ok((text, opened))
    }

    /// When the last one ends. If there is none the door counts as closed from here on.
    pub fn ends(&mut self, now: Instant) -> Option<Instant> {
        self.entries.retain(|entry| entry.ends > now);
        let last = self.entries.iter().map(|entry| entry.ends).max();
        self.open = last.is_some();
        last
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.open = false;
    }

    /// The cluster that a secret invites to; nothing is used up.
    ///
    /// # Errors
    /// It invites to none.
    pub fn look(&mut self, secret: &str, now: Instant) -> Result<String, NotInvited> {
        Ok(self.find(secret, now)?.cluster.clone())
    }

    /// Uses an invitation for a request, if `sign` takes it.
    ///
    /// # Errors
    /// The outer: it isn't good. The inner: `sign` refuses, and the invitation stays good.
    pub fn redeem<T, E>(
        &mut self,
        secret: &str,
        request: &[u8],
        now: Instant,
        sign: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Result<T, E>, NotInvited> {
        let entry = self.find(secret, now)?;
        let request = hash(request);
        if entry.used_for.is_some_and(|used| used != request) {
            return Err(NotInvited::Used);
        }
        let signed = sign(&entry.cluster);
        if signed.is_ok() {
            entry.used_for = Some(request);
        }
        Ok(signed)
    }

    fn find(&mut self, secret: &str, now: Instant) -> Result<&mut Entry, NotInvited> {
        self.entries.retain(|entry| entry.ends > now);
        let secret = hash(secret.as_bytes());
        self.entries.iter_mut().find(|entry| entry.secret == secret).ok_or(NotInvited::Unknown)
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
