//! One log of a few segments, and everything that can happen to a byte of it.
//!
//! Whatever is damaged, three things must hold: every record that is told is one that was written, everything from the first sequence to the
//! last is either told or told as missing, and the damage itself is named. And it must be so for a reader, for the next owner, and
//! for a reader after him.

use super::*;
use crate::spool::checksum::{Seed, array_at};
use crate::spool::trial::golden;
use crate::spool::{LogId, meta, segment};

const RECORDS: u64 = 24;

/// The next owner, who writes one more.
fn own(memory: &Memory) -> Recovery {
    let (mut log, recovery) = open(memory);
    let next = log.sequences().end;
    assert!(next > RECORDS, "{next} would be used twice");
    append(&mut log, 1).unwrap();
    log.close().unwrap();
    recovery
}

/// Nothing is left out: what is not there is missing.
#[track_caller]
fn assert_gapless(read: &Read, expected: std::ops::Range<u64>) {
    assert_eq!(read.records.len() as u64 + read.missing.sequences, expected.end - expected.start, "{read:?}");
}

/// What holds of every damaged log.
#[track_caller]
fn check(files: &BTreeMap<String, Vec<u8>>, what: &str) {
    let memory = Memory::of(files);
    let before = read_memory(&memory);
    before.assert_true();
    assert_gapless(&before, 1..RECORDS + 1);
    assert!(!before.damage.is_empty() || !before.missing.is_empty(), "{what}: nothing was said");

    let recovery = own(&memory);
    let after = read_memory(&memory);
    after.assert_true();
    assert_gapless(&after, 1..RECORDS + 2);
    assert_eq!(
        after.missing.sequences, before.missing.sequences,
        "{what}: {before:?} {recovery:?} {after:?}"
    );
    assert!(after.records.contains_key(&(RECORDS + 1)), "{what}");

    // Once more: what was put right stays right, and what is missing stays missing.
    own(&Memory::of(&memory.snapshot()));
    let again = read_memory(&memory);
    assert_eq!((&again.records, &again.missing), (&after.records, &after.missing), "{what}");
}

#[test]
fn the_golden_log_is_whole() {
    let read = read_memory(&Memory::of(&golden()));
    read.assert_true();
    read.assert_holds(1..RECORDS + 1);
    assert_eq!((read.missing.is_empty(), read.damage), (true, Vec::new()));
    assert!(golden().keys().filter(|name| segment::id_of(name).is_some()).count() >= 4);
}

#[test]
fn every_flipped_byte_is_noticed_and_what_it_costs_is_counted() {
    let files = golden();
    let (mut harmless, mut costly) = (0, 0);
    for (name, bytes) in &files {
        for at in 0..bytes.len() {
            let mut damaged = files.clone();
            // Each bit has its turn.
            let flip = 1 << (at % 8);
            damaged.get_mut(name).unwrap()[at] ^= flip;
            check(&damaged, &format!("{name}, byte {at} ^ {flip:#x}"));
            let lost = read_memory(&Memory::of(&damaged)).missing.sequences;
            // At most a batch, if it was its head or its table.
            assert!(lost <= 6, "{name}, byte {at}: {lost}");
            (harmless, costly) = if lost == 0 { (harmless + 1, costly) } else { (harmless, costly + 1) };
        }
    }
    assert!(harmless > 1000 && costly > 1000, "{harmless} {costly}");
}

#[test]
fn every_truncation_is_noticed_and_what_it_costs_is_counted() {
    let files = golden();
    for (name, bytes) in &files {
        for length in 0..bytes.len() {
            let mut damaged = files.clone();
            damaged.get_mut(name).unwrap().truncate(length);
            check(&damaged, &format!("{name}, cut to {length}"));
        }
    }
}

#[test]
fn every_deleted_file_is_noticed_and_what_it_costs_is_counted() {
    let files = golden();
    for name in files.keys() {
        let mut damaged = files.clone();
        damaged.remove(name);
        check(&damaged, &format!("without {name}"));
    }
}

#[test]
fn segments_that_were_swapped_are_strangers() {
    let files = golden();
    let segments: Vec<&String> = files.keys().filter(|name| segment::id_of(name).is_some()).collect();
    let mut swapped = files.clone();
    swapped.insert(segments[0].clone(), files[segments[1]].clone());
    swapped.insert(segments[1].clone(), files[segments[0]].clone());
    check(&swapped, "swapped");
}

#[test]
fn a_segment_of_another_log_and_files_of_others_are_left_alone() {
    let (mut files, others) = (golden(), golden());
    let foreign = others.iter().find(|(name, _)| segment::id_of(name).is_some()).unwrap();
    files.insert(segment::name(0xffff), foreign.1.clone());
    files.insert("notes.txt".to_owned(), b"mine".to_vec());
    let memory = Memory::of(&files);
    let read = read_memory(&memory);
    read.assert_holds(1..RECORDS + 1);
    assert_eq!(read.damage.len(), 1);
    own(&memory);
    assert_eq!(memory.snapshot()["notes.txt"], b"mine");
    assert_eq!(memory.snapshot()[&segment::name(0xffff)], *foreign.1);
    // Its id is not used, nor any before it.
    assert!(memory.snapshot().contains_key(&segment::name(0x10000)));
}

#[test]
fn a_batch_that_was_copied_to_another_place_is_not_read_there() {
    let files = golden();
    let segments: Vec<&String> = files.keys().filter(|name| segment::id_of(name).is_some()).collect();
    let mut doubled = files.clone();
    let stale = files[segments[0]][segment::HEADER_BYTES..].to_vec();
    doubled.get_mut(segments[1]).unwrap().extend(stale);
    check(&doubled, "doubled");
    assert_eq!(read_memory(&Memory::of(&doubled)).records.len() as u64, RECORDS);
}

#[test]
fn damage_goes_to_quarantine_and_what_is_whole_is_kept() {
    let files = golden();
    let last = files.keys().rfind(|name| segment::id_of(name).is_some()).unwrap();
    let mut damaged = files.clone();
    let bytes = damaged.get_mut(last).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    let evidence = bytes.clone();
    let memory = Memory::of(&damaged);
    let recovery = own(&memory);
    let quarantined = format!("{last}.corrupt-0");
    assert_eq!(recovery.quarantined, [quarantined.as_str()]);
    assert_eq!(recovery.missing.sequences, 1);
    assert_eq!(memory.snapshot()[&quarantined], evidence);
    let read = read_memory(&memory);
    assert_eq!((read.records.len() as u64, read.missing.sequences, read.damage), (RECORDS, 1, Vec::new()));
}

/// The files of a log of format version 2: in `META`, in the headers of the segments, or in both.
fn of_version_2(in_meta: bool, in_segments: bool) -> BTreeMap<String, Vec<u8>> {
    let mut files = golden();
    for (name, bytes) in &mut files {
        let is_segment = segment::id_of(name).is_some();
        if (is_segment && in_segments) || (name == meta::NAME && in_meta) {
            bytes[8] = 2;
            let log = LogId(array_at(bytes, 16));
            let seed = match segment::id_of(name) {
                Some(id) => Seed::of_segment(log, id),
                None => Seed::of_file(log, meta::NAME),
            };
            let sum = seed.sum(0, &bytes[..60]);
            bytes[60..64].copy_from_slice(&sum.to_le_bytes());
        }
    }
    files
}

#[test]
fn a_log_of_another_version_is_refused_by_owners_and_readers_and_not_touched() {
    let (in_meta, in_segments) = (of_version_2(true, false), of_version_2(false, true));
    let mut without_meta = in_segments.clone();
    without_meta.remove(meta::NAME);
    let mut longer = in_meta.clone();
    longer.get_mut(meta::NAME).unwrap().extend([7; 100]);
    for files in [in_meta, in_segments, of_version_2(true, true), without_meta, longer] {
        let memory = Memory::of(&files);
        let refused =
            [Survey::take(&memory).map(drop), Log::open(Arc::new(memory.clone()), options()).map(drop)];
        for error in refused.map(Result::unwrap_err) {
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains("version 2") && text.contains("version 1"), "{text}");
        }
        assert_eq!(memory.snapshot(), files);
    }
}

#[test]
fn a_segment_of_another_log_is_a_stranger_whatever_its_version() {
    let (mut files, others) = (golden(), of_version_2(false, true));
    let foreign = others.iter().find(|(name, _)| segment::id_of(name).is_some()).unwrap();
    files.insert(segment::name(0xffff), foreign.1.clone());
    let memory = Memory::of(&files);
    own(&memory);
    read_memory(&memory).assert_holds(1..RECORDS + 2);
    assert_eq!(memory.snapshot()[&segment::name(0xffff)], *foreign.1);
}

/// Several changes at once, drawn by chance; the fuzzer (`spool_recover`) goes on from here.
#[test]
#[cfg(feature = "__internals")]
fn what_could_be_read_before_a_recovery_can_be_read_after_it() {
    let mut random = crate::spool::storage::memory::SplitMix(7);
    for _ in 0..300 {
        let mut files = golden();
        for _ in 0..=random.below(4) {
            let names: Vec<String> = files.keys().cloned().collect();
            let (from, to) = (random.below(names.len() as u64), random.below(names.len() as u64));
            let piece: Vec<u8> = files[&names[from as usize]].iter().rev().take(90).copied().collect();
            let bytes = files.get_mut(&names[to as usize]).unwrap();
            let at = random.below(bytes.len() as u64 + 1) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.iter_mut().skip(at).take(3).for_each(|byte| *byte ^= 0x55),
                2 => drop(bytes.splice(at..at, piece)),
                _ => drop(files.insert(segment::name(random.below(99)), piece)),
            }
        }
        crate::spool::trial::any_files(&files, false);
    }
}
