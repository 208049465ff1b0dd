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
//! | roused | sleeps, and a producer is waking it | wakes it | wakes it |
//!
//! A producer changes the state before it wakes the consumer, so that of many producers one pays for each sleep; two, if a second one
//! comes while the first is at it.
//!
//! # A producer that stops while it wakes
//!
//! The operating system may stop a thread between its change of the state and the wake. If that change said "awake", nobody would wake the
//! consumer until the thread runs again. So the first producer says "roused", wakes, and says "awake" only then. One that finds "roused" wakes
//! the consumer too. If both are stopped, or if no other producer comes, the consumer looks by itself after a while (`PARKED_MAX` of the
//! worker).
//!
//! # No wake is lost
//!
//! ```text
//!   producer                                   consumer
//!   CAS tail            (SeqCst)               state = PARKED      (SeqCst)
//!   copy, commit                               tail ≠ head?        (SeqCst)  yes: do not sleep
//!   state ≥ PARKED?    (SeqCst)  yes: wake    sleep
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
const ROUSED: u8 = 3;

/// How often a producer looks at the state again if others change it. Each of them has woken the consumer or is about to.
const ATTEMPTS_MAX: usize = 4;

/// Tells producers whether their consumer has to be woken, and wakes it. One for all rings of a consumer.
pub struct Doorbell {
    /// One of the four states. Written by the consumer, and by the producers that wake it.
    state: CachePadded<AtomicU8>,
    /// Where the consumer lives.
    process: u32,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// `wake` is called by producers, at most twice for each time that the consumer sleeps. It must not block, or a
    /// publish does.
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
        let state = self.state.load(Ordering::SeqCst);
        if state >= PARKED {
            self.rouse(state);
        }
    }

    /// Called by a producer whose ring is filling up.
    #[inline]
    pub(super) fn press(&self) {
        // Relaxed: a missed press costs no more than the rest of the consumer's linger.
        let state = self.state.load(Ordering::Relaxed);
        if state != AWAKE {
            self.rouse(state);
        }
    }

    #[cold]
    fn rouse(&self, state: u8) {
        // First, because it is a system call, and the thread may be stopped there.
        if std::process::id() != self.process {
            // In a child there is nobody to wake. The state is its own copy.
            return self.state.store(AWAKE, Ordering::Relaxed);
        }
        if self.takes(state) {
            (self.wake)();
            // Release: as in `takes`. If the consumer sleeps again by now, this may end another producer's "roused", which wakes all the same.
            let _ = self.state.compare_exchange(ROUSED, AWAKE, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// Whether it falls to the caller to wake the consumer.
    fn takes(&self, mut state: u8) -> bool {
        for _ in 0..ATTEMPTS_MAX {
            let next = match state {
                AWAKE => return false,
                ROUSED => AWAKE,
                _ => ROUSED,
            };
            // AcqRel: each change is made by one producer, and that one wakes. Release pairs with the Acquire of another's exchange, and with
            // the consumer's look in `is_rung`.
            match self.state.compare_exchange(state, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(current) => state = current,
            }
        }
        false
    }

    /// Whether a producer has rung since the consumer said that it sleeps.
    pub fn is_rung(&self) -> bool {
        // Acquire: pairs with the Release in `rouse`.
        matches!(self.state.load(Ordering::Acquire), AWAKE | ROUSED)
    }

    /// The consumer will look again by itself, soon.
    pub fn doze(&self) {
        self.say(DOZING);
    }

    /// The consumer is about to sleep until it is woken. Returns false if it must not, because `has_claims` says that
    /// there is something to drain; then it is awake again.
    #[must_use = "when this is false the consumer must drain, not sleep"]
    pub fn park(&self, has_claims: impl FnOnce() -> bool) -> bool {
        self.say(PARKED);
        crate::sync::claim_barrier();
        if has_claims() {
            self.wake_up();
            return false;
        }
        true
    }

    /// As two producers leave it that were stopped before their wakes. Says whether the consumer slept.
    #[cfg(all(test, not(any(jetring_loom, jetring_shuttle))))]
    pub(crate) fn take_without_waking(&self) -> bool {
        self.state.swap(AWAKE, Ordering::AcqRel) == PARKED
    }

    /// The consumer is working again.
    pub fn wake_up(&self) {
        self.say(AWAKE);
    }

    fn say(&self, state: u8) {
        // SeqCst: see above. A swap, because a store would leave it open, to a model, whether it comes before or after an exchange of a
        // producer that it did not see. (To a processor it is the same instruction.)
        self.state.swap(state, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}
