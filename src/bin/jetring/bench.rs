//! `jetring bench`: the whole way of events, from real `publish` calls to the last acknowledgement.
//!
//! ```text
//!   threads:  warm up ─┬─────────────┬─ publish, publish, …  ─┬
//!   main:              └ flush, look ┘                        └ flush, look ─ close ─ balance
//!                              first reading ◄──────────────► last reading
//! ```
//!
//! Without `--rate` the threads publish as fast as events get through: they wait for room in their ring, as somebody would who cannot
//! afford a loss. Then the rings are full all the time, and the latency is mostly the wait in them. With `--rate` the events come at fixed
//! times, nobody waits, and what finds no room is shed; that is the way to measure latencies.
//!
//! What is told is about the measured events only. The warm-up connects, allocates, and fills caches; its events stand in the stream
//! under a name of their own and in no figure. The processor's time is that of the whole process, so it has in it the making of the
//! events and the publishing as well as the worker. A latency is that of one event from its `publish` to the moment when the worker
//! books its acknowledgement, as the bus counts it for every event; see [`Bus::delivery_latency`].

use crate::args;
use crate::interrupt::{Flag, INTERRUPT_POLL, interrupt};
use crate::publish::wait_for_room;
use crate::{Failure, Outcome, Result, endpoint, output};
use indicatif::ProgressBar;
use jetring::{Bus, Config, Distribution, Report, Stats, Topic};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::sync::Barrier;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The names of the events.
const NAME: &str = "bench";
const WARM_UP_NAME: &str = "bench.warmUp";

/// Events of all threads before the measurement.
const WARM_UP_EVENTS: u64 = 10_000;

/// How often the progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// When neither `--events` nor `--seconds` says it.
const SECONDS: u64 = 5;

pub(crate) fn run(runtime: &Runtime, config: Config, args: &args::Bench, json: bool) -> Result<Outcome> {
    let body = Body::new(args.size)
        .ok_or_else(|| Failure::Usage(format!("--size: an event has at least {} bytes", Body::least())))?;
    let max_event = config.queue.max_event;
    if args.size > max_event {
        return Err(Failure::Usage(format!("--size: queue.max-event is {max_event} bytes")));
    }
    let patience = config.shutdown.timeout;
    let interrupted = interrupt(runtime)?;
    let bus = Bus::start(config).map_err(|error| Failure::Config(error.to_string()))?;
    let _endpoint = endpoint::serve(&bus, args.metrics.address)?;
    let bench = Bench { bus: &bus, args, body, patience, interrupted: &interrupted };
    let readings = bench.measure()?;
    let report = bus.close(patience);
    report.stats.check().map_err(Failure::run)?;
    let summary = Summary::new(&report, readings.as_ref());
    summary.print(json)?;
    let lost = readings.is_none() || summary.balance.acked != summary.balance.offered;
    Ok(if lost { Outcome::Loss } else { Outcome::Well })
}

/// What the threads of a run share.
struct Bench<'a> {
    bus: &'a Bus,
    args: &'a args::Bench,
    body: Body,
    patience: Duration,
    interrupted: &'a Flag,
}

/// How it stands at one moment.
struct Reading {
    at: Instant,
    cpu: Duration,
    stats: Stats,
    latency: Distribution,
}

/// The first and the last.
type Readings = (Reading, Reading);

/// Where the threads wait for each other.
struct Stage {
    warm: Barrier,
    go: Barrier,
    /// Nothing is measured.
    off: Flag,
}

impl Bench<'_> {
    /// Runs the load. None if not even the warm-up was delivered.
    fn measure(&self) -> Result<Option<Readings>> {
        let threads = self.args.threads as usize;
        let stage =
            Stage { warm: Barrier::new(threads + 1), go: Barrier::new(threads + 1), off: Flag::default() };
        let producers = (0..threads).map(|_| self.producers()).collect::<Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let stage = &stage;
            let mut running = Vec::new();
            for (index, (warm_up, producer)) in producers.into_iter().enumerate() {
                running.push(scope.spawn(move || producer.run(warm_up, stage, index)));
            }
            stage.warm.wait();
            let first = self.settle();
            let is_warm = first.stats.acked == first.stats.offered && !self.interrupted.is_set();
            if !is_warm {
                let why =
                    if self.interrupted.is_set() { "interrupted" } else { "the warm-up was not delivered" };
                eprintln!("jetring: {why}, so nothing is measured");
                stage.off.set();
            }
            stage.go.wait();
            self.follow(&running, &first);
            for producer in running {
                if !producer
                    .join()
                    .map_err(|_| Failure::Run("a thread of the bench has panicked".to_owned()))?
                {
                    eprintln!(
                        "jetring: no room for {:?}, because the server takes nothing; stopped",
                        self.patience
                    );
                }
            }
            Ok(is_warm.then(|| (first, self.settle())))
        })
    }

    /// What a thread warms up with and what it publishes with.
    fn producers(&self) -> Result<(Producer<'_>, Producer<'_>)> {
        let producer = |name| {
            let topic = self.bus.topic(name).map_err(Failure::run)?;
            Ok(Producer { bench: self, topic, body: self.body.clone() })
        };
        Ok((producer(WARM_UP_NAME)?, producer(NAME)?))
    }

    /// Waits until all that was offered has met its fate, or for as long as anything still moves.
    fn settle(&self) -> Reading {
        let fates = |stats: &Stats| stats.offered - stats.held();
        let (mut before, mut deadline) = (u64::MAX, Instant::now() + self.patience);
        loop {
            // By and by, to hear of an interrupt.
            let report = self.bus.flush(self.patience.min(INTERRUPT_POLL));
            let (at, now) = (Instant::now(), fates(&report.stats));
            if std::mem::replace(&mut before, now) != now {
                deadline = at + self.patience;
            }
            if report.complete || self.interrupted.is_set() || at >= deadline {
                let (cpu, latency) = (cpu_time(), self.bus.delivery_latency());
                return Reading { at, cpu, stats: report.stats, latency };
            }
        }
    }

    /// Shows how far the producers are, until they are done.
    fn follow(&self, producers: &[ScopedJoinHandle<'_, bool>], first: &Reading) {
        let bar: ProgressBar = output::progress(self.total(), "offered");
        if bar.is_hidden() {
            return;
        }
        while !producers.iter().all(ScopedJoinHandle::is_finished) {
            bar.set_position(self.bus.stats().offered - first.stats.offered);
            std::thread::sleep(SHOWN_EVERY);
        }
        bar.finish_and_clear();
    }

    /// Events to come, where that is known.
    fn total(&self) -> Option<u64> {
        let by_time = |rate: u64| rate * self.args.seconds.unwrap_or(SECONDS);
        self.args.events.or_else(|| self.args.rate.map(by_time))
    }
}

/// A publishing thread.
struct Producer<'a> {
    bench: &'a Bench<'a>,
    topic: Topic,
    body: Body,
}

impl Producer<'_> {
    /// Says whether all could be offered.
    fn run(mut self, mut warm_up: Self, stage: &Stage, index: usize) -> bool {
        let args = self.bench.args;
        let threads = args.threads;
        // An event more for the first threads where the number cannot be divided.
        let share = |events: u64| events / threads + u64::from((index as u64) < events % threads);
        let is_warm = warm_up.flood(share(WARM_UP_EVENTS), None);
        stage.warm.wait();
        stage.go.wait();
        if stage.off.is_set() {
            return is_warm;
        }
        let start = Instant::now();
        let seconds = args.seconds.unwrap_or(SECONDS);
        let end = args.events.is_none().then(|| start + Duration::from_secs(seconds));
        let events = args.events.map_or(u64::MAX, share);
        match args.rate {
            None => self.flood(events, end),
            Some(rate) => {
                let interval = Duration::from_secs_f64(threads as f64 / rate as f64);
                self.keep_time(events, end, interval, start + interval.mul_f64(index as f64 / threads as f64))
            }
        }
    }

    /// Publishes whenever there is room.
    fn flood(&mut self, events: u64, end: Option<Instant>) -> bool {
        let Bench { bus, args, patience, interrupted, .. } = self.bench;
        // For the event in whatever form, and for those of all threads that may be faster on the same ring.
        let room = 2 * args.size * args.threads as usize;
        for number in 0..events {
            if end.is_some_and(|end| Instant::now() >= end) || interrupted.is_set() {
                return true;
            }
            if !wait_for_room(bus, room, *patience, interrupted) {
                return interrupted.is_set();
            }
            self.publish(number);
        }
        true
    }

    /// Publishes at fixed times, those that are past at once.
    fn keep_time(&mut self, events: u64, end: Option<Instant>, interval: Duration, start: Instant) -> bool {
        for number in 0..events {
            let due = start + interval.mul_f64(number as f64);
            if end.is_some_and(|end| due >= end) || self.bench.interrupted.is_set() {
                return true;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            self.publish(number);
        }
        true
    }

    fn publish(&mut self, number: u64) {
        self.body.set_number(number);
        self.topic.publish(&self.body);
    }
}

/// What this process has used of its processors, all threads together, also those that have ended.
fn cpu_time() -> Duration {
    // Every system that has the function has this clock; where it fails there is nothing to tell.
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// A price estimate, with as many hops and digits as its size asks for; or a quote where that is too large.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Body {
    Quote(Quote),
    Estimate(Estimate),
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Quote {
    order_id: u64,
    out_amount: String,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Estimate {
    order_id: u64,
    estimator: &'static str,
    sell_token: &'static str,
    buy_token: &'static str,
    sell_amount: &'static str,
    out_amount: String,
    gas: u64,
    route: Vec<Hop>,
    elapsed_micros: f64,
    verified: bool,
    error: Option<&'static str>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Hop {
    pool: u32,
    amount_in: &'static str,
}

const HOP: Hop = Hop { pool: 10, amount_in: "1250000000000000000" };

/// Nine digits, so that all events of a run are equally long.
const FIRST_NUMBER: u64 = 100_000_000;

/// The envelope around a body, without a stamp; some timestamps have fewer digits.
const ENVELOPE_BYTES: usize = 69;

impl Body {
    /// A body whose envelope has so many bytes without its stamp; none if that is too little.
    fn new(bytes: usize) -> Option<Self> {
        let fits = |body: &Self| body.bytes() <= bytes;
        let mut body = Some(Self::estimate(1)).filter(fits).or_else(|| Some(Self::quote()).filter(fits))?;
        if let Self::Estimate(_) = body {
            let hop = Self::estimate(2).bytes() - Self::estimate(1).bytes();
            body = Self::estimate(1 + (bytes - body.bytes()) / hop);
        }
        let missing = bytes - body.bytes();
        match &mut body {
            Self::Quote(Quote { out_amount, .. }) | Self::Estimate(Estimate { out_amount, .. }) => {
                out_amount.extend(std::iter::repeat_n('0', missing));
            }
        }
        Some(body)
    }

    /// The least size there is.
    fn least() -> usize {
        Self::quote().bytes()
    }

    fn quote() -> Self {
        Self::Quote(Quote { order_id: FIRST_NUMBER, out_amount: "4".to_owned() })
    }

    fn estimate(hops: usize) -> Self {
        Self::Estimate(Estimate {
            order_id: FIRST_NUMBER,
            estimator: "two-hop",
            sell_token: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
            buy_token: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
            sell_amount: "1250000000000000000",
            out_amount: "4".to_owned(),
            gas: 186_000,
            route: vec![HOP; hops],
            elapsed_micros: 23.75,
            verified: true,
            error: None,
        })
    }

    /// The size of its envelope.
    fn bytes(&self) -> usize {
        ENVELOPE_BYTES + serde_json::to_vec(self).expect("an event is plain data").len()
    }

    fn set_number(&mut self, number: u64) {
        match self {
            Self::Quote(Quote { order_id, .. }) | Self::Estimate(Estimate { order_id, .. }) => {
                *order_id = FIRST_NUMBER + number;
            }
        }
    }
}

/// What is told in the end.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    balance: Stats,
    events_per_second: Option<f64>,
    client_cpu_us_per_event: Option<f64>,
    ack_latency_us: Option<Percentiles>,
    warm_up_events: u64,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Summary {
    /// Of what came after the first reading; of everything if there is none.
    fn new(report: &Report, readings: Option<&Readings>) -> Self {
        let balance = report.stats.clone();
        let Some((first, last)) = readings else {
            return Self {
                balance,
                events_per_second: None,
                client_cpu_us_per_event: None,
                ack_latency_us: None,
                warm_up_events: 0,
            };
        };
        let seconds = (last.at - first.at).as_secs_f64();
        // All events of the warm-up were acknowledged, or there would be no readings.
        let warm_up_events = first.stats.offered;
        let balance = Stats {
            offered: balance.offered - warm_up_events,
            acked: balance.acked - warm_up_events,
            elapsed_seconds: seconds,
            ..balance
        };
        let acked = last.stats.acked - warm_up_events;
        let cpu = (last.cpu - first.cpu).as_secs_f64();
        Self {
            events_per_second: Some(rounded(acked as f64 / seconds, 1.0)),
            client_cpu_us_per_event: (acked > 0).then(|| rounded(cpu * 1e6 / acked as f64, 1e3)),
            ack_latency_us: Percentiles::of(&last.latency.since(&first.latency)),
            warm_up_events,
            balance,
        }
    }

    fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self).map_err(Failure::run)?);
            return Ok(());
        }
        if let (Some(rate), Some(cpu)) = (self.events_per_second, self.client_cpu_us_per_event) {
            println!("events   {rate} a second, {cpu} µs of this process's processor time for each");
        }
        if let Some(Percentiles { p50, p99, p999 }) = self.ack_latency_us {
            println!("latency  from publish to acknowledgement: p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs");
        }
        println!("balance  {}", serde_json::to_string(&self.balance).map_err(Failure::run)?);
        Ok(())
    }
}

impl Percentiles {
    fn of(latency: &Distribution) -> Option<Self> {
        let at = |quantile| Some(rounded(latency.quantile(quantile)?.as_secs_f64() * 1e6, 10.0));
        Some(Self { p50: at(0.5)?, p99: at(0.99)?, p999: at(0.999)? })
    }
}

/// To as many parts of one as make sense.
fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_large_as_it_was_asked_for() {
        for bytes in [Body::least(), 128, 300, 414, 415, 4096, 65_000] {
            let mut body = Body::new(bytes).expect("it is large enough");
            body.set_number(7_654_321);
            assert_eq!(body.bytes(), bytes);
        }
        assert!(Body::new(Body::least() - 1).is_none());
    }
}
