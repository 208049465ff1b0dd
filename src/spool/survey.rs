//! What lies in the directory of a log, by its names and the first bytes of each segment.
//!
//! This is all that opening a log needs of any segment but the last, so it takes as long for a gigabyte as for nothing.

use super::LogId;
use super::damage::{Damage, Kind};
use super::meta::{self, Identity, VERSION};
use super::position::{self, Position};
use super::segment::{self, Header};
use super::sent::{self, Sent};
use super::slots::Found;
use super::storage::Storage;
use std::io;

/// The end of a damaged segment's name, before its number.
pub(super) const QUARANTINED: &str = ".corrupt-";

/// The names of the other files that belong here.
const OURS: [&str; 5] = [meta::NAME, position::NAME, sent::NAME, super::emergency::NAME, LOCK];
const LOCK: &str = "LOCK";

/// A directory as it was when it was looked at.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) identity: Identity,
    pub(super) position: Found<Position>,
    pub(super) sent: Found<Sent>,
    /// In the order of their ids.
    pub(super) segments: Vec<Surveyed>,
    /// Files that were not finished when their process ended.
    pub(super) unfinished: Vec<String>,
    /// Damaged segments that were put aside, and their sizes.
    pub(super) quarantined: Vec<(String, u64)>,
    /// Files that are no segments of this log.
    pub(super) strangers: Vec<String>,
    /// What is wrong with the files, without having read them.
    pub(super) damage: Vec<Damage>,
}

/// A segment that belongs to this log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surveyed {
    pub(super) id: u64,
    /// None if it is damaged.
    pub(super) header: Option<Header>,
    /// The size of the file.
    pub(super) bytes: u64,
    /// What it holds from this sequence on was written again in a later one.
    pub(super) limit: u64,
}

impl Surveyed {
    /// Where it begins, if its header says so. A header may name a sequence that it has no right to.
    pub(super) fn first_sequence(&self) -> Option<u64> {
        self.header.map(|header| header.first_sequence.min(self.limit))
    }
}

impl Survey {
    pub(super) fn take(storage: &dyn Storage) -> io::Result<Self> {
        let mut names = storage.names()?;
        names.sort();
        let identity = meta::identify(storage, &names)?;
        let log = identity.log();
        let (position, sent) = match log {
            Some(log) => (Found::read(storage, log)?, Found::read(storage, log)?),
            None => (Found::NOTHING, Found::NOTHING),
        };
        let mut survey = Self {
            identity,
            position,
            sent,
            segments: Vec::new(),
            unfinished: Vec::new(),
            quarantined: Vec::new(),
            strangers: Vec::new(),
            damage: Vec::new(),
        };
        survey.note_small_files(&names);
        for name in names {
            survey.add(storage, log, name)?;
        }
        survey.set_limits();
        Ok(survey)
    }

    /// The log; none if the directory holds none.
    pub(super) fn log(&self) -> Option<LogId> {
        self.identity.log()
    }

    /// Of each segment, from which sequence on it is overruled by a later one.
    fn set_limits(&mut self) {
        let mut limit = u64::MAX;
        for segment in self.segments.iter_mut().rev() {
            segment.limit = limit;
            limit = segment.header.map_or(limit, |header| header.first_sequence.min(limit));
        }
    }

    fn note_small_files(&mut self, names: &[String]) {
        let is_damaged = match self.identity {
            Identity::Known(_) => false,
            Identity::Restored(_) => true,
            Identity::None { is_damaged } => is_damaged,
        };
        if is_damaged {
            self.damage.push(Damage::of_file(meta::NAME, Kind::Meta));
        }
        // A log that has a segment, or the file, had a position before.
        let is_due = |name: &String| name == position::NAME || segment::id_of(name).is_some();
        let is_lost = self.position.content.is_none() && self.log().is_some() && names.iter().any(is_due);
        if self.position.is_damaged || is_lost {
            self.damage.push(Damage::of_file(position::NAME, Kind::Position));
        }
        if self.sent.is_damaged {
            self.damage.push(Damage::of_file(sent::NAME, Kind::Sent));
        }
    }

    fn add(&mut self, storage: &dyn Storage, log: Option<LogId>, name: String) -> io::Result<()> {
        if OURS.contains(&name.as_str()) {
            return Ok(());
        }
        if is_unfinished(&name) {
            self.unfinished.push(name);
            return Ok(());
        }
        if is_quarantined(&name) {
            let bytes = storage.open(&name, false).and_then(|file| file.len()).unwrap_or(0);
            self.quarantined.push((name, bytes));
            return Ok(());
        }
        let Some(id) = segment::id_of(&name) else {
            self.strangers.push(name);
            return Ok(());
        };
        let (header, bytes) = match meta::read_header(storage, &name) {
            Ok(found) => found,
            // Deleted since the directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A link, a pipe, somebody else's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.damage.push(Damage::of_file(&name, Kind::Stranger));
                self.strangers.push(name);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(header) = header.filter(|header| Some(header.log) == log && header.version != VERSION) {
            return Err(meta::other_version(header.version));
        }
        let is_ours = |header: Header| Some(header.log) == log && header.id == id;
        if log.is_some() && header.is_none_or(is_ours) {
            if header.is_none() {
                self.damage.push(Damage {
                    bytes: segment::HEADER_BYTES as u64,
                    ..Damage::of_file(&name, Kind::Header)
                });
            }
            self.segments.push(Surveyed { id, header, bytes, limit: u64::MAX });
        } else {
            self.damage.push(Damage::of_file(&name, Kind::Stranger));
            self.strangers.push(name);
        }
        Ok(())
    }
}

/// Whether a file of this name is one of ours in the making. Others may have files that end so.
fn is_unfinished(name: &str) -> bool {
    let finished = name.strip_suffix(segment::UNFINISHED);
    finished.is_some_and(|finished| finished == meta::NAME || segment::id_of(finished).is_some())
}

/// Whether a file of this name is a damaged segment that we have put aside.
fn is_quarantined(name: &str) -> bool {
    let parts = name.split_once(QUARANTINED);
    parts.is_some_and(|(segment, number)| segment::id_of(segment).is_some() && number.parse::<u32>().is_ok())
}
