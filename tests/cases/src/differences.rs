//! Outcomes that differ from the published ones because we decided so.

/// A case that comes out differently, on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The case.
    pub case: &'static str,
    /// Exactly what differs, as [`Difference::what`](crate::Difference::what) says it. Anything else that differs is an
    /// error all the same.
    pub differs: &'static [&'static str],
    /// What we decided, and why.
    pub decision: &'static str,
}

/// All of them. An entry that no longer differs, or differs in something else, fails the suite.
pub const DIFFERENCES: &[Explained] = &[];
