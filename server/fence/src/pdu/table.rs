//! Where each family of PDUs keeps its outlets. Pure.
//!
//! Each value is named as in its vendor's MIB: PowerNet-MIB (APC), EATON-EPDU-MIB, CPS-MIB (CyberPower),
//! TRIPPLITE-PRODUCTS.

use async_snmp::{Oid, Value};

use super::error::PduError;
use crate::PowerState;

/// A family of PDUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PduTable {
    /// APC rPDU: AP78xx and AP79xx (`rPDUOutlet…`).
    ApcRpdu,
    /// APC rPDU2: AP84xx to AP89xx (`rPDU2Outlet…`). The metered ones tell watts.
    ApcRpdu2,
    /// APC MasterSwitch: AP92xx, and AP79xx by its older table (`sPDUOutletCtl`).
    ApcMasterSwitch,
    /// Eaton ePDU G2 to G4 (`outletControl…`). The metered ones tell watts.
    Eaton,
    /// CyberPower ePDU (`ePDUOutlet…`).
    CyberPower,
    /// Tripp Lite with a network card (`tlpPduOutlet…`).
    TrippLite,
}

/// Every family, by its name in the configuration.
const NAMES: [(&str, PduTable); 6] = [
    ("apc-rpdu", PduTable::ApcRpdu),
    ("apc-rpdu2", PduTable::ApcRpdu2),
    ("apc-masterswitch", PduTable::ApcMasterSwitch),
    ("eaton", PduTable::Eaton),
    ("cyberpower", PduTable::CyberPower),
    ("tripplite", PduTable::TrippLite),
];

/// A text names no [`PduTable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no table of outlets that is known: apc-rpdu, apc-rpdu2, apc-masterswitch, eaton, cyberpower or tripplite"
)]
pub struct UnknownTable(String);

impl std::str::FromStr for PduTable {
    type Err = UnknownTable;

    fn from_str(text: &str) -> Result<Self, UnknownTable> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        named.map(|(_, table)| *table).ok_or_else(|| UnknownTable(text.to_owned()))
    }
}

impl PduTable {
    /// Every family.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, table)| table)
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, table)| *table == self).map_or("", |(name, _)| name)
    }

    /// Whether this family has a place for the watts of one outlet.
    #[must_use]
    pub fn measures(self) -> bool {
        self.watts(1).is_some()
    }

    /// The PDU's serial number. Tripp Lite's is its network card's.
    pub(crate) fn serial(self) -> Oid {
        Oid::from_slice(match self {
            PduTable::ApcRpdu => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 1, 6, 0],
            PduTable::ApcRpdu2 => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 2, 1, 9, 1],
            PduTable::ApcMasterSwitch => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 4, 1, 5, 0],
            PduTable::Eaton => &[1, 3, 6, 1, 4, 1, 534, 6, 6, 7, 1, 2, 1, 4, 0],
            PduTable::CyberPower => &[1, 3, 6, 1, 4, 1, 3808, 1, 1, 3, 1, 6, 0],
            PduTable::TrippLite => &[1, 3, 6, 1, 4, 1, 850, 100, 1, 1, 4, 0],
        })
    }

    /// The state of one outlet.
    pub(crate) fn state(self, outlet: u32) -> Oid {
        Oid::from_slice(match self {
            PduTable::ApcRpdu => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 3, 5, 1, 1, 4],
            PduTable::ApcRpdu2 => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 2, 3, 1, 5],
            PduTable::ApcMasterSwitch => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 4, 4, 2, 1, 3],
            PduTable::Eaton => &[1, 3, 6, 1, 4, 1, 534, 6, 6, 7, 6, 6, 1, 2, 0],
            PduTable::CyberPower => &[1, 3, 6, 1, 4, 1, 3808, 1, 1, 3, 3, 5, 1, 1, 4],
            PduTable::TrippLite => &[1, 3, 6, 1, 4, 1, 850, 10, 2, 3, 5, 1, 2, 1],
        })
        .child(outlet)
    }

    /// What a state of one outlet says. What is neither on nor off, as "pending" and "unknown", is on: power may flow.
    ///
    /// # Errors
    /// It is no state, or that of no outlet.
    pub(crate) fn read(self, outlet: u32, value: &Value) -> Result<PowerState, PduError> {
        let state = match value {
            Value::Integer(state) => *state,
            Value::NoSuchObject | Value::NoSuchInstance => {
                return Err(PduError::NoOutlet { outlet, table: self.name() });
            }
            _ => return Err(PduError::Nonsense("the outlet's state is no number")),
        };
        let (on, off, others) = match self {
            // pending states are told elsewhere
            PduTable::ApcRpdu | PduTable::CyberPower => (1, 2, 1..=4),
            // unknown: 4
            PduTable::ApcMasterSwitch => (1, 2, 1..=4),
            PduTable::ApcRpdu2 => (2, 1, 1..=2),
            // pendingOff: 2, pendingOn: 3
            PduTable::Eaton => (1, 0, 0..=3),
            // unknown: 0
            PduTable::TrippLite => (2, 1, 0..=2),
        };
        match state {
            state if state == off => Ok(PowerState::Off),
            state if state == on || others.contains(&state) => Ok(PowerState::On),
            _ => Err(PduError::Nonsense("the outlet is in a state that its table doesn't have")),
        }
    }

    /// The watts of one outlet, where the family has a place for them.
    pub(crate) fn watts(self, outlet: u32) -> Option<Oid> {
        let base: &[u32] = match self {
            PduTable::ApcRpdu2 => &[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 4, 3, 1, 7],
            PduTable::Eaton => &[1, 3, 6, 1, 4, 1, 534, 6, 6, 7, 6, 5, 1, 3, 0],
            PduTable::ApcRpdu | PduTable::ApcMasterSwitch | PduTable::CyberPower | PduTable::TrippLite => return None,
        };
        Some(Oid::from_slice(base).child(outlet))
    }

    /// What switches one outlet at once.
    pub(crate) fn command(self, outlet: u32, to: PowerState) -> (Oid, Value) {
        let off = to == PowerState::Off;
        let (base, value): (&[u32], i32) = match self {
            PduTable::ApcRpdu => (&[1, 3, 6, 1, 4, 1, 318, 1, 1, 12, 3, 3, 1, 1, 4], if off { 2 } else { 1 }),
            PduTable::ApcRpdu2 => (&[1, 3, 6, 1, 4, 1, 318, 1, 1, 26, 9, 2, 4, 1, 5], if off { 2 } else { 1 }),
            PduTable::ApcMasterSwitch => (&[1, 3, 6, 1, 4, 1, 318, 1, 1, 4, 4, 2, 1, 3], if off { 2 } else { 1 }),
            // The value is a delay in seconds.
            PduTable::Eaton if off => (&[1, 3, 6, 1, 4, 1, 534, 6, 6, 7, 6, 6, 1, 3, 0], 0),
            PduTable::Eaton => (&[1, 3, 6, 1, 4, 1, 534, 6, 6, 7, 6, 6, 1, 4, 0], 0),
            PduTable::CyberPower => (&[1, 3, 6, 1, 4, 1, 3808, 1, 1, 3, 3, 3, 1, 1, 4], if off { 2 } else { 1 }),
            PduTable::TrippLite => (&[1, 3, 6, 1, 4, 1, 850, 10, 2, 3, 5, 1, 4, 1], if off { 1 } else { 2 }),
        };
        (Oid::from_slice(base).child(outlet), Value::Integer(value))
    }
}

/// Watts in milliwatts.
///
/// # Errors
/// It is no such number, or there is none.
pub(crate) fn milliwatts(value: &Value) -> Result<u32, PduError> {
    let watts = match value {
        Value::Integer(watts) => u32::try_from(*watts).map_err(|_| PduError::NotMeasured)?,
        Value::Gauge32(watts) => *watts,
        Value::NoSuchObject | Value::NoSuchInstance => return Err(PduError::NotMeasured),
        _ => return Err(PduError::Nonsense("the outlet's watts are no number")),
    };
    watts.checked_mul(1_000).ok_or(PduError::Nonsense("no outlet carries so many watts"))
}

/// The serial number as text.
///
/// # Errors
/// It is none.
pub(crate) fn serial(value: &Value) -> Result<&str, PduError> {
    let Value::OctetString(bytes) = value else { return Err(PduError::Nonsense("its serial number is no text")) };
    let text = std::str::from_utf8(bytes).map_err(|_| PduError::Nonsense("its serial number is no text"))?;
    Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_an_outlet_is_what_its_state_becomes_and_no_other_value_is_off() {
        for table in PduTable::all() {
            let off: Vec<i32> = (-5..300)
                .filter(|state| table.read(1, &Value::Integer(*state)).is_ok_and(|state| state == PowerState::Off))
                .collect();
            assert_eq!(off.len(), 1, "{}", table.name());
            for odd in [Value::Null, Value::Gauge32(2), Value::OctetString("2".into()), Value::NoSuchInstance] {
                assert!(table.read(1, &odd).is_err(), "{} {odd:?}", table.name());
            }
            assert!(table.read(1, &Value::Integer(99)).is_err());
            assert_ne!(table.command(1, PowerState::Off), table.command(1, PowerState::On));
            assert_ne!(table.state(1), table.state(2));
            assert_eq!(table.name().parse::<PduTable>().unwrap(), table);
        }
        assert!("pdu".parse::<PduTable>().unwrap_err().to_string().contains("apc-rpdu2"));
    }

    #[test]
    fn transitional_and_unknown_states_are_on() {
        for (table, states) in
            [(PduTable::Eaton, &[2, 3][..]), (PduTable::ApcMasterSwitch, &[4]), (PduTable::TrippLite, &[0])]
        {
            for state in states {
                assert_eq!(table.read(1, &Value::Integer(*state)).unwrap(), PowerState::On, "{}", table.name());
            }
        }
    }

    #[test]
    fn watts_and_serial_numbers_are_read_strictly() {
        assert_eq!(milliwatts(&Value::Integer(42)).unwrap(), 42_000);
        assert_eq!(milliwatts(&Value::Gauge32(0)).unwrap(), 0);
        // APC tells minus one where it has no meter.
        for bad in [Value::Integer(-1), Value::NoSuchInstance, Value::Null, Value::Gauge32(u32::MAX)] {
            assert!(milliwatts(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(serial(&Value::OctetString(" 5A1234E00874\0".into())).unwrap(), "5A1234E00874");
        assert!(serial(&Value::Integer(5)).is_err() && serial(&Value::OctetString(vec![0xFF].into())).is_err());
    }
}
