//! The log of a daemon that has no terminal: to the system's log, as the original does, and to standard error where it
//! stays in the foreground.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Where the system's log listens.
const DEVICE: &str = "/dev/log";

/// The facility "daemon", in its place.
const DAEMON: u8 = 3 << 3;

/// Starts the log.
pub fn start(foreground: bool, debug: bool) {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let system = tracing_subscriber::fmt::layer()
        .with_writer(System)
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_target(false);
    let own = foreground.then(|| tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false));
    tracing_subscriber::registry().with(level).with(system).with(own).init();
}

/// Makes one record of each event.
struct System;

impl<'a> MakeWriter<'a> for System {
    type Writer = Record;

    fn make_writer(&'a self) -> Record {
        Record { priority: DAEMON | 6, text: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Record {
        let severity = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        Record { priority: DAEMON | severity, text: Vec::new() }
    }
}

/// One record; it is sent when it is whole.
struct Record {
    priority: u8,
    text: Vec<u8>,
}

impl Write for Record {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let head = format!("<{}>corosync-qnetd[{}]: ", self.priority, std::process::id());
        let record = [head.as_bytes(), self.text.trim_ascii_end()].concat();
        // A machine without a system log has none to tell.
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(&record, DEVICE)
        });
        let _ = sent;
    }
}
