//! `jetring verify`: read the whole stream, or those of all partitions, and prove what became of each producer's events.
//!
//! A crash is no undeclared loss, so it does not change the exit status. It is said, with what is known of its cost. An audit that found
//! nothing proves nothing, so it fails, and says what the stream holds instead.

use crate::args;
use crate::{Failure, Outcome, Result, output};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use indicatif::ProgressBar;
use jetring::audit::{self, Audit, Ending, Process, Verdict};
use jetring::reader::{From, Reader, ReaderError};
use jetring::{Config, Stream, StreamName};
use serde::Serialize;

/// Frames that cannot be unpacked of which it is said why; the rest is counted.
const COMPLAINTS_MAX: u64 = 10;

/// Subjects that are named where nothing was found.
const SUBJECTS_MAX: usize = 10;

pub(crate) async fn run(config: &Config, args: &args::Verify, json: bool) -> Result<Outcome> {
    let progress = output::progress(Some(0), "verified");
    let mut audits = Vec::new();
    for stream in config.streams() {
        audits.push(audit(config, &stream, args, &progress).await?);
    }
    progress.finish_and_clear();
    let verdict = audit::together(&audits);
    print(&verdict, &Endings::of(audit::processes(&audits), Utc::now()), json)?;
    if verdict.messages == 0 {
        return Err(nothing_found(config, args).await);
    }
    Ok(if verdict.is_sound() { Outcome::Well } else { Outcome::Loss })
}

/// Says what was looked for, where, and what is there instead.
async fn nothing_found(config: &Config, args: &args::Verify) -> Failure {
    let process = args.process.as_ref().map(|process| format!(" of process {process}")).unwrap_or_default();
    let mut text = format!("nothing{process} was found");
    for Stream { name, subjects, .. } in config.streams() {
        let filter = subjects.all();
        let held = match held(config, &name).await {
            Ok(held) if held.is_empty() => "the stream is empty".to_owned(),
            Ok(held) => format!("the stream holds messages of {held}"),
            Err(error) => format!("the subjects of the stream are unknown: {error}"),
        };
        text += &format!("; stream {}, subjects {filter}: {held}", name.as_str());
    }
    Failure::Run(text)
}

/// The subjects of a stream, with how many messages it holds of each.
async fn held(config: &Config, stream: &StreamName) -> std::result::Result<String, ReaderError> {
    let reader = Reader::open_stream(config, stream, "", From::New, false).await?;
    let subjects = reader.subjects(SUBJECTS_MAX + 1).await?;
    let shown: Vec<_> =
        subjects.iter().take(SUBJECTS_MAX).map(|(name, count)| format!("{name} ({count})")).collect();
    let more = if subjects.len() > SUBJECTS_MAX { ", and others" } else { "" };
    Ok(format!("{}{more}", shown.join(", ")))
}

async fn audit(
    config: &Config,
    Stream { name, subjects, .. }: &Stream,
    args: &args::Verify,
    progress: &ProgressBar,
) -> Result<Audit> {
    let reader = Reader::open_stream(config, name, &subjects.all(), From::All, false).await;
    let mut reader = reader.map_err(Failure::run)?;
    progress.inc_length(reader.pending());
    let mut audit = match &args.process {
        Some(process) => Audit::of_process(process),
        None => Audit::new(reader.first_sequence() <= 1),
    };
    let mut complaints = 0;
    while let Some(received) = reader.next().await.map_err(Failure::run)? {
        let frame = received.unpack();
        if let Err(error) = &frame {
            complaints += 1;
            if complaints <= COMPLAINTS_MAX {
                progress.suspend(|| eprintln!("jetring: {name}, message {}: {error}", received.sequence));
            }
        }
        audit.observe_frame(&received.subject, frame);
        progress.inc(1);
    }
    Ok(audit)
}

/// How the processes in the stream ended.
#[derive(Serialize)]
struct Endings {
    stopped: u64,
    running: u64,
    ended_without_a_word: Vec<Process>,
    #[serde(skip)]
    now: DateTime<Utc>,
}

impl Endings {
    fn of(processes: Vec<Process>, now: DateTime<Utc>) -> Self {
        let mut endings = Self { stopped: 0, running: 0, ended_without_a_word: Vec::new(), now };
        for process in processes {
            match process.ending(now) {
                Ending::Stopped => endings.stopped += 1,
                Ending::Running => endings.running += 1,
                Ending::WithoutAWord => endings.ended_without_a_word.push(process),
            }
        }
        endings
    }

    fn print(&self) {
        let Self { stopped, running, ended_without_a_word, now } = self;
        if *running > 0 || !ended_without_a_word.is_empty() {
            println!(
                "processes: {stopped} stopped, {running} running (or ended just now), {} ended without a word",
                ended_without_a_word.len()
            );
        }
        ended_without_a_word.iter().for_each(|process| println!("{}", obituary(process, *now)));
    }
}

/// What is known of the end of a process that said nothing of it.
fn obituary(
    Process { process, last_heard, last_stats, held, missing, .. }: &Process,
    now: DateTime<Utc>,
) -> String {
    let time = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    // Whole seconds are enough to tell a minute from a day.
    let silence = TimeDelta::seconds((now - *last_heard).num_seconds()).to_std().unwrap_or_default();
    let end = format!(
        "process {process} ended without a word (or cannot reach the stream): last heard at {}, silent for {silence:?}",
        time(last_heard)
    );
    match last_stats {
        Some(at) => format!(
            "{end}; of what it had offered by its last report, at {}, {missing} events are neither in the stream nor declared \
             ({held} were held then); what it offered after that and is not in the stream nobody can know",
            time(at)
        ),
        None => format!(
            "{end}; it never told its ledger, so what it offered and is not in the stream nobody can know"
        ),
    }
}

fn print(verdict: &Verdict, endings: &Endings, json: bool) -> Result<()> {
    #[derive(Serialize)]
    struct Printed<'a> {
        #[serde(flatten)]
        verdict: &'a Verdict,
        #[serde(flatten)]
        endings: &'a Endings,
    }
    if json {
        println!("{}", serde_json::to_string(&Printed { verdict, endings }).map_err(Failure::run)?);
    } else {
        println!("{}", describe(verdict));
        endings.print();
    }
    Ok(())
}

/// The verdict in words.
pub(crate) fn describe(verdict: &Verdict) -> String {
    let Verdict {
        messages, producers, delivered, duplicates, reordered, lost_declared, lost_undeclared, ..
    } = verdict;
    let mut text = format!(
        "{messages} messages of {producers} producers: {delivered} events delivered, {duplicates} duplicates, \
         {reordered} reordered, {lost_declared} lost and declared, {lost_undeclared} lost and undeclared"
    );
    if verdict.astray > 0 {
        text += &format!("; {} in another stream than the rest of their producer", verdict.astray);
    }
    if verdict.unstamped > 0 {
        text += &format!("; {} without a stamp, about which nothing can be proved", verdict.unstamped);
    }
    if verdict.unreadable > 0 {
        text += &format!("; {} messages are no envelopes", verdict.unreadable);
    }
    text
}
