//! A spool whose keeper has no thread, for tests of a whole worker on one thread: they let it turn.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::keeper::Keeper;
use super::{Identity, Overflow};
use crate::publisher::stamp::ProducerNames;
use crate::spool::tended::{Place, Tended};
use std::sync::mpsc as std_mpsc;
use std::time::Instant;
use tokio::sync::mpsc;

pub(crate) struct ByHand {
    /// There until it has ended.
    keeper: Option<Keeper>,
    /// Turns so far.
    pub(crate) turns: u64,
}

impl ByHand {
    pub(crate) fn start(place: Place, names: ProducerNames, opened: Tended) -> (Overflow, Self) {
        let identity = Identity::new(names);
        let (orders, received) = std_mpsc::channel();
        let (tell, told) = mpsc::unbounded_channel();
        let mut keeper = Keeper::new(place, identity.clone(), received, tell);
        keeper.take(opened);
        (Overflow::new(orders, told, identity), Self { keeper: Some(keeper), turns: 0 })
    }

    /// When it wants to turn without being asked.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.keeper.as_ref()?.next_due()
    }

    /// Carries out what was ordered. Returns whether there was anything.
    pub(crate) fn serve(&mut self, now: Instant) -> bool {
        let mut served = false;
        loop {
            let Some(keeper) = &mut self.keeper else { return served };
            let order = match keeper.try_order() {
                Ok(Some(order)) => Some(order),
                Ok(None) if keeper.next_due().is_some_and(|due| due <= now) => None,
                Ok(None) => return served,
                Err(_) => {
                    self.keeper.take().unwrap().close();
                    return true;
                }
            };
            self.turns += 1;
            served = true;
            keeper.turn(order);
        }
    }
}
