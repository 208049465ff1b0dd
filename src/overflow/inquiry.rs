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
//! Where messages were removed from the stream, by a limit, a consumer or a purge, or where it cannot be read, nothing follows from not
//! finding one. It is sent, with its id: a spool is there so that nothing is lost. A process that is alive counts such a message as
//! indeterminate, for it has sent it; of these most were never sent.
//!
//! A look does not wait for what the stream's leader has taken and not yet brought to a quorum, nor for what the last connection of the other
//! process still had on its way, so a second one follows after [`SETTLING`].

use crate::publisher::pipeline::{READ_PAGE, Read, SETTLING, StoredMessage, StreamInfo, StreamState};
use crate::publisher::window::Origin;
use crate::sink::{Sink, SinkEvent};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Records that are looked for at most. More of them are all sent with their ids.
pub(super) const DOUBTS_MAX: usize = 1 << 20;

/// Messages of the stream that are read at most, the newest ones.
const READ_MAX: u64 = 1 << 20;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks and reads that may fail one after the other, with a connection: then we are hardly permitted to.
const TRIES: u32 = 5;

/// What another process may have sent, and where it would be.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(super) doubts: Vec<Doubt>,
    /// It is all of it.
    pub(super) is_whole: bool,
    /// As in [`Sent`](crate::spool::sent::Sent).
    pub(super) floor: u64,
    pub(super) stream: u64,
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
}

/// Where an event is in the log: the record, and its place in that if it is a frame.
pub(super) type Place = (u64, usize);

impl Doubt {
    pub(super) fn new(
        sequence: u64,
        index: usize,
        identity: (Origin, u64),
        subject: &[u8],
        event: &[u8],
    ) -> Self {
        let (origin, seq) = identity;
        let fingerprint = fingerprint(subject, event);
        Self { event: (sequence, index), origin, seq, subject: hash(&subject), fingerprint }
    }
}

/// What became of the events that may have been sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// These are stored.
    pub(super) stored: HashSet<Place>,
    /// These are not, and a later one of their producer is.
    pub(super) overtaken: HashSet<Place>,
    /// Of what is not found it is not known whether it is stored.
    pub(super) is_doubtful: bool,
}

impl Findings {
    /// How many events are stored.
    pub(crate) fn stored(&self) -> usize {
        self.stored.len()
    }

    /// Nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { is_doubtful: true, ..Self::default() }
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
    state: State,
    has_settled: bool,
    failed: u32,
    heard_at: Instant,
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
            state: State::Pausing { until: now },
            has_settled: false,
            failed: 0,
            heard_at: now,
            is_packed,
        };
        inquiry.begin_anew();
        inquiry
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
            SinkEvent::Stream(StreamState::Missing) => self.pause(now),
            SinkEvent::Stream(StreamState::Unknown) | SinkEvent::Read(Read::Failed) => return self.fail(now),
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

    fn fail(&mut self, now: Instant) -> Option<Findings> {
        self.failed += 1;
        if self.failed >= TRIES {
            tracing::warn!(
                "the stream cannot be read, so what an earlier process may have sent is sent again, with its ids"
            );
            return Some(Findings::unknown());
        }
        self.pause(now);
        None
    }

    fn found(&mut self, now: Instant, info: &StreamInfo) -> Option<Findings> {
        if !matches!(self.state, State::Looking) {
            return None;
        }
        if self.listing.stream != 0 && self.listing.stream != tag(&info.created) {
            // It was made again, and what was in it is gone.
            return Some(Findings::unknown());
        }
        if !self.has_settled {
            self.state = State::Settling { until: now + SETTLING };
            return None;
        }
        self.begin_anew();
        let oldest = info.first_sequence.max((info.last_sequence + 1).saturating_sub(READ_MAX));
        let wanted = self.listing.floor + 1;
        self.findings.is_doubtful = wanted < oldest && info.last_sequence > 0;
        self.read_on(wanted.max(oldest).max(1), info.last_sequence)
    }

    /// A page after the other, until all are found or the end is reached.
    fn read_on(&mut self, next: u64, last: u64) -> Option<Findings> {
        if next > last || self.findings.stored.len() == self.listing.doubts.len() {
            return Some(self.conclude());
        }
        let to = last.min(next + READ_PAGE - 1);
        self.state = State::Reading { to, last };
        self.sink.read(next, to);
        None
    }

    fn read(&mut self, messages: &[StoredMessage], holes: u64) -> Option<Findings> {
        let State::Reading { to, last, .. } = self.state else { return None };
        self.failed = 0;
        self.findings.is_doubtful |= holes > 0;
        for message in messages {
            message.each_event(|event| {
                let found = self.wanted.get_mut(&fingerprint(&message.subject, event));
                if let Some(index) = found.and_then(VecDeque::pop_front) {
                    self.findings.stored.insert(self.listing.doubts[index].event);
                }
            });
        }
        self.read_on(to + 1, last)
    }

    fn begin_anew(&mut self) {
        self.findings = Findings::default();
        self.wanted.clear();
        for (index, doubt) in self.listing.doubts.iter().enumerate() {
            self.wanted.entry(doubt.fingerprint).or_default().push_back(index);
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
            } else if overtaking.contains(&lane) && !findings.is_doubtful {
                findings.overtaken.insert(doubt.event);
            }
        }
        findings
    }
}

/// What is noted of a stream, by when it was made. It is read by other processes and later versions, so it is a hash that will not change: FNV-1a.
pub(super) fn tag(created: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    // Zero says that none was seen.
    created.bytes().fold(0xcbf2_9ce4_8422_2325, fold).max(1)
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
