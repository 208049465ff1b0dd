//! Carries a plan out: repetition by repetition, group by group, peer by peer, and puts the repetitions together.
//!
//! ```text
//!   start server, peer ─► threads: prefill ─► settle ─► trouble ─► load ─► heal ─► finish: count, check
//!                                   │ ready              │ go
//! ```

use crate::clock::{self, Clock};
use crate::event::{Encode, Ready};
use crate::histogram::{Percentiles, Recorder, Spread, Spreads};
use crate::load::{self, Expect, Notes, Part, Pattern};
use crate::machine;
use crate::peer::{End, Outcome, Peer, Producer, Progress, Setup, nothing, original, ours, queues, ring};
use crate::plan::{Group, Measure, Queue, REPETITIONS, Sink, Who};
use crate::record::Cell;
use crate::server::Server;
use anyhow::{Context, Result, ensure};
use queues::{Appender, Array, CrossbeamChannel, Kanal, Queued, Rtrb, ThingBuf, TokioMpsc};
use regex::Regex;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Events of each thread before the measurement: first calls allocate, and everybody's caches are cold.
const WARM_UP: u64 = 200;

/// From "go" to the first call: so that every thread is there in time.
const HEAD_START: Duration = Duration::from_millis(5);

/// How long clients have for noticing what happened to their server.
const DISMAY: Duration = Duration::from_millis(100);

/// Runs all groups whose `group/peer` matches, and gives back a cell for each pair.
pub(crate) fn run(groups: &[Group], filter: &Regex, clock: Clock) -> Result<Vec<Cell>> {
    let is_wanted = |group: &Group, who: Who| filter.is_match(&format!("{}/{}", group.id, who.name()));
    let mut samples: Vec<(&Group, Who, Vec<Sample>)> = groups
        .iter()
        .flat_map(|group| group.peers.iter().map(move |&who| (group, who, Vec::new())))
        .filter(|(group, who, _)| is_wanted(group, *who))
        .collect();
    ensure!(!samples.is_empty(), "no cell matches {:?}", filter.as_str());
    for repetition in 1..=REPETITIONS {
        let start = Instant::now();
        for (group, who, samples) in &mut samples {
            let sample = run_one(group, *who, clock)
                .with_context(|| format!("{} of {}, repetition {repetition}", group.id, who.name()))?;
            samples.push(sample);
        }
        eprintln!("repetition {repetition} of {REPETITIONS}: {:.1} s", start.elapsed().as_secs_f64());
    }
    let ours: Vec<(&str, Vec<f64>)> = samples
        .iter()
        .filter(|(_, who, _)| *who == Who::Jetring)
        .map(|(group, _, samples)| {
            (group.id.as_str(), samples.iter().filter_map(Sample::main_figure).collect())
        })
        .collect();
    let cell = |(group, who, samples): &(&Group, Who, Vec<Sample>)| {
        let ours = ours.iter().find(|(id, _)| *id == group.id);
        gather(group, *who, samples, ours.map(|(_, figures)| figures.as_slice()))
    };
    Ok(samples.iter().map(cell).collect())
}

/// Offers events until they are refused for good, or `events` were accepted; gives back how many were offered and accepted.
///
/// A consumer that is being started may still take some away, so a refusal is believed when it lasts.
pub(crate) fn fill(mut offer: impl FnMut(u64) -> bool, events: u64) -> (u64, u64) {
    const REFUSALS: u32 = 10;
    let (mut offered, mut accepted, mut refusals) = (0, 0, 0);
    while accepted < events && refusals < REFUSALS {
        let is_accepted = offer(offered);
        offered += 1;
        if is_accepted {
            accepted += 1;
            refusals = 0;
        } else {
            refusals += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    (offered, accepted)
}

/// What one repetition of a cell gave.
#[derive(Debug)]
struct Sample {
    offered: u64,
    dropped: u64,
    unconfirmed: u64,
    seconds: f64,
    batched: Option<f64>,
    service: [Percentiles; 3],
    response: Percentiles,
    consumed_per_second: Option<f64>,
    cpu_nanos_per_event: Option<f64>,
    refused_and_serialized: Option<(u64, u64)>,
}

const ACCEPTED: usize = 0;
const REFUSED: usize = 1;
const ALL: usize = 2;

impl Sample {
    /// By which peers are compared: nanoseconds a call.
    fn main_figure(&self) -> Option<f64> {
        self.batched.or_else(|| (self.service[ALL].count > 0).then_some(self.service[ALL].p50))
    }

    fn per_second(&self, events: u64) -> f64 {
        events as f64 / self.seconds
    }
}

fn run_one(group: &Group, who: Who, clock: Clock) -> Result<Sample> {
    let mut sample = match who {
        Who::Control => measure::<nothing::Control>(group, clock),
        Who::Floor => measure::<nothing::Floor>(group, clock),
        Who::Jetring => measure::<ours::Structs>(group, clock),
        Who::JetringJson => measure::<ours::Json>(group, clock),
        Who::Original => measure::<original::Woken>(group, clock),
        Who::OriginalPolled => measure::<original::Polled>(group, clock),
        Who::Ring => measure_queue::<ring::BareRing>(group, clock, false),
        Who::TokioMpsc { encode } => measure_queue::<TokioMpsc>(group, clock, encode),
        Who::ArrayQueue { encode } => measure_queue::<Array>(group, clock, encode),
        Who::CrossbeamChannel { encode } => measure_queue::<CrossbeamChannel>(group, clock, encode),
        Who::Kanal { encode } => measure_queue::<Kanal>(group, clock, encode),
        Who::ThingBuf { encode } => measure_queue::<ThingBuf>(group, clock, encode),
        Who::Rtrb { encode } => measure_queue::<Rtrb>(group, clock, encode),
        Who::Appender { encode: false } => measure::<Appender<Ready>>(group, clock),
        Who::Appender { encode: true } => measure::<Appender<Encode>>(group, clock),
    }?;
    if group.queue == Queue::Full && who == Who::Jetring {
        let (refused, serialized) = ours::refused_and_serialized()?;
        ensure!(refused > 0, "the ring that should be full refused nothing");
        ensure!(serialized == 0, "{serialized} of {refused} refused events were serialized");
        sample.refused_and_serialized = Some((refused, serialized));
    }
    Ok(sample)
}

fn measure_queue<Q: queues::Queue>(group: &Group, clock: Clock, encode: bool) -> Result<Sample> {
    match encode {
        true => measure::<Queued<Q, Encode>>(group, clock),
        false => measure::<Queued<Q, Ready>>(group, clock),
    }
}

/// Where the threads meet.
struct Stage {
    ready: Barrier,
    go: Barrier,
    /// Events that were accepted before the measurement.
    settled: AtomicU64,
    /// When it begins, in ticks.
    start: AtomicU64,
    stop: AtomicBool,
}

/// What a thread does before the measurement.
#[derive(Clone, Copy)]
enum Prefill {
    WarmUp,
    Accepted(u64),
    UntilRefused,
}

fn measure<P: Peer>(group: &Group, clock: Clock) -> Result<Sample> {
    let mut server = (group.sink != Sink::Null).then(Server::start).transpose()?;
    let held = group.queue != Queue::Drained;
    let setup =
        Setup { size: group.size, producers: group.producers, held, url: server.as_ref().map(Server::url) };
    let room = if group.queue == Queue::HalfFull { room::<P>(&setup)? } else { 0 };
    let prefill = match group.queue {
        Queue::Drained => Prefill::WarmUp,
        Queue::HalfFull => Prefill::Accepted(room / 2),
        Queue::Full => Prefill::UntilRefused,
    };
    let mut peer = P::start(&setup)?;
    let progress = peer.progress();
    let stage = Stage {
        ready: Barrier::new(group.producers + 1),
        go: Barrier::new(group.producers + 1),
        settled: AtomicU64::new(0),
        start: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let producers: Vec<_> = (0..group.producers).map(|index| peer.producer(index)).collect();

    let mut notes = Notes::new();
    let mut batched = Vec::new();
    let (silent_before, watched) = std::thread::scope(|scope| {
        let (stage, progress) = (&stage, &progress);
        let threads: Vec<_> = producers
            .into_iter()
            .enumerate()
            .map(|(index, producer)| {
                scope.spawn(move || produce(producer, progress, group, clock, index, prefill, room, stage))
            })
            .collect();
        stage.ready.wait();
        let silent_before = peer.refused_silently();
        // Relaxed, here and below: the barriers order everything.
        let settled = stage.settled.load(Ordering::Relaxed) - silent_before;
        let prepared = match held {
            true => Ok(()),
            false => progress.wait_for(settled).context("the warm-up"),
        }
        .and_then(|()| make_trouble(group.sink, server.as_mut()));
        stage.start.store(clock::now() + clock.ticks(HEAD_START), Ordering::Relaxed);
        // Whatever went wrong, the threads are waiting.
        stage.go.wait();

        let restarter = match (group.sink, server.as_mut()) {
            (Sink::Restarting, Some(server)) => Some(scope.spawn(|| server.restart_until(&stage.stop))),
            _ => None,
        };
        let watched = match group.measure {
            Measure::Flood | Measure::Deliver => watch(&peer, progress, group.duration),
            _ => None,
        };
        if matches!(group.measure, Measure::Flood | Measure::Deliver) {
            stage.stop.store(true, Ordering::Relaxed);
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        // Before anything is made of what they say, so that the restarter ends in any case.
        stage.stop.store(true, Ordering::Relaxed);
        for its in ended {
            let (its_notes, its_batches) = its.expect("a producer does not panic")?;
            notes.add(&its_notes);
            batched.extend(its_batches);
        }
        if let Some(restarter) = restarter {
            let restarts = restarter.join().expect("the restarter does not panic")?;
            ensure!(restarts > 0, "the server was never restarted");
        }
        prepared?;
        anyhow::Ok((silent_before, watched))
    })?;
    if let (Sink::Stalled, Some(server)) = (group.sink, &server) {
        server.resume()?;
    }
    let silent = peer.refused_silently();
    let accepted = stage.settled.load(Ordering::Relaxed) + notes.accepted - silent;
    let end = match group.sink {
        _ if held => End::Abandoned,
        Sink::Null | Sink::Up => End::Delivered,
        Sink::Stalled | Sink::Restarting => End::Healed,
        Sink::Down => End::Abandoned,
    };
    let outcome = peer.finish(accepted, end)?;
    let dropped = notes.offered - notes.accepted + (silent - silent_before);
    Ok(sample(&notes, batched, dropped, outcome, held, watched, clock))
}

/// A producing thread's whole life.
#[expect(clippy::too_many_arguments, reason = "it is what a thread is told, and told once")]
fn produce(
    mut producer: impl Producer,
    progress: &impl Progress,
    group: &Group,
    clock: Clock,
    index: usize,
    prefill: Prefill,
    room: u64,
    stage: &Stage,
) -> Result<(Notes, Vec<f64>)> {
    let mut notes = Notes::new();
    let offer = |number| producer.offer(number);
    let (offered, accepted) = match prefill {
        Prefill::WarmUp => (WARM_UP, (0..WARM_UP).map(offer).filter(|&accepted| accepted).count() as u64),
        Prefill::Accepted(events) => fill(offer, events),
        Prefill::UntilRefused => fill(offer, fill_limit(group)),
    };
    stage.settled.fetch_add(accepted, Ordering::Relaxed);
    stage.ready.wait();
    stage.go.wait();
    let offset = group.pattern.offset(index, group.producers);
    let start = stage.start.load(Ordering::Relaxed) + clock.ticks(offset);
    let part = Part {
        clock,
        pattern: group.pattern,
        duration: group.duration,
        start,
        end: start + clock.ticks(group.duration * load::OVERRUN),
        first: offered,
        yields: group.producers > 1,
    };
    let mut values = Vec::new();
    match group.measure {
        Measure::Calls => load::calls(&mut producer, &part, &mut notes),
        Measure::Flood => load::flood(&mut producer, &part, &stage.stop, &mut notes),
        Measure::Deliver => load::deliver(&mut producer, &part, &stage.stop, &mut notes),
        Measure::Batches => {
            let calls = (load::BATCH_BYTES_MAX / group.size.bytes() as u64).clamp(1, load::BATCH_CALLS);
            let (expect, calls, batches) = match group.queue {
                Queue::Drained => (Expect::Accepted, calls, load::BATCHES),
                // An eighth of the room is filled in measuring, at most, so the queue stays about half full.
                Queue::HalfFull => {
                    let calls = calls.min(room / 16).max(1);
                    (Expect::Kept, calls, ((room / 8 / calls) as usize).clamp(1, load::BATCHES))
                }
                Queue::Full => (Expect::Refused, calls, load::BATCHES),
            };
            let settled = stage.settled.load(Ordering::Relaxed);
            let expect = if group.queue == Queue::Full && accepted >= fill_limit(group) {
                Expect::Unknown
            } else {
                expect
            };
            values = load::batches(
                &mut producer,
                progress,
                &part,
                (batches, calls),
                (expect, settled),
                &mut notes,
            )?;
        }
    }
    Ok((notes, values))
}

/// A queue that has still not refused after so many events never says so.
fn fill_limit(group: &Group) -> u64 {
    2 * (crate::peer::CAPACITY_BYTES / group.size.bytes()) as u64
}

/// How many events of one thread fit in.
fn room<P: Peer>(setup: &Setup) -> Result<u64> {
    let mut peer = P::start(setup)?;
    let mut producer = peer.producer(0);
    let limit = 2 * (crate::peer::CAPACITY_BYTES / setup.size.bytes()) as u64;
    let (_, accepted) = std::thread::scope(|scope| {
        let filled = scope.spawn(move || fill(|number| producer.offer(number), limit));
        filled.join().expect("a producer does not panic")
    });
    let accepted = accepted - peer.refused_silently();
    peer.finish(accepted, End::Abandoned)?;
    Ok(accepted)
}

fn make_trouble(sink: Sink, server: Option<&mut Server>) -> Result<()> {
    let Some(server) = server else { return Ok(()) };
    match sink {
        Sink::Null | Sink::Up | Sink::Restarting => return Ok(()),
        Sink::Down => server.kill()?,
        Sink::Stalled => server.stall()?,
    }
    std::thread::sleep(DISMAY);
    Ok(())
}

/// Looks at the consumer in the middle of a flood: events and nanoseconds of its thread, by seconds.
fn watch(peer: &impl Peer, progress: &impl Progress, duration: Duration) -> Option<(u64, u64, f64)> {
    let thread = peer.consumer_thread();
    let look = || (progress.received(), thread.and_then(machine::thread_cpu_nanos), Instant::now());
    std::thread::sleep(HEAD_START + duration.mul_f64(0.2));
    let (events_before, cpu_before, before) = look();
    std::thread::sleep(duration.mul_f64(0.8));
    let (events, cpu, after) = look();
    Some((events - events_before, cpu? - cpu_before?, (after - before).as_secs_f64()))
}

fn sample(
    notes: &Notes,
    batched: Vec<f64>,
    dropped: u64,
    outcome: Outcome,
    held: bool,
    watched: Option<(u64, u64, f64)>,
    clock: Clock,
) -> Sample {
    let mut all = Recorder::new();
    notes.service.iter().for_each(|part| all.add(part));
    let percentiles = |recorder: &Recorder| recorder.percentiles(clock);
    Sample {
        offered: notes.offered,
        dropped,
        // What a queue kept that nobody drained was meant to be kept.
        unconfirmed: if held { 0 } else { outcome.unconfirmed },
        seconds: clock.nanos(notes.ticks as f64) / 1e9,
        batched: (!batched.is_empty()).then(|| Spread::of(batched).median),
        service: [
            percentiles(&notes.service[ACCEPTED]),
            percentiles(&notes.service[REFUSED]),
            percentiles(&all),
        ],
        response: percentiles(&notes.response),
        consumed_per_second: watched.map(|(events, _, seconds)| events as f64 / seconds),
        cpu_nanos_per_event: watched
            .filter(|&(events, ..)| events > 0)
            .map(|(events, cpu, _)| cpu as f64 / events as f64),
        refused_and_serialized: None,
    }
}

fn gather(group: &Group, who: Who, samples: &[Sample], ours: Option<&[f64]>) -> Cell {
    let sum = |value: &dyn Fn(&Sample) -> u64| samples.iter().map(value).sum::<u64>();
    let spread = |value: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    let optional = |value: &dyn Fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = samples.iter().filter_map(value).collect();
        (!values.is_empty()).then(|| Spread::of(values))
    };
    let service = |which: usize| {
        let percentiles: Vec<_> = samples.iter().map(|sample| sample.service[which].clone()).collect();
        Spreads::of(&percentiles)
    };
    let dropped = sum(&|sample| sample.dropped);
    let is_mixed = dropped > 0;
    let is_rated = matches!(group.measure, Measure::Flood | Measure::Deliver);
    let has_rate = is_rated || group.sink != Sink::Null;
    let figures = samples.iter().filter_map(Sample::main_figure);
    let ratios: Vec<f64> =
        figures.zip(ours.unwrap_or_default()).map(|(theirs, ours)| theirs / ours).collect();
    let responses: Vec<_> = samples.iter().map(|sample| sample.response.clone()).collect();
    let watched = samples.iter().filter_map(|sample| sample.refused_and_serialized);
    Cell {
        group: group.id.clone(),
        peer: who.name(),
        job: who.job().to_owned(),
        size_bytes: group.size.bytes(),
        producers: group.producers,
        pattern: pattern(group),
        queue: format!("{:?}", group.queue),
        sink: format!("{:?}", group.sink),
        offered: sum(&|sample| sample.offered),
        accepted: sum(&|sample| sample.offered - sample.dropped),
        dropped,
        unconfirmed: sum(&|sample| sample.unconfirmed),
        dropped_share: Spread::exactly(
            samples.iter().map(|sample| sample.dropped as f64 / sample.offered as f64),
        ),
        batched: optional(&|sample| sample.batched),
        times_jetring: (!ratios.is_empty()).then(|| Spread::exactly(ratios)),
        service: service(ALL),
        service_accepted: service(ACCEPTED).filter(|_| is_mixed),
        service_refused: service(REFUSED),
        response: Spreads::of(&responses),
        offered_per_second: has_rate.then(|| spread(&|sample| sample.per_second(sample.offered))),
        accepted_per_second: has_rate
            .then(|| spread(&|sample| sample.per_second(sample.offered - sample.dropped))),
        consumed_per_second: optional(&|sample| sample.consumed_per_second),
        consumer_cpu_nanos_per_event: optional(&|sample| sample.cpu_nanos_per_event),
        refused_and_serialized: watched.reduce(|sum, next| (sum.0 + next.0, sum.1 + next.1)),
    }
}

fn pattern(group: &Group) -> String {
    match (group.measure, group.pattern) {
        (Measure::Batches, _) => "batches of calls".to_owned(),
        (_, Pattern::Paced { every }) => format!("every {every:?} a thread"),
        (_, Pattern::Bursts { calls, every }) => format!("{calls} every {every:?} a thread"),
        (_, Pattern::Saturation) => "back to back".to_owned(),
    }
}
