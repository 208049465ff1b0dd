//! What the server does not take in time goes to a directory, and comes out of it in order, once: after an outage, a close, another process.

use crate::server::{NatsServer, wait_until};
use crate::support::{CLOSE, LOAD, Numbered, SOON, Seen, ask, config, prove_ledger, server_with_stream};
use jetring::audit::{Audit, Verdict};
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, Framing, Mode, WhenFull};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        let change = |config: &mut Config| {
            config.delivery.mode = mode;
            config.delivery.framing = framing;
        };
        let bus = spooling(&server.url(), &path, change);
        let mut seen = Seen::default();
        publish(&bus, &mut seen, 0..1000);
        wait_until("all is acked", || bus.stats().acked == 1000);
        server.kill();
        publish(&bus, &mut seen, 1000..4000);
        let report = bus.close(SOON);
        assert_eq!(report.stats.check(), Ok(()));
        assert_eq!(
            (report.stats.acked, report.stats.spooled),
            (1000, 3000),
            "{mode:?} {framing:?} {report:?}"
        );
        server.restart();
        let next = spooling(&server.url(), &path, change);
        wait_until("the next process has sent all", || next.stats().acked == 3000);
        let report = next.close(CLOSE);
        assert!(report.complete, "{report:?}");
        assert_eq!((report.stats.recovered, report.stats.offered), (3000, 3000));
        assert_all_in_order(&server, 4000);
        assert_sound(&audit(&server), 0);
    }
}

/// What the stream proves of all producers.
fn audit(server: &NatsServer) -> Verdict {
    ask(async {
        let config = config(&server.url());
        let mut reader = Reader::open(&config, "event.1.>", From::All, false).await.expect("it opens");
        let mut audit = Audit::new(true);
        while let Some(received) = reader.next().await.expect("it reads") {
            audit.observe_frame(&received.subject, received.unpack());
        }
        audit.verdict()
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
