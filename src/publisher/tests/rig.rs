//! A pipeline, a server that does what the test says, and a clock that the test moves.

use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, BatchToken, MessageId, Op, Token};
use crate::publisher::pipeline::{
    Fate, Limits, LinkAction, Notice, Outcome, Pipeline, Read, SETTLING, ServerInfo, StoredMessage,
    StreamInfo, StreamState,
};
use crate::publisher::reply::{BatchReply, Failure, Reply};
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::route::Route;
use crate::publisher::server::ServerVersion;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::{Message, Origin, PARTS};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const WINDOW: usize = 64;

/// What becomes of the next message or word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Store,
    /// Stores it, but what the server says to it is lost.
    StoreSilently,
    /// It is lost, and what is sent after it is not: a change of the leader can do that.
    Lose,
    /// It is still on its way when the connection ends, and may arrive later; so is all that is sent after it.
    Swallow,
    Refuse(Verdict),
    /// We may not publish to its subject.
    Deny,
}

/// An answer on its way.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Single(Token, Reply),
    Batch(BatchToken, BatchReply),
    Denied(Bytes),
}

/// What was sent, as the server sees it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) address: Address,
    pub(super) id: Option<MessageId>,
    pub(super) subject: Bytes,
    pub(super) payload: Bytes,
}

impl Sent {
    /// The message's number with its producer, which the rig writes into its payload; none for a word about a batch.
    pub(super) fn seq(&self) -> Option<u64> {
        Some(self.key()?.1)
    }

    pub(super) fn op(&self) -> Option<Op> {
        match self.address {
            Address::Single(_) => None,
            Address::Batch(token) => Some(token.op),
        }
    }

    fn key(&self) -> Option<Key> {
        key(&self.payload)
    }
}

/// Producer and number of a message.
type Key = (u64, u64);

fn key(payload: &[u8]) -> Option<Key> {
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    Some((number(payload.get(..8)?)?, number(payload.get(8..16)?)?))
}

/// A stream as nats-server keeps it, with what it remembers of ids and batches.
#[derive(Debug, Default)]
pub(super) struct Server {
    /// By sequence, from 1; what was removed leaves a hole.
    pub(super) messages: Vec<Option<(Bytes, Bytes)>>,
    ids: HashMap<MessageId, u64>,
    /// The last stored place of each batch, and how many messages each acknowledgement covers.
    pub(super) batches: HashMap<u64, ServerBatch>,
    pub(super) allows_batches: bool,
    /// Messages that it has room for.
    pub(super) room: usize,
    pub(super) created: u32,
    /// It does not let its messages be read.
    pub(super) hides_messages: bool,
    /// So many reads have no answer.
    pub(super) reads_lost: u32,
    /// Answers to more than one message at once.
    pub(super) flow: u64,
    /// The largest message that it takes, headers included.
    pub(super) message_bytes_max: Option<usize>,
    /// Subjects of which it takes nothing, and what it says.
    pub(super) refuses: HashMap<Bytes, Verdict>,
}

#[derive(Debug)]
pub(super) struct ServerBatch {
    stored: u64,
    acked: u64,
}

impl Server {
    /// Stores a message, or says why not.
    fn store(&mut self, sent: &Sent) -> Result<(u64, bool), Verdict> {
        if let Some(&sequence) = sent.id.as_ref().and_then(|id| self.ids.get(id)) {
            return Ok((sequence, true));
        }
        if let Some(&verdict) = self.refuses.get(&sent.subject) {
            return Err(verdict);
        }
        if self.messages.iter().flatten().count() >= self.room {
            return Err(Verdict::Retry(Cause::StreamFull));
        }
        self.messages.push(Some((sent.subject.clone(), sent.payload.clone())));
        let sequence = self.messages.len() as u64;
        if let Some(id) = sent.id {
            self.ids.insert(id, sequence);
        }
        Ok((sequence, false))
    }

    fn single(&mut self, token: Token, sent: &Sent) -> Vec<Answer> {
        let reply = match self.store(sent) {
            Ok((sequence, duplicate)) => Reply::Stored { sequence, duplicate },
            Err(verdict) => Reply::Refused { verdict, text: String::new() },
        };
        vec![Answer::Single(token, reply)]
    }

    /// As tried on nats-server 2.15.1; see `publisher/pipeline/fast.rs`.
    fn batch(&mut self, token: BatchToken, sent: &Sent) -> Vec<Answer> {
        let mut replies = Vec::new();
        self.batch_replies(token, sent, &mut replies);
        replies.into_iter().map(|reply| Answer::Batch(token, reply)).collect()
    }

    fn batch_replies(&mut self, token: BatchToken, sent: &Sent, replies: &mut Vec<BatchReply>) {
        let failed = |failure| BatchReply::Failed { failure, text: String::new() };
        if !self.allows_batches {
            self.batches.clear();
            return replies.push(failed(Failure::Disabled));
        }
        let flow = self.flow.min(u64::from(token.flow));
        if token.seq == 1 && !self.batches.contains_key(&token.batch) {
            assert!(matches!(token.op, Op::Start | Op::Commit), "{token:?} cannot begin a batch");
            if token.op == Op::Start {
                replies.push(BatchReply::Ack { seq: 0, messages: flow });
            }
            match self.store(sent) {
                Ok((sequence, _)) if token.op == Op::Commit => {
                    replies.push(BatchReply::Ended { count: 1, sequence });
                }
                Ok(_) => {
                    self.batches.insert(token.batch, ServerBatch { stored: 1, acked: 0 });
                    self.acknowledge(token, flow, replies);
                }
                Err(verdict) => replies.push(failed(Failure::Other(verdict))),
            }
            return;
        }
        let Some(batch) = self.batches.get_mut(&token.batch) else {
            return replies.push(failed(Failure::Unknown));
        };
        let expected = batch.stored + u64::from(token.op != Op::Ping);
        if token.seq != expected {
            replies.push(BatchReply::Gap);
            return self.end(token.batch, replies);
        }
        match token.op {
            Op::Ping => replies.push(BatchReply::Ack { seq: batch.acked, messages: flow }),
            Op::End => self.end(token.batch, replies),
            Op::Start | Op::Append | Op::Commit => {
                if let Err(verdict) = self.store(sent) {
                    replies.push(BatchReply::Refused { seq: token.seq, verdict, text: String::new() });
                    return self.end(token.batch, replies);
                }
                if let Some(batch) = self.batches.get_mut(&token.batch) {
                    batch.stored += 1;
                }
                match token.op {
                    Op::Commit => self.end(token.batch, replies),
                    _ => self.acknowledge(token, flow, replies),
                }
            }
        }
    }

    fn acknowledge(&mut self, token: BatchToken, flow: u64, replies: &mut Vec<BatchReply>) {
        let Some(batch) = self.batches.get_mut(&token.batch) else { return };
        if batch.stored >= batch.acked + flow {
            batch.acked = batch.stored;
            replies.push(BatchReply::Ack { seq: batch.acked, messages: flow });
        }
    }

    fn end(&mut self, batch: u64, replies: &mut Vec<BatchReply>) {
        let Some(batch) = self.batches.remove(&batch) else { return };
        replies.push(BatchReply::Ended { count: batch.stored, sequence: self.messages.len() as u64 });
    }

    /// What a restart leaves of an R1 stream: the messages, and the ids that are stored with them.
    pub(super) fn restart(&mut self) {
        self.batches.clear();
    }

    pub(super) fn info(&self) -> StreamState {
        let removed = self.messages.iter().take_while(|message| message.is_none()).count() as u64;
        StreamState::Found(StreamInfo {
            subjects: vec!["event.1.>".to_owned()],
            allows_batches: self.allows_batches,
            created: self.created.to_string(),
            first_sequence: removed + 1,
            last_sequence: self.messages.len() as u64,
            duplicate_window: Duration::from_secs(120),
            message_bytes_max: self.message_bytes_max,
            bytes_max: None,
        })
    }

    fn read(&mut self, from: u64, to: u64) -> Read {
        if self.hides_messages {
            return Read::Denied;
        }
        if self.reads_lost > 0 {
            self.reads_lost -= 1;
            return Read::Failed;
        }
        let page = &self.messages[from as usize - 1..to as usize];
        let messages: Vec<_> = page
            .iter()
            .flatten()
            .map(|(subject, payload)| StoredMessage {
                subject: subject.clone(),
                payload: payload.clone(),
                frame_headers: Vec::new(),
            })
            .collect();
        Read::Page { holes: (page.len() - messages.len()) as u64, messages }
    }

    /// Producers and numbers of all that is stored, in order.
    pub(super) fn stored(&self) -> Vec<Key> {
        self.messages.iter().flatten().filter_map(|(_, payload)| key(payload)).collect()
    }

    pub(super) fn forget_ids(&mut self) {
        self.ids.clear();
    }
}

pub(super) struct Rig {
    pub(super) pipeline: Pipeline,
    pub(super) server: Server,
    pub(super) now: Instant,
    /// Answers on their way, oldest first.
    pub(super) answers: VecDeque<Answer>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) offered: u64,
    pub(super) connects: usize,
    pub(super) reads: usize,
    /// Messages that were to be sent again, as the metric counts them.
    pub(super) retries: u64,
    /// What was sent on connections that are gone and did not arrive yet.
    pub(super) ghosts: VecDeque<Sent>,
    pub(super) refused_for_good: usize,
    pub(super) max_payload: usize,
    routes: HashMap<Bytes, Rc<Route>>,
}

impl Rig {
    pub(super) fn new(mode: Mode) -> Self {
        let now = Instant::now();
        let limits = Limits {
            window_events: WINDOW,
            window_bytes: 1 << 20,
            message_bytes_max: 1 << 10,
            ack_timeout: ACK_TIMEOUT,
            mode,
        };
        let server = Server { allows_batches: true, room: usize::MAX, flow: u64::MAX, ..Server::default() };
        Self {
            pipeline: Pipeline::new(now, limits, ProducerNames::new(0, 8), 7),
            server,
            now,
            answers: VecDeque::new(),
            outcomes: Vec::new(),
            offered: 0,
            connects: 0,
            reads: 0,
            retries: 0,
            ghosts: VecDeque::new(),
            refused_for_good: 0,
            max_payload: 1 << 20,
            routes: HashMap::new(),
        }
    }

    /// Connected to a stream that covers all subjects.
    pub(super) fn connected(mode: Mode) -> Self {
        Self::with_max_payload(mode, 1 << 20)
    }

    /// The same with a server that takes so many bytes.
    pub(super) fn with_max_payload(mode: Mode, max_payload: usize) -> Self {
        let mut rig = Self::new(mode);
        rig.max_payload = max_payload;
        let stream = rig.server.info();
        rig.connect(stream);
        rig
    }

    pub(super) fn greet(&mut self) {
        self.connects += 1;
        let server = ServerInfo { max_payload: self.max_payload, version: ServerVersion(2, 15, 1) };
        self.pipeline.handle_connected(self.now, server);
    }

    pub(super) fn connect(&mut self, stream: StreamState) {
        assert_eq!(self.link(), Some(LinkAction::Connect));
        self.greet();
        assert_eq!(self.link(), Some(LinkAction::LookUpStream));
        self.pipeline.handle_stream(self.now, stream);
    }

    pub(super) fn link(&mut self) -> Option<LinkAction> {
        self.pipeline.poll_link(self.now)
    }

    /// Does what the pipeline wants of the connection, with a server that works.
    pub(super) fn obey(&mut self) {
        while let Some(action) = self.link() {
            self.obey_one(action);
        }
        self.collect();
    }

    pub(super) fn obey_one(&mut self, action: LinkAction) {
        match action {
            LinkAction::Connect => self.greet(),
            LinkAction::LookUpStream => self.pipeline.handle_stream(self.now, self.server.info()),
            LinkAction::Read { from, to } => {
                self.reads += 1;
                self.pipeline.handle_read(self.now, self.server.read(from, to));
            }
            LinkAction::Disconnect => self.disconnect(),
        }
    }

    pub(super) fn offer(&mut self, events: u64) {
        for _ in 0..events {
            self.offer_to("event.1.a");
        }
    }

    /// Offers one event, and returns its number.
    pub(super) fn offer_to(&mut self, subject: &str) -> u64 {
        self.offered += 1;
        self.push(message(Origin::Ring(0), self.offered, subject), 16);
        self.offered
    }

    /// The one route of a subject.
    pub(super) fn route(&mut self, subject: &Bytes) -> Rc<Route> {
        let route = self.routes.entry(subject.clone()).or_insert_with(|| Route::new("a", subject.clone()));
        Rc::clone(route)
    }

    /// Pushes a message with a payload of at least `len` bytes, in which its key stands.
    pub(super) fn push(&mut self, mut message: Message, len: usize) {
        message.route = self.route(&message.route.subject);
        let producer = match message.origin {
            Origin::Ring(ring) => ring as u64,
            Origin::Bus => u64::MAX,
            Origin::Past(_) | Origin::Log(_) => unreachable!("nothing here comes from a spool"),
        };
        let seq = message.seq;
        let pushed: Result<(), Infallible> = self.pipeline.push(|payload| {
            let start = payload.len();
            payload.extend_from_slice(&producer.to_le_bytes());
            payload.extend_from_slice(&seq.to_le_bytes());
            payload.resize(start + len.max(16), b' ');
            Ok(message)
        });
        pushed.unwrap();
    }

    /// Sends all that may be sent now; `script` says what becomes of each. Returns the numbers of messages.
    pub(super) fn send(&mut self, mut script: impl FnMut(u64) -> Script) -> Vec<u64> {
        let sent = self.send_all(|sent| script(sent.seq().unwrap_or(0)));
        sent.iter().filter_map(Sent::seq).collect()
    }

    /// As [`send`](Self::send), with a script that sees all, and returns all.
    pub(super) fn send_all(&mut self, mut script: impl FnMut(&Sent) -> Script) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sending) = self.pipeline.poll_send(self.now) {
            let sent = Sent {
                address: sending.address,
                id: sending.id,
                subject: sending.subject.clone(),
                payload: Bytes::copy_from_slice(sending.payload),
            };
            match script(&sent) {
                Script::Store => {
                    let answers = self.arrive(&sent);
                    self.answers.extend(answers);
                }
                Script::StoreSilently => drop(self.arrive(&sent)),
                Script::Lose => {}
                Script::Swallow => self.ghosts.push_back(sent.clone()),
                Script::Refuse(verdict) => {
                    if matches!(verdict, Verdict::Final(_)) {
                        // What the server refuses for good it refuses also when it comes again.
                        self.ghosts.retain(|ghost| ghost.key() != sent.key());
                        self.refused_for_good += 1;
                    }
                    self.answers.push_back(refusal(sent.address, verdict));
                }
                Script::Deny => self.answers.push_back(Answer::Denied(sent.subject.clone())),
            }
            all.push(sent);
        }
        all
    }

    fn arrive(&mut self, sent: &Sent) -> Vec<Answer> {
        match sent.address {
            Address::Single(token) => self.server.single(token, sent),
            Address::Batch(token) => self.server.batch(token, sent),
        }
    }

    /// What was on its way in old connections arrives at last, so much of it. The answers find nobody.
    pub(super) fn let_ghosts_arrive(&mut self, ghosts: usize) {
        for ghost in self.ghosts.drain(..ghosts.min(self.ghosts.len())).collect::<Vec<_>>() {
            self.arrive(&ghost);
        }
    }

    pub(super) fn deliver(&mut self) {
        while self.deliver_one() {}
    }

    pub(super) fn deliver_one(&mut self) -> bool {
        match self.answers.pop_front() {
            None => return false,
            Some(Answer::Single(token, reply)) => self.pipeline.handle_reply(self.now, token, reply),
            Some(Answer::Batch(token, reply)) => self.pipeline.handle_batch_reply(self.now, token, reply),
            Some(Answer::Denied(subject)) => {
                let route = self.route(&subject);
                self.pipeline.handle_denied(self.now, &route);
            }
        }
        self.collect();
        true
    }

    pub(super) fn collect(&mut self) {
        self.pipeline.check();
        self.outcomes.extend(self.pipeline.drain_outcomes());
        for notice in self.pipeline.drain_notices() {
            if let Notice::Retry { messages, .. } = notice {
                self.retries += messages;
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pipeline.handle_time(self.now);
        self.collect();
    }

    /// Lets the time pass that the pipeline waits for.
    pub(super) fn pass_deadline(&mut self) {
        let deadline = self.pipeline.next_deadline().unwrap();
        self.pass(deadline.saturating_duration_since(self.now));
    }

    /// Lets everything settle with a server that works.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.obey();
            let rests = self.send_all(|_| Script::Store).is_empty() && self.answers.is_empty();
            self.deliver();
            if self.pipeline.is_empty() {
                return self.collect();
            }
            if rests && self.pipeline.next_deadline().is_some() {
                self.pass_deadline();
            }
        }
        panic!("no end: {:?}", self.pipeline);
    }

    /// Delivers events until the window is open.
    pub(super) fn warm_up(&mut self) {
        for _ in 0..10 {
            self.offer(self.pipeline.room() as u64);
            self.settle();
        }
    }

    /// Cuts the connection and makes a new one, after which nothing is sent yet.
    pub(super) fn reconnect(&mut self) {
        self.disconnect();
        self.recover();
    }

    /// Makes a new connection and finds out what is in doubt; nothing is sent yet.
    pub(super) fn recover(&mut self) {
        self.pass_deadline();
        self.obey();
        self.pass(SETTLING);
        self.obey();
    }

    /// Cuts the connection; what the server has said and we have not heard is lost.
    pub(super) fn disconnect(&mut self) {
        self.answers.clear();
        self.pipeline.handle_disconnected(self.now);
    }

    /// The server says something that is about nothing.
    pub(super) fn speak(&mut self) {
        let nobody = Token { number: u64::MAX, attempt: 0 };
        self.pipeline.handle_reply(self.now, nobody, Reply::Unintelligible(String::new()));
    }

    pub(super) fn fates(&self) -> BTreeMap<u64, Fate> {
        self.outcomes.iter().map(|outcome| (outcome.message.seq, outcome.fate)).collect()
    }

    pub(super) fn count(&self, fate: impl Fn(Fate) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| fate(outcome.fate)).count()
    }

    pub(super) fn acked(&self) -> usize {
        self.count(|fate| matches!(fate, Fate::Acked { .. }))
    }

    pub(super) fn indeterminate(&self) -> usize {
        self.count(|fate| fate == Fate::Indeterminate)
    }

    /// What holds after every run: each event has one fate, what is acked is stored, once and in order.
    #[track_caller]
    pub(super) fn check(&self) {
        let seqs: Vec<u64> = self.outcomes.iter().map(|outcome| outcome.message.seq).collect();
        let distinct: HashSet<_> = seqs.iter().collect();
        assert_eq!(distinct.len(), seqs.len(), "an event met two fates");
        assert_eq!(seqs.len() + self.pipeline.open_events(), self.offered as usize, "an event is lost");
        let stored: HashSet<Key> = self.server.stored().into_iter().collect();
        for outcome in &self.outcomes {
            let seq = outcome.message.seq;
            let Origin::Ring(ring) = outcome.message.origin else { continue };
            let is_stored = stored.contains(&(ring as u64, seq));
            match outcome.fate {
                Fate::Acked { .. } => assert!(is_stored, "{seq} is acked and not stored"),
                Fate::Dropped(_) => assert!(!is_stored, "{seq} is dropped and stored"),
                Fate::Indeterminate => {}
            }
        }
        self.check_order();
    }

    #[track_caller]
    pub(super) fn check_order(&self) {
        let mut last = HashMap::new();
        for (producer, seq) in self.server.stored() {
            let before = last.insert(producer, seq);
            assert!(before < Some(seq), "{seq} is stored behind {before:?}");
        }
    }
}

/// Of an attempt to send the message that was pushed as this one, from 0.
pub(super) fn token(place: u64, attempt: u32) -> Token {
    Token { number: place * PARTS, attempt }
}

fn refusal(address: Address, verdict: Verdict) -> Answer {
    match address {
        Address::Single(token) => Answer::Single(token, Reply::Refused { verdict, text: String::new() }),
        Address::Batch(token) => {
            let reply = BatchReply::Failed { failure: Failure::Other(verdict), text: String::new() };
            Answer::Batch(token, reply)
        }
    }
}

pub(super) fn message(origin: Origin, seq: u64, subject: &str) -> Message {
    Message {
        origin,
        seq,
        route: Route::new("a", subject.to_owned()),
        offered: 0,
        packed: None,
        sequence: None,
        trace: None,
    }
}

pub(super) const FULL: Script = Script::Refuse(Verdict::Retry(Cause::StreamFull));
pub(super) const BUSY: Script = Script::Refuse(Verdict::Retry(Cause::TooManyRequests));
pub(super) const TOO_LARGE: Script = Script::Refuse(Verdict::Final(Reason::TooLarge));
pub(super) const NO_STREAM: Script = Script::Refuse(Verdict::Retry(Cause::NoStream));
