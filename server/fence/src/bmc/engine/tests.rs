//! The BMC's own rules, with time and datagrams by hand.

use std::sync::atomic::{AtomicU32, Ordering};

use ipmi_rs_core::connection::Message;

use super::*;
use crate::{
    ChassisError, IpmiConfig,
    ipmi::{
        command::{ChassisControl, CloseSession, SetSessionPrivilege},
        login::{Login, Seed, Step},
        message::LanReply,
        rakp::ReplyHead,
        session::Session,
    },
};

/// Counts how often it was switched.
#[derive(Default)]
struct Counter(AtomicU32);

impl Chassis for Counter {
    fn power(&self) -> PowerState {
        PowerState::On
    }
    fn set_power(&self, _: PowerState) -> Result<(), ChassisError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

struct Rig {
    engine: Engine,
    chassis: Counter,
    now: Instant,
    drawn: u32,
}

fn config() -> IpmiConfig {
    IpmiConfig {
        address: ([127, 0, 0, 1], 623).into(),
        user: UserName::new("tb").unwrap(),
        password: Secret::new("pw").unwrap(),
        suite: Suite::Sha256,
        kg: None,
        privilege: Privilege::Operator,
    }
}

impl Rig {
    fn new() -> Self {
        let IpmiConfig { user, password, .. } = config();
        let accounts = vec![Account { user, password, limit: Privilege::Operator }];
        Self {
            engine: Engine::new(accounts, None, [4; 16]),
            chassis: Counter::default(),
            now: Instant::now(),
            drawn: 0,
        }
    }

    fn ask(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        self.drawn += 1;
        let random = [u8::try_from(self.drawn % 256).unwrap(); 16];
        let dice = Dice { session_id: 7, random, iv: [3; 16] };
        self.engine.handle(self.now, dice, &self.chassis, request).unwrap().map(|reply| reply.datagram)
    }

    /// The messages that a console sent, and what came of them.
    fn login(&mut self, console_id: u32) -> (Vec<Vec<u8>>, Result<Box<Session>, Status>) {
        let config = config();
        let (mut login, mut message) = Login::start(&config, Seed { tag: 9, console_id, random: [1; 16] });
        let mut sent = vec![];
        loop {
            let reply = self.ask(&message).unwrap();
            sent.push(message);
            match login.receive(&reply) {
                Step::Send(next) => message = next,
                Step::Done(session) => return (sent, Ok(session)),
                Step::Skip(what) => panic!("{what}"),
                Step::Fail(_) => return (sent, Err(status(&reply))),
            }
        }
    }

    fn run(&mut self, session: &mut Session, command: impl Into<Message>) -> LanReply {
        let (awaited, request) = session.request(&command.into(), [5; 16]).unwrap();
        let reply = self.ask(&request).unwrap();
        session.receive(awaited, &reply).unwrap()
    }
}

/// The status in a login reply.
fn status(reply: &[u8]) -> Status {
    ReplyHead::parse(&reply[16..]).unwrap().status
}

#[test]
fn a_session_switches_nothing_before_it_has_the_privilege() {
    let mut rig = Rig::new();
    let mut session = rig.login(1).1.unwrap();
    assert_eq!(rig.run(&mut session, ChassisControl(PowerState::Off)).code, code::NO_PRIVILEGE);
    assert_eq!(rig.run(&mut session, SetSessionPrivilege(Privilege::Administrator)).code, code::ABOVE_LIMIT);
    assert_eq!(rig.chassis.0.load(Ordering::SeqCst), 0);
    assert_eq!(rig.run(&mut session, SetSessionPrivilege(Privilege::Operator)).code, code::OK);
    assert_eq!(rig.run(&mut session, ChassisControl(PowerState::Off)).code, code::OK);
    assert_eq!(rig.chassis.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_console_that_does_not_know_the_password_gets_no_session() {
    let mut rig = Rig::new();
    let mut sent = rig.login(1).0;
    // The same conversation with another console, up to the message that proves the password.
    let mut rig = Rig::new();
    rig.ask(&sent[0]).unwrap();
    rig.ask(&sent[1]).unwrap();
    let good = sent[2].clone();
    *sent[2].last_mut().unwrap() ^= 1;
    assert_eq!(status(&rig.ask(&sent[2]).unwrap()), Status::INVALID_CHECK_VALUE);
    assert_eq!(status(&rig.ask(&good).unwrap()), Status::INVALID_SESSION, "the slot is gone");
    assert!(rig.engine.slots.is_empty());
}

#[test]
fn a_message_sent_again_has_the_same_answer() {
    let mut rig = Rig::new();
    let config = config();
    let (mut login, mut message) = Login::start(&config, Seed { tag: 9, console_id: 1, random: [1; 16] });
    // Each datagram draws other random numbers, so an answer made anew would differ.
    loop {
        let reply = rig.ask(&message).unwrap();
        assert_eq!(rig.ask(&message).unwrap(), reply);
        match login.receive(&reply) {
            Step::Send(next) => message = next,
            Step::Done(_) => break,
            Step::Skip(_) | Step::Fail(_) => panic!("an honest login goes through"),
        }
    }
    assert_eq!(rig.engine.slots.len(), 1);
    let mut forged = message;
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(rig.ask(&forged), None, "an open session answers no wrong proof");
}

#[test]
fn sessions_are_bounded_and_the_idle_ones_end() {
    let mut rig = Rig::new();
    let mut sessions: Vec<_> = (1..=8).map(|console_id| rig.login(console_id).1.unwrap()).collect();
    assert_eq!(rig.login(9).1.err(), Some(Status::NO_RESOURCES));
    rig.now += IDLE - Duration::from_secs(1);
    assert_eq!(rig.login(9).1.err(), Some(Status::NO_RESOURCES));
    // The one that speaks stays.
    assert_eq!(rig.run(&mut sessions[0], SetSessionPrivilege(Privilege::User)).code, code::OK);
    rig.now += Duration::from_secs(1);
    assert!(rig.login(9).1.is_ok());
    assert_eq!(rig.engine.slots.len(), 2);
}

#[test]
fn half_open_sessions_end_sooner() {
    let mut rig = Rig::new();
    for console_id in 1..=8 {
        let (_, open) = Login::start(&config(), Seed { tag: 0, console_id, random: [0; 16] });
        assert_eq!(status(&rig.ask(&open).unwrap()), Status::OK);
    }
    assert_eq!(rig.login(9).1.err(), Some(Status::NO_RESOURCES));
    rig.now += HALF_OPEN;
    assert!(rig.login(9).1.is_ok());
}

#[test]
fn a_session_closes_itself_and_no_other() {
    let mut rig = Rig::new();
    let mut one = rig.login(1).1.unwrap();
    let two = rig.login(2).1.unwrap();
    assert_eq!(rig.run(&mut one, CloseSession(two.bmc_id())).code, code::NO_SESSION);
    let own = one.bmc_id();
    assert_eq!(rig.run(&mut one, CloseSession(own)).code, code::OK);
    assert_eq!(rig.engine.slots.keys().copied().collect::<Vec<_>>(), [two.bmc_id()]);
}

#[test]
fn without_a_session_nothing_is_switched() {
    let mut rig = Rig::new();
    // Chassis Control, power down, as a plain message in both framings.
    let message = [0x20, 0x00, 0xE0, 0x81, 0x00, 0x02, 0x00, 0x7D];
    for request in [plain_15(&message), sessionless(PayloadType::Ipmi, &message)] {
        let reply = rig.ask(&request).unwrap();
        assert_eq!(reply[reply.len() - 2], code::NO_PRIVILEGE, "{reply:02x?}");
    }
    assert_eq!(rig.chassis.0.load(Ordering::SeqCst), 0);
}
