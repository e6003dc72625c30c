//! Where a resource belongs: the operator's rules, and what follows from them.
//!
//! [`rule`] is what operators write and the replicated state keeps, [`judge`] what of it can hold at once.

pub mod judge;
pub mod rule;

#[cfg(test)]
mod fixture;
