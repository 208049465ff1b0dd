//! The process-wide bus, for code that has no handle to pass around.
//!
//! The functions here have the shape of the event bus that this crate grew from: they can be called from anywhere, at any
//! time, and never fail the caller. What is published before [`init`] is counted, and costs a load and a branch.

use crate::bus::Bus;
use crate::config::Config;
use crate::event::Event;
use crate::foreign::{contained, discard};
use crate::ledger::{Reason, Report};
use crate::offer::Offer;
use crate::sync::Ordering;
use crate::sync::plain::{AtomicCell, AtomicU64};
use crate::thread::{self, Thread};
use serde::Serialize;
use std::time::Duration;

/// A reference, so that a forked child can put a bus of its own in the place of its parent's. Written by who holds [`STARTING`].
static BUS: AtomicCell<Option<&'static Bus>> = AtomicCell::new(None);

const _: () = assert!(AtomicCell::<Option<&'static Bus>>::is_lock_free());

/// Who is starting the bus: a process (the high half) and a thread of it; zero: nobody.
///
/// Not a lock: a child that is forked meanwhile would find it held by a thread that it does not have. Here it sees that the holder is of
/// another process.
static STARTING: AtomicU64 = AtomicU64::new(0);

/// How often a thread looks whether another one has started the bus.
const POLL: Duration = Duration::from_millis(1);

static NOT_INITIALIZED: AtomicU64 = AtomicU64::new(0);

/// Starts the process-wide bus. Later calls do nothing.
///
/// Never fails the caller and never gives up: a server or stream that is not there yet is waited for. A configuration that
/// contradicts itself is logged, and leaves the process without a bus until a call with a better one.
///
/// In a forked child, where the bus of the parent does nothing, the first call starts a bus for the child, and from then on the functions of
/// this crate publish on that one. A [`Topic`](crate::Topic) or [`Bus`] of the parent's stays without effect.
pub fn init(config: Config) {
    let start = || match Bus::start(config) {
        Ok(bus) => install_first(bus),
        // A subscriber that panics harms the log and not the caller.
        Err(error) => _ = contained(|| tracing::error!("the event bus is not started: {error}")),
    };
    if let Some(_held) = Starting::claim() {
        start();
    }
}

/// Makes this bus the process-wide one. Returns whether it is; there may be another one already.
#[cfg(feature = "testing")]
pub(crate) fn install(bus: Bus) -> bool {
    let held = Starting::claim();
    if held.is_some() {
        install_first(bus);
    }
    held.is_some()
}

/// For who holds [`STARTING`].
fn install_first(bus: Bus) {
    bus.count_uninitialized();
    BUS.store(Some(Box::leak(Box::new(bus))));
}

/// While it lives, no other thread starts a bus.
struct Starting;

impl Starting {
    /// Waits until no other thread is starting the bus. `None` if there is one that works in this process, or if this thread is starting it:
    /// this is a subscriber of the log then.
    fn claim() -> Option<Self> {
        let process = u64::from(std::process::id()) << 32;
        let me = process | u64::from(thread::with(Thread::number) as u32);
        let is_there = || BUS.load().is_some_and(|bus| !bus.is_inert());
        while !is_there() {
            // Acquire, and Release in `drop`: who claims it sees what its last holder has stored.
            match STARTING.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    let held = Self;
                    return (!is_there()).then_some(held);
                }
                Err(holder) if holder == me => return None,
                Err(holder) if holder >> 32 == process >> 32 => std::thread::sleep(POLL),
                // Its process has forked this one.
                Err(gone) => _ = STARTING.compare_exchange(gone, 0, Ordering::Relaxed, Ordering::Relaxed),
            }
        }
        None
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        STARTING.store(0, Ordering::Release);
    }
}

/// The process-wide bus, once there is one. In a forked child it is that of the parent until the child calls [`init`].
pub fn bus() -> Option<&'static Bus> {
    BUS.load()
}

/// As [`Bus::publish`], on the process-wide bus.
#[inline]
pub fn publish<T: Serialize + ?Sized>(name: &str, body: &T) -> Offer {
    match BUS.load() {
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
    match BUS.load() {
        Some(bus) => bus.publish_with(name, body),
        None => {
            let offer = uninitialized();
            discard(body);
            offer
        }
    }
}

/// As [`Bus::publish_keyed`], on the process-wide bus.
#[inline]
pub fn publish_keyed<T: Serialize + ?Sized>(name: &str, key: impl AsRef<[u8]>, body: &T) -> Offer {
    match BUS.load() {
        Some(bus) => bus.publish_keyed(name, key, body),
        None => {
            let offer = uninitialized();
            discard(key);
            offer
        }
    }
}

/// As [`Bus::close`], on the process-wide bus. Without one the report counts what was published in vain.
pub fn close(deadline: Duration) -> Report {
    if let Some(bus) = BUS.load() {
        return bus.close(deadline);
    }
    let events = not_initialized();
    let mut report = Report { complete: true, ..Report::default() };
    report.stats.offered = events;
    report.stats.dropped.add(Reason::NotInitialized, events);
    report
}

/// In a forked child: what was published in vain in the parent is the parent's to tell.
pub(crate) fn forget_uninitialized() {
    NOT_INITIALIZED.store(0, Ordering::Relaxed);
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
