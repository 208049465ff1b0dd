//! The one place that knows which atomics are in use: those of `std`, or those of the model checker.
//!
//! Everything that the ring shares between threads goes through here, so that the very code that runs in production
//! is what loom explores. The models are built with `--cfg jetring_loom`, a name of our own: a global `--cfg loom`
//! would also switch tokio over, and async-nats could not be built.
//!
//! Read next: [`crate::ring`].

#[cfg(not(all(test, jetring_loom)))]
mod imp {
    pub(crate) use std::cell::UnsafeCell;
    pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64};

    /// Orders a claim before the look at the doorbell that follows it; see `ring::wait`.
    ///
    /// Nothing is to be done here: the claim's compare-and-swap and the look are both `SeqCst`, and so are the two
    /// operations of the consumer that they face.
    #[inline(always)]
    pub(crate) fn claim_barrier() {}
}

#[cfg(all(test, jetring_loom))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Notify;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64};
    pub(crate) use loom::{model, thread};

    /// Loom treats a `SeqCst` access as `AcqRel` and would report a lost wake that cannot happen; a `SeqCst` fence it
    /// does model, so the models have one where production relies on the accesses themselves.
    pub(crate) fn claim_barrier() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    use super::Ordering;
}

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering;

/// Atomics for what no model holds: statics, counters and flags outside the ring. Loom's cannot stand in a `static`.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
}
