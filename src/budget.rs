//! Budgets: what keeps a name that publishes too much from taking the room of the others.
//!
//! ```text
//!                  sample             room              share              rate
//!   publish ──┬──► 1 in N? ──yes──► in the ring? ─yes─► below it? ──yes──► a token? ──yes──► encode, claim, copy
//!             │      │ no              │ no               │ no               │ no
//!             │   SampledOut        queue_full         queue_full, and counted as over budget
//!             └──► (closed: `closed`)
//! ```
//!
//! All of it is decided on the hot thread before the body is made, without a lock, an allocation or a wait.
//!
//! - **Sample.** Kept or left out is a request, by its id and nothing else ([`sample`]), so who joins the events of a request finds all of them
//!   or none. What is left out was not offered: it has no number, makes no hole, and stands in no account of the ledger. The events
//!   that are kept say for how many they stand.
//! - **Share.** While the ring is fuller than this part of it, the event is refused. Whose events fill it does not matter: what is reserved is
//!   the room above, for names with a larger share. No count of what each name has in the ring is needed, which the worker would
//!   have to give back event by event.
//! - **Rate.** A bucket of tokens for the name, over all threads and rings of the bus ([`bucket`]).
//!
//! The sample is first, so that what it leaves out costs no token, and so that a refusal falls upon kept events only. A token is taken last, by
//! an event that has all else; one that is not encoded in the end, or loses its place to another thread, has taken one in vain.
//!
//! A refusal by share or rate is a [`Reason::QueueFull`](crate::Reason::QueueFull), since the reasons are a closed set, and what such an event meets is a queue
//! that is full for it. A counter of its own says how many of those there were; it is no account, and not read in one moment with them.
//!
//! # What it costs who has none
//!
//! A bus that was never given a budget has no [`Table`], and an event of it looks at a byte of its [lane](crate::lane) that says so: three instructions. Where there is a
//! table, the budget is found by the name's number in the catalogue, which a topic knows, and a publish by name looks up.
//!
//! # Changes
//!
//! The fields of a budget are words of their own, written one by one. A publish that runs at the same time may see some of the old ones and
//! some of the new ones, and is decided by some mixture; one that begins later is decided by the new ones. A changed rate or burst begins with a full bucket; one that
//! is set again as it was goes on ([`bucket`]).

mod bucket;
mod sample;

use crate::config::{Budget, BudgetError};
use crate::entropy;
use crate::shed::{NAMES_MAX, NameId};
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use crate::thread::{self, Thread};
use bucket::Bucket;
use crossbeam_utils::CachePadded;
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

pub use sample::keeps_request;

/// The budgets of a bus.
pub(crate) struct Budgets {
    /// Made for the first budget.
    table: OnceLock<Table>,
    /// Bytes of a ring; all are alike.
    ring_bytes: usize,
    /// As they were set; the table has what follows from them.
    set: Mutex<BTreeMap<NameId, Budget>>,
}

impl Budgets {
    pub(crate) fn new(ring_bytes: usize) -> Self {
        Self { table: OnceLock::new(), ring_bytes, set: Mutex::default() }
    }

    /// What decides; none if no name ever had a budget.
    #[inline]
    pub(crate) fn table(&self) -> Option<&Table> {
        self.table.get()
    }

    /// Gives a name a budget, in the place of the one that it has. It is not [`NameId::OTHER`].
    pub(crate) fn set(&self, name: NameId, budget: Budget) -> Result<(), BudgetError> {
        budget.check()?;
        let mut all = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.get_or_init(Table::new);
        let slot = table.slot(name).ok_or(BudgetError::Unnumbered)?;
        slot.set(&budget, self.ring_bytes, table.nanos());
        all.insert(name, budget);
        Ok(())
    }

    pub(crate) fn get(&self, name: NameId) -> Budget {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied().unwrap_or_default()
    }

    /// Events that their sample has left out.
    pub(crate) fn sampled_out(&self) -> u64 {
        self.table().map_or(0, |table| table.sum(|tally| &tally.sampled_out))
    }

    /// Events that were refused by their share or rate.
    pub(crate) fn over_budget(&self) -> u64 {
        self.table().map_or(0, |table| table.sum(|tally| &tally.over_budget))
    }
}

/// The budgets by the numbers of their names, in the form in which a hot thread asks for them.
pub(crate) struct Table {
    slots: Box<[Slot]>,
    /// The bus's own clock for rates. The counter that dates events will not do: only the worker knows its rate, and not at first.
    began: Instant,
    /// Makes the chances of events outside of requests those of this start of the process.
    seed: u64,
    tallies: [CachePadded<Tally>; TALLIES],
}

/// So many threads count without meeting each other.
const TALLIES: usize = 16;

#[derive(Default)]
struct Tally {
    sampled_out: AtomicU64,
    over_budget: AtomicU64,
}

impl Table {
    fn new() -> Self {
        Self {
            slots: (0..NAMES_MAX).map(|_| Slot::new()).collect(),
            began: Instant::now(),
            seed: entropy::number(),
            tallies: Default::default(),
        }
    }

    /// The budget of a name; none for those that have no number of their own.
    #[inline]
    pub(crate) fn slot(&self, name: NameId) -> Option<&Slot> {
        self.slots.get(name.index())
    }

    /// Whether anything of the events of this name is limited.
    #[inline]
    pub(crate) fn limits(&self, name: NameId) -> bool {
        self.slot(name).is_some_and(|slot| !slot.is_unlimited())
    }

    /// Whether the sample keeps an event of this request, and if not counts it.
    #[inline]
    pub(crate) fn keeps(&self, sample: u32, request_id: Option<&str>) -> bool {
        let is_kept = match request_id {
            _ if sample <= 1 => true,
            Some(id) => sample::keeps_request(id, sample),
            None => sample::keeps_by_chance(thread::with(|thread| thread.step(self.seed)), sample),
        };
        if !is_kept {
            self.tally().sampled_out.fetch_add(1, Ordering::Relaxed);
        }
        is_kept
    }

    /// Whether an event may take room in a ring of which so much is used, and if not counts it.
    #[inline]
    pub(crate) fn affords(&self, slot: &Slot, used_bytes: impl FnOnce() -> usize) -> bool {
        let is_affordable = slot.is_below_share(used_bytes) && slot.bucket.takes(|| self.nanos());
        if !is_affordable {
            self.tally().over_budget.fetch_add(1, Ordering::Relaxed);
        }
        is_affordable
    }

    fn nanos(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    #[inline]
    fn tally(&self) -> &Tally {
        &self.tallies[thread::with(Thread::number) as usize % TALLIES]
    }

    fn sum(&self, count: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        self.tallies.iter().map(|tally| count(tally).load(Ordering::Relaxed)).sum()
    }
}

/// The budget of one name. All is written under the lock of [`Budgets`], and read by hot threads.
// A line for each, so that the bucket of one name does not slow down the others.
#[repr(align(64))]
pub(crate) struct Slot {
    /// One in so many is kept.
    sample: AtomicU64,
    /// Bytes of a ring; all ones if it need not be looked at.
    share: AtomicU64,
    bucket: Bucket,
}

const WHOLE: u64 = u64::MAX;

impl Slot {
    fn new() -> Self {
        Self { sample: AtomicU64::new(1), share: AtomicU64::new(WHOLE), bucket: Bucket::new() }
    }

    fn set(&self, budget: &Budget, ring_bytes: usize, now: u64) {
        let share = budget.share.of(ring_bytes);
        self.share.store(if share < ring_bytes as u64 { share } else { WHOLE }, Ordering::Relaxed);
        self.sample.store(budget.sample.into(), Ordering::Relaxed);
        self.bucket.set(budget.rate.map(|rate| (rate, budget.burst.unwrap_or(rate))), now);
    }

    /// Whether nothing is limited.
    #[inline]
    fn is_unlimited(&self) -> bool {
        self.sample() == 1 && self.share.load(Ordering::Relaxed) == WHOLE && self.bucket.is_unlimited()
    }

    #[inline]
    pub(crate) fn sample(&self) -> u32 {
        self.sample.load(Ordering::Relaxed) as u32
    }

    #[inline]
    fn is_below_share(&self, used_bytes: impl FnOnce() -> usize) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        share == WHOLE || used_bytes() as u64 <= share
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::shed::Catalogue;

    /// Those of a bus with rings of 1000 bytes, and a name.
    fn budgets() -> (Budgets, NameId) {
        (Budgets::new(1000), Catalogue::new().intern("a"))
    }

    #[test]
    fn who_never_had_a_budget_has_no_table() {
        let (budgets, name) = budgets();
        assert!(budgets.set(name, Budget { sample: 0, ..Budget::default() }).is_err());
        assert!(budgets.table().is_none());
        assert_eq!(
            (budgets.get(name), budgets.sampled_out(), budgets.over_budget()),
            (Budget::default(), 0, 0)
        );
    }

    #[test]
    fn a_share_is_that_of_the_ring_to_the_byte() {
        let (budgets, name) = budgets();
        let affords = |share: f64, used: usize| {
            budgets.set(name, Budget { share: share.try_into().unwrap(), ..Budget::default() }).unwrap();
            let table = budgets.table().unwrap();
            table.affords(table.slot(name).unwrap(), || used)
        };
        assert!(affords(0.25, 250) && !affords(0.25, 251) && affords(0.000_001, 0) && !affords(0.000_001, 1));
        assert!(affords(1.0, 1001), "all of it is no limit");
        assert_eq!(budgets.over_budget(), 2);
    }

    #[test]
    fn a_limit_that_is_taken_away_is_gone() {
        let (budgets, name) = budgets();
        let (sample, rate) = (1_000_000, Some(1));
        let budget = Budget { sample, rate, share: 0.5.try_into().unwrap(), ..Budget::default() };
        budgets.set(name, budget).unwrap();
        let slot = budgets.table().unwrap().slot(name).unwrap();
        assert!(!slot.is_unlimited() && budgets.get(name) == budget);
        budgets.set(name, Budget::default()).unwrap();
        assert!(slot.is_unlimited());
    }

    #[test]
    fn what_is_left_out_is_counted_whoever_leaves_it_out() {
        let (budgets, name) = budgets();
        budgets.set(name, Budget { sample: 2, ..Budget::default() }).unwrap();
        let table = budgets.table().unwrap();
        let leave_out = || (0..1000).filter(|_| !table.keeps(1_000_000, Some("q-17"))).count();
        std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(leave_out)));
        assert_eq!(budgets.sampled_out(), 4000);
        assert!(table.keeps(1, None) && table.keeps(1, Some("q-17")));
    }
}
