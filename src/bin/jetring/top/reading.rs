//! What one scrape says, as far as `top` shows it.

use crate::scrape::Scrape;
use crate::stats;

#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The ledger and the state of the connection.
    pub(super) balance: stats::Reading,
    pub(super) queue_bytes: f64,
    pub(super) queue_capacity_bytes: f64,
    /// The most since the last scrape, by whomever.
    pub(super) queue_peak_bytes: f64,
    pub(super) spool_bytes: f64,
    pub(super) oldest_event_seconds: f64,
    pub(super) retries: f64,
    pub(super) reconnects: f64,
    pub(super) sent_bytes: f64,
    pub(super) ack_latency: Buckets,
}

impl Reading {
    /// Only what no bus is without must be there: an older version of the crate may lack the rest.
    pub(super) fn of(scrape: &Scrape) -> Result<Self, String> {
        let sum = |name| scrape.samples(name).map(|sample| sample.value).sum();
        let oldest = scrape.samples("event_bus_oldest_event_age_seconds").map(|sample| sample.value);
        Ok(Self {
            balance: stats::Reading::of(scrape)?,
            queue_bytes: sum("event_bus_queue_bytes"),
            queue_capacity_bytes: sum("event_bus_queue_capacity_bytes"),
            queue_peak_bytes: sum("event_bus_queue_high_watermark_bytes"),
            spool_bytes: sum("event_bus_spool_bytes"),
            oldest_event_seconds: oldest.fold(0.0, f64::max),
            retries: sum("event_bus_retries_total"),
            reconnects: sum("event_bus_reconnects_total"),
            sent_bytes: sum("event_bus_sent_bytes_total"),
            ack_latency: Buckets::of(scrape, "event_bus_ack_latency_seconds_bucket"),
        })
    }
}

/// A histogram as Prometheus has it: how many were at most so large, by rising limits.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn of(scrape: &Scrape, name: &str) -> Self {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in scrape.samples(name) {
            let Some(limit) = sample.label("le").and_then(|le| le.parse::<f64>().ok()) else { continue };
            match buckets.iter_mut().find(|(known, _)| *known == limit) {
                Some((_, count)) => *count += sample.value,
                None => buckets.push((limit, sample.value)),
            }
        }
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Self(buckets)
    }

    /// What came since `before`; all of it if they are not of the same histogram.
    pub(super) fn since(&self, before: &Self) -> Self {
        let is_same = self.0.len() == before.0.len();
        let earlier = |at: usize| if is_same { before.0[at].1 } else { 0.0 };
        let buckets = self.0.iter().enumerate();
        Self(buckets.map(|(at, (limit, count))| (*limit, (count - earlier(at)).max(0.0))).collect())
    }

    /// The value that this part of all is at most; between the limits of a bucket by proportion, as PromQL's `histogram_quantile` does it.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        let rank = part * total;
        let (mut below, mut counted) = (0.0, 0.0);
        for &(limit, count) in &self.0 {
            if count >= rank {
                // Past the last limit there is nothing to go by.
                let share = if count > counted { (rank - counted) / (count - counted) } else { 1.0 };
                return Some(if limit.is_infinite() { below } else { below + (limit - below) * share });
            }
            (below, counted) = (limit, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn buckets(counts: [f64; 4]) -> Buckets {
        Buckets([0.1, 0.2, 0.4, f64::INFINITY].into_iter().zip(counts).collect())
    }

    #[test]
    fn a_quantile_lies_in_its_bucket_by_proportion() {
        let all = buckets([0.0, 50.0, 100.0, 100.0]);
        assert_eq!(all.quantile(0.5), Some(0.2));
        assert!((all.quantile(0.75).unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(buckets([10.0; 4]).quantile(0.5), Some(0.05));
        assert_eq!(
            buckets([0.0, 0.0, 0.0, 5.0]).quantile(0.99),
            Some(0.4),
            "what is past the last limit is at least that"
        );
        assert_eq!(buckets([0.0; 4]).quantile(0.5), None);
        assert_eq!(Buckets::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_between_two_scrapes_is_told_from_what_was_there() {
        let (before, after) = (buckets([10.0, 10.0, 10.0, 10.0]), buckets([10.0, 10.0, 30.0, 30.0]));
        assert_eq!(after.since(&before), buckets([0.0, 0.0, 20.0, 20.0]));
        assert_eq!(after.since(&Buckets::default()), after);
    }

    #[test]
    fn several_buses_are_added_up_and_their_oldest_event_is_shown() {
        let one = |bus: &str, age: f64| {
            let names =
                ["offered_events_total", "acked_events_total", "indeterminate_events_total", "queued_events"];
            let more = ["in_flight_events", "spooled_events", "connected", "queue_bytes"];
            let plain =
                names.iter().chain(&more).map(|name| format!("event_bus_{name}{{bus=\"{bus}\"}} 1\n"));
            let dropped = format!("event_bus_dropped_events_total{{bus=\"{bus}\",reason=\"closed\"}} 0\n");
            let age = format!("event_bus_oldest_event_age_seconds{{bus=\"{bus}\"}} {age}\n");
            let bucket = format!("event_bus_ack_latency_seconds_bucket{{bus=\"{bus}\",le=\"0.1\"}} 3\n");
            plain.chain([dropped, age, bucket]).collect::<String>()
        };
        let scrape = Scrape::parse(&(one("a", 0.5) + &one("b", 2.5))).unwrap();
        let reading = Reading::of(&scrape).unwrap();
        assert_eq!((reading.balance.ledger.offered, reading.queue_bytes), (2, 2.0));
        assert_eq!(reading.oldest_event_seconds, 2.5);
        assert_eq!(reading.ack_latency, Buckets(vec![(0.1, 6.0)]));
    }
}
