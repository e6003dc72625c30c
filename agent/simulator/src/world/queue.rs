//! The queue of what is going to happen, in the order of (time, sequence).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events by time. The heap moves only keys: events are large.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    keys: BinaryHeap<Reverse<(u64, u64, usize)>>,
    slots: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { keys: BinaryHeap::with_capacity(256), slots: Vec::with_capacity(256), free: Vec::new(), sequence: 0 }
    }

    pub(crate) fn push(&mut self, at: u64, event: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.keys.push(Reverse((at, self.sequence, slot)));
        self.sequence += 1;
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.keys.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let Reverse((_, _, slot)) = self.keys.pop()?;
        self.free.push(slot);
        self.slots[slot].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_first_comes_first_at_the_same_time() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(at, event);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, "abcd");
        assert_eq!(queue.next_at(), None);
    }
}
