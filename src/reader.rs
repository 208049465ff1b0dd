//! Reads a stream back, in order, wherever the URL says that it is: on a server, or in a directory.

use crate::config::{Config, Endpoint};
use crate::frame::{self, Frame, FrameError};
use crate::nats::messages::Messages as NatsMessages;
use crate::spool::messages::Messages as FileMessages;
use crate::subject::StreamName;
use bytes::Bytes;
use std::collections::BTreeMap;
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
    pub(crate) headers: Vec<(String, String)>,
}

impl Received {
    /// A header of the message, `traceparent` for one; none if it has no such header. Names are compared to the letter, as NATS has them, and of
    /// several headers of a name the first counts.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// The events in it: those of a packed frame, or the one that the message is.
    ///
    /// # Errors
    ///
    /// When it says that it is a frame and cannot be unpacked as one.
    pub fn unpack(&self) -> Result<Frame<'_>, FrameError> {
        frame::unpack(|name| self.header(name), &self.payload)
    }
}

/// Reads the messages of one stream, oldest first.
#[derive(Debug)]
pub struct Reader(Source);

#[derive(Debug)]
enum Source {
    Nats(Box<NatsMessages>),
    File(Box<FileMessages>),
}

impl Reader {
    /// Opens the configured stream for messages whose subject matches `filter` (all of the stream's when it is empty). Where the
    /// bus has partitions there are several, and each is opened by [`open_stream`](Self::open_stream).
    ///
    /// With `follow`, [`next`](Self::next) waits for messages to come; without, it ends with the last message that was
    /// there at this moment, as the stream's leader names it. If messages are removed meanwhile (a purge, a limit, a consumer of a work
    /// queue), it ends behind those that are left.
    ///
    /// On a server the credentials must be allowed to publish to `$JS.API.STREAM.INFO`, `.STREAM.MSG.GET` and
    /// `.CONSUMER.CREATE` of the stream. Reading takes nothing out of a stream, also out of a work queue, which is
    /// read without a consumer, one request a message.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or the directory not be read, the stream does not exist, its leader does not answer for 15 s, or
    /// the configuration names neither.
    pub async fn open(config: &Config, filter: &str, from: From, follow: bool) -> Result<Self, ReaderError> {
        Self::open_stream(config, &config.stream, filter, from, follow).await
    }

    /// As [`open`](Self::open), for a stream of another name on the configured server, such as one of [`Config::streams`]. A directory
    /// holds one stream, whatever it is called.
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
        match &config.url {
            Endpoint::Nats(servers) => {
                let messages = NatsMessages::open(config, servers, name, filter, from, follow).await?;
                Ok(Self(Source::Nats(Box::new(messages))))
            }
            Endpoint::File(path) => {
                Ok(Self(Source::File(Box::new(FileMessages::open(path, filter, from, follow)?))))
            }
            Endpoint::Null => Err(ReaderError::NoServer(config.url.to_string())),
        }
    }

    /// The first sequence that the stream held when the reader was opened; above 1 its front has been cut off by a limit or a
    /// purge.
    pub fn first_sequence(&self) -> u64 {
        match &self.0 {
            Source::Nats(messages) => messages.first_sequence(),
            Source::File(messages) => messages.first_sequence(),
        }
    }

    /// The last sequence that the stream held when the reader was opened.
    pub fn last_sequence(&self) -> u64 {
        match &self.0 {
            Source::Nats(messages) => messages.last_sequence(),
            Source::File(messages) => messages.last_sequence(),
        }
    }

    /// About how many messages are still to come of those that were there when the reader was opened: for progress bars. A replica that lags
    /// behind counts too few; in a directory, a work queue and an interest stream, messages that the filter leaves out count too.
    pub fn pending(&self) -> u64 {
        match &self.0 {
            Source::Nats(messages) => messages.pending(),
            Source::File(messages) => messages.pending(),
        }
    }

    /// How many messages the stream holds now of each subject, whatever the filter is; of `max` subjects at most. A directory is read
    /// through for it.
    ///
    /// # Errors
    ///
    /// When the connection is lost or the directory cannot be read.
    pub async fn subjects(&self, max: usize) -> Result<BTreeMap<String, u64>, ReaderError> {
        match &self.0 {
            Source::Nats(messages) => messages.subjects(max).await,
            Source::File(messages) => messages.subjects(max),
        }
    }

    /// The next message; `None` at the end, unless the reader follows.
    ///
    /// # Errors
    ///
    /// When the connection or the stream is lost.
    pub async fn next(&mut self) -> Result<Option<Received>, ReaderError> {
        match &mut self.0 {
            Source::Nats(messages) => messages.next().await,
            Source::File(messages) => messages.next().await,
        }
    }
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReaderError {
    /// None of the servers can be reached.
    #[error("cannot connect to {0}")]
    Connect(String),
    /// The server, or the disk, says no.
    #[error("stream {0}")]
    Stream(String),
    /// The configured URL is neither a server's nor a directory's, or not one that this can be done with.
    #[error("{0} has no stream for this; a url of a server is needed, such as nats://localhost:4222")]
    NoServer(String),
}

impl ReaderError {
    pub(crate) fn stream(name: &dyn fmt::Display, error: impl fmt::Display) -> Self {
        Self::Stream(format!("{:?}: {error}", name.to_string()))
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_first_one_of_exactly_its_name() {
        let headers = [("Traceparent", "1"), ("traceparent", "2"), ("traceparent", "3")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let received = Received { sequence: 1, subject: "a".to_owned(), payload: Bytes::new(), headers };
        assert_eq!((received.header("traceparent"), received.header("TraceParent")), (Some("2"), None));
    }
}
