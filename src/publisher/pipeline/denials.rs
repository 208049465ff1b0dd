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
//!
//! What is known of a denied subject stands in its route, beside the messages that are sent there. So a denial costs the same however many
//! messages are on their way, and nothing once it is over.

use super::{Entry, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::retry::Cause;
use crate::publisher::route::Route;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a denial is believed before one message tries again.
const BELIEF: Duration = Duration::from_secs(1);

/// How long the answers and denials that are still missing are waited for.
const GRACE: Duration = Duration::from_millis(500);

/// What all denials have in common.
#[derive(Debug, Default)]
pub(super) struct Denials {
    /// Denials that were told in an earlier one do not count any more.
    epoch: u64,
    /// An attempt has ended without an answer, so a denial may be of that one.
    has_lost_count: bool,
    /// The last of the deadlines that were brought forward.
    hastened_to: Option<Instant>,
}

/// That publishing to a subject was denied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    told_at: Instant,
    believed_until: Instant,
    /// Denials that are not yet held against messages, of this epoch.
    told: usize,
    epoch: u64,
}

impl Denial {
    /// Whether messages to this subject are dropped without being sent.
    pub(super) fn is_believed(now: Instant, route: &Route) -> bool {
        route.denial.get().is_some_and(|denial| now < denial.believed_until)
    }

    /// A message to this subject is about to be sent, to try again.
    pub(super) fn try_again(now: Instant, route: &Route) {
        let again = |denial| Self { believed_until: now + BELIEF, ..denial };
        route.denial.set(route.denial.get().map(again));
    }

    /// What was sent to this subject at this moment has been taken.
    fn permit(route: &Route, sent_at: Instant) {
        route.denial.set(route.denial.get().filter(|denial| denial.told_at >= sent_at));
    }
}

impl Denials {
    /// From now on a denial may be of a message that nobody waits for any more.
    pub(super) fn lose_count(&mut self) {
        self.has_lost_count = true;
    }

    /// Every denial so far has been heard, or will never be.
    pub(super) fn count_anew(&mut self) {
        self.epoch += 1;
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

    fn hear(&self, now: Instant, route: &Route) {
        let told = self.told(route);
        let epoch = self.epoch;
        route.denial.set(Some(Denial { told_at: now, believed_until: now + BELIEF, told, epoch }));
    }

    fn told(&self, route: &Route) -> usize {
        route.denial.get().filter(|denial| denial.epoch == self.epoch).map_or(0, |denial| denial.told)
    }

    fn set_told(&self, route: &Route, told: usize) {
        route.denial.set(route.denial.get().map(|denial| Denial { told, epoch: self.epoch, ..denial }));
    }

    fn count(&self, route: &Route) {
        self.set_told(route, self.told(route) + 1);
    }

    /// Whether there are as many denials as messages, so that each of these is denied. Then they are no longer counted.
    fn settle(&self, route: &Route, messages: usize) -> bool {
        if messages == 0 || self.told(route) != messages || self.has_lost_count {
            return false;
        }
        self.set_told(route, 0);
        true
    }
}

impl Pipeline {
    pub(super) fn handle_denial(&mut self, now: Instant, route: &Rc<Route>) {
        self.denials.hear(now, route);
        match self.batch {
            Some(_) => self.deny_in_batch(now, route),
            None => self.deny_single(now, route),
        }
    }

    /// A message to this subject that is no part of a batch was denied.
    fn deny_single(&mut self, now: Instant, route: &Rc<Route>) {
        if route.sent.borrow().is_empty() {
            // It was settled otherwise.
            return;
        }
        self.denials.count(route);
        if self.drop_denied(now, route) {
            return;
        }
        let due = now + GRACE;
        for &number in route.sent.borrow().iter().rev() {
            if self.window.get(number).is_some_and(|entry| entry.is_denied) {
                // An earlier denial has brought this one forward, and all before it.
                break;
            }
            self.window.hasten(number, due);
        }
        self.denials.hastened_to = Some(due);
    }

    /// The only message that is sent, the first of a batch, was denied.
    pub(super) fn deny_start(&mut self, now: Instant, route: &Rc<Route>) {
        self.batch = None;
        self.denials.count(route);
        if self.drop_denied(now, route) {
            return;
        }
        for number in sent_to(route) {
            self.window.mark_unanswered(number);
            self.window.mark_denied(number);
        }
        self.denials.lose_count();
        self.notice_retry(Cause::Timeout, 1, UNTOLD);
        self.back_off(Cause::Timeout);
    }

    /// Drops the messages to this subject that have no answer, if all of them are denied. One of which an earlier attempt may have been
    /// stored is looked for in the stream instead.
    pub(super) fn drop_denied(&mut self, now: Instant, route: &Rc<Route>) -> bool {
        let messages = route.sent.borrow().len();
        if !self.denials.settle(route, messages) {
            return false;
        }
        let mut doubts = 0;
        for number in sent_to(route) {
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
    pub(super) fn permit(&self, number: u64) {
        let Some(Entry { message, state: State::Sent { at, .. }, .. }) = self.window.get(number) else {
            return;
        };
        if message.route.denial.get().is_some() {
            Denial::permit(&message.route, *at);
        }
    }

    /// Whether a message that waits would not be taken if it were sent again.
    pub(super) fn is_denied(&self, now: Instant, number: u64) -> bool {
        let is_denied = |entry: &Entry| entry.is_denied || Denial::is_believed(now, &entry.message.route);
        self.window.get(number).is_some_and(is_denied)
    }
}

/// The messages that are on their way to this subject, in order. Those that are settled meanwhile are gone from its route.
fn sent_to(route: &Route) -> Vec<u64> {
    let mut sent: Vec<u64> = route.sent.borrow().iter().copied().collect();
    sent.sort_unstable();
    sent
}

const UNTOLD: &str = "a subject is denied, and it was not told which of its messages";
