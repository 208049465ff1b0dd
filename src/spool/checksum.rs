//! Checksums that are worth nothing anywhere else.
//!
//! A block of an old file that comes back (after a crash, from a copy, under another name) has a checksum that fits its bytes. So each
//! checksum begins with the place where it stands: the log, the segment, the offset. What fits is then not only whole, but in its
//! place. CRC32C, because processors compute it faster than the bytes can be copied.

use super::LogId;

/// Where the checksums of one segment begin, or those of a file beside the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    /// For the segment with this id in this log.
    pub(super) fn of_segment(log: LogId, id: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&log.0), &id.to_le_bytes()))
    }

    /// For a file with this name in this log.
    pub(super) fn of_file(log: LogId, name: &str) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&log.0), name.as_bytes()))
    }

    /// The checksum of these bytes at this offset.
    pub(super) fn sum(self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &offset.to_le_bytes()), bytes)
    }
}

/// Little-endian numbers in a block of fixed size. The offsets are constants of the formats, so they lie within.
pub(super) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(block, at))
}

pub(super) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(block, at))
}

pub(super) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(block, at))
}

pub(super) fn array_at<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&block[at..at + N]);
    array
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_elsewhere_have_another_checksum() {
        let (log, other) = (LogId([1; 16]), LogId([2; 16]));
        let sum = Seed::of_segment(log, 7).sum(64, b"bytes");
        for elsewhere in [
            Seed::of_segment(other, 7).sum(64, b"bytes"),
            Seed::of_segment(log, 8).sum(64, b"bytes"),
            Seed::of_segment(log, 7).sum(72, b"bytes"),
            Seed::of_file(log, "POSITION").sum(64, b"bytes"),
        ] {
            assert_ne!(elsewhere, sum);
        }
        assert_eq!(Seed::of_segment(log, 7).sum(64, b"bytes"), sum);
    }
}
