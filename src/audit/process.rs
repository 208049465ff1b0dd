//! How processes ended, and what it cost.
//!
//! A process says when it starts, about once a minute that it is running, and when it stops. One that says nothing for much longer than
//! that, and never that it stopped, has *ended without a word*: it was killed, or its machine was; or it lives and cannot reach
//! the stream, which looks the same from here.
//!
//! What such an end has cost is known in part, from what the process said last:
//!
//! ```text
//!   offers of a producer      1 ──────────── highest in the stream ─── last offer by the last report ─── last offer of all
//!                             holes here are             ▲                       ▲                         ▲
//!                             the verdict's              └──── missing: counted ─┘── nobody can know ──────┘
//! ```
//!
//! `missing` is exact, for what was offered by that report. What was offered after it is lost as far as it is not in the stream, and only the
//! process knew how much that was.

use super::Audit;
use crate::report::{Running, Started, Stopped};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Reports that may be late, or lost with a connection, before a process counts as ended.
const PATIENCE: f64 = 2.5;

/// What a process has said of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// The 16 digits of its producers' names.
    pub process: String,
    /// When it was last heard, by its own clock: the time of its last event or report in the stream.
    pub last_heard: DateTime<Utc>,
    /// Whether it said that it stopped; with partitions, in each stream where it was heard.
    pub stopped: bool,
    /// When it last told its ledger; none if it did not live so long.
    pub last_stats: Option<DateTime<Utc>>,
    /// Events that were queued, in flight or spooled then.
    pub held: u64,
    /// Events that had been offered by then and are behind all that is there of their producer, and not declared as lost.
    pub missing: u64,
    /// How often it tells its ledger, in seconds.
    pub stats_seconds: f64,
}

/// How a process ended, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It said that it stopped.
    Stopped,
    /// It was heard lately.
    Running,
    /// It has said nothing for long, nor that it stopped.
    WithoutAWord,
}

impl Process {
    /// What its silence until `now` says. Its clock and ours need to agree to within its interval.
    pub fn ending(&self, now: DateTime<Utc>) -> Ending {
        if self.stopped {
            return Ending::Stopped;
        }
        let patience = Duration::try_from_secs_f64(self.stats_seconds * PATIENCE).unwrap_or(Duration::MAX);
        // A process whose clock is ahead of ours was heard just now.
        let silence = (now - self.last_heard).to_std().unwrap_or_default();
        if silence <= patience { Ending::Running } else { Ending::WithoutAWord }
    }

    /// Adds what it has said in another stream.
    fn join(&mut self, other: Self) {
        self.last_heard = self.last_heard.max(other.last_heard);
        self.stopped &= other.stopped;
        self.held += other.held;
        self.missing += other.missing;
        self.stats_seconds = self.stats_seconds.max(other.stats_seconds);
        // The bound is that of the stream where the report is oldest.
        self.last_stats = self.last_stats.min(other.last_stats);
    }
}

/// The processes that have reported to these streams of one bus, in the order of their names.
pub fn processes(audits: &[Audit]) -> Vec<Process> {
    let mut processes: BTreeMap<String, Process> = BTreeMap::new();
    for process in audits.iter().flat_map(Audit::processes) {
        match processes.get_mut(&process.process) {
            Some(known) => known.join(process),
            None => drop(processes.insert(process.process.clone(), process)),
        }
    }
    processes.into_values().collect()
}

/// What an audit notes of a process as it reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// The time of its last message, as it stands there: it is read at the end, and not for each message.
    heard: String,
    pub(super) started: bool,
    stopped: bool,
    stats_seconds: Option<f64>,
    stats: Option<(String, Running)>,
}

impl Life {
    pub(super) fn hear(&mut self, timestamp: &str) {
        // What comes out of a spool was said earlier than what is in front of it.
        if second_of(timestamp) >= second_of(&self.heard) {
            self.heard.clear();
            self.heard.push_str(timestamp);
        }
    }

    pub(super) fn start(&mut self, started: &Started) {
        self.started = true;
        self.stats_seconds = Some(started.stats_seconds);
    }

    pub(super) fn run(&mut self, running: Running) {
        self.stats = Some((self.heard.clone(), running));
    }

    pub(super) fn stop(&mut self, _: &Stopped) {
        self.stopped = true;
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.stopped
    }
}

/// A timestamp up to its second, which has the same length in all of them, so that their order as texts is that of time.
fn second_of(timestamp: &str) -> &str {
    timestamp.get(.."2026-07-06T14:56:50".len()).unwrap_or(timestamp)
}

impl Audit {
    /// The processes that have reported so far, in the order of their names.
    pub fn processes(&self) -> impl Iterator<Item = Process> {
        let reporting =
            self.lives.iter().filter(|(_, life)| life.started || life.stopped || life.stats.is_some());
        reporting.map(|(name, life)| self.process_of(name, life))
    }

    fn process_of(&self, name: &str, life: &Life) -> Process {
        let read = |text: &str| DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).ok();
        let stats = life.stats.as_ref();
        let misses_all = self.from_the_start || life.started;
        let missing = |(_, running): &(String, Running)| {
            (0..)
                .zip(&running.offered)
                .map(|(ring, &offered)| self.missing_behind(name, ring, offered, misses_all))
                .sum()
        };
        Process {
            process: name.to_owned(),
            last_heard: read(&life.heard).unwrap_or_default(),
            stopped: life.stopped,
            last_stats: stats.and_then(|(at, _)| read(at)),
            held: stats.map_or(0, |(_, running)| running.ledger.held()),
            missing: stats.map_or(0, missing),
            stats_seconds: life.stats_seconds.unwrap_or(crate::report::STATS_INTERVAL.as_secs_f64()),
        }
    }

    /// Offers of a producer up to `offered` behind all that is known of it. Of one that is not there at all that is known only if nothing
    /// was cut off in front of what was read.
    fn missing_behind(&self, process: &str, ring: usize, offered: u64, misses_all: bool) -> u64 {
        match self.producers.get(&format!("{process}.{ring}")) {
            Some(numbers) => offered.saturating_sub(numbers.end()),
            None if misses_all => offered,
            None => 0,
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use crate::ledger::Stats;
    use crate::report::{Gap, Loss};

    const PROCESS: &str = "00000000000000aa";

    fn at(second: u32) -> String {
        format!("2026-07-06T14:56:{second:02}.5Z")
    }

    fn time(second: u32) -> DateTime<Utc> {
        at(second).parse().expect("it is one")
    }

    fn envelope(second: u32, producer: &str, seq: u64, body: &impl Serialize) -> String {
        let body = serde_json::to_string(body).expect("it is JSON");
        let timestamp = at(second);
        format!(
            r#"{{"version":"v1","timestamp":"{timestamp}","producer":"{PROCESS}.{producer}","seq":{seq},"body":{body}}}"#
        )
    }

    fn started(second: u32) -> String {
        let version = String::new();
        envelope(
            second,
            "bus",
            1,
            &Started { process: PROCESS.to_owned(), producers: 2, version, stats_seconds: 4.0 },
        )
    }

    fn running(second: u32, offered: [u64; 2], held: u64) -> String {
        let ledger = Stats { offered: offered.iter().sum(), queued: held, ..Stats::default() };
        envelope(second, "bus", 2, &Running { process: PROCESS.to_owned(), offered: offered.into(), ledger })
    }

    fn stopped(second: u32) -> String {
        let process = PROCESS.to_owned();
        envelope(second, "bus", 3, &Stopped { process, last: vec![0, 0], ledger: Stats::default() })
    }

    fn audit(messages: &[String]) -> Audit {
        let mut audit = Audit::new(false);
        messages.iter().for_each(|message| audit.observe(message.as_bytes()));
        audit
    }

    #[track_caller]
    fn only(audits: &[Audit]) -> Process {
        let mut processes = processes(audits);
        assert_eq!(processes.len(), 1);
        processes.remove(0)
    }

    #[test]
    fn a_process_that_said_that_it_stopped_has_stopped_however_long_ago() {
        let process = only(&[audit(&[started(1), stopped(2)])]);
        assert_eq!(process.ending(time(59)), Ending::Stopped);
    }

    #[test]
    fn silence_is_an_end_without_a_word_after_two_reports_and_a_half_were_due() {
        let process = only(&[audit(&[started(1), envelope(3, "0", 1, &1)])]);
        assert_eq!(process.last_heard, time(3));
        assert_eq!(process.ending(time(3)), Ending::Running);
        assert_eq!(process.ending(time(13)), Ending::Running);
        assert_eq!(process.ending(time(14)), Ending::WithoutAWord);
        assert_eq!(process.ending(time(1)), Ending::Running, "its clock is ahead of ours");
    }

    #[test]
    fn an_event_that_comes_late_out_of_a_spool_is_no_sign_of_silence() {
        let process = only(&[audit(&[started(1), envelope(7, "0", 2, &1), envelope(3, "0", 1, &1)])]);
        assert_eq!(process.last_heard, time(7));
    }

    #[test]
    fn what_was_offered_by_the_last_report_and_is_not_there_is_counted() {
        let mut messages = vec![started(1)];
        messages.extend((1..=3).map(|seq| envelope(2, "0", seq, &1)));
        messages.push(running(3, [5, 2], 6));
        let process = only(&[audit(&messages)]);
        assert_eq!((process.missing, process.held, process.last_stats), (4, 6, Some(time(3))));

        // More of the first producer came than it had offered by then, and one of the second.
        messages.extend((4..=9).map(|seq| envelope(4, "0", seq, &1)));
        messages.push(envelope(4, "1", 1, &1));
        assert_eq!(only(&[audit(&messages)]).missing, 1);

        let counts = vec![Loss { name: "a".to_owned(), reason: "queue_full".to_owned(), count: 1 }];
        let producer = format!("{PROCESS}.1");
        messages.push(envelope(5, "bus", 3, &Gap { producer, first: 2, last: 2, lost: 1, counts }));
        assert_eq!(only(&[audit(&messages)]).missing, 0, "it is declared");
    }

    #[test]
    fn a_process_that_never_told_its_ledger_leaves_no_bound() {
        let process = only(&[audit(&[started(1), envelope(2, "0", 1, &1)])]);
        assert_eq!((process.last_stats, process.missing, process.held), (None, 0, 0));
    }

    #[test]
    fn what_a_limit_has_cut_off_is_not_missed() {
        let process = only(&[audit(&[running(3, [5, 0], 0)])]);
        assert_eq!((process.missing, process.last_stats), (0, Some(time(3))));
        assert_eq!(only(&[audit(&[started(1), running(3, [5, 0], 0)])]).missing, 5);
    }

    #[test]
    fn producers_that_report_nothing_are_no_processes() {
        assert_eq!(processes(&[audit(&[envelope(1, "0", 1, &1)])]), []);
    }

    #[test]
    fn what_it_says_in_several_streams_is_added_up() {
        let one = audit(&[started(1), running(4, [5, 0], 2), stopped(9)]);
        let other = audit(&[started(1), running(3, [0, 7], 3)]);
        let process = only(&[one, other]);
        assert_eq!((process.missing, process.held, process.last_stats), (12, 5, Some(time(3))));
        assert_eq!((process.last_heard, process.stopped), (time(9), false));
    }
}
