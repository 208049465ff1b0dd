//! SIGINT and SIGTERM: the first one ends a command in good order, a second one at once.
//!
//! In good order means for a command that runs a bus: it offers nothing more, closes the bus, which takes `shutdown.timeout` at the most, and
//! prints the balance. Who does not want to wait for that asks again, and gets the status that a shell knows: 128 and the number of the signal.

use crate::{Failure, Result};
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often those look who cannot be told.
pub(crate) const INTERRUPT_POLL: Duration = Duration::from_millis(100);

/// Something that happens once, and that others look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flag(Arc<OnceLock<()>>);

impl Flag {
    pub(crate) fn set(&self) {
        let _ = self.0.set(());
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }

    /// What `work` comes to; none if the flag is set before.
    pub(crate) async fn unless_set<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let set = async {
            while !self.is_set() {
                tokio::time::sleep(INTERRUPT_POLL).await;
            }
        };
        tokio::select! {
            done = work => Some(done),
            () = set => None,
        }
    }
}

/// Set when the user interrupts us or the system asks us to end. From the return of this on no signal is missed.
pub(crate) fn interrupt(runtime: &Runtime) -> Result<Flag> {
    let interrupted = Flag::default();
    let flag = interrupted.clone();
    let entered = runtime.enter();
    let mut signals = Signals::listen().map_err(Failure::run)?;
    drop(entered);
    runtime.spawn(async move {
        signals.next().await;
        flag.set();
        let second = signals.next().await;
        eprintln!("jetring: ended at once, without a balance");
        std::process::exit(128 + second.as_raw_value());
    });
    Ok(interrupted)
}

/// Both signals.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen. Needs a runtime around it.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next of either.
    pub(crate) async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}
