//! What a server says of itself, of the account and of a stream, and what it would let us do: what `jetring doctor` stands on.
//!
//! Nothing here changes or stores anything. Whether a publish would be taken is found out by one that the server follows and does
//! not carry out: with `Nats-Trace-Only` it goes the whole way, permissions and the checks of the stream included, and what became
//! of it at each step comes back as a trace (ADR-41). A server before 2.11 does not know these headers and would store the message,
//! so there it is not tried. From 2.11.15 and 2.12.6 on (CVE-2026-33249) the trace goes only to a subject that one may publish to
//! oneself. Who may not publish to inboxes, as is good custom, is told so and nothing more.

use super::connect;
use super::sink::{denied_inbox, denied_subject};
use crate::config::{Config, Mode, Server};
use crate::publisher::engine::{self, Engine};
use crate::publisher::server::ServerVersion;
use crate::subject::StreamName;
use async_nats::client::RequestErrorKind;
use async_nats::{Client, HeaderMap, Subscriber};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::Deserialize;
use std::fmt;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a trace may take that may not come at all.
const TRACE_TIMEOUT: Duration = Duration::from_secs(1);

/// Complaints of the server that wait to be read; there is one for each question at most.
const COMPLAINTS_MAX: usize = 16;

/// The first version that knows trace-only messages.
const TRACES: ServerVersion = ServerVersion(2, 11, 0);

/// A connection for questions to one server.
pub struct Inspector {
    client: Client,
    complaints: mpsc::Receiver<String>,
    /// The inbox of answers is denied, which the server says once.
    is_deaf: bool,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerFacts {
    /// Its name; empty if nobody gave it one.
    pub name: String,
    /// Its version, such as `2.15.1`.
    pub version: String,
    /// The cluster that it belongs to, if it does.
    pub cluster: Option<String>,
    /// The largest message that it takes, headers included, in bytes.
    pub max_payload: usize,
    /// Whether it refuses connections without TLS.
    pub requires_tls: bool,
}

impl ServerFacts {
    /// Whether its version is `version` (major, minor, patch) or a later one.
    #[must_use]
    pub fn is_at_least(&self, (major, minor, patch): (u32, u32, u32)) -> bool {
        self.version() >= ServerVersion(major, minor, patch)
    }

    /// Whether its version is one whose fast-ingest batches [`Mode::Auto`] uses.
    #[must_use]
    pub fn has_fast_ingest(&self) -> bool {
        self.version() >= ServerVersion::FAST
    }

    /// The engine that a bus with this mode will use with a stream on this server; `None` if nothing can be sent.
    #[must_use]
    pub fn engine(&self, mode: Mode, stream: &StreamFacts) -> Option<Engine> {
        engine::choose(mode, self.version(), Some(stream.allows_batches))
    }

    fn version(&self) -> ServerVersion {
        ServerVersion::parse(&self.version)
    }
}

/// What an account may use of JetStream, and uses; a limit is `None` where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountFacts {
    /// Bytes in files.
    pub storage: u64,
    /// Most bytes in files.
    pub storage_max: Option<u64>,
    /// Bytes in memory.
    pub memory: u64,
    /// Most bytes in memory.
    pub memory_max: Option<u64>,
}

/// How a stream is configured and what it holds; a limit is `None` where there is none.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StreamFacts {
    /// The patterns of the subjects that it takes.
    pub subjects: Vec<String>,
    /// Who keeps a message: `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// Whether it is in memory only.
    pub is_in_memory: bool,
    /// On how many servers it is.
    pub replicas: usize,
    /// Replicas that are offline or behind, by the names of their servers.
    pub replicas_behind: Vec<String>,
    /// Whether a full stream refuses new messages, in place of removing the oldest.
    pub discards_new: bool,
    /// Most messages.
    pub messages_max: Option<u64>,
    /// Most bytes.
    pub bytes_max: Option<u64>,
    /// Greatest age of a message.
    pub age_max: Option<Duration>,
    /// Most messages of one subject.
    pub messages_per_subject_max: Option<u64>,
    /// The largest message, headers included, in bytes.
    pub message_bytes_max: Option<u64>,
    /// How long it knows message ids.
    pub duplicate_window: Duration,
    /// Whether it takes nothing any more.
    pub is_sealed: bool,
    /// Whether it acknowledges nothing.
    pub is_silent: bool,
    /// Whether it is the mirror of another one, and takes nothing from clients.
    pub is_mirror: bool,
    /// Whether it stores messages under other subjects than those they were published to.
    pub transforms_subjects: bool,
    /// Whether it takes fast-ingest batches (`allow_batched`).
    pub allows_batches: bool,
    /// Whether it acknowledges what it has not handed to the operating system yet (`persist_mode: async`).
    pub persists_later: bool,
    /// Messages that it holds.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Time from the first message that it holds to the last one.
    pub span: Duration,
}

/// The clocks of the server and of this machine at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Clocks {
    /// What the server's clock said.
    pub server: SystemTime,
    /// What ours said halfway between question and answer.
    pub ours: SystemTime,
    /// How far from each other the two readings may have been taken: half the time of the question.
    pub within: Duration,
}

impl Clocks {
    /// The same reading, of clocks and moments of the caller's choice.
    #[must_use]
    pub fn new(server: SystemTime, ours: SystemTime, within: Duration) -> Self {
        Self { server, ours, within }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The stream does not exist.
    Missing,
    /// JetStream is off, in the server or for the account.
    NoJetStream,
    /// We may not ask.
    Denied,
    /// We may ask and not hear the answer: the inbox is denied.
    Deaf,
    /// Nothing came in time.
    Silent,
    /// Something else, in the words of the server.
    Other(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the stream does not exist"),
            Self::NoJetStream => f.write_str("JetStream is not enabled"),
            Self::Denied => f.write_str("permission to ask is denied"),
            Self::Deaf => f.write_str("permission to subscribe to the inbox of the answer is denied"),
            Self::Silent => write!(f, "no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What would become of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trial {
    /// This stream would store it.
    Stored(String),
    /// We may publish it, and no stream would store it.
    Allowed,
    /// A stream would refuse it, for this reason.
    Refused(String),
    /// We may not publish it.
    Denied,
    /// It was not found out, for this reason.
    Untried(String),
}

impl Inspector {
    /// Connects to one server, as the bus does.
    ///
    /// # Errors
    ///
    /// When there is no connection; the text is the client's.
    pub async fn connect(config: &Config, server: &Server) -> Result<Self, String> {
        let (tell, complaints) = mpsc::channel(COMPLAINTS_MAX);
        let on_event = move |event| {
            if let async_nats::Event::ServerError(error) = event {
                // One that nobody reads is of no question that is still open.
                let _ = tell.try_send(error.to_string());
            }
            std::future::ready(())
        };
        let client = connect(config, server, |options| options.event_callback(on_event)).await;
        Ok(Self { client: client.map_err(|error| error.to_string())?, complaints, is_deaf: false })
    }

    /// What the server says of itself.
    #[must_use]
    pub fn server(&self) -> ServerFacts {
        let info = self.client.server_info();
        // Without a name of its own a server is called by its id.
        let is_named = info.server_name != info.server_id;
        ServerFacts {
            name: if is_named { info.server_name } else { String::new() },
            version: info.version,
            cluster: info.cluster,
            max_payload: info.max_payload,
            requires_tls: info.tls_required,
        }
    }

    /// Asks JetStream about the account; says how long the answer took, too, which is nearly the round trip.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn account(&mut self) -> Result<(AccountFacts, Duration), NoAnswer> {
        let asked = Instant::now();
        let answer: AccountAnswer = self.ask("$JS.API.INFO").await?;
        Ok((answer.into(), asked.elapsed()))
    }

    /// Asks for a stream, whose leader answers, and reads its clock.
    ///
    /// # Errors
    ///
    /// When there is no answer, or no stream.
    pub async fn stream(&mut self, name: &StreamName) -> Result<(StreamFacts, Option<Clocks>), NoAnswer> {
        let (asked, at) = (Instant::now(), SystemTime::now());
        let answer: StreamAnswer = self.ask(&format!("$JS.API.STREAM.INFO.{name}")).await?;
        let within = asked.elapsed() / 2;
        let clocks = answer.ts.map(|ts| Clocks { server: ts.into(), ours: at + within, within });
        Ok((answer.into(), clocks))
    }

    /// What would become of a message to `subject`. It is not stored, and nobody receives it.
    pub async fn would_publish(&mut self, subject: &str) -> Trial {
        let version = self.server().version;
        if ServerVersion::parse(&version) < TRACES {
            return Trial::Untried(format!(
                "nats-server {version} cannot follow a message without storing it"
            ));
        }
        let inbox = self.client.new_inbox();
        let Ok(traces) = self.client.subscribe(inbox.clone()).await else {
            return Trial::Untried("the connection is lost".to_owned());
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Trace-Dest", inbox.as_str());
        headers.insert("Nats-Trace-Only", "true");
        if self.client.publish_with_headers(subject.to_owned(), headers, Bytes::new()).await.is_err() {
            return Trial::Untried("the connection is lost".to_owned());
        }
        self.follow(subject, &inbox, traces).await
    }

    /// Reads the traces of a message, of which each server on its way sends one.
    async fn follow(&mut self, subject: &str, inbox: &str, mut traces: Subscriber) -> Trial {
        let deadline = Instant::now() + TRACE_TIMEOUT;
        let mut came_in = false;
        loop {
            tokio::select! {
                trace = timeout_at(deadline, traces.next()) => match trace {
                    Ok(Some(message)) => {
                        let trace: Trace = serde_json::from_slice(&message.payload).unwrap_or_default();
                        match trace.outcome() {
                            Step::End(trial) => return trial,
                            Step::Elsewhere => came_in = true,
                        }
                    }
                    Ok(None) => return Trial::Untried("the connection is lost".to_owned()),
                    Err(_) if came_in => return Trial::Allowed,
                    Err(_) => return Trial::Untried("no trace of the message came back".to_owned()),
                },
                Some(complaint) = self.complaints.recv() => {
                    let denied = denied_subject(&complaint);
                    let is_denied = |subject: &str| denied.as_deref() == Some(subject.as_bytes());
                    if is_denied(subject) {
                        return Trial::Denied;
                    }
                    if is_denied(inbox) || denied_inbox(&complaint) {
                        let text = "the server shows what would become of a message to those only who may publish \
                                    and subscribe to _INBOX.>, which these credentials may not";
                        return Trial::Untried(text.to_owned());
                    }
                }
            }
        }
    }

    async fn ask<T: for<'a> Deserialize<'a>>(&mut self, subject: &str) -> Result<T, NoAnswer> {
        if self.is_deaf {
            return Err(NoAnswer::Deaf);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let request = self.client.request(subject.to_owned(), Bytes::new());
        tokio::pin!(request);
        let message = loop {
            tokio::select! {
                answer = timeout_at(deadline, &mut request) => match answer {
                    Ok(Ok(message)) => break message,
                    // Nobody listens for JetStream.
                    Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => return Err(NoAnswer::NoJetStream),
                    Ok(Err(error)) if error.kind() == RequestErrorKind::TimedOut => return Err(NoAnswer::Silent),
                    Ok(Err(error)) => return Err(NoAnswer::Other(error.to_string())),
                    Err(_) => return Err(NoAnswer::Silent),
                },
                Some(complaint) = self.complaints.recv() => {
                    if denied_inbox(&complaint) {
                        self.is_deaf = true;
                        return Err(NoAnswer::Deaf);
                    }
                    if denied_subject(&complaint).as_deref() == Some(subject.as_bytes()) {
                        return Err(NoAnswer::Denied);
                    }
                }
            }
        };
        let unread =
            |error: serde_json::Error| NoAnswer::Other(format!("the answer cannot be read: {error}"));
        let refusal: Refusal = serde_json::from_slice(&message.payload).map_err(unread)?;
        match refusal.error {
            None => serde_json::from_slice(&message.payload).map_err(unread),
            Some(error) => Err(error.into()),
        }
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("server", &self.server()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for NoAnswer {
    fn from(ApiError { err_code, description }: ApiError) -> Self {
        match err_code {
            10059 => Self::Missing,
            // Off for the account, or in the server.
            10039 | 10076 => Self::NoJetStream,
            _ => Self::Other(format!("{description} ({err_code})")),
        }
    }
}

#[derive(Deserialize)]
struct AccountAnswer {
    #[serde(default)]
    storage: u64,
    #[serde(default)]
    memory: u64,
    #[serde(default)]
    limits: AccountLimits,
}

#[derive(Default, Deserialize)]
struct AccountLimits {
    #[serde(default)]
    max_storage: i64,
    #[serde(default)]
    max_memory: i64,
}

impl From<AccountAnswer> for AccountFacts {
    fn from(AccountAnswer { storage, memory, limits }: AccountAnswer) -> Self {
        Self { storage, storage_max: limit(limits.max_storage), memory, memory_max: limit(limits.max_memory) }
    }
}

#[derive(Deserialize)]
struct StreamAnswer {
    config: StreamConfig,
    #[serde(default)]
    state: State,
    cluster: Option<Cluster>,
    ts: Option<DateTime<Utc>>,
}

/// Lengths of time are in nanoseconds.
#[derive(Deserialize)]
struct StreamConfig {
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    retention: String,
    #[serde(default)]
    storage: String,
    #[serde(default)]
    num_replicas: usize,
    #[serde(default)]
    discard: String,
    #[serde(default)]
    max_msgs: i64,
    #[serde(default)]
    max_bytes: i64,
    #[serde(default)]
    max_age: i64,
    #[serde(default)]
    max_msgs_per_subject: i64,
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    duplicate_window: u64,
    #[serde(default)]
    sealed: bool,
    #[serde(default)]
    no_ack: bool,
    mirror: Option<serde::de::IgnoredAny>,
    subject_transform: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    allow_batched: bool,
    #[serde(default)]
    persist_mode: String,
}

#[derive(Default, Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    first_ts: DateTime<Utc>,
    last_ts: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Deserialize)]
struct Peer {
    name: String,
    #[serde(default)]
    current: bool,
    #[serde(default)]
    offline: bool,
}

impl From<StreamAnswer> for StreamFacts {
    fn from(StreamAnswer { config, state, cluster, .. }: StreamAnswer) -> Self {
        let peers = cluster.map(|cluster| cluster.replicas).unwrap_or_default();
        let behind = peers.into_iter().filter(|peer| peer.offline || !peer.current);
        Self {
            subjects: config.subjects,
            retention: config.retention,
            is_in_memory: config.storage == "memory",
            replicas: config.num_replicas,
            replicas_behind: behind.map(|peer| peer.name).collect(),
            discards_new: config.discard == "new",
            messages_max: limit(config.max_msgs),
            bytes_max: limit(config.max_bytes),
            age_max: limit(config.max_age).map(Duration::from_nanos),
            messages_per_subject_max: limit(config.max_msgs_per_subject),
            message_bytes_max: limit(config.max_msg_size),
            duplicate_window: Duration::from_nanos(config.duplicate_window),
            is_sealed: config.sealed,
            is_silent: config.no_ack,
            is_mirror: config.mirror.is_some(),
            transforms_subjects: config.subject_transform.is_some(),
            allows_batches: config.allow_batched,
            persists_later: config.persist_mode == "async",
            messages: state.messages,
            bytes: state.bytes,
            span: (state.last_ts - state.first_ts).to_std().unwrap_or_default(),
        }
    }
}

/// The server writes -1 where there is no limit, and 0 is none either.
fn limit(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|&number| number > 0)
}

/// What one server did with a message.
#[derive(Default, Deserialize)]
struct Trace {
    #[serde(default)]
    events: Vec<TraceEvent>,
}

#[derive(Deserialize)]
struct TraceEvent {
    /// `in` for the way into the server, `eg` for one out of it, `js` for a stream.
    r#type: String,
    /// What is at the other end of a way.
    #[serde(default)]
    kind: u8,
    error: Option<String>,
    stream: Option<String>,
}

/// The kinds that are other servers: by a route, a gateway, and as a leaf.
const SERVERS: [u8; 3] = [1, 2, 4];

enum Step {
    End(Trial),
    /// Another server may say more.
    Elsewhere,
}

impl Trace {
    fn outcome(self) -> Step {
        let is_passed_on = |event: &TraceEvent| event.r#type == "eg" && SERVERS.contains(&event.kind);
        let is_passed_on = self.events.iter().any(is_passed_on);
        for TraceEvent { r#type, error, stream, .. } in self.events {
            match (r#type.as_str(), error, stream) {
                ("in", Some(_), _) => return Step::End(Trial::Denied),
                ("js", Some(error), _) => return Step::End(Trial::Refused(error)),
                ("js", None, Some(stream)) => return Step::End(Trial::Stored(stream)),
                _ => {}
            }
        }
        if is_passed_on { Step::Elsewhere } else { Step::End(Trial::Allowed) }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::{Value, json};

    fn outcome(events: Value) -> Option<Trial> {
        let trace: Trace = serde_json::from_value(json!({ "events": events })).unwrap();
        match trace.outcome() {
            Step::End(trial) => Some(trial),
            Step::Elsewhere => None,
        }
    }

    #[test]
    fn a_trace_tells_what_would_become_of_the_message() {
        // As 2.11.11 and 2.15.1 wrote them.
        let taken =
            json!([{"type": "in", "kind": 0}, {"type": "js", "stream": "main", "subject": "event.1.a"}]);
        assert_eq!(outcome(taken), Some(Trial::Stored("main".to_owned())));
        let large =
            json!([{"type": "in"}, {"type": "js", "stream": "main", "error": "maximum payload exceeded"}]);
        assert_eq!(outcome(large), Some(Trial::Refused("maximum payload exceeded".to_owned())));
        let denied = json!([{"type": "in", "error": "Permissions Violation for Publish to \"a\""}]);
        assert_eq!(outcome(denied), Some(Trial::Denied));
        assert_eq!(outcome(json!([{"type": "in"}])), Some(Trial::Allowed));
        // Somebody listens there, who hears nothing of this message.
        assert_eq!(
            outcome(json!([{"type": "in"}, {"type": "eg", "kind": 0, "cid": 7}])),
            Some(Trial::Allowed)
        );
        assert_eq!(outcome(json!([{"type": "in"}, {"type": "eg", "kind": 1, "name": "n2"}])), None);
    }

    #[test]
    fn a_stream_without_limits_has_none_and_an_empty_one_spans_no_time() {
        let answer = json!({
            "config": {"name": "main", "subjects": ["event.1.>"], "max_msgs": -1, "max_bytes": -1, "max_age": 0,
                       "max_msg_size": -1, "storage": "file", "num_replicas": 1, "discard": "old"},
            "state": {"messages": 0, "bytes": 0, "first_ts": "0001-01-01T00:00:00Z", "last_ts": "0001-01-01T00:00:00Z"},
        });
        let facts: StreamFacts = serde_json::from_value::<StreamAnswer>(answer).unwrap().into();
        assert_eq!((facts.messages_max, facts.bytes_max, facts.age_max), (None, None, None));
        assert_eq!((facts.message_bytes_max, facts.span), (None, Duration::ZERO));
        assert!(
            !facts.is_in_memory
                && !facts.discards_new
                && !facts.is_mirror
                && facts.replicas_behind.is_empty()
        );
    }
}
