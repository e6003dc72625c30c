//! The demo as real processes. Its counter: what it told is there after a kill, and two at once are noticed. A demo that
//! is left running can be looked at as it says, and leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A machine of the demo, as the counter sees it. Its counter ends with it.
struct Machine {
    dir: PathBuf,
    shared: PathBuf,
    port: u16,
}

impl Machine {
    fn new(root: &Path, name: &str) -> Self {
        let (dir, shared) = (root.join(name), root.join("shared"));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&shared).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let here = serde_json::json!({ "dir": dir, "node": name, "port": port });
        fs::write(dir.join("machine.json"), here.to_string()).unwrap();
        Self { dir, shared, port }
    }

    fn counter(&self, command: &str) -> Option<i32> {
        let mut run = Command::new(env!("CARGO_BIN_EXE_tiebreaker"));
        run.args(["demo-counter", command]).env("TIEBREAKER_DEMO_MACHINE", &self.dir);
        if command == "start" {
            run.arg("--shared").arg(&self.shared);
        }
        run.status().unwrap().code()
    }

    /// Counts, and returns what was said.
    fn post(&self) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"POST /count HTTP/1.1\r\nHost: counter\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    fn shared(&self, file: &str) -> String {
        fs::read_to_string(self.shared.join(file)).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.counter("stop");
    }
}

#[test]
fn what_was_told_is_stored_and_counted_on_after_a_stop() {
    let root = tempfile::tempdir().unwrap();
    let machine = Machine::new(root.path(), "node1");
    assert_eq!(machine.counter("status"), Some(3));
    assert_eq!(machine.counter("start"), Some(0));
    assert_eq!(machine.counter("start"), Some(0), "starting what runs is no error");
    assert_eq!(machine.counter("status"), Some(0));
    let told = [machine.post(), machine.post()].concat();
    assert_eq!(machine.shared("counts"), told);
    assert!(told.starts_with("1 node1:") && told.contains("\n2 node1:"), "{told}");
    assert_eq!(machine.counter("stop"), Some(0));
    assert_eq!(machine.counter("status"), Some(3));
    assert_eq!(machine.counter("stop"), Some(0), "stopping what doesn't run is no error");
    // Half a line was told to nobody.
    let torn = told.clone() + "3 nod";
    fs::write(machine.shared.join("counts"), torn).unwrap();
    assert_eq!(machine.counter("start"), Some(0));
    assert!(machine.post().starts_with("3 node1:"));
    assert!(machine.shared("counts").starts_with(&told));
    assert!(!machine.shared("events").contains("double"), "{}", machine.shared("events"));
}

#[test]
fn two_at_once_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (Machine::new(root.path(), "node1"), Machine::new(root.path(), "node2"));
    assert_eq!((one.counter("start"), two.counter("start")), (Some(0), Some(0)));
    assert!(one.shared("events").contains("double node2:"), "{}", one.shared("events"));
}

#[test]
fn off_the_stage_it_does_not_claim_to_be_stopped() {
    let status = Command::new(env!("CARGO_BIN_EXE_tiebreaker"))
        .args(["demo-counter", "status"])
        .env_remove("TIEBREAKER_DEMO_MACHINE")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

/// Anything that a demo does is done by then, on a busy machine too.
const DONE_WITHIN: Duration = Duration::from_secs(240);

/// A demo that runs. It is interrupted, and so tidies up, when this is dropped.
struct Demo(Child);

impl Demo {
    fn interrupt(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        // It is not collected yet, so its number is its own.
        if self.0.try_wait().unwrap().is_none() {
            kill_process(pid, Signal::INT).unwrap();
        }
        let until = Instant::now() + DONE_WITHIN;
        while Instant::now() < until {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        panic!("an interrupted demo did not end");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.interrupt();
        }
    }
}

/// Lines of a stream as they come.
fn lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
    });
    said
}

/// Processes whose command line or environment names `folder`.
fn processes_of(folder: &str) -> Vec<String> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let of = |number: &String| {
        ["cmdline", "environ"].iter().any(|what| {
            fs::read(format!("/proc/{number}/{what}"))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(folder))
        })
    };
    numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter(of).collect()
}

#[test]
fn a_demo_that_is_left_running_can_be_looked_at_and_leaves_nothing_behind() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_tiebreaker"));
    run.args(["demo", "--fail", "none", "--keep", "--json", "--no-time-limit"]);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let (documents, told) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
    let mut demo = Demo(child);

    let document = documents.recv_timeout(DONE_WITHIN).expect("a document");
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(
        (&document["fail"], &document["lost_counts"], &document["double_runs"]),
        (&"none".into(), &0.into(), &0.into())
    );
    assert_eq!(document["failures"], serde_json::json!([]));

    // The line that it prints for whoever wants to look.
    let until = Instant::now() + DONE_WITHIN;
    let (mut folder, mut look) = (None, None);
    while folder.is_none() || look.is_none() {
        let line = told.recv_timeout(until.saturating_duration_since(Instant::now())).expect("how to look at it");
        if let Some((_, rest)) = line.split_once("It is left running in ") {
            folder = rest.split(' ').next().map(str::to_owned);
        }
        look = look.or(line.trim().strip_suffix(" status --watch").map(str::to_owned));
    }
    let (folder, look) = (folder.unwrap(), look.unwrap());
    let words: Vec<&str> = look.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).args(["status", "--json"]).output().unwrap();
    assert!(status.status.success(), "{status:?}");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status["leader"], &status["resources"][0]["name"]), (&"pi".into(), &"counter".into()));
    assert!(processes_of(&folder).len() >= 4, "an appliance, two nodes and a counter run");

    assert_eq!(demo.interrupt(), Some(0));
    assert_eq!(processes_of(&folder), Vec::<String>::new());
    assert!(!Path::new(&folder).exists(), "{folder} is left over");
}
