//! A bus that captures.
//!
//! It is a bus as any other, from the hot thread to the rendered envelope: names are checked, events are numbered, refused and
//! counted, the ledger balances. Only its sink is another one, which keeps the messages and acknowledges them at once. So what a test
//! sees of an event is what a reader of the stream would: its subject, the members of its envelope, the body to the byte, and the trace that
//! a header would tell; of packed frames the single events.

mod events;
pub(crate) mod sink;

pub use events::{CapturedEvent, Events, Expectation};

use crate::bus::{Bus, StartError};
use crate::config::{Config, Endpoint, Spool, WhenFull};
use crate::global;
use crate::thread::{self, Thread};
use sink::Store;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a question waits until everything is captured that was published before it. Nothing is waited for but the worker, so only a
/// machine that stands still needs so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The one that [`Capture::process_wide`] has installed.
static PROCESS_WIDE: OnceLock<Capture> = OnceLock::new();

/// A bus that keeps what is published, for a test to look at. Cheap to clone; all clones are the same.
///
/// Each question waits first until everything is captured that was published before it on any thread, so no test has to.
///
/// ```
/// use jetring::testing::Capture;
/// use serde_json::json;
///
/// // The code under test takes a bus.
/// fn estimate(bus: &jetring::Bus) {
///     bus.publish("priceEstimate", &json!({ "estimator": "direct", "outAmount": "1000" }));
/// }
///
/// let capture = Capture::start();
/// jetring::request_scope("q-17", || estimate(capture.bus()));
///
/// let event = capture.assert_published("priceEstimate", json!({ "estimator": "direct", "outAmount": "1000" }));
/// assert_eq!(event.request_id.as_deref(), Some("q-17"));
/// capture.events().of_request("q-17").assert_count(1);
/// capture.events().named("order.*").assert_none();
/// ```
#[derive(Clone)]
pub struct Capture {
    bus: Bus,
    store: Arc<Store>,
}

impl Capture {
    /// Starts a bus with the default configuration, whose subjects are `event.1.<name>`.
    ///
    /// # Panics
    ///
    /// When the operating system gives no thread.
    #[must_use]
    pub fn start() -> Self {
        let config = Config::new("null:", "main", 1).expect("these are valid");
        Self::with(config).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a bus with this configuration, such as that of the service. Its `url` and its spool are not used, since nothing leaves the
    /// process; everything else is as configured.
    ///
    /// # Errors
    ///
    /// As [`Bus::start`].
    pub fn with(mut config: Config) -> Result<Self, StartError> {
        config.url = Endpoint::Null;
        config.spool = Spool::default();
        if config.queue.when_full == WhenFull::Spool {
            config.queue.when_full = WhenFull::DropNewest;
        }
        let store = Arc::new(Store::default());
        let bus = Bus::start_capturing(config, &store)?;
        Ok(Self { bus, store })
    }

    /// Makes a capturing bus the process-wide one, that of [`jetring::publish`](crate::publish()), or returns the one that an earlier call has made.
    /// From then on [`jetring::init`](crate::init) does nothing, so code that calls it can be tested as it is.
    ///
    /// The tests of one binary share this bus if they run in one process, as `cargo test` has it, and see each other's events. A test
    /// that publishes within a [request scope](crate::request_scope) of its own tells them apart by
    /// [`of_request`](Events::of_request). (cargo-nextest gives each test a process.)
    ///
    /// ```
    /// use jetring::testing::Capture;
    ///
    /// let capture = Capture::process_wide();
    /// jetring::request_scope("this-test", || jetring::publish("ping", &7));
    /// capture.events().of_request("this-test").named("ping").assert_count(1);
    /// ```
    ///
    /// # Panics
    ///
    /// When the process has a bus already that does not capture, or the operating system gives no thread.
    pub fn process_wide() -> &'static Self {
        PROCESS_WIDE.get_or_init(|| {
            let capture = Self::start();
            assert!(
                global::install(capture.bus.clone()),
                "the process-wide bus was started by `jetring::init` before; call `Capture::process_wide` first"
            );
            capture
        })
    }

    /// The bus, for the code under test.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What was captured, oldest first: the events, without the reports that the bus publishes of itself.
    ///
    /// # Panics
    ///
    /// When something that was published is not captured within ten seconds, which nothing but a bug or a machine that stands still explains.
    #[track_caller]
    #[must_use]
    pub fn events(&self) -> Events {
        self.all().without_reports()
    }

    /// The reports of the bus itself, such as `_bus.started` and `_bus.gap`, oldest first; see [`report`](crate::report).
    ///
    /// # Panics
    ///
    /// As [`events`](Self::events).
    #[track_caller]
    #[must_use]
    pub fn reports(&self) -> Events {
        self.all().reports()
    }

    /// Asserts that an event of this name is there which meets the expectation: a body that equals this [`Value`](serde_json::Value), or a closure that says yes.
    /// Returns the first one.
    ///
    /// # Panics
    ///
    /// When there is none. The message shows what there is. And as [`events`](Self::events).
    #[track_caller]
    pub fn assert_published(&self, name: &str, expected: impl Expectation) -> Arc<CapturedEvent> {
        self.events().named(name).assert_any(expected)
    }

    /// Asserts that so many events of this name are there.
    ///
    /// # Panics
    ///
    /// When it is another number. The message shows what there is. And as [`events`](Self::events).
    #[track_caller]
    pub fn assert_count(&self, name: &str, count: usize) {
        self.events().named(name).assert_count(count);
    }

    /// Asserts that nothing was published.
    ///
    /// # Panics
    ///
    /// When something was. The message shows it. And as [`events`](Self::events).
    #[track_caller]
    pub fn assert_none(&self) {
        self.events().assert_none();
    }

    /// Waits until at least so many events are there, which other threads or tasks publish, and returns them.
    ///
    /// # Panics
    ///
    /// When they do not come within `timeout`. The message shows what there is.
    #[track_caller]
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Events {
        self.wait_until(timeout, &format!("{count} events are there"), |events| events.len() >= count)
    }

    /// Waits until a condition on the events holds, and returns them; `what` says it in words.
    ///
    /// # Panics
    ///
    /// When it does not hold within `timeout`. The message shows what there is.
    #[track_caller]
    pub fn wait_until(
        &self,
        timeout: Duration,
        what: &str,
        mut condition: impl FnMut(&Events) -> bool,
    ) -> Events {
        let all = |events: &[Arc<CapturedEvent>]| Events::all(events.to_vec()).without_reports();
        let events = all(&self.store.wait_until(timeout, |events| condition(&all(events))));
        if !condition(&events) {
            events.fail(&format!("gave up after {timeout:?} waiting until {what}"));
        }
        events
    }

    /// Forgets what was captured so far.
    ///
    /// # Panics
    ///
    /// As [`events`](Self::events).
    #[track_caller]
    pub fn clear(&self) {
        self.settle();
        self.store.clear();
    }

    #[track_caller]
    fn all(&self) -> Events {
        self.settle();
        Events::all(self.store.events())
    }

    #[track_caller]
    fn settle(&self) {
        // On a thread of a worker, where a subscriber of the log may ask, a flush does not wait; there is what is there.
        let report = self.bus.flush(PATIENCE);
        assert!(
            report.complete || thread::with(Thread::serves_a_bus),
            "not captured within {PATIENCE:?}: {:?}",
            report.stats
        );
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").field("bus", &self.bus).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::budget::keeps_request;
    use crate::config::{Budget, Compression, Framing};
    use crate::event::{request_scope, trace_scope};
    use crate::ledger::Reason;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Estimate {
        estimator: String,
        out_amount: u128,
    }

    fn estimate(out_amount: u128) -> Estimate {
        Estimate { estimator: "direct".to_owned(), out_amount }
    }

    /// The words of an assertion that fails.
    fn failure(assertion: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(assertion)).unwrap_err();
        *panic.downcast::<String>().unwrap()
    }

    #[test]
    fn what_is_published_is_there_as_it_would_be_in_the_stream() {
        let mut config = Config::new("nats://127.0.0.1:1", "main", 7).unwrap();
        config.delivery.stamp = true;
        let capture = Capture::with(config).unwrap();
        request_scope("q-1", || capture.bus().publish("price.estimate", &estimate(u128::MAX)));
        let events = capture.events();
        let [event] = &*events else { panic!("{events:?}") };
        assert_eq!((&*event.subject, &*event.name), ("event.7.price.estimate", "price.estimate"));
        assert_eq!(event.request_id.as_deref(), Some("q-1"));
        assert_eq!(event.seq, Some(1));
        assert!(event.producer.as_ref().unwrap().starts_with(capture.bus().process()));
        assert!(chrono::DateTime::parse_from_rfc3339(&event.timestamp).is_ok(), "{}", event.timestamp);
        // Also what a `Value` cannot hold.
        assert_eq!(event.body_as::<Estimate>(), estimate(u128::MAX));
        assert_eq!(capture.bus().stats().acked, 1);
        assert_eq!(capture.reports().named(crate::report::STARTED).len(), 1);
    }

    /// The condition waits for the worker, and the worker for whoever holds what was captured.
    #[test]
    fn a_condition_may_ask_the_capture() {
        let capture = Capture::start();
        let publishing = {
            let bus = capture.bus().clone();
            std::thread::spawn(move || (0..5).for_each(|number| _ = bus.publish("a", &number)))
        };
        let timeout = Duration::from_secs(60);
        let mut asked = 0;
        let events = capture.wait_until(timeout, "five are there", |events| {
            asked += 1;
            let again = capture.events();
            assert!(again.len() >= events.len());
            capture.assert_count("b", 0);
            events.len() >= 5
        });
        publishing.join().unwrap();
        assert!(events.len() == 5 && asked > 0);
    }

    #[test]
    fn the_trace_and_the_weight_of_an_event_are_there() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let mut config = Config::new("null:", "main", 1).unwrap();
        config.events.insert("sampled".parse().unwrap(), Budget { sample: 3, ..Budget::default() });
        let capture = Capture::with(config).unwrap();
        let kept = (0..).map(|number| format!("q-{number}")).find(|id| keeps_request(id, 3)).unwrap();
        capture.bus().publish("plain", &1);
        trace_scope(trace, || capture.bus().publish("traced", &2));
        request_scope(kept, || capture.bus().publish("sampled", &3));
        let captured: Vec<_> = capture
            .events()
            .iter()
            .map(|event| (event.traceparent, event.sampled_rate, event.weight()))
            .collect();
        assert_eq!(captured, [(None, None, 1), (Some(trace), None, 1), (None, Some(3), 3)]);
    }

    #[test]
    fn events_of_packed_frames_are_single_events() {
        for compression in [
            Compression::None,
            #[cfg(feature = "lz4")]
            Compression::Lz4,
            #[cfg(feature = "zstd")]
            Compression::Zstd,
        ] {
            let mut config = Config::new("null:", "main", 1).unwrap();
            config.delivery.framing = Framing::Packed;
            config.delivery.compression = compression;
            let capture = Capture::with(config).unwrap();
            let numbers = 0..3000u64;
            for number in numbers.clone() {
                assert!(capture.bus().publish("number", &number).is_accepted());
            }
            let captured: Vec<u64> =
                capture.events().iter().map(|event| event.body.as_u64().unwrap()).collect();
            assert_eq!(captured, numbers.collect::<Vec<_>>(), "{compression:?}");
        }
    }

    #[test]
    fn events_are_found_by_name_by_request_and_by_expectation() {
        let capture = Capture::start();
        let bus = capture.bus();
        bus.publish("order.placed", &json!({ "id": 1 }));
        request_scope("q-1", || bus.publish("order.filled", &json!({ "id": 1 })));
        request_scope("q-2", || bus.publish("order.placed", &json!({ "id": 2 })));
        capture.assert_count("order.placed", 2);
        capture.assert_count("order.*", 3);
        capture.events().of_request("q-1").assert_count(1);
        capture.events().of_request("q-3").assert_none();
        let second = capture.assert_published("order.placed", json!({ "id": 2 }));
        assert_eq!(second.request_id.as_deref(), Some("q-2"));
        capture.assert_published("order.>", |event: &CapturedEvent| event.body["id"] == 1);
        let first = capture.events().named("order.*").matching(|event| event.body["id"] == 1);
        assert_eq!(
            (&first).into_iter().map(|event| &*event.name).collect::<Vec<_>>(),
            ["order.placed", "order.filled"]
        );
    }

    #[test]
    fn json_that_a_value_cannot_hold_is_there_as_it_is() {
        let capture = Capture::start();
        let topic = capture.bus().topic("raw").unwrap();
        let deep = format!("{}{}", "[".repeat(126), "]".repeat(126));
        let bodies =
            ["1e999", "12345678901234567890123456789012345678901234567890", &deep, r#"{"a": [1,  2]}"#];
        for body in bodies {
            assert!(topic.publish_json(body.as_bytes()).is_accepted());
        }
        let captured: Vec<String> = capture.events().iter().map(|event| event.json().to_owned()).collect();
        assert_eq!(captured, bodies);
        capture.assert_published("raw", json!({ "a": [1, 2] }));
    }

    /// In the stream it would be a message that its readers cannot read: a loss, which nobody has declared.
    #[test]
    fn what_readers_could_not_read_is_dropped_and_declared() {
        let deep = [b"[".repeat(127), b"]".repeat(127)].concat();
        let deeper = [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat();
        let bodies: [&[u8]; 9] = [
            b"\"\xff\"",
            br#""\ud800""#,
            br#"{"\udc00":1}"#,
            &deep,
            &deeper,
            b"",
            b"[1,]",
            b"1 2",
            b"\"a\nb\"",
        ];
        for framing in [Framing::Plain, Framing::Packed] {
            let mut config = Config::new("null:", "main", 1).unwrap();
            config.delivery.framing = framing;
            config.queue.max_event = 1 << 20;
            let capture = Capture::with(config).unwrap();
            let topic = capture.bus().topic("raw").unwrap();
            for body in bodies {
                assert!(topic.publish_json(body).is_accepted(), "it is looked at behind the ring");
            }
            topic.publish_json(b" {\r\n\"a\":\n[1]}\n");
            let [event] = &*capture.events() else { panic!("{framing:?}: {:?}", capture.events()) };
            assert_eq!((event.seq, &event.body), (Some(bodies.len() as u64 + 1), &json!({ "a": [1] })));
            let stats = capture.bus().close(PATIENCE).stats;
            assert_eq!(stats.dropped.get(Reason::Serialize), bodies.len() as u64);
            let gaps: u64 = capture
                .store
                .events()
                .iter()
                .filter(|event| event.name == crate::report::GAP)
                .map(|gap| gap.body["lost"].as_u64().unwrap())
                .sum();
            assert_eq!(gaps, bodies.len() as u64, "{framing:?}");
        }
    }

    #[test]
    fn an_assertion_that_fails_shows_what_was_there() {
        let capture = Capture::start();
        capture.bus().publish("order.placed", &json!({ "id": 1 }));
        let wrong_body = failure(|| drop(capture.assert_published("order.placed", json!({ "id": 2 }))));
        assert!(wrong_body.contains(r#"{"id":2}"#), "what was expected: {wrong_body}");
        assert!(wrong_body.contains(r#"order.placed {"id":1}"#), "what is there: {wrong_body}");
        let wrong_name = failure(|| drop(capture.assert_published("order.filled", |_: &CapturedEvent| true)));
        assert!(wrong_name.contains(r#"order.placed {"id":1}"#), "also under other names: {wrong_name}");
        let wrong_count = failure(|| capture.assert_count("order.placed", 2));
        assert!(
            wrong_count.contains("1 instead of 2") && wrong_count.contains(r#"{"id":1}"#),
            "{wrong_count}"
        );
        let too_many = failure(|| capture.assert_none());
        assert!(too_many.contains(r#"order.placed {"id":1}"#), "{too_many}");
        let too_few = failure(|| drop(capture.wait_for(2, Duration::from_millis(10))));
        assert!(too_few.contains("2 events are there") && too_few.contains(r#"{"id":1}"#), "{too_few}");
    }

    #[test]
    fn what_another_thread_publishes_is_waited_for() {
        let capture = Capture::start();
        let bus = capture.bus().clone();
        let publishing = std::thread::spawn(move || {
            for number in 0..100 {
                assert!(bus.publish("number", &number).is_accepted());
            }
        });
        assert!(capture.wait_for(100, PATIENCE).len() >= 100);
        publishing.join().unwrap();
        capture.clear();
        capture.assert_none();
    }

    #[test]
    fn what_is_not_taken_is_not_there_and_is_counted() {
        let capture = Capture::start();
        assert!(!capture.bus().publish("no name", &1).is_accepted());
        capture.assert_none();
        assert_eq!(capture.bus().stats().dropped.get(Reason::Rejected), 1);
        let report = capture.bus().close(PATIENCE);
        assert!(report.complete && report.stats.check().is_ok());
        capture.assert_none();
        capture.reports().named(crate::report::GAP).assert_count(1);
    }

    #[test]
    fn events_of_all_partitions_are_captured() {
        let mut config = Config::new("null:", "main", 1).unwrap();
        config.partitions = 3;
        let capture = Capture::with(config).unwrap();
        for key in 0..100u64 {
            assert!(capture.bus().publish_keyed("number", key.to_le_bytes(), &key).is_accepted());
        }
        capture.assert_count("number", 100);
    }

    #[test]
    fn the_process_wide_bus_is_installed_once() {
        let capture = Capture::process_wide();
        request_scope("once", || global::publish("ping", &Value::Null));
        crate::init(Config::new("nats://127.0.0.1:1", "main", 1).unwrap());
        request_scope("once", || global::publish("ping", &Value::Null));
        Capture::process_wide().events().of_request("once").assert_count(2);
        assert_eq!(global::bus().unwrap().process(), capture.bus().process());
    }
}
