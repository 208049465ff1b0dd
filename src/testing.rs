//! For the tests of those who use us (cargo feature `testing`): what was published, and a server that has troubles to order.
//!
//! | to | see |
//! | --- | --- |
//! | assert what code has published | [`Capture`]: a real bus whose messages stay in memory |
//! | test against a server, and its troubles | [`MockServer`], [`Fault`], [`Script`] |
//!
//! Not for production: what is published is kept in memory, and the server lets everybody in.

mod capture;
mod mock;

pub(crate) use capture::sink::{CaptureSink, Store};
pub use capture::{Capture, CapturedEvent, Events, Expectation};
pub use mock::{ApiError, Fault, MockServer, Script, StoredMessage};
