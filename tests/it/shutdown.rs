//! How a bus ends: by its deadline, with the whole balance, from anywhere, and with what threads publish in their last moments.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::DiscardPolicy;
use jetring::report::{STARTED, STOPPED};
use jetring::{Bus, Offer, Reason, Report, Stats};

use crate::server::{NatsServer, create_stream, messages, stream_config, wait_until};
use crate::support::{
    CLOSE, LOAD, Load, NO_SERVER, Numbered, SOON, STREAM, SUBJECTS, Seen, ask, bus, bus_with, flood, prove,
    prove_ledger, prove_messages, server_with_stream, wide,
};

/// What only a hang adds to a deadline. By how much a close may be late is judged where time is simulated (`publisher/worker/worlds.rs`).
const SLACK: Duration = Duration::from_secs(30);

#[test]
fn a_second_close_returns_the_same_balance() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    let first = bus.close(CLOSE);
    let second = bus.close(CLOSE);
    assert_eq!((first.stats.acked, first.complete), (100, true));
    assert_eq!(balance(&first), balance(&second));
    assert!(second.complete);
    prove(&server.url(), &bus, &second, &seen);
}

#[test]
fn a_bus_that_is_closed_at_once_still_says_started_and_stopped() {
    let server = server_with_stream();
    for _ in 0..10 {
        let bus = bus(&server.url());
        let report = bus.close(CLOSE);
        let proof = prove(&server.url(), &bus, &report, &Seen::default());
        assert_eq!(proof.names, [STARTED, STOPPED]);
    }
}

#[test]
fn two_threads_that_close_at_once_both_get_the_balance() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..2000);
    let close = || {
        let bus = bus.clone();
        thread::spawn(move || bus.close(CLOSE))
    };
    let reports = [close(), close()].map(|thread| thread.join().expect("no panic"));
    for report in &reports {
        assert_eq!(report.stats.acked, 2000, "{report:?}");
        prove(&server.url(), &bus, report, &seen);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn both_closes_work_inside_a_runtime_of_one_thread() {
    both_closes_work_here().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_closes_work_inside_a_runtime_of_several_threads() {
    // In a task too, which runs on one of these threads.
    tokio::spawn(both_closes_work_here()).await.expect("no panic");
    both_closes_work_here().await;
}

async fn both_closes_work_here() {
    let server = tokio::task::spawn_blocking(server_with_stream).await.expect("no panic");
    let buses = [bus(&server.url()), bus(&server.url())];
    let mut seen = [Seen::default(), Seen::default()];
    buses.iter().zip(&mut seen).for_each(|(bus, seen)| seen.publish(bus, LOAD, 0..100));
    assert!(buses[1].flush_async(CLOSE).await.complete);
    let reports = [buses[0].close(CLOSE), buses[1].close_async(CLOSE).await];
    let check = move || {
        for ((bus, report), seen) in buses.iter().zip(&reports).zip(&seen) {
            assert_eq!(report.stats.acked, 100, "{report:?}");
            prove(&server.url(), bus, report, seen);
        }
    };
    tokio::task::spawn_blocking(check).await.expect("no panic");
}

#[test]
fn a_close_needs_no_runtime_that_drives_timers() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("the system gives a runtime");
    let report = runtime.block_on(bus.close_async(CLOSE));
    assert_eq!(report.stats.acked, 100, "{report:?}");
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_flush_waits_for_what_was_offered_before_it() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    for round in 0..10 {
        seen.publish(&bus, LOAD, round * 100..(round + 1) * 100);
        let report = bus.flush(CLOSE);
        assert!(report.complete);
        assert_eq!((report.stats.acked, report.stats.held()), (seen.offered, 0));
    }
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_flush_does_not_wait_for_what_is_offered_after_it() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let load = Load::on(&bus);
    for _ in 0..10 {
        load.goes_on_for(Duration::from_millis(50));
        let offered = bus.stats().offered;
        let report = bus.flush(CLOSE);
        assert!(report.complete);
        assert!(report.stats.acked >= offered, "{offered} were offered before: {report:?}");
    }
    let (report, _) = load.close_and_prove(&server.url());
    assert_eq!(report.stats.acked, report.stats.offered);
}

#[test]
fn a_flush_of_nothing_is_complete_also_without_a_server() {
    let report = bus(NO_SERVER).flush(SOON);
    assert_eq!((report.stats.offered, report.complete), (0, true));
}

#[test]
fn a_flush_that_cannot_be_fulfilled_ends_by_its_deadline_and_gives_nothing_up() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    assert!(bus.flush(CLOSE).complete);
    server.pause();
    seen.publish(&bus, LOAD, 100..200);
    let (report, took) = timed(|| bus.flush(SOON));
    assert!(took < SOON + SLACK, "{took:?}");
    assert!(!report.complete);
    assert_eq!((report.stats.check(), report.stats.held()), (Ok(()), 100));
    server.resume();
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.acked, 200);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_close_without_a_server_ends_by_its_deadline_and_balances() {
    let bus = bus(NO_SERVER);
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..10_000);
    let (report, took) = timed(|| bus.close(SOON));
    assert!(took < SOON + SLACK, "{took:?}");
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.dropped.get(Reason::Expired), 10_000, "{report:?}");
}

#[test]
fn a_close_with_no_time_at_all_balances() {
    let bus = bus(NO_SERVER);
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    prove_ledger(&bus.close(Duration::ZERO), &seen);
}

#[test]
fn a_close_after_the_server_has_died_tells_what_is_in_doubt_from_what_never_left() {
    let mut server = server_with_stream();
    let bus = bus(&server.url());
    let load = Load::on(&bus);
    wait_until("events are acknowledged", || bus.stats().acked > 100);
    server.pause();
    wait_until("events are on their way", || bus.stats().in_flight > 100);
    server.kill();
    wait_until("the connection is lost", || !bus.is_connected());
    let held = bus.stats().held();
    wait_until("events gather", || bus.stats().held() > held + 100);
    let seen = load.stop();
    let (report, took) = timed(|| bus.close(SOON));
    assert!(took < SOON + SLACK, "{took:?}");
    let stats = &report.stats;
    assert!(
        stats.acked > 0 && stats.indeterminate > 0 && stats.dropped.get(Reason::Expired) > 0,
        "{stats:?}"
    );
    server.restart();
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn a_close_ends_by_its_deadline_also_when_the_socket_of_a_frozen_server_is_full() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), wide);
    let mut seen = Seen::default();
    flood(&server, &bus, &mut seen);
    let (report, took) = timed(|| bus.close(SOON));
    assert!(took < SOON + SLACK, "{took:?}");
    assert_eq!(report.stats.check(), Ok(()));
    server.resume();
    // On a busy machine a worker that is not optimized may be late with 32 MiB. Its own deadline is over, so it delivers nothing more.
    let report = bus.close(CLOSE);
    prove_ledger(&report, &seen);
    assert!(report.stats.indeterminate > 0, "{report:?}");
}

#[test]
fn the_most_impatient_of_several_closes_counts() {
    let bus = bus(NO_SERVER);
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    let patient = {
        let bus = bus.clone();
        thread::spawn(move || timed(|| bus.close(CLOSE)))
    };
    let (report, took) = timed(|| bus.close(SOON));
    assert!(took < SOON + SLACK, "{took:?}");
    prove_ledger(&report, &seen);
    let (report, took) = patient.join().expect("no panic");
    assert!(took < SOON + SLACK, "{took:?}");
    prove_ledger(&report, &seen);
}

#[tokio::test(flavor = "current_thread")]
async fn a_bus_that_is_dropped_inside_a_runtime_holds_nobody_up() {
    let server = tokio::task::spawn_blocking(server_with_stream).await.expect("no panic");
    server.pause();
    let bus = bus(&server.url());
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    let process = bus.process().to_owned();
    let ((), took) = timed(|| drop(bus));
    assert!(took < SLACK, "{took:?}");
    server.resume();
    let check = move || prove_by_last_word(&server.url(), &process, &seen);
    tokio::task::spawn_blocking(check).await.expect("no panic");
}

/// What is the matter with the server while the bus is closed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    /// It is stopped by a signal, with events in hand.
    Frozen,
    /// The stream takes no more, and says so.
    Full,
    Dead,
}

/// Threads publish in a loop, others close, by each way there is, some of them again: everybody has an answer in time, and it adds up.
#[test]
fn closes_from_everywhere_end_by_their_deadline_whatever_the_server_and_other_threads_do() {
    for trouble in [Trouble::None, Trouble::Frozen, Trouble::Full, Trouble::Dead] {
        let mut server = NatsServer::start();
        let mut stream = stream_config(STREAM, &[SUBJECTS]);
        if trouble == Trouble::Full {
            (stream.max_messages, stream.discard) = (200, DiscardPolicy::New);
        }
        ask(create_stream(&server.url(), stream));
        let bus = bus(&server.url());
        // What has gathered takes its time where it can be delivered.
        let deadline = if trouble == Trouble::None { CLOSE } else { SOON };
        let enough = AtomicBool::new(false);
        let (seen, closes) = thread::scope(|scope| {
            let publisher = |thread| {
                let (bus, enough) = (&bus, &enough);
                scope.spawn(move || publish_without_a_pause(bus, thread, enough))
            };
            let publishers = [publisher(0), publisher(1)];
            wait_until("events are acknowledged", || bus.stats().acked > 100);
            match trouble {
                Trouble::None => {}
                Trouble::Frozen => server.pause(),
                Trouble::Full => wait_until("the stream is full", || bus.stats().in_flight > 1000),
                Trouble::Dead => server.kill(),
            }
            let waits = || timed(|| [bus.close(deadline), bus.close(deadline)]);
            let awaits = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                timed(|| {
                    runtime.block_on(async {
                        [bus.close_async(deadline).await, bus.close_async(deadline).await]
                    })
                })
            };
            let closers = [scope.spawn(waits), scope.spawn(waits)];
            let async_closer = scope.spawn(awaits);
            let closers = closers.map(|closer| closer.join().expect("no panic"));
            let closes =
                [async_closer.join().expect("no panic")].into_iter().chain(closers).collect::<Vec<_>>();
            enough.store(true, Ordering::Relaxed);
            let seen = publishers.map(|publisher| publisher.join().expect("no panic"));
            (seen.into_iter().fold(Seen::default(), Seen::merge), closes)
        });
        if trouble == Trouble::Frozen {
            server.resume();
        }
        let last = bus.close(CLOSE);
        prove_ledger(&last, &seen);
        for ([first, second], took) in closes {
            assert!(took < deadline + SLACK, "{trouble:?}: {took:?}");
            for report in [first, second] {
                let stats = &report.stats;
                assert_eq!(stats.check(), Ok(()), "{trouble:?}");
                // A machine so busy that the worker could not count everything in its grace says so.
                assert!(report.complete || stats.held() > 0, "{trouble:?}: {report:?}");
                if report.complete {
                    // But for what was offered in vain in the meantime.
                    let fates = |stats: &Stats| (stats.acked, stats.indeterminate);
                    assert_eq!(fates(stats), fates(&last.stats), "{trouble:?}");
                }
            }
        }
        let lost = last.stats.dropped.get(Reason::Rejected) + last.stats.dropped.get(Reason::Expired);
        let is_undelivered = last.stats.indeterminate + lost > 0;
        assert_eq!(is_undelivered, trouble != Trouble::None, "{trouble:?}: {last:?}");
    }
}

fn publish_without_a_pause(bus: &Bus, thread: u64, enough: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !enough.load(Ordering::Relaxed) {
        let event = Numbered::new(thread, seen.offered);
        if !seen.call(|| bus.publish(LOAD, &event)).is_accepted() {
            thread::yield_now();
        }
    }
    seen
}

#[test]
fn what_is_published_after_a_close_is_counted_as_closed() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let topic = bus.topic(LOAD).expect("a valid name");
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..100);
    assert_eq!(bus.close(CLOSE).stats.acked, 100);
    for _ in 0..100 {
        let closed = Offer::Dropped(Reason::Closed);
        assert_eq!(seen.call(|| bus.publish(LOAD, &1)), closed);
        assert_eq!(seen.call(|| topic.publish(&1)), closed);
        assert_eq!(seen.call(|| topic.publish_json(b"1")), closed);
    }
    let report = bus.close(CLOSE);
    prove_ledger(&report, &seen);
    assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::Closed)), (100, 300));
}

#[test]
fn threads_that_publish_through_a_close_get_an_answer_each_and_all_are_counted() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let load = Load::start(&bus, 3, 2000);
    load.goes_on_for(Duration::from_millis(300));
    assert_eq!(bus.close(CLOSE).stats.check(), Ok(()));
    load.goes_on_for(Duration::from_millis(100));
    let seen = load.stop();
    assert!(seen.dropped(Reason::Closed) > 0);
    let report = bus.close(CLOSE);
    prove_ledger(&report, &seen);
    assert_eq!(report.stats.acked, seen.accepted);
}

#[test]
fn when_the_last_handle_is_dropped_what_is_in_the_rings_is_delivered() {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let (process, topic) = (bus.process().to_owned(), bus.topic(LOAD).expect("a valid name"));
    let mut seen = Seen::default();
    seen.publish(&bus, LOAD, 0..1000);
    drop(bus);
    // A topic is a handle, too.
    for number in 1000..2000 {
        assert_eq!(seen.call(|| topic.publish(&Numbered::new(0, number))), Offer::Accepted);
    }
    drop(topic);
    prove_by_last_word(&server.url(), &process, &seen);
    assert_eq!(seen.accepted, 2000);
}

thread_local! {
    static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
}

/// Publishes one event when it is dropped, and keeps the answer.
struct Farewell {
    bus: Bus,
    thread: u64,
    seen: Arc<Mutex<Seen>>,
}

impl Farewell {
    /// Another one, for a thread of this number.
    fn of(&self, thread: u64) -> Self {
        Self { bus: self.bus.clone(), thread, seen: Arc::clone(&self.seen) }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // The place in the count is a number that rises within each thread.
        let mut seen = self.seen.lock().expect("nobody panics with it");
        let event = Numbered::new(self.thread, seen.offered);
        seen.call(|| self.bus.publish(LOAD, &event));
    }
}

#[test]
fn a_destructor_of_a_thread_local_can_publish() {
    // Before the library's own thread-locals, and after them: destructors run in the order of first use or against it.
    last_moments(|farewell| {
        let only = farewell.of(1);
        thread::spawn(move || FAREWELL.set(Some(only))).join().expect("no panic");
        let (at_once, at_the_end) = (farewell.of(2), farewell.of(2));
        let publishes_later = move || {
            FAREWELL.set(Some(at_the_end));
            drop(at_once);
        };
        thread::spawn(publishes_later).join().expect("no panic");
        let (at_once, at_the_end) = (farewell.of(3), farewell.of(3));
        let publishes_before = move || {
            drop(at_once);
            FAREWELL.set(Some(at_the_end));
        };
        thread::spawn(publishes_before).join().expect("no panic");
        assert_eq!(farewell.seen().accepted, 5);
    });
}

#[test]
fn a_thread_that_panics_can_publish_while_it_unwinds() {
    last_moments(|farewell| {
        let witness = farewell.of(1);
        let panicked = thread::spawn(move || {
            let _witness = witness;
            panic!("as a user's thread may");
        });
        assert!(panicked.join().is_err());
        assert_eq!(farewell.seen().accepted, 1);
    });
}

#[test]
fn a_bus_can_be_dropped_by_a_thread_that_ends() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| config.shutdown.timeout = CLOSE);
    let process = bus.process().to_owned();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let farewell = Farewell { bus, thread: 0, seen: Arc::clone(&seen) };
    thread::spawn(move || FAREWELL.set(Some(farewell))).join().expect("no panic");
    let seen = seen.lock().expect("nobody panics with it");
    assert_eq!(seen.accepted, 1);
    prove_by_last_word(&server.url(), &process, &seen);
}

/// Threads end in ways of their own while a bus is there. All that they published is delivered.
#[track_caller]
fn last_moments(end: impl FnOnce(&Farewell)) {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let farewell = Farewell { bus: bus.clone(), thread: 0, seen: Arc::default() };
    end(&farewell);
    let seen = Arc::clone(&farewell.seen);
    drop(farewell);
    let seen = seen.lock().expect("nobody panics with it");
    let report = bus.close(CLOSE);
    assert_eq!(report.stats.acked, seen.offered, "{report:?}");
    prove(&server.url(), &bus, &report, &seen);
}

/// Proves a run whose handles are gone: the balance is the one in the report `stopped`.
#[track_caller]
fn prove_by_last_word(url: &str, process: &str, seen: &Seen) {
    let mut all = Vec::new();
    wait_until("the bus has said its last word", || {
        all = ask(messages(url, STREAM));
        all.last().is_some_and(|(_, subject, _)| subject.ends_with(STOPPED))
    });
    let (_, _, last) = &all[all.len() - 1];
    let last = jetring::envelope::Envelope::parse(last).expect("it is an envelope");
    let stopped: jetring::report::Stopped = serde_json::from_str(last.body.get()).expect("it is a report");
    let report = Report { stats: stopped.ledger, complete: true };
    assert_eq!(report.stats.acked, seen.accepted);
    prove_messages(&all, process, &report, seen);
}

fn balance(report: &Report) -> (u64, u64, u64, u64) {
    let stats = &report.stats;
    (stats.offered, stats.acked, stats.dropped.total(), stats.indeterminate)
}

fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = call();
    (result, start.elapsed())
}
