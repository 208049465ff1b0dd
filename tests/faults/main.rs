//! Real faults: a load goes on while networks, servers and streams fail, and then what the stream holds is read back.
//!
//! ```text
//!   FAULTS (table.rs) × engine × server ─► Stage ─► run ─► Outcome ─► judged, and written down for the table
//!      what, when,                        servers,   load,    counts
//!      how healed                         relays     trouble
//! ```
//!
//! A fault is data, a row of `table.rs`; a scenario is a fault with an engine on a version of nats-server. Each is a test of its own,
//! `fault::engine::version`, so that one can be run by its name, and all run one at a time. `make test` runs the short
//! matrix, a few rows; `make faults` sets `JETRING_FAULTS=all`, runs every one, and prints what came of each.
//!
//! What all of them prove is the same. The law held at each look and holds at the end; no publish waited; whatever the ledger says
//! to be stored is in the stream; nothing is there twice, or behind a later event of its thread; nothing is missing that
//! no gap report declares. Where a row allows less, its entry in the table says what, and why.

#[path = "../it/frame.rs"]
#[allow(dead_code, reason = "shared with tests/it")]
mod frame;
#[path = "../it/proxy.rs"]
#[allow(dead_code, reason = "shared with tests/it")]
mod proxy;
#[path = "../it/server.rs"]
mod server;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "shared with tests/it")]
mod support;

/// What came of a scenario, and the judgement of it.
mod outcome;
/// The table that is printed at the end, and the record of it.
mod record;
/// One scenario from the first event to the reading of the stream.
mod run;
/// The servers and relays of a scenario, and what is done to them.
mod stage;
/// The faults.
mod table;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::run::Scenario;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, rest @ ..] = &words[..]
        && word == "report"
    {
        return record::report(rest.first());
    }
    // What the bus says of itself is shown with a scenario that fails.
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "jetring=info".to_owned()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut arguments = Arguments::from_args();
    // Servers on a small machine make each other late. (nextest, which runs each in a process of its own, is told the same
    // in its configuration.)
    arguments.test_threads = Some(1);
    let trials = Scenario::all().into_iter().map(|scenario| {
        let name = scenario.name();
        Trial::test(name, move || scenario.prove().map_err(Into::into))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
