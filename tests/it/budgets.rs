//! Budgets of event names: who publishes too much does not take the room of others, a sample keeps whole requests, and the ledger balances.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jetring::envelope::Envelope;
use jetring::reader::{From, Reader};
use jetring::{
    Budget, BudgetError, Bus, Config, Framing, Offer, Reason, StartError, WhenFull, keeps_request,
    request_scope,
};

use crate::cli::{assert_status, file, jetring, json_of, path, stderr, stdout};
use crate::server::{messages, wait_until};
use crate::support::{
    CLOSE, LOAD, NO_SERVER, Numbered, SOON, STREAM, Scrape, Seen, ask, bus, bus_with, config, prove,
    prove_ledger, server_with_stream, small,
};

/// The name of the events that are too many.
const CHATTY: &str = "chatty";

fn share(share: f64) -> Budget {
    let mut budget = Budget::default();
    budget.share = share.try_into().expect("a share");
    budget
}

fn rate(rate: u32, burst: u32) -> Budget {
    let mut budget = Budget::default();
    (budget.rate, budget.burst) = (Some(rate), Some(burst));
    budget
}

fn sample(sample: u32) -> Budget {
    let mut budget = Budget::default();
    budget.sample = sample;
    budget
}

fn set(config: &mut Config, name: &str, budget: Budget) {
    config.events.insert(name.parse().expect("a valid name"), budget);
}

/// Publishes chatty events until the window is full, and the ring is as full as they may make it.
#[track_caller]
fn chat(bus: &Bus, seen: &mut Seen) {
    // The report that the bus has started has a place in the window, and is no event.
    wait_until("the window is full, and the ring takes no more", || {
        let window_is_full = bus.stats().in_flight == 15;
        while seen.call(|| bus.publish(CHATTY, &Numbered::new(0, seen_so_far(bus)))).is_accepted() {}
        window_is_full
    });
}

fn seen_so_far(bus: &Bus) -> u64 {
    bus.stats().offered
}

/// While the server takes nothing, one name publishes all it can, and then fifty events of others come. Returns how many of them
/// were lost.
#[track_caller]
fn lost_beside_a_chatty_event(change: impl FnOnce(&mut Config)) -> u64 {
    let server = server_with_stream();
    server.pause();
    let bus = bus_with(&server.url(), |config| {
        small(config);
        change(config);
    });
    let mut seen = Seen::default();
    chat(&bus, &mut seen);
    let (before, topic) = (seen.dropped(Reason::QueueFull), bus.topic("order").expect("a valid name"));
    for number in 0..50 {
        seen.call(|| topic.publish(&Numbered::new(1, number)));
    }
    let lost = seen.dropped(Reason::QueueFull) - before;
    server.resume();
    let report = bus.close(CLOSE);
    let proof = prove(&server.url(), &bus, &report, &seen);
    let delivered = proof.names.iter().filter(|name| *name == "order").count() as u64;
    assert_eq!(delivered, 50 - lost, "what was taken of the others is delivered");
    lost
}

#[test]
fn a_share_leaves_room_for_others_that_a_chatty_event_would_take() {
    assert_eq!(lost_beside_a_chatty_event(|_| {}), 50, "without one the others are starved");
    assert_eq!(lost_beside_a_chatty_event(|config| set(config, CHATTY, share(0.5))), 0);
}

#[test]
fn what_is_above_its_share_does_not_wait_for_room_where_others_do() {
    let wait = Duration::from_secs(60);
    let bus = bus_with(NO_SERVER, |config| {
        small(config);
        config.queue.when_full = WhenFull::Block(wait);
        set(config, CHATTY, share(0.5));
    });
    let mut seen = Seen::default();
    // Each refusal of it comes at once: `prove_ledger` would see a call that took a second.
    chat(&bus, &mut seen);
    let topic = bus.topic(CHATTY).expect("a valid name");
    let refused = Offer::Dropped(Reason::QueueFull);
    assert_eq!(seen.call(|| topic.publish(&Numbered::new(0, 0))), refused);
    assert_eq!(seen.call(|| topic.publish_for("q", &Numbered::new(0, 0))), refused);
    assert_eq!(seen.call(|| topic.publish_keyed("k", &Numbered::new(0, 0))), refused);
    assert_eq!(seen.call(|| topic.publish_json(b"{}")), refused);
    prove_ledger(&bus.close(SOON), &seen);
}

#[test]
fn a_sample_keeps_whole_requests_across_processes_and_their_weights_estimate_all() {
    const REQUESTS: u64 = 2000;
    const SAMPLE: u32 = 10;
    let server = server_with_stream();
    // Two buses are as two processes: they have nothing in common but the ids.
    let buses = [(); 2].map(|()| {
        bus_with(&server.url(), |config| {
            set(config, "quote", sample(SAMPLE));
            set(config, "estimate", sample(SAMPLE));
        })
    });
    let mut seen = [Seen::default(), Seen::default()];
    for request in 0..REQUESTS {
        let id = format!("request-{request}");
        let offers: Vec<_> = (0..2)
            .flat_map(|process| {
                let (bus, seen) = (&buses[process], &mut seen[process]);
                let topic = bus.topic("estimate").expect("a valid name");
                let event = |number| Numbered::new(request, number);
                let body = || serde_json::to_vec(&event(2)).expect("plain data");
                [
                    request_scope(id.as_str(), || seen.call(|| bus.publish("quote", &event(0)))),
                    request_scope(id.as_str(), || seen.call(|| topic.publish(&event(1)))),
                    request_scope(id.as_str(), || seen.call(|| topic.publish_json(&body()))),
                    seen.call(|| topic.publish_for(&id, &event(3))),
                ]
            })
            .collect();
        let expected = if keeps_request(&id, SAMPLE) { Offer::Accepted } else { Offer::SampledOut };
        assert_eq!(offers, vec![expected; 8], "{id}");
    }
    let kept =
        (0..REQUESTS).filter(|request| keeps_request(format!("request-{request}"), SAMPLE)).count() as u64;
    for (bus, seen) in buses.iter().zip(&seen) {
        let report = bus.close(CLOSE);
        let proof = prove(&server.url(), bus, &report, seen);
        assert_eq!((report.stats.offered, report.stats.acked), (4 * kept, 4 * kept));
        assert_eq!(report.stats.sampled_out, 4 * (REQUESTS - kept));
        assert!(proof.gaps.is_empty(), "what is sampled out is no loss: {:?}", proof.gaps);
        assert_eq!(proof.stopped.map(|stopped| stopped.ledger.sampled_out), Some(4 * (REQUESTS - kept)));
        assert_eq!(
            Scrape::of(bus).sum("event_bus_sampled_out_events_total"),
            report.stats.sampled_out as f64
        );
    }
    let mut estimate = 0;
    for (_, subject, payload) in ask(messages(&server.url(), STREAM)) {
        let envelope = Envelope::parse(&payload).expect("an envelope");
        if subject.contains("_bus") {
            assert_eq!(envelope.sampled_rate, None, "a report stands for itself");
            continue;
        }
        estimate += envelope.weight();
        let text = String::from_utf8_lossy(&payload);
        let (_, seq) = envelope.stamp().expect("it is stamped");
        assert!(text.contains(&format!(r#""seq":{seq},"sampledrate":10,"body":"#)), "{text}");
    }
    // Of eight events each of 2000 requests; the ids are fixed, so this is no matter of luck.
    let (all, deviation) = (8 * REQUESTS, 8.0 * (REQUESTS as f64 * 9.0).sqrt());
    assert_eq!(estimate, 8 * kept * u64::from(SAMPLE));
    assert!((estimate as f64 - all as f64).abs() < 2.0 * deviation, "{estimate} estimated of {all}");
}

#[test]
fn events_outside_of_requests_are_sampled_one_by_one_and_never_made_in_vain() {
    const EVENTS: u64 = 20_000;
    let bus = bus_with("null:", |config| {
        config.queue.capacity = 64 << 20;
        set(config, LOAD, sample(4));
    });
    let (topic, mut made) = (bus.topic(LOAD).expect("a valid name"), 0);
    let mut seen = Seen::default();
    for number in 0..EVENTS {
        let event = || {
            made += 1;
            number
        };
        if number % 2 == 0 {
            seen.call(|| topic.publish_with(event));
        } else {
            seen.call(|| bus.publish_with(LOAD, event));
        }
    }
    assert_eq!((made, seen.accepted + seen.sampled_out), (seen.accepted, EVENTS));
    // Six standard deviations: once in five hundred million runs.
    let (expected, deviation) = (EVENTS as f64 / 4.0, (EVENTS as f64 * 0.25 * 0.75).sqrt());
    assert!((seen.accepted as f64 - expected).abs() < 6.0 * deviation, "{} of {EVENTS} kept", seen.accepted);
    prove_ledger(&bus.close(CLOSE), &seen);
}

#[test]
fn the_weight_of_an_event_goes_with_it_through_a_spool_and_a_frame() {
    let mut server = server_with_stream();
    let parent = tempfile::tempdir().expect("a temporary directory");
    let change = |config: &mut Config| {
        config.queue.when_full = WhenFull::Spool;
        config.spool.dir = Some(parent.path().join("spool"));
        config.delivery.framing = Framing::Packed;
    };
    let bus = bus_with(&server.url(), |config| {
        change(config);
        set(config, LOAD, sample(10));
    });
    let (topic, mut seen) = (bus.topic(LOAD).expect("a valid name"), Seen::default());
    assert_eq!(seen.call(|| topic.publish_for("q-98", &Numbered::new(0, 0))), Offer::Accepted);
    wait_until("the server has the first event", || bus.stats().acked == 1);
    server.kill();
    for request in 1..500 {
        seen.call(|| topic.publish_for(&format!("request-{request}"), &Numbered::new(0, request)));
    }
    assert!(seen.accepted > 30 && seen.sampled_out > 400, "{seen:?}");
    let report = bus.close(Duration::from_secs(6));
    let left = seen.accepted - 1;
    assert_eq!((report.stats.check(), report.stats.spooled), (Ok(()), left), "{report:?}");
    server.restart();
    // The next process takes no samples, and sends what is there.
    let next = bus_with(&server.url(), change);
    wait_until("the next process has sent all", || next.stats().acked > left && next.stats().held() == 0);
    assert!(next.close(CLOSE).complete);
    let mut weights = Vec::new();
    ask(async {
        let config = config(&server.url());
        let mut reader = Reader::open(&config, "event.1.load", From::All, false).await.expect("it opens");
        while let Some(received) = reader.next().await.expect("it is read") {
            let frame = received.unpack().expect("a frame");
            weights.extend(frame.iter().map(|event| Envelope::parse(event).expect("an envelope").weight()));
        }
    });
    assert_eq!(weights, vec![10; seen.accepted as usize]);
}

/// Of a thousand events those of the burst are taken, and the others are refused.
#[track_caller]
fn taken_at_rate(seen: &mut Seen, publish: &dyn Fn() -> Offer, burst: u64) {
    let start = Instant::now();
    let (accepted, dropped) = (seen.accepted, seen.dropped(Reason::QueueFull));
    (0..1000).for_each(|_| _ = seen.call(publish));
    let taken = seen.accepted - accepted;
    // One more for each second that has passed meanwhile, and for those that had begun.
    let most = burst + start.elapsed().as_secs() + 2;
    assert!((burst..=most).contains(&taken), "{taken} were taken, of a burst of {burst}");
    assert_eq!(seen.dropped(Reason::QueueFull) - dropped, 1000 - taken);
}

#[test]
fn a_budget_changes_at_once_for_all_threads_and_for_topics_that_are_there() {
    let bus = bus("null:");
    let topic = bus.topic(LOAD).expect("a valid name");
    let mut seen = Seen::default();
    let everywhere = |seen: &mut Seen, expected: Offer| {
        assert_eq!(seen.call(|| topic.publish_for("q-17", &0)), expected);
        let elsewhere = || seen.call(|| request_scope("q-17", || bus.publish(LOAD, &0)));
        assert_eq!(thread::scope(|scope| scope.spawn(elsewhere).join().expect("no panic")), expected);
        let other = seen.call(|| bus.publish("other", &0));
        assert_eq!(other, Offer::Accepted, "a name without a budget is not concerned");
    };
    everywhere(&mut seen, Offer::Accepted);
    assert_eq!(bus.budget(LOAD), Budget::default());

    bus.set_budget(LOAD, sample(100)).expect("it is valid");
    assert!(!keeps_request("q-17", 100) && keeps_request("q-98", 100));
    everywhere(&mut seen, Offer::SampledOut);
    assert_eq!(seen.call(|| topic.publish_for("q-98", &0)), Offer::Accepted);
    assert_eq!((bus.budget(LOAD), bus.budget("other")), (sample(100), Budget::default()));

    bus.set_budget(LOAD, rate(1, 7)).expect("it is valid");
    taken_at_rate(&mut seen, &|| topic.publish(&0), 7);
    // The bucket is that of the name, whoever takes from it and however often the same is said; a changed one is full.
    bus.set_budget(LOAD, rate(1, 7)).expect("it is valid");
    taken_at_rate(&mut seen, &|| bus.publish(LOAD, &0), 0);
    bus.set_budget(LOAD, rate(1, 70)).expect("it is valid");
    taken_at_rate(&mut seen, &|| bus.publish(LOAD, &0), 70);

    bus.set_budget(LOAD, Budget::default()).expect("it is valid");
    everywhere(&mut seen, Offer::Accepted);
    let over_budget = Scrape::of(&bus).sum("event_bus_over_budget_events_total");
    assert_eq!(over_budget, seen.dropped(Reason::QueueFull) as f64);
    let report = bus.close(CLOSE);
    bus.set_budget(LOAD, sample(1_000_000)).expect("it is valid");
    assert_eq!(topic.publish_for("q-17", &0), Offer::Dropped(Reason::Closed), "a closed bus says so");
    prove_ledger(&report, &seen);
}

#[test]
fn a_budget_that_cannot_be_is_refused() {
    let bus = bus("null:");
    let refusal = |name: &str, budget| bus.set_budget(name, budget).expect_err("it is wrong").to_string();
    assert!(refusal("a b", sample(2)).starts_with("event name \"a b\" has ' '"));
    assert_eq!(refusal("a", sample(0)), "sample: 0 is out of range; allowed are 1 to 1000000");
    let long = "x".repeat(65);
    assert_eq!(bus.set_budget(&long, sample(2)), Err(BudgetError::Unnumbered));
    assert_eq!(bus.budget(&long), Budget::default());

    let mut config = Config::new("null:", STREAM, 1).expect("it is valid");
    set(&mut config, &long, sample(2));
    let Err(StartError::Config(error)) = Bus::start(config) else { panic!("it was started") };
    assert!(error.to_string().contains("it can have no budget"), "{error}");
}

#[test]
fn the_ledger_balances_under_a_load_with_budgets_that_change() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| {
        small(config);
        config.queue.capacity = 256 << 10;
    });
    let done = AtomicBool::new(false);
    let names = ["sampled", "limited", "shared", "free"];
    let publish = |thread: usize| {
        let (mut seen, topic) = (Seen::default(), bus.topic(names[thread]).expect("a valid name"));
        for number in 0.. {
            let event = Numbered::new(thread as u64, number);
            match number % 4 {
                0 => seen.call(|| topic.publish(&event)),
                1 => seen.call(|| bus.publish(names[thread], &event)),
                2 => seen.call(|| topic.publish_for(&format!("q-{}", number / 7), &event)),
                _ => seen.call(|| topic.publish_json(&serde_json::to_vec(&event).expect("plain data"))),
            };
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
        seen
    };
    let seen = thread::scope(|scope| {
        let publish = &publish;
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || publish(thread)));
        let mut changes = 0;
        wait_until("there was enough of everything", || {
            changes += 1;
            let set = |name, budget| bus.set_budget(name, budget).expect("it is valid");
            set("sampled", sample(2 + changes % 10));
            set("limited", rate(1000 + 100 * (changes % 10), 10));
            set("shared", share(0.1 + 0.01 * f64::from(changes % 10)));
            let stats = bus.stats();
            assert_eq!(stats.check(), Ok(()));
            changes > 100 && stats.acked > 5000 && stats.sampled_out > 1000
        });
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(Seen::default(), Seen::merge)
    });
    let over_budget = Scrape::of(&bus).sum("event_bus_over_budget_events_total");
    assert!(
        over_budget > 0.0 && over_budget <= seen.dropped(Reason::QueueFull) as f64,
        "{over_budget}: {seen:?}"
    );
    let report = bus.close(CLOSE);
    prove(&server.url(), &bus, &report, &seen);
}

#[test]
fn the_tool_takes_budgets_from_its_configuration_and_shows_what_a_reader_must_know() {
    let server = server_with_stream();
    let text =
        "[event-bus]\nchain-id = 1\nevents.few = { rate = 1, burst = 2 }\nevents.'a.sampled'.sample = 100\n";
    let config = file(text);
    let url = server.url();
    let publish = |name: &str, lines: &str, more: &[&str]| {
        let args = ["publish", name, "--url", &url, "--config", path(&config)];
        jetring(&[&args[..], more].concat(), lines)
    };
    let output = publish("few", &"1\n".repeat(500), &["--json"]);
    assert_status(&output, 1);
    let balance = json_of(&output);
    let (acked, dropped) = (balance["acked"].as_u64(), balance["dropped"]["queue_full"].as_u64());
    assert_eq!((balance["offered"].as_u64(), acked.zip(dropped).map(|(a, d)| a + d)), (Some(500), Some(500)));
    assert!(acked >= Some(2) && dropped > Some(400), "{balance}");
    assert!(!stderr(&output).contains("no room"), "{}", stderr(&output));

    let output = publish("a.sampled", "1\n2\n", &["--request-id", "q-17"]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains("2 sampled out, and not offered"), "{}", stdout(&output));
    assert_status(&publish("a.sampled", "3\n", &["--request-id", "q-98"]), 0);
    let tap = ["tap", "event.1.a.sampled", "--url", &url, "--chain-id", "1", "--from", "all", "--count", "1"];
    let output = jetring(&tap, "");
    assert!(stdout(&output).contains(" event.1.a.sampled q-98 ×100 3"), "{}", stdout(&output));
    let output = jetring(&[&tap[..], &["--json"]].concat(), "");
    assert_eq!(json_of(&output)["envelope"]["sampledrate"], 100);
}
