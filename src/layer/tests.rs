#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{PublishLayer, RequestIdLayer};
use crate::event::request_id;
use crate::{Bus, Config, request_scope};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{Level, info, info_span};
use tracing_subscriber::layer::SubscriberExt;

fn current() -> Option<String> {
    request_id().map(|id| id.to_string())
}

fn with_request_ids<R>(layer: RequestIdLayer, body: impl FnOnce() -> R) -> R {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), body)
}

#[test]
fn a_span_gives_its_id_to_the_thread_that_is_in_it_and_takes_it_back() {
    with_request_ids(RequestIdLayer::new(), || {
        let span = info_span!("a", request_id = "q-1");
        assert_eq!(current(), None);
        span.in_scope(|| {
            assert_eq!(current().as_deref(), Some("q-1"));
            let elsewhere = std::thread::spawn(current).join().unwrap();
            assert_eq!(elsewhere, None);
        });
        assert_eq!(current(), None);
        // A span brings its subscriber along.
        let entered = std::thread::spawn(move || span.in_scope(current)).join().unwrap();
        assert_eq!(entered.as_deref(), Some("q-1"));
    });
}

#[test]
fn spans_inside_inherit_it_also_where_nobody_is_in_the_outer_one() {
    with_request_ids(RequestIdLayer::new(), || {
        let outer = info_span!("outer", request_id = %17);
        let inner = info_span!(parent: &outer, "inner", other = 1);
        assert_eq!(inner.in_scope(current).as_deref(), Some("17"));
        let own = info_span!(parent: &outer, "own", request_id = "q-2");
        assert_eq!(outer.in_scope(|| own.in_scope(current)).as_deref(), Some("q-2"));
        assert_eq!(outer.in_scope(current).as_deref(), Some("17"));
    });
}

#[test]
fn spans_that_are_left_in_another_order_and_scopes_between_them_keep_their_ids() {
    with_request_ids(RequestIdLayer::new(), || {
        let first = info_span!("first", request_id = "first").entered();
        let second = info_span!("second", request_id = "second").entered();
        drop(first);
        assert_eq!(current().as_deref(), Some("second"));
        request_scope("scope", || {
            assert_eq!(current().as_deref(), Some("scope"));
            info_span!("third", request_id = "third")
                .in_scope(|| assert_eq!(current().as_deref(), Some("third")));
            assert_eq!(current().as_deref(), Some("scope"));
            drop(second);
            assert_eq!(current().as_deref(), Some("scope"));
        });
        assert_eq!(current(), None);
    });
}

#[test]
fn an_id_that_is_recorded_later_counts_from_then_on() {
    with_request_ids(RequestIdLayer::new().with_field("trace"), || {
        let span = info_span!("a", trace = tracing::field::Empty, request_id = "not this").entered();
        assert_eq!(current(), None);
        span.record("trace", "q-3");
        assert_eq!(current().as_deref(), Some("q-3"));
        span.record("trace", "q-4");
        assert_eq!(current().as_deref(), Some("q-4"));
        drop(span);
        assert_eq!(current(), None);
    });
}

#[test]
fn an_id_that_is_recorded_in_a_span_that_was_entered_twice_counts_until_it_is_left_twice() {
    with_request_ids(RequestIdLayer::new(), || {
        let span = info_span!("a", request_id = "old");
        span.in_scope(|| {
            span.in_scope(|| {
                span.record("request_id", "new");
                assert_eq!(current().as_deref(), Some("new"));
            });
            assert_eq!(current().as_deref(), Some("new"));
        });
        assert_eq!(current(), None);
    });
}

#[test]
fn an_id_that_is_recorded_counts_in_the_place_of_its_span_and_not_before_those_inside() {
    for (recorded, inside) in [("inner", "inner"), ("outer", "outer")] {
        with_request_ids(RequestIdLayer::new(), || {
            // One that has a request already, and one that has none.
            for outer in [
                info_span!("outer", request_id = "old"),
                info_span!("outer", request_id = tracing::field::Empty),
            ] {
                outer.in_scope(|| {
                    let inner = match recorded {
                        "inner" => info_span!(parent: None, "inner", request_id = "inner"),
                        // Says nothing itself, and inherits nothing.
                        _ => info_span!(parent: None, "inner"),
                    };
                    inner.in_scope(|| {
                        outer.record("request_id", "outer");
                        assert_eq!(current().as_deref(), Some(inside));
                        request_scope("scope", || assert_eq!(current().as_deref(), Some("scope")));
                    });
                    assert_eq!(current().as_deref(), Some("outer"));
                });
                assert_eq!(current(), None);
                assert!(!crate::event::is_in_request());
            }
        });
    }
}

/// Beside an event, whose fields are written as they come.
#[cfg(feature = "testing")]
#[test]
fn the_fields_of_a_span_are_what_those_of_an_event_are() {
    let capture = crate::testing::Capture::start();
    let layer = PublishLayer::new(capture.bus(), "log").unwrap().with_spans("span").unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        macro_rules! both {
            ($($fields:tt)*) => {
                info!(target: APP, $($fields)*);
                drop(info_span!(target: APP, "a", $($fields)*));
            };
        }
        both!(a = u128::MAX, b = i128::MIN, c = u64::MAX, d = i64::MIN, e = 0u128, f = -1i128);
        both!(a = 1.5, b = f64::NAN, c = true, d = "text", e = ?Some(1), f = %"shown");
    });
    let fields = |name: &str| -> Vec<serde_json::Value> {
        let fields = |event: &crate::testing::CapturedEvent| {
            let body: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> = event.body_as();
            let fields: std::collections::BTreeMap<String, Box<serde_json::value::RawValue>> =
                serde_json::from_str(body["fields"].get()).unwrap();
            let text = fields.into_iter().map(|(name, value)| (name, value.get().to_owned()));
            serde_json::to_value(text.collect::<std::collections::BTreeMap<_, _>>()).unwrap()
        };
        capture.events().named(name).iter().map(|event| fields(event)).collect()
    };
    assert_eq!(fields("span").len(), 2);
    assert_eq!(fields("span"), fields("log"));
    assert_eq!(fields("span")[0]["a"], u128::MAX.to_string());
    assert_eq!(fields("span")[0]["b"], i128::MIN.to_string());
}

#[test]
fn an_id_that_no_event_can_carry_is_not_used() {
    with_request_ids(RequestIdLayer::new(), || {
        let id = "x".repeat(257);
        info_span!("a", request_id = id).in_scope(|| assert_eq!(current(), None));
        let id = "x".repeat(256);
        info_span!("a", request_id = id).in_scope(|| assert_eq!(current().map(|id| id.len()), Some(256)));
    });
}

/// Not ours, as all targets in this crate are if nothing else is said.
const APP: &str = "application";

/// How many events `log` publishes.
fn published(change: impl FnOnce(PublishLayer) -> PublishLayer, log: impl FnOnce()) -> u64 {
    let bus = Bus::start(Config::new("null:", "main", 1).unwrap()).unwrap();
    let layer = change(PublishLayer::new(&bus, "log").unwrap());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let report = bus.close(Duration::from_secs(5));
    assert_eq!(report.stats.check(), Ok(()));
    report.stats.offered
}

#[test]
fn the_level_decides_what_is_published() {
    let log = || {
        tracing::error!(target: APP, "1");
        info!(target: APP, "2");
        tracing::debug!(target: APP, "3");
        tracing::trace!(target: APP, "4");
    };
    assert_eq!(published(|layer| layer, log), 2);
    assert_eq!(published(|layer| layer.with_level(Level::TRACE), log), 4);
    assert_eq!(published(|layer| layer.with_level(Level::ERROR), log), 1);
    assert_eq!(published(|layer| layer.with_level(LevelFilter::OFF), log), 0);
}

#[test]
fn spans_are_published_when_they_close_and_only_if_asked_for() {
    let log = || {
        let span = info_span!(target: APP, "a");
        drop(span.clone().entered());
        drop(span);
        tracing::debug_span!(target: APP, "b").in_scope(|| {});
    };
    assert_eq!(published(|layer| layer, log), 0);
    assert_eq!(published(|layer| layer.with_spans("span").unwrap(), log), 1);
}

/// Whatever the thread is in that closes it.
#[cfg(feature = "testing")]
#[test]
fn a_closed_span_has_its_own_request_and_trace_and_no_other() {
    let parent = |span: u64| format!("00-{:032x}-{span:016x}-01", 7).parse::<crate::TraceParent>().unwrap();
    let capture = crate::testing::Capture::start();
    let publish = PublishLayer::new(capture.bus(), "log").unwrap().with_spans("span").unwrap();
    let layers = tracing_subscriber::registry().with(RequestIdLayer::new().with_traceparent()).with(publish);
    tracing::subscriber::with_default(layers, || {
        let trace = parent(1);
        let spans = [
            info_span!(target: APP, "nothing"),
            info_span!(target: APP, "id", request_id = "q-1"),
            info_span!(target: APP, "trace", traceparent = %trace),
            info_span!(target: APP, "both", request_id = "q-1", traceparent = %trace),
        ];
        request_scope("q-2", || crate::trace_scope(parent(2), || drop(spans)));
    });
    let events = capture.events();
    let closed = events.iter().map(|event| {
        let name = event.body["name"].as_str().unwrap_or_default();
        (name, event.request_id.as_deref(), event.traceparent)
    });
    let (id, trace) = (Some("q-1"), Some(parent(1)));
    assert_eq!(
        closed.collect::<Vec<_>>(),
        [("nothing", None, None), ("id", id, None), ("trace", None, trace), ("both", id, trace)]
    );
}

#[test]
fn what_jetring_says_and_what_is_said_while_publishing_is_not_published() {
    let log = || {
        info!(target: "jetring", "ours");
        info!(target: "jetring::bus", "ours");
        info!(target: "jetring_of_somebody", "theirs");
        info!(target: APP, value = ?Talkative, "while it is printed it logs");
    };
    assert_eq!(published(|layer| layer, log), 2);
}

/// Logs when it is printed.
struct Talkative;

impl std::fmt::Debug for Talkative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info!(target: APP, "somebody prints me");
        f.write_str("talkative")
    }
}

#[test]
fn a_name_that_is_not_valid_is_refused() {
    let bus = Bus::start(Config::new("null:", "main", 1).unwrap()).unwrap();
    assert!(PublishLayer::new(&bus, "a b").is_err());
    assert!(PublishLayer::new(&bus, "a").unwrap().with_spans("*").is_err());
}
