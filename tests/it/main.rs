//! The bus against a real nats-server, one for each test: `make test`.
//!
//! A file here is about one question, and its tests answer it through one helper. What all of them prove at the end is the
//! same: the ledger balances, it agrees with what the publishing threads saw, and the stream agrees with the ledger.

/// Budgets of event names.
mod budgets;
/// The command-line tool: output, exit status, words for mistakes.
mod cli;
/// What is delivered when nothing is wrong, byte by byte, and what the bus tells of itself.
mod damage;
mod delivery;
/// Disks that fail.
mod disk;
/// `jetring doctor`: each fault that it knows, on a server that has it.
mod doctor;
/// A directory in the place of a server.
mod embedded;
mod ending;
/// The metrics endpoint of the tool, and `jetring stats`.
mod endpoint;
/// Fast-ingest batches: the same promises, through troubles in the middle of a batch.
mod fast;
/// NATS frames in a stream of bytes.
mod frame;
mod golden;
/// What `tracing` says, in the stream, and with the requests of its spans.
mod layer;
/// The number of partitions changes while events wait.
mod layout;
/// Limits of the server and the stream, to the byte.
mod limits;
/// A close with little or no time.
mod little_time;
/// What the tool says of itself: the reference of the configuration, completions, manual pages.
mod manual;
/// Rules, alerts, dashboard and runbook: what they name is there.
mod ops;
/// The server away, late, frozen or cut off: nothing is lost, doubled or out of order, and no thread waits.
mod outage;
/// Many events in one message: the same promises, by subject.
mod packed;
/// What the documents point to is there.
mod pages;
/// One bus over several streams.
mod partitions;
/// A relay that does to connections what networks do.
mod proxy;
/// What a wait costs.
mod quiet;
/// A stream is read to its end, or the reading says that it failed.
mod reading;
/// Events that the server or the bus does not take: each is counted for its reason, and the others go on.
mod refusal;
/// A directory that is sent on.
mod replay;
/// A directory that is sent on again, after the first to do so was killed.
mod resend;
/// JSON Schemas: of what a real stream holds, and what a change of them breaks.
mod schema;
/// A nats-server to start, kill, freeze and ask.
mod server;
/// How a bus ends, and what becomes of the last events.
mod shutdown;
/// SIGTERM and SIGINT to the tool.
mod signals;
mod spool;
/// A load, and a proof.
mod support;
/// What must not be in the sources, by grep.
mod tidy;
/// Trace context in the stream.
mod trace;
/// Publishes that wait for room.
mod waiting;
