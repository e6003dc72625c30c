//! A relay in a machine's supply.

use core::time::Duration;

use embedded_hal::digital::OutputPin;

use crate::{Driven, Moment, Output};

/// The relay cuts the supply when its line is **active**: the machine hangs on the normally closed contact. So a dead
/// appliance, a process that ended and a cable that fell off all leave the machine running, and dropping this gives the
/// supply back.
///
/// A relay doesn't say whether its contacts moved. What this tells is what it was told; without a measurement of the
/// supply it is weak evidence at best.
pub struct SupplyRelay<P: OutputPin> {
    output: Output<P>,
    drain: Duration,
    cut_since: Option<Moment>,
}

/// What the relay was told, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Supply {
    /// To let the machine have power.
    Given,
    /// To cut the power, but so short a time ago that the machine may still run from what its supply has stored.
    Draining {
        /// It is drained by then.
        until: Moment,
    },
    /// To cut the power, for longer than any supply lasts.
    Cut,
    /// Something that failed.
    Unknown,
}

impl<P: OutputPin> SupplyRelay<P> {
    /// The relay on `output`. `drain` is how long the machine may run on when the power is cut.
    pub const fn new(output: Output<P>, drain: Duration) -> Self {
        Self { output, drain, cut_since: None }
    }

    /// Cuts the supply. Said again it changes nothing.
    ///
    /// # Errors
    /// The line could not be driven: it may be cut or not.
    pub fn cut(&mut self, now: Moment) -> Result<(), P::Error> {
        if let Err(error) = self.output.set(true) {
            self.cut_since = None;
            return Err(error);
        }
        self.cut_since.get_or_insert(now);
        Ok(())
    }

    /// Gives the supply back.
    ///
    /// # Errors
    /// The line could not be driven: it may be cut or not.
    pub fn give(&mut self) -> Result<(), P::Error> {
        self.cut_since = None;
        self.output.set(false)
    }

    /// What the relay was told.
    pub fn supply(&self, now: Moment) -> Supply {
        match (self.output.driven(), self.cut_since) {
            (Driven::Rest, _) => Supply::Given,
            (Driven::Active, Some(since)) if now.since(since) >= self.drain => Supply::Cut,
            (Driven::Active, Some(since)) => Supply::Draining { until: since.after(self.drain) },
            (Driven::Active, None) | (Driven::Unknown, _) => Supply::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Polarity;
    use crate::bench::{Bench, Line, ms};

    fn relay(bench: &Bench, polarity: Polarity) -> SupplyRelay<Line<'_>> {
        SupplyRelay::new(Output::at_rest(bench.line(0), polarity).unwrap(), Duration::from_secs(5))
    }

    #[test]
    fn at_its_start_and_at_its_end_the_machine_has_power() {
        for (polarity, rest) in [(Polarity::ActiveHigh, false), (Polarity::ActiveLow, true)] {
            let bench = Bench::new();
            let mut relay = relay(&bench, polarity);
            assert_eq!(relay.supply(ms(0)), Supply::Given);
            relay.cut(ms(0)).unwrap();
            assert_eq!(bench.is_high(0), !rest);
            drop(relay);
            assert_eq!(bench.writes(0), [rest, !rest, rest]);
        }
    }

    #[test]
    fn cut_is_only_cut_once_the_supply_has_drained() {
        let bench = Bench::new();
        let mut relay = relay(&bench, Polarity::ActiveHigh);
        relay.cut(ms(1_000)).unwrap();
        assert_eq!(relay.supply(ms(1_000)), Supply::Draining { until: ms(6_000) });
        relay.cut(ms(5_999)).unwrap();
        assert_eq!(relay.supply(ms(5_999)), Supply::Draining { until: ms(6_000) });
        assert_eq!(relay.supply(ms(6_000)), Supply::Cut);
        relay.give().unwrap();
        assert_eq!(relay.supply(ms(6_001)), Supply::Given);
    }

    #[test]
    fn after_a_failed_write_nothing_is_known_and_draining_begins_anew() {
        let bench = Bench::new();
        let mut relay = relay(&bench, Polarity::ActiveHigh);
        relay.cut(ms(0)).unwrap();
        bench.fail(0, true);
        assert!(relay.cut(ms(4_000)).is_err());
        assert_eq!(relay.supply(ms(9_000)), Supply::Unknown);
        bench.fail(0, false);
        relay.cut(ms(4_500)).unwrap();
        assert_eq!(relay.supply(ms(9_000)), Supply::Draining { until: ms(9_500) });
        bench.fail(0, true);
        assert!(relay.give().is_err());
        assert_eq!(relay.supply(ms(9_000)), Supply::Unknown);
        bench.fail(0, false);
        relay.cut(ms(9_000)).unwrap();
        assert_eq!(relay.supply(ms(13_999)), Supply::Draining { until: ms(14_000) });
    }
}
