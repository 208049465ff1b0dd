//! Which numbers a log may have on its disk.
//!
//! A checksum says that a number is the one that was written, not that it makes sense: a bug or an attacker writes right checksums too. So each
//! sequence and each id is compared with [`LIMIT`] where it is read, and whatever holds a larger one is damaged. Below the limit plain
//! additions cannot overflow, not even the sum over all partitions of a bus. No number is the length of a loop or of an allocation.
//!
//! The writer keeps to the same limit: a log that has come to it takes nothing more (see [`exhausted`]).

use super::checksum::u64_at;
use std::io;

/// Sequences and ids are below this, and the end of a range is not above it. A million events a second reach it after 2,000 years.
pub(super) const LIMIT: u64 = 1 << 56;

/// A sequence, or the end of a range of them; `None` if no log can have come so far.
pub(super) fn sequence_at(block: &[u8], at: usize) -> Option<u64> {
    sequence_of(u64_at(block, at))
}

/// The same, of a number that was read already.
pub(super) fn sequence_of(number: u64) -> Option<u64> {
    Some(number).filter(|&sequence| sequence <= LIMIT)
}

/// The log has used up its sequences or ids. Somebody has written a number to the directory that no log of ours comes to.
pub(super) fn exhausted() -> io::Error {
    io::Error::other("the numbers of this log are used up; move its directory away")
}
