//! What resources were measured to use.

use super::*;
use crate::report::Usage;

#[test]
fn only_what_runs_is_told_what_it_uses() {
    let used = Usage { memory: 4096, milli_cpus: 250 };
    let told = |a: &Machine| a.node.report(&a.log.state).usage.get(&web()).copied();
    let mut a = Machine::running(placed());
    assert_eq!(told(&a), None, "nothing was measured: unknown, not zero");
    a.event(Event::Used(BTreeMap::from([(web(), used)])));
    assert_eq!(told(&a), Some(used));
    a.monitor(Found::Stopped);
    assert_eq!(told(&a), None);
    a.started(Found::Running);
    a.event(Event::Used(BTreeMap::new()));
    assert_eq!(told(&a), None, "it can't be measured any more");
}
