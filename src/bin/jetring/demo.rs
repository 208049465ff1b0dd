//! `jetring demo`: a quote competition, the job that this crate is made for.
//!
//! ```text
//!                     ┌─► direct ────────┐
//!   conductor ─orders─┼─► two-hop ───────┼─answers─► judge
//!   (open loop)       ├─► split ─────────┤
//!        │            ├─► two-hop-slow ──┤             │
//!        │            └─► flaky ─────────┘             │
//!        ▼ quoteRequested   ▼ priceEstimate            ▼ winningPriceEstimate, quoteComputed
//!   ═══════════════════ bus ═══════════════════════════════► stream ──► consumer: audit
//! ```
//!
//! Orders come at a fixed rate, whether or not the events about them can be delivered (an open loop, so that a slow
//! server shows and is not waited for). Every publish call is timed. In the end three things are told: how long the calls took,
//! what became of the events by the ledger, and what the stream holds by a consumer that has read it back.

use crate::args;
use crate::follow::{Follower, MESSAGES_AHEAD};
use crate::interrupt::{Flag, interrupt};
use crate::market::competition::{PriceEstimate, QuoteComputed, QuoteRequested, WinningPriceEstimate};
use crate::market::estimate::{Estimator, estimators};
use crate::market::{Order, Pools};
use crate::{Failure, Outcome, Result, endpoint, output, verify};
use hdrhistogram::Histogram;
use jetring::audit::{self, Audit, Verdict};
use jetring::reader::{From, Received};
use jetring::{Bus, Config, Endpoint, Report, Topic};
use rand::SeedableRng;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Events about one order: the request, five estimates, the winner (if there is one), the quote.
const EVENTS_PER_ORDER: u64 = 8;

/// Orders that are due are handed out together this often, so that the demo measures publishing and not thread wake-ups.
const TICK: Duration = Duration::from_millis(1);

/// How often the slow estimator repeats its work.
const SLOW_ROUNDS: u32 = 4;

/// After the bus was closed, the consumer reads on until it hears nothing for so long, or that the bus has stopped.
const SILENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(runtime: &Runtime, config: Config, args: &args::Demo, json: bool) -> Result<Outcome> {
    let patience = config.shutdown.timeout;
    let interrupted = interrupt(runtime)?;
    let bus = Bus::start(config.clone()).map_err(|error| Failure::Config(error.to_string()))?;
    let _endpoint = endpoint::serve(&bus, args.metrics.address)?;
    let closed = Flag::default();
    let consumers = consume(runtime, &config, bus.process(), &closed, &interrupted)?;
    let calls = compete(&bus, args, &interrupted)?;
    let report = bus.close(patience);
    closed.set();
    let audits = consumers.into_iter().map(|consumer| runtime.block_on(consumer).map_err(Failure::run));
    let audits = audits.collect::<Result<Vec<_>>>()?;
    // Nothing is there to read behind `null:`.
    let verdict = (!audits.is_empty()).then(|| audit::together(&audits));
    print(&report, &calls, verdict.as_ref(), json)?;
    let read_back = verdict.is_none_or(|verdict| {
        verdict.is_sound() && verdict.duplicates == 0 && verdict.delivered >= report.stats.acked
    });
    let delivered = report.stats.acked == report.stats.offered;
    Ok(if delivered && read_back { Outcome::Well } else { Outcome::Loss })
}

/// Reads back what the bus publishes, each stream until the bus says there that it has stopped.
fn consume(
    runtime: &Runtime,
    config: &Config,
    process: &str,
    closed: &Flag,
    interrupted: &Flag,
) -> Result<Vec<JoinHandle<Audit>>> {
    if matches!(config.url, Endpoint::Null) {
        return Ok(Vec::new());
    }
    let consume = |stream| {
        // From all: the bus's first report may be there already. Other processes' events are passed over.
        let open = Follower::open(config, stream, None, From::All);
        let opened = runtime.block_on(interrupted.unless_set(open));
        let follower = opened.ok_or_else(|| Failure::Run("interrupted before it began".to_owned()))??;
        let (tell, messages) = tokio::sync::mpsc::channel(MESSAGES_AHEAD);
        runtime.spawn(follower.run(tell));
        Ok(runtime.spawn(read_back(messages, Audit::of_process(process), closed.clone())))
    };
    config.streams().into_iter().map(consume).collect()
}

async fn read_back(
    mut messages: tokio::sync::mpsc::Receiver<Received>,
    mut audit: Audit,
    closed: Flag,
) -> Audit {
    while !audit.has_stopped() {
        match tokio::time::timeout(SILENCE, messages.recv()).await {
            Ok(None) => break,
            Ok(Some(received)) => audit.observe_frame(&received.subject, received.unpack()),
            Err(_) if closed.is_set() => break,
            Err(_) => {}
        }
    }
    audit
}

/// Durations of publish calls, in nanoseconds.
type Calls = Histogram<u64>;

fn compete(bus: &Bus, args: &args::Demo, interrupted: &Flag) -> Result<Calls> {
    let pools = Arc::new(Pools::example(args.seed));
    let estimators = estimators(SLOW_ROUNDS);
    let asked = estimators.len();
    let (to_judge, answers) = mpsc::channel();
    let (mut desks, mut threads) = (Vec::new(), Vec::new());
    for estimator in estimators {
        let (to_estimator, orders) = mpsc::channel();
        desks.push(to_estimator);
        let (publisher, pools, to_judge) = (Publisher::new(bus)?, Arc::clone(&pools), to_judge.clone());
        let interrupted = interrupted.clone();
        threads.push(std::thread::spawn(move || {
            estimate(&*estimator, &pools, &orders, &to_judge, publisher, &interrupted)
        }));
    }
    drop(to_judge);
    let publisher = Publisher::new(bus)?;
    threads.push(std::thread::spawn(move || judge(asked, &answers, publisher)));

    let mut calls = conduct(args, &desks, Publisher::new(bus)?, interrupted);
    drop(desks);
    for thread in threads {
        let others =
            thread.join().map_err(|_| Failure::Run("a thread of the demo has panicked".to_owned()))?;
        calls.add(&others).map_err(Failure::run)?;
    }
    Ok(calls)
}

/// An order and the moment at which it came.
#[derive(Clone)]
struct Asked {
    order: Order,
    at: Instant,
}

/// Gives the orders out at their rate.
fn conduct(
    args: &args::Demo,
    desks: &[mpsc::Sender<Arc<[Asked]>>],
    mut publisher: Publisher,
    interrupted: &Flag,
) -> Calls {
    let total = (args.rate * args.seconds).div_ceil(EVENTS_PER_ORDER);
    let interval = Duration::from_secs_f64(EVENTS_PER_ORDER as f64 / args.rate as f64);
    let progress = output::progress(Some(total), "quotes");
    let mut rng = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(args.seed);
    let start = Instant::now();
    let mut given = 0;
    while given < total && !interrupted.is_set() {
        let due = ((start.elapsed().as_secs_f64() / interval.as_secs_f64()) as u64 + 1).min(total);
        let batch: Arc<[Asked]> = (given..due)
            .map(|id| {
                let order = Order::random(id, &mut rng);
                let requested = QuoteRequested::new(&order, desks.len());
                publisher.publish(Kind::Requested, &order.request_id(), &requested);
                Asked { order, at: Instant::now() }
            })
            .collect();
        if !batch.is_empty() {
            desks.iter().for_each(|desk| drop(desk.send(Arc::clone(&batch))));
        }
        progress.inc(due - given);
        given = due;
        std::thread::sleep(TICK);
    }
    progress.finish_and_clear();
    publisher.calls
}

/// One estimator's thread.
fn estimate(
    estimator: &dyn Estimator,
    pools: &Pools,
    orders: &mpsc::Receiver<Arc<[Asked]>>,
    to_judge: &mpsc::Sender<Vec<(Asked, PriceEstimate)>>,
    mut publisher: Publisher,
    interrupted: &Flag,
) -> Calls {
    // What has gathered on a slow estimator's desk is left there.
    for batch in orders.iter().take_while(|_| !interrupted.is_set()) {
        let answers = batch.iter().map(|asked| {
            let start = Instant::now();
            let result = estimator.estimate(pools, &asked.order);
            let answer = PriceEstimate::new(&asked.order, estimator.name(), result, start.elapsed());
            publisher.publish(Kind::Estimate, &asked.order.request_id(), &answer);
            (asked.clone(), answer)
        });
        // The judge outlives us: it ends when all estimators have.
        let _ = to_judge.send(answers.collect());
    }
    publisher.calls
}

/// Waits for the answers to each order, and names the winner.
fn judge(
    asked: usize,
    answers: &mpsc::Receiver<Vec<(Asked, PriceEstimate)>>,
    mut publisher: Publisher,
) -> Calls {
    let mut open: HashMap<u64, Vec<PriceEstimate>> = HashMap::new();
    for (request, answer) in answers.iter().flatten() {
        let id = request.order.id;
        let estimates = open.entry(id).or_default();
        estimates.push(answer);
        if estimates.len() < asked {
            continue;
        }
        let estimates = open.remove(&id).unwrap_or_default();
        let request_id = request.order.request_id();
        if let Some(winner) = WinningPriceEstimate::of(&estimates) {
            publisher.publish(Kind::Winner, &request_id, &winner);
        }
        let computed = QuoteComputed::new(&request.order, &estimates, request.at.elapsed());
        publisher.publish(Kind::Computed, &request_id, &computed);
    }
    publisher.calls
}

#[derive(Clone, Copy)]
enum Kind {
    Requested,
    Estimate,
    Winner,
    Computed,
}

/// The topics of a thread, and how long its publish calls took.
struct Publisher {
    topics: [Topic; 4],
    calls: Calls,
}

impl Publisher {
    fn new(bus: &Bus) -> Result<Self> {
        let topic = |name| bus.topic(name).map_err(Failure::run);
        let topics = [
            topic(QuoteRequested::NAME)?,
            topic(PriceEstimate::NAME)?,
            topic(WinningPriceEstimate::NAME)?,
            topic(QuoteComputed::NAME)?,
        ];
        // Three digits of any duration from a nanosecond to a minute.
        let calls = Histogram::new_with_bounds(1, 60_000_000_000, 3).map_err(Failure::run)?;
        Ok(Self { topics, calls })
    }

    fn publish(&mut self, kind: Kind, request_id: &str, body: &impl Serialize) {
        let start = Instant::now();
        self.topics[kind as usize].publish_for(request_id, body);
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.calls.saturating_record(nanos);
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    report: &'a Report,
    publish_ns: Percentiles,
    verify: Option<&'a Verdict>,
}

#[derive(Serialize)]
struct Percentiles {
    calls: u64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

fn print(report: &Report, calls: &Calls, verdict: Option<&Verdict>, json: bool) -> Result<()> {
    let at = |quantile| calls.value_at_quantile(quantile);
    let publish_ns = Percentiles {
        calls: calls.len(),
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: calls.max(),
    };
    let summary = Summary { report, publish_ns, verify: verdict };
    if json {
        println!("{}", serde_json::to_string(&summary).map_err(Failure::run)?);
        return Ok(());
    }
    let Percentiles { calls, p50, p90, p99, p999, max } = summary.publish_ns;
    println!(
        "publish  {calls} calls: p50 {p50} ns, p90 {p90} ns, p99 {p99} ns, p99.9 {p999} ns, max {max} ns"
    );
    let balance = serde_json::to_string(report).map_err(Failure::run)?;
    println!("balance  {balance}");
    match verdict {
        Some(verdict) => println!("verify   {}", verify::describe(verdict)),
        None => println!("verify   nothing to read back behind null:"),
    }
    Ok(())
}
