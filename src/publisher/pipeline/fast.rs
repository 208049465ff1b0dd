//! The fast engine: fast-ingest batches of ADR-50 in gap mode `fail`, one at a time.
//!
//! A batch begins with the first message that waits. While it is on its way nothing follows it, until the server has granted
//! the batch. The last message for the moment, because nothing more waits or the window is full, is sent as a *commit*: its
//! acknowledgement speaks for the whole batch. So an event that comes alone is a batch of its own and costs one round trip, as a plain
//! publish does; under load a batch goes on as long as there is more, and is acknowledged every few hundred messages.
//!
//! What the server says and what is done:
//!
//! | about | said | done |
//! | --- | --- | --- |
//! | first message | ack 0 | the others follow |
//! | | error, 503 | nothing is stored; that message is refused |
//! | a message | ack n | all up to n are acked |
//! | | error | that message is refused; an end is sent |
//! | | denied | an end is sent, and not to that subject |
//! | | gap, err | the server ends the batch; its last word is awaited |
//! | commit | ack n, and then nothing | all of it is stored: the batch is over after a time |
//! | commit, end | count | the first `count` are acked, the others are sent again |
//! | end | unknown, disabled, sealed | forgotten: the stream is read |
//! | | denied | sent another way, or forgotten |
//! | | 503, 429 | wait, look at the stream, end again |
//! | | nothing | end again; after [`BATCH_LIFE`] it is forgotten |

use super::{Denial, Entry, Limits, Link, Next, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::batch::{Batch, Stage};
use crate::publisher::outgoing::{Address, BatchToken, Op, Sending};
use crate::publisher::reply::{BatchReply, Failure};
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::route::Route;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The server acknowledges at most so many messages at once (`checkFlowControl`).
const FLOW_MAX: usize = 500;

/// Acknowledgements in a full window, at least.
const ACKS_PER_WINDOW: usize = 4;

/// After so long without a message the server has forgotten a batch (its limit is 10 s).
const BATCH_LIFE: Duration = Duration::from_secs(12);

/// How many messages the server shall acknowledge at once, if they are so long on average: of frames a window holds as many as its bytes
/// allow, and with an acknowledgement only when it is full, nothing would be on its way meanwhile.
fn flow(limits: &Limits, message_bytes: usize) -> u16 {
    let window = limits.window_events.min(limits.window_bytes / message_bytes.max(1));
    (window / ACKS_PER_WINDOW).clamp(1, FLOW_MAX) as u16
}

impl Pipeline {
    pub(crate) fn handle_batch_reply(&mut self, now: Instant, token: BatchToken, reply: BatchReply) {
        self.patience.hear(now);
        if self.batch.as_ref().is_none_or(|batch| batch.number() != token.batch) {
            return;
        }
        match reply {
            BatchReply::Ack { seq, messages } => {
                if let Some(batch) = &mut self.batch {
                    batch.granted(messages);
                }
                self.stored_up_to(now, seq);
                if let Some(batch) = &mut self.batch {
                    batch.await_last_word(now);
                }
            }
            BatchReply::Gap => self.trouble(now, Some(Cause::Unavailable), "a message did not arrive", true),
            BatchReply::Refused { seq, verdict, text } => {
                let cause = self.refuse_in_batch(now, seq, verdict, &text);
                self.trouble(now, cause, &text, true);
            }
            BatchReply::Ended { count, sequence } => {
                let is_here = self.batch.as_ref().is_some_and(|batch| !batch.is_left_behind());
                if count > 0 && is_here {
                    self.raise_floor(sequence);
                }
                self.stored_up_to(now, count);
                if !matches!(token.op, Op::Commit | Op::End) {
                    // The last part is on its way still, and whatever is before it; it may be denied.
                    self.denials.lose_count();
                }
                self.end_batch();
            }
            BatchReply::Elsewhere { count, text } => {
                // Whatever it says, no more of them than there are.
                let open = self.batch.as_ref().map(Batch::open_places);
                let refused = open.map(|open| *open.start()..=count.min(*open.end()));
                for place in refused.into_iter().flatten() {
                    self.refuse_in_batch(now, place, Verdict::Final(Reason::Rejected), &text);
                }
                self.end_batch();
            }
            BatchReply::Failed { failure, text } => self.failed(now, token, failure, &text),
            BatchReply::Unintelligible(text) => self.notice_retry(Cause::Unavailable, 0, &text),
        }
        self.leave_drained(now);
    }

    pub(super) fn next_of_batch(&mut self, now: Instant) -> Option<Next> {
        self.park_waiting(now);
        if self.batch.is_none() && (self.window.outstanding() > 0 || self.wants_to_try(now)) {
            if self.window.outstanding() >= self.congestion.window() {
                return None;
            }
            self.pause_batches(now);
            if let Some(next) = self.next_tried_single(now) {
                return Some(next);
            }
            if self.window.outstanding() > 0 {
                return None;
            }
            self.resume_batches(now);
        }
        let wants_to_try = self.wants_to_try(now);
        if let Some(batch) = self.batch.as_mut().filter(|batch| wants_to_try && batch.stage() == Stage::Open)
        {
            batch.close();
            self.pause_batches(now);
            return None;
        }
        let takes_more = self.batch.as_ref().is_none_or(|batch| batch.stage() == Stage::Open);
        if !takes_more || self.window.outstanding() >= self.congestion.window() {
            return None;
        }
        let Some(number) = self.next_sendable(now) else {
            // What was to follow has been dropped.
            if let Some(batch) = self.batch.as_mut().filter(|_| !self.more_waits) {
                batch.close();
            }
            return None;
        };
        let entry = self.window.get(number)?;
        // What was sent before may arrive from there, too, and what is in a spool from another process.
        let bears_id = self.batch.is_none() || entry.needs_id();
        if self.batch.is_none() {
            self.batches += 1;
            let flow = flow(&self.limits, self.window.message_bytes());
            self.batch = Some(Batch::new(self.batches, flow, Rc::clone(&entry.message.route)));
        }
        self.window.mark_sent(number, now, now + self.limits.ack_timeout, bears_id);
        let waits = self.window.next_waiting().is_some();
        let is_full = self.window.outstanding() >= self.congestion.window() || (!waits && self.room() == 0);
        let is_dry = !waits && !self.more_waits;
        let batch = self.batch.as_mut()?;
        let is_last = is_dry || (is_full && !batch.next_is_acknowledged());
        Some(Next { number, address: Address::Batch(batch.add(number, is_last)), bears_id })
    }

    /// The word about the batch that is due.
    pub(super) fn poll_word(&mut self, now: Instant) -> Option<Sending<'_>> {
        if !matches!(self.link, Link::Flowing | Link::Draining | Link::Resolving) {
            return None;
        }
        let token = self.batch.as_mut()?.poll_word(now)?;
        self.lead_around_denial(now);
        let batch = self.batch.as_ref()?;
        Some(Sending {
            address: Address::Batch(token),
            subject: &batch.route().subject,
            id: None,
            payload: &[],
            packed: None,
            trace: None,
        })
    }

    /// The connection is gone. What may be stored is marked already.
    pub(super) fn leave_batch(&mut self, now: Instant) {
        let Some(batch) = &mut self.batch else { return };
        if batch.stage() == Stage::Starting || batch.is_settled() {
            // One message, with an id, or none.
            self.batch = None;
        } else if batch.stage() != Stage::Forgotten {
            batch.doubt(now, false);
            batch.leave_connection();
        }
    }

    pub(super) fn expire_batch(&mut self, now: Instant) {
        let Some(batch) = &self.batch else { return };
        let timeout = self.limits.ack_timeout;
        let oldest = self.oldest_sent(batch).filter(|_| batch.stage() != Stage::Doubtful);
        let word = batch.word_sent_at().map(|at| at + timeout);
        let overdue = oldest.map(|(_, deadline)| deadline).into_iter().chain(word).any(|due| due <= now);
        let quiet_since = self.batch_unanswered_since(batch);
        let is_silent = quiet_since.is_some_and(|since| self.patience.ends_at(since) <= now);
        if !overdue && !is_silent {
            let is_late = oldest.is_some_and(|(at, _)| self.patience.half_ends_at(at) <= now);
            if let Some(batch) = self.batch.as_mut().filter(|batch| is_late && batch.may_ping()) {
                batch.ping();
            }
            return;
        }
        if overdue && self.patience.is_over(now) {
            return self.leave();
        }
        if let Some(since) = quiet_since {
            self.patience.end(since);
        }
        match (batch.stage(), batch.doubtful_since()) {
            (Stage::Starting, _) => {
                for number in self.window.numbers() {
                    self.window.mark_unanswered(number);
                }
                self.batch = None;
                self.denials.lose_count();
                self.notice_retry(Cause::Timeout, 1, NO_ACK);
                self.back_off(Cause::Timeout);
            }
            // All of it is stored; only the word that it has ended is lost.
            (Stage::Closing, _) if batch.is_settled() => {
                self.batch = None;
                self.denials.lose_count();
            }
            (Stage::Doubtful, Some(since)) if since + BATCH_LIFE <= now => self.forget_batch(),
            (Stage::Doubtful, _) => {
                if let Some(batch) = &mut self.batch {
                    batch.end_again();
                }
            }
            _ => self.trouble(now, Some(Cause::Timeout), NO_ACK, false),
        }
    }

    pub(super) fn batch_deadline(&self, batch: &Batch) -> Option<Instant> {
        let timeout = self.limits.ack_timeout;
        let word = batch.word_sent_at().map(|at| at + timeout);
        let oldest = self.oldest_sent(batch).filter(|_| batch.stage() != Stage::Doubtful);
        let answer = oldest.map(|(at, deadline)| match batch.may_ping() {
            true => self.patience.half_ends_at(at).min(deadline),
            false => deadline,
        });
        let silence = self.batch_unanswered_since(batch).map(|since| self.patience.ends_at(since));
        [answer, word, silence].into_iter().flatten().min()
    }

    /// When the oldest was sent of the batch's messages and words that have no answer.
    pub(super) fn batch_unanswered_since(&self, batch: &Batch) -> Option<Instant> {
        let oldest = self.oldest_sent(batch).filter(|_| batch.stage() != Stage::Doubtful);
        oldest.map(|(at, _)| at).into_iter().chain(batch.word_sent_at()).min()
    }

    /// A message to a denied subject was not taken, and nothing behind it will be stored.
    pub(super) fn deny_in_batch(&mut self, now: Instant, route: &Rc<Route>) {
        self.repeat_denied_word(now, route);
        let Some(batch) = &self.batch else { return };
        if route.sent.borrow().is_empty() {
            return;
        }
        match batch.stage() {
            Stage::Starting => self.deny_start(now, route),
            Stage::Open | Stage::Closing => self.trouble(now, None, "a subject is denied", false),
            Stage::Doubtful | Stage::Forgotten => {}
        }
    }

    /// A word about the batch went to a denied subject, so nobody will answer it. It is sent again another way. If there is none, the stream
    /// is read instead: nothing of the batch can arrive behind the look, unless some was sent through an earlier connection.
    fn repeat_denied_word(&mut self, now: Instant, route: &Rc<Route>) {
        let is_it = |batch: &Batch| {
            batch.stage() == Stage::Doubtful
                && batch.word_sent_at().is_some()
                && Rc::ptr_eq(batch.route(), route)
        };
        if !self.batch.as_ref().is_some_and(is_it) {
            return;
        }
        if self.lead_around_denial(now) {
            self.batch.iter_mut().for_each(Batch::end_again);
        } else if self.batch.as_ref().is_some_and(Batch::is_here) {
            self.forget_batch();
        }
    }

    /// Words about the batch go where its first message went. If that subject is denied now, they go where another message of the window
    /// goes: the stream knows the batch by the reply subject alone. Returns whether a way was found.
    fn lead_around_denial(&mut self, now: Instant) -> bool {
        let is_blocked = |batch: &Batch| Denial::is_believed(now, batch.route());
        if !self.batch.as_ref().is_some_and(is_blocked) {
            return false;
        }
        let is_open =
            |route: &&Rc<Route>| !Denial::is_believed(now, route) && !self.is_known_uncovered(now, route);
        let mut routes =
            self.window.numbers().filter_map(|number| Some(&self.window.get(number)?.message.route));
        let Some(route) = routes.find(is_open).map(Rc::clone) else { return false };
        self.batch.iter_mut().for_each(|batch| batch.lead(Rc::clone(&route)));
        true
    }

    /// Something went wrong in the batch: nothing more is sent until it is known what is stored of it. Then it goes on, after a wait
    /// if there is a cause.
    fn trouble(&mut self, now: Instant, cause: Option<Cause>, text: &str, server_ends_it: bool) {
        let Some(batch) = self.batch.as_mut().filter(|batch| batch.stage() != Stage::Doubtful) else {
            return;
        };
        batch.doubt(now, server_ends_it);
        match cause {
            Some(cause) => {
                self.notice_retry(cause, 0, text);
                self.back_off(cause);
            }
            None if self.link == Link::Flowing => self.link = Link::Resolving,
            None => {}
        }
    }

    /// A part of the batch was not taken.
    fn failed(&mut self, now: Instant, token: BatchToken, failure: Failure, text: &str) {
        let verdict = match failure {
            Failure::Other(verdict) => verdict,
            Failure::Unknown | Failure::Disabled => Verdict::Retry(Cause::Unavailable),
        };
        match token.op {
            Op::Start | Op::Commit if token.seq == 1 => {
                // Not even the first message is stored, and without it none.
                if failure == Failure::Disabled {
                    self.refuse_batches(now);
                }
                self.blocked = self.refuse_in_batch(now, token.seq, verdict, text).or(self.blocked);
                self.end_batch();
            }
            Op::End => self.end_failed(now, failure, text),
            Op::Ping => self.trouble(now, Some(Cause::Unavailable), text, false),
            Op::Start | Op::Append | Op::Commit => {
                // After the end of a batch the rest of it is unknown, which says nothing of the single message.
                let cause = match failure {
                    Failure::Other(_) => self.refuse_in_batch(now, token.seq, verdict, text),
                    Failure::Unknown | Failure::Disabled => Some(Cause::Unavailable),
                };
                self.trouble(now, cause, text, false);
            }
        }
    }

    /// The end of the batch was not taken: for now, or because there is no such batch.
    fn end_failed(&mut self, now: Instant, failure: Failure, text: &str) {
        let cause = match failure {
            Failure::Other(Verdict::Retry(cause) | Verdict::Park(cause)) => cause,
            Failure::Other(Verdict::Unknown) => Cause::Unavailable,
            Failure::Other(Verdict::Final(_)) | Failure::Unknown | Failure::Disabled => {
                return self.forget_batch();
            }
        };
        // Nobody answers for its subject, though the stream is there. By then the server has forgotten the batch.
        let doubtful_since = self.batch.as_ref().and_then(Batch::doubtful_since);
        let is_over = doubtful_since.is_some_and(|since| since + BATCH_LIFE <= now);
        if cause == Cause::NoStream && self.is_fresh && is_over {
            return self.forget_batch();
        }
        if let Some(batch) = &mut self.batch {
            batch.doubt(now, false);
        }
        self.notice_retry(cause, 0, text);
        self.blocked = Some(cause);
        self.wait(now, true);
    }

    /// The message at this place is not stored. Returns what to wait for before it is sent again, if it is.
    fn refuse_in_batch(&mut self, now: Instant, place: u64, verdict: Verdict, text: &str) -> Option<Cause> {
        let number = self.batch.as_ref()?.message_at(place)?;
        self.permit(number);
        if self.is_refused_for_size(number, verdict) {
            self.refuse_size(number);
            return None;
        }
        self.refuse_for_now(now, number, verdict, text)
    }

    /// All places up to this one are stored.
    fn stored_up_to(&mut self, now: Instant, place: u64) {
        let mut messages = 0;
        while let Some(number) = self.batch.as_mut().and_then(|batch| batch.next_stored(place)) {
            self.acked(now, number, false);
            messages += 1;
        }
        if messages > 0 {
            self.progressed(messages);
        }
    }

    /// The batch is over, and what is still in flight of it is not stored.
    fn end_batch(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        let mut lost = 0;
        for &number in batch.in_flight() {
            let is_open = |entry: &Entry| !matches!(entry.state, State::Settled | State::Parked);
            lost += u64::from(self.window.get(number).is_some_and(is_open));
            self.window.mark_failed(number);
        }
        if lost > 0 {
            let cause = self.blocked.unwrap_or(Cause::Unavailable);
            self.notice_retry(cause, lost, "the batch has ended before them");
            self.back_off(cause);
        }
    }

    /// The server does not know the batch. What is stored of it stands in the stream, which must be looked at afresh.
    fn forget_batch(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        self.denials.lose_count();
        if batch.is_settled() {
            self.batch = None;
            return;
        }
        batch.forget();
        for number in self.window.numbers() {
            self.window.mark_unanswered(number);
        }
        self.look_up();
    }

    /// When the oldest message of the batch without an answer was sent, and when its answer is due.
    fn oldest_sent(&self, batch: &Batch) -> Option<(Instant, Instant)> {
        batch.in_flight().iter().find_map(|&number| match self.window.get(number)?.state {
            State::Sent { at, deadline } => Some((at, deadline)),
            State::Waiting | State::Parked | State::Settled => None,
        })
    }
}

const NO_ACK: &str = "no acknowledgement in time";

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use crate::config::Mode;

    #[test]
    fn a_window_is_acknowledged_in_four_parts_whatever_limits_it() {
        let limits = Limits {
            window_events: 4096,
            window_bytes: 16 << 20,
            message_bytes_max: 64 << 10,
            ack_timeout: Duration::from_secs(5),
            mode: Mode::Auto,
        };
        for (message_bytes, expected) in
            [(0, 500), (414, 500), (16 << 10, 256), (32 << 10, 128), (16 << 20, 1)]
        {
            assert_eq!(flow(&limits, message_bytes), expected, "{message_bytes} bytes");
        }
        assert_eq!(flow(&Limits { window_events: 60, ..limits }, 414), 15);
        assert_eq!(flow(&Limits { window_events: 3, ..limits }, 414), 1);
    }
}
