//! What of a log has been sent on: a [file of two slots](super::slots), in a log that is sent on and in no other.
//!
//! ```text
//!   SENT   what a slot says:  confirmed │ mark │ floor │ stream │ ahead: start, end
//!
//!   log    ░░░░░░░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒          ▒▒▒▒▒▒        ░ has met its fate
//!                       ▲            ▲         └ahead┘      ▒ may have been sent
//!                   confirmed       mark
//! ```
//!
//! After a crash nobody knows of what stands between *confirmed* and *mark* whether it was sent, and whether it was stored; nor of what was in
//! the window when it was written, *ahead* of what was handed out. The stream knows: all of it that is stored lies above *floor*, a sequence of the
//! stream, unless the stream was made again.
//!
//! So the mark is written before anything at or behind it is handed out; it goes some way ahead, so that it is not written for every page. What is
//! confirmed is written now and then. If it is too low, more is looked for in the stream than there need be.

use super::checksum::u64_at;
use super::number::sequence_at;
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
}

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
    const MAGIC: u32 = 0xF5C1_5E27;

    fn encode(&self) -> Block {
        let mut block = [0; size_of::<Block>()];
        let words = [self.confirmed, self.mark, self.floor, self.stream, self.ahead.0, self.ahead.1];
        for (place, word) in block.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        block
    }

    fn decode(block: &Block) -> Option<Self> {
        let (confirmed, mark) = (sequence_at(block, 0)?, sequence_at(block, 8)?);
        // These two are the stream's.
        let (floor, stream) = (u64_at(block, 16), u64_at(block, 24));
        let (start, end) = (sequence_at(block, 32)?, sequence_at(block, 40)?);
        (confirmed <= mark && start <= end).then_some(Self {
            confirmed,
            mark,
            floor,
            ahead: (start, end),
            stream,
        })
    }
}
