//! A wait costs next to nothing: the workers of a real bus turn so often and no more, whatever they wait for.
//!
//! What is counted is turns, and not time: a machine that is busy makes them fewer. The many worlds that a wait can be in are tried in simulated
//! time (`publisher/worker/worlds.rs`); here are the real socket, the real clock and the real disk.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::DiscardPolicy;
use jetring::{Bus, Config, Mode, WhenFull};

use crate::server::{NatsServer, create_stream, stream_config, wait_until};
use crate::support::{LOAD, NO_SERVER, STREAM, SUBJECTS, Seen, ask, bus_with};

const TURNS: &str = "event_bus_worker_turns_total";

/// Turns in a second of a wait, as in the worlds, and as many as a start or an end of one takes.
const TURNS_A_SECOND: f64 = 15.0;
const TURNS_AT_ONCE: f64 = 150.0;

/// Long enough that a worker that does not rest is found, by a factor of a hundred.
const QUIET: Duration = Duration::from_secs(3);

/// Lets a bus wait, with some events in hand, and judges its turns.
#[track_caller]
fn judge(
    url: &str,
    spool: Option<&Path>,
    is_waiting: impl Fn(&Bus) -> bool,
    change: impl FnOnce(&mut Config),
) {
    let bus = bus_with(url, |config| {
        config.delivery.ack_timeout = Duration::from_millis(300);
        if let Some(directory) = spool {
            config.queue.when_full = WhenFull::Spool;
            config.spool.dir = Some(directory.to_owned());
        }
        change(config);
    });
    Seen::default().publish(&bus, LOAD, 0..3);
    wait_until("it waits", || is_waiting(&bus));
    let registry = prometheus::Registry::new();
    bus.register(&registry).expect("it is empty");
    let began = Instant::now();
    let before = turns(&registry);
    std::thread::sleep(QUIET);
    let (turns, seconds) = (turns(&registry) - before, began.elapsed().as_secs_f64());

    assert!(turns <= TURNS_AT_ONCE + TURNS_A_SECOND * seconds, "{turns} turns in {seconds:.1} s");
    drop(bus);
}

fn turns(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let turns = families.iter().find(|family| family.name() == TURNS).expect("it is registered");
    turns.get_metric()[0].get_counter().get_value()
}

fn holds(bus: &Bus) -> bool {
    bus.stats().in_flight == 3
}

#[test]
fn an_outage_costs_few_turns_with_and_without_a_spool() {
    let parent = tempfile::tempdir().expect("a directory");
    judge(NO_SERVER, None, holds, |_| {});
    judge(NO_SERVER, Some(&parent.path().join("spool")), holds, |_| {});
}

#[test]
fn a_spool_that_cannot_be_used_costs_few_turns() {
    let parent = tempfile::tempdir().expect("a directory");
    let file = parent.path().join("spool");
    std::fs::write(&file, "not a directory").expect("a file");
    judge(NO_SERVER, Some(&file), holds, |_| {});
}

#[test]
fn a_stream_that_is_full_or_missing_or_takes_no_batches_costs_few_turns() {
    let parent = tempfile::tempdir().expect("a directory");
    let missing = NatsServer::start();
    judge(
        &missing.url(),
        Some(&parent.path().join("missing")),
        |bus| bus.is_connected() && holds(bus),
        |_| {},
    );
    let full = NatsServer::start();
    let mut stream = stream_config(STREAM, &[SUBJECTS]);
    (stream.max_messages, stream.discard) = (1, DiscardPolicy::New);
    ask(create_stream(&full.url(), stream));
    judge(&full.url(), Some(&parent.path().join("full")), |bus| bus.is_connected() && holds(bus), |_| {});
    let plain = NatsServer::start();
    ask(create_stream(&plain.url(), stream_config(STREAM, &[SUBJECTS])));
    let fast = |config: &mut Config| config.delivery.mode = Mode::Fast;
    judge(&plain.url(), Some(&parent.path().join("plain")), |bus| bus.is_connected() && holds(bus), fast);
}

#[test]
fn a_bus_with_nothing_to_do_costs_few_turns() {
    let server = crate::support::server_with_stream();
    let parent = tempfile::tempdir().expect("a directory");
    judge(&server.url(), Some(&parent.path().join("spool")), |bus| bus.stats().acked == 3, |_| {});
    judge("null:", None, |bus| bus.stats().acked == 3, |_| {});
    judge(
        &format!("file:{}", parent.path().join("log").display()),
        None,
        |bus| bus.stats().acked == 3,
        |_| {},
    );
}
