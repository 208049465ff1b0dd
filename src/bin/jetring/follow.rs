//! Follows one stream of a bus, and goes on where it was when the connection is lost.

use crate::{Failure, Result};
use jetring::reader::{From, Reader, ReaderError, Received};
use jetring::{Config, Stream};
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages that are read before they are wanted.
pub(crate) const MESSAGES_AHEAD: usize = 256;

/// Between two attempts to open the stream again.
const REOPEN_DELAY: Duration = Duration::from_millis(500);

pub(crate) struct Follower {
    config: Config,
    stream: Stream,
    filter: String,
    /// Where to go on.
    from: From,
    /// None while the stream has to be opened again.
    reader: Option<Reader>,
}

impl Follower {
    /// Opens a stream for messages with these subjects, or for all that the bus publishes there.
    pub(crate) async fn open(
        config: &Config,
        stream: Stream,
        subject: Option<&str>,
        from: From,
    ) -> Result<Self> {
        let filter = subject.map_or_else(|| stream.subjects.all(), str::to_owned);
        let mut follower = Self { config: config.clone(), stream, filter, from, reader: None };
        let reader = follower.try_open().await.map_err(Failure::run)?;
        if from == From::New {
            // Where to go on if the connection is lost before the first message.
            follower.from = From::Sequence(reader.last_sequence().saturating_add(1));
        }
        follower.reader = Some(reader);
        Ok(follower)
    }

    /// Hands over message after message, until nobody wants them any more.
    pub(crate) async fn run(mut self, tell: mpsc::Sender<Received>) {
        while tell.send(self.next().await).await.is_ok() {}
    }

    /// The next message, however long it takes.
    async fn next(&mut self) -> Received {
        loop {
            let Some(reader) = &mut self.reader else {
                match self.try_open().await {
                    Ok(reader) => self.reader = Some(reader),
                    Err(_) => tokio::time::sleep(REOPEN_DELAY).await,
                }
                continue;
            };
            match reader.next().await {
                Ok(Some(received)) => {
                    self.from = From::Sequence(received.sequence.saturating_add(1));
                    return received;
                }
                // A reader that follows has no end.
                Ok(None) => self.reader = None,
                Err(error) => {
                    eprintln!("jetring: {error}; trying again");
                    self.reader = None;
                }
            }
        }
    }

    async fn try_open(&mut self) -> Result<Reader, ReaderError> {
        Reader::open_stream(&self.config, &self.stream.name, &self.filter, self.from, true).await
    }
}
