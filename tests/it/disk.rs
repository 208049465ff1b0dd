//! Real disks that fail: system calls that are made to fail by strace, and a file system that is full.
//!
//! Where strace, or a name space of one's own, is not to be had, the test says so and is left out.

use crate::cli::{assert_status, file, jetring, json_of, path};
use crate::support::{NO_SERVER, server_with_stream};
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

/// Events that are published under a fault.
const EVENTS: usize = 2000;

fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{{\"number\":{number}}}\n")).collect()
}

fn is_there(program: &str, args: &[&str]) -> bool {
    let run = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = run.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("LEFT OUT: {program} {} does not work here", args.join(" "));
    }
    is_there
}

/// Publishes into a new directory while a system call fails as strace is told. Returns what the tool said, and the directory.
fn publish_under(fault: &str, sync: &str) -> Option<(Output, tempfile::TempDir)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let lines = format!("spool.sync = '{sync}'\nurl = 'file:{}'", directory.path().display());
    publish_with(fault, &lines).map(|output| (output, directory))
}

/// The same into a spool, of a server that is not there.
fn spool_under(fault: &str, sync: &str) -> Option<(Output, tempfile::TempDir)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let lines = format!(
        "spool.sync = '{sync}'\nspool.dir = '{}'\nurl = '{NO_SERVER}'\nshutdown.timeout = '3s'\n\
         queue = {{ when-full = 'spool', capacity = '64KiB', max-event = '1KiB' }}\n\
         delivery = {{ max-in-flight = 64, ack-timeout = '100ms' }}",
        directory.path().display()
    );
    publish_with(fault, &lines).map(|output| (output, directory))
}

fn publish_with(fault: &str, lines_of_config: &str) -> Option<Output> {
    if !is_there("strace", &["-f", "-qq", "-o", "/dev/null", "true"]) {
        return None;
    }
    let config = file(&format!("[event-bus]\nchain-id = 1\n{lines_of_config}"));
    let input = file(&lines(EVENTS));
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(env!("CARGO_BIN_EXE_jetring"))
        .args(["publish", "a", path(&input), "--config", path(&config), "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("strace runs");
    Some(output)
}

/// Sends what is in the directory to a new server, and proves that these are all the events, once and in order.
#[track_caller]
fn assert_replayed(directory: &tempfile::TempDir, events: u64) {
    let server = server_with_stream();
    let (url, directory) = (server.url(), directory.path().to_str().expect("text"));
    let replay = jetring(&["replay", directory, "--url", &url, "--json"], "");
    assert_status(&replay, 0);
    let balance = json_of(&replay);
    assert!(balance["acked"].as_u64() >= Some(events) && balance["acked"] == balance["offered"], "{balance}");
    let verify = json_of(&jetring(&["verify", "--url", &url, "--json"], ""));
    for (count, expected) in [("delivered", events), ("duplicates", 0), ("reordered", 0)] {
        assert_eq!(verify[count], expected, "{verify}");
    }
}

/// All events are in the directory, once and in order, and the log is whole.
#[track_caller]
fn assert_all_there(directory: &tempfile::TempDir) {
    let url = format!("file:{}", directory.path().display());
    let verify = jetring(&["verify", "--url", &url, "--json"], "");
    assert_status(&verify, 0);
    let verify = json_of(&verify);
    assert_eq!((&verify["delivered"], &verify["duplicates"]), (&json!(EVENTS), &json!(0)), "{verify}");
    let log = jetring(&["spool", "verify", directory.path().to_str().expect("text"), "--json"], "");
    assert_status(&log, 0);
}

#[test]
fn a_sync_that_fails_costs_no_event() {
    // The first syncs are those of the files that a log begins with.
    for when in ["4", "5", "6", "7+3"] {
        for sync in ["every-batch", "interval:1ms"] {
            let Some((output, directory)) = publish_under(&format!("fdatasync:error=EIO:when={when}"), sync)
            else {
                return;
            };
            assert_status(&output, 0);
            assert_eq!(json_of(&output)["acked"], EVENTS, "{when}");
            assert_all_there(&directory);
        }
    }
}

#[test]
fn a_write_that_fails_is_made_again_and_the_order_stays() {
    for when in ["5", "6", "9+60"] {
        let Some((output, directory)) =
            publish_under(&format!("pwritev:error=EIO:when={when}"), "every-batch")
        else {
            return;
        };
        assert_status(&output, 0);
        assert_eq!(json_of(&output)["acked"], EVENTS, "{when}");
        assert_all_there(&directory);
    }
}

#[test]
fn a_disk_that_fails_costs_no_event_of_a_spool() {
    for fault in ["fdatasync:error=EIO:when=5", "fdatasync:error=EIO:when=6+3", "pwritev:error=EIO:when=6"] {
        for sync in ["every-batch", "interval:1ms"] {
            let Some((output, directory)) = spool_under(fault, sync) else { return };
            // Nothing was delivered.
            assert_status(&output, 1);
            let balance = json_of(&output);
            assert_eq!(balance["spooled"], EVENTS, "{fault} {sync} {balance}");
            assert_replayed(&directory, EVENTS as u64);
        }
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_costs_a_spool_what_it_did_not_take() {
    let Some((output, directory)) = spool_under("pwritev:error=ENOSPC:when=7..20", "every-batch") else {
        return;
    };
    assert_status(&output, 1);
    let balance = json_of(&output);
    let (spooled, full) = (balance["spooled"].as_u64(), balance["dropped"]["spool_full"].as_u64());
    assert_eq!(spooled.zip(full).map(|(spooled, full)| spooled + full), Some(EVENTS as u64), "{balance}");
    assert!(spooled > Some(100) && full > Some(0), "{balance}");
    assert_replayed(&directory, spooled.unwrap_or(0));
}

#[test]
fn a_file_system_that_cannot_be_written_any_more_leaves_the_events_in_memory() {
    if !is_there("unshare", &["-Urm", "true"]) {
        return;
    }
    let server = server_with_stream();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = file(&format!(
        "[event-bus]\nchain-id = 1\nurl = '{}'\nspool.dir = 'e/spool'\nshutdown.timeout = '5s'\n\
         queue = {{ when-full = 'spool', capacity = '64KiB', max-event = '1KiB' }}\n\
         delivery = {{ max-in-flight = 64, ack-timeout = '100ms' }}",
        server.url()
    ));
    // The file system turns read-only while the server is frozen and events go to the spool.
    let script = format!(
        "mount -t tmpfs -o size=40m none {dir} && mkdir -m 700 {dir}/e && cd {dir} || exit 99\n\
         kill -STOP {server}\n\
         (seq 1 500; sleep 1; mount -o remount,ro {dir}; seq 501 800; sleep 2; kill -CONT {server}; seq 801 {EVENTS}) | \
         {tool} publish a --config {config} --json",
        dir = directory.path().display(),
        server = server.pid(),
        tool = env!("CARGO_BIN_EXE_jetring"),
        config = path(&config),
    );
    let output = Command::new("unshare").args(["-Urm", "sh", "-c", &script]).output().expect("unshare runs");
    if output.status.code() == Some(99) {
        eprintln!("LEFT OUT: no tmpfs can be mounted here: {output:?}");
        return;
    }
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["acked"], EVENTS);
    let verify = json_of(&jetring(&["verify", "--url", &server.url(), "--json"], ""));
    assert_eq!((&verify["delivered"], &verify["reordered"]), (&json!(EVENTS), &json!(0)), "{verify}");
}

#[test]
fn a_full_file_system_is_survived_and_what_it_did_not_take_is_declared() {
    if !is_there("unshare", &["-Urm", "true"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let large = format!("\"{}\"\n", "x".repeat(4000));
    let input = file(&large.repeat(8000));
    let script = format!(
        "mount -t tmpfs -o size=20m none {dir} && mkdir -m 700 {dir}/e && cd {dir} || exit 99\n\
         {tool} publish a {input} --url file:e --json\n\
         {tool} verify --url file:e --json && {tool} spool verify e --json",
        dir = directory.path().display(),
        tool = env!("CARGO_BIN_EXE_jetring"),
        input = path(&input),
    );
    let output = Command::new("unshare").args(["-Urm", "sh", "-c", &script]).output().expect("unshare runs");
    if output.status.code() == Some(99) {
        eprintln!("LEFT OUT: no tmpfs can be mounted here: {output:?}");
        return;
    }
    assert_status(&output, 0);
    let said = String::from_utf8_lossy(&output.stdout);
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [balance, verify, log] = &said[..] else { panic!("{output:?}") };
    let (acked, full) = (balance["acked"].as_u64(), balance["dropped"]["spool_full"].as_u64());
    assert_eq!(acked.zip(full).map(|(acked, full)| acked + full), Some(8000), "{balance}");
    assert!(acked > Some(3000), "{balance}");
    assert_eq!((verify["delivered"].as_u64(), verify["lost_declared"].as_u64()), (acked, full), "{verify}");
    assert_eq!(log["missing"]["sequences"], 0, "{log}");
}
