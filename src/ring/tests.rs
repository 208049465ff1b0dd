//! The ring on one thread, against a dull oracle. What threads do to it is in `tests/stress.rs` and `models.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{CAPACITY_MAX, Consumer, Doorbell, LINE, Refusal, Ring};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn silent() -> Arc<Doorbell> {
    Arc::new(Doorbell::new(|| {}))
}

fn drain_all(consumer: &mut Consumer) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let _ = consumer.drain(usize::MAX, |bytes| all.push(bytes.to_vec()));
    all
}

#[test]
fn records_come_out_as_they_went_in() {
    let (ring, mut consumer) = Ring::new(64 * 1024, 4096, silent());
    for len in [0, 1, 55, 56, 57, 63, 64, 65, 127, 128, 129, 4095, 4096] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + len) as u8).collect();
        let (left, right) = bytes.split_at(len / 3);
        // Also in one part, with empty ones about it, and, if there are no bytes, in no part at all.
        let in_parts: [&[&[u8]]; 3] =
            [&[left, right], &[&[], &bytes, &[]], if len == 0 { &[] } else { &[&bytes] }];
        for parts in in_parts {
            ring.push(parts).unwrap();
            assert_eq!(ring.used_bytes(), len.div_ceil(LINE).max(1) * LINE);
            assert_eq!(drain_all(&mut consumer), [&bytes[..]]);
        }
    }
    assert_eq!(ring.claim(4097).err(), Some(Refusal::TooLong));
}

/// The largest record behind each line of the array, so that it runs into the slack by every length that it can, at the
/// end of the numbers too, and on memory that an earlier record has used.
#[test]
fn a_largest_record_is_intact_at_every_place_of_the_array() {
    let (capacity, max) = (16, 5 * LINE - 1);
    for start in [0, (1 << 39) - 2 * capacity as u64] {
        for first in 0..capacity as u64 {
            let (ring, mut consumer) = Ring::starting_at(start + first, capacity * LINE, max, silent());
            for number in 0..9u8 {
                let bytes: Vec<u8> = (0..max).map(|at| number.wrapping_add(at as u8)).collect();
                ring.push(&[&bytes]).unwrap();
                ring.push(&[&[number; LINE]]).unwrap();
                assert_eq!(drain_all(&mut consumer), [bytes, vec![number; LINE]], "from line {first}");
            }
        }
    }
}

/// Fills a ring to its last line with records of one length after the other; the next one is refused, with nothing written.
#[test]
fn a_ring_is_full_at_exactly_its_capacity_with_records_of_every_length() {
    let capacity = 32;
    for start in [0, (1 << 39) - 7] {
        for len in [0, 1, 63, 64, 65, 127, 128, 129, MAX - 1, MAX] {
            let lines = len.div_ceil(LINE).max(1);
            let (ring, mut consumer) = Ring::starting_at(start, capacity * LINE, MAX, silent());
            for lap in 0..3u8 {
                for number in 0..capacity / lines {
                    assert_eq!(ring.would_refuse(len), None);
                    ring.push(&[&vec![lap * 50 + number as u8; len]]).unwrap();
                }
                let rest = capacity % lines;
                for _ in 0..rest {
                    assert_eq!(ring.would_refuse(LINE), None);
                    ring.push(&[&[9; LINE]]).unwrap();
                }
                assert_eq!(ring.used_bytes(), ring.capacity_bytes());
                for refused in [0, 1, len] {
                    assert_eq!(ring.would_refuse(refused), Some(Refusal::Full));
                    assert_eq!(ring.claim(refused).err(), Some(Refusal::Full));
                }
                let records = drain_all(&mut consumer);
                assert_eq!(records.len(), capacity / lines + rest);
                for (number, record) in records.iter().take(capacity / lines).enumerate() {
                    assert_eq!(*record, vec![lap * 50 + number as u8; len]);
                }
            }
            assert_eq!(consumer.claimed(), consumer.taken());
        }
    }
}

/// The number of claims has 24 bits in the tail, which one record after the other overruns.
#[test]
fn the_count_of_claims_is_exact_beyond_what_the_tail_can_count() {
    let (ring, mut consumer) = Ring::new(8 * LINE, LINE, silent());
    for turn in 0..(1u64 << 24) / 7 + 3 {
        for _ in 0..7 {
            ring.push(&[&[]]).unwrap();
        }
        let taken = consumer.taken();
        assert_eq!((taken, consumer.claimed()), (turn * 7, turn * 7 + 7));
        assert_eq!(consumer.drain(7, |_| ()).records, 7);
    }
    assert!(consumer.taken() > 1 << 24 && consumer.claimed() == consumer.taken());
}

#[test]
fn a_record_above_the_limit_is_refused_as_too_long() {
    let (ring, _consumer) = Ring::new(64 * 1024, 100, silent());
    assert_eq!(ring.push(&[&[0; 60], &[0; 41]]), Err(Refusal::TooLong));
    assert_eq!(ring.push(&[&[0; 60], &[0; 40]]), Ok(()));
}

#[test]
fn a_full_ring_refuses_and_has_room_again_for_exactly_what_was_drained() {
    let (ring, mut consumer) = Ring::new(8 * LINE, LINE, silent());
    for _ in 0..8 {
        assert_eq!(ring.would_refuse(1), None);
        ring.push(&[b"x"]).unwrap();
    }
    assert_eq!(ring.would_refuse(1), Some(Refusal::Full));
    assert_eq!(ring.push(&[b"x"]), Err(Refusal::Full));
    assert_eq!(ring.used_bytes(), 8 * LINE);
    assert_eq!(consumer.drain(3, |_| ()).records, 3);
    for _ in 0..3 {
        ring.push(&[b"y"]).unwrap();
    }
    assert_eq!(ring.push(&[b"y"]), Err(Refusal::Full));
    assert_eq!(drain_all(&mut consumer).len(), 8);
    assert_eq!((consumer.claimed(), consumer.taken(), ring.used_bytes()), (11, 11, 0));
}

#[test]
fn a_closed_ring_gives_what_it_holds_and_takes_nothing() {
    let (ring, mut consumer) = Ring::new(8 * LINE, LINE, silent());
    ring.push(&[b"before"]).unwrap();
    ring.close();
    assert!(ring.is_closed());
    assert_eq!(ring.push(&[b"after"]), Err(Refusal::Closed));
    assert_eq!(ring.would_refuse(1), Some(Refusal::Closed));
    assert_eq!(drain_all(&mut consumer), [b"before".to_vec()]);
}

#[test]
fn a_claim_that_is_not_committed_stops_the_consumer_and_nothing_else() {
    let (ring, mut consumer) = Ring::new(8 * LINE, LINE, silent());
    let mut stalled = ring.claim(5).unwrap();
    ring.push(&[b"behind"]).unwrap();
    let drained = consumer.drain(9, |_| panic!("nothing is committed at the head"));
    assert!(drained.pending && drained.records == 0 && consumer.has_claims());
    stalled.fill(&[b"first"]);
    stalled.commit();
    assert_eq!(drain_all(&mut consumer), [b"first".to_vec(), b"behind".to_vec()]);
}

#[test]
fn a_panic_in_the_drain_closure_loses_no_room() {
    let (ring, mut consumer) = Ring::new(8 * LINE, LINE, silent());
    for _ in 0..8 {
        ring.push(&[b"x"]).unwrap();
    }
    let mut seen = 0;
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = consumer.drain(8, |_| {
            seen += 1;
            assert!(seen < 4, "as if the worker had a bug");
        });
    }));
    assert!(unwound.is_err());
    assert_eq!(ring.used_bytes(), 4 * LINE);
    assert_eq!(drain_all(&mut consumer).len(), 4);
}

#[test]
fn the_doorbell_is_rung_once_for_each_sleep_and_not_for_an_awake_consumer() {
    let rung = Arc::new(AtomicUsize::new(0));
    let doorbell = {
        let rung = Arc::clone(&rung);
        Arc::new(Doorbell::new(move || {
            rung.fetch_add(1, Ordering::Relaxed);
        }))
    };
    let (ring, mut consumer) = Ring::new(16 * LINE, LINE, Arc::clone(&doorbell));
    ring.push(&[b"awake"]).unwrap();
    assert!(!doorbell.park(|| consumer.has_claims()), "there is something to drain");
    drain_all(&mut consumer);
    assert!(doorbell.park(|| consumer.has_claims()));
    for _ in 0..3 {
        ring.push(&[b"parked"]).unwrap();
    }
    assert_eq!(rung.load(Ordering::Relaxed), 1);
    doorbell.doze();
    for _ in 0..5 {
        ring.push(&[b"dozing, below half"]).unwrap();
    }
    assert_eq!(rung.load(Ordering::Relaxed), 1);
    for _ in 0..8 {
        ring.push(&[b"above half"]).unwrap();
    }
    assert_eq!(rung.load(Ordering::Relaxed), 2);
}

#[test]
#[should_panic(expected = "it must hold two")]
fn a_ring_of_fewer_than_two_records_is_refused() {
    let _ = Ring::new(15 * LINE, 5 * LINE, silent());
}

#[test]
#[should_panic(expected = "at most")]
fn a_ring_above_the_maximum_is_refused() {
    let _ = Ring::new(CAPACITY_MAX + LINE, LINE, silent());
}

#[derive(Clone, Debug)]
enum Op {
    Push(usize),
    Abort(usize),
    Drain(usize),
}

/// Longest record of the property below.
const MAX: usize = 512;

/// Lengths, the edges more often than chance would have them.
fn len() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 63, 64, 65, MAX - 1, MAX, MAX + 1];
    prop_oneof![proptest::sample::select(edges.to_vec()), 0..=70usize, 0..=MAX]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => len().prop_map(Op::Push),
        1 => len().prop_map(Op::Abort),
        2 => (0..=12usize).prop_map(Op::Drain),
    ]
}

proptest! {
    /// The oracle is a queue of byte strings that counts lines.
    #[test]
    fn the_ring_behaves_as_a_bounded_queue(
        ops in proptest::collection::vec(op(), 0..300),
        start in prop_oneof![Just(0u64), (1u64 << 39) - 100..1u64 << 39],
        // From the smallest ring that holds two largest records, which is nearly always full, to a roomy one.
        capacity in prop_oneof![Just(16usize), Just(32), Just(64)],
    ) {
        let (ring, mut consumer) = Ring::starting_at(start, capacity * LINE, MAX, silent());
        let mut oracle: VecDeque<Option<Vec<u8>>> = VecDeque::new();
        let mut lens: VecDeque<usize> = VecDeque::new();
        let lines = |len: usize| len.div_ceil(LINE).max(1);
        for (number, op) in ops.into_iter().enumerate() {
            let used: usize = lens.iter().map(|&len| lines(len)).sum();
            prop_assert_eq!(ring.used_bytes(), used * LINE);
            match op {
                Op::Push(len) => {
                    let bytes = vec![number as u8; len];
                    let fits = len <= MAX && used + lines(len) <= capacity;
                    let expected = match fits {
                        true => Ok(()),
                        false if len > MAX => Err(Refusal::TooLong),
                        false => Err(Refusal::Full),
                    };
                    if len <= MAX {
                        prop_assert_eq!(ring.would_refuse(len), expected.err());
                    }
                    prop_assert_eq!(ring.push(&[&bytes]), expected);
                    if fits {
                        oracle.push_back(Some(bytes));
                        lens.push_back(len);
                    }
                }
                Op::Abort(len) => {
                    let claimed = ring.claim(len);
                    prop_assert_eq!(claimed.is_ok(), len <= MAX && used + lines(len) <= capacity);
                    if claimed.is_ok() {
                        oracle.push_back(None);
                        lens.push_back(len);
                    }
                }
                Op::Drain(records) => {
                    let mut got = Vec::new();
                    let drained = consumer.drain(records, |bytes| got.push(bytes.to_vec()));
                    prop_assert!(!drained.pending && drained.records == got.len());
                    let mut expected = Vec::new();
                    let mut aborted = 0;
                    while expected.len() < records {
                        lens.pop_front();
                        match oracle.pop_front() {
                            None => break,
                            Some(None) => aborted += 1,
                            Some(Some(bytes)) => expected.push(bytes),
                        }
                    }
                    prop_assert_eq!((got, drained.aborted), (expected, aborted));
                }
            }
            prop_assert_eq!((consumer.claimed() - consumer.taken()) as usize, oracle.len());
        }
    }
}
