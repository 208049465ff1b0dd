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
//! | `sampledrate` | if it is not 1 | one event in so many was kept: how many this one stands for (the name is that of the CloudEvents extension) |
//! | `body` | always | the event |
//!
//! It is byte for byte what `serde_json` prints for the same members. A reader must ignore members that it does not know.

use crate::clock::Timestamp;
use crate::encode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The version that this crate writes and reads.
pub const VERSION: &str = "v1";

/// What producers are called.
#[cfg(feature = "schema")]
const PRODUCER: &str = r"^[0-9a-f]{16}\.([0-9]+|([0-9]+\.)?bus)$";

/// An envelope as a reader sees it, borrowing from the message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Envelope<'a> {
    /// Always `v1`: what a reader of this version reads.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(extend("const" = VERSION)))]
    pub version: Cow<'a, str>,
    /// The moment of the publish call, RFC 3339.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    pub timestamp: Cow<'a, str>,
    /// The request that the event belongs to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub request_id: Option<Cow<'a, str>>,
    /// Who numbered the event: 16 hexadecimal digits, random for each start of a process, a dot, and the number of a ring; `bus`
    /// for the reports of a bus, or a partition's number, a dot, and `bus`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("pattern" = PRODUCER)))]
    pub producer: Option<Cow<'a, str>>,
    /// The event's number with its producer, from 1.
    #[cfg_attr(feature = "schema", schemars(with = "u64", extend("minimum" = 1)))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// How many events it stands for, where only one in so many was kept.
    #[serde(rename = "sampledrate", default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "u64", extend("minimum" = 1)))]
    pub sampled_rate: Option<u64>,
    /// The event itself, as it stands in the message.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
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

    /// How many events it stands for: 1, or more where only some were kept. What is counted or added up over events is multiplied by it.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.sampled_rate.unwrap_or(1).max(1)
    }
}

/// The timestamp of an envelope that this crate has written, without reading the rest of it.
pub(crate) fn timestamp_of(envelope: &[u8]) -> Option<Timestamp> {
    let rest = envelope.strip_prefix(&BEGINNING[..BEGINNING_BYTES - SECOND_BYTES])?;
    let end = rest.iter().take(TIMESTAMP_BYTES_MAX).position(|&byte| byte == b'"')?;
    Timestamp::parse(std::str::from_utf8(&rest[..end]).ok()?)
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

/// What the worker knows of an event when it writes the envelope, beside the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) stamp: Option<(&'a str, u64)>,
    /// One in so many was kept.
    pub(crate) sample: u32,
}

/// What all envelopes begin with, up to the second of their timestamp.
const BEGINNING: [u8; BEGINNING_BYTES] = *br#"{"version":"v1","timestamp":"1970-01-01T00:00:00"#;
const BEGINNING_BYTES: usize = 48;
const SECOND_BYTES: usize = 19;
const TIMESTAMP_BYTES_MAX: usize = SECOND_BYTES + ".000000000Z\"".len();

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Writes envelopes. Keeps the beginning of the last one: the next is mostly of the same second.
///
/// Dates are chrono's business, once for each second; the digits behind it are ours, because chrono takes 100 to 200 ns for a
/// timestamp, which is more than all the rest of an envelope.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    second: u64,
    beginning: [u8; BEGINNING_BYTES],
}

impl Writer {
    pub(crate) const fn new() -> Self {
        Self { second: 0, beginning: BEGINNING }
    }

    /// Appends the envelope to `out`, around the JSON that `body` appends.
    #[inline]
    pub(crate) fn write<R>(
        &mut self,
        parts: &Parts<'_>,
        out: &mut Vec<u8>,
        body: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        self.write_timestamp(parts.timestamp, out);
        if let Some(request_id) = parts.request_id {
            out.extend_from_slice(br#","requestId":"#);
            encode::quoted(out, request_id.as_bytes());
        }
        if let Some((producer, seq)) = parts.stamp {
            // A producer's name is hexadecimal digits, a dot and a number or a word of ours: nothing to escape.
            out.extend_from_slice(br#","producer":""#);
            out.extend_from_slice(producer.as_bytes());
            out.extend_from_slice(br#"","seq":"#);
            out.extend_from_slice(itoa::Buffer::new().format(seq).as_bytes());
        }
        if parts.sample > 1 {
            out.extend_from_slice(br#","sampledrate":"#);
            out.extend_from_slice(itoa::Buffer::new().format(parts.sample).as_bytes());
        }
        out.extend_from_slice(br#","body":"#);
        let result = body(out);
        out.push(b'}');
        result
    }

    /// The beginning with the timestamp as chrono prints it: with as many digits of a second as are needed, in groups of three.
    #[inline]
    fn write_timestamp(&mut self, timestamp: Timestamp, out: &mut Vec<u8>) {
        let second = timestamp.0 / NANOS_PER_SECOND;
        if second != self.second {
            self.enter_second(second);
        }
        out.extend_from_slice(&self.beginning);
        let nanos = (timestamp.0 % NANOS_PER_SECOND) as u32;
        let mut fraction = *b".000000000Z\"";
        let groups = [nanos / 1_000_000, nanos / 1000 % 1000, nanos % 1000];
        for (digits, group) in fraction[1..].chunks_exact_mut(3).zip(groups) {
            digits[0] += (group / 100) as u8;
            digits[1] += (group / 10 % 10) as u8;
            digits[2] += (group % 10) as u8;
        }
        match groups {
            [0, 0, 0] => out.extend_from_slice(b"Z\""),
            [_, 0, 0] => out.extend_from_slice(&[&fraction[..4], b"Z\""].concat()),
            [_, _, 0] => out.extend_from_slice(&[&fraction[..7], b"Z\""].concat()),
            _ => out.extend_from_slice(&fraction),
        }
    }

    #[cold]
    fn enter_second(&mut self, second: u64) {
        let text = Timestamp(second * NANOS_PER_SECOND).rfc3339();
        // The year has four digits in all of the 584 years that a timestamp can tell.
        self.beginning[BEGINNING_BYTES - SECOND_BYTES..].copy_from_slice(&text.as_bytes()[..SECOND_BYTES]);
        self.second = second;
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    fn written(request_id: Option<&str>, stamp: Option<(&str, u64)>, body: &str) -> String {
        sampled(request_id, stamp, 1, body)
    }

    fn sampled(request_id: Option<&str>, stamp: Option<(&str, u64)>, sample: u32, body: &str) -> String {
        let mut out = Vec::new();
        let parts = Parts { timestamp: Timestamp(1_783_349_810_551_377_776), request_id, stamp, sample };
        Writer::new().write(&parts, &mut out, |out| out.extend_from_slice(body.as_bytes()));
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
    fn an_event_that_stands_for_others_says_so_before_the_body() {
        let text = sampled(Some("q"), Some(("00000000000000ff.3", 42)), 100, "null");
        assert!(
            text.ends_with(
                r#","requestId":"q","producer":"00000000000000ff.3","seq":42,"sampledrate":100,"body":null}"#
            ),
            "{text}"
        );
        assert_eq!(Envelope::parse(text.as_bytes()).unwrap().weight(), 100);
        let bare = sampled(None, None, 2, "{}");
        assert!(bare.ends_with(r#"Z","sampledrate":2,"body":{}}"#), "{bare}");
        // Of another writer: what stands for nothing is there all the same.
        for (member, weight) in [("", 1), (r#""sampledrate":1,"#, 1), (r#""sampledrate":0,"#, 1)] {
            let text = format!(r#"{{"version":"v1","timestamp":"t",{member}"body":1}}"#);
            assert_eq!(Envelope::parse(text.as_bytes()).unwrap().weight(), weight);
        }
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

    fn timestamp(writer: &mut Writer, nanos: u64) -> String {
        let mut out = Vec::new();
        writer.write_timestamp(Timestamp(nanos), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn expected_timestamp(nanos: u64) -> String {
        format!(r#"{{"version":"v1","timestamp":"{}""#, Timestamp(nanos).rfc3339())
    }

    #[test]
    fn timestamps_have_the_digits_that_chrono_gives_them() {
        let mut writer = Writer::new();
        for nanos in [0, 1, 999, 1000, 1_000_000, 1_001_000, 999_999_999, 1_000_000_000, u64::MAX] {
            assert_eq!(timestamp(&mut writer, nanos), expected_timestamp(nanos));
        }
    }

    proptest! {
        /// With one writer, whose last second may be any other.
        #[test]
        fn timestamps_are_those_of_chrono_in_whatever_order_they_come(
            moments in proptest::collection::vec(
                (prop_oneof![any::<u64>(), 1_783_349_800_000_000_000..1_783_349_803_000_000_000u64], 0..4usize),
                1..20,
            )
        ) {
            let mut writer = Writer::new();
            for (nanos, groups) in moments {
                let nanos = nanos - nanos % [1_000_000_000, 1_000_000, 1000, 1][groups];
                prop_assert_eq!(timestamp(&mut writer, nanos), expected_timestamp(nanos));
            }
        }

        /// Both ways, and against serde_json as the oracle for the bytes.
        #[test]
        fn an_envelope_is_read_back_as_written_and_printed_as_serde_json_prints_it(
            request_id in proptest::option::of(".*"),
            seq in proptest::option::of(any::<u64>()),
            sample in prop_oneof![Just(1), any::<u32>()],
            body in prop_oneof![Just("{}".to_owned()), ".*".prop_map(|s| serde_json::to_string(&s).unwrap())],
        ) {
            let stamp = seq.map(|seq| ("0123456789abcdef.12", seq));
            let text = sampled(request_id.as_deref(), stamp, sample, &body);
            let envelope = Envelope::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(envelope.request_id.as_deref(), request_id.as_deref());
            prop_assert_eq!(envelope.stamp().map(|(_, seq)| seq), seq);
            prop_assert_eq!(envelope.weight(), u64::from(sample.max(1)));
            prop_assert_eq!(envelope.body.get(), body);
            prop_assert_eq!(serde_json::to_string(&envelope).unwrap(), text);
        }
    }
}
