//! The metrics endpoint of the tool, and what `jetring stats` reads in it.

use crate::cli::{assert_refused, assert_status, command, jetring, json_of, stderr, stdout};
use crate::server::wait_until;
use crate::support::server_with_stream;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread;

#[test]
fn the_ledger_of_a_running_process_is_read_and_balances() {
    let server = server_with_stream();
    let mut publisher = command(&["publish", "a", "--url", &server.url(), "--metrics", "0"])
        .spawn()
        .expect("the tool starts");
    let mut talk = BufReader::new(publisher.stderr.take().expect("its talk is a pipe"));
    let mut line = String::new();
    talk.read_line(&mut line).expect("it talks");
    let endpoint = line.trim_end().strip_prefix("jetring: metrics at ").unwrap_or_else(|| panic!("{line}"));
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");

    let mut input = publisher.stdin.take().expect("its input is a pipe");
    let lines: String = (0..300).map(|number| format!("{number}\n")).collect();
    input.write_all(lines.as_bytes()).expect("it reads its input");
    // At any moment, so also while the events are on their way.
    wait_until("all are acknowledged", || {
        let output = jetring(&["stats", endpoint, "--check", "--json"], "");
        assert_status(&output, 0);
        let reading = json_of(&output);
        assert_eq!((&reading["balanced"], &reading["dropped"]), (&json!(true), &json!({})));
        reading["acked"] == 300 && reading["connected"] == true && reading["engine"] != json!(null)
    });
    let output = jetring(&["stats", endpoint.trim_start_matches("http://"), "--check"], "");
    assert_status(&output, 0);
    let text = stdout(&output);
    assert!(text.contains(" 300 offered\n") && text.contains("\nthe ledger balances\n"), "{text}");

    drop(input);
    let mut rest = String::new();
    talk.read_to_string(&mut rest).expect("it talks");
    assert_status(&publisher.wait_with_output().expect("it ends"), 0);
    assert_refused(&["stats", endpoint], 1, &[endpoint, "refused"]);
}

#[test]
fn a_ledger_that_does_not_add_up_is_said_and_fails_the_check() {
    let text = "event_bus_offered_events_total 21\nevent_bus_acked_events_total 9\n\
        event_bus_dropped_events_total{reason=\"queue_full\"} 3\nevent_bus_indeterminate_events_total 1\n\
        event_bus_queued_events 2\nevent_bus_in_flight_events 4\nevent_bus_spooled_events 1\nevent_bus_connected 0\n";
    let said = "21 events were offered, 20 are accounted for";
    let output = stats_of(text, &["--check"]);
    assert_status(&output, 1);
    assert!(stdout(&output).contains(said) && stdout(&output).contains("not connected"), "{output:?}");
    let output = stats_of(text, &[]);
    assert_status(&output, 0);
    assert!(stdout(&output).contains(said), "{output:?}");
    let output = stats_of(text, &["--check", "--json"]);
    assert_status(&output, 1);
    let reading = json_of(&output);
    assert_eq!((&reading["balanced"], &reading["dropped"]["queue_full"]), (&json!(false), &json!(3)));
}

#[test]
fn an_endpoint_without_a_bus_is_no_ledger_of_zeros() {
    let output = stats_of("apples_total 3\n", &["--check"]);
    assert_status(&output, 1);
    assert!(stderr(&output).contains("there is no event_bus_offered_events_total"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
    let output = stats_of("<html>\n", &[]);
    assert_status(&output, 1);
    assert!(stderr(&output).contains("line 1 is no sample: <html>"), "{}", stderr(&output));
}

#[test]
fn an_address_that_cannot_be_used_is_named_before_anything_is_published() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has one").to_string();
    let bench = ["bench", "--url", "null:", "--events", "10", "--metrics"];
    assert_refused(&[&bench[..], &[&address]].concat(), 1, &["--metrics", &address, "in use"]);
    assert_refused(&[&bench[..], &["everywhere"]].concat(), 2, &["everywhere", "PORT", "IP:PORT"]);
    assert_refused(&["publish", "a", "--raw", "--metrics", "0"], 2, &["--raw", "--metrics"]);
    assert_refused(&["stats", "https://bus.example"], 2, &["http://"]);
}

/// What `jetring stats` makes of an endpoint that says this.
fn stats_of(text: &str, args: &[&str]) -> std::process::Output {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it has one").to_string();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    thread::spawn(move || {
        let (mut caller, _) = listener.accept()?;
        let mut request = BufReader::new(caller.try_clone()?).lines();
        while !request.next().unwrap_or_else(|| Ok(String::new()))?.is_empty() {}
        caller.write_all(answer.as_bytes())
    });
    jetring(&[&["stats", &address], args].concat(), "")
}
