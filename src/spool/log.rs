//! The log as its one owner has it: records go in at the end, segments go out at the front.
//!
//! ```text
//!    oldest                                              newest
//!   ┌────────┐ ┌────────┐ ┌────────┐       ┌─────────────────────────┐
//!   │ sealed │ │ sealed │ │ sealed │  ...  │ active: ▒▒▒▒▒▒▒░░░      │
//!   └────────┘ └────────┘ └────────┘       └─────────▲────▲──────────┘
//!       ▲ deleted whole, to make room           synced  written
//! ```
//!
//! **Written and synced** are two things. What is written survives the end of the process, what is synced the end of the power. Who
//! appends chooses when to sync; until then the log keeps the records.
//!
//! **A sync that fails is final for its segment.** The system counts the pages as clean then, whether they are on the disk or not, and a second
//! sync would say yes to nothing. So the segment is not written to any more, and what is not known to be on the disk is written again, to a
//! new segment, which appears whole or not at all. Until that has worked nothing more is taken.
//!
//! **A write that fails** leaves a batch that is not whole. It is cut off if that can be done, and the segment is left. Either way the next
//! segment begins with the same sequence, and overrules what is behind.
//!
//! **Room** is looked for when a segment is made, and reserved on the disk then: what is appended to it cannot be refused for want of
//! room. A log never writes to a segment that it has not made itself.

use super::batch::Batch;
use super::checksum::Seed;
use super::creation::{self, Layout};
use super::emergency::{self, Emergency};
use super::meta;
use super::number::{self, exhausted};
use super::position::{Position, PositionFile};
use super::recovery::{Recovered, Recovery, recover};
use super::segment::{self, HEADER_BYTES, Header};
use super::sent::{Sent, SentFile};
use super::slots::{self, Found};
use super::storage::{File, Ownership, Storage, is_full};
use super::{LogId, Ranges};
use crate::config::SpoolFull;
use crate::foreign::contained;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The largest segment that is made without need.
const SEGMENT_BYTES_MAX: u64 = 32 << 20;

/// So many segments make a full log, so that one of them is a small part of it.
const SEGMENTS_IN_LOG: u64 = 32;

/// The least of a disk that is left free, whatever the quota says: a twentieth, and no more than this.
const FREE_FLOOR_MAX: u64 = 64 << 20;
const FREE_FLOOR_PART: u64 = 20;

/// The least number of files that can still be made.
const FILES_FLOOR: u64 = 16;

/// Into so many segments the [emergency](super::emergency) room is divided, when it comes to that.
const URGENT_SEGMENTS: u64 = 16;

/// What is kept until it is synced. Beyond it, [`Log::wants_sync`] says so.
const UNSYNCED_BYTES_MAX: usize = 32 << 20;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// All files together take no more than this.
    pub(crate) max_bytes: u64,
    pub(crate) when_full: SpoolFull,
    /// Whether syncs will be asked for. If not, nothing is kept for the case that one fails.
    pub(crate) syncs: bool,
    pub(super) segment_bytes: u64,
    pub(super) emergency_bytes: u64,
}

impl Options {
    pub(crate) fn new(max_bytes: u64, when_full: SpoolFull, syncs: bool) -> Self {
        let segment_bytes = (max_bytes / SEGMENTS_IN_LOG).min(SEGMENT_BYTES_MAX);
        Self { max_bytes, when_full, syncs, segment_bytes, emergency_bytes: emergency::BYTES }
    }
}

/// Why records were not taken. None of them is in the log.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no room, by the quota or on the disk.
    Full,
    /// The disk fails.
    Failed(io::Error),
    /// The directory is not there any more, and what is in it is lost.
    Gone,
}

/// What is in a log and what went through it, in records since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) written: u64,
    pub(crate) synced: u64,
}

/// A segment that is not written to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) id: u64,
    pub(super) first_sequence: u64,
    pub(super) bytes: u64,
}

/// The segment that is written to.
#[derive(Debug)]
struct Active {
    id: u64,
    first_sequence: u64,
    file: Box<dyn File>,
    seed: Seed,
    /// Where the next batch goes.
    offset: u64,
    /// What it may have.
    room: u64,
    /// Whether the disk has promised that room.
    is_reserved: bool,
    /// Made out of the emergency room, for what is urgent only.
    is_urgent: bool,
}

/// A log, open for appending.
#[derive(Debug)]
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    id: LogId,
    options: Options,
    position: PositionFile,
    /// There if anything was ever sent on.
    sent: Option<SentFile>,
    sealed: VecDeque<Sealed>,
    sealed_bytes: u64,
    active: Option<Active>,
    next_id: u64,
    next_sequence: u64,
    /// What is not known to be on the disk, oldest first.
    unsynced: VecDeque<Batch>,
    unsynced_bytes: usize,
    /// A sync has failed, and the unsynced are to be written again.
    must_rewrite: bool,
    spare: Vec<Batch>,
    emergency: Emergency,
    other_bytes: u64,
    /// Damaged segments that were put aside, and their sizes.
    quarantined: VecDeque<(String, u64)>,
    evicted: Ranges,
    counts: Counts,
    /// Ends with us.
    _owner: Box<dyn Ownership>,
}

impl Log {
    /// Opens the log in a directory, and puts right what has to be. [`io::ErrorKind::WouldBlock`] if it has an owner,
    /// [`io::ErrorKind::Unsupported`] if it is of another version.
    pub(crate) fn open(storage: Arc<dyn Storage>, options: Options) -> io::Result<(Self, Recovery)> {
        // What is of another version is not even locked.
        meta::identify(&*storage, &storage.names()?)?;
        let owner = storage.lock()?;
        let Recovered {
            log,
            position,
            sent,
            segments,
            next_id,
            next_sequence,
            other_bytes,
            quarantined,
            recovery,
        } = recover(&storage)?;
        let mut emergency = Emergency::new(options.emergency_bytes);
        // What a file says of its size may be anything, too.
        let segment_bytes = sum(segments.iter().map(|segment| segment.bytes));
        let quarantined_bytes = sum(quarantined.iter().map(|&(_, bytes)| bytes));
        let bytes = sum([segment_bytes, quarantined_bytes, other_bytes, options.emergency_bytes]);
        if bytes <= options.max_bytes {
            emergency.take(&*storage);
        }
        let log = Self {
            storage,
            id: log,
            options,
            position,
            sent,
            sealed: segments.into(),
            sealed_bytes: segment_bytes,
            active: None,
            next_id,
            next_sequence,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            must_rewrite: false,
            spare: Vec::new(),
            emergency,
            other_bytes,
            quarantined: quarantined.into(),
            evicted: Ranges::default(),
            counts: Counts::default(),
            _owner: owner,
        };
        Ok((log, recovery))
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// The sequences that are, or should be, in the log.
    pub(crate) fn sequences(&self) -> Range<u64> {
        self.position.content().start..self.next_sequence
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        let active = self
            .active
            .as_ref()
            .map_or(0, |active| if active.is_reserved { active.room } else { active.offset });
        let quarantined = self.quarantined.iter().map(|&(_, bytes)| bytes);
        let others = [self.sealed_bytes, active, self.other_bytes, self.emergency.bytes()];
        sum(quarantined.chain(others))
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Sequences that were deleted to make room since the last call.
    pub(crate) fn take_evicted(&mut self) -> Ranges {
        std::mem::take(&mut self.evicted)
    }

    /// Whether anything is written that is not synced.
    pub(crate) fn has_unsynced(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// Whether so much is unsynced that a sync should not wait.
    pub(crate) fn wants_sync(&self) -> bool {
        self.unsynced_bytes >= UNSYNCED_BYTES_MAX
    }

    /// Takes the records of a batch, and leaves it empty. All of them are taken, or none. What is urgent may have the emergency room.
    pub(crate) fn append(&mut self, batch: &mut Batch, is_urgent: bool) -> Result<Range<u64>, Refusal> {
        let first = self.next_sequence;
        if batch.is_empty() {
            return Ok(first..first);
        }
        if first + batch.len() as u64 > number::LIMIT {
            return Err(Refusal::Failed(exhausted()));
        }
        self.restore()?;
        self.make_room(batch.bytes() as u64, is_urgent)?;
        let Some(active) = &mut self.active else { return Err(Refusal::Full) };
        batch.set_first_sequence(first);
        let sealed = batch.seal(active.seed, active.offset).map_err(Refusal::Failed)?;
        if let Err(error) = active.file.write_at(&sealed, active.offset) {
            self.leave_active();
            return Err(refusal_of(error));
        }
        match active.file.is_linked() {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Gone),
            Err(error) => {
                self.leave_active();
                return Err(Refusal::Failed(error));
            }
        }
        active.offset += batch.bytes() as u64;
        let sequences = batch.sequences();
        self.next_sequence = sequences.end;
        self.counts.written += batch.len() as u64;
        self.keep(batch);
        Ok(sequences)
    }

    /// Returns when all that was appended is on the disk. If it fails, what was appended is kept, and the next call tries again.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.has_unsynced() {
            return Ok(());
        }
        if !self.must_rewrite
            && let Some(active) = &mut self.active
        {
            match active.file.sync() {
                Ok(()) => self.settle(),
                Err(error) => {
                    contained(
                        || tracing::warn!(segment = %segment::name(active.id), %error, "a sync has failed; what it was for is written again, elsewhere"),
                    );
                    self.must_rewrite = true;
                    self.seal_active();
                }
            }
        }
        self.restore()
    }

    // ---- what was sent on ------------------------------------------------------------------------------------------------

    /// What may have been sent on, and what has met its fate.
    pub(crate) fn sent(&self) -> Sent {
        let start = self.position.content().start;
        let nothing = Sent { confirmed: start, mark: start, ..Sent::default() };
        self.sent.as_ref().map_or(nothing, SentFile::content)
    }

    /// Makes `sent` what counts. When this returns it is on the disk.
    pub(crate) fn note_sent(&mut self, sent: Sent) -> io::Result<()> {
        let sent = Sent { mark: sent.mark.min(number::LIMIT), ..sent };
        if let Some(file) = &mut self.sent {
            return file.write(sent);
        }
        let mut file = SentFile::open(&*self.storage, self.id, Found::NOTHING, sent)?;
        file.write(sent)?;
        self.storage.sync()?;
        self.sent = Some(file);
        self.other_bytes += slots::FILE_BYTES;
        Ok(())
    }

    /// Deletes the segments all of whose records have met their fate, as far as that is noted. The newest one stays.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        let confirmed = self.sent().confirmed;
        let is_newest = |log: &Self| log.sealed.len() == 1 && log.active.is_none();
        while !is_newest(self) && self.oldest().is_some_and(|sequences| sequences.end <= confirmed) {
            self.delete_oldest(0)?;
        }
        Ok(())
    }

    /// The sequences of the oldest segment that is not written to any more.
    pub(crate) fn oldest(&self) -> Option<Range<u64>> {
        let oldest = self.sealed.front()?;
        let start = self.position.content().start.max(oldest.first_sequence);
        Some(start..self.end_of_oldest().max(start))
    }

    /// The first sequence of the segment behind the one that holds `sequence`; none if that is the newest.
    pub(crate) fn segment_after(&self, sequence: u64) -> Option<u64> {
        let active = self.active.as_ref().map(|active| active.first_sequence);
        let firsts = self.sealed.iter().map(|sealed| sealed.first_sequence).chain(active);
        firsts.filter(|&first| first > sequence).min()
    }

    /// Ends the log: what it holds is on the disk, takes no more room than it needs, and is known to be whole.
    pub(crate) fn close(mut self) -> io::Result<()> {
        self.sync()?;
        if let Some(active) = &mut self.active {
            active.file.set_len(active.offset)?;
            active.file.sync()?;
        }
        self.emergency.release(&*self.storage);
        let position = Position { end: self.next_sequence, is_closed: true, ..self.position.content() };
        self.position.write(position)
    }

    // ---- what is not synced ----------------------------------------------------------------------------------------------

    fn keep(&mut self, batch: &mut Batch) {
        if !self.options.syncs {
            return batch.clear();
        }
        self.unsynced_bytes += batch.bytes();
        let empty = self.spare.pop().unwrap_or_default();
        self.unsynced.push_back(std::mem::replace(batch, empty));
    }

    fn settle(&mut self) {
        for mut batch in self.unsynced.drain(..) {
            self.counts.synced += batch.len() as u64;
            batch.clear();
            // More than one is needed only where many batches share a sync.
            if self.spare.len() < SPARE_MAX {
                self.spare.push(batch);
            }
        }
        self.unsynced_bytes = 0;
    }

    /// Writes again what a failing disk may not have.
    fn restore(&mut self) -> io::Result<()> {
        if !self.must_rewrite {
            return Ok(());
        }
        loop {
            match self.rewrite() {
                Err(error) if is_full(&error) && self.gives_way() => {}
                rewritten => return rewritten,
            }
        }
    }

    /// Gives back a piece of the disk that holds no record, if there is one.
    fn gives_way(&mut self) -> bool {
        self.emergency.release(&*self.storage) || self.delete_quarantined()
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let Some(first) = self.unsynced.front().map(|batch| batch.sequences().start) else { return Ok(()) };
        let header = self.header(first)?;
        let batches = self.unsynced.iter_mut().map(Ok);
        let written = creation::write(&*self.storage, header, Layout::Compact, batches)?;
        let offset = written.offset;
        let file = written.appear(&*self.storage)?;
        self.next_id += 1;
        self.active = Some(Active {
            id: header.id,
            first_sequence: first,
            file,
            seed: Seed::of_segment(self.id, header.id),
            offset,
            // It is full: what comes next goes into a segment with room of its own.
            room: offset,
            is_reserved: true,
            is_urgent: false,
        });
        self.must_rewrite = false;
        self.settle();
        Ok(())
    }

    // ---- segments --------------------------------------------------------------------------------------------------------

    /// Sees to it that the active segment has room.
    fn make_room(&mut self, bytes: u64, is_urgent: bool) -> Result<(), Refusal> {
        if self.has_room_for(bytes, is_urgent)? {
            return Ok(());
        }
        self.roll()?;
        let least = HEADER_BYTES as u64 + bytes;
        loop {
            let wanted = self.options.segment_bytes.max(least);
            match self.make_segment(least, wanted, false) {
                Err(Refusal::Full) => {}
                made => return made,
            }
            if self.delete_quarantined() {
                continue;
            }
            let may_evict = self.options.when_full == SpoolFull::DropOldest && !self.sealed.is_empty();
            if !may_evict {
                break;
            }
            self.evict_oldest()?;
        }
        if !is_urgent {
            return Err(Refusal::Full);
        }
        self.emergency.release(&*self.storage);
        self.make_segment(least, least.max(self.options.emergency_bytes / URGENT_SEGMENTS), true)
    }

    fn has_room_for(&self, bytes: u64, is_urgent: bool) -> Result<bool, Refusal> {
        let Some(active) = &self.active else { return Ok(false) };
        if active.offset + bytes > active.room || active.is_urgent && !is_urgent {
            return Ok(false);
        }
        // Where nothing can be reserved, the disk may have been filled by others meanwhile.
        Ok(active.is_reserved || active.is_urgent || self.disk_room()? >= bytes)
    }

    /// Makes a segment with as much room as it should have, or as little as it must.
    fn make_segment(&mut self, least: u64, wanted: u64, is_urgent: bool) -> Result<(), Refusal> {
        let by_quota = self.options.max_bytes.saturating_sub(self.bytes());
        let by_disk = if is_urgent { u64::MAX } else { self.disk_room()? };
        let size = wanted.min(by_quota).min(by_disk);
        if size < least {
            return Err(Refusal::Full);
        }
        let header = self.header(self.next_sequence)?;
        let none = std::iter::empty::<io::Result<Batch>>();
        let made = creation::write(&*self.storage, header, Layout::Reserved(size), none)
            .and_then(|made| Ok((made.offset, made.reserved, made.appear(&*self.storage)?)));
        let (offset, reserved, file) = made.map_err(refusal_of)?;
        self.next_id += 1;
        self.active = Some(Active {
            id: header.id,
            first_sequence: header.first_sequence,
            file,
            seed: Seed::of_segment(self.id, header.id),
            offset,
            room: size,
            is_reserved: reserved >= size,
            is_urgent,
        });
        self.delete_empty_predecessor();
        if !is_urgent && self.bytes().saturating_add(self.options.emergency_bytes) <= self.options.max_bytes {
            self.emergency.take(&*self.storage);
        }
        Ok(())
    }

    /// What the disk has above the floor.
    fn disk_room(&self) -> Result<u64, Refusal> {
        let space = self.storage.space().map_err(Refusal::Failed)?;
        let floor = (space.total / FREE_FLOOR_PART).min(FREE_FLOOR_MAX);
        Ok(if space.files > FILES_FLOOR { space.free.saturating_sub(floor) } else { 0 })
    }

    /// The header of the next segment.
    fn header(&self, first_sequence: u64) -> io::Result<Header> {
        if self.next_id >= number::LIMIT {
            return Err(exhausted());
        }
        Ok(Header::new(self.id, self.next_id, first_sequence, crate::clock::Timestamp::now().0))
    }

    /// Ends the active segment in good order.
    fn roll(&mut self) -> Result<(), Refusal> {
        let Some(active) = &mut self.active else { return Ok(()) };
        // If its end stays as it is, it takes more room than it needs, and no more.
        let cut = active.file.set_len(active.offset);
        if let Err(error) = cut {
            contained(
                || tracing::warn!(segment = %segment::name(active.id), %error, "a segment cannot be cut to its size"),
            );
        }
        if self.options.syncs {
            self.sync()?;
        }
        self.seal_active();
        Ok(())
    }

    /// Leaves the active segment after a write that failed.
    fn leave_active(&mut self) {
        let Some(active) = &mut self.active else { return };
        let cut = active.file.set_len(active.offset);
        if !self.unsynced.is_empty() {
            match cut.and_then(|()| active.file.sync()) {
                Ok(()) => self.settle(),
                Err(_) => self.must_rewrite = true,
            }
        }
        self.seal_active();
    }

    fn seal_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        let bytes = active.file.len().unwrap_or(active.room);
        self.sealed_bytes = self.sealed_bytes.saturating_add(bytes);
        self.sealed.push_back(Sealed { id: active.id, first_sequence: active.first_sequence, bytes });
    }

    /// A segment in which nothing was written, before the one that was just made, is of no use. Its id is not given out again, since a
    /// higher one is there.
    fn delete_empty_predecessor(&mut self) {
        let Some(active) = &self.active else { return };
        let is_empty = |sealed: &Sealed| {
            sealed.first_sequence == active.first_sequence && sealed.bytes <= HEADER_BYTES as u64
        };
        if let Some(empty) = self.sealed.back().copied().filter(is_empty)
            && self.storage.remove(&segment::name(empty.id)).is_ok()
        {
            self.sealed_bytes = self.sealed_bytes.saturating_sub(empty.bytes);
            self.sealed.pop_back();
        }
    }

    /// Deletes a damaged segment that was put aside: what was whole of it is in the log, and events need the room more than people who might want to
    /// look at it. Returns whether there was one.
    fn delete_quarantined(&mut self) -> bool {
        let Some((name, _)) = self.quarantined.pop_front() else { return false };
        let removed = self.storage.remove(&name);
        contained(|| match &removed {
            Ok(()) => {
                tracing::warn!(file = %name, "a damaged segment that was put aside is deleted to make room")
            }
            Err(error) => {
                tracing::debug!(file = %name, %error, "a damaged segment that was put aside cannot be deleted")
            }
        });
        true
    }

    /// Deletes the oldest segment to make room.
    pub(crate) fn evict_oldest(&mut self) -> Result<(), Refusal> {
        let Some(evicted) = self.oldest() else { return Ok(()) };
        self.delete_oldest(evicted.end - evicted.start).map_err(refusal_of)?;
        self.evicted.add(evicted);
        Ok(())
    }

    /// The sequence behind the last one of the oldest segment.
    fn end_of_oldest(&self) -> u64 {
        let active = self.active.as_ref().map_or(self.next_sequence, |active| active.first_sequence);
        self.sealed.get(1).map_or(active, |sealed| sealed.first_sequence)
    }

    /// Deletes the oldest segment. First the position says so, then it happens: in between it is a segment from before the start.
    fn delete_oldest(&mut self, evicted: u64) -> io::Result<()> {
        let position = self.position.content();
        let start = self.end_of_oldest().max(position.start);
        self.write_position(Position {
            start,
            end: position.end.max(start),
            evicted: position.evicted.saturating_add(evicted),
            is_closed: false,
        })?;
        let Some(oldest) = self.sealed.pop_front() else { return Ok(()) };
        self.sealed_bytes = self.sealed_bytes.saturating_sub(oldest.bytes);
        match self.storage.remove(&segment::name(oldest.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.storage.sync(),
        }
    }

    fn write_position(&mut self, position: Position) -> io::Result<()> {
        loop {
            match self.position.write(position) {
                Err(error) if is_full(&error) && self.gives_way() => {}
                written => return written,
            }
        }
    }
}

/// Empty batches that are kept for their memory.
const SPARE_MAX: usize = 32;

/// A sum that does not overflow, whatever sizes a directory claims to have.
fn sum(bytes: impl IntoIterator<Item = u64>) -> u64 {
    bytes.into_iter().fold(0, u64::saturating_add)
}

fn refusal_of(error: io::Error) -> Refusal {
    if is_full(&error) { Refusal::Full } else { Refusal::Failed(error) }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        refusal_of(error)
    }
}
