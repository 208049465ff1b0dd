//! What is known of the parked subjects.

use crate::publisher::retry::{Backoff, Cause};
use crate::publisher::window::{Entry, Lane, Message, Window};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Subjects that are remembered as parked.
const SUBJECTS_MAX: usize = 1024;

pub(super) const TRY_BASE: Duration = Duration::from_millis(50);
/// Once the cause is gone, all must flow again within two seconds.
pub(super) const TRY_MAX: Duration = Duration::from_secs(1);

/// The parked subjects, and what waits.
#[derive(Debug, Default)]
pub(crate) struct Lot {
    pub(super) subjects: HashMap<Bytes, Parked>,
    /// By lane what waits or is tried.
    pub(super) lanes: HashMap<Lane, BTreeSet<u64>>,
    /// By lane the last message that is stored, since anything is parked.
    pub(super) stored: HashMap<Lane, u64>,
    /// To be tried as soon as something may be sent.
    pub(super) due: BTreeSet<u64>,
    /// What is being tried is not sent in the order of its numbers. So each has the floor of when it was sent.
    pub(super) floors: BTreeMap<u64, u64>,
    pub(super) events: usize,
    pub(super) reports: usize,
    pub(super) bytes: usize,
    /// When a subject is to be tried next, or somewhat before.
    pub(super) due_at: Option<Instant>,
    /// The latest sending of a message that was stored and is not one of ours.
    pub(super) proof: Option<Instant>,
    /// Since when batches wait for those that are tried, and until when these wait for batches.
    pub(super) trying_since: Option<Instant>,
    pub(super) quiet_until: Option<Instant>,
    /// Looks in a row after each of which nobody answered a message.
    pub(crate) unheard: u32,
}

#[derive(Debug)]
pub(super) struct Parked {
    pub(super) since: Instant,
    pub(super) cause: Cause,
    /// The server has said that it is this subject, or only this message.
    pub(super) is_certain: bool,
    /// By number.
    pub(super) members: BTreeSet<u64>,
    /// Of these: to be sent, or sent.
    pub(super) tried: BTreeSet<u64>,
    /// How many are tried at once.
    pub(super) group: usize,
    pub(super) retry_at: Instant,
    pub(super) backoff: Backoff,
}

impl Lot {
    /// Whether nothing is parked, which is nearly always so.
    pub(crate) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    pub(super) fn holds(&self, subject: &Bytes) -> bool {
        self.subjects.contains_key(subject)
    }

    pub(super) fn has(&self, number: u64, subject: &Bytes) -> bool {
        self.subjects.get(subject).is_some_and(|parked| parked.members.contains(&number))
    }

    /// Whether a later message of its lane is stored that may have left the window.
    pub(crate) fn is_overtaken(&self, lane: &Lane, number: u64) -> bool {
        self.stored.get(lane).is_some_and(|&stored| stored > number)
    }

    /// Whether it is being tried, out of the order of its number.
    pub(crate) fn is_tried(&self, number: u64) -> bool {
        self.floors.contains_key(&number)
    }

    /// The lowest of the floors.
    pub(crate) fn floor(&self) -> Option<u64> {
        self.floors.values().copied().min()
    }

    /// The stream is shorter than we knew, or another one.
    pub(crate) fn lower_floors(&mut self, floor: u64) {
        self.floors.values_mut().for_each(|known| *known = floor.min(*known));
    }

    /// Notes which lanes have something stored, as of now.
    pub(super) fn begin(&mut self, window: &Window) {
        for number in window.numbers() {
            let Some(entry) = window.get(number).filter(|entry| entry.stored) else { continue };
            self.stored.insert(entry.message.lane(), number);
        }
    }

    pub(super) fn put(&mut self, number: u64, entry: &Entry, bytes: usize) {
        let (message, subject) = (&entry.message, &entry.message.route.subject);
        let Some(parked) = self.subjects.get_mut(subject) else { return };
        if !parked.members.insert(number) {
            return;
        }
        if message.is_report() {
            self.reports += 1;
        } else {
            self.events += 1;
            self.bytes += bytes;
            self.lanes.entry(message.lane()).or_default().insert(number);
        }
    }

    /// It has met its fate.
    pub(crate) fn forget(&mut self, number: u64, message: &Message, bytes: usize) {
        self.due.remove(&number);
        self.floors.remove(&number);
        let Some(parked) = self.subjects.get_mut(&message.route.subject) else { return };
        if !parked.members.remove(&number) {
            return;
        }
        parked.tried.remove(&number);
        if message.is_report() {
            self.reports -= 1;
        } else {
            self.events -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            let lane = message.lane();
            if let Some(numbers) = self.lanes.get_mut(&lane) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.lanes.remove(&lane);
                }
            }
        }
        if parked.tried.is_empty() {
            let at = parked.retry_at;
            self.try_at(at);
        }
    }

    /// A frame was cut, and these are its pieces.
    pub(crate) fn replace(
        &mut self,
        number: u64,
        whole: &Message,
        bytes: usize,
        pieces: &[u64],
        window: &Window,
    ) {
        let subject = &whole.route.subject;
        if !self.has(number, subject) {
            return;
        }
        let is_due = self.due.contains(&number);
        self.forget(number, whole, bytes);
        for &piece in pieces {
            let Some(entry) = window.get(piece) else { continue };
            self.put(piece, entry, window.payload_of(entry).len());
            if let Some(parked) = self.subjects.get_mut(subject).filter(|_| is_due) {
                parked.tried.insert(piece);
                self.due.insert(piece);
            }
        }
    }

    /// It is not being tried any more.
    pub(super) fn untry(&mut self, number: u64, subject: &Bytes) {
        self.due.remove(&number);
        self.floors.remove(&number);
        if let Some(parked) = self.subjects.get_mut(subject) {
            parked.tried.remove(&number);
        }
    }

    pub(super) fn try_at(&mut self, at: Instant) {
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    /// A message to this subject was refused.
    pub(super) fn refused(
        &mut self,
        now: Instant,
        subject: &Bytes,
        cause: Cause,
        is_certain: bool,
        seed: u64,
    ) -> bool {
        if self.subjects.len() >= SUBJECTS_MAX && !self.holds(subject) {
            self.subjects.retain(|_, parked| !parked.members.is_empty());
            if self.subjects.len() >= SUBJECTS_MAX {
                return false;
            }
        }
        let parked = self.subjects.entry(subject.clone()).or_insert_with(|| Parked {
            since: now,
            cause,
            is_certain,
            members: BTreeSet::new(),
            tried: BTreeSet::new(),
            group: 1,
            retry_at: now,
            backoff: Backoff::new(TRY_BASE, TRY_MAX, seed),
        });
        (parked.cause, parked.is_certain) = (cause, is_certain);
        parked.group = 1;
        if parked.retry_at <= now {
            parked.retry_at = now + parked.backoff.next();
        }
        // Those that were to follow wait again.
        let (waiting, at): (Vec<u64>, _) = (
            parked.tried.iter().copied().filter(|number| self.due.contains(number)).collect(),
            parked.retry_at,
        );
        for number in waiting {
            self.due.remove(&number);
            parked.tried.remove(&number);
        }
        self.try_at(at);
        true
    }

    /// A message to this subject was stored.
    pub(super) fn succeeded(&mut self, now: Instant, subject: &Bytes) {
        let Some(parked) = self.subjects.get_mut(subject) else { return };
        parked.backoff.reset();
        parked.group = parked.group.saturating_mul(2);
        parked.retry_at = now;
        if parked.members.is_empty() {
            self.subjects.remove(subject);
        } else if parked.tried.is_empty() {
            self.try_at(now);
        }
        self.end_if_empty();
    }

    pub(super) fn end_if_empty(&mut self) {
        if self.subjects.is_empty() {
            *self = Self { quiet_until: self.quiet_until, unheard: self.unheard, ..Self::default() };
        }
    }

    /// Whether another message proves that the stream works, so that it is this subject.
    pub(super) fn is_proven(&self, parked: &Parked) -> bool {
        parked.is_certain || self.proof > Some(parked.since)
    }
}
