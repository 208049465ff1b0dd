//! Messages as they are, to any subject that a stream takes: no envelope, no ring, one acknowledgement awaited at a time.

use super::messages::connect_any;
use crate::config::{Config, Endpoint};
use crate::reader::ReaderError;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;

/// Publishes single messages and waits for each acknowledgement. For tools; events go through a [`Bus`](crate::Bus).
#[derive(Clone, Debug)]
pub struct RawPublisher {
    context: Context,
}

impl RawPublisher {
    /// Connects to the configured server.
    ///
    /// # Errors
    ///
    /// When no server can be reached, or the configuration names none.
    pub async fn connect(config: &Config) -> Result<Self, ReaderError> {
        let Endpoint::Nats(servers) = &config.url else {
            return Err(ReaderError::NoServer(config.url.to_string()));
        };
        Ok(Self { context: jetstream::new(connect_any(config, servers).await?) })
    }

    /// Publishes one message and waits until it is stored.
    ///
    /// # Errors
    ///
    /// When the subject is not valid, no stream takes it, or the server refuses it or does not answer.
    pub async fn publish(&self, subject: &str, payload: Bytes) -> Result<(), ReaderError> {
        let failed = |error: async_nats::jetstream::context::PublishError| {
            ReaderError::Stream(format!("on subject {subject:?}: {error}"))
        };
        self.context.publish(subject.to_owned(), payload).await.map_err(failed)?.await.map_err(failed)?;
        Ok(())
    }
}
