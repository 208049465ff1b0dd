//! Numbers that no log of ours has, with right checksums: whatever a directory claims, it is read, opened and written to in time and memory that
//! depend on its files. The fuzz target `spool_recover` draws the same.

use super::*;
use crate::overflow::trial::send_on;
use crate::spool::forge::{KINDS, forge};
use crate::spool::number::LIMIT;
use crate::spool::position::Position;
use crate::spool::slots::Found;
use crate::spool::trial::{any_files, golden};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_numbers_stand_in_a_directory_it_is_opened_read_and_sent_on(
        forgeries in prop::collection::vec((0..KINDS, any::<u8>(), any::<[u64; 4]>()), 1..5)
    ) {
        let mut files = golden();
        for (kind, choice, numbers) in forgeries {
            forge(&mut files, kind, choice, numbers);
        }
        any_files(&files, true);
        send_on(&files);
    }
}

/// The golden log, with what stands in a small file or in the header of its third segment.
fn claiming(kind: u8, numbers: [u64; 4]) -> BTreeMap<String, Vec<u8>> {
    let mut files = golden();
    forge(&mut files, kind, 2, numbers);
    files
}

/// As `forge` reads them.
const AT_40: u64 = 6;
const AT_50: u64 = 7;

#[test]
fn an_end_that_was_never_reached_is_counted_as_lost_at_once() {
    let files = claiming(0, [1 << 8, AT_40, 0, 31 << 8]);
    let read = read_memory(&Memory::of(&files));
    assert_eq!((read.records.len(), read.missing.sequences), (24, (1 << 40) - 25));
    any_files(&files, true);
    assert_eq!(send_on(&files), (24, (1 << 40) - 25));
}

#[test]
fn a_segment_that_claims_to_begin_far_away_is_overruled_by_those_behind_it() {
    let files = claiming(2, [AT_50, 0, 0, 0]);
    let read = read_memory(&Memory::of(&files));
    assert_eq!(read.records.len() as u64 + read.missing.sequences, 24, "{read:?}");
    any_files(&files, true);
    let (sent, missing) = send_on(&files);
    assert_eq!(sent + missing, 24);
}

#[test]
fn a_last_segment_that_claims_to_begin_far_away_is_believed_and_the_rest_is_missing() {
    let mut files = golden();
    let segments = files.keys().filter(|name| name.ends_with(".seg")).count();
    forge(&mut files, 2, segments as u8 - 1, [AT_50, 0, 0, 0]);
    any_files(&files, true);
    let (sent, missing) = send_on(&files);
    assert!(sent > 10 && sent + missing == (1 << 50) - 1, "{sent} {missing}");
}

#[test]
fn an_id_that_no_log_gives_out_is_a_strangers() {
    let mut files = golden();
    let (name, bytes) = files.iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let (bytes, name) = (bytes.clone(), name.clone());
    files.insert("ffffffffffffffff.seg".to_owned(), bytes);
    let read = read_memory(&Memory::of(&files));
    assert_eq!(read.records.len(), 24, "{name}");
    any_files(&files, true);
}

#[test]
fn the_last_generation_of_a_small_file_is_followed_by_others() {
    let memory = Memory::of(&golden());
    let mut files = memory.snapshot();
    // The slot of the highest generation that there is.
    forge(&mut files, 0, 0, [1 << 8, 25 << 8, 0, 13]);
    let memory = Memory::of(&files);
    for owner in 0..5 {
        let (mut log, _) = open(&memory);
        append(&mut log, 2).unwrap();
        assert_eq!(log.sequences(), 1..27 + 2 * owner);
        log.close().unwrap();
        let log = Survey::take(&memory).unwrap().log().unwrap();
        let found = Found::<Position>::read(&memory, log).unwrap().content.unwrap();
        assert_eq!((found.end, found.is_closed), (27 + 2 * owner, true));
    }
}

#[test]
fn a_log_whose_numbers_are_used_up_says_so_and_loses_nothing() {
    let files = claiming(0, [1 << 8, 9, 0, 31 << 8]);
    let memory = Memory::of(&files);
    let (mut log, _) = open(&memory);
    assert_eq!(log.sequences().end, LIMIT);
    let refusal = append(&mut log, 1).unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Failed(error) if error.to_string().contains("used up")),
        "{refusal:?}"
    );
    log.close().unwrap();
    assert_eq!(read_memory(&memory).records.len(), 24);
}

#[test]
fn files_of_others_are_left_alone_whatever_they_are_called() {
    let mut files = golden();
    let names = ["notes.tmp", "a.corrupt-b", "0000000000000001.seg.corrupt-old", "x.seg"];
    names.iter().for_each(|name| drop(files.insert((*name).to_owned(), b"mine".to_vec())));
    files.insert("0000000000000009.seg.tmp".to_owned(), Vec::new());
    let memory = Memory::of(&files);
    let (log, _) = open(&memory);
    log.close().unwrap();
    let left = memory.snapshot();
    assert!(
        names.iter().all(|&name| left.get(name).is_some_and(|bytes| bytes == b"mine")),
        "{:?}",
        left.keys()
    );
    assert!(!left.contains_key("0000000000000009.seg.tmp"));
}

#[test]
fn damaged_segments_that_were_put_aside_give_way_to_events() {
    for when_full in [SpoolFull::DropNewest, SpoolFull::DropOldest] {
        let options = Options::tiny(16_000, when_full);
        // How many records a directory takes before it is full, and the files of it then.
        let fill = |files: &BTreeMap<String, Vec<u8>>| {
            let memory = Memory::of(files);
            let mut log = Log::open(Arc::new(memory.clone()), options).expect("it opens").0;
            let before = log.sequences();
            while log.sequences().start == before.start && append(&mut log, 3).is_ok() {}
            (log.sequences().end - before.end, memory.snapshot())
        };
        let (taken, _) = fill(&golden());
        let mut files = golden();
        files.insert("0000000000000001.seg.corrupt-0".to_owned(), vec![7; 6_000]);
        files.insert("0000000000000002.seg.corrupt-1".to_owned(), vec![7; 6_000]);
        let (taken_beside, left) = fill(&files);
        assert!(taken > 50 && taken_beside == taken, "{taken} {taken_beside}");
        assert!(!left.keys().any(|name| name.contains("corrupt")));
    }
}

#[test]
fn a_segment_of_any_length_is_read_as_far_as_anything_was_written() {
    use crate::spool::inspect::{repair, verify};
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in golden() {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    }
    for name in golden().keys().filter(|name| name.ends_with(".seg")) {
        let file = std::fs::OpenOptions::new().write(true).open(directory.path().join(name)).unwrap();
        file.set_len(1 << 42).unwrap();
    }
    let verdict = verify(directory.path()).unwrap();
    assert_eq!((verdict.messages, verdict.missing.sequences, verdict.damages), (24, 0, 0), "{verdict:?}");
    repair(directory.path()).unwrap();
}

#[test]
fn many_segments_are_looked_at_once_each() {
    let log = Survey::take(&Memory::of(&golden())).unwrap().log().unwrap();
    let mut files = BTreeMap::from([("META".to_owned(), golden()["META"].clone())]);
    for id in 1..30_000u64 {
        let header = crate::spool::segment::Header::new(log, id, 30_000 - id, 0);
        files.insert(crate::spool::segment::name(id), header.encode().to_vec());
    }
    let read = read_memory(&Memory::of(&files));
    assert_eq!((read.records.len(), read.missing.sequences), (0, 0));
}
