//! An operator's certificate renews itself: whichever command comes by it when two thirds of its life have gone by asks
//! for the next one. An operator whose certificate has ended could do nothing any more, not even ask for another.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tiebreaker_member::{Address, Client, Identity, Role, TrustedTime, ask_for_renewal, renew_if_due};

/// Connecting, and the answer, each take so long at most: somebody waits for the command that this is only beside.
const WITHIN: Duration = Duration::from_secs(5);

/// Renews the certificate of `current`, which is stored in `dir`, if it is due; the members at `addresses` are asked. A
/// failure is said on standard error and nothing else: what the command was called for goes on by the one there is.
pub async fn renew(dir: &Path, addresses: &[Address], current: &Identity, time: &TrustedTime) {
    // Members have daemons for that.
    if current.peer().role != Role::Operator || !current.renewal_due(time.now()) {
        return;
    }
    if let Err(error) = renewed(dir, addresses, time).await {
        let days = current.cert().not_after.saturating_sub(time.now()) / 86_400;
        eprintln!(
            "tiebreaker: warning: your certificate ends in {days} days, and can't be renewed now: {error:#}. Every \
             command tries again; the appliance alone can sign it, so let one reach that (--connect HOST:PORT)"
        );
    }
}

async fn renewed(dir: &Path, addresses: &[Address], time: &TrustedTime) -> Result<()> {
    let lock = File::open(dir).with_context(|| format!("opening {}", dir.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        // Another command is at it; two at once could mix their files.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("locking {}", dir.display())),
    }
    // Another command may have renewed it since this one read it.
    let current = Identity::load(dir)?;
    let next = async {
        let mut client = Client::connect(addresses, None, &current, time, WITHIN).await?;
        Ok::<_, anyhow::Error>(ask_for_renewal(&mut client, &current, WITHIN).await?)
    };
    renew_if_due(&current, time.now(), dir, next).await?;
    Ok(())
}
