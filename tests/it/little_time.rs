//! A close with little or no time: every event has its account all the same, in each way of keeping events.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jetring::{Bus, Config, Report, WhenFull};

use crate::server::wait_until;
use crate::support::{LOAD, NO_SERVER, Seen, bus_with, prove_ledger};

const DEADLINES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(20)];

/// Only a hang comes near it. What a close may be late by is judged where time is simulated (`publisher/worker/worlds.rs`).
const PATIENCE: Duration = Duration::from_secs(60);

/// The ways of keeping events, each with a name.
fn modes(directory: &Path) -> [(&'static str, String, WhenFull); 5] {
    [
        ("drop-newest", NO_SERVER.to_owned(), WhenFull::DropNewest),
        ("block", NO_SERVER.to_owned(), WhenFull::Block(Duration::from_millis(100))),
        ("spool", NO_SERVER.to_owned(), WhenFull::Spool),
        ("file", format!("file:{}", directory.join("log").display()), WhenFull::DropNewest),
        ("null", "null:".to_owned(), WhenFull::DropNewest),
    ]
}

fn each_mode(mut each: impl FnMut(&str, Duration, &dyn Fn(&dyn Fn(&mut Config)) -> Bus)) {
    for deadline in DEADLINES {
        for index in 0..5 {
            let parent = tempfile::tempdir().expect("a directory");
            let (name, url, when_full) = &modes(parent.path())[index];
            let start = |change: &dyn Fn(&mut Config)| {
                bus_with(url, |config| {
                    config.queue.when_full = *when_full;
                    config.spool.dir = (*when_full == WhenFull::Spool).then(|| parent.path().join("spool"));
                    change(config);
                })
            };
            each(name, deadline, &start);
        }
    }
}

/// Everything has its account, and keeps it.
#[track_caller]
fn judge(told: &str, bus: &Bus, report: &Report, seen: &Seen) {
    let stats = &report.stats;
    let is_open = |stats: &jetring::Stats| stats.queued + stats.in_flight > 0;
    assert_eq!(stats.check(), Ok(()), "{told}: {stats:?}");
    if is_open(stats) {
        // A machine that stood still for longer than a close may be late has to say so, and counts the rest later.
        assert!(!report.complete, "{told}: {stats:?}");
        return wait_until("the rest is counted", || !is_open(&bus.stats()));
    }
    let later = bus.stats();
    let fates = |stats: &jetring::Stats| (stats.acked, stats.indeterminate, stats.spooled);
    assert_eq!(fates(stats), fates(&later), "{told}");
    // But for what was offered in vain in the meantime.
    assert!(stats.offered <= seen.offered, "{told}: {stats:?}");
    assert_eq!((later.check(), later.offered), (Ok(()), seen.offered), "{told}: {later:?}");
}

#[test]
fn a_close_without_time_accounts_for_every_event() {
    each_mode(|mode, deadline, start| {
        let bus = start(&|_| {});
        let mut seen = Seen::default();
        seen.publish(&bus, LOAD, 0..1000);
        let report = bus.close(deadline);
        judge(&format!("{mode} {deadline:?}"), &bus, &report, &seen);
        if mode == "spool" {
            assert_eq!(bus.stats().spooled, 1000, "{deadline:?}: {report:?}");
        }
        if mode != "spool" {
            prove_ledger(&bus.close(deadline), &seen);
        }
    });
}

#[test]
fn closes_without_time_from_several_threads_account_for_what_others_publish_meanwhile() {
    each_mode(|mode, deadline, start| {
        // A directory is one stream.
        let bus = start(&|config| config.partitions = if mode == "file" { 1 } else { 3 });
        let enough = AtomicBool::new(false);
        let (seen, reports) = thread::scope(|scope| {
            let publish = |thread: u64| {
                let (bus, enough) = (&bus, &enough);
                scope.spawn(move || {
                    let mut seen = Seen::default();
                    while !enough.load(Ordering::Relaxed) {
                        let number = seen.offered;
                        if !seen.call(|| bus.publish_keyed(LOAD, [thread as u8], &number)).is_accepted() {
                            thread::yield_now();
                        }
                    }
                    seen
                })
            };
            let publishers = [publish(0), publish(1), publish(2)];
            wait_until("there are events", || bus.stats().offered > 600);
            let closers = [0, 1, 2].map(|_| scope.spawn(|| bus.close(deadline)));
            let reports = closers.map(|closer| closer.join().expect("no panic"));
            enough.store(true, Ordering::Relaxed);
            let seen = publishers.map(|publisher| publisher.join().expect("no panic"));
            (seen.into_iter().fold(Seen::default(), Seen::merge), reports)
        });
        for report in &reports {
            judge(&format!("{mode} {deadline:?}"), &bus, report, &seen);
        }
    });
}

/// Nobody waits for the worker, and it accounts for everything all the same.
#[test]
fn a_bus_that_is_dropped_without_time_lays_down_what_it_holds() {
    for timeout in DEADLINES {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("spool");
        let change = |config: &mut Config| {
            config.queue.when_full = WhenFull::Spool;
            config.spool.dir = Some(directory.clone());
            config.shutdown.timeout = timeout;
        };
        let bus = bus_with(NO_SERVER, change);
        Seen::default().publish(&bus, LOAD, 0..1000);
        drop(bus);
        // The next one opens the directory as soon as the first has left it.
        let next = bus_with(NO_SERVER, change);
        wait_until("the next bus has found them", || next.stats().recovered >= 1000);
        drop(next);
    }
}

#[test]
fn a_close_hangs_in_no_mode() {
    each_mode(|mode, deadline, start| {
        let bus = start(&|_| {});
        Seen::default().publish(&bus, LOAD, 0..100);
        let began = Instant::now();
        let _ = bus.close(deadline);
        assert!(began.elapsed() < PATIENCE, "{mode} {deadline:?}");
    });
}
