//! What JetStream says when it refuses, with the codes and words of nats-server's `errors.json`.

use serde::Serialize;
use std::borrow::Cow;

/// An error of JetStream, as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ApiError {
    /// The kind, as in HTTP.
    pub code: u16,
    /// Which error it is.
    pub err_code: u16,
    /// In words.
    pub description: Cow<'static, str>,
}

impl ApiError {
    /// Any error.
    #[must_use]
    pub const fn new(code: u16, err_code: u16, description: &'static str) -> Self {
        Self { code, err_code, description: Cow::Borrowed(description) }
    }

    pub(super) fn worded(code: u16, err_code: u16, description: String) -> Self {
        Self { code, err_code, description: Cow::Owned(description) }
    }

    /// The stream's queue of what comes in is full. Passes.
    pub const TOO_MANY_REQUESTS: Self = Self::new(429, 10167, "too many requests");
    /// JetStream is not available for the moment. Passes.
    pub const UNAVAILABLE: Self = Self::new(503, 10008, "JetStream system temporarily unavailable");
    /// The server has no resources left. May pass.
    pub const INSUFFICIENT_RESOURCES: Self = Self::new(503, 10023, "insufficient resources");
    /// The stream has its `max_msgs` and discards new messages. Passes if somebody makes room.
    pub const STREAM_FULL: Self = Self::new(503, 10077, "maximum messages exceeded");
    /// The stream that was asked for is not there.
    pub const STREAM_NOT_FOUND: Self = Self::new(404, 10059, "stream not found");
    /// The message has more than the stream's `max_msg_size`. Does not pass.
    pub const MESSAGE_TOO_LARGE: Self = Self::new(400, 10054, "message size exceeds maximum allowed");
    /// The stream was sealed. Does not pass.
    pub const STREAM_SEALED: Self = Self::new(400, 10109, "invalid operation on sealed stream");

    pub(super) const BAD_REQUEST: Self = Self::new(400, 10003, "bad request");
    pub(super) const CONSUMER_NOT_FOUND: Self = Self::new(404, 10014, "consumer not found");
    pub(super) const NO_MESSAGE: Self = Self::new(404, 10037, "no message found");
    pub(super) const NAME_MISMATCH: Self =
        Self::new(400, 10056, "stream name in subject does not match request");
    pub(super) const NO_MESSAGE_TO_DELETE: Self = Self::new(500, 10057, "no message found");
    pub(super) const NO_MESSAGE_YET: Self = Self::new(500, 10057, "stream store EOF");
    pub(super) const NAME_IN_USE: Self =
        Self::new(400, 10058, "stream name already in use with a different configuration");
    pub(super) const NOT_EXPECTED_STREAM: Self = Self::new(400, 10060, "expected stream does not match");
    pub(super) const SUBJECTS_OVERLAP: Self =
        Self::new(400, 10065, "subjects overlap with an existing stream");
    pub(super) const REPLICAS: Self =
        Self::new(500, 10074, "replicas > 1 not supported in non-clustered mode");
    pub(super) const BYTES_EXCEEDED: Self = Self::new(503, 10077, "maximum bytes exceeded");
    pub(super) const SUBJECT_FULL: Self = Self::new(503, 10077, "maximum messages per subject exceeded");
    pub(super) const FILTER_MISMATCH: Self =
        Self::new(400, 10131, "Consumer create request did not match filtered subject from create subject");
    pub(super) const CONSUMER_EXISTS: Self = Self::new(400, 10148, "consumer already exists");
    pub(super) const BATCHES_DISABLED: Self = Self::new(400, 10205, "batch publish is disabled");
    pub(super) const BATCH_MALFORMED: Self = Self::new(400, 10206, "batch publish pattern is invalid");
    pub(super) const BATCH_ID: Self = Self::new(400, 10207, "batch publish ID is invalid");
    pub(super) const BATCH_UNKNOWN: Self = Self::new(400, 10208, "batch publish ID unknown");
    pub(super) const BATCHES_TOO_MANY: Self = Self::new(429, 10211, "batch publish too many inflight");

    pub(super) fn invalid_json(error: &serde_json::Error) -> Self {
        Self::worded(400, 10025, format!("invalid JSON: {error}"))
    }

    pub(super) fn wrong_last_id(last: &str) -> Self {
        Self::worded(400, 10070, format!("wrong last msg ID: {last}"))
    }

    pub(super) fn wrong_last_sequence(last: u64) -> Self {
        Self::worded(400, 10071, format!("wrong last sequence: {last}"))
    }

    pub(super) fn sequence_not_found(sequence: u64) -> Self {
        Self::worded(400, 10043, format!("sequence {sequence} not found"))
    }

    /// The configuration of a stream that cannot be, or that this server does not know.
    pub(super) fn stream_config(problem: String) -> Self {
        Self::worded(500, 10052, problem)
    }

    /// The same of a consumer.
    pub(super) fn consumer_config(problem: impl Into<String>) -> Self {
        Self::worded(500, 10012, problem.into())
    }
}
