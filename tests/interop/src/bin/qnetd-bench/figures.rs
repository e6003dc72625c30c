//! What is measured on loopback.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};
use tiebreaker_interop::{QdeviceClient, Soak, process};
use tiebreaker_qnetd::wire::{Algorithm, Message, MessageKind, Opt, RingId, Vote};

use crate::{
    Args,
    servers::{Rig, Whose, plain_name, secure_name, source},
    table::Table,
};

const SETTLES: Duration = Duration::from_secs(1);
const WARM_UP: usize = 20;
const PLAIN_CLUSTERS: usize = 1000;
const SECURE_CLUSTERS: usize = 200;
const VOTE_OF_MANY: &str = "vote, ffsplit, 1000 clusters, p50";
const VOTES: u64 = 300;
const LMS_VOTES: u64 = 3;
/// So many of a thousand clusters vote at the same time.
const AT_ONCE: usize = 20;
/// Each run is short, and their median counts: whatever else the machine does, it hardly does in most of them.
const ECHOES_FOR: Duration = Duration::from_secs(2);
const ECHO_RUNS: usize = 5;
const ECHOING: usize = 16;
const CONNECTS: usize = 1000;

/// What the original does for a message takes longer the more clients it holds. So long it may take others in, and so long
/// newcomers are counted; the table says how far it came.
const HOLDS_WITHIN: Duration = Duration::from_secs(180);
const CONNECTS_FOR: Duration = Duration::from_secs(30);

const KB: f64 = 1024.0;
const MB: f64 = KB * KB;

/// Two clients of a cluster that is whole.
struct Pair {
    clients: [QdeviceClient; 2],
    ring: u64,
}

impl Pair {
    fn form(rig: &Rig, cluster: &str, number: usize, algorithm: Algorithm, secure: bool) -> Result<Self> {
        let join = |node: u32| -> Result<QdeviceClient> {
            let mut client = QdeviceClient::connect(rig.address, source(number * 2))?;
            client.name(cluster)?;
            if secure {
                client = client.secure(rig.tls.as_ref().context("the server has TLS")?)?;
            }
            client.hurry(true);
            // The stock client's, where the time of a vote hangs on it; else long, as nobody here sends echoes.
            let heartbeat_ms = if algorithm == Algorithm::Lms { 8000 } else { 120_000 };
            client.join_with(node, algorithm, heartbeat_ms)?;
            client.configure(&[1, 2])?;
            Ok(client)
        };
        let mut pair = Self { clients: [join(1)?, join(2)?], ring: 1 };
        pair.vote()?;
        for client in &mut pair.clients {
            client.hurry(false);
        }
        Ok(pair)
    }

    /// Both tell a new ring of both.
    fn begin(&mut self) -> Result<([u32; 2], RingId)> {
        self.ring += 1;
        let ring = RingId { node: tiebreaker_qnetd::wire::NodeId(1), seq: self.ring };
        let [one, other] = &mut self.clients;
        Ok(([one.sees(ring, &[1, 2])?, other.sees(ring, &[1, 2])?], ring))
    }

    fn end(&mut self, asked: [u32; 2], ring: RingId) -> Result<()> {
        for (client, asked) in self.clients.iter_mut().zip(asked) {
            ensure!(client.voted(asked, ring)? == Vote::Ack, "a whole cluster has its vote");
        }
        Ok(())
    }

    fn vote(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let (asked, ring) = self.begin()?;
        self.end(asked, ring)?;
        Ok(begun.elapsed())
    }

    /// Each is alone from now on: one gets the vote, the other loses it.
    fn split(&mut self) -> Result<Duration> {
        self.ring += 2;
        let begun = Instant::now();
        let mut asked = Vec::new();
        for (client, node) in self.clients.iter_mut().zip(1..) {
            let ring = RingId { node: tiebreaker_qnetd::wire::NodeId(node), seq: self.ring };
            asked.push((client.sees(ring, &[node])?, ring));
        }
        let mut votes = Vec::new();
        // The loser first: until it has confirmed, the winner may have to wait.
        for (client, (asked, ring)) in self.clients.iter_mut().zip(asked).rev() {
            votes.push(client.voted(asked, ring)?);
        }
        ensure!(votes == [Vote::Nack, Vote::Ack], "the lower node wins a tie: {votes:?}");
        Ok(begun.elapsed())
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(mut times: Vec<Duration>) -> Result<f64> {
    times.sort_unstable();
    Ok(millis(*times.get(times.len() / 2).context("something was measured")?))
}

/// Measures one server.
pub fn measure(args: &Args, whose: Whose, table: &mut Table) -> Result<()> {
    if args.wants("idle memory") {
        idle(args, whose, table)?;
    }
    if args.wants("per TLS client") || args.wants("CPU per TLS handshake") {
        secure(args, whose, table)?;
    }
    let of_many = ["per plain client", VOTE_OF_MANY, "clients held", "connects per second there"];
    let plain = ["vote, ffsplit, 1 cluster, p50", "vote, lms", "echoes per second, 16 connections"];
    if plain.iter().chain(&of_many).any(|figure| args.wants(figure)) {
        plain_text(args, whose, &of_many, table)?;
    }
    Ok(())
}

fn idle(args: &Args, whose: Whose, table: &mut Table) -> Result<()> {
    let rig = Rig::start(args, whose, 1, 1)?;
    thread::sleep(SETTLES);
    let memory = process::memory(rig.pid()?)?;
    table.note(whose, "idle memory", memory.resident / MB);
    table.note(whose, "idle memory, of it pages of files", memory.files / MB);
    if let Some(appliance) = rig.appliance() {
        appliance.token("bench")?;
        thread::sleep(SETTLES * 3);
        table.note(whose, "idle memory, with a cluster of its own", process::memory(rig.pid()?)?.resident / MB);
    }
    Ok(())
}

fn secure(args: &Args, whose: Whose, table: &mut Table) -> Result<()> {
    let rig = Rig::start(args, whose, 1, SECURE_CLUSTERS + WARM_UP)?;
    let form = |number: usize| Pair::form(&rig, &secure_name(number), number, Algorithm::FfSplit, true);
    for number in 0..WARM_UP {
        form(SECURE_CLUSTERS + number)?;
    }
    thread::sleep(SETTLES);
    let (memory, cpu) = (process::memory(rig.pid()?)?, process::cpu(rig.pid()?)?);
    let pairs = (0..SECURE_CLUSTERS).map(form).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLES);
    let (memory_then, cpu_then) = (process::memory(rig.pid()?)?, process::cpu(rig.pid()?)?);
    let clients = pairs.len() as f64 * 2.0;
    table.note(whose, "per TLS client", (memory_then.resident - memory.resident) / clients / KB);
    table.note(whose, "CPU per TLS handshake", millis(cpu_then - cpu) / clients);
    Ok(())
}

fn plain_text(args: &Args, whose: Whose, of_many: &[&str], table: &mut Table) -> Result<()> {
    let held = usize::try_from(args.clients)?.div_ceil(2);
    let rig = Rig::start(args, whose, held.max(PLAIN_CLUSTERS) + WARM_UP + CONNECTS, 0)?;
    let form = |number: usize, algorithm| Pair::form(&rig, &plain_name(number), number, algorithm, false);
    let spare = held.max(PLAIN_CLUSTERS);
    for number in 0..WARM_UP {
        form(spare + number, Algorithm::FfSplit)?;
    }
    if args.wants("vote, ffsplit, 1 cluster, p50") {
        let mut pair = form(spare, Algorithm::FfSplit)?;
        let times = (0..VOTES).map(|_| pair.vote()).collect::<Result<Vec<_>>>()?;
        table.note(whose, "vote, ffsplit, 1 cluster, p50", median(times)?);
    }
    if args.wants("vote, lms") {
        let mut pair = form(spare + 1, Algorithm::Lms)?;
        for _ in 0..LMS_VOTES {
            table.note(whose, "vote, lms", millis(pair.split()?));
            pair.vote()?;
        }
    }
    if args.wants("echoes per second, 16 connections") {
        for run in 0..ECHO_RUNS {
            let from = spare + WARM_UP + run * ECHOING;
            table.note(whose, "echoes per second, 16 connections", echoes(&rig, from)?);
        }
    }
    if !of_many.iter().any(|figure| args.wants(figure)) {
        return Ok(());
    }
    thread::sleep(SETTLES);
    let before = process::memory(rig.pid()?)?;
    let mut pairs = (0..PLAIN_CLUSTERS).map(|number| form(number, Algorithm::FfSplit)).collect::<Result<Vec<_>>>()?;
    thread::sleep(SETTLES);
    let after = process::memory(rig.pid()?)?;
    table.note(whose, "per plain client", (after.resident - before.resident) / pairs.len() as f64 / 2.0 / KB);
    if args.wants(VOTE_OF_MANY) {
        table.note(whose, VOTE_OF_MANY, median(all_vote(&mut pairs)?)?);
    }
    if args.wants("clients held") || args.wants("connects per second there") {
        let begun = Instant::now();
        for number in PLAIN_CLUSTERS..held {
            if begun.elapsed() > HOLDS_WITHIN {
                args.say(&format!("{}: {number} clusters after {HOLDS_WITHIN:?}, no more are awaited", whose.name()));
                break;
            }
            pairs.push(form(number, Algorithm::FfSplit)?);
            // Who is silent for too long counts as dead.
            if number.is_multiple_of(500) {
                alive(&mut pairs)?;
            }
        }
        let alive = alive(&mut pairs)?;
        table.note(whose, "clients held", f64::from(alive));
        let (mut connects, begun) = (0_u32, Instant::now());
        for number in 0..CONNECTS {
            let mut client = QdeviceClient::connect(rig.address, source(number))?;
            client.name(&plain_name(spare + WARM_UP + number))?;
            client.join(1, Algorithm::FfSplit)?;
            connects += 1;
            if begun.elapsed() > CONNECTS_FOR {
                break;
            }
        }
        table.note(whose, "connects per second there", f64::from(connects) / begun.elapsed().as_secs_f64());
    }
    Ok(())
}

/// All give a sign of life. Gives how many there are.
fn alive(pairs: &mut [Pair]) -> Result<u32> {
    let mut count = 0;
    for client in pairs.iter_mut().flat_map(|pair| &mut pair.clients) {
        client.echo()?;
        count += 1;
    }
    Ok(count)
}

/// A part of the clusters at a time, each timed from its own first list to the second of its votes.
fn all_vote(pairs: &mut [Pair]) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for some in pairs.chunks_mut(AT_ONCE).take(usize::try_from(VOTES)? / AT_ONCE) {
        let mut begun = Vec::new();
        for pair in some.iter_mut() {
            let at = Instant::now();
            begun.push((at, pair.begin()?));
        }
        for (pair, (at, (asked, ring))) in some.iter_mut().zip(begun) {
            pair.end(asked, ring)?;
            times.push(at.elapsed());
        }
    }
    Ok(times)
}

/// Each connection has one echo under way.
fn echoes(rig: &Rig, from: usize) -> Result<f64> {
    let echo = Message::new(MessageKind::EchoRequest, vec![Opt::Seq(1)]).encode();
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut sockets: Vec<TcpStream> = Vec::new();
    for (number, key) in (0..ECHOING).zip(0_u64..) {
        let mut client = QdeviceClient::connect(rig.address, source(0))?;
        client.name(&plain_name(from + number))?;
        client.join(1, Algorithm::Test)?;
        let mut socket = client.into_socket()?;
        epoll::add(&poll, &socket, EventData::new_u64(key), EventFlags::IN)?;
        socket.write_all(&echo)?;
        sockets.push(socket);
    }
    let mut buffer = vec![0; echo.len()];
    let mut ready = Vec::with_capacity(ECHOING);
    let (mut count, begun) = (0_u32, Instant::now());
    while begun.elapsed() < ECHOES_FOR {
        ready.clear();
        epoll::wait(&poll, spare_capacity(&mut ready), None)?;
        for event in &ready {
            let socket = sockets.get_mut(usize::try_from(event.data.u64())?).context("one of them")?;
            socket.read_exact(&mut buffer)?;
            socket.write_all(&echo)?;
            count += 1;
        }
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// Our server's memory over rounds of all clients that come and go at random.
pub fn soak(args: &Args, rounds: u32) -> Result<bool> {
    let clients = usize::try_from(args.clients)?;
    let rig = Rig::start(args, Whose::Ours, clients.div_ceil(2), 0)?;
    let soak = Soak { server: rig.address, pid: rig.pid()?, clients, rounds, seed: 1 };
    let outcome = soak.run(plain_name, source, |line| args.say(line))?;
    if args.json {
        println!("{}", outcome.json());
    } else {
        println!("{outcome}");
    }
    Ok(outcome.returned())
}
