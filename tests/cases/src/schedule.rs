//! When the commands of a case are carried out.

use crate::command::Command;
use crate::published::{Case, CaseError};

/// A round of their simulator is at least this long, in seconds, and grows with the nodes.
const ROUND_MIN_S: u32 = 20;
/// Each node takes this much of a round.
const NODE_S: u32 = 2;
/// A batch is carried out every so many rounds.
const ROUNDS_PER_BATCH: u32 = 5;
/// A run goes on so long after the time at which one more batch would come.
const TAIL_S: u32 = 500;

/// The batches of a case with their times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Schedule {
    /// Each batch and the second at which it comes.
    pub(crate) batches: Vec<(u32, Vec<Command>)>,
    /// The second at which the run ends.
    pub(crate) end_s: u32,
}

impl Schedule {
    /// Reads the commands of a case and finds their times.
    ///
    /// The first batch comes in the first round, each other in the fifth round that counts. A `delay` postpones only the
    /// batch after its own: rounds count from its end on, the one that begins there included.
    pub(crate) fn of(case: &Case) -> Result<Self, CaseError> {
        let nodes = u32::try_from(case.hardware.len()).expect("a case's nodes are fewer than 2^32");
        let round = ROUND_MIN_S.max(NODE_S * nodes);
        let mut at = round;
        let mut batches = Vec::new();
        for batch in &case.cmdlist {
            let commands: Vec<Command> = batch
                .iter()
                .map(|text| Command::parse(text).ok_or_else(|| case.unknown("the command", text)))
                .collect::<Result<_, _>>()?;
            let delay = commands.iter().filter_map(delay).next_back().unwrap_or(0);
            batches.push((at, commands));
            at += (delay.div_ceil(round).max(1) + ROUNDS_PER_BATCH - 1) * round;
        }
        Ok(Self { batches, end_s: at + TAIL_S })
    }

    /// Every command with its time.
    pub(crate) fn commands(&self) -> impl DoubleEndedIterator<Item = (u32, &Command)> {
        self.batches.iter().flat_map(|(at, batch)| batch.iter().map(|command| (*at, command)))
    }
}

fn delay(command: &Command) -> Option<u32> {
    if let Command::Delay(seconds) = command { Some(*seconds) } else { None }
}

#[cfg(test)]
mod tests;
