//! Proves, from what a stream holds, what became of the events of each producer.
//!
//! Every producer numbers its offers from 1 without a hole. So a number that is missing was lost, and it was declared if a gap
//! report covers it. An [`Audit`] is fed the messages of a stream in their order, and its [`Verdict`] counts:
//!
//! | count | of what |
//! | --- | --- |
//! | delivered | distinct events |
//! | duplicates | events that are there more than once |
//! | reordered | events that stand behind a later one of their producer |
//! | lost, declared | missing numbers that gap reports account for |
//! | lost, undeclared | missing numbers that nothing accounts for |
//!
//! A missing number is one below the highest that was seen of its producer, or below the last number that its `stopped`
//! report names. A process that ended without one may have lost more behind the highest number; [`processes`] tells what of
//! that is known.
//! When a limit has cut off the front of the stream (or reading began later), numbers before the first one seen are not missed.
//!
//! In [packed frames](crate::frame) events are in the order of their producer and subject, and are held to that.
//!
//! Where a bus has [partitions](crate::Config::partitions), each stream is audited by itself, and [`together`] makes one verdict of it.
//! A producer keeps to one stream, and so does what is reported of it, so no stream excuses a hole in another one.

mod process;

use crate::envelope::{Envelope, EnvelopeError};
use crate::frame::{Frame, FrameError};
use crate::report::{Gap, Running, Started, Stopped};
use process::Life;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use process::{Ending, Process, processes};

/// What a stream was found to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages read.
    pub messages: u64,
    /// Envelopes of events; not reports of the bus, nor messages that are no envelopes.
    pub events: u64,
    /// Producers of events.
    pub producers: u64,
    /// Distinct events.
    pub delivered: u64,
    /// Events that are there again.
    pub duplicates: u64,
    /// Events behind a later one of their producer.
    pub reordered: u64,
    /// Missing numbers that a gap report declares.
    pub lost_declared: u64,
    /// Missing numbers that nothing declares.
    pub lost_undeclared: u64,
    /// Events that stand in another stream than most of their producer's; see [`together`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub astray: u64,
    /// Events without a stamp, about which nothing can be proved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unstamped: u64,
    /// Messages, and lines of packed frames, that are not envelopes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unreadable: u64,
}

impl Verdict {
    /// Whether nothing is missing without a declaration, nothing is there twice, nothing is out of order, everything can be read, and
    /// each producer keeps to one stream. An empty stream is sound: look at [`messages`](Self::messages) too.
    pub fn is_sound(&self) -> bool {
        let Self { duplicates, reordered, lost_undeclared, astray, unreadable, .. } = self;
        [duplicates, reordered, lost_undeclared, astray, unreadable].iter().all(|&&count| count == 0)
    }

    /// Adds the counts of another stream.
    fn add(&mut self, other: &Self) {
        let Self {
            messages,
            events,
            producers,
            delivered,
            duplicates,
            reordered,
            lost_declared,
            lost_undeclared,
            astray,
            unstamped,
            unreadable,
        } = other;
        self.messages += messages;
        self.events += events;
        self.producers += producers;
        self.delivered += delivered;
        self.duplicates += duplicates;
        self.reordered += reordered;
        self.lost_declared += lost_declared;
        self.lost_undeclared += lost_undeclared;
        self.astray += astray;
        self.unstamped += unstamped;
        self.unreadable += unreadable;
    }
}

/// The verdict on several streams of one bus, each of which was audited by itself: the sum of their counts, and the events that are
/// astray because their producer has more of them in another stream.
pub fn together(audits: &[Audit]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut producers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for audit in audits {
        verdict.add(&audit.verdict());
        for (name, numbers) in audit.producers.iter().filter(|(_, numbers)| numbers.highest > 0) {
            producers.entry(name).or_default().push(numbers.count());
        }
    }
    verdict.producers = producers.len() as u64;
    verdict.astray += producers
        .values()
        .map(|counts| counts.iter().sum::<u64>() - counts.iter().max().unwrap_or(&0))
        .sum::<u64>();
    verdict
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Reads the messages of a stream, one by one, and keeps account of their producers.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    verdict: Verdict,
    producers: BTreeMap<String, Numbers>,
    /// Only producers whose names begin so, if it is set.
    process: Option<String>,
    /// By the 16 digits of its producers' names.
    lives: BTreeMap<String, Life>,
    /// The stream was read from its first message, and holds its first sequence.
    from_the_start: bool,
}

/// The numbers of one producer. Ranges, not single numbers, so that a million events in order take the room of one.
#[derive(Clone, Debug, Default)]
struct Numbers {
    /// Numbers that are there, as ranges `first → last`, apart from each other.
    seen: BTreeMap<u64, u64>,
    highest: u64,
    /// The highest number in the frames of each subject.
    highest_packed: BTreeMap<String, u64>,
    /// The last number given out, if the producer's process has told.
    last: Option<u64>,
    /// Last number, first, and how many of them were lost. A report that is there twice counts once.
    gaps: BTreeSet<(u64, u64, u64)>,
}

impl Audit {
    /// An audit of all producers.
    ///
    /// `from_the_start` says that the messages are all that were ever in the stream, so that each producer's numbers have to
    /// begin with 1. Without it that is asked only of processes whose first report is seen.
    pub fn new(from_the_start: bool) -> Self {
        Self { from_the_start, ..Self::default() }
    }

    /// An audit of the producers of one process, by the 16 digits of their names.
    pub fn of_process(process: &str) -> Self {
        Self { process: Some(format!("{process}.")), ..Self::default() }
    }

    /// Takes the next message of the stream into account, one that is not packed. Messages that are no envelopes are counted
    /// and passed over.
    pub fn observe(&mut self, message: &[u8]) {
        self.observe_frame("", Ok(Frame::of_one(message)));
    }

    /// Takes the next message of the stream into account, packed or not, as [`unpack`](crate::frame::unpack) returned it. What
    /// could not be unpacked, or is no envelope, is counted and passed over.
    pub fn observe_frame(&mut self, subject: &str, frame: Result<Frame<'_>, FrameError>) {
        let Ok(frame) = frame else {
            self.verdict.messages += 1;
            self.verdict.unreadable += 1;
            return;
        };
        let packed_for = frame.is_packed().then_some(subject);
        let mut is_ours = self.process.is_none();
        for event in &frame {
            is_ours |= self.try_observe(event, packed_for).unwrap_or_else(|_unreadable| {
                self.verdict.unreadable += 1;
                true
            });
        }
        self.verdict.messages += u64::from(is_ours);
    }

    /// Returns whether the event is of a process that is looked at.
    fn try_observe(&mut self, event: &[u8], packed_for: Option<&str>) -> Result<bool, EnvelopeError> {
        let envelope = Envelope::parse(event)?;
        let Some((producer, seq)) = envelope.stamp() else {
            let is_ours = self.process.is_none();
            self.verdict.events += u64::from(is_ours);
            self.verdict.unstamped += u64::from(is_ours);
            return Ok(is_ours);
        };
        if self.process.as_ref().is_some_and(|process| !producer.starts_with(process)) {
            return Ok(false);
        }
        self.life(process_of(producer)).hear(&envelope.timestamp);
        if is_of_the_bus(producer) {
            self.heed(envelope.body.get());
            return Ok(true);
        }
        self.verdict.events += 1;
        match self.numbers(producer).see(seq, packed_for) {
            Sight::New => self.verdict.delivered += 1,
            Sight::Late => {
                self.verdict.delivered += 1;
                self.verdict.reordered += 1;
            }
            Sight::Again => self.verdict.duplicates += 1,
        }
        Ok(true)
    }

    /// Reads a report. Its kind shows in its members, so the subject is not needed.
    fn heed(&mut self, body: &str) {
        if let Ok(started) = serde_json::from_str::<Started>(body) {
            self.life(&started.process).start(&started);
        } else if let Ok(gap) = serde_json::from_str::<Gap>(body) {
            self.numbers(&gap.producer).gaps.insert((gap.last, gap.first, gap.lost));
        } else if let Ok(running) = serde_json::from_str::<Running>(body) {
            self.life(&running.process.clone()).run(running);
        } else if let Ok(stopped) = serde_json::from_str::<Stopped>(body) {
            self.life(&stopped.process).stop(&stopped);
            for (ring, last) in stopped.last.into_iter().enumerate() {
                self.numbers(&format!("{}.{ring}", stopped.process)).heed_last(last);
            }
        }
    }

    /// Whether a process has said that it stopped; in an audit of one process nothing of it follows.
    pub fn has_stopped(&self) -> bool {
        self.lives.values().any(Life::has_stopped)
    }

    /// What the messages so far prove.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict.clone();
        for (name, numbers) in &self.producers {
            let has_started = self.lives.get(process_of(name)).is_some_and(|life| life.started);
            let (declared, undeclared) = numbers.lost(self.from_the_start || has_started);
            verdict.lost_declared += declared;
            verdict.lost_undeclared += undeclared;
            verdict.producers += u64::from(numbers.highest > 0);
        }
        verdict
    }

    fn life(&mut self, process: &str) -> &mut Life {
        if !self.lives.contains_key(process) {
            self.lives.insert(process.to_owned(), Life::default());
        }
        self.lives.get_mut(process).expect("it was inserted just now if it was not there")
    }

    fn numbers(&mut self, producer: &str) -> &mut Numbers {
        if !self.producers.contains_key(producer) {
            self.producers.insert(producer.to_owned(), Numbers::default());
        }
        self.producers.get_mut(producer).expect("it was inserted just now if it was not there")
    }
}

/// The process of a producer.
fn process_of(producer: &str) -> &str {
    producer.split_once('.').map_or(producer, |(process, _)| process)
}

/// Whether a producer's events are the reports of a bus about itself.
fn is_of_the_bus(producer: &str) -> bool {
    producer.ends_with(".bus")
}

enum Sight {
    New,
    Late,
    Again,
}

impl Numbers {
    /// Notes the last number that a process has told. Of several the highest counts: the streams of a partitioned bus tell zero of
    /// each other's producers.
    fn heed_last(&mut self, last: u64) {
        self.last = self.last.max(Some(last));
    }

    /// The highest number that is known to have been given out: it is there, or was told, or declared as lost.
    fn end(&self) -> u64 {
        let declared_to = self.gaps.last().map_or(0, |&(last, ..)| last);
        self.highest.max(self.last.unwrap_or(0)).max(declared_to)
    }

    /// How many distinct numbers were seen.
    fn count(&self) -> u64 {
        numbers_in(self.seen.iter())
    }

    fn see(&mut self, seq: u64, packed_for: Option<&str>) -> Sight {
        let before = self.seen.range(..=seq).next_back().map(|(&first, &last)| (first, last));
        if before.is_some_and(|(_, last)| last >= seq) {
            return Sight::Again;
        }
        let joins_before = before.filter(|&(_, last)| last.checked_add(1) == Some(seq));
        let first = joins_before.map_or(seq, |(first, _)| first);
        let last = seq.checked_add(1).and_then(|next| self.seen.remove(&next)).unwrap_or(seq);
        self.seen.insert(first, last);
        let before = match packed_for {
            None => self.highest,
            Some(subject) => self.pass_packed(subject, seq),
        };
        let late = seq < before;
        self.highest = self.highest.max(seq);
        if late { Sight::Late } else { Sight::New }
    }

    /// Notes a number in a frame; returns the highest before it in the frames of that subject.
    fn pass_packed(&mut self, subject: &str, seq: u64) -> u64 {
        match self.highest_packed.get_mut(subject) {
            Some(highest) => std::mem::replace(highest, seq.max(*highest)),
            None => self.highest_packed.insert(subject.to_owned(), seq).unwrap_or(0),
        }
    }

    /// Missing numbers: declared, undeclared.
    ///
    /// Each missing number is declared by one gap at most, and a gap declares no more than it counts. The gaps that end first
    /// choose first, and take the lowest numbers, which is the choice that declares most.
    fn lost(&self, from_the_start: bool) -> (u64, u64) {
        let end = self.end();
        let declared_from = self.gaps.iter().map(|&(_, first, _)| first).min().unwrap_or(u64::MAX);
        let first_seen = self.seen.keys().next().copied().unwrap_or(u64::MAX).min(declared_from);
        let mut missing = self.missing(if from_the_start { 1 } else { first_seen }, end);
        let total = numbers_in(missing.iter());
        let gaps = self.gaps.iter().map(|&(last, first, lost)| (first, last, lost));
        let declared: u64 = gaps.map(|gap| declare(&mut missing, gap)).sum();
        (declared, total - declared)
    }

    /// The ranges of numbers from `start` to `end` that are not there.
    fn missing(&self, start: u64, end: u64) -> BTreeMap<u64, u64> {
        let mut missing = BTreeMap::new();
        let mut next = start;
        for (&first, &last) in self.seen.iter().filter(|&(_, &last)| last >= start) {
            if first > next {
                missing.insert(next, first - 1);
            }
            match last.checked_add(1) {
                Some(after) => next = after,
                None => return missing,
            }
        }
        if next <= end {
            missing.insert(next, end);
        }
        missing
    }
}

/// How many numbers are in these ranges. All that there are, zero included, are one more than can be told.
fn numbers_in<'a>(ranges: impl Iterator<Item = (&'a u64, &'a u64)>) -> u64 {
    ranges.fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first).saturating_add(1))
}

/// Takes up to `lost` numbers between `first` and `last` out of the missing ones. Returns how many.
fn declare(missing: &mut BTreeMap<u64, u64>, (first, last, lost): (u64, u64, u64)) -> u64 {
    let mut declared = 0;
    while declared < lost {
        let reaches_in = missing.range(..first).next_back().filter(|&(_, &range_last)| range_last >= first);
        let Some((range_first, range_last)) = reaches_in
            .or_else(|| missing.range(first..=last.max(first)).next())
            .map(|(&first, &last)| (first, last))
        else {
            break;
        };
        let from = range_first.max(first);
        let to = range_last.min(last).min(from.saturating_add(lost - declared - 1));
        if to < from {
            break;
        }
        missing.remove(&range_first);
        if range_first < from {
            missing.insert(range_first, from - 1);
        }
        if to < range_last {
            missing.insert(to + 1, range_last);
        }
        declared = declared.saturating_add(to - from).saturating_add(1);
    }
    declared
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use crate::report::Loss;

    const A: &str = "00000000000000aa.0";
    const BUS: &str = "00000000000000aa.bus";

    fn envelope(producer: &str, seq: u64, body: &str) -> String {
        format!(r#"{{"version":"v1","timestamp":"t","producer":"{producer}","seq":{seq},"body":{body}}}"#)
    }

    fn audit(messages: impl IntoIterator<Item = String>) -> Verdict {
        let mut audit = Audit::new(true);
        messages.into_iter().for_each(|message| audit.observe(message.as_bytes()));
        audit.verdict()
    }

    fn events(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
        seqs.into_iter().map(|seq| envelope(A, seq, "1")).collect()
    }

    fn gap(seq: u64, first: u64, last: u64, lost: u64) -> String {
        let counts = vec![Loss { name: "a".to_owned(), reason: "queue_full".to_owned(), count: lost }];
        let gap = Gap { producer: A.to_owned(), first, last, lost, counts };
        envelope(BUS, seq, &serde_json::to_string(&gap).expect("a gap is JSON"))
    }

    #[test]
    fn a_gap_over_all_numbers_that_there_are_is_counted() {
        for lost in [1, u64::MAX] {
            let verdict = audit([gap(1, 0, u64::MAX, lost)]);
            assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (lost, u64::MAX - lost));
        }
    }

    #[test]
    fn a_whole_sequence_is_sound() {
        let verdict = audit(events(1..=1000));
        let expected =
            Verdict { messages: 1000, events: 1000, producers: 1, delivered: 1000, ..Verdict::default() };
        assert_eq!(verdict, expected);
        assert!(verdict.is_sound());
    }

    /// The verdict on frames of these numbers, each on a subject.
    fn audit_packed(frames: &[(&str, &[u64])]) -> Verdict {
        let mut audit = Audit::new(true);
        for (subject, seqs) in frames {
            let payload = events(seqs.iter().copied()).join("\n");
            let count = seqs.len().to_string();
            let header = |name: &str| (name == crate::frame::COUNT).then_some(count.as_str());
            audit.observe_frame(subject, crate::frame::unpack(header, payload.as_bytes()));
        }
        audit.verdict()
    }

    #[test]
    fn events_in_frames_are_in_order_by_subject() {
        let verdict = audit_packed(&[("a", &[1, 3, 5]), ("b", &[2, 4]), ("a", &[7]), ("b", &[6, 8])]);
        let expected = Verdict { messages: 4, events: 8, producers: 1, delivered: 8, ..Verdict::default() };
        assert_eq!(verdict, expected);
        let verdict = audit_packed(&[("a", &[1, 3]), ("b", &[2, 6]), ("b", &[5, 4]), ("a", &[2])]);
        assert_eq!((verdict.delivered, verdict.reordered, verdict.duplicates), (6, 2, 1));
    }

    #[test]
    fn a_frame_that_cannot_be_unpacked_is_one_unreadable_message() {
        let mut audit = Audit::new(true);
        audit.observe_frame("a", crate::frame::unpack(|_| Some("three"), b""));
        let verdict = audit.verdict();
        assert_eq!((verdict.messages, verdict.unreadable, verdict.events), (1, 1, 0));
    }

    #[test]
    fn a_hole_is_undeclared_until_a_gap_names_it() {
        let mut messages = events((1..=5).chain(9..=10));
        let verdict = audit(messages.clone());
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared, verdict.is_sound()), (0, 3, false));
        messages.push(gap(1, 6, 8, 3));
        let verdict = audit(messages);
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared, verdict.is_sound()), (3, 0, true));
    }

    #[test]
    fn a_gap_declares_no_more_than_it_counts() {
        let mut messages = events([1, 2, 4, 7, 10]);
        messages.push(gap(1, 3, 9, 4));
        let verdict = audit(messages);
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (4, 1));
    }

    #[test]
    fn a_gap_that_is_there_twice_declares_once() {
        let mut messages = events([1, 2, 9]);
        messages.extend([gap(1, 3, 8, 2), gap(2, 3, 8, 2)]);
        let verdict = audit(messages);
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (2, 4));
    }

    #[test]
    fn a_gap_whose_numbers_are_there_after_all_declares_nothing() {
        let mut messages = events(1..=10);
        messages.push(gap(1, 3, 5, 3));
        let verdict = audit(messages);
        assert_eq!((verdict.delivered, verdict.lost_declared, verdict.lost_undeclared), (10, 0, 0));
    }

    #[test]
    fn a_gap_that_declares_too_much_does_not_excuse_a_loss_elsewhere() {
        let mut messages = events((1..=10).chain(21..=50).chain(61..=70));
        messages.push(gap(1, 11, 20, 10));
        // Indeterminate events that were stored after all.
        messages.push(gap(2, 5, 30, 10));
        let verdict = audit(messages);
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (10, 10));
    }

    #[test]
    fn overlapping_gaps_share_the_missing_numbers_in_the_best_way() {
        let mut messages = events([1, 10, 20]);
        // 2 to 9 and 11 to 19 are missing: the wide gap has to take what the narrow ones leave.
        messages.extend([gap(1, 2, 19, 9), gap(2, 2, 9, 4), gap(3, 11, 19, 4)]);
        assert_eq!(audit(messages).lost_undeclared, 0);
    }

    #[test]
    fn a_number_at_the_end_of_all_numbers_is_counted_like_any_other() {
        let verdict = audit(events([u64::MAX - 1, u64::MAX]));
        assert_eq!((verdict.delivered, verdict.lost_undeclared), (2, u64::MAX - 2));
    }

    #[test]
    fn a_process_that_said_that_it_started_is_missed_from_its_first_number() {
        let mut audit = Audit::of_process("00000000000000aa");
        let started = Started {
            process: "00000000000000aa".to_owned(),
            producers: 1,
            version: String::new(),
            stats_seconds: 60.0,
        };
        audit.observe(
            envelope(BUS, 1, &serde_json::to_string(&started).expect("a report is JSON")).as_bytes(),
        );
        audit.observe(envelope(A, 3, "1").as_bytes());
        assert_eq!(audit.verdict().lost_undeclared, 2);
    }

    #[test]
    fn duplicates_and_late_events_are_told_apart() {
        let verdict = audit(events([1, 2, 4, 3, 4, 5]));
        assert_eq!((verdict.delivered, verdict.duplicates, verdict.reordered), (5, 1, 1));
        assert!(!verdict.is_sound());
    }

    #[test]
    fn losses_at_the_very_end_show_when_the_process_has_said_its_last_number() {
        let mut messages = events(1..=3);
        let stopped = Stopped {
            process: "00000000000000aa".to_owned(),
            last: vec![5],
            ledger: crate::Stats::default(),
        };
        messages.push(envelope(BUS, 1, &serde_json::to_string(&stopped).expect("a report is JSON")));
        assert_eq!(audit(messages).lost_undeclared, 2);
    }

    #[test]
    fn a_stream_whose_front_was_cut_off_does_not_miss_what_was_before() {
        let mut audit = Audit::new(false);
        events([7, 8, 10]).into_iter().for_each(|message| audit.observe(message.as_bytes()));
        assert_eq!(audit.verdict().lost_undeclared, 1);
    }

    #[test]
    fn streams_are_judged_together_and_excuse_nothing_for_each_other() {
        const B: &str = "00000000000000aa.1";
        let audited = |messages: &[String]| {
            let mut audit = Audit::new(true);
            messages.iter().for_each(|message| audit.observe(message.as_bytes()));
            audit
        };
        let others =
            |seqs: &[u64]| -> Vec<String> { seqs.iter().map(|&seq| envelope(B, seq, "1")).collect() };
        let sound = together(&[audited(&events(1..=5)), audited(&others(&[1, 2, 3]))]);
        let expected = Verdict { messages: 8, events: 8, producers: 2, delivered: 8, ..Verdict::default() };
        assert_eq!((&sound, sound.is_sound()), (&expected, true));

        // The gap that would excuse it stands in the wrong stream.
        let mut messages = others(&[1, 2]);
        messages.push(gap(1, 3, 3, 1));
        let verdict = together(&[audited(&events([1, 2, 4])), audited(&messages)]);
        assert_eq!((verdict.lost_undeclared, verdict.is_sound()), (3, false));

        // One event of A is where B's are.
        let mut messages = others(&[1, 2]);
        messages.push(envelope(A, 1, "1"));
        let verdict = together(&[audited(&events(1..=3)), audited(&messages)]);
        assert_eq!((verdict.astray, verdict.producers, verdict.is_sound()), (1, 2, false));
    }

    #[test]
    fn the_highest_of_several_last_numbers_counts() {
        let stopped = |last: Vec<u64>| {
            let process = "00000000000000aa".to_owned();
            let stopped = Stopped { process, last, ledger: crate::Stats::default() };
            envelope(BUS, 1, &serde_json::to_string(&stopped).expect("a report is JSON"))
        };
        let mut messages = events(1..=3);
        messages.extend([stopped(vec![5, 0]), stopped(vec![0, 7])]);
        assert_eq!(audit(messages).lost_undeclared, 2 + 7);
    }

    #[test]
    fn an_audit_of_one_process_sees_no_other() {
        let mut audit = Audit::of_process("00000000000000aa");
        audit.observe(envelope(A, 1, "1").as_bytes());
        audit.observe(envelope("00000000000000bb.0", 7, "1").as_bytes());
        audit.observe(br#"{"version":"v1","timestamp":"t","body":1}"#);
        let verdict = audit.verdict();
        assert_eq!((verdict.messages, verdict.producers, verdict.lost_undeclared), (1, 1, 0));
    }

    #[test]
    fn what_is_no_envelope_and_what_is_unstamped_is_counted() {
        let verdict =
            audit(["nonsense".to_owned(), r#"{"version":"v1","timestamp":"t","body":1}"#.to_owned()]);
        assert_eq!((verdict.messages, verdict.unreadable, verdict.unstamped, verdict.events), (2, 1, 1, 1));
    }
}
