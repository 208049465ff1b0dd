//! Whose records are missing in the log, as those around them tell.
//!
//! ```text
//!   log      P7  Q3  P8  ▒▒  Q5  P9  ▒▒  P11          missing: Q4, P10
//! ```
//!
//! Each producer numbers its events, and its records stand in the log in that order. So where a record is missing a number is missing too, between
//! the last record of its producer before it and the first one behind it. The last number of a producer is also in the last report of its bus, which
//! stands behind all events of a log that was closed.
//!
//! **Other numbers are missing there too**: those of events that were refused, or were sent without the log. Where more numbers are missing than
//! records, nobody can tell which of them were in the log. Then the gap goes from the first to the last of them, and counts as many as the log
//! can have lost. With several producers the sum may be too high. A count that is too high excuses a number that is there, which
//! changes nothing; one that is too low leaves a loss undeclared.
//!
//! **The record itself** is a better witness if it can still be read: it has a kind that we do not know, or a few flipped bits. We believe a
//! damaged one if its producer is known from elsewhere, and its number is missing or follows the last one.
//!
//! **Frames.** A record of a `file:` directory may be a packed frame, and a missing one does not say how many events it had. So all numbers
//! that are missing there are declared.
//!
//! **Order.** The window's packed frames come to the log subject by subject, so a number may come late, and fills its hole then. This is why a loss is
//! told [`SETTLING`] records behind the last missing one, or at the end of the log.

use super::handout::unpack;
use super::identity::Identity;
use super::losses::{Losses, Lost};
use crate::envelope::Envelope;
use crate::publisher::window::Origin;
use crate::report::Stopped;
use crate::spool::cursor::Stored;
use std::collections::HashMap;

/// Records behind the last one that is missing before it is told whose are: more than a window has of any producer's packed events.
const SETTLING: u64 = 16 << 10;

/// Producers that are told apart. Losses of more are counted, and not declared.
const PRODUCERS_MAX: usize = 1024;

/// Holes of a producer that may be filled yet, the newest ones: two frames that take turns make one with each event.
const HOLES_MAX: usize = 1024;

/// Missing records whose words are remembered, and the bytes that the subject of one may have.
const REMAINS_MAX: usize = 4096;
const SUBJECT_BYTES_MAX: usize = 1 << 10;

/// Sees all records of a log in their order, and what is missing between them.
#[derive(Debug, Default)]
pub(super) struct Witness {
    producers: HashMap<Origin, Numbers>,
    /// All records below were seen.
    next: u64,
    /// Records that are missing and not told yet.
    missing: u64,
    /// What these say.
    remains: Vec<Remains>,
    /// Records that were seen since.
    since: u64,
    /// Counts the places at which something was missing.
    place: u64,
    /// Some number has come late.
    is_mixed: bool,
    /// Records are frames, and nobody knows how many events were in one that is missing.
    has_frames: bool,
}

/// What a record says that cannot be used.
#[derive(Debug)]
struct Remains {
    origin: Origin,
    seq: u64,
    subject: Box<[u8]>,
}

/// The numbers of one producer, as far as the log goes.
#[derive(Debug, Default)]
struct Numbers {
    /// The highest one.
    last: u64,
    /// What is missing below, as first and last number, in rising order. Of each whether it may belong to what is missing in the log.
    holes: Vec<(u64, u64, bool)>,
    /// The place behind which the next hole is.
    place: u64,
}

impl Witness {
    /// A record that is there. One that was seen already changes nothing.
    pub(super) fn see(&mut self, identity: &Identity, record: &Stored<'_>) {
        if record.sequence < self.next {
            return;
        }
        self.next = record.sequence + 1;
        self.since += 1;
        if let Some((origin, seq)) = identity.read(record.headers) {
            return self.take(identity, origin, seq, record.payload);
        }
        // In a `file:` directory it is the events that say so.
        let frame = unpack(record.headers, record.payload);
        self.has_frames |= frame.is_packed();
        for event in &frame {
            if let Some((origin, seq)) = identity.stamped(event) {
                self.take(identity, origin, seq, event);
            }
        }
    }

    fn take(&mut self, identity: &Identity, origin: Origin, seq: u64, event: &[u8]) {
        match origin {
            Origin::Past(past) if past.is_bus() => self.heed(identity, event),
            _ => self.number(origin, seq),
        }
    }

    /// A bus that has stopped says which numbers it gave out.
    fn heed(&mut self, identity: &Identity, report: &[u8]) {
        let Ok(envelope) = Envelope::parse(report) else { return };
        let Ok(stopped) = serde_json::from_str::<Stopped>(envelope.body.get()) else { return };
        for (ring, &last) in stopped.last.iter().enumerate().filter(|(_, last)| **last > 0) {
            let name = format!("{}.{ring}", stopped.process);
            if let Some(origin) = identity.origin_of(&name) {
                self.number(origin, last.saturating_add(1));
            }
        }
    }

    fn number(&mut self, origin: Origin, seq: u64) {
        if self.producers.len() < PRODUCERS_MAX || self.producers.contains_key(&origin) {
            let (place, is_open) = (self.place, self.missing > 0);
            self.is_mixed |= self.producers.entry(origin).or_default().see(seq, place, is_open);
        }
    }

    /// So many records are missing before `next`.
    pub(super) fn miss(&mut self, records: u64, next: u64) {
        self.next = self.next.max(next);
        if records > 0 {
            self.missing += records;
            self.place += 1;
            self.since = 0;
        }
    }

    /// What a record says that is missing: it comes before [`miss`](Self::miss).
    pub(super) fn note_remains(&mut self, identity: &Identity, subject: &[u8], headers: &[u8]) {
        if self.remains.len() < REMAINS_MAX
            && subject.len() <= SUBJECT_BYTES_MAX
            && let Some((origin, seq)) = identity.read(headers)
        {
            self.remains.push(Remains { origin, seq, subject: subject.into() });
        }
    }

    /// Whether anything is missing that is not told yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.missing > 0
    }

    /// Whether it can be told now whose that was.
    pub(super) fn has_settled(&self) -> bool {
        self.missing > 0 && self.since >= SETTLING
    }

    /// Tells whose records are missing, as far as it is known. Returns of how many it is not.
    pub(super) fn tell(&mut self, losses: &mut Losses) -> u64 {
        let mut missing = std::mem::take(&mut self.missing);
        let remains = std::mem::take(&mut self.remains);
        for one in &remains {
            if missing > 0 && self.believes(one, &remains, missing) {
                losses.attribute(&one.subject, one.origin, Lost { range: (one.seq, one.seq), events: 1 });
                missing -= 1;
            }
        }
        let mut told = 0;
        for (&origin, numbers) in &mut self.producers {
            // Where numbers come late, one may be missing before its place.
            let holes = numbers.take_holes(self.is_mixed && missing > 0);
            if let Some((first, last, count)) = holes.filter(|_| missing > 0) {
                let events = if self.has_frames { count } else { count.min(missing) };
                losses.attribute(b"", origin, Lost { range: (first, last), events });
                told = u64::saturating_add(told, events);
            }
        }
        missing.saturating_sub(told)
    }

    /// Whether a record that is missing is the one that it says to be. Then it is no hole any more.
    fn believes(&mut self, one: &Remains, all: &[Remains], missing: u64) -> bool {
        // Reports of a bus are counted like events, and are no event's number.
        if let Origin::Past(bus) = one.origin
            && bus.is_bus()
        {
            let is_kin =
                |known: &Origin| matches!(known, Origin::Past(past) if past.is_of_the_process_of(bus));
            return self.producers.keys().any(is_kin);
        }
        let is_named_twice = || all.iter().filter(|other| other.origin == one.origin).nth(1).is_some();
        if !self.producers.contains_key(&one.origin) && !is_named_twice() {
            return false;
        }
        let place = self.place;
        let numbers = self.producers.entry(one.origin).or_default();
        if one.seq <= numbers.last {
            return numbers.fill(one.seq);
        }
        let is_near = numbers.last == 0 || one.seq - numbers.last <= missing;
        if is_near {
            numbers.see(one.seq, place, true);
        }
        is_near
    }
}

impl Numbers {
    /// Returns whether it comes late.
    fn see(&mut self, seq: u64, place: u64, is_open: bool) -> bool {
        if seq <= self.last {
            self.fill(seq);
            return true;
        }
        let (first, last) = (self.last.saturating_add(1), seq - 1);
        if first <= last {
            // Only the first hole behind a place can be of what is missing there.
            self.holes.push((first, last, is_open && self.place < place));
            self.keep_few_holes();
        }
        (self.last, self.place) = (seq, place);
        false
    }

    /// Forgets the oldest hole if they become too many. One that may be of the log becomes one with the next.
    fn keep_few_holes(&mut self) {
        if self.holes.len() <= HOLES_MAX {
            return;
        }
        let (first, _, is_of_log) = self.holes.remove(0);
        if is_of_log {
            let (_, last, _) = self.holes[0];
            self.holes[0] = (first, last, true);
        }
    }

    /// A number is there after all. Returns whether it was missing.
    fn fill(&mut self, seq: u64) -> bool {
        let at = self.holes.partition_point(|&(_, last, _)| last < seq);
        if self.holes.get(at).is_none_or(|&(first, ..)| first > seq) {
            return false;
        }
        let (first, last, is_of_log) = self.holes.remove(at);
        let before = (first < seq).then(|| (first, seq - 1, is_of_log));
        let behind = (seq < last).then(|| (seq + 1, last, is_of_log));
        let left = before.into_iter().chain(behind);
        self.holes.splice(at..at, left);
        true
    }

    /// First and last number that may belong to what is missing, or of all holes, and how many there are.
    fn take_holes(&mut self, takes_all: bool) -> Option<(u64, u64, u64)> {
        let mut taken = None;
        self.holes.retain(|&(first, last, is_of_log)| {
            let is_taken = is_of_log || takes_all;
            if is_taken {
                let (from, _, count) = taken.unwrap_or((first, last, 0u64));
                taken = Some((from, last, count.saturating_add(last - first + 1)));
            }
            !is_taken
        });
        taken
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::publisher::stamp::ProducerNames;
    use crate::publisher::window::Past;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const PROCESS: &str = "00000000000000fe";

    fn identity() -> Identity {
        Identity::new(ProducerNames::new(0xff, 1))
    }

    fn origin(ring: u64) -> Origin {
        Origin::Past(Past::parse(&format!("{PROCESS}.{ring}")).unwrap())
    }

    fn headers(ring: u64, seq: u64) -> Vec<u8> {
        format!("Nats-Msg-Id: {PROCESS}.{ring}-{seq}\r\n").into_bytes()
    }

    fn record<'a>(sequence: u64, headers: &'a [u8], payload: &'a [u8]) -> Stored<'a> {
        Stored { sequence, subject: b"event.1.a", headers, payload, is_known: true }
    }

    fn stopped(last: &[u64]) -> Vec<u8> {
        let stats = serde_json::to_string(&crate::ledger::Stats::default()).unwrap();
        let body = format!(r#"{{"process":"{PROCESS}","last":{last:?},"ledger":{stats}}}"#);
        format!(r#"{{"version":"v1","timestamp":"2026-07-06T14:56:50Z","producer":"{PROCESS}.bus","seq":1,"body":{body}}}"#)
            .into_bytes()
    }

    /// What becomes of an event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fate {
        Kept,
        /// It is missing in the log, and nothing of it can be read.
        Lost,
        /// It is missing, but what it says can be read.
        Legible,
        /// It never came to the log.
        Refused,
    }

    #[derive(Clone, Debug)]
    struct Script {
        events: Vec<(u64, Fate)>,
        has_stopped: bool,
        /// Frames of two names: events of each come one behind the other, this many at a time.
        mixing: usize,
    }

    fn script(refusals: bool) -> impl Strategy<Value = Script> {
        let fate = prop_oneof![
            20 => Just(Fate::Kept),
            2 => Just(Fate::Lost),
            1 => Just(Fate::Legible),
            (if refusals { 2 } else { 0 }) => Just(Fate::Refused),
        ];
        let runs = (0..3u64, fate, 1..6usize);
        let events = prop::collection::vec(runs, 1..80).prop_map(|runs| {
            runs.into_iter()
                .flat_map(|(ring, fate, count)| std::iter::repeat_n((ring, fate), count))
                .collect()
        });
        (events, any::<bool>(), prop_oneof![3 => Just(1usize), 1 => 2..20usize])
            .prop_map(|(events, has_stopped, mixing)| Script { events, has_stopped, mixing })
    }

    /// Numbers of each ring that are declared as lost: first, last, and how many.
    type Declared = Vec<(u64, u64, u64, u64)>;

    /// Plays a script. Returns what was lost, what was declared, how many are missing, and of how many it was said that nobody knows.
    fn play(script: &Script) -> (BTreeSet<(u64, u64)>, Declared, u64, u64) {
        let (identity, mut witness, mut last) = (identity(), Witness::default(), [0; 3]);
        let mut numbered: Vec<_> = script
            .events
            .iter()
            .map(|&(ring, fate)| {
                last[ring as usize] += 1;
                (ring, last[ring as usize], fate)
            })
            .collect();
        if script.mixing > 1 {
            for frames in numbered.chunks_mut(script.mixing) {
                frames.sort_by_key(|&(_, seq, _)| (seq % 2, seq));
            }
        }
        // That numbers come late is known.
        witness.is_mixed = script.mixing > 1;
        let (mut lost, mut missing, mut sequence) = (BTreeSet::new(), 0, 1);
        for (ring, seq, fate) in numbered {
            match fate {
                Fate::Refused => continue,
                Fate::Kept => witness.see(&identity, &record(sequence, &headers(ring, seq), b"{}")),
                Fate::Lost | Fate::Legible => {
                    if fate == Fate::Legible {
                        witness.note_remains(&identity, b"event.1.a", &headers(ring, seq));
                    }
                    witness.miss(1, sequence + 1);
                    lost.insert((ring, seq));
                    missing += 1;
                }
            }
            sequence += 1;
        }
        if script.has_stopped {
            let bus = format!("Nats-Msg-Id: {PROCESS}.bus-1\r\n");
            witness.see(&identity, &record(sequence, bus.as_bytes(), &stopped(&last)));
        }
        let mut losses = Losses::default();
        let unknown = witness.tell(&mut losses);
        let ring_of = |of: Origin| (0..3).find(|&ring| origin(ring) == of).unwrap();
        let declared =
            losses.iter().map(|(_, of, Lost { range, events })| (ring_of(of), range.0, range.1, events));
        (lost, declared.collect(), missing, unknown)
    }

    /// The lost numbers of a ring that what is declared cannot excuse.
    fn undeclared(lost: &BTreeSet<(u64, u64)>, declared: &Declared) -> BTreeSet<(u64, u64)> {
        let mut left = lost.clone();
        let mut by_end = declared.clone();
        by_end.sort_by_key(|&(_, _, last, _)| last);
        for (ring, first, last, events) in by_end {
            let excused: Vec<_> =
                left.range((ring, first)..=(ring, last)).take(events as usize).copied().collect();
            excused.iter().for_each(|number| _ = left.remove(number));
        }
        left
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn where_no_event_was_refused_each_loss_is_declared_exactly(script in script(false)) {
            let script = Script { has_stopped: true, ..script };
            let (lost, declared, missing, unknown) = play(&script);
            prop_assert_eq!(undeclared(&lost, &declared), BTreeSet::new(), "{:?}", declared);
            prop_assert_eq!(declared.iter().map(|&(.., events)| events).sum::<u64>(), missing, "{:?}", declared);
            prop_assert_eq!(unknown, 0);
        }

        #[test]
        fn a_loss_before_the_last_number_of_its_producer_is_declared_whatever_was_refused(script in script(true)) {
            let script = Script { has_stopped: true, ..script };
            let (lost, declared, missing, _) = play(&script);
            prop_assert_eq!(undeclared(&lost, &declared), BTreeSet::new(), "{:?}", declared);
            prop_assert!(declared.iter().all(|&(.., events)| events <= missing), "{:?}", declared);
        }

        #[test]
        fn what_is_not_declared_at_the_end_of_a_log_is_said(script in script(false)) {
            let (lost, declared, missing, unknown) = play(&script);
            let undeclared = undeclared(&lost, &declared).len() as u64;
            prop_assert_eq!(undeclared, unknown, "{:?}", declared);
            prop_assert_eq!(declared.iter().map(|&(.., events)| events).sum::<u64>() + unknown, missing);
        }
    }

    #[test]
    fn what_a_record_says_with_a_flipped_digit_is_not_believed() {
        let identity = identity();
        for said in
            [headers(0, 9), headers(0, 2), headers(7, 3), headers(0, u64::MAX), b"Nats-Msg-Id: x".to_vec()]
        {
            let mut witness = Witness::default();
            for (sequence, seq) in [(1, 1), (2, 2), (4, 4), (5, 5)] {
                if seq == 4 {
                    witness.note_remains(&identity, b"event.1.a", &said);
                    witness.miss(1, 4);
                }
                witness.see(&identity, &record(sequence, &headers(0, seq), b"{}"));
            }
            let mut losses = Losses::default();
            assert_eq!(witness.tell(&mut losses), 0);
            let told: Vec<_> = losses.iter().collect();
            assert_eq!(told, [(&b""[..], origin(0), Lost { range: (3, 3), events: 1 })], "{said:?}");
        }
    }

    #[test]
    fn numbers_as_large_as_they_can_be_are_no_trouble() {
        let (identity, mut witness) = (identity(), Witness::default());
        for (sequence, seq) in [(1, u64::MAX), (3, 1), (4, u64::MAX - 1), (5, 0)] {
            witness.miss(1, sequence);
            witness.see(&identity, &record(sequence, &headers(0, seq), b"{}"));
        }
        witness.tell(&mut Losses::default());
    }
}
