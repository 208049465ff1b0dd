//! A JetStream server in the process, with troubles to order.
//!
//! It speaks the client protocol of NATS on a port of 127.0.0.1 to any client, and knows as much of JetStream as a publisher and a reader
//! of its stream use:
//!
//! | | |
//! | --- | --- |
//! | protocol | `INFO`, `CONNECT`, `PING`, `PONG`, `SUB`, `UNSUB` with a maximum, `PUB`, `HPUB`, `MSG`, `HMSG`, `+OK`, `-ERR`; wildcards, queue groups, headers, status 503 where nobody listens, `max_payload` |
//! | streams | create, update, delete, purge, info, names, list; subjects, limits by number, bytes, age and subject, both discard policies |
//! | publishing | acknowledgements, `Nats-Msg-Id` within the duplicate window, the `Nats-Expected-…` headers, fast-ingest batches (ADR-50) |
//! | reading | by sequence or subject (also directly), and consumers that pull and acknowledge nothing |
//!
//! It has no TLS and lets everybody in. What it does not know it refuses or leaves unanswered: replicas, mirrors and sources, work queues, atomic batches, consumers that acknowledge or push, traces (what is only to be traced is not stored). It says of itself that it is nats-server 2.15.1, and `tests/mock` holds
//! it to that: the cases there run against it and against the real one.
//!
//! Everything is in memory, and nothing is trusted that comes from a client: lines, payloads, connections, subscriptions, and what is
//! stored have limits. It is for tests all the same: it listens on the loopback only, and lets everybody in.
//!
//! | file | is |
//! | --- | --- |
//! | `protocol`, `message` | bytes to operations and back |
//! | `connection` | one socket |
//! | `broker` | who gets what; the faults being done |
//! | `subjects` | wildcards, subscriptions |
//! | `jetstream`, `stream`, `config`, `batch`, `consumer`, `api`, `errors` | JetStream |
//! | `faults` | what a test can order |

mod api;
mod batch;
mod broker;
mod config;
mod connection;
mod consumer;
mod errors;
mod faults;
mod jetstream;
mod message;
mod protocol;
mod stream;
mod subjects;

pub use errors::ApiError;
pub use faults::{Fault, Script};

use super::capture::{CapturedEvent, Events};
use crate::config::Config;
use crate::fork::Home;
use crate::frame;
use crate::trace::TRACEPARENT;
use broker::{Broker, PAYLOAD_BYTES_MAX};
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// The server that we are as.
const VERSION: &str = "2.15.1";
const API_LEVEL: u32 = 5;
const SERVER_NAME: &str = "jetring_mock";

/// What is read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// What the connections and the handle share.
struct Shared {
    broker: Mutex<Broker>,
    /// Wakes the task that waits for what is due next.
    deadlines_changed: Notify,
}

impl Shared {
    /// What a panic has left is good enough for a test that has failed.
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A JetStream server in the process, on a free port of 127.0.0.1 and on a thread of its own. It ends when this is dropped.
///
/// ```
/// use jetring::testing::{Fault, MockServer, Script};
/// use std::time::Duration;
///
/// let server = MockServer::start();
/// server.add_stream("main", &["event.1.>"]);
/// // The first message is the report `_bus.started`. Of the events behind it one is acknowledged by half an answer.
/// server.play(Script::new().pass(3).fault(Fault::CutInAck));
///
/// let bus = jetring::Bus::start(server.config())?;
/// (0..10).for_each(|number| assert!(bus.publish("number", &number).is_accepted()));
/// assert_eq!(bus.close(Duration::from_secs(10)).stats.acked, 10);
///
/// // None is lost, and none is there twice.
/// server.events(&server.config()).named("number").assert_count(10);
/// assert!(server.is_script_over());
/// # Ok::<_, jetring::StartError>(())
/// ```
#[must_use = "the server ends when this is dropped"]
pub struct MockServer {
    shared: Arc<Shared>,
    port: u16,
    home: Home,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A message of a stream, as [`MockServer::messages`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers, in their order.
    pub headers: Vec<(String, String)>,
    /// Its bytes.
    pub payload: Bytes,
}

impl MockServer {
    /// Starts a server without a stream.
    ///
    /// # Panics
    ///
    /// When the operating system gives no port, thread or runtime.
    pub fn start() -> Self {
        Self::try_start().unwrap_or_else(|error| panic!("the mock server cannot be started: {error}"))
    }

    fn try_start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let port = listener.local_addr()?.port();
        let broker = Mutex::new(Broker::new(port));
        let shared = Arc::new(Shared { broker, deadlines_changed: Notify::new() });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(&listener, &serving) => {}
                    () = keep_time(&serving) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("jetring-mock".to_owned()).spawn(run)?;
        Ok(Self { shared, port, home: Home::here(), stop: Some(stop), thread: Some(thread) })
    }

    /// The URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A configuration of a bus for this server: stream `main`, chain id 1.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::new(&self.url(), "main", 1).expect("these are valid")
    }

    // ---- streams ------------------------------------------------------------------------------------------------------------

    /// Makes a stream that can be read directly and takes fast-ingest batches.
    ///
    /// # Panics
    ///
    /// When the server refuses it.
    #[track_caller]
    pub fn add_stream(&self, name: &str, subjects: &[&str]) {
        let config =
            json!({ "name": name, "subjects": subjects, "allow_direct": true, "allow_batched": true });
        let made = self.shared.broker().jetstream.create(config).map(|_| ());
        made.unwrap_or_else(|error| panic!("stream {name:?}: {error:?}"));
    }

    /// Changes members of a stream's configuration, in the server's words: `json!({ "max_msgs": 10, "discard": "new" })`
    /// makes it full with ten messages, `json!({ "allow_batched": false })` ends its batches.
    ///
    /// # Panics
    ///
    /// When there is no such stream, or the server refuses the change.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "it is written as a literal")]
    pub fn change_stream(&self, name: &str, changes: Value) {
        let jetstream = &mut self.shared.broker().jetstream;
        let changed = jetstream.stream(name).map(|stream| stream.config.merged_with(changes.clone()));
        let changed = changed.and_then(|config| jetstream.update(config).map(|_| ()));
        changed.unwrap_or_else(|error| panic!("stream {name:?} to {changes}: {error:?}"));
    }

    /// Deletes a stream with all that is in it.
    ///
    /// # Panics
    ///
    /// When there is no such stream.
    #[track_caller]
    pub fn delete_stream(&self, name: &str) {
        let deleted = self.shared.broker().jetstream.streams.remove(name);
        assert!(deleted.is_some(), "there is no stream {name:?}");
    }

    /// What a stream holds, oldest first.
    ///
    /// # Panics
    ///
    /// When there is no such stream.
    #[track_caller]
    #[must_use]
    pub fn messages(&self, stream: &str) -> Vec<StoredMessage> {
        let mut broker = self.shared.broker();
        let stored = broker.jetstream.stream(stream).map(|stream| {
            stream.expire(Instant::now());
            stream.from(0).map(|(sequence, stored)| StoredMessage::new(sequence, &stored.message)).collect()
        });
        stored.unwrap_or_else(|_| panic!("there is no stream {stream:?}"))
    }

    /// The events of a bus with this configuration that its streams hold, in the order of each stream, to be asserted on: those in packed
    /// frames too, and without the reports. What is no event of its is passed over.
    ///
    /// # Panics
    ///
    /// When one of the streams is not there.
    #[track_caller]
    #[must_use]
    pub fn events(&self, config: &Config) -> Events {
        let mut events = Vec::new();
        for stream in config.streams() {
            for message in self.messages(stream.name.as_str()) {
                let header = |name: &str| {
                    let named = message.headers.iter().find(|(known, _)| known == name);
                    named.map(|(_, value)| value.as_str())
                };
                let Ok(frame) = frame::unpack(header, &message.payload) else { continue };
                let traceparent = header(TRACEPARENT).and_then(|text| text.parse().ok());
                let read = |event: &[u8]| {
                    CapturedEvent::read(&message.subject, &stream.subjects, traceparent, event).ok()
                };
                events.extend(frame.iter().filter_map(read).map(Arc::new));
            }
        }
        Events::all(events).without_reports()
    }

    // ---- troubles -----------------------------------------------------------------------------------------------------------

    /// Plays a script from the next message on, in the place of the one before.
    pub fn play(&self, script: Script) {
        self.shared.broker().script = script;
    }

    /// The next message meets this, and the others nothing.
    pub fn on_next_publish(&self, fault: Fault) {
        self.play(Script::new().fault(fault));
    }

    /// Whether every message of the script has come. A test that wants a fault to have happened asserts it.
    #[must_use]
    pub fn is_script_over(&self) -> bool {
        self.shared.broker().script.is_over()
    }

    /// The server stands still, as under SIGSTOP: connections stay open, new ones too, and nothing is read or said.
    pub fn freeze(&self) {
        self.shared.broker().frozen.send_replace(true);
    }

    /// A frozen server goes on where it was.
    pub fn thaw(&self) {
        self.shared.broker().frozen.send_replace(false);
        self.shared.deadlines_changed.notify_one();
    }

    /// Whether the server stands still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        *self.shared.broker().frozen.borrow()
    }

    /// Ends all connections. Clients may connect again at once.
    pub fn disconnect_all(&self) {
        self.shared.broker().end_all();
    }

    /// Ends all connections, and forgets batches and consumers. What is stored stays, and the ids of messages are still known.
    pub fn restart(&self) {
        self.shared.broker().restart();
    }

    /// The server is gone until [`come_back`](Self::come_back): as a [`restart`](Self::restart), and new connections end at once.
    pub fn go_away(&self) {
        let mut broker = self.shared.broker();
        broker.is_down = true;
        broker.restart();
    }

    /// Lets clients in again.
    pub fn come_back(&self) {
        self.shared.broker().is_down = false;
    }

    /// The largest message that is taken from now on, headers included, in bytes; at first 1 MiB, and at most 64 MiB, which a larger number
    /// means, too. As with a real server whose configuration is reloaded, who is connected learns it by the end of the connection, which is
    /// what a larger message costs.
    pub fn set_max_payload(&self, bytes: usize) {
        self.shared.broker().max_payload = bytes.min(PAYLOAD_BYTES_MAX);
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        if !self.home.is_here() {
            // A forked child has nothing of it but this handle.
            return std::mem::forget((self.stop.take(), self.thread.take()));
        }
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed; another one on top of a test's own would end the process.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for MockServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockServer").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl StoredMessage {
    fn new(sequence: u64, message: &message::Message) -> Self {
        let headers = message::pairs(&message.headers);
        Self {
            sequence,
            subject: message.subject.clone(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            payload: message.payload.clone(),
        }
    }
}

/// Lets clients in. A frozen server leaves them to the operating system, which connects them all the same.
async fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut frozen = shared.broker().frozen.subscribe();
    loop {
        let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(connection::serve(socket, Arc::clone(shared)));
        }
    }
}

/// Does what is due.
async fn keep_time(shared: &Shared) {
    let mut frozen = shared.broker().frozen.subscribe();
    loop {
        let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
        let due = shared.broker().next_due();
        let is_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = is_due => {
                let mut broker = shared.broker();
                if !*broker.frozen.borrow() {
                    broker.handle_time(Instant::now());
                }
            }
            () = shared.deadlines_changed.notified() => {}
        }
    }
}
