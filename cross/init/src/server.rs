//! The server's process and its files.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::disk;
use crate::known;
use crate::log::say;
use crate::settings::{Mistake, Settings};
use crate::supervisor::PROOF_WITHIN;

/// The server's program.
pub const PROGRAM: &str = "/bin/tiebreaker-server";
/// As `/etc/passwd` of the image names it.
pub const USER: u32 = 990;
/// Where the server looks for who listens to it.
pub const NOTIFY: &str = "/run/notify";

fn data() -> PathBuf {
    Path::new(disk::STATE).join("server")
}

/// The last settings that were in order.
#[must_use]
pub fn last_good() -> PathBuf {
    Path::new(disk::STATE).join("tiebreaker.toml")
}

/// A command of the server's program, as its user.
fn command(arguments: &[&str]) -> Command {
    let mut command = as_user(PROGRAM);
    command.args(arguments);
    command
}

fn as_user(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/bin").uid(USER).gid(USER).stdin(Stdio::null());
    command
}

/// Another program that works on the server's data, as the server's user.
#[must_use]
pub fn beside_it(program: &str) -> Command {
    let mut command = as_user(program);
    command.arg("--data").arg(data());
    command
}

fn run(arguments: &[&str]) -> Result<String> {
    let output = command(arguments).output().with_context(|| format!("starting {PROGRAM}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("{}", String::from_utf8_lossy(&output.stderr).trim())
}

/// Makes the folder of the server's files its own, and all that is in it: a backup may have been restored there by root of
/// another machine.
///
/// # Errors
/// The card can't be written.
pub fn own_folder() -> Result<()> {
    let data = data();
    let context = || format!("making {}", data.display());
    fs::create_dir_all(&data).with_context(context)?;
    give(&data, USER).with_context(context)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).with_context(context)
}

/// Gives a file or folder, with all that is in it, to a user. What is that user's already is not written to.
fn give(path: &Path, user: u32) -> io::Result<()> {
    let about = fs::symlink_metadata(path)?;
    if (about.uid(), about.gid()) != (user, user) {
        lchown(path, Some(user), Some(user))?;
    }
    if about.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    Ok(())
}

/// Gives the server what is wired to the board. Its watchdog stays with this program.
pub fn own_devices() {
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if ["gpiochip", "i2c-"].iter().any(|kind| name.to_string_lossy().starts_with(kind)) {
            // A device that just went away is nobody's.
            let _ = chown(entry.path(), Some(USER), Some(USER));
        }
    }
}

/// The server's word on a text for its `server.toml`.
///
/// # Errors
/// What it says of the mistake.
pub fn check(text: &str) -> Result<(), Mistake> {
    let without_place = |what: String| Mistake { place: None, what };
    let file = Path::new("/run/server.toml");
    let written = fs::write(file, text).and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o644)));
    written.map_err(|error| without_place(format!("{}: {error}", file.display())))?;
    let data = data();
    let arguments = ["check", "--json", "--data", &data.to_string_lossy(), "--file", "/run/server.toml"];
    let output = command(&arguments).output().map_err(|error| without_place(format!("starting {PROGRAM}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(mistake(&output.stdout).unwrap_or_else(|| without_place(said())))
}

/// What `check --json` says is wrong.
fn mistake(json: &[u8]) -> Option<Mistake> {
    #[derive(Deserialize)]
    struct Checked {
        mistake: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        line: Option<usize>,
        column: Option<usize>,
        what: String,
    }
    let Checked { mistake: Told { line, column, what } } = serde_json::from_slice(json).ok()?;
    Some(Mistake { place: line.zip(column), what })
}

/// Lets the server have ports that are root's by custom: there is no other user here for whom they could be kept free.
pub fn allow_low_ports() {
    const FIRST: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    if let Err(error) = fs::write(FIRST, "80") {
        say(format_args!("the server can't have ports below 1024, so there is no status page at port 80: {error}"));
    }
}

/// Makes an appliance of a new card, and writes its settings where they changed. Settings that nobody wrote are for a new
/// card alone.
///
/// # Errors
/// The card can't be written, or the server refuses.
pub fn configure(settings: &Settings, written: bool) -> Result<()> {
    let data = data();
    let file = data.join("server.toml");
    if file.exists() {
        if !written {
            return Ok(());
        }
    } else {
        run(&["init", "--data", &data.to_string_lossy(), "--name", &settings.name]).context("making an appliance")?;
    }
    disk::replace(&file, &settings.server)?;
    chown(&file, Some(USER), Some(USER)).with_context(|| format!("giving {} to the server", file.display()))
}

/// Starts the daemon. `most_level` is the highest feature level that it may know, if it may not know all that it does.
///
/// # Errors
/// The system refuses.
pub fn start(most_level: Option<u32>) -> io::Result<Pid> {
    let mut command = command(&["run", "--data", &data().to_string_lossy()]);
    if let Some(level) = most_level {
        command.args(["--at-most-level", &level.to_string()]);
    }
    let child = command
        .env("NOTIFY_SOCKET", NOTIFY)
        .env("TIEBREAKER_MACHINE", known::FILE)
        .env("WATCHDOG_USEC", PROOF_WITHIN.as_micros().to_string())
        .spawn()?;
    // Process 1 reaps all of its children in one place, by number.
    Ok(Pid::from_child(&child))
}

/// Sends it a signal. One that has ended needs none.
pub fn tell(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// Runs a command of the server's program on its data, and gives what it prints.
///
/// # Errors
/// What it says.
pub fn ask(arguments: &[String]) -> Result<String> {
    let data = data();
    let data = data.to_string_lossy();
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    words.extend(["--data", &data]);
    run(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_s_word_on_a_mistake_is_read() {
        let said = br#"{"configuration":"/run/server.toml","mistake":{"line":10,"column":1,"what":"unknown field"}}"#;
        assert_eq!(mistake(said), Some(Mistake { place: Some((10, 1)), what: "unknown field".into() }));
        let said = br#"{"configuration":"/run/server.toml","mistake":{"line":null,"column":null,"what":"no"}}"#;
        assert_eq!(mistake(said), Some(Mistake { place: None, what: "no".into() }));
        assert_eq!(mistake(b""), None);
    }
}
