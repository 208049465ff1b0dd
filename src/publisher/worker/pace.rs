//! A limit on how often the worker wakes up for nothing.
//!
//! Each deadline belongs to somebody who does something when it has come. If one is wrong, so that it lies in the past and stays there, the
//! worker would never sleep. So turns that only the time has caused, and in which nothing was done, are counted: after a burst of them each has
//! to wait. Nothing that works as it should comes near that.

use std::time::{Duration, Instant};

/// Such turns in a row without a pause.
const BURST: u32 = 64;

/// The pause after them.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pace {
    /// Turns that are left.
    left: u32,
    /// When another one was last earned.
    earned_at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, earned_at: now }
    }

    /// A turn was for nothing. Returns when the next one may be.
    pub(super) fn wasted(&mut self, now: Instant) -> Option<Instant> {
        let earned = now.saturating_duration_since(self.earned_at).as_millis() / PAUSE.as_millis();
        if earned > 0 {
            self.left = self.left.saturating_add(earned.try_into().unwrap_or(BURST)).min(BURST);
            self.earned_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                None
            }
            None => {
                // It is taken before it is earned.
                self.earned_at += PAUSE;
                Some(self.earned_at)
            }
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_stays_in_the_past_costs_a_burst_and_then_twenty_turns_a_second() {
        let start = Instant::now();
        let (mut pace, mut now, mut turns) = (Pace::new(start), start, 0);
        while now < start + Duration::from_secs(60) {
            turns += 1;
            // What a turn takes at least.
            now = pace.wasted(now).unwrap_or(now).max(now + Duration::from_micros(1));
        }
        assert!((60 * 20..60 * 20 + 2 * BURST).contains(&turns), "{turns}");
    }

    #[test]
    fn turns_that_are_few_never_wait() {
        let (mut pace, mut now) = (Pace::new(Instant::now()), Instant::now());
        for _ in 0..1000 {
            assert_eq!(pace.wasted(now), None);
            now += Duration::from_millis(60);
        }
    }
}
