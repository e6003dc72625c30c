//! The safety rules that a schedule of faults can reach, each with the switch that the simulator's mutation runs use.
//!
//! In a normal build [`Rules`] has no fields and every rule holds, always; the switches exist only under the feature
//! `mutations`, which nothing that ships enables.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $row:literal,)*) => {
        /// Which rules hold. All of them, but in mutation runs.
        #[cfg(feature = "mutations")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Rules { $($(#[$doc])* pub $name: bool,)* }

        /// Which rules hold: all of them.
        #[cfg(not(feature = "mutations"))]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Rules;

        impl Default for Rules {
            fn default() -> Self {
                Self::ALL
            }
        }

        impl Rules {
            /// Every rule holds.
            #[cfg(feature = "mutations")]
            pub const ALL: Self = Self { $($name: true,)* };

            /// Every rule holds.
            #[cfg(not(feature = "mutations"))]
            pub const ALL: Self = Self;

            /// Every rule by name, with the number of its row in the list of attacks.
            pub const TABLE: &[(&str, u32)] = &[$((stringify!($name), $row),)*];

            /// All rules but the named one; `None` where there is no such rule.
            #[cfg(feature = "mutations")]
            #[must_use]
            pub fn without(name: &str) -> Option<Self> {
                Self::ALL.less(name)
            }

            /// These rules but the named one; `None` where there is no such rule.
            #[cfg(feature = "mutations")]
            #[must_use]
            pub fn less(mut self, name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => self.$name = false,)*
                    _ => return None,
                }
                Some(self)
            }

            $(
                $(#[$doc])*
                #[cfg(feature = "mutations")]
                #[must_use]
                #[inline]
                pub const fn $name(self) -> bool {
                    self.$name
                }

                $(#[$doc])*
                #[cfg(not(feature = "mutations"))]
                #[must_use]
                #[inline]
                pub const fn $name(self) -> bool {
                    true
                }
            )*
        }
    };
}

rules! {
    /// No evidence by watchdog arithmetic from a machine that may be paused from outside, or from an unproven device.
    only_trusted_watchdogs_prove_silence = 5,
    /// A node's lease ends when either clock says so.
    lease_ends_on_either_clock = 7,
    /// Whoever starts leading assumes a grant to everyone.
    leader_assumes_grants = 16,
    /// No grant and no management outside the quorum lease.
    grants_need_the_quorum_lease = 19,
    /// A grant of a lower term than the node has seen is ignored.
    old_terms_are_ignored = 20,
    /// Reports are ordered by incarnation and sequence, and count only for decisions they have applied.
    reports_are_ordered = 22,
    /// After a change of profile the longer times hold until every life has applied it.
    longer_times_hold = 23,
    /// A move is `Release`, a report, `Assign`.
    release_then_assign = 25,
    /// Leftovers are killed before the first probe, and what is in flight counts as running.
    operations_in_flight_count = 26,
    /// Stopped is what a probe says, never an exit code.
    stopped_is_what_a_probe_says = 27,
    /// `apply` voids commands whose incarnation, generation or fence has passed.
    late_commands_are_void = 28,
    /// The executor acts only when it has applied what the grant's leader had committed.
    executor_waits_for_the_commit_index = 29,
    /// A new resource is probed on every node before its first placement.
    new_resources_are_probed = 31,
    /// A live move begins only when the target's watchdog is armed for it.
    live_moves_wait_for_the_targets_guard = 32,
    /// It begins in the lease in which that was found: by a later one the target may be up again, unguarded.
    moves_begin_while_the_targets_guard_is_fresh = 32,
    /// The target of a live move stays guarded until the move is over, with a lease and without.
    what_may_come_is_guarded = 32,
    /// A live move that failed ends at its source only on a look at the target from after its end.
    a_failed_move_ends_on_a_fresh_look = 32,
    /// A live move ends at its target only once its source says that it is gone from there.
    moves_end_when_the_source_is_out = 32,
    /// It is gone from its source when a probe there has found nothing, whatever the move itself has said.
    what_was_sent_is_probed = 32,
    /// A node that goes starts nothing any more, so that its word that it runs nothing holds.
    who_leaves_starts_nothing = 25,
    /// A node hasn't left while something may come to it live.
    nobody_leaves_while_something_comes = 32,
    /// A node that left, or was fenced, proves nothing about what was added later than that.
    absence_proves_what_was_known = 31,
    /// A watchdog that is being disarmed is not armed.
    armed_is_not_disarming = 8,
    /// A second boot inside a live grant gets none.
    one_boot_per_grant = 33,
    /// A fenced node is admitted only once the fence is closed.
    closed_before_readmission = 36,
    /// No fence that leaves no majority in service.
    fences_leave_a_majority = 37,
    /// No grant to a life from the moment that its fence is proposed.
    no_grant_to_the_condemned = 38,
    /// A new boot is evidence only when it has applied the fence and runs nothing.
    new_boots_prove_with_the_fence_applied = 39,
    /// Readmission only on a report that has applied the closing.
    admission_has_applied_the_closing = 40,
    /// The appliance reads linearizably before each command to a device.
    devices_need_a_fresh_read = 42,
    /// No evidence by watchdog arithmetic from a life whose promise is suspended.
    unbound_lives_prove_nothing = 8,
    /// A device that reads off proves nothing before the other nodes have been heard again.
    power_counts_while_the_others_are_heard = 44,
    /// A node that another member hears is not fenced inside its lease.
    others_are_asked_first = 48,
}

#[cfg(test)]
mod tests;
