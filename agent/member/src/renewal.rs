//! Certificates end by themselves after a while, and whoever holds one gets the next before that: members from a task of
//! their daemon, operators from their command.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::core::{Reply, Request};
use crate::identity::{Identity, IdentityError, KeyError, TrustedTime};
use crate::link::{Client, LinkError};

/// A daemon looks at its certificate this often: a third of its life, a month, is left for the renewal.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The request can't be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The member that was asked doesn't answer.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The new certificate can't be used or stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The answer is of another version.
    #[error("the answer to the renewal of a certificate can't be decoded")]
    Decode(#[source] cbor4ii::serde::DecodeError<std::convert::Infallible>),
    /// The answer belongs to another question.
    #[error("the renewal of a certificate was answered by something else")]
    Unexpected,
    /// The member that was asked says no.
    #[error("{why}")]
    Refused {
        /// In its words.
        why: String,
    },
}

/// Asks the appliance at the other end of `client` for a new certificate for the key of `current`, and waits so long.
///
/// # Errors
/// When it doesn't answer, refuses, or answers something that can't be used.
pub async fn ask_for_renewal(
    client: &mut Client,
    current: &Identity,
    within: Duration,
) -> Result<Identity, RenewalError> {
    let mut bytes = Vec::new();
    cbor4ii::serde::to_writer(&mut bytes, &Request::RenewCertificate { csr: current.csr()? })
        .expect("writing to memory can't fail, and every field is encodable");
    let answer = client.ask(&bytes, within).await?;
    match cbor4ii::serde::from_slice(&answer[..]).map_err(RenewalError::Decode)? {
        Reply::Certificate { der } => Ok(current.renewed(&der)?),
        Reply::Refused { why } => Err(RenewalError::Refused { why }),
        _ => Err(RenewalError::Unexpected),
    }
}

/// If the certificate of `current` is due at `now` (seconds since 1970), waits for `next` and stores that in `dir`, in
/// place of the one before. `next` isn't begun otherwise.
///
/// # Errors
/// That of `next`, or that the file can't be written: then `current` is still the stored one.
pub async fn renew_if_due<E: From<IdentityError>>(
    current: &Identity,
    now: u64,
    dir: &Path,
    next: impl Future<Output = Result<Identity, E>>,
) -> Result<Option<Identity>, E> {
    if !current.renewal_due(now) {
        return Ok(None);
    }
    let new = next.await?;
    new.store(dir)?;
    Ok(Some(new))
}

/// The task of a daemon that renews its certificate.
pub struct Renewal {
    /// Where the identity is stored.
    pub dir: PathBuf,
    /// The one in use, to be replaced.
    pub identity: watch::Sender<Arc<Identity>>,
    /// Decides what is due: a machine without a clock must renew in time, too.
    pub time: TrustedTime,
}

impl Renewal {
    /// Looks at the certificate for ever; `ask` fetches the next one. What fails is tried again at the next look.
    pub async fn run<E, F>(self, ask: impl Fn(Arc<Identity>) -> F)
    where
        E: From<IdentityError> + Display,
        F: Future<Output = Result<Identity, E>>,
    {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let current = Arc::clone(&self.identity.borrow());
            let next = ask(Arc::clone(&current));
            match renew_if_due(&current, self.time.now(), &self.dir, next).await {
                Ok(None) => {}
                Ok(Some(new)) => {
                    info!(member = %new.peer(), "the certificate was renewed");
                    self.identity.send_replace(Arc::new(new));
                }
                Err(error) => warn!(member = %current.peer(), "the certificate can't be renewed now: {error:#}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::identity::{Ca, LEAF_VALIDITY, Subject, TimeFloor};

    const DAY: u64 = 86_400;
    const ISSUED: u64 = 1_800_000_000;

    fn issue(ca: &Ca, now: u64) -> Identity {
        ca.issue(&Subject::from_uri("tiebreaker://home/node/a").unwrap(), now, LEAF_VALIDITY).unwrap()
    }

    #[tokio::test]
    async fn a_certificate_is_renewed_when_it_is_due_and_not_before() {
        let (ca, dir) = (Ca::new_in_memory().unwrap(), tempfile::tempdir().unwrap());
        let current = issue(&ca, ISSUED);
        current.store(dir.path()).unwrap();
        let unasked = async { panic!("asked too early") };
        let early = ISSUED + 59 * DAY;
        assert!(renew_if_due::<IdentityError>(&current, early, dir.path(), unasked).await.unwrap().is_none());
        assert_eq!(Identity::load(dir.path()).unwrap().cert(), current.cert());

        let due = ISSUED + 60 * DAY;
        let failing = async { Err(IdentityError::KeyMismatch) };
        renew_if_due(&current, due, dir.path(), failing).await.unwrap_err();
        assert_eq!(Identity::load(dir.path()).unwrap().cert(), current.cert(), "the good one stays");

        let next = async { Ok::<_, IdentityError>(issue(&ca, due)) };
        let new = renew_if_due(&current, due, dir.path(), next).await.unwrap().expect("it is due");
        assert_eq!(new.cert().not_after, due + LEAF_VALIDITY.as_secs());
        assert_eq!(Identity::load(dir.path()).unwrap().cert(), new.cert());
    }

    #[tokio::test(start_paused = true)]
    async fn a_daemon_whose_clock_stands_at_1970_renews_by_the_time_of_its_cluster() {
        let (ca, dir) = (Arc::new(Ca::new_in_memory().unwrap()), tempfile::tempdir().unwrap());
        let floor = TimeFloor::new(ISSUED + 59 * DAY);
        let (identity, mut seen) = watch::channel(Arc::new(issue(&ca, ISSUED)));
        let time = TrustedTime::new(Arc::new(|| 7), floor.clone());
        let asked = Arc::new(AtomicU32::new(0));
        let task = {
            let (time, asked) = (time.clone(), Arc::clone(&asked));
            let renewal = Renewal { dir: dir.path().to_owned(), identity, time: time.clone() };
            tokio::spawn(renewal.run(move |_current| {
                let (ca, now, asked) = (Arc::clone(&ca), time.now(), Arc::clone(&asked));
                async move {
                    // The first try fails, as it does while the appliance is away.
                    match asked.fetch_add(1, Ordering::Relaxed) {
                        0 => Err(IdentityError::KeyMismatch),
                        _ => Ok(issue(&ca, now)),
                    }
                }
            }))
        };
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert_eq!(asked.load(Ordering::Relaxed), 0, "it is not due yet");
        floor.raise(ISSUED + 60 * DAY);
        let new = seen.wait_for(|new| new.cert().not_before == ISSUED + 60 * DAY);
        let renewed = tokio::time::timeout(3 * LOOK_EVERY, new).await.unwrap().unwrap().cert().clone();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "tried again at the next look");
        assert_eq!(Identity::load(dir.path()).unwrap().cert(), &renewed);
        task.abort();
    }
}
