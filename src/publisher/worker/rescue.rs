//! What becomes of a worker whose thread panics.
//!
//! Code that is not ours runs on this thread, and a panic of it must not cost the events of the whole process: the client, and a subscriber
//! of `tracing`, in each line of our log and of the client's. (The waker of a task that waits for `flush_async` is user code, too. It is called
//! last of all, so its panics are [`contained`] and have no consequence. Those of the client's tasks are contained by the runtime, and end
//! the connection.)
//!
//! Both are reached through [`Lent`], which says: what runs now is not ours, and all that is ours is whole. After such a panic the worker
//! *goes on*, with the same rings, window and accounts. The sink is in the middle of something and is given up for a new one; for the
//! pipeline the connection is lost. So what was on its way is in doubt, and found out, as after any lost connection.
//!
//! A panic anywhere else is a bug of ours, in the middle of a change to the window, its payloads, the numbers, the frames, or the
//! accounts. Nobody knows how far it had come: an event may be in the window and in no account, or in two. What is *torn* so is not used
//! again, and the bus *closes*. It also closes when panics come one after the other and nothing gets done between them.
//!
//! **The law holds at a close, too.** What the worker last published of its accounts is whole, and so is each ring's count of what was
//! taken from it, which moves on before anybody sees the record. All that was open then, or was taken since, may be stored or not, and
//! is indeterminate. What is in the rings has not left, and is dropped as expired.

use super::{DISCARD_GRACE, DRAIN_BATCH, Worker};
use crate::foreign::contained;
use crate::ledger::{Accounts, Reason};
use crate::sink::Sink;
use crate::timer;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Panics in a row after which the worker does not go on.
const PANICS_MAX: u32 = 3;

/// A panic that comes later than this after another is the first of a new row, even if nothing could be delivered in the meantime.
const CALM: Duration = Duration::from_secs(5);

/// Whose code runs on the worker's thread: ours, unless it is lent.
#[derive(Debug, Default)]
pub(super) struct Lent(bool);

impl Lent {
    /// Runs what is not ours. What is ours must be whole.
    pub(super) fn to<R>(&mut self, foreign: impl FnOnce() -> R) -> R {
        self.0 = true;
        let result = foreign();
        self.0 = false;
        result
    }

    /// The same for what takes its time. It must be awaited to its end.
    pub(super) async fn during<R>(&mut self, foreign: impl Future<Output = R>) -> R {
        self.0 = true;
        let result = foreign.await;
        self.0 = false;
        result
    }
}

/// Panics, and whether something gets done between them.
#[derive(Debug)]
struct Row {
    panics: u32,
    last: Instant,
    /// Events that had met their fate by then.
    settled: u64,
}

impl Row {
    fn new(now: Instant) -> Self {
        Self { panics: 0, last: now, settled: 0 }
    }

    /// Adds a panic; says whether it is one too many.
    fn add(&mut self, now: Instant, settled: u64) -> bool {
        let goes_on = now < self.last + CALM && settled == self.settled;
        self.panics = if goes_on { self.panics + 1 } else { 1 };
        (self.last, self.settled) = (now, settled);
        self.panics >= PANICS_MAX
    }
}

impl<S: Sink> Worker<S> {
    /// Works until the bus is closed; `make_sink` makes another sink where one has to be given up.
    pub(crate) fn work(mut self, runtime: &Runtime, make_sink: &dyn Fn() -> S) {
        let mut row = Row::new(timer::now());
        self.say_started();
        // What may be torn is told from what is whole, and is not used again.
        while contained(|| runtime.block_on(self.run())).is_none() {
            self.shared.metrics.worker_panicked();
            if self.is_over {
                // It was in its last answers, and those that are left are given by dropping them.
                return;
            }
            let now = timer::now();
            let is_hopeless = row.add(now, settled(&self.accounts));
            if !std::mem::take(&mut self.lent).0 {
                contained(|| {
                    tracing::error!("the worker has panicked, which is a bug of jetring; the bus is closed")
                });
                return self.abandon(now);
            }
            if is_hopeless {
                contained(|| {
                    tracing::error!(
                        "the worker's thread has panicked again and again, in code that is not jetring's; the bus is closed"
                    )
                });
                return self.abandon(now);
            }
            contained(|| {
                tracing::error!(
                    "the worker's thread has panicked, in code that is not jetring's, a subscriber of this log perhaps; it goes on with a new connection"
                )
            });
            let _entered = runtime.enter();
            self.take_new_sink(now, make_sink());
        }
    }

    /// Goes on as after a lost connection.
    fn take_new_sink(&mut self, now: Instant, sink: S) {
        let given_up = std::mem::replace(&mut self.sink, sink);
        contained(|| drop(given_up));
        self.partition.set_connected(false);
        self.partition.bell.doorbell.wake_up();
        self.pipeline.handle_disconnected(now);
    }

    /// Closes the bus and settles the accounts without a look at what may be torn.
    fn abandon(mut self, now: Instant) {
        // All rings, not only ours: a bus that takes some threads' events and loses others' would be harder to notice and to explain.
        // The other workers deliver what their rings hold.
        self.shared.close_rings();
        self.partition.set_connected(false);
        let mut accounts = self.partition.accounts();
        accounts.indeterminate += std::mem::take(&mut accounts.in_flight);
        for (consumer, taken) in self.consumers.iter_mut().zip(&mut accounts.taken) {
            accounts.indeterminate += consumer.taken() - *taken;
            // A claim whose owner is about to commit it is waited for, though not for ever: then it stays in the ring, and is counted there.
            while consumer.has_claims() && Instant::now() < now + DISCARD_GRACE {
                let drained = consumer.drain(DRAIN_BATCH, |_| {});
                accounts.dropped.add(Reason::Expired, drained.records as u64);
                accounts.dropped.add(Reason::Serialize, drained.aborted as u64);
                std::thread::yield_now();
            }
            *taken = consumer.taken();
        }
        self.partition.set_oldest_offered(None);
        self.partition.publish_accounts(&accounts);
    }
}

/// Events that have met their fate.
fn settled(accounts: &Accounts) -> u64 {
    accounts.acked + accounts.dropped.total() + accounts.indeterminate
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::bus::Bus;
    use crate::config::Config;
    use crate::sink::null::NullSink;

    /// A bus whose worker is in our hands.
    fn bus_and_worker() -> (Bus, Worker<NullSink>) {
        let (bus, mut posts) = Bus::prepare(Config::new("null:", "main", 1).unwrap()).unwrap();
        (bus, Worker::new(posts.remove(0), NullSink::default(), None, None, 1))
    }

    fn publish(bus: &Bus, events: u64) {
        (0..events).for_each(|number| assert!(bus.publish("event", &number).is_accepted()));
    }

    #[test]
    fn an_abandoned_bus_has_counted_every_event_whatever_was_torn() {
        let (bus, mut worker) = bus_and_worker();
        let now = Instant::now();
        publish(&bus, 10);
        worker.take_events(now);
        worker.book(now);
        assert_eq!((bus.stats().in_flight, bus.stats().queued), (10, 0));
        publish(&bus, 20);
        worker.take_events(now);
        // Nobody has heard of these yet, and accounts that were being changed are not to be believed.
        worker.accounts.acked = 1_000_000;
        worker.accounts.taken.clear();
        publish(&bus, 40);
        worker.abandon(now);
        let stats = bus.stats();
        assert_eq!((stats.check(), stats.held()), (Ok(()), 0), "{stats:?}");
        assert_eq!((stats.indeterminate, stats.dropped.get(Reason::Expired)), (30, 40), "{stats:?}");
        assert!(!bus.publish("event", &1).is_accepted());
        assert_eq!(bus.stats().dropped.get(Reason::Closed), 1);
    }

    #[test]
    fn a_bus_is_abandoned_before_its_worker_has_ever_told_of_its_rings() {
        let (bus, worker) = bus_and_worker();
        publish(&bus, 5);
        worker.abandon(Instant::now());
        let stats = bus.stats();
        assert_eq!((stats.check(), stats.held()), (Ok(()), 0), "{stats:?}");
        assert_eq!(stats.dropped.get(Reason::Expired), 5, "{stats:?}");
    }

    #[test]
    fn what_panics_while_it_is_lent_leaves_a_trace_and_what_returns_leaves_none() {
        let mut lent = Lent::default();
        assert_eq!((lent.to(|| 7), lent.0), (7, false));
        let panicked = contained(|| lent.to(|| panic!("as foreign code may")));
        assert_eq!((panicked.is_none(), lent.0), (true, true));
    }

    #[test]
    fn a_row_of_panics_ends_by_an_event_that_meets_its_fate_or_by_time() {
        let start = Instant::now();
        let mut row = Row::new(start);
        let mut at = |millis, settled| row.add(start + Duration::from_millis(millis), settled);
        assert_eq!([at(0, 0), at(1, 0), at(2, 0)], [false, false, true]);
        assert_eq!([at(3, 1), at(4, 1), at(5, 2), at(6, 2), at(7, 2)], [false, false, false, false, true]);
        assert_eq!([at(8, 3), at(9, 3), at(9 + 5_000, 3), at(10 + 5_000, 3)], [false; 4]);
    }
}
