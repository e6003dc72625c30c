//! The control socket that `corosync-qnetd-tool` asks, and `pcs` through it: one line of text in, text out.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_qnetd::wire::{Algorithm, Heuristics, NodeId, TieBreaker, Vote};
use tiebreaker_qnetd::{ClusterView, MemberView, TlsMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::questions::{Look, Questions};
use super::settings::Settings;

/// Who asks says so, and takes the answer, in this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// After an error of accept, which mostly is a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How the socket is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlSettings {
    /// Where it is.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Its group, if not the process's.
    pub group: Option<u32>,
    /// So many are answered at a time; more are sent away.
    pub max_clients: usize,
    /// Bytes in a request, its newline included.
    pub max_request: usize,
    /// Bytes in an answer.
    pub max_answer: usize,
}

impl ControlSettings {
    /// A socket with corosync-qnetd's own bounds.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path, mode: 0o755, group: None, max_clients: 10, max_request: 4096, max_answer: 10 << 20 }
    }
}

/// What becomes of a request to shut down.
#[derive(Clone, Debug)]
pub enum OnShutdown {
    /// It is refused, with these words.
    Refuse(&'static str),
    /// Whoever waits for this ends the service.
    Tell(mpsc::Sender<()>),
}

/// What the service says of itself.
#[derive(Clone, Debug)]
struct Facts {
    address: String,
    tls: TlsMode,
    certificate: bool,
    max_clients: usize,
}

/// The socket. Its file goes with it.
pub struct ControlSocket {
    settings: ControlSettings,
    listener: UnixListener,
    facts: Facts,
    questions: Questions,
    on_shutdown: OnShutdown,
}

impl ControlSocket {
    /// Opens it; what a service that crashed left there is replaced.
    ///
    /// # Errors
    /// When another service answers there, something else is in the way, or the system refuses.
    pub fn bind(
        settings: ControlSettings,
        service: &Settings,
        listens: &[SocketAddr],
        questions: Questions,
        on_shutdown: OnShutdown,
    ) -> Result<Self> {
        let path = &settings.path;
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o770).create(folder);
            made.with_context(|| format!("creating {}", folder.display()))?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(settings.mode))
            .with_context(|| format!("setting the mode of {}", path.display()))?;
        if settings.group.is_some() {
            chown(path, None, settings.group).with_context(|| format!("setting the group of {}", path.display()))?;
        }
        let addresses: Vec<String> = listens.iter().map(listening).collect();
        let facts = Facts {
            address: addresses.join(", "),
            tls: service.tls(),
            certificate: service.votes.client_cert_required,
            max_clients: service.votes.limits.clients,
        };
        Ok(Self { settings, listener, facts, questions, on_shutdown })
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// None so far: what fails is tried again.
    pub async fn run(self) -> Result<()> {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if clients.len() < self.settings.max_clients => {
                        let client = Client {
                            stream,
                            facts: self.facts.clone(),
                            questions: self.questions.clone(),
                            on_shutdown: self.on_shutdown.clone(),
                            max_request: self.settings.max_request,
                            max_answer: self.settings.max_answer,
                        };
                        clients.spawn(client.serve());
                    }
                    Ok(_) => warn!("too many ask on the QDevice control socket at a time: one was sent away"),
                    Err(error) => {
                        warn!("accepting on the QDevice control socket: {error}");
                        sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // What is left behind is replaced at the next start.
        let _ = fs::remove_file(&self.settings.path);
    }
}

fn remove_stale(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("examining {}", path.display())),
        Ok(meta) if !meta.file_type().is_socket() => bail!("{} is in the way: it is no socket", path.display()),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another QDevice server answers on {}: stop it first", path.display()),
        Err(_) => fs::remove_file(path).with_context(|| format!("removing what was left at {}", path.display())),
    }
}

/// One that asks.
struct Client {
    stream: UnixStream,
    facts: Facts,
    questions: Questions,
    on_shutdown: OnShutdown,
    max_request: usize,
    max_answer: usize,
}

impl Client {
    async fn serve(mut self) {
        let Ok(Ok(Some(line))) = timeout(PATIENCE, self.read()).await else {
            debug!("nothing was asked on the QDevice control socket");
            return;
        };
        let (mut answer, shut_down) = self.answer(&Request::parse(&line)).await;
        if answer.len() > self.max_answer {
            answer = error("the answer is longer than ipc_max_send_size");
        }
        // Who asked may have gone.
        let _ = timeout(PATIENCE, self.stream.write_all(&answer)).await;
        if let Some(tell) = shut_down {
            info!("asked to shut down on the control socket");
            let _ = tell.send(()).await;
        }
    }

    /// The first line; `None` if there is none, or one that is too long.
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut portion = [0; 512];
        loop {
            let count = self.stream.read(&mut portion).await?;
            let came = portion.get(..count).unwrap_or_default();
            let end = came.iter().position(|byte| *byte == b'\n');
            line.extend_from_slice(came.get(..end.unwrap_or(count)).unwrap_or_default());
            if count == 0 || line.len() >= self.max_request {
                return Ok(None);
            }
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    async fn answer(&self, request: &Request) -> (Vec<u8>, Option<mpsc::Sender<()>>) {
        let gone = || error("the QDevice service is stopping");
        let answer = match request {
            Request::Status { verbose } => match self.questions.look().await {
                Some(look) => done(status(&self.facts, &look, *verbose).as_bytes()),
                None => gone(),
            },
            Request::List { verbose, cluster } => match self.questions.look().await {
                Some(look) => done(&list(&look.clusters, *verbose, cluster.as_deref())),
                None => gone(),
            },
            Request::Shutdown => match &self.on_shutdown {
                OnShutdown::Refuse(why) => error(why),
                OnShutdown::Tell(tell) => return (done(b""), Some(tell.clone())),
            },
            Request::Nothing => error("No command specified"),
            Request::Unknown(word) => {
                let mut text = b"Unknown command '".to_vec();
                text.extend_from_slice(word);
                text.push(b'\'');
                error(text)
            }
        };
        (answer, None)
    }
}

fn done(text: &[u8]) -> Vec<u8> {
    [b"OK\n", text].concat()
}

fn error(text: impl AsRef<[u8]>) -> Vec<u8> {
    [b"Error\n", text.as_ref(), b"\n"].concat()
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Request {
    Status { verbose: bool },
    List { verbose: bool, cluster: Option<Vec<u8>> },
    Shutdown,
    Nothing,
    Unknown(Vec<u8>),
}

impl Request {
    /// Reads a line. Words count whatever their case; those that mean nothing are passed over.
    fn parse(line: &[u8]) -> Self {
        let mut words = words(line).into_iter();
        let Some(command) = words.next().filter(|word| !word.is_empty()) else { return Self::Nothing };
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is(&command, "shutdown") {
            return Self::Shutdown;
        }
        let (mut verbose, mut cluster) = (false, None);
        while let Some(word) = words.next() {
            if is(&word, "verbose") {
                verbose = true;
            } else if is(&word, "cluster") {
                cluster = words.next();
            }
        }
        if is(&command, "status") {
            Self::Status { verbose }
        } else if is(&command, "list") {
            Self::List { verbose, cluster: cluster.filter(|name| !name.is_empty()) }
        } else {
            Self::Unknown(command)
        }
    }
}

/// The words of a line. Quotes hold blanks together, a backslash takes the next byte as it is.
fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            0 => {}
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c if !quoted => words.extend(word.take()),
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

/// Where it listens; the wildcard is a star.
fn listening(address: &SocketAddr) -> String {
    if address.ip().is_unspecified() { format!("*:{}", address.port()) } else { bare(address) }
}

/// An address without brackets.
fn bare(address: &SocketAddr) -> String {
    format!("{}:{}", address.ip(), address.port())
}

fn status(facts: &Facts, look: &Look, verbose: bool) -> String {
    let tls = match facts.tls {
        TlsMode::Required => "Required",
        TlsMode::Optional => "Supported",
        TlsMode::Off => "Unsupported",
    };
    let certificate = match facts.tls {
        TlsMode::Required | TlsMode::Optional if facts.certificate => " (client certificate required)",
        TlsMode::Required | TlsMode::Optional | TlsMode::Off => "",
    };
    let mut out = format!(
        "QNetd address:\t\t\t{}\nTLS:\t\t\t\t{tls}{certificate}\nConnected clients:\t\t{}\nConnected clusters:\t\t{}\n",
        facts.address,
        look.clients,
        look.clusters.len()
    );
    if verbose {
        let size = tiebreaker_qnetd::wire::MAX_MESSAGE;
        let _ = writeln!(out, "Maximum allowed clients:\t{}", facts.max_clients);
        let _ = writeln!(out, "Maximum send/receive size:\t{size}/{size} bytes");
    }
    out
}

/// Names are bytes: whatever a cluster calls itself is told as it is.
fn list(clusters: &[ClusterView], verbose: bool, only: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for cluster in clusters.iter().filter(|cluster| only.is_none_or(|name| name == cluster.name.as_bytes())) {
        out.extend_from_slice(b"Cluster \"");
        out.extend_from_slice(cluster.name.as_bytes());
        out.extend_from_slice(b"\":\n");
        out.extend_from_slice(about(cluster).as_bytes());
        for member in &cluster.members {
            out.extend_from_slice(node(member, verbose).as_bytes());
        }
    }
    out
}

fn about(cluster: &ClusterView) -> String {
    let algorithm = match cluster.algorithm {
        Algorithm::Test => "Test",
        Algorithm::FfSplit => "Fifty-Fifty split",
        Algorithm::TwoNodeLms => "2 Node LMS",
        Algorithm::Lms => "LMS",
    };
    let keeps = match cluster.algorithm {
        Algorithm::FfSplit if cluster.keep_active => " (KAP Tie-breaker)",
        Algorithm::FfSplit | Algorithm::Test | Algorithm::TwoNodeLms | Algorithm::Lms => "",
    };
    let tie_breaker = match cluster.tie_breaker {
        TieBreaker::Lowest => "Node with lowest node ID".to_owned(),
        TieBreaker::Highest => "Node with highest node ID".to_owned(),
        TieBreaker::Node(node) => format!("Node with node ID {node}"),
    };
    format!("    Algorithm:\t\t{algorithm}{keeps}\n    Tie-breaker:\t{tie_breaker}\n")
}

fn node(member: &MemberView, verbose: bool) -> String {
    let mut out = format!("    Node ID {}:\n", member.node);
    let mut line = |name: &str, tabs: &str, value: &str| {
        let _ = writeln!(out, "        {name}:{tabs}{value}");
    };
    line("Client address", "\t\t", &bare(&member.address));
    if verbose {
        line("HB interval", "\t\t", &format!("{}ms", member.heartbeat.as_millis()));
    }
    if let Some(version) = member.config_version {
        line("Configuration version", "\t", &version.to_string());
    }
    if !member.configured.is_empty() {
        line("Configured node list", "\t", &numbers(&member.configured));
    }
    if verbose {
        line("Ring ID", "\t\t", &format!("{:x}.{:x}", member.ring.node.0, member.ring.seq));
    }
    if !member.membership.is_empty() {
        line("Membership node list", "\t", &numbers(&member.membership));
    }
    if verbose {
        let words = [member.heuristics, member.membership_heuristics, member.regular_heuristics].map(result);
        let [all, membership, regular] = words;
        line("Heuristics", "\t\t", &format!("{all} (membership: {membership}, regular: {regular})"));
        let tls = match (member.tls, member.verified) {
            (true, true) => "Yes (client certificate verified)",
            (true, false) => "Yes",
            (false, _) => "No",
        };
        line("TLS active", "\t\t", tls);
    } else if member.heuristics != Heuristics::Undefined {
        line("Heuristics", "\t\t", result(member.heuristics));
    }
    if let Some(last) = member.last_vote {
        let standing = member.standing.as_ref().map(|(vote, _, _)| format!(" ({})", vote_name(*vote)));
        line("Vote", "\t\t\t", &format!("{}{}", vote_name(last), standing.unwrap_or_default()));
    }
    out
}

fn numbers(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn result(heuristics: Heuristics) -> &'static str {
    match heuristics {
        Heuristics::Undefined => "Undefined",
        Heuristics::Pass => "Pass",
        Heuristics::Fail => "Fail",
    }
}

fn vote_name(vote: Vote) -> &'static str {
    match vote {
        Vote::Ack => "ACK",
        Vote::Nack => "NACK",
        Vote::AskLater => "Ask later",
        Vote::WaitForReply => "Wait for reply",
        Vote::NoChange => "No change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_the_original_reads_it() {
        let status = |verbose| Request::Status { verbose };
        let list = |cluster: Option<&str>| Request::List { verbose: false, cluster: cluster.map(|name| name.into()) };
        let unknown = |word: &str| Request::Unknown(word.into());
        for (line, request) in [
            ("status ", status(false)),
            ("  STATUS\tverbose\r", status(true)),
            ("status \"verbose\"", status(true)),
            ("status\0 verbose", status(true)),
            ("status xverbose cluster x", status(false)),
            ("sta\"tus\"", status(false)),
            ("sta\\tus", status(false)),
            ("\"status", status(false)),
            ("list cluster", list(None)),
            ("list cluster \"\"", list(None)),
            ("list cluster \"a \\\"b\\\\\" ", list(Some("a \"b\\"))),
            ("list cluster x cluster y", list(Some("y"))),
            ("shutdown now", Request::Shutdown),
            ("", Request::Nothing),
            ("\"", Request::Nothing),
            ("\\", Request::Nothing),
            ("\\\"foo", unknown("\"foo")),
            ("bogus\"x y\"z q", unknown("bogusx yz")),
            ("a\\ b", unknown("a b")),
        ] {
            assert_eq!(Request::parse(line.as_bytes()), request, "{line:?}");
        }
    }

    #[test]
    fn addresses_are_written_without_brackets() {
        let text = |text: &str| listening(&text.parse().unwrap());
        assert_eq!(text("[::]:5403"), "*:5403");
        assert_eq!(text("0.0.0.0:1"), "*:1");
        assert_eq!(text("127.0.0.9:5999"), "127.0.0.9:5999");
        assert_eq!(text("[::ffff:10.0.0.1]:5"), "::ffff:10.0.0.1:5");
    }
}
