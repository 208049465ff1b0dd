//! The mock server of `jetring::testing`, beside the real nats-server.
//!
//! Each case of `core`, `jetstream`, `batch`, `consumers` and `bus` is a test for each of the two: `batch::real::…` says what the real server
//! does, and `batch::mock::…` that ours does the same. So a case is written from what the real one says, and a server that
//! says something else one day fails a test here. `faults` is about what only ours can do.
//!
//! ```text
//!   case ──► wire (bytes), async-nats, or a bus ──┬─► MockServer
//!                                                 └─► NatsServer
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Fast-ingest batches, part by part.
mod batch;
/// A bus on top: everything is delivered, and read by our own reader.
mod bus;
/// Pulls, and the consumers that readers make.
mod consumers;
/// The client protocol.
mod core;
/// Each trouble that the mock server can be told to make, and what a bus makes of it.
mod faults;
/// Streams, acknowledgements, refusals, messages by number.
mod jetstream;
/// What a refusal holds up.
mod refusals;
#[path = "../it/server.rs"]
mod server;
/// The two servers.
mod target;
/// The protocol by hand.
mod wire;
