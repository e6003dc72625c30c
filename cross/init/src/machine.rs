//! The order in which the machine comes up, and the loop that keeps it so.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use rustix::system::{RebootCommand, reboot, sethostname};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR2};
use tiebreaker_update::Sign;

use crate::adopt::{self, Adopted};
use crate::cmdline::CommandLine;
use crate::dog::Dog;
use crate::invitations::Invitations;
use crate::known::{Wrong, know};
use crate::light::{Light, shine};
use crate::log::{say, show};
use crate::pairing::Pairing;
use crate::settings::{Settings, Setup};
use crate::supervisor::{Action, Event, Supervisor};
use crate::updates::{Card, Updates, Wish};
use crate::{clock, disk, firmware, modules, network, notify, server, sys};

/// From one look at everything to the next, if nothing is said meanwhile.
const BEAT: Duration = Duration::from_millis(250);
/// Cards and USB take their time.
const DISK_WITHIN: Duration = Duration::from_secs(20);
const MODULES_WATCHDOG: &str = "watchdog.list";
/// What the card, its file systems and the board need.
const MODULES: &str = "drivers.list";

/// Runs the machine until it goes down.
///
/// # Errors
/// What makes it impossible. The kernel then panics, and is restarted by the watchdog or by its own `panic=`.
pub fn run() -> Result<Infallible> {
    disk::mount_kernels()?;
    let line = CommandLine::parse(&fs::read_to_string("/proc/cmdline").context("reading the kernel's command line")?);
    modules::load(MODULES_WATCHDOG)?;
    let mut dog = if line.watchdog { Dog::arm() } else { Dog::none() };
    let drivers = modules::load(MODULES)?;
    dog.feed();
    shine(Light::Starting);
    let disk = line.disk.context("the kernel's command line names no tiebreaker.disk")?;
    // A machine without its card can do nothing else than try again from the beginning.
    let disk = disk::find(disk, DISK_WITHIN, || dog.feed())?;
    dog.feed();
    say(format_args!("{drivers} drivers, disk {disk}"));
    let ends = Ends::listen()?;
    let told = listen()?;
    let mut machine = Machine::new(line, dog, disk, told);
    machine.settle();
    loop {
        machine.turn();
        if let Some(how) = ends.asked() {
            machine.supervisor.handle(machine.now(), Event::Stop);
            machine.ending = Some(how);
        }
        if machine.finished {
            machine.go_down();
        }
    }
}

/// How the machine is asked to end.
struct Ends {
    restart: Arc<AtomicBool>,
    power_off: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Restart,
    PowerOff,
    /// A restart into the slot of an update, once.
    Trial,
}

impl Ends {
    fn listen() -> Result<Self> {
        let ends = Self { restart: Arc::default(), power_off: Arc::default() };
        for (signal, flag) in [(SIGINT, &ends.restart), (SIGTERM, &ends.restart), (SIGUSR2, &ends.power_off)] {
            signal_hook::flag::register(signal, Arc::clone(flag)).context("listening for signals")?;
        }
        // Ctrl-Alt-Del shall ask, and not cut everything off.
        if let Err(error) = reboot(RebootCommand::CadOff) {
            say(format_args!("Ctrl-Alt-Del goes on to restart at once: {error}"));
        }
        Ok(ends)
    }

    fn asked(&self) -> Option<Ending> {
        if self.power_off.swap(false, Ordering::Relaxed) {
            Some(Ending::PowerOff)
        } else if self.restart.swap(false, Ordering::Relaxed) {
            Some(Ending::Restart)
        } else {
            None
        }
    }
}

fn listen() -> Result<UnixDatagram> {
    let socket = UnixDatagram::bind(server::NOTIFY).with_context(|| format!("listening at {}", server::NOTIFY))?;
    // The server is another user.
    fs::set_permissions(server::NOTIFY, fs::Permissions::from_mode(0o666)).context("opening it to the server")?;
    socket.set_read_timeout(Some(BEAT)).context("waiting for the server's word")?;
    Ok(socket)
}

struct Machine {
    line: CommandLine,
    began: Instant,
    dog: Dog,
    disk: String,
    told: UnixDatagram,
    supervisor: Supervisor,
    server: Option<Pid>,
    settings: Settings,
    /// Whether somebody wrote them.
    written: bool,
    state: StateFolder,
    updates: Updates,
    mistake: bool,
    up: bool,
    invitations: Invitations,
    pairing: Pairing,
    starved: bool,
    ending: Option<Ending>,
    finished: bool,
}

impl Machine {
    fn new(line: CommandLine, dog: Dog, disk: String, told: UnixDatagram) -> Self {
        Self {
            line,
            began: Instant::now(),
            dog,
            disk,
            told,
            supervisor: Supervisor::new(Duration::ZERO),
            server: None,
            settings: Settings::without_a_file(),
            written: false,
            state: StateFolder::default(),
            updates: Updates::default(),
            mistake: false,
            up: false,
            invitations: Invitations::new(&Setup::default()),
            pairing: Pairing::new(&Setup::default()),
            starved: false,
            ending: None,
            finished: false,
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Finds the settings that hold, and brings up what needs no server. A card that can't be read leaves what needs none.
    fn settle(&mut self) {
        let settings = disk::mount_settings(&self.disk);
        if let Err(error) = &settings {
            say(format_args!("{error:#}"));
        }
        self.dog.feed();
        if let Err(error) = self.state.ready(|| disk::mount_state(&self.disk), server::own_folder) {
            say(format_args!("NO STATE, so no server: {error:#}"));
        }
        self.dog.feed();
        server::own_devices();
        let Adopted { settings, written, keep, trouble } =
            adopt::adopt(&Path::new(disk::SETTINGS).join(adopt::FILE), &server::last_good(), server::check);
        self.mistake = trouble.is_some();
        if let Some(trouble) = trouble {
            say(format_args!("SETTINGS: {}", adopt::in_file(&trouble)));
            say("the last settings that were in order go on");
            know(|known| known.mistake = Some(Wrong::new(adopt::FILE, &trouble)));
            shine(Light::Mistake);
        }
        self.invitations = Invitations::new(&settings.setup);
        self.pairing = Pairing::new(&settings.setup);
        (self.settings, self.written) = (settings, written);
        if let Err(error) = sethostname(self.settings.name.as_bytes()) {
            say(format_args!("the machine's name can't be set: {error}"));
        }
        server::allow_low_ports();
        network::start(self.settings.network.clone(), self.settings.name.clone());
        clock::start(self.settings.time_servers.clone());
        if self.state.owned
            && let Some(text) = keep
            && let Err(error) = disk::replace(&server::last_good(), &text)
        {
            say(format_args!("{error:#}"));
        }
        self.dog.feed();
        self.updates.begin(Card {
            disk: self.disk.clone(),
            said: self.line.slot,
            state: self.state.owned,
            key: self.settings.update_key.clone(),
        });
        self.dog.feed();
    }

    /// One turn of the loop: at most a beat long while nothing is to be done.
    fn turn(&mut self) {
        self.hear();
        self.reap();
        while let Some(action) = self.supervisor.poll(self.now()) {
            self.act(action);
        }
        if let Some(wish) = self.updates.poll(self.now()) {
            self.grant(wish);
        }
        if self.up && self.invitations.due(self.now()) {
            self.invite();
        }
        if self.up {
            self.pairing.start();
        }
        if let (Some(after), Some(pid)) = (self.line.hang_after_s, self.server)
            && self.now() >= Duration::from_secs(after)
        {
            self.line.hang_after_s = None;
            say("the server is stopped, as the kernel's command line asks for");
            server::tell(pid, Signal::STOP);
        }
        if let Some(light) = self.feed(self.now()) {
            shine(light);
        }
    }

    /// Does what an update needs.
    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Fresh => self.tell(Signal::TERM),
            // Who switches the machine off meanwhile is heard.
            Wish::Try | Wish::Restart if self.ending.is_some() => {}
            Wish::Try | Wish::Restart => {
                self.ending = Some(if matches!(wish, Wish::Try) { Ending::Trial } else { Ending::Restart });
                self.supervisor.handle(self.now(), Event::Stop);
            }
        }
    }

    /// Feeds the watchdog if the machine deserves it. Gives what the LED is to show where that has changed.
    fn feed(&mut self, now: Duration) -> Option<Light> {
        let fed = self.supervisor.deserves(now);
        if fed {
            self.dog.feed();
        }
        if fed != self.starved {
            return None;
        }
        self.starved = !fed;
        say(if fed {
            "the server proves again that it works: the watchdog is fed"
        } else {
            "THE SERVER DOESN'T PROVE THAT IT WORKS: the watchdog isn't fed any more, and resets the machine"
        });
        Some(light(self.up && fed, self.mistake))
    }

    fn hear(&mut self) {
        let mut datagram = [0; 4096];
        match self.told.recv(&mut datagram) {
            Ok(length) => {
                if let Some(names) = notify::stopped(&datagram[..length]) {
                    self.updates.handle(self.now(), Sign::Stopped(names));
                }
                for event in notify::events(&datagram[..length]) {
                    self.supervisor.handle(self.now(), event);
                    self.updates.handle(self.now(), if event == Event::Up { Sign::Up } else { Sign::Proof });
                    if event == Event::Up {
                        self.up = true;
                        say("READY: the server is up");
                        shine(light(true, self.mistake));
                    }
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                say(format_args!("the server can't be heard: {error}"));
                std::thread::sleep(BEAT);
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.server == Some(pid) {
                self.server = None;
                self.up = false;
                say(format_args!("the server has ended: {}", words(status)));
                self.supervisor.handle(self.now(), Event::Ended);
                self.updates.handle(self.now(), Sign::Ended);
            } else {
                self.pairing.reaped(pid, status);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start => match self.start() {
                Ok(pid) => self.server = Some(pid),
                Err(error) => {
                    say(format_args!("the server can't be started: {error:#}"));
                    self.supervisor.handle(self.now(), Event::NotStarted);
                }
            },
            Action::Terminate => self.tell(Signal::TERM),
            Action::Kill => self.tell(Signal::KILL),
            Action::Finished => self.finished = true,
        }
    }

    fn start(&mut self) -> Result<Pid> {
        self.state.ready(|| disk::mount_state(&self.disk), server::own_folder)?;
        server::configure(&self.settings, self.written)?;
        server::start(self.updates.most_level()).context("starting it")
    }

    fn tell(&self, signal: Signal) {
        if let Some(pid) = self.server {
            server::tell(pid, signal);
        }
    }

    /// Shows who stands before the machine how to join.
    fn invite(&mut self) {
        let lines = self.invitations.look(self.now(), |arguments| {
            self.dog.feed();
            server::ask(arguments)
        });
        if lines.is_empty() {
            return;
        }
        show("");
        for line in lines {
            show(&line);
        }
        show("Take [setup] out of tiebreaker.toml when everybody has joined.");
    }

    /// Ends everything. Never returns, but for what the kernel refuses.
    fn go_down(&mut self) {
        let mut ending = self.ending.unwrap_or(Ending::Restart);
        if ending == Ending::Trial
            && let Err(error) = self.updates.try_it(firmware::start_other_slot_once)
        {
            say(format_args!("UPDATE: it can't be tried: {error:#}"));
            ending = Ending::Restart;
        }
        say(format_args!("going down: {ending:?}"));
        self.pairing.end();
        if let Err(error) = disk::leave_state() {
            say(format_args!("{error:#}"));
        }
        let command = match ending {
            // The watchdog goes on: a restart that hangs is still one.
            Ending::Restart => RebootCommand::Restart,
            Ending::Trial => {
                say(format_args!("the kernel refuses to start the other slot: {}", sys::restart_with(c"0 tryboot")));
                RebootCommand::Restart
            }
            Ending::PowerOff => {
                self.dog.disarm();
                RebootCommand::PowerOff
            }
        };
        if let Err(error) = reboot(command) {
            say(format_args!("the kernel refuses to go down: {error}"));
            // It has no server any more, and shall not stay so.
            if ending == Ending::PowerOff && self.line.watchdog {
                self.dog = Dog::arm();
            }
        }
        self.finished = false;
    }
}

/// What the LED shows of a server, and of the settings.
fn light(works: bool, mistake: bool) -> Light {
    match (works, mistake) {
        (false, _) => Light::Starting,
        (true, true) => Light::Mistake,
        (true, false) => Light::Works,
    }
}

/// How far the folder of the server's state is.
#[derive(Default)]
struct StateFolder {
    /// What is mounted is refused a second time.
    mounted: bool,
    /// It is the server's.
    owned: bool,
}

impl StateFolder {
    /// Does what is still to be done.
    fn ready(&mut self, mount: impl FnOnce() -> Result<()>, own: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.mounted {
            mount()?;
            self.mounted = true;
        }
        if !self.owned {
            own()?;
            self.owned = true;
        }
        Ok(())
    }
}

fn words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "in a way that the kernel doesn't name".into(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_late_proof_ends_what_the_led_says_of_a_server_that_hangs() {
        let told = UnixDatagram::unbound().unwrap();
        for (mistake, then) in [(false, Light::Works), (true, Light::Mistake)] {
            let told = told.try_clone().unwrap();
            let mut machine = Machine::new(CommandLine::parse(""), Dog::none(), "mmcblk0".into(), told);
            (machine.mistake, machine.up) = (mistake, true);
            let s = Duration::from_secs;
            machine.supervisor.poll(s(0));
            machine.supervisor.handle(s(2), Event::Up);
            assert_eq!(machine.feed(s(3)), None);
            assert_eq!((machine.feed(s(30)), machine.feed(s(31))), (Some(Light::Starting), None));
            machine.supervisor.handle(s(32), Event::Proof);
            assert_eq!((machine.feed(s(32)), machine.feed(s(33))), (Some(then), None));
        }
    }

    #[test]
    fn what_is_mounted_is_not_mounted_again_though_the_next_step_fails() {
        let (mut state, mut mounts) = (StateFolder::default(), 0);
        let mut mount = || {
            mounts += 1;
            if mounts == 1 { bail!("the card is not there yet") } else { Ok(()) }
        };
        state.ready(&mut mount, || Ok(())).unwrap_err();
        assert!(!state.mounted && !state.owned);
        state.ready(&mut mount, || bail!("read-only")).unwrap_err();
        state.ready(&mut mount, || Ok(())).unwrap();
        state.ready(&mut mount, || bail!("it is owned")).unwrap();
        assert_eq!(mounts, 2);
    }
}
