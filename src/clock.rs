//! When an event was published: a raw counter on the hot thread, UTC behind the ring.
//!
//! ```text
//!  hot thread                  │ worker
//!                              │
//!  Clock::now() → Ticks ──ring─┼─► Calendar::timestamp(lane, ticks) → Timestamp, nanoseconds since 1970
//!   one RDTSC                  │      ▲ a multiplication and a shift
//!                              │   Timeline ◄── counter, SystemTime, counter ◄── Calendar::renew(), once a turn
//! ```
//!
//! `publish` reads a counter and nothing else. Asking the system for the time costs more than twice as much (23 ns where the
//! counter takes 9.5), and nobody on the hot thread wants to know it: which moment the reading was can be found out later.
//!
//! # What a timestamp is worth
//!
//! - **Error.** While the wall clock runs evenly, a timestamp differs from what `SystemTime::now` would have said at that
//!   moment by less than a microsecond and the width of a sample (some hundred nanoseconds: what it takes to read `SystemTime`
//!   between two readings of the counter). If the rate of the wall clock changes by r, the error grows by r times the time
//!   between the samples around the reading, and the gap before it: 10 ms each while the worker turns, at most 20 ms for a
//!   reading that is newer than all samples, and a second at most while events wait in a ring during an outage. At 500 ppm, the
//!   most that NTP's steering does, 20 ms are 10 µs. (chrony may slew by 83 000 ppm where it is configured so. Then it is
//!   1.7 ms as long as the slew lasts.) Measured over 20 s on a virtual machine, against the middle of two readings of the
//!   wall clock: 29 ns in the median, 67 ns at most.
//! - **Order.** Timestamps of one lane never decrease, hence neither do those of a thread. The event of a thread that was
//!   preempted may lie in the ring behind events that read the clock later; it gets the time of the one before it, which is still
//!   a moment within its `publish` call. Across threads: what was published after an event of another thread was seen is
//!   not dated before it by more than the error.
//! - **Steps of the wall clock** (an administrator, NTP's first correction, a machine that was suspended, whether its counter
//!   stood still or ran on). A step forth is followed with the next sample. A step back of at most one second, or several that
//!   have not been caught up with and make no more than that, is absorbed: the timestamps of a lane stand still until the wall clock has
//!   caught up. A greater one is followed, and then a lane's timestamps do go back, once: a timestamp is the moment of the
//!   `publish` call as the wall clock has it, and not a sequence number. When exactly between two samples a step
//!   happened is not known, so events published between the two may be dated by the wrong side of it.
//!
//! # When the kernel leaves the counter
//!
//! The kernel watches the counter, and leaves it for another clock if the counters of two cores differ, or its rate does. A start finds that
//! out, and so must a bus that runs. So the worker asks once a second, and when the answer is no, hot threads read the system's clock from
//! then on. (That costs them some nanoseconds; a system call if the kernel's new clock, such as `hpet`, cannot be read without one.) The
//! timeline goes on with the new counter where the old one ended, so no lane goes back, and an event that waits in a ring keeps the moment
//! of its old reading. The log says so once.
//!
//! # No fence
//!
//! RDTSC waits for nothing, and the processor may execute it earlier or later than its neighbours, within what it has under
//! way at once: some hundred nanoseconds in the worst case, when a load before it misses all caches. A fence would make
//! publishing wait for exactly such loads, for a precision that nobody asks of an event's timestamp. The samples are taken
//! with fences: there it would be a systematic error.
//!
//! # Why not a crate
//!
//! `quanta` 0.13 calibrates at its first use, spins for up to 200 ms there, and keeps the rate that it found for ever, so it drifts
//! off the wall clock by what that rate is wrong. `fastant` 0.1 does the same for tens of milliseconds. Both measure time since a start, for
//! spans. Ours must follow the wall clock for months and know when it was that something was read minutes ago. Loggers
//! have that problem, and solve it as we do: the backend thread of quill samples both clocks again and again (`RdtscClock`).
//!
//! Read next: [`timeline`] for how, [`tsc`] for which counter is believed.

mod calendar;
mod timeline;
mod tsc;

pub(crate) use calendar::Calendar;

use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use chrono::{DateTime, SecondsFormat, Utc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a hot thread reads: a counter, whose value means something only to a [`Calendar`] of the same [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks(pub(crate) u64);

/// The counter that hot threads read.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Zero: the processor's counter is read. Else what the nanoseconds of the system's clock begin with. It changes once at most.
    base: AtomicU64,
    /// When the nanoseconds of the system's clock began.
    began: Instant,
}

/// What has a clock in it, for the worker that reads it too. (Hot threads have it at hand, without a pointer to follow.)
pub(crate) trait HasClock: Send + Sync {
    fn clock(&self) -> &Clock;
}

impl HasClock for Clock {
    fn clock(&self) -> &Clock {
        self
    }
}

/// So far lie the readings of the two counters apart when one takes the place of the other: at four gigahertz, 36 years.
const APART: u64 = 1 << 62;

impl Clock {
    /// The processor's time stamp counter if it can be believed, and the system's monotonic clock otherwise; [`tsc`] says when.
    pub(crate) fn detect() -> Self {
        Self::new(if tsc::is_trusted() { 0 } else { APART })
    }

    fn new(base: u64) -> Self {
        Self { base: AtomicU64::new(base), began: Instant::now() }
    }

    /// Reads the counter.
    #[inline]
    pub(crate) fn now(&self) -> Ticks {
        match self.base() {
            0 => Ticks(tsc::read()),
            base => self.system(base),
        }
    }

    /// As [`now`](Self::now), but neither before what precedes nor after what follows.
    fn now_in_order(&self) -> Ticks {
        match self.base() {
            0 => Ticks(tsc::read_in_order()),
            base => self.system(base),
        }
    }

    #[inline]
    fn base(&self) -> u64 {
        // Relaxed: a reading says by its value of which counter it is, and nothing else is read through it.
        self.base.load(Ordering::Relaxed)
    }

    #[inline]
    fn system(&self, base: u64) -> Ticks {
        Ticks(base.wrapping_add(self.began.elapsed().as_nanos() as u64))
    }

    /// From now on reads the system's clock in the place of the processor's counter. Returns whether it was this call that changed it.
    ///
    /// Its readings lie so far ahead of those before that both can be told apart, for the events that wait in the rings and for the thread
    /// that has looked at `base` and not yet at the counter.
    pub(crate) fn leave_tsc(&self) -> bool {
        let base = tsc::read().wrapping_add(APART) | 1;
        // Relaxed: as in `base`.
        self.base.compare_exchange(0, base, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The error of a timestamp, in nanoseconds, while the wall clock runs evenly and its samples have no width.
#[cfg(all(test, not(jetring_loom)))]
pub(crate) const ERROR_NANOS: u64 = 1_000;

/// A moment in UTC, in nanoseconds since 1970; good until the year 2554.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(pub(crate) u64);

impl Timestamp {
    /// This moment. A clock that is set before 1970 reads as 1970.
    #[inline]
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(since.as_nanos() as u64)
    }

    /// Reads RFC 3339; none if it is none, or from before 1970.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let nanos = DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()?;
        u64::try_from(nanos).ok().map(Self)
    }

    /// RFC 3339 in UTC, as chrono's serde prints it: as many digits of a second as are needed, in groups of three.
    pub(crate) fn rfc3339(self) -> String {
        let (seconds, nanos) = (self.0 / 1_000_000_000, (self.0 % 1_000_000_000) as u32);
        DateTime::<Utc>::from_timestamp(seconds as i64, nanos)
            .unwrap_or(DateTime::UNIX_EPOCH)
            .to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn timestamps_read_as_chrono_serializes_them() {
        for nanos in
            [0, 1, 1_000, 1_500_000_000, 1_783_349_810_551_377_776, 1_783_349_810_551_000_000, u64::MAX]
        {
            let time = DateTime::<Utc>::from_timestamp_nanos(nanos.min(i64::MAX as u64) as i64);
            if nanos <= i64::MAX as u64 {
                assert_eq!(
                    format!("\"{}\"", Timestamp(nanos).rfc3339()),
                    serde_json::to_string(&time).unwrap()
                );
            }
        }
        assert_eq!(Timestamp(1_783_349_810_551_377_776).rfc3339(), "2026-07-06T14:56:50.551377776Z");
        assert_eq!(Timestamp(u64::MAX).rfc3339(), "2554-07-21T23:34:33.709551615Z");
    }
}
