//! What may be stored although no answer says so.

use super::{Entry, State, Window};
use std::time::Instant;

/// Why a message that waits may be stored all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// When the first attempt without an answer was made.
    pub(crate) since: Instant,
    /// All attempts without an answer bore the message's id, so the server recognises it if it is sent again in time.
    pub(crate) has_id: bool,
    /// It was looked for in the stream and is not there. It could only arrive late, from a connection that we have left.
    pub(crate) is_unfound: bool,
    /// All attempts without an answer were made in the connection that we have, so the server has read them before whatever it is asked now.
    is_here: bool,
    /// One of them was, and nobody has looked for the message since.
    is_on_its_way: bool,
}

impl Entry {
    /// Whether it was sent through the connection that we have, got no answer, and was not looked for since.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.is_in_doubt() && self.doubt.is_some_and(|doubt| doubt.is_on_its_way)
    }

    /// Whether the message may be stored as far as can be found out.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state == State::Waiting && self.doubt.is_some_and(|doubt| !doubt.is_unfound)
    }
}

impl Window {
    /// The message that was pushed last may have been sent by another process, and nobody can tell. Until then, if that is known, the server
    /// recognises it.
    pub(crate) fn doubt_last(&mut self, since: Instant, until: Option<Instant>) {
        if let Some(entry) = self.entries.back_mut() {
            self.tried_end = entry.number + 1;
            entry.doubt =
                Some(Doubt { since, has_id: true, is_unfound: true, is_here: false, is_on_its_way: false });
            entry.known_until = until;
        }
    }

    /// The attempt ended without an answer, so the message waits again, and may be stored.
    pub(crate) fn mark_unanswered(&mut self, number: u64) {
        let Some(Entry { state: State::Sent { at, .. }, .. }) = self.get(number) else { return };
        let at = *at;
        if let Some(entry) = self.unsend(number) {
            let is_here = entry.doubt.is_none_or(|doubt| doubt.is_here);
            let before = entry.doubt.filter(|doubt| !doubt.is_unfound);
            let first = Doubt { since: at, has_id: true, is_unfound: false, is_here, is_on_its_way: true };
            let before = before.unwrap_or(first);
            let has_id = before.has_id && entry.bears_id;
            entry.doubt = Some(Doubt { has_id, is_on_its_way: true, ..before });
        }
    }

    /// It is known now that no attempt so far has stored the message. One that bore an id may still arrive; what a batch that is over
    /// had of it is refused then.
    pub(crate) fn mark_not_stored(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            let late = entry.doubt.filter(|doubt| doubt.has_id).or(entry.doubt_before);
            entry.doubt = late.map(|doubt| Doubt { is_unfound: true, is_on_its_way: false, ..doubt });
        }
    }

    /// The same of one that no attempt can store any more.
    pub(crate) fn mark_never_stored(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.doubt = None;
        }
    }

    /// Whether no attempt without an answer was made in an earlier connection.
    pub(crate) fn was_sent_only_here(&self, number: u64) -> bool {
        self.get(number).and_then(|entry| entry.doubt).is_none_or(|doubt| doubt.is_here)
    }

    /// The connection is another one from now on: what was sent may still arrive through the last one.
    pub(crate) fn leave_connection(&mut self) {
        for entry in self.all_mut() {
            for doubt in [&mut entry.doubt, &mut entry.doubt_before].into_iter().flatten() {
                doubt.is_here = false;
                doubt.is_on_its_way = false;
            }
        }
    }

    /// It is known now that the last attempt has not stored the message, so it waits again.
    pub(crate) fn mark_failed(&mut self, number: u64) {
        self.unsend(number);
        if let Some(entry) = self.entry(number) {
            entry.doubt = entry.doubt_before;
        }
    }

    /// The stream is another one from now on: what may be stored in the last one will never be known to be.
    pub(crate) fn leave_behind(&mut self) {
        for entry in self.all_mut() {
            let is_sent = matches!(entry.state, State::Sent { .. });
            entry.is_left_behind |= is_sent || entry.doubt.is_some();
        }
    }
}
