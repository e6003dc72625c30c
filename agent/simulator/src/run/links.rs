//! Which direct links work: cut by pairs, or with everything of a machine.

use std::collections::BTreeSet;

use crate::world::{Who, World};

#[derive(Debug)]
pub(super) struct Links {
    machines: usize,
    isolated: BTreeSet<Who>,
    cut: BTreeSet<(Who, Who)>,
}

impl Links {
    pub(super) const fn new(machines: usize) -> Self {
        Self { machines, isolated: BTreeSet::new(), cut: BTreeSet::new() }
    }

    pub(super) fn isolate(&mut self, who: Who) {
        self.isolated.insert(who);
    }

    /// All links of a machine work again, but to those that are isolated themselves.
    pub(super) fn rejoin(&mut self, who: Who) {
        self.isolated.remove(&who);
        self.cut.retain(|(one, other)| *one != who && *other != who);
    }

    pub(super) fn cut(&mut self, one: Who, other: Who) {
        self.cut.insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal(&mut self, one: Who, other: Who) {
        self.cut.remove(&(one.min(other), one.max(other)));
    }

    fn works(&self, one: Who, other: Who) -> bool {
        !self.isolated.contains(&one) && !self.isolated.contains(&other) && !self.cut.contains(&(one, other))
    }

    pub(super) fn apply(&self, world: &mut World) {
        for other in 0..self.machines {
            for one in 0..other {
                world.set_link(one, other, self.works(one, other));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_rejoins_reaches_all_but_the_isolated() {
        let mut links = Links::new(4);
        links.cut(2, 1);
        links.isolate(1);
        links.isolate(3);
        assert!(!links.works(1, 2) && !links.works(0, 1) && !links.works(1, 3) && links.works(0, 2));
        links.rejoin(1);
        assert!(links.works(1, 2) && links.works(0, 1) && !links.works(1, 3));
        links.cut(0, 1);
        links.heal(1, 0);
        assert!(links.works(0, 1));
    }
}
