//! One fast-ingest batch, as far as we know it: places, acknowledgements, and how it ends.
//!
//! ```text
//!   place   1 … acked         acked + 1 … sent          sent + 1
//!          ┌───────────────┬─────────────────────────┬──────────────┐
//!          │ stored        │ in flight: their numbers │ the next one │
//!          └───────────────┴─────────────────────────┴──────────────┘
//!
//!   starting ──granted──► open ──commit, end──► closing ──ended──► (gone)
//!      │                   │ gap, error, silence, disconnect
//!      │                   ▼
//!      │               doubtful ──end──► ended, with the exact count ──► (gone)
//!      │                   │ the server knows it no more
//!      ▼                   ▼
//!   (gone: one message,  forgotten ──► read the stream back ──► (gone)
//!    which bears an id)
//! ```
//!
//! The server stores the places in order and none behind a gap (gap mode `fail`). So whatever went wrong, the answer to an
//! *end* says exactly which messages are stored: the first `count` of them. And what of the batch is still on its way through an old
//! connection is refused after that. Two messages only can make a batch, and could do so when they arrive late: a start, and a
//! commit at place 1. Nothing is sent behind them before their answer, and they bear a message id.

use super::outgoing::{BatchToken, Op};
use super::route::Route;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

/// A batch with so many messages is ended, and a new one begun: its last answer tells where in the stream we are.
const PLACES_MAX: u64 = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first message is on its way, and nothing may follow before its answer.
    Starting,
    /// The server has granted it; messages may follow.
    Open,
    /// The last part is on its way.
    Closing,
    /// Something went wrong. What is stored of it must be found out by an end.
    Doubtful,
    /// The server does not know it, so the stream itself must tell what is stored of it.
    Forgotten,
}

#[derive(Debug)]
pub(crate) struct Batch {
    number: u64,
    flow: u16,
    /// Where words about it go: as its first message, or another way if that one is closed.
    route: Rc<Route>,
    stage: Stage,
    sent: u64,
    /// The last place is taken: its message was sent as a commit.
    is_complete: bool,
    acked: u64,
    /// The stream is another one than when it began.
    is_left_behind: bool,
    /// All of it was sent through the connection that we have.
    is_here: bool,
    /// How many places the next acknowledgement is away from the last.
    messages: u64,
    /// The messages at the places after `acked`.
    in_flight: VecDeque<u64>,
    /// A word about the batch that is to be sent.
    due: Option<Op>,
    /// When the last word was sent, until it is answered.
    word_sent_at: Option<Instant>,
    /// The acknowledgement that is missing has been asked for.
    pinged: bool,
    /// When it became doubtful.
    doubtful_since: Option<Instant>,
}

impl Batch {
    pub(crate) fn new(number: u64, flow: u16, route: Rc<Route>) -> Self {
        Self {
            number,
            flow,
            route,
            stage: Stage::Starting,
            sent: 0,
            is_complete: false,
            acked: 0,
            is_left_behind: false,
            is_here: true,
            messages: u64::from(flow),
            in_flight: VecDeque::new(),
            due: None,
            word_sent_at: None,
            pinged: false,
            doubtful_since: None,
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    pub(crate) fn route(&self) -> &Rc<Route> {
        &self.route
    }

    /// Words about it go this way from now on.
    pub(crate) fn lead(&mut self, route: Rc<Route>) {
        self.route = route;
    }

    /// Places that are known to be stored.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// The stream is another one now. The batch may have begun in either.
    pub(crate) fn leave_behind(&mut self) {
        self.is_left_behind = true;
    }

    pub(crate) fn is_left_behind(&self) -> bool {
        self.is_left_behind
    }

    /// The connection is another one now: parts of it may still arrive through the last one.
    pub(crate) fn leave_connection(&mut self) {
        self.is_here = false;
    }

    pub(crate) fn is_here(&self) -> bool {
        self.is_here
    }

    /// The messages whose fate is open, in the order of their places.
    pub(crate) fn in_flight(&self) -> &VecDeque<u64> {
        &self.in_flight
    }

    /// The places that were sent and not acknowledged.
    pub(crate) fn open_places(&self) -> std::ops::RangeInclusive<u64> {
        self.acked + 1..=self.sent
    }

    /// The message at a place, unless it was acknowledged or never sent.
    pub(crate) fn message_at(&self, place: u64) -> Option<u64> {
        let index = place.checked_sub(self.acked + 1)?;
        self.in_flight.get(usize::try_from(index).ok()?).copied()
    }

    /// Gives the next message its place. If it `is_last`, nothing may follow, and its acknowledgement speaks for all before it.
    pub(crate) fn add(&mut self, message: u64, is_last: bool) -> BatchToken {
        self.sent += 1;
        self.in_flight.push_back(message);
        let is_last = is_last || self.sent >= PLACES_MAX;
        let op = match (self.sent, is_last) {
            (_, true) => Op::Commit,
            (1, false) => Op::Start,
            (_, false) => Op::Append,
        };
        self.is_complete = op == Op::Commit;
        if self.is_complete && self.stage == Stage::Open {
            self.stage = Stage::Closing;
        }
        self.token(self.sent, op)
    }

    /// Whether the place after the last one will be acknowledged without the end of the batch, or one before it.
    pub(crate) fn next_is_acknowledged(&self) -> bool {
        self.sent + 1 >= self.acked.saturating_add(self.messages)
    }

    /// The batch has begun, or goes on; the next acknowledgement comes after so many messages.
    pub(crate) fn granted(&mut self, messages: u64) {
        self.messages = messages.max(1);
        if self.stage == Stage::Starting {
            self.stage = if self.is_complete { Stage::Closing } else { Stage::Open };
        }
        if self.stage == Stage::Open {
            // The answer to a ping, if there was one.
            self.word_sent_at = None;
        }
    }

    /// The next message that is stored, if `place` says so.
    pub(crate) fn next_stored(&mut self, place: u64) -> Option<u64> {
        if self.acked >= place {
            return None;
        }
        let message = self.in_flight.pop_front()?;
        self.acked += 1;
        self.pinged = false;
        Some(message)
    }

    /// Everything that was sent is known to be stored, or nothing was sent.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    // ---- words about it --------------------------------------------------------------------------------------------------

    /// Whether the last acknowledgement may be asked for again, which is done once.
    pub(crate) fn may_ping(&self) -> bool {
        self.stage == Stage::Open && !self.pinged
    }

    pub(crate) fn ping(&mut self) {
        self.pinged = true;
        self.due = Some(Op::Ping);
    }

    /// Nothing more will be added.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closing;
        self.due = Some(Op::End);
    }

    /// If everything is stored and nothing will be added, only the word that the batch has ended is missing, and is due from now on.
    pub(crate) fn await_last_word(&mut self, now: Instant) {
        if self.stage == Stage::Closing && self.is_settled() {
            self.word_sent_at.get_or_insert(now);
        }
    }

    /// Something went wrong. An end will be due at once, or, if the server has said that it ends the batch itself, after a
    /// time limit that begins now.
    pub(crate) fn doubt(&mut self, now: Instant, server_ends_it: bool) {
        self.stage = Stage::Doubtful;
        self.doubtful_since.get_or_insert(now);
        self.due = (!server_ends_it).then_some(Op::End);
        self.word_sent_at = server_ends_it.then_some(now);
    }

    /// An end that was not answered is to be sent again.
    pub(crate) fn end_again(&mut self) {
        self.due = Some(Op::End);
        self.word_sent_at = None;
    }

    pub(crate) fn forget(&mut self) {
        self.stage = Stage::Forgotten;
        self.due = None;
        self.word_sent_at = None;
    }

    pub(crate) fn doubtful_since(&self) -> Option<Instant> {
        self.doubtful_since
    }

    /// When the word was sent that is not answered yet.
    pub(crate) fn word_sent_at(&self) -> Option<Instant> {
        self.word_sent_at
    }

    /// The word that is due; it counts as sent from here on.
    pub(crate) fn poll_word(&mut self, now: Instant) -> Option<BatchToken> {
        let op = self.due.take()?;
        self.word_sent_at = Some(now);
        let place = if op == Op::Ping { self.sent } else { self.sent + 1 };
        Some(self.token(place, op))
    }

    fn token(&self, seq: u64, op: Op) -> BatchToken {
        BatchToken { batch: self.number, flow: self.flow, seq, op }
    }
}
