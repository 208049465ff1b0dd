//! How a consumer sleeps without its producers paying for it.
//!
//! A wake costs a lock and a system call, so a producer must do one as rarely as possible, and must find out that none is
//! needed with one plain load of a line that hardly ever changes. The consumer says how it sleeps:
//!
//! | state | the consumer | a commit | a ring over half full |
//! | --- | --- | --- | --- |
//! | awake | is working, or waits for something else than events | nothing | nothing |
//! | dozing | will look again by itself within its linger time | nothing | wakes it |
//! | parked | will not look until it is woken | wakes it | wakes it |
//!
//! Whoever wakes it sets it awake again by a swap, so that of many producers exactly one pays, once for each sleep.
//!
//! # No wake is lost
//!
//! ```text
//!   producer                                   consumer
//!   CAS tail            (SeqCst)               state = PARKED      (SeqCst)
//!   copy, commit                               tail ≠ head?        (SeqCst)  yes: do not sleep
//!   state == PARKED?    (SeqCst)  yes: wake    sleep
//! ```
//!
//! In the one order of all SeqCst operations either the claim comes before the consumer's look at the tail, which then sees
//! it, or the consumer's store comes before the producer's look at the state, which then sees that. The claim's
//! compare-and-swap is the barrier that this needs, so no fence follows the commit; a fence there would make the
//! producer wait for its own copy to leave the store buffer (crossbeam-channel's array flavour does the same).
//! The consumer looks at claims, not at commits: a claim that is not yet committed keeps it awake.
//!
//! # In a forked child
//!
//! A child has the doorbell as it was, but not the consumer's thread. The state may say "parked" while the consumer, in the
//! parent, has a lock of its runtime in its hand; in the child that lock is never opened again, and a wake would wait for
//! it. So only the process that made the doorbell wakes. To ask which process this is takes a system call, which is paid where a
//! wake is paid and nowhere else.

use crate::sync::{AtomicU8, Ordering};
use crossbeam_utils::CachePadded;

const AWAKE: u8 = 0;
const DOZING: u8 = 1;
const PARKED: u8 = 2;

/// Tells producers whether their consumer has to be woken, and wakes it. One for all rings of a consumer.
pub struct Doorbell {
    /// One of the three states. Written by the consumer, and by the producer that wakes it.
    state: CachePadded<AtomicU8>,
    /// Where the consumer lives.
    process: u32,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// `wake` is called by a producer at most once for each time that the consumer sleeps. It must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            state: CachePadded::new(AtomicU8::new(AWAKE)),
            process: std::process::id(),
            wake: Box::new(wake),
        }
    }

    /// Called by a producer after each commit.
    #[inline]
    pub(super) fn knock(&self) {
        // SeqCst: must not be ordered before the claim; see above.
        if self.state.load(Ordering::SeqCst) == PARKED {
            self.rouse();
        }
    }

    /// Called by a producer whose ring is filling up.
    #[inline]
    pub(super) fn press(&self) {
        // Relaxed: a missed press costs no more than the rest of the consumer's linger.
        if self.state.load(Ordering::Relaxed) != AWAKE {
            self.rouse();
        }
    }

    #[cold]
    fn rouse(&self) {
        // AcqRel: of several producers one sees the sleeping state, and that one wakes.
        let is_asleep = self.state.swap(AWAKE, Ordering::AcqRel) != AWAKE;
        if is_asleep && std::process::id() == self.process {
            (self.wake)();
        }
    }

    /// The consumer will look again by itself, soon.
    pub fn doze(&self) {
        self.state.store(DOZING, Ordering::SeqCst);
    }

    /// The consumer is about to sleep until it is woken. Returns false if it must not, because `has_claims` says that
    /// there is something to drain; then it is awake again.
    #[must_use = "when this is false the consumer must drain, not sleep"]
    pub fn park(&self, has_claims: impl FnOnce() -> bool) -> bool {
        self.state.store(PARKED, Ordering::SeqCst);
        crate::sync::claim_barrier();
        if has_claims() {
            self.wake_up();
            return false;
        }
        true
    }

    /// The consumer is working again.
    pub fn wake_up(&self) {
        self.state.store(AWAKE, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}
