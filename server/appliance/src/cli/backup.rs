//! `tiebreaker-server backup`, `restore` and `rejoin`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use tiebreaker_member::ask::{Hidden, LocalReply, LocalRequest};
use tiebreaker_member::{Address, LocalAccess, LocalSocket, read_private};
use tiebreaker_pipeline::name::ClusterName;
use zeroize::Zeroizing;

use super::{ASK_WITHIN, ask_running_daemon, prompt};
use crate::backup::{self, Contents, Manifest, Restoring, finish_or_refuse};
use crate::layout::Layout;
use crate::rejoin::Pending;

#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The new file. Whoever gets it can try passphrases as often as he likes.
    file: PathBuf,
    /// The data folder.
    #[arg(long, default_value = "/var/lib/tiebreaker-server")]
    data: PathBuf,
    /// A file of mode 0600 with the passphrase in its first line, instead of typing it twice when asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Replaces the file if it exists.
    #[arg(long)]
    force: bool,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// The data folder, which must be empty or not be there.
    #[arg(long, default_value = "/var/lib/tiebreaker-server")]
    data: PathBuf,
    /// A file of mode 0600 with the passphrase in its first line, instead of typing it when asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Your word that the machine that the backup was made on, and every other one that was restored from it, is switched off for
    /// good. Needed where the appliance serves Corosync clusters, whose nodes can't find out that there are two.
    #[arg(long)]
    others_are_off: bool,
    /// Where a node is reached, if the backup knows no good address of any; may be given several times.
    #[arg(long, value_name = "CLUSTER=HOST:PORT", value_parser = asked_at)]
    ask: Vec<(ClusterName, Address)>,
    /// Changes nothing: shows what the backup holds, and says whether it could be restored.
    #[arg(long)]
    dry_run: bool,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct RejoinArgs {
    /// The data folder.
    #[arg(long, default_value = "/var/lib/tiebreaker-server")]
    data: PathBuf,
    /// The cluster; may be left out where the appliance waits for one.
    #[arg(long)]
    cluster: Option<String>,
    /// Your word that every other machine with this appliance's identity is switched off for good: it takes the place of one that
    /// was restored since.
    #[arg(long)]
    others_are_off: bool,
    /// Where a node is reached, if the backup knows no good address of any; may be given several times.
    #[arg(long, value_name = "CLUSTER=HOST:PORT", value_parser = asked_at)]
    ask: Vec<(ClusterName, Address)>,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

fn asked_at(text: &str) -> Result<(ClusterName, Address), String> {
    let (cluster, address) = text.split_once('=').ok_or("it is not of the form CLUSTER=HOST:PORT")?;
    let cluster = ClusterName::new(cluster).map_err(|error| error.to_string())?;
    Ok((cluster, address.parse::<Address>().map_err(|error| error.to_string())?))
}

fn passphrase(file: Option<&Path>, is_new: bool) -> Result<Hidden> {
    let Some(file) = file else { return prompt::ask_passphrase(is_new) };
    let text = read_private(file, "it holds the passphrase of the backup")?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        bail!("{}: its first line is empty, and should be the passphrase", file.display());
    }
    Ok(Hidden::new(line.to_owned()))
}

/// Takes a backup: the daemon's if one runs, since it may have keys that a shell has not.
pub(super) async fn backup(args: BackupArgs) -> Result<()> {
    let BackupArgs { file, data, passphrase_file, force, json } = args;
    let layout = Layout::new(&data);
    let plain = match ask_running_daemon(&data, &LocalRequest::Backup, ASK_WITHIN).await? {
        Some(LocalReply::Backup { plain }) => Zeroizing::new(plain),
        Some(LocalReply::Refused { why }) => bail!("{why}"),
        Some(_) => bail!("the daemon answered something else than was asked"),
        None => {
            if !layout.config().exists() {
                bail!(
                    "{} does not exist: there is no appliance in {} to save",
                    layout.config().display(),
                    data.display()
                );
            }
            // The daemon's own lock: one that starts just now must not change what is read here.
            let (lock, _nobody_asks) = LocalSocket::start(&layout.socket(), LocalAccess::default())?;
            let contents = backup::take_stopped(&layout)?;
            drop(lock);
            Zeroizing::new(serde_json::to_vec(&contents)?)
        }
    };
    let contents: Contents = serde_json::from_slice(&plain)
        .map_err(|error| error.classify())
        .map_err(|what| anyhow::anyhow!("the daemon's backup can't be read ({what:?}): is it of another version?"))?;
    let passphrase = passphrase(passphrase_file.as_deref(), true)?;
    backup::seal(&plain, passphrase.expose(), &file, force)?;
    let manifest = &contents.manifest;
    if json {
        println!("{}", serde_json::json!({ "file": file, "manifest": manifest }));
        return Ok(());
    }
    print!("{}", words(manifest));
    println!("It is saved in {}. Keep it, and its passphrase, elsewhere.", file.display());
    println!(
        "Make another when clusters, power devices or Corosync nodes are added: what it does not know, it can't bring back."
    );
    Ok(())
}

/// Restores a backup, or tells what it holds.
pub(super) fn restore(args: RestoreArgs) -> Result<()> {
    let RestoreArgs { file, data, passphrase_file, others_are_off, ask, dry_run, json } = args;
    let passphrase = passphrase(passphrase_file.as_deref(), false)?;
    let contents = backup::open(&file, passphrase.expose())?;
    let restoring = Restoring { asks: by_cluster(ask), others_are_off };
    let manifest = &contents.manifest;
    if dry_run {
        let refusal = restoring.check(&contents, &data).err();
        let why = refusal.as_ref().map(ToString::to_string);
        if json {
            println!(
                "{}",
                serde_json::json!({ "manifest": manifest, "data": data, "restored": false, "refusal": why })
            );
        } else {
            print!("{}", words(manifest));
            match &why {
                None => println!("It could be restored into {}.", data.display()),
                Some(why) => println!("It could not be restored as asked: {why}"),
            }
        }
        return Ok(());
    }
    let restored = restoring.restore(&contents, &data)?;
    if json {
        let document = serde_json::json!({
            "manifest": manifest, "data": data, "restored": true, "settings_fault": restored.settings_fault,
        });
        println!("{document}");
        return Ok(());
    }
    print!("{}", words(manifest));
    println!("It is restored into {}.", data.display());
    if let Some(fault) = &restored.settings_fault {
        println!("Before the daemon starts, mend this: {fault}");
    }
    println!(
        "Tokens that were open are void. Devices that only a drill can prove need one again (`tiebreaker-server device drill`)."
    );
    println!(
        "Next: `tiebreaker-server run`. It asks the nodes to let it in again, and `tiebreaker-server rejoin` shows what is open."
    );
    println!("Make a new backup then: this one knows the numbers of before.");
    Ok(())
}

/// Shows what is open after a restore, and takes an operator's word.
pub(super) fn rejoin(args: RejoinArgs) -> Result<()> {
    let RejoinArgs { data, cluster, others_are_off, ask, json } = args;
    let layout = Layout::new(&data);
    finish_or_refuse(&layout)?;
    let wanted = cluster.map(|text| ClusterName::new(&text)).transpose()?;
    let mut asks = by_cluster(ask);
    let mut open = Vec::new();
    for name in layout.clusters()? {
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        if let Some(mut pending) = Pending::read(&layout, &name)? {
            let more = asks.remove(&name).unwrap_or_default();
            if others_are_off || !more.is_empty() {
                pending.others_are_off |= others_are_off;
                pending.asks.splice(0..0, more.iter().map(ToString::to_string));
                pending.write(&layout)?;
            }
            open.push(pending);
        }
    }
    if let Some(name) = asks.keys().next() {
        bail!("this appliance does not wait for cluster {name}: `tiebreaker-server rejoin` lists those that it does");
    }
    if open.is_empty() && (others_are_off || wanted.is_some()) {
        bail!("this appliance waits for no such cluster: it was not restored, or is back already");
    }
    if json {
        let clusters: Vec<_> = open.iter().map(|pending| serde_json::json!({
            "name": pending.cluster.name, "former_number": pending.cluster.number, "nodes": pending.cluster.nodes,
            "asks": pending.asks, "others_are_off": pending.others_are_off,
        })).collect();
        println!("{}", serde_json::json!({ "waiting": clusters }));
        return Ok(());
    }
    if open.is_empty() {
        println!("This appliance waits for no cluster.");
    }
    for pending in &open {
        let Pending { cluster, asks, others_are_off, .. } = pending;
        println!("{}: not back yet; it was member #{} when the backup was made", cluster.name, cluster.number);
        for (node, addresses) in &cluster.nodes {
            println!("  asks {node} at {}", addresses.join(", "));
        }
        if !asks.is_empty() {
            println!("  asks at {}", asks.join(", "));
        }
        if *others_are_off {
            println!("  takes the place of another machine that was restored since, if that is silent");
        }
        println!("  the daemon's log, and `tiebreaker status` on this machine, say what is in the way");
    }
    Ok(())
}

fn by_cluster(asks: Vec<(ClusterName, Address)>) -> BTreeMap<ClusterName, Vec<Address>> {
    let mut by_cluster: BTreeMap<ClusterName, Vec<Address>> = BTreeMap::new();
    for (cluster, address) in asks {
        by_cluster.entry(cluster).or_default().push(address);
    }
    by_cluster
}

/// What a backup holds, for people.
fn words(manifest: &Manifest) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let at = i64::try_from(manifest.made_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(String::new, |at| at.strftime("%F %T UTC").to_string());
    // Writing to memory can't fail.
    let _ = writeln!(text, "Appliance {}, saved {at} by version {}.", manifest.name, manifest.product);
    let _ = writeln!(text, "The authority's fingerprint is {}.", manifest.fingerprint);
    for cluster in &manifest.clusters {
        let nodes: Vec<&str> = cluster.nodes.keys().map(|name| name.as_str()).collect();
        let nodes = if nodes.is_empty() { "no node is known".to_owned() } else { nodes.join(", ") };
        let _ = writeln!(text, "Cluster {}: {nodes}; the appliance was member #{}.", cluster.name, cluster.number);
    }
    for name in &manifest.corosync {
        let _ = writeln!(text, "Corosync cluster {name}, whose nodes it fences.");
    }
    if manifest.qdevice {
        text.push_str("It serves QDevice clients; their authority is in it.\n");
    }
    let _ = writeln!(text, "Secrets of power devices: {}.", manifest.secrets.len());
    for file in &manifest.left_out {
        let _ = writeln!(text, "NOT IN IT: {file}, which server.toml names. Save that yourself.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_a_cluster() {
        let (cluster, address) = asked_at("home=n1.lan:8405").unwrap();
        assert_eq!((cluster.as_str(), address.to_string().as_str()), ("home", "n1.lan:8405"));
        for bad in ["n1.lan:8405", "=n1.lan", "home=", "Home Sweet=n1.lan"] {
            assert!(asked_at(bad).is_err(), "{bad}");
        }
    }
}
