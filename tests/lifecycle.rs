//! A publish at the awkward moments of a process: stopped by signals, in a destructor, in a forked child, in a panic, on
//! threads that hardly live.
//!
//! Each test is a whole process's life through the public interface, and ends with the law: what was offered is acked,
//! dropped, indeterminate or held, and the test knows the numbers. What changes a process as a whole (fork, timers) runs in
//! a process of its own: this binary starts itself again with one of the ignored tests at the end of this file, on the main
//! thread, so that no thread of the test harness is about.
//!
//! Nothing here may hang: work runs on a thread, or in a process, that is waited for with a limit.
//!
//! Not tested because not promised: a publish *from inside a signal handler*. It may interrupt a publish of the same
//! thread, and its first call on a thread allocates.

#![cfg(target_os = "linux")]
#![allow(
    unsafe_code,
    reason = "signals, fork and an allocator that counts are to be had by unsafe calls only"
)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use jetring::audit::Audit;
use jetring::{Bus, Config, Offer, Reason, Stats};
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};

#[path = "it/server.rs"]
mod server;

use server::{NatsServer, create_stream, messages, stream_config};

/// How long anything may take. Only a hang comes near it, even on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

// ---- signals ------------------------------------------------------------------------------------------------------------

/// Stops that must have met a thread inside of `publish`.
const STOPS_INSIDE_MIN: u64 = 100;

/// Accepted events of a thread: at most this many, however slow the signals are. Refused ones do not count, since a machine whose
/// server is slow could refuse any number of them before the signals come.
const ACCEPTED_MAX: usize = 50_000;

#[test]
fn signals_that_stop_a_publish_anywhere_lose_tear_and_reorder_nothing() {
    in_time(|| {
        let server = NatsServer::start();
        ask(create_stream(&server.url(), stream_config("main", &["event.1.>"])));
        let mut config = config(&server.url());
        // Small, so that it wraps many times, and one, so that the threads stop each other's records.
        config.queue.capacity = 256 << 10;
        config.queue.max_event = 4 << 10;
        config.queue.rings = jetring::Rings::Count(std::num::NonZeroUsize::MIN);
        let bus = Bus::start(config).unwrap();
        handle(libc::SIGUSR1, stop_for_a_while);

        let publishers: Vec<_> = (0..4).map(|publisher| publish_while_stopped(&bus, publisher)).collect();
        let targets: Vec<_> = publishers.iter().map(|(_, thread)| *thread).collect();
        let mut turn = 0;
        while STOPS_INSIDE.load(Ordering::Relaxed) < STOPS_INSIDE_MIN * 2 {
            if publishers.iter().any(|(publisher, _)| publisher.is_finished()) {
                break;
            }
            turn += 1;
            // SAFETY: the thread is not joined yet, so its number is good.
            unsafe { libc::pthread_kill(targets[turn % targets.len()], libc::SIGUSR1) };
            // Far shorter than a stop: the threads are stopped most of the time.
            thread::sleep(Duration::from_micros(50));
        }
        ENOUGH.store(true, Ordering::Relaxed);
        let accepted: BTreeMap<u64, Vec<u64>> =
            publishers.into_iter().map(|(publisher, _)| publisher.join().unwrap()).collect();
        let stops = STOPS_INSIDE.load(Ordering::Relaxed);
        assert!(stops >= STOPS_INSIDE_MIN, "only {stops} stops were inside of a publish");

        let flushed = bus.flush(PATIENCE / 2);
        assert!(flushed.complete, "{flushed:?}");
        assert_eq!(flushed.stats.check(), Ok(()));
        let report = bus.close(PATIENCE / 4);
        let total = accepted.values().map(|numbers| numbers.len() as u64).sum::<u64>();
        assert_balance(&report.stats, total);

        let mut audit = Audit::new(true);
        let mut stored: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (_, subject, message) in ask(messages(&server.url(), "main")) {
            audit.observe(&message);
            if subject == "event.1.numbered" {
                let envelope: Envelope = serde_json::from_slice(&message).unwrap();
                let Numbered { publisher, number, filling } = envelope.body;
                assert!(filling == filling_of(publisher, number), "event {number} of {publisher} is torn");
                stored.entry(publisher).or_default().push(number);
            }
        }
        assert!(stored == accepted, "what is stored is not what was accepted, or not in that order");
        assert!(audit.verdict().is_sound(), "{:?}", audit.verdict());
    });
}

#[test]
fn timers_that_interrupt_every_thread_all_the_time_cost_no_event() {
    in_a_process_of_its_own("role_of_a_process_full_of_alarms");
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    publisher: u64,
    number: u64,
    filling: String,
}

#[derive(Deserialize)]
struct Envelope {
    body: Numbered,
}

/// Some hundred bytes that only this event has.
fn filling_of(publisher: u64, number: u64) -> String {
    let word = (publisher << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{word:016x}").repeat(1 + (number % 30) as usize)
}

static STOPS_INSIDE: AtomicU64 = AtomicU64::new(0);
static ENOUGH: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Constant at the start and nothing to drop, so that a signal handler may look at it.
    static INSIDE_A_PUBLISH: AtomicBool = const { AtomicBool::new(false) };
}

/// Publishes until there were enough stops. Returns the numbers that were accepted, and the thread.
fn publish_while_stopped(
    bus: &Bus,
    publisher: u64,
) -> (thread::JoinHandle<(u64, Vec<u64>)>, libc::pthread_t) {
    let bus = bus.clone();
    let (say, said) = mpsc::channel();
    let work = move || {
        // SAFETY: it has no precondition.
        say.send(unsafe { libc::pthread_self() }).unwrap();
        let mut accepted = Vec::new();
        for number in 0.. {
            if ENOUGH.load(Ordering::Relaxed) || accepted.len() == ACCEPTED_MAX {
                break;
            }
            let event = Numbered { publisher, number, filling: filling_of(publisher, number) };
            INSIDE_A_PUBLISH.with(|inside| inside.store(true, Ordering::SeqCst));
            let offer = bus.publish("numbered", &event);
            INSIDE_A_PUBLISH.with(|inside| inside.store(false, Ordering::SeqCst));
            match offer {
                Offer::Accepted => accepted.push(number),
                Offer::Dropped(Reason::QueueFull | Reason::Contended) => thread::yield_now(),
                Offer::Dropped(reason) => panic!("{reason}"),
                Offer::SampledOut => unreachable!("no name has a sample"),
            }
        }
        (publisher, accepted)
    };
    let publisher = thread::spawn(work);
    let thread = said.recv_timeout(PATIENCE).unwrap();
    (publisher, thread)
}

/// Takes the CPU away from the thread for a while, wherever it is.
extern "C" fn stop_for_a_while(_signal: libc::c_int) {
    if INSIDE_A_PUBLISH.with(|inside| inside.load(Ordering::SeqCst)) {
        STOPS_INSIDE.fetch_add(1, Ordering::Relaxed);
    }
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 300_000 };
    // SAFETY: `nanosleep` may be called in a handler, and reads a live timespec.
    unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
}

fn handle(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: all zeros is a `sigaction` with the default handler and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler has the signature for flags without SA_SIGINFO, and does only what a handler may.
    let set = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

// ---- the end of a thread ------------------------------------------------------------------------------------------------

/// Publishes when its thread ends.
struct LastWords(RefCell<Option<(Bus, mpsc::Sender<Offer>)>>);

impl LastWords {
    const fn new() -> Self {
        Self(RefCell::new(None))
    }

    fn will_go_to(&self, bus: &Bus, offers: &mpsc::Sender<Offer>) {
        self.0.replace(Some((bus.clone(), offers.clone())));
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let Some((bus, offers)) = self.0.take() else { return };
        offers.send(bus.publish("last", &1)).unwrap();
        offers.send(jetring::request_scope("late", || bus.publish("last", &2))).unwrap();
        // Once more behind the scope, which must have left no trace.
        offers.send(bus.publish("last", &3)).unwrap();
    }
}

thread_local! {
    static FIRST: LastWords = const { LastWords::new() };
    static SECOND: LastWords = const { LastWords::new() };
}

/// The destructors of a thread's locals run in an order that depends on which was used first, ours or jetring's own.
#[test]
fn a_destructor_of_a_thread_local_can_publish_whenever_it_was_made() {
    in_time(|| {
        let bus = Bus::start(config("null:")).unwrap();
        let (offers, made) = mpsc::channel();
        let ends_a_thread = |life: &(dyn Fn() + Sync)| {
            thread::scope(|scope| scope.spawn(life).join().unwrap());
        };
        // Before jetring's own, after them, on a thread that never published, on one that was in a scope, and both at once.
        ends_a_thread(&|| {
            FIRST.with(|words| words.will_go_to(&bus, &offers));
            assert!(bus.publish("alive", &0).is_accepted());
        });
        ends_a_thread(&|| {
            assert!(bus.publish("alive", &0).is_accepted());
            FIRST.with(|words| words.will_go_to(&bus, &offers));
        });
        ends_a_thread(&|| FIRST.with(|words| words.will_go_to(&bus, &offers)));
        ends_a_thread(&|| {
            jetring::request_scope("life", || {
                FIRST.with(|words| words.will_go_to(&bus, &offers));
                assert!(bus.publish("alive", &0).is_accepted());
            });
        });
        ends_a_thread(&|| {
            FIRST.with(|words| words.will_go_to(&bus, &offers));
            jetring::request_scope("life", || assert!(bus.publish("alive", &0).is_accepted()));
            SECOND.with(|words| words.will_go_to(&bus, &offers));
        });
        drop(offers);
        // A scope joins its threads' work, not their destructors; the channel ends with the last of these.
        let mut said = Vec::new();
        while let Ok(offer) = made.recv_timeout(PATIENCE / 2) {
            said.push(offer);
        }
        assert_eq!(said, [Offer::Accepted; 3 * 6]);
        assert_balance(&bus.close(PATIENCE / 4).stats, 4 + 3 * 6);
    });
}

/// Threads of [`threads_that_hardly_live_leave_nothing_behind`].
const THREADS: u64 = 100_000;
const THREADS_AT_ONCE: usize = 250;

/// What may be left over, for all threads together: less than 8 bytes for each, the smallest thing that one could forget.
/// Seen were 0 and 40 kB, which is the worker's.
const LEFT_OVER_MAX: i64 = 1 << 19;

#[test]
fn threads_that_hardly_live_leave_nothing_behind() {
    in_time(|| {
        let mut config = config("null:");
        // A thread keeps a buffer for one largest event; the window is small, so that the worker's own memory soon stays as it is.
        config.queue.max_event = 1 << 10;
        config.delivery.max_in_flight = 512;
        let bus = Bus::start(config).unwrap();
        let accepted = Arc::new(AtomicU64::new(0));
        let live_and_end = |threads: u64| {
            for _ in 0..threads / THREADS_AT_ONCE as u64 {
                let mut alive = Vec::with_capacity(THREADS_AT_ONCE);
                for number in 0..THREADS_AT_ONCE {
                    let (bus, accepted) = (bus.clone(), Arc::clone(&accepted));
                    let life = move || {
                        let offer = jetring::request_scope("short", || bus.publish("alive", &number));
                        accepted.fetch_add(u64::from(offer.is_accepted()), Ordering::Relaxed);
                    };
                    alive.push(thread::Builder::new().stack_size(128 << 10).spawn(life).unwrap());
                }
                alive.into_iter().for_each(|thread| thread.join().unwrap());
            }
            assert!(bus.flush(PATIENCE / 2).complete);
        };
        live_and_end(THREADS / 10);
        let (live_before, resident_before) = (LIVE_BYTES.load(Ordering::Relaxed), resident_bytes());
        live_and_end(THREADS / 10 * 9);
        let (live, resident) = (LIVE_BYTES.load(Ordering::Relaxed), resident_bytes());
        let left_over = live - live_before;
        assert!(left_over < LEFT_OVER_MAX, "{left_over} bytes are left over");
        // What the allocator does not see: stacks, and the tables of the C library.
        let grown = resident.saturating_sub(resident_before);
        assert!(grown < 32 << 20, "the process has grown by {grown} bytes");

        let stats = bus.close(PATIENCE / 4).stats;
        assert_eq!(stats.check(), Ok(()));
        assert_eq!((stats.offered, stats.acked), (THREADS, accepted.load(Ordering::Relaxed)));
        assert_eq!(stats.dropped.total(), THREADS - stats.acked);
    });
}

/// Counts the bytes that are in use.
struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call is passed on as it is to the system's allocator, which keeps the trait's promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise about block and layout is handed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

// ---- panics -------------------------------------------------------------------------------------------------------------

struct Panicking;

impl Serialize for Panicking {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("as if a Serialize had a bug");
    }
}

struct Failing;

impl Serialize for Failing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("as if a value could not be serialized"))
    }
}

#[test]
fn a_thread_that_panics_can_publish_while_it_unwinds_and_afterwards() {
    struct WhileUnwinding<'a>(&'a Bus, &'a Cell<Vec<Offer>>);

    impl Drop for WhileUnwinding<'_> {
        fn drop(&mut self) {
            assert!(thread::panicking());
            let offers = [
                self.0.publish("unwinding", &1),
                // A panic in a panic, which must not get out: it would end the process.
                self.0.publish("unwinding", &Panicking),
                self.0.publish("unwinding", &Failing),
                self.0.publish_with("unwinding", || -> u8 { panic!("as if a closure had a bug") }),
                jetring::request_scope("unwinding", || self.0.publish("unwinding", &2)),
            ];
            self.1.set(offers.into());
        }
    }

    in_time(|| {
        let bus = Bus::start(config("null:")).unwrap();
        let in_vain = Offer::Dropped(Reason::Serialize);
        let offers = Cell::new(Vec::new());
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = WhileUnwinding(&bus, &offers);
            panic!("as if the application had a bug");
        }));
        assert!(panicked.is_err());
        assert_eq!(offers.take(), [Offer::Accepted, in_vain, in_vain, in_vain, Offer::Accepted]);
        // And the thread goes on as if nothing had been.
        for _ in 0..100 {
            assert_eq!(bus.publish("after", &Panicking), in_vain);
            assert!(bus.publish("after", &3).is_accepted());
        }
        let stats = bus.close(PATIENCE / 4).stats;
        assert_eq!(stats.check(), Ok(()));
        assert_eq!((stats.offered, stats.acked), (205, 102));
        assert_eq!(stats.dropped.get(Reason::Serialize), 103);
    });
}

/// Panics when it is dropped: a payload, a body, a key, or what a closure has.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as if a Drop had a bug");
    }
}

impl Serialize for Bomb {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        b"key"
    }
}

/// The payload of its panic panics, too.
struct Throwing;

impl Serialize for Throwing {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        std::panic::panic_any(Bomb)
    }
}

impl AsRef<[u8]> for Throwing {
    fn as_ref(&self) -> &[u8] {
        std::panic::panic_any(Bomb)
    }
}

#[test]
fn no_panic_of_user_code_gets_out_of_a_publish_and_each_offer_is_counted() {
    in_time(|| {
        let bus = Bus::start(config("null:")).unwrap();
        let topic = bus.topic("user").unwrap();
        let with_a_bomb = || {
            let bomb = Bomb;
            move || {
                let _dropped_in_the_call = bomb;
                1
            }
        };
        let dropped = Offer::Dropped;
        let offers = [
            (bus.publish("user", &Throwing), dropped(Reason::Serialize)),
            (topic.publish(&Throwing), dropped(Reason::Serialize)),
            (topic.publish_for("q-1", &Throwing), dropped(Reason::Serialize)),
            (topic.publish_with(|| -> u8 { std::panic::panic_any(Bomb) }), dropped(Reason::Serialize)),
            (bus.publish_with("user", || Bomb), dropped(Reason::Serialize)),
            (topic.publish_with(|| Bomb), dropped(Reason::Serialize)),
            (topic.publish_with(with_a_bomb()), dropped(Reason::Serialize)),
            (topic.publish_keyed(Throwing, &1), dropped(Reason::Serialize)),
            (bus.publish_keyed("user", Throwing, &1), dropped(Reason::Serialize)),
            (topic.publish_keyed(Bomb, &1), Offer::Accepted),
            (bus.publish_keyed("user", Bomb, &1), Offer::Accepted),
            (bus.publish_keyed("not valid", Bomb, &1), dropped(Reason::Rejected)),
            (bus.publish_with("not valid", with_a_bomb()), dropped(Reason::Rejected)),
            (jetring::publish_with("user", with_a_bomb()), dropped(Reason::NotInitialized)),
            (jetring::publish_keyed("user", Bomb, &1), dropped(Reason::NotInitialized)),
            (
                jetring::request_scope("x".repeat(1000), || bus.publish_with("user", with_a_bomb())),
                dropped(Reason::TooLarge),
            ),
        ];
        for (number, (offer, expected)) in offers.iter().enumerate() {
            assert_eq!(offer, expected, "offer {number}");
        }
        assert!(topic.publish(&1).is_accepted(), "and the bus goes on");
        let stats = bus.close(PATIENCE / 4).stats;
        // Two had no bus.
        assert_eq!((stats.check(), stats.offered, stats.acked), (Ok(()), offers.len() as u64 - 2 + 1, 3));
        assert_eq!(topic.publish_with(with_a_bomb()), Offer::Dropped(Reason::Closed));
        assert_eq!(bus.publish_with("user", with_a_bomb()), Offer::Dropped(Reason::Closed));
        assert_eq!(bus.stats().dropped.get(Reason::Closed), 2);
    });
}

// ---- fork ---------------------------------------------------------------------------------------------------------------

#[test]
fn in_a_forked_child_a_bus_does_nothing_and_its_parent_does_not_notice() {
    in_a_process_of_its_own("role_of_a_process_that_forks");
}

/// Children of each kind.
const CHILDREN: usize = 20;

/// So many that without the look at the process in `Doorbell` a child hung in half of the runs or more.
const CHILDREN_OF_A_SLEEPER: usize = 600;

const EVENTS_OF_A_CHILD: u64 = 100;

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_that_forks() {
    let mut config = config("null:");
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 4 << 10;
    let bus = Bus::start(config).unwrap();
    let offered = AtomicU64::new(0);
    let publish = |number: usize| {
        offered.fetch_add(1, Ordering::Relaxed);
        bus.publish("parent", &number)
    };
    for round in 0..CHILDREN {
        // The worker is busy, dozing or parked, and its locks are held or not: nobody can know, so we try many moments.
        assert!(publish(round).is_accepted());
        busy_for(Duration::from_micros(round as u64 * 97));
        if round % 4 == 3 {
            assert!(bus.flush(PATIENCE / 4).complete);
            // Longer than the worker lingers: it is most likely parked then, and a child's first event would wake it.
            thread::sleep(Duration::from_millis(40));
        }
        await_child(fork(|| child_publishes(&bus)));
        await_child(fork(|| {
            child_publishes(&bus)?;
            exec_true()
        }));
        await_child(fork(|| child_of_a_child_publishes(&bus)));
        await_child(fork(child_has_a_bus_of_its_own));
        // The forking thread has never published before.
        thread::scope(|scope| scope.spawn(|| await_child(fork(|| child_publishes(&bus)))).join().unwrap());
        assert!(publish(round).is_accepted());
        assert_eq!(bus.stats().check(), Ok(()));
    }
    forks_while_the_worker_falls_asleep(&bus);
    assert_balance(&bus.close(PATIENCE / 4).stats, offered.into_inner());
}

/// With a worker that is woken all the time, by flushes, many forks meet it with a lock in its hand. The child, whose
/// memory says that the worker sleeps, must not wait for that lock: nobody is left to open it.
fn forks_while_the_worker_falls_asleep(bus: &Bus) {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                assert!(bus.flush(PATIENCE / 4).complete);
            }
        });
        // The flag is set also when a child hangs, or the scope would never end.
        let forked = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..CHILDREN_OF_A_SLEEPER {
                await_child(fork(|| child_publishes(bus)));
            }
        }));
        enough.store(true, Ordering::Relaxed);
        forked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// What a child does; an error is its exit code. It must not panic, since a panic would unwind into the harness.
fn child_publishes(bus: &Bus) -> Result<(), libc::c_int> {
    let before = bus.stats();
    if before.held() > 0 || before.acked > 0 {
        // Those are its parent's.
        return Err(2);
    }
    for _ in 0..EVENTS_OF_A_CHILD {
        if bus.publish("child", &1) != Offer::Dropped(Reason::Closed) {
            return Err(3);
        }
    }
    // All of them at once, or the parent finds that the child hangs.
    let mut close = std::pin::pin!(bus.close_async(PATIENCE));
    let Poll::Ready(closed) = close.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        return Err(4);
    };
    for report in [bus.flush(PATIENCE), bus.close(PATIENCE), closed] {
        let stats = &report.stats;
        let offered = stats.offered - before.offered;
        let is_told = (offered, stats.dropped.get(Reason::Closed)) == (EVENTS_OF_A_CHILD, stats.offered);
        if report.complete || stats.check().is_err() || !is_told {
            return Err(5);
        }
    }
    if bus.is_connected() { Err(6) } else { Ok(()) }
}

fn child_of_a_child_publishes(bus: &Bus) -> Result<(), libc::c_int> {
    child_publishes(bus)?;
    await_child(fork(|| child_publishes(bus)));
    Ok(())
}

fn child_has_a_bus_of_its_own() -> Result<(), libc::c_int> {
    let bus = Bus::start(config("null:")).map_err(|_| 7)?;
    for number in 0..EVENTS_OF_A_CHILD {
        if !bus.publish("child", &number).is_accepted() {
            return Err(8);
        }
    }
    if bus.close(PATIENCE / 6).stats.acked == EVENTS_OF_A_CHILD { Ok(()) } else { Err(9) }
}

#[test]
fn the_last_handle_of_a_forked_child_is_dropped_without_a_word_to_the_parent() {
    in_a_process_of_its_own("role_of_a_process_whose_child_drops_its_handle");
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_whose_child_drops_its_handle() {
    let bus = Bus::start(config("null:")).unwrap();
    let mut handles = Some((bus.topic("parent").unwrap(), bus));
    for _ in 0..CHILDREN {
        // The child's copies, of which there are no others.
        await_child(fork(|| {
            drop(handles.take());
            Ok(())
        }));
        let (topic, bus) = handles.as_ref().unwrap();
        assert!(topic.publish(&1).is_accepted(), "the bus was closed by a child");
        assert!(bus.flush(PATIENCE / 4).complete);
    }
    let (_, bus) = handles.unwrap();
    assert_balance(&bus.close(PATIENCE / 4).stats, CHILDREN as u64);
}

/// Siblings of each parent, and what each publishes.
const SIBLINGS: u64 = 4;
const EVENTS_OF_A_SIBLING: u64 = 200;

/// What a parent keeps in memory its children all have: the state of a generator of random numbers, too. A child whose bus took its name
/// from there would have that of its sibling, and the server would take the events of both for the same ones.
#[test]
fn forked_siblings_are_told_apart_by_the_server() {
    for role in [
        "role_of_a_parent_that_has_a_bus",
        "role_of_a_parent_that_has_drawn_random_numbers",
        "role_of_a_parent_that_has_called_init",
    ] {
        for takes_batches in [false, true] {
            siblings_are_told_apart(role, takes_batches);
        }
    }
}

#[track_caller]
fn siblings_are_told_apart(role: &str, takes_batches: bool) {
    let server = NatsServer::start();
    let mut stream = stream_config("main", &["event.1.>"]);
    stream.allow_batch_publish = takes_batches;
    ask(create_stream(&server.url(), stream));
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"])
        .env(SERVER, server.url())
        .spawn()
        .unwrap();
    let status = await_end(&mut process, role);
    assert!(status.success(), "{role}: {status}");
    let (mut stored, mut audit) = (BTreeMap::<u64, Vec<u64>>::new(), Audit::new(true));
    for (_, subject, message) in ask(messages(&server.url(), "main")) {
        audit.observe(&message);
        if subject == "event.1.numbered" {
            let envelope: Envelope = serde_json::from_slice(&message).unwrap();
            stored.entry(envelope.body.publisher).or_default().push(envelope.body.number);
        }
    }
    let all = (0..SIBLINGS).map(|sibling| (sibling, (0..EVENTS_OF_A_SIBLING).collect()));
    assert!(stored == all.collect(), "{role}, batches: {takes_batches}: {stored:?}");
    assert!(audit.verdict().is_sound(), "{role}: {:?}", audit.verdict());
}

/// Forks the siblings, which live at the same time, and waits for them.
fn fork_siblings(life: impl Fn(u64) -> Result<(), libc::c_int>) {
    let children: Vec<_> = (0..SIBLINGS).map(|sibling| fork(|| life(sibling))).collect();
    children.into_iter().for_each(await_child);
}

fn publish_as(sibling: u64, publish: impl Fn(&Numbered) -> Offer) -> Result<(), libc::c_int> {
    for number in 0..EVENTS_OF_A_SIBLING {
        let event = Numbered { publisher: sibling, number, filling: filling_of(sibling, number) };
        if !publish(&event).is_accepted() {
            return Err(30);
        }
    }
    Ok(())
}

fn sibling_with_a_bus(sibling: u64) -> Result<(), libc::c_int> {
    let bus = Bus::start(config(&std::env::var(SERVER).unwrap())).map_err(|_| 31)?;
    publish_as(sibling, |event| bus.publish("numbered", event))?;
    if bus.close(PATIENCE / 3).stats.acked == EVENTS_OF_A_SIBLING { Ok(()) } else { Err(32) }
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_parent_that_has_a_bus() {
    let bus = Bus::start(config("null:")).unwrap();
    fork_siblings(sibling_with_a_bus);
    assert_balance(&bus.close(PATIENCE / 4).stats, 0);
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_parent_that_has_drawn_random_numbers() {
    let _ = rand::random::<u64>();
    fork_siblings(sibling_with_a_bus);
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_parent_that_has_called_init() {
    assert_eq!(jetring::publish("early", &1), Offer::Dropped(Reason::NotInitialized));
    jetring::init(config("null:"));
    let process = jetring::bus().unwrap().process().to_owned();
    fork_siblings(|sibling| {
        if jetring::publish("numbered", &1) != Offer::Dropped(Reason::Closed) {
            return Err(33);
        }
        jetring::init(config(&std::env::var(SERVER).unwrap()));
        // The first one counts, as in any process.
        jetring::init(config("null:"));
        let own = jetring::bus().ok_or(34)?.process().to_owned();
        if own == process {
            return Err(35);
        }
        publish_as(sibling, |event| jetring::publish("numbered", event))?;
        let stats = jetring::close(PATIENCE / 3).stats;
        // What the parent has lost before its `init` is the parent's.
        if (stats.offered, stats.acked) != (EVENTS_OF_A_SIBLING, EVENTS_OF_A_SIBLING) {
            return Err(36);
        }
        // The child of a child begins in the same way.
        await_child(fork(|| {
            jetring::init(config("null:"));
            if jetring::bus().ok_or(37)?.process() == own || !jetring::publish("numbered", &1).is_accepted() {
                return Err(38);
            }
            if jetring::close(PATIENCE / 4).stats.acked == 1 { Ok(()) } else { Err(39) }
        }));
        Ok(())
    });
    assert!(jetring::publish("parent", &1).is_accepted(), "the parent goes on");
    let stats = jetring::close(PATIENCE / 4).stats;
    assert_eq!((stats.offered, stats.acked, stats.dropped.get(Reason::NotInitialized)), (2, 1, 1));
}

#[test]
fn threads_that_race_for_init_start_one_bus() {
    in_a_process_of_its_own("role_of_a_process_whose_threads_race_for_init");
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_whose_threads_race_for_init() {
    assert_eq!(jetring::publish("early", &1), Offer::Dropped(Reason::NotInitialized));
    let processes: Vec<String> = thread::scope(|scope| {
        let start = || {
            jetring::init(config("null:"));
            jetring::bus().unwrap().process().to_owned()
        };
        let racing = [(); 8].map(|()| scope.spawn(start));
        racing.map(|thread| thread.join().unwrap()).into()
    });
    assert!(processes.iter().all(|process| *process == processes[0]), "{processes:?}");
    let is_worker = |task: std::io::Result<std::fs::DirEntry>| {
        let name = std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
        name.trim() == "jetring-0"
    };
    let workers =
        std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| is_worker(task).then_some(()));
    assert_eq!(workers.count(), 1);
    let stats = jetring::close(PATIENCE / 4).stats;
    assert_eq!((stats.offered, stats.dropped.get(Reason::NotInitialized)), (1, 1));
}

/// Which events of a sample are kept is chance, and each child has its own.
#[test]
fn forked_siblings_take_chances_of_their_own() {
    in_a_process_of_its_own("role_of_a_parent_that_samples");
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_parent_that_samples() {
    let sampling = || {
        let mut budget = jetring::Budget::default();
        budget.sample = 2;
        let bus = Bus::start(config("null:")).unwrap();
        bus.set_budget("sampled", budget).unwrap();
        let kept = |_| bus.publish("sampled", &1).is_accepted();
        (0..128).map(kept).collect::<Vec<bool>>()
    };
    let _ = sampling();
    let directory = tempfile::tempdir().unwrap();
    let told = |sibling: u64| directory.path().join(sibling.to_string());
    fork_siblings(|sibling| std::fs::write(told(sibling), format!("{:?}", sampling())).map_err(|_| 40));
    let kept: std::collections::BTreeSet<_> =
        (0..SIBLINGS).map(|sibling| std::fs::read_to_string(told(sibling)).unwrap()).collect();
    assert_eq!(kept.len() as u64, SIBLINGS, "{kept:?}");
}

#[cfg(feature = "metrics-endpoint")]
#[test]
fn an_endpoint_that_a_forked_child_drops_goes_on_in_the_parent() {
    in_a_process_of_its_own("role_of_a_process_whose_child_drops_an_endpoint");
}

#[cfg(feature = "metrics-endpoint")]
#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_whose_child_drops_an_endpoint() {
    use std::io::{Read, Write};
    let mut endpoint =
        Some(jetring::MetricsEndpoint::start("127.0.0.1:0", &prometheus::Registry::new()).unwrap());
    for _ in 0..CHILDREN {
        await_child(fork(|| {
            drop(endpoint.take());
            Ok(())
        }));
        let mut connection = std::net::TcpStream::connect(endpoint.as_ref().unwrap().address()).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// One line in a child, however often it asks, and none in the parent.
#[test]
fn a_forked_child_says_once_in_the_log_that_the_bus_does_nothing_there() {
    in_a_process_of_its_own("role_of_a_process_with_a_log_that_forks");
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_with_a_log_that_forks() {
    tracing::subscriber::set_global_default(CountsForkLines).unwrap();
    let bus = Bus::start(config("null:")).unwrap();
    await_child(fork(|| {
        for _ in 0..3 {
            let _ = bus.flush(PATIENCE);
            let _ = bus.close(PATIENCE);
        }
        if FORK_LINES.load(Ordering::Relaxed) == 1 { Ok(()) } else { Err(10) }
    }));
    // A subscriber whose lock is held by a thread that the child does not have.
    let held = LOG_LOCK.lock().unwrap();
    await_child(fork(|| {
        let _ = bus.close(PATIENCE);
        Ok(())
    }));
    drop(held);
    assert_eq!(FORK_LINES.load(Ordering::Relaxed), 0);
    assert_balance(&bus.close(PATIENCE / 4).stats, 0);
}

static FORK_LINES: AtomicU64 = AtomicU64::new(0);
static LOG_LOCK: Mutex<()> = Mutex::new(());

struct CountsForkLines;

impl tracing::Subscriber for CountsForkLines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "jetring::fork"
    }
    fn event(&self, _: &tracing::Event<'_>) {
        let _held = LOG_LOCK.lock().unwrap();
        FORK_LINES.fetch_add(1, Ordering::Relaxed);
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn exec_true() -> Result<(), libc::c_int> {
    let (path, end) = (c"/bin/true".as_ptr(), std::ptr::null());
    // SAFETY: path and arguments are texts that end in zero, and the list ends in null.
    unsafe { libc::execv(path, [path, end].as_ptr()) };
    Err(20)
}

/// Runs `work` in a child, which then ends at once, without destructors. Returns the child.
fn fork(work: impl FnOnce() -> Result<(), libc::c_int>) -> libc::pid_t {
    // SAFETY: the child calls only what is under test, and leaves by `_exit` or `execv`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "{}", std::io::Error::last_os_error());
    if pid > 0 {
        return pid;
    }
    let code = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code,
        Err(_) => 21,
    };
    // SAFETY: it has no precondition.
    unsafe { libc::_exit(code) }
}

fn await_child(pid: libc::pid_t) {
    let deadline = Instant::now() + PATIENCE / 2;
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live integer.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
        if ended == pid {
            break;
        }
        assert_eq!(ended, 0, "{}", std::io::Error::last_os_error());
        if Instant::now() > deadline {
            // SAFETY: it is our child, and not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("a forked child hangs");
        }
        thread::sleep(Duration::from_micros(200));
    }
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "a child ended with status {status:#x}"
    );
}

fn busy_for(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_alarm(_signal: libc::c_int) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// The kernel gives the alarm to any thread, so the worker's waits are interrupted as well as the publishers.
#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_full_of_alarms() {
    let bus = Bus::start(config("null:")).unwrap();
    handle(libc::SIGALRM, count_alarm);
    let interval = libc::timeval { tv_sec: 0, tv_usec: 200 };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the pointer is to a live timer, and the old one is not asked for.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    let began = Instant::now();
    let (mut offered, mut accepted) = (0, 0);
    while ALARMS.load(Ordering::Relaxed) < 1_000 {
        assert!(began.elapsed() < PATIENCE / 2, "only {ALARMS:?} alarms");
        let taken = thread::scope(|scope| {
            let publish = || (0..1_000).filter(|number| bus.publish("alarmed", number).is_accepted()).count();
            let publishers = [(); 3].map(|()| scope.spawn(publish));
            publishers.map(|publisher| publisher.join().unwrap())
        });
        offered += 3_000;
        accepted += taken.iter().sum::<usize>() as u64;
    }
    let report = bus.close(PATIENCE / 4);
    assert!(report.complete, "{report:?}");
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!((report.stats.offered, report.stats.acked), (offered, accepted));
    assert_eq!(report.stats.dropped.get(Reason::QueueFull), offered - accepted);
}

// ---- the end of the process ---------------------------------------------------------------------------------------------

/// Where a process that ends finds its server.
const SERVER: &str = "JETRING_TEST_SERVER";

const EVENTS_OF_AN_END: u64 = 500;

#[test]
fn what_was_published_before_a_close_is_stored_when_the_process_ends() {
    for role in ["role_of_a_process_that_closes_and_exits", "role_of_a_process_that_closes_and_returns"] {
        let (stored, audit) = stored_by(role);
        assert_eq!(stored, (0..EVENTS_OF_AN_END).collect::<Vec<_>>(), "{role}");
        assert!(audit.has_stopped() && audit.verdict().is_sound(), "{role}: {:?}", audit.verdict());
    }
}

/// The worker ends in the middle of its work, wherever that is, and nobody waits for it. What is stored is whole and in order, and the stream
/// shows that the bus has not said its last word.
#[test]
fn without_a_close_a_process_ends_at_once_and_what_was_not_stored_is_lost_from_the_end() {
    for role in ["role_of_a_process_that_exits", "role_of_a_process_that_aborts"] {
        let (stored, audit) = stored_by(role);
        assert_eq!(stored, (0..stored.len() as u64).collect::<Vec<_>>(), "{role}");
        assert!(!audit.has_stopped(), "{role}: nobody has closed the bus");
        let verdict = audit.verdict();
        assert_eq!((verdict.duplicates, verdict.reordered, verdict.lost_undeclared), (0, 0, 0), "{role}");
    }
}

/// What the stream holds of a process that plays this role.
#[track_caller]
fn stored_by(role: &str) -> (Vec<u64>, Audit) {
    let server = NatsServer::start();
    ask(create_stream(&server.url(), stream_config("main", &["event.1.>"])));
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"])
        .env(SERVER, server.url())
        .spawn()
        .unwrap();
    let status = await_end(&mut process, role);
    let is_well = if role.ends_with("aborts") { status.code().is_none() } else { status.success() };
    assert!(is_well, "{role}: {status}");
    let (mut stored, mut audit) = (Vec::new(), Audit::new(true));
    for (_, subject, message) in ask(messages(&server.url(), "main")) {
        audit.observe(&message);
        if subject == "event.1.numbered" {
            let envelope: Envelope = serde_json::from_slice(&message).unwrap();
            stored.push(envelope.body.number);
        }
    }
    (stored, audit)
}

/// Publishes to the server of the test, from the one thread that then ends the process.
fn published() -> Bus {
    let bus = Bus::start(config(&std::env::var(SERVER).unwrap())).unwrap();
    for number in 0..EVENTS_OF_AN_END {
        let event = Numbered { publisher: 0, number, filling: filling_of(0, number) };
        assert!(bus.publish("numbered", &event).is_accepted());
    }
    bus
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_that_closes_and_exits() {
    let report = published().close(PATIENCE / 4);
    assert_balance(&report.stats, EVENTS_OF_AN_END);
    std::process::exit(0);
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_that_closes_and_returns() {
    // The last handle is dropped behind the close, and the worker has ended.
    assert_balance(&published().close(PATIENCE / 4).stats, EVENTS_OF_AN_END);
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_that_exits() {
    let _bus = published();
    std::process::exit(0);
}

#[test]
#[ignore = "started as a process of its own by a test above"]
fn role_of_a_process_that_aborts() {
    let bus = published();
    // Until something is stored, so that it is in the middle.
    let _ = bus.flush(Duration::from_millis(5));
    std::process::abort();
}

// ---- helpers ------------------------------------------------------------------------------------------------------------

fn config(url: &str) -> Config {
    Config::new(url, "main", 1).unwrap()
}

/// The law, with every accepted event acked and whatever was refused counted.
#[track_caller]
fn assert_balance(stats: &Stats, accepted: u64) {
    assert_eq!(stats.check(), Ok(()));
    assert_eq!((stats.acked, stats.indeterminate, stats.held()), (accepted, 0, 0), "{stats:?}");
    assert_eq!(stats.offered, accepted + stats.dropped.total());
}

/// Runs `work` on a thread of its own; a hang becomes a failure.
#[track_caller]
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        // Ended, or panicked, which is handed on.
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

/// Runs one of the ignored tests, alone, on the main thread of a new process.
#[track_caller]
fn in_a_process_of_its_own(role: &str) {
    let binary = std::env::current_exe().unwrap();
    let arguments = ["--exact", role, "--ignored", "--nocapture", "--test-threads=1"];
    let mut process = Command::new(binary).args(arguments).spawn().unwrap();
    let status = await_end(&mut process, role);
    assert!(status.success(), "{role}: {status}");
}

#[track_caller]
fn await_end(process: &mut Child, role: &str) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            let _ = process.wait();
            panic!("{role} hangs");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn ask<T>(question: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(question)
}
