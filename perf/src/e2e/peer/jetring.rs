//! jetring, by its public interface.

use super::script::{Publisher, Script, Told, keep_time};
use super::{Compression, Engine, Framing};
use crate::event::NAME;
use crate::peer::{LINGER, PATIENCE};
use ::jetring::{Bus, Config, Topic};
use anyhow::{Context, Result, ensure};
use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A bus and its threads.
#[derive(Debug)]
pub(crate) struct Jetring {
    bus: Bus,
    topic: Topic,
    script: Script,
}

/// The defaults, but for how events are sent. An error if this version cannot.
pub(crate) fn config(url: &str, engine: Engine, framing: Framing) -> Result<Config> {
    let mode = match engine {
        Engine::Async => "async",
        Engine::Fast => "fast",
    };
    let (framing, compression) = match framing {
        Framing::Plain => ("plain", "none"),
        Framing::Packed(Compression::None) => ("packed", "none"),
        Framing::Packed(Compression::Lz4) => ("packed", "lz4"),
        Framing::Packed(Compression::Zstd) => ("packed", "zstd"),
    };
    let flags = [
        ("url", url),
        ("chain-id", "1"),
        ("delivery.mode", mode),
        ("delivery.framing", framing),
        ("delivery.compression", compression),
    ];
    Ok(Config::layered(None, [], flags.map(|(key, value)| (key, value.to_owned())))?)
}

impl Jetring {
    pub(crate) fn start(script: &Script, engine: Engine, framing: Framing) -> Result<Self> {
        let bus = Bus::start(config(&script.url, engine, framing)?)?;
        let topic = bus.topic(NAME)?;
        Ok(Self { bus, topic, script: script.clone() })
    }

    /// One thread's events. It waits for room: for two events of each thread, in whatever form, as others may be faster.
    fn produce(&self, thread: u64, numbers: Range<u64>, every: Option<Duration>) -> Result<()> {
        let mut body = self.script.body(thread)?;
        let room = 2 * self.script.size * self.script.threads as usize;
        let start = Instant::now();
        for (index, number) in (0..).zip(numbers) {
            keep_time(start, index, every);
            while !self.bus.has_room(room) {
                std::thread::sleep(LINGER);
            }
            body.set_number(number);
            ensure!(self.topic.publish(black_box(&body)).is_accepted(), "event {number} was refused");
        }
        Ok(())
    }
}

impl Publisher for Jetring {
    fn publish(&mut self, numbers: Range<u64>, every: Option<Duration>) -> Result<Told> {
        let (before, this) = (self.bus.delivery_latency(), &*self);
        std::thread::scope(|scope| {
            let numbers = &numbers;
            let threads: Vec<_> = (0..this.script.threads)
                .map(|thread| scope.spawn(move || this.produce(thread, numbers.clone(), every)))
                .collect();
            for thread in threads {
                thread.join().expect("a producer does not panic")?;
            }
            anyhow::Ok(())
        })?;
        let stats = self.bus.flush(PATIENCE).stats;
        stats.check().context("the ledger")?;
        ensure!(stats.acked == stats.offered, "not all events were acknowledged: {stats:?}");
        let latency = self.bus.delivery_latency().since(&before);
        let at = |quantile| latency.quantile(quantile).unwrap_or_default().as_secs_f64() * 1e6;
        Ok(Told { acked: latency.count(), p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}
