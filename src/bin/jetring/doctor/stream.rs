//! A stream against the configuration: whether it takes the events, keeps them, and for how long.

use super::finding::Finding;
use super::gather::{Facts, REPORTS, Sight};
use super::monitor::Sync;
use super::quantity;
use super::server::message_bytes_max;
use crate::args;
use jetring::nats::inspect::{NoAnswer, ServerFacts, StreamFacts};
use jetring::{Config, Engine, Mode, Stream, covers};
use std::time::Duration;

/// A stream that holds less than this is too short for a reader that was away over lunch.
const HORIZON_MIN: Duration = Duration::from_secs(3600);

/// Below this a rate says nothing.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// A hundred years, in seconds.
const FOR_EVER: f64 = 3.2e9;

/// How long a connection may take to be made again.
const RECONNECT: Duration = Duration::from_secs(2);

/// Message ids in the server's memory from which on one should know of them, and what one takes, about.
const IDS_MAX: f64 = 10e6;
const ID_BYTES: f64 = 100.0;

pub(super) fn examine(
    config: &Config,
    args: &args::Doctor,
    server: &ServerFacts,
    facts: &Facts,
    sight: &Sight,
) -> Vec<Finding> {
    let name = sight.stream.name.as_str();
    let findings = match &sight.answer {
        Ok((stream, _)) => known(config, args, server, facts, &sight.stream, stream),
        Err(error) => unknown(facts, &sight.stream, error).into_iter().collect(),
    };
    findings.into_iter().map(|finding| finding.of(name)).collect()
}

fn unknown(facts: &Facts, Stream { subjects, .. }: &Stream, error: &NoAnswer) -> Option<Finding> {
    const ID: &str = "stream.exists";
    let all = subjects.all();
    Some(match error {
        NoAnswer::Missing => Finding::error(ID, "there is no such stream")
            .why("events for it wait in the queue, and are dropped as no_stream or shed")
            .remedy(format!("make it for {all}, or set stream; for development: jetring demo --create-stream")),
        NoAnswer::Denied => Finding::warning(ID, "permission to ask for the stream is denied ($JS.API.STREAM.INFO), so nothing of it was looked at")
            .why("the bus asks as well: without an answer it cannot tell a missing stream from a slow one, nor use fast-ingest in mode auto")
            .remedy("allow this user to publish to $JS.API.STREAM.INFO.<stream>, which changes nothing"),
        // Said of the account already.
        NoAnswer::NoJetStream | NoAnswer::Deaf if matches!(facts.account, Some(Err(_))) => return None,
        error => Finding::error(ID, format!("it cannot be asked for: {error}"))
            .why("without a leader a stream stores nothing")
            .remedy("look at the server's log; a cluster needs most of the stream's replicas"),
    })
}

fn known(
    config: &Config,
    args: &args::Doctor,
    server: &ServerFacts,
    facts: &Facts,
    stream: &Stream,
    is: &StreamFacts,
) -> Vec<Finding> {
    let held = format!(
        "it holds {} messages, {}",
        quantity::number(is.messages as f64),
        quantity::bytes(is.bytes as f64)
    );
    let mut findings = vec![Finding::ok("stream.exists", held)];
    findings.push(subjects(args, stream, is));
    findings.extend(closed(is));
    findings.push(engine(config, server, is));
    findings.push(replicas(server, is));
    findings.push(storage(is));
    findings.extend(persist_mode(is));
    findings.push(acknowledgement(facts, is));
    findings.extend(retention(is));
    findings.push(discard(is));
    findings.push(limits(is));
    findings.push(message_size(config, is));
    findings.push(duplicates(config, is));
    findings.extend(transform(is));
    findings
}

/// Which of the subjects that the bus uses the stream takes.
fn subjects(args: &args::Doctor, stream: &Stream, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.subjects";
    let all = stream.subjects.all();
    let takes = |subject: &str| is.subjects.iter().any(|pattern| covers(pattern, subject));
    if takes(&all) {
        return Finding::ok(ID, format!("it takes {all}"));
    }
    let has = if is.subjects.is_empty() { "nothing".to_owned() } else { is.subjects.join(", ") };
    let missing = |names: Vec<&str>| {
        let subjects = names.into_iter().map(|name| stream.subjects.subject(name));
        subjects.filter(|subject| !takes(subject)).collect::<Vec<_>>()
    };
    let events = missing(args.names.iter().map(|name| name.as_str()).collect());
    let reports = missing(REPORTS.to_vec());
    let remedy = format!("add {all} to the stream's subjects");
    if !events.is_empty() {
        return Finding::error(ID, format!("it takes {has}, and not {}", events.join(", ")))
            .why("such events are dropped as no_stream")
            .remedy(remedy);
    }
    if !is.subjects.iter().any(|pattern| overlaps(pattern, &all)) {
        return Finding::error(ID, format!("it takes {has}, and no subject of {all}"))
            .why("all events are dropped as no_stream")
            .remedy(format!(
                "{remedy}, or set chain-id, subject-prefix or partitions to what the stream is for"
            ));
    }
    if !reports.is_empty() {
        return Finding::warning(ID, format!("it takes {has}, and not {}", reports.join(", ")))
            .why("readers of the stream do not see what was lost, and events of other names than the stream takes are dropped as no_stream")
            .remedy(remedy);
    }
    if args.names.is_empty() {
        return Finding::warning(ID, format!("it takes {has}, which is not all of {all}"))
            .why("events of other names are dropped as no_stream")
            .remedy(format!(
                "{remedy}, or have the names of your events looked at: jetring doctor NAME NAME …"
            ));
    }
    Finding::ok(ID, format!("it takes {has}: all the names given, and the reports"))
}

/// Whether some subject matches both patterns.
fn overlaps(pattern: &str, other: &str) -> bool {
    let (mut left, mut right) = (pattern.split('.'), other.split('.'));
    loop {
        match (left.next(), right.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// What makes that nothing can be stored, or be known to be.
fn closed(is: &StreamFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if is.is_sealed {
        findings.push(
            Finding::error("stream.sealed", "it is sealed")
                .why("it takes nothing any more, and a seal cannot be undone: all events are dropped as rejected")
                .remedy("publish to another stream"),
        );
    }
    if is.is_mirror {
        findings.push(
            Finding::error("stream.mirror", "it is the mirror of another stream")
                .why("a mirror takes nothing from clients")
                .remedy("set stream to the one that is mirrored"),
        );
    }
    if is.is_silent {
        findings.push(
            Finding::error("stream.no-ack", "it acknowledges nothing (no_ack)")
                .why("no event is ever known to be stored: the window stays full and the queue sheds")
                .remedy("set no_ack to false"),
        );
    }
    findings
}

fn engine(config: &Config, server: &ServerFacts, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.engine";
    let mode = config.delivery.mode;
    match (server.engine(mode, is), mode) {
        (None, _) => {
            Finding::error(ID, "delivery.mode is fast, and the stream does not allow batches (allow_batched)")
                .why("nothing is sent until it does")
                .remedy("set allow_batched, or delivery.mode = \"auto\"")
        }
        (Some(Engine::Fast), Mode::Fast) if !server.has_fast_ingest() => Finding::warning(
            ID,
            format!("delivery.mode is fast, and nats-server {} is older than 2.14.3", server.version),
        )
        .why("fast-ingest batches came with 2.14.0 and were put right up to 2.14.3")
        .remedy("update the server, or set delivery.mode = \"auto\""),
        (Some(Engine::Async), Mode::Auto) if server.has_fast_ingest() => {
            Finding::note(ID, "events are published one by one (async): the stream does not allow batches")
                .why("fast-ingest batches cost server and client less for each event")
                .remedy("set allow_batched in the stream's configuration")
        }
        (Some(Engine::Async), Mode::Auto) => {
            Finding::ok(ID, "events are published one by one (async), as the server is too old for batches")
        }
        (Some(engine), _) => Finding::ok(ID, format!("the engine is {engine}")),
    }
}

fn replicas(server: &ServerFacts, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.replicas";
    if !is.replicas_behind.is_empty() {
        return Finding::warning(
            ID,
            format!(
                "of {} replicas these are offline or behind: {}",
                is.replicas,
                is.replicas_behind.join(", ")
            ),
        )
        .why("with too few of them the stream takes nothing, and what only one holds is lost with it")
        .remedy("look at these servers");
    }
    match (is.replicas, &server.cluster) {
        (0 | 1, None) => Finding::note(ID, "there is one copy, on a server that stands alone")
            .why("while it is away events wait in the queue; if its disk is lost, so is the stream")
            .remedy("where that matters: a cluster of three, and three replicas"),
        (0 | 1, Some(_)) => Finding::warning(ID, "there is one copy in a cluster of several servers")
            .why("when its server restarts nothing is stored, and when its disk is lost the stream is")
            .remedy("nats stream edit --replicas 3"),
        (2, _) => Finding::warning(ID, "there are 2 replicas")
            .why("both are needed for each message, so that the stream stops when either is away")
            .remedy("use 3"),
        (replicas, _) => Finding::ok(ID, format!("there are {replicas} replicas, all current")),
    }
}

fn storage(is: &StreamFacts) -> Finding {
    const ID: &str = "stream.storage";
    if !is.is_in_memory {
        return Finding::ok(ID, "it is in files");
    }
    Finding::warning(ID, "it is in memory")
        .why("what was acknowledged is gone when the servers that have it restart")
        .remedy("make it again with file storage; this cannot be changed")
}

fn persist_mode(is: &StreamFacts) -> Option<Finding> {
    let finding = || {
        Finding::warning("stream.persist-mode", "persist_mode is async")
            .why("an event is acknowledged before it is written: what was acknowledged is lost when the server's process dies")
            .remedy("make the stream again with persist_mode default, unless speed is worth that")
    };
    is.persists_later.then(finding)
}

/// What it is worth that an event is acknowledged.
fn acknowledgement(facts: &Facts, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.ack";
    let place = match (is.is_in_memory, is.persists_later, is.replicas) {
        (true, _, 0 | 1) => return Finding::note(ID, "acknowledged means: in the memory of one server"),
        (true, ..) => return Finding::note(ID, "acknowledged means: in the memory of most replicas"),
        (false, true, _) => return Finding::note(ID, "acknowledged means: received by one server"),
        (false, false, 0 | 1) => "by one server",
        (false, false, _) => "by most replicas",
    };
    let written = format!("acknowledged means: written to files {place}");
    let power = if is.replicas <= 1 { "it loses power" } else { "they lose power together" };
    match &facts.sync {
        Some(Ok(Sync::Always)) => Finding::ok(ID, format!("{written}, and on the disk (sync_interval: always)")),
        Some(Ok(Sync::Every(interval))) => {
            let interval = quantity::time(*interval);
            Finding::note(ID, format!("{written}; the disk has it at the latest {interval} later (sync_interval)"))
                .why(format!("if {power}, up to {interval} of acknowledged events are lost"))
                .remedy("where that matters: sync_interval: always in the server's jetstream block, which costs much throughput")
        }
        Some(Err(error)) => Finding::warning(ID, format!("{written}; the monitoring endpoint does not tell when the disk has it: {error}"))
            .why("the default is 2 minutes, in which acknowledged events are lost with the power")
            .remedy("look at --monitor"),
        None => Finding::note(ID, format!("{written}; when the disk has it is not visible to clients (sync_interval, 2 minutes by default)"))
            .why(format!("if {power}, acknowledged events of that time are lost"))
            .remedy("to see it: --monitor http://HOST:8222"),
    }
}

fn retention(is: &StreamFacts) -> Option<Finding> {
    const ID: &str = "stream.retention";
    match is.retention.as_str() {
        "interest" => Some(
            Finding::warning(ID, "retention is interest: what no consumer waits for is not kept")
                .why("an event is acknowledged and not stored while no consumer exists; verify cannot prove anything then")
                .remedy("use retention limits"),
        ),
        "workqueue" => Some(
            Finding::warning(ID, "retention is workqueue: a message is removed when a consumer has acknowledged it")
                .why("there can be one reader only, verify sees what is left, and after a lost connection some events end as indeterminate")
                .remedy("use retention limits"),
        ),
        _ => None,
    }
}

fn discard(is: &StreamFacts) -> Finding {
    const ID: &str = "stream.discard";
    let has_limit = is.messages_max.is_some() || is.bytes_max.is_some();
    match (is.discards_new, has_limit) {
        (false, _) => Finding::ok(ID, "when it is full the oldest messages go"),
        (true, false) => Finding::ok(ID, "it would refuse new messages when full, and has no limit of messages or bytes"),
        (true, true) if is_full(is) => Finding::error(ID, format!("it is full ({}) and refuses what comes", fill(is)))
            .why("events wait in the queue, and are shed when that is full")
            .remedy("purge it, raise its limits, or set discard to old"),
        (true, true) => Finding::warning(ID, format!("when it is full it refuses what comes ({})", fill(is)))
            .why("then nothing gets through until messages go by age or by hand: events wait in the queue, and are shed when that is full")
            .remedy("set discard to old, unless what is stored matters more than what comes"),
    }
}

fn is_full(is: &StreamFacts) -> bool {
    let average = is.bytes.checked_div(is.messages).unwrap_or(0);
    is.messages_max.is_some_and(|max| is.messages >= max)
        || is.bytes_max.is_some_and(|max| is.bytes + average > max)
}

/// How full the stream is, by its own limits.
fn fill(is: &StreamFacts) -> String {
    let number = |number: u64| quantity::number(number as f64);
    let bytes = |bytes: u64| quantity::bytes(bytes as f64);
    let messages = is.messages_max.map(|max| format!("{} of {} messages", number(is.messages), number(max)));
    let size = is.bytes_max.map(|max| format!("{} of {}", bytes(is.bytes), bytes(max)));
    messages.into_iter().chain(size).collect::<Vec<_>>().join(", ")
}

/// Messages and bytes a second, over what the stream holds; `None` if that is too little to tell.
fn rate(is: &StreamFacts) -> Option<(f64, f64)> {
    let seconds = is.span.as_secs_f64();
    (is.messages > 1 && is.span >= SPAN_MIN)
        .then(|| (is.messages as f64 / seconds, is.bytes as f64 / seconds))
}

/// How far back the stream goes at the rate that it has seen.
fn limits(is: &StreamFacts) -> Finding {
    const ID: &str = "stream.limits";
    if let Some(max) = is.messages_per_subject_max {
        return Finding::warning(
            ID,
            format!(
                "it keeps {} messages of each subject (max_msgs_per_subject)",
                quantity::number(max as f64)
            ),
        )
        .why(
            "all events of a name have one subject, so it holds the last of them only, and verify sees holes",
        )
        .remedy("remove that limit; use max_age or max_bytes");
    }
    let age = is.age_max.map(|max| format!("max_age {}", quantity::time(max)));
    let bytes = is.bytes_max.map(|max| format!("max_bytes {}", quantity::bytes(max as f64)));
    let messages = is.messages_max.map(|max| format!("max_msgs {}", quantity::number(max as f64)));
    let named = age.into_iter().chain(bytes).chain(messages).collect::<Vec<_>>().join(", ");
    let observed = rate(is).map(|(messages, bytes)| {
        format!("{} messages and {} a second so far", quantity::number(messages), quantity::bytes(bytes))
    });
    if named.is_empty() {
        let growth = rate(is).map(|(_, bytes)| {
            format!(", {} a day at {}", quantity::bytes(bytes * 86_400.0), observed.unwrap_or_default())
        });
        return Finding::note(ID, format!("it has no limits{}", growth.unwrap_or_default()))
            .why("it grows until the disk or the account is full, and then nothing is stored any more")
            .remedy("set max_age or max_bytes");
    }
    let Some(horizon) = horizon(is) else {
        return Finding::note(ID, format!("it has {named}; it holds too little to tell how long that lasts"));
    };
    let rate = observed.map(|observed| format!(" ({observed})")).unwrap_or_default();
    let what = format!("with {named} it goes back {}{rate}", quantity::time(horizon));
    if horizon < HORIZON_MIN {
        return Finding::warning(ID, what)
            .why("who reads it and is away for longer than that misses events, and verify cannot see them either")
            .remedy("raise the limit that is reached first");
    }
    Finding::ok(ID, what)
}

/// The shortest of what the limits allow; `None` if it depends on a rate that is not known. An age that is short by itself is not
/// made longer by another limit.
fn horizon(is: &StreamFacts) -> Option<Duration> {
    let Some((messages, bytes)) = rate(is) else {
        let is_open = is.messages_max.is_some() || is.bytes_max.is_some();
        return is.age_max.filter(|&age| !is_open || age < HORIZON_MIN);
    };
    let lasting = |max: Option<u64>, a_second: f64| {
        let seconds = max.map(|max| max as f64 / a_second).filter(|seconds| seconds.is_finite());
        seconds.map(|seconds| Duration::from_secs_f64(seconds.min(FOR_EVER)))
    };
    let by_rate = [lasting(is.messages_max, messages), lasting(is.bytes_max, bytes)];
    by_rate.into_iter().flatten().chain(is.age_max).min()
}

fn message_size(config: &Config, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.max-msg-size";
    let needed = message_bytes_max(config);
    let event = quantity::bytes(config.queue.max_event as f64);
    match is.message_bytes_max {
        Some(max) if (max as usize) < needed => {
            let (max, needed) = (quantity::bytes(max as f64), quantity::bytes(needed as f64));
            Finding::warning(
                ID,
                format!("max_msg_size is {max}; an event of queue.max-event ({event}) may need {needed}"),
            )
            .why("larger events are accepted, and dropped later as too_large: who published them is not told")
            .remedy("raise max_msg_size, or lower queue.max-event")
        }
        Some(max) => Finding::ok(
            ID,
            format!("max_msg_size is {}, enough for queue.max-event ({event})", quantity::bytes(max as f64)),
        ),
        None => Finding::ok(ID, "it does not limit the size of a message"),
    }
}

/// Whether what is sent again is still known.
fn duplicates(config: &Config, is: &StreamFacts) -> Finding {
    const ID: &str = "stream.duplicate-window";
    let (window, timeout) = (is.duplicate_window, config.delivery.ack_timeout);
    let needed = timeout * 2 + RECONNECT;
    let what = format!("duplicate_window is {}", quantity::time(window));
    if window < needed {
        return Finding::warning(ID, format!("{what}; sending again may take {} with delivery.ack-timeout {}", quantity::time(needed), quantity::time(timeout)))
            .why("a message whose acknowledgement is lost is sent again and recognized by its id; after the window only the stream's content tells, and where that has been removed the event ends as indeterminate")
            .remedy(format!("set duplicate_window to {} or more, or lower delivery.ack-timeout", quantity::time(needed * 2)));
    }
    let ids = rate(is).map_or(0.0, |(messages, _)| messages * window.as_secs_f64());
    if ids > IDS_MAX {
        return Finding::note(ID, format!("{what}: at the rate so far up to {} ids", quantity::number(ids)))
            .why(format!("they are in the server's memory, about {}", quantity::bytes(ids * ID_BYTES)))
            .remedy(format!(
                "{} are enough for delivery.ack-timeout {}",
                quantity::time(needed * 2),
                quantity::time(timeout)
            ));
    }
    Finding::ok(ID, format!("{what}, enough for delivery.ack-timeout {}", quantity::time(timeout)))
}

fn transform(is: &StreamFacts) -> Option<Finding> {
    let finding = || {
        Finding::warning("stream.transform", "it stores messages under other subjects (subject_transform)")
            .why("after a lost connection the bus looks for its messages by subject and does not find them; tap and verify do not either")
            .remedy("transform in another stream, which has this one as its source")
    };
    is.transforms_subjects.then(finding)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn config() -> Config {
        Config::new("nats://localhost:4222", "main", 1).unwrap()
    }

    fn facts(change: impl FnOnce(&mut StreamFacts)) -> StreamFacts {
        let mut facts = StreamFacts::default();
        facts.subjects = vec!["event.1.>".to_owned()];
        facts.replicas = 1;
        facts.duplicate_window = Duration::from_secs(120);
        change(&mut facts);
        facts
    }

    fn busy(change: impl FnOnce(&mut StreamFacts)) -> StreamFacts {
        facts(|facts| {
            (facts.messages, facts.bytes, facts.span) = (1000, 500_000, Duration::from_secs(10));
            change(facts);
        })
    }

    #[test]
    fn the_horizon_is_that_of_the_limit_that_is_reached_first() {
        for (stream, seconds) in [
            (busy(|is| is.messages_max = Some(360_000)), Some(3600)),
            (busy(|is| (is.messages_max, is.bytes_max) = (Some(360_000), Some(5_000_000))), Some(100)),
            (
                busy(|is| (is.age_max, is.bytes_max) = (Some(Duration::from_secs(60)), Some(5_000_000))),
                Some(60),
            ),
            (busy(|_| {}), None),
            (facts(|is| is.bytes_max = Some(5_000_000)), None),
            (facts(|is| (is.age_max, is.bytes_max) = (Some(Duration::from_secs(7200)), Some(1))), None),
            (facts(|is| (is.age_max, is.bytes_max) = (Some(Duration::from_secs(60)), Some(1))), Some(60)),
            (facts(|is| is.age_max = Some(Duration::from_secs(7200))), Some(7200)),
        ] {
            assert_eq!(horizon(&stream), seconds.map(Duration::from_secs), "{stream:?}");
        }
        assert_eq!(limits(&busy(|is| is.messages_max = Some(360_000))).severity, Severity::Ok);
        assert_eq!(limits(&busy(|is| is.messages_max = Some(359_000))).severity, Severity::Warning);
    }

    #[test]
    fn subjects_are_judged_by_what_the_bus_uses() {
        let stream = config().streams().remove(0);
        let severity = |patterns: &[&str], names: &[&str]| {
            let names = names.iter().map(|&name| name.parse().unwrap()).collect();
            let args = args::Doctor { names, monitor: None };
            let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
            subjects(&args, &stream, &facts(|is| is.subjects = patterns)).severity
        };
        assert_eq!(severity(&["event.>"], &[]), Severity::Ok);
        assert_eq!(severity(&["event.2.>"], &[]), Severity::Error);
        assert_eq!(severity(&["event.1.*"], &["a"]), Severity::Warning);
        assert_eq!(severity(&["event.1.*", "event.1._bus.*"], &[]), Severity::Warning);
        assert_eq!(severity(&["event.1.*", "event.1._bus.*"], &["a"]), Severity::Ok);
        assert_eq!(severity(&["event.1.*", "event.1._bus.*"], &["a", "a.b"]), Severity::Error);
    }

    #[test]
    fn patterns_overlap_where_a_subject_matches_both() {
        for (pattern, other, expected) in [
            ("event.1.*", "event.1.>", true),
            ("*.*.a", "event.1.>", true),
            (">", "event.1.>", true),
            ("event.2.>", "event.1.>", false),
            ("event.1", "event.1.>", false),
        ] {
            assert_eq!(overlaps(pattern, other), expected, "{pattern} {other}");
        }
    }

    #[test]
    fn a_window_of_ids_is_too_short_long_or_large() {
        let severity = |stream: StreamFacts| duplicates(&config(), &stream).severity;
        assert_eq!(severity(facts(|_| {})), Severity::Ok);
        assert_eq!(severity(facts(|is| is.duplicate_window = Duration::from_secs(11))), Severity::Warning);
        assert_eq!(severity(busy(|is| is.messages = 1_000_000)), Severity::Note);
    }

    #[test]
    fn replicas_are_judged_by_what_the_server_has() {
        let mut cluster = ServerFacts::default();
        cluster.cluster = Some("c".to_owned());
        let severity =
            |server: &ServerFacts, count| replicas(server, &facts(|is| is.replicas = count)).severity;
        assert_eq!(severity(&ServerFacts::default(), 1), Severity::Note);
        assert_eq!(
            [1, 2, 3].map(|count| severity(&cluster, count)),
            [Severity::Warning, Severity::Warning, Severity::Ok]
        );
        let behind = facts(|is| (is.replicas, is.replicas_behind) = (3, vec!["n1".to_owned()]));
        assert_eq!(replicas(&cluster, &behind).severity, Severity::Warning);
    }
}
