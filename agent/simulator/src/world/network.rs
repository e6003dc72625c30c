//! The links between members: delays, losses, cuts in one direction or both, and the way through a third member.

use super::dice::{Dice, MS, US};

/// A direct link that brought nothing for this long is taken for dead.
pub(crate) const DEAD_AFTER: u64 = 700 * MS;
/// Who was heard within this time, by any path, counts as heard.
pub(crate) const HEARD_WITHIN: u64 = 1200 * MS;
/// Members ping each other this often.
pub(crate) const PING_EVERY: u64 = 250 * MS;

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    cuts: u32,
    loss_permille: u64,
    slow: Option<(u64, u64)>,
}

/// All links of a cluster.
#[derive(Debug)]
pub(crate) struct Network {
    size: usize,
    links: Vec<Link>,
    duplicates_permille: u64,
}

impl Network {
    pub(crate) fn new(size: usize, dice: &mut Dice) -> Self {
        Self { size, links: vec![Link::default(); size * size], duplicates_permille: dice.pick(&[0, 0, 5, 30]) }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.size + to]
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.link(from, to).cuts += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.cuts = link.cuts.saturating_sub(1);
    }

    /// Nothing crosses it.
    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.links[from * self.size + to].cuts > 0
    }

    /// For good: whatever cut it before.
    pub(crate) fn set(&mut self, from: usize, to: usize, works: bool) {
        self.link(from, to).cuts = u32::from(!works);
    }

    pub(crate) fn set_loss(&mut self, from: usize, to: usize, permille: u64) {
        self.link(from, to).loss_permille = permille;
    }

    pub(crate) fn set_slow(&mut self, from: usize, to: usize, slow: Option<(u64, u64)>) {
        self.link(from, to).slow = slow;
    }

    pub(crate) fn heal(&mut self) {
        self.links.fill(Link::default());
    }

    /// The delays of the copies of one message that arrive: none, one or two.
    pub(crate) fn carry(&mut self, from: usize, to: usize, dice: &mut Dice) -> (Option<u64>, Option<u64>) {
        let duplicates = self.duplicates_permille;
        let link = *self.link(from, to);
        if link.cuts > 0 || (link.loss_permille > 0 && dice.permille(link.loss_permille)) {
            return (None, None);
        }
        let (least, most) = link.slow.unwrap_or((200 * US, 2 * MS));
        let first = dice.between(least, most);
        let second = (duplicates > 0 && dice.permille(duplicates)).then(|| first + dice.between(MS, 300 * MS));
        (Some(first), second)
    }
}
