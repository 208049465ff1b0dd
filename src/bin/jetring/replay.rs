//! `jetring replay`: sends what lies in a directory to the server.
//!
//! It is a bus that takes no events, so all of delivery's promises hold: order, once, an account of each event. It ends when everything has met
//! its fate, or when it is interrupted; what is left stays in the directory then, and the next time it goes on there.

use crate::args;
use crate::interrupt::{Flag, interrupt};
use crate::publish;
use crate::{Failure, Outcome, Result, endpoint, output};
use jetring::nats::inspect::{Inspector, NoAnswer};
use jetring::{Bus, Config, Endpoint, StartError};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Between two looks at how far it is.
const POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(runtime: &Runtime, mut config: Config, args: &args::Replay, json: bool) -> Result<Outcome> {
    if !matches!(config.url, Endpoint::Nats(_)) {
        return Err(Failure::Usage("replay sends to a server; give its --url".to_owned()));
    }
    // No event comes through the rings, so they are as small as they may be.
    config.queue.capacity = config.partitions * (64 << 10).max(8 * config.queue.max_event);
    let patience = config.shutdown.timeout;
    let dir = args.dir.clone().or_else(|| config.spool.dir.clone()).ok_or_else(|| {
        Failure::Usage("replay needs a directory: give it, or spool.dir in --config".to_owned())
    })?;
    let interrupted = interrupt(runtime)?;
    if !args.discard {
        runtime.block_on(refuse_wrong_stream(&config, &dir))?;
    }
    let start = if args.discard { Bus::replay_and_discard } else { Bus::replay };
    let bus = start(config, &dir).map_err(|error| match error {
        StartError::Config(error) => Failure::Config(error.to_string()),
        error => Failure::Run(error.to_string()),
    })?;
    let _endpoint = endpoint::serve(&bus, args.metrics.address)?;
    follow(&bus, &interrupted);
    let report = bus.close(patience);
    publish::print(&report, 0, json)?;
    let left = report.stats.held();
    if left > 0 {
        eprintln!("jetring: {left} are left in {}; the next replay goes on there", dir.display());
    }
    if let Some(why) = bus.held_back() {
        eprintln!("jetring: {why}; --discard gives up what the stream does not take");
    }
    let is_all = report.stats.acked == report.stats.offered;
    Ok(if is_all { Outcome::Well } else { Outcome::Loss })
}

/// Subjects of which a refusal names so many.
const SUBJECTS_TOLD: usize = 10;

/// Looks at what waits before anything is sent: an error if its stream is not there, or does not take all of it. What cannot be looked at is left to the
/// bus, which keeps what it cannot send.
async fn refuse_wrong_stream(config: &Config, dir: &Path) -> Result<()> {
    let Endpoint::Nats(servers) = &config.url else { return Ok(()) };
    let mut inspector = None;
    for server in servers.iter() {
        if let Ok(connected) = Inspector::connect(config, server).await {
            inspector = Some(connected);
            break;
        }
    }
    let Some(mut inspector) = inspector else { return Ok(()) };
    for (index, stream) in config.streams().into_iter().enumerate() {
        let dir = if config.partitions == 1 { dir.to_owned() } else { dir.join(index.to_string()) };
        // One that cannot be read is refused by the bus, with the reason.
        let Ok(waiting) = jetring::spool::waiting(&dir) else { continue };
        let patterns = match inspector.stream(&stream.name).await {
            Ok((facts, _)) => facts.subjects,
            Err(NoAnswer::Missing) => Vec::new(),
            Err(_) => continue,
        };
        let is_taken = |subject: &str| {
            subject.contains("._bus.") || patterns.iter().any(|pattern| jetring::covers(pattern, subject))
        };
        let others: Vec<_> = waiting.into_iter().filter(|(subject, _)| !is_taken(subject)).collect();
        if others.is_empty() {
            continue;
        }
        let events: u64 = others.iter().map(|(_, events)| events).sum();
        let mut told: Vec<_> = others
            .iter()
            .take(SUBJECTS_TOLD)
            .map(|(subject, events)| format!("{subject} ({events})"))
            .collect();
        if others.len() > told.len() {
            told.push(format!("and {} more subjects", others.len() - told.len()));
        }
        let takes = match patterns.is_empty() {
            true => "does not exist".to_owned(),
            false => format!("takes {}", patterns.join(", ")),
        };
        return Err(Failure::Run(format!(
            "nothing was sent: the stream {} {takes}, but {events} events in {} go to {}. Give the --stream, --chain-id and --url, or the --config, of the \
             process that wrote them; --discard gives them up",
            stream.name,
            dir.display(),
            told.join(", ")
        )));
    }
    Ok(())
}

/// Shows how far it is, until everything has met its fate or somebody interrupts.
fn follow(bus: &Bus, interrupted: &Flag) {
    let progress = output::progress(Some(bus.stats().offered), "sent");
    loop {
        let stats = bus.stats();
        progress.set_length(stats.offered);
        progress.set_position(stats.offered - stats.held());
        let is_held_back = bus.held_back().is_some() && stats.in_flight == 0;
        if stats.held() == 0 || is_held_back || interrupted.is_set() {
            break;
        }
        std::thread::sleep(POLL);
    }
    progress.finish_and_clear();
}
