//! What is known before anything is judged. The server is asked what can be asked without changing it.

use super::hygiene::{self, Exposure, SecretFile};
use super::monitor::{self, Sync};
use crate::args;
use jetring::nats::inspect::{AccountFacts, Clocks, Inspector, NoAnswer, ServerFacts, StreamFacts, Trial};
use jetring::report::{GAP, STARTED, STOPPED};
use jetring::{Config, Servers, Stream};
use std::path::Path;
use std::time::Duration;

/// Questions by which the round trip is measured.
const PINGS: usize = 5;

/// The name of an event that stands for all, where none is given.
pub(super) const STAND_IN: &str = "doctor";

/// The reports that a bus publishes about itself.
pub(super) const REPORTS: [&str; 3] = [STARTED, GAP, STOPPED];

#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The configured servers by their addresses, and what they say of themselves, or why they cannot be reached.
    pub(super) servers: Vec<(String, Result<ServerFacts, String>)>,
    /// Of JetStream's answers, shortest first.
    pub(super) round_trips: Vec<Duration>,
    /// Known if a server can be reached.
    pub(super) account: Option<Result<AccountFacts, NoAnswer>>,
    pub(super) streams: Vec<Sight>,
    /// Known if it was asked for.
    pub(super) sync: Option<Result<Sync, String>>,
    pub(super) exposure: Exposure,
    pub(super) files: Vec<SecretFile>,
}

/// What is known of one of the streams.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) stream: Stream,
    pub(super) answer: Result<(StreamFacts, Option<Clocks>), NoAnswer>,
    /// What would become of events and reports, by name.
    pub(super) publishing: Vec<(String, Trial)>,
    /// Whether one may read a message by its sequence, as a bus does after a lost connection.
    pub(super) reading_back: Trial,
    /// Whether one may make a consumer and ask it for messages, as `verify` and `tap` do.
    pub(super) consuming: [Trial; 2],
}

impl Facts {
    /// The server that everything else was asked: the first that can be reached.
    pub(super) fn server(&self) -> Option<&ServerFacts> {
        self.servers.iter().find_map(|(_, server)| server.as_ref().ok())
    }

    /// The middle one of the measured times.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trips.get(self.round_trips.len() / 2).copied()
    }
}

pub(super) async fn gather(
    config: &Config,
    servers: &Servers,
    args: &args::Doctor,
    file: Option<&Path>,
) -> Facts {
    let mut facts = Facts {
        exposure: hygiene::exposure(config, servers).await,
        files: hygiene::secret_files(config, servers, file),
        ..Facts::default()
    };
    if let Some(url) = &args.monitor {
        facts.sync = Some(monitor::ask(url).await);
    }
    let mut inspector = None;
    for server in servers {
        let connected = Inspector::connect(config, server).await;
        facts
            .servers
            .push((server.address(), connected.as_ref().map(Inspector::server).map_err(Clone::clone)));
        inspector = inspector.or_else(|| connected.ok());
    }
    let Some(mut inspector) = inspector else { return facts };
    ask_account(&mut inspector, &mut facts).await;
    for stream in config.streams() {
        facts.streams.push(look(&mut inspector, stream, args).await);
    }
    facts
}

async fn ask_account(inspector: &mut Inspector, facts: &mut Facts) {
    for _ in 0..PINGS {
        match inspector.account().await {
            Ok((account, took)) => {
                facts.account = Some(Ok(account));
                facts.round_trips.push(took);
            }
            Err(error) => {
                facts.account = Some(Err(error));
                break;
            }
        }
    }
    facts.round_trips.sort();
}

async fn look(inspector: &mut Inspector, stream: Stream, args: &args::Doctor) -> Sight {
    let answer = inspector.stream(&stream.name).await;
    let mut publishing = Vec::new();
    for name in names(args) {
        let trial = inspector.would_publish(&stream.subjects.subject(name)).await;
        publishing.push((name.to_owned(), trial));
    }
    let (name, all) = (&stream.name, stream.subjects.all());
    let reading_back = inspector.would_publish(&format!("$JS.API.STREAM.MSG.GET.{name}")).await;
    let consuming = [
        inspector.would_publish(&format!("$JS.API.CONSUMER.CREATE.{name}.doctor.{all}")).await,
        inspector.would_publish(&format!("$JS.API.CONSUMER.MSG.NEXT.{name}.doctor")).await,
    ];
    Sight { stream, answer, publishing, reading_back, consuming }
}

/// The names that are tried: the events', and the reports'.
pub(super) fn names(args: &args::Doctor) -> Vec<&str> {
    let events: Vec<&str> = args.names.iter().map(|name| name.as_str()).collect();
    let events = if events.is_empty() { vec![STAND_IN] } else { events };
    events.into_iter().chain(REPORTS).collect()
}
