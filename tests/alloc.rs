//! A publish does not allocate, whatever becomes of the event.
//!
//! An allocator that counts for each thread stands in front of the system's. The hot thread makes its first call (the one
//! that is allowed to allocate), and then ten thousand more; the count must not have moved. It is a count and no time, so it
//! holds on any machine, busy or not.
//!
//! This is a process of its own since it replaces the allocator. Nothing here calls `init`, so the process-wide functions are
//! still without a bus.

#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use jetring::{Budget, Bus, Config, Event, Offer, Reason};
use serde::Serialize;

const CALLS: u64 = 10_000;

/// Counts what the calling thread asks for.
struct Counting;

thread_local! {
    /// `const` and without a destructor, so that reading it does not itself allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is passed on as it is to the system's allocator, which keeps the trait's promises.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about the layout is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about block, layout and size is handed on.
        unsafe { System.realloc(block, layout, new_size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise about block and layout is handed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An event as a solver publishes it: about 400 bytes as an envelope.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PriceEstimate<'a> {
    quote_id: u64,
    estimator: &'a str,
    kind: Kind,
    in_token: &'a str,
    out_token: &'a str,
    in_amount: u128,
    out_amount: u128,
    gas: Option<u64>,
    price: f64,
    error: Option<&'a str>,
    hops: [Hop<'a>; 2],
}

#[derive(Serialize)]
enum Kind {
    Sell { partial: bool },
}

#[derive(Serialize)]
struct Hop<'a> {
    pool: &'a str,
    fee: u32,
}

impl Event for PriceEstimate<'_> {
    const SUBJECT: &'static str = "priceEstimate";
}

fn estimate(quote_id: u64) -> PriceEstimate<'static> {
    PriceEstimate {
        quote_id,
        estimator: "\"two hops\"",
        kind: Kind::Sell { partial: false },
        in_token: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
        out_token: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        in_amount: 1_000_000_000_000_000_000,
        out_amount: u128::from(u64::MAX) * 1_000,
        gas: Some(184_203),
        price: 3_287.114_209_3,
        error: None,
        hops: [Hop { pool: "0x88e6a0c2ddd2", fee: 500 }, Hop { pool: "0x4e68ccd3e89f", fee: 3_000 }],
    }
}

#[test]
fn an_accepted_event_costs_no_allocation() {
    let mut config = config("null:");
    config.queue.capacity = 64 << 20;
    every_way_is_free(&Bus::start(config).expect("it is valid"), Offer::Accepted);
}

#[test]
fn an_event_with_a_key_costs_no_allocation() {
    let mut config = config("null:");
    config.partitions = 3;
    config.queue.capacity = 64 << 20;
    let bus = Bus::start(config).expect("it is valid");
    let topic = bus.topic("priceEstimate").expect("the name is valid");
    // Accepted or, where a worker of a debug build is slower, refused.
    let is_taken = |offer| matches!(offer, Offer::Accepted | Offer::Dropped(Reason::QueueFull));
    let keys = ["WETH-USDC", "WETH-DAI", "DAI-USDC", "WBTC-WETH"];
    assert!(is_taken(topic.publish_keyed("first", &estimate(0))));
    let before = ALLOCATIONS.get();
    for number in 0..CALLS {
        let key = keys[number as usize % keys.len()];
        assert!(is_taken(topic.publish_keyed(key, &estimate(number))));
        assert!(is_taken(bus.publish_keyed("priceEstimate", key, &estimate(number))));
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn an_event_with_a_budget_costs_no_allocation_whatever_that_says() {
    let bus = Bus::start(config("null:")).expect("it is valid");
    let mut budget = Budget::default();
    (budget.sample, budget.rate, budget.burst) = (2, Some(1_000), Some(100));
    budget.share = 0.9.try_into().expect("a share");
    bus.set_budget("priceEstimate", budget).expect("it is valid");
    let topic = bus.topic("priceEstimate").expect("the name is valid");
    let json = serde_json::to_vec(&estimate(0)).expect("it is JSON");
    let ids: Vec<_> = (0..64).map(|number| format!("quote-{number}")).collect();
    let mut answers = [0; 3];
    let mut count = |offer| {
        answers[match offer {
            Offer::Accepted => 0,
            Offer::SampledOut => 1,
            Offer::Dropped(reason) => {
                assert_eq!(reason, Reason::QueueFull);
                2
            }
        }] += 1;
    };
    count(topic.publish(&estimate(0)));
    let before = ALLOCATIONS.get();
    for number in 0..CALLS {
        count(topic.publish(&estimate(number)));
        count(topic.publish_for(&ids[number as usize % ids.len()], &estimate(number)));
        count(topic.publish_keyed("WETH-USDC", &estimate(number)));
        count(topic.publish_json(&json));
        count(bus.publish("priceEstimate", &estimate(number)));
        count(bus.publish_keyed("priceEstimate", "WETH-USDC", &estimate(number)));
        // Accepted or, where a worker of a debug build is slower, refused.
        bus.publish_with("unlimited", || 1);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert!(answers.iter().all(|&events| events >= 100), "{answers:?} were taken, left out, and refused");
}

#[test]
fn an_event_that_finds_the_queue_full_costs_no_allocation() {
    let bus = full_bus();
    every_way_is_free(&bus, Offer::Dropped(Reason::QueueFull));
}

#[test]
fn an_event_after_the_close_costs_no_allocation() {
    let bus = Bus::start(config("null:")).expect("it is valid");
    assert!(bus.close(Duration::from_secs(5)).complete);
    every_way_is_free(&bus, Offer::Dropped(Reason::Closed));
}

#[test]
fn an_event_that_is_too_large_costs_no_allocation() {
    let mut config = config("null:");
    config.queue.max_event = 64;
    every_way_is_free(&Bus::start(config).expect("it is valid"), Offer::Dropped(Reason::TooLarge));
}

#[test]
fn an_event_before_init_costs_no_allocation() {
    let expected = Offer::Dropped(Reason::NotInitialized);
    is_free(expected, |number| jetring::publish("priceEstimate", &estimate(number)));
    is_free(expected, |number| jetring::publish_event(&estimate(number)));
    is_free(expected, |number| jetring::publish_with("priceEstimate", || estimate(number)));
    is_free(expected, |number| jetring::publish_keyed("priceEstimate", "WETH-USDC", &estimate(number)));
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    let mut grown = std::hint::black_box(Vec::with_capacity(1));
    grown.extend([1, 2, 3]);
    assert_eq!(ALLOCATIONS.get() - before, 3, "a box, a vector, and its growth");
}

/// All ways to publish, each ten thousand times, with this answer and without an allocation.
#[track_caller]
fn every_way_is_free(bus: &Bus, expected: Offer) {
    let json = serde_json::to_vec(&estimate(0)).expect("it is JSON");
    assert!((300..500).contains(&json.len()), "{} bytes are no usual event", json.len());
    let topic = bus.topic("priceEstimate").expect("the name is valid");
    // What is accepted must find room, and the worker of a debug build is slower than ten thousand calls.
    let is_free = |expected, publish: &dyn Fn(u64) -> Offer| {
        is_free(expected, publish);
        if expected == Offer::Accepted {
            assert!(bus.flush(Duration::from_secs(30)).complete);
        }
    };
    is_free(expected, &|number| bus.publish("priceEstimate", &estimate(number)));
    is_free(expected, &|number| bus.publish_event(&estimate(number)));
    is_free(expected, &|number| bus.publish_with("priceEstimate", || estimate(number)));
    is_free(expected, &|number| bus.publish_keyed("priceEstimate", "WETH-USDC", &estimate(number)));
    is_free(expected, &|number| topic.publish(&estimate(number)));
    is_free(expected, &|number| topic.publish_keyed("WETH-USDC", &estimate(number)));
    is_free(expected, &|number| topic.publish_for("quote-17", &estimate(number)));
    is_free(expected, &|_| topic.publish_json(&json));
    jetring::request_scope("quote-17", || is_free(expected, &|number| topic.publish(&estimate(number))));
}

#[track_caller]
fn is_free(expected: Offer, publish: impl Fn(u64) -> Offer) {
    assert_eq!(publish(0), expected);
    let before = ALLOCATIONS.get();
    let as_expected = (1..=CALLS).filter(|&number| publish(number) == expected).count();
    let allocations = ALLOCATIONS.get() - before;
    assert_eq!(as_expected as u64, CALLS, "answers of {expected:?}");
    assert_eq!(allocations, 0, "{allocations} allocations in {CALLS} calls");
}

fn config(url: &str) -> Config {
    Config::new(url, "main", 1).expect("it is valid")
}

/// A bus without a server whose window and ring have no more room.
fn full_bus() -> Bus {
    let mut config = config("nats://127.0.0.1:1");
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 4 << 10;
    config.delivery.max_in_flight = 16;
    let bus = Bus::start(config).expect("it is valid");
    let deadline = Instant::now() + Duration::from_secs(15);
    // The report that the bus has started takes one place of the window.
    let mut window_is_full = false;
    while !window_is_full {
        assert!(Instant::now() < deadline, "the window does not fill up: {:?}", bus.stats());
        window_is_full = bus.stats().in_flight == 15;
        while bus.publish("fill", &0).is_accepted() {}
    }
    bus
}
