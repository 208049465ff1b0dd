//! The fast engine against a real server: fast-ingest batches that meet every trouble in their middle.
//!
//! The load is dense, so that a batch goes on for thousands of events and is cut anywhere. After each trouble the same must be true as
//! for the async engine (`outage.rs`): everything is delivered, once, in each thread's order. And the plain events of a batch bear no
//! ids, so none of it is the work of the server's duplicate window; it is made as short as can be.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use jetring::audit::Audit;
use jetring::{Bus, Config, Engine, Mode};

use crate::proxy::{Cut, End, Place, Proxy};
use crate::server::{NatsServer, connect, create_stream, messages, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, Load, SOON, STREAM, SUBJECTS, Seen, ask, bus, bus_with, flood, prove, prove_messages, wide,
};

const A_WHILE: Duration = Duration::from_millis(400);

/// Longer than the stream knows ids.
const AWAY: Duration = Duration::from_millis(1500);

const ACK_TIMEOUT: Duration = Duration::from_millis(700);

#[test]
fn a_server_that_allows_it_gets_batches_and_says_the_same_as_to_single_events() {
    let server = fast_server();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..20_000);
    assert!(bus.flush(CLOSE).complete);
    assert_eq!(bus.stats().engine, Some(Engine::Fast));
    seen.publish(&bus, LOAD, 20_000..20_001);
    assert!(bus.flush(CLOSE).complete, "an event alone is acknowledged as well");
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
    assert_eq!(report.stats.acked, 20_001, "{report:?}");
}

#[test]
fn the_mode_can_be_forced_either_way() {
    let server = fast_server();
    for (mode, engine) in [(Mode::Async, Engine::Async), (Mode::Fast, Engine::Fast)] {
        let bus = bus_with(&server.url(), |config| config.delivery.mode = mode);
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..1000);
        assert!(bus.flush(CLOSE).complete);
        assert_eq!(bus.stats().engine, Some(engine));
        let report = bus.close(CLOSE);
        prove(&server.url(), &bus, &report, &seen);
    }
}

#[test]
fn a_server_that_is_killed_in_mid_batch_and_restarted_costs_nothing() {
    let mut server = fast_server();
    let url = server.url();
    survives(&url, &bus(&url), |load| {
        for _ in 0..3 {
            load.goes_on_for(A_WHILE);
            server.kill();
            load.goes_on_for(AWAY);
            server.restart();
            load.flows_again();
        }
    });
}

#[test]
fn a_server_that_is_frozen_in_mid_batch_costs_nothing() {
    let server = fast_server();
    let url = server.url();
    survives(&url, &bus_with(&url, |config| config.delivery.ack_timeout = ACK_TIMEOUT), |load| {
        for frozen in [ACK_TIMEOUT / 2, ACK_TIMEOUT * 3] {
            load.goes_on_for(A_WHILE);
            server.pause();
            load.goes_on_for(frozen);
            server.resume();
            load.flows_again();
        }
    });
}

#[test]
fn a_connection_that_is_cut_anywhere_in_a_batch_or_an_answer_costs_nothing() {
    let server = fast_server();
    let cut = |place, after| Cut { place, after, end: End::Fin };
    let there = (0..10).map(|i| cut(Place::Events, 1_000 + 60_007 * i));
    let back = (0..10).map(|i| cut(Place::Acks, 50 + 97 * i));
    let cuts: Vec<Cut> = there.chain(back).collect();
    let count = cuts.len();
    let proxy = Proxy::before(server.port());
    proxy.cut_next(cuts);
    survives(&server.url(), &bus(&proxy.url()), |load| {
        wait_until("all cuts are made and the connection holds", || proxy.connections() > count);
        load.flows_again();
    });
}

#[test]
fn a_stream_that_is_edited_to_take_no_batches_gets_single_events_and_loses_none() {
    let server = fast_server();
    let url = server.url();
    let bus = bus(&url);
    survives(&url, &bus.clone(), |load| {
        load.goes_on_for(A_WHILE);
        assert_eq!(bus.stats().engine, Some(Engine::Fast));
        change_stream(&url, |config| config.allow_batch_publish = false);
        wait_until("the engine is changed", || bus.stats().engine == Some(Engine::Async));
        load.flows_again();
    });
}

#[test]
fn a_stream_that_is_full_in_mid_batch_and_is_given_room_gets_everything_in_order() {
    let server = fast_server();
    let url = server.url();
    let bus = bus(&url);
    survives(&url, &bus.clone(), |load| {
        load.goes_on_for(A_WHILE);
        let full = |config: &mut stream::Config| {
            config.max_messages = 3000;
            config.discard = stream::DiscardPolicy::New;
        };
        change_stream(&url, full);
        wait_until("the stream is full", || {
            let before = bus.stats().acked;
            load.goes_on_for(Duration::from_millis(50));
            bus.stats().acked == before && before > 0
        });
        change_stream(&url, |config| config.max_messages = -1);
        load.flows_again();
    });
}

#[test]
fn a_stream_that_is_deleted_in_mid_batch_and_made_again_gets_the_rest_in_order() {
    let server = fast_server();
    let url = server.url();
    let bus = bus(&url);
    let load = dense(&bus);
    load.goes_on_for(A_WHILE);
    ask(async { jetstream::new(connect(&url).await).delete_stream(STREAM).await }).expect("it is there");
    load.goes_on_for(A_WHILE);
    make_fast_stream(&url);
    load.flows_again();
    load.goes_on_for(A_WHILE);
    let seen = load.stop();
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!((report.stats.offered, report.stats.acked), (seen.offered, seen.accepted), "{report:?}");
    // What the old stream had is gone with it. What the new one has is a whole end of the sequence.
    let mut audit = Audit::of_process(bus.process());
    ask(messages(&url, STREAM)).iter().for_each(|(_, _, payload)| {
        audit.observe(payload);
    });
    let verdict = audit.verdict();
    assert_eq!((verdict.duplicates, verdict.reordered), (0, 0), "{verdict:?}");
    assert!(verdict.delivered > 0 && verdict.delivered < report.stats.acked);
}

#[test]
fn a_close_in_mid_batch_ends_it_in_good_order() {
    let server = fast_server();
    let bus = bus_with(&server.url(), wide);
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..20_000);
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
    assert_eq!(report.stats.acked, 20_000, "{report:?}");
}

#[test]
fn a_close_in_mid_batch_of_a_frozen_server_ends_in_time_and_claims_nothing_that_it_does_not_know() {
    let server = fast_server();
    let bus = bus_with(&server.url(), wide);
    let load = dense(&bus);
    load.goes_on_for(A_WHILE);
    server.pause();
    load.goes_on_for(A_WHILE);
    let seen = load.stop();
    let report = bus.close(SOON);
    server.resume();
    assert!(report.stats.indeterminate > 0, "{report:?}");
    let mut stored = Vec::new();
    wait_until("the server has stored what it was sent", || {
        let before = std::mem::replace(&mut stored, ask(messages(&server.url(), STREAM)));
        stored.len() == before.len()
    });
    prove_messages(&stored, bus.process(), &report, &seen);
}

#[test]
fn more_than_the_socket_holds_waits_for_a_frozen_server_that_is_then_killed() {
    let mut server = fast_server();
    let url = server.url();
    let bus = bus_with(&url, wide);
    let mut seen = Seen::default();
    flood(&server, &bus, &mut seen);
    server.restart();
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.acked, report.stats.offered, "{report:?}");
    prove(&url, &bus, &report, &seen);
}

#[test]
fn single_events_survive_an_outage_that_is_longer_than_the_duplicate_window() {
    let mut server = fast_server();
    let url = server.url();
    let bus = bus_with(&url, |config: &mut Config| config.delivery.mode = Mode::Async);
    let load = dense(&bus);
    for _ in 0..3 {
        load.goes_on_for(A_WHILE);
        server.kill();
        load.goes_on_for(AWAY);
        server.restart();
        load.flows_again();
    }
    let (report, _) = load.close_and_prove(&url);
    assert_eq!(report.stats.acked, report.stats.offered, "{report:?}");
}

/// A dense load goes on through the trouble. Then all of it is delivered, once and in order.
#[track_caller]
fn survives(url: &str, bus: &Bus, trouble: impl FnOnce(&Load)) {
    let load = dense(bus);
    trouble(&load);
    load.goes_on_for(A_WHILE);
    let (report, _) = load.close_and_prove(url);
    assert!(report.complete, "{report:?}");
    assert_eq!(report.stats.acked, report.stats.offered, "every event is delivered: {report:?}");
}

/// Dense enough that a batch does not end by itself for a while, and few enough for the queue to hold what an outage leaves.
fn dense(bus: &Bus) -> Load {
    Load::start(bus, 3, 2500)
}

fn fast_server() -> NatsServer {
    let server = NatsServer::start();
    make_fast_stream(&server.url());
    server
}

fn make_fast_stream(url: &str) {
    let config = stream::Config {
        allow_batch_publish: true,
        // As short as the server takes it.
        duplicate_window: Duration::from_millis(100),
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(url, config));
}

fn change_stream(url: &str, change: impl FnOnce(&mut stream::Config)) {
    ask(async {
        let context = jetstream::new(connect(url).await);
        let mut config = context.get_stream(STREAM).await.expect("it is there").cached_info().config.clone();
        change(&mut config);
        context.update_stream(config).await.expect("the server takes the change");
    });
}
