//! A log of messages in segment files: what `file:` writes to, and what survives a process.
//!
//! ```text
//!   events/
//!     META                      which log this is
//!     POSITION                  from where and up to where something must be there
//!     SENT                      what may have been sent on, if anything is
//!     LOCK                      its one owner
//!     EMERGENCY                 room for the worst day
//!     0000000000000001.seg      ┐
//!     0000000000000002.seg      ├ records, in the order of their sequences
//!     0000000000000003.seg      ┘
//!     0000000000000002.seg.corrupt-0      a damaged segment, whose whole records are in 2.seg
//! ```
//!
//! Records get consecutive sequences from 1 and keep them for ever. All that is promised follows from this:
//!
//! - What was written is there after the process was killed, what was synced after the power failed. A write that was cut off is not
//!   there at all.
//! - What is not as it was written is noticed, whichever bit it is, and what is missing is counted exactly: a hole in the sequences.
//! - No state of a directory prevents a start, loops, or panics; but a directory of another format version is refused, untouched.
//! - Opening takes as long for a gigabyte as for nothing; reading needs memory for one batch.
//! - The log stays within its quota and leaves the disk some room. When it is full, either the newest records are refused or the oldest segment
//!   is deleted, and either is counted.
//!
//! | module | is |
//! | --- | --- |
//! | `log` | the log as its owner has it: append, sync, make room |
//! | `recovery`, `quarantine`, `renewal` | what is put right when it is opened |
//! | `walk`, `scan` | reading: a log, a segment, whatever state they are in |
//! | `cursor`, `messages` | a log as its readers have it |
//! | `tended` | the log as a keeper has it: with its policy, its meter, and a word where one is due |
//! | `inspect` | what people ask of it: overview, verify, repair |
//! | `survey` | what lies in a directory |
//! | `leftover` | what lies there for another number of partitions |
//! | `segment`, `batch`, `position`, `sent`, `meta`, `emergency` | the files |
//! | `slots` | what two of them have in common |
//! | `creation` | how a segment comes into being |
//! | `checksum`, `number` | checksums that know their place; which numbers are possible |
//! | `storage` | what is asked of a file system, so that a test can be one |
//!
//! Read next: `log`, then `walk`.

pub(crate) mod batch;
mod checksum;
mod creation;
pub(crate) mod cursor;
mod damage;
mod emergency;
#[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
pub(crate) mod forge;
mod inspect;
pub(crate) mod leftover;
pub(crate) mod log;
pub(crate) mod messages;
mod meta;
mod number;
mod position;
mod quarantine;
mod ranges;
pub(crate) mod recovery;
mod renewal;
mod scan;
mod segment;
pub(crate) mod sent;
mod slots;
pub(crate) mod storage;
mod survey;
pub(crate) mod tended;
#[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
pub(crate) mod trial;
mod walk;

pub use damage::{Damage, Kind};
pub use inspect::{
    Entries, Entry, Overview, Repair, SegmentFile, Verdict, overview, repair, verify, waiting,
};
pub use leftover::{Leftover, leftovers};
pub use ranges::Ranges;

use std::fmt;

/// Tells a log from all others: random, and borne by each of its files.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LogId([u8; 16]);

impl LogId {
    /// Of what comes from no log.
    pub(crate) const NONE: Self = Self([0; 16]);

    /// In the place of it for the events that have this number in their frames.
    pub(crate) fn of_line(self, index: usize) -> Self {
        Self((u128::from_le_bytes(self.0) ^ index as u128).to_le_bytes())
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogId({self})")
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests;
