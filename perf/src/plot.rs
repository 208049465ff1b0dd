//! The plots, made from the records: which figures they show. How a chart is drawn is in `plot/chart.rs`.

mod chart;

use crate::e2e::{self, record::E2eRecord};
use crate::histogram;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::record::{Cell, Record};
use anyhow::{Context, Result};
use chart::{Axis, Chart, Line, Stroke};
use std::path::Path;

/// The curves end where a repetition still has dozens of calls behind each point.
const NINES_SHOWN: usize = 4;

/// Writes all plots.
pub(crate) fn write_all(records: &Path, plots: &Path) -> Result<()> {
    let publish = Record::load(records, Plan::Publish)?;
    let throughput = Record::load(records, Plan::Throughput)?;
    let outage = Record::load(records, Plan::Outage)?;
    let e2e = E2eRecord::load(records)?;
    std::fs::create_dir_all(plots)?;
    for (name, chart) in [
        ("service.svg", service(&publish)?),
        ("response.svg", response(&publish)?),
        ("throughput.svg", accepted(&throughput)?),
        ("outage.svg", states(&outage)?),
        ("e2e.svg", delivered(&e2e)),
        ("e2e-cpu.svg", client_cpu(&e2e)),
    ] {
        std::fs::write(plots.join(name), chart.to_svg()).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

/// Peers in the distributions, of which more would only hide each other.
const SHOWN: [&str; 6] = ["jetring", "original", "original, polled", "tokio mpsc", "ArrayQueue", "control"];

fn service(record: &Record) -> Result<Chart> {
    let lines = SHOWN.map(|peer| {
        let cell = record.cell("paced-1", peer)?;
        Ok(curve(peer, peer, &cell.service.as_ref().context("calls were timed")?.curve))
    });
    let title = "How long a publish of 414 bytes takes: one thread, a call every 2 µs (service time)";
    percentiles(title, record, lines.into_iter().collect::<Result<_>>()?)
}

fn response(record: &Record) -> Result<Chart> {
    let lines = SHOWN.map(|peer| {
        let cell = record.cell("paced-1", peer)?;
        Ok(curve(peer, peer, &cell.response.as_ref().context("there was a schedule")?.curve))
    });
    let title = "The same calls, measured from when they were due (response time)";
    percentiles(title, record, lines.into_iter().collect::<Result<_>>()?)
}

fn states(record: &Record) -> Result<Chart> {
    let mut lines = Vec::new();
    for (group, state) in
        [("up", "up"), ("down", "killed"), ("stalled", "frozen"), ("restarting", "restarting")]
    {
        for peer in ["jetring", "original"] {
            let cell = record.cell(group, peer)?;
            let service = cell.service.as_ref().context("calls were timed")?;
            let mut line = curve(&format!("{peer}, {state}"), peer, &service.curve);
            line.stroke = match group {
                "up" => Stroke::Solid,
                "down" => Stroke::Dashed,
                "stalled" => Stroke::Dotted,
                _ => Stroke::DashDotted,
            };
            lines.push(line);
        }
    }
    let title = "A publish every 2 µs to a nats-server that is up, killed, frozen or restarting";
    percentiles(title, record, lines)
}

fn percentiles(title: &str, record: &Record, lines: Vec<Line>) -> Result<Chart> {
    let names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"];
    let ticks = names.iter().enumerate().map(|(nine, name)| (nine as f64, (*name).to_owned()));
    Ok(Chart {
        title: title.to_owned(),
        subtitle: subtitle(&record.machine, record.repetitions),
        x: Axis { name: "of the calls took no longer".to_owned(), ticks: ticks.collect() },
        y: Axis::decades("", &lines, nanos_text),
        lines,
    })
}

fn curve(name: &str, peer: &str, curve: &[f64]) -> Line {
    let nines = histogram::curve_nines();
    let points = nines.zip(curve).filter(|(nines, _)| *nines <= NINES_SHOWN as f64);
    line(name, peer, points.map(|(nines, &nanos)| (nines, nanos.max(1.0))).collect())
}

fn accepted(record: &Record) -> Result<Chart> {
    let floods: Vec<&Cell> = record.cells.iter().filter(|cell| is_usual_flood(cell)).collect();
    let mut lines: Vec<Line> = Vec::new();
    for cell in &floods {
        if lines.iter().any(|line| line.name == cell.peer) {
            continue;
        }
        let of_peer = floods.iter().filter(|other| other.peer == cell.peer);
        let points = of_peer.filter_map(|cell| {
            let rate = cell.accepted_per_second?;
            Some(((cell.producers as f64).log2(), rate.median))
        });
        lines.push(line(&cell.peer, &cell.peer, points.collect()));
    }
    let producers = lines.first().context("the record has floods")?.points.iter();
    let ticks = producers.map(|&(log, _)| (log, format!("{}", log.exp2()))).collect();
    Ok(Chart {
        title: "Events of 414 bytes accepted each second, when all threads call back to back".to_owned(),
        subtitle: format!(
            "solid, dotted: the whole job · dashed, dash-dotted: encoded bytes · {}",
            subtitle(&record.machine, record.repetitions)
        ),
        x: Axis { name: "producing threads".to_owned(), ticks },
        y: Axis::decades("", &lines, rate_text),
        lines,
    })
}

/// The second flavours of the queues are in the table only: so many lines would hide each other.
fn is_usual_flood(cell: &Cell) -> bool {
    cell.group.starts_with("flood-") && cell.size_bytes == 414 && !cell.peer.ends_with("+ encode")
}

fn delivered(record: &E2eRecord) -> Chart {
    let lines = by_size(record, |cell| cell.events_per_second.median);
    by_size_chart("Events that reached a stream each second (a file, one server)", record, lines, rate_text)
}

fn client_cpu(record: &E2eRecord) -> Chart {
    let lines = by_size(record, |cell| cell.client_cpu_us_per_event.median * 1e3);
    by_size_chart("Processor time of the client for an event (a file, one server)", record, lines, nanos_text)
}

/// A line for each client that was measured with several sizes.
fn by_size(record: &E2eRecord, value: impl Fn(&e2e::record::Cell) -> f64) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for usual in record.group("file-414") {
        let of_peer = ["file-128", "file-414", "file-4096"].into_iter().flat_map(|group| record.group(group));
        let of_peer = of_peer.filter(|cell| cell.peer == usual.peer);
        let points: Vec<_> = of_peer.map(|cell| ((cell.size_bytes as f64).log2(), value(cell))).collect();
        if points.len() > 1 {
            lines.push(line(&usual.peer, &usual.peer, points));
        }
    }
    lines
}

fn by_size_chart(title: &str, record: &E2eRecord, lines: Vec<Line>, text: fn(f64) -> String) -> Chart {
    let sizes = [128.0f64, 414.0, 4096.0];
    Chart {
        title: title.to_owned(),
        subtitle: subtitle(&record.machine, record.repetitions),
        x: Axis {
            name: "bytes of an event".to_owned(),
            ticks: sizes.map(|size| (size.log2(), format!("{size}"))).into(),
        },
        y: Axis::decades("", &lines, text),
        lines,
    }
}

fn line(name: &str, peer: &str, points: Vec<(f64, f64)>) -> Line {
    let (colour, stroke) = match peer {
        "jetring" => ("#2f81f7", Stroke::Solid),
        "jetring json" | "jetring async" => ("#2f81f7", Stroke::Dashed),
        "jetring fast" => ("#2f81f7", Stroke::Solid),
        "jetring fast packed" => ("#2f81f7", Stroke::DashDotted),
        "jetstream-extra" => ("#57ab5a", Stroke::Dashed),
        "nats.c" => ("#c69026", Stroke::Dashed),
        "jetring ring" => ("#2f81f7", Stroke::DashDotted),
        "original" => ("#e5534b", Stroke::Solid),
        "original, polled" => ("#e5534b", Stroke::Dotted),
        "tokio mpsc" => ("#c69026", Stroke::Dashed),
        "ArrayQueue" => ("#57ab5a", Stroke::Dashed),
        "crossbeam-channel" => ("#1b9aaa", Stroke::Dashed),
        "kanal" => ("#a371f7", Stroke::Dashed),
        "thingbuf" => ("#e0823d", Stroke::Dashed),
        "rtrb" => ("#768390", Stroke::Dashed),
        "tracing-appender" => ("#c96198", Stroke::Dashed),
        _ => ("#8b949e", Stroke::Dotted),
    };
    Line { name: name.to_owned(), colour, stroke, is_ours: peer.starts_with("jetring"), points }
}

fn subtitle(machine: &Machine, repetitions: usize) -> String {
    let kind = if machine.virtual_machine { "virtual cores" } else { "cores" };
    format!(
        "{} {kind} of {} · medians of {} · {}",
        machine.cores,
        machine.cpu,
        repetitions,
        &machine.date[..machine.date.len().min(10)]
    )
}

fn nanos_text(nanos: f64) -> String {
    match nanos {
        nanos if nanos < 1e3 => format!("{nanos:.0} ns"),
        nanos if nanos < 1e6 => format!("{:.0} µs", nanos / 1e3),
        nanos if nanos < 1e9 => format!("{:.0} ms", nanos / 1e6),
        nanos => format!("{:.0} s", nanos / 1e9),
    }
}

fn rate_text(rate: f64) -> String {
    match rate {
        rate if rate < 1e6 => format!("{:.0} k/s", rate / 1e3),
        rate => format!("{:.0} M/s", rate / 1e6),
    }
}
