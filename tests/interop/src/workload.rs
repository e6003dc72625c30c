//! A protected service that gives itself away when it runs twice.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tiebreaker_pipeline::resource::{Driver, ResourceSpec};

use crate::until;

/// The variable that marks all processes of a test's machine: a folder of this machine alone.
pub(crate) const MACHINE_VARIABLE: &str = "TIEBREAKER_TEST_MACHINE";

/// `service VERB`, beside a folder that all machines share. While it serves it holds a lock there, to detect a second
/// one and never to prevent it, and adds lines to the ledger: `start RUN MACHINE PID`, then `alive RUN`. Appending is
/// atomic, so the order of lines is the order of events.
///
/// An executor clears the environment of what it runs, so the machine is asked of the ancestors. A file `refuse` in the
/// machine's folder makes a start fail, and one `clings` beside the service makes stops hang.
const SERVICE: &str = r#"#!/bin/sh
shared=$(dirname "$0")
ledger=$shared/ledger
machine=$3
pid=$$
while [ -z "$machine" ] && [ "$pid" -ge 1 ]; do
    machine=$(tr '\0' '\n' < "/proc/$pid/environ" | sed -n 's/^TIEBREAKER_TEST_MACHINE=//p')
    pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status")
done
[ -n "$machine" ] || { echo "this runs on no machine of a test"; exit 9; }
pidfile=$machine/$(basename "$shared").pid
# A pid of an earlier boot may be somebody else's by now.
lives() { grep -q '^State:[[:space:]]*[^Z]' "/proc/$1/status" 2>/dev/null; }
runs() {
    [ -s "$pidfile" ] || return 1
    read -r pid < "$pidfile"
    lives "$pid" || return 1
    tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qx "$machine" || return 1
    tr '\0' '\n' < "/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$0"
}
case $1 in
status)
    if runs; then exit 0; else exit 3; fi ;;
start)
    [ -e "$machine/refuse" ] && { echo "told to fail"; exit 1; }
    runs && exit 0
    rm -f "$pidfile"
    setsid "$0" serve "" "$machine" </dev/null >/dev/null 2>&1 &
    started=$!
    until runs; do
        lives "$started" || { echo "it died at once"; exit 1; }
        sleep 0.02
    done ;;
migrate)
    runs || { echo "it doesn't run here"; exit 1; }
    machine=$(dirname "$machine")/$TIEBREAKER_TARGET
    [ -d "$machine" ] || { echo "there is no machine $machine"; exit 1; }
    kill -TERM "$pid"
    while lives "$pid"; do sleep 0.02; done
    pidfile=$machine/$(basename "$shared").pid
    setsid "$0" serve "" "$machine" </dev/null >/dev/null 2>&1 &
    until runs; do sleep 0.02; done ;;
stop)
    runs || exit 0
    [ -e "$shared/clings" ] && exec sleep 3600
    kill -TERM "$pid"
    while runs; do sleep 0.02; done ;;
serve)
    read -r run < /proc/sys/kernel/random/uuid
    exec 9>>"$shared/lock"
    flock -n 9 || echo "double $run" >> "$ledger"
    echo "start $run $machine $$" >> "$ledger"
    echo $$ > "$pidfile.new" && mv "$pidfile.new" "$pidfile"
    while :; do
        echo "alive $run" >> "$ledger"
        sleep 0.1 9>&-
    done ;;
*)
    exit 2 ;;
esac
"#;

/// The service, and what its processes wrote.
#[derive(Clone, Debug)]
pub struct Workload {
    shared: PathBuf,
}

/// One run of the service, as its ledger tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// Its name.
    pub id: String,
    /// Its machine's folder.
    pub machine: PathBuf,
    /// Its process id, in its machine's namespace.
    pub pid: i32,
}

impl Workload {
    /// Sets the service up in a folder that all machines share.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(shared: &Path) -> Result<Self> {
        fs::create_dir_all(shared)?;
        let program = shared.join("service");
        fs::write(&program, SERVICE)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(shared.join("ledger"), "")?;
        Ok(Self { shared: shared.to_owned() })
    }

    /// Whether it clings to its machines: nothing stops it there but the machine's end.
    ///
    /// # Errors
    /// The file system's.
    pub fn set_clinging(&self, clings: bool) -> Result<()> {
        let flag = self.shared.join("clings");
        if clings {
            fs::write(flag, "")?
        } else {
            fs::remove_file(flag)?
        }
        Ok(())
    }

    /// How it is operated. It is probed twice a second.
    #[must_use]
    pub fn spec(&self) -> ResourceSpec {
        let program = self.shared.join("service").display().to_string();
        command_spec(&[&program, "start"], &[&program, "stop"], &[&program, "status"])
    }

    /// The same, and it can be moved live: what runs on is another process, on the other machine.
    #[must_use]
    pub fn live_spec(&self) -> ResourceSpec {
        let mut spec = self.spec();
        if let Driver::Command { migrate, .. } = &mut spec.driver {
            *migrate = Some(vec![self.shared.join("service").display().to_string(), "migrate".to_owned()]);
        }
        ResourceSpec { live: true, ..spec }
    }

    /// All runs so far.
    ///
    /// # Errors
    /// **The service ran twice at once**, or the ledger can't be read.
    pub fn runs(&self) -> Result<Vec<Run>> {
        let text = fs::read_to_string(self.shared.join("ledger")).context("reading the ledger")?;
        let mut runs: Vec<Run> = Vec::new();
        // The last line may be in the making.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["start", id, machine, pid] => {
                    runs.push(Run { id: id.to_owned(), machine: machine.into(), pid: pid.parse()? });
                }
                ["alive", id] => {
                    let last = runs.last().context("alive before a start")?;
                    ensure!(last.id == id, "DOUBLE RUN: {id} still lives after {last:?} has started; runs: {runs:#?}");
                }
                ["double", id] => bail!("DOUBLE RUN: {id} found the lock held; runs before: {runs:#?}"),
                _ => bail!("the ledger has a line that nobody wrote: {line:?}"),
            }
        }
        Ok(runs)
    }

    /// How many signs of life a run has given so far.
    ///
    /// # Errors
    /// The ledger can't be read.
    pub fn signs_of_life(&self, run: &Run) -> Result<usize> {
        let alive = format!("alive {}", run.id);
        let text = fs::read_to_string(self.shared.join("ledger")).context("reading the ledger")?;
        Ok(text.lines().filter(|line| *line == alive).count())
    }

    /// The latest run.
    ///
    /// # Errors
    /// As [`Workload::runs`], and if there was none.
    pub fn latest(&self) -> Result<Run> {
        self.runs()?.pop().context("the service never ran")
    }

    /// Waits until a run adds to the ledger: it lives now.
    ///
    /// # Errors
    /// As [`Workload::runs`], and if it doesn't.
    pub fn lives(&self, run: &Run) -> Result<()> {
        let before = self.signs_of_life(run)?;
        until("sign of life", Duration::from_secs(20), || {
            ensure!(self.signs_of_life(run)? > before, "{run:?} is silent");
            Ok(())
        })?;
        self.runs().map(drop)
    }

    /// Waits for a run on a machine.
    ///
    /// # Errors
    /// As [`Workload::runs`], and if there is none in time.
    pub fn until_on(&self, machine: &Path, within: Duration) -> Result<Run> {
        until("run of the service", within, || {
            let run = self.latest()?;
            ensure!(run.machine == machine, "the latest run is {run:?}");
            Ok(run)
        })
    }
}

/// A resource of plain programs that is probed twice a second.
#[must_use]
pub fn command_spec(start: &[&str], stop: &[&str], status: &[&str]) -> ResourceSpec {
    let argv = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let driver = Driver::Command { start: argv(start), stop: argv(stop), status: argv(status), migrate: None };
    ResourceSpec { monitor_every_ms: 500, ..ResourceSpec::with_defaults(driver) }
}
