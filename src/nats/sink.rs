//! The worker's end of a NATS connection.
//!
//! A message is published with a reply subject of our own, `<inbox>.<number>.<attempt>`, all under one wildcard subscription,
//! so an answer names the attempt that it answers, and nothing has to be kept for it here. (The client's own way,
//! `jetstream::Context::publish`, keeps an entry for ever for each answer that is lost: nats.rs #1617.)
//!
//! Each message carries `Nats-Msg-Id: <producer>-<seq>`, by which the server recognises what it has stored already.

use super::connect;
use crate::config::{Config, Server, Servers};
use crate::frame;
use crate::publisher::packer::Packed;
use crate::publisher::pipeline::{ServerLimits, StreamState, StreamSubjects, Token};
use crate::publisher::reply::Reply;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::Message;
use crate::sink::{ConnectionLost, Sink, SinkEvent};
use async_nats::{Client, HeaderMap, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the hand-over of one message to the client may take. Its queue has room for all that we send, so this is only a
/// guard against a client that has stopped working.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to tell about the stream.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands beside messages (subscriptions, requests, reports) that the client's queue has room for. With the window it makes
/// a queue that is never full, so that the worker is never held up by a socket that takes nothing.
const CLIENT_QUEUE_SPARE: usize = 256;

/// Events that wait for the worker, beside answers. It reads them at each turn.
const EVENTS_MAX: usize = 256;

/// Servers that are remembered, configured and discovered together.
const SERVERS_MAX: usize = 64;

pub(crate) struct NatsSink {
    config: Arc<Config>,
    producers: ProducerNames,
    servers: VecDeque<Server>,
    connection: Option<Connection>,
    /// We have left the connection, and the worker has not been told yet.
    left: bool,
    /// Counts the connections, so that the last words of one are not taken for those of the next.
    epoch: u64,
    events: mpsc::Receiver<(u64, Happening)>,
    tell: mpsc::Sender<(u64, Happening)>,
}

struct Connection {
    client: Client,
    answers: Subscriber,
    inbox: String,
}

/// What tasks tell the sink.
enum Happening {
    Connected(Box<Connection>),
    Event(SinkEvent),
}

impl NatsSink {
    pub(crate) fn new(config: Arc<Config>, servers: &Servers, producers: ProducerNames) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let servers = servers.iter().cloned().collect();
        Self { config, producers, servers, connection: None, left: false, epoch: 0, events, tell }
    }

    fn accept(&mut self, (epoch, happening): (u64, Happening)) -> Option<SinkEvent> {
        if epoch != self.epoch {
            return None;
        }
        match happening {
            Happening::Connected(connection) => {
                let info = connection.client.server_info();
                self.learn_servers(&info.connect_urls);
                tracing::info!(server = %info.server_name, version = %info.version, "connected");
                self.connection = Some(*connection);
                Some(SinkEvent::Connected(ServerLimits { max_payload: info.max_payload }))
            }
            Happening::Event(event @ SinkEvent::Disconnected(_)) => {
                self.end();
                Some(event)
            }
            Happening::Event(event) => Some(event),
        }
    }

    /// Forgets the connection and all that it may still say.
    fn end(&mut self) {
        self.epoch += 1;
        self.connection = None;
        // The next attempt goes to the next server.
        self.servers.rotate_left(1);
    }

    /// Adds the servers of a cluster that the connected one knows of. They take over how the configured one is reached,
    /// so that one without TLS cannot slip in among those with it.
    fn learn_servers(&mut self, addresses: &[String]) {
        let Some(known) = self.servers.front().cloned() else { return };
        for address in addresses {
            let Some((host, port)) = address.rsplit_once(':') else { continue };
            let Ok(port) = port.parse() else { continue };
            let server = Server { host: host.trim_matches(['[', ']']).to_owned(), port, ..known.clone() };
            let is_known =
                self.servers.iter().any(|known| (&known.host, known.port) == (&server.host, server.port));
            if !is_known && self.servers.len() < SERVERS_MAX {
                self.servers.push_back(server);
            }
        }
    }

    fn farewell(&mut self) -> Option<SinkEvent> {
        std::mem::take(&mut self.left).then(|| SinkEvent::Disconnected("the server was silent".to_owned()))
    }

    fn answer(&mut self, message: Option<async_nats::Message>) -> Option<SinkEvent> {
        let Some(message) = message else {
            self.end();
            return Some(SinkEvent::Disconnected("the client has ended".to_owned()));
        };
        let token = token_of(&message.subject)?;
        let reply = match message.status {
            Some(async_nats::StatusCode::NO_RESPONDERS) => Reply::no_responders(),
            _ => Reply::parse(&message.payload, self.config.stream.as_str()),
        };
        Some(SinkEvent::Reply(token, reply))
    }
}

impl Sink for NatsSink {
    fn connect(&mut self) {
        self.epoch += 1;
        let (epoch, tell) = (self.epoch, self.tell.clone());
        let config = Arc::clone(&self.config);
        let Some(server) = self.servers.front().cloned() else { return };
        tokio::spawn(async move {
            let happening = match open(&config, &server, epoch, &tell).await {
                Ok(connection) => Happening::Connected(Box::new(connection)),
                Err(text) => {
                    Happening::Event(SinkEvent::Disconnected(format!("{}: {text}", server.address())))
                }
            };
            let _ = tell.send((epoch, happening)).await;
        });
    }

    fn disconnect(&mut self) {
        self.end();
        self.left = true;
    }

    fn look_up_stream(&mut self) {
        let Some(connection) = &self.connection else { return };
        let (epoch, tell, client) = (self.epoch, self.tell.clone(), connection.client.clone());
        let request = format!("$JS.API.STREAM.INFO.{}", self.config.stream);
        tokio::spawn(async move {
            let state = look_up(&client, request).await;
            let _ = tell.send((epoch, Happening::Event(SinkEvent::Stream(state)))).await;
        });
    }

    async fn send(&mut self, token: Token, message: &Message, payload: &[u8]) -> Result<(), ConnectionLost> {
        let Some(connection) = &self.connection else { return Err(ConnectionLost) };
        let subject = Subject::from_utf8(message.route.subject.clone()).map_err(|_| ConnectionLost)?;
        let reply = reply_subject(&connection.inbox, token);
        let mut headers = HeaderMap::new();
        let (producer, seq) = (self.producers.of(message.origin), message.seq);
        // The client keeps a payload for as long as it likes; we keep ours until it is answered. That of a frame is shared.
        let payload = match &message.packed {
            None => {
                headers.insert("Nats-Msg-Id", format!("{producer}-{seq}"));
                Bytes::copy_from_slice(payload)
            }
            Some(packed) => {
                headers.insert("Nats-Msg-Id", format!("{producer}-{seq}+{}", packed.events.len()));
                describe(packed, &mut headers);
                packed.payload.clone()
            }
        };
        let publish = connection.client.publish_with_reply_and_headers(subject, reply, headers, payload);
        match tokio::time::timeout(SEND_TIMEOUT, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ConnectionLost),
        }
    }

    async fn event(&mut self) -> SinkEvent {
        if let Some(event) = self.farewell() {
            return event;
        }
        loop {
            let event = match &mut self.connection {
                None => match self.events.recv().await {
                    Some(happening) => self.accept(happening),
                    // We hold a sender ourselves, so the channel does not close.
                    None => std::future::pending().await,
                },
                Some(connection) => tokio::select! {
                    biased;
                    message = connection.answers.next() => self.answer(message),
                    Some(happening) = self.events.recv() => self.accept(happening),
                },
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    fn try_event(&mut self) -> Option<SinkEvent> {
        if let Some(event) = self.farewell() {
            return Some(event);
        }
        loop {
            let event = if let Some(message) =
                self.connection.as_mut().and_then(|connection| connection.answers.next().now_or_never())
            {
                self.answer(message)
            } else {
                let happening = self.events.try_recv().ok()?;
                self.accept(happening)
            };
            if event.is_some() {
                return event;
            }
        }
    }
}

/// Adds the headers by which a reader knows a frame.
fn describe(packed: &Packed, headers: &mut HeaderMap) {
    headers.insert(frame::CONTENT_TYPE, frame::NDJSON);
    headers.insert(frame::COUNT, packed.events.len().to_string());
    if let Some(encoding) = packed.encoding {
        headers.insert(frame::CONTENT_ENCODING, encoding.name());
    }
}

async fn open(
    config: &Config,
    server: &Server,
    epoch: u64,
    tell: &mpsc::Sender<(u64, Happening)>,
) -> Result<Connection, String> {
    let tell = tell.clone();
    let on_event = move |event| {
        let tell = tell.clone();
        async move {
            if let Some(event) = translate(event) {
                let _ = tell.send((epoch, Happening::Event(event))).await;
            }
        }
    };
    let queue = config.delivery.max_in_flight + CLIENT_QUEUE_SPARE;
    let tune = |options: async_nats::ConnectOptions| {
        options.client_capacity(queue).skip_subject_validation(true).event_callback(on_event)
    };
    let client = connect(config, server, tune).await.map_err(|error| error.to_string())?;
    let inbox = client.new_inbox();
    let answers = client.subscribe(format!("{inbox}.>")).await.map_err(|error| error.to_string())?;
    Ok(Connection { client, answers, inbox })
}

fn translate(event: async_nats::Event) -> Option<SinkEvent> {
    match event {
        async_nats::Event::Disconnected | async_nats::Event::Closed => {
            Some(SinkEvent::Disconnected("connection lost".to_owned()))
        }
        async_nats::Event::ServerError(error) => denied_subject(&error.to_string()).map(SinkEvent::Denied),
        _ => None,
    }
}

/// The subject in `Permissions Violation for Publish to "event.1.a"`. The server tells it in no other way.
fn denied_subject(error: &str) -> Option<Bytes> {
    let (_, rest) = error
        .to_ascii_lowercase()
        .find("permissions violation for publish to")
        .map(|at| error.split_at(at))?;
    let subject = rest.split('"').nth(1)?;
    Some(Bytes::copy_from_slice(subject.as_bytes()))
}

async fn look_up(client: &Client, request: String) -> StreamState {
    #[derive(Deserialize)]
    struct Answer {
        config: Option<StreamConfig>,
        error: Option<ApiError>,
    }
    #[derive(Deserialize)]
    struct StreamConfig {
        #[serde(default)]
        subjects: Vec<String>,
    }
    #[derive(Deserialize)]
    struct ApiError {
        #[serde(default)]
        err_code: u32,
    }
    const STREAM_NOT_FOUND: u32 = 10059;

    let message = match tokio::time::timeout(LOOK_UP_TIMEOUT, client.request(request, Bytes::new())).await {
        Ok(Ok(message)) => message,
        // Nobody answers for JetStream: it is off, or just starting. Nothing can be stored then.
        Ok(Err(error)) if error.kind() == async_nats::client::RequestErrorKind::NoResponders => {
            return StreamState::Missing;
        }
        Ok(Err(_)) | Err(_) => return StreamState::Unknown,
    };
    match serde_json::from_slice(&message.payload) {
        Ok(Answer { error: Some(ApiError { err_code: STREAM_NOT_FOUND }), .. }) => StreamState::Missing,
        Ok(Answer { config: Some(config), .. }) => StreamState::Found(StreamSubjects(config.subjects)),
        Ok(Answer { .. }) | Err(_) => StreamState::Unknown,
    }
}

fn reply_subject(inbox: &str, token: Token) -> String {
    let mut subject = String::with_capacity(inbox.len() + 24);
    // Writing to a string cannot fail.
    let _ = write!(subject, "{inbox}.{}.{}", token.number, token.attempt);
    subject
}

fn token_of(subject: &str) -> Option<Token> {
    let mut tokens = subject.rsplit('.');
    let attempt = tokens.next()?.parse().ok()?;
    let number = tokens.next()?.parse().ok()?;
    Some(Token { number, attempt })
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_finds_the_attempt_that_it_answers() {
        for token in [Token { number: 0, attempt: 1 }, Token { number: u64::MAX, attempt: u32::MAX }] {
            assert_eq!(token_of(&reply_subject("_INBOX.abc", token)), Some(token));
        }
        for subject in ["_INBOX.abc", "_INBOX.abc.x.1", "_INBOX.abc.1.", ""] {
            assert_eq!(token_of(subject), None);
        }
    }

    #[test]
    fn the_denied_subject_is_read_out_of_the_servers_words() {
        let error = "nats: Permissions Violation for Publish to \"event.1.a\"";
        assert_eq!(denied_subject(error).as_deref(), Some(b"event.1.a".as_slice()));
        assert_eq!(
            denied_subject("permissions violation for publish to \"e.A\"").as_deref(),
            Some(b"e.A".as_slice())
        );
        assert_eq!(denied_subject("Permissions Violation for Subscription to \"x\""), None);
        assert_eq!(denied_subject("Maximum Payload Violation"), None);
    }
}
