//! Answers as text for people: aligned, plain, without colour, so that it can be piped and pasted.

mod log;
mod status;
mod table;

pub use log::log;
#[cfg(test)]
pub use status::example_status;
pub use status::{resources, status};
pub use table::Table;
