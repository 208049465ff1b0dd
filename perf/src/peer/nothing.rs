//! The two ends of the scale: a call that does nothing, and a call that does only what every ring must.

use super::{CAPACITY_BYTES, End, Outcome, Peer, Producer, Progress, Setup};
use crate::clock;
use anyhow::{Result, ensure};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one thread of a bus of [`CAPACITY_BYTES`] has on two cores.
const FLOOR_BYTES: usize = CAPACITY_BYTES / 4;

/// An empty body: the loop and the machine.
#[derive(Debug)]
pub(crate) struct Control;

/// One reading of the clock, one compare-and-swap, one copy, one store.
#[derive(Debug)]
pub(crate) struct Floor {
    bytes: usize,
}

/// There is no consumer, so it is always done.
#[derive(Clone, Debug)]
pub(crate) struct Done;

impl Progress for Done {
    fn received(&self) -> u64 {
        u64::MAX
    }
}

impl Peer for Control {
    type Producer = Idle;
    type Progress = Done;

    fn start(_: &Setup) -> Result<Self> {
        Ok(Self)
    }

    fn producer(&mut self, _: usize) -> Idle {
        Idle
    }

    fn progress(&self) -> Done {
        Done
    }

    fn consumer_thread(&self) -> Option<&'static str> {
        None
    }

    fn finish(self, accepted: u64, _: End) -> Result<Outcome> {
        Ok(Outcome { received: accepted, unconfirmed: 0 })
    }
}

#[derive(Debug)]
pub(crate) struct Idle;

impl Producer for Idle {
    #[inline]
    fn offer(&mut self, number: u64) -> bool {
        black_box(number);
        true
    }
}

impl Peer for Floor {
    type Producer = Copier;
    type Progress = Done;

    fn start(setup: &Setup) -> Result<Self> {
        ensure!(setup.producers == 1, "the floor has room for one thread");
        Ok(Self { bytes: setup.size.bytes() })
    }

    fn producer(&mut self, _: usize) -> Copier {
        Copier {
            event: vec![b'x'; self.bytes],
            // Ones, so that the pages are there before the first call.
            ring: vec![1; FLOOR_BYTES],
            tail: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        }
    }

    fn progress(&self) -> Done {
        Done
    }

    fn consumer_thread(&self) -> Option<&'static str> {
        None
    }

    fn finish(self, accepted: u64, _: End) -> Result<Outcome> {
        Ok(Outcome { received: accepted, unconfirmed: 0 })
    }
}

#[derive(Debug)]
pub(crate) struct Copier {
    event: Vec<u8>,
    ring: Vec<u8>,
    tail: AtomicU64,
    committed: AtomicU64,
}

impl Producer for Copier {
    #[inline]
    fn offer(&mut self, _: u64) -> bool {
        let timestamp = clock::now_unordered();
        let lines = self.event.len().div_ceil(64) * 64;
        // Relaxed and AcqRel as a ring's claim would be; nobody else is there, so the exchange succeeds.
        let tail = self.tail.load(Ordering::Relaxed);
        let end = tail as usize + lines;
        let (at, next) = if end > self.ring.len() { (0, lines) } else { (tail as usize, end) };
        if self.tail.compare_exchange(tail, next as u64, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        self.event[..8].copy_from_slice(&timestamp.to_le_bytes());
        self.ring[at..at + self.event.len()].copy_from_slice(black_box(&self.event));
        // Release as a ring's commit would be.
        self.committed.store(next as u64, Ordering::Release);
        true
    }
}
