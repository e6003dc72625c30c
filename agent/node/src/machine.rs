//! What this machine is: its boot, the count of the agent's starts, and what its watchdog is worth.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_firmware::{Inspected, Promise, inspect};
use tiebreaker_pipeline::report::{Capacity, Leave, Trust};

use crate::config::WatchdogChoice;
use crate::supervisor::{BOOT_ID_VARIABLE, GOING_VARIABLE};

/// The kernel's boot id; under the supervisor's simulated watchdog the id of the simulated boot.
///
/// # Errors
/// When the kernel doesn't tell.
pub fn boot_id(watchdog: &WatchdogChoice) -> Result<String> {
    if *watchdog == WatchdogChoice::Simulated
        && let Some(id) = std::env::var_os(BOOT_ID_VARIABLE)
    {
        return id.into_string().ok().context("the supervisor's boot id is not text");
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the kernel's boot id")?;
    Ok(id.trim().to_owned())
}

/// The machine's UUID as its firmware tells it; `None` where it tells none, and under the simulated watchdog, where many
/// nodes share one machine.
#[must_use]
pub fn uuid(watchdog: &WatchdogChoice) -> Option<String> {
    if *watchdog == WatchdogChoice::Simulated {
        return None;
    }
    let text = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").ok()?;
    let uuid = text.trim().to_ascii_lowercase();
    // Firmware that was never given one says all zeros or all ones.
    let told = uuid.chars().filter(|c| *c != '-').any(|c| c != '0' && c != 'f');
    told.then_some(uuid)
}

/// Where the agents of this machine keep what needs not outlive a boot: in memory, so that no disk that is slow or full
/// holds up an operation.
const RUNTIME: &str = "/run/tiebreaker-agent";

/// The folder for what needs not outlive a boot, made if it is missing: below `/run` where that can be written, or in
/// the data folder. A simulated node keeps everything in its data folder: it goes when that goes.
///
/// # Errors
/// When it can't be made.
pub fn runtime_root(data: &Path, choice: &WatchdogChoice) -> Result<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    let shared = (root && *choice != WatchdogChoice::Simulated).then_some(Path::new(RUNTIME));
    runtime_root_in(data, shared)
}

fn runtime_root_in(data: &Path, shared: Option<&Path>) -> Result<PathBuf> {
    use std::io::ErrorKind;
    if let Some(shared) = shared {
        // By whatever name it was given: the next agent must find what this one wrote.
        let data = data.canonicalize().with_context(|| format!("looking at {}", data.display()))?;
        let own = shared.join(format!("{:016x}", fnv1a(std::os::unix::ffi::OsStrExt::as_bytes(data.as_os_str()))));
        match std::fs::create_dir_all(&own) {
            Ok(()) => return Ok(own),
            // These stay as they are. Others pass, and the next agent would look elsewhere.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) => {}
            Err(error) => return Err(error).with_context(|| format!("creating {}", own.display())),
        }
    }
    let own = data.join("run");
    std::fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
    Ok(own)
}

/// FNV-1a, which is the same in every version of this program: an agent finds what the one before an upgrade wrote.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// This boot's folder for operations in `all`; those of earlier boots are removed.
///
/// # Errors
/// When the folders can't be read or removed.
pub fn runtime_dir(all: &Path, boot: &str) -> Result<PathBuf> {
    let own = format!("boot-{boot}");
    for entry in std::fs::read_dir(all).with_context(|| format!("reading {}", all.display()))? {
        let entry = entry.with_context(|| format!("reading {}", all.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("boot-") && name != own {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(all.join(own))
}

/// Counts this start of the agent, durably: no number is ever used twice.
///
/// # Errors
/// When the count can't be read or made durable; then the agent must not start.
pub fn next_incarnation(dir: &Path) -> Result<u64> {
    let path = dir.join("incarnation");
    let last = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().with_context(|| {
            format!("{} holds no number: remove this member, wipe {} and join again", path.display(), dir.display())
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let next = last + 1;
    replace(&path, format!("{next}\n").as_bytes())?;
    Ok(next)
}

/// What this machine has to give: its memory and processors, as far as the kernel tells.
#[must_use]
pub fn capacity() -> Capacity {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = std::thread::available_parallelism().ok().and_then(|cpus| u64::try_from(cpus.get()).ok());
    Capacity { memory: total_memory(&meminfo), milli_cpus: cpus.map(|cpus| cpus.saturating_mul(1000)) }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Milliseconds from the start of the kernel to this agent, where it is the first of its boot; later ones learn nothing by
/// that, and nobody here sees how long the firmware took. A simulated boot has no time of its own.
///
/// # Errors
/// When the mark that tells the first from the others can't be made.
pub fn booted_in_ms(runtime: &Path, watchdog: &WatchdogChoice) -> Result<Option<u64>> {
    if *watchdog == WatchdogChoice::Simulated {
        return Ok(None);
    }
    let mark = runtime.join("agent-was-here");
    match std::fs::File::create_new(&mark) {
        Ok(_) => {
            let since = tiebreaker_member::clock::now().boottime_ns / 1_000_000;
            Ok(Some(since))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error).with_context(|| format!("creating {}", mark.display())),
    }
}

/// How this agent goes, as the service manager tells: with its machine, or alone.
pub async fn how_it_goes(watchdog: &WatchdogChoice) -> Leave {
    // A simulated machine goes without the one that it is simulated on.
    if *watchdog == WatchdogChoice::Simulated
        && let Some(said) = std::env::var_os(GOING_VARIABLE)
    {
        let reboots = std::fs::read_to_string(said).is_ok_and(|how| how.trim() == "reboot");
        return if reboots { Leave::Reboot } else { Leave::AgentRestart };
    }
    if !Path::new("/run/systemd/system").exists() {
        return Leave::AgentRestart;
    }
    let jobs = tokio::process::Command::new("systemctl")
        .args(["list-jobs", "--no-legend", "--plain", "--full"])
        .stdin(std::process::Stdio::null())
        .output();
    match tokio::time::timeout(Duration::from_secs(2), jobs).await {
        Ok(Ok(jobs)) => leave_of(&String::from_utf8_lossy(&jobs.stdout)),
        Ok(Err(error)) => {
            tracing::warn!(%error, "systemctl can't be asked how the machine goes: taking it for a restart of the agent");
            Leave::AgentRestart
        }
        Err(_) => {
            tracing::warn!("systemctl doesn't answer how the machine goes: taking it for a restart of the agent");
            Leave::AgentRestart
        }
    }
}

/// What a list of systemd's jobs says about the machine: lines of number, unit, kind and state.
fn leave_of(jobs: &str) -> Leave {
    let started = |unit: &str| {
        jobs.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next() == Some(unit) && words.next() == Some("start")
        })
    };
    if ["reboot.target", "kexec.target", "soft-reboot.target"].into_iter().any(started) {
        Leave::Reboot
    } else if ["poweroff.target", "halt.target", "shutdown.target"].into_iter().any(started) {
        Leave::PowerOff
    } else {
        Leave::AgentRestart
    }
}

/// Writes a small file so that it is old or new, whole, whenever the power fails.
///
/// # Errors
/// When it can't be made durable.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let at = || format!("writing {}", path.display());
    let tmp = path.with_extension("new");
    let mut file = std::fs::File::create(&tmp).with_context(at)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(at)?;
    std::fs::rename(&tmp, path).with_context(at)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).with_context(at)
}

/// The watchdog as the cluster is told: its driver's name and how far to believe it. `None` where it promises nothing.
///
/// # Errors
/// When the device doesn't exist or can't be looked at.
pub fn judge_watchdog(choice: &WatchdogChoice, accept: &[String], data: &Path) -> Result<Option<(String, Trust)>> {
    match choice {
        WatchdogChoice::None => Ok(None),
        WatchdogChoice::Simulated => {
            // By name only, and never drilled: it is for the demo and tests.
            let trust = if accepted(accept, "simulated") { Trust::Accepted } else { Trust::Unproven };
            Ok(Some(("simulated".to_owned(), trust)))
        }
        WatchdogChoice::Device(path) => {
            let text = path.to_string_lossy();
            let number = match text.strip_prefix("/dev/watchdog") {
                Some("") => 0,
                Some(digits) => digits.parse().with_context(|| format!("{text} is no watchdog device"))?,
                None => bail!("{text} is no watchdog device"),
            };
            let found = inspect(number).with_context(|| {
                format!(
                    "{text} is not there: load its driver (for instance `modprobe softdog`), or set watchdog = \"none\""
                )
            })?;
            let root = Path::new("/");
            let pausable = is_virtual(root) || may_suspend(root);
            Ok(Some(judge_device(&found, accept, data, pausable)))
        }
    }
}

fn judge_device(found: &Inspected, accept: &[String], data: &Path, pausable: bool) -> (String, Trust) {
    let identity = found.identity.clone();
    let promise = found.capabilities().map(|capabilities| capabilities.promise());
    let trust = match promise {
        // A driver that stops when it is closed promises nothing, whoever accepts it.
        Some(Promise::None(_)) | None => Trust::Unproven,
        Some(Promise::Weak(_)) => {
            if accepted(accept, &identity) {
                Trust::Accepted
            } else {
                Trust::Unproven
            }
        }
        Some(Promise::Evidence) if pausable => {
            if accepted(accept, &identity) {
                Trust::Accepted
            } else {
                Trust::Unproven
            }
        }
        Some(Promise::Evidence) if seen_to_reset(found, data) => Trust::Drilled,
        Some(Promise::Evidence) => {
            if accepted(accept, &identity) {
                Trust::Accepted
            } else {
                Trust::Unproven
            }
        }
    };
    (identity, trust)
}

/// Whether an operator accepted this watchdog by its driver's name; softdog has a short name of its own.
fn accepted(accept: &[String], identity: &str) -> bool {
    accept.iter().any(|name| name == identity || (name == "softdog" && identity == "Software Watchdog"))
}

/// A reset by this very watchdog is remembered once it was seen: bit 5 of the boot status is WDIOF_CARDRESET.
fn seen_to_reset(found: &Inspected, data: &Path) -> bool {
    let path = data.join("watchdog-proven");
    let reset_now = found.boot_status.is_some_and(|bits| bits & 0x20 != 0);
    if reset_now && let Err(error) = replace(&path, found.identity.as_bytes()) {
        tracing::warn!("that the watchdog was seen to reset this machine can't be remembered: {error:#}");
    }
    reset_now || std::fs::read_to_string(&path).is_ok_and(|identity| identity == found.identity)
}

/// A virtual machine may be paused from outside, its watchdog with it: its silence proves nothing.
fn is_virtual(root: &Path) -> bool {
    let flags = std::fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let hypervisor = flags.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|f| f == "hypervisor"));
    hypervisor || root.join("sys/hypervisor/type").exists() || root.join("proc/device-tree/hypervisor").exists()
}

/// A machine that may suspend stops its watchdog with itself, and wakes with its workloads. Masked sleep targets rule
/// that out.
fn may_suspend(root: &Path) -> bool {
    let can = std::fs::read_to_string(root.join("sys/power/state")).unwrap_or_default();
    let units = root.join("etc/systemd/system");
    let masked = |target: &str| std::fs::read_link(units.join(target)).is_ok_and(|to| to == Path::new("/dev/null"));
    let sleeps = can.split_whitespace().any(|state| matches!(state, "mem" | "freeze" | "disk" | "standby"));
    let all_masked =
        ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"].into_iter().all(masked);
    if sleeps && !all_masked {
        tracing::warn!(
            "this machine may suspend, so its watchdog is no evidence: run `systemctl mask sleep.target suspend.target \
             hibernate.target hybrid-sleep.target` if it never shall"
        );
    }
    sleeps && !all_masked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(identity: &str, options: u32, boot_status: u32) -> Inspected {
        Inspected {
            number: 0,
            identity: identity.into(),
            timeout_s: Some(10),
            no_way_out: Some(false),
            active: Some(false),
            boot_status: Some(boot_status),
            options: Some(options),
        }
    }

    const GOOD: u32 = 0x8180;

    #[test]
    fn a_watchdog_is_believed_only_after_it_was_seen_to_reset_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        let judge = |found: &Inspected, accept: &[&str], is_virtual| {
            let accept: Vec<String> = accept.iter().map(|name| (*name).to_owned()).collect();
            judge_device(found, &accept, dir.path(), is_virtual).1
        };
        assert_eq!(judge(&found("iTCO", GOOD, 0), &[], false), Trust::Unproven);
        assert_eq!(judge(&found("iTCO", GOOD, 0), &["iTCO"], false), Trust::Accepted);
        assert_eq!(judge(&found("iTCO", GOOD, 0x20), &[], true), Trust::Unproven, "never in a virtual machine");
        assert_eq!(judge(&found("iTCO", GOOD, 0x20), &[], false), Trust::Drilled);
        assert_eq!(judge(&found("iTCO", GOOD, 0), &[], false), Trust::Drilled, "it is remembered");
        assert_eq!(judge(&found("other", GOOD, 0), &[], false), Trust::Unproven, "of this watchdog alone");
    }

    /// A machine's files below a folder.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn row_5_a_virtual_machine_is_known_by_any_of_its_signs() {
        assert!(!is_virtual(machine(&[("proc/cpuinfo", "processor : 0\nflags\t\t: fpu vme\n")]).path()));
        let signs = [
            ("proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor vme\n"),
            ("sys/hypervisor/type", "xen\n"),
            ("proc/device-tree/hypervisor/compatible", "linux,kvm"),
        ];
        for sign in signs {
            assert!(is_virtual(machine(&[sign]).path()), "{sign:?}");
        }
    }

    #[test]
    fn row_6_a_machine_that_may_suspend_is_pausable_until_every_sleep_target_is_masked() {
        assert!(!may_suspend(machine(&[]).path()), "a kernel without suspend");
        for state in ["freeze mem disk\n", "mem\n", "disk\n", "freeze\n", "standby\n"] {
            assert!(may_suspend(machine(&[("sys/power/state", state)]).path()), "{state}");
        }
        let machine = machine(&[("sys/power/state", "freeze mem disk\n")]);
        let units = machine.path().join("etc/systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        for target in ["sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target"] {
            assert!(may_suspend(machine.path()), "{target} is not masked");
            std::os::unix::fs::symlink("/dev/null", units.join(target)).unwrap();
        }
        assert!(!may_suspend(machine.path()));
    }

    #[test]
    fn softdog_and_drivers_without_magic_close_are_never_drilled() {
        let dir = tempfile::tempdir().unwrap();
        let softdog = found("Software Watchdog", GOOD, 0x20);
        assert_eq!(judge_device(&softdog, &[], dir.path(), false).1, Trust::Unproven);
        assert_eq!(judge_device(&softdog, &["softdog".into()], dir.path(), false).1, Trust::Accepted);
        let stops_on_close = found("x", 0x8080, 0x20);
        assert_eq!(judge_device(&stops_on_close, &["x".into()], dir.path(), false).1, Trust::Unproven);
    }

    #[test]
    fn each_data_folder_has_a_runtime_folder_of_its_own_and_old_boots_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, shared] = ["one", "two", "shared"].map(|name| dir.path().join(name));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::os::unix::fs::symlink(&one, dir.path().join("alias")).unwrap();
        let root = runtime_root_in(&one, Some(&shared)).unwrap();
        assert!(root.starts_with(&shared) && root.is_dir());
        assert_eq!(runtime_root_in(&dir.path().join("alias"), Some(&shared)).unwrap(), root);
        assert_ne!(runtime_root_in(&two, Some(&shared)).unwrap(), root);
        let old = runtime_dir(&root, "a").unwrap();
        std::fs::create_dir(&old).unwrap();
        assert_eq!(runtime_dir(&root, "a").unwrap(), old);
        assert!(old.is_dir());
        assert_ne!(runtime_dir(&root, "b").unwrap(), old);
        assert!(!old.exists());
    }

    #[test]
    fn what_can_not_be_below_run_is_in_the_data_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(runtime_root_in(dir.path(), None).unwrap(), dir.path().join("run"));
        // Nothing can be made there, whoever asks.
        let nowhere = Path::new("/proc/tiebreaker-agent");
        assert_eq!(runtime_root_in(dir.path(), Some(nowhere)).unwrap(), dir.path().join("run"));
        assert_eq!(runtime_root(dir.path(), &WatchdogChoice::Simulated).unwrap(), dir.path().join("run"));
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }

    /// As systemd 252 of Debian 12 prints them while a service, here by the agent's name, is asked to end.
    #[test]
    fn the_jobs_that_systemd_really_has_tell_how_the_machine_goes() {
        let recorded = [
            ("systemctl restart", " 8 tiebreaker-agent.service restart running\n", Leave::AgentRestart),
            ("systemctl stop", "14 tiebreaker-agent.service stop running\n", Leave::AgentRestart),
            (
                "systemctl reboot",
                "21 reboot.target          start waiting\n26 final.target           start waiting\n\
                 22 systemd-reboot.service start waiting\n24 tiebreaker-agent.service          stop  running\n\
                 23 shutdown.target        start waiting\n",
                Leave::Reboot,
            ),
            (
                "systemctl poweroff",
                "17 tiebreaker-agent.service            stop  running\n9  systemd-poweroff.service start waiting\n\
                 16 shutdown.target          start waiting\n10 final.target             start waiting\n\
                 8  poweroff.target          start waiting\n",
                Leave::PowerOff,
            ),
            (
                "systemctl halt",
                "8  halt.target          start waiting\n15 shutdown.target      start waiting\n\
                 18 final.target         start waiting\n17 tiebreaker-agent.service        stop  running\n\
                 9  systemd-halt.service start waiting\n",
                Leave::PowerOff,
            ),
            (
                "systemctl isolate rescue.target",
                "10 sysinit.target        stop waiting\n13 network-online.target stop waiting\n\
                 11 tiebreaker-agent.service         stop running\n",
                Leave::AgentRestart,
            ),
        ];
        for (asked, jobs, how) in recorded {
            assert_eq!(leave_of(jobs), how, "{asked}");
        }
    }

    #[test]
    fn the_jobs_of_the_service_manager_tell_a_reboot_from_a_restart_of_the_agent() {
        let of = |target: &str| format!("123 tiebreaker-agent.service stop running\n124 {target} start waiting\n");
        assert_eq!(leave_of(&of("reboot.target")), Leave::Reboot);
        assert_eq!(leave_of(&of("poweroff.target")), Leave::PowerOff);
        assert_eq!(leave_of(&of("halt.target")), Leave::PowerOff);
        assert_eq!(leave_of(&of("tiebreaker-agent.service")), Leave::AgentRestart);
        assert_eq!(leave_of("9 reboot.target stop waiting\n"), Leave::AgentRestart);
        assert_eq!(leave_of(""), Leave::AgentRestart);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(total_memory("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16_384));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn only_the_first_agent_of_a_boot_tells_how_long_it_took() {
        let dir = tempfile::tempdir().unwrap();
        let device = WatchdogChoice::None;
        assert!(booted_in_ms(dir.path(), &device).unwrap().is_some());
        assert_eq!(booted_in_ms(dir.path(), &device).unwrap(), None);
        assert_eq!(booted_in_ms(dir.path(), &WatchdogChoice::Simulated).unwrap(), None);
    }

    #[test]
    fn no_incarnation_is_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(next_incarnation(dir.path()).unwrap(), 1);
        assert_eq!(next_incarnation(dir.path()).unwrap(), 2);
        std::fs::write(dir.path().join("incarnation"), "x").unwrap();
        assert!(next_incarnation(dir.path()).unwrap_err().to_string().contains("join again"));
    }
}
