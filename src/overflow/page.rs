//! A piece of the log on its way back to the window: records one behind the other, with what is gone between them.

use super::losses::Losses;
use crate::spool::batch::{Batch, Message};
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;

/// A page with so many bytes, or so many records, is full.
const BYTES: usize = 1 << 20;
const RECORDS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Page {
    bytes: Vec<u8>,
    items: VecDeque<Item>,
    /// Records that should be here and are not.
    pub(super) missing: u64,
    /// Whose records are missing, here and in pages before.
    pub(super) losses: Losses,
}

#[derive(Debug)]
enum Item {
    Record {
        sequence: Option<NonZeroU64>,
        start: usize,
        subject: usize,
        headers: usize,
        payload: usize,
    },
    /// Nothing is before this sequence that has not been handed out.
    Passed {
        to: u64,
    },
}

/// What is at the front of a page.
#[derive(Debug)]
pub(super) enum Front<'a> {
    Record { sequence: Option<NonZeroU64>, message: Message<'a> },
    Passed { to: u64 },
}

impl Item {
    fn read<'a>(&self, bytes: &'a [u8]) -> Front<'a> {
        match *self {
            Self::Passed { to } => Front::Passed { to },
            Self::Record { sequence, start, subject, headers, payload } => {
                let (subject, rest) = bytes[start..].split_at(subject);
                let (headers, rest) = rest.split_at(headers);
                Front::Record { sequence, message: Message { subject, headers, payload: &rest[..payload] } }
            }
        }
    }
}

impl Page {
    /// Records that were never written, because the disk did not take them.
    pub(super) fn of_batch(batch: &Batch) -> Self {
        let mut page = Self::default();
        batch.messages().for_each(|message| page.push(None, message));
        page
    }

    pub(super) fn push(&mut self, sequence: Option<NonZeroU64>, message: Message<'_>) {
        let Message { subject, headers, payload } = message;
        let start = self.bytes.len();
        [subject, headers, payload].iter().for_each(|part| self.bytes.extend_from_slice(part));
        let (subject, headers, payload) = (subject.len(), headers.len(), payload.len());
        self.items.push_back(Item::Record { sequence, start, subject, headers, payload });
    }

    pub(super) fn pass_to(&mut self, to: u64) {
        match self.items.back_mut() {
            Some(Item::Passed { to: passed }) => *passed = to.max(*passed),
            _ => self.items.push_back(Item::Passed { to }),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= BYTES || self.items.len() >= RECORDS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[cfg(all(test, not(jetring_loom)))]
    pub(super) fn items(&self) -> usize {
        self.items.len()
    }

    /// Records that were not taken out yet, of those that were read from the log.
    pub(super) fn records_in_log(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Record { sequence: Some(_), .. })).count()
    }

    /// The places of its records in the log are those of a log that is no more.
    pub(super) fn forget_places(&mut self) {
        self.items.retain_mut(|item| match item {
            Item::Record { sequence, .. } => {
                *sequence = None;
                true
            }
            Item::Passed { .. } => false,
        });
    }

    /// The records below this are not in the log any more. Returns how many.
    pub(super) fn forget_places_below(&mut self, start: u64) -> u64 {
        let mut forgotten = 0;
        for item in &mut self.items {
            if let Item::Record { sequence, .. } = item
                && sequence.take_if(|sequence| sequence.get() < start).is_some()
            {
                forgotten += 1;
            }
        }
        forgotten
    }

    /// Takes out the records that are not in the log.
    pub(super) fn drain_unwritten(&mut self, mut each: impl FnMut(Message<'_>)) {
        let Self { bytes, items, .. } = self;
        items.retain(|item| {
            let Item::Record { sequence: None, .. } = item else { return true };
            if let Front::Record { message, .. } = item.read(bytes) {
                each(message);
            }
            false
        });
    }

    pub(super) fn front(&self) -> Option<Front<'_>> {
        self.items.front().map(|item| item.read(&self.bytes))
    }

    pub(super) fn pop(&mut self) {
        self.items.pop_front();
    }
}

/// Sequences of records, for who has to pass over some.
pub(super) fn is_in(ranges: &VecDeque<Range<u64>>, sequence: u64) -> Option<&Range<u64>> {
    ranges.iter().find(|range| range.contains(&sequence))
}
