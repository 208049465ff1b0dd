//! What every client does: the arguments that it gets, the words that it says, the latencies that it tells.

use crate::event::{Body, Size};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

/// The arguments.
#[derive(Clone, Debug, Args)]
pub(crate) struct Script {
    pub(crate) url: String,
    pub(crate) subject: String,
    /// Bytes of an event as a bare v1 envelope
    pub(crate) size: usize,
    /// Events that are measured, of all threads
    pub(crate) events: u64,
    /// Events before
    pub(crate) warm_up: u64,
    /// Microseconds between two events; 0: as fast as they get through
    pub(crate) every: u64,
    pub(crate) threads: u64,
}

/// A client under test.
pub(crate) trait Publisher {
    /// Publishes the events of these numbers from each thread, and returns when all are acknowledged: how long each took for that.
    fn publish(&mut self, numbers: Range<u64>, every: Option<Duration>) -> Result<Told>;
}

/// What a client tells of itself. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) acked: u64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

/// Three words of a play; a line of [`Told`] follows the last.
pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";
pub(crate) const DONE: &str = "done";

impl Script {
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self { url, subject, size, events, warm_up, every, threads } = self;
        let numbers = [*size as u64, *events, *warm_up, *every, *threads].map(|number| number.to_string());
        [url.clone(), subject.clone()].into_iter().chain(numbers).collect()
    }

    /// Warms up, waits for the word, publishes, tells, and stays until it is let go.
    pub(crate) fn play(&self, mut publisher: impl Publisher) -> Result<()> {
        let (warm_up, events) = (self.warm_up / self.threads, self.events / self.threads);
        let every = (self.every > 0).then(|| Duration::from_micros(self.every));
        publisher.publish(0..warm_up, None).context("the warm-up")?;
        say(READY)?;
        let mut word = String::new();
        std::io::stdin().lock().read_line(&mut word)?;
        ensure!(word.trim() == GO, "nobody wants to know");
        let told = publisher.publish(warm_up..warm_up + events, every)?;
        say(DONE)?;
        say(&serde_json::to_string(&told)?)?;
        // Its end would be the end of its clock.
        std::io::stdin().lock().read_line(&mut word)?;
        Ok(())
    }

    pub(crate) fn body(&self, thread: u64) -> Result<Body> {
        let size = [Size::B128, Size::B414, Size::B4096].into_iter().find(|size| size.bytes() == self.size);
        let Some(size) = size else { bail!("there are no events of {} bytes", self.size) };
        Ok(Body::new(size, thread as usize))
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Waits until it is time for the event with this number.
pub(crate) fn keep_time(start: Instant, number: u32, every: Option<Duration>) {
    if let Some(every) = every {
        let due = start + every * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Latencies of a client that has to measure them itself.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        let minute = 60_000_000_000;
        Self(Histogram::new_with_bounds(1, minute, 3).expect("the bounds are constants in range"))
    }

    #[inline]
    pub(crate) fn add(&mut self, since: Instant) {
        self.0.saturating_record(since.elapsed().as_nanos() as u64);
    }

    pub(crate) fn tell(&self) -> Told {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Told { acked: self.0.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}
