//! The process-wide bus, for code that has no handle to pass around.
//!
//! The functions here have the shape of the event bus that this crate grew from: they can be called from anywhere, at any
//! time, and never fail the caller. What is published before [`init`] is counted, and costs a load and a branch.

use crate::bus::Bus;
use crate::config::Config;
use crate::event::Event;
use crate::ledger::{Reason, Report};
use crate::offer::Offer;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use serde::Serialize;
use std::sync::OnceLock;
use std::time::Duration;

static BUS: OnceLock<Bus> = OnceLock::new();
static NOT_INITIALIZED: AtomicU64 = AtomicU64::new(0);

/// Starts the process-wide bus. Later calls do nothing.
///
/// Never fails the caller and never gives up: a server or stream that is not there yet is waited for. A configuration that
/// contradicts itself is logged, and leaves the process without a bus until a call with a better one.
pub fn init(config: Config) {
    if BUS.get().is_some() {
        return;
    }
    match Bus::start(config) {
        Ok(bus) => {
            bus.count_uninitialized();
            // Of two calls at once one bus is kept; the other has taken no events and ends by itself.
            let _ = BUS.set(bus);
        }
        Err(error) => tracing::error!("the event bus is not started: {error}"),
    }
}

/// Makes this bus the process-wide one. Returns whether it is; there may be another one already.
#[cfg(feature = "testing")]
pub(crate) fn install(bus: Bus) -> bool {
    bus.count_uninitialized();
    BUS.set(bus).is_ok()
}

/// The process-wide bus, once there is one.
pub fn bus() -> Option<&'static Bus> {
    BUS.get()
}

/// As [`Bus::publish`], on the process-wide bus.
#[inline]
pub fn publish<T: Serialize + ?Sized>(name: &str, body: &T) -> Offer {
    match BUS.get() {
        Some(bus) => bus.publish(name, body),
        None => uninitialized(),
    }
}

/// As [`Bus::publish_event`], on the process-wide bus.
#[inline]
pub fn publish_event<E: Event + ?Sized>(event: &E) -> Offer {
    publish(E::SUBJECT, event)
}

/// As [`Bus::publish_with`], on the process-wide bus.
#[inline]
pub fn publish_with<T: Serialize>(name: &str, body: impl FnOnce() -> T) -> Offer {
    match BUS.get() {
        Some(bus) => bus.publish_with(name, body),
        None => uninitialized(),
    }
}

/// As [`Bus::publish_keyed`], on the process-wide bus.
#[inline]
pub fn publish_keyed<T: Serialize + ?Sized>(name: &str, key: impl AsRef<[u8]>, body: &T) -> Offer {
    match BUS.get() {
        Some(bus) => bus.publish_keyed(name, key, body),
        None => uninitialized(),
    }
}

/// As [`Bus::close`], on the process-wide bus. Without one the report counts what was published in vain.
pub fn close(deadline: Duration) -> Report {
    if let Some(bus) = BUS.get() {
        return bus.close(deadline);
    }
    let events = not_initialized();
    let mut report = Report { complete: true, ..Report::default() };
    report.stats.offered = events;
    report.stats.dropped.add(Reason::NotInitialized, events);
    report
}

/// Events that were published before there was a bus.
pub(crate) fn not_initialized() -> u64 {
    NOT_INITIALIZED.load(Ordering::Relaxed)
}

#[cold]
fn uninitialized() -> Offer {
    NOT_INITIALIZED.fetch_add(1, Ordering::Relaxed);
    Offer::Dropped(Reason::NotInitialized)
}
