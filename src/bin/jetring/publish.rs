//! `jetring publish`: one JSON value a line, each as one event.
//!
//! The bytes of a line go into the envelope as they are, so a reader gets what was given, to the last digit. Here the caller
//! can wait, so a full ring is not a loss: the line is offered again until there is room.

use crate::args;
use crate::{Failure, Outcome, Result, output};
use jetring::{Bus, Config, Offer, Reason, Report, Topic};
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long a line waits for the ring to get room before the server is asked about, and for how long in all.
const ROOM_POLL: Duration = Duration::from_millis(1);

/// Lines that are shown of those that are not JSON; the rest is counted.
const COMPLAINTS_MAX: u64 = 10;

pub(crate) fn run(runtime: &Runtime, config: Config, args: &args::Publish, json: bool) -> Result<Outcome> {
    let input = open(args.file.as_deref())?;
    if args.raw {
        return raw(runtime, &config, args, input, json);
    }
    let patience = config.shutdown.timeout;
    let bus = Bus::start(config).map_err(|error| Failure::Config(error.to_string()))?;
    let topic = bus.topic(&args.name).map_err(|error| Failure::Usage(error.to_string()))?;
    let interrupted = interrupt(runtime);
    let mut lines = Lines::new(input);
    let progress = output::progress(None, "published");
    let mut unplaced = 0;
    while let Some(line) = lines.next()? {
        match offer(&bus, &topic, args.request_id.as_deref(), line, patience, &interrupted) {
            Offer::Dropped(Reason::QueueFull) => {
                unplaced += 1;
                break;
            }
            Offer::Accepted | Offer::Dropped(_) => progress.inc(1),
        }
        if interrupted.is_set() {
            break;
        }
    }
    progress.finish_and_clear();
    if unplaced > 0 {
        eprintln!(
            "jetring: line {}: no room for {patience:?}, because the server takes nothing; stopped",
            lines.number
        );
    }
    let report = bus.close(patience);
    print(&report, lines.refused, json)?;
    let lost = report.stats.acked != report.stats.offered || lines.refused > 0 || unplaced > 0;
    Ok(if lost || interrupted.is_set() { Outcome::Loss } else { Outcome::Well })
}

/// Offers a line until it is taken. `publish` itself never waits; but this caller has nothing better to do.
fn offer(
    bus: &Bus,
    topic: &Topic,
    request_id: Option<&str>,
    line: &str,
    patience: Duration,
    interrupted: &Flag,
) -> Offer {
    let publish = || match request_id {
        Some(id) => jetring::request_scope(id, || topic.publish_json(line.as_bytes())),
        None => topic.publish_json(line.as_bytes()),
    };
    let mut deadline = Instant::now() + patience;
    let mut settled = u64::MAX;
    loop {
        // A refusal of a line that is offered again would be a loss in the ledger, so the room is asked for first.
        if bus.has_room(line.len()) {
            return publish();
        }
        let stats = bus.stats();
        let progress = stats.offered - stats.held();
        if progress != settled {
            settled = progress;
            deadline = Instant::now() + patience;
        }
        if Instant::now() > deadline || interrupted.is_set() {
            return Offer::Dropped(Reason::QueueFull);
        }
        std::thread::sleep(ROOM_POLL);
    }
}

fn open(file: Option<&Path>) -> Result<Box<dyn BufRead>> {
    match file {
        Some(path) if path != Path::new("-") => {
            let file =
                File::open(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            Ok(Box::new(BufReader::new(file)))
        }
        _ => Ok(Box::new(io::stdin().lock())),
    }
}

/// The JSON values of the input. Lines that are none are complained of and passed over.
struct Lines {
    input: Box<dyn BufRead>,
    line: String,
    number: u64,
    refused: u64,
}

impl Lines {
    fn new(input: Box<dyn BufRead>) -> Self {
        Self { input, line: String::new(), number: 0, refused: 0 }
    }

    fn next(&mut self) -> Result<Option<&str>> {
        loop {
            self.line.clear();
            self.number += 1;
            match self.input.read_line(&mut self.line) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.refuse("not UTF-8");
                    continue;
                }
                Err(error) => return Err(Failure::Run(format!("line {}: {error}", self.number))),
            }
            let text = self.line.trim();
            if text.is_empty() {
                continue;
            }
            match serde_json::from_str::<IgnoredAny>(text) {
                Ok(_) => break,
                Err(error) => self.refuse(&format!("not JSON: {error}")),
            }
        }
        Ok(Some(self.line.trim()))
    }

    fn refuse(&mut self, why: &str) {
        self.refused += 1;
        if self.refused <= COMPLAINTS_MAX {
            eprintln!("jetring: line {}: {why}", self.number);
        }
    }
}

/// Something that happens once, and that others look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<OnceLock<()>>);

impl Flag {
    pub(crate) fn set(&self) {
        let _ = self.0.set(());
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}

/// Set when the user has interrupted us, so that what was taken can still be delivered.
pub(crate) fn interrupt(runtime: &Runtime) -> Flag {
    let interrupted = Flag::default();
    let flag = interrupted.clone();
    runtime.spawn(async move {
        if crate::tap::interrupted().await.is_ok() {
            flag.set();
        }
    });
    interrupted
}

fn print(report: &Report, refused: u64, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report).map_err(Failure::run)?);
        return Ok(());
    }
    let stats = &report.stats;
    println!("{} offered, {} acked in {:.1} s", stats.offered, stats.acked, stats.elapsed_seconds);
    for (reason, events) in stats.dropped.iter().filter(|&(_, events)| events > 0) {
        println!("{events} dropped: {reason}");
    }
    if stats.indeterminate > 0 {
        println!("{} indeterminate: sent, and never answered", stats.indeterminate);
    }
    if refused > 0 {
        println!("{refused} lines were not JSON");
    }
    Ok(())
}

/// Sends lines unwrapped, each acknowledged before the next: a tool for repairs and tests, not for load.
fn raw(
    runtime: &Runtime,
    config: &Config,
    args: &args::Publish,
    mut input: Box<dyn BufRead>,
    json: bool,
) -> Result<Outcome> {
    let publisher =
        runtime.block_on(jetring::nats::raw::RawPublisher::connect(config)).map_err(Failure::run)?;
    let (mut line, mut sent) = (String::new(), 0u64);
    while input.read_line(&mut line).map_err(Failure::run)? > 0 {
        let payload = line.trim_end_matches(['\r', '\n']).to_owned();
        runtime.block_on(publisher.publish(&args.name, payload.into())).map_err(Failure::run)?;
        sent += 1;
        line.clear();
    }
    if json {
        println!("{}", serde_json::json!({ "acked": sent }));
    } else {
        println!("{sent} lines sent and acked");
    }
    Ok(Outcome::Well)
}
