//! Brings the network up and keeps it so: a thread of its own, since a cable may come years later.
//!
//! IPv6 addresses that routers announce are the kernel's own affair.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{Action, Client, Lease};
use crate::log::say;
use crate::modules;
use crate::netlink;
use crate::settings::Network;

const INTERFACES: &str = "/sys/class/net";
/// Its drivers are many and large, and only this thread waits for them.
const MODULES: &str = "network.list";
const RESOLVER: &str = "/etc/resolv.conf";
const LOOPBACK: u32 = 1;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_secs(5);
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
/// Longer than any answer that this client asks for.
const DATAGRAM: usize = 2048;

/// Starts it.
pub fn start(network: Network, host_name: String) {
    thread::spawn(move || {
        if let Err(error) = modules::load(MODULES) {
            say(format_args!("network: {error:#}"));
        }
        if let Err(error) = netlink::up(LOOPBACK) {
            say(format_args!("the loopback interface can't be turned on: {error}"));
        }
        loop {
            let error = run(&network, &host_name).expect_err("it only ends by an error");
            say(format_args!("network: {error:#}; it is tried again"));
            sleep(AGAIN);
        }
    });
}

/// An interface with what the kernel says of it.
struct Interface {
    name: String,
    index: u32,
    hardware: [u8; 6],
}

/// Never returns but by an error.
fn run(network: &Network, host_name: &str) -> Result<std::convert::Infallible> {
    let interface = wait_for_interface(network.interface.as_deref());
    let name = &interface.name;
    netlink::up(interface.index).with_context(|| format!("turning {name} on"))?;
    for (address, prefix) in &network.addresses {
        netlink::address(interface.index, *address, *prefix, true)
            .with_context(|| format!("giving {name} the address {address}/{prefix}"))?;
    }
    for gateway in &network.gateways {
        netlink::gateway(interface.index, *gateway).with_context(|| format!("routing by {gateway}"))?;
    }
    if !network.dns.is_empty() {
        resolve_by(&network.dns)?;
    }
    if !network.asks_dhcp() {
        say(format_args!("network: {name} has {}", listed(&network.addresses)));
        loop {
            thread::park();
        }
    }
    // A question into a cable that isn't in yet would only be asked again after a wait.
    while !has_carrier(name) {
        sleep(LOOK_EVERY);
    }
    ask_dhcp(&interface, network, host_name)
}

fn ask_dhcp(interface: &Interface, network: &Network, host_name: &str) -> Result<std::convert::Infallible> {
    let began = Instant::now();
    let socket = dhcp_socket(&interface.name).context("opening a socket for DHCP")?;
    let random = random().context("reading random bytes")?;
    let mut client = Client::new(Duration::ZERO, interface.hardware, host_name, random);
    let mut held: Option<Lease> = None;
    let mut buffer = [0; DATAGRAM];
    loop {
        while let Some(action) = client.poll(began.elapsed()) {
            act(interface, network, &socket, &mut held, action)?;
        }
        let wait = client.next().saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(wait)).context("waiting for DHCP")?;
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from.port() == DHCP_SERVER => {
                if let Some(action) = client.handle(began.elapsed(), &buffer[..length]) {
                    act(interface, network, &socket, &mut held, action)?;
                }
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("waiting for DHCP"),
        }
    }
}

fn act(
    interface: &Interface,
    network: &Network,
    socket: &UdpSocket,
    held: &mut Option<Lease>,
    action: Action,
) -> Result<()> {
    match action {
        Action::Send { to, bytes } => {
            let to = SocketAddr::from((to.unwrap_or(Ipv4Addr::BROADCAST), DHCP_SERVER));
            // A question that can't be sent is one that isn't answered: it is asked again.
            if let Err(error) = socket.send_to(&bytes, to) {
                say(format_args!("DHCP: asking {to}: {error}"));
            }
        }
        Action::Clear => {
            if let Some(lease) = held.take() {
                say(format_args!("network: {} has run out, and DHCP doesn't extend it", lease.address));
                forget(interface, &lease);
            }
        }
        Action::Set(lease) => {
            if held.as_ref() == Some(&lease) {
                return Ok(());
            }
            if let Some(old) = held.take().filter(|old| old.address != lease.address) {
                forget(interface, &old);
            }
            netlink::address(interface.index, lease.address.into(), lease.prefix, true)
                .with_context(|| format!("giving {} the address {}", interface.name, lease.address))?;
            if let Some(router) = lease.router {
                netlink::gateway(interface.index, router.into()).with_context(|| format!("routing by {router}"))?;
            }
            if network.dns.is_empty() {
                resolve_by(&lease.dns.iter().copied().map(IpAddr::V4).collect::<Vec<_>>())?;
            }
            say(format_args!("network: {} has {}/{} by DHCP", interface.name, lease.address, lease.prefix));
            *held = Some(lease);
        }
    }
    Ok(())
}

fn forget(interface: &Interface, lease: &Lease) {
    if let Err(error) = netlink::address(interface.index, lease.address.into(), lease.prefix, false) {
        say(format_args!("network: {} can't be taken from {}: {error}", lease.address, interface.name));
    }
}

/// Port 68 of this interface alone, also before it has an address.
fn dhcp_socket(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, DHCP_CLIENT)).into())?;
    Ok(socket.into())
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn resolve_by(servers: &[IpAddr]) -> Result<()> {
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(RESOLVER, text).with_context(|| format!("writing {RESOLVER}"))
}

/// Waits for the interface that is named, or for the first wired one.
fn wait_for_interface(name: Option<&str>) -> Interface {
    let mut said = false;
    loop {
        let found = match name {
            Some(name) => interface(name),
            None => first_wired(Path::new(INTERFACES)).and_then(|name| interface(&name)),
        };
        if let Some(found) = found {
            return found;
        }
        if !said {
            said = true;
            say(format_args!("network: waiting for {}", name.unwrap_or("a wired interface")));
        }
        sleep(LOOK_EVERY);
    }
}

/// The first of all that speak Ethernet and have hardware which isn't radio.
fn first_wired(interfaces: &Path) -> Option<String> {
    const ETHERNET: &str = "1";
    let mut names: Vec<String> = fs::read_dir(interfaces)
        .ok()?
        .flatten()
        .filter(|entry| {
            let at = entry.path();
            fs::read_to_string(at.join("type")).is_ok_and(|kind| kind.trim() == ETHERNET)
                && at.join("device").exists()
                && !at.join("wireless").exists()
                && !at.join("phy80211").exists()
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.into_iter().next()
}

fn interface(name: &str) -> Option<Interface> {
    let read = |file: &str| fs::read_to_string(at(name).join(file)).ok();
    let index = read("ifindex")?.trim().parse().ok()?;
    let hardware = hardware(&read("address")?)?;
    Some(Interface { name: name.into(), index, hardware })
}

fn hardware(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    bytes.try_into().ok()
}

fn has_carrier(name: &str) -> bool {
    // An interface that is off can't be asked.
    fs::read_to_string(at(name).join("carrier")).is_ok_and(|carrier| carrier.trim() == "1")
}

fn at(name: &str) -> PathBuf {
    Path::new(INTERFACES).join(name)
}

fn listed(addresses: &[(IpAddr, u8)]) -> String {
    addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wired_interface_is_neither_loopback_nor_radio() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind, extra) in
            [("lo", "772", None), ("eth1", "1", None), ("eth0", "1", None), ("abc", "1", Some("wireless"))]
        {
            fs::create_dir_all(folder.path().join(name).join("device")).unwrap();
            fs::write(folder.path().join(name).join("type"), format!("{kind}\n")).unwrap();
            if let Some(extra) = extra {
                fs::create_dir(folder.path().join(name).join(extra)).unwrap();
            }
        }
        assert_eq!(first_wired(folder.path()).as_deref(), Some("eth0"));
        assert_eq!(first_wired(&folder.path().join("none")), None);
    }

    #[test]
    fn a_hardware_address_has_six_bytes() {
        assert_eq!(hardware("b8:27:eb:01:02:ff\n"), Some([0xb8, 0x27, 0xeb, 1, 2, 0xff]));
        assert_eq!(hardware("b8:27:eb"), None);
        assert_eq!(hardware(""), None);
    }
}
