//! What a publishing thread knows of itself: its number, how many calls it has made, whether it is in a request, and what its next chance is.
//!
//! All of it lies in one `const` thread-local without a destructor. Reading it is an access relative to a register, with
//! nothing to initialize and nothing that could be gone already: it works at any time of a thread's life, also while the
//! thread is ending.

use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use std::cell::Cell;

thread_local! {
    static THREAD: Thread = const {
        Thread {
            number: Cell::new(0),
            calls: Cell::new(0),
            requests: Cell::new(0),
            serves: Cell::new(false),
            steps: Cell::new(0),
        }
    };
}

/// The calling thread.
pub(crate) struct Thread {
    /// Zero: none yet.
    number: Cell<u64>,
    calls: Cell<u32>,
    /// Requests that the thread is in.
    requests: Cell<u32>,
    /// It is one of ours, behind a ring.
    serves: Cell<bool>,
    /// Where its sequence for chances is; zero: at no beginning yet.
    steps: Cell<u64>,
}

/// A step of a thread's sequence: odd, so that all numbers are met, and far from any pattern of bits (Weyl; Steele, Lea, Flood: SplitMix).
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Lets `read` see the calling thread.
#[inline(always)]
pub(crate) fn with<R>(read: impl FnOnce(&Thread) -> R) -> R {
    THREAD.with(read)
}

impl Thread {
    /// The thread's number, from 1: the first thread to ask is the first.
    #[inline]
    pub(crate) fn number(&self) -> u64 {
        match self.number.get() {
            0 => self.take_number(),
            number => number,
        }
    }

    #[cold]
    fn take_number(&self) -> u64 {
        /// The next thread gets this one.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.number.set(NEXT.fetch_add(1, Ordering::Relaxed));
        self.number.get()
    }

    /// Counts a call, and says whether it is one in `in_how_many`.
    #[inline]
    pub(crate) fn is_sampled(&self, in_how_many: u32) -> bool {
        let calls = self.calls.get().wrapping_add(1);
        self.calls.set(calls);
        calls.is_multiple_of(in_how_many)
    }

    /// The next number of a sequence that goes on by equal steps, and begins at a place that `seed` and the thread's number choose.
    #[inline]
    pub(crate) fn step(&self, seed: u64) -> u64 {
        let before = match self.steps.get() {
            // The numbers of threads are spread, so that no two go through the same part of the sequence soon.
            0 => seed.wrapping_add(self.number().wrapping_mul(0xd134_2543_de82_ef95)),
            steps => steps,
        };
        self.steps.set(before.wrapping_add(STEP));
        self.steps.get()
    }

    /// In a forked child: begins another sequence, or the children of a process would all take the same chances.
    pub(crate) fn forget_steps(&self) {
        self.steps.set(0);
    }

    /// Whether the thread is in a request: a [scope](crate::request_scope), or a span that has one.
    #[inline]
    pub(crate) fn is_in_request(&self) -> bool {
        self.requests.get() > 0
    }

    pub(crate) fn enter_request(&self) {
        self.requests.set(self.requests.get() + 1);
    }

    pub(crate) fn leave_request(&self) {
        self.requests.set(self.requests.get() - 1);
    }

    /// Whether the thread is one of those that make room in the rings of a bus. It must never wait for room: user code runs on it, too,
    /// in a subscriber of our log, and if that published or flushed, the thread would wait for itself, or two buses for each other.
    pub(crate) fn serves_a_bus(&self) -> bool {
        self.serves.get()
    }

    /// Says that the thread is one of them.
    pub(crate) fn serve(&self) {
        self.serves.set(true);
    }
}
