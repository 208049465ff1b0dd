//! The number of partitions changes while events wait in a spool: they are found, and sent to the streams that there are now.

use crate::server::{NatsServer, create_stream, messages, stream_config, wait_until};
use crate::support::{CLOSE, LOAD, NO_SERVER, Numbered, Seen, ask};
use jetring::envelope::Envelope;
use jetring::spool::leftovers;
use jetring::{Bus, Config, Endpoint, Stream, WhenFull};
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

const THREADS: u64 = 4;
const EVENTS: u64 = 100;
const LAYING_DOWN: Duration = Duration::from_secs(2);

fn spooling(url: &str, directory: &Path, chain_id: u64, partitions: usize) -> Config {
    let mut config = Config::new(url, &format!("s{chain_id}"), chain_id).expect("it is valid");
    config.partitions = partitions;
    config.queue.when_full = WhenFull::Spool;
    config.delivery.ack_timeout = Duration::from_secs(1);
    config.spool.dir = Some(directory.to_owned());
    config
}

fn make_streams(url: &str, config: &Config) {
    for Stream { name, subjects, .. } in config.streams() {
        ask(create_stream(url, stream_config(name.as_str(), &[&subjects.all()])));
    }
}

/// Each thread publishes numbered events.
fn publish(bus: &Bus, numbers: std::ops::Range<u64>) -> Seen {
    let mut all = Seen::default();
    thread::scope(|scope| {
        let publish = |thread| {
            let mut seen = Seen::default();
            for number in numbers.clone() {
                while !bus.has_room(200) {
                    thread::yield_now();
                }
                seen.call(|| bus.publish(LOAD, &Numbered::new(thread, number)));
            }
            seen
        };
        let mut threads = Vec::new();
        for thread in 0..THREADS {
            threads.push(scope.spawn(move || publish(thread)));
        }
        for thread in threads {
            let seen = thread.join().expect("it does not panic");
            assert_eq!(seen.accepted, seen.offered);
            all.offered += seen.offered;
        }
    });
    all
}

/// The events of each thread in these streams, with the stream that each is in, in the order of that.
fn stored(url: &str, streams: &[Stream]) -> BTreeMap<u64, Vec<(usize, u64)>> {
    let mut threads = BTreeMap::<u64, Vec<_>>::new();
    for (index, Stream { name, subjects, .. }) in streams.iter().enumerate() {
        for (_, subject, payload) in ask(messages(url, name.as_str())) {
            if subject == subjects.subject(LOAD) {
                let envelope = Envelope::parse(&payload).expect("it is ours");
                let event: Numbered = serde_json::from_str(envelope.body.get()).expect("it is ours");
                threads.entry(event.thread).or_default().push((index, event.number));
            } else {
                assert!(subject.starts_with(&subjects.subject("_bus.")), "{subject} in {name}");
            }
        }
    }
    threads
}

fn waits(config: &Config) -> u64 {
    leftovers(config).expect("it can be read").iter().map(|left| left.events).sum()
}

#[test]
fn whatever_the_number_of_partitions_was_and_is_what_waits_is_sent_once_and_in_order() {
    let server = NatsServer::start();
    let changes = (1..=4).flat_map(|from| (1..=4).map(move |to| (from, to)));
    for (from, to) in changes.filter(|(from, to)| from != to) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let before = spooling(NO_SERVER, directory.path(), from * 10 + to, from as usize);
        let bus = Bus::start(before).expect("it is valid");
        let seen = publish(&bus, 0..EVENTS);
        let report = bus.close(LAYING_DOWN);
        assert_eq!((report.stats.spooled, seen.offered), (THREADS * EVENTS, THREADS * EVENTS), "{report:?}");

        let now = spooling(&server.url(), directory.path(), from * 10 + to, to as usize);
        let left = waits(&now);
        let all_are_left = from == 1 || to == 1;
        assert!(if all_are_left { left >= seen.offered } else { (left > 0) == (to < from) }, "{left}");
        make_streams(&server.url(), &now);
        let bus = Bus::start(now.clone()).expect("it is valid");
        // Reports of the bus that wrote them are among them.
        wait_until("all is sent", || {
            let stats = bus.stats();
            stats.recovered >= seen.offered && stats.held() == 0
        });
        let own = publish(&bus, EVENTS..EVENTS + 5);
        let report = bus.close(CLOSE);
        assert_eq!(report.stats.acked, report.stats.offered, "{from} to {to}: {report:?}");
        assert_eq!(report.stats.offered, report.stats.recovered + own.offered);
        let threads = stored(&server.url(), &now.streams());
        for (thread, events) in &threads {
            let of = |range: std::ops::Range<u64>| {
                let events = events.iter().filter(move |(_, number)| range.contains(number));
                events.copied().unzip::<_, _, Vec<usize>, Vec<u64>>()
            };
            let (streams, numbers) = of(0..EVENTS);
            assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "{from} to {to}, thread {thread}");
            assert!(streams.windows(2).all(|pair| pair[0] == pair[1]), "in one stream: {streams:?}");
            assert_eq!(of(EVENTS..u64::MAX).1, (EVENTS..EVENTS + 5).collect::<Vec<_>>());
        }
        assert_eq!((threads.len() as u64, waits(&now)), (THREADS, 0), "{from} to {to}");
    }
}

#[test]
fn what_the_former_stream_has_is_not_sent_to_another_one() {
    let server = NatsServer::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let before = spooling(&server.url(), directory.path(), 1, 3);
    make_streams(&server.url(), &before);
    let bus = Bus::start(before.clone()).expect("it is valid");
    publish(&bus, 0..EVENTS);
    wait_until("all is acked", || bus.stats().acked == THREADS * EVENTS);
    // What is sent from here on waits in the socket, and is stored when nobody waits for it any more.
    server.pause();
    let seen = publish(&bus, EVENTS..2 * EVENTS);
    let report = bus.close(LAYING_DOWN);
    assert_eq!(report.stats.spooled, seen.offered, "{report:?}");
    server.resume();
    let count = || stored(&server.url(), &before.streams()).values().map(Vec::len).sum::<usize>() as u64;
    wait_until("what was in the socket is stored", || count() > THREADS * EVENTS);

    let now = spooling(&server.url(), directory.path(), 1, 2);
    let left = waits(&now);
    assert!(left > 0, "a thread had its ring in the last partition");
    let bus = Bus::start(now).expect("it is valid");
    wait_until("all is sent", || {
        let stats = bus.stats();
        stats.recovered >= seen.offered && stats.held() == 0
    });
    let report = bus.close(CLOSE);
    assert!(report.complete, "{report:?}");
    for (thread, mut events) in stored(&server.url(), &before.streams()) {
        events.sort_by_key(|&(_, number)| number);
        let numbers: Vec<u64> = events.into_iter().map(|(_, number)| number).collect();
        assert_eq!(numbers, (0..2 * EVENTS).collect::<Vec<_>>(), "thread {thread}");
    }
}

#[test]
fn a_replay_sends_a_directory_of_another_number_of_partitions() {
    let server = NatsServer::start();
    for (url, from, to) in [(NO_SERVER, 1, 3), (NO_SERVER, 3, 1), ("file:", 1, 2)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let chain_id = 100 + from * 10 + to;
        let mut before = spooling(NO_SERVER, &path, chain_id, from as usize);
        if url == "file:" {
            // A directory in the place of a server is that of one partition.
            before = Config::new(&format!("file:{}", path.display()), "s", chain_id).expect("it is valid");
        }
        let bus = Bus::start(before).expect("it is valid");
        let seen = publish(&bus, 0..EVENTS);
        assert_eq!(bus.close(LAYING_DOWN).stats.check(), Ok(()));
        let mut now = spooling(&server.url(), &path, chain_id, to as usize);
        make_streams(&server.url(), &now);
        (now.queue.when_full, now.spool.dir) = (WhenFull::DropNewest, None);
        let bus = Bus::replay(now.clone(), &path).expect("there is something");
        wait_until("all is sent", || bus.stats().held() == 0);
        let report = bus.close(CLOSE);
        assert!(report.stats.acked >= seen.offered, "{url} {from} to {to}: {report:?}");
        let threads = stored(&server.url(), &now.streams());
        for events in threads.values() {
            let numbers: Vec<u64> = events.iter().map(|&(_, number)| number).collect();
            assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "{url} {from} to {to}");
        }
        assert!(matches!(now.url, Endpoint::Nats(_)) && threads.len() as u64 == THREADS);
    }
}
