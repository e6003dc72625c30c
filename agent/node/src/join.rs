//! `tiebreaker-agent join`: from a token to a member with a store.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use tiebreaker_consensus::{HardState, Stored};
use tiebreaker_member::join::{JoinGrant, JoinInfo};
use tiebreaker_member::store::RaftStore;
use tiebreaker_member::{Address, Identity, JoinAsk, Keypair, Token, join};

use crate::config::Config;

const JOIN_WITHIN: Duration = Duration::from_secs(20);
const KEY_FILE: &str = "joining.key";

/// The store's file in the data folder.
pub const STORE_FILE: &str = "raft.redb";
/// The configuration's file in the data folder.
pub const CONFIG_FILE: &str = "agent.toml";

/// Joins: makes a key that never leaves this machine, has it certified, and stores identity, state and configuration.
///
/// # Errors
/// What was refused, by whom, and the way out. Nothing half done is left but the key, with which the same token works
/// again.
pub async fn join_cluster(data: &Path, appliance: &str, token: &str, config: &Config) -> Result<()> {
    if Identity::exists(data) {
        bail!(
            "{} already holds the identity of a member: choose another --data, or wipe it after the member was removed",
            data.display()
        );
    }
    let token: Token = token.parse()?;
    let address: Address = appliance.parse()?;
    std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
    let key = joining_key(data)?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut info = Vec::new();
    ciborium::into_writer(&JoinInfo { addresses: config.addresses.clone() }, &mut info)?;
    let ask = JoinAsk { name: config.name.clone(), csr: key.csr()?, clock, info };
    let joined = join(&[address], config.source, &token, ask, JOIN_WITHIN).await?;
    let grant: JoinGrant = ciborium::from_reader(&joined.reply[..])
        .context("the appliance's answer can't be decoded: is it of another version?")?;
    let Some(member) = grant.member else {
        bail!("this token is an operator's: use `tiebreaker login`, or make one with --kind node");
    };
    let identity = Identity::new(key, &grant.certificate, joined.ca)?;
    let hard_state = HardState { term: member.snapshot.term, vote: None, commit: member.snapshot.index };
    let stored = Stored { hard_state, snapshot: Some(member.snapshot), entries: Vec::new() };
    let store = data.join(STORE_FILE);
    if store.exists() {
        // Of an earlier try that did not get as far as its identity.
        std::fs::remove_file(&store).with_context(|| format!("removing {}", store.display()))?;
    }
    drop(RaftStore::create(&store, &stored)?);
    crate::machine::replace(&data.join(CONFIG_FILE), config.to_text()?.as_bytes())?;
    // The identity comes last: where it is, the rest is whole.
    identity.store(data)?;
    std::fs::remove_file(data.join(KEY_FILE)).with_context(|| format!("removing {KEY_FILE}"))?;
    println!(
        "{} is a member of {} now. Next: `tiebreaker-agent run --data {}`.",
        config.name,
        identity.peer().cluster,
        data.display()
    );
    Ok(())
}

/// The key of an earlier try whose answer got lost, or a new one.
fn joining_key(data: &Path) -> Result<Keypair> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = data.join(KEY_FILE);
    match std::fs::read(&path) {
        Ok(der) => return Ok(Keypair::from_pkcs8(&zeroize::Zeroizing::new(der))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    let key = Keypair::generate()?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("writing {}", path.display()))?;
    std::io::Write::write_all(&mut file, key.pkcs8())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(key)
}
