//! What the server says to a publish or to a part of a batch: JSON, taken apart.

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

/// An answer to a part of a fast-ingest batch (ADR-50, gap mode `fail`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BatchReply {
    /// All places up to `seq` are stored; the next acknowledgement comes after `messages` more. With the place 0 it is the grant: the
    /// batch has begun.
    Ack { seq: u64, messages: u64 },
    /// A place is missing, so the batch is over; [`Ended`](Self::Ended) follows.
    Gap,
    /// The message at this place is not stored, so the batch is over; [`Ended`](Self::Ended) follows.
    Refused { seq: u64, verdict: Verdict, text: String },
    /// The batch is over, and stored are the places up to `count`, the last of them under this sequence of the stream.
    Ended { count: u64, sequence: u64 },
    /// The same, from a stream that is not ours.
    Elsewhere { count: u64, text: String },
    /// This part was not taken.
    Failed { failure: Failure, text: String },
    /// Something that is no answer.
    Unintelligible(String),
}

/// Why a part of a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The stream knows no such batch, or none any more.
    Unknown,
    /// The stream takes no batches, or not such ones.
    Disabled,
    Other(Verdict),
}

/// All members that an answer can have; which there are says what it is.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    msgs: u64,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow)]
    error: Option<ApiError<'a>>,
}

#[derive(Deserialize)]
struct ApiError<'a> {
    // As wide as JSON's own: an error with a number that we do not know is an error.
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(borrow, default)]
    description: std::borrow::Cow<'a, str>,
}

impl ApiError<'_> {
    fn verdict(&self) -> Verdict {
        judge(self.code, self.err_code, &self.description)
    }

    fn text(&self) -> String {
        format!("{} ({})", self.description, self.err_code)
    }
}

fn stored_elsewhere(stream: &str, expected_stream: &str) -> String {
    format!("stored by stream {stream:?}, not by {expected_stream:?}: check the streams' subjects")
}

impl Reply {
    /// No subscriber to the subject: the server's status 503.
    pub(crate) fn no_responders() -> Self {
        Self::Refused { verdict: Verdict::Retry(Cause::NoStream), text: NO_RESPONDERS.to_owned() }
    }

    /// Reads a `PubAck`. An event that another stream has taken is refused: nobody would look for it there.
    pub(crate) fn parse(payload: &[u8], expected_stream: &str) -> Self {
        let answer: Answer<'_> = match serde_json::from_slice(payload) {
            Ok(answer) => answer,
            Err(error) => return Self::Unintelligible(error.to_string()),
        };
        if let Some(error) = answer.error {
            return Self::Refused { verdict: error.verdict(), text: error.text() };
        }
        if answer.seq == 0 {
            // Servers before 2.10.22 may answer so for a duplicate of a message that they do not have (#5827).
            return Self::Unintelligible("acknowledged without a sequence".to_owned());
        }
        if answer.stream != expected_stream {
            let text = stored_elsewhere(&answer.stream, expected_stream);
            return Self::Refused { verdict: Verdict::Final(Reason::Rejected), text };
        }
        Self::Stored { sequence: answer.seq, duplicate: answer.duplicate }
    }
}

impl BatchReply {
    /// No subscriber to the subject: the server's status 503.
    pub(crate) fn no_responders() -> Self {
        let failure = Failure::Other(Verdict::Retry(Cause::NoStream));
        Self::Failed { failure, text: NO_RESPONDERS.to_owned() }
    }

    /// Reads an acknowledgement, a gap, an error or the last word about a batch.
    pub(crate) fn parse(payload: &[u8], expected_stream: &str) -> Self {
        let answer: Answer<'_> = match serde_json::from_slice(payload) {
            Ok(answer) => answer,
            Err(error) => return Self::Unintelligible(error.to_string()),
        };
        match (&*answer.kind, answer.error) {
            ("ack", None) => Self::Ack { seq: answer.seq, messages: answer.msgs },
            ("gap", None) => Self::Gap,
            ("err", Some(error)) => {
                Self::Refused { seq: answer.seq, verdict: error.verdict(), text: error.text() }
            }
            (_, Some(error)) => {
                let failure = match error.err_code {
                    10205..=10207 => Failure::Disabled,
                    10208 => Failure::Unknown,
                    _ => Failure::Other(error.verdict()),
                };
                Self::Failed { failure, text: error.text() }
            }
            _ if answer.stream.is_empty() => {
                Self::Unintelligible(format!("an answer of type {:?}", answer.kind))
            }
            _ if answer.stream != expected_stream => {
                let text = stored_elsewhere(&answer.stream, expected_stream);
                Self::Elsewhere { count: answer.count, text }
            }
            _ => Self::Ended { count: answer.count, sequence: answer.seq },
        }
    }
}

const NO_RESPONDERS: &str = "no stream takes this subject";

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

    #[test]
    fn the_answers_to_a_batch_are_told_apart() {
        let failed = |failure, text: &str| BatchReply::Failed { failure, text: text.to_owned() };
        let full = Verdict::Retry(Cause::StreamFull);
        for (payload, reply) in [
            (r#"{"type":"ack","seq":0,"msgs":500}"#, BatchReply::Ack { seq: 0, messages: 500 }),
            (r#"{"type":"gap","last_seq":3,"seq":5}"#, BatchReply::Gap),
            (
                r#"{"type":"err","seq":4,"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#,
                BatchReply::Refused {
                    seq: 4,
                    verdict: full,
                    text: "maximum messages exceeded (10077)".to_owned(),
                },
            ),
            (
                r#"{"stream":"main","seq":9,"batch":"b","count":3}"#,
                BatchReply::Ended { count: 3, sequence: 9 },
            ),
            (
                r#"{"stream":"main","seq":1,"duplicate": true,"batch":"b","count":1}"#,
                BatchReply::Ended { count: 1, sequence: 1 },
            ),
            (
                r#"{"error":{"code":400,"err_code":10208,"description":"batch publish ID unknown"},"stream":"main","seq":0}"#,
                failed(Failure::Unknown, "batch publish ID unknown (10208)"),
            ),
            (
                r#"{"error":{"code":400,"err_code":10205,"description":"batch publish is disabled"},"stream":"main","seq":0}"#,
                failed(Failure::Disabled, "batch publish is disabled (10205)"),
            ),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"message size"},"stream":"main","seq":0}"#,
                failed(Failure::Other(Verdict::Final(Reason::TooLarge)), "message size (10054)"),
            ),
        ] {
            assert_eq!(BatchReply::parse(payload.as_bytes(), "main"), reply, "{payload}");
        }
        let elsewhere = BatchReply::parse(br#"{"stream":"other","seq":7,"count":2}"#, "main");
        assert!(matches!(elsewhere, BatchReply::Elsewhere { count: 2, .. }));
        for payload in ["", "{}", r#"{"type":"new","seq":1}"#, r#"{"type":"err","seq":1}"#] {
            let reply = BatchReply::parse(payload.as_bytes(), "main");
            assert!(matches!(reply, BatchReply::Unintelligible(_)), "{payload}: {reply:?}");
        }
    }
}
