//! Budgets at the door: how they are set, and the way of an event where any name has one. What they are is told in [`budget`](crate::budget).

use super::{Bus, RequestId, Shared, Title, dropped, reason_of};
use crate::config::{Budget, BudgetError, ConfigError};
use crate::foreign::discard;
use crate::lane::Lane;
use crate::ledger::Reason;
use crate::offer::Offer;
use crate::record::REQUEST_ID_BYTES_MAX;
use crate::shed::NameId;
use crate::subject::Name;
use serde::Serialize;

impl Bus {
    /// Gives the events of this name another budget, from now on, whoever publishes them and through which handle or [`Topic`](super::Topic);
    /// [`Budget::default`] takes every limit away. A changed rate or burst begins with a full bucket. In a forked child it does nothing, as all.
    ///
    /// # Errors
    ///
    /// When the name is not valid or cannot be told apart from others, or the budget contradicts itself.
    pub fn set_budget(&self, name: &str, budget: Budget) -> Result<(), BudgetError> {
        let name: Name = name.parse()?;
        if self.shared.is_inert() { budget.check() } else { self.shared.set_budget(&name, budget) }
    }

    /// The budget of the events of this name: that of the configuration, or the last one that was set. A name that never had one has no
    /// limits, and nor has any in a forked child.
    pub fn budget(&self, name: &str) -> Budget {
        if self.shared.is_inert() {
            return Budget::default();
        }
        let id = self.shared.catalogue.lookup(name);
        id.map(|id| self.shared.budgets.get(id)).unwrap_or_default()
    }
}

impl Shared {
    pub(super) fn set_configured_budgets(&self) -> Result<(), ConfigError> {
        for (name, budget) in &self.config.events {
            self.set_budget(name, *budget).map_err(|error| ConfigError::of_budget(name.as_str(), error))?;
        }
        Ok(())
    }

    fn set_budget(&self, name: &Name, budget: Budget) -> Result<(), BudgetError> {
        // First, since a number is never given back.
        budget.check()?;
        match self.catalogue.intern_patiently(name.as_str()) {
            NameId::OTHER => Err(BudgetError::Unnumbered),
            id => {
                self.budgets.set(id, budget)?;
                self.lanes.become_budgeted();
                Ok(())
            }
        }
    }

    /// The way of an event where the ring has to be looked at more closely, or any name has a budget.
    #[cold]
    #[inline(never)]
    pub(super) fn publish_at_limit<T: Serialize>(
        &self,
        lane: &Lane,
        title: Title<'_>,
        given: Option<&str>,
        body: impl FnOnce() -> T,
    ) -> Offer {
        match self.admit(lane, title, RequestId::new(given).as_deref(), super::ROOM_MIN) {
            Ok(sample) => self.accept(lane, title, given, sample, body),
            Err(offer) => {
                discard(body);
                offer
            }
        }
    }

    /// Whether an event with a record of at most `len` bytes may be made, and for how many it stands then.
    #[inline(never)]
    pub(super) fn admit(
        &self,
        lane: &Lane,
        title: Title<'_>,
        request_id: Option<&str>,
        len: usize,
    ) -> Result<u32, Offer> {
        let budget = self.budgets.table().and_then(|table| {
            let id = title.id.or_else(|| self.catalogue.lookup(title.name))?;
            Some((table, table.slot(id)?, id))
        });
        let Some((table, slot, id)) = budget else {
            return match lane.refusal(len) {
                Some(refusal) => Err(self.shed(lane, title, reason_of(refusal))),
                None => Ok(1),
            };
        };
        // A bus that is closed refuses everything, whether it would have been kept or not.
        if lane.ring.is_closed() {
            return Err(dropped(lane, id, Reason::Closed));
        }
        // So that the time of a hash is bounded.
        if request_id.is_some_and(|id| id.len() > REQUEST_ID_BYTES_MAX) {
            return Err(dropped(lane, id, Reason::TooLarge));
        }
        let sample = slot.sample();
        if !table.keeps(sample, request_id) {
            return Err(Offer::SampledOut);
        }
        if let Some(refusal) = lane.refusal(len) {
            return Err(dropped(lane, id, reason_of(refusal)));
        }
        if !table.affords(slot, || lane.ring.used_bytes()) {
            return Err(dropped(lane, id, Reason::QueueFull));
        }
        Ok(sample)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_budget_that_is_refused_uses_no_number_up() {
        let bus = Config::new("null:", "main", 1).map(Bus::start).expect("it is valid").expect("it starts");
        assert!(bus.set_budget("a", Budget { sample: 0, ..Budget::default() }).is_err());
        assert_eq!(bus.shared.catalogue.lookup("a"), None);
        assert_eq!(bus.set_budget("a", Budget { sample: 2, ..Budget::default() }), Ok(()));
        assert!(bus.shared.catalogue.lookup("a").is_some());
    }
}
