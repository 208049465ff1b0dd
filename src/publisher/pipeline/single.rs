//! The async engine: each message is a publish with an acknowledgement of its own, and many are in flight at once.
//!
//! All bear a message id, so what was stored without our knowing is recognised by the server when it is sent again.

use super::obstacles::DENIAL_GRACE;
use super::{Next, Notice, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, Token};
use crate::publisher::reply::Reply;
use crate::publisher::retry::{Cause, Verdict};
use std::time::Instant;

impl Pipeline {
    pub(crate) fn handle_reply(&mut self, now: Instant, token: Token, reply: Reply) {
        self.heard_at = Some(now);
        let Some(entry) = self.window.get(token.number) else { return };
        match reply {
            // True of any attempt: the message is in the stream.
            Reply::Stored { sequence, duplicate } => {
                let is_of_now = entry.attempts == token.attempt && matches!(entry.state, State::Sent { .. });
                if is_of_now && token.number == self.window.numbers().start {
                    // All that are open come behind it. (A late answer may be of a stream that is no more.)
                    self.floor = self.floor.max(sequence);
                }
                self.acked(now, token.number, duplicate);
                self.progressed(1);
            }
            // A refusal speaks only of its own attempt; a later one is still open.
            Reply::Refused { .. } if entry.attempts != token.attempt => return,
            Reply::Refused { verdict: Verdict::Final(reason), text } => {
                self.notices.push(Notice::Refused { reason, text });
                self.window.mark_refused(token.number, None);
                self.refuse(now, token.number, reason);
            }
            Reply::Refused { verdict: Verdict::Retry(cause), text } => {
                self.notice_retry(cause, 1, &text);
                self.window.mark_refused(token.number, Some(cause));
                self.back_off(cause);
            }
            Reply::Unintelligible(text) => self.notice_retry(Cause::Unavailable, 0, &text),
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
        if self.window.outstanding() == 0 {
            // Else a window of messages that all wait would be looked through in vain.
            return;
        }
        let mut overdue = 0;
        for number in self.window.numbers() {
            let Some(entry) = self.window.get(number) else { continue };
            let State::Sent { at, deadline } = entry.state else { continue };
            if deadline > now {
                // Deadlines rise with the numbers, but for those that a denial has brought forward.
                if self.denials.is_empty() {
                    break;
                }
                continue;
            }
            if self.denials.speak_of(&entry.message.route.subject, at) {
                self.window.mark_refused(number, None);
                self.refuse(now, number, Reason::Permission);
                continue;
            }
            if self.is_silent(now) {
                return self.leave();
            }
            self.window.mark_unanswered(number);
            overdue += 1;
        }
        if overdue > 0 {
            self.notice_retry(Cause::Timeout, overdue, "no acknowledgement in time");
            self.back_off(Cause::Timeout);
        }
    }

    /// Messages to a denied subject get no answer, so they are not waited for as long as others.
    pub(super) fn hasten_denied(&mut self, now: Instant, subject: &[u8]) {
        for number in self.window.numbers() {
            if self.window.get(number).is_some_and(|entry| entry.message.route.subject == subject) {
                self.window.hasten(number, now + DENIAL_GRACE);
            }
        }
    }
}
