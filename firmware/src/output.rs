//! One output line that rests unless somebody needs it.

use embedded_hal::digital::{OutputPin, PinState};

/// Which physical level of a line means that it is active.
///
/// A type of our own because the kernel's active-low flag is not honoured by every way of driving a line: the levels
/// that this crate sets and reads are always the physical ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// The line rests low.
    ActiveHigh,
    /// The line rests high.
    ActiveLow,
}

impl Polarity {
    /// The physical level of a line that is active, or at rest.
    #[must_use]
    pub const fn level(self, active: bool) -> PinState {
        match (self, active) {
            (Self::ActiveHigh, true) | (Self::ActiveLow, false) => PinState::High,
            (Self::ActiveHigh, false) | (Self::ActiveLow, true) => PinState::Low,
        }
    }

    /// Whether a line with this physical level is active.
    #[must_use]
    pub const fn is_active(self, high: bool) -> bool {
        match self {
            Self::ActiveHigh => high,
            Self::ActiveLow => !high,
        }
    }
}

/// An output that is told active or at rest, and is put at rest when it is dropped.
pub struct Output<P: OutputPin> {
    pin: P,
    polarity: Polarity,
    driven: Driven,
}

/// What a line was told last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driven {
    /// To rest.
    Rest,
    /// To be active.
    Active,
    /// Something that failed: it may be either.
    Unknown,
}

impl<P: OutputPin> Output<P> {
    /// Takes a line that was requested at its resting level, and drives that level again: a line that rests sees no
    /// edge.
    pub fn at_rest(pin: P, polarity: Polarity) -> Result<Self, P::Error> {
        let mut output = Self { pin, polarity, driven: Driven::Unknown };
        output.set(false)?;
        Ok(output)
    }

    /// Makes the line active, or lets it rest.
    pub fn set(&mut self, active: bool) -> Result<(), P::Error> {
        // Unknown until the pin has said that it did it.
        self.driven = Driven::Unknown;
        self.pin.set_state(self.polarity.level(active))?;
        self.driven = if active { Driven::Active } else { Driven::Rest };
        Ok(())
    }

    /// What the line was told last.
    pub const fn driven(&self) -> Driven {
        self.driven
    }
}

impl<P: OutputPin> Drop for Output<P> {
    fn drop(&mut self) {
        if self.driven != Driven::Rest {
            // Nobody is left to tell; the kernel lets go of the line next.
            let _rests = self.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal_mock::eh1::MockError;
    use embedded_hal_mock::eh1::digital::{Mock, State, Transaction};

    use super::*;

    fn broken() -> MockError {
        MockError::Io(std::io::ErrorKind::Other)
    }

    extern crate std;

    #[test]
    fn an_output_sees_nothing_but_its_resting_level_at_its_start_and_end() {
        for (polarity, rest) in [(Polarity::ActiveHigh, State::Low), (Polarity::ActiveLow, State::High)] {
            let mut pin = Mock::new(&[Transaction::set(rest)]);
            drop(Output::at_rest(pin.clone(), polarity).unwrap());
            pin.done();
        }
    }

    #[test]
    fn an_active_output_rests_when_it_is_dropped() {
        let mut pin =
            Mock::new(&[Transaction::set(State::High), Transaction::set(State::Low), Transaction::set(State::High)]);
        let mut output = Output::at_rest(pin.clone(), Polarity::ActiveLow).unwrap();
        output.set(true).unwrap();
        assert_eq!(output.driven(), Driven::Active);
        drop(output);
        pin.done();
    }

    #[test]
    fn after_a_failed_write_it_is_unknown_and_rest_is_tried_again() {
        let mut pin = Mock::new(&[
            Transaction::set(State::Low),
            Transaction::set(State::High).with_error(broken()),
            Transaction::set(State::Low),
        ]);
        let mut output = Output::at_rest(pin.clone(), Polarity::ActiveHigh).unwrap();
        output.set(true).unwrap_err();
        assert_eq!(output.driven(), Driven::Unknown);
        drop(output);
        pin.done();
    }
}
