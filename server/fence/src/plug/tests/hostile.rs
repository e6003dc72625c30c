//! Plugs that answer whatever they like. Each answer gives an error: no panic, no "off", no command to another plug.

use std::time::Duration;

use tokio::time::Instant;

use super::{MODELS, fake::FakePlug, plug, soon};
use crate::{
    Device, Fault, PlugError, PlugModel, PowerState,
    web::mock::{Received, Reply},
};

/// A proper answer to the question for the state, with the relay open and nothing flowing.
fn off(question: &Received) -> Option<&'static str> {
    match question.path.as_str() {
        "/status" => {
            Some(r#"{"mac":"A8032ABE54DC","relays":[{"ison":false}],"meters":[{"power":0.0,"is_valid":true}]}"#)
        }
        "/rpc/Switch.GetStatus?id=0" => Some(r#"{"id":0,"output":false,"apower":0.0}"#),
        path if path.ends_with("cmnd=Status%200") => Some(
            r#"{"StatusNET":{"Mac":"A8:03:2A:BE:54:DC"},"StatusLOG":{"SetOption":["00208009"]},"StatusSNS":{"ENERGY":{"Power":0}},"StatusSTS":{"POWER":"OFF"}}"#,
        ),
        _ => None,
    }
}

fn with(question: &Received, change: impl FnOnce(&str) -> String) -> Option<Reply> {
    off(question).map(|body| Reply::text(200, &[], &change(body)))
}

#[tokio::test]
async fn no_answer_but_a_proper_one_is_ever_off() {
    type Case = (&'static str, fn(&Received) -> Option<Reply>);
    let cases: Vec<Case> = vec![
        ("cut short", |q| with(q, |off| off[..off.len() - 1].to_owned())),
        ("something behind it", |q| with(q, |off| format!("{off}{off}"))),
        ("empty", |q| with(q, |_| String::new())),
        ("null", |q| with(q, |_| "null".to_owned())),
        ("a list", |q| with(q, |off| format!("[{off}]"))),
        ("deep", |q| with(q, |_| "[".repeat(100_000))),
        ("a page for people", |q| with(q, |_| "<html>off</html>".to_owned())),
        ("no state", |q| with(q, |off| off.replace("ison", "was").replace("output", "put").replace("POWER", "P"))),
        ("a null state", |q| with(q, |off| off.replace("false", "null").replace("\"OFF\"", "null"))),
        ("a state in words", |q| with(q, |off| off.replace("false", "\"off\"").replace("\"OFF\"", "\"AUS\""))),
        ("a state as a number", |q| with(q, |off| off.replace("false", "0").replace("\"OFF\"", "0"))),
        ("two states", |q| {
            with(q, |off| {
                off.replace("\"ison\":false", "\"ison\":true,\"ison\":false")
                    .replace("\"output\":false", "\"output\":true,\"output\":false")
                    .replace("\"POWER\":\"OFF\"", "\"POWER\":\"ON\",\"POWER\":\"OFF\"")
            })
        }),
        ("two names for one relay", |q| {
            with(q, |off| {
                off.replace("\"ison\":false", "\"ison\":null")
                    .replace("\"output\":false", "\"output\":null")
                    .replace("\"POWER\":\"OFF\"", "\"POWER\":\"OFF\",\"POWER1\":\"OFF\"")
            })
        }),
        ("no watts", |q| {
            with(q, |off| off.replace("\"power\"", "\"p\"").replace("apower", "p").replace("\"Power\"", "\"P\""))
        }),
        ("watts in words", |q| with(q, |off| off.replace("0.0", "\"none\"").replace("Power\":0", "Power\":\"none\""))),
        ("watts without end", |q| with(q, |off| off.replace("0.0", "1e300").replace("Power\":0", "Power\":1e300"))),
        ("another's watts", |q| {
            with(q, |off| {
                off.replace("\"meters\":[", "\"meters\":[{\"power\":0.0},")
                    .replace("\"id\":0", "\"id\":1")
                    .replace("\"Power\":0", "\"Power\":[0,0]")
            })
        }),
        ("a meter that says that it fails", |q| {
            with(q, |off| {
                off.replace("\"is_valid\":true", "\"is_valid\":false")
                    .replace("\"apower\"", "\"errors\":[\"power_meter_failure\"],\"apower\"")
                    .replace("00208009", "zz")
            })
        }),
        ("part of it", |q| off(q).map(|off| Reply::text(206, &[], off))),
        ("a redirect", |q| off(q).map(|off| Reply::text(302, &[("Location", "/")], off))),
        ("an error", |q| off(q).map(|off| Reply::text(500, &[], off))),
        ("not found", |q| off(q).map(|off| Reply::text(404, &[], off))),
        ("a login wanted", |q| off(q).map(|off| Reply::text(401, &[], off))),
        ("a weak login wanted", |q| {
            let basic = [("WWW-Authenticate", "Basic realm=\"shellyplus1pm-a8032abe54dc\"")];
            off(q).map(|off| Reply::text(401, &basic, off))
        }),
        ("busy", |q| off(q).map(|off| Reply::text(503, &[], off))),
        ("too long", |q| with(q, |off| format!("{off}{}", " ".repeat(600_000)))),
        ("closed at once", |q| off(q).map(|_| Reply::SendAndClose(Vec::new()))),
        ("closed in the middle", |q| {
            off(q).map(|off| {
                Reply::SendAndClose(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{off}").into_bytes())
            })
        }),
        ("silent", |q| off(q).map(|_| Reply::Hang(Vec::new()))),
        ("silent in the middle", |q| {
            off(q).map(|off| Reply::Hang(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{off}").into_bytes()))
        }),
    ];
    for model in MODELS {
        // What a proper answer looks like: else all of this would show nothing.
        let proper = FakePlug::like(model, |state| state.always = Some(|q| with(q, str::to_owned))).await;
        assert_eq!(proper.device().state(soon()).await.unwrap(), PowerState::Off);
        for (name, always) in &cases {
            let fake = FakePlug::like(model, |state| state.always = Some(*always)).await;
            let deadline = Instant::now() + Duration::from_millis(if name.starts_with("silent") { 200 } else { 5_000 });
            let state = fake.device().state(deadline).await;
            let Err(error) = state else { panic!("{model:?}: {name} is {state:?}") };
            assert!(!format!("{error} {error:?}").contains("horse"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_digest_is_given_to_the_realm_of_the_plug_alone() {
    fn challenged(question: &Received, header: &str) -> Option<Reply> {
        (question.path != "/shelly").then(|| Reply::text(401, &[("WWW-Authenticate", header)], ""))
    }
    let cases: [fn(&Received) -> Option<Reply>; 3] = [
        |q| challenged(q, "Digest qop=\"auth\", realm=\"another\", nonce=\"1\", algorithm=SHA-256"),
        |q| challenged(q, "Digest qop=\"auth\", realm=\"shellyplus1pm-a8032abe54dc\", nonce=\"1\", algorithm=MD5"),
        |q| challenged(q, "Basic realm=\"shellyplus1pm-a8032abe54dc\""),
    ];
    for always in cases {
        let fake = FakePlug::like(PlugModel::Shelly, |state| state.always = Some(always)).await;
        let error = fake.device().off(soon()).await.unwrap_err();
        assert!(matches!(plug(&error), PlugError::WeakLogin) && error.fault == Fault::Credentials, "{error}");
        assert!(fake.server.questions().iter().all(|q| q.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn a_plug_that_forgets_its_challenges_is_busy() {
    let fake = FakePlug::like(PlugModel::Shelly, |state| {
        state.nonce_is_stale = true;
        state.always = None;
    })
    .await;
    // It never takes an answer.
    let wrong = crate::PlugDevice::new(crate::PlugConfig {
        login: Some(crate::PlugLogin {
            user: crate::AccountName::new("admin").unwrap(),
            password: crate::Secret::for_web("other").unwrap(),
        }),
        ..fake.config()
    });
    assert_eq!(wrong.state(soon()).await.unwrap_err().fault, Fault::Busy);
}
