//! What has been handed out of the log, and up to where all of it has met its fate.
//!
//! ```text
//!        confirmed           next
//!            ▼                 ▼
//!   ░░░░░░░░░▒▒░▒▒▒▒▒░▒▒▒▒▒▒▒▒▒│              │▒▒▒▒│              ░ has met its fate
//!                              └─ in the log ─┘ └── handed out ahead      ▒ is open
//! ```
//!
//! Records are handed out in their order, so what is open is a run of the log, as long as the window. Only what the window held before it was
//! written to the log is handed out *ahead*; the run passes over it when it comes there.

use std::collections::BTreeMap;

/// Its size depends on what is open, and not on how much of the log has been handed out, was lost, or never existed.
#[derive(Debug)]
pub(super) struct Handed {
    next: u64,
    /// Of each record that has open events, how many.
    open: BTreeMap<u64, u32>,
    /// Of the runs of records that were handed out ahead, where each begins and ends. All are behind `next`.
    ahead: BTreeMap<u64, u64>,
}

impl Handed {
    /// All below `confirmed` has met its fate.
    pub(super) fn new(confirmed: u64) -> Self {
        Self { next: confirmed, open: BTreeMap::new(), ahead: BTreeMap::new() }
    }

    /// All below has met its fate.
    pub(super) fn confirmed(&self) -> u64 {
        self.open.first_key_value().map_or(self.next, |(&open, _)| open.min(self.next))
    }

    /// The first record that was not handed out.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Behind the last record that was handed out, also ahead.
    pub(super) fn out(&self) -> u64 {
        self.ahead.last_key_value().map_or(self.next, |(_, &end)| end)
    }

    /// A record with so many open events was handed out. Those before it that were not are gone.
    pub(super) fn hand_out(&mut self, sequence: u64, events: u32) {
        debug_assert!(sequence >= self.next, "it is handed out once");
        self.open(sequence, events);
        self.pass_to(sequence + 1);
    }

    /// More events of a record that was handed out are open.
    pub(super) fn hand_out_more(&mut self, sequence: u64, events: u32) {
        self.open(sequence, events);
    }

    /// A record was written that is in the window already, with so many open events.
    pub(super) fn hand_out_ahead(&mut self, sequence: u64, events: u32) {
        if sequence < self.next {
            return;
        }
        self.open(sequence, events);
        match self.ahead.range_mut(..=sequence).next_back() {
            Some((_, end)) if *end >= sequence => *end = (*end).max(sequence + 1),
            _ => drop(self.ahead.insert(sequence, sequence + 1)),
        }
        self.pass_to(self.next);
    }

    /// Nothing is before `sequence` that could be handed out.
    pub(super) fn pass_to(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
        // What comes next and is out already need not be read.
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.next
        {
            self.next = self.next.max(first.remove());
        }
    }

    /// An event of a record has met its fate.
    pub(super) fn settle(&mut self, sequence: u64) {
        if let Some(events) = self.open.get_mut(&sequence) {
            *events -= 1;
            if *events == 0 {
                self.open.remove(&sequence);
            }
        }
    }

    fn open(&mut self, sequence: u64, events: u32) {
        if events > 0 {
            *self.open.entry(sequence).or_default() += events;
        }
    }

    /// How many things it remembers.
    #[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
    pub(super) fn remembered(&self) -> usize {
        self.open.len() + self.ahead.len()
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_confirmed_rises_when_all_before_has_met_its_fate() {
        let mut handed = Handed::new(5);
        handed.hand_out(5, 1);
        handed.hand_out(6, 2);
        handed.hand_out(8, 1);
        assert_eq!((handed.confirmed(), handed.next()), (5, 9));
        handed.settle(6);
        handed.settle(5);
        assert_eq!(handed.confirmed(), 6, "one event of the record is open");
        handed.settle(6);
        assert_eq!(handed.confirmed(), 8, "the record between them is gone");
        handed.settle(8);
        assert_eq!((handed.confirmed(), handed.next()), (9, 9));
    }

    #[test]
    fn what_was_handed_out_ahead_is_passed_over() {
        let mut handed = Handed::new(1);
        handed.hand_out_ahead(4, 1);
        handed.hand_out_ahead(5, 1);
        handed.settle(5);
        handed.hand_out(1, 1);
        handed.hand_out(2, 1);
        assert_eq!(handed.next(), 3);
        handed.hand_out(3, 1);
        assert_eq!((handed.confirmed(), handed.next()), (1, 6), "4 and 5 are out already");
        (1..=3).for_each(|sequence| handed.settle(sequence));
        assert_eq!(handed.confirmed(), 4);
        handed.settle(4);
        assert_eq!((handed.confirmed(), handed.next()), (6, 6));
    }

    #[test]
    fn what_is_unknown_or_settled_twice_changes_nothing() {
        let mut handed = Handed::new(3);
        handed.hand_out(3, 1);
        handed.settle(2);
        handed.settle(9);
        assert_eq!((handed.confirmed(), handed.next()), (3, 4));
        handed.settle(3);
        handed.settle(3);
        assert_eq!((handed.confirmed(), handed.next()), (4, 4));
    }

    #[test]
    fn what_is_gone_or_has_met_its_fate_takes_no_memory() {
        let mut handed = Handed::new(1);
        handed.hand_out(1, 1);
        for sequence in 2..100_000 {
            handed.hand_out(2 * sequence, 1);
            handed.settle(2 * sequence);
        }
        handed.pass_to(1 << 50);
        for sequence in 0..100_000 {
            handed.hand_out_ahead((1 << 51) + sequence, 0);
        }
        assert_eq!((handed.confirmed(), handed.next(), handed.remembered()), (1, 1 << 50, 2));
        handed.pass_to(1 << 51);
        handed.settle(1);
        assert_eq!((handed.confirmed(), handed.remembered()), ((1 << 51) + 100_000, 0));
    }
}
