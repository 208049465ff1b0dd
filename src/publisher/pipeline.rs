//! The decisions of delivery, without I/O: events go in by `handle_*(now, …)`, what to do comes out by `poll_*(now)`.
//!
//! It knows no clock, no socket and no runtime, so a test can put it through an outage of an hour in a microsecond.
//!
//! ```text
//!              connected             found              nothing in doubt
//!   ┌──────┐ ──────────► ┌─────────┐ ──────────────────────────────────► ┌─────────┐
//!   │ down │             │ looking │      ┌───────────┐   the end says   │ flowing │ ◄──────────┐
//!   └──────┘ ◄────────── └─────────┘ ───► │ resolving │ ───────────────► └─────────┘            │
//!      ▲     connection   ▲  ▲  │ │ batch └───────────┘    ┌─────────┐    ▲  │ refused, gap,    │ time is up,
//!      │     lost         │  │  │ │  in doubt   │ forgotten │ reading │ ───┘  │ no answer        │ nothing to look at
//!      │                  │  │  │ └─────────────┼─────────► └─────────┘       ▼                  │
//!      │                  │  │  │ missing       ▼  messages in doubt     ┌──────────┐       ┌─────────┐
//!      └──── from all     │  └──┼───────────────┘                        │ draining │ ────► │ waiting │
//!                         │     ▼                                        └──────────┘       └─────────┘
//!                         └──────────────────────── time is up ─────────────────────────────────┘
//! ```
//!
//! **Order.** Messages are sent in order, and the server stores what one connection sends in order. After any trouble nothing
//! more is sent until it is known what is stored: every answer is in or overdue (*draining*); a batch has been ended and its count
//! told (*resolving*); and if that still leaves doubts, the stream has been read (*reading*). Then what is not stored is sent
//! again, in order, from the lowest. If a message is not stored while a later one of its producer is (or may be), sending it
//! again would put it behind: it is dropped, as rejected, or indeterminate if it may be stored itself.
//!
//! **Engines.** How messages are sent and answers read is a matter of the engine: [`single`] (one acknowledgement for each,
//! with a message id, any server) or [`fast`] (batches). Both settle through here.
//!
//! **A connection is never resumed.** After a disconnect the sink makes a new one, and what was queued in the old one is not sent
//! on the new. What is on its way may still arrive, late and in order; then its message id or the end of its batch keeps it out.
//!
//! **Fate.** Acked is what the server acknowledged, or what was found in the stream. Dropped is what the server refused, or what never
//! left. What may be stored when its time is over, or where not even the stream can tell, is indeterminate.

mod denials;
mod fast;
mod frames;
mod look;
mod obstacles;
mod parking;
mod read_back;
mod single;
mod sizes;
mod spooled;
mod told;

pub(crate) use self::denials::Denial;
pub(crate) use self::read_back::{DUPLICATE_WINDOW, READ_PAGE, Read, SETTLING, StoredMessage};
pub(crate) use self::spooled::Open;
pub(crate) use self::told::{Fate, Notice, Outcome};
pub(crate) use super::server::{ServerInfo, StreamInfo, StreamState};

use self::denials::Denials;
use self::parking::{Lot, SHARE};
use self::read_back::Reading;
use self::sizes::Sizes;
use self::told::Noticed;
use super::batch::{Batch, Stage};
use super::congestion::Congestion;
use super::engine::Engine;
use super::outgoing::{Address, Sending};
use super::packer::Sealer;
use super::patience::Patience;
use super::retry::{Backoff, Cause};
use super::route::Route;
use super::stamp::ProducerNames;
use super::window::{Entry, Message, Room, Settling, State, Window};
use crate::config::Mode;
use crate::frame::Compressor;
use crate::ledger::Reason;
use std::rc::Rc;
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
    /// The configured way of publishing.
    pub(crate) mode: Mode,
}

const RECONNECT_BASE: Duration = Duration::from_millis(50);
const RETRY_BASE: Duration = Duration::from_millis(50);
/// Once the cause of a trouble is gone, all must flow again within two seconds, of which some are for what comes after the wait.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// The part of the ack timeout after which an acknowledgement is slow.
const SLOW_PART: u32 = 4;

/// What to do about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkAction {
    Connect,
    Disconnect,
    LookUpStream,
    /// Read the messages of the stream with these sequences, at most [`READ_PAGE`] of them.
    Read {
        from: u64,
        to: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Down {
        retry_at: Instant,
    },
    Connecting {
        since: Instant,
    },
    Looking,
    /// A batch of which it is not known what is stored is being ended.
    Resolving,
    /// The stream is being read.
    Reading,
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
    /// By which the message ids are written.
    names: ProducerNames,
    window: Window,
    /// More messages than the window has room for are there.
    more_waits: bool,
    link: Link,
    /// A look-up was decided and not yet handed out.
    look_up_due: bool,
    congestion: Congestion,
    /// When the window was last made smaller because acknowledgements were slow.
    slowed_at: Option<Instant>,
    reconnect: Backoff,
    retry: Backoff,
    server: Option<ServerInfo>,
    /// What is known of the stream, and when it was asked.
    stream: Option<(StreamInfo, Instant)>,
    /// When the stream was made of which `floor` is a sequence; kept also while there is none.
    created: Option<String>,
    /// Looks at the stream so far that found it.
    looks: u64,
    /// The last look was one of them.
    is_fresh: bool,
    /// The server said so, the last time that we asked for the stream, and for its messages.
    may_not_look: bool,
    may_not_read: bool,
    engine: Option<Engine>,
    /// The server has refused a batch although the stream should take it; that is believed until then.
    batches_refused_until: Option<Instant>,
    batch: Option<Batch>,
    /// Batches so far.
    batches: u64,
    /// A sequence of the stream; every message whose fate is open has a higher one, if it is stored.
    floor: u64,
    /// In this connection it was seen that the stream is still as long as that.
    is_floor_proven: bool,
    reading: Option<Reading>,
    /// When a look was answered for the first time, in this connection, that is to decide a doubt; nothing was sent since.
    doubted_at: Option<Instant>,
    patience: Patience,
    /// What holds the window back at the moment.
    blocked: Option<Cause>,
    denials: Denials,
    sizes: Sizes,
    sealer: Sealer,
    /// What came out of a spool is dropped like all else, if the stream does not take it.
    discards_spooled: bool,
    lot: Lot,
    outcomes: Vec<Outcome>,
    notices: Noticed,
}

impl Pipeline {
    pub(crate) fn new(now: Instant, limits: Limits, names: ProducerNames, seed: u64) -> Self {
        Self {
            names,
            window: Window::new(Room {
                messages: limits.window_events / SHARE,
                bytes: limits.window_bytes / SHARE,
            }),
            more_waits: false,
            link: Link::Down { retry_at: now },
            look_up_due: false,
            congestion: Congestion::new(limits.window_events),
            slowed_at: None,
            reconnect: Backoff::new(RECONNECT_BASE, DELAY_MAX, seed),
            retry: Backoff::new(RETRY_BASE, DELAY_MAX, seed.rotate_left(32)),
            patience: Patience::new(limits.ack_timeout),
            limits,
            server: None,
            stream: None,
            created: None,
            looks: 0,
            is_fresh: false,
            may_not_look: false,
            may_not_read: false,
            engine: None,
            batches_refused_until: None,
            batch: None,
            batches: 0,
            floor: 0,
            is_floor_proven: false,
            reading: None,
            doubted_at: None,
            blocked: None,
            denials: Denials::default(),
            sizes: Sizes::default(),
            sealer: Sealer::new(Compressor::None),
            discards_spooled: false,
            lot: Lot::default(),
            outcomes: Vec::new(),
            notices: Noticed::default(),
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

    /// Whether there are messages that will be pushed as soon as there is room; else the last one is the last for the moment.
    pub(crate) fn expect_more(&mut self, more_waits: bool) {
        self.more_waits = more_waits;
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
        self.window.next_number()
    }

    /// Whether all events below `number` have met their fate.
    pub(crate) fn is_settled_below(&self, number: u64) -> bool {
        self.window.is_settled_below(number)
    }

    /// Whether the message of this number, which may be a report, has met its fate.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        self.window.is_settled(number)
    }

    /// When the oldest open event was offered, in nanoseconds since 1970.
    pub(crate) fn oldest_offered(&self) -> Option<u64> {
        self.window.oldest_event().map(|message| message.offered)
    }

    // ---- what happens ------------------------------------------------------------------------------------------------

    pub(crate) fn handle_connected(&mut self, now: Instant, server: ServerInfo) {
        self.server = Some(server);
        self.learn_server_size(server.max_payload);
        self.patience.hear(now);
        self.batches_refused_until = None;
        self.doubted_at = None;
        self.may_not_look = false;
        self.may_not_read = false;
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
        self.drop_overtaken_on_the_way(now);
        self.window.leave_connection();
        self.is_floor_proven = false;
        self.denials.count_anew();
        self.leave_batch(now);
        self.reading = None;
        self.blocked = Some(Cause::Disconnected);
        self.congestion.restart();
        self.server = None;
        self.look_up_due = false;
        // An attempt that took its time has waited already.
        let since = if let Link::Connecting { since } = self.link { since } else { now };
        self.link = Link::Down { retry_at: now.max(since + self.reconnect.next()) };
    }

    /// The server does not let us publish to the subject of this route. It says so without naming the message.
    pub(crate) fn handle_denied(&mut self, now: Instant, route: &Rc<Route>) {
        self.patience.hear(now);
        self.notices.denied(&route.subject);
        self.handle_denial(now, route);
        self.leave_drained(now);
    }

    /// Looks for answers that are overdue and for waits that are over.
    pub(crate) fn handle_time(&mut self, now: Instant) {
        if self.gives_up_at().is_some_and(|at| at <= now) {
            return self.leave();
        }
        match self.link {
            Link::Flowing | Link::Draining | Link::Resolving => {
                match self.batch {
                    Some(_) => self.expire_batch(now),
                    None => self.expire_single(now),
                }
                self.leave_drained(now);
            }
            Link::Waiting { until, then_look } if until <= now => {
                if then_look {
                    self.look_up();
                } else {
                    self.flow();
                }
            }
            _ => {}
        }
    }

    /// Ends every open event: what may be stored is indeterminate, what cannot be is dropped, for the reason returned. Reports of
    /// the bus stay: they are the only ones that can still say what was lost.
    #[cfg(all(test, not(jetring_loom)))]
    pub(crate) fn give_up(&mut self, now: Instant) -> Reason {
        self.give_up_all_but(now, |_| false)
    }

    /// The same, but for the messages whose numbers are kept.
    pub(crate) fn give_up_all_but(&mut self, now: Instant, is_kept: impl Fn(u64) -> bool) -> Reason {
        let reason = self.blocked.map_or(Reason::Expired, Cause::reason_at_the_end);
        self.denials.lose_count();
        let met_before = self.outcomes.len();
        for number in self.window.numbers() {
            let Some(entry) = self.window.get(number).filter(|entry| !entry.message.is_report()) else {
                continue;
            };
            let reason = self.parked_for(entry).map_or(reason, Cause::reason_at_the_end);
            if !is_kept(number) {
                self.refuse(now, number, reason);
            }
        }
        self.outcomes[met_before..].iter_mut().for_each(|outcome| outcome.is_given_up = true);
        // No event is left to wait for; what comes now are the last reports.
        match self.link {
            Link::Waiting { then_look: false, .. } => self.flow(),
            Link::Waiting { then_look: true, .. } => self.look_up(),
            _ => {}
        }
        self.leave_drained(now);
        reason
    }

    // ---- what to do --------------------------------------------------------------------------------------------------

    pub(crate) fn poll_link(&mut self, now: Instant) -> Option<LinkAction> {
        match self.link {
            Link::Down { retry_at } if retry_at <= now => {
                self.link = Link::Connecting { since: now };
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
            Link::Reading => self.reading.as_mut()?.poll(),
            _ => None,
        }
    }

    /// What to send next, if anything may be sent now. It counts as sent from here on.
    pub(crate) fn poll_send(&mut self, now: Instant) -> Option<Sending<'_>> {
        let next = match (self.link, self.engine) {
            (Link::Flowing, Some(Engine::Fast)) => self.next_of_batch(now),
            (Link::Flowing, _) => self.next_single(now),
            _ => None,
        };
        let Some(Next { number, address, bears_id }) = next else { return self.poll_word(now) };
        let entry = self.window.get(number)?;
        Some(Sending {
            address,
            subject: &entry.message.route.subject,
            id: bears_id.then(|| entry.message.id()),
            payload: self.window.payload_of(entry),
            packed: entry.message.packed.as_deref(),
            trace: entry.message.trace.as_deref(),
        })
    }

    /// When [`handle_time`](Self::handle_time) or [`poll_link`](Self::poll_link) should be called next, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadline = match self.link {
            Link::Down { retry_at } => Some(retry_at),
            Link::Waiting { until, .. } => Some(until),
            Link::Flowing | Link::Draining | Link::Resolving => match &self.batch {
                Some(batch) => self.batch_deadline(batch),
                None => self.first_deadline(),
            },
            Link::Connecting { .. } | Link::Looking | Link::Reading | Link::Leaving { .. } => None,
        };
        [deadline, self.gives_up_at(), self.next_try()].into_iter().flatten().min()
    }

    /// How events are sent, once a stream was looked for.
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.engine
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.server.is_some()
    }

    pub(crate) fn drain_outcomes(&mut self) -> std::vec::Drain<'_, Outcome> {
        self.outcomes.drain(..)
    }

    pub(crate) fn drain_notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.0.drain(..)
    }

    #[cfg(test)]
    pub(crate) fn check(&self) {
        self.window.check();
    }

    // ---- the connection ------------------------------------------------------------------------------------------------

    /// After a look at the stream: finds out what is stored of what is in doubt, and then goes on.
    fn resolve(&mut self, now: Instant) {
        if let Some(batch) = self.batch.as_mut().filter(|batch| batch.stage() == Stage::Doubtful) {
            batch.end_again();
            self.link = Link::Resolving;
            return;
        }
        if self.waits_to_settle(now) || (self.needs_reading(now) && self.begin_reading(now)) {
            return;
        }
        self.go_on(now);
    }

    /// Everything is known that can be: sends on, or waits a little if the server has just refused what the stream should take.
    fn go_on(&mut self, now: Instant) {
        self.doubted_at = None;
        self.drop_uncovered(now);
        self.drop_overtaken(now);
        if self.engine.is_none() {
            self.blocked = Some(Cause::Unavailable);
            self.wait(now, true);
        } else if self.is_refused_for_want_of_a_stream() && !self.park_unheard(now) {
            self.wait(now, false);
        } else {
            self.blocked = None;
            self.doubt_floor();
            self.flow();
        }
    }

    fn is_refused_for_want_of_a_stream(&self) -> bool {
        let refused = |entry: &Entry| entry.refused == Some(Cause::NoStream) && entry.state == State::Waiting;
        self.window.tried().any(|number| self.window.get(number).is_some_and(refused))
    }

    fn wait(&mut self, now: Instant, then_look: bool) {
        self.link = Link::Waiting { until: now + self.retry.next(), then_look };
    }

    /// The server is silent: the connection is given up. What was sent on it is counted when it has ended.
    fn leave(&mut self) {
        self.notice_retry(Cause::Timeout, 0, "the server is silent");
        self.link = Link::Leaving { told: false };
    }

    // ---- trouble and its end -------------------------------------------------------------------------------------------

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
        if self.window.outstanding() > 0 || self.batch.is_some() {
            return;
        }
        if self.wants_to_learn_sizes() {
            return self.look_up();
        }
        match self.link {
            Link::Resolving => self.resolve(now),
            Link::Draining if self.is_refused_for_want_of_a_stream() => self.look_up(),
            Link::Draining if self.needs_reading(now) => self.wait(now, true),
            Link::Draining => {
                self.drop_overtaken(now);
                // What has ended a batch may be a change of the stream; and for a large frame a stream is full that has become smaller.
                let is_full = self.blocked == Some(Cause::StreamFull);
                let next = self.window.next_waiting().filter(|_| is_full);
                let may_be_too_large = next.is_some_and(|number| self.is_divisible(number));
                self.wait(now, may_be_too_large || self.engine == Some(Engine::Fast));
            }
            _ => {}
        }
    }

    /// Things work: the next trouble is a new one.
    fn progressed(&mut self, messages: usize) {
        // Answers to what was sent before a trouble do not say that it is over.
        if self.link == Link::Flowing {
            self.congestion.acked(messages);
        }
        self.reconnect.reset();
        self.retry.reset();
        self.blocked = None;
        self.lot.unheard = 0;
    }

    /// When the connection is given up if the server goes on being silent.
    fn gives_up_at(&self) -> Option<Instant> {
        let has_connection =
            !matches!(self.link, Link::Down { .. } | Link::Connecting { .. } | Link::Leaving { .. });
        self.patience.gives_up_at().filter(|_| has_connection)
    }

    // ---- fates ---------------------------------------------------------------------------------------------------------

    fn acked(&mut self, now: Instant, number: u64, duplicate: bool) {
        self.permit(number);
        let watched = self.watch(number);
        self.conclude(now, number, true, |_| Fate::Acked { duplicate });
        if let Some(watched) = watched {
            self.pass_on(now, number, &watched);
        }
    }

    /// Ends a message that will not be sent again: dropped, unless an attempt without an answer may have stored it.
    fn refuse(&mut self, now: Instant, number: u64, reason: Reason) {
        self.conclude(now, number, false, |settling| {
            if settling.maybe_stored { Fate::Indeterminate } else { Fate::Dropped(reason) }
        });
    }

    fn conclude(&mut self, now: Instant, number: u64, stored: bool, fate: impl FnOnce(&Settling) -> Fate) {
        let parked = self.window.get(number).filter(|_| !self.lot.is_empty());
        let bytes = parked.map_or(0, |entry| self.window.payload_of(entry).len());
        let Some(settling) = self.window.settle(number, stored) else { return };
        if !self.lot.is_empty() {
            self.lot.forget(number, &settling.message, bytes);
        }
        let fate = fate(&settling);
        let ack_latency = settling.sent_at.map(|at| now.saturating_duration_since(at));
        if let Some(latency) = ack_latency.filter(|_| stored && settling.was_sent_once) {
            self.patience.answered(latency);
        }
        if stored && ack_latency.is_some_and(|latency| latency > self.limits.ack_timeout / SLOW_PART) {
            self.slow_down(now, settling.sent_at);
        }
        // A spool keeps what goes to no stream of ours: another stream may be meant, and another process may be permitted.
        let is_unsendable =
            matches!(fate, Fate::Dropped(Reason::NoStream | Reason::Permission)) && !self.discards_spooled;
        let is_given_up = is_unsendable && settling.message.is_spooled();
        self.outcomes.push(Outcome { ack_latency, message: settling.message, fate, is_given_up });
    }

    /// An acknowledgement took long, so less is sent at once; but the window is halved only once for what was sent together.
    #[cold]
    fn slow_down(&mut self, now: Instant, sent_at: Option<Instant>) {
        if sent_at >= self.slowed_at {
            self.slowed_at = Some(now);
            self.congestion.slowed();
        }
    }

    fn notice_retry(&mut self, cause: Cause, messages: u64, text: &str) {
        self.notices.retry(cause, messages, text);
    }
}

/// A message that is to be sent now.
#[derive(Debug)]
struct Next {
    number: u64,
    address: Address,
    bears_id: bool,
}
