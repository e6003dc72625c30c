//! A login as the console sees it: Open Session, RAKP 1 to 4. Takes datagrams, gives datagrams; no socket, no clock, no
//! randomness of its own.
//!
//! A datagram that isn't the awaited answer is skipped, since anyone can send one; the last reason is kept for the
//! error that a deadline makes of it. Only what the BMC alone could have said ends the login.

use super::{
    config::{IpmiConfig, Suite},
    crypto::{Exchange, Keys, code_matches},
    error::{IpmiError, Malformed, Stage},
    packet::{Packet, PayloadType, sessionless},
    rakp::{NAME_ONLY_LOOKUP, OpenReply, OpenRequest, Rakp1, Rakp2, Rakp3, Rakp4, ReplyHead, Status},
    session::Session,
};
use crate::Secret;

/// The random numbers of one login.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    pub(crate) tag: u8,
    pub(crate) console_id: u32,
    pub(crate) random: [u8; 16],
}

enum Phase {
    Opening,
    Naming(Exchange),
    Proving(Exchange),
    Over,
}

/// A login under way.
pub(crate) struct Login<'a> {
    config: &'a IpmiConfig,
    seed: Seed,
    phase: Phase,
}

/// What a datagram led to.
pub(crate) enum Step {
    /// Not the awaited answer: go on waiting.
    Skip(Malformed),
    /// The next message.
    Send(Vec<u8>),
    /// Logged in.
    Done(Box<Session>),
    /// Over.
    Fail(IpmiError),
}

impl<'a> Login<'a> {
    /// Begins, with the first message to send. An id of zero means "no session" on the wire and is made one.
    pub(crate) fn start(config: &'a IpmiConfig, mut seed: Seed) -> (Self, Vec<u8>) {
        seed.console_id = seed.console_id.max(1);
        let request = OpenRequest::new(seed.tag, seed.console_id, config.suite).encode();
        let login = Self { config, seed, phase: Phase::Opening };
        (login, sessionless(PayloadType::OpenSessionRequest, &request))
    }

    /// What is being awaited.
    pub(crate) fn stage(&self) -> Stage {
        match self.phase {
            Phase::Opening => Stage::OpenSession,
            Phase::Naming(_) => Stage::Rakp1,
            Phase::Proving(_) | Phase::Over => Stage::Rakp3,
        }
    }

    /// The message that frees the half-open session at the BMC, if there is one (RAKP message 3 with a status).
    pub(crate) fn abort(&self) -> Option<Vec<u8>> {
        match &self.phase {
            Phase::Naming(exchange) | Phase::Proving(exchange) => {
                let status = Status::INVALID_CHECK_VALUE;
                let message = Rakp3 { tag: self.seed.tag, status, bmc_id: exchange.bmc_id, code: vec![] };
                Some(sessionless(PayloadType::Rakp3, &message.encode()))
            }
            Phase::Opening | Phase::Over => None,
        }
    }

    /// Takes a datagram.
    pub(crate) fn receive(&mut self, datagram: &[u8]) -> Step {
        match self.awaited(datagram) {
            Ok((payload, Status::OK)) => self.advance(payload).unwrap_or_else(Step::Skip),
            Ok((_, status)) => Step::Fail(self.refused(status)),
            Err(what) => Step::Skip(what),
        }
    }

    /// The payload and its status, if this is an answer to the message last sent.
    fn awaited<'d>(&self, datagram: &'d [u8]) -> Result<(&'d [u8], Status), Malformed> {
        let wanted = match self.phase {
            Phase::Opening => PayloadType::OpenSessionResponse,
            Phase::Naming(_) => PayloadType::Rakp2,
            Phase::Proving(_) => PayloadType::Rakp4,
            Phase::Over => return Err(Malformed("reply after the login")),
        };
        let Packet::Rmcp20(packet) = Packet::parse(datagram)? else {
            return Err(Malformed("IPMI v1.5 packet during an IPMI v2.0 login"));
        };
        let payload = packet.sessionless(wanted)?;
        let head = ReplyHead::parse(payload)?;
        if head.tag != self.seed.tag {
            return Err(Malformed::OTHER_TAG);
        }
        // A refusal may leave the id out; what names another session isn't ours.
        if ReplyHead::refused_session(payload).is_some_and(|id| id != self.seed.console_id) {
            return Err(Malformed::OTHER_LOGIN);
        }
        Ok((payload, head.status))
    }

    fn advance(&mut self, payload: &[u8]) -> Result<Step, Malformed> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Opening => {
                let reply = OpenReply::parse(payload).inspect_err(|_| self.phase = Phase::Opening)?;
                Ok(self.opened(&reply))
            }
            Phase::Naming(exchange) => match Rakp2::parse(payload, self.config.suite) {
                Ok(reply) => Ok(self.challenged(exchange, reply)),
                Err(what) => {
                    self.phase = Phase::Naming(exchange);
                    Err(what)
                }
            },
            Phase::Proving(exchange) => match Rakp4::parse(payload, self.config.suite) {
                Ok(reply) => Ok(self.proven(exchange, &reply)),
                Err(what) => {
                    self.phase = Phase::Proving(exchange);
                    Err(what)
                }
            },
            Phase::Over => Err(Malformed("reply after the login")),
        }
    }

    fn opened(&mut self, reply: &OpenReply) -> Step {
        let suite = self.config.suite;
        if reply.algorithms != suite.algorithms() {
            return Step::Fail(IpmiError::Downgrade { suite });
        }
        if reply.bmc_id == 0 {
            self.phase = Phase::Opening;
            return Step::Skip(Malformed("Open Session reply with session id zero"));
        }
        let exchange = Exchange {
            suite,
            console_id: self.seed.console_id,
            bmc_id: reply.bmc_id,
            console_random: self.seed.random,
            bmc_random: [0; 16],
            bmc_guid: [0; 16],
            role: NAME_ONLY_LOOKUP | self.config.privilege.level(),
            user: self.config.user.bytes().to_vec(),
        };
        let message = Rakp1 {
            tag: self.seed.tag,
            bmc_id: exchange.bmc_id,
            console_random: exchange.console_random,
            role: exchange.role,
            user: exchange.user.clone(),
        };
        self.phase = Phase::Naming(exchange);
        Step::Send(sessionless(PayloadType::Rakp1, &message.encode()))
    }

    fn challenged(&mut self, mut exchange: Exchange, reply: Rakp2) -> Step {
        let suite = self.config.suite;
        exchange.bmc_random = reply.bmc_random;
        exchange.bmc_guid = reply.bmc_guid;
        let wanted = exchange.rakp2_code(&self.config.password);
        let code = exchange.rakp3_code(&self.config.password).to_vec();
        let message = Rakp3 { tag: self.seed.tag, status: Status::OK, bmc_id: exchange.bmc_id, code };
        // Kept on failure too: the caller sends `abort`, so that the BMC's slot is free at once.
        self.phase = Phase::Proving(exchange);
        if !code_matches(&reply.code, &wanted, suite.code_bytes()) {
            return Step::Fail(IpmiError::WrongPassword);
        }
        Step::Send(sessionless(PayloadType::Rakp3, &message.encode()))
    }

    fn proven(&mut self, exchange: Exchange, reply: &Rakp4) -> Step {
        let suite = self.config.suite;
        let integrity_key = exchange.integrity_key(self.kg());
        let wanted = exchange.rakp4_code(&integrity_key);
        if !code_matches(&reply.code, &wanted, suite.icv_bytes()) {
            // The BMC proved in message 2 that it shares the password, so the other key must differ.
            return Step::Fail(IpmiError::WrongKg);
        }
        let keys = Keys::derive(suite, &integrity_key);
        Step::Done(Box::new(Session::new(keys, exchange.console_id, exchange.bmc_id)))
    }

    fn kg(&self) -> &Secret {
        self.config.kg.as_ref().unwrap_or(&self.config.password)
    }

    fn refused(&self, status: Status) -> IpmiError {
        let stage = self.stage();
        let suite: Suite = self.config.suite;
        match status {
            Status::NO_RESOURCES | Status::NO_RESOURCES_FOR_ROLE => IpmiError::OutOfSessions,
            Status::INVALID_ROLE | Status::UNAUTHORIZED_ROLE => IpmiError::RoleRefused,
            Status::INVALID_NAME_LENGTH | Status::UNAUTHORIZED_NAME => IpmiError::NoSuchUser,
            Status::INVALID_CHECK_VALUE => IpmiError::WrongPassword,
            Status::BAD_AUTHENTICATION
            | Status::BAD_INTEGRITY
            | Status::NO_AUTHENTICATION_MATCH
            | Status::NO_INTEGRITY_MATCH
            | Status::BAD_CONFIDENTIALITY
            | Status::NO_SUITE_MATCH => IpmiError::SuiteRefused { suite, status },
            Status::ILLEGAL_PARAMETER if stage == Stage::OpenSession => IpmiError::SuiteRefused { suite, status },
            _ => IpmiError::Refused { stage, status },
        }
    }
}

#[cfg(test)]
mod tests;
