//! The server, the way to it, the account there, and the clocks.

use super::finding::Finding;
use super::gather::Facts;
use super::quantity;
use jetring::nats::inspect::{AccountFacts, Clocks, NoAnswer, ServerFacts};
use jetring::{Config, Mode};
use std::time::{Duration, SystemTime};

/// The oldest server that delivery is tested with.
const OLDEST: (u32, u32, u32) = (2, 10, 0);

/// Bytes of an event beside its body, at most: the envelope with a producer, a number, and a request id of 256 bytes.
const ENVELOPE_BYTES_MAX: usize = 512;

/// Bytes of the headers of a message, at most.
const HEADER_BYTES_MAX: usize = 192;

/// Messages a second that a window should let through; more than a stream takes one by one.
const MESSAGES_PER_SECOND: f64 = 50_000.0;

/// An offset between two clocks from which on timestamps of events and of the stream contradict each other visibly.
const SKEW_MAX: Duration = Duration::from_secs(1);

/// A part of the account's storage from which on it is nearly full.
const NEARLY_FULL: f64 = 0.9;

/// The largest message that a bus with this configuration may need for an event, headers included. Packed frames are cut to what is taken.
pub(super) fn message_bytes_max(config: &Config) -> usize {
    config.queue.max_event + ENVELOPE_BYTES_MAX + HEADER_BYTES_MAX
}

pub(super) fn examine(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut findings = reach(facts);
    let Some(server) = facts.server() else { return findings };
    findings.extend(round_trip(config, facts));
    findings.push(version(config, server));
    findings.push(max_payload(config, server));
    findings.extend(facts.account.as_ref().map(account));
    findings.extend(clock(facts));
    findings
}

fn reach(facts: &Facts) -> Vec<Finding> {
    const ID: &str = "server.reach";
    let reached = facts.server().is_some();
    let one = |(address, server): &(String, Result<ServerFacts, String>)| match server {
        Ok(ServerFacts { name, version, cluster, .. }) => {
            let cluster =
                cluster.as_ref().map(|cluster| format!(" of cluster {cluster}")).unwrap_or_default();
            let name = if name.is_empty() { String::new() } else { format!(", {name}") };
            Finding::ok(ID, format!("{address} is nats-server {version}{name}{cluster}"))
        }
        Err(error) if is_about_credentials(error) => Finding::error(
            ID,
            format!("{address} refuses the credentials: {error}"),
        )
        .why("there is no connection; events wait in the queue, and are shed when it is full")
        .remedy("look at auth in the configuration (or NATS_USER, NATS_CREDS, …) and at the server's users"),
        Err(error) if reached => Finding::warning(ID, format!("{address} cannot be reached: {error}"))
            .why("when the other servers fail, there is one less to go to")
            .remedy("start it, or take it out of url"),
        Err(error) => Finding::error(ID, format!("{address} cannot be reached: {error}"))
            .why("there is no connection; events wait in the queue, and are shed when it is full")
            .remedy("look at url, at the server and at what is between; nothing else could be looked at"),
    };
    facts.servers.iter().map(one).collect()
}

fn is_about_credentials(error: &str) -> bool {
    error.to_ascii_lowercase().contains("authorization violation")
}

fn round_trip(config: &Config, facts: &Facts) -> Option<Finding> {
    const ID: &str = "server.round-trip";
    let (middle, shortest) = (facts.round_trip()?, facts.round_trips.first()?);
    let longest = facts.round_trips.last()?;
    let what = format!(
        "JetStream answers within {} (middle of {}; {} to {})",
        quantity::time(middle),
        facts.round_trips.len(),
        quantity::time(*shortest),
        quantity::time(*longest)
    );
    let timeout = config.delivery.ack_timeout;
    if *longest * 4 > timeout {
        return Some(
            Finding::warning(ID, format!("{what}, and delivery.ack-timeout is {}", quantity::time(timeout)))
                .why("an acknowledgement that is only late is taken for a lost one: the event is looked for in the stream and sent again")
                .remedy("raise delivery.ack-timeout to ten round trips or more, or find out what is slow"),
        );
    }
    let window = config.delivery.max_in_flight;
    let per_second = window as f64 / middle.as_secs_f64();
    if per_second < MESSAGES_PER_SECOND {
        let per_second = quantity::number(per_second);
        return Some(
            Finding::note(ID, format!("{what}: no more than {per_second} messages a second get through"))
                .why(format!(
                    "delivery.max-in-flight is {window}, and each message is in flight for a round trip"
                ))
                .remedy("raise it if that is too little, or set delivery.framing = \"packed\""),
        );
    }
    Some(Finding::ok(ID, what))
}

fn version(config: &Config, server: &ServerFacts) -> Finding {
    const ID: &str = "server.version";
    let version = &server.version;
    if !server.is_at_least(OLDEST) {
        return Finding::error(ID, format!("nats-server {version} is older than 2.10"))
            .why("delivery is tested from 2.10 on; what older ones answer was never looked at")
            .remedy("update the server");
    }
    if !server.has_fast_ingest() && config.delivery.mode != Mode::Async {
        return Finding::note(
            ID,
            format!("nats-server {version} has no fast-ingest batches that can be relied on"),
        )
        .why("each message is published and acknowledged by itself, which costs server and client more")
        .remedy("update to 2.14.3 or later");
    }
    Finding::ok(
        ID,
        format!(
            "nats-server {version}{}",
            if server.has_fast_ingest() { " has fast-ingest batches" } else { "" }
        ),
    )
}

fn max_payload(config: &Config, server: &ServerFacts) -> Finding {
    const ID: &str = "server.max-payload";
    let (max, needed) = (server.max_payload, message_bytes_max(config));
    let what = format!("max_payload is {}", quantity::bytes(max as f64));
    if max < needed {
        let event = quantity::bytes(config.queue.max_event as f64);
        return Finding::warning(
            ID,
            format!(
                "{what}; an event of queue.max-event ({event}) may need {}",
                quantity::bytes(needed as f64)
            ),
        )
        .why("larger events are accepted, and dropped later as too_large: who published them is not told")
        .remedy("raise max_payload in the server's configuration, or lower queue.max-event");
    }
    Finding::ok(ID, format!("{what}, and no message is larger than {}", quantity::bytes(needed as f64)))
}

fn account(account: &Result<AccountFacts, NoAnswer>) -> Finding {
    const ID: &str = "account.jetstream";
    let account = match account {
        Ok(account) => account,
        Err(NoAnswer::NoJetStream) => {
            return Finding::error(ID, "JetStream is not enabled, in the server or for this account")
                .why("nothing can be stored or acknowledged")
                .remedy("enable it: jetstream {} in the server's configuration, or jetstream: enabled in the account's");
        }
        Err(NoAnswer::Deaf) => {
            return Finding::error(ID, "permission to subscribe to _INBOX.> is denied")
                .why("acknowledgements come to an inbox; without it nothing is ever known to be stored")
                .remedy("allow this user to subscribe to _INBOX.>");
        }
        Err(NoAnswer::Denied) => {
            return Finding::note(
                ID,
                "whether JetStream is enabled cannot be asked ($JS.API.INFO is denied)",
            )
            .why("publishing does not need it; the account's limits and the round trip stay unknown here")
            .remedy("allow this user to publish to $JS.API.INFO, if doctor shall tell");
        }
        Err(error) => {
            return Finding::error(ID, format!("JetStream does not answer: {error}"))
                .why("nothing can be stored or acknowledged while it does not")
                .remedy("look at the server's log; a cluster needs most of its servers");
        }
    };
    let kinds = [
        ("file storage", account.storage, account.storage_max),
        ("memory storage", account.memory, account.memory_max),
    ];
    for (kind, used, max) in kinds {
        let Some(max) = max else { continue };
        if used as f64 >= NEARLY_FULL * max as f64 {
            let what = format!(
                "the account uses {} of its {} of {kind}",
                quantity::bytes(used as f64),
                quantity::bytes(max as f64)
            );
            return Finding::warning(ID, what)
                .why("when it is full, all its streams refuse what comes: events wait in the queue, and are shed when that is full")
                .remedy("raise the account's limit, or have its streams hold less");
        }
    }
    let used = quantity::bytes(account.storage as f64);
    let max = account
        .storage_max
        .map_or_else(|| "no limit".to_owned(), |max| format!("at most {}", quantity::bytes(max as f64)));
    Finding::ok(ID, format!("JetStream is enabled; the account has {used} in files, {max}"))
}

/// The clock as the first stream's leader told it.
fn clock(facts: &Facts) -> Option<Finding> {
    const ID: &str = "clock.skew";
    let clocks = facts.streams.iter().find_map(|sight| sight.answer.as_ref().ok()?.1)?;
    let Clocks { server, ours, within, .. } = clocks;
    let (offset, is_ahead) = offset(server, ours);
    let what = if offset <= within {
        format!("the server's clock and ours agree within {}", quantity::time(within))
    } else {
        let direction = if is_ahead { "ahead of" } else { "behind" };
        format!(
            "the server's clock is {} {direction} ours (± {})",
            quantity::time(offset),
            quantity::time(within)
        )
    };
    if offset.saturating_sub(within) < SKEW_MAX {
        return Some(Finding::ok(ID, what));
    }
    Some(
        Finding::warning(ID, what)
            .why("events bear the time of this machine, the stream that of the server: joined with other data, or read by time, they will not fit")
            .remedy("set both by NTP or PTP"),
    )
}

fn offset(server: SystemTime, ours: SystemTime) -> (Duration, bool) {
    match server.duration_since(ours) {
        Ok(ahead) => (ahead, true),
        Err(error) => (error.duration(), false),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn config() -> Config {
        Config::new("nats://localhost:4222", "main", 1).unwrap()
    }

    #[test]
    fn versions_are_too_old_old_and_new() {
        let severity = |version: &str| {
            let mut server = ServerFacts::default();
            server.version = version.to_owned();
            super::version(&config(), &server).severity
        };
        assert_eq!(severity("2.9.25"), Severity::Error);
        assert_eq!(["2.10.0", "2.14.2"].map(severity), [Severity::Note; 2]);
        assert_eq!(["2.14.3", "2.15.1"].map(severity), [Severity::Ok; 2]);
    }

    #[test]
    fn clocks_are_ahead_or_behind_and_the_way_there_is_no_skew() {
        let now = SystemTime::now();
        assert_eq!(offset(now + SKEW_MAX, now), (SKEW_MAX, true));
        assert_eq!(offset(now - SKEW_MAX, now), (SKEW_MAX, false));
    }

    #[test]
    fn an_account_is_off_silent_or_nearly_full() {
        let severity = |storage: u64, max: Option<u64>| {
            let mut account = AccountFacts::default();
            (account.storage, account.storage_max) = (storage, max);
            super::account(&Ok(account)).severity
        };
        assert_eq!(severity(89, Some(100)), Severity::Ok);
        assert_eq!(severity(90, Some(100)), Severity::Warning);
        assert_eq!(severity(90, None), Severity::Ok);
        for error in [NoAnswer::NoJetStream, NoAnswer::Silent, NoAnswer::Deaf] {
            assert_eq!(super::account(&Err(error)).severity, Severity::Error);
        }
    }
}
