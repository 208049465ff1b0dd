//! One segment, read from the front, whatever state it is in.
//!
//! ```text
//!   ┌────────┬───────┬───────┬─▒▒▒▒▒▒▒─┬───────┬──────────────────┐
//!   │ header │ batch │ batch │ damage  │ batch │ zeros or garbage │
//!   └────────┴───────┴───────┴─────────┴───────┴──────────────────┘
//! ```
//!
//! Where a batch should begin and does not, the next place is looked for where one does. The head of a batch has a checksum of its own,
//! so that this costs a look at each eighth byte, and only what passes it is read. A segment is read in pieces: what is needed in
//! memory is one batch. Each step goes forward, so the end is always reached.

use super::LogId;
use super::batch::{ALIGNMENT, Checked, HEAD_BYTES, Head};
use super::checksum::Seed;
use super::segment::HEADER_BYTES;
use super::storage::{File, read_full};
use std::io;
use std::ops::Range;

/// What is read at once while the next batch is looked for: little at first, since it is seldom far.
const WINDOW_BYTES: usize = 64 << 10;
const FIRST_WINDOW_BYTES: usize = 1 << 10;

/// What most of a segment is that has room for more: comparing with it is the quickest way to pass it over.
static ZEROS: [u8; WINDOW_BYTES] = [0; WINDOW_BYTES];

/// Reads one segment.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Box<dyn File>,
    seed: Seed,
    offset: u64,
    /// The body of the batch that was found last.
    body: Vec<u8>,
}

/// What comes next in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Batch(FoundBatch),
    /// Bytes that are no batch, with a batch behind them.
    Damage(Range<u64>),
    /// No batch follows. The range goes to the last byte that is not zero; it is empty if the segment ends as it should.
    End(Range<u64>),
}

/// A batch whose head is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundBatch {
    pub(super) offset: u64,
    pub(super) head: Head,
    pub(super) checked: Checked,
}

impl FoundBatch {
    /// Where it stands; behind the end of the file if it is cut off.
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.head.bytes()
    }
}

impl Scanner {
    /// Begins behind the header.
    pub(super) fn new(file: Box<dyn File>, log: LogId, id: u64) -> Self {
        Self { file, seed: Seed::of_segment(log, id), offset: HEADER_BYTES as u64, body: Vec::new() }
    }

    /// The bytes of a record of the batch that was found last.
    pub(super) fn record(&self, range: Range<usize>) -> &[u8] {
        &self.body[range]
    }

    /// Where the next batch is looked for.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes back to a place where a batch was found, to look again.
    pub(super) fn return_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    pub(super) fn next(&mut self) -> io::Result<Found> {
        let mut block = [0; HEAD_BYTES];
        let read = read_full(&*self.file, &mut block, self.offset)?;
        match Head::decode(&block[..read], self.seed, self.offset) {
            Some(head) => self.read_batch(head),
            None => self.look_further(),
        }
    }

    /// Whether nothing has been written at this place.
    pub(super) fn is_at_zeros(&self) -> io::Result<bool> {
        let mut block = [0; HEAD_BYTES];
        read_full(&*self.file, &mut block, self.offset)?;
        Ok(block.iter().all(|&byte| byte == 0))
    }

    /// Whether a batch begins anywhere from here on.
    pub(super) fn finds_another(&self) -> io::Result<bool> {
        Ok(matches!(self.search(self.offset)?, Search::Batch(_)))
    }

    fn read_batch(&mut self, head: Head) -> io::Result<Found> {
        let offset = self.offset;
        // Its length is within the limit of a batch, and no more is taken than the file has.
        let rest = self.file.len()?.saturating_sub(offset + HEAD_BYTES as u64);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(head.body_bytes);
        self.body.resize(length, 0);
        let read = read_full(&*self.file, &mut self.body, offset + HEAD_BYTES as u64)?;
        self.body.truncate(read);
        let checked = head.check(&self.body, self.seed, offset);
        self.offset += head.bytes();
        Ok(Found::Batch(FoundBatch { offset, head, checked }))
    }

    fn look_further(&mut self) -> io::Result<Found> {
        let from = self.offset;
        Ok(match self.search(from)? {
            Search::Batch(offset) => {
                self.offset = offset;
                Found::Damage(from..offset)
            }
            Search::Nothing { last } => Found::End(from..last.max(from)),
        })
    }

    fn search(&self, from: u64) -> io::Result<Search> {
        let (mut window, mut offset, mut last) = (vec![0; FIRST_WINDOW_BYTES], from, from);
        loop {
            let read = read_full(&*self.file, &mut window, offset)?;
            if window[..read] != ZEROS[..read]
                && let Some(at) = window[..read].iter().rposition(|&byte| byte != 0)
            {
                last = offset + at as u64 + 1;
                let mut places = (0..=at).step_by(ALIGNMENT as usize);
                let is_head = |&at: &usize| {
                    let block = &window[at..read.min(at + HEAD_BYTES)];
                    Head::decode(block, self.seed, offset + at as u64).is_some()
                };
                if let Some(at) = places.find(is_head) {
                    return Ok(Search::Batch(offset + at as u64));
                }
            }
            if read < window.len() {
                return Ok(Search::Nothing { last });
            }
            // A head may begin at the very end of this window.
            offset += (window.len() - HEAD_BYTES) as u64;
            window.resize(WINDOW_BYTES, 0);
            match self.file.next_data(offset)? {
                Some(data) => offset = offset.max(data / ALIGNMENT * ALIGNMENT),
                None => return Ok(Search::Nothing { last }),
            }
        }
    }
}

enum Search {
    Batch(u64),
    Nothing { last: u64 },
}
