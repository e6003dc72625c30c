//! The demo's counter as real processes: what it told is there after a kill, and two at once are noticed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
