//! The newest events, so many and no more, in one piece of memory.
//!
//! Most events are made while clients come and go. Were each a handful of small allocations, they would lie among what the
//! clients leave behind, and keep the pages of thousands of them from going back to the system.

use std::collections::VecDeque;

use tiebreaker_member::ask::QdeviceEvent;

/// Events that are kept.
const KEPT: usize = 1000;

/// The events, each encoded, and their lengths.
#[derive(Default)]
pub struct KeptEvents {
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl KeptEvents {
    /// Adds the newest; the oldest makes room for it.
    pub fn push(&mut self, event: &QdeviceEvent) {
        let before = self.bytes.len();
        cbor4ii::serde::to_writer(&mut self.bytes, event)
            .expect("writing to memory can't fail, and every field is encodable");
        self.lengths.push_back(self.bytes.len() - before);
        if self.lengths.len() > KEPT
            && let Some(oldest) = self.lengths.pop_front()
        {
            self.bytes.drain(..oldest);
        }
    }

    /// The events after a number, oldest first.
    pub fn after(&self, number: u64) -> Vec<QdeviceEvent> {
        let mut events = Vec::new();
        let mut end = self.bytes.len();
        for length in self.lengths.iter().rev() {
            let begin = end - length;
            let bytes: Vec<u8> = self.bytes.range(begin..end).copied().collect();
            let event: QdeviceEvent = cbor4ii::serde::from_slice(&bytes[..]).expect("it was encoded here");
            if event.number <= number {
                break;
            }
            events.push(event);
            end = begin;
        }
        events.reverse();
        events
    }
}

#[cfg(test)]
mod tests {
    use tiebreaker_member::ask::QdeviceHappening;

    use super::*;

    fn event(number: u64) -> QdeviceEvent {
        let what = QdeviceHappening::NodeLeft {
            cluster: "home".into(),
            node: 7,
            why: "x".repeat(usize::try_from(number % 40).unwrap()),
        };
        QdeviceEvent { number, at_ms: 1_700_000_000_000 + number, warning: true, what, text: number.to_string() }
    }

    #[test]
    fn the_newest_are_kept_as_they_were_and_take_no_more_memory_with_time() {
        let mut kept = KeptEvents::default();
        assert_eq!(kept.after(0), []);
        let mut room = 0;
        for number in 1..=20_000 {
            kept.push(&event(number));
            if number == 5000 {
                room = kept.bytes.capacity();
            }
        }
        let all = kept.after(0);
        assert_eq!((all.len(), all.first()), (KEPT, Some(&event(19_001))));
        assert_eq!(kept.after(19_998), [event(19_999), event(20_000)]);
        assert_eq!(kept.after(20_000), []);
        assert_eq!((kept.bytes.capacity(), kept.bytes.len()), (room, kept.lengths.iter().sum()));
    }
}
