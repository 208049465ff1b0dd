//! Models of the ring, explored exhaustively by loom (`make loom`). Each is one interleaving that somebody was afraid of.
//!
//! Models are kept tiny, since the number of interleavings grows with every access: one or two records a thread.

use super::{Consumer, Doorbell, Drained, Refusal, Ring};
use crate::sync::{AtomicU64, Notify, Ordering, model, thread};
use std::sync::Arc;

/// A ring of eight one-line records that starts at `line`, with a doorbell that wakes nobody.
fn ring_at(line: u64) -> (Arc<Ring>, Consumer) {
    Ring::starting_at(line, 8 * 64, 64, Arc::new(Doorbell::new(|| {})))
}

/// A doorbell, and what its wakes ring.
fn bell_and_doorbell() -> (Arc<Notify>, Arc<Doorbell>) {
    let bell = Arc::new(Notify::new());
    let rung = Arc::clone(&bell);
    (bell, Arc::new(Doorbell::new(move || rung.notify())))
}

/// Parks until there is something to drain. Loom reports a deadlock when the wake is lost.
fn sleep_until_claimed(doorbell: &Doorbell, bell: &Notify, consumer: &Consumer) {
    while doorbell.park(|| consumer.has_claims()) {
        bell.wait();
    }
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
        let (bell, doorbell) = bell_and_doorbell();
        let (ring, mut consumer) = Ring::starting_at(3, 8 * 64, 64, Arc::clone(&doorbell));
        let producer = thread::spawn(move || ring.push(&[b"wake"]).expect("there is room"));
        sleep_until_claimed(&doorbell, &bell, &consumer);
        assert_eq!(drain_exactly(&mut consumer, 1), [b"wake".to_vec()]);
        producer.join().expect("no panic");
    });
}

/// Each wake is by the knock of a commit, and the ring is so small that the second record may have to wait for room.
#[test]
fn a_consumer_that_parks_again_is_woken_again() {
    model(|| {
        let (bell, doorbell) = bell_and_doorbell();
        let (ring, mut consumer) = Ring::starting_at(1, 2 * 64, 64, Arc::clone(&doorbell));
        let producer = thread::spawn(move || {
            for byte in [1u8, 2] {
                ring.push(&[&[byte; 64]]).expect("two fit");
            }
        });
        let mut records = Vec::new();
        while records.len() < 2 {
            sleep_until_claimed(&doorbell, &bell, &consumer);
            records.extend(drain_exactly(&mut consumer, 1));
        }
        producer.join().expect("no panic");
        assert_eq!(records, [vec![1; 64], vec![2; 64]]);
    });
}

#[test]
fn a_consumer_that_parks_is_woken_by_either_of_two_producers_and_only_once() {
    model(|| {
        let bell = Arc::new(Notify::new());
        let wakes = Arc::new(AtomicU64::new(0));
        let doorbell = {
            let (bell, wakes) = (Arc::clone(&bell), Arc::clone(&wakes));
            Arc::new(Doorbell::new(move || {
                wakes.fetch_add(1, Ordering::Relaxed);
                bell.notify();
            }))
        };
        let (ring, mut consumer) = Ring::starting_at(7, 8 * 64, 64, Arc::clone(&doorbell));
        let producers: Vec<_> = [1u8, 2]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte; 64]]).expect("there is room"))
            })
            .into();
        if doorbell.park(|| consumer.has_claims()) {
            // Loom reports a deadlock when neither of them wakes it.
            bell.wait();
        }
        producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
        assert!(wakes.load(Ordering::Relaxed) <= 1, "one sleep, and more than one wake");
        let mut records = drain_exactly(&mut consumer, 2);
        records.sort();
        assert_eq!(records, [vec![1; 64], vec![2; 64]]);
    });
}

#[test]
fn of_two_producers_that_fill_a_ring_past_half_exactly_one_wakes_a_dozing_consumer() {
    model(|| {
        let wakes = Arc::new(AtomicU64::new(0));
        let doorbell = {
            let wakes = Arc::clone(&wakes);
            Arc::new(Doorbell::new(move || {
                wakes.fetch_add(1, Ordering::Relaxed);
            }))
        };
        let (ring, mut consumer) = Ring::starting_at(7, 4 * 64, 64, Arc::clone(&doorbell));
        for byte in [1u8, 2] {
            ring.push(&[&[byte; 64]]).expect("half of the ring is free");
        }
        doorbell.doze();
        let producers: Vec<_> = [3u8, 4]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte; 64]]).expect("half of the ring is free"))
            })
            .into();
        producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut records = drain_exactly(&mut consumer, 4);
        records.sort();
        assert_eq!(records, [1u8, 2, 3, 4].map(|byte| vec![byte; 64]));
    });
}

/// Two lines for four records: each commit word and each line is used twice, across the end of the numbers.
#[test]
fn lines_and_commit_words_are_new_again_on_each_lap() {
    model(|| {
        let (ring, mut consumer) =
            Ring::starting_at((1 << 39) - 1, 2 * 64, 64, Arc::new(Doorbell::new(|| {})));
        let producer = thread::spawn(move || {
            for byte in [1u8, 2, 3, 4] {
                while let Err(refusal) = ring.push(&[&[byte; 64]]) {
                    assert_eq!(refusal, Refusal::Full);
                    thread::yield_now();
                }
            }
        });
        for byte in [1u8, 2, 3, 4] {
            assert_eq!(drain_exactly(&mut consumer, 1), [vec![byte; 64]]);
        }
        producer.join().expect("no panic");
        assert_eq!(consumer.drain(1, |_| panic!("nothing is left")), Drained::default());
        assert_eq!((consumer.claimed(), consumer.taken()), (4, 4));
    });
}

/// A claim that is given up leaves a word behind too, and so does a record of two lines in its first line only.
#[test]
fn given_up_claims_and_long_records_leave_nothing_for_the_next_lap() {
    model(|| {
        let (ring, mut consumer) = Ring::starting_at(3, 4 * 64, 128, Arc::new(Doorbell::new(|| {})));
        drop(ring.claim(128).expect("there is room"));
        ring.push(&[&[1; 128]]).expect("there is room");
        let producer = thread::spawn(move || {
            // One line each, on the lap behind two records of two lines.
            for byte in [2u8, 3] {
                while let Err(refusal) = ring.push(&[&[byte; 64]]) {
                    assert_eq!(refusal, Refusal::Full);
                    thread::yield_now();
                }
            }
        });
        let first = consumer.drain(1, |bytes| assert_eq!(bytes, [1; 128]));
        assert_eq!((first.records, first.aborted), (1, 1));
        for byte in [2u8, 3] {
            assert_eq!(drain_exactly(&mut consumer, 1), [vec![byte; 64]]);
        }
        producer.join().expect("no panic");
        assert_eq!((consumer.claimed(), consumer.taken(), consumer.has_claims()), (4, 4, false));
    });
}

/// As the worker ends: once it has seen the close and then no claim, it never looks again.
#[test]
fn a_ring_that_was_seen_closed_and_then_empty_has_nothing_to_come() {
    model(|| {
        let (ring, mut consumer) = ring_at(7);
        let producers: Vec<_> = [1u8, 2]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte]]).map(|()| byte))
            })
            .into();
        ring.close();
        let mut records = Vec::new();
        while consumer.has_claims() {
            let drained = consumer.drain(1, |bytes| records.push(bytes[0]));
            if drained.records == 0 {
                thread::yield_now();
            }
        }
        let claimed = consumer.claimed();
        let results = producers.into_iter().map(|producer| producer.join().expect("no panic"));
        let mut accepted: Vec<_> = results
            .filter_map(|result| {
                assert!(matches!(result, Ok(_) | Err(Refusal::Closed)));
                result.ok()
            })
            .collect();
        accepted.sort_unstable();
        records.sort_unstable();
        assert_eq!(records, accepted);
        assert_eq!((claimed, consumer.claimed()), (accepted.len() as u64, accepted.len() as u64));
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
