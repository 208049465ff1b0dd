//! Numbers for events, and an account of the holes between them.
//!
//! Each ring is a producer, and its numbers run from 1 over everything that was offered to it, accepted or not. The worker
//! gives them out when it takes an event: the record says how many offers the ring had refused before it, so a rise of that
//! count is a hole of exactly that size, just before this event.
//!
//! What is lost, at the door or later, is gathered for each producer and published as a gap report once a second.

use super::window::{Origin, Past};
use crate::ledger::Reason;
use crate::report::{Gap, Loss};
use crate::shed::{Catalogue, Shed};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The names of a bus's producers: `<16 hex>.<ring>`, and `<16 hex>.bus` for its reports. With partitions each worker has its own:
/// those of its rings, and `<16 hex>.<partition>.bus`.
#[derive(Clone, Debug)]
pub(crate) struct ProducerNames {
    process: Arc<str>,
    rings: Arc<[Arc<str>]>,
    bus: Arc<str>,
}

impl ProducerNames {
    /// `process` tells this start of the process from all others; it should be random.
    pub(crate) fn new(process: u64, rings: usize) -> Self {
        let process = format!("{process:016x}");
        let name = |suffix: &dyn std::fmt::Display| Arc::from(format!("{process}.{suffix}"));
        Self {
            rings: (0..rings).map(|ring| name(&ring)).collect(),
            bus: name(&"bus"),
            process: process.as_str().into(),
        }
    }

    /// The names that the worker of one of several partitions has, of those of the whole bus.
    pub(crate) fn of_partition(&self, partition: usize, partitions: usize) -> Self {
        Self {
            process: Arc::clone(&self.process),
            // One beyond the last partition has no rings.
            rings: match partition < partitions {
                true => self.rings.iter().skip(partition).step_by(partitions).map(Arc::clone).collect(),
                false => Arc::default(),
            },
            bus: match (partition, partitions) {
                (0, 1) => Arc::clone(&self.bus),
                _ => Arc::from(format!("{}.{partition}.bus", self.process)),
            },
        }
    }

    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    pub(crate) fn of(&self, origin: Origin) -> Cow<'_, str> {
        match origin {
            Origin::Ring(ring) => Cow::Borrowed(&self.rings[ring]),
            Origin::Bus => Cow::Borrowed(&self.bus),
            Origin::Past(past) => Cow::Owned(past.to_string()),
            Origin::Log(log) => Cow::Owned(log.to_string()),
        }
    }

    /// Who is called so; none if it is nobody who could have numbered an event.
    pub(crate) fn origin_of(&self, name: &str) -> Option<Origin> {
        let ours =
            name.starts_with(&*self.process).then(|| self.rings.iter().position(|ring| **ring == *name));
        ours.flatten().map(Origin::Ring).or_else(|| Past::parse(name).map(Origin::Past))
    }
}

/// Pairs of name and reason that a gap tells apart; the rest is told as `_other`, so that a report stays small.
const NAMED_MAX: usize = 128;

/// Producers of other processes whose losses are kept until they are told. Those of more are counted, and not told.
const PAST_MAX: usize = 4096;

/// Gives numbers out and remembers what was lost.
pub(crate) struct Stamper {
    other: Arc<str>,
    names: ProducerNames,
    producers: Vec<Producer>,
    /// Losses of other processes' events, which came out of a spool.
    past: HashMap<Past, OpenGap>,
    reports: u64,
}

struct Producer {
    /// The last number given out.
    last: u64,
    /// Refusals of the ring that have numbers already.
    refused: u64,
    /// Refusals by slot of the ring's table that were told in a gap already.
    told: [u64; Shed::SLOTS],
    gap: Option<OpenGap>,
}

/// Losses that are not reported yet.
#[derive(Default)]
struct OpenGap {
    first: u64,
    last: u64,
    /// Of these the ring's table knows names and reasons.
    at_the_door: u64,
    later: BTreeMap<(Arc<str>, &'static str), u64>,
}

impl Stamper {
    pub(crate) fn new(names: ProducerNames, rings: usize) -> Self {
        let producer = || Producer { last: 0, refused: 0, told: [0; Shed::SLOTS], gap: None };
        Self {
            other: Arc::from("_other"),
            names,
            producers: std::iter::repeat_with(producer).take(rings).collect(),
            past: HashMap::new(),
            reports: 0,
        }
    }

    pub(crate) fn names(&self) -> &ProducerNames {
        &self.names
    }

    /// The number of an event that was taken from `ring`, whose record says that `refused` offers were refused before it.
    pub(crate) fn number(&mut self, ring: usize, refused: u64) -> u64 {
        self.pass_refusals(ring, refused);
        let producer = &mut self.producers[ring];
        producer.last += 1;
        producer.last
    }

    /// Gives numbers to refusals up to `refused`. Other threads of a ring may have seen a higher count earlier; then
    /// there is nothing to do.
    pub(crate) fn pass_refusals(&mut self, ring: usize, refused: u64) {
        let producer = &mut self.producers[ring];
        let hole = refused.saturating_sub(producer.refused);
        if hole == 0 {
            return;
        }
        let gap = producer.gap.get_or_insert_default();
        gap.extend(producer.last + 1, producer.last + hole);
        gap.at_the_door += hole;
        producer.refused = refused;
        producer.last += hole;
    }

    /// An event that has its number was lost.
    pub(crate) fn lost(&mut self, origin: Origin, seq: u64, name: &Arc<str>, reason: Reason) {
        self.lost_for(origin, (seq, seq), 1, name, reason.as_str());
    }

    /// So many events of a producer, from one number to another, were lost.
    pub(crate) fn lost_many(
        &mut self,
        origin: Origin,
        range: (u64, u64),
        count: u64,
        name: &Arc<str>,
        reason: Reason,
    ) {
        self.lost_for(origin, range, count, name, reason.as_str());
    }

    /// The same, if the name was lost too.
    pub(crate) fn lost_unnamed(&mut self, origin: Origin, range: (u64, u64), count: u64, reason: Reason) {
        let other = Arc::clone(&self.other);
        self.lost_for(origin, range, count, &other, reason.as_str());
    }

    /// An event that has its number may be lost.
    pub(crate) fn indeterminate(&mut self, origin: Origin, seq: u64, name: &Arc<str>) {
        self.lost_for(origin, (seq, seq), 1, name, "indeterminate");
    }

    pub(crate) fn has_gaps(&self) -> bool {
        self.producers.iter().any(|producer| producer.gap.is_some()) || !self.past.is_empty()
    }

    /// The losses of `ring` since the last call.
    pub(crate) fn take_gap(&mut self, ring: usize, shed: &Shed, catalogue: &Catalogue) -> Option<Gap> {
        let producer = &mut self.producers[ring];
        let gap = producer.gap.take()?;
        let mut counts = named(gap.later);
        let mut untold = gap.at_the_door;
        for (slot, name, reason, count) in shed.counts() {
            // Refusals that came after the last event that was numbered are for the next report.
            let now = (count - producer.told[slot]).min(untold);
            if now > 0 {
                producer.told[slot] += now;
                untold -= now;
                *counts.entry((catalogue.name(name), reason.as_str())).or_default() += now;
            }
        }
        debug_assert_eq!(untold, 0, "the table counts a refusal before the sum does");
        Some(report(&self.names.of(Origin::Ring(ring)), (gap.first, gap.last), counts))
    }

    /// The losses of other processes' events since the last call.
    pub(crate) fn take_past_gaps(&mut self) -> Vec<Gap> {
        let gaps = self.past.drain();
        gaps.map(|(past, gap)| report(&past.to_string(), (gap.first, gap.last), named(gap.later))).collect()
    }

    /// The number of the next report of the bus itself.
    pub(crate) fn number_report(&mut self) -> u64 {
        self.reports += 1;
        self.reports
    }

    /// The last number of each producer, in the order of the rings.
    pub(crate) fn last_numbers(&self) -> impl Iterator<Item = u64> {
        self.producers.iter().map(|producer| producer.last)
    }

    /// The number that the last offer to `ring` has or will have, if `waiting` events are in the ring and it has refused `refused` offers.
    pub(crate) fn last_offer(&self, ring: usize, waiting: u64, refused: u64) -> u64 {
        let producer = &self.producers[ring];
        producer.last + waiting + refused.saturating_sub(producer.refused)
    }

    fn lost_for(
        &mut self,
        origin: Origin,
        range: (u64, u64),
        count: u64,
        name: &Arc<str>,
        reason: &'static str,
    ) {
        let gap = match origin {
            Origin::Ring(ring) => self.producers[ring].gap.get_or_insert_default(),
            Origin::Past(past) if self.past.len() < PAST_MAX || self.past.contains_key(&past) => {
                self.past.entry(past).or_default()
            }
            // Nobody could tell from a report which events these are.
            Origin::Past(_) | Origin::Log(_) | Origin::Bus => return,
        };
        gap.extend(range.0, range.1);
        let key = (Arc::clone(name), reason);
        if gap.later.len() < NAMED_MAX || gap.later.contains_key(&key) {
            *gap.later.entry(key).or_default() += count;
        } else {
            *gap.later.entry((Arc::clone(&self.other), reason)).or_default() += count;
        }
    }
}

type Counts<N> = BTreeMap<(N, &'static str), u64>;

fn named(later: Counts<Arc<str>>) -> Counts<String> {
    later.into_iter().map(|((name, reason), count)| ((name.to_string(), reason), count)).collect()
}

fn report(producer: &str, (first, last): (u64, u64), counts: Counts<String>) -> Gap {
    let counts: Vec<Loss> = counts
        .into_iter()
        .map(|((name, reason), count)| Loss { name, reason: reason.to_owned(), count })
        .collect();
    let lost = counts.iter().map(|loss| loss.count).sum();
    Gap { producer: producer.to_owned(), first, last, lost, counts }
}

impl OpenGap {
    fn extend(&mut self, first: u64, last: u64) {
        self.first = if self.first == 0 { first } else { self.first.min(first) };
        self.last = self.last.max(last);
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn stamper() -> (Stamper, Shed, Catalogue) {
        (Stamper::new(ProducerNames::new(0xff, 2), 2), Shed::new(), Catalogue::new())
    }

    fn loss(name: &str, reason: &str, count: u64) -> Loss {
        Loss { name: name.to_owned(), reason: reason.to_owned(), count }
    }

    #[test]
    fn names_are_sixteen_digits_and_the_ring() {
        let names = ProducerNames::new(0xff, 2);
        assert_eq!(&*names.of(Origin::Ring(1)), "00000000000000ff.1");
        assert_eq!(&*names.of(Origin::Bus), "00000000000000ff.bus");
    }

    #[test]
    fn the_workers_of_partitions_share_the_names_out() {
        let bus = ProducerNames::new(0xff, 6);
        let names = bus.of_partition(2, 3);
        let named =
            [Origin::Ring(0), Origin::Ring(1), Origin::Bus].map(|origin| names.of(origin).to_string());
        assert_eq!(named, ["00000000000000ff.2", "00000000000000ff.5", "00000000000000ff.2.bus"]);
        assert_eq!(bus.of_partition(0, 1).of(Origin::Bus), bus.of(Origin::Bus));
    }

    #[test]
    fn numbers_are_consecutive_and_leave_a_hole_where_something_was_refused() {
        let (mut stamper, shed, catalogue) = stamper();
        assert_eq!([stamper.number(0, 0), stamper.number(0, 0)], [1, 2]);
        for name in ["a", "a", "b"] {
            shed.count(1, catalogue.intern(name), Reason::QueueFull);
        }
        assert_eq!(stamper.number(0, 3), 6);
        assert_eq!(stamper.number(1, 0), 1, "the other ring has numbers of its own");
        let gap = stamper.take_gap(0, &shed, &catalogue).unwrap();
        assert_eq!((gap.producer.as_str(), gap.first, gap.last, gap.lost), ("00000000000000ff.0", 3, 5, 3));
        assert_eq!(gap.counts, [loss("a", "queue_full", 2), loss("b", "queue_full", 1)]);
        assert!(!stamper.has_gaps() && stamper.take_gap(0, &shed, &catalogue).is_none());
        assert_eq!(stamper.last_numbers().collect::<Vec<_>>(), [6, 1]);
    }

    #[test]
    fn the_last_offer_is_known_before_it_has_its_number() {
        let (mut stamper, ..) = stamper();
        assert_eq!(stamper.number(0, 2), 3);
        assert_eq!(stamper.last_offer(0, 0, 2), 3);
        assert_eq!(stamper.last_offer(0, 4, 7), 12);
        assert_eq!(stamper.last_offer(1, 1, 0), 1);
        let seqs: Vec<u64> = (0..4).map(|_| stamper.number(0, 7)).collect();
        assert_eq!(seqs, [9, 10, 11, 12]);
    }

    #[test]
    fn what_is_lost_after_it_was_numbered_joins_the_gap() {
        let (mut stamper, shed, catalogue) = stamper();
        let name = Arc::from("a");
        let seqs: Vec<u64> = (0..5).map(|_| stamper.number(0, 0)).collect();
        stamper.lost(Origin::Ring(0), seqs[3], &name, Reason::Rejected);
        stamper.lost(Origin::Ring(0), seqs[1], &name, Reason::Rejected);
        stamper.indeterminate(Origin::Ring(0), seqs[2], &name);
        let gap = stamper.take_gap(0, &shed, &catalogue).unwrap();
        assert_eq!((gap.first, gap.last, gap.lost), (2, 4, 3));
        assert_eq!(gap.counts, [loss("a", "indeterminate", 1), loss("a", "rejected", 2)]);
    }

    #[test]
    fn a_refusal_that_has_no_number_yet_waits_for_the_next_gap() {
        let (mut stamper, shed, catalogue) = stamper();
        let name = catalogue.intern("a");
        shed.count(1, name, Reason::QueueFull);
        stamper.number(0, 1);
        shed.count(1, name, Reason::QueueFull);
        assert_eq!(stamper.take_gap(0, &shed, &catalogue).unwrap().lost, 1);
        stamper.pass_refusals(0, 2);
        assert_eq!(stamper.take_gap(0, &shed, &catalogue).unwrap().lost, 1);
    }

    #[test]
    fn a_count_that_another_thread_saw_earlier_makes_no_second_hole() {
        let (mut stamper, ..) = stamper();
        assert_eq!(stamper.number(0, 2), 3);
        assert_eq!(stamper.number(0, 1), 4);
        assert_eq!(stamper.number(0, 2), 5);
    }
}
