//! The worker's side of the clock: takes samples when they are due, and turns readings of the counter into UTC.
//!
//! What the samples mean is decided in [`timeline`](super::timeline), which has no clock.

use super::timeline::{FIRST_INTERVAL_NANOS, Sample, Timeline};
use super::{Clock, HasClock, Ticks, Timestamp, tsc};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the kernel is asked whether it still believes the processor's counter: a file is read, which takes some microseconds.
const KERNEL_INTERVAL: Duration = Duration::from_secs(1);

/// Turns readings of one [`Clock`] into UTC. See the essay of [`clock`](super) for what is promised.
pub(crate) struct Calendar {
    has_clock: Arc<dyn HasClock>,
    timeline: Timeline,
    /// The base of the clock that the timeline knows of.
    base: u64,
    /// Where the kernel says what it believes, and when it was last asked.
    clock_source: PathBuf,
    asked_at: Instant,
    /// We have made the clock leave the processor's counter, and nobody has said so.
    is_unsaid: bool,
}

impl Calendar {
    /// Calibrates for a fifth of a millisecond. That is rough, and [`renew`](Self::renew) refines it.
    pub(crate) fn new(has_clock: Arc<dyn HasClock>) -> Self {
        Self::with_clock_source(has_clock, Path::new(tsc::CLOCK_SOURCE))
    }

    fn with_clock_source(has_clock: Arc<dyn HasClock>, clock_source: &Path) -> Self {
        let (began, clock) = (Instant::now(), has_clock.clock());
        let (base, mut timeline) = loop {
            let (base, first) = narrowest(clock);
            while began.elapsed() < Duration::from_nanos(FIRST_INTERVAL_NANOS) {
                std::hint::spin_loop();
            }
            let (base_then, second) = narrowest(clock);
            // It changes once at most.
            if base_then == base {
                break (base, Timeline::new(first, second));
            }
        };
        if base != 0 {
            timeline.begin_behind(base);
        }
        let clock_source = clock_source.to_owned();
        Self { has_clock, timeline, base, clock_source, asked_at: began, is_unsaid: false }
    }

    /// Compares the counter with the wall clock, if it is time to. To be called often: when it is not time it costs one reading of the
    /// counter.
    #[inline]
    pub(crate) fn renew(&mut self) {
        if self.timeline.is_due(self.clock().now()) {
            self.sample();
        }
    }

    /// The moment at which an event of this lane read the clock. Of one lane, they never decrease, unless the wall clock was set back by
    /// more than a second.
    #[inline]
    pub(crate) fn timestamp(&mut self, lane: usize, ticks: Ticks) -> Timestamp {
        self.timestamp_of(LANES_BEGIN + lane, ticks)
    }

    #[inline]
    fn timestamp_of(&mut self, lane: usize, ticks: Ticks) -> Timestamp {
        if self.timeline.is_beyond(ticks) {
            // The worker was held up since it renewed. Or the reading is from before a restart of the counter, which the samples will show.
            self.sample();
        }
        self.timeline.timestamp(lane, ticks)
    }

    /// This moment. Decreases as little as the moments of a lane.
    pub(crate) fn now(&mut self) -> Timestamp {
        self.renew();
        let now = self.clock().now();
        self.timestamp_of(OWN_LANE, now)
    }

    /// Whether the clock has left the processor's counter because of us. True once.
    pub(crate) fn has_just_left_tsc(&mut self) -> bool {
        std::mem::take(&mut self.is_unsaid)
    }

    fn clock(&self) -> &Clock {
        self.has_clock.clock()
    }

    #[cold]
    fn sample(&mut self) {
        if self.asked_at.elapsed() >= KERNEL_INTERVAL {
            self.ask_kernel();
        }
        let (base, sample) = narrowest(self.clock());
        if base == self.base {
            self.timeline.learn(sample);
        } else {
            self.base = base;
            self.timeline.change_counter(base, sample);
        }
    }

    fn ask_kernel(&mut self) {
        self.asked_at = Instant::now();
        if self.clock().base() == 0 && tsc::is_left_by_kernel(&self.clock_source) {
            self.is_unsaid |= self.clock().leave_tsc();
        }
    }
}

/// The timeline's lane of [`Calendar::now`]; the others follow it.
const OWN_LANE: usize = 0;
const LANES_BEGIN: usize = 1;

/// Of several samples, the one that says most, and the base of the clock at all of them.
fn narrowest(clock: &Clock) -> (u64, Sample) {
    loop {
        let base = clock.base();
        let samples = std::array::from_fn(|_| {
            let before = clock.now_in_order().0;
            let wall = Timestamp::now().0;
            Sample { before, wall, after: clock.now_in_order().0 }
        });
        // It changes once at most.
        if clock.base() == base {
            return (base, Sample::narrowest(samples));
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::clock::ERROR_NANOS;
    use std::sync::mpsc;

    /// What these tests grant: the promise for a wall clock that is being steered as fast as NTP may, and slow samples.
    const BOUND_NANOS: u64 = ERROR_NANOS + 20_000;

    fn clocks() -> [Arc<Clock>; 2] {
        [Clock::detect(), Clock::new(1)].map(Arc::new)
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
            let mut calendar = Calendar::new(Arc::clone(&clock) as Arc<dyn HasClock>);
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
            let mut calendar = Calendar::new(Arc::clone(&clock) as Arc<dyn HasClock>);
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
            let mut calendar = Calendar::new(Arc::clone(&clock) as Arc<dyn HasClock>);
            let (send_ping, pings) = mpsc::channel::<Ticks>();
            let (send_pong, pongs) = mpsc::channel();
            let theirs = Arc::clone(&clock);
            let echo = std::thread::spawn(move || {
                for ping in pings {
                    send_pong.send((ping, theirs.now())).unwrap();
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
            let mut calendar = Calendar::new(Arc::clone(&clock) as Arc<dyn HasClock>);
            let mut last = (Timestamp(0), Timestamp(0));
            for _ in 0..200_000 {
                calendar.renew();
                let next = (calendar.timestamp(0, clock.now()), calendar.now());
                assert!(next.0 >= last.0 && next.1 >= last.1, "{last:?}, then {next:?}");
                last = next;
            }
        }
    }

    /// A clock that reads the processor's counter, whatever the kernel of this machine believes, and a file that tells what it believes.
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    fn believed() -> (Arc<Clock>, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "tsc\n").unwrap();
        (Arc::new(Clock::new(0)), file)
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    #[test]
    fn a_counter_that_the_kernel_leaves_is_left_and_no_lane_goes_back() {
        for other in ["hpet", "kvm-clock\n", "acpi_pm\n"] {
            let (clock, file) = believed();
            let [mut first, mut second] =
                [(); 2].map(|()| Calendar::with_clock_source(clock.clone(), file.path()));
            let waiting = bracketed(&clock);
            first.ask_kernel();
            assert!(!first.has_just_left_tsc() && clock.base() == 0);
            let mut last = [&mut first, &mut second].map(|calendar| calendar.timestamp(0, clock.now()));

            std::fs::write(&file, other).unwrap();
            first.ask_kernel();
            assert!(first.has_just_left_tsc() && !first.has_just_left_tsc());
            assert!(!second.has_just_left_tsc(), "one of them says so");
            for _ in 0..20_000 {
                for (calendar, last) in [&mut first, &mut second].into_iter().zip(&mut last) {
                    calendar.renew();
                    let (before, ticks, after) = bracketed(&clock);
                    let stamp = calendar.timestamp(0, ticks);
                    assert_between(before, stamp, after);
                    assert!(stamp >= *last, "{stamp:?} after {last:?}");
                    *last = stamp;
                }
            }
            // What was read before, and what a thread reads that was stopped before it read, is of another lane.
            for calendar in [&mut first, &mut second] {
                assert_between(waiting.0, calendar.timestamp(1, waiting.1), waiting.2);
                let late = calendar.timestamp(2, Ticks(tsc::read()));
                assert!(late <= Timestamp::now());
                calendar.ask_kernel();
                assert!(!calendar.has_just_left_tsc());
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    #[test]
    fn a_kernel_that_says_nothing_has_not_left_the_counter() {
        let (clock, file) = believed();
        let mut calendar = Calendar::with_clock_source(clock.clone(), file.path());
        calendar.ask_kernel();
        std::fs::remove_file(file.path()).unwrap();
        calendar.ask_kernel();
        assert!(!calendar.has_just_left_tsc() && clock.base() == 0);
    }
}
