//! `jetring tap`: follow the stream.

use crate::args;
use crate::{Failure, Outcome, Result};
use jetring::envelope::Envelope;
use jetring::nats::reader::{From, Reader, Received};
use jetring::{Config, Subjects};
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

/// Between two attempts to open the stream again.
const REOPEN_DELAY: Duration = Duration::from_millis(500);

pub(crate) async fn run(config: Config, args: &args::Tap, json: bool) -> Result<Outcome> {
    let subject =
        args.subject.clone().unwrap_or_else(|| Subjects::new(&config.subject_prefix, config.chain_id).all());
    let mut from = args.from.0;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut reader = Reader::open(&config, &subject, from, true).await.map_err(Failure::run)?;
    if from == From::New {
        // Where to go on if the connection is lost before the first message.
        from = From::Sequence(reader.last_sequence() + 1);
    }
    let stop = interrupted();
    tokio::pin!(stop);
    while left > 0 {
        let received = tokio::select! {
            received = reader.next() => received,
            _ = &mut stop => return Ok(Outcome::Well),
        };
        match received {
            Ok(Some(received)) => {
                from = From::Sequence(received.sequence + 1);
                match show(&received, json, left) {
                    Ok(shown) => left -= shown,
                    // Whoever read our output has gone, which is how `tap | head` ends.
                    Err(_) => return Ok(Outcome::Well),
                }
            }
            Ok(None) => return Ok(Outcome::Well),
            Err(error) => {
                eprintln!("jetring: {error}; trying again");
                reader = tokio::select! {
                    reader = reopen(&config, &subject, from) => reader,
                    _ = &mut stop => return Ok(Outcome::Well),
                };
            }
        }
    }
    Ok(Outcome::Well)
}

/// Ends when the user interrupts us or the system asks us to end.
pub(crate) async fn interrupted() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// Opens the stream again, as soon as that is possible.
pub(crate) async fn reopen(config: &Config, subject: &str, from: From) -> Reader {
    loop {
        if let Ok(reader) = Reader::open(config, subject, from, true).await {
            return reader;
        }
        tokio::time::sleep(REOPEN_DELAY).await;
    }
}

/// An event as `--json` prints it; those of one frame have the same sequence. The body keeps its digits, which a detour over
/// `serde_json::Value` would not.
#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    subject: &'a str,
    #[serde(flatten)]
    content: Content<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Content<'a> {
    Envelope(Envelope<'a>),
    /// What is no envelope, as text.
    Payload(Cow<'a, str>),
}

/// Prints up to `max` events of a message; returns how many it was.
fn show(received: &Received, json: bool, max: u64) -> io::Result<u64> {
    let mut shown = 0;
    match received.unpack() {
        Ok(frame) => {
            for event in frame.iter().take(usize::try_from(max).unwrap_or(usize::MAX)) {
                show_event(received, event, json)?;
                shown += 1;
            }
        }
        Err(error) => {
            eprintln!("jetring: message {}: {error}", received.sequence);
            show_event(received, &received.payload, json)?;
            shown = 1;
        }
    }
    Ok(shown)
}

fn show_event(Received { sequence, subject, .. }: &Received, event: &[u8], json: bool) -> io::Result<()> {
    let content = match Envelope::parse(event) {
        Ok(envelope) => Content::Envelope(envelope),
        Err(_) => Content::Payload(String::from_utf8_lossy(event)),
    };
    let mut out = io::stdout().lock();
    match content {
        content if json => {
            serde_json::to_writer(&mut out, &Line { sequence: *sequence, subject, content })?;
            writeln!(out)
        }
        Content::Envelope(envelope) => {
            let request = envelope.request_id.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
            writeln!(out, "{sequence} {} {subject}{request} {}", envelope.timestamp, envelope.body)
        }
        Content::Payload(text) => writeln!(out, "{sequence} - {subject} {text}"),
    }
}
