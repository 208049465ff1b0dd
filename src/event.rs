//! Typed events, and the request and trace that they belong to.

use crate::thread::{self, Thread};
use crate::trace::TraceParent;
use serde::Serialize;
use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

/// An event whose name is part of its type, so that it cannot be published under another one.
///
/// ```
/// #[derive(serde::Serialize)]
/// struct PriceEstimate {
///     estimator: &'static str,
/// }
///
/// impl jetring::Event for PriceEstimate {
///     const SUBJECT: &'static str = "priceEstimate";
/// }
/// ```
pub trait Event: Serialize {
    /// The event's name: the part of the subject that follows `event.<chain_id>.`.
    const SUBJECT: &'static str;
}

thread_local! {
    static REQUESTS: RefCell<Vec<Request>> = const { RefCell::new(Vec::new()) };
}

/// A request that a thread is in, or a trace, or both.
struct Request {
    id: Option<RequestId>,
    trace: Option<TraceParent>,
    /// The span that brought it; none for a scope.
    span: Option<u64>,
    /// What is around it does not count, also where it says nothing itself.
    is_apart: bool,
}

impl Request {
    /// Of a span that says nothing: `publish` need not look.
    fn is_empty(&self) -> bool {
        self.id.is_none() && self.trace.is_none() && !self.is_apart
    }
}

/// The id of a request; it has as many owners as events are being published with it, and the scope.
#[derive(Clone)]
pub(crate) enum RequestId {
    /// Of a scope, which is of one thread.
    Scope(Rc<str>),
    /// Of a span, which many threads may be in.
    #[cfg(feature = "tracing-layer")]
    Span(std::sync::Arc<str>),
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Scope(id) => id,
            #[cfg(feature = "tracing-layer")]
            Self::Span(id) => id,
        }
    }
}

/// Runs `body`; events that this thread publishes meanwhile carry `id` as their `requestId`.
///
/// Scopes nest: the innermost id counts. A scope belongs to a thread, so a future must not be suspended inside; give the
/// id to [`Topic::publish_for`](crate::Topic::publish_for) there, or use the request-id layer of `jetring::layer`, whose spans follow a
/// future. Entering a scope allocates once for the id.
/// An id is at most 256 bytes long; events with a longer one are dropped as too large.
pub fn request_scope<R>(id: impl Into<Rc<str>>, body: impl FnOnce() -> R) -> R {
    in_scope(
        Request { id: Some(RequestId::Scope(id.into())), trace: None, span: None, is_apart: false },
        body,
    )
}

/// Runs `body`; events that this thread publishes meanwhile carry `parent` as their header `traceparent`.
///
/// Scopes nest, and belong to a thread, as [`request_scope`]s do. A short header makes a server a quarter slower, so it is there only for
/// events that are published so. Packed frames have none: a message of many events cannot say of whose trace it is.
pub fn trace_scope<R>(parent: TraceParent, body: impl FnOnce() -> R) -> R {
    in_scope(Request { id: None, trace: Some(parent), span: None, is_apart: false }, body)
}

/// Runs `body` in this trace, or in none, and in no request, whatever the thread is in.
#[cfg(feature = "tracing-layer")]
pub(crate) fn apart<R>(trace: Option<TraceParent>, body: impl FnOnce() -> R) -> R {
    in_scope(Request { id: None, trace, span: None, is_apart: true }, body)
}

fn in_scope<R>(request: Request, body: impl FnOnce() -> R) -> R {
    /// Leaves the scope, also after a panic.
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            leave(None);
        }
    }

    enter(request);
    let _scope = Scope;
    body()
}

/// From now on the thread is in this span's request and trace. It may have none yet, and be given some while the thread is in it.
#[cfg(feature = "tracing-layer")]
pub(crate) fn enter_span(span: u64, id: Option<std::sync::Arc<str>>, trace: Option<TraceParent>) {
    enter(Request { id: id.map(RequestId::Span), trace, span: Some(span), is_apart: false });
}

/// The thread has left the span.
#[cfg(feature = "tracing-layer")]
pub(crate) fn leave_span(span: u64) {
    leave(Some(span));
}

/// The span has this request and trace from now on: as often as the thread is in it, and in its place among the others.
#[cfg(feature = "tracing-layer")]
pub(crate) fn change_span(span: u64, id: Option<std::sync::Arc<str>>, trace: Option<TraceParent>) {
    let change = |requests: &RefCell<Vec<Request>>| {
        for request in requests.borrow_mut().iter_mut().filter(|request| request.span == Some(span)) {
            let is_empty = request.is_empty();
            (request.id, request.trace) = (id.clone().map(RequestId::Span), trace);
            if is_empty && !request.is_empty() {
                thread::with(Thread::enter_request);
            }
        }
    };
    // A thread that is ending, and whose requests are gone, is in no span.
    let _ = REQUESTS.try_with(change);
}

/// Does nothing where the thread is ending and its requests are gone.
fn enter(request: Request) {
    let is_empty = request.is_empty();
    if REQUESTS.try_with(|requests| requests.borrow_mut().push(request)).is_ok() && !is_empty {
        thread::with(Thread::enter_request);
    }
}

/// Leaves the innermost request that this span brought, or that a scope did. Spans are not always left in the order in which they were
/// entered.
fn leave(span: Option<u64>) {
    let left = REQUESTS.try_with(|requests| {
        let mut requests = requests.borrow_mut();
        let at = requests.iter().rposition(|request| request.span == span)?;
        Some(requests.remove(at))
    });
    if left.ok().flatten().is_some_and(|request| !request.is_empty()) {
        thread::with(Thread::leave_request);
    }
}

/// The id of the innermost request; none when the thread is ending and its requests are gone.
///
/// A publish outside of any, which is most of them, finds that out without touching the id.
#[inline]
pub(crate) fn request_id() -> Option<RequestId> {
    if is_in_request() { innermost_request_id() } else { None }
}

/// Whether this thread is in a request.
#[inline]
pub(crate) fn is_in_request() -> bool {
    thread::with(Thread::is_in_request)
}

#[inline(never)]
fn innermost_request_id() -> Option<RequestId> {
    innermost(|request| request.id.clone())
}

/// The innermost trace, as [`request_id`].
#[inline]
pub(crate) fn trace_parent() -> Option<TraceParent> {
    if is_in_request() { innermost_trace() } else { None }
}

#[inline(never)]
fn innermost_trace() -> Option<TraceParent> {
    innermost(|request| request.trace)
}

fn innermost<T>(of: impl Fn(&Request) -> Option<T>) -> Option<T> {
    let find = |requests: &[Request]| {
        for request in requests.iter().rev() {
            let found = of(request);
            if found.is_some() || request.is_apart {
                return found;
            }
        }
        None
    };
    REQUESTS.try_with(|requests| find(&requests.borrow())).ok().flatten()
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    fn current() -> Option<String> {
        request_id().map(|id| id.to_string())
    }

    #[test]
    fn scopes_nest_and_end_also_by_a_panic() {
        assert_eq!(current(), None);
        request_scope("outer", || {
            let panicked = std::panic::catch_unwind(|| request_scope("inner", || panic!("{:?}", current())));
            let message = panicked.expect_err("it panics");
            assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some("Some(\"inner\")"));
            assert_eq!(current().as_deref(), Some("outer"));
        });
        assert_eq!(current(), None);
    }

    #[test]
    fn a_trace_and_a_request_are_scopes_of_their_own() {
        let [outer, inner] =
            [1, 2].map(|span| format!("00-{:032x}-{span:016x}-01", 7).parse::<TraceParent>().expect("valid"));
        trace_scope(outer, || {
            request_scope("id", || {
                assert_eq!((current().as_deref(), trace_parent()), (Some("id"), Some(outer)));
                trace_scope(inner, || {
                    assert_eq!((current().as_deref(), trace_parent()), (Some("id"), Some(inner)));
                });
            });
            assert_eq!((current(), trace_parent()), (None, Some(outer)));
        });
        assert_eq!(trace_parent(), None);
    }

    #[cfg(feature = "tracing-layer")]
    #[test]
    fn what_is_apart_has_nothing_of_what_is_around_it_and_that_is_back_also_after_a_panic() {
        let [outer, inner] =
            [1, 2].map(|span| format!("00-{:032x}-{span:016x}-01", 7).parse::<TraceParent>().expect("valid"));
        let now = || (current(), trace_parent());
        trace_scope(outer, || {
            request_scope("outer", || {
                assert_eq!(apart(None, now), (None, None));
                assert_eq!(apart(Some(inner), now), (None, Some(inner)));
                let nested = apart(Some(inner), || request_scope("inner", now));
                assert_eq!(nested, (Some("inner".to_owned()), Some(inner)));
                assert!(std::panic::catch_unwind(|| apart(None, || panic!("while it is apart"))).is_err());
                assert_eq!(now(), (Some("outer".to_owned()), Some(outer)));
            });
        });
        assert!(now() == (None, None) && !is_in_request());
    }

    #[test]
    fn a_scope_is_of_its_thread_only() {
        request_scope("here", || {
            let elsewhere = std::thread::spawn(current).join().expect("no panic");
            assert_eq!(elsewhere, None);
        });
    }
}
