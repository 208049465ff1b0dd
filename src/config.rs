//! What can be set about a bus.
//!
//! A configuration is plain data: build it with [`Config::new`] and set fields, or read it from a file, the environment and
//! flags (`config/layers.rs`). Text is parsed into types that cannot be wrong, and every number is checked against its range
//! where it is read, so that a mistake is reported with its line. Numbers that a program sets by hand are checked by the same
//! ranges when the bus starts. Nothing here touches the network, and credentials are only named, not read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::frame::Encoding;
use crate::report;
use crate::subject::{Name, Prefix, StreamName, StreamNameError};

mod auth;
mod budget;
mod endpoint;
mod error;
mod layers;
mod reference;
mod units;
mod value;

pub use auth::{Auth, Secret, SecretSource};
pub use budget::{Budget, BudgetError, Share, ShareError};
pub use endpoint::{Endpoint, Server, Servers};
pub use error::{ConfigError, Place};
pub use reference::ConfigKey;

use units::{Bytes, Span, within};

/// The configuration of one bus. `Debug` shows no secret.
///
/// # Examples
///
/// ```
/// use jetring::Config;
///
/// let mut config = Config::new("nats://localhost:4222", "main", 1)?;
/// config.queue.capacity = 32 << 20;
///
/// let config = Config::from_toml("[event-bus]\nchain-id = 1\nqueue.capacity = '32MiB'")?;
/// assert_eq!(config.queue.capacity, 32 << 20);
/// # Ok::<_, jetring::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where events go (`url`). Default: `nats://localhost:4222`.
    pub url: Endpoint,
    /// The JetStream stream that stores the events (`stream`, alias `channel`). Default: `main`. It is not created by the bus;
    /// while it does not exist, or does not take the subjects, nothing is acknowledged.
    pub stream: StreamName,
    /// The chain that the events are about (`chain-id`), the second token of each subject. Required: a default would send the
    /// events of one chain to the readers of another.
    pub chain_id: u64,
    /// The first tokens of each subject (`subject-prefix`). Default: `event`. Readers and the stream must agree with it.
    pub subject_prefix: Prefix,
    /// Over how many streams the events are spread (`partitions`). Default: 1; 1 to 64. With more than one, that of the number 2 is
    /// `<stream>-2`, and subjects have the number behind the chain id, as in `event.1.2.priceEstimate`. Each partition has a worker, a
    /// connection, its part of the queue, and windows (`max-in-flight`, `max-in-flight-bytes`) of its own. A thread's events are in one
    /// stream, or where their [keys](crate::Topic::publish_keyed) say; order holds only within a stream. Another number of partitions
    /// puts threads and keys into other streams.
    pub partitions: usize,
    /// How events wait (`[event-bus.queue]`).
    pub queue: Queue,
    /// How events are sent (`[event-bus.delivery]`).
    pub delivery: Delivery,
    /// What the events of a name may take (`[event-bus.events.NAME]`). Default: all names have no limits. At run time [`Bus::set_budget`](crate::Bus::set_budget)
    /// changes them.
    pub events: BTreeMap<Name, Budget>,
    /// How events are kept on disk (`[event-bus.spool]`), where `url` is `file:DIR`, or `queue.when-full` is `spool`.
    pub spool: Spool,
    /// Who the bus is to the server (`[event-bus.auth]`). Default: nobody, or whom the URL names.
    pub auth: Auth,
    /// How the connection is encrypted (`[event-bus.tls]`).
    pub tls: Tls,
    /// How the bus ends (`[event-bus.shutdown]`).
    pub shutdown: Shutdown,
}

/// How events wait for the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Queue {
    /// Memory for waiting events, in bytes over all rings (`capacity`). Default: 16 MiB; 64 KiB to 1 GiB, and at least 64 KiB for
    /// each partition. All of it is allocated at the start. Less of it sheds events in a shorter outage; more of it is lost with the process.
    pub capacity: usize,
    /// Into how many rings the memory is divided (`rings`). Default: [`Rings::Auto`].
    pub rings: Rings,
    /// The largest event, in bytes of its payload (`max-event`). Default: 64 KiB; 64 B to 8 MiB, and at most one eighth of
    /// `capacity`, or of a partition's part of it. Larger events are dropped where they are published. Above the server's `max_payload` it has no effect.
    pub max_event: usize,
    /// What happens to an event that finds no room (`when-full`). Default: [`WhenFull::DropNewest`].
    pub when_full: WhenFull,
}

/// How many rings there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rings {
    /// As many as suit the machine.
    #[default]
    Auto,
    /// So many, 1 to 64. Order holds only within a ring, and each ring has its part of the memory only. All partitions have
    /// equally many, so it may be rounded up.
    Count(NonZeroUsize),
}

/// What happens to an event that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is dropped and counted; those that wait stay (`drop-newest`). The publishing thread never waits.
    #[default]
    DropNewest,
    /// The publishing thread waits for room (`block`), at most so long (`max-block`; default: 100 ms; 1 ms to 1 min), and drops it then.
    /// For threads that would rather be late than lose an event. In a long outage each call takes all of that time, and in a task of an
    /// asynchronous runtime it holds up all tasks of the runtime's thread, too. An event that is made by a closure is made before the wait.
    Block(Duration),
    /// The events that the server does not take in time go to a log on disk, in [`Spool::dir`], and are sent on from there, in order (`spool`). The
    /// publishing thread never waits: what comes faster than the disk takes it is dropped and counted.
    Spool,
}

impl WhenFull {
    /// `block`, where nothing says how long.
    const BLOCK: Self = Self::Block(Duration::from_millis(100));
}

/// How events are kept on disk: where `url` is `file:DIR`, all of them in place of a server; with [`WhenFull::Spool`] those that the server does
/// not take in time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spool {
    /// The directory of the log (`dir`), for [`WhenFull::Spool`] only, which needs it. It is made when it is not there, must be ours alone, and
    /// belongs to one bus at a time. With [`partitions`](Config::partitions) each has a directory in it, named by its number. What a process
    /// leaves there the next one sends.
    pub dir: Option<PathBuf>,
    /// The most that all files together take (`max-bytes`), of each partition. Default: 1 GiB; 16 MiB to 1 TiB. A twentieth of the disk, and at most 64 MiB, is
    /// left free in any case.
    pub max_bytes: usize,
    /// When what is written is brought to the disk (`sync`). Default: [`SpoolSync::Interval`] of 100 ms.
    pub sync: SpoolSync,
    /// What happens when it is full (`when-full`). Default: [`SpoolFull::DropNewest`].
    pub when_full: SpoolFull,
}

/// When what is written is brought to the disk. Until then a failure of the power may take it, though not the end of the process,
/// however it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpoolSync {
    /// When the system sees fit (`none`). An event is acknowledged when it is written.
    None,
    /// At the latest so long after it was written (`interval:100ms`); 1 ms to 1 min. An event is acknowledged when it is written, so a failure
    /// of the power takes what was acknowledged in the last interval.
    Interval(Duration),
    /// Before it is acknowledged (`every-batch`). What comes in meanwhile shares the next sync.
    EveryBatch,
}

/// What happens when a log on disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpoolFull {
    /// New events are dropped and counted as `spool_full`; what is stored stays (`drop-newest`).
    #[default]
    DropNewest,
    /// The oldest segment is deleted, however many times it takes (`drop-oldest`). How many events that were is logged, and kept in
    /// the log.
    DropOldest,
}

/// How events are sent and acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The way of publishing (`mode`). Default: [`Mode::Auto`].
    pub mode: Mode,
    /// How events are put into messages (`framing`). Default: [`Framing::Plain`].
    pub framing: Framing,
    /// How packed frames are compressed (`compression`). Default: [`Compression::None`]. It needs [`Framing::Packed`], and the cargo
    /// feature of its name; readers need to know it, too.
    pub compression: Compression,
    /// How long the worker may wait between two looks at the rings (`linger`), and a packed frame for more events while others are
    /// in flight. Default: 1 ms; 0 to 1 s. More of it makes larger writes and frames, and later events; less than 1 ms counts as
    /// 1 ms, which is as fine as the timers are.
    pub linger: Duration,
    /// How many messages, each an event or a packed frame, may wait for their acknowledgement (`max-in-flight`). Default: 4096; 1 to 32768. Few of them bound the
    /// throughput to that number per round trip; as many are in doubt when a connection breaks.
    pub max_in_flight: usize,
    /// How many bytes of payload may wait for their acknowledgement (`max-in-flight-bytes`). Default: 16 MiB; 64 KiB to 1 GiB.
    /// This memory comes on top of the queue's.
    pub max_in_flight_bytes: usize,
    /// How long to wait for an acknowledgement before it is found out whether the event is stored, and it is sent again if not
    /// (`ack-timeout`). Default: 5 s; 100 ms to 5 min.
    pub ack_timeout: Duration,
    /// Whether each event carries its producer and its number (`stamp`). Default: yes. Without it readers cannot tell a hole
    /// from silence.
    pub stamp: bool,
    /// How often the bus publishes its ledger (`stats-interval`). Default: 1 min; 100 ms to 1 h. What a process that is killed had offered
    /// since it last did so, nobody can know; so less of it bounds better what a crash has cost.
    pub stats_interval: Duration,
}

/// The way of publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// [`Mode::Fast`] where the server (from 2.14.3) and the stream (`allow_batched`) allow it, else [`Mode::Async`]. It is found out
    /// at each connect, and again when the stream has changed.
    #[default]
    Auto,
    /// Each event is a JetStream publish with an acknowledgement of its own; many are in flight at once. Any server from 2.10.
    Async,
    /// Fast-ingest batches (ADR-50): acknowledged by the hundred, without a header on each event. While the stream does not allow
    /// them nothing is sent.
    Fast,
}

/// How events are put into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Framing {
    /// Each event is a message, in the order of its thread (`plain`).
    #[default]
    Plain,
    /// Many events of one subject are one message (`packed`), which is several times as fast; see [`frame`](crate::frame). Readers
    /// must unpack them, and order holds for the events of a thread with the same name only. What befalls a message befalls all
    /// its events.
    Packed,
}

/// How packed frames are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all (`none`).
    #[default]
    None,
    /// LZ4, in its frame format (`lz4`): less work than what it spares the server.
    Lz4,
    /// Zstandard at its first level (`zstd`): fewer bytes than LZ4, for more of the worker's time.
    Zstd,
}

impl Compression {
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(Encoding::Lz4),
            Self::Zstd => Some(Encoding::Zstd),
        }
    }
}

/// How the connection is encrypted. Paths name PEM files; they are read at each connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tls {
    /// Certificates of the authorities to trust (`ca`). Default: those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate of this client (`cert`). Default: none. It needs `key`.
    pub cert: Option<PathBuf>,
    /// The private key of that certificate (`key`). Default: none. It needs `cert`.
    pub key: Option<PathBuf>,
    /// Whether TLS begins before the server's first line (`first`). Default: no. The server must be set to the same
    /// (`handshake_first`), or there is no connection.
    pub first: bool,
    /// Whether a password or a token may go to another machine by `nats://` (`plaintext-credentials`). Default: no, that is refused at the start. Danger:
    /// unless that server demands TLS by itself, everybody on the way can read it. Signatures (`creds`, `nkey`, `jwt`) give nothing away, and
    /// are not meant.
    pub plaintext_credentials: bool,
}

/// How the bus ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long the last events may take to be acknowledged (`timeout`). Default: 5 s; 0 to 1 h. What is not acknowledged by
    /// then is counted as lost or in doubt. More than a supervisor's patience ends in a kill, without the count.
    pub timeout: Duration,
}

impl Config {
    /// The default configuration for these three.
    ///
    /// # Errors
    ///
    /// If `url` is no [`Endpoint`] or `stream` is no [`StreamName`].
    pub fn new(url: &str, stream: &str, chain_id: u64) -> Result<Self, ConfigError> {
        let url = url.parse().map_err(|problem| ConfigError::in_code("url", problem))?;
        let stream = stream
            .parse()
            .map_err(|problem: StreamNameError| ConfigError::in_code("stream", problem.to_string()))?;
        Ok(Self::with(url, stream, chain_id))
    }

    /// Reads the table `[event-bus]` of a TOML text, and nothing else: no environment, no files.
    ///
    /// # Errors
    ///
    /// If the text is no TOML, the table is missing, a key is unknown or `chain-id` is absent, a value is not allowed, or two
    /// of them contradict each other. The message has the line.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::layered(Some(("configuration", text)), [], [])
    }

    /// Reads the file at `path`, and the environment of this process over it.
    ///
    /// # Errors
    ///
    /// As [`Config::from_toml`], and if the file cannot be read, or a variable is wrong or not Unicode.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let label = path.display().to_string();
        Self::layered(Some((&label, &text)), Self::environment()?, [])
    }

    /// Lays flags over the environment over a file over the defaults.
    ///
    /// `file` is a label for messages and the TOML text. Of `env`, variables as `JETRING_EVENT_BUS__QUEUE__CAPACITY` count, and
    /// below them those of the `nats` command: `NATS_URL`, `NATS_CREDS`, `NATS_USER`, `NATS_PASSWORD`, `NATS_TOKEN`,
    /// `NATS_NKEY`, `NATS_JWT`, `NATS_CERT`, `NATS_KEY`, `NATS_CA`. `overrides` are dotted keys with their values, as
    /// `("queue.capacity", "1MiB")`. In `auth`, a method in a stronger layer replaces another one in a weaker layer.
    ///
    /// # Errors
    ///
    /// As [`Config::from_toml`]; the message names the variable or the flag (by the last part of its key).
    pub fn layered<'a>(
        file: Option<(&str, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Result<Self, ConfigError> {
        layers::build(file, env, overrides)
    }

    /// The variables of this process that [`Config::layered`] looks at.
    ///
    /// # Errors
    ///
    /// If one of them is not Unicode.
    pub fn environment() -> Result<Vec<(String, String)>, ConfigError> {
        let text = |name: String, value: OsString| {
            let place = || Place::named(format!("environment variable {name}"));
            match value.into_string() {
                Ok(value) => Ok((name, value)),
                Err(_) => Err(ConfigError::Value {
                    place: place(),
                    key: name,
                    problem: "the value is not Unicode".to_owned(),
                }),
            }
        };
        let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        named.filter(|(name, _)| layers::is_ours(name)).map(|(name, value)| text(name, value)).collect()
    }

    /// The defaults around what has been parsed.
    fn with(url: Endpoint, stream: StreamName, chain_id: u64) -> Self {
        Self {
            url,
            stream,
            chain_id,
            subject_prefix: Prefix::default(),
            partitions: 1,
            queue: Queue::default(),
            delivery: Delivery::default(),
            events: BTreeMap::new(),
            spool: Spool::default(),
            auth: Auth::default(),
            tls: Tls::default(),
            shutdown: Shutdown::default(),
        }
    }

    /// Checks what types do not: the ranges of numbers, which a program may have set by hand, and fields against each other.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self { queue, delivery, tls, .. } = self;
        let rings = match queue.rings {
            Rings::Auto => *limits::RINGS.start(),
            Rings::Count(count) => count.get(),
        };
        for (key, outcome) in [
            ("partitions", within(self.partitions, &limits::PARTITIONS).err()),
            ("queue.capacity", within(Bytes(queue.capacity), &limits::CAPACITY).err()),
            ("queue.rings", within(rings, &limits::RINGS).err()),
            ("queue.max-event", within(Bytes(queue.max_event), &limits::MAX_EVENT).err()),
            ("queue.max-block", queue.max_block_problem()),
            ("delivery.linger", within(Span(delivery.linger), &limits::LINGER).err()),
            ("delivery.max-in-flight", within(delivery.max_in_flight, &limits::MAX_IN_FLIGHT).err()),
            (
                "delivery.max-in-flight-bytes",
                within(Bytes(delivery.max_in_flight_bytes), &limits::MAX_IN_FLIGHT_BYTES).err(),
            ),
            ("delivery.ack-timeout", within(Span(delivery.ack_timeout), &limits::ACK_TIMEOUT).err()),
            ("delivery.stats-interval", within(Span(delivery.stats_interval), &limits::STATS_INTERVAL).err()),
            ("spool.max-bytes", within(Bytes(self.spool.max_bytes), &limits::SPOOL_BYTES).err()),
            ("spool.sync", self.spool.sync_problem()),
            ("shutdown.timeout", within(Span(self.shutdown.timeout), &limits::SHUTDOWN).err()),
        ] {
            if let Some(problem) = outcome {
                return Err(ConfigError::in_code(key, problem));
            }
        }
        self.check_budgets()?;
        match (&self.spool.dir, queue.when_full) {
            (Some(_), WhenFull::DropNewest | WhenFull::Block(_)) => {
                return Err(ConfigError::incomplete("spool.dir", "queue.when-full = \"spool\""));
            }
            (None, WhenFull::Spool) => {
                return Err(ConfigError::incomplete("queue.when-full = \"spool\"", "spool.dir"));
            }
            (Some(_), WhenFull::Spool) | (None, WhenFull::DropNewest | WhenFull::Block(_)) => {}
        }
        if let Some((key, problem)) = self.file_problem() {
            return Err(ConfigError::in_code(key, problem));
        }
        if let Some((key, problem)) = self.partitions_problem() {
            return Err(ConfigError::in_code(key, problem));
        }
        let share = queue.capacity / self.partitions;
        if queue.max_event > share / limits::EVENTS_MIN {
            let whole = if self.partitions == 1 { "" } else { "a partition's part of " };
            let (event, share, limit) =
                (Bytes(queue.max_event), Bytes(share), Bytes(share / limits::EVENTS_MIN));
            let problem = format!(
                "{event} is more than one eighth of {whole}queue.capacity, which is {share}; at most {limit} is allowed"
            );
            return Err(ConfigError::in_code("queue.max-event", problem));
        }
        if let Some(problem) = delivery.compression_problem() {
            return Err(ConfigError::in_code("delivery.compression", problem));
        }
        match (&tls.cert, &tls.key) {
            (Some(_), None) => return Err(ConfigError::incomplete("tls.cert", "tls.key")),
            (None, Some(_)) => return Err(ConfigError::incomplete("tls.key", "tls.cert")),
            _ => {}
        }
        if let Endpoint::Nats(servers) = &self.url
            && servers.iter().any(|server| server.user.is_some())
            && self.auth != Auth::None
        {
            return Err(ConfigError::conflict("a user in url", "a method in auth"));
        }
        self.plaintext_problem().map_or(Ok(()), |problem| Err(ConfigError::in_code("url", problem)))
    }

    /// What is wrong with the servers that a secret would go to.
    fn plaintext_problem(&self) -> Option<String> {
        let Endpoint::Nats(servers) = &self.url else { return None };
        let address = servers.iter().find(|server| self.exposes_credentials(server))?.address();
        Some(format!(
            "the credentials would go to {address} in the clear; use tls://, or allow it by tls.plaintext-credentials = true"
        ))
    }

    /// Whether a secret would go to this server where others can read it, and that is not allowed.
    pub(crate) fn exposes_credentials(&self, server: &Server) -> bool {
        let tells_a_secret = server.user.is_some() || matches!(self.auth, Auth::User { .. } | Auth::Token(_));
        tells_a_secret && !server.tls && !server.is_loopback() && !self.tls.plaintext_credentials
    }
}

impl Config {
    /// What a directory cannot do that a server can, or the other way round, and the key that asks for it.
    fn file_problem(&self) -> Option<(&'static str, String)> {
        if matches!(self.url, Endpoint::Nats(_)) {
            let is_idle = self.queue.when_full != WhenFull::Spool && self.spool != Spool::default();
            let text = "events are kept on disk where url is file:DIR, or queue.when-full is \"spool\"";
            return is_idle.then(|| ("spool", text.to_owned()));
        }
        if self.queue.when_full == WhenFull::Spool {
            let text =
                "\"spool\" is for events on their way to a server; allowed with this url is drop-newest";
            return Some(("queue.when-full", text.to_owned()));
        }
        if matches!(self.url, Endpoint::Null) {
            return None;
        }
        if self.partitions != 1 {
            return Some((
                "partitions",
                "a directory is one stream; only 1 is allowed with file:DIR".to_owned(),
            ));
        }
        let text = "\"fast\" is a way of speaking to a server; allowed with file:DIR are auto and async";
        (self.delivery.mode == Mode::Fast).then(|| ("delivery.mode", text.to_owned()))
    }

    /// The directory of a partition's spool, if there is one.
    pub(crate) fn spool_dir(&self, partition: usize) -> Option<PathBuf> {
        let dir = self.spool.dir.as_ref()?;
        Some(if self.partitions == 1 { dir.clone() } else { dir.join(partition.to_string()) })
    }

    /// What speaks against so many partitions, if anything does, and the key that would have to change.
    fn partitions_problem(&self) -> Option<(&'static str, String)> {
        if self.partitions == 1 {
            return None;
        }
        let (capacity, least) = (self.queue.capacity, limits::CAPACITY.start());
        if capacity / self.partitions < least.0 {
            let (capacity, needed) = (Bytes(capacity), Bytes(least.0 * self.partitions));
            let problem = format!(
                "{capacity} are too little for {} partitions, each of which needs {least}; at least {needed} are needed",
                self.partitions
            );
            return Some(("queue.capacity", problem));
        }
        let name = self.stream.of_partition(self.partitions - 1);
        let len = name.as_str().len();
        let problem = || {
            format!(
                "with the number of a partition the name has {len} bytes; at most {} are allowed",
                StreamName::LEN_MAX
            )
        };
        (len > StreamName::LEN_MAX).then(|| ("stream", problem()))
    }
}

impl Queue {
    fn max_block_problem(&self) -> Option<String> {
        let WhenFull::Block(limit) = self.when_full else { return None };
        within(Span(limit), &limits::MAX_BLOCK).err()
    }
}

impl Spool {
    fn sync_problem(&self) -> Option<String> {
        let SpoolSync::Interval(interval) = self.sync else { return None };
        within(Span(interval), &limits::SPOOL_INTERVAL).err()
    }
}

impl Delivery {
    /// What speaks against this compression, if anything does.
    fn compression_problem(&self) -> Option<String> {
        let encoding = self.compression.encoding()?;
        let name = encoding.name();
        if self.framing != Framing::Packed {
            return Some(format!("{name:?} is for packed frames; set delivery.framing = \"packed\" as well"));
        }
        let off = || {
            format!(
                "{name:?} needs the cargo feature {name:?} of jetring, which this program was built without"
            )
        };
        (!encoding.is_built()).then(off)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { capacity: 16 << 20, rings: Rings::Auto, max_event: 64 << 10, when_full: WhenFull::DropNewest }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            framing: Framing::Plain,
            compression: Compression::None,
            linger: Duration::from_millis(1),
            max_in_flight: 4096,
            max_in_flight_bytes: 16 << 20,
            ack_timeout: Duration::from_secs(5),
            stamp: true,
            stats_interval: report::STATS_INTERVAL,
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        let sync = SpoolSync::Interval(Duration::from_millis(100));
        Self { dir: None, max_bytes: 1 << 30, sync, when_full: SpoolFull::DropNewest }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5) }
    }
}

/// The ranges of the knobs, and what they depend on.
mod limits {
    use std::ops::RangeInclusive;
    use std::time::Duration;

    use super::{Bytes, Span};
    use crate::partition::PARTITIONS_MAX;

    pub(super) const PARTITIONS: RangeInclusive<usize> = 1..=PARTITIONS_MAX;
    pub(super) const CAPACITY: RangeInclusive<Bytes> = Bytes(64 << 10)..=Bytes(1 << 30);
    pub(super) const MAX_EVENT: RangeInclusive<Bytes> = Bytes(64)..=Bytes(8 << 20);
    /// So many of the largest events fit into the queue at least, so that one of them does not block it for the others.
    pub(super) const EVENTS_MIN: usize = 8;
    /// More rings than cores help nobody, and the worker looks at each.
    pub(super) const RINGS: RangeInclusive<usize> = 1..=64;
    /// Less than the worker's own pauses would not be a wait, and what lasts longer than the upper end is an outage.
    pub(super) const MAX_BLOCK: RangeInclusive<Span> =
        Span(Duration::from_millis(1))..=Span(Duration::from_secs(60));
    pub(super) const LINGER: RangeInclusive<Span> = Span(Duration::ZERO)..=Span(Duration::from_secs(1));
    pub(super) const MAX_IN_FLIGHT: RangeInclusive<usize> = 1..=32_768;
    pub(super) const MAX_IN_FLIGHT_BYTES: RangeInclusive<Bytes> = Bytes(64 << 10)..=Bytes(1 << 30);
    pub(super) const ACK_TIMEOUT: RangeInclusive<Span> =
        Span(Duration::from_millis(100))..=Span(Duration::from_secs(300));
    pub(super) const STATS_INTERVAL: RangeInclusive<Span> =
        Span(Duration::from_millis(100))..=Span(Duration::from_secs(3600));
    /// Below it, what is kept for the worst day would be most of it.
    pub(super) const SPOOL_BYTES: RangeInclusive<Bytes> = Bytes(16 << 20)..=Bytes(1 << 40);
    pub(super) const SPOOL_INTERVAL: RangeInclusive<Span> =
        Span(Duration::from_millis(1))..=Span(Duration::from_secs(60));
    /// There is no reason for an hour but that a limit has to be somewhere.
    pub(super) const SHUTDOWN: RangeInclusive<Span> = Span(Duration::ZERO)..=Span(Duration::from_secs(3600));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// The table with `lines` in it, besides what is required.
    fn with(lines: &str) -> Result<Config, ConfigError> {
        Config::from_toml(&format!("[event-bus]\nchain-id = 1\n{lines}\n"))
    }

    #[test]
    fn the_contract_is_read_whole() {
        let config = Config::from_toml(
            r#"
            [event-bus]
            url = "nats://localhost, tls://b:5"
            stream = "events"
            chain-id = 100
            subject-prefix = "test.event"
            partitions = 3
            [event-bus.queue]
            capacity = "1MiB"
            rings = 2
            max-event = 1_000
            when-full = "block"
            max-block = "250ms"
            [event-bus.delivery]
            mode = "async"
            framing = "packed"
            compression = "none"
            linger = "250us"
            max-in-flight = 100
            max-in-flight-bytes = "128KiB"
            ack-timeout = 1500
            stamp = false
            stats-interval = "10s"
            [event-bus.events.priceEstimate]
            rate = "500/s"
            burst = 1000
            [event-bus.events."debug.trace_1"]
            share = 0.25
            sample = 100
            [event-bus.events.unlimited]
            share = 1
            sample = 1
            [event-bus.auth]
            user = "me"
            password-file = "/run/secrets/nats"
            [event-bus.tls]
            ca = "ca.pem"
            cert = "cert.pem"
            key = "key.pem"
            first = true
            [event-bus.shutdown]
            timeout = "1m"
            [somebody-else]
            key = "value"
            "#,
        )
        .unwrap();
        let expected = Config {
            url: "nats://localhost:4222,tls://b:5".parse().unwrap(),
            stream: "events".parse().unwrap(),
            chain_id: 100,
            subject_prefix: "test.event".parse().unwrap(),
            partitions: 3,
            queue: Queue {
                capacity: 1 << 20,
                rings: Rings::Count(NonZeroUsize::new(2).unwrap()),
                max_event: 1000,
                when_full: WhenFull::Block(Duration::from_millis(250)),
            },
            delivery: Delivery {
                mode: Mode::Async,
                framing: Framing::Packed,
                compression: Compression::None,
                linger: Duration::from_micros(250),
                max_in_flight: 100,
                max_in_flight_bytes: 128 << 10,
                ack_timeout: Duration::from_millis(1500),
                stamp: false,
                stats_interval: Duration::from_secs(10),
            },
            events: [
                (
                    "priceEstimate".parse().unwrap(),
                    Budget { rate: Some(500), burst: Some(1000), ..Budget::default() },
                ),
                (
                    "debug.trace_1".parse().unwrap(),
                    Budget { share: 0.25.try_into().unwrap(), sample: 100, ..Budget::default() },
                ),
            ]
            .into(),
            spool: Spool::default(),
            auth: Auth::User {
                user: "me".to_owned(),
                password: SecretSource::File("/run/secrets/nats".into()),
            },
            tls: Tls {
                ca: Some("ca.pem".into()),
                cert: Some("cert.pem".into()),
                key: Some("key.pem".into()),
                first: true,
                plaintext_credentials: false,
            },
            shutdown: Shutdown { timeout: Duration::from_secs(60) },
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_directory_has_knobs_of_its_own() {
        let config = with(
            "url = 'file:./events'\nspool = { max-bytes = '2GiB', sync = 'every-batch', when-full = 'drop-oldest' }",
        )
        .unwrap();
        assert_eq!(config.url, Endpoint::File("./events".into()));
        let (sync, when_full) = (SpoolSync::EveryBatch, SpoolFull::DropOldest);
        assert_eq!(config.spool, Spool { dir: None, max_bytes: 2 << 30, sync, when_full });
        let config = with("queue.when-full = 'spool'\nspool.dir = 'x'\npartitions = 2").unwrap();
        assert_eq!(config.queue.when_full, WhenFull::Spool);
        assert_eq!(config.spool_dir(1), Some("x/1".into()));
        let config = with("url = 'file:e'\nspool.sync = 'interval:5ms'").unwrap();
        assert_eq!(config.spool.sync, SpoolSync::Interval(Duration::from_millis(5)));
    }

    #[test]
    fn the_least_file_is_the_default() {
        assert_eq!(with("").unwrap(), Config::new("localhost", "main", 1).unwrap());
        assert_eq!(with("").unwrap().check().map_err(|error| error.to_string()), Ok(()));
    }

    #[test]
    fn how_long_a_publish_may_block_need_not_be_said() {
        let config = with("queue.when-full = 'block'").unwrap();
        assert_eq!(config.queue.when_full, WhenFull::Block(Duration::from_millis(100)));
    }

    #[test]
    fn other_spellings_are_accepted() {
        let config = Config::from_toml(
            "[event_bus]\nchain_id = 1\nchannel = 's'\nqueue.max_event = '1KiB'\nauth.seed = 'k'",
        )
        .unwrap();
        assert_eq!((config.stream.as_str(), config.queue.max_event), ("s", 1024));
        assert_eq!(config.auth, Auth::Nkey("k".into()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key_and_what_is_allowed() {
        for (lines, message) in [
            ("url = 'file:'", "line 3: url: \"file:\": the directory is missing; allowed are nats://"),
            (
                "url = 'file:d'\ndelivery.mode = 'fast'",
                "delivery.mode: \"fast\" is a way of speaking to a server",
            ),
            ("url = 'file:d'\npartitions = 2", "partitions: a directory is one stream"),
            (
                "spool.sync = 'none'",
                "spool: events are kept on disk where url is file:DIR, or queue.when-full is \"spool\"",
            ),
            ("spool.dir = 'x'", "spool.dir needs queue.when-full = \"spool\""),
            ("queue.when-full = 'spool'", "queue.when-full = \"spool\" needs spool.dir"),
            (
                "url = 'file:e'\nqueue.when-full = 'spool'\nspool.dir = 'x'",
                "\"spool\" is for events on their way to a server; allowed with this url is drop-newest",
            ),
            (
                "spool.sync = 'always'",
                "\"always\" is unknown; allowed: none, interval:100ms and the like, every-batch",
            ),
            ("spool.sync = 'interval:2m'", "spool.sync: 2m is out of range; allowed are 1ms to 1m"),
            (
                "spool.max-bytes = '1MiB'",
                "spool.max-bytes: 1MiB is out of range; allowed are 16MiB to 1024GiB",
            ),
            ("spool.when-full = 'block'", "\"block\" is unknown; allowed: drop-newest, drop-oldest"),
            ("url = 'http://a'", "the scheme is unknown; allowed are nats://"),
            ("url = 4222", "url: this must be a text in quotes, not a number"),
            ("stream = 'a.b'", "stream: stream name \"a.b\" has '.' at byte 1"),
            ("stream = ''", "stream: the text is empty"),
            ("subject-prefix = 'a.>'", "subject-prefix: subject prefix \"a.>\" has '>' at byte 2"),
            (
                "queue.capacity = 'lots'",
                "queue.capacity: \"lots\" is no size; allowed are forms as \"16MiB\"",
            ),
            ("queue.capacity = '2GiB'", "queue.capacity: 2GiB is out of range; allowed are 64KiB to 1GiB"),
            ("partitions = 0", "partitions: 0 is out of range; allowed are 1 to 64"),
            ("partitions = 65", "partitions: 65 is out of range; allowed are 1 to 64"),
            (
                "partitions = 32\nqueue = { capacity = '1MiB', max-event = '1KiB' }",
                "queue.capacity: 1MiB are too little for 32 partitions, each of which needs 64KiB; at least 2MiB are needed",
            ),
            (
                "partitions = 64",
                "queue.max-event: 64KiB is more than one eighth of a partition's part of queue.capacity, which is 256KiB; at most 32KiB",
            ),
            ("queue.capacity = 1.5", "queue.capacity: this must be a text in quotes, not a fraction"),
            ("queue.rings = 65", "queue.rings: allowed are \"auto\" and 1 to 64"),
            ("queue.rings = 'many'", "queue.rings: allowed are \"auto\" and 1 to 64"),
            ("queue.max-event = '9MiB'", "queue.max-event: 9MiB is out of range; allowed are 64B to 8MiB"),
            ("queue.when-full = 'wait'", "\"wait\" is unknown; allowed: drop-newest, block, spool"),
            ("queue.max-block = '1s'", "queue.max-block needs queue.when-full = \"block\" beside it"),
            (
                "queue = { when-full = 'block', max-block = '2m' }",
                "queue.max-block: 2m is out of range; allowed are 1ms to 1m",
            ),
            ("delivery.mode = 'quick'", "\"quick\" is unknown; allowed: auto, async, fast"),
            ("delivery.framing = 'pack'", "delivery.framing: \"pack\" is unknown; allowed: plain, packed"),
            ("delivery.compression = 'gzip'", "\"gzip\" is unknown; allowed: none, lz4, zstd"),
            (
                "delivery.compression = 'lz4'",
                "delivery.compression: \"lz4\" is for packed frames; set delivery.framing = \"packed\" as well",
            ),
            ("delivery.linger = '2s'", "delivery.linger: 2s is out of range; allowed are 0s to 1s"),
            ("delivery.linger = 'soon'", "delivery.linger: \"soon\" is no duration; allowed are forms as"),
            (
                "delivery.max-in-flight = 0",
                "delivery.max-in-flight: 0 is out of range; allowed are 1 to 32768",
            ),
            (
                "delivery.max-in-flight-bytes = 1",
                "delivery.max-in-flight-bytes: 1B is out of range; allowed are 64KiB to 1GiB",
            ),
            (
                "delivery.ack-timeout = '1ms'",
                "delivery.ack-timeout: 1ms is out of range; allowed are 100ms to 5m",
            ),
            ("events.a.rate = 0", "line 3: events.a.rate: 0 is out of range; allowed are 1 to 1000000"),
            (
                "events.a.rate = '9/m'",
                "events.a.rate: this must be a number of events a second, as 500 or \"500/s\"",
            ),
            ("events.a.burst = 5", "events.a.burst needs rate beside it"),
            ("events.a.share = 1.5", "events.a.share: 1.5 is no share; allowed are numbers above 0 up to 1"),
            ("events.a.share = 0", "events.a.share: 0 is no share; allowed are"),
            (
                "events.a.share = true",
                "events.a.share: this must be a number above 0 up to 1, not true or false",
            ),
            (
                "events.a.sample = 0.1",
                "events.a.sample: this must be a whole number, 0 or more, not a fraction",
            ),
            ("events.'a b'.sample = 2", "events.a b.sample: event name \"a b\" has ' ' at byte 1"),
            ("events.'_bus.gap'.sample = 2", "begins with the token _bus, which is reserved"),
            ("events.a = 5", "events.a is a table: write [event-bus.events.a]"),
            ("events = 5", "events is a table: write [event-bus.events]"),
            (
                "events.a.b.rate = 5",
                "events.a.b is a table in one of an event; a name with dots is quoted: [event-bus.events.\"a.b\"]",
            ),
            ("delivery.stamp = 1", "delivery.stamp: this must be true or false, not a number"),
            ("shutdown.timeout = '61m'", "shutdown.timeout: 61m is out of range; allowed are 0s to 60m"),
            (
                "auth = { creds = 'c', token = 't' }",
                "auth.creds and auth.token are both given; keep one of them",
            ),
            ("auth.jwt = 'j'", "auth.jwt needs auth.nkey beside it"),
            ("url = 'u:p@h'\nauth.creds = 'c'", "a user in url and a method in auth are both given"),
            ("tls.cert = 'c'", "tls.cert needs tls.key beside it"),
            ("tls.key = 'k'", "tls.key needs tls.cert beside it"),
            ("queue = 5", "queue is a table: write [event-bus.queue]"),
            ("stream = 'a'\nchannel = 'b'", "are both given; keep one of them"),
            ("chain_id = 2", "are both given; keep one of them"),
            ("chain-id = 2", "line 3: duplicate key"),
            (
                "queue.capacity = '64KiB'",
                "queue.max-event: 64KiB is more than one eighth of queue.capacity, which is 64KiB; at most 8KiB is allowed",
            ),
        ] {
            let refusal = with(lines).unwrap_err().to_string();
            assert!(refusal.contains(message), "{lines}: {refusal}");
        }
    }

    #[test]
    fn a_compression_whose_cargo_feature_is_off_is_refused_with_its_name() {
        for (compression, encoding) in
            [(Compression::Lz4, Encoding::Lz4), (Compression::Zstd, Encoding::Zstd)]
        {
            let name = encoding.name();
            let lines = format!("delivery.framing = 'packed'\ndelivery.compression = '{name}'");
            match with(&lines) {
                Ok(config) => {
                    assert!(encoding.is_built());
                    assert_eq!(config.delivery.compression, compression);
                }
                Err(refusal) => {
                    assert!(!encoding.is_built());
                    let words = format!("{name:?} needs the cargo feature {name:?}");
                    assert!(refusal.to_string().contains(&words), "{refusal}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest_one() {
        for (lines, message) in [
            (
                "queue.capcity = 1",
                "configuration, line 3: queue.capcity is unknown; did you mean queue.capacity?",
            ),
            ("capacity = 1", "capacity is unknown; did you mean queue.capacity?"),
            (
                "[event-bus.events.my_event]\nrat = 5",
                "line 4: events.my_event.rat is unknown; did you mean events.my_event.rate?",
            ),
            ("events.'a.b'.max-rate = 1", "events.a.b.max-rate is unknown; did you mean events.a.b.rate?"),
            ("[event-bus.event.a]\nrate = 1", "event is unknown; did you mean events?"),
            ("chanel = 's'", "chanel is unknown; did you mean channel?"),
            ("[event-bus.qeue]\ncapacity = 1", "line 3: qeue is unknown; did you mean queue?"),
            ("queue.capacity.bytes = 1", "queue.capacity: this must be a text in quotes, not a table"),
        ] {
            let refusal = with(lines).unwrap_err().to_string();
            assert!(refusal.contains(message), "{lines}: {refusal}");
        }
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let refusal = with("[event-bus.queue]\nmax_event = 'big'").unwrap_err().to_string();
        let expected = "configuration, line 4: queue.max-event: \"big\" is no size; allowed are forms as \"16MiB\", \"64KiB\", \
                        \"1GiB\", \"10kB\", or bytes\n  |\n4 | max_event = 'big'\n  |             ^^^^^";
        assert_eq!(refusal, expected);
    }

    #[test]
    fn a_table_that_is_missing_is_told_from_one_that_is_misspelt() {
        for (text, message) in [
            ("", "configuration: the table [event-bus] is missing"),
            ("[other]", "configuration: the table [event-bus] is missing"),
            (
                "[eventbus]",
                "the table [event-bus] is missing; there is [eventbus]: did you mean [event-bus]?",
            ),
            ("event-bus = 1", "event-bus: this must be a table: [event-bus]"),
            ("[event-bus]\n[event_bus]", "event-bus and event_bus are both given"),
            (
                "[event-bus]",
                "event-bus.chain-id is missing: give it in the file, as JETRING_EVENT_BUS__CHAIN_ID, or as --chain-id",
            ),
        ] {
            let refusal = Config::from_toml(text).unwrap_err().to_string();
            assert!(refusal.contains(message), "{refusal}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let config = with("url = 'tls://hunter2@a, tls://me:hunter2@b'").unwrap();
        assert!(!format!("{config:?} {}", config.url).contains("hunter2"));
        let config = with("url = 'tls://a'\nauth = { user = 'me', password = 'hunter2' }").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        for lines in [
            "auth.password = hunter2",
            "auth.token = ['hunter2']",
            "url = 'me:hunter2@a:0'",
            "auth = { tokn = 'hunter2' }",
            "url = 'nats://me:hunter2@a'",
        ] {
            let refusal = with(lines).unwrap_err();
            assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{lines}: {refusal}");
        }
    }

    #[test]
    fn a_field_set_by_hand_is_checked_by_the_same_range() {
        let check = |change: fn(&mut Config)| {
            let mut config = Config::new("null:", "main", 1).unwrap();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        for (refusal, message) in [
            (
                check(|c| c.queue.capacity = 0),
                "configuration: queue.capacity: 0B is out of range; allowed are 64KiB to 1GiB",
            ),
            (
                check(|c| c.queue.rings = Rings::Count(NonZeroUsize::MAX)),
                "queue.rings: 18446744073709551615 is out of range",
            ),
            (check(|c| c.delivery.linger = Duration::MAX), "delivery.linger: "),
            (
                check(|c| c.queue.when_full = WhenFull::Block(Duration::ZERO)),
                "queue.max-block: 0s is out of range",
            ),
            (check(|c| c.partitions = 0), "partitions: 0 is out of range; allowed are 1 to 64"),
            (
                check(|c| {
                    c.stream = "s".repeat(253).parse().unwrap();
                    c.partitions = 11;
                }),
                "stream: with the number of a partition the name has 256 bytes; at most 255 are allowed",
            ),
            (
                check(|c| c.events.entry("a.b".parse().unwrap()).or_default().sample = 0),
                "events.a.b.sample: 0 is out of range; allowed are 1 to 1000000",
            ),
            (check(|c| c.tls.key = Some("k".into())), "tls.key needs tls.cert beside it"),
            (
                check(|c| c.queue.max_event = 8 << 20),
                "8MiB is more than one eighth of queue.capacity, which is 16MiB",
            ),
        ] {
            assert!(refusal.contains(message), "{refusal}");
        }
        let refusal = Config::new("ftp://a", "main", 1).unwrap_err().to_string();
        assert!(refusal.starts_with("configuration: url: \"ftp://a\": the scheme is unknown"), "{refusal}");
        let refusal = Config::new("a", "ma in", 1).unwrap_err().to_string();
        assert!(refusal.contains("stream: stream name \"ma in\" has ' '"), "{refusal}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let refusal = Config::load("/nowhere/jetring.toml").unwrap_err().to_string();
        assert!(refusal.starts_with("cannot read /nowhere/jetring.toml: "), "{refusal}");
    }
}
