//! User code on the worker's thread: a subscriber of the log that panics or publishes, a waker that panics.
//!
//! The process has one subscriber, which does nothing until a test [sets a trap](Trap): what it does, at which lines, how often. So the tests
//! of this file run one after the other. Each goes through the public interface, against a real server, and ends with the usual proof.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use jetring::{Bus, Offer, Reason, Topic, WhenFull};
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

#[path = "it/server.rs"]
mod server;
#[allow(dead_code, reason = "shared with tests/it")]
#[path = "it/support.rs"]
mod support;

use server::{NatsServer, wait_until};
use support::{
    CLOSE, LOAD, Load, NO_SERVER, Numbered, SOON, Scrape, Seen, bus, bus_with, make_stream, prove,
    prove_ledger, server_with_stream, small,
};

const PANICS: &str = "event_bus_worker_panics_total";

// ---- panics -------------------------------------------------------------------------------------------------------------

#[test]
fn a_subscriber_that_panics_costs_a_connection_and_no_event() {
    for panic in WAYS_TO_PANIC {
        let mut server = server_with_stream();
        let bus = bus(&server.url());
        let load = Load::on(&bus);
        load.goes_on_for(Duration::from_millis(200));
        let trap = Trap::set(line("not connected"), 1, panic);
        server.kill();
        wait_until("the line was logged", || trap.sprung() == 1);
        load.goes_on_for(Duration::from_millis(200));
        server.restart();
        load.flows_again();
        assert_eq!(Scrape::of(&bus).sum(PANICS), 1.0);
        let (report, proof) = load.close_and_prove(&server.url());
        assert_eq!((report.stats.acked, report.stats.indeterminate), (report.stats.offered, 0));
        assert_eq!(proof.verdict.delivered, report.stats.offered);
    }
}

/// The connection as such was sound, and the server had events in hand.
#[test]
fn what_was_in_flight_at_a_panic_is_stored_once_and_in_order() {
    let server = NatsServer::builder().config("max_payload: 32768").start();
    make_stream(&server.url());
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    // The window opens by one with each acknowledgement.
    seen.publish(&bus, LOAD, 0..2000);
    assert!(bus.flush(CLOSE).complete);
    server.pause();
    let trap = Trap::set(|_, line| line.ends_with("dropped as too_large"), 1, panic_as_a_bug_would);
    seen.publish(&bus, LOAD, 2000..2200);
    seen.call(|| bus.publish(LOAD, &Numbered::with_text(0, 60_000)));
    seen.publish(&bus, LOAD, 2200..2400);
    wait_until("the line was logged", || trap.sprung() == 1);
    server.resume();
    let report = bus.close(CLOSE);
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (2400, 1), "{report:?}");
    assert_eq!(Scrape::of(&bus).sum(PANICS), 1.0);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_worker_that_panics_again_and_again_closes_the_bus_and_every_event_is_counted() {
    for panic in WAYS_TO_PANIC {
        let server = server_with_stream();
        let trap = Trap::set(line("connected"), u64::MAX, panic);
        let bus = bus(&server.url());
        let mut seen = Seen::default();
        wait_until("the bus is closed", || {
            let event = Numbered::new(0, seen.offered);
            seen.call(|| bus.publish(LOAD, &event)) == Offer::Dropped(Reason::Closed)
        });
        let report = bus.close(CLOSE);
        prove_ledger(&report, &seen);
        assert_eq!(report.stats.acked, 0, "{report:?}");
        assert_eq!((trap.sprung(), Scrape::of(&bus).sum(PANICS)), (3, 3.0));
        assert!(!bus.is_connected());
    }
}

/// The client logs on tasks of its own. What panics there ends a connection, or an attempt to make one, and nothing else.
#[test]
fn a_subscriber_that_panics_at_lines_of_the_client_costs_no_event() {
    for panic in WAYS_TO_PANIC {
        // Each ends an attempt to connect, and the pauses between these grow.
        const PANICKING_LINES: u64 = 5;
        let server = server_with_stream();
        let trap =
            Trap::set(|metadata, _| metadata.target().starts_with("async_nats"), PANICKING_LINES, panic);
        let bus = bus(&server.url());
        let load = Load::on(&bus);
        wait_until("the client has logged", || trap.sprung() == PANICKING_LINES);
        load.flows_again();
        let (report, _) = load.close_and_prove(&server.url());
        assert_eq!(report.stats.acked, report.stats.offered);
    }
}

#[test]
fn a_subscriber_that_panics_on_the_thread_of_a_directory_costs_no_event() {
    for panic in WAYS_TO_PANIC {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file:{}", directory.path().display());
        let first = bus(&url);
        let mut seen = Seen::default();
        seen.publish(&first, LOAD, 0..100);
        assert_eq!(first.close(CLOSE).stats.acked, 100);
        // As if it had not been closed: its next owner says so.
        std::fs::remove_file(directory.path().join("POSITION")).unwrap();
        let trap = Trap::set(|metadata, _| metadata.target().starts_with("jetring::s"), 1, panic);
        let second = bus(&url);
        let mut seen = Seen::default();
        seen.publish(&second, LOAD, 0..100);
        let report = second.close(CLOSE);
        prove_ledger(&report, &seen);
        assert_eq!((trap.sprung(), report.stats.acked), (1, 100), "{report:?}");
    }
}

#[test]
fn a_subscriber_that_panics_on_the_thread_of_a_spool_costs_no_event() {
    for panic in WAYS_TO_PANIC {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool");
        let spooling = |url: &str| {
            bus_with(url, |config| {
                config.queue.when_full = WhenFull::Spool;
                config.spool.dir = Some(spool.clone());
            })
        };
        let first = spooling(NO_SERVER);
        let mut seen = Seen::default();
        seen.publish(&first, LOAD, 0..100);
        assert_eq!(first.close(SOON).stats.spooled, 100);
        // As if it had not been closed: its next owner says so.
        std::fs::remove_file(spool.join("POSITION")).unwrap();
        let server = server_with_stream();
        let trap = Trap::set(|metadata, _| metadata.target().starts_with("jetring::spool"), 1, panic);
        let second = spooling(&server.url());
        seen.publish(&second, LOAD, 100..200);
        wait_until("all is sent", || second.stats().recovered >= 100 && second.stats().held() == 0);
        let report = second.close(CLOSE);
        let all = report.stats.recovered + 100;
        assert_eq!((trap.sprung(), report.stats.acked, report.stats.check()), (1, all, Ok(())), "{report:?}");
    }
}

#[test]
fn a_subscriber_that_panics_at_an_invalid_name_harms_nobody_and_the_offer_is_counted() {
    for panic in WAYS_TO_PANIC {
        let trap = Trap::set(|_, line| line.contains("such events are dropped as rejected"), u64::MAX, panic);
        IS_MEANT.set(true);
        for (number, publish) in [
            (|bus: &Bus| bus.publish("no good", &1)) as fn(&Bus) -> Offer,
            |bus| bus.publish_with("no good", || 1),
            |bus| bus.publish_keyed("no good", "key", &1),
        ]
        .into_iter()
        .enumerate()
        {
            let bus = bus("null:");
            assert_eq!(publish(&bus), Offer::Dropped(Reason::Rejected));
            assert_eq!(publish(&bus), Offer::Dropped(Reason::Rejected));
            assert_eq!(trap.sprung(), number as u64 + 1, "the first of each bus is logged");
            let report = bus.close(CLOSE);
            assert_eq!((report.stats.offered, report.stats.check()), (2, Ok(())), "{report:?}");
        }
        IS_MEANT.set(false);
    }
}

/// A configuration that contradicts itself is logged, and `init` does not fail its caller.
#[test]
fn a_subscriber_that_panics_in_init_harms_nobody() {
    for panic in WAYS_TO_PANIC {
        let trap = Trap::set(line("the event bus is not started"), 1, panic);
        IS_MEANT.set(true);
        let mut config = jetring::Config::new("null:", "main", 1).unwrap();
        config.queue.capacity = 1;
        jetring::init(config);
        IS_MEANT.set(false);
        assert_eq!(trap.sprung(), 1);
        assert!(jetring::bus().is_none());
    }
}

#[test]
fn a_waker_that_panics_harms_nobody_but_who_waits() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            WOKEN.fetch_add(1, Ordering::Relaxed);
            panic!("as if an executor had a bug");
        }
    }
    static WOKEN: AtomicU64 = AtomicU64::new(0);

    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    server.pause();
    seen.publish(&bus, LOAD, 0..100);
    {
        let waker = Waker::from(Arc::new(Panics));
        let (mut first, mut second) = (pin!(bus.flush_async(CLOSE)), pin!(bus.flush_async(CLOSE)));
        let mut context = Context::from_waker(&waker);
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        server.resume();
        wait_until("both were woken", || WOKEN.load(Ordering::Relaxed) == 2);
        let mut context = Context::from_waker(Waker::noop());
        for flush in [&mut first, &mut second] {
            assert!(matches!(flush.as_mut().poll(&mut context), Poll::Ready(report) if report.complete));
        }
    }
    seen.publish(&bus, LOAD, 100..200);
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
    assert_eq!((report.stats.acked, Scrape::of(&bus).sum(PANICS)), (200, 0.0));
}

// ---- publishes ----------------------------------------------------------------------------------------------------------

/// A publish on the worker's own thread that waited for room would wait for itself.
#[test]
fn a_subscriber_that_publishes_never_waits_for_the_worker_that_it_runs_on() {
    const LONG: Duration = Duration::from_secs(60);
    let bus = bus_with(NO_SERVER, |config| {
        small(config);
        config.queue.when_full = WhenFull::Block(LONG);
    });
    let topic = bus.topic("line").unwrap();
    let publisher = {
        let bus = bus.clone();
        thread::spawn(move || {
            let mut seen = Seen::default();
            while seen.call(|| bus.publish(LOAD, &1)).is_accepted() {}
        })
    };
    wait_until("window and ring are full", || {
        bus.stats().in_flight == 15 && !bus.has_room(1000) && !publisher.is_finished()
    });
    LINES.lock().unwrap().replace(topic);
    let trap = Trap::set(|metadata, _| metadata.target().starts_with("jetring"), u64::MAX, publish_a_line);
    // Another bus, since its first trouble is logged at once. Its worker is not to wait for that one either.
    let other = bus_with(NO_SERVER, small);
    assert!(other.publish(LOAD, &1).is_accepted());
    wait_until("a line was published on a worker's thread", || trap.sprung() > 0);
    let report = other.close(SOON);
    assert_eq!(
        (report.stats.held(), report.stats.dropped.get(Reason::Expired)),
        (0, 1),
        "its worker is at work"
    );
    let report = bus.close(SOON);
    publisher.join().unwrap();
    LINES.lock().unwrap().take();
    assert_eq!((report.stats.check(), report.stats.held()), (Ok(()), 0));
}

static LINES: Mutex<Option<Topic>> = Mutex::new(None);

fn publish_a_line(line: &str) {
    let topic = LINES.lock().unwrap().clone();
    topic.map(|topic| topic.publish(line));
}

// ---- the subscriber -----------------------------------------------------------------------------------------------------

/// While it lives, the subscriber does something at certain lines, so many times.
struct Trap {
    _alone: MutexGuard<'static, ()>,
}

type Kind = Box<dyn Fn(&Metadata<'_>, &str) -> bool + Send>;

struct Set {
    is_meant: Kind,
    times: u64,
    act: fn(&str),
}

static SET: Mutex<Option<Set>> = Mutex::new(None);
static SPRUNG: AtomicU64 = AtomicU64::new(0);

impl Trap {
    fn set(
        is_meant: impl Fn(&Metadata<'_>, &str) -> bool + Send + 'static,
        times: u64,
        act: fn(&str),
    ) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static INSTALLED: Once = Once::new();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        INSTALLED.call_once(|| tracing::subscriber::set_global_default(Trapped).unwrap());
        SPRUNG.store(0, Ordering::Relaxed);
        SET.lock().unwrap().replace(Set { is_meant: Box::new(is_meant), times, act });
        Self { _alone: alone }
    }

    /// How often it was.
    fn sprung(&self) -> u64 {
        SPRUNG.load(Ordering::Relaxed)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        SET.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Lines of ours that begin so.
fn line(beginning: &'static str) -> impl Fn(&Metadata<'_>, &str) -> bool + Send {
    move |metadata, line| metadata.target().starts_with("jetring") && line.starts_with(beginning)
}

fn panic_as_a_bug_would(line: &str) {
    panic!("as if a subscriber had a bug at: {line}");
}

/// A panic whose payload panics when it is dropped: whoever contains the first has the second.
fn panic_with_a_bomb(_: &str) {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as if a payload had a bug");
        }
    }
    std::panic::panic_any(Bomb);
}

/// In which ways a subscriber panics.
const WAYS_TO_PANIC: [fn(&str); 2] = [panic_as_a_bug_would, panic_with_a_bomb];

thread_local! {
    /// The lines of this thread are meant as well, although it is not behind a bus.
    static IS_MEANT: Cell<bool> = const { Cell::new(false) };
}

struct Trapped;

impl Subscriber for Trapped {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        // Of the threads behind a bus; those of the tests are not to be caught.
        let is_ours = thread::current().name().is_some_and(|name| name.starts_with("jetring-"));
        if !is_ours && !IS_MEANT.get() {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        let act = {
            let mut set = SET.lock().unwrap();
            let meant = set.as_mut().filter(|set| (set.is_meant)(event.metadata(), &message.0));
            let Some(set) = meant.filter(|set| set.times > 0) else { return };
            set.times -= 1;
            set.act
        };
        SPRUNG.fetch_add(1, Ordering::Relaxed);
        act(&message.0);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The text of a line.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
