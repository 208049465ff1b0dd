//! Typed events, and the request that they belong to.

use crate::thread::{self, Thread};
use serde::Serialize;
use std::cell::RefCell;
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
    static REQUEST_ID: RefCell<Option<Rc<str>>> = const { RefCell::new(None) };
}

/// Runs `body`; events that this thread publishes meanwhile carry `id` as their `requestId`.
///
/// Scopes nest: the innermost id counts. A scope belongs to a thread, so a future must not be suspended inside; give the
/// id to [`Topic::publish_for`](crate::Topic::publish_for) there. Entering a scope allocates once for the id.
/// An id is at most 256 bytes long; events with a longer one are dropped as too large.
pub fn request_scope<R>(id: impl Into<Rc<str>>, body: impl FnOnce() -> R) -> R {
    /// Restores the outer id, also after a panic.
    struct Scope(Option<Rc<str>>);
    impl Drop for Scope {
        fn drop(&mut self) {
            let _ = REQUEST_ID.try_with(|current| current.replace(self.0.take()));
            thread::with(Thread::leave_request);
        }
    }

    let id = id.into();
    let _scope = Scope(REQUEST_ID.try_with(|current| current.replace(Some(id))).ok().flatten());
    thread::with(Thread::enter_request);
    body()
}

/// The id of the innermost scope; none when the thread is ending and its scope is gone.
///
/// A publish outside of any scope, which is most of them, finds that out without touching the id.
#[inline]
pub(crate) fn request_id() -> Option<Rc<str>> {
    if is_in_request() { innermost_request_id() } else { None }
}

/// Whether this thread is in a scope.
#[inline]
pub(crate) fn is_in_request() -> bool {
    thread::with(Thread::is_in_request)
}

#[inline(never)]
fn innermost_request_id() -> Option<Rc<str>> {
    REQUEST_ID.try_with(|current| current.borrow().clone()).ok().flatten()
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
    fn a_scope_is_of_its_thread_only() {
        request_scope("here", || {
            let elsewhere = std::thread::spawn(current).join().expect("no panic");
            assert_eq!(elsewhere, None);
        });
    }
}
