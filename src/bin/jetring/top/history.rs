//! What changed between the scrapes, and for how long back it is shown.

use super::reading::Reading;
use std::collections::VecDeque;
use std::time::Instant;

/// Points of a curve that are kept; more than a terminal is wide.
const POINTS_MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(Instant, Reading)>,
    /// Why there is nothing new, if the last scrape failed.
    pub(super) problem: Option<String>,
    /// How often the process was found to have started anew.
    pub(super) restarts: u64,
    pub(super) rates: Rates,
    /// Acknowledged events a second.
    pub(super) acked: Curve,
    /// The 99th percentile of the time to the acknowledgement, in microseconds.
    pub(super) ack_latency: Curve,
}

/// Each a second, since the scrape before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) offered: f64,
    pub(super) acked: f64,
    pub(super) dropped: f64,
    pub(super) indeterminate: f64,
    pub(super) retries: f64,
    pub(super) reconnects: f64,
    pub(super) sent_bytes: f64,
    /// Median and 99th percentile of the time to the acknowledgement, in seconds; none if nothing was acknowledged.
    pub(super) ack_latency: Option<(f64, f64)>,
}

#[derive(Debug, Default)]
pub(super) struct Curve(VecDeque<u64>);

impl Curve {
    fn push(&mut self, value: f64) {
        if self.0.len() == POINTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(value as u64);
    }

    /// The last so many points, oldest first.
    pub(super) fn tail(&self, points: usize) -> Vec<u64> {
        let skipped = self.0.len().saturating_sub(points);
        self.0.iter().skip(skipped).copied().collect()
    }
}

impl History {
    pub(super) fn reading(&self) -> Option<&Reading> {
        self.last.as_ref().map(|(_, reading)| reading)
    }

    pub(super) fn add(&mut self, at: Instant, read: Result<Reading, String>) {
        let reading = match read {
            Ok(reading) => reading,
            Err(problem) => {
                self.problem = Some(problem);
                self.rates = Rates::default();
                return;
            }
        };
        self.problem = None;
        if let Some((before_at, before)) = self.last.take() {
            if reading.balance.ledger.offered < before.balance.ledger.offered {
                // Counters never fall but with a new process.
                self.restarts += 1;
                self.rates = Rates::default();
            } else {
                self.rates = Rates::between(&before, &reading, (at - before_at).as_secs_f64());
            }
            self.acked.push(self.rates.acked);
            self.ack_latency.push(self.rates.ack_latency.map_or(0.0, |(_, p99)| p99 * 1e6));
        }
        self.last = Some((at, reading));
    }
}

impl Rates {
    fn between(before: &Reading, after: &Reading, seconds: f64) -> Self {
        let (old, new) = (&before.balance.ledger, &after.balance.ledger);
        let a_second = |before: f64, after: f64| (after - before).max(0.0) / seconds.max(1e-3);
        let events = |before: u64, after: u64| a_second(before as f64, after as f64);
        let latency = after.ack_latency.since(&before.ack_latency);
        Self {
            offered: events(old.offered, new.offered),
            acked: events(old.acked, new.acked),
            dropped: events(old.dropped.total(), new.dropped.total()),
            indeterminate: events(old.indeterminate, new.indeterminate),
            retries: a_second(before.retries, after.retries),
            reconnects: a_second(before.reconnects, after.reconnects),
            sent_bytes: a_second(before.sent_bytes, after.sent_bytes),
            ack_latency: latency.quantile(0.5).zip(latency.quantile(0.99)),
        }
    }
}
