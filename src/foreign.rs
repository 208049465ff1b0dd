//! Code that is not ours on threads that are.
//!
//! A line of the log runs a subscriber of the application, which may panic. On a thread of ours that would take events with it, or the disk's
//! keeper. So such lines are written [`contained`].

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what is not ours and whose panic is to have no consequence: a line of our log above all. None if it has panicked.
pub(crate) fn contained<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    // AssertUnwindSafe: it has nothing of ours.
    catch_unwind(AssertUnwindSafe(foreign)).ok()
}
