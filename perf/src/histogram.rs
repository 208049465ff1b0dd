//! Distributions: recorded in ticks without allocating, reported in nanoseconds, and compared over repetitions.

use crate::clock::Clock;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest call that is told apart from longer ones, in ticks: minutes on every machine.
const TICKS_MAX: u64 = 1 << 40;

/// Two digits keep a histogram within 40 KB, so that recording hardly disturbs the caches of what it measures; buckets are
/// within 1 % of the value.
const DIGITS: u8 = 2;

/// Steps of the [curve](Percentiles::curve) for each "nine".
const STEPS_PER_NINE: u32 = 4;
const NINES: u32 = 5;

/// A distribution of ticks.
#[derive(Debug, Clone)]
pub(crate) struct Recorder(Histogram<u64>);

/// A distribution, as records state it. Nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: f64,
    #[serde(rename = "p99.99")]
    pub(crate) p9999: f64,
    pub(crate) max: f64,
    /// The value at `1 - 10^(-i/4)` for i = 0, 1, …, 20: from the minimum to 99.999 %.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<f64>,
}

/// One number over all repetitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// Percentiles over all repetitions: for each of them the median, the least and the greatest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spreads {
    /// Values in all repetitions together.
    pub(crate) count: u64,
    pub(crate) p50: Spread,
    pub(crate) p90: Spread,
    pub(crate) p99: Spread,
    #[serde(rename = "p99.9")]
    pub(crate) p999: Spread,
    #[serde(rename = "p99.99")]
    pub(crate) p9999: Spread,
    pub(crate) max: Spread,
    /// Medians; see [`Percentiles::curve`].
    pub(crate) curve: Vec<f64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, TICKS_MAX, DIGITS).expect("the bounds are constants in range"))
    }

    #[inline]
    pub(crate) fn record(&mut self, ticks: u64) {
        self.0.saturating_record(ticks);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all recorders have the same bounds");
    }

    pub(crate) fn percentiles(&self, clock: Clock) -> Percentiles {
        let at = |quantile| round(clock.nanos(self.0.value_at_quantile(quantile) as f64));
        Percentiles {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: round(clock.nanos(self.0.max() as f64)),
            curve: curve_quantiles().map(at).collect(),
        }
    }
}

impl Spread {
    /// Of nanoseconds or counts, to a tenth.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let Self { median, min, max } = Self::sorted(values);
        Self { median: round(median), min: round(min), max: round(max) }
    }

    /// Of shares and ratios, to four digits behind the point.
    pub(crate) fn exactly(values: impl IntoIterator<Item = f64>) -> Self {
        let Self { median, min, max } = Self::sorted(values);
        let round = |value: f64| (value * 1e4).round() / 1e4;
        Self { median: round(median), min: round(min), max: round(max) }
    }

    fn sorted(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        match (values.first(), values.get(values.len() / 2), values.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { median, min, max },
            _ => Self::default(),
        }
    }
}

impl Spreads {
    /// `None` if none of the repetitions recorded anything. Those that recorded nothing are left out.
    pub(crate) fn of(repetitions: &[Percentiles]) -> Option<Self> {
        let repetitions: Vec<&Percentiles> = repetitions.iter().filter(|one| one.count > 0).collect();
        let over = |value: &dyn Fn(&Percentiles) -> f64| Spread::of(repetitions.iter().map(|one| value(one)));
        (!repetitions.is_empty()).then(|| Self {
            count: repetitions.iter().map(|one| one.count).sum(),
            p50: over(&|one| one.p50),
            p90: over(&|one| one.p90),
            p99: over(&|one| one.p99),
            p999: over(&|one| one.p999),
            p9999: over(&|one| one.p9999),
            max: over(&|one| one.max),
            curve: (0..curve_quantiles().count()).map(|step| over(&|one| one.curve[step]).median).collect(),
        })
    }
}

/// The places of [`Percentiles::curve`] on an axis that counts nines: 1 is 90 %, 2 is 99 %.
pub(crate) fn curve_nines() -> impl Iterator<Item = f64> {
    (0..=NINES * STEPS_PER_NINE).map(|step| f64::from(step) / f64::from(STEPS_PER_NINE))
}

fn curve_quantiles() -> impl Iterator<Item = f64> {
    curve_nines().map(|nines| 1.0 - 10f64.powf(-nines))
}

/// To a tenth, which is finer than anything that is measured here.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_middle_of_the_repetitions_is_reported_with_both_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0, 9.0, 2.5]), Spread { median: 2.5, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn a_recorder_finds_the_percentiles_of_what_it_was_given() {
        let clock = Clock::calibrate();
        let mut recorder = Recorder::new();
        for nanos in 1..=10_000u64 {
            recorder.record(clock.ticks(std::time::Duration::from_nanos(nanos * 100)));
        }
        let found = recorder.percentiles(clock);
        let near = |value: f64, wanted: f64| (value / wanted - 1.0).abs() < 0.02;
        assert_eq!(found.count, 10_000);
        assert!(near(found.p50, 500_000.0) && near(found.p99, 990_000.0), "{found:?}");
        assert!(near(found.max, 1_000_000.0), "{found:?}");
        assert!(
            found.curve.is_sorted() && near(found.curve[4], found.p90) && near(found.curve[12], found.p999)
        );
    }

    #[test]
    fn the_axis_of_the_curve_counts_nines() {
        let quantiles: Vec<f64> = curve_quantiles().collect();
        for (step, wanted) in [(0, 0.0), (4, 0.9), (8, 0.99), (12, 0.999), (20, 0.99999)] {
            assert!((quantiles[step] - wanted).abs() < 1e-12, "step {step}: {}", quantiles[step]);
        }
    }

    #[test]
    fn repetitions_without_a_value_do_not_count() {
        let some = Percentiles { count: 2, p50: 7.0, curve: vec![0.0; 21], ..Percentiles::default() };
        let spreads = Spreads::of(&[Percentiles::default(), some]).unwrap();
        assert_eq!((spreads.count, spreads.p50.min), (2, 7.0));
        assert_eq!(Spreads::of(&[Percentiles::default()]), None);
    }
}
