//! The log as its keeper has it: what of it is read, handed out, and noted as sent.
//!
//! ```text
//!             read, not handed out yet
//!   ░░░░░░▒▒▒▒▒│              │████│                        ░ has met its fate    ▒ handed out
//!        ▲     ▲              └──┬─┘▲                       █ shadows: in the window already
//!    confirmed next           passed told                    told: up to here the worker knows that it is written
//! ```
//!
//! What may have been sent is noted before it is handed out, so that after a crash it can be looked for (`spool/sent.rs`). What has met its fate is
//! noted now and then, and the segments of which all has are deleted.

use super::handout::unpack;
use super::identity::Identity;
use super::inquiry::{DOUBTS_MAX, Doubt, Listing};
use super::keeper::Progress;
use super::losses::Losses;
use super::page::{Page, is_in};
use super::witness::Witness;
use crate::clock::Timestamp;
use crate::foreign::contained;
use crate::spool::batch::Message;
use crate::spool::cursor::{Cursor, Item, Stored};
use crate::spool::sent::Sent;
use crate::spool::tended::{Hush, Tended};
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a place that cannot be read is tried.
const READ_TRIES: u32 = 5;

/// So many records beyond those that were handed out are noted as perhaps sent, so that this is not written for each page. As often it is noted
/// what was confirmed.
const MARK_AHEAD: u64 = 16 << 10;

/// A log that is read while it is written.
pub(super) struct Backlog {
    pub(super) tended: Tended,
    cursor: Option<Cursor>,
    /// The record that is read next.
    next: u64,
    /// All below is known to the worker.
    told: u64,
    shadows: VecDeque<Range<u64>>,
    witness: Witness,
    progress: Progress,
    /// All below may have been sent.
    out: u64,
    /// What of the rest may have been sent before it is handed out, from the first of it to the last.
    ahead: (u64, u64),
    /// What was noted when the log was opened.
    inherited: Sent,
    reads_failed: u32,
    trouble: Hush,
    /// [`MARK_AHEAD`]; less for a test with a short log.
    pub(super) mark_ahead: u64,
}

impl Backlog {
    pub(super) fn new(tended: Tended) -> Self {
        let (sent, end) = (tended.log.sent(), tended.log.sequences().end);
        Self {
            tended,
            cursor: None,
            next: sent.confirmed,
            told: end,
            shadows: VecDeque::new(),
            witness: Witness::default(),
            progress: Progress::of(sent),
            out: sent.mark,
            ahead: sent.ahead,
            inherited: sent,
            reads_failed: 0,
            trouble: Hush::default(),
            mark_ahead: MARK_AHEAD,
        }
    }

    /// What will be written next is the shadow of what is in the window, and may be sent already.
    pub(super) fn announce_shadow(&mut self, records: u64) {
        let first = self.tended.log.sequences().end;
        let (start, end) = self.ahead;
        // What was announced before may have been refused.
        let end = end.min(first);
        let out = self.out.max(self.progress.confirmed);
        let start = if end <= out {
            first
        } else if end - out <= first - end {
            // What stands before it is less than what stands between it and this.
            self.out = end;
            first
        } else {
            start
        };
        self.ahead = (start, first + records);
        self.write(self.tended.log.sent().mark.max(self.out));
    }

    /// What was written last is the shadow of what is in the window.
    pub(super) fn add_shadow(&mut self, sequences: Range<u64>) {
        match self.shadows.back_mut() {
            Some(last) if last.end == sequences.start => last.end = sequences.end,
            _ => self.shadows.push_back(sequences),
        }
    }

    /// All that is written is known to the worker now.
    pub(super) fn tell_all(&mut self) {
        self.told = self.tended.log.sequences().end;
    }

    /// All below this was deleted.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.next = self.next.max(sequence);
    }

    /// Passes over what is in the window already; returns whether anything is left to read.
    pub(super) fn passes_to_unread(&mut self) -> bool {
        while let Some(range) = is_in(&self.shadows, self.next) {
            self.next = range.end;
        }
        // What is behind us is not asked for any more.
        while self.shadows.front().is_some_and(|range| range.end <= self.next) {
            self.shadows.pop_front();
        }
        self.next < self.told
    }

    /// Reads the next page, and notes before that it is handed out.
    pub(super) fn read(&mut self, identity: &Identity) -> io::Result<Page> {
        let mut page = Page::default();
        let mut cursor = match self.cursor.take() {
            Some(cursor) => cursor,
            None => self.begin()?,
        };
        match self.fill(identity, &mut page, &mut cursor) {
            Ok(()) => {
                self.reads_failed = 0;
                self.cursor = Some(cursor);
            }
            // What comes behind what was read is tried at the next page.
            Err(_) if !page.is_empty() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Err(error) => {
                self.reads_failed += 1;
                if self.reads_failed < READ_TRIES {
                    return Err(error);
                }
                self.reads_failed = 0;
                let to =
                    self.tended.log.segment_after(self.next).map_or(self.told, |next| next.min(self.told));
                contained(
                    || tracing::error!(path = %self.tended.path(), %error, first = self.next, last = to - 1, "a part of the spool cannot be read, and counts as lost"),
                );
                self.miss(&mut page, self.next..to);
            }
        }
        self.tell_losses(&mut page);
        self.mark(self.next);
        Ok(page)
    }

    fn begin(&self) -> io::Result<Cursor> {
        let cursor = Cursor::open(Arc::clone(&self.tended.storage))?;
        let mut cursor = cursor.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        cursor.skip_to(self.next);
        cursor.refresh()?;
        Ok(cursor)
    }

    fn fill(&mut self, identity: &Identity, page: &mut Page, cursor: &mut Cursor) -> io::Result<()> {
        let mut is_fresh = false;
        while !page.is_full() && self.passes_to_unread() {
            match cursor.next()? {
                Some(Item::Message(stored)) => {
                    let Stored { sequence, subject, headers, payload, is_known } = stored;
                    if !is_known {
                        if sequence >= self.next {
                            let said = Message::decode_any(payload);
                            self.note_remains(identity, sequence, said);
                            self.miss(page, sequence..sequence + 1);
                        }
                        continue;
                    }
                    self.witness.see(identity, &stored);
                    let Some(place) = NonZeroU64::new(sequence).filter(|_| sequence >= self.next) else {
                        continue;
                    };
                    page.push(Some(place), Message { subject, headers, payload });
                    self.next = sequence + 1;
                }
                Some(Item::Missing(range)) => {
                    let range = range.start.max(self.next)..range.end.min(self.told);
                    match cursor.remains() {
                        _ if range.is_empty() => continue,
                        Some(said) => self.note_remains(identity, range.start, Some(said)),
                        None => self.note_remains_of_recovery(identity, &range),
                    }
                    self.miss(page, range);
                }
                Some(Item::Damage(damage)) => {
                    if self.trouble.may_speak() {
                        contained(|| tracing::warn!(path = %self.tended.path(), "{damage}"));
                    }
                }
                None if !is_fresh => {
                    cursor.refresh()?;
                    is_fresh = true;
                }
                None => self.miss(page, self.next..self.told),
            }
        }
        Ok(())
    }

    /// These are not there.
    fn miss(&mut self, page: &mut Page, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let missing = self.count_unshadowed(&range);
        if missing > 0 && self.trouble.may_speak() {
            contained(
                || tracing::error!(path = %self.tended.path(), first = range.start, last = range.end - 1, "events are missing in the spool; they are counted as spool_full"),
            );
        }
        self.witness.miss(missing, range.end);
        page.missing += missing;
        page.pass_to(range.end);
        self.next = range.end;
    }

    /// How many of these are no shadows.
    fn count_unshadowed(&self, range: &Range<u64>) -> u64 {
        let overlap = |shadow: &Range<u64>| {
            let (start, end) = (shadow.start.max(range.start), shadow.end.min(range.end));
            end.saturating_sub(start)
        };
        let shadowed: u64 = self.shadows.iter().map(overlap).sum();
        range.end.saturating_sub(range.start) - shadowed
    }

    /// What a record says that is missing.
    fn note_remains(&mut self, identity: &Identity, sequence: u64, said: Option<Message<'_>>) {
        if let Some(Message { subject, headers, .. }) =
            said.filter(|_| is_in(&self.shadows, sequence).is_none())
        {
            self.witness.note_remains(identity, subject, headers);
        }
    }

    /// The same of those that were missing when the log was opened.
    fn note_remains_of_recovery(&mut self, identity: &Identity, range: &Range<u64>) {
        let remains = &self.tended.recovery.remains;
        for remains in remains.iter().filter(|remains| range.contains(&remains.sequence)) {
            self.witness.note_remains(identity, &remains.subject, &remains.headers);
        }
    }

    /// Lets the page say whose the records are that are missing, if it is time to.
    fn tell_losses(&mut self, page: &mut Page) {
        let is_the_end = !self.passes_to_unread();
        let is_due = self.witness.has_settled() || (is_the_end && self.witness.is_waiting());
        if !is_due {
            return;
        }
        let unknown = self.witness.tell(&mut page.losses);
        if unknown > 0 {
            contained(
                || tracing::error!(path = %self.tended.path(), events = unknown, "it cannot be told whose events these are that are missing in the spool; no gap declares them"),
            );
        }
    }

    /// Whose events are lost, if these sequences go.
    pub(super) fn losses(&self, identity: &Identity, sequences: Range<u64>) -> Losses {
        let mut losses = Losses::default();
        let lost = |sequence: u64| sequence >= self.next && is_in(&self.shadows, sequence).is_none();
        let expected = self.count_unshadowed(&(sequences.start.max(self.next)..sequences.end));
        if expected == 0 {
            return losses;
        }
        let mut witness = Witness::default();
        let mut look = || -> io::Result<()> {
            let Some(mut cursor) = Cursor::open(Arc::clone(&self.tended.storage))? else { return Ok(()) };
            cursor.skip_to(sequences.start);
            while let Some(item) = cursor.next()? {
                match item {
                    // What stands behind tells whose the missing ones are.
                    Item::Message(Stored { sequence, .. })
                        if sequence >= sequences.end && (!witness.is_waiting() || witness.has_settled()) =>
                    {
                        break;
                    }
                    Item::Message(Stored { sequence, payload, is_known: false, .. }) => {
                        let is_lost = sequence < sequences.end && lost(sequence);
                        if let Some(said) = Message::decode_any(payload).filter(|_| is_lost) {
                            witness.note_remains(identity, said.subject, said.headers);
                        }
                        witness.miss(u64::from(is_lost), sequence + 1);
                    }
                    Item::Message(stored) => {
                        witness.see(identity, &stored);
                        if stored.sequence < sequences.end && lost(stored.sequence) {
                            losses.add(identity, stored.subject, stored.headers);
                        }
                    }
                    Item::Missing(range) => {
                        let end = range.end;
                        let start = range.start.max(sequences.start).max(self.next);
                        let missing = self.count_unshadowed(&(start..end.min(sequences.end)));
                        if let Some(said) = cursor.remains().filter(|_| missing > 0) {
                            witness.note_remains(identity, said.subject, said.headers);
                        }
                        witness.miss(missing, end);
                    }
                    Item::Damage(_) => {}
                }
            }
            Ok(())
        };
        if let Err(error) = look() {
            contained(
                || tracing::warn!(path = %self.tended.path(), %error, "what is deleted to make room cannot be read"),
            );
        }
        witness.tell(&mut losses);
        // Also what could not be read is lost.
        losses.events = expected;
        losses
    }

    // ---- what is noted -----------------------------------------------------------------------------------------------------

    /// Notes, if it is not noted yet, that all below `to` may have been sent.
    pub(super) fn mark(&mut self, to: u64) {
        self.out = self.out.max(to);
        if self.tended.log.sent().mark < to {
            self.write(to + self.mark_ahead);
        }
    }

    pub(super) fn note(&mut self, progress: Progress) {
        let noted = self.tended.log.sent();
        self.progress = Progress { confirmed: progress.confirmed.max(self.progress.confirmed), ..progress };
        let confirmed = self.progress.confirmed;
        // Shadows that have met their fate were never read.
        self.next = self.next.max(confirmed);
        let whereabouts = self.whereabouts();
        // How it is sent is as good as part of where.
        let is_new_stream = (whereabouts.stream, whereabouts.is_packed) != (noted.stream, noted.is_packed);
        let is_all = confirmed >= self.tended.log.sequences().end && noted.confirmed < confirmed;
        let frees = self.tended.log.oldest().is_some_and(|oldest| oldest.end <= confirmed);
        if is_new_stream || is_all || frees || confirmed >= noted.confirmed + self.mark_ahead {
            self.write(if is_all { confirmed } else { noted.mark });
        }
        if let Err(error) = self.tended.log.trim()
            && self.trouble.may_speak()
        {
            contained(
                || tracing::warn!(path = %self.tended.path(), %error, "what was sent on cannot be deleted"),
            );
        }
    }

    fn write(&mut self, mark: u64) {
        let Progress { confirmed, floor, stream, since, is_packed } = self.whereabouts();
        let mark = mark.max(confirmed);
        let ahead = if self.ahead.1 > mark { self.ahead } else { (0, 0) };
        let sent = Sent { confirmed, mark, floor, stream, ahead, since, is_packed };
        if let Err(error) = self.tended.log.note_sent(sent)
            && self.trouble.may_speak()
        {
            contained(
                || tracing::warn!(path = %self.tended.path(), %error, "what is sent on cannot be noted; after a crash some of it may be sent twice"),
            );
        }
    }

    /// What is confirmed, and where in which stream what is open would have to be looked for. What another process may have sent lies above its own
    /// floor, and was sent earlier.
    fn whereabouts(&self) -> Progress {
        let Self { progress, inherited, .. } = self;
        let is_open = progress.confirmed < inherited.mark.max(inherited.ahead.1) && inherited.stream != 0;
        if !is_open {
            return *progress;
        }
        let is_packed = progress.is_packed || inherited.is_packed;
        match [0, inherited.stream].contains(&progress.stream) {
            true => Progress { confirmed: progress.confirmed, is_packed, ..Progress::of(*inherited) },
            false => Progress { since: progress.since.min(inherited.since), is_packed, ..*progress },
        }
    }

    /// When another process may have begun to send what is in doubt, if the server would know it by its id; none if that is not known.
    fn doubtful_since(&self) -> Option<Instant> {
        let Sent { since, is_packed, .. } = self.inherited;
        let age = Timestamp::now().0.checked_sub(since).filter(|_| since > 0 && !is_packed)?;
        Instant::now().checked_sub(Duration::from_nanos(age))
    }

    /// What another process may have sent.
    pub(super) fn list(&self, identity: &Identity) -> io::Result<Listing> {
        let Sent { floor, stream, .. } = self.inherited;
        let mut listing =
            Listing { is_whole: true, floor, stream, since: self.doubtful_since(), ..Listing::default() };
        for range in self.inherited.doubtful() {
            if !range.is_empty() && !self.list_range(identity, range, &mut listing)? {
                return Ok(Listing { doubts: Vec::new(), is_whole: false, ..listing });
            }
        }
        Ok(listing)
    }

    /// Adds the events of these records. Returns false if they are too many.
    fn list_range(&self, identity: &Identity, range: Range<u64>, listing: &mut Listing) -> io::Result<bool> {
        let Some(mut cursor) = Cursor::open(Arc::clone(&self.tended.storage))? else { return Ok(true) };
        cursor.skip_to(range.start);
        while let Some(item) = cursor.next()? {
            let Item::Message(stored) = item else { continue };
            if stored.sequence >= range.end {
                break;
            }
            if stored.sequence < range.start {
                continue;
            }
            let subjects = [&*identity.subject_of(stored.subject), stored.subject];
            // A frame may hold any number of events.
            let room = DOUBTS_MAX - listing.doubts.len();
            for (index, event) in unpack(stored.headers, stored.payload).iter().enumerate().take(room) {
                let (origin, seq) =
                    identity.of(self.tended.log.id(), stored.sequence, stored.headers, index, event);
                listing.doubts.push(Doubt::new(stored.sequence, index, (origin, seq), subjects, event));
            }
            if listing.doubts.len() >= DOUBTS_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn close(mut self) {
        // No more than this was handed out, by us and by those before us.
        let mark = self.out.max(self.progress.confirmed);
        let noted = self.tended.log.sent();
        if noted.mark != mark || noted.confirmed != self.progress.confirmed {
            self.write(mark);
        }
        if let Err(error) = self.tended.log.trim() {
            contained(|| tracing::debug!(%error, "what was sent on cannot be deleted"));
        }
        self.tended.close();
    }
}
