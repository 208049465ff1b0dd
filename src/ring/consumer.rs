//! The consumer's side: read what is committed, in order, and give the lines back once a batch.

#![expect(unsafe_code, reason = "the one consumer reads the ring's memory")]

use super::memory::Commit;
use super::position::Position;
use super::{Ring, extend, lines_of};
use crate::sync::Ordering;
use std::sync::Arc;

/// What one [`Consumer::drain`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "records that were given up must be accounted for"]
pub struct Drained {
    /// Records handed out.
    pub records: usize,
    /// Claims that their owners gave up, and which were skipped.
    pub aborted: usize,
    /// Whether it stopped at a claim that its owner has not committed yet.
    pub pending: bool,
}

/// The one reader of a ring.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    /// Where the next record starts. `ring.head` follows at the end of each batch.
    head: Position,
    /// Records and given-up claims taken so far.
    taken: u64,
}

impl Consumer {
    pub(super) fn new(ring: Arc<Ring>, head: Position) -> Self {
        Self { ring, head, taken: 0 }
    }

    /// Hands up to `records_max` records to `each`, oldest first, until it runs out of committed ones.
    ///
    /// It polls the commit words, and looks at the tail, whose cache line belongs to the producers, only when it has run out of
    /// committed records. A claim that is not committed yet ends the batch; it is never waited for.
    #[inline]
    pub fn drain(&mut self, records_max: usize, mut each: impl FnMut(&[u8])) -> Drained {
        let mut drained = Drained::default();
        // Gives the lines back when the batch ends, also by a panic of `each`.
        let batch = Batch { consumer: self };
        while drained.records < records_max {
            let line = batch.consumer.ring.index(batch.consumer.head);
            let len = match batch.consumer.ring.memory.commit_of(line) {
                Commit::Pending => {
                    drained.pending = batch.consumer.has_claims();
                    break;
                }
                Commit::Committed(len) => {
                    batch.consumer.pass(line, len);
                    // SAFETY: we are the one consumer, the record was committed with this length, and its lines are not
                    // given back before the batch ends.
                    unsafe { batch.consumer.ring.memory.read(line, len, &mut each) };
                    drained.records += 1;
                    continue;
                }
                Commit::Aborted(len) => len,
            };
            batch.consumer.pass(line, len);
            drained.aborted += 1;
        }
        drained
    }

    /// Claims since the ring was made, including those that are being written at this moment.
    pub fn claimed(&self) -> u64 {
        // Acquire: nothing is read through it but the count.
        extend(self.taken, self.ring.load_tail(Ordering::Acquire).claims())
    }

    /// Records and given-up claims that [`drain`](Self::drain) has passed.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether there is any claim that was not drained yet, committed or not.
    pub fn has_claims(&self) -> bool {
        // SeqCst: the other half of the parking protocol, see `wait`.
        self.ring.load_tail(Ordering::SeqCst).position() != self.head
    }

    /// The ring that this reads.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    #[inline]
    fn pass(&mut self, line: usize, len: usize) {
        self.ring.memory.clear(line);
        self.head = self.head.advance(lines_of(len) as u64);
        self.taken += 1;
    }
}

struct Batch<'a> {
    consumer: &'a mut Consumer,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let head = &self.consumer.ring.head;
        // Release: pairs with the Acquire in `Ring::claimed`; these claims are in the tail. First, so that who sees the lines free sees this too.
        head.taken.store(self.consumer.taken, Ordering::Release);
        // Release: we have read and cleared everything below; pairs with the Acquire of a producer's `load_head`.
        head.position.store(self.consumer.head.word(), Ordering::Release);
    }
}
