//! Where the log begins and, at least, ends: a [file of two slots](super::slots).
//!
//! ```text
//!   POSITION   what a slot says:  start │ end │ evicted │ closed │ 0
//! ```
//!
//! A slot is written after the data that it speaks of is on the disk, and before anything is deleted.
//!
//! It is no second truth beside the segments. What they hold is what there is; a position only says from where on something *must* be
//! there, and up to where it must be, so that what is gone from either end is counted like a hole in the middle. Without it the
//! segments are read as they are.

use super::checksum::u64_at;
use super::number::sequence_at;
use super::slots::{Block, Content, SlotFile};

/// The name of the file.
pub(super) const NAME: &str = Position::NAME;

/// The file, open for writing.
pub(super) type PositionFile = SlotFile<Position>;

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
}

impl Content for Position {
    const NAME: &str = "POSITION";
    const MAGIC: u32 = 0xF5C1_9051;

    fn encode(&self) -> Block {
        let mut block = [0; size_of::<Block>()];
        block[0..8].copy_from_slice(&self.start.to_le_bytes());
        block[8..16].copy_from_slice(&self.end.to_le_bytes());
        block[16..24].copy_from_slice(&self.evicted.to_le_bytes());
        block[24] = u8::from(self.is_closed);
        block
    }

    fn decode(magic: u32, block: &Block) -> Option<Self> {
        let position = Self {
            start: sequence_at(block, 0)?,
            end: sequence_at(block, 8)?,
            evicted: u64_at(block, 16),
            is_closed: block[24] == 1,
        };
        (magic == Self::MAGIC && (1..=position.end).contains(&position.start)).then_some(position)
    }
}
