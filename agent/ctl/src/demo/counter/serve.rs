//! The counter's daemon.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

use super::here::{Here, stat};
use super::ledger::{Event, Happening, Instance, Line};
use crate::demo::monotonic_ns;

/// A client says what it wants within this time, or is cut off.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a request that are read.
const REQUEST_MAX: u64 = 8 << 10;

/// The pid file of the daemon: its pid and when it was started.
pub(super) fn pid_file(here: &Here) -> PathBuf {
    here.dir.join("counter.pid")
}

/// Serves until it is killed. Returns only with an error.
pub(super) fn serve(here: &Here, shared: &Path) -> Result<()> {
    // It may lead a session already when somebody runs it by hand.
    let _led = rustix::process::setsid();
    let mut counter = Counter::open(here, shared)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, here.port))
        .with_context(|| format!("listening on port {}", here.port))?;
    counter.happened(Happening::Start)?;
    if !counter.alone {
        counter.happened(Happening::Double)?;
    }
    let own = std::process::id();
    let started = stat(own).context("reading /proc/self/stat")?.started;
    let tmp = here.dir.join("counter.pid.new");
    fs::write(&tmp, format!("{own} {started}\n")).with_context(|| format!("writing {}", tmp.display()))?;
    fs::rename(&tmp, pid_file(here)).with_context(|| format!("writing {}", pid_file(here).display()))?;
    loop {
        let (stream, _) = listener.accept().context("accepting a client")?;
        // One client's trouble is its own.
        if let Err(error) = counter.client(stream) {
            eprintln!("a client: {error:#}");
        }
    }
}

struct Counter {
    instance: Instance,
    count: u64,
    counts: File,
    events: File,
    /// No other instance had the folder when this one started. Detects double runs, and prevents none.
    alone: bool,
    _lock: File,
}

impl Counter {
    fn open(here: &Here, shared: &Path) -> Result<Self> {
        let append = |name: &str| {
            let path = shared.join(name);
            OpenOptions::new()
                .create(true)
                .read(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("opening {}", path.display()))
        };
        let lock = append("lock")?;
        let alone = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        let mut counts = append("counts")?;
        let mut text = String::new();
        counts.read_to_string(&mut text).context("reading the counts")?;
        // Only a kill within the write leaves half a line, and that count was told to nobody.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        counts.set_len(whole as u64).context("cutting off half a line")?;
        counts.seek(SeekFrom::End(0)).context("going to the end of the counts")?;
        let count = match text[..whole].lines().next_back() {
            None => 0,
            Some(line) => line.parse::<Line>().context("the last count can't be read")?.count,
        };
        let instance = Instance { node: here.node.clone(), pid: std::process::id(), started_ns: monotonic_ns() };
        Ok(Self { instance, count, counts, events: append("events")?, alone, _lock: lock })
    }

    fn happened(&mut self, what: Happening) -> Result<()> {
        let event = Event { at_ns: monotonic_ns(), instance: self.instance.clone(), what };
        self.events.write_all(format!("{event}\n").as_bytes()).context("writing an event")
    }

    fn client(&mut self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?.take(REQUEST_MAX));
        let mut request = String::new();
        reader.read_line(&mut request).context("reading a request")?;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).context("reading a header")? <= 2 {
                break;
            }
        }
        let (status, body) = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
            ["POST", "/count"] => match self.add() {
                Ok(()) => ("200 OK", self.state()),
                Err(error) => ("500 Internal Server Error", format!("{error:#}\n")),
            },
            ["GET", "/"] => ("200 OK", self.state()),
            _ => ("404 Not Found", "POST /count counts, GET / tells\n".to_owned()),
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")?;
        Ok(())
    }

    /// The next count, durable when this returns.
    fn add(&mut self) -> Result<()> {
        let line = Line { count: self.count + 1, instance: self.instance.clone() };
        self.counts.write_all(format!("{line}\n").as_bytes()).context("storing the count")?;
        self.counts.sync_data().context("making the count durable")?;
        self.count = line.count;
        self.happened(Happening::Serve)
    }

    fn state(&self) -> String {
        let line = Line { count: self.count, instance: self.instance.clone() };
        format!("{line}\n")
    }
}
