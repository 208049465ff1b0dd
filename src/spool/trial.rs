//! Lives of a log on a [disk in memory](super::storage::memory), and a judge. What proptest and the fuzzer run.
//!
//! The oracle is dull: the record of a sequence is what [`payload`] says, and it remembers how many were appended, and up to where a
//! sync had said yes. After any crash everything that was synced must be there, once, in order, with nothing missing; of the rest any part
//! may be there, and is what was written.

use super::batch::{Batch, Message};
use super::log::{Log, Options, Refusal};
use super::sent::Sent;
use super::storage::Storage;
use super::storage::memory::{Fault, Memory};
use super::survey::Survey;
use super::walk::{Event, Walk};
use super::{Damage, Kind, Ranges};
use super::{number, segment};
use crate::config::SpoolFull;
use std::collections::BTreeMap;
#[cfg(feature = "__internals")]
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Small segments, so that few records fill several of them.
const SEGMENT_BYTES: u64 = 400;

pub(super) const HEADERS: &[u8] = b"A: b\r\n";

impl Options {
    /// Of a log with small segments.
    pub(crate) fn tiny(max_bytes: u64, when_full: SpoolFull) -> Self {
        Self { segment_bytes: SEGMENT_BYTES, emergency_bytes: 1000, ..Self::new(max_bytes, when_full, true) }
    }
}

pub(super) fn options() -> Options {
    Options::tiny(1 << 20, SpoolFull::DropNewest)
}

/// What stands in the record of a number.
pub(super) fn payload(number: u64) -> Vec<u8> {
    let length = 5 + (number.wrapping_mul(7) % 60) as usize;
    format!("{number:05}").bytes().cycle().take(length).collect()
}

/// A batch of these numbers.
pub(super) fn batch(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let mut batch = Batch::default();
    for number in numbers {
        let subject = format!("event.1.n{}", number % 3);
        let room = batch.room().expect("they are few");
        room.push(subject.as_bytes(), HEADERS, &payload(number)).expect("it is small");
    }
    batch
}

/// Appends records whose numbers are their sequences.
pub(super) fn append(log: &mut Log, count: u64) -> Result<(), Refusal> {
    let first = log.sequences().end;
    let appended = log.append(&mut batch(first..first + count), false)?;
    assert_eq!(appended, first..first + count);
    Ok(())
}

/// All that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) records: BTreeMap<u64, Vec<u8>>,
    pub(super) missing: Ranges,
    pub(super) damage: Vec<Damage>,
    pub(super) repeated: u64,
}

impl Read {
    pub(super) fn of(storage: Arc<dyn Storage>) -> Self {
        let survey = Survey::take(&*storage).expect("it can be looked at");
        let mut read = Self { damage: survey.damage.clone(), ..Self::default() };
        let Some(log) = survey.log() else { return read };
        let mut walk = Walk::new(storage, log, &survey);
        let mut last = 0;
        while let Some(event) = walk.next().expect("it can be read") {
            match event {
                Event::Record { sequence, range } => {
                    assert!(sequence > last, "{sequence} after {last}");
                    last = sequence;
                    read.records.insert(sequence, walk.record(range).to_vec());
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

    pub(super) fn of_memory(memory: &Memory) -> Self {
        Self::of(Arc::new(memory.clone()))
    }

    /// Every record is what was appended under its sequence.
    #[track_caller]
    pub(super) fn assert_true(&self) {
        for (&sequence, record) in &self.records {
            let message = Message::decode(record).expect("its checksum was right");
            assert_eq!(
                (message.headers, message.payload),
                (HEADERS, &*payload(sequence)),
                "record {sequence}"
            );
        }
    }

    /// All of these are there.
    #[track_caller]
    pub(super) fn assert_holds(&self, sequences: Range<u64>) {
        for sequence in sequences {
            assert!(self.records.contains_key(&sequence), "{sequence} is missing: {:?}", self.missing);
        }
    }
}

/// What an owner does, and what befalls his disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Append(u64),
    Sync,
    /// Hands out this many more, and as many of those before have met their fate.
    Send(u64),
    /// Closes the log, and opens it again.
    Reopen,
    /// The process is killed, and another one opens the log.
    Kill,
    /// From here on everything fails so.
    Break(Fault),
    Mend,
    /// The disk has room for so much.
    Resize(u64),
}

/// What has to be there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Oracle {
    /// Sequences up to here were appended, in the life of the power.
    pub(super) appended: u64,
    /// Up to here a sync said yes.
    pub(super) synced: u64,
    /// The lowest that has to be there.
    pub(super) start: u64,
    /// Up to here was handed out, and up to here it has met its fate.
    pub(super) handed: u64,
    pub(super) confirmed: u64,
}

impl Oracle {
    /// Sends on as a keeper does: notes what may be sent before it is, and deletes what has met its fate.
    fn send(&mut self, log: &mut Log, count: u64) {
        let noted = log.sent();
        let mark = (self.handed + count + 1).min(log.sequences().end).max(noted.mark);
        let confirmed = self.handed.max(noted.confirmed.saturating_sub(1)) + 1;
        let sent = Sent { confirmed: confirmed.min(mark), mark, floor: 7, stream: 9, ..Sent::default() };
        // Whether it is on the disk is not known if it fails; what it says is true.
        self.confirmed = self.confirmed.max(sent.confirmed - 1);
        if log.note_sent(sent).is_ok() {
            self.handed = self.handed.max(mark - 1);
            // What cannot be deleted now is deleted later.
            drop(log.trim());
        }
        self.start = self.start.max(self.confirmed + 1);
    }

    fn open(&mut self, memory: &Memory, options: Options) -> Option<Log> {
        let (log, _) = Log::open(Arc::new(memory.clone()), options).ok()?;
        self.appended = self.appended.max(log.sequences().end - 1);
        Some(log)
    }
}

/// Lives on a disk until the power fails, or the script ends.
pub(super) fn live(memory: &Memory, options: Options, script: &[Step], oracle: &mut Oracle) {
    let Some(mut log) = oracle.open(memory, options) else { return };
    for step in script {
        match *step {
            Step::Append(count) => {
                let first = log.sequences().end;
                if let Ok(appended) = log.append(&mut batch(first..first + count), false) {
                    oracle.appended = appended.end - 1;
                    oracle.start = log.sequences().start;
                }
            }
            Step::Sync => {
                if log.sync().is_ok() {
                    oracle.synced = oracle.appended;
                }
            }
            Step::Send(count) => oracle.send(&mut log, count),
            Step::Reopen => {
                if log.close().is_ok() {
                    oracle.synced = oracle.appended;
                }
                let Some(reopened) = oracle.open(memory, options) else { return };
                log = reopened;
            }
            Step::Kill => {
                drop(log);
                if memory.has_crashed() {
                    return;
                }
                memory.kill();
                let Some(reopened) = oracle.open(memory, options) else { return };
                log = reopened;
            }
            Step::Break(fault) => memory.break_down(fault),
            Step::Mend => memory.mend(),
            Step::Resize(bytes) => memory.set_capacity(bytes),
        }
        if memory.has_crashed() {
            break;
        }
    }
    drop(log);
}

/// After a crash, and after a second one in the recovery from it.
#[track_caller]
pub(super) fn judge(memory: &Memory, options: Options, oracle: Oracle, seed: u64, second_crash: Option<u64>) {
    memory.restart(seed);
    memory.set_capacity(1 << 30);
    judge_sent(memory, &oracle);
    let before = Read::of_memory(memory);
    before.assert_true();
    before.assert_holds(oracle.start.max(1)..oracle.synced + 1);
    if let Some(steps) = second_crash {
        memory.fail_after(steps, Fault::Crash);
        if let Ok((log, _)) = Log::open(Arc::new(memory.clone()), options) {
            drop(log);
        }
        memory.restart(seed.wrapping_add(1));
    }
    let (mut log, _) = Log::open(Arc::new(memory.clone()), options).expect("no state prevents a start");
    assert!(log.sequences().end > oracle.synced, "a sequence would be used twice");
    append(&mut log, 2).expect("there is room");
    // Room may have been made for them.
    let (start, end) = (log.sequences().start.max(oracle.start), log.sequences().end);
    log.close().expect("nothing is wrong any more");
    let after = Read::of_memory(memory);
    after.assert_true();
    after.assert_holds(start..oracle.synced + 1);
    after.assert_holds(end - 2..end);
    // Of what was not synced, a loss of power can take a piece out of the middle, and a write that failed leaves one.
    let is_of_unsynced = |damage: &Damage| matches!(damage.kind, Kind::Torn | Kind::Bytes);
    assert!(after.damage.iter().all(is_of_unsynced), "{:?}", after.damage);
}

/// What was noted of what was sent covers all that was, and confirms nothing that was not.
#[track_caller]
fn judge_sent(memory: &Memory, oracle: &Oracle) {
    let survey = Survey::take(memory).expect("it can be looked at");
    let Some(sent) = survey.sent.content else {
        assert_eq!(oracle.handed, 0, "what was handed out is not noted: {survey:?}");
        return;
    };
    assert!(sent.mark > oracle.handed, "{sent:?} after {oracle:?}");
    assert!(sent.confirmed <= oracle.confirmed + 1, "{sent:?} after {oracle:?}");
}

/// Any life: each two bytes are a step, but for the first ones, which set faults, crashes and a seed.
#[cfg(feature = "__internals")]
pub(crate) fn any_life(bytes: &[u8]) {
    let Some((&[crash, second, fault, kind, seed], script)) = bytes.split_first_chunk() else { return };
    let script: Vec<Step> = script
        .chunks_exact(2)
        .take(200)
        .map(|step| match (step[0] % 16, u64::from(step[1])) {
            (0..9, count) => Step::Append(count % 12 + 1),
            (9..12, _) => Step::Sync,
            (12, count) if count > 128 => Step::Send(count % 12 + 1),
            (12, _) => Step::Reopen,
            (13, _) => Step::Kill,
            (14, kind) if kind % 3 == 0 => Step::Break(if kind % 2 == 0 { Fault::Io } else { Fault::Full }),
            (14, _) => Step::Mend,
            (_, size) => Step::Resize(8000 + size * 200),
        })
        .collect();
    let (memory, mut oracle) = (Memory::new(), Oracle::default());
    memory.fail_after(u64::from(fault), if kind % 2 == 0 { Fault::Io } else { Fault::Full });
    memory.fail_after(u64::from(crash) + 1, Fault::Crash);
    live(&memory, options(), &script, &mut oracle);
    judge(&memory, options(), oracle, u64::from(seed), (second < 20).then_some(u64::from(second) + 1));
}

/// The files of a log that was closed.
pub(crate) fn golden() -> BTreeMap<String, Vec<u8>> {
    let memory = Memory::new();
    let (mut log, _) = Log::open(Arc::new(memory.clone()), options()).expect("nothing is wrong");
    for count in [1, 4, 3, 5, 2, 6, 1, 2] {
        append(&mut log, count).expect("there is room");
    }
    log.close().expect("nothing is wrong");
    memory.snapshot()
}

/// Any files: they are read, owned, and read again, and what could be read before can be read after. Of files that are forged only the first is asked, and
/// that what is added can be read: two segments may claim one sequence, and both with a right checksum.
pub(crate) fn any_files(files: &BTreeMap<String, Vec<u8>>, are_forged: bool) {
    let memory = Memory::of(files);
    if Survey::take(&memory).is_err_and(|error| error.kind() == io::ErrorKind::Unsupported) {
        let opened = Log::open(Arc::new(memory.clone()), options());
        assert!(opened.is_err() && memory.snapshot() == *files, "a log of another version is left alone");
        return;
    }
    let before = Read::of_memory(&memory);
    let added = {
        let (mut log, _) = Log::open(Arc::new(memory.clone()), options()).expect("no state prevents a start");
        let first = log.sequences().end;
        let added = match append(&mut log, 3) {
            Ok(()) => first..first + 3,
            // Somebody has written that it has come to its end. It says so, and takes nothing.
            Err(Refusal::Failed(error)) if is_exhausted(files, first) => {
                assert_eq!(error.to_string(), number::exhausted().to_string());
                first..first
            }
            Err(refusal) => panic!("{refusal:?}"),
        };
        log.close().expect("nothing is wrong with the disk");
        added
    };
    let after = Read::of_memory(&memory);
    after.assert_holds(added);
    for (sequence, record) in before.records.into_iter().filter(|_| !are_forged) {
        assert_eq!(after.records.get(&sequence), Some(&record), "record {sequence} is gone, or another");
    }
    let again = Memory::of(&memory.snapshot());
    let (log, _) = Log::open(Arc::new(again.clone()), options()).expect("no state prevents a start");
    log.close().expect("nothing is wrong with the disk");
    let last = Read::of_memory(&again);
    assert_eq!((last.records, last.missing), (after.records, after.missing));
}

fn is_exhausted(files: &BTreeMap<String, Vec<u8>>, next_sequence: u64) -> bool {
    let ids = files.keys().filter_map(|name| segment::id_of(name));
    next_sequence + 3 > number::LIMIT || ids.max() >= Some(number::LIMIT - 1)
}
