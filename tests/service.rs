//! `examples/service.rs` as one runs it: requests, metrics, a stop by a signal, and what the stream holds of it.

#![allow(unsafe_code, reason = "the standard library sends no signals")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jetring::Stats;
use jetring::audit::Audit;
use jetring::envelope::Envelope;
use serde_json::Value;

#[path = "it/server.rs"]
mod server;

use server::{NatsServer, create_stream, messages, stream_config, wait_until};

/// `shutdown.timeout` of the service where it is not going to deliver everything, and far more than it needs besides on a busy machine: only
/// a service that hangs takes so long.
const TIMEOUT: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_secs(30);

#[test]
fn a_service_that_is_stopped_under_load_has_delivered_every_event_of_every_request() {
    let server = server_with_stream();
    let service = Service::start(&server.url());
    let answer = service.get("/quote?sell=WETH&buy=USDC&amount=1000", Some("q-17")).unwrap();
    assert_eq!((answer.status, answer.json()["outAmount"].as_u64()), (200, Some(2_999_250)));
    assert_eq!(service.get("/quote?sell=WETH&buy=DOGE&amount=1", None).unwrap().status, 404);

    let enough = AtomicBool::new(false);
    let (answered, (status, balance)) = thread::scope(|scope| {
        let ask = || {
            let mut answered = 0u64;
            while !enough.load(Ordering::Relaxed) {
                let Some(answer) = service.get("/quote?sell=DAI&buy=USDC&amount=5", None) else { break };
                assert_eq!(answer.status, 200);
                answered += 1;
            }
            answered
        };
        let clients = [scope.spawn(ask), scope.spawn(ask)];
        wait_until("events are acknowledged", || service.metric("event_bus_acked_events_total") > 200.0);
        let ended = service.end_by(libc::SIGTERM);
        enough.store(true, Ordering::Relaxed);
        (clients.map(|client| client.join().unwrap()).iter().sum::<u64>(), ended)
    });
    assert!(status.success(), "{status}: {balance:?}");
    // Two events for each answer, and perhaps for requests whose answer did not come through any more.
    assert_eq!((balance.acked, balance.held()), (balance.offered, 0));
    assert!(balance.acked >= 2 * (answered + 2), "{balance:?}, {answered} answers");

    let stored = ask(messages(&server.url(), "main"));
    let mut audit = Audit::new(true);
    stored.iter().for_each(|(_, _, message)| audit.observe(message));
    let verdict = audit.verdict();
    assert!(verdict.is_sound() && verdict.duplicates == 0 && audit.has_stopped(), "{verdict:?}");
    assert_eq!(verdict.delivered, balance.acked);
    let of_request: Vec<_> = stored
        .iter()
        .filter(|(_, _, message)| Envelope::parse(message).unwrap().request_id.as_deref() == Some("q-17"))
        .map(|(_, subject, _)| subject.as_str())
        .collect();
    assert_eq!(of_request, ["event.1.quoteRequested", "event.1.quoteComputed"]);
}

#[test]
fn a_service_whose_server_is_away_answers_requests_and_ends_in_time_with_the_truth() {
    for trouble in [None, Some(server_with_stream())] {
        let url = trouble.as_ref().map_or_else(|| "nats://127.0.0.1:1".to_owned(), NatsServer::url);
        let service = Service::start(&url);
        if let Some(server) = &trouble {
            wait_until("it is connected", || service.metric("event_bus_connected") == 1.0);
            server.pause();
        }
        for _ in 0..20 {
            assert_eq!(service.get("/quote?sell=WETH&buy=USDC&amount=7", None).unwrap().status, 200);
        }
        let start = Instant::now();
        let (status, balance) = service.end_by(libc::SIGINT);
        assert!(start.elapsed() < TIMEOUT + SLACK, "{:?}", start.elapsed());
        if let Some(server) = &trouble {
            server.resume();
        }
        assert_eq!((status.code(), balance.offered, balance.acked, balance.held()), (Some(1), 40, 0, 0));
    }
}

/// A client that never reads its answer, and one that never asks.
#[test]
fn clients_that_do_nothing_keep_no_service_from_its_end() {
    let server = server_with_stream();
    let service = Service::start(&server.url());
    let mut silent = TcpStream::connect(&service.address).unwrap();
    write!(silent, "GET /quote?sell=WETH&buy=USDC&amount=7 HTTP/1.1\r\nHost: ").unwrap();
    let _idle = TcpStream::connect(&service.address).unwrap();
    assert_eq!(service.get("/metrics", None).unwrap().status, 200);
    let start = Instant::now();
    let (status, balance) = service.end_by(libc::SIGTERM);
    assert!(start.elapsed() < TIMEOUT + SLACK, "{:?}", start.elapsed());
    assert!(status.success(), "{status}: {balance:?}");
}

// ---- a running service --------------------------------------------------------------------------------------------------

/// It ends with the test at the latest.
struct Service {
    process: std::sync::Mutex<Running>,
    address: String,
}

struct Running {
    process: Child,
    talk: BufReader<ChildStderr>,
}

impl Service {
    fn start(url: &str) -> Self {
        let mut command = Command::new(example());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("JETRING_EVENT_BUS")) {
            command.env_remove(name);
        }
        command
            .env("LISTEN", "127.0.0.1:0")
            .env("JETRING_EVENT_BUS__URL", url)
            .env("JETRING_EVENT_BUS__CHAIN_ID", "1")
            .env("JETRING_EVENT_BUS__SHUTDOWN__TIMEOUT", format!("{}ms", TIMEOUT.as_millis()))
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut talk = BufReader::new(process.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(talk.read_line(&mut line).unwrap() > 0, "it has ended before it listened");
            // The log of the bus comes between.
            if let Some(address) = line.trim_end().strip_prefix("listening at http://") {
                break address.to_owned();
            }
        };
        Self { process: Running { process, talk }.into(), address }
    }

    /// Asks for a page; none if the service takes no requests any more.
    fn get(&self, path: &str, request_id: Option<&str>) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let id = request_id.map(|id| format!("X-Request-Id: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n{id}Connection: close\r\n\r\n", self.address)
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, body: body.to_owned() })
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics", None).unwrap().body;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    /// Sends the signal, and returns how the service ended and the balance that it printed last.
    fn end_by(&self, signal: i32) -> (ExitStatus, Stats) {
        let mut running = self.process.lock().unwrap();
        // SAFETY: `kill` takes two numbers and touches no memory; the child is ours and is not waited for yet.
        assert_eq!(unsafe { libc::kill(running.process.id() as i32, signal) }, 0);
        let mut talk = String::new();
        running.talk.read_to_string(&mut talk).unwrap();
        let status = running.process.wait().unwrap();
        let last = talk.lines().last().unwrap_or_default();
        let balance: Stats = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {talk}"));
        assert_eq!(balance.check(), Ok(()));
        (status, balance)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Cargo builds examples beside tests and names their place to nobody.
fn example() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples/service");
    assert!(path.exists(), "{} is not there: cargo build --example service", path.display());
    path
}

fn server_with_stream() -> NatsServer {
    let server = NatsServer::start();
    ask(create_stream(&server.url(), stream_config("main", &["event.1.>"])));
    server
}

fn ask<T>(question: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(question)
}
