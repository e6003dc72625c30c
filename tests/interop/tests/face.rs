//! What an appliance shows to its network: the status page, and its name by multicast DNS, with Debian's Avahi as the peer.
//!
//! Needs root, and the Debian packages avahi-daemon, avahi-utils, dbus and iproute2; without them these tests fail.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tiebreaker_interop::{Appliance, Avahi, Network, loopback, until};

const SOON: Duration = Duration::from_secs(60);

fn get(at: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: pi\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let (head, body) = said.split_once("\r\n\r\n").context("an answer has a head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{said}");
    Ok(body.to_owned())
}

#[test]
fn the_status_page_shows_who_leads_and_a_mistake_of_the_settings() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let machine = folder.path().join("machine.json");
    let place = vec!["env".into(), format!("TIEBREAKER_MACHINE={}", machine.display()).into()];
    let mut appliance = Appliance::init(&folder.path().join("pi"), loopback(), place)?;
    let page = loopback();
    appliance.configure(&format!("[status]\nlisten = [\"{page}\"]\n[qdevice]\nlisten = [\"{}\"]\n", loopback()))?;
    appliance.start()?;
    let token = appliance.token("home")?;
    // Who votes for himself leads after an election.
    let json = until("a cluster that is led", SOON, || {
        let json: Value = serde_json::from_str(&get(page, "/status.json")?)?;
        ensure!(json["clusters"][0]["answer"]["leader"] == "pi", "{json}");
        Ok(json)
    })?;
    let answer = &json["clusters"][0]["answer"];
    assert_eq!((&answer["votes_cast"], &answer["votes"]), (&1.into(), &1.into()), "{json}");
    assert_eq!(
        (&json["name"], &json["qdevice"], &json["machine"]),
        (&"pi".into(), &Value::Array(vec![]), &Value::Null)
    );
    // Process 1 writes at any time, and the page reads at each request.
    let known = include_str!("../../../cross/init/src/known/golden.json");
    fs::write(&machine, known)?;
    let html = until("the mistake", SOON, || {
        let html = get(page, "/")?;
        ensure!(html.contains("tiebreaker.toml, line 4, column 1: unknown field `server`"), "{html}");
        Ok(html)
    })?;
    assert!(html.contains("Cluster home") && html.contains("Leader"), "{html}");
    for text in [&html, &get(page, "/status.json")?] {
        assert!(!text.contains(token.trim()), "a token is shown");
    }
    Ok(())
}

#[test]
fn a_page_that_can_not_be_had_costs_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut appliance = Appliance::init(&folder.path().join("pi"), loopback(), Vec::new())?;
    appliance.configure(&format!("[status]\nlisten = [\"{}\"]\n", taken.local_addr()?))?;
    appliance.start()?;
    appliance.token("home")?;
    assert!(appliance.log().contains("no status page at this address"), "{}", appliance.log());
    Ok(())
}

/// Runs `ip` on a machine.
fn ip(network: &Network, host: &str, words: &[&str]) -> Result<()> {
    let place = network.on(host);
    let (program, args) = place.split_first().context("a place has a program")?;
    let status = Command::new(program).args(args).arg("ip").args(words).status()?;
    ensure!(status.success(), "ip {words:?}: {status}");
    Ok(())
}

fn named(folder: &std::path::Path, network: &Network) -> Result<Appliance> {
    let appliance = Appliance::init(&folder.join("pi"), "[::]:8405".parse()?, network.on("pi"))?;
    appliance.configure("[status]\nlisten = [\"[::]:80\"]\n[mdns]\nname = \"tiebreaker\"\n")?;
    Ok(appliance)
}

#[test]
fn avahi_finds_the_name_and_the_services_follows_addresses_and_forgets_them_at_the_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let network = Network::new(&["pi", "peer"])?;
    let avahi = Avahi::start(folder.path(), &network, "peer", "peer")?;
    let mut appliance = named(folder.path(), &network)?;
    appliance.start()?;
    let resolves = |family: &str, is: &dyn Fn(&str) -> bool| {
        until("the name", SOON, || {
            let address = avahi.resolve(family, "tiebreaker.local")?;
            ensure!(is(&address), "it is {address}");
            Ok(())
        })
        .with_context(|| appliance.log())
    };
    let pi = network.ip("pi")?.to_string();
    resolves("-4", &|address| address == pi)?;
    resolves("-6", &|address| address.starts_with("fe80:"))?;
    for (service, port) in [("_http._tcp", 80), ("_tiebreaker._tcp", 8405)] {
        let wanted = format!(";tiebreaker;{service};local;tiebreaker.local;{pi};{port};");
        until("the service", SOON, || {
            let said = avahi.run(&["avahi-browse", "-rpt", service])?.done()?.replace("Web Site", "_http._tcp");
            ensure!(said.contains(&wanted), "{said}");
            Ok(())
        })?;
    }
    ip(&network, "pi", &["address", "add", "10.77.0.77/24", "dev", "eth0"])?;
    ip(&network, "pi", &["address", "delete", &format!("{pi}/24"), "dev", "eth0"])?;
    // A secondary address goes with the first.
    ip(&network, "pi", &["address", "replace", "10.77.0.77/24", "dev", "eth0"])?;
    resolves("-4", &|address| address == "10.77.0.77")?;
    appliance.stop();
    until("nobody by this name", Duration::from_secs(30), || {
        ensure!(avahi.resolve("-4", "tiebreaker.local").is_err(), "it is still known");
        Ok(())
    })
}

#[test]
fn a_name_that_somebody_has_is_left_to_him() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let network = Network::new(&["pi", "peer"])?;
    let avahi = Avahi::start(folder.path(), &network, "peer", "tiebreaker")?;
    let mut appliance = named(folder.path(), &network)?;
    appliance.start()?;
    let (pi, peer) = (network.ip("pi")?.to_string(), network.ip("peer")?.to_string());
    until("the second name", SOON, || {
        let address = avahi.resolve("-4", "tiebreaker-2.local")?;
        ensure!(address == pi, "it is {address}");
        Ok(())
    })
    .with_context(|| appliance.log())?;
    assert_eq!(avahi.resolve("-4", "tiebreaker.local")?, peer);
    assert!(appliance.log().contains("it has another now"), "{}", appliance.log());
    Ok(())
}
