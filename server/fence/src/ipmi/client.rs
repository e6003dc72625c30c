//! The client: one BMC over UDP, a session for each operation.
//!
//! A session per operation costs five round trips and spares the keep-alives, the detection of dead sessions and most of
//! the leaks that BMCs with four slots suffer from.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use ipmi_rs_core::connection::{CompletionErrorCode, Message};
use tokio::{
    net::UdpSocket,
    sync::Mutex,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{
    command::{ChassisControl, ChassisStatus, CloseSession, GetSystemGuid, Named, SetSessionPrivilege},
    config::{IpmiConfig, Privilege, Suite},
    error::{IpmiError, Malformed, Stage, is_busy},
    login::{Login, Seed, Step},
    message::{LanReply, RequestNumber},
    packet::MAX_DATAGRAM,
    rakp::Status,
    session::{Awaited, Session},
};
use crate::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof, SystemGuid};

/// How long the first attempt of each message waits. Each further one waits twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait of one attempt: a BMC that takes longer is asked again anyway.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// How long closing a session waits for the BMC's word. Without it the word is sent again, and nobody waits.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// The optional question for the GUID gets this long.
const GUID_WAIT: Duration = Duration::from_secs(2);
/// So many refusals of the network in a row mean that nobody is there.
const REFUSALS: u32 = 3;
/// So many logins are begun anew when a BMC loses one half-way.
const LOGINS: u32 = 3;

/// A BMC as a fence device.
#[derive(Debug)]
pub struct IpmiDevice {
    config: IpmiConfig,
    name: String,
    /// BMCs hang when they are asked two things at once, so one operation at a time.
    lane: Mutex<()>,
}

impl IpmiDevice {
    /// A device for this BMC. Nothing is sent yet.
    #[must_use]
    pub fn new(config: IpmiConfig) -> Self {
        Self { name: device_name(&config), config, lane: Mutex::new(()) }
    }

    /// How it is reached.
    #[must_use]
    pub fn config(&self) -> &IpmiConfig {
        &self.config
    }

    async fn operate(&self, operation: Operation, deadline: Instant) -> Result<Outcome, DeviceError> {
        let Ok(_lane) = timeout_at(deadline, self.lane.lock()).await else {
            let why = "another operation on this device took until the deadline";
            return Err(DeviceError::new(&self.name, Fault::Busy, why));
        };
        run(&self.config, operation, deadline).await.map_err(|error| DeviceError::new(&self.name, error.fault(), error))
    }
}

impl Device for IpmiDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn sign(&self) -> OffSign {
        OffSign::Bmc
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        Box::pin(async move { self.operate(Operation::State, deadline).await.map(|outcome| outcome.state) })
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.operate(Operation::Switch(PowerState::Off), deadline).await.map(drop) })
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move { self.operate(Operation::Switch(PowerState::On), deadline).await.map(drop) })
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        Box::pin(async move {
            let Outcome { state, guid } = self.operate(Operation::Prove, deadline).await?;
            Ok(Proof { state, guid })
        })
    }
}

/// Finds the suite of a BMC at enrolment: 17 where it can, else 3, else an error. `config.suite` is not looked at. Never
/// called at fence time, where an attacker could talk us down.
///
/// # Errors
/// As [`Device::prove`]; [`IpmiError::SuiteRefused`] when the BMC refuses both. Silence is no refusal.
pub async fn probe_suite(config: &IpmiConfig, deadline: Instant) -> Result<Suite, DeviceError> {
    let with = async |suite: Suite| {
        let config = IpmiConfig { suite, ..config.clone() };
        run(&config, Operation::State, deadline).await.map(|_| suite)
    };
    let found = match with(Suite::Sha256).await {
        Err(IpmiError::SuiteRefused { .. } | IpmiError::Downgrade { .. }) => with(Suite::Sha1).await,
        other => other,
    };
    found.map_err(|error| DeviceError::new(device_name(config), error.fault(), error))
}

fn device_name(config: &IpmiConfig) -> String {
    format!("ipmi {}", config.address)
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    State,
    Switch(PowerState),
    Prove,
}

struct Outcome {
    state: PowerState,
    guid: Option<SystemGuid>,
}

async fn run(config: &IpmiConfig, operation: Operation, deadline: Instant) -> Result<Outcome, IpmiError> {
    let mut link = Link::open(config.address).await?;
    let session = login(&mut link, config, deadline).await?;
    let mut live = Live { link, session: Some(session) };
    let result = operate(&mut live, config, operation, deadline).await;
    live.close(deadline).await;
    result
}

async fn operate(
    live: &mut Live,
    config: &IpmiConfig,
    operation: Operation,
    deadline: Instant,
) -> Result<Outcome, IpmiError> {
    match operation {
        Operation::State => Ok(Outcome { state: live.execute(ChassisStatus, deadline).await?, guid: None }),
        Operation::Switch(state) => {
            live.raise(config, deadline).await?;
            live.execute(ChassisControl(state), deadline).await?;
            Ok(Outcome { state, guid: None })
        }
        Operation::Prove => {
            live.raise(config, deadline).await?;
            let state = live.execute(ChassisStatus, deadline).await?;
            // Last, because some BMCs never answer it, and it is not what makes the proof.
            let until = deadline.min(Instant::now() + GUID_WAIT);
            let guid = match live.execute(GetSystemGuid, until).await {
                Ok(bytes) => SystemGuid::new(bytes),
                Err(error) => {
                    debug!(%error, "the BMC tells no system GUID");
                    None
                }
            };
            Ok(Outcome { state, guid })
        }
    }
}

/// Logs in, anew if the BMC forgot a half-open session in between.
async fn login(link: &mut Link, config: &IpmiConfig, deadline: Instant) -> Result<Box<Session>, IpmiError> {
    let mut logins = 1;
    loop {
        let (retransmitted, error) = match login_once(link, config, deadline).await {
            Ok(session) => return Ok(session),
            Err(failure) => failure,
        };
        // A BMC that drew a new random number for a message sent twice refuses the code over the old one.
        let confused = match error {
            IpmiError::Refused { status: Status::INVALID_SESSION, .. } => true,
            IpmiError::WrongPassword | IpmiError::WrongKg => retransmitted,
            _ => false,
        };
        if !confused || logins == LOGINS || Instant::now() >= deadline {
            return Err(error);
        }
        logins += 1;
        debug!(%error, "the BMC lost the login, trying again");
    }
}

/// One login. The error says whether any message had to be sent twice.
async fn login_once(
    link: &mut Link,
    config: &IpmiConfig,
    deadline: Instant,
) -> Result<Box<Session>, (bool, IpmiError)> {
    let seed = random_seed().map_err(|error| (false, error))?;
    let (login, first) = Login::start(config, seed);
    let mut half_open = HalfOpen { link, login };
    let mut retransmitted = false;
    let mut message = first;
    loop {
        let HalfOpen { link, login } = &mut half_open;
        let mut attempts = Attempts::new(login.stage());
        let step = link.ask(&mut attempts, deadline, &mut LoginMessage { login, message }).await;
        retransmitted |= attempts.sent > 1;
        match step {
            Ok(Next::Send(next)) => message = next,
            Ok(Next::Done(session)) => return Ok(session),
            Ok(Next::Fail(error)) | Err(error) => return Err((retransmitted, error)),
        }
    }
}

/// A question that may be put several times.
trait Question {
    type Answer;
    /// The datagram of one attempt.
    fn put(&mut self) -> Result<Vec<u8>, IpmiError>;
    /// The answer in a datagram, or why it is none.
    fn take(&mut self, datagram: &[u8]) -> Result<Self::Answer, Malformed>;
}

/// A message of a login. Every attempt has the same bytes, so that a BMC that saw the first doesn't begin anew.
struct LoginMessage<'a, 'c> {
    login: &'a mut Login<'c>,
    message: Vec<u8>,
}

/// [`Step`] without what is skipped.
enum Next {
    Send(Vec<u8>),
    Done(Box<Session>),
    Fail(IpmiError),
}

impl Question for LoginMessage<'_, '_> {
    type Answer = Next;

    fn put(&mut self) -> Result<Vec<u8>, IpmiError> {
        Ok(self.message.clone())
    }

    fn take(&mut self, datagram: &[u8]) -> Result<Next, Malformed> {
        match self.login.receive(datagram) {
            Step::Skip(what) => Err(what),
            Step::Send(message) => Ok(Next::Send(message)),
            Step::Done(session) => Ok(Next::Done(session)),
            Step::Fail(error) => Ok(Next::Fail(error)),
        }
    }
}

/// A command in a session. Every attempt has a number of its own, and only the newest one's answer counts: an answer to
/// an earlier attempt may tell a state that is past.
struct CommandMessage<'a> {
    session: &'a mut Session,
    stage: Stage,
    message: Message,
    awaited: Option<Awaited>,
}

impl Question for CommandMessage<'_> {
    type Answer = LanReply;

    fn put(&mut self) -> Result<Vec<u8>, IpmiError> {
        let spent = IpmiError::TimedOut { stage: self.stage, attempts: u32::from(RequestNumber::LIMIT) };
        let (awaited, datagram) = self.session.request(&self.message, random()?).ok_or(spent)?;
        self.awaited = Some(awaited);
        Ok(datagram)
    }

    fn take(&mut self, datagram: &[u8]) -> Result<LanReply, Malformed> {
        let awaited = self.awaited.ok_or(Malformed("answer before the question"))?;
        self.session.receive(awaited, datagram)
    }
}

/// Frees the BMC's slot when a login ends early, also when the caller drops it.
struct HalfOpen<'a, 'c> {
    link: &'a mut Link,
    login: Login<'c>,
}

impl Drop for HalfOpen<'_, '_> {
    fn drop(&mut self) {
        if let Some(message) = self.login.abort() {
            self.link.send_last(&message);
        }
    }
}

/// A session and its way to the BMC. Whatever becomes of the caller, the BMC is told when it ends.
struct Live {
    link: Link,
    session: Option<Box<Session>>,
}

impl Live {
    /// Asks for the right to switch, and makes sure that the BMC gave it.
    async fn raise(&mut self, config: &IpmiConfig, deadline: Instant) -> Result<(), IpmiError> {
        let command = SetSessionPrivilege::NAME;
        let refused = IpmiError::InsufficientPrivilege { command };
        // A login for reading must fail here, or it would pass for a proof that it can switch.
        let privilege = config.privilege.max(Privilege::Operator);
        match self.execute(SetSessionPrivilege(privilege), deadline).await {
            Ok(level) if level == privilege.level() => Ok(()),
            Ok(_) => Err(refused),
            // 0x80: not for this user; 0x81: above the limit of user or channel (section 22.18).
            Err(IpmiError::Completion { code: CompletionErrorCode::CommandSpecific(0x80 | 0x81), .. }) => Err(refused),
            Err(error) => Err(error),
        }
    }

    /// Runs a command, asking again under a fresh number until an answer comes or the deadline. All commands here may
    /// be repeated: they read, or they set a state.
    async fn execute<C: Named>(&mut self, command: C, deadline: Instant) -> Result<C::Output, IpmiError> {
        let stage = Stage::Command(C::NAME);
        let message: Message = command.into();
        let mut attempts = Attempts::new(stage);
        loop {
            let session = self.session.as_mut().expect("closed only at the end");
            let mut question = CommandMessage { session, stage, message: message.clone(), awaited: None };
            let reply = self.link.ask(&mut attempts, deadline, &mut question).await?;
            match reply.success() {
                Ok(data) => {
                    let what = Malformed("reply shorter than its command demands");
                    return C::parse_success_response(data).map_err(|_| IpmiError::Malformed { stage, what });
                }
                Err(code) if is_busy(code) && attempts.pause(deadline).await => {}
                Err(CompletionErrorCode::InsufficientPrivilege) => {
                    return Err(IpmiError::InsufficientPrivilege { command: C::NAME });
                }
                Err(code) => return Err(IpmiError::Completion { command: C::NAME, code }),
            }
        }
    }

    /// Ends the session and waits a moment for the BMC's word, so that its slot is free before the next login. A
    /// failure changes nothing about what the operation found.
    async fn close(mut self, deadline: Instant) {
        let Some(id) = self.session.as_ref().map(|session| session.bmc_id()) else { return };
        let until = deadline.min(Instant::now() + CLOSE_WAIT);
        match self.execute(CloseSession(id), until).await {
            Ok(()) => self.session = None,
            Err(error) => debug!(%error, "closing the session failed"),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let Some(session) = self.session.as_mut() else { return };
        let Ok(iv) = random() else { return };
        let id = session.bmc_id();
        if let Some((_, datagram)) = session.request(&CloseSession(id).into(), iv) {
            self.link.send_last(&datagram);
        }
    }
}

/// The attempts of one message.
struct Attempts {
    stage: Stage,
    sent: u32,
    wait: Duration,
    refusals: u32,
    malformed: Option<Malformed>,
}

impl Attempts {
    fn new(stage: Stage) -> Self {
        Self { stage, sent: 0, wait: FIRST_WAIT, refusals: 0, malformed: None }
    }

    /// When the attempt that begins now is given up.
    fn next_until(&mut self, deadline: Instant) -> Instant {
        let until = deadline.min(Instant::now() + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.sent += 1;
        until
    }

    /// Waits before asking a busy BMC again; false when there is no time for that.
    async fn pause(&mut self, deadline: Instant) -> bool {
        let until = Instant::now() + self.wait / 2;
        if until >= deadline {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }

    /// The network refused; says whether to give up.
    fn refused(&mut self, source: io::Error) -> Result<(), IpmiError> {
        self.refusals += 1;
        if self.refusals < REFUSALS { Ok(()) } else { Err(IpmiError::Unreachable { stage: self.stage, source }) }
    }

    fn timed_out(&self) -> IpmiError {
        match self.malformed {
            Some(what) => IpmiError::Malformed { stage: self.stage, what },
            None => IpmiError::TimedOut { stage: self.stage, attempts: self.sent },
        }
    }
}

/// A UDP socket that hears the BMC's address alone.
struct Link {
    socket: UdpSocket,
}

impl Link {
    async fn open(address: SocketAddr) -> Result<Self, IpmiError> {
        let unspecified = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let open = async {
            let socket = UdpSocket::bind(unspecified).await?;
            socket.connect(address).await?;
            Ok(Self { socket })
        };
        open.await.map_err(|source| IpmiError::Unreachable { stage: Stage::OpenSession, source })
    }

    /// Sends a message, waits for its answer, sends again; until the deadline.
    async fn ask<Q: Question>(
        &mut self,
        attempts: &mut Attempts,
        deadline: Instant,
        question: &mut Q,
    ) -> Result<Q::Answer, IpmiError> {
        let mut buffer = [0; MAX_DATAGRAM + 1];
        while Instant::now() < deadline {
            let until = attempts.next_until(deadline);
            let mut refusal = self.socket.send(&question.put()?).await.err();
            while refusal.is_none() {
                match timeout_at(until, self.socket.recv(&mut buffer)).await {
                    Err(_) => {
                        attempts.refusals = 0;
                        break;
                    }
                    Ok(Err(error)) => refusal = Some(error),
                    Ok(Ok(length)) => match question.take(&buffer[..length]) {
                        Ok(answer) => return Ok(answer),
                        Err(what) => {
                            debug!(stage = %attempts.stage, %what, "skipped a datagram");
                            if !what.is_unrelated() {
                                attempts.malformed = Some(what);
                            }
                        }
                    },
                }
            }
            if let Some(error) = refusal {
                attempts.refused(error)?;
                // A BMC that restarts refuses for a moment; asking it in a tight loop helps nobody.
                tokio::time::sleep_until(until.min(Instant::now() + FIRST_WAIT / 4)).await;
            }
        }
        Err(attempts.timed_out())
    }

    /// Sends without waiting, from a destructor. Lost if the socket's buffer is full, and the BMC's own time-out then
    /// ends the session.
    fn send_last(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.try_send(datagram) {
            debug!(%error, "the last word of a session was not sent");
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], IpmiError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| IpmiError::Random)?;
    Ok(bytes)
}

fn random_seed() -> Result<Seed, IpmiError> {
    let [tag] = random()?;
    Ok(Seed { tag, console_id: u32::from_le_bytes(random()?), random: random()? })
}

#[cfg(test)]
mod tests;
