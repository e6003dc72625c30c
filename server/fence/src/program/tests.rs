//! The driver against agents of our own that answer as they please.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    client::ProgramDevice,
    config::{ProgramConfig, RunAs},
    error::ProgramError,
};
use crate::{Device, DeviceError, Fault, OffSign, PowerState, Secret, matrix::executable};

const PASSWORD: &str = "correct-horse-battery";

/// A folder that others may look into.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An agent that keeps what it was told in `told`, and then does this.
    fn agent(&self, does: &str) -> ProgramConfig {
        let agent = self.file("fence_test");
        let told = self.file("told");
        std::fs::write(&told, "").unwrap();
        std::fs::set_permissions(&told, std::fs::Permissions::from_mode(0o666)).unwrap();
        executable(&agent, &format!("#!/bin/sh\ncat > {}\n{does}\n", told.display()));
        let options = BTreeMap::from([("ip".to_owned(), "192.0.2.9".to_owned()), ("plug".to_owned(), "1".to_owned())]);
        let password = Some(Secret::for_web(PASSWORD).unwrap());
        ProgramConfig { agent, options, password, run_as: None }
    }

    fn told(&self) -> String {
        std::fs::read_to_string(self.file("told")).unwrap()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn program(error: &DeviceError) -> &ProgramError {
    error.source.downcast_ref().unwrap()
}

#[tokio::test]
async fn an_agent_is_told_all_over_its_standard_input_and_what_is_asked_last() {
    let folder = Folder::new();
    let device = ProgramDevice::new(folder.agent("echo Status: OFF; exit 2"));
    assert_eq!((device.state(soon()).await.unwrap(), device.sign()), (PowerState::Off, OffSign::Program));
    assert_eq!(folder.told(), format!("ip=192.0.2.9\nplug=1\npassword={PASSWORD}\naction=status\n"));
    assert!(!device.name().contains(PASSWORD) && !format!("{device:?}").contains(PASSWORD));
    let device = ProgramDevice::new(folder.agent("exit 0"));
    device.off(soon()).await.unwrap();
    assert!(folder.told().ends_with("action=off\n"));
    device.on(soon()).await.unwrap();
    assert!(folder.told().ends_with("action=on\n"));
}

#[tokio::test]
async fn off_needs_the_exit_code_and_the_word() {
    for does in [
        "exit 2",
        "exit 0",
        "echo Status: OFF; exit 0",
        "echo Status: ON; exit 2",
        "echo Status: OFF; exit 1",
        "echo Status: OFF; echo Status: ON; exit 2",
        "echo Status: OFF; kill -9 $$",
        "yes Status: OFF",
        // As an interpreter does whose program isn't there.
        "python3 /nonexistent; exit 2",
    ] {
        let folder = Folder::new();
        let state = ProgramDevice::new(folder.agent(does)).state(soon()).await;
        assert_ne!(state.unwrap_err().fault, Fault::Refused, "{does}: nobody knows what it did");
    }
    let folder = Folder::new();
    let on = ProgramDevice::new(folder.agent("echo Status: ON")).prove(soon()).await.unwrap();
    assert_eq!((on.state, on.guid), (PowerState::On, None));
}

#[tokio::test]
async fn a_failing_off_is_no_refusal_and_repeats_no_password() {
    let folder = Folder::new();
    let error = ProgramDevice::new(folder.agent("echo no such plug >&2; exit 1")).off(soon()).await.unwrap_err();
    assert!(error.source.to_string().contains("no such plug") && error.fault == Fault::Protocol, "{error}");
    let chatty = format!("echo logging in with {PASSWORD} >&2; exit 1");
    let error = ProgramDevice::new(folder.agent(&chatty)).off(soon()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
}

#[tokio::test]
async fn what_hangs_is_killed_with_all_that_it_started() {
    let folder = Folder::new();
    let pid = folder.file("pid");
    let does = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let device = ProgramDevice::new(folder.agent(&does));
    let deadline = Instant::now() + Duration::from_secs(1);
    let error = device.off(deadline).await.unwrap_err();
    assert!(matches!(program(&error), ProgramError::TimedOut) && error.fault == Fault::Unreachable, "{error}");
    let child = std::fs::read_to_string(&pid).unwrap();
    let gone = |child: &str| {
        // A zombie that nobody has waited for yet runs no more.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_none_or(|rest| rest.trim().is_empty() || rest.trim().starts_with('Z'))
    };
    let until = Instant::now() + Duration::from_secs(10);
    while !gone(child.trim()) {
        assert!(Instant::now() < until, "{child} runs on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_agent_that_others_may_write_or_that_is_not_there_is_not_run() {
    let folder = Folder::new();
    let config = folder.agent("exit 0");
    std::fs::set_permissions(&config.agent, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = ProgramDevice::new(config.clone()).off(soon()).await.unwrap_err();
    assert!(matches!(program(&error), ProgramError::Untrusted) && error.fault == Fault::Refused, "{error}");
    assert_eq!(folder.told(), "");
    let missing = ProgramConfig { agent: Path::new("/nonexistent/fence_none").to_owned(), ..config };
    let error = ProgramDevice::new(missing).off(soon()).await.unwrap_err();
    assert!(matches!(program(&error), ProgramError::Start(_)), "{error}");
}

#[tokio::test]
async fn an_agent_runs_as_the_user_that_was_chosen() {
    let folder = Folder::new();
    let uid = folder.file("told");
    let mut config = folder.agent(&format!("id -u > {0}; id -G >> {0}; echo Status: OFF; exit 2", uid.display()));
    config.run_as = Some(RunAs { uid: 65534, gid: 65534 });
    let state = ProgramDevice::new(config).state(soon()).await;
    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else, and as itself it isn't run.
        assert!(matches!(program(&state.unwrap_err()), ProgramError::Start(_)));
        return;
    }
    assert_eq!(state.unwrap(), PowerState::Off);
    assert_eq!(folder.told(), "65534\n65534\n", "with no group of ours");
}
