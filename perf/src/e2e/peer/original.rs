//! The event bus that jetring grew from, with its real pipeline.
//!
//! It had a channel of 1000 events and dropped what found no room. Here its threads wait for room, with the same pauses as jetring's, so
//! that every event is delivered and the two are asked for the same.

use super::script::{Latencies, Publisher, Script, Told, keep_time};
use crate::event::{Envelope, NAME};
use crate::peer::LINGER;
use crate::peer::original::{CAPACITY, IN_FLIGHT_MAX};
use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

#[derive(Debug)]
struct Message {
    subject: String,
    envelope: Vec<u8>,
    /// What the server knows it by, if it shall.
    id: Option<String>,
    offered: Instant,
}

#[derive(Debug)]
pub(crate) struct Original {
    runtime: Runtime,
    context: jetstream::Context,
    script: Script,
    gives_ids: bool,
}

impl Original {
    pub(crate) fn start(script: &Script, gives_ids: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let connected = async { anyhow::Ok(jetstream::new(async_nats::connect(script.url.as_str()).await?)) };
        let context = runtime.block_on(connected).context("connecting")?;
        Ok(Self { runtime, context, script: script.clone(), gives_ids })
    }

    fn produce(
        &self,
        queue: &Sender<Message>,
        thread: u64,
        numbers: Range<u64>,
        every: Option<Duration>,
    ) -> Result<()> {
        let mut body = self.script.body(thread)?;
        let start = Instant::now();
        for (index, number) in (0..).zip(numbers) {
            keep_time(start, index, every);
            body.set_number(number);
            let offered = Instant::now();
            let envelope = serde_json::to_vec(&Envelope::now(black_box(&body)))?;
            let subject = format!("event.{}.{}", black_box(1), black_box(NAME));
            let id = self.gives_ids.then(|| format!("{thread}-{number}"));
            let mut message = Message { subject, envelope, id, offered };
            loop {
                match queue.try_send(message) {
                    Ok(()) => break,
                    Err(TrySendError::Full(refused)) => message = refused,
                    Err(TrySendError::Closed(_)) => bail!("the task that publishes has ended"),
                }
                std::thread::sleep(LINGER);
            }
        }
        Ok(())
    }
}

impl Publisher for Original {
    fn publish(&mut self, numbers: Range<u64>, every: Option<Duration>) -> Result<Told> {
        let this = &*self;
        let events = this.script.threads * (numbers.end - numbers.start);
        let (queue, received) = mpsc::channel(CAPACITY);
        let delivery = this.runtime.spawn(deliver(received, this.context.clone()));
        std::thread::scope(|scope| {
            let (queue, numbers) = (&queue, &numbers);
            let threads: Vec<_> = (0..this.script.threads)
                .map(|thread| scope.spawn(move || this.produce(queue, thread, numbers.clone(), every)))
                .collect();
            for thread in threads {
                thread.join().expect("a producer does not panic")?;
            }
            anyhow::Ok(())
        })?;
        drop(queue);
        let told = this.runtime.block_on(delivery)?.tell();
        ensure!(told.acked == events, "of {events} events {} were acknowledged", told.acked);
        Ok(told)
    }
}

/// As [`crate::peer::original`] does it, with the time of each event at its side.
async fn deliver(mut events: Receiver<Message>, context: jetstream::Context) -> Latencies {
    let (mut acks, mut latencies) = (FuturesUnordered::new(), Latencies::new());
    loop {
        tokio::select! {
            event = events.recv(), if acks.len() < IN_FLIGHT_MAX => {
                let Some(Message { subject, envelope, id, offered }) = event else { break };
                let sent = match id {
                    None => context.publish(subject, envelope.into()).await,
                    Some(id) => {
                        let message = PublishMessage::build().payload(envelope.into()).message_id(id);
                        context.send_publish(subject, message).await
                    }
                };
                if let Ok(ack) = sent {
                    acks.push(ack.into_future().map(move |ack| (ack.is_ok(), offered)));
                }
            }
            Some((is_acked, offered)) = acks.next(), if !acks.is_empty() => if is_acked { latencies.add(offered) },
        }
    }
    while let Some((is_acked, offered)) = acks.next().await {
        if is_acked {
            latencies.add(offered);
        }
    }
    latencies
}
