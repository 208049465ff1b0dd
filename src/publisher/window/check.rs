//! What is counted and pointed at, held against a look through the window.

use super::{Entry, State, Window};
use std::collections::BTreeSet;

impl Window {
    /// What is counted and pointed at is what a look through the window finds.
    pub(crate) fn check(&self) {
        let sent_at = |entry: &Entry| match entry.state {
            State::Sent { at, .. } => Some(at),
            State::Waiting | State::Parked | State::Settled => None,
        };
        let count = |state: State| self.all().filter(|entry| entry.state == state).count();
        assert_eq!(self.outstanding, self.all().filter_map(sent_at).count());
        assert_eq!((self.parked, self.settled), (count(State::Parked), count(State::Settled)));
        let is_waiting = |entry: &&Entry| entry.state == State::Waiting;
        assert_eq!(self.waiting, self.entries.iter().filter(is_waiting).count());
        let first_waiting = self.entries.iter().position(|entry| entry.state == State::Waiting);
        assert!(first_waiting.is_none_or(|first| self.cursor <= first));
        assert_eq!(self.oldest_sent_at(), self.all().filter_map(sent_at).min());
        let out_of_turn = self.all().filter(|entry| entry.is_out_of_turn);
        let out_of_turn: BTreeSet<_> =
            out_of_turn.filter_map(|entry| Some((sent_at(entry)?, entry.number))).collect();
        assert_eq!(self.out_of_turn, out_of_turn);
        let event = self.all().find(|entry| entry.is_open_event()).map(|entry| entry.number);
        assert_eq!(self.first_open_event().map(|entry| entry.number), event);
        let events: usize =
            self.all().filter(|entry| !entry.is_settled()).map(|entry| entry.message.events()).sum();
        assert_eq!(self.open_events, events);
        self.aside.check();
        let mut last = None;
        for entry in self.all() {
            assert!(last < Some(entry.number), "numbers rise");
            last = Some(entry.number);
            assert_eq!(self.get(entry.number).map(|entry| entry.number), last);
            let is_on_its_way = entry.message.route.sent.borrow().contains(&entry.number);
            assert_eq!(is_on_its_way, sent_at(entry).is_some(), "{entry:?}");
            assert!(entry.number < self.tried_end || (entry.attempts == 0 && entry.doubt.is_none()));
        }
        assert_eq!(self.pieces, self.entries.iter().filter(|entry| entry.is_piece()).count());
    }
}
