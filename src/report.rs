//! What a bus publishes about itself, on `event.<chain_id>._bus.<kind>`, so that readers of the stream can see loss.
//!
//! | kind | when | body |
//! | --- | --- | --- |
//! | `started` | first, at the start of the worker | [`Started`] |
//! | `gap` | within about a second after events were lost | [`Gap`] |
//! | `stopped` | last, when the bus is closed | [`Stopped`] |
//!
//! Reports are envelopes like all others. Their producer is `<16 hex>.bus`, with numbers of its own; they do not pass
//! through the rings, so no other event can shed them, and they stand in no account of the ledger.
//!
//! With [partitions](crate::Config::partitions) each worker reports to its own stream what concerns that stream; its reports'
//! producer is `<16 hex>.<partition>.bus`.

use crate::ledger::Stats;
use serde::{Deserialize, Serialize};

/// What the names of all reports begin with.
pub(crate) const PREFIX: &str = "_bus.";

/// The name of a [`Started`] report.
pub const STARTED: &str = "_bus.started";
/// The name of a [`Gap`] report.
pub const GAP: &str = "_bus.gap";
/// The name of a [`Stopped`] report.
pub const STOPPED: &str = "_bus.stopped";

/// A bus has started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// The part that all its producers' names have in common: 16 hexadecimal digits.
    pub process: String,
    /// How many producers it has, `<process>.0` and so on, in all its streams.
    pub producers: usize,
    /// The version of this crate.
    pub version: String,
}

/// Events of one producer were lost.
///
/// Of the numbers from `first` to `last`, `lost` did not make it; the others between them did, or are on their way. A gap
/// gathers all losses of about a second, so under heavy shedding it spans events that were delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// The event's name, or `_other` where names are too many to tell apart.
    pub name: String,
    /// A reason of the ledger, or `indeterminate`: sent, never answered, and perhaps stored after all.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A bus was closed. Nothing of its producers follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// As in [`Started`].
    pub process: String,
    /// The last number of each producer; zero for one that numbered nothing in this stream.
    pub last: Vec<u64>,
    /// The final ledger; with partitions, that of this stream's partition. Theirs add up to that of the bus.
    pub ledger: Stats,
}
