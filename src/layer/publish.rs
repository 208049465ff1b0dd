//! `tracing` events and closed spans, as events of the bus.
//!
//! The body of an event has the members of `tracing-subscriber`'s own JSON, `level`, `target`, `span` (the name of the span that it is in) and
//! `fields`, with the text as `fields.message`. That of a closed span has `name` in place of `span`, and `busyNanos` and `idleNanos`: how
//! long threads were in it, and how long it was there besides.

use super::request::SpanRequest;
use crate::bus::{Bus, Topic};
use crate::event;
use crate::foreign::contained;
use crate::subject::NameError;
use crate::thread::{self, Thread};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Publishes `tracing` events, and spans when they close.
///
/// Publishing has the costs and promises of [`Topic::publish`]; the fields of a span, which have to be kept until it closes, are
/// allocated. Filters of `tracing-subscriber` can be put on it like on any layer.
#[derive(Clone, Debug)]
pub struct PublishLayer {
    events: Topic,
    spans: Option<Topic>,
    level: LevelFilter,
}

impl PublishLayer {
    /// Events of level `INFO` and above, each as an event `name` of the bus.
    ///
    /// # Errors
    ///
    /// When the name is not valid.
    pub fn new(bus: &Bus, name: &str) -> Result<Self, NameError> {
        Ok(Self { events: bus.topic(name)?, spans: None, level: LevelFilter::INFO })
    }

    /// Events and spans of this level and above.
    #[must_use]
    pub fn with_level(self, level: impl Into<LevelFilter>) -> Self {
        Self { level: level.into(), ..self }
    }

    /// Also spans, each when it closes, as an event `name` of the bus. Such an event has the request and the trace of its span, which
    /// [`RequestIdLayer`](super::RequestIdLayer) finds, and never those that the thread is in which closes it.
    ///
    /// # Errors
    ///
    /// When the name is not valid.
    pub fn with_spans(self, name: &str) -> Result<Self, NameError> {
        let spans = Some(self.events.bus().topic(name)?);
        Ok(Self { spans, ..self })
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && !is_ours(metadata) && !thread::with(Thread::serves_a_bus)
    }

    fn wants_span(&self, metadata: &Metadata<'_>) -> bool {
        self.spans.is_some() && self.wants(metadata)
    }
}

/// Whether it is this crate that speaks.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().strip_prefix("jetring").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PublishLayer {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !self.wants(event.metadata()) {
            return;
        }
        let span = context.event_span(event);
        let body = EventBody { event, span: span.as_ref().map(|span| span.name()) };
        unheard(|| self.events.publish(&body));
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !self.wants_span(attributes.metadata()) {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let mut life = SpanLife::new(Instant::now());
        contained(|| attributes.record(&mut life.fields));
        span.extensions_mut().replace(life);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if span.extensions().get::<SpanLife>().is_none() {
            return;
        }
        // A field prints itself by its own code, which may panic, or log. So it is not asked while the span is locked.
        let mut fields = SpanFields::default();
        contained(|| record.record(&mut fields));
        if let Some(life) = span.extensions_mut().get_mut::<SpanLife>() {
            life.fields.0.extend(fields.0);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(life) = span.extensions_mut().get_mut::<SpanLife>()
        {
            life.enter(Instant::now());
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(life) = span.extensions_mut().get_mut::<SpanLife>()
        {
            life.leave(Instant::now());
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let (Some(topic), Some(span)) = (&self.spans, context.span(&id)) else { return };
        let extensions = span.extensions();
        let Some(life) = extensions.get::<SpanLife>() else { return };
        let body = SpanBody { metadata: span.metadata(), life, now: Instant::now() };
        // The thread has left the span, and with it the request; and what it is in now is not the span's.
        let request = extensions.get::<SpanRequest>().cloned().unwrap_or_default();
        let publish = || match &request.id {
            Some(id) => topic.publish_for(id, &body),
            None => topic.publish(&body),
        };
        unheard(|| event::apart(request.trace, publish));
    }
}

/// Runs `publish`, unless it is in one already: a body that logs while it is being published is not heard.
fn unheard<R>(publish: impl FnOnce() -> R) {
    thread_local! {
        static IS_PUBLISHING: Cell<bool> = const { Cell::new(false) };
    }
    /// Lets the thread be heard again, also after a panic.
    struct Heard;
    impl Drop for Heard {
        fn drop(&mut self) {
            IS_PUBLISHING.set(false);
        }
    }
    if !IS_PUBLISHING.replace(true) {
        let _heard = Heard;
        publish();
    }
}

struct EventBody<'a> {
    event: &'a Event<'a>,
    span: Option<&'a str>,
}

impl Serialize for EventBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = self.event.metadata();
        let mut body = serializer.serialize_struct("Event", 3 + usize::from(self.span.is_some()))?;
        body.serialize_field("level", metadata.level().as_str())?;
        body.serialize_field("target", metadata.target())?;
        if let Some(span) = self.span {
            body.serialize_field("span", span)?;
        }
        body.serialize_field("fields", &EventFields(self.event))?;
        body.end()
    }
}

/// The fields of an event, which are there only while one looks at them.
struct EventFields<'a>(&'a Event<'a>);

impl Serialize for EventFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut writer = FieldWriter { map: serializer.serialize_map(None)?, outcome: Ok(()) };
        self.0.record(&mut writer);
        writer.outcome?;
        writer.map.end()
    }
}

/// Writes fields as they come. After an error, which a visitor cannot return, it writes no more.
struct FieldWriter<M: SerializeMap> {
    map: M,
    outcome: Result<(), M::Error>,
}

impl<M: SerializeMap> FieldWriter<M> {
    fn write(&mut self, field: &Field, value: &(impl Serialize + ?Sized)) {
        if self.outcome.is_ok() {
            self.outcome = self.map.serialize_entry(field.name(), value);
        }
    }
}

impl<M: SerializeMap> Visit for FieldWriter<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.write(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, &value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.write(field, &value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.write(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &Printed(value));
    }
}

/// A value as it prints itself.
struct Printed<'a>(&'a dyn fmt::Debug);

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:?}", self.0))
    }
}

/// What a span is until it closes.
struct SpanLife {
    fields: SpanFields,
    began: Instant,
    /// Threads that are in it.
    inside: u32,
    /// Since when the first of them is.
    entered: Instant,
    busy_nanos: u64,
}

impl SpanLife {
    fn new(now: Instant) -> Self {
        Self { fields: SpanFields::default(), began: now, inside: 0, entered: now, busy_nanos: 0 }
    }

    fn enter(&mut self, now: Instant) {
        if self.inside == 0 {
            self.entered = now;
        }
        self.inside += 1;
    }

    fn leave(&mut self, now: Instant) {
        self.inside = self.inside.saturating_sub(1);
        if self.inside == 0 {
            self.busy_nanos += nanos_between(self.entered, now);
        }
    }
}

fn nanos_between(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

struct SpanBody<'a> {
    metadata: &'static Metadata<'static>,
    life: &'a SpanLife,
    now: Instant,
}

impl Serialize for SpanBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { metadata, life, now } = self;
        let mut body = serializer.serialize_struct("Span", 6)?;
        body.serialize_field("level", metadata.level().as_str())?;
        body.serialize_field("target", metadata.target())?;
        body.serialize_field("name", metadata.name())?;
        body.serialize_field("fields", &life.fields.0)?;
        body.serialize_field("busyNanos", &life.busy_nanos)?;
        let all = nanos_between(life.began, *now);
        body.serialize_field("idleNanos", &all.saturating_sub(life.busy_nanos))?;
        body.end()
    }
}

/// The fields of a span, kept. One that is recorded again has its last value.
#[derive(Default)]
struct SpanFields(BTreeMap<&'static str, Kept>);

/// The value of a field. (A `serde_json::Value` holds no number of more than 64 bits.)
#[derive(Serialize)]
#[serde(untagged)]
enum Kept {
    Float(f64),
    Signed(i128),
    Unsigned(u128),
    Bool(bool),
    Text(String),
}

impl SpanFields {
    fn keep(&mut self, field: &Field, value: Kept) {
        self.0.insert(field.name(), value);
    }
}

impl Visit for SpanFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.keep(field, Kept::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.keep(field, Kept::Signed(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.keep(field, Kept::Unsigned(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.keep(field, Kept::Signed(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.keep(field, Kept::Unsigned(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.keep(field, Kept::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, Kept::Text(value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, Kept::Text(format!("{value:?}")));
    }
}
