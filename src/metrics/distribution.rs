//! A distribution of durations, as its readers get it.

use std::time::Duration;

/// How long something took, each time that it happened: counts in buckets.
///
/// Of a bus it has every event since the start; what happened since some moment is [`since`](Self::since) a distribution that was
/// taken then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The greatest duration that counts here, in nanoseconds, and how many there were; shortest first.
    buckets: Vec<(u64, u64)>,
    /// Durations above the last bucket.
    above: u64,
}

impl Distribution {
    pub(super) fn new(buckets: Vec<(u64, u64)>, above: u64) -> Self {
        Self { buckets, above }
    }

    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|&(_, count)| count).sum::<u64>() + self.above
    }

    /// The duration that a share of `quantile` (0 to 1) of all did not exceed; none if there are none.
    ///
    /// It is the upper end of its bucket, so never too short. How much too long it may be, the distribution's source says. What is
    /// above all buckets reads as [`Duration::MAX`].
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut passed = 0;
        let found = self.buckets.iter().find(|&&(_, count)| {
            passed += count;
            passed >= rank
        });
        match found {
            _ if count == 0 => None,
            Some(&(nanos, _)) => Some(Duration::from_nanos(nanos)),
            None => Some(Duration::MAX),
        }
    }

    /// What is here and was not in `earlier`, a distribution of the same bus.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        let buckets = pairs.map(|(&(nanos, now), &(_, then))| (nanos, now.saturating_sub(then)));
        Self { buckets: buckets.collect(), above: self.above.saturating_sub(earlier.above) }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_end_of_the_bucket_in_which_its_rank_lies() {
        let some = Distribution::new(vec![(10, 50), (20, 49), (40, 0)], 1);
        let at = |quantile| some.quantile(quantile);
        assert_eq!(some.count(), 100);
        assert_eq!((at(0.0), at(0.5)), (Some(Duration::from_nanos(10)), Some(Duration::from_nanos(10))));
        assert_eq!((at(0.51), at(0.99)), (Some(Duration::from_nanos(20)), Some(Duration::from_nanos(20))));
        assert_eq!((at(1.0), at(7.0)), (Some(Duration::MAX), Some(Duration::MAX)));
        assert_eq!(Distribution::new(vec![(10, 0)], 0).quantile(0.5), None);
    }

    #[test]
    fn what_was_there_before_does_not_count() {
        let (before, now) =
            (Distribution::new(vec![(10, 5), (20, 1)], 1), Distribution::new(vec![(10, 5), (20, 4)], 2));
        assert_eq!(now.since(&before), Distribution::new(vec![(10, 0), (20, 3)], 1));
    }
}
