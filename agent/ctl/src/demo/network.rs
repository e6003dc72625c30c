//! The demo's wires: a small TCP proxy in front of every member, whose links can be cut without root.
//!
//! Each member binds an address of its own (127.0.1.x) for what it dials, so a proxy knows both ends of a connection.
//! A cut is silent, as a pulled cable is: nothing passes any more, nothing is refused, and nobody learns that the other
//! end has closed.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Connections through one proxy at one time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// Bytes under way in one direction.
const BUFFER: usize = 16 << 10;

/// A member, as the wires know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Host {
    /// The appliance.
    Appliance,
    /// A node, by its number from 1.
    Node(u8),
}

impl Host {
    /// The address that it binds.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        match self {
            Self::Appliance => Ipv4Addr::new(127, 0, 1, 100),
            Self::Node(number) => Ipv4Addr::new(127, 0, 1, number),
        }
    }

    /// Who dials from an address. The appliance binds none, so it is whoever is none of the nodes.
    fn dialling_from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => match v4.octets() {
                [127, 0, 1, number] if number != 100 => Self::Node(number),
                _ => Self::Appliance,
            },
            IpAddr::V6(_) => Self::Appliance,
        }
    }
}

/// A link, whichever end dials.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Link(Host, Host);

impl Link {
    fn between(a: Host, b: Host) -> Self {
        Self(a.min(b), a.max(b))
    }
}

type Cuts = watch::Receiver<BTreeSet<Link>>;

/// All wires of one demo. They fall when this is dropped.
pub struct Network {
    cuts: watch::Sender<BTreeSet<Link>>,
    proxies: Vec<JoinHandle<()>>,
}

impl Network {
    /// Wires without proxies.
    #[must_use]
    pub fn new() -> Self {
        Self { cuts: watch::Sender::new(BTreeSet::new()), proxies: Vec::new() }
    }

    /// Puts a proxy in front of a member that listens, or will listen, at `target`; returns the address to advertise.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn proxy(&mut self, host: Host, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cuts = self.cuts.subscribe();
        self.proxies.push(tokio::spawn(serve(listener, host, target, cuts)));
        Ok(address)
    }

    /// Cuts the link between two members.
    pub fn cut(&self, a: Host, b: Host) {
        self.cuts.send_modify(|cuts| {
            cuts.insert(Link::between(a, b));
        });
    }

    /// Mends it.
    pub fn mend(&self, a: Host, b: Host) {
        self.cuts.send_modify(|cuts| {
            cuts.remove(&Link::between(a, b));
        });
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for proxy in &self.proxies {
            proxy.abort();
        }
    }
}

async fn serve(listener: TcpListener, host: Host, target: SocketAddr, cuts: Cuts) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        // An accept that fails (no descriptors) leaves the connection waiting, so it is tried again.
        let Ok((stream, from)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let link = Link::between(Host::dialling_from(from.ip()), host);
        let cuts = cuts.clone();
        connections.spawn(async move {
            // Both ends notice that it ended by themselves.
            let _ended = connect(stream, target, link, cuts).await;
            drop(permit);
        });
    }
}

async fn connect(near: TcpStream, target: SocketAddr, link: Link, mut cuts: Cuts) -> io::Result<()> {
    whole(&mut cuts, link).await;
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::try_join!(pump(near_read, far_write, link, cuts.clone()), pump(far_read, near_write, link, cuts))?;
    Ok(())
}

/// Carries bytes one way while the link is whole. What is read, the end and errors included, passes only then.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: Link, mut cuts: Cuts) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        whole(&mut cuts, link).await;
        let read = from.read(&mut buffer).await;
        whole(&mut cuts, link).await;
        match read? {
            0 => return to.shutdown().await,
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}

/// Waits until a link is whole.
async fn whole(cuts: &mut Cuts, link: Link) {
    if cuts.wait_for(|cuts| !cuts.contains(&link)).await.is_err() {
        // The network is being torn down, and this task with it.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    /// Long enough for loopback to have delivered, if it were going to.
    const NEVER: Duration = Duration::from_millis(200);

    /// A server that sends back what it hears.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    async fn dial(from: Host, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        if from != Host::Appliance {
            socket.bind(SocketAddr::from((from.address(), 0))).unwrap();
        }
        socket.connect(to).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, word: &[u8; 4]) {
        stream.write_all(word).await.unwrap();
        hear(stream, word).await;
    }

    async fn hear(stream: &mut TcpStream, word: &[u8; 4]) {
        let mut heard = [0; 4];
        timeout(SOON, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(&heard, word);
    }

    #[tokio::test]
    async fn a_cut_is_silent_hits_one_pair_and_heals() {
        let mut network = Network::new();
        let node2 = network.proxy(Host::Node(2), echo().await).await.unwrap();
        let mut from_node1 = dial(Host::Node(1), node2).await;
        let mut from_pi = dial(Host::Appliance, node2).await;
        ask(&mut from_node1, b"one ").await;
        network.cut(Host::Node(2), Host::Node(1));
        from_node1.write_all(b"two ").await.unwrap();
        let mut later = dial(Host::Node(1), node2).await;
        later.write_all(b"late").await.unwrap();
        let mut heard = [0; 1];
        assert!(timeout(NEVER, from_node1.read(&mut heard)).await.is_err());
        assert!(timeout(NEVER, later.read(&mut heard)).await.is_err());
        ask(&mut from_pi, b"here").await;
        network.mend(Host::Node(1), Host::Node(2));
        hear(&mut from_node1, b"two ").await;
        hear(&mut later, b"late").await;
    }

    #[tokio::test]
    async fn an_end_does_not_pass_a_cut() {
        let mut network = Network::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let pi = network.proxy(Host::Appliance, listener.local_addr().unwrap()).await.unwrap();
        let mut near = dial(Host::Node(1), pi).await;
        let (mut far, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
        near.write_all(b"here").await.unwrap();
        hear(&mut far, b"here").await;
        network.cut(Host::Appliance, Host::Node(1));
        drop(far);
        let mut heard = [0; 1];
        assert!(timeout(NEVER, near.read(&mut heard)).await.is_err());
        network.mend(Host::Appliance, Host::Node(1));
        // Whether the close arrives as an end or as a reset is the kernel's choice.
        assert!(matches!(timeout(SOON, near.read(&mut heard)).await.unwrap(), Ok(0) | Err(_)));
    }
}
