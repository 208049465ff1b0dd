//! A lock-free ring buffer in front of NATS JetStream.
//!
//! Threads that must not wait hand events over in some tens of nanoseconds and go on with their work. Behind the ring a worker turns
//! them into JSON envelopes, publishes them, and follows every acknowledgement to its end. Every event that was offered is
//! delivered, or the [ledger](Stats) says exactly what became of it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = jetring::Bus::start(jetring::Config::new("nats://localhost:4222", "main", 1)?)?;
//! let estimates = bus.topic("priceEstimate")?;
//! estimates.publish(&serde_json::json!({ "estimator": "direct", "outAmount": "1000" }));
//! let report = bus.close(Duration::from_secs(5));
//! assert_eq!(report.stats.acked, 1);
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | publish | [`Bus`], [`Topic`], [`Event`], [`request_scope`], [`trace_scope`]; or the process-wide [`init`], [`publish()`], [`close`] |
//! | configure | [`Config`], whose fields say what each knob does; [`Config::keys`] |
//! | spread over several streams | [`Config::partitions`], [`Topic::publish_keyed`], [`Config::streams`], [`partition_of`] |
//! | keep a name from taking the room of others, or take samples | [`Budget`], [`Config::events`], [`Bus::set_budget`], [`keeps_request`] |
//! | know what became of the events | [`Stats`], [`Report`], [`Reason`], [`Bus::delivery_latency`], [`Bus::register`] |
//! | read the stream | [`envelope`], [`frame`], [`report`], [`reader`], [`audit`] |
//! | look at a directory of events | [`spool`] |
//! | publish what `tracing` says, and with the request of its spans | `layer` (cargo feature `tracing-layer`) |
//! | test code that publishes | `testing` (cargo feature `testing`) |
//! | write JSON Schemas of events, and see what a change of them breaks | `schema` (cargo feature `schema`) |

mod budget;
mod bus;
mod clock;
mod config;
mod encode;
mod entropy;
mod event;
mod foreign;
mod fork;
mod global;
mod lane;
mod latch;
mod ledger;
mod metrics;
mod offer;
mod overflow;
mod partition;
mod publisher;
mod record;
mod ring;
mod shed;
mod sink;
mod subject;
mod sync;
mod thread;
mod timer;
mod trace;

pub mod audit;
pub mod envelope;
pub mod frame;
#[cfg(feature = "tracing-layer")]
pub mod layer;
pub mod nats;
pub mod reader;
pub mod report;
#[cfg(feature = "schema")]
pub mod schema;
pub mod spool;
#[cfg(feature = "testing")]
pub mod testing;

pub use budget::keeps_request;
pub use bus::{Bus, StartError, Topic};
pub use config::{
    Auth, Budget, BudgetError, Compression, Config, ConfigError, ConfigKey, Delivery, Endpoint, Framing,
    Mode, Place, Queue, Rings, Secret, SecretSource, Server, Servers, Share, ShareError, Shutdown, Spool,
    SpoolFull, SpoolSync, Tls, WhenFull,
};
pub use event::{Event, request_scope, trace_scope};
pub use global::{bus, close, init, publish, publish_event, publish_keyed, publish_with};
pub use ledger::{Dropped, Imbalance, Reason, Report, Stats};
pub use metrics::Distribution;
#[cfg(feature = "metrics-endpoint")]
pub use metrics::MetricsEndpoint;
pub use offer::Offer;
pub use partition::{Stream, partition_of};
pub use publisher::engine::Engine;
pub use subject::{Name, NameError, Prefix, StreamName, StreamNameError, Subjects, covers};
pub use trace::{TraceParent, TraceParentError};

/// Private: for this repository's own benches, stress tests and fuzz targets.
#[cfg(feature = "__internals")]
#[doc(hidden)]
pub mod __internals {
    pub use crate::encode::any::{AnyValue, expected, is_readable_json, judge};
    pub use crate::publisher::parts::Parts;
    pub use crate::ring::{CAPACITY_MAX, Claim, Consumer, Doorbell, Drained, LINE, Refusal, Ring};

    /// Runs a life of a log on a disk that fails, and judges what is left.
    pub fn spool_life(bytes: &[u8]) {
        crate::spool::trial::any_life(bytes);
    }

    /// The files of a small log.
    pub fn spool_golden() -> std::collections::BTreeMap<String, Vec<u8>> {
        crate::spool::trial::golden()
    }

    /// Opens what these files are, and judges what is left.
    pub fn spool_recover(files: &std::collections::BTreeMap<String, Vec<u8>>, are_forged: bool) {
        crate::spool::trial::any_files(files, are_forged);
        crate::overflow::trial::send_on(files);
    }

    /// Writes numbers of any size into them, with right checksums.
    pub fn spool_forge(
        files: &mut std::collections::BTreeMap<String, Vec<u8>>,
        kind: u8,
        choice: u8,
        numbers: [u64; 4],
    ) {
        crate::spool::forge::forge(files, kind, choice, numbers);
    }

    /// The errors of the server that a publish can meet: code, number, words, and whom each concerns: `stream`, `subject`, `unknown`, or the
    /// reason for which the event is dropped.
    pub fn publish_errors() -> Vec<(u64, u64, &'static str, &'static str)> {
        use crate::publisher::retry::{ERRORS, Verdict};
        let scope = |verdict| match verdict {
            Verdict::Retry(_) => "stream",
            Verdict::Park(_) => "subject",
            Verdict::Unknown => "unknown",
            Verdict::Final(reason) => reason.as_str(),
        };
        ERRORS.iter().map(|&(code, number, text, verdict)| (code, number, text, scope(verdict))).collect()
    }

    /// Lets a server say what these bytes make of it, and judges what the pipeline does.
    pub fn server_answers(bytes: &[u8]) {
        crate::publisher::trial::any_answers(bytes);
    }

    /// The JSON of a value as it comes out at the worker; `None` if the event is refused on the hot thread.
    pub fn encode_and_render(value: &impl serde::Serialize, json_bytes_max: usize) -> Option<Vec<u8>> {
        crate::encode::encode_and_render(value, json_bytes_max)
    }

    /// Whether the worker takes these bytes for the JSON of a body.
    pub fn is_json(bytes: &[u8]) -> bool {
        crate::encode::is_json(bytes, crate::encode::DEPTH_MAX)
    }

    /// Packs events into a frame as the worker does: the headers' values and the payload. `None` where the encoding is not built.
    pub fn pack(events: &[&[u8]], encoding: Option<&str>) -> Option<(usize, Option<&'static str>, Vec<u8>)> {
        use crate::frame::{Compressor, Encoding, end_line};
        let encoding = encoding.map(Encoding::of_name).transpose().ok()?;
        let mut content = Vec::new();
        for event in events {
            let start = content.len();
            content.extend_from_slice(event);
            end_line(&mut content, start);
        }
        match Compressor::new(encoding).ok()?.compress(&content) {
            Some((encoding, payload)) => Some((events.len(), Some(encoding.name()), payload.to_vec())),
            None => Some((events.len(), None, content)),
        }
    }

    /// Writes an envelope as the worker does.
    pub fn write_envelope(
        nanos: u64,
        request_id: Option<&str>,
        stamp: Option<(&str, u64)>,
        sample: u32,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        use crate::envelope::{Parts, Writer};
        thread_local! {
            static WRITER: std::cell::RefCell<Writer> = const { std::cell::RefCell::new(Writer::new()) };
        }
        let parts = Parts { timestamp: crate::clock::Timestamp(nanos), request_id, stamp, sample };
        WRITER.with_borrow_mut(|writer| writer.write(&parts, out, |out| out.extend_from_slice(body)));
    }
}

/// The programs in README and guide, which `cargo test --doc` compiles.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($(#[$gate:meta])? $name:ident: $path:literal,)*) => {
            $($(#[$gate])? #[doc = include_str!(concat!("../", $path))] struct $name;)*
        };
    }
    pages! {
        Readme: "README.md",
        GetGoing: "docs/guide/get-going.md",
        Service: "docs/guide/service.md",
        Reading: "docs/guide/reading.md",
        Budgets: "docs/guide/budgets.md",
        Migration: "docs/guide/migration.md",
        #[cfg(feature = "testing")]
        Testing: "docs/guide/testing.md",
    }
}
