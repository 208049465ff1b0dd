//! `jetring tap`: follow the stream, or those of all partitions, whose messages are shown as they come.

use crate::args;
use crate::follow::{Follower, MESSAGES_AHEAD};
use crate::interrupt::Signals;
use crate::{Failure, Outcome, Result};
use jetring::Config;
use jetring::envelope::Envelope;
use jetring::reader::{From, Received};
use jetring::report::AnyReport;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use tokio::sync::mpsc;

pub(crate) async fn run(config: Config, args: &args::Tap, json: bool) -> Result<Outcome> {
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut messages = follow(&config, args).await?;
    let mut signals = Signals::listen().map_err(Failure::run)?;
    while left > 0 {
        let received = tokio::select! {
            received = messages.recv() => received,
            _ = signals.next() => return Ok(Outcome::Well),
        };
        let Some(received) = received else { return Ok(Outcome::Well) };
        match show(&received, json, left) {
            Ok(shown) => left -= shown,
            // Whoever read our output has gone, which is how `tap | head` ends.
            Err(_) => return Ok(Outcome::Well),
        }
    }
    Ok(Outcome::Well)
}

/// The messages of all streams, as they come.
async fn follow(config: &Config, args: &args::Tap) -> Result<mpsc::Receiver<Received>> {
    let (from, streams) = (args.from.0, config.streams());
    if streams.len() > 1 && matches!(from, From::Sequence(_)) {
        let text = "--from: each of several partitions has sequences of its own; tap one, as --partitions 1 --stream main-0";
        return Err(Failure::Usage(text.to_owned()));
    }
    let (tell, messages) = mpsc::channel(MESSAGES_AHEAD);
    for stream in streams {
        let follower = Follower::open(config, stream, args.subject.as_deref(), from).await?;
        tokio::spawn(follower.run(tell.clone()));
    }
    Ok(messages)
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
            let weight = envelope.sampled_rate.map(|rate| format!(" ×{rate}")).unwrap_or_default();
            write!(out, "{sequence} {} {subject}{request}{weight} ", envelope.timestamp)?;
            match AnyReport::parse(subject, envelope.body.get()) {
                Some(report) => writeln!(out, "{report}"),
                None => writeln!(out, "{}", envelope.body),
            }
        }
        Content::Payload(text) => writeln!(out, "{sequence} - {subject} {text}"),
    }
}
