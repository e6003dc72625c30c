//! Our Redfish client against `sushy-emulator`, alone and in the daemon of an appliance, whose memory is searched. Needs the
//! Debian packages python3-venv, openipmi and fence-agents, and the Python package index once: without them these tests fail.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, Result, ensure};
use tiebreaker_fence::{
    AccountName, BoxFuture, Device, DeviceError, Fault, Fingerprint, Overseer, Pins, PowerState, Progress,
    RedfishConfig, RedfishDevice, RedfishError, RedfishLogin, Secret, WebError, power_off,
};
use tiebreaker_interop::{
    Cluster, Look, SOON, Traces,
    fence_agent::fence_agent,
    ipmi_sim::{self, IpmiSim},
    process::found_in_memory,
    require_root,
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

/// Adds a device through the running daemon, fences its node, and looks for the password everywhere. Needs root, because
/// the daemon keeps its memory private.
#[test]
fn a_fence_through_the_daemon_leaves_evidence_and_no_password_anywhere() -> Result<()> {
    require_root("reading a daemon's memory")?;
    let sushy = Sushy::start()?;
    let mut cluster = Cluster::appliance()?;
    // Times so long that the BMC is the first evidence, however late the emulator carries out what it took.
    cluster.appliance.stop();
    cluster.appliance.configure("[clusters.home]\nprofile = \"patient\"\n")?;
    cluster.appliance.start()?;
    cluster.add("node1")?;
    cluster.add("node2")?;
    cluster.all_online()?;

    let password = cluster.folder().join("password");
    fs::write(&password, format!("{PASSWORD}\n"))?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
    let (address, system) = (sushy.address().to_string(), format!("/redfish/v1/Systems/{UUID}"));
    let file = password.to_str().context("a path of the test is text")?;
    let add = ["device", "add", "node1", "redfish", &address, "--user", USER, "--system", &system, "--uuid", UUID];
    let with = |more: &[&'static str]| [&add[..], &["--password-file", file, "--drilled", "--json"], more].concat();
    let pin = Fingerprint::of(sushy.certificate()).to_string();

    // Without a pin nothing is kept, and the certificate is shown.
    let shown = tiebreaker_interop::until("answer of the emulator", SOON, || {
        let ran = cluster.appliance.command(&with(&[]))?;
        ensure!(ran.stdout.contains(&pin), "{ran:?}");
        Ok(ran)
    })?;
    ensure!(shown.refused()?.contains("compare"), "the operator is told what to do");
    let words = [&with(&[])[..], &["--certificate", &pin]].concat();
    let added = cluster.appliance.command(&words)?.done()?;
    ensure!(added.contains("\"kept\":true") && !added.contains(PASSWORD), "{added}");
    fs::remove_file(&password)?;
    let config = fs::read_to_string(cluster.appliance.data().join("server.toml"))?;
    ensure!(config.contains("[[clusters.home.devices]]") && !config.contains("password"), "{config}");
    let sealed = cluster.appliance.data().join("secrets.age");
    ensure!(fs::metadata(&sealed)?.permissions().mode() & 0o777 == 0o600, "the mode of the secrets");

    cluster.operator().until("proof of the device", SOON, |status| {
        status.of("node1").is_some_and(|node| node.devices.iter().any(|device| device.proven))
    })?;
    let listed = cluster.appliance.command(&["device", "list", "--json"])?.done()?;
    ensure!(listed.contains("\"proven\":true") && listed.contains("\"proven_at_ms\":1"), "{listed}");
    let read = cluster.appliance.command(&["device", "status", "node1"])?.done()?;
    ensure!(read.contains("reads on"), "{read}");

    a_bmc_by_ipmi_is_tried_too(&cluster)?;

    cluster.end("node1")?;
    let typo = cluster.appliance.command(&["device", "off", "node1", "--confirm", "node2"])?.refused()?;
    ensure!(typo.contains("nothing was done"), "{typo}");
    let off = cluster.appliance.command(&["device", "off", "node1", "--confirm", "node1", "--json"])?.done()?;
    ensure!(off.contains("bmc-off") || off.contains("closed"), "{off}");

    let pid = cluster.appliance.pid().context("the appliance runs")?;
    let traces = Traces::of(PASSWORD);
    let folder = cluster.appliance.data().display().to_string();
    let mut found = found_in_memory(pid, &[&traces.texts()[..], &[folder.as_bytes()]].concat())?;
    ensure!(found.pop().is_some_and(|folder| folder > 0), "the search finds nothing that is there");
    let left = traces.told(&found);
    ensure!(left.is_empty(), "the memory of the appliance holds the password: {left:?}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("the limit of core dumps")?;
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");

    // Neither the logs, nor any other file, nor a command line has it.
    let holding = traces.in_files(cluster.folder())?;
    ensure!(holding.is_empty(), "{holding:?} hold the password");

    let audit = cluster.appliance.command(&["audit", "list", "--last", "1000", "--json"])?.done()?;
    for event in ["device_added", "asked", "wanted", "attempt", "answer", "evidence"] {
        ensure!(audit.contains(&format!("\"event\":\"{event}\"")), "no {event} in {audit}");
    }
    ensure!(audit.contains("\"grade\":\"bmc-off\"") && audit.contains("\"by\":"), "{audit}");
    let whole = cluster.appliance.command(&["audit", "verify", "--json"])?.done()?;
    ensure!(whole.contains("\"whole\":true"), "{whole}");
    // The same commands without the daemon.
    cluster.appliance.stop();
    let alone = cluster.appliance.command(&["device", "status", "node1", "--json"])?.done()?;
    ensure!(alone.contains("\"state\":\""), "{alone}");
    Ok(())
}

/// What an operator is told of a BMC that speaks IPMI, good or refusing.
fn a_bmc_by_ipmi_is_tried_too(cluster: &Cluster) -> Result<()> {
    let sim = IpmiSim::start()?;
    let password = cluster.folder().join("ipmi-password");
    fs::write(&password, ipmi_sim::PASSWORD)?;
    let (address, file) = (sim.address().to_string(), password.to_str().context("text")?);
    let add = |user: &str, more: &[&str]| {
        let words = ["device", "add", "node2", "ipmi", &address, "--user", user, "--password-file", file];
        cluster.appliance.command(&[&words[..], more].concat())
    };
    let nobody = add("nobody", &[])?.refused()?;
    ensure!(nobody.contains("not kept") && nobody.contains("user"), "{nobody}");
    let added = add(ipmi_sim::OPERATOR, &["--drilled"])?.done()?;
    ensure!(added.contains("cipher suite 3") && added.contains("reads on") && added.contains("kept"), "{added}");
    let again = add(ipmi_sim::OPERATOR, &["--drilled"])?.refused()?;
    ensure!(again.contains("two devices of this name"), "{again}");
    fs::write(&password, "not it")?;
    let changed = cluster.appliance.command(&["device", "password", "node2/bmc", "--password-file", file])?;
    ensure!(changed.refused()?.contains("1 of 1 device(s) failed"), "a wrong password is told at once");
    ensure!(sim.node().is_some(), "nothing of that switched anything");
    Ok(fs::remove_file(password)?)
}
