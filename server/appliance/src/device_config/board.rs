//! Devices at the appliance's own pins: what their tables say.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tiebreaker_fence::{Bias, BoardConfig, RelayConfig, Wire, parse_line};
use toml::Spanned;

use super::{Pull, RawDevice, place};

/// How long an LED is dark before that means off. Sleeping machines blink faster than the longest.
const DARK_S: (u64, std::ops::RangeInclusive<u64>) = (3, 2..=6);
/// How long a node may run on when its supply is cut. A look at the device must be able to wait for it.
const DRAIN_S: (u64, std::ops::RangeInclusive<u64>) = (5, 1..=8);

impl RawDevice {
    /// A power button and a power LED.
    pub(super) fn board(&self, text: &str) -> Result<BoardConfig> {
        let button = self.wire("button", self.button.as_ref(), "the line that presses the power button", text)?;
        let led = self.wire("led", self.led.as_ref(), "the line of the power LED: nothing is off without it", text)?;
        if button.line == led.line {
            bail!(
                "{}: led: it is the button's line",
                self.led.as_ref().map_or(String::new(), |led| place(text, led.span()))
            );
        }
        let bias = match self.led_pull.as_ref().map(Spanned::get_ref) {
            None | Some(Pull::None) => Bias::Wired,
            Some(Pull::Up) => Bias::PullUp,
            Some(Pull::Down) => Bias::PullDown,
        };
        let dark_is_off = seconds("dark_is_off_s", self.dark_is_off_s.as_ref(), &DARK_S, text)?;
        Ok(BoardConfig { button, led, bias, dark_is_off })
    }

    /// A relay.
    pub(super) fn relay(&self, text: &str) -> Result<RelayConfig> {
        self.has_no_battery(text)?;
        let line = self.wire("line", self.line.as_ref(), "the line that cuts the supply while it is active", text)?;
        let drain = seconds("drain_s", self.drain_s.as_ref(), &DRAIN_S, text)?;
        Ok(RelayConfig { line, drain })
    }

    fn wire(&self, key: &str, raw: Option<&Spanned<String>>, what: &str, text: &str) -> Result<Wire> {
        let raw = raw.ok_or_else(|| {
            let example = "for instance \"GPIO23\", or \"!GPIO23\" if it is active when low";
            self.lacks(text, key, &format!("{what}, {example}"))
        })?;
        parse_line(raw.get_ref()).with_context(|| format!("{}: {key}", place(text, raw.span())))
    }
}

fn seconds(
    key: &str,
    raw: Option<&Spanned<u64>>,
    (default, allowed): &(u64, std::ops::RangeInclusive<u64>),
    text: &str,
) -> Result<Duration> {
    let Some(raw) = raw else { return Ok(Duration::from_secs(*default)) };
    if !allowed.contains(raw.get_ref()) {
        let at = place(text, raw.span());
        bail!("{at}: {key}: {} is not between {} and {}", raw.get_ref(), allowed.start(), allowed.end());
    }
    Ok(Duration::from_secs(*raw.get_ref()))
}
