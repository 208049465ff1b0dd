//! The table of all outcomes, for the terminal and for the record in `perf/record`.

use std::fs;
use std::process::{Command, ExitCode};

use serde::Serialize;

use crate::outcome::Outcome;
use crate::run::directory;
use crate::table::FAULTS;

#[derive(Serialize)]
struct Record {
    command: String,
    commit: String,
    modified: bool,
    date: String,
    rows: Vec<Outcome>,
}

/// Prints the outcomes that are there, and writes them to `file` if one is named. Fails if there are none.
pub(crate) fn report(file: Option<&String>) -> ExitCode {
    let rows = rows();
    println!("{}", table(&rows));
    if rows.is_empty() {
        eprintln!("faults: no scenario has run; make faults runs them");
        return ExitCode::FAILURE;
    }
    if let Some(file) = file {
        let record = Record {
            command: "make faults RECORD=1".to_owned(),
            commit: said_by("git", &["rev-parse", "--short=10", "HEAD"]),
            modified: !said_by("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty(),
            date: said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            rows,
        };
        let mut text = serde_json::to_string_pretty(&record).expect("plain data");
        text.push('\n');
        if let Err(error) = fs::write(file, text) {
            eprintln!("faults: {file}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// In the order of the table of faults.
fn rows() -> Vec<Outcome> {
    let files = fs::read_dir(directory()).into_iter().flatten().flatten();
    let read = |file: fs::DirEntry| serde_json::from_str(&fs::read_to_string(file.path()).ok()?).ok();
    let mut rows: Vec<Outcome> = files.filter_map(read).collect();
    let place = |row: &Outcome| FAULTS.iter().position(|fault| fault.name == row.fault);
    let version =
        |row: &Outcome| row.server.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u32>>();
    rows.sort_by_key(|row| (place(row), row.engine.clone(), version(row)));
    rows
}

fn table(rows: &[Outcome]) -> String {
    let header = [
        "fault",
        "engine",
        "server",
        "offered",
        "acked",
        "dropped",
        "indet.",
        "twice",
        "reordered",
        "undeclared",
        "recovery",
        "caught up",
        "verdict",
    ];
    let mut lines = vec![header.map(str::to_owned)];
    for row in rows {
        let dropped: Vec<String> =
            row.dropped.iter().map(|(reason, events)| format!("{reason} {events}")).collect();
        lines.push([
            row.fault.clone(),
            row.engine.clone(),
            row.server.clone(),
            row.offered.to_string(),
            row.acked.to_string(),
            if dropped.is_empty() { "0".to_owned() } else { dropped.join(" ") },
            row.indeterminate.to_string(),
            row.duplicates.to_string(),
            row.reordered.to_string(),
            row.undeclared.to_string(),
            format!("{} ms", row.recovery_ms),
            format!("{} ms", row.caught_up_ms),
            row.verdict.lines().next().unwrap_or_default().to_owned(),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String; 13]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
