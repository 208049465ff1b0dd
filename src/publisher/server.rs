//! What a server says of itself, and of the stream.

use std::time::Duration;

/// What the server said of itself when it was connected to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerInfo {
    /// Largest message, headers included.
    pub(crate) max_payload: usize,
    pub(crate) version: ServerVersion,
}

/// What is known of the stream.
#[derive(Clone, Debug)]
pub(crate) enum StreamState {
    Missing,
    Found(StreamInfo),
    /// No answer came, or none that says anything of the stream. Publishing may well be possible.
    Unknown,
    /// The server said that we may not ask. Publishing may well be possible.
    Denied,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct StreamInfo {
    /// The patterns of the subjects that it takes.
    pub(crate) subjects: Vec<String>,
    /// Whether it takes fast-ingest batches.
    pub(crate) allows_batches: bool,
    /// When it was made, as the server tells it: a stream that was made again is another one.
    pub(crate) created: String,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    /// How long it knows message ids.
    pub(crate) duplicate_window: Duration,
    /// The largest message that it takes, headers included, if it says so.
    pub(crate) message_bytes_max: Option<usize>,
    /// Bytes that it holds at most, if it says so.
    pub(crate) bytes_max: Option<usize>,
}

/// A version of nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl ServerVersion {
    /// Fast-ingest batches came with 2.14.0, and were put right up to this version (nats-server #7945, #8053, #8308).
    pub(crate) const FAST: Self = Self(2, 14, 3);

    /// Of a server that is not known.
    pub(crate) const NONE: Self = Self(0, 0, 0);

    /// Reads `2.15.1`, `2.15.0-RC.2`. What is no version counts as an old one.
    pub(crate) fn parse(text: &str) -> Self {
        let number = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let mut parts = text.trim_start_matches('v').splitn(3, '.').map(|part| number(part).unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        for (text, version) in [
            ("2.15.1", ServerVersion(2, 15, 1)),
            ("v2.14.10", ServerVersion(2, 14, 10)),
            ("2.15.0-RC.2", ServerVersion(2, 15, 0)),
            ("3", ServerVersion(3, 0, 0)),
            ("", ServerVersion(0, 0, 0)),
        ] {
            assert_eq!(ServerVersion::parse(text), version, "{text}");
        }
        assert!(ServerVersion::parse("2.14.10") > ServerVersion::FAST);
    }
}
