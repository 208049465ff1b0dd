//! The worker's end of a NATS connection.
//!
//! What is sent has a reply subject of our own, all under one wildcard subscription (`address`), so an answer names what it
//! answers, and nothing has to be kept for it here. (The client's own way, `jetstream::Context::publish`, keeps an entry for ever
//! for each answer that is lost: nats.rs #1617.)
//!
//! Where the pipeline wants it, a message carries `Nats-Msg-Id: <producer>-<seq>`, by which the server recognises what it has stored
//! already. That of a packed frame is `<producer>-<seq>+<count>`, of its first event.

use super::address::{self, Writer};
use super::look::Denied;
use super::servers::{KnownServers, race};
use super::{connect, look};
use crate::config::{Config, Server, Servers};
use crate::foreign::dispose;
use crate::publisher::outgoing::{Address, Headers, Sending};
use crate::publisher::pipeline::ServerInfo;
use crate::publisher::reply::{BatchReply, Reply};
use crate::publisher::server::ServerVersion;
use crate::publisher::stamp::ProducerNames;
use crate::sink::{ConnectionLost, Sink, SinkEvent};
use crate::spool::tended::Hush;
use crate::subject::StreamName;
use async_nats::client::PublishError;
use async_nats::{Client, HeaderMap, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the hand-over of one message to the client may take. Its queue has room for all that we send, so this is only a
/// guard against a client that has stopped working.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands beside messages (subscriptions, requests, reports) that the client's queue has room for. With the window it makes
/// a queue that is never full, so that the worker is never held up by a socket that takes nothing.
const CLIENT_QUEUE_SPARE: usize = 256;

/// Events that wait for the worker, beside answers. It reads them at each turn.
const EVENTS_MAX: usize = 256;

pub(crate) struct NatsSink {
    config: Arc<Config>,
    stream: StreamName,
    producers: ProducerNames,
    servers: KnownServers,
    connection: Option<Connection>,
    /// We have left the connection, and the worker has not been told yet.
    left: bool,
    connected_told: Hush,
    /// Counts the connections, so that the last words of one are not taken for those of the next.
    epoch: u64,
    events: mpsc::Receiver<(u64, Happening)>,
    tell: mpsc::Sender<(u64, Happening)>,
}

struct Connection {
    server: Server,
    client: Client,
    answers: Subscriber,
    writer: Writer,
    /// What the client says of itself and of the server. It ends with the client.
    events: mpsc::Receiver<SinkEvent>,
    denied: watch::Sender<Denied>,
}

/// What tasks tell the sink.
enum Happening {
    Connected(Box<Connection>),
    Event(SinkEvent),
}

impl NatsSink {
    pub(crate) fn new(
        config: Arc<Config>,
        stream: StreamName,
        servers: &Servers,
        producers: ProducerNames,
    ) -> Self {
        let (tell, events) = mpsc::channel(EVENTS_MAX);
        let servers = KnownServers::new(servers);
        Self {
            config,
            stream,
            producers,
            servers,
            connection: None,
            left: false,
            connected_told: Hush::default(),
            epoch: 0,
            events,
            tell,
        }
    }

    /// Asks something on a task of its own and tells the worker the answer. A panic is one, too: the client logs, and a subscriber is user
    /// code; the worker would wait for ever.
    fn ask(&self, question: impl Future<Output = Happening> + Send + 'static) {
        let (epoch, tell) = (self.epoch, self.tell.clone());
        tokio::spawn(async move {
            // AssertUnwindSafe: nothing of the question is used after a panic.
            let answer = AssertUnwindSafe(question).catch_unwind().await;
            let happening = answer.unwrap_or_else(|payload| {
                dispose(payload);
                Happening::Event(SinkEvent::Disconnected("a task of the connection has panicked".to_owned()))
            });
            let _ = tell.send((epoch, happening)).await;
        });
    }

    fn accept(&mut self, (epoch, happening): (u64, Happening)) -> Option<SinkEvent> {
        if epoch != self.epoch {
            return None;
        }
        match happening {
            Happening::Connected(connection) => {
                let info = connection.client.server_info();
                self.servers.prove(&connection.server);
                self.learn_servers(&connection);
                // A server may end each connection at once.
                if self.connected_told.may_speak() {
                    tracing::info!(server = %info.server_name, version = %info.version, "connected");
                }
                self.connection = Some(*connection);
                Some(SinkEvent::Connected(ServerInfo {
                    max_payload: info.max_payload,
                    version: ServerVersion::parse(&info.version),
                }))
            }
            Happening::Event(event) => Some(self.heed(event)),
        }
    }

    fn heed(&mut self, event: SinkEvent) -> SinkEvent {
        if matches!(event, SinkEvent::Disconnected(_)) {
            self.end();
        }
        event
    }

    /// Forgets the connection and all that it may still say.
    fn end(&mut self) {
        self.epoch += 1;
        if let Some(connection) = self.connection.take() {
            // A cluster may have changed while the connection lasted.
            self.learn_servers(&connection);
            self.servers.lose(connection.server);
        }
    }

    fn learn_servers(&mut self, connection: &Connection) {
        let info = connection.client.server_info();
        let permitted = |server: &Server| !self.config.exposes_credentials(server);
        self.servers.learn(&connection.server, &info.connect_urls, permitted);
    }

    fn farewell(&mut self) -> Option<SinkEvent> {
        std::mem::take(&mut self.left).then(|| SinkEvent::Disconnected("the server was silent".to_owned()))
    }

    fn answer(&mut self, message: Option<async_nats::Message>) -> Option<SinkEvent> {
        let Some(message) = message else {
            self.end();
            return Some(SinkEvent::Disconnected("the client has ended".to_owned()));
        };
        let is_unheard = message.status == Some(async_nats::StatusCode::NO_RESPONDERS);
        let stream = self.stream.as_str();
        Some(match address::parse(&message.subject)? {
            Address::Single(token) if is_unheard => SinkEvent::Reply(token, Reply::no_responders()),
            Address::Single(token) => SinkEvent::Reply(token, Reply::parse(&message.payload, stream)),
            Address::Batch(token) if is_unheard => SinkEvent::BatchReply(token, BatchReply::no_responders()),
            Address::Batch(token) => {
                SinkEvent::BatchReply(token, BatchReply::parse(&message.payload, stream))
            }
        })
    }
}

impl Sink for NatsSink {
    fn connect(&mut self) {
        self.epoch += 1;
        let (config, producers) = (Arc::clone(&self.config), self.producers.clone());
        let servers = self.servers.in_order();
        self.ask(async move {
            match race(&servers, |server| open(&config, server, producers.process())).await {
                Ok(connection) => Happening::Connected(Box::new(connection)),
                Err(text) => Happening::Event(SinkEvent::Disconnected(text)),
            }
        });
    }

    fn disconnect(&mut self) {
        self.end();
        self.left = true;
    }

    fn look_up_stream(&mut self) {
        let Some(connection) = &self.connection else { return };
        let (client, stream, denied) =
            (connection.client.clone(), self.stream.clone(), connection.denied.clone());
        self.ask(async move {
            Happening::Event(SinkEvent::Stream(look::look_up(&client, stream.as_str(), &denied).await))
        });
    }

    fn read(&mut self, from: u64, to: u64) {
        let Some(connection) = &self.connection else { return };
        let (client, stream, denied) =
            (connection.client.clone(), self.stream.clone(), connection.denied.clone());
        self.ask(async move {
            let read = look::read(client, stream.as_str(), (from, to), &denied).await;
            Happening::Event(SinkEvent::Read(read))
        });
    }

    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost> {
        let Some(Connection { client, writer, .. }) = &mut self.connection else {
            return Err(ConnectionLost);
        };
        let subject = Subject::from_utf8(sending.subject.clone()).map_err(|_| ConnectionLost)?;
        let reply = Subject::from_utf8(writer.reply(sending.address)).map_err(|_| ConnectionLost)?;
        // The client keeps it for as long as it likes; we keep ours until it is answered. That of a frame is shared.
        let payload = match sending.packed {
            Some(packed) => packed.payload.clone(),
            None => writer.payload(sending.payload),
        };
        if sending.id.is_none() && sending.packed.is_none() && sending.trace.is_none() {
            return in_time(client.publish_with_reply(subject, reply, payload)).await;
        }
        let headers = header_map(sending.headers(), &self.producers);
        in_time(client.publish_with_reply_and_headers(subject, reply, headers, payload)).await
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
                    Some(event) = connection.events.recv() => Some(self.heed(event)),
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
            } else if let Some(event) =
                self.connection.as_mut().and_then(|connection| connection.events.try_recv().ok())
            {
                Some(self.heed(event))
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

fn header_map(headers: Headers<'_>, producers: &ProducerNames) -> HeaderMap {
    let mut map = HeaderMap::new();
    headers.each(producers, |name, value| map.insert(name, value));
    map
}

async fn open(config: &Config, server: Server, process: &str) -> Result<Connection, String> {
    let denied = watch::Sender::new(Denied::default());
    let ((tell, events), hears) = (mpsc::channel(EVENTS_MAX), denied.clone());
    let on_event = move |event| {
        let (tell, hears) = (tell.clone(), hears.clone());
        async move {
            let Some(event) = translate(event) else { return };
            if let SinkEvent::Denied(subject) = &event {
                hears.send_modify(|denied| denied.hear(subject));
            }
            let _ = tell.send(event).await;
        }
    };
    let queue = config.delivery.max_in_flight + CLIENT_QUEUE_SPARE;
    let tune = |options: async_nats::ConnectOptions| {
        options.client_capacity(queue).skip_subject_validation(true).event_callback(on_event)
    };
    let client = connect(config, &server, tune).await.map_err(|error| error.to_string())?;
    let inbox = client.new_inbox();
    let answers = client.subscribe(format!("{inbox}.>")).await.map_err(|error| error.to_string())?;
    Ok(Connection { server, client, answers, writer: Writer::new(inbox, process), events, denied })
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
pub(super) fn denied_subject(error: &str) -> Option<Bytes> {
    let (_, rest) = error
        .to_ascii_lowercase()
        .find("permissions violation for publish to")
        .map(|at| error.split_at(at))?;
    let subject = rest.split('"').nth(1)?;
    Some(Bytes::copy_from_slice(subject.as_bytes()))
}

/// Whether an inbox is meant by `Permissions Violation for Subscription to "_INBOX.a.>"`: answers cannot be heard then.
pub(super) fn denied_inbox(error: &str) -> bool {
    error.to_ascii_lowercase().contains("permissions violation for subscription to \"_inbox.")
}

/// Hands something to the client. Nearly always there is room in its queue and no time limit has to be set up.
async fn in_time(publish: impl Future<Output = Result<(), PublishError>>) -> Result<(), ConnectionLost> {
    let mut publish = std::pin::pin!(publish);
    let published = match publish.as_mut().now_or_never() {
        Some(published) => published,
        None => tokio::time::timeout(SEND_TIMEOUT, publish).await.map_err(|_| ConnectionLost)?,
    };
    published.map_err(|_| ConnectionLost)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use crate::frame::Encoding;
    use crate::publisher::outgoing::{FrameHeaders, MessageId};
    use crate::publisher::window::{Origin, Past};
    use crate::spool::LogId;

    /// Beside what the client makes of the same headers, which is written as its `HeaderMap::to_bytes` writes it.
    #[test]
    fn headers_are_measured_as_they_go_over_the_wire() {
        let names = ProducerNames::new(u64::MAX, 1000);
        let past = |name| Origin::Past(Past::parse(name).expect("a producer's name"));
        let origins = [
            Origin::Ring(0),
            Origin::Ring(999),
            Origin::Bus,
            past("ffffffffffffffff.4294967295"),
            past("ffffffffffffffff.4294967295.bus"),
            Origin::Log(LogId::NONE),
        ];
        let ids = origins.into_iter().flat_map(|origin| [1, u64::MAX].map(|seq| MessageId { origin, seq }));
        let frames = [1, 79, 16 << 20].into_iter().flat_map(|events| {
            [None, Some(Encoding::Lz4), Some(Encoding::Zstd)]
                .map(|encoding| FrameHeaders { events, encoding })
        });
        let frames: Vec<_> = frames.map(Some).chain([None]).collect();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().expect("a traceparent");
        for id in ids.map(Some).chain([None]) {
            for &frame in &frames {
                for trace in [None, Some(&trace)] {
                    let headers = Headers { id, frame, trace };
                    let map = header_map(headers, &names);
                    let lines =
                        map.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
                    let lines: Vec<_> =
                        lines.map(|(name, value)| format!("{name}: {}\r\n", value.as_str())).collect();
                    let text = format!("NATS/1.0\r\n{}\r\n", lines.concat());
                    assert_eq!(headers.bytes(&names), if map.is_empty() { 0 } else { text.len() }, "{text}");
                }
            }
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
