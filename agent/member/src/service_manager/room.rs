//! Whether the service manager keeps descriptors at all. systemd drops what it has no room for, and says nothing.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The variable in which systemd 254 and later, and our own supervisor, tell how many descriptors they keep.
pub const STORE_VARIABLE: &str = "FDSTORE";

/// How long systemd may take to tell about a unit.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Proves that the service manager of this process keeps at least one descriptor, or says why it is not proven. `told`
/// is what the variable holds.
pub fn prove(told: Option<&OsStr>) -> Result<(), String> {
    let cgroup = || std::fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"));
    judge(told, cgroup, OsStr::new("systemctl"), ANSWER_LIMIT)
}

fn judge(
    told: Option<&OsStr>,
    cgroup: impl FnOnce() -> Result<String, String>,
    systemctl: &OsStr,
    limit: Duration,
) -> Result<(), String> {
    if let Some(told) = told {
        return enough(&told.to_string_lossy(), STORE_VARIABLE);
    }
    // Before 254 systemd tells only when asked.
    let (unit, user) = unit(&cgroup()?).ok_or("this process is in no unit of systemd")?;
    let mut command = Command::new(systemctl);
    if user {
        command.arg("--user");
    }
    command.args(["show", "--property=FileDescriptorStoreMax", "--value", "--", &unit]);
    let told = output(&mut command, limit).map_err(|why| format!("systemctl show {unit}: {why}"))?;
    enough(told.trim(), &format!("FileDescriptorStoreMax of {unit}"))
}

fn enough(told: &str, who: &str) -> Result<(), String> {
    match told.parse::<u32>() {
        Ok(0) => Err(format!("{who} is 0")),
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{who} is {told:?}, which is no number")),
    }
}

/// The service of a `/proc/self/cgroup`, and whether it belongs to a user's systemd.
fn unit(cgroup: &str) -> Option<(String, bool)> {
    // Version 2 has one line, version 1 one that is systemd's own.
    let path = cgroup.lines().find_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    })?;
    let unit = path.split('/').rfind(|part| part.ends_with(".service"))?;
    let user = path.split('/').any(|part| part.starts_with("user@") && part != unit);
    Some((unit.to_owned(), user))
}

/// What a program that says little prints, if it succeeds in time.
fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let began = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Ok(None) if began.elapsed() >= limit => break Err("no answer in time".to_owned()),
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(error) => break Err(error.to_string()),
        }
    };
    if let Err(why) = ended {
        // If it has ended by itself there is nothing to kill; either way it is collected.
        let _ended = child.kill().and_then(|()| child.wait().map(drop));
        return Err(why);
    }
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(4096).read_to_string(&mut text).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn no_cgroup() -> Result<String, String> {
        panic!("not asked for")
    }

    #[test]
    fn what_the_variable_says_counts() {
        let judge = |told: &str| judge(Some(OsStr::new(told)), no_cgroup, OsStr::new("/no/such/program"), SOON);
        assert!(judge("1").is_ok() && judge("8").is_ok());
        assert!(judge("0").unwrap_err().contains("FDSTORE is 0"));
        assert!(judge("").is_err() && judge("-1").is_err());
    }

    #[test]
    fn the_unit_is_read_from_the_control_group() {
        let own = Some(("tiebreaker-agent.service".to_owned(), false));
        assert_eq!(unit("0::/system.slice/tiebreaker-agent.service\n"), own);
        assert_eq!(unit("0::/system.slice/tiebreaker-agent.service/part\n"), own);
        assert_eq!(unit("12:pids:/x.service\n1:name=systemd:/system.slice/tiebreaker-agent.service\n"), own);
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n";
        assert_eq!(unit(user), Some(("a.service".to_owned(), true)));
        assert_eq!(unit("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit("0::/\n"), None);
    }

    #[test]
    fn systemd_before_254_is_asked_and_silence_is_no_proof() {
        let folder = tempfile::tempdir().unwrap();
        let systemctl = folder.path().join("systemctl");
        let judge = |script: &str, limit: Duration| {
            let text = format!("#!/bin/sh\nfor last; do :; done; test \"$last\" = a.service || exit 9\n{script}\n");
            // Renamed into place: a file that is still open for writing somewhere can't be run.
            let draft = folder.path().join("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&draft, &systemctl).unwrap();
            judge(None, || Ok("0::/system.slice/a.service".into()), systemctl.as_os_str(), limit)
        };
        assert_eq!(judge("echo 1", PATIENCE), Ok(()));
        assert!(judge("echo 0", PATIENCE).unwrap_err().contains("FileDescriptorStoreMax of a.service is 0"));
        assert!(judge("true", PATIENCE).is_err());
        assert!(judge("echo 1; exit 1", PATIENCE).is_err());
        assert!(judge("exec sleep 1000", SOON).unwrap_err().contains("in time"));
    }

    #[test]
    fn outside_of_any_unit_nothing_is_proven() {
        let nowhere = || Ok("0::/\n".into());
        assert!(judge(None, nowhere, OsStr::new("/no/such/program"), SOON).unwrap_err().contains("no unit"));
    }
}
