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

/// Whether an error of the server can pass, and who has to wait for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It can, and it is the stream's: everything waits.
    Retry(Cause),
    /// It can, and it is this message's or its subject's: the others go on.
    Park(Cause),
    /// Nothing is known of it. It is taken for this message's, until others get it too.
    Unknown,
    /// It cannot.
    Final(Reason),
}

/// Judges an error by its code in nats-server's `errors.json`: each that a publish can meet, and whom it concerns. A test has them all by name.
pub(crate) fn judge(code: u64, err_code: u64, description: &str) -> Verdict {
    use Verdict::{Final, Park, Retry};
    match err_code {
        // This message, whatever the others are: too large, its headers too large, a message of a kind that the stream does not take.
        10054 | 10097 => Final(Reason::TooLarge),
        10060
        | 10070
        | 10071
        | 10111
        | 10164..=10166
        | 10168..=10172
        | 10174..=10177
        | 10179
        | 10180
        | 10185
        | 10188..=10193
        | 10199..=10201
        | 10203
        | 10212
        | 10223
        | 10227 => Final(Reason::Rejected),
        // The stream takes nothing any more.
        10109 => Final(Reason::Rejected),
        // This message or its subject, and it passes: its id is being stored, or its subject's last sequence is not known yet.
        10158 | 10163 => Park(Cause::Unavailable),
        // "Store failed" is one code for many things, told apart by its text only (store.go, `ErrMax…`, `ErrMsgTooLarge`).
        10077 if ["message size", "too large"].iter().any(|text| description.contains(text)) => {
            Final(Reason::TooLarge)
        }
        10077 if description.contains("per subject") => Park(Cause::StreamFull),
        10077 if description.contains("maximum") => Retry(Cause::StreamFull),
        10167 | 10210 | 10211 => Retry(Cause::TooManyRequests),
        _ if code == 429 => Retry(Cause::TooManyRequests),
        // The stream is looked at again.
        10059 => Retry(Cause::NoStream),
        // The stream, its server, its cluster or the account.
        10002
        | 10007..=10010
        | 10023
        | 10028
        | 10035
        | 10039
        | 10041
        | 10047
        | 10051
        | 10053
        | 10063
        | 10076
        | 10077
        | 10096
        | 10118
        | 10120
        | 10122
        | 10194 => Retry(Cause::Unavailable),
        // The engine: 10205 to 10207 are found before they come here, unless a single message gets them.
        10205..=10208 => Retry(Cause::Unavailable),
        _ => Verdict::Unknown,
    }
}

/// Each error of nats-server's `errors.json` (2.15) that a publish can meet: what `stream.go`, `jetstream_cluster.go` and
/// `jetstream_batching.go` answer to one.
#[cfg(any(test, feature = "__internals"))]
pub(crate) const ERRORS: &[(u64, u64, &str, Verdict)] = &[
    (400, 10002, "resource limits exceeded for account", Verdict::Retry(Cause::Unavailable)),
    (500, 10007, "JetStream cluster not assigned to this server", Verdict::Retry(Cause::Unavailable)),
    (503, 10008, "JetStream system temporarily unavailable", Verdict::Retry(Cause::Unavailable)),
    (500, 10009, "JetStream cluster can not handle request", Verdict::Retry(Cause::Unavailable)),
    (503, 10010, "JetStream clustering support required", Verdict::Retry(Cause::Unavailable)),
    (503, 10023, "insufficient resources", Verdict::Retry(Cause::Unavailable)),
    (500, 10028, "insufficient memory resources available", Verdict::Retry(Cause::Unavailable)),
    (503, 10035, "account not found", Verdict::Retry(Cause::Unavailable)),
    (503, 10039, "JetStream not enabled for account", Verdict::Retry(Cause::Unavailable)),
    (500, 10041, "raft: not leader", Verdict::Retry(Cause::Unavailable)),
    (500, 10047, "insufficient storage resources available", Verdict::Retry(Cause::Unavailable)),
    (500, 10051, "general stream error", Verdict::Retry(Cause::Unavailable)),
    (500, 10053, "stream limits", Verdict::Retry(Cause::Unavailable)),
    (400, 10054, "message size exceeds maximum allowed", Verdict::Final(Reason::TooLarge)),
    (404, 10059, "stream not found", Verdict::Retry(Cause::NoStream)),
    (400, 10060, "expected stream does not match", Verdict::Final(Reason::Rejected)),
    (503, 10063, "expected stream sequence does not match", Verdict::Retry(Cause::Unavailable)),
    (400, 10070, "wrong last msg ID: a", Verdict::Final(Reason::Rejected)),
    (400, 10071, "wrong last sequence: 7", Verdict::Final(Reason::Rejected)),
    (503, 10076, "JetStream not enabled", Verdict::Retry(Cause::Unavailable)),
    (503, 10077, "maximum messages exceeded", Verdict::Retry(Cause::StreamFull)),
    (503, 10077, "maximum bytes exceeded", Verdict::Retry(Cause::StreamFull)),
    (503, 10077, "maximum messages per subject exceeded", Verdict::Park(Cause::StreamFull)),
    (503, 10077, "message too large", Verdict::Final(Reason::TooLarge)),
    (503, 10077, "message size exceeds maximum allowed", Verdict::Final(Reason::TooLarge)),
    (503, 10077, "write failed: input/output error", Verdict::Retry(Cause::Unavailable)),
    (500, 10096, "stream not valid", Verdict::Retry(Cause::Unavailable)),
    (400, 10097, "header size exceeds maximum allowed of 64k", Verdict::Final(Reason::TooLarge)),
    (400, 10109, "invalid operation on sealed stream", Verdict::Final(Reason::Rejected)),
    (500, 10111, "rollup not permitted", Verdict::Final(Reason::Rejected)),
    (500, 10118, "stream is offline", Verdict::Retry(Cause::Unavailable)),
    (
        400,
        10120,
        "no JetStream default or applicable tiered limit present",
        Verdict::Retry(Cause::Unavailable),
    ),
    (
        400,
        10122,
        "stream max bytes exceeds account limit max stream bytes",
        Verdict::Retry(Cause::Unavailable),
    ),
    (409, 10158, "duplicate message id is in process", Verdict::Park(Cause::Unavailable)),
    (
        503,
        10163,
        "expected last sequence per subject temporarily unavailable",
        Verdict::Park(Cause::Unavailable),
    ),
    (400, 10164, "wrong last sequence", Verdict::Final(Reason::Rejected)),
    (400, 10165, "invalid per-message TTL", Verdict::Final(Reason::Rejected)),
    (400, 10166, "per-message TTL is disabled", Verdict::Final(Reason::Rejected)),
    (429, 10167, "too many requests", Verdict::Retry(Cause::TooManyRequests)),
    (400, 10168, "message counters is disabled", Verdict::Final(Reason::Rejected)),
    (400, 10169, "message counter increment is missing", Verdict::Final(Reason::Rejected)),
    (400, 10170, "message counter has payload", Verdict::Final(Reason::Rejected)),
    (400, 10171, "message counter increment is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10172, "message counter is broken", Verdict::Final(Reason::Rejected)),
    (400, 10174, "atomic publish is disabled", Verdict::Final(Reason::Rejected)),
    (400, 10175, "atomic publish sequence is missing", Verdict::Final(Reason::Rejected)),
    (400, 10176, "atomic publish batch is incomplete", Verdict::Final(Reason::Rejected)),
    (400, 10177, "atomic publish unsupported header used: a", Verdict::Final(Reason::Rejected)),
    (400, 10179, "atomic publish batch ID is invalid", Verdict::Final(Reason::Rejected)),
    (412, 10180, "min last sequence", Verdict::Final(Reason::Rejected)),
    (412, 10185, "JetStream minimum api level required", Verdict::Final(Reason::Rejected)),
    (400, 10188, "message schedules is disabled", Verdict::Final(Reason::Rejected)),
    (400, 10189, "message schedules pattern is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10190, "message schedules target is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10191, "message schedules invalid per-message TTL", Verdict::Final(Reason::Rejected)),
    (400, 10192, "message schedules invalid rollup", Verdict::Final(Reason::Rejected)),
    (400, 10193, "missing sequence for expected last sequence per subject", Verdict::Final(Reason::Rejected)),
    (500, 10194, "stream is offline: a", Verdict::Retry(Cause::Unavailable)),
    (400, 10199, "atomic publish batch is too large: 7", Verdict::Final(Reason::Rejected)),
    (400, 10200, "atomic publish batch commit is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10201, "atomic publish batch contains duplicate message id", Verdict::Final(Reason::Rejected)),
    (400, 10203, "message schedules source is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10205, "batch publish is disabled", Verdict::Retry(Cause::Unavailable)),
    (400, 10206, "batch publish pattern is invalid", Verdict::Retry(Cause::Unavailable)),
    (400, 10207, "batch publish ID is invalid", Verdict::Retry(Cause::Unavailable)),
    (400, 10208, "batch publish ID unknown", Verdict::Retry(Cause::Unavailable)),
    (429, 10210, "atomic publish too many inflight", Verdict::Retry(Cause::TooManyRequests)),
    (429, 10211, "batch publish too many inflight", Verdict::Retry(Cause::TooManyRequests)),
    (400, 10212, "message schedules invalid scheduler", Verdict::Final(Reason::Rejected)),
    (400, 10223, "message schedules time zone is invalid", Verdict::Final(Reason::Rejected)),
    (400, 10227, "message stream source header is not allowed", Verdict::Final(Reason::Rejected)),
    // Of a later server, and of a broken one.
    (429, 65_001, "too much of something", Verdict::Retry(Cause::TooManyRequests)),
    (500, 65_000, "an error of a later server", Verdict::Unknown),
    (0, 0, "", Verdict::Unknown),
    (u64::MAX, u64::MAX, "", Verdict::Unknown),
];

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
        for &(code, err_code, description, verdict) in ERRORS {
            assert_eq!(judge(code, err_code, description), verdict, "{err_code} {description}");
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
