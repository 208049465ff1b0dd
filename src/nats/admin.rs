//! Makes a stream, so that a first try needs no other tool. In production streams are made by whoever runs the server.

use super::reader::{ReaderError, connect_any};
use crate::config::{Config, Endpoint};
use crate::subject::Subjects;
use async_nats::jetstream::{self, stream};

/// Makes the configured stream if there is none, for all subjects of the configured chain, with a file store and
/// fast-ingest batches allowed where the server knows them. For development.
///
/// # Errors
///
/// When the server cannot be reached, or does not make the stream.
pub async fn create_stream(config: &Config) -> Result<(), ReaderError> {
    let Endpoint::Nats(servers) = &config.url else { return Ok(()) };
    let client = connect_any(config, servers).await?;
    let context = jetstream::new(client);
    if context.get_stream(config.stream.as_str()).await.is_ok() {
        return Ok(());
    }
    let wanted = stream::Config {
        name: config.stream.to_string(),
        subjects: vec![Subjects::new(&config.subject_prefix, config.chain_id).all()],
        allow_direct: true,
        allow_batch_publish: true,
        ..Default::default()
    };
    let plain = stream::Config { allow_batch_publish: false, ..wanted.clone() };
    // A server before 2.14 refuses what it does not know.
    if context.create_stream(wanted).await.is_err() {
        context.create_stream(plain).await.map_err(|error| ReaderError::Stream(error.to_string()))?;
    }
    Ok(())
}
