//! A machine with a power button: a namespace of processes, which all die at once when its power is cut.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{network::require_children, node::Node};

/// The power button, and what `ipmi_sim` calls for each power query and command: `get power`, or `set power 0|1`. The
/// first argument is the machine's folder. The process that is kept in `power.pid` waits for the first process of the
/// machine's namespace, and ends when the kernel has killed and collected everything there: so it stands for the power.
///
/// Each press is written to `switched`. A file `stuck` makes it do nothing, and one `slow` cut the power so many seconds late.
const BUTTON: &str = r#"#!/bin/sh
dir=$1; verb=$2; what=$3; value=$4
on() {
    [ -s "$dir/power.pid" ] || return 1
    read -r pid < "$dir/power.pid"
    grep -q '^State:[[:space:]]*[^Z]' "/proc/$pid/status" 2>/dev/null
}
cut() {
    while on; do
        # The namespace dies with its first process.
        for first in $(cat "/proc/$pid/task/$pid/children" 2>/dev/null); do kill -KILL "$first"; done
        sleep 0.02
    done
}
case "$verb $what" in
'get power')
    if on; then echo power:1; else echo power:0; fi ;;
'set power')
    echo "$value" >>"$dir/switched"
    if [ -e "$dir/stuck" ]; then
        exit 0
    elif [ "$value" = 1 ]; then
        on || { setsid "$dir/boot" </dev/null >>"$dir/out" 2>>"$dir/log" & echo $! > "$dir/power.pid"; }
    elif [ -e "$dir/slow" ]; then
        { sleep "$(cat "$dir/slow")"; cut; } </dev/null >/dev/null 2>&1 &
    else
        cut
    fi ;;
*)
    exit 1 ;;
esac
"#;

/// A machine on which everything dies with its power, which is cut when this is dropped.
#[derive(Debug)]
pub struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// A machine that boots into a node's supervisor, without power so far. `place` is put before the command.
    ///
    /// # Errors
    /// util-linux is missing, or the kernel has no namespaces of processes.
    pub fn new(node: &Node, place: &[OsString]) -> Result<Self> {
        Self::booting(node.folder(), place, &[], node.supervisor()?)
    }

    /// A machine that boots into a command as its first process. `more` are further options of `unshare`.
    ///
    /// # Errors
    /// As [`Machine::new`].
    pub fn booting(folder: &Path, place: &[OsString], more: &[&str], command: Vec<OsString>) -> Result<Self> {
        crate::tool("unshare", "util-linux")?;
        require_children()?;
        let folder = folder.to_owned();
        let mut words = place.to_vec();
        words.extend(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from));
        words.extend(more.iter().map(OsString::from));
        words.extend(command);
        let words: Result<Vec<String>> =
            words.into_iter().map(|word| word.into_string().ok().context("a path of the test is no text")).collect();
        let command: Vec<String> = words?.iter().map(|word| format!("'{word}'")).collect();
        executable(&folder.join("boot"), &format!("#!/bin/sh\nexec {}\n", command.join(" ")))?;
        executable(&folder.join("button"), BUTTON)?;
        Ok(Self { folder })
    }

    /// The command line that a BMC calls.
    #[must_use]
    pub fn button(&self) -> String {
        format!("{} {}", self.folder.join("button").display(), self.folder.display())
    }

    /// Switches it on.
    ///
    /// # Errors
    /// The button doesn't work.
    pub fn on(&self) -> Result<()> {
        self.press("1")
    }

    /// Cuts its power. Everything on it is dead when this returns.
    ///
    /// # Errors
    /// The button doesn't work.
    pub fn off(&self) -> Result<()> {
        self.press("0")
    }

    /// How often it was switched off, or on, since it was made.
    ///
    /// # Errors
    /// The file system's.
    pub fn switched(&self, on: bool) -> Result<usize> {
        let wanted = if on { "1" } else { "0" };
        let text = fs::read_to_string(self.folder.join("switched"))?;
        Ok(text.lines().filter(|line| *line == wanted).count())
    }

    /// Whether it has power.
    ///
    /// # Errors
    /// The button doesn't work.
    pub fn is_on(&self) -> Result<bool> {
        let mut command = Command::new(self.folder.join("button"));
        command.arg(&self.folder).args(["get", "power"]);
        Ok(crate::run(command)?.done()?.trim() == "power:1")
    }

    /// A command that runs on it, and sees what its first process sees.
    ///
    /// # Errors
    /// It has no power.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let power = fs::read_to_string(self.folder.join("power.pid"))?;
        let power = power.trim();
        let children = fs::read_to_string(format!("/proc/{power}/task/{power}/children"))?;
        let first = children.split_whitespace().next().context("the machine has no power")?;
        let mut command = Command::new(crate::tool("nsenter", "util-linux")?);
        command.args(["--target", first, "--all"]).args(words);
        Ok(command)
    }

    fn press(&self, value: &str) -> Result<()> {
        let pressed = Command::new(self.folder.join("button"))
            .arg(&self.folder)
            .args(["set", "power", value])
            .status()
            .context("pressing the power button")?;
        ensure!(pressed.success(), "the power button does not work");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.off();
    }
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
