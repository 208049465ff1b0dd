//! The bytes of a ring and their commit words. All raw access is here.
//!
//! There are two of these: the real one, a single allocation that a record is copied into at once, and the modelled
//! one, a cell for each line, so that loom sees every line that is written and read and reports two at a time.

#![expect(
    unsafe_code,
    reason = "shared bytes that are written and read without locks; the protocol is in `ring`"
)]

use super::{LINE, lines_of};
#[cfg(not(all(test, jetring_loom)))]
use crate::sync::interleave;
use crate::sync::{AtomicU64, Ordering, UnsafeCell};

/// What a commit word says of the claim that starts at its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    /// Nothing yet: the line is free, in the middle of a record, or claimed and still being written.
    Pending,
    /// The record of so many bytes is there.
    Committed(usize),
    /// The claim for so many bytes was given up; skip its lines.
    Aborted(usize),
}

const ABORTED: u64 = 1 << 63;

impl Commit {
    #[inline]
    fn from_word(word: u64) -> Self {
        match word {
            0 => Self::Pending,
            word if word & ABORTED != 0 => Self::Aborted((word & !ABORTED) as usize - 1),
            word => Self::Committed(word as usize - 1),
        }
    }

    /// Lengths are kept plus one, so that zero can mean "pending".
    #[inline]
    fn word(self) -> u64 {
        match self {
            Self::Pending => 0,
            Self::Committed(len) => len as u64 + 1,
            Self::Aborted(len) => (len as u64 + 1) | ABORTED,
        }
    }
}

pub(super) struct Memory {
    bytes: Bytes,
    commits: Box<[AtomicU64]>,
}

// SAFETY: a line is written only by the owner of the claim on it, and read only by the consumer between the owner's
// `Release` commit and its own `Release` of the head; `write` and `read` put these duties on their callers.
unsafe impl Sync for Memory {}

impl Memory {
    /// `slack_lines` follow the array, so that a record which starts at the last line need not wrap.
    pub(super) fn new(capacity_lines: usize, slack_lines: usize) -> Self {
        let commits = (0..capacity_lines).map(|_| AtomicU64::new(Commit::Pending.word())).collect();
        Self { bytes: Bytes::new(capacity_lines + slack_lines), commits }
    }

    /// Copies `parts`, one after the other, to the lines from `line` on.
    ///
    /// # Safety
    ///
    /// - The caller holds the one claim on these lines, and has not committed it.
    /// - The parts together are at most as long as the claim.
    #[inline]
    pub(super) unsafe fn write(&self, line: usize, parts: &[&[u8]]) {
        // SAFETY: our caller's promise is the same.
        unsafe { self.bytes.write(line, parts) }
    }

    /// Lets `read` see the `len` bytes from `line` on.
    ///
    /// # Safety
    ///
    /// The caller is the consumer, and [`commit_of`](Self::commit_of) said `Committed(len)` for this line.
    #[inline]
    pub(super) unsafe fn read<R>(&self, line: usize, len: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        // SAFETY: our caller's promise is the same.
        unsafe { self.bytes.read(line, len, read) }
    }

    /// Makes the record at `line` visible (or says that there will be none).
    #[inline]
    pub(super) fn commit(&self, line: usize, commit: Commit) {
        // Release: the bytes are written before; pairs with the Acquire in `commit_of`.
        self.commits[line].store(commit.word(), Ordering::Release);
    }

    #[inline]
    pub(super) fn commit_of(&self, line: usize) -> Commit {
        // Acquire: pairs with the Release in `commit`; the bytes can be read.
        Commit::from_word(self.commits[line].load(Ordering::Acquire))
    }

    /// Readies the commit word for the next lap.
    #[inline]
    pub(super) fn clear(&self, line: usize) {
        // Relaxed: the consumer's Release of the head, which follows, hands it to the next owner of the line.
        self.commits[line].store(Commit::Pending.word(), Ordering::Relaxed);
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; LINE]);

struct Bytes(Box<[UnsafeCell<Line>]>);

#[cfg(not(all(test, jetring_loom)))]
impl Bytes {
    fn new(lines: usize) -> Self {
        // The lines are written one by one, not taken as zeroed pages, so that the first lap finds them mapped.
        Self((0..lines).map(|_| UnsafeCell::new(Line([0; LINE]))).collect())
    }

    #[inline]
    unsafe fn write(&self, line: usize, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum();
        // A claim starts inside the capacity and is at most as long as the slack behind it. Looked at in debug builds only: a
        // panic here would leave a claim that is never finished.
        debug_assert!(line + lines_of(len) <= self.0.len());
        let mut to = self.0.as_ptr().wrapping_add(line).cast::<u8>().cast_mut();
        for part in parts {
            interleave();
            // SAFETY: the range lies inside the array (a claim does, see above), whose cells allow writing through a shared
            // reference, and nobody else has it (promised by the caller); `part` is not in it, being a live slice.
            unsafe {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        }
    }

    #[inline]
    unsafe fn read<R>(&self, line: usize, len: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        assert!(line + lines_of(len) <= self.0.len());
        let from = self.0.as_ptr().wrapping_add(line).cast::<u8>();
        // SAFETY: the range lies inside the array (checked above), was initialized in `new`, and is written by nobody
        // until the consumer, our caller, releases it.
        read(unsafe { std::slice::from_raw_parts(from, len) })
    }
}

#[cfg(all(test, jetring_loom))]
impl Bytes {
    fn new(lines: usize) -> Self {
        Self((0..lines).map(|_| UnsafeCell::new(Line([0; LINE]))).collect())
    }

    unsafe fn write(&self, line: usize, parts: &[&[u8]]) {
        for (cell, chunk) in self.0[line..].iter().zip(parts.concat().chunks(LINE)) {
            // SAFETY: the caller owns the line; loom reports it when that is not so.
            cell.with_mut(|to| unsafe { (&mut (*to).0)[..chunk.len()].copy_from_slice(chunk) });
        }
    }

    unsafe fn read<R>(&self, line: usize, len: usize, read: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = Vec::new();
        for cell in &self.0[line..line + lines_of(len)] {
            // SAFETY: the caller may read the line; loom reports it when that is not so.
            cell.with(|from| bytes.extend_from_slice(unsafe { &(*from).0 }));
        }
        read(&bytes[..len])
    }
}
