//! What a publish costs in coherence: one locked instruction, which claims the place in the ring, and not a fence more.
//!
//! Every instruction of the call is executed on its own and looked at; `benches/steps.rs` says how. It holds in a debug build as well
//! as in a release build, since neither compiler may add or leave out an atomic operation.
//!
//! Where a process may not trace its child, nothing is tested. That is said on standard error, and it fails if `JETRING_DEMAND_PTRACE`
//! is set, as it is in CI.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../benches/event.rs"]
mod event;
#[path = "../benches/steps.rs"]
mod steps;

use event::{HOP, envelope_len, estimate};
use jetring::{Bus, Config, Reason};
use std::hint::black_box;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};
use steps::{Failure, Steps, most_common};

/// Calls that are looked at. One of a thousand takes its own time, which is more than a publish.
const CALLS: usize = 3;

#[test]
fn an_accepted_publish_has_one_locked_instruction_and_no_fence_or_system_call() {
    let body = estimate(&[HOP]);
    assert_eq!(envelope_len(&body), 414);
    let bus = Bus::start(Config::new("null:", "main", 1).expect("it is valid")).expect("it starts");
    let topic = bus.topic("priceEstimate").expect("it is valid");
    assert!((0..1_000).all(|_| topic.publish(&body).is_accepted()));
    until("the worker has caught up", || bus.stats().held() == 0);

    // In the child there is no worker. Should it have slept at the fork, then the first call wakes nobody, and the others need not.
    let publish = || topic.publish(black_box(&body)).is_accepted();
    let Some(calls) = counted(|| (0..4).all(|_| publish()), publish) else { return };
    let (steps, alike) = most_common(&calls);
    println!(
        "an accepted publish: {} instructions, {} library calls with {}",
        steps.own, steps.calls, steps.foreign
    );
    assert!(alike >= CALLS - 1, "only {alike} of {CALLS} calls are alike: {:?}", costs(&calls));
    assert_eq!(steps.locked.len(), 1, "locked instructions: {:?}", steps.locked);
    assert_eq!((&steps.fences, &steps.system_calls), (&vec![], &vec![]));
    let report = bus.close(Duration::from_secs(5));
    assert_eq!(report.stats.acked, 1_000, "what a child publishes is not ours");
}

#[test]
fn a_refused_publish_has_no_fence_or_system_call() {
    let body = estimate(&[HOP]);
    let bus = Bus::start(Config::new("null:", "main", 1).expect("it is valid")).expect("it starts");
    let topic = bus.topic("priceEstimate").expect("it is valid");
    let _ = bus.close(Duration::from_secs(5));
    let publish = || topic.publish(black_box(&body)) == jetring::Offer::Dropped(Reason::Closed);
    let Some(calls) = counted(publish, publish) else { return };
    let (steps, alike) = most_common(&calls);
    assert!(alike >= CALLS - 1, "only {alike} of {CALLS} calls are alike: {:?}", costs(&calls));
    assert_eq!((&steps.fences, &steps.system_calls), (&vec![], &vec![]));
}

#[test]
fn the_witness_sees_what_it_looks_for() {
    let word = AtomicU64::new(0);
    let seen = |work: &dyn Fn()| {
        let calls = counted(
            || true,
            || {
                work();
                true
            },
        )?;
        assert!(calls.iter().all(|steps| *steps == calls[0]), "{:?}", costs(&calls));
        Some((calls[0].locked.len(), calls[0].fences.len(), calls[0].system_calls.len()))
    };
    let Some(nothing) = seen(&|| ()) else { return };
    assert_eq!(nothing, (0, 0, 0));
    assert_eq!(seen(&|| _ = word.load(Ordering::SeqCst)), Some((0, 0, 0)));
    assert_eq!(seen(&|| word.store(1, Ordering::Release)), Some((0, 0, 0)));
    assert_eq!(seen(&|| _ = word.fetch_add(1, Ordering::Relaxed)), Some((1, 0, 0)), "lock xadd");
    assert_eq!(seen(&|| _ = black_box(word.swap(1, Ordering::Relaxed))), Some((1, 0, 0)), "xchg");
    assert_eq!(seen(&|| word.store(1, Ordering::SeqCst)), Some((1, 0, 0)), "xchg");
    let (locked, fences, _) = seen(&|| fence(Ordering::SeqCst)).expect("as before");
    assert_eq!(locked + fences, 1, "mfence, or a locked instruction in its place");
    let yields = &|| std::thread::yield_now();
    assert_eq!(seen(yields), Some((0, 0, 1)), "sched_yield");
}

/// Counts calls in a child; none if this machine does not let us, which is said.
fn counted(prepare: impl FnMut() -> bool, work: impl FnMut() -> bool) -> Option<Vec<Steps>> {
    /// One test at a time: a child is forked with the locks of its moment.
    static TURN: Mutex<()> = Mutex::new(());

    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match steps::count(CALLS, prepare, work) {
        Ok(calls) => Some(calls),
        Err(Failure::Broken(why)) => panic!("{why}"),
        Err(Failure::Denied) => {
            let demanded = std::env::var_os("JETRING_DEMAND_PTRACE").is_some();
            assert!(!demanded, "a process may not trace its child here, and JETRING_DEMAND_PTRACE is set");
            // Past the test harness, which shows what a passing test prints to nobody.
            let words = "SKIPPED: a process may not trace its child here (ptrace); nothing was tested\n";
            let _ = std::io::stderr().write_all(words.as_bytes());
            None
        }
    }
}

fn costs(calls: &[Steps]) -> Vec<(u64, u64)> {
    calls.iter().map(|steps| (steps.own, steps.calls)).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::yield_now();
    }
}
