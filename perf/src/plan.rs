//! What is measured: a table of groups, each of them one load given to several peers.
//!
//! The full product of producers, sizes, patterns, states and servers would take a day. These are the cells that answer a question; the
//! question stands beside them. A repetition runs through all groups of a plan, and within a group through all peers, so
//! that a machine that becomes slower does so for everybody.

use crate::event::Size;
use crate::load::Pattern;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Repetitions of every cell.
pub(crate) const REPETITIONS: usize = 5;

/// How long a quick run's cells are, of the usual length.
const QUICK_SHARE: f64 = 0.25;

/// The [job](Who::job) of a queue that carries bytes which somebody else has encoded.
pub(crate) const QUEUE_ONLY: &str = "queue only, of encoded bytes";

const QUICK_PEERS: [Who; 8] = [
    Who::Control,
    Who::Floor,
    Who::Jetring,
    Who::JetringJson,
    Who::Original,
    Who::OriginalPolled,
    Who::Ring,
    Who::ArrayQueue { encode: false },
];

/// A record's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Plan {
    /// What a call costs.
    Publish,
    /// What gets through when all call as fast as they can.
    Throughput,
    /// What a call costs when events go to a server, and the server is well or not.
    Outage,
}

/// How a group is measured; see [`crate::load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    Batches,
    Calls,
    Flood,
    Deliver,
}

/// The queue before the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Empty; the consumer drains all the time.
    Drained,
    /// Half full, and nobody drains.
    HalfFull,
    /// Full, and nobody drains.
    Full,
}

/// Where events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// The consumer throws them away.
    Null,
    /// A nats-server is well.
    Up,
    /// It was killed before the measurement, after the peer had connected.
    Down,
    /// It was frozen by SIGSTOP before the measurement.
    Stalled,
    /// It is killed and started again, over and over.
    Restarting,
}

/// A peer by name; see [`crate::peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Control,
    Floor,
    Jetring,
    JetringJson,
    Original,
    OriginalPolled,
    Ring,
    TokioMpsc { encode: bool },
    ArrayQueue { encode: bool },
    CrossbeamChannel { encode: bool },
    Kanal { encode: bool },
    ThingBuf { encode: bool },
    Rtrb { encode: bool },
    Appender { encode: bool },
}

/// One load.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) measure: Measure,
    pub(crate) size: Size,
    pub(crate) producers: usize,
    pub(crate) pattern: Pattern,
    pub(crate) queue: Queue,
    pub(crate) sink: Sink,
    pub(crate) duration: Duration,
    pub(crate) peers: Vec<Who>,
    /// Part of a quick run.
    pub(crate) quick: bool,
}

impl Who {
    pub(crate) fn name(self) -> String {
        let (name, encode) = match self {
            Self::Control => ("control", false),
            Self::Floor => ("floor", false),
            Self::Jetring => ("jetring", false),
            Self::JetringJson => ("jetring json", false),
            Self::Original => ("original", false),
            Self::OriginalPolled => ("original, polled", false),
            Self::Ring => ("jetring ring", false),
            Self::TokioMpsc { encode } => ("tokio mpsc", encode),
            Self::ArrayQueue { encode } => ("ArrayQueue", encode),
            Self::CrossbeamChannel { encode } => ("crossbeam-channel", encode),
            Self::Kanal { encode } => ("kanal", encode),
            Self::ThingBuf { encode } => ("thingbuf", encode),
            Self::Rtrb { encode } => ("rtrb", encode),
            Self::Appender { encode } => ("tracing-appender", encode),
        };
        format!("{name}{}", if encode { " + encode" } else { "" })
    }

    /// What the hot thread does for its event.
    pub(crate) fn job(self) -> &'static str {
        match self {
            Self::Control => "nothing",
            Self::Floor => "clock, CAS, copy",
            Self::Jetring | Self::Original | Self::OriginalPolled => "whole",
            Self::JetringJson => "stamp, of encoded bytes",
            Self::Ring => QUEUE_ONLY,
            Self::TokioMpsc { encode }
            | Self::ArrayQueue { encode }
            | Self::CrossbeamChannel { encode }
            | Self::Kanal { encode }
            | Self::ThingBuf { encode }
            | Self::Rtrb { encode }
            | Self::Appender { encode } => match encode {
                true => "whole",
                false => QUEUE_ONLY,
            },
        }
    }
}

/// The groups of a plan. `every` is the interval of a paced thread.
pub(crate) fn groups(plan: Plan, every: Duration, quick: bool) -> Vec<Group> {
    let groups = match plan {
        Plan::Publish => publish(every),
        Plan::Throughput => throughput(),
        Plan::Outage => outage(every),
    };
    if !quick {
        return groups;
    }
    let shorter = |mut group: Group| {
        group.duration = group.duration.mul_f64(QUICK_SHARE);
        group.peers.retain(|who| QUICK_PEERS.contains(who));
        group
    };
    groups.into_iter().filter(|group| group.quick).map(shorter).collect()
}

fn publish(every: Duration) -> Vec<Group> {
    let usual = Group {
        id: String::new(),
        measure: Measure::Calls,
        size: Size::B414,
        producers: 1,
        pattern: Pattern::Paced { every },
        queue: Queue::Drained,
        sink: Sink::Null,
        duration: ms(400),
        peers: core(),
        quick: false,
    };
    let batches =
        Group { measure: Measure::Batches, pattern: Pattern::Saturation, duration: ms(300), ..usual.clone() };
    let mut groups = Vec::new();

    // What does a call cost at the median, by everybody and at every size?
    groups.push(Group { id: "call-414".into(), peers: everybody(), quick: true, ..batches });
    for (id, size) in [("call-128", Size::B128), ("call-4096", Size::B4096), ("call-64k", Size::K64)] {
        groups.push(Group { id: id.into(), size, peers: some(), ..batches.clone() });
    }
    // What does it cost when nobody drains, and when there is no room?
    groups.push(Group { id: "half-full".into(), queue: Queue::HalfFull, peers: queues(), ..batches });
    groups.push(Group { id: "full".into(), queue: Queue::Full, peers: queues(), quick: true, ..batches });

    // What are the tails at a steady pace? With more threads than one the pace of all together stays the same.
    groups.push(Group { id: "paced-1".into(), peers: drained(), quick: true, ..usual });
    for (id, producers) in [("paced-2", 2), ("paced-4", 4), ("paced-16", 16), ("paced-64", 64)] {
        let pattern = Pattern::Paced { every: every * producers };
        groups.push(Group { id: id.into(), producers: producers as usize, pattern, ..usual.clone() });
    }
    // And with larger and smaller events, slower the larger they are?
    for (id, size, slower) in
        [("paced-128", Size::B128, 1), ("paced-4096", Size::B4096, 10), ("paced-64k", Size::K64, 100)]
    {
        let pattern = Pattern::Paced { every: every * slower };
        groups.push(Group { id: id.into(), size, pattern, peers: whole(), ..usual.clone() });
    }
    // In bursts, where each event finds the caches as the last burst left them?
    for (id, producers) in [("burst-1", 1), ("burst-4", 4), ("burst-64", 64)] {
        let pattern = Pattern::Bursts { calls: 64, every: ms(producers as u64) };
        groups.push(Group { id: id.into(), producers, pattern, ..usual.clone() });
    }
    // Back to back, where queues fill up and refuse?
    for (id, producers) in [("back-to-back-1", 1), ("back-to-back-4", 4)] {
        let pattern = Pattern::Saturation;
        groups.push(Group { id: id.into(), producers, pattern, peers: whole(), ..usual.clone() });
    }
    groups
}

fn throughput() -> Vec<Group> {
    let usual = Group {
        id: String::new(),
        measure: Measure::Flood,
        size: Size::B414,
        producers: 1,
        pattern: Pattern::Saturation,
        queue: Queue::Drained,
        sink: Sink::Null,
        duration: ms(200),
        peers: flooded(),
        quick: false,
    };
    let mut groups = Vec::new();
    // How many events get through from so many threads, and how many are refused?
    for producers in [1, 2, 4, 16, 64] {
        let id = format!("flood-{producers}");
        groups.push(Group { id, producers, quick: matches!(producers, 1 | 4), ..usual.clone() });
    }
    // And when nobody lets an event go, so that all deliver all of theirs?
    for producers in [1, 2, 4, 16, 64] {
        let (id, measure) = (format!("deliver-{producers}"), Measure::Deliver);
        groups.push(Group { id, producers, measure, peers: delivered(), ..usual.clone() });
    }
    // Do larger and smaller events change the order?
    for (id, size) in [("flood-2-128", Size::B128), ("flood-2-4096", Size::B4096)] {
        let peers = core().into_iter().filter(|&who| who != Who::Control).collect();
        groups.push(Group { id: id.into(), size, producers: 2, peers, ..usual.clone() });
    }
    groups
}

fn outage(every: Duration) -> Vec<Group> {
    let usual = Group {
        id: String::new(),
        measure: Measure::Calls,
        size: Size::B414,
        producers: 1,
        pattern: Pattern::Paced { every },
        queue: Queue::Drained,
        sink: Sink::Up,
        duration: ms(1000),
        peers: vec![Who::Jetring, Who::Original],
        quick: false,
    };
    let slow = Pattern::Paced { every: every * 10 };
    vec![
        // More than a server on the same machine can take, so the queues shed.
        Group { id: "up".into(), peers: whole(), ..usual.clone() },
        Group { id: "down".into(), sink: Sink::Down, ..usual.clone() },
        Group { id: "stalled".into(), sink: Sink::Stalled, ..usual.clone() },
        Group { id: "restarting".into(), sink: Sink::Restarting, ..usual.clone() },
        // As much as it can take.
        Group { id: "up-slow".into(), pattern: slow, peers: whole(), quick: true, ..usual.clone() },
        Group { id: "restarting-slow".into(), pattern: slow, sink: Sink::Restarting, ..usual },
    ]
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The whole job beside the original's, and the machine's own noise.
fn whole() -> Vec<Who> {
    vec![Who::Control, Who::Jetring, Who::Original]
}

/// With one queue that allocates and one that does not.
fn core() -> Vec<Who> {
    let queues = [Who::TokioMpsc { encode: false }, Who::ThingBuf { encode: false }];
    whole().into_iter().chain(queues).collect()
}

/// One of each kind.
fn some() -> Vec<Who> {
    vec![
        Who::Control,
        Who::Floor,
        Who::Jetring,
        Who::JetringJson,
        Who::Original,
        Who::OriginalPolled,
        Who::TokioMpsc { encode: false },
        Who::ArrayQueue { encode: false },
        Who::ThingBuf { encode: false },
        Who::ThingBuf { encode: true },
        Who::Rtrb { encode: false },
    ]
}

/// All that have a queue which can be full, but for the second flavours.
fn queues() -> Vec<Who> {
    let mut peers = vec![Who::Jetring, Who::JetringJson, Who::Original, Who::Ring];
    peers.extend(flavours(false));
    peers
}

fn drained() -> Vec<Who> {
    let mut peers = vec![Who::Control, Who::Jetring, Who::JetringJson, Who::Original, Who::OriginalPolled];
    peers.push(Who::Ring);
    peers.extend(flavours(false));
    peers
}

/// With both flavours, so that whoever compares what gets through can compare the same job.
fn flooded() -> Vec<Who> {
    let mut peers = drained();
    peers.retain(|&who| who != Who::Control);
    peers.extend(flavours(true));
    peers
}

/// All that do the whole job and say whether they took an event.
fn delivered() -> Vec<Who> {
    let mut peers = vec![Who::Jetring, Who::Original, Who::OriginalPolled];
    peers.extend(flavours(true));
    peers.retain(|&who| who != Who::Appender { encode: true });
    peers
}

fn everybody() -> Vec<Who> {
    let mut peers = drained();
    peers.insert(1, Who::Floor);
    peers.extend(flavours(true));
    peers
}

fn flavours(encode: bool) -> [Who; 7] {
    [
        Who::TokioMpsc { encode },
        Who::ArrayQueue { encode },
        Who::CrossbeamChannel { encode },
        Who::Kanal { encode },
        Who::ThingBuf { encode },
        Who::Rtrb { encode },
        Who::Appender { encode },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const EVERY: Duration = Duration::from_micros(2);
    const PLANS: [Plan; 3] = [Plan::Publish, Plan::Throughput, Plan::Outage];

    fn all() -> impl Iterator<Item = Group> {
        PLANS.into_iter().flat_map(|plan| groups(plan, EVERY, false))
    }

    #[test]
    fn every_group_has_a_name_of_its_own_and_jetring_in_it() {
        let mut ids = HashSet::new();
        for group in all() {
            assert!(ids.insert(group.id.clone()), "{} twice", group.id);
            assert!(group.peers.contains(&Who::Jetring), "{}", group.id);
            let names: HashSet<_> = group.peers.iter().map(|who| who.name()).collect();
            assert_eq!(names.len(), group.peers.len(), "{}", group.id);
        }
    }

    #[test]
    fn the_floor_has_one_thread_only_and_a_server_only_those_who_can_talk_to_it() {
        let (mut floors, mut servers) = (0, 0);
        for group in all() {
            if group.peers.contains(&Who::Floor) {
                floors += 1;
                assert_eq!(group.producers, 1, "{}", group.id);
            }
            if group.sink != Sink::Null {
                servers += 1;
                assert!(group.peers.iter().all(|who| whole().contains(who)), "{}", group.id);
            }
        }
        assert!(floors > 0 && servers > 0);
    }

    #[test]
    fn a_run_measures_for_less_than_eight_minutes_and_a_quick_one_for_a_third_of_one() {
        let seconds = |quick| {
            let groups = PLANS.into_iter().flat_map(|plan| groups(plan, EVERY, quick));
            let one = |group: Group| group.duration.as_secs_f64() * group.peers.len() as f64;
            groups.map(one).sum::<f64>() * REPETITIONS as f64
        };
        assert!(seconds(false) < 480.0, "{}", seconds(false));
        assert!(seconds(true) < 18.0, "{}", seconds(true));
    }
}
