//! The service's connections, ports and state on their way from one process to the next, through the service manager's
//! file descriptor store. Clients notice nothing: their connections stay open, TLS and all, and so does their vote.
//!
//! What can't be handed over is closed, and its client comes again: who shakes hands, who speaks TLS 1.2, and everybody
//! where the state is of another version or too old.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::MemfdFlags;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tiebreaker_member::service_manager::ServiceManager;
use tiebreaker_qnetd::Saved;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::tls::KeptTls;

/// The stored descriptors' names: clients' sockets, the state, and our own ports.
const CLIENTS: &str = "qdevice-client";
const STATE: &str = "qdevice-state";
const PORTS: &str = "qdevice-port";

/// What a socket unit calls its descriptors (`FileDescriptorName=`).
const SOCKET_UNIT: &str = "qdevice";

/// Raised with every change of what the fields mean.
const FORMAT: u32 = 1;

/// By then clients have missed an echo: what was saved is not true any more.
const TOO_OLD: Duration = Duration::from_secs(20);

/// A state is some kilobytes; each of ten thousand clients adds a little.
const STATE_MAX: u64 = 64 << 20;

/// A connection on its way.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptConnection {
    /// Its number.
    pub client: u64,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// Its encryption, if it has any.
    pub tls: Option<KeptTls>,
    /// Decrypted and not yet dealt with.
    #[serde(with = "serde_bytes")]
    pub plain: Vec<u8>,
    /// To be written.
    #[serde(with = "serde_bytes")]
    pub outgoing: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    /// CLOCK_BOOTTIME, in milliseconds.
    at_ms: u64,
    server: Saved,
    connections: Vec<KeptConnection>,
}

/// All that goes.
#[derive(Debug)]
pub struct Leaving {
    /// What is known.
    pub server: Saved,
    /// The connections, with their sockets.
    pub connections: Vec<(TcpStream, KeptConnection)>,
    /// The ports.
    pub listeners: Vec<TcpListener>,
}

/// What has come.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Ports, ours from before or a socket unit's.
    pub listeners: Vec<TcpListener>,
    /// State and connections.
    pub service: Option<(Saved, Vec<(TcpStream, KeptConnection)>)>,
}

impl Leaving {
    /// Gives everything to the service manager. The descriptors are its own when this returns.
    ///
    /// # Errors
    /// When it takes nothing, or the system has no memory for the state. Clients then come again.
    pub fn store(self, manager: &ServiceManager) -> Result<()> {
        let (sockets, connections): (Vec<TcpStream>, Vec<KeptConnection>) = self.connections.into_iter().unzip();
        let state = State { format: FORMAT, at_ms: boottime_ms(), server: self.server, connections };
        let mut bytes = Zeroizing::new(Vec::new());
        cbor4ii::serde::to_writer(&mut *bytes, &state).context("encoding the state")?;
        let memory = rustix::fs::memfd_create("qdevice-state", MemfdFlags::CLOEXEC).context("making room")?;
        let mut memory = File::from(memory);
        memory.write_all(&bytes).context("writing the state")?;
        manager.store_all(PORTS, &self.listeners.iter().map(AsFd::as_fd).collect::<Vec<BorrowedFd<'_>>>())?;
        manager.store_all(CLIENTS, &sockets.iter().map(AsFd::as_fd).collect::<Vec<BorrowedFd<'_>>>())?;
        // The state comes last: without it the sockets are of no use.
        manager.store_all(STATE, &[memory.as_fd()])?;
        manager.wait_for_it().context("the service manager did not take the connections in time")?;
        info!(connections = sockets.len(), "QDevice connections go to the next process");
        Ok(())
    }
}

impl Arrived {
    /// The port at this address, if there is one.
    pub fn port(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.listeners.iter().position(|port| port.local_addr().is_ok_and(|local| local == address))?;
        Some(self.listeners.swap_remove(at))
    }

    /// Sorts what the service manager kept, takes this service's part out of it, and has it keep nothing any more: a
    /// connection must end when we close it.
    pub fn take(kept: &mut Vec<(String, OwnedFd)>, manager: Option<&ServiceManager>) -> Self {
        let mut arrived = Self::default();
        let (mut sockets, mut states) = (Vec::new(), Vec::new());
        for (name, fd) in std::mem::take(kept) {
            match name.as_str() {
                PORTS | SOCKET_UNIT => arrived.listeners.push(TcpListener::from(fd)),
                CLIENTS => sockets.push(TcpStream::from(fd)),
                STATE => states.push(File::from(fd)),
                _ => kept.push((name, fd)),
            }
        }
        if let Some(manager) = manager
            && !(states.is_empty() && sockets.is_empty() && arrived.listeners.is_empty())
        {
            for name in [PORTS, CLIENTS, STATE] {
                if let Err(error) = manager.remove(name) {
                    warn!("the service manager keeps {name}, and connections may linger: {error}");
                }
            }
        }
        if states.is_empty() && sockets.is_empty() {
            return arrived;
        }
        // Several are of several restarts, and none is to be trusted.
        let read = match &mut states[..] {
            [state] => read(state),
            [] => Err(anyhow::anyhow!("there is no state with them")),
            _ => Err(anyhow::anyhow!("there are several states")),
        };
        match read {
            Ok(state) => arrived.service = Some((state.server, matched(sockets, state.connections))),
            Err(error) => warn!("QDevice clients of the former process are let go, and come again: {error:#}"),
        }
        arrived
    }
}

fn read(file: &mut File) -> Result<State> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.seek(SeekFrom::Start(0)).context("reading the state")?;
    file.take(STATE_MAX).read_to_end(&mut bytes).context("reading the state")?;
    let state: State = cbor4ii::serde::from_slice(&bytes[..]).context("its state can't be read")?;
    if state.format != FORMAT {
        bail!("its state is of another version");
    }
    let age = Duration::from_millis(boottime_ms().saturating_sub(state.at_ms));
    if age > TOO_OLD {
        bail!("its state is {age:?} old");
    }
    Ok(state)
}

/// Each connection with its socket, found by its two ends; who has lost its socket, or whose peer is gone, is left out.
fn matched(sockets: Vec<TcpStream>, connections: Vec<KeptConnection>) -> Vec<(TcpStream, KeptConnection)> {
    let mut by_ends: BTreeMap<(SocketAddr, SocketAddr), TcpStream> = sockets
        .into_iter()
        .filter_map(|socket| Some(((socket.local_addr().ok()?, socket.peer_addr().ok()?), socket)))
        .collect();
    connections
        .into_iter()
        .filter_map(|connection| Some((by_ends.remove(&(connection.local, connection.peer))?, connection)))
        .collect()
}

fn boottime_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let millis = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or_default()
}
