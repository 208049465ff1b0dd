//! All that the log asks of a file system, so that a test can be one.
//!
//! [`disk`] is the real thing. `memory` is a disk for tests that remembers what it was told to keep and forgets the rest, in torn blocks,
//! when the power fails; it runs full, and refuses to write or to sync when it is told to.
//!
//! A storage is one flat directory. Names are ours and have no separators.

pub(crate) mod disk;
#[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
pub(crate) mod memory;

use std::fmt;
use std::io;

/// One directory.
pub(crate) trait Storage: fmt::Debug + Send + Sync {
    /// The names of what is in it, in any order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a file that must not be there yet, and opens it for writing and reading.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file that must be there, and be a plain file of ours: no link, no pipe.
    fn open(&self, name: &str, for_writing: bool) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, and replaces what bore it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Gives a file a second name, which must be free.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when all names are on the disk as they are now.
    fn sync(&self) -> io::Result<()>;

    /// How much room the disk has.
    fn space(&self) -> io::Result<Space>;

    /// Becomes the one owner, for as long as the result lives. [`io::ErrorKind::WouldBlock`] if there is one.
    fn lock(&self) -> io::Result<Box<dyn Ownership>>;
}

/// An open file.
pub(crate) trait File: fmt::Debug + Send {
    fn len(&self) -> io::Result<u64>;

    /// Reads what there is at `offset`, which may be less than asked for, and nothing at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all parts, one behind the other.
    fn write_at(&mut self, parts: &[&[u8]], offset: u64) -> io::Result<()>;

    /// Reserves room up to `bytes`, and fills it with zeros. [`io::ErrorKind::Unsupported`] where that cannot be done; then the file is as
    /// it was.
    fn allocate(&mut self, bytes: u64) -> io::Result<()>;

    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Returns when all that was written, and the size, is on the disk.
    fn sync(&mut self) -> io::Result<()>;

    /// The next place from `offset` on where anything may have been written; `None` if nothing was up to the end. The rest of a file is zeros that
    /// take no room, however many of them it says it has.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Whether the file has a name still. What is written to one that has none is lost.
    fn is_linked(&self) -> io::Result<bool>;
}

/// Proof of being the one owner.
pub(crate) trait Ownership: fmt::Debug + Send {}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
    /// Files that can still be made.
    pub(crate) files: u64,
}

/// Reads until the buffer is full or the file ends; returns how much it was.
pub(super) fn read_full(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64)? {
            0 => break,
            more => read += more,
        }
    }
    Ok(read)
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
