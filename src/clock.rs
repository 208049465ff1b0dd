//! Wall-clock time of an event: nanoseconds since 1970, in one word.
//!
//! `publish` reads the clock, and nothing else: turning the number into text is the worker's job.

use chrono::{DateTime, SecondsFormat, Utc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
