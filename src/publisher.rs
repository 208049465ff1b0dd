//! From the rings to the acknowledgement.
//!
//! ```text
//!   rings ──drain──► stamp ──► window ──send──► sink ──► server
//!                     │          │  ▲                      │
//!                     │          │  └──── reply, timeout ──┘
//!                     ▼          ▼
//!                  gap report   ledger: acked, dropped{reason}, indeterminate
//! ```
//!
//! | module | is |
//! | --- | --- |
//! | [`worker`] | the one loop: looks at rings, sink and clock, feeds the pipeline, carries out what it decides |
//! | [`pipeline`] | the decisions: what to send, send again, drop; when to connect; no I/O, no clock |
//! | [`engine`], [`batch`] | which of the two ways of publishing; one fast-ingest batch |
//! | [`outgoing`] | what is handed to the sink |
//! | [`server`] | what a server says of itself and of the stream |
//! | [`window`], [`payloads`] | the messages whose fate is open, and their bytes |
//! | [`congestion`], [`retry`], [`reply`] | how many at once; what can pass and when to try again; what the server said |
//! | [`patience`] | how long it may say nothing |
//! | [`packer`] | frames of many events in the making |
//! | [`render`], [`stamp`] | envelopes; numbers for events, and an account of the holes between them |
//! | [`route`] | names and their subjects |
//! | [`books`] | the last account of each event |
//! | [`notices`] | the worker's log: once, then a count every ten seconds |
//!
//! Read next: [`pipeline`], then [`worker`].

pub(crate) mod batch;
pub(crate) mod books;
pub(crate) mod congestion;
pub(crate) mod engine;
pub(crate) mod notices;
pub(crate) mod outgoing;
pub(crate) mod packer;
#[cfg(feature = "__internals")]
pub(crate) mod parts;
pub(crate) mod patience;
pub(crate) mod payloads;
pub(crate) mod pipeline;
pub(crate) mod render;
pub(crate) mod reply;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod server;
pub(crate) mod stamp;
pub(crate) mod window;
pub(crate) mod worker;

#[cfg(all(test, not(jetring_loom)))]
mod sim;
#[cfg(all(test, not(jetring_loom)))]
mod tests;
#[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
pub(crate) mod trial;
