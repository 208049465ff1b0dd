//! What was captured, and what can be asserted of it.
//!
//! An assertion that fails shows what was there instead, since that is the next question.

use crate::envelope::{Envelope, EnvelopeError};
use crate::subject::{self, Subjects};
use crate::trace::TraceParent;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// How many events the message of a failed assertion shows: the last ones.
const SHOWN_MAX: usize = 50;

/// How many bytes it shows of a body.
const BODY_BYTES_SHOWN: usize = 400;

/// An event, with what a reader of the stream would find of it in the message: its subject, its envelope, and its trace. Headers that do not
/// describe the event, such as the id by which a server knows a message again, are left out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CapturedEvent {
    /// Its subject, such as `event.1.priceEstimate`.
    pub subject: String,
    /// Its name: what follows prefix, chain id and partition in the subject.
    pub name: String,
    /// The moment of the publish call, RFC 3339.
    pub timestamp: String,
    /// The request that it belongs to.
    pub request_id: Option<String>,
    /// Who numbered it; see [`envelope`](crate::envelope).
    pub producer: Option<String>,
    /// Its number with its producer, from 1.
    pub seq: Option<u64>,
    /// How many events it stands for, where only one in so many was kept; see [`weight`](Self::weight).
    pub sampled_rate: Option<u64>,
    /// The header `traceparent` of its message. An event of a packed frame has none.
    pub traceparent: Option<TraceParent>,
    /// Its body. JSON that a [`Value`] cannot hold, such as the number `1e999`, is `Null` here; [`json`](Self::json) has it.
    pub body: Value,
    json: Box<RawValue>,
}

impl CapturedEvent {
    pub(in crate::testing) fn read(
        subject: &str,
        subjects: &Subjects,
        traceparent: Option<TraceParent>,
        envelope: &[u8],
    ) -> Result<Self, EnvelopeError> {
        let envelope = Envelope::parse(envelope)?;
        Ok(Self {
            subject: subject.to_owned(),
            name: subjects.name_of(subject).unwrap_or(subject).to_owned(),
            timestamp: envelope.timestamp.into_owned(),
            request_id: envelope.request_id.map(Into::into),
            producer: envelope.producer.map(Into::into),
            seq: envelope.seq,
            sampled_rate: envelope.sampled_rate,
            traceparent,
            body: serde_json::from_str(envelope.body.get()).unwrap_or_default(),
            json: envelope.body.to_owned(),
        })
    }

    /// The body as a value of its type.
    ///
    /// # Panics
    ///
    /// When it cannot be read as one. The message shows the body.
    #[track_caller]
    #[must_use]
    pub fn body_as<T: DeserializeOwned>(&self) -> T {
        let read = serde_json::from_str(self.json());
        read.unwrap_or_else(|error| {
            panic!("the body of {self} is no {}: {error}", std::any::type_name::<T>())
        })
    }

    /// How many events it stands for: 1, or more where only some were kept. As [`Envelope::weight`].
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.sampled_rate.map_or(1, |rate| rate.max(1))
    }

    /// The body as it stands in the message, to the byte.
    #[must_use]
    pub fn json(&self) -> &str {
        self.json.get()
    }

    fn is_report(&self) -> bool {
        self.name.starts_with("_bus.")
    }
}

/// The name, the body, and the request if there is one, in a line.
impl fmt::Display for CapturedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = self.json();
        let is_boundary = |&at: &usize| json.is_char_boundary(at);
        let end = (0..=BODY_BYTES_SHOWN.min(json.len())).rfind(is_boundary).unwrap_or(0);
        let more = if end < json.len() { "…" } else { "" };
        write!(f, "{} {}{more}", self.name, &json[..end])?;
        self.request_id.iter().try_for_each(|id| write!(f, " (request {id})"))
    }
}

/// What is expected of an event: a body, or whatever a closure says.
pub trait Expectation {
    /// Whether the event meets it.
    fn is_met_by(&self, event: &CapturedEvent) -> bool;

    /// In words, for the message of a failed assertion.
    fn describe(&self) -> String;
}

/// The body equals this value.
impl Expectation for Value {
    fn is_met_by(&self, event: &CapturedEvent) -> bool {
        event.body == *self
    }

    fn describe(&self) -> String {
        format!("with the body {self}")
    }
}

impl<F: Fn(&CapturedEvent) -> bool> Expectation for F {
    fn is_met_by(&self, event: &CapturedEvent) -> bool {
        self(event)
    }

    fn describe(&self) -> String {
        "that the closure says yes to".to_owned()
    }
}

/// Events that were captured, oldest first: all of them, or those that were asked for.
#[derive(Clone, Debug)]
pub struct Events {
    chosen: Vec<Arc<CapturedEvent>>,
    /// In words.
    choice: String,
    /// All that was there, to be shown when an assertion fails.
    all: Arc<[Arc<CapturedEvent>]>,
}

impl Events {
    pub(in crate::testing) fn all(events: Vec<Arc<CapturedEvent>>) -> Self {
        Self { all: events.as_slice().into(), chosen: events, choice: String::new() }
    }

    pub(in crate::testing) fn without_reports(self) -> Self {
        self.filter("", |event| !event.is_report())
    }

    pub(super) fn reports(self) -> Self {
        self.filter(" among the reports", CapturedEvent::is_report)
    }

    /// Those of this name, which may be a pattern as in NATS: `order.*`, `order.>`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.filter(&format!(" named {name}"), |event| subject::covers(name, &event.name))
    }

    /// Those that belong to this request.
    #[must_use]
    pub fn of_request(self, request_id: &str) -> Self {
        self.filter(&format!(" of request {request_id}"), |event| {
            event.request_id.as_deref() == Some(request_id)
        })
    }

    /// Those that the closure says yes to.
    #[must_use]
    pub fn matching(self, is_chosen: impl Fn(&CapturedEvent) -> bool) -> Self {
        self.filter(" that the closure says yes to", is_chosen)
    }

    /// Asserts that there is one which meets the expectation, and returns the first.
    ///
    /// # Panics
    ///
    /// When there is none. The message shows what there is.
    #[track_caller]
    pub fn assert_any(&self, expected: impl Expectation) -> Arc<CapturedEvent> {
        match self.chosen.iter().find(|event| expected.is_met_by(event)) {
            Some(event) => Arc::clone(event),
            None => self.fail(&format!("there is no event{} {}", self.choice, expected.describe())),
        }
    }

    /// Asserts how many there are.
    ///
    /// # Panics
    ///
    /// When it is another number. The message shows what there is.
    #[track_caller]
    pub fn assert_count(&self, count: usize) {
        if self.len() != count {
            self.fail(&format!("events{}: {} instead of {count}", self.choice, self.len()));
        }
    }

    /// Asserts that there are none.
    ///
    /// # Panics
    ///
    /// When there are some. The message shows them.
    #[track_caller]
    pub fn assert_none(&self) {
        self.assert_count(0);
    }

    fn filter(mut self, words: &str, is_chosen: impl Fn(&CapturedEvent) -> bool) -> Self {
        self.chosen.retain(|event| is_chosen(event));
        self.choice.push_str(words);
        self
    }

    #[track_caller]
    pub(super) fn fail(&self, problem: &str) -> ! {
        let shown = &self.all[self.all.len().saturating_sub(SHOWN_MAX)..];
        let lines: String = shown.iter().map(|event| format!("\n  {event}")).collect();
        match self.all.len() {
            0 => panic!("{problem}; nothing was captured"),
            count if count > shown.len() => {
                panic!("{problem}; the last of {count} that were captured:{lines}")
            }
            _ => panic!("{problem}; captured were:{lines}"),
        }
    }
}

impl Deref for Events {
    type Target = [Arc<CapturedEvent>];

    fn deref(&self) -> &Self::Target {
        &self.chosen
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Arc<CapturedEvent>;
    type IntoIter = std::slice::Iter<'a, Arc<CapturedEvent>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chosen.iter()
    }
}

impl IntoIterator for Events {
    type Item = Arc<CapturedEvent>;
    type IntoIter = std::vec::IntoIter<Arc<CapturedEvent>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chosen.into_iter()
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::subject::Prefix;

    fn event(body: &str) -> CapturedEvent {
        let envelope = format!(r#"{{"version":"v1","timestamp":"t","requestId":"q","body":{body}}}"#);
        let subjects = Subjects::new(&Prefix::default(), 1);
        CapturedEvent::read("event.1.a.b", &subjects, None, envelope.as_bytes()).unwrap()
    }

    #[test]
    fn a_long_body_is_shown_up_to_a_whole_character() {
        assert_eq!(event("7").to_string(), "a.b 7 (request q)");
        let long = event(&format!("\"{}\"", "é".repeat(BODY_BYTES_SHOWN))).to_string();
        assert!(long.contains("éé…") && long.len() < BODY_BYTES_SHOWN + 50, "{long}");
    }

    #[test]
    fn of_many_events_the_last_are_shown() {
        let events = Events::all((0..60).map(|number| Arc::new(event(&number.to_string()))).collect());
        let failed = std::panic::catch_unwind(|| events.assert_none()).unwrap_err();
        let words = failed.downcast::<String>().unwrap();
        assert!(words.contains("60 instead of 0") && words.contains("the last of 60"), "{words}");
        assert!(words.contains("a.b 59 ") && !words.contains("a.b 9 "), "{words}");
    }
}
