//! `jetring doctor` finds what is wrong, each on a real server that has it, and changes nothing.
//!
//! All go through [`Diagnosis`], which runs the tool and proves what is true of every run: the exit status is that of the worst
//! finding, and whatever is a warning or an error says why it matters and what to do.

use async_nats::jetstream::{self, consumer, stream};
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::cli::{assert_refused, assert_status, command, file, jetring, json_of, path, stderr, stdout};
use crate::proxy::{Link, Proxy, Way};
use crate::server::{
    NatsServer, Reserved, connect, create_stream, stream_config, stream_state, wait_at_most,
};
use crate::support::{STREAM, SUBJECTS, ask, server_with_stream};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An address on another machine, which is nobody's (RFC 5737).
const ELSEWHERE: &str = "198.51.100.1:4222";

/// How long a cluster may take that has lost a server, which may have led it.
const ELECTION: Duration = Duration::from_secs(45);

/// One run of the tool.
struct Diagnosis {
    findings: Vec<Value>,
    text: String,
}

impl Diagnosis {
    fn of(url: &str) -> Self {
        Self::with(url, &[])
    }

    #[track_caller]
    fn with(url: &str, args: &[&str]) -> Self {
        Self::read(&jetring(&[&["doctor", "--json", "--url", url], args].concat(), ""))
    }

    /// With a configuration file of these lines.
    #[track_caller]
    fn configured(url: &str, lines: &str) -> Self {
        let config = file(&format!("[event-bus]\nchain-id = 1\n{lines}\n"));
        Self::with(url, &["--config", path(&config)])
    }

    #[track_caller]
    fn read(output: &Output) -> Self {
        let document = json_of(output);
        let findings = document["findings"].as_array().expect("a list").clone();
        let count =
            |severity: &str| findings.iter().filter(|finding| finding["severity"] == severity).count();
        let (errors, warnings) = (count("error"), count("warning"));
        let status = if errors > 0 { 2 } else { i32::from(warnings > 0) };
        assert_status(output, status);
        assert_eq!((&document["errors"], &document["warnings"]), (&errors.into(), &warnings.into()));
        for finding in findings
            .iter()
            .filter(|finding| finding["severity"] == "error" || finding["severity"] == "warning")
        {
            assert!(finding["why"].is_string() && finding["do"].is_string(), "{finding}");
        }
        Self { findings, text: stdout(output).to_owned() }
    }

    /// One finding has this id and this severity, and says all of these words.
    #[track_caller]
    fn says(&self, id: &str, severity: &str, words: &[&str]) -> &Value {
        let is_meant = |finding: &&Value| {
            let what = finding["what"].as_str().expect("a text");
            finding["id"] == id
                && finding["severity"] == severity
                && words.iter().all(|word| what.contains(word))
        };
        let found = self.findings.iter().find(is_meant);
        found.unwrap_or_else(|| panic!("no {severity} {id} with {words:?} in {}", self.text))
    }

    /// These are all the findings that are warnings or errors.
    #[track_caller]
    fn complains_only_of(&self, ids: &[&str]) {
        let complaints = self
            .findings
            .iter()
            .filter(|finding| finding["severity"] != "ok" && finding["severity"] != "note");
        let complaints: Vec<_> = complaints.map(|finding| finding["id"].as_str().expect("a text")).collect();
        assert_eq!(complaints, ids, "{}", self.text);
    }
}

/// A stream as one would have it.
fn good_stream() -> stream::Config {
    stream::Config { max_age: 7 * DAY, allow_batch_publish: true, ..stream_config(STREAM, &[SUBJECTS]) }
}

/// A server whose stream has this fault and is good otherwise, and what the doctor says of it.
#[track_caller]
fn stream_with(fault: impl FnOnce(&mut stream::Config)) -> (NatsServer, Diagnosis) {
    let server = NatsServer::start();
    let mut config = good_stream();
    fault(&mut config);
    ask(create_stream(&server.url(), config));
    let diagnosis = Diagnosis::of(&server.url());
    (server, diagnosis)
}

/// A good stream on a server with this in its configuration.
fn server_with(config: &str) -> NatsServer {
    let server = NatsServer::builder().config(config).start();
    ask(create_stream(&server.url(), good_stream()));
    server
}

fn publish_raw(url: &str, subject: &str, events: usize, bytes: usize) {
    let lines = format!("{:?}\n", "x".repeat(bytes)).repeat(events);
    assert_status(&jetring(&["publish", subject, "--raw", "--url", url], &lines), 0);
}

/// A server with a monitoring endpoint, and its URL.
fn monitored(jetstream: &str) -> (NatsServer, String, Reserved) {
    let monitor = NatsServer::reserve();
    let config = format!("http: \"127.0.0.1:{}\"", monitor.port());
    let server = NatsServer::builder().config(config).jetstream(jetstream).start();
    let url = format!("http://127.0.0.1:{}", monitor.port());
    (server, url, monitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_server_has_a_clean_bill_and_is_as_it_was() {
    let (server, monitor, _port) = monitored("sync_interval: always");
    let url = server.url();
    create_stream(&url, good_stream()).await;
    publish_raw(&url, "event.1.a", 3, 100);
    let client = connect(&url).await;
    let mut heard = client.subscribe(">").await.expect("it subscribes");
    client.flush().await.expect("the server is there");
    let before = stream_state(&url, STREAM).await;
    let output = jetring(&["doctor", "--url", &url, "--monitor", &monitor], "");
    assert_status(&output, 0);
    let end = stdout(&output).lines().last().expect("a line");
    assert_eq!(end, "0 errors, 0 warnings, 1 note, 19 ok", "{}", stdout(&output));
    assert!(stdout(&output).contains("one copy, on a server that stands alone"));

    let after = stream_state(&url, STREAM).await;
    assert_eq!((after.last_sequence, after.bytes), (before.last_sequence, before.bytes));
    assert_eq!(after.consumer_count, 0);
    // Whoever listens to everything has heard answers and traces, and no event.
    let mut subjects = Vec::new();
    while let Some(Some(message)) = heard.next().now_or_never() {
        subjects.push(message.subject.to_string());
    }
    assert!(!subjects.is_empty(), "it listens to everything");
    assert!(subjects.iter().all(|subject| !subject.starts_with("event.")), "{subjects:?}");

    let diagnosis = Diagnosis::with(&url, &["--monitor", &monitor]);
    diagnosis.complains_only_of(&[]);
    diagnosis.says("stream.ack", "ok", &["on the disk"]);
    diagnosis.says("stream.engine", "ok", &["fast"]);
    diagnosis.says("permission.publish", "ok", &["event.1._bus.gap"]);
    diagnosis.says("clock.skew", "ok", &["agree within"]);
    diagnosis.says("server.round-trip", "ok", &["middle of 5"]);
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_one_of_several_a_warning() {
    let (there, away) = (server_with(""), NatsServer::reserve());
    let diagnosis = Diagnosis::of(&away.url());
    diagnosis.says("server.reach", "error", &[&away.url()]);
    diagnosis.complains_only_of(&["server.reach"]);
    let diagnosis = Diagnosis::of(&format!("{},{}", away.url(), there.url()));
    diagnosis.says("server.reach", "warning", &[&away.url()]);
    diagnosis.says("server.reach", "ok", &[&there.url(), "jetring_test"]);
    diagnosis.complains_only_of(&["server.reach"]);
}

#[test]
fn credentials_that_the_server_refuses_are_told_from_a_server_that_is_away() {
    let server = NatsServer::builder().config("authorization { user: u, password: right }").start();
    let diagnosis = Diagnosis::configured(&server.url(), "auth = { user = 'u', password = 'wrong' }");
    diagnosis.says("server.reach", "error", &["refuses the credentials"]);
}

#[test]
fn answers_that_take_as_long_as_acknowledgements_may_are_found() {
    let server = server_with("");
    let relay = Proxy::before(server.port());
    relay.set(Link { down: Way::Late(Duration::from_millis(150)), ..Link::CLEAR });
    let diagnosis = Diagnosis::configured(&relay.url(), "delivery.ack-timeout = '200ms'");
    diagnosis.says("server.round-trip", "warning", &["delivery.ack-timeout"]);
    let diagnosis = Diagnosis::configured(&relay.url(), "delivery.max-in-flight = 16");
    diagnosis.says("server.round-trip", "note", &["no more than 1", "a second"]);
}

#[test]
fn an_old_server_is_told_from_a_new_one_and_nothing_is_stored_to_find_out() {
    let server = NatsServer::builder().version("2.10.26").start();
    let config = stream::Config { allow_batch_publish: false, ..good_stream() };
    ask(create_stream(&server.url(), config));
    let diagnosis = Diagnosis::of(&server.url());
    diagnosis.says("server.version", "note", &["2.10.26", "fast-ingest"]);
    diagnosis.says("stream.engine", "ok", &["async"]);
    diagnosis.says("permission.publish", "note", &["was not tried", "2.10.26"]);
    diagnosis.complains_only_of(&[]);
    let diagnosis = Diagnosis::configured(&server.url(), "delivery.mode = 'fast'");
    diagnosis.says("stream.engine", "error", &["allow_batched"]);
    assert_eq!(ask(stream_state(&server.url(), STREAM)).last_sequence, 0);
}

#[test]
fn a_server_and_an_account_without_jetstream_are_found() {
    let server = NatsServer::builder().config("jetstream: false").start();
    Diagnosis::of(&server.url()).says("account.jetstream", "error", &["not enabled"]);
    let config = "accounts { A { users: [{user: u, password: p}] } }";
    let server = NatsServer::builder().config(config).start();
    let diagnosis = Diagnosis::configured(&server.url(), "auth = { user = 'u', password = 'p' }");
    diagnosis.says("account.jetstream", "error", &["not enabled"]);
}

#[test]
fn an_account_that_is_nearly_full_is_found() {
    let config =
        "accounts { A { jetstream: {max_file: 100KB}, users: [{user: u, password: p}] } }\nno_auth_user: u";
    let server = server_with(config);
    publish_raw(&server.url(), "event.1.a", 9, 10_500);
    Diagnosis::of(&server.url()).says("account.jetstream", "warning", &["KiB of its 100 KiB"]);
}

#[test]
fn a_server_whose_messages_are_smaller_than_ours_is_found() {
    let server = server_with("max_payload: 16KB");
    let diagnosis = Diagnosis::of(&server.url());
    diagnosis.says("server.max-payload", "warning", &["queue.max-event (64 KiB)"]);
    diagnosis.complains_only_of(&["server.max-payload"]);
    Diagnosis::configured(&server.url(), "queue.max-event = '8KiB'").complains_only_of(&[]);
}

/// What the tool's clock is told to be off by, in seconds.
#[cfg(target_os = "linux")]
const SKEW: i64 = 3600;

/// No server can be given another clock without another machine, so the tool is given one: both are only asked what time it is.
#[cfg(target_os = "linux")]
#[test]
fn clocks_that_differ_are_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let library = skewed_clock(directory.path());
    let server = server_with("");
    let mut command = command(&["doctor", "--json", "--url", &server.url()]);
    command.env("LD_PRELOAD", library);
    let diagnosis = Diagnosis::read(&command.output().expect("the tool runs"));
    diagnosis.says("clock.skew", "warning", &["60 min ahead of ours"]);
    diagnosis.complains_only_of(&["clock.skew"]);
}

/// A library by which a program's clock goes behind by [`SKEW`].
#[cfg(target_os = "linux")]
fn skewed_clock(directory: &Path) -> std::path::PathBuf {
    let (source, library) = (directory.join("skew.c"), directory.join("skew.so"));
    let text = format!(
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
         int clock_gettime(clockid_t clock, struct timespec *time) {{\n  \
         int result = (int)syscall(SYS_clock_gettime, clock, time);\n  \
         if (clock == CLOCK_REALTIME) time->tv_sec -= {SKEW};\n  return result;\n}}\n"
    );
    std::fs::write(&source, text).expect("it can be written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.expect("there is a C compiler").success());
    library
}

#[test]
fn a_password_that_goes_readable_to_another_machine_is_an_error() {
    let server = server_with_user("");
    let url = |user: &str| server.url().replace("//", &format!("//{user}"));
    let both = format!("{},{ELSEWHERE}", server.url());
    // Without the permission by name the configuration is refused.
    let allowed = "auth = { user = 'u', password = 'p' }\ntls.plaintext-credentials = true";
    let diagnosis = Diagnosis::configured(&both, allowed);
    diagnosis.says("connection.tls", "error", &[ELSEWHERE, "password"]);
    Diagnosis::of(&both).says("connection.tls", "note", &[ELSEWHERE]);
    let diagnosis = Diagnosis::of(&format!("{},tls://{ELSEWHERE}", url("u:p@")));
    diagnosis.says("connection.tls", "ok", &[]);
    let diagnosis = Diagnosis::of(&url("u:p@"));
    diagnosis.says("connection.tls", "ok", &[]);
}

#[test]
fn a_password_in_the_url_is_found_and_not_shown() {
    let server = NatsServer::builder().config("authorization { user: u, password: hunter2 }").start();
    let url = server.url().replace("//", "//u:hunter2@");
    let output = jetring(&["doctor", "--json", "--url", &url, "-vv"], "");
    let diagnosis = Diagnosis::read(&output);
    diagnosis.says("auth.url", "warning", &["password"]);
    assert!(!stdout(&output).contains("hunter2") && !stderr(&output).contains("hunter2"));
}

#[test]
fn a_file_with_a_secret_that_everybody_can_read_is_found() {
    let server = server_with_user("permissions: {}");
    let secret = file("p\n");
    let with_mode = |mode: u32| {
        std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
        let lines = format!("auth = {{ user = 'u', password-file = '{}' }}", path(&secret));
        Diagnosis::configured(&server.url(), &lines)
    };
    with_mode(0o644).says("auth.file", "warning", &[path(&secret), "0644"]);
    with_mode(0o600).says("auth.file", "ok", &["0600"]);
    let diagnosis = Diagnosis::configured(&server.url(), "auth.creds = '/nonexistent.creds'");
    diagnosis.says("auth.file", "error", &["/nonexistent.creds"]);
    // A configuration with the password in it is such a file, too; without it, it is none.
    let config = file("[event-bus]\nchain-id = 1\nauth = { user = 'u', password = 'p' }\n");
    std::fs::set_permissions(config.path(), std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let diagnosis = Diagnosis::with(&server.url(), &["--config", path(&config)]);
    diagnosis.says("auth.file", "warning", &[path(&config)]);
}

#[test]
fn a_stream_that_is_missing_is_found_among_those_of_the_partitions() {
    let server = NatsServer::start();
    Diagnosis::of(&server.url()).says("stream.exists", "error", &["no such stream"]);
    let first = stream::Config {
        subjects: vec!["event.1.0.>".to_owned()],
        name: "main-0".to_owned(),
        ..good_stream()
    };
    ask(create_stream(&server.url(), first.clone()));
    let diagnosis = Diagnosis::with(&server.url(), &["--partitions", "2"]);
    assert_eq!(diagnosis.says("stream.exists", "error", &[])["streams"], serde_json::json!(["main-1"]));
    let second =
        stream::Config { subjects: vec!["event.1.1.>".to_owned()], name: "main-1".to_owned(), ..first };
    ask(create_stream(&server.url(), second));
    let diagnosis = Diagnosis::with(&server.url(), &["--partitions", "2"]);
    diagnosis.complains_only_of(&[]);
    let both = serde_json::json!(["main-0", "main-1"]);
    assert_eq!(diagnosis.says("stream.storage", "ok", &[])["streams"], both);
}

#[test]
fn subjects_that_the_stream_does_not_take_are_named() {
    let (_server, diagnosis) = stream_with(|config| config.subjects = vec!["event.2.>".to_owned()]);
    diagnosis.says("stream.subjects", "error", &["event.2.>", "no subject of event.1.>"]);
    let (server, diagnosis) = stream_with(|config| config.subjects = vec!["event.1.*".to_owned()]);
    diagnosis.says("stream.subjects", "warning", &["event.1._bus.gap"]);
    let diagnosis = Diagnosis::with(&server.url(), &["orders", "orders.filled"]);
    diagnosis.says("stream.subjects", "error", &["not event.1.orders.filled"]);
}

#[test]
fn a_stream_that_takes_or_acknowledges_nothing_is_found() {
    let server = server_with_stream();
    ask(async {
        let context = jetstream::new(connect(&server.url()).await);
        let mut config = context.get_stream(STREAM).await.expect("it is there").cached_info().config.clone();
        config.sealed = true;
        context.update_stream(config).await.expect("the server seals it");
    });
    let diagnosis = Diagnosis::of(&server.url());
    diagnosis.says("stream.sealed", "error", &["sealed"]);
    diagnosis.says("permission.publish", "error", &["would refuse"]);
    let (_server, diagnosis) = stream_with(|config| config.no_ack = true);
    diagnosis.complains_only_of(&["stream.no-ack"]);

    let server = NatsServer::start();
    let source = stream::Config { name: "source".to_owned(), ..good_stream() };
    ask(create_stream(&server.url(), source));
    let mirror = stream::Source { name: "source".to_owned(), ..Default::default() };
    let mirror = stream::Config { name: STREAM.to_owned(), mirror: Some(mirror), ..Default::default() };
    ask(create_stream(&server.url(), mirror));
    let diagnosis = Diagnosis::of(&server.url());
    diagnosis.says("stream.mirror", "error", &["mirror"]);
    diagnosis.says("permission.publish", "error", &["would be stored by the stream source"]);
}

#[test]
fn the_engine_is_named_and_one_that_cannot_be_used_is_an_error() {
    let (server, diagnosis) = stream_with(|config| config.allow_batch_publish = false);
    diagnosis.says("stream.engine", "note", &["async", "does not allow batches"]);
    diagnosis.complains_only_of(&[]);
    let diagnosis = Diagnosis::configured(&server.url(), "delivery.mode = 'fast'");
    diagnosis.says("stream.engine", "error", &["allow_batched"]);
    diagnosis.complains_only_of(&["stream.engine"]);
}

#[test]
fn too_few_replicas_in_a_cluster_are_found_and_one_that_is_away() {
    let routes: Vec<Reserved> = (0..3).map(|_| NatsServer::reserve()).collect();
    let all: Vec<_> = routes.iter().map(|route| format!("{:?}", route.url())).collect();
    let start = |(at, route): (usize, &Reserved)| {
        let (port, all) = (route.port(), all.join(", "));
        let cluster = format!(
            "server_name: n{at}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{all}] }}"
        );
        NatsServer::builder().config(cluster).start_without_waiting(NatsServer::reserve())
    };
    let mut servers: Vec<NatsServer> = routes.iter().enumerate().map(start).collect();
    servers.iter_mut().for_each(NatsServer::wait_until_ready);
    let url = servers[0].url();
    ask(create_stream(&url, good_stream()));
    let diagnosis = Diagnosis::of(&url);
    diagnosis.says("server.reach", "ok", &["of cluster c"]);
    diagnosis.says("stream.replicas", "warning", &["one copy in a cluster"]);
    diagnosis.says("permission.publish", "ok", &["would be stored"]);

    ask(async {
        let context = jetstream::new(connect(&url).await);
        let config = stream::Config { num_replicas: 3, ..good_stream() };
        context.update_stream(config).await.expect("there are three servers");
    });
    let says = |severity: &str| {
        Diagnosis::of(&url)
            .findings
            .iter()
            .any(|finding| finding["id"] == "stream.replicas" && finding["severity"] == severity)
    };
    wait_at_most(ELECTION, "there are three replicas, all current", || says("ok"));
    // Two of them are not the leader: they pass the message on, and the trace comes from another server than they are.
    for server in &servers {
        Diagnosis::of(&server.url()).says("permission.publish", "ok", &["would be stored"]);
    }
    // One that does not lead the stream: that there is no leader is another finding.
    let leader = ask(async {
        let context = jetstream::new(connect(&url).await);
        let stream = context.get_stream(STREAM).await.expect("it is there");
        stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone())
    });
    let follower = if leader.as_deref() == Some("n2") { 1 } else { 2 };
    servers[follower].kill();
    wait_at_most(ELECTION, "the replica that is away is found", || says("warning"));
}

#[test]
fn a_stream_in_memory_and_one_that_is_written_later_are_found() {
    let (_server, diagnosis) = stream_with(|config| config.storage = stream::StorageType::Memory);
    diagnosis.says("stream.storage", "warning", &["in memory"]);
    diagnosis.complains_only_of(&["stream.storage"]);
    let (_server, diagnosis) =
        stream_with(|config| config.persist_mode = Some(stream::PersistenceMode::Async));
    diagnosis.says("stream.persist-mode", "warning", &["async"]);
    diagnosis.says("stream.ack", "note", &["received by one server"]);
    diagnosis.complains_only_of(&["stream.persist-mode"]);
}

#[test]
fn what_an_acknowledgement_is_worth_is_told_where_it_can_be_seen() {
    let (server, monitor, port) = monitored("");
    ask(create_stream(&server.url(), good_stream()));
    Diagnosis::of(&server.url()).says("stream.ack", "note", &["not visible to clients"]);
    let diagnosis = Diagnosis::with(&server.url(), &["--monitor", &monitor]);
    diagnosis.says("stream.ack", "note", &["at the latest 2 min later"]);
    drop(server);
    let server = server_with("");
    let nobody = format!("http://127.0.0.1:{}", port.port());
    let diagnosis = Diagnosis::with(&server.url(), &["--monitor", &nobody]);
    diagnosis.complains_only_of(&["stream.ack"]);
}

#[test]
fn a_stream_that_consumers_empty_is_found() {
    let (_server, diagnosis) = stream_with(|config| config.retention = stream::RetentionPolicy::Interest);
    diagnosis.complains_only_of(&["stream.retention"]);
    let (_server, diagnosis) = stream_with(|config| config.retention = stream::RetentionPolicy::WorkQueue);
    diagnosis.complains_only_of(&["stream.retention"]);
}

#[test]
fn a_stream_that_refuses_when_full_is_a_warning_and_when_it_is_full_an_error() {
    let (server, diagnosis) = stream_with(|config| {
        config.max_messages = 5;
        config.discard = stream::DiscardPolicy::New;
    });
    diagnosis.says("stream.discard", "warning", &["0 of 5 messages"]);
    publish_raw(&server.url(), "event.1.a", 5, 10);
    let diagnosis = Diagnosis::of(&server.url());
    diagnosis.says("stream.discard", "error", &["it is full (5 of 5 messages)"]);
    assert_eq!(ask(stream_state(&server.url(), STREAM)).messages, 5);
}

#[test]
fn how_long_the_limits_last_is_told_from_what_the_stream_has_seen() {
    let server = NatsServer::start();
    let url = server.url();
    ask(create_stream(&url, stream::Config { max_bytes: 4 << 20, ..good_stream() }));
    Diagnosis::of(&url).says(
        "stream.limits",
        "note",
        &["max_age 7 days, max_bytes 4 MiB", "too little to tell"],
    );
    assert_status(&jetring(&["demo", "--url", &url, "--rate", "500", "--seconds", "2"], ""), 0);
    let diagnosis = Diagnosis::of(&url);
    let finding = diagnosis.says("stream.limits", "warning", &["it goes back", "a second so far"]);
    // Some 500 events of 460 bytes a second make 4 MiB in 18 s; a busy machine may have made them late.
    let what = finding["what"].as_str().expect("a text");
    let seconds = what.split("goes back ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number");
    let seconds: f64 = seconds.parse().unwrap_or_else(|_| panic!("{what}"));
    assert!((9.0..60.0).contains(&seconds) && what.contains(" s ("), "{what}");

    let (_server, diagnosis) = stream_with(|config| config.max_age = Duration::ZERO);
    diagnosis.says("stream.limits", "note", &["no limits"]);
    let (_server, diagnosis) = stream_with(|config| config.max_age = Duration::from_secs(600));
    diagnosis.says("stream.limits", "warning", &["10 min"]);
    let (_server, diagnosis) = stream_with(|config| config.max_messages_per_subject = 1);
    diagnosis.says("stream.limits", "warning", &["1 messages of each subject"]);
}

#[test]
fn a_stream_whose_messages_are_smaller_than_ours_is_found() {
    let (server, diagnosis) = stream_with(|config| config.max_message_size = 16 << 10);
    diagnosis.says("stream.max-msg-size", "warning", &["16 KiB", "queue.max-event (64 KiB)"]);
    diagnosis.complains_only_of(&["stream.max-msg-size"]);
    Diagnosis::configured(&server.url(), "queue.max-event = '8KiB'").complains_only_of(&[]);
}

#[test]
fn a_duplicate_window_that_is_shorter_than_our_deadlines_is_found() {
    let (server, diagnosis) = stream_with(|config| config.duplicate_window = Duration::from_secs(6));
    diagnosis.says("stream.duplicate-window", "warning", &["is 6 s", "delivery.ack-timeout 5 s"]);
    diagnosis.complains_only_of(&["stream.duplicate-window"]);
    Diagnosis::configured(&server.url(), "delivery.ack-timeout = '1s'").complains_only_of(&[]);
}

#[test]
fn a_stream_that_changes_subjects_is_found() {
    let (_server, diagnosis) = stream_with(|config| {
        let (source, destination) = ("event.1.>".to_owned(), "stored.>".to_owned());
        config.subject_transform = Some(stream::SubjectTransform { source, destination });
    });
    diagnosis.complains_only_of(&["stream.transform"]);
}

/// A server whose user `u` with the password `p` has these settings. Who does not say who it is may do everything.
fn server_with_user(settings: &str) -> NatsServer {
    server_with(&format!(
        "authorization {{ users: [{{user: all, password: all}}, {{user: u, password: p, {settings}}}] }}\nno_auth_user: all"
    ))
}

/// What is found of a user that may publish and subscribe to these.
#[track_caller]
fn permitted(permissions: &str, args: &[&str]) -> Diagnosis {
    let server = server_with_user(&format!("permissions: {{ {permissions} }}"));
    let mut command = command(&[&["doctor", "--json", "--url", &server.url()], args].concat());
    command.env("NATS_USER", "u").env("NATS_PASSWORD", "p");
    let diagnosis = Diagnosis::read(&command.output().expect("the tool runs"));
    assert_eq!(ask(stream_state(&server.url(), STREAM)).last_sequence, 0);
    diagnosis
}

#[test]
fn a_denied_publish_is_found_without_one() {
    let diagnosis = permitted("publish: { deny: \"event.1.>\" }", &[]);
    diagnosis.says("permission.publish", "error", &["event.1.doctor, event.1._bus.started"]);
    diagnosis.complains_only_of(&["permission.publish"]);
    let diagnosis = permitted("publish: { deny: \"event.1._bus.>\" }", &[]);
    diagnosis.says("permission.publish", "warning", &["event.1._bus.gap"]);
    let some = "publish: [\"$JS.API.>\", \"_INBOX.>\", \"event.1.orders\", \"event.1._bus.>\"]";
    permitted(some, &[]).says("permission.publish", "warning", &["denied for event.1.doctor"]);
    permitted(some, &["orders"]).complains_only_of(&[]);
    permitted(some, &["orders", "trades"]).says(
        "permission.publish",
        "error",
        &["denied for event.1.trades"],
    );
}

#[test]
fn where_the_server_does_not_show_it_a_publish_is_not_tried() {
    let diagnosis = permitted("publish: [\"event.1.>\", \"$JS.API.>\"], subscribe: \"_INBOX.>\"", &[]);
    diagnosis.says("permission.publish", "note", &["was not tried", "_INBOX.>"]);
    diagnosis.complains_only_of(&[]);
}

#[test]
fn what_one_may_not_read_or_ask_is_found() {
    let diagnosis = permitted("publish: { deny: \"$JS.API.STREAM.MSG.GET.>\" }", &[]);
    diagnosis.complains_only_of(&["permission.read-back"]);
    let diagnosis = permitted("publish: { deny: \"$JS.API.CONSUMER.>\" }", &[]);
    diagnosis.says("permission.consume", "note", &["may not consume"]);
    diagnosis.complains_only_of(&[]);
    let diagnosis = permitted("publish: { deny: \"$JS.API.STREAM.INFO.>\" }", &[]);
    diagnosis.says("stream.exists", "warning", &["permission to ask"]);
    diagnosis.complains_only_of(&["stream.exists"]);
    let diagnosis = permitted("publish: { deny: \"$JS.API.INFO\" }", &[]);
    diagnosis.says("account.jetstream", "note", &["cannot be asked"]);
    diagnosis.complains_only_of(&[]);
    let diagnosis = permitted("subscribe: { deny: \"_INBOX.>\" }", &[]);
    diagnosis.says("account.jetstream", "error", &["_INBOX.>"]);
}

#[test]
fn a_consumer_is_neither_made_nor_asked() {
    let server = server_with("");
    ask(async {
        let context = jetstream::new(connect(&server.url()).await);
        let stream = context.get_stream(STREAM).await.expect("it is there");
        let config = consumer::pull::Config { durable_name: Some("doctor".to_owned()), ..Default::default() };
        stream.create_consumer(config).await.expect("it is made");
    });
    publish_raw(&server.url(), "event.1.a", 1, 10);
    Diagnosis::of(&server.url()).complains_only_of(&[]);
    ask(async {
        let context = jetstream::new(connect(&server.url()).await);
        let stream = context.get_stream(STREAM).await.expect("it is there");
        let mut consumer: consumer::PullConsumer = stream.get_consumer("doctor").await.expect("it is there");
        let info = consumer.info().await.expect("it tells");
        assert_eq!((info.num_pending, info.delivered.consumer_sequence), (1, 0));
        assert_eq!(stream_state(&server.url(), STREAM).await.consumer_count, 1);
    });
}

#[test]
fn what_cannot_be_examined_leaves_standard_output_empty() {
    for (args, status) in [
        (["doctor", "--url", "null:"].as_slice(), 2),
        (&["doctor", "--create-stream"], 2),
        (&["doctor", "a b"], 2),
        (&["doctor", "--url", "http://a"], 78),
    ] {
        let output = jetring(args, "");
        assert_status(&output, status);
        assert_eq!(stdout(&output), "", "{args:?}");
    }
    assert_refused(&["doctor", "--create-stream"], 2, &["doctor changes nothing"]);
}
