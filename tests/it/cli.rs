//! The command-line tool as a user runs it: its output, its exit status, its words for mistakes.

use crate::server::{NatsServer, stream_state, wait_until};
use crate::support::{STREAM, ask, server_with_stream};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Runs the tool with nothing of our own environment that could configure it.
pub(crate) fn jetring(args: &[&str], input: &str) -> Output {
    let mut child = command(args).spawn().expect("the tool starts");
    child.stdin.take().expect("its input is a pipe").write_all(input.as_bytes()).expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jetring"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("NATS_") || name.starts_with("JETRING_"))
    {
        command.env_remove(name);
    }
    command
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("output is text")
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("talk is text")
}

pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[track_caller]
pub(crate) fn assert_status(output: &Output, status: i32) {
    assert_eq!(output.status.code(), Some(status), "{}\n{}", stdout(output), stderr(output));
}

/// Runs the tool and asserts that it refuses with this status and says all of these words.
#[track_caller]
pub(crate) fn assert_refused(args: &[&str], status: i32, words: &[&str]) {
    let output = jetring(args, "");
    assert_status(&output, status);
    for word in words {
        assert!(stderr(&output).contains(word), "{word:?} is not in: {}", stderr(&output));
    }
}

/// A file with this content that lives as long as the test.
pub(crate) fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(content.as_bytes()).expect("it can be written");
    file
}

pub(crate) fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("its path is text")
}

#[test]
fn the_demo_delivers_everything_and_proves_it() {
    let server = NatsServer::start();
    let args =
        ["demo", "--url", &server.url(), "--create-stream", "--rate", "4000", "--seconds", "2", "--json"];
    let output = jetring(&args, "");
    assert_status(&output, 0);
    let summary = json_of(&output);
    let offered = summary["offered"].as_u64().expect("a count");
    assert!(
        (7000..=8000).contains(&offered),
        "4000 a second for two seconds, a little less where nobody won: {offered}"
    );
    assert_eq!(summary["acked"], offered);
    assert_eq!(summary["publish_ns"]["calls"], offered);
    let verify = &summary["verify"];
    assert_eq!(verify["delivered"], offered);
    for count in ["duplicates", "reordered", "lost_declared", "lost_undeclared"] {
        assert_eq!(verify[count], 0, "{count}");
    }
    let output = jetring(&["verify", "--url", &server.url(), "--json"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["delivered"], offered);
}

#[test]
fn partitions_are_made_published_to_proved_and_followed_together() {
    let server = NatsServer::start();
    let url = server.url();
    let partitioned =
        |args: &[&str]| jetring(&[args, &["--partitions", "2", "--url", &url, "--json"]].concat(), "");
    let output = partitioned(&["demo", "--create-stream", "--rate", "2000", "--seconds", "1"]);
    assert_status(&output, 0);
    let offered = json_of(&output)["offered"].as_u64().expect("a count");
    assert_eq!(
        (&json_of(&output)["acked"], &json_of(&output)["verify"]["delivered"]),
        (&json!(offered), &json!(offered))
    );
    let stored = ["main-0", "main-1"].map(|stream| ask(stream_state(&url, stream)).messages);
    // Each has two reports as well.
    assert!(stored.iter().all(|&messages| messages > 2), "{stored:?}");
    assert_eq!(stored.iter().sum::<u64>(), offered + 4);

    let output = partitioned(&["bench", "--events", "2000", "--threads", "2"]);
    assert_status(&output, 0);
    let published = offered + 2000 + json_of(&output)["warm_up_events"].as_u64().expect("a count");

    let output = partitioned(&["verify"]);
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["delivered"], published);
    // Each is a stream like any other, too.
    let of_one = |stream| {
        let output = jetring(&["verify", "--url", &url, "--stream", stream, "--json"], "");
        assert_status(&output, 0);
        json_of(&output)["delivered"].as_u64().expect("a count")
    };
    assert_eq!(of_one("main-0") + of_one("main-1"), published);

    let all = published + 8;
    let tap = partitioned(&["tap", "--from", "all", "--count", &all.to_string()]);
    assert_status(&tap, 0);
    let of = |partition: u64| {
        let subject = format!("\"subject\":\"event.1.{partition}.");
        stdout(&tap).lines().filter(|line| line.contains(&subject)).count() as u64
    };
    let stored = ["main-0", "main-1"].map(|stream| ask(stream_state(&url, stream)).messages);
    assert_eq!([of(0), of(1)], stored);
    let tap = partitioned(&["tap", "event.1.*.bench", "--from", "all", "--count", "2000"]);
    assert_status(&tap, 0);
    assert_eq!(stdout(&tap).matches(".bench\"").count(), 2000);

    let output = partitioned(&["bench", "--events", "2000", "--threads", "2", "--framing", "packed"]);
    assert_status(&output, 0);
    let packed = 2000 + json_of(&output)["warm_up_events"].as_u64().expect("a count");
    let output = partitioned(&["verify"]);
    assert_status(&output, 0);
    let verdict = json_of(&output);
    assert_eq!(verdict["delivered"], published + packed);
    assert!(verdict["messages"].as_u64() < verdict["events"].as_u64(), "{verdict}");
}

#[test]
fn a_producer_that_is_in_two_streams_is_found() {
    let server = NatsServer::start();
    let publish = |subject: &str, seq: u32| {
        let event = format!(
            "{{\"version\":\"v1\",\"timestamp\":\"t\",\"producer\":\"00000000000000aa.0\",\"seq\":{seq},\"body\":1}}\n"
        );
        let args =
            ["publish", subject, "--raw", "--url", &server.url(), "--create-stream", "--partitions", "2"];
        assert_status(&jetring(&args, &event), 0);
    };
    let verify = || jetring(&["verify", "--url", &server.url(), "--partitions", "2", "--json"], "");
    publish("event.1.0.raw", 1);
    publish("event.1.0.raw", 2);
    let output = verify();
    assert_status(&output, 0);
    assert_eq!((&json_of(&output)["delivered"], &json_of(&output)["astray"]), (&json!(2), &Value::Null));
    publish("event.1.1.raw", 1);
    let output = verify();
    assert_status(&output, 1);
    assert_eq!((&json_of(&output)["lost_undeclared"], &json_of(&output)["astray"]), (&json!(0), &json!(1)));
}

#[test]
fn partitions_that_cannot_be_are_refused() {
    assert_refused(&["verify", "--partitions", "0"], 78, &["--partitions", "1 to 64"]);
    assert_refused(
        &["bench", "--partitions", "64", "--url", "null:"],
        78,
        &["queue.max-event", "a partition's part"],
    );
    assert_refused(&["tap", "--partitions", "2", "--from", "7"], 2, &["--from", "--stream main-0"]);
}

#[test]
fn a_bench_measures_the_events_it_was_asked_for_and_they_are_in_the_stream() {
    let server = NatsServer::start();
    let url = server.url();
    let args = [
        "bench",
        "--events",
        "3001",
        "--threads",
        "2",
        "--size",
        "300",
        "--url",
        &url,
        "--create-stream",
        "--json",
    ];
    let output = jetring(&args, "");
    assert_status(&output, 0);
    let summary = json_of(&output);
    assert_eq!((&summary["offered"], &summary["acked"]), (&json!(3001), &json!(3001)));
    assert_eq!(
        (&summary["dropped"], &summary["queued"], &summary["in_flight"]),
        (&json!({}), &json!(0), &json!(0))
    );
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("a number: {summary}"));
    let rate = 3001.0 / number(&summary["elapsed_seconds"]);
    assert!((number(&summary["events_per_second"]) - rate).abs() < 1.0, "{summary}");
    assert!(number(&summary["client_cpu_us_per_event"]) > 0.0, "{summary}");
    let latency = ["p50", "p99", "p999"].map(|name| number(&summary["ack_latency_us"][name]));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{summary}");

    let output = jetring(&["verify", "--url", &url, "--json"], "");
    assert_status(&output, 0);
    let warm_up = summary["warm_up_events"].as_u64().expect("a count");
    assert_eq!(json_of(&output)["delivered"], 3001 + warm_up);
    let tap = jetring(&["tap", "event.1.bench", "--url", &url, "--from", "all", "--count", "1"], "");
    let event = stdout(&tap).split_whitespace().last().expect("a body");
    assert!(event.contains("\"orderId\":100000000"), "{event}");
}

#[test]
fn a_bench_at_a_rate_waits_for_nobody_and_exits_with_1_when_events_were_shed() {
    let args = ["bench", "--rate", "2000", "--seconds", "1", "--url", "null:", "--json"];
    let output = jetring(&args, "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["acked"], 2000);

    let small = file(
        "[event-bus]\nchain-id = 1\nurl = 'null:'\nqueue = { capacity = '64KiB', max-event = '1KiB', rings = 1 }\ndelivery.linger = '1s'",
    );
    let output =
        jetring(&["bench", "--rate", "1000000", "--events", "20000", "--config", path(&small), "--json"], "");
    assert_status(&output, 1);
    let summary = json_of(&output);
    let (acked, shed) = (&summary["acked"], &summary["dropped"]["queue_full"]);
    assert_eq!(
        acked.as_u64().zip(shed.as_u64()).map(|(acked, shed)| acked + shed),
        Some(20_000),
        "{summary}"
    );
}

#[test]
fn a_bench_without_a_server_measures_nothing_and_says_what_became_of_the_warm_up() {
    let port = NatsServer::reserve();
    let config = file("[event-bus]\nchain-id = 1\nshutdown.timeout = '300ms'");
    let output = jetring(&["bench", "--url", &port.url(), "--config", path(&config), "--json"], "");
    assert_status(&output, 1);
    let summary = json_of(&output);
    assert_eq!((&summary["acked"], &summary["events_per_second"]), (&json!(0), &Value::Null));
    assert_eq!(summary["dropped"]["expired"], summary["offered"]);
    assert!(stderr(&output).contains("warm-up"), "{}", stderr(&output));
}

#[test]
fn a_bench_that_cannot_be_is_refused() {
    assert_refused(&["bench", "--mode", "slow"], 78, &["--mode", "delivery.mode", "async"]);
    assert_refused(&["bench", "--framing", "boxed"], 78, &["--framing", "plain"]);
    assert_refused(&["bench", "--compression", "rar"], 78, &["--compression", "none"]);
    assert_refused(&["bench", "--size", "20"], 2, &["--size", "at least"]);
    assert_refused(&["bench", "--size", "100000"], 2, &["--size", "queue.max-event"]);
    assert_refused(&["bench", "--events", "5", "--seconds", "5"], 2, &["cannot be used with"]);
}

#[test]
fn lines_come_out_as_they_went_in_and_one_that_is_not_json_is_refused_by_number() {
    let server = NatsServer::start();
    let url = server.url();
    let bodies = [
        r#"{"big":123456789012345678901234567890,"f":1.10}"#,
        r#"["é","\u00e9",null]"#,
        "7",
        r#"{"a":{"b":[{}]}}"#,
    ];
    let input = format!("{}\n{}\nnot json\n\n{}\n{}", bodies[0], bodies[1], bodies[2], bodies[3]);
    let output = jetring(&["publish", "lines.a", "--url", &url, "--create-stream", "--json"], &input);
    assert_status(&output, 1);
    assert!(stderr(&output).contains("line 3: not JSON"), "{}", stderr(&output));
    assert_eq!((&json_of(&output)["offered"], &json_of(&output)["acked"]), (&json!(4), &json!(4)));

    let tap =
        jetring(&["tap", "event.1.lines.a", "--url", &url, "--from", "all", "--count", "4", "--json"], "");
    assert_status(&tap, 0);
    let lines: Vec<&str> = stdout(&tap).lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, body) in lines.into_iter().zip(bodies) {
        assert!(line.contains(&format!("\"body\":{body}")), "{body} is not in {line}");
    }
}

#[test]
fn a_file_and_a_request_id_can_be_given_and_tap_shows_them_as_text() {
    let server = NatsServer::start();
    let url = server.url();
    let lines = file("{\"n\":1}\n{\"n\":2}\n");
    let args = ["publish", "numbered", path(&lines), "--request-id", "q-9", "--url", &url, "--create-stream"];
    let output = jetring(&args, "");
    assert_status(&output, 0);
    assert!(stdout(&output).starts_with("2 offered, 2 acked in "), "{}", stdout(&output));
    let tap = jetring(&["tap", "event.1.numbered", "--url", &url, "--from", "all", "--count", "1"], "");
    let words: Vec<&str> = stdout(&tap).split_whitespace().collect();
    assert_eq!((words[2], words[3], words[4]), ("event.1.numbered", "q-9", "{\"n\":1}"));
}

#[test]
fn verify_exits_with_1_when_an_event_is_there_twice_or_a_message_cannot_be_read() {
    let twice =
        "{\"version\":\"v1\",\"timestamp\":\"t\",\"producer\":\"00000000000000aa.0\",\"seq\":1,\"body\":1}\n"
            .repeat(2);
    for (input, count) in [(twice.as_str(), "duplicates"), ("no envelope\n", "unreadable")] {
        let server = server_with_stream();
        let url = server.url();
        assert_status(&jetring(&["publish", "event.1.raw", "--raw", "--url", &url], input), 0);
        let output = jetring(&["verify", "--url", &url, "--json"], "");
        assert_status(&output, 1);
        assert_eq!((&json_of(&output)[count], &json_of(&output)["lost_undeclared"]), (&json!(1), &json!(0)));
    }
}

#[test]
fn verify_exits_with_1_when_it_finds_nothing_and_says_what_is_there() {
    let server = server_with_stream();
    let url = server.url();
    assert_refused(&["verify", "--url", &url], 1, &["nothing was found", "event.1.>", "is empty"]);
    assert_status(&jetring(&["publish", "here", "--url", &url], "1\n2\n"), 0);
    assert_status(&jetring(&["verify", "--url", &url], ""), 0);
    let elsewhere = ["nothing was found", "event.99.>", "event.1.here (2)", "event.1._bus.started (1)"];
    assert_refused(&["verify", "--url", &url, "--chain-id", "99"], 1, &elsewhere);
    let unknown = ["verify", "--url", &url, "--process", "00000000000000aa", "--json"];
    let output = jetring(&unknown, "");
    assert_status(&output, 1);
    assert_eq!(json_of(&output)["messages"], 0);
    assert!(stderr(&output).contains("nothing of process 00000000000000aa was found"), "{}", stderr(&output));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let embedded = format!("file:{}", directory.path().join("e").display());
    assert_status(&jetring(&["publish", "here", "--url", &embedded], "1\n"), 0);
    let elsewhere = ["nothing was found", "event.99.>", "event.1.here (1)"];
    assert_refused(&["verify", "--url", &embedded, "--chain-id", "99"], 1, &elsewhere);
}

#[test]
fn verify_exits_with_1_when_a_number_is_missing_and_nothing_says_why() {
    let server = NatsServer::start();
    let url = server.url();
    let envelope = |seq: u32| {
        format!(
            "{{\"version\":\"v1\",\"timestamp\":\"t\",\"producer\":\"00000000000000aa.0\",\"seq\":{seq},\"body\":1}}\n"
        )
    };
    let input = [1, 2, 4].map(envelope).concat();
    let output = jetring(&["publish", "event.1.raw", "--raw", "--url", &url, "--create-stream"], &input);
    assert_status(&output, 0);
    let output = jetring(&["verify", "--url", &url, "--json"], "");
    assert_status(&output, 1);
    assert_eq!(
        (&json_of(&output)["delivered"], &json_of(&output)["lost_undeclared"]),
        (&json!(3), &json!(1))
    );
}

/// Longer than the acknowledgements may take, so that the frozen client finds all its deadlines past when it wakes.
const FROZEN: Duration = Duration::from_secs(2);

#[test]
fn a_client_that_is_frozen_and_continued_delivers_everything_once_and_in_order() {
    let server = server_with_stream();
    let config = file("[event-bus]\nchain-id = 1\n[event-bus.delivery]\nack-timeout = \"500ms\"\n");
    let mut child = command(&[
        "publish",
        "a",
        "--url",
        &server.url(),
        "--create-stream",
        "--config",
        path(&config),
        "--json",
    ])
    .spawn()
    .expect("the tool starts");
    let mut input = child.stdin.take().expect("its input is a pipe");
    let mut write = |numbers: std::ops::Range<u32>| {
        let lines: String = numbers.map(|number| format!("{number}\n")).collect();
        input.write_all(lines.as_bytes()).expect("it reads its input");
    };
    write(0..2000);
    let url = server.url();
    wait_until("events are in the stream", || ask(stream_state(&url, STREAM)).messages > 100);
    for _ in 0..2 {
        signal(&child, libc::SIGSTOP);
        // There is nothing to be waited for but that time passes.
        std::thread::sleep(FROZEN);
        signal(&child, libc::SIGCONT);
        write(2000..4000);
    }
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert_status(&output, 0);
    assert_eq!((&json_of(&output)["offered"], &json_of(&output)["acked"]), (&json!(6000), &json!(6000)));
    let verify = json_of(&jetring(&["verify", "--url", &url, "--stream", STREAM, "--json"], ""));
    for (count, expected) in
        [("delivered", 6000), ("duplicates", 0), ("reordered", 0), ("lost_undeclared", 0)]
    {
        assert_eq!(verify[count], expected, "{count}");
    }
}

#[expect(unsafe_code, reason = "the standard library sends no signals")]
pub(crate) fn signal(child: &Child, signal: i32) {
    // SAFETY: `kill` takes two numbers and touches no memory; the child is ours and is not waited for yet.
    let sent = unsafe { libc::kill(child.id() as i32, signal) };
    assert_eq!(sent, 0);
}

#[test]
fn a_server_that_is_away_ends_the_tool_in_time_with_a_balance() {
    let reserved = NatsServer::reserve();
    let config = file("[event-bus]\nchain-id = 1\n[event-bus.shutdown]\ntimeout = \"1s\"\n");
    let args = ["publish", "a", "--url", &reserved.url(), "--config", path(&config), "--json"];
    let output = jetring(&args, "1\n2\n");
    assert_status(&output, 1);
    let balance = json_of(&output);
    assert_eq!((&balance["offered"], &balance["dropped"]["expired"]), (&json!(2), &json!(2)));
}

#[test]
fn mistakes_in_the_configuration_are_named_with_what_is_allowed_and_exit_with_78() {
    let unknown_key = file("[event-bus]\nchain-id = 1\n\n[event-bus.queue]\ncapasity = \"1MiB\"\n");
    assert_refused(&["verify", "--config", path(&unknown_key)], 78, &["capasity", "capacity", "5"]);
    let no_chain = file("[event-bus]\nurl = \"localhost:4222\"\n");
    assert_refused(&["verify", "--config", path(&no_chain)], 78, &["chain-id"]);
    assert_refused(&["verify", "--url", "http://localhost"], 78, &["http", "nats://"]);
    assert_refused(&["verify", "--config", "/nonexistent.toml"], 78, &["/nonexistent.toml"]);
}

#[test]
fn mistakes_on_the_command_line_exit_with_2() {
    assert_refused(&["publish", "a b", "--url", "null:"], 2, &["\"a b\"", "A-Z a-z 0-9 _ -"]);
    assert_refused(&["publish", "a", "/nonexistent.ndjson", "--url", "null:"], 2, &["/nonexistent.ndjson"]);
    assert_refused(&["tap", "--from", "yesterday"], 2, &["all, new"]);
    assert_refused(&["nonsense"], 2, &["nonsense"]);
}

#[test]
fn a_server_that_is_not_there_is_named_without_the_password() {
    let reserved = NatsServer::reserve();
    let url = reserved.url().replace("nats://", "nats://user:hunter2@");
    let output = jetring(&["verify", "--url", &url, "-vv"], "");
    assert_status(&output, 1);
    assert!(stderr(&output).contains(&format!("127.0.0.1:{}", reserved.port())), "{}", stderr(&output));
    assert!(!stderr(&output).contains("hunter2"), "{}", stderr(&output));
}

#[test]
fn the_environment_is_heard_and_a_flag_wins_over_it() {
    let server = NatsServer::start();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_jetring"))
            .args(args)
            .env("NATS_URL", server.url())
            .env("JETRING_EVENT_BUS__STREAM", "elsewhere")
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs")
    };
    let output = run(&["publish", "a", "--create-stream"]);
    assert_status(&output, 0);
    let output = run(&["verify", "--stream", "main"]);
    assert_status(&output, 1);
    assert!(stderr(&output).contains("\"main\""), "{}", stderr(&output));
    assert_status(&run(&["verify"]), 0);
}
