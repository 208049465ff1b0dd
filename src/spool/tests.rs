//! The log as a whole: what comes back, and what is said of what does not.
//!
//! | module | asks |
//! | --- | --- |
//! | [`golden`] | one log, with every byte flipped and every file cut off at every length |
//! | [`crash`] | the power fails, or the process is killed, at every step, and again in the recovery |
//! | [`faults`] | the disk is full, refuses to write, or to sync |
//! | [`room`] | quota, floor, eviction |
//! | [`hostile`] | numbers that no log has, with right checksums |
//! | [`disk`] | the same on a real directory |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod disk;
mod faults;
mod golden;
mod hostile;
mod room;

use super::Ranges;
use super::batch::Batch;
use super::log::{Log, Options, Refusal};
use super::recovery::Recovery;
use super::segment;
use super::storage::Storage;
use super::storage::memory::Memory;
use super::survey::Survey;
use super::trial::{HEADERS, Read, append, batch, options, payload};
use super::walk::{Event, Walk};
use crate::config::SpoolFull;
use std::collections::BTreeMap;
use std::sync::Arc;

fn open(memory: &Memory) -> (Log, Recovery) {
    Log::open(Arc::new(memory.clone()), options()).expect("it opens")
}

fn read_memory(memory: &Memory) -> Read {
    Read::of_memory(memory)
}

#[test]
fn what_goes_in_comes_out_in_order_over_segments_and_owners() {
    let memory = Memory::new();
    for owner in 0..3 {
        let (mut log, recovery) = open(&memory);
        assert_eq!(recovery, Recovery::default());
        assert_eq!(log.sequences(), 1..owner * 30 + 1);
        for _ in 0..10 {
            append(&mut log, 3).unwrap();
        }
        assert_eq!((log.counts().written, log.counts().synced > 0), (30, true));
        log.close().unwrap();
    }
    let read = read_memory(&memory);
    read.assert_true();
    read.assert_holds(1..91);
    assert_eq!(
        (read.records.len(), read.missing.is_empty(), read.damage.len(), read.repeated),
        (90, true, 0, 0)
    );
    let segments = memory.names().unwrap().iter().filter(|name| name.ends_with(".seg")).count();
    assert!(segments > 10, "{segments}");
}

#[test]
fn an_owner_that_was_killed_loses_nothing_that_was_written() {
    let memory = Memory::new();
    for owner in 0..5 {
        let (mut log, recovery) = open(&memory);
        assert_eq!((recovery.is_unclean, recovery.missing.is_empty()), (owner > 0, true), "{recovery:?}");
        append(&mut log, 4).unwrap();
        append(&mut log, 5).unwrap();
        drop(log);
        memory.kill();
    }
    let read = read_memory(&memory);
    read.assert_true();
    assert_eq!((read.records.len(), read.missing.is_empty()), (45, true));
}

#[test]
fn what_an_earlier_writer_has_overfilled_a_batch_with_is_rescued() {
    const RECORDS: u64 = 5000;
    let overfilled = |first: u64| {
        let numbers = first..first + RECORDS;
        Batch::overfilled(numbers.map(|number| (&b"event.1.a"[..], HEADERS, payload(number))))
    };
    for is_damaged in [false, true] {
        let memory = Memory::new();
        // All in one segment, which the next owner writes anew.
        let options = Options::new(64 << 20, SpoolFull::DropNewest, true);
        let (mut log, _) = Log::open(Arc::new(memory.clone()), options).unwrap();
        append(&mut log, 3).unwrap();
        log.append(&mut overfilled(4), false).unwrap();
        log.append(&mut overfilled(4 + RECORDS), false).unwrap();
        drop(log);
        memory.kill();
        let mut files = memory.snapshot();
        if is_damaged {
            // Of a record in the middle of the first of them.
            files.get_mut(&segment::name(1)).unwrap()[200_000] ^= 1;
        }
        let end = 4 + 2 * RECORDS;
        let before = read_memory(&Memory::of(&files));
        before.assert_true();
        assert_eq!(before.missing.sequences, u64::from(is_damaged));
        let memory = Memory::of(&files);
        let (log, recovery) = Log::open(Arc::new(memory.clone()), options).unwrap();
        assert_eq!((recovery.is_unclean, log.sequences()), (true, 1..end));
        assert_eq!(recovery.quarantined.len(), usize::from(is_damaged));
        log.close().unwrap();
        let after = read_memory(&memory);
        after.assert_true();
        assert_eq!(after.missing.sequences, u64::from(is_damaged));
        assert_eq!(after.records, before.records);
        assert_eq!(after.records.len() as u64 + after.missing.sequences, end - 1);
    }
}

#[test]
fn there_is_one_owner() {
    let memory = Memory::new();
    let (log, _) = open(&memory);
    let second = Log::open(Arc::new(memory.clone()), options());
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(log);
    open(&memory);
}

#[test]
fn who_follows_sees_what_is_appended_and_a_torn_tail_is_not_a_record() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 2).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(memory);
    let survey = Survey::take(&*storage).unwrap();
    let mut walk = Walk::new(Arc::clone(&storage), survey.log().unwrap(), &survey);
    let mut seen = Vec::new();
    for round in 0..12 {
        append(&mut log, round % 4 + 1).unwrap();
        walk.refresh(&Survey::take(&*storage).unwrap());
        while let Some(event) = walk.next().unwrap() {
            match event {
                Event::Record { sequence, .. } => seen.push(sequence),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, (1..log.sequences().end).collect::<Vec<_>>());
    }
}
