//! A BMC that speaks Redfish, with the quirks that BMCs were seen to have.

use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::{
    AccountName, RedfishConfig, RedfishDevice, RedfishLogin, Secret,
    web::{
        basic::basic_login,
        mock::{MockServer, Received, Reply},
    },
};

pub(crate) const UUID: &str = "4c4c4544-0042-3510-8054-b4c04f4d3132";
pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(crate) const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
pub(crate) const SESSION: &str = "/redfish/v1/SessionService/Sessions/7";
const TOKEN: &str = "token-of-the-test";
pub(crate) const USER: &str = "tiebreaker";
pub(crate) const PASSWORD: &str = "correct-horse-battery-staple-2026";

/// What a BMC is like.
pub(crate) struct State {
    /// `PowerState`, as it is told.
    pub(crate) power: Value,
    /// What a reset makes of it; by default what was asked for.
    pub(crate) becomes: Option<Value>,
    pub(crate) id: &'static str,
    pub(crate) uuid: Value,
    /// The kinds of reset, told by the system.
    pub(crate) inline: Option<Value>,
    /// The kinds of reset, told elsewhere.
    pub(crate) action_info: Option<Value>,
    /// The answer to a reset: status and body.
    pub(crate) reset: (u16, Value),
    /// 400 for what is the case already.
    pub(crate) refuses_needless: bool,
    /// The ETag that a reset has to name, and the status without it.
    pub(crate) etag: Option<(&'static str, &'static str, u16)>,
    /// The role of our account; `None` without a service of accounts.
    pub(crate) role: Option<&'static str>,
    /// The privileges of a role that isn't one of the usual.
    pub(crate) privileges: Value,
    /// Sessions that are open, and were made.
    pub(crate) sessions: usize,
    pub(crate) sessions_made: usize,
    /// So many questions in a session get a 401.
    pub(crate) forgets: usize,
    /// The whole system, in place of all of the above.
    pub(crate) says: Option<Value>,
    /// An answer to any question but the logout, whatever is asked.
    pub(crate) always: Option<fn(&Received) -> Option<Reply>>,
}

impl State {
    fn usual() -> Self {
        Self {
            power: json!("On"),
            becomes: None,
            id: SYSTEM,
            uuid: json!(UUID),
            inline: Some(json!(["On", "ForceOff", "GracefulShutdown", "ForceRestart"])),
            action_info: None,
            reset: (204, Value::Null),
            refuses_needless: false,
            etag: None,
            role: Some("Operator"),
            privileges: json!([]),
            sessions: 0,
            sessions_made: 0,
            forgets: 0,
            says: None,
            always: None,
        }
    }

    fn answer(&mut self, question: &Received) -> Reply {
        if let Some(reply) = self.always.and_then(|always| always(question)) {
            return reply;
        }
        let (method, path) = (question.method.as_str(), question.path.as_str());
        let expected = basic_login(USER, &Secret::for_web(PASSWORD).unwrap());
        let basic = question.header("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes());
        let mut session = question.header("x-auth-token") == Some(TOKEN) && self.sessions > 0;
        if session && self.forgets > 0 && method != "DELETE" {
            self.forgets -= 1;
            self.sessions -= 1;
            session = false;
        }
        match (method, path) {
            ("GET", "/redfish/v1/") => return Reply::json(200, &[], &self.root()),
            ("POST", "/redfish/v1/SessionService/Sessions") => return self.log_in(question),
            _ if !basic && !session => return Reply::json(401, &[], &error("Base.1.8.NoValidSession")),
            ("DELETE", SESSION) => {
                self.sessions -= 1;
                return Reply::text(204, &[], "");
            }
            ("GET", SYSTEM) => {
                let etag = self.etag.map(|(shown, ..)| ("ETag", shown));
                return Reply::json(200, etag.as_slice(), &self.system());
            }
            ("GET", "/redfish/v1/Systems/1/ResetActionInfo") => self.action_info.clone(),
            ("GET", "/redfish/v1/AccountService") => {
                self.role.map(|_| json!({"Accounts": {"@odata.id": "/redfish/v1/AccountService/Accounts"}}))
            }
            ("GET", "/redfish/v1/AccountService/Accounts") => Some(json!({"Members": [
                {"@odata.id": "/redfish/v1/AccountService/Accounts/1"},
                {"@odata.id": "/redfish/v1/AccountService/Accounts/2"},
                {"@odata.id": "/redfish/v1/AccountService/Accounts/3"},
            ]})),
            // Others' accounts are none of our business.
            ("GET", "/redfish/v1/AccountService/Accounts/1") => {
                return Reply::json(403, &[], &error("Base.1.8.InsufficientPrivilege"));
            }
            ("GET", "/redfish/v1/AccountService/Accounts/2") => Some(json!({"UserName": "", "RoleId": null})),
            ("GET", "/redfish/v1/AccountService/Accounts/3") => Some(json!({
                "UserName": USER, "RoleId": self.role,
                "Links": {"Role": {"@odata.id": "/redfish/v1/AccountService/Roles/Own"}},
            })),
            ("GET", "/redfish/v1/AccountService/Roles/Own") => {
                Some(json!({"Id": "Own", "AssignedPrivileges": self.privileges}))
            }
            ("POST", RESET) => return self.switch(question),
            _ => None,
        }
        .map_or_else(
            || Reply::json(404, &[], &error("Base.1.8.ResourceMissingAtURI")),
            |body| Reply::json(200, &[], &body),
        )
    }

    fn root(&self) -> Value {
        json!({
            "AccountService": self.role.map(|_| json!({"@odata.id": "/redfish/v1/AccountService"})),
            "Links": {"Sessions": {"@odata.id": "/redfish/v1/SessionService/Sessions"}},
        })
    }

    fn log_in(&mut self, question: &Received) -> Reply {
        if question.json() != json!({"UserName": USER, "Password": PASSWORD}) {
            return Reply::json(401, &[], &error("Base.1.8.ResourceAtUriUnauthorized"));
        }
        self.sessions += 1;
        self.sessions_made += 1;
        let location = format!("https://bmc.invalid{SESSION}");
        Reply::json(201, &[("X-Auth-Token", TOKEN), ("Location", &location)], &json!({"@odata.id": SESSION}))
    }

    pub(crate) fn system(&self) -> Value {
        if let Some(says) = &self.says {
            return says.clone();
        }
        let mut reset = json!({"target": RESET});
        if let Some(kinds) = &self.inline {
            reset["ResetType@Redfish.AllowableValues"] = kinds.clone();
        }
        if self.action_info.is_some() {
            reset["@Redfish.ActionInfo"] = json!("/redfish/v1/Systems/1/ResetActionInfo");
        }
        json!({
            "@odata.id": self.id, "UUID": self.uuid, "PowerState": self.power,
            "Actions": {"#ComputerSystem.Reset": reset},
        })
    }

    fn switch(&mut self, question: &Received) -> Reply {
        if let Some((_, wanted, status)) = self.etag
            && question.header("if-match") != Some(wanted)
        {
            return Reply::json(status, &[], &error("Base.1.8.PreconditionFailed"));
        }
        let wanted = match question.json()["ResetType"].as_str().unwrap() {
            "ForceOff" => json!("Off"),
            "On" | "ForceOn" => json!("On"),
            other => panic!("fencing never asks for {other}"),
        };
        if self.refuses_needless && self.power == wanted {
            return Reply::json(400, &[], &error("Base.1.8.NoOperation"));
        }
        if self.reset.0 < 300 {
            self.power = self.becomes.clone().unwrap_or(wanted);
        }
        let location = ("Location", "/redfish/v1/TaskService/Tasks/1");
        Reply::json(self.reset.0, &[location], &self.reset.1)
    }
}

pub(crate) fn error(message: &str) -> Value {
    json!({"error": {"code": message, "@Message.ExtendedInfo": [{"MessageId": message, "Message": PASSWORD}]}})
}

/// The BMC, served with TLS.
pub(crate) struct FakeBmc {
    pub(crate) server: MockServer,
    state: Arc<Mutex<State>>,
}

impl FakeBmc {
    pub(crate) async fn start() -> Self {
        Self::like(|_| {}).await
    }

    pub(crate) async fn like(change: impl FnOnce(&mut State)) -> Self {
        let mut state = State::usual();
        change(&mut state);
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server = MockServer::tls(move |question| shared.lock().unwrap().answer(question)).await;
        Self { server, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// How many sessions were made, and are open.
    pub(crate) fn sessions(&self) -> (usize, usize) {
        let state = self.state();
        (state.sessions_made, state.sessions)
    }

    pub(crate) fn config(&self) -> RedfishConfig {
        RedfishConfig {
            address: self.server.site.address,
            pins: self.server.site.pins.unwrap(),
            user: AccountName::new(USER).unwrap(),
            password: Secret::for_web(PASSWORD).unwrap(),
            login: RedfishLogin::Basic,
            system: SYSTEM.parse().unwrap(),
            uuid: Some(UUID.to_owned()),
            drilled: false,
        }
    }

    pub(crate) fn device(&self) -> RedfishDevice {
        RedfishDevice::new(self.config())
    }

    pub(crate) fn drilled(&self) -> RedfishDevice {
        RedfishDevice::new(RedfishConfig { drilled: true, ..self.config() })
    }

    pub(crate) fn in_sessions(&self) -> RedfishDevice {
        RedfishDevice::new(RedfishConfig { login: RedfishLogin::Session, ..self.config() })
    }

    /// The resets that it was asked for.
    pub(crate) fn resets(&self) -> Vec<String> {
        let questions = self.server.questions();
        let resets = questions.iter().filter(|question| question.path == RESET);
        resets.map(|question| question.json()["ResetType"].as_str().unwrap().to_owned()).collect()
    }
}
