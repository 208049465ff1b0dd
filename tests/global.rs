//! The process-wide bus: before it, without a server, with one, and after its end.
//!
//! A process has one such bus and each state comes once, so this is one test that goes through all of them, in a process of
//! its own.

use std::time::{Duration, Instant};

use jetring::{Config, Event, Offer, Reason};
use serde::Serialize;

#[path = "it/server.rs"]
mod server;

use server::{NatsServer, create_stream, messages, stream_config};

#[derive(Serialize)]
struct Ping(u64);

impl Event for Ping {
    const SUBJECT: &'static str = "ping";
}

/// Only an `init` that waited for the server, which is not there, would take so long on any machine.
const AT_ONCE: Duration = Duration::from_secs(30);

#[test]
fn the_process_wide_bus_works_at_every_time_of_a_process() {
    before_init();
    let reserved = NatsServer::reserve();
    init_without_a_server(&reserved.url());
    a_second_init_does_nothing();
    let server = reserved.start();
    ask(create_stream(&server.url(), stream_config("main", &["event.1.>"])));
    close_delivers_everything(&server.url());
    after_close();
}

const BEFORE: u64 = 3;
const ACCEPTED: u64 = 300;
const AFTER: u64 = 2;

fn before_init() {
    let in_vain = Offer::Dropped(Reason::NotInitialized);
    assert_eq!(jetring::publish("ping", &Ping(0)), in_vain);
    assert_eq!(jetring::publish_event(&Ping(0)), in_vain);
    assert_eq!(jetring::publish_with("ping", || -> Ping { panic!("it is going to be shed") }), in_vain);
    assert!(jetring::bus().is_none());
    // A close before init has nothing to end, and must not prevent the bus to come.
    let report = jetring::close(Duration::from_secs(1));
    assert_eq!((report.stats.offered, report.stats.dropped.get(Reason::NotInitialized)), (BEFORE, BEFORE));
    assert_eq!(report.stats.check(), Ok(()));
}

fn init_without_a_server(url: &str) {
    let start = Instant::now();
    jetring::init(Config::new(url, "main", 1).expect("it is valid"));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    for number in 0..ACCEPTED / 3 {
        assert_eq!(jetring::publish("ping", &Ping(number)), Offer::Accepted);
        assert_eq!(jetring::publish_event(&Ping(number)), Offer::Accepted);
        assert_eq!(jetring::publish_with("ping", || Ping(number)), Offer::Accepted);
    }
    let stats = jetring::bus().expect("it was initialized").stats();
    assert_eq!((stats.offered, stats.acked), (BEFORE + ACCEPTED, 0));
    assert_eq!(stats.check(), Ok(()));
}

fn a_second_init_does_nothing() {
    let process = jetring::bus().expect("it was initialized").process().to_owned();
    jetring::init(Config::new("null:", "other", 2).expect("it is valid"));
    assert_eq!(jetring::bus().expect("it was initialized").process(), process);
}

fn close_delivers_everything(url: &str) {
    let report = jetring::close(Duration::from_secs(15));
    let stats = &report.stats;
    assert!(report.complete, "{report:?}");
    assert_eq!(stats.check(), Ok(()));
    assert_eq!(
        (stats.offered, stats.acked, stats.dropped.get(Reason::NotInitialized)),
        (BEFORE + ACCEPTED, ACCEPTED, BEFORE)
    );
    let stored = ask(messages(url, "main"));
    let pings = stored.iter().filter(|(_, subject, _)| subject == "event.1.ping").count();
    assert_eq!(pings as u64, ACCEPTED);
}

fn after_close() {
    let closed = Offer::Dropped(Reason::Closed);
    assert_eq!(jetring::publish("ping", &Ping(0)), closed);
    assert_eq!(jetring::publish_event(&Ping(0)), closed);
    let report = jetring::close(Duration::from_secs(15));
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!(report.stats.dropped.get(Reason::Closed), AFTER);
    assert_eq!(report.stats.offered, BEFORE + ACCEPTED + AFTER);
}

fn ask<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime").block_on(question)
}
