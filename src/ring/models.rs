//! Models of the ring, explored exhaustively by loom (`make loom`). Each is one interleaving that somebody was afraid of.
//!
//! Models are kept tiny, since the number of interleavings grows with every access: one or two records a thread. Positions have five
//! bits here and the count of claims has four (`position.rs`), so that a thread can be stopped until they have come round.

use super::{Consumer, Doorbell, Drained, Refusal, Ring};
use crate::sync::{AtomicU64, Notify, Ordering, model, model_with_preemptions, thread};
use std::sync::Arc;

/// The last line before positions begin again at zero.
const LAST_LINE: u64 = (1 << 5) - 1;

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
        // Eight lines, records of two; the first one starts at the last line and runs into the slack.
        let (ring, mut consumer) = Ring::starting_at(LAST_LINE, 8 * 64, 128, Arc::new(Doorbell::new(|| {})));
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
fn a_consumer_that_parks_is_woken_by_either_of_two_producers_and_at_most_by_both() {
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
        assert!(wakes.load(Ordering::Relaxed) <= 2, "one sleep, and more than two wakes");
        let mut records = drain_exactly(&mut consumer, 2);
        records.sort();
        assert_eq!(records, [vec![1; 64], vec![2; 64]]);
    });
}

#[test]
fn of_two_producers_that_fill_a_ring_past_half_one_or_both_wake_a_dozing_consumer() {
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
        assert!((1..=2).contains(&wakes.load(Ordering::Relaxed)));
        let mut records = drain_exactly(&mut consumer, 4);
        records.sort();
        assert_eq!(records, [1u8, 2, 3, 4].map(|byte| vec![byte; 64]));
    });
}

/// Two lines for four records: each commit word and each line is used twice, across the end of the numbers.
#[test]
fn lines_and_commit_words_are_new_again_on_each_lap() {
    model(|| {
        let (ring, mut consumer) = Ring::starting_at(LAST_LINE, 2 * 64, 64, Arc::new(Doorbell::new(|| {})));
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

/// A producer is stopped before it stores the limit that it has worked out, until half of all positions have gone by: then the old limit
/// seems to lie ahead of the tail. The ring is full when it goes on.
#[test]
fn a_limit_that_is_stored_ages_after_it_was_worked_out_lets_nobody_overwrite_what_is_unread() {
    model(|| {
        let (ring, mut consumer) = Ring::starting_at(0, 4 * 64, 128, Arc::new(Doorbell::new(|| {})));
        let push = |byte: u8| ring.push(&[&[byte; 128]]);
        push(0).expect("there is room");
        assert_eq!(drain_exactly(&mut consumer, 1).len(), 1);
        // The next claim is beyond the first limit.
        let late = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.push(&[&[100; 128]]))
        };
        let mut records = Vec::new();
        let mut accepted = 0u8;
        for _ in 0..8 {
            // It is refused if the late one has claimed its place and has not committed it.
            accepted += u8::from(push(accepted).is_ok());
            let _ = consumer.drain(2, |bytes| records.push(bytes[0]));
        }
        while push(accepted).is_ok() {
            accepted += 1;
        }
        let late = late.join().expect("no panic");
        while consumer.has_claims() {
            let _ = consumer.drain(1, |bytes| {
                assert_eq!(bytes, [bytes[0]; 128], "a record is torn");
                records.push(bytes[0]);
            });
        }
        assert_eq!(records.iter().filter(|&&byte| byte == 100).count(), usize::from(late.is_ok()));
        records.retain(|&byte| byte != 100);
        assert_eq!(records, (0..accepted).collect::<Vec<_>>());
    });
}

/// Somebody who reads the count is stopped between two looks, until as many claims were made as the tail can count.
#[test]
fn a_count_of_claims_is_never_below_what_was_claimed_before_it_was_asked_for() {
    // Stopped once is enough, and there are many places for it.
    model_with_preemptions(1, || {
        let (ring, mut consumer) = Ring::starting_at(0, 2 * 64, 64, Arc::new(Doorbell::new(|| {})));
        let claimed = Arc::new(AtomicU64::new(0));
        let reader = {
            let (ring, claimed) = (Arc::clone(&ring), Arc::clone(&claimed));
            thread::spawn(move || {
                // Acquire: pairs with the Release below; the claims are in the tail.
                let before = claimed.load(Ordering::Acquire);
                let count = ring.claimed();
                assert!(
                    before <= count && count <= 18,
                    "{count} claims, and {before} of them were made before"
                );
            })
        };
        for number in 1..=18 {
            ring.push(&[&[1]]).expect("there is room");
            claimed.store(number, Ordering::Release);
            let _ = consumer.drain(1, |_| ());
        }
        reader.join().expect("no panic");
        assert_eq!((ring.claimed(), consumer.claimed()), (18, 18));
    });
}

/// There is never more than one record in it. Somebody who looks is stopped between head and tail.
#[test]
fn a_ring_that_is_nearly_empty_is_never_told_to_be_full() {
    model(|| {
        let (ring, mut consumer) = Ring::starting_at(0, 4 * 64, 64, Arc::new(Doorbell::new(|| {})));
        let reader = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || assert!(ring.used_bytes() <= 64))
        };
        for _ in 0..4 {
            ring.push(&[&[1]]).expect("there is room");
            let _ = consumer.drain(1, |_| ());
        }
        reader.join().expect("no panic");
    });
}

/// The first producer to wake is stopped when it has taken the doorbell and has not woken anybody.
#[test]
fn a_producer_that_stops_while_it_wakes_costs_no_other_the_wake() {
    model(|| {
        let [bell, resume] = [(); 2].map(|()| Arc::new(Notify::new()));
        let [wakes, may_resume] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let doorbell = {
            let (bell, resume) = (Arc::clone(&bell), Arc::clone(&resume));
            let (wakes, may_resume) = (Arc::clone(&wakes), Arc::clone(&may_resume));
            Arc::new(Doorbell::new(move || {
                if wakes.fetch_add(1, Ordering::Relaxed) > 0 {
                    return bell.notify();
                }
                // A wait may end without a reason.
                while may_resume.load(Ordering::Acquire) == 0 {
                    resume.wait();
                }
            }))
        };
        let (ring, mut consumer) = Ring::starting_at(3, 8 * 64, 64, Arc::clone(&doorbell));
        assert!(doorbell.park(|| consumer.has_claims()));
        let producers: Vec<_> = [1u8, 2]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || ring.push(&[&[byte; 64]]).expect("there is room"))
            })
            .into();
        // Loom reports a deadlock when the other one does not wake.
        while !consumer.has_claims() || wakes.load(Ordering::Relaxed) < 2 {
            bell.wait();
        }
        doorbell.wake_up();
        let mut records = drain_exactly(&mut consumer, 2);
        may_resume.store(1, Ordering::Release);
        resume.notify();
        producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
        records.sort();
        assert_eq!(records, [vec![1; 64], vec![2; 64]]);
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_consumer_of_two_rings_is_woken_by_a_claim_in_either() {
    model(|| {
        let (bell, doorbell) = bell_and_doorbell();
        let mut rings = [3, 7].map(|line| Ring::starting_at(line, 8 * 64, 64, Arc::clone(&doorbell)));
        let producers: Vec<_> = rings
            .iter()
            .map(|(ring, _)| {
                let ring = Arc::clone(ring);
                thread::spawn(move || ring.push(&[&[1]]).expect("there is room"))
            })
            .collect();
        let mut records = 0;
        while records < 2 {
            while doorbell.park(|| rings.iter().any(|(_, consumer)| consumer.has_claims())) {
                bell.wait();
            }
            for (_, consumer) in &mut rings {
                records += consumer.drain(1, |_| ()).records;
            }
            thread::yield_now();
        }
        producers.into_iter().for_each(|producer| producer.join().expect("no panic"));
    });
}

/// The consumer's time is up while a producer presses, and the consumer parks next. The press must not pass for the wake of the next
/// record.
#[test]
fn a_press_that_comes_when_the_doze_is_over_takes_no_wake_from_a_parked_consumer() {
    model(|| {
        let (bell, doorbell) = bell_and_doorbell();
        let (ring, mut consumer) = Ring::starting_at(1, 2 * 64, 64, Arc::clone(&doorbell));
        doorbell.doze();
        let producer = thread::spawn(move || {
            // The second one finds the ring over half full, unless the first is drained by then.
            for byte in [1u8, 2] {
                ring.push(&[&[byte; 64]]).expect("two fit");
            }
        });
        // The time is up.
        doorbell.wake_up();
        let mut records = Vec::new();
        while records.len() < 2 {
            sleep_until_claimed(&doorbell, &bell, &consumer);
            let _ = consumer.drain(2, |bytes| records.push(bytes[0]));
            thread::yield_now();
        }
        producer.join().expect("no panic");
        assert_eq!(records, [1, 2]);
    });
}

/// As the worker does: a close is a command that comes after the rings were closed.
#[test]
fn a_close_against_a_consumer_that_parks_ends_it_with_all_that_was_accepted() {
    model(|| {
        let (bell, doorbell) = bell_and_doorbell();
        let (ring, mut consumer) = Ring::starting_at(7, 8 * 64, 64, Arc::clone(&doorbell));
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.push(&[&[1]]).is_ok())
        };
        let closer = {
            let (ring, bell) = (Arc::clone(&ring), Arc::clone(&bell));
            thread::spawn(move || {
                ring.close();
                bell.notify();
            })
        };
        let mut records = 0;
        while !ring.is_closed() || consumer.has_claims() {
            if doorbell.park(|| consumer.has_claims()) {
                bell.wait();
            }
            doorbell.wake_up();
            records += consumer.drain(1, |_| ()).records;
            thread::yield_now();
        }
        closer.join().expect("no panic");
        assert_eq!(records, usize::from(producer.join().expect("no panic")));
        assert!(!consumer.has_claims());
    });
}

/// Nothing but the press of one that waits ends the doze.
#[test]
fn a_producer_that_waits_for_room_wakes_a_dozing_consumer_and_gets_it() {
    model(|| {
        let (bell, doorbell) = bell_and_doorbell();
        let (ring, mut consumer) = Ring::starting_at(5, 2 * 64, 64, Arc::clone(&doorbell));
        for byte in [1u8, 2] {
            ring.push(&[&[byte; 64]]).expect("two fit");
        }
        doorbell.doze();
        let waiting: Vec<_> = [3u8]
            .map(|byte| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    while let Err(refusal) = ring.push(&[&[byte; 64]]) {
                        assert_eq!(refusal, Refusal::Full);
                        thread::yield_now();
                    }
                })
            })
            .into();
        bell.wait();
        doorbell.wake_up();
        let mut records = drain_exactly(&mut consumer, 3);
        waiting.into_iter().for_each(|producer| producer.join().expect("no panic"));
        records.sort();
        assert_eq!(records, [1u8, 2, 3].map(|byte| vec![byte; 64]));
    });
}
