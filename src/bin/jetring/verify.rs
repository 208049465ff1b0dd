//! `jetring verify`: read the whole stream and prove what became of each producer's events.

use crate::args;
use crate::{Failure, Outcome, Result, output};
use jetring::audit::{Audit, Verdict};
use jetring::nats::reader::{From, Reader};
use jetring::{Config, Subjects};

/// Frames that cannot be unpacked of which it is said why; the rest is counted.
const COMPLAINTS_MAX: u64 = 10;

pub(crate) async fn run(config: &Config, args: &args::Verify, json: bool) -> Result<Outcome> {
    let mut reader = open(config).await?;
    let progress = output::progress(Some(reader.pending()), "verified");
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
                progress.suspend(|| eprintln!("jetring: message {}: {error}", received.sequence));
            }
        }
        audit.observe_frame(&received.subject, frame);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let verdict = audit.verdict();
    if let (Some(process), 0) = (&args.process, verdict.messages) {
        return Err(Failure::Run(format!("the stream holds nothing of a process {process:?}")));
    }
    print(&verdict, json)?;
    Ok(if verdict.is_sound() { Outcome::Well } else { Outcome::Loss })
}

async fn open(config: &Config) -> Result<Reader> {
    let subject = Subjects::new(&config.subject_prefix, config.chain_id).all();
    Reader::open(config, &subject, From::All, false).await.map_err(Failure::run)
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
    if verdict.unstamped > 0 {
        text += &format!("; {} without a stamp, about which nothing can be proved", verdict.unstamped);
    }
    if verdict.unreadable > 0 {
        text += &format!("; {} messages are no envelopes", verdict.unreadable);
    }
    text
}
