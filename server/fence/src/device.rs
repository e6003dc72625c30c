//! What every fence device can do, and how it fails.

use std::{error::Error, fmt, future::Future, pin::Pin};

use tokio::time::Instant;

/// A boxed future, so that devices of several kinds fit behind one `dyn Device`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The power state that a device reports. There is no third value: what is not known is a [`DeviceError`], never `Off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// The node has power.
    On,
    /// The node has no power.
    Off,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PowerState::On => "on",
            PowerState::Off => "off",
        })
    }
}

/// What stands behind the word of a device that reads `Off`, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OffSign {
    /// A BMC, which knows the state of its own machine.
    Bmc,
    /// A meter: every feed is cut, and what still flows is too little to run on.
    Meter,
    /// The machine's power LED, which is dark.
    Led,
    /// A relay that says that it is open, with nothing measured behind it.
    Relay,
    /// A program of somebody else, whatever that asked.
    Program,
}

/// One device that can cut a node's power.
///
/// Every call is one complete conversation with the device, works alone (a second call waits for the first), and ends at
/// the deadline at the latest. A caller may drop the future at any time; the device is then told to end the session.
pub trait Device: Send + Sync {
    /// Kind and address, for logs and the status page. Holds no secret.
    fn name(&self) -> &str;

    /// What stands behind each `Off` that this device reads: the same for all of its life. A device that can't look there
    /// fails to read, and never reads `Off` on less.
    fn sign(&self) -> OffSign;

    /// Reads the state now. The answer belongs to a question asked after this call began.
    fn state(&self, deadline: Instant) -> BoxFuture<'_, Result<PowerState, DeviceError>>;

    /// Tells the device to cut the power. `Ok` means that it acknowledged, and proves nothing; see [`crate::power_off`].
    fn off(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>>;

    /// Tells the device to give power. `Ok` means that it acknowledged.
    fn on(&self, deadline: Instant) -> BoxFuture<'_, Result<(), DeviceError>>;

    /// Logs in with the right to switch, reads the state and switches nothing: the health check of an idle device.
    fn prove(&self, deadline: Instant) -> BoxFuture<'_, Result<Proof, DeviceError>>;
}

/// What a device showed while it was idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The state it read. Evidence needs a device that reads `On` while its node renews its lease.
    pub state: PowerState,
    /// The machine behind the device, where it can tell.
    pub guid: Option<SystemGuid>,
}

/// The identity of the machine behind a BMC, in the byte order in which the BMC sent it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemGuid([u8; 16]);

impl SystemGuid {
    /// `None` for all zeros and all ones, which firmware sends when nobody set a GUID.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16] && bytes != [0xFF; 16]).then_some(Self(bytes))
    }

    /// That of a UUID as text, in the byte order of RFC 4122. `None` as with [`SystemGuid::new`], and for what is no UUID.
    #[must_use]
    pub fn from_uuid(text: &str) -> Option<Self> {
        parse_uuid(text).and_then(Self::new)
    }

    /// The bytes as received.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is the machine with that DMI UUID (`/sys/class/dmi/id/product_uuid`, hyphens and case don't matter).
    ///
    /// Three byte orders are in use: SMBIOS (first three fields little-endian), RFC 4122 (big-endian) and that of the
    /// IPMI specification (section 20.8, all 16 bytes reversed). Any of them counts: two different machines can't be
    /// permutations of each other's random bytes but by an accident of 2^-100.
    #[must_use]
    pub fn matches_dmi(&self, uuid: &str) -> bool {
        let Some(rfc) = parse_uuid(uuid) else { return false };
        let mut reversed = self.0;
        reversed.reverse();
        [self.0, smbios_to_rfc(self.0), reversed].contains(&rfc)
    }
}

impl fmt::Debug for SystemGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemGuid(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

impl fmt::Display for SystemGuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" })?;
        }
        Ok(())
    }
}

fn smbios_to_rfc(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0u8; 16];
    let mut digits = 0usize;
    for c in text.trim().chars().filter(|c| *c != '-') {
        let nibble = u8::try_from(c.to_digit(16)?).ok()?;
        let byte = bytes.get_mut(digits / 2)?;
        *byte = *byte << 4 | nibble;
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}

/// What is wrong, in the terms of someone who must act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No answer, or an answer that there is nobody: cable, switch, address, the device without power.
    Unreachable,
    /// The device refuses the name, the password, the key or the algorithms.
    Credentials,
    /// Logged in, but without the right to switch.
    Privilege,
    /// The device asks to come back later: no free session, or busy.
    Busy,
    /// The device answered, but nothing that can be trusted or understood.
    Protocol,
    /// The device understood the command and refuses it.
    Refused,
}

impl Fault {
    /// Whether trying again can help. Wrong credentials don't mend themselves, and some devices lock an account that
    /// keeps trying.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Fault::Unreachable | Fault::Busy | Fault::Protocol | Fault::Refused => true,
            Fault::Credentials | Fault::Privilege => false,
        }
    }

    /// Whether a command that failed so was certainly not carried out, and won't be.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        match self {
            Fault::Credentials | Fault::Privilege | Fault::Refused => true,
            Fault::Unreachable | Fault::Busy | Fault::Protocol => false,
        }
    }
}

/// A device failed. Never evidence of anything about the node.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {source}")]
pub struct DeviceError {
    /// [`Device::name`] of the device.
    pub device: String,
    /// The class of the failure.
    pub fault: Fault,
    /// The driver's own error.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl DeviceError {
    /// An error of the named device.
    pub fn new(device: impl Into<String>, fault: Fault, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { device: device.into(), fault, source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "00112233-4455-6677-8899-AABBCCDDEEFF\n";
    const RFC: [u8; 16] =
        [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

    #[test]
    fn a_guid_matches_in_each_byte_order_in_use() {
        let mut reversed = RFC;
        reversed.reverse();
        for bytes in [RFC, smbios_to_rfc(RFC), reversed] {
            assert!(SystemGuid::new(bytes).unwrap().matches_dmi(UUID), "{bytes:02x?}");
        }
    }

    #[test]
    fn another_machine_and_broken_text_do_not_match() {
        let guid = SystemGuid::new(RFC).unwrap();
        for text in ["00112233-4455-6677-8899-aabbccddeefe", "", "0011", "zz112233-4455-6677-8899-aabbccddeeff"] {
            assert!(!guid.matches_dmi(text), "{text}");
        }
        assert!(!guid.matches_dmi(&format!("{UUID}00").replace('\n', "")));
    }

    #[test]
    fn an_unset_guid_is_none() {
        assert_eq!(SystemGuid::new([0; 16]), None);
        assert_eq!(SystemGuid::new([0xFF; 16]), None);
        for text in ["00000000-0000-0000-0000-000000000000", "", "To be filled by O.E.M.", "00112233"] {
            assert_eq!(SystemGuid::from_uuid(text), None);
        }
        assert_eq!(SystemGuid::from_uuid(UUID).unwrap().to_string(), UUID.trim().to_lowercase());
    }
}
