//! Debian's `corosync-qnetd`, plain text on loopback, to compare ours with.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::set_tcp_quickack;
use tempfile::TempDir;
use tiebreaker_qnetd::wire::{Fields, Message, MessageKind, Opt};

use crate::{Program, loopback, tool, until};

const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A running `corosync-qnetd`; it ends when this is dropped.
#[derive(Debug)]
pub struct Original {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Original {
    /// Starts it without TLS.
    ///
    /// # Errors
    /// The package is missing, or it doesn't come up.
    pub fn start() -> Result<Self> {
        Self::run(Command::new(tool("corosync-qnetd", "corosync-qnetd")?))
    }

    /// Starts ours in its place, by its name.
    ///
    /// # Errors
    /// It can't be built, or doesn't come up.
    pub fn stand_in() -> Result<Self> {
        let mut command = Program::Server.command()?;
        command.arg0("corosync-qnetd");
        Self::run(command)
    }

    fn run(mut command: Command) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::new(loopback().ip(), 5403);
        let settings =
            format!("lock_file={0}/pid,local_socket_file={0}/sock,listen_backlog=128", folder.path().display());
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = command
            .args([
                "-f",
                "-4",
                "-s",
                "off",
                "-l",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
                "-m",
                "10000",
            ])
            .args(["-S", &settings])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting corosync-qnetd")?;
        let mut original = Self { child, address, folder };
        let address = original.address;
        let up = until("corosync-qnetd", ANSWERS_WITHIN, || match original.child.try_wait()? {
            Some(status) => Ok(Err(status)),
            None => Ok(TcpStream::connect(address).map(drop).map(Ok)?),
        })?;
        if let Err(status) = up {
            bail!("corosync-qnetd ended: {status}; its log: {}", original.log());
        }
        Ok(original)
    }

    /// A new connection to it.
    ///
    /// # Errors
    /// It doesn't listen.
    pub fn connect(&self) -> Result<Peer> {
        let stream = TcpStream::connect(self.address).context("connecting to corosync-qnetd")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
        Ok(Peer { stream, echoes: 0 })
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It runs on.
    pub fn until_ended(&mut self) -> Result<ExitStatus> {
        until("the end of corosync-qnetd", ANSWERS_WITHIN, || self.child.try_wait()?.context("it runs"))
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.folder.path().join("log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system's.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A connection to it.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    echoes: u32,
}

impl Peer {
    /// Sends bytes as they are. A connection that it closed is no error: what comes back tells.
    pub fn send(&mut self, bytes: &[u8]) {
        let _closed = self.stream.write_all(bytes);
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// They don't come in time; tells what did.
    pub fn read(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut have = 0;
        while have < count {
            // The original leaves Nagle's algorithm on: it would wait for our delayed acknowledgements.
            set_tcp_quickack(&self.stream, true)?;
            match self.stream.read(&mut bytes[have..]) {
                Ok(0) => bail!("it closed after {:02x?}", &bytes[..have]),
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("{error} after {:02x?} of {count}", &bytes[..have]),
            }
        }
        Ok(bytes)
    }

    /// Whatever else has come by now.
    ///
    /// # Errors
    /// The connection failed.
    pub fn leftover(&mut self) -> Result<Vec<u8>> {
        self.stream.set_nonblocking(true)?;
        let mut bytes = vec![0; 4096];
        let read = self.stream.read(&mut bytes);
        self.stream.set_nonblocking(false)?;
        match read {
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until it has closed the connection.
    ///
    /// # Errors
    /// It sends something, or doesn't close in time.
    pub fn closed(&mut self) -> Result<()> {
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => bail!("it sent something instead of closing"),
            Err(error) => Err(error).context("it did not close"),
        }
    }

    /// Joins a cluster of its own, to see by its echoes that everything before them was dealt with.
    ///
    /// # Errors
    /// It is refused.
    pub fn watch(&mut self) -> Result<()> {
        use tiebreaker_qnetd::wire::{NodeId, RingId, TieBreaker};
        let preinit = vec![Opt::Seq(1), Opt::ClusterName(b"watch".to_vec())];
        self.ask(&Message::new(MessageKind::Preinit, preinit))?;
        let init = vec![
            Opt::Seq(2),
            Opt::NodeId(NodeId(1)),
            Opt::RingId(RingId::default()),
            Opt::HeartbeatInterval(120_000),
            Opt::TieBreaker(TieBreaker::Lowest),
            Opt::DecisionAlgorithm(0),
        ];
        let reply = self.ask(&Message::new(MessageKind::Init, init))?;
        ensure!(reply.error_code == Some(0), "refused: {reply:?}");
        Ok(())
    }

    /// Waits until all that was sent before, on any connection, is done: whatever it finds in one round of its loop has
    /// its effects at the latest at the start of the next.
    ///
    /// # Errors
    /// It doesn't answer.
    pub fn barrier(&mut self) -> Result<()> {
        for _ in 0..2 {
            self.echoes += 1;
            let reply = self.ask(&Message::new(MessageKind::EchoRequest, vec![Opt::Seq(self.echoes)]))?;
            ensure!(reply.seq == Some(self.echoes), "another echo came back: {reply:?}");
        }
        Ok(())
    }

    fn ask(&mut self, message: &Message) -> Result<Fields> {
        self.send(&message.encode());
        let head = self.read(6)?;
        let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        Ok(Fields::read(&self.read(usize::try_from(length)?)?)?)
    }
}
