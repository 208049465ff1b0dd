//! The tables of this crate's README: what the end-to-end record says, and nothing typed by hand.

use super::record::{Cell, E2eRecord};
use crate::histogram::Spread;
use crate::readme::Block;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- e2e:begin -->";
const END: &str = "<!-- e2e:end -->";

/// Writes the tables anew, or, to `check`, fails if that would change them.
pub(crate) fn update(records: &Path, readme: &Path, check: bool) -> Result<()> {
    let record = E2eRecord::load(records)?;
    Block { begin: BEGIN, end: END, text: block(&record)? }.update(readme, check)
}

/// Groups by what is asked of them.
const FLOODS: [(&str, &str); 7] = [
    ("file-414", "414 bytes, a file, one server"),
    ("threads-2", "the same, two threads publish"),
    ("file-128", "128 bytes, a file, one server"),
    ("file-4096", "4096 bytes, a file, one server"),
    ("memory-414", "414 bytes, in memory, one server"),
    ("r3-file-414", "414 bytes, files, three servers on the same cores"),
    ("r3-memory-414", "414 bytes, in memory, three servers on the same cores"),
];

fn block(record: &E2eRecord) -> Result<String> {
    let mut parts = vec![preface(record)];
    for (group, title) in FLOODS {
        parts.push(flood(record, group, title)?);
    }
    parts.push(light(record)?);
    parts.push("![Events a second by their size](plots/e2e.svg)".to_owned());
    parts.push("![Processor time of the client for an event by its size](plots/e2e-cpu.svg)".to_owned());
    parts.retain(|part| !part.is_empty());
    Ok(parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n"))
}

fn preface(record: &E2eRecord) -> String {
    let machine = &record.machine;
    format!(
        "`{}` on {} {}cores of {}, which clients and servers share; commit {}{}, {}. Medians of {} interleaved repetitions, in brackets the \
         least and the greatest; × is over the original's in the same repetition.",
        record.command,
        machine.cores,
        if machine.virtual_machine { "virtual " } else { "" },
        machine.cpu,
        machine.commit,
        if machine.modified { " with changes" } else { "" },
        machine.date,
        record.repetitions,
    )
}

fn flood(record: &E2eRecord, group: &str, title: &str) -> Result<String> {
    let mut text = String::new();
    for cell in record.group(group) {
        if text.is_empty() {
            writeln!(
                text,
                "| {title} | thousands of events a second | × | client µs an event | × | server µs an event | client MiB |\n\
                 | --- | --- | --- | --- | --- | --- | --- |"
            )?;
        }
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.2} | {:.0} |",
            name(cell),
            spread(cell.events_per_second, 1e3, 0),
            ratio(cell.times_original),
            spread(cell.client_cpu_us_per_event, 1.0, 2),
            ratio(cell.cpu_times_original),
            cell.server_cpu_us_per_event.median,
            cell.client_peak_mib.median,
        )?;
    }
    Ok(text)
}

fn light(record: &E2eRecord) -> Result<String> {
    let mut text = String::from(
        "| 1,000 events of 414 bytes a second, a file, one server | publish to acknowledgement: p50 ms | p99 ms | client µs an event |\n\
         | --- | --- | --- | --- |\n",
    );
    for cell in record.group("light") {
        let latency = &cell.ack_latency_us;
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            name(cell),
            spread(latency.p50, 1e3, 2),
            spread(latency.p99, 1e3, 2),
            spread(cell.client_cpu_us_per_event, 1.0, 0),
        )?;
    }
    Ok(text)
}

fn name(cell: &Cell) -> String {
    if cell.peer.starts_with("jetring") { format!("**{}**", cell.peer) } else { cell.peer.clone() }
}

fn ratio(ratio: Option<Spread>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.median))
}

fn spread(spread: Spread, unit: f64, digits: usize) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| value / unit);
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::e2e::record::tests::cell;
    use crate::machine::Machine;

    #[test]
    fn each_group_that_was_measured_has_a_table_with_ours_in_bold() {
        let cells = vec![cell("file-414", "jetring fast", 2e5, 0.5), cell("light", "sync", 1e3, 90.0)];
        let record = E2eRecord {
            command: "a command".to_owned(),
            repetitions: 1,
            machine: Machine::describe(),
            cells,
        };
        let text = block(&record).unwrap();
        assert!(text.contains("| **jetring fast** | 200 (200–200) | 1.50 | 0.50 (0.50–0.50) |"), "{text}");
        assert!(text.contains("| sync |") && !text.contains("two threads publish"), "{text}");
    }

    #[test]
    fn a_stale_readme_is_found_and_one_that_was_written_is_not() {
        let records = Path::new(env!("CARGO_MANIFEST_DIR")).join("record");
        let directory = tempfile::tempdir().unwrap();
        let readme = directory.path().join("README.md");
        std::fs::write(&readme, format!("{BEGIN}\n{END}\n")).unwrap();
        assert!(update(&records, &readme, true).is_err());
        update(&records, &readme, false).unwrap();
        update(&records, &readme, true).unwrap();
    }
}
