//! What the server does not take in time goes to a directory, and comes out of it in order, once: after an outage, a close, another process.

use crate::server::{NatsServer, create_stream, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, Numbered, STREAM, SUBJECTS, Seen, ask, config, prove_ledger, server_with_stream,
};
use jetring::audit::{Audit, Ending, Verdict};
use jetring::reader::{From, Reader};
use jetring::{Bus, Compression, Config, Framing, Mode, Reason, SpoolFull, SpoolSync, WhenFull};
use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a close gets that cannot deliver: most of it goes by in waiting for the server, and the rest must do for a busy disk.
const LAYING_DOWN: Duration = Duration::from_secs(3);

/// A directory that is not there yet, in one that goes with the test.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    (parent, path)
}

/// Memory for a few hundred events, and a spool.
fn spooling(url: &str, directory: &Path, change: impl FnOnce(&mut Config)) -> Bus {
    let mut config = config(url);
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 1 << 10;
    config.queue.rings = jetring::Rings::Count(NonZeroUsize::MIN);
    config.queue.when_full = WhenFull::Spool;
    config.delivery.max_in_flight = 256;
    config.delivery.max_in_flight_bytes = 256 << 10;
    config.delivery.ack_timeout = Duration::from_secs(1);
    config.spool.dir = Some(directory.to_owned());
    change(&mut config);
    Bus::start(config).expect("the configuration is valid")
}

/// Publishes numbered events without losing one for want of room in a ring.
fn publish(bus: &Bus, seen: &mut Seen, numbers: std::ops::Range<u64>) {
    for number in numbers {
        while !bus.has_room(200) {
            std::thread::yield_now();
        }
        seen.call(|| bus.publish(LOAD, &Numbered::new(0, number)));
    }
}

fn in_this_way(mode: Mode, framing: Framing) -> impl Fn(&mut Config) + Copy {
    move |config| {
        config.delivery.mode = mode;
        config.delivery.framing = framing;
    }
}

/// The ways of sending that a bus may choose from.
fn ways() -> [(Mode, Framing); 3] {
    [(Mode::Async, Framing::Plain), (Mode::Auto, Framing::Plain), (Mode::Auto, Framing::Packed)]
}

#[test]
fn an_outage_that_memory_does_not_last_for_costs_nothing() {
    for (mode, framing) in ways() {
        let mut server = server_with_stream();
        let (_parent, path) = directory();
        let bus = spooling(&server.url(), &path, |config| {
            config.delivery.mode = mode;
            config.delivery.framing = framing;
        });
        let mut seen = Seen::default();
        publish(&bus, &mut seen, 0..2000);
        server.kill();
        publish(&bus, &mut seen, 2000..12_000);
        wait_until("most of it is on disk", || {
            assert_eq!(bus.stats().check(), Ok(()));
            bus.stats().spooled > 9000
        });
        server.restart();
        publish(&bus, &mut seen, 12_000..14_000);
        let flushed = bus.flush(CLOSE);
        assert!(flushed.complete, "{mode:?} {framing:?} {flushed:?}");
        publish(&bus, &mut seen, 14_000..15_000);
        let report = bus.close(CLOSE);
        prove_ledger(&report, &seen);
        assert_eq!((report.stats.acked, report.stats.spooled), (15_000, 0), "{mode:?} {framing:?}");
        assert_all_in_order(&server, 15_000);
        assert_sound(&audit(&server), 0);
    }
}

#[test]
fn what_a_close_leaves_the_next_process_sends() {
    for (mode, framing) in ways() {
        let mut server = server_with_stream();
        let (_parent, path) = directory();
        let change = in_this_way(mode, framing);
        let bus = spooling(&server.url(), &path, change);
        let mut seen = Seen::default();
        publish(&bus, &mut seen, 0..1000);
        wait_until("all is acked", || bus.stats().acked == 1000);
        server.kill();
        publish(&bus, &mut seen, 1000..4000);
        let report = bus.close(LAYING_DOWN);
        assert_eq!(report.stats.check(), Ok(()));
        assert_eq!(
            (report.stats.acked, report.stats.spooled),
            (1000, 3000),
            "{mode:?} {framing:?} {report:?}"
        );
        server.restart();
        let next = spooling(&server.url(), &path, change);
        wait_until("the next process has sent all", || sends_all_of(&next, 3000));
        assert!(next.close(CLOSE).complete);
        assert_all_in_order(&server, 4000);
        assert_sound(&audit(&server), 0);
    }
}

#[test]
fn small_events_that_waited_in_frames_are_all_in_the_spool_and_all_sent() {
    let lz4 = if cfg!(feature = "lz4") { Compression::Lz4 } else { Compression::None };
    for (compression, bytes) in [(Compression::None, 0), (lz4, 8), (Compression::None, 60)] {
        let mut server = server_with_stream();
        server.kill();
        let (_parent, path) = directory();
        let change = |config: &mut Config| {
            config.delivery.framing = Framing::Packed;
            config.delivery.compression = compression;
            // A window in which thousands of small events lie in frames when the spool becomes active.
            config.delivery.max_in_flight = 4096;
            config.delivery.max_in_flight_bytes = 8 << 20;
        };
        let bus = spooling(&server.url(), &path, change);
        let mut seen = Seen::default();
        for number in 0..20_000 {
            while !bus.has_room(200) {
                std::thread::yield_now();
            }
            seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, bytes)));
        }
        assert_eq!(bus.close(LAYING_DOWN).stats.spooled, 20_000);
        let verdict = jetring::spool::verify(&path).expect("it can be read");
        assert!(verdict.is_sound() && verdict.messages >= 20_000, "{verdict:?}");
        server.restart();
        let next = spooling(&server.url(), &path, change);
        wait_until("the next process has sent all", || sends_all_of(&next, 20_000));
        assert!(next.close(CLOSE).complete);
        assert_all_in_order(&server, 20_000);
        assert_sound(&audit(&server), 0);
    }
}

/// Whether a bus has sent so many events that another one has left, and its last reports.
fn sends_all_of(bus: &Bus, events: u64) -> bool {
    let stats = bus.stats();
    assert_eq!(stats.check(), Ok(()));
    (events + 1..events + 10).contains(&stats.recovered) && stats.acked == stats.recovered
}

#[test]
fn each_partition_has_a_spool_of_its_own() {
    let mut server = NatsServer::start();
    for partition in 0..2 {
        let subjects = format!("event.1.{partition}.>");
        ask(create_stream(&server.url(), stream_config(&format!("{STREAM}-{partition}"), &[&subjects])));
    }
    let (_parent, path) = directory();
    let change = |config: &mut Config| {
        config.partitions = 2;
        config.queue.capacity = 128 << 10;
    };
    server.kill();
    let bus = spooling(&server.url(), &path, change);
    for number in 0..4000 {
        let key = [(number % 7) as u8];
        while !bus.has_room_keyed(key, 200) {
            std::thread::yield_now();
        }
        assert!(bus.publish_keyed(LOAD, key, &Numbered::new(0, number)).is_accepted());
    }
    assert_eq!(bus.close(LAYING_DOWN).stats.spooled, 4000);
    assert!(path.join("0/META").exists() && path.join("1/META").exists());
    server.restart();
    let next = spooling(&server.url(), &path, change);
    wait_until("both have sent what was left", || sends_all_of(&next, 4000));
    assert!(next.close(CLOSE).complete);
}

/// The stream remembers ids for a moment only, so that nothing but a look into it can tell what is stored.
fn forgetful(server: &NatsServer) -> Duration {
    let window = Duration::from_millis(100);
    let config = async_nats::jetstream::stream::Config {
        duplicate_window: window,
        ..stream_config(STREAM, &[SUBJECTS])
    };
    ask(create_stream(&server.url(), config));
    window
}

#[test]
fn what_was_on_its_way_when_the_process_ended_is_looked_for_in_the_stream() {
    for (mode, framing) in ways() {
        let server = NatsServer::start();
        let window = forgetful(&server);
        let (_parent, path) = directory();
        let change = in_this_way(mode, framing);
        let bus = spooling(&server.url(), &path, change);
        let mut seen = Seen::default();
        publish(&bus, &mut seen, 0..1000);
        wait_until("all is acked", || bus.stats().acked == 1000);
        // What is sent from here on waits in the socket, and is stored when nobody waits for it any more.
        server.pause();
        publish(&bus, &mut seen, 1000..3000);
        let report = bus.close(LAYING_DOWN);
        assert_eq!(
            (report.stats.acked, report.stats.spooled),
            (1000, 2000),
            "{mode:?} {framing:?} {report:?}"
        );
        server.resume();
        std::thread::sleep(2 * window);
        let stored = numbers(&server).len() as u64;
        assert!(stored > 1000, "nothing was on its way: {stored}");
        let next = spooling(&server.url(), &path, change);
        wait_until("the next process has sent the rest", || sends_all_of(&next, 2000));
        assert!(next.close(CLOSE).complete);
        assert_all_in_order(&server, 3000);
        assert_sound(&audit(&server), 0);
    }
}

/// Events of which two thousand fill the smallest spool.
fn publish_large(bus: &Bus, seen: &mut Seen, numbers: std::ops::Range<u64>) {
    for number in numbers {
        while !bus.has_room(9 << 10) {
            std::thread::yield_now();
        }
        seen.call(|| bus.publish(LOAD, &Numbered::with_text(number, 8 << 10)));
    }
}

#[test]
fn a_full_spool_drops_what_it_is_told_to_drop_and_every_event_of_it_is_declared() {
    for when_full in [SpoolFull::DropNewest, SpoolFull::DropOldest] {
        let mut server = server_with_stream();
        let (_parent, path) = directory();
        let bus = spooling(&server.url(), &path, |config| {
            config.queue.capacity = 256 << 10;
            config.queue.max_event = 16 << 10;
            config.spool.max_bytes = 16 << 20;
            config.spool.sync = SpoolSync::None;
            config.spool.when_full = when_full;
        });
        let mut seen = Seen::default();
        publish_large(&bus, &mut seen, 0..100);
        wait_until("all is acked", || bus.stats().acked == 100);
        server.kill();
        publish_large(&bus, &mut seen, 100..3100);
        // What is in flight then is what the window holds.
        wait_until("nothing is on its way to the disk", || {
            let stats = bus.stats();
            stats.queued == 0 && stats.in_flight < 40 && stats.spooled > 0
        });
        assert_eq!(bus.stats().check(), Ok(()));
        server.restart();
        wait_until("all has met its fate", || bus.stats().held() == 0);
        let report = bus.close(CLOSE);
        let lost = report.stats.dropped.get(Reason::SpoolFull);
        assert!((500..2500).contains(&lost), "{report:?}");
        assert_eq!((report.stats.acked, report.stats.dropped.total()), (3100 - lost, lost), "{report:?}");
        let numbers = numbers(&server);
        assert!(numbers.is_sorted() && numbers.len() as u64 == 3100 - lost);
        let kept = match when_full {
            SpoolFull::DropOldest => numbers.ends_with(&(2100..3100).collect::<Vec<_>>()),
            _ => numbers.starts_with(&(0..1000).collect::<Vec<_>>()),
        };
        assert!(kept, "{when_full:?} {:?}", first_odd(&numbers));
        let verdict = audit(&server);
        assert_sound(&verdict, lost);
    }
}

#[test]
fn what_a_process_lost_that_never_had_a_server_is_declared_by_the_next() {
    for (mode, framing) in ways() {
        let mut server = server_with_stream();
        server.kill();
        let (_parent, path) = directory();
        let change = in_this_way(mode, framing);
        let bus = spooling(&server.url(), &path, change);
        let mut seen = Seen::default();
        publish(&bus, &mut seen, 0..1000);
        for number in 1000..1100 {
            // Larger than an event may be, in the middle of others and at the end.
            assert!(!bus.publish(LOAD, &Numbered::with_text(number, 8 << 10)).is_accepted());
            if number < 1050 {
                publish(&bus, &mut seen, number..number + 1);
            }
        }
        let report = bus.close(LAYING_DOWN);
        assert_eq!((report.stats.spooled, report.stats.dropped.get(Reason::TooLarge)), (1050, 100));
        // One has nothing to say, and adds nothing; the other lays down its own reports, and not those of the first again.
        let idle = spooling(&server.url(), &path, change).close(LAYING_DOWN);
        assert_eq!((idle.stats.offered, idle.stats.recovered), (idle.stats.spooled, idle.stats.spooled));
        let busy = spooling(&server.url(), &path, change);
        wait_until("it is open", || busy.stats().recovered == idle.stats.recovered);
        publish(&busy, &mut seen, 1100..1101);
        assert_eq!(busy.close(LAYING_DOWN).stats.spooled, idle.stats.spooled + 1);

        server.restart();
        let next = spooling(&server.url(), &path, change);
        wait_until("the next process has sent all", || {
            next.stats().recovered > 0 && next.stats().held() == 0
        });
        let report = next.close(CLOSE);
        assert_eq!(
            (report.stats.offered, report.stats.acked),
            (report.stats.recovered, report.stats.recovered)
        );
        let numbers = numbers(&server);
        assert!(numbers.is_sorted() && numbers.len() == 1051, "{:?}", first_odd(&numbers));
        let audit = observe(&server);
        assert_sound(&audit.verdict(), 100);
        let endings: Vec<_> = audit.processes().map(|process| process.ending(chrono::Utc::now())).collect();
        assert_eq!(endings, [Ending::Stopped; 3]);
        let reports = reports(&server);
        let distinct: BTreeSet<_> = reports.iter().collect();
        assert_eq!(distinct.len(), reports.len(), "{reports:?}");
        // The events of each process, and one or more gaps of the first.
        assert!((7..15).contains(&reports.len()), "{reports:?}");
    }
}

#[test]
fn what_a_full_spool_has_lost_is_declared_also_by_a_process_that_never_had_a_server() {
    for when_full in [SpoolFull::DropNewest, SpoolFull::DropOldest] {
        let mut server = server_with_stream();
        server.kill();
        let (_parent, path) = directory();
        let small = |config: &mut Config| {
            config.queue.capacity = 256 << 10;
            config.queue.max_event = 16 << 10;
            config.spool.max_bytes = 16 << 20;
            config.spool.sync = SpoolSync::None;
            config.spool.when_full = when_full;
        };
        let bus = spooling(&server.url(), &path, small);
        let mut seen = Seen::default();
        publish_large(&bus, &mut seen, 0..3000);
        let report = bus.close(LAYING_DOWN);
        let lost = report.stats.dropped.total();
        assert!(lost > 500 && report.stats.spooled + lost == 3000, "{when_full:?} {report:?}");

        server.restart();
        let next = spooling(&server.url(), &path, small);
        wait_until("all is sent", || next.stats().recovered > 0 && next.stats().held() == 0);
        let sent = next.close(CLOSE).stats;
        assert_eq!(
            (numbers(&server).len() as u64, sent.dropped.total()),
            (3000 - lost, 0),
            "{when_full:?} {report:?} {sent:?}"
        );
        assert_sound(&audit(&server), lost);
    }
}

#[test]
fn what_a_damaged_spool_has_lost_is_counted_and_the_rest_is_sent() {
    let mut server = server_with_stream();
    server.kill();
    let (_parent, path) = directory();
    let bus = spooling(&server.url(), &path, |_| {});
    let mut seen = Seen::default();
    publish(&bus, &mut seen, 0..5000);
    assert_eq!(bus.close(LAYING_DOWN).stats.spooled, 5000);
    let segment = path.join("0000000000000001.seg");
    let mut bytes = fs::read(&segment).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2000].fill(0x55);
    fs::write(&segment, bytes).expect("it can be written");
    server.restart();
    let next = spooling(&server.url(), &path, |_| {});
    wait_until("all has met its fate", || next.stats().recovered > 0 && next.stats().held() == 0);
    let stats = next.close(CLOSE).stats;
    let lost = stats.dropped.get(Reason::SpoolFull);
    assert!((1..5000).contains(&lost), "{stats:?}");
    assert_eq!((stats.offered, stats.check()), (stats.recovered, Ok(())), "{stats:?}");
    let numbers = numbers(&server);
    assert!(numbers.is_sorted() && numbers.len() as u64 == 5000 - lost);
    assert_sound(&audit(&server), lost);
}

#[test]
fn a_directory_that_is_removed_is_made_anew_and_what_was_in_it_is_counted() {
    let mut server = server_with_stream();
    let (_parent, path) = directory();
    let bus = spooling(&server.url(), &path, |_| {});
    let mut seen = Seen::default();
    server.kill();
    publish(&bus, &mut seen, 0..5000);
    wait_until("most of it is on disk", || bus.stats().spooled > 4000);
    fs::remove_dir_all(&path).expect("it can be removed");
    publish(&bus, &mut seen, 5000..8000);
    wait_until("the rest is on disk", || {
        bus.stats().dropped.get(Reason::SpoolFull) > 0 && bus.stats().spooled > 2000
    });
    assert_eq!(bus.stats().check(), Ok(()));
    server.restart();
    wait_until("all has met its fate", || bus.stats().held() == 0);
    let stats = bus.close(CLOSE).stats;
    let lost = stats.dropped.get(Reason::SpoolFull);
    assert_eq!((stats.acked, stats.offered, stats.check()), (8000 - lost, 8000, Ok(())), "{stats:?}");
    let numbers = numbers(&server);
    assert!(numbers.is_sorted() && numbers.len() as u64 == 8000 - lost, "{} {lost}", numbers.len());
}

#[test]
fn a_directory_in_use_is_no_spool_for_a_second_bus_until_it_is_free() {
    let mut server = server_with_stream();
    let (_parent, path) = directory();
    let first = spooling(&server.url(), &path, |_| {});
    wait_until("the first has it", || path.join("META").exists() && first.is_connected());
    server.kill();
    let second =
        spooling(&server.url(), &path, |config| config.delivery.ack_timeout = Duration::from_millis(200));
    let mut seen = Seen::default();
    // More than the second can hold.
    for number in 0..20_000 {
        seen.call(|| second.publish(LOAD, &Numbered::new(0, number)));
    }
    let stats = second.stats();
    assert_eq!((stats.spooled, stats.check()), (0, Ok(())));
    assert!(stats.dropped.get(Reason::QueueFull) > 0, "{stats:?}");
    server.restart();
    wait_until("what it held in memory is delivered", || second.stats().held() == 0);
    assert!(first.close(CLOSE).complete);
    server.kill();
    for number in 20_000..21_000 {
        while !second.has_room(200) {
            std::thread::yield_now();
        }
        seen.call(|| second.publish(LOAD, &Numbered::new(0, number)));
    }
    wait_until("the second has a spool now", || second.stats().spooled > 0);
    server.restart();
    wait_until("all has met its fate", || second.stats().held() == 0);
    let report = second.close(CLOSE);
    prove_ledger(&report, &seen);
    assert!(numbers(&server).is_sorted());
    let verdict = audit(&server);
    assert_sound(&verdict, seen.dropped(Reason::QueueFull));
}

#[test]
fn events_do_not_wait_behind_what_another_process_has_left() {
    let mut server = server_with_stream();
    server.kill();
    let (_parent, path) = directory();
    let bus = spooling(&server.url(), &path, |_| {});
    let mut seen = Seen::default();
    publish(&bus, &mut seen, 0..30_000);
    assert_eq!(bus.close(LAYING_DOWN).stats.spooled, 30_000);
    server.restart();
    let next = spooling(&server.url(), &path, |_| {});
    wait_until("the backlog is on its way", || next.stats().acked > 0);
    publish(&next, &mut Seen::default(), 100_000..100_100);
    wait_until("all has met its fate", || next.stats().offered > 30_100 && next.stats().held() == 0);
    assert!(next.close(CLOSE).complete);
    let numbers = numbers(&server);
    let last_old = numbers.iter().rposition(|&number| number == 29_999).expect("it is there");
    let first_new = numbers.iter().position(|&number| number == 100_000).expect("it is there");
    assert!(first_new < last_old, "the new one stands at {first_new}, the end of the old ones at {last_old}");
    assert_eq!(numbers.len(), 30_100);
    assert_sound(&audit(&server), 0);
}

/// What the stream proves of all producers.
fn audit(server: &NatsServer) -> Verdict {
    observe(server).verdict()
}

/// All that the stream has.
fn observe(server: &NatsServer) -> Audit {
    ask(async {
        let config = config(&server.url());
        let mut reader = Reader::open(&config, "event.1.>", From::All, false).await.expect("it opens");
        let mut audit = Audit::new(true);
        while let Some(received) = reader.next().await.expect("it reads") {
            audit.observe_frame(&received.subject, received.unpack());
        }
        audit
    })
}

/// Nothing is there twice, out of order, or missing but what was declared to be.
#[track_caller]
fn assert_sound(verdict: &Verdict, declared: u64) {
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!((verdict.duplicates, verdict.lost_declared), (0, declared), "{verdict:?}");
}

/// The stream has these events, each once, in order.
#[track_caller]
fn assert_all_in_order(server: &NatsServer, events: u64) {
    let numbers = numbers(server);
    assert!(
        numbers.iter().copied().eq(0..events),
        "{} of {events}: {:?}",
        numbers.len(),
        first_odd(&numbers)
    );
}

fn first_odd(numbers: &[u64]) -> Option<(usize, &[u64])> {
    let at = numbers.iter().enumerate().position(|(index, &number)| index as u64 != number)?;
    Some((at, &numbers[at.saturating_sub(2)..numbers.len().min(at + 4)]))
}

/// The numbers of all events in the stream, in its order.
fn numbers(server: &NatsServer) -> Vec<u64> {
    ask(async {
        let mut reader =
            Reader::open(&config(&server.url()), "event.1.load", From::All, false).await.expect("it opens");
        let mut numbers = Vec::new();
        while let Some(received) = reader.next().await.expect("it reads") {
            for event in &received.unpack().expect("it is ours") {
                let envelope = jetring::envelope::Envelope::parse(event).expect("it is ours");
                let event: Numbered = serde_json::from_str(envelope.body.get()).expect("it is ours");
                numbers.push(event.number);
            }
        }
        numbers
    })
}

/// Producer and number of each report in the stream.
fn reports(server: &NatsServer) -> Vec<(String, u64)> {
    ask(async {
        let mut reader =
            Reader::open(&config(&server.url()), "event.1._bus.>", From::All, false).await.expect("it opens");
        let mut reports = Vec::new();
        while let Some(received) = reader.next().await.expect("it reads") {
            let envelope = jetring::envelope::Envelope::parse(&received.payload).expect("it is ours");
            let (producer, seq) = envelope.stamp().expect("it has a stamp");
            reports.push((producer.to_owned(), seq));
        }
        reports
    })
}
