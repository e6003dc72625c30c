//! `tiebreaker login`: an operator's identity for a token.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use tiebreaker_member::join::{JoinGrant, JoinInfo};
use tiebreaker_member::{Identity, JoinAsk, Keypair, MemberName, Role, Token, join};
use zeroize::Zeroizing;

use crate::cli::LoginArgs;
use crate::connection::{default_identity_dir, login_failure, store_addresses};
use crate::failure::Failure;

const JOIN_WITHIN: std::time::Duration = std::time::Duration::from_secs(40);

/// Fetches the identity, stores it, and returns a line for the person who asked.
pub async fn login(args: LoginArgs) -> Result<String, Failure> {
    let text = Zeroizing::new(args.token);
    let token: Token = text.parse().map_err(Failure::usage)?;
    match token.role {
        Role::Operator => {}
        Role::Node => {
            return Err(Failure::usage(anyhow!(
                "this token is for a node: use it with `tiebreaker-agent join`, and make another for yourself with \
                 `tiebreaker-server token create --kind operator`"
            )));
        }
        Role::Appliance | Role::FenceClient | Role::Observer | Role::Authority => {
            return Err(Failure::usage(anyhow!("this token is for the role {}, not for an operator", token.role)));
        }
    }
    let name: MemberName = match args.name {
        Some(name) => name.parse().map_err(Failure::usage)?,
        None => std::env::var("USER")
            .context("$USER is not set")
            .and_then(|user| Ok(user.parse::<MemberName>()?))
            .context("no name for the operator: give one with --name")
            .map_err(Failure::usage)?,
    };
    let dir = args
        .dir
        .or_else(default_identity_dir)
        .ok_or_else(|| Failure::usage(anyhow!("$HOME is not set: name a folder with --dir")))?;
    if Identity::exists(&dir) {
        return Err(Failure::usage(anyhow!(
            "{} holds an identity already: name another folder with --dir, or move it away",
            dir.display()
        )));
    }
    let key = Keypair::generate().map_err(Failure::refused)?;
    let mut info = Vec::new();
    cbor4ii::serde::to_writer(&mut info, &JoinInfo::default()).expect("writing to memory can't fail");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let csr = key.csr().map_err(Failure::refused)?;
    let ask = JoinAsk { name, csr, clock, info };
    let addresses = [args.address];
    let joined = join(&addresses, None, &token, ask, JOIN_WITHIN).await.map_err(login_failure)?;
    let grant: JoinGrant = cbor4ii::serde::from_slice(&joined.reply[..])
        .context("the appliance's answer can't be decoded: is it of another version?")
        .map_err(Failure::refused)?;
    let identity = Identity::new(key, &grant.certificate, joined.ca).map_err(Failure::refused)?;
    // The address goes first: where the identity is, the rest is there too.
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display())).map_err(Failure::refused)?;
    store_addresses(&dir, &addresses)?;
    identity.store(&dir).map_err(Failure::refused)?;
    Ok(format!("You are {}; the identity is in {}.", identity.peer(), dir.display()))
}
