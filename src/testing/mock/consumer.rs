//! Consumers, as readers of a stream use them: they are asked for messages, and nothing is acknowledged.
//!
//! A request to pull (`CONSUMER.MSG.NEXT`) waits until it has got what it asked for, or is over, or nobody listens to its inbox any more.
//! Other kinds of consumers are refused: pushed messages, acknowledgements and redelivery are not what a publisher's test is about.

use super::errors::ApiError;
use super::message::{Delivery, Message};
use super::stream::{Stored, Stream};
use crate::clock::Timestamp;
use crate::subject::covers;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests of a consumer that wait at once; the server's default.
const WAITING_MAX: usize = 512;

/// Messages that a request may ask for; whoever wants more asks again.
const BATCH_MAX: u64 = 1 << 20;

/// A consumer without a durable name that nobody uses for so long is removed; the server's default.
const INACTIVE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ConsumerConfig {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) durable_name: String,
    #[serde(default)]
    deliver_policy: DeliverPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opt_start_seq: Option<u64>,
    #[serde(default)]
    ack_policy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) filter_subject: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) filter_subjects: Vec<String>,
    #[serde(default)]
    headers_only: bool,
    #[serde(default)]
    replay_policy: ReplayPolicy,
    /// In nanoseconds.
    #[serde(default)]
    inactive_threshold: u64,
    #[serde(default, skip_serializing)]
    deliver_subject: Option<String>,
    /// What has no effect where nothing is acknowledged or replicated, told again.
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeliverPolicy {
    #[default]
    All,
    Last,
    New,
    ByStartSequence,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReplayPolicy {
    #[default]
    Instant,
}

impl ConsumerConfig {
    pub(super) fn read(json: Value) -> Result<Self, ApiError> {
        let config: Self = serde_json::from_value(json).map_err(|error| ApiError::invalid_json(&error))?;
        if config.deliver_subject.is_some() || config.ack_policy != "none" {
            let problem = "this mock server has no consumers but those that pull and acknowledge nothing";
            return Err(ApiError::consumer_config(problem));
        }
        if config.opt_start_seq.is_some() != (config.deliver_policy == DeliverPolicy::ByStartSequence) {
            let problem = "consumer delivery policy and opt_start_seq do not belong together";
            return Err(ApiError::consumer_config(problem));
        }
        Ok(config)
    }

    fn filters(&self) -> impl Iterator<Item = &str> {
        let one = Some(self.filter_subject.as_str()).filter(|filter| !filter.is_empty());
        one.into_iter().chain(self.filter_subjects.iter().map(String::as_str))
    }

    fn wants(&self, subject: &str) -> bool {
        self.filters().any(|filter| covers(filter, subject)) || self.filters().next().is_none()
    }
}

/// A request for messages.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Pull {
    #[serde(skip)]
    pub(super) reply: String,
    batch: u64,
    no_wait: bool,
    /// In nanoseconds, as the next one.
    expires: u64,
    idle_heartbeat: u64,
    max_bytes: u64,
    #[serde(skip)]
    expires_at: Option<Instant>,
    #[serde(skip)]
    beats_at: Option<Instant>,
}

impl Pull {
    /// Reads a request: a JSON object, a number of messages, or nothing, which asks for one.
    pub(super) fn read(reply: &str, payload: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(payload).unwrap_or_default().trim();
        let mut pull = match text.parse() {
            Ok(batch) => Self { batch, ..Self::default() },
            Err(_) if text.is_empty() => Self::default(),
            Err(_) => serde_json::from_str(text).map_err(|_| "400 Bad Request")?,
        };
        if pull.idle_heartbeat > 0 && pull.idle_heartbeat > pull.expires / 2 {
            return Err("400 Bad Request - heartbeat value too large");
        }
        pull.batch = pull.batch.clamp(1, BATCH_MAX);
        reply.clone_into(&mut pull.reply);
        Ok(pull)
    }

    fn begin(&mut self, now: Instant) {
        let later = |nanos: u64| (nanos > 0).then(|| now + Duration::from_nanos(nanos));
        self.expires_at = later(self.expires);
        self.beats_at = later(self.idle_heartbeat);
    }

    fn due(&self) -> Option<Instant> {
        self.expires_at.into_iter().chain(self.beats_at).min()
    }

    fn over(&self, status: &str) -> Delivery {
        let (messages, bytes) = (self.batch.to_string(), self.max_bytes.to_string());
        let left = [("Nats-Pending-Messages", messages.as_str()), ("Nats-Pending-Bytes", bytes.as_str())];
        Delivery::status(&self.reply, status, &left)
    }
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) config: ConsumerConfig,
    name: String,
    created: Timestamp,
    /// The next message has this sequence or a later one.
    next: u64,
    /// Messages delivered, and the sequence of the last of them.
    delivered: u64,
    delivered_sequence: u64,
    /// Messages that are still to come.
    pending: u64,
    waiting: VecDeque<Pull>,
    active_at: Instant,
}

impl Consumer {
    pub(super) fn new(name: String, config: ConsumerConfig, stream: &Stream, now: Instant) -> Self {
        let wanted =
            |sequence: u64| stream.from(sequence).filter(|(_, stored)| config.wants(&stored.message.subject));
        let next = match config.deliver_policy {
            DeliverPolicy::All => 1,
            DeliverPolicy::New => stream.last() + 1,
            DeliverPolicy::Last => {
                wanted(0).last().map_or_else(|| stream.last() + 1, |(sequence, _)| sequence)
            }
            DeliverPolicy::ByStartSequence => config.opt_start_seq.unwrap_or(1).max(1),
        };
        let pending = wanted(next).count() as u64;
        Self {
            config,
            name,
            created: Timestamp::now(),
            next,
            delivered: 0,
            delivered_sequence: next - 1,
            pending,
            waiting: VecDeque::new(),
            active_at: now,
        }
    }

    /// A message was stored, which may be before the place where the consumer begins.
    pub(super) fn stored(&mut self, sequence: u64, subject: &str) {
        if sequence >= self.next && self.config.wants(subject) {
            self.pending += 1;
        }
    }

    /// A message is no more.
    pub(super) fn removed(&mut self, sequence: u64, subject: &str) {
        if sequence >= self.next && self.config.wants(subject) {
            self.pending -= 1;
        }
    }

    /// When it has something to do by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let inactive = self.waiting.is_empty().then(|| self.inactive_at()).flatten();
        self.waiting.iter().filter_map(Pull::due).chain(inactive).min()
    }

    /// Whether it is to be removed, since nobody uses it.
    pub(super) fn is_abandoned(&self, now: Instant) -> bool {
        self.waiting.is_empty() && self.inactive_at().is_some_and(|at| at <= now)
    }

    fn inactive_at(&self) -> Option<Instant> {
        let threshold = match self.config.inactive_threshold {
            0 if self.config.durable_name.is_empty() => INACTIVE_MAX,
            0 => return None,
            nanos => Duration::from_nanos(nanos),
        };
        self.active_at.checked_add(threshold)
    }

    pub(super) fn info(&self, stream: &str) -> Value {
        let at = json!({ "consumer_seq": self.delivered, "stream_seq": self.delivered_sequence });
        json!({
            "stream_name": stream,
            "name": self.name,
            "created": self.created.rfc3339(),
            "config": self.config,
            "delivered": at,
            "ack_floor": at,
            "num_ack_pending": 0,
            "num_redelivered": 0,
            "num_waiting": self.waiting.len(),
            "num_pending": self.pending,
            "ts": Timestamp::now().rfc3339(),
        })
    }

    fn pull(&mut self, now: Instant, mut pull: Pull) -> Option<Delivery> {
        self.active_at = now;
        if self.waiting.len() >= WAITING_MAX {
            return Some(Delivery::status(&pull.reply, "409 Exceeded MaxWaiting", &[]));
        }
        pull.begin(now);
        self.waiting.push_back(pull);
        None
    }

    /// Gives out what there is to those who wait for it.
    fn serve(
        &mut self,
        now: Instant,
        stream: &Stream,
        has_interest: &impl Fn(&str) -> bool,
        out: &mut Vec<Delivery>,
    ) {
        self.waiting.retain(|pull| has_interest(&pull.reply));
        while let Some(pull) = self.waiting.front_mut() {
            let wanted = |(_, stored): &(u64, &Stored)| self.config.wants(&stored.message.subject);
            let found = stream.from(self.next).find(wanted);
            // What was passed over is not looked at again, or each operation would look through all of it. It is never wanted
            // later, since consumers are not changed, and it was never pending.
            self.next = found.map_or_else(|| self.next.max(stream.last() + 1), |(sequence, _)| sequence);
            let Some((sequence, stored)) = found else { break };
            self.active_at = now;
            let message = &stored.message;
            if pull.max_bytes > 0 && message.len() as u64 > pull.max_bytes {
                out.push(pull.over("409 Message Size Exceeds MaxBytes"));
                self.waiting.pop_front();
                continue;
            }
            (self.next, self.delivered_sequence) = (sequence + 1, sequence);
            self.delivered += 1;
            self.pending -= 1;
            let reply = format!(
                "$JS.ACK.{}.{}.1.{sequence}.{}.{}.{}",
                stream.config.name, self.name, self.delivered, stored.at.0, self.pending
            );
            let payload = if self.config.headers_only { Default::default() } else { message.payload.clone() };
            let message = Message { reply: Some(reply), payload, ..message.clone() };
            pull.batch -= 1;
            pull.max_bytes -= pull.max_bytes.min(message.len() as u64);
            pull.beats_at = pull.beats_at.map(|_| now + Duration::from_nanos(pull.idle_heartbeat));
            out.push(Delivery { to: pull.reply.clone(), message });
            if pull.batch == 0 {
                self.waiting.pop_front();
            }
        }
        self.end_pulls(now, out);
    }

    /// Ends the requests whose time is over, and tells the others that all is well where they want to hear it.
    fn end_pulls(&mut self, now: Instant, out: &mut Vec<Delivery>) {
        let (delivered, sequence) = (self.delivered.to_string(), self.delivered_sequence.to_string());
        let at = [("Nats-Last-Consumer", delivered.as_str()), ("Nats-Last-Stream", sequence.as_str())];
        self.waiting.retain_mut(|pull| {
            if pull.expires_at.is_some_and(|at| at <= now) {
                out.push(pull.over("408 Request Timeout"));
                return false;
            }
            if pull.no_wait && pull.expires == 0 {
                out.push(Delivery::status(&pull.reply, "404 No Messages", &[]));
                return false;
            }
            if pull.beats_at.is_some_and(|at| at <= now) {
                pull.beats_at = Some(now + Duration::from_nanos(pull.idle_heartbeat));
                out.push(Delivery::status(&pull.reply, "100 Idle Heartbeat", &at));
            }
            true
        });
    }
}

/// Takes a request for messages of a consumer, which must be there.
pub(super) fn pull(stream: &mut Stream, now: Instant, name: &str, pull: Pull) -> Option<Delivery> {
    stream.consumers.get_mut(name)?.pull(now, pull)
}

/// Lets all consumers of a stream give out what they have, and removes those that nobody uses.
pub(super) fn serve(
    stream: &mut Stream,
    now: Instant,
    has_interest: &impl Fn(&str) -> bool,
    out: &mut Vec<Delivery>,
) {
    let mut consumers = std::mem::take(&mut stream.consumers);
    consumers.values_mut().for_each(|consumer| consumer.serve(now, stream, has_interest, out));
    consumers.retain(|_, consumer| !consumer.is_abandoned(now));
    stream.consumers = consumers;
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::config::StreamConfig;
    use super::*;

    #[test]
    fn requests_are_read_in_all_their_forms() {
        for (text, batch) in [("", 1), ("7", 7), (r#"{"batch":3}"#, 3), ("{}", 1), ("99999999999", BATCH_MAX)]
        {
            assert_eq!(Pull::read("r", text.as_bytes()).unwrap().batch, batch, "{text}");
        }
        assert_eq!(Pull::read("r", b"{"), Err("400 Bad Request"));
        let hasty = br#"{"batch":1,"expires":3,"idle_heartbeat":2}"#;
        assert_eq!(Pull::read("r", hasty), Err("400 Bad Request - heartbeat value too large"));
    }

    #[test]
    fn what_a_filter_does_not_want_is_looked_at_once() {
        let config = StreamConfig::read(json!({ "name": "s", "subjects": ["a", "b"] })).unwrap();
        let (mut stream, now, mut out) = (Stream::new(config), Instant::now(), Vec::new());
        let store = |stream: &mut Stream, subject: &str| {
            stream.store(now, Message { subject: subject.to_owned(), ..Message::default() });
        };
        ["a", "a", "a"].iter().for_each(|subject| store(&mut stream, subject));
        for (name, config) in [
            ("c", json!({ "ack_policy": "none", "filter_subject": "b" })),
            (
                "later",
                json!({ "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": 9 }),
            ),
        ] {
            let config = ConsumerConfig::read(config).unwrap();
            let mut consumer = Consumer::new(name.to_owned(), config, &stream, now);
            consumer.pull(now, Pull::read("r", b"7").unwrap());
            stream.consumers.insert(name.to_owned(), consumer);
        }
        serve(&mut stream, now, &|_| true, &mut out);
        let (consumer, later) = (&stream.consumers["c"], &stream.consumers["later"]);
        assert_eq!((consumer.next, consumer.pending, out.len()), (4, 0, 0));
        assert_eq!(later.next, 9, "who begins later still does");
        ["a", "b", "a", "b"].iter().for_each(|subject| store(&mut stream, subject));
        assert_eq!(stream.consumers["c"].pending, 2);
        serve(&mut stream, now, &|_| true, &mut out);
        let consumer = &stream.consumers["c"];
        assert_eq!((consumer.next, consumer.pending, consumer.delivered_sequence), (8, 0, 7));
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn consumers_that_would_be_something_else_are_refused() {
        for (config, is_read) in [
            (json!({ "ack_policy": "none" }), true),
            (
                json!({ "ack_policy": "none", "deliver_policy": "by_start_sequence", "opt_start_seq": 3 }),
                true,
            ),
            (json!({ "ack_policy": "none", "deliver_policy": "by_start_sequence" }), false),
            (json!({ "ack_policy": "none", "deliver_policy": "by_start_time" }), false),
            (json!({ "ack_policy": "explicit" }), false),
            (json!({}), false),
            (json!({ "ack_policy": "none", "deliver_subject": "a" }), false),
            (json!({ "ack_policy": "none", "replay_policy": "original" }), false),
        ] {
            assert_eq!(ConsumerConfig::read(config.clone()).is_ok(), is_read, "{config}");
        }
    }
}
