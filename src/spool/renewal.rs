//! What is whole of a segment is written anew, under the same name and with the same sequences.
//!
//! So it is with a damaged one, which goes to [quarantine](super::quarantine). And so it is with the last segment of an owner who did not
//! close the log: after a sync that failed the system may show pages that are not on the disk, and no later sync brings them there.
//! Who was killed then cannot have told us. So what can be read is written again, and synced; then it is there.

use super::LogId;
use super::batch::Batch;
use super::creation::{self, Layout, Unfinished};
use super::scan::{Found, Scanner};
use super::segment::{self, Header};
use super::storage::Storage;
use std::io;
use std::sync::Arc;

/// A segment that is written anew, and does not bear its name yet.
#[derive(Debug)]
pub(super) struct Renewed {
    unfinished: Unfinished,
    first_sequence: u64,
}

impl Renewed {
    /// Gives it its name. Returns its first sequence and its size.
    pub(super) fn appear(self, storage: &dyn Storage) -> io::Result<(u64, u64)> {
        let bytes = self.unfinished.offset;
        self.unfinished.appear(storage)?;
        Ok((self.first_sequence, bytes))
    }
}

/// Writes it, with what stands before `end`. Without a header it begins with its first whole record; none if there is none.
pub(super) fn write(
    storage: &Arc<dyn Storage>,
    log: LogId,
    id: u64,
    header: Option<Header>,
    end: u64,
) -> io::Result<Option<Renewed>> {
    let batches = || {
        let file = storage.open(&segment::name(id), false)?;
        Ok::<_, io::Error>(whole_batches(Scanner::new(file, log, id), end))
    };
    let header = match header {
        Some(header) => header,
        None => match batches()?.next().transpose()? {
            Some(batch) => Header::new(log, id, batch.sequences().start, 0),
            None => return Ok(None),
        },
    };
    let unfinished = creation::write(&**storage, header, Layout::Compact, batches()?)?;
    Ok(Some(Renewed { unfinished, first_sequence: header.first_sequence }))
}

/// The records of a segment that are whole, with their sequences, up to a place.
fn whole_batches(mut scanner: Scanner, end: u64) -> impl Iterator<Item = io::Result<Batch>> {
    let mut batches = Vec::new();
    std::iter::from_fn(move || {
        loop {
            if let Some(batch) = batches.pop() {
                return Some(Ok(batch));
            }
            match scanner.next() {
                Ok(Found::Batch(found)) if found.offset >= end => return None,
                Ok(Found::Batch(found)) => {
                    let mut at_hand = Batch::default();
                    for (sequence, range) in found.head.sequences().zip(&found.checked.records) {
                        match range {
                            Some(range) => {
                                if at_hand.is_full() {
                                    batches.push(std::mem::take(&mut at_hand));
                                }
                                if at_hand.is_empty() {
                                    at_hand.set_first_sequence(sequence);
                                }
                                let record = scanner.record(range.clone());
                                let pushed = at_hand.room().map(|room| room.push_record(record));
                                debug_assert_eq!(pushed, Some(Ok(())), "it was read out of a batch");
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
