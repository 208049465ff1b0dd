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
//! the sequence, and its memory is bounded by its span.
//!
//! A packed frame that is too large is replaced by the frames it is cut into. Their numbers are between its own and the next one: each
//! message has [`PARTS`] numbers, of which it uses the first, and pieces share what is left. So an answer that comes late to the frame
//! finds nobody.
//!
//! Nothing here that is asked at each turn or for each answer looks through the window: what is the first of its kind is known by a
//! cursor, which moves on as messages leave that state, and what is on its way to a subject stands in the subject's route.

use super::outgoing::MessageId;
use super::packer::Packed;
use super::payloads::{Payloads, Place};
use super::retry::Cause;
use super::route::Route;
use crate::spool::LogId;
use crate::trace::TraceParent;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Instant;

/// The numbers of each message. More than a frame has events, by far: each cut needs one for each piece.
pub(crate) const PARTS: u64 = 1 << 16;

/// Who numbered a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// An event, from the ring of this index.
    Ring(usize),
    /// A report of the bus about itself; not in the ledger.
    Bus,
    /// A producer of another process, which has left the event in a spool. What its bus reported of itself is an event like any other to us.
    Past(Past),
    /// The log that holds a message of which it does not say who numbered it. Its number is its place there.
    Log(LogId),
}

/// A producer that is not ours, as `<16 hex>.<ring>` names it, or `<16 hex>.bus`, or `<16 hex>.<partition>.bus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    process: u64,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Ring(u32),
    /// Of a partition, if there are several.
    Bus(Option<u32>),
}

impl Past {
    /// Reads a name; none if it is not that of a producer. What is read prints as it was.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (process, part) = name.split_once('.')?;
        let part = match part.strip_suffix("bus") {
            Some("") => Part::Bus(None),
            Some(partition) => Part::Bus(Some(partition.strip_suffix('.')?.parse().ok()?)),
            None => Part::Ring(part.parse().ok()?),
        };
        let past = Self { process: u64::from_str_radix(process, 16).ok()?, part };
        (past.to_string() == name).then_some(past)
    }

    /// Whether both are of one process.
    pub(crate) fn is_of_the_process_of(self, other: Self) -> bool {
        self.process == other.process
    }

    /// Whether it numbers the reports of a bus.
    pub(crate) fn is_bus(self) -> bool {
        matches!(self.part, Part::Bus(_))
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.", self.process)?;
        match self.part {
            Part::Ring(ring) => write!(f, "{ring}"),
            Part::Bus(None) => write!(f, "bus"),
            Part::Bus(Some(partition)) => write!(f, "{partition}.bus"),
        }
    }
}

/// A message as the worker hands it over, but for its payload. What is said of one event is of a frame's first.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) origin: Origin,
    /// The number with its producer, as in the envelope.
    pub(crate) seq: u64,
    /// Its name and its subject.
    pub(crate) route: Rc<Route>,
    /// When the event was offered, in nanoseconds since 1970, for its age.
    pub(crate) offered: u64,
    /// The events and the payload, if the message is a packed frame.
    pub(crate) packed: Option<Rc<Packed>>,
    /// The place of the event in the spool, if it is there. Each event of a frame has its own.
    pub(crate) sequence: Option<NonZeroU64>,
    /// Goes with it as a header. A frame has none.
    pub(crate) trace: Option<Rc<TraceParent>>,
}

/// Messages of one lane must be stored in the order in which they were handed over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Producer(Origin),
    /// Of packed frames, since each may hold events of many producers.
    Subject(Bytes),
}

impl Message {
    /// How many events of the ledger it is; none if it is a report.
    pub(crate) fn events(&self) -> usize {
        match (&self.packed, self.origin) {
            (Some(packed), _) => packed.events.len(),
            (None, _) => usize::from(!self.is_report()),
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        match &self.packed {
            Some(_) => Lane::Subject(self.route.subject.clone()),
            None => Lane::Producer(self.origin),
        }
    }

    /// Whether it has come out of a spool, or is in it too, so that another process may send it again.
    pub(crate) fn is_spooled(&self) -> bool {
        match &self.packed {
            Some(packed) => packed.events.iter().any(|event| event.sequence.is_some()),
            None => self.sequence.is_some(),
        }
    }

    /// What the server recognises it by.
    pub(crate) fn id(&self) -> MessageId {
        MessageId { origin: self.origin, seq: self.seq }
    }

    /// Whether it is a report of the bus about itself, which stands in no account.
    pub(crate) fn is_report(&self) -> bool {
        match self.origin {
            Origin::Bus => true,
            // Of the bus that has written the log.
            Origin::Log(_) => self.route.is_of_the_bus(),
            Origin::Ring(_) | Origin::Past(_) => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not sent yet, or to be sent again.
    Waiting,
    /// Sent, and no answer yet.
    Sent { at: Instant, deadline: Instant },
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
    pub(crate) state: State,
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

/// Why a message that waits may be stored all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// When the first attempt without an answer was made.
    pub(crate) since: Instant,
    /// All attempts without an answer bore the message's id, so the server recognises it if it is sent again in time.
    pub(crate) has_id: bool,
    /// It was looked for in the stream and is not there. It could only arrive late, from a connection that we have left.
    pub(crate) is_unfound: bool,
    /// All attempts without an answer were made in the connection that we have, so the server has read them before whatever it is asked now.
    is_here: bool,
    /// One of them was, and nobody has looked for the message since.
    is_on_its_way: bool,
}

impl Entry {
    /// Whether it was sent through the connection that we have, got no answer, and was not looked for since.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.is_in_doubt() && self.doubt.is_some_and(|doubt| doubt.is_on_its_way)
    }

    /// Whether the message may be stored as far as can be found out.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state == State::Waiting && self.doubt.is_some_and(|doubt| !doubt.is_unfound)
    }

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
    payloads: Payloads,
    /// Bytes of frames, which are not in `payloads`.
    frame_bytes: usize,
    /// Messages so far, not counting pieces.
    pushed: u64,
    /// Pieces in the window.
    pieces: usize,
    /// Where the first entry is that may be waiting; all before it are sent or settled.
    cursor: usize,
    /// Where the first entry is that is sent, if one is.
    sent_cursor: usize,
    /// Where the first entry may be that is an open event.
    event_cursor: usize,
    /// No entry from this number on was ever sent, or may be stored.
    tried_end: u64,
    /// Entries that are sent and not answered.
    outstanding: usize,
    /// Entries that are settled.
    settled: usize,
    /// Events of entries that are not settled.
    open_events: usize,
}

impl Window {
    /// Messages from the oldest open one to the newest.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all payloads that are kept: from the oldest open message to the newest, as the span.
    pub(crate) fn bytes(&self) -> usize {
        self.payloads.bytes() + self.frame_bytes
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
        self.entries.is_empty()
    }

    /// The oldest event that is not settled.
    pub(crate) fn oldest_event(&self) -> Option<&Message> {
        self.first_open_event().map(|entry| &entry.message)
    }

    fn first_open_event(&self) -> Option<&Entry> {
        self.entries.range(self.event_cursor.min(self.entries.len())..).find(|entry| entry.is_open_event())
    }

    /// Whether all events below `number` are settled.
    pub(crate) fn is_settled_below(&self, number: u64) -> bool {
        self.open_events == 0 || self.first_open_event().is_none_or(|entry| entry.number >= number)
    }

    /// Whether the message of this number, a report's too, is settled.
    pub(crate) fn is_settled(&self, number: u64) -> bool {
        number < self.base() || self.index(number).is_some_and(|index| self.entries[index].is_settled())
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
        self.entries.push_back(Entry {
            number,
            is_too_large: false,
            is_indivisible: false,
            cut_from: Vec::new(),
            needs_id: message.is_spooled(),
            message,
            place,
            state: State::Waiting,
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

    /// The message that was pushed last may have been sent by another process, and nobody can tell. Until then, if that is known, the server
    /// recognises it.
    pub(crate) fn doubt_last(&mut self, since: Instant, until: Option<Instant>) {
        if let Some(entry) = self.entries.back_mut() {
            self.tried_end = entry.number + 1;
            entry.doubt =
                Some(Doubt { since, has_id: true, is_unfound: true, is_here: false, is_on_its_way: false });
            entry.known_until = until;
        }
    }

    /// The open messages with events that are not in the spool, with their numbers, in order.
    pub(crate) fn unspooled(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let unspooled = self.entries.iter().filter(|entry| entry.is_unspooled());
        unspooled.map(|entry| (entry.number, entry))
    }

    /// From now on these are sent with their ids only.
    pub(crate) fn name_unspooled(&mut self) {
        self.entries.iter_mut().filter(|entry| entry.is_unspooled()).for_each(|entry| entry.needs_id = true);
    }

    /// The open reports of the bus that are not in the spool, with their numbers, in order.
    pub(crate) fn open_reports(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let is_unspooled = |entry: &Entry| entry.message.is_report() && entry.message.sequence.is_none();
        let open = self.entries.iter().filter(move |entry| !entry.is_settled() && is_unspooled(entry));
        open.map(|entry| (entry.number, entry))
    }

    /// The message of this number; or, if it was cut, the piece that has this one of its events, and which of the piece's it is.
    fn holder(&mut self, number: u64, index: usize) -> Option<(&mut Entry, usize)> {
        let from = self.entries.partition_point(|entry| entry.number < number);
        let parts = self.entries.range_mut(from..).take_while(|entry| entry.number / PARTS == number / PARTS);
        parts.into_iter().find_map(|entry| {
            if entry.number == number {
                return Some((entry, index));
            }
            let &(_, before) = entry.cut_from.iter().find(|(whole, _)| *whole == number)?;
            let index = index.checked_sub(before).filter(|&index| index < entry.message.events())?;
            Some((entry, index))
        })
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
        for entry in &mut self.entries {
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
            (None, None) => &[],
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
        self.entries.len() > self.outstanding + self.settled
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(self.index(number)?)
    }

    pub(crate) fn mark_sent(&mut self, number: u64, at: Instant, deadline: Instant, bears_id: bool) {
        let Some(at_index) = self.index(number) else { return };
        let entry = &mut self.entries[at_index];
        debug_assert_eq!(entry.state, State::Waiting);
        entry.state = State::Sent { at, deadline };
        entry.attempts += 1;
        entry.bears_id = bears_id;
        entry.doubt_before = entry.doubt;
        entry.refused = None;
        entry.is_denied = false;
        entry.message.route.sent.borrow_mut().push_back(number);
        self.sent_cursor = if self.outstanding == 0 { at_index } else { self.sent_cursor.min(at_index) };
        self.outstanding += 1;
        self.cursor = at_index + 1;
        self.tried_end = self.tried_end.max(number + 1);
    }

    /// When the first of the messages was sent that have no answer.
    pub(crate) fn oldest_sent_at(&self) -> Option<Instant> {
        match self.entries.get(self.sent_cursor)?.state {
            State::Sent { at, .. } => Some(at),
            State::Waiting | State::Settled => None,
        }
    }

    /// The message has its answer, or will have none.
    fn bring_back(&mut self, at: usize) {
        self.outstanding -= 1;
        let Some(Entry { number, message, .. }) = self.entries.get(at) else { return };
        let mut sent = message.route.sent.borrow_mut();
        // Answers come in the order of the messages, nearly always.
        if sent.front() == Some(number) {
            sent.pop_front();
        } else if let Some(place) = sent.iter().position(|sent| sent == number) {
            sent.remove(place);
        }
    }

    /// Moves the cursors on, over what is not of their kind any more.
    fn advance(&mut self) {
        while self.outstanding > 0
            && self
                .entries
                .get(self.sent_cursor)
                .is_some_and(|entry| !matches!(entry.state, State::Sent { .. }))
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

    /// The attempt ended without an answer, so the message waits again, and may be stored.
    pub(crate) fn mark_unanswered(&mut self, number: u64) {
        let Some(Entry { state: State::Sent { at, .. }, .. }) = self.get(number) else { return };
        let at = *at;
        if let Some(entry) = self.unsend(number) {
            let is_here = entry.doubt.is_none_or(|doubt| doubt.is_here);
            let before = entry.doubt.filter(|doubt| !doubt.is_unfound);
            let first = Doubt { since: at, has_id: true, is_unfound: false, is_here, is_on_its_way: true };
            let before = before.unwrap_or(first);
            let has_id = before.has_id && entry.bears_id;
            entry.doubt = Some(Doubt { has_id, is_on_its_way: true, ..before });
        }
    }

    /// It is known now that no attempt so far has stored the message. One that bore an id may still arrive; what a batch that is over
    /// had of it is refused then.
    pub(crate) fn mark_not_stored(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            let late = entry.doubt.filter(|doubt| doubt.has_id).or(entry.doubt_before);
            entry.doubt = late.map(|doubt| Doubt { is_unfound: true, is_on_its_way: false, ..doubt });
        }
    }

    /// The same of one that no attempt can store any more.
    pub(crate) fn mark_never_stored(&mut self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.doubt = None;
        }
    }

    /// Whether no attempt without an answer was made in an earlier connection.
    pub(crate) fn was_sent_only_here(&self, number: u64) -> bool {
        self.get(number).and_then(|entry| entry.doubt).is_none_or(|doubt| doubt.is_here)
    }

    /// The connection is another one from now on: what was sent may still arrive through the last one.
    pub(crate) fn leave_connection(&mut self) {
        for entry in &mut self.entries {
            for doubt in [&mut entry.doubt, &mut entry.doubt_before].into_iter().flatten() {
                doubt.is_here = false;
                doubt.is_on_its_way = false;
            }
        }
    }

    /// It is known now that the last attempt has not stored the message, so it waits again.
    pub(crate) fn mark_failed(&mut self, number: u64) {
        self.unsend(number);
        if let Some(entry) = self.entry(number) {
            entry.doubt = entry.doubt_before;
        }
    }

    /// The stream is another one from now on: what may be stored in the last one will never be known to be.
    pub(crate) fn leave_behind(&mut self) {
        for entry in &mut self.entries {
            let is_sent = matches!(entry.state, State::Sent { .. });
            entry.is_left_behind |= is_sent || entry.doubt.is_some();
        }
    }

    /// The message's fate is known; `stored` if the server acknowledged it, which counts also for one that is settled already.
    pub(crate) fn settle(&mut self, number: u64, stored: bool) -> Option<Settling> {
        let at_index = self.index(number)?;
        let entry = &mut self.entries[at_index];
        entry.stored |= stored;
        let sent_at = match entry.state {
            State::Settled => return None,
            State::Sent { at, .. } => Some(at),
            State::Waiting => None,
        };
        let settling = Settling {
            message: entry.message.clone(),
            maybe_stored: entry.doubt.is_some() || entry.is_left_behind || sent_at.is_some(),
            sent_at,
            was_sent_once: entry.attempts == 1,
        };
        entry.state = State::Settled;
        if sent_at.is_some() {
            self.bring_back(at_index);
        }
        self.settled += 1;
        self.open_events -= settling.message.events();
        while let Some(entry) = self.entries.front().filter(|entry| entry.is_settled()) {
            match (entry.place, &entry.message.packed) {
                (Some(place), _) => self.payloads.pop(place),
                (None, packed) => self.frame_bytes -= packed.as_ref().map_or(0, |packed| packed.bytes()),
            }
            let popped = self.entries.pop_front();
            self.pieces -= usize::from(popped.is_some_and(|entry| entry.is_piece()));
            self.settled -= 1;
            for cursor in [&mut self.cursor, &mut self.sent_cursor, &mut self.event_cursor] {
                *cursor = cursor.saturating_sub(1);
            }
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
        let (mut whole, mut listed) = (self.base().div_ceil(PARTS)..end.div_ceil(PARTS), Vec::new());
        if self.pieces > 0 {
            listed = self.entries.iter().map(|entry| entry.number).filter(|&number| number < end).collect();
            whole = 0..0;
        }
        whole.map(|place| place * PARTS).chain(listed)
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

    /// Puts pieces in the place of a frame that waits, if there are several; else it is known to be indivisible. What was tried with the frame was tried with them: it is not stored, and neither are
    /// they; what came too late to overtake it has not overtaken them.
    pub(crate) fn replace(&mut self, number: u64, pieces: Vec<Message>) {
        let Some(at) = self.index(number) else { return };
        let end = match self.entries.get(at + 1) {
            Some(next) if next.number / PARTS == number / PARTS => next.number,
            _ => (number / PARTS + 1) * PARTS,
        };
        let step = (end - number - 1) / pieces.len().max(1) as u64;
        if step == 0 || pieces.len() < 2 {
            self.entries[at].is_indivisible = true;
            return;
        }
        let Some(whole) = self.entries.remove(at) else { return };
        debug_assert_eq!(whole.state, State::Waiting);
        self.frame_bytes -= whole.message.packed.as_ref().map_or(0, |packed| packed.bytes());
        self.pieces -= usize::from(whole.is_piece());
        let (tried_end, shift) = (self.tried_end, pieces.len() - 1);
        let mut before = 0;
        for (index, message) in pieces.into_iter().enumerate() {
            self.frame_bytes += message.packed.as_ref().map_or(0, |packed| packed.bytes());
            self.pieces += 1;
            let skipped = whole.cut_from.iter().map(|&(number, skipped)| (number, skipped + before));
            let cut_from = skipped.chain([(number, before)]).collect();
            let number = number + 1 + index as u64 * step;
            if whole.number < tried_end {
                self.tried_end = self.tried_end.max(number + 1);
            }
            let piece =
                Entry { number, message, is_too_large: false, cut_from, refused: None, ..whole.clone() };
            before += piece.message.events();
            self.entries.insert(at + index, piece);
        }
        for cursor in [&mut self.cursor, &mut self.sent_cursor, &mut self.event_cursor] {
            if *cursor > at {
                *cursor += shift;
            }
        }
    }

    /// Whether no message is before this one.
    pub(crate) fn is_oldest(&self, number: u64) -> bool {
        self.base() == number
    }

    /// The number of the oldest message, or of the next if there is none.
    fn base(&self) -> u64 {
        self.entries.front().map_or_else(|| self.next_number(), |entry| entry.number)
    }

    fn unsend(&mut self, number: u64) -> Option<&mut Entry> {
        let sent = matches!(self.get(number)?.state, State::Sent { .. });
        if !sent {
            return None;
        }
        let at = self.index(number)?;
        self.bring_back(at);
        self.cursor = self.cursor.min(at);
        self.entries[at].state = State::Waiting;
        self.advance();
        self.entries.get_mut(at)
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let index = self.index(number)?;
        self.entries.get_mut(index)
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

#[cfg(test)]
impl Window {
    /// What is counted and pointed at is what a look through the window finds.
    pub(crate) fn check(&self) {
        let is_sent = |entry: &&Entry| matches!(entry.state, State::Sent { .. });
        assert_eq!(self.outstanding, self.entries.iter().filter(is_sent).count());
        assert_eq!(self.settled, self.entries.iter().filter(|entry| entry.is_settled()).count());
        assert_eq!(self.has_waiting(), self.entries.iter().any(|entry| entry.state == State::Waiting));
        let first_waiting = self.entries.iter().position(|entry| entry.state == State::Waiting);
        assert!(first_waiting.is_none_or(|first| self.cursor <= first));
        let oldest = self.entries.iter().find(is_sent).map(|entry| entry.number);
        assert_eq!(self.oldest_sent_at().is_some(), oldest.is_some());
        assert!(oldest.is_none() || oldest == self.entries.get(self.sent_cursor).map(|entry| entry.number));
        let event = self.entries.iter().find(|entry| entry.is_open_event()).map(|entry| entry.number);
        assert_eq!(self.first_open_event().map(|entry| entry.number), event);
        let mut last = None;
        for (at, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.index(entry.number), Some(at));
            assert!(last < Some(entry.number), "numbers rise");
            last = Some(entry.number);
            let is_on_its_way = entry.message.route.sent.borrow().contains(&entry.number);
            assert_eq!(is_on_its_way, is_sent(&entry), "{entry:?}");
            assert!(entry.number < self.tried_end || (entry.attempts == 0 && entry.doubt.is_none()));
        }
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
