//! A stream: what it takes, what it keeps, and how it finds that again.
//!
//! ```text
//!   message ──► judge ──┬─► store ──► number, time ──► limits remove the oldest
//!                       ├─► it is there already (its id is known)
//!                       └─► refuse: expectation, limit
//! ```

use super::batch::Batches;
use super::config::{Discard, StreamConfig};
use super::consumer::Consumer;
use super::errors::ApiError;
use super::message::Message;
use crate::clock::Timestamp;
use crate::subject::covers;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// What the file store of a server needs for a message besides its subject, headers and payload; limits in bytes count it.
const RECORD_BYTES: usize = 30;
/// And for headers.
const RECORD_HEADER_BYTES: usize = 4;

/// The bytes of message ids that are remembered at most, whatever the window.
const ID_BYTES_MAX: usize = 64 << 20;

/// The time of what is not there, as Go prints it.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

pub(super) struct Stream {
    pub(super) config: StreamConfig,
    created: Timestamp,
    messages: BTreeMap<u64, Stored>,
    by_subject: HashMap<String, BTreeSet<u64>>,
    bytes: usize,
    /// The last sequence that was given out, and when.
    last: u64,
    last_at: Option<Timestamp>,
    /// Where the stream begins while it is empty.
    first_if_empty: u64,
    ids: Ids,
    pub(super) batches: Batches,
    pub(super) consumers: BTreeMap<String, Consumer>,
}

/// A message that is kept.
pub(super) struct Stored {
    pub(super) message: Message,
    pub(super) at: Timestamp,
    stored_at: Instant,
}

impl Stored {
    fn bytes(&self) -> usize {
        record_bytes(&self.message)
    }
}

/// What the stream says to a message before it takes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    Take,
    /// It has it already, under this sequence.
    Duplicate(u64),
    Refuse(ApiError),
}

impl Stream {
    pub(super) fn new(config: StreamConfig) -> Self {
        Self {
            config,
            created: Timestamp::now(),
            messages: BTreeMap::new(),
            by_subject: HashMap::new(),
            bytes: 0,
            last: 0,
            last_at: None,
            first_if_empty: 0,
            ids: Ids::default(),
            batches: Batches::default(),
            consumers: BTreeMap::new(),
        }
    }

    pub(super) fn takes(&self, subject: &str) -> bool {
        self.config.subjects.iter().any(|pattern| covers(pattern, subject))
    }

    /// Whether it is too large for the stream, which a server looks at before anything else.
    pub(super) fn is_too_large(&self, message: &Message) -> bool {
        usize::try_from(self.config.max_msg_size).is_ok_and(|max| message.len() > max)
    }

    pub(super) fn judge(&mut self, now: Instant, message: &Message) -> Entrance {
        self.expire(now);
        if self.is_too_large(message) {
            return Entrance::Refuse(ApiError::MESSAGE_TOO_LARGE);
        }
        if self.config.sealed {
            return Entrance::Refuse(ApiError::STREAM_SEALED);
        }
        if message.header("Nats-Expected-Stream").is_some_and(|name| name != self.config.name) {
            return Entrance::Refuse(ApiError::NOT_EXPECTED_STREAM);
        }
        if let Some(sequence) = message.header("Nats-Msg-Id").and_then(|id| self.ids.sequence_of(id)) {
            return Entrance::Duplicate(sequence);
        }
        match self.unmet_expectation(message).or_else(|| self.exceeded_limit(message)) {
            Some(error) => Entrance::Refuse(error),
            None => Entrance::Take,
        }
    }

    fn unmet_expectation(&self, message: &Message) -> Option<ApiError> {
        let number = |name| message.header(name).and_then(|value| value.parse::<u64>().ok());
        if let Some(expected) = number("Nats-Expected-Last-Subject-Sequence") {
            let last = self.last_of(&message.subject).unwrap_or(0);
            if expected != last {
                return Some(ApiError::wrong_last_sequence(last));
            }
        }
        if number("Nats-Expected-Last-Sequence").is_some_and(|expected| expected != self.last) {
            return Some(ApiError::wrong_last_sequence(self.last));
        }
        let expected = message.header("Nats-Expected-Last-Msg-Id");
        let last = self.ids.last.as_deref().unwrap_or_default();
        expected.is_some_and(|expected| expected != last).then(|| ApiError::wrong_last_id(last))
    }

    fn exceeded_limit(&self, message: &Message) -> Option<ApiError> {
        if self.config.discard == Discard::Old {
            return None;
        }
        let exceeds = |used: usize, limit: i64| usize::try_from(limit).is_ok_and(|limit| used > limit);
        let of_subject = self.by_subject.get(&message.subject).map_or(0, BTreeSet::len);
        if self.config.discard_new_per_subject && exceeds(of_subject + 1, self.config.max_msgs_per_subject) {
            return Some(ApiError::SUBJECT_FULL);
        }
        if exceeds(self.messages.len() + 1, self.config.max_msgs) {
            return Some(ApiError::STREAM_FULL);
        }
        exceeds(self.bytes + record_bytes(message), self.config.max_bytes).then_some(ApiError::BYTES_EXCEEDED)
    }

    /// Keeps a message and returns its sequence.
    pub(super) fn store(&mut self, now: Instant, mut message: Message) -> u64 {
        message.reply = None;
        self.last += 1;
        let (sequence, at) = (self.last, Timestamp::now());
        self.last_at = Some(at);
        self.ids.last = message.header("Nats-Msg-Id").map(str::to_owned);
        if let Some(id) = self.ids.last.clone() {
            self.ids.remember(now, id, sequence);
        }
        self.by_subject.entry(message.subject.clone()).or_default().insert(sequence);
        self.consumers.values_mut().for_each(|consumer| consumer.stored(sequence, &message.subject));
        let stored = Stored { message, at, stored_at: now };
        self.bytes += stored.bytes();
        self.messages.insert(sequence, stored);
        self.enforce_limits(sequence);
        sequence
    }

    fn enforce_limits(&mut self, newest: u64) {
        let exceeds = |used: usize, limit: i64| usize::try_from(limit).is_ok_and(|limit| used > limit);
        let subject = self.messages[&newest].message.subject.clone();
        while let Some(sequences) = self.by_subject.get(&subject)
            && exceeds(sequences.len(), self.config.max_msgs_per_subject)
            && let Some(&oldest) = sequences.first()
        {
            self.remove(oldest);
        }
        while exceeds(self.messages.len(), self.config.max_msgs) || exceeds(self.bytes, self.config.max_bytes)
        {
            let Some((&oldest, _)) = self.messages.first_key_value() else { break };
            self.remove(oldest);
        }
    }

    /// Removes what is older than `max_age`, and forgets ids that are older than the window.
    pub(super) fn expire(&mut self, now: Instant) {
        self.ids.expire(now, Duration::from_nanos(self.config.duplicate_window));
        let age_max = Duration::from_nanos(self.config.max_age);
        while !age_max.is_zero()
            && let Some((&oldest, stored)) = self.messages.first_key_value()
            && now.duration_since(stored.stored_at) > age_max
        {
            self.remove(oldest);
        }
    }

    /// Removes a message; returns whether it was there.
    pub(super) fn remove(&mut self, sequence: u64) -> bool {
        let Some(stored) = self.messages.remove(&sequence) else { return false };
        self.bytes -= stored.bytes();
        let subject = &stored.message.subject;
        if let Some(sequences) = self.by_subject.get_mut(subject) {
            sequences.remove(&sequence);
            if sequences.is_empty() {
                self.by_subject.remove(subject);
            }
        }
        self.consumers.values_mut().for_each(|consumer| consumer.removed(sequence, subject));
        self.first_if_empty = self.last + 1;
        true
    }

    /// Removes messages of a subject: those before a sequence, or all but the last so many. Returns how many they were.
    pub(super) fn purge(&mut self, filter: &str, before: Option<u64>, keep: usize) -> u64 {
        let before = before.unwrap_or(u64::MAX);
        let chosen: Vec<u64> = self
            .messages
            .range(..before)
            .filter(|(_, stored)| filter.is_empty() || covers(filter, &stored.message.subject))
            .map(|(&sequence, _)| sequence)
            .collect();
        let purged = &chosen[..chosen.len().saturating_sub(keep)];
        for &sequence in purged {
            self.remove(sequence);
        }
        purged.len() as u64
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&Stored> {
        self.messages.get(&sequence)
    }

    /// The messages from a sequence on.
    pub(super) fn from(&self, sequence: u64) -> impl Iterator<Item = (u64, &Stored)> {
        self.messages.range(sequence..).map(|(&sequence, stored)| (sequence, stored))
    }

    /// The last message whose subject is this.
    pub(super) fn last_of(&self, subject: &str) -> Option<u64> {
        self.by_subject.get(subject)?.last().copied()
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A restart: what was only in memory is gone. Ids are found again in what is stored.
    pub(super) fn restart(&mut self) {
        self.batches = Batches::default();
        self.consumers.clear();
    }

    /// What STREAM.INFO tells, but for its type.
    pub(super) fn info(&self, subjects: Option<&str>) -> Value {
        let time = |at: Option<Timestamp>| at.map_or_else(|| NO_TIME.to_owned(), Timestamp::rfc3339);
        let first = self.messages.first_key_value();
        let mut state = json!({
            "messages": self.messages.len(),
            "bytes": self.bytes,
            "first_seq": first.map_or(self.first_if_empty, |(&sequence, _)| sequence),
            "first_ts": time(first.map(|(_, stored)| stored.at)),
            "last_seq": self.last,
            "last_ts": time(self.last_at),
            "num_subjects": self.by_subject.len(),
            "consumer_count": self.consumers.len(),
        });
        if let Some((&first, _)) = first {
            let deleted = self.last + 1 - first - self.messages.len() as u64;
            if deleted > 0 {
                state["num_deleted"] = deleted.into();
            }
        }
        if let Some(filter) = subjects {
            let chosen = self.by_subject.iter().filter(|(subject, _)| covers(filter, subject));
            state["subjects"] =
                chosen.map(|(subject, all)| (subject.clone(), Value::from(all.len()))).collect();
        }
        json!({
            "config": self.config,
            "created": self.created.rfc3339(),
            "state": state,
            "ts": Timestamp::now().rfc3339(),
        })
    }
}

fn record_bytes(message: &Message) -> usize {
    let headers = if message.headers.is_empty() { 0 } else { RECORD_HEADER_BYTES + message.headers.len() };
    RECORD_BYTES + message.subject.len() + headers + message.payload.len()
}

/// The ids of messages that were stored lately.
#[derive(Debug, Default)]
struct Ids {
    known: HashMap<String, u64>,
    /// Oldest first.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
    /// That of the last message, if it has one.
    last: Option<String>,
}

impl Ids {
    fn sequence_of(&self, id: &str) -> Option<u64> {
        self.known.get(id).copied()
    }

    fn remember(&mut self, now: Instant, id: String, sequence: u64) {
        self.known.insert(id.clone(), sequence);
        self.bytes += id.len();
        self.order.push_back((now, id));
        while self.bytes > ID_BYTES_MAX {
            self.forget_oldest();
        }
    }

    fn expire(&mut self, now: Instant, window: Duration) {
        while self.order.front().is_some_and(|&(at, _)| now.duration_since(at) > window) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.bytes -= id.len();
            self.known.remove(&id);
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::message::block;
    use super::*;

    fn stream(mut config: Value) -> Stream {
        config["name"] = "s".into();
        config["subjects"] = json!(["a", "b", "c", "a.*", "b.*"]);
        Stream::new(StreamConfig::read(config).unwrap())
    }

    fn message(subject: &str, id: Option<&str>) -> Message {
        let headers = id.map(|id| block("", &[("Nats-Msg-Id", id)])).unwrap_or_default();
        Message { subject: subject.to_owned(), headers, ..Message::default() }
    }

    fn sequences(stream: &Stream) -> Vec<u64> {
        stream.from(0).map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn an_id_is_known_for_the_window_and_no_longer() {
        let (mut stream, now) = (stream(json!({ "duplicate_window": 1_000_000_000 })), Instant::now());
        assert_eq!(stream.judge(now, &message("a", Some("1"))), Entrance::Take);
        stream.store(now, message("a", Some("1")));
        let (just_in, too_late) = (now + Duration::from_secs(1), now + Duration::from_millis(1001));
        assert_eq!(stream.judge(just_in, &message("b", Some("1"))), Entrance::Duplicate(1));
        assert_eq!(stream.judge(too_late, &message("b", Some("1"))), Entrance::Take);
    }

    #[test]
    fn limits_remove_the_oldest_and_old_age_too() {
        let now = Instant::now();
        let mut limited =
            stream(json!({ "max_msgs": 3, "max_msgs_per_subject": 2, "max_age": 1_000_000_000 }));
        for subject in ["a", "a", "b", "a", "c"] {
            limited.store(now, message(subject, None));
        }
        assert_eq!(sequences(&limited), [3, 4, 5]);
        limited.store(now + Duration::from_secs(1), message("c", None));
        limited.expire(now + Duration::from_millis(1001));
        assert_eq!(sequences(&limited), [6]);
        assert_eq!(limited.bytes(), RECORD_BYTES + 1);
    }

    #[test]
    fn who_discards_new_messages_refuses_them() {
        let now = Instant::now();
        for (limit, expected) in [
            (json!({ "max_msgs": 1 }), ApiError::STREAM_FULL),
            (json!({ "max_bytes": 50 }), ApiError::BYTES_EXCEEDED),
            (json!({ "max_msgs_per_subject": 1, "discard_new_per_subject": true }), ApiError::SUBJECT_FULL),
        ] {
            let mut config = limit.clone();
            config["discard"] = "new".into();
            let mut stream = stream(config);
            assert_eq!(stream.judge(now, &message("a", None)), Entrance::Take);
            stream.store(now, message("a", None));
            assert_eq!(stream.judge(now, &message("a", None)), Entrance::Refuse(expected), "{limit}");
        }
    }

    #[test]
    fn a_purge_takes_what_it_is_told_to() {
        let (mut stream, now) = (stream(json!({})), Instant::now());
        for subject in ["a.1", "b.1", "a.2", "b.2", "a.3"] {
            stream.store(now, message(subject, None));
        }
        assert_eq!(stream.purge("a.*", None, 1), 2);
        assert_eq!(sequences(&stream), [2, 4, 5]);
        assert_eq!(stream.purge("", Some(5), 0), 2);
        assert_eq!(stream.purge("", None, 0), 1);
        let state = &stream.info(None)["state"];
        assert_eq!(
            (&state["first_seq"], &state["last_seq"], &state["bytes"]),
            (&json!(6), &json!(5), &json!(0))
        );
    }
}
