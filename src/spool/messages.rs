//! The messages of a log for a [reader](crate::reader): filtered, from any place on, and to the end or for ever.
//!
//! Who follows looks again every [`POLL`]. It needs nothing of the log's owner, and does not disturb him.

use super::cursor::{Cursor, Item, headers_of};
use super::storage::Storage;
use super::storage::disk::Disk;
use crate::reader::{From, ReaderError, Received};
use crate::subject::covers;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the end of a log.
const POLL: Duration = Duration::from_millis(20);

/// Reads a log.
#[derive(Debug)]
pub(crate) struct Messages {
    path: PathBuf,
    filter: String,
    from: From,
    follow: bool,
    /// None while there is no log yet.
    cursor: Option<Cursor>,
    first_sequence: u64,
    last_sequence: u64,
    /// The next one that is wanted.
    next_sequence: u64,
}

impl Messages {
    /// Who follows may come before the log is there.
    pub(crate) fn open(path: &Path, filter: &str, from: From, follow: bool) -> Result<Self, ReaderError> {
        let mut messages = Self {
            path: path.to_owned(),
            filter: filter.to_owned(),
            from,
            follow,
            cursor: None,
            first_sequence: 1,
            last_sequence: 0,
            next_sequence: 1,
        };
        match messages.begin() {
            Ok(true) => {}
            Ok(false) if follow => {
                // All that will be there is new.
                messages.from = if from == From::New { From::All } else { from };
                tracing::info!(path = %path.display(), "there is no log yet; waiting for it");
            }
            Ok(false) => return Err(messages.lost("there is no log in it")),
            Err(error) => return Err(messages.lost(error)),
        }
        Ok(messages)
    }

    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(crate) fn pending(&self) -> u64 {
        (self.last_sequence + 1).saturating_sub(self.next_sequence)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Received>, ReaderError> {
        loop {
            if let Some(received) = self.read_on().map_err(|error| self.lost(error))? {
                return Ok(Some(received));
            }
            if !self.follow {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
            let looked = match &mut self.cursor {
                Some(cursor) => cursor.refresh(),
                None => self.begin().map(drop),
            };
            looked.map_err(|error| self.lost(error))?;
        }
    }

    /// How many messages the log holds of each subject; of `max` subjects at most.
    pub(crate) fn subjects(&self, max: usize) -> Result<BTreeMap<String, u64>, ReaderError> {
        let mut all = Self::open(&self.path, "", From::All, false)?;
        let mut subjects = BTreeMap::new();
        while let Some(received) = all.read_on().map_err(|error| self.lost(error))? {
            if let Some(count) = subjects.get_mut(&received.subject) {
                *count += 1;
            } else if subjects.len() < max {
                subjects.insert(received.subject, 1);
            }
        }
        Ok(subjects)
    }

    /// Opens the log, if there is one.
    fn begin(&mut self) -> io::Result<bool> {
        let disk = match Disk::open(&self.path) {
            Ok(disk) => disk,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let storage: Arc<dyn Storage> = Arc::new(disk);
        let Some(mut cursor) = Cursor::open(storage)? else { return Ok(false) };
        let sequences = cursor.sequences()?;
        self.first_sequence = sequences.start;
        self.last_sequence = sequences.end - 1;
        self.next_sequence = match self.from {
            From::All => sequences.start,
            From::New => sequences.end,
            From::Sequence(sequence) => sequence,
        };
        cursor.skip_to(self.next_sequence);
        self.cursor = Some(cursor);
        Ok(true)
    }

    fn read_on(&mut self) -> io::Result<Option<Received>> {
        let Some(cursor) = &mut self.cursor else { return Ok(None) };
        while let Some(item) = cursor.next()? {
            match item {
                Item::Message(stored) => {
                    if stored.sequence < self.next_sequence {
                        continue;
                    }
                    self.next_sequence = stored.sequence + 1;
                    let subject = String::from_utf8_lossy(stored.subject);
                    if self.filter.is_empty() || covers(&self.filter, &subject) {
                        let headers = headers_of(stored.headers);
                        return Ok(Some(Received {
                            sequence: stored.sequence,
                            subject: subject.into_owned(),
                            payload: Bytes::copy_from_slice(stored.payload),
                            headers: headers
                                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                                .collect(),
                        }));
                    }
                }
                Item::Missing(range) => {
                    if range.end > self.next_sequence {
                        tracing::warn!(path = %self.path.display(), first = range.start, last = range.end - 1, "messages are missing in the log");
                    }
                }
                // What is being written at this moment looks as torn as what was cut off. A loss is told as missing.
                Item::Damage(damage) => tracing::debug!(path = %self.path.display(), "{damage}"),
            }
        }
        Ok(None)
    }

    fn lost(&self, error: impl std::fmt::Display) -> ReaderError {
        ReaderError::stream(&self.path.display(), error)
    }
}
