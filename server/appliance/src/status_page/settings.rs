//! The section `[status]` of `server.toml`.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// As it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStatus {
    /// Where the page is; nowhere if this is empty.
    listen: Vec<String>,
}

/// A page at each port of each family is more than anybody needs.
const MOST: usize = 8;

/// Where the page is to be.
///
/// # Errors
/// Names the place and the way out.
pub(crate) fn listen(raw: Option<&RawStatus>) -> Result<Vec<SocketAddr>> {
    let texts = raw.map_or(&[][..], |raw| &raw.listen);
    if texts.len() > MOST {
        bail!("status.listen: {MOST} addresses at most");
    }
    let parse = |text: &String| {
        text.parse().with_context(|| format!("status.listen: {text:?} is no ADDRESS:PORT, for instance [::]:80"))
    };
    texts.iter().map(parse).collect()
}
