//! A smart plug: a Shelly of the second generation as its documentation describes it, that asks for no password and measures.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Its MAC address.
pub const MAC: &str = "A8032ABE54DC";

/// A plug on a free port of loopback. Ends when dropped.
pub struct Plug {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    mac: &'static str,
    relay: AtomicBool,
    ends: AtomicBool,
    /// What it was told, in order.
    told: Mutex<Vec<bool>>,
    /// What hangs on it.
    load: Mutex<Option<Load>>,
}

/// Is told that it has power, or has none any more.
type Load = Box<dyn Fn(bool) + Send>;

impl Plug {
    /// Starts it, switched on.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start() -> Result<Self> {
        Self::with_mac(MAC)
    }

    /// The same by another MAC address.
    ///
    /// # Errors
    /// There is no free port.
    pub fn with_mac(mac: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            mac,
            relay: true.into(),
            ends: false.into(),
            told: Mutex::default(),
            load: Mutex::default(),
        });
        let its = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if its.ends.load(Ordering::SeqCst) {
                    return;
                }
                // Who hangs up is no fault of the plug.
                let _ = stream.map_err(Into::into).and_then(|stream| its.serve(stream));
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this hangs on it: it is told of each change before the plug answers.
    pub fn feeds(&self, load: impl Fn(bool) + Send + 'static) {
        if let Ok(mut place) = self.shared.load.lock() {
            *place = Some(Box::new(load));
        }
    }

    /// The commands that it got: on and off.
    #[must_use]
    pub fn told(&self) -> Vec<bool> {
        self.shared.told.lock().map(|told| told.clone()).unwrap_or_default()
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// One question, one answer.
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = first.split(' ').nth(1).context("a path")?;
        let (status, answer) = self.answer(path, &body)?;
        let answer = answer.to_string();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        )?;
        Ok(())
    }

    fn answer(&self, path: &str, body: &[u8]) -> Result<(&'static str, Value)> {
        let relay = self.relay.load(Ordering::SeqCst);
        let watts = if relay { 41.7 } else { 0.0 };
        Ok(match path {
            "/shelly" => (
                "200 OK",
                json!({"id": format!("shellyplus1pm-{}", self.mac.to_lowercase()), "mac": self.mac, "gen": 2, "auth_en": false}),
            ),
            "/rpc/Switch.GetStatus?id=0" => ("200 OK", json!({"id": 0, "output": relay, "apower": watts})),
            "/rpc/Switch.Set" => {
                let asked: Value = serde_json::from_slice(body)?;
                let on = asked["on"].as_bool().context("on or off")?;
                if let Ok(mut told) = self.told.lock() {
                    told.push(on);
                }
                self.relay.store(on, Ordering::SeqCst);
                if let Ok(load) = self.load.lock()
                    && let Some(load) = load.as_ref()
                {
                    load(on);
                }
                ("200 OK", json!({"was_on": relay}))
            }
            _ => ("404 Not Found", json!({"code": 404})),
        })
    }
}
