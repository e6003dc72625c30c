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
pub const DIFFERENCES: &[Explained] = &[
    Explained {
        case: "test-disarm-failing-service1",
        differs: &["service:1001 state: theirs stopped (disabled), ours error"],
        decision: "It runs, because its stop fails, and an operator's word doesn't stop it: it stays in error until a probe says that it is stopped. Theirs takes the word for the fact.",
    },
    Explained {
        case: "test-resource-affinity-strict-mixed3",
        differs: &[
            "vm:101 node: theirs node3, ours node2",
            "vm:101 running: theirs node3, ours node2",
            "vm:102 node: theirs node3, ours node2",
            "vm:102 running: theirs node3, ours node2",
            "vm:103 node: theirs node3, ours node2",
            "vm:103 running: theirs node3, ours node2",
            "vm:201 node: theirs node2, ours node1",
            "vm:201 running: theirs node2, ours node1",
            "vm:202 node: theirs node2, ours node1",
            "vm:202 running: theirs node2, ours node1",
            "vm:203 node: theirs node2, ours node1",
            "vm:203 running: theirs node2, ours node1",
        ],
        decision: "Every rule is kept, by other nodes. Each resource moves as soon as its own node reports, not in rounds that wait for all: which of two groups leaves the node that both want is decided by who is heard first.",
    },
    Explained {
        case: "test-resource-affinity-strict-mixed4",
        differs: &[
            "vm:102 node: theirs node3, ours node2",
            "vm:102 running: theirs node3, ours node2",
            "vm:103 node: theirs node3, ours node2",
            "vm:103 running: theirs node3, ours node2",
            "vm:202 node: theirs node4, ours node2",
            "vm:202 running: theirs node4, ours node2",
            "vm:203 node: theirs node4, ours node2",
            "vm:203 running: theirs node4, ours node2",
        ],
        decision: "As mixed3: every rule is kept, and the groups end on other nodes than theirs because nothing waits for a round.",
    },
    Explained {
        case: "test-service-ignore2",
        differs: &[
            "vm:103 node: theirs node1, ours node3",
            "vm:103 running: theirs node1, ours node3",
            "fenced: theirs node3, ours none",
        ],
        decision: "What was ignored has no watchdog to vouch for it: the cluster had told its node to forget it. Without a power device nobody can prove that it doesn't run on the lost node, so it is not started elsewhere. Theirs trusts a watchdog that the node had armed for something else.",
    },
    Explained {
        case: "test-shutdown-policy-migrate-fail1",
        differs: &["vm:0109 node: theirs node1, ours node3", "vm:0109 running: theirs node1, ours node3"],
        decision: "It returns like everything else that left for the shutdown, however often the move away had failed before.",
    },
];
