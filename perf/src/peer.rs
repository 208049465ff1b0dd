//! Who is measured: everything that can take an event from a thread and bring it to a consumer.
//!
//! | peer | a call does | its consumer |
//! | --- | --- | --- |
//! | `jetring` | `Topic::publish` of a struct: the whole job | the bus's worker; it looks at its rings every millisecond |
//! | `jetring json` | `Topic::publish_json` of a body that is JSON already: stamps it, copies it | the same |
//! | `original` | the design that jetring grew from: `serde_json::to_vec` of an envelope with `Utc::now`, a `format!`ed subject, `try_send` into a tokio channel of 1000 | a tokio task; with a server, `jetstream::Context::publish` and the acknowledgements in a `FuturesUnordered` |
//! | `original, polled` | the same | a thread that looks every millisecond, so that no call has anybody to wake |
//! | `tokio mpsc` … `rtrb` | a queue: [copies bytes that are ready](crate::event::Ready) | blocks in `recv` where the queue can wake; else looks every millisecond, as ours does |
//! | `jetring ring` | the ring of ours without the bus, opened to us by a private feature: the same copy | looks every millisecond, and when a ring is over half full |
//! | the queues, `+ encode` | the whole job: [`Utc::now` and `serde_json`](crate::event::Encode), then the queue | the same |
//! | `floor` | one reading of the TSC, one compare-and-swap, one copy into 4 MiB, one store: what no ring of this kind can be faster than | none; one thread only |
//! | `control` | nothing: what is measured is the loop, and the machine | none |
//!
//! All queues have the bytes that a bus has by default, [`CAPACITY_BYTES`], or as many slots as events of that size fit into it;
//! only the original has its own 1000.
//!
//! Every consumer drains all the time and counts; where it sees the bytes, it checks the order of each producer. What the consumers have got
//! must be what the producers were told was accepted, or the run fails.

pub(crate) mod nothing;
pub(crate) mod original;
pub(crate) mod ours;
pub(crate) mod queues;
pub(crate) mod ring;

use crate::event::Size;
use anyhow::{Result, bail};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The default of `queue.capacity`.
pub(crate) const CAPACITY_BYTES: usize = 16 << 20;

/// How long a consumer that nobody wakes waits between two looks; the default of `delivery.linger`.
pub(crate) const LINGER: Duration = Duration::from_millis(1);

/// How long a consumer may take for what is still in its queue.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The name of the consumers' threads, by which their time on the processor is found.
pub(crate) const CONSUMER: &str = "consumer";

/// What a peer is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) size: Size,
    pub(crate) producers: usize,
    /// The consumer takes nothing until the peer is [finished](Peer::finish).
    pub(crate) held: bool,
    /// Where events go; without one they go nowhere.
    pub(crate) url: Option<String>,
}

/// A way of getting events from threads to a consumer.
pub(crate) trait Peer: Sized {
    type Producer: Producer;
    type Progress: Progress;

    fn start(setup: &Setup) -> Result<Self>;

    /// The hand of one thread. Called for 0, 1, … of the [`Setup`]'s producers, once each.
    fn producer(&mut self, index: usize) -> Self::Producer;

    fn progress(&self) -> Self::Progress;

    /// Events that were refused although the producer was told otherwise.
    fn refused_silently(&self) -> u64 {
        0
    }

    /// The thread whose time is the consumer's.
    fn consumer_thread(&self) -> Option<&'static str> {
        Some(CONSUMER)
    }

    /// Ends the consumer once it has got `accepted` events, and checks what it has got.
    fn finish(self, accepted: u64, end: End) -> Result<Outcome>;
}

/// A thread's end of a peer.
pub(crate) trait Producer: Send + 'static {
    /// Offers the event with this number, and says whether it was accepted.
    fn offer(&mut self, number: u64) -> bool;
}

/// How far the consumer is.
pub(crate) trait Progress: Send + Sync + Clone + 'static {
    /// Events that the consumer has done with.
    fn received(&self) -> u64;

    /// Waits until the consumer has done with so many.
    fn wait_for(&self, events: u64) -> Result<()> {
        let start = Instant::now();
        while self.received() < events {
            if start.elapsed() > PATIENCE {
                bail!("of {events} events the consumer got {} in {PATIENCE:?}", self.received());
            }
            // No sleep: the caller's core would become idle, and its next batch of calls would pay for that.
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All that was accepted arrives.
    Delivered,
    /// The server is back, so most arrives; but what was on its way when it went may be in doubt.
    Healed,
    /// There is no server, so nobody waits.
    Abandoned,
}

/// What became of the events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Done with by the consumer; with a server: stored, as it says.
    pub(crate) received: u64,
    /// Accepted, and not known to be stored when the run ended.
    pub(crate) unconfirmed: u64,
}

/// Progress that a consumer of ours counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    #[inline]
    pub(crate) fn add_one(&self) {
        // Relaxed: only the number matters, and whoever compares it with a total has joined the threads before.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Progress for Counter {
    fn received(&self) -> u64 {
        // Relaxed: see `add_one`.
        self.0.load(Ordering::Relaxed)
    }
}

/// Opens once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        // Release pairs with the Acquire of `is_open`; nothing is handed over by it, but it costs nothing here.
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        // Acquire pairs with the Release of `open`.
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn wait(&self) {
        while !self.is_open() {
            std::thread::sleep(LINGER);
        }
    }
}
