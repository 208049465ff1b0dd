//! Lists of operations on a ring, from one thread, against a queue of byte strings that counts lines.
//!
//! One thread can do all that the protocol is about but races: hold claims open and commit them in any order, give them up,
//! fill the ring to the last line, close it, and start anywhere in the numbers. The oracle knows exactly when a claim is
//! refused and why, and what a drain hands out, skips and stops at.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use arbitrary::Arbitrary;
use jetring::__internals::{Claim, Consumer, Doorbell, LINE, Refusal, Ring};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use std::sync::Arc;

/// Claims that may be open at once: enough for any order of commits.
const HELD_MAX: usize = 8;

#[derive(Arbitrary, Debug)]
struct Input {
    start_line: u64,
    /// The ring holds 2, 4, … 512 lines.
    capacity_class: u8,
    record_bytes_max: u16,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Debug)]
enum Op {
    Push {
        len: u16,
        byte: u8,
    },
    ClaimAndDrop {
        len: u16,
    },
    Hold {
        len: u16,
        byte: u8,
    },
    /// Commits one of the claims that are held open, or gives it up.
    Finish {
        which: u8,
        commit: bool,
    },
    Drain {
        records_max: u8,
    },
    Close,
}

/// A claim as the oracle sees it.
struct Entry {
    lines: usize,
    state: State,
}

enum State {
    Open,
    Ready(Vec<u8>),
    GivenUp,
}

/// A claim that is held open, with what will be in it; `number` counts claims from the first one of the ring.
struct Held<'ring> {
    claim: Claim<'ring>,
    bytes: Vec<u8>,
    number: u64,
}

struct Oracle {
    capacity_lines: usize,
    record_bytes_max: usize,
    closed: bool,
    entries: VecDeque<Entry>,
    taken: u64,
}

impl Oracle {
    fn used_lines(&self) -> usize {
        self.entries.iter().map(|entry| entry.lines).sum()
    }

    fn refusal(&self, len: usize) -> Option<Refusal> {
        if len > self.record_bytes_max {
            Some(Refusal::TooLong)
        } else if self.closed {
            Some(Refusal::Closed)
        } else if self.used_lines() + lines(len) > self.capacity_lines {
            Some(Refusal::Full)
        } else {
            None
        }
    }

    fn add(&mut self, len: usize, state: State) -> u64 {
        self.entries.push_back(Entry { lines: lines(len), state });
        self.claimed() - 1
    }

    fn claimed(&self) -> u64 {
        self.taken + self.entries.len() as u64
    }

    fn settle(&mut self, number: u64, state: State) {
        self.entries[(number - self.taken) as usize].state = state;
    }

    /// What a drain hands out, how many given-up claims it skips, and whether it stops at an open one.
    fn drain(&mut self, records_max: usize) -> (Vec<Vec<u8>>, usize, bool) {
        let (mut records, mut aborted) = (Vec::new(), 0);
        while records.len() < records_max {
            match self.entries.front_mut() {
                None => break,
                Some(Entry { state: State::Open, .. }) => return (records, aborted, true),
                Some(Entry { state: State::GivenUp, .. }) => aborted += 1,
                Some(Entry { state: State::Ready(bytes), .. }) => records.push(std::mem::take(bytes)),
            }
            self.entries.pop_front();
            self.taken += 1;
        }
        (records, aborted, false)
    }
}

fn lines(len: usize) -> usize {
    len.div_ceil(LINE).max(1)
}

fuzz_target!(|input: Input| {
    let capacity_lines = 2 << (input.capacity_class % 9);
    // The longest record that the ring may be made for is half of it.
    let record_bytes_max = usize::from(input.record_bytes_max) % (capacity_lines / 2 * LINE + 1);
    let doorbell = Arc::new(Doorbell::new(|| {}));
    let (ring, mut consumer) =
        Ring::starting_at(input.start_line, capacity_lines * LINE, record_bytes_max, doorbell);
    let mut oracle =
        Oracle { capacity_lines, record_bytes_max, closed: false, entries: VecDeque::new(), taken: 0 };
    let mut held: Vec<Held<'_>> = Vec::new();

    for op in input.ops {
        match op {
            Op::Push { len, byte } => {
                let bytes = contents(cap(len, record_bytes_max), byte);
                let (left, right) = bytes.split_at(bytes.len() / 3);
                let refusal = oracle.refusal(bytes.len());
                assert_eq!(ring.push(&[left, right]).err(), refusal);
                if refusal.is_none() {
                    oracle.add(bytes.len(), State::Ready(bytes));
                }
            }
            Op::ClaimAndDrop { len } => {
                let len = cap(len, record_bytes_max);
                let refusal = oracle.refusal(len);
                assert_eq!(ring.claim(len).map(drop).err(), refusal);
                if refusal.is_none() {
                    oracle.add(len, State::GivenUp);
                }
            }
            Op::Hold { len, byte } if held.len() < HELD_MAX => {
                let bytes = contents(cap(len, record_bytes_max), byte);
                let refusal = oracle.refusal(bytes.len());
                match ring.claim(bytes.len()) {
                    Ok(claim) => {
                        assert_eq!(refusal, None);
                        let number = oracle.add(bytes.len(), State::Open);
                        held.push(Held { claim, bytes, number });
                    }
                    Err(error) => assert_eq!(Some(error), refusal),
                }
            }
            Op::Finish { which, commit } if !held.is_empty() => {
                let one = held.swap_remove(usize::from(which) % held.len());
                finish(one, commit, &mut oracle);
            }
            Op::Hold { .. } | Op::Finish { .. } => {}
            Op::Drain { records_max } => drain(&mut consumer, usize::from(records_max), &mut oracle),
            Op::Close => {
                ring.close();
                oracle.closed = true;
            }
        }
        assert_eq!(ring.used_bytes(), oracle.used_lines() * LINE);
        assert_eq!((consumer.claimed(), consumer.taken()), (oracle.claimed(), oracle.taken));
        assert_eq!(consumer.has_claims(), !oracle.entries.is_empty());
        assert_eq!(ring.is_closed(), oracle.closed);
        if !oracle.closed {
            assert_eq!(ring.would_refuse(record_bytes_max), oracle.refusal(record_bytes_max));
        }
    }

    held.into_iter().for_each(|one| finish(one, true, &mut oracle));
    drain(&mut consumer, usize::MAX, &mut oracle);
    assert_eq!((consumer.claimed(), ring.used_bytes()), (consumer.taken(), 0));
});

fn finish(held: Held<'_>, commit: bool, oracle: &mut Oracle) {
    let Held { mut claim, bytes, number } = held;
    claim.fill(&[&bytes]);
    if commit {
        claim.commit();
        oracle.settle(number, State::Ready(bytes));
    } else {
        drop(claim);
        oracle.settle(number, State::GivenUp);
    }
}

fn drain(consumer: &mut Consumer, records_max: usize, oracle: &mut Oracle) {
    let mut records = Vec::new();
    let drained = consumer.drain(records_max, |bytes| records.push(bytes.to_vec()));
    assert_eq!(drained.records, records.len());
    assert_eq!((records, drained.aborted, drained.pending), oracle.drain(records_max));
}

/// Most lengths fit; one in a while is too long by one.
fn cap(len: u16, record_bytes_max: usize) -> usize {
    usize::from(len) % (record_bytes_max + 2)
}

/// Each byte differs from its neighbours, so that a part at the wrong place shows.
fn contents(len: usize, byte: u8) -> Vec<u8> {
    (0..len).map(|at| byte.wrapping_add((at * 31) as u8)).collect()
}
