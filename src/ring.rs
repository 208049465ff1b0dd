//! A ring of variable-length records in a fixed array of bytes: many producers, one consumer, nobody ever waits.
//!
//! ```text
//!            head                                tail
//!             │  consumer reads here              │  producers claim here
//!             ▼                                   ▼
//!  ┌────┬────┬────┬────┬────┬────┬────┬────┬────┬────┬────┬────┐┈┈┈┈┬┈┈┈┈┐
//!  │free│free│ A1 │ A2 │ A3 │ B1 │ C1 │ C2 │ C3 │free│free│free│ slack   │   memory: lines of 64 bytes
//!  └────┴────┴────┴────┴────┴────┴────┴────┴────┴────┴────┴────┘┈┈┈┈┴┈┈┈┈┘
//!  │ 0  │ 0  │ A  │ 0  │ 0  │ 0  │ C  │ 0  │ 0  │ 0  │ 0  │ 0  │             commit words, one for each line
//! ```
//!
//! A producer *claims* a run of lines by moving the tail with one compare-and-swap, copies its bytes in, and *commits*
//! by one `Release` store to the commit word of the run's first line. In the picture A and C are committed and B is
//! claimed: the consumer will read A, find B's commit word still zero, and come back later. It never spins on B and never
//! takes it away, because B's producer may merely be preempted, and would then write into memory that is somebody else's.
//!
//! # Why so
//!
//! - **A claim can be refused**, so that a full ring sheds instead of waiting. That rules out `fetch_add`, whose claim
//!   cannot be given back (LMAX Disruptor: `next` adds, `tryNext` compares and swaps; folly's `MPMCQueue` likewise).
//! - **Nothing but a copy lies between claim and commit**: no user code, no allocation, nothing that can panic. Every
//!   queue that runs user code there has the matching bug (disruptor-rs: a panic leaves a hole for ever).
//! - **Records start on a line and never wrap**: the array has room past its end for one largest record. No line has two
//!   writers, and there is no padding record, which is where agrona had its bugs (agrona #22, PR #67).
//! - **Commit words stand apart from the bytes.** They are all that has to be zeroed for the next lap, one word a record, and
//!   the consumer never writes to the producers' lines; payload bytes can never be taken for a header. What that costs and
//!   saves is measured under "Decisions" in `ARCHITECTURE.md`.
//! - **The count of events rides in the tail**, beside the position, so that "how many are queued" is exact at any moment
//!   and costs the producer nothing: it is the same compare-and-swap.
//!
//! # Who touches what
//!
//! | field | written by | read by | pairs |
//! | --- | --- | --- | --- |
//! | `tail` | producers (claim), anyone (close) | producers; consumer before it parks | `SeqCst` CAS with the consumer's `SeqCst` load in [`wait`], and with a producer's `Acquire` load |
//! | `limit` | producers, after a look at `head` | producers | `Release` exchange, `Acquire` load: hands on what `head` said |
//! | `head` | consumer, once a batch | producers that seem to be out of room | `Release` store, `Acquire` load: the lines are free to write |
//! | `taken`, beside it | the same | who asks how many were claimed | `Release` store, `Acquire` load: these claims are in the tail |
//! | commit word | the claim's owner, then the consumer (zero) | consumer | `Release` store, `Acquire` load: the bytes are there |
//! | bytes | the claim's owner | consumer, after the commit word | by the commit word, and by `head` for the next lap |
//!
//! The order of all stores is modelled with loom in `ring/models.rs`, and crowds of producers with shuttle in
//! `ring/crowds.rs`. Read next: [`producer`], then [`consumer`].

#![cfg_attr(
    not(feature = "__internals"),
    allow(
        unreachable_pub,
        dead_code,
        unused_imports,
        reason = "the ring is opened to benches and stress tests by the feature only"
    )
)]

mod consumer;
mod memory;
mod position;
mod producer;
mod wait;

#[cfg(all(test, jetring_shuttle))]
mod crowds;
#[cfg(all(test, jetring_loom))]
mod models;
#[cfg(all(test, not(any(jetring_loom, jetring_shuttle))))]
mod tests;

use crate::sync::{AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use memory::Memory;
use position::{CLAIMS_MODULUS, LINES_MAX, Limit, Position, Tail};
use std::sync::Arc;

pub use consumer::{Consumer, Drained};
pub use producer::{Claim, Refusal};
pub use wait::Doorbell;

/// Bytes of a line, the unit in which space is claimed: one cache line, so that no two records share one.
pub const LINE: usize = 64;

/// Most bytes that a ring may hold: half as many records as the tail word can count.
pub const CAPACITY_MAX: usize = LINES_MAX as usize * LINE;

/// Largest records that a ring must be able to hold.
const RECORDS_MIN: usize = 2;

/// The shared part of a ring. Producers use it directly, the one consumer through its [`Consumer`].
pub struct Ring {
    /// Where the next claim starts, how many claims there were, and whether the ring is closed; see [`Tail`].
    tail: CachePadded<AtomicU64>,
    /// A position up to which producers may claim without a look at `head`; at most `head + capacity`. See [`Limit`].
    limit: CachePadded<AtomicU64>,
    head: CachePadded<Head>,
    memory: Memory,
    /// A power of two.
    capacity_lines: u64,
    record_bytes_max: usize,
    doorbell: Arc<Doorbell>,
}

/// How far the consumer has come. Only it writes here, once a batch.
struct Head {
    /// The position before which all lines are free again.
    position: AtomicU64,
    /// Records and given-up claims that it has passed, all since the ring was made.
    taken: AtomicU64,
}

/// How often the count of claims is looked at until it is sure. A second look is needed only if 2^23 records went through the ring during the
/// first one.
const LOOKS_MAX: usize = 16;

impl Ring {
    /// Makes a ring of `capacity_bytes`, rounded down to a power of two, for records of at most `record_bytes_max` bytes,
    /// and hands out its one consumer.
    ///
    /// The memory is written once here, so that the first lap does not pay for page faults.
    ///
    /// # Panics
    ///
    /// When the capacity is below two largest records or above [`CAPACITY_MAX`].
    pub fn new(
        capacity_bytes: usize,
        record_bytes_max: usize,
        doorbell: Arc<Doorbell>,
    ) -> (Arc<Self>, Consumer) {
        Self::starting_at(0, capacity_bytes, record_bytes_max, doorbell)
    }

    /// As [`new`](Self::new), but with the first record at the given line, to test what happens at the end of the numbers.
    pub fn starting_at(
        line: u64,
        capacity_bytes: usize,
        record_bytes_max: usize,
        doorbell: Arc<Doorbell>,
    ) -> (Arc<Self>, Consumer) {
        // With more, the numbers of the tail would not tell a full ring from an empty one.
        assert!(capacity_bytes <= CAPACITY_MAX, "a ring holds at most {CAPACITY_MAX} bytes");
        assert!(
            lines_of(record_bytes_max) * RECORDS_MIN <= prev_power_of_two(capacity_bytes / LINE),
            "a ring of {capacity_bytes} bytes is too small for records of {record_bytes_max}: it must hold two"
        );
        let capacity_lines = prev_power_of_two(capacity_bytes / LINE) as u64;
        let start = Position::at_line(line);
        let ring = Arc::new(Self {
            tail: CachePadded::new(AtomicU64::new(Tail::starting_at(start).word())),
            limit: CachePadded::new(AtomicU64::new(Limit::at(start.advance(capacity_lines / 2)).word())),
            head: CachePadded::new(Head { position: AtomicU64::new(start.word()), taken: AtomicU64::new(0) }),
            memory: Memory::new(capacity_lines as usize, lines_of(record_bytes_max)),
            capacity_lines,
            record_bytes_max,
            doorbell,
        });
        let consumer = Consumer::new(Arc::clone(&ring), start);
        (ring, consumer)
    }

    /// Bytes that the ring holds when it is full.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_lines as usize * LINE
    }

    /// Refuses every claim from now on. What was claimed before stays and can be drained.
    pub fn close(&self) {
        // SeqCst: a claim either precedes the close in the tail's own order, and is drained, or is refused.
        self.tail.fetch_or(Tail::CLOSED, Ordering::SeqCst);
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.load_tail(Ordering::Relaxed).is_closed()
    }

    /// Claims since the ring was made, including those that are being written at this moment. For any thread, and never less than what was
    /// claimed before the call.
    ///
    /// The tail has only the low bits of the count, and the calling thread may be stopped between two looks. So it looks at what was taken
    /// both before and after: the count lies between the first number, and the second one with a full ring added.
    pub fn claimed(&self) -> u64 {
        for _ in 0..LOOKS_MAX {
            // Acquire: pairs with the consumer's Release; the claims that were taken are in the tail that we read next.
            let before = self.head.taken.load(Ordering::Acquire);
            // Acquire: pairs with the claim, whose producer had seen the head that made room for it. So `after` is no older than that head.
            let claims = self.load_tail(Ordering::Acquire).claims();
            let after = self.head.taken.load(Ordering::Acquire);
            if after - before < CLAIMS_MODULUS / 2 {
                return extend(before, claims);
            }
        }
        // This thread was stopped again and again, each time for millions of records. So many were claimed at least.
        self.head.taken.load(Ordering::Acquire)
    }

    /// Bytes between head and tail: claimed, and not yet given back by the consumer. Approximate while others work.
    pub fn used_bytes(&self) -> usize {
        // In this order: if we are stopped in between, the consumer may pass the tail that we have read, and we tell too little, for a
        // moment. The other way round an idle ring would pass for a full one.
        let tail = self.load_tail(Ordering::Acquire).position();
        let lines = tail.distance_from(self.load_head());
        lines.clamp(0, self.capacity_lines as i64) as usize * LINE
    }

    #[inline]
    fn load_tail(&self, ordering: Ordering) -> Tail {
        Tail::from_word(self.tail.load(ordering))
    }

    /// `Acquire` pairs with the consumer's `Release`: what it read and zeroed below this position, it has finished with.
    #[inline]
    fn load_head(&self) -> Position {
        Position::from_word(self.head.position.load(Ordering::Acquire))
    }

    #[inline]
    fn index(&self, position: Position) -> usize {
        position.index(self.capacity_lines)
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("capacity_bytes", &self.capacity_bytes())
            .field("record_bytes_max", &self.record_bytes_max)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Lines that a record of `len` bytes takes; an empty record takes one.
#[inline]
fn lines_of(len: usize) -> usize {
    len.div_ceil(LINE).max(1)
}

/// The whole count that has the given low bits and is not below `taken`; right as long as fewer than 2^24 lie in between.
fn extend(taken: u64, claims_low_bits: u64) -> u64 {
    taken + (claims_low_bits.wrapping_sub(taken) % CLAIMS_MODULUS)
}

fn prev_power_of_two(n: usize) -> usize {
    1 << n.ilog2()
}
