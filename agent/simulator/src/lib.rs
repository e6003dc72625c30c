//! What would this cluster do? A scenario that a person writes, run in virtual time over the code that really decides.
//!
//! [`scenario`] reads it: strictly, with every mistake at its line and column and with what was probably meant.
//! [`world`] is the cluster in virtual time; the fault simulator under `tests/sim` drives the same one.
//! [`output`] is what comes out: one JSON document, or a timeline for people.
//!
//! `docs/simulate.md` documents every key and every event.

pub mod output;
pub mod run;
pub mod scenario;
pub mod world;
