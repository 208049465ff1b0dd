//! The clock of all measurements: raw ticks, and what a tick is worth.
//!
//! A call that takes fifty nanoseconds cannot be timed by a clock whose reading takes as long. So the loops read the
//! processor's time stamp counter, keep ticks, and only the report turns ticks into nanoseconds. `LFENCE` before each
//! reading keeps the processor from taking it before the call that it shall end, or after the call that it shall begin. What
//! remains is the reading's own price; [`Clock::cost`] measures it, every record states it, and nothing subtracts it.
//!
//! Where there is no such counter, ticks are the nanoseconds of [`Instant`].

#![allow(unsafe_code, reason = "the intrinsic of the time stamp counter is an unsafe function")]

use crate::histogram::Recorder;
use crate::record::Timer;
use std::time::{Duration, Instant};

/// A calibrated clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    nanos_per_tick: f64,
}

/// The present, in ticks since an arbitrary moment.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: LFENCE and RDTSC are part of every x86_64 processor and touch no memory of ours.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// The present, in ticks since an arbitrary moment.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The present without waiting for earlier instructions: as cheap as a clock on a hot path can be.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn now_unordered() -> u64 {
    // SAFETY: RDTSC is part of every x86_64 processor and touches no memory of ours.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The present without waiting for earlier instructions: as cheap as a clock on a hot path can be.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn now_unordered() -> u64 {
    now()
}

impl Clock {
    /// Compares the counter with [`Instant`] for a tenth of a second.
    pub(crate) fn calibrate() -> Self {
        let (instant, ticks) = (Instant::now(), now());
        while instant.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let (elapsed, ticks) = (instant.elapsed(), now() - ticks);
        Self { nanos_per_tick: elapsed.as_nanos() as f64 / ticks as f64 }
    }

    pub(crate) fn nanos(self, ticks: f64) -> f64 {
        ticks * self.nanos_per_tick
    }

    pub(crate) fn ticks(self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 / self.nanos_per_tick) as u64
    }

    /// Measures what two readings cost, and says what the clock is.
    pub(crate) fn describe(self) -> Timer {
        let mut cost = Recorder::new();
        for _ in 0..1_000_000 {
            let start = now();
            cost.record(now().saturating_sub(start));
        }
        Timer {
            source: source().to_owned(),
            ticks_per_nanosecond: 1.0 / self.nanos_per_tick,
            cost: cost.percentiles(self),
        }
    }
}

/// A counter that stops in sleep or changes its speed would measure nonsense, so the record says which one it was.
fn source() -> &'static str {
    if cfg!(not(target_arch = "x86_64")) {
        return "Instant";
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    match flags.contains("constant_tsc") && flags.contains("nonstop_tsc") {
        true => "TSC (invariant), lfence",
        false => "TSC (not known to be invariant), lfence",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_durations_convert_both_ways() {
        let clock = Clock::calibrate();
        let ticks = clock.ticks(Duration::from_millis(3));
        let nanos = clock.nanos(ticks as f64);
        assert!((2_999_000.0..3_001_000.0).contains(&nanos), "{nanos}");
    }

    #[test]
    fn the_clock_never_goes_back_on_a_thread() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
