//! Operations: the start, stop and monitor programs of resources, run as named units that outlive nobody.
//!
//! # What is watertight, and how
//!
//! Between the agent and each program stands a small process of ours, the *unit* (`tiebreaker-agent op-exec`): leader
//! of a session of its own, parent of all orphans below it, marked by `TIEBREAKER_OP=<name>` in its environment, which
//! the program inherits. Names are never used twice in a boot. The agent may be killed at any moment:
//!
//! | killed | then |
//! |---|---|
//! | before the unit's record is written | the unit has not been told what to run; it reads the end of its input and exits |
//! | after the record, before or while the program runs | the unit reads the end of its input and kills everything below it; the next agent finds the record and kills whatever is still there, before it probes |
//! | after the program's end | the unit has written the outcome beside the record: the operation is complete |
//!
//! If the unit itself is killed, there is a record without outcome and without a unit: the next look kills every
//! process of its session and every process that carries its mark.
//!
//! # Operation or workload
//!
//! What a start program leaves behind when it ends with success is the workload, and so is what the program leaves that
//! finishes a live move at its target. Nothing kills that as a leftover: its
//! operation is complete. Everything else is part of the operation and dies with it: all below a unit whose program
//! still runs at its deadline, at a cancellation or at the agent's death; all that a *failed* start left behind; and
//! what a stop or a monitor left behind in its own session.
//!
//! A resource whose operation could not be killed (a process in an uninterruptible wait) stays in
//! [`Operations::in_flight`], counts as running and takes no other operation.
//!
//! Programs see a cleared environment: PATH, LANG, `TIEBREAKER_OP`, `TIEBREAKER_RESOURCE`, `TIEBREAKER_AGENT` (the
//! folder of this agent and its successors on this boot), and what the agent's configuration and the driver add. Their input is /dev/null, their folder `/`, their output a file, of which the
//! last 4 KiB become part of the outcome: a workload that keeps that file open is neither blocked nor killed by it.

mod cleanup;
mod mark;
mod operations;
mod record;
mod unit;

pub(crate) use mark::Mark;
pub use operations::{
    Announced, Kind, Leftovers, OUTPUT_TAIL, OperationError, OperationRequest, Operations, OperationsConfig, Outcome,
};
pub use unit::op_exec;
