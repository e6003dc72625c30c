//! Real peers for the tests: how they are started, asked and ended.

pub mod ipmi_sim;
mod tool;

pub use tool::tool;
