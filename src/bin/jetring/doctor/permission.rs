//! What these credentials may do, as far as the server would tell without doing it.

use super::finding::Finding;
use super::gather::{REPORTS, STAND_IN, Sight};
use crate::args;
use jetring::nats::inspect::Trial;

pub(super) fn examine(args: &args::Doctor, sight: &Sight) -> Vec<Finding> {
    let name = sight.stream.name.as_str();
    // Of a stream that is not there nobody needs to hear that it stores nothing.
    let findings = [Some(publish(args, sight)), read_back(sight), consume(sight)];
    findings.into_iter().flatten().map(|finding| finding.of(name)).collect()
}

fn publish(args: &args::Doctor, sight: &Sight) -> Finding {
    const ID: &str = "permission.publish";
    let subjects = |names: &[&str]| {
        let subjects: Vec<_> = names.iter().map(|name| sight.stream.subjects.subject(name)).collect();
        subjects.join(", ")
    };
    let of = |is_wanted: &dyn Fn(&Trial) -> bool| -> Vec<&str> {
        sight.publishing.iter().filter(|(_, trial)| is_wanted(trial)).map(|(name, _)| name.as_str()).collect()
    };
    let denied = of(&|trial| *trial == Trial::Denied);
    if !denied.is_empty() {
        return denial(args, &denied, denied.len() == sight.publishing.len(), &subjects(&denied));
    }
    for (name, trial) in &sight.publishing {
        let subject = sight.stream.subjects.subject(name);
        match trial {
            Trial::Refused(why) => {
                return Finding::error(ID, format!("the stream would refuse {subject}: {why}"))
                    .why("so it does to each event; they wait in the queue or are dropped as rejected")
                    .remedy("look at the other findings of this stream");
            }
            Trial::Stored(stream) if stream != sight.stream.name.as_str() => {
                return Finding::error(ID, format!("{subject} would be stored by the stream {stream}"))
                    .why("its acknowledgement does not count for this stream, so the event is dropped as rejected")
                    .remedy("set stream to that name, or take the subject from it");
            }
            _ => {}
        }
    }
    if let Some((_, Trial::Untried(why))) =
        sight.publishing.iter().find(|(_, trial)| matches!(trial, Trial::Untried(_)))
    {
        return Finding::note(ID, format!("whether one may publish was not tried: {why}"))
            .why("without permission events are dropped as permission, which event_bus_dropped_events_total shows")
            .remedy("publish one event: jetring publish NAME");
    }
    let stored = of(&|trial| matches!(trial, Trial::Stored(_)));
    if stored.len() < sight.publishing.len() {
        let allowed = of(&|trial| *trial == Trial::Allowed);
        return Finding::note(
            ID,
            format!("one may publish, but no stream would store {}", subjects(&allowed)),
        )
        .why("see stream.exists and stream.subjects");
    }
    Finding::ok(ID, format!("one may publish, and it would be stored: {}", subjects(&stored)))
}

fn denial(args: &args::Doctor, denied: &[&str], all: bool, subjects: &str) -> Finding {
    const ID: &str = "permission.publish";
    let what = format!("permission to publish is denied for {subjects}");
    if denied.iter().all(|name| REPORTS.contains(name)) {
        return Finding::warning(ID, what)
            .why("these are the reports by which readers of the stream see what was lost; without them a loss is visible in the metrics only")
            .remedy("allow them: publish to _bus.> below the chain's subjects");
    }
    let remedy = "allow this user to publish to them, in the server's configuration or in the account's";
    if all || !args.names.is_empty() {
        return Finding::error(ID, what).why("such events are dropped as permission").remedy(remedy);
    }
    Finding::warning(ID, what)
        .why(format!("names that are not allowed are dropped as permission; {STAND_IN} stands for yours, which were not given"))
        .remedy("have the names of your events looked at: jetring doctor NAME NAME …")
}

fn read_back(sight: &Sight) -> Option<Finding> {
    const ID: &str = "permission.read-back";
    match &sight.reading_back {
        Trial::Denied => Some(
            Finding::warning(ID, format!("$JS.API.STREAM.MSG.GET.{} is denied", sight.stream.name))
                .why("after a lost connection the bus reads the end of the stream to see what was stored; without it such events end as indeterminate")
                .remedy("allow this user to publish to it, which reads messages and changes nothing"),
        ),
        // What was not tried is said once, of publishing.
        Trial::Untried(_) => None,
        _ => Some(Finding::ok(ID, "the bus may read back what was stored")),
    }
}

fn consume(sight: &Sight) -> Option<Finding> {
    const ID: &str = "permission.consume";
    if sight.consuming.contains(&Trial::Denied) {
        return Some(
            Finding::note(ID, "these credentials may not consume the stream")
                .why("publishing does not need it; verify and tap do")
                .remedy("run verify and tap with credentials of a reader"),
        );
    }
    let untried = sight.consuming.iter().any(|trial| matches!(trial, Trial::Untried(_)));
    (!untried).then(|| Finding::ok(ID, "verify and tap may consume the stream"))
}
