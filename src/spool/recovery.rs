//! What is found when a log is opened, and put right.
//!
//! Of a large log only the last segment is read: it is the one that was being written when the process or the power went. A torn tail is
//! cut off. Damage in it, or in a header, sends the segment to [quarantine](super::quarantine). What is older is read when
//! somebody reads it, and `jetring spool verify` does.
//!
//! Nothing that lies in the directory prevents a start. What cannot be put right is left as it is and told; a reader copes with it
//! anyway. And all of this may be interrupted at any place, and begun again.

use super::damage::{Damage, Kind};
use super::log::Sealed;
use super::meta::{self, Identity};
use super::position::{Position, PositionFile};
use super::quarantine;
use super::segment;
use super::storage::Storage;
use super::survey::{Survey, Surveyed};
use super::walk::{Event, Walk};
use super::{LogId, Ranges};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    /// Whether its last owner did not close it.
    pub(crate) is_unclean: bool,
    /// What was damaged. Torn tails are gone now; what could not be put right is still as it was.
    pub(crate) damage: Vec<Damage>,
    /// Sequences that are missing, as far as was looked.
    pub(crate) missing: Ranges,
    /// The names that damaged segments bear now.
    pub(crate) quarantined: Vec<String>,
}

/// A directory that is in order, with what its next owner must know.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) log: LogId,
    pub(super) position: PositionFile,
    pub(super) segments: Vec<Sealed>,
    pub(super) next_id: u64,
    pub(super) next_sequence: u64,
    /// Bytes of files that are no segments.
    pub(super) other_bytes: u64,
    pub(super) recovery: Recovery,
}

/// Puts a directory in order. The caller is its owner.
pub(super) fn recover(storage: &Arc<dyn Storage>) -> io::Result<Recovered> {
    let survey = Survey::take(&**storage)?;
    let log = establish(&**storage, survey.identity)?;
    let mut recovery = Recovery { damage: survey.damage.clone(), ..Recovery::default() };
    for name in &survey.unfinished {
        forgive(storage.remove(name), "a file that was not finished cannot be deleted");
    }
    let last_id = survey.segments.last().map(|segment| segment.id);
    let highest = highest_id(storage)?;
    let (segments, end) = put_right(storage, log, &survey, &mut recovery)?;
    let start = segments.first().map_or(1, |segment| segment.first_sequence);
    let position = survey.position.position.unwrap_or(Position { start, ..Position::NEW });
    let next_sequence = end.max(position.end);
    recovery.is_unclean =
        last_id.is_some() && !survey.position.position.is_some_and(|position| position.is_closed);
    let mut file = PositionFile::open(&**storage, log, survey.position, position)?;
    // What is there is on the disk now, and from here on it is missed when it is not.
    let opened = Position { end: next_sequence, is_closed: false, ..position };
    forgive(file.write(opened), "the position cannot be written");
    let quarantined = survey.quarantined.iter().map(|(_, bytes)| bytes).sum::<u64>();
    Ok(Recovered {
        log,
        position: file,
        segments,
        next_id: highest + 1,
        next_sequence,
        other_bytes: quarantined + super::position::FILE_BYTES + meta::BYTES as u64,
        recovery,
    })
}

/// Which log this is, written down if it was not.
fn establish(storage: &dyn Storage, identity: Identity) -> io::Result<LogId> {
    let log = match identity {
        Identity::Known(log) => return Ok(log),
        Identity::Restored(log) => log,
        Identity::None { .. } => LogId(rand::random()),
    };
    meta::write(storage, log)?;
    Ok(log)
}

/// The highest id that any file bears, a stranger's too: none is used twice.
fn highest_id(storage: &Arc<dyn Storage>) -> io::Result<u64> {
    let names = storage.names()?;
    let id = |name: &String| segment::id_of(name.split_inclusive(".seg").next().unwrap_or_default());
    // The very highest is not given out by us, so it is somebody else's joke.
    Ok(names.iter().filter_map(id).filter(|&id| id < u64::MAX / 2).max().unwrap_or(0))
}

/// Puts the segments right, and reads the last one. Returns them, and the sequence behind the last record.
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
            Event::Missing(range) => recovery.missing.add(range),
            Event::Damage(damage) => {
                if damage.kind != Kind::Torn {
                    damaged.insert(damage.file.clone());
                }
                recovery.damage.push(damage);
            }
        }
    }
    // The position has its part in this: what is missing behind the last record counts too.
    let end = walk.next_sequence().max(1);
    let mut segments = Vec::new();
    for (index, segment) in survey.segments.iter().enumerate() {
        let mut sealed = Sealed {
            id: segment.id,
            first_sequence: segment
                .header
                .map_or_else(|| survey.limit(index).min(end), |header| header.first_sequence),
            bytes: segment.bytes,
        };
        if segment.header.is_none() || damaged.contains(&segment::name(segment.id)) {
            let Some(rest) = put_aside(storage, log, segment, recovery) else { continue };
            (sealed.first_sequence, sealed.bytes) = rest.unwrap_or((sealed.first_sequence, sealed.bytes));
        } else if let Some((_, end)) = walk.end().filter(|&(id, _)| id == segment.id) {
            sealed.bytes = cut_off(&**storage, segment, end).unwrap_or(sealed.bytes);
        }
        segments.push(sealed);
    }
    Ok((segments, end))
}

/// Sends a segment to quarantine; returns what takes its place, if it is not the segment itself, for want of a better. None if nothing
/// takes its place.
#[expect(clippy::option_option, reason = "what is left of it, whether that is new, and what")]
fn put_aside(
    storage: &Arc<dyn Storage>,
    log: LogId,
    segment: &Surveyed,
    recovery: &mut Recovery,
) -> Option<Option<(u64, u64)>> {
    match quarantine::salvage(storage, log, segment.id, segment.header) {
        Ok(salvaged) => {
            recovery.quarantined.push(salvaged.name);
            salvaged.rest.map(Some)
        }
        Err(error) => {
            let name = segment::name(segment.id);
            tracing::warn!(segment = %name, %error, "a damaged segment cannot be put aside; it is left as it is");
            Some(None)
        }
    }
}

/// Cuts a segment off where its last batch ends, and makes sure that the rest is on the disk.
fn cut_off(storage: &dyn Storage, segment: &Surveyed, end: u64) -> Option<u64> {
    let cut = || {
        let mut file = storage.open(&segment::name(segment.id), true)?;
        if segment.bytes > end {
            file.set_len(end)?;
        }
        file.sync()
    };
    forgive(cut(), "the end of the last segment cannot be cut off").map(|()| segment.bytes.min(end))
}

fn forgive<T>(result: io::Result<T>, what: &str) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "{what}; it is left as it is")).ok()
}
