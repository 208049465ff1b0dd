//! The answer to an offer.

use crate::ledger::Reason;

/// What became of an offer. May be ignored: the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The event is in the ring and will be delivered, or accounted for.
    Accepted,
    /// The event was dropped, and counted, for this reason.
    Dropped(Reason),
}

impl Offer {
    /// Whether the event is in the ring.
    pub fn is_accepted(self) -> bool {
        self == Self::Accepted
    }
}
