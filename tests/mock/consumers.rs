use std::time::Duration;

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::server::{connect, create_stream, stream_config};
use crate::target::{Target, ask, on_both};
use crate::wire::{Message, Wire, refused};

on_both! {
    a_consumer_gives_out_what_it_is_asked_for,
    a_consumer_begins_where_it_is_told_to,
    a_request_that_gets_nothing_is_told_so,
    who_waits_gets_what_comes,
    consumers_are_named_told_of_and_deleted,
    an_ordered_consumer_reads_a_stream,
}

/// A client with a stream of so many messages, each its own number.
fn with_messages(target: &Target, count: u64) -> Wire {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({}));
    for number in 1..=count {
        let subject = if number % 2 == 1 { "event.odd" } else { "event.even" };
        wire.store(subject, &[], &number.to_string());
    }
    wire
}

/// Makes a consumer with these members besides the usual ones.
#[track_caller]
fn make(wire: &mut Wire, name: &str, mut members: Value) -> Value {
    for (member, value) in [("ack_policy", "none"), ("replay_policy", "instant"), ("name", name)] {
        members[member] = value.into();
    }
    wire.api(&format!("CONSUMER.CREATE.main.{name}"), json!({ "stream_name": "main", "config": members }))
}

fn pull(wire: &mut Wire, name: &str, request: &str) {
    wire.publish(&format!("$JS.API.CONSUMER.MSG.NEXT.main.{name}"), "_INBOX.wire", &[], request);
}

/// Sequence, number in the consumer, and how many are still to come, of a message that a consumer gave out.
#[track_caller]
fn place(message: &Message, name: &str) -> (u64, u64, u64) {
    let reply = message.reply.as_deref().unwrap_or_default();
    let rest = reply.strip_prefix(&format!("$JS.ACK.main.{name}.1."));
    let numbers: Option<Vec<u64>> = rest.and_then(|rest| rest.split('.').map(|n| n.parse().ok()).collect());
    match numbers.as_deref() {
        Some(&[sequence, number, _time, pending]) => (sequence, number, pending),
        _ => panic!("{reply:?} is no place in a stream"),
    }
}

fn a_consumer_gives_out_what_it_is_asked_for(target: &Target) {
    let mut wire = with_messages(target, 6);
    let made = make(&mut wire, "c", json!({ "deliver_policy": "all" }));
    assert_eq!(made["type"], "io.nats.jetstream.api.v1.consumer_create_response");
    assert_eq!((&made["name"], &made["num_pending"]), (&json!("c"), &json!(6)));
    pull(&mut wire, "c", r#"{"batch":2}"#);
    pull(&mut wire, "c", "3");
    pull(&mut wire, "c", "");
    for number in 1..=6 {
        let message = wire.hear_one();
        assert_eq!(message.payload, number.to_string());
        assert_eq!(message.subject, if number % 2 == 1 { "event.odd" } else { "event.even" });
        assert_eq!(place(&message, "c"), (number, number, 6 - number));
    }
}

fn a_consumer_begins_where_it_is_told_to(target: &Target) {
    let mut wire = with_messages(target, 6);
    let consumers = [
        ("from", json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 5 }), 2, 5),
        ("later", json!({ "deliver_policy": "by_start_sequence", "opt_start_seq": 8 }), 0, 8),
        ("odd", json!({ "deliver_policy": "all", "filter_subject": "event.odd" }), 3, 1),
        ("last", json!({ "deliver_policy": "last", "filter_subject": "event.odd" }), 1, 5),
        ("new", json!({ "deliver_policy": "new" }), 0, 7),
    ];
    for (name, members, pending, _) in &consumers {
        let made = make(&mut wire, name, members.clone());
        assert_eq!(made["num_pending"], *pending, "{made}");
    }
    for number in 7..=8 {
        wire.store("event.odd", &[], &number.to_string());
    }
    for (name, _, _, first) in consumers {
        pull(&mut wire, name, "1");
        assert_eq!(place(&wire.hear_one(), name).0, first, "{name}");
    }
}

fn a_request_that_gets_nothing_is_told_so(target: &Target) {
    let mut wire = with_messages(target, 0);
    make(&mut wire, "c", json!({ "deliver_policy": "all" }));
    for (request, status) in [
        (r#"{"batch":2,"no_wait":true}"#, "404 No Messages"),
        (r#"{"batch":2,"expires":100000000}"#, "408 Request Timeout"),
        (
            r#"{"batch":2,"expires":300000000,"idle_heartbeat":200000000}"#,
            "400 Bad Request - heartbeat value too large",
        ),
    ] {
        pull(&mut wire, "c", request);
        assert_eq!(wire.hear_one().status(), status, "{request}");
    }
    pull(&mut wire, "c", r#"{"batch":2,"expires":1000000000,"idle_heartbeat":200000000}"#);
    let (mut beats, mut message) = (0, wire.hear_one());
    while message.status() == "100 Idle Heartbeat" {
        assert_eq!(
            (message.header("Nats-Last-Consumer"), message.header("Nats-Last-Stream")),
            (Some("0"), Some("0"))
        );
        (beats, message) = (beats + 1, wire.hear_one());
    }
    assert_eq!(
        (message.status(), message.header("Nats-Pending-Messages")),
        ("408 Request Timeout", Some("2"))
    );
    assert!((1..=5).contains(&beats), "{beats}");
    assert_eq!(wire.request("$JS.API.CONSUMER.MSG.NEXT.main.none", &[], "1").status(), "503");
}

fn who_waits_gets_what_comes(target: &Target) {
    let mut wire = with_messages(target, 1);
    make(&mut wire, "c", json!({ "deliver_policy": "all" }));
    pull(&mut wire, "c", r#"{"batch":3,"expires":10000000000}"#);
    assert_eq!(place(&wire.hear_one(), "c"), (1, 1, 0));
    for sequence in 2..=3 {
        wire.publish("event.a", "", &[], "");
        assert_eq!(place(&wire.hear_one(), "c"), (sequence, sequence, 0));
    }
    // It has got what it asked for.
    wire.store("event.a", &[], "");
    assert_eq!(wire.api("CONSUMER.INFO.main.c", Value::Null)["num_pending"], 1);
}

fn consumers_are_named_told_of_and_deleted(target: &Target) {
    let mut wire = with_messages(target, 2);
    make(&mut wire, "c", json!({ "deliver_policy": "all" }));
    pull(&mut wire, "c", "1");
    wire.hear_one();
    let info = wire.api("CONSUMER.INFO.main.c", Value::Null);
    assert_eq!(
        (&info["stream_name"], &info["num_waiting"], &info["num_pending"]),
        (&json!("main"), &json!(0), &json!(1))
    );
    assert_eq!(info["delivered"]["stream_seq"], 1);
    assert_eq!(wire.api("CONSUMER.NAMES.main", Value::Null)["consumers"], json!(["c"]));
    assert_eq!(wire.api("CONSUMER.DELETE.main.c", Value::Null)["success"], true);
    assert_eq!(refused(&wire.api("CONSUMER.DELETE.main.c", Value::Null)), (404, 10014, "consumer not found"));
    assert_eq!(refused(&wire.api("CONSUMER.INFO.main.c", Value::Null)).1, 10014);
    let mismatch = json!({
        "stream_name": "main",
        "config": { "name": "d", "ack_policy": "none", "deliver_policy": "all", "filter_subject": "event.a" },
    });
    assert_eq!(refused(&wire.api("CONSUMER.CREATE.main.d.event.b", mismatch)).1, 10131);
    let nowhere =
        json!({ "stream_name": "none", "config": { "ack_policy": "none", "deliver_policy": "all" } });
    assert_eq!(refused(&wire.api("CONSUMER.CREATE.none.d", nowhere)).1, 10059);
}

fn an_ordered_consumer_reads_a_stream(target: &Target) {
    const MESSAGES: u64 = 1500;
    ask(async {
        let url = target.url();
        create_stream(&url, stream_config("main", &["event.>"])).await;
        let client = connect(&url).await;
        let context = jetstream::new(client.clone());
        for number in 1..MESSAGES {
            let subject = if number % 2 == 1 { "event.odd" } else { "event.even" };
            client.publish(subject, number.to_string().into()).await.unwrap();
        }
        context.publish("event.even", MESSAGES.to_string().into()).await.unwrap().await.unwrap();
        let stream = context.get_stream("main").await.unwrap();
        let config = OrderedConfig {
            filter_subject: "*.even".to_owned(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 101 },
            ..OrderedConfig::default()
        };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        for number in (102..=MESSAGES).step_by(2) {
            let next = tokio::time::timeout(Duration::from_secs(15), messages.next()).await.unwrap();
            let message = next.unwrap().unwrap();
            assert_eq!(&*message.payload, number.to_string().as_bytes());
            let info = message.info().unwrap();
            assert_eq!((info.stream_sequence, info.pending), (number, (MESSAGES - number) / 2));
        }
        // And what comes now.
        context.publish("event.even", "new".into()).await.unwrap().await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(15), messages.next()).await.unwrap();
        assert_eq!(&*next.unwrap().unwrap().payload, b"new");
    });
}
