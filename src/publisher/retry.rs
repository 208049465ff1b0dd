//! What can pass and what cannot, and how long to wait before the next try.
//!
//! The classes follow nats-server's `errors.json` (2.14, 2.15). Whatever is not known to be final is tried again: an
//! event that waits is in the ledger, an event that was dropped by mistake is gone.

use crate::ledger::Reason;
use std::time::Duration;

/// What a try failed of, when it is worth another. The names are those of the metric `retries_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The connection ended before the answer came.
    Disconnected,
    /// No answer came in time.
    Timeout,
    /// Nobody takes the subject: no stream, or a stream that has no leader at the moment.
    NoStream,
    /// The server has too much to do (429).
    TooManyRequests,
    /// The stream is full and refuses new messages.
    StreamFull,
    /// JetStream cannot serve at the moment.
    Unavailable,
}

impl Cause {
    pub(crate) const ALL: [Self; 6] = [
        Self::Disconnected,
        Self::Timeout,
        Self::NoStream,
        Self::TooManyRequests,
        Self::StreamFull,
        Self::Unavailable,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::NoStream => "no_stream",
            Self::TooManyRequests => "too_many_requests",
            Self::StreamFull => "stream_full",
            Self::Unavailable => "unavailable",
        }
    }

    /// The reason for which an event is dropped if it is still held back by this when its time is over.
    pub(crate) fn reason_at_the_end(self) -> Reason {
        match self {
            Self::NoStream => Reason::NoStream,
            Self::StreamFull => Reason::Rejected,
            Self::Disconnected | Self::Timeout | Self::TooManyRequests | Self::Unavailable => Reason::Expired,
        }
    }
}

/// Whether an error of the server can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Retry(Cause),
    Final(Reason),
}

/// Judges an error by its code in nats-server's `errors.json`.
pub(crate) fn judge(code: u64, err_code: u64, description: &str) -> Verdict {
    match err_code {
        10054 => Verdict::Final(Reason::TooLarge), // message size exceeds maximum allowed
        10060 => Verdict::Final(Reason::Rejected), // expected stream does not match
        10097 => Verdict::Final(Reason::TooLarge), // header size exceeds maximum allowed of 64k
        10109 => Verdict::Final(Reason::Rejected), // invalid operation on sealed stream
        // "store failed": one code for many things, told apart by its text only (stream.go 6626, 7447).
        10077 if description.contains("message size") => Verdict::Final(Reason::TooLarge),
        10077 if description.contains("maximum") => Verdict::Retry(Cause::StreamFull),
        10167 | 10210 | 10211 => Verdict::Retry(Cause::TooManyRequests),
        _ if code == 429 => Verdict::Retry(Cause::TooManyRequests),
        // The message itself is at fault: malformed TTL, schedule, atomic batch or expectation headers, which we do not send.
        10070 | 10071 | 10164..=10166 | 10174..=10177 | 10179 | 10185 | 10188..=10193 | 10199..=10201 => {
            Verdict::Final(Reason::Rejected)
        }
        _ => Verdict::Retry(Cause::Unavailable),
    }
}

/// Exponential backoff with full jitter: a delay drawn evenly between zero and `base · 2^attempt`, at most `max`.
///
/// Full jitter spreads a herd of clients best for the load that it causes (Brooker, "Exponential Backoff And Jitter",
/// AWS Architecture Blog, 2015). The generator is seeded, so that a simulated run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    max: Duration,
    attempt: u32,
    state: u64,
}

impl Backoff {
    pub(crate) fn new(base: Duration, max: Duration, seed: u64) -> Self {
        Self { base, max, attempt: 0, state: seed }
    }

    /// The time to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.base.saturating_mul(1 << self.attempt.min(20)).min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(self.random())
    }

    /// Things work again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }

    /// In `[0, 1)`, by SplitMix64 (Steele, Lea, Flood, 2014).
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn errors_are_judged_as_the_server_means_them() {
        for (code, err_code, description, verdict) in [
            (400, 10054, "message size exceeds maximum allowed", Verdict::Final(Reason::TooLarge)),
            (400, 10109, "invalid operation on sealed stream", Verdict::Final(Reason::Rejected)),
            (503, 10077, "maximum messages exceeded", Verdict::Retry(Cause::StreamFull)),
            (503, 10077, "maximum bytes exceeded", Verdict::Retry(Cause::StreamFull)),
            (503, 10077, "message size exceeds maximum allowed", Verdict::Final(Reason::TooLarge)),
            (503, 10077, "write failed: input/output error", Verdict::Retry(Cause::Unavailable)),
            (429, 10167, "too many requests", Verdict::Retry(Cause::TooManyRequests)),
            (503, 10008, "jetstream system temporarily unavailable", Verdict::Retry(Cause::Unavailable)),
            (500, 65535, "an error of a later server", Verdict::Retry(Cause::Unavailable)),
        ] {
            assert_eq!(judge(code, err_code, description), verdict, "{description}");
        }
    }

    #[test]
    fn delays_are_spread_below_a_ceiling_that_doubles_up_to_the_maximum() {
        let mut ceilings = vec![Duration::ZERO; 12];
        for seed in 0..200 {
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(4), seed);
            for ceiling in &mut ceilings {
                *ceiling = backoff.next().max(*ceiling);
            }
            backoff.reset();
            assert!(backoff.next() < Duration::from_millis(50));
        }
        for (attempt, ceiling) in ceilings.into_iter().enumerate() {
            let expected = Duration::from_millis(50 << attempt).min(Duration::from_secs(4));
            assert!(ceiling < expected && ceiling > expected.mul_f64(0.9), "attempt {attempt}: {ceiling:?}");
        }
    }
}
