//! What speaks against sending a message at all: it is too large, the stream does not take its subject, we may not publish to it,
//! or a later one of its producer is stored already.

use super::{Denial, Entry, Fate, Pipeline, State, StreamInfo};
use crate::ledger::Reason;
use crate::publisher::batch::Stage;
use crate::publisher::outgoing::Headers;
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::route::Route;
use crate::publisher::window::Lane;
use crate::subject;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What a stream needs for a message beside its subject, its headers and its payload (filestore.go, `fileStoreMsgSizeRaw`; one in memory
/// takes a little less).
const RECORD_BYTES: usize = 22 + 4 + 8;

/// How long it is believed which subjects a stream takes, before one event tries again.
const STREAM_FRESH: Duration = Duration::from_secs(10);

/// Subjects of a stream that a line of the log names.
const PATTERNS_TOLD: usize = 8;

impl Pipeline {
    /// The next message that waits and that nothing speaks against; those before it are dropped.
    pub(super) fn next_sendable(&mut self, now: Instant) -> Option<u64> {
        loop {
            let number = self.window.next_waiting()?;
            if self.ends_untold(now, number)
                || self.waits_parked(now, number)
                || self.cut_if_too_large(number)
            {
                continue;
            }
            match self.obstacle(now, number) {
                None => return Some(number),
                Some(reason) => self.refuse(now, number, reason),
            }
        }
    }

    /// Drops what was refused because the stream does not take its subject.
    pub(super) fn drop_uncovered(&mut self, now: Instant) {
        for number in self.window.tried() {
            let Some(entry) = self.window.get(number) else { continue };
            let refused = entry.refused == Some(Cause::NoStream) && !entry.is_settled();
            if refused && self.is_known_uncovered(now, &entry.message.route) {
                let route = Rc::clone(&entry.message.route);
                self.notice_uncovered(&route);
                self.refuse(now, number, Reason::NoStream);
            }
        }
    }

    /// Why a message to this subject must stay in the spool, if it must. Nothing that lies there is sent to find out whether it can be.
    pub(crate) fn keeps_in_spool(&self, route: &Route) -> Option<String> {
        let subject = || String::from_utf8_lossy(&route.subject).into_owned();
        // What a bus reports of itself is of no use to another stream.
        if self.discards_spooled || route.is_of_the_bus() {
            return None;
        }
        if let Some((stream, _)) = self.stream.as_ref().filter(|(stream, _)| self.is_uncovered(stream, route))
        {
            let patterns = &stream.subjects[..stream.subjects.len().min(PATTERNS_TOLD)];
            return Some(format!("takes {patterns:?}, not {:?}", subject()));
        }
        route.denial.get().map(|_| format!("may not be published to on {:?}", subject()))
    }

    /// Whether it was asked what the stream takes, and the stream is there, as far as anybody said.
    pub(crate) fn knows_its_stream(&self) -> bool {
        self.engine.is_some() && self.blocked != Some(Cause::NoStream)
    }

    /// From now on what came out of a spool is dropped if the stream does not take it.
    pub(crate) fn discard_spooled(&mut self) {
        self.discards_spooled = true;
    }

    /// Whether the stream was asked a short while ago, and does not take this subject.
    pub(super) fn is_known_uncovered(&self, now: Instant, route: &Route) -> bool {
        let Some((stream, asked_at)) = &self.stream else { return false };
        now < *asked_at + STREAM_FRESH && self.is_uncovered(stream, route)
    }

    /// Whether the stream did not take this subject when we last looked at it.
    fn is_uncovered(&self, stream: &StreamInfo, route: &Route) -> bool {
        // The subjects are the same until the next look, so each is held against the patterns once.
        let (look, is_covered) = route.coverage.get();
        if look == self.looks {
            return !is_covered;
        }
        let subject = String::from_utf8_lossy(&route.subject);
        let is_covered = stream.subjects.iter().any(|pattern| subject::covers(pattern, &subject));
        route.coverage.set((self.looks, is_covered));
        !is_covered
    }

    fn notice_uncovered(&mut self, route: &Route) {
        let Self { notices, stream, .. } = self;
        notices.refused(Reason::NoStream, || {
            let patterns = stream.as_ref().map_or(&[][..], |(stream, _)| &stream.subjects);
            let told = &patterns[..patterns.len().min(PATTERNS_TOLD)];
            let others = match patterns.len() - told.len() {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            format!("the stream takes {told:?}{others}, not {:?}", String::from_utf8_lossy(&route.subject))
        });
    }

    /// What speaks against sending this message at all.
    pub(super) fn obstacle(&mut self, now: Instant, number: u64) -> Option<Reason> {
        let entry = self.window.get(number)?;
        let (len, route) = (self.window.payload_of(entry).len(), &entry.message.route);
        let events = entry.message.packed.as_ref().map(|packed| packed.events.len());
        // The stream's own limit is left to the stream: it can change at any time, and says so in its answer.
        let max = self.server.map_or(usize::MAX, |server| server.max_payload);
        // The headers are measured only if it may come to that.
        if len + Headers::BYTES_MAX > max && len + Headers::of(&entry.message).bytes(&self.names) > max {
            self.notices.refused(Reason::TooLarge, || {
                let what = events
                    .map_or_else(|| "an event".to_owned(), |events| format!("a frame of {events} events"));
                format!("{what} in {len} bytes; the server takes {max} with headers")
            });
            return Some(Reason::TooLarge);
        }
        // What may still arrive through an earlier connection is sent in any case: what we believe of the server may have changed, and if it
        // takes that copy it must know the id by then.
        let may_arrive_late = !self.window.was_sent_only_here(number);
        if !may_arrive_late && self.is_known_uncovered(now, route) {
            let route = Rc::clone(route);
            self.notice_uncovered(&route);
            return Some(Reason::NoStream);
        }
        route.denial.get()?;
        if !may_arrive_late && Denial::is_believed(now, route) {
            let subject = &route.subject;
            self.notices.refused(Reason::Permission, || {
                format!("not permitted to publish to {:?}", String::from_utf8_lossy(subject))
            });
            return Some(Reason::Permission);
        }
        Denial::try_again(now, route);
        None
    }

    /// Drops what is not stored while a later message of the same producer (of frames: the same subject) is, or may be. What may be
    /// stored while a later one is, is not sent again either, but indeterminate.
    pub(super) fn drop_overtaken(&mut self, now: Instant) {
        // Lanes of which a later message is, or may be, stored, and whether one is for certain.
        let mut overtaking: HashMap<Lane, bool> = HashMap::new();
        for number in self.window.tried().rev() {
            let Some(entry) = self.window.get(number).filter(|entry| !entry.message.is_report()) else {
                // Reports may stand behind one another; each says what it says by itself.
                continue;
            };
            let lane = entry.message.lane();
            let has_passed = self.lot.is_overtaken(&lane, number);
            if is_known_unstored(entry) && (has_passed || overtaking.contains_key(&lane)) {
                // What came behind it in the same connection has arrived, so it will not. An earlier attempt may, through another,
                // or have been stored by another stream.
                let is_certain = entry.attempts == 1 && !entry.is_left_behind;
                self.drop_one_overtaken(now, number, is_certain);
            } else if entry.is_in_doubt() && (has_passed || overtaking.get(&lane) == Some(&true)) {
                self.notices.undecided();
                self.conclude(now, number, false, |_| Fate::Indeterminate);
            } else if entry.stored || entry.is_in_doubt() {
                *overtaking.entry(lane).or_default() |= entry.stored;
            }
        }
    }

    /// The server refuses a message. Returns what everybody has to wait for before it is sent again, if that is so.
    pub(super) fn refuse_for_now(
        &mut self,
        now: Instant,
        number: u64,
        verdict: Verdict,
        text: &str,
    ) -> Option<Cause> {
        let (cause, is_certain) = match verdict {
            Verdict::Final(reason) => return self.refuse_for_good(now, number, reason, text),
            // There will be room for others, and never for this one.
            Verdict::Retry(Cause::StreamFull) if self.never_fits(number) => {
                return self.refuse_for_good(now, number, Reason::TooLarge, text);
            }
            Verdict::Retry(Cause::NoStream) if self.is_parked_unheard(number) => (Cause::NoStream, false),
            Verdict::Retry(cause) => {
                self.notice_retry(cause, 1, text);
                self.window.mark_refused(number, Some(cause));
                return Some(cause);
            }
            Verdict::Park(cause) => (cause, true),
            Verdict::Unknown => (Cause::Unavailable, false),
        };
        self.notice_retry(cause, 1, text);
        self.window.mark_refused(number, Some(cause));
        self.park(now, number, cause, is_certain)
    }

    fn refuse_for_good(&mut self, now: Instant, number: u64, reason: Reason, text: &str) -> Option<Cause> {
        self.notices.refused(reason, || text.to_owned());
        self.window.mark_refused(number, None);
        self.refuse(now, number, reason);
        None
    }

    /// Whether an empty stream would have no room for it.
    fn never_fits(&self, number: u64) -> bool {
        let Some((stream, _)) = &self.stream else { return false };
        let Some(entry) = self.window.get(number) else { return false };
        let len = entry.message.route.subject.len() + self.bytes_of(entry);
        stream.bytes_max.is_some_and(|max| len + RECORD_BYTES > max)
    }

    /// Whether this verdict speaks of the size of a frame that could be cut.
    pub(super) fn is_refused_for_size(&self, number: u64, verdict: Verdict) -> bool {
        let is_of_its_size = match verdict {
            Verdict::Final(Reason::TooLarge) => true,
            Verdict::Retry(Cause::StreamFull) => self.never_fits(number),
            Verdict::Retry(_) | Verdict::Park(_) | Verdict::Unknown | Verdict::Final(_) => false,
        };
        is_of_its_size && self.is_divisible(number)
    }

    /// Another process may have sent this message, so long ago that nobody can tell any more: it ends here.
    pub(super) fn ends_untold(&mut self, now: Instant, number: u64) -> bool {
        let is_untold = self.window.get(number).is_some_and(|entry| entry.is_beyond_telling(now));
        if is_untold {
            self.notices.undecided();
            self.conclude(now, number, false, |_| Fate::Indeterminate);
        }
        is_untold
    }

    /// The connection ends. Drops what was refused in it while a later message of the same lane was on its way: that one may arrive after
    /// all, at any time, and so before a second copy of the first. In a batch it cannot: nothing is stored behind what was refused.
    pub(super) fn drop_overtaken_on_the_way(&mut self, now: Instant) {
        // A message that may begin a batch by itself is no part of one yet.
        let batch = self.batch.as_ref().filter(|batch| batch.stage() != Stage::Starting);
        let in_batch: HashSet<u64> =
            batch.map(|batch| batch.in_flight().iter().copied().collect()).unwrap_or_default();
        let mut overtaking: HashSet<Lane> = HashSet::new();
        for number in self.window.tried().rev() {
            let Some(entry) = self.window.get(number).filter(|entry| !entry.message.is_report()) else {
                continue;
            };
            if entry.is_on_its_way() && !in_batch.contains(&number) {
                overtaking.insert(entry.message.lane());
            } else if (entry.refused.is_some() || entry.state == State::Parked)
                && !entry.is_in_doubt()
                && overtaking.contains(&entry.message.lane())
            {
                self.drop_one_overtaken(now, number, false);
            }
        }
    }

    pub(super) fn drop_one_overtaken(&mut self, now: Instant, number: u64, is_certain: bool) {
        let Some(entry) = self.window.get(number) else { return };
        let no_stream = entry.refused == Some(Cause::NoStream);
        let reason = if no_stream { Reason::NoStream } else { Reason::Rejected };
        let why = "not stored while a later event of its producer was, or may be";
        self.notices.refused(reason, || why.to_owned());
        match is_certain {
            true => self.conclude(now, number, false, |_| Fate::Dropped(reason)),
            false => self.refuse(now, number, reason),
        }
    }
}

/// It is parked, or it was sent and the last that is known is that it was not taken.
fn is_known_unstored(entry: &Entry) -> bool {
    let is_refused = entry.attempts > 0 && (entry.refused.is_some() || !entry.is_in_doubt());
    entry.state == State::Parked || (entry.state == State::Waiting && is_refused)
}
