//! Measures jetring beside other ways of doing the same job, and keeps the record.
//!
//! ```text
//!   run ──► record/*.json ──┬─► plot ───► plots/*.svg
//!    │                      └─► readme ─► ../README.md, between its marks
//!    ├─ plan        which cells, and why
//!    ├─ load        open-loop schedules; batches; floods
//!    ├─ peer        who is measured
//!    ├─ server      a nats-server in trouble on demand
//!    └─ clock, histogram, machine: the instruments
//! ```
//!
//! From publish to stream, beside other clients, each in a process of its own: [`e2e`].
//!
//! How to read the figures, and what not to read into them: `README.md` in this directory.

mod clock;
mod e2e;
mod event;
mod histogram;
mod load;
mod machine;
mod peer;
mod plan;
mod plot;
mod readme;
mod record;
mod run;
mod server;

use crate::clock::Clock;
use crate::machine::Machine;
use crate::plan::{Plan, REPETITIONS};
use crate::record::{Cell, Record};
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use regex::Regex;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Measures jetring beside its peers.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and write a record for each plan
    Run {
        /// The plan; without it, all of them
        #[arg(long)]
        plan: Option<Plan>,
        /// The most telling cells only, and shorter: less than half a minute. Writes no record unless --out is given
        #[arg(long)]
        quick: bool,
        /// Only cells whose `group/peer` matches, as `^paced-1/(jetring|original)$`. Writes no record unless --out is given
        #[arg(long, value_name = "REGEX")]
        filter: Option<Regex>,
        /// Nanoseconds between two calls of a paced thread
        #[arg(long, value_name = "NANOSECONDS", default_value_t = 2000)]
        every: u64,
        /// Where the records go; usually `record` in this crate
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Measure the whole way to the stream beside other clients, and write a record
    E2e(e2e::Arguments),
    /// Be one of those clients: the other end of `e2e`
    #[command(hide = true)]
    Peer {
        peer: e2e::peer::Peer,
        #[command(flatten)]
        script: e2e::peer::Script,
    },
    /// Make the plots from the records
    Plot,
    /// Write the figures of the records into the README of the repository and of this crate
    Readme {
        /// Write nothing; fail if the README is not what the records say
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { plan, quick, filter, every, out } => {
            run_plans(plan, quick, filter, Duration::from_nanos(every), out)
        }
        Command::E2e(arguments) => e2e::run(&arguments, &in_crate("")),
        Command::Peer { peer, script } => e2e::peer::run(peer, script),
        Command::Plot => plot::write_all(&in_crate("record"), &in_crate("plots")),
        Command::Readme { check } => readme::update(&in_crate("record"), &in_crate("../README.md"), check)
            .and_then(|()| e2e::table::update(&in_crate("record"), &in_crate("README.md"), check)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jetring-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_plans(
    plan: Option<Plan>,
    quick: bool,
    filter: Option<Regex>,
    every: Duration,
    out: Option<PathBuf>,
) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "build with --release; anything else measures the compiler");
    ensure!(every >= Duration::from_nanos(100), "an interval of less than 100 ns is a flood");
    let is_whole = !quick && filter.is_none();
    let out = out.or_else(|| is_whole.then(|| in_crate("record")));
    let plans = plan.map_or_else(|| vec![Plan::Publish, Plan::Throughput, Plan::Outage], |plan| vec![plan]);
    let everything = Regex::new("").context("an empty expression")?;
    let filter_used = filter.as_ref().unwrap_or(&everything);
    let machine = Machine::describe();
    let clock = Clock::calibrate();
    let timer = clock.describe();
    for plan in plans {
        let groups = plan::groups(plan, every, quick);
        let is_wanted = |group: &plan::Group| {
            group.peers.iter().any(|who| filter_used.is_match(&format!("{}/{}", group.id, who.name())))
        };
        if !groups.iter().any(is_wanted) {
            continue;
        }
        eprintln!("{plan:?}");
        let cells = run::run(&groups, filter_used, clock)?;
        print(&cells);
        let Some(out) = &out else { continue };
        let command = command(plan, quick, filter.as_ref(), every);
        let (machine, timer) = (machine.clone(), timer.clone());
        Record { plan, command, repetitions: REPETITIONS, machine, timer, cells }.save(out)?;
    }
    Ok(())
}

/// The command that makes such a record.
fn command(plan: Plan, quick: bool, filter: Option<&Regex>, every: Duration) -> String {
    let plan = format!("{plan:?}").to_lowercase();
    let mut command = format!("cargo run --release -- run --plan {plan} --every {}", every.as_nanos());
    if quick {
        command += " --quick";
    }
    if let Some(filter) = filter {
        command += &format!(" --filter '{filter}'");
    }
    command
}

/// What a person wants to see at once.
fn print(cells: &[Cell]) {
    println!(
        "{:<16} {:<28} {:>9} {:>7} {:>9} {:>9} {:>10} {:>10} {:>8} {:>8}",
        "group", "peer", "call ns", "×", "p50", "p99", "p99.9", "accepted/s", "dropped", "cpu/event"
    );
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(String::new, |value| format!("{value:.digits$}"))
    };
    for cell in cells {
        let service = cell.service.as_ref();
        println!(
            "{:<16} {:<28} {:>9} {:>7} {:>9} {:>9} {:>10} {:>10} {:>7.1}% {:>8}",
            cell.group,
            cell.peer,
            number(cell.batched.map(|spread| spread.median), 1),
            number(cell.times_jetring.map(|spread| spread.median), 2),
            number(service.map(|service| service.p50.median), 0),
            number(service.map(|service| service.p99.median), 0),
            number(service.map(|service| service.p999.median), 0),
            number(cell.accepted_per_second.map(|spread| spread.median), 0),
            100.0 * cell.dropped as f64 / cell.offered as f64,
            number(cell.consumer_cpu_nanos_per_event.map(|spread| spread.median), 0),
        );
    }
}

/// A place in this crate's directory, wherever the program was started.
fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
