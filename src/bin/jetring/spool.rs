//! `jetring spool`: a directory of events, looked at without a bus.

use crate::args::Look;
use crate::{Failure, Outcome, Result};
use chrono::{DateTime, SecondsFormat};
use jetring::spool::{self, Damage, Entries, Entry, Kind, Overview, Verdict};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

pub(crate) fn run(action: &Look, json: bool) -> Result<Outcome> {
    match action {
        Look::Ls { dir } => ls(dir, json),
        Look::Verify { dir } => verify(dir, json),
        Look::Dump { dir } => dump(dir, json),
        Look::Repair { dir } => repair(dir, json),
    }
}

fn ls(dir: &Path, json: bool) -> Result<Outcome> {
    let overview = spool::overview(dir).map_err(|error| failed(dir, &error))?;
    if json {
        print_json(&overview)?;
        return Ok(Outcome::Well);
    }
    let Overview { log, segments, quarantined, strangers, evicted, is_closed, .. } = &overview;
    for segment in segments {
        let first = segment
            .first_sequence
            .map_or_else(|| "damaged header".to_owned(), |first| format!("from {first}"));
        let made_at =
            segment.made_at.and_then(|nanos| i64::try_from(nanos).ok()).map(DateTime::from_timestamp_nanos);
        let made_at = made_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default();
        println!("{}  {:>12}  {:>20}  {made_at}", segment.file, segment.bytes, first);
    }
    quarantined.iter().for_each(|(file, bytes)| println!("{file}  {bytes:>12}  put aside, damaged"));
    strangers.iter().for_each(|file| println!("{file}  is not of this log"));
    let log = log.as_deref().unwrap_or("none");
    let state = if *is_closed { "closed" } else { "not closed: in use, or left by a crash" };
    println!("log {log}: {} segments, {evicted} messages deleted to make room; {state}", segments.len());
    Ok(Outcome::Well)
}

fn verify(dir: &Path, json: bool) -> Result<Outcome> {
    let verdict = spool::verify(dir).map_err(|error| failed(dir, &error))?;
    if json {
        print_json(&verdict)?;
    } else {
        complain(&verdict.damage);
        println!("{}", describe(&verdict));
    }
    Ok(outcome(&verdict))
}

fn repair(dir: &Path, json: bool) -> Result<Outcome> {
    let repair = match spool::repair(dir) {
        Ok(repair) => repair,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(Failure::Run(format!("{} is in use; what is in use is not repaired", dir.display())));
        }
        Err(error) => return Err(failed(dir, &error)),
    };
    if json {
        print_json(&repair)?;
    } else {
        complain(&repair.damage);
        repair.quarantined.iter().for_each(|file| println!("{file}: put aside"));
        println!("{}", describe(&repair.verdict));
    }
    Ok(outcome(&repair.verdict))
}

fn complain(damage: &[Damage]) {
    damage.iter().for_each(|damage| println!("{damage}"));
}

fn describe(verdict: &Verdict) -> String {
    let Verdict { messages, first, last, payload_bytes, missing, damages, .. } = verdict;
    let range = if *messages == 0 { String::new() } else { format!(" ({first} to {last})") };
    format!(
        "{messages} messages{range}, {payload_bytes} bytes of payload: {missing} missing, {damages} damaged places"
    )
}

fn outcome(verdict: &Verdict) -> Outcome {
    if verdict.is_sound() { Outcome::Well } else { Outcome::Loss }
}

/// An entry as `--json` prints it.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Message {
        sequence: u64,
        subject: &'a str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<&'a str, &'a str>,
        payload: Cow<'a, str>,
    },
    Missing {
        missing: (u64, u64),
    },
    Damage {
        damage: &'a Damage,
    },
}

fn dump(dir: &Path, json: bool) -> Result<Outcome> {
    let entries = Entries::open(dir).map_err(|error| failed(dir, &error))?;
    let (mut out, mut outcome) = (io::stdout().lock(), Outcome::Well);
    for entry in entries {
        let entry = entry.map_err(|error| failed(dir, &error))?;
        match &entry {
            Entry::Missing { .. } => outcome = Outcome::Loss,
            // A torn tail was never confirmed to anybody.
            Entry::Damage(damage) if damage.kind != Kind::Torn => outcome = Outcome::Loss,
            _ => {}
        }
        // Whoever read our output has gone, which is how `dump | head` ends.
        if show(&mut out, &entry, json).is_err() {
            return Ok(outcome);
        }
    }
    Ok(outcome)
}

fn show(out: &mut impl Write, entry: &Entry, json: bool) -> io::Result<()> {
    let line = match entry {
        Entry::Message { sequence, subject, headers, payload } => Line::Message {
            sequence: *sequence,
            subject,
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            payload: String::from_utf8_lossy(payload),
        },
        Entry::Missing { first, last } => Line::Missing { missing: (*first, *last) },
        Entry::Damage(damage) => Line::Damage { damage },
        _ => return Ok(()),
    };
    if json {
        serde_json::to_writer(&mut *out, &line)?;
        return writeln!(out);
    }
    match line {
        Line::Message { sequence, subject, payload, .. } => writeln!(out, "{sequence} {subject} {payload}"),
        Line::Missing { missing: (first, last) } => writeln!(out, "{first} to {last} missing"),
        Line::Damage { damage } => writeln!(out, "{damage}"),
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value).map_err(Failure::run)?);
    Ok(())
}

fn failed(dir: &Path, error: &io::Error) -> Failure {
    Failure::Run(format!("{}: {error}", dir.display()))
}
