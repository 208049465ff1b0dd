//! What the keeper is told of what has met its fate, and of where what is open would have to be looked for.

use super::floor::Bound;
use super::keeper::{Order, Progress};
use super::{NOTE_INTERVAL, NOTE_PATIENCE, Overflow, inquiry};
use crate::clock::Timestamp;
use crate::publisher::pipeline::Pipeline;
use crate::spool::sent::UNSEEN;
use std::time::{Duration, Instant};

impl Overflow {
    /// Whether anything may be sent. From which stream on, and from where in it, what is sent would have to be looked for is noted before.
    pub(crate) fn may_send(&mut self, now: Instant, pipeline: &Pipeline) -> bool {
        self.note(now, pipeline);
        // A disk that takes longer has had its time.
        self.noting_since = self.noting_since.filter(|&since| now < since + NOTE_PATIENCE);
        self.noting_since.is_none()
    }

    /// Tells the keeper what has met its fate, if it is time to.
    pub(crate) fn note(&mut self, now: Instant, pipeline: &Pipeline) {
        if self.is_of_another_stream() {
            return;
        }
        let confirmed = self.handed.confirmed();
        let holds = self.is_active || confirmed < self.end;
        let is_new = holds && self.is_new(self.stream(pipeline));
        let is_due = self.noted_at.is_none_or(|at| at + NOTE_INTERVAL <= now) || confirmed == self.end;
        if self.log.is_some() && (is_new || (is_due && confirmed > self.noted.confirmed)) {
            self.noted_at = Some(now);
            self.send_note(now, pipeline);
        }
    }

    /// Whether it is not noted yet that events are sent to this stream, and in this way.
    fn is_new(&self, stream: u64) -> bool {
        (stream, self.is_packed) != (self.noted.stream, self.noted.is_packed)
    }

    /// What is noted is of the stream for which the records were, and holds until it is known what is stored there.
    fn is_of_another_stream(&self) -> bool {
        self.identity.is_renamed() && self.findings.is_none()
    }

    pub(super) fn send_note(&mut self, now: Instant, pipeline: &Pipeline) {
        if self.is_of_another_stream() {
            return;
        }
        let stream = self.stream(pipeline);
        let bound = self.bound(now, stream, pipeline);
        if self.log.is_some() && self.is_new(stream) {
            self.noting_since = Some(now);
        }
        let confirmed = self.handed.confirmed();
        let out = self.shadowed.is_empty().then(|| self.handed.out());
        let Bound { floor, since } = self.floor.see(stream, bound, confirmed, out);
        self.noted = Progress { confirmed, floor, stream, since, is_packed: self.is_packed };
        self.order(Order::Note(self.noted));
    }

    /// The stream. Before one was looked for nothing can have been sent by us, and what holds for others goes on to hold.
    fn stream(&self, pipeline: &Pipeline) -> u64 {
        match (pipeline.floor(), pipeline.engine()) {
            ((_, Some(created)), _) => inquiry::tag(created),
            // It may be sent to, but not looked at.
            ((_, None), Some(_)) => UNSEEN,
            ((_, None), None) => self.noted.stream,
        }
    }

    /// From where in this stream, and since when, what may have been sent would have to be looked for.
    fn bound(&self, now: Instant, stream: u64, pipeline: &Pipeline) -> Bound {
        let (floor, created) = pipeline.floor();
        if created.is_none() && stream != UNSEEN {
            let Progress { floor, since, .. } = self.noted;
            return Bound { floor, since };
        }
        let age = pipeline.sent_since().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Bound { floor, since: Timestamp::now().0.saturating_sub(age) }
    }

    /// When [`may_send`](Self::may_send) should be asked next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let may_note = self.log.is_some() && !self.is_of_another_stream();
        let is_behind = may_note && self.handed.confirmed() > self.noted.confirmed;
        let note = self.noted_at.filter(|_| is_behind).map(|at| at + NOTE_INTERVAL);
        let patience = self.noting_since.map(|since| since + NOTE_PATIENCE);
        note.into_iter().chain(patience).min()
    }
}
