//! A log as its readers have it: messages, and words about what is not there.

use super::LogId;
use super::batch::Message;
use super::damage::Damage;
use super::storage::Storage;
use super::survey::Survey;
use super::walk::{Event, Walk};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Reads a log while its owner writes, or when it has none. Changes nothing.
#[derive(Debug)]
pub(crate) struct Cursor {
    storage: Arc<dyn Storage>,
    log: LogId,
    walk: Walk,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Message(Stored<'a>),
    /// These sequences should be here and are not.
    Missing(Range<u64>),
    Damage(Damage),
}

/// A message of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) sequence: u64,
    pub(crate) subject: &'a [u8],
    /// Lines, as in [`Batch::push`](super::batch::Batch::push).
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// False if the record is of a kind that we do not know. Then all of it is the payload, and the rest is empty.
    pub(crate) is_known: bool,
}

impl Cursor {
    /// Begins with the first message; none if the directory holds no log.
    pub(crate) fn open(storage: Arc<dyn Storage>) -> io::Result<Option<Self>> {
        let survey = Survey::take(&*storage)?;
        Ok(Self::of(storage, &survey))
    }

    pub(super) fn of(storage: Arc<dyn Storage>, survey: &Survey) -> Option<Self> {
        let log = survey.log()?;
        let walk = Walk::new(Arc::clone(&storage), log, survey);
        Some(Self { storage, log, walk })
    }

    /// The sequences that are there, or should be: the log is read from its last segment on to know the end.
    pub(crate) fn sequences(&self) -> io::Result<Range<u64>> {
        let survey = Survey::take(&*self.storage)?;
        let mut last = Walk::of_the_last(Arc::clone(&self.storage), self.log, &survey);
        while last.next()?.is_some() {}
        let first = self.walk.next_sequence().max(1);
        Ok(first..last.next_sequence().max(first))
    }

    /// Leaves out what is before this sequence, as far as that can be done without reading it.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        self.walk.skip_to(sequence);
    }

    /// What comes next. None at the end, which is the end for now: what is written after it comes next when [`refresh`](Self::refresh) has
    /// been called.
    pub(crate) fn next(&mut self) -> io::Result<Option<Item<'_>>> {
        let event = self.walk.next()?;
        Ok(event.map(|event| match event {
            Event::Record { sequence, range } => {
                // A kind of record that we do not know is shown as it is.
                let record = self.walk.record(range);
                let (message, unknown) =
                    (Message::decode(record), Message { subject: b"", headers: b"", payload: record });
                let is_known = message.is_some();
                let Message { subject, headers, payload } = message.unwrap_or(unknown);
                Item::Message(Stored { sequence, subject, headers, payload, is_known })
            }
            Event::Missing(range) => Item::Missing(range),
            Event::Damage(damage) => Item::Damage(damage),
        }))
    }

    /// What the record that was told as missing last would say, if it is there and damaged. Nothing of it can be relied on.
    pub(crate) fn remains(&self) -> Option<Message<'_>> {
        self.walk.remains().and_then(Message::decode_any)
    }

    /// Looks again at the directory. An error of the kind [`io::ErrorKind::NotFound`] if another log is there, or none.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        let survey = Survey::take(&*self.storage)?;
        if survey.log() != Some(self.log) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log is not there any more"));
        }
        self.walk.refresh(&survey);
        Ok(())
    }

    /// Records that are in the log twice, because the disk had refused to keep them in the first place.
    pub(crate) fn repeated(&self) -> u64 {
        self.walk.repeated()
    }
}

/// The headers in the lines of a message.
pub(crate) fn headers_of(lines: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let text = std::str::from_utf8(lines).unwrap_or_default();
    text.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
}
