//! The layers where they are most dangerous: for the whole process, with a server that is down, so that the bus itself has much to say.
//!
//! A binary of its own, because a process has one global subscriber.

use jetring::layer::{PublishLayer, RequestIdLayer};
use jetring::{Bus, Config};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Counts what is said on the bus's own threads, and by the bus.
#[derive(Clone, Default)]
struct Overheard {
    by_jetring: Arc<AtomicU64>,
    by_others_on_its_threads: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Overheard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let is_ours = event.metadata().target().starts_with("jetring");
        let is_on_ours = std::thread::current().name().is_some_and(|name| name.starts_with("jetring-"));
        match (is_ours, is_on_ours) {
            (true, _) => self.by_jetring.fetch_add(1, Ordering::Relaxed),
            (false, true) => self.by_others_on_its_threads.fetch_add(1, Ordering::Relaxed),
            (false, false) => 0,
        };
    }
}

#[test]
fn a_bus_that_has_much_to_say_for_want_of_a_server_publishes_none_of_it() {
    /// Long enough for some attempts to connect, whose failures are told by the client and by us.
    const OUTAGE: Duration = Duration::from_secs(2);
    /// Port 1 of this machine refuses every connection.
    const NO_SERVER: &str = "nats://127.0.0.1:1";

    let bus = Bus::start(Config::new(NO_SERVER, "main", 1).expect("it is valid")).expect("it starts");
    let overheard = Overheard::default();
    let publish =
        PublishLayer::new(&bus, "log").and_then(|layer| layer.with_spans("span")).expect("names are valid");
    // At the most talkative level, so that all that the client and the runtime say is on offer.
    let publish = publish.with_level(tracing::Level::TRACE);
    tracing_subscriber::registry().with(RequestIdLayer::new()).with(publish).with(overheard.clone()).init();

    let (started, mut said) = (Instant::now(), 0);
    while started.elapsed() < OUTAGE {
        tracing::info_span!("quote", request_id = "q-1")
            .in_scope(|| tracing::info!(said, "the application speaks"));
        said += 1;
        assert_eq!(bus.stats().offered, 2 * said, "an event and a span each time, and nothing else");
        std::thread::sleep(Duration::from_millis(20));
    }
    let report = bus.close(Duration::from_millis(500));
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!(report.stats.offered, 2 * said);
    assert!(
        overheard.by_jetring.load(Ordering::Relaxed) > 0,
        "the bus has said nothing, so this proves nothing"
    );
    assert!(
        overheard.by_others_on_its_threads.load(Ordering::Relaxed) > 0,
        "nobody else has spoken on its threads, so this proves little"
    );
}
