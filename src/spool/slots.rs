//! A small file with two slots that are written in turn.
//!
//! ```text
//!   offset 0: slot                                       offset 4096: slot
//!   ┌───────┬──────────┬────────────┬──────────────┐
//!   │ magic │ checksum │ generation │ what it says │     64 bytes
//!   └───────┴──────────┴────────────┴──────────────┘
//! ```
//!
//! The slot with the higher generation counts; a write that is cut off spoils the other one only.

use super::LogId;
use super::checksum::{Seed, array_at, u32_at, u64_at};
use super::storage::{File, Storage, read_full};
use std::io;

/// A slot stands in a block of its own, so that a torn write of one leaves the other.
pub(super) const OFFSETS: [u64; 2] = [0, 4096];
const SLOT_BYTES: usize = 64;
const HEAD_BYTES: usize = 16;

/// The size of the file.
pub(super) const FILE_BYTES: u64 = 4096 + SLOT_BYTES as u64;

/// What a slot has room for.
pub(super) type Block = [u8; SLOT_BYTES - HEAD_BYTES];

/// What a slot says.
pub(super) trait Content: Copy {
    /// The name of the file.
    const NAME: &str;
    /// Of what is written now.
    const MAGIC: u32;

    fn encode(&self) -> Block;

    /// Reads a block with this magic. `None` if nothing of the kind is ever written.
    fn decode(magic: u32, block: &Block) -> Option<Self>;
}

/// What was found in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    /// What counts; none if no slot can be read.
    pub(super) content: Option<T>,
    generation: u64,
    /// There is such a file, and something was written to it.
    pub(super) is_there: bool,
    /// Something in the file is not as we write it.
    pub(super) is_damaged: bool,
}

impl<T> Found<T> {
    pub(super) const NOTHING: Self =
        Self { content: None, generation: 0, is_there: false, is_damaged: false };
}

impl<T: Content> Found<T> {
    /// Reads the file. One that is not there, or cannot be read, says nothing.
    pub(super) fn read(storage: &dyn Storage, log: LogId) -> io::Result<Self> {
        match storage.open(T::NAME, false) {
            Ok(file) => Self::read_file(&*file, log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::NOTHING),
            Err(error) => Err(error),
        }
    }

    fn read_file(file: &dyn File, log: LogId) -> io::Result<Self> {
        let seed = Seed::of_file(log, T::NAME);
        let mut bytes = [0; FILE_BYTES as usize];
        let read = read_full(file, &mut bytes, 0)?;
        let is_blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let gap = &bytes[SLOT_BYTES..OFFSETS[1] as usize];
        let is_damaged = read != bytes.len() || file.len()? != FILE_BYTES || !is_blank(gap);
        let mut found = Self { is_there: !is_blank(&bytes), is_damaged, ..Self::NOTHING };
        for offset in OFFSETS {
            let slot = array_at(&bytes, offset as usize);
            match decode(&slot, seed, offset) {
                Some((generation, content)) if generation >= found.generation => {
                    found.generation = generation;
                    found.content = Some(content);
                }
                Some(_) => {}
                // A slot that was never written is zeros.
                None => found.is_damaged |= !is_blank(&slot),
            }
        }
        Ok(found)
    }
}

pub(super) fn encode<T: Content>(content: &T, generation: u64, seed: Seed, offset: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[0..4].copy_from_slice(&T::MAGIC.to_le_bytes());
    slot[8..16].copy_from_slice(&generation.to_le_bytes());
    slot[HEAD_BYTES..].copy_from_slice(&content.encode());
    let sum = seed.sum(offset, &slot[8..]);
    slot[4..8].copy_from_slice(&sum.to_le_bytes());
    slot
}

fn decode<T: Content>(slot: &[u8; SLOT_BYTES], seed: Seed, offset: u64) -> Option<(u64, T)> {
    if u32_at(slot, 4) != seed.sum(offset, &slot[8..]) {
        return None;
    }
    let content = T::decode(u32_at(slot, 0), &array_at(slot, HEAD_BYTES))?;
    Some((u64_at(slot, 8), content))
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct SlotFile<T> {
    file: Box<dyn File>,
    seed: Seed,
    generation: u64,
    content: T,
}

impl<T: Content> SlotFile<T> {
    /// Opens the file, or makes it, to go on from what was found there. What is damaged of it is written anew before long: what is written
    /// next goes into the slot that did not count.
    pub(super) fn open(storage: &dyn Storage, log: LogId, found: Found<T>, content: T) -> io::Result<Self> {
        let mut file = match storage.open(T::NAME, true) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create(T::NAME)?,
            Err(error) => return Err(error),
        };
        if found.is_damaged {
            file.set_len(FILE_BYTES)?;
            file.write_at(&[&[0; OFFSETS[1] as usize - SLOT_BYTES]], SLOT_BYTES as u64)?;
        }
        Ok(Self { file, seed: Seed::of_file(log, T::NAME), generation: found.generation, content })
    }

    /// What counts.
    pub(super) fn content(&self) -> T {
        self.content
    }

    /// Makes `content` the one that counts. When this returns it is on the disk.
    pub(super) fn write(&mut self, content: T) -> io::Result<()> {
        if self.file.len()? < FILE_BYTES {
            self.file.allocate(FILE_BYTES)?;
        }
        // Only a generation that somebody else has written can be the last one.
        let generation = self.generation.checked_add(1).unwrap_or(1);
        let offset = OFFSETS[(generation % 2) as usize];
        self.file.write_at(&[&encode(&content, generation, self.seed, offset)], offset)?;
        self.file.sync()?;
        if generation < self.generation {
            // We count from the start, and the other slot must not count any more.
            let other = OFFSETS[((generation + 1) % 2) as usize];
            self.file.write_at(&[&[0; SLOT_BYTES]], other)?;
            self.file.sync()?;
        }
        self.generation = generation;
        self.content = content;
        Ok(())
    }
}
