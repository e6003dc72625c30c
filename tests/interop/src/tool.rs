//! Programs of other packages.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// Finds a program. A test that needs it fails without it, and says what to install.
///
/// # Errors
/// The program is in none of the usual folders.
pub fn tool(program: &str, debian_package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{program} is missing: install the Debian package {debian_package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = tool("no-such-program", "some-package").expect_err("there is no such program");
        assert_eq!(error.to_string(), "no-such-program is missing: install the Debian package some-package");
    }
}
