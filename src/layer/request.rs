//! The request id of the current span, and its trace, for what is published in it.
//!
//! A span that has the field gets its id when it is made, and its children inherit it then. While a thread is in the span, the id is
//! that of its [request scope](crate::request_scope), and the trace that of its [trace scope](crate::trace_scope), so that `publish` finds it where it looks anyway and nobody pays who uses no
//! layer. Entering and leaving follow the polls of an instrumented future, on whichever thread.

use crate::event;
use crate::foreign::contained;
use crate::record::REQUEST_ID_BYTES_MAX;
use crate::trace::{TRACEPARENT, TraceParent};
use std::fmt;
use std::sync::Arc;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Gives what is published in a span the request id that is a field of the span, or of the nearest span around it.
///
/// An id that is longer than 256 bytes is not used: events cannot carry it. Nor is a field `traceparent` that is not a valid one.
#[derive(Clone, Debug)]
pub struct RequestIdLayer {
    field: &'static str,
    takes_traces: bool,
}

impl RequestIdLayer {
    /// The field is called `request_id`.
    pub fn new() -> Self {
        Self { field: "request_id", takes_traces: false }
    }

    /// The field is called otherwise.
    #[must_use]
    pub fn with_field(self, field: &'static str) -> Self {
        Self { field, ..self }
    }

    /// A field `traceparent` of a span, or of the nearest span around it, is the header `traceparent` of what is published in the span:
    /// as [`trace_scope`](crate::trace_scope), whose price it has.
    #[must_use]
    pub fn with_traceparent(self) -> Self {
        Self { takes_traces: true, ..self }
    }

    fn request_in(&self, visit: impl FnOnce(&mut Finder<'_>)) -> SpanRequest {
        let mut finder = Finder { layer: self, id: None, trace: None };
        // A field prints itself by its own code.
        contained(|| visit(&mut finder));
        let id = finder.id.filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
        SpanRequest { id: id.map(Into::into), trace: finder.trace.and_then(|trace| trace.parse().ok()) }
    }
}

impl Default for RequestIdLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a span knows of its request.
#[derive(Clone, Default)]
pub(super) struct SpanRequest {
    pub(super) id: Option<Arc<str>>,
    pub(super) trace: Option<TraceParent>,
}

impl SpanRequest {
    /// What it does not say, `outer` says.
    fn or(self, outer: Self) -> Self {
        Self { id: self.id.or(outer.id), trace: self.trace.or(outer.trace) }
    }

    fn is_empty(&self) -> bool {
        self.id.is_none() && self.trace.is_none()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RequestIdLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let own = self.request_in(|finder| attributes.record(finder));
        let inherited = span.parent().and_then(|parent| parent.extensions().get::<SpanRequest>().cloned());
        let request = own.or(inherited.unwrap_or_default());
        if !request.is_empty() {
            span.extensions_mut().replace(request);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let new = self.request_in(|finder| record.record(finder));
        if new.is_empty() {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let known = span.extensions().get::<SpanRequest>().cloned().unwrap_or_default();
        let request = new.or(known);
        span.extensions_mut().replace(request.clone());
        // It counts from now on, if the thread is in the span. Another thread that is in it at this moment finds it when it enters it again.
        event::change_span(id.into_u64(), request.id, request.trace);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let request = span.extensions().get::<SpanRequest>().cloned().unwrap_or_default();
        event::enter_span(id.into_u64(), request.id, request.trace);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        event::leave_span(id.into_u64());
    }
}

/// Looks for the fields.
struct Finder<'a> {
    layer: &'a RequestIdLayer,
    id: Option<String>,
    trace: Option<String>,
}

impl Finder<'_> {
    fn take(&mut self, field: &Field, value: impl FnOnce() -> String) {
        if field.name() == self.layer.field {
            self.id = Some(value());
        } else if self.layer.takes_traces && field.name() == TRACEPARENT {
            self.trace = Some(value());
        }
    }
}

impl Visit for Finder<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, || value.to_owned());
    }

    /// Numbers, and what is given with `%`, come here, too.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, || format!("{value:?}"));
    }
}
