//! What a bus publishes about itself, on `event.<chain_id>._bus.<kind>`, so that readers of the stream can see loss.
//!
//! | kind | when | body |
//! | --- | --- | --- |
//! | `started` | first, at the start of the worker | [`Started`] |
//! | `gap` | within about a second after events were lost | [`Gap`] |
//! | `stats` | once a minute, while there is a connection | [`Running`] |
//! | `stopped` | last, when the bus is closed | [`Stopped`] |
//!
//! Reports are envelopes like all others. Their producer is `<16 hex>.bus`, with numbers of its own; they do not pass
//! through the rings, so no other event can shed them, and they stand in no account of the ledger.
//!
//! With [partitions](crate::Config::partitions) each worker reports to its own stream what concerns that stream; its reports'
//! producer is `<16 hex>.<partition>.bus`.
//!
//! [`AnyReport`] is a report of any kind, as a reader gets it; it prints as a sentence.

use crate::ledger::Stats;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What the names of all reports begin with.
pub(crate) const PREFIX: &str = "_bus.";

/// The name of a [`Started`] report.
pub const STARTED: &str = "_bus.started";
/// The name of a [`Gap`] report.
pub const GAP: &str = "_bus.gap";
/// The name of a [`Running`] report.
pub const STATS: &str = "_bus.stats";
/// The name of a [`Stopped`] report.
pub const STOPPED: &str = "_bus.stopped";

/// How often the ledger is published, if the configuration says nothing else.
pub(crate) const STATS_INTERVAL: Duration = Duration::from_secs(60);

/// A bus has started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The part that all its producers' names have in common: 16 hexadecimal digits.
    pub process: String,
    /// How many producers it has, `<process>.0` and so on, in all its streams.
    pub producers: usize,
    /// The version of this crate.
    pub version: String,
    /// How often it is going to publish its ledger, in seconds.
    #[serde(default = "usual_stats_seconds")]
    pub stats_seconds: f64,
}

fn usual_stats_seconds() -> f64 {
    STATS_INTERVAL.as_secs_f64()
}

/// Events of one producer were lost.
///
/// Of the numbers from `first` to `last`, `lost` did not make it; the others between them did, or are on their way. A gap
/// gathers all losses of about a second, so under heavy shedding it spans events that were delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Whose events.
    pub producer: String,
    /// The first number lost.
    pub first: u64,
    /// The last number lost.
    pub last: u64,
    /// How many numbers from `first` to `last` were lost.
    pub lost: u64,
    /// What was lost and why. The counts add up to `lost`.
    pub counts: Vec<Loss>,
}

/// A part of a [`Gap`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// The event's name, or `_other` where names are too many to tell apart.
    pub name: String,
    /// A reason of the ledger, or `indeterminate`: sent, never answered, and perhaps stored after all.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A bus is running, and this is how its events fare.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// The part that all its producers' names have in common: 16 hexadecimal digits.
    pub process: String,
    /// The number that the last offer of each producer has, or will have if it is still queued; zero for one that was offered nothing
    /// for this stream.
    pub offered: Vec<u64>,
    /// The ledger at this moment; with partitions, that of this stream's partition.
    pub ledger: Stats,
}

/// A bus was closed. Nothing of its producers follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The part that all its producers' names have in common: 16 hexadecimal digits.
    pub process: String,
    /// The last number of each producer; zero for one that numbered nothing in this stream.
    pub last: Vec<u64>,
    /// The final ledger; with partitions, that of this stream's partition. Theirs add up to that of the bus.
    pub ledger: Stats,
}

/// A report of any kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AnyReport {
    /// Of the kind `started`.
    Started(Started),
    /// Of the kind `gap`.
    Gap(Gap),
    /// Of the kind `stats`.
    Running(Running),
    /// Of the kind `stopped`.
    Stopped(Stopped),
}

impl AnyReport {
    /// Reads the body of an envelope that came on this subject. `None` if it is no report, or one of a kind that this version does not know.
    pub fn parse(subject: &str, body: &str) -> Option<Self> {
        let is = |name: &str| subject.strip_suffix(name).is_some_and(|before| before.ends_with('.'));
        match () {
            () if is(STARTED) => serde_json::from_str(body).ok().map(Self::Started),
            () if is(GAP) => serde_json::from_str(body).ok().map(Self::Gap),
            () if is(STATS) => serde_json::from_str(body).ok().map(Self::Running),
            () if is(STOPPED) => serde_json::from_str(body).ok().map(Self::Stopped),
            () => None,
        }
    }
}

impl fmt::Display for AnyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(Started { process, producers, version, .. }) => {
                write!(f, "process {process} started: jetring {version}, {producers} producers")
            }
            Self::Gap(Gap { producer, first, last, lost, counts }) => {
                write!(f, "{lost} events of {producer} lost, between numbers {first} and {last}:")?;
                let mut separator = "";
                counts.iter().try_for_each(|Loss { name, reason, count }| {
                    write!(f, "{} {count} {name} ({reason})", std::mem::replace(&mut separator, ","))
                })
            }
            Self::Running(Running { process, ledger, .. }) => {
                write!(f, "process {process} is running: ")?;
                write_ledger(f, ledger)
            }
            Self::Stopped(Stopped { process, ledger, .. }) => {
                write!(f, "process {process} stopped: ")?;
                write_ledger(f, ledger)
            }
        }
    }
}

/// The accounts, those left out that are empty and need not be said to be so.
fn write_ledger(f: &mut fmt::Formatter<'_>, ledger: &Stats) -> fmt::Result {
    write!(f, "{} offered, {} acked, {} dropped", ledger.offered, ledger.acked, ledger.dropped.total())?;
    let mut reasons = ledger.dropped.iter().filter(|&(_, events)| events > 0).peekable();
    if reasons.peek().is_some() {
        let reasons: Vec<String> = reasons.map(|(reason, events)| format!("{events} {reason}")).collect();
        write!(f, " ({})", reasons.join(", "))?;
    }
    write!(f, ", {} indeterminate, {} held", ledger.indeterminate, ledger.held())
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    const PROCESS: &str = "00f1e2d3c4b5a697";

    fn ledger() -> serde_json::Value {
        json!({
            "offered": 21, "acked": 10, "dropped": {"queue_full": 3, "too_large": 1}, "indeterminate": 1, "queued": 2,
            "in_flight": 3, "spooled": 1, "elapsed_seconds": 0.5,
        })
    }

    #[track_caller]
    fn assert_said(kind: &str, body: &serde_json::Value, said: &str) {
        let report = AnyReport::parse(&format!("event.1.{kind}"), &body.to_string()).unwrap();
        assert_eq!(report.to_string(), said);
    }

    #[test]
    fn each_kind_is_a_sentence() {
        assert_said(
            STARTED,
            &json!({"process": PROCESS, "producers": 4, "version": "0.1.0", "statsSeconds": 60.0}),
            "process 00f1e2d3c4b5a697 started: jetring 0.1.0, 4 producers",
        );
        let losses = json!([{"name": "a", "reason": "queue_full", "count": 2}, {"name": "b.c", "reason": "expired", "count": 1}]);
        assert_said(
            GAP,
            &json!({"producer": format!("{PROCESS}.0"), "first": 3, "last": 9, "lost": 3, "counts": losses}),
            "3 events of 00f1e2d3c4b5a697.0 lost, between numbers 3 and 9: 2 a (queue_full), 1 b.c (expired)",
        );
        let balance = "21 offered, 10 acked, 4 dropped (3 queue_full, 1 too_large), 1 indeterminate, 6 held";
        assert_said(
            STATS,
            &json!({"process": PROCESS, "offered": [21], "ledger": ledger()}),
            &format!("process 00f1e2d3c4b5a697 is running: {balance}"),
        );
        assert_said(
            STOPPED,
            &json!({"process": PROCESS, "last": [21], "ledger": ledger()}),
            &format!("process 00f1e2d3c4b5a697 stopped: {balance}"),
        );
    }

    #[test]
    fn what_is_no_report_is_none() {
        let body = json!({"process": PROCESS, "producers": 4, "version": "0.1.0"}).to_string();
        assert!(AnyReport::parse("event.1.3._bus.started", &body).is_some(), "of a partition");
        for subject in
            ["event.1.started", "event.1.a_bus.started", "event.1._bus.started.a", "event.1._bus.gap"]
        {
            assert_eq!(AnyReport::parse(subject, &body), None, "{subject}");
        }
    }

    #[test]
    fn a_start_that_does_not_tell_its_interval_has_the_usual_one() {
        let body = json!({"process": PROCESS, "producers": 4, "version": "0.1.0"}).to_string();
        let Some(AnyReport::Started(started)) = AnyReport::parse("event.1._bus.started", &body) else {
            panic!("{body}")
        };
        assert_eq!(Duration::from_secs_f64(started.stats_seconds), STATS_INTERVAL);
    }
}
