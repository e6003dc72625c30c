//! All connections, and when it is over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use russh::SshId;
use russh::keys::HashAlg;
use russh::server::{Config, run_stream};
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::code::Code;
use crate::host_key;
use crate::options::Options;
use crate::session::{Pairing, Progress, Visitor, methods};
use crate::signer::Signer;
use crate::window::{OPEN_FOR, Outcome, Window};

/// Connections at once; further ones wait in the system's queue.
const CONNECTIONS: usize = 16;
/// Of these, from one address.
const CONNECTIONS_OF_ONE: usize = 8;
/// Keys are exchanged in this time.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// A person types a code in this time.
const ENTER_WITHIN: Duration = Duration::from_secs(120);
/// And all of it is over in this.
const OVER_WITHIN: Duration = Duration::from_secs(300);
/// Last words reach the other end.
const PART_WITHIN: Duration = Duration::from_secs(2);
/// After an error of accept, which mostly is a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// A refusal to log in takes so long at least.
const REFUSE_AFTER: Duration = Duration::from_millis(300);
/// Refusals that one connection may have, among them one for each key that a client has.
const REFUSALS: usize = 12;
/// What a channel may have under way: all files here are smaller.
const CHANNEL_BYTES: u32 = 64 * 1024;

/// Lets one setup in. How it ended.
///
/// # Errors
/// It can't begin.
pub fn run(options: Options) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    let outcome = runtime.block_on(serve(options));
    // A signature that nobody waits for any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(options: Options) -> Result<Outcome> {
    let listener = listen(&options)?;
    let key = host_key::load_or_make(&options.data)?;
    let fingerprint = key.fingerprint(HashAlg::Sha256);
    let signer = Signer::new(&options.server, &options.data);
    let authority = signer.authority().await.context("asking for the QDevice authority")?;
    let code = Code::random().context("making a code")?;
    show(&format!(
        "For `pvecm qdevice setup ADDRESS` on one node: root's password is\n\n    {code}\n\nfor one setup within {} minutes. The \
         key of this machine is {fingerprint} (ED25519).",
        OPEN_FOR.as_secs() / 60
    ));
    let config = Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Tiebreaker_", env!("CARGO_PKG_VERSION")))),
        methods: methods(),
        auth_rejection_time: REFUSE_AFTER,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: REFUSALS,
        keys: vec![key],
        window_size: CHANNEL_BYTES,
        inactivity_timeout: Some(ENTER_WITHIN),
        nodelay: true,
        ..Config::default()
    });
    let pairing = Arc::new(Pairing::new(Window::new(code, authority), signer));
    let outcome = accept(&listener, &pairing, &config).await;
    drop(listener);
    let ended = match &outcome {
        Outcome::Signed { cluster, fetched: true } => format!("{cluster} was set up"),
        Outcome::Signed { cluster, fetched: false } => {
            format!("a certificate was signed for {cluster}, and its node did not fetch it")
        }
        Outcome::Late => "nobody has finished in time".to_owned(),
        Outcome::Guessed => "too many codes were wrong".to_owned(),
    };
    info!("ssh is closed: {ended}");
    show(&format!("The ssh for pvecm is closed: {ended}. Restart the machine for another setup."));
    Ok(outcome)
}

fn listen(options: &Options) -> Result<TcpListener> {
    let listener = match options.listen {
        Some(address) => std::net::TcpListener::bind(address).with_context(|| format!("listening at {address}"))?,
        None => {
            let context = "the standard input is no socket that listens: give --listen ADDRESS:PORT";
            let socket = io::stdin().as_fd().try_clone_to_owned().context(context)?;
            let listener = std::net::TcpListener::from(socket);
            listener.local_addr().context(context)?;
            listener
        }
    };
    listener.set_nonblocking(true).context("listening")?;
    TcpListener::from_std(listener).context("listening")
}

/// What a person is to see. Nobody may be there.
fn show(text: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Takes connections until it is over.
async fn accept(listener: &TcpListener, pairing: &Arc<Pairing>, config: &Arc<Config>) -> Outcome {
    let mut visits = JoinSet::new();
    let mut of: BTreeMap<IpAddr, usize> = BTreeMap::new();
    loop {
        let (ended, again) = pairing.look(|now, window| (window.poll(now), window.poll_timeout()));
        if let Some(outcome) = ended {
            return outcome;
        }
        let again = again.map_or_else(Instant::now, |again| pairing.moment(again).into());
        tokio::select! {
            accepted = listener.accept(), if visits.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let peer = peer.ip().to_canonical();
                    let count = of.entry(peer).or_default();
                    if *count < CONNECTIONS_OF_ONE {
                        *count += 1;
                        visits.spawn(visit(stream, peer, Arc::clone(pairing), Arc::clone(config)));
                    } else {
                        warn!(%peer, "it has too many connections");
                    }
                }
                Err(error) => {
                    warn!("no connection can be taken: {error}");
                    sleep(ACCEPT_AGAIN).await;
                }
            },
            Some(done) = visits.join_next() => {
                if let Ok(peer) = done && let Some(count) = of.get_mut(&peer) {
                    *count -= 1;
                    if *count == 0 {
                        of.remove(&peer);
                    }
                }
            }
            () = pairing.changed() => {}
            () = sleep_until(again) => {}
        }
    }
}

/// One connection, from its beginning to its end.
async fn visit(mut stream: TcpStream, peer: IpAddr, pairing: Arc<Pairing>, config: Arc<Config>) -> IpAddr {
    let _ = stream.set_nodelay(true);
    let (progress, seen) = watch::channel(Progress::Greets);
    let visitor = Visitor::new(pairing, peer, progress);
    // The library's task ends when its end of this pipe is gone: so it can be cut off at any moment.
    let (mut near, far) = duplex(CHANNEL_BYTES as usize);
    let talk = async { run_stream(config, far, visitor).await?.await };
    let pump = copy_bidirectional(&mut stream, &mut near);
    tokio::pin!(talk, pump);
    tokio::select! {
        ended = &mut talk => {
            if let Err(error) = ended {
                debug!(%peer, "a connection ended: {error}");
            }
            let _ = timeout(PART_WITHIN, pump).await;
        }
        _ = &mut pump => {}
        () = too_late(seen) => debug!(%peer, "a connection took too long"),
    }
    peer
}

/// Ends when a connection has taken too long for what it has come to.
async fn too_late(mut seen: watch::Receiver<Progress>) {
    let began = Instant::now();
    for (within, progress) in [(GREET_WITHIN, Progress::Knocks), (ENTER_WITHIN, Progress::Entered)] {
        match timeout_at(began + within, seen.wait_for(|seen| *seen >= progress)).await {
            Ok(Ok(_)) => {}
            // The session has ended, and its last words are under way.
            Ok(Err(_)) => break,
            Err(_) => return,
        }
    }
    sleep_until(began + OVER_WITHIN).await;
}
