//! One scenario: the stage is set, a load begins, the trouble comes and goes, the bus is closed, and the stream is read.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jetring::{Bus, Config};

use crate::outcome::Outcome;
use crate::server::{fetched, messages};
use crate::stage::Stage;
use crate::support::{CLOSE, Load, STREAM, Scrape, ask, prove_ledger};
use crate::table::{ENGINES, Engine, FAULTS, Fault};

/// By when a bus must be at work again after the cause of a trouble is gone. Far more than it needs: a limit for the wait, not a
/// judgement; what it needed is written down.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Enough events for some of them to be in every state.
const A_WHILE: Duration = Duration::from_millis(300);

/// Memory for what is offered while a server is frozen for 20 s.
const QUEUE: usize = 64 << 20;

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    fault: &'static Fault,
    engine: &'static Engine,
    version: &'static str,
}

impl Scenario {
    /// All that are to run: the short matrix, or with `JETRING_FAULTS=all` every one.
    pub(crate) fn all() -> Vec<Self> {
        let whole = std::env::var_os("JETRING_FAULTS").is_some_and(|which| which == "all");
        let engines: Vec<&Engine> = ENGINES.iter().filter(|engine| mode(engine).is_ok()).collect();
        let mut scenarios = Vec::new();
        for fault in FAULTS {
            for (engine, version) in
                engines.iter().flat_map(|&engine| fault.versions.iter().map(move |v| (engine, v)))
            {
                let scenario = Self { fault, engine, version };
                if engine.runs_on(version) && (whole || scenario.is_short()) {
                    scenarios.push(scenario);
                }
            }
        }
        scenarios
    }

    /// Whether it is of the short matrix. There it is left out if its server was not fetched; in the whole one it fails.
    fn is_short(&self) -> bool {
        self.fault.short.contains(&self.version) && fetched(self.version).is_file()
    }

    pub(crate) fn name(&self) -> String {
        format!("{}::{}::{}", self.fault.name, self.engine.name, self.version)
    }

    /// Runs it, judges it, and writes it down.
    ///
    /// # Errors
    ///
    /// What is wrong with the outcome.
    pub(crate) fn prove(&self) -> Result<(), String> {
        let began = Instant::now();
        let mut outcome = Outcome {
            fault: self.fault.name.to_owned(),
            engine: self.engine.name.to_owned(),
            server: self.version.to_owned(),
            ..Outcome::default()
        };
        let ran = catch_unwind(AssertUnwindSafe(|| self.run(&mut outcome)));
        outcome.seconds = began.elapsed().as_secs_f64();
        let judged = match ran {
            Ok(()) => outcome.judge(self.fault),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                outcome.verdict = text.unwrap_or_else(|| "panicked".to_owned());
                Err(format!("{}\n{outcome:#?}", outcome.verdict))
            }
        };
        self.write_down(&outcome);
        judged
    }

    fn run(&self, outcome: &mut Outcome) {
        let fault = self.fault;
        let mut stage = Stage::set(fault, self.version, self.engine.needs_batches);
        let bus = self.bus(&stage.url());
        let load = Load::start(&bus, fault.threads, fault.per_second);
        load.flows_again();
        for _ in 0..fault.times {
            load.goes_on_for(A_WHILE);
            for &(act, time) in fault.cycle {
                stage.act(act, &bus);
                load.goes_on_for(time);
            }
            // The cause of the trouble is gone only when the servers have elected a leader.
            stage.await_leader();
            let [recovery, caught_up] = load.recovers(RECOVERY_MAX).map(milliseconds);
            outcome.recovery_ms = outcome.recovery_ms.max(recovery);
            outcome.caught_up_ms = outcome.caught_up_ms.max(caught_up);
        }
        load.goes_on_for(A_WHILE);
        let seen = load.stop().merge(std::mem::take(&mut stage.seen));
        let report = bus.close(CLOSE);
        let scrape = Scrape::of(&bus);
        (outcome.reconnects, outcome.retries) =
            (scrape.sum("event_bus_reconnects_total") as u64, scrape.sum("event_bus_retries_total") as u64);
        outcome.add_report(&report);
        let used = report.stats.engine.map(jetring::Engine::as_str);
        assert_eq!(used, Some(self.engine.name), "the scenario is about another engine");
        prove_ledger(&report, &seen);
        outcome.add_messages(&ask(messages(&stage.direct_url(), STREAM)), bus.process());
    }

    fn bus(&self, url: &str) -> Bus {
        let mut config = mode(self.engine).expect("only engines that there are have scenarios");
        config.url = url.parse().expect("the urls of our own servers");
        config.queue.capacity = QUEUE;
        config.delivery.ack_timeout = self.fault.ack_timeout;
        Bus::start(config).expect("the configuration is valid")
    }

    /// Where [`record`](crate::record) finds it.
    fn write_down(&self, outcome: &Outcome) {
        let text = serde_json::to_string(outcome).expect("plain data");
        let directory = directory();
        fs::create_dir_all(&directory).expect("the target directory is writable");
        fs::write(directory.join(self.name().replace("::", "-")), text)
            .expect("the target directory is writable");
    }
}

/// Where outcomes are gathered, a file for each scenario, since each may run in a process of its own.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults")
}

/// The configuration with this way of publishing; an error if this build has none of the name.
fn mode(engine: &Engine) -> Result<Config, jetring::ConfigError> {
    let settings = [("stream", STREAM), ("chain-id", "1"), ("delivery.mode", engine.name)];
    Config::layered(None, [], settings.map(|(key, value)| (key, value.to_owned())))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a test does not take that long")
}
