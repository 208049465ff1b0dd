//! Models of the latch, explored exhaustively by loom (`make loom`).

use super::Latch;
use crate::sync::{AtomicU64, Ordering, model, thread};
use std::sync::Arc;

/// Three publications, so that the copy that a reader has begun with is written again.
#[test]
fn a_reader_sees_words_of_one_publication_and_none_older_than_what_it_heard_of() {
    model(|| {
        let (latch, heard) = (Arc::new(Latch::new(2)), Arc::new(AtomicU64::new(0)));
        let reader = {
            let (latch, heard) = (Arc::clone(&latch), Arc::clone(&heard));
            thread::spawn(move || {
                // Acquire: pairs with the Release below.
                let before = heard.load(Ordering::Acquire);
                let words = latch.read();
                assert_eq!(words[0], words[1]);
                assert!(words[0] >= before);
            })
        };
        for number in 1..=3 {
            latch.publish([number, number].into_iter());
            heard.store(number, Ordering::Release);
        }
        reader.join().expect("no panic");
        assert_eq!(*latch.read(), [3, 3]);
    });
}
