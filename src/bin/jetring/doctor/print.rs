//! Findings for people, one block each, and for programs.

use super::finding::{Finding, Severity};
use crate::{Failure, Result};
use serde::Serialize;
use std::io::Write;

/// Where lines are broken between words.
const WIDTH: usize = 120;

/// Where the id of a finding begins, and where its text does: behind the longest of each.
const ID_COLUMN: usize = 9;
const TEXT_COLUMN: usize = ID_COLUMN + 25;

#[derive(Serialize)]
struct Document<'a> {
    verdict: Severity,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
}

pub(super) fn print(findings: &[Finding], json: bool) -> Result<()> {
    let text = if json { document(findings)? } else { text(findings) };
    // Whoever reads our output may have gone; the exit status says all the same.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    Ok(())
}

fn document(findings: &[Finding]) -> Result<String> {
    let verdict = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    let (errors, warnings) = (count(findings, Severity::Error), count(findings, Severity::Warning));
    serde_json::to_string(&Document { verdict, errors, warnings, findings }).map_err(Failure::run)
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|finding| finding.severity == severity).count()
}

fn text(findings: &[Finding]) -> String {
    const LABEL: usize = 5;
    let mut text = String::new();
    for Finding { id, severity, streams, what, why, remedy } in findings {
        let of = if streams.is_empty() { String::new() } else { format!("{}: ", streams.join(", ")) };
        let head = format!("{:<ID_COLUMN$}{id:<width$}", severity.as_str(), width = TEXT_COLUMN - ID_COLUMN);
        block(&mut text, &head, &format!("{of}{what}"));
        for (label, words) in [("why", why), ("do", remedy)] {
            if !words.is_empty() {
                let label = format!("{:indent$}{label:<LABEL$}", "", indent = TEXT_COLUMN - LABEL);
                block(&mut text, &label, words);
            }
        }
    }
    let counted = |severity, name: &str| {
        let count = count(findings, severity);
        format!("{count} {name}{}", if count == 1 { "" } else { "s" })
    };
    let (errors, warnings) = (counted(Severity::Error, "error"), counted(Severity::Warning, "warning"));
    let notes = counted(Severity::Note, "note");
    format!("{text}{errors}, {warnings}, {notes}, {} ok", count(findings, Severity::Ok))
}

/// Writes words behind a label, and below it what does not fit beside it.
fn block(text: &mut String, label: &str, words: &str) {
    let (indent, mut column) = (label.len(), label.len());
    text.push_str(label);
    for (at, word) in words.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > WIDTH {
            text.push('\n');
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else if at > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_block_and_the_end_counts_them() {
        let why = "word ".repeat(30);
        let findings = [
            Finding::ok("server.reach", "here"),
            Finding::warning("stream.storage", "it is in memory")
                .why(why.trim_end())
                .remedy("file")
                .of("main"),
        ];
        let text = text(&findings);
        let lines: Vec<_> = text.lines().collect();
        let indent = " ".repeat(TEXT_COLUMN);
        assert_eq!(lines[0], "ok       server.reach             here");
        assert_eq!(lines[1], "warning  stream.storage           main: it is in memory");
        assert!(lines[2].starts_with("                             why  word word"), "{text}");
        assert!(lines[3].starts_with(&format!("{indent}word")), "{text}");
        let end = lines.len() - 2;
        assert_eq!(
            lines[end..],
            ["                             do   file", "0 errors, 1 warning, 0 notes, 1 ok"]
        );
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
    }
}
