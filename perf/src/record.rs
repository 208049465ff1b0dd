//! Records: what was measured, where, by which command. They are committed, and plots and tables are made from nothing else.

use crate::histogram::{Percentiles, Spread, Spreads};
use crate::machine::Machine;
use crate::plan::Plan;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One file under `record/`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) plan: Plan,
    pub(crate) command: String,
    pub(crate) repetitions: usize,
    /// Event sizes are those of the bare v1 envelope as JSON; times are nanoseconds.
    pub(crate) machine: Machine,
    pub(crate) timer: Timer,
    pub(crate) cells: Vec<Cell>,
}

/// The clock of the measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Timer {
    pub(crate) source: String,
    pub(crate) ticks_per_nanosecond: f64,
    /// Between two readings with nothing in between.
    pub(crate) cost: Percentiles,
}

/// One load given to one peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) group: String,
    pub(crate) peer: String,
    pub(crate) job: String,
    pub(crate) size_bytes: usize,
    pub(crate) producers: usize,
    pub(crate) pattern: String,
    pub(crate) queue: String,
    pub(crate) sink: String,
    /// Over all repetitions.
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) dropped: u64,
    /// Accepted, and not known to be stored at the end.
    pub(crate) unconfirmed: u64,
    pub(crate) dropped_share: Spread,
    /// Nanoseconds a call: medians of batches of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batched: Option<Spread>,
    /// The main figure (batched, else the median of `service`) of this cell divided by jetring's in the same repetition of the same group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) times_jetring: Option<Spread>,
    /// Service time of all calls, each timed by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<Spreads>,
    /// Of those that were accepted, if not all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_accepted: Option<Spreads>,
    /// Of those that were refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service_refused: Option<Spreads>,
    /// Response time of all calls: from the time in the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Spreads>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offered_per_second: Option<Spread>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) accepted_per_second: Option<Spread>,
    /// What the consumer did, in the middle of a flood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consumed_per_second: Option<Spread>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) consumer_cpu_nanos_per_event: Option<Spread>,
    /// Refused calls that were watched, and in how many of them the body's `Serialize` ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused_and_serialized: Option<(u64, u64)>,
}

impl Record {
    pub(crate) fn load(directory: &Path, plan: Plan) -> Result<Self> {
        let path = path(directory, plan);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading the record {name}"))?;
        serde_json::from_str(&text).with_context(|| format!("the record {name}"))
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::write(path(directory, self.plan), self.to_text()?).context("writing a record")
    }

    /// The cell of a peer in a group.
    pub(crate) fn cell(&self, group: &str, peer: &str) -> Result<&Cell> {
        let mut cells = self.cells.iter();
        cells
            .find(|cell| cell.group == group && cell.peer == peer)
            .with_context(|| format!("no cell of {peer} in {group}; was the run filtered?"))
    }

    pub(crate) fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |cell| cell.group == group)
    }

    fn to_text(&self) -> Result<String> {
        one_cell_a_line(self)
    }
}

/// A record as JSON with a cell on each line, so that a change of one cell is a change of one line.
pub(crate) fn one_cell_a_line(record: &impl Serialize) -> Result<String> {
    let Value::Object(mut members) = serde_json::to_value(record)? else {
        unreachable!("a struct is an object")
    };
    let cells = members.remove("cells");
    let mut text = String::from("{\n");
    for (name, value) in members {
        writeln!(text, "  {}: {},", Value::from(name), value)?;
    }
    let cells: Vec<String> =
        cells.iter().filter_map(Value::as_array).flatten().map(Value::to_string).collect();
    writeln!(text, "  \"cells\": [\n    {}\n  ]\n}}", cells.join(",\n    "))?;
    Ok(text)
}

fn path(directory: &Path, plan: Plan) -> PathBuf {
    let name = match plan {
        Plan::Publish => "publish.json",
        Plan::Throughput => "throughput.json",
        Plan::Outage => "outage.json",
    };
    directory.join(name)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A record with these cells.
    pub(crate) fn record(plan: Plan, cells: Vec<Cell>) -> Record {
        Record {
            plan,
            command: "a command".to_owned(),
            repetitions: 5,
            machine: Machine::describe(),
            timer: Timer {
                source: "none".to_owned(),
                ticks_per_nanosecond: 1.0,
                cost: Percentiles::default(),
            },
            cells,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_one_cell_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let cell = |peer: &str| Cell {
            group: "call-414".to_owned(),
            peer: peer.to_owned(),
            batched: Some(Spread { median: 2.0, min: 1.0, max: 3.5 }),
            refused_and_serialized: Some((7, 0)),
            ..Cell::default()
        };
        let written = record(Plan::Publish, vec![cell("jetring"), cell("original")]);
        written.save(directory.path()).unwrap();
        let read = Record::load(directory.path(), Plan::Publish).unwrap();
        assert_eq!(read.to_text().unwrap(), written.to_text().unwrap());
        assert_eq!(read.cell("call-414", "original").unwrap().batched, cell("").batched);
        assert!(read.cell("call-414", "nobody").is_err());
        let lines = written.to_text().unwrap();
        assert_eq!(lines.lines().filter(|line| line.contains("\"group\"")).count(), 2);
    }
}
