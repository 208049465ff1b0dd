//! `jetring replay`: sends what lies in a directory to the server.
//!
//! It is a bus that takes no events, so all of delivery's promises hold: order, once, an account of each event. It ends when everything has met
//! its fate, or when it is interrupted; what is left stays in the directory then, and the next time it goes on there.

use crate::args;
use crate::interrupt::{Flag, interrupt};
use crate::publish;
use crate::{Failure, Outcome, Result, endpoint, output};
use jetring::{Bus, Config, Endpoint, StartError};
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
    let interrupted = interrupt(runtime)?;
    let bus = Bus::replay(config, &args.dir).map_err(|error| match error {
        StartError::Config(error) => Failure::Config(error.to_string()),
        error => Failure::Run(error.to_string()),
    })?;
    let _endpoint = endpoint::serve(&bus, args.metrics.address)?;
    follow(&bus, &interrupted);
    let report = bus.close(patience);
    publish::print(&report, 0, json)?;
    let left = report.stats.held();
    if left > 0 {
        eprintln!("jetring: {left} are left in {}; the next replay goes on there", args.dir.display());
    }
    let is_all = report.stats.acked == report.stats.offered;
    Ok(if is_all { Outcome::Well } else { Outcome::Loss })
}

/// Shows how far it is, until everything has met its fate or somebody interrupts.
fn follow(bus: &Bus, interrupted: &Flag) {
    let progress = output::progress(Some(bus.stats().offered), "sent");
    loop {
        let stats = bus.stats();
        progress.set_length(stats.offered);
        progress.set_position(stats.offered - stats.held());
        if stats.held() == 0 || interrupted.is_set() {
            break;
        }
        std::thread::sleep(POLL);
    }
    progress.finish_and_clear();
}
