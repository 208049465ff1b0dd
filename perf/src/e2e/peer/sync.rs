//! A JetStream publish whose acknowledgement is awaited before the next: the plainest thing that one can do, and for a single event the
//! fastest.

use super::script::{Latencies, Publisher, Script, Told, keep_time};
use crate::event::Envelope;
use anyhow::{Context, Result};
use async_nats::jetstream;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

#[derive(Debug)]
pub(crate) struct Sync {
    runtime: Runtime,
    context: jetstream::Context,
    script: Script,
}

impl Sync {
    pub(crate) fn start(script: &Script) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let connected = async { anyhow::Ok(jetstream::new(async_nats::connect(script.url.as_str()).await?)) };
        let context = runtime.block_on(connected).context("connecting")?;
        Ok(Self { runtime, context, script: script.clone() })
    }
}

impl Publisher for Sync {
    fn publish(&mut self, numbers: Range<u64>, every: Option<Duration>) -> Result<Told> {
        let mut body = self.script.body(0)?;
        let (start, mut latencies) = (Instant::now(), Latencies::new());
        for (index, number) in (0..).zip(numbers) {
            // On this thread: the runtime's timers are a millisecond wide.
            keep_time(start, index, every);
            body.set_number(number);
            let offered = Instant::now();
            let bytes = serde_json::to_vec(&Envelope::now(&body))?;
            self.runtime.block_on(async {
                self.context.publish(self.script.subject.clone(), bytes.into()).await?.await
            })?;
            latencies.add(offered);
        }
        Ok(latencies.tell())
    }
}
