//! `jetring publish`: one JSON value a line, each as one event.
//!
//! The bytes of a line go into the envelope as they are, so a reader gets what was given, to the last digit. Here the caller
//! can wait, so a full ring is not a loss: the line is offered again until there is room.

use crate::args;
use crate::interrupt::{Flag, INTERRUPT_POLL, interrupt};
use crate::{Failure, Outcome, Result, endpoint, output};
use jetring::{Bus, Config, Offer, Report, Topic};
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How often a thread that found no room looks again.
const ROOM_POLL: Duration = Duration::from_millis(1);

/// Lines read before they are wanted.
const LINES_AHEAD: usize = 256;

/// Lines that are shown of those that are not JSON; the rest is counted.
const COMPLAINTS_MAX: u64 = 10;

pub(crate) fn run(runtime: &Runtime, config: Config, args: &args::Publish, json: bool) -> Result<Outcome> {
    let input = open(args.file.as_deref())?;
    let interrupted = interrupt(runtime)?;
    if args.raw {
        return raw(runtime, &config, args, input, &interrupted, json);
    }
    let patience = config.shutdown.timeout;
    let bus = Bus::start(config).map_err(|error| Failure::Config(error.to_string()))?;
    let topic = bus.topic(&args.name).map_err(|error| Failure::Usage(error.to_string()))?;
    let _endpoint = endpoint::serve(&bus, args.metrics.address)?;
    let mut lines = Lines::new(input);
    let progress = output::progress(None, "published");
    let mut unplaced = 0;
    while let Some(line) = lines.next(&interrupted)? {
        match offer(&bus, &topic, args.request_id.as_deref(), line.trim(), patience, &interrupted) {
            Some(_) => progress.inc(1),
            None => {
                unplaced += 1;
                break;
            }
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

/// Offers a line when there is room for it, which is none if that does not come. `publish` itself never waits; but this caller has nothing better to do.
fn offer(
    bus: &Bus,
    topic: &Topic,
    request_id: Option<&str>,
    line: &str,
    patience: Duration,
    interrupted: &Flag,
) -> Option<Offer> {
    let publish = || match request_id {
        Some(id) => jetring::request_scope(id, || topic.publish_json(line.as_bytes())),
        None => topic.publish_json(line.as_bytes()),
    };
    // A refusal of a line that is offered again would be a loss in the ledger, so the room is asked for first.
    wait_for_room(bus, line.len(), patience, interrupted).then(publish)
}

/// Waits until this thread's ring has room for so many bytes. Gives up, which is false, when nothing has been settled for
/// `patience`, or when we are interrupted.
pub(crate) fn wait_for_room(bus: &Bus, body_bytes: usize, patience: Duration, interrupted: &Flag) -> bool {
    if bus.has_room(body_bytes) {
        return true;
    }
    let mut deadline = Instant::now() + patience;
    let mut settled = u64::MAX;
    while !bus.has_room(body_bytes) {
        let stats = bus.stats();
        let progress = stats.offered - stats.held();
        if progress != settled {
            settled = progress;
            deadline = Instant::now() + patience;
        }
        if Instant::now() > deadline || interrupted.is_set() {
            return false;
        }
        std::thread::sleep(ROOM_POLL);
    }
    true
}

fn open(file: Option<&Path>) -> Result<Box<dyn BufRead + Send>> {
    match file {
        Some(path) if path != Path::new("-") => {
            let file =
                File::open(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            Ok(Box::new(BufReader::new(file)))
        }
        _ => Ok(Box::new(BufReader::new(io::stdin()))),
    }
}

/// The lines of the input, which are read on a thread of their own, so that an interrupt is heard also while the input is silent.
struct Lines {
    input: mpsc::Receiver<io::Result<Vec<u8>>>,
    number: u64,
    refused: u64,
}

impl Lines {
    fn new(input: Box<dyn BufRead + Send>) -> Self {
        let (lines, received) = mpsc::sync_channel(LINES_AHEAD);
        // It ends with the input, or when nobody wants its lines; if the input stays silent, with the process.
        std::thread::spawn(move || input.split(b'\n').try_for_each(|line| lines.send(line)));
        Self { input: received, number: 0, refused: 0 }
    }

    /// The next line; none at the end, or when we are interrupted.
    fn next_line(&mut self, interrupted: &Flag) -> Result<Option<Vec<u8>>> {
        while !interrupted.is_set() {
            let line = match self.input.recv_timeout(INTERRUPT_POLL) {
                Ok(line) => line,
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
            };
            self.number += 1;
            return line.map(Some).map_err(|error| Failure::Run(format!("line {}: {error}", self.number)));
        }
        Ok(None)
    }

    /// The next line that is a JSON value. Those that are none are complained of and passed over.
    fn next(&mut self, interrupted: &Flag) -> Result<Option<String>> {
        while let Some(line) = self.next_line(interrupted)? {
            match String::from_utf8(line) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => match serde_json::from_str::<IgnoredAny>(&text) {
                    Ok(_) => return Ok(Some(text)),
                    Err(error) => self.refuse(&format!("not JSON: {error}")),
                },
                Err(_) => self.refuse("not UTF-8"),
            }
        }
        Ok(None)
    }

    fn refuse(&mut self, why: &str) {
        self.refused += 1;
        if self.refused <= COMPLAINTS_MAX {
            eprintln!("jetring: line {}: {why}", self.number);
        }
    }
}

pub(crate) fn print(report: &Report, refused: u64, json: bool) -> Result<()> {
    if refused > COMPLAINTS_MAX {
        eprintln!("jetring: {refused} lines were not JSON");
    }
    if json {
        println!("{}", serde_json::to_string(report).map_err(Failure::run)?);
        return Ok(());
    }
    let stats = &report.stats;
    println!("{} offered, {} acked in {:.1} s", stats.offered, stats.acked, stats.elapsed_seconds);
    if stats.spooled > 0 {
        println!("{} in the spool, for the next process or `jetring replay`", stats.spooled);
    }
    for (reason, events) in stats.dropped.iter().filter(|&(_, events)| events > 0) {
        println!("{events} dropped: {reason}");
    }
    if stats.sampled_out > 0 {
        println!("{} sampled out, and not offered", stats.sampled_out);
    }
    if stats.indeterminate > 0 {
        println!("{} indeterminate: sent, and never answered", stats.indeterminate);
    }
    Ok(())
}

/// Sends lines unwrapped, each acknowledged before the next: a tool for repairs and tests, not for load.
fn raw(
    runtime: &Runtime,
    config: &Config,
    args: &args::Publish,
    input: Box<dyn BufRead + Send>,
    interrupted: &Flag,
    json: bool,
) -> Result<Outcome> {
    let publisher =
        runtime.block_on(jetring::nats::raw::RawPublisher::connect(config)).map_err(Failure::run)?;
    let (mut lines, mut acked) = (Lines::new(input), 0u64);
    while let Some(line) = lines.next_line(interrupted)? {
        let publish = publisher.publish(&args.name, line.into());
        let Some(published) = runtime.block_on(interrupted.unless_set(publish)) else {
            eprintln!("jetring: line {}: interrupted before it was acked", lines.number);
            break;
        };
        published
            .map_err(|error| Failure::Run(format!("line {}: {error}; {acked} were acked", lines.number)))?;
        acked += 1;
    }
    if json {
        println!("{}", serde_json::json!({ "acked": acked }));
    } else {
        println!("{acked} lines sent and acked");
    }
    Ok(if interrupted.is_set() { Outcome::Loss } else { Outcome::Well })
}
