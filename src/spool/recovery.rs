//! What is found when a log is opened, and put right.
//!
//! Of a large log only the last segment is read: it is the one that was being written when the process or the power went. If the log was not
//! closed, this segment is [written anew](super::renewal), without its torn tail. Damage in it, or in a header, sends a segment to
//! [quarantine](super::quarantine). What is older is read when somebody reads it, and `jetring spool verify` does.
//!
//! Nothing that lies in the directory prevents a start, but a log of [another version](super::meta). What cannot be put right is left as it is and told; a reader copes with it
//! anyway. Only a disk that refuses to sync does: then what is there might not be. And all of this may be interrupted at any place, and begun again.

use super::batch::Message;
use super::damage::{Damage, Kind, LISTED_MAX};
use super::log::Sealed;
use super::meta::{self, Identity};
use super::position::{Position, PositionFile};
use super::quarantine;
use super::renewal;
use super::segment;
use super::sent::{self, Sent, SentFile};
use super::slots::{self, Found};
use super::storage::{File, Storage, is_full, read_full};
use super::survey::{Survey, Surveyed};
use super::walk::{Event, Walk};
use super::{LogId, Ranges};
use crate::entropy;
use crate::foreign::contained;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// Bytes that are written over themselves at once.
const COPY_BYTES: usize = 64 << 10;

/// Damaged records of which it is kept what they say, and the bytes that this may be.
const REMAINS_MAX: usize = 4096;
const REMAINS_BYTES_MAX: usize = 1 << 10;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Whether its last owner did not close it.
    pub(crate) is_unclean: bool,
    /// What was damaged, the first 256 places. Torn tails are gone now; what could not be put right is still as it was.
    pub(crate) damage: Vec<Damage>,
    /// Sequences that are missing, as far as was looked.
    pub(crate) missing: Ranges,
    /// The names that damaged segments bear now.
    pub(crate) quarantined: Vec<String>,
    /// What could still be read of records that are missing now, the first of them.
    pub(crate) remains: Vec<Remains>,
}

/// What a record says that was damaged. Nothing of it can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    pub(crate) sequence: u64,
    pub(crate) subject: Box<[u8]>,
    pub(crate) headers: Box<[u8]>,
}

impl Remains {
    fn of(sequence: u64, record: &[u8]) -> Option<Self> {
        let Message { subject, headers, .. } = Message::decode_any(record)?;
        let is_small = subject.len() + headers.len() <= REMAINS_BYTES_MAX;
        is_small.then(|| Self { sequence, subject: subject.into(), headers: headers.into() })
    }
}

impl Recovery {
    fn note(&mut self, damage: Damage) {
        if self.damage.len() < LISTED_MAX {
            self.damage.push(damage);
        }
    }
}

/// A directory that is in order, with what its next owner must know.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) log: LogId,
    pub(super) position: PositionFile,
    /// There if anything of the log was ever sent on.
    pub(super) sent: Option<SentFile>,
    pub(super) segments: Vec<Sealed>,
    pub(super) next_id: u64,
    pub(super) next_sequence: u64,
    /// Bytes of the small files.
    pub(super) other_bytes: u64,
    /// Damaged segments that were put aside, and their sizes.
    pub(super) quarantined: Vec<(String, u64)>,
    pub(super) recovery: Recovery,
}

/// Puts a directory in order. The caller is its owner.
pub(super) fn recover(storage: &Arc<dyn Storage>) -> io::Result<Recovered> {
    let survey = Survey::take(&**storage)?;
    let log = establish(&**storage, survey.identity)?;
    let mut recovery = Recovery::default();
    survey.damage.iter().for_each(|damage| recovery.note(damage.clone()));
    for name in &survey.unfinished {
        forgive(storage.remove(name), "a file that was not finished cannot be deleted");
    }
    let highest = highest_id(storage)?;
    let is_closed = survey.position.content.is_some_and(|position| position.is_closed);
    recovery.is_unclean = !survey.segments.is_empty() && !is_closed;
    let (segments, end) = put_right(storage, log, &survey, &mut recovery)?;
    let start = segments.first().map_or(1, |segment| segment.first_sequence);
    let position = survey.position.content.unwrap_or(Position { start, ..Position::NEW });
    let next_sequence = end.max(position.end);
    let mut file = PositionFile::open(&**storage, log, survey.position, position)?;
    // What is there is on the disk now, and from here on it is missed when it is not.
    match file.write(Position { end: next_sequence, is_closed: false, ..position }) {
        Err(error) if !is_full(&error) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let sent = restore_sent(&**storage, log, survey.sent, position.start..next_sequence)?;
    let slot_files = 1 + u64::from(sent.is_some());
    // Those that were put aside now, too.
    let quarantined = Survey::take(&**storage)?.quarantined;
    Ok(Recovered {
        log,
        position: file,
        sent,
        segments,
        next_id: highest + 1,
        next_sequence,
        other_bytes: slot_files * slots::FILE_BYTES + meta::BYTES as u64,
        quarantined,
        recovery,
    })
}

/// What was sent on, put in accord with the log before anything is added to it: a log that has lost its end to a failure of the power goes on with
/// sequences that it had before, and of those nothing was confirmed. Where it cannot be read, all that there is may have been sent.
fn restore_sent(
    storage: &dyn Storage,
    log: LogId,
    found: Found<Sent>,
    sequences: std::ops::Range<u64>,
) -> io::Result<Option<SentFile>> {
    if !found.is_there && !found.is_damaged {
        return Ok(None);
    }
    // One that was made and not written yet is damaged, but nothing was handed out then.
    let mark = if found.is_there { sequences.end } else { sequences.start };
    // To which stream, when and how is not known either.
    let stream = if mark > sequences.start { sent::UNSEEN } else { 0 };
    let unknown = Sent { confirmed: sequences.start, mark, stream, is_packed: true, ..Sent::default() };
    let restored = found.content.unwrap_or(unknown).within(sequences);
    let mut file = SentFile::open(storage, log, found, restored)?;
    if found.content != Some(restored) || found.is_damaged {
        file.write(restored)?;
    }
    Ok(Some(file))
}

/// Which log this is, written down if it was not.
fn establish(storage: &dyn Storage, identity: Identity) -> io::Result<LogId> {
    let log = match identity {
        Identity::Known(log) => return Ok(log),
        Identity::Restored(log) => log,
        Identity::None { .. } => LogId(entropy::bytes()),
    };
    meta::write(storage, log)?;
    Ok(log)
}

/// The highest id that any file bears, a stranger's too: none is used twice.
fn highest_id(storage: &Arc<dyn Storage>) -> io::Result<u64> {
    let names = storage.names()?;
    let id = |name: &String| segment::id_of(name.split_inclusive(".seg").next().unwrap_or_default());
    Ok(names.iter().filter_map(id).max().unwrap_or(0))
}

/// Reads the last segment, and puts right what has to be. Returns the segments, and the sequence behind the last record. An error means
/// that the disk does not take what can be read of it.
fn put_right(
    storage: &Arc<dyn Storage>,
    log: LogId,
    survey: &Survey,
    recovery: &mut Recovery,
) -> io::Result<(Vec<Sealed>, u64)> {
    let mut walk = Walk::of_the_last(Arc::clone(storage), log, survey);
    let mut damaged = BTreeSet::new();
    while let Some(event) = walk.next()? {
        match event {
            Event::Record { .. } => {}
            Event::Missing(range) => {
                if recovery.remains.len() < REMAINS_MAX {
                    let remains = walk.remains().and_then(|record| Remains::of(range.start, record));
                    recovery.remains.extend(remains);
                }
                recovery.missing.add(range);
            }
            Event::Damage(damage) => {
                if damage.kind != Kind::Torn {
                    damaged.insert(damage.file.clone());
                }
                recovery.note(damage);
            }
        }
    }
    // The position has its part in this: what is missing behind the last record counts too.
    let next_sequence = walk.next_sequence().max(1);
    let mut segments: Vec<Sealed> = Vec::new();
    for segment in &survey.segments {
        let is_damaged = segment.header.is_none() || damaged.contains(&segment::name(segment.id));
        let last_end = walk.end().filter(|&(id, _)| id == segment.id).map(|(_, end)| end);
        let rest = match last_end {
            _ if is_damaged => put_aside(storage, log, segment, last_end, recovery)?,
            Some(end) if recovery.is_unclean || segment.bytes != end => renew(storage, log, segment, end)?,
            Some(_) | None => Rest::Same,
        };
        let (first_sequence, bytes) = match rest {
            Rest::Nothing => continue,
            Rest::New { first_sequence, bytes } => (first_sequence, bytes),
            Rest::Same => (segment.first_sequence().unwrap_or(segment.limit), segment.bytes),
        };
        segments.push(Sealed { id: segment.id, first_sequence, bytes });
    }
    // Whatever their headers say, they follow each other.
    let mut limit = next_sequence;
    for segment in segments.iter_mut().rev() {
        limit = segment.first_sequence.min(limit);
        segment.first_sequence = limit;
    }
    Ok((segments, next_sequence))
}

/// What there is of a segment now.
enum Rest {
    /// The same as before.
    Same,
    /// What was whole of it.
    New { first_sequence: u64, bytes: u64 },
    /// Nothing was.
    Nothing,
}

impl From<Option<(u64, u64)>> for Rest {
    fn from(rest: Option<(u64, u64)>) -> Self {
        rest.map_or(Self::Nothing, |(first_sequence, bytes)| Self::New { first_sequence, bytes })
    }
}

/// Sends a segment to quarantine. Where that cannot be done it stays, and readers cope with it.
fn put_aside(
    storage: &Arc<dyn Storage>,
    log: LogId,
    segment: &Surveyed,
    last_end: Option<u64>,
    recovery: &mut Recovery,
) -> io::Result<Rest> {
    let end = last_end.unwrap_or(u64::MAX);
    match quarantine::salvage(storage, log, segment.id, segment.header, end) {
        Ok(salvaged) => {
            recovery.quarantined.push(salvaged.name);
            Ok(salvaged.rest.into())
        }
        Err(error) => {
            let name = segment::name(segment.id);
            contained(
                || tracing::warn!(segment = %name, %error, "a damaged segment cannot be put aside; it is left as it is"),
            );
            if let Some(end) = last_end {
                let mut file = storage.open(&name, true)?;
                write_over(&mut *file, end)?;
                file.sync()?;
            }
            Ok(Rest::Same)
        }
    }
}

/// Writes a segment anew, which brings it to the disk, and leaves out what stands behind its last batch. On a full disk it is cut off and
/// written over itself where it is.
fn renew(storage: &Arc<dyn Storage>, log: LogId, segment: &Surveyed, end: u64) -> io::Result<Rest> {
    let renewed = renewal::write(storage, log, segment.id, segment.header, end)
        .and_then(|renewed| renewed.map(|renewed| renewed.appear(&**storage)).transpose());
    match renewed {
        Err(error) if is_full(&error) => {
            let mut file = storage.open(&segment::name(segment.id), true)?;
            file.set_len(end)?;
            write_over(&mut *file, end)?;
            file.sync()?;
            Ok(Rest::Same)
        }
        renewed => renewed.map(Rest::from),
    }
}

/// Writes what stands before `end` over itself, which needs no room. What a sync that failed has left behind is written down as done, and the next
/// sync would pass it over.
fn write_over(file: &mut dyn File, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < end {
        let wanted = (end - offset).min(COPY_BYTES as u64) as usize;
        let read = read_full(file, &mut buffer[..wanted], offset)?;
        if read == 0 {
            break;
        }
        file.write_at(&[&buffer[..read]], offset)?;
        offset += read as u64;
    }
    Ok(())
}

fn forgive<T>(result: io::Result<T>, what: &str) -> Option<T> {
    if let Err(error) = &result {
        contained(|| tracing::warn!(%error, "{what}; it is left as it is"));
    }
    result.ok()
}
