//! The accounts of a bus and their law.
//!
//! Every event that was offered stands in exactly one account, at any moment:
//!
//! ```text
//! offered = acked + Σ dropped{reason} + indeterminate + queued + in flight + spooled
//! ```
//!
//! The two sides are counted by different hands. What was offered is counted at the door: the claims of the rings (in
//! their tails) and the refusals beside them. What became of it is counted by the worker, account by account, as the events
//! pass through its window. An event that fell through a crack would make the sides differ, and [`Stats::check`] says so.
//!
//! A snapshot is consistent without stopping anybody, and nobody waits for who takes it: the worker's accounts are taken as it last left
//! them ([`Latch`](crate::latch::Latch)), and the rings' tails are read after that. A claim that the worker has not yet taken is
//! queued; one that it took since then still counts as queued. Both sides agree.
//!
//! With [partitions](crate::partition) there is a ledger for each, of its rings and its worker, and that of the bus is their sum.

use crate::publisher::engine::Engine;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Why an event was dropped. The set is closed: dashboards and alerts are built on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The ring had no room: the worker could not deliver as fast as events came.
    QueueFull,
    /// Too many threads wanted the same ring at the same instant.
    Contended,
    /// The event is above `queue.max-event`, the server's `max_payload` or the stream's `max_msg_size`.
    TooLarge,
    /// The body's `Serialize` failed or panicked, or pre-serialized bytes were not JSON.
    Serialize,
    /// Published through the global functions before [`crate::init`].
    NotInitialized,
    /// Published after the bus was closed.
    Closed,
    /// The server refused it for good (stream sealed, or full at the end), or its name was not a valid one.
    Rejected,
    /// No stream takes this subject.
    NoStream,
    /// The server does not permit publishing to this subject.
    Permission,
    /// The spool had no room for it, or has lost it: its place on the disk was deleted or damaged.
    SpoolFull,
    /// Accepted, but the time given to deliver it ran out before it could be sent.
    Expired,
}

impl Reason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 11] = [
        Self::QueueFull,
        Self::Contended,
        Self::TooLarge,
        Self::Serialize,
        Self::NotInitialized,
        Self::Closed,
        Self::Rejected,
        Self::NoStream,
        Self::Permission,
        Self::SpoolFull,
        Self::Expired,
    ];

    /// The name in metrics, reports and balances.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Contended => "contended",
            Self::TooLarge => "too_large",
            Self::Serialize => "serialize",
            Self::NotInitialized => "not_initialized",
            Self::Closed => "closed",
            Self::Rejected => "rejected",
            Self::NoStream => "no_stream",
            Self::Permission => "permission",
            Self::SpoolFull => "spool_full",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts of dropped events by reason. Serializes as a map of the reasons that occurred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped([u64; Reason::ALL.len()]);

impl Dropped {
    /// Events dropped for this reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Events dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// All reasons with their counts, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }

    pub(crate) fn add(&mut self, reason: Reason, events: u64) {
        self.0[reason as usize] += events;
    }

    /// What came after an earlier count.
    pub(crate) fn since(mut self, earlier: &Self) -> Self {
        self.0.iter_mut().zip(earlier.0).for_each(|(events, before)| *events -= before);
        self
    }

    fn add_all(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(events, more)| *events += more);
    }
}

impl Serialize for Dropped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (reason, events) in self.iter().filter(|&(_, events)| events > 0) {
            map.serialize_entry(&reason, &events)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Dropped {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut dropped = Self::default();
        for (reason, events) in BTreeMap::<Reason, u64>::deserialize(deserializer)? {
            dropped.add(reason, events);
        }
        Ok(dropped)
    }
}

/// One consistent snapshot of the ledger. Serializes to the balance that the tool prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stats {
    /// Events that were handed to `publish` in any form, and those that an earlier process had left in the spool (`recovered`).
    pub offered: u64,
    /// Events that the server has acknowledged.
    pub acked: u64,
    /// Events that were dropped, by reason.
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<Reason, u64>"))]
    pub dropped: Dropped,
    /// Events that may or may not be stored: they were sent, and the server never told.
    pub indeterminate: u64,
    /// Events in the rings.
    pub queued: u64,
    /// Events that the worker has taken and whose fate is not known yet.
    pub in_flight: u64,
    /// Events in the spool. Those of them that have been sent and are not answered yet stand in flight.
    pub spooled: u64,
    /// Of what was offered, events that an earlier process had left in the spool, with the last reports of its bus, which count like events here. In
    /// the balance only if there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub recovered: u64,
    /// Events that were left out because of the sample of their names (`events.NAME.sample`). They were not offered, and stand in none of the
    /// accounts. In the balance only if there are any; with partitions, in that of the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sampled_out: u64,
    /// Seconds since the bus was started.
    pub elapsed_seconds: f64,
    /// How events are sent; none until a stream was looked for. Where partitions differ, what the least advanced one says: none, or
    /// [`Engine::Async`]. Not part of the balance.
    #[serde(skip)]
    pub engine: Option<Engine>,
}

impl Stats {
    /// Events whose fate is still open: queued, in flight or spooled.
    pub fn held(&self) -> u64 {
        self.queued + self.in_flight + self.spooled
    }

    /// The ledger of both together. Each balances, so their sum does, whenever each of them was taken.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        self.dropped.add_all(other.dropped);
        Self {
            offered: self.offered + other.offered,
            acked: self.acked + other.acked,
            dropped: self.dropped,
            indeterminate: self.indeterminate + other.indeterminate,
            queued: self.queued + other.queued,
            in_flight: self.in_flight + other.in_flight,
            spooled: self.spooled + other.spooled,
            recovered: self.recovered + other.recovered,
            sampled_out: self.sampled_out + other.sampled_out,
            elapsed_seconds: self.elapsed_seconds.max(other.elapsed_seconds),
            engine: self.engine.min(other.engine),
        }
    }

    /// Checks the law.
    ///
    /// # Errors
    ///
    /// When the accounts do not add up to what was offered, which would be a bug of this crate.
    pub fn check(&self) -> Result<(), Imbalance> {
        let accounted = self.acked + self.dropped.total() + self.indeterminate + self.held();
        if accounted == self.offered { Ok(()) } else { Err(Imbalance { offered: self.offered, accounted }) }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The accounts do not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger does not balance: {offered} events were offered, {accounted} are accounted for")]
pub struct Imbalance {
    /// Events offered.
    pub offered: u64,
    /// The sum of all other accounts.
    pub accounted: u64,
}

/// What [`flush`](crate::Bus::flush) and [`close`](crate::Bus::close) return: the balance at their end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[must_use = "the report says what was not delivered"]
pub struct Report {
    /// The ledger at the end of the call.
    #[serde(flatten)]
    pub stats: Stats,
    /// Whether everything that had been offered before the call has met its fate within the deadline.
    #[serde(skip)]
    pub complete: bool,
}

/// The accounts that the worker keeps: what became of the events that it took from the rings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Accounts {
    /// Records and given-up claims taken, by ring.
    pub(crate) taken: Vec<u64>,
    pub(crate) acked: u64,
    pub(crate) dropped: Dropped,
    pub(crate) indeterminate: u64,
    pub(crate) in_flight: u64,
    pub(crate) spooled: u64,
    /// Events that another process has left in the spool; they count as offered to this one.
    pub(crate) recovered: u64,
    pub(crate) engine: Option<Engine>,
}

impl Accounts {
    /// Words of the accounts of a worker with so many rings.
    pub(crate) const fn words(rings: usize) -> usize {
        6 + Reason::ALL.len() + rings
    }

    /// As words, to be published.
    pub(crate) fn to_words(&self) -> impl Iterator<Item = u64> {
        let engine = match self.engine {
            None => 0,
            Some(Engine::Async) => 1,
            Some(Engine::Fast) => 2,
        };
        let numbers = [self.acked, self.indeterminate, self.in_flight, self.spooled, self.recovered, engine];
        numbers.into_iter().chain(self.dropped.0).chain(self.taken.iter().copied())
    }

    pub(crate) fn from_words(words: &[u64]) -> Self {
        let (numbers, rest) = words.split_first_chunk().expect("there are as many words as `words` says");
        let (dropped, taken) = rest.split_first_chunk().expect("there are as many words as `words` says");
        let [acked, indeterminate, in_flight, spooled, recovered, engine] = *numbers;
        let engine = match engine {
            0 => None,
            1 => Some(Engine::Async),
            _ => Some(Engine::Fast),
        };
        Self {
            taken: taken.to_vec(),
            acked,
            dropped: Dropped(*dropped),
            indeterminate,
            in_flight,
            spooled,
            recovered,
            engine,
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn example() -> Stats {
        let mut dropped = Dropped::default();
        dropped.add(Reason::QueueFull, 3);
        Stats {
            offered: 21,
            acked: 10,
            dropped,
            indeterminate: 1,
            queued: 2,
            in_flight: 4,
            spooled: 1,
            recovered: 0,
            sampled_out: 0,
            elapsed_seconds: 0.5,
            engine: None,
        }
    }

    #[test]
    fn the_balance_serializes_as_the_contract_says_and_comes_back() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(
            text,
            r#"{"offered":21,"acked":10,"dropped":{"queue_full":3},"indeterminate":1,"queued":2,"in_flight":4,"spooled":1,"elapsed_seconds":0.5}"#
        );
        assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), example());
        let report = Report { stats: example(), complete: true };
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
    }

    #[test]
    fn what_was_sampled_out_is_told_and_changes_no_account() {
        let sampled = Stats { sampled_out: 7, ..example() };
        assert_eq!(sampled.check(), Ok(()));
        let text = serde_json::to_string(&sampled).unwrap();
        assert!(text.contains(r#","spooled":1,"sampled_out":7,"#), "{text}");
        assert_eq!(serde_json::from_str::<Stats>(&text).unwrap(), sampled);
        assert_eq!(sampled.clone().plus(&sampled).sampled_out, 14);
    }

    #[test]
    fn the_law_holds_or_says_by_how_much_it_does_not() {
        assert_eq!(example().check(), Ok(()));
        let broken = Stats { acked: 9, ..example() };
        assert_eq!(broken.check(), Err(Imbalance { offered: 21, accounted: 20 }));
    }

    #[test]
    fn a_sum_of_ledgers_balances_and_has_the_lesser_engine() {
        let fast = Stats { engine: Some(Engine::Fast), ..example() };
        let sum = fast.clone().plus(&Stats { engine: Some(Engine::Async), ..example() });
        assert_eq!((sum.check(), sum.offered, sum.dropped.get(Reason::QueueFull)), (Ok(()), 42, 6));
        assert_eq!((sum.elapsed_seconds, sum.engine), (0.5, Some(Engine::Async)));
        assert_eq!(fast.plus(&example()).engine, None);
    }

    #[test]
    fn accounts_come_back_from_their_words() {
        let Stats { dropped, .. } = example();
        for engine in [None, Some(Engine::Async), Some(Engine::Fast)] {
            let accounts = Accounts {
                taken: vec![7, 8],
                acked: 1,
                dropped,
                indeterminate: 2,
                in_flight: 3,
                spooled: 4,
                recovered: 5,
                engine,
            };
            let words: Vec<_> = accounts.to_words().collect();
            assert_eq!((words.len(), Accounts::from_words(&words)), (Accounts::words(2), accounts));
        }
        assert_eq!(
            Accounts::from_words(&vec![0; Accounts::words(1)]),
            Accounts { taken: vec![0], ..Accounts::default() }
        );
    }

    #[test]
    fn a_reason_is_called_the_same_by_serde_and_by_display() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{reason}\""));
        }
    }
}
