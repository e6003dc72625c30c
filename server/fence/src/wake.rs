//! Wake-on-LAN behind another device: it helps a machine on its way up, and never says anything about its power.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};

use crate::{BoxFuture, Device, DeviceError, Fault, MacAddress, OffSign, PowerState, Proof};

/// A machine whose supply came back needs seconds before its network card listens, so the packet is sent this often…
const PACKETS: u32 = 5;
/// …and this far apart.
const SPACING: Duration = Duration::from_secs(1);
/// Where the packet goes, by custom: the discard port.
pub const WAKE_PORT: u16 = 9;

/// What wakes a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wake {
    /// Its network card.
    pub mac: MacAddress,
    /// Where the packet goes: the broadcast address of the machine's network, or the machine's own, with a port.
    pub to: SocketAddr,
    /// SecureOn: six more bytes, which the card compares. They cross the network in the clear, so they are no secret.
    pub secure_on: Option<MacAddress>,
}

impl Wake {
    /// The magic packet: six bytes of ones, sixteen times the address, and SecureOn if there is one.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0xFF; 6];
        (0..16).for_each(|_| packet.extend(self.mac.bytes()));
        packet.extend(self.secure_on.iter().flat_map(|password| password.bytes()));
        packet
    }

    async fn send(&self, deadline: Instant) -> io::Result<()> {
        let any: SocketAddr = if self.to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.set_broadcast(true)?;
        let packet = self.packet();
        let mut next = Instant::now();
        for _ in 0..PACKETS {
            socket.send_to(&packet, self.to).await?;
            next += SPACING;
            if next >= deadline {
                break;
            }
            sleep_until(next).await;
        }
        Ok(())
    }
}

/// A device, and a magic packet after each "on" of it.
pub struct Waking {
    device: Box<dyn Device>,
    wake: Wake,
}

impl Waking {
    /// This device, with packets for this machine.
    #[must_use]
    pub fn new(device: Box<dyn Device>, wake: Wake) -> Self {
        Self { device, wake }
    }
}

impl Device for Waking {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn sign(&self) -> OffSign {
        self.device.sign()
    }

    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
        self.device.state(deadline)
    }

    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        self.device.off(deadline)
    }

    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
        Box::pin(async move {
            self.device.on(deadline).await?;
            let sent = self.wake.send(deadline).await;
            sent.map_err(|error| {
                let why = format!("the power is on, but the packet that wakes the machine can't be sent: {error}");
                DeviceError::new(self.name(), Fault::Protocol, why)
            })
        })
    }

    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
        self.device.prove(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always off, whatever it is told.
    struct Dark;

    impl Device for Dark {
        fn name(&self) -> &'static str {
            "dark"
        }

        fn sign(&self) -> OffSign {
            OffSign::Relay
        }

        fn state(&self, _: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>> {
            Box::pin(std::future::ready(Ok(PowerState::Off)))
        }

        fn off(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn on(&self, _: Instant) -> BoxFuture<'_, Result<(), DeviceError>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn prove(&self, _: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>> {
            Box::pin(std::future::ready(Ok(Proof { state: PowerState::Off, guid: None })))
        }
    }

    #[tokio::test]
    async fn a_packet_follows_an_on_and_nothing_else() {
        let card = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let wake = Wake {
            mac: "a8:03:2a:be:54:dc".parse().unwrap(),
            to: card.local_addr().unwrap(),
            secure_on: Some("01:02:03:04:05:06".parse().unwrap()),
        };
        let device = Waking::new(Box::new(Dark), wake);
        let deadline = Instant::now() + Duration::from_millis(900);
        device.off(deadline).await.unwrap();
        device.prove(deadline).await.unwrap();
        let mut bytes = [0; 200];
        assert_eq!(card.try_recv(&mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        device.on(deadline).await.unwrap();
        let length = card.recv(&mut bytes).await.unwrap();
        assert_eq!(bytes[..length], wake.packet());
        assert_eq!((length, &bytes[..12]), (6 + 16 * 6 + 6, &b"\xFF\xFF\xFF\xFF\xFF\xFF\xA8\x03\x2A\xBE\x54\xDC"[..]));
        assert_eq!(bytes[102..108], [1, 2, 3, 4, 5, 6]);
        // That it was woken says nothing.
        assert_eq!((device.state(deadline).await.unwrap(), device.sign()), (PowerState::Off, OffSign::Relay));
    }
}
