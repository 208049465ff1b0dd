//! Which servers there are, and connecting to the first one that answers.
//!
//! A server of a cluster names the others in its INFO. That list may be long and stale: a cut with 63 dead addresses in it once took 126 s,
//! since each was tried for 2 s, one after the other. Three rules against it:
//!
//! - Servers that are configured, or were connected before, come before those that are only named.
//! - The newest INFO replaces what older ones named.
//! - Attempts overlap, as in RFC 8305 ("Happy Eyeballs"): when an attempt fails, or has had its head start, the next begins. The first
//!   connection wins, and the other attempts are given up. All have begun after [`SPREAD`], however many servers there are.
//!
//! The server that was just lost comes second. If it stopped answering, another one takes over at once; if only the connection was cut, it
//! is back after one head start.

use crate::config::{Server, Servers};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::Future;
use std::time::Duration;

/// Servers that one INFO may name, and servers that were connected, besides the configured ones.
const LEARNED_MAX: usize = 64;

/// Before the next attempt begins; the recommended value of RFC 8305, section 5.
const HEAD_START: Duration = Duration::from_millis(250);

/// All attempts begin within this time, so many servers have shorter head starts.
const SPREAD: Duration = Duration::from_secs(1);

/// Failed attempts whose errors are told; the others are counted.
const ERRORS_MAX: usize = 3;

/// The servers that a connection may go to.
#[derive(Debug)]
pub(super) struct KnownServers {
    /// Configured, and behind them those that were connected, oldest first.
    proven: Vec<Server>,
    configured: usize,
    /// Named by the newest INFO, and not proven.
    learned: Vec<Server>,
    /// The one whose connection ended last.
    lost: Option<Server>,
}

impl KnownServers {
    pub(super) fn new(configured: &Servers) -> Self {
        let proven: Vec<_> = configured.iter().cloned().collect();
        Self { configured: proven.len(), proven, learned: Vec::new(), lost: None }
    }

    /// Notes that a connection to this server was made.
    pub(super) fn prove(&mut self, server: &Server) {
        self.learned.retain(|learned| !is_same(learned, server));
        if self.proven.iter().any(|proven| is_same(proven, server)) {
            return;
        }
        if self.proven.len() - self.configured == LEARNED_MAX {
            self.proven.remove(self.configured);
        }
        self.proven.push(server.clone());
    }

    /// Notes that the connection to this server ended.
    pub(super) fn lose(&mut self, server: Server) {
        self.lost = Some(server);
    }

    /// Replaces the servers that were named before by those that the connected one names now, unless they may not be `permitted`. They are
    /// reached as the connected one is, so that one without TLS cannot slip in among those with it.
    pub(super) fn learn(&mut self, from: &Server, addresses: &[String], permitted: impl Fn(&Server) -> bool) {
        self.learned.clear();
        for (host, port) in addresses.iter().filter_map(|address| parse(address)) {
            let server = Server { host, port, ..from.clone() };
            let is_known = self.proven.iter().chain(&self.learned).any(|known| is_same(known, &server));
            if !is_known && self.learned.len() < LEARNED_MAX && permitted(&server) {
                self.learned.push(server);
            }
        }
    }

    /// All of them, in the order in which they are to be tried.
    pub(super) fn in_order(&self) -> Vec<Server> {
        let mut servers: Vec<_> = self.proven.iter().chain(&self.learned).cloned().collect();
        let lost =
            self.lost.as_ref().and_then(|lost| servers.iter().position(|server| is_same(server, lost)));
        if let Some(at) = lost {
            let lost = servers.remove(at);
            servers.insert(servers.len().min(1), lost);
        }
        servers
    }
}

fn is_same(one: &Server, other: &Server) -> bool {
    (&one.host, one.port) == (&other.host, other.port)
}

fn parse(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

/// Makes attempts that overlap, in the order of the servers. Returns the first success, or why all failed.
pub(super) async fn race<T, E, F>(
    servers: &[Server],
    mut attempt: impl FnMut(Server) -> F,
) -> Result<T, String>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let head_start = HEAD_START.min(SPREAD / u32::try_from(servers.len().max(1)).unwrap_or(u32::MAX));
    let mut waiting = servers.iter();
    let mut attempts = FuturesUnordered::new();
    let mut errors = Vec::new();
    loop {
        if let Some(server) = waiting.next() {
            let address = server.address();
            let result = attempt(server.clone());
            attempts.push(async move { result.await.map_err(|error| format!("{address}: {error}")) });
        }
        let has_more = waiting.len() > 0;
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(winner) => return Ok(winner),
                Err(error) => errors.push(error),
            },
            () = tokio::time::sleep(head_start), if has_more => {}
            else => break,
        }
    }
    let untold = errors.len().saturating_sub(ERRORS_MAX);
    errors.truncate(ERRORS_MAX);
    let more = if untold > 0 { format!("; and {untold} more servers failed") } else { String::new() };
    Err(errors.join("; ") + &more)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Endpoint;
    use tokio::time::{Instant, sleep};

    /// What an address that swallows everything costs an attempt.
    const DEAD: Duration = Duration::from_secs(2);

    fn servers(urls: &str) -> Servers {
        let Endpoint::Nats(servers) = urls.parse().unwrap() else { panic!("{urls}") };
        servers
    }

    fn names(known: &KnownServers) -> Vec<String> {
        known.in_order().iter().map(|server| server.host.clone()).collect()
    }

    fn addresses(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| format!("{host}:4222")).collect()
    }

    #[test]
    fn configured_servers_come_first_and_the_newest_info_replaces_the_rest() {
        let mut known = KnownServers::new(&servers("nats://a,nats://b"));
        let a = known.in_order()[0].clone();
        known.learn(&a, &addresses(&["a", "c", "d", "c"]), |_| true);
        assert_eq!(names(&known), ["a", "b", "c", "d"]);
        known.learn(&a, &addresses(&["e", "forbidden"]), |server| server.host != "forbidden");
        assert_eq!(names(&known), ["a", "b", "e"]);
        let e = known.in_order()[2].clone();
        known.prove(&e);
        known.learn(&e, &addresses(&["f"]), |_| true);
        assert_eq!(names(&known), ["a", "b", "e", "f"]);
        known.learn(&e, &[], |_| true);
        assert_eq!(names(&known), ["a", "b", "e"]);
    }

    #[test]
    fn the_server_that_was_lost_is_tried_second() {
        let mut known = KnownServers::new(&servers("nats://a,nats://b,nats://c"));
        for (lost, order) in [(0, ["b", "a", "c"]), (1, ["a", "b", "c"]), (2, ["a", "c", "b"])] {
            let all = KnownServers::new(&servers("nats://a,nats://b,nats://c")).in_order();
            known.lose(all[lost].clone());
            assert_eq!(names(&known), order);
        }
        let mut alone = KnownServers::new(&servers("nats://a"));
        alone.lose(alone.in_order()[0].clone());
        assert_eq!(names(&alone), ["a"]);
    }

    #[test]
    fn what_is_learned_is_bounded_whatever_servers_say() {
        let mut known = KnownServers::new(&servers("nats://a"));
        let a = known.in_order()[0].clone();
        for round in 0..10 {
            let many: Vec<String> = (0..1000).map(|number| format!("h{round}-{number}:1")).collect();
            known.learn(&a, &many, |_| true);
            known.in_order().iter().for_each(|server| known.prove(server));
        }
        assert_eq!(known.in_order().len(), 1 + LEARNED_MAX);
        assert_eq!(names(&known)[0], "a");
        let odd = ["", ":", "x", "x:y", "x:99999999", ":1"].map(str::to_owned);
        known.learn(&a, &odd, |server| !server.host.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_answers_is_found_within_two_seconds_among_dead_ones() {
        for dead in [0, 1, 2, 10, 63] {
            let urls: Vec<_> = (0..dead).map(|number| format!("nats://dead{number}")).collect();
            let all = [urls, vec!["nats://alive".to_owned()]].concat().join(",");
            let all: Vec<_> = servers(&all).iter().cloned().collect();
            let start = Instant::now();
            let won = race(&all, |server| async move {
                if server.host == "alive" {
                    sleep(Duration::from_millis(500)).await;
                    return Ok(server.host);
                }
                sleep(DEAD).await;
                Err("timed out")
            });
            assert_eq!(won.await.as_deref(), Ok("alive"));
            assert!(start.elapsed() < Duration::from_secs(2), "{dead} dead: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_gives_way_at_once_and_a_fast_one_is_the_only_one_that_is_tried() {
        let all: Vec<_> = servers("nats://a,nats://b,nats://c").iter().cloned().collect();
        let (start, mut tried) = (Instant::now(), Vec::new());
        let won = race(&all, |server| {
            tried.push(server.host.clone());
            async move { if server.host == "a" { Err("refused") } else { Ok(server.host) } }
        });
        assert_eq!(won.await.as_deref(), Ok("b"));
        assert_eq!((tried, start.elapsed()), (vec!["a".to_owned(), "b".to_owned()], Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn if_all_fail_it_is_said_why_in_a_bounded_text() {
        let all: Vec<_> = servers("nats://a,nats://b,nats://c,nats://d").iter().cloned().collect();
        let start = Instant::now();
        let lost: Result<(), _> = race(&all, |_| async {
            sleep(DEAD).await;
            Err("timed out")
        })
        .await;
        let error = lost.unwrap_err();
        assert!(error.starts_with("nats://a:4222: timed out; nats://b:4222: timed out"), "{error}");
        assert!(error.ends_with("and 1 more servers failed"), "{error}");
        assert!(start.elapsed() <= DEAD + SPREAD, "{:?}", start.elapsed());
        assert!(race::<(), &str, _>(&[], |_| async { Err("") }).await.is_err());
    }
}
