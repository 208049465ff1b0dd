//! Parked messages that came to the front of the window stand aside, so that the window goes on behind them.

use super::{Entry, State, Window};
use std::collections::BTreeMap;

/// Messages of events that stand aside, or how many may. Reports of the bus always may: they are few, and take no room from events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// They are parked, or are being tried, and are gone as soon as they are settled. Each has its payload with it.
#[derive(Debug, Default)]
pub(super) struct Aside {
    entries: BTreeMap<u64, Entry>,
    taken: Room,
    max: Room,
}

impl Aside {
    pub(super) fn new(max: Room) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn taken(&self) -> Room {
        self.taken
    }

    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    /// In the order of their numbers, which are lower than those of the window.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.values_mut()
    }

    /// The same, from this number on.
    pub(super) fn from(&mut self, number: u64) -> impl Iterator<Item = &mut Entry> {
        self.entries.range_mut(number..).map(|(_, entry)| entry)
    }

    pub(super) fn put(&mut self, entry: Entry) {
        if !entry.message.is_report() {
            self.taken.messages += 1;
            self.taken.bytes += bytes_of(&entry);
        }
        self.entries.insert(entry.number, entry);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if !entry.message.is_report() {
            self.taken.messages -= 1;
            self.taken.bytes -= bytes_of(&entry);
        }
        Some(entry)
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        let events = self.entries().filter(|entry| !entry.message.is_report());
        let taken = events.fold((0, 0), |(messages, bytes), entry| (messages + 1, bytes + bytes_of(entry)));
        assert_eq!((self.taken.messages, self.taken.bytes), taken);
        assert!(self.entries().all(|entry| !entry.is_settled()));
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.taken.messages < self.max.messages && self.taken.bytes + bytes <= self.max.bytes
    }
}

fn bytes_of(entry: &Entry) -> usize {
    match (&entry.own, &entry.message.packed) {
        (Some(payload), _) => payload.len(),
        (None, packed) => packed.as_ref().map_or(0, |packed| packed.bytes()),
    }
}

impl Window {
    /// The message waits for its subject, however often the others are sent.
    pub(crate) fn park(&mut self, number: u64) {
        let is_entry = self.index(number).is_some();
        let Some(entry) = self.entry(number).filter(|entry| entry.state == State::Waiting) else { return };
        entry.state = State::Parked;
        self.parked += 1;
        self.waiting -= usize::from(is_entry);
        self.advance();
    }

    pub(super) fn may_stand_aside(&self, front: &Entry) -> bool {
        let bytes = || self.payload_of(front).len();
        front.state == State::Parked && (front.message.is_report() || self.aside.has_room(bytes()))
    }

    /// The first of the window leaves it: what is parked stands aside, and what is settled is gone.
    pub(super) fn leave_front(&mut self) {
        let Some(front) = self.entries.front() else { return };
        let is_parked = front.state == State::Parked;
        let own: Option<Box<[u8]>> = match front.place {
            Some(_) if is_parked => Some(self.payload_of(front).into()),
            _ => None,
        };
        let Some(mut front) = self.entries.pop_front() else { return };
        match (front.place.take(), &front.message.packed) {
            (Some(place), _) => self.payloads.pop(place),
            (None, packed) => self.frame_bytes -= packed.as_ref().map_or(0, |packed| packed.bytes()),
        }
        self.pieces -= usize::from(front.is_piece());
        if is_parked {
            front.own = own;
            self.aside.put(front);
        } else {
            self.settled -= 1;
        }
    }
}
