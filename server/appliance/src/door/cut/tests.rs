//! The work at fences with devices of the test, in virtual time.

use std::collections::BTreeMap;

use tiebreaker_fence::{DeviceError, Fault, Proof};
use tiebreaker_pipeline::state::Hold;
use tokio::sync::mpsc;

use super::*;
use crate::config::Config;
use crate::devices::Devices;
use crate::door::book::Book;
use crate::door::docket::{Entry, Wish};

/// What feeds a node, or its BMC.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Wired>>);

#[derive(Default)]
struct Wired {
    on: bool,
    dead: bool,
    /// It takes commands, and carries them out so much later.
    slow: Duration,
    /// Whoever tells it something gets no answer, though it is carried out.
    lost: bool,
    then: Option<(Instant, bool)>,
    told: Vec<PowerState>,
}

impl Wire {
    fn with<T>(&self, look: impl FnOnce(&mut Wired) -> T) -> T {
        let mut wired = self.0.lock().unwrap();
        if let Some((_, on)) = wired.then.filter(|(at, _)| Instant::now() >= *at) {
            (wired.on, wired.then) = (on, None);
        }
        look(&mut wired)
    }

    fn told(&self) -> Vec<PowerState> {
        self.with(|wired| wired.told.clone())
    }

    fn answer<T: Send + 'static>(
        &self,
        deadline: Instant,
        act: impl FnOnce(&mut Wired) -> T,
    ) -> BoxFuture<'_, Result<T, DeviceError>> {
        let answer = self.with(|wired| (!wired.dead).then(|| act(wired)));
        Box::pin(async move {
            if answer.is_none() {
                tokio::time::sleep_until(deadline).await;
            }
            sleep(Duration::from_millis(10)).await;
            answer.ok_or_else(|| DeviceError::new("a wire", Fault::Unreachable, "as the test wants"))
        })
    }

    fn switch(&self, on: bool, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        let lost = self.with(|wired| wired.lost);
        let told = self.answer(deadline, move |wired| {
            wired.told.push(if on { PowerState::On } else { PowerState::Off });
            wired.then = wired.then.or(Some((Instant::now() + wired.slow, on)));
        });
        Box::pin(async move {
            told.await?;
            if lost { Err(DeviceError::new("a wire", Fault::Unreachable, "the answer is lost")) } else { Ok(()) }
        })
    }
}

impl Device for Wire {
    fn name(&self) -> &'static str {
        "a wire"
    }

    fn sign(&self) -> OffSign {
        OffSign::Bmc
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        self.answer(deadline, |wired| if wired.on { PowerState::On } else { PowerState::Off })
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.switch(false, deadline)
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.switch(true, deadline)
    }

    fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        unreachable!("nothing is proven here")
    }
}

/// The trusted cluster of a and b, whose b has these devices, each on its level. All of them are proven.
struct Bench {
    shared: Arc<Shared>,
    book: Arc<Mutex<Book>>,
    ends: Arc<Mutex<Vec<Progress>>>,
    _root: tempfile::TempDir,
    _clerk: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(devices: &[(&str, u8, &Wire)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut text =
            "name = 'pi'\nlisten = ['[::]:1']\n[corosync.prod]\ntrusted = true\nnodes = { a = 1, b = 2 }\n".to_owned();
        for (number, (name, level, _)) in devices.iter().enumerate() {
            text += &format!(
                "[[corosync.prod.devices]]\nnode = 'b'\nname = '{name}'\nkind = 'shelly'\naddress = '192.0.2.{}:80'\n\
                 mac = 'A8032ABE54D{number}'\nno_password = true\ndrilled = true\nlevel = {level}\n",
                number + 1
            );
        }
        let name = "prod".parse().unwrap();
        let settings = Config::parse(&text, root.path()).unwrap().corosync[&name].clone();
        let (audit, _scribe) = crate::audit::Audit::start(root.path());
        let kept = Devices::new(&name, &settings.devices, audit.clone(), root.path()).unwrap();
        let mut book = Book::default();
        for managed in kept.all() {
            let (_, _, wire) = devices.iter().find(|(name, ..)| *name == managed.name()).unwrap();
            book.prove(managed.recipe(), true);
            kept.put(Managed::of(managed.recipe().clone(), Box::new((*wire).clone())));
        }
        let (notes, mut noted) = mpsc::channel(8);
        let health = Mutex::new(BTreeMap::new());
        let shared = Arc::new(Shared { name, settings, devices: kept, audit, votes: None, notes, health });
        let (book, ends) = (Arc::new(Mutex::new(book)), Arc::<Mutex<Vec<_>>>::default());
        let (kept, ended) = (Arc::clone(&book), Arc::clone(&ends));
        // A clerk who writes nothing down.
        let clerk = tokio::spawn(async move {
            while let Some(note) = noted.recv().await {
                let mut book = kept.lock().unwrap();
                match note {
                    Note::TellsOff { node, number, level, answer } => {
                        let _ = answer.send(book.tells_off(unix_ms(), &node, number, &level).map(drop));
                    }
                    Note::Off { node, number, level, how, answer } => {
                        let docket = &mut book.docket;
                        docket.landed(&node, number, &level);
                        let _ = answer.send(docket.off(unix_ms(), &node, number, how) == Some(true));
                    }
                    Note::TellsOn { node, number, answer } => {
                        let _ = answer.send(book.tells_on(unix_ms(), &node, number));
                    }
                    Note::Over { node, number, result } => {
                        book.docket.over(unix_ms(), &node, number, String::new());
                        ended.lock().unwrap().push(result);
                    }
                    Note::Look { answer } => drop(answer.send(book.clone())),
                    _ => {}
                }
            }
        });
        Self { shared, book, ends, _root: root, _clerk: clerk }
    }

    /// Enters a wish of a, and gives the fence that begins.
    fn open(&self, wish: Wish) -> Job {
        let (a, b) = names();
        let docket = &mut self.book.lock().unwrap().docket;
        assert_eq!(docket.open(unix_ms(), &a, vec![a.clone()], &b, wish), Entry::Opened);
        docket.get(&b).unwrap().clone()
    }

    fn hold(&self) {
        let hold = Hold { by: "root".into(), reason: Some("new cables".into()), at_ms: unix_ms() };
        self.book.lock().unwrap().hold(hold).unwrap();
    }

    fn release(&self) {
        self.book.lock().unwrap().release().unwrap();
    }

    /// Whether the fence of b is over and it was seen off.
    fn is_off(&self) -> bool {
        let book = self.book.lock().unwrap();
        matches!(book.docket.get(&names().1).unwrap().stage, Stage::Over { off: Some(_), .. })
    }

    /// Works at a fence to its end, and gives that.
    async fn work(&self, job: Job, left: Duration) -> Option<Progress> {
        let (_stop, stopped) = watch::channel(false);
        work(Arc::clone(&self.shared), names().1, job, left, Turn { before: None, stopped }).await;
        // What it told the clerk was taken when a later question is answered.
        self.shared.book().await.unwrap();
        self.ends.lock().unwrap().pop()
    }
}

fn names() -> (MemberName, MemberName) {
    ("a".parse().unwrap(), "b".parse().unwrap())
}

const OFF: Wish = Wish::Off { then_on: false };
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn what_was_told_on_a_moment_ago_is_off_only_when_it_still_is_after_that() {
    let bmc = Wire::default();
    bmc.with(|wired| wired.slow = Duration::from_secs(5));
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(Wish::On);
    assert_eq!(bench.shared.may_tell_on(&names().1, job.number).await, Ok(()));
    bmc.on(Instant::now() + MINUTE).await.unwrap();
    let job = bench.open(OFF);
    bench.work(job, MINUTE).await;
    assert!(bench.book.lock().unwrap().docket.active().next().is_none(), "it was called off");
    assert!(bmc.with(|wired| !wired.on && wired.then.is_none()), "and runs");
    assert_eq!(bmc.told(), [PowerState::On, PowerState::Off]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_levels_were_told_is_remembered() {
    // It takes the command, and the fence's time is over first.
    let bmc = Wire::default();
    bmc.with(|wired| (wired.on, wired.slow) = (true, Duration::from_secs(70)));
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(OFF);
    let end = bench.work(job, MINUTE).await;
    assert!(matches!(end, Some(Progress::Failed(_))), "{end:?}");
    let (a, b) = names();
    let mirror = bench.book.lock().unwrap().docket.open(unix_ms(), &b, vec![b.clone()], &a, OFF);
    assert!(matches!(mirror, Entry::Refused(_)), "{mirror:?}");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_dead_keeps_no_other_from_giving_power() {
    // Two outlets are the first level, the BMC behind them the next; its own is dead.
    let wires: [Wire; 4] = Default::default();
    let [left, right, bmc, spare] = &wires;
    spare.with(|wired| wired.dead = true);
    let bench = Bench::new(&[("left", 1, left), ("right", 1, right), ("bmc", 2, bmc), ("spare", 3, spare)]);
    let job = bench.open(Wish::On);
    let end = bench.work(job, MINUTE).await;
    let Some(Progress::Failed(why)) = end else { panic!("{end:?}") };
    assert!(why.starts_with("b/spare could not give the power back") && !why.contains("bmc"), "{why}");
    for wire in [left, right, bmc] {
        assert_eq!(wire.told(), [PowerState::On]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_fed_by_another_answers_once_that_has_power() {
    let (outlet, bmc) = (Wire::default(), Wire::default());
    bmc.with(|wired| wired.dead = true);
    // The outlet is cut first here, and so the last to give power.
    let bench = Bench::new(&[("outlet", 1, &outlet), ("bmc", 2, &bmc)]);
    let job = bench.open(Wish::On);
    let fed = async {
        while outlet.told().is_empty() {
            sleep(SPACING).await;
        }
        bmc.with(|wired| wired.dead = false);
    };
    let (end, ()) = tokio::join!(bench.work(job, MINUTE), fed);
    assert!(matches!(end, Some(Progress::On(_))), "{end:?}");
    assert_eq!((outlet.told(), bmc.told()), (vec![PowerState::On], vec![PowerState::On]));
}

#[tokio::test(start_paused = true)]
async fn who_gives_power_back_ends_before_the_next_fence_begins() {
    let bmc = Wire::default();
    bmc.with(|wired| wired.dead = true);
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let (stop, stopped) = watch::channel(false);
    let turn = Turn { before: None, stopped };
    let first = tokio::spawn(work(Arc::clone(&bench.shared), names().1, bench.open(Wish::On), MINUTE, turn));
    sleep(Duration::from_secs(1)).await;
    // Its read goes on for a while; the BMC answers others meanwhile, and the next fence calls the node off.
    bmc.with(|wired| wired.dead = false);
    let job = bench.open(OFF);
    stop.send_replace(true);
    let (_stop, stopped) = watch::channel(false);
    work(Arc::clone(&bench.shared), names().1, job, MINUTE, Turn { before: Some(stop), stopped }).await;
    assert!(first.is_finished(), "two work at one node's power");
    assert!(bench.book.lock().unwrap().docket.active().next().is_none(), "it was called off");
    sleep(MINUTE).await;
    assert_eq!(bmc.told(), [], "and is told on");
}

const HELD: &str = "the switching of power is held by root (new cables): `tiebreaker-server corosync release prod` ends that; if b is \
                    off for certain, tell Pacemaker: `stonith_admin --confirm b`";

#[tokio::test(start_paused = true)]
async fn a_fence_that_has_told_nothing_is_given_up_when_power_is_held() {
    let bmc = Wire::default();
    bmc.with(|wired| wired.on = true);
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(OFF);
    bench.hold();
    let end = bench.work(job, MINUTE).await;
    let Some(Progress::Failed(why)) = end else { panic!("{end:?}") };
    assert_eq!(why, format!("it was given up before a command was sent: {HELD}"));
    assert_eq!(bmc.told(), []);
}

#[tokio::test(start_paused = true)]
async fn what_reads_off_by_itself_is_off_though_power_is_held() {
    let bmc = Wire::default();
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(OFF);
    bench.hold();
    assert_eq!(bench.work(job, MINUTE).await, None);
    assert!(bench.is_off() && bmc.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_told_off_before_power_was_held_is_looked_at_and_told_nothing_more() {
    let bmc = Wire::default();
    bmc.with(|wired| (wired.on, wired.lost, wired.slow) = (true, true, Duration::from_secs(10)));
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(OFF);
    let held = async {
        sleep(Duration::from_secs(1)).await;
        bench.hold();
        bmc.told()
    };
    let (end, told) = tokio::join!(bench.work(job, MINUTE), held);
    assert_eq!(end, None);
    assert!(bench.is_off(), "it was carried out, and nobody saw it");
    assert!(!told.is_empty());
    assert_eq!(bmc.told(), told, "it is held");
}

#[tokio::test(start_paused = true)]
async fn the_next_level_is_looked_at_too_while_power_is_held() {
    // The first one never carries it out; a person pulls the cord.
    let (bmc, outlet) = (Wire::default(), Wire::default());
    bmc.with(|wired| (wired.on, wired.lost, wired.slow) = (true, true, MINUTE * 10));
    outlet.with(|wired| wired.on = true);
    let bench = Bench::new(&[("bmc", 1, &bmc), ("outlet", 2, &outlet)]);
    let job = bench.open(OFF);
    let held = async {
        sleep(Duration::from_secs(1)).await;
        bench.hold();
        sleep(Duration::from_secs(25)).await;
        outlet.with(|wired| wired.on = false);
    };
    let (end, ()) = tokio::join!(bench.work(job, MINUTE), held);
    assert_eq!(end, None);
    assert!(bench.is_off() && outlet.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn power_is_given_back_once_it_is_held_no_more() {
    let bmc = Wire::default();
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let job = bench.open(Wish::On);
    bench.hold();
    let released = async {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(bmc.told(), []);
        bench.release();
    };
    let (end, ()) = tokio::join!(bench.work(job, MINUTE), released);
    assert!(matches!(end, Some(Progress::On(_))), "{end:?}");
    assert_eq!(bmc.told(), [PowerState::On]);
    // Where nobody releases it, its time ends it.
    bmc.with(|wired| wired.on = false);
    let job = bench.open(Wish::On);
    bench.hold();
    let end = bench.work(job, MINUTE).await;
    let Some(Progress::Failed(why)) = end else { panic!("{end:?}") };
    assert!(why.contains(HELD), "{why}");
    assert_eq!(bmc.told(), [PowerState::On]);
}

#[tokio::test(start_paused = true)]
async fn another_fence_that_has_begun_ends_this_one_held_or_not() {
    let bmc = Wire::default();
    let bench = Bench::new(&[("bmc", 1, &bmc)]);
    let former = bench.open(Wish::On);
    bench.open(OFF);
    bench.hold();
    let end = bench.work(former, MINUTE).await;
    assert_eq!(end, Some(Progress::Failed(ANOTHER.to_owned())));
}
