//! A bucket of tokens in one word: the generic cell rate algorithm (ITU-T I.371), which needs no thread that fills it.
//!
//! The word is the *arrival*: the moment at which the bucket would be full again if nothing more were taken. A token moves it by an *interval*, which is a second divided
//! by the rate. A full bucket has an arrival that is past, an empty one has one that lies a *tolerance* and more ahead:
//!
//! ```text
//!               now                 arrival
//!   ─────────────┼───────────────────┼──────────►   nanoseconds since the table was made
//!                │◄── the tolerance ──────►│        a token is there while the arrival is not beyond it:
//!                                                   (burst - 1) intervals
//! ```
//!
//! So of any stretch of time no more get through than the burst and the rate times its length. Intervals are whole nanoseconds and rounded up, so a rate is never exceeded;
//! at a million a second it is hit exactly, and below that missed by a thousandth at most.
//!
//! All fits into 64 bits: the largest burst at the lowest rate is 32 years.
//!
//! # Changes
//!
//! A changed limit begins with a full bucket, since an arrival of the earlier one means nothing by the new one. The three words are written one by one, the arrival last, and
//! read the other way round. So a taker that read an interval of the earlier limit has read its arrival, too, and finds in the exchange that it is
//! another one now. Only if the earlier arrival was the very nanosecond of the change does it not, and its token costs an interval of the
//! earlier limit, which is a second at most.

use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;

/// How often a token is tried for before the event is refused.
///
/// Each failure means that another thread has got one, so that this many in a row need a burst of as many, from dozens of threads. Refused, and not let
/// through: a limit that gives way under pressure is none. The claim of a place in a ring has the same bound.
const ATTEMPTS_MAX: usize = 64;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Tokens for the events of one name.
pub(super) struct Bucket {
    /// Nanoseconds between two tokens; zero if there is no limit.
    interval: AtomicU64,
    tolerance: AtomicU64,
    arrival: AtomicU64,
}

impl Bucket {
    /// One without a limit.
    pub(super) fn new() -> Self {
        Self { interval: AtomicU64::new(0), tolerance: AtomicU64::new(0), arrival: AtomicU64::new(0) }
    }

    /// From now on so many a second, and so many at once, if it is not so already. It is called under a lock.
    pub(super) fn set(&self, limit: Option<(u32, u32)>, now: u64) {
        let (interval, tolerance) = limit.map_or((0, 0), |(rate, burst)| {
            let interval = NANOS_PER_SECOND.div_ceil(rate.max(1).into());
            (interval, interval * u64::from(burst.max(1) - 1))
        });
        // Relaxed: the last `set` was under the same lock.
        let known = (self.interval.load(Ordering::Relaxed), self.tolerance.load(Ordering::Relaxed));
        if known == (interval, tolerance) {
            return;
        }
        self.tolerance.store(tolerance, Ordering::Relaxed);
        self.interval.store(interval, Ordering::Relaxed);
        // Release: pairs with the Acquire of a taker, which reads the two above after this one.
        self.arrival.store(now, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_unlimited(&self) -> bool {
        self.interval.load(Ordering::Relaxed) == 0
    }

    /// Takes a token, if there is one. The time is asked for only if there is a limit.
    #[inline]
    pub(super) fn takes(&self, now: impl FnOnce() -> u64) -> bool {
        self.is_unlimited() || self.takes_at(now())
    }

    fn takes_at(&self, now: u64) -> bool {
        for _ in 0..ATTEMPTS_MAX {
            // Acquire: pairs with the Release of `set`, also through the exchanges of other takers, which carry it on.
            let arrival = self.arrival.load(Ordering::Acquire);
            let interval = self.interval.load(Ordering::Relaxed);
            if interval == 0 {
                return true;
            }
            if arrival > now + self.tolerance.load(Ordering::Relaxed) {
                return false;
            }
            let next = arrival.max(now) + interval;
            // Relaxed: nothing else is read through what is written here.
            if self.arrival.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return true;
            }
        }
        false
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = NANOS_PER_SECOND;

    fn bucket(rate: u32, burst: u32) -> Bucket {
        let bucket = Bucket::new();
        bucket.set(Some((rate, burst)), 0);
        bucket
    }

    /// Tokens that are there at once.
    fn at_once(bucket: &Bucket, now: u64) -> usize {
        (0..).take_while(|_| bucket.takes(|| now)).count()
    }

    #[test]
    fn a_burst_is_there_at_once_and_then_a_token_comes_each_interval_to_the_nanosecond() {
        let bucket = bucket(1000, 5);
        let start = 17 * SECOND;
        assert_eq!(at_once(&bucket, start), 5);
        for token in 1..=10 {
            let due = start + token * 1_000_000;
            assert_eq!(at_once(&bucket, due - 1), 0, "token {token} is early");
            assert_eq!(at_once(&bucket, due), 1, "token {token} is late");
        }
        assert_eq!(at_once(&bucket, start + 13_000_000), 3);
        assert_eq!(at_once(&bucket, start + SECOND), 5, "no more gather than the burst");
    }

    #[test]
    fn a_bucket_without_a_limit_asks_for_no_time() {
        let bucket = Bucket::new();
        assert!((0..1000).all(|_| bucket.takes(|| unreachable!("it does not matter"))));
    }

    #[test]
    fn the_extremes_neither_overflow_nor_stand_still() {
        let slow = bucket(1, 1_000_000);
        let year = 365 * 24 * 3600 * SECOND;
        assert_eq!(at_once(&slow, 400 * year), 1_000_000);
        assert_eq!(at_once(&slow, 400 * year + SECOND), 1);
        let fast = bucket(1_000_000, 1);
        assert_eq!((0..SECOND).step_by(500).filter(|&now| fast.takes(|| now)).count(), 1_000_000);
    }

    #[test]
    fn a_changed_limit_begins_with_a_full_bucket_and_the_same_one_goes_on() {
        let bucket = bucket(1, 1000);
        assert_eq!(at_once(&bucket, 0), 1000);
        bucket.set(Some((1, 1000)), 1);
        assert_eq!(at_once(&bucket, 1), 0, "what is the same is not begun again");
        bucket.set(Some((1000, 10)), 2);
        assert_eq!(at_once(&bucket, 2), 10);
        assert_eq!(at_once(&bucket, 1_000_002), 1, "and nothing of a thousand seconds is left");
        bucket.set(None, SECOND);
        assert!((0..1000).all(|_| bucket.takes(|| SECOND)));
        bucket.set(Some((1, 1)), SECOND);
        assert_eq!(at_once(&bucket, SECOND), 1);
    }

    #[test]
    fn a_taker_that_meets_a_change_takes_by_the_new_limit_or_none() {
        let limit = bucket(1, 1);
        let changing = |limit: &Bucket, new, now| {
            limit.takes(|| {
                limit.set(new, now);
                now
            })
        };
        assert!(changing(&limit, Some((1000, 1)), SECOND));
        assert_eq!(at_once(&limit, SECOND + 999_999), 0);
        assert_eq!(
            at_once(&limit, SECOND + 1_000_000),
            1,
            "its token has cost a new interval, not an old one"
        );
        assert!(changing(&limit, None, SECOND), "without a limit there is a token for everybody");
    }

    #[test]
    fn threads_together_take_what_there_is_and_no_more() {
        const THREADS: usize = 4;
        let bucket = bucket(1, 10_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..10_000).filter(|_| bucket.takes(|| 0)).count();
            let threads = [(); THREADS].map(|()| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(taken, 10_000);
    }

    proptest! {
        /// Against the definition: of any stretch of time no more than burst and rate allow, and in a stretch in which there is always somebody who
        /// asks, no less but for the rounding and one.
        #[test]
        fn a_rate_is_never_exceeded_and_is_given_to_who_asks(
            rate in 1..=1_000_000u32,
            burst in 1..=100u32,
            pauses in proptest::collection::vec(0..3 * SECOND, 1..200),
        ) {
            let bucket = bucket(rate, burst);
            let (mut now, mut taken) = (0, Vec::new());
            for pause in pauses {
                // Pauses of the size of an interval, now and then much longer ones.
                now += if pause % 7 == 0 { pause } else { pause / u64::from(rate) };
                if bucket.takes(|| now) {
                    taken.push(now);
                }
            }
            for (first, &from) in taken.iter().enumerate() {
                for (last, &to) in taken.iter().enumerate().skip(first) {
                    let allowed = f64::from(burst) + (to - from) as f64 / SECOND as f64 * f64::from(rate);
                    prop_assert!((last - first + 1) as f64 <= allowed + 1e-6, "{from} to {to}");
                }
            }
            let interval = SECOND.div_ceil(rate.into());
            let start = now + u64::from(burst) * interval;
            let given = (0..1000u64).filter(|step| bucket.takes(|| start + step * interval)).count();
            prop_assert_eq!(given, 1000, "who asks at the rate always gets");
        }
    }
}
