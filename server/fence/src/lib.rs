//! Fence devices: what cuts a node's power, and what proves that it is cut.
//!
//! [`Device`] is what the appliance works with; [`power_off`] is the one way to turn a node off: command, then two fresh
//! reads of `Off`. Unknown is an error and never `Off`, and nothing here ever cycles or resets.
//!
//! [`IpmiDevice`] speaks IPMI v2.0 (RMCP+) with cipher suites 17 and 3 and nothing weaker. Commands are ipmi-rs-core's
//! types; the transport is our own, because every reply must belong to the question just asked. Codec, login and session
//! are pure state machines over datagrams; only the client and [`Bmc::serve`] own sockets.
//!
//! [`RedfishDevice`] speaks Redfish over HTTPS. The BMC's certificate is pinned, as a whole, and nothing else in it counts;
//! every operation begins by making sure that the system is the configured one.
//!
//! [`PlugDevice`] switches one outlet of a smart plug over plain HTTP, which is all that plugs speak; where the plug measures,
//! its relay's word counts only with the watts gone.
//!
//! [`PduDevice`] switches one outlet of a rack PDU by SNMP. [`AllOf`] makes one device of all outlets that feed a node, and
//! [`Waking`] adds Wake-on-LAN to a device's "on". [`ProgramDevice`] runs any fence agent of others.
//!
//! [`BoardDevice`] presses a node's power button through the appliance's own pins and believes its power LED, [`RelayDevice`]
//! cuts its supply.
//!
//! [`Bmc`] is the other end of IPMI: a small BMC for the demo and for tests, behind which a process tree can stand for a node.
//!
//! This crate decides nothing about *whether* to fence.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that can't go on shall fail"))]

mod all;
mod bmc;
mod board;
mod device;
mod ipmi;
#[cfg(test)]
mod matrix;
mod pdu;
mod plug;
mod power;
mod program;
mod redfish;
mod secret;
mod wake;
mod web;

#[doc(hidden)]
pub mod fuzzing;

pub use all::{AllOf, NoFeeds};
pub use bmc::{Account, Bmc, Chassis, ChassisError, FaultSwitch, Faults};
pub use board::{
    BadLineAddress, Bias, BoardConfig, BoardDevice, LineAddress, Polarity, RelayConfig, RelayDevice, Wire, parse_line,
};
pub use device::{BoxFuture, Device, DeviceError, Fault, OffSign, PowerState, Proof, SystemGuid};
pub use ipmi::{
    client::{IpmiDevice, probe_suite},
    config::{BadUserName, IpmiConfig, Privilege, RMCP_PORT, Suite, UnknownSuite, UserName},
    error::{IpmiError, Malformed, Stage},
    rakp::Status,
};
pub use pdu::{
    client::PduDevice,
    config::{PduConfig, SNMP_PORT, SnmpHash, SnmpLogin},
    error::PduError,
    table::{PduTable, UnknownTable},
};
pub use plug::{
    client::PlugDevice,
    config::{BadMacAddress, MAX_PLUG_OUTLETS, MacAddress, Meter, PlugConfig, PlugLogin, PlugModel},
    error::PlugError,
};
pub use power::{ConfirmedOff, Overseer, PowerOffError, Progress, confirm_off, power_off};
pub use program::{
    client::ProgramDevice,
    config::{OWN_OPTIONS, ProgramConfig, RunAs, is_option},
    error::ProgramError,
};
pub use redfish::{
    client::RedfishDevice,
    config::{AccountName, BadAccountName, BadPath, HTTPS_PORT, RedfishConfig, RedfishLogin, ResourcePath},
    error::RedfishError,
};
pub use secret::{Secret, SecretError};
pub use wake::{WAKE_PORT, Wake, Waking};
pub use web::{
    error::WebError,
    pin::{BadFingerprint, Fingerprint, Pins},
};
