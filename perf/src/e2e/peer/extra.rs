//! Fast-ingest batches by the crate `jetstream-extra`, in what should be its best settings: as many events to an acknowledgement as the
//! server grants, three acknowledgements outstanding. Its client is async-nats 0.48.

use super::script::{Latencies, Publisher, Script, Told};
use crate::event::Envelope;
use anyhow::{Context, Result, ensure};
use async_nats_048::{Subject, jetstream};
use jetstream_extra::batch_publish_fast::{FastPublishExt, GapMode};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The most that the server grants.
const FLOW: u16 = 500;
/// The most that the crate takes.
const OUTSTANDING_MAX: u16 = 3;

#[derive(Debug)]
pub(crate) struct Extra {
    runtime: Runtime,
    context: jetstream::Context,
    script: Script,
}

impl Extra {
    pub(crate) fn start(script: &Script) -> Result<Self> {
        ensure!(script.threads == 1, "a batch belongs to one task");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let connected =
            async { anyhow::Ok(jetstream::new(async_nats_048::connect(script.url.as_str()).await?)) };
        let context = runtime.block_on(connected).context("connecting")?;
        Ok(Self { runtime, context, script: script.clone() })
    }

    async fn batch(&self, numbers: Range<u64>) -> Result<Latencies> {
        let mut body = self.script.body(0)?;
        let batch = self.context.fast_publish().flow(FLOW).max_outstanding_acks(OUTSTANDING_MAX);
        let mut batch = batch.gap_mode(GapMode::Fail).build()?;
        let events = numbers.end - numbers.start;
        let subject = Subject::from(self.script.subject.clone());
        let (mut latencies, mut offers, mut acked) = (Latencies::new(), VecDeque::new(), 0);
        for number in numbers {
            body.set_number(number);
            offers.push_back(Instant::now());
            let bytes = serde_json::to_vec(&Envelope::now(&body))?;
            let ack = batch.add(subject.clone(), bytes.into()).await?;
            offers.drain(..(ack.ack_sequence - acked) as usize).for_each(|offered| latencies.add(offered));
            acked = ack.ack_sequence;
        }
        let ended = batch.close().await?;
        ensure!(ended.batch_size as u64 == events, "of {events} events {} were stored", ended.batch_size);
        offers.drain(..).for_each(|offered| latencies.add(offered));
        Ok(latencies)
    }
}

impl Publisher for Extra {
    fn publish(&mut self, numbers: Range<u64>, every: Option<Duration>) -> Result<Told> {
        ensure!(
            every.is_none(),
            "it hears of acknowledgements when it publishes, so its latencies would be its pace"
        );
        Ok(self.runtime.block_on(self.batch(numbers))?.tell())
    }
}
