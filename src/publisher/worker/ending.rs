//! How the worker ends: flushes that are answered, a close that says its last words, and what is given up by then.
//!
//! ```text
//!   close            laying down       giving up   deadline                              the end
//!     ├── delivering ────┼── delivering ───┼── reports ──┼─┄ laying down, counting ┄────────┤
//!                        │ open events go  │             │                                  └─ CLOSE_GRACE behind it
//!                        │ to the spool    │             └─ usually all is counted, and the caller has its report
//! ```
//!
//! At its deadline a close stops to deliver. That everything has its account may take a moment more: a spool has to reach its disk, events in a
//! ring have to be counted. This time is limited by [`CLOSE_GRACE`]. Then the caller is answered in any case. What is open then, because a disk says
//! nothing or a thread has stopped in mid-publish, is counted when it can be.

use super::{DRAIN_BATCH, LAST_WORDS, LAST_WORDS_MAX, REPORTS_PATIENCE, Worker};
use crate::bus::{CLOSE_GRACE, Command, Done};
use crate::ledger::Reason;
use crate::report::{self, Stopped};
use crate::ring::Consumer;
use crate::sink::Sink;
use crate::timer;
use std::time::{Duration, Instant};

/// The part of [`CLOSE_GRACE`] that the worker takes at most, so that its answer comes within it.
const GRACE: f64 = 0.9;

/// How often a worker that has answered looks again at what it could not count, at first and at last.
const LATE_LOOK: Duration = Duration::from_millis(1);
const LATE_LOOK_MAX: Duration = Duration::from_secs(1);

/// A close that has begun.
pub(super) struct Closing {
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    /// When what is still open is given up.
    pub(super) give_up_at: Instant,
    has_given_up: bool,
    pub(super) last_words_said: bool,
    done: Vec<Done>,
}

impl Closing {
    /// When the caller is answered at the latest.
    fn end_at(&self) -> Instant {
        self.deadline + CLOSE_GRACE.mul_f64(GRACE)
    }

    /// The next time that something has to be done.
    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        let moments = [self.since + REPORTS_PATIENCE, self.give_up_at, self.deadline];
        moments.into_iter().filter(|&moment| now < moment).min().unwrap_or_else(|| self.end_at())
    }
}

impl<S: Sink> Worker<S> {
    pub(super) fn check_flushes(&mut self, now: Instant) {
        let (pipeline, accounts, spools) = (&self.pipeline, &self.accounts, self.spools());
        let mut open = Vec::new();
        for mut flush in self.flushes.drain(..).filter(|flush| flush.done.is_awaited()) {
            let taken = accounts.taken.iter().zip(&flush.claims).all(|(taken, claims)| taken >= claims);
            // Once a turn begins with a flush, its frames are closed before we come here.
            // What went to the spool is still there; it comes out in its turn.
            if taken
                && !spools
                && flush.number.is_none()
                && self.packer.as_ref().is_none_or(|packer| packer.events() == 0)
            {
                flush.number = Some(pipeline.next_number());
            }
            let complete = flush.number.is_some_and(|number| pipeline.is_settled_below(number));
            if complete || flush.deadline <= now {
                flush.done.answer(complete);
            } else {
                open.push(flush);
            }
        }
        self.flushes = open;
    }

    pub(super) fn begin_to_close(&mut self, now: Instant, deadline: Instant, done: Done) {
        let time_left = deadline.saturating_duration_since(now);
        let last_words = time_left.mul_f64(LAST_WORDS).min(LAST_WORDS_MAX);
        let give_up_at = deadline - last_words;
        let closing = self.closing.get_or_insert_with(|| Closing {
            since: now,
            deadline,
            give_up_at,
            has_given_up: false,
            last_words_said: false,
            done: Vec::new(),
        });
        closing.done.push(done);
        // Of several closes the most impatient one counts.
        closing.deadline = closing.deadline.min(deadline);
        closing.give_up_at = closing.give_up_at.min(give_up_at);
    }

    /// Returns true when nothing is left to do but to end.
    pub(super) fn check_close(&mut self, now: Instant) -> bool {
        let Some(closing) = &mut self.closing else { return false };
        closing.done.retain(Done::is_awaited);
        let &mut Closing { since, deadline, give_up_at, has_given_up, last_words_said, .. } = closing;
        let end_at = closing.end_at();
        if last_words_said {
            let nobody_listens = !self.pipeline.is_connected();
            if !self.pipeline.is_at_rest() && !nobody_listens && now < deadline {
                return false;
            }
            self.book(now);
            return true;
        }
        if !has_given_up {
            let all_taken = !self.consumers.iter().any(Consumer::has_claims);
            let holds_own = self.spooling.as_ref().is_some_and(|spooling| spooling.overflow.holds_own());
            let is_laid_down = self.lay_down_if_due(now);
            let all_settled =
                all_taken && is_laid_down.unwrap_or_else(|| self.open_events() == 0 && !holds_own);
            let reports_may_come = !self.pipeline.is_at_rest() && now < since + REPORTS_PATIENCE;
            if (!all_settled || reports_may_come) && now < give_up_at {
                return false;
            }
            // What is on its way to the disk is not given up because there was little time.
            if is_laid_down.is_some() && self.lay_down_the_rest() && now < end_at {
                return false;
            }
            self.give_up(now);
        }
        let all_counted = self.discard_rings();
        self.book(now);
        if !all_counted && now < end_at {
            // A thread is about to commit its claim.
            return false;
        }
        self.say_last_words();
        if let Some(closing) = &mut self.closing {
            closing.last_words_said = true;
        }
        false
    }

    /// Ends all that is open in the window, by the pipeline's judgement, and in what the disk has given back.
    fn give_up(&mut self, now: Instant) {
        if let Some(closing) = &mut self.closing {
            closing.has_given_up = true;
        }
        self.close_frames(now);
        self.forget_deleted();
        self.give_up_window(now);
    }

    /// Only what is on its way to the log stays open, until the disk has said what became of it.
    fn give_up_window(&mut self, now: Instant) {
        let Self { pipeline, spooling, .. } = self;
        let overflow = spooling.as_ref().map(|spooling| &spooling.overflow);
        let is_kept = |number| overflow.is_some_and(|overflow| overflow.is_shadow_on_its_way(number));
        let reason = pipeline.give_up_all_but(now, is_kept);
        self.reason_at_the_end = reason;
        self.drop_returned(reason);
    }

    /// Counts what is in the rings as dropped. Returns false if something is left: a claim that is not committed.
    fn discard_rings(&mut self) -> bool {
        for ring in 0..self.consumers.len() {
            while self.discard_from(ring, self.reason_at_the_end) > 0 {}
        }
        !self.consumers.iter().any(Consumer::has_claims)
    }

    /// Counts a batch of a ring as dropped.
    fn discard_from(&mut self, ring: usize, reason: Reason) -> usize {
        let refused = self.refused(ring);
        let Self { consumers, renderer, accounts, .. } = self;
        let drained = consumers[ring].drain(DRAIN_BATCH, |bytes| {
            renderer.discard(ring, bytes, reason);
            accounts.dropped.add(reason, 1);
        });
        accounts.dropped.add(Reason::Serialize, drained.aborted as u64);
        accounts.taken[ring] = consumers[ring].taken();
        if drained.records == 0 && !drained.pending {
            renderer.stamper.pass_refusals(ring, refused);
        }
        drained.records
    }

    fn say_last_words(&mut self) {
        self.push_gaps();
        if !self.is_of_this_process() {
            return;
        }
        let (partition, lanes) = (&self.partition, &self.shared.lanes);
        // Those of the other partitions stay zero: nothing of them is in this stream.
        let mut last = vec![0; lanes.len()];
        for (ring, number) in self.renderer.stamper.last_numbers().enumerate() {
            last[lanes.index(partition.index, ring)] = number;
        }
        let stopped = Stopped {
            process: self.renderer.stamper.names().process().to_owned(),
            last,
            ledger: self.shared.stats_of(partition),
        };
        self.push_report(report::STOPPED, &stopped);
    }

    pub(super) async fn end(&mut self) {
        self.is_over = true;
        let Some(mut closing) = self.closing.take() else { return };
        self.lay_reports_down();
        self.close_spool(closing.end_at()).await;
        self.give_up_window(timer::now());
        self.book(timer::now());
        let patience = closing.deadline.saturating_duration_since(timer::now());
        self.lent.during(self.sink.close(patience)).await;
        self.partition.set_connected(false);
        let complete = self.shared.stats_of(&self.partition).held() == 0;
        let flushes = std::mem::take(&mut self.flushes).into_iter().map(|flush| flush.done);
        for done in std::mem::take(&mut closing.done).into_iter().chain(flushes) {
            done.answer(complete);
        }
        self.count_what_is_left().await;
    }

    /// The caller has its answer. What had no account by then gets it as soon as it can be told: when the disk answers, and when a thread that
    /// has stopped in mid-publish goes on.
    async fn count_what_is_left(&mut self) {
        let mut pause = LATE_LOOK;
        loop {
            let all_counted = self.discard_rings();
            let is_closed = self.is_spool_closed();
            self.give_up_window(timer::now());
            self.book(timer::now());
            if all_counted && is_closed {
                return;
            }
            let next_look = timer::now() + pause;
            self.close_spool(next_look).await;
            timer::sleep_until(Some(next_look)).await;
            pause = (pause * 2).min(LATE_LOOK_MAX);
            // Whoever asks now is told how it is: nobody knows how long it takes.
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Flush { done, .. } | Command::Close { done, .. } => drop(done),
                }
            }
        }
    }
}
