//! Each fault, with a bus on the mock server: what is stored, and what the ledger says.
//!
//! A fault meets some messages in the middle of a load. Mostly the outcome must be the same: every event is acknowledged and in the
//! stream, once, in order. Where it cannot be, the event is counted, and declared in the stream.

use std::time::Duration;

use jetring::testing::{ApiError, Fault, MockServer, Script};
use jetring::{
    Budget, Bus, Config, Engine, Framing, Mode, Reason, Report, TraceParent, keeps_request, request_scope,
    trace_scope,
};
use serde_json::json;

use crate::bus::read;
use crate::server::wait_until;
use crate::target::Target;
use crate::wire::{Heard, Wire};

const EVENTS: u64 = 3_000;
const CLOSE: Duration = Duration::from_secs(30);
const MODES: [Mode; 2] = [Mode::Async, Mode::Fast];

/// How long a message may be without an answer; the default is five seconds.
const ACK_TIMEOUT: Duration = Duration::from_millis(400);

fn server() -> MockServer {
    let server = MockServer::start();
    server.add_stream("main", &["event.1.>"]);
    server
}

fn config(server: &MockServer, mode: Mode) -> Config {
    let mut config = server.config();
    config.delivery.mode = mode;
    config.delivery.ack_timeout = ACK_TIMEOUT;
    // Not so many that a batch is over before the fault.
    config.delivery.max_in_flight = 256;
    config
}

fn publish(bus: &Bus, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert!(bus.publish("number", &number).is_accepted());
    }
}

/// Everything is acknowledged, and stored once and in order.
#[track_caller]
fn prove(server: &MockServer, bus: &Bus, report: &Report, events: u64, what: &str) {
    assert!(report.complete && report.stats.check().is_ok(), "{what}: {report:?}");
    assert_eq!((report.stats.acked, report.stats.offered), (events, events), "{what}: {report:?}");
    let (numbers, verdict) = read(&server.config(), "number", bus.process());
    assert_eq!(numbers, (0..events).collect::<Vec<_>>(), "{what}");
    assert_eq!((verdict.duplicates, verdict.lost_undeclared), (0, 0), "{what}: {verdict:?}");
}

/// In both engines, at several places, and at three messages one behind the other.
fn costs_nothing(fault: Fault) {
    for mode in MODES {
        for script in [
            Script::new().fault(fault.clone()),
            Script::new().pass(1).fault(fault.clone()),
            Script::new().pass(777).times(3, fault.clone()),
        ] {
            let what = format!("{mode:?}, {script:?}");
            let server = server();
            server.play(script);
            let bus = Bus::start(config(&server, mode)).unwrap();
            publish(&bus, 0..EVENTS);
            let report = bus.close(CLOSE);
            assert!(server.is_script_over(), "{what}");
            prove(&server, &bus, &report, EVENTS, &what);
        }
    }
}

#[test]
fn a_late_acknowledgement_costs_nothing() {
    costs_nothing(Fault::AckLate(ACK_TIMEOUT / 4));
}

#[test]
fn an_acknowledgement_that_is_too_late_costs_nothing() {
    costs_nothing(Fault::AckLate(ACK_TIMEOUT * 2));
}

#[test]
fn a_lost_acknowledgement_costs_nothing() {
    costs_nothing(Fault::AckLost);
}

#[test]
fn a_doubled_acknowledgement_costs_nothing() {
    costs_nothing(Fault::AckDoubled);
}

#[test]
fn a_message_that_is_swallowed_is_sent_again_in_batches() {
    for script in [
        Script::new().pass(1).fault(Fault::MessageLost),
        Script::new().pass(777).times(3, Fault::MessageLost),
    ] {
        let what = format!("{script:?}");
        let server = server();
        server.play(script);
        let bus = Bus::start(config(&server, Mode::Fast)).unwrap();
        publish(&bus, 0..EVENTS);
        let report = bus.close(CLOSE);
        prove(&server, &bus, &report, EVENTS, &what);
    }
}

/// Single messages behind it are stored already, so it is not put behind them: it is dropped, counted, and declared in the stream.
#[test]
fn a_single_message_that_is_swallowed_is_a_declared_loss() {
    let server = server();
    server.play(Script::new().pass(777).fault(Fault::MessageLost));
    let bus = Bus::start(config(&server, Mode::Async)).unwrap();
    publish(&bus, 0..EVENTS);
    let report = bus.close(CLOSE);
    assert!(report.complete && report.stats.check().is_ok(), "{report:?}");
    assert_eq!(
        (report.stats.acked, report.stats.dropped.get(Reason::Rejected)),
        (EVENTS - 1, 1),
        "{report:?}"
    );
    let (numbers, verdict) = read(&server.config(), "number", bus.process());
    assert_eq!(numbers.len() as u64, EVENTS - 1);
    assert!(numbers.is_sorted());
    assert_eq!(
        (verdict.lost_declared, verdict.lost_undeclared, verdict.duplicates),
        (1, 0, 0),
        "{verdict:?}"
    );
}

/// A batch goes on behind it. A single message that is refused while those behind it are stored is not put behind them: it is a loss,
/// counted and declared.
fn costs_what_is_declared(fault: &Fault) {
    for mode in MODES {
        let server = server();
        server.play(Script::new().pass(777).times(3, fault.clone()));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        let report = bus.close(CLOSE);
        let (stats, what) = (&report.stats, format!("{mode:?}, {fault:?}"));
        assert!(report.complete && stats.check().is_ok() && server.is_script_over(), "{what}: {report:?}");
        let lost = stats.dropped.get(Reason::Rejected) + stats.dropped.get(Reason::NoStream);
        assert_eq!(stats.acked + lost, EVENTS, "{what}: {report:?}");
        assert!(lost <= if mode == Mode::Fast { 0 } else { 3 }, "{what}: {report:?}");
        let (numbers, verdict) = read(&server.config(), "number", bus.process());
        assert_eq!((numbers.len() as u64, numbers.is_sorted()), (stats.acked, true), "{what}");
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (lost, 0), "{what}: {verdict:?}");
        assert_eq!(verdict.duplicates, 0, "{what}: {verdict:?}");
    }
}

#[test]
fn no_responders_for_a_moment_cost_what_is_declared() {
    costs_what_is_declared(&Fault::NoResponders);
}

#[test]
fn refusals_that_pass_cost_what_is_declared() {
    for error in [
        ApiError::TOO_MANY_REQUESTS,
        ApiError::UNAVAILABLE,
        ApiError::INSUFFICIENT_RESOURCES,
        ApiError::STREAM_FULL,
        ApiError::STREAM_NOT_FOUND,
    ] {
        costs_what_is_declared(&Fault::Refused(error));
    }
}

/// Nothing is stored behind it, so nothing stands in front of what is sent again.
#[test]
fn a_stream_that_refuses_everything_for_a_while_costs_nothing() {
    for mode in MODES {
        let server = server();
        server.play(Script::new().pass(777).for_ever(Fault::Refused(ApiError::TOO_MANY_REQUESTS)));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        assert!(!bus.flush(ACK_TIMEOUT).complete);
        server.play(Script::new());
        let report = bus.close(CLOSE);
        prove(&server, &bus, &report, EVENTS, &format!("{mode:?}"));
    }
}

#[test]
fn a_refusal_that_does_not_pass_costs_its_event_and_is_declared() {
    for mode in MODES {
        let server = server();
        server.play(Script::new().pass(777).fault(Fault::Refused(ApiError::MESSAGE_TOO_LARGE)));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{report:?}");
        assert_eq!(report.stats.acked, EVENTS - 1, "{mode:?}");
        assert_eq!(report.stats.dropped.get(Reason::TooLarge), 1, "{mode:?}");
        let (numbers, verdict) = read(&server.config(), "number", bus.process());
        assert_eq!((numbers.len() as u64, numbers.is_sorted()), (EVENTS - 1, true), "{mode:?}");
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (1, 0), "{mode:?}: {verdict:?}");
    }
}

/// An event that is denied is dropped as such; the others go on.
#[test]
fn a_denial_costs_its_event() {
    for mode in MODES {
        let server = server();
        server.play(Script::new().pass(777).fault(Fault::Denied));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{report:?}");
        let denied = report.stats.dropped.get(Reason::Permission);
        assert_eq!(report.stats.acked + denied, EVENTS, "{mode:?}: {report:?}");
        let (numbers, verdict) = read(&server.config(), "number", bus.process());
        assert_eq!((numbers.len() as u64, numbers.is_sorted()), (report.stats.acked, true), "{mode:?}");
        assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (denied, 0), "{mode:?}: {verdict:?}");
    }
}

#[test]
fn a_connection_that_ends_before_a_message_costs_nothing() {
    costs_nothing(Fault::CutBefore);
}

#[test]
fn a_connection_that_ends_behind_a_message_costs_nothing() {
    costs_nothing(Fault::CutAfter);
}

#[test]
fn a_connection_that_ends_in_an_answer_costs_nothing() {
    costs_nothing(Fault::CutInAck);
}

#[test]
fn a_restart_costs_nothing() {
    costs_nothing(Fault::Restart);
}

#[test]
fn a_server_that_stands_still_and_goes_on_costs_nothing() {
    for mode in MODES {
        let server = server();
        server.play(Script::new().pass(777).fault(Fault::Freeze));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        wait_until("the server stands still", || server.is_frozen());
        assert!(!bus.flush(ACK_TIMEOUT / 4).complete);
        server.thaw();
        let report = bus.close(CLOSE);
        prove(&server, &bus, &report, EVENTS, &format!("{mode:?}"));
    }
}

#[test]
fn a_server_that_is_away_for_a_while_costs_nothing() {
    for mode in MODES {
        let server = server();
        server.go_away();
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS / 2);
        server.come_back();
        assert!(bus.flush(CLOSE).complete, "{mode:?}");
        server.go_away();
        publish(&bus, EVENTS / 2..EVENTS);
        wait_until("the connection is lost", || !bus.is_connected());
        server.come_back();
        let report = bus.close(CLOSE);
        prove(&server, &bus, &report, EVENTS, &format!("{mode:?}"));
    }
}

#[test]
fn a_full_stream_that_is_given_room_costs_nothing() {
    for mode in MODES {
        let server = server();
        server.change_stream("main", json!({ "max_msgs": 1000, "discard": "new" }));
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS);
        wait_until("the stream is full", || server.messages("main").len() == 1000);
        assert!(!bus.flush(ACK_TIMEOUT / 4).complete);
        server.change_stream("main", json!({ "max_msgs": -1 }));
        let report = bus.close(CLOSE);
        prove(&server, &bus, &report, EVENTS, &format!("{mode:?}"));
    }
}

/// What the old stream had not acknowledged goes to the new one.
#[test]
fn a_stream_that_is_deleted_and_made_again_gets_the_rest() {
    for mode in MODES {
        let server = server();
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..EVENTS / 2);
        assert!(bus.flush(CLOSE).complete, "{mode:?}");
        server.delete_stream("main");
        publish(&bus, EVENTS / 2..EVENTS);
        assert!(!bus.flush(ACK_TIMEOUT).complete, "{mode:?}");
        server.add_stream("main", &["event.1.>"]);
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{mode:?}: {report:?}");
        assert_eq!(report.stats.acked, EVENTS, "{mode:?}: {report:?}");
        let numbers = read(&server.config(), "number", bus.process()).0;
        assert_eq!(numbers, (EVENTS / 2..EVENTS).collect::<Vec<_>>(), "{mode:?}");
    }
}

#[test]
fn a_stream_that_takes_no_batches_any_more_gets_single_messages() {
    let server = server();
    let bus = Bus::start(config(&server, Mode::Auto)).unwrap();
    publish(&bus, 0..EVENTS / 2);
    assert!(bus.flush(CLOSE).complete);
    assert_eq!(bus.stats().engine, Some(Engine::Fast));
    server.change_stream("main", json!({ "allow_batched": false }));
    publish(&bus, EVENTS / 2..EVENTS);
    assert!(bus.flush(CLOSE).complete);
    assert_eq!(bus.stats().engine, Some(Engine::Async));
    let report = bus.close(CLOSE);
    prove(&server, &bus, &report, EVENTS, "single messages");
}

/// The connection ends with the first one that is too large, so that one is in doubt; from then on the limit is known.
#[test]
fn a_server_that_takes_smaller_messages_from_now_on_gets_those_that_fit() {
    for mode in MODES {
        let server = server();
        let bus = Bus::start(config(&server, mode)).unwrap();
        publish(&bus, 0..10);
        assert!(bus.flush(CLOSE).complete);
        server.set_max_payload(4096);
        for numbers in [10..20, 20..30] {
            assert!(bus.publish("text", &"x".repeat(8000)).is_accepted());
            publish(&bus, numbers);
            assert!(bus.flush(CLOSE).complete, "{mode:?}");
        }
        let report = bus.close(CLOSE);
        let stats = &report.stats;
        assert!(report.complete && stats.check().is_ok(), "{mode:?}: {report:?}");
        let too_large = stats.dropped.get(Reason::TooLarge);
        assert_eq!((stats.acked, stats.indeterminate, too_large), (30, 1, 1), "{mode:?}: {stats:?}");
        assert_eq!(
            read(&server.config(), "number", bus.process()).0,
            (0..30).collect::<Vec<_>>(),
            "{mode:?}"
        );
    }
}

/// And what is beyond it is refused before anything is kept of it.
#[test]
fn a_server_takes_no_more_than_64_mib_however_much_it_is_told_to() {
    let target = Target::mock();
    let Target::Mock(server) = &target else { unreachable!("it is one") };
    server.set_max_payload(usize::MAX);
    let mut wire = Wire::connect(&target);
    assert_eq!(wire.info["max_payload"], 64 << 20);
    wire.say(&format!("PUB a {}\r\n", u64::MAX));
    assert_eq!(wire.hear(), Heard::Error("Maximum Payload Violation".to_owned()));
    assert_eq!(wire.hear(), Heard::End);
}

#[test]
fn events_of_a_server_have_the_trace_and_the_weight_that_they_were_stored_with() {
    let trace: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    for framing in [Framing::Plain, Framing::Packed] {
        let server = server();
        let mut config = server.config();
        config.delivery.framing = framing;
        let mut sampled = Budget::default();
        sampled.sample = 3;
        config.events.insert("sampled".parse().unwrap(), sampled);
        let bus = Bus::start(config).unwrap();
        trace_scope(trace, || bus.publish("traced", &1));
        let kept = (0..).map(|number| format!("q-{number}")).find(|id| keeps_request(id, 3)).unwrap();
        request_scope(kept, || bus.publish("sampled", &2));
        assert!(bus.close(CLOSE).complete);
        let read = server.events(&server.config());
        let read: Vec<_> = read.iter().map(|event| (event.traceparent, event.weight())).collect();
        let header = (framing == Framing::Plain).then_some(trace);
        assert_eq!(read, [(header, 1), (None, 3)], "{framing:?}");
    }
}

#[test]
fn all_connections_end_when_they_are_told_to_and_when_the_server_is_dropped() {
    let target = Target::mock();
    let mut wires = [Wire::connect(&target), Wire::connect(&target)];
    assert_eq!(wires[0].hear_all(), []);
    let Target::Mock(server) = &target else { unreachable!("it is one") };
    server.disconnect_all();
    assert!(wires.iter_mut().all(|wire| wire.hear() == Heard::End));
    let mut last = Wire::connect(&target);
    assert_eq!(last.hear_all(), []);
    drop(target);
    assert_eq!(last.hear(), Heard::End);
}

/// One client after the other says what no client should; another one is served all the while.
#[test]
fn a_client_that_does_not_behave_hurts_nobody_else() {
    const LARGE: usize = 1 << 20;
    /// Together more than a client may leave unread and the system may take for it, which is 36 MiB or so.
    const UNREAD: usize = 250;
    let target = Target::mock();
    let mut well_behaved = Wire::connect(&target);
    for nonsense in [
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "\0\0\0\r\n".to_owned(),
        "x".repeat(LARGE),
        format!("CONNECT {}\r\n", "[".repeat(4000)),
        format!("PUB a {}\r\n", usize::MAX),
        "PUB a 1000000\r\nnot all of it".to_owned(),
        "SUB > 1\r\nUNSUB 1 18446744073709551616\r\n".to_owned(),
    ] {
        Wire::connect(&target).say(&nonsense);
        assert_eq!(well_behaved.hear_all(), [], "{}", &nonsense[..nonsense.len().min(20)]);
    }
    let mut deaf = Wire::connect(&target);
    deaf.say("SUB large 1\r\nPING\r\n");
    assert_eq!(deaf.hear(), Heard::Pong);
    let large = "x".repeat(LARGE);
    for _ in 0..UNREAD {
        well_behaved.publish("large", "", &[], &large);
    }
    assert_eq!(well_behaved.hear_all(), []);
    let heard = deaf.hear_to_the_end();
    assert!(heard.len() < UNREAD, "it is cut off: {} messages were kept for it", heard.len());
}
