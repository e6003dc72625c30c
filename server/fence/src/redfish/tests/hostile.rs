//! BMCs that answer whatever they like. Each answer gives an error: no panic, no "off", no command to another system.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    Watcher,
    bmc::{FakeBmc, SYSTEM},
    redfish, soon,
};
use crate::{
    Device, PowerOffError, RedfishConfig, RedfishDevice, RedfishError, power_off,
    web::mock::{Received, Reply},
};

const OFF: &str =
    r#"{"@odata.id": "/redfish/v1/Systems/1", "UUID": "4c4c4544-0042-3510-8054-b4c04f4d3132", "PowerState": "Off"}"#;

/// To any question about the system.
fn to_system(question: &Received, reply: impl FnOnce() -> Reply) -> Option<Reply> {
    (question.path == SYSTEM).then(reply)
}

#[tokio::test]
async fn no_answer_but_a_proper_one_is_ever_off() {
    type Case = (&'static str, fn(&Received) -> Option<Reply>);
    let cases: Vec<Case> = vec![
        ("cut short", |q| to_system(q, || Reply::text(200, &[], &OFF[..OFF.len() - 1]))),
        ("something behind it", |q| to_system(q, || Reply::text(200, &[], &format!("{OFF}{OFF}")))),
        ("empty", |q| to_system(q, || Reply::text(200, &[], ""))),
        ("null", |q| to_system(q, || Reply::text(200, &[], "null"))),
        ("a list", |q| to_system(q, || Reply::text(200, &[], &format!("[{OFF}]")))),
        ("deep", |q| to_system(q, || Reply::text(200, &[], &"[".repeat(100_000)))),
        ("a page for people", |q| to_system(q, || Reply::text(200, &[], "<html>Off</html>"))),
        ("no text", |q| {
            to_system(q, || Reply::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd".to_vec()))
        }),
        ("two states", |q| to_system(q, || Reply::text(200, &[], &OFF.replace('}', r#", "PowerState": "On"}"#)))),
        ("two identities", |q| {
            to_system(q, || Reply::text(200, &[], &OFF.replace('}', r#", "@odata.id": "/redfish/v1/Systems/2"}"#)))
        }),
        ("another system", |q| to_system(q, || Reply::text(200, &[], &OFF.replace("Systems/1", "Systems/2")))),
        ("another machine", |q| to_system(q, || Reply::text(200, &[], &OFF.replace("4c4c", "4c4d")))),
        ("no machine", |q| to_system(q, || Reply::text(200, &[], &OFF.replace("UUID", "Uuid")))),
        ("a machine that nobody set", |q| {
            to_system(q, || {
                Reply::text(200, &[], &OFF.replace(super::bmc::UUID, "00000000-0000-0000-0000-000000000000"))
            })
        }),
        ("a redirect", |q| to_system(q, || Reply::text(307, &[("Location", "/redfish/v1/Systems/2")], OFF))),
        ("created", |q| to_system(q, || Reply::text(201, &[], OFF))),
        ("part of it", |q| to_system(q, || Reply::text(206, &[], OFF))),
        ("an error", |q| to_system(q, || Reply::text(500, &[], OFF))),
        ("not found", |q| to_system(q, || Reply::text(404, &[], OFF))),
        ("a login wanted", |q| to_system(q, || Reply::text(401, &[], OFF))),
        ("a teapot", |q| to_system(q, || Reply::text(418, &[], OFF))),
        ("too long", |q| to_system(q, || Reply::text(200, &[], &format!("{OFF}{}", " ".repeat(600_000))))),
        ("silent but for one more 100 Continue", |q| {
            to_system(q, || Reply::Flood(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()))
        }),
        ("closed at once", |q| to_system(q, || Reply::SendAndClose(Vec::new()))),
        ("closed in the middle", |q| {
            to_system(q, || {
                Reply::SendAndClose(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{OFF}").into_bytes())
            })
        }),
        ("silent", |q| to_system(q, || Reply::Hang(Vec::new()))),
        ("silent in the middle", |q| {
            to_system(q, || Reply::Hang(format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{OFF}").into_bytes()))
        }),
    ];
    // What a proper answer looks like: else all of this would show nothing.
    let proper = FakeBmc::like(|state| state.always = Some(|q| to_system(q, || Reply::text(200, &[], OFF)))).await;
    assert_eq!(proper.device().state(soon()).await.unwrap(), crate::PowerState::Off);

    for (name, always) in cases {
        let bmc = FakeBmc::like(|state| state.always = Some(always)).await;
        let deadline = || Instant::now() + Duration::from_millis(if name.starts_with("silent") { 200 } else { 5_000 });
        let (first, second) = (bmc.device(), bmc.in_sessions());
        for device in [&first, &second] {
            let error = device.state(deadline()).await.expect_err(name);
            assert!(!format!("{error:?}").contains(super::bmc::PASSWORD), "{name}: {error:?}");
            device.prove(deadline()).await.expect_err(name);
            device.off(deadline()).await.expect_err(name);
            device.on(deadline()).await.expect_err(name);
        }
        assert!(bmc.resets().is_empty(), "{name}: nothing is switched on a system that can't be told");
    }
}

#[tokio::test]
async fn a_reset_that_points_elsewhere_is_never_sent() {
    for target in
        ["/redfish/v1/Systems/2/Actions/ComputerSystem.Reset", "https://192.0.2.1/x", "//192.0.2.1/x", "/x y", ""]
    {
        let body = json!({
            "@odata.id": SYSTEM, "UUID": super::bmc::UUID, "PowerState": "On",
            "Actions": {"#ComputerSystem.Reset": {"target": target}},
        });
        let bmc = FakeBmc::like(|state| state.says = Some(body)).await;
        let error = bmc.device().off(soon()).await.unwrap_err();
        assert!(matches!(redfish(&error), RedfishError::OtherSystem(_) | RedfishError::Nonsense { .. }), "{error}");
        assert!(bmc.server.questions().iter().all(|question| question.method == "GET"));
    }
}

#[tokio::test]
async fn an_answer_to_the_reset_that_is_no_yes_is_none() {
    for status in [301, 302, 307, 308, 404, 405, 500, 501, 502, 504, 600] {
        let bmc = FakeBmc::like(|state| state.reset = (status, json!({"PowerState": "Off"}))).await;
        bmc.device().off(soon()).await.expect_err("no yes");
        assert_eq!(bmc.resets().len(), 1, "and it isn't followed or repeated");
    }
}

#[tokio::test]
async fn a_login_that_gives_no_session_is_an_error() {
    fn to_login(q: &Received, headers: &[(&str, &str)]) -> Option<Reply> {
        (q.method == "POST" && q.path.ends_with("/Sessions")).then(|| Reply::json(201, headers, &json!({})))
    }
    let cases: [fn(&Received) -> Option<Reply>; 4] = [
        |q| to_login(q, &[]),
        |q| to_login(q, &[("X-Auth-Token", "t")]),
        |q| to_login(q, &[("X-Auth-Token", "t"), ("Location", "//evil")]),
        |q| to_login(q, &[("X-Auth-Token", ""), ("Location", "https://evil")]),
    ];
    for always in cases {
        let bmc = FakeBmc::like(|state| state.always = Some(always)).await;
        let error = bmc.in_sessions().state(soon()).await.unwrap_err();
        assert!(matches!(redfish(&error), RedfishError::Nonsense { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_flickering_state_is_no_proof_of_off() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static READS: AtomicUsize = AtomicUsize::new(0);
    let bmc = FakeBmc::like(|state| {
        state.always = Some(|q| {
            to_system(q, || match READS.fetch_add(1, Ordering::SeqCst) % 2 {
                0 => Reply::text(200, &[], OFF),
                _ => Reply::text(200, &[], &OFF.replace("\"Off\"", "null")),
            })
        });
    })
    .await;
    let deadline = Instant::now() + Duration::from_millis(400);
    let error = power_off(&bmc.device(), Duration::from_millis(5), deadline, &Watcher::default()).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn who_is_not_there_is_unreachable() {
    let config = FakeBmc::start().await.config();
    let until = soon();
    loop {
        // The server's port closes when its task has ended.
        let error = RedfishDevice::new(RedfishConfig { ..config.clone() }).state(soon()).await.unwrap_err();
        if error.fault == crate::Fault::Unreachable {
            break;
        }
        assert!(Instant::now() < until, "{error}");
    }
}
