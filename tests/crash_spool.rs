//! A process that publishes through a spool is killed, again and again, while its server comes and goes; and in the end the stream has every event
//! that was safe, once and in order: `make crash`.
//!
//! ```text
//!   this process ── spawn ──► publisher: two threads, a bus with a spool
//!        ▲                        │ "safe 4711 open", or empty, as often as it can
//!        └──────── pipe ──────────┘
//!        ├── kill -9 the publisher, at a random moment
//!        ├── kill or restart the server, at random
//!        └── at last one publisher sends what is left; read the stream
//! ```
//!
//! The count is independent: what a publisher had passed on as safe (acknowledged, or in the spool, by the ledger) before it died is held against what
//! the stream has of that life. Each of its threads numbers its events, so of each life there must be 1, 2, 3, … of each thread, once and
//! in order, and of both together at least as many as were safe. The stream remembers ids for a tenth of a second, so that no duplicate is kept
//! out by luck: only a look into the stream can.
//!
//! Each life has a shape of its own: framing, compression, window, how large its events are and how many. So the log holds what was written in any of
//! these ways, and each way sends what any other has left.
//!
//! `JETRING_KILLS` says how many, 12 if nothing does. The seed is printed; `JETRING_SEED` is another one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jetring::envelope::Envelope;
use jetring::reader::{From, Reader};
use jetring::{Bus, Compression, Config, Framing, SpoolSync, WhenFull};
use rand::{Rng, RngExt, SeedableRng};

use lives::{Load, Numbered, PATIENCE, Publisher, ask, give_each_thread_a_ring, number_of};
use server::{NatsServer, create_stream, stream_config, wait_at_most};

mod lives;
#[path = "it/server.rs"]
mod server;

const DIRECTORY: &str = "JETRING_CRASH_DIRECTORY";
const URL: &str = "JETRING_CRASH_URL";
const LIFE: &str = "JETRING_CRASH_LIFE";
const SHAPE: &str = "JETRING_CRASH_SHAPE";

/// How long the last publisher may take to send what is left.
const PATIENCE_AT_LAST: Duration = Duration::from_secs(120);

/// A publisher lives at most so long after it has first said that something is safe.
const LIFE_MAX: Duration = Duration::from_millis(250);

/// One in so many is killed before it has begun.
const EARLY: u64 = 6;

/// In one life of so many the server comes or goes.
const CHANGE: u64 = 2;

/// How long one publishes that lives until the spool is empty.
const BRIEFLY: Duration = Duration::from_secs(1);

/// What a publisher says of its spool.
const EMPTY: &str = "empty";
const OPEN: &str = "open";

/// Each of so many lives lasts until the spool is empty, so that what is left does not grow for ever.
const LONG: u64 = 8;

#[test]
fn what_was_safe_comes_into_the_stream_once_whoever_is_killed() {
    let kills = number_of("JETRING_KILLS", 12);
    let seed = number_of("JETRING_SEED", rand::random::<u32>().into());
    println!("{kills} kills, seed {seed}");
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("spool");
    let mut random = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut place = Place::new();
    let mut safe = BTreeMap::new();
    for life in 1..=kills {
        let told = if life % LONG == 0 {
            kill_when_empty(&directory, &mut place, life, &mut random)
        } else if random.random_range(0..EARLY) == 0 {
            spawn(&directory, &place, life, &mut random).kill_early(&mut random);
            0
        } else {
            kill_under_load(&directory, &mut place, life, &mut random)
        };
        safe.insert(life, told);
        if life % 100 == 0 {
            println!("{life} kills: {} events were safe", safe.values().sum::<u64>());
        }
    }
    place.set_up(true);
    let left = send_the_rest(&directory, &place, Shape::of(random.random()));
    let stored = read_all(&place);
    for (life, &told) in &safe {
        let found = stored.get(life).copied().unwrap_or(0);
        assert!(found >= told, "life {life}, seed {seed}: {told} were safe, and {found} are in the stream");
    }
    println!(
        "{kills} kills, {} of the server: {} events were safe when their process was killed, {} are in the stream, each once and in order; {left} of \
         them were sent at last",
        place.kills,
        safe.values().sum::<u64>(),
        stored.values().sum::<u64>()
    );
}

/// A server that comes and goes.
struct Place {
    server: NatsServer,
    is_up: bool,
    kills: u64,
}

impl Place {
    fn new() -> Self {
        let server = NatsServer::start();
        let config = async_nats::jetstream::stream::Config {
            duplicate_window: Duration::from_millis(100),
            ..stream_config("main", &["event.1.>"])
        };
        ask(create_stream(&server.url(), config));
        Self { server, is_up: true, kills: 0 }
    }

    fn set_up(&mut self, is_up: bool) {
        match (self.is_up, is_up) {
            (false, true) => self.server.restart(),
            (true, false) => {
                self.server.kill();
                self.kills += 1;
            }
            _ => {}
        }
        self.is_up = is_up;
    }

    fn change(&mut self, random: &mut impl Rng) {
        if random.random_range(0..CHANGE) == 0 {
            self.set_up(!self.is_up);
        }
    }
}

/// Starts a publisher and kills it in mid-work. Returns how many of its events it had passed on as safe.
fn kill_under_load(directory: &Path, place: &mut Place, life: u64, random: &mut impl Rng) -> u64 {
    let publisher = spawn(directory, place, life, random).listen(Told::parse);
    let first = publisher.told.recv_timeout(PATIENCE).expect("the publisher begins");
    let pauses = [LIFE_MAX.mul_f64(random.random()), LIFE_MAX.mul_f64(random.random())];
    std::thread::sleep(pauses[0]);
    place.change(random);
    std::thread::sleep(pauses[1]);
    publisher.kill().map(|told| told.safe).fold(first.safe, u64::max)
}

/// The same, but not before it has sent all that others have left.
fn kill_when_empty(directory: &Path, place: &mut Place, life: u64, random: &mut impl Rng) -> u64 {
    place.set_up(true);
    let publisher = spawn(directory, place, life, random).listen(Told::parse);
    let deadline = Instant::now() + PATIENCE_AT_LAST;
    let mut safe = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let told = publisher.told.recv_timeout(left).expect("what is left is sent in time");
        safe = told.safe.max(safe);
        if told.is_empty {
            break;
        }
    }
    std::thread::sleep(LIFE_MAX.mul_f64(random.random()));
    publisher.kill().map(|told| told.safe).fold(safe, u64::max)
}

/// What a publisher says of itself.
#[derive(Clone, Copy, Default)]
struct Told {
    safe: u64,
    /// Nothing is left in the spool.
    is_empty: bool,
}

impl Told {
    fn parse(line: &str) -> Option<Self> {
        let (safe, state) = line.strip_prefix("safe ")?.split_once(' ')?;
        Some(Self { safe: safe.parse().ok()?, is_empty: state == EMPTY })
    }
}

fn spawn(directory: &Path, place: &Place, life: u64, random: &mut impl Rng) -> Publisher {
    let (life, shape) = (life.to_string(), random.random::<u64>().to_string());
    let directory = directory.to_str().unwrap().to_owned();
    Publisher::start([(DIRECTORY, directory), (URL, place.server.url()), (LIFE, life), (SHAPE, shape)])
}

/// How a process sends, and what.
#[derive(Clone, Copy, Debug)]
struct Shape {
    framing: Framing,
    compression: Compression,
    /// Messages in the window.
    window: usize,
    load: Load,
}

impl Shape {
    /// The one of this number.
    fn of(number: u64) -> Self {
        let mut random = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(number);
        let mut one_of = |count| random.random_range(0..count);
        let framings = [
            (Framing::Plain, Compression::None),
            (Framing::Packed, Compression::None),
            #[cfg(feature = "lz4")]
            (Framing::Packed, Compression::Lz4),
            #[cfg(feature = "zstd")]
            (Framing::Packed, Compression::Zstd),
        ];
        let (framing, compression) = framings[one_of(framings.len())];
        Self {
            framing,
            compression,
            window: [64, 512, 4096][one_of(3)],
            // Few large ones or many small ones, so that a thousand lives fit on the disk.
            load: match one_of(3) {
                0 => Load { at_once: 5, filling: 300 },
                1 => Load { at_once: 20, filling: 64 },
                _ => Load { at_once: 40, filling: 8 },
            },
        }
    }
}

/// A small memory, so that the spool is used at once.
fn config(directory: &Path, url: &str, life: u64, shape: Shape) -> Config {
    let mut config = Config::new(url, "main", 1).unwrap();
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 1 << 10;
    config.queue.when_full = WhenFull::Spool;
    give_each_thread_a_ring(&mut config);
    config.delivery.max_in_flight = shape.window;
    config.delivery.ack_timeout = Duration::from_millis(200);
    config.delivery.framing = shape.framing;
    config.delivery.compression = shape.compression;
    config.spool.dir = Some(directory.to_owned());
    config.spool.max_bytes = 4 << 30;
    config.spool.sync = match life % 3 {
        0 => SpoolSync::EveryBatch,
        1 => SpoolSync::Interval(Duration::from_millis(20)),
        _ => SpoolSync::None,
    };
    config
}

/// One more process, which is not killed. Returns how many events the others had left.
fn send_the_rest(directory: &Path, place: &Place, shape: Shape) -> u64 {
    let bus = Bus::replay(config(directory, &place.server.url(), 0, shape), directory).unwrap();
    wait_at_most(PATIENCE_AT_LAST, "all is sent", || {
        let stats = bus.stats();
        assert_eq!(stats.check(), Ok(()));
        stats.held() == 0
    });
    let report = bus.close(PATIENCE);
    assert!(report.complete && report.stats.acked == report.stats.offered, "{report:?}");
    report.stats.recovered
}

/// Reads the stream. Returns how many events it has of each life.
fn read_all(place: &Place) -> BTreeMap<u64, u64> {
    ask(async {
        let config = Config::new(&place.server.url(), "main", 1).unwrap();
        let mut reader = Reader::open(&config, "event.1.numbered", From::All, false).await.unwrap();
        // Of each thread its last number, and where that is in the stream.
        let mut last = BTreeMap::<(u64, u64), (u64, u64)>::new();
        while let Some(received) = reader.next().await.unwrap() {
            for event in &received.unpack().unwrap() {
                let envelope = Envelope::parse(event).unwrap();
                let event: Numbered = serde_json::from_str(envelope.body.get()).unwrap();
                let last = last.entry((event.life, event.thread)).or_default();
                let at = received.sequence;
                assert_eq!(
                    event.number,
                    last.0 + 1,
                    "thread {} of life {}, at {at} behind {}",
                    event.thread,
                    event.life,
                    last.1
                );
                *last = (event.number, at);
            }
        }
        let mut lives = BTreeMap::new();
        last.into_iter().for_each(|((life, _), (events, _))| *lives.entry(life).or_default() += events);
        lives
    })
}

#[test]
#[ignore = "a role in the test above, which starts it in a process of its own and kills it"]
fn a_publisher_that_is_going_to_be_killed() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("it is told the directory"));
    let life = number_of(LIFE, 0);
    let shape = Shape::of(number_of(SHAPE, 0));
    let bus = Bus::start(config(&directory, &std::env::var(URL).unwrap(), life, shape)).unwrap();
    // One that lives until the spool is empty must let it become so, also on a machine on which publishing is faster than sending.
    let (began, is_long) = (Instant::now(), life.is_multiple_of(LONG));
    lives::publish(&bus, life, shape.load, move || !is_long || began.elapsed() < BRIEFLY);
    // It ends by being killed; by itself only if it is forgotten.
    let end = began + PATIENCE_AT_LAST * 2;
    let (mut told, mut was_empty) = (0, false);
    while Instant::now() < end {
        let stats = bus.stats();
        // What others have left is safe too, or lost, and none of ours. So this is no more than what is.
        let safe = (stats.acked + stats.spooled).saturating_sub(stats.recovered);
        // What is in the spool is not known before it is open, which takes a moment.
        let is_empty = stats.spooled == 0 && is_long && began.elapsed() >= BRIEFLY;
        if safe > told || (is_empty && !was_empty) {
            (told, was_empty) = (safe.max(told), is_empty);
            writeln!(std::io::stdout(), "safe {told} {}", if is_empty { EMPTY } else { OPEN }).unwrap();
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}
