//! Where a resource belongs: the operator's rules, and the node that follows from them.
//!
//! Everything here is a pure function: the same rules and the same [`picture::Picture`] give the same node on every
//! machine. The steps and their ties are those of Proxmox VE, because users know them; what is ours is the memory that
//! no choice overcommits, and that every node left out says why.
//!
//! [`rule`] is what operators write and the replicated state keeps, [`judge`] what of it can hold at once,
//! [`choose`] the choice of one node, [`moves`] what an operator's move takes along, [`balance`] the moves that nobody
//! asked for, [`score`] the order of the nodes that remain.

pub mod balance;
pub mod choose;
pub mod judge;
pub mod moves;
pub mod picture;
pub mod rule;
pub mod score;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
