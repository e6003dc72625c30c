//! Our Redfish client against `sushy-emulator`. Needs the Debian packages python3-venv and fence-agents, and the Python
//! package index once: without them these tests fail.

use std::time::Duration;

use anyhow::{Result, ensure};
use tiebreaker_fence::{
    AccountName, BoxFuture, Device, DeviceError, Fault, Fingerprint, Overseer, Pins, PowerState, Progress,
    RedfishConfig, RedfishDevice, RedfishError, RedfishLogin, Secret, WebError, power_off,
};
use tiebreaker_interop::{
    SOON,
    fence_agent::fence_agent,
    sushy::{PASSWORD, Sushy, USER, UUID},
};
use tokio::time::{Instant, sleep};

fn soon() -> Instant {
    Instant::now() + SOON
}

fn redfish(error: &DeviceError) -> &RedfishError {
    error.source.downcast_ref().expect("a Redfish device fails with Redfish errors")
}

struct Bystander;

impl Overseer for Bystander {
    fn may_switch(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn progress(&self, _: Progress) {}
}

fn config(sushy: &Sushy) -> Result<RedfishConfig> {
    Ok(RedfishConfig {
        address: sushy.address(),
        pins: Pins { current: Fingerprint::of(sushy.certificate()), next: None },
        user: AccountName::new(USER)?,
        password: Secret::for_web(PASSWORD)?,
        login: RedfishLogin::Basic,
        system: format!("/redfish/v1/Systems/{UUID}").parse()?,
        uuid: Some(UUID.to_owned()),
        // The emulator has no accounts that could be asked for their rights.
        drilled: true,
    })
}

/// Waits until it listens.
async fn started(sushy: &Sushy, device: &RedfishDevice) -> Result<()> {
    let until = soon();
    while let Err(error) = device.state(soon()).await {
        ensure!(error.fault == Fault::Unreachable && Instant::now() < until, "{error:?}\n{}", sushy.log());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_real_service_is_proven_and_switched_off() -> Result<()> {
    let sushy = Sushy::start()?;
    let right = config(&sushy)?;
    let device = RedfishDevice::new(right.clone());
    started(&sushy, &device).await?;

    let proof = device.prove(soon()).await?;
    assert_eq!(proof.state, PowerState::On);
    assert!(proof.guid.is_some_and(|guid| guid.matches_dmi(UUID)));
    let undrilled = RedfishDevice::new(RedfishConfig { drilled: false, ..right.clone() });
    let error = undrilled.prove(soon()).await.expect_err("nobody tells its rights");
    assert!(matches!(redfish(&error), RedfishError::RightUntold), "{error}");

    let wrong = RedfishConfig { password: Secret::for_web("not it")?, ..right.clone() };
    let error = RedfishDevice::new(wrong).prove(soon()).await.expect_err("a wrong password");
    assert_eq!(error.fault, Fault::Credentials, "{error}");
    let stranger = Pins { current: Fingerprint::of(b"another certificate"), next: None };
    let error = RedfishDevice::new(RedfishConfig { pins: stranger, ..right.clone() }).prove(soon()).await;
    let error = error.expect_err("a certificate that isn't pinned");
    assert!(matches!(redfish(&error), RedfishError::Web(WebError::Certificate(_))), "{error}");
    let other = RedfishConfig { uuid: Some("27946b59-9e44-4fa7-8e91-f3527a1ef095".into()), ..right.clone() };
    let error = RedfishDevice::new(other).off(soon()).await.expect_err("another machine");
    assert!(matches!(redfish(&error), RedfishError::OtherSystem(_)), "{error}");
    let nowhere = RedfishConfig { system: "/redfish/v1/Systems/nowhere".parse()?, ..right };
    let error = RedfishDevice::new(nowhere).state(soon()).await.expect_err("no such system");
    assert!(matches!(redfish(&error), RedfishError::Refused { status: 404, .. }), "{error}");
    assert_eq!(device.state(soon()).await?, PowerState::On, "none of that switched anything");

    // The emulator takes the command at once, and carries it out up to 11 s later.
    let off = power_off(&device, Duration::from_millis(200), soon() + SOON, &Bystander).await?;
    assert!(!off.already);
    let again = power_off(&device, Duration::from_millis(200), soon(), &Bystander).await?;
    assert!(again.already);
    device.on(soon()).await?;
    Ok(())
}

#[tokio::test]
async fn a_fence_agent_of_others_works_the_same_service() -> Result<()> {
    let sushy = Sushy::start()?;
    let device = RedfishDevice::new(config(&sushy)?);
    started(&sushy, &device).await?;
    let (ip, port) = (sushy.address().ip().to_string(), sushy.address().port().to_string());
    let uri = format!("/redfish/v1/Systems/{UUID}");
    let options = [
        ("ip", &*ip),
        ("ipport", &*port),
        ("ssl_insecure", "1"),
        ("username", USER),
        ("systems_uri", &*uri),
        ("power_timeout", "40"),
    ];
    let agent = fence_agent("fence_redfish", &options, PASSWORD)?;
    assert_eq!(agent.prove(soon()).await?.state, PowerState::On);
    let off = power_off(&agent, Duration::from_millis(200), soon() + SOON, &Bystander).await?;
    assert!(!off.already);
    assert_eq!(device.state(soon()).await?, PowerState::Off, "ours says so, too");
    Ok(())
}
