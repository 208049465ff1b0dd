//! What is delivered when nothing is wrong: every event, in the bytes that the contract names, and the reports around them.
//!
//! The bytes are compared with an oracle: the documented members as a plain struct, printed by serde_json. Whatever the
//! library does to write an envelope faster, it has to come out the same.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use jetring::report::{STARTED, STOPPED};
use jetring::{Bus, Config, Event, Offer, Reason, request_scope};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::server::{create_stream, messages, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, Load, NO_SERVER, Numbered, SOON, STREAM, Scrape, Seen, ask, bus, bus_with, fill, prove,
    prove_ledger, server_with_stream, small,
};

const EVENTS: u64 = 20_000;
const EVENTS_EACH: u64 = EVENTS / 4;

/// The envelope as the contract writes it down, in its order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Oracle {
    version: String,
    timestamp: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    body: Box<RawValue>,
}

/// A body with something of everything that JSON has to write carefully.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PriceEstimate {
    estimator: &'static str,
    in_token: [u8; 4],
    out_amount: u128,
    gas: Option<u64>,
    price: f64,
    note: String,
    verdict: Verdict,
}

#[derive(Serialize)]
enum Verdict {
    Won,
    Lost { by: f32 },
}

impl Event for PriceEstimate {
    const SUBJECT: &'static str = "priceEstimate";
}

fn estimates() -> [PriceEstimate; 2] {
    let plain = PriceEstimate {
        estimator: "direct",
        in_token: [0, 1, 254, 255],
        out_amount: u128::MAX,
        gas: None,
        price: 1e-7,
        note: String::new(),
        verdict: Verdict::Won,
    };
    let careful = PriceEstimate {
        estimator: "two \"hops\"",
        in_token: [9; 4],
        out_amount: 0,
        gas: Some(u64::MAX),
        price: f64::NAN,
        note: "\"\\/\u{8}\n\u{1f}\u{7f}é€😀\u{2028}".to_owned(),
        verdict: Verdict::Lost { by: 0.1 },
    };
    [plain, careful]
}

#[test]
fn four_threads_have_all_their_events_acknowledged_and_stored_in_order() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| config.queue.capacity = 64 << 20);
    let publish = |thread| {
        let (mut seen, topic) = (Seen::default(), bus.topic(LOAD).expect("a valid name"));
        for number in 0..EVENTS_EACH {
            seen.call(|| topic.publish(&Numbered::new(thread, number)));
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let publish = &publish;
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || publish(thread)));
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(Seen::default(), Seen::merge)
    });
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert!(report.complete);
    assert_eq!(report.stats.acked, EVENTS);
    assert_eq!(proof.verdict.delivered, EVENTS);
    assert!(proof.gaps.is_empty());
}

#[test]
fn the_first_report_says_started_and_the_last_one_the_final_ledger() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    seen.call(|| bus.publish("not a name", &0));
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert_eq!(proof.names.first().map(String::as_str), Some(STARTED));
    assert_eq!(proof.names.last().map(String::as_str), Some(STOPPED));
    let (started, stopped) = (proof.started.expect("it is there"), proof.stopped.expect("it is there"));
    assert_eq!(started.process, bus.process());
    assert_eq!(stopped.process, bus.process());
    assert_eq!(started.producers, stopped.last.len());
    assert_eq!(stopped.last.iter().sum::<u64>(), seen.offered, "every offer has a number");
    assert_eq!(stopped.ledger.check(), Ok(()));
    assert_eq!((stopped.ledger.acked, stopped.ledger.dropped.get(Reason::Rejected)), (100, 1));
}

#[test]
fn an_envelope_is_what_serde_json_prints() {
    let (begin, wires) = (Utc::now(), |bus: &Bus| {
        let topic = bus.topic("priceEstimate").expect("a valid name");
        estimates().iter().for_each(|event| assert!(topic.publish(event).is_accepted()));
    });
    let delivered = delivered(|_| {}, wires);
    assert_eq!(delivered.len(), estimates().len());
    for ((number, (subject, payload)), event) in (1..).zip(delivered).zip(&estimates()) {
        assert_eq!(subject, "event.1.priceEstimate");
        let read: Oracle = serde_json::from_str(&payload).expect("the contract's members and no other");
        assert!((begin..=Utc::now()).contains(&read.timestamp), "{}", read.timestamp);
        assert_eq!((read.version.as_str(), read.seq, &read.request_id), ("v1", Some(number), &None));
        let producer = read.producer.clone().expect("it is stamped");
        let (process, ring) = producer.split_once('.').expect("two parts");
        assert!(process.len() == 16 && process.bytes().all(|byte| byte.is_ascii_hexdigit()), "{producer}");
        assert!(ring.parse::<u8>().is_ok(), "{producer}");
        let printed =
            serde_json::to_string(&Oracle { body: to_raw_value(event).expect("it is JSON"), ..read });
        assert_eq!(payload, printed.expect("it is JSON"));
    }
}

#[test]
fn without_the_stamp_an_envelope_is_bare() {
    let bare = |config: &mut Config| config.delivery.stamp = false;
    let delivered = delivered(bare, |bus| assert!(bus.publish("a.b-c_D", &[1, 2]).is_accepted()));
    let (subject, payload) = &delivered[0];
    let read: Oracle = serde_json::from_str(payload).expect("the contract's members and no other");
    assert_eq!(subject, "event.1.a.b-c_D");
    let timestamp = serde_json::to_string(&read.timestamp).expect("it is JSON");
    assert_eq!(*payload, format!(r#"{{"version":"v1","timestamp":{timestamp},"body":[1,2]}}"#));
}

#[test]
fn every_way_to_publish_gives_the_same_body() {
    let [event, _] = estimates();
    let json = serde_json::to_vec(&event).expect("it is JSON");
    let delivered = delivered(
        |_| {},
        |bus| {
            let topic = bus.topic(PriceEstimate::SUBJECT).expect("a valid name");
            let offers = [
                bus.publish("priceEstimate", &event),
                bus.publish_event(&event),
                bus.publish_with("priceEstimate", || &event),
                topic.publish(&event),
                topic.publish_with(|| &event),
                topic.publish_for("q-1", &event),
                topic.publish_json(&json),
            ];
            assert_eq!(offers, [Offer::Accepted; 7]);
        },
    );
    assert_eq!(delivered.len(), 7);
    for (subject, payload) in delivered {
        assert_eq!(subject, "event.1.priceEstimate");
        let read: Oracle = serde_json::from_str(&payload).expect("the contract's members and no other");
        assert_eq!(read.body.get().as_bytes(), json);
    }
}

#[test]
fn a_request_id_comes_from_the_call_or_else_from_the_scope() {
    let delivered = delivered(
        |_| {},
        |bus| {
            let topic = bus.topic("a").expect("a valid name");
            topic.publish(&1);
            request_scope("scope", || {
                topic.publish(&2);
                bus.publish("a", &3);
                topic.publish_json(b"4");
                topic.publish_for("call", &5);
            });
            topic.publish_for("quote \"1\"\n", &6);
            topic.publish(&7);
        },
    );
    let ids = delivered.iter().map(|(_, payload)| {
        let read: Oracle = serde_json::from_str(payload).expect("the contract's members and no other");
        let printed = serde_json::to_string(&read).expect("it is JSON");
        assert_eq!(*payload, printed);
        read.request_id
    });
    let expected =
        [None, Some("scope"), Some("scope"), Some("scope"), Some("call"), Some("quote \"1\"\n"), None];
    assert_eq!(ids.collect::<Vec<_>>(), expected.map(|id| id.map(str::to_owned)));
}

#[test]
fn another_prefix_and_chain_make_another_subject() {
    let server = server_with_stream();
    ask(create_stream(&server.url(), stream_config("other", &["test.event.100.>"])));
    let mut config = Config::new(&server.url(), "other", 100).expect("it is valid");
    config.subject_prefix = "test.event".parse().expect("it is valid");
    let bus = Bus::start(config).expect("it is valid");
    bus.publish("a", &1);
    assert_eq!(bus.close(CLOSE).stats.acked, 1);
    let subjects: Vec<_> =
        ask(messages(&server.url(), "other")).into_iter().map(|(_, subject, _)| subject).collect();
    assert_eq!(subjects, ["test.event.100._bus.started", "test.event.100.a", "test.event.100._bus.stopped"]);
}

#[test]
fn a_closure_is_not_run_for_an_event_that_is_shed() {
    let bus = bus_with(NO_SERVER, small);
    let (mut seen, runs) = (Seen::default(), Cell::new(0));
    let body = || runs.set(runs.get() + 1);
    assert_eq!(seen.call(|| bus.publish_with(LOAD, body)), Offer::Accepted);
    assert_eq!(runs.replace(0), 1);
    fill(&bus, &mut seen);
    let topic = bus.topic(LOAD).expect("a valid name");
    // The larger events may have left a line of the ring over. These are so small that they take it.
    while seen.call(|| bus.publish(LOAD, &0)).is_accepted() {}
    for _ in 0..100 {
        assert_eq!(seen.call(|| bus.publish_with(LOAD, body)), Offer::Dropped(Reason::QueueFull));
        assert_eq!(seen.call(|| topic.publish_with(body)), Offer::Dropped(Reason::QueueFull));
    }
    assert_eq!(bus.close(SOON).stats.check(), Ok(()));
    assert_eq!(seen.call(|| topic.publish_with(body)), Offer::Dropped(Reason::Closed));
    assert_eq!(runs.get(), 0);
    prove_ledger(&bus.close(SOON), &seen);
}

#[test]
fn two_buses_in_one_process_do_not_know_of_each_other() {
    let server = server_with_stream();
    let runs = [bus(&server.url()), bus(&server.url())].map(|bus| (Load::on(&bus), bus));
    for (load, _) in &runs {
        load.flows_again();
        load.goes_on_for(Duration::from_millis(300));
    }
    let ended = runs.map(|(load, bus)| {
        let seen = load.stop();
        (bus.close(CLOSE), bus, seen)
    });
    assert_ne!(ended[0].1.process(), ended[1].1.process());
    for (report, bus, seen) in &ended {
        let proof = prove(&server.url(), bus, report, seen);
        assert_eq!(proof.verdict.delivered, seen.offered);
    }
}

#[test]
fn the_endpoint_null_takes_everything_and_needs_no_server() {
    let bus = bus("null:");
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    let report = bus.close(CLOSE);
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.acked, 1000);
}

const COUNTERS: [(&str, usize); 15] = [
    ("event_bus_offered_events_total", 1),
    ("event_bus_acked_events_total", 1),
    ("event_bus_dropped_events_total", Reason::ALL.len()),
    ("event_bus_indeterminate_events_total", 1),
    ("event_bus_retries_total", 6),
    ("event_bus_reconnects_total", 1),
    ("event_bus_sent_bytes_total", 1),
    ("event_bus_worker_panics_total", 1),
    ("event_bus_worker_turns_total", 1),
    ("event_bus_spool_written_messages_total", 1),
    ("event_bus_spool_synced_messages_total", 1),
    ("event_bus_recovered_events_total", 1),
    ("event_bus_sampled_out_events_total", 1),
    ("event_bus_over_budget_events_total", 1),
    ("event_bus_dropped_events", 4),
];
const GAUGES: [&str; 10] = [
    "event_bus_queued_events",
    "event_bus_queue_bytes",
    "event_bus_queue_high_watermark_bytes",
    "event_bus_in_flight_events",
    "event_bus_spooled_events",
    "event_bus_spool_bytes",
    "event_bus_spool_failing",
    "event_bus_oldest_event_age_seconds",
    "event_bus_connected",
    "event_bus_queue_capacity_bytes",
];
const HISTOGRAMS: [&str; 4] = [
    "event_bus_publish_seconds",
    "event_bus_ack_latency_seconds",
    "event_bus_delivery_latency_seconds",
    "event_bus_batch_events",
];

#[test]
fn every_metric_of_the_contract_is_there_at_zero_before_the_first_event() {
    // Without a server, so that not even a report has been sent. After a flush the worker is at work.
    let bus = bus(NO_SERVER);
    assert_eq!(bus.flush(SOON).stats.offered, 0);
    let scrape = Scrape::of(&bus);
    for (name, children) in COUNTERS {
        let samples = scrape.samples(name);
        assert_eq!(samples.len(), children, "{name}: {samples:?}");
        // The worker is at work.
        let expected = if name == "event_bus_worker_turns_total" { scrape.sum(name).max(1.0) } else { 0.0 };
        assert_eq!(scrape.sum(name), expected, "{name}: {samples:?}");
    }
    let reasons: Vec<_> =
        scrape.samples("event_bus_dropped_events_total").into_iter().map(|(reason, _)| reason).collect();
    assert!(Reason::ALL.iter().all(|reason| reasons.contains(&reason.to_string())), "{reasons:?}");
    let stages = scrape.samples("event_bus_dropped_events").into_iter().map(|(stage, _)| stage);
    assert_eq!(stages.collect::<Vec<_>>(), ["ack", "channel_full", "publish", "serialize"]);
    for name in GAUGES {
        let (samples, expected) = (scrape.samples(name), f64::from(name.ends_with("capacity_bytes")));
        assert_eq!(samples.len(), 1, "{name}");
        assert_eq!(samples[0].1.min(1.0), expected, "{name}");
    }
    let engines = scrape.samples("event_bus_engine");
    assert_eq!(engines, ["async", "fast"].map(|engine| (engine.to_owned(), 0.0)));
    HISTOGRAMS.iter().for_each(|name| assert_eq!(scrape.samples(name), [(String::new(), 0.0)], "{name}"));
    assert_eq!(
        scrape.names().len(),
        COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len() + 1,
        "{:?}",
        scrape.names()
    );
}

#[test]
fn the_law_holds_between_the_samples_of_every_scrape() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| config.queue.max_event = 1024);
    let load = Load::on(&bus);
    let mut scrapes = 0;
    wait_until("there were many scrapes, and events in every account", || {
        bus.publish(LOAD, &Numbered::with_text(0, 2000));
        let scrape = Scrape::of(&bus);
        let sum =
            |names: &[&str]| names.iter().map(|name| scrape.sum(&format!("event_bus_{name}"))).sum::<f64>();
        let accounted = sum(&["acked_events_total", "dropped_events_total", "indeterminate_events_total"]);
        let held = sum(&["queued_events", "in_flight_events", "spooled_events"]);
        assert_eq!(sum(&["offered_events_total"]), accounted + held);
        assert_eq!(sum(&["dropped_events"]), sum(&["dropped_events_total"]));
        scrapes += 1;
        scrapes > 50 && sum(&["acked_events_total"]) > 100.0
    });
    let scrape = Scrape::of(&bus);
    assert_eq!(scrape.sum("event_bus_connected"), 1.0);
    assert!(scrape.sum("event_bus_sent_bytes_total") > 100.0 * 100.0);
    assert!(scrape.sum("event_bus_ack_latency_seconds") > 100.0);
    load.stop();
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.dropped.get(Reason::TooLarge), scrapes);
}

#[test]
fn a_registry_takes_the_metrics_of_one_bus_only() {
    let registry = prometheus::Registry::new();
    let bus = bus("null:");
    bus.register(&registry).expect("it is empty");
    assert!(bus.register(&registry).is_err());
}

/// What a bus delivers of the events that `publish` publishes: subjects and payloads, without the reports.
#[track_caller]
fn delivered(change: impl FnOnce(&mut Config), publish: impl FnOnce(&Bus)) -> Vec<(String, String)> {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), change);
    publish(&bus);
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!(report.stats.acked, report.stats.offered, "{report:?}");
    let all = ask(messages(&server.url(), STREAM)).into_iter();
    let events = all.filter(|(_, subject, _)| !subject.starts_with("event.1._bus."));
    events
        .map(|(_, subject, payload)| (subject, String::from_utf8(payload).expect("JSON is UTF-8")))
        .collect()
}

#[test]
fn two_threads_on_two_rings_share_a_narrow_window_alike() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| {
        config.queue.rings = jetring::Rings::Count(2.try_into().expect("not zero"));
        config.queue.capacity = 256 << 10;
        config.queue.max_event = 1 << 10;
        config.delivery.max_in_flight = 16;
    });
    // Each offers as fast as it can, so both rings are always full, until one has got enough in: many times what a ring holds.
    let (enough, someone_has_enough) = (20_000, AtomicBool::new(false));
    let [one, other] = thread::scope(|scope| {
        let race = || {
            let topic = bus.topic("race").expect("a valid name");
            let mut accepted = 0;
            while accepted < enough && !someone_has_enough.load(Ordering::Relaxed) {
                accepted += u64::from(topic.publish(&accepted).is_accepted());
            }
            someone_has_enough.store(true, Ordering::Relaxed);
            accepted
        };
        [scope.spawn(race), scope.spawn(race)].map(|thread| thread.join().expect("no panic"))
    });
    bus.close(CLOSE).stats.check().expect("the law");
    assert!(one.min(other) > enough / 3, "one thread got {one} events in, the other {other}");
}
