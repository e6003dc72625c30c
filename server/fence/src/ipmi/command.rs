//! The commands that fencing needs, in ipmi-rs-core's terms.

use ipmi_rs_core::connection::{IpmiCommand, Message, NetFn, NotEnoughData};

use super::config::Privilege;
use crate::PowerState;

pub(crate) const GET_DEVICE_ID: u8 = 0x01;
pub(crate) const GET_SYSTEM_GUID: u8 = 0x37;
pub(crate) const GET_CHANNEL_AUTH_CAPABILITIES: u8 = 0x38;
pub(crate) const SET_SESSION_PRIVILEGE: u8 = 0x3B;
pub(crate) const CLOSE_SESSION: u8 = 0x3C;
pub(crate) const GET_CHANNEL_CIPHER_SUITES: u8 = 0x54;
pub(crate) const GET_CHASSIS_STATUS: u8 = 0x01;
pub(crate) const CHASSIS_CONTROL: u8 = 0x02;

/// Bit 0 of the first byte of Get Chassis Status: power is on (table 28-3).
pub(crate) const CHASSIS_POWER_ON: u8 = 0x01;
/// Chassis Control: cut the power at once, no soft shutdown (table 28-4).
pub(crate) const CONTROL_POWER_DOWN: u8 = 0x00;
/// Chassis Control: give power.
pub(crate) const CONTROL_POWER_UP: u8 = 0x01;

/// A command with a name for errors and logs.
pub(crate) trait Named: IpmiCommand<Error = NotEnoughData> {
    const NAME: &'static str;
}

/// Get Chassis Status (section 28.2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChassisStatus;

impl From<ChassisStatus> for Message {
    fn from(_: ChassisStatus) -> Self {
        Message::new_request(NetFn::Chassis, GET_CHASSIS_STATUS, vec![])
    }
}

impl IpmiCommand for ChassisStatus {
    type Output = PowerState;
    type Error = NotEnoughData;
    fn parse_success_response(data: &[u8]) -> Result<PowerState, NotEnoughData> {
        // Three bytes are mandatory. Fewer are no chassis status, and guessing "off" from them would be fatal.
        match data {
            [state, _, _, ..] if state & CHASSIS_POWER_ON != 0 => Ok(PowerState::On),
            [_, _, _, ..] => Ok(PowerState::Off),
            _ => Err(NotEnoughData),
        }
    }
}

impl Named for ChassisStatus {
    const NAME: &'static str = "Get Chassis Status";
}

/// Chassis Control (section 28.3): hard off and on alone. Cycle and reset don't exist here, because they report success
/// without anyone having seen the node off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChassisControl(pub(crate) PowerState);

impl From<ChassisControl> for Message {
    fn from(control: ChassisControl) -> Self {
        let action = match control.0 {
            PowerState::Off => CONTROL_POWER_DOWN,
            PowerState::On => CONTROL_POWER_UP,
        };
        Message::new_request(NetFn::Chassis, CHASSIS_CONTROL, vec![action])
    }
}

impl IpmiCommand for ChassisControl {
    type Output = ();
    type Error = NotEnoughData;
    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Named for ChassisControl {
    const NAME: &'static str = "Chassis Control";
}

/// Set Session Privilege Level (section 22.18). A session starts as user, whatever its login asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetSessionPrivilege(pub(crate) Privilege);

impl From<SetSessionPrivilege> for Message {
    fn from(command: SetSessionPrivilege) -> Self {
        Message::new_request(NetFn::App, SET_SESSION_PRIVILEGE, vec![command.0.level()])
    }
}

impl IpmiCommand for SetSessionPrivilege {
    /// The level that the session now has.
    type Output = u8;
    type Error = NotEnoughData;
    fn parse_success_response(data: &[u8]) -> Result<u8, NotEnoughData> {
        data.first().map(|level| level & 0x0F).ok_or(NotEnoughData)
    }
}

impl Named for SetSessionPrivilege {
    const NAME: &'static str = "Set Session Privilege Level";
}

/// Get System GUID (section 22.14).
#[derive(Debug, Clone, Copy)]
pub(crate) struct GetSystemGuid;

impl From<GetSystemGuid> for Message {
    fn from(_: GetSystemGuid) -> Self {
        Message::new_request(NetFn::App, GET_SYSTEM_GUID, vec![])
    }
}

impl IpmiCommand for GetSystemGuid {
    type Output = [u8; 16];
    type Error = NotEnoughData;
    fn parse_success_response(data: &[u8]) -> Result<[u8; 16], NotEnoughData> {
        data.first_chunk().copied().ok_or(NotEnoughData)
    }
}

impl Named for GetSystemGuid {
    const NAME: &'static str = "Get System GUID";
}

/// Close Session (section 22.19), with the BMC's id of the session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloseSession(pub(crate) u32);

impl From<CloseSession> for Message {
    fn from(command: CloseSession) -> Self {
        Message::new_request(NetFn::App, CLOSE_SESSION, command.0.to_le_bytes().to_vec())
    }
}

impl IpmiCommand for CloseSession {
    type Output = ();
    type Error = NotEnoughData;
    fn parse_success_response(_: &[u8]) -> Result<(), NotEnoughData> {
        Ok(())
    }
}

impl Named for CloseSession {
    const NAME: &'static str = "Close Session";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_chassis_status_is_an_error_and_never_off() {
        for data in [&[][..], &[0], &[0, 0]] {
            assert!(ChassisStatus::parse_success_response(data).is_err());
        }
        assert_eq!(ChassisStatus::parse_success_response(&[0x60, 0, 0]), Ok(PowerState::Off));
        assert_eq!(ChassisStatus::parse_success_response(&[0x61, 0, 0, 0]), Ok(PowerState::On));
    }

    #[test]
    fn switching_is_hard_and_never_a_cycle() {
        assert_eq!(Message::from(ChassisControl(PowerState::Off)).data(), [0]);
        assert_eq!(Message::from(ChassisControl(PowerState::On)).data(), [1]);
    }
}
