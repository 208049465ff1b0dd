//! Packed frames on a real server: all that is promised of events holds of those that travel together.
//!
//! The frames are read with the plain client and unpacked here by their headers, as any reader would; then the proof is the same as
//! for single messages.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

use async_nats::jetstream::stream;
use jetring::frame::{COUNT, unpack};
use jetring::{Bus, Compression, Config, Framing, Reason, Rings};

use crate::server::{NatsServer, create_stream, stored, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, Load, NO_SERVER, Numbered, Proof, SOON, STREAM, Seen, ask, bus_with, prove_ledger,
    prove_messages, server_with_stream,
};
use jetring::Report;

pub(crate) const COMPRESSIONS: [(Compression, Option<&str>); 3] =
    [(Compression::None, None), (Compression::Lz4, Some("lz4")), (Compression::Zstd, Some("zstd"))];

/// A server whose stream takes fast-ingest batches or does not, which is how the engine is chosen.
pub(crate) fn server_for(batches: bool) -> NatsServer {
    let server = NatsServer::start();
    let stream = stream::Config { allow_batch_publish: batches, ..stream_config(STREAM, &["event.1.>"]) };
    ask(create_stream(&server.url(), stream));
    server
}

/// How long the server is away.
const AWAY: Duration = Duration::from_millis(1500);
const A_WHILE: Duration = Duration::from_millis(400);

pub(crate) fn packed(compression: Compression) -> impl FnOnce(&mut Config) {
    move |config| {
        config.delivery.framing = Framing::Packed;
        config.delivery.compression = compression;
    }
}

/// A frame as it is stored.
pub(crate) struct Stored {
    subject: String,
    encoding: Option<String>,
    pub(crate) bytes: usize,
    pub(crate) events: Vec<Vec<u8>>,
}

/// Sequence, subject and bytes of each event, as if it had been a message.
type Messages = Vec<(u64, String, Vec<u8>)>;

/// Reads the stream: the messages that are frames, and the events of all messages.
fn read(url: &str) -> (Vec<Stored>, Messages) {
    let (mut frames, mut messages) = (Vec::new(), Vec::new());
    for (sequence, message) in ask(stored(url, STREAM)) {
        let header = |name: &str| message.headers.as_ref()?.get(name).map(|value| value.as_str());
        let frame = unpack(header, &message.payload).unwrap_or_else(|error| panic!("{sequence}: {error}"));
        let (subject, events) = (message.subject.to_string(), frame.iter().map(<[u8]>::to_vec));
        messages.extend(events.clone().map(|event| (sequence, subject.clone(), event)));
        if frame.is_packed() {
            assert_eq!(header("Content-Type"), Some("application/x-ndjson"));
            assert_eq!(header(COUNT), Some(frame.len().to_string().as_str()));
            let encoding = header("Content-Encoding").map(str::to_owned);
            frames.push(Stored { subject, encoding, bytes: message.payload.len(), events: events.collect() });
        }
    }
    (frames, messages)
}

#[track_caller]
pub(crate) fn prove(url: &str, bus: &Bus, report: &Report, seen: &Seen) -> (Vec<Stored>, Proof) {
    let (frames, messages) = read(url);
    (frames, prove_messages(&messages, bus.process(), report, seen))
}

#[test]
fn frames_of_each_compression_hold_every_event_once_and_in_order() {
    const EVENTS_EACH: u64 = 5_000;
    for ((compression, encoding), batches) in
        COMPRESSIONS.into_iter().flat_map(|way| [(way, false), (way, true)])
    {
        let server = server_for(batches);
        let bus = bus_with(&server.url(), |config| {
            packed(compression)(config);
            config.queue.capacity = 64 << 20;
        });
        let publish = |thread| {
            let (mut seen, topic) = (Seen::default(), bus.topic(LOAD).expect("a valid name"));
            for number in 0..EVENTS_EACH {
                seen.call(|| topic.publish(&Numbered::new(thread, number)));
            }
            seen
        };
        let seen = thread::scope(|scope| {
            let threads = [0, 1, 2].map(|thread| scope.spawn(move || publish(thread)));
            let seen = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            seen.fold(Seen::default(), Seen::merge)
        });
        let report = bus.close(CLOSE);
        let (frames, proof) = prove(&server.url(), &bus, &report, &seen);
        assert_eq!((report.stats.acked, report.complete), (3 * EVENTS_EACH, true), "{compression:?}");
        assert!(proof.gaps.is_empty() && proof.started.is_some() && proof.stopped.is_some());
        let events: usize = frames.iter().map(|frame| frame.events.len()).sum();
        assert_eq!(events as u64, report.stats.acked, "every event is in a frame");
        assert!(frames.len() * 20 < events, "{} frames are too many", frames.len());
        let is_compressed = |frame: &&Stored| frame.encoding.as_deref() == encoding;
        assert!(frames.iter().filter(is_compressed).count() * 10 > frames.len() * 9, "{compression:?}");
    }
}

#[test]
fn an_event_that_nobody_joins_does_not_wait_for_company() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| {
        packed(Compression::Lz4)(config);
        // Far longer than the test waits.
        config.delivery.linger = Duration::from_secs(1);
        config.delivery.ack_timeout = Duration::from_secs(60);
    });
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1);
    wait_until("the event is acknowledged", || bus.stats().acked == 1);
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_flush_sends_what_is_in_open_frames() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), packed(Compression::None));
    let mut seen = Seen::default();
    for round in 0..20 {
        seen.publish(&bus, LOAD, round * 10..round * 10 + 10);
        let report = bus.flush(CLOSE);
        assert_eq!((report.complete, report.stats.acked), (true, seen.offered));
    }
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_server_that_is_killed_in_mid_load_and_restarted_costs_nothing() {
    for (compression, batches) in [
        (Compression::None, true),
        (Compression::Lz4, false),
        (Compression::Lz4, true),
        (Compression::Zstd, true),
    ] {
        let mut server = server_for(batches);
        let url = server.url();
        let bus = bus_with(&url, packed(compression));
        let load = Load::start(&bus, 3, 4000);
        for _ in 0..2 {
            load.goes_on_for(A_WHILE);
            server.kill();
            load.goes_on_for(AWAY);
            server.restart();
            load.flows_again();
        }
        load.goes_on_for(A_WHILE);
        let seen = load.stop();
        let report = bus.close(CLOSE);
        let (frames, _) = prove(&url, &bus, &report, &seen);
        assert_eq!((report.stats.acked, report.complete), (seen.offered, true), "{report:?}");
        // What gathers in an outage is packed tightly.
        assert!(frames.iter().any(|frame| frame.events.len() > 100), "{compression:?}");
    }
}

#[test]
fn frames_keep_to_what_the_server_takes_and_an_event_that_is_too_large_goes_alone() {
    const MAX_PAYLOAD: usize = 4096;
    for (compression, _) in COMPRESSIONS {
        let server = NatsServer::builder().config(format!("max_payload: {MAX_PAYLOAD}")).start();
        let url = server.url();
        ask(create_stream(&url, stream_config(STREAM, &["event.1.>"])));
        let bus = bus_with(&url, packed(compression));
        wait_until("the bus is connected", || bus.is_connected());
        let mut seen = Seen::default();
        let (mut number, mut state) = (0, 7u64);
        // Texts that hardly compress, of all lengths around what fits.
        for len in (0..400).step_by(7).chain((3500..8000).step_by(31)).chain((0..400).step_by(11)) {
            let mut letter = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                char::from(b'0' + (state >> 58) as u8)
            };
            let text: String = (0..len).map(|_| letter()).collect();
            let event = Numbered { thread: 0, number, text };
            assert!(seen.call(|| bus.publish(LOAD, &event)).is_accepted());
            number += 1;
        }
        let report = bus.close(CLOSE);
        let (frames, proof) = prove(&url, &bus, &report, &seen);
        let too_large = report.stats.dropped.get(Reason::TooLarge);
        assert_eq!(report.stats.acked + too_large, seen.offered, "{report:?}");
        let largest = proof.events.iter().map(|(_, event)| event.text.len()).max().expect("there are events");
        assert!(
            too_large > 0 && largest > 3500,
            "{too_large} were too large, and none larger than {largest}"
        );
        let full = frames.iter().map(|frame| frame.bytes).max().expect("there are frames");
        assert!((MAX_PAYLOAD / 2..MAX_PAYLOAD).contains(&full), "{full}");
    }
}

#[test]
fn a_frame_on_a_subject_that_the_stream_does_not_take_drops_all_its_events_and_no_others() {
    let server = NatsServer::start();
    let url = server.url();
    ask(create_stream(&url, stream_config(STREAM, &["event.1.load", "event.1._bus.>"])));
    let bus = bus_with(&url, packed(Compression::None));
    let mut seen = Seen::default();
    for round in 0..50 {
        seen.publish(&bus, LOAD, round * 20..round * 20 + 20);
        seen.publish(&bus, "elsewhere", 0..3);
    }
    let report = bus.close(CLOSE);
    let (_, proof) = prove(&url, &bus, &report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::NoStream), 150, "{report:?}");
    assert_eq!(report.stats.acked, 1000);
    let declared = proof.gaps.iter().flat_map(|gap| &gap.counts);
    assert!(
        declared.clone().all(|loss| (loss.name.as_str(), loss.reason.as_str()) == ("elsewhere", "no_stream"))
    );
    assert_eq!(declared.map(|loss| loss.count).sum::<u64>(), 150);
}

#[test]
fn what_never_left_is_dropped_with_the_frames_that_held_it() {
    let bus = bus_with(NO_SERVER, packed(Compression::Lz4));
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    wait_until("the worker has them", || bus.stats().in_flight == 1000);
    let report = bus.close(SOON);
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::Expired), 1000, "{report:?}");
}

#[test]
fn events_of_many_names_have_frames_of_their_own_each_in_order() {
    /// More than there are frames open at a time.
    const NAMES: u64 = 400;
    const ROUNDS: u64 = 30;
    let server = server_with_stream();
    let url = server.url();
    let bus = bus_with(&url, |config| {
        packed(Compression::Zstd)(config);
        config.queue.rings = Rings::Count(NonZeroUsize::MIN);
    });
    let mut seen = Seen::default();
    for number in 0..ROUNDS {
        for name in 0..NAMES {
            // Twice as often for the first of them.
            let times = if name < 10 { 2 } else { 1 };
            for again in 0..times {
                let event = Numbered::new(name, number * times + again);
                seen.call(|| bus.publish(&format!("name{name}"), &event));
            }
        }
    }
    let report = bus.close(CLOSE);
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.acked, ROUNDS * (NAMES + 10), "{report:?}");
    let (frames, messages) = read(&url);
    let mut last: HashMap<String, u64> = HashMap::new();
    let mut events = 0;
    for frame in &frames {
        for event in &frame.events {
            let envelope = jetring::envelope::Envelope::parse(event).expect("an envelope");
            let body: Numbered = serde_json::from_str(envelope.body.get()).expect("our own body");
            assert_eq!(frame.subject, format!("event.1.name{}", body.thread));
            let before = last.insert(frame.subject.clone(), body.number);
            assert!(before.is_none_or(|before| before + 1 == body.number), "{body:?} after {before:?}");
            events += 1;
        }
    }
    assert_eq!(events, report.stats.acked);
    assert!(messages.len() as u64 >= events);
}
