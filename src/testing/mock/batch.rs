//! Fast-ingest batches (ADR-50), as nats-server 2.15.1 keeps them with one replica.
//!
//! ```text
//!   start 1 ──► ack 0 (the grant) ──► append 2, 3, … ──► ack every `granted` messages ──► commit, or end ──► how many, and the last sequence
//!                                        │
//!                                        ├─ a place that is not the next ──► gap; in mode `fail` the batch ends before it
//!                                        ├─ a message that is not taken ───► err; in mode `fail` the batch ends before it
//!                                        └─ one too large ─────────────────► an error, and the next one finds the gap
//! ```
//!
//! A batch is known by its reply subjects: `<inbox>.<id>.<flow>.<ok|fail>.<place>.<operation>.$FI`. One that nobody has spoken to for ten
//! seconds is forgotten without a word, and so is every one at a restart.

use super::errors::ApiError;
use super::message::{Delivery, Message};
use super::stream::{Entrance, Stream};
use crate::publisher::outgoing::Op;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A batch that was silent for so long is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Messages for an acknowledgement at most, of all batches together.
const FLOW_MAX: u64 = 500;

/// Messages for an acknowledgement where the client asks for none that make sense.
const FLOW_DEFAULT: u64 = 10;

const ID_BYTES_MAX: usize = 64;

/// Batches of a stream at once.
const BATCHES_MAX: usize = 1000;

/// The last token of the reply subject of a message of a batch.
const SUFFIX: &str = ".$FI";

#[derive(Debug, Default)]
pub(super) struct Batches(HashMap<String, Batch>);

#[derive(Debug)]
struct Batch {
    /// Messages taken: the next one must have the place behind it.
    taken: u64,
    /// The last acknowledgement: all up to `told` are stored, and the next one is due `granted` later.
    told: u64,
    granted: u64,
    flow: u64,
    /// Of the last message, in the stream.
    sequence: u64,
    touched_at: Instant,
}

/// What a reply subject says.
#[derive(Debug, PartialEq, Eq)]
struct Token<'a> {
    id: &'a str,
    flow: u64,
    goes_on: bool,
    place: u64,
    op: Op,
}

/// Whether a message with this reply subject is one of a batch.
pub(super) fn is_of_batch(reply: &str) -> bool {
    reply.ends_with(SUFFIX)
}

impl<'a> Token<'a> {
    fn parse(reply: &'a str) -> Result<Self, ApiError> {
        let mut tokens = reply.strip_suffix(SUFFIX).unwrap_or(reply).rsplit('.');
        let mut next = || tokens.next().ok_or(ApiError::BATCH_MALFORMED);
        let (op, place, mode, flow, id) = (next()?, next()?, next()?, next()?, next()?);
        let op = op.parse().ok().and_then(Op::from_number).ok_or(ApiError::BATCH_MALFORMED)?;
        let place = place.parse().map_err(|_| ApiError::BATCH_MALFORMED)?;
        let is_placed = match op {
            Op::Start => place == 1,
            Op::Append | Op::End => place > 1,
            Op::Commit | Op::Ping => place > 0,
        };
        if !is_placed || place == u64::MAX || !["ok", "fail"].contains(&mode) {
            return Err(ApiError::BATCH_MALFORMED);
        }
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(ApiError::BATCH_ID);
        }
        let flow = flow.parse::<i64>().ok().filter(|&flow| flow > 0);
        let flow = flow.map_or(FLOW_DEFAULT, |flow| (flow as u64).min(u64::from(u16::MAX)));
        Ok(Self { id, flow, goes_on: mode == "ok", place, op })
    }
}

/// Takes a message of a batch and returns what is answered.
pub(super) fn take(stream: &mut Stream, now: Instant, message: &Message) -> Vec<Delivery> {
    let reply = message.reply.as_deref().unwrap_or_default();
    let answers = match Token::parse(reply) {
        Ok(_) if !stream.config.allow_batched => vec![refusal(stream, &ApiError::BATCHES_DISABLED)],
        Ok(token) => Taking { stream, now, message, token, answers: Vec::new() }.run(),
        Err(error) => vec![refusal(stream, &error)],
    };
    answers.into_iter().map(|answer| Delivery::answer(reply, answer.to_string())).collect()
}

/// The last word, if it is an error.
fn refusal(stream: &Stream, error: &ApiError) -> Value {
    json!({ "error": error, "stream": stream.config.name, "seq": 0 })
}

/// One message of a batch being taken.
struct Taking<'a> {
    stream: &'a mut Stream,
    now: Instant,
    message: &'a Message,
    token: Token<'a>,
    answers: Vec<Value>,
}

impl Taking<'_> {
    fn run(mut self) -> Vec<Value> {
        self.stream.batches.0.retain(|_, batch| batch.touched_at + IDLE_MAX > self.now);
        let is_word = matches!(self.token.op, Op::End | Op::Ping);
        // Before the batch hears of it.
        if !is_word && self.stream.is_too_large(self.message) {
            return vec![refusal(self.stream, &ApiError::MESSAGE_TOO_LARGE)];
        }
        match self.batch() {
            Some(batch) => {
                let (taken, told, granted) = (batch.taken, batch.told, batch.granted);
                match self.token.op {
                    Op::Ping if self.token.place <= taken => self.answers.push(ack(told, granted)),
                    Op::Ping => self.gap(taken + 1, self.token.place + 1),
                    _ if self.token.place != taken + 1 => self.gap(taken + 1, self.token.place),
                    Op::End => self.end(false),
                    Op::Start | Op::Append | Op::Commit => self.message(),
                }
            }
            None => self.begin(is_word),
        }
        self.answers
    }

    fn begin(&mut self, is_word: bool) {
        let others = self.stream.batches.0.len();
        let refused = match () {
            () if self.token.place != 1 || is_word => Some(ApiError::BATCH_UNKNOWN),
            () if others >= BATCHES_MAX => Some(ApiError::BATCHES_TOO_MANY),
            () => None,
        };
        if let Some(error) = refused {
            return self.answers.push(refusal(self.stream, &error));
        }
        let flow = self.token.flow;
        let granted = if others == 0 { flow.min(FLOW_MAX) } else { 1 };
        let batch = Batch { taken: 0, told: 0, granted, flow, sequence: 0, touched_at: self.now };
        self.stream.batches.0.insert(self.token.id.to_owned(), batch);
        if self.token.op == Op::Start {
            self.answers.push(ack(0, granted));
        }
        self.message();
    }

    /// The message at the next place.
    fn message(&mut self) {
        let is_commit = self.token.op == Op::Commit;
        match self.stream.judge(self.now, self.message) {
            Entrance::Take => {
                let sequence = self.stream.store(self.now, self.message.clone());
                self.advance(sequence, !is_commit);
                if is_commit {
                    self.end(false);
                }
            }
            Entrance::Duplicate(sequence) => {
                self.advance(sequence, true);
                if is_commit {
                    self.end(self.token.place == 1);
                }
            }
            Entrance::Refuse(error) if self.token.place == 1 => {
                self.stream.batches.0.remove(self.token.id);
                self.answers.push(refusal(self.stream, &error));
            }
            Entrance::Refuse(error) => {
                self.answers.push(json!({ "type": "err", "seq": self.token.place, "error": error }));
                self.go_on_or_end(is_commit);
            }
        }
    }

    /// A place is counted, and told of if that is due.
    fn advance(&mut self, sequence: u64, tells: bool) {
        let Some(batch) = self.batch() else { return };
        batch.taken += 1;
        batch.sequence = sequence;
        if tells {
            self.tell_if_due();
        }
    }

    fn tell_if_due(&mut self) {
        let share = FLOW_MAX / (self.stream.batches.0.len() as u64).max(1);
        let Some(batch) = self.batch() else { return };
        if batch.taken >= batch.told.saturating_add(batch.granted) {
            batch.told = batch.taken;
            batch.granted = (batch.granted * 2).min(share.min(batch.flow).max(1));
            let ack = ack(batch.told, batch.granted);
            self.answers.push(ack);
        }
    }

    fn gap(&mut self, expected: u64, came: u64) {
        self.answers.push(json!({ "type": "gap", "last_seq": expected, "seq": came }));
        if !self.token.goes_on || came < expected {
            return self.end(false);
        }
        let place = self.token.place;
        if let Some(batch) = self.batch() {
            // What is missing counts as processed.
            batch.taken = if came > place { place } else { place - 1 };
        }
        self.tell_if_due();
        match self.token.op {
            Op::Ping => {}
            Op::End => self.end(false),
            Op::Start | Op::Append | Op::Commit => self.message(),
        }
    }

    /// A message was not taken: in mode `ok` its place is passed over.
    fn go_on_or_end(&mut self, is_commit: bool) {
        let goes_on = self.token.goes_on;
        if let Some(batch) = self.batch().filter(|_| goes_on) {
            batch.taken += 1;
        }
        if !goes_on || is_commit {
            self.end(false);
        }
    }

    /// The last word.
    fn end(&mut self, is_duplicate: bool) {
        let Some(batch) = self.stream.batches.0.remove(self.token.id) else { return };
        let mut ended = json!({
            "stream": self.stream.config.name,
            "seq": batch.sequence,
            "batch": self.token.id,
            "count": batch.taken,
        });
        if is_duplicate {
            ended["duplicate"] = true.into();
        }
        self.answers.push(ended);
    }

    fn batch(&mut self) -> Option<&mut Batch> {
        let batch = self.stream.batches.0.get_mut(self.token.id)?;
        batch.touched_at = self.now;
        Some(batch)
    }
}

fn ack(place: u64, granted: u64) -> Value {
    json!({ "type": "ack", "seq": place, "msgs": granted })
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::config::StreamConfig;
    use super::*;

    fn stream() -> Stream {
        Stream::new(StreamConfig::read(json!({ "name": "s", "allow_batched": true })).unwrap())
    }

    /// What is answered to a part of a batch: the members that matter.
    fn take_at(stream: &mut Stream, now: Instant, reply: &str) -> Vec<String> {
        let message =
            Message { subject: "s".to_owned(), reply: Some(reply.to_owned()), ..Message::default() };
        let answers = take(stream, now, &message).into_iter();
        answers.map(|answer| String::from_utf8(answer.message.payload.to_vec()).unwrap()).collect()
    }

    // What the server says to each part is compared with the real one in tests/mock/batch.rs; here is what takes too long there.
    #[test]
    fn a_batch_that_nobody_speaks_to_is_forgotten() {
        let (mut stream, now) = (stream(), Instant::now());
        take_at(&mut stream, now, "_INBOX.b.9.fail.1.0.$FI");
        let later = now + IDLE_MAX - Duration::from_millis(1);
        assert_eq!(take_at(&mut stream, later, "_INBOX.b.9.fail.2.1.$FI"), [""; 0]);
        let end = take_at(&mut stream, later + IDLE_MAX, "_INBOX.b.9.fail.3.3.$FI");
        assert!(end[0].contains("10208"), "{end:?}");
    }

    #[test]
    fn a_stream_has_so_many_batches_and_no_more() {
        let (mut stream, now) = (stream(), Instant::now());
        for batch in 0..=BATCHES_MAX {
            let answers = take_at(&mut stream, now, &format!("_INBOX.{batch}.9.fail.1.0.$FI"));
            assert_eq!(answers[0].contains("10211"), batch == BATCHES_MAX, "{batch}: {answers:?}");
        }
    }

    #[test]
    fn what_is_no_address_of_a_batch_is_refused() {
        for (reply, error) in [
            ("$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.fail.1.5.$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.fail.0.0.$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.fail.2.0.$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.fail.1.3.$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.fail.18446744073709551615.1.$FI", ApiError::BATCH_MALFORMED),
            ("a.b.9.maybe.1.0.$FI", ApiError::BATCH_MALFORMED),
            ("a..9.fail.1.0.$FI", ApiError::BATCH_ID),
        ] {
            assert_eq!(Token::parse(reply), Err(error), "{reply}");
        }
        let flow = |flow: &str| Token::parse(&format!("a.b.{flow}.ok.1.0.$FI")).unwrap().flow;
        assert_eq!([flow("7"), flow("-1"), flow("x"), flow("70000")], [7, 10, 10, 65535]);
    }
}
