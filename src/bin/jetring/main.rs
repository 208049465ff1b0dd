//! `jetring`, the command-line tool: publishes, follows and verifies streams of events, and shows what the crate does.
//!
//! Standard output is data, standard error is talk. Exit status: 0 all well, 1 something was lost or failed, 2 the command line
//! is wrong, 78 the configuration is. `doctor` has 1 for warnings and 2 for errors, as checks for monitoring have it; who must tell
//! its 2 from a wrong command line looks at standard output, which is empty then.

mod args;
mod bench;
mod demo;
mod doctor;
mod endpoint;
mod follow;
mod interrupt;
mod market;
mod output;
mod publish;
mod replay;
mod schema;
mod scrape;
mod spool;
mod stats;
mod tap;
mod top;
mod verify;

use args::{Args, Command, SpoolAction};
use clap::Parser;
use jetring::Config;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// `EX_CONFIG` of `sysexits.h`.
const EXIT_CONFIG: u8 = 78;

/// How a command ended.
enum Outcome {
    /// All well.
    Well,
    /// Something was lost, refused or not sound; what, has been said.
    Loss,
    /// What was looked at cannot work as it is; why, has been said.
    Unfit,
}

/// Why a command could not do its work.
enum Failure {
    Config(String),
    Usage(String),
    Run(String),
}

type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    fn run(error: impl std::fmt::Display) -> Self {
        Self::Run(error.to_string())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    output::start_log(args.common.verbose);
    match run(args) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Loss) => ExitCode::FAILURE,
        Ok(Outcome::Unfit) => ExitCode::from(2),
        Err(Failure::Config(text)) => fail(&text, EXIT_CONFIG),
        Err(Failure::Usage(text)) => fail(&text, 2),
        Err(Failure::Run(text)) => fail(&text, 1),
    }
}

fn fail(text: &str, status: u8) -> ExitCode {
    eprintln!("jetring: {text}");
    ExitCode::from(status)
}

fn run(args: Args) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(Failure::run)?;
    let json = args.common.json;
    if args.common.create_stream && matches!(args.command, Command::Doctor(_)) {
        return Err(Failure::Usage("--create-stream: doctor changes nothing".to_owned()));
    }
    let config = || prepare(&runtime, &args);
    match &args.command {
        Command::Demo(args) => demo::run(&runtime, config()?, args, json),
        Command::Publish(args) => publish::run(&runtime, config()?, args, json),
        Command::Tap(args) => runtime.block_on(tap::run(config()?, args, json)),
        Command::Verify(args) => runtime.block_on(verify::run(&config()?, args, json)),
        Command::Doctor(doctor) => {
            let file = args.common.config.as_deref();
            runtime.block_on(doctor::run(&config()?, doctor, file, json))
        }
        Command::Bench(args) => bench::run(&runtime, config()?, args, json),
        // These look at a process and at files, and no server, so no configuration can be in their way.
        Command::Stats(args) => runtime.block_on(stats::run(args, json)),
        Command::Top(args) => top::run(&runtime, args, json),
        Command::Spool(args) => match &args.action {
            SpoolAction::Replay(args) => replay::run(&runtime, config()?, args, json),
            SpoolAction::Look(look) => spool::run(look, json),
        },
        Command::Replay(args) => replay::run(&runtime, config()?, args, json),
        Command::Schema(args) => schema::run(args, json),
    }
}

/// The configuration, and its stream if it is to be made.
fn prepare(runtime: &Runtime, args: &Args) -> Result<Config> {
    let config = config(args)?;
    if args.common.create_stream {
        runtime.block_on(jetring::nats::admin::create_stream(&config)).map_err(Failure::run)?;
    }
    Ok(config)
}

/// Flags over environment over file over defaults.
fn config(args: &Args) -> Result<Config> {
    let common = &args.common;
    let file = match &common.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Config(format!("{}: {error}", path.display())))?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = file.as_ref().map(|(label, text)| (label.as_str(), text.as_str()));
    let flags = [
        ("url", common.url.clone()),
        ("stream", common.stream.clone()),
        ("chain-id", common.chain_id.map(|id| id.to_string())),
        ("partitions", common.partitions.map(|count| count.to_string())),
    ];
    let flags =
        flags.into_iter().chain(args.command.overrides()).filter_map(|(key, value)| Some((key, value?)));
    let mut environment = Config::environment().map_err(|error| Failure::Config(error.to_string()))?;
    // The tool is used by hand, so the one key that has no default gets one here, weaker than all others.
    let is_given = common.chain_id.is_some()
        || file.is_some()
        || environment.iter().any(|(name, _)| name == "JETRING_EVENT_BUS__CHAIN_ID");
    if !is_given {
        environment.push(("JETRING_EVENT_BUS__CHAIN_ID".to_owned(), "1".to_owned()));
    }
    Config::layered(file, environment, flags).map_err(|error| Failure::Config(error.to_string()))
}
