//! The disk refuses: to write, to sync, for want of room; once, or for a while.

use super::*;
use crate::spool::storage::memory::Fault;

/// Appends and syncs, with one fault at `step` of it; then all is mended and goes on. Returns whether anything was refused.
fn with_fault(step: u64, fault: Fault) -> bool {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 3).unwrap();
    memory.fail_after(step, fault);
    let mut is_refused = false;
    for count in [2, 6, 1, 5, 4, 6] {
        is_refused |= append(&mut log, count).is_err();
        is_refused |= log.sync().is_err();
    }
    memory.mend();
    append(&mut log, 2).unwrap();
    log.sync().unwrap();
    assert!(!log.has_unsynced());
    let end = log.sequences().end;
    drop(log);
    memory.restart(step);
    let read = read_memory(&memory);
    read.assert_true();
    read.assert_holds(1..end);
    assert!(read.missing.is_empty(), "{fault:?} at {step}: {read:?}");
    is_refused
}

#[test]
fn a_fault_at_any_step_is_said_or_overcome_and_nothing_that_was_taken_is_lost() {
    for fault in [Fault::Io, Fault::Full] {
        let refused = (1..60).filter(|&step| with_fault(step, fault)).count();
        assert!(refused > 5, "{fault:?}: {refused}");
    }
}

#[test]
fn what_a_sync_refused_is_written_again_elsewhere_and_is_there_once() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 2).unwrap();
    log.sync().unwrap();
    append(&mut log, 2).unwrap();
    append(&mut log, 1).unwrap();
    memory.fail_after(1, Fault::Io);
    log.sync().unwrap();
    assert_eq!((log.counts().written, log.counts().synced), (5, 5));
    append(&mut log, 1).unwrap();
    log.sync().unwrap();
    drop(log);
    // Nothing but what was synced is left, and of the refused pages nothing is.
    memory.restart(7);
    let read = read_memory(&memory);
    read.assert_true();
    assert_eq!((read.records.len(), read.missing.is_empty()), (6, true), "{read:?}");
}

#[test]
fn while_a_disk_refuses_everything_nothing_is_taken_and_nothing_is_forgotten() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 4).unwrap();
    memory.break_down(Fault::Io);
    for _ in 0..10 {
        assert!(log.sync().is_err());
        assert!(append(&mut log, 1).is_err());
    }
    assert!(log.has_unsynced());
    memory.mend();
    log.sync().unwrap();
    drop(log);
    memory.restart(1);
    read_memory(&memory).assert_holds(1..5);
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let memory = Memory::new();
    memory.set_capacity(20_000);
    let (mut log, _) = open(&memory);
    let mut taken = 0;
    while append(&mut log, 4).is_ok() {
        taken += 4;
        log.sync().unwrap();
    }
    assert!(taken > 50, "{taken}");
    // The floor is kept, and the emergency room beside it.
    assert!(memory.space().unwrap().free >= 20_000 / 20);
    assert!(matches!(append(&mut log, 4), Err(Refusal::Full)));
    // What is urgent is taken for a while.
    let first = log.sequences().end;
    log.append(&mut batch(first..first + 1), true).unwrap();
    memory.set_capacity(40_000);
    append(&mut log, 4).unwrap();
    log.close().unwrap();
    let read = read_memory(&memory);
    read.assert_true();
    assert_eq!((read.records.len() as u64, read.missing.is_empty()), (taken + 5, true));
}

#[test]
fn a_disk_that_is_filled_by_others_in_mid_segment_loses_nothing_that_was_taken() {
    let memory = Memory::new();
    let (mut log, _) = open(&memory);
    append(&mut log, 1).unwrap();
    memory.break_down(Fault::Full);
    let refused = (0..5).filter(|_| append(&mut log, 1).is_err()).count();
    assert_eq!(refused, 5);
    memory.mend();
    append(&mut log, 1).unwrap();
    log.close().unwrap();
    let read = read_memory(&memory);
    assert_eq!((read.records.len(), read.missing.is_empty()), (2, true), "{read:?}");
}
