//! The client: the real pipeline, driven as the worker and the NATS sink drive it.
//!
//! It takes turns as the worker does: events from the rings, time, what the pipeline decides, the books, and then what has been
//! heard. Between two turns some time passes, in which answers gather; a client that is paused takes its turn late.

use super::Micros;
use super::effort::Effort;
use super::judge::Judge;
use super::network::Network;
use super::plan::Plan;
use super::random::Random;
use super::trace::{Trace, say};
use super::wire::{Answer, Body, EventId, Info, Publish, Refusal, Reply as To, Request, Tag};
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, Sending};
use crate::publisher::pipeline::{
    Fate, Limits, LinkAction, Pipeline, Read, ServerInfo, StoredMessage, StreamInfo, StreamState,
};
use crate::publisher::reply::{BatchReply, Failure, Reply};
use crate::publisher::retry::{Verdict, judge};
use crate::publisher::route::Route;
use crate::publisher::server::ServerVersion;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::{Message, Origin};
use crate::sink::SinkEvent;
use bytes::Bytes;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// As in the worker: messages sent in one turn, and the longest sleep while anything is open.
const SEND_BATCH: usize = 256;
const ROUND: Micros = 1_000_000;

/// How often the ledger is reported; once a minute by default.
const STATS: Micros = 30_000_000;

/// How long the server may take to tell about the stream or to give out a page of it; as in `nats/look.rs`.
const REQUEST_TIMEOUT: Micros = 2_000_000;

const MAX_PAYLOAD: usize = 1 << 20;

pub(super) struct Client {
    process: usize,
    pipeline: Pipeline,
    origin: Instant,
    random: Random,
    turn_max: Micros,
    rings: Vec<VecDeque<Offered>>,
    ring_events: usize,
    window_events: usize,
    routes: Vec<Rc<Route>>,
    connection: Option<usize>,
    heard: VecDeque<SinkEvent>,
    /// The next turn.
    turn_at: Micros,
    /// Stopped until then.
    paused_until: Micros,
    open_request: Option<OpenRequest>,
    requests: u64,
    version: ServerVersion,
    report_at: Micros,
    /// Where these go, and the last one.
    report_subject: usize,
    last_gap: Option<u64>,
    stats_at: Micros,
    last_stats: Option<u64>,
    /// Something was lost that no report has said yet.
    has_gap: bool,
    effort: Effort,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct OpenRequest {
    number: u64,
    /// It is given up then.
    until: Micros,
    /// The sequences that are read; else the stream is looked up.
    reads: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Offered {
    id: EventId,
    subject: usize,
    bytes: usize,
}

impl Client {
    pub(super) fn start(now: Micros, origin: Instant, plan: &Plan, judge: &mut Judge) -> Self {
        let Plan { world, load, seed, .. } = plan;
        let process = judge.start(load.producers);
        let limits = Limits {
            window_events: world.window_events,
            window_bytes: world.window_bytes,
            message_bytes_max: load.event_bytes_max as usize + ENVELOPE_BYTES,
            ack_timeout: Duration::from_micros(world.ack_timeout),
            mode: world.mode,
        };
        let names = ProducerNames::new(process as u64, load.producers);
        let route = |subject: usize| Route::new(&subject.to_string(), format!("event.1.{subject}"));
        let mut random = Random::new(*seed, 5 + process as u64);
        let start = origin + Duration::from_micros(now);
        Self {
            process,
            pipeline: Pipeline::new(start, limits, names, random.next()),
            origin,
            random,
            turn_max: world.turn_max,
            rings: vec![VecDeque::new(); load.producers],
            ring_events: load.ring_events,
            window_events: world.window_events,
            routes: (0..load.subjects).map(route).collect(),
            connection: None,
            heard: VecDeque::new(),
            turn_at: now,
            paused_until: 0,
            open_request: None,
            requests: 0,
            version: world.version,
            report_at: now,
            report_subject: load.report_subject,
            last_gap: None,
            stats_at: now + STATS,
            last_stats: None,
            has_gap: false,
            effort: Effort::new(now, world.window_events),
        }
    }

    /// Events that are in its care.
    pub(super) fn held(&self) -> u64 {
        (self.rings.iter().map(VecDeque::len).sum::<usize>() + self.pipeline.open_events()) as u64
    }

    /// The same, but for events of these subjects.
    pub(super) fn held_beside(&self, subjects: &[usize]) -> u64 {
        let is_other = |offered: &&Offered| !subjects.contains(&offered.subject);
        let queued = self.rings.iter().flatten().filter(is_other).count();
        let names: Vec<&[u8]> = subjects.iter().map(|&subject| &*self.routes[subject].subject).collect();
        (queued + self.pipeline.open_events_beside(&names)) as u64
    }

    /// Whether all is settled but for events of these subjects, which wait.
    pub(super) fn is_idle_beside(&self, subjects: &[usize]) -> bool {
        if subjects.is_empty() {
            return self.held() == 0 && self.pipeline.is_empty();
        }
        self.held_beside(subjects) == 0
            && self.rings.iter().all(VecDeque::is_empty)
            && self.pipeline.is_at_rest()
    }

    pub(super) fn process(&self) -> usize {
        self.process
    }

    /// A thread publishes an event. Returns what it was, if a ring had room for it.
    pub(super) fn offer(
        &mut self,
        producer: usize,
        subject: usize,
        bytes: usize,
        now: Micros,
        judge: &mut Judge,
    ) -> Option<EventId> {
        let id = judge.offered(self.process, producer);
        if self.rings[producer].len() >= self.ring_events {
            judge.met(id, Fate::Dropped(Reason::QueueFull));
            self.has_gap = true;
            return None;
        }
        self.rings[producer].push_back(Offered { id, subject, bytes });
        self.wake(now);
        Some(id)
    }

    pub(super) fn pause(&mut self, until: Micros) {
        self.paused_until = self.paused_until.max(until);
    }

    pub(super) fn resume(&mut self) {
        self.paused_until = 0;
    }

    // ---- what it hears -------------------------------------------------------------------------------------------------------

    pub(super) fn connected(&mut self, now: Micros, connection: Option<usize>) {
        self.connection = connection;
        self.heard.push_back(match connection {
            Some(_) => SinkEvent::Connected(ServerInfo { max_payload: MAX_PAYLOAD, version: self.version }),
            None => SinkEvent::Disconnected(String::new()),
        });
        self.wake(now);
    }

    /// Its connection is gone. What it had heard of it and not looked at is looked at first, as the sink does.
    pub(super) fn disconnected(&mut self, now: Micros, network: &mut Network) {
        network.leave(now);
        self.connection = None;
        self.open_request = None;
        self.heard.push_back(SinkEvent::Disconnected(String::new()));
        self.wake(now);
    }

    pub(super) fn answered(&mut self, now: Micros, answer: Answer) {
        if self.connection != Some(answer.to.connection) {
            return;
        }
        if let Some(event) = self.understand(answer) {
            self.heard.push_back(event);
            self.wake(now);
        }
    }

    /// What the sink would make of it.
    fn understand(&mut self, answer: Answer) -> Option<SinkEvent> {
        match answer.to.tag {
            Tag::Message(token) => Some(SinkEvent::Reply(token, reply(answer.body))),
            Tag::Batch(token) => Some(SinkEvent::BatchReply(token, batch_reply(answer.body))),
            Tag::Request(number) => {
                let request = self.open_request.take_if(|request| request.number == number)?;
                Some(self.result(request, Some(answer.body)))
            }
            Tag::None => match answer.body {
                Body::Denied { subject } => Some(SinkEvent::Denied(self.routes[subject].subject.clone())),
                body => unreachable!("{body:?} answers nothing"),
            },
        }
    }

    /// What came of a request that was answered, or was not.
    fn result(&self, request: OpenRequest, answer: Option<Body>) -> SinkEvent {
        let Some((from, to)) = request.reads else {
            return SinkEvent::Stream(match answer {
                Some(Body::Info(Some(info))) => StreamState::Found(stream_info(info)),
                Some(_) => StreamState::Missing,
                None => StreamState::Unknown,
            });
        };
        let Some(Body::Messages(messages)) = answer else { return SinkEvent::Read(Read::Failed) };
        let holes = to + 1 - from - messages.len() as u64;
        let stored = |(subject, payload): (usize, Bytes)| StoredMessage {
            subject: self.routes[subject].subject.clone(),
            payload,
            frame_headers: Vec::new(),
        };
        SinkEvent::Read(Read::Page { messages: messages.into_iter().map(stored).collect(), holes })
    }

    // ---- its turns -----------------------------------------------------------------------------------------------------------

    /// When it does something next.
    pub(super) fn next_due(&self) -> Micros {
        self.turn_at.max(self.paused_until)
    }

    pub(super) fn turn(&mut self, now: Micros, network: &mut Network, judge: &mut Judge, trace: Trace) {
        let at = self.instant(now);
        if now > self.turn_at + 500_000 {
            // After a pause it first hears what has come meanwhile.
            self.hear(now, trace);
        }
        let taken = self.take_events();
        self.effort.events(taken);
        self.report(now, judge);
        self.pipeline.handle_time(at);
        let sent = self.carry_out(now, network, trace);
        self.give_up_request(now);
        let heard = self.hear(now, trace);
        self.book(judge, trace);
        judge.weigh(self.held());
        self.check_bounds(network);
        if !sent && !heard && taken == 0 {
            self.effort.spend(now, "turns for nothing");
        }
        self.turn_at = match sent || heard {
            true => now + self.random.between(1, self.turn_max),
            false => self.sleep_until(now),
        };
    }

    /// Ends every event that is open, as a close does at its deadline.
    pub(super) fn give_up(&mut self, now: Micros, judge: &mut Judge, trace: Trace) {
        let reason = self.pipeline.give_up(self.instant(now));
        for offered in self.rings.iter_mut().flat_map(|ring| ring.drain(..)) {
            judge.met(offered.id, Fate::Dropped(reason));
        }
        self.book(judge, trace);
        judge.weigh(0);
    }

    /// Returns how many it was.
    fn take_events(&mut self) -> usize {
        let mut taken = 0;
        for ring in &mut self.rings {
            while self.pipeline.room() > 0 {
                let Some(offered) = ring.pop_front() else { break };
                let message = Message {
                    origin: Origin::Ring(offered.id.producer),
                    seq: offered.id.seq,
                    route: Rc::clone(&self.routes[offered.subject]),
                    offered: 0,
                    packed: None,
                    sequence: None,
                    trace: None,
                };
                push(&mut self.pipeline, message, offered.id, offered.bytes);
                taken += 1;
            }
        }
        self.pipeline.expect_more(self.rings.iter().any(|ring| !ring.is_empty()));
        taken
    }

    /// Reports what was lost, as the worker reports gaps: once a second, while there is a connection.
    fn report(&mut self, now: Micros, judge: &mut Judge) {
        let is_open = |number: &u64| !self.pipeline.is_settled(*number);
        if !self.pipeline.is_connected() {
            return;
        }
        if now >= self.stats_at && self.last_stats.filter(is_open).is_none() {
            self.stats_at = now + STATS;
            self.last_stats = Some(self.pipeline.next_number());
            self.push_report(0, judge);
        }
        let is_on_its_way = self.last_gap.filter(|number| !self.pipeline.is_settled(*number)).is_some();
        if now >= self.report_at && self.has_gap && !is_on_its_way {
            self.report_at = now + ROUND;
            self.has_gap = false;
            self.last_gap = Some(self.pipeline.next_number());
            self.push_report(self.report_subject, judge);
        }
    }

    fn push_report(&mut self, subject: usize, judge: &mut Judge) {
        let id = judge.offered(self.process, self.rings.len());
        let message = Message {
            origin: Origin::Bus,
            seq: id.seq,
            route: Rc::clone(&self.routes[subject]),
            offered: 0,
            packed: None,
            sequence: None,
            trace: None,
        };
        push(&mut self.pipeline, message, id, 8);
    }

    /// Returns whether anything was sent.
    fn carry_out(&mut self, now: Micros, network: &mut Network, trace: Trace) -> bool {
        let at = self.instant(now);
        while let Some(action) = self.pipeline.poll_link(at) {
            say!(trace, now, "client: {action:?}");
            self.effort.spend(now, "questions and connections");
            match action {
                LinkAction::Connect => network.connect(now),
                LinkAction::Disconnect => self.leave(now, network),
                LinkAction::LookUpStream => self.request(now, network, None),
                LinkAction::Read { from, to } => self.request(now, network, Some((from, to))),
            }
        }
        for sent in 0..SEND_BATCH {
            let (process, reports) = (self.process, self.rings.len());
            let Some(sending) = self.pipeline.poll_send(at) else { return sent > 0 };
            self.effort.spend(now, "messages");
            let Some(connection) = self.connection else {
                self.leave(now, network);
                return true;
            };
            let publish = publish(process, reports, connection, &sending);
            say!(trace, now, "client: sends {} as {:?}", publish.id, sending.address);
            network.send(now, connection, Request::Publish(publish));
        }
        true
    }

    /// Leaves its connection, and hears nothing more of it.
    fn leave(&mut self, now: Micros, network: &mut Network) {
        self.heard.clear();
        self.disconnected(now, network);
    }

    fn request(&mut self, now: Micros, network: &mut Network, reads: Option<(u64, u64)>) {
        let Some(connection) = self.connection else { return };
        self.requests += 1;
        let number = self.requests;
        self.open_request = Some(OpenRequest { number, until: now + REQUEST_TIMEOUT, reads });
        let reply = To { connection, tag: Tag::Request(number) };
        network.send(
            now,
            connection,
            match reads {
                Some((from, to)) => Request::Read { from, to, reply },
                None => Request::Info { reply },
            },
        );
    }

    fn give_up_request(&mut self, now: Micros) {
        if let Some(request) = self.open_request.take_if(|request| request.until <= now) {
            self.heard.push_back(self.result(request, None));
        }
    }

    /// Returns whether there was anything to hear.
    fn hear(&mut self, now: Micros, trace: Trace) -> bool {
        let at = self.instant(now);
        let has_heard = !self.heard.is_empty();
        while let Some(event) = self.heard.pop_front() {
            say!(trace, now, "client: hears {event:?}");
            match event {
                SinkEvent::Connected(server) => {
                    self.effort.connection();
                    self.pipeline.handle_connected(at, server);
                }
                SinkEvent::Disconnected(_) => {
                    self.effort.connection();
                    self.pipeline.handle_disconnected(at);
                }
                SinkEvent::Stream(state) => self.pipeline.handle_stream(at, state),
                SinkEvent::Reply(token, reply) => self.pipeline.handle_reply(at, token, reply),
                SinkEvent::BatchReply(token, reply) => self.pipeline.handle_batch_reply(at, token, reply),
                SinkEvent::Read(read) => self.pipeline.handle_read(at, read),
                SinkEvent::Denied(subject) => {
                    let route = self.routes.iter().find(|route| route.subject == subject);
                    self.pipeline.handle_denied(at, route.expect("it is one of ours"));
                }
            }
        }
        has_heard
    }

    fn book(&mut self, judge: &mut Judge, trace: Trace) {
        for outcome in self.pipeline.drain_outcomes() {
            let producer = producer_of(outcome.message.origin, self.rings.len());
            let id = EventId { process: self.process, producer, seq: outcome.message.seq };
            say!(trace, self.turn_at, "client: {id} is {:?}", outcome.fate);
            judge.met(id, outcome.fate);
            self.effort.events(1);
            self.has_gap |= !matches!(outcome.fate, Fate::Acked { .. });
        }
        for notice in self.pipeline.drain_notices() {
            say!(trace, self.turn_at, "client: notes {notice:?}");
        }
    }

    /// Whatever happens, it keeps no more than it promised.
    fn check_bounds(&self, network: &Network) {
        /// Beside messages, as in `nats/sink.rs`: a client's queue that this fits into is never full.
        const QUEUE_SPARE: usize = 256;
        let Self { pipeline, rings, .. } = self;
        pipeline.check();
        let window = self.window_events;
        assert!(pipeline.open_events() <= window, "{} events in flight", pipeline.open_events());
        assert!(rings.iter().all(|ring| ring.len() <= self.ring_events));
        let queued = network.queued();
        assert!(queued <= window + QUEUE_SPARE, "{queued} frames are queued in the client");
    }

    fn sleep_until(&self, now: Micros) -> Micros {
        let deadline = self.pipeline.next_deadline();
        let deadline = deadline.map(|at| at.saturating_duration_since(self.origin).as_micros() as Micros + 1);
        let round = (!self.pipeline.is_empty() || self.has_gap).then_some(now + ROUND);
        let request = self.open_request.map(|request| request.until);
        let stats =
            self.pipeline.is_connected() && self.last_stats.is_none_or(|last| self.pipeline.is_settled(last));
        let stats = stats.then_some(self.stats_at);
        [deadline, round, request, stats].into_iter().flatten().min().unwrap_or(Micros::MAX).max(now + 1)
    }

    /// Something has come that it should look at.
    fn wake(&mut self, now: Micros) {
        let soon = now + self.random.between(1, self.turn_max);
        self.turn_at = self.turn_at.min(soon);
    }

    fn instant(&self, now: Micros) -> Instant {
        self.origin + Duration::from_micros(now)
    }
}

/// An envelope without its body has no more.
const ENVELOPE_BYTES: usize = 120;

/// What stands in an envelope before the name of its producer.
const BEFORE_STAMP: &str = r#"{"version":"v1","timestamp":"2026-01-01T00:00:00Z","producer":""#;

/// Hands a message over, with an envelope as its payload.
fn push(pipeline: &mut Pipeline, message: Message, id: EventId, bytes: usize) {
    let Ok(()) = pipeline.push::<Infallible>(|payload| {
        // Writing to a vector cannot fail.
        let _ =
            write!(payload, r#"{BEFORE_STAMP}{:016x}.{}","seq":{},"body":"#, id.process, id.producer, id.seq);
        payload.extend(std::iter::repeat_n(b'1', bytes));
        payload.push(b'}');
        Ok(message)
    });
}

/// The stamp in an envelope: its producer and its number.
fn stamp(payload: &[u8]) -> (usize, u64) {
    let mut numbers = payload[BEFORE_STAMP.len() + 17..]
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
    let producer = numbers.next().unwrap_or_default();
    (producer as usize, numbers.find(|&number| number > 0).unwrap_or_default())
}

fn publish(process: usize, reports: usize, connection: usize, sending: &Sending<'_>) -> Publish {
    let (producer, seq) = if sending.payload.is_empty() { (0, 0) } else { stamp(sending.payload) };
    let id = EventId { process, producer, seq };
    if let Some(message_id) = sending.id {
        let of = producer_of(message_id.origin, reports);
        assert!((of, message_id.seq) == (producer, seq), "{id} bears the id {message_id:?}");
    }
    let (tag, batch) = match sending.address {
        Address::Single(token) => (Tag::Message(token), None),
        Address::Batch(token) => (Tag::Batch(token), Some(token)),
    };
    Publish {
        subject: usize::from(sending.subject[sending.subject.len() - 1] - b'0'),
        id,
        payload: Bytes::copy_from_slice(sending.payload),
        has_message_id: sending.id.is_some(),
        batch,
        reply: To { connection, tag },
    }
}

fn producer_of(origin: Origin, reports: usize) -> usize {
    match origin {
        Origin::Ring(ring) => ring,
        Origin::Bus => reports,
        Origin::Past(_) | Origin::Log(_) => unreachable!("there is no spool in these worlds"),
    }
}

/// As `Reply::parse` reads it.
fn reply(body: Body) -> Reply {
    match body {
        Body::Stored { sequence, duplicate } => Reply::Stored { sequence, duplicate },
        Body::Refused(refusal) => Reply::Refused { verdict: verdict(refusal), text: refusal.text.to_owned() },
        Body::NoResponders => Reply::no_responders(),
        body => unreachable!("{body:?} answers no single message"),
    }
}

/// As `BatchReply::parse` reads it.
fn batch_reply(body: Body) -> BatchReply {
    match body {
        Body::Flow { seq, messages } => BatchReply::Ack { seq, messages },
        Body::Gap => BatchReply::Gap,
        Body::Failed { seq, refusal } => {
            BatchReply::Refused { seq, verdict: verdict(refusal), text: refusal.text.to_owned() }
        }
        Body::Ended { sequence, count } => BatchReply::Ended { count, sequence },
        Body::Refused(refusal) => {
            let failure = match refusal.err_code {
                10205..=10207 => Failure::Disabled,
                10208 => Failure::Unknown,
                _ => Failure::Other(verdict(refusal)),
            };
            BatchReply::Failed { failure, text: refusal.text.to_owned() }
        }
        Body::NoResponders => BatchReply::no_responders(),
        body => unreachable!("{body:?} answers no part of a batch"),
    }
}

fn verdict(refusal: Refusal) -> Verdict {
    judge(refusal.code.into(), refusal.err_code.into(), refusal.text)
}

fn stream_info(info: Info) -> StreamInfo {
    let subjects = match info.subjects {
        usize::MAX => vec!["event.1.>".to_owned()],
        subjects => (0..subjects).map(|subject| format!("event.1.{subject}")).collect(),
    };
    StreamInfo {
        subjects,
        allows_batches: info.allows_batches,
        created: info.created.to_string(),
        first_sequence: info.first,
        last_sequence: info.last,
        duplicate_window: Duration::from_micros(info.duplicate_window),
        message_bytes_max: None,
        bytes_max: None,
    }
}
