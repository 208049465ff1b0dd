//! The answer to an offer.

use crate::ledger::Reason;

/// What became of an offer. May be ignored: the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The event is in the ring and will be delivered, or accounted for.
    Accepted,
    /// The event was dropped, and counted, for this reason.
    Dropped(Reason),
    /// The event is one of those that are left out because of the [`sample`](crate::Budget::sample) of its name. It is neither of the above: it was
    /// not to be delivered, so it is not in the ledger and no loss, and one that is delivered stands for it. The metric
    /// `event_bus_sampled_out_events_total` and [`Stats::sampled_out`](crate::Stats::sampled_out) count it.
    SampledOut,
}

impl Offer {
    /// Whether the event is in the ring.
    pub fn is_accepted(self) -> bool {
        self == Self::Accepted
    }
}
