use std::time::Duration;

use jetring::audit::Audit;
use jetring::envelope::Envelope;
use jetring::nats::admin;
use jetring::reader::{From, Reader};
use jetring::{Bus, Config, Engine, Framing, Mode, Reason};

use crate::server::{connect, wait_until};
use crate::target::{Target, ask, on_both};

on_both! {
    everything_is_delivered_by_single_messages,
    everything_is_delivered_in_batches,
    everything_is_delivered_in_frames,
    what_the_stream_refuses_is_counted,
    an_event_without_a_stream_waits_for_it,
}

const EVENTS: u64 = 10_000;
const CLOSE: Duration = Duration::from_secs(15);

/// A stream as the tool makes it, and a configuration for it.
pub(crate) fn prepared(url: &str) -> Config {
    let config = Config::new(url, "main", 1).unwrap();
    ask(admin::create_stream(&config)).unwrap();
    config
}

/// The bodies of all events called `name`, in the order of the stream, and what an audit says of the whole.
pub(crate) fn read(config: &Config, name: &str, process: &str) -> (Vec<u64>, jetring::audit::Verdict) {
    ask(async {
        let mut reader = Reader::open(config, "", From::All, false).await.unwrap();
        let (mut numbers, mut audit) = (Vec::new(), Audit::of_process(process));
        while let Some(message) = reader.next().await.unwrap() {
            let frame = message.unpack().unwrap();
            for event in &frame {
                audit.observe(event);
                if message.subject == format!("event.1.{name}") {
                    numbers.push(Envelope::parse(event).unwrap().body.get().parse().unwrap());
                }
            }
        }
        (numbers, audit.verdict())
    })
}

fn delivers(target: &Target, engine: Option<Engine>, change: impl FnOnce(&mut Config)) {
    let mut config = prepared(&target.url());
    change(&mut config);
    let bus = Bus::start(config.clone()).unwrap();
    for number in 0..EVENTS {
        assert!(bus.publish("number", &number).is_accepted());
    }
    assert!(bus.flush(CLOSE).complete);
    assert_eq!(bus.stats().engine, engine);
    let report = bus.close(CLOSE);
    assert!(report.complete, "{report:?}");
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!((report.stats.acked, report.stats.indeterminate), (EVENTS, 0));
    let (numbers, verdict) = read(&config, "number", bus.process());
    assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
    if let Target::Mock(server) = target {
        let events = server.events(&config).named("number");
        assert_eq!(events.iter().map(|event| event.body_as()).collect::<Vec<u64>>(), numbers);
    }
    assert_eq!((verdict.delivered, verdict.duplicates, verdict.reordered), (EVENTS, 0, 0), "{verdict:?}");
    assert_eq!((verdict.lost_declared, verdict.lost_undeclared), (0, 0), "{verdict:?}");
}

fn everything_is_delivered_by_single_messages(target: &Target) {
    delivers(target, Some(Engine::Async), |config| config.delivery.mode = Mode::Async);
}

fn everything_is_delivered_in_batches(target: &Target) {
    delivers(target, Some(Engine::Fast), |_| {});
}

fn everything_is_delivered_in_frames(target: &Target) {
    delivers(target, Some(Engine::Fast), |config| config.delivery.framing = Framing::Packed);
}

fn what_the_stream_refuses_is_counted(target: &Target) {
    let config = prepared(&target.url());
    ask(async {
        let context = async_nats::jetstream::new(connect(&target.url()).await);
        let mut stream = context.get_stream("main").await.unwrap();
        let mut changed = stream.info().await.unwrap().config.clone();
        changed.max_message_size = 2000;
        context.update_stream(changed).await.unwrap();
    });
    for mode in [Mode::Async, Mode::Fast] {
        let mut config = config.clone();
        config.delivery.mode = mode;
        let bus = Bus::start(config).unwrap();
        for number in 0..300 {
            let length = if number % 100 == 50 { 3000 } else { 10 };
            assert!(bus.publish("text", &"x".repeat(length)).is_accepted());
        }
        let report = bus.close(CLOSE);
        assert!(report.complete && report.stats.check().is_ok(), "{report:?}");
        assert_eq!((report.stats.acked, report.stats.dropped.get(Reason::TooLarge)), (297, 3), "{mode:?}");
    }
}

fn an_event_without_a_stream_waits_for_it(target: &Target) {
    let config = Config::new(&target.url(), "main", 1).unwrap();
    let bus = Bus::start(config.clone()).unwrap();
    wait_until("the bus is connected", || bus.is_connected());
    for number in 0..10u64 {
        assert!(bus.publish("number", &number).is_accepted());
    }
    assert!(!bus.flush(Duration::from_millis(50)).complete, "there is no stream");
    prepared(&target.url());
    assert!(bus.flush(CLOSE).complete);
    assert_eq!(bus.stats().acked, 10);
    assert_eq!(read(&config, "number", bus.process()).0, (0..10).collect::<Vec<_>>());
}
