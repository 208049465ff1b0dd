//! The ledger, published once in a while.
//!
//! A process that is killed says nothing. What it said last bounds what its end has cost: of all that had been offered by then, whatever
//! is neither in the stream nor declared is gone. So a report tells beside the ledger how far the offers of each producer had come,
//! those included that wait in a ring and have no number yet.
//!
//! One report is on its way at a time. While nothing gets through, they would else fill the window that events need.

use super::Worker;
use crate::report::{self, Running};
use crate::sink::Sink;
use std::time::{Duration, Instant};

pub(super) struct Pulse {
    interval: Duration,
    due: Instant,
    /// The last report, by the number that it has in the window.
    last: Option<u64>,
}

impl Pulse {
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { interval, due: now + interval, last: None }
    }
}

impl<S: Sink> Worker<S> {
    pub(super) fn report_stats(&mut self, now: Instant) {
        if self.next_stats().is_none_or(|due| now < due) {
            return;
        }
        self.pulse.due = now + self.pulse.interval;
        self.pulse.last = Some(self.pipeline.next_number());
        let process = self.renderer.stamper.names().process().to_owned();
        let ledger = self.shared.stats_of(&self.partition);
        // After the ledger, so that whatever stands there is among them.
        let offered = self.offers();
        self.push_report(report::STATS, &Running { process, offered, ledger });
    }

    /// When the ledger is to be published; `None` while it cannot be.
    pub(super) fn next_stats(&self) -> Option<Instant> {
        let is_on_its_way = self.pulse.last.is_some_and(|number| !self.pipeline.is_settled(number));
        (self.is_of_this_process()
            && self.pipeline.is_connected()
            && !is_on_its_way
            && self.closing.is_none())
        .then_some(self.pulse.due)
    }

    /// The number that the last offer of each producer has or will have. Those of the other partitions stay zero: nothing of them is in
    /// this stream.
    fn offers(&self) -> Vec<u64> {
        let lanes = &self.shared.lanes;
        let mut offers = vec![0; lanes.len()];
        for (ring, consumer) in self.consumers.iter().enumerate() {
            let waiting = consumer.claimed() - consumer.taken();
            let offer = self.renderer.stamper.last_offer(ring, waiting, self.refused(ring));
            offers[lanes.index(self.partition.index, ring)] = offer;
        }
        offers
    }
}
