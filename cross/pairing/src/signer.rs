//! The server's program, which has the authority.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// A signature takes a tenth of a second; a card may be slow.
const WITHIN: Duration = Duration::from_secs(30);
/// A certificate has one kilobyte.
const CERTIFICATE_BYTES: usize = 16 * 1024;

/// Why the program gave nothing.
#[derive(Debug, Error)]
pub enum SignerError {
    /// It can't be run.
    #[error("can't run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("{} gave no answer within {} s", program.display(), WITHIN.as_secs())]
    Slow {
        /// The program.
        program: PathBuf,
    },
    /// It refuses.
    #[error("{0}")]
    Refused(String),
    /// What it printed is no certificate.
    #[error("{} printed no certificate", program.display())]
    NoCertificate {
        /// The program.
        program: PathBuf,
    },
}

/// The program and its data folder.
#[derive(Clone, Debug)]
pub struct Signer {
    program: PathBuf,
    data: PathBuf,
}

impl Signer {
    /// This program, on this folder.
    #[must_use]
    pub fn new(program: &Path, data: &Path) -> Self {
        Self { program: program.to_owned(), data: data.to_owned() }
    }

    /// The authority's certificate. It is made if there is none.
    ///
    /// # Errors
    /// What the program says.
    pub async fn authority(&self) -> Result<Vec<u8>, SignerError> {
        self.ask(&["ca"], &[], &[]).await
    }

    /// Signs a request for a cluster.
    ///
    /// # Errors
    /// What the program says: the request is none, is another cluster's, or the cluster isn't served.
    pub async fn sign(&self, cluster: &str, request: &[u8]) -> Result<Vec<u8>, SignerError> {
        // The request stays in memory.
        self.ask(&["sign", "--cluster", cluster], &["/proc/self/fd/0"], request).await
    }

    async fn ask(&self, before: &[&str], behind: &[&str], input: &[u8]) -> Result<Vec<u8>, SignerError> {
        let failed = |source| SignerError::Run { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .arg("qdevice")
            .args(before)
            .arg("--data")
            .arg(&self.data)
            .args(behind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It fits into a pipe. A program that doesn't read it says why on its other end.
            let _ = stdin.write_all(input).await;
        }
        let slow = |_| SignerError::Slow { program: self.program.clone() };
        let output = timeout(WITHIN, child.wait_with_output()).await.map_err(slow)?.map_err(failed)?;
        if !output.status.success() {
            return Err(SignerError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let certificate = output.stdout;
        if !certificate.starts_with(b"-----BEGIN CERTIFICATE-----") || certificate.len() > CERTIFICATE_BYTES {
            return Err(SignerError::NoCertificate { program: self.program.clone() });
        }
        Ok(certificate)
    }
}
