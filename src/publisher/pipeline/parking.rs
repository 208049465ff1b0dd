//! Messages that are refused for what they are, or for where they go, while others are taken: their subject is *parked*.
//!
//! ```text
//!            refused                       time is up                      stored
//!   sent ─────────────► parked ──────────────────────────► tried ─────────────────────► the next ones, twice as many
//!                        ▲  │                                │
//!                        │  └─ a later one of its lane       │ refused
//!                        │     is stored: dropped            │
//!                        └───────────────────────────────────┘
//! ```
//!
//! A subject is parked as long as the server refuses it. Its messages wait in their order, and those that come later wait behind them without
//! being sent. After a while the first is tried. If it is stored, twice as many follow, and so on until nobody waits. Else it waits again, a
//! little longer. All others go on meanwhile, and do not notice.
//!
//! **Order.** What waits can be overtaken: a later event of the same lane goes to another subject and is stored. Then the one that waits could
//! only be stored behind it, and is dropped as `rejected`, as any other that was refused while a later one was stored. Reports of the bus
//! have no order, and are never dropped for that.
//!
//! **Room.** What waits holds a part of the window ([`SHARE`]) at most, in messages and in bytes. It stands aside (see
//! [`window`](crate::publisher::window)), so the window goes on behind it. What is above is dropped as `rejected`, the newest first.
//!
//! **Doubt.** Most codes say whom they concern. For an unknown one, and for a subject that nobody answers, we only suspect that it is this
//! subject: then nothing is dropped for want of room before another message was stored that was sent later, which proves that the stream
//! works. And if two subjects get an unknown code, and nothing is stored in between, everything waits for a moment after each.
//!
//! **Batches.** A refusal ends a batch, and so messages are tried between two batches, one by one, with an acknowledgement for each. What that
//! takes is at most one part in [`PACE`] of the time.

mod lot;

pub(super) use self::lot::Lot;

use self::lot::{Parked, TRY_BASE, TRY_MAX};
use super::{Link, Pipeline, State};
use crate::ledger::Reason;
use crate::publisher::batch::Stage;
use crate::publisher::engine::Engine;
use crate::publisher::retry::Cause;
use crate::publisher::window::{Entry, Lane};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// The part of the window that parked messages hold at most.
pub(super) const SHARE: usize = 4;

/// Reports of the bus that are parked at most. They are few: of each kind one is on its way at a time.
const REPORTS_MAX: usize = 16;

/// How long a parked subject is remembered of which nothing waits.
const MEMORY: Duration = Duration::from_secs(10);

/// After a pause for trying, batches have this many times as long.
const PACE: u32 = 16;

/// A subject to which nobody answers is parked after so many looks in a row that found the stream there, and taking it.
const LOOKS_MAX: u32 = 3;

/// What is known of a message before it is settled.
pub(super) struct Watched {
    lane: Lane,
    subject: Bytes,
    sent_at: Option<Instant>,
    is_report: bool,
    is_member: bool,
}

impl Pipeline {
    // ---- refused -----------------------------------------------------------------------------------------------------------

    /// A message waits that was refused for what it is or where it goes: its subject is parked. Returns what everybody has to wait for, if the
    /// message may be stored all the same, or if it is not this subject alone.
    pub(super) fn park(
        &mut self,
        now: Instant,
        number: u64,
        cause: Cause,
        is_certain: bool,
    ) -> Option<Cause> {
        let entry = self.window.get(number).filter(|entry| !entry.is_settled())?;
        let (subject, lane) = (entry.message.route.subject.clone(), entry.message.lane());
        let is_first = entry.attempts == 1 && !entry.is_left_behind;
        let (is_in_doubt, is_report) = (entry.is_in_doubt(), entry.message.is_report());
        self.lot.untry(number, &subject);
        let is_new = !self.lot.holds(&subject);
        if self.lot.is_empty() {
            self.lot.begin(&self.window);
        }
        let others_are_suspect = !is_certain
            && is_new
            && self.lot.subjects.values().any(|other| !other.is_certain && !self.lot.is_proven(other));
        let is_kept =
            self.lot.refused(now, &subject, cause, is_certain, self.batches ^ number.rotate_left(20));
        if is_in_doubt {
            // The stream is read before anything is decided.
            return Some(cause);
        }
        if !is_report && self.lot.is_overtaken(&lane, number) {
            self.drop_one_overtaken(now, number, is_first);
        } else if is_kept {
            self.set_waiting(number);
            self.keep_the_share(now);
        } else {
            self.refuse(now, number, Reason::Rejected);
        }
        others_are_suspect.then_some(cause)
    }

    /// Whether a message that would be sent now waits instead, since its subject is parked.
    pub(super) fn waits_parked(&mut self, now: Instant, number: u64) -> bool {
        if self.lot.is_empty() {
            return false;
        }
        let Some(entry) = self.window.get(number) else { return false };
        if !self.lot.holds(&entry.message.route.subject) {
            return false;
        }
        self.set_waiting(number);
        self.keep_the_share(now);
        true
    }

    fn set_waiting(&mut self, number: u64) {
        let Some(entry) = self.window.get(number) else { return };
        let bytes = self.window.payload_of(entry).len();
        self.lot.put(number, entry, bytes);
        let subject = entry.message.route.subject.clone();
        self.window.park(number);
        if let Some(parked) = self.lot.subjects.get(&subject).filter(|parked| parked.tried.is_empty()) {
            let at = parked.retry_at;
            self.lot.try_at(at);
        }
    }

    /// Drops the newest of what waits above its share of the window, where it is certain that it is not the stream that refuses.
    fn keep_the_share(&mut self, now: Instant) {
        let (events_max, bytes_max) = (self.limits.window_events / SHARE, self.limits.window_bytes / SHARE);
        loop {
            let has_many_reports = self.lot.reports > REPORTS_MAX;
            let is_over = self.lot.events > events_max || self.lot.bytes > bytes_max;
            if !is_over && !has_many_reports {
                return;
            }
            let is_droppable = |number: &u64| {
                self.window.get(*number).is_some_and(|entry| {
                    entry.state == State::Parked
                        && if entry.message.is_report() { has_many_reports } else { is_over }
                })
            };
            // Nothing is dropped of a subject that is being tried, or is about to be.
            let rests = |parked: &&Parked| parked.tried.is_empty() && now < parked.retry_at;
            let proven = self.lot.subjects.values().filter(rests).filter(|one| self.lot.is_proven(one));
            let newest =
                proven.filter_map(|parked| parked.members.iter().rev().copied().find(is_droppable)).max();
            let Some(number) = newest else { return };
            let why = "more events wait for subjects that take none than there is room for";
            self.notices.refused(Reason::Rejected, || why.to_owned());
            self.refuse(now, number, Reason::Rejected);
        }
    }

    // ---- stored ------------------------------------------------------------------------------------------------------------

    /// Looks at a message that is about to be settled as stored.
    pub(super) fn watch(&self, number: u64) -> Option<Watched> {
        if self.lot.is_empty() {
            return None;
        }
        let entry = self.window.get(number)?;
        let (message, subject) = (&entry.message, &entry.message.route.subject);
        let sent_at = if let State::Sent { at, .. } = entry.state { Some(at) } else { None };
        Some(Watched {
            lane: message.lane(),
            subject: subject.clone(),
            sent_at,
            is_report: message.is_report(),
            is_member: self.lot.has(number, subject),
        })
    }

    /// It is stored: those that wait in front of it never will be, and those behind it may follow.
    #[cold]
    pub(super) fn pass_on(&mut self, now: Instant, number: u64, watched: &Watched) {
        if watched.is_member {
            self.lot.succeeded(now, &watched.subject);
        } else {
            self.lot.proof = self.lot.proof.max(watched.sent_at);
        }
        if !watched.is_report {
            let stored = self.lot.stored.entry(watched.lane.clone()).or_default();
            *stored = number.max(*stored);
            self.drop_passed(now, number, &watched.lane);
        }
        self.keep_the_share(now);
    }

    fn drop_passed(&mut self, now: Instant, number: u64, lane: &Lane) {
        let Some(waiting) = self.lot.lanes.get(lane) else { return };
        let is_parked =
            |number: &u64| self.window.get(*number).is_some_and(|entry| entry.state == State::Parked);
        let passed: Vec<u64> = waiting.range(..number).copied().filter(is_parked).collect();
        for number in passed {
            let is_certain =
                self.window.get(number).is_some_and(|entry| entry.attempts <= 1 && !entry.is_left_behind);
            self.drop_one_overtaken(now, number, is_certain);
        }
    }

    // ---- tried -------------------------------------------------------------------------------------------------------------

    /// The next message that is to be tried, if there is one.
    pub(super) fn next_tried(&mut self, now: Instant) -> Option<u64> {
        loop {
            self.choose_tried(now);
            let number = self.first_in_turn()?;
            if self.ends_untold(now, number) || self.cut_if_too_large(number) {
                continue;
            }
            self.lot.due.remove(&number);
            let is_open = |entry: &Entry| matches!(entry.state, State::Parked | State::Waiting);
            if !self.window.get(number).is_some_and(is_open) {
                continue;
            }
            match self.obstacle(now, number) {
                None => {
                    self.lot.floors.insert(number, self.floor);
                    return Some(number);
                }
                Some(reason) => self.refuse(now, number, reason),
            }
        }
    }

    /// The first that is due and has nothing of its lane in front of it that waits to be sent in its turn, as after a trouble.
    fn first_in_turn(&self) -> Option<u64> {
        self.lot.due.iter().copied().find(|&number| self.is_in_turn(number))
    }

    fn is_in_turn(&self, number: u64) -> bool {
        let Some(message) = self.window.get(number).map(|entry| &entry.message) else { return true };
        let lane = message.lane();
        let is_before = |entry: &Entry| entry.message.lane() == lane;
        message.is_report() || !self.window.waiting_before(number).any(is_before)
    }

    /// Chooses what is to be tried of the subjects whose time has come: the first of each, or more if some were stored; and before them
    /// what waits of the same lane, as it would be overtaken.
    fn choose_tried(&mut self, now: Instant) {
        if self.lot.due_at.is_none_or(|at| now < at) {
            return;
        }
        let Self { lot, window, .. } = self;
        let mut next_at: Option<Instant> = None;
        let mut chosen: Vec<u64> = Vec::new();
        lot.subjects.retain(|_, parked| !parked.members.is_empty() || now < parked.retry_at + MEMORY);
        for parked in lot.subjects.values_mut() {
            if parked.members.is_empty() || !parked.tried.is_empty() {
                continue;
            }
            if now < parked.retry_at {
                next_at = Some(next_at.map_or(parked.retry_at, |at| at.min(parked.retry_at)));
                continue;
            }
            chosen.extend(parked.members.iter().take(parked.group));
        }
        lot.due_at = next_at;
        lot.end_if_empty();
        if chosen.is_empty() {
            return;
        }
        let mut passed: HashMap<Lane, u64> = HashMap::new();
        for &number in &chosen {
            if let Some(entry) = window.get(number).filter(|entry| !entry.message.is_report()) {
                let last = passed.entry(entry.message.lane()).or_default();
                *last = number.max(*last);
            }
        }
        for (lane, last) in passed {
            chosen.extend(lot.lanes.get(&lane).into_iter().flat_map(|numbers| numbers.range(..last)));
        }
        // What was sent already and stands behind it may be stored, and is waited for.
        let mut sent: HashMap<Lane, u64> = HashMap::new();
        for number in window.numbers() {
            let is_sent = |entry: &&Entry| matches!(entry.state, State::Sent { .. });
            if let Some(entry) = window.get(number).filter(is_sent) {
                sent.insert(entry.message.lane(), number);
            }
        }
        let chosen: HashSet<u64> = chosen.into_iter().collect();
        for number in chosen {
            let Some(entry) = window.get(number) else { continue };
            if matches!(entry.state, State::Sent { .. }) {
                continue;
            }
            let lane = entry.message.lane();
            if !entry.message.is_report() && sent.get(&lane).is_some_and(|&later| later > number) {
                lot.try_at(now + TRY_BASE);
                continue;
            }
            if let Some(parked) = lot.subjects.get_mut(&entry.message.route.subject) {
                parked.tried.insert(number);
                lot.due.insert(number);
            }
        }
    }

    /// Whether anything is to be tried as soon as it may be.
    pub(super) fn wants_to_try(&self, now: Instant) -> bool {
        let is_quiet =
            self.engine == Some(Engine::Fast) && self.lot.quiet_until.is_some_and(|until| now < until);
        !self.lot.due.is_empty() || (!is_quiet && self.lot.due_at.is_some_and(|at| at <= now))
    }

    /// Parks what waits in front and goes to a parked subject, so that it is tried, if it is time, before what stands behind it is sent.
    pub(super) fn park_waiting(&mut self, now: Instant) {
        while !self.lot.is_empty()
            && let Some(number) = self.window.next_waiting()
            && self.waits_parked(now, number)
        {}
    }

    /// When a subject is to be tried, unless that has to wait for something else anyway.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let at = self.lot.due_at.filter(|_| self.link == Link::Flowing)?;
        match (self.engine, &self.batch) {
            (Some(Engine::Fast), Some(batch)) if batch.stage() != Stage::Open => None,
            (Some(Engine::Fast), Some(_)) => Some(at.max(self.lot.quiet_until.unwrap_or(at))),
            (Some(Engine::Fast), None) if self.window.outstanding() == 0 => {
                Some(at.max(self.lot.quiet_until.unwrap_or(at)))
            }
            _ => (self.window.outstanding() < self.congestion.window()).then_some(at),
        }
    }

    /// No batch is begun while single messages have no answer.
    pub(super) fn pause_batches(&mut self, now: Instant) {
        self.lot.trying_since.get_or_insert(now);
    }

    /// Batches go on, for a while.
    pub(super) fn resume_batches(&mut self, now: Instant) {
        if self.window.outstanding() > 0 || self.batch.is_some() {
            return;
        }
        if let Some(since) = self.lot.trying_since.take() {
            let took = now.saturating_duration_since(since);
            self.lot.quiet_until = Some(now + took.saturating_mul(PACE).min(TRY_MAX));
        }
    }

    // ---- after a trouble ---------------------------------------------------------------------------------------------------

    /// Everything goes on. What was being tried when the trouble came waits again; what may be stored is sent again at once, with its id.
    pub(super) fn park_again(&mut self) {
        if self.lot.is_empty() {
            return;
        }
        self.lot.trying_since = None;
        let members: Vec<u64> =
            self.lot.subjects.values().flat_map(|parked| parked.members.iter().copied()).collect();
        for number in members {
            let Some(entry) = self.window.get(number).filter(|entry| entry.state == State::Waiting) else {
                continue;
            };
            let (subject, is_in_doubt) = (entry.message.route.subject.clone(), entry.is_in_doubt());
            if is_in_doubt {
                if let Some(parked) = self.lot.subjects.get_mut(&subject) {
                    parked.tried.insert(number);
                }
                self.lot.due.insert(number);
                continue;
            }
            self.lot.untry(number, &subject);
            self.window.park(number);
            if let Some(parked) = self.lot.subjects.get_mut(&subject) {
                parked.group = 1;
                let at = parked.retry_at;
                self.lot.try_at(at);
            }
        }
    }

    /// Parks the subjects that nobody answers although the stream is there and takes them.
    pub(super) fn park_unheard(&mut self, now: Instant) -> bool {
        self.lot.unheard += u32::from(self.is_fresh);
        if self.lot.unheard < LOOKS_MAX {
            return false;
        }
        for number in self.window.numbers() {
            let is_unheard = |entry: &Entry| {
                entry.state == State::Waiting
                    && entry.refused == Some(Cause::NoStream)
                    && !entry.is_in_doubt()
            };
            if self.window.get(number).is_some_and(is_unheard) {
                self.park(now, number, Cause::NoStream, false);
            }
        }
        true
    }

    /// Whether nobody answering is known of its subject.
    pub(super) fn is_parked_unheard(&self, number: u64) -> bool {
        let Some(entry) = self.window.get(number) else { return false };
        let parked = self.lot.subjects.get(&entry.message.route.subject);
        parked.is_some_and(|parked| parked.cause == Cause::NoStream && parked.members.contains(&number))
    }

    /// Whether its subject is parked.
    pub(super) fn is_held(&self, entry: &Entry) -> bool {
        self.lot.holds(&entry.message.route.subject)
    }

    /// Why a parked message waits.
    pub(super) fn parked_for(&self, entry: &Entry) -> Option<Cause> {
        let parked = self.lot.subjects.get(&entry.message.route.subject);
        parked.filter(|_| entry.state == State::Parked).map(|parked| parked.cause)
    }

    /// Open events that go to other subjects than these.
    #[cfg(test)]
    pub(crate) fn open_events_beside(&self, subjects: &[&[u8]]) -> usize {
        let is_other = |entry: &&Entry| {
            !entry.is_settled()
                && !entry.message.is_report()
                && !subjects.contains(&&*entry.message.route.subject)
        };
        self.window.numbers().filter_map(|number| self.window.get(number)).filter(is_other).count()
    }

    /// Whether nothing is open but what waits for a subject that takes none at the moment.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.window.is_at_rest()
    }

    /// Sends on.
    pub(super) fn flow(&mut self) {
        self.park_again();
        self.link = Link::Flowing;
    }
}
