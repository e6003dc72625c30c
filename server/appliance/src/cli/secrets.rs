//! `tiebreaker-server secrets` and `tiebreaker-server audit`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use jiff::Timestamp;
use tiebreaker_member::ask::{LocalReply, LocalRequest, SecretsReport, SecretsRequest};

use super::{ASK_WITHIN, ask_running_daemon};
use crate::audit;
use crate::secrets::{self, Vault};

#[derive(Subcommand, Debug)]
pub(super) enum SecretsCommand {
    /// Shows for which devices there are secrets, where their key is, and to whom they are sealed. Shows no secret.
    Status {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Seals the secrets to a recovery key too: give the public half (age1…) of a key that `age-keygen` made, and keep the
    /// other half away from this machine.
    SealTo {
        /// The public key.
        recipient: String,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Takes over the secrets of a lost appliance: its secrets.age, and the recovery key to which that is sealed.
    Restore {
        /// The copy of secrets.age.
        from: PathBuf,
        /// The file of the recovery key, as `age-keygen` made it.
        #[arg(long)]
        identity: PathBuf,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Prints a new private key, to be given to the service manager as the credential tiebreaker-secrets-key.
    NewKey,
}

#[derive(Subcommand, Debug)]
pub(super) enum AuditCommand {
    /// Checks that no line of the audit log was changed, removed or inserted. Exit code 1 if one was.
    Verify {
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Shows the entries, oldest first.
    List {
        /// How many of the last ones.
        #[arg(long, default_value_t = 50)]
        last: usize,
        /// The data folder.
        #[arg(long, default_value = "/var/lib/tiebreaker-server")]
        data: PathBuf,
        /// Prints one JSON document per entry.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of the commands about secrets.
pub(super) async fn run(command: SecretsCommand) -> Result<()> {
    match command {
        SecretsCommand::Status { data, json } => ask(&data, SecretsRequest::Status, json).await,
        SecretsCommand::SealTo { recipient, data, json } => {
            ask(&data, SecretsRequest::SealTo { recipient }, json).await
        }
        SecretsCommand::Restore { from, identity, data, json } => {
            let vault = Vault::of(&data);
            let place = vault.restore(&from, &identity)?;
            if !json {
                eprintln!("The secrets are sealed to this appliance's own key now ({}).", place.word());
            }
            show(&vault.status()?, json);
            Ok(())
        }
        SecretsCommand::NewKey => {
            print!("{}", *secrets::new_key());
            Ok(())
        }
    }
}

/// The daemon may have a key that a shell has not.
async fn ask(data: &Path, request: SecretsRequest, json: bool) -> Result<()> {
    let reply = match ask_running_daemon(data, &LocalRequest::Secrets(request.clone()), ASK_WITHIN).await? {
        Some(reply) => reply,
        None => secrets::answer(data, &request)?,
    };
    match reply {
        LocalReply::Secrets(report) => show(&report, json),
        LocalReply::Refused { why } => bail!("{why}"),
        _ => bail!("the daemon answered something else than was asked"),
    }
    Ok(())
}

fn show(report: &SecretsReport, json: bool) {
    if json {
        println!("{}", serde_json::json!(report));
        return;
    }
    println!("{}: {} secret(s)", report.file, report.names.len());
    for name in &report.names {
        println!("  {name}");
    }
    match report.key.as_deref() {
        Some("credential") => println!("The key is a credential of the service manager."),
        Some(_) => println!("The key lies beside it in secrets.key: whoever copies both can read the secrets."),
        None => println!("There is no key yet: the first secret makes one."),
    }
    if report.recovery.is_empty() {
        println!("Sealed to no recovery key: when this machine is lost, so are they (`secrets seal-to`).");
    }
    for recipient in &report.recovery {
        println!("Sealed to the recovery key {recipient} too.");
    }
}

/// Runs one of the commands about the audit log.
pub(super) fn run_audit(command: AuditCommand) -> Result<()> {
    match command {
        AuditCommand::Verify { data, json } => verify(&data, json),
        AuditCommand::List { last, data, json } => {
            let entries = audit::entries(&audit::folder(&data))?;
            for entry in entries.iter().skip(entries.len().saturating_sub(last)) {
                let document = serde_json::to_string(entry)?;
                if json {
                    println!("{document}");
                } else {
                    let at = i64::try_from(entry.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
                    let at = at.map_or_else(String::new, |at| at.strftime("%F %T%.3f").to_string());
                    println!("{at} {}", serde_json::to_string(&entry.event)?);
                }
            }
            Ok(())
        }
    }
}

fn verify(data: &Path, json: bool) -> Result<()> {
    let verdict = audit::verify(&audit::folder(data))?;
    if json {
        println!("{}", serde_json::json!(verdict));
    } else if let (Some(first), Some(last), Some(head)) = (verdict.first, verdict.last, &verdict.head) {
        println!("Entries {first} to {last} are whole. The newest hash is {head}.");
        println!("Note it elsewhere: only that shows later that nothing was cut off behind it.");
        if first > 1 {
            println!("What was before entry {first} was forgotten, as the log is bounded.");
        }
        if verdict.torn_bytes > 0 {
            println!(
                "A line of {} bytes at the end was torn, by a power cut or because it is being written just now.",
                verdict.torn_bytes
            );
        }
    } else if verdict.whole {
        println!("The audit log is empty.");
    }
    match verdict.fault {
        None => Ok(()),
        Some(fault) => bail!("the audit log was changed: {} line {}: {}", fault.file.display(), fault.line, fault.why),
    }
}
