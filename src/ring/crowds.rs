//! Crowds on the ring: eight to sixteen producers, many laps, schedules drawn by chance (`make shuttle`).
//!
//! ```text
//!   8 … 16 producers ──► claim ┊ copy, part by part ┊ commit ──► a ring of 8 or 16 lines ──► small batches ──► oracle
//!                              ┊                    ┊                                        read twice
//!                     at each ┊, and at each access, another thread may run
//! ```
//!
//! Loom (`models.rs`) explores everything, and so can have no more than two or three threads with a record or two. Here is
//! what needs a crowd: claims that pile up behind one that is not committed, lap upon lap, while others are refused, the
//! ring is closed, or its consumer falls asleep. Shuttle runs all threads on one and takes every access for `SeqCst`, so these
//! models say nothing about orderings.
//!
//! A record is a pure function of its producer and number, as in `tests/stress.rs`, and the oracle is the same: what comes
//! out is intact, in order of its producer, once, and what is missing is exactly what was refused.
//!
//! Shuttle changes threads *before* an access and nowhere else. So a plain counter that is raised right behind a claim is
//! raised in one step with it, and what the ring says of its claims can be compared with it at any moment, exactly.
//!
//! A schedule that fails is printed; `JETRING_SHUTTLE_REPLAY=<what was printed> make shuttle MODEL=<the test's name>` runs it
//! again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{Consumer, Doorbell, LINE, Refusal, Ring};
use crate::sync::{Condvar, Mutex, explore, interleave, thread};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Schedules that each scheduler draws for each model: all of them together take seconds in a debug build.
const SCHEDULES: usize = 150;

/// The first record starts here, so that positions pass the end of their numbers in each model. They have six bits in these models, and the
/// count of claims has five (`position.rs`).
const NEAR_THE_END: u64 = (1 << 6) - 5;

#[test]
fn eight_producers_on_eight_lines_lose_tear_double_and_reorder_nothing() {
    explore(SCHEDULES, || crowd(&Crowd { producers: 8, offers_each: 6, lines: 8, ..Crowd::default() }));
}

#[test]
fn sixteen_producers_on_sixteen_lines_lose_tear_double_and_reorder_nothing() {
    explore(SCHEDULES, || crowd(&Crowd { producers: 16, offers_each: 4, lines: 16, ..Crowd::default() }));
}

#[test]
fn claims_that_are_given_up_leave_holes_that_nobody_falls_into() {
    let gives_up_every = 3;
    explore(SCHEDULES, move || crowd(&Crowd { gives_up_every, ..Crowd::default() }));
}

#[test]
fn a_close_among_ten_producers_parts_what_is_drained_from_what_is_refused() {
    explore(SCHEDULES, || crowd(&Crowd { producers: 10, closes_amid: true, ..Crowd::default() }));
}

/// Positions come round two times, and the count of claims four times, while any thread may be stopped.
#[test]
fn a_long_life_of_a_small_ring_is_counted_right_by_whoever_asks() {
    explore(SCHEDULES, || {
        crowd(&Crowd { producers: 4, offers_each: 24, lines: 8, watched: true, ..Crowd::default() });
    });
}

#[test]
fn a_consumer_that_parks_is_woken_by_a_crowd_and_at_most_twice_for_each_sleep() {
    explore(SCHEDULES, || crowd(&Crowd { parks: true, ..Crowd::default() }));
}

/// Two are no crowd, but the moment that matters, between the consumer's last look and its sleep, is then met more often: with
/// eight there is nearly always another one to come, whose knock repairs what was lost.
#[test]
fn a_parked_consumer_is_woken_by_the_last_of_few_records() {
    explore(10 * SCHEDULES, || {
        crowd(&Crowd { producers: 2, offers_each: 1, lines: 16, batch: 1, parks: true, ..Crowd::default() });
    });
}

/// What a model varies.
#[derive(Clone)]
struct Crowd {
    producers: u64,
    offers_each: u64,
    lines: usize,
    /// Records that the consumer takes at once.
    batch: usize,
    /// Every so-manieth claim is dropped without a commit; 0 for none.
    gives_up_every: u64,
    /// Whether one more thread closes the ring at some moment.
    closes_amid: bool,
    /// Whether the consumer parks when it finds nothing, in place of looking again. Nothing but a knock wakes it then, so the
    /// producers offer again what was refused: else the last refusal could come when the consumer sleeps already.
    parks: bool,
    /// Whether one more thread asks again and again how many claims there were.
    watched: bool,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            producers: 8,
            offers_each: 4,
            lines: 8,
            batch: 3,
            gives_up_every: 0,
            closes_amid: false,
            parks: false,
            watched: false,
        }
    }
}

/// Longest record: three lines.
const RECORD_BYTES_MAX: usize = 3 * LINE;

/// What all threads see. Plain counters, each raised in one step with what it counts.
#[derive(Default)]
struct Counts {
    claims: AtomicU64,
    given_up: AtomicU64,
    full: AtomicU64,
    contended: AtomicU64,
    closed: AtomicU64,
    wakes: AtomicU64,
    /// Producers that have not ended yet.
    busy: AtomicU64,
}

/// What wakes the consumer, and keeps a wake that comes before the sleep.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.rings.notify_one();
    }

    /// Shuttle reports a deadlock when it is never rung.
    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.rings.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn crowd(crowd: &Crowd) {
    let (counts, bell) = (Arc::new(Counts::default()), Arc::new(Bell::default()));
    counts.busy.store(crowd.producers, Relaxed);
    let doorbell = {
        let (counts, bell) = (Arc::clone(&counts), Arc::clone(&bell));
        Arc::new(Doorbell::new(move || {
            counts.wakes.fetch_add(1, Relaxed);
            bell.ring();
        }))
    };
    let (ring, mut consumer) =
        Ring::starting_at(NEAR_THE_END, crowd.lines * LINE, RECORD_BYTES_MAX, Arc::clone(&doorbell));

    let producers: Vec<_> = (0..crowd.producers)
        .map(|producer| {
            let (ring, counts, crowd) = (Arc::clone(&ring), Arc::clone(&counts), crowd.clone());
            thread::spawn(move || {
                let refused = produce(&ring, &counts, producer, &crowd);
                counts.busy.fetch_sub(1, Relaxed);
                refused
            })
        })
        .collect();
    let closer = crowd.closes_amid.then(|| {
        let ring = Arc::clone(&ring);
        thread::spawn(move || ring.close())
    });

    let watcher = crowd.watched.then(|| {
        let (ring, counts) = (Arc::clone(&ring), Arc::clone(&counts));
        thread::spawn(move || watch(&ring, &counts))
    });

    let mut oracle = Oracle { next: vec![0; crowd.producers as usize], ..Oracle::default() };
    let mut attempts_to_sleep = 0;
    loop {
        let producers_ended = counts.busy.load(Relaxed) == 0;
        let all_taken = consumer.taken() == crowd.producers * crowd.offers_each;
        let turn = consumer.drain(crowd.batch, |bytes| oracle.see(bytes));
        oracle.aborted += turn.aborted as u64;
        assert!(turn.records <= crowd.batch);
        oracle.compare(&consumer, &counts, crowd.lines);
        if turn.records == 0 && producers_ended && !consumer.has_claims() {
            break;
        }
        if turn.records > 0 {
            continue;
        }
        if crowd.parks && !all_taken {
            attempts_to_sleep += 1;
            if doorbell.park(|| consumer.has_claims()) {
                bell.wait();
                doorbell.wake_up();
                continue;
            }
        }
        thread::yield_now();
    }

    let refused: Vec<Vec<u64>> =
        producers.into_iter().map(|producer| producer.join().expect("no panic")).collect();
    if let Some(closer) = closer {
        closer.join().expect("no panic");
        assert_eq!(ring.claim(1).err(), Some(Refusal::Closed));
    }
    if let Some(watcher) = watcher {
        watcher.join().expect("no panic");
    }
    let get = |count: &AtomicU64| count.load(Relaxed);
    assert_eq!(
        (consumer.claimed(), consumer.taken(), ring.used_bytes()),
        (get(&counts.claims), get(&counts.claims), 0)
    );
    assert_eq!(oracle.aborted, get(&counts.given_up));
    let refusals = get(&counts.full) + get(&counts.contended) + get(&counts.closed);
    assert_eq!(crowd.producers * crowd.offers_each, oracle.records + oracle.aborted + refusals);
    assert!(
        get(&counts.wakes) <= 2 * attempts_to_sleep,
        "{} wakes of {attempts_to_sleep}",
        get(&counts.wakes)
    );
    assert!(crowd.closes_amid || get(&counts.closed) == 0);
    for (producer, refused) in refused.into_iter().enumerate() {
        let missing = oracle.missing_of(producer, crowd.offers_each);
        assert_eq!(missing, refused, "what is missing of producer {producer} is not what was refused");
    }
}

/// What the ring says of its claims is what was claimed at a moment of the call.
fn watch(ring: &Ring, counts: &Counts) {
    while counts.busy.load(Relaxed) > 0 {
        let before = counts.claims.load(Relaxed);
        let claimed = ring.claimed();
        let after = counts.claims.load(Relaxed);
        assert!(
            (before..=after).contains(&claimed),
            "{claimed} claims, from {before} to {after} of them in truth"
        );
        thread::yield_now();
    }
}

/// Offers all records of a producer; returns the numbers of those that cannot come out.
fn produce(ring: &Ring, counts: &Counts, producer: u64, crowd: &Crowd) -> Vec<u64> {
    let mut not_taken = Vec::new();
    for seq in 0..crowd.offers_each {
        let record = record(producer, seq);
        let mut claimed = ring.claim(record.len());
        while crowd.parks && claimed.is_err() {
            thread::yield_now();
            claimed = ring.claim(record.len());
        }
        let mut claim = match claimed {
            Ok(claim) => claim,
            Err(refusal) => {
                let count = match refusal {
                    Refusal::Full => &counts.full,
                    Refusal::Contended => &counts.contended,
                    Refusal::Closed => &counts.closed,
                    Refusal::TooLong => panic!("no record is longer than the ring was made for"),
                };
                count.fetch_add(1, Relaxed);
                not_taken.push(seq);
                thread::yield_now();
                continue;
            }
        };
        // No access lies between the claim's own and this one: it is the same step.
        counts.claims.fetch_add(1, Relaxed);
        interleave();
        if crowd.gives_up_every != 0 && (producer + seq).is_multiple_of(crowd.gives_up_every) {
            counts.given_up.fetch_add(1, Relaxed);
            not_taken.push(seq);
            drop(claim);
            continue;
        }
        // In small parts: between any two of them another thread may run.
        let parts: Vec<&[u8]> = record.chunks(LINE / 2).collect();
        claim.fill(&parts);
        interleave();
        claim.commit();
    }
    not_taken
}

/// The record of an offer. Each byte depends on the producer, the number and the place.
fn record(producer: u64, seq: u64) -> Vec<u8> {
    // Some of one line, some of three, of all lengths in between.
    let len = 16 + ((producer * 7 + seq * 53) % (RECORD_BYTES_MAX as u64 - 15)) as usize;
    let mut bytes: Vec<u8> = (0..len).map(|at| (producer * 101 + seq * 37) as u8 ^ at as u8).collect();
    bytes[..8].copy_from_slice(&producer.to_le_bytes());
    bytes[8..16].copy_from_slice(&seq.to_le_bytes());
    bytes
}

/// What the consumer has seen.
#[derive(Default)]
struct Oracle {
    records: u64,
    aborted: u64,
    /// The number after the last one seen, for each producer.
    next: Vec<u64>,
    /// Numbers passed over, with their producer.
    missing: Vec<(usize, u64)>,
}

impl Oracle {
    fn see(&mut self, bytes: &[u8]) {
        let first = bytes.to_vec();
        // What the consumer may read nobody may write: it is the same when it is read again later.
        interleave();
        assert!(first == bytes, "a record was written to while it was read");
        let word = |at: usize| u64::from_le_bytes(first[at..at + 8].try_into().unwrap());
        let (producer, seq) = (word(0), word(8));
        assert!(first == record(producer, seq), "a record is torn");
        let next = &mut self.next[producer as usize];
        assert!(seq >= *next, "record {seq} of producer {producer} came twice, or behind a later one");
        self.missing.extend((*next..seq).map(|seq| (producer as usize, seq)));
        *next = seq + 1;
        self.records += 1;
    }

    /// The ring's own count is exact at this moment, whatever others are doing.
    fn compare(&self, consumer: &Consumer, counts: &Counts, lines: usize) {
        let claimed = consumer.claimed();
        // No access lies between this and the claims' own.
        assert_eq!(claimed, counts.claims.load(Relaxed));
        assert_eq!(consumer.taken(), self.records + self.aborted);
        assert!(consumer.ring().used_bytes() <= lines * LINE);
    }

    fn missing_of(&self, producer: usize, offers: u64) -> Vec<u64> {
        let passed = self.missing.iter().filter(|(of, _)| *of == producer).map(|&(_, seq)| seq);
        passed.chain(self.next[producer]..offers).collect()
    }
}
