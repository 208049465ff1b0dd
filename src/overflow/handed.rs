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

use std::collections::{BTreeMap, VecDeque};

#[derive(Debug)]
pub(super) struct Handed {
    confirmed: u64,
    /// Of each record from `confirmed` on, how many of its events are open.
    open: VecDeque<u32>,
    /// The same of records behind these.
    ahead: BTreeMap<u64, u32>,
}

impl Handed {
    /// All below `confirmed` has met its fate.
    pub(super) fn new(confirmed: u64) -> Self {
        Self { confirmed, open: VecDeque::new(), ahead: BTreeMap::new() }
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The first record that was not handed out.
    pub(super) fn next(&self) -> u64 {
        self.confirmed + self.open.len() as u64
    }

    /// Behind the last record that was handed out, also ahead.
    pub(super) fn out(&self) -> u64 {
        let ahead = self.ahead.last_key_value().map_or(0, |(&sequence, _)| sequence + 1);
        ahead.max(self.next())
    }

    /// A record with so many events was handed out. Those before it that were not are gone.
    pub(super) fn hand_out(&mut self, sequence: u64, events: u32) {
        debug_assert!(sequence >= self.next(), "it is handed out once");
        self.pass_to(sequence);
        self.open.push_back(events);
        self.advance();
    }

    /// A record was written that is in the window already, with so many open events.
    pub(super) fn hand_out_ahead(&mut self, sequence: u64, events: u32) {
        self.ahead.insert(sequence, events);
        self.advance();
    }

    /// Nothing is before `sequence` that could be handed out.
    pub(super) fn pass_to(&mut self, sequence: u64) {
        while self.next() < sequence {
            let events = self.ahead.remove(&self.next()).unwrap_or(0);
            self.open.push_back(events);
            self.advance();
        }
    }

    /// An event of a record has met its fate.
    pub(super) fn settle(&mut self, sequence: u64) {
        let at = sequence.checked_sub(self.confirmed).and_then(|at| usize::try_from(at).ok());
        let events = match at.and_then(|at| self.open.get_mut(at)) {
            Some(events) => Some(events),
            None => self.ahead.get_mut(&sequence),
        };
        if let Some(events) = events {
            *events = events.saturating_sub(1);
        }
        self.advance();
    }

    fn advance(&mut self) {
        // What comes next and is out already need not be read.
        while let Some(events) = self.ahead.remove(&self.next()) {
            self.open.push_back(events);
        }
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.confirmed += 1;
        }
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
}
