//! How the worker ends: flushes that are answered, a close that says its last words, and what is given up by then.

use super::{Closing, DISCARD_GRACE, DRAIN_BATCH, REPORTS_PATIENCE, Worker};
use crate::ledger::Reason;
use crate::report::{self, Stopped};
use crate::ring::Consumer;
use crate::sink::Sink;
use std::time::Instant;

impl<S: Sink> Worker<S> {
    pub(super) fn check_flushes(&mut self, now: Instant) {
        let (pipeline, accounts, spools) = (&self.pipeline, &self.accounts, self.spools());
        let mut open = Vec::new();
        for mut flush in self.flushes.drain(..) {
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

    /// Returns true when nothing is left to do but to end.
    pub(super) fn check_close(&mut self, now: Instant) -> bool {
        let Some(closing) = &self.closing else { return false };
        let &Closing { since, deadline, give_up_at, last_words_said, .. } = closing;
        if !last_words_said {
            let all_taken = !self.consumers.iter().any(Consumer::has_claims);
            let holds_own = self.spooling.as_ref().is_some_and(|spooling| spooling.overflow.holds_own());
            let is_safe = self.has_laid_down(now) && all_taken;
            let all_settled = is_safe || (all_taken && self.open_events() == 0 && !holds_own);
            let reports_may_come = !self.pipeline.is_empty() && now < since + REPORTS_PATIENCE;
            if (!all_settled || reports_may_come) && now < give_up_at {
                return false;
            }
            self.give_up(now);
            self.say_last_words();
            if let Some(closing) = &mut self.closing {
                closing.last_words_said = true;
            }
            return false;
        }
        let nobody_listens = !self.pipeline.is_connected();
        if !self.pipeline.is_empty() && !nobody_listens && now < deadline {
            return false;
        }
        self.book(now);
        true
    }

    /// Ends all that is open: what waits in the rings was never sent, and the pipeline judges the rest.
    fn give_up(&mut self, now: Instant) {
        self.close_frames(now);
        self.forget_deleted();
        let reason = self.pipeline.give_up(now);
        self.drop_returned(reason);
        // A close that leaves no time does not leave events in a ring for that: counting them is quick, and its caller has its
        // report without it.
        let deadline = self.closing.as_ref().map_or(now, |closing| closing.deadline).max(now) + DISCARD_GRACE;
        for ring in 0..self.consumers.len() {
            while self.discard_from(ring, reason) > 0 && Instant::now() < deadline {}
        }
        self.book(now);
    }

    /// Counts a batch of a ring as dropped. What the deadline leaves in a ring stays queued in the final balance.
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
        if let Some(deadline) = self.closing.as_ref().map(|closing| closing.deadline) {
            self.close_spool(deadline).await;
            self.book(Instant::now());
            let patience = deadline.saturating_duration_since(Instant::now());
            self.lent.during(self.sink.close(patience)).await;
        }
        self.partition.set_connected(false);
        let complete = self.shared.stats_of(&self.partition).held() == 0;
        let closing = self.closing.take();
        let flushes = std::mem::take(&mut self.flushes).into_iter().map(|flush| flush.done);
        for done in closing.into_iter().flat_map(|closing| closing.done).chain(flushes) {
            done.answer(complete);
        }
    }
}
