//! Trace context goes with an event as a header, whatever way it takes; and only with those that have one.

use crate::server::wait_until;
use crate::support::{CLOSE, LOAD, NO_SERVER, STREAM, ask, config, server_with_stream};
use jetring::layer::{PublishLayer, RequestIdLayer};
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, Framing, Mode, TraceParent, WhenFull, trace_scope};
use std::path::Path;
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;

fn parent(span: u64) -> TraceParent {
    format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span:016x}-01").parse().expect("it is valid")
}

/// Three events, of which the second has a trace.
fn publish(config: Config, close: Duration) {
    let bus = Bus::start(config).expect("the configuration is valid");
    bus.publish(LOAD, &1);
    trace_scope(parent(7), || bus.publish(LOAD, &2));
    bus.publish(LOAD, &3);
    assert_eq!(bus.close(close).stats.check(), Ok(()));
}

/// The `traceparent` of each event in the stream that is named so.
fn traces(config: &Config, name: &str) -> Vec<Option<String>> {
    ask(async {
        let filter = format!("event.1.{name}");
        let mut reader = Reader::open(config, &filter, From::All, false).await.expect("it opens");
        let mut traces = Vec::new();
        while let Some(received) = reader.next().await.expect("it reads") {
            traces.push(received.header("traceparent").map(str::to_owned));
        }
        traces
    })
}

#[track_caller]
fn assert_the_second_is_traced(config: &Config) {
    assert_eq!(traces(config, LOAD), [None, Some(parent(7).to_string()), None]);
}

#[test]
fn an_event_that_is_published_in_a_trace_has_its_header_by_each_engine() {
    for mode in [Mode::Async, Mode::Auto] {
        let server = server_with_stream();
        let mut config = config(&server.url());
        config.delivery.mode = mode;
        publish(config.clone(), CLOSE);
        assert_the_second_is_traced(&config);
    }
}

#[test]
fn a_packed_frame_has_none() {
    let server = server_with_stream();
    let mut config = config(&server.url());
    config.delivery.framing = Framing::Packed;
    publish(config.clone(), CLOSE);
    let traces = traces(&config, LOAD);
    assert!(!traces.is_empty() && traces.iter().all(Option::is_none), "{traces:?}");
}

#[test]
fn a_directory_keeps_it_and_a_replay_sends_it() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("events");
    let directory = Config::new(&format!("file:{}", path.display()), STREAM, 1).expect("the url is valid");
    publish(directory.clone(), CLOSE);
    assert_the_second_is_traced(&directory);
    send_on(&path);
}

#[test]
fn a_spool_keeps_it_for_the_next_process() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let path = parent.path().join("spool");
    let mut spooling = config(NO_SERVER);
    spooling.queue.when_full = WhenFull::Spool;
    spooling.spool.dir = Some(path.clone());
    publish(spooling, Duration::from_secs(3));
    send_on(&path);
}

/// Sends a directory to a server, where it is looked for.
#[track_caller]
fn send_on(directory: &Path) {
    let server = server_with_stream();
    let config = config(&server.url());
    let bus = Bus::replay(config.clone(), directory).expect("it is there");
    // A close does not wait for what another process has left.
    wait_until("all is sent", || bus.stats().recovered > 0 && bus.stats().held() == 0);
    let report = bus.close(CLOSE);
    assert_eq!((report.stats.acked, report.stats.check()), (report.stats.recovered, Ok(())), "{report:?}");
    assert_the_second_is_traced(&config);
}

#[test]
fn a_span_with_a_traceparent_gives_it_to_what_is_published_in_it_and_to_its_own_event() {
    let server = server_with_stream();
    let config = config(&server.url());
    let bus = Bus::start(config.clone()).expect("the configuration is valid");
    let publish =
        PublishLayer::new(&bus, "log").and_then(|layer| layer.with_spans("span")).expect("names are valid");
    let layers = tracing_subscriber::registry().with(RequestIdLayer::new().with_traceparent()).with(publish);
    tracing::subscriber::with_default(layers, || {
        let span = tracing::info_span!("quote", request_id = "q-1", traceparent = %parent(8));
        span.in_scope(|| {
            bus.publish(LOAD, &1);
            tracing::info_span!("inner", traceparent = "not valid").in_scope(|| bus.publish(LOAD, &2));
            tracing::info!("estimated");
        });
        bus.publish(LOAD, &3);
    });
    assert_eq!(bus.close(CLOSE).stats.check(), Ok(()));
    let traced = Some(parent(8).to_string());
    assert_eq!(traces(&config, LOAD), [traced.clone(), traced.clone(), None]);
    assert_eq!(traces(&config, "log"), std::slice::from_ref(&traced));
    assert_eq!(traces(&config, "span"), [traced.clone(), traced], "the inner one inherits it");
}
