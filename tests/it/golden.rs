//! Directories that an earlier version has left: those of its format are read and sent, for ever; those of another format are refused, untouched.
//!
//! `tests/data/format-1` was written by `jetring publish` of November 2026 and does not change. `spool` is what three processes have left that had no
//! server (numbers 1 to 10 as `n1`, to 20 as `n0`, to 30 as `n1`, with packed framing in the second), `events` a directory in the place of a server:
//! 1 to 30 as `a` in a frame of lz4, 31 to 40 as `b` in another. A new format gets a directory of its own beside it.

use crate::server::wait_until;
use crate::support::{CLOSE, NO_SERVER, ask, config, server_with_stream};
use jetring::audit::Audit;
use jetring::envelope::Envelope;
use jetring::reader::{From, Reader};
use jetring::spool::{self, Entries, Entry};
use jetring::{Bus, Config, WhenFull};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A copy of a directory of format 1, which goes with the test.
fn copy_of(name: &str) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join(name);
    fs::create_dir(&path).expect("it can be made");
    for (file, bytes) in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1").join(name))
    {
        fs::write(path.join(file), bytes).expect("it can be written");
    }
    (parent, path)
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("it can be read"));
    let file = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).expect("it can be read");
        (entry.file_name().into_string().expect("a name of ours"), bytes)
    };
    entries.map(file).collect()
}

/// Name and body of each event that a reader finds, and what they prove.
fn read(config: &Config) -> (Vec<(String, String)>, Audit) {
    ask(async {
        let mut reader = Reader::open(config, "event.1.>", From::All, false).await.expect("it opens");
        let (mut events, mut audit) = (Vec::new(), Audit::new(true));
        while let Some(received) = reader.next().await.expect("it reads") {
            audit.observe_frame(&received.subject, received.unpack());
            let name = received.subject.strip_prefix("event.1.").expect("it is below the filter");
            if name.starts_with("_bus.") {
                continue;
            }
            for event in &received.unpack().expect("it is ours") {
                let envelope = Envelope::parse(event).expect("it is ours");
                events.push((name.to_owned(), envelope.body.get().to_owned()));
            }
        }
        (events, audit)
    })
}

#[test]
fn a_spool_of_format_1_is_whole_and_its_messages_are_what_they_were() {
    let (_parent, path) = copy_of("spool");
    let verdict = spool::verify(&path).expect("it can be read");
    assert!(
        verdict.is_sound() && (verdict.first, verdict.last, verdict.payload_bytes) == (1, 36, 4809),
        "{verdict:?}"
    );
    let mut numbers = 1..=30;
    for (at, entry) in (1..).zip(Entries::open(&path).expect("it is a log")) {
        let Ok(Entry::Message { sequence, subject, headers, payload }) = entry else { panic!("{entry:?}") };
        assert_eq!(sequence, at);
        let envelope = Envelope::parse(&payload).expect("it is an envelope");
        let (producer, seq) = envelope.stamp().expect("it has a stamp");
        assert_eq!(headers, [("Nats-Msg-Id".to_owned(), format!("{producer}-{seq}"))]);
        if subject.starts_with("event.1._bus.") {
            continue;
        }
        let number = numbers.next().expect("there are no more");
        let name = if (11..=20).contains(&number) { "n0" } else { "n1" };
        assert_eq!((subject, envelope.body.get()), (format!("event.1.{name}"), &*number.to_string()));
    }
    assert_eq!(numbers.next(), None);
}

#[test]
fn a_spool_of_format_1_is_sent() {
    let server = server_with_stream();
    let (_parent, path) = copy_of("spool");
    let bus = Bus::replay(config(&server.url()), &path).expect("it can be opened");
    wait_until("all is sent", || bus.stats().held() == 0);
    let report = bus.close(CLOSE);
    assert_eq!((report.stats.recovered, report.stats.acked), (36, 36), "{report:?}");
    let (events, audit) = read(&config(&server.url()));
    assert!(events.iter().map(|(_, body)| body.parse::<u64>().expect("a number")).eq(1..=30), "{events:?}");
    let verdict = audit.verdict();
    assert!(verdict.is_sound() && (verdict.delivered, verdict.lost_declared) == (30, 0), "{verdict:?}");
}

#[test]
#[cfg(feature = "lz4")]
fn a_directory_of_format_1_is_read_and_goes_on_in_the_place_of_a_server() {
    let (_parent, path) = copy_of("events");
    let config = config(&format!("file:{}", path.display()));
    let bus = Bus::start(config.clone()).expect("the configuration is valid");
    for number in 41..=50 {
        assert!(bus.publish("c", &number).is_accepted());
    }
    assert!(bus.close(CLOSE).complete);
    let (events, audit) = read(&config);
    assert_eq!(events.len(), 50);
    for (number, (name, body)) in (1..=50).zip(events) {
        let expected = match number {
            1..=30 => ("a", number.to_string()),
            31..=40 => ("b", format!(r#"{{"n":{number},"text":"{}"}}"#, "x".repeat(200))),
            _ => ("c", number.to_string()),
        };
        assert_eq!((&*name, body), expected);
    }
    assert!(audit.verdict().is_sound(), "{:?}", audit.verdict());
    assert!(spool::verify(&path).expect("it can be read").is_sound());
}

/// Makes a directory one of format 2, as far as anybody can know of it who does not know that format.
fn make_format_2(path: &Path) {
    let mut meta = fs::read(path.join("META")).expect("it is there");
    meta[8] = 2;
    let sum = [&b"META"[..], &[0; 8], &meta[..60]]
        .into_iter()
        .fold(crc32c::crc32c(&meta[16..32]), crc32c::crc32c_append);
    meta[60..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(path.join("META"), meta).expect("it can be written");
}

#[test]
fn a_directory_of_another_format_is_refused_by_everybody_and_not_touched() {
    let (_parent, path) = copy_of("spool");
    make_format_2(&path);
    let before = files(&path);
    let errors = [
        spool::overview(&path).map(drop).expect_err("an overview").to_string(),
        spool::verify(&path).map(drop).expect_err("a verdict").to_string(),
        spool::repair(&path).map(drop).expect_err("a repair").to_string(),
        Entries::open(&path).map(drop).expect_err("entries").to_string(),
        Bus::replay(config(NO_SERVER), &path).map(drop).expect_err("a replay").to_string(),
        ask(Reader::open(&config(&format!("file:{}", path.display())), "", From::All, false))
            .map(drop)
            .expect_err("a reader")
            .to_string(),
    ];
    for text in errors {
        assert!(text.contains("version 2") && text.contains("version 1"), "{text}");
    }
    assert_eq!(files(&path), before);

    // A bus keeps its events in memory, as with a directory that is in use.
    let mut spooling = config(NO_SERVER);
    spooling.queue.when_full = WhenFull::Spool;
    spooling.spool.dir = Some(path.clone());
    let embedded = config(&format!("file:{}", path.display()));
    for config in [spooling, embedded] {
        let bus = Bus::start(config).expect("the configuration is valid");
        assert!(bus.publish("a", &1).is_accepted());
        let stats = bus.close(Duration::from_secs(1)).stats;
        assert_eq!(
            (stats.acked, stats.spooled, stats.recovered, stats.check()),
            (0, 0, 0, Ok(())),
            "{stats:?}"
        );
        assert_eq!(files(&path), before);
    }
}
