//! Plugs as their documentation describes them: relay, meter, login, identity.

use std::sync::{Arc, Mutex, MutexGuard};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    AccountName, MacAddress, Meter, PlugConfig, PlugDevice, PlugLogin, PlugModel, Secret,
    matrix::Trouble,
    web::{
        basic::basic_login,
        mock::{MockServer, Received, Reply},
    },
};

pub(crate) const MAC: &str = "a8:03:2a:be:54:dc";
pub(super) const USER: &str = "tiebreaker";
/// It has what a query has to escape.
pub(super) const PASSWORD: &str = "correct horse&battery=staple%";
const REALM: &str = "shellyplus1pm-a8032abe54dc";
const NONCE: &str = "60dc2c69";

/// What a plug is like.
pub(crate) struct State {
    pub(crate) model: PlugModel,
    pub(crate) mac: &'static str,
    pub(crate) relay: bool,
    /// The relay is welded together: it says what it was told, and power flows.
    pub(crate) welded: bool,
    /// What the node behind it takes.
    pub(crate) watts: f64,
    /// It tells them.
    pub(crate) meters: bool,
    /// Tasmota's `SetOption21`.
    pub(super) awake: bool,
    /// It asks for a login.
    pub(super) asks: bool,
    pub(super) nonce_is_stale: bool,
    /// It was told something that was meant for another plug.
    pub(crate) misdirected: bool,
    /// What is wrong with it, and what it showed when that began.
    trouble: Option<(Trouble, bool, f64)>,
    /// Any answer to a question, before its own.
    pub(crate) always: Option<fn(&Received) -> Option<Reply>>,
}

impl State {
    fn usual(model: PlugModel) -> Self {
        Self {
            model,
            mac: "A8032ABE54DC",
            relay: true,
            welded: false,
            watts: 41.7,
            meters: true,
            awake: true,
            asks: true,
            nonce_is_stale: false,
            misdirected: false,
            trouble: None,
            always: None,
        }
    }

    /// Whether the node behind it has power.
    pub(crate) fn has_power(&self) -> bool {
        self.relay || self.welded
    }

    pub(crate) fn set(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble.map(|trouble| (trouble, self.relay, self.flows()));
    }

    fn flows(&self) -> f64 {
        match self.trouble {
            Some((Trouble::Stale, _, watts)) => watts,
            _ if self.has_power() => self.watts,
            _ => 0.0,
        }
    }

    /// The relay as it is told.
    fn shown(&self) -> bool {
        match self.trouble {
            Some((Trouble::Stale, relay, _)) => relay,
            _ => self.relay,
        }
    }

    /// What it does with a command.
    fn switch(&mut self, on: bool) {
        match self.trouble {
            Some((Trouble::Stuck, ..)) => {}
            Some((Trouble::OtherMachine, ..)) => self.misdirected = true,
            _ => self.relay = on,
        }
    }

    fn answer(&mut self, question: &Received) -> Reply {
        if let Some(reply) = self.always.and_then(|always| always(question)) {
            return reply;
        }
        let command = ["turn=", "Switch.Set", "cmnd=Power"].iter().any(|part| question.path.contains(part));
        match self.trouble {
            Some((Trouble::Slow | Trouble::Unreachable, ..)) => return Reply::Hang(Vec::new()),
            Some((Trouble::Restarting, ..)) => return Reply::SendAndClose(Vec::new()),
            Some((Trouble::Refusing, ..)) if command => return Reply::text(400, &[], "no"),
            Some((Trouble::OtherMachine, ..)) => self.mac = "A8032ABE54DD",
            Some(_) | None => {}
        }
        match self.model {
            PlugModel::ShellyGen1 => self.gen1(question),
            PlugModel::Shelly => self.shelly(question),
            PlugModel::Tasmota => self.tasmota(question),
        }
    }

    fn gen1(&mut self, question: &Received) -> Reply {
        if question.path == "/shelly" {
            return fine(
                &json!({"type": "SHPLG-S", "mac": self.mac, "auth": self.asks, "fw": "20230913-113421/v1.14.0",
                "num_outputs": 1, "num_meters": 1}),
            );
        }
        let expected = basic_login(USER, &Secret::for_web(PASSWORD).unwrap());
        if self.asks && question.header("authorization").map(str::as_bytes) != Some(expected.as_bytes()) {
            return Reply::text(401, &[("WWW-Authenticate", "Basic realm=\"Shelly\"")], "401 Unauthorized");
        }
        match question.path.as_str() {
            "/status" => fine(&json!({"mac": self.mac, "relays": [{"ison": self.shown(), "overpower": false}],
                "meters": if self.meters { json!([{"power": self.flows(), "is_valid": true, "total": 1}]) } else { json!([]) },
                "uptime": 2268})),
            "/relay/0?turn=off" => self.turn(false),
            "/relay/0?turn=on" => self.turn(true),
            _ => Reply::text(404, &[], "Not Found"),
        }
    }

    fn turn(&mut self, on: bool) -> Reply {
        self.switch(on);
        fine(&json!({"ison": on, "has_timer": false, "source": "http"}))
    }

    fn shelly(&mut self, question: &Received) -> Reply {
        if question.path == "/shelly" {
            return fine(&json!({"name": null, "id": REALM, "mac": self.mac, "model": "SNSW-001P16EU", "gen": 2,
                "app": "Plus1PM", "auth_en": self.asks, "auth_domain": self.asks.then_some(REALM)}));
        }
        if self.asks && !lets_in(question) {
            let stale = if self.nonce_is_stale { ", stale=true" } else { "" };
            let challenge =
                format!("Digest qop=\"auth\", realm=\"{REALM}\", nonce=\"{NONCE}\", algorithm=SHA-256{stale}");
            return Reply::text(401, &[("WWW-Authenticate", &challenge)], "");
        }
        match (question.method.as_str(), question.path.as_str()) {
            ("GET", "/rpc/Switch.GetStatus?id=0") => {
                let mut status = json!({"id": 0, "source": "HTTP_in", "output": self.shown(), "voltage": 229.6});
                if self.meters {
                    status["apower"] = json!(self.flows());
                }
                fine(&status)
            }
            ("POST", "/rpc/Switch.Set") => {
                let asked = question.json();
                assert_eq!(asked["id"], 0);
                let was = self.relay;
                self.switch(asked["on"].as_bool().unwrap());
                fine(&json!({"was_on": was}))
            }
            _ => Reply::json(404, &[], &json!({"code": 404, "message": "No handler"})),
        }
    }

    fn tasmota(&mut self, question: &Received) -> Reply {
        let login = "user=admin&password=correct%20horse%26battery%3Dstaple%25&";
        let query = question.path.strip_prefix("/cm?").unwrap();
        let command = if self.asks { query.strip_prefix(login) } else { Some(query) };
        match command {
            None => Reply::json(401, &[], &json!({"WARNING": "Need user=<username>&password=<password>"})),
            Some("cmnd=Status%200") => fine(&self.tasmota_status()),
            Some("cmnd=Power1%20off") => self.tasmota_power(false),
            Some("cmnd=Power1%20on") => self.tasmota_power(true),
            Some(_) => fine(&json!({"Command": "Unknown"})),
        }
    }

    fn tasmota_power(&mut self, on: bool) -> Reply {
        self.switch(on);
        fine(&json!({"POWER": if on { "ON" } else { "OFF" }}))
    }

    fn tasmota_status(&self) -> Value {
        // Asleep it shows nothing for an open relay, whatever flows.
        let watts = if self.shown() || self.awake { self.flows() } else { 0.0 };
        let options = if self.awake { "00208009" } else { "00008009" };
        let mut sensors = json!({"Time": "2026-11-25T22:00:00"});
        if self.meters {
            sensors["ENERGY"] = json!({"Total": 12.4, "Power": watts.round(), "Voltage": 229});
        }
        json!({
            "Status": {"Module": 43, "FriendlyName": ["plug"], "Power": if self.relay { "1" } else { "0" }},
            "StatusLOG": {"SerialLog": 2, "SetOption": [options, "2805C8000100060000005A0A190000000000", "00000080"]},
            "StatusNET": {"Hostname": "plug-5340", "IPAddress": "192.0.2.20", "Mac": self.mac},
            "StatusSNS": sensors,
            "StatusSTS": {"Time": "2026-11-25T22:00:00", "POWER": if self.shown() { "ON" } else { "OFF" }},
        })
    }
}

fn fine(body: &Value) -> Reply {
    Reply::json(200, &[("Connection", "keep-alive")], body)
}

/// Whether the digest is right, worked out anew from RFC 7616.
fn lets_in(question: &Received) -> bool {
    let Some(header) = question.header("authorization") else { return false };
    let value = |name: &str| {
        let (_, rest) = header.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0
    };
    let hash = |text: String| HEXLOWER.encode(&Sha256::digest(text));
    let secret = hash(format!("admin:{REALM}:{PASSWORD}"));
    let asked = hash(format!("{}:{}", question.method, question.path));
    let response = hash(format!("{secret}:{NONCE}:00000001:{}:auth:{asked}", value("cnonce")));
    value("uri") == question.path && value("username") == "admin" && value("response") == response
}

/// The plug, served.
pub(crate) struct FakePlug {
    pub(crate) server: MockServer,
    state: Arc<Mutex<State>>,
}

impl FakePlug {
    pub(crate) async fn of(model: PlugModel) -> Self {
        Self::like(model, |_| {}).await
    }

    pub(crate) async fn like(model: PlugModel, change: impl FnOnce(&mut State)) -> Self {
        let mut state = State::usual(model);
        change(&mut state);
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server = MockServer::plain(move |question| shared.lock().unwrap().answer(question)).await;
        Self { server, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn config(&self) -> PlugConfig {
        let model = self.state().model;
        PlugConfig {
            address: self.server.site.address,
            model,
            mac: MAC.parse::<MacAddress>().unwrap(),
            outlet: model.first_outlet(),
            login: Some(PlugLogin {
                user: AccountName::new(USER).unwrap(),
                password: Secret::for_web(PASSWORD).unwrap(),
            }),
            meter: Meter::USUAL,
        }
    }

    pub(crate) fn device(&self) -> PlugDevice {
        PlugDevice::new(self.config())
    }

    pub(super) fn unmeasured(&self) -> PlugDevice {
        PlugDevice::new(PlugConfig { meter: Meter::None, ..self.config() })
    }
}
