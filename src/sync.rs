//! The one place that knows which atomics are in use: those of `std`, or those of a model checker.
//!
//! Everything that the ring shares between threads goes through here, so that the very code that runs in production
//! is what the checkers explore. There are two of them, since neither can do the other's work:
//!
//! | | explores | with | models |
//! | --- | --- | --- | --- |
//! | loom (`--cfg jetring_loom`) | every interleaving, and every value that an ordering lets a load return | two or three threads, a few accesses each | `ring/models.rs` |
//! | shuttle (`--cfg jetring_shuttle`) | interleavings drawn by chance, all accesses `SeqCst` | crowds of threads, many laps | `ring/crowds.rs` |
//!
//! Both cfgs are names of our own: a global `--cfg loom` would also switch tokio over, and async-nats could not be built.
//!
//! Read next: [`crate::ring`].

#[cfg(not(all(test, any(jetring_loom, jetring_shuttle))))]
mod imp {
    pub(crate) use std::cell::UnsafeCell;
    pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64};

    /// Orders a claim before the look at the doorbell that follows it; see `ring::wait`.
    ///
    /// Nothing is to be done here: the claim's compare-and-swap and the look are both `SeqCst`, and so are the two
    /// operations of the consumer that they face.
    #[inline(always)]
    pub(crate) fn claim_barrier() {}

    /// A place between two plain accesses where a scheduler may stop the thread. Only shuttle needs to be shown it.
    #[inline(always)]
    pub(crate) fn interleave() {}
}

#[cfg(all(test, jetring_loom))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Notify;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64};
    pub(crate) use loom::{model, thread};

    /// As `model`, with so many preemptions at most, whatever the environment says: for a model with many places for one.
    pub(crate) fn model_with_preemptions(max: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(max);
        builder.check(model);
    }

    /// Loom treats a `SeqCst` access as `AcqRel` and would report a lost wake that cannot happen; a `SeqCst` fence it
    /// does model, so the models have one where production relies on the accesses themselves.
    pub(crate) fn claim_barrier() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    use super::Ordering;
}

#[cfg(all(test, jetring_shuttle))]
mod imp {
    pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicU64};
    pub(crate) use shuttle::sync::{Condvar, Mutex};
    pub(crate) use shuttle::thread;
    pub(crate) use std::cell::UnsafeCell;

    use super::Ordering;
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, Runner};

    /// Preemptions that PCT places in each run, at places drawn by chance: few are enough for nearly all known bugs, and
    /// the fewer they are the more often a run meets a given combination.
    const PCT_DEPTH: usize = 3;

    /// The same in each run, so that a failure comes again; `SHUTTLE_RANDOM_SEED` overrides it, to look further.
    const SEED: u64 = 0x6a65_7472_696e_6700;

    /// Runs `model` under so many schedules of each scheduler. When one fails, shuttle prints it, and with
    /// `JETRING_SHUTTLE_REPLAY` set to what it has printed, this runs that one again and nothing else.
    pub(crate) fn explore(schedules: usize, model: impl Fn() + Send + Sync + Clone + 'static) {
        if let Ok(schedule) = std::env::var("JETRING_SHUTTLE_REPLAY") {
            return shuttle::replay(model, &schedule);
        }
        let mut config = Config::new();
        // It warns that it takes all orderings for `SeqCst`. We know; weaker ones are loom's.
        config.silence_warnings = true;
        Runner::new(RandomScheduler::new_from_seed(SEED, schedules), config.clone()).run(model.clone());
        Runner::new(PctScheduler::new_from_seed(SEED, PCT_DEPTH, schedules), config).run(model);
    }

    /// Nothing to be done: all is `SeqCst` here.
    pub(crate) fn claim_barrier() {}

    /// Lets others run, without saying that this thread waits for them: PCT would then put it behind all others.
    pub(crate) fn interleave() {
        AtomicU8::new(0).load(Ordering::SeqCst);
    }
}

pub(crate) use imp::*;
pub(crate) use std::sync::atomic::Ordering;

/// Atomics for what no model holds: statics, counters and flags outside the ring. Loom's cannot stand in a `static`.
pub(crate) mod plain {
    pub(crate) use crossbeam_utils::atomic::AtomicCell;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64};
}
