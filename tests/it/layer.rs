//! The layers of `tracing-subscriber` with a real server: what is in the stream then.

use crate::server::messages;
use crate::support::{CLOSE, STREAM, ask, bus, server_with_stream};
use jetring::Bus;
use jetring::envelope::Envelope;
use jetring::layer::{PublishLayer, RequestIdLayer};
use serde_json::{Value, json};
use std::time::Duration;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

/// An event in the stream: its name, its request, its body.
type Stored = (String, Option<String>, Value);

/// What `act` leaves in the stream of a new server, with both layers on this thread.
#[track_caller]
fn stored_by(act: impl FnOnce(&Bus)) -> Vec<Stored> {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let publish =
        PublishLayer::new(&bus, "log").and_then(|layer| layer.with_spans("span")).expect("names are valid");
    let subscriber = tracing_subscriber::registry().with(RequestIdLayer::new()).with(publish);
    tracing::subscriber::with_default(subscriber, || act(&bus));
    let report = bus.close(CLOSE);
    assert_eq!((report.stats.check(), report.stats.held(), report.stats.dropped.total()), (Ok(()), 0, 0));
    let messages = ask(messages(&server.url(), STREAM));
    let events = messages.iter().filter(|(_, subject, _)| !subject.contains("_bus"));
    let read = |(_, subject, payload): &(u64, String, Vec<u8>)| {
        let envelope = Envelope::parse(payload).expect("it is an envelope");
        let name = subject.strip_prefix("event.1.").expect("every subject has our prefix").to_owned();
        let body = serde_json::from_str(envelope.body.get()).expect("a body is JSON");
        (name, envelope.request_id.map(Into::into), body)
    };
    let stored: Vec<Stored> = events.map(read).collect();
    assert_eq!(stored.len() as u64, report.stats.acked);
    stored
}

#[test]
fn what_is_published_in_a_span_has_its_request_id_across_the_suspensions_of_a_future() {
    let stored = stored_by(|bus| {
        let publish = async |bus: &Bus| {
            for step in 0..3 {
                bus.publish("step", &step);
                tokio::task::yield_now().await;
            }
        };
        ask(async {
            let one = publish(bus).instrument(tracing::info_span!("a", request_id = "q-1"));
            let two = publish(bus).instrument(tracing::info_span!("b", request_id = "q-2"));
            tokio::join!(one, two, publish(bus));
        });
    });
    let steps = |id: Option<&str>| {
        let of_id = stored.iter().filter(|(name, found, _)| name == "step" && found.as_deref() == id);
        of_id.map(|(.., body)| body.clone()).collect::<Vec<_>>()
    };
    // The three take turns, so that an id which outlived its poll would be on another's events.
    for id in [Some("q-1"), Some("q-2"), None] {
        assert_eq!(steps(id), [0, 1, 2], "{id:?} of {stored:?}");
    }
}

#[test]
fn an_event_is_in_the_stream_with_its_level_target_span_and_fields() {
    let stored = stored_by(|_| {
        tracing::info_span!("quote", request_id = "q-1").in_scope(|| {
            tracing::warn!(target: "estimators", estimator = "two-hop", hops = 2_u64, ratio = 0.5, ok = false, err = %"no \"route\"", "estimated {}", 7);
        });
        tracing::info!("alone");
    });
    let mut events = stored.into_iter().filter(|(name, ..)| name == "log");
    let (_, request, body) = events.next().expect("it is there");
    let fields = json!({
        "message": "estimated 7", "estimator": "two-hop", "hops": 2, "ratio": 0.5, "ok": false, "err": "no \"route\"",
    });
    assert_eq!(body, json!({"level": "WARN", "target": "estimators", "span": "quote", "fields": fields}));
    assert_eq!(request.as_deref(), Some("q-1"));
    let (_, request, body) = events.next().expect("it is there");
    assert_eq!(body, json!({"level": "INFO", "target": module_path!(), "fields": {"message": "alone"}}));
    assert_eq!((request, events.next()), (None, None));
}

#[test]
fn a_span_is_in_the_stream_once_it_is_closed_with_its_request_its_fields_and_how_long_it_took() {
    const BUSY: Duration = Duration::from_millis(20);
    const IDLE: Duration = Duration::from_millis(30);
    let stored = stored_by(|_| {
        let span = tracing::info_span!(
            "quote",
            request_id = "q-1",
            pair = "WETH-USDC",
            amount = tracing::field::Empty
        );
        span.in_scope(|| std::thread::sleep(BUSY));
        span.record("amount", 5_u64);
        std::thread::sleep(IDLE);
    });
    let [(name, request, body)] = stored.as_slice() else { panic!("{stored:?}") };
    assert_eq!((name.as_str(), request.as_deref()), ("span", Some("q-1")));
    assert_eq!(
        (&body["name"], &body["level"], &body["target"]),
        (&json!("quote"), &json!("INFO"), &json!(module_path!()))
    );
    assert_eq!(body["fields"], json!({"request_id": "q-1", "pair": "WETH-USDC", "amount": 5}));
    let nanos = |member: &str| Duration::from_nanos(body[member].as_u64().expect("a count"));
    assert!(nanos("busyNanos") >= BUSY && nanos("idleNanos") >= IDLE, "{body}");
}
