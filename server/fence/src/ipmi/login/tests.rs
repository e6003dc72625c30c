//! Hostile replies at every stage of a login and inside the session, without a socket.

use std::time::Instant;

use super::*;
use crate::{
    Account, Chassis, ChassisError, PowerState, Privilege, UserName,
    bmc::{Dice, Engine},
    ipmi::{
        command::{ChassisStatus, GetSystemGuid},
        message::{decode_request, encode_reply},
        packet::sessionless,
        rakp::refusal,
        sealed::{Window, open, seal},
    },
};

const SEED: Seed = Seed { tag: 0x21, console_id: 0x0A0B_0C0D, random: [1; 16] };
const DICE: Dice = Dice { session_id: 0x0102_0304, random: [2; 16], iv: [3; 16] };
const SUITES: [Suite; 2] = [Suite::Sha1, Suite::Sha256];

struct Off;

impl Chassis for Off {
    fn power(&self) -> PowerState {
        PowerState::Off
    }
    fn set_power(&self, _: PowerState) -> Result<(), ChassisError> {
        Ok(())
    }
}

fn config(suite: Suite) -> IpmiConfig {
    IpmiConfig {
        address: ([127, 0, 0, 1], 623).into(),
        user: UserName::new("tb").unwrap(),
        password: Secret::new("pw").unwrap(),
        suite,
        kg: None,
        privilege: Privilege::Operator,
    }
}

fn engine(kg: Option<&str>) -> Engine {
    let account = Account {
        user: UserName::new("tb").unwrap(),
        password: Secret::new("pw").unwrap(),
        limit: Privilege::Operator,
    };
    Engine::new(vec![account], kg.map(|kg| Secret::new(kg).unwrap()), [4; 16])
}

fn ask(engine: &mut Engine, request: &[u8]) -> Vec<u8> {
    engine.handle(Instant::now(), DICE, &Off, request).unwrap().unwrap().datagram
}

/// A login that waits for the answer of the given stage, and that answer as an honest BMC gives it.
fn waiting(config: &IpmiConfig, stage: Stage) -> (Login<'_>, Engine, Vec<u8>) {
    let mut engine = engine(None);
    let (mut login, mut message) = Login::start(config, SEED);
    loop {
        let reply = ask(&mut engine, &message);
        if login.stage() == stage {
            return (login, engine, reply);
        }
        let Step::Send(next) = login.receive(&reply) else { panic!("an honest login goes on") };
        message = next;
    }
}

fn session(config: &IpmiConfig) -> (Box<Session>, Engine) {
    let (mut login, engine, reply) = waiting(config, Stage::Rakp3);
    let Step::Done(session) = login.receive(&reply) else { panic!("an honest login ends well") };
    (session, engine)
}

fn skipped(step: Step) -> Malformed {
    match step {
        Step::Skip(what) => what,
        Step::Send(_) => panic!("sent"),
        Step::Done(_) => panic!("logged in"),
        Step::Fail(error) => panic!("failed: {error}"),
    }
}

fn failed(step: Step) -> IpmiError {
    match step {
        Step::Fail(error) => error,
        Step::Skip(what) => panic!("skipped: {what}"),
        Step::Send(_) => panic!("sent"),
        Step::Done(_) => panic!("logged in"),
    }
}

/// Where the payload begins in a packet without a session.
const PAYLOAD: usize = 16;

fn payload(datagram: &[u8]) -> Vec<u8> {
    datagram[PAYLOAD..].to_vec()
}

const STAGES: [(Stage, PayloadType); 3] = [
    (Stage::OpenSession, PayloadType::OpenSessionResponse),
    (Stage::Rakp1, PayloadType::Rakp2),
    (Stage::Rakp3, PayloadType::Rakp4),
];

#[test]
fn an_open_session_reply_with_other_algorithms_is_a_downgrade() {
    for suite in SUITES {
        let config = config(suite);
        // (offset of the algorithm, number): none of each, the other suite's, and one that doesn't exist.
        for (offset, number) in [(16, 0), (16, 3), (16, 1), (16, 9), (24, 0), (24, 2), (24, 9), (32, 0), (32, 2)] {
            let (mut login, _, mut reply) = waiting(&config, Stage::OpenSession);
            if reply[PAYLOAD + offset] == number {
                continue;
            }
            reply[PAYLOAD + offset] = number;
            let error = failed(login.receive(&reply));
            assert!(matches!(error, IpmiError::Downgrade { suite: s } if s == suite), "{error}");
        }
    }
}

#[test]
fn a_truncated_or_extended_reply_is_skipped_and_the_honest_one_still_counts() {
    for suite in SUITES {
        let config = config(suite);
        for (stage, kind) in STAGES {
            let (mut login, _, reply) = waiting(&config, stage);
            let honest = payload(&reply);
            for length in 0..reply.len() {
                skipped(login.receive(&reply[..length]));
            }
            for length in 0..honest.len() {
                skipped(login.receive(&sessionless(kind, &honest[..length])));
            }
            if stage != Stage::OpenSession {
                skipped(login.receive(&sessionless(kind, &[honest.as_slice(), &[0]].concat())));
            }
            assert!(matches!(login.receive(&reply), Step::Send(_) | Step::Done(_)), "{stage}");
        }
    }
}

#[test]
fn replies_to_other_logins_and_of_other_kinds_are_skipped() {
    let config = config(Suite::Sha256);
    for (stage, kind) in STAGES {
        let (mut login, _, reply) = waiting(&config, stage);
        let honest = payload(&reply);
        for offset in [0, 4] {
            let mut other = honest.clone();
            other[offset] ^= 1;
            skipped(login.receive(&sessionless(kind, &other)));
        }
        for (_, other) in STAGES.into_iter().filter(|(_, other)| *other != kind) {
            skipped(login.receive(&sessionless(other, &honest)));
        }
        // In a session, numbered, or under protection flags that nobody could check yet.
        for (offset, value) in [(5, 0x40 | reply[5]), (5, 0x80 | reply[5]), (6, 1), (10, 1)] {
            let mut other = reply.clone();
            other[offset] = value;
            skipped(login.receive(&other));
        }
        assert!(matches!(login.receive(&reply), Step::Send(_) | Step::Done(_)), "{stage}");
    }
}

#[test]
fn a_truncated_asf_pong_is_skipped() {
    let config = config(Suite::Sha1);
    let (mut login, ..) = waiting(&config, Stage::OpenSession);
    let pong = [6, 0, 0xFF, 6, 0, 0, 0x11, 0xBE, 0x40, 0, 0, 16, 0, 0, 0x11, 0xBE];
    for length in 0..=pong.len() {
        skipped(login.receive(&pong[..length]));
    }
}

#[test]
fn a_wrong_code_in_rakp2_means_another_password() {
    for suite in SUITES {
        let config = config(suite);
        let (mut login, _, mut reply) = waiting(&config, Stage::Rakp1);
        *reply.last_mut().unwrap() ^= 1;
        assert!(matches!(failed(login.receive(&reply)), IpmiError::WrongPassword));
        assert!(login.abort().is_some(), "the BMC's slot is freed");
    }
}

#[test]
fn a_wrong_code_in_rakp4_means_another_kg() {
    for suite in SUITES {
        let config = config(suite);
        let (mut login, _, mut reply) = waiting(&config, Stage::Rakp3);
        *reply.last_mut().unwrap() ^= 1;
        assert!(matches!(failed(login.receive(&reply)), IpmiError::WrongKg));
    }
}

#[test]
fn each_refusal_has_its_own_error() {
    let config = config(Suite::Sha1);
    let refuse = |stage: Stage, status: Status| {
        let (mut login, ..) = waiting(&config, stage);
        let kind = STAGES.into_iter().find(|(s, _)| *s == stage).unwrap().1;
        failed(login.receive(&sessionless(kind, &refusal(SEED.tag, status, SEED.console_id))))
    };
    use Stage::{OpenSession, Rakp1, Rakp3};
    assert!(matches!(refuse(OpenSession, Status::NO_RESOURCES), IpmiError::OutOfSessions));
    assert!(matches!(refuse(OpenSession, Status::NO_SUITE_MATCH), IpmiError::SuiteRefused { .. }));
    assert!(matches!(refuse(OpenSession, Status::ILLEGAL_PARAMETER), IpmiError::SuiteRefused { .. }));
    assert!(matches!(refuse(Rakp1, Status::UNAUTHORIZED_NAME), IpmiError::NoSuchUser));
    assert!(matches!(refuse(Rakp1, Status::UNAUTHORIZED_ROLE), IpmiError::RoleRefused));
    assert!(matches!(refuse(Rakp1, Status::NO_RESOURCES_FOR_ROLE), IpmiError::OutOfSessions));
    assert!(matches!(refuse(Rakp1, Status::ILLEGAL_PARAMETER), IpmiError::Refused { stage: Rakp1, .. }));
    assert!(matches!(refuse(Rakp3, Status::INVALID_CHECK_VALUE), IpmiError::WrongPassword));
    assert!(matches!(refuse(Rakp3, Status(0x77)), IpmiError::Refused { status: Status(0x77), .. }));
}

#[test]
fn a_refusal_of_two_bytes_counts() {
    let config = config(Suite::Sha256);
    let (mut login, ..) = waiting(&config, Stage::OpenSession);
    let short = sessionless(PayloadType::OpenSessionResponse, &[SEED.tag, 0x11]);
    assert!(matches!(failed(login.receive(&short)), IpmiError::SuiteRefused { .. }));
}

#[test]
fn an_answer_to_an_earlier_query_is_not_taken() {
    for suite in SUITES {
        let config = config(suite);
        let (mut session, mut engine) = session(&config);
        let (first, request) = session.request(&ChassisStatus.into(), [5; 16]).unwrap();
        let stale = ask(&mut engine, &request);
        let (second, request) = session.request(&ChassisStatus.into(), [6; 16]).unwrap();
        let fresh = ask(&mut engine, &request);
        assert_eq!(session.receive(second, &stale), Err(Malformed("answer to an earlier request")));
        assert!(session.receive(second, &fresh).is_ok());
        assert!(session.receive(second, &fresh).is_err(), "a duplicate");
        assert!(session.receive(first, &stale).is_err(), "a replay");
    }
}

#[test]
fn an_answer_to_another_command_is_not_taken() {
    let config = config(Suite::Sha256);
    let (mut session, mut engine) = session(&config);
    let (awaited, request) = session.request(&ChassisStatus.into(), [5; 16]).unwrap();
    let keys = keys_of(&config);
    let Packet::Rmcp20(packet) = Packet::parse(&request).unwrap() else { panic!("not v2.0") };
    let plain = open(&keys, &mut Window::default(), DICE.session_id, &packet).unwrap();
    let mut forged = decode_request(&plain).unwrap();
    forged.message = GetSystemGuid.into();
    let reply = seal(&keys, SEED.console_id, 1, [7; 16], &encode_reply(&forged, 0, &[0; 16]));
    assert_eq!(session.receive(awaited, &reply), Err(Malformed("answer to another command")));
    assert!(session.receive(awaited, &ask(&mut engine, &request)).is_err(), "the number 1 is spent");
}

/// The keys of every session here: all random numbers are fixed.
fn keys_of(config: &IpmiConfig) -> Keys {
    let exchange = Exchange {
        suite: config.suite,
        console_id: SEED.console_id,
        bmc_id: DICE.session_id,
        console_random: SEED.random,
        bmc_random: DICE.random,
        bmc_guid: [4; 16],
        role: NAME_ONLY_LOOKUP | config.privilege.level(),
        user: b"tb".to_vec(),
    };
    Keys::derive(config.suite, &exchange.integrity_key(&config.password))
}

#[test]
fn a_plain_answer_inside_a_session_is_not_taken() {
    let config = config(Suite::Sha1);
    let (mut session, mut engine) = session(&config);
    let (awaited, request) = session.request(&ChassisStatus.into(), [5; 16]).unwrap();
    // What an attacker can say who saw the request number but not the key.
    let plain = [0x81, 0x04, 0x7B, 0x20, 0x00, 0x01, 0x00, 0x60, 0x00, 0x00, 0x7F];
    for mut forged in [sessionless(PayloadType::Ipmi, &plain), crate::ipmi::packet::plain_15(&plain)] {
        assert!(session.receive(awaited, &forged).is_err());
        if forged[4] == 6 {
            forged[6..10].copy_from_slice(&SEED.console_id.to_le_bytes());
            forged[10] = 1;
            let error = session.receive(awaited, &forged).unwrap_err();
            assert_eq!(error, Malformed("packet of the session without protection"));
        }
    }
    assert!(session.receive(awaited, &ask(&mut engine, &request)).is_ok());
}

#[test]
fn request_numbers_are_never_used_twice() {
    let config = config(Suite::Sha1);
    let (mut session, _) = session(&config);
    for _ in 0..64 {
        assert!(session.request(&ChassisStatus.into(), [5; 16]).is_some());
    }
    assert!(session.request(&ChassisStatus.into(), [5; 16]).is_none());
}

#[test]
fn a_bmc_with_its_own_key_is_told_from_a_wrong_password() {
    for suite in SUITES {
        for (ours, right) in [(Some("bmc key"), true), (Some("no key"), false), (None, false)] {
            let config = IpmiConfig { kg: ours.map(|kg| Secret::new(kg).unwrap()), ..config(suite) };
            let mut engine = engine(Some("bmc key"));
            let (mut login, mut message) = Login::start(&config, SEED);
            let end = loop {
                match login.receive(&ask(&mut engine, &message)) {
                    Step::Send(next) => message = next,
                    end => break end,
                }
            };
            match end {
                Step::Done(_) => assert!(right),
                end => assert!(!right && matches!(failed(end), IpmiError::WrongKg)),
            }
        }
    }
}
