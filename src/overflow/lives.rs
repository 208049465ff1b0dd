//! Lives of a process that sends a log on and is killed at any moment: whatever of the log may be in the stream is in doubt to the next one, and would be
//! looked for where it is.
//!
//! The log, what is noted of it, what was handed out and the floor are the real ones. The window, the server and the worker are as dull as can be: what is
//! sent is stored at once, and answered in any order, or never. Left out are frames, streams that are made again, and deletion to make room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::backlog::Backlog;
use super::floor::{Bound, Floor};
use super::handed::Handed;
use super::identity::Identity;
use super::keeper::Progress;
use super::page::Front;
use crate::config::{Spool, SpoolFull};
use crate::publisher::stamp::ProducerNames;
use crate::spool::batch::Batch;
use crate::spool::log::Options;
use crate::spool::storage::memory::Memory;
use crate::spool::tended::Place;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
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
    /// What is open and not in the log is written there, unless there is no room for it.
    Activate {
        is_full: bool,
    },
    /// The worker hears what became of it, one post.
    Hear,
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
        3 => prop::bool::weighted(0.3).prop_map(|is_full| Step::Activate { is_full }),
        4 => Just(Step::Hear),
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
    window: Vec<Message>,
    sent: u64,
    /// Shadows of which the worker has not heard: whose they are, and where they are written, if they are.
    posts: VecDeque<(Vec<u64>, Option<Range<u64>>)>,
}

/// What is open.
struct Message {
    number: u64,
    /// Where it is in the stream.
    at: u64,
    /// Where it is in the log, if the worker knows that.
    sequence: Option<u64>,
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
        let mut backlog = Backlog::new(Self::place().open_in(Arc::new(self.memory.clone())).unwrap());
        backlog.mark_ahead = 4;
        let handed = Handed::new(backlog.tended.log.sent().confirmed);
        Life { backlog, handed, floor: Floor::default(), window: Vec::new(), sent: 0, posts: VecDeque::new() }
    }

    fn live(&mut self, script: &[Step]) {
        let mut life = self.begin();
        for step in script {
            match *step {
                Step::Append(records) => drop(life.append(records)),
                Step::Send(events) => (0..events).for_each(|_| life.push(self.store(), None)),
                Step::Activate { is_full } => self.activate(&mut life, is_full),
                Step::Hear => life.hear(),
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

    fn activate(&mut self, life: &mut Life, is_full: bool) {
        life.note(self.last);
        let unspooled: Vec<_> = life.unspooled().map(|message| (message.number, message.at)).collect();
        for post in unspooled.chunks(POST) {
            let numbers = post.iter().map(|&(number, _)| number).collect();
            life.backlog.announce_shadow(post.len() as u64);
            if is_full {
                life.posts.push_back((numbers, None));
                continue;
            }
            let sequences = life.append(post.len());
            life.backlog.add_shadow(sequences.clone());
            self.stored.extend(sequences.clone().zip(post.iter().map(|&(_, at)| at)));
            life.posts.push_back((numbers, Some(sequences)));
            life.backlog.passes_to_unread();
        }
    }

    fn read(&mut self, life: &mut Life) {
        // Nothing is sent before it is noted to which stream.
        life.note(self.last);
        if !life.backlog.passes_to_unread() {
            return;
        }
        let mut page = life.backlog.read(&Identity::new(ProducerNames::new(0xff, 1))).unwrap();
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
                    life.push(at, Some(sequence));
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
            assert!(sent.since <= at, "record {sequence} was sent at {at}, before the time: {sent:?}");
        }
    }
}

impl Life {
    fn push(&mut self, at: u64, sequence: Option<u64>) {
        self.sent += 1;
        self.window.push(Message { number: self.sent, at, sequence });
    }

    /// What has no shadow, and none on its way.
    fn unspooled(&self) -> impl Iterator<Item = &Message> {
        let is_posted = |number| self.posts.iter().any(|(numbers, _)| numbers.contains(&number));
        self.window.iter().filter(move |message| message.sequence.is_none() && !is_posted(message.number))
    }

    fn hear(&mut self) {
        let Some((numbers, Some(sequences))) = self.posts.pop_front() else { return };
        for (number, sequence) in numbers.into_iter().zip(sequences) {
            let open = self.window.iter_mut().find(|message| message.number == number);
            self.handed.hand_out_ahead(sequence, u32::from(open.is_some()));
            if let Some(message) = open {
                message.sequence = Some(sequence);
            }
        }
    }

    fn append(&mut self, records: usize) -> Range<u64> {
        let mut batch = Batch::default();
        (0..records).for_each(|_| batch.room().unwrap().push(b"event.1.a", b"", b"{}").unwrap());
        let sequences = self.backlog.tended.log.append(&mut batch, false).unwrap();
        self.backlog.tell_all();
        sequences
    }

    fn answer(&mut self, at: usize) {
        if self.window.is_empty() {
            return;
        }
        let message = self.window.remove(at % self.window.len());
        if let Some(sequence) = message.sequence {
            self.handed.settle(sequence);
        }
    }

    /// As a worker does whose pipeline has the highest floor that it may have.
    fn note(&mut self, last: u64) {
        let floor = self.window.iter().map(|message| message.at - 1).min().unwrap_or(last);
        let confirmed = self.handed.confirmed();
        let out = self.posts.is_empty().then(|| self.handed.out());
        // Time passes as the stream grows: what is open was sent when it was stored.
        let Bound { floor, since } =
            self.floor.see(STREAM, Bound { floor, since: floor + 1 }, confirmed, out);
        self.backlog.note(Progress { confirmed, floor, stream: STREAM, since, is_packed: false });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_may_be_stored_is_looked_for_where_it_is_whoever_is_killed_when(script in steps()) {
        World { memory: Memory::new(), last: 0, stored: BTreeMap::new() }.live(&script);
    }
}
