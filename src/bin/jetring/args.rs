//! The command line. No logic.

use crate::endpoint::Address;
use crate::scrape::Target;
use clap::{Args as ClapArgs, Parser, Subcommand};
use jetring::Name;
use jetring::schema::compatibility::Readers;
use std::path::PathBuf;
use std::str::FromStr;

/// What no flag says, at the end of the help and of the manual page.
const STATUS: &str = "\
Data goes to standard output, talk to standard error.

Exit status: 0 all well, 1 something was lost, doubled or out of order, or failed, or nothing was found, 2 the command line is wrong, 78 the configuration is. doctor has 1 for warnings \
and 2 for errors.

A flag wins over the environment (JETRING_EVENT_BUS__QUEUE__CAPACITY and so on, then NATS_URL, NATS_CREDS and the others of the nats \
command), that over the file, and that over the default. RUST_LOG sets what is logged, NO_COLOR takes the colours away.";

/// A lock-free ring buffer in front of NATS JetStream: publish events, follow them, prove that none is lost.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_long_help = STATUS)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What all commands take. Flags win over the environment (JETRING_EVENT_BUS__QUEUE__CAPACITY and so on, NATS_URL,
/// NATS_CREDS, …), that over the file, that over the defaults.
#[derive(Debug, ClapArgs)]
pub(crate) struct Common {
    /// Server: nats:// or tls://, a comma list; a directory: file:DIR; or null: [default: nats://localhost:4222]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Stream to publish to or read from [default: main]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) stream: Option<String>,
    /// Second token of the subjects, event.<CHAIN_ID>.<name> [default: 1 without a configuration file]
    #[arg(long, global = true, value_name = "CHAIN_ID")]
    pub(crate) chain_id: Option<u64>,
    /// Streams that the events are spread over, NAME-0 and so on, with subjects event.<CHAIN_ID>.<number>.<name> [default: 1,
    /// which is the stream NAME]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) partitions: Option<usize>,
    /// Configuration file, TOML with a table [event-bus]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Make the stream first if it does not exist, or the stream of each partition (for development)
    #[arg(long, global = true)]
    pub(crate) create_stream: bool,
    /// Print one JSON document (or one a line) instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more to standard error; twice for the client's own log too
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A quote competition: estimators race over real pools, publish what they do, and a consumer reads it back
    Demo(Demo),
    /// Publish JSON values, one a line, each as one event
    Publish(Publish),
    /// Follow the stream
    Tap(Tap),
    /// Read the whole stream and prove, for each producer, what is there, doubled, out of order, lost
    Verify(Verify),
    /// Look at server, account, stream and credentials, change nothing, and say what is wrong for this configuration, why it matters
    /// and what to do. Exit status: 0 all well, 1 warnings, 2 errors
    Doctor(Doctor),
    /// Measure the whole way: events per second, processor time, and latency, from publish calls to the last acknowledgement
    Bench(Bench),
    /// Read the metrics endpoint of a running process: what became of its events, and whether all are accounted for
    Stats(Stats),
    /// Watch a running process, live, through its metrics endpoint
    Top(Top),
    /// Look at a directory of events, prove that it is whole, read it, put it right, send it on
    Spool(Spool),
    /// Send what lies in a directory to the server, in order, once: one of file:DIR, or the spool of a process that is no more. What is
    /// acknowledged is deleted; interrupted, it goes on where it was the next time
    Replay(Replay),
    /// Explain the keys of the configuration: default, what is allowed, variable, effect, danger
    Config(ConfigKeys),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual page of this tool, or write the pages of all commands
    Man(Man),
    /// Print the JSON Schemas of the envelope and of the bus's reports, or compare two sets of schemas
    Schema(Schema),
}

impl Command {
    /// What the command's own flags say of the configuration, by its keys.
    pub(crate) fn overrides(&self) -> [(&'static str, Option<String>); 3] {
        let flag = |value: fn(&Bench) -> &Option<String>| match self {
            Self::Bench(bench) => value(bench).clone(),
            Self::Demo(_)
            | Self::Publish(_)
            | Self::Tap(_)
            | Self::Verify(_)
            | Self::Doctor(_)
            | Self::Stats(_)
            | Self::Top(_)
            | Self::Spool(_)
            | Self::Replay(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Schema(_) => None,
        };
        [
            ("delivery.mode", flag(|bench| &bench.mode)),
            ("delivery.framing", flag(|bench| &bench.framing)),
            ("delivery.compression", flag(|bench| &bench.compression)),
        ]
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Demo {
    /// Events a second, spread evenly, whether or not they can be delivered
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: u64,
    /// How long to run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Seed of the pools and orders
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Publish {
    /// Event name: tokens of A-Z a-z 0-9 _ - joined by dots (with --raw: the whole subject)
    pub(crate) name: String,
    /// File with one JSON value a line [default: standard input]
    pub(crate) file: Option<PathBuf>,
    /// Send the lines as they are, without an envelope, to the subject NAME
    #[arg(long, conflicts_with = "address")]
    pub(crate) raw: bool,
    /// Request id for all events
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Tap {
    /// Subject to follow, wildcards allowed [default: all of the chain]
    pub(crate) subject: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Where to begin: all, new, or a sequence of the stream (which says nothing with several partitions)
    #[arg(long, default_value = "new", value_name = "all|new|SEQ")]
    pub(crate) from: From,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Only the producers of one process, by the 16 digits of their names
    #[arg(long, value_name = "HEX")]
    pub(crate) process: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Doctor {
    /// Names of the events that will be published, to be looked for one by one in the stream's subjects and the permissions
    /// [default: all names, as the stream must take them]
    pub(crate) names: Vec<Name>,
    /// Monitoring endpoint of the server, which tells how often its files are synced: http://localhost:8222
    #[arg(long, value_name = "URL")]
    pub(crate) monitor: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bench {
    /// End after so many events
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) events: Option<u64>,
    /// End after so long [default: 5, without --events]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Events a second of all threads together, at fixed times; what finds no room is shed [default: as fast as they get through]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(crate) rate: Option<u64>,
    /// Bytes of an event with its envelope, without its stamp
    #[arg(long, value_name = "BYTES", default_value_t = 414)]
    pub(crate) size: usize,
    /// Threads that publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) threads: u64,
    /// The way of publishing, as delivery.mode: auto, async, fast
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<String>,
    /// One event a message or many, as delivery.framing: plain, packed
    #[arg(long, value_name = "FRAMING")]
    pub(crate) framing: Option<String>,
    /// Of packed messages, as delivery.compression: none, lz4, zstd
    #[arg(long, value_name = "COMPRESSION")]
    pub(crate) compression: Option<String>,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
}

/// Of the commands that run a bus.
#[derive(Debug, ClapArgs)]
pub(crate) struct Metrics {
    /// Serve the metrics at http://ADDR/metrics while it runs; a port alone is on 127.0.0.1
    #[arg(long = "metrics", value_name = "ADDR")]
    pub(crate) address: Option<Address>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Stats {
    /// Where the metrics are: a URL, an address, or a port of this machine
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9464/metrics")]
    pub(crate) target: Target,
    /// Exit with 1 if the accounts do not add up to what was offered
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Top {
    /// Where the metrics are: a URL, an address, or a port of this machine
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9464/metrics")]
    pub(crate) target: Target,
    /// Seconds between two looks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Spool {
    #[command(subcommand)]
    pub(crate) action: SpoolAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SpoolAction {
    #[command(flatten)]
    Look(Look),
    /// The same as jetring replay
    Replay(Replay),
}

/// What needs neither server nor configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum Look {
    /// List the files
    Ls {
        /// The directory
        dir: PathBuf,
    },
    /// Read all of it and say what is missing or damaged; works beside a running bus
    Verify {
        /// The directory
        dir: PathBuf,
    },
    /// Print all messages, and what is missing between them
    Dump {
        /// The directory
        dir: PathBuf,
    },
    /// Put damaged segments aside, keep what is whole of them, cut off a torn tail
    Repair {
        /// The directory
        dir: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    /// The directory; with several partitions, that which holds theirs [default: spool.dir of the configuration]
    pub(crate) dir: Option<PathBuf>,
    /// Give up the events that the stream does not take, or that may not be published: drop and count them. Without this, nothing is sent if there
    /// are any
    #[arg(long)]
    pub(crate) discard: bool,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConfigKeys {
    /// Keys or tables, as queue.capacity or queue [default: all]
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// Print a file that has these keys as comments, at their defaults
    #[arg(long)]
    pub(crate) toml: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Man {
    /// Directory to write the pages of all commands to; it is made when it is not there [default: the page of the tool goes to
    /// standard output]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Schema {
    #[command(subcommand)]
    pub(crate) action: Option<SchemaAction>,
    /// Write one file each to this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaAction {
    /// Say what breaks for whom when events change from OLD to NEW. Exit status: 0 compatible, 1 not
    Check {
        /// A directory of schemas, a file with one, or a file with several by name
        old: PathBuf,
        /// The same
        new: PathBuf,
        /// Whose reading counts: that of old readers, who get new events; of new ones, who get what is in the stream already; or all
        #[arg(long, value_name = "old|new|all", default_value = "all")]
        readers: ReadersArg,
    },
}

/// Whose reading `schema check` judges; all, if none is named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadersArg(pub(crate) Option<Readers>);

impl FromStr for ReadersArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "old" => Ok(Self(Some(Readers::Old))),
            "new" => Ok(Self(Some(Readers::New))),
            "all" => Ok(Self(None)),
            _ => Err("allowed are old, new, all".to_owned()),
        }
    }
}

/// Where `tap` begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From(pub(crate) jetring::reader::From);

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use jetring::reader::From;
        match text {
            "all" => Ok(Self(From::All)),
            "new" => Ok(Self(From::New)),
            sequence => match sequence.parse() {
                Ok(sequence) if sequence > 0 => Ok(Self(From::Sequence(sequence))),
                Ok(_) | Err(_) => Err("allowed are all, new, or a sequence of the stream from 1".to_owned()),
            },
        }
    }
}
