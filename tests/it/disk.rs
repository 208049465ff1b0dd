//! Real disks that fail: system calls that are made to fail by strace, and a file system that is full.
//!
//! Where strace, or a name space of one's own, is not to be had, the test says so and is left out.

use crate::cli::{assert_status, file, jetring, json_of, path};
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
    if !is_there("strace", &["-f", "-qq", "-o", "/dev/null", "true"]) {
        return None;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = file(&format!(
        "[event-bus]\nchain-id = 1\nspool.sync = '{sync}'\nurl = 'file:{}'",
        directory.path().display()
    ));
    let input = file(&lines(EVENTS));
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")])
        .arg(env!("CARGO_BIN_EXE_jetring"))
        .args(["publish", "a", path(&input), "--config", path(&config), "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("strace runs");
    Some((output, directory))
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
