//! The quota holds, and what is deleted for it is counted.

use super::*;

const QUOTA: u64 = 12_000;

fn bounded(when_full: SpoolFull) -> Options {
    Options { max_bytes: QUOTA, when_full, ..options() }
}

fn open_bounded(memory: &Memory, when_full: SpoolFull) -> Log {
    Log::open(Arc::new(memory.clone()), bounded(when_full)).expect("it opens").0
}

/// What the files take.
fn used(memory: &Memory) -> u64 {
    memory.snapshot().values().map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn a_full_log_refuses_the_newest_within_its_quota() {
    let memory = Memory::new();
    let mut log = open_bounded(&memory, SpoolFull::DropNewest);
    let mut taken = 0;
    loop {
        match append(&mut log, 3) {
            Ok(()) => taken += 3,
            Err(Refusal::Full) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(used(&memory) <= QUOTA && log.bytes() >= used(&memory), "{} {}", used(&memory), log.bytes());
    }
    assert!(taken > 40, "{taken}");
    // Again and again, and after a restart.
    assert!(matches!(append(&mut log, 3), Err(Refusal::Full)));
    log.close().unwrap();
    let mut log = open_bounded(&memory, SpoolFull::DropNewest);
    let first = log.sequences().end;
    assert_eq!(first, taken + 1);
    // For the reports there is room still, but not for ever.
    let reports = (first..).take_while(|&number| log.append(&mut batch([number]), true).is_ok()).count();
    assert!((1..100).contains(&reports), "{reports}");
    assert!(used(&memory) <= QUOTA);
    read_memory(&memory).assert_holds(1..first);
}

#[test]
fn a_full_log_deletes_its_oldest_segments_and_counts_what_was_in_them() {
    let memory = Memory::new();
    let mut log = open_bounded(&memory, SpoolFull::DropOldest);
    let mut evicted = Ranges::default();
    for _ in 0..200 {
        append(&mut log, 3).unwrap();
        let now = log.take_evicted();
        now.listed.iter().for_each(|&(first, last)| evicted.add(first..last + 1));
        assert_eq!(log.sequences().start, evicted.sequences + 1);
        assert!(used(&memory) <= QUOTA);
    }
    log.close().unwrap();
    assert_eq!(evicted.listed, [(1, evicted.sequences)]);
    assert!(evicted.sequences > 400);
    let survey = Survey::take(&memory).unwrap();
    assert_eq!(survey.position.content.unwrap().evicted, evicted.sequences);
    let read = read_memory(&memory);
    read.assert_true();
    // What was deleted on purpose is not missing.
    assert_eq!(
        (read.records.len() as u64, read.missing.is_empty()),
        (600 - evicted.sequences, true),
        "{read:?}"
    );
}

#[test]
fn a_quota_that_became_smaller_is_kept_from_then_on() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    (0..100).for_each(|_| append(&mut log, 3).unwrap());
    log.close().unwrap();
    assert!(used(&memory) > QUOTA);
    assert!(matches!(append(&mut open_bounded(&memory, SpoolFull::DropNewest), 1), Err(Refusal::Full)));
    let mut log = open_bounded(&memory, SpoolFull::DropOldest);
    append(&mut log, 1).unwrap();
    assert!(used(&memory) <= QUOTA);
    read_memory(&memory).assert_holds(301..302);
}

#[test]
fn a_batch_that_is_larger_than_a_segment_has_one_of_its_own() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 1).unwrap();
    append(&mut log, 40).unwrap();
    append(&mut log, 1).unwrap();
    log.close().unwrap();
    read_memory(&memory).assert_holds(1..43);
}

#[test]
fn a_record_that_no_quota_has_room_for_is_refused_and_costs_nothing() {
    let memory = Memory::new();
    let mut log = open_bounded(&memory, SpoolFull::DropNewest);
    append(&mut log, 1).unwrap();
    let mut huge = Batch::default();
    huge.room().unwrap().push(b"a", b"", &vec![0; QUOTA as usize]).unwrap();
    assert!(matches!(log.append(&mut huge, true), Err(Refusal::Full)));
    append(&mut log, 1).unwrap();
    assert_eq!(log.sequences(), 1..3);
}

#[test]
fn owners_that_write_nothing_leave_nothing() {
    let memory = Memory::new();
    for _ in 0..20 {
        let (log, _) = open(&memory);
        log.close().unwrap();
    }
    let (mut log, _) = open(&memory);
    append(&mut log, 1).unwrap();
    log.close().unwrap();
    let segments = memory.names().unwrap().iter().filter(|name| name.ends_with(".seg")).count();
    assert_eq!(segments, 1);
}
