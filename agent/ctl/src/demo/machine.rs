//! The demo's end of a machine: starts its process, tells it what happens to it, hears what did.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tiebreaker_agent::kill_tree;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::chassis::{ChassisConfig, Happened, Order};

const READY_WITHIN: Duration = Duration::from_secs(10);
/// A machine that is told to go needs 5 s at most to kill what runs on it.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Something happened to a machine.
#[derive(Debug)]
pub struct News {
    /// To which.
    pub machine: String,
    /// When that was heard.
    pub at: Instant,
    /// What.
    pub what: Happened,
}

/// A machine. Its processes end with it, also when the demo is killed: then its input ends.
pub struct Machine {
    name: String,
    child: Child,
    orders: ChildStdin,
}

impl Machine {
    /// Starts a machine without power; returns it with what it said first.
    ///
    /// # Errors
    /// When its process can't be started.
    pub async fn start(
        name: &str,
        config: &ChassisConfig,
        dir: &Path,
        news: mpsc::Sender<News>,
    ) -> Result<(Self, Happened)> {
        let path = dir.join(format!("{name}.machine.json"));
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        serde_json::to_writer(file, config).with_context(|| format!("writing {}", path.display()))?;
        let mut child = Command::new(&config.program)
            .arg0(crate::cli::CHASSIS)
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the demo, which then ends its machines in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting machine {name}"))?;
        let orders = child.stdin.take().context("the machine's input")?;
        let output = child.stdout.take().context("the machine's output")?;
        let mut lines = BufReader::new(output).lines();
        let machine = Self { name: name.to_owned(), child, orders };
        let first = timeout(READY_WITHIN, next(&mut lines))
            .await
            .with_context(|| format!("waiting for machine {name}"))??
            .with_context(|| format!("machine {name} ended at once"))?;
        if let Happened::Failed { why } = first {
            bail!("machine {name}: {why}");
        }
        let name = machine.name.clone();
        // It ends with the machine's process.
        tokio::spawn(async move {
            while let Ok(Some(what)) = next(&mut lines).await {
                if news.send(News { machine: name.clone(), at: Instant::now(), what }).await.is_err() {
                    return;
                }
            }
        });
        Ok((machine, first))
    }

    /// Tells it what happens to it.
    ///
    /// # Errors
    /// When its process is gone.
    pub async fn tell(&mut self, order: Order) -> Result<()> {
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        let written = async {
            self.orders.write_all(&line).await?;
            self.orders.flush().await
        };
        written.await.with_context(|| format!("telling machine {}", self.name))
    }

    /// Ends it, with everything on it.
    ///
    /// # Errors
    /// When something could not be killed.
    pub async fn end(self) -> Result<()> {
        let Self { name, mut child, orders } = self;
        drop(orders);
        if let Ok(waited) = timeout(GONE_WITHIN, child.wait()).await {
            waited.with_context(|| format!("waiting for the end of machine {name}"))?;
            return Ok(());
        }
        if let Some(pid) = child.id() {
            kill_tree(pid).with_context(|| format!("killing machine {name}"))?;
        }
        child.wait().await.with_context(|| format!("waiting for the end of machine {name}"))?;
        Ok(())
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Option<Happened>> {
    match lines.next_line().await.context("listening to a machine")? {
        Some(line) => Ok(Some(serde_json::from_str(&line).with_context(|| format!("a machine said {line:?}"))?)),
        None => Ok(None),
    }
}
