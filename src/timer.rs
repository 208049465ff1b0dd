//! The time, as the worker and the keepers of logs read it, and the worker's one sleep.
//!
//! Tests of the whole worker put a clock of their own in place, for their thread only. Then an hour of outage takes some milliseconds, and a
//! run is the same each time.

use std::time::Instant;

/// The time by which deadlines are judged.
pub(crate) fn now() -> Instant {
    #[cfg(all(test, not(jetring_loom)))]
    if let Some(now) = simulated::now() {
        return now;
    }
    Instant::now()
}

/// Sleeps until a deadline; for ever if there is none.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    #[cfg(all(test, not(jetring_loom)))]
    if simulated::now().is_some() {
        return simulated::sleep_until(deadline).await;
    }
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// A clock that goes on when all that it knows of sleeps.
#[cfg(all(test, not(jetring_loom)))]
pub(crate) mod simulated {
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::{Duration, Instant};

    /// Looks at everything else that the sleeper waits for before time goes on. One look hands on what another one has just made ready.
    const LOOKS: u32 = 4;

    /// So late the runtime's timers are.
    const LATE: Duration = Duration::from_micros(999);

    /// What happens around the sleeper.
    pub(crate) trait World {
        /// When the next thing happens.
        fn next_due(&mut self) -> Option<Instant>;

        /// Lets happen what is due by now.
        fn pass(&mut self, now: Instant);
    }

    thread_local! {
        static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
        static WORLD: RefCell<Option<Box<dyn World>>> = const { RefCell::new(None) };
    }

    pub(crate) fn now() -> Option<Instant> {
        NOW.get()
    }

    /// Runs `work` on this thread in a world with a clock of its own.
    pub(crate) fn run<R>(start: Instant, world: Box<dyn World>, work: impl FnOnce() -> R) -> R {
        NOW.set(Some(start));
        WORLD.set(Some(world));
        let result = work();
        NOW.set(None);
        WORLD.set(None);
        result
    }

    pub(super) async fn sleep_until(deadline: Option<Instant>) {
        let deadline = deadline.map(|deadline| deadline + LATE);
        let mut looks = 0;
        poll_fn(|context| {
            if deadline.is_some_and(|deadline| now() >= Some(deadline)) {
                return Poll::Ready(());
            }
            looks += 1;
            if looks > LOOKS {
                looks = 0;
                go_on(deadline);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Goes on to whatever comes first: what is due in the world, or the deadline.
    fn go_on(deadline: Option<Instant>) {
        let (Some(mut world), Some(now)) = (WORLD.take(), NOW.get()) else { return };
        let next = world.next_due().into_iter().chain(deadline).min();
        let now = next.expect("somebody sleeps for ever, and nothing will happen").max(now);
        NOW.set(Some(now));
        world.pass(now);
        WORLD.set(Some(world));
    }
}
