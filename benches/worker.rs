//! What an event costs behind the ring: the worker's own processor time, and its parts.
//!
//! | way | measures |
//! | --- | --- |
//! | `cargo bench --bench worker` | the whole worker, as the processor time of its thread for an event; then its parts, with criterion |
//! | `… -- --events 100000` | the same once for each framing, and nothing else; for `valgrind --tool=callgrind --separate-threads=yes`, which counts instructions |
//!
//! The parts: `render` is number, route and envelope, `deliver` the same and all that follows but the sink (window, sending,
//! answer, books), `stats` one snapshot of the ledger.
//!
//! For the whole, one thread publishes events of 414 bytes to `null:`, whose sink acknowledges at once, and waits whenever its ring is full: so the
//! worker always has something to do. What counts is processor time and not the clock on the wall, because publisher and
//! worker share the machine with whatever else is running.
//!
//! On a machine without hardware counters, as virtual ones are, the instructions are what can be compared from day to day:
//!
//! ```sh
//! cargo bench --bench worker --no-run
//! valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file=callgrind.out target/release/deps/worker-* --events 100000
//! callgrind_annotate --inclusive=yes callgrind.out-02 | head -60
//! ```

#[path = "event.rs"]
mod event;

use criterion::{Criterion, Throughput};
use event::{HOP, envelope_len, estimate};
use jetring::__internals::Parts;
use jetring::envelope::Envelope;
use jetring::{Bus, Compression, Config, Framing};
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Events of one measurement.
const EVENTS: u64 = 1_000_000;

/// Measurements, of which the median and the best are told.
const ROUNDS: usize = 9;

/// What the worker makes of events.
const WAYS: [(&str, Framing, Compression); 4] = [
    ("plain", Framing::Plain, Compression::None),
    ("packed", Framing::Packed, Compression::None),
    ("packed lz4", Framing::Packed, Compression::Lz4),
    ("packed zstd", Framing::Packed, Compression::Zstd),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--events") {
        let events =
            arguments.get(at + 1).and_then(|events| events.parse().ok()).expect("a number of events");
        for (name, framing, compression) in WAYS {
            println!("{name}: {:.0} ns", whole(events, framing, compression));
        }
        return;
    }
    // `cargo bench -- --test` wants to see that it works, and not how fast it is.
    let (events, rounds) =
        if arguments.iter().any(|argument| argument == "--test") { (1000, 1) } else { (EVENTS, ROUNDS) };
    let mut nanos = WAYS.map(|_| Vec::new());
    for _ in 0..rounds {
        for ((_, framing, compression), nanos) in WAYS.into_iter().zip(&mut nanos) {
            nanos.push(whole(events, framing, compression));
        }
    }
    for ((name, ..), nanos) in WAYS.into_iter().zip(&mut nanos) {
        nanos.sort_by(f64::total_cmp);
        println!(
            "worker, {name}: {:.0} ns an event at the median of {rounds}, {:.0} at best",
            nanos[rounds / 2],
            nanos[0]
        );
    }
    let mut criterion = Criterion::default().configure_from_args();
    parts(&mut criterion);
    criterion.final_summary();
}

fn parts(criterion: &mut Criterion) {
    /// About what a look at the rings finds under load.
    const BATCH: usize = 250;

    assert_eq!(envelope_len(&estimate(&[HOP])), 414, "the event is as long as it says");
    let mut parts = Parts::new(&estimate(&[HOP])).expect("the body is encoded");
    let envelope = Envelope::parse(parts.render()).expect("it renders an envelope");
    assert_eq!(envelope.body.get(), serde_json::to_string(&estimate(&[HOP])).expect("it is JSON"));
    let before = parts.deliver(0);
    assert_eq!(parts.deliver(BATCH), before + BATCH as u64);

    let mut group = criterion.benchmark_group("worker");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    group.bench_function("render", |bencher| bencher.iter(|| black_box(parts.render()).len()));
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("deliver", |bencher| bencher.iter(|| parts.deliver(black_box(BATCH))));
    let bus =
        Bus::start(Config::new("null:", "main", 1).expect("a valid configuration")).expect("a bus starts");
    group.throughput(Throughput::Elements(1));
    group.bench_function("stats", |bencher| bencher.iter(|| bus.stats()));
    group.finish();
}

/// Nanoseconds of the worker's processor time for each of `events` events.
fn whole(events: u64, framing: Framing, compression: Compression) -> f64 {
    let mut config = Config::new("null:", "main", 1).expect("a valid configuration");
    (config.delivery.framing, config.delivery.compression) = (framing, compression);
    let bus = Bus::start(config).expect("a bus starts");
    let topic = bus.topic("priceEstimate").expect("a valid name");
    let mut body = estimate(&[HOP]);
    let _ = bus.flush(Duration::from_secs(10));
    let before = worker_nanos();
    for order_id in 0..events {
        while !bus.has_room(1024) {
            std::thread::yield_now();
        }
        // Events of a stream are alike, but not the same; else they would compress better than any.
        body.order_id = 100_000_000 + order_id * 7919 % 900_000_000;
        assert!(topic.publish(black_box(&body)).is_accepted());
    }
    let report = bus.flush(Duration::from_secs(600));
    let nanos = worker_nanos() - before;
    assert_eq!((report.stats.acked, report.complete), (events, true));
    report.stats.check().expect("the ledger balances");
    let _ = bus.close(Duration::from_secs(10));
    wait_for_its_end();
    nanos as f64 / events as f64
}

/// Nanoseconds that the worker's thread has run so far.
fn worker_nanos() -> u64 {
    let task = worker_task().expect("the worker is running");
    let text = fs::read_to_string(task.join("schedstat")).expect("the kernel keeps scheduler statistics");
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("the first number is the time")
}

fn worker_task() -> Option<std::path::PathBuf> {
    let tasks = fs::read_dir("/proc/self/task").expect("a Linux machine");
    let is_worker = |task: &std::path::PathBuf| {
        fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "jetring-0")
    };
    tasks.filter_map(|task| task.ok().map(|task| task.path())).find(is_worker)
}

/// The thread ends a moment after the report; the next round must not find it.
fn wait_for_its_end() {
    let start = Instant::now();
    while worker_task().is_some() {
        assert!(start.elapsed() < Duration::from_secs(10), "the worker does not end");
        std::thread::yield_now();
    }
}
