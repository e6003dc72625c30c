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
/// The control socket's file in the data folder.
pub const SOCKET_FILE: &str = "control.sock";
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
    let config = &Config { addresses: addresses(config)?, ..config.clone() };
    let token: Token = token.parse()?;
    let address: Address = appliance.parse()?;
    std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
    let key = joining_key(data)?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut info = Vec::new();
    cbor4ii::serde::to_writer(&mut info, &JoinInfo { addresses: config.addresses.clone() })?;
    let ask = JoinAsk { name: config.name.clone(), csr: key.csr()?, clock, info };
    let joined = join(&[address], config.source, &token, ask, JOIN_WITHIN).await?;
    let grant: JoinGrant = cbor4ii::serde::from_slice(&joined.reply[..])
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
    forget_joining_key(data)?;
    println!(
        "{} is a member of {} now. Next: `tiebreaker-agent run --data {}`.",
        config.name,
        identity.peer().cluster,
        data.display()
    );
    Ok(())
}

/// Removes the key of a join that is done.
///
/// # Errors
/// When it is there and can't be removed.
pub fn forget_joining_key(data: &Path) -> Result<()> {
    let path = data.join(KEY_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where the others reach this node: as it was told, or else where it listens, if that says it.
fn addresses(config: &Config) -> Result<Vec<String>> {
    if config.addresses.is_empty() {
        let concrete: Vec<String> =
            config.listen.iter().filter(|at| !at.ip().is_unspecified()).map(ToString::to_string).collect();
        if concrete.is_empty() {
            bail!(
                "the other members can't know where to reach this node: give --address HOST:PORT, or --listen with a \
                 concrete address"
            );
        }
        return Ok(concrete);
    }
    for text in &config.addresses {
        let address: Address = text.parse().with_context(|| format!("--address {text}"))?;
        // Without a port the address of an appliance would be meant, not that of an agent.
        if !text.ends_with(&format!(":{}", address.port())) {
            bail!("--address {text}: give the port, too, for instance {}:8405", address.host());
        }
    }
    Ok(config.addresses.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WatchdogChoice;

    fn config(listen: &[&str], addresses: &[&str]) -> Config {
        Config {
            name: "n1".parse().unwrap(),
            listen: listen.iter().map(|text| text.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
            source: None,
            watchdog: WatchdogChoice::None,
            accept: Vec::new(),
        }
    }

    #[test]
    fn a_node_says_where_it_is_reached() {
        assert_eq!(addresses(&config(&["[::]:8405"], &["n1.lan:8405"])).unwrap(), ["n1.lan:8405"]);
        assert_eq!(addresses(&config(&["[::]:8405", "10.0.0.1:8405"], &[])).unwrap(), ["10.0.0.1:8405"]);
        for listen in ["[::]:8405", "0.0.0.0:8405"] {
            assert!(addresses(&config(&[listen], &[])).unwrap_err().to_string().contains("--address"));
        }
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        for bad in ["", "n1.lan:99999", "n 1:8405", "n1.lan", "10.0.0.1"] {
            let error = format!("{:#}", addresses(&config(&["[::]:8405"], &["ok:8405", bad])).unwrap_err());
            assert!(error.contains(&format!("--address {bad}")), "{error}");
        }
    }

    #[test]
    fn the_key_of_a_join_that_is_done_goes() {
        let data = tempfile::tempdir().unwrap();
        joining_key(data.path()).unwrap();
        assert!(data.path().join(KEY_FILE).exists());
        forget_joining_key(data.path()).unwrap();
        assert!(!data.path().join(KEY_FILE).exists());
        forget_joining_key(data.path()).unwrap();
    }
}
