//! Events that cannot be stored: refused at the door, or by the server, for now or for good.
//!
//! Whatever the reason, four things must be true: the event is counted under that reason and no other, the others go on, the law
//! holds, and, where the stream takes reports, a gap report declares exactly what is missing (`support.rs` proves the last two).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use async_nats::jetstream::{self, stream};
use jetring::{Bus, Mode, NameError, Offer, Reason, Report};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::server::{NatsServer, PATIENCE, connect, create_stream, messages, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, NO_SERVER, Numbered, Proof, SOON, STREAM, SUBJECTS, Scrape, Seen, ask, bus, bus_with, fill,
    make_stream, prove, prove_ledger, prove_messages, server_with_stream, small,
};

/// Events that a full stream of these tests holds. The report `started` is one more.
const ROOM: u64 = 99;

#[test]
fn a_full_stream_holds_events_back_and_at_the_end_they_are_rejected() {
    let server = full_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..3 * ROOM);
    wait_until("the stream is full", || bus.stats().acked == ROOM);
    let report = bus.close(SOON);
    let proof = prove(&server.url(), &bus, &report, &seen);
    // A try may be under way at the very end; nobody knows then what became of it.
    assert_eq!(rejected(&report) + report.stats.indeterminate, 2 * ROOM, "{report:?}");
    assert!(rejected(&report) > 0);
    assert_eq!(proof.verdict.delivered, ROOM);
}

#[test]
fn a_full_stream_that_is_purged_takes_what_was_held_back_in_order() {
    let server = full_stream();
    let url = server.url();
    let bus = bus(&url);
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..2 * ROOM);
    wait_until("the stream is full", || bus.stats().acked == ROOM);
    // Nothing is stored between this and the purge, since there is no room.
    let mut stored = ask(messages(&url, STREAM));
    ask(async { stream_of(&url).await.purge().await }).expect("the server purges");
    // There is room for the other half now, and for the last report.
    let report = bus.close(CLOSE);
    stored.extend(ask(messages(&url, STREAM)));
    let proof = prove_messages(&stored, bus.process(), &report, &seen);
    assert_eq!(report.stats.acked, 2 * ROOM, "{report:?}");
    assert!(proof.stopped.is_some() && proof.gaps.is_empty());
}

/// Three messages of each subject and no more: the bus's own report of its fourth start is the first that is refused.
#[test]
fn a_subject_that_is_full_holds_up_no_other_and_is_delivered_in_order_when_it_has_room() {
    for mode in [Mode::Async, Mode::Fast] {
        let server = NatsServer::start();
        let limited = stream::Config {
            max_messages_per_subject: 3,
            discard: stream::DiscardPolicy::New,
            discard_new_per_subject: true,
            allow_batch_publish: true,
            ..stream_config(STREAM, &[SUBJECTS])
        };
        ask(create_stream(&server.url(), limited));
        let start = || bus_with(&server.url(), |config| config.delivery.mode = mode);
        for _ in 0..3 {
            assert!(start().close(CLOSE).complete);
        }
        let (bus, mut seen) = (start(), Seen::default());
        let mut publish = |name: &str, numbers: std::ops::Range<u64>| {
            numbers.for_each(|number| _ = seen.call(|| bus.publish(name, &Numbered::new(0, number))));
        };
        (0..100).for_each(|subject| publish(&format!("subject.{subject}"), 0..3));
        publish("full", 0..5);
        wait_until("all that there is room for is stored", || bus.stats().acked == 300 + 3);
        // What waits could only be stored behind this event of its thread. What comes then waits.
        publish("another", 0..1);
        wait_until("two are given up", || bus.stats().dropped.get(Reason::Rejected) == 2);
        publish("full", 5..10);
        change_stream(&server.url(), |config| config.max_messages_per_subject = 100);
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{mode:?}: {report:?}");
        assert_eq!((report.stats.acked, rejected(&report)), (300 + 3 + 1 + 5, 2), "{mode:?}: {report:?}");
        let stored = ask(messages(&server.url(), STREAM));
        let full = stored.iter().filter(|(_, subject, _)| subject == "event.1.full");
        assert_eq!(full.count(), 3 + 5, "{mode:?}");
    }
}

/// A stream of four thousand bytes, and an event for which it will never have room.
#[test]
fn an_event_larger_than_the_whole_stream_is_dropped_as_too_large_and_the_others_go_on() {
    for mode in [Mode::Async, Mode::Fast] {
        let server = NatsServer::start();
        let limited = stream::Config {
            max_bytes: 4096,
            discard: stream::DiscardPolicy::New,
            allow_batch_publish: true,
            ..stream_config(STREAM, &[SUBJECTS])
        };
        ask(create_stream(&server.url(), limited));
        let bus = bus_with(&server.url(), |config| config.delivery.mode = mode);
        let mut seen = Seen::default();
        for (number, bytes) in [(0, 10), (1, 5000), (2, 10)] {
            seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, bytes)));
        }
        let flushed = bus.flush(CLOSE);
        assert!(flushed.complete, "{mode:?}: {flushed:?}");
        let stats = bus.close(CLOSE).stats;
        assert_eq!((stats.acked, stats.dropped.get(Reason::TooLarge)), (2, 1), "{mode:?}: {stats:?}");
    }
}

#[test]
fn a_sealed_stream_rejects_what_comes_after_the_seal() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    assert!(bus.flush(CLOSE).complete);
    change_stream(&server.url(), |config| config.sealed = true);
    seen.publish(&bus, LOAD, 100..200);
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
    assert_eq!((report.stats.acked, rejected(&report)), (100, 100), "{report:?}");
}

#[test]
fn without_a_stream_a_close_ends_by_its_deadline_and_says_no_stream() {
    let server = NatsServer::start();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    wait_until("the bus is connected", || bus.is_connected());
    let begin = Instant::now();
    let report = bus.close(SOON);
    assert!(begin.elapsed() < PATIENCE, "it has waited for the stream: {:?}", begin.elapsed());
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::NoStream), 1000, "{report:?}");
}

#[test]
fn a_name_that_the_stream_does_not_take_is_dropped_as_no_stream_and_the_others_go_on() {
    let server = NatsServer::start();
    ask(create_stream(&server.url(), stream_config(STREAM, &["event.1.taken", "event.1._bus.>"])));
    let (report, _) = mixed(&server, |bus, number, seen| {
        let name = if number % 2 == 0 { "taken" } else { "untaken" };
        seen.call(|| bus.publish(name, &Numbered::new(0, number)));
    });
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::NoStream)), (HALF, HALF), "{report:?}");
}

#[test]
fn a_subject_that_is_denied_is_dropped_as_permission_and_the_others_go_on() {
    let server = NatsServer::builder()
        .config(
            "authorization { users: [{ user: test, password: test, permissions: { publish: { deny: \"event.1.denied\" } } }] }\n\
             no_auth_user: test",
        )
        .start();
    make_stream(&server.url());
    let (report, _) = mixed(&server, |bus, number, seen| {
        let name = if number % 2 == 0 { "permitted" } else { "denied" };
        seen.call(|| bus.publish(name, &Numbered::new(0, number)));
    });
    assert_eq!(
        (report.stats.acked, report.stats.dropped.get(Reason::Permission)),
        (HALF, HALF),
        "{report:?}"
    );
}

#[test]
fn an_event_above_max_event_is_dropped_at_the_door() {
    let server = server_with_stream();
    let (report, _) = mixed(&server, |bus, number, seen| {
        let bytes = if number % 2 == 0 { 10 } else { 70 << 10 };
        let offer = seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, bytes)));
        let expected = if bytes == 10 { Offer::Accepted } else { Offer::Dropped(Reason::TooLarge) };
        assert_eq!(offer, expected);
    });
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (HALF, HALF), "{report:?}");
}

#[test]
fn an_event_above_the_servers_max_payload_is_dropped_and_the_connection_is_kept() {
    let server = NatsServer::builder().config("max_payload: 4096").start();
    make_stream(&server.url());
    let (report, _) = mixed(&server, small_and_large(4096));
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (HALF, HALF), "{report:?}");
    assert!(!server.log().contains("Maximum Payload"), "the server has never seen it");
}

/// A message that its readers cannot read would be a loss that nobody has declared: `verify` finds it so.
#[test]
fn what_readers_could_not_read_is_never_stored_and_declared() {
    struct Careless;
    impl Serialize for Careless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut seq = serializer.serialize_seq(None)?;
            seq.serialize_element(&1)?;
            // It is not a text.
            let _ = seq.serialize_element(std::path::Path::new(OsStr::from_bytes(b"\xff")));
            seq.end()
        }
    }
    const BODIES: [&[u8]; 6] = [b"\"\xff\"", br#""\ud800""#, b"[1,]", b"", b"1\n2", b"\"a\nb\""];
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    let server = server_with_stream();
    let bus = bus(&server.url());
    let topic = bus.topic("raw").expect("a valid name");
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..10);
    for (number, body) in (10..).zip(BODIES.into_iter().chain([&deep[..]])) {
        seen.call(|| topic.publish_json(body));
        seen.publish(&bus, LOAD, number..number + 1);
    }
    assert_eq!(seen.call(|| topic.publish(&Careless)), Offer::Dropped(Reason::Serialize));
    let pretty = serde_json::to_vec_pretty(&Numbered::new(0, 100)).expect("numbers and texts");
    seen.call(|| topic.publish_json(&pretty));
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.dropped.get(Reason::Serialize), BODIES.len() as u64 + 2, "{report:?}");
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert_eq!(proof.verdict.delivered, 10 + BODIES.len() as u64 + 1 + 1);
}

#[test]
fn an_event_above_the_streams_max_msg_size_is_dropped() {
    let server = NatsServer::start();
    let limited = stream::Config { max_message_size: 2048, ..stream_config(STREAM, &[SUBJECTS]) };
    ask(create_stream(&server.url(), limited));
    let (report, _) = mixed(&server, small_and_large(2048));
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (HALF, HALF), "{report:?}");
}

#[test]
fn an_event_above_a_max_msg_size_that_the_bus_has_not_heard_of_is_dropped_when_the_server_says_so() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..10);
    assert!(bus.flush(CLOSE).complete);
    change_stream(&server.url(), |config| config.max_message_size = 2048);
    let publish = small_and_large(2048);
    (10..10 + 2 * HALF).for_each(|number| publish(&bus, number, &mut seen));
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
    assert_eq!(
        (report.stats.acked, report.stats.dropped.get(Reason::TooLarge)),
        (HALF + 10, HALF),
        "{report:?}"
    );
}

#[test]
fn a_body_that_cannot_be_serialized_is_dropped_and_harms_no_other() {
    struct Failing;
    impl Serialize for Failing {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("as a user's type may"))
        }
    }
    struct Panicking;
    impl Serialize for Panicking {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("as a user's type may")
        }
    }

    let server = server_with_stream();
    let (report, _) = mixed(&server, |bus, number, seen| {
        let topic = bus.topic(LOAD).expect("a valid name");
        let longest = seen.longest;
        let offer = match number % 6 {
            1 => seen.call(|| bus.publish(LOAD, &(1, Failing))),
            3 => seen.call(|| topic.publish(&(1, Panicking))),
            5 => seen.call(|| topic.publish_json(b"{\"a\":1")),
            _ => seen.call(|| bus.publish(LOAD, &Numbered::new(0, number))),
        };
        // Bytes are accepted unseen, and looked at behind the ring.
        let is_refused = number % 6 == 1 || number % 6 == 3;
        assert_eq!(offer, if is_refused { Offer::Dropped(Reason::Serialize) } else { Offer::Accepted });
        if number % 6 == 3 {
            // A panic prints, maybe with a backtrace: that waits for a lock and for a pipe, and is the user's matter.
            seen.longest = longest;
        }
    });
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::Serialize)), (HALF, HALF), "{report:?}");
}

#[test]
fn a_name_that_is_none_is_an_error_of_topic_and_rejected_by_publish() {
    let names: [&str; 13] = [
        "",
        " ",
        "a b",
        "a\r\nPUB event.1.x 0",
        "*",
        "a.>",
        "a..b",
        ".a",
        "a.",
        "$JS.API.STREAM.PURGE.main",
        "_INBOX.a",
        "_bus.gap",
        "é",
    ];
    let server = server_with_stream();
    let count = names.len() as u64;
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..10);
    for name in names {
        let refused: Result<_, NameError> = bus.topic(name);
        assert!(refused.is_err(), "{name:?}");
        assert_eq!(seen.call(|| bus.publish(name, &1)), Offer::Dropped(Reason::Rejected), "{name:?}");
    }
    let long = "a".repeat(256);
    assert!(bus.topic(&long).is_err());
    assert!(bus.topic(&long[1..]).is_ok());
    seen.publish(&bus, LOAD, 10..20);
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert_eq!((report.stats.acked, rejected(&report)), (20, count), "{report:?}");
    assert_eq!(proof.gaps[0].counts[0].name, "_other", "an invalid name is shown nowhere");
}

#[test]
fn a_request_id_that_is_too_long_is_dropped_as_too_large() {
    let server = server_with_stream();
    let long = "x".repeat(257);
    let (report, _) = mixed(&server, |bus, number, seen| {
        let topic = bus.topic(LOAD).expect("a valid name");
        let id = if number % 2 == 0 { &long[1..] } else { &long };
        seen.call(|| topic.publish_for(id, &Numbered::new(0, number)));
    });
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (HALF, HALF), "{report:?}");
}

#[test]
fn a_full_ring_sheds_and_the_gap_that_is_reported_later_is_exactly_the_hole() {
    let reserved = NatsServer::reserve();
    let bus = bus_with(&reserved.url(), small);
    let mut seen = Seen::default();
    fill(&bus, &mut seen);
    let next = seen.offered;
    seen.publish(&bus, LOAD, next..next + 1000);
    let shed = seen.dropped(Reason::QueueFull);
    assert!(shed >= 1000, "{seen:?}");
    let server = reserved.start();
    make_stream(&server.url());
    assert!(bus.flush(CLOSE).complete);
    seen.publish(&bus, LOAD, next + 1000..next + 1100);
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::QueueFull), shed);
    assert_eq!(report.stats.acked + shed, seen.offered);
    // Every number of an event is a number of its producer, as one thread published all of them.
    let stored: Vec<u64> = proof.events.iter().map(|(_, event)| event.number + 1).collect();
    let missing = (1..=seen.offered).filter(|number| !stored.contains(number)).collect::<Vec<_>>();
    let (first, last) = (missing[0], missing[missing.len() - 1]);
    assert_eq!(proof.gaps.iter().map(|gap| gap.first).min(), Some(first), "{:?}", proof.gaps);
    assert_eq!(proof.gaps.iter().map(|gap| gap.last).max(), Some(last), "{:?}", proof.gaps);
    for gap in &proof.gaps {
        let inside = missing.iter().filter(|&&number| (gap.first..=gap.last).contains(&number)).count();
        assert_eq!(gap.lost, inside as u64, "{gap:?}");
        let told: Vec<_> = gap.counts.iter().map(|loss| (&*loss.name, &*loss.reason, loss.count)).collect();
        assert_eq!(told, [(LOAD, "queue_full", gap.lost)]);
    }
}

#[test]
fn a_full_ring_without_a_server_answers_at_once_and_balances() {
    let bus = bus_with(NO_SERVER, small);
    let mut seen = Seen::default();
    fill(&bus, &mut seen);
    let full = seen.accepted;
    seen.publish(&bus, LOAD, 0..100_000);
    assert_eq!(seen.accepted, full);
    let report = bus.close(SOON);
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::Expired), full, "{report:?}");
}

/// Good and bad events that [`mixed`] publishes, of each.
const HALF: u64 = 90;

/// Publishes good events (even numbers) and bad ones (odd numbers) by turns. All must meet their fate before the close
/// is called, on one connection, and the stream must be what the ledger says.
#[track_caller]
fn mixed(server: &NatsServer, publish: impl Fn(&Bus, u64, &mut Seen)) -> (Report, Proof) {
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    (0..2 * HALF).for_each(|number| publish(&bus, number, &mut seen));
    let flushed = bus.flush(CLOSE);
    assert!(flushed.complete, "{flushed:?}");
    assert_eq!(Scrape::of(&bus).sum("event_bus_reconnects_total"), 0.0);
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    assert!(proof.stopped.is_some());
    (report, proof)
}

fn small_and_large(limit: usize) -> impl Fn(&Bus, u64, &mut Seen) {
    move |bus, number, seen| {
        let bytes = if number % 2 == 0 { 10 } else { limit };
        seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, bytes)));
    }
}

fn rejected(report: &Report) -> u64 {
    report.stats.dropped.get(Reason::Rejected)
}

/// A server whose stream takes `started` and [`ROOM`] events, and then nothing.
fn full_stream() -> NatsServer {
    let server = NatsServer::start();
    let max_messages = i64::try_from(ROOM + 1).expect("a small number");
    let full = stream::Config {
        max_messages,
        discard: stream::DiscardPolicy::New,
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(&server.url(), full));
    server
}

async fn stream_of(url: &str) -> stream::Stream {
    jetstream::new(connect(url).await).get_stream(STREAM).await.expect("the stream is there")
}

pub(crate) fn change_stream(url: &str, change: impl FnOnce(&mut stream::Config)) {
    ask(async {
        let mut config = stream_of(url).await.cached_info().config.clone();
        change(&mut config);
        let context = jetstream::new(connect(url).await);
        context.update_stream(config).await.expect("the server takes the change");
    });
}
