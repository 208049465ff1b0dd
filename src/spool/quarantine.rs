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
//! so what is missing stays visible as a hole, for ever. The damaged file is kept for people to look at, and counts for the quota.

use super::LogId;
use super::batch::Batch;
use super::creation::{self, Layout};
use super::scan::{Found, Scanner};
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

/// Does it. Without a header the segment begins with its first whole record.
pub(super) fn salvage(
    storage: &Arc<dyn Storage>,
    log: LogId,
    id: u64,
    header: Option<Header>,
) -> io::Result<Salvaged> {
    let name = segment::name(id);
    let scanner = || Ok::<_, io::Error>(Scanner::new(storage.open(&name, false)?, log, id));
    let header = match header {
        Some(header) => header,
        None => match whole_batches(scanner()?).next().transpose()? {
            Some(batch) => Header { log, id, first_sequence: batch.sequences().start, made_at: 0 },
            None => {
                let quarantined = aside(&**storage, &name)?;
                storage.remove(&name)?;
                storage.sync()?;
                return Ok(Salvaged { name: quarantined, rest: None });
            }
        },
    };
    let written = creation::write(&**storage, header, Layout::Compact, whole_batches(scanner()?))?;
    let quarantined = aside(&**storage, &name)?;
    let bytes = written.offset;
    written.appear(&**storage)?;
    Ok(Salvaged { name: quarantined, rest: Some((header.first_sequence, bytes)) })
}

/// The records of a segment that are whole, with their sequences.
fn whole_batches(mut scanner: Scanner) -> impl Iterator<Item = io::Result<Batch>> {
    let mut batches = Vec::new();
    std::iter::from_fn(move || {
        loop {
            if let Some(batch) = batches.pop() {
                return Some(Ok(batch));
            }
            match scanner.next() {
                Ok(Found::Batch(found)) => {
                    let mut at_hand = Batch::default();
                    for (sequence, range) in found.head.sequences().zip(&found.checked.records) {
                        match range {
                            Some(range) => {
                                if at_hand.is_empty() {
                                    at_hand.set_first_sequence(sequence);
                                }
                                at_hand.push_record(scanner.record(range.clone()));
                            }
                            None if at_hand.is_empty() => {}
                            None => batches.push(std::mem::take(&mut at_hand)),
                        }
                    }
                    if !at_hand.is_empty() {
                        batches.push(at_hand);
                    }
                    // They are taken from the end.
                    batches.reverse();
                }
                Ok(Found::Damage(_)) => {}
                Ok(Found::End(_)) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    })
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
