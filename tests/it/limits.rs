//! Limits of the server and the stream, to the byte.

use std::time::Duration;

use async_nats::jetstream::stream;
use jetring::{Auth, Bus, Compression, Config, Framing, Reason, Secret, SecretSource, WhenFull};

use crate::cli::{command, json_of};
use crate::packed::{self, COMPRESSIONS, Stored, packed, server_for};
use crate::refusal::change_stream;
use crate::server::{NatsServer, create_stream, stream_config, wait_until};
use crate::support::{CLOSE, LOAD, Load, Numbered, SOON, STREAM, SUBJECTS, Seen, ask, bus_with};

/// Events without a stamp have the longest ids there are: their log, and their place in it.
#[test]
fn records_of_a_log_are_sent_or_dropped_to_the_byte_and_the_connection_stays() {
    const MAX_PAYLOAD: usize = 2048;
    const EVENTS: u64 = 400;
    for mode in ["async", "auto"] {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("events");
        let path = path.to_str().expect("our own path");
        let mut config = Config::new(&format!("file:{path}"), STREAM, 1).expect("the url is valid");
        // The place of an event in its frame makes its number a long one.
        (config.delivery.stamp, config.delivery.framing) = (false, Framing::Packed);
        let bus = Bus::start(config).expect("the configuration is valid");
        for number in 0..EVENTS {
            // One byte longer each, from what fits to what does not.
            let event = Numbered::with_text(number, MAX_PAYLOAD - 350 + number as usize);
            wait_until("there is room", || bus.has_room(MAX_PAYLOAD * 2));
            assert!(bus.publish(LOAD, &event).is_accepted());
        }
        assert_eq!(bus.close(CLOSE).stats.acked, EVENTS);

        let server = NatsServer::builder().config(format!("max_payload: {MAX_PAYLOAD}")).start();
        ask(create_stream(&server.url(), stream_config(STREAM, &[SUBJECTS])));
        let mut replay = command(&["replay", path, "--url", &server.url(), "--json"])
            .env("JETRING_EVENT_BUS__DELIVERY__MODE", mode)
            .env("JETRING_EVENT_BUS__DELIVERY__FRAMING", "plain")
            .spawn()
            .expect("the tool starts");
        wait_until("all have met their fate", || replay.try_wait().expect("it is ours").is_some());
        let balance = json_of(&replay.wait_with_output().expect("it ends"));
        let too_large = balance["dropped"]["too_large"].as_u64().unwrap_or(0);
        assert!((50..EVENTS - 50).contains(&too_large), "{balance}");
        assert_eq!(balance["acked"].as_u64(), Some(EVENTS - too_large), "{balance}");
    }
}

// ---- packed frames ----------------------------------------------------------------------------------------------------------

const MSG_SIZE: i32 = 8192;

/// In both engines, with every compression.
fn each_way(mut run: impl FnMut(bool, Compression)) {
    for (compression, _) in COMPRESSIONS {
        for batches in [true, false] {
            run(batches, compression);
        }
    }
}

fn limit_stream(server: &NatsServer, size: i32) {
    change_stream(&server.url(), |config| config.max_message_size = size);
}

/// All that was offered is stored, in frames that the stream takes.
#[track_caller]
fn prove_all_stored(server: &NatsServer, bus: &Bus, seen: &Seen) -> Vec<Stored> {
    let report = bus.close(CLOSE);
    let (frames, _) = packed::prove(&server.url(), bus, &report, seen);
    assert_eq!((report.stats.acked, report.complete), (seen.offered, true), "{report:?}");
    frames
}

#[test]
fn a_stream_that_takes_small_messages_gets_all_events_in_small_frames() {
    each_way(|batches, compression| {
        let server = server_for(batches);
        limit_stream(&server, MSG_SIZE);
        let bus = bus_with(&server.url(), packed(compression));
        let mut seen = Seen::default();
        for number in 0..20_000 {
            wait_until("there is room", || bus.has_room(1000));
            seen.publish(&bus, LOAD, number..number + 1);
        }
        let frames = prove_all_stored(&server, &bus, &seen);
        assert!(frames.iter().any(|frame| frame.events.len() > 20), "they are packed all the same");
    });
}

#[test]
fn only_events_that_are_too_large_alone_are_dropped_and_the_others_of_their_frames_are_not() {
    each_way(|batches, _| {
        let server = server_for(batches);
        limit_stream(&server, MSG_SIZE);
        let bus = bus_with(&server.url(), packed(Compression::None));
        let mut seen = Seen::default();
        for number in 0..3000 {
            let bytes = if number % 100 == 50 { 9000 } else { 64 };
            wait_until("there is room", || bus.has_room(10_000));
            assert!(seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, bytes))).is_accepted());
        }
        let report = bus.close(CLOSE);
        packed::prove(&server.url(), &bus, &report, &seen);
        let too_large = report.stats.dropped.get(Reason::TooLarge);
        assert_eq!((report.stats.acked, too_large), (2970, 30), "{report:?}");
    });
}

/// What is closed before a server was ever there is closed for none.
#[test]
fn frames_that_were_closed_before_the_limit_was_known_are_cut() {
    each_way(|batches, compression| {
        let mut server = server_for(batches);
        limit_stream(&server, MSG_SIZE);
        let url = server.url();
        server.stop();
        let bus = bus_with(&url, packed(compression));
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..5000);
        wait_until("the worker has them", || bus.stats().in_flight == 5000);
        server.restart();
        prove_all_stored(&server, &bus, &seen);
    });
}

#[test]
fn a_stream_whose_limit_is_lowered_under_load_costs_nothing_in_batches_and_no_event_as_too_large() {
    each_way(|batches, compression| {
        let server = server_for(batches);
        let bus = bus_with(&server.url(), packed(compression));
        let load = Load::start(&bus, 3, 2000);
        load.goes_on_for(Duration::from_millis(300));
        for size in [16_000, 3000, -1, 1000] {
            limit_stream(&server, size);
            load.goes_on_for(Duration::from_millis(300));
        }
        let seen = load.stop();
        let report = bus.close(CLOSE);
        packed::prove(&server.url(), &bus, &report, &seen);
        let rejected = if batches { 0 } else { report.stats.dropped.get(Reason::Rejected) };
        // One by one a small frame may be stored while a large one before it is refused.
        assert_eq!(report.stats.acked + rejected, seen.offered, "{report:?}");
    });
}

#[test]
fn a_server_whose_limit_is_lowered_in_an_outage_costs_nothing() {
    each_way(|batches, compression| {
        let mut server = server_for(batches);
        let bus = bus_with(&server.url(), packed(compression));
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..100);
        assert!(bus.flush(CLOSE).complete);
        server.pause();
        seen.publish(&bus, LOAD, 100..6000);
        wait_until("the worker has them", || bus.stats().in_flight == 5900);
        server.resume();
        server.reload("max_payload: 4096");
        seen.publish(&bus, LOAD, 6000..9000);
        prove_all_stored(&server, &bus, &seen);
    });
}

/// Nobody tells the limit, so it is found out by what is refused.
#[test]
fn a_limit_that_may_not_be_asked_for_is_found_out() {
    let server = NatsServer::builder()
        .config(
            "authorization { users: [\
             { user: me, password: me, permissions: { publish: { deny: \"$JS.API.STREAM.INFO.*\" } } }, \
             { user: test, password: test }] }\n\
             no_auth_user: test",
        )
        .start();
    let stream = stream::Config { max_message_size: MSG_SIZE, ..stream_config(STREAM, &["event.1.>"]) };
    ask(create_stream(&server.url(), stream));
    let bus = bus_with(&server.url(), |config| {
        packed(Compression::None)(config);
        let password = SecretSource::Value(Secret::new("me"));
        config.auth = Auth::User { user: "me".to_owned(), password };
    });
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..5000);
    let report = bus.close(CLOSE);
    packed::prove(&server.url(), &bus, &report, &seen);
    assert_eq!((report.stats.acked, report.complete), (seen.offered, true), "{report:?}");
}

#[test]
fn a_stream_that_holds_little_takes_what_it_has_room_for() {
    each_way(|batches, compression| {
        let server = server_for(batches);
        change_stream(&server.url(), |config| {
            (config.max_bytes, config.discard) = (20_000, stream::DiscardPolicy::New);
        });
        let bus = bus_with(&server.url(), packed(compression));
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..2000);
        wait_until("it has taken some", || bus.stats().acked > 0);
        let report = bus.close(SOON);
        packed::prove(&server.url(), &bus, &report, &seen);
        assert_eq!(report.stats.dropped.get(Reason::TooLarge), 0, "{report:?}");
    });
}

#[test]
fn events_of_a_spool_are_cut_too_whether_their_shadows_are_written_or_not() {
    each_way(|batches, compression| {
        let mut server = server_for(batches);
        limit_stream(&server, MSG_SIZE);
        let url = server.url();
        server.stop();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bus = bus_with(&url, |config| {
            packed(compression)(config);
            config.queue.when_full = WhenFull::Spool;
            config.spool.dir = Some(directory.path().join("spool"));
            config.delivery.ack_timeout = Duration::from_secs(1);
        });
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..2000);
        wait_until("the spool has the rest", || {
            seen.publish(&bus, LOAD, seen.offered..seen.offered + 100);
            bus.stats().spooled > 500
        });
        server.restart();
        wait_until("all is stored", || bus.stats().acked == seen.offered);
        prove_all_stored(&server, &bus, &seen);
    });
}
