//! The bytes of the window: payloads one behind the other, in the order of their messages.
//!
//! ```text
//!   oldest message                                              newest
//!    │                                                            │
//!    ▼                                                            ▼
//!  ┌──────────────────────┐ ┌──────────────────────┐ ┌────────────────────┐
//!  │ ░░░░ payload payload │ │ payload payload  ... │ │ payload   (room)   │     slabs of about 64 KiB
//!  └──────────────────────┘ └──────────────────────┘ └────────────────────┘
//! ```
//!
//! An envelope is rendered where it stays: there is no allocation, no copy and no reference count for a message. Messages leave the
//! window in the order in which they came, so memory is given back in that order too: a slab goes when its last message has gone,
//! and one is kept for the next.
//!
//! The price is that a payload in the middle stays until all before it have gone, as its entry in the window does. What
//! [`bytes`](Payloads::bytes) says counts it for so long, so the window's limit holds for what is really kept. On top of it
//! come the end of each slab that was too little for the next payload (at most a fifteenth), what has gone from the oldest slab, the
//! room in the newest one, and the spare: three slabs, which are larger than 64 KiB where payloads are.

use std::collections::VecDeque;

/// Small enough to stay in the second-level cache while it is filled, sent and used again.
const SLAB_BYTES: usize = 64 << 10;

/// A slab with so many bytes is full. A payload that does not fit into the rest makes the slab grow, which copies what is in it; so
/// the rest is as large as most events are.
const SLAB_FULL: usize = SLAB_BYTES - (4 << 10);

/// Where a payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    slab: u64,
    start: usize,
    len: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Payloads {
    slabs: VecDeque<Slab>,
    /// Number of the front slab.
    first: u64,
    bytes: usize,
    spare: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slab {
    bytes: Vec<u8>,
    /// Payloads in it that have not gone yet.
    payloads: usize,
}

impl Payloads {
    /// Bytes of the payloads from the oldest to the newest.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what `write` appends as the newest payload, unless it fails.
    #[inline]
    pub(crate) fn push<T, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<(T, Place), E> {
        if self.slabs.back().is_none_or(|slab| slab.bytes.len() >= SLAB_FULL) {
            self.begin_slab();
        }
        let number = self.first + self.slabs.len() as u64 - 1;
        let slab = self.slabs.back_mut().expect("one was begun if there was none");
        let start = slab.bytes.len();
        match write(&mut slab.bytes) {
            Ok(written) => {
                let len = slab.bytes.len() - start;
                slab.payloads += 1;
                self.bytes += len;
                Ok((written, Place { slab: number, start, len }))
            }
            Err(error) => {
                slab.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// The payload at `place`.
    #[inline]
    pub(crate) fn get(&self, place: Place) -> &[u8] {
        let slab = &self.slabs[(place.slab - self.first) as usize];
        &slab.bytes[place.start..place.start + place.len]
    }

    /// Forgets the oldest payload, which is the one at `place`.
    #[inline]
    pub(crate) fn pop(&mut self, place: Place) {
        debug_assert_eq!(place.slab, self.first, "payloads go in the order in which they came");
        self.bytes -= place.len;
        if let Some(slab) = self.slabs.front_mut() {
            slab.payloads -= 1;
            if slab.payloads == 0 {
                self.end_slab();
            }
        }
    }

    #[cold]
    fn begin_slab(&mut self) {
        if let Some(full) = self.slabs.back_mut()
            && full.bytes.capacity() > SLAB_BYTES
        {
            // It has grown for a large payload, by doubling.
            full.bytes.shrink_to_fit();
        }
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.reserve_exact(SLAB_BYTES);
        self.slabs.push_back(Slab { bytes, payloads: 0 });
    }

    #[cold]
    fn end_slab(&mut self) {
        if let [only] = self.slabs.make_contiguous() {
            // The newest one: it is filled again from its start.
            only.bytes.clear();
            only.bytes.shrink_to(SLAB_BYTES);
            return;
        }
        if let Some(Slab { mut bytes, .. }) = self.slabs.pop_front() {
            self.first += 1;
            if bytes.capacity() == SLAB_BYTES {
                bytes.clear();
                self.spare = bytes;
            }
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    impl Payloads {
        fn held(&self) -> usize {
            self.slabs.iter().map(|slab| slab.bytes.capacity()).sum::<usize>() + self.spare.capacity()
        }
    }

    fn push(payloads: &mut Payloads, payload: &[u8]) -> Place {
        let written: Result<_, Infallible> = payloads.push(|out| {
            out.extend_from_slice(payload);
            Ok(())
        });
        written.unwrap().1
    }

    #[test]
    fn what_was_written_before_a_failure_is_taken_back() {
        let mut payloads = Payloads::default();
        let before = push(&mut payloads, b"before");
        let failed = payloads.push(|out| {
            out.extend_from_slice(b"half of a");
            Err::<(), _>("no")
        });
        let after = push(&mut payloads, b"after");
        assert_eq!((failed, payloads.bytes()), (Err("no"), 11));
        assert_eq!((payloads.get(before), payloads.get(after)), (&b"before"[..], &b"after"[..]));
    }

    proptest! {
        /// Beside a queue of vectors, which is what it stands for.
        #[test]
        fn payloads_are_kept_as_they_were_written_and_no_more_memory_than_was_promised(
            steps in proptest::collection::vec((any::<bool>(), prop_oneof![
                10 => 0..2000usize,
                2 => 0..20_000usize,
                1 => 0..200_000usize,
            ]), 1..400)
        ) {
            let (mut payloads, mut oracle) = (Payloads::default(), VecDeque::new());
            let mut largest = 0;
            for (number, (pushes, len)) in steps.into_iter().enumerate() {
                if pushes {
                    let payload = vec![number as u8; len];
                    largest = largest.max(len);
                    oracle.push_back((push(&mut payloads, &payload), payload));
                } else if let Some((place, _)) = oracle.pop_front() {
                    payloads.pop(place);
                }
                let bytes: usize = oracle.iter().map(|(_, payload)| payload.len()).sum();
                prop_assert_eq!(payloads.bytes(), bytes);
                // The largest may have gone from the oldest slab, and the newest may have grown for it.
                let promised = bytes + bytes / 15 + 3 * SLAB_BYTES + 2 * largest;
                prop_assert!(payloads.held() <= promised, "{} held for {bytes} bytes", payloads.held());
            }
            for (place, payload) in &oracle {
                prop_assert_eq!(payloads.get(*place), payload.as_slice());
            }
        }
    }
}
