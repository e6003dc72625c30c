//! One operation's time with a plug: who it is first, then the question.

use std::fmt::Write;

use bytes::Bytes;
use hyper::{
    Method,
    header::{AUTHORIZATION, HeaderValue},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    config::{PlugConfig, PlugLogin, PlugModel},
    error::PlugError,
    reading::{IDENTITY, Reading, STATUS, Shelly, is_the_plug, shelly, shelly_gen1, tasmota},
};
use crate::{
    PowerState,
    web::{
        basic::basic_login,
        conversation::{Answer, Conversation, Question, Site},
        digest::Challenge,
    },
};

/// The account of every plug whose accounts have no names.
const ADMIN: &str = "admin";

/// A plug that may be asked.
pub(super) struct Visit<'a> {
    config: &'a PlugConfig,
    web: Conversation,
    deadline: Instant,
    /// The realm of its digests, once it has said who it is.
    realm: Option<String>,
}

impl<'a> Visit<'a> {
    /// Nothing is sent yet.
    pub(super) fn new(config: &'a PlugConfig, deadline: Instant) -> Self {
        let web = Conversation::new(Site { address: config.address, pins: None });
        Self { config, web, deadline, realm: None }
    }

    /// Reads the outlet, of the configured plug and no other.
    pub(super) async fn read(&mut self) -> Result<Reading, PlugError> {
        let PlugConfig { mac, outlet, .. } = *self.config;
        match self.config.model {
            PlugModel::ShellyGen1 => {
                self.identify().await?;
                let body = self.get(STATUS, "/status".to_owned()).await?;
                shelly_gen1(&body, mac, outlet)
            }
            PlugModel::Shelly => {
                self.identify().await?;
                let body = self.get(STATUS, format!("/rpc/Switch.GetStatus?id={outlet}")).await?;
                shelly(&body, outlet)
            }
            PlugModel::Tasmota => {
                let path = self.command("Status 0");
                let body = self.get(STATUS, path).await?;
                tasmota(&body, mac, outlet)
            }
        }
    }

    /// Tells the outlet, of the configured plug and no other.
    pub(super) async fn switch(&mut self, to: PowerState) -> Result<(), PlugError> {
        let what = match to {
            PowerState::Off => "the power-off",
            PowerState::On => "the power-on",
        };
        let outlet = self.config.outlet;
        match self.config.model {
            PlugModel::ShellyGen1 => {
                self.identify().await?;
                self.get(what, format!("/relay/{outlet}?turn={to}")).await?;
            }
            PlugModel::Shelly => {
                self.identify().await?;
                let body = Bytes::from(json!({ "id": outlet, "on": to == PowerState::On }).to_string());
                self.ask(Question::post(what, "/rpc/Switch.Set", body)).await?;
            }
            PlugModel::Tasmota => {
                self.read().await?;
                let path = self.command(&format!("Power{outlet} {to}"));
                self.get(what, path).await?;
            }
        }
        Ok(())
    }

    /// Asks a Shelly who it is, which it tells without a login: a stranger gets no password.
    pub(super) async fn identify(&mut self) -> Result<Shelly, PlugError> {
        let answer = self.web.ask(&Question::get(IDENTITY, "/shelly"), self.deadline).await?;
        let body = content(IDENTITY, &answer, self.config.outlet)?;
        let shelly = Shelly::read(&body)?;
        is_the_plug(shelly.mac()?, self.config.mac)?;
        match (self.config.model, shelly.is_first_generation()) {
            (PlugModel::ShellyGen1, false) => return Err(PlugError::OtherKind(PlugModel::Shelly.name())),
            (PlugModel::Shelly, true) => return Err(PlugError::OtherKind(PlugModel::ShellyGen1.name())),
            (PlugModel::ShellyGen1 | PlugModel::Shelly | PlugModel::Tasmota, _) => {}
        }
        if shelly.asks() && self.config.login.is_none() {
            return Err(PlugError::PasswordWanted);
        }
        self.realm = shelly.realm().map(str::to_owned);
        Ok(shelly)
    }

    async fn get(&mut self, what: &'static str, path: String) -> Result<Bytes, PlugError> {
        self.ask(Question::get(what, path)).await
    }

    async fn ask(&mut self, mut question: Question) -> Result<Bytes, PlugError> {
        let login = self.config.login.as_ref();
        if let (PlugModel::ShellyGen1, Some(login)) = (self.config.model, login) {
            let header = basic_login(login.user.as_str(), &login.password);
            question.headers.push((AUTHORIZATION, header));
        }
        let mut answer = self.web.ask(&question, self.deadline).await?;
        if let (PlugModel::Shelly, Some(login), 401) = (self.config.model, login, answer.status.as_u16()) {
            question.headers.push((AUTHORIZATION, self.digest(&answer, login, &question.method, &question.path)?));
            answer = self.web.ask(&question, self.deadline).await?;
            if answer.status.as_u16() == 401 && Challenge::of(&answer.headers).is_some_and(|again| again.stale) {
                return Err(PlugError::Busy { what: question.what, status: 401 });
            }
        }
        if answer.status.as_u16() == 401 && login.is_none() {
            return Err(PlugError::PasswordWanted);
        }
        content(question.what, &answer, self.config.outlet)
    }

    /// Answers a challenge, if it is of the plug that said who it is.
    fn digest(
        &self,
        answer: &Answer,
        login: &PlugLogin,
        method: &Method,
        path: &str,
    ) -> Result<HeaderValue, PlugError> {
        let challenge = Challenge::of(&answer.headers).ok_or(PlugError::WeakLogin)?;
        if self.realm.as_deref() != Some(challenge.realm.as_str()) {
            return Err(PlugError::WeakLogin);
        }
        let mut cnonce = [0; 16];
        let no_dice = PlugError::Nonsense { what: "a random number", why: "this machine gives none" };
        getrandom::fill(&mut cnonce).map_err(|_| no_dice)?;
        let value = challenge.answer(ADMIN, &login.password, method, path, cnonce);
        let mut header = HeaderValue::try_from(value).map_err(|_| PlugError::WeakLogin)?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// The path of a command of Tasmota. It may hold the password, and is never printed.
    fn command(&self, command: &str) -> String {
        let password = self.config.login.as_ref().map_or(&b""[..], |login| login.password.expose());
        // Room for all of it, so that no half of a password stays behind where the text grew.
        let mut path = String::with_capacity(64 + 3 * (password.len() + command.len()));
        path.push_str("/cm?");
        // Writing into a string can't fail.
        if self.config.login.is_some() {
            let _ = write!(path, "user={ADMIN}&password={}&", Escaped(password));
        }
        let _ = write!(path, "cmnd={}", Escaped(command.as_bytes()));
        path
    }
}

/// Bytes as a value in a query (RFC 3986, section 2.3): all but the unreserved are escaped.
struct Escaped<'a>(&'a [u8]);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => write!(f, "{}", char::from(*byte)),
            other => write!(f, "%{other:02X}"),
        })
    }
}

/// The body of an answer that is one.
fn content(what: &'static str, answer: &Answer, outlet: u8) -> Result<Bytes, PlugError> {
    match answer.status.as_u16() {
        // Tasmota says so with a good status, in older versions.
        200 if answer.body.starts_with(b"{\"WARNING\"") => Err(PlugError::Login(what)),
        200 => Ok(answer.body.clone()),
        401 | 403 => Err(PlugError::Login(what)),
        404 => Err(PlugError::NoOutlet(outlet)),
        status @ (429 | 503) => Err(PlugError::Busy { what, status }),
        status @ (400 | 405) => Err(PlugError::Refused { what, status }),
        status => Err(PlugError::Status { what, status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_query_is_escaped() {
        assert_eq!(Escaped(b"a b&c=d%e\xC3\xA4~").to_string(), "a%20b%26c%3Dd%25e%C3%A4~");
    }
}
