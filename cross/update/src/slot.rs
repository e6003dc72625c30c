//! The two halves of a card that an image can start from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A slot, by the number of its partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Slot {
    /// Partition 2, which a new card starts from.
    Two,
    /// Partition 3.
    Three,
}

impl Slot {
    /// The slot in this partition of the card.
    #[must_use]
    pub fn of_partition(number: u64) -> Option<Self> {
        match number {
            2 => Some(Self::Two),
            3 => Some(Self::Three),
            _ => None,
        }
    }

    /// The partition's number.
    #[must_use]
    pub fn partition(self) -> u8 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// The one that this isn't.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Two => Self::Three,
            Self::Three => Self::Two,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.partition().fmt(f)
    }
}

impl From<Slot> for u8 {
    fn from(slot: Slot) -> Self {
        slot.partition()
    }
}

impl TryFrom<u8> for Slot {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        Self::of_partition(number.into()).ok_or_else(|| format!("partition {number} is no slot: 2 and 3 are"))
    }
}
