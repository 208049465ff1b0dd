//! The messages of a stream, in order, without leaving anything behind on the server.
//!
//! A consumer delivers fast, but any replica may serve it, and a replica that lags behind does not know what it lacks. So the consumer never
//! decides where the reading ends: the leader does. When a reader opens, the leader names the last message. The reader ends with that
//! message, or with a later one if that message was removed meanwhile. Whenever the consumer is quiet before then, the reader asks the
//! leader for the next message: if there is none, the rest was removed, and the reading ends; if there is one, the consumer lags behind,
//! and the leader delivers from then on.
//!
//! A work queue or an interest stream gets no consumer: the server would refuse it or let it take messages away from others. The leader
//! delivers those from the start, one request a message.

use super::connect;
use super::servers::race;
use crate::config::{Config, Servers};
use crate::reader::{From, ReaderError, Received};
use crate::subject::StreamName;
use async_nats::header::{HeaderName, HeaderValue};
use async_nats::jetstream::{
    self, Message,
    consumer::{
        DeliverPolicy,
        pull::{self, OrderedError},
    },
    message::StreamMessage,
    stream::{RawMessageError, RawMessageErrorKind, RetentionPolicy, Stream},
};
use async_nats::{Client, HeaderMap};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a consumer may be quiet before the leader is asked whether there is more.
const QUIET: Duration = Duration::from_secs(1);

/// How long the leader may take to answer, with elections in between, and how often it is asked meanwhile.
const LEADER_TIMEOUT: Duration = Duration::from_secs(15);
const LEADER_ASK_AGAIN: Duration = Duration::from_secs(2);

/// Between two questions for a message that is not there yet, where no consumer waits for it.
const POLL: Duration = Duration::from_millis(100);

/// Reads the messages of one stream, oldest first.
pub(crate) struct Messages {
    leader: Leader,
    /// Delivers while it keeps up; none for a work queue or an interest stream.
    consumer: Option<Box<pull::Ordered>>,
    first_sequence: u64,
    last_sequence: u64,
    /// Everything below was read, or was not there.
    next_sequence: u64,
    /// The last sequence to be read, as the leader named it; `None` for a reader that follows.
    end: Option<u64>,
    /// Messages that were there when the reader was opened and are still to come, as far as the server of the consumer knew.
    pending: u64,
}

impl Messages {
    /// Opens a stream; see [`Reader::open_stream`](crate::reader::Reader::open_stream).
    pub(crate) async fn open(
        config: &Config,
        servers: &Servers,
        name: &StreamName,
        filter: &str,
        from: From,
        follow: bool,
    ) -> Result<Self, ReaderError> {
        let context = jetstream::new(connect_any(config, servers).await?);
        let stream = context.get_stream_no_info(name.as_str()).await;
        let stream = stream.map_err(|error| ReaderError::stream(name, error))?;
        let info = stream.get_info().await.map_err(|error| ReaderError::stream(name, error))?;
        let (deliver_policy, next_sequence) = match from {
            From::All => (DeliverPolicy::All, 1),
            From::New => (DeliverPolicy::New, info.state.last_sequence.saturating_add(1)),
            From::Sequence(start_sequence) => {
                (DeliverPolicy::ByStartSequence { start_sequence }, start_sequence)
            }
        };
        let filter = if filter.is_empty() { ">" } else { filter };
        let leader = Leader { stream, name: name.clone(), filter: filter.to_owned() };
        let mut messages = Self {
            end: if follow { None } else { Some(leader.last_sequence().await?) },
            leader,
            consumer: None,
            first_sequence: info.state.first_sequence,
            last_sequence: info.state.last_sequence,
            next_sequence,
            pending: info.state.messages,
        };
        if info.config.retention == RetentionPolicy::Limits && !messages.is_at_end() {
            let filter_subject = filter.to_owned();
            let config = pull::OrderedConfig { deliver_policy, filter_subject, ..Default::default() };
            let error = |error: &dyn fmt::Display| ReaderError::stream(name, error);
            let consumer = messages.leader.stream.create_consumer(config).await;
            let consumer = consumer.map_err(|cause| error(&cause))?;
            messages.pending = consumer.cached_info().num_pending;
            messages.consumer = Some(Box::new(consumer.messages().await.map_err(|cause| error(&cause))?));
        }
        Ok(messages)
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(crate) fn pending(&self) -> u64 {
        if self.is_at_end() { 0 } else { self.pending }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Received>, ReaderError> {
        while !self.is_at_end() {
            let Some(received) = self.try_next().await? else { continue };
            if received.sequence < self.next_sequence {
                continue;
            }
            self.next_sequence = received.sequence.saturating_add(1);
            // The last message was removed, and this one came after the reader was opened.
            if self.end.is_some_and(|end| received.sequence > end) {
                break;
            }
            self.pending = self.pending.saturating_sub(1);
            return Ok(Some(received));
        }
        Ok(None)
    }

    /// How many messages the stream holds of each subject; of `max` subjects at most.
    pub(crate) async fn subjects(&self, max: usize) -> Result<BTreeMap<String, u64>, ReaderError> {
        self.leader.subjects(max).await
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next_sequence > end)
    }

    /// The next message, or `None` if none came for a while.
    async fn try_next(&mut self) -> Result<Option<Received>, ReaderError> {
        if let Some(consumer) = &mut self.consumer {
            match timeout(QUIET, consumer.next()).await {
                Ok(delivered) => return self.leader.received(delivered).map(Some),
                Err(_quiet) if self.end.is_none() => return Ok(None),
                Err(_quiet) => {}
            }
        }
        let next = self.leader.first_from(self.next_sequence).await?;
        match (&next, &mut self.end) {
            // Where a consumer was quiet, its server lags behind.
            (Some(_), _) => self.consumer = None,
            // The rest was removed.
            (None, Some(end)) => *end = 0,
            (None, None) => tokio::time::sleep(POLL).await,
        }
        Ok(next)
    }
}

/// The server that leads the stream, which alone can say that a message is not there.
struct Leader {
    stream: Stream<()>,
    name: StreamName,
    filter: String,
}

impl Leader {
    /// The sequence of the last message; 0 if there is none.
    async fn last_sequence(&self) -> Result<u64, ReaderError> {
        let last = || self.stream.get_last_raw_message_by_subject(&self.filter);
        Ok(self.ask(last).await?.map_or(0, |last| last.sequence))
    }

    /// The first message at or behind a sequence.
    async fn first_from(&self, sequence: u64) -> Result<Option<Received>, ReaderError> {
        let first = || self.stream.get_first_raw_message_by_subject(&self.filter, sequence);
        Ok(self.ask(first).await?.map(|message| Received {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            payload: message.payload,
            headers: pairs(&message.headers),
        }))
    }

    async fn subjects(&self, max: usize) -> Result<BTreeMap<String, u64>, ReaderError> {
        let subjects = self.stream.info_with_subjects(">").await.map_err(|error| self.error(error))?;
        let subjects = subjects.take(max).map_ok(|(subject, count)| (subject, count as u64));
        subjects.try_collect().await.map_err(|error| self.error(error))
    }

    /// Asks again while nobody answers, as during an election.
    async fn ask<F>(&self, question: impl Fn() -> F) -> Result<Option<StreamMessage>, ReaderError>
    where
        F: Future<Output = Result<StreamMessage, RawMessageError>>,
    {
        let deadline = Instant::now() + LEADER_TIMEOUT;
        loop {
            let again = Instant::now() + LEADER_ASK_AGAIN;
            let error = match timeout(LEADER_ASK_AGAIN, question()).await {
                Ok(Ok(message)) => return Ok(Some(message)),
                Ok(Err(error)) => match error.kind() {
                    RawMessageErrorKind::NoMessageFound => return Ok(None),
                    RawMessageErrorKind::Other => error.to_string(),
                    RawMessageErrorKind::JetStream(_) | RawMessageErrorKind::InvalidSubject => {
                        return Err(self.error(error));
                    }
                },
                Err(_) => "no answer".to_owned(),
            };
            if again >= deadline {
                return Err(self.error(format!(
                    "cannot be read: its leader does not say which message comes next ({error}). Either the stream has no leader, or \
                     these credentials may not publish to $JS.API.STREAM.MSG.GET.{}",
                    self.name.as_str()
                )));
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// A message as a consumer delivered it. The end of a delivery is a loss: messages are missing still, or more could come.
    fn received(&self, delivered: Option<Result<Message, OrderedError>>) -> Result<Received, ReaderError> {
        let message = delivered.ok_or_else(|| self.error("cannot be read on: the connection was lost"))?;
        let message = message.map_err(|error| self.error(error))?;
        let sequence = message.info().map_err(|error| self.error(error))?.stream_sequence;
        let message = message.message;
        Ok(Received {
            sequence,
            subject: message.subject.to_string(),
            payload: message.payload,
            headers: message.headers.as_ref().map(pairs).unwrap_or_default(),
        })
    }

    fn error(&self, error: impl fmt::Display) -> ReaderError {
        ReaderError::stream(&self.name, error)
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("next_sequence", &self.next_sequence)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// The headers of a message, each by its first value.
fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let first = |(name, values): (&HeaderName, &Vec<HeaderValue>)| {
        Some((name.to_string(), values.first()?.as_str().to_owned()))
    };
    headers.iter().filter_map(first).collect()
}

/// Connects to the first server that lets us.
pub(crate) async fn connect_any(config: &Config, servers: &Servers) -> Result<Client, ReaderError> {
    let all: Vec<_> = servers.iter().cloned().collect();
    let connect = |server| async move { connect(config, &server, |options| options).await };
    race(&all, connect).await.map_err(ReaderError::Connect)
}
