//! The whole way of events: from threads that publish to a stream that holds them, beside other clients of the same server.
//!
//! ```text
//!   run (this process)                       peer (a process of its own, in any language)
//!   ──────────────────                       ─────────────────────────────────────────────
//!   start server, make stream
//!   start peer: URL SUBJECT SIZE … ────────► connect, publish the warm-up, await its acknowledgements
//!   look ◄───────────────────────── ready ─┘
//!   go ────────────────────────────────────► publish N events, await the last acknowledgement
//!   look ◄────────────────────────── done ─┘
//!        ◄── what it has measured itself ──┘
//!   read the stream back: every event there, once, in order
//! ```
//!
//! To *look* is to read the clock, and the processor time of the peer and of the servers, by the clocks that the system keeps for other
//! processes. So time and processor time are taken in the same way of everybody, in nanoseconds. Only the latencies are the peers' own: from
//! the call that publishes an event to the moment when the client's user can know that it is stored.
//!
//! A run takes long, and a machine that others use is quiet for a minute at a time. So each sample is written down at once, a run may be
//! told to end after some seconds, and the next one goes on where it ended, if it is the same program.

mod check;
mod child;
mod cluster;
pub(crate) mod peer;
mod plan;
pub(crate) mod record;
mod samples;
pub(crate) mod table;

use anyhow::{Context, Result, ensure};
use clap::Args;
use peer::Peer;
use plan::{Cell, REPETITIONS};
use record::E2eRecord;
use regex::Regex;
use samples::{Sample, Samples};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Flags of a run.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only cells whose `group/peer` matches. Writes no record unless --out is given
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// End after so many seconds; the next run of the same program goes on
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Repetitions of every cell
    #[arg(long, value_name = "N", default_value_t = REPETITIONS)]
    repetitions: usize,
    /// Where the record goes; usually `record` in this crate
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Measures what is missing of a record, and writes it when nothing is.
pub(crate) fn run(arguments: &Arguments, crate_directory: &Path) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "build with --release; anything else measures the compiler");
    let is_wanted = |cell: &Cell| {
        arguments
            .filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(&format!("{}/{}", cell.group, cell.peer)))
    };
    let cells = available(plan::cells().into_iter().filter(is_wanted).collect());
    ensure!(!cells.is_empty(), "no cell matches");
    let mut samples = Samples::open(&crate_directory.join("target"))?;
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for repetition in 1..=arguments.repetitions {
        for cell in &cells {
            if samples.has(cell, repetition) {
                continue;
            }
            if end.is_some_and(|end| Instant::now() > end) {
                eprintln!("e2e: time is up; the next run goes on with repetition {repetition}");
                return Ok(());
            }
            let sample = Sample::take(cell)
                .with_context(|| format!("{} of {}, repetition {repetition}", cell.group, cell.peer))?;
            eprintln!("{:<18} {:<28} {repetition}  {}", cell.group, cell.peer.to_string(), sample.in_short());
            samples.add(cell, repetition, sample)?;
        }
    }
    let record = E2eRecord {
        command: "make perf-e2e".to_owned(),
        repetitions: arguments.repetitions,
        machine: samples.machine.clone(),
        cells: cells
            .iter()
            .map(|cell| record::Cell::gather(cell, &cells, &samples, arguments.repetitions))
            .collect(),
    };
    record.print();
    let is_whole = arguments.filter.is_none() && arguments.repetitions == REPETITIONS;
    let usual = is_whole.then(|| crate_directory.join("record"));
    match arguments.out.clone().or(usual) {
        Some(out) => record.save(&out),
        None => Ok(()),
    }
}

/// Says loudly, once, who is left out.
fn available(cells: Vec<Cell>) -> Vec<Cell> {
    let mut missing: Vec<Peer> = Vec::new();
    for cell in &cells {
        if !missing.contains(&cell.peer)
            && let Some(why) = cell.peer.missing()
        {
            eprintln!("!!!! {} is SKIPPED: {why}", cell.peer);
            missing.push(cell.peer);
        }
    }
    cells.into_iter().filter(|cell| !missing.contains(&cell.peer)).collect()
}
