//! What the server says to a publish: the JSON of a `PubAck`, taken apart.

use super::retry::{Cause, Verdict, judge};
use crate::ledger::Reason;
use serde::Deserialize;

/// An answer to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It is stored, under this sequence of the stream; `duplicate` if it had been stored before.
    Stored { sequence: u64, duplicate: bool },
    /// It is not stored.
    Refused { verdict: Verdict, text: String },
    /// Something that is no answer; the message's fate stays open.
    Unintelligible(String),
}

#[derive(Deserialize)]
struct PubAck<'a> {
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow)]
    error: Option<ApiError<'a>>,
}

#[derive(Deserialize)]
struct ApiError<'a> {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(borrow, default)]
    description: std::borrow::Cow<'a, str>,
}

impl Reply {
    /// No subscriber to the subject: the server's status 503.
    pub(crate) fn no_responders() -> Self {
        Self::Refused {
            verdict: Verdict::Retry(Cause::NoStream),
            text: "no stream takes this subject".to_owned(),
        }
    }

    /// Reads a `PubAck`. An event that another stream has taken is refused: nobody would look for it there.
    pub(crate) fn parse(payload: &[u8], expected_stream: &str) -> Self {
        let ack: PubAck<'_> = match serde_json::from_slice(payload) {
            Ok(ack) => ack,
            Err(error) => return Self::Unintelligible(error.to_string()),
        };
        if let Some(error) = ack.error {
            let verdict = judge(error.code, error.err_code, &error.description);
            return Self::Refused { verdict, text: format!("{} ({})", error.description, error.err_code) };
        }
        if ack.seq == 0 {
            // Servers before 2.10.22 may answer so for a duplicate of a message that they do not have (#5827).
            return Self::Unintelligible("acknowledged without a sequence".to_owned());
        }
        if ack.stream != expected_stream {
            let text = format!(
                "stored by stream {:?}, not by {expected_stream:?}: check the streams' subjects",
                ack.stream
            );
            return Self::Refused { verdict: Verdict::Final(Reason::Rejected), text };
        }
        Self::Stored { sequence: ack.seq, duplicate: ack.duplicate }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_are_read_with_and_without_their_optional_members() {
        for (payload, duplicate) in [
            (r#"{"stream":"main","seq":7}"#, false),
            (r#"{"stream":"main", "domain":"hub", "seq":7, "duplicate":true}"#, true),
            (r#"{"type":"io.nats.x","stream":"main","seq":7,"val":"9","batch":"b","count":3}"#, false),
        ] {
            assert_eq!(Reply::parse(payload.as_bytes(), "main"), Reply::Stored { sequence: 7, duplicate });
        }
    }

    #[test]
    fn refusals_carry_the_verdict_and_the_servers_words() {
        let payload = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"main","seq":0}"#;
        let expected = Reply::Refused {
            verdict: Verdict::Retry(Cause::StreamFull),
            text: "maximum messages exceeded (10077)".to_owned(),
        };
        assert_eq!(Reply::parse(payload, "main"), expected);
    }

    #[test]
    fn an_ack_of_another_stream_is_no_ack() {
        let reply = Reply::parse(br#"{"stream":"other","seq":7}"#, "main");
        assert!(matches!(reply, Reply::Refused { verdict: Verdict::Final(Reason::Rejected), .. }));
    }

    #[test]
    fn what_is_no_answer_leaves_the_fate_open() {
        for payload in ["", "{", "[]", r#"{"stream":"main","seq":0,"duplicate":true}"#, r#"{"seq":-1}"#] {
            assert!(
                matches!(Reply::parse(payload.as_bytes(), "main"), Reply::Unintelligible(_)),
                "{payload}"
            );
        }
    }
}
