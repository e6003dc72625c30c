//! What a BMC says, read from JSON. Pure.
//!
//! What isn't needed is skipped, what is needed is read strictly: a state that is missing, null or unknown is no state.

use serde::{Deserialize, de::DeserializeOwned};

use super::{config::ResourcePath, error::RedfishError};
use crate::{PowerState, SystemGuid, web::json::object};

/// The name of the only kind of reset that fencing uses. "GracefulShutdown" asks the operating system, and the others
/// come back on.
pub(super) const FORCE_OFF: &str = "ForceOff";
pub(super) const ON: &str = "On";
pub(super) const FORCE_ON: &str = "ForceOn";

/// The longest text of a BMC that an error repeats.
const MAX_REPEATED: usize = 80;

/// A system, as far as fencing goes.
#[derive(Debug)]
pub(super) struct System {
    power: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) reset: Option<Reset>,
    /// The ETag in the body.
    pub(super) etag: Option<String>,
}

/// The action that switches a system.
#[derive(Debug, Clone)]
pub(super) struct Reset {
    pub(super) target: ResourcePath,
    /// The kinds that it takes, where the system itself tells.
    pub(super) kinds: Option<Vec<String>>,
    /// Where else that is told.
    pub(super) info: Option<ResourcePath>,
}

#[derive(Deserialize)]
struct RawSystem {
    #[serde(rename = "@odata.id")]
    id: Option<String>,
    #[serde(rename = "@odata.etag")]
    etag: Option<String>,
    #[serde(rename = "UUID")]
    uuid: Option<String>,
    #[serde(rename = "PowerState")]
    power: Option<String>,
    #[serde(rename = "Actions")]
    actions: Option<RawActions>,
}

#[derive(Deserialize)]
struct RawActions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<RawReset>,
}

#[derive(Deserialize)]
struct RawReset {
    target: Option<String>,
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    kinds: Option<Vec<String>>,
    #[serde(rename = "@Redfish.ActionInfo")]
    info: Option<String>,
}

impl System {
    /// Reads a system, and makes sure that it is the one at `path`.
    pub(super) fn read(what: &'static str, body: &[u8], path: &ResourcePath) -> Result<Self, RedfishError> {
        let raw: RawSystem = json(what, body)?;
        let id: ResourcePath = raw
            .id
            .as_deref()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| nonsense(what, "it has no @odata.id of its own"))?;
        if !id.same(path) {
            return Err(RedfishError::OtherSystem(format!("{path} was asked, {id} answers")));
        }
        let reset =
            raw.actions.and_then(|actions| actions.reset).map(|raw| Reset::check(what, raw, path)).transpose()?;
        Ok(Self { power: raw.power, uuid: raw.uuid, reset, etag: raw.etag })
    }

    /// The power state. On is all that isn't off for good: what is about to go off, or is paused, has power.
    pub(super) fn power(&self, what: &'static str) -> Result<PowerState, RedfishError> {
        match self.power.as_deref() {
            Some("Off") => Ok(PowerState::Off),
            Some("On" | "PoweringOn" | "PoweringOff" | "Paused") => Ok(PowerState::On),
            Some(other) => Err(nonsense(what, format!("{:?} is no power state", repeated(other)))),
            None => Err(nonsense(what, "it tells no power state")),
        }
    }

    /// The machine behind it. `None` where it tells none, or one that firmware makes up when nobody set it.
    pub(super) fn guid(&self) -> Option<SystemGuid> {
        SystemGuid::from_uuid(self.uuid.as_deref()?)
    }
}

impl Reset {
    fn check(what: &'static str, raw: RawReset, system: &ResourcePath) -> Result<Self, RedfishError> {
        let target: ResourcePath = raw
            .target
            .as_deref()
            .and_then(|target| target.parse().ok())
            .ok_or_else(|| nonsense(what, "its reset action has no target on this device"))?;
        // DSP0266 puts actions below their resource. A target anywhere else would switch another machine.
        if !target.below(system) {
            return Err(RedfishError::OtherSystem(format!("the reset action of {system} is {target}")));
        }
        let info = raw.info.map(|info| info.parse()).transpose();
        let info = info.map_err(|_| nonsense(what, "its ActionInfo is no path"))?;
        Ok(Self { target, kinds: raw.kinds, info })
    }
}

#[derive(Deserialize)]
struct RawActionInfo {
    #[serde(rename = "Parameters")]
    parameters: Vec<RawParameter>,
}

#[derive(Deserialize)]
struct RawParameter {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "AllowableValues")]
    values: Option<Vec<String>>,
}

/// The kinds of reset that an ActionInfo resource tells, if it tells them.
pub(super) fn reset_kinds(what: &'static str, body: &[u8]) -> Result<Option<Vec<String>>, RedfishError> {
    let raw: RawActionInfo = json(what, body)?;
    Ok(raw
        .parameters
        .into_iter()
        .find(|parameter| parameter.name == "ResetType")
        .and_then(|parameter| parameter.values))
}

/// A link to another resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Link {
    #[serde(rename = "@odata.id")]
    pub(super) path: ResourcePath,
}

/// The root of the service.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Root {
    #[serde(rename = "AccountService")]
    pub(super) accounts: Option<Link>,
    #[serde(rename = "Links")]
    pub(super) links: Option<RootLinks>,
}

/// Where sessions are made.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RootLinks {
    #[serde(rename = "Sessions")]
    pub(super) sessions: Option<Link>,
}

/// The service of accounts.
#[derive(Debug, Deserialize)]
pub(super) struct AccountService {
    #[serde(rename = "Accounts")]
    pub(super) accounts: Option<Link>,
}

/// A collection.
#[derive(Debug, Deserialize)]
pub(super) struct Collection {
    #[serde(rename = "Members")]
    pub(super) members: Vec<Link>,
}

/// An account. An unused slot has an empty name.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    #[serde(rename = "UserName")]
    pub(super) name: Option<String>,
    #[serde(rename = "RoleId")]
    pub(super) role: Option<String>,
    #[serde(rename = "Links")]
    pub(super) links: Option<AccountLinks>,
}

/// Where an account's role is.
#[derive(Debug, Deserialize)]
pub(super) struct AccountLinks {
    #[serde(rename = "Role")]
    pub(super) role: Option<Link>,
}

/// A role.
#[derive(Debug, Deserialize)]
pub(super) struct Role {
    #[serde(rename = "AssignedPrivileges")]
    pub(super) privileges: Option<Vec<String>>,
}

/// Reads a body.
pub(super) fn json<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, RedfishError> {
    object(body).map_err(|source| RedfishError::Json { what, source })
}

/// The name of the first message of an error's body. Its text stays out: it may repeat what was asked, a password included.
pub(super) fn message_id(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(rename = "@Message.ExtendedInfo")]
        extended: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(rename = "MessageId")]
        id: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let id = body.error.extended.into_iter().next()?.id;
    let fine = id.len() <= MAX_REPEATED && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    fine.then_some(id)
}

/// The head of a text of a BMC, short enough for an error.
fn repeated(text: &str) -> String {
    text.chars().take(MAX_REPEATED).collect()
}

pub(super) fn nonsense(what: &'static str, why: impl Into<String>) -> RedfishError {
    RedfishError::Nonsense { what, why: why.into() }
}

/// Any bytes as the answer to each question. What is taken for off says so, in the one place that counts.
pub(crate) fn fuzz(bytes: &[u8]) {
    const WHAT: &str = "the fuzzer's question";
    let path: ResourcePath = "/redfish/v1/Systems/1".parse().expect("a path");
    if let Ok(system) = System::read(WHAT, bytes, &path) {
        // What is skipped isn't looked at: a number too large, or a thousand brackets.
        let Ok(plain) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
        let off = system.power(WHAT).is_ok_and(|state| state == PowerState::Off);
        assert_eq!(off, plain.get("PowerState") == Some(&serde_json::Value::from("Off")));
        let id = plain.get("@odata.id").and_then(serde_json::Value::as_str);
        assert_eq!(id.map(|id| id.trim_end_matches('/')), Some("/redfish/v1/Systems/1"));
        if let Some(reset) = &system.reset {
            assert!(reset.target.as_str().starts_with("/redfish/v1/Systems/1/"));
        }
        let _ = system.guid();
        system.etag.iter().for_each(|etag| drop(super::etag::forms(etag)));
    }
    let _ = (reset_kinds(WHAT, bytes), message_id(bytes));
    let _ = (json::<Root>(WHAT, bytes), json::<AccountService>(WHAT, bytes), json::<Collection>(WHAT, bytes));
    let _ = (json::<Account>(WHAT, bytes), json::<Role>(WHAT, bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(body: &str) -> Result<System, RedfishError> {
        System::read("the system", body.as_bytes(), &"/redfish/v1/Systems/1".parse().unwrap())
    }

    fn power(state: &str) -> Result<PowerState, RedfishError> {
        let body = format!(r#"{{"@odata.id": "/redfish/v1/Systems/1", "PowerState": {state}}}"#);
        system(&body).and_then(|system| system.power("the system"))
    }

    #[test]
    fn only_the_word_off_is_off() {
        assert_eq!(power("\"Off\"").unwrap(), PowerState::Off);
        for on in ["On", "PoweringOn", "PoweringOff", "Paused"] {
            assert_eq!(power(&format!("\"{on}\"")).unwrap(), PowerState::On, "{on}");
        }
        for unknown in
            ["null", "\"\"", "\"off\"", "\"OFF\"", "\"Off \"", "\"Unknown\"", "0", "false", "[\"Off\"]", "{}"]
        {
            assert!(power(unknown).is_err(), "{unknown}");
        }
        assert!(power("\"Off\", \"PowerState\": \"On\"").is_err(), "two states are none");
        assert!(system(r#"["/redfish/v1/Systems/1", null, null, "Off", null]"#).is_err(), "values without names");
    }

    #[test]
    fn another_system_is_never_taken_for_ours() {
        for id in
            ["/redfish/v1/Systems/2", "/redfish/v1/Systems/11", "/redfish/v1/Systems", "http://x/redfish/v1/Systems/1"]
        {
            let error = system(&format!(r#"{{"@odata.id": "{id}", "PowerState": "Off"}}"#)).unwrap_err();
            assert!(matches!(error, RedfishError::OtherSystem(_) | RedfishError::Nonsense { .. }), "{error:?}");
        }
        assert!(system(r#"{"PowerState": "Off"}"#).is_err());
        assert!(system(r#"{"@odata.id": "/redfish/v1/Systems/1/", "PowerState": "Off"}"#).is_ok());
    }

    #[test]
    fn a_reset_action_lies_below_its_system() {
        let with = |target: &str| {
            system(&format!(
                r##"{{"@odata.id": "/redfish/v1/Systems/1", "Actions": {{"#ComputerSystem.Reset": {{"target": {target}}}}}}}"##
            ))
        };
        let fine = with("\"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset\"").unwrap();
        assert_eq!(fine.reset.unwrap().target.as_str(), "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset");
        for target in [
            "null",
            "\"\"",
            "\"https://192.0.2.1/redfish/v1/Systems/1/Actions/ComputerSystem.Reset\"",
            "\"/redfish/v1/Systems/2/Actions/ComputerSystem.Reset\"",
            "\"/redfish/v1/Systems/1/../2/Actions/ComputerSystem.Reset\"",
            "\"/redfish/v1/Systems/1/Actions/X\\r\\nHost: evil\"",
        ] {
            assert!(with(target).is_err(), "{target}");
        }
    }

    #[test]
    fn no_error_repeats_what_the_bmc_says() {
        let error =
            system(r#"{"@odata.id": "/redfish/v1/Systems/1", "UUID": {"hunter2": 1}, "PowerState": 5}"#).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!source.contains("hunter2") && source.contains("line 1"), "{source}");
        let echo = br#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.Bad 'hunter2'"}]}}"#;
        assert_eq!(message_id(echo), None);
        let fine = br#"{"error": {"@Message.ExtendedInfo": [{"MessageId": "Base.1.8.NoOperation"}]}}"#;
        assert_eq!(message_id(fine).as_deref(), Some("Base.1.8.NoOperation"));
    }

    #[test]
    fn kinds_of_reset_are_read_from_action_info() {
        let body =
            br#"{"Parameters": [{"Name": "Other"}, {"Name": "ResetType", "AllowableValues": ["On", "ForceOff"]}]}"#;
        assert_eq!(reset_kinds("x", body).unwrap().unwrap(), ["On", "ForceOff"]);
        assert_eq!(reset_kinds("x", br#"{"Parameters": []}"#).unwrap(), None);
        assert!(reset_kinds("x", b"{}").is_err());
    }
}
