//! How processes end, as a reader of the stream sees it: one that is killed, one that closes, one that goes on.

use crate::cli::{assert_status, command, file, jetring, json_of, path, stdout};
use crate::proxy::{Link, Proxy, Way};
use crate::server::{NatsServer, messages, wait_until};
use crate::support::{STREAM, ask, server_with_stream};
use jetring::report::{AnyReport, Running, STATS};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Child, ChildStdin};
use std::time::Duration;

/// A process that publishes what it is given, and tells its ledger three times a second.
struct Publisher {
    child: Child,
    input: ChildStdin,
}

impl Publisher {
    fn start(server: &NatsServer) -> Self {
        Self::start_through(server, &server.url())
    }

    /// The server is reached by this url. The window is small, so that what comes at once has to queue.
    fn start_through(server: &NatsServer, url: &str) -> Self {
        const CONFIG: &str =
            "[event-bus]\nchain-id = 1\ndelivery = { stats-interval = '300ms', max-in-flight = 16 }";
        let config = file(CONFIG);
        let args = ["publish", "a", "--url", url, "--config", path(&config)];
        let mut child = command(&args).spawn().expect("the tool starts");
        let input = child.stdin.take().expect("its input is a pipe");
        let mut publisher = Self { child, input };
        // It has read its configuration when its first event is there.
        let before = count(server, "event.1.a");
        publisher.publish(1);
        wait_until("its first event is there", || count(server, "event.1.a") > before);
        publisher
    }

    fn publish(&mut self, events: u32) {
        (0..events).for_each(|event| writeln!(self.input, "{event}").expect("it reads its input"));
    }

    fn close(mut self) {
        drop(self.input);
        assert!(self.child.wait().expect("our own child").success());
    }

    /// By SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

fn count(server: &NatsServer, subject: &str) -> usize {
    ask(messages(&server.url(), STREAM)).iter().filter(|(_, found, _)| found == subject).count()
}

/// The ledgers that were told so far.
fn told(server: &NatsServer) -> Vec<Running> {
    let messages = ask(messages(&server.url(), STREAM));
    let reports =
        messages.iter().filter(|(_, subject, _)| subject.ends_with(STATS)).map(|(_, subject, payload)| {
            let envelope = jetring::envelope::Envelope::parse(payload).expect("a report is an envelope");
            match AnyReport::parse(subject, envelope.body.get()) {
                Some(AnyReport::Running(running)) => running,
                other => panic!("{other:?}"),
            }
        });
    reports.collect()
}

fn verify(server: &NatsServer) -> Value {
    let output = jetring(&["verify", "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    json_of(&output)
}

#[test]
fn verify_tells_a_process_that_was_killed_from_one_that_closed_and_one_that_runs() {
    let server = server_with_stream();
    let mut killed = Publisher::start(&server);
    killed.publish(40);
    wait_until("it has told that all it was given is stored", || {
        told(&server).iter().any(|running| running.ledger.acked == 41)
    });
    let process = told(&server).pop().expect("there is one").process;
    killed.kill();
    Publisher::start(&server).close();
    let running = Publisher::start(&server);
    let mut verdict = Value::Null;
    // A busy machine may keep also the one that runs from speaking for a while.
    wait_until("only the killed one has been silent for long", || {
        verdict = verify(&server);
        verdict["running"] == 1 && verdict["ended_without_a_word"][0]["process"] == process.as_str()
    });
    assert_eq!((&verdict["stopped"], &verdict["delivered"]), (&json!(1), &json!(43)));
    assert_eq!(verdict["lost_undeclared"], 0);
    let ended = verdict["ended_without_a_word"].as_array().expect("a list");
    assert_eq!(ended.len(), 1, "{verdict}");
    assert_eq!((&ended[0]["held"], &ended[0]["missing"]), (&json!(0), &json!(0)));
    assert!(ended[0]["last_stats"].is_string() && ended[0]["last_heard"].is_string(), "{verdict}");

    let obituary = format!("process {process} ended without a word");
    let words = [
        "processes: 1 stopped, 1 running (or ended just now), 1 ended without a word",
        obituary.as_str(),
        "0 events are neither in the stream nor declared",
        "nobody can know",
    ];
    wait_until("it says so in words", || {
        let output = jetring(&["verify", "--url", &server.url()], "");
        assert_status(&output, 0);
        words.iter().all(|word| stdout(&output).contains(word))
    });
    running.close();
    assert_eq!((&verify(&server)["running"], &verify(&server)["stopped"]), (&json!(0), &json!(2)));
}

#[test]
fn what_a_killed_process_had_offered_by_its_last_report_and_is_not_there_is_counted_exactly() {
    let server = server_with_stream();
    let proxy = Proxy::before(server.port());
    let mut killed = Publisher::start_through(&server, &proxy.url());
    // Sixteen events for each of these, so that hundreds wait in the queue when the report is made.
    proxy.set(Link { acks: Way::Late(Duration::from_millis(100)), ..Link::CLEAR });
    killed.publish(1000);
    let stored = || count(&server, "event.1.a") as u64;
    let offered = || told(&server).last().map_or(0, |running| running.offered.iter().sum::<u64>());
    wait_until("it has told that hundreds are queued", || offered() > stored() + 200);
    killed.kill();
    let missing = offered() - stored();
    assert!(missing > 0);
    let mut verdict = Value::Null;
    wait_until("it has been silent for long", || {
        verdict = verify(&server);
        verdict["running"] == 0
    });
    assert_eq!((&verdict["lost_undeclared"], &verdict["lost_declared"]), (&json!(0), &json!(0)));
    let ended = &verdict["ended_without_a_word"][0];
    assert_eq!(ended["missing"], missing, "{verdict}");
    assert!(ended["held"].as_u64() >= Some(missing), "what is missing was held then: {verdict}");
}

#[test]
fn a_ledger_that_is_told_balances_and_says_how_far_the_offers_have_come() {
    let server = server_with_stream();
    let mut publisher = Publisher::start(&server);
    publisher.publish(999);
    wait_until("its ledger has all of them", || {
        told(&server).last().is_some_and(|running| running.ledger.acked == 1000)
    });
    for running in told(&server) {
        assert_eq!(running.ledger.check(), Ok(()));
        // Read after the ledger, and nobody was shed.
        assert!(running.offered.iter().sum::<u64>() >= running.ledger.offered, "{running:?}");
    }
    assert_eq!(told(&server).pop().map(|running| running.offered.iter().sum()), Some(1000_u64));
    publisher.close();
}

#[test]
fn a_bus_without_a_connection_tells_its_ledger_once_it_has_one() {
    let mut server = server_with_stream();
    let mut publisher = Publisher::start(&server);
    let before = told(&server).len();
    server.kill();
    publisher.publish(10);
    server.restart();
    wait_until("its ledger has all of them", || {
        told(&server).last().is_some_and(|running| running.ledger.acked == 11)
    });
    assert!(told(&server).len() > before);
    publisher.close();
}

#[test]
fn tap_shows_reports_as_sentences_and_as_they_are_in_json() {
    let server = server_with_stream();
    let publisher = Publisher::start(&server);
    wait_until("it has told its ledger", || !told(&server).is_empty());
    publisher.close();
    let all = ask(messages(&server.url(), STREAM)).len().to_string();
    let args = ["tap", "--url", &server.url(), "--from", "all", "--count", &all];
    let output = jetring(&args, "");
    assert_status(&output, 0);
    for sentence in [
        " started: jetring 0.",
        " is running: 1 offered, ",
        " stopped: 1 offered, 1 acked, 0 dropped, 0 indeterminate, 0 held",
    ] {
        let lines =
            stdout(&output).lines().filter(|line| line.contains("event.1._bus.") && line.contains(sentence));
        assert!(lines.count() > 0, "{sentence:?} is not in:\n{}", stdout(&output));
    }
    let output = jetring(&[args.as_slice(), &["--json"]].concat(), "");
    let lines: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("a document")).collect();
    let last = lines.last().expect("there are lines");
    assert_eq!(last["subject"], "event.1._bus.stopped");
    assert_eq!(last["envelope"]["body"]["ledger"]["acked"], 1);
}
