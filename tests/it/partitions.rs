//! One bus over several streams: all promises hold for all of them together, and each event is where it belongs.
//!
//! The proof is that of `support.rs`, stream by stream and in sum: the ledger against what the threads saw, what is stored against the
//! ledger, and what the streams say of themselves against both.

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::Duration;

use async_nats::jetstream::stream;
use futures_util::StreamExt;
use jetring::audit::{Audit, together};
use jetring::envelope::Envelope;
use jetring::report::{STARTED, STOPPED, Started, Stopped};
use jetring::{Bus, Config, Engine, Mode, Reason, Report, Stats, Stream, partition_of};

use crate::server::{NatsServer, PATIENCE, connect, create_stream, messages, stream_config, wait_until};
use crate::support::{CLOSE, LOAD, Load, NO_SERVER, Numbered, SOON, Scrape, Seen, ask, config, prove_ledger};

const PARTITIONS: usize = 3;

/// Two for each partition.
const THREADS: u64 = 6;

/// Long enough for events in every state when the trouble begins, and to be missed when it ends.
const A_WHILE: Duration = Duration::from_millis(400);
const AWAY: Duration = Duration::from_millis(1500);

#[test]
fn a_server_that_is_killed_and_restarted_costs_nothing_in_batches() {
    survives_a_restart(Mode::Fast, Engine::Fast);
}

#[test]
fn a_server_that_is_killed_and_restarted_costs_nothing_event_by_event() {
    survives_a_restart(Mode::Async, Engine::Async);
}

fn survives_a_restart(mode: Mode, engine: Engine) {
    let mut server = NatsServer::start();
    let mut config = partitioned(&server.url());
    config.delivery.mode = mode;
    config.streams().iter().for_each(|stream| make_stream(&server.url(), stream));
    let bus = Bus::start(config.clone()).expect("the configuration is valid");
    let load = Load::start(&bus, THREADS, 300);
    for _ in 0..2 {
        load.goes_on_for(A_WHILE);
        server.kill();
        load.goes_on_for(AWAY);
        assert!(!bus.is_connected());
        server.restart();
        load.flows_again();
        assert!(bus.flush(CLOSE).complete, "in every partition");
    }
    let seen = load.stop();
    assert!(bus.flush(CLOSE).complete);
    assert_eq!((bus.stats().engine, bus.is_connected()), (Some(engine), true));
    let scrape = Scrape::of(&bus);
    assert_eq!(scrape.sum("event_bus_acked_events_total"), seen.offered as f64);
    assert_eq!(scrape.sum("event_bus_connected"), 1.0);
    assert!(scrape.sum("event_bus_reconnects_total") >= 2.0 * PARTITIONS as f64, "each has a connection");
    let report = bus.close(CLOSE);
    let stored = prove(&config, &bus, &report, &seen);

    assert_eq!(report.stats.acked, seen.offered, "{report:?}");
    let mut homes = HashMap::new();
    for (partition, events) in stored.iter().enumerate() {
        assert!(!events.is_empty(), "partition {partition} has nothing");
        for event in events {
            let (home, next) = homes.entry(event.thread).or_insert((partition, 0));
            assert_eq!(
                (*home, *next),
                (partition, event.number),
                "the events of a thread are in one stream, in order"
            );
            *next += 1;
        }
    }
}

#[test]
fn a_key_decides_the_stream_and_each_thread_has_its_order_there() {
    const KEYS: u64 = 20;
    const EVENTS: u64 = 2000;
    let server = NatsServer::start();
    let config = partitioned(&server.url());
    ask(jetring::nats::admin::create_stream(&config)).expect("the server makes streams");
    let bus = Bus::start(config.clone()).expect("the configuration is valid");
    let publish = |thread| {
        let topic = bus.topic(LOAD).expect("the name is valid");
        let mut seen = Seen::default();
        for number in 0..EVENTS {
            // All ways of giving a key lead to the same place; and some events have none.
            let (way, key) = (number / KEYS % 4, format!("key-{}", number % KEYS));
            let text = if way == 3 { String::new() } else { key.clone() };
            let event = Numbered { thread, number, text };
            seen.call(|| match way {
                0 => topic.publish_keyed(&key, &event),
                1 => bus.publish_keyed(LOAD, key.as_bytes(), &event),
                2 => jetring::request_scope("r", || topic.publish_keyed(key, &event)),
                _ => topic.publish(&event),
            });
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || publish(thread)));
        let seen = threads.map(|thread| thread.join().expect("publishing does not panic"));
        seen.into_iter().fold(Seen::default(), Seen::merge)
    });
    let report = bus.close(CLOSE);
    let stored = prove(&config, &bus, &report, &seen);

    assert_eq!(report.stats.acked, 4 * EVENTS);
    let mut homes = HashMap::new();
    for (partition, events) in stored.iter().enumerate() {
        assert!(!events.is_empty(), "partition {partition} has no key");
        let mut last = HashMap::new();
        for Numbered { thread, number, text: key } in events {
            let home = match key.as_str() {
                "" => *homes.entry(thread).or_insert(partition),
                key => partition_of(key, PARTITIONS),
            };
            assert_eq!(home, partition, "{key:?} of thread {thread}");
            let before = last.insert(thread, number);
            assert!(before.is_none_or(|before| before < number), "{number} stands behind {before:?}");
        }
    }
}

#[test]
fn the_partition_of_a_key_is_that_of_the_servers_own_mapping() {
    let mapping = "mappings { \"key.*\": \"mapped.{{partition(7,1)}}.{{wildcard(1)}}\" }";
    let server = NatsServer::builder().config(mapping).start();
    ask(async {
        let client = connect(&server.url()).await;
        let mut mapped = client.subscribe("mapped.>").await.expect("a subscription");
        let keys: Vec<String> = (0..100).map(|i| format!("{:x}-é{i}", i * 7919)).collect();
        for key in &keys {
            client.publish(format!("key.{key}"), "".into()).await.expect("it is sent");
        }
        client.flush().await.expect("it is sent");
        for key in &keys {
            let message = tokio::time::timeout(PATIENCE, mapped.next()).await.expect("it comes");
            let subject = message.expect("the connection stands").subject.to_string();
            assert_eq!(subject, format!("mapped.{}.{key}", partition_of(key, 7)));
        }
    });
}

#[test]
fn a_close_without_a_server_counts_what_each_partition_held() {
    let bus = Bus::start(partitioned(NO_SERVER)).expect("the configuration is valid");
    let mut seen = Seen::default();
    for number in 0..3000 {
        seen.call(|| bus.publish_keyed(LOAD, number.to_string(), &Numbered::new(0, number)));
        assert_eq!(bus.stats().check(), Ok(()));
    }
    assert!(!bus.flush(SOON).complete);
    let report = bus.close(SOON);
    prove_ledger(&report, &seen);
    assert_eq!((report.stats.dropped.get(Reason::Expired), report.complete), (3000, true));
    let again = bus.close(SOON);
    assert_eq!(again.stats.dropped, report.stats.dropped);
    assert!(!bus.publish(LOAD, &1).is_accepted());
}

#[test]
fn a_partition_without_its_stream_holds_up_no_other() {
    const MISSING: usize = 1;
    let server = NatsServer::start();
    let config = partitioned(&server.url());
    let streams = config.streams();
    streams
        .iter()
        .filter(|stream| **stream != streams[MISSING])
        .for_each(|stream| make_stream(&server.url(), stream));
    let bus = Bus::start(config.clone()).expect("the configuration is valid");
    let (mut seen, mut of_the_missing) = (Seen::default(), 0);
    for number in 0..900u64 {
        of_the_missing += u64::from(partition_of(number.to_string(), PARTITIONS) == MISSING);
        seen.call(|| bus.publish_keyed(LOAD, number.to_string(), &Numbered::new(0, number)));
    }
    wait_until("the others have delivered", || bus.stats().acked == 900 - of_the_missing);
    assert!(!bus.flush(SOON).complete, "one partition waits for its stream");
    assert_eq!(bus.stats().engine, None, "the least that any partition says");
    make_stream(&server.url(), &streams[MISSING]);
    assert!(bus.flush(CLOSE).complete);
    let report = bus.close(CLOSE);
    let stored = prove(&config, &bus, &report, &seen);
    assert_eq!((report.stats.acked, stored[MISSING].len() as u64), (900, of_the_missing));
}

fn partitioned(url: &str) -> Config {
    let mut config = config(url);
    config.partitions = PARTITIONS;
    config
}

/// The stream of a partition. It allows batches, and hardly remembers ids, so that no duplicate is kept out by it alone.
fn make_stream(url: &str, Stream { name, subjects, .. }: &Stream) {
    let usual = stream_config(name.as_str(), &[&subjects.all()]);
    ask(create_stream(url, stream::Config { allow_batch_publish: true, ..usual }));
}

/// Proves a run after its bus was closed. Returns the events that are stored, by partition and in the order of their stream.
#[track_caller]
fn prove(config: &Config, bus: &Bus, report: &Report, seen: &Seen) -> Vec<Vec<Numbered>> {
    prove_ledger(report, seen);
    let (mut audits, mut stored, mut ledgers) = (Vec::new(), Vec::new(), Vec::new());
    for Stream { name, subjects, .. } in config.streams() {
        let mut audit = Audit::of_process(bus.process());
        let (mut events, mut started, mut stopped) = (Vec::new(), None, None);
        for (sequence, subject, payload) in ask(messages(&config.url.to_string(), name.as_str())) {
            audit.observe(&payload);
            let envelope =
                Envelope::parse(&payload).unwrap_or_else(|error| panic!("{name} {sequence}: {error}"));
            let body = envelope.body.get();
            match subjects.name_of(&subject).unwrap_or_else(|| panic!("{subject} in {name}")) {
                STARTED => started = Some(serde_json::from_str::<Started>(body).expect("a report")),
                STOPPED => stopped = Some(serde_json::from_str::<Stopped>(body).expect("a report")),
                LOAD => events.push(serde_json::from_str::<Numbered>(body).expect("an event of ours")),
                _ => {}
            }
        }
        let producers = started.map(|started: Started| started.producers);
        let stopped: Stopped =
            stopped.unwrap_or_else(|| panic!("nothing in {name} says that the bus has stopped"));
        assert_eq!(producers, Some(stopped.last.len()), "{name}");
        assert_eq!((stopped.ledger.check(), stopped.ledger.acked), (Ok(()), events.len() as u64), "{name}");
        ledgers.push(stopped.ledger);
        stored.push(events);
        audits.push(audit);
    }
    prove_sum(&ledgers, &report.stats);
    let verdict = together(&audits);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!((verdict.duplicates, verdict.lost_declared), (0, report.stats.dropped.total()), "{verdict:?}");
    assert_eq!(verdict.delivered, report.stats.acked, "{verdict:?}");
    stored
}

/// What the streams say of their partitions adds up to what the bus says.
#[track_caller]
fn prove_sum(ledgers: &[Stats], whole: &Stats) {
    let sum = |account: fn(&Stats) -> u64| (ledgers.iter().map(account).sum::<u64>(), account(whole));
    let accounts: BTreeMap<&str, (u64, u64)> = BTreeMap::from([
        ("offered", sum(|stats| stats.offered)),
        ("acked", sum(|stats| stats.acked)),
        ("dropped", sum(|stats| stats.dropped.total())),
        ("indeterminate", sum(|stats| stats.indeterminate)),
        ("held", sum(Stats::held)),
    ]);
    assert!(accounts.values().all(|(parts, whole)| parts == whole), "{accounts:?}");
}
