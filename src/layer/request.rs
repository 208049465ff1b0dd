//! The request id of the current span, for what is published in it.
//!
//! A span that has the field gets its id when it is made, and its children inherit it then. While a thread is in the span, the id is
//! that of its [request scope](crate::request_scope), so that `publish` finds it where it looks anyway and nobody pays who uses no
//! layer. Entering and leaving follow the polls of an instrumented future, on whichever thread.

use crate::event;
use crate::record::REQUEST_ID_BYTES_MAX;
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
/// An id that is longer than 256 bytes is not used: events cannot carry it.
#[derive(Clone, Debug)]
pub struct RequestIdLayer {
    field: &'static str,
}

impl RequestIdLayer {
    /// The field is called `request_id`.
    pub fn new() -> Self {
        Self { field: "request_id" }
    }

    /// The field is called otherwise.
    #[must_use]
    pub fn with_field(self, field: &'static str) -> Self {
        Self { field }
    }

    fn id_in(&self, visit: impl FnOnce(&mut Finder)) -> Option<SpanRequest> {
        let mut finder = Finder { field: self.field, id: None };
        visit(&mut finder);
        let id = finder.id.filter(|id| id.len() <= REQUEST_ID_BYTES_MAX)?;
        Some(SpanRequest(id.into()))
    }
}

impl Default for RequestIdLayer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a span knows of its request.
#[derive(Clone)]
pub(super) struct SpanRequest(pub(super) Arc<str>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RequestIdLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let own = self.id_in(|finder| attributes.record(finder));
        let inherited = || span.parent()?.extensions().get::<SpanRequest>().cloned();
        if let Some(request) = own.or_else(inherited) {
            span.extensions_mut().replace(request);
        }
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(request) = self.id_in(|finder| record.record(finder)) else { return };
        let Some(span) = context.span(id) else { return };
        span.extensions_mut().replace(request.clone());
        // It counts from now on, if the thread is in the span.
        let is_current = context.lookup_current().is_some_and(|current| current.id() == *id);
        if event::leave_span(id.into_u64()) || is_current {
            event::enter_span(id.into_u64(), request.0);
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let request = context.span(id).and_then(|span| span.extensions().get::<SpanRequest>().cloned());
        if let Some(SpanRequest(request)) = request {
            event::enter_span(id.into_u64(), request);
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        event::leave_span(id.into_u64());
    }
}

/// Looks for one field.
struct Finder {
    field: &'static str,
    id: Option<String>,
}

impl Visit for Finder {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.field {
            self.id = Some(value.to_owned());
        }
    }

    /// Numbers, and what is given with `%`, come here, too.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.field {
            self.id = Some(format!("{value:?}"));
        }
    }
}
