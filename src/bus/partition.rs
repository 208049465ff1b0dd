//! What a worker shares with the handles: one of these for each worker, of which there is one for each [partition](crate::partition).
//!
//! The ledger of the bus is the sum over its partitions. Each is taken as `ledger.rs` says, the worker's accounts first and then the
//! tails of its rings, so each balances by itself, and their sum does, without all of them being taken at one moment.

use super::Shared;
use crate::config::Config;
use crate::fork;
use crate::latch::Latch;
use crate::ledger::{Accounts, Dropped, Reason, Report, Stats};
use crate::partition::Stream;
use crate::ring::Doorbell;
use crate::spool::Leftover;
use crate::sync::Ordering;
use crate::sync::plain::{AtomicBool, AtomicU64};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

pub(crate) struct Partition {
    /// Its number, from 0.
    pub(crate) index: usize,
    /// Where its events go.
    pub(crate) stream: Stream,
    /// It has no rings, and sends what lies in this directory.
    pub(crate) leftover: Option<Leftover>,
    /// Of all its rings.
    pub(crate) bell: Bell,
    /// As the worker last left them.
    accounts: Latch,
    is_connected: AtomicBool,
    /// Why events stay in the spool that the stream does not take; the first reason.
    held_back: OnceLock<String>,
    /// When the oldest event that the worker holds was offered, in nanoseconds since 1970; zero if it holds none.
    oldest_offered: AtomicU64,
}

/// The doorbell of a worker, and what it rings.
///
/// A publisher must not wait for a thread that the operating system has stopped, so there is no lock in it. Tokio's `Notify` has one. The waker
/// of the future that a runtime of one thread runs has none, and it is the same one for as long as the runtime is there.
pub(crate) struct Bell {
    pub(crate) doorbell: Arc<Doorbell>,
    waker: Arc<OnceLock<Waker>>,
}

impl Bell {
    pub(super) fn new() -> Self {
        let waker = Arc::new(OnceLock::<Waker>::new());
        let rung = Arc::clone(&waker);
        let doorbell = Doorbell::new(move || {
            if let Some(waker) = rung.get() {
                waker.wake_by_ref();
            }
        });
        Self { doorbell: Arc::new(doorbell), waker }
    }

    /// Tells the doorbell whom it wakes: the future that calls this, which is one that a runtime runs and not a part of one. To be
    /// called before it sleeps.
    pub(crate) async fn attach(&self) {
        poll_fn(|context| {
            let waker = self.waker.get_or_init(|| context.waker().clone());
            debug_assert!(waker.will_wake(context.waker()), "a worker has one runtime");
            Poll::Ready(())
        })
        .await;
    }

    /// Waits until a producer rings. The doorbell must say that the worker sleeps.
    pub(crate) async fn rung(&self) {
        // Whoever rings changes the state first, and then has this polled again.
        poll_fn(|_| if self.doorbell.is_rung() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

impl Partition {
    pub(super) fn new(
        index: usize,
        stream: Stream,
        bell: Bell,
        rings: usize,
        leftover: Option<Leftover>,
    ) -> Self {
        Self {
            index,
            stream,
            leftover,
            bell,
            accounts: Latch::new(Accounts::words(rings)),
            is_connected: AtomicBool::new(false),
            held_back: OnceLock::new(),
            oldest_offered: AtomicU64::new(0),
        }
    }

    /// The directory of its spool, if it has one.
    pub(crate) fn spool_dir(&self, config: &Config) -> Option<PathBuf> {
        match &self.leftover {
            Some(leftover) => Some(leftover.directory.clone()),
            None => config.spool_dir(self.index),
        }
    }

    /// Why events stay in the spool, if some do.
    pub(crate) fn held_back(&self) -> Option<&str> {
        self.held_back.get().map(String::as_str)
    }

    /// Events stay in the spool. Returns whether this is new.
    pub(crate) fn hold_back(&self, why: String) -> bool {
        self.held_back.set(why).is_ok()
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.is_connected.store(connected, Ordering::Relaxed);
    }

    pub(crate) fn set_oldest_offered(&self, nanos: Option<u64>) {
        self.oldest_offered.store(nanos.unwrap_or(0), Ordering::Relaxed);
    }

    /// The accounts as the worker last left them.
    pub(crate) fn accounts(&self) -> Accounts {
        Accounts::from_words(&self.accounts.read())
    }

    /// The worker's accounts as of now. Only the worker calls this, and whoever prepares its work before it starts.
    pub(crate) fn publish_accounts(&self, accounts: &Accounts) {
        self.accounts.publish(accounts.to_words());
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        if let Some(before) = self.inert.get() {
            return self.stats_of_child(before);
        }
        let all = self.partitions.iter().map(|partition| self.stats_of(partition));
        all.reduce(|sum, stats| sum.plus(&stats)).unwrap_or_default()
    }

    /// The ledger of one partition.
    pub(crate) fn stats_of(&self, partition: &Partition) -> Stats {
        let accounts = partition.accounts();
        let mut dropped = accounts.dropped;
        let (mut offered, mut queued) = (accounts.recovered, 0);
        for (lane, taken) in self.lanes.of_partition(partition.index).zip(accounts.taken) {
            // Not below what was taken, since the accounts came first.
            let claimed = lane.ring.claimed();
            let refused = lane.shed.by_reason();
            offered += claimed + refused.total();
            queued += claimed - taken;
            refused.iter().for_each(|(reason, events)| dropped.add(reason, events));
        }
        // No partition was chosen for them, and one ledger has to have them.
        if partition.index == 0 && self.counts_uninitialized.load(Ordering::Relaxed) {
            let events = crate::global::not_initialized();
            offered += events;
            dropped.add(Reason::NotInitialized, events);
        }
        let sampled_out = if partition.index == 0 { self.budgets.sampled_out() } else { 0 };
        Stats {
            offered,
            acked: accounts.acked,
            dropped,
            indeterminate: accounts.indeterminate,
            queued,
            in_flight: accounts.in_flight,
            spooled: accounts.spooled,
            recovered: accounts.recovered,
            sampled_out,
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            engine: accounts.engine,
        }
    }

    /// The ledger of a forked child: what was offered there, which was all refused. No lock is asked for; see [`fork`](crate::fork).
    fn stats_of_child(&self, before: &Dropped) -> Stats {
        let dropped = self.refused().since(before);
        Stats {
            offered: dropped.total(),
            dropped,
            elapsed_seconds: self.started.elapsed().as_secs_f64(),
            ..Stats::default()
        }
    }

    /// What all rings have refused.
    fn refused(&self) -> Dropped {
        let mut all = Dropped::default();
        for lane in self.lanes.iter() {
            lane.shed.by_reason().iter().for_each(|(reason, events)| all.add(reason, events));
        }
        all
    }

    /// Ends the bus in a forked child, by atomic operations only.
    pub(crate) fn become_inert(&self) {
        self.close_rings();
        // In the child of a child it is there already, and what counts is what came after the first fork.
        let _ = self.inert.set(self.refused());
        for partition in &self.partitions {
            partition.set_connected(false);
            partition.set_oldest_offered(None);
        }
    }

    /// Whether this is a forked child.
    pub(crate) fn is_inert(&self) -> bool {
        self.inert.get().is_some()
    }

    /// Says so in the log, the first time.
    pub(super) fn say_inert(&self) {
        if !self.said_inert.swap(true, Ordering::Relaxed) {
            fork::say_inert();
        }
    }

    /// The balance as it is. After the end of the workers it is the final one, but for events that are offered in vain since.
    pub(super) fn report_now(&self) -> Report {
        let stats = self.stats();
        Report { complete: stats.held() == 0 && !self.is_inert(), stats }
    }

    /// Whether all workers are connected.
    pub(crate) fn is_connected(&self) -> bool {
        self.partitions.iter().all(|partition| partition.is_connected.load(Ordering::Relaxed))
    }

    /// When the oldest event that any worker holds was offered, in nanoseconds since 1970.
    pub(crate) fn oldest_offered(&self) -> Option<u64> {
        let oldest = self.partitions.iter().map(|partition| partition.oldest_offered.load(Ordering::Relaxed));
        oldest.filter(|&nanos| nanos > 0).min()
    }

    pub(crate) fn close_rings(&self) {
        self.lanes.iter().for_each(|lane| lane.ring.close());
    }
}

#[cfg(all(test, not(any(jetring_loom, jetring_shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::bus::Bus;
    use crate::config::Config;
    use std::time::{Duration, Instant};

    /// Only a hang takes so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[track_caller]
    fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "gave up waiting until {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Nothing else would wake it before the next ledger is due, in an hour.
    #[test]
    fn a_worker_looks_by_itself_when_the_threads_that_were_about_to_wake_it_are_stopped() {
        let mut config = Config::new("null:", "main", 1).unwrap();
        config.delivery.stats_interval = Duration::from_secs(3600);
        let bus = Bus::start(config).unwrap();
        let doorbell = &bus.shared.partitions[0].bell.doorbell;
        for number in 1..=2 {
            wait_until("it is parked", || doorbell.take_without_waking());
            assert!(bus.publish("a", &number).is_accepted());
            wait_until("the event is delivered", || bus.stats().acked == number);
        }
    }

    /// The events of one thread, some of which wait in the ring when the counter is left.
    #[cfg(feature = "testing")]
    #[test]
    fn a_bus_whose_counter_is_left_dates_events_right_and_in_order() {
        use crate::clock::Timestamp;

        let capture = crate::testing::Capture::start();
        let began = Timestamp::now();
        for number in 0..3_000 {
            if number == 1_500 {
                capture.bus().shared.clock.leave_tsc();
            }
            while !capture.bus().publish("a", &number).is_accepted() {
                std::thread::yield_now();
            }
        }
        let events = capture.events();
        let ended = Timestamp::now();
        let stamps: Vec<_> = events.iter().map(|event| Timestamp::parse(&event.timestamp).unwrap()).collect();
        assert!(stamps.is_sorted() && stamps.len() == 3_000);
        // A busy machine may keep the worker from its samples for a while. A reading that is taken for one of the other counter is wrong by
        // years.
        let slack = 60_000_000_000;
        assert!(stamps[0].0 + slack >= began.0 && stamps[2_999].0 <= ended.0 + slack);
    }
}
