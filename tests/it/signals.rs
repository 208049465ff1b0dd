//! SIGTERM and SIGINT to the tool while it is in the middle of something: it ends in good order, in time, with its balance.
//!
//! The same for each command that runs a bus, with a server that is well, frozen, or was never there.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Output};
use std::time::{Duration, Instant};

use jetring::Stats;
use serde_json::Value;

use crate::cli::{assert_status, command, jetring, json_of, signal, stderr, stdout};
use crate::server::wait_until;
use crate::support::{CLOSE, NO_SERVER, server_with_stream};

/// `shutdown.timeout`, as the tool is told where not everything can be delivered.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Far more than a busy machine adds: only a tool that hangs takes so long.
const SLACK: Duration = Duration::from_secs(30);

/// The commands that run a bus, none of which would end by itself in the time of a test.
const BENCH: [&str; 3] = ["bench", "--seconds", "600"];
const BENCH_AT_RATE: [&str; 5] = ["bench", "--seconds", "600", "--rate", "2000"];
const DEMO: [&str; 5] = ["demo", "--seconds", "600", "--rate", "2000"];
const PUBLISH: [&str; 2] = ["publish", "line"];

/// A run of the tool. It ends with the test at the latest.
struct Run {
    /// There until it has ended.
    child: Option<Child>,
    talk: BufReader<ChildStderr>,
    metrics: String,
    timeout: Duration,
}

impl Run {
    /// Starts a command, and waits until it has a bus.
    fn start(args: &[&str], url: &str) -> Self {
        Self::start_with(TIMEOUT, args, url)
    }

    fn start_with(timeout: Duration, args: &[&str], url: &str) -> Self {
        let common = ["--url", url, "--json", "--metrics", "0"];
        let mut command = command(&[args, &common].concat());
        command.env("JETRING_EVENT_BUS__SHUTDOWN__TIMEOUT", format!("{}ms", timeout.as_millis()));
        let mut child = command.spawn().expect("the tool starts");
        let mut talk = BufReader::new(child.stderr.take().expect("its talk is a pipe"));
        // The log of the bus may have said something before.
        let metrics = talk.by_ref().lines().find_map(|line| {
            let line = line.expect("its talk is text");
            line.strip_prefix("jetring: metrics at ").map(str::to_owned)
        });
        let metrics = metrics.expect("it says where its metrics are");
        Self { child: Some(child), talk, metrics, timeout }
    }

    /// What `jetring stats` says of it.
    fn stats(&self) -> Value {
        json_of(&jetring(&["stats", &self.metrics, "--json"], ""))
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        wait_until(what, || holds(&self.stats()));
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it has not ended")
    }

    fn write(&mut self, lines: u32) {
        let input = self.child().stdin.as_mut().expect("its input is a pipe");
        (0..lines).for_each(|number| writeln!(input, "{number}").expect("it reads its input"));
    }

    /// Sends the signal and waits for the end, which has to come in time. Its input stays open.
    fn end_by(mut self, number: i32) -> Output {
        let start = Instant::now();
        let mut child = self.child.take().expect("it has not ended");
        signal(&child, number);
        let _input = child.stdin.take();
        let mut stderr = Vec::new();
        self.talk.read_to_end(&mut stderr).expect("its talk can be read");
        let output = child.wait_with_output().expect("it ends");
        assert!(start.elapsed() < self.timeout + SLACK, "it took {:?}", start.elapsed());
        Output { stderr, ..output }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The balance that was printed. It adds up, and nothing is left open.
#[track_caller]
fn balance(output: &Output) -> Stats {
    let stats: Stats =
        serde_json::from_str(stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!((stats.check(), stats.held()), (Ok(()), 0), "{}", stderr(output));
    stats
}

fn acked(stats: &Value) -> u64 {
    stats["acked"].as_u64().expect("a count")
}

#[test]
fn a_load_that_is_interrupted_delivers_what_it_has_offered() {
    let server = server_with_stream();
    for (args, number) in [
        (&BENCH[..], libc::SIGTERM),
        (&BENCH_AT_RATE, libc::SIGINT),
        (&DEMO, libc::SIGTERM),
        (&DEMO, libc::SIGINT),
    ] {
        // A bench at full speed has filled the rings.
        let run = Run::start_with(CLOSE, args, &server.url());
        // Beyond the warm-up of a bench, which is in no balance.
        run.wait_until("it is in full swing", |stats| {
            acked(stats) > 11_000 || (args == DEMO && acked(stats) > 500)
        });
        let output = run.end_by(number);
        assert_status(&output, 0);
        let stats = balance(&output);
        assert!(stats.acked > 0 && stats.acked == stats.offered, "{args:?}: {stats:?}");
    }
    assert_status(&jetring(&["verify", "--url", &server.url(), "--json"], ""), 0);
}

#[test]
fn lines_that_were_read_before_an_interrupt_are_delivered() {
    let server = server_with_stream();
    for (number, lines) in [(libc::SIGTERM, 300), (libc::SIGINT, 500)] {
        let mut run = Run::start(&PUBLISH, &server.url());
        run.write(lines);
        run.wait_until("all lines are acknowledged", |stats| acked(stats) == u64::from(lines));
        let output = run.end_by(number);
        // More lines might have come.
        assert_status(&output, 1);
        assert_eq!(balance(&output).acked, u64::from(lines));
    }
}

#[test]
fn a_command_whose_server_is_frozen_ends_in_time_and_claims_nothing() {
    for args in [&BENCH[..], &BENCH_AT_RATE, &DEMO, &PUBLISH] {
        let server = server_with_stream();
        let mut run = Run::start(args, &server.url());
        if args == PUBLISH {
            run.write(300);
        }
        run.wait_until("something is acknowledged", |stats| acked(stats) > 0);
        server.pause();
        if args == PUBLISH {
            run.write(300);
        }
        run.wait_until("something is open", |stats| stats["in_flight"].as_u64() > Some(0));
        let output = run.end_by(libc::SIGTERM);
        server.resume();
        assert_status(&output, 1);
        let stats = balance(&output);
        assert!(stats.acked < stats.offered, "{args:?}: {stats:?}");
    }
}

#[test]
fn a_command_that_has_never_seen_a_server_ends_in_time() {
    for args in [&BENCH[..], &PUBLISH] {
        let mut run = Run::start(args, NO_SERVER);
        if args == PUBLISH {
            run.write(300);
        }
        run.wait_until("something is open", |stats| stats["in_flight"].as_u64() > Some(0));
        let output = run.end_by(libc::SIGTERM);
        assert_status(&output, 1);
        let stats = balance(&output);
        assert_eq!((stats.acked, stats.indeterminate), (0, 0), "{args:?}: {stats:?}");
    }
}

#[test]
fn a_second_signal_ends_a_command_at_once() {
    let server = server_with_stream();
    let mut run = Run::start(&PUBLISH, &server.url());
    run.write(100);
    run.wait_until("all lines are acknowledged", |stats| acked(stats) == 100);
    server.pause();
    run.write(100);
    run.wait_until("the rest is open", |stats| stats["in_flight"] == 100);
    signal(run.child(), libc::SIGTERM);
    // Two of a kind may become one, two of different kinds may not.
    let output = run.end_by(libc::SIGINT);
    server.resume();
    assert!(matches!(output.status.code(), Some(130 | 143)), "{output:?}");
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("without a balance"), "{}", stderr(&output));
}

#[test]
fn a_tap_that_is_interrupted_ends_well() {
    let server = server_with_stream();
    for number in [libc::SIGTERM, libc::SIGINT] {
        let published = jetring(&["publish", "line", "--url", &server.url()], "1\n");
        assert_status(&published, 0);
        let mut child =
            command(&["tap", "--url", &server.url(), "--from", "all"]).spawn().expect("it starts");
        let mut first = String::new();
        let mut shown = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        shown.read_line(&mut first).expect("its output is text");
        assert!(first.contains("event.1."), "{first}");
        signal(&child, number);
        assert_status(&child.wait_with_output().expect("it ends"), 0);
    }
}

#[test]
fn raw_lines_that_were_acknowledged_before_an_interrupt_are_told() {
    let server = server_with_stream();
    let args = ["publish", "--raw", "event.1.raw", "--url", &server.url(), "--json"];
    let mut child = command(&args).spawn().expect("the tool starts");
    let mut input = child.stdin.take().expect("its input is a pipe");
    writeln!(input, "one\ntwo").expect("it reads its input");
    let stored = || {
        let seen =
            jetring(&["tap", "event.1.raw", "--from", "all", "--count", "2", "--url", &server.url()], "");
        stdout(&seen).lines().count() == 2
    };
    wait_until("both lines are stored", stored);
    signal(&child, libc::SIGTERM);
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    assert_status(&output, 1);
    assert_eq!(json_of(&output)["acked"], 2);
}
