//! What a forked child inherits of a bus: handles without a bus behind them.
//!
//! ```text
//!   fork()      prepare: nobody may change the list of buses
//!     ├── in the parent:  the list may be changed again
//!     └── in the child:   each bus is closed, before anything else runs; then the same
//! ```
//!
//! A child has the memory of its parent and only the one thread that forked. The workers are not there; their sockets are, and belong to the
//! parent. So in the child every bus that was there at the fork is *inert*: publishes are refused as `closed`, and counted; `flush` and
//! `close` answer at once, not complete, with what was offered in the child; nothing is sent, and nothing of the parent's is touched. A
//! bus that the child starts itself is as any other.
//!
//! The system calls us at each fork (`pthread_atfork`), so a publish need not look whether it is in a child: it finds the ring closed. Not
//! called are we where a program makes a process without the C library's `fork` (`clone`); what is accepted there is delivered by nobody.
//!
//! Files and sockets stay open in a child, as any do: a directory (`file:DIR`) has its next owner when the child, too, has ended or has
//! become another program.
//!
//! **No lock is asked for that the parent may have held.** The worker holds some for moments, and in the child nobody gives them back. So
//! the child's ledger is read from atomic counters only. The one lock that is needed, that of the list, is taken by the forking thread itself
//! before the fork. And the line that is logged once, by the first `flush` or `close`, is logged by a thread of its own: a subscriber
//! has locks, too.

#![expect(unsafe_code, reason = "the C library is told which functions to call at a fork")]

use crate::bus::Shared;
use crate::foreign::contained;
use crate::global;
use crate::thread::{self, Thread};
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak, mpsc};
use std::time::Duration;

/// How long a child waits until its line is logged. Only a subscriber whose lock was held at the fork takes so long.
const SAY_TIMEOUT: Duration = Duration::from_millis(100);

type Buses = Vec<Weak<Shared>>;

/// Those of this process.
static BUSES: Mutex<Buses> = Mutex::new(Vec::new());

thread_local! {
    /// The list, while this thread is forking.
    static HELD: Cell<Option<MutexGuard<'static, Buses>>> = const { Cell::new(None) };
}

/// The process that something was made in.
#[cfg(any(feature = "metrics-endpoint", feature = "testing"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home(u32);

#[cfg(any(feature = "metrics-endpoint", feature = "testing"))]
impl Home {
    pub(crate) fn here() -> Self {
        Self(std::process::id())
    }

    /// Whether it is this process, and not a forked child of it, which has none of its threads.
    pub(crate) fn is_here(self) -> bool {
        self.0 == std::process::id()
    }
}

/// From now on the bus is inert in every child that is forked off this process.
pub(crate) fn register(bus: &Arc<Shared>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    let mut buses = lock();
    buses.retain(|bus| bus.strong_count() > 0);
    buses.push(Arc::downgrade(bus));
}

/// Logs, once for a bus, that it does not work here.
pub(crate) fn say_inert() {
    let (done, said) = mpsc::sync_channel(1);
    let say = move || {
        contained(|| {
            tracing::warn!(
                "this process was forked off the one that started the bus, which does nothing here; a child starts a bus of its own"
            );
        });
        // Who asked may have gone on.
        let _ = done.send(());
    };
    // A system that gives no thread leaves it unsaid; the answer says the same.
    if std::thread::Builder::new().name("jetring-fork".to_owned()).spawn(say).is_ok() {
        let _ = said.recv_timeout(SAY_TIMEOUT);
    }
}

fn install() {
    // SAFETY: the three are functions that live as long as the program. They call nothing but atomic operations, the allocator, which the C
    // library makes ready for the child itself, and a lock that the forking thread has; and they cannot panic.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(in_parent), Some(in_child)) };
    // It is refused for want of memory only. Then a child is not inert, and its doorbell still wakes nobody.
    debug_assert_eq!(refused, 0, "the C library has no memory for three addresses");
}

fn lock() -> MutexGuard<'static, Buses> {
    BUSES.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn prepare() {
    let buses = lock();
    // A thread whose locals are gone already forks without: its child finds the list open, since the guard is dropped here.
    let _ = HELD.try_with(|held| held.set(Some(buses)));
}

extern "C" fn in_parent() {
    let _ = HELD.try_with(Cell::take);
}

extern "C" fn in_child() {
    let held = HELD.try_with(Cell::take).ok().flatten();
    thread::with(Thread::forget_steps);
    global::forget_uninitialized();
    let Some(buses) = held else { return };
    buses.iter().filter_map(Weak::upgrade).for_each(|bus| bus.become_inert());
}
