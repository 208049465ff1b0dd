//! Lives of a process that sends a log on and is killed at any moment: whatever of the log may be in the stream is in doubt to the next one, and would be
//! looked for where it is.
//!
//! The log, what is noted of it, what was handed out and the floor are the real ones. The window, the server and the worker are as dull as can be: what is
//! sent is stored at once, and answered in any order, or never.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::backlog::Backlog;
use super::floor::Floor;
use super::handed::Handed;
use super::keeper::Progress;
use super::page::Front;
use crate::config::{Spool, SpoolFull};
use crate::spool::batch::Batch;
use crate::spool::log::Options;
use crate::spool::storage::memory::Memory;
use crate::spool::tended::Place;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The tag of the stream.
const STREAM: u64 = 77;

/// Shadows that are written in one post.
const POST: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Events go to the log.
    Append(usize),
    /// Events are sent without being in the log.
    Send(usize),
    /// What is open and not in the log is written there.
    Activate,
    /// A page of the log is handed out, and sent.
    Read,
    /// An open message is answered: the one at this place of them.
    Answer(usize),
    /// It is noted what has met its fate.
    Note,
    Close,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..6usize).prop_map(Step::Append),
        3 => (1..6usize).prop_map(Step::Send),
        3 => Just(Step::Activate),
        2 => Just(Step::Read),
        8 => (0..100usize).prop_map(Step::Answer),
        4 => Just(Step::Note),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A process.
struct Life {
    backlog: Backlog,
    handed: Handed,
    floor: Floor,
    /// What is open: where it is in the stream, and where in the log if it is there.
    window: Vec<(u64, Option<u64>)>,
}

/// What outlives it.
struct World {
    memory: Memory,
    /// The last sequence of the stream.
    last: u64,
    /// Records of the log that are in the stream, and where.
    stored: BTreeMap<u64, u64>,
}

impl World {
    fn place() -> Place {
        let mut place = Place::new("memory".into(), &Spool::default(), Arc::default());
        place.options = Options::tiny(1 << 20, SpoolFull::DropNewest);
        place
    }

    fn begin(&self) -> Life {
        let backlog = Backlog::new(Self::place().open_in(Arc::new(self.memory.clone())).unwrap());
        let handed = Handed::new(backlog.tended.log.sent().confirmed);
        Life { backlog, handed, floor: Floor::default(), window: Vec::new() }
    }

    fn live(&mut self, script: &[Step]) {
        let mut life = self.begin();
        for step in script {
            match *step {
                Step::Append(records) => drop(life.append(records)),
                Step::Send(events) => (0..events).for_each(|_| life.window.push((self.store(), None))),
                Step::Activate => self.activate(&mut life),
                Step::Read => self.read(&mut life),
                Step::Answer(at) => life.answer(at),
                Step::Note => life.note(self.last),
                Step::Close => {
                    life.note(self.last);
                    life.backlog.close();
                    life = self.begin();
                }
                Step::Kill => {
                    self.memory.kill();
                    life = self.begin();
                }
            }
            self.judge();
        }
    }

    fn store(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn activate(&mut self, life: &mut Life) {
        life.note(self.last);
        let unspooled: Vec<_> = (0..life.window.len()).filter(|&at| life.window[at].1.is_none()).collect();
        for post in unspooled.chunks(POST) {
            life.backlog.announce_shadow(post.len() as u64);
            let sequences = life.append(post.len());
            life.backlog.add_shadow(sequences.clone());
            for (&at, sequence) in post.iter().zip(sequences) {
                life.window[at].1 = Some(sequence);
                self.stored.insert(sequence, life.window[at].0);
                life.handed.hand_out_ahead(sequence, 1);
            }
            life.backlog.passes_to_unread();
        }
    }

    fn read(&mut self, life: &mut Life) {
        // Nothing is sent before it is noted to which stream.
        life.note(self.last);
        if !life.backlog.passes_to_unread() {
            return;
        }
        let mut page = life.backlog.read().unwrap();
        while let Some(front) = page.front() {
            match front {
                Front::Passed { to } => life.handed.pass_to(to),
                Front::Record { sequence, .. } => {
                    let sequence = sequence.unwrap().get();
                    life.handed.hand_out(sequence, 1);
                    // One that is there already is found, and not sent.
                    let at = self.stored.get(&sequence).copied();
                    let at = at.unwrap_or_else(|| self.store());
                    self.stored.insert(sequence, at);
                    life.window.push((at, Some(sequence)));
                }
            }
            page.pop();
        }
    }

    /// What the next process would find, if this one were killed now.
    fn judge(&self) {
        let next = Memory::of(&self.memory.snapshot());
        let tended = Self::place().open_in(Arc::new(next)).unwrap();
        let (sent, sequences) = (tended.log.sent(), tended.log.sequences());
        for (&sequence, &at) in self.stored.range(sent.confirmed.max(sequences.start)..) {
            assert!(
                sent.doubtful().iter().any(|range| range.contains(&sequence)) && sent.stream == STREAM,
                "record {sequence} is stored, and nobody would look for it: {sent:?}"
            );
            assert!(sent.floor < at, "record {sequence} is stored at {at}, below the floor: {sent:?}");
        }
    }
}

impl Life {
    fn append(&mut self, records: usize) -> std::ops::Range<u64> {
        let mut batch = Batch::default();
        (0..records).for_each(|_| batch.push(b"event.1.a", b"", b"{}").unwrap());
        let sequences = self.backlog.tended.log.append(&mut batch, false).unwrap();
        self.backlog.tell_all();
        sequences
    }

    fn answer(&mut self, at: usize) {
        if self.window.is_empty() {
            return;
        }
        let (_, sequence) = self.window.remove(at % self.window.len());
        if let Some(sequence) = sequence {
            self.handed.settle(sequence);
        }
    }

    /// As a worker does whose pipeline has the highest floor that it may have.
    fn note(&mut self, last: u64) {
        let floor = self.window.iter().map(|&(at, _)| at - 1).min().unwrap_or(last);
        let confirmed = self.handed.confirmed();
        let floor = self.floor.see(STREAM, floor, confirmed, self.handed.out());
        self.backlog.note(Progress { confirmed, floor, stream: STREAM });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_may_be_stored_is_looked_for_where_it_is_whoever_is_killed_when(script in steps()) {
        World { memory: Memory::new(), last: 0, stored: BTreeMap::new() }.live(&script);
    }
}
