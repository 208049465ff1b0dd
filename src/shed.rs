//! Counts of what was refused at the door, by event name and reason, kept by the hot threads themselves.
//!
//! A refusal must be as cheap as the publish that it replaces and must not be lost, so it is counted without a lock and
//! without an allocation, in tables of a fixed size made when the bus starts:
//!
//! - the [`Catalogue`] of a bus gives each event name a small number, up to [`NAMES_MAX`] of them;
//! - the [`Shed`] of a ring counts by (name, reason), up to [`COUNTS_MAX`] pairs.
//!
//! What finds no room in a table is counted under the name `_other`, with its true reason. So totals are always exact, and
//! only names can be lost, in a service with hundreds of them.

use crate::ledger::{Dropped, Reason};
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;

/// Names that a bus tells apart in its counts of loss.
pub(crate) const NAMES_MAX: usize = 256;

/// Pairs of name and reason that a ring tells apart in its counts of loss.
pub(crate) const COUNTS_MAX: usize = 128;

/// Longer names are counted as `_other`.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Slots looked at before a table counts as full; bounds the time of a refusal.
const PROBES_MAX: usize = 16;

/// The number of an event name in a [`Catalogue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameId(u16);

impl NameId {
    /// The name of what has no number of its own.
    pub(crate) const OTHER: Self = Self(NAMES_MAX as u16);

    /// The number itself, below [`NAMES_MAX`] but for [`OTHER`](Self::OTHER).
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

/// Event names and their numbers. Only grows.
pub(crate) struct Catalogue {
    slots: Box<[NameSlot]>,
}

/// A name, written once, as words, so that writing and reading it are plain atomic accesses.
struct NameSlot {
    /// Zero: empty. [`WRITING`]: a thread is writing the name. Else: the name's length.
    state: AtomicU64,
    words: [AtomicU64; NAME_BYTES_MAX / 8],
}

const WRITING: u64 = u64::MAX;

/// A name is being written by another thread, at a place where this one could stand.
struct Busy;

/// How often one that can wait looks again. Writing a name is ten stores.
const PATIENCE: usize = 1000;

impl NameSlot {
    /// Whether it holds this name.
    #[inline]
    fn is(&self, state: u64, name: &str, words: &[u64]) -> bool {
        state == name.len() as u64
            && self.words.iter().zip(words).all(|(is, &word)| is.load(Ordering::Relaxed) == word)
    }
}

impl Catalogue {
    pub(crate) fn new() -> Self {
        let slot = || NameSlot {
            state: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; NAME_BYTES_MAX / 8],
        };
        Self { slots: (0..NAMES_MAX).map(|_| slot()).collect() }
    }

    /// The number of `name`, given out now if it has none yet.
    pub(crate) fn intern(&self, name: &str) -> NameId {
        self.find_or_insert(name).unwrap_or(NameId::OTHER)
    }

    /// As [`intern`](Self::intern), for who can wait until another thread has written a name that may be this one.
    ///
    /// A topic keeps its number, so it must not be [`NameId::OTHER`] only because of what was going on when it was made.
    pub(crate) fn intern_patiently(&self, name: &str) -> NameId {
        for _ in 0..PATIENCE {
            match self.find_or_insert(name) {
                Ok(id) => return id,
                Err(Busy) => std::thread::yield_now(),
            }
        }
        // The other thread does not run any more: this is a forked child.
        NameId::OTHER
    }

    fn find_or_insert(&self, name: &str) -> Result<NameId, Busy> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Ok(NameId::OTHER);
        }
        let (words, filled) = words_of(name);
        let words = &words[..filled];
        for index in probes(hash(words), NAMES_MAX) {
            let slot = &self.slots[index];
            // Acquire: pairs with the Release below; the words are there.
            let mut state = slot.state.load(Ordering::Acquire);
            if state == 0 {
                match slot.state.compare_exchange(0, WRITING, Ordering::Acquire, Ordering::Acquire) {
                    Ok(_) => {
                        slot.words
                            .iter()
                            .zip(words)
                            .for_each(|(to, &word)| to.store(word, Ordering::Relaxed));
                        slot.state.store(name.len() as u64, Ordering::Release);
                        return Ok(NameId(index as u16));
                    }
                    Err(current) => state = current,
                }
            }
            if state == WRITING {
                // It may be our name that is being written; waiting for another thread is out of the question.
                return Err(Busy);
            }
            if slot.is(state, name, words) {
                return Ok(NameId(index as u16));
            }
        }
        Ok(NameId::OTHER)
    }

    /// The number of `name`, if it has one.
    ///
    /// What was given out before is found: the slots that are looked at before it were taken already when it was.
    #[inline]
    pub(crate) fn lookup(&self, name: &str) -> Option<NameId> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        let (words, filled) = words_of(name);
        let words = &words[..filled];
        for index in probes(hash(words), NAMES_MAX) {
            let slot = &self.slots[index];
            // Acquire: pairs with the Release in `find_or_insert`.
            match slot.state.load(Ordering::Acquire) {
                0 => return None,
                state if slot.is(state, name, words) => return Some(NameId(index as u16)),
                _ => {}
            }
        }
        None
    }

    pub(crate) fn name(&self, id: NameId) -> String {
        let Some(slot) = self.slots.get(usize::from(id.0)) else { return "_other".to_owned() };
        // Acquire: pairs with the Release in `find_or_insert`.
        let len = slot.state.load(Ordering::Acquire) as usize;
        let bytes: Vec<u8> =
            slot.words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        String::from_utf8_lossy(&bytes[..len.min(NAME_BYTES_MAX)]).into_owned()
    }
}

/// The refusals of one ring.
///
/// A refusal is counted by plain additions where only one thread adds: the first thread of a ring that is refused anything owns
/// one of the two tables. Others share the second one, and pay for locked additions.
pub(crate) struct Shed {
    /// The number of the thread that owns the first table; zero: none yet. Written once.
    owner: AtomicU64,
    owned: Counts,
    shared: Counts,
}

/// A table of counts.
struct Counts {
    /// All refusals of this table. Travels in each record as the number of losses before it, so that the worker knows where in
    /// the sequence the hole is.
    lost: AtomicU64,
    /// Key (16 bits) and count (48 bits) in one word, so that a key is never seen without its count. The first words
    /// belong to `_other`, one for each reason.
    slots: Box<[AtomicU64; COUNTS_SLOTS]>,
}

/// Words of a table of counts.
const COUNTS_SLOTS: usize = Reason::ALL.len() + COUNTS_MAX;

const COUNT_BITS: u32 = 48;

impl Shed {
    pub(crate) fn new() -> Self {
        Self { owner: AtomicU64::new(0), owned: Counts::new(), shared: Counts::new() }
    }

    /// Counts one refusal, of the thread of this [number](crate::thread::Thread::number).
    #[inline]
    pub(crate) fn count(&self, thread: u64, name: NameId, reason: Reason) {
        if self.is_owned_by(thread) {
            let slot = self.owned.slot(name, reason);
            // Relaxed and Release as below. Nobody else stores to this table.
            slot.store(slot.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.owned.lost.store(self.owned.lost.load(Ordering::Relaxed) + 1, Ordering::Release);
            return;
        }
        self.shared.slot(name, reason).fetch_add(1, Ordering::Relaxed);
        // Release: pairs with the Acquire in `lost`, so that who sees the sum sees its parts.
        self.shared.lost.fetch_add(1, Ordering::Release);
    }

    /// Refusals so far.
    #[inline]
    pub(crate) fn lost(&self) -> u64 {
        self.owned.lost.load(Ordering::Acquire) + self.shared.lost.load(Ordering::Acquire)
    }

    /// Refusals by table slot, name and reason. Their sum is at least what [`lost`](Self::lost) said before.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (usize, NameId, Reason, u64)> + '_ {
        self.owned.slots.iter().chain(&*self.shared.slots).enumerate().filter_map(|(slot, word)| {
            let word = word.load(Ordering::Relaxed);
            let key = word >> COUNT_BITS;
            let reason = *Reason::ALL.get(usize::try_from(key & 0xF).ok()?)?;
            let name = NameId(u16::try_from((key >> 4).checked_sub(1)?).ok()?);
            Some((slot, name, reason, word & ((1 << COUNT_BITS) - 1)))
        })
    }

    /// Table slots, for who keeps a number for each.
    pub(crate) const SLOTS: usize = 2 * COUNTS_SLOTS;

    /// Refusals by reason.
    pub(crate) fn by_reason(&self) -> Dropped {
        let mut dropped = Dropped::default();
        self.counts().for_each(|(_, _, reason, count)| dropped.add(reason, count));
        dropped
    }

    #[inline]
    fn is_owned_by(&self, thread: u64) -> bool {
        // Relaxed: a thread recognises its own number, which it alone has written.
        match self.owner.load(Ordering::Relaxed) {
            0 => self.owner.compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed).is_ok(),
            owner => owner == thread,
        }
    }
}

impl Counts {
    fn new() -> Self {
        let others = Reason::ALL.map(|reason| key(NameId::OTHER, reason));
        let word = |index: usize| AtomicU64::new(others.get(index).copied().unwrap_or(0));
        Self { lost: AtomicU64::new(0), slots: Box::new(std::array::from_fn(word)) }
    }

    #[inline(always)]
    fn slot(&self, name: NameId, reason: Reason) -> &AtomicU64 {
        let key = key(name, reason);
        let word = &self.slots[first_slot(key)];
        // Nearly always it is there already, at the first place where one looks.
        if word.load(Ordering::Relaxed) >> COUNT_BITS == key >> COUNT_BITS {
            return word;
        }
        self.search(key, name, reason)
    }

    #[cold]
    #[inline(never)]
    fn search(&self, key: u64, name: NameId, reason: Reason) -> &AtomicU64 {
        let other = &self.slots[reason as usize];
        if name == NameId::OTHER {
            return other;
        }
        let slots = &self.slots[Reason::ALL.len()..];
        for index in probes(key >> COUNT_BITS, COUNTS_MAX) {
            let word = &slots[index];
            // A look first: an exchange in vain costs as much as one that counts.
            let current = word.load(Ordering::Relaxed);
            if current >> COUNT_BITS == key >> COUNT_BITS || (current == 0 && claim(word, key)) {
                return word;
            }
        }
        other
    }
}

/// Where the search for a key begins.
#[inline(always)]
fn first_slot(key: u64) -> usize {
    Reason::ALL.len() + first_probe(key >> COUNT_BITS) % COUNTS_MAX
}

/// Gives an empty slot its key. True also if another thread has just given it the same one.
#[cold]
fn claim(slot: &AtomicU64, key: u64) -> bool {
    match slot.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(current) => current >> COUNT_BITS == key >> COUNT_BITS,
    }
}

#[inline]
fn key(name: NameId, reason: Reason) -> u64 {
    ((u64::from(name.0) + 1) << 4 | reason as u64) << COUNT_BITS
}

/// The name as words, and how many of them it fills; the rest is zero.
fn words_of(name: &str) -> ([u64; NAME_BYTES_MAX / 8], usize) {
    let mut bytes = [0; NAME_BYTES_MAX];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let (chunks, _) = bytes.as_chunks::<8>();
    let mut words = [0; NAME_BYTES_MAX / 8];
    words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u64::from_le_bytes(*chunk));
    (words, name.len().div_ceil(8))
}

fn hash(words: &[u64]) -> u64 {
    words.iter().fold(0, |hash: u64, word| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95))
}

fn probes(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    let start = first_probe(hash);
    (0..PROBES_MAX).map(move |step| (start + step) % slots)
}

#[inline(always)]
fn first_probe(hash: u64) -> usize {
    // The high bits are those that depend on all of the hash.
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_gives_it_back() {
        let catalogue = Catalogue::new();
        let ids: Vec<_> = (0..100).map(|i| catalogue.intern(&format!("event{i}"))).collect();
        for (i, &id) in ids.iter().enumerate() {
            let name = format!("event{i}");
            assert_eq!(catalogue.intern(&name), id);
            if id != NameId::OTHER {
                assert_eq!(catalogue.name(id), name);
            }
        }
        let numbered = ids.iter().filter(|&&id| id != NameId::OTHER).count();
        assert!(numbered >= 99, "only {numbered} of 100 names found a place in a table of {NAMES_MAX}");
    }

    #[test]
    fn a_name_is_looked_up_without_a_number_being_given_out() {
        let catalogue = Catalogue::new();
        assert_eq!(catalogue.lookup("a"), None);
        let ids: Vec<_> = (0..200).map(|i| catalogue.intern_patiently(&format!("event{i}"))).collect();
        for (i, id) in ids.into_iter().enumerate() {
            let expected = (id != NameId::OTHER).then_some(id);
            assert_eq!(catalogue.lookup(&format!("event{i}")), expected);
        }
        assert_eq!(
            (catalogue.lookup("a"), catalogue.lookup(""), catalogue.lookup(&"x".repeat(65))),
            (None, None, None)
        );
    }

    #[test]
    fn who_can_wait_gets_the_number_that_another_thread_is_giving_out() {
        for round in 0..200 {
            let catalogue = Catalogue::new();
            let name = format!("event{round}");
            let ids: Vec<_> = std::thread::scope(|scope| {
                let intern = || catalogue.intern_patiently(&name);
                let threads = [(); 4].map(|()| scope.spawn(intern));
                threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
            });
            assert!(ids[0] != NameId::OTHER && ids.iter().all(|&id| id == ids[0]), "{ids:?}");
        }
    }

    #[test]
    fn names_that_find_no_room_are_other_and_are_still_counted() {
        let (catalogue, shed) = (Catalogue::new(), Shed::new());
        assert_eq!(catalogue.intern(&"x".repeat(65)), NameId::OTHER);
        for i in 0..5000 {
            shed.count(1, catalogue.intern(&format!("name-{i}")), Reason::QueueFull);
        }
        assert_eq!(shed.lost(), 5000);
        assert_eq!(shed.by_reason().get(Reason::QueueFull), 5000);
        assert_eq!(shed.counts().map(|(.., count)| count).sum::<u64>(), 5000);
        assert!(shed.counts().any(|(_, name, _, count)| name == NameId::OTHER && count > 4000));
    }

    #[test]
    fn counts_of_many_threads_add_up_by_name_and_reason() {
        let (catalogue, shed) = (Catalogue::new(), Shed::new());
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let (catalogue, shed) = (&catalogue, &shed);
                scope.spawn(move || {
                    for i in 0..10_000 {
                        let name = catalogue.intern(["a", "b"][i % 2]);
                        shed.count(thread, name, [Reason::QueueFull, Reason::Serialize][i % 4 / 2]);
                    }
                });
            }
        });
        assert_eq!(shed.lost(), 40_000);
        assert_eq!(shed.owned.lost.load(Ordering::Relaxed), 10_000, "one of the four owns the first table");
        assert_eq!(shed.by_reason().get(Reason::Serialize), 20_000);
        let named: u64 =
            shed.counts().filter(|&(_, name, ..)| name != NameId::OTHER).map(|(.., count)| count).sum();
        assert!(named >= 39_000, "only the first moments may be counted as _other, {named} were named");
    }
}
