//! Rings for threads: which thread publishes into which ring.
//!
//! One ring shared by all threads collapses when they are many, whatever the algorithm; so there are several, and each
//! thread keeps to one. A thread takes a [number](crate::thread) at its first publish, and its ring is that number modulo
//! the rings of the bus.
//!
//! Order is per thread, because a thread's events all pass through the same ring.

use crate::config::{Queue, Rings};
use crate::record;
use crate::ring::{CAPACITY_MAX, Consumer, Doorbell, Ring};
use crate::shed::Shed;
use crate::thread::{self, Thread};
use std::sync::Arc;

/// Rings for each core, when their number is left to us: so that the threads that are running hardly ever share one.
const RINGS_PER_CORE: usize = 2;

/// Rings that we make when their number is left to us.
const RINGS_AUTO_MAX: usize = 16;

/// A ring and the count of what it has refused.
pub(crate) struct Lane {
    pub(crate) ring: Arc<Ring>,
    pub(crate) shed: Shed,
}

/// All rings of a bus.
pub(crate) struct Lanes {
    lanes: Box<[Lane]>,
    /// Takes a number to an index without a division, if the number of rings is a power of two; else all ones.
    mask: usize,
}

impl Lanes {
    /// Makes the rings that `queue` asks for, and their consumers.
    pub(crate) fn new(queue: &Queue, doorbell: &Arc<Doorbell>) -> (Self, Vec<Consumer>) {
        let record_bytes_max = queue.max_event + record::OVERHEAD_BYTES_MAX;
        let rings = count(queue, record_bytes_max);
        let capacity = (queue.capacity / rings).min(CAPACITY_MAX);
        let make = |_| {
            let (ring, consumer) = Ring::new(capacity, record_bytes_max, Arc::clone(doorbell));
            (Lane { ring, shed: Shed::new() }, consumer)
        };
        let (lanes, consumers): (Vec<_>, Vec<_>) = (0..rings).map(make).unzip();
        let mask = if rings.is_power_of_two() { rings - 1 } else { usize::MAX };
        (Self { lanes: lanes.into(), mask }, consumers)
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

/// As many rings as are asked for, but never so many that one is smaller than eight largest events: a ring of fewer
/// would refuse large events although it is nearly empty (agrona has the same rule).
fn count(queue: &Queue, record_bytes_max: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = match queue.rings {
        Rings::Auto => (cores * RINGS_PER_CORE).min(RINGS_AUTO_MAX),
        Rings::Count(rings) => rings.get(),
    };
    wanted.min(queue.capacity / (record_bytes_max * 8)).max(queue.capacity.div_ceil(CAPACITY_MAX))
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
        Lanes::new(&queue(toml), &Arc::new(Doorbell::new(|| {}))).0
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
