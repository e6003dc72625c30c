//! The timeline for people: what happened line by line, then how it ended.

use std::fmt;

use super::{Document, Happened, Line, Switch, What};

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starts => f.write_str("starts"),
            Self::Runs => f.write_str("runs"),
            Self::Stops => f.write_str("stops"),
            Self::Moves => f.write_str("begins to move live"),
            Self::Receives => f.write_str("begins to finish a live move"),
            Self::Stopped => f.write_str("runs no more"),
            Self::Died => f.write_str("died"),
            Self::Failed { why } => f.write_str(why),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { event } => write!(f, "{:<12} {event}", "EVENT"),
            Self::Answer { done, answer } => {
                write!(f, "{:<12} {}: {answer}", "operator", if *done { "done" } else { "refused" })
            }
            Self::Decision { decision } => write!(f, "{:<12} {decision}", "cluster"),
            Self::Leader { member, term } => write!(f, "{member:<12} leads, in term {term}"),
            Self::Machine { member, happened } => write!(f, "{member:<12} {happened}"),
            Self::Resource { resource, node, happened } => write!(f, "{node:<12} {resource} {happened}"),
            Self::Violation { invariant, how } => write!(f, "{:<12} {invariant}: {how}", "VIOLATION"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}  {}", self.at_s, self.what)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.timeline {
            writeln!(f, "{line}")?;
        }
        writeln!(f)?;
        for (name, node) in &self.nodes {
            let power = match node.power {
                Switch::On => "on",
                Switch::Off => "off",
            };
            writeln!(f, "node      {name:<16} {:<14} power {power}", node.state)?;
        }
        for (id, resource) in &self.resources {
            let node = resource.node.as_deref().unwrap_or("-");
            let runs = match &resource.running_on[..] {
                [] => "runs nowhere".to_owned(),
                on => format!("runs on {}", on.join(" and ")),
            };
            writeln!(f, "resource  {id:<16} {:<14} belongs on {node}, {runs}", resource.state)?;
        }
        for fenced in &self.fenced {
            writeln!(f, "fenced    {:<16} at {:.3} s by {}", fenced.node, fenced.at_s, fenced.evidence)?;
        }
        for recovered in &self.recovered {
            let (resource, from, to) = (&recovered.resource, &recovered.from, &recovered.to);
            writeln!(f, "recovered {resource:<16} from {from} to {to}, {:.3} s after its loss", recovered.after_s)?;
        }
        match self.violations.len() {
            0 => write!(f, "no invariant was broken"),
            broken => write!(f, "{broken} INVARIANT(S) BROKEN"),
        }
    }
}
