//! Entry points for the fuzzers under `fuzz/`, and for the test that throws bytes at the same decoders without them. Not
//! part of the API.

use std::time::{Duration, Instant};

use crate::{
    Account, Chassis, ChassisError, IpmiConfig, PowerState, Privilege, Secret, Suite, UserName,
    bmc::{Dice, Engine},
    ipmi::{
        command::{ChassisControl, ChassisStatus, SetSessionPrivilege},
        crypto::{Exchange, Keys},
        login::{Login, Seed, Step},
        packet::protected_head,
        rakp::NAME_ONLY_LOOKUP,
        sealed::{seal, sign},
        session::Session,
    },
};

const SEED: Seed = Seed { tag: 0x5A, console_id: 0x1122_3344, random: [0x11; 16] };
const DICE: Dice = Dice { session_id: 0x5566_7788, random: [0x22; 16], iv: [0x33; 16] };
const USER: &str = "tb";
const GUID: [u8; 16] = [0x44; 16];

struct Off;

impl Chassis for Off {
    fn power(&self) -> PowerState {
        PowerState::Off
    }

    fn set_power(&self, _: PowerState) -> Result<(), ChassisError> {
        Ok(())
    }
}

fn password() -> Secret {
    Secret::new("secret").expect("short")
}

fn config(suite: Suite) -> IpmiConfig {
    IpmiConfig {
        address: ([127, 0, 0, 1], 623).into(),
        user: UserName::new(USER).expect("short"),
        password: password(),
        suite,
        kg: None,
        privilege: Privilege::Operator,
    }
}

/// The keys that every login of this module ends with, since all its random numbers are fixed.
fn keys(suite: Suite) -> Keys {
    let exchange = Exchange {
        suite,
        console_id: SEED.console_id,
        bmc_id: DICE.session_id,
        console_random: SEED.random,
        bmc_random: DICE.random,
        bmc_guid: GUID,
        role: NAME_ONLY_LOOKUP | Privilege::Operator.level(),
        user: USER.into(),
    };
    Keys::derive(suite, &exchange.integrity_key(&password()))
}

fn engine() -> Engine {
    let account =
        Account { user: UserName::new(USER).expect("short"), password: password(), limit: Privilege::Operator };
    Engine::new(vec![account], None, GUID)
}

/// A deterministic conversation between the client and the BMC.
struct Talk<'c> {
    login: Login<'c>,
    session: Option<Box<Session>>,
    engine: Engine,
    now: Instant,
    requests: Vec<Vec<u8>>,
}

impl<'c> Talk<'c> {
    /// Runs the first `steps` of the four login round trips (0 to 3), leaving that request sent and unanswered.
    fn until(config: &'c IpmiConfig, steps: usize) -> Self {
        let (login, mut message) = Login::start(config, SEED);
        let mut talk = Talk { login, session: None, engine: engine(), now: Instant::now(), requests: vec![] };
        for _ in 0..steps {
            let reply = talk.ask(&message);
            match talk.login.receive(&reply) {
                Step::Send(next) => message = next,
                Step::Done(session) => talk.session = Some(session),
                Step::Skip(_) | Step::Fail(_) => unreachable!("an honest login goes through"),
            }
        }
        if talk.session.is_none() {
            talk.requests.push(message);
        }
        talk
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        let reply = self.engine.handle(self.now, DICE, &Off, request).ok().flatten().expect("answered");
        self.requests.push(request.to_vec());
        reply.datagram
    }
}

/// Login round trips.
const LOGIN_STEPS: usize = 3;

/// How the bytes get past a session's integrity code, which no fuzzer guesses.
#[derive(Clone, Copy)]
enum Dress {
    /// Not at all.
    Raw,
    /// As an encrypted payload under a right code.
    Signed,
    /// As the plain text of a right packet.
    Sealed,
}

/// Suite, login round trips done, and dress, from a fuzzer's first byte.
fn pick(byte: u8) -> (Suite, usize, Dress) {
    let suite = if byte & 1 == 0 { Suite::Sha1 } else { Suite::Sha256 };
    match usize::from(byte >> 1) % (LOGIN_STEPS + 3) {
        stage @ 0..=LOGIN_STEPS => (suite, stage, Dress::Raw),
        4 => (suite, LOGIN_STEPS, Dress::Signed),
        _ => (suite, LOGIN_STEPS, Dress::Sealed),
    }
}

fn dress(dress: Dress, keys: &Keys, session_id: u32, sequence: u32, bytes: &[u8]) -> Vec<u8> {
    match dress {
        Dress::Raw => bytes.to_vec(),
        Dress::Signed => {
            let mut out = protected_head(session_id, sequence, bytes.get(..512).unwrap_or(bytes));
            sign(keys, &mut out);
            out
        }
        Dress::Sealed => seal(keys, session_id, sequence, DICE.iv, bytes.get(..512).unwrap_or(bytes)),
    }
}

/// Any bytes as the BMC's reply at each stage. The first byte picks suite, stage and dress, the rest is the datagram.
///
/// # Panics
/// When one datagram is taken for an answer twice, which is what the fuzzer looks for besides panics.
pub fn client_reply(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let (suite, stage, how) = pick(*first);
    let config = config(suite);
    let mut talk = Talk::until(&config, stage);
    let Some(session) = talk.session.as_mut() else {
        if let Step::Done(_) = talk.login.receive(bytes) {
            assert_eq!(stage + 1, LOGIN_STEPS, "logged in before the last message");
        }
        let _ = talk.login.abort();
        return;
    };
    let (awaited, _) = session.request(&ChassisStatus.into(), DICE.iv).expect("the first of 64");
    let datagram = dress(how, &keys(suite), SEED.console_id, 1, bytes);
    if session.receive(awaited, &datagram).is_ok() {
        assert!(session.receive(awaited, &datagram).is_err(), "a replayed reply was taken");
    }
}

/// Any bytes as requests to the BMC, in each of its states. The first byte picks suite, state and dress; the rest is
/// split in datagrams, each after two bytes of length.
pub fn bmc_packet(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else { return };
    let (suite, stage, how) = pick(*first);
    let config = config(suite);
    let mut talk = Talk::until(&config, stage);
    let bmc_id = talk.session.as_ref().map(|session| session.bmc_id());
    let keys = bmc_id.map(|_| keys(suite));
    let mut sequence = 1;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        talk.now += Duration::from_secs(1);
        let datagram = match (bmc_id, &keys) {
            (Some(id), Some(keys)) => dress(how, keys, id, sequence, bytes),
            _ => bytes.to_vec(),
        };
        sequence += 1;
        let _ = talk.engine.handle(talk.now, DICE, &Off, &datagram);
    }
}

/// Inputs for [`client_reply`] from honest conversations: the right reply of each stage.
#[must_use]
pub fn client_seeds() -> Vec<Vec<u8>> {
    each_stage(|stage, bytes, talk| {
        let request = match &mut talk.session {
            Some(session) => session.request(&ChassisStatus.into(), DICE.iv).expect("of 64").1,
            None => talk.requests[stage].clone(),
        };
        bytes.extend(talk.ask(&request));
    })
}

/// Inputs for [`bmc_packet`] from honest conversations: the right request of each state.
#[must_use]
pub fn bmc_seeds() -> Vec<Vec<u8>> {
    each_stage(|stage, bytes, talk| {
        let mut push = |datagram: &[u8]| {
            bytes.extend(u16::try_from(datagram.len()).expect("short").to_le_bytes());
            bytes.extend_from_slice(datagram);
        };
        match &mut talk.session {
            Some(session) => {
                let raise = SetSessionPrivilege(Privilege::Operator).into();
                for message in [raise, ChassisControl(PowerState::Off).into(), ChassisStatus.into()] {
                    push(&session.request(&message, DICE.iv).expect("of 64").1);
                }
            }
            None => push(&talk.requests[stage]),
        }
    })
}

fn each_stage(fill: impl Fn(usize, &mut Vec<u8>, &mut Talk<'_>)) -> Vec<Vec<u8>> {
    let mut seeds = vec![];
    for suite in [Suite::Sha1, Suite::Sha256] {
        for stage in 0..=LOGIN_STEPS {
            let config = config(suite);
            let stage_bits = u8::try_from(stage).expect("few") << 1;
            let mut bytes = vec![stage_bits | u8::from(suite == Suite::Sha256)];
            fill(stage, &mut bytes, &mut Talk::until(&config, stage));
            seeds.push(bytes);
        }
    }
    seeds
}

/// Any bytes as the answers of a BMC that speaks Redfish.
pub fn redfish_answer(bytes: &[u8]) {
    crate::redfish::resource::fuzz(bytes);
}

/// Any bytes as what a plug, or a fence agent, says. The first byte picks which.
pub fn plug_answer(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    if first % 5 < 3 {
        crate::plug::reading::fuzz(first % 5, bytes);
    } else if let Ok(text) = std::str::from_utf8(bytes) {
        crate::web::digest::fuzz(text);
        crate::program::client::fuzz(text);
    }
}

#[cfg(test)]
mod tests;
