//! A spool that was damaged: what is lost is counted, its producers and numbers are declared as far as anybody can know them, and the rest is sent.

use crate::server::wait_until;
use crate::support::{CLOSE, LOAD, Numbered, ask, config, server_with_stream};
use jetring::audit::{Audit, Verdict};
use jetring::reader::{From, Reader};
use jetring::report::Gap;
use jetring::{Bus, Config, Framing, Reason, WhenFull};
use std::fs;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SEGMENT: &str = "0000000000000001.seg";

/// Threads, and the events of each of them in a round.
const THREADS: u8 = 2;
const AT_ONCE: u64 = 40;

fn spooling(url: &str, directory: &Path, framing: Framing) -> Config {
    let mut config = config(url);
    config.queue.capacity = 128 << 10;
    config.queue.max_event = 1 << 10;
    config.queue.rings = jetring::Rings::Count(NonZeroUsize::new(THREADS.into()).expect("there are some"));
    config.queue.when_full = WhenFull::Spool;
    config.delivery.framing = framing;
    config.delivery.max_in_flight = 64;
    config.delivery.ack_timeout = Duration::from_millis(200);
    config.spool.dir = Some(directory.to_owned());
    config
}

/// What two threads have left, one with two kinds of events, and their bus, that had no server.
fn left_behind(framing: Framing) -> (tempfile::TempDir, PathBuf) {
    let mut server = server_with_stream();
    let url = server.url();
    server.kill();
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    let bus = Bus::start(spooling(&url, &path, framing)).expect("the configuration is valid");
    let mut published = 0;
    let mut publish = |events: u64| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let bus = &bus;
                scope.spawn(move || {
                    for number in published..published + events {
                        let name = if thread == 1 && number % 3 == 0 { "other" } else { LOAD };
                        assert!(bus.publish(name, &Numbered::new(thread.into(), number)).is_accepted());
                    }
                });
            }
        });
        published += events;
    };
    // What the window holds goes to the log when nothing is answered; then each round is a batch or more.
    publish(AT_ONCE);
    wait_until("events go to the spool", || {
        publish(1);
        bus.stats().spooled > 0
    });
    for _ in 0..15 {
        publish(AT_ONCE);
        wait_until("they are on their way to the log", || bus.stats().queued == 0);
    }
    let spooled = bus.close(Duration::from_secs(3)).stats.spooled;
    assert_eq!(spooled, published * u64::from(THREADS));
    (parent, path)
}

/// A segment, and where its parts are.
struct Segment {
    bytes: Vec<u8>,
    log: [u8; 16],
    batches: Vec<Batch>,
}

struct Batch {
    head: usize,
    end: usize,
    records: Vec<Range<usize>>,
}

impl Segment {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path.join(SEGMENT)).expect("it is there");
        let number =
            |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        let (mut batches, mut head) = (Vec::new(), 64);
        while head + 32 <= bytes.len() {
            let (count, end) = (number(head + 16), head + 32 + number(head + 20));
            let mut start = head + 32 + 8 * count;
            let record = |index: usize| {
                let record = start..start + number(head + 32 + 8 * index);
                start = record.end;
                record
            };
            batches.push(Batch { head, end, records: (0..count).map(record).collect() });
            head = end;
        }
        assert!(batches.len() > 10, "{}", batches.len());
        let log = bytes[16..32].try_into().expect("sixteen bytes");
        Self { bytes, log, batches }
    }

    fn record(&self, batch: usize, index: usize) -> Range<usize> {
        self.batches[batch].records[index].clone()
    }

    fn flip(&mut self, at: usize) {
        self.bytes[at] ^= 0x04;
    }

    /// In the last byte of a payload.
    fn flip_end_of(&mut self, batch: usize, index: usize) {
        let at = self.record(batch, index).end - 1;
        self.flip(at);
    }

    fn garble(&mut self, range: Range<usize>) {
        self.bytes[range].fill(0x55);
    }

    fn garble_batch(&mut self, batch: usize) {
        self.garble(self.batches[batch].head..self.batches[batch].end);
    }

    /// Makes a record one of another kind, with all its checksums.
    fn change_kind_of(&mut self, batch: usize, index: usize) {
        let record = self.record(batch, index);
        self.bytes[record.start] = 9;
        let Batch { head, ref records, .. } = self.batches[batch];
        let seed = crc32c::crc32c_append(crc32c::crc32c(&self.log), &1u64.to_le_bytes());
        let sum = |bytes: &[u8], at: usize, range: Range<usize>| {
            crc32c::crc32c_append(crc32c::crc32c_append(seed, &(at as u64).to_le_bytes()), &bytes[range])
        };
        let table = head + 32..head + 32 + 8 * records.len();
        let of_record = sum(&self.bytes, record.start, record);
        self.bytes[table.start + 8 * index + 4..][..4].copy_from_slice(&of_record.to_le_bytes());
        let of_table = sum(&self.bytes, table.start, table);
        self.bytes[head + 24..head + 28].copy_from_slice(&of_table.to_le_bytes());
        let of_head = sum(&self.bytes, head, head + 8..head + 32);
        self.bytes[head + 4..head + 8].copy_from_slice(&of_head.to_le_bytes());
    }

    /// The first batch with more than one record behind this one.
    fn large_batch_from(&self, from: usize) -> usize {
        let large = (from..self.batches.len() - 1).find(|&batch| self.batches[batch].records.len() > 2);
        large.expect("threads that publish fast fill them")
    }
}

/// What became of a damaged spool.
struct Outcome {
    lost: u64,
    verdict: Verdict,
    gaps: Vec<Gap>,
}

/// Damages a copy of a spool, and lets the next process send it.
fn send_damaged(
    path: &Path,
    framing: Framing,
    is_closed: bool,
    damage: impl FnOnce(&mut Segment),
) -> Outcome {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let copy = parent.path().join("spool");
    fs::create_dir(&copy).expect("it can be made");
    for entry in fs::read_dir(path).expect("it is there") {
        let entry = entry.expect("it can be read");
        // Whose position is not known was not closed.
        if is_closed || entry.file_name() != "POSITION" {
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("it can be copied");
        }
    }
    let mut segment = Segment::read(&copy);
    damage(&mut segment);
    fs::write(copy.join(SEGMENT), segment.bytes).expect("it can be written");
    let server = server_with_stream();
    let bus = Bus::start(spooling(&server.url(), &copy, framing)).expect("the configuration is valid");
    wait_until("all has met its fate", || bus.stats().recovered > 0 && bus.stats().held() == 0);
    let stats = bus.close(CLOSE).stats;
    assert_eq!((stats.offered, stats.check()), (stats.recovered, Ok(())), "{stats:?}");
    let lost = stats.dropped.get(Reason::SpoolFull);
    assert_eq!(stats.acked + lost, stats.offered, "{stats:?}");
    let (mut audit, mut gaps) = (Audit::new(true), Vec::new());
    ask(async {
        let mut reader =
            Reader::open(&config(&server.url()), "event.1.>", From::All, false).await.expect("it opens");
        while let Some(received) = reader.next().await.expect("it reads") {
            audit.observe_frame(&received.subject, received.unpack());
            if received.subject.ends_with("._bus.gap") {
                let envelope = jetring::envelope::Envelope::parse(&received.payload).expect("it is ours");
                gaps.push(serde_json::from_str(envelope.body.get()).expect("it is a gap"));
            }
        }
    });
    Outcome { lost, verdict: audit.verdict(), gaps }
}

type Damage = fn(&mut Segment);

/// Each with the name by which it is told, and how many records it costs at least.
fn damages() -> Vec<(&'static str, u64, Damage)> {
    vec![
        ("three flipped bytes", 3, |segment| {
            let last = segment.batches.len() - 2;
            for batch in [0, segment.batches.len() / 2, last] {
                segment.flip_end_of(batch, 0);
            }
        }),
        ("first and last record of the events", 2, |segment| {
            segment.flip_end_of(0, 0);
            let last = segment.batches.len() - 2;
            let index = segment.batches[last].records.len() - 1;
            segment.flip_end_of(last, index);
        }),
        ("ids that cannot be read", 3, |segment| {
            for batch in [0, segment.batches.len() / 3, segment.batches.len() / 2] {
                let record = segment.record(batch, 0);
                segment.garble(record);
            }
        }),
        ("a table", 3, |segment| {
            let batch = segment.large_batch_from(segment.batches.len() / 2);
            segment.flip(segment.batches[batch].head + 32 + 3);
        }),
        ("a head", 3, |segment| {
            let batch = segment.large_batch_from(segment.batches.len() / 3);
            segment.flip(segment.batches[batch].head + 9);
        }),
        ("several batches, one behind the other", 9, |segment| {
            let batch = segment.large_batch_from(segment.batches.len() / 3);
            (batch..batch + 4).for_each(|batch| segment.garble_batch(batch));
        }),
        ("the first batch", 1, |segment| segment.garble_batch(0)),
        ("the last batch of events", 1, |segment| segment.garble_batch(segment.batches.len() - 2)),
        ("all that is not the last", 100, |segment| {
            (0..segment.batches.len() - 1).for_each(|batch| segment.garble_batch(batch));
        }),
        ("records of another kind", 2, |segment| {
            segment.change_kind_of(0, 0);
            let batch = segment.large_batch_from(segment.batches.len() / 2);
            segment.change_kind_of(batch, 1);
        }),
    ]
}

#[test]
fn what_damage_costs_is_declared_to_the_last_event() {
    for framing in [Framing::Plain, Framing::Packed] {
        let (_parent, path) = left_behind(framing);
        for (what, least, damage) in damages() {
            let Outcome { lost, verdict, .. } = send_damaged(&path, framing, true, damage);
            assert!(lost >= least, "{what}: {lost}");
            assert_eq!(
                (verdict.lost_declared, verdict.lost_undeclared),
                (lost, 0),
                "{framing:?}, {what}: {verdict:?}"
            );
            assert!(verdict.is_sound() && verdict.duplicates == 0, "{framing:?}, {what}: {verdict:?}");
        }
    }
}

#[test]
fn a_gap_names_the_events_that_can_still_be_read() {
    let (_parent, path) = left_behind(Framing::Plain);
    let legible = send_damaged(&path, Framing::Plain, true, |segment| segment.flip_end_of(0, 0));
    let [Gap { first, last, lost: 1, ref counts, .. }] = legible.gaps[..] else {
        panic!("{:?}", legible.gaps)
    };
    assert!(first == last && [LOAD, "other"].contains(&&*counts[0].name), "{counts:?}");
    assert_eq!(counts[0].reason, "spool_full");
    let garbled = send_damaged(&path, Framing::Plain, true, |segment| segment.garble(segment.record(0, 0)));
    let [Gap { lost: 1, ref counts, .. }] = garbled.gaps[..] else { panic!("{:?}", garbled.gaps) };
    assert_eq!((&*counts[0].name, &*counts[0].reason), ("_other", "spool_full"));
}

#[test]
fn a_flipped_byte_in_the_last_batch_of_a_process_that_was_killed_costs_one_record() {
    let (_parent, path) = left_behind(Framing::Plain);
    let Outcome { lost, verdict, .. } = send_damaged(&path, Framing::Plain, false, |segment| {
        // Without the reports of the bus, as after a kill.
        let reports = segment.batches.pop().expect("it has some");
        segment.bytes.truncate(reports.head);
        let batch = (0..segment.batches.len()).rfind(|&batch| segment.batches[batch].records.len() > 2);
        let batch = batch.expect("one has more");
        segment.bytes.truncate(segment.batches[batch].end);
        segment.flip_end_of(batch, 1);
    });
    assert_eq!((lost, verdict.lost_declared, verdict.lost_undeclared), (1, 1, 0), "{verdict:?}");
}

#[test]
fn what_a_damaged_directory_of_frames_has_lost_is_declared() {
    for framing in [Framing::Plain, Framing::Packed] {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("events");
        let mut config = config(&format!("file:{}", path.display()));
        config.delivery.framing = framing;
        let bus = Bus::start(config).expect("the configuration is valid");
        for number in 0..2000 {
            while !bus.has_room(200) {
                std::thread::yield_now();
            }
            assert!(bus.publish(LOAD, &Numbered::new(0, number)).is_accepted());
            if number % 100 == 0 {
                assert!(bus.flush(CLOSE).complete);
            }
        }
        assert!(bus.close(CLOSE).complete);
        let Outcome { lost, verdict, .. } = send_damaged(&path, framing, true, |segment| {
            let (middle, last) = (segment.batches.len() / 2, segment.batches.len() - 2);
            for batch in [1, middle, last] {
                let record = segment.record(batch, 0);
                segment.garble(record);
            }
        });
        assert_eq!(lost, 3, "{framing:?}");
        let is_enough = match framing {
            Framing::Packed => verdict.lost_declared > 3,
            _ => verdict.lost_declared == 3,
        };
        assert!(is_enough && verdict.is_sound(), "{framing:?} {verdict:?}");
    }
}
