//! The trace that an event belongs to: the `traceparent` of W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

/// The name of the header, and of the field of a span.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// A `traceparent`: which trace an event belongs to, and which span of it has published it.
///
/// ```
/// let parent: jetring::TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
/// jetring::trace_scope(parent, || jetring::publish("priceEstimate", &1));
/// # Ok::<(), jetring::TraceParentError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent([u8; Self::LEN]);

impl TraceParent {
    /// Bytes of the text.
    pub(crate) const LEN: usize = 55;

    /// The text.
    pub fn as_str(&self) -> &str {
        // What was parsed is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Of bytes that [`as_bytes`](Self::as_bytes) gave.
    pub(crate) fn of_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Appends the header as a record of a log has it.
    pub(crate) fn write_header(&self, out: &mut Vec<u8>) {
        [TRACEPARENT, ": ", self.as_str(), "\r\n"]
            .iter()
            .for_each(|part| out.extend_from_slice(part.as_bytes()));
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// Takes what a header says: version, trace id, parent id and flags, in lower-case hexadecimal digits. Of a version above 00, which may be
    /// longer, the part that all versions have.
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let (head, rest) = text.as_bytes().split_first_chunk::<{ Self::LEN }>().ok_or(TraceParentError)?;
        let is_whole = rest.is_empty() || (!head.starts_with(b"00") && rest[0] == b'-');
        let mut parts = head.split(|&byte| byte == b'-');
        let [version, trace, parent, flags] = [2, 32, 16, 2].map(|len| {
            let part = parts.next()?;
            let is_hex = part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (part.len() == len && is_hex).then_some(part)
        });
        let is_zero = |part: &[u8]| part.iter().all(|&digit| digit == b'0');
        let is_valid = is_whole
            && version.is_some_and(|version| version != b"ff")
            && trace.is_some_and(|trace| !is_zero(trace))
            && parent.is_some_and(|parent| !is_zero(parent))
            && flags.is_some()
            && parts.next().is_none();
        if is_valid { Ok(Self(*head)) } else { Err(TraceParentError) }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no traceparent: 00-<32 hexadecimal digits>-<16>-<2>, in lower case, the ids not zero")]
pub struct TraceParentError;

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_prints_as_it_was_read() {
        assert_eq!(VALID.parse::<TraceParent>().map(|parent| parent.to_string()), Ok(VALID.to_owned()));
    }

    #[test]
    fn of_a_later_version_the_known_part_is_taken() {
        let later = VALID.replacen("00", "cc", 1);
        let parsed = format!("{later}-what-the-future-will-be-like").parse::<TraceParent>();
        assert_eq!(parsed.map(|parent| parent.to_string()), Ok(later));
    }

    #[test]
    fn what_the_standard_calls_invalid_is_refused() {
        for text in [
            "",
            "00",
            &VALID[1..],
            &VALID[..54],
            &format!("{VALID}0"),
            &format!("{VALID}-more"),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0g", 1),
            &VALID.replace("4bf9", "4BF9"),
            &VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &VALID.replace("-01", "-0\n"),
            &VALID.replace('-', "_"),
            &VALID.replace("0e4736-00f0", "0e47360-0f0"),
            &format!("cc{}x", &VALID[2..]),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(TraceParentError), "{text:?}");
        }
    }
}
