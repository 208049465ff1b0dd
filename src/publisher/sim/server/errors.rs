//! Errors of nats-server's `errors.json` that a publisher may see.

use super::super::wire::Refusal;

const fn refusal(code: u16, err_code: u32, text: &'static str) -> Refusal {
    Refusal { code, err_code, text }
}

pub(super) const TOO_LARGE: Refusal = refusal(400, 10054, "message size exceeds maximum allowed");
pub(super) const NO_STREAM: Refusal = refusal(404, 10059, "stream not found");
pub(super) const FULL: Refusal = refusal(503, 10077, "maximum messages exceeded");
pub(super) const SUBJECT_FULL: Refusal = refusal(503, 10077, "maximum messages per subject exceeded");
pub(super) const IN_PROCESS: Refusal = refusal(409, 10158, "duplicate message id is in process");
pub(super) const BATCHES_DISABLED: Refusal = refusal(400, 10205, "batch publish is disabled");
pub(super) const BATCH_MALFORMED: Refusal = refusal(400, 10206, "batch publish pattern is invalid");
pub(super) const BATCH_UNKNOWN: Refusal = refusal(400, 10208, "batch publish ID unknown");
pub(super) const BATCHES_TOO_MANY: Refusal = refusal(429, 10211, "batch publish too many inflight");

/// What may happen to all messages of one subject, and to no other.
pub(in super::super) const OF_SUBJECTS: &[Refusal] = &[
    SUBJECT_FULL,
    refusal(503, 10163, "expected last sequence per subject temporarily unavailable"),
    refusal(500, 65_000, "an error of a later server"),
    refusal(400, 65_001, "another error of a later server"),
    refusal(0, 0, ""),
];

/// What may happen to any message at any time, and passes or does not.
pub(in super::super) const GENERATED: &[Refusal] = &[
    refusal(429, 10167, "too many requests"),
    refusal(429, 10167, "too many requests"),
    refusal(503, 10008, "JetStream system temporarily unavailable"),
    refusal(500, 10009, "JetStream cluster can not handle request"),
    refusal(503, 10023, "insufficient resources"),
    refusal(500, 10118, "stream is offline"),
    refusal(503, 10076, "JetStream not enabled"),
    refusal(503, 10039, "JetStream not enabled for account"),
    refusal(503, 10077, "maximum bytes exceeded"),
    refusal(503, 10077, "write failed: input/output error"),
    refusal(400, 10002, "resource limits exceeded for account"),
    refusal(500, 10047, "insufficient storage resources available"),
    refusal(500, 10028, "insufficient memory resources available"),
    refusal(500, 65_000, "an error of a later server"),
    TOO_LARGE,
    refusal(400, 10097, "header size exceeds maximum allowed of 64k"),
    refusal(400, 10109, "invalid operation on sealed stream"),
];
