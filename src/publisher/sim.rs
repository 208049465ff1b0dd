//! The simulator (`make sim`): the delivery core in a world that a seed has drawn.
//!
//! ```text
//!   threads ──► rings ──► Pipeline, the real one ──► network ──► server: a stream, batches, duplicate window, replicas
//!                            ▲                       │  ▲          │
//!                            └───────────────────────┘  └──────────┘
//!         delay, cuts, holes, ghosts, answers lost, doubled, late      restarts, elections, refusals, changes of the stream
//!                                         │
//!                                  judge: sees it all
//! ```
//!
//! The pipeline knows no clock and no socket, so an outage of a minute takes some microseconds, and a core runs thousands of
//! worlds a second. Each world is drawn from one number, so whatever goes wrong can be looked at again.
//!
//! | file | is |
//! | --- | --- |
//! | [`plan`] | what a seed draws: sizes, load, faults |
//! | [`run`] | one run, from the first event to the last ghost |
//! | [`client`] | the real pipeline, driven as worker and sink drive it |
//! | [`network`], [`server`], [`wire`] | the model, and what travels through it |
//! | [`judge`] | the promises, each looked at whenever it could break |
//! | [`effort`] | what the client may do of its own accord |
//! | [`limits`] | worlds in which a promise cannot be kept |
//!
//! Would the judge notice? Cores that were broken on purpose, and the first seed that failed, as seeds were drawn then:
//!
//! | broken | seed | found as |
//! | --- | --- | --- |
//! | the last message of an ended batch is not taken for stored | 2 | stored twice |
//! | after a disconnect a batch is sent again without being ended | 16801 | stored twice |
//! | the stream is never read back | 17 | no progress |
//! | a start bears no message id | 9036 | stored twice |
//! | what was overtaken is sent again | 12 | stored behind a later one |
//! | an acknowledgement counts for one message too many | 2 | acked and never stored |
//! | a message without an answer counts as not stored | 17 | stored twice |
//! | the reading begins one sequence too late | 885 | dropped and stored |
//! | one denial speaks for all messages to its subject | 154652 | dropped and stored |
//! | a denial counts although an earlier attempt may be meant | 20066556 | dropped and stored |
//! | what was refused while a later one was on its way is sent again | 14895425 | stored behind a later one |
//! | what waits for its subject is tried while what stands behind it is on its way | 67 | stored behind a later one |
//! | the same before what stands in front of it was sent again | 6409 | stored behind a later one |
//! | reports that wait take room from events | 1320 | no progress |
//! | a message in doubt that is refused is sent again, and not looked for | 2294 | no progress |
//!
//! The plan is TigerBeetle's (VOPR): faults first; then what the promise needs is healed and nothing else, and everything must
//! settle. A failing seed is reduced to the faults that it takes, and goes to `sim/seeds.txt`, which `make test` runs again for ever.
//!
//! ```sh
//! make sim SEEDS=20000 FROM=1          # so many seeds, from this one on
//! make sim SEED=123                    # one, told line by line
//! make sim SEED=123 ONLY=cut,restart   # the same with these faults only
//! ```

mod client;
mod effort;
mod judge;
mod limits;
mod network;
mod plan;
mod random;
mod run;
mod server;
mod trace;
mod wire;

use plan::{Kind, Plan};
use run::{Run, Summary};
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Instant;
use trace::Trace;

/// Virtual time, from the start of a run.
type Micros = u64;

/// Seeds that have failed, and what they found. They are drawn by the simulator as it is: when it changes they become seeds
/// like any others, so what they found has a test of its own beside them.
const FAILED: &str = include_str!("sim/seeds.txt");

/// Seeds in `make test`, beside those that have failed.
const SOME: u64 = 500;

#[test]
fn seeds_that_failed_once_pass() {
    let seeds = FAILED.lines().filter_map(|line| line.split_whitespace().next());
    for seed in seeds.filter(|word| !word.starts_with('#')) {
        try_seed(seed.parse().unwrap_or_else(|_| panic!("{seed:?} in sim/seeds.txt is no seed")));
    }
}

#[test]
fn some_seeds_pass() {
    many(1, SOME);
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 1..=50 {
        let runs = [(), ()].map(|()| format!("{:?}", run(seed, None, false)));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// What `make sim` runs: `JETRING_SIM` is `<from>+<seeds>`, or one seed, or one seed and faults, `<seed>:<fault>,<fault>`.
#[test]
#[ignore = "make sim"]
fn sim() {
    let wanted = std::env::var("JETRING_SIM").unwrap_or_else(|_| format!("1+{SOME}"));
    if let Some((from, seeds)) = wanted.split_once('+') {
        return many(number(from), number(seeds));
    }
    let (seed, only) = wanted.split_once(':').unwrap_or((&wanted, ""));
    let only: Vec<Kind> = only.split(',').filter(|name| !name.is_empty()).map(kind).collect();
    let only = (!only.is_empty()).then_some(&only[..]);
    println!("{:#?}", Plan::draw(number(seed), only));
    println!("{:?}", run(number(seed), only, true).unwrap_or_else(|broken| panic!("{broken}")));
}

fn kind(name: &str) -> Kind {
    name.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn many(from: u64, seeds: u64) {
    let began = Instant::now();
    let mut sum = [0; 6];
    for seed in from..from + seeds {
        let Summary { tally, steps } = try_seed(seed);
        let counts = [steps, tally.offered, tally.acked, tally.dropped, tally.indeterminate, tally.crashed];
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let [steps, offered, acked, dropped, indeterminate, crashed] = sum;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {from} pass: {steps} steps, {offered} events offered, {acked} acked, {dropped} dropped, \
         {indeterminate} indeterminate, {crashed} held by clients that crashed; {seconds:.1} s, {:.0} seeds/s",
        seeds as f64 / seconds
    );
}

/// Runs a seed, and if it fails says how to see it again.
fn try_seed(seed: u64) -> Summary {
    run(seed, None, false).unwrap_or_else(|broken| {
        let kinds = reduce(seed, &broken);
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let only = if names.is_empty() { String::new() } else { format!(" ONLY={}", names.join(",")) };
        panic!("seed {seed}: {broken}\nto see it: make sim SEED={seed}{only}")
    })
}

/// The faults that it takes to fail in the same way, found by leaving out one after the other.
fn reduce(seed: u64, broken: &str) -> Vec<Kind> {
    let words = |text: &str| text.replace(|character: char| character.is_ascii_digit(), "");

    let plan = Plan::draw(seed, None);
    let mut kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| plan.has(*kind)).collect();
    let mut at = 0;
    while at < kinds.len() {
        let kind = kinds.remove(at);
        let fails_so = run(seed, Some(&kinds), false).is_err_and(|other| words(&other) == words(broken));
        if !fails_so {
            kinds.insert(at, kind);
            at += 1;
        }
    }
    kinds
}

/// Runs a seed; an error says which promise was broken.
fn run(seed: u64, only: Option<&[Kind]>, is_told: bool) -> Result<Summary, String> {
    let plan = Plan::draw(seed, only);
    let run = Run::new(plan, Instant::now(), Trace { is_on: is_told });
    let result = quietly(|| panic::catch_unwind(AssertUnwindSafe(|| run.run())));
    result.map_err(|panic| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("panicked", |text| *text).to_owned(),
    })
}

thread_local! {
    /// Panics of this thread are caught and told by us.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Without the messages that a panic prints: reducing a seed makes dozens.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = run();
    QUIET.set(false);
    result
}
