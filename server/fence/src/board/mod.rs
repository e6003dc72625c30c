//! What hangs on the appliance's own pins: a node's power button with its power LED, and a relay in its supply.

mod atx;
mod lines;
mod panel;
mod relay;

#[cfg(test)]
mod tests;

pub use atx::{BoardConfig, BoardDevice};
pub use lines::{Wire, parse_line};
pub use relay::{RelayConfig, RelayDevice};
pub use tiebreaker_firmware::{BadLineAddress, Bias, LineAddress, Polarity};
