//! Reads a stream back, in order, without leaving anything behind on the server.

use super::connect;
use crate::config::{Config, Endpoint, Servers};
use crate::frame::{self, Frame, FrameError};
use crate::subject::StreamName;
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;
use std::fmt;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the first message that the stream holds.
    All,
    /// Behind the last one.
    New,
    /// At this sequence of the stream.
    Sequence(u64),
}

/// A message of the stream.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its bytes.
    pub payload: Bytes,
    headers: Option<HeaderMap>,
}

impl Received {
    /// The events in it: those of a packed frame, or the one that the message is.
    ///
    /// # Errors
    ///
    /// When it says that it is a frame and cannot be unpacked as one.
    pub fn unpack(&self) -> Result<Frame<'_>, FrameError> {
        let headers = self.headers.as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
        frame::unpack(header, &self.payload)
    }
}

/// Reads the messages of one stream, oldest first.
pub struct Reader {
    messages: pull::Ordered,
    first_sequence: u64,
    last_sequence: u64,
    /// Messages that were in the stream when the reader was opened and are still to come.
    pending: u64,
    follow: bool,
}

impl Reader {
    /// Opens the configured stream for messages whose subject matches `filter` (all of the stream's when it is empty). Where the
    /// bus has partitions there are several, and each is opened by [`open_stream`](Self::open_stream).
    ///
    /// With `follow`, [`next`](Self::next) waits for messages to come; without, it ends with the last message that was
    /// there at this moment.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, the stream does not exist, or the configuration names no server.
    pub async fn open(config: &Config, filter: &str, from: From, follow: bool) -> Result<Self, ReaderError> {
        Self::open_stream(config, &config.stream, filter, from, follow).await
    }

    /// As [`open`](Self::open), for a stream of another name on the configured server, such as one of [`Config::streams`].
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_stream(
        config: &Config,
        name: &StreamName,
        filter: &str,
        from: From,
        follow: bool,
    ) -> Result<Self, ReaderError> {
        let Endpoint::Nats(servers) = &config.url else {
            return Err(ReaderError::NoServer(config.url.to_string()));
        };
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

    /// The first sequence that the stream held when the reader was opened; above 1 its front has been cut off by a limit or a
    /// purge.
    pub fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    /// The last sequence that the stream held when the reader was opened.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Messages that are still to come of those that were there when the reader was opened.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// The next message; `None` at the end, unless the reader follows.
    ///
    /// # Errors
    ///
    /// When the connection or the stream is lost.
    pub async fn next(&mut self) -> Result<Option<Received>, ReaderError> {
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
            headers: message.headers.clone(),
        }))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("pending", &self.pending)
            .field("follow", &self.follow)
            .finish_non_exhaustive()
    }
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// None of the servers can be reached.
    #[error("cannot connect to {0}")]
    Connect(String),
    /// The server says no.
    #[error("stream {0}")]
    Stream(String),
    /// The configured URL is not a server's.
    #[error(
        "{0} has no stream that could be read; a url of a server is needed, such as nats://localhost:4222"
    )]
    NoServer(String),
}

impl ReaderError {
    pub(super) fn stream(name: &StreamName, error: impl fmt::Display) -> Self {
        Self::Stream(format!("{:?}: {error}", name.as_str()))
    }
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
