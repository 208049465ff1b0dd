//! A file that is there to be deleted.
//!
//! On a full disk nothing can be written any more, not even that something may be deleted, or what has been lost. So a piece of the disk
//! is held while there is room. When there is none it is given back: to the position, to what a failing disk makes us write a second
//! time, and to the reports of a bus about its losses.

use super::storage::Storage;
use std::io;

/// The name of the file.
pub(super) const NAME: &str = "EMERGENCY";

/// Its size.
pub(super) const BYTES: u64 = 1 << 20;

/// Whether we hold it.
#[derive(Debug)]
pub(super) struct Emergency {
    is_held: bool,
    bytes: u64,
}

impl Emergency {
    /// Of so many bytes; none are held yet. Only for tests it has another size than [`BYTES`].
    pub(super) fn new(bytes: u64) -> Self {
        Self { is_held: false, bytes }
    }

    /// What it takes of the disk.
    pub(super) fn bytes(&self) -> u64 {
        if self.is_held { self.bytes } else { 0 }
    }

    /// Takes the room, if it is to be had. Where room cannot be reserved there is nothing to be held.
    pub(super) fn take(&mut self, storage: &dyn Storage) {
        if self.is_held {
            return;
        }
        let taken = match storage.create(NAME) {
            Ok(mut file) => file.allocate(self.bytes),
            // Left over by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                storage.open(NAME, true).and_then(|mut file| file.allocate(self.bytes))
            }
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => self.is_held = true,
            // A file without the room is of no use. If it cannot be deleted either, it is empty.
            Err(_) => drop(storage.remove(NAME)),
        }
    }

    /// Gives the room back. Returns whether there was any to give.
    pub(super) fn release(&mut self, storage: &dyn Storage) -> bool {
        std::mem::take(&mut self.is_held) && storage.remove(NAME).is_ok()
    }
}
