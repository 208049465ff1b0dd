//! What of the spool has another process sent before it ended? The stream knows.
//!
//! ```text
//!   connecting ──► looking ──► settling ──► looking ──► reading ──► known
//!        ▲            │                                    │
//!        └─ pausing ◄─┴──────────── trouble ───────────────┘
//! ```
//!
//! A process that was killed leaves records of which nobody knows whether they were sent, and stored. A server knows message ids for two minutes,
//! and downtimes last longer. So before such records are handed out again, the stream is read from where they can be on, with a
//! connection of its own, and they are looked for by subject and bytes. What is found is acknowledged. What is not found was not stored, if every
//! sequence was there to be read; it is sent. If a later event of its producer was found, then it was refused while that one was stored: sending it
//! now would put it behind, so it is dropped, as it would have been by the process that was killed.
//!
//! Where messages were removed from the stream, by a limit, a consumer or a purge, or where it may not be read, nothing follows from not
//! finding one. It is sent again as long as the server would recognise it by its id, and then it is indeterminate: sending it could store it twice.
//! It is indeterminate at once if the other process sent it without an id of its own, which is one that was in the window before the spool became
//! active, or in a packed frame.
//!
//! A look or a read without an answer says nothing, and is repeated for as long as it takes.
//!
//! A look does not wait for what the stream's leader has taken and not yet brought to a quorum, nor for what the last connection of the other
//! process still had on its way, so a second one follows after [`SETTLING`].

use crate::foreign::contained;
use crate::publisher::pipeline::{
    DUPLICATE_WINDOW, READ_PAGE, Read, SETTLING, StoredMessage, StreamInfo, StreamState,
};
use crate::publisher::window::Origin;
use crate::sink::{Sink, SinkEvent};
use crate::spool::sent::UNSEEN;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Records that are looked for at most. Of more of them nothing is known.
pub(super) const DOUBTS_MAX: usize = 1 << 20;

/// Messages of the stream that are read at most, the newest ones.
const READ_MAX: u64 = 1 << 20;

/// The same where the other process had no look at the stream, so that nothing is known of where in it to begin.
const READ_MAX_BLIND: u64 = 1 << 16;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often trouble is told.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// What another process may have sent, and where it would be.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(super) doubts: Vec<Doubt>,
    /// It is all of it.
    pub(super) is_whole: bool,
    /// As in [`Sent`](crate::spool::sent::Sent).
    pub(super) floor: u64,
    pub(super) stream: u64,
    /// None of it was sent before, and all of it with ids; `None` if that is not known.
    pub(super) since: Option<Instant>,
    /// They are looked for in the stream for which they were recorded, and not in that to which they go now.
    pub(crate) is_of_former: bool,
}

/// An event that may have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    event: Place,
    origin: Origin,
    seq: u64,
    /// Of the subject: in packed frames order holds for a producer and a subject only.
    subject: u64,
    fingerprint: u128,
    /// The same by the subject in the record.
    recorded: u128,
}

/// Where an event is in the log: the record, and its place in that if it is a frame.
pub(super) type Place = (u64, usize);

impl Doubt {
    pub(super) fn new(
        sequence: u64,
        index: usize,
        identity: (Origin, u64),
        [subject, recorded]: [&[u8]; 2],
        event: &[u8],
    ) -> Self {
        let (origin, seq) = identity;
        let fingerprints = [subject, recorded].map(|subject| fingerprint(subject, event));
        let [fingerprint, recorded] = fingerprints;
        Self { event: (sequence, index), origin, seq, subject: hash(&subject), fingerprint, recorded }
    }
}

/// What became of the events that may have been sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// These are stored.
    pub(super) stored: HashSet<Place>,
    /// These are not, and a later one of their producer is.
    pub(super) overtaken: HashSet<Place>,
    /// The same, but they may be stored: if they are not, sending them would put them behind it.
    pub(super) undecided: HashSet<Place>,
    pub(super) rest: Unfound,
}

/// What is known of those that were not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Unfound {
    /// They are not stored.
    #[default]
    Absent,
    /// They may be stored in a stream that is no more.
    Elsewhere,
    /// They may be stored. Until then the server knows the ids of those that were sent with one.
    Known { until: Instant },
    /// They may be stored, and the server would not know it.
    Unknown,
}

impl Findings {
    /// How many events are stored.
    pub(crate) fn stored(&self) -> usize {
        self.stored.len()
    }

    /// Whether the stream is not the one that was noted, or is gone.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.rest == Unfound::Elsewhere
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stored.is_empty() && self.overtaken.is_empty() && self.undecided.is_empty()
    }

    /// Nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { rest: Unfound::Unknown, ..Self::default() }
    }
}

#[derive(Debug)]
enum State {
    Pausing { until: Instant },
    Connecting,
    Looking,
    Settling { until: Instant },
    Reading { to: u64, last: u64 },
}

/// The search, with a connection of its own.
#[derive(Debug)]
pub(crate) struct Inquiry<S> {
    sink: S,
    listing: Listing,
    /// Indexes of doubts, by fingerprint, in the order of the log.
    wanted: HashMap<u128, VecDeque<usize>>,
    findings: Findings,
    /// Messages are gone among which they could be.
    has_holes: bool,
    /// How long the server knows ids, once it has said so.
    duplicate_window: Option<Duration>,
    state: State,
    has_settled: bool,
    heard_at: Instant,
    told_at: Option<Instant>,
    /// Packed frames are in the order of producer and subject.
    is_packed: bool,
}

impl<S: Sink> Inquiry<S> {
    pub(crate) fn new(now: Instant, sink: S, listing: Listing, is_packed: bool) -> Self {
        let mut inquiry = Self {
            sink,
            listing,
            wanted: HashMap::new(),
            findings: Findings::default(),
            has_holes: false,
            duplicate_window: None,
            state: State::Pausing { until: now },
            has_settled: false,
            heard_at: now,
            told_at: None,
            is_packed,
        };
        inquiry.begin_anew();
        inquiry
    }

    /// What is looked for.
    pub(crate) fn into_listing(self) -> Listing {
        self.listing
    }

    /// How many events are looked for.
    pub(crate) fn doubts(&self) -> usize {
        self.listing.doubts.len()
    }

    /// When [`handle_time`](Self::handle_time) should be called.
    pub(crate) fn next_deadline(&self) -> Instant {
        match self.state {
            State::Pausing { until } | State::Settling { until } => until,
            State::Connecting | State::Looking | State::Reading { .. } => self.heard_at + PATIENCE,
        }
    }

    /// Waits for something to happen. May be cancelled without losing anything.
    pub(crate) async fn event(&mut self) -> SinkEvent {
        self.sink.event().await
    }

    pub(crate) fn handle_time(&mut self, now: Instant) {
        if now < self.next_deadline() {
            return;
        }
        self.heard_at = now;
        match self.state {
            State::Pausing { .. } => {
                self.state = State::Connecting;
                self.sink.connect();
            }
            State::Settling { .. } => {
                self.has_settled = true;
                self.look();
            }
            State::Connecting | State::Looking | State::Reading { .. } => self.sink.disconnect(),
        }
    }

    /// What the server says. Returns the findings when they are complete.
    pub(crate) fn handle(&mut self, now: Instant, event: SinkEvent) -> Option<Findings> {
        self.heard_at = now;
        match event {
            SinkEvent::Connected(_) => {
                self.has_settled = false;
                self.look();
            }
            SinkEvent::Disconnected(_) => self.state = State::Pausing { until: now + PAUSE },
            SinkEvent::Stream(StreamState::Found(info)) => return self.found(now, &info),
            SinkEvent::Stream(StreamState::Missing) if self.listing.is_of_former => {
                return Some(Findings { rest: Unfound::Elsewhere, ..Findings::default() });
            }
            SinkEvent::Stream(StreamState::Missing) => self.pause(now),
            SinkEvent::Stream(StreamState::Unknown) | SinkEvent::Read(Read::Failed) => self.fail(now),
            SinkEvent::Stream(StreamState::Denied) | SinkEvent::Read(Read::Denied) => {
                return Some(self.conclude_unread());
            }
            SinkEvent::Read(Read::Page { messages, holes }) => return self.read(&messages, holes),
            SinkEvent::Reply(..) | SinkEvent::BatchReply(..) | SinkEvent::Denied(_) => {}
        }
        None
    }

    fn look(&mut self) {
        self.state = State::Looking;
        self.sink.look_up_stream();
    }

    /// There is a connection, and nothing to be learnt through it at the moment.
    fn pause(&mut self, now: Instant) {
        self.state = State::Settling { until: now + PAUSE };
    }

    /// Nothing was learnt, so it is tried again.
    fn fail(&mut self, now: Instant) {
        if self.told_at.is_none_or(|at| at + TELL_INTERVAL <= now) {
            self.told_at = Some(now);
            contained(|| {
                tracing::warn!(
                    "the server does not say what the stream holds; asking again. Until it does, the events that an earlier process has left are not sent"
                )
            });
        }
        self.pause(now);
    }

    /// We may not read the stream.
    fn conclude_unread(&mut self) -> Findings {
        contained(|| {
            tracing::warn!(
                "the server does not permit reading the stream (STREAM.INFO, STREAM.MSG.GET); only its duplicate window tells what an earlier process has stored"
            )
        });
        self.begin_anew();
        self.has_holes = true;
        self.conclude()
    }

    fn found(&mut self, now: Instant, info: &StreamInfo) -> Option<Findings> {
        if !matches!(self.state, State::Looking) {
            return None;
        }
        self.duplicate_window = Some(info.duplicate_window);
        if self.listing.stream != UNSEEN && self.listing.stream != tag(&info.created) {
            // It was made again, and what was in it is gone.
            return Some(Findings { rest: Unfound::Elsewhere, ..Findings::default() });
        }
        if !self.listing.is_whole {
            // There are too many to look for.
            self.has_holes = true;
            return Some(self.conclude());
        }
        if !self.has_settled {
            self.state = State::Settling { until: now + SETTLING };
            return None;
        }
        self.begin_anew();
        let read_max = if self.listing.stream == UNSEEN { READ_MAX_BLIND } else { READ_MAX };
        // So that there is a number behind it, whatever the server says.
        let last = info.last_sequence.min(u64::MAX - 1);
        let oldest = info.first_sequence.max((last + 1).saturating_sub(read_max));
        let wanted = self.listing.floor.saturating_add(1);
        self.has_holes = wanted < oldest && info.last_sequence > 0;
        self.read_on(wanted.max(oldest).max(1), last)
    }

    /// A page after the other, until all are found or the end is reached.
    fn read_on(&mut self, next: u64, last: u64) -> Option<Findings> {
        if next > last || self.findings.stored.len() == self.listing.doubts.len() {
            return Some(self.conclude());
        }
        let to = last.min(next.saturating_add(READ_PAGE - 1));
        self.state = State::Reading { to, last };
        self.sink.read(next, to);
        None
    }

    fn read(&mut self, messages: &[StoredMessage], holes: u64) -> Option<Findings> {
        let State::Reading { to, last, .. } = self.state else { return None };
        self.has_holes |= holes > 0;
        for message in messages {
            message.each_event(|event| {
                let found = self.wanted.get_mut(&fingerprint(&message.subject, event));
                if let Some(index) = found.and_then(VecDeque::pop_front) {
                    self.findings.stored.insert(self.listing.doubts[index].event);
                }
            });
        }
        if to == last {
            return Some(self.conclude());
        }
        self.read_on(to + 1, last)
    }

    fn begin_anew(&mut self) {
        self.findings = Findings::default();
        self.has_holes = false;
        self.wanted.clear();
        for (index, doubt) in self.listing.doubts.iter().enumerate() {
            let fingerprint = if self.listing.is_of_former { doubt.recorded } else { doubt.fingerprint };
            self.wanted.entry(fingerprint).or_default().push_back(index);
        }
    }

    /// Finds those that a later one of their producer has overtaken.
    fn conclude(&mut self) -> Findings {
        let mut findings = std::mem::take(&mut self.findings);
        let mut overtaking = HashSet::new();
        for doubt in self.listing.doubts.iter().rev() {
            let lane = (doubt.origin, self.is_packed.then_some(doubt.subject));
            if findings.stored.contains(&doubt.event) {
                overtaking.insert(lane);
            } else if overtaking.contains(&lane) {
                let overtaken = match self.has_holes {
                    true => &mut findings.undecided,
                    false => &mut findings.overtaken,
                };
                overtaken.insert(doubt.event);
            }
        }
        if self.has_holes {
            let window = self.duplicate_window.unwrap_or(DUPLICATE_WINDOW);
            // Another stream knows no id of this one.
            let since = self.listing.since.filter(|_| !self.listing.is_of_former);
            let until = since.map(|since| since + window * 3 / 4);
            findings.rest = until.map_or(Unfound::Unknown, |until| Unfound::Known { until });
        }
        findings
    }
}

/// What is noted of a stream, by when it was made. It is read by other processes and later versions, so it is a hash that will not change: FNV-1a.
pub(super) fn tag(created: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    // The least and the greatest say something else.
    created.bytes().fold(0xcbf2_9ce4_8422_2325, fold).clamp(1, UNSEEN - 1)
}

/// So long that no two events have the same but for equal ones.
fn fingerprint(subject: &[u8], event: &[u8]) -> u128 {
    let half = |salt: u8| u128::from(hash(&(salt, subject, event)));
    half(0) << 64 | half(1)
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::publisher::outgoing::Sending;
    use crate::publisher::pipeline::ServerInfo;
    use crate::publisher::server::ServerVersion;
    use crate::sink::ConnectionLost;
    use bytes::Bytes;

    /// Notes what is asked of it.
    #[derive(Debug, Default)]
    struct Script {
        asked: Vec<String>,
    }

    impl Sink for Script {
        fn connect(&mut self) {
            self.asked.push("connect".to_owned());
        }

        fn disconnect(&mut self) {
            self.asked.push("disconnect".to_owned());
        }

        fn look_up_stream(&mut self) {
            self.asked.push("look".to_owned());
        }

        fn read(&mut self, from: u64, to: u64) {
            self.asked.push(format!("read {from} to {to}"));
        }

        async fn send(&mut self, _: Sending<'_>) -> Result<(), ConnectionLost> {
            Err(ConnectionLost)
        }

        async fn event(&mut self) -> SinkEvent {
            std::future::pending().await
        }

        fn try_event(&mut self) -> Option<SinkEvent> {
            None
        }
    }

    struct Rig {
        now: Instant,
        inquiry: Inquiry<Script>,
    }

    const SUBJECT: &[u8] = b"event.1.a";

    fn event(ring: usize, seq: u64) -> Vec<u8> {
        format!("{ring}-{seq}").into_bytes()
    }

    /// Events of these rings and numbers, one a record from 11 on, above the sequence 100 of a stream.
    fn listing(events: &[(usize, u64)]) -> Listing {
        let doubt = |(index, &(ring, seq)): (usize, &(usize, u64))| {
            Doubt::new(11 + index as u64, 0, (Origin::Ring(ring), seq), [SUBJECT; 2], &event(ring, seq))
        };
        let doubts = events.iter().enumerate().map(doubt).collect();
        Listing { doubts, is_whole: true, floor: 100, stream: tag("then"), since: None, is_of_former: false }
    }

    /// When the server forgets what was sent at the beginning of a test.
    const WINDOW: Duration = Duration::from_secs(120);

    impl Rig {
        fn new(events: &[(usize, u64)]) -> Self {
            let now = Instant::now();
            Self { now, inquiry: Inquiry::new(now, Script::default(), listing(events), false) }
        }

        fn pass(&mut self) {
            self.now = self.inquiry.next_deadline();
            self.inquiry.handle_time(self.now);
        }

        fn hear(&mut self, event: SinkEvent) -> Option<Findings> {
            self.inquiry.handle(self.now, event)
        }

        /// Connects, and looks twice at a stream with these sequences.
        fn look(&mut self, created: &str, first: u64, last: u64) -> Option<Findings> {
            self.pass();
            let server = ServerInfo { max_payload: 1 << 20, version: ServerVersion::NONE };
            self.hear(SinkEvent::Connected(server));
            let found = || {
                SinkEvent::Stream(StreamState::Found(StreamInfo {
                    subjects: vec![">".to_owned()],
                    allows_batches: true,
                    created: created.to_owned(),
                    first_sequence: first,
                    last_sequence: last,
                    duplicate_window: WINDOW,
                    message_bytes_max: None,
                    bytes_max: None,
                }))
            };
            if let Some(findings) = self.hear(found()) {
                return Some(findings);
            }
            self.pass();
            self.hear(found())
        }

        fn read(&mut self, events: &[(usize, u64)], holes: u64) -> Option<Findings> {
            let stored = |&(ring, seq): &(usize, u64)| StoredMessage {
                subject: Bytes::from_static(SUBJECT),
                payload: event(ring, seq).into(),
                frame_headers: Vec::new(),
            };
            let messages = events.iter().map(stored).collect();
            self.hear(SinkEvent::Read(Read::Page { messages, holes }))
        }

        #[track_caller]
        fn asserts_asked(&self, asked: &[&str]) {
            assert_eq!(self.inquiry.sink.asked, asked);
        }
    }

    fn places(sequences: &[u64]) -> HashSet<Place> {
        sequences.iter().map(|&sequence| (sequence, 0)).collect()
    }

    #[test]
    fn what_the_stream_has_is_found_and_the_rest_was_not_stored() {
        let mut rig = Rig::new(&[(0, 1), (0, 2), (1, 1), (0, 3)]);
        assert_eq!(rig.look("then", 1, 400), None);
        // Others write to the stream, too.
        assert_eq!(rig.read(&[(0, 1), (7, 7), (1, 1)], 0), None);
        let findings = rig.read(&[], 0).unwrap();
        assert_eq!((findings.stored, findings.overtaken), (places(&[11, 13]), places(&[])));
        assert_eq!(findings.rest, Unfound::Absent);
        rig.asserts_asked(&["connect", "look", "look", "read 101 to 356", "read 357 to 400"]);
    }

    #[test]
    fn reading_ends_when_all_is_found() {
        let mut rig = Rig::new(&[(0, 1), (0, 2)]);
        assert_eq!(rig.look("then", 1, 1 << 40), None);
        let findings = rig.read(&[(0, 1), (0, 2)], 0).unwrap();
        assert_eq!(findings.stored.len(), 2);
    }

    #[test]
    fn what_a_later_event_of_its_producer_has_overtaken_is_not_sent_any_more() {
        let mut rig = Rig::new(&[(0, 1), (1, 1), (0, 2), (0, 3)]);
        rig.look("then", 1, 110);
        let findings = rig.read(&[(0, 2)], 0).unwrap();
        assert_eq!((findings.stored, findings.overtaken), (places(&[13]), places(&[11])));
    }

    #[test]
    fn where_messages_are_gone_nothing_follows_from_not_finding_one() {
        for (first, holes) in [(1, 3), (150, 0)] {
            let mut rig = Rig::new(&[(0, 1), (0, 2)]);
            rig.look("then", first, 200);
            let findings = rig.read(&[(0, 2)], holes).unwrap();
            assert_eq!(findings.rest, Unfound::Unknown);
            assert!(findings.overtaken.is_empty());
            assert_eq!((findings.stored, findings.undecided), (places(&[12]), places(&[11])));
        }
    }

    #[test]
    fn in_a_stream_that_was_made_again_there_is_nothing_to_find() {
        let findings = Rig::new(&[(0, 1)]).look("now", 1, 200).unwrap();
        assert_eq!(findings, Findings { rest: Unfound::Elsewhere, ..Findings::default() });
    }

    #[test]
    fn a_former_stream_that_is_gone_or_another_one_says_nothing_and_is_not_waited_for() {
        let mut rig = Rig::new(&[(0, 1)]);
        rig.inquiry.listing.is_of_former = true;
        assert!(rig.look("now", 1, 101).unwrap().is_elsewhere());
        let mut rig = Rig::new(&[(0, 1)]);
        rig.inquiry.listing.is_of_former = true;
        rig.pass();
        assert!(rig.hear(SinkEvent::Stream(StreamState::Missing)).unwrap().is_elsewhere());
    }

    #[test]
    fn in_the_former_stream_a_record_has_the_subject_that_was_recorded() {
        let mut rig = Rig::new(&[(0, 1), (0, 2)]);
        rig.inquiry.listing.is_of_former = true;
        for doubt in &mut rig.inquiry.listing.doubts {
            doubt.fingerprint = 0;
        }
        rig.look("then", 1, 110);
        let findings = rig.read(&[(0, 2)], 0).unwrap();
        assert_eq!((findings.is_elsewhere(), findings.stored), (false, places(&[12])));
    }

    #[test]
    fn without_a_floor_only_the_end_of_a_long_stream_is_read() {
        let mut rig = Rig::new(&[(0, 1)]);
        (rig.inquiry.listing.floor, rig.inquiry.listing.stream) = (0, UNSEEN);
        assert_eq!(rig.look("then", 1, 1 << 30), None);
        let first = (1 << 30) + 1 - READ_MAX_BLIND;
        rig.asserts_asked(&[
            "connect",
            "look",
            "look",
            &format!("read {first} to {}", first + READ_PAGE - 1),
        ]);
        let findings = rig.read(&[(0, 1)], 0).unwrap();
        assert_eq!((findings.stored.len(), findings.rest), (1, Unfound::Unknown));
    }

    #[test]
    fn equal_events_are_found_as_often_as_they_are_there() {
        let mut rig = Rig::new(&[(0, 1), (0, 1), (0, 1)]);
        rig.look("then", 1, 102);
        let findings = rig.read(&[(0, 1), (0, 1)], 0).unwrap();
        assert_eq!(findings.stored, places(&[11, 12]));
    }

    #[test]
    fn where_messages_are_gone_ids_tell_for_as_long_as_the_server_knows_them() {
        let mut rig = Rig::new(&[(0, 1)]);
        let since = rig.now;
        rig.inquiry.listing.since = Some(since);
        rig.look("then", 1, 110);
        let findings = rig.read(&[], 10).unwrap();
        assert_eq!(findings.rest, Unfound::Known { until: since + WINDOW * 3 / 4 });
    }

    #[test]
    fn more_than_can_be_looked_for_is_told_by_ids() {
        let mut rig = Rig::new(&[]);
        rig.inquiry.listing.is_whole = false;
        rig.inquiry.listing.since = Some(rig.now);
        let until = rig.now + WINDOW * 3 / 4;
        assert_eq!(rig.look("then", 1, 110).unwrap().rest, Unfound::Known { until });
    }

    #[test]
    fn trouble_is_waited_out_for_as_long_as_it_takes() {
        let mut rig = Rig::new(&[(0, 1), (0, 2)]);
        rig.pass();
        for _ in 0..50 {
            assert_eq!(rig.hear(SinkEvent::Disconnected("no".to_owned())), None);
            assert_eq!(rig.look("then", 1, 101), None);
            assert_eq!(rig.hear(SinkEvent::Read(Read::Failed)), None);
            rig.pass();
            assert_eq!(rig.hear(SinkEvent::Stream(StreamState::Unknown)), None);
            rig.pass();
            assert_eq!(rig.hear(SinkEvent::Stream(StreamState::Missing)), None);
        }
        assert_eq!(rig.look("then", 1, 101), None);
        let findings = rig.read(&[(0, 1)], 0).unwrap();
        assert_eq!((findings.stored, findings.rest), (places(&[11]), Unfound::Absent));
    }

    #[test]
    fn only_the_word_of_the_server_that_we_may_not_ask_ends_it() {
        for denial in [SinkEvent::Stream(StreamState::Denied), SinkEvent::Read(Read::Denied)] {
            let mut rig = Rig::new(&[(0, 1)]);
            rig.inquiry.listing.since = Some(rig.now);
            let until = rig.now + DUPLICATE_WINDOW * 3 / 4;
            rig.look("then", 1, 101);
            assert_eq!(rig.hear(denial).unwrap().rest, Unfound::Known { until });
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_left() {
        let mut rig = Rig::new(&[(0, 1)]);
        rig.look("then", 1, 101);
        rig.pass();
        rig.asserts_asked(&["connect", "look", "look", "read 101 to 101", "disconnect"]);
    }
}
