//! Errors of the server's `errors.json` that a publish can meet, each with a bus on the mock server: whom it holds up.

use std::time::{Duration, Instant};

use jetring::testing::{ApiError, Fault, MockServer, Script};
use jetring::{Bus, Config, Mode, Reason};
use serde_json::json;

use crate::bus::read;
use crate::server::wait_until;

const MODES: [Mode; 2] = [Mode::Async, Mode::Fast];
const CLOSE: Duration = Duration::from_secs(30);

fn server() -> MockServer {
    let server = MockServer::start();
    server.add_stream("main", &["event.1.>"]);
    server
}

fn config(server: &MockServer, mode: Mode) -> Config {
    let mut config = server.config();
    config.delivery.mode = mode;
    config
}

/// The first message is the bus's own report that it has started.
const STARTED: u64 = 1;

/// Buses at once: most of their time they wait.
const AT_ONCE: usize = 16;

#[test]
fn each_error_has_the_end_that_the_table_says() {
    let errors = jetring::__internals::publish_errors();
    std::thread::scope(|threads| {
        for part in errors.chunks(errors.len().div_ceil(AT_ONCE)) {
            threads.spawn(move || part.iter().for_each(try_error));
        }
    });
}

fn try_error(&(code, err_code, text, scope): &(u64, u64, &'static str, &'static str)) {
    let (Ok(code), Ok(err_code)) = (u16::try_from(code), u16::try_from(err_code)) else { return };
    let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == scope);
    for mode in MODES {
        let what = format!("{mode:?}: {err_code} {text}: {scope}");
        let server = server();
        let error = ApiError::new(code, err_code, text);
        server.play(Script::new().pass(STARTED).for_ever(Fault::Refused(error)));
        let bus = Bus::start(config(&server, mode)).unwrap();
        wait_until("the report that it has started is stored", || server.messages("main").len() == 1);
        assert!(bus.publish("number", &0).is_accepted());
        match reason {
            Some(reason) => wait_until(&what, || bus.stats().dropped.get(reason) == 1),
            None => assert!(!bus.flush(Duration::from_millis(100)).complete, "{what}"),
        }
        server.play(Script::new());
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{what}: {report:?}");
        assert_eq!(report.stats.acked, u64::from(reason.is_none()), "{what}: {report:?}");
    }
}

/// Three messages of each subject and no more, the reports of the bus among them.
fn full_subjects(mode: Mode) -> MockServer {
    let server = server();
    server.change_stream(
        "main",
        json!({ "max_msgs_per_subject": 3, "discard": "new", "discard_new_per_subject": true }),
    );
    // Four starts: the last of them finds that `_bus.started` has what it may have.
    for _ in 0..3 {
        assert!(Bus::start(config(&server, mode)).unwrap().close(CLOSE).complete);
    }
    server
}

#[test]
fn a_subject_that_is_full_holds_up_no_other_and_neither_does_the_bus_itself() {
    for mode in MODES {
        let server = full_subjects(mode);
        let bus = Bus::start(config(&server, mode)).unwrap();
        let publish = |name: &str, numbers: std::ops::Range<u64>| {
            numbers.for_each(|number| assert!(bus.publish(name, &number).is_accepted()));
        };
        // The report that it has started is refused, and holds none of these up.
        (0..100).for_each(|subject| publish(&format!("subject.{subject}"), 0..3));
        publish("full", 0..5);
        wait_until("all that there is room for is stored", || bus.stats().acked == 300 + 3);
        // What waits could only be stored behind this event of its thread. What comes then waits.
        publish("another", 0..1);
        wait_until("the other event is stored", || bus.stats().acked == 300 + 3 + 1);
        wait_until("two are given up", || bus.stats().dropped.get(Reason::Rejected) == 2);
        publish("full", 5..10);
        server.change_stream("main", json!({ "max_msgs_per_subject": -1, "discard_new_per_subject": false }));
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{mode:?}: {report:?}");
        assert_eq!(report.stats.acked, 300 + 3 + 1 + 5, "{mode:?}: {report:?}");
        let (numbers, verdict) = read(&server.config(), "full", bus.process());
        assert_eq!(numbers, [0, 1, 2, 5, 6, 7, 8, 9], "{mode:?}");
        assert_eq!((verdict.duplicates, verdict.reordered), (0, 0), "{mode:?}");
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (2, 0), "{mode:?}");
    }
}

#[test]
fn a_close_does_not_wait_for_a_report_that_its_subject_does_not_take() {
    for mode in MODES {
        let server = full_subjects(mode);
        let bus = Bus::start(config(&server, mode)).unwrap();
        assert!(bus.publish("number", &0).is_accepted());
        let began = Instant::now();
        let report = bus.close(CLOSE);
        assert!(report.complete, "{mode:?}: {report:?}");
        assert_eq!(report.stats.acked, 1, "{mode:?}");
        assert!(began.elapsed() < CLOSE, "{mode:?}: {:?}", began.elapsed());
    }
}
