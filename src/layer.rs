//! Layers for `tracing-subscriber`: the request of a span, and events and spans as events of the bus.
//!
//! ```no_run
//! use jetring::layer::{PublishLayer, RequestIdLayer};
//! use tracing_subscriber::layer::SubscriberExt;
//! use tracing_subscriber::util::SubscriberInitExt;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bus = jetring::Bus::start(jetring::Config::new("null:", "main", 1)?)?;
//! tracing_subscriber::registry()
//!     .with(RequestIdLayer::new())
//!     .with(PublishLayer::new(&bus, "log")?.with_spans("span")?)
//!     .init();
//!
//! let span = tracing::info_span!("quote", request_id = "q-17");
//! let _entered = span.enter();
//! bus.publish("priceEstimate", &1); // carries the request id q-17
//! tracing::info!(estimator = "direct", "estimated"); // is published as an event `log`, with the same one
//! # Ok(())
//! # }
//! ```
//!
//! Neither feeds on the bus's own doing. What jetring logs is never published, nor is anything that happens on the threads of its
//! workers (where the NATS client logs), nor what a body logs while it is being published. So a server that is down, which makes the bus
//! log, makes no events.
//!
//! With [`RequestIdLayer::with_traceparent`] a span's field `traceparent` becomes the header of that name.

mod publish;
mod request;

pub use publish::PublishLayer;
pub use request::RequestIdLayer;

#[cfg(all(test, not(jetring_loom)))]
mod tests;
