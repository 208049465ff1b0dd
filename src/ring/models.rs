//! Models of the ring, explored exhaustively by loom (`make loom`). Each is one interleaving that somebody was afraid of.
//!
//! Models are kept tiny, since the number of interleavings grows with every access: one or two records a thread.

use super::{Consumer, Doorbell, Refusal, Ring};
use crate::sync::{Notify, model, thread};
use std::sync::Arc;

/// A ring of eight one-line records that starts at `line`, with a doorbell that wakes nobody.
fn ring_at(line: u64) -> (Arc<Ring>, Consumer) {
    Ring::starting_at(line, 8 * 64, 64, Arc::new(Doorbell::new(|| {})))
}

/// Drains until `records` have come, letting others run in between.
fn drain_exactly(consumer: &mut Consumer, records: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < records {
        let drained = consumer.drain(records - all.len(), |bytes| all.push(bytes.to_vec()));
        assert_eq!(drained.aborted, 0);
        if drained.records == 0 {
            thread::yield_now();
        }
    }
    all
}

#[test]
fn two_producers_and_the_consumer_meet_across_the_end_of_the_array() {
    model(|| {
        // Sixteen lines, records of two; the first one starts at the last line and runs into the slack.
        let (ring, mut consumer) =
            Ring::starting_at((1 << 39) - 1, 16 * 64, 128, Arc::new(Doorbell::new(|| {})));
        let producers: Vec<_> = [1u8, 2]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte; 60], &[byte; 40]]).expect("there is room"))
            })
            .into();
        let mut records = drain_exactly(&mut consumer, 2);
        producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
        records.sort();
        assert_eq!(records, [vec![1; 100], vec![2; 100]]);
        assert_eq!((consumer.claimed(), consumer.taken()), (2, 2));
    });
}

#[test]
fn a_full_ring_refuses_until_lines_are_given_back_and_then_reuses_them() {
    model(|| {
        let (ring, mut consumer) = ring_at(5);
        for byte in 0..8 {
            ring.push(&[&[byte; 64]]).expect("eight fit");
        }
        // Two producers, so that one of them may go by a limit that the other has read from the head.
        let producers: Vec<_> = [101u8, 102]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte; 64]]))
            })
            .into();
        let first = drain_exactly(&mut consumer, 2);
        assert_eq!(first, [vec![0; 64], vec![1; 64]]);
        let results: Vec<_> =
            producers.into_iter().map(|producer| producer.join().expect("no panic")).collect();
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(Refusal::Full))));
        assert_eq!(drain_exactly(&mut consumer, 6 + accepted).len(), 6 + accepted);
        assert!(!consumer.has_claims());
    });
}

#[test]
fn what_is_claimed_before_the_close_is_drained_and_nothing_is_claimed_after() {
    model(|| {
        let (ring, mut consumer) = ring_at(7);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.push(&[b"last"]))
        };
        ring.close();
        let claimed = consumer.claimed() as usize;
        let records = drain_exactly(&mut consumer, claimed);
        match producer.join().expect("no panic") {
            Ok(()) => assert_eq!(records, [b"last".to_vec()]),
            Err(refusal) => assert_eq!((refusal, records.len()), (Refusal::Closed, 0)),
        }
        assert!(!consumer.has_claims());
    });
}

#[test]
fn a_consumer_that_parks_is_woken_by_a_claim_that_it_did_not_see() {
    model(|| {
        let bell = Arc::new(Notify::new());
        let doorbell = {
            let bell = Arc::clone(&bell);
            Arc::new(Doorbell::new(move || bell.notify()))
        };
        let (ring, mut consumer) = Ring::starting_at(3, 8 * 64, 64, Arc::clone(&doorbell));
        let producer = thread::spawn(move || ring.push(&[b"wake"]).expect("there is room"));
        // Loom reports a deadlock when the wake is lost.
        while doorbell.park(|| consumer.has_claims()) {
            bell.wait();
        }
        assert_eq!(drain_exactly(&mut consumer, 1), [b"wake".to_vec()]);
        producer.join().expect("no panic");
    });
}

#[test]
fn a_claim_that_is_dropped_is_skipped_and_counted() {
    model(|| {
        let (ring, mut consumer) = ring_at(6);
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                drop(ring.claim(10).expect("there is room"));
                ring.push(&[b"after"]).expect("there is room");
            })
        };
        let (mut records, mut aborted) = (Vec::new(), 0);
        while records.is_empty() {
            aborted += consumer.drain(1, |bytes| records.push(bytes.to_vec())).aborted;
            thread::yield_now();
        }
        producer.join().expect("no panic");
        assert_eq!((records, aborted), (vec![b"after".to_vec()], 1));
        assert_eq!(consumer.claimed(), 2);
    });
}
