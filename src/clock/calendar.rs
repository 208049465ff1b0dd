//! The worker's side of the clock: takes samples when they are due, and turns readings of the counter into UTC.
//!
//! What the samples mean is decided in [`timeline`](super::timeline), which has no clock.

use super::timeline::{FIRST_INTERVAL_NANOS, Sample, Timeline};
use super::{Clock, Ticks, Timestamp};
use std::time::{Duration, Instant};

/// Turns readings of one [`Clock`] into UTC. See the essay of [`clock`](super) for what is promised.
#[derive(Debug)]
pub(crate) struct Calendar {
    clock: Clock,
    timeline: Timeline,
}

impl Calendar {
    /// Calibrates for a fifth of a millisecond. That is rough, and [`renew`](Self::renew) refines it.
    pub(crate) fn new(clock: Clock) -> Self {
        let began = Instant::now();
        let first = narrowest(&clock);
        while began.elapsed() < Duration::from_nanos(FIRST_INTERVAL_NANOS) {
            std::hint::spin_loop();
        }
        let timeline = Timeline::new(first, narrowest(&clock));
        Self { clock, timeline }
    }

    /// Compares the counter with the wall clock, if it is time to. To be called often: when it is not time it costs one reading of the
    /// counter.
    #[inline]
    pub(crate) fn renew(&mut self) {
        if self.timeline.is_due(self.clock.now()) {
            self.sample();
        }
    }

    /// The moment at which an event of this lane read the clock. Of one lane, they never decrease, unless the wall clock was set back by
    /// more than a second.
    #[inline]
    pub(crate) fn timestamp(&mut self, lane: usize, ticks: Ticks) -> Timestamp {
        if self.timeline.is_beyond(ticks) {
            // The worker was held up since it renewed. Or the reading is from before a restart of the counter, which the samples will show.
            self.sample();
        }
        self.timeline.timestamp(LANES_BEGIN + lane, ticks)
    }

    /// This moment. Decreases as little as the moments of a lane.
    pub(crate) fn now(&mut self) -> Timestamp {
        self.renew();
        self.timeline.timestamp(OWN_LANE, self.clock.now())
    }

    #[cold]
    fn sample(&mut self) {
        self.timeline.learn(narrowest(&self.clock));
    }
}

/// The timeline's lane of [`Calendar::now`]; the others follow it.
const OWN_LANE: usize = 0;
const LANES_BEGIN: usize = 1;

/// Of several samples, the one that says most.
fn narrowest(clock: &Clock) -> Sample {
    let samples = std::array::from_fn(|_| {
        let before = clock.now_in_order().0;
        let wall = Timestamp::now().0;
        Sample { before, wall, after: clock.now_in_order().0 }
    });
    Sample::narrowest(samples)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::clock::ERROR_NANOS;
    use std::sync::mpsc;

    /// What these tests grant: the promise for a wall clock that is being steered as fast as NTP may, and slow samples.
    const BOUND_NANOS: u64 = ERROR_NANOS + 20_000;

    fn clocks() -> [Clock; 2] {
        [Clock::detect(), Clock::portable()]
    }

    /// A reading between two of the wall clock. They may lie apart as far as they like: the moment lies in between.
    fn bracketed(clock: &Clock) -> (u64, Ticks, u64) {
        let before = Timestamp::now().0;
        let ticks = clock.now_in_order();
        (before, ticks, Timestamp::now().0)
    }

    #[track_caller]
    fn assert_between(before: u64, stamp: Timestamp, after: u64) {
        let Timestamp(stamp) = stamp;
        assert!(stamp + BOUND_NANOS >= before, "{} ns too early", before - stamp);
        assert!(stamp <= after + BOUND_NANOS, "{} ns too late", stamp - after);
    }

    #[test]
    fn timestamps_are_what_the_wall_clock_said() {
        for clock in clocks() {
            let mut calendar = Calendar::new(clock);
            let mut waiting = Vec::new();
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(300) {
                calendar.renew();
                let (before, ticks, after) = bracketed(&clock);
                assert_between(before, calendar.timestamp(0, ticks), after);
                if waiting.len() < 10_000 {
                    waiting.push((before, ticks, after));
                }
            }
            for (before, ticks, after) in waiting {
                assert_between(before, calendar.timestamp(1, ticks), after);
            }
        }
    }

    #[test]
    fn a_worker_that_was_held_up_converts_as_well() {
        for clock in clocks() {
            let mut calendar = Calendar::new(clock);
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(200) {
                std::hint::spin_loop();
            }
            let (before, ticks, after) = bracketed(&clock);
            assert_between(before, calendar.timestamp(0, ticks), after);
        }
    }

    #[test]
    fn what_a_thread_publishes_after_it_heard_of_an_event_is_not_dated_before_it() {
        for clock in clocks() {
            let mut calendar = Calendar::new(clock);
            let (send_ping, pings) = mpsc::channel::<Ticks>();
            let (send_pong, pongs) = mpsc::channel();
            let echo = std::thread::spawn(move || {
                for ping in pings {
                    send_pong.send((ping, clock.now())).unwrap();
                }
            });
            for _ in 0..5_000 {
                calendar.renew();
                send_ping.send(clock.now()).unwrap();
                let (ping, pong) = pongs.recv().unwrap();
                let heard = clock.now();
                let [ping, pong, heard] =
                    [(0, ping), (1, pong), (2, heard)].map(|(lane, ticks)| calendar.timestamp(lane, ticks).0);
                assert!(ping <= pong + ERROR_NANOS, "{} ns", ping - pong);
                assert!(pong <= heard + ERROR_NANOS, "{} ns", pong - heard);
            }
            drop(send_ping);
            echo.join().unwrap();
        }
    }

    #[test]
    fn one_thread_never_goes_back() {
        for clock in clocks() {
            let mut calendar = Calendar::new(clock);
            let mut last = (Timestamp(0), Timestamp(0));
            for _ in 0..200_000 {
                calendar.renew();
                let next = (calendar.timestamp(0, clock.now()), calendar.now());
                assert!(next.0 >= last.0 && next.1 >= last.1, "{last:?}, then {next:?}");
                last = next;
            }
        }
    }
}
