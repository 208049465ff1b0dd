//! Makes streams, so that a first try needs no other tool. In production streams are made by whoever runs the server.

use super::messages::connect_any;
use crate::config::{Config, Endpoint};
use crate::partition::Stream;
use crate::reader::ReaderError;
use async_nats::jetstream::{self, Context, stream};

/// Makes the configured stream if there is none, for all subjects of the configured chain, with a file store and
/// fast-ingest batches allowed where the server knows them; with partitions, the stream of each for its subjects. For development.
///
/// # Errors
///
/// When the server cannot be reached, or does not make a stream.
pub async fn create_stream(config: &Config) -> Result<(), ReaderError> {
    let Endpoint::Nats(servers) = &config.url else { return Ok(()) };
    let context = jetstream::new(connect_any(config, servers).await?);
    for stream in config.streams() {
        create(&context, &stream).await?;
    }
    Ok(())
}

async fn create(context: &Context, Stream { name, subjects }: &Stream) -> Result<(), ReaderError> {
    if context.get_stream(name.as_str()).await.is_ok() {
        return Ok(());
    }
    let wanted = stream::Config {
        name: name.to_string(),
        subjects: vec![subjects.all()],
        allow_direct: true,
        allow_batch_publish: true,
        ..Default::default()
    };
    let plain = stream::Config { allow_batch_publish: false, ..wanted.clone() };
    // A server before 2.14 refuses what it does not know.
    if context.create_stream(wanted).await.is_err() {
        context.create_stream(plain).await.map_err(|error| ReaderError::stream(name, error))?;
    }
    Ok(())
}
