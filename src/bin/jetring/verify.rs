//! `jetring verify`: read the whole stream, or those of all partitions, and prove what became of each producer's events.

use crate::args;
use crate::{Failure, Outcome, Result, output};
use indicatif::ProgressBar;
use jetring::audit::{self, Audit, Verdict};
use jetring::reader::{From, Reader};
use jetring::{Config, Stream};

/// Frames that cannot be unpacked of which it is said why; the rest is counted.
const COMPLAINTS_MAX: u64 = 10;

pub(crate) async fn run(config: &Config, args: &args::Verify, json: bool) -> Result<Outcome> {
    let progress = output::progress(Some(0), "verified");
    let mut audits = Vec::new();
    for stream in config.streams() {
        audits.push(audit(config, &stream, args, &progress).await?);
    }
    progress.finish_and_clear();
    let verdict = audit::together(&audits);
    if let (Some(process), 0) = (&args.process, verdict.messages) {
        return Err(Failure::Run(format!("the stream holds nothing of a process {process:?}")));
    }
    print(&verdict, json)?;
    Ok(if verdict.is_sound() { Outcome::Well } else { Outcome::Loss })
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

fn print(verdict: &Verdict, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(verdict).map_err(Failure::run)?);
    } else {
        println!("{}", describe(verdict));
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
