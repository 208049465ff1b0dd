//! The async engine: each message is a publish with an acknowledgement of its own, and many are in flight at once.
//!
//! All bear a message id, so what was stored without our knowing is recognised by the server when it is sent again.

use super::{Link, Next, Pipeline, State};
use crate::publisher::outgoing::{Address, Token};
use crate::publisher::reply::Reply;
use crate::publisher::retry::Cause;
use std::rc::Rc;
use std::time::Instant;

impl Pipeline {
    pub(crate) fn handle_reply(&mut self, now: Instant, token: Token, reply: Reply) {
        self.patience.hear(now);
        let Some(entry) = self.window.get(token.number) else { return };
        let is_of_now = entry.attempts == token.attempt;
        let route = &entry.message.route;
        let denied = route.denial.get().is_some().then(|| Rc::clone(route));
        match reply {
            // True of any attempt: the message is in the stream.
            Reply::Stored { sequence, duplicate } => {
                let is_sent = matches!(entry.state, State::Sent { .. });
                if is_sent && !is_of_now {
                    // What became of the last attempt will not be known.
                    self.denials.lose_count();
                }
                let is_in_order = is_sent && is_of_now && !self.lot.is_tried(token.number);
                if is_in_order && !duplicate && sequence <= self.floor {
                    // After a power failure: the stream has lost its end, and goes on with sequences that it had before.
                    self.floor = 0;
                }
                if is_in_order && self.window.is_oldest(token.number) {
                    // All that are open come behind it. (A late answer may be of a stream that is no more.)
                    self.raise_floor(sequence);
                }
                self.acked(now, token.number, duplicate);
                self.progressed(1);
            }
            // A refusal speaks only of its own attempt; a later one is still open.
            Reply::Refused { .. } if !is_of_now => return,
            Reply::Refused { verdict, .. } if self.is_refused_for_size(token.number, verdict) => {
                self.permit(token.number);
                self.refuse_size(token.number);
                self.congestion.restart();
                if self.link == Link::Flowing {
                    self.link = Link::Draining;
                }
            }
            Reply::Refused { verdict, text } => {
                self.permit(token.number);
                if let Some(cause) = self.refuse_for_now(now, token.number, verdict, &text) {
                    self.back_off(cause);
                }
            }
            Reply::Unintelligible(text) => self.notice_retry(Cause::Unavailable, 0, &text),
        }
        if let Some(route) = denied {
            // Of those without an answer there is one less.
            self.drop_denied(now, &route);
        }
        self.resume_batches(now);
        self.leave_drained(now);
    }

    pub(super) fn next_single(&mut self, now: Instant) -> Option<Next> {
        if self.window.outstanding() >= self.congestion.window() {
            return None;
        }
        self.park_waiting(now);
        let tried = self.next_tried(now);
        let number = tried.or_else(|| self.next_sendable(now))?;
        self.send_single(now, number)
    }

    /// The next message that is to be tried, beside batches.
    pub(super) fn next_tried_single(&mut self, now: Instant) -> Option<Next> {
        let number = self.next_tried(now)?;
        self.send_single(now, number)
    }

    fn send_single(&mut self, now: Instant, number: u64) -> Option<Next> {
        self.window.mark_sent(number, now, now + self.limits.ack_timeout, true);
        let attempt = self.window.get(number)?.attempts;
        Some(Next { number, address: Address::Single(Token { number, attempt }), bears_id: true })
    }

    /// Ends sent messages whose answer is overdue: if the server says nothing at all the connection is given up, else the
    /// answer of this message is lost.
    pub(super) fn expire_single(&mut self, now: Instant) {
        // Else a window of messages that all wait would be looked through in vain.
        let Some(oldest) = self.window.oldest_sent_at() else { return };
        if self.patience.ends_at(oldest) <= now && now < oldest + self.limits.ack_timeout {
            return self.ask_about_singles(now, oldest);
        }
        let mut overdue = 0;
        for number in self.window.tried() {
            let Some(entry) = self.window.get(number) else { continue };
            let State::Sent { deadline, .. } = entry.state else { continue };
            if deadline > now {
                // Deadlines rise with the numbers, but for those that a denial has brought forward, and those that are tried.
                if self.denials.hastened_to().is_none() && self.lot.is_empty() {
                    break;
                }
                continue;
            }
            if !entry.is_denied && self.patience.is_over(now) {
                return self.leave();
            }
            self.window.mark_unanswered(number);
            overdue += 1;
        }
        self.denials.pass(now);
        if overdue > 0 {
            self.patience.end(oldest);
            self.denials.lose_count();
            self.notice_retry(Cause::Timeout, overdue, "no acknowledgement in time");
            self.back_off(Cause::Timeout);
        }
    }

    /// The server is silent. What has no answer may have been swallowed, and what is sent next goes behind it, so nobody waits for its
    /// deadline.
    fn ask_about_singles(&mut self, now: Instant, oldest: Instant) {
        self.patience.end(oldest);
        let messages = self.window.outstanding() as u64;
        for number in self.window.numbers() {
            self.window.mark_unanswered(number);
        }
        self.denials.pass(now);
        self.denials.lose_count();
        self.notice_retry(Cause::Timeout, messages, "the server is silent");
        self.back_off(Cause::Timeout);
    }

    pub(super) fn first_deadline(&self) -> Option<Instant> {
        // The oldest sent message is the first that is due, but for those whose deadlines a denial has brought forward. Its own deadline
        // comes no sooner than the end of our patience, unless others are answered all the while.
        let sent_at = self.window.oldest_sent_at()?;
        let due = self.patience.ends_at(sent_at).min(sent_at + self.limits.ack_timeout);
        Some(self.denials.hastened_to().map_or(due, |hastened| hastened.min(due)))
    }
}
