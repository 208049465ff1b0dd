//! Rings for threads: which thread publishes into which ring.
//!
//! One ring shared by all threads collapses when they are many, whatever the algorithm; so there are several, and each
//! thread keeps to one. A thread takes a [number](crate::thread) at its first publish, and its ring is that number modulo
//! the rings of the bus.
//!
//! Order is per thread, because a thread's events all pass through the same ring.
//!
//! With N [partitions](crate::partition) ring number l belongs to partition l modulo N, and there are equally many for each. So a
//! thread without a key finds its ring as ever, and its partition with it. With keys it has one ring in each partition, which is that
//! same one in its own, so that all of its events in a partition are in order:
//!
//! ```text
//!              partition 0   1   2
//!   thread 1     row 0 │ 0 │ 1 │ 2 │      without a key, or with one of partition 1: ring 1
//!                row 1 │ 3 │ 4 │ 5 │      with a key of partition 2: ring 5, since 1 modulo 2 rows is 1
//! ```

mod patience;

use crate::config::{Queue, Rings, WhenFull};
use crate::partition::partition_of;
use crate::record;
use crate::ring::{CAPACITY_MAX, Consumer, Doorbell, Refusal, Ring};
use crate::shed::Shed;
use crate::sync::Ordering;
use crate::sync::plain::AtomicBool;
use crate::thread::{self, Thread};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// Rings for each core, when their number is left to us: so that the threads that are running hardly ever share one.
const RINGS_PER_CORE: usize = 2;

/// Rings that we make when their number is left to us.
const RINGS_AUTO_MAX: usize = 16;

/// A ring and the count of what it has refused.
pub(crate) struct Lane {
    pub(crate) ring: Arc<Ring>,
    pub(crate) shed: Shed,
    /// How long a record that finds no room waits for it, in nanoseconds; none if it does not wait.
    patience: Option<NonZeroU64>,
    /// Whether any name of the bus has a [budget](crate::budget), or has had one. It stands here because who publishes has the lane at hand. Written
    /// when the first one is set.
    is_budgeted: AtomicBool,
}

/// Finding the lane of a number is a shift.
const _: () = assert!(size_of::<Lane>().is_power_of_two());

impl Lane {
    /// Whether an event goes the usual way: nobody has a budget, and there is room for a record of `len` bytes as far as two loads can tell.
    #[inline(always)]
    pub(crate) fn is_free(&self, len: usize) -> bool {
        self.ring.seems_open(len) && !self.is_budgeted()
    }

    #[inline(always)]
    pub(crate) fn is_budgeted(&self) -> bool {
        // Relaxed: what the budgets are is read through a pointer that takes care of itself.
        self.is_budgeted.load(Ordering::Relaxed)
    }

    /// Puts a record into the ring, and waits for its room where that is wanted.
    // Always: the way of what is accepted is that of `Ring::push` and nothing more.
    #[inline(always)]
    pub(crate) fn push(&self, parts: &[&[u8]]) -> Result<(), Refusal> {
        match self.ring.push(parts) {
            Ok(()) => Ok(()),
            Err(refusal) => self.push_refused(parts, refusal),
        }
    }

    #[cold]
    #[inline(never)]
    fn push_refused(&self, parts: &[&[u8]], refusal: Refusal) -> Result<(), Refusal> {
        match self.patience {
            Some(nanos) => patience::push(&self.ring, parts, refusal, Duration::from_nanos(nanos.get())),
            None => Err(refusal),
        }
    }

    /// Why a record of `len` bytes need not be made, since it would be refused right now; none also if it would wait then.
    #[inline(always)]
    pub(crate) fn refusal(&self, len: usize) -> Option<Refusal> {
        match self.ring.would_refuse(len) {
            Some(Refusal::Full) if self.patience.is_some() => None,
            refusal => refusal,
        }
    }
}

/// All rings of a bus.
pub(crate) struct Lanes {
    lanes: Box<[Lane]>,
    /// Takes a number to an index without a division, if the number of rings is a power of two; else all ones.
    mask: usize,
    /// How many there are; each has equally many rings.
    partitions: usize,
}

impl Lanes {
    /// Makes the rings that `queue` asks for, and their consumers, by partition. There is a doorbell for each partition.
    pub(crate) fn new(queue: &Queue, doorbells: &[Arc<Doorbell>]) -> (Self, Vec<Vec<Consumer>>) {
        let partitions = doorbells.len();
        let record_bytes_max = queue.max_event + record::OVERHEAD_BYTES_MAX;
        let rings = partitions * count(queue, partitions, record_bytes_max);
        let capacity = (queue.capacity / rings).min(CAPACITY_MAX);
        let mut consumers: Vec<Vec<Consumer>> = doorbells.iter().map(|_| Vec::new()).collect();
        let patience = match queue.when_full {
            WhenFull::Block(limit) => u64::try_from(limit.as_nanos()).ok().and_then(NonZeroU64::new),
            WhenFull::DropNewest | WhenFull::Spool => None,
        };
        let make = |number: usize| {
            let partition = number % partitions;
            let (ring, consumer) = Ring::new(capacity, record_bytes_max, Arc::clone(&doorbells[partition]));
            consumers[partition].push(consumer);
            Lane { ring, shed: Shed::new(), patience, is_budgeted: AtomicBool::new(false) }
        };
        let lanes = (0..rings).map(make).collect();
        let mask = if rings.is_power_of_two() { rings - 1 } else { usize::MAX };
        (Self { lanes, mask, partitions }, consumers)
    }

    /// The ring of the calling thread.
    #[inline]
    pub(crate) fn of_this_thread(&self) -> &Lane {
        let number = thread::with(Thread::number) as usize;
        match self.lanes.get(number & self.mask) {
            Some(lane) => lane,
            None => &self.lanes[number % self.lanes.len()],
        }
    }

    /// The ring that the calling thread has in the partition of `key`.
    #[inline]
    pub(crate) fn of_key(&self, key: &[u8]) -> &Lane {
        let number = thread::with(Thread::number) as usize;
        let partition = partition_of(key, self.partitions);
        let own = number % self.lanes.len();
        if own % self.partitions == partition {
            return &self.lanes[own];
        }
        // Not the row of its own ring: threads with consecutive numbers share that, and would share their rings in all partitions.
        let row = number % (self.lanes.len() / self.partitions);
        &self.lanes[row * self.partitions + partition]
    }

    /// The rings of a partition, in the order of its consumers. One beyond the last partition has none.
    #[inline]
    pub(crate) fn of_partition(&self, partition: usize) -> impl ExactSizeIterator<Item = &Lane> {
        let rings = if partition < self.partitions { &self.lanes[partition..] } else { &[] };
        rings.iter().step_by(self.partitions)
    }

    /// From now on events are looked at for the budgets of their names.
    pub(crate) fn become_budgeted(&self) {
        self.iter().for_each(|lane| lane.is_budgeted.store(true, Ordering::Relaxed));
    }

    /// The number, among all rings, of a ring of a partition.
    pub(crate) fn index(&self, partition: usize, ring: usize) -> usize {
        ring * self.partitions + partition
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Lane> {
        self.lanes.iter()
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.iter().map(|lane| lane.ring.capacity_bytes()).sum()
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.iter().map(|lane| lane.ring.used_bytes()).sum()
    }
}

/// The rings of each partition: together as many as are asked for, but never so many that one is smaller than eight largest events:
/// a ring of fewer would refuse large events although it is nearly empty (agrona has the same rule).
fn count(queue: &Queue, partitions: usize, record_bytes_max: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = match queue.rings {
        Rings::Auto => (cores * RINGS_PER_CORE).min(RINGS_AUTO_MAX),
        Rings::Count(rings) => rings.get(),
    };
    let share = queue.capacity / partitions;
    wanted.div_ceil(partitions).min(share / (record_bytes_max * 8)).max(share.div_ceil(CAPACITY_MAX))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Config;

    fn queue(toml: &str) -> Queue {
        Config::from_toml(&format!("[event-bus]\nchain-id = 1\n[event-bus.queue]\n{toml}")).unwrap().queue
    }

    fn lanes(toml: &str) -> Lanes {
        partitioned(toml, 1).0
    }

    fn partitioned(toml: &str, partitions: usize) -> (Lanes, Vec<Vec<Consumer>>) {
        let doorbells: Vec<_> = (0..partitions).map(|_| Arc::new(Doorbell::new(|| {}))).collect();
        Lanes::new(&queue(toml), &doorbells)
    }

    #[test]
    fn the_capacity_is_divided_among_the_rings_and_never_exceeded() {
        for (toml, rings) in [
            ("rings = 4", 4),
            ("rings = 1\ncapacity = \"64KiB\"\nmax-event = \"8KiB\"", 1),
            // Eight rings of 1 MiB could not hold eight events of 256 KiB each.
            ("rings = 8\ncapacity = \"8MiB\"\nmax-event = \"256KiB\"", 3),
        ] {
            let lanes = lanes(toml);
            assert_eq!(lanes.iter().count(), rings, "{toml}");
            assert!(lanes.capacity_bytes() <= queue(toml).capacity);
        }
    }

    #[test]
    fn every_allowed_queue_can_be_made() {
        for capacity in [64 << 10, 100_000, 1_000_000, (1 << 20) - 1, 16 << 20] {
            for share in [8, 9, 100] {
                let toml = format!("capacity = {capacity}\nmax-event = {}", (capacity / share).max(64));
                assert!(lanes(&toml).capacity_bytes() > capacity / 4, "{toml}");
            }
        }
    }

    #[test]
    fn every_allowed_queue_can_be_made_with_partitions() {
        for (partitions, share) in [(2, 64 << 10), (3, (64 << 10) + 1), (64, 64 << 10), (5, 300_000)] {
            let capacity = partitions * share;
            for rings in ["\"auto\"", "1", "64"] {
                let table = format!("capacity = {capacity}\nmax-event = {}\nrings = {rings}", share / 8);
                let (lanes, _) = partitioned(&table, partitions);
                assert!(lanes.len().is_multiple_of(partitions), "{table}");
                assert!((capacity / 4..=capacity).contains(&lanes.capacity_bytes()), "{table}");
            }
        }
    }

    #[test]
    fn partitions_have_equally_many_rings_and_each_its_own() {
        for (toml, partitions, rings) in [
            ("rings = 4", 1, 4),
            ("rings = 4", 2, 4),
            ("rings = 4", 3, 6),
            ("rings = 1", 8, 8),
            // Three partitions of some 2.7 MiB, of which two rings could not hold eight events of 256 KiB each.
            ("rings = 6\ncapacity = \"8MiB\"\nmax-event = \"256KiB\"", 3, 3),
        ] {
            let (lanes, consumers) = partitioned(toml, partitions);
            assert_eq!((lanes.len(), consumers.len()), (rings, partitions), "{toml}");
            assert!(lanes.capacity_bytes() <= queue(toml).capacity, "{toml}");
            for (partition, consumers) in consumers.iter().enumerate() {
                assert_eq!(consumers.len(), rings / partitions, "{toml}");
                for (ring, (lane, consumer)) in lanes.of_partition(partition).zip(consumers).enumerate() {
                    assert!(Arc::ptr_eq(&lane.ring, consumer.ring()), "{toml}: {partition}, {ring}");
                    assert!(std::ptr::eq(lane, &raw const lanes.lanes[lanes.index(partition, ring)]));
                }
            }
        }
    }

    #[test]
    fn a_key_has_one_partition_and_a_thread_one_ring_there() {
        let (lanes, _) = partitioned("rings = 12", 3);
        let place = |lane: &Lane| lanes.iter().position(|other| std::ptr::eq(lane, other)).unwrap();
        let of_threads = |key: &[u8]| -> Vec<usize> {
            std::thread::scope(|scope| {
                let publish = || [lanes.of_key(key), lanes.of_key(key), lanes.of_this_thread()].map(place);
                let places: Vec<_> = (0..8).map(|_| scope.spawn(publish).join().unwrap()).collect();
                for [ring, again, own] in &places {
                    assert_eq!(ring, again);
                    assert!(ring == own || ring % 3 != own % 3, "two rings in one partition: {places:?}");
                }
                places.into_iter().map(|[place, ..]| place).collect()
            })
        };
        for key in ["a", "b", "c", "", "WETH-USDC"] {
            let mut places = of_threads(key.as_bytes());
            assert!(places.iter().all(|place| place % 3 == partition_of(key, 3)), "{key}: {places:?}");
            places.sort_unstable();
            places.dedup();
            assert!(
                places.len() > 1,
                "eight threads in a row do not all share one of the four rings: {places:?}"
            );
        }
    }

    #[test]
    fn without_partitions_a_key_changes_nothing() {
        for rings in 1..=5 {
            let lanes = lanes(&format!("rings = {rings}"));
            assert!(std::ptr::eq(lanes.of_key(b"key"), lanes.of_this_thread()));
        }
    }

    #[test]
    fn a_thread_keeps_its_ring_and_threads_are_spread_evenly() {
        let lanes = Arc::new(lanes("rings = 4"));
        let own = |lanes: &Lanes| std::ptr::from_ref(lanes.of_this_thread()) as usize;
        assert_eq!(own(&lanes), own(&lanes));
        let others: Vec<usize> = (0..8)
            .map(|_| {
                let lanes = Arc::clone(&lanes);
                std::thread::spawn(move || own(&lanes)).join().unwrap()
            })
            .collect();
        let mut distinct = others;
        distinct.sort_unstable();
        distinct.dedup();
        assert!(distinct.len() > 1, "eight threads in a row do not all share one ring");
    }
}
