//! A pipeline and a server that says anything at all. What proptest and the fuzzer run.
//!
//! The bytes are the script: what is offered, what is sent, how time passes, and what the server says to whom, down to the JSON of its
//! answers. Whatever it says, each event has one fate, the window keeps its bounds, and no turn goes on for ever. Then an honest
//! server takes over, and everything that is open must meet its fate.

use super::outgoing::{Address, BatchToken, Op};
use super::pipeline::{
    Limits, LinkAction, Pipeline, Read, ServerInfo, StoredMessage, StreamInfo, StreamState,
};
use super::reply::{BatchReply, Reply};
use super::route::Route;
use super::server::ServerVersion;
use super::stamp::ProducerNames;
use super::window::{Message, Origin};
use crate::config::Mode;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

const WINDOW: usize = 32;
const WINDOW_BYTES: usize = 64 << 10;
const MESSAGE_BYTES_MAX: usize = 64;
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// More than a turn can have to send: all of the window, and a few words about a batch.
const TURN_MAX: usize = 2 * WINDOW + REPORTS_MAX + 16;
/// Reports may be pushed beyond the window, so the script may push so many.
const REPORTS_MAX: usize = 8;

/// Turns and time in which an honest server has brought everything to its end.
const HONEST_TURNS: usize = 20_000;
const HONEST_TIME: Duration = Duration::from_secs(600);

/// Turns at one moment in which nothing is sent, heard or done. One more is a spin.
const IDLE_TURNS: usize = 8;

/// Addresses that are remembered, so that late answers are drawn too.
const ADDRESSES_MAX: usize = 256;

/// Lets a server say what the bytes make of it.
pub(crate) fn any_answers(bytes: &[u8]) {
    let mut script = Script { bytes };
    let mode = script.pick(&[Mode::Auto, Mode::Fast, Mode::Async]);
    let mut trial = Trial::new(mode);
    while !script.bytes.is_empty() {
        trial.step(&mut script);
        trial.weigh();
    }
    trial.heal();
}

/// The script.
struct Script<'a> {
    bytes: &'a [u8],
}

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A number, most often one at an edge.
    fn number(&mut self) -> u64 {
        let small = u64::from(self.byte());
        match small {
            0..=199 => small % 40,
            200..=209 => u64::MAX,
            210..=219 => u64::MAX - 1,
            220..=229 => u64::MAX - u64::from(self.byte()),
            230..=239 => (1 << 63) + u64::from(self.byte()) - 128,
            240..=247 => (1 << 32) + u64::from(self.byte()) - 128,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// Some of the script itself.
    fn take(&mut self, most: usize) -> Vec<u8> {
        let len = self.below(most + 1).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken.to_vec()
    }

    /// An answer to a publish or to a part of a batch.
    fn answer(&mut self) -> Vec<u8> {
        let (a, b, c) = (self.number(), self.number(), self.number());
        let stream = self.pick(&["main", "main", "other", ""]);
        let text = self.pick(&[
            "maximum messages exceeded",
            "maximum messages per subject exceeded",
            "maximum bytes exceeded",
            "message too large",
            "write failed",
            "",
        ]);
        let code = self.pick(&[
            10077, 10077, 10054, 10167, 10023, 10008, 10059, 10109, 10158, 10163, 10205, 10208, 10211, 65_000,
        ]);
        let kind = self.pick(&["ack", "gap", "err", "", "odd"]);
        let answer = match self.below(8) {
            0 => format!(r#"{{"stream":"{stream}","seq":{a}}}"#),
            1 => format!(r#"{{"stream":"{stream}","seq":{a},"duplicate":true}}"#),
            2 => format!(r#"{{"stream":"{stream}","seq":{a},"count":{b},"batch":"b"}}"#),
            3 => format!(r#"{{"type":"{kind}","seq":{a},"msgs":{b},"last_seq":{c}}}"#),
            4 => format!(
                r#"{{"error":{{"code":503,"err_code":{code},"description":"{text}"}},"stream":"{stream}","seq":0}}"#
            ),
            5 => format!(
                r#"{{"type":"{kind}","seq":{a},"error":{{"code":{b},"err_code":{code},"description":"{text}"}}}}"#
            ),
            6 => format!(r#"{{"error":{{"code":{a},"err_code":{b},"description":"{text}"}}}}"#),
            _ => return self.take(64),
        };
        answer.into_bytes()
    }

    fn stream(&mut self) -> StreamState {
        if self.below(8) == 0 {
            return if self.below(2) == 0 { StreamState::Missing } else { StreamState::Unknown };
        }
        let subjects = self.pick(&["event.1.>", "event.1.>", "event.1.0", ""]);
        StreamState::Found(StreamInfo {
            subjects: vec![subjects.to_owned()],
            allows_batches: self.below(4) > 0,
            created: self.pick(&["1", "1", "2", ""]).to_owned(),
            first_sequence: self.number(),
            last_sequence: self.number(),
            duplicate_window: Duration::from_nanos(self.number()),
            message_bytes_max: Some(self.number() as usize),
            bytes_max: Some(self.number() as usize),
        })
    }

    fn read(&mut self) -> Read {
        let count = self.below(6);
        if count == 5 {
            return Read::Failed;
        }
        let message = |script: &mut Self| StoredMessage {
            subject: Bytes::from(format!("event.1.{}", script.below(4))),
            payload: Bytes::from(payload(u64::from(script.byte()))),
            frame_headers: Vec::new(),
        };
        Read::Page { messages: (0..count).map(|_| message(self)).collect(), holes: self.number() }
    }
}

fn payload(seq: u64) -> Vec<u8> {
    seq.to_le_bytes().to_vec()
}

struct Trial {
    pipeline: Pipeline,
    now: Instant,
    offered: u64,
    reports: usize,
    routes: [Rc<Route>; 4],
    open: HashSet<u64>,
    addresses: Vec<Address>,
    idle_turns: usize,
}

impl Trial {
    fn new(mode: Mode) -> Self {
        let now = Instant::now();
        let limits = Limits {
            window_events: WINDOW,
            window_bytes: WINDOW_BYTES,
            message_bytes_max: MESSAGE_BYTES_MAX,
            ack_timeout: ACK_TIMEOUT,
            mode,
        };
        Self {
            pipeline: Pipeline::new(now, limits, ProducerNames::new(0, 8), 7),
            now,
            offered: 0,
            reports: 0,
            routes: std::array::from_fn(|subject| Route::new("a", format!("event.1.{subject}"))),
            open: HashSet::new(),
            addresses: Vec::new(),
            idle_turns: 0,
        }
    }

    // ---- a server that says anything -----------------------------------------------------------------------------------------

    fn step(&mut self, script: &mut Script<'_>) {
        match script.below(16) {
            0..=2 => {
                for _ in 0..script.below(8) {
                    self.offer(script.below(4));
                }
                self.pipeline.expect_more(script.below(2) == 0);
            }
            3..=5 => {
                self.send();
            }
            6..=10 => self.hear(script),
            11 => self.pass(Duration::from_millis(script.number().min(20_000))),
            12 | 13 => self.obey(script),
            14 => match self.pipeline.next_deadline() {
                Some(deadline) => self.pass(deadline.saturating_duration_since(self.now)),
                None => self.pass(Duration::from_millis(1)),
            },
            _ => self.hear_anything(script),
        }
    }

    fn offer(&mut self, subject: usize) {
        let is_report = subject == 3 && self.reports < REPORTS_MAX;
        if !is_report && self.pipeline.room() == 0 {
            return;
        }
        self.offered += 1;
        let seq = self.offered;
        if is_report {
            self.reports += 1;
        } else {
            self.open.insert(seq);
        }
        let message = Message {
            origin: if is_report { Origin::Bus } else { Origin::Ring(seq as usize % 2) },
            seq,
            route: Rc::clone(&self.routes[subject]),
            offered: 0,
            packed: None,
            sequence: None,
            trace: None,
        };
        let Ok(()) = self.pipeline.push::<Infallible>(|out| {
            out.extend_from_slice(&payload(seq));
            Ok(message)
        });
    }

    /// Sends what is to be sent. Returns the addresses.
    fn send(&mut self) -> Vec<(Address, Bytes, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some(sending) = self.pipeline.poll_send(self.now) {
            sent.push((sending.address, sending.subject.clone(), sending.payload.to_vec()));
            assert!(sent.len() <= TURN_MAX, "a turn sends for ever: {:?}", self.pipeline);
        }
        self.addresses.extend(sent.iter().map(|(address, ..)| *address));
        let excess = self.addresses.len().saturating_sub(ADDRESSES_MAX);
        self.addresses.drain(..excess);
        sent
    }

    fn hear(&mut self, script: &mut Script<'_>) {
        if self.addresses.is_empty() {
            return;
        }
        // The newest most often.
        let back = script.below(self.addresses.len().min(8));
        let mut address = self.addresses[self.addresses.len() - 1 - back];
        if script.below(16) == 0 {
            address = strange(address, script.number());
        }
        let (has_nobody, text) = (script.below(16) == 0, script.answer());
        match address {
            Address::Single(token) => {
                let reply = if has_nobody { Reply::no_responders() } else { Reply::parse(&text, "main") };
                self.pipeline.handle_reply(self.now, token, reply);
            }
            Address::Batch(token) => {
                let reply =
                    if has_nobody { BatchReply::no_responders() } else { BatchReply::parse(&text, "main") };
                self.pipeline.handle_batch_reply(self.now, token, reply);
            }
        }
    }

    /// What nobody has asked for.
    fn hear_anything(&mut self, script: &mut Script<'_>) {
        match script.below(5) {
            0 => self.pipeline.handle_stream(self.now, script.stream()),
            1 => self.pipeline.handle_read(self.now, script.read()),
            2 => self.pipeline.handle_disconnected(self.now),
            3 => self.pipeline.handle_denied(self.now, &self.routes[script.below(4)]),
            _ => self.pipeline.handle_denied(self.now, &Route::new("a", script.take(16))),
        }
    }

    fn obey(&mut self, script: &mut Script<'_>) {
        match self.pipeline.poll_link(self.now) {
            None => {}
            Some(LinkAction::Connect) if script.below(8) > 0 => {
                let max_payload = if script.below(8) > 0 { 1 << 20 } else { script.number() as usize };
                let version = script.pick(&[ServerVersion(2, 15, 1), ServerVersion(2, 10, 0)]);
                self.pipeline.handle_connected(self.now, ServerInfo { max_payload, version });
            }
            Some(LinkAction::Connect | LinkAction::Disconnect) => self.pipeline.handle_disconnected(self.now),
            Some(LinkAction::LookUpStream) => self.pipeline.handle_stream(self.now, script.stream()),
            Some(LinkAction::Read { from, to }) => {
                assert!(from <= to, "a page from {from} to {to}");
                self.pipeline.handle_read(self.now, script.read());
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pipeline.handle_time(self.now);
    }

    // ---- the law -------------------------------------------------------------------------------------------------------------

    fn weigh(&mut self) {
        for outcome in self.pipeline.drain_outcomes() {
            if !outcome.message.is_report() {
                let seq = outcome.message.seq;
                assert!(self.open.remove(&seq), "{seq} has met a second fate: {:?}", outcome.fate);
            }
        }
        self.pipeline.drain_notices();
        assert_eq!(self.pipeline.open_events(), self.open.len(), "the law");
        assert!(self.open.len() <= WINDOW, "{} events are in flight", self.open.len());
    }

    // ---- an honest one -------------------------------------------------------------------------------------------------------

    /// Now the server tells the truth. It has stored nothing of what it had said it had.
    fn heal(&mut self) {
        let mut server = Honest::default();
        let healed_at = self.now;
        if self.pipeline.is_connected() {
            self.pipeline.handle_disconnected(self.now);
        }
        self.pipeline.expect_more(false);
        for _ in 0..HONEST_TURNS {
            self.weigh();
            if self.pipeline.is_empty() {
                return;
            }
            self.turn(&mut server);
            assert!(self.now <= healed_at + HONEST_TIME, "no progress: {:?}", self.pipeline);
        }
        panic!("no end: {:?}", self.pipeline);
    }

    fn turn(&mut self, server: &mut Honest) {
        let mut has_done = false;
        while let Some(action) = self.pipeline.poll_link(self.now) {
            has_done = true;
            match action {
                LinkAction::Connect => {
                    let server = ServerInfo { max_payload: 1 << 20, version: ServerVersion(2, 15, 1) };
                    self.pipeline.handle_connected(self.now, server);
                }
                LinkAction::Disconnect => self.pipeline.handle_disconnected(self.now),
                LinkAction::LookUpStream => self.pipeline.handle_stream(self.now, server.info()),
                LinkAction::Read { from, to } => self.pipeline.handle_read(self.now, server.read(from, to)),
            }
        }
        for (address, subject, payload) in self.send() {
            has_done = true;
            match address {
                Address::Single(token) => {
                    let reply = Reply::Stored { sequence: server.store(subject, payload), duplicate: false };
                    self.pipeline.handle_reply(self.now, token, reply);
                }
                Address::Batch(token) => {
                    for reply in server.batch(token, subject, payload) {
                        self.pipeline.handle_batch_reply(self.now, token, reply);
                    }
                }
            }
        }
        if has_done {
            self.idle_turns = 0;
            return;
        }
        let wait = self.pipeline.next_deadline().map(|due| due.saturating_duration_since(self.now));
        self.idle_turns = if wait == Some(Duration::ZERO) { self.idle_turns + 1 } else { 0 };
        assert!(self.idle_turns <= IDLE_TURNS, "a spin: {:?}", self.pipeline);
        self.pass(wait.unwrap_or(Duration::from_secs(1)));
    }
}

/// Another address of the same kind.
fn strange(address: Address, number: u64) -> Address {
    match address {
        Address::Single(mut token) => {
            token.number = number;
            Address::Single(token)
        }
        Address::Batch(token) => Address::Batch(BatchToken { seq: number, ..token }),
    }
}

/// A stream that takes everything and remembers no ids, since nothing is sent to it twice.
#[derive(Default)]
struct Honest {
    messages: Vec<(Bytes, Bytes)>,
    /// Places of batches that are stored.
    batches: HashMap<u64, u64>,
}

impl Honest {
    fn info(&self) -> StreamState {
        StreamState::Found(StreamInfo {
            subjects: vec!["event.1.>".to_owned()],
            allows_batches: true,
            created: "honest".to_owned(),
            first_sequence: 1,
            last_sequence: self.messages.len() as u64,
            duplicate_window: Duration::from_secs(120),
            message_bytes_max: None,
            bytes_max: None,
        })
    }

    fn read(&self, from: u64, to: u64) -> Read {
        let there = from as usize - 1..(to as usize).min(self.messages.len());
        let stored = |(subject, payload): &(Bytes, Bytes)| StoredMessage {
            subject: subject.clone(),
            payload: payload.clone(),
            frame_headers: Vec::new(),
        };
        Read::Page { messages: self.messages[there].iter().map(stored).collect(), holes: 0 }
    }

    fn store(&mut self, subject: Bytes, payload: Vec<u8>) -> u64 {
        self.messages.push((subject, payload.into()));
        self.messages.len() as u64
    }

    fn batch(&mut self, token: BatchToken, subject: Bytes, payload: Vec<u8>) -> Vec<BatchReply> {
        let unknown = br#"{"error":{"code":400,"err_code":10208,"description":"batch publish ID unknown"}}"#;
        let stored = self.batches.get(&token.batch).copied().unwrap_or(0);
        if stored == 0 && token.seq != 1 {
            return vec![BatchReply::parse(unknown, "main")];
        }
        let is_word = matches!(token.op, Op::End | Op::Ping);
        if !is_word {
            self.store(subject, payload);
            self.batches.insert(token.batch, stored + 1);
        }
        let (count, sequence) = (stored + u64::from(!is_word), self.messages.len() as u64);
        match token.op {
            Op::Start => {
                vec![BatchReply::Ack { seq: 0, messages: 1 }, BatchReply::Ack { seq: 1, messages: 1 }]
            }
            Op::Append | Op::Ping => vec![BatchReply::Ack { seq: count, messages: 1 }],
            Op::Commit | Op::End => {
                self.batches.remove(&token.batch);
                vec![BatchReply::Ended { count, sequence }]
            }
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn whatever_a_server_says_each_event_has_one_fate_and_an_honest_one_brings_all_to_an_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            any_answers(&bytes);
        }
    }
}
