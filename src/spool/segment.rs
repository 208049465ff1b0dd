//! What a segment is called, and how it begins.
//!
//! ```text
//!   000000000000002a.seg
//!   ┌───────┬─────────┬──────────┬───────────┬─────────┬────────────────┬─────────┬──────────┐
//!   │ magic │ version │ reserved │ log       │ id      │ first sequence │ made at │ checksum │
//!   │ 8     │ u16     │ 6        │ 16        │ u64     │ u64            │ u64     │ …, u32   │   64 bytes
//!   └───────┴─────────┴──────────┴───────────┴─────────┴────────────────┴─────────┴──────────┘
//! ```
//!
//! Ids count up for ever and are never used twice, so the order of names is the order of segments, and nothing wraps. The first sequence says
//! where the segment before must have ended, which is how a loss at its end is counted exactly. It also rules: what an older segment holds from
//! this sequence on was written again here, because the disk had refused to keep it there.

use super::LogId;
use super::checksum::{Seed, array_at, u16_at, u32_at, u64_at};
use super::meta::VERSION;
use super::number::{self, sequence_at};

/// The bytes that a segment begins with.
pub(super) const HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"jetring\xF5";
const SUMMED: usize = HEADER_BYTES - 4;

/// The end of a segment's name.
const EXTENSION: &str = ".seg";

/// The end of a name that a segment bears until it is whole.
pub(super) const UNFINISHED: &str = ".tmp";

/// What stands in the header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// As in [`META`](super::meta). Of another one nothing but the log is known.
    pub(super) version: u16,
    pub(super) log: LogId,
    pub(super) id: u64,
    pub(super) first_sequence: u64,
    /// Nanoseconds since 1970 by the clock of the machine. It is shown to people, and nothing is decided by it.
    pub(super) made_at: u64,
}

impl Header {
    pub(super) fn new(log: LogId, id: u64, first_sequence: u64, made_at: u64) -> Self {
        Self { version: VERSION, log, id, first_sequence, made_at }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut block = [0; HEADER_BYTES];
        block[0..8].copy_from_slice(&MAGIC);
        block[8..10].copy_from_slice(&self.version.to_le_bytes());
        block[16..32].copy_from_slice(&self.log.0);
        block[32..40].copy_from_slice(&self.id.to_le_bytes());
        block[40..48].copy_from_slice(&self.first_sequence.to_le_bytes());
        block[48..56].copy_from_slice(&self.made_at.to_le_bytes());
        let sum = Seed::of_segment(self.log, self.id).sum(0, &block[..SUMMED]);
        block[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a header; what is none is `None`. Whether it is of this log and version, and of the file that it stands in, is for the caller to see.
    pub(super) fn decode(block: &[u8; HEADER_BYTES]) -> Option<Self> {
        let header = Self {
            version: u16_at(block, 8),
            log: LogId(array_at(block, 16)),
            id: u64_at(block, 32),
            first_sequence: sequence_at(block, 40).filter(|&first| first > 0)?,
            made_at: u64_at(block, 48),
        };
        let sum = Seed::of_segment(header.log, header.id).sum(0, &block[..SUMMED]);
        (block[0..8] == MAGIC && u32_at(block, SUMMED) == sum).then_some(header)
    }
}

/// The name of the segment with this id.
pub(super) fn name(id: u64) -> String {
    format!("{id:016x}{EXTENSION}")
}

/// The id in a segment's name; `None` if it is no name of a segment, written as we write it. A file with a higher id than any log gives out is a
/// stranger: as a segment it would overrule all that are written after it.
pub(super) fn id_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id < number::LIMIT && self::name(id) == name).then_some(id)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let header = Header::new(LogId([9; 16]), number::LIMIT - 1, 7, 1);
        let block = header.encode();
        assert_eq!(Header::decode(&block), Some(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_ids_and_only_ours_are_names() {
        assert_eq!(name(0x2a), "000000000000002a.seg");
        assert!(name(9) < name(10) && name(u64::MAX - 1) < name(u64::MAX));
        assert_eq!(id_of(&name(number::LIMIT - 1)), Some(number::LIMIT - 1));
        assert_eq!((id_of(&name(number::LIMIT)), id_of(&name(u64::MAX))), (None, None));
        for other in
            ["2a.seg", "000000000000002A.seg", "+00000000000002a.seg", "000000000000002a.seg.tmp", "", "é"]
        {
            assert_eq!(id_of(other), None, "{other}");
        }
    }
}
