//! Keeps every message as the events in it, and acknowledges it at once, as `null:` does.

use super::CapturedEvent;
use crate::encode;
use crate::frame::Frame;
use crate::publisher::outgoing::{Address, BatchToken, Op, Sending};
use crate::sink::null::NullSink;
use crate::sink::{ConnectionLost, Sink, SinkEvent};
use crate::subject::Subjects;
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was captured, shared by the sinks of all partitions and whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Store {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Arc<CapturedEvent>>,
    /// How often that has changed.
    changes: u64,
    /// Producer and number of each stamped event. A worker that a panic of a log subscriber has interrupted sends again what
    /// it does not know to be stored, and a stream would know it by its id.
    stamps: HashSet<(String, u64)>,
}

impl Store {
    pub(super) fn events(&self) -> Vec<Arc<CapturedEvent>> {
        self.kept().events.clone()
    }

    pub(super) fn clear(&self) {
        let mut kept = self.kept();
        kept.events.clear();
        kept.changes += 1;
    }

    /// Waits until the condition holds, at most for `timeout`, and returns what is there then.
    ///
    /// The condition is a test's code and may ask the capture itself, which waits for the worker. So it is asked without the lock.
    pub(super) fn wait_until(
        &self,
        timeout: Duration,
        mut condition: impl FnMut(&[Arc<CapturedEvent>]) -> bool,
    ) -> Vec<Arc<CapturedEvent>> {
        let start = Instant::now();
        loop {
            let (events, changes) = {
                let kept = self.kept();
                (kept.events.clone(), kept.changes)
            };
            let left = timeout.saturating_sub(start.elapsed());
            if condition(&events) || left.is_zero() {
                return events;
            }
            let is_unchanged = |kept: &mut Kept| kept.changes == changes;
            let waited = self.changed.wait_timeout_while(self.kept(), left, is_unchanged);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn keep(&self, event: CapturedEvent) {
        let mut kept = self.kept();
        let stamp = event.producer.clone().zip(event.seq);
        if stamp.is_none_or(|stamp| kept.stamps.insert(stamp)) {
            kept.events.push(Arc::new(event));
            kept.changes += 1;
            self.changed.notify_all();
        }
    }

    /// A condition of a test that panics leaves everything whole.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct CaptureSink {
    store: Arc<Store>,
    subjects: Subjects,
    acknowledging: NullSink,
}

impl CaptureSink {
    pub(crate) fn new(store: Arc<Store>, subjects: Subjects) -> Self {
        Self { store, subjects, acknowledging: NullSink::default() }
    }

    fn keep(&self, sending: &Sending<'_>) {
        let subject =
            std::str::from_utf8(sending.subject).expect("subjects are made of names, which are ASCII");
        let frame = match sending.packed {
            Some(packed) => packed.unpack().expect("a frame of ours is within the limits of a reader"),
            None => Frame::of_one(sending.payload),
        };
        for envelope in &frame {
            // In an envelope a body is one level deeper.
            assert!(
                encode::is_json(envelope, encode::DEPTH_MAX + 1),
                "the worker prints JSON, and not {}",
                String::from_utf8_lossy(envelope)
            );
            let event = CapturedEvent::read(subject, &self.subjects, sending.trace.copied(), envelope);
            self.store.keep(event.expect("the worker prints envelopes"));
        }
    }
}

/// Whether there is a message in it, and not only a word about a batch.
fn is_message(address: Address) -> bool {
    matches!(
        address,
        Address::Single(_) | Address::Batch(BatchToken { op: Op::Start | Op::Append | Op::Commit, .. })
    )
}

impl Sink for CaptureSink {
    fn connect(&mut self) {
        self.acknowledging.connect();
    }

    fn disconnect(&mut self) {
        self.acknowledging.disconnect();
    }

    fn look_up_stream(&mut self) {
        self.acknowledging.look_up_stream();
    }

    fn read(&mut self, from: u64, to: u64) {
        self.acknowledging.read(from, to);
    }

    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost> {
        if is_message(sending.address) {
            self.keep(&sending);
        }
        self.acknowledging.send(sending).await
    }

    async fn event(&mut self) -> SinkEvent {
        self.acknowledging.event().await
    }

    fn try_event(&mut self) -> Option<SinkEvent> {
        self.acknowledging.try_event()
    }
}
