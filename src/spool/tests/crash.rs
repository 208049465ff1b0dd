//! The power fails at every step of a life of the log, and again at every step of the recovery.
//!
//! The oracle is dull: the records are what their sequences say, and it remembers how many were appended, and up to where a sync had
//! said yes. After any crash everything that was synced must be there, once, in order, with nothing missing; of the rest any part
//! may be there, and is what was written.

use super::*;
use crate::spool::storage::memory::{Fault, SplitMix};
use proptest::prelude::*;

/// What an owner does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Append(u64),
    Sync,
    /// Closes the log, and opens it again.
    Reopen,
    /// The process is killed, and another one opens the log.
    Kill,
}

/// What has to be there.
#[derive(Clone, Copy, Debug, Default)]
struct Oracle {
    /// Sequences up to here were appended, in the life of the power.
    appended: u64,
    /// Up to here a sync said yes.
    synced: u64,
    /// The lowest that has to be there.
    start: u64,
}

/// Lives on a disk until it crashes, or is through.
fn live(memory: &Memory, options: Options, script: &[Step], oracle: &mut Oracle) {
    let opened = |oracle: &mut Oracle| {
        let (log, _) = Log::open(Arc::new(memory.clone()), options).ok()?;
        oracle.appended = oracle.appended.max(log.sequences().end - 1);
        Some(log)
    };
    let Some(mut log) = opened(oracle) else { return };
    for step in script {
        match *step {
            Step::Append(count) => {
                let first = log.sequences().end;
                let Ok(appended) = log.append(&mut batch(first..first + count), false) else {
                    if memory.has_crashed() {
                        return std::mem::forget(log);
                    }
                    continue;
                };
                oracle.appended = appended.end - 1;
                oracle.start = log.sequences().start;
            }
            Step::Sync => {
                if log.sync().is_ok() {
                    oracle.synced = oracle.appended;
                }
            }
            Step::Reopen => {
                if log.close().is_ok() {
                    oracle.synced = oracle.appended;
                }
                let Some(reopened) = opened(oracle) else { return };
                log = reopened;
            }
            Step::Kill => {
                std::mem::forget(log);
                if memory.has_crashed() {
                    return;
                }
                memory.kill();
                let Some(reopened) = opened(oracle) else { return };
                log = reopened;
            }
        }
        if memory.has_crashed() {
            return std::mem::forget(log);
        }
    }
    std::mem::forget(log);
}

/// After a crash, and after a second one in the recovery from it.
#[track_caller]
fn judge(memory: &Memory, options: Options, oracle: Oracle, seed: u64, second_crash: Option<u64>) {
    memory.restart(seed);
    let before = read_memory(memory);
    before.assert_true();
    before.assert_holds(oracle.start.max(1)..oracle.synced + 1);
    if let Some(steps) = second_crash {
        memory.fail_after(steps, Fault::Crash);
        if let Ok((log, _)) = Log::open(Arc::new(memory.clone()), options) {
            std::mem::forget(log);
        }
        memory.restart(seed.wrapping_add(1));
    }
    let (mut log, _) = Log::open(Arc::new(memory.clone()), options).expect("no state prevents a start");
    assert!(log.sequences().end > oracle.synced, "a sequence would be used twice");
    append(&mut log, 2).expect("there is room");
    // Room may have been made for them.
    let (start, end) = (log.sequences().start.max(oracle.start), log.sequences().end);
    log.close().expect("nothing is wrong any more");
    let after = read_memory(memory);
    after.assert_true();
    after.assert_holds(start..oracle.synced + 1);
    after.assert_holds(end - 2..end);
    let torn_or_none = after.damage.iter().all(|damage| damage.kind == super::super::Kind::Torn);
    assert!(torn_or_none, "{:?}", after.damage);
}

const SCRIPT: [Step; 14] = [
    Step::Append(3),
    Step::Sync,
    Step::Append(5),
    Step::Append(4),
    Step::Kill,
    Step::Append(2),
    Step::Sync,
    Step::Reopen,
    Step::Append(6),
    Step::Append(6),
    Step::Append(6),
    Step::Sync,
    Step::Append(1),
    Step::Reopen,
];

fn steps_of(options: Options, script: &[Step]) -> u64 {
    let memory = Memory::new();
    live(&memory, options, script, &mut Oracle::default());
    memory.steps()
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_synced() {
    let steps = steps_of(options(), &SCRIPT);
    assert!(steps > 60, "{steps}");
    for step in 1..=steps {
        for seed in 0..8 {
            let (memory, mut oracle) = (Memory::new(), Oracle::default());
            memory.fail_after(step, Fault::Crash);
            live(&memory, options(), &SCRIPT, &mut oracle);
            judge(&memory, options(), oracle, seed, None);
        }
    }
}

#[test]
fn a_second_crash_at_any_step_of_the_recovery_changes_nothing() {
    let steps = steps_of(options(), &SCRIPT);
    for step in 1..=steps {
        // A recovery is a few steps; those beyond it fall into the first appends.
        for second in 1..=8 {
            let (memory, mut oracle) = (Memory::new(), Oracle::default());
            memory.fail_after(step, Fault::Crash);
            live(&memory, options(), &SCRIPT, &mut oracle);
            judge(&memory, options(), oracle, step * 31 + second, Some(second));
        }
    }
}

#[test]
fn a_crash_at_any_step_of_an_eviction_loses_only_what_was_evicted() {
    let options = Options { max_bytes: 12_000, when_full: SpoolFull::DropOldest, ..options() };
    let script: Vec<Step> = (0..30).flat_map(|_| [Step::Append(5), Step::Sync]).collect();
    let steps = steps_of(options, &script);
    for step in 1..=steps {
        let (memory, mut oracle) = (Memory::new(), Oracle::default());
        memory.fail_after(step, Fault::Crash);
        live(&memory, options, &script, &mut oracle);
        // The oldest segment may have gone in the very step that failed; what was to go is said by the position.
        memory.restart(step);
        let survey = Survey::take(&memory).unwrap();
        oracle.start = survey.position.position.map_or(1, |position| position.start).max(oracle.start);
        judge(&memory, options, oracle, step, Some(step % 9));
    }
}

fn any_script() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..9u64).prop_map(Step::Append),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_life_with_any_faults_keeps_what_was_synced(
        script in any_script(),
        faults in prop::collection::vec((1..60u64, prop::bool::ANY), 0..4),
        crash in 1..120u64,
        second in prop::option::of(1..12u64),
        seed in any::<u64>(),
    ) {
        let (memory, mut oracle) = (Memory::new(), Oracle::default());
        for (step, is_full) in faults {
            memory.fail_after(step, if is_full { Fault::Full } else { Fault::Io });
        }
        memory.fail_after(crash, Fault::Crash);
        live(&memory, options(), &script, &mut oracle);
        judge(&memory, options(), oracle, seed, second);
    }
}

#[test]
fn the_judge_notices_a_log_that_forgets() {
    let (memory, mut oracle) = (Memory::new(), Oracle::default());
    live(&memory, options(), &SCRIPT[..3], &mut oracle);
    oracle.synced = oracle.appended;
    // What was appended and not synced counts as synced: some seed must lose it.
    let forgets = |seed| {
        let (memory, mut again) = (Memory::new(), Oracle::default());
        live(&memory, options(), &SCRIPT[..3], &mut again);
        memory.restart(SplitMix(seed).next());
        let read = read_memory(&memory);
        (1..=oracle.synced).any(|sequence| !read.records.contains_key(&sequence))
    };
    assert!((0..50).any(forgets));
}
