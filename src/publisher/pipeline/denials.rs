//! What becomes of messages when the server says that we may not publish to their subject: it names the subject and not the message.
//!
//! The server that we are connected to says so once for each message that it does not take, in the order in which it reads them.
//! Acknowledgements come from the stream's leader, and may come after. So denials are counted, and held against the messages to
//! that subject that have no answer:
//!
//! ```text
//!   sent, no answer     denials
//!      1  2  3             2        one of them may be stored, and its answer may still come
//!         2  3             2        none of them is stored: dropped, as permission
//! ```
//!
//! The count comes out even within a round trip, unless an answer is lost, or a denial (the client keeps 128 and forgets the rest of a
//! burst). After [`GRACE`] the messages are *in doubt*, as any others without an answer: the stream is read, what is there is acked, and
//! what is not there was denied. What nobody can tell is indeterminate.
//!
//! An attempt that has ended without an answer can still be denied, and that denial would be held against others. Then the count is
//! *lost*, and every denial leads to doubt, until the next look at the stream: its answer comes behind every denial of what was sent
//! before it.
//!
//! A denial is believed for [`BELIEF`], and meanwhile what goes to its subject is dropped without being sent. Then one message tries again,
//! and the next one only if that was answered, or another [`BELIEF`] later. So a subject that stays denied costs one message a second,
//! and the others do not wait for it.

use super::{Entry, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::retry::Cause;
use bytes::Bytes;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a denial is believed before one message tries again.
const BELIEF: Duration = Duration::from_secs(1);

/// How long the answers and denials that are still missing are waited for.
const GRACE: Duration = Duration::from_millis(500);

/// Subjects whose denial is remembered.
const DENIALS_MAX: usize = 1024;

/// Subjects that we may not publish to.
#[derive(Debug, Default)]
pub(super) struct Denials {
    subjects: HashMap<Bytes, Denial>,
    /// An attempt has ended without an answer, so a denial may be of that one.
    has_lost_count: bool,
    /// The last of the deadlines that were brought forward.
    hastened_to: Option<Instant>,
}

#[derive(Debug)]
struct Denial {
    told_at: Instant,
    believed_until: Instant,
    /// Denials that are not yet held against messages.
    told: usize,
}

impl Denials {
    pub(super) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether messages to this subject are dropped without being sent.
    pub(super) fn is_believed(&self, now: Instant, subject: &Bytes) -> bool {
        self.subjects.get(subject).is_some_and(|denial| now < denial.believed_until)
    }

    /// A message to this subject is about to be sent, to try again.
    pub(super) fn try_again(&mut self, now: Instant, subject: &Bytes) {
        if let Some(denial) = self.subjects.get_mut(subject) {
            denial.believed_until = now + BELIEF;
        }
    }

    /// From now on a denial may be of a message that nobody waits for any more.
    pub(super) fn lose_count(&mut self) {
        self.has_lost_count = true;
    }

    /// Every denial so far has been heard, or will never be.
    pub(super) fn count_anew(&mut self) {
        self.subjects.values_mut().for_each(|denial| denial.told = 0);
        self.has_lost_count = false;
        self.hastened_to = None;
    }

    /// When answers are due that were brought forward; all others are due in the order in which they were sent.
    pub(super) fn hastened_to(&self) -> Option<Instant> {
        self.hastened_to
    }

    /// What was brought forward up to here has been looked at.
    pub(super) fn pass(&mut self, now: Instant) {
        self.hastened_to.take_if(|due| *due <= now);
    }

    fn hear(&mut self, now: Instant, subject: &[u8]) {
        if self.subjects.len() >= DENIALS_MAX {
            self.subjects.retain(|_, denial| now < denial.believed_until);
        }
        let (told_at, believed_until) = (now, now + BELIEF);
        if let Some(denial) = self.subjects.get_mut(subject) {
            (denial.told_at, denial.believed_until) = (told_at, believed_until);
        } else if self.subjects.len() < DENIALS_MAX {
            let denial = Denial { told_at, believed_until, told: 0 };
            self.subjects.insert(Bytes::copy_from_slice(subject), denial);
        }
    }

    fn count(&mut self, subject: &[u8]) {
        if let Some(denial) = self.subjects.get_mut(subject) {
            denial.told += 1;
        }
    }

    /// Whether there are as many denials as messages, so that each of these is denied. Then they are no longer counted.
    fn settle(&mut self, subject: &[u8], messages: usize) -> bool {
        let even = |denial: &&mut Denial| messages > 0 && denial.told == messages;
        let Some(denial) = self.subjects.get_mut(subject).filter(even) else { return false };
        if self.has_lost_count {
            return false;
        }
        denial.told = 0;
        true
    }

    /// What was sent to this subject at this moment has been taken.
    fn permit(&mut self, subject: &Bytes, sent_at: Instant) {
        if self.subjects.get(subject).is_some_and(|denial| denial.told_at < sent_at) {
            self.subjects.remove(subject);
        }
    }
}

impl Pipeline {
    pub(super) fn handle_denial(&mut self, now: Instant, subject: &[u8]) {
        self.denials.hear(now, subject);
        match self.batch {
            Some(_) => self.deny_in_batch(now, subject),
            None => self.deny_single(now, subject),
        }
    }

    /// A message to this subject that is no part of a batch was denied.
    fn deny_single(&mut self, now: Instant, subject: &[u8]) {
        let sent = self.sent_to(subject);
        if sent.is_empty() {
            // It was settled otherwise.
            return;
        }
        self.denials.count(subject);
        if self.drop_denied(now, subject) {
            return;
        }
        let due = now + GRACE;
        for number in sent {
            self.window.hasten(number, due);
        }
        self.denials.hastened_to = Some(due);
    }

    /// The only message that is sent, the first of a batch, was denied.
    pub(super) fn deny_start(&mut self, now: Instant, subject: &[u8]) {
        self.batch = None;
        self.denials.count(subject);
        if self.drop_denied(now, subject) {
            return;
        }
        for number in self.sent_to(subject) {
            self.window.mark_unanswered(number);
            self.window.mark_denied(number);
        }
        self.denials.lose_count();
        self.notice_retry(Cause::Timeout, 1, UNTOLD);
        self.back_off(Cause::Timeout);
    }

    /// Drops the messages to this subject that have no answer, if all of them are denied. One of which an earlier attempt may have been
    /// stored is looked for in the stream instead.
    pub(super) fn drop_denied(&mut self, now: Instant, subject: &[u8]) -> bool {
        let sent = self.sent_to(subject);
        if !self.denials.settle(subject, sent.len()) {
            return false;
        }
        let mut doubts = 0;
        for number in sent {
            self.window.mark_failed(number);
            if self.window.get(number).is_some_and(Entry::is_in_doubt) {
                self.window.mark_denied(number);
                doubts += 1;
            } else {
                self.refuse(now, number, Reason::Permission);
            }
        }
        if doubts > 0 {
            self.notice_retry(Cause::Timeout, doubts, UNTOLD);
            self.back_off(Cause::Timeout);
        }
        true
    }

    /// The stream has answered this message, so we may publish to its subject.
    pub(super) fn permit(&mut self, number: u64) {
        if self.denials.is_empty() {
            return;
        }
        let Some(Entry { message, state: State::Sent { at, .. }, .. }) = self.window.get(number) else {
            return;
        };
        self.denials.permit(&message.route.subject, *at);
    }

    /// Whether a message that waits would not be taken if it were sent again.
    pub(super) fn is_denied(&self, now: Instant, number: u64) -> bool {
        let is_denied =
            |entry: &Entry| entry.is_denied || self.denials.is_believed(now, &entry.message.route.subject);
        self.window.get(number).is_some_and(is_denied)
    }

    fn sent_to(&self, subject: &[u8]) -> Vec<u64> {
        let is_sent_to = |entry: &Entry| {
            matches!(entry.state, State::Sent { .. }) && entry.message.route.subject == subject
        };
        self.window.numbers().filter(|&number| self.window.get(number).is_some_and(is_sent_to)).collect()
    }
}

const UNTOLD: &str = "a subject is denied, and it was not told which of its messages";
