//! A damaged segment is put aside, and what is whole of it written anew.
//!
//! ```text
//!   2a.seg (damaged)                   2a.seg.tmp    records that are whole      1. write, sync
//!   2a.seg.corrupt-0 ── same file                                                2. a second name for the damaged file
//!   2a.seg ◄────────────────────────── 2a.seg.tmp                                3. rename over the first, sync the directory
//! ```
//!
//! The order matters: at each moment `2a.seg` is either the damaged file or the whole new one, so a crash in between loses nothing, and
//! doing it again comes to the same end. Only bytes whose checksum was right get a new one. The sequences of the records stay as they were,
//! so what is missing stays visible as a hole, for ever. The damaged file is kept for people to look at. It counts for the quota until events need its room;
//! then it is deleted.

use super::LogId;
use super::renewal;
use super::segment::{self, Header};
use super::storage::Storage;
use super::survey::QUARANTINED;
use std::io;
use std::sync::Arc;

/// Names that are tried for a damaged segment.
const NAMES_MAX: u32 = 1000;

/// What has become of a damaged segment.
#[derive(Debug)]
pub(super) struct Salvaged {
    /// The name that the damaged file bears now.
    pub(super) name: String,
    /// The first sequence and the size of what takes its place; nothing does if nothing was whole.
    pub(super) rest: Option<(u64, u64)>,
}

/// Does it, with what stands before `end`.
pub(super) fn salvage(
    storage: &Arc<dyn Storage>,
    log: LogId,
    id: u64,
    header: Option<Header>,
    end: u64,
) -> io::Result<Salvaged> {
    let name = segment::name(id);
    let Some(renewed) = renewal::write(storage, log, id, header, end)? else {
        let quarantined = aside(&**storage, &name)?;
        storage.remove(&name)?;
        storage.sync()?;
        return Ok(Salvaged { name: quarantined, rest: None });
    };
    let quarantined = aside(&**storage, &name)?;
    Ok(Salvaged { name: quarantined, rest: Some(renewed.appear(&**storage)?) })
}

/// Gives a file a second name by which it is no segment.
pub(super) fn aside(storage: &dyn Storage, name: &str) -> io::Result<String> {
    for number in 0..NAMES_MAX {
        let quarantined = format!("{name}{QUARANTINED}{number}");
        match storage.link(name, &quarantined) {
            Ok(()) => return Ok(quarantined),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "{NAMES_MAX} damaged copies of {name} are there; delete those that nobody needs"
    )))
}
