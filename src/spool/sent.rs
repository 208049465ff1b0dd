//! What of a log has been sent on: a [file of two slots](super::slots), in a log that is sent on and in no other.
//!
//! ```text
//!   SENT   what a slot says:  confirmed │ floor │ stream │ since │ from there on, 5 bytes each: mark, start of ahead, its length │ flags
//!
//!   log    ░░░░░░░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒          ▒▒▒▒▒▒        ░ has met its fate
//!                       ▲            ▲         └ahead┘      ▒ may have been sent
//!                   confirmed       mark
//! ```
//!
//! After a crash nobody knows of what stands between *confirmed* and *mark* whether it was sent, and whether it was stored; nor of what was in
//! the window when it was written, *ahead* of what was handed out. The stream knows: all of it that is stored lies above *floor*, a sequence of the
//! stream, unless the stream was made again. And none of it was sent before *since*, so the server still knows its message ids if that is not too
//! long ago.
//!
//! So the mark is written before anything at or behind it is handed out; it goes some way ahead, so that it is not written for every page. What is
//! confirmed is written now and then. If it is too low, more is looked for in the stream than there need be.

use super::checksum::u64_at;
use super::number::{sequence_at, sequence_of};
use super::slots::{Block, Content, SlotFile};
use std::ops::Range;

/// The name of the file.
pub(super) const NAME: &str = Sent::NAME;

/// The file, open for writing.
pub(super) type SentFile = SlotFile<Sent>;

/// What a slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// All sequences below have met their fate.
    pub(crate) confirmed: u64,
    /// None from here on was handed out.
    pub(crate) mark: u64,
    /// What of those between is stored has a higher sequence in the stream.
    pub(crate) floor: u64,
    /// These may have been sent too.
    pub(crate) ahead: (u64, u64),
    /// Tells that stream from one that was made again under its name; 0 while none was seen, and nothing sent.
    pub(crate) stream: u64,
    /// None of it was sent before this time, in nanoseconds since 1970; 0 if unknown.
    pub(crate) since: u64,
    /// Some of it may have been sent in packed frames.
    pub(crate) is_packed: bool,
}

/// In the place of the tag of a stream: events were sent to a stream that could not be looked at, or that is not known any more.
pub(crate) const UNSEEN: u64 = u64::MAX;

/// The magic of the first format, with six words of 8 bytes: confirmed, mark, floor, stream, and ahead. It said neither when nor how.
const MAGIC_1: u32 = 0xF5C1_5E27;

/// Bytes of a distance between two sequences.
const DISTANCE_BYTES: usize = 5;
const DISTANCE_MAX: u64 = (1 << (8 * DISTANCE_BYTES)) - 1;

impl Sent {
    /// What may have been sent and has not met its fate. The second part is behind the first.
    pub(crate) fn doubtful(&self) -> [Range<u64>; 2] {
        let (start, end) = self.ahead;
        [self.confirmed..self.mark, start.max(self.mark)..end.max(self.mark)]
    }

    /// The same, no further than a log goes that ends here.
    pub(crate) fn within(self, sequences: Range<u64>) -> Self {
        let confirmed = self.confirmed.clamp(sequences.start, sequences.end);
        let mark = self.mark.clamp(confirmed, sequences.end);
        let (start, end) = (self.ahead.0.clamp(mark, sequences.end), self.ahead.1.clamp(mark, sequences.end));
        Self { confirmed, mark, ahead: if start < end { (start, end) } else { (0, 0) }, ..self }
    }
}

impl Content for Sent {
    const NAME: &str = "SENT";
    const MAGIC: u32 = 0xF5C1_5E28;

    fn encode(&self) -> Block {
        let mut block = [0; size_of::<Block>()];
        let words = [self.confirmed, self.floor, self.stream, self.since];
        for (place, word) in block.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let (start, end) = self.ahead;
        let has_ahead = start < end;
        let start = if has_ahead { start } else { self.confirmed };
        let length = if has_ahead { end - start } else { 0 };
        let distances =
            [self.mark.saturating_sub(self.confirmed), start.saturating_sub(self.confirmed), length];
        for (place, distance) in block[32..47].chunks_exact_mut(DISTANCE_BYTES).zip(distances) {
            // No disk holds so many records.
            place.copy_from_slice(&distance.min(DISTANCE_MAX).to_le_bytes()[..DISTANCE_BYTES]);
        }
        block[47] = u8::from(self.is_packed);
        block
    }

    fn decode(magic: u32, block: &Block) -> Option<Self> {
        match magic {
            Self::MAGIC => Self::decode_2(block),
            MAGIC_1 => Self::decode_1(block),
            _ => None,
        }
    }
}

impl Sent {
    fn decode_2(block: &Block) -> Option<Self> {
        let confirmed = sequence_at(block, 0)?;
        let [floor, stream, since] = [8, 16, 24].map(|at| u64_at(block, at));
        let distance_at = |at: usize| {
            let mut word = [0; 8];
            word[..DISTANCE_BYTES].copy_from_slice(&block[at..at + DISTANCE_BYTES]);
            u64::from_le_bytes(word)
        };
        let behind = |sequence: u64, at: usize| sequence_of(sequence.checked_add(distance_at(at))?);
        let mark = behind(confirmed, 32)?;
        let start = behind(confirmed, 37)?;
        let end = behind(start, 42)?;
        let ahead = if start < end { (start, end) } else { (0, 0) };
        Some(Self { confirmed, mark, floor, ahead, stream, since, is_packed: block[47] != 0 })
    }

    /// Whether anything was sent in frames was not said, so it may have been.
    fn decode_1(block: &Block) -> Option<Self> {
        let (confirmed, mark) = (sequence_at(block, 0)?, sequence_at(block, 8)?);
        // These two are the stream's.
        let (floor, stream) = (u64_at(block, 16), u64_at(block, 24));
        let (start, end) = (sequence_at(block, 32)?, sequence_at(block, 40)?);
        let sent = Self { confirmed, mark, floor, ahead: (start, end), stream, since: 0, is_packed: true };
        (confirmed <= mark && start <= end).then_some(sent)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            confirmed in 0..1u64 << 55, mark in 0..=DISTANCE_MAX, start in 0..DISTANCE_MAX, length in 1..1000u64,
            floor: u64, stream: u64, since: u64, is_packed: bool, has_ahead: bool,
        ) {
            let start = confirmed + start;
            let ahead = if has_ahead { (start, start + length) } else { (0, 0) };
            let sent = Sent { confirmed, mark: confirmed + mark, floor, ahead, stream, since, is_packed };
            prop_assert_eq!(Sent::decode(Sent::MAGIC, &sent.encode()), Some(sent));
        }

        #[test]
        fn nothing_that_a_disk_can_say_makes_it_panic(block in prop::array::uniform32(any::<u8>()), magic in prop_oneof![Just(MAGIC_1), Just(Sent::MAGIC)]) {
            let block: Block = [&block[..], &block[..16]].concat().try_into().unwrap();
            if let Some(sent) = Sent::decode(magic, &block) {
                prop_assert!(sent.confirmed <= sent.mark && sent.ahead.0 <= sent.ahead.1);
            }
        }
    }

    #[test]
    fn the_first_format_is_read_and_does_not_say_when_and_how() {
        let mut block: Block = [0; size_of::<Block>()];
        for (place, word) in block.chunks_exact_mut(8).zip([5u64, 9, 7, 77, 12, 14]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let expected =
            Sent { confirmed: 5, mark: 9, floor: 7, stream: 77, ahead: (12, 14), since: 0, is_packed: true };
        assert_eq!(Sent::decode(MAGIC_1, &block), Some(expected));
    }
}
