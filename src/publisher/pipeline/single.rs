//! The async engine: each message is a publish with an acknowledgement of its own, and many are in flight at once.
//!
//! All bear a message id, so what was stored without our knowing is recognised by the server when it is sent again.

use super::{Link, Next, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, Token};
use crate::publisher::reply::Reply;
use crate::publisher::retry::{Cause, Verdict};
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
                if is_sent && is_of_now && !duplicate && sequence <= self.floor {
                    // After a power failure: the stream has lost its end, and goes on with sequences that it had before.
                    self.floor = 0;
                }
                if is_sent && is_of_now && self.window.is_oldest(token.number) {
                    // All that are open come behind it. (A late answer may be of a stream that is no more.)
                    self.raise_floor(sequence);
                }
                self.acked(now, token.number, duplicate);
                self.progressed(1);
            }
            // A refusal speaks only of its own attempt; a later one is still open.
            Reply::Refused { .. } if !is_of_now => return,
            Reply::Refused { verdict: Verdict::Final(Reason::TooLarge), .. }
                if self.is_divisible(token.number) =>
            {
                self.permit(token.number);
                self.refuse_size(token.number);
                self.congestion.restart();
                if self.link == Link::Flowing {
                    self.link = Link::Draining;
                }
            }
            Reply::Refused { verdict: Verdict::Final(reason), text } => {
                self.notices.refused(reason, || text);
                self.permit(token.number);
                self.window.mark_refused(token.number, None);
                self.refuse(now, token.number, reason);
            }
            Reply::Refused { verdict: Verdict::Retry(cause), text } => {
                self.notice_retry(cause, 1, &text);
                self.permit(token.number);
                self.window.mark_refused(token.number, Some(cause));
                self.back_off(cause);
            }
            Reply::Unintelligible(text) => self.notice_retry(Cause::Unavailable, 0, &text),
        }
        if let Some(route) = denied {
            // Of those without an answer there is one less.
            self.drop_denied(now, &route);
        }
        self.leave_drained(now);
    }

    pub(super) fn next_single(&mut self, now: Instant) -> Option<Next> {
        if self.window.outstanding() >= self.congestion.window() {
            return None;
        }
        let number = self.next_sendable(now)?;
        self.window.mark_sent(number, now, now + self.limits.ack_timeout, true);
        let attempt = self.window.get(number)?.attempts;
        Some(Next { number, address: Address::Single(Token { number, attempt }), bears_id: true })
    }

    /// Ends sent messages whose answer is overdue: if the server says nothing at all the connection is given up, else the
    /// answer of this message is lost.
    pub(super) fn expire_single(&mut self, now: Instant) {
        // Else a window of messages that all wait would be looked through in vain.
        let Some(oldest) = self.oldest_sent_at() else { return };
        if self.patience.ends_at(oldest) <= now && now < oldest + self.limits.ack_timeout {
            return self.ask_about_singles(now, oldest);
        }
        let mut overdue = 0;
        for number in self.window.tried() {
            let Some(entry) = self.window.get(number) else { continue };
            let State::Sent { deadline, .. } = entry.state else { continue };
            if deadline > now {
                // Deadlines rise with the numbers, but for those that a denial has brought forward.
                if self.denials.hastened_to().is_none() {
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
}
