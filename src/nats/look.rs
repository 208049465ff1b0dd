//! What the worker asks the server about its stream: how it is, and what it holds.

use crate::frame;
use crate::publisher::pipeline::{READ_PAGE, Read, StoredMessage, StreamInfo, StreamState};
use async_nats::HeaderMap;
use async_nats::client::RequestError;
use async_nats::jetstream::{self, stream};
use async_nats::{Client, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::watch;

/// How long the server may take to tell about the stream, or to give out the next message of it.
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
    state: Option<State>,
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
    /// None, or none that means anything, is no limit.
    max_msg_size: Option<i64>,
    max_bytes: Option<i64>,
}

#[derive(Deserialize)]
struct State {
    first_seq: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u32,
}

/// The requests that the server has denied in this connection. It denies a request without naming it, and never answers it, so a request without
/// an answer is not known to be denied unless this says so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Denied {
    look: bool,
    read: bool,
}

impl Denied {
    /// The server does not permit publishing to this subject.
    pub(super) fn hear(&mut self, subject: &[u8]) {
        self.look |= subject.starts_with(INFO.as_bytes());
        self.read |= subject.starts_with(GET.as_bytes());
    }
}

const INFO: &str = "$JS.API.STREAM.INFO.";
const GET: &str = "$JS.API.STREAM.MSG.GET.";

/// Returns once the server has denied what is asked now.
async fn denial(denied: &watch::Sender<Denied>, which: fn(&mut Denied) -> &mut bool) {
    // A denial of an earlier request may have been lifted.
    denied.send_modify(|denied| *which(denied) = false);
    // It cannot fail: we hold a sender.
    let _ = denied.subscribe().wait_for(|denied| *which(&mut { *denied })).await;
}

/// Asks for the stream. The server's leader of the stream answers, so what it says of the last sequence is right.
pub(super) async fn look_up(client: &Client, stream: &str, denied: &watch::Sender<Denied>) -> StreamState {
    tokio::select! {
        biased;
        state = look(client, stream) => state,
        () = denial(denied, |denied| &mut denied.look) => StreamState::Denied,
    }
}

async fn look(client: &Client, stream: &str) -> StreamState {
    const STREAM_NOT_FOUND: u32 = 10059;
    let answer = ask(client, format!("{INFO}{stream}"));
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
        Ok(Answer { config: Some(config), created, state: Some(state), .. }) => {
            StreamState::Found(StreamInfo {
                subjects: config.subjects,
                allows_batches: config.allow_batched,
                created,
                first_sequence: state.first_seq,
                last_sequence: state.last_seq,
                duplicate_window: Duration::from_nanos(config.duplicate_window),
                message_bytes_max: limit(config.max_msg_size),
                bytes_max: limit(config.max_bytes),
            })
        }
        Ok(Answer { .. }) | Err(_) => StreamState::Unknown,
    }
}

fn limit(bytes: Option<i64>) -> Option<usize> {
    bytes.filter(|&bytes| bytes > 0).and_then(|bytes| usize::try_from(bytes).ok())
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
pub(super) async fn read(
    client: Client,
    stream: &str,
    (from, to): (u64, u64),
    denied: &watch::Sender<Denied>,
) -> Read {
    debug_assert!(to - from < READ_PAGE, "a page is small enough to be kept");
    tokio::select! {
        biased;
        page = read_page(client, stream, from, to) => page.unwrap_or(Read::Failed),
        () = denial(denied, |denied| &mut denied.read) => Read::Denied,
    }
}

/// `None` if a message could not be read, or did not come in time. A slow connection may take its time for a page, as long as messages come.
async fn read_page(client: Client, stream: &str, from: u64, to: u64) -> Option<Read> {
    let stream = jetstream::new(client).get_stream_no_info(stream).await.ok()?;
    let answers = futures_util::stream::iter(from..=to).map(|sequence| read_one(&stream, sequence));
    let mut answers = std::pin::pin!(answers.buffered(READS_AT_ONCE));
    let (mut messages, mut holes) = (Vec::new(), 0);
    while let Some(answer) = tokio::time::timeout(TIMEOUT, answers.next()).await.ok()? {
        match answer.ok()? {
            Some(message) => messages.push(message),
            None => holes += 1,
        }
    }
    Some(Read::Page { messages, holes })
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
