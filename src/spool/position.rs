//! Where the log begins and, at least, ends: a small file with two slots that are written in turn.
//!
//! ```text
//!   POSITION   offset 0: slot                      offset 4096: slot
//!              ┌───────┬──────────┬────────────┬───────┬─────┬─────────┬────────┬──────────┐
//!              │ magic │ checksum │ generation │ start │ end │ evicted │ closed │ 0        │  64 bytes
//!              └───────┴──────────┴────────────┴───────┴─────┴─────────┴────────┴──────────┘
//! ```
//!
//! The slot with the higher generation counts; a write that is cut off spoils the other one only. A slot is written after the data that it
//! speaks of is on the disk, and before anything is deleted.
//!
//! It is no second truth beside the segments. What they hold is what there is; a position only says from where on something *must* be
//! there, and up to where it must be, so that what is gone from either end is counted like a hole in the middle. Without it the
//! segments are read as they are.

use super::LogId;
use super::checksum::{Seed, array_at, u32_at, u64_at};
use super::storage::{File, Storage, read_full};
use std::io;

/// The name of the file.
pub(super) const NAME: &str = "POSITION";

/// A slot stands in a block of its own, so that a torn write of one leaves the other.
const SLOT_OFFSETS: [u64; 2] = [0, 4096];
const SLOT_BYTES: usize = 64;
/// The size of the file.
pub(super) const FILE_BYTES: u64 = 4096 + SLOT_BYTES as u64;

const MAGIC: u32 = 0xF5C1_9051;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The lowest sequence that the log still has to hold.
    pub(super) start: u64,
    /// The sequence after the last one that is known to be on the disk.
    pub(super) end: u64,
    /// How many sequences have been deleted to make room, since the log was made.
    pub(super) evicted: u64,
    /// Nothing was written after this.
    pub(super) is_closed: bool,
}

impl Position {
    /// Of a new log.
    pub(super) const NEW: Self = Self { start: 1, end: 1, evicted: 0, is_closed: false };

    fn encode(&self, generation: u64, seed: Seed, offset: u64) -> [u8; SLOT_BYTES] {
        let mut block = [0; SLOT_BYTES];
        block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&generation.to_le_bytes());
        block[16..24].copy_from_slice(&self.start.to_le_bytes());
        block[24..32].copy_from_slice(&self.end.to_le_bytes());
        block[32..40].copy_from_slice(&self.evicted.to_le_bytes());
        block[40] = u8::from(self.is_closed);
        let sum = seed.sum(offset, &block[8..]);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn decode(block: &[u8; SLOT_BYTES], seed: Seed, offset: u64) -> Option<(u64, Self)> {
        if u32_at(block, 0) != MAGIC || u32_at(block, 4) != seed.sum(offset, &block[8..]) {
            return None;
        }
        let position = Self {
            start: u64_at(block, 16),
            end: u64_at(block, 24),
            evicted: u64_at(block, 32),
            is_closed: block[40] == 1,
        };
        (position.start <= position.end).then_some((u64_at(block, 8), position))
    }
}

/// What was found in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The position that counts; none if no slot can be read.
    pub(super) position: Option<Position>,
    generation: u64,
    /// Something in the file is not as we write it.
    pub(super) is_damaged: bool,
}

impl Found {
    /// Reads the file. One that is not there, or cannot be read, says nothing.
    pub(super) fn read(storage: &dyn Storage, log: LogId) -> io::Result<Self> {
        match storage.open(NAME, false) {
            Ok(file) => Self::read_file(&*file, log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    fn read_file(file: &dyn File, log: LogId) -> io::Result<Self> {
        let seed = Seed::of_file(log, NAME);
        let mut bytes = [0; FILE_BYTES as usize];
        let read = read_full(file, &mut bytes, 0)?;
        let is_blank = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let gap = &bytes[SLOT_BYTES..SLOT_OFFSETS[1] as usize];
        let is_damaged = read != bytes.len() || file.len()? != FILE_BYTES || !is_blank(gap);
        let mut found = Self { is_damaged, ..Self::default() };
        for offset in SLOT_OFFSETS {
            let block = array_at(&bytes, offset as usize);
            match Position::decode(&block, seed, offset) {
                Some((generation, position)) if generation >= found.generation => {
                    found.generation = generation;
                    found.position = Some(position);
                }
                Some(_) => {}
                // A slot that was never written is zeros.
                None => found.is_damaged |= !is_blank(&block),
            }
        }
        Ok(found)
    }
}

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct PositionFile {
    file: Box<dyn File>,
    seed: Seed,
    generation: u64,
    position: Position,
}

impl PositionFile {
    /// Opens the file, or makes it, to go on from what was found there. What is damaged of it is written anew before long: the next
    /// position goes into the slot that did not count.
    pub(super) fn open(
        storage: &dyn Storage,
        log: LogId,
        found: Found,
        position: Position,
    ) -> io::Result<Self> {
        let mut file = match storage.open(NAME, true) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => storage.create(NAME)?,
            Err(error) => return Err(error),
        };
        if found.is_damaged {
            file.set_len(FILE_BYTES)?;
            file.write_at(&[&[0; SLOT_OFFSETS[1] as usize - SLOT_BYTES]], SLOT_BYTES as u64)?;
        }
        Ok(Self { file, seed: Seed::of_file(log, NAME), generation: found.generation, position })
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Makes `position` the one that counts. When this returns it is on the disk.
    pub(super) fn write(&mut self, position: Position) -> io::Result<()> {
        if self.file.len()? < FILE_BYTES {
            self.file.allocate(FILE_BYTES)?;
        }
        let generation = self.generation + 1;
        let offset = SLOT_OFFSETS[(generation % 2) as usize];
        self.file.write_at(&[&position.encode(generation, self.seed, offset)], offset)?;
        self.file.sync()?;
        self.generation = generation;
        self.position = position;
        Ok(())
    }
}
