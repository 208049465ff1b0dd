//! jetring, by its public interface only.

use super::{CAPACITY_BYTES, End, Outcome, PATIENCE, Peer, Producer, Progress, Setup};
use crate::event::{Body, NAME, Size};
use anyhow::{Context, Result, ensure};
use jetring::audit::Audit;
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, Subjects, Topic};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

/// The stream that the server has.
pub(crate) const STREAM: &str = "main";

/// Nobody listens here.
const NOBODY: &str = "nats://127.0.0.1:1";

/// The thread of a bus's worker.
const WORKER: &str = "jetring-0";

/// The deadline of a close that delivers nothing.
const SOON: Duration = Duration::from_millis(100);

/// Above so many events the stream is not read back: reading must not take longer than measuring.
const READ_BACK_MAX: u64 = 100_000;

/// A bus whose events are structs, or JSON already.
#[derive(Debug)]
pub(crate) struct Ours<const JSON: bool> {
    config: Config,
    bus: Bus,
    topic: Topic,
    size: Size,
}

pub(crate) type Structs = Ours<false>;
pub(crate) type Json = Ours<true>;

/// The usual configuration for a server, or for none.
pub(crate) fn config(url: &str, size: Size) -> Result<Config> {
    let mut config = Config::new(url, STREAM, 1)?;
    config.queue.capacity = CAPACITY_BYTES;
    if size == Size::K64 {
        // The default is 64 KiB of JSON, and this size is just below; in whatever form a ring holds it, it shall fit.
        config.queue.max_event = 128 << 10;
    }
    Ok(config)
}

impl<const JSON: bool> Peer for Ours<JSON> {
    type Producer = Hand<JSON>;
    type Progress = Ledger;

    fn start(setup: &Setup) -> Result<Self> {
        let url = match (&setup.url, setup.held) {
            (Some(url), _) => url,
            (None, true) => NOBODY,
            (None, false) => "null:",
        };
        let config = config(url, setup.size)?;
        let bus = Bus::start(config.clone())?;
        let topic = bus.topic(NAME)?;
        Ok(Self { config, bus, topic, size: setup.size })
    }

    fn producer(&mut self, index: usize) -> Hand<JSON> {
        let body = Body::new(self.size, index);
        let json = serde_json::to_vec(&body).expect("an event is plain data");
        Hand { topic: self.topic.clone(), body, json }
    }

    fn progress(&self) -> Ledger {
        Ledger(self.bus.clone())
    }

    fn consumer_thread(&self) -> Option<&'static str> {
        Some(WORKER)
    }

    fn finish(self, accepted: u64, end: End) -> Result<Outcome> {
        let patience = if end == End::Abandoned { SOON } else { PATIENCE };
        let stats = self.bus.close(patience).stats;
        stats.check().context("the ledger")?;
        // Nobody waited for the worker's end where there was no server.
        ensure!(
            stats.held() == 0 || end == End::Abandoned,
            "events are left over after the close: {stats:?}"
        );
        let refused =
            stats.dropped.get(jetring::Reason::QueueFull) + stats.dropped.get(jetring::Reason::Contended);
        ensure!(
            stats.offered - refused == accepted,
            "calls said that {accepted} events were accepted, the ledger says {}",
            stats.offered - refused
        );
        if end == End::Delivered {
            ensure!(stats.acked == accepted, "of {accepted} events {} were acknowledged", stats.acked);
        }
        if end == End::Delivered
            && accepted <= READ_BACK_MAX
            && self.config.url != "null:".parse().expect("a url")
        {
            self.read_back(accepted)?;
        }
        Ok(Outcome { received: stats.acked, unconfirmed: accepted - stats.acked })
    }
}

impl<const JSON: bool> Ours<JSON> {
    /// Proves from the stream that every event is there once, and in order.
    fn read_back(&self, accepted: u64) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let subject = Subjects::new(&self.config.subject_prefix, self.config.chain_id).all();
        let verdict = runtime.block_on(async {
            let mut reader = Reader::open(&self.config, &subject, From::All, false).await?;
            let mut audit = Audit::new(true);
            while let Some(received) = reader.next().await? {
                audit.observe(&received.payload);
            }
            anyhow::Ok(audit.verdict())
        })?;
        ensure!(verdict.is_sound() && verdict.duplicates == 0, "the stream is not sound: {verdict:?}");
        ensure!(verdict.delivered >= accepted, "of {accepted} events the stream holds {}", verdict.delivered);
        Ok(())
    }
}

/// Publishes into a full ring, and counts the refused calls and those of them in which `Serialize` was called.
pub(crate) fn refused_and_serialized() -> Result<(u64, u64)> {
    let bus = Bus::start(config(NOBODY, Size::B414)?)?;
    let topic = bus.topic(NAME)?;
    let body = Watched { body: Body::new(Size::B414, 0), serialized: Cell::new(0) };
    crate::run::fill(|_| topic.publish(&body).is_accepted(), u64::MAX);
    let (mut refused, mut serialized) = (0, 0);
    for _ in 0..WATCHED_CALLS {
        let before = body.serialized.get();
        if !topic.publish(&body).is_accepted() {
            refused += 1;
            serialized += body.serialized.get() - before;
        }
    }
    bus.close(SOON).stats.check()?;
    Ok((refused, serialized))
}

const WATCHED_CALLS: u64 = 10_000;

/// An event that knows how often it was serialized.
struct Watched {
    body: Body,
    serialized: Cell<u64>,
}

impl Serialize for Watched {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialized.set(self.serialized.get() + 1);
        self.body.serialize(serializer)
    }
}

/// A thread's hand on the topic.
#[derive(Debug)]
pub(crate) struct Hand<const JSON: bool> {
    topic: Topic,
    body: Body,
    json: Vec<u8>,
}

impl<const JSON: bool> Producer for Hand<JSON> {
    #[inline]
    fn offer(&mut self, number: u64) -> bool {
        if JSON {
            return self.topic.publish_json(black_box(&self.json)).is_accepted();
        }
        self.body.set_number(number);
        self.topic.publish(black_box(&self.body)).is_accepted()
    }
}

/// What the bus says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(Bus);

impl Progress for Ledger {
    fn received(&self) -> u64 {
        self.0.stats().acked
    }
}
