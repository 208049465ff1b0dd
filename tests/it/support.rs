//! What the tests share: a load that knows what it offered, and the proof that it was all accounted for.
//!
//! ```text
//!   Load: hot threads ──► Bus ──► (Proxy) ──► NatsServer
//!     │ what they saw      │ its report          │ what is stored
//!     └────────────────────┴──── prove ──────────┘
//! ```
//!
//! [`prove`] is the whole of what this crate promises about delivery. It compares three accounts that were kept by different hands:
//! the publishing threads count the answers to their own calls, the bus has its ledger, and the stream holds what it
//! holds. A test only makes the trouble; it does not choose what to check.
//!
//! Nothing here sleeps in order to wait. A load is paced, since its rate is its meaning, and a test that wants time to pass waits
//! until the load has offered what it offers in that time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jetring::audit::{Audit, Verdict};
use jetring::envelope::Envelope;
use jetring::report::{GAP, Gap, STARTED, STOPPED, Started, Stopped};
use jetring::{Bus, Config, Offer, Reason, Report, Rings};
use nix::sys::resource::{UsageWho, getrusage};
use prometheus::Registry;
use prometheus::proto::MetricFamily;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::server::{NatsServer, PATIENCE, create_stream, messages, stream_config, wait_at_most, wait_until};

/// A server that is not there: port 1 of this machine refuses every connection.
pub(crate) const NO_SERVER: &str = "nats://127.0.0.1:1";

/// The stream of every test, and the subjects that it takes.
pub(crate) const STREAM: &str = "main";
pub(crate) const SUBJECTS: &str = "event.1.>";

/// The name that a load publishes under, and its subject.
pub(crate) const LOAD: &str = "load";

/// What a close may take after an outage: twice the longest pause between two tries, and time to send what has gathered.
pub(crate) const CLOSE: Duration = PATIENCE;

/// What a close gets that is not going to deliver everything.
pub(crate) const SOON: Duration = Duration::from_millis(500);

/// No call of a publish waits for something and takes longer, whatever happens. It is no claim about speed: a thread that waited for the
/// server would wait for all of an outage, and those of the tests are longer than this. A busy machine may keep a thread from its processor
/// for longer, so calls count only in which the thread gave the processor away by itself.
const CALL_MAX: Duration = Duration::from_secs(1);

/// The usual configuration for the server at `url`.
pub(crate) fn config(url: &str) -> Config {
    Config::new(url, STREAM, 1).expect("the server's url and our names are valid")
}

/// A bus on the usual configuration with some change.
pub(crate) fn bus_with(url: &str, change: impl FnOnce(&mut Config)) -> Bus {
    let mut config = config(url);
    change(&mut config);
    Bus::start(config).expect("the configuration is valid")
}

pub(crate) fn bus(url: &str) -> Bus {
    bus_with(url, |_| {})
}

/// A server with the usual stream.
pub(crate) fn server_with_stream() -> NatsServer {
    let server = NatsServer::start();
    make_stream(&server.url());
    server
}

pub(crate) fn make_stream(url: &str) {
    ask(create_stream(url, stream_config(STREAM, &[SUBJECTS])));
}

/// Runs what a test itself asks of the server.
pub(crate) fn ask<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime").block_on(question)
}

/// The body of the events whose delivery is proved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) thread: u64,
    pub(crate) number: u64,
    pub(crate) text: String,
}

impl Numbered {
    /// An event of about 200 bytes on the wire.
    pub(crate) fn new(thread: u64, number: u64) -> Self {
        Self { thread, number, text: format!("{number:064}") }
    }

    pub(crate) fn with_text(number: u64, bytes: usize) -> Self {
        Self { thread: 0, number, text: "x".repeat(bytes) }
    }
}

/// What publishing threads saw of their own calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) sampled_out: u64,
    pub(crate) dropped: BTreeMap<Reason, u64>,
    /// Of a call that waited for something.
    pub(crate) longest: Duration,
}

/// How often this thread gave its processor away by itself, as one does who waits.
fn waits() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).expect("the system counts").voluntary_context_switches()
}

impl Seen {
    /// Makes one call and keeps its answer.
    pub(crate) fn call(&mut self, publish: impl FnOnce() -> Offer) -> Offer {
        let (start, waits) = (Instant::now(), waits());
        let offer = publish();
        if self::waits() > waits {
            self.longest = self.longest.max(start.elapsed());
        }
        match offer {
            Offer::Accepted => self.accepted += 1,
            Offer::Dropped(reason) => *self.dropped.entry(reason).or_default() += 1,
            // It was not to be delivered, so nobody has to account for it.
            Offer::SampledOut => self.sampled_out += 1,
        }
        self.offered += u64::from(offer != Offer::SampledOut);
        offer
    }

    /// Publishes events numbered by `numbers` from this thread, without a pause.
    pub(crate) fn publish(&mut self, bus: &Bus, name: &str, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.call(|| bus.publish(name, &Numbered::new(0, number)));
        }
    }

    pub(crate) fn dropped(&self, reason: Reason) -> u64 {
        self.dropped.get(&reason).copied().unwrap_or(0)
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.sampled_out += other.sampled_out;
        self.longest = self.longest.max(other.longest);
        other
            .dropped
            .into_iter()
            .for_each(|(reason, events)| *self.dropped.entry(reason).or_default() += events);
        self
    }
}

/// Hot threads that publish numbered events at a steady rate until they are told to stop.
#[must_use = "its threads are counted by `stop`"]
pub(crate) struct Load {
    bus: Bus,
    stop: Arc<AtomicBool>,
    offered: Arc<AtomicU64>,
    per_second: u64,
    threads: Vec<JoinHandle<Seen>>,
}

impl Load {
    /// The usual load: light enough for two cores that also run a server, dense enough that any trouble hits events in
    /// every state.
    pub(crate) fn on(bus: &Bus) -> Self {
        Self::start(bus, 3, 500)
    }

    /// A load of so many threads, each with so many events a second.
    pub(crate) fn start(bus: &Bus, threads: u64, per_second: u64) -> Self {
        let (stop, offered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |thread| {
            let (bus, stop, offered) = (bus.clone(), Arc::clone(&stop), Arc::clone(&offered));
            thread::spawn(move || run_paced(&bus, thread, per_second, &stop, &offered))
        };
        let threads: Vec<_> = (0..threads).map(run).collect();
        let per_second = per_second * threads.len() as u64;
        Self { bus: bus.clone(), stop, offered, per_second, threads }
    }

    /// Lets `time` pass, measured in events. The law must hold at every look.
    #[track_caller]
    pub(crate) fn goes_on_for(&self, time: Duration) {
        let events = (self.per_second as f64 * time.as_secs_f64()) as u64;
        let until = self.offered.load(Ordering::Relaxed) + events;
        wait_at_most(PATIENCE + time, "the load has gone on for a while", || {
            assert_eq!(self.bus.stats().check(), Ok(()));
            self.offered.load(Ordering::Relaxed) >= until
        });
    }

    /// Waits until the server has acknowledged events that are offered from now on.
    #[track_caller]
    pub(crate) fn flows_again(&self) {
        self.recovers(PATIENCE);
    }

    /// After a trouble is gone: how long until something is acknowledged again, and until what is offered from now on is.
    /// `limit` bounds the whole.
    #[track_caller]
    pub(crate) fn recovers(&self, limit: Duration) -> [Duration; 2] {
        let (healed, acked) = (Instant::now(), self.bus.stats().acked);
        let offered = self.offered.load(Ordering::Relaxed);
        wait_at_most(limit, "events are acknowledged again", || self.bus.stats().acked > acked);
        let first = healed.elapsed();
        let left = limit.saturating_sub(first);
        wait_at_most(left, "what has gathered is acknowledged", || self.settled() > offered);
        [first, healed.elapsed()]
    }

    /// Events that have met their fate. The law must hold at every look.
    #[track_caller]
    fn settled(&self) -> u64 {
        let stats = self.bus.stats();
        assert_eq!(stats.check(), Ok(()));
        stats.acked + stats.dropped.total() + stats.indeterminate
    }

    /// Ends the threads.
    pub(crate) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.threads.into_iter().map(|thread| thread.join().expect("publishing does not panic"));
        seen.fold(Seen::default(), Seen::merge)
    }

    /// Ends the threads, then the bus, and proves the whole run.
    pub(crate) fn close_and_prove(self, url: &str) -> (Report, Proof) {
        let bus = self.bus.clone();
        let seen = self.stop();
        let report = bus.close(CLOSE);
        let proof = prove(url, &bus, &report, &seen);
        (report, proof)
    }
}

fn run_paced(bus: &Bus, thread: u64, per_second: u64, stop: &AtomicBool, offered: &AtomicU64) -> Seen {
    let (start, pause) =
        (Instant::now(), Duration::from_secs(1) / u32::try_from(per_second).expect("a small rate"));
    let topic = bus.topic(LOAD).expect("the name is valid");
    let mut seen = Seen::default();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let event = Numbered::new(thread, number);
        seen.call(|| topic.publish(&event));
        offered.fetch_add(1, Ordering::Relaxed);
        // The rate, not a wait for anything: who is late goes on at once.
        let due = pause.mul_f64(seen.offered as f64);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    seen
}

/// A small queue before a small window, so that a few hundred events fill both.
pub(crate) fn small(config: &mut Config) {
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 4 << 10;
    config.queue.rings = Rings::Count(NonZeroUsize::MIN);
    config.delivery.max_in_flight = 16;
}

/// Publishes to a [`small`] bus without a server until nothing more fits: the window is full, and the ring behind it.
#[track_caller]
pub(crate) fn fill(bus: &Bus, seen: &mut Seen) {
    // The report that the bus has started has a place in the window, and is no event.
    const WINDOW: u64 = 15;
    wait_until("window and ring are full", || {
        let window_is_full = bus.stats().in_flight == WINDOW;
        let mut accepted = true;
        while accepted {
            let event = Numbered::new(0, seen.offered);
            accepted = seen.call(|| bus.publish(LOAD, &event)).is_accepted();
        }
        window_is_full
    });
}

/// A queue and a window with room for a [`flood`].
pub(crate) fn wide(config: &mut Config) {
    config.queue.capacity = 64 << 20;
    config.queue.rings = Rings::Count(NonZeroUsize::MIN);
    config.delivery.max_in_flight = 16_384;
    config.delivery.max_in_flight_bytes = 64 << 20;
}

/// Freezes the server and publishes to a [`wide`] bus more than both ends of the socket and the client's own queue can
/// hold. Everything is accepted.
#[track_caller]
pub(crate) fn flood(server: &NatsServer, bus: &Bus, seen: &mut Seen) {
    /// Times 8 KiB: 32 MiB, where Linux gives the socket some 10.
    const EVENTS: u64 = 4_000;
    // The window opens by one with each acknowledgement.
    seen.publish(bus, LOAD, 0..EVENTS);
    assert!(bus.flush(CLOSE).complete);
    server.pause();
    for number in EVENTS..2 * EVENTS {
        seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, 8 << 10)));
    }
    assert_eq!(seen.accepted, 2 * EVENTS);
    assert!(!bus.flush(SOON).complete, "the server is frozen");
}

/// One scrape of a bus.
pub(crate) struct Scrape(Vec<MetricFamily>);

impl Scrape {
    pub(crate) fn of(bus: &Bus) -> Self {
        let registry = Registry::new();
        bus.register(&registry).expect("the registry is empty");
        Self(registry.gather())
    }

    /// The samples of a metric, each with the value of its label if it has one. A histogram's is its count.
    #[track_caller]
    pub(crate) fn samples(&self, name: &str) -> Vec<(String, f64)> {
        let family =
            self.0.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
        let value = |metric: &prometheus::proto::Metric| {
            let count = metric.get_histogram().get_sample_count() as f64;
            metric.get_counter().get_value() + metric.get_gauge().get_value() + count
        };
        let label = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().map(|label| label.value().to_owned()).collect()
        };
        family.get_metric().iter().map(|metric| (label(metric), value(metric))).collect()
    }

    /// The sum of a metric's samples.
    #[track_caller]
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.samples(name).iter().map(|(_, value)| value).sum()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(MetricFamily::name).collect()
    }
}

/// What the stream was found to hold of one bus.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) verdict: Verdict,
    /// The events, in the order of the stream.
    pub(crate) events: Vec<(String, Numbered)>,
    /// The last tokens of the subjects of all messages, in the order of the stream.
    pub(crate) names: Vec<String>,
    pub(crate) started: Option<Started>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) stopped: Option<Stopped>,
}

/// Proves a run after its bus was closed: the ledger balances, agrees with what the threads saw, and the stream agrees with it.
#[track_caller]
pub(crate) fn prove(url: &str, bus: &Bus, report: &Report, seen: &Seen) -> Proof {
    prove_messages(&ask(messages(url, STREAM)), bus.process(), report, seen)
}

/// As [`prove`], for messages that the test has read itself, of the bus whose producers' names begin with `process`.
#[track_caller]
pub(crate) fn prove_messages(
    messages: &[(u64, String, Vec<u8>)],
    process: &str,
    report: &Report,
    seen: &Seen,
) -> Proof {
    let proof = read(messages, process);
    prove_ledger(report, seen);
    prove_stream(&proof, report);
    prove_numbers(&proof, report);
    proof
}

/// The ledger against its law, and against what the threads saw.
#[track_caller]
pub(crate) fn prove_ledger(report: &Report, seen: &Seen) {
    let stats = &report.stats;
    assert_eq!(stats.check(), Ok(()));
    assert_eq!(stats.offered, seen.offered, "events offered, by the ledger and by the threads");
    assert_eq!(stats.sampled_out, seen.sampled_out, "events sampled out, by the bus and by the threads");
    assert_eq!(stats.held(), 0, "after a close every event has met its fate: {stats:?}");
    for reason in Reason::ALL {
        let (told, counted) = (seen.dropped(reason), stats.dropped.get(reason));
        let only_at_the_door =
            matches!(reason, Reason::QueueFull | Reason::Contended | Reason::Closed | Reason::NotInitialized);
        assert!(counted >= told, "{reason}: the threads were told {told} times, the ledger has {counted}");
        assert!(!only_at_the_door || counted == told, "{reason}: {counted} in the ledger, {told} told");
    }
    let refused: u64 = seen.dropped.values().sum();
    let behind_the_door = stats.dropped.total() - refused;
    assert_eq!(
        stats.acked + stats.indeterminate + behind_the_door,
        seen.accepted,
        "the fates of accepted events"
    );
    assert!(seen.longest < CALL_MAX, "a publish took {:?}: it has waited for something", seen.longest);
}

/// The stream against the ledger, by what stands in the bodies: nothing of the library's own stamps is believed.
#[track_caller]
fn prove_stream(proof: &Proof, report: &Report) {
    let stats = &report.stats;
    let stored = proof.events.len() as u64;
    let allowed = stats.acked..=stats.acked + stats.indeterminate;
    assert!(allowed.contains(&stored), "{stored} events are stored; by the ledger it should be {allowed:?}");
    let distinct: HashSet<_> = proof.events.iter().map(|(_, event)| (event.thread, event.number)).collect();
    assert_eq!(distinct.len(), proof.events.len(), "some events are stored twice");
    let mut last = HashMap::new();
    for (_, event) in &proof.events {
        let before = last.insert(event.thread, event.number);
        assert!(
            before.is_none_or(|before| before < event.number),
            "{event:?} stands behind number {before:?}"
        );
    }
}

/// The stamps and gap reports, as the audit of a reader sees them.
#[track_caller]
fn prove_numbers(proof: &Proof, report: &Report) {
    let (verdict, stats) = (&proof.verdict, &report.stats);
    assert_eq!((verdict.duplicates, verdict.reordered), (0, 0), "{verdict:?}");
    assert_eq!(verdict.delivered, proof.events.len() as u64, "{verdict:?}");
    if stats.indeterminate > 0 {
        return;
    }
    assert_eq!(verdict.lost_undeclared, 0, "{verdict:?}, of {stats:?}; gaps: {:?}", proof.gaps);
    assert_eq!(verdict.delivered, stats.acked, "{verdict:?}");
    if let Some(stopped) = &proof.stopped {
        assert_eq!(verdict.lost_declared, stats.dropped.total(), "every loss is published: {verdict:?}");
        let said = &stopped.ledger;
        assert_eq!((said.offered, said.acked, said.dropped), (stats.offered, stats.acked, stats.dropped));
    }
}

fn read(messages: &[(u64, String, Vec<u8>)], process: &str) -> Proof {
    let mut audit = Audit::of_process(process);
    let (mut events, mut names, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut started, mut stopped) = (None, None);
    for (sequence, subject, payload) in messages {
        let envelope = Envelope::parse(payload).unwrap_or_else(|error| panic!("message {sequence}: {error}"));
        let is_ours = envelope.producer.as_ref().is_some_and(|producer| producer.starts_with(process));
        if !is_ours {
            continue;
        }
        audit.observe(payload);
        let name = subject.strip_prefix("event.1.").expect("every subject has our prefix");
        names.push(name.to_owned());
        let body = envelope.body.get();
        match name {
            STARTED => started = Some(body_of(body)),
            STOPPED => stopped = Some(body_of(body)),
            GAP => gaps.push(body_of(body)),
            _ => events.push((name.to_owned(), body_of(body))),
        }
    }
    Proof { verdict: audit.verdict(), events, names, started, gaps, stopped }
}

fn body_of<T: DeserializeOwned>(body: &str) -> T {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}
