//! The unit: the process between the agent and an operation's program.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::record::{Done, Keep, Order, replace};
use crate::processes::{Snapshot, descendants, kill_descendants, kill_selected};
use crate::sys;

/// The whole of `tiebreaker-agent op-exec`: reads an order from the standard input, runs it, and leaves its outcome.
/// The agent keeps the other end of the input open for as long as it lives and wants this operation.
///
/// Not for anybody to call by hand. An error means that nothing was run, or that the outcome could not be written;
/// the agent then finds no outcome, and cleans up.
pub fn op_exec() -> io::Result<()> {
    let mut input = io::stdin().lock();
    // A session of its own comes before any program, so the agent may rely on it. It fails only for a leader of a
    // group, who then can't be a unit.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let order = Order::read(&mut input)?;
    let done = run(&order, input.as_fd().try_clone_to_owned()?)?;
    replace(&order.done, &serde_json::to_vec(&done)?)
}

fn run(order: &Order, agent: OwnedFd) -> io::Result<Done> {
    let (program, arguments) = order.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let output = OpenOptions::new().append(true).create(true).open(&order.output)?;
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&order.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Ok(Done::NotStarted(format!("{program}: {error}"))),
    };
    let Some(status) = wait(&mut child, &agent)? else {
        return Ok(if kill_descendants(std::process::id()).is_ok() { Done::Abandoned } else { Done::Survivors });
    };
    let killed = match order.keep {
        Keep::AllIfSuccessful if status.success() => Ok(0),
        Keep::AllIfSuccessful => kill_descendants(std::process::id()),
        Keep::OtherSessions => kill_own_session(),
    };
    Ok(match (killed, status.code(), status.signal()) {
        (Err(_survivors), _, _) => Done::Survivors,
        (Ok(_), Some(code), _) => Done::Exited(code),
        (Ok(_), None, signal) => Done::Signalled(signal.unwrap_or(0)),
    })
}

/// Waits for the program's end; `None` if the agent goes first.
fn wait(child: &mut Child, agent: &OwnedFd) -> io::Result<Option<ExitStatus>> {
    let pid = sys::pid(child.id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
    let program = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let mut fds = [PollFd::new(&program, PollFlags::IN), PollFd::new(agent, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let agent_gone = !fds[1].revents().is_empty();
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if agent_gone {
            return Ok(None);
        }
    }
}

fn kill_own_session() -> Result<usize, crate::processes::KillError> {
    let own = getpid().as_raw_nonzero().get();
    kill_selected(|all: &Snapshot| {
        let mut below = descendants(all, own);
        below.retain(|pid| all.0.get(pid).is_some_and(|stat| stat.session == own));
        below
    })
}
