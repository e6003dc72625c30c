//! What would this cluster do? A scenario that a person writes, run in virtual time over the code that really decides.
//!
//! [`scenario`] reads it: strictly, with every mistake at its line and column and with what was probably meant.
//! [`output`] is what comes out: one JSON document, or a timeline for people.
//!
//! `docs/simulate.md` documents every key and every event.

pub mod output;
pub mod scenario;
