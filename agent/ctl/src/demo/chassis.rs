//! The demo's machine: a process that stands for one, with a power button, and with a BMC where it has one.
//!
//! All that runs on the machine are its descendants: it is their subreaper, so that none slips away, and cutting its
//! power kills them all. The demo tells it by lines on its standard input what happens to it, and reads on its standard
//! output what did. When the demo goes, however it goes, the input ends, and the machine takes everything with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use serde::{Deserialize, Serialize};
use tiebreaker_agent::kill_descendants;
use tiebreaker_fence::{Account, Bmc, Chassis, ChassisError, PowerState, Privilege, Secret, UserName};
use tokio::io::{AsyncBufReadExt, BufReader as AsyncBufReader};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

/// What a machine is.
#[derive(Clone, Serialize, Deserialize)]
pub struct ChassisConfig {
    /// The program that it boots into, the name by which it is called, and its arguments.
    pub program: PathBuf,
    /// See `program`.
    pub argv: Vec<String>,
    /// The environment of all that runs on it, on top of the chassis's own.
    pub env: BTreeMap<String, String>,
    /// Where what it says is kept.
    pub log: PathBuf,
    /// Its BMC's account.
    pub bmc: Option<BmcAccount>,
    /// From power on to the start of the program, when the BMC switches it on.
    pub boot_ms: u64,
}

/// The account of a BMC.
#[derive(Clone, Serialize, Deserialize)]
pub struct BmcAccount {
    /// Its name.
    pub user: String,
    /// The file with its password.
    pub password_file: PathBuf,
}

/// What is done to a machine: one line each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Its power comes on, or its program is started again after a crash.
    On,
    /// Its power is cut: everything dies, and the BMC reads off.
    Cut,
    /// Everything dies, and the BMC still reads on.
    Crash,
    /// The agent is stopped.
    Freeze,
    /// The agent is killed.
    KillAgent,
}

/// What happened to a machine: one line each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happened {
    /// It is there, without power; its BMC listens here.
    Ready {
        /// The BMC.
        bmc: Option<SocketAddr>,
    },
    /// Its power went.
    Off {
        /// Its BMC did it.
        by_bmc: bool,
        /// So many processes died.
        killed: usize,
    },
    /// Its power came.
    On {
        /// Its BMC did it.
        by_bmc: bool,
    },
    /// Its program was started.
    Booted,
    /// Everything died.
    Crashed {
        /// So many processes.
        killed: usize,
    },
    /// The agent was signalled.
    Signalled {
        /// Its process.
        pid: u32,
    },
    /// Its program ended by itself.
    Ended {
        /// How.
        status: String,
    },
    /// The supervisor's watchdog reset it.
    Reset {
        /// Why.
        why: String,
        /// So many processes died.
        killed: usize,
    },
    /// Something could not be done.
    Failed {
        /// What.
        why: String,
    },
}

/// What of the supervisor's reports matters here.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Supervisor {
    Started {
        pid: u32,
    },
    Reset {
        why: String,
        killed: usize,
    },
    #[serde(other)]
    Other,
}

/// The process's main function: `tiebreaker-demo-chassis CONFIG`.
pub fn chassis_main(args: Vec<OsString>) -> ExitCode {
    let Some(path) = args.get(1) else {
        eprintln!("{} is a part of `tiebreaker demo`", crate::cli::CHASSIS);
        return ExitCode::from(2);
    };
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(run(Path::new(path))));
    // The runtime's reader of the standard input can't be stopped, so the process doesn't wait for it.
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            tell(&Happened::Failed { why: format!("{error:#}") });
            std::process::exit(1)
        }
    }
}

async fn run(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let config: ChassisConfig = serde_json::from_slice(&bytes).context("reading the machine's configuration")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming the parent of orphans")?;
    let mut died = signal(SignalKind::child()).context("watching for SIGCHLD")?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let account = config.bmc.as_ref().map(account).transpose()?;
    let machine = Machine(Arc::new(Shared {
        config,
        state: Mutex::new(State { power: PowerState::Off, program: None, agent: None, boots: 0 }),
        handle: Handle::current(),
    }));
    let mut address = None;
    if let Some(account) = account {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening the BMC's port")?;
        address = Some(socket.local_addr().context("asking for the BMC's port")?);
        let bmc = Bmc::new(vec![account], None, [0; 16], machine.clone());
        tokio::spawn(async move {
            if let Err(error) = bmc.serve(socket).await {
                tell(&Happened::Failed { why: format!("the BMC ended: {error}") });
            }
        });
    }
    tell(&Happened::Ready { bmc: address });
    let mut orders = AsyncBufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = orders.next_line() => match line.context("reading an order")? {
                Some(line) => machine.obey(serde_json::from_str(&line).context("reading an order")?),
                None => break,
            },
            _ = died.recv() => machine.collect(),
            _ = terminate.recv() => break,
        }
    }
    // Whatever won't die is tried again: nothing of the demo may outlive it.
    loop {
        // A statement of its own, so that the lock is not held while this waits.
        let killed = machine.lock().kill();
        let Err(error) = killed else { break };
        tell(&Happened::Failed { why: format!("{error:#}") });
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // All are dead, so none makes this wait; uncollected they would be left to whoever inherits them.
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    Ok(())
}

fn account(account: &BmcAccount) -> Result<Account> {
    let password = std::fs::read(&account.password_file)
        .with_context(|| format!("reading {}", account.password_file.display()))?;
    Ok(Account {
        user: UserName::new(account.user.clone())?,
        password: Secret::new(password)?,
        limit: Privilege::Operator,
    })
}

/// Says what happened. Nobody may be listening any more; then the input ends, too.
fn tell(happened: &Happened) {
    let mut line = serde_json::to_vec(happened).expect("it is plain data");
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    let _unheard = out.write_all(&line).and_then(|()| out.flush());
}

/// The machine, shared between its BMC, its power button and its program's output.
#[derive(Clone)]
struct Machine(Arc<Shared>);

struct Shared {
    config: ChassisConfig,
    state: Mutex<State>,
    handle: Handle,
}

struct State {
    power: PowerState,
    /// The program, while it runs.
    program: Option<u32>,
    /// The agent, as the supervisor last said.
    agent: Option<u32>,
    /// Counts what ends a boot, so that a boot under way notices.
    boots: u64,
}

impl State {
    /// Kills all that runs on the machine.
    fn kill(&mut self) -> Result<usize> {
        self.boots += 1;
        let killed = kill_descendants(std::process::id())?;
        self.program = None;
        self.agent = None;
        Ok(killed)
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(&self, order: Order) {
        let done = match order {
            Order::On => self.switch_on(Duration::ZERO, false),
            Order::Cut => self.switch_off(false),
            Order::Crash => self.lock().kill().map(|killed| tell(&Happened::Crashed { killed })),
            Order::Freeze => self.signal_agent(Signal::STOP),
            Order::KillAgent => self.signal_agent(Signal::KILL),
        };
        if let Err(error) = done {
            tell(&Happened::Failed { why: format!("{order:?}: {error:#}") });
        }
    }

    fn switch_off(&self, by_bmc: bool) -> Result<()> {
        let mut state = self.lock();
        let was = state.power;
        // A machine of which something lives is not off, so the state follows only when all is dead.
        let killed = state.kill()?;
        state.power = PowerState::Off;
        if was == PowerState::On {
            tell(&Happened::Off { by_bmc, killed });
        }
        Ok(())
    }

    fn switch_on(&self, boot: Duration, by_bmc: bool) -> Result<()> {
        let mut state = self.lock();
        if state.power == PowerState::On && (by_bmc || state.program.is_some()) {
            return Ok(());
        }
        state.power = PowerState::On;
        tell(&Happened::On { by_bmc });
        if boot.is_zero() {
            return self.boot(&mut state);
        }
        let (machine, boots) = (self.clone(), state.boots);
        self.0.handle.spawn(async move {
            tokio::time::sleep(boot).await;
            let mut state = machine.lock();
            if state.boots == boots
                && state.power == PowerState::On
                && state.program.is_none()
                && let Err(error) = machine.boot(&mut state)
            {
                tell(&Happened::Failed { why: format!("booting: {error:#}") });
            }
        });
        Ok(())
    }

    fn boot(&self, state: &mut State) -> Result<()> {
        let config = &self.0.config;
        let (name, arguments) = config.argv.split_first().context("the machine has no program")?;
        let log = OpenOptions::new().create(true).append(true).open(&config.log).context("opening the log")?;
        let mut child = Command::new(&config.program)
            .arg0(name)
            .args(arguments)
            .envs(&config.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().context("sharing the log")?)
            .spawn()
            .with_context(|| format!("starting {}", config.program.display()))?;
        state.program = Some(child.id());
        let output = child.stdout.take().context("the program's output")?;
        let machine = self.clone();
        // It ends with the last process that holds the other end, so at the latest when the machine's power goes.
        std::thread::spawn(move || machine.listen(output, log));
        tell(&Happened::Booted);
        Ok(())
    }

    /// Keeps what the program says, and follows which process is the agent.
    fn listen(&self, output: ChildStdout, mut log: File) {
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if let Err(error) = log.write_all(&line) {
                tell(&Happened::Failed { why: format!("writing the log: {error}") });
            }
            match serde_json::from_slice(&line) {
                Ok(Supervisor::Started { pid }) => self.lock().agent = Some(pid),
                Ok(Supervisor::Reset { why, killed }) => tell(&Happened::Reset { why, killed }),
                Ok(Supervisor::Other) | Err(_) => {}
            }
        }
    }

    fn signal_agent(&self, signal: Signal) -> Result<()> {
        let state = self.lock();
        let Some(pid) = state.agent else { bail!("no agent runs") };
        let raw = Pid::from_raw(pid.cast_signed()).context("no agent has this process id")?;
        kill_process(raw, signal).with_context(|| format!("signalling process {pid}"))?;
        tell(&Happened::Signalled { pid });
        Ok(())
    }

    /// Collects the dead, orphans too.
    fn collect(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let mut state = self.lock();
            if state.program == Some(pid.as_raw_nonzero().get().cast_unsigned()) {
                state.program = None;
                let status = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (None, Some(number)) => format!("signal {number}"),
                    (None, None) => "unknown".to_owned(),
                };
                tell(&Happened::Ended { status });
            }
        }
    }
}

impl Chassis for Machine {
    fn power(&self) -> PowerState {
        self.lock().power
    }

    fn set_power(&self, state: PowerState) -> Result<(), ChassisError> {
        let done = match state {
            PowerState::Off => self.switch_off(true),
            PowerState::On => self.switch_on(Duration::from_millis(self.0.config.boot_ms), true),
        };
        done.map_err(|error| ChassisError { state, source: error.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_happenings_are_single_lines() {
        for order in [Order::On, Order::Cut, Order::Crash, Order::Freeze, Order::KillAgent] {
            let line = serde_json::to_string(&order).unwrap();
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        let off = Happened::Off { by_bmc: true, killed: 3 };
        let line = serde_json::to_string(&off).unwrap();
        assert_eq!(line, r#"{"event":"off","by_bmc":true,"killed":3}"#);
        assert_eq!(serde_json::from_str::<Happened>(&line).unwrap(), off);
    }

    #[test]
    fn what_the_supervisor_says_is_understood_where_it_matters() {
        let started = serde_json::from_str(r#"{"event":"started","pid":7,"boot":"x"}"#);
        assert!(matches!(started, Ok(Supervisor::Started { pid: 7 })));
        let reset = serde_json::from_str(r#"{"event":"reset","why":"w","killed":2,"reboot_ms":1}"#);
        assert!(matches!(reset, Ok(Supervisor::Reset { killed: 2, .. })));
        assert!(matches!(serde_json::from_str(r#"{"event":"armed","timeout_ms":1}"#), Ok(Supervisor::Other)));
    }
}
