//! Histograms of durations that the worker fills, twice for each event.
//!
//! An observation in a histogram of the prometheus crate is a search for the bucket in floating point and four atomic operations.
//! Here the worker adds whole nanoseconds to a tally of its own, finds the bucket by one division, since the bounds double,
//! and adds the tally to the shared one once a turn, by atomic additions: a lock would make it wait for a scraper that the operating
//! system has stopped. What a scrape sees is what a histogram of the crate would say. Of the turn that ends at that moment it may see a part,
//! but the count is always that of the buckets.
//!
//! Bounds that double are what a dashboard wants and too coarse for a percentile. So a bucket may be divided into equal parts, which
//! a scrape adds up again and a [`Distribution`] shows: 32 parts make a bucket's upper end at most 1/32 more than any
//! duration in it. Finding the part is a shift more.

use super::distribution::Distribution;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use prometheus::core::{Atomic, AtomicF64};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use std::collections::HashMap;
use std::time::Duration;

/// A histogram whose `BUCKETS` bounds double, from `FIRST` nanoseconds on; each bucket has `PARTS`, a power of two.
pub(crate) struct Latency<const FIRST: u64, const BUCKETS: usize, const PARTS: usize> {
    description: Desc,
    total: Total<BUCKETS, PARTS>,
}

/// Durations that were not moved to a [`Latency`] yet.
#[derive(Debug)]
pub(crate) struct Tally<const FIRST: u64, const BUCKETS: usize, const PARTS: usize> {
    counts: [[u64; PARTS]; BUCKETS],
    /// A bit for each bucket that is not empty, so that a turn moves only those. `BUCKETS` is at most 32.
    touched: u32,
    /// Durations above the last bound.
    above: u64,
    nanos: u64,
}

/// Workers add to it, and scrapers read it. All accesses are relaxed: nothing else is read through it.
struct Total<const BUCKETS: usize, const PARTS: usize> {
    counts: [[AtomicU64; PARTS]; BUCKETS],
    above: AtomicU64,
    seconds: AtomicF64,
}

impl<const BUCKETS: usize, const PARTS: usize> Total<BUCKETS, PARTS> {
    fn new() -> Self {
        Self {
            counts: [const { [const { AtomicU64::new(0) }; PARTS] }; BUCKETS],
            above: AtomicU64::new(0),
            seconds: AtomicF64::new(0.0),
        }
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// More than any duration that has a bucket, and little enough to be multiplied by the number of parts.
const NANOS_MAX: u64 = 1 << 50;

impl<const FIRST: u64, const BUCKETS: usize, const PARTS: usize> Tally<FIRST, BUCKETS, PARTS> {
    pub(crate) fn new() -> Self {
        const { assert!(PARTS.is_power_of_two() && PARTS <= 1 << 10 && BUCKETS <= 32) };
        Self { counts: [[0; PARTS]; BUCKETS], touched: 0, above: 0, nanos: 0 }
    }

    #[inline]
    pub(crate) fn add(&mut self, nanos: u64) {
        // In parts of the first bucket. A bound belongs to the bucket and the part that it ends.
        let parts = nanos.saturating_sub(1).min(NANOS_MAX) * PARTS as u64 / FIRST;
        // How often the first bound has to be doubled until it is not below.
        let doublings = u64::BITS - (parts / PARTS as u64).leading_zeros();
        // A part of bucket n is as wide as 2^(n - 1) of the first's, and the bucket begins at as many of its own parts as it has.
        let part = (parts >> doublings.saturating_sub(1)) as usize % PARTS;
        match self.counts.get_mut(doublings as usize) {
            Some(bucket) => {
                bucket[part] += 1;
                self.touched |= 1 << doublings;
            }
            None => self.above += 1,
        }
        self.nanos = self.nanos.saturating_add(nanos);
    }

    /// Moves everything into a total.
    fn move_to(&mut self, total: &Total<BUCKETS, PARTS>) {
        while self.touched != 0 {
            let bucket = self.touched.trailing_zeros() as usize;
            self.touched &= self.touched - 1;
            let counts = std::mem::replace(&mut self.counts[bucket], [0; PARTS]);
            for (total, count) in total.counts[bucket].iter().zip(counts).filter(|&(_, count)| count > 0) {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
        if self.nanos > 0 {
            total.above.fetch_add(std::mem::take(&mut self.above), Ordering::Relaxed);
            total.seconds.inc_by(Duration::from_nanos(std::mem::take(&mut self.nanos)).as_secs_f64());
        }
    }
}

impl<const FIRST: u64, const BUCKETS: usize, const PARTS: usize> Latency<FIRST, BUCKETS, PARTS> {
    pub(crate) fn new(name: String, help: &str) -> Result<Self, prometheus::Error> {
        let description = Desc::new(name, help.to_owned(), Vec::new(), HashMap::new())?;
        Ok(Self { description, total: Total::new() })
    }

    /// Moves what is in the tally here.
    pub(crate) fn take(&self, tally: &mut Tally<FIRST, BUCKETS, PARTS>) {
        tally.move_to(&self.total);
    }

    /// All parts of all buckets.
    pub(crate) fn distribution(&self) -> Distribution {
        let buckets = (0..).zip(&self.total.counts).flat_map(|(doublings, counts)| {
            (1..)
                .zip(counts)
                .map(move |(part, count)| (part_bound::<FIRST, PARTS>(doublings, part), read(count)))
        });
        Distribution::new(buckets.collect(), read(&self.total.above))
    }

    fn histogram(&self) -> Histogram {
        let total = &self.total;
        let mut count = 0;
        let buckets = (0..).zip(&total.counts).map(|(doublings, events)| {
            count += events.iter().map(read).sum::<u64>();
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(count);
            bucket.set_upper_bound(bound_seconds(FIRST, doublings));
            bucket
        });
        let buckets = buckets.collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count + read(&total.above));
        histogram.set_sample_sum(total.seconds.get());
        histogram
    }
}

/// The end of the part with this number, from 1, of a bucket; in nanoseconds, rounded up.
fn part_bound<const FIRST: u64, const PARTS: usize>(doublings: u32, part: u64) -> u64 {
    let parts = match doublings {
        0 => part,
        _ => (PARTS as u64 + part) << (doublings - 1),
    };
    (parts * FIRST).div_ceil(PARTS as u64)
}

/// As a label of a bucket, so to the last digit what doubling the first bound gives: whole nanoseconds by 1e9 may be printed otherwise.
fn bound_seconds(first: u64, doublings: u32) -> f64 {
    first as f64 / 1e9 * (1u64 << doublings) as f64
}

impl<const FIRST: u64, const BUCKETS: usize, const PARTS: usize> Collector
    for Latency<FIRST, BUCKETS, PARTS>
{
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut metric = Metric::from_label(Vec::new());
        metric.set_histogram(self.histogram());
        let mut family = MetricFamily::default();
        family.set_name(self.description.fq_name.clone());
        family.set_help(self.description.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use prometheus::{HistogramOpts, TextEncoder, exponential_buckets};
    use proptest::prelude::*;

    const FIRST: u64 = 50_000;
    const BUCKETS: usize = 20;
    const PARTS: usize = 32;

    fn nanos() -> impl Strategy<Value = u64> {
        // Near the bounds, and anywhere.
        let near = (0..=BUCKETS as u32, -1..=1i64).prop_map(|(k, off)| (FIRST << k).wrapping_add_signed(off));
        prop_oneof![near, 0..100 * FIRST, 0..100_000_000_000u64]
    }

    proptest! {
        /// Beside a histogram of the crate, in the text that is scraped.
        #[test]
        fn a_scrape_reads_as_that_of_a_prometheus_histogram(turns in proptest::collection::vec(proptest::collection::vec(nanos(), 0..20), 0..5)) {
            let buckets = exponential_buckets(FIRST as f64 / 1e9, 2.0, BUCKETS).unwrap();
            let oracle = prometheus::Histogram::with_opts(HistogramOpts::new("a_b", "help").buckets(buckets)).unwrap();
            let ours = Latency::<FIRST, BUCKETS, PARTS>::new("a_b".to_owned(), "help").unwrap();
            let mut tally = Tally::new();
            for turn in turns {
                for nanos in turn {
                    tally.add(nanos);
                    // Half a nanosecond less, so that a bound lies above its bucket also where floating point rounds it down.
                    oracle.observe(f64::midpoint(nanos.saturating_sub(1) as f64, nanos as f64) / 1e9);
                }
                ours.take(&mut tally);
                prop_assert_eq!((tally.nanos, tally.above), (0, 0));
            }
            let lines = |collector: &dyn Collector| -> Vec<String> {
                let text = TextEncoder::new().encode_to_string(&collector.collect()).unwrap();
                text.lines().filter(|line| !line.starts_with("a_b_sum")).map(str::to_owned).collect()
            };
            prop_assert_eq!(lines(&ours), lines(&oracle));
            let sums = [ours.collect(), oracle.collect()].map(|family| family[0].get_metric()[0].get_histogram().get_sample_sum());
            prop_assert!((sums[0] - sums[1]).abs() < 1e-6, "{sums:?}");
        }

        /// Beside the durations themselves, sorted.
        #[test]
        fn a_quantile_is_never_too_short_and_hardly_too_long(durations in proptest::collection::vec(nanos(), 1..50), quantile in 0.0..=1.0f64) {
            let ours = Latency::<FIRST, BUCKETS, PARTS>::new("a_b".to_owned(), "help").unwrap();
            let mut tally = Tally::new();
            durations.iter().for_each(|&nanos| tally.add(nanos));
            ours.take(&mut tally);
            let mut sorted = durations;
            sorted.sort_unstable();
            let rank = (quantile * sorted.len() as f64).ceil() as usize;
            let exact = sorted[rank.max(1) - 1];
            let found = ours.distribution().quantile(quantile).unwrap();
            if exact > FIRST << (BUCKETS - 1) {
                prop_assert_eq!(found, Duration::MAX);
            } else {
                let (found, width) = (found.as_nanos() as u64, exact.max(FIRST) / PARTS as u64 + 1);
                prop_assert!((exact..=exact + width).contains(&found), "{exact} ns, found {found}");
            }
        }
    }
}
