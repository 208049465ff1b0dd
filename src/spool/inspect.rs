//! A log as people look at it: what is there, whether it is whole, and what can be done if not.
//!
//! Looking changes nothing and needs no owner's leave, so it works beside a running bus. Only [`repair`] does, and it must be the one
//! owner.

use super::cursor::{Cursor, Item, Stored, headers_of};
use super::damage::{Damage, Kind, LISTED_MAX};
use super::position::{Position, PositionFile};
use super::quarantine;
use super::ranges::Ranges;
use super::recovery::{Recovered, recover};
use super::segment;
use super::storage::Storage;
use super::storage::disk::Disk;
use super::survey::Survey;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What lies in the directory of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// The id of the log; none if there is no log.
    pub log: Option<String>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentFile>,
    /// Damaged segments that were put aside, and their sizes.
    pub quarantined: Vec<(String, u64)>,
    /// Files that are none of this log's.
    pub strangers: Vec<String>,
    /// How many messages were deleted to make room, since the log was made.
    pub evicted: u64,
    /// Whether its last owner closed it. A bus that is running has not.
    pub is_closed: bool,
}

/// A segment of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SegmentFile {
    /// The name of the file.
    pub file: String,
    /// The sequence of its first message; none if the header is damaged.
    pub first_sequence: Option<u64>,
    /// The size of the file. That of the newest one has room for more, unless the log was closed.
    pub bytes: u64,
    /// When it was made, in nanoseconds since 1970, by the clock of the machine.
    pub made_at: Option<u64>,
}

/// Whether all of a log is there and as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verdict {
    /// Messages that are whole.
    pub messages: u64,
    /// The sequence of the first of them, and of the last; 0 if there are none.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Sequences that should be there and are not.
    pub missing: Ranges,
    /// What is not as it was written; the first 256.
    pub damage: Vec<Damage>,
    /// How many that is in all.
    pub damages: u64,
    /// Messages that are there twice, since the disk had refused to keep them in the first place. They are read once.
    pub repeated: u64,
}

impl Verdict {
    /// Whether nothing is missing and nothing is damaged. A torn tail is no damage: it was never confirmed to anybody.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.damages == 0
    }

    fn note(&mut self, damage: Damage) {
        self.damages += u64::from(damage.kind != Kind::Torn);
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        }
    }
}

/// What [`repair`] has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Repair {
    /// What was damaged before.
    pub damage: Vec<Damage>,
    /// The names that damaged segments bear now. Their whole messages are where they were.
    pub quarantined: Vec<String>,
    /// How the log is now.
    pub verdict: Verdict,
}

/// What [`Entries`] gives out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// A message.
    Message {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// Messages that should be here and are not, from the first to the last sequence.
    Missing {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Something that is not as it was written.
    Damage(Damage),
}

/// All that is in a log, and all that is not.
#[derive(Debug)]
pub struct Entries {
    /// Damage that was found without reading.
    noted: std::vec::IntoIter<Damage>,
    cursor: Cursor,
}

impl Entries {
    /// Opens a log for reading.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read, or there is no log in it.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Self::of(Arc::new(Disk::open(directory)?))
    }

    fn of(storage: Arc<dyn Storage>) -> io::Result<Self> {
        let survey = Survey::take(&*storage)?;
        let cursor = Cursor::of(storage, &survey).ok_or_else(no_log)?;
        Ok(Self { noted: survey.damage.into_iter(), cursor })
    }
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if let Some(damage) = self.noted.next() {
            return Some(Ok(Entry::Damage(damage)));
        }
        let entry = |item| match item {
            Item::Message(Stored { sequence, subject, headers, payload, .. }) => Entry::Message {
                sequence,
                subject: String::from_utf8_lossy(subject).into_owned(),
                headers: headers_of(headers)
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                payload: payload.to_vec(),
            },
            Item::Missing(range) => Entry::Missing { first: range.start, last: range.end - 1 },
            Item::Damage(damage) => Entry::Damage(damage),
        };
        self.cursor.next().map(|item| item.map(entry)).transpose()
    }
}

/// Counts by subject what waits in a directory to be sent on.
///
/// # Errors
///
/// When it cannot be read, or there is no log in it.
pub fn waiting(directory: &Path) -> io::Result<BTreeMap<String, u64>> {
    let storage: Arc<dyn Storage> = Arc::new(Disk::open(directory)?);
    let survey = Survey::take(&*storage)?;
    let confirmed = survey.sent.content.map_or(0, |sent| sent.confirmed);
    let mut cursor = Cursor::of(storage, &survey).ok_or_else(no_log)?;
    cursor.skip_to(confirmed);
    let mut waiting = BTreeMap::new();
    while let Some(item) = cursor.next()? {
        if let Item::Message(Stored { sequence, subject, .. }) = item
            && sequence >= confirmed
        {
            *waiting.entry(String::from_utf8_lossy(subject).into_owned()).or_default() += 1;
        }
    }
    Ok(waiting)
}

/// Looks at a directory, without reading messages.
///
/// # Errors
///
/// When it cannot be read.
pub fn overview(directory: &Path) -> io::Result<Overview> {
    let survey = Survey::take(&Disk::open(directory)?)?;
    let position = survey.position.content;
    let segment = |segment: &super::survey::Surveyed| SegmentFile {
        file: segment::name(segment.id),
        first_sequence: segment.header.map(|header| header.first_sequence),
        bytes: segment.bytes,
        made_at: segment.header.map(|header| header.made_at),
    };
    Ok(Overview {
        log: survey.log().map(|log| log.to_string()),
        segments: survey.segments.iter().map(segment).collect(),
        quarantined: survey.quarantined.clone(),
        strangers: survey.strangers.clone(),
        evicted: position.map_or(0, |position| position.evicted),
        is_closed: position.is_some_and(|position| position.is_closed),
    })
}

/// Reads a log from its first message to its last.
///
/// # Errors
///
/// When the disk cannot be read, or there is no log in the directory.
pub fn verify(directory: &Path) -> io::Result<Verdict> {
    verify_storage(Arc::new(Disk::open(directory)?))
}

fn verify_storage(storage: Arc<dyn Storage>) -> io::Result<Verdict> {
    let survey = Survey::take(&*storage)?;
    let mut cursor = Cursor::of(storage, &survey).ok_or_else(no_log)?;
    let mut verdict = Verdict::default();
    survey.damage.into_iter().for_each(|damage| verdict.note(damage));
    while let Some(item) = cursor.next()? {
        match item {
            Item::Message(stored) => {
                verdict.messages += 1;
                verdict.payload_bytes += stored.payload.len() as u64;
                verdict.last = stored.sequence;
                if verdict.first == 0 {
                    verdict.first = stored.sequence;
                }
            }
            Item::Missing(range) => verdict.missing.add(range),
            Item::Damage(damage) => verdict.note(damage),
        }
    }
    verdict.repeated = cursor.repeated();
    Ok(verdict)
}

/// Puts every damaged segment aside, keeps what is whole of it, cuts off a torn tail, and reads all of it again. What is missing stays
/// missing, and visible.
///
/// # Errors
///
/// When the log has an owner ([`io::ErrorKind::WouldBlock`]), there is none, or the disk refuses.
pub fn repair(directory: &Path) -> io::Result<Repair> {
    repair_storage(&(Arc::new(Disk::open(directory)?) as Arc<dyn Storage>))
}

fn repair_storage(storage: &Arc<dyn Storage>) -> io::Result<Repair> {
    let before = Survey::take(&**storage)?;
    if before.segments.is_empty() && before.log().is_none() {
        return Err(no_log());
    }
    let _owner = storage.lock()?;
    let Recovered { log, mut position, next_sequence, recovery, .. } = recover(storage)?;
    let (mut damage, mut quarantined) = (recovery.damage, recovery.quarantined);
    for damaged in verify_storage(Arc::clone(storage))?.damage {
        let survey = Survey::take(&**storage)?;
        let segment = survey.segments.iter().find(|segment| segment::name(segment.id) == damaged.file);
        // One time for each segment, however often it is damaged.
        let is_done = quarantined.iter().any(|name| name.starts_with(&damaged.file));
        if let Some(segment) = segment.filter(|_| !is_done) {
            quarantined.push(quarantine::salvage(storage, log, segment.id, segment.header, u64::MAX)?.name);
        }
        damage.push(damaged);
    }
    close(&mut position, next_sequence)?;
    Ok(Repair { damage, quarantined, verdict: verify_storage(Arc::clone(storage))? })
}

fn close(file: &mut PositionFile, end: u64) -> io::Result<()> {
    let position = Position { end, is_closed: true, ..file.content() };
    file.write(position)
}

fn no_log() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no log in this directory")
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::SpoolFull;
    use crate::spool::batch::Batch;
    use crate::spool::log::{Log, Options};
    use std::fs;

    /// A closed log of three segments with ten messages each.
    fn log() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let options = Options::new(64 << 20, SpoolFull::DropNewest, true);
            let (mut log, _) = Log::open(Arc::new(Disk::open(directory.path()).unwrap()), options).unwrap();
            for number in 0..10u8 {
                let mut batch = Batch::default();
                batch.room().unwrap().push(b"event.1.a", b"Name: value\r\n", &[number; 100]).unwrap();
                log.append(&mut batch, false).unwrap();
            }
            log.close().unwrap();
        }
        let files = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
        segments.sort();
        assert_eq!(segments.len(), 3);
        (directory, segments)
    }

    fn flip(path: &Path, at: u64) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at as usize] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_whole_log_is_sound_and_can_be_looked_at() {
        let (directory, _) = log();
        let overview = overview(directory.path()).unwrap();
        let first: Vec<_> = overview.segments.iter().map(|segment| segment.first_sequence).collect();
        assert_eq!((first, overview.is_closed), (vec![Some(1), Some(11), Some(21)], true));
        let verdict = verify(directory.path()).unwrap();
        assert!(verdict.is_sound());
        assert_eq!((verdict.messages, verdict.first, verdict.last, verdict.payload_bytes), (30, 1, 30, 3000));
        let mut entries = Entries::open(directory.path()).unwrap();
        let Some(Ok(Entry::Message { sequence: 1, subject, headers, payload })) = entries.next() else {
            panic!("the first message")
        };
        assert_eq!((subject.as_str(), payload.len()), ("event.1.a", 100));
        assert_eq!(headers, [("Name".to_owned(), "value".to_owned())]);
    }

    #[test]
    fn damage_in_an_old_segment_is_found_and_repaired_and_stays_missing() {
        let (directory, segments) = log();
        flip(&segments[0], 300);
        flip(&segments[0], 1000);
        let before = verify(directory.path()).unwrap();
        assert!(!before.is_sound());
        assert_eq!((before.missing.sequences, before.damages), (2, 2));
        let repair = repair(directory.path()).unwrap();
        assert_eq!((repair.damage.len(), repair.quarantined.len()), (2, 1));
        assert_eq!(repair.verdict.missing, before.missing);
        assert_eq!((repair.verdict.messages, repair.verdict.damages), (28, 0));
        assert_eq!(overview(directory.path()).unwrap().quarantined.len(), 1);
    }

    #[test]
    fn a_log_with_an_owner_is_not_repaired_and_a_directory_without_a_log_neither() {
        let (directory, _) = log();
        let owner = Disk::open(directory.path()).unwrap();
        let _lock = owner.lock().unwrap();
        assert_eq!(repair(directory.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(verify(directory.path()).unwrap().is_sound());
        let empty = tempfile::tempdir().unwrap();
        for error in [repair(empty.path()).map(drop), verify(empty.path()).map(drop)] {
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing was made");
    }
}
