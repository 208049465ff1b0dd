//! The producers' side: claim, copy, commit.
//!
//! # A producer that is stopped
//!
//! The operating system may stop a thread anywhere for hours, while others go on and positions come round (after 2^39 lines, which are
//! 32 TiB). What it does then rests on values from before:
//!
//! - *before its claim*: the compare-and-swap fails, unless position, count and the closed bit of the tail are all as they were. With
//!   records of equal length that takes a multiple of 2^39 lines, to the line;
//! - *before it raises the limit*: that is a compare-and-swap too, on a word that changes with each raise (see [`Limit`]), so it fails.
//!   As a mere store it would leave a limit of old, which seems to lie ahead once 2^38 lines have gone by, and then others would overwrite
//!   records that nobody has read;
//! - *between a look at the tail and one at the head*: the room that it works out is wrong. If it seems too large, its claim fails. If it
//!   seems too small, which takes 2^38 lines, one event is refused as if the ring were full;
//! - *after its claim*: the consumer waits for the commit, and nothing is lost.

#![expect(unsafe_code, reason = "a claim's owner writes to the ring's memory")]

use super::memory::Commit;
use super::position::{Limit, Position};
use super::{Ring, lines_of};
use crate::sync::{Ordering, claim_barrier};

/// How often a claim is tried before it is refused as contended.
///
/// Each failure means that another producer's claim succeeded, so 64 in a row happen only when dozens of threads share
/// one ring. Then shedding one event is better than an unbounded wait.
const ATTEMPTS_MAX: usize = 64;

/// Why a claim was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room until the consumer has drained some.
    Full,
    /// Other producers were faster in every one of a bounded number of attempts.
    Contended,
    /// The record is longer than the ring was made for.
    TooLong,
    /// The ring is closed.
    Closed,
}

impl Ring {
    /// Copies a record in, given as consecutive parts, and makes it visible to the consumer.
    ///
    /// Never waits: the cost is one compare-and-swap (more if other producers use the same ring at that moment, up to a
    /// bound) and the copy. Wakes the consumer if it is parked.
    ///
    /// # Errors
    ///
    /// Says why there is no place for the record; nothing was written then.
    // Always: the number of parts is known where it is called, and the loops over them go away.
    #[inline(always)]
    pub fn push(&self, parts: &[&[u8]]) -> Result<(), Refusal> {
        let len = parts.iter().map(|part| part.len()).sum();
        let line = self.take(len)?;
        // No `Claim` here, which would go through memory: nothing from here to the commit can panic.
        // SAFETY: the lines were taken just now, for this length, and are not committed.
        unsafe { self.memory.write(line, parts) };
        self.finish(line, Commit::Committed(len));
        Ok(())
    }

    /// Takes the place for a record of exactly `len` bytes.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    #[inline]
    pub fn claim(&self, len: usize) -> Result<Claim<'_>, Refusal> {
        Ok(Claim { ring: self, line: self.take(len)?, len })
    }

    /// The claim itself: returns the first line of the place. It must be finished, or the consumer waits for it for ever.
    #[inline]
    fn take(&self, len: usize) -> Result<usize, Refusal> {
        if len > self.record_bytes_max {
            return Err(Refusal::TooLong);
        }
        let lines = lines_of(len) as u64;
        // Acquire, here and on failure below: pairs with the claim that stored this tail, whose producer had seen a limit that allows it. So
        // the limit that we read next is no older than that one. A stale tail fails the compare-and-swap.
        let mut tail = self.load_tail(Ordering::Acquire);
        for _ in 0..ATTEMPTS_MAX {
            if tail.is_closed() {
                return Err(Refusal::Closed);
            }
            let start = tail.position();
            let end = start.advance(lines);
            self.ensure_room(end)?;
            // SeqCst on success: it is the barrier between this claim and the look at the doorbell in `commit`, and faces
            // the consumer's SeqCst store to the doorbell and load of the tail. Acquire on failure: see above.
            match self.tail.compare_exchange_weak(
                tail.word(),
                tail.claimed_until(end).word(),
                Ordering::SeqCst,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(self.index(start)),
                Err(word) => tail = super::Tail::from_word(word),
            }
        }
        Err(Refusal::Contended)
    }

    /// The commit, or the giving up, of what was taken; wakes the consumer if it is parked.
    #[inline]
    fn finish(&self, line: usize, commit: Commit) {
        self.memory.commit(line, commit);
        claim_barrier();
        self.doorbell.knock();
    }

    /// Whether there is room for a record of `len` bytes as far as two loads can tell: a `false` may be wrong, and
    /// [`would_refuse`](Self::would_refuse) knows better.
    #[inline(always)]
    pub fn seems_open(&self, len: usize) -> bool {
        let tail = self.load_tail(Ordering::Relaxed);
        !tail.is_closed() && self.is_within_limit(tail.position().advance(lines_of(len) as u64))
    }

    /// Whether a record of `len` bytes would be refused right now.
    ///
    /// Lets a caller skip the making of a record that has no place. A `None` is no promise: others may be faster.
    #[inline(always)]
    pub fn would_refuse(&self, len: usize) -> Option<Refusal> {
        let tail = self.load_tail(Ordering::Relaxed);
        if tail.is_closed() {
            return Some(Refusal::Closed);
        }
        // To the head at once: this is asked where the limit was reached, and where events are shed that is always so.
        self.room_for(tail.position().advance(lines_of(len) as u64)).err()
    }

    #[inline]
    fn ensure_room(&self, end: Position) -> Result<(), Refusal> {
        let limit = self.load_limit();
        if limit.position().distance_from(end) >= 0 { Ok(()) } else { self.raise(limit, end) }
    }

    #[inline(always)]
    fn is_within_limit(&self, end: Position) -> bool {
        self.load_limit().position().distance_from(end) >= 0
    }

    /// Acquire: whoever raised the limit had seen the head that allows it; pairs with the Release in `raise`.
    #[inline(always)]
    fn load_limit(&self) -> Limit {
        Limit::from_word(self.limit.load(Ordering::Acquire))
    }

    /// The head, and the lines that would be used up to `end`. If they are too many, rings the doorbell.
    #[inline(always)]
    fn room_for(&self, end: Position) -> Result<(Position, i64), Refusal> {
        let head = self.load_head();
        let used = end.distance_from(head);
        if used > self.capacity_lines as i64 {
            self.doorbell.press();
            return Err(Refusal::Full);
        }
        Ok((head, used))
    }

    /// The slow path of a claim: renews the limit, which was read as `limit`, and rings the doorbell when the ring is over half full.
    ///
    /// The limit stops at half of the capacity first, so that this happens once on the way up and not on every claim.
    #[cold]
    #[inline(never)]
    fn raise(&self, limit: Limit, end: Position) -> Result<(), Refusal> {
        let (head, used) = self.room_for(end)?;
        let half_full = used > self.capacity_lines as i64 / 2;
        if half_full {
            self.doorbell.press();
        }
        let room = if half_full { self.capacity_lines } else { self.capacity_lines / 2 };
        let raised = limit.moved_to(head.advance(room));
        // It fails if another producer has moved the limit since we read it. Then ours is worthless: we may have been stopped since, and once
        // half of all positions have gone by, an old limit seems to lie far ahead of the tail. The claim itself is allowed by the head that
        // we have just read.
        // Release: hands on the head's Acquire to producers that only see the limit. Relaxed on failure: nothing is read through it.
        let _ =
            self.limit.compare_exchange(limit.word(), raised.word(), Ordering::Release, Ordering::Relaxed);
        Ok(())
    }
}

/// A place in the ring that is ours and that the consumer cannot pass until it is committed.
///
/// Dropping it without a commit gives it up: the consumer skips it. There is no way to lose one, short of leaking it.
#[must_use = "an uncommitted claim is skipped by the consumer"]
pub struct Claim<'ring> {
    ring: &'ring Ring,
    line: usize,
    len: usize,
}

impl Claim<'_> {
    /// Copies the record's parts in, one after the other.
    ///
    /// # Panics
    ///
    /// When the parts together are not as long as the claim: what they leave out would be bytes of an older record.
    #[inline]
    pub fn fill(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        assert!(len == self.len, "the claim is for {} bytes, not {len}", self.len);
        // SAFETY: `self` is the one claim on these lines, not yet committed, and long enough (checked above).
        unsafe { self.ring.memory.write(self.line, parts) }
    }

    /// Makes the record visible to the consumer, and wakes it if it is parked.
    #[inline]
    pub fn commit(self) {
        let claim = std::mem::ManuallyDrop::new(self);
        claim.ring.finish(claim.line, Commit::Committed(claim.len));
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.ring.finish(self.line, Commit::Aborted(self.len));
    }
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim").field("line", &self.line).field("len", &self.len).finish_non_exhaustive()
    }
}
