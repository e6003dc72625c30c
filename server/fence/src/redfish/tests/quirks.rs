//! What BMCs do differently, and is to be taken as they mean it.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    Watcher,
    bmc::{FakeBmc, RESET, SESSION, UUID},
    has_fault, redfish, soon,
};
use crate::{
    Device, Fault, PowerOffError, PowerState, RedfishConfig, RedfishDevice, RedfishError, Secret, WebError, power_off,
};

#[tokio::test]
async fn a_node_is_switched_off_confirmed_and_switched_on_again() {
    let bmc = FakeBmc::start().await;
    let device = bmc.device();
    let proof = device.prove(soon()).await.unwrap();
    assert_eq!(proof.state, PowerState::On);
    assert!(proof.guid.unwrap().matches_dmi(UUID));
    assert!(bmc.resets().is_empty(), "a proof switches nothing");

    let off = power_off(&device, Duration::from_millis(5), soon(), &Watcher::default()).await.unwrap();
    assert!(!off.already);
    assert_eq!(device.state(soon()).await.unwrap(), PowerState::Off);
    device.on(soon()).await.unwrap();
    assert_eq!(device.state(soon()).await.unwrap(), PowerState::On);
    assert_eq!(bmc.resets(), ["ForceOff", "On"]);
}

#[tokio::test]
async fn a_session_is_made_for_each_operation_and_ended_after_it() {
    let bmc = FakeBmc::start().await;
    let device = bmc.in_sessions();
    device.prove(soon()).await.unwrap();
    device.off(soon()).await.unwrap();
    assert_eq!(bmc.sessions(), (2, 0));

    bmc.state().reset.0 = 500;
    device.off(soon()).await.unwrap_err();
    assert_eq!(bmc.sessions(), (3, 0), "ended after a failure too");
    let questions = bmc.server.questions();
    assert!(questions.iter().all(|question| question.header("authorization").is_none()));
}

#[tokio::test]
async fn a_session_that_the_bmc_forgets_is_made_anew_once() {
    let bmc = FakeBmc::like(|state| state.forgets = 1).await;
    bmc.in_sessions().off(soon()).await.unwrap();
    assert_eq!((bmc.sessions().0, bmc.resets().len()), (2, 1));

    bmc.state().forgets = 9;
    let error = has_fault(bmc.in_sessions().state(soon()).await, Fault::Busy);
    assert!(matches!(redfish(&error), RedfishError::SessionEnded(_)), "{error}");
    assert_eq!(bmc.state().sessions_made, 4);
}

#[tokio::test]
async fn a_session_is_ended_when_the_caller_goes_away_and_when_its_time_is_up() {
    let bmc = FakeBmc::start().await;
    bmc.state().always = Some(|question| {
        let hangs = question.method == "GET" && question.path.ends_with("/Systems/1");
        hangs.then(|| crate::web::mock::Reply::Hang(Vec::new()))
    });
    let device = bmc.in_sessions();
    let asked = async {
        while !bmc.server.questions().iter().any(|question| question.path.ends_with("/Systems/1")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        answer = device.state(soon()) => panic!("{answer:?}"),
        () = asked => {}
    }
    assert_eq!(ended(&bmc).await, 1);
    // However slow this machine is: at last the time is up after the login.
    let mut within = Duration::from_millis(100);
    while bmc.sessions().0 < 2 {
        has_fault(device.state(Instant::now() + within).await, Fault::Unreachable);
        within *= 2;
    }
    assert_eq!(ended(&bmc).await, 2);
}

/// Waits until no session is open, and says how many were made.
async fn ended(bmc: &FakeBmc) -> usize {
    let until = soon();
    while bmc.sessions().1 > 0 {
        assert!(Instant::now() < until, "the session was never ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bmc.server.questions().last().unwrap().path, SESSION);
    bmc.sessions().0
}

#[tokio::test]
async fn wrong_passwords_show_in_the_proof_and_nobody_sees_them() {
    let bmc = FakeBmc::start().await;
    for device in [bmc.device(), bmc.in_sessions()] {
        let wrong = Secret::for_web("hunter2-hunter2").unwrap();
        let config = RedfishConfig { password: wrong, ..bmc.config() };
        assert!(!format!("{config:?}{device:?}").contains("hunter2"), "not even in a debug print");
        let error = has_fault(RedfishDevice::new(config).prove(soon()).await, Fault::Credentials);
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    }
    let wrong = Secret::for_web("hunter2-hunter2").unwrap();
    let config = RedfishConfig { password: wrong, login: crate::RedfishLogin::Session, ..bmc.config() };
    let error = has_fault(RedfishDevice::new(config).prove(soon()).await, Fault::Credentials);
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn who_may_read_but_not_switch_is_found_out_without_switching() {
    for (role, privileges) in [("ReadOnly", json!([])), ("OemGuest", json!(["Login", "ConfigureSelf"]))] {
        let bmc = FakeBmc::like(|state| (state.role, state.privileges) = (Some(role), privileges)).await;
        let error = has_fault(bmc.drilled().prove(soon()).await, Fault::Privilege);
        assert!(error.to_string().contains(role) && error.to_string().contains("Operator"), "{error}");
        assert!(bmc.resets().is_empty());
    }
    let own = json!(["Login", "ConfigureComponents"]);
    let bmc = FakeBmc::like(|state| (state.role, state.privileges) = (Some("OemPower"), own)).await;
    bmc.device().prove(soon()).await.unwrap();

    let untold = FakeBmc::like(|state| state.role = None).await;
    let error = has_fault(untold.device().prove(soon()).await, Fault::Privilege);
    assert!(error.to_string().contains("drilled"), "{error}");
    untold.drilled().prove(soon()).await.unwrap();
}

#[tokio::test]
async fn a_reset_without_the_right_is_named() {
    let bmc = FakeBmc::like(|state| state.reset = (403, super::bmc::error("Base.1.8.InsufficientPrivilege"))).await;
    let error = has_fault(bmc.device().off(soon()).await, Fault::Privilege);
    assert!(error.to_string().contains("Base.1.8.InsufficientPrivilege"), "{error}");
}

#[tokio::test]
async fn the_kinds_of_reset_are_told_inline_or_elsewhere_or_nowhere() {
    let info = |kinds: &[&str]| json!({"Parameters": [{"Name": "ResetType", "AllowableValues": kinds}]});
    let told = FakeBmc::like(|state| (state.inline, state.action_info) = (None, Some(info(&["On", "ForceOff"])))).await;
    told.device().prove(soon()).await.unwrap();

    let forced =
        FakeBmc::like(|state| (state.inline, state.action_info) = (None, Some(info(&["ForceOn", "ForceOff"])))).await;
    forced.device().prove(soon()).await.unwrap();
    forced.device().on(soon()).await.unwrap();
    assert_eq!(forced.resets(), ["ForceOn"]);

    for lacking in [&["On", "GracefulShutdown"][..], &["ForceOff"], &[]] {
        for inline in [true, false] {
            let bmc = FakeBmc::like(|state| {
                state.inline = inline.then(|| json!(lacking));
                state.action_info = (!inline).then(|| info(lacking));
            })
            .await;
            let error = has_fault(bmc.drilled().prove(soon()).await, Fault::Refused);
            assert!(matches!(redfish(&error), RedfishError::NotOffered(_)), "{error}");
        }
    }

    let untold = FakeBmc::like(|state| state.inline = None).await;
    has_fault(untold.device().prove(soon()).await, Fault::Refused);
    untold.drilled().prove(soon()).await.unwrap();
    untold.device().off(soon()).await.unwrap();
}

#[tokio::test]
async fn a_reset_may_be_answered_with_200_202_or_204() {
    for status in [200, 202, 204] {
        let bmc = FakeBmc::like(|state| state.reset = (status, json!({"TaskState": "Exception"}))).await;
        let off = power_off(&bmc.device(), Duration::from_millis(5), soon(), &Watcher::default()).await.unwrap();
        assert!(!off.already, "what the task says is nothing, the state is");
    }
}

#[tokio::test]
async fn a_task_that_never_ends_proves_nothing() {
    let bmc = FakeBmc::like(|state| {
        state.reset = (202, json!({"TaskState": "Completed", "TaskStatus": "OK"}));
        state.becomes = Some(json!("On"));
    })
    .await;
    let deadline = Instant::now() + Duration::from_secs(3);
    let error = power_off(&bmc.device(), Duration::from_millis(20), deadline, &Watcher::default()).await.unwrap_err();
    assert!(matches!(error, PowerOffError::Deadline { last: Some(PowerState::On), .. }), "{error}");
}

#[tokio::test]
async fn a_400_or_409_for_what_is_so_already_is_no_failure() {
    let bmc = FakeBmc::like(|state| state.refuses_needless = true).await;
    bmc.device().on(soon()).await.unwrap();
    bmc.state().power = json!("Off");
    bmc.device().off(soon()).await.unwrap();

    for status in [400, 409] {
        for power in [json!("On"), json!("PoweringOff"), json!("Paused")] {
            let body = super::bmc::error("Base.1.8.ActionNotSupported");
            let bmc = FakeBmc::like(|state| (state.reset, state.power) = ((status, body), power)).await;
            let error = has_fault(bmc.device().off(soon()).await, Fault::Refused);
            assert!(error.to_string().contains("ActionNotSupported"), "{error}");
        }
        let bmc = FakeBmc::like(|state| (state.reset.0, state.power) = (status, json!(null))).await;
        has_fault(bmc.device().off(soon()).await, Fault::Protocol);
    }
}

#[tokio::test]
async fn an_etag_is_sent_only_when_it_is_asked_for_in_the_form_that_is_taken() {
    for (shown, taken) in [
        ("\"a1\"", "\"a1\""),
        ("W/\"a1\"", "W/\"a1\""),
        ("W/\"a1\"", "\"a1\""),
        ("\"\"a1\"\"", "\"a1\""),
        ("\"a1\"", "a1"),
    ] {
        for status in [412, 428] {
            let bmc = FakeBmc::like(|state| state.etag = Some((shown, taken, status))).await;
            bmc.device().off(soon()).await.unwrap();
            assert_eq!(bmc.state().power, json!("Off"));
        }
    }
    let plain = FakeBmc::start().await;
    plain.device().off(soon()).await.unwrap();
    let questions = plain.server.questions();
    let reset = questions.iter().find(|question| question.path == RESET).unwrap();
    assert_eq!(reset.header("if-match"), None);

    let never = FakeBmc::like(|state| state.etag = Some(("\"a1\"", "never", 412))).await;
    has_fault(never.device().off(soon()).await, Fault::Refused);
    assert_eq!(never.resets().len(), 3, "without, as shown, and without quotes");
}

#[tokio::test]
async fn states_on_the_way_have_power_and_none_is_no_state() {
    for on in ["PoweringOn", "PoweringOff", "Paused"] {
        let bmc = FakeBmc::like(|state| state.power = json!(on)).await;
        assert_eq!(bmc.device().state(soon()).await.unwrap(), PowerState::On, "{on}");
    }
    for unknown in [json!(null), json!("Unknown"), json!(""), json!(0)] {
        let bmc = FakeBmc::like(|state| state.power = unknown.clone()).await;
        has_fault(bmc.device().state(soon()).await, Fault::Protocol);
        has_fault(bmc.device().prove(soon()).await, Fault::Protocol);
    }
    // A state that nobody knows keeps nobody from switching off.
    let bmc = FakeBmc::like(|state| state.power = json!(null)).await;
    bmc.device().off(soon()).await.unwrap();
    assert_eq!(bmc.device().state(soon()).await.unwrap(), PowerState::Off);
}

#[tokio::test]
async fn a_busy_bmc_is_asked_again_later() {
    for status in [429, 503] {
        let bmc = FakeBmc::like(|state| state.reset.0 = status).await;
        has_fault(bmc.device().off(soon()).await, Fault::Busy);
    }
}

#[tokio::test]
async fn a_changed_certificate_is_found_by_the_proof() {
    let (bmc, other) = (FakeBmc::start().await, FakeBmc::start().await);
    let config = RedfishConfig { pins: other.config().pins, ..bmc.config() };
    let error = has_fault(RedfishDevice::new(config).prove(soon()).await, Fault::Protocol);
    assert!(matches!(redfish(&error), RedfishError::Web(WebError::Certificate(_))), "{error}");
    assert!(error.to_string().contains(&bmc.config().pins.current.to_string()), "{error}");
    assert!(bmc.server.questions().is_empty(), "the password was not told");
}
