//! The BMC's side of the protocol: sessions and commands. Takes datagrams, gives datagrams; no socket, no clock, no
//! randomness of its own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ipmi_rs_core::connection::NetFn;
use tracing::{debug, info, warn};

use super::Chassis;
use crate::{
    PowerState, Privilege, Secret, Status, Suite, UserName,
    ipmi::{
        command::{
            CHASSIS_CONTROL, CHASSIS_POWER_ON, CLOSE_SESSION, CONTROL_POWER_DOWN, CONTROL_POWER_UP,
            GET_CHANNEL_AUTH_CAPABILITIES, GET_CHANNEL_CIPHER_SUITES, GET_CHASSIS_STATUS, GET_DEVICE_ID,
            GET_SYSTEM_GUID, SET_SESSION_PRIVILEGE,
        },
        crypto::{AES_BLOCK, Digest, Exchange, Keys, code_matches},
        error::Malformed,
        message::{LanRequest, decode_request, encode_reply},
        packet::{Packet, PayloadType, Rmcp20, plain_15, sessionless},
        rakp::{OpenReply, OpenRequest, Rakp1, Rakp2, Rakp3, Rakp4, refusal},
        sealed::{Window, open, seal},
    },
};

/// Sessions at a time, half-open ones included. Real BMCs have 4 to 15.
const MAX_SESSIONS: usize = 8;
/// A session that says nothing for so long is closed (section 6.12.15 allows 60 s ± 3 s).
const IDLE: Duration = Duration::from_secs(60);
/// A login must get on this fast, or its slot is freed.
const HALF_OPEN: Duration = Duration::from_secs(10);
/// The LAN channel's number.
const CHANNEL: u8 = 1;

/// Completion codes (table 5-2).
mod code {
    pub(super) const OK: u8 = 0x00;
    /// Set Session Privilege Level: above the limit of the user.
    pub(super) const ABOVE_LIMIT: u8 = 0x81;
    /// Close Session: no such session.
    pub(super) const NO_SESSION: u8 = 0x87;
    pub(super) const INVALID_COMMAND: u8 = 0xC1;
    pub(super) const SHORT_REQUEST: u8 = 0xC7;
    pub(super) const INVALID_FIELD: u8 = 0xCC;
    pub(super) const NO_PRIVILEGE: u8 = 0xD4;
    pub(super) const UNSPECIFIED: u8 = 0xFF;
}

/// An account of a BMC.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its name.
    pub user: UserName,
    /// Its password.
    pub password: Secret,
    /// The most that a session of it may do.
    pub limit: Privilege,
}

/// Random numbers, drawn anew for each datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice {
    pub(crate) session_id: u32,
    pub(crate) random: [u8; 16],
    pub(crate) iv: [u8; AES_BLOCK],
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) datagram: Vec<u8>,
    /// Answers a command in a session, rather than a step of a login.
    pub(crate) command: bool,
}

/// The state of a BMC.
pub(crate) struct Engine {
    accounts: Vec<Account>,
    kg: Option<Secret>,
    guid: [u8; 16],
    slots: BTreeMap<u32, Slot>,
}

struct Slot {
    heard: Instant,
    console_id: u32,
    stage: Stage,
}

enum Stage {
    Opened { tag: u8, suite: Suite },
    Challenged { exchange: Exchange, account: usize },
    Active(Box<Active>),
}

struct Active {
    exchange: Exchange,
    keys: Keys,
    integrity_key: Digest,
    /// The code by which the console proved the password.
    proof: Digest,
    window: Window,
    sequence: u32,
    limit: Privilege,
    level: Privilege,
}

impl Engine {
    pub(crate) fn new(accounts: Vec<Account>, kg: Option<Secret>, guid: [u8; 16]) -> Self {
        Self { accounts, kg, guid, slots: BTreeMap::new() }
    }

    /// Takes a datagram. `Ok(None)` where silence is the answer, `Err` for what is no proper request.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        dice: Dice,
        chassis: &dyn Chassis,
        datagram: &[u8],
    ) -> Result<Option<Reply>, Malformed> {
        self.expire(now);
        match Packet::parse(datagram)? {
            Packet::Plain15 { payload } => {
                let reply = self.outside(&decode_request(payload)?);
                Ok(Some(Reply { datagram: plain_15(&reply), command: false }))
            }
            Packet::Rmcp20(packet) if packet.session_id != 0 => self.inside(now, dice, chassis, &packet),
            Packet::Rmcp20(packet) => {
                let payload = packet.sessionless(packet.kind)?;
                let (kind, reply) = match packet.kind {
                    PayloadType::Ipmi => (PayloadType::Ipmi, Some(self.outside(&decode_request(payload)?))),
                    PayloadType::OpenSessionRequest => {
                        (PayloadType::OpenSessionResponse, Some(self.open_session(now, dice, payload)?))
                    }
                    PayloadType::Rakp1 => (PayloadType::Rakp2, Some(self.rakp1(now, dice, payload)?)),
                    PayloadType::Rakp3 => (PayloadType::Rakp4, self.rakp3(now, payload)?),
                    PayloadType::OpenSessionResponse | PayloadType::Rakp2 | PayloadType::Rakp4 => {
                        return Err(Malformed("a reply where a request belongs"));
                    }
                };
                Ok(reply.map(|payload| Reply { datagram: sessionless(kind, &payload), command: false }))
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        self.slots.retain(|id, slot| {
            let patience = match slot.stage {
                Stage::Opened { .. } | Stage::Challenged { .. } => HALF_OPEN,
                Stage::Active(_) => IDLE,
            };
            let keep = now.saturating_duration_since(slot.heard) < patience;
            if !keep {
                debug!(id, "session expired");
            }
            keep
        });
    }

    /// The few commands that need no session.
    fn outside(&self, request: &LanRequest) -> Vec<u8> {
        match (request.message.netfn(), request.message.cmd()) {
            (NetFn::App, GET_CHANNEL_AUTH_CAPABILITIES) => encode_reply(request, code::OK, &self.capabilities()),
            (NetFn::App, GET_CHANNEL_CIPHER_SUITES) => {
                let (code, data) = cipher_suites(request.message.data());
                encode_reply(request, code, &data)
            }
            (NetFn::App, GET_SYSTEM_GUID) => encode_reply(request, code::OK, &self.guid),
            _ => encode_reply(request, code::NO_PRIVILEGE, &[]),
        }
    }

    /// Get Channel Authentication Capabilities (section 22.13): IPMI v2.0 alone, accounts with names, with or without K_G.
    fn capabilities(&self) -> [u8; 8] {
        const EXTENDED: u8 = 0x80;
        const NAMED_USERS: u8 = 0x04;
        const KG_SET: u8 = 0x20;
        const VERSION_2_0: u8 = 0x02;
        let kg = if self.kg.is_some() { KG_SET } else { 0 };
        [CHANNEL, EXTENDED, NAMED_USERS | kg, VERSION_2_0, 0, 0, 0, 0]
    }

    fn open_session(&mut self, now: Instant, dice: Dice, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        let request = OpenRequest::parse(payload)?;
        let OpenRequest { tag, console_id, algorithms } = request;
        let Some(suite) = [Suite::Sha256, Suite::Sha1].into_iter().find(|suite| suite.algorithms() == algorithms)
        else {
            return Ok(refusal(tag, Status::NO_SUITE_MATCH, console_id));
        };
        let open = |slot: &Slot| matches!(slot.stage, Stage::Opened { tag: t, suite: s } if (t, s) == (tag, suite));
        let repeated =
            self.slots.iter().find(|(_, slot)| slot.console_id == console_id && open(slot)).map(|(id, _)| *id);
        let bmc_id = match repeated {
            Some(id) => id,
            None if self.slots.len() >= MAX_SESSIONS => return Ok(refusal(tag, Status::NO_RESOURCES, console_id)),
            None => self.free_id(dice.session_id),
        };
        self.slots.insert(bmc_id, Slot { heard: now, console_id, stage: Stage::Opened { tag, suite } });
        Ok(OpenReply { tag, console_id, bmc_id, algorithms }.encode(Privilege::Administrator.level()))
    }

    /// An id that no slot has, from the drawn one on. There are at most [`MAX_SESSIONS`] to step over.
    fn free_id(&self, drawn: u32) -> u32 {
        let mut id = drawn.max(1);
        while self.slots.contains_key(&id) {
            id = id.wrapping_add(1).max(1);
        }
        id
    }

    fn rakp1(&mut self, now: Instant, dice: Dice, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        let Rakp1 { tag, bmc_id, console_random, role, user } = Rakp1::parse(payload)?;
        let Some(slot) = self.slots.get_mut(&bmc_id) else {
            return Ok(refusal(tag, Status::INVALID_SESSION, 0));
        };
        let console_id = slot.console_id;
        let suite = match &slot.stage {
            Stage::Opened { suite, .. } => *suite,
            // Sent again because the answer got lost: the same question has the same answer.
            Stage::Challenged { exchange, account }
                if exchange.console_random == console_random && exchange.role == role && exchange.user == user =>
            {
                slot.heard = now;
                return Ok(challenge(tag, exchange, &self.accounts[*account].password));
            }
            Stage::Challenged { .. } | Stage::Active(_) => {
                return Ok(refusal(tag, Status::INVALID_SESSION, console_id));
            }
        };
        let Some(account) = self.accounts.iter().position(|account| account.user.bytes() == user) else {
            self.slots.remove(&bmc_id);
            return Ok(refusal(tag, Status::UNAUTHORIZED_NAME, console_id));
        };
        let status = match Privilege::from_level(role & 0x0F) {
            None => Some(Status::INVALID_ROLE),
            Some(level) if level > self.accounts[account].limit => Some(Status::UNAUTHORIZED_ROLE),
            Some(_) => None,
        };
        if let Some(status) = status {
            self.slots.remove(&bmc_id);
            return Ok(refusal(tag, status, console_id));
        }
        let (bmc_random, bmc_guid) = (dice.random, self.guid);
        let exchange = Exchange { suite, console_id, bmc_id, console_random, bmc_random, bmc_guid, role, user };
        let reply = challenge(tag, &exchange, &self.accounts[account].password);
        *slot = Slot { heard: now, console_id, stage: Stage::Challenged { exchange, account } };
        Ok(reply)
    }

    fn rakp3(&mut self, now: Instant, payload: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let Rakp3 { tag, status, bmc_id, code } = Rakp3::parse(payload)?;
        let Some(slot) = self.slots.get_mut(&bmc_id) else {
            return Ok(Some(refusal(tag, Status::INVALID_SESSION, 0)));
        };
        let console_id = slot.console_id;
        let (exchange, account) = match &slot.stage {
            Stage::Opened { .. } => return Ok(Some(refusal(tag, Status::INVALID_SESSION, console_id))),
            // Sent again because the answer got lost.
            Stage::Active(active)
                if status == Status::OK && code_matches(&code, &active.proof, active.exchange.suite.code_bytes()) =>
            {
                return Ok(Some(welcome(tag, active)));
            }
            Stage::Active(_) => return Ok(None),
            Stage::Challenged { exchange, account } => (exchange.clone(), *account),
        };
        if status != Status::OK {
            // The console gives up, and expects no answer.
            self.slots.remove(&bmc_id);
            return Ok(None);
        }
        let Account { password, .. } = &self.accounts[account];
        let proof = exchange.rakp3_code(password);
        if !code_matches(&code, &proof, exchange.suite.code_bytes()) {
            self.slots.remove(&bmc_id);
            return Ok(Some(refusal(tag, Status::INVALID_CHECK_VALUE, console_id)));
        }
        let integrity_key = exchange.integrity_key(self.kg.as_ref().unwrap_or(password));
        let active = Active {
            keys: Keys::derive(exchange.suite, &integrity_key),
            limit: Privilege::from_level(exchange.role & 0x0F).expect("checked with RAKP message 1"),
            level: Privilege::User,
            exchange,
            integrity_key,
            proof,
            window: Window::default(),
            sequence: 0,
        };
        let reply = welcome(tag, &active);
        *slot = Slot { heard: now, console_id, stage: Stage::Active(Box::new(active)) };
        Ok(Some(reply))
    }

    fn inside(
        &mut self,
        now: Instant,
        dice: Dice,
        chassis: &dyn Chassis,
        packet: &Rmcp20<'_>,
    ) -> Result<Option<Reply>, Malformed> {
        let guid = self.guid;
        let capabilities = self.capabilities();
        let id = packet.session_id;
        let Some(Slot { stage: Stage::Active(active), heard, console_id }) = self.slots.get_mut(&id) else {
            return Err(Malformed("packet of no session"));
        };
        let plain = open(&active.keys, &mut active.window, id, packet)?;
        *heard = now;
        let request = decode_request(&plain)?;
        let outcome = match (request.message.netfn(), request.message.cmd()) {
            (NetFn::App, GET_DEVICE_ID) => Outcome::data(&DEVICE_ID),
            (NetFn::App, GET_SYSTEM_GUID) => Outcome::data(&guid),
            (NetFn::App, GET_CHANNEL_AUTH_CAPABILITIES) => Outcome::data(&capabilities),
            (NetFn::App, GET_CHANNEL_CIPHER_SUITES) => {
                let (code, data) = cipher_suites(request.message.data());
                Outcome { code, data, close: false }
            }
            (NetFn::App, SET_SESSION_PRIVILEGE) => active.set_privilege(request.message.data()),
            (NetFn::App, CLOSE_SESSION) => close_session(id, request.message.data()),
            (NetFn::Chassis, GET_CHASSIS_STATUS) => chassis_status(chassis.power()),
            (NetFn::Chassis, CHASSIS_CONTROL) if active.level < Privilege::Operator => {
                Outcome::code(code::NO_PRIVILEGE)
            }
            (NetFn::Chassis, CHASSIS_CONTROL) => chassis_control(chassis, request.message.data()),
            _ => Outcome::code(code::INVALID_COMMAND),
        };
        active.sequence = active.sequence.wrapping_add(1).max(1);
        let reply = encode_reply(&request, outcome.code, &outcome.data);
        let datagram = seal(&active.keys, *console_id, active.sequence, dice.iv, &reply);
        if outcome.close {
            self.slots.remove(&id);
        }
        Ok(Some(Reply { datagram, command: true }))
    }
}

impl Active {
    fn set_privilege(&mut self, data: &[u8]) -> Outcome {
        let Some(level) = data.first().map(|byte| byte & 0x0F) else { return Outcome::code(code::SHORT_REQUEST) };
        // Level 0 asks what the level is.
        if level != 0 {
            match Privilege::from_level(level) {
                None => return Outcome::code(code::INVALID_FIELD),
                Some(level) if level > self.limit => return Outcome::code(code::ABOVE_LIMIT),
                Some(level) => self.level = level,
            }
        }
        Outcome::data(&[self.level.level()])
    }
}

/// What a command came to.
struct Outcome {
    code: u8,
    data: Vec<u8>,
    close: bool,
}

impl Outcome {
    fn code(code: u8) -> Self {
        Self { code, data: vec![], close: false }
    }

    fn data(data: &[u8]) -> Self {
        Self { code: code::OK, data: data.to_vec(), close: false }
    }
}

/// Get Device ID (section 20.1): device 0x20, revision 1, firmware 1.00, IPMI 2.0, a chassis device, no maker's number.
const DEVICE_ID: [u8; 15] = [0x20, 0x01, 0x01, 0x00, 0x02, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Get Channel Cipher Suites (section 22.15): two standard records, best first, in one page.
fn cipher_suites(request: &[u8]) -> (u8, Vec<u8>) {
    let [_channel, _payload, index] = request else { return (code::SHORT_REQUEST, vec![]) };
    let mut data = vec![CHANNEL];
    if index & 0x3F == 0 {
        for suite in [Suite::Sha256, Suite::Sha1] {
            let algorithms = suite.algorithms();
            data.extend_from_slice(&[
                0xC0,
                suite.number(),
                algorithms.authentication,
                0x40 | algorithms.integrity,
                0x80 | algorithms.confidentiality,
            ]);
        }
    }
    (code::OK, data)
}

fn close_session(own: u32, data: &[u8]) -> Outcome {
    match data.first_chunk() {
        // One session can't close another here, administrator or not.
        Some(id) if u32::from_le_bytes(*id) == own => Outcome { code: code::OK, data: vec![], close: true },
        Some(_) => Outcome::code(code::NO_SESSION),
        None => Outcome::code(code::SHORT_REQUEST),
    }
}

/// Get Chassis Status: the power bit, "restore policy unknown", no last event, nothing else.
fn chassis_status(state: PowerState) -> Outcome {
    const POLICY_UNKNOWN: u8 = 0x60;
    let power = match state {
        PowerState::On => CHASSIS_POWER_ON,
        PowerState::Off => 0,
    };
    Outcome::data(&[POLICY_UNKNOWN | power, 0, 0])
}

fn chassis_control(chassis: &dyn Chassis, data: &[u8]) -> Outcome {
    let state = match data.first().map(|byte| byte & 0x0F) {
        Some(CONTROL_POWER_DOWN) => PowerState::Off,
        Some(CONTROL_POWER_UP) => PowerState::On,
        Some(_) => return Outcome::code(code::INVALID_FIELD),
        None => return Outcome::code(code::SHORT_REQUEST),
    };
    match chassis.set_power(state) {
        Ok(()) => {
            info!(%state, "switched the machine");
            Outcome::code(code::OK)
        }
        Err(error) => {
            warn!(%error, "could not switch the machine");
            Outcome::code(code::UNSPECIFIED)
        }
    }
}

fn challenge(tag: u8, exchange: &Exchange, password: &Secret) -> Vec<u8> {
    let Exchange { console_id, bmc_random, bmc_guid, .. } = *exchange;
    Rakp2 { tag, console_id, bmc_random, bmc_guid, code: exchange.rakp2_code(password).to_vec() }.encode()
}

fn welcome(tag: u8, active: &Active) -> Vec<u8> {
    let mut code = active.exchange.rakp4_code(&active.integrity_key).to_vec();
    code.truncate(active.exchange.suite.icv_bytes());
    Rakp4 { tag, console_id: active.exchange.console_id, code }.encode()
}

#[cfg(test)]
mod tests;
