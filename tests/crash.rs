//! A process that publishes to a directory is killed, again and again, and nothing that it was told is stored is gone: `make crash`.
//!
//! ```text
//!   this process ── spawn ──► publisher: two threads, a bus on file:DIR
//!        ▲                        │ "acked 4711", as often as it can
//!        └──────── pipe ──────────┘
//!        └── kill -9, at a random moment; read DIR; once more
//! ```
//!
//! The count is independent: it is what the publisher had been told and passed on before it died, held against what lies in the
//! directory, read from the front. Each of its threads numbers its events, so that what is there must be 1, 2, 3, … of each, once and in
//! order, and of all together at least as many as were acknowledged. Now and then one is killed while it opens the log.
//!
//! `JETRING_KILLS` says how many, 20 if nothing does. The seed is printed; `JETRING_SEED` is another one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jetring::audit::Audit;
use jetring::envelope::Envelope;
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, SpoolSync};
use rand::{Rng, RngExt, SeedableRng};

use lives::{Load, Numbered, PATIENCE, Publisher, ask, give_each_thread_a_ring, number_of};

mod lives;

const DIRECTORY: &str = "JETRING_CRASH_DIRECTORY";
const SYNC: &str = "JETRING_CRASH_SYNC";
const LIFE: &str = "JETRING_CRASH_LIFE";

/// What is published: few large events or many small ones, so that a thousand lives fit on the disk.
const LOADS: [Load; 2] = [Load { at_once: 10, filling: 300 }, Load { at_once: 40, filling: 8 }];

/// A publisher lives at most so long after its first acknowledgement.
const LIFE_MAX: Duration = Duration::from_millis(120);

/// One in so many is killed before it has begun.
const EARLY: u64 = 5;

#[test]
fn what_was_acknowledged_survives_the_kill_of_its_process() {
    let kills = number_of("JETRING_KILLS", 20);
    let seed = number_of("JETRING_SEED", rand::random::<u32>().into());
    println!("{kills} kills, seed {seed}");
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("events");
    let mut random = rand::rngs::Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut next, mut acked, mut stored, mut early) = (1, 0, 0, 0);
    let began = Instant::now();
    for life in 1..=kills {
        let told = if random.random_range(0..EARLY) == 0 {
            early += 1;
            spawn(&directory, life).kill_early(&mut random);
            0
        } else {
            kill_under_load(&directory, life, &mut random)
        };
        let (found, end) = found_since(&directory, next, life);
        assert!(found >= told, "life {life}, seed {seed}: {told} were acknowledged, and {found} are there");
        next = end;
        acked += told;
        stored += found;
        if life % 100 == 0 {
            println!(
                "{life} kills: {acked} acknowledged, {stored} stored, {:.0} s",
                began.elapsed().as_secs_f64()
            );
        }
    }
    prove_all(&directory, stored);
    println!(
        "{kills} kills, {early} of them early: {acked} events were acknowledged and passed on, {stored} are stored, each once and in order"
    );
}

/// Starts a publisher and kills it in mid-work. Returns how many acknowledgements it had passed on.
fn kill_under_load(directory: &Path, life: u64, random: &mut impl Rng) -> u64 {
    let publisher = spawn(directory, life).listen(|line| line.strip_prefix("acked ")?.parse().ok());
    let first = publisher.told.recv_timeout(PATIENCE).expect("the publisher begins");
    std::thread::sleep(LIFE_MAX.mul_f64(random.random()));
    publisher.kill().last().unwrap_or(first)
}

fn spawn(directory: &Path, life: u64) -> Publisher {
    let sync = ["every-batch", "interval", "none"][(life % 3) as usize];
    let directory = directory.to_str().unwrap().to_owned();
    Publisher::start([(DIRECTORY, directory), (SYNC, sync.to_owned()), (LIFE, life.to_string())])
}

fn config(directory: &Path) -> Config {
    Config::new(&format!("file:{}", directory.display()), "main", 1).unwrap()
}

/// Reads what is there from a sequence on: events of one life. Returns how many, and the sequence behind the last message.
fn found_since(directory: &Path, sequence: u64, life: u64) -> (u64, u64) {
    if !directory.join("META").exists() {
        return (0, sequence);
    }
    ask(async {
        let (mut found, mut end) = (BTreeMap::<u64, u64>::new(), sequence);
        let mut reader =
            Reader::open(&config(directory), "event.1.>", From::Sequence(sequence), false).await.unwrap();
        while let Some(received) = reader.next().await.unwrap() {
            assert_eq!(received.sequence, end, "a message is missing in the directory");
            end += 1;
            for event in &received.unpack().unwrap() {
                let envelope = Envelope::parse(event).unwrap();
                let Ok(event) = serde_json::from_str::<Numbered>(envelope.body.get()) else { continue };
                assert_eq!(event.life, life, "an event of another life");
                let last = found.entry(event.thread).or_default();
                assert_eq!(event.number, *last + 1, "thread {} of life {life}", event.thread);
                *last = event.number;
            }
        }
        (found.values().sum(), end)
    })
}

/// Reads all of it once more, from the front.
fn prove_all(directory: &Path, stored: u64) {
    let mut audit = Audit::new(true);
    ask(async {
        let mut reader = Reader::open(&config(directory), "event.1.>", From::All, false).await.unwrap();
        while let Some(received) = reader.next().await.unwrap() {
            audit.observe_frame(&received.subject, received.unpack());
        }
    });
    let verdict = audit.verdict();
    assert_eq!((verdict.delivered, verdict.duplicates, verdict.reordered), (stored, 0, 0), "{verdict:?}");
    assert_eq!(verdict.lost_undeclared, 0, "{verdict:?}");
    let log = jetring::spool::verify(directory).unwrap();
    assert!(log.is_sound(), "{log:?}");
}

#[test]
#[ignore = "a role in the test above, which starts it in a process of its own and kills it"]
fn a_publisher_that_is_going_to_be_killed() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("it is told the directory"));
    let life = number_of(LIFE, 0);
    let mut config = config(&directory);
    config.spool.sync = match std::env::var(SYNC).unwrap().as_str() {
        "every-batch" => SpoolSync::EveryBatch,
        "interval" => SpoolSync::Interval(Duration::from_millis(20)),
        _ => SpoolSync::None,
    };
    give_each_thread_a_ring(&mut config);
    let bus = Bus::start(config).unwrap();
    lives::publish(&bus, life, LOADS[(life % 2) as usize], || true);
    // It ends by being killed; by itself only if it is forgotten.
    let end = Instant::now() + PATIENCE * 2;
    let mut told = 0;
    while Instant::now() < end {
        let acked = bus.stats().acked;
        if acked > told {
            told = acked;
            writeln!(std::io::stdout(), "acked {acked}").unwrap();
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}
