//! `META`: whose directory this is, and in which format.
//!
//! ```text
//!   magic 8 │ version u16 │ 0, 6 bytes │ log 16 │ 0 … │ checksum u32      64 bytes
//! ```
//!
//! The id of the log is random. Every segment bears it, so a segment of another log is told from ours wherever it was copied to; and
//! if this file is lost or damaged, the segments still know it.
//!
//! **Versions.** What stands here is read by every later version, and what a later version puts here must be understood by this one: magic,
//! version, log and checksum keep their places and their meaning, in this file and in the header of a segment; all else may change. A
//! directory of another version is not damaged. Nobody reads it, repairs it, or adds to it who does not know that version.

use super::LogId;
use super::checksum::{Seed, array_at, u16_at, u32_at};
use super::segment::{self, Header};
use super::storage::{Storage, read_full};
use std::collections::BTreeMap;
use std::io;

/// The name of the file.
pub(super) const NAME: &str = "META";

const UNFINISHED: &str = "META.tmp";
pub(super) const BYTES: usize = 64;
const SUMMED: usize = BYTES - 4;
const MAGIC: [u8; 8] = *b"jetrlog\xF5";

/// Of the whole directory.
pub(super) const VERSION: u16 = 1;

/// Which log lies in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// As `META` says.
    Known(LogId),
    /// As most segments say; `META` is missing or damaged.
    Restored(LogId),
    /// Nothing says anything: a new directory, or one in which all is lost.
    None { is_damaged: bool },
}

impl Identity {
    pub(super) fn log(self) -> Option<LogId> {
        match self {
            Self::Known(log) | Self::Restored(log) => Some(log),
            Self::None { .. } => None,
        }
    }
}

fn encode(log: LogId) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    block[0..8].copy_from_slice(&MAGIC);
    block[8..10].copy_from_slice(&VERSION.to_le_bytes());
    block[16..32].copy_from_slice(&log.0);
    let sum = Seed::of_file(log, NAME).sum(0, &block[..SUMMED]);
    block[SUMMED..].copy_from_slice(&sum.to_le_bytes());
    block
}

/// The log and the version; none if the file is damaged.
fn decode(block: &[u8; BYTES]) -> Option<(LogId, u16)> {
    let log = LogId(array_at(block, 16));
    let sum = Seed::of_file(log, NAME).sum(0, &block[..SUMMED]);
    (block[0..8] == MAGIC && u32_at(block, SUMMED) == sum).then(|| (log, u16_at(block, 8)))
}

/// A log of this version is not for us.
pub(super) fn other_version(version: u16) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "the log in it has format version {version}, and this jetring reads version {VERSION}; nothing was changed: use the jetring that \
             wrote it, or give this one another directory"
        ),
    )
}

/// Finds out which log this is. An error of the kind [`io::ErrorKind::Unsupported`] if it has another version.
pub(super) fn identify(storage: &dyn Storage, names: &[String]) -> io::Result<Identity> {
    let mut block = [0; BYTES];
    let is_there = match storage.open(NAME, false) {
        Ok(file) => {
            let known = if read_full(&*file, &mut block, 0)? == BYTES { decode(&block) } else { None };
            match known {
                Some((_, version)) if version != VERSION => return Err(other_version(version)),
                // A file that has grown is no META of ours either.
                Some((log, _)) if file.len()? == BYTES as u64 => return Ok(Identity::Known(log)),
                Some(_) | None => true,
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    // The segments vote, since one of them may be a stranger.
    let mut votes: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for name in names.iter().filter(|name| segment::id_of(name).is_some()) {
        // A link or a pipe has no vote.
        match read_header(storage, name) {
            Ok((Some(header), _)) if header.version != VERSION => return Err(other_version(header.version)),
            Ok((Some(header), _)) => *votes.entry(header.log.0).or_default() += 1,
            Ok((None, _)) | Err(_) => {}
        }
    }
    Ok(match votes.into_iter().max_by_key(|&(_, votes)| votes) {
        Some((log, _)) => Identity::Restored(LogId(log)),
        None => Identity::None { is_damaged: is_there },
    })
}

/// The header of a segment, of whatever version; none if it is damaged. And the size of the file.
pub(super) fn read_header(storage: &dyn Storage, name: &str) -> io::Result<(Option<Header>, u64)> {
    let mut block = [0; segment::HEADER_BYTES];
    let file = storage.open(name, false)?;
    let read = read_full(&*file, &mut block, 0)?;
    let header = if read == block.len() { Header::decode(&block) } else { None };
    Ok((header, file.len()?))
}

/// Writes `META`, whole or not at all.
pub(super) fn write(storage: &dyn Storage, log: LogId) -> io::Result<()> {
    match storage.remove(UNFINISHED) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = storage.create(UNFINISHED)?;
    file.write_at(&[&encode(log)], 0)?;
    file.sync()?;
    storage.rename(UNFINISHED, NAME)?;
    storage.sync()
}
