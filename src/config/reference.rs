//! What each key of a configuration is, for people: `jetring config` prints it, and `docs/configuration.md` is that print.
//!
//! Defaults and ranges are not written here a second time: the ones are taken from the default configuration, the others from
//! the limits by which values are checked. The words about effect and danger have their only place here, in the order of the
//! table of keys in `layers.rs`; the tests hold both to each other, so that a key cannot come without its words.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::layers::{natscli_variable, variable};
use super::{Budget, Config, Endpoint, Rings, SpoolSync, WhenFull, limits, units::Bytes, units::Span};
use crate::subject::StreamName;

/// One key of the table `[event-bus]`, as [`Config::keys`] lists them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigKey {
    /// The key with its table, as in `queue.capacity`. In `events.NAME.rate` and its neighbours `NAME` stands for that of an event.
    pub name: &'static str,
    /// What its value is: text, size, duration, number, fraction, choice, boolean, path or secret.
    pub kind: &'static str,
    /// The value where nothing is given; none if there is none, and for what must be given.
    pub default: Option<String>,
    /// Whether it must be given.
    pub required: bool,
    /// The values that are taken.
    pub allowed: String,
    /// The environment variable that wins over the file.
    pub variable: String,
    /// The variable of the `nats` command that is taken as well, which wins over the file, and yields to [`variable`](Self::variable).
    pub nats_variable: Option<&'static str>,
    /// What it does, and when one would change it.
    pub effect: &'static str,
    /// What goes wrong if it is wrong.
    pub danger: &'static str,
}

impl Config {
    /// All keys of the table `[event-bus]`, in the order in which one would write them.
    ///
    /// # Examples
    ///
    /// ```
    /// let keys = jetring::Config::keys();
    /// let capacity = keys.iter().find(|key| key.name == "queue.capacity").unwrap();
    /// assert_eq!(capacity.default.as_deref(), Some("16MiB"));
    /// assert_eq!(capacity.allowed, "64KiB to 1GiB");
    /// assert_eq!(capacity.variable, "JETRING_EVENT_BUS__QUEUE__CAPACITY");
    /// ```
    #[must_use]
    pub fn keys() -> Vec<ConfigKey> {
        let defaults = Self::with(Endpoint::default(), StreamName::default(), 0);
        let key = |row: &Row| ConfigKey {
            name: row.name,
            kind: row.kind,
            default: (row.default)(&defaults),
            required: row.name == "chain-id",
            allowed: (row.allowed)(),
            variable: variable(row.name),
            nats_variable: natscli_variable(row.name),
            effect: row.effect,
            danger: row.danger,
        };
        ROWS.iter().map(key).collect()
    }
}

struct Row {
    name: &'static str,
    kind: &'static str,
    allowed: fn() -> String,
    default: fn(&Config) -> Option<String>,
    effect: &'static str,
    danger: &'static str,
}

fn from_to<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("{} to {}", range.start(), range.end())
}

fn some(value: impl Display) -> Option<String> {
    Some(value.to_string())
}

fn size(bytes: usize) -> Option<String> {
    some(Bytes(bytes))
}

const ROWS: &[Row] = &[
    Row {
        name: "url",
        kind: "text",
        allowed: || "nats://HOST:PORT, tls://HOST:PORT, a comma list of them, file:DIR, null:".to_owned(),
        default: |c| some(&c.url),
        effect: "Where events go. A list names servers of one cluster; a HOST alone is nats://HOST:4222. With tls:// the connection \
                 must be encrypted, to servers that the cluster tells of too; with nats:// the server decides. file:DIR keeps the \
                 messages in a directory, null: throws them away.",
        danger: "A user or token in it is taken and never shown, but stands in the file or the environment for whoever reads those; \
                 a file that auth names is better. With null: everything counts as acknowledged, and nothing is delivered.",
    },
    Row {
        name: "stream",
        kind: "text",
        allowed: || "the name of a stream".to_owned(),
        default: |c| some(&c.stream),
        effect: "The JetStream stream that stores the events. The key may be written channel as well.",
        danger: "The bus does not make it. While it is missing nothing is acknowledged, and events wait; a subject that it does not \
                 take is dropped as no_stream.",
    },
    Row {
        name: "chain-id",
        kind: "number",
        allowed: || format!("0 to {}", u64::MAX),
        default: |_| None,
        effect: "The chain that the events are about: the second part of each subject, event.CHAIN_ID.NAME.",
        danger: "A wrong one sends the events of one chain to the readers of another. That is why it has no default.",
    },
    Row {
        name: "subject-prefix",
        kind: "text",
        allowed: || "tokens joined by dots, without wildcards".to_owned(),
        default: |c| some(&c.subject_prefix),
        effect: "The first part of each subject.",
        danger: "The stream's subjects, the account's permissions, and the readers must agree with it.",
    },
    Row {
        name: "partitions",
        kind: "number",
        allowed: || from_to(&limits::PARTITIONS),
        default: |c| some(c.partitions),
        effect: "Over how many streams the events are spread, when one stream is not enough: STREAM-0 and so on, with the number as a \
                 part of the subject, event.CHAIN_ID.2.NAME. Each has a worker, a connection, its part of the queue, and windows of \
                 its own.",
        danger: "Order holds within a stream only. Another number sends threads and keys elsewhere, so order is lost at the change. \
                 Each stream must be there. Not for file:DIR.",
    },
    Row {
        name: "queue.capacity",
        kind: "size",
        allowed: || from_to(&limits::CAPACITY),
        default: |c| size(c.queue.capacity),
        effect: "Memory for events that wait, over all rings: how long an outage may last before events are dropped. All of it is \
                 allocated at the start.",
        danger: "What waits in it is lost when the process is killed. One thread uses one ring, which has its part of the capacity \
                 only. At least 64KiB for each partition.",
    },
    Row {
        name: "queue.rings",
        kind: "number",
        allowed: || format!("auto, {}", from_to(&limits::RINGS)),
        default: |c| match c.queue.rings {
            Rings::Auto => some("auto"),
            Rings::Count(count) => some(count),
        },
        effect: "Into how many rings the capacity is divided; threads are spread over them. auto is two for each core, at most 16, \
                 and fewer if one could not hold eight of the largest events. With 1 a single hot thread has the whole capacity.",
        danger: "More rings leave less room for each thread, fewer make threads meet at the same ring.",
    },
    Row {
        name: "queue.max-event",
        kind: "size",
        allowed: || from_to(&limits::MAX_EVENT),
        default: |c| size(c.queue.max_event),
        effect: "The largest body of an event, as JSON. A larger one is dropped as too_large where it is published.",
        danger: "At most an eighth of the capacity, or of a partition's part of it. Above max_payload of the server or \
                 max_msg_size of the stream it lets events pass that are dropped later.",
    },
    Row {
        name: "queue.when-full",
        kind: "choice",
        allowed: || "drop-newest, block, spool".to_owned(),
        default: |c| match c.queue.when_full {
            WhenFull::DropNewest => some("drop-newest"),
            WhenFull::Block(_) => some("block"),
            WhenFull::Spool => some("spool"),
        },
        effect: "What becomes of an event that finds no room. drop-newest drops and counts it, and the thread goes on at once; with \
                 block the thread waits for room, for at most max-block, and then drops it. With spool the events that the server does \
                 not take in time go to a log on disk, and are sent on from there, in order; the thread never waits.",
        danger: "With block, every publish takes all of max-block in a long outage, and in a task of an asynchronous runtime it \
                 holds up all tasks of that thread. spool needs spool.dir, and what comes faster than the disk takes it is dropped.",
    },
    Row {
        name: "queue.max-block",
        kind: "duration",
        allowed: || from_to(&limits::MAX_BLOCK),
        default: |_| match WhenFull::BLOCK {
            WhenFull::Block(limit) => some(Span(limit)),
            WhenFull::DropNewest | WhenFull::Spool => None,
        },
        effect: "How long a publish waits for room. It needs when-full = \"block\" beside it.",
        danger: "See when-full.",
    },
    Row {
        name: "delivery.mode",
        kind: "choice",
        allowed: || "auto, async, fast".to_owned(),
        default: |_| some("auto"),
        effect: "How messages are sent. async: each is a publish with an acknowledgement of its own, on any server from 2.10. fast: \
                 batches (ADR-50), acknowledged by the hundred, on a server from 2.14.3 and a stream with allow_batched. auto takes \
                 fast where both allow it, and async elsewhere.",
        danger: "With fast nothing is sent while the stream does not allow batches.",
    },
    Row {
        name: "delivery.framing",
        kind: "choice",
        allowed: || "plain, packed".to_owned(),
        default: |_| some("plain"),
        effect: "plain: an event is a message. packed: many events of one subject are one message, one a line, which is several \
                 times as fast.",
        danger: "Readers must unpack. Order holds for the events of a thread with the same name only, and what befalls a message \
                 befalls all its events.",
    },
    Row {
        name: "delivery.compression",
        kind: "choice",
        allowed: || "none, lz4, zstd".to_owned(),
        default: |_| some("none"),
        effect: "How packed messages are compressed: lz4 costs less time than it spares the server, zstd makes fewer bytes of them \
                 for more of the worker's time.",
        danger: "It needs framing = \"packed\", the cargo feature of its name, and readers that know it.",
    },
    Row {
        name: "delivery.linger",
        kind: "duration",
        allowed: || from_to(&limits::LINGER),
        default: |c| some(Span(c.delivery.linger)),
        effect: "The longest pause between two looks at the rings, and how long a packed message waits for more events while others \
                 are unanswered. More of it makes larger messages and fewer wake-ups.",
        danger: "Events arrive later by as much, and more of them are lost when the process is killed. Less than 1ms counts as 1ms.",
    },
    Row {
        name: "delivery.max-in-flight",
        kind: "number",
        allowed: || from_to(&limits::MAX_IN_FLIGHT),
        default: |c| some(c.delivery.max_in_flight),
        effect: "How many messages, of each partition, may wait for their acknowledgement. Raise it where the server is far away: no \
                 more than so many get through in a round trip.",
        danger: "As many are in doubt when a connection breaks, and have to be looked for in the stream. A small one bounds the rate.",
    },
    Row {
        name: "delivery.max-in-flight-bytes",
        kind: "size",
        allowed: || from_to(&limits::MAX_IN_FLIGHT_BYTES),
        default: |c| size(c.delivery.max_in_flight_bytes),
        effect: "How many bytes of payload, of each partition, may wait for their acknowledgement.",
        danger: "This memory comes on top of the queue's. Too little of it bounds the rate of large events and of packed messages.",
    },
    Row {
        name: "delivery.ack-timeout",
        kind: "duration",
        allowed: || from_to(&limits::ACK_TIMEOUT),
        default: |c| some(Span(c.delivery.ack_timeout)),
        effect: "How long an acknowledgement may take before the bus finds out whether the message is stored. A server that says \
                 nothing at all for so long is left.",
        danger: "A short one gives up connections that are only slow. A long one lets events wait behind a server that hangs. Keep it \
                 well below duplicate_window of the stream.",
    },
    Row {
        name: "delivery.stamp",
        kind: "boolean",
        allowed: || "true, false".to_owned(),
        default: |c| some(c.delivery.stamp),
        effect: "Whether each event carries its producer and its number, some 45 bytes.",
        danger: "Without it readers cannot tell a hole from silence, and verify proves nothing.",
    },
    Row {
        name: "delivery.stats-interval",
        kind: "duration",
        allowed: || from_to(&limits::STATS_INTERVAL),
        default: |c| some(Span(c.delivery.stats_interval)),
        effect: "How often the bus publishes its ledger, as _bus.stats.",
        danger: "What a process that is killed had offered since it last did so, nobody can know.",
    },
    Row {
        name: "events.NAME.rate",
        kind: "number",
        allowed: || from_to(&Budget::RATE),
        default: |_| None,
        effect: "How many events of this name there may be in a second, over all threads, as 500 or \"500/s\". NAME is written as it is, in quotes if it has \
                 dots: [event-bus.events.\"quote.computed\"]. In a variable it keeps its letters, too, and two underscores are a dot: \
                 JETRING_EVENT_BUS__EVENTS__quote__computed__RATE.",
        danger: "What comes above it is dropped as queue_full, also with when-full = \"block\" or \"spool\". A name that nobody publishes is not noticed.",
    },
    Row {
        name: "events.NAME.burst",
        kind: "number",
        allowed: || from_to(&Budget::BURST),
        default: |_| None,
        effect: "How many of them may come at once after a pause. Without it, as many as rate allows in a second.",
        danger: "It needs rate beside it. A small one drops events of a name that comes in gusts, although their mean is below the rate.",
    },
    Row {
        name: "events.NAME.share",
        kind: "fraction",
        allowed: || "above 0 to 1".to_owned(),
        default: |_| some(Budget::default().share),
        effect: "Up to which part a ring may be filled for an event of this name to be taken. What is above is for the other names, when events come \
                 faster than the server takes them.",
        danger: "Above it events of this name are dropped as queue_full, also with when-full = \"block\" or \"spool\", whichever names have filled the ring.",
    },
    Row {
        name: "events.NAME.sample",
        kind: "number",
        allowed: || from_to(&Budget::SAMPLE),
        default: |_| some(Budget::default().sample),
        effect: "One request in so many is kept, with all of its events that have the same sample, in every process; of events outside of a request, one \
                 in so many by chance. Those that are kept say in their envelope for how many they stand: sampledrate.",
        danger: "The others are not in the stream, and in no account of loss. Who counts or adds up must multiply by sampledrate.",
    },
    Row {
        name: "spool.dir",
        kind: "path",
        allowed: || "a directory".to_owned(),
        default: |_| None,
        effect: "The directory of the log, for queue.when-full = \"spool\". It is made when it is not there. With several partitions each has \
                 a directory in it, named by its number. What a process leaves there the next one sends.",
        danger: "It must be ours alone, and belongs to one bus at a time: two processes need two. It needs queue.when-full = \"spool\" \
                 beside it.",
    },
    Row {
        name: "spool.max-bytes",
        kind: "size",
        allowed: || from_to(&limits::SPOOL_BYTES),
        default: |c| size(c.spool.max_bytes),
        effect: "The most that the files of a directory take together, of each partition.",
        danger: "A twentieth of the disk, at most 64 MiB, stays free in any case, so a full disk may come first.",
    },
    Row {
        name: "spool.sync",
        kind: "choice",
        allowed: || {
            format!("none, interval:TIME with a TIME of {}, every-batch", from_to(&limits::SPOOL_INTERVAL))
        },
        default: |c| match c.spool.sync {
            SpoolSync::None => some("none"),
            SpoolSync::Interval(interval) => some(format!("interval:{}", Span(interval))),
            SpoolSync::EveryBatch => some("every-batch"),
        },
        effect: "When what is written, to file:DIR or to the spool, is brought to the disk: when the system sees fit, so long after it was written at the latest, or \
                 before it is acknowledged.",
        danger: "A killed process loses nothing acknowledged in any case. A failure of the power takes what was not synced: all but \
                 every-batch may lose what was acknowledged. every-batch is as slow as the disk.",
    },
    Row {
        name: "spool.when-full",
        kind: "choice",
        allowed: || "drop-newest, drop-oldest".to_owned(),
        default: |_| some("drop-newest"),
        effect: "What becomes of events when the files have reached max-bytes: new ones are dropped as spool_full, or the oldest file is \
                 deleted.",
        danger: "With drop-oldest, events go that were acknowledged. How many they were is logged, and kept in the log.",
    },
    Row {
        name: "auth.creds",
        kind: "path",
        allowed: || "a file".to_owned(),
        default: |_| None,
        effect: "A file with the JWT and the seed of a user, as nsc writes it. It is read anew for each connection, so it can be \
                 replaced under a running bus.",
        danger: "Keep it readable for the service alone. One method of authentication at a time; one in a stronger layer replaces \
                 that of a weaker one.",
    },
    Row {
        name: "auth.nkey",
        kind: "path",
        allowed: || "a file".to_owned(),
        default: |_| None,
        effect: "A file with the seed of an NKey. The key may be written seed as well.",
        danger: "As for creds.",
    },
    Row {
        name: "auth.jwt",
        kind: "path",
        allowed: || "a file".to_owned(),
        default: |_| None,
        effect: "A file with the JWT of a user; nkey names the file with the seed that signs for it.",
        danger: "It needs nkey beside it.",
    },
    Row {
        name: "auth.user",
        kind: "text",
        allowed: || "any text".to_owned(),
        default: |_| None,
        effect: "The user, with password or password-file.",
        danger: "By nats:// to another machine it is refused, unless tls.plaintext-credentials allows it.",
    },
    Row {
        name: "auth.password",
        kind: "secret",
        allowed: || "any text, not from the command line".to_owned(),
        default: |_| None,
        effect: "The password of user.",
        danger: "It stands in the file or the environment for whoever reads those; password-file is better.",
    },
    Row {
        name: "auth.password-file",
        kind: "path",
        allowed: || "a file".to_owned(),
        default: |_| None,
        effect: "A file whose content, without the end of the line, is the password of user. It is read anew for each connection.",
        danger: "Keep it readable for the service alone.",
    },
    Row {
        name: "auth.token",
        kind: "secret",
        allowed: || "any text, not from the command line".to_owned(),
        default: |_| None,
        effect: "A token in the place of a user.",
        danger: "As for password; token-file is better.",
    },
    Row {
        name: "auth.token-file",
        kind: "path",
        allowed: || "a file".to_owned(),
        default: |_| None,
        effect: "A file whose content, without the end of the line, is the token. It is read anew for each connection.",
        danger: "Keep it readable for the service alone.",
    },
    Row {
        name: "tls.ca",
        kind: "path",
        allowed: || "a PEM file".to_owned(),
        default: |_| None,
        effect: "The certificates of the authorities to trust, in place of the system's.",
        danger: "It does not demand TLS by itself: that does tls:// in url, or the server.",
    },
    Row {
        name: "tls.cert",
        kind: "path",
        allowed: || "a PEM file".to_owned(),
        default: |_| None,
        effect: "The certificate by which this client proves who it is.",
        danger: "It needs key beside it.",
    },
    Row {
        name: "tls.key",
        kind: "path",
        allowed: || "a PEM file".to_owned(),
        default: |_| None,
        effect: "The private key of that certificate.",
        danger: "It needs cert beside it. Keep it readable for the service alone.",
    },
    Row {
        name: "tls.first",
        kind: "boolean",
        allowed: || "true, false".to_owned(),
        default: |c| some(c.tls.first),
        effect: "Whether TLS begins before the server's first line.",
        danger: "The server must be set to the same (handshake_first), or there is no connection.",
    },
    Row {
        name: "tls.plaintext-credentials",
        kind: "boolean",
        allowed: || "true, false".to_owned(),
        default: |c| some(c.tls.plaintext_credentials),
        effect: "Whether a password or a token may go to another machine by nats://, which is refused at the start otherwise. Signatures \
                 (creds, nkey, jwt) give nothing away, and are not meant.",
        danger: "Unless that server demands TLS by itself, everybody on the way can read it.",
    },
    Row {
        name: "shutdown.timeout",
        kind: "duration",
        allowed: || from_to(&limits::SHUTDOWN),
        default: |c| some(Span(c.shutdown.timeout)),
        effect: "How long the last events may take when the tool ends, or the last handle of a bus is dropped. A service that calls close \
                 gives a deadline of its own.",
        danger: "What is not acknowledged by then is dropped as expired, or is indeterminate. A supervisor that kills earlier takes even \
                 the count.",
    },
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::layers::key_names;
    use super::*;

    fn with(key: &str, value: &str) -> Result<Config, String> {
        let text = format!("event-bus.chain-id = 1\nevent-bus.{key} = \"{value}\"");
        Config::from_toml(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_has_its_words() {
        let names: Vec<_> = Config::keys().iter().map(|key| key.name).collect();
        assert_eq!(names, key_names().collect::<Vec<_>>());
        for key in Config::keys() {
            for words in [key.effect, key.danger, &key.allowed] {
                assert!(!words.is_empty() && !words.contains("  ") && !words.contains('|'), "{key:?}");
            }
            assert!(key.effect.ends_with('.') && key.danger.ends_with('.'), "{key:?}");
        }
    }

    #[test]
    fn a_default_that_is_written_down_changes_nothing() {
        let least = Config::from_toml("event-bus.chain-id = 1").unwrap();
        let mut tried = 0;
        for key in Config::keys() {
            let Some(default) = key.default else { continue };
            // It is the other half of a choice that is not the default.
            if key.name != "queue.max-block" {
                assert_eq!(with(key.name, &default).as_ref(), Ok(&least), "{}", key.name);
                tried += 1;
            }
        }
        assert!(tried > 15, "{tried}");
    }

    #[test]
    fn the_choices_are_those_that_a_refusal_names() {
        let choices = Config::keys().into_iter().filter(|key| key.kind == "choice");
        for key in choices.filter(|key| key.name != "spool.sync") {
            let refusal = with(key.name, "?").unwrap_err();
            let allowed = format!("allowed: {}\n", key.allowed);
            assert!(refusal.contains(&allowed), "{}: {refusal}", key.name);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_the_range_that_is_listed() {
        let mut tried = 0;
        for key in Config::keys() {
            let beyond = match key.kind {
                "size" => "2000GiB",
                "duration" => "4000000000",
                "number" if !["chain-id", "queue.rings"].contains(&key.name) => "99999999",
                _ => continue,
            };
            let refusal = with(key.name, beyond).unwrap_err();
            assert!(refusal.contains(&format!("allowed are {}", key.allowed)), "{}: {refusal}", key.name);
            tried += 1;
        }
        assert!(tried > 8, "{tried}");
    }
}
