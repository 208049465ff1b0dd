//! The messages whose fate is open, in the order in which they must be stored.
//!
//! ```text
//!   base                      cursor                    base + len
//!    │                           │                          │
//!    ▼                           ▼                          ▼
//!  ┌──────┬─────────┬──────┬─────────┬─────────┬─────────┐
//!  │ sent │ settled │ sent │ waiting │ waiting │ waiting │
//!  └──────┴─────────┴──────┴─────────┴─────────┴─────────┘
//! ```
//!
//! A message's *number* is its place in the endless sequence of messages and is never used twice, so an answer that comes late
//! cannot be taken for another message's. A settled message stays until all before it are settled: so the window spans a run of
//! the sequence, and its memory is bounded by its span. A message that is [parked](super::pipeline) for long would hold up all behind it, so it
//! is set [aside] when it comes to the front, and keeps its number.
//!
//! A packed frame that is too large is replaced by the frames it is cut into. Their numbers are between its own and the next one: each
//! message has [`PARTS`] numbers, of which it uses the first, and pieces share what is left. So an answer that comes late to the frame
//! finds nobody.
//!
//! Nothing here that is asked at each turn or for each answer looks through the window: what is the first of its kind is known by a
//! cursor, which moves on as messages leave that state, and what is on its way to a subject stands in the subject's route.

mod aside;
#[cfg(test)]
mod check;
mod doubt;
mod message;
mod pieces;

pub(crate) use self::aside::Room;
pub(crate) use self::doubt::Doubt;
pub(crate) use self::message::{Lane, Message, Origin, Past};

use self::aside::Aside;
use super::payloads::{Payloads, Place};
use super::retry::Cause;
use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Instant;

/// The numbers of each message. More than a frame has events, by far: each cut needs one for each piece.
pub(crate) const PARTS: u64 = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not sent yet, or to be sent again.
    Waiting,
    /// Sent, and no answer yet.
    Sent { at: Instant, deadline: Instant },
    /// Its subject takes nothing at the moment.
    Parked,
    /// Its fate is known.
    Settled,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    number: u64,
    /// Its frame must become smaller before it is sent again: it was refused for its size.
    pub(crate) is_too_large: bool,
    /// And that was tried in vain.
    pub(crate) is_indivisible: bool,
    /// If it is a piece: the numbers of the frames that it was cut out of, and how many events stood before its own in each.
    cut_from: Vec<(u64, usize)>,
    pub(crate) message: Message,
    /// Where the payload lies, unless it is a frame's own.
    place: Option<Place>,
    /// The payload of one that is set aside.
    own: Option<Box<[u8]>>,
    pub(crate) state: State,
    /// It was sent last while others behind it were sent already, or may have been.
    is_out_of_turn: bool,
    /// How often it was sent.
    pub(crate) attempts: u32,
    /// The last attempt bore the message's id.
    bears_id: bool,
    /// Every attempt must, so that the server recognises it when another process sends it.
    needs_id: bool,
    /// Another process may have sent it, and from then on the server may have forgotten its id.
    known_until: Option<Instant>,
    /// An attempt ended without an answer: the message may be stored.
    pub(crate) doubt: Option<Doubt>,
    /// The same of all attempts but the last.
    doubt_before: Option<Doubt>,
    /// The server acknowledged it.
    pub(crate) stored: bool,
    /// Why the last attempt was refused, if it was and could be tried again.
    pub(crate) refused: Option<Cause>,
    /// It may be stored in a stream that is no more, where nobody can look for it.
    pub(crate) is_left_behind: bool,
    /// The server has denied a message to its subject while the last attempt was open, and perhaps this one.
    pub(crate) is_denied: bool,
}

impl Entry {
    pub(crate) fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    /// Whether it must bear its id when it is sent.
    pub(crate) fn needs_id(&self) -> bool {
        self.needs_id || self.attempts > 0 || self.doubt.is_some()
    }

    /// Whether all attempts that may have stored it bore its id.
    pub(crate) fn is_named(&self) -> bool {
        let is_sent = matches!(self.state, State::Sent { .. });
        self.doubt.is_none_or(|doubt| doubt.has_id) && (!is_sent || self.bears_id)
    }

    /// Whether another process may have sent it, so long ago that the server may have forgotten its id.
    pub(crate) fn is_beyond_telling(&self, now: Instant) -> bool {
        self.known_until.is_some_and(|until| until <= now)
    }

    fn is_unspooled(&self) -> bool {
        let is_unspooled = match &self.message.packed {
            Some(packed) => packed.events.iter().any(|event| event.sequence.is_none()),
            None => self.message.sequence.is_none(),
        };
        is_unspooled && self.is_open_event()
    }

    /// The numbers of the frames that it was cut out of.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = u64> + '_ {
        self.cut_from.iter().map(|(whole, _)| *whole)
    }

    fn is_piece(&self) -> bool {
        !self.number.is_multiple_of(PARTS)
    }

    fn is_open_event(&self) -> bool {
        !self.is_settled() && !self.message.is_report()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    /// Parked messages that the others have passed.
    aside: Aside,
    payloads: Payloads,
    /// Bytes of frames, which are not in `payloads`, nor aside.
    frame_bytes: usize,
    /// Messages so far, not counting pieces.
    pushed: u64,
    /// Pieces among the entries.
    pieces: usize,
    /// Where the first entry is that may be waiting; all before it are sent, parked or settled.
    cursor: usize,
    /// Where the first entry is that is sent in its turn, if one is.
    sent_cursor: usize,
    /// When the others were sent that have no answer, and their numbers.
    out_of_turn: BTreeSet<(Instant, u64)>,
    /// Where the first entry may be that is an open event.
    event_cursor: usize,
    /// No entry from this number on was ever sent, or may be stored.
    tried_end: u64,
    /// Messages that are sent and not answered.
    outstanding: usize,
    /// Entries that wait to be sent.
    waiting: usize,
    /// Messages that are parked.
    parked: usize,
    /// Messages that are settled.
    settled: usize,
    /// Events of entries that are not settled.
    open_events: usize,
}

impl Window {
    pub(crate) fn new(aside_max: Room) -> Self {
        Self { aside: Aside::new(aside_max), ..Self::default() }
    }

    /// Messages from the oldest open one to the newest, and events that are set aside.
    pub(crate) fn span(&self) -> usize {
        self.entries.len() + self.aside.taken().messages
    }

    /// Bytes of all payloads that are kept: from the oldest open message to the newest, as the span.
    pub(crate) fn bytes(&self) -> usize {
        self.payloads.bytes() + self.frame_bytes + self.aside.taken().bytes
    }

    /// Bytes of a message, on average.
    pub(crate) fn message_bytes(&self) -> usize {
        self.bytes() / self.span().max(1)
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Events, not reports, of open messages.
    pub(crate) fn open_events(&self) -> usize {
        self.open_events
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.aside.is_empty()
    }

    /// Whether nothing is open but what is parked.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.entries.len() + self.aside.len() == self.parked + self.settled
    }

    /// The oldest event that is not settled.
    pub(crate) fn oldest_event(&self) -> Option<&Message> {
        self.first_open_event().map(|entry| &entry.message)
    }

    fn first_open_event(&self) -> Option<&Entry> {
        let entries = self.entries.range(self.event_cursor.min(self.entries.len())..);
        self.aside.entries().chain(entries).find(|entry| entry.is_open_event())
    }

    /// Whether all events below `number` are settled.
    pub(crate) fn is_settled_below(&self, number: u64) -> bool {
        self.open_events == 0 || self.first_open_event().is_none_or(|entry| entry.number >= number)
    }

    /// Whether the message of this number, a report's too, is settled.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        self.get(number).map_or_else(|| number < self.base(), Entry::is_settled)
    }

    /// Takes the message that `write` makes, and what it appends as the payload, unless it fails.
    #[inline]
    pub(crate) fn push<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Message, E>,
    ) -> Result<(), E> {
        let (message, place) = self.payloads.push(write)?;
        self.append(message, Some(place));
        Ok(())
    }

    /// Takes a packed frame.
    pub(crate) fn push_packed(&mut self, message: Message) {
        self.frame_bytes += message.packed.as_ref().map_or(0, |packed| packed.bytes());
        self.append(message, None);
    }

    #[inline]
    fn append(&mut self, message: Message, place: Option<Place>) {
        self.open_events += message.events();
        let number = self.next_number();
        self.pushed += 1;
        self.waiting += 1;
        self.entries.push_back(Entry {
            number,
            is_too_large: false,
            is_indivisible: false,
            cut_from: Vec::new(),
            needs_id: message.is_spooled(),
            message,
            place,
            own: None,
            state: State::Waiting,
            is_out_of_turn: false,
            attempts: 0,
            bears_id: false,
            known_until: None,
            doubt: None,
            doubt_before: None,
            stored: false,
            refused: None,
            is_left_behind: false,
            is_denied: false,
        });
    }

    /// The open messages with events that are not in the spool, with their numbers, in order.
    pub(crate) fn unspooled(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let unspooled = self.all().filter(|entry| entry.is_unspooled());
        unspooled.map(|entry| (entry.number, entry))
    }

    /// From now on these are sent with their ids only.
    pub(crate) fn name_unspooled(&mut self) {
        self.all_mut().filter(|entry| entry.is_unspooled()).for_each(|entry| entry.needs_id = true);
    }

    /// The open reports of the bus that are not in the spool, with their numbers, in order.
    pub(crate) fn open_reports(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let is_unspooled = |entry: &Entry| entry.message.is_report() && entry.message.sequence.is_none();
        let open = self.all().filter(move |entry| !entry.is_settled() && is_unspooled(entry));
        open.map(|entry| (entry.number, entry))
    }

    /// Says where an event of an open message is in the spool. Returns false if it needs no place there: the message is settled.
    pub(crate) fn set_spooled(&mut self, number: u64, index: usize, sequence: NonZeroU64) -> bool {
        let Some((entry, index)) = self.holder(number, index).filter(|(entry, _)| !entry.is_settled()) else {
            return false;
        };
        let place = match &mut entry.message.packed {
            None => Some(&mut entry.message.sequence),
            Some(packed) => Rc::make_mut(packed).events.get_mut(index).map(|event| &mut event.sequence),
        };
        place.map(|place| *place = Some(sequence)).is_some()
    }

    /// What was said by [`set_spooled`](Self::set_spooled), or known from the start, is not so any more: the spool is gone.
    pub(crate) fn forget_spooled(&mut self) {
        self.forget_spooled_below(u64::MAX);
    }

    /// The same of what had a lower place than this.
    pub(crate) fn forget_spooled_below(&mut self, start: u64) {
        let is_gone = |sequence: &mut NonZeroU64| sequence.get() < start;
        for entry in self.all_mut() {
            entry.message.sequence.take_if(is_gone);
            if let Some(packed) = &mut entry.message.packed
                && packed.events.iter().any(|event| event.sequence.is_some())
            {
                Rc::make_mut(packed).events.iter_mut().for_each(|event| _ = event.sequence.take_if(is_gone));
            }
        }
    }

    pub(crate) fn payload_of<'a>(&'a self, entry: &'a Entry) -> &'a [u8] {
        match (entry.place, &entry.message.packed) {
            (Some(place), _) => self.payloads.get(place),
            (None, Some(packed)) => &packed.payload,
            (None, None) => entry.own.as_deref().unwrap_or_default(),
        }
    }

    /// The number of the first message that waits to be sent.
    pub(crate) fn next_waiting(&mut self) -> Option<u64> {
        while let Some(entry) = self.entries.get(self.cursor) {
            if entry.state == State::Waiting {
                return Some(entry.number);
            }
            self.cursor += 1;
        }
        None
    }

    /// Whether a message waits to be sent.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Those before this one that wait to be sent.
    pub(crate) fn waiting_before(&self, number: u64) -> impl Iterator<Item = &Entry> {
        let entries = self.entries.range(self.cursor.min(self.entries.len())..);
        let before = entries.take_while(move |entry| entry.number < number);
        before.filter(|entry| entry.state == State::Waiting)
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Entry> {
        match self.index(number) {
            Some(index) => self.entries.get(index),
            None => self.aside.get(number),
        }
    }

    /// All messages, in order.
    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.aside.entries().chain(&self.entries)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.aside.entries_mut().chain(&mut self.entries)
    }

    pub(crate) fn mark_sent(&mut self, number: u64, at: Instant, deadline: Instant, bears_id: bool) {
        let index = self.index(number);
        let is_next = index == Some(self.cursor);
        let Some(entry) = self.entry(number) else { return };
        let was_parked = entry.state == State::Parked;
        debug_assert!(was_parked || entry.state == State::Waiting);
        entry.state = State::Sent { at, deadline };
        entry.is_out_of_turn = was_parked || !is_next;
        entry.attempts += 1;
        entry.bears_id = bears_id;
        entry.doubt_before = entry.doubt;
        entry.refused = None;
        entry.is_denied = false;
        entry.message.route.sent.borrow_mut().push_back(number);
        let is_out_of_turn = entry.is_out_of_turn;
        if is_out_of_turn {
            self.out_of_turn.insert((at, number));
        } else if let Some(index) = index {
            let is_only = self.outstanding == self.out_of_turn.len();
            self.sent_cursor = if is_only { index } else { self.sent_cursor.min(index) };
        }
        self.outstanding += 1;
        self.parked -= usize::from(was_parked);
        self.waiting -= usize::from(!was_parked && index.is_some());
        self.cursor += usize::from(is_next);
        self.tried_end = self.tried_end.max(number + 1);
    }

    /// When the first of the messages was sent that have no answer.
    pub(crate) fn oldest_sent_at(&self) -> Option<Instant> {
        let sent_at = |entry: &Entry| match entry.state {
            State::Sent { at, .. } if !entry.is_out_of_turn => Some(at),
            State::Sent { .. } | State::Waiting | State::Parked | State::Settled => None,
        };
        let in_turn = self.entries.get(self.sent_cursor).and_then(sent_at);
        let out_of_turn = self.out_of_turn.first().map(|&(at, _)| at);
        in_turn.into_iter().chain(out_of_turn).min()
    }

    /// The message, which is sent, has its answer, or will have none.
    fn bring_back(&mut self, number: u64) {
        self.outstanding -= 1;
        let Some(Entry { message, state, is_out_of_turn, .. }) = self.get(number) else { return };
        let mut sent = message.route.sent.borrow_mut();
        // Answers come in the order of the messages, nearly always.
        if sent.front() == Some(&number) {
            sent.pop_front();
        } else if let Some(place) = sent.iter().position(|&sent| sent == number) {
            sent.remove(place);
        }
        drop(sent);
        if let (true, &State::Sent { at, .. }) = (*is_out_of_turn, state) {
            self.out_of_turn.remove(&(at, number));
        }
    }

    /// Leaves what is settled at the front behind, sets aside what is parked there, and moves the cursors on, over what is not of their
    /// kind any more.
    fn advance(&mut self) {
        while let Some(entry) = self.entries.front() {
            if !entry.is_settled() && !self.may_stand_aside(entry) {
                break;
            }
            self.leave_front();
            for cursor in [&mut self.cursor, &mut self.sent_cursor, &mut self.event_cursor] {
                *cursor = cursor.saturating_sub(1);
            }
        }
        let is_sent_in_turn =
            |entry: &Entry| matches!(entry.state, State::Sent { .. }) && !entry.is_out_of_turn;
        let sent_in_turn = self.outstanding - self.out_of_turn.len();
        while sent_in_turn > 0
            && self.entries.get(self.sent_cursor).is_some_and(|entry| !is_sent_in_turn(entry))
        {
            self.sent_cursor += 1;
        }
        while self.entries.get(self.event_cursor).is_some_and(|entry| !entry.is_open_event()) {
            self.event_cursor += 1;
        }
    }

    /// A message to its subject was denied. Brings the answer's deadline of a sent message forward.
    pub(crate) fn hasten(&mut self, number: u64, by: Instant) {
        self.mark_denied(number);
        if let Some(Entry { state: State::Sent { deadline, .. }, .. }) = self.entry(number) {
            *deadline = (*deadline).min(by);
        }
    }

    pub(crate) fn mark_denied(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.is_denied = true;
        }
    }

    /// The attempt was answered with a refusal, so the message waits again (or still, if the answer came late).
    pub(crate) fn mark_refused(&mut self, number: u64, cause: Option<Cause>) {
        self.unsend(number);
        if let Some(entry) = self.entry(number) {
            entry.refused = cause;
        }
    }

    /// The message's fate is known; `stored` if the server acknowledged it, which counts also for one that is settled already.
    pub(crate) fn settle(&mut self, number: u64, stored: bool) -> Option<Settling> {
        let is_entry = self.index(number).is_some();
        let entry = self.entry(number)?;
        entry.stored |= stored;
        let before = entry.state;
        let sent_at = match before {
            State::Settled => return None,
            State::Sent { at, .. } => Some(at),
            State::Waiting | State::Parked => None,
        };
        let settling = Settling {
            message: entry.message.clone(),
            maybe_stored: entry.doubt.is_some() || entry.is_left_behind || sent_at.is_some(),
            sent_at,
            was_sent_once: entry.attempts == 1,
        };
        if sent_at.is_some() {
            self.bring_back(number);
        }
        self.parked -= usize::from(before == State::Parked);
        self.open_events -= settling.message.events();
        if is_entry {
            self.waiting -= usize::from(before == State::Waiting);
            self.settled += 1;
            self.entry(number)?.state = State::Settled;
        } else {
            self.aside.remove(number);
        }
        self.advance();
        Some(settling)
    }

    /// All numbers, oldest first.
    pub(crate) fn numbers(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        self.numbers_below(self.next_number())
    }

    /// The numbers of all that were ever sent or may be stored, oldest first, and perhaps some others.
    pub(crate) fn tried(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        self.numbers_below(self.tried_end)
    }

    fn numbers_below(&self, end: u64) -> impl DoubleEndedIterator<Item = u64> + use<> {
        let mut listed: Vec<u64> = Vec::with_capacity(self.aside.len());
        listed.extend(self.aside.entries().map(|entry| entry.number));
        let mut whole = self.base().div_ceil(PARTS)..end.div_ceil(PARTS);
        if self.pieces > 0 {
            listed.extend(self.entries.iter().map(|entry| entry.number).filter(|&number| number < end));
            whole = 0..0;
        }
        listed.into_iter().chain(whole.map(|place| place * PARTS))
    }

    /// The number that the next message will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.pushed * PARTS
    }

    /// A frame was refused for its size. It waits until it is cut.
    pub(crate) fn mark_too_large(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.is_too_large = true;
        }
    }

    /// Whether no message is before this one that is not set aside.
    pub(crate) fn is_oldest(&self, number: u64) -> bool {
        self.base() == number
    }

    /// The number of the oldest message that is not set aside, or of the next if there is none.
    fn base(&self) -> u64 {
        self.entries.front().map_or_else(|| self.next_number(), |entry| entry.number)
    }

    fn unsend(&mut self, number: u64) -> Option<&mut Entry> {
        let sent = matches!(self.get(number)?.state, State::Sent { .. });
        if !sent {
            return None;
        }
        self.bring_back(number);
        let index = self.index(number);
        self.entry(number)?.state = State::Waiting;
        if let Some(index) = index {
            self.waiting += 1;
            self.cursor = self.cursor.min(index);
        }
        self.advance();
        self.entry(number)
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        match self.index(number) {
            Some(index) => self.entries.get_mut(index),
            None => self.aside.get_mut(number),
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        if self.pieces > 0 {
            return self.entries.binary_search_by_key(&number, |entry| entry.number).ok();
        }
        let distance = number.checked_sub(self.base())?;
        let at = usize::try_from(distance / PARTS).ok()?;
        (distance.is_multiple_of(PARTS) && at < self.entries.len()).then_some(at)
    }
}

/// What a settled message was.
#[derive(Debug)]
pub(crate) struct Settling {
    pub(crate) message: Message,
    /// An attempt was not answered, or is not answered yet, so it may be stored.
    pub(crate) maybe_stored: bool,
    /// When the open attempt was sent.
    pub(crate) sent_at: Option<Instant>,
    /// So an answer to it is of that attempt.
    pub(crate) was_sent_once: bool,
}
