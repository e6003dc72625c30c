//! Our programs by the names of Debian's, side by side with Debian's: the same options, output, exit codes, and answers on
//! the control socket.
//!
//! Needs root (for mounts of its own) and the Debian packages corosync-qnetd and libnss3-tools; without them these tests
//! fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::UnixStream,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use tiebreaker_interop::{Original, Peer, Program, Ran, require_root, run, tool};
use tiebreaker_qnetd::wire::{Heuristics, ListKind, Message, MessageKind, NodeId, NodeInfo, Opt, RingId, TieBreaker};

/// Nothing that is asked takes longer.
const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug)]
enum Whose {
    Original,
    Ours,
}

/// One of the programs, named the same in both cases.
fn program(whose: Whose, name: &str) -> Command {
    let mut command = match whose {
        Whose::Original => Command::new(tool(name, "corosync-qnetd").unwrap()),
        Whose::Ours => Program::Server.command().unwrap(),
    };
    command.arg0(name);
    command
}

fn ran(whose: Whose, name: &str, words: &[&str]) -> Ran {
    let mut command = program(whose, name);
    command.args(words);
    run(command).unwrap()
}

/// Addresses differ from run to run.
fn without_addresses(text: &str) -> String {
    let lines = text.lines().map(|line| match line.split_once("address:") {
        Some((name, value)) => {
            let blank: String = value.chars().take_while(char::is_ascii_whitespace).collect();
            assert!(value.trim().rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()), "{line}");
            format!("{name}address:{blank}ADDRESS\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

fn nodes(numbers: &[u32]) -> impl Iterator<Item = Opt> + '_ {
    numbers.iter().map(|number| Opt::NodeInfo(NodeInfo::new(NodeId(*number))))
}

/// A client, and what it says; each time the server has dealt with it before the next one speaks.
struct Client<'w> {
    peer: Peer,
    watch: &'w mut Peer,
    seq: u32,
}

impl<'w> Client<'w> {
    fn join(
        server: &Original,
        watch: &'w mut Peer,
        cluster: &[u8],
        node: u32,
        algorithm: u16,
        tie: TieBreaker,
    ) -> Self {
        let mut client = Self { peer: server.connect().unwrap(), watch, seq: 0 };
        client.say(MessageKind::Preinit, vec![Opt::ClusterName(cluster.to_vec())]);
        client.say(
            MessageKind::Init,
            vec![
                Opt::NodeId(NodeId(node)),
                Opt::DecisionAlgorithm(algorithm),
                Opt::HeartbeatInterval(8000),
                Opt::TieBreaker(tie),
                Opt::RingId(RingId { node: NodeId(node), seq: 0xabc }),
            ],
        );
        client
    }

    fn say(&mut self, kind: MessageKind, mut options: Vec<Opt>) {
        self.seq += 1;
        options.insert(0, Opt::Seq(self.seq));
        self.peer.send(&Message::new(kind, options).encode());
        self.watch.barrier().unwrap();
    }

    fn configures(&mut self, version: Option<u64>, members: &[u32]) {
        let mut options = vec![Opt::NodeListType(ListKind::InitialConfig)];
        options.extend(version.map(Opt::ConfigVersion));
        options.extend(nodes(members));
        self.say(MessageKind::NodeList, options);
    }

    fn sees(&mut self, seq: u64, members: &[u32], heuristics: Option<Heuristics>) {
        let ring = Opt::RingId(RingId { node: NodeId(1), seq });
        let mut options = vec![Opt::NodeListType(ListKind::Membership), ring];
        options.extend(heuristics.map(Opt::Heuristics));
        options.extend(nodes(members));
        self.say(MessageKind::NodeList, options);
    }

    fn keeps_active(&mut self) {
        self.say(MessageKind::SetOption, vec![Opt::KeepActivePartition(true)]);
    }

    /// Lets the next one speak; the connection stays.
    fn rests(self) -> (Peer, u32) {
        (self.peer, self.seq)
    }
}

/// Clusters in the state of which everything that a list can say is said. Their names are in order: the original lists them
/// as they came, we by name.
fn populate(server: &Original) -> Vec<Peer> {
    let mut watch = server.connect().unwrap();
    watch.watch().unwrap();
    let mut stay = Vec::new();
    let mut first = Client::join(server, &mut watch, b"x", 1, 1, TieBreaker::Lowest);
    first.configures(Some(7), &[1, 2]);
    first.sees(0x1b40, &[1, 2], Some(Heuristics::Pass));
    first.keeps_active();
    let (peer, seq) = first.rests();
    let mut second = Client::join(server, &mut watch, b"x", 2, 1, TieBreaker::Lowest);
    second.keeps_active();
    second.configures(None, &[1, 2]);
    second.sees(0x1b40, &[1, 2], None);
    second.sees(0x1b48, &[2], Some(Heuristics::Pass));
    stay.push(second.rests().0);
    let mut first = Client { peer, watch: &mut watch, seq };
    first.sees(0x1b44, &[1], Some(Heuristics::Fail));
    first.say(MessageKind::HeuristicsChange, vec![Opt::Heuristics(Heuristics::Fail)]);
    stay.push(first.rests().0);
    let mut lms = Client::join(server, &mut watch, b"y \"quoted\\", 1, 3, TieBreaker::Node(NodeId(5)));
    lms.keeps_active();
    lms.configures(None, &[5, 1, 9]);
    lms.sees(0x100_0000_0003, &[9, 1], None);
    stay.push(lms.rests().0);
    let mut two = Client::join(server, &mut watch, b"z", 1, 2, TieBreaker::Highest);
    two.configures(None, &[1, 2]);
    two.sees(4, &[1], None);
    stay.push(two.rests().0);
    stay.push(Client::join(server, &mut watch, b"zz", 3, 0, TieBreaker::Highest).rests().0);
    stay.push(watch);
    stay
}

#[test]
fn the_tools_and_the_daemons_are_interchangeable() {
    let mut daemons = [Original::start().unwrap(), Original::stand_in().unwrap()];
    let _stay: Vec<Vec<Peer>> = daemons.iter().map(populate).collect();
    for words in [
        &["-s"][..],
        &["-sv"],
        &["-l"],
        &["-lv"],
        &["-l", "-v", "-c", "x"],
        &["-l", "-cX"],
        &["-l", "-c", ""],
        &["-l", "-c", "y \"quoted\\"],
        &["-s", "-l", "extra"],
        &["-l", "-s", "-c", "x"],
    ] {
        let mut answers = Vec::new();
        for daemon in &daemons {
            for whose in [Whose::Original, Whose::Ours] {
                let socket = daemon.socket();
                let words = [words, &["-p", socket.to_str().unwrap()]].concat();
                let ran = ran(whose, "corosync-qnetd-tool", &words);
                answers.push((ran.code, without_addresses(&ran.stdout), ran.stderr));
            }
        }
        assert_eq!(answers[0].0, Some(0), "{words:?}: {answers:?}");
        for answer in &answers[1..] {
            assert_eq!(answer, &answers[0], "{words:?}");
        }
    }
    let all = ran(Whose::Original, "corosync-qnetd-tool", &["-lv", "-p", daemons[1].socket().to_str().unwrap()]).stdout;
    for needed in
        ["Fifty-Fifty split (KAP Tie-breaker)", "Node with node ID 5", "(NACK)", "Pass (membership", "\t5, 1, 9"]
    {
        assert!(all.contains(needed), "nothing was compared for {needed}: {all}");
    }
    // Each tool shuts the other's daemon down.
    let [original, ours] = &mut daemons;
    for (whose, daemon) in [(Whose::Ours, original), (Whose::Original, ours)] {
        let socket = daemon.socket();
        let socket = socket.to_str().unwrap();
        assert_eq!(ran(whose, "corosync-qnetd-tool", &["-H", "-p", socket]).code, Some(0));
        let ended = daemon.until_ended().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(0), None), "{}", daemon.log());
        assert!(!Path::new(socket).exists());
    }
}

#[test]
fn wrong_usage_and_a_daemon_that_is_not_there_end_the_same() {
    for (name, words) in [
        ("corosync-qnetd-tool", &[][..]),
        ("corosync-qnetd-tool", &["-v"]),
        ("corosync-qnetd-tool", &["-h"]),
        ("corosync-qnetd-tool", &["-Z"]),
        ("corosync-qnetd-tool", &["-s", "-p"]),
        ("corosync-qnetd-tool", &["-s", "-p", "/nonexistent/sock"]),
        ("corosync-qnetd", &["-h"]),
        ("corosync-qnetd", &["-Z"]),
        ("corosync-qnetd", &["-s", "bogus"]),
        ("corosync-qnetd", &["-c", "x"]),
        ("corosync-qnetd", &["-p", "0"]),
        ("corosync-qnetd", &["-m", "x"]),
        ("corosync-qnetd", &["-S", "foo=1"]),
        ("corosync-qnetd", &["-S", "dpd_interval_coefficient=0"]),
    ] {
        let [original, ours] = [Whose::Original, Whose::Ours].map(|whose| ran(whose, name, words));
        assert_eq!(ours, original, "{name} {words:?}");
        assert_ne!(ours.code, Some(0), "{name} {words:?}");
    }
}

/// What comes back for raw bytes, and whether the connection was closed at the end.
fn ask(socket: &Path, request: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // It may be closed before all was taken.
    let _closed = stream.write_all(request);
    let mut answer = Vec::new();
    loop {
        let mut portion = [0; 4096];
        match stream.read(&mut portion) {
            Ok(0) => return (answer, true),
            Ok(count) => answer.extend_from_slice(&portion[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (answer, true),
            Err(_) => return (answer, false),
        }
    }
}

#[test]
fn the_control_socket_answers_the_same_whatever_is_asked() {
    let daemons = [Original::start().unwrap(), Original::stand_in().unwrap()];
    let long = |length: usize| [vec![b'a'; length], b"\n".to_vec()].concat();
    let requests = [
        b"status \n".to_vec(),
        b"  STATUS\tverbose\r\n".to_vec(),
        b"status \"verbose\" \n".to_vec(),
        b"status\0 verbose\n".to_vec(),
        b"status xverbose cluster x\n".to_vec(),
        b"sta\"tus\"\n".to_vec(),
        b"sta\\tus\n".to_vec(),
        b"\"status\n".to_vec(),
        b"status \nlist \n".to_vec(),
        b"list cluster\n".to_vec(),
        b"list cluster \"unterminated \n".to_vec(),
        b"\n".to_vec(),
        b"\"\n".to_vec(),
        b"\\\n".to_vec(),
        b"bogus \n".to_vec(),
        b"bogus\"x y\"z q\n".to_vec(),
        b"\\\"foo\n".to_vec(),
        b"bog\\\\us\n".to_vec(),
        b"\x80\xff\n".to_vec(),
        long(4095),
        long(4096),
        long(9000),
    ];
    for request in requests {
        let [original, ours] = daemons.each_ref().map(|daemon| {
            let (answer, closed) = ask(&daemon.socket(), &request);
            (without_addresses(&String::from_utf8_lossy(&answer)), closed)
        });
        assert_eq!(ours, original, "{:?}", String::from_utf8_lossy(&request));
        assert!(ours.1);
    }
    // Ten at a time; the others are sent away.
    for daemon in &daemons {
        let held: Vec<UnixStream> = (0..12).map(|_| UnixStream::connect(daemon.socket()).unwrap()).collect();
        let mut answered = 0;
        for mut stream in held {
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut answer = Vec::new();
            if stream.write_all(b"status\n").is_ok() && stream.read_to_end(&mut answer).is_ok() && !answer.is_empty() {
                answered += 1;
            }
        }
        assert!((10..=11).contains(&answered), "{answered} of 12 were answered");
    }
}

/// Runs certutil with a folder of the test's in the place of /etc/corosync/qnetd, in a mount namespace of its own.
fn certutil(whose: Whose, folder: &Path, words: &[&str]) -> Ran {
    let path = match whose {
        Whose::Original => "/usr/bin/corosync-qnetd-certutil".into(),
        Whose::Ours => Program::Server.path().unwrap(),
    };
    let script = r#"set -e
mount --bind "$1" /etc/corosync/qnetd
[ "$2" = /usr/bin/corosync-qnetd-certutil ] || mount --bind "$2" /usr/bin/corosync-qnetd-certutil
shift 2
exec /usr/bin/corosync-qnetd-certutil "$@""#;
    let mut command = Command::new(tool("unshare", "util-linux").unwrap());
    command.args(["-m", "sh", "-c", script, "sh"]).arg(folder).arg(path).args(words).stdin(Stdio::null());
    run(command).unwrap()
}

fn last_line(ran: &Ran) -> &str {
    ran.stdout.lines().last().unwrap_or_default()
}

#[test]
fn certutil_takes_the_same_options_and_ends_the_same() -> Result<()> {
    require_root("mounting over /etc/corosync/qnetd")?;
    tool("corosync-qnetd-certutil", "corosync-qnetd")?;
    tool("certutil", "libnss3-tools")?;
    let (theirs, own) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let both =
        |words: &[&str]| [certutil(Whose::Original, theirs.path(), words), certutil(Whose::Ours, own.path(), words)];
    let request = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/home.crq");
    let request = request.to_str().unwrap();
    // Before there is anything.
    for words in [
        &["-Z"][..],
        &["-c"],
        &["-s"],
        &["-s", "-c", "/nonexistent"],
        &["-s", "-c", request],
        &["-s", "-c", request, "-n", "home"],
    ] {
        let [original, ours] = both(words);
        assert_eq!(
            (ours.code, &ours.stdout, &ours.stderr),
            (original.code, &original.stdout, &original.stderr),
            "{words:?}"
        );
        assert_ne!(ours.code, Some(0), "{words:?}");
    }
    for words in [&[][..], &["-h"], &["-G"], &["operand", "-i"]] {
        let [original, ours] = both(words);
        assert_eq!((original.code, ours.code), (Some(0), Some(0)), "{words:?}: {}", ours.stderr);
        assert_eq!(ours.stdout.lines().next(), original.stdout.lines().next(), "{words:?}");
    }
    // The authority.
    let [original, ours] = both(&["-i", "-G"]);
    assert_eq!((original.code, ours.code), (Some(0), Some(0)), "{}{}", ours.stdout, ours.stderr);
    assert_eq!(last_line(&ours), last_line(&original));
    assert_eq!(ours.stdout.lines().next(), original.stdout.lines().next(), "the folder is new");
    for name in ["nssdb", "nssdb/qnetd-cacert.crt", "nssdb/pkcs11.txt"] {
        assert!(theirs.path().join(name).exists() && own.path().join(name).exists(), "{name}");
    }
    let mode = |folder: &Path| fs::metadata(folder.join("nssdb")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(own.path()), mode(theirs.path()));
    let key = fs::metadata(own.path().join("nssdb/qdevice-ca.pem"))?;
    assert_eq!(key.permissions().mode() & 0o037, 0, "nobody else may read the key");
    let [original, ours] = both(&["-i"]);
    assert_eq!((ours.code, &ours.stdout, &ours.stderr), (original.code, &original.stdout, &original.stderr));
    assert_eq!(ours.code, Some(1));
    // A cluster's certificate.
    let [original, ours] = both(&["-s", "-c", request, "-n", "home"]);
    assert_eq!((original.code, ours.code), (Some(0), Some(0)), "{}{}", ours.stdout, ours.stderr);
    assert_eq!((&ours.stdout, &ours.stderr), (&original.stdout, &original.stderr));
    assert_eq!(last_line(&ours), "Certificate stored in /etc/corosync/qnetd/nssdb/cluster-home.crt");
    assert!(fs::read_to_string(own.path().join("nssdb/cluster-home.crt"))?.starts_with("-----BEGIN CERTIFICATE"));
    // Where the original claims success, ours fails: a request that is none, another cluster's, a name that is a path.
    let junk = own.path().join("junk");
    fs::write(&junk, "junk")?;
    for (words, said) in [
        (&["-s", "-c", junk.to_str().unwrap(), "-n", "home"], "no certificate request"),
        (&["-s", "-c", request, "-n", "work"], "is for cluster"),
        (&["-s", "-c", request, "-n", "../home"], "no slash"),
    ] {
        let ours = certutil(Whose::Ours, own.path(), words);
        assert!(ours.code != Some(0) && ours.stderr.contains(said), "{words:?}: {ours:?}");
    }
    // A database of the original's is neither overwritten nor signed with: the way out is told.
    let over = certutil(Whose::Ours, theirs.path(), &["-i"]);
    assert!(
        over.code == Some(1) && over.stderr.contains("already exists") && over.stderr.contains("adopt"),
        "{over:?}"
    );
    let sign = certutil(Whose::Ours, theirs.path(), &["-s", "-c", request, "-n", "home"]);
    assert!(sign.code == Some(1) && sign.stderr.contains("qdevice adopt"), "{sign:?}");
    Ok(())
}

#[test]
fn the_background_daemon_is_there_when_its_command_has_ended_and_there_is_only_one() {
    let folder = tempfile::tempdir().unwrap();
    let address = tiebreaker_interop::loopback().ip().to_string();
    let settings = format!("lock_file={0}/run/pid,local_socket_file={0}/run/sock", folder.path().display());
    let words = ["-4", "-s", "off", "-l", &address, "-p", "5403", "-S", &settings];
    let socket = folder.path().join("run/sock");
    let socket = socket.to_str().unwrap();
    let started = ran(Whose::Ours, "corosync-qnetd", &words);
    assert_eq!((started.code, started.stdout.as_str(), started.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(ran(Whose::Original, "corosync-qnetd-tool", &["-s", "-p", socket]).code, Some(0));
    let pid: i32 = fs::read_to_string(folder.path().join("run/pid")).unwrap().trim().parse().unwrap();
    // The original sees our lock, and we see it.
    for whose in [Whose::Original, Whose::Ours] {
        let second = ran(whose, "corosync-qnetd", &[&words[..], &["-f"]].concat());
        assert_eq!(second.code, Some(1), "{whose:?}");
        assert!(second.stderr.contains("Another instance is running"), "{whose:?}: {second:?}");
    }
    // Another lock, the same port.
    let settings = format!("lock_file={0}/other,local_socket_file={0}/othersock", folder.path().display());
    let words = ["-f", "-4", "-s", "off", "-l", &address, "-p", "5403", "-S", &settings];
    let port = ran(Whose::Ours, "corosync-qnetd", &words);
    assert!(
        port.code == Some(1) && port.stderr.contains("does another tiebreaker-server or a corosync-qnetd"),
        "{port:?}"
    );
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(ran(Whose::Ours, "corosync-qnetd-tool", &["-H", "-p", socket]).code, Some(0));
    tiebreaker_interop::until("the daemon's end", SOON, || {
        anyhow::ensure!(!Path::new(socket).exists(), "its socket is there");
        Ok(())
    })
    .unwrap();
}

#[test]
fn missing_certificates_name_the_command_that_makes_them() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("lock_file={0}/pid,local_socket_file={0}/sock,nss_db_dir={0}", folder.path().display());
    let ours = ran(Whose::Ours, "corosync-qnetd", &["-f", "-p", "5403", "-l", "127.0.0.1", "-S", &settings]);
    assert!(ours.code == Some(1) && ours.stderr.contains("corosync-qnetd-certutil -i"), "{ours:?}");
}
