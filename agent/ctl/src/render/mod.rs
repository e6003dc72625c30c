//! Answers as text for people: aligned, plain, without colour, so that it can be piped and pasted.

mod log;
mod plan;
mod status;
mod table;

pub use log::log;
pub use plan::{drain, planned, rules, settings};
#[cfg(test)]
pub use status::example_status;
pub use status::{resources, status};
pub use table::Table;
