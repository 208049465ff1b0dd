//! For the tests of those who use us (cargo feature `testing`): what was published, and a server that has troubles to order.
//!
//! | to | see |
//! | --- | --- |
//! | assert what code has published | [`Capture`]: a real bus whose messages stay in memory |
//!
//! Not for production: what is published is kept in memory until it is [cleared](Capture::clear).

mod capture;

pub(crate) use capture::sink::{CaptureSink, Store};
pub use capture::{Capture, CapturedEvent, Events, Expectation};
