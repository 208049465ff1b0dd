//! The log of a bus that has stopped, with any byte flipped, and any run of bytes overwritten: each event that it costs is declared.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::backlog::Backlog;
use super::identity::Identity;
use super::losses::Lost;
use super::page::Front;
use crate::config::{Spool, SpoolFull};
use crate::ledger::Stats;
use crate::publisher::stamp::ProducerNames;
use crate::spool::batch::Batch;
use crate::spool::log::Options;
use crate::spool::storage::memory::{Memory, SplitMix};
use crate::spool::tended::{Place, Tended};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PROCESS: &str = "00000000000000fe";
const PRODUCERS: usize = 3;

type Files = BTreeMap<String, Vec<u8>>;

/// Producer and number.
type Event = (String, u64);

fn open(memory: &Memory) -> Tended {
    let mut place = Place::new("memory".into(), &Spool::default(), Arc::default());
    place.options = Options::tiny(1 << 20, SpoolFull::DropNewest);
    place.open_in(Arc::new(memory.clone())).unwrap()
}

/// Events of three producers, in several segments, and the last report of their bus.
fn left_behind() -> (Files, BTreeSet<Event>) {
    let (memory, mut random) = (Memory::new(), SplitMix(5));
    let mut tended = open(&memory);
    let (mut last, mut events) = ([0; PRODUCERS], BTreeSet::new());
    for _ in 0..20 {
        let mut batch = Batch::default();
        for _ in 0..=random.below(5) {
            let ring = random.below(PRODUCERS as u64) as usize;
            last[ring] += 1;
            let producer = format!("{PROCESS}.{ring}");
            let headers = format!("Nats-Msg-Id: {producer}-{}\r\n", last[ring]);
            batch.room().unwrap().push(b"event.1.a", headers.as_bytes(), b"{\"some\":\"text\"}").unwrap();
            events.insert((producer, last[ring]));
        }
        tended.log.append(&mut batch, false).unwrap();
    }
    let ledger = serde_json::to_string(&Stats::default()).unwrap();
    let body = format!(r#"{{"process":"{PROCESS}","last":{last:?},"ledger":{ledger}}}"#);
    let stamp = format!(r#""timestamp":"2026-07-06T14:56:50Z","producer":"{PROCESS}.bus","seq":1"#);
    let report = format!(r#"{{"version":"v1",{stamp},"body":{body}}}"#);
    let headers = format!("Nats-Msg-Id: {PROCESS}.bus-1\r\n");
    let mut batch = Batch::default();
    batch.room().unwrap().push(b"event.1._bus.stopped", headers.as_bytes(), report.as_bytes()).unwrap();
    tended.log.append(&mut batch, false).unwrap();
    tended.close();
    events.insert((format!("{PROCESS}.bus"), 1));
    (memory.snapshot(), events)
}

/// What the next process makes of it: the events that it has, how many are missing, and what is declared.
fn read(files: &Files) -> (BTreeSet<Event>, u64, Vec<(String, Lost)>) {
    let names = ProducerNames::new(0xff, 1);
    let identity = Identity::new(names.clone());
    let mut backlog = Backlog::new(open(&Memory::of(files)));
    let (mut events, mut missing, mut declared) = (BTreeSet::new(), 0, Vec::new());
    while backlog.passes_to_unread() {
        let mut page = backlog.read(&identity).unwrap();
        missing += page.missing;
        declared.extend(page.losses.iter().map(|(_, origin, lost)| (names.of(origin).into_owned(), lost)));
        while let Some(front) = page.front() {
            if let Front::Record { message, .. } = front {
                let (origin, seq) = identity.read(message.headers).unwrap();
                events.insert((names.of(origin).into_owned(), seq));
            }
            page.pop();
        }
    }
    (events, missing, declared)
}

/// Every event is there or declared, by as many as are missing.
#[track_caller]
fn check(files: &Files, all: &BTreeSet<Event>, what: &str) -> u64 {
    let (events, missing, mut declared) = read(files);
    // As an audit does it: the gaps that end first choose first.
    declared.sort_by_key(|(_, lost)| lost.range.1);
    let mut left: BTreeSet<_> = all.difference(&events).cloned().collect();
    assert_eq!(left.len() as u64, missing, "{what}");
    let has_report = events.iter().any(|(producer, _)| producer.ends_with(".bus"));
    for (producer, Lost { range, events }) in &declared {
        let range = (producer.clone(), range.0)..=(producer.clone(), range.1);
        let excused: Vec<_> = left.range(range).take(*events as usize).cloned().collect();
        assert!(!excused.is_empty(), "{what}: {declared:?} declares what is there");
        excused.iter().for_each(|event| _ = left.remove(event));
    }
    // Without the last report nobody knows how far the numbers went.
    assert!(left.is_empty() || !has_report, "{what}: {left:?} are not declared: {declared:?}");
    if has_report {
        let sum = declared.iter().map(|(_, lost)| lost.events).sum::<u64>();
        assert_eq!(sum, missing, "{what}: {declared:?}");
    }
    missing
}

#[test]
fn whatever_byte_is_flipped_what_it_costs_is_declared() {
    let (files, all) = left_behind();
    assert_eq!(check(&files, &all, "as it was"), 0);
    let mut costly = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".seg")) {
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = files.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            costly += u64::from(check(&damaged, &all, &format!("{name}, byte {at}")) > 0);
        }
    }
    assert!(costly > 500, "{costly}");
}

#[test]
fn whatever_is_overwritten_or_deleted_is_declared() {
    let (files, all) = left_behind();
    let mut random = SplitMix(9);
    let segments: Vec<_> = files.keys().filter(|name| name.ends_with(".seg")).cloned().collect();
    for round in 0..400 {
        let mut damaged = files.clone();
        for _ in 0..=random.below(3) {
            let name = &segments[random.below(segments.len() as u64) as usize];
            let Some(bytes) = damaged.get_mut(name) else { continue };
            let (at, length) = (random.below(bytes.len() as u64) as usize, 1 + random.below(400) as usize);
            match random.below(8) {
                0 => drop(damaged.remove(name)),
                1 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = 0x55),
            }
        }
        check(&damaged, &all, &format!("round {round}"));
    }
}
