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
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jetring::audit::Audit;
use jetring::envelope::Envelope;
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, SpoolSync};
use rand::{Rng, RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "JETRING_CRASH_DIRECTORY";
const SYNC: &str = "JETRING_CRASH_SYNC";
const ROLE: &str = "a_publisher_that_is_going_to_be_killed";

/// Threads of a publisher.
const THREADS: u64 = 2;

/// Events of a thread in a millisecond, so that a thousand lives fit on the disk.
const EVENTS_AT_ONCE: u64 = 10;

/// How long a publisher may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// A publisher lives at most so long after its first acknowledgement.
const LIFE_MAX: Duration = Duration::from_millis(120);

/// One in so many is killed before it has begun.
const EARLY: u64 = 5;

#[derive(Serialize, Deserialize)]
struct Numbered {
    life: u64,
    thread: u64,
    number: u64,
    filling: String,
}

fn number_of(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

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
            kill_early(&directory, life, &mut random)
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
    let mut publisher = spawn(directory, life);
    let (tell, told) = mpsc::channel();
    let output = BufReader::new(publisher.stdout.take().unwrap());
    let listener = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(acked) = line.strip_prefix("acked ").and_then(|number| number.parse::<u64>().ok()) {
                let _ = tell.send(acked);
            }
        }
    });
    let first = told.recv_timeout(PATIENCE).expect("the publisher begins");
    let life = LIFE_MAX.mul_f64(random.random());
    std::thread::sleep(life);
    kill(publisher);
    listener.join().unwrap();
    // All that was in the pipe counts: it was told before the end.
    told.try_iter().last().unwrap_or(first)
}

/// Kills a publisher at about the time when it opens the log.
fn kill_early(directory: &Path, life: u64, random: &mut impl Rng) -> u64 {
    let publisher = spawn(directory, life);
    std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
    kill(publisher);
    0
}

fn spawn(directory: &Path, life: u64) -> Child {
    let sync = ["every-batch", "interval", "none"][(life % 3) as usize];
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", ROLE, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(SYNC, sync)
        .env("JETRING_CRASH_LIFE", life.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// By SIGKILL.
fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
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

fn ask<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(question)
}

#[test]
#[ignore = "a role in the test above, which starts it in a process of its own and kills it"]
fn a_publisher_that_is_going_to_be_killed() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("it is told the directory"));
    let life = number_of("JETRING_CRASH_LIFE", 0);
    let mut config = config(&directory);
    config.spool.sync = match std::env::var(SYNC).unwrap().as_str() {
        "every-batch" => SpoolSync::EveryBatch,
        "interval" => SpoolSync::Interval(Duration::from_millis(20)),
        _ => SpoolSync::None,
    };
    // A ring for each thread, so that the order of each is visible.
    config.queue.rings = jetring::Rings::Count(2.try_into().unwrap());
    let bus = Bus::start(config).unwrap();
    for thread in 0..THREADS {
        let topic = bus.topic("numbered").unwrap();
        std::thread::spawn(move || {
            let mut number = 0;
            loop {
                for _ in 0..EVENTS_AT_ONCE {
                    let filling = "x".repeat((number * 13 % 300) as usize);
                    let event = Numbered { life, thread, number: number + 1, filling };
                    if topic.publish(&event).is_accepted() {
                        number += 1;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
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
