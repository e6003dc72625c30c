//! What an operation would do to the plan, asked before it is carried out.

use std::fmt;

use super::{Budget, Cluster, ClusterError, Counterexample, Verdict, plan};

/// What an operation does to the plan for a number of failures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// There is a plan afterwards.
    Keeps,
    /// There is none now, so the operation can't break it.
    NoneToBreak,
    /// There is a plan now and none afterwards.
    Breaks {
        /// How many failures are planned for.
        failures: usize,
        /// What isn't survived any more.
        by: Counterexample,
    },
    /// There is a plan now, and for afterwards none was found or refuted.
    Unproven {
        /// How many failures are planned for.
        failures: usize,
        /// What the simplest strategy doesn't survive, if the search got so far.
        suspicion: Option<Counterexample>,
    },
}

impl Effect {
    /// Whether the operation is to be refused, unless the operator insists: a plan is known now, and isn't afterwards.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Keeps | Self::NoneToBreak => false,
            Self::Breaks { .. } | Self::Unproven { .. } => true,
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keeps => write!(f, "the plan holds"),
            Self::NoneToBreak => write!(f, "there is no plan now that this could break"),
            Self::Breaks { failures, by } => {
                write!(f, "{} would no longer be survived: {by}", Failures(*failures))
            }
            Self::Unproven { failures, suspicion: Some(by) } => {
                write!(f, "{} could no longer be shown to be survived; perhaps {by}", Failures(*failures))
            }
            Self::Unproven { failures, suspicion: None } => {
                write!(f, "{} could no longer be shown to be survived", Failures(*failures))
            }
        }
    }
}

struct Failures(usize);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "the operation itself"),
            1 => write!(f, "1 failure"),
            more => write!(f, "{more} failures"),
        }
    }
}

/// What an operation that turns one cluster into another does to the plan for this many failures: adding or starting a
/// resource ([`Cluster::with`]), draining a node ([`Cluster::without_node`]), or any other change. Two plans are asked
/// for, each with the whole budget.
///
/// # Errors
/// [`ClusterError`] says what is wrong with either cluster.
pub fn what_if(before: &Cluster, after: &Cluster, failures: usize, budget: Budget) -> Result<Effect, ClusterError> {
    let afterwards = plan(after, failures, budget)?.verdict;
    if afterwards == Verdict::Plan {
        return Ok(Effect::Keeps);
    }
    if !plan(before, failures, budget)?.is_plan() {
        return Ok(Effect::NoneToBreak);
    }
    Ok(match afterwards {
        Verdict::Plan => Effect::Keeps,
        Verdict::NoPlan(by) => Effect::Breaks { failures, by },
        Verdict::Unproven(suspicion) => Effect::Unproven { failures, suspicion },
    })
}
