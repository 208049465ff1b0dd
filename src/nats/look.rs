//! What the worker asks the server about its stream: how it is, and what it holds.

use crate::frame;
use crate::publisher::pipeline::{READ_PAGE, Read, StoredMessage, StreamInfo, StreamState};
use async_nats::HeaderMap;
use async_nats::client::RequestError;
use async_nats::jetstream::{self, stream};
use async_nats::{Client, Message};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use std::time::Duration;

/// How long the server may take to tell about the stream, or to give out a page of it.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often it is asked about the stream meanwhile. What is asked while the stream has no leader is lost.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Messages of a page that are asked for at once.
const READS_AT_ONCE: usize = 64;

#[derive(Deserialize)]
struct Answer {
    config: Option<Config>,
    #[serde(default)]
    created: String,
    #[serde(default)]
    state: State,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    subjects: Vec<String>,
    /// In nanoseconds.
    #[serde(default)]
    duplicate_window: u64,
    #[serde(default)]
    allow_batched: bool,
}

#[derive(Default, Deserialize)]
struct State {
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u32,
}

/// Asks for the stream. The server's leader of the stream answers, so what it says of the last sequence is right.
pub(super) async fn look_up(client: &Client, stream: &str) -> StreamState {
    const STREAM_NOT_FOUND: u32 = 10059;
    let answer = ask(client, format!("$JS.API.STREAM.INFO.{stream}"));
    let message = match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(message)) => message,
        // Nobody answers for JetStream: it is off, or just starting. Nothing can be stored then.
        Ok(Err(error)) if error.kind() == async_nats::client::RequestErrorKind::NoResponders => {
            return StreamState::Missing;
        }
        Ok(Err(_)) | Err(_) => return StreamState::Unknown,
    };
    match serde_json::from_slice(&message.payload) {
        Ok(Answer { error: Some(ApiError { err_code: STREAM_NOT_FOUND }), .. }) => StreamState::Missing,
        Ok(Answer { config: Some(config), created, state, .. }) => StreamState::Found(StreamInfo {
            subjects: config.subjects,
            allows_batches: config.allow_batched,
            created,
            first_sequence: state.first_seq,
            last_sequence: state.last_seq,
            duplicate_window: Duration::from_nanos(config.duplicate_window),
        }),
        Ok(Answer { .. }) | Err(_) => StreamState::Unknown,
    }
}

/// The first answer.
async fn ask(client: &Client, subject: String) -> Result<Message, RequestError> {
    let mut again = tokio::time::interval(ASK_AGAIN);
    let mut requests = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = again.tick() => requests.push(client.request(subject.clone(), Bytes::new())),
            Some(answer) = requests.next() => return answer,
        }
    }
}

/// Reads the messages of the stream with these sequences, from its leader: a replica that lags behind could not say that something
/// is not there.
pub(super) async fn read(client: Client, stream: &str, from: u64, to: u64) -> Read {
    debug_assert!(to - from < READ_PAGE, "a page is small enough to be kept");
    let page = async {
        let stream = jetstream::new(client).get_stream_no_info(stream).await.ok()?;
        let messages = futures_util::stream::iter(from..=to).map(|sequence| read_one(&stream, sequence));
        messages.buffered(READS_AT_ONCE).try_collect::<Vec<_>>().await.ok()
    };
    let Ok(Some(page)) = tokio::time::timeout(TIMEOUT, page).await else { return Read::Failed };
    let holes = page.iter().filter(|message| message.is_none()).count() as u64;
    Read::Page { messages: page.into_iter().flatten().collect(), holes }
}

fn frame_headers(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let value = |name| Some((name, headers.get(name)?.as_str().to_owned()));
    [frame::COUNT, frame::CONTENT_ENCODING].into_iter().filter_map(value).collect()
}

async fn read_one<I: Sync>(
    stream: &stream::Stream<I>,
    sequence: u64,
) -> Result<Option<StoredMessage>, stream::RawMessageError> {
    match stream.get_raw_message(sequence).await {
        Ok(message) => Ok(Some(StoredMessage {
            subject: Bytes::copy_from_slice(message.subject.as_bytes()),
            frame_headers: frame_headers(&message.headers),
            payload: message.payload,
        })),
        Err(error) if error.kind() == stream::RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error),
    }
}
