//! Reading the stream back, where only it can tell what is stored.
//!
//! A server that has restarted knows nothing of a batch that it had begun. A refusal can be lost with the connection that bore it. A
//! message id is remembered for two minutes, and an outage can last an hour. In all these cases the stream itself knows: the messages
//! between the last sequence that we know of and its end are read, and what is in doubt is looked for by its subject and its
//! bytes, in the order of the stream. (Envelopes bear producer and number, so no two are equal. Without stamps two events may be,
//! and then it does not matter which of them is which.)
//!
//! What is found is acked. What is not found is not stored, if every sequence was there to be read; then it is sent again. Where
//! messages were removed in between, by a limit, a consumer or a purge, or where the stream cannot be read, nothing follows from not
//! finding one: it is sent again if the server still knows its id and no later event of its producer is known to be stored, and else it is
//! indeterminate. So it is with what an older stream may have stored, when the stream was made again.
//!
//! A look or a read without an answer says nothing, and is repeated for as long as it takes. Only the server's word that we may not ask is a refusal.
//!
//! A look at the stream does not wait for what its leader has taken and not yet brought to a quorum. So with anything in doubt the first
//! look of a connection is followed by a second one, [`SETTLING`] later, and only what is stored by then counts.

use super::{Entry, Fate, Link, LinkAction, Notice, Pipeline};
use crate::frame;
use crate::ledger::Reason;
use crate::publisher::batch::Stage;
use crate::publisher::retry::Cause;
use crate::publisher::window::Doubt;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Messages that are read at once.
pub(crate) const READ_PAGE: u64 = 256;

/// Messages that are read at most. In a stream of our own it is the window that bounds them; others may have written meanwhile.
const READ_MAX: u64 = 1 << 20;

/// How long before a look what was sent before it must have come into the stream. A look does not wait for what the leader has taken and
/// not yet brought to a quorum; and a batch may count as stored what is only on its way.
///
/// A leader that has no quorum for longer than that is what this cannot see.
pub(crate) const SETTLING: Duration = Duration::from_millis(250);

/// How long a server knows message ids, if it has not said so.
pub(crate) const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The answer to a [`LinkAction::Read`].
#[derive(Debug)]
pub(crate) enum Read {
    /// All that the stream has between the two sequences.
    Page {
        messages: Vec<StoredMessage>,
        /// Sequences without a message.
        holes: u64,
    },
    /// No answer came, or none that says anything of the messages.
    Failed,
    /// The server said that we may not read.
    Denied,
}

/// A message of the stream.
#[derive(Debug)]
pub(crate) struct StoredMessage {
    pub(crate) subject: Bytes,
    pub(crate) payload: Bytes,
    /// Those by which a packed frame is known; none if it is none.
    pub(crate) frame_headers: Vec<(&'static str, String)>,
}

impl StoredMessage {
    /// Takes it apart: it is one event, unless it is a frame.
    pub(crate) fn each_event(&self, mut each: impl FnMut(&[u8])) {
        let header = |name: &str| {
            self.frame_headers.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
        };
        match frame::unpack(header, &self.payload) {
            Ok(frame) => frame.iter().for_each(each),
            Err(_) => each(&self.payload),
        }
    }
}

/// The progress of reading a stream back.
#[derive(Debug)]
pub(super) struct Reading {
    next: u64,
    last: u64,
    /// The end of the page that was asked for.
    asked_to: Option<u64>,
    /// Not every message of the range can be seen.
    has_holes: bool,
    /// What is looked for: messages in doubt, in order, by a hash of subject and payload.
    wanted: HashMap<u64, VecDeque<u64>>,
    missing: usize,
    found: HashSet<u64>,
}

impl Reading {
    pub(super) fn poll(&mut self) -> Option<LinkAction> {
        if self.asked_to.is_some() || self.is_over() {
            return None;
        }
        let to = self.last.min(self.next.saturating_add(READ_PAGE - 1));
        self.asked_to = Some(to);
        Some(LinkAction::Read { from: self.next, to })
    }

    fn is_over(&self) -> bool {
        self.next > self.last || self.missing == 0
    }
}

impl Pipeline {
    pub(crate) fn handle_read(&mut self, now: Instant, read: Read) {
        let Some(reading) = self.reading.as_mut().filter(|_| self.link == Link::Reading) else { return };
        let Some(to) = reading.asked_to.take() else { return };
        let Read::Page { messages, holes } = read else {
            self.reading = None;
            self.may_not_read = matches!(read, Read::Denied);
            return self.wait(now, true);
        };
        self.patience.hear(now);
        reading.next = to + 1;
        reading.has_holes |= holes > 0;
        for message in &messages {
            self.look_for(message);
        }
        self.leave_reading(now);
    }

    /// Whether the stream must be read before anything is sent again.
    pub(super) fn needs_reading(&self, now: Instant) -> bool {
        if self.batch.as_ref().is_some_and(|batch| batch.stage() == Stage::Forgotten) {
            return true;
        }
        let is_sent = |number| self.window.get(number).is_some_and(|entry| entry.attempts > 0);
        let sent = self.window.tried().filter(|&number| is_sent(number)).take(2).count();
        // A single message is recognised by its id. Of several, one may have been refused and a later one stored.
        self.has_unrecognised(now)
            || (sent > 1 && self.is_in_doubt())
            || self.has_denied(now)
            || self.has_refused()
            || self.doubts().any(|number| self.must_be_cut(number))
    }

    /// Whether one of the messages in doubt would not even be looked at by the stream.
    fn has_denied(&self, now: Instant) -> bool {
        self.doubts().any(|number| self.is_denied(now, number))
    }

    /// Whether one of the messages in doubt was refused when it was sent again. An id does not help against that.
    fn has_refused(&self) -> bool {
        self.doubts().any(|number| self.window.get(number).is_some_and(|entry| entry.refused.is_some()))
    }

    /// Whether the server would not recognise one of the messages in doubt.
    fn has_unrecognised(&self, now: Instant) -> bool {
        let doubt = |number| self.window.get(number)?.doubt;
        self.doubts().filter_map(doubt).any(|doubt| !self.is_recognised(now, doubt))
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubts().next().is_some()
    }

    /// Waits for what is in doubt to come into the stream, if it is on its way there; returns false if it had the time.
    pub(super) fn waits_to_settle(&mut self, now: Instant) -> bool {
        if !self.is_fresh || !self.is_in_doubt() {
            return false;
        }
        let until = *self.doubted_at.get_or_insert(now) + SETTLING;
        if now < until {
            self.link = Link::Waiting { until, then_look: true };
            return true;
        }
        false
    }

    /// Begins to read, or to wait until it can; returns false if it cannot, and what was in doubt has been judged.
    pub(super) fn begin_reading(&mut self, now: Instant) -> bool {
        if self.may_not_read || self.may_not_look {
            self.judge_unread(now);
            return false;
        }
        let Some((stream, _)) = self.stream.as_ref().filter(|_| self.is_fresh) else {
            self.wait(now, true);
            return true;
        };
        // The first message of a batch may be one that was stored before; all others came after what we know.
        let batch = self.batch.as_ref().filter(|batch| !batch.is_left_behind());
        let acked = batch.map_or(0, |batch| batch.acked().saturating_sub(1));
        let from = self.floor.saturating_add(acked);
        let from = self.lot.floor().map_or(from, |floor| floor.min(from)).saturating_add(1);
        let mut reading = Reading {
            next: from.max(stream.first_sequence),
            // So that there is a number behind it, whatever the server says.
            last: stream.last_sequence.min(u64::MAX - 1),
            asked_to: None,
            has_holes: from < stream.first_sequence,
            wanted: HashMap::new(),
            missing: 0,
            found: HashSet::new(),
        };
        if reading.last.saturating_sub(reading.next) > READ_MAX {
            self.judge_unread(now);
            return false;
        }
        for number in self.doubts() {
            let Some(entry) = self.window.get(number) else { continue };
            let hash = hash(&entry.message.route.subject, self.window.payload_of(entry));
            reading.wanted.entry(hash).or_default().push_back(number);
            reading.missing += 1;
        }
        self.notices.push(Notice::ReadBack { messages: reading.missing as u64 });
        self.reading = Some(reading);
        self.link = Link::Reading;
        self.leave_reading(now);
        true
    }

    /// Messages that may be stored, in order.
    fn doubts(&self) -> impl Iterator<Item = u64> + '_ {
        self.window.tried().filter(|&number| self.is_doubtful(number))
    }

    fn is_doubtful(&self, number: u64) -> bool {
        self.window.get(number).is_some_and(Entry::is_in_doubt)
    }

    fn look_for(&mut self, message: &StoredMessage) {
        let Some(reading) = &mut self.reading else { return };
        let Some(numbers) = reading.wanted.get_mut(&hash(&message.subject, &message.payload)) else { return };
        let is_it = |number: &u64| {
            self.window.get(*number).is_some_and(|entry| {
                entry.message.route.subject == message.subject
                    && self.window.payload_of(entry) == message.payload
            })
        };
        let Some(index) = numbers.iter().position(is_it) else { return };
        if let Some(number) = numbers.remove(index) {
            reading.missing -= 1;
            reading.found.insert(number);
        }
    }

    /// When all is read: settles what was found, and judges the rest.
    fn leave_reading(&mut self, now: Instant) {
        let Some(reading) = self.reading.take_if(|reading| reading.is_over()) else { return };
        let Reading { mut found, has_holes, last, .. } = reading;
        // Whatever is open after this was not stored up to here.
        self.raise_floor(last);
        if let Some(batch) = self.batch.take() {
            // A batch is stored up to a place, so what stands before a message that is stored is stored too.
            let in_flight = batch.in_flight();
            let last = in_flight.iter().rposition(|number| found.contains(number));
            let stored = last.map_or(0, |last| last + 1);
            found.extend(in_flight.iter().take(stored));
            let lost = (in_flight.len() - stored) as u64;
            // Those of a connection that is gone were counted when it went.
            if lost > 0 && batch.is_here() {
                let cause = self.blocked.unwrap_or(Cause::Unavailable);
                self.notice_retry(cause, lost, "the batch was forgotten before them");
            }
        }
        for number in self.window.tried() {
            if !self.is_doubtful(number) {
                continue;
            }
            if found.contains(&number) {
                self.acked(now, number, false);
            } else if has_holes {
                self.judge(now, number);
            } else if self.is_denied(now, number) && self.window.was_sent_only_here(number) {
                // The server has read it, or it could not have answered the look.
                self.window.mark_never_stored(number);
                self.refuse(now, number, Reason::Permission);
            } else {
                self.window.mark_not_stored(number);
            }
        }
        self.go_on(now);
    }

    /// The stream cannot be read, so the doubts stay.
    fn judge_unread(&mut self, now: Instant) {
        self.batch = None;
        for number in self.window.tried() {
            if self.is_doubtful(number) {
                self.judge(now, number);
            }
        }
    }

    /// Nobody can tell whether this message is stored. It is sent again if the server still recognises it, and takes it.
    fn judge(&mut self, now: Instant, number: u64) {
        let doubt = self.window.get(number).and_then(|entry| entry.doubt);
        let is_denied = self.is_denied(now, number) && self.window.was_sent_only_here(number);
        // In pieces it would not be recognised.
        let is_cut = self.must_be_cut(number);
        // To be sent again would not help it, and would hold up the others.
        let is_refused = |entry: &Entry| entry.refused.is_some() && self.is_held(entry);
        let is_refused = self.window.get(number).is_some_and(is_refused);
        let is_unrecognised = doubt.is_some_and(|doubt| !self.is_recognised(now, doubt));
        if is_unrecognised || is_denied || is_cut || is_refused {
            self.notices.undecided();
            self.conclude(now, number, false, |_| Fate::Indeterminate);
        }
    }

    /// Whether the server knows the message by its id, if it is stored.
    fn is_recognised(&self, now: Instant, doubt: Doubt) -> bool {
        let window = self.stream.as_ref().map_or(DUPLICATE_WINDOW, |(stream, _)| stream.duplicate_window);
        // The rest is for the way back to the stream.
        doubt.has_id && now < doubt.since + window * 3 / 4
    }
}

fn hash(subject: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (subject, payload).hash(&mut hasher);
    hasher.finish()
}
