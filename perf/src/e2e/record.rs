//! The record of the end-to-end plan.

use super::plan;
use super::samples::{Sample, Samples};
use crate::histogram::Spread;
use crate::machine::Machine;
use crate::record::one_cell_a_line;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// `record/e2e.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct E2eRecord {
    pub(crate) command: String,
    pub(crate) repetitions: usize,
    pub(crate) machine: Machine,
    pub(crate) cells: Vec<Cell>,
}

/// One load given to one client. Sizes are those of the bare v1 envelope as JSON; times are microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) group: String,
    pub(crate) peer: String,
    pub(crate) size_bytes: usize,
    pub(crate) threads: u64,
    pub(crate) storage: String,
    pub(crate) replicas: usize,
    /// Events a second that were asked for; none: as many as get through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    /// In each repetition.
    pub(crate) events: u64,
    pub(crate) events_per_second: Spread,
    pub(crate) client_cpu_us_per_event: Spread,
    pub(crate) server_cpu_us_per_event: Spread,
    pub(crate) ack_latency_us: Latency,
    pub(crate) client_peak_mib: Spread,
    pub(crate) server_peak_mib: Spread,
    /// Events a second over the original's of the same group and repetition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) times_original: Option<Spread>,
    /// Its processor time for an event over the original's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_times_original: Option<Spread>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    #[serde(rename = "p99.9")]
    pub(crate) p999: Spread,
}

impl Cell {
    pub(super) fn gather(
        cell: &plan::Cell,
        cells: &[plan::Cell],
        samples: &Samples,
        repetitions: usize,
    ) -> Self {
        let own = samples.get(cell, repetitions);
        let original = cells
            .iter()
            .find(|other| other.group == cell.group && other.peer == super::peer::Peer::Original)
            .map(|original| samples.get(original, repetitions));
        let spread = |value: fn(&Sample) -> f64| Spread::exactly(own.iter().map(|sample| value(sample)));
        let ratio = |value: fn(&Sample) -> f64| {
            let pairs = own.iter().zip(original.as_ref()?);
            Some(Spread::exactly(pairs.map(|(own, original)| value(own) / value(original))))
        };
        Self {
            group: cell.group.to_owned(),
            peer: cell.peer.to_string(),
            size_bytes: cell.size.bytes(),
            threads: cell.threads,
            storage: cell.storage.to_string(),
            replicas: cell.replicas,
            rate: cell.every.map(|every| 1.0 / every.as_secs_f64()),
            events: cell.events,
            events_per_second: Spread::of(own.iter().map(|sample| sample.events_per_second)),
            client_cpu_us_per_event: spread(|sample| sample.client_cpu_us_per_event),
            server_cpu_us_per_event: spread(|sample| sample.server_cpu_us_per_event),
            ack_latency_us: Latency {
                p50: Spread::of(own.iter().map(|sample| sample.ack_latency_us.p50)),
                p99: Spread::of(own.iter().map(|sample| sample.ack_latency_us.p99)),
                p999: Spread::of(own.iter().map(|sample| sample.ack_latency_us.p999)),
            },
            client_peak_mib: Spread::of(own.iter().map(|sample| sample.client_peak_mib)),
            server_peak_mib: Spread::of(own.iter().map(|sample| sample.server_peak_mib)),
            times_original: ratio(|sample| sample.events_per_second),
            cpu_times_original: ratio(|sample| sample.client_cpu_us_per_event),
        }
    }
}

const NAME: &str = "e2e.json";

impl E2eRecord {
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(directory.join(NAME))
            .with_context(|| format!("reading the record {NAME}"))?;
        serde_json::from_str(&text).with_context(|| format!("the record {NAME}"))
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(directory.join(NAME), one_cell_a_line(self)?).context("writing a record")
    }

    pub(crate) fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |cell| cell.group == group)
    }

    /// What a person wants to see at once.
    pub(super) fn print(&self) {
        println!(
            "{:<14} {:<22} {:>9} {:>6} {:>10} {:>6} {:>10} {:>9} {:>9}",
            "group", "peer", "events/s", "×", "client µs", "×", "server µs", "p50 µs", "p99 µs"
        );
        let ratio =
            |ratio: Option<Spread>| ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median));
        for cell in &self.cells {
            println!(
                "{:<14} {:<22} {:>9.0} {:>6} {:>10.3} {:>6} {:>10.3} {:>9.0} {:>9.0}",
                cell.group,
                cell.peer,
                cell.events_per_second.median,
                ratio(cell.times_original),
                cell.client_cpu_us_per_event.median,
                ratio(cell.cpu_times_original),
                cell.server_cpu_us_per_event.median,
                cell.ack_latency_us.p50.median,
                cell.ack_latency_us.p99.median,
            );
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A cell with this rate and processor time.
    pub(crate) fn cell(group: &str, peer: &str, rate: f64, cpu: f64) -> Cell {
        let one = |value: f64| Spread::exactly([value]);
        Cell {
            group: group.to_owned(),
            peer: peer.to_owned(),
            size_bytes: 414,
            events_per_second: one(rate),
            client_cpu_us_per_event: one(cpu),
            times_original: Some(one(1.5)),
            ..Cell::default()
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_one_cell_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let cells = vec![cell("file-414", "original", 1e5, 4.0), cell("file-414", "nats.c", 2e5, 0.3456)];
        let written = E2eRecord {
            command: "a command".to_owned(),
            repetitions: 5,
            machine: Machine::describe(),
            cells,
        };
        written.save(directory.path()).unwrap();
        let read = E2eRecord::load(directory.path()).unwrap();
        assert_eq!(one_cell_a_line(&read).unwrap(), one_cell_a_line(&written).unwrap());
        assert_eq!(read.group("file-414").count(), 2);
        let text = one_cell_a_line(&read).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("0.3456")).count(), 1);
    }
}
