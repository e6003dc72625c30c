//! Fence agents of the Debian package fence-agents, as our driver for them runs them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tiebreaker_fence::{ProgramConfig, ProgramDevice, RunAs, Secret};

use crate::{require_root, tool};

/// An agent with these options, as the user nobody.
///
/// # Errors
/// The package fence-agents is missing, or who asks isn't root and can't become somebody else.
pub fn fence_agent(name: &str, options: &[(&str, &str)], password: &str) -> Result<ProgramDevice> {
    require_root("running a fence agent as another user")?;
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let run_as = Some(RunAs::of(&passwd, "nobody").context("there is no user nobody")?);
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let agent = tool(name, "fence-agents")?;
    Ok(ProgramDevice::new(ProgramConfig { agent, options, password: Some(Secret::for_web(password)?), run_as }))
}
