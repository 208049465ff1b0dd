//! The ledger and the worker's measurements, for Prometheus.
//!
//! Counts are not kept twice: at each scrape they are taken from one snapshot of the ledger, so that the law holds between the
//! samples of a scrape. Every child exists from the start, at zero. No label takes values from outside.
//!
//! With partitions all of it is told of the bus as a whole, under the same names: sums, the oldest event of any, and *connected* only
//! while all are, so that an alert on zero hears of each.

mod distribution;
#[cfg(feature = "metrics-endpoint")]
mod endpoint;
mod latency;

pub use distribution::Distribution;
#[cfg(feature = "metrics-endpoint")]
pub use endpoint::MetricsEndpoint;

use crate::bus::Shared;
use crate::ledger::{Dropped, Reason, Stats};
use crate::publisher::engine::Engine;
use crate::publisher::retry::Cause;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use latency::{Latency, Tally};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, CounterVec, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};
use std::sync::{Arc, Weak};
use std::time::Duration;

const NAMESPACE: &str = "event_bus";

/// One publish in so many is timed.
pub(crate) const PUBLISH_SAMPLE: u32 = 1024;

/// What the worker and the hot threads measure while they work.
pub(crate) struct Metrics {
    /// Duration of sampled publish calls.
    pub(crate) publish: Histogram,
    /// From the sending of a message to its acknowledgement.
    ack_latency: AckLatency,
    /// From the publish call to the acknowledgement.
    delivery_latency: DeliveryLatency,
    /// Events that one look at the rings found.
    pub(crate) batch: Histogram,
    retries: IntCounterVec,
    reconnects: IntCounter,
    sent_bytes: IntCounter,
    worker_panics: IntCounter,
    worker_turns: IntCounter,
    high_watermark_bytes: AtomicU64,
    /// Of the log on disk of each partition, if there is one.
    pub(crate) spools: Box<[Arc<SpoolMeter>]>,
}

/// What a log on disk has taken and holds. Its keeper sets it.
#[derive(Debug, Default)]
pub(crate) struct SpoolMeter {
    written: AtomicU64,
    synced: AtomicU64,
    bytes: AtomicU64,
    /// 1 while it cannot be written to.
    failing: AtomicU64,
}

impl SpoolMeter {
    pub(crate) fn set_failing(&self, is_failing: bool) {
        self.failing.store(u64::from(is_failing), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, written: u64, synced: u64, bytes: u64) {
        self.written.store(written, Ordering::Relaxed);
        self.synced.store(synced, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn new(partitions: usize) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, first: f64, factor: f64, buckets: usize| {
            let buckets = prometheus::exponential_buckets(first, factor, buckets)?;
            Histogram::with_opts(HistogramOpts::new(name, help).namespace(NAMESPACE).buckets(buckets))
        };
        let retries = IntCounterVec::new(
            Opts::new("retries_total", "Messages that had to be sent again, by cause.").namespace(NAMESPACE),
            &["cause"],
        )?;
        Cause::ALL.iter().for_each(|cause| drop(retries.with_label_values(&[cause.as_str()])));
        let counter =
            |name: &str, help: &str| IntCounter::with_opts(Opts::new(name, help).namespace(NAMESPACE));
        Ok(Self {
            publish: histogram("publish_seconds", "Duration of sampled publish calls.", 25e-9, 2.0, 20)?,
            ack_latency: Latency::new(
                format!("{NAMESPACE}_ack_latency_seconds"),
                "From sending to acknowledgement.",
            )?,
            delivery_latency: Latency::new(
                format!("{NAMESPACE}_delivery_latency_seconds"),
                "From publish to acknowledgement.",
            )?,
            batch: histogram("batch_events", "Events found by one look at the rings.", 1.0, 2.0, 14)?,
            retries,
            reconnects: counter("reconnects_total", "Connections made after the first one.")?,
            sent_bytes: counter("sent_bytes_total", "Bytes of payload sent, repetitions included.")?,
            worker_panics: counter(
                "worker_panics_total",
                "Panics on a worker's thread, most likely of a subscriber of the log.",
            )?,
            worker_turns: counter(
                "worker_turns_total",
                "Turns of the workers: each time that one looks for something to do.",
            )?,
            high_watermark_bytes: AtomicU64::new(0),
            spools: std::iter::repeat_with(Arc::default).take(partitions).collect(),
        })
    }

    /// Moves what the worker has measured to the histograms.
    pub(crate) fn take_latencies(&self, latencies: &mut Latencies) {
        self.ack_latency.take(&mut latencies.ack);
        self.delivery_latency.take(&mut latencies.delivery);
    }

    pub(crate) fn delivery_latency(&self) -> Distribution {
        self.delivery_latency.distribution()
    }

    pub(crate) fn retried(&self, cause: Cause, messages: u64) {
        self.retries.with_label_values(&[cause.as_str()]).inc_by(messages);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.inc();
    }

    pub(crate) fn worker_panicked(&self) {
        self.worker_panics.inc();
    }

    #[cfg(all(test, not(jetring_loom)))]
    pub(crate) fn turns(&self) -> u64 {
        self.worker_turns.get()
    }

    pub(crate) fn turned(&self) {
        self.worker_turns.inc();
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn saw_queue_bytes(&self, bytes: usize) {
        self.high_watermark_bytes.fetch_max(bytes as u64, Ordering::Relaxed);
    }
}

/// From 50 µs to 26 s.
type AckLatency = Latency<50_000, 20, 1>;
/// From 100 µs to 3.5 minutes, in parts of 3 %.
type DeliveryLatency = Latency<100_000, 22, 32>;

/// What the worker has measured of events since it last moved it to the metrics.
pub(crate) struct Latencies {
    ack: Tally<50_000, 20, 1>,
    delivery: Tally<100_000, 22, 32>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { ack: Tally::new(), delivery: Tally::new() }
    }

    /// An event was acknowledged: so long after it was sent, if it was open, and so many nanoseconds after it was offered.
    #[inline]
    pub(crate) fn add(&mut self, since_sent: Option<Duration>, nanos_since_offer: u64) {
        if let Some(latency) = since_sent {
            self.ack.add(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
        self.delivery.add(nanos_since_offer);
    }
}

/// Registers the metrics of a bus. They end with the bus, not with the registry.
pub(crate) fn register(registry: &Registry, shared: Weak<Shared>) -> Result<(), prometheus::Error> {
    let collector = BusCollector::new(shared)?;
    registry.register(Box::new(collector))
}

struct BusCollector {
    shared: Weak<Shared>,
    descriptions: Vec<Desc>,
}

impl BusCollector {
    fn new(shared: Weak<Shared>) -> Result<Self, prometheus::Error> {
        let mut descriptions: Vec<Desc> =
            Samples::new()?.collectors().iter().flat_map(|c| c.desc()).cloned().collect();
        if let Some(shared) = shared.upgrade() {
            descriptions.extend(shared.metrics.collectors().iter().flat_map(|c| c.desc()).cloned());
        }
        Ok(Self { shared, descriptions })
    }
}

impl Collector for BusCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(shared), Ok(samples)) = (self.shared.upgrade(), Samples::new()) else { return Vec::new() };
        samples.fill(&shared);
        samples.collectors().iter().chain(&shared.metrics.collectors()).flat_map(|c| c.collect()).collect()
    }
}

impl Metrics {
    fn collectors(&self) -> [&dyn Collector; 9] {
        [
            &self.publish,
            &self.ack_latency,
            &self.delivery_latency,
            &self.batch,
            &self.retries,
            &self.reconnects,
            &self.sent_bytes,
            &self.worker_panics,
            &self.worker_turns,
        ]
    }
}

/// The samples of one scrape that come out of the ledger and the rings.
struct Samples {
    offered: Counter,
    acked: Counter,
    dropped: CounterVec,
    indeterminate: Counter,
    legacy_dropped: CounterVec,
    queued_events: IntGauge,
    queue_bytes: IntGauge,
    queue_capacity_bytes: IntGauge,
    queue_high_watermark_bytes: IntGauge,
    in_flight_events: IntGauge,
    spooled_events: IntGauge,
    spool_bytes: IntGauge,
    spool_failing: IntGauge,
    recovered: IntCounter,
    spool_written: IntCounter,
    spool_synced: IntCounter,
    sampled_out: IntCounter,
    over_budget: IntCounter,
    oldest_event_age: Gauge,
    connected: IntGauge,
    engine: IntGaugeVec,
}

impl Samples {
    fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(NAMESPACE);
        let counter = |name, help| Counter::with_opts(opts(name, help));
        let by_reason = |name, help| CounterVec::new(opts(name, help), &["reason"]);
        let gauge = |name, help| IntGauge::with_opts(opts(name, help));
        let whole = |name, help| IntCounter::with_opts(opts(name, help));
        Ok(Self {
            offered: counter("offered_events_total", "Events handed to publish.")?,
            acked: counter("acked_events_total", "Events that the server acknowledged.")?,
            dropped: by_reason("dropped_events_total", "Events dropped, by reason.")?,
            indeterminate: counter(
                "indeterminate_events_total",
                "Events sent whose fate the server never told.",
            )?,
            legacy_dropped: by_reason(
                "dropped_events",
                "Events dropped, by the stage names of the original event bus.",
            )?,
            queued_events: gauge("queued_events", "Events in the rings.")?,
            queue_bytes: gauge("queue_bytes", "Bytes used in the rings.")?,
            queue_capacity_bytes: gauge("queue_capacity_bytes", "Bytes that the rings can hold.")?,
            queue_high_watermark_bytes: gauge(
                "queue_high_watermark_bytes",
                "Most bytes used since the last scrape.",
            )?,
            in_flight_events: gauge(
                "in_flight_events",
                "Events taken by the worker whose fate is not known yet.",
            )?,
            spooled_events: gauge("spooled_events", "Events in the spool.")?,
            spool_bytes: gauge("spool_bytes", "Bytes of the log on disk.")?,
            spool_failing: gauge("spool_failing", "1 while the log on disk cannot be written.")?,
            recovered: whole(
                "recovered_events_total",
                "Events that an earlier process had left in the spool.",
            )?,
            spool_written: whole("spool_written_messages_total", "Messages written to the log on disk.")?,
            spool_synced: whole(
                "spool_synced_messages_total",
                "Messages of these that a failure of the power leaves.",
            )?,
            sampled_out: whole(
                "sampled_out_events_total",
                "Events left out because of the sample of their names; not offered.",
            )?,
            over_budget: whole(
                "over_budget_events_total",
                "Of the events dropped as queue_full, those above the share or the rate of their names.",
            )?,
            oldest_event_age: Gauge::with_opts(opts(
                "oldest_event_age_seconds",
                "Age of the oldest event in flight.",
            ))?,
            connected: gauge("connected", "1 while connected to a server.")?,
            engine: IntGaugeVec::new(
                opts(
                    "engine",
                    "1 for the way in which events are sent; 0 for all until a stream was looked for.",
                ),
                &["engine"],
            )?,
        })
    }

    fn fill(&self, shared: &Shared) {
        let stats: Stats = shared.stats();
        self.offered.inc_by(stats.offered as f64);
        self.acked.inc_by(stats.acked as f64);
        self.indeterminate.inc_by(stats.indeterminate as f64);
        for (reason, events) in stats.dropped.iter() {
            self.dropped.with_label_values(&[reason.as_str()]).inc_by(events as f64);
        }
        for (stage, events) in legacy(&stats.dropped) {
            self.legacy_dropped.with_label_values(&[stage]).inc_by(events as f64);
        }
        let (used, metrics) = (shared.lanes.used_bytes() as u64, &shared.metrics);
        self.queued_events.set(stats.queued as i64);
        self.queue_bytes.set(used as i64);
        self.queue_capacity_bytes.set(shared.lanes.capacity_bytes() as i64);
        let peak = metrics.high_watermark_bytes.swap(used, Ordering::Relaxed).max(used);
        self.queue_high_watermark_bytes.set(peak as i64);
        self.in_flight_events.set(stats.in_flight as i64);
        self.spooled_events.set(stats.spooled as i64);
        let sum = |value: fn(&SpoolMeter) -> &AtomicU64| {
            metrics.spools.iter().map(|spool| value(spool).load(Ordering::Relaxed)).sum::<u64>()
        };
        self.spool_bytes.set(sum(|spool| &spool.bytes) as i64);
        self.spool_failing.set(i64::from(sum(|spool| &spool.failing) > 0));
        self.spool_synced.inc_by(sum(|spool| &spool.synced));
        self.spool_written.inc_by(sum(|spool| &spool.written));
        self.recovered.inc_by(stats.recovered);
        self.sampled_out.inc_by(stats.sampled_out);
        self.over_budget.inc_by(shared.budgets.over_budget());
        self.oldest_event_age.set(shared.oldest_offered().map_or(0.0, age_seconds));
        self.connected.set(i64::from(shared.is_connected()));
        for engine in [Engine::Async, Engine::Fast] {
            let is_used = stats.engine == Some(engine);
            self.engine.with_label_values(&[engine.as_str()]).set(i64::from(is_used));
        }
    }

    fn collectors(&self) -> [&dyn Collector; 21] {
        [
            &self.offered,
            &self.acked,
            &self.dropped,
            &self.indeterminate,
            &self.legacy_dropped,
            &self.queued_events,
            &self.queue_bytes,
            &self.queue_capacity_bytes,
            &self.queue_high_watermark_bytes,
            &self.in_flight_events,
            &self.spooled_events,
            &self.spool_bytes,
            &self.spool_failing,
            &self.recovered,
            &self.spool_written,
            &self.spool_synced,
            &self.sampled_out,
            &self.over_budget,
            &self.oldest_event_age,
            &self.connected,
            &self.engine,
        ]
    }
}

fn age_seconds(offered: u64) -> f64 {
    Duration::from_nanos(crate::clock::Timestamp::now().0.saturating_sub(offered)).as_secs_f64()
}

/// The four stages at which the original event bus counted its drops.
fn legacy(dropped: &Dropped) -> [(&'static str, u64); 4] {
    let sum = |reasons: &[Reason]| reasons.iter().map(|&reason| dropped.get(reason)).sum();
    [
        (
            "channel_full",
            sum(&[
                Reason::QueueFull,
                Reason::Contended,
                Reason::NotInitialized,
                Reason::Closed,
                Reason::SpoolFull,
            ]),
        ),
        ("serialize", sum(&[Reason::Serialize])),
        ("publish", sum(&[Reason::TooLarge, Reason::Permission])),
        ("ack", sum(&[Reason::Rejected, Reason::NoStream, Reason::Expired])),
    ]
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_legacy_counter_counts_every_drop_exactly_once() {
        let mut dropped = Dropped::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            dropped.add(reason, 1 << index);
        }
        assert_eq!(legacy(&dropped).iter().map(|(_, events)| events).sum::<u64>(), dropped.total());
    }
}
