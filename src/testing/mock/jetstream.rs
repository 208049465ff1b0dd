//! JetStream: the streams, and which of them takes a message.

use super::batch;
use super::config::StreamConfig;
use super::consumer;
use super::errors::ApiError;
use super::message::{Delivery, Message};
use super::stream::{Entrance, Stream};
use super::subjects::overlap;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// Streams at once.
const STREAMS_MAX: usize = 256;

/// What all streams hold at most. Beyond it nothing is stored, and error 10023 says so.
const STORE_BYTES_MAX: usize = 1 << 30;

#[derive(Default)]
pub(super) struct JetStream {
    pub(super) streams: BTreeMap<String, Stream>,
}

impl JetStream {
    pub(super) fn stream(&mut self, name: &str) -> Result<&mut Stream, ApiError> {
        self.streams.get_mut(name).ok_or(ApiError::STREAM_NOT_FOUND)
    }

    /// Whether a stream takes messages of this subject.
    pub(super) fn takes(&self, subject: &str) -> bool {
        self.streams.values().any(|stream| stream.takes(subject))
    }

    /// Makes a stream; one that is there with the same configuration is as good.
    pub(super) fn create(&mut self, config: Value) -> Result<&Stream, ApiError> {
        let config = StreamConfig::read(config)?;
        if let Some(known) = self.streams.get(&config.name)
            && known.config != config
        {
            return Err(ApiError::NAME_IN_USE);
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err(ApiError::INSUFFICIENT_RESOURCES);
        }
        self.check_overlap(&config)?;
        let name = config.name.clone();
        Ok(self.streams.entry(name).or_insert_with(|| Stream::new(config)))
    }

    /// Changes a stream.
    pub(super) fn update(&mut self, config: Value) -> Result<&Stream, ApiError> {
        let config = StreamConfig::read(config)?;
        self.check_overlap(&config)?;
        let stream = self.stream(&config.name)?;
        config.check_update_of(&stream.config)?;
        if !config.allow_batched {
            stream.batches = batch::Batches::default();
        }
        stream.config = config;
        Ok(stream)
    }

    fn check_overlap(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let others = self.streams.values().filter(|other| other.config.name != config.name);
        let mut subjects = others.flat_map(|other| &other.config.subjects);
        let is_taken = subjects.any(|taken| config.subjects.iter().any(|subject| overlap(taken, subject)));
        if is_taken { Err(ApiError::SUBJECTS_OVERLAP) } else { Ok(()) }
    }

    /// Stores a message where it belongs and returns what is answered.
    pub(super) fn publish(&mut self, now: Instant, message: &Message) -> Vec<Delivery> {
        let is_full = self.streams.values().map(Stream::bytes).sum::<usize>() >= STORE_BYTES_MAX;
        let Some(stream) = self.streams.values_mut().find(|stream| stream.takes(&message.subject)) else {
            return Vec::new();
        };
        if is_full {
            return refuse(&stream.config.name, message, &ApiError::INSUFFICIENT_RESOURCES);
        }
        if message.reply.as_deref().is_some_and(batch::is_of_batch) {
            return batch::take(stream, now, message);
        }
        let name = stream.config.name.clone();
        let acked = match stream.judge(now, message) {
            Entrance::Take => json!({ "stream": name, "seq": stream.store(now, message.clone()) }),
            Entrance::Duplicate(sequence) => json!({ "stream": name, "seq": sequence, "duplicate": true }),
            Entrance::Refuse(error) => return refuse(&name, message, &error),
        };
        let reply = message.reply.as_deref().filter(|_| !stream.config.no_ack);
        reply.map(|reply| Delivery::answer(reply, acked.to_string())).into_iter().collect()
    }

    /// The stream that takes a subject refuses the message with an error that was ordered.
    pub(super) fn refuse(&self, message: &Message, error: &ApiError) -> Vec<Delivery> {
        let taking = self.streams.values().find(|stream| stream.takes(&message.subject));
        taking.map(|stream| refuse(&stream.config.name, message, error)).unwrap_or_default()
    }

    pub(super) fn restart(&mut self) {
        self.streams.values_mut().for_each(Stream::restart);
    }

    /// Gives out what consumers have for whoever waits.
    pub(super) fn serve(&mut self, now: Instant, has_interest: impl Fn(&str) -> bool) -> Vec<Delivery> {
        let mut out = Vec::new();
        for stream in self.streams.values_mut().filter(|stream| !stream.consumers.is_empty()) {
            stream.expire(now);
            consumer::serve(stream, now, &has_interest, &mut out);
        }
        out
    }

    /// When a consumer has something to do by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let consumers = self.streams.values().flat_map(|stream| stream.consumers.values());
        consumers.filter_map(consumer::Consumer::next_due).min()
    }
}

fn refuse(stream: &str, message: &Message, error: &ApiError) -> Vec<Delivery> {
    let answer = json!({ "error": error, "stream": stream, "seq": 0 });
    let reply = message.reply.as_deref();
    reply.map(|reply| Delivery::answer(reply, answer.to_string())).into_iter().collect()
}
