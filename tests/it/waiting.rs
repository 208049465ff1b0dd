//! `queue.when-full = "block"`: a publish that finds no room waits for it, however it is made, and for no longer than it may.

use std::thread;
use std::time::{Duration, Instant};

use jetring::{Bus, Offer, Reason, WhenFull};

use crate::server::wait_until;
use crate::support::{
    CLOSE, LOAD, NO_SERVER, Numbered, Seen, bus_with, prove, prove_ledger, server_with_stream, small,
};

/// A wait that has to be seen, and one that no test sits out.
const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);

fn waiting_bus(url: &str, limit: Duration) -> Bus {
    bus_with(url, |config| {
        small(config);
        config.queue.when_full = WhenFull::Block(limit);
    })
}

/// Publishes the event of this thread and number, in a way that depends on the number: all there are, one after the other.
fn publish_somehow(bus: &Bus, thread: u64, number: u64) -> Offer {
    let topic = bus.topic(LOAD).expect("a valid name");
    let event = Numbered::new(thread, number);
    match number % WAYS {
        0 => bus.publish(LOAD, &event),
        1 => bus.publish_with(LOAD, || event),
        2 => bus.publish_keyed(LOAD, "key", &event),
        3 => topic.publish(&event),
        4 => topic.publish_with(|| event),
        5 => topic.publish_keyed("key", &event),
        6 => topic.publish_for("q-1", &event),
        7 => jetring::request_scope("q-2", || topic.publish(&event)),
        _ => topic.publish_json(&serde_json::to_vec(&event).expect("an event is plain data")),
    }
}

const WAYS: u64 = 9;

/// Fills window and ring: what is published next finds no room.
fn fill(bus: &Bus, seen: &mut Seen) {
    while seen.call(|| bus.publish(LOAD, &Numbered::new(0, bus.stats().offered))).is_accepted() {}
}

/// Waits until nothing more is offered: an event that waits has not been counted yet.
#[track_caller]
fn wait_until_stalled(bus: &Bus) {
    let mut before = 0;
    wait_until("all threads wait", || {
        let now = bus.stats().offered;
        now > 0 && std::mem::replace(&mut before, now) == now
    });
}

#[test]
fn every_way_of_publishing_waits_for_as_long_as_it_may_and_is_shed_then() {
    let bus = waiting_bus(NO_SERVER, SHORT);
    let mut seen = Seen::default();
    fill(&bus, &mut seen);
    for way in 0..WAYS {
        let start = Instant::now();
        let offer = seen.call(|| publish_somehow(&bus, 0, way));
        assert_eq!(offer, Offer::Dropped(Reason::QueueFull), "way {way}");
        assert!(start.elapsed() >= SHORT, "way {way} has waited for {:?} only", start.elapsed());
    }
    prove_ledger(&bus.close(SHORT), &seen);
}

#[test]
fn threads_that_wait_lose_nothing_to_a_server_that_pauses_and_keep_their_order() {
    const EVENTS: u64 = 1500;
    let server = server_with_stream();
    let bus = waiting_bus(&server.url(), LONG);
    server.pause();
    let publishers: Vec<_> = (0..3)
        .map(|thread| {
            let bus = bus.clone();
            thread::spawn(move || {
                let mut seen = Seen::default();
                (0..EVENTS).for_each(|number| _ = seen.call(|| publish_somehow(&bus, thread, number)));
                // They were to wait.
                seen.longest = Duration::ZERO;
                seen
            })
        })
        .collect();
    wait_until_stalled(&bus);
    assert!(publishers.iter().all(|publisher| !publisher.is_finished()));
    server.resume();
    let seen = publishers.into_iter().map(|publisher| publisher.join().expect("no panic"));
    let seen = seen.fold(Seen::default(), Seen::merge);
    let report = bus.close(CLOSE);
    assert_eq!((seen.accepted, report.stats.acked), (3 * EVENTS, 3 * EVENTS), "{report:?}");
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_close_ends_the_wait_as_closed() {
    let bus = waiting_bus(NO_SERVER, LONG);
    let (publisher, start) = (bus.clone(), Instant::now());
    let waits = thread::spawn(move || {
        let mut seen = Seen::default();
        fill(&publisher, &mut seen);
        seen.longest = Duration::ZERO;
        seen
    });
    wait_until_stalled(&bus);
    let _ = bus.close(SHORT);
    let seen = waits.join().expect("no panic");
    assert!(start.elapsed() < LONG);
    assert_eq!(seen.dropped(Reason::Closed), 1);
    prove_ledger(&bus.close(SHORT), &seen);
}
