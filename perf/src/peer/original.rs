//! The event bus that jetring grew from: everything that the hot thread does is formatting, and the rest is one tokio channel.

use super::queues::spawn;
use super::{CONSUMER, Counter, End, Gate, LINGER, Outcome, PATIENCE, Peer, Producer, Progress, Setup};
use crate::event::{Body, Checker, Envelope, NAME, Size};
use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::hint::black_box;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// What its channel held.
pub(crate) const CAPACITY: usize = 1000;

const CHAIN_ID: u64 = 1;

/// Unanswered publishes at once; the default of `delivery.max-in-flight`. The client has a limit of its own, 5000, at which a publish waits for
/// an acknowledgement: a task that both publishes and awaits acknowledgements must not get there, or it stands still for ever.
pub(crate) const IN_FLIGHT_MAX: usize = 4096;

type Message = (String, Vec<u8>);

/// The original; polled or woken.
#[derive(Debug)]
pub(crate) struct Original<const POLLED: bool> {
    queue: Option<Sender<Message>>,
    consumer: Consumer,
    received: Counter,
    release: Gate,
    size: Size,
}

pub(crate) type Woken = Original<false>;
pub(crate) type Polled = Original<true>;

#[derive(Debug)]
enum Consumer {
    /// A thread of ours; gives back how many messages were out of order.
    Thread(JoinHandle<u64>),
    /// A task on a runtime of its own, as in service; gives back how many were lost.
    Task(Runtime, tokio::task::JoinHandle<u64>),
}

impl<const POLLED: bool> Peer for Original<POLLED> {
    type Producer = Hand;
    type Progress = Counter;

    fn start(setup: &Setup) -> Result<Self> {
        let (queue, events) = mpsc::channel(CAPACITY);
        let (received, release) = (Counter::default(), Gate::default());
        if !setup.held {
            release.open();
        }
        let checker = Checker::new(setup.size, true);
        let consumer = if POLLED {
            let (count, gate) = (received.clone(), release.clone());
            Consumer::Thread(spawn(move || {
                gate.wait();
                poll(events, checker, &count)
            })?)
        } else {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name(CONSUMER)
                .enable_all()
                .build()?;
            let (count, gate) = (received.clone(), release.clone());
            let task = match &setup.url {
                None => runtime.spawn(drain(events, checker, count, gate)),
                Some(url) => {
                    let connected =
                        async { anyhow::Ok(jetstream::new(async_nats::connect(url.as_str()).await?)) };
                    let context = runtime.block_on(connected).context("connecting")?;
                    runtime.spawn(deliver(events, context, count))
                }
            };
            Consumer::Task(runtime, task)
        };
        Ok(Self { queue: Some(queue), consumer, received, release, size: setup.size })
    }

    fn producer(&mut self, index: usize) -> Hand {
        let queue = self.queue.clone().expect("it is given up by `finish` only");
        Hand { queue, body: Body::new(self.size, index) }
    }

    fn progress(&self) -> Counter {
        self.received.clone()
    }

    fn finish(mut self, accepted: u64, end: End) -> Result<Outcome> {
        self.release.open();
        // The last sender: the consumer ends when the channel is empty.
        self.queue = None;
        if end == End::Delivered {
            self.received.wait_for(accepted)?;
        }
        let disordered = match self.consumer {
            Consumer::Thread(thread) => thread.join().expect("the consumer does not panic"),
            Consumer::Task(runtime, task) => {
                let patience = if end == End::Delivered { PATIENCE } else { Duration::from_millis(200) };
                let ended = runtime.block_on(async { tokio::time::timeout(patience, task).await });
                runtime.shutdown_background();
                match ended {
                    Ok(ended) => ended.context("the consumer")?,
                    Err(_) => 0,
                }
            }
        };
        let received = self.received.received();
        ensure!(disordered == 0, "{disordered} events were out of order or not acknowledged");
        ensure!(received <= accepted, "{received} of {accepted} accepted events came out");
        Ok(Outcome { received, unconfirmed: accepted - received })
    }
}

/// A thread's hand on the channel.
#[derive(Debug)]
pub(crate) struct Hand {
    queue: Sender<Message>,
    body: Body,
}

impl Producer for Hand {
    #[inline]
    fn offer(&mut self, number: u64) -> bool {
        self.body.set_number(number);
        let Ok(bytes) = serde_json::to_vec(&Envelope::now(black_box(&self.body))) else { return false };
        self.queue.try_send((format!("event.{}.{}", black_box(CHAIN_ID), black_box(NAME)), bytes)).is_ok()
    }
}

async fn drain(mut events: Receiver<Message>, mut checker: Checker, received: Counter, gate: Gate) -> u64 {
    while !gate.is_open() {
        tokio::time::sleep(LINGER).await;
    }
    while let Some((_, bytes)) = events.recv().await {
        checker.look_at(&bytes);
        received.add_one();
    }
    checker.disordered()
}

fn poll(mut events: Receiver<Message>, mut checker: Checker, received: &Counter) -> u64 {
    loop {
        match events.try_recv() {
            Ok((_, bytes)) => {
                checker.look_at(&bytes);
                received.add_one();
            }
            Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(LINGER),
            Err(mpsc::error::TryRecvError::Disconnected) => return checker.disordered(),
        }
    }
}

/// The real pipeline: a JetStream publish for each event, its acknowledgement awaited beside the next ones. An event whose publish or
/// acknowledgement fails is gone, and counted by nobody but us.
async fn deliver(mut events: Receiver<Message>, context: jetstream::Context, received: Counter) -> u64 {
    let mut acks = FuturesUnordered::new();
    loop {
        tokio::select! {
            event = events.recv(), if acks.len() < IN_FLIGHT_MAX => {
                let Some((subject, bytes)) = event else { break };
                if let Ok(ack) = context.publish(subject, bytes.into()).await {
                    acks.push(ack.into_future());
                }
            }
            Some(ack) = acks.next(), if !acks.is_empty() => if ack.is_ok() { received.add_one() },
        }
    }
    while let Some(ack) = acks.next().await {
        if ack.is_ok() {
            received.add_one();
        }
    }
    0
}
