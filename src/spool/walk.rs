//! All records of a log in their order, and every one that is missing.
//!
//! Records have consecutive sequences, so a hole has an exact size, wherever it comes from: a damaged record, a segment that was deleted,
//! an end that was cut off. Three things say where something must have been: the records around a hole, the first sequence in the header
//! of the next segment, and the [position](super::position) for what is before the first segment and behind the last.
//!
//! What stands at the very end and is not whole is a write that was cut off, a *torn tail*: unless the position says that it was on the
//! disk, something follows it, or its own end is whole. Nobody was told that it is stored, and it is not seen.

use super::LogId;
use super::damage::{Damage, Kind};
use super::scan::{Found, FoundBatch, Scanner};
use super::segment;
use super::storage::Storage;
use super::survey::{Survey, Surveyed};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// No record has this sequence.
const UNKNOWN: u64 = 0;

/// Reads a log from its first record on.
#[derive(Debug)]
pub(super) struct Walk {
    storage: Arc<dyn Storage>,
    log: LogId,
    /// Those that are still to be opened.
    ahead: VecDeque<Surveyed>,
    current: Option<Current>,
    /// The sequence that should come next; [`UNKNOWN`] until something says it.
    next: u64,
    /// Where the record stands that was met last, and is damaged.
    remains: Option<Range<usize>>,
    /// Up to here something must be there.
    known_end: u64,
    /// To be told before anything else.
    told: VecDeque<Event>,
    /// The end was reached, and nobody has asked to look again.
    is_over: bool,
    /// Somebody does ask, again and again.
    is_followed: bool,
    /// Records that were there twice, since the disk had refused to keep them in the first place.
    repeated: u64,
}

/// A segment that is being read.
#[derive(Debug)]
struct Current {
    id: u64,
    limit: u64,
    scanner: Scanner,
    /// The batch at hand, and the record in it that comes next.
    batch: Option<(FoundBatch, usize)>,
}

/// What is met on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Record {
        sequence: u64,
        range: Range<usize>,
    },
    /// Sequences that should be here and are not.
    Missing(Range<u64>),
    Damage(Damage),
}

impl Walk {
    /// Of a log that has an id.
    pub(super) fn new(storage: Arc<dyn Storage>, log: LogId, survey: &Survey) -> Self {
        let position = survey.position.content;
        let first = survey.segments.first().and_then(Surveyed::first_sequence);
        // A segment from before the start is on its way out, and is read as long as it is there.
        let next = match (position.map(|position| position.start), first) {
            (Some(start), Some(first)) => start.min(first),
            (start, first) => start.or(first).unwrap_or(UNKNOWN),
        };
        Self {
            storage,
            log,
            ahead: survey.segments.iter().cloned().collect(),
            current: None,
            next,
            remains: None,
            known_end: position.map_or(0, |position| position.end),
            told: VecDeque::new(),
            is_over: false,
            is_followed: false,
            repeated: 0,
        }
    }

    /// Only from the last segment on whose header is whole, for who opens the log.
    pub(super) fn of_the_last(storage: Arc<dyn Storage>, log: LogId, survey: &Survey) -> Self {
        let mut walk = Self::new(storage, log, survey);
        if let Some(last) = survey.segments.iter().rposition(|segment| segment.header.is_some()) {
            walk.ahead.drain(..last);
            walk.next = survey.segments[last].first_sequence().unwrap_or(UNKNOWN);
        }
        walk
    }

    /// Leaves out segments that end before this sequence. What is missing there is not told.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        while let Some(first) = self.ahead.get(1).and_then(Surveyed::first_sequence)
            && first <= sequence
        {
            self.ahead.pop_front();
            self.next = self.next.max(first);
        }
    }

    /// The sequence behind the last one that was told; 0 if there was none.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next
    }

    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// The bytes of the record that was met last.
    pub(super) fn record(&self, range: Range<usize>) -> &[u8] {
        self.current.as_ref().map_or(&[], |current| current.scanner.record(range))
    }

    /// The bytes of the record that was told as missing last, if it is there and damaged. Nothing of them can be relied on.
    pub(super) fn remains(&self) -> Option<&[u8]> {
        self.remains.clone().map(|range| self.record(range))
    }

    /// Where the segment that was read last ends, and which one it is. What is behind that is of no use.
    pub(super) fn end(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|current| (current.id, current.scanner.offset()))
    }

    /// Takes up what was written since the end was reached.
    pub(super) fn refresh(&mut self, survey: &Survey) {
        let at_hand = self.current.as_ref().map(|current| current.id);
        let known = self.ahead.back().map(|segment| segment.id).or(at_hand);
        for segment in &survey.segments {
            if known.is_none_or(|known| segment.id > known) {
                self.ahead.push_back(segment.clone());
            }
            if let Some(current) = self.current.as_mut().filter(|current| current.id == segment.id) {
                current.limit = segment.limit;
            }
        }
        if let Some(position) = survey.position.content {
            // What was deleted meanwhile is not missing.
            self.next = self.next.max(position.start);
        }
        (self.is_over, self.is_followed) = (false, true);
    }

    /// What comes next; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Event>> {
        self.remains = None;
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(Some(event));
            }
            if self.is_over {
                return Ok(None);
            }
            if self.current.is_none() {
                match self.ahead.pop_front() {
                    Some(segment) => self.open(&segment)?,
                    None => self.finish(),
                }
            } else if let Some(record) = self.next_of_batch() {
                return Ok(Some(record));
            } else {
                self.next_of_segment()?;
            }
        }
    }

    /// Behind the last record nothing says that something should follow but the position.
    fn finish(&mut self) {
        self.expect(self.known_end);
        self.is_over = true;
    }

    fn expect(&mut self, sequence: u64) {
        if self.next == UNKNOWN {
            self.next = sequence;
        }
        if sequence > self.next {
            self.told.push_back(Event::Missing(std::mem::replace(&mut self.next, sequence)..sequence));
        }
    }

    fn open(&mut self, segment: &Surveyed) -> io::Result<()> {
        if let Some(first) = segment.first_sequence() {
            self.expect(first);
        }
        match self.storage.open(&segment::name(segment.id), false) {
            Ok(file) => {
                let scanner = Scanner::new(file, self.log, segment.id);
                self.current = Some(Current { id: segment.id, limit: segment.limit, scanner, batch: None });
                Ok(())
            }
            // Deleted meanwhile: the sequences after it say what is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next record of the batch at hand, or the hole before it.
    fn next_of_batch(&mut self) -> Option<Event> {
        let current = self.current.as_mut()?;
        let (batch, index) = current.batch.as_mut()?;
        while *index < batch.head.count {
            let sequence = batch.head.first_sequence + *index as u64;
            if sequence >= current.limit {
                break;
            }
            let checked = &batch.checked;
            let whole = checked.records[*index].clone();
            let damaged = checked.damaged.binary_search_by_key(index, |&(index, _)| index);
            let damaged = damaged.ok().map(|at| checked.damaged[at].1.clone());
            if whole.is_none() && damaged.is_none() {
                *index += 1;
                continue;
            }
            if self.next == UNKNOWN {
                self.next = sequence;
            }
            if sequence < self.next {
                self.repeated += u64::from(whole.is_some());
                *index += 1;
                continue;
            }
            if sequence > self.next {
                return Some(Event::Missing(std::mem::replace(&mut self.next, sequence)..sequence));
            }
            *index += 1;
            self.next = sequence + 1;
            self.remains = damaged;
            return Some(match whole {
                Some(range) => Event::Record { sequence, range },
                None => Event::Missing(sequence..sequence + 1),
            });
        }
        current.batch = None;
        None
    }

    /// Goes on in the segment at hand.
    fn next_of_segment(&mut self) -> io::Result<()> {
        let is_last = self.ahead.is_empty();
        let Some(current) = self.current.as_mut() else { return Ok(()) };
        if is_last && self.is_followed && current.scanner.is_at_zeros()? {
            // The rest of the file is room for what comes, and is not searched through each time.
            self.finish();
            return Ok(());
        }
        match current.scanner.next()? {
            Found::Damage(range) => self.tell(range, Kind::Bytes),
            Found::Batch(batch) if batch.checked.is_whole => current.batch = Some((batch, 0)),
            Found::Batch(batch) => {
                let first = batch.head.first_sequence;
                let may_be_torn = is_last && first >= self.known_end && !batch.checked.is_finished;
                if may_be_torn && !current.scanner.finds_another()? {
                    current.scanner.return_to(batch.offset);
                    self.tell(batch.range(), Kind::Torn);
                    self.finish();
                    return Ok(());
                }
                let kind = if first < current.limit { Kind::Batch } else { Kind::Torn };
                let range = batch.range();
                current.batch = Some((batch, 0));
                self.tell(range, kind);
            }
            Found::End(range) => {
                // What is missing here is told by the next segment, or the position; if nothing is, it was never confirmed.
                let known_end = if is_last { self.known_end } else { current.limit };
                if !range.is_empty() {
                    let kind = if self.next < known_end { Kind::Bytes } else { Kind::Torn };
                    self.tell(range, kind);
                }
                match is_last {
                    // It stays at hand: something may be written here yet.
                    true => self.finish(),
                    false => self.current = None,
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, range: Range<u64>, kind: Kind) {
        let Some(current) = &self.current else { return };
        let file = segment::name(current.id);
        let bytes = range.end - range.start;
        self.told.push_back(Event::Damage(Damage { file, offset: range.start, bytes, kind }));
    }
}
