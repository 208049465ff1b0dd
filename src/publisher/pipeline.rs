//! The decisions of delivery, without I/O: events go in by `handle_*(now, …)`, what to do comes out by `poll_*(now)`.
//!
//! It knows no clock, no socket and no runtime, so a test can put it through an outage of an hour in a microsecond.
//!
//! ```text
//!              connected                 found / cannot tell
//!   ┌──────┐ ──────────► ┌─────────┐ ───────────────────────► ┌─────────┐
//!   │ down │             │ looking │                          │ flowing │ ◄───────────┐
//!   └──────┘ ◄────────── └─────────┘ ◄──────┐                 └─────────┘             │
//!      ▲     connection     ▲  │ missing    │ refused            │ refused, timeout   │ time is up
//!      │     lost           │  ▼            │ by nobody          ▼                    │
//!      │                 ┌─────────┐        │                 ┌──────────┐        ┌─────────┐
//!      └──── from all    │ waiting │        └──────────────── │ draining │ ─────► │ waiting │
//!                        └─────────┘                          └──────────┘        └─────────┘
//! ```
//!
//! **Order.** Messages are sent in order, and the server stores what one connection sends in order. After any trouble nothing
//! more is sent until every answer is in or overdue (*draining*); then everything without an answer is sent again, in order, from the
//! lowest. All carry a message id, so what had been stored is recognised by the server. If a message was refused while
//! a later one of its producer was stored (or may have been), sending it again could put it behind: it is dropped, as
//! rejected.
//!
//! **A connection is never resumed.** After a disconnect the sink makes a new one, and what was queued in the old one is not sent
//! on the new.
//!
//! **Fate.** Acked is what the server acknowledged. Dropped is what the server refused, or what never left. What left
//! and got no answer is indeterminate when its time is over.

use super::congestion::Congestion;
use super::reply::Reply;
use super::retry::{Backoff, Cause, Verdict};
use super::route::Route;
use super::window::{Entry, Message, Origin, Settling, State, Window};
use crate::ledger::Reason;
use crate::subject;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Limits of a pipeline.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Messages from the oldest unanswered to the newest.
    pub(crate) window_events: usize,
    /// Bytes of payload that are held.
    pub(crate) window_bytes: usize,
    /// Bytes that a message has at most, by which room is promised.
    pub(crate) message_bytes_max: usize,
    /// How long an answer may take.
    pub(crate) ack_timeout: Duration,
}

const RECONNECT_BASE: Duration = Duration::from_millis(50);
const RETRY_BASE: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(4);

/// How long a refused permission is believed before one event tries again.
const DENIAL: Duration = Duration::from_secs(10);

/// How long answers that overtook a refused permission are waited for.
const DENIAL_GRACE: Duration = Duration::from_millis(500);

/// Subjects whose refusal is remembered.
const DENIALS_MAX: usize = 1024;

/// What a message needs beside its payload, at most: `NATS/1.0`, and `Nats-Msg-Id` with a producer and a number.
pub(crate) const HEADER_BYTES_MAX: usize = 69;

/// What a packed frame needs beside its payload, at most. It adds its count to the message id.
pub(crate) const FRAME_HEADER_BYTES_MAX: usize = HEADER_BYTES_MAX
    + "+16777216".len()
    + "Content-Type: application/x-ndjson\r\n".len()
    + "Content-Encoding: zstd\r\n".len()
    + "Jetring-Count: 16777216\r\n".len();

/// How long it is believed which subjects a stream takes, before one event tries again.
const STREAM_FRESH: Duration = Duration::from_secs(10);

/// What the server said of itself when it was connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerLimits {
    /// Largest message, headers included.
    pub(crate) max_payload: usize,
}

/// What is known of the stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamState {
    Missing,
    Found(StreamSubjects),
    /// The server did not answer, or does not let us ask. Publishing may well be possible.
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct StreamSubjects(pub(crate) Vec<String>);

/// What to do about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkAction {
    Connect,
    Disconnect,
    LookUpStream,
}

/// Names an attempt to send a message, so that its answer finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) number: u64,
    pub(crate) attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked { duplicate: bool },
    Dropped(Reason),
    Indeterminate,
}

/// A message that has met its fate.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) message: Message,
    pub(crate) fate: Fate,
    /// From the sending of the answered attempt to its answer.
    pub(crate) ack_latency: Option<Duration>,
}

/// Something that an operator should hear of. The worker counts and logs it.
#[derive(Debug)]
pub(crate) enum Notice {
    Retry { cause: Cause, messages: u64, text: String },
    Refused { reason: Reason, text: String },
    Denied { subject: String },
    StreamMissing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: Instant,
    },
    Connecting,
    Looking,
    Flowing,
    Draining,
    Waiting {
        until: Instant,
        then_look: bool,
    },
    /// The worker has been told to disconnect, or is about to be.
    Leaving {
        told: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Pipeline {
    limits: Limits,
    window: Window,
    link: Link,
    /// A look-up was decided and not yet handed out.
    look_up_due: bool,
    congestion: Congestion,
    reconnect: Backoff,
    retry: Backoff,
    server: Option<ServerLimits>,
    /// What the stream takes, and when it was asked.
    stream: Option<(StreamSubjects, Instant)>,
    /// Looks at the stream so far that found it.
    looks: u64,
    /// When the server last said anything about a message.
    heard_at: Option<Instant>,
    /// What holds the window back at the moment.
    blocked: Option<Cause>,
    /// Subjects that we may not publish to, and until when we believe it.
    denied: HashMap<Bytes, Instant>,
    outcomes: Vec<Outcome>,
    notices: Vec<Notice>,
}

impl Pipeline {
    pub(crate) fn new(now: Instant, limits: Limits, seed: u64) -> Self {
        Self {
            window: Window::default(),
            link: Link::Down { retry_at: now },
            look_up_due: false,
            congestion: Congestion::new(limits.window_events),
            reconnect: Backoff::new(RECONNECT_BASE, DELAY_MAX, seed),
            retry: Backoff::new(RETRY_BASE, DELAY_MAX, seed.rotate_left(32)),
            limits,
            server: None,
            stream: None,
            looks: 0,
            heard_at: None,
            blocked: None,
            denied: HashMap::new(),
            outcomes: Vec::new(),
            notices: Vec::new(),
        }
    }

    // ---- messages in -------------------------------------------------------------------------------------------------

    /// How many more messages it takes at the moment, even if all are of the largest size. An empty window takes one of
    /// any size.
    pub(crate) fn room(&self) -> usize {
        self.room_beside(0, 0)
    }

    /// The same if so many messages with so many bytes in all are about to be pushed.
    pub(crate) fn room_beside(&self, messages: usize, bytes: usize) -> usize {
        let is_empty = self.window.is_empty() && messages == 0;
        let bytes_left = self.limits.window_bytes.saturating_sub(self.window.bytes() + bytes);
        let by_bytes = (bytes_left / self.limits.message_bytes_max).max(usize::from(is_empty));
        self.limits.window_events.saturating_sub(self.window.span() + messages).min(by_bytes)
    }

    /// Takes the message that `write` makes, and as its payload what it appends, unless it fails. Reports of the bus may be pushed
    /// beyond [`room`](Self::room); they are few.
    #[inline]
    pub(crate) fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Message, E>,
    ) -> Result<(), E> {
        self.window.push(write)
    }

    /// Takes a packed frame.
    pub(crate) fn push_packed(&mut self, message: Message) {
        self.window.push_packed(message);
    }

    /// Whether a message that is pushed now would be sent at once.
    pub(crate) fn is_hungry(&self) -> bool {
        self.link == Link::Flowing
            && !self.window.has_waiting()
            && self.window.outstanding() < self.congestion.window()
    }

    /// Whether no answer is waited for.
    pub(crate) fn is_idle(&self) -> bool {
        self.window.outstanding() == 0
    }

    /// Events that were taken and whose fate is open.
    pub(crate) fn open_events(&self) -> usize {
        self.window.open_events()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// The number of the next message that will be pushed.
    pub(crate) fn next_number(&self) -> u64 {
        self.window.numbers().end
    }

    /// Whether all events below `number` have met their fate.
    pub(crate) fn is_settled_below(&self, number: u64) -> bool {
        self.window.is_settled_below(number)
    }

    /// When the oldest open event was offered, in nanoseconds since 1970.
    pub(crate) fn oldest_offered(&self) -> Option<u64> {
        self.window.oldest_event().map(|message| message.offered)
    }

    // ---- what happens ------------------------------------------------------------------------------------------------

    pub(crate) fn handle_connected(&mut self, now: Instant, server: ServerLimits) {
        self.server = Some(server);
        self.heard_at = Some(now);
        self.look_up();
    }

    /// The connection is gone, or an attempt to make one failed.
    pub(crate) fn handle_disconnected(&mut self, now: Instant) {
        let lost = self.window.outstanding() as u64;
        if lost > 0 {
            self.notice_retry(Cause::Disconnected, lost, "connection lost");
        }
        for number in self.window.numbers() {
            self.window.mark_unanswered(number);
        }
        self.blocked = Some(Cause::Disconnected);
        self.congestion.restart();
        self.server = None;
        self.look_up_due = false;
        self.link = Link::Down { retry_at: now + self.reconnect.next() };
    }

    pub(crate) fn handle_stream(&mut self, now: Instant, state: StreamState) {
        if self.link != Link::Looking {
            return;
        }
        match state {
            StreamState::Missing => {
                self.stream = None;
                self.blocked = Some(Cause::NoStream);
                self.notices.push(Notice::StreamMissing);
                self.wait(now, true);
            }
            StreamState::Found(subjects) => {
                self.stream = Some((subjects, now));
                self.looks += 1;
                self.drop_uncovered(now);
                self.drop_overtaken(now);
                self.proceed(now);
            }
            StreamState::Unknown => {
                self.drop_overtaken(now);
                self.proceed(now);
            }
        }
    }

    pub(crate) fn handle_reply(&mut self, now: Instant, token: Token, reply: Reply) {
        self.heard_at = Some(now);
        let Some(entry) = self.window.get(token.number) else { return };
        match reply {
            // True of any attempt: the message is in the stream.
            Reply::Stored { duplicate, .. } => {
                self.conclude(now, token.number, true, |_| Fate::Acked { duplicate });
                // Answers to what was sent before a trouble do not say that it is over.
                if self.link == Link::Flowing {
                    self.congestion.acked();
                }
                self.reconnect.reset();
                self.retry.reset();
                self.blocked = None;
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

    /// The server does not let us publish to `subject`. It says so without naming the message.
    pub(crate) fn handle_denied(&mut self, now: Instant, subject: &[u8]) {
        self.notices.push(Notice::Denied { subject: String::from_utf8_lossy(subject).into_owned() });
        if self.denied.len() >= DENIALS_MAX {
            self.denied.retain(|_, until| *until > now);
        }
        if self.denied.len() < DENIALS_MAX {
            self.denied.insert(Bytes::copy_from_slice(subject), now + DENIAL);
        }
        for number in self.window.numbers() {
            if self.window.get(number).is_some_and(|entry| entry.message.route.subject == subject) {
                self.window.hasten(number, now + DENIAL_GRACE);
            }
        }
    }

    /// Looks for answers that are overdue and for waits that are over.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        match self.link {
            Link::Flowing | Link::Draining => {
                self.expire(now);
                self.leave_drained(now);
            }
            Link::Waiting { until, then_look } if until <= now => {
                if then_look {
                    self.look_up();
                } else {
                    self.link = Link::Flowing;
                }
            }
            _ => {}
        }
    }

    /// Ends every open event: what may be stored is indeterminate, what cannot be is dropped, for the reason returned. Reports of
    /// the bus stay: they are the only ones that can still say what was lost.
    pub(crate) fn give_up(&mut self, now: Instant) -> Reason {
        let reason = self.blocked.map_or(Reason::Expired, Cause::reason_at_the_end);
        for number in self.window.numbers() {
            if self.window.get(number).is_some_and(|entry| entry.message.origin != Origin::Bus) {
                self.refuse(now, number, reason);
            }
        }
        // No event is left to wait for; what comes now are the last reports.
        if matches!(self.link, Link::Waiting { then_look: false, .. }) {
            self.link = Link::Flowing;
        }
        self.leave_drained(now);
        reason
    }

    // ---- what to do --------------------------------------------------------------------------------------------------

    pub(crate) fn poll_link(&mut self, now: Instant) -> Option<LinkAction> {
        match self.link {
            Link::Down { retry_at } if retry_at <= now => {
                self.link = Link::Connecting;
                Some(LinkAction::Connect)
            }
            Link::Leaving { told: false } => {
                self.link = Link::Leaving { told: true };
                Some(LinkAction::Disconnect)
            }
            Link::Looking if self.look_up_due => {
                self.look_up_due = false;
                Some(LinkAction::LookUpStream)
            }
            _ => None,
        }
    }

    /// The next message to send, if one may be sent now. It counts as sent from here on.
    pub(crate) fn poll_send(&mut self, now: Instant) -> Option<(Token, &Message, &[u8])> {
        if self.link != Link::Flowing {
            return None;
        }
        let number = loop {
            if self.window.outstanding() >= self.congestion.window() {
                return None;
            }
            let number = self.window.next_waiting()?;
            match self.obstacle(now, number) {
                None => break number,
                Some(reason) => self.refuse(now, number, reason),
            }
        };
        self.window.mark_sent(number, now, now + self.limits.ack_timeout);
        let entry = self.window.get(number)?;
        Some((Token { number, attempt: entry.attempts }, &entry.message, self.window.payload_of(entry)))
    }

    /// When [`handle_time`](Self::handle_time) or [`poll_link`](Self::poll_link) should be called next, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Down { retry_at } => Some(retry_at),
            Link::Waiting { until, .. } => Some(until),
            // The oldest sent message is the first that is due: deadlines are given out in order. A hastened one is found
            // a little later, by the worker's regular round.
            Link::Flowing | Link::Draining => self.first_deadline(),
            Link::Connecting | Link::Looking | Link::Leaving { .. } => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn drain_outcomes(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }

    pub(crate) fn drain_notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    // ---- below ---------------------------------------------------------------------------------------------------------

    fn look_up(&mut self) {
        self.link = Link::Looking;
        self.look_up_due = true;
    }

    /// After a look at the stream: go on, or wait a little if the server has just refused what the stream should take.
    fn proceed(&mut self, now: Instant) {
        if self.is_refused_for_want_of_a_stream() {
            self.wait(now, false);
        } else {
            self.blocked = None;
            self.link = Link::Flowing;
        }
    }

    fn is_refused_for_want_of_a_stream(&self) -> bool {
        let refused = |entry: &Entry| entry.refused == Some(Cause::NoStream) && !entry.is_settled();
        self.window.numbers().any(|number| self.window.get(number).is_some_and(refused))
    }

    fn wait(&mut self, now: Instant, then_look: bool) {
        self.link = Link::Waiting { until: now + self.retry.next(), then_look };
    }

    /// Stops sending until all answers are in.
    fn back_off(&mut self, cause: Cause) {
        self.blocked = Some(cause);
        if self.link != Link::Flowing {
            return;
        }
        if cause == Cause::TooManyRequests {
            self.congestion.overloaded();
        } else {
            self.congestion.restart();
        }
        self.link = Link::Draining;
    }

    /// When the last answer is in: drops what can no longer be stored in order, and waits before the rest is sent again.
    fn leave_drained(&mut self, now: Instant) {
        if self.link != Link::Draining || self.window.outstanding() > 0 {
            return;
        }
        if self.is_refused_for_want_of_a_stream() {
            self.look_up();
        } else {
            self.drop_overtaken(now);
            self.wait(now, false);
        }
    }

    /// Drops what was refused while a later message of the same producer was stored, or may have been.
    fn drop_overtaken(&mut self, now: Instant) {
        let mut overtaking = HashSet::new();
        for number in self.window.numbers().rev() {
            let Some(entry) = self.window.get(number).filter(|entry| entry.message.origin != Origin::Bus)
            else {
                // Reports may stand behind one another; each says what it says by itself.
                continue;
            };
            let lane = entry.message.lane();
            let refused = entry.refused.filter(|_| !entry.is_settled());
            if let Some(cause) = refused.filter(|_| overtaking.contains(&lane)) {
                let reason = if cause == Cause::NoStream { Reason::NoStream } else { Reason::Rejected };
                let text = "refused while a later event of its producer was stored".to_owned();
                self.notices.push(Notice::Refused { reason, text });
                self.refuse(now, number, reason);
            } else if entry.stored || entry.maybe_stored {
                overtaking.insert(lane);
            }
        }
    }

    /// Drops what was refused because the stream does not take its subject.
    fn drop_uncovered(&mut self, now: Instant) {
        for number in self.window.numbers() {
            let Some(entry) = self.window.get(number) else { continue };
            let refused = entry.refused == Some(Cause::NoStream) && !entry.is_settled();
            if refused && self.is_known_uncovered(now, &entry.message.route) {
                self.notice_uncovered(&entry.message.route.subject.clone());
                self.refuse(now, number, Reason::NoStream);
            }
        }
    }

    /// Whether the stream was asked a short while ago, and does not take this subject.
    fn is_known_uncovered(&self, now: Instant, route: &Route) -> bool {
        let Some((StreamSubjects(patterns), asked_at)) = &self.stream else { return false };
        // The subjects are the same until the next look, so each is held against the patterns once.
        if route.covered_by_look.get() == self.looks || now >= *asked_at + STREAM_FRESH {
            return false;
        }
        let subject = String::from_utf8_lossy(&route.subject);
        let is_covered = patterns.iter().any(|pattern| subject::covers(pattern, &subject));
        if is_covered {
            route.covered_by_look.set(self.looks);
        }
        !is_covered
    }

    fn notice_uncovered(&mut self, subject: &[u8]) {
        let patterns = self.stream.as_ref().map_or(&[][..], |(StreamSubjects(patterns), _)| patterns);
        let text = format!("the stream takes {patterns:?}, not {:?}", String::from_utf8_lossy(subject));
        self.notices.push(Notice::Refused { reason: Reason::NoStream, text });
    }

    /// What speaks against sending this message at all.
    fn obstacle(&mut self, now: Instant, number: u64) -> Option<Reason> {
        let entry = self.window.get(number)?;
        let (len, route) = (self.window.payload_of(entry).len(), &entry.message.route);
        let events = entry.message.packed.as_ref().map(|packed| packed.events.len());
        let headers = if events.is_some() { FRAME_HEADER_BYTES_MAX } else { HEADER_BYTES_MAX };
        // The stream's own limit is left to the stream: it can change at any time, and says so in its answer.
        let max = self.server.map_or(usize::MAX, |server| server.max_payload);
        if len + headers > max {
            let what =
                events.map_or_else(|| "an event".to_owned(), |events| format!("a frame of {events} events"));
            let text = format!("{what} in {len} bytes; the server takes {max} with headers");
            self.notices.push(Notice::Refused { reason: Reason::TooLarge, text });
            return Some(Reason::TooLarge);
        }
        if self.is_known_uncovered(now, route) {
            let subject = route.subject.clone();
            self.notice_uncovered(&subject);
            return Some(Reason::NoStream);
        }
        // Looked up only while anything is denied at all, which is hardly ever.
        let until = *self.denied.get(&route.subject)?;
        let subject = route.subject.clone();
        if until > now {
            let text = format!("not permitted to publish to {:?}", String::from_utf8_lossy(&subject));
            self.notices.push(Notice::Refused { reason: Reason::Permission, text });
            return Some(Reason::Permission);
        }
        self.denied.remove(&subject);
        None
    }

    /// Ends sent messages whose answer is overdue: if the server says nothing at all the connection is given up, else the
    /// answer of this message is lost.
    fn expire(&mut self, now: Instant) {
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
                if self.denied.is_empty() {
                    break;
                }
                continue;
            }
            let denial = self.denied.get(&entry.message.route.subject);
            if denial.is_some_and(|until| *until > at + DENIAL_GRACE) {
                self.window.mark_refused(number, None);
                self.refuse(now, number, Reason::Permission);
                continue;
            }
            if self.heard_at.is_none_or(|heard| heard + self.limits.ack_timeout <= now) {
                // Not counted here: they will be, when the connection has ended.
                self.notice_retry(Cause::Timeout, 0, "the server is silent");
                self.link = Link::Leaving { told: false };
                return;
            }
            self.window.mark_unanswered(number);
            overdue += 1;
        }
        if overdue > 0 {
            self.notice_retry(Cause::Timeout, overdue, "no acknowledgement in time");
            self.back_off(Cause::Timeout);
        }
    }

    fn first_deadline(&self) -> Option<Instant> {
        if self.window.outstanding() == 0 {
            return None;
        }
        self.window.numbers().find_map(|number| match self.window.get(number)?.state {
            State::Sent { deadline, .. } => Some(deadline),
            State::Waiting | State::Settled => None,
        })
    }

    /// Ends a message that will not be sent again: dropped, unless an attempt without an answer may have stored it.
    fn refuse(&mut self, now: Instant, number: u64, reason: Reason) {
        self.conclude(now, number, false, |settling| {
            if settling.maybe_stored { Fate::Indeterminate } else { Fate::Dropped(reason) }
        });
    }

    fn conclude(&mut self, now: Instant, number: u64, stored: bool, fate: impl FnOnce(&Settling) -> Fate) {
        let Some(settling) = self.window.settle(number, stored) else { return };
        let fate = fate(&settling);
        self.outcomes.push(Outcome {
            ack_latency: settling.sent_at.map(|at| now.saturating_duration_since(at)),
            message: settling.message,
            fate,
        });
    }

    fn notice_retry(&mut self, cause: Cause, messages: u64, text: &str) {
        self.notices.push(Notice::Retry { cause, messages, text: text.to_owned() });
    }
}
