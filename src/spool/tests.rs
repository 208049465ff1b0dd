//! The log as a whole: what comes back, and what is said of what does not.
//!
//! | module | asks |
//! | --- | --- |
//! | [`golden`] | one log, with every byte flipped and every file cut off at every length |
//! | [`crash`] | the power fails, or the process is killed, at every step, and again in the recovery |
//! | [`faults`] | the disk is full, refuses to write, or to sync |
//! | [`room`] | quota, floor, eviction |
//! | [`disk`] | the same on a real directory |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crash;
mod disk;
mod faults;
mod golden;
mod room;

use super::batch::{Batch, Message};
use super::log::{Log, Options, Refusal};
use super::recovery::Recovery;
use super::storage::Storage;
use super::storage::memory::Memory;
use super::survey::Survey;
use super::walk::{Event, Walk};
use super::{Damage, Ranges};
use crate::config::SpoolFull;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Small segments, so that few records fill several of them.
const SEGMENT_BYTES: u64 = 400;

fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        emergency_bytes: 1000,
        ..Options::new(1 << 20, SpoolFull::DropNewest, true)
    }
}

fn open(memory: &Memory) -> (Log, Recovery) {
    Log::open(Arc::new(memory.clone()), options()).expect("it opens")
}

/// What stands in the record of a number.
fn payload(number: u64) -> Vec<u8> {
    let length = 5 + (number * 7 % 60) as usize;
    format!("{number:05}").bytes().cycle().take(length).collect()
}

/// A batch of these numbers.
fn batch(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let mut batch = Batch::default();
    for number in numbers {
        let subject = format!("event.1.n{}", number % 3);
        batch.push(subject.as_bytes(), b"A: b\r\n", &payload(number)).expect("it is small");
    }
    batch
}

/// Appends records whose numbers are their sequences.
fn append(log: &mut Log, count: u64) -> Result<(), Refusal> {
    let first = log.sequences().end;
    let appended = log.append(&mut batch(first..first + count), false)?;
    assert_eq!(appended, first..first + count);
    Ok(())
}

/// All that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Read {
    records: BTreeMap<u64, Vec<u8>>,
    missing: Ranges,
    damage: Vec<Damage>,
    repeated: u64,
}

fn read(storage: Arc<dyn Storage>) -> Read {
    let survey = Survey::take(&*storage).expect("it can be looked at");
    let mut read = Read { damage: survey.damage.clone(), ..Read::default() };
    let Some(log) = survey.log() else { return read };
    let mut walk = Walk::new(storage, log, &survey);
    let mut last = 0;
    while let Some(event) = walk.next().expect("it can be read") {
        match event {
            Event::Record { sequence, range } => {
                assert!(sequence > last, "{sequence} after {last}");
                last = sequence;
                let message = Message::decode(walk.record(range)).expect("its checksum was right");
                assert_eq!(message.headers, b"A: b\r\n");
                read.records.insert(sequence, message.payload.to_vec());
            }
            Event::Missing(range) => {
                assert!(range.start > last, "{range:?} after {last}");
                last = range.end - 1;
                read.missing.add(range);
            }
            Event::Damage(damage) => read.damage.push(damage),
        }
    }
    read.repeated = walk.repeated();
    read
}

fn read_memory(memory: &Memory) -> Read {
    read(Arc::new(memory.clone()))
}

impl Read {
    /// Every record is what was appended under its sequence.
    #[track_caller]
    fn assert_true(&self) {
        for (&sequence, bytes) in &self.records {
            assert_eq!(*bytes, payload(sequence), "record {sequence}");
        }
    }

    /// All of these are there.
    #[track_caller]
    fn assert_holds(&self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            assert!(self.records.contains_key(&sequence), "{sequence} is missing: {:?}", self.missing);
        }
    }

    /// Nothing between the first and the last record, or hole, is left out.
    #[track_caller]
    fn assert_gapless(&self, expected: std::ops::Range<u64>) {
        let missing: u64 = self.missing.sequences;
        assert_eq!(self.records.len() as u64 + missing, expected.end - expected.start, "{self:?}");
    }
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
        std::mem::forget(log);
        memory.kill();
    }
    let read = read_memory(&memory);
    read.assert_true();
    assert_eq!((read.records.len(), read.missing.is_empty()), (45, true));
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
