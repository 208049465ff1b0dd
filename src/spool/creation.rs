//! How a segment comes into being: under another name, and renamed when it is whole and on the disk.
//!
//! So a file that is called as a segment has its header, however its process ended, and what must appear at once, does.

use super::batch::Batch;
use super::checksum::Seed;
use super::segment::{self, HEADER_BYTES, Header};
use super::storage::{File, Storage};
use std::borrow::BorrowMut;
use std::io;

/// How much of the disk a new segment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// As much as is written.
    Compact,
    /// So many bytes from the start, where that can be had. Then what is written later needs no room, and a sync no new size.
    Reserved(u64),
}

/// A segment that is written and does not bear its name yet.
#[derive(Debug)]
pub(super) struct Unfinished {
    name: String,
    pub(super) file: Box<dyn File>,
    /// Where the next batch goes.
    pub(super) offset: u64,
    /// The room that was reserved; 0 if none was.
    pub(super) reserved: u64,
}

impl Unfinished {
    /// Gives it its name, in the place of what bears that name.
    pub(super) fn appear(self, storage: &dyn Storage) -> io::Result<Box<dyn File>> {
        storage.rename(&unfinished(&self.name), &self.name)?;
        storage.sync()?;
        Ok(self.file)
    }
}

/// Writes a segment with these batches, whose sequences stand in them, and syncs it. If it fails, nothing is left of it.
pub(super) fn write<B: BorrowMut<Batch>>(
    storage: &dyn Storage,
    header: Header,
    layout: Layout,
    batches: impl IntoIterator<Item = io::Result<B>>,
) -> io::Result<Unfinished> {
    let name = segment::name(header.id);
    let written = try_write(storage, &name, header, layout, batches);
    if written.is_err() {
        // If it cannot be deleted, the next one who opens the log does it.
        drop(storage.remove(&unfinished(&name)));
    }
    written
}

fn try_write<B: BorrowMut<Batch>>(
    storage: &dyn Storage,
    name: &str,
    header: Header,
    layout: Layout,
    batches: impl IntoIterator<Item = io::Result<B>>,
) -> io::Result<Unfinished> {
    match storage.remove(&unfinished(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = storage.create(&unfinished(name))?;
    let mut reserved = 0;
    if let Layout::Reserved(bytes) = layout {
        match file.allocate(bytes) {
            Ok(()) => reserved = bytes,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
    }
    file.write_at(&[&header.encode()], 0)?;
    let (seed, mut offset) = (Seed::of_segment(header.log, header.id), HEADER_BYTES as u64);
    for batch in batches {
        let mut batch = batch?;
        let batch = batch.borrow_mut();
        file.write_at(&batch.seal(seed, offset)?, offset)?;
        offset += batch.bytes() as u64;
    }
    file.sync()?;
    Ok(Unfinished { name: name.to_owned(), file, offset, reserved })
}

fn unfinished(name: &str) -> String {
    format!("{name}{}", segment::UNFINISHED)
}
