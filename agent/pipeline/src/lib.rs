//! The heart of Tiebreaker, sans-IO.

pub mod time;
