//! A directory in the place of a server: the same events, the same tool, the same proofs.

use crate::cli::{assert_refused, assert_status, file, jetring, json_of, path as path_of, stdout};
use crate::support::{CLOSE, LOAD, Numbered, Seen, ask};
use jetring::audit::Audit;
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, Framing, Offer, Reason, SpoolFull, SpoolSync};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A directory that is not there yet, in one that goes with the test.
fn directory() -> (tempfile::TempDir, PathBuf, String) {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("events");
    let url = format!("file:{}", path.display());
    (parent, path, url)
}

fn config(url: &str, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::new(url, "main", 1).expect("the url is valid");
    change(&mut config);
    config
}

/// Publishes numbered events without losing one for want of room in a ring.
fn publish(bus: &Bus, numbers: std::ops::Range<u64>) -> Seen {
    let mut seen = Seen::default();
    for number in numbers {
        while !bus.has_room(200) {
            std::thread::yield_now();
        }
        seen.call(|| bus.publish(LOAD, &Numbered::new(0, number)));
    }
    seen
}

/// What the directory proves.
#[track_caller]
fn audit(url: &str) -> jetring::audit::Verdict {
    ask(async {
        let config = config(url, |_| {});
        let mut reader = Reader::open(&config, "event.1.>", From::All, false).await.expect("it opens");
        let mut audit = Audit::new(reader.first_sequence() <= 1);
        while let Some(received) = reader.next().await.expect("it reads") {
            audit.observe_frame(&received.subject, received.unpack());
        }
        audit.verdict()
    })
}

#[test]
fn the_demo_needs_no_server() {
    let (_parent, path, url) = directory();
    let output = jetring(&["demo", "--url", &url, "--rate", "4000", "--seconds", "2", "--json"], "");
    assert_status(&output, 0);
    let summary = json_of(&output);
    assert_eq!(summary["acked"], summary["offered"]);
    let verify = &summary["verify"];
    assert_eq!(verify["delivered"], summary["offered"]);
    for count in ["duplicates", "reordered", "lost_declared", "lost_undeclared"] {
        assert_eq!(verify[count], 0, "{count}");
    }
    let output = jetring(&["verify", "--url", &url, "--json"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["delivered"], summary["offered"]);
    let output = jetring(&["spool", "verify", path.to_str().expect("text"), "--json"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["missing"]["sequences"], 0);
}

#[test]
fn lines_come_out_of_a_directory_as_they_went_in() {
    let (_parent, path, url) = directory();
    let bodies = [r#"{"big":123456789012345678901234567890,"f":1.10}"#, r#"["é","\u00e9",null]"#, "7"];
    for body in bodies {
        let output = jetring(&["publish", "lines", "--url", &url, "--request-id", "q-9", "--json"], body);
        assert_status(&output, 0);
        assert_eq!((&json_of(&output)["offered"], &json_of(&output)["acked"]), (&json!(1), &json!(1)));
    }
    let tap =
        jetring(&["tap", "event.1.lines", "--url", &url, "--from", "all", "--count", "3", "--json"], "");
    assert_status(&tap, 0);
    for (line, body) in stdout(&tap).lines().zip(bodies) {
        assert!(
            line.contains(&format!("\"body\":{body}")) && line.contains("q-9"),
            "{body} is not in {line}"
        );
    }
    // Each process has said that it started and that it stopped.
    let dir = path.to_str().expect("text");
    let dump = jetring(&["spool", "dump", dir], "");
    assert_status(&dump, 0);
    assert_eq!(stdout(&dump).lines().count(), 9);
    let ls = jetring(&["spool", "ls", dir], "");
    assert_status(&ls, 0);
    assert!(stdout(&ls).contains("3 segments") && stdout(&ls).contains("; closed"), "{}", stdout(&ls));
}

#[test]
fn each_sync_policy_delivers_everything_in_order() {
    for sync in [SpoolSync::None, SpoolSync::Interval(Duration::from_millis(1)), SpoolSync::EveryBatch] {
        for framing in [Framing::Plain, Framing::Packed] {
            let (_parent, path, url) = directory();
            let bus = Bus::start(config(&url, |config| {
                config.spool.sync = sync;
                config.delivery.framing = framing;
            }))
            .expect("the configuration is valid");
            publish(&bus, 0..5000);
            let report = bus.close(CLOSE);
            assert!(report.complete, "{report:?}");
            assert_eq!(report.stats.acked, 5000);
            let verdict = audit(&url);
            assert!(verdict.is_sound(), "{verdict:?}");
            assert_eq!((verdict.delivered, verdict.duplicates), (5000, 0), "{sync:?} {framing:?}");
            assert!(jetring::spool::overview(&path).expect("it can be read").is_closed);
        }
    }
}

#[test]
fn a_directory_in_use_is_waited_for() {
    let (_parent, _path, url) = directory();
    let first = Bus::start(config(&url, |_| {})).expect("the configuration is valid");
    publish(&first, 0..10);
    assert!(first.flush(CLOSE).complete);
    let second = Bus::start(config(&url, |_| {})).expect("the configuration is valid");
    publish(&second, 0..10);
    assert!(!second.flush(Duration::from_millis(300)).complete && !second.is_connected());
    assert!(first.close(CLOSE).complete);
    assert!(second.close(CLOSE).complete);
    assert_eq!(audit(&url).delivered, 20);
}

#[test]
fn a_full_directory_drops_the_newest_and_says_so_in_itself() {
    let (_parent, path, url) = directory();
    let bus = Bus::start(config(&url, |config| {
        config.spool.max_bytes = 16 << 20;
        config.spool.sync = SpoolSync::None;
    }))
    .expect("the configuration is valid");
    let deadline = Instant::now() + CLOSE;
    let mut number = 0;
    while bus.stats().dropped.get(Reason::SpoolFull) < 1000 {
        number = publish_large(&bus, number);
        assert!(Instant::now() < deadline, "it does not get full: {:?}", bus.stats());
    }
    let report = bus.close(CLOSE);
    assert!(report.complete, "{report:?}");
    report.stats.check().expect("the ledger balances");
    let verdict = audit(&url);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!(verdict.delivered, report.stats.acked);
    assert_eq!(verdict.lost_declared, report.stats.dropped.total());
    assert!(bytes_in(&path) <= 16 << 20);
}

#[test]
fn a_full_directory_deletes_the_oldest_if_it_is_told_to() {
    let (_parent, path, url) = directory();
    let bus = Bus::start(config(&url, |config| {
        config.spool.max_bytes = 16 << 20;
        config.spool.when_full = SpoolFull::DropOldest;
        config.spool.sync = SpoolSync::None;
    }))
    .expect("the configuration is valid");
    let mut number = 0;
    while number < 40_000 {
        number = publish_large(&bus, number);
    }
    let report = bus.close(CLOSE);
    assert!(report.complete, "{report:?}");
    assert_eq!(report.stats.acked, report.stats.offered);
    assert!(bytes_in(&path) <= 16 << 20);
    let overview = jetring::spool::overview(&path).expect("it can be read");
    let verdict = jetring::spool::verify(&path).expect("it can be read");
    assert!(overview.evicted > 0 && verdict.is_sound(), "{verdict:?}");
    assert_eq!(verdict.first, overview.evicted + 1);
    // Two reports beside the events.
    assert!(verdict.last >= report.stats.acked + 2);
}

/// Publishes a thousand events of a kilobyte; returns the next number.
fn publish_large(bus: &Bus, number: u64) -> u64 {
    for number in number..number + 1000 {
        while !bus.has_room(1200) {
            std::thread::yield_now();
        }
        let _: Offer = bus.publish(LOAD, &Numbered::with_text(number, 1000));
    }
    number + 1000
}

fn bytes_in(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("the directory is there");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum()
}

#[test]
fn a_directory_that_is_removed_is_made_again_and_what_waits_goes_there() {
    let (_parent, path, url) = directory();
    let bus = Bus::start(config(&url, |_| {})).expect("the configuration is valid");
    publish(&bus, 0..100);
    assert!(bus.flush(CLOSE).complete);
    std::fs::remove_dir_all(&path).expect("it can be removed");
    publish(&bus, 100..200);
    assert!(bus.flush(CLOSE).complete);
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.acked, 200);
    // The first hundred are with the directory that was removed.
    let verdict = audit(&url);
    assert_eq!((verdict.delivered, verdict.duplicates, verdict.reordered), (100, 0, 0));
}

#[test]
fn damage_is_found_repaired_and_stays_visible() {
    let (_parent, path, url) = directory();
    let output = jetring(&["publish", "a", "--url", &url], &"{\"n\":1}\n".repeat(500));
    assert_status(&output, 0);
    let entries = std::fs::read_dir(&path).expect("the directory is there");
    let mut segments = entries.map(|entry| entry.expect("an entry").path());
    let segment = segments.find(|path| path.extension().is_some_and(|end| end == "seg")).expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).expect("it can be written");
    let dir = path.to_str().expect("text");
    let verify = jetring(&["spool", "verify", dir], "");
    assert_status(&verify, 1);
    assert!(
        stdout(&verify).contains(": 1 (") && stdout(&verify).contains("damaged batch"),
        "{}",
        stdout(&verify)
    );
    let repair = jetring(&["spool", "repair", dir, "--json"], "");
    assert_status(&repair, 1);
    assert_eq!(json_of(&repair)["verdict"]["damages"], 0);
    assert_eq!(json_of(&repair)["verdict"]["missing"]["sequences"], 1);
    assert!(stdout(&jetring(&["spool", "ls", dir], "")).contains("put aside"));
    // The proof by the numbers of the events finds the same.
    let verify = jetring(&["verify", "--url", &url, "--json"], "");
    assert_status(&verify, 1);
    assert_eq!(json_of(&verify)["lost_undeclared"], 1);
}

#[test]
fn what_cannot_be_is_refused_with_words() {
    let (_parent, path, url) = directory();
    assert_refused(&["verify", "--url", &url], 1, &["there is no log in it"]);
    assert_refused(&["spool", "verify", "/nonexistent"], 1, &["/nonexistent"]);
    assert_refused(&["bench", "--url", &url, "--mode", "fast"], 78, &["delivery.mode", "file:DIR"]);
    assert_refused(&["verify", "--url", "file:"], 78, &["the directory is missing"]);
    let with_server = file("[event-bus]\nchain-id = 1\nspool.sync = 'none'\n");
    assert_refused(&["verify", "--config", path_of(&with_server)], 78, &["spool", "file:DIR"]);
    assert!(!path.exists(), "nothing was made");
}
