//! Measures a spool: how fast it takes events while there is no server, what that does to `publish`, how much of it a kill or a power failure would cost by
//! each policy of syncing, how long a large one takes to open, and how fast it is sent on.
//!
//! ```sh
//! make perf-spool                       # all of it, with a server of its own
//! NATS_URL=localhost:4222 cargo run --release --example spool_load -- DIR [RATE] [SECONDS]
//! ```
//!
//! DIR must not be there yet. The stream `main` is made if it is not there.
//! It prints one line for each. Every result is checked before it is printed: each event must be accounted for.

use jetring::{Bus, Config, SpoolSync, WhenFull};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A server that is not there.
const NOWHERE: &str = "nats://127.0.0.1:1";

/// In the place of a server that would take all: with a real one most calls would be refused, which is quicker.
const TAKES_ALL: &str = "null:";

/// How long an event may take to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(600);

/// Between two looks at what is on the disk.
const LOOK: Duration = Duration::from_millis(2);

/// Of a measurement of what would be lost, what goes by before it counts: the spool is opened, and the window filled.
const WARM_UP: Duration = Duration::from_secs(1);

/// About 414 bytes as an envelope.
#[derive(Serialize)]
struct Event {
    number: u64,
    filling: &'static str,
}

const FILLING: &str = "..........................................................................................\
    ..........................................................................................................\
    .................................................................";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [directory, rest @ ..] = &args[..] else {
        eprintln!("usage: spool_load DIR [RATE] [SECONDS]");
        std::process::exit(2);
    };
    let url = &std::env::var("NATS_URL").unwrap_or_else(|_| "localhost:4222".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the system gives a runtime");
    runtime
        .block_on(jetring::nats::admin::create_stream(&config(url, None)))
        .expect("there is a server, and it makes the stream");
    let number =
        |index: usize, usual: u64| rest.get(index).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (rate, seconds) = (number(0, 500_000), number(1, 10));
    let directory = Path::new(directory);

    for (index, (name, policy)) in policies().into_iter().enumerate() {
        let directory = directory.with_extension(format!("sync{index}"));
        show_losses(name, policy, &directory, rate, seconds.div_ceil(2) + WARM_UP.as_secs());
    }
    let plain = deliver(&bus(url, None), rate * seconds);
    let without =
        publish("publish, no spool, all is taken and thrown away", &bus(TAKES_ALL, None), rate, seconds);
    let spooling = bus(NOWHERE, Some(directory));
    let with = publish("publish, no server, into a spool", &spooling, rate, seconds);
    println!(
        "publish with a spool / without: p50 {:.2}, p99 {:.2}",
        ratio(with, without, 0),
        ratio(with, without, 1)
    );
    let began = Instant::now();
    let report = spooling.close(Duration::from_secs(10));
    report.stats.check().expect("the law holds");
    println!(
        "close: {:.2} s, {} spooled, {} dropped",
        seconds_since(began),
        report.stats.spooled,
        report.stats.dropped.total()
    );

    let began = Instant::now();
    let replay = Bus::replay(config(url, None), directory).expect("the directory is there");
    let (opened, backlog) = (seconds_since(began), replay.stats().recovered);
    while replay.stats().held() > 0 {
        assert!(began.elapsed() < PATIENCE, "it is not sent in time");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = backlog as f64 / seconds_since(began);
    println!("open: {opened:.3} s for {backlog} events");
    println!("replay: {sent:.0} events/s, plain delivery: {plain:.0} events/s, ratio {:.2}", sent / plain);
    let report = replay.close(PATIENCE);
    assert_eq!(report.stats.acked, report.stats.offered, "everything was delivered");
}

fn config(url: &str, directory: Option<&Path>) -> Config {
    let mut config = Config::new(url, "main", 1).expect("the url is valid");
    if let Some(directory) = directory {
        config.queue.when_full = WhenFull::Spool;
        config.spool.dir = Some(directory.to_owned());
        config.spool.max_bytes = 8 << 30;
    }
    config
}

fn bus(url: &str, directory: Option<&Path>) -> Bus {
    Bus::start(config(url, directory)).expect("the configuration is valid")
}

/// Delivers so many events as fast as they get through. Returns events a second, up to the last acknowledgement.
fn deliver(bus: &Bus, events: u64) -> f64 {
    let topic = bus.topic("load").expect("the name is valid");
    let began = Instant::now();
    for number in 0..events {
        while !bus.has_room(512) {
            std::thread::yield_now();
        }
        topic.publish(&Event { number, filling: FILLING });
    }
    let report = bus.flush(PATIENCE);
    assert_eq!(report.stats.acked, events, "everything was delivered");
    events as f64 / seconds_since(began)
}

/// Publishes at a steady rate. Returns the percentiles 50 and 99 of a call, in nanoseconds.
fn publish(what: &str, bus: &Bus, rate: u64, seconds: u64) -> [u64; 2] {
    let topic = bus.topic("load").expect("the name is valid");
    let mut nanos = Vec::with_capacity((rate * seconds) as usize);
    let began = Instant::now();
    for number in 0..rate * seconds {
        let due = Duration::from_nanos(number * 1_000_000_000 / rate);
        while began.elapsed() < due {
            std::hint::spin_loop();
        }
        let called = Instant::now();
        topic.publish(&Event { number, filling: FILLING });
        nanos.push(called.elapsed().as_nanos() as u64);
    }
    let took = seconds_since(began);
    nanos.sort_unstable();
    let at = |part: f64| nanos[(nanos.len() as f64 * part) as usize];
    let stats = bus.stats();
    stats.check().expect("the law holds");
    println!(
        "{what}: {:.0} events/s, p50 {} ns, p99 {} ns, {} dropped",
        nanos.len() as f64 / took,
        at(0.5),
        at(0.99),
        stats.dropped.total()
    );
    [at(0.5), at(0.99)]
}

/// As the configuration names them.
fn policies() -> [(&'static str, SpoolSync); 4] {
    [
        ("none", SpoolSync::None),
        ("interval:1s", SpoolSync::Interval(Duration::from_secs(1))),
        ("interval:100ms", SpoolSync::Interval(Duration::from_millis(100))),
        ("every-batch", SpoolSync::EveryBatch),
    ]
}

/// Publishes at a steady rate and looks all the time how far what was published is from being written, which a kill would cost, and from being on the disk,
/// which a power failure would.
fn show_losses(name: &str, policy: SpoolSync, directory: &Path, rate: u64, seconds: u64) {
    let mut config = config(NOWHERE, Some(directory));
    config.spool.sync = policy;
    let bus = Bus::start(config).expect("the configuration is valid");
    let registry = prometheus::Registry::new();
    bus.register(&registry).expect("they are ours alone");
    let is_over = AtomicBool::new(false);
    let [mut by_kill, mut by_power] = std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let began = Instant::now();
            let mut distances = [Vec::new(), Vec::new()];
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                let [written, synced] = ["written", "synced"]
                    .map(|done| count(&registry, &format!("event_bus_spool_{done}_messages_total")));
                // What was refused is in no place that a failure could take it from.
                let stats = bus.stats();
                let taken = stats.offered - stats.dropped.total();
                if began.elapsed() >= WARM_UP {
                    distances[0].push(taken.saturating_sub(written));
                    distances[1].push(taken.saturating_sub(synced));
                }
            }
            distances
        });
        publish(&format!("publish, spool.sync = \"{name}\""), &bus, rate, seconds);
        is_over.store(true, Ordering::Relaxed);
        look.join().expect("it does not panic")
    });
    for (failure, distances) in [("a kill", &mut by_kill), ("a power failure", &mut by_power)] {
        distances.sort_unstable();
        let at = |part: f64| distances[((distances.len() - 1) as f64 * part) as usize];
        let millis = |events: u64| events as f64 * 1000.0 / rate as f64;
        println!(
            "  {failure} would have cost {:.0} ms of events (p50), {:.0} ms (p99), {:.0} ms at most: {} events",
            millis(at(0.5)),
            millis(at(0.99)),
            millis(at(1.0)),
            at(1.0)
        );
    }
    drop(bus.close(Duration::from_secs(10)));
    std::fs::remove_dir_all(directory).expect("it was made");
}

/// The value of a counter.
fn count(registry: &prometheus::Registry, name: &str) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("it is registered");
    family.get_metric().iter().map(|metric| metric.get_counter().get_value() as u64).sum()
}

fn ratio(with: [u64; 2], without: [u64; 2], index: usize) -> f64 {
    with[index] as f64 / without[index] as f64
}

fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}
