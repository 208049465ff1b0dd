//! Words that one thread publishes and any thread reads, all of one moment. Neither ever waits for the other.
//!
//! ```text
//!   version ──►  7        the last words are in copy 7 mod 2
//!                ├── copy 0:  being written, for version 8
//!                └── copy 1:  whole; readers read here
//! ```
//!
//! Behind a lock the worker would wait for a scraper that the operating system has stopped in the middle of its read, and a scraper for
//! the worker. Here the worker writes the copy that nobody reads, and then says so by one store. A reader reads the other copy, and looks
//! afterwards whether a version was published meanwhile. If so, its copy may be the one that is written next, and it begins again. (Linux
//! calls this a seqcount latch.)
//!
//! All accesses are atomic, so a torn read is only thrown away.

use crate::sync::{AtomicU64, Ordering};

#[cfg(all(test, jetring_loom))]
mod models;

pub(crate) struct Latch {
    /// How often words were published. Only the publisher writes it.
    version: AtomicU64,
    /// The last words are in the copy whose number is the version modulo 2.
    copies: [Box<[AtomicU64]>; 2],
}

impl Latch {
    /// So many words, which are zero.
    pub(crate) fn new(words: usize) -> Self {
        let copy = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { version: AtomicU64::new(0), copies: [copy(), copy()] }
    }

    /// Publishes words in the place of those before. Only one thread may do so at a time; of two, readers might see a mixture.
    pub(crate) fn publish(&self, words: impl Iterator<Item = u64>) {
        // Relaxed: nobody else writes it.
        let next = self.version.load(Ordering::Relaxed) + 1;
        for (word, value) in self.copy(next).iter().zip(words) {
            // Release: pairs with the Acquire of the words in `read`. Who sees this value also sees the version before it.
            word.store(value, Ordering::Release);
        }
        // Release: pairs with the Acquire of the version in `read`; the words are there.
        self.version.store(next, Ordering::Release);
    }

    /// The words that were published last. It begins again only if others were published while it read.
    pub(crate) fn read(&self) -> Box<[u64]> {
        loop {
            // Acquire: pairs with the Release in `publish`; the words of this version are there.
            let version = self.version.load(Ordering::Acquire);
            // Acquire: pairs with the Release in `publish`. If a word is of the version after the next, the load below sees at least the
            // next one.
            let words = self.copy(version).iter().map(|word| word.load(Ordering::Acquire)).collect();
            // Relaxed: comes after the loads above because of their Acquire.
            if self.version.load(Ordering::Relaxed) == version {
                return words;
            }
        }
    }

    fn copy(&self, version: u64) -> &[AtomicU64] {
        &self.copies[(version % 2) as usize]
    }
}

#[cfg(all(test, not(any(jetring_loom, jetring_shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_was_published_last_is_read() {
        let latch = Latch::new(3);
        assert_eq!(*latch.read(), [0; 3]);
        for number in 1..=5 {
            latch.publish((number..).take(3));
            assert_eq!(*latch.read(), [number, number + 1, number + 2]);
        }
    }

    #[test]
    fn words_are_of_one_moment_and_never_of_an_earlier_one_than_before() {
        let (latch, is_over) = (Latch::new(40), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !is_over.load(Ordering::Acquire) {
                        let words = latch.read();
                        assert!(words.iter().all(|&word| word == words[0]) && words[0] >= last, "{words:?}");
                        last = words[0];
                    }
                });
            }
            (1..=100_000).for_each(|number| latch.publish(std::iter::repeat(number)));
            is_over.store(true, Ordering::Release);
        });
        assert_eq!(*latch.read(), [100_000; 40]);
    }
}
