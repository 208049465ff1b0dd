//! What a keeper does with a directory in which anything may stand. What proptest and the fuzzer run.

use super::backlog::Backlog;
use super::handed::Handed;
use super::identity::Identity;
use super::keeper::Progress;
use super::page::Front;
use crate::config::{Spool, SpoolFull};
use crate::publisher::stamp::ProducerNames;
use crate::spool::log::Options;
use crate::spool::storage::memory::Memory;
use crate::spool::tended::Place;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sends a log on to its end, as a worker does that has an answer for each record at once. Returns how many records it was, and how many were missing.
/// These are as many as were counted when it was opened.
pub(crate) fn send_on(files: &BTreeMap<String, Vec<u8>>) -> (u64, u64) {
    let mut place = Place::new("memory".into(), &Spool::default(), Arc::default());
    place.options = Options::tiny(1 << 20, SpoolFull::DropNewest);
    let opened = place.open_in(Arc::new(Memory::of(files)));
    let mut backlog = Backlog::new(opened.expect("no state prevents a start"));
    let identity = Identity::new(ProducerNames::new(0xff, 1));
    let (sent, end) = (backlog.tended.log.sent(), backlog.tended.log.sequences().end);
    let listing = backlog.list(&identity).expect("nothing is wrong with the disk");
    assert!(listing.doubts.len() <= 1 << 10, "a small log has few records");
    if let Some(oldest) = backlog.tended.log.oldest() {
        let lost = backlog.losses(&identity, oldest.clone());
        assert!(lost.events <= oldest.end - oldest.start && lost.iter().count() <= 1 << 10);
    }
    let mut handed = Handed::new(sent.confirmed);
    // One is open as long as all others come and go.
    let (mut first, mut records, mut missing) = (None, 0, 0);
    while backlog.passes_to_unread() {
        let mut page = backlog.read(&identity).expect("nothing is wrong with the disk");
        missing += page.missing;
        let declared = page.losses.iter().map(|(.., lost)| lost.range.1 - lost.range.0).max();
        assert!(page.losses.iter().count() <= 1 << 10 && (declared.is_none() || missing > 0));
        while let Some(front) = page.front() {
            match front {
                Front::Passed { to } => handed.pass_to(to),
                Front::Record { sequence, .. } => {
                    let sequence = sequence.expect("it is in the log").get();
                    records += 1;
                    handed.hand_out(sequence, 1);
                    if first.is_some() {
                        handed.settle(sequence);
                    }
                    first = first.or(Some(sequence));
                }
            }
            assert!(handed.remembered() <= 1);
            page.pop();
        }
    }
    first.into_iter().for_each(|sequence| handed.settle(sequence));
    assert_eq!((handed.confirmed(), records + missing), (end, end - sent.confirmed));
    backlog.note(Progress { confirmed: end, stream: 1, ..Progress::default() });
    backlog.close();
    (records, missing)
}
