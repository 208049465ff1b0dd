//! The load generator: what one producing thread does, and what it notes.
//!
//! ```text
//!   schedule   │ t0        │ t1        │ t2        │ t3            when a call ought to begin
//!   thread     ├──call──┤  ├─────── call ──────────┤├─call─┤├─call─┤
//!   service    └────────┘  └───────────────────────┘└──────┘└──────┘   how long the call took
//!   response   └────────┘  └───────────────────────┘         since its time in the schedule:
//!                                      └────────────────────┘  t2 was late before it began
//! ```
//!
//! The loop is open: the schedule goes on, whatever a call does. So a call that takes a millisecond is not one bad value among many
//! good ones; all calls that fell into that millisecond are late, and *response time* says so (the omission of which Gil Tene
//! calls coordinated). *Service time* is the call alone. Both stand in every record, accepted and refused calls apart.
//!
//! Four ways to measure, since none can do all:
//!
//! - [`calls`]: a reading of the clock on both sides of every call, for distributions. The readings are part of the value.
//! - [`batches`]: two readings around many calls, for medians of less than about 100 ns, where the clock would be the larger part.
//! - [`flood`]: no reading at all, for rates.
//! - [`deliver`]: as a flood, but each event is offered until it is accepted, for the rate at which all get through.

use crate::clock::{self, Clock};
use crate::histogram::Recorder;
use crate::peer::{Producer, Progress};
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Calls between two readings of the clock, unless events are so large that they would fill a queue.
pub(crate) const BATCH_CALLS: u64 = 100;
pub(crate) const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Batches of one repetition.
pub(crate) const BATCHES: usize = 201;
const BATCHES_MIN: usize = 5;

/// Calls between two looks at whether it is over.
const FLOOD_CALLS: u64 = 64;

/// A thread that cannot keep the schedule stops after this many times its planned length.
pub(crate) const OVERRUN: u32 = 3;

/// A wait that is longer than this is slept through but for its end.
const SLEEP_MIN: Duration = Duration::from_micros(100);
const SLEEP_MARGIN: Duration = Duration::from_micros(70);

/// When calls ought to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// One call at a time, evenly.
    Paced { every: Duration },
    /// So many calls at once. All of a burst ought to begin at its start: response time includes the calls before.
    Bursts { calls: u64, every: Duration },
    /// Each call when the one before it has ended. There is no schedule, hence no response time.
    Saturation,
}

impl Pattern {
    /// When the call with this index ought to begin, after the thread's start; `None` if there is no schedule.
    pub(crate) fn start_of(self, call: u64) -> Option<Duration> {
        // Nanoseconds in a `u64` last for centuries.
        let times = |every: Duration, count: u64| Duration::from_nanos(every.as_nanos() as u64 * count);
        match self {
            Self::Paced { every } => Some(times(every, call)),
            Self::Bursts { calls, every } => Some(times(every, call / calls)),
            Self::Saturation => None,
        }
    }

    /// Threads are spread over the interval, as nobody's threads march in step.
    pub(crate) fn offset(self, thread: usize, threads: usize) -> Duration {
        match self {
            Self::Paced { every } | Self::Bursts { every, .. } => every * thread as u32 / threads as u32,
            Self::Saturation => Duration::ZERO,
        }
    }
}

/// A thread's part of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) clock: Clock,
    pub(crate) pattern: Pattern,
    pub(crate) duration: Duration,
    /// When this thread begins, in ticks.
    pub(crate) start: u64,
    /// When it stops although the schedule has not ended, in ticks.
    pub(crate) end: u64,
    /// The number of the first event.
    pub(crate) first: u64,
    /// Threads that wait give the core to others; one that has a core to itself spins.
    pub(crate) yields: bool,
}

/// What a thread noted.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    /// From its first call to its last, in ticks.
    pub(crate) ticks: u64,
    /// Service times of accepted and of refused calls.
    pub(crate) service: [Recorder; 2],
    pub(crate) response: Recorder,
}

impl Notes {
    pub(crate) fn new() -> Self {
        Self {
            offered: 0,
            accepted: 0,
            ticks: 0,
            service: [Recorder::new(), Recorder::new()],
            response: Recorder::new(),
        }
    }

    /// Takes in another thread's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.ticks = self.ticks.max(other.ticks);
        for (ours, theirs) in self.service.iter_mut().zip(&other.service) {
            ours.add(theirs);
        }
        self.response.add(&other.response);
    }
}

/// Follows the schedule and times every call. `notes` are made before, so that nothing is allocated here.
pub(crate) fn calls(producer: &mut impl Producer, part: &Part, notes: &mut Notes) {
    let length = part.clock.ticks(part.duration);
    let (sleep_min, margin) = (part.clock.ticks(SLEEP_MIN), SLEEP_MARGIN);
    for call in 0.. {
        let begin = match part.pattern.start_of(call) {
            Some(after) if after >= part.duration => break,
            Some(after) => {
                let intended = part.start + part.clock.ticks(after);
                wait_until(intended, part, sleep_min, margin);
                intended
            }
            None if clock::now() >= part.start + length => break,
            None => part.start,
        };
        let before = clock::now();
        let accepted = producer.offer(part.first + call);
        let after = clock::now();
        notes.service[usize::from(!accepted)].record(after.saturating_sub(before));
        if part.pattern != Pattern::Saturation {
            notes.response.record(after.saturating_sub(begin));
        }
        notes.offered += 1;
        notes.accepted += u64::from(accepted);
        notes.ticks = after.saturating_sub(part.start);
        if after > part.end {
            break;
        }
    }
}

fn wait_until(intended: u64, part: &Part, sleep_min: u64, margin: Duration) {
    loop {
        let left = intended.saturating_sub(clock::now());
        if left == 0 {
            return;
        }
        if left > sleep_min {
            let nanos = part.clock.nanos(left as f64) as u64;
            std::thread::sleep(Duration::from_nanos(nanos).saturating_sub(margin));
        } else if part.yields {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

/// What is to come of the calls of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// All accepted. Between batches the consumer catches up.
    Accepted,
    /// All accepted by a queue that nobody drains.
    Kept,
    /// All refused.
    Refused,
    /// Nobody tells.
    Unknown,
}

/// Times batches of calls; gives back nanoseconds a call, one value a batch. `settled` is how many events were accepted before.
pub(crate) fn batches(
    producer: &mut impl Producer,
    progress: &impl Progress,
    part: &Part,
    (batches, batch_calls): (usize, u64),
    (expect, settled): (Expect, u64),
    notes: &mut Notes,
) -> Result<Vec<f64>> {
    let mut values = Vec::with_capacity(batches);
    let end = clock::now() + part.clock.ticks(part.duration);
    for batch in 0..batches {
        if batch >= BATCHES_MIN && clock::now() > end {
            break;
        }
        let first = part.first + notes.offered;
        let before = clock::now();
        let mut accepted = 0;
        for call in 0..batch_calls {
            accepted += u64::from(producer.offer(first + call));
        }
        let ticks = clock::now() - before;
        values.push(part.clock.nanos(ticks as f64) / batch_calls as f64);
        notes.offered += batch_calls;
        notes.accepted += accepted;
        notes.ticks += ticks;
        match expect {
            Expect::Accepted => {
                ensure!(accepted == batch_calls, "of {batch_calls} calls {accepted} were accepted, not all");
                progress.wait_for(settled + notes.accepted)?;
            }
            // A consumer that is only now being held may have taken some away, or not yet: such a batch was of both kinds.
            Expect::Kept if accepted < batch_calls => drop(values.pop()),
            Expect::Refused if accepted > 0 => drop(values.pop()),
            Expect::Kept | Expect::Refused | Expect::Unknown => {}
        }
    }
    ensure!(!values.is_empty(), "not one batch was as expected: {expect:?}");
    Ok(values)
}

/// Calls as fast as it can until `stop`.
pub(crate) fn flood(producer: &mut impl Producer, part: &Part, stop: &AtomicBool, notes: &mut Notes) {
    let start = clock::now();
    // Relaxed: nothing is handed over by it.
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..FLOOD_CALLS {
            let accepted = producer.offer(part.first + notes.offered);
            notes.offered += 1;
            notes.accepted += u64::from(accepted);
        }
    }
    notes.ticks = clock::now() - start;
}

/// Offers each event until it is accepted, and gives the core to others after each refusal, until `stop`.
///
/// In a flood whoever refuses cheaply takes the most time from its own consumer. Here nothing is lost, so all do the same job.
pub(crate) fn deliver(producer: &mut impl Producer, part: &Part, stop: &AtomicBool, notes: &mut Notes) {
    let start = clock::now();
    // Relaxed: nothing is handed over by it.
    'events: while !stop.load(Ordering::Relaxed) {
        for _ in 0..FLOOD_CALLS {
            while !producer.offer(part.first + notes.accepted) {
                if stop.load(Ordering::Relaxed) {
                    break 'events;
                }
                std::thread::yield_now();
            }
            notes.accepted += 1;
        }
    }
    notes.offered = notes.accepted;
    notes.ticks = clock::now() - start;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn a_paced_schedule_is_even_and_bursts_begin_together() {
        let paced = Pattern::Paced { every: 2 * MICRO };
        assert_eq!((paced.start_of(0), paced.start_of(500)), (Some(Duration::ZERO), Some(1000 * MICRO)));
        let bursts = Pattern::Bursts { calls: 64, every: 1000 * MICRO };
        assert_eq!((bursts.start_of(63), bursts.start_of(64)), (Some(Duration::ZERO), Some(1000 * MICRO)));
        assert_eq!(Pattern::Saturation.start_of(7), None);
    }

    #[test]
    fn threads_are_spread_over_the_interval() {
        let paced = Pattern::Paced { every: 8 * MICRO };
        let offsets: Vec<_> = (0..4).map(|thread| paced.offset(thread, 4)).collect();
        assert_eq!(offsets, [Duration::ZERO, 2 * MICRO, 4 * MICRO, 6 * MICRO]);
    }

    /// Refuses every third event; the fifth takes a millisecond.
    struct Slow(Vec<u64>);

    impl Producer for Slow {
        fn offer(&mut self, number: u64) -> bool {
            if number == 5 {
                let start = std::time::Instant::now();
                while start.elapsed() < 1000 * MICRO {}
            }
            self.0.push(number);
            !number.is_multiple_of(3)
        }
    }

    #[test]
    fn a_delivery_offers_each_event_until_it_is_accepted() {
        /// Takes an event at its third offer.
        struct Reluctant(Vec<u64>, Arc<AtomicBool>);

        impl Producer for Reluctant {
            fn offer(&mut self, number: u64) -> bool {
                self.0.push(number);
                self.1.store(self.0.len() >= 300, Ordering::Relaxed);
                self.0.len().is_multiple_of(3)
            }
        }

        let (clock, stop) = (Clock::calibrate(), Arc::new(AtomicBool::new(false)));
        let part = Part {
            clock,
            pattern: Pattern::Saturation,
            duration: MICRO,
            start: 0,
            end: u64::MAX,
            first: 7,
            yields: true,
        };
        let (mut producer, mut notes) = (Reluctant(Vec::new(), Arc::clone(&stop)), Notes::new());
        deliver(&mut producer, &part, &stop, &mut notes);
        let expected: Vec<u64> = (7..).flat_map(|number| [number; 3]).take(producer.0.len()).collect();
        assert_eq!(producer.0, expected);
        assert_eq!((notes.accepted, notes.offered), (producer.0.len() as u64 / 3, notes.accepted));
    }

    #[test]
    fn a_slow_call_makes_those_after_it_late_but_not_slow() {
        let clock = Clock::calibrate();
        let every = 10 * MICRO;
        let part = Part {
            clock,
            pattern: Pattern::Paced { every },
            duration: every * 60,
            start: clock::now(),
            end: u64::MAX,
            first: 0,
            yields: false,
        };
        let (mut producer, mut notes) = (Slow(Vec::new()), Notes::new());
        calls(&mut producer, &part, &mut notes);
        assert_eq!(producer.0, (0..60).collect::<Vec<_>>());
        assert_eq!((notes.offered, notes.accepted), (60, 40));
        let (accepted, response) = (notes.service[0].percentiles(clock), notes.response.percentiles(clock));
        assert_eq!((accepted.count, response.count), (40, 60));
        // The schedule is 600 µs long and the slow call took 1000, so every call after it was at least 400 late.
        assert!(response.p50 > 400_000.0, "{response:?}");
        assert!(accepted.max >= 990_000.0, "{accepted:?}");
    }
}
