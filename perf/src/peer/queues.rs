//! Queues of other crates, each used as its documentation says, with copied or with encoded messages.

use super::{
    CAPACITY_BYTES, CONSUMER, Counter, End, Gate, LINGER, Outcome, PATIENCE, Peer, Producer, Progress, Setup,
};
use crate::event::{Checker, Fill};
use anyhow::{Result, ensure};
use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use thingbuf::recycling::WithCapacity;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Starts a consumer.
pub(crate) fn spawn(consume: impl FnOnce() -> u64 + Send + 'static) -> io::Result<JoinHandle<u64>> {
    std::thread::Builder::new().name(CONSUMER.to_owned()).spawn(consume)
}

/// A bounded queue for many producers and one consumer.
pub(crate) trait Queue: 'static {
    type Sender: Send;
    type Receiver: Send;

    /// A queue for `events` messages of `bytes` each, and a sender for each producer.
    fn new(producers: usize, events: usize, bytes: usize) -> (Vec<Self::Sender>, Self::Receiver);

    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool;

    /// Hands out messages until all senders are gone and nothing is left. `senders_gone` is for those that cannot tell.
    fn consume(receiver: Self::Receiver, senders_gone: &Gate, each: impl FnMut(&[u8]));
}

/// A queue with its consumer's thread.
#[derive(Debug)]
pub(crate) struct Queued<Q: Queue, F> {
    senders: Vec<Option<Q::Sender>>,
    consumer: JoinHandle<u64>,
    received: Counter,
    release: Gate,
    senders_gone: Gate,
    setup: Setup,
    fill: PhantomData<F>,
}

impl<Q: Queue, F: Fill> Peer for Queued<Q, F> {
    type Producer = Hand<Q, F>;
    type Progress = Counter;

    fn start(setup: &Setup) -> Result<Self> {
        let bytes = setup.size.bytes();
        let (senders, receiver) = Q::new(setup.producers, CAPACITY_BYTES / bytes, bytes);
        let (received, release, senders_gone) = (Counter::default(), Gate::default(), Gate::default());
        if !setup.held {
            release.open();
        }
        let mut checker = Checker::new(setup.size, F::ENCODES);
        let consumer = {
            let (received, release, senders_gone) = (received.clone(), release.clone(), senders_gone.clone());
            spawn(move || {
                release.wait();
                Q::consume(receiver, &senders_gone, |message| {
                    checker.look_at(message);
                    received.add_one();
                });
                checker.disordered()
            })?
        };
        let senders = senders.into_iter().map(Some).collect();
        Ok(Self {
            senders,
            consumer,
            received,
            release,
            senders_gone,
            setup: setup.clone(),
            fill: PhantomData,
        })
    }

    fn producer(&mut self, index: usize) -> Hand<Q, F> {
        let sender = self.senders[index].take().expect("each producer is asked for once");
        Hand { sender, fill: F::new(self.setup.size, index) }
    }

    fn progress(&self) -> Counter {
        self.received.clone()
    }

    fn finish(mut self, accepted: u64, _: End) -> Result<Outcome> {
        self.release.open();
        self.senders.clear();
        self.received.wait_for(accepted)?;
        self.senders_gone.open();
        let disordered = self.consumer.join().expect("the consumer does not panic");
        check(self.received.received(), accepted, disordered)
    }
}

fn check(received: u64, accepted: u64, disordered: u64) -> Result<Outcome> {
    ensure!(received == accepted, "{accepted} events were accepted, {received} came out");
    ensure!(disordered == 0, "{disordered} events were out of order");
    Ok(Outcome { received, unconfirmed: 0 })
}

/// A thread's end of a queue.
#[derive(Debug)]
pub(crate) struct Hand<Q: Queue, F> {
    sender: Q::Sender,
    fill: F,
}

impl<Q: Queue, F: Fill> Producer for Hand<Q, F> {
    #[inline]
    fn offer(&mut self, number: u64) -> bool {
        Q::try_send(&mut self.sender, &mut self.fill, number)
    }
}

/// `tokio::sync::mpsc` of [`Bytes`].
#[derive(Debug)]
pub(crate) struct TokioMpsc;

impl Queue for TokioMpsc {
    type Sender = tokio::sync::mpsc::Sender<Bytes>;
    type Receiver = tokio::sync::mpsc::Receiver<Bytes>;

    fn new(producers: usize, events: usize, _: usize) -> (Vec<Self::Sender>, Self::Receiver) {
        let (sender, receiver) = tokio::sync::mpsc::channel(events);
        (vec![sender; producers], receiver)
    }

    #[inline]
    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool {
        sender.try_send(fill.to_bytes(number)).is_ok()
    }

    fn consume(mut receiver: Self::Receiver, _: &Gate, mut each: impl FnMut(&[u8])) {
        while let Some(message) = receiver.blocking_recv() {
            each(&message);
        }
    }
}

/// `crossbeam_queue::ArrayQueue` of vectors. It cannot wake anybody, so its consumer looks every millisecond.
#[derive(Debug)]
pub(crate) struct Array;

impl Queue for Array {
    type Sender = Arc<ArrayQueue<Vec<u8>>>;
    type Receiver = Arc<ArrayQueue<Vec<u8>>>;

    fn new(producers: usize, events: usize, _: usize) -> (Vec<Self::Sender>, Self::Receiver) {
        let queue = Arc::new(ArrayQueue::new(events));
        (vec![Arc::clone(&queue); producers], queue)
    }

    #[inline]
    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool {
        sender.push(fill.to_vec(number)).is_ok()
    }

    fn consume(receiver: Self::Receiver, senders_gone: &Gate, mut each: impl FnMut(&[u8])) {
        loop {
            let is_last = senders_gone.is_open();
            while let Some(message) = receiver.pop() {
                each(&message);
            }
            if is_last {
                return;
            }
            std::thread::sleep(LINGER);
        }
    }
}

/// `crossbeam_channel::bounded` of vectors.
#[derive(Debug)]
pub(crate) struct CrossbeamChannel;

impl Queue for CrossbeamChannel {
    type Sender = crossbeam_channel::Sender<Vec<u8>>;
    type Receiver = crossbeam_channel::Receiver<Vec<u8>>;

    fn new(producers: usize, events: usize, _: usize) -> (Vec<Self::Sender>, Self::Receiver) {
        let (sender, receiver) = crossbeam_channel::bounded(events);
        (vec![sender; producers], receiver)
    }

    #[inline]
    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool {
        sender.try_send(fill.to_vec(number)).is_ok()
    }

    fn consume(receiver: Self::Receiver, _: &Gate, mut each: impl FnMut(&[u8])) {
        while let Ok(message) = receiver.recv() {
            each(&message);
        }
    }
}

/// `kanal::bounded` of vectors.
#[derive(Debug)]
pub(crate) struct Kanal;

impl Queue for Kanal {
    type Sender = kanal::Sender<Vec<u8>>;
    type Receiver = kanal::Receiver<Vec<u8>>;

    fn new(producers: usize, events: usize, _: usize) -> (Vec<Self::Sender>, Self::Receiver) {
        let (sender, receiver) = kanal::bounded(events);
        (vec![sender; producers], receiver)
    }

    #[inline]
    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool {
        matches!(sender.try_send(fill.to_vec(number)), Ok(true))
    }

    fn consume(receiver: Self::Receiver, _: &Gate, mut each: impl FnMut(&[u8])) {
        while let Ok(message) = receiver.recv() {
            each(&message);
        }
    }
}

/// `thingbuf::mpsc::blocking`, whose slots are vectors that are used again: no allocation, as with ours.
#[derive(Debug)]
pub(crate) struct ThingBuf;

impl Queue for ThingBuf {
    type Sender = thingbuf::mpsc::blocking::Sender<Vec<u8>, WithCapacity>;
    type Receiver = thingbuf::mpsc::blocking::Receiver<Vec<u8>, WithCapacity>;

    fn new(producers: usize, events: usize, bytes: usize) -> (Vec<Self::Sender>, Self::Receiver) {
        let recycle = WithCapacity::new().with_min_capacity(bytes);
        let (sender, receiver) = thingbuf::mpsc::blocking::with_recycle(events, recycle);
        (vec![sender; producers], receiver)
    }

    #[inline]
    fn try_send(sender: &mut Self::Sender, fill: &mut impl Fill, number: u64) -> bool {
        let Ok(mut slot) = sender.try_send_ref() else { return false };
        slot.clear();
        fill.append(number, &mut slot);
        true
    }

    fn consume(receiver: Self::Receiver, _: &Gate, mut each: impl FnMut(&[u8])) {
        while let Some(message) = receiver.recv_ref() {
            each(&message);
        }
    }
}

/// `rtrb`: a ring of bytes for each producer, which has its part of the memory. It cannot wake anybody.
#[derive(Debug)]
pub(crate) struct Rtrb;

/// A ring, and a buffer for messages that have to be made.
#[derive(Debug)]
pub(crate) struct Lane {
    ring: rtrb::Producer<u8>,
    scratch: Vec<u8>,
}

const LENGTH_BYTES: usize = 4;

impl Queue for Rtrb {
    type Sender = Lane;
    type Receiver = Vec<rtrb::Consumer<u8>>;

    fn new(producers: usize, events: usize, bytes: usize) -> (Vec<Lane>, Self::Receiver) {
        let frames = (events / producers).max(2);
        let pair = |_| {
            let (ring, consumer) = rtrb::RingBuffer::new(frames * (LENGTH_BYTES + bytes));
            (Lane { ring, scratch: Vec::with_capacity(2 * bytes) }, consumer)
        };
        (0..producers).map(pair).unzip()
    }

    #[inline]
    fn try_send(lane: &mut Lane, fill: &mut impl Fill, number: u64) -> bool {
        let Lane { ring, scratch } = lane;
        fill.lend(number, scratch, |message| {
            let length = (message.len() as u32).to_le_bytes();
            // Room for both is there or not, since nobody else fills this ring.
            ring.slots() >= LENGTH_BYTES + message.len()
                && ring.push_entire_slice(&length).is_ok()
                && ring.push_entire_slice(message).is_ok()
        })
    }

    fn consume(rings: Self::Receiver, senders_gone: &Gate, mut each: impl FnMut(&[u8])) {
        let mut message = Vec::new();
        // A length may be there a moment before its message; then it is remembered.
        let mut rings: Vec<_> = rings.into_iter().map(|ring| (ring, None)).collect();
        loop {
            let is_last = senders_gone.is_open();
            for (ring, begun) in &mut rings {
                loop {
                    let mut length = [0; LENGTH_BYTES];
                    if begun.is_none() && ring.pop_entire_slice(&mut length).is_ok() {
                        *begun = Some(u32::from_le_bytes(length) as usize);
                    }
                    let Some(length) = *begun else { break };
                    message.resize(length, 0);
                    if ring.pop_entire_slice(&mut message).is_err() {
                        break;
                    }
                    *begun = None;
                    each(&message);
                }
            }
            if is_last {
                return;
            }
            std::thread::sleep(LINGER);
        }
    }
}

/// `tracing_appender::non_blocking`, lossy as it is by default: what a service may already have for its logs.
///
/// It never says whether it has taken a line; what it refused is known at the end only.
#[derive(Debug)]
pub(crate) struct Appender<F> {
    writer: NonBlocking,
    guard: WorkerGuard,
    refused: ErrorCounter,
    received: Counter,
    disordered: Counter,
    release: Gate,
    setup: Setup,
    fill: PhantomData<F>,
}

/// Where the lines go.
#[derive(Debug)]
struct Sink {
    checker: Checker,
    received: Counter,
    disordered: Counter,
    release: Gate,
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.release.is_open() {
            self.release.wait();
        }
        let before = self.checker.disordered();
        self.checker.look_at(line);
        if self.checker.disordered() > before {
            self.disordered.add_one();
        }
        self.received.add_one();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fill> Peer for Appender<F> {
    type Producer = Lines<F>;
    type Progress = Counter;

    fn start(setup: &Setup) -> Result<Self> {
        let (received, disordered, release) = (Counter::default(), Counter::default(), Gate::default());
        if !setup.held {
            release.open();
        }
        let sink = Sink {
            checker: Checker::new(setup.size, F::ENCODES),
            received: received.clone(),
            disordered: disordered.clone(),
            release: release.clone(),
        };
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(CAPACITY_BYTES / setup.size.bytes())
            .thread_name(CONSUMER)
            .finish(sink);
        let refused = writer.error_counter();
        Ok(Self {
            writer,
            guard,
            refused,
            received,
            disordered,
            release,
            setup: setup.clone(),
            fill: PhantomData,
        })
    }

    fn producer(&mut self, index: usize) -> Lines<F> {
        Lines { writer: self.writer.clone(), fill: F::new(self.setup.size, index), line: Vec::new() }
    }

    fn progress(&self) -> Counter {
        self.received.clone()
    }

    fn refused_silently(&self) -> u64 {
        self.refused.dropped_lines() as u64
    }

    fn finish(self, accepted: u64, _: End) -> Result<Outcome> {
        self.release.open();
        let start = Instant::now();
        self.received.wait_for(accepted)?;
        drop(self.guard);
        ensure!(start.elapsed() < PATIENCE, "the writer did not end");
        check(self.received.received(), accepted, self.disordered.received())
    }
}

/// A thread's writer.
#[derive(Debug)]
pub(crate) struct Lines<F> {
    writer: NonBlocking,
    fill: F,
    line: Vec<u8>,
}

impl<F: Fill> Producer for Lines<F> {
    #[inline]
    fn offer(&mut self, number: u64) -> bool {
        let Self { writer, fill, line } = self;
        fill.lend(number, line, |message| writer.write(message).is_ok())
    }
}
