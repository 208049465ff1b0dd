//! The wire format, version 1, written and read.
//!
//! ```json
//! {"version":"v1","timestamp":"2026-07-06T14:56:50.551377776Z","requestId":"q-17","producer":"00f1e2d3c4b5a697.0","seq":42,"body":{…}}
//! ```
//!
//! | member | when | meaning |
//! | --- | --- | --- |
//! | `version` | always | `"v1"` |
//! | `timestamp` | always | the moment of the `publish` call, RFC 3339, UTC |
//! | `requestId` | if there is one | ties together the events of one request |
//! | `producer` | stamped | 16 hex digits, random for each start of a process, a dot, and the number of a ring |
//! | `seq` | stamped | counts the offers of that producer from 1, accepted and dropped alike, so that a loss leaves a hole |
//! | `body` | always | the event |
//!
//! It is byte for byte what `serde_json` prints for the same members. A reader must ignore members that it does not know.

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The version that this crate writes and reads.
pub const VERSION: &str = "v1";

/// An envelope as a reader sees it, borrowing from the message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// Always [`VERSION`] in what this crate writes.
    #[serde(borrow)]
    pub version: Cow<'a, str>,
    /// The moment of the publish call, RFC 3339.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// The request that the event belongs to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Cow<'a, str>>,
    /// Who numbered the event; see the module's table.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<Cow<'a, str>>,
    /// The event's number with its producer, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The event itself, as it stands in the message.
    #[serde(borrow)]
    pub body: &'a RawValue,
}

impl<'a> Envelope<'a> {
    /// Reads an envelope.
    ///
    /// # Errors
    ///
    /// When the bytes are not JSON, a member is missing or of the wrong type, or the version is not [`VERSION`].
    pub fn parse(message: &'a [u8]) -> Result<Self, EnvelopeError> {
        let envelope: Self = serde_json::from_slice(message)?;
        if envelope.version == VERSION {
            Ok(envelope)
        } else {
            Err(EnvelopeError::Version(envelope.version.into_owned()))
        }
    }

    /// The producer and number, if the envelope is stamped.
    pub fn stamp(&self) -> Option<(&str, u64)> {
        Some((self.producer.as_deref()?, self.seq?))
    }
}

/// A message is not an envelope of this version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not JSON, or not the members of an envelope.
    #[error("not an envelope: {0}")]
    Malformed(#[from] serde_json::Error),
    /// An envelope of another version.
    #[error("envelope version {0:?}; this is a reader of \"v1\"")]
    Version(String),
}

/// What the worker knows of an event when it writes the envelope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) stamp: Option<(&'a str, u64)>,
    /// JSON.
    pub(crate) body: &'a [u8],
}

impl Parts<'_> {
    /// Appends the envelope to `out`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"version":"v1","timestamp":""#);
        out.extend_from_slice(self.timestamp.rfc3339().as_bytes());
        out.push(b'"');
        if let Some(request_id) = self.request_id {
            out.extend_from_slice(br#","requestId":"#);
            // A string into a vector: serde_json has no way to fail here.
            let _ = serde_json::to_writer(&mut *out, request_id);
        }
        if let Some((producer, seq)) = self.stamp {
            // A producer's name is hexadecimal digits, a dot and a number or a word of ours: nothing to escape.
            out.extend_from_slice(br#","producer":""#);
            out.extend_from_slice(producer.as_bytes());
            out.extend_from_slice(br#"","seq":"#);
            let _ = serde_json::to_writer(&mut *out, &seq);
        }
        out.extend_from_slice(br#","body":"#);
        out.extend_from_slice(self.body);
        out.push(b'}');
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn written(request_id: Option<&str>, stamp: Option<(&str, u64)>, body: &str) -> String {
        let mut out = Vec::new();
        let parts = Parts {
            timestamp: Timestamp(1_783_349_810_551_377_776),
            request_id,
            stamp,
            body: body.as_bytes(),
        };
        parts.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_bare_envelope_is_the_v1_of_the_original_bus() {
        assert_eq!(
            written(None, None, r#"{"a":1}"#),
            r#"{"version":"v1","timestamp":"2026-07-06T14:56:50.551377776Z","body":{"a":1}}"#
        );
    }

    #[test]
    fn request_id_and_stamp_stand_before_the_body() {
        assert_eq!(
            written(Some("q \"1\""), Some(("00000000000000ff.3", 42)), "null"),
            r#"{"version":"v1","timestamp":"2026-07-06T14:56:50.551377776Z","requestId":"q \"1\"","producer":"00000000000000ff.3","seq":42,"body":null}"#
        );
    }

    #[test]
    fn what_is_not_an_envelope_is_refused_with_its_cause() {
        for (message, cause) in [
            ("", "EOF"),
            ("[]", "invalid length"),
            (r#"{"version":"v1","timestamp":"t"}"#, "missing field `body`"),
            (r#"{"version":"v2","timestamp":"t","body":1}"#, "\"v2\""),
            (r#"{"version":"v1","timestamp":"t","seq":-1,"body":1}"#, "invalid value"),
        ] {
            let error = Envelope::parse(message.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(cause), "{message}: {error}");
        }
    }

    #[test]
    fn members_that_a_reader_does_not_know_are_ignored() {
        let message = r#"{"version":"v1","timestamp":"t","new":{"x":[1]},"body":[1]}"#;
        assert_eq!(Envelope::parse(message.as_bytes()).unwrap().body.get(), "[1]");
    }

    proptest! {
        /// Both ways, and against serde_json as the oracle for the bytes.
        #[test]
        fn an_envelope_is_read_back_as_written_and_printed_as_serde_json_prints_it(
            request_id in proptest::option::of(".*"),
            seq in proptest::option::of(any::<u64>()),
            body in prop_oneof![Just("{}".to_owned()), ".*".prop_map(|s| serde_json::to_string(&s).unwrap())],
        ) {
            let text = written(request_id.as_deref(), seq.map(|seq| ("0123456789abcdef.12", seq)), &body);
            let envelope = Envelope::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(envelope.request_id.as_deref(), request_id.as_deref());
            prop_assert_eq!(envelope.stamp().map(|(_, seq)| seq), seq);
            prop_assert_eq!(envelope.body.get(), body);
            prop_assert_eq!(serde_json::to_string(&envelope).unwrap(), text);
        }
    }
}
