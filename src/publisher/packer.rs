//! Packed frames in the making.
//!
//! ```text
//!                       open frames, one for a subject
//!                    ┌──────────────────────────────────┐
//!   event ──print──► │ a │ {…}⏎{…}⏎{…}⏎                 │ ── full, or its time is over ──► compress ──► window
//!                    │ b │ {…}⏎                         │
//!                    └──────────────────────────────────┘
//! ```
//!
//! An event is printed into the open frame of its subject, and is not copied again: a frame that is not compressed is sent out of the
//! memory that it was printed to, and one that is leaves behind only what it was compressed to.
//!
//! A frame is closed
//!
//! - when it is full: [`FRAME_BYTES`], or what the server takes at most;
//! - when it would be sent at once, and nothing is unanswered: who publishes little does not wait for company;
//! - when it would be sent at once, and has waited for the linger time;
//! - when somebody waits for its events (flush, close), or too many are open.
//!
//! So in an outage, or behind a full window, frames go on growing until they are full: they could not be sent anyway.
//!
//! From then on a frame is one message of the window. It has one fate, and its events are booked one by one when it has met its fate. Frames
//! of one subject leave in the order of their events, those of two subjects in any order.
//!
//! Only its size can undo a frame. What server and stream take at most may not be known when it is closed, or be less by the time that it
//! is sent; then it is *cut* into frames that are taken ([`Sealer::cut`]). So only an event that is too large by itself is dropped for it.

use super::pipeline::Pipeline;
use super::render::Renderer;
use super::route::Route;
use super::window::{Message, Origin};
use crate::config::{Delivery, Framing};
use crate::frame::{self, Compressor, Encoding, Frame, end_line};
use crate::ledger::Reason;
use bytes::Bytes;
use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A frame with so many bytes is full, before it is compressed.
pub(crate) const FRAME_BYTES: usize = 32 << 10;

/// Room behind a frame that is nearly full, for the event that fills it: as large as most events are.
const FRAME_ROOM: usize = 4 << 10;

/// Subjects that have a frame open at a time. Beyond it the oldest frame is closed for each that is opened.
const OPEN_MAX: usize = 256;

/// The compressor of packed frames, if that is how events are delivered. An error means that there is no memory for it.
pub(crate) fn compressor(delivery: &Delivery) -> io::Result<Option<Compressor>> {
    match delivery.framing {
        Framing::Plain => Ok(None),
        Framing::Packed => Compressor::new(delivery.compression.encoding()).map(Some),
    }
}

/// What a closed frame holds.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) payload: Bytes,
    pub(crate) encoding: Option<Encoding>,
    /// In the order of their lines; there is at least one.
    pub(crate) events: Vec<Event>,
}

/// An event of a frame, for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// These are as in [`Message`].
    pub(crate) origin: Origin,
    pub(crate) seq: u64,
    pub(crate) offered: u64,
    pub(crate) sequence: Option<NonZeroU64>,
}

impl Event {
    pub(crate) fn of(message: &Message) -> Self {
        let &Message { origin, seq, offered, sequence, .. } = message;
        Self { origin, seq, offered, sequence }
    }
}

impl Packed {
    /// The events, printed. None would mean that it is no frame of ours.
    pub(crate) fn unpack(&self) -> Option<Frame<'_>> {
        let count = self.events.len().to_string();
        let header = |name: &str| match name {
            frame::COUNT => Some(&*count),
            frame::CONTENT_ENCODING => self.encoding.map(Encoding::name),
            _ => None,
        };
        frame::unpack(header, &self.payload).ok()
    }

    /// The memory that it takes, but for half as much again at most.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.events.len() * size_of::<Event>()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("bytes", &self.payload.len())
            .field("encoding", &self.encoding)
            .field("events", &self.events.len())
            .finish()
    }
}

/// Makes payloads of what frames hold. The pipeline has it, since it cuts what is too large.
pub(crate) struct Sealer {
    compressor: Compressor,
    /// Memory for the next frame.
    spare: Vec<u8>,
}

impl Sealer {
    pub(crate) fn new(compressor: Compressor) -> Self {
        Self { compressor, spare: Vec::new() }
    }

    /// Memory for a frame.
    fn room(&mut self) -> Vec<u8> {
        let mut content = std::mem::take(&mut self.spare);
        content.reserve_exact(FRAME_BYTES + FRAME_ROOM);
        content
    }

    /// The message that these events become, if there are any, whose lines are in `content`.
    fn seal(&mut self, route: Rc<Route>, content: Vec<u8>, events: Vec<Event>) -> Option<Message> {
        let &Event { origin, seq, offered, sequence } = events.first()?;
        let (encoding, payload) = self.payload(content);
        let packed = Some(Rc::new(Packed { payload, encoding, events }));
        Some(Message { origin, seq, route, offered, packed, sequence, trace: None })
    }

    /// Cuts a frame of several events into at least two, in order, none of which has more than so many bytes of lines unless it is a
    /// single event. None are returned if it cannot be read, and it would be a bug of ours if so.
    pub(crate) fn cut(&mut self, message: &Message, content_max: usize) -> Vec<Message> {
        let Some(packed) = &message.packed else { return Vec::new() };
        let Some(frame) = packed.unpack().filter(|frame| frame.len() == packed.events.len()) else {
            return Vec::new();
        };
        let bytes: usize = frame.iter().map(|line| line.len() + 1).sum();
        // Also where the limit is not known: it was refused, so it becomes smaller.
        let content_max = content_max.min(bytes.div_ceil(2));
        let mut pieces = Vec::new();
        let (mut content, mut events) = (self.room(), Vec::new());
        for (line, &event) in frame.iter().zip(&packed.events) {
            if !events.is_empty() && content.len() + line.len() + 1 > content_max {
                let (full, of) = (std::mem::take(&mut content), std::mem::take(&mut events));
                pieces.extend(self.seal(Rc::clone(&message.route), full, of));
                content = self.room();
            }
            content.extend_from_slice(line);
            content.push(b'\n');
            events.push(event);
        }
        pieces.extend(self.seal(Rc::clone(&message.route), content, events));
        pieces
    }

    /// The payload that this content becomes.
    fn payload(&mut self, mut content: Vec<u8>) -> (Option<Encoding>, Bytes) {
        let (encoding, payload) = match self.compressor.compress(&content) {
            Some((encoding, compressed)) => (Some(encoding), Bytes::copy_from_slice(compressed)),
            // A frame that is far from full must not hold the memory of a full one.
            None if content.len() < content.capacity() / 2 => (None, Bytes::copy_from_slice(&content)),
            None => return (None, Bytes::from(content)),
        };
        if content.capacity() <= FRAME_BYTES + FRAME_ROOM {
            content.clear();
            self.spare = content;
        }
        (encoding, payload)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The open frames of one worker.
pub(crate) struct Packer {
    open: Vec<Open>,
    linger: Duration,
    /// Events in open frames, and the bytes of these frames.
    events: usize,
    bytes: usize,
}

struct Open {
    route: Rc<Route>,
    content: Vec<u8>,
    events: Vec<Event>,
    since: Instant,
}

impl Packer {
    pub(crate) fn new(linger: Duration) -> Self {
        Self { open: Vec::new(), linger, events: 0, bytes: 0 }
    }

    /// Frames that are open; each will be a message.
    pub(crate) fn frames(&self) -> usize {
        self.open.len()
    }

    /// Bytes of the open frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events in the open frames.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// When the oldest event in an open frame was offered, in nanoseconds since 1970.
    pub(crate) fn oldest_offered(&self) -> Option<u64> {
        self.open.iter().filter_map(|open| open.events.first()).map(|event| event.offered).min()
    }

    /// When [`close_due`](Self::close_due) should be called next.
    pub(crate) fn next_deadline(&self, pipeline: &Pipeline) -> Option<Instant> {
        if !pipeline.is_hungry() {
            return None;
        }
        self.open.iter().map(|open| open.since + self.linger).min()
    }

    /// Prints an event into its frame. An error means that it is dropped.
    #[inline]
    pub(crate) fn take(
        &mut self,
        now: Instant,
        ring: usize,
        record: &[u8],
        renderer: &mut Renderer,
        pipeline: &mut Pipeline,
    ) -> Result<(), Reason> {
        let event = renderer.number(ring, record)?;
        self.put(now, &event.message, |content| renderer.write(&event, content), pipeline)
    }

    /// Puts an event, which `write` prints, into its frame. An error means that it is dropped.
    #[inline]
    pub(crate) fn put(
        &mut self,
        now: Instant,
        message: &Message,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
        pipeline: &mut Pipeline,
    ) -> Result<(), Reason> {
        let at = self.frame_of(now, &message.route, pipeline);
        let open = &mut self.open[at];
        let start = open.content.len();
        if let Err(reason) = write(&mut open.content) {
            open.content.truncate(start);
            if open.events.is_empty() {
                self.remove(at);
            }
            return Err(reason);
        }
        end_line(&mut open.content, start);
        let bytes = open.content.len();
        open.events.push(Event::of(message));
        self.events += 1;
        self.bytes += bytes - start;
        if bytes >= FRAME_BYTES.min(pipeline.content_bytes_max()) {
            self.close_full(now, at, start, pipeline);
        }
        Ok(())
    }

    /// Closes the frames whose time has come.
    pub(crate) fn close_due(&mut self, now: Instant, pipeline: &mut Pipeline) {
        if self.open.is_empty() || !pipeline.is_hungry() {
            return;
        }
        let is_idle = pipeline.is_idle();
        let mut at = 0;
        while let Some(open) = self.open.get(at) {
            if is_idle || open.since + self.linger <= now {
                self.close(at, pipeline);
            } else {
                at += 1;
            }
        }
    }

    /// Closes all frames.
    pub(crate) fn close_all(&mut self, pipeline: &mut Pipeline) {
        while !self.open.is_empty() {
            self.close(0, pipeline);
        }
    }

    /// Where the open frame of this subject is. If there is none, one is opened.
    #[inline]
    fn frame_of(&mut self, now: Instant, route: &Rc<Route>, pipeline: &mut Pipeline) -> usize {
        let at = route.open_at.get();
        match self.open.get(at) {
            Some(open) if Rc::ptr_eq(&open.route, route) => at,
            _ => self.look_for_frame(now, route, pipeline),
        }
    }

    #[cold]
    fn look_for_frame(&mut self, now: Instant, route: &Rc<Route>, pipeline: &mut Pipeline) -> usize {
        // A route may have been made anew for a subject whose frame is open.
        let found = self.open.iter().position(|open| open.route.subject == route.subject);
        if let Some(at) = found {
            return at;
        }
        if self.open.len() >= OPEN_MAX {
            let oldest = (0..self.open.len()).min_by_key(|&at| self.open[at].since).unwrap_or(0);
            self.close(oldest, pipeline);
        }
        self.open(now, Rc::clone(route), pipeline)
    }

    fn open(&mut self, now: Instant, route: Rc<Route>, pipeline: &mut Pipeline) -> usize {
        let at = self.open.len();
        route.open_at.set(at);
        let content = pipeline.sealer().room();
        self.open.push(Open { route, content, events: Vec::new(), since: now });
        at
    }

    /// Closes a frame that its last event, which begins at `start`, has filled. If it is too large for the server with that event,
    /// the event begins the next frame.
    fn close_full(&mut self, now: Instant, at: usize, start: usize, pipeline: &mut Pipeline) {
        let bytes_max = pipeline.content_bytes_max();
        let open = &mut self.open[at];
        let (bytes, route) = (open.content.len(), Rc::clone(&open.route));
        let last = if bytes > bytes_max && start > 0 { open.events.pop() } else { None };
        let Some(last) = last else {
            self.close(at, pipeline);
            return;
        };
        let line = open.content.split_off(start);
        self.events -= 1;
        self.bytes -= line.len();
        self.close(at, pipeline);
        let at = self.open(now, route, pipeline);
        self.events += 1;
        self.bytes += line.len();
        let open = &mut self.open[at];
        open.content.extend_from_slice(&line);
        open.events.push(last);
        if line.len() >= FRAME_BYTES.min(bytes_max) {
            self.close(at, pipeline);
        }
    }

    fn close(&mut self, at: usize, pipeline: &mut Pipeline) {
        let Open { route, content, events, .. } = self.remove(at);
        self.events -= events.len();
        self.bytes -= content.len();
        if let Some(message) = pipeline.sealer().seal(route, content, events) {
            pipeline.push_packed(message);
        }
    }

    fn remove(&mut self, at: usize) -> Open {
        let removed = self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at) {
            moved.route.open_at.set(at);
        }
        removed
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::clock::Clock;
    use crate::config::Mode;
    use crate::envelope::Envelope;
    use crate::frame::{self, unpack};
    use crate::publisher::outgoing::Address;
    use crate::publisher::pipeline::{
        Fate, Limits, LinkAction, Outcome, ServerInfo, StreamInfo, StreamState,
    };
    use crate::publisher::reply::Reply;
    use crate::publisher::retry::{Cause, Verdict};
    use crate::publisher::server::ServerVersion;
    use crate::publisher::stamp::{ProducerNames, Stamper};
    use crate::record::{Body, Head};
    use crate::subject::{Prefix, Subjects};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const RINGS: usize = 3;
    const LINGER: Duration = Duration::from_millis(5);

    struct Rig {
        packer: Packer,
        renderer: Renderer,
        pipeline: Pipeline,
        clock: std::sync::Arc<Clock>,
        now: Instant,
        outcomes: Vec<Outcome>,
        /// What left, as a reader sees it: subject, ring and number of each event.
        read: Vec<(String, usize, u64)>,
        frames: usize,
        max_payload: usize,
        /// The largest message that the stream takes, which it tells who looks at it.
        stream_max: usize,
        /// Subjects that are full, and how often they refuse until they have room.
        full: BTreeMap<String, usize>,
    }

    fn ring_of(event: &Event) -> usize {
        let Origin::Ring(ring) = event.origin else { panic!("nothing here comes from a spool") };
        ring
    }

    impl Rig {
        /// With a server that takes payloads of so many bytes.
        fn new(encoding: Option<Encoding>, max_payload: usize) -> Self {
            let (clock, now) = (std::sync::Arc::new(Clock::detect()), Instant::now());
            let limits = Limits {
                window_events: 4096,
                window_bytes: 16 << 20,
                message_bytes_max: 64 << 10,
                ack_timeout: Duration::from_secs(5),
                mode: Mode::Async,
            };
            let stamper = Stamper::new(ProducerNames::new(0, RINGS), RINGS);
            let subjects = Subjects::new(&Prefix::default(), 1);
            let mut rig = Self {
                packer: Packer::new(LINGER),
                renderer: Renderer::new(std::sync::Arc::clone(&clock), subjects, true, 64 << 10, stamper),
                pipeline: Pipeline::new(now, limits, ProducerNames::new(0, RINGS), 0),
                clock,
                now,
                outcomes: Vec::new(),
                read: Vec::new(),
                frames: 0,
                max_payload,
                stream_max: usize::MAX,
                full: BTreeMap::new(),
            };
            rig.pipeline.pack_with(Compressor::new(encoding).unwrap());
            rig.link();
            rig
        }

        /// Does what the pipeline wants of the connection.
        fn link(&mut self) {
            while let Some(action) = self.pipeline.poll_link(self.now) {
                match action {
                    LinkAction::Connect => {
                        let server =
                            ServerInfo { max_payload: self.max_payload, version: ServerVersion::NONE };
                        self.pipeline.handle_connected(self.now, server);
                    }
                    LinkAction::LookUpStream => {
                        let info = StreamInfo {
                            subjects: vec![">".to_owned()],
                            created: "then".to_owned(),
                            duplicate_window: Duration::from_secs(120),
                            message_bytes_max: Some(self.stream_max),
                            ..StreamInfo::default()
                        };
                        self.pipeline.handle_stream(self.now, StreamState::Found(info));
                    }
                    LinkAction::Disconnect | LinkAction::Read { .. } => {
                        unreachable!("every answer comes at once")
                    }
                }
            }
        }

        /// The connection is lost and made again, when nothing is in doubt.
        fn reconnect(&mut self) {
            self.pipeline.handle_disconnected(self.now);
            while !self.pipeline.is_connected() {
                self.now += Duration::from_secs(1);
                self.link();
            }
        }

        /// Takes an event with a body of JSON.
        fn take(&mut self, ring: usize, name: &str, body: &[u8]) -> Result<(), Reason> {
            let head = Head {
                timestamp: self.clock.now(),
                lost: 0,
                name: name.as_bytes(),
                request_id: None,
                trace: None,
                sample: 1,
                body: Body::Json,
            };
            let record = [&head.fixed()[..], name.as_bytes(), body].concat();
            self.packer.take(self.now, ring, &record, &mut self.renderer, &mut self.pipeline)
        }

        /// Sends what may be sent; each frame is stored, or refused for good; for its size if the stream does not take it.
        fn send(&mut self, mut is_stored: impl FnMut(usize) -> bool) {
            let names = ProducerNames::new(0, RINGS);
            loop {
                self.link();
                let mut answers = Vec::new();
                while let Some(sending) = self.pipeline.poll_send(self.now) {
                    let packed = sending.packed.expect("all is packed");
                    let count = packed.events.len().to_string();
                    let header = |name: &str| match name {
                        frame::COUNT => Some(count.as_str()),
                        frame::CONTENT_ENCODING => packed.encoding.map(Encoding::name),
                        _ => None,
                    };
                    let bytes = sending.payload.len() + sending.headers().bytes(&names);
                    assert!(bytes <= self.max_payload, "the server would end the connection");
                    let subject = String::from_utf8(sending.subject.to_vec()).unwrap();
                    let refusals = self.full.get_mut(&subject).filter(|refusals| **refusals > 0);
                    let verdict = if bytes > self.stream_max {
                        Some(Verdict::Final(Reason::TooLarge))
                    } else if let Some(refusals) = refusals {
                        *refusals -= 1;
                        Some(Verdict::Park(Cause::StreamFull))
                    } else {
                        (!is_stored(self.frames)).then_some(Verdict::Final(Reason::Rejected))
                    };
                    let stored = verdict.is_none();
                    self.frames += 1;
                    for event in unpack(header, sending.payload).unwrap().iter().filter(|_| stored) {
                        let envelope = Envelope::parse(event).unwrap();
                        let (producer, seq) = envelope.stamp().unwrap();
                        let ring = producer.rsplit('.').next().unwrap().parse().unwrap();
                        self.read.push((subject.clone(), ring, seq));
                    }
                    let Address::Single(token) = sending.address else {
                        unreachable!("there are no batches")
                    };
                    answers.push((token, verdict));
                }
                if answers.is_empty() {
                    self.pipeline.check();
                    let waits = !self.pipeline.is_empty() && self.pipeline.is_idle();
                    let Some(deadline) = self.pipeline.next_deadline().filter(|_| waits) else { break };
                    self.now = self.now.max(deadline);
                    self.pipeline.handle_time(self.now);
                    continue;
                }
                for (token, verdict) in answers {
                    let reply = match verdict {
                        None => Reply::Stored { sequence: 1, duplicate: false },
                        Some(verdict) => Reply::Refused { verdict, text: String::new() },
                    };
                    self.pipeline.handle_reply(self.now, token, reply);
                }
            }
            self.outcomes.extend(self.pipeline.drain_outcomes());
        }

        fn open_events(&self) -> usize {
            self.pipeline.open_events() + self.packer.events()
        }
    }

    #[test]
    fn a_lone_event_leaves_at_once_and_those_behind_an_open_answer_wait_for_the_linger() {
        let mut rig = Rig::new(None, 1 << 20);
        rig.take(0, "a", b"1").unwrap();
        rig.packer.close_due(rig.now, &mut rig.pipeline);
        assert!(rig.pipeline.poll_send(rig.now).is_some(), "nothing is unanswered");
        // The window is one message now, so nothing more could be sent, however long it waits.
        rig.take(0, "a", b"2").unwrap();
        rig.now += LINGER * 2;
        rig.packer.close_due(rig.now, &mut rig.pipeline);
        assert_eq!((rig.packer.frames(), rig.packer.next_deadline(&rig.pipeline)), (1, None));
        rig.send(|_| true);
        assert_eq!(rig.packer.events(), 1);
    }

    #[test]
    fn a_full_frame_is_closed_whatever_the_pipeline_does() {
        let mut rig = Rig::new(None, 1 << 20);
        rig.pipeline.handle_disconnected(rig.now);
        let body = format!("{:?}", "x".repeat(1000));
        while rig.pipeline.is_empty() {
            rig.take(0, "a", body.as_bytes()).unwrap();
        }
        assert_eq!((rig.packer.frames(), rig.packer.bytes(), rig.packer.events()), (0, 0, 0));
        assert!(rig.pipeline.open_events() > 25);
    }

    #[test]
    fn an_event_that_is_refused_leaves_nothing_behind() {
        let mut rig = Rig::new(None, 1 << 20);
        assert_eq!(rig.take(0, "a", b"{"), Err(Reason::Serialize));
        assert_eq!((rig.packer.frames(), rig.packer.bytes()), (0, 0));
        rig.take(0, "a", b"1").unwrap();
        let before = rig.packer.bytes();
        assert_eq!(rig.take(0, "a", b"]"), Err(Reason::Serialize));
        assert_eq!((rig.packer.events(), rig.packer.bytes()), (1, before));
        rig.packer.close_all(&mut rig.pipeline);
        rig.send(|_| true);
        assert_eq!(rig.read, [("event.1.a".to_owned(), 0, 2)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take {
            ring: usize,
            name: usize,
            bytes: usize,
        },
        Pass(Duration),
        CloseAll,
        Send {
            stored: bool,
        },
        /// The stream takes so much from now on; it tells who looks at it.
        Shrink(usize),
        /// There is another connection, to a server that takes so much.
        Reconnect(usize),
        /// A subject refuses so often from now on.
        Fill {
            name: usize,
            refusals: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = prop_oneof![20 => 1..300usize, 2 => 2000..9000usize, 1 => 20_000..70_000usize];
        // More names than frames are open at a time, most of them seldom.
        let name = prop_oneof![8 => 0..4usize, 2 => 0..OPEN_MAX * 2];
        prop_oneof![
            30 => (0..RINGS, name, bytes).prop_map(|(ring, name, bytes)| Step::Take { ring, name, bytes }),
            2 => (0..10_000u64).prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
            1 => Just(Step::CloseAll),
            3 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(|stored| Step::Send { stored }),
            1 => prop_oneof![3 => 300..40_000usize, 1 => Just(usize::MAX)].prop_map(Step::Shrink),
            1 => prop_oneof![3 => 300..40_000usize, 1 => Just(1usize << 20)].prop_map(Step::Reconnect),
            1 => (0..4usize, 1..8usize).prop_map(|(name, refusals)| Step::Fill { name, refusals }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Beside an oracle that knows only what was taken, by subject.
        #[test]
        fn every_event_has_one_fate_and_stands_in_one_frame_in_the_order_of_its_subject(
            steps in proptest::collection::vec(step(), 1..400),
            encoding in prop_oneof![Just(None), Just(Some(Encoding::Lz4)), Just(Some(Encoding::Zstd))],
            max_payload in prop_oneof![Just(1usize << 20), 4000..40_000usize],
        ) {
            let encoding = encoding.filter(|encoding| encoding.is_built());
            let mut rig = Rig::new(encoding, max_payload);
            let mut taken: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
            let mut numbers = [0; RINGS];
            let mut offered = 0;
            let mut least = max_payload;
            for step in steps {
                match step {
                    Step::Take { ring, name, bytes } => {
                        let body = format!("{:?}", "x".repeat(bytes));
                        numbers[ring] += 1;
                        if rig.take(ring, &format!("n{name}"), body.as_bytes()).is_ok() {
                            offered += 1;
                            taken.entry(format!("event.1.n{name}")).or_default().push((ring, numbers[ring]));
                        }
                    }
                    Step::Pass(time) => {
                        rig.now += time;
                        rig.packer.close_due(rig.now, &mut rig.pipeline);
                    }
                    Step::CloseAll => rig.packer.close_all(&mut rig.pipeline),
                    Step::Send { stored } => rig.send(|_| stored),
                    Step::Shrink(bytes) => {
                        rig.stream_max = bytes;
                        least = least.min(bytes);
                    }
                    Step::Reconnect(bytes) => {
                        rig.max_payload = bytes;
                        least = least.min(bytes);
                        rig.reconnect();
                    }
                    Step::Fill { name, refusals } => {
                        rig.full.insert(format!("event.1.n{name}"), refusals);
                    }
                }
                prop_assert!(rig.packer.frames() <= OPEN_MAX);
                let settled: usize = rig.outcomes.iter().map(|outcome| outcome.message.events()).sum();
                prop_assert_eq!(rig.open_events() + settled, offered);
            }
            rig.packer.close_all(&mut rig.pipeline);
            prop_assert_eq!((rig.packer.bytes(), rig.packer.events()), (0, 0));
            rig.send(|_| true);
            prop_assert!(rig.pipeline.is_empty());

            let mut by_subject: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
            let mut acked = Vec::new();
            for outcome in &rig.outcomes {
                let packed = outcome.message.packed.as_ref().unwrap();
                if outcome.fate == Fate::Dropped(Reason::TooLarge) {
                    let headers = crate::publisher::outgoing::Headers::of(&outcome.message);
                    let bytes = packed.payload.len() + headers.bytes(&ProducerNames::new(0, RINGS));
                    prop_assert!(packed.events.len() == 1 && bytes > least, "{packed:?}, {bytes} bytes");
                }
                prop_assert_eq!((packed.events[0].seq, packed.events[0].origin),
                    (outcome.message.seq, outcome.message.origin));
                let subject = String::from_utf8(outcome.message.route.subject.to_vec()).unwrap();
                for event in &packed.events {
                    by_subject.entry(subject.clone()).or_default().push((ring_of(event), event.seq));
                    if matches!(outcome.fate, Fate::Acked { .. }) {
                        acked.push((subject.clone(), ring_of(event), event.seq));
                    }
                }
            }
            // Fates of one subject may come in another order than its frames: one that is too large is dropped before it is sent.
            by_subject.values_mut().chain(taken.values_mut()).for_each(|events| events.sort_unstable());
            prop_assert_eq!(by_subject, taken);
            let mut last = BTreeMap::new();
            for (subject, ring, seq) in &rig.read {
                let before = last.insert((subject, ring), seq);
                prop_assert!(before.is_none_or(|before| before < seq));
            }
            rig.read.sort_unstable();
            acked.sort_unstable();
            prop_assert_eq!(rig.read, acked);
        }
    }
}
