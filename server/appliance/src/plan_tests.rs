//! Whole fences by plans of several levels: the real fencer over the appliance's devices, in virtual time. Each trouble of each
//! device: in no case is a node called off that runs, and in every case of trouble it is said which level failed and why.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tiebreaker_fence::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof};
use tiebreaker_pipeline::command::{Command, ENTRY_VERSION, Entry};
use tiebreaker_pipeline::fence::{Evidence, FenceReason, Progress};
use tiebreaker_pipeline::fencer::{Action, Event, Fencer};
use tiebreaker_pipeline::level::Level;
use tiebreaker_pipeline::name::{ClusterName, MemberName};
use tiebreaker_pipeline::report::Capacity;
use tiebreaker_pipeline::state::{DeviceStatus, Role, State};
use tiebreaker_pipeline::time::Reading;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::audit::Audit;
use crate::config::Config;
use crate::devices::{Devices, Managed};

/// What a device does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    None,
    /// It takes "off" and does nothing.
    Stuck,
    /// It takes "off" and does it after so many seconds.
    Slow(u64),
    /// It doesn't answer.
    Unreachable,
    /// It refuses to switch.
    Refusing,
    /// It goes off, and so many seconds later on again by itself.
    Returns(u64),
}

struct Wired {
    trouble: Trouble,
    on: bool,
    /// When it is to change by itself, and to what.
    then: Option<(Instant, bool)>,
    told: Vec<PowerState>,
}

/// A feed of the node, or its BMC.
#[derive(Clone)]
struct Part {
    wired: Arc<Mutex<Wired>>,
    sign: OffSign,
}

impl Part {
    fn new(trouble: Trouble) -> Self {
        let wired = Arc::new(Mutex::new(Wired { trouble, on: true, then: None, told: Vec::new() }));
        Self { wired, sign: OffSign::Bmc }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Wired) -> T) -> T {
        let mut wired = self.wired.lock().unwrap();
        if let Some((_, on)) = wired.then.filter(|(at, _)| Instant::now() >= *at) {
            (wired.on, wired.then) = (on, None);
        }
        look(&mut wired)
    }

    fn is_on(&self) -> bool {
        self.with(|wired| wired.on)
    }

    fn told(&self) -> Vec<PowerState> {
        self.with(|wired| wired.told.clone())
    }

    fn answer<T>(
        &self,
        deadline: Instant,
        act: impl FnOnce(&mut Wired) -> Result<T, Fault>,
    ) -> BoxFuture<'_, Result<T, DeviceError>>
    where
        T: Send + 'static,
    {
        let unreachable = self.with(|wired| wired.trouble == Trouble::Unreachable);
        let answer = if unreachable { Err(Fault::Unreachable) } else { self.with(act) };
        Box::pin(async move {
            if unreachable {
                sleep_until(deadline).await;
            }
            sleep(Duration::from_millis(30)).await;
            answer.map_err(|fault| DeviceError::new("a wire", fault, "as the test wants"))
        })
    }
}

impl Device for Part {
    fn name(&self) -> &'static str {
        "a wire"
    }

    fn sign(&self) -> OffSign {
        self.sign
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        self.answer(deadline, |wired| Ok(if wired.on { PowerState::On } else { PowerState::Off }))
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.answer(deadline, |wired| {
            wired.told.push(PowerState::Off);
            let after = |s| Instant::now() + Duration::from_secs(s);
            match wired.trouble {
                Trouble::Refusing => return Err(Fault::Refused),
                Trouble::Stuck | Trouble::Unreachable => {}
                Trouble::None => wired.on = false,
                // Said again, it begins no later.
                Trouble::Slow(seconds) if wired.then.is_none() => wired.then = Some((after(seconds), false)),
                Trouble::Slow(_) => {}
                Trouble::Returns(seconds) => {
                    wired.on = false;
                    wired.then = Some((after(seconds), true));
                }
            }
            Ok(())
        })
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.answer(deadline, |wired| {
            wired.told.push(PowerState::On);
            (wired.on, wired.then) = (true, None);
            Ok(())
        })
    }

    fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        unreachable!("nothing is proven here")
    }
}

/// What isn't proven by then never is.
const LONG: Duration = Duration::from_secs(240);

/// A node with two supplies, each on an outlet of its own, and a BMC: the outlets are its plan's first level.
struct Bench {
    devices: Devices,
    feeds: [Part; 2],
    bmc: Part,
    root: tempfile::TempDir,
}

/// How a fence went.
struct Fenced {
    /// What proved it, and after how long; nothing if nothing did.
    proof: Option<(Evidence, Duration)>,
    /// What was said of failures.
    failures: Vec<String>,
}

impl Bench {
    fn new(feeds: [Trouble; 2], bmc: Trouble) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("clusters/home")).unwrap();
        let (feeds, bmc) = (feeds.map(Part::new), Part::new(bmc));
        let devices = configured(root.path(), &[("psu-a", 1, &feeds[0]), ("psu-b", 1, &feeds[1]), ("bmc", 2, &bmc)]);
        Self { devices, feeds, bmc, root }
    }

    fn node_runs(&self) -> bool {
        self.bmc.is_on() && self.feeds.iter().any(Part::is_on)
    }

    /// One fence, until it is closed or for as long as any of these takes.
    async fn fence(&self) -> Fenced {
        self.fence_judged(|_| true).await
    }

    /// The same with a leader that takes the word of devices where `believes` says so.
    async fn fence_judged(&self, believes: impl Fn(&Evidence) -> bool) -> Fenced {
        let (mut state, begun) = (wanted(&self.devices), Instant::now());
        let mut fencer = Fencer::new(0, Default::default());
        let (done, mut results) = mpsc::unbounded_channel();
        let mut fenced = Fenced { proof: None, failures: Vec::new() };
        while begun.elapsed() < LONG && state.fences.values().any(|fence| fence.is_open()) {
            let now = || Reading::both(u64::try_from(begun.elapsed().as_nanos()).unwrap());
            fencer.advance(now(), &state);
            while let Some(action) = fencer.poll_action() {
                match action {
                    Action::Read(token) => fencer.handle(now(), &state, Event::ReadDone(token, true)),
                    Action::Command { token, node, device, command, .. } => {
                        let (devices, done) = (self.devices.clone(), done.clone());
                        tokio::spawn(async move {
                            let result = devices.carry_out_for(&node, &device, command).await;
                            let _ = done.send((token, result));
                        });
                    }
                    Action::Propose(command) => {
                        match &command {
                            Command::Fenced { evidence, .. } if !believes(evidence) => continue,
                            Command::Fenced { evidence, .. } if fenced.proof.is_none() => {
                                assert!(!self.node_runs(), "called off by {evidence:?}, and it runs");
                                fenced.proof = Some((evidence.clone(), begun.elapsed()));
                            }
                            Command::FenceFailed { why, .. } => fenced.failures.push(why.clone()),
                            _ => {}
                        }
                        apply(&mut state, command);
                    }
                }
            }
            let next = fencer.poll_timeout().map_or(begun + LONG, |at| {
                begun + Duration::from_nanos(at.boottime_ns).max(begun.elapsed() + Duration::from_millis(1))
            });
            if let Ok(Some((token, result))) = timeout_at(next, results.recv()).await {
                fencer.handle(now(), &state, Event::CommandDone(token, result));
            }
        }
        let proven = state.fences.values().all(|fence| matches!(fence.progress, Progress::Closed { .. }));
        assert_eq!(proven, fenced.proof.is_some(), "what is proven ends");
        fenced
    }
}

/// Devices of `node1` by these names, on these levels.
fn configured(root: &Path, parts: &[(&str, u8, &Part)]) -> Devices {
    let mut text = "name = \"pi\"\nlisten = [\"[::]:1\"]\n".to_owned();
    for (number, (name, level, _)) in parts.iter().enumerate() {
        text += &format!(
            "[[clusters.home.devices]]\nnode = \"node1\"\nname = \"{name}\"\nkind = \"shelly\"\naddress = \"192.0.2.{}:80\"\n\
             mac = \"A8032ABE54D{number}\"\nno_password = true\ndrilled = true\nlevel = {level}\n",
            number + 1
        );
    }
    let cluster: ClusterName = "home".parse().unwrap();
    let config = Config::parse(&text, root).unwrap().cluster(&cluster);
    let (audit, _scribe) = Audit::start(root);
    let devices = Devices::new(&cluster, &config, audit, root).unwrap();
    for recipe in config.devices {
        let (_, _, part) = parts.iter().find(|(name, ..)| *name == recipe.name).unwrap();
        devices.put(Managed::of(recipe, Box::new((*part).clone())));
    }
    devices
}

fn apply(state: &mut State, command: Command) {
    let entry = Entry { version: ENTRY_VERSION, ticket: 0, at_ms: 0, command };
    // Who proposes something twice is refused the second time.
    let _ = state.apply(state.applied + 1, entry);
}

/// A cluster whose node1 is to be fenced, by devices that are all proven.
fn wanted(devices: &Devices) -> State {
    let mut state = State::new("home".parse().unwrap(), "pi".parse().unwrap(), Vec::new(), String::new());
    let node = || "node1".parse::<MemberName>().unwrap();
    let plan: Vec<DeviceStatus> =
        devices.levels().iter().map(|level| DeviceStatus { proven: true, why: None, ..level.status(&[]) }).collect();
    for command in [
        Command::AddMember { name: node(), role: Role::Node, addresses: Vec::new(), key: "aa".into() },
        Command::SetDevices { node: node(), devices: plan },
        Command::Admit {
            node: node(),
            incarnation: 1,
            boot: "one".into(),
            watchdog: None,
            machine: None,
            closed: 0,
            capacity: Capacity::default(),
            booted_in_ms: 0,
        },
        Command::FenceWanted { node: node(), incarnation: 1, reason: FenceReason::Lost { silent_ms: 2_000 } },
    ] {
        apply(&mut state, command);
    }
    state.level = Level::KNOWN;
    assert!(state.fences.values().any(|fence| fence.is_open()), "{state:?}");
    state
}

const FIRST: &str = "psu-a+psu-b";

#[tokio::test(start_paused = true)]
async fn row_45_both_supplies_are_cut_and_the_next_level_is_left_alone() {
    let bench = Bench::new([Trouble::None; 2], Trouble::None);
    let fenced = bench.fence().await;
    let (evidence, after) = fenced.proof.unwrap();
    assert_eq!(evidence, Evidence::BmcOff { device: FIRST.into() });
    assert!(after < Duration::from_secs(5), "{after:?}");
    for feed in &bench.feeds {
        assert_eq!(feed.told(), [PowerState::Off, PowerState::On]);
    }
    assert_eq!((bench.bmc.told(), fenced.failures), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn no_trouble_of_any_device_of_any_level_calls_a_running_node_off_and_the_next_level_follows() {
    use Trouble::{None, Refusing, Returns, Slow, Stuck, Unreachable};
    let troubles = [None, Stuck, Slow(8), Slow(50), Unreachable, Refusing, Returns(1), Returns(60)];
    for a in troubles {
        for b in [None, Stuck, Slow(8), Unreachable] {
            for bmc in [None, Stuck, Refusing] {
                let name = format!("{a:?} {b:?} {bmc:?}");
                // That nothing is called off that runs, the bench looks at itself.
                let bench = Bench::new([a, b], bmc);
                let fenced = bench.fence().await;
                let works = |trouble| matches!(trouble, None | Slow(8) | Returns(60));
                let at_once = |trouble| matches!(trouble, None | Returns(_));
                let by = fenced.proof.as_ref().map(|(evidence, _)| match evidence {
                    Evidence::BmcOff { device } => device.as_str(),
                    other => panic!("{name}: {other:?}"),
                });
                if works(a) && works(b) || at_once(a) && at_once(b) {
                    assert_eq!(by, Some(FIRST), "{name}");
                    continue;
                }
                assert!(fenced.failures.iter().any(|why| why.starts_with("psu-")), "{name}: {:?}", fenced.failures);
                if bmc == None {
                    // The next level follows, or the first one's commands are carried out after all.
                    assert!(by.is_some(), "{name}: {:?}", fenced.failures);
                } else if [a, b].iter().any(|trouble| matches!(trouble, Stuck | Unreachable | Refusing)) {
                    assert_eq!(by, Option::None, "{name}");
                    assert!(
                        fenced.failures.iter().any(|why| why.starts_with("bmc: ")),
                        "{name}: {:?}",
                        fenced.failures
                    );
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_level_follows_after_the_time_that_was_learned() {
    let bench = Bench::new([Trouble::None; 2], Trouble::None);
    for _ in 0..3 {
        assert!(bench.fence().await.proof.is_some());
    }
    let first = bench.devices.find_level("node1", Some(FIRST)).unwrap();
    let learned = bench.devices.times.off_ms(&first).unwrap();
    assert!((1..1_000).contains(&learned), "{learned}");
    bench.feeds[1].with(|wired| wired.trouble = Trouble::Stuck);
    let fenced = bench.fence().await;
    let (evidence, after) = fenced.proof.unwrap();
    assert_eq!(evidence, Evidence::BmcOff { device: "bmc".into() });
    assert!(after > Duration::from_secs(5) && after < Duration::from_secs(8), "{after:?}");
    assert!(fenced.failures.iter().any(|why| why.contains("still reads on; it took 0.")), "{:?}", fenced.failures);
    // No result of a fence has waited for the card; it is written once that is told.
    let file = bench.root.path().join("clusters/home/device-times.json");
    assert!(!file.exists());
    bench.devices.times.keep().await;
    assert!(file.exists());
    // What somebody else's level did to it taught nothing, and it is still known after a restart.
    let parts = [("psu-a", 1, &bench.feeds[0]), ("psu-b", 1, &bench.feeds[1]), ("bmc", 2, &bench.bmc)];
    let again = configured(bench.root.path(), &parts);
    assert_eq!(again.times.off_ms(&again.find_level("node1", Some(FIRST)).unwrap()), Some(learned));
    let alone = configured(bench.root.path(), &parts[..1]);
    assert_eq!(alone.times.off_ms(&alone.find_level("node1", None).unwrap()), None, "it is another level now");
}

#[tokio::test(start_paused = true)]
async fn what_nothing_is_known_of_gets_half_a_minute_and_what_was_seen_to_be_slow_its_time() {
    // Two levels: the first is slow.
    let (slow, other) = (Part::new(Trouble::Slow(45)), Part::new(Trouble::Stuck));
    let bench = Bench::new([Trouble::None; 2], Trouble::None);
    let parts = [("psu-a", 1, &slow), ("psu-b", 2, &other)];
    let bench =
        Bench { devices: configured(bench.root.path(), &parts), feeds: [slow.clone(), slow], bmc: other, ..bench };
    let first = bench.devices.find_level("node1", Some("psu-a")).unwrap();
    let fenced = bench.fence().await;
    assert!(fenced.failures.iter().any(|why| why.contains("nobody knows yet")), "{:?}", fenced.failures);
    assert_eq!(bench.devices.times.off_ms(&first), None, "another level was told meanwhile: it may have been that one");
    // A drill would have found out.
    bench.devices.times.told_off(Instant::now() - Duration::from_secs(45), &first, true);
    bench.devices.times.reads_off(Instant::now(), &first);
    bench.devices.times.is_over(&first);
    let before = bench.bmc.told().len();
    let fenced = bench.fence().await;
    let (evidence, after) = fenced.proof.unwrap();
    assert_eq!((evidence, fenced.failures), (Evidence::BmcOff { device: "psu-a".into() }, vec![]));
    assert!(after > Duration::from_secs(45) && after < Duration::from_secs(50), "{after:?}");
    assert_eq!(bench.bmc.told().len(), before, "it was waited for");
}

#[tokio::test(start_paused = true)]
async fn row_44_a_wrong_map_freezes_the_plan_whatever_the_device_and_whatever_becomes_of_it() {
    // The leader hears the fenced node, or misses another one: it takes no device's word.
    for sign in [OffSign::Bmc, OffSign::Meter, OffSign::Led, OffSign::Relay, OffSign::Program] {
        for then in [Trouble::None, Trouble::Returns(20), Trouble::Unreachable] {
            let bench = Bench::new([Trouble::None; 2], Trouble::None);
            let mut feeds = bench.feeds.clone();
            feeds[0].sign = sign;
            let parts = [("psu-a", 1, &feeds[0]), ("psu-b", 1, &feeds[1]), ("bmc", 2, &bench.bmc)];
            let bench = Bench { devices: configured(bench.root.path(), &parts), ..bench };
            if matches!(then, Trouble::Returns(_)) {
                feeds[0].with(|wired| wired.trouble = then);
            }
            let asked = Mutex::new(Vec::new());
            let fence = bench.fence_judged(|evidence| {
                asked.lock().unwrap().push(evidence.grade());
                // It doesn't answer any more from here on.
                feeds[1].with(|wired| wired.trouble = if then == Trouble::Unreachable { then } else { wired.trouble });
                false
            });
            let fenced = fence.await;
            let name = format!("{sign:?} {then:?}");
            assert_eq!(fenced.proof, None, "{name}");
            let asked = asked.into_inner().unwrap();
            // The grade is that of the weaker of the two.
            let grade = Evidence::read_off(word_of(sign), FIRST.into()).grade();
            assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == grade), "{name}: {asked:?}");
            assert_eq!(bench.bmc.told(), [], "{name}: the next level is left alone");
            for feed in &feeds {
                assert_eq!(feed.told(), [PowerState::Off], "{name}: nothing is told twice");
            }
            let said = match then {
                Trouble::Returns(_) => "it read off and reads on again",
                Trouble::Unreachable => "psu-b: ",
                _ => continue,
            };
            assert!(fenced.failures.iter().any(|why| why.starts_with(said)), "{name}: {:?}", fenced.failures);
        }
    }
}

fn word_of(sign: OffSign) -> tiebreaker_pipeline::fence::OffSign {
    use tiebreaker_pipeline::fence::OffSign as Word;
    match sign {
        OffSign::Bmc => Word::Bmc,
        OffSign::Meter => Word::Meter,
        OffSign::Led => Word::Led,
        OffSign::Relay => Word::Relay,
        OffSign::Program => Word::Program,
    }
}
