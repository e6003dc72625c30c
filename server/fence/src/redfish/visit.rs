//! One operation's time with a BMC: login, questions, and the end of the session whatever happens.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Method,
    header::{AUTHORIZATION, ETAG, HeaderName, HeaderValue, IF_MATCH, LOCATION},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tracing::debug;
use zeroize::Zeroizing;

use super::{
    config::{RedfishConfig, RedfishLogin, ResourcePath},
    error::RedfishError,
    resource::{Root, System, json, message_id, nonsense},
};
use crate::web::{
    basic::basic_login,
    conversation::{Answer, Conversation, Question, Site},
};

/// The root of every Redfish service (DSP0266, section 6.6). With the slash: some servers redirect without it.
const ROOT: &str = "/redfish/v1/";
/// Where sessions are made on a BMC whose root doesn't say.
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
/// Ending a session gets this long.
const END_WITHIN: Duration = Duration::from_secs(2);
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// A BMC that lets us in.
pub(super) struct Visit {
    config: Arc<RedfishConfig>,
    web: Conversation,
    deadline: Instant,
    /// Goes with each question.
    pass: Pass,
}

enum Pass {
    /// Nothing: the session isn't there yet, or not any more.
    None,
    Basic(HeaderValue),
    Session {
        token: HeaderValue,
        path: ResourcePath,
    },
}

impl Visit {
    /// Logs in, where that is a step of its own.
    pub(super) async fn begin(config: Arc<RedfishConfig>, deadline: Instant) -> Result<Self, RedfishError> {
        let web = Conversation::new(Site { address: config.address, pins: Some(config.pins) });
        let mut visit = Self { config, web, deadline, pass: Pass::None };
        match visit.config.login {
            RedfishLogin::Basic => {
                visit.pass = Pass::Basic(basic_login(visit.config.user.as_str(), &visit.config.password));
            }
            RedfishLogin::Session => visit.log_in().await?,
        }
        Ok(visit)
    }

    pub(super) fn config(&self) -> &RedfishConfig {
        &self.config
    }

    async fn log_in(&mut self) -> Result<(), RedfishError> {
        const WHAT: &str = "the login";
        #[derive(Serialize)]
        struct Credentials<'a> {
            #[serde(rename = "UserName")]
            name: &'a str,
            #[serde(rename = "Password")]
            password: &'a str,
        }
        #[derive(serde::Deserialize)]
        struct Made {
            #[serde(rename = "@odata.id")]
            path: Option<String>,
        }
        let root: Root = self.get("the root", ROOT).await?;
        let path = root.links.and_then(|links| links.sessions).map(|link| link.path);
        let path = path.as_ref().map_or(SESSIONS, ResourcePath::as_str);
        let password = std::str::from_utf8(self.config.password.expose())
            .map_err(|_| RedfishError::Login("the configured password is no text"))?;
        // Room for all of it, so that no half of a password stays behind where the buffer grew.
        let mut body = Zeroizing::new(Vec::with_capacity(8 * 1024));
        let credentials = Credentials { name: self.config.user.as_str(), password };
        serde_json::to_writer(&mut *body, &credentials).map_err(|source| RedfishError::Json { what: WHAT, source })?;
        let answer = self.put(&Question::post(WHAT, path, Bytes::from_owner(body))).await?;
        match answer.status.as_u16() {
            200..=202 => {}
            400 | 401 | 403 => return Err(RedfishError::Login("it makes no session")),
            status => return Err(refusal(WHAT, status, None)),
        }
        let mut token =
            answer.headers.get(&TOKEN).cloned().ok_or_else(|| nonsense(WHAT, "it gives no X-Auth-Token"))?;
        token.set_sensitive(true);
        let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok()).map(str::to_owned);
        let told = location.or_else(|| serde_json::from_slice(&answer.body).ok().and_then(|made: Made| made.path));
        let path = told
            .as_deref()
            .and_then(|told| local(told).parse().ok())
            .ok_or_else(|| nonsense(WHAT, "it doesn't tell how to end the session"))?;
        self.pass = Pass::Session { token, path };
        Ok(())
    }

    /// Reads a resource.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, what: &'static str, path: &str) -> Result<T, RedfishError> {
        let answer = self.read(what, path).await?;
        json(what, &answer.body)
    }

    /// Reads a resource, as it came.
    pub(super) async fn read(&mut self, what: &'static str, path: &str) -> Result<Answer, RedfishError> {
        let answer = self.put(&Question::get(what, path)).await?;
        match answer.status.as_u16() {
            200 => Ok(answer),
            401 => Err(self.unknown(what)),
            status => Err(refusal(what, status, message_id(&answer.body))),
        }
    }

    /// Asks for an action. The answer has any status but 401.
    pub(super) async fn act(
        &mut self,
        what: &'static str,
        path: &ResourcePath,
        body: &Bytes,
        if_match: Option<HeaderValue>,
    ) -> Result<Answer, RedfishError> {
        let mut question = Question::post(what, path.as_str(), body.clone());
        question.headers.extend(if_match.map(|etag| (IF_MATCH, etag)));
        let answer = self.put(&question).await?;
        if answer.status.as_u16() == 401 { Err(self.unknown(what)) } else { Ok(answer) }
    }

    /// Reads the system, and makes sure that it is the configured one. With it comes its ETag.
    pub(super) async fn system(&mut self) -> Result<(System, Option<String>), RedfishError> {
        const WHAT: &str = "the system";
        let path = self.config.system.clone();
        let answer = self.read(WHAT, path.as_str()).await?;
        let system = System::read(WHAT, &answer.body, &path)?;
        if let Some(wanted) = &self.config.uuid
            && !system.guid().is_some_and(|guid| guid.matches_dmi(wanted))
        {
            let told = match system.guid() {
                Some(guid) => format!("its UUID is {guid}"),
                None => "it tells no UUID".to_owned(),
            };
            return Err(RedfishError::OtherSystem(format!("{told}, {wanted} is configured")));
        }
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let etag = etag.or_else(|| system.etag.clone());
        Ok((system, etag))
    }

    async fn put(&mut self, question: &Question) -> Result<Answer, RedfishError> {
        let mut question = question.clone();
        match &self.pass {
            Pass::None => {}
            Pass::Basic(value) => question.headers.push((AUTHORIZATION, value.clone())),
            Pass::Session { token, .. } => question.headers.push((TOKEN, token.clone())),
        }
        Ok(self.web.ask(&question, self.deadline).await?)
    }

    /// What a 401 means.
    fn unknown(&mut self, what: &'static str) -> RedfishError {
        match std::mem::replace(&mut self.pass, Pass::None) {
            Pass::Session { .. } => RedfishError::SessionEnded(what),
            Pass::None | Pass::Basic(_) => RedfishError::Login("status 401"),
        }
    }

    /// Ends the session. What becomes of that changes nothing about the operation.
    pub(super) async fn end(mut self) {
        if Instant::now() >= self.deadline {
            // Nobody waits any more, so it is ended as when the caller went away.
            return;
        }
        if let Some(question) = self.parting() {
            let until = self.deadline.min(Instant::now() + END_WITHIN);
            if let Err(error) = self.web.ask(&question, until).await {
                debug!(%error, "the BMC doesn't say whether it ended the session");
            }
        }
    }

    /// The question that ends the session, once.
    fn parting(&mut self) -> Option<Question> {
        match std::mem::replace(&mut self.pass, Pass::None) {
            Pass::None | Pass::Basic(_) => None,
            Pass::Session { token, path } => Some(Question {
                what: "the logout",
                method: Method::DELETE,
                path: Zeroizing::new(path.into()),
                headers: vec![(TOKEN, token)],
                body: None,
            }),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Who asked went away in the middle: a BMC has few sessions, so ours is ended all the same, on a connection of its
        // own, because this one may wait for another answer.
        if let Some(question) = self.parting()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let mut web = Conversation::new(Site { address: self.config.address, pins: Some(self.config.pins) });
            runtime.spawn(async move {
                let _ = web.ask(&question, Instant::now() + END_WITHIN).await;
            });
        }
    }
}

/// The path of a location, whether it names the host or not. Only the path is used: nobody is sent elsewhere.
fn local(location: &str) -> &str {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
    rest.and_then(|rest| rest.find('/').and_then(|slash| rest.get(slash..))).unwrap_or(location)
}

/// What a status other than the wanted one means to a question that changes nothing.
pub(super) fn refusal(what: &'static str, status: u16, message: Option<String>) -> RedfishError {
    match status {
        429 | 503 => RedfishError::Busy { what, status },
        400 | 403 | 404 | 405 | 409 | 410 | 412 | 428 | 501 => RedfishError::Refused { what, status, message },
        status => RedfishError::Status { what, status, message },
    }
}

/// The root of the service.
pub(super) async fn root(visit: &mut Visit) -> Result<Root, RedfishError> {
    visit.get("the root", ROOT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_reduced_to_its_path() {
        for location in ["https://192.0.2.1/redfish/v1/S/1", "http://bmc:80/redfish/v1/S/1", "/redfish/v1/S/1"] {
            assert_eq!(local(location), "/redfish/v1/S/1");
        }
        assert!(local("https://bmc").parse::<ResourcePath>().is_err());
    }
}
