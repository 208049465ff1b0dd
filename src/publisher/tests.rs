//! The pipeline against a scripted server, with a clock that only the test moves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod costs;
mod denials;
mod fast;
mod limits;
mod parking;
mod read_back;
mod rig;
mod single;
