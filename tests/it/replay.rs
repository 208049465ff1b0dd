//! `jetring replay`: a directory is sent to a server, in order, once, however often it is interrupted.

use crate::cli::{assert_refused, assert_status, command, jetring, json_of, signal};
use crate::server::{NatsServer, create_stream, stream_config, stream_state, wait_until};
use crate::support::{CLOSE, LOAD, Numbered, STREAM, SUBJECTS, ask, server_with_stream};
use jetring::{Bus, Config, Framing, WhenFull};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// A directory of `file:` with so many events.
fn filled(events: u64, change: impl FnOnce(&mut Config)) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("events");
    let mut config = Config::new(&format!("file:{}", path.display()), STREAM, 1).expect("the url is valid");
    change(&mut config);
    let bus = Bus::start(config).expect("the configuration is valid");
    for number in 0..events {
        while !bus.has_room(200) {
            std::thread::yield_now();
        }
        assert!(bus.publish(LOAD, &Numbered::new(0, number)).is_accepted());
    }
    assert_eq!(bus.close(CLOSE).stats.acked, events);
    (parent, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("our own path")
}

fn verify(server: &NatsServer) -> Value {
    let output = jetring(&["verify", "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    json_of(&output)
}

#[test]
fn a_directory_is_sent_once_whatever_its_frames_are() {
    for (framing, way) in [
        (Framing::Plain, "plain"),
        (Framing::Plain, "packed"),
        (Framing::Packed, "plain"),
        (Framing::Packed, "packed"),
    ] {
        let server = server_with_stream();
        let (_parent, path) = filled(5000, |config| config.delivery.framing = framing);
        let replay = || {
            command(&["replay", text(&path), "--url", &server.url(), "--json"])
                .env("JETRING_EVENT_BUS__DELIVERY__FRAMING", way)
                .output()
                .expect("the tool runs")
        };
        let first = replay();
        assert_status(&first, 0);
        let balance = json_of(&first);
        assert_eq!(
            (&balance["acked"], &balance["recovered"]),
            (&json!(5000), &json!(5000)),
            "{framing:?} {way} {balance}"
        );
        let again = replay();
        assert_status(&again, 0);
        assert_eq!(json_of(&again)["offered"], 0);
        let verdict = verify(&server);
        for (count, expected) in
            [("delivered", 5000), ("duplicates", 0), ("reordered", 0), ("lost_undeclared", 0)]
        {
            assert_eq!(verdict[count], expected, "{framing:?} {way} {verdict}");
        }
    }
}

#[test]
fn events_without_a_stamp_are_known_by_their_place() {
    let server = server_with_stream();
    let (_parent, path) = filled(100, |config| config.delivery.stamp = false);
    let output = jetring(&["spool", "replay", text(&path), "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["acked"], 100);
    let log = jetring::spool::overview(&path).expect("it can be read").log.expect("it is there");
    let stored = ask(crate::server::stored(&server.url(), STREAM));
    let ids: Vec<String> = stored
        .iter()
        .filter(|(_, message)| message.subject.as_str() == "event.1.load")
        .filter_map(|(_, message)| Some(message.headers.as_ref()?.get("Nats-Msg-Id")?.to_string()))
        .collect();
    assert_eq!((ids.len(), ids.first()), (100, Some(&format!("{log}-2"))), "the first record is a report");
}

/// Waits until the stream has more than so many messages.
fn wait_for(server: &NatsServer, messages: u64) {
    wait_until("a part of it is sent", || ask(stream_state(&server.url(), STREAM)).messages > messages);
}

fn begin(server: &NatsServer, path: &Path) -> Child {
    // One message at a time, so that it can be interrupted before it is through.
    command(&["replay", text(path), "--url", &server.url(), "--json"])
        .env("JETRING_EVENT_BUS__DELIVERY__MAX_IN_FLIGHT", "4")
        .env("JETRING_EVENT_BUS__DELIVERY__MODE", "async")
        .spawn()
        .expect("the tool starts")
}

#[test]
fn an_interrupted_replay_goes_on_where_it_was() {
    let server = server_with_stream();
    let (_parent, path) = filled(20_000, |_| {});
    let first = begin(&server, &path);
    wait_for(&server, 500);
    signal(&first, libc::SIGINT);
    let output = first.wait_with_output().expect("it ends");
    assert_status(&output, 1);
    let left = json_of(&output);
    let spooled = left["spooled"].as_u64().expect("a count");
    assert!((1..20_000).contains(&spooled), "{left}");
    let output = jetring(&["replay", text(&path), "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    // Behind one that was open, some had been acknowledged. The last record is a report, and no event.
    assert!(json_of(&output)["offered"].as_u64() >= Some(spooled - 1), "{left}");
    let verdict = verify(&server);
    assert_eq!((&verdict["delivered"], &verdict["duplicates"]), (&json!(20_000), &json!(0)), "{verdict}");
}

#[test]
fn a_replay_that_is_killed_makes_no_duplicate_also_when_the_server_has_forgotten_the_ids() {
    let server = NatsServer::start();
    let window = Duration::from_millis(100);
    let config = async_nats::jetstream::stream::Config {
        duplicate_window: window,
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(&server.url(), config));
    let (_parent, path) = filled(20_000, |_| {});
    for kill in 1..4 {
        let mut replay = begin(&server, &path);
        wait_for(&server, kill * 400);
        replay.kill().expect("it is ours");
        replay.wait().expect("it is ours");
        std::thread::sleep(2 * window);
    }
    let output = jetring(&["replay", text(&path), "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    let verdict = verify(&server);
    assert_eq!((&verdict["delivered"], &verdict["duplicates"]), (&json!(20_000), &json!(0)), "{verdict}");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_its_cause() {
    let server = server_with_stream();
    let url = server.url();
    assert_refused(&["replay", "/nonexistent", "--url", &url], 1, &["/nonexistent", "No such file"]);
    let empty = tempfile::tempdir().expect("a temporary directory");
    assert_refused(&["replay", text(empty.path()), "--url", &url], 1, &["no log"]);
    let (_parent, path) = filled(10, |_| {});
    assert_refused(&["replay", text(&path), "--url", "file:elsewhere"], 2, &["--url"]);
    let owner = Config::new(&format!("file:{}", path.display()), STREAM, 1).expect("the url is valid");
    let owner = Bus::start(owner).expect("the configuration is valid");
    wait_until("it has an owner", || owner.is_connected());
    assert_refused(&["replay", text(&path), "--url", &url], 1, &["in use"]);
}

/// What a close gets that cannot deliver.
const LAYING_DOWN: Duration = Duration::from_secs(3);

/// A spool for the stream `other`, which takes `event.7.>`, of a process that never had a server; and a server with that stream and `main`.
fn spooled_for_another_stream(events: u64) -> (tempfile::TempDir, PathBuf, NatsServer) {
    let server = server_with_stream();
    ask(create_stream(&server.url(), stream_config("other", &["event.7.>"])));
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    let mut config = Config::new("nats://127.0.0.1:1", "other", 7).expect("the url is valid");
    config.queue.when_full = WhenFull::Spool;
    config.spool.dir = Some(path.clone());
    let bus = Bus::start(config).expect("the configuration is valid");
    for number in 0..events {
        assert!(bus.publish(LOAD, &Numbered::new(0, number)).is_accepted());
    }
    assert_eq!(bus.close(LAYING_DOWN).stats.spooled, events);
    (parent, path, server)
}

fn messages(server: &NatsServer, stream: &str) -> u64 {
    ask(stream_state(&server.url(), stream)).messages
}

/// Sends a spool where it belongs. Returns how many events were acknowledged.
fn replay_to_other(server: &NatsServer, path: &Path) -> u64 {
    let url = server.url();
    let output =
        jetring(&["replay", text(path), "--url", &url, "--stream", "other", "--chain-id", "7", "--json"], "");
    assert_status(&output, 0);
    json_of(&output)["acked"].as_u64().expect("a count")
}

#[test]
fn nothing_is_sent_or_deleted_if_the_stream_does_not_take_what_waits() {
    let (_parent, path, server) = spooled_for_another_stream(1000);
    let url = server.url();
    let words = ["nothing was sent", "stream main takes event.1.>", "event.7.load (1000)", "--discard"];
    assert_refused(&["replay", text(&path), "--url", &url], 1, &words);
    let words = ["nothing was sent", "stream typo does not exist", "event.7.load (1000)"];
    assert_refused(&["replay", text(&path), "--url", &url, "--stream", "typo"], 1, &words);
    assert_eq!((messages(&server, STREAM), messages(&server, "other")), (0, 0));
    assert!(replay_to_other(&server, &path) >= 1000);
}

#[test]
fn what_the_stream_does_not_take_is_given_up_only_if_that_is_asked_for() {
    let (_parent, path, server) = spooled_for_another_stream(100);
    let output = jetring(&["replay", text(&path), "--url", &server.url(), "--discard", "--json"], "");
    assert_status(&output, 1);
    assert!(json_of(&output)["dropped"]["no_stream"].as_u64() >= Some(100));
    assert_eq!(replay_to_other(&server, &path), 0);
}

#[test]
fn the_directory_may_be_that_of_the_configuration() {
    let (parent, path, server) = spooled_for_another_stream(100);
    let file = parent.path().join("jetring.toml");
    let config = format!(
        "[event-bus]\nurl = {:?}\nstream = \"other\"\nchain-id = 7\n[event-bus.queue]\nwhen-full = \"spool\"\n[event-bus.spool]\ndir = {:?}\n",
        server.url(),
        path
    );
    std::fs::write(&file, config).expect("it can be written");
    let output = jetring(&["replay", "--config", text(&file), "--json"], "");
    assert_status(&output, 0);
    assert!(json_of(&output)["acked"].as_u64() >= Some(100));
    assert_refused(&["replay", "--url", &server.url()], 2, &["directory", "spool.dir"]);
}

#[test]
fn a_bus_with_another_stream_leaves_the_spool_as_it_is_and_sends_its_own_events() {
    for is_service in [true, false] {
        let (_parent, path, server) = spooled_for_another_stream(1000);
        let mut config = Config::new(&server.url(), STREAM, 1).expect("the url is valid");
        config.queue.when_full = WhenFull::Spool;
        config.spool.dir = Some(path.clone());
        let bus = if is_service { Bus::start(config) } else { Bus::replay(config, &path) };
        let bus = bus.expect("the configuration is valid");
        wait_until("it says so", || bus.held_back().is_some());
        let why = bus.held_back().unwrap_or_default();
        assert!(why.contains("event.1.>") && why.contains("event.7.load"), "{why}");
        let own = if is_service { 50 } else { 0 };
        for number in 0..own {
            assert!(bus.publish(LOAD, &Numbered::new(1, number)).is_accepted());
        }
        wait_until("its own events are sent", || bus.stats().acked >= own);
        let report = bus.close(CLOSE);
        assert_eq!(report.stats.check(), Ok(()));
        assert_eq!((report.stats.acked, report.stats.dropped.total()), (own, 0), "{report:?}");
        assert!(report.stats.spooled >= 1000, "{report:?}");
        assert!(replay_to_other(&server, &path) >= 1000);
        let url = server.url();
        let verdict =
            jetring(&["verify", "--url", &url, "--stream", "other", "--chain-id", "7", "--json"], "");
        let verdict = json_of(&verdict);
        assert_eq!((&verdict["delivered"], &verdict["duplicates"]), (&json!(1000), &json!(0)), "{verdict}");
    }
}
