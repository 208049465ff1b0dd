//! A process is killed while it sends a spool, and what it had stored is gone from the stream before the next one asks: each event comes once all the
//! same, or is said to be indeterminate where not even the server can tell.

use crate::cli::{assert_status, command, json_of};
use crate::proxy::{Link, Proxy, Way};
use crate::server::{NatsServer, connect, create_stream, stream_config, stream_state, wait_until};
use crate::support::{LOAD, Numbered, STREAM, SUBJECTS, ask};
use async_nats::jetstream::{self, consumer::pull, stream};
use futures_util::StreamExt;
use jetring::{Bus, Config, WhenFull};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

const EVENTS: u64 = 4000;

/// What a close gets that cannot deliver.
const LAYING_DOWN: Duration = Duration::from_secs(3);

/// A little more than an answer about the stream is waited for.
const LATE: Duration = Duration::from_millis(2300);

/// The spool of a process that never had a server.
fn spool() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    let mut config = Config::new("nats://127.0.0.1:1", STREAM, 1).expect("the url is valid");
    config.queue.when_full = WhenFull::Spool;
    config.queue.capacity = 4 << 20;
    config.spool.dir = Some(path.clone());
    let bus = Bus::start(config).expect("the configuration is valid");
    for number in 0..EVENTS {
        while !bus.has_room(200) {
            std::thread::yield_now();
        }
        assert!(bus.publish(LOAD, &Numbered::new(0, number)).is_accepted());
    }
    assert_eq!(bus.close(LAYING_DOWN).stats.spooled, EVENTS);
    (parent, path)
}

/// The same again.
fn copy(original: &Path) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    std::fs::create_dir(&path).expect("it is a new directory");
    for file in std::fs::read_dir(original).expect("it is there") {
        let file = file.expect("it can be read");
        std::fs::copy(file.path(), path.join(file.file_name())).expect("there is room");
    }
    (parent, path)
}

/// A server with a stream from which messages go when they are consumed.
fn work_queue(duplicate_window: Duration) -> NatsServer {
    let server = NatsServer::start();
    let config = stream::Config {
        retention: stream::RetentionPolicy::WorkQueue,
        allow_batch_publish: true,
        duplicate_window,
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(&server.url(), config));
    server
}

/// Takes all messages out of the stream. Counts how often each event is among them.
fn consume(server: &NatsServer, seen: &mut BTreeMap<u64, u64>) {
    ask(async {
        let stream =
            jetstream::new(connect(&server.url()).await).get_stream(STREAM).await.expect("it is there");
        let config = pull::Config { durable_name: Some("all".to_owned()), ..Default::default() };
        let consumer = stream.get_or_create_consumer("all", config).await.expect("it can be consumed");
        loop {
            let mut left = stream.clone();
            if left.info().await.expect("it answers").state.messages == 0 {
                return;
            }
            let mut batch = consumer.fetch().max_messages(2000).messages().await.expect("it gives them out");
            while let Some(message) = batch.next().await {
                let message = message.expect("it can be read");
                message.ack().await.expect("it takes that");
                if message.subject.as_str() != "event.1.load" {
                    continue;
                }
                let headers = message.headers.clone().unwrap_or_default();
                let header = |name: &str| headers.get(name).map(|value| value.as_str());
                let frame =
                    jetring::frame::unpack(header, &message.payload).expect("it is an event or a frame");
                for event in &frame {
                    let envelope: Value = serde_json::from_slice(event).expect("it is an envelope");
                    *seen.entry(envelope["body"]["number"].as_u64().expect("a number")).or_default() += 1;
                }
            }
        }
    });
}

/// How a replay sends.
#[derive(Clone, Copy, Debug)]
struct Sender {
    mode: &'static str,
    framing: &'static str,
}

fn replay(url: &str, path: &Path, way: Sender, in_flight: &str) -> Child {
    command(&["replay", path.to_str().expect("our own path"), "--url", url, "--json"])
        .env("JETRING_EVENT_BUS__DELIVERY__MAX_IN_FLIGHT", in_flight)
        .env("JETRING_EVENT_BUS__DELIVERY__MODE", way.mode)
        .env("JETRING_EVENT_BUS__DELIVERY__FRAMING", way.framing)
        .spawn()
        .expect("the tool starts")
}

/// Begins to replay, and is killed in the middle of it.
fn begin_and_kill(server: &NatsServer, path: &Path, way: Sender) {
    let relay = Proxy::before(server.port());
    if way.framing == "packed" {
        // All frames would be sent in a moment.
        relay.set(Link { acks: Way::Late(Duration::from_millis(50)), ..Link::CLEAR });
    }
    let least = if way.framing == "packed" { 8 } else { 50 };
    let mut first = replay(&relay.url(), path, way, "16");
    wait_until("a part of it is sent", || ask(stream_state(&server.url(), STREAM)).last_sequence > least);
    first.kill().expect("it is ours");
    first.wait().expect("it is ours");
}

#[test]
fn what_was_consumed_before_the_next_process_asks_is_not_sent_again() {
    let (_original, original) = spool();
    // What the first one sends is known to the server by its ids, in whatever way the second one would send.
    for (first, second) in [("fast", "async"), ("fast", "fast"), ("async", "fast")] {
        for framing in ["plain", "packed"] {
            let server = work_queue(Duration::from_secs(120));
            let (_parent, path) = copy(&original);
            begin_and_kill(&server, &path, Sender { mode: first, framing: "plain" });
            let mut seen = BTreeMap::new();
            consume(&server, &mut seen);
            let before = seen.len() as u64;
            assert!((1..EVENTS).contains(&before), "it was not killed in the middle: {before}");
            let next = replay(&server.url(), &path, Sender { mode: second, framing }, "1024");
            let output = next.wait_with_output().expect("it ends");
            assert_status(&output, 0);
            consume(&server, &mut seen);
            let twice = seen.values().filter(|&&times| times > 1).count();
            let what = format!("{first} and then {second} {framing}: {before} were consumed");
            assert_eq!((seen.len() as u64, twice), (EVENTS, 0), "{what}: {}", json_of(&output));
        }
    }
}

#[test]
fn what_not_even_the_server_can_tell_is_indeterminate_and_not_sent_twice() {
    let (_original, original) = spool();
    let window = Duration::from_millis(100);
    for (mode, framing, window) in [
        ("fast", "plain", window),
        ("async", "plain", window),
        // A frame is made anew by who sends it again, so its id says nothing.
        ("fast", "packed", Duration::from_secs(120)),
    ] {
        let server = work_queue(window);
        let (_parent, path) = copy(&original);
        begin_and_kill(&server, &path, Sender { mode, framing });
        let mut seen = BTreeMap::new();
        consume(&server, &mut seen);
        assert!((1..EVENTS).contains(&(seen.len() as u64)), "it was not killed in the middle");
        std::thread::sleep(2 * Duration::from_millis(100));
        let next = replay(&server.url(), &path, Sender { mode, framing }, "1024");
        let output = next.wait_with_output().expect("it ends");
        let balance = json_of(&output);
        consume(&server, &mut seen);
        let twice = seen.values().filter(|&&times| times > 1).count();
        assert_eq!(twice, 0, "{mode} {framing} {balance}");
        let missing = EVENTS - seen.len() as u64;
        let indeterminate = balance["indeterminate"].as_u64().expect("a count");
        assert!(indeterminate >= missing, "{mode} {framing}: {missing} are missing: {balance}");
        // It is the event's own reason, and not a failure of the tool.
        assert_status(&output, i32::from(indeterminate > 0));
    }
}

#[test]
fn a_look_that_is_not_answered_for_a_while_is_not_taken_for_a_denial() {
    let server = NatsServer::start();
    // No id is known for long, so only the stream can tell.
    let config = stream::Config {
        allow_batch_publish: true,
        duplicate_window: Duration::from_millis(100),
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(&server.url(), config));
    let (_parent, path) = spool();
    let way = Sender { mode: "fast", framing: "plain" };
    begin_and_kill(&server, &path, way);
    let relay = Proxy::before(server.port());
    // Everything the server says comes, and every answer about the stream later than it is waited for.
    relay.set(Link { down: Way::Late(LATE), ..Link::CLEAR });
    let next = replay(&relay.url(), &path, way, "1024");
    // Longer than it takes for five looks to fail.
    std::thread::sleep(8 * LATE);
    relay.set(Link::CLEAR);
    let output = next.wait_with_output().expect("it ends");
    assert_status(&output, 0);
    let output = command(&["verify", "--url", &server.url(), "--json"]).output().expect("the tool runs");
    assert_status(&output, 0);
    let verdict = json_of(&output);
    assert_eq!((&verdict["delivered"], &verdict["duplicates"]), (&json!(EVENTS), &json!(0)), "{verdict}");
}
