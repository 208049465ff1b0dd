//! The messages of a stream, in order, without leaving anything behind on the server.

use super::connect;
use crate::config::{Config, Servers};
use crate::reader::{From, ReaderError, Received};
use crate::subject::StreamName;
use async_nats::header::{HeaderName, HeaderValue};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use std::fmt;

/// Reads the messages of one stream, oldest first.
pub(crate) struct Messages {
    messages: pull::Ordered,
    first_sequence: u64,
    last_sequence: u64,
    /// Messages that were in the stream when the reader was opened and are still to come.
    pending: u64,
    follow: bool,
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
        let mut stream =
            context.get_stream(name.as_str()).await.map_err(|error| ReaderError::stream(name, error))?;
        let state = stream.info().await.map_err(|error| ReaderError::stream(name, error))?.state.clone();
        let deliver_policy = match from {
            From::All => DeliverPolicy::All,
            From::New => DeliverPolicy::New,
            From::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        };
        let consumer = stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy,
                filter_subject: filter.to_owned(),
                ..Default::default()
            })
            .await
            .map_err(|error| ReaderError::Stream(error.to_string()))?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| ReaderError::Stream(error.to_string()))?;
        let (first_sequence, last_sequence) = (state.first_sequence, state.last_sequence);
        Ok(Self { messages, first_sequence, last_sequence, pending, follow })
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Received>, ReaderError> {
        if self.pending == 0 && !self.follow {
            return Ok(None);
        }
        // Messages that were there are still missing, or more could come: this is no end but a loss.
        let lost = || ReaderError::Stream("cannot be read on: the connection was lost".to_owned());
        let message = self.messages.next().await.ok_or_else(lost)?;
        let message = message.map_err(|error| ReaderError::Stream(error.to_string()))?;
        let info = message.info().map_err(|error| ReaderError::Stream(error.to_string()))?;
        let sequence = info.stream_sequence;
        self.pending = self.pending.saturating_sub(1).min(info.pending);
        Ok(Some(Received {
            sequence,
            subject: message.subject.to_string(),
            payload: message.payload.clone(),
            headers: message.headers.as_ref().map(pairs).unwrap_or_default(),
        }))
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages")
            .field("pending", &self.pending)
            .field("follow", &self.follow)
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
    let mut errors = Vec::new();
    for server in servers {
        match connect(config, server, |options| options).await {
            Ok(client) => return Ok(client),
            Err(error) => errors.push(format!("{}: {error}", server.address())),
        }
    }
    Err(ReaderError::Connect(errors.join("; ")))
}
