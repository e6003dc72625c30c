//! The appliance's name on its own network, by multicast DNS: `NAME.local` for its addresses, its status page and the port of
//! its members as services.
//!
//! A name that somebody else has is left to him: this one becomes `NAME-2.local` (RFC 6762, 9). Nothing rests on it. Members
//! know each other by certificates, so who lies about the name on the network is refused like anybody else.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mdns_sd::{DaemonEvent, IfKind, RRType, ServiceDaemon, ServiceInfo};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

/// The status page.
const PAGE: &str = "_http._tcp.local.";
/// The port of members and operators.
const MEMBERS: &str = "_tiebreaker._tcp.local.";
/// How long taking leave of the network may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The section `[mdns]` of `server.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMdns {
    /// The name, without `.local`; none if this is empty.
    name: String,
}

impl RawMdns {
    /// The name to have, if one is wanted.
    ///
    /// # Errors
    /// It can't be a name.
    pub(crate) fn check(&self) -> Result<Option<String>> {
        let name = &self.name;
        if name.is_empty() {
            return Ok(None);
        }
        let of_a_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if name.len() > 63 || !name.chars().all(of_a_name) || name.starts_with('-') || name.ends_with('-') {
            bail!(
                "mdns.name: {name:?} is no name for a machine: give small letters, digits and hyphens, 63 at most, without \
                 .local"
            );
        }
        Ok(Some(name.clone()))
    }
}

/// The name on the network, for as long as this lives.
pub(crate) struct Announcer {
    daemon: ServiceDaemon,
    listening: JoinHandle<()>,
    name: watch::Receiver<String>,
}

impl Announcer {
    /// Begins to answer for the name. Addresses that come and go later are followed.
    ///
    /// # Errors
    /// The system has no thread or no poll for it. What is missing later, a network above all, is waited for.
    pub(crate) fn start(name: &str, page: &[SocketAddr], members: &[SocketAddr]) -> Result<Self> {
        let daemon = ServiceDaemon::new().context("starting multicast DNS")?;
        // Nobody else is there.
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6]).context("leaving the loopback out")?;
        Self::on(daemon, name, page, members)
    }

    fn on(daemon: ServiceDaemon, name: &str, page: &[SocketAddr], members: &[SocketAddr]) -> Result<Self> {
        let events = daemon.monitor().context("listening to multicast DNS")?;
        let host = format!("{name}.local.");
        for (service, listens) in [(PAGE, page), (MEMBERS, members)] {
            if let Some(port) = port(listens) {
                let info = ServiceInfo::new(service, name, &host, "", port, None).with_context(|| host.clone())?;
                daemon.register(info.enable_addr_auto()).with_context(|| format!("announcing {service}"))?;
            }
        }
        let (tell, told) = watch::channel(host.trim_end_matches('.').to_owned());
        let listening = tokio::spawn(async move {
            let mut failed = false;
            while let Ok(event) = events.recv_async().await {
                match event {
                    DaemonEvent::NameChange(change) if matches!(change.rr_type, RRType::A | RRType::AAAA) => {
                        let name = change.new_name.trim_end_matches('.').to_owned();
                        if tell.send_if_modified(|told| std::mem::replace(told, name.clone()) != name) {
                            warn!(%name, "somebody else has this machine's name on the network: it has another now");
                        }
                    }
                    DaemonEvent::Error(error) if !failed => {
                        failed = true;
                        warn!("multicast DNS: {error}");
                    }
                    _ => {}
                }
            }
        });
        info!(name = %host.trim_end_matches('.'), "answers on the network for this name");
        Ok(Self { daemon, listening, name: told })
    }

    /// The name that holds, which somebody else's claim may change.
    pub(crate) fn name(&self) -> watch::Receiver<String> {
        self.name.clone()
    }

    /// Takes leave of the network: others forget the name at once.
    pub(crate) async fn end(self) {
        self.listening.abort();
        if let Ok(left) = self.daemon.shutdown() {
            // Who doesn't hear it forgets the name after two minutes.
            let _ = timeout(LEAVE_WITHIN, left.recv_async()).await;
        }
    }
}

/// The port to tell others of: one that others can reach.
fn port(listens: &[SocketAddr]) -> Option<u16> {
    listens.iter().find(|address| !address.ip().is_loopback()).map(SocketAddr::port)
}

#[cfg(test)]
mod tests {
    use mdns_sd::{HostnameResolutionEvent, ServiceEvent};

    use super::*;

    fn check(text: &str) -> Result<Option<String>, String> {
        let raw: RawMdns = toml::from_str(text).map_err(|error| error.to_string())?;
        raw.check().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_name_is_one_label() {
        assert_eq!(check("name = 'pi-3'").unwrap().as_deref(), Some("pi-3"));
        assert_eq!(check("name = ''").unwrap(), None);
        for name in ["pi.local", "Pi", "-pi", "pi-", &"a".repeat(64)] {
            assert!(check(&format!("name = '{name}'")).unwrap_err().contains("without .local"), "{name}");
        }
        assert!(check("name = 'pi'\nnames = 1").unwrap_err().contains("names"));
    }

    #[test]
    fn only_ports_that_others_reach_are_told() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(port(&[at("127.0.0.1:80"), at("[::]:81")]), Some(81));
        assert_eq!(port(&[at("127.0.0.1:80"), at("[::1]:81")]), None);
        assert_eq!(port(&[]), None);
    }

    /// One of this loopback interface and of a port of the test's own: other machines and other tests hear nothing.
    fn on_loopback(port: u16) -> ServiceDaemon {
        let daemon = ServiceDaemon::new_with_port(port).unwrap();
        daemon.disable_interface(IfKind::All).unwrap();
        daemon.enable_interface(IfKind::LoopbackV4).unwrap();
        daemon
    }

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_name_and_both_services_are_found() {
        let port = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let listens = |port: u16| [SocketAddr::from(([0, 0, 0, 0], port))];
        let first = Announcer::on(on_loopback(port), "pi", &listens(80), &listens(8405)).unwrap();
        let asker = on_loopback(port);
        for (service, expected) in [(PAGE, 80), (MEMBERS, 8405)] {
            let found = asker.browse(service).unwrap();
            let found = async {
                loop {
                    if let ServiceEvent::ServiceResolved(service) = found.recv_async().await.unwrap() {
                        break (service.get_port(), service.get_hostname().to_owned());
                    }
                }
            };
            assert_eq!(timeout(SOON, found).await.unwrap(), (expected, "pi.local.".into()));
        }
        first.end().await;
        asker.shutdown().unwrap();
    }

    #[tokio::test]
    async fn a_name_that_somebody_has_is_left_to_him() {
        let port = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        // The same data would be no conflict, so the holder has another address.
        let holder = on_loopback(port);
        let holds = holder.monitor().unwrap();
        let info = ServiceInfo::new(PAGE, "pi", "pi.local.", "127.0.0.7", 80, None).unwrap();
        holder.register(info).unwrap();
        let announced = async { while !matches!(holds.recv_async().await.unwrap(), DaemonEvent::Announce(..)) {} };
        timeout(SOON, announced).await.unwrap();
        let listens = [SocketAddr::from(([0, 0, 0, 0], 8405))];
        let second = Announcer::on(on_loopback(port), "pi", &[], &listens).unwrap();
        let mut name = second.name();
        timeout(SOON, name.wait_for(|name| name == "pi-2.local")).await.unwrap().unwrap();
        let found = holder.resolve_hostname("pi-2.local.", None).unwrap();
        let found = async {
            loop {
                if let HostnameResolutionEvent::AddressesFound(name, addresses) = found.recv_async().await.unwrap() {
                    break (name, addresses.len());
                }
            }
        };
        assert_eq!(timeout(SOON, found).await.unwrap(), ("pi-2.local.".into(), 1));
        second.end().await;
        holder.shutdown().unwrap();
    }
}
