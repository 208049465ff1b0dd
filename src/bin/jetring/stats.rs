//! `jetring stats`: the ledger of a running process, read from its metrics endpoint.
//!
//! All samples of a scrape come out of one snapshot of the ledger, so the law holds between them, at any moment: that is what
//! `--check` checks. An endpoint with the metrics of several buses, told apart by labels, is added up; each balances, so
//! their sum does.

use crate::args;
use crate::scrape::{Sample, Scrape};
use crate::{Failure, Outcome, Result};
use jetring::{Dropped, Engine, Stats};
use serde::Serialize;
use serde_json::{Map, Value};

pub(crate) async fn run(args: &args::Stats, json: bool) -> Result<Outcome> {
    let scrape = Scrape::of(&args.target).await?;
    let reading =
        Reading::of(&scrape).map_err(|problem| Failure::Run(format!("{}: {problem}", args.target)))?;
    reading.print(json)?;
    let is_broken = reading.ledger.check().is_err();
    Ok(if args.check && is_broken { Outcome::Loss } else { Outcome::Well })
}

/// What a scrape says of all buses in it.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) ledger: Stats,
    /// Of what was dropped as `queue_full`, events above the budget of their names.
    pub(crate) over_budget: u64,
    /// Each is, to every server that it needs.
    pub(crate) connected: bool,
    /// The least advanced that is used.
    pub(crate) engine: Option<Engine>,
}

/// The balance as the other commands print it, but for the time, which a scrape does not tell; and the state.
#[derive(Serialize)]
struct Printed<'a> {
    offered: u64,
    acked: u64,
    dropped: &'a Dropped,
    indeterminate: u64,
    queued: u64,
    in_flight: u64,
    spooled: u64,
    #[serde(skip_serializing_if = "is_zero")]
    over_budget: u64,
    #[serde(skip_serializing_if = "is_zero")]
    sampled_out: u64,
    balanced: bool,
    connected: bool,
    engine: Option<&'static str>,
}

impl Reading {
    pub(crate) fn of(scrape: &Scrape) -> Result<Self, String> {
        let ledger = Stats {
            offered: sum(scrape, "event_bus_offered_events_total")?,
            acked: sum(scrape, "event_bus_acked_events_total")?,
            dropped: dropped(scrape)?,
            indeterminate: sum(scrape, "event_bus_indeterminate_events_total")?,
            queued: sum(scrape, "event_bus_queued_events")?,
            in_flight: sum(scrape, "event_bus_in_flight_events")?,
            spooled: sum(scrape, "event_bus_spooled_events")?,
            sampled_out: sum_if_there(scrape, "event_bus_sampled_out_events_total")?,
            ..Stats::default()
        };
        let connected = named(scrape, "event_bus_connected")?.all(is_one);
        let over_budget = sum_if_there(scrape, "event_bus_over_budget_events_total")?;
        Ok(Self { ledger, over_budget, connected, engine: engine(scrape) })
    }

    fn print(&self, json: bool) -> Result<()> {
        let Self { ledger, over_budget, connected, engine } = self;
        let (verdict, engine) = (ledger.check(), engine.map(Engine::as_str));
        if json {
            let printed = Printed {
                offered: ledger.offered,
                acked: ledger.acked,
                dropped: &ledger.dropped,
                indeterminate: ledger.indeterminate,
                queued: ledger.queued,
                in_flight: ledger.in_flight,
                spooled: ledger.spooled,
                over_budget: *over_budget,
                sampled_out: ledger.sampled_out,
                balanced: verdict.is_ok(),
                connected: *connected,
                engine,
            };
            println!("{}", serde_json::to_string(&printed).map_err(Failure::run)?);
            return Ok(());
        }
        println!("{:>16} offered", ledger.offered);
        println!("{:>16} acked", ledger.acked);
        for (reason, events) in ledger.dropped.iter().filter(|&(_, events)| events > 0) {
            println!("{events:>16} dropped: {reason}");
        }
        if *over_budget > 0 {
            println!("{over_budget:>16} of these over budget");
        }
        println!("{:>16} indeterminate", ledger.indeterminate);
        println!("{:>16} queued", ledger.queued);
        println!("{:>16} in flight", ledger.in_flight);
        println!("{:>16} spooled", ledger.spooled);
        if ledger.sampled_out > 0 {
            println!("{:>16} sampled out, and not offered", ledger.sampled_out);
        }
        let state = if *connected { "connected" } else { "not connected" };
        println!("{state}, engine {}", engine.unwrap_or("not chosen yet"));
        println!("{}", verdict.map_or_else(|error| error.to_string(), |()| "the ledger balances".to_owned()));
        Ok(())
    }
}

fn is_one(sample: &Sample) -> bool {
    sample.value == 1.0
}

fn engine(scrape: &Scrape) -> Option<Engine> {
    let is_used = |engine: &Engine| {
        let mut samples = scrape.samples("event_bus_engine");
        samples.any(|sample| sample.label("engine") == Some(engine.as_str()) && is_one(sample))
    };
    [Engine::Async, Engine::Fast].into_iter().find(is_used)
}

/// The samples of this name, of which there is at least one.
fn named<'a>(scrape: &'a Scrape, name: &'a str) -> Result<impl Iterator<Item = &'a Sample>, String> {
    let mut samples = scrape.samples(name).peekable();
    samples.peek().ok_or_else(|| format!("there is no {name}"))?;
    Ok(samples)
}

fn sum(scrape: &Scrape, name: &str) -> Result<u64, String> {
    named(scrape, name)?.map(|sample| count(name, sample.value)).sum()
}

/// The same for a metric that an older version of the crate may lack.
fn sum_if_there(scrape: &Scrape, name: &str) -> Result<u64, String> {
    scrape.samples(name).map(|sample| count(name, sample.value)).sum()
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// By reason. One that this version does not know is an error: it would be missing in the balance.
fn dropped(scrape: &Scrape) -> Result<Dropped, String> {
    const NAME: &str = "event_bus_dropped_events_total";
    let mut by_reason = Map::new();
    for sample in named(scrape, NAME)? {
        let reason = sample.label("reason").ok_or_else(|| format!("{NAME} has no reason"))?;
        let before = by_reason.get(reason).and_then(Value::as_u64).unwrap_or(0);
        by_reason.insert(reason.to_owned(), (before + count(NAME, sample.value)?).into());
    }
    serde_json::from_value(by_reason.into()).map_err(|error| format!("{NAME}: {error}"))
}

/// Prometheus has floating point only, in which counts are exact up to 2^53.
fn count(name: &str, value: f64) -> Result<u64, String> {
    let is_count = value >= 0.0 && value.fract() == 0.0 && value <= (1u64 << 53) as f64;
    if is_count { Ok(value as u64) } else { Err(format!("{name} is {value}, which is no count")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// What the endpoint of one bus says, or of several with some more labels.
    fn text(labels: &[&str]) -> String {
        let sample = |(name, label, value): &(&str, &str, u64)| {
            let of = |more: &&str| match (label.is_empty(), more.is_empty()) {
                (true, true) => format!("event_bus_{name} {value}\n"),
                _ => format!("event_bus_{name}{{{label},{more}}} {value}\n"),
            };
            labels.iter().map(of).collect::<String>()
        };
        let samples = [
            ("offered_events_total", "", 21),
            ("acked_events_total", "", 10),
            ("dropped_events_total", "reason=\"queue_full\"", 3),
            ("dropped_events_total", "reason=\"closed\"", 0),
            ("indeterminate_events_total", "", 1),
            ("queued_events", "", 2),
            ("in_flight_events", "", 4),
            ("spooled_events", "", 1),
            ("connected", "", 1),
            ("engine", "engine=\"async\"", 0),
            ("engine", "engine=\"fast\"", 1),
        ];
        samples.iter().map(sample).collect()
    }

    fn read(text: &str) -> Result<Reading, String> {
        Reading::of(&Scrape::parse(text).unwrap())
    }

    #[test]
    fn a_scrape_is_read_to_its_ledger_and_its_state() {
        let reading = read(&text(&[""])).unwrap();
        assert_eq!(reading.ledger.check(), Ok(()));
        assert_eq!((reading.ledger.offered, reading.ledger.dropped.total()), (21, 3));
        assert_eq!((reading.connected, reading.engine), (true, Some(Engine::Fast)));
        assert_eq!((reading.over_budget, reading.ledger.sampled_out), (0, 0), "an older version has none");
        let budgets = "event_bus_sampled_out_events_total 5\nevent_bus_over_budget_events_total 2\n";
        let reading = read(&(text(&[""]) + budgets)).unwrap();
        assert_eq!((reading.over_budget, reading.ledger.sampled_out), (2, 5));
    }

    #[test]
    fn several_buses_are_added_up() {
        let two = text(&["bus=\"a\"", "bus=\"b\""]);
        let reading = read(&two).unwrap();
        assert_eq!((reading.ledger.check(), reading.ledger.offered), (Ok(()), 42));
        assert_eq!(reading.ledger.dropped.total(), 6);
        let one_is_not = two.replace("connected{,bus=\"b\"} 1", "connected{,bus=\"b\"} 0");
        assert!(reading.connected && !read(&one_is_not).unwrap().connected);
    }

    #[test]
    fn a_scrape_that_cannot_be_judged_is_refused() {
        for (there, instead, problem) in [
            ("acked_events", "apples", "there is no event_bus_acked_events_total"),
            ("dropped_events", "apples", "there is no event_bus_dropped_events_total"),
            ("event_bus_connected", "connected", "there is no event_bus_connected"),
            ("queue_full", "bored", "unknown variant `bored`"),
            ("queued_events 2", "queued_events 2.5", "event_bus_queued_events is 2.5, which is no count"),
        ] {
            let error = read(&text(&[""]).replace(there, instead)).err().unwrap();
            assert!(error.contains(problem), "{error}");
        }
    }
}
