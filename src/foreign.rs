//! Code that is not ours: where it runs, how its panics are contained.
//!
//! A publish runs the body's `Serialize`, the closure that makes it, what its key says; a line of the log runs a subscriber of the application; an answer
//! wakes a task. Each of them may panic. On a thread of ours that would take events with it, or the disk's keeper; on a publisher's it would get
//! out of a function that promises not to panic. So it runs [`contained`]. This is the only place that catches panics, but for a future's.
//!
//! **The payload of a panic is user code, too.** `panic_any` takes any value, and its `Drop` may panic. Where a panic was caught, that second
//! panic would get out of the very place that contains the first one. So payloads are [disposed of](dispose), and never just dropped.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what is not ours and whose panic is to have no other consequence than `None`.
#[inline]
pub(crate) fn contained<R>(foreign: impl FnOnce() -> R) -> Option<R> {
    // AssertUnwindSafe: who calls this has nothing that a panic could tear, or does not use it again.
    match catch_unwind(AssertUnwindSafe(foreign)) {
        Ok(result) => Some(result),
        Err(payload) => {
            dispose(payload);
            None
        }
    }
}

/// Drops the payload of a panic. If that panics as well, the new payload is leaked: there is no end to what its `Drop` could do.
#[cold]
pub(crate) fn dispose(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(another);
    }
}

/// Drops what a caller has given us and what we did not use. Nothing is done, and nothing compiled, for what has no `Drop`.
#[inline]
pub(crate) fn discard<T>(given: T) {
    if mem::needs_drop::<T>() {
        contained(|| drop(given));
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use std::panic::panic_any;

    /// A payload whose `Drop` panics, with the same again, so many times.
    struct Bomb(u32);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                panic_any(Self(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_panic_whose_payload_panics_when_it_is_dropped_is_contained() {
        for bombs in 0..4 {
            assert_eq!(contained(|| -> u8 { panic_any(Bomb(bombs)) }), None);
        }
        assert_eq!(contained(|| 7), Some(7));
    }

    #[test]
    fn what_is_discarded_may_panic_in_its_drop() {
        discard(Bomb(2));
        discard(7);
    }
}
