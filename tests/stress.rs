//! The ring under real threads, real schedulers and real signals, against an oracle that knows every record by heart.
//!
//! ```text
//!   producer 0 ──┐  offers 0, 1, 2, …            ┌─► every record intact, in order of its producer, once
//!   producer 1 ──┼───────► ring ───► consumer ───┤
//!   producer n ──┘  keeps what was not taken     └─► what is missing is exactly what the producers say was not taken
//! ```
//!
//! A record is a pure function of its producer and its number, and carries both with its length and a checksum. Producers
//! number *offers*, accepted or not, and remember the numbers that did not get in. So the oracle needs no shared state while
//! the threads run: the consumer lists the holes that it sees, and in the end the two lists must be the same. A lost, doubled,
//! reordered or torn record has no way to look like a refused one.
//!
//! [`run`] is the helper of all tests but one; a [`Trial`] says what a test varies. Loom explores the same protocol
//! exhaustively on tiny models; these tests are for what models leave out: the copy of many bytes, thousands of laps, and
//! threads that the kernel stops wherever it likes.

#![expect(unsafe_code, reason = "CPU affinity and signals are to be had from libc only")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jetring::__internals::{Consumer, Doorbell, LINE, Refusal, Ring};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long anything may take. Only a hang comes near it, even on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn nothing_is_lost_torn_doubled_or_reordered_on_two_cpus() {
    let outcome = run(&Trial { cpus: Cpus::Two, ..Trial::default() });
    assert!(outcome.accepted > 1000, "{outcome:?}");
}

#[test]
fn nothing_is_lost_torn_doubled_or_reordered_on_one_cpu() {
    let outcome = run(&Trial { cpus: Cpus::One, ..Trial::default() });
    assert!(outcome.accepted > 1000, "{outcome:?}");
}

#[test]
fn ten_thousand_threads_that_come_and_go_leave_nothing_behind() {
    let outcome = run(&Trial { producers: 10_000, at_once: 4, offers_each: 8, ..Trial::default() });
    assert_eq!(outcome.offered, 80_000);
}

#[test]
fn positions_pass_the_end_of_the_numbers_in_full_flight() {
    let start_line = (1 << 39) - 5000;
    let outcome = run(&Trial { start_line, ..Trial::default() });
    assert!(
        outcome.accepted > 5000,
        "each record takes a line or more, so that they pass the end: {outcome:?}"
    );
}

/// Contended is counted and allowed but not demanded: it takes 64 lost races in a row, and with two cores that is rare.
#[test]
fn sixteen_producers_on_a_small_ring_know_exactly_which_offers_were_refused() {
    let outcome = run(&Trial {
        producers: 16,
        at_once: 16,
        offers_each: 10_000,
        payload_bytes_max: 200,
        capacity_bytes: 32 * LINE,
        ..Trial::default()
    });
    assert!(outcome.full > 0 && outcome.accepted > 0, "{outcome:?}");
}

#[test]
fn a_consumer_that_parks_is_woken_for_every_record() {
    for producers in [1, 3] {
        let outcome = run(&Trial {
            producers,
            at_once: producers,
            offers_each: 20_000,
            payload_bytes_max: 40,
            consumer: Rest::Parked,
            ..Trial::default()
        });
        assert!(
            outcome.rings > 100,
            "the consumer hardly ever slept, so this has shown nothing: {outcome:?}"
        );
    }
}

#[test]
fn producers_that_a_signal_stops_inside_a_claim_harm_nobody() {
    install_sleeping_handler();
    let began = Instant::now();
    // Signals come by the clock and offers by the speed of the build, so it goes on until enough have met.
    while STOPS_INSIDE_A_CLAIM.load(Ordering::Relaxed) < 50 {
        let _ = run(&Trial { offers_each: 5_000, signals: true, ..Trial::default() });
        assert!(
            began.elapsed() < PATIENCE,
            "of {STOPS:?} stops {STOPS_INSIDE_A_CLAIM:?} were inside a claim"
        );
    }
}

/// As if a producer lost its CPU for long between claim and commit, at two places of the ring.
#[test]
fn records_behind_a_claim_that_is_held_open_come_out_in_the_order_of_claims() {
    let (ring, mut consumer) = Ring::new(256 * LINE, 512, Arc::new(Doorbell::new(|| {})));
    // Claims under this lock, so that the order of claims is known; commits come whenever they come.
    let claimed: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let hold_open = |producer| {
        let (ring, claimed) = (Arc::clone(&ring), Arc::clone(&claimed));
        let (is_claimed, when_claimed) = mpsc::channel();
        let (go_on, when_to_go_on) = mpsc::channel::<()>();
        let holder = thread::spawn(move || {
            let record = record(producer, 0, 400);
            let mut order = claimed.lock().unwrap();
            let mut claim = ring.claim(record.len()).unwrap();
            order.push(record.clone());
            drop(order);
            is_claimed.send(()).unwrap();
            when_to_go_on.recv_timeout(PATIENCE).unwrap();
            claim.fill(&[&record]);
            claim.commit();
        });
        when_claimed.recv_timeout(PATIENCE).unwrap();
        (holder, go_on)
    };
    let push_until = |producers: [u32; 3], refused_or: usize| {
        let pushers = producers.map(|producer| {
            let (ring, claimed) = (Arc::clone(&ring), Arc::clone(&claimed));
            thread::spawn(move || {
                for seq in 0..refused_or as u64 {
                    let record = record(producer, seq, 400);
                    let mut order = claimed.lock().unwrap();
                    if let Err(refusal) = ring.push(&[&record]) {
                        assert_eq!(refusal, Refusal::Full);
                        return true;
                    }
                    order.push(record);
                }
                false
            })
        });
        pushers.map(|pusher| pusher.join().unwrap())
    };

    let first = hold_open(0);
    assert_eq!(push_until([1, 2, 3], 5), [false; 3]);
    let second = hold_open(4);
    assert_eq!(push_until([5, 6, 7], usize::MAX), [true; 3]);

    let nothing = consumer.drain(usize::MAX, |_| panic!("the claim at the head is not committed"));
    assert!(nothing.pending && nothing.records == 0 && ring.would_refuse(512) == Some(Refusal::Full));

    let mut drained = Vec::new();
    for ((holder, go_on), pending_then) in [(first, true), (second, false)] {
        go_on.send(()).unwrap();
        holder.join().unwrap();
        let batch = consumer.drain(usize::MAX, |bytes| drained.push(bytes.to_vec()));
        assert_eq!(batch.pending, pending_then);
    }
    assert!(
        drained == *claimed.lock().unwrap(),
        "the records are not those that were claimed, or not in that order"
    );
    assert_eq!((consumer.claimed(), ring.used_bytes()), (consumer.taken(), 0));
}

/// What a test varies.
#[derive(Clone, Debug)]
struct Trial {
    producers: u32,
    /// How many of the producers live at the same time; the others follow when these have ended.
    at_once: u32,
    offers_each: u64,
    payload_bytes_max: usize,
    capacity_bytes: usize,
    start_line: u64,
    cpus: Cpus,
    consumer: Rest,
    /// Whether signals stop the producers at random moments.
    signals: bool,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            producers: 4,
            at_once: 4,
            offers_each: 25_000,
            payload_bytes_max: 480,
            capacity_bytes: 1024 * LINE,
            start_line: 0,
            cpus: Cpus::Any,
            consumer: Rest::Polling,
            signals: false,
        }
    }
}

/// What the consumer does when there is nothing to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It looks again.
    Polling,
    /// It parks, and its producers wait for each of their bursts to be seen: a wake that is lost stops everything.
    Parked,
}

/// What has become of the offers of one producer, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    offered: u64,
    accepted: u64,
    full: u64,
    contended: u64,
    /// Claimed, and dropped without a commit.
    given_up: u64,
    /// Wakes that producers have made.
    rings: u64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.offered += other.offered;
        self.accepted += other.accepted;
        self.full += other.full;
        self.contended += other.contended;
        self.given_up += other.given_up;
        self.rings += other.rings;
    }
}

/// What the threads of a trial share besides the ring.
struct Stage {
    trial: Trial,
    ring: Arc<Ring>,
    bell: Arc<Bell>,
    began: Instant,
    /// The number after the last record that the consumer has seen, for each producer.
    seen: Vec<AtomicU64>,
    /// Set when the last producer has ended.
    finished: AtomicBool,
    targets: Targets,
}

/// Runs a trial and holds the oracle against it.
fn run(trial: &Trial) -> Outcome {
    let bell = Arc::new(Bell::default());
    let doorbell = {
        let bell = Arc::clone(&bell);
        Arc::new(Doorbell::new(move || {
            bell.rings.fetch_add(1, Ordering::Relaxed);
            bell.ring();
        }))
    };
    let record_bytes_max = HEADER_BYTES + trial.payload_bytes_max;
    let (ring, consumer) =
        Ring::starting_at(trial.start_line, trial.capacity_bytes, record_bytes_max, Arc::clone(&doorbell));
    let stage = Arc::new(Stage {
        trial: trial.clone(),
        ring,
        bell: Arc::clone(&bell),
        began: Instant::now(),
        seen: (0..trial.producers).map(|_| AtomicU64::new(0)).collect(),
        finished: AtomicBool::new(false),
        targets: Targets::default(),
    });

    let reader = {
        let stage = Arc::clone(&stage);
        thread::spawn(move || consume(&stage, consumer, &doorbell))
    };
    let mut lanes = Vec::new();
    for lane in 0..trial.at_once {
        let stage = Arc::clone(&stage);
        lanes.push(thread::spawn(move || produce_lane(&stage, lane)));
    }
    let disturber = trial.signals.then(|| {
        let stage = Arc::clone(&stage);
        thread::spawn(move || disturb(&stage))
    });
    let tallies: Vec<_> = lanes.into_iter().flat_map(|lane| lane.join().unwrap()).collect();
    stage.finished.store(true, Ordering::Release);
    bell.ring();
    let (mut consumer, mut reader) = reader.join().unwrap();
    if let Some(disturber) = disturber {
        disturber.join().unwrap();
    }

    // The consumer has stopped somewhere, with records left in the ring or not: the balance holds at any moment.
    let mut sum = Outcome { rings: bell.rings.load(Ordering::Relaxed), ..Outcome::default() };
    tallies.iter().for_each(|tally| sum += tally.outcome);
    let in_ring = consumer.claimed() - consumer.taken();
    assert_eq!(sum.offered, u64::from(trial.producers) * trial.offers_each);
    assert_eq!(sum.offered, reader.records + reader.aborted + in_ring + sum.full + sum.contended, "{sum:?}");

    let rest = consumer.drain(usize::MAX, |bytes| reader.see(bytes, &stage));
    reader.records += rest.records as u64;
    reader.aborted += rest.aborted as u64;
    assert!(!rest.pending && !consumer.has_claims() && stage.ring.used_bytes() == 0);
    assert_eq!(
        (consumer.claimed(), consumer.taken()),
        (sum.accepted + sum.given_up, sum.accepted + sum.given_up)
    );
    assert_eq!((reader.records, reader.aborted), (sum.accepted, sum.given_up));
    assert!(sum.rings <= reader.rests, "{} wakes for {} sleeps", sum.rings, reader.rests);
    for tally in tallies {
        let missing = reader.missing_of(tally.producer, trial.offers_each);
        assert!(
            missing == tally.not_taken,
            "producer {}: what is missing is not what was refused",
            tally.producer
        );
    }
    sum
}

/// What a producer says of its offers.
struct Tally {
    producer: u32,
    outcome: Outcome,
    /// The numbers of the offers that cannot come out of the ring, ascending.
    not_taken: Vec<u64>,
}

/// Runs every `at_once`-th producer, one after the other, each on a thread of its own.
fn produce_lane(stage: &Arc<Stage>, lane: u32) -> Vec<Tally> {
    (lane..stage.trial.producers)
        .step_by(stage.trial.at_once as usize)
        .map(|producer| {
            let stage = Arc::clone(stage);
            thread::spawn(move || {
                stage.trial.cpus.pin(producer);
                stage.targets.with_me_in(|| produce(&stage, producer))
            })
            .join()
            .unwrap()
        })
        .collect()
}

fn produce(stage: &Stage, producer: u32) -> Tally {
    let mut tally = Tally { producer, outcome: Outcome::default(), not_taken: Vec::new() };
    let mut random = Random::new(u64::from(producer));
    for seq in 0..stage.trial.offers_each {
        stage.assert_in_time("a producer");
        let record = record(producer, seq, stage.trial.payload_bytes_max);
        let outcome = &mut tally.outcome;
        outcome.offered += 1;
        let gives_up = random.below(50) == 0;
        match offer(stage, &record, gives_up) {
            Ok(()) if gives_up => outcome.given_up += 1,
            Ok(()) => {
                outcome.accepted += 1;
                stage.pause_after(producer, seq, &mut random);
                continue;
            }
            Err(refusal) => {
                match refusal {
                    Refusal::Full => outcome.full += 1,
                    Refusal::Contended => outcome.contended += 1,
                    Refusal::TooLong | Refusal::Closed => panic!("{refusal:?}"),
                }
                // A producer that sheds goes on with other work; here that is letting the consumer have the CPU.
                thread::yield_now();
            }
        }
        tally.not_taken.push(seq);
    }
    tally
}

/// Offers a record, by `push` or, with the same effect, step by step.
fn offer(stage: &Stage, record: &[u8], gives_up: bool) -> Result<(), Refusal> {
    let (header, payload) = record.split_at(HEADER_BYTES);
    if !gives_up && !stage.trial.signals {
        return stage.ring.push(&[header, payload]);
    }
    let mut claim = stage.ring.claim(record.len())?;
    INSIDE_A_CLAIM.with(|inside| inside.store(true, Ordering::SeqCst));
    if stage.trial.signals {
        // Copies it many times over, so that most of the time is spent, and most signals come, inside the claim.
        (0..20).for_each(|_| claim.fill(&[header, payload]));
    }
    if gives_up {
        drop(claim);
    } else {
        claim.fill(&[header, payload]);
        claim.commit();
    }
    INSIDE_A_CLAIM.with(|inside| inside.store(false, Ordering::SeqCst));
    Ok(())
}

impl Stage {
    /// With a consumer that parks: waits now and then until the record has been seen, and then a little longer, so that the
    /// next one meets the consumer at all stages of falling asleep.
    fn pause_after(&self, producer: u32, seq: u64, random: &mut Random) {
        if self.trial.consumer == Rest::Polling || random.below(4) == 0 {
            return;
        }
        for turn in 0u64.. {
            if self.seen[producer as usize].load(Ordering::Acquire) > seq {
                break;
            }
            std::hint::spin_loop();
            // Mostly it spins: the moment between the consumer's last look and its sleep is far shorter than a yield.
            if turn % 1000 == 999 {
                self.assert_in_time("a record in the ring of a sleeping consumer");
                thread::yield_now();
            }
        }
        (0..random.below(64)).for_each(|_| std::hint::spin_loop());
    }

    fn assert_in_time(&self, who: &str) {
        assert!(self.began.elapsed() < PATIENCE, "{who} has waited for {PATIENCE:?}");
    }
}

/// What the consumer has seen.
struct Reader {
    records: u64,
    aborted: u64,
    /// How often it lay down to sleep.
    rests: u64,
    /// For each producer: the number that must come next at the earliest, and the numbers that were skipped.
    expected: Vec<(u64, Vec<u64>)>,
}

/// Drains until the last producer has ended.
fn consume(stage: &Stage, mut consumer: Consumer, doorbell: &Doorbell) -> (Consumer, Reader) {
    stage.trial.cpus.pin(1);
    stage.bell.belongs_to_me();
    let expected = vec![(0, Vec::new()); stage.trial.producers as usize];
    let mut reader = Reader { records: 0, aborted: 0, rests: 0, expected };
    let mut random = Random::new(99);
    while !stage.finished.load(Ordering::Acquire) {
        let batch = 1 + random.below(64) as usize;
        let drained = consumer.drain(batch, |bytes| reader.see(bytes, stage));
        reader.records += drained.records as u64;
        reader.aborted += drained.aborted as u64;
        stage.assert_in_time("the consumer");
        if drained.records + drained.aborted > 0 {
            continue;
        }
        if stage.trial.consumer == Rest::Polling {
            thread::yield_now();
            continue;
        }
        reader.rests += 1;
        // Dawdles for as long as a producer takes to make a record, so that claims come between the last look and the sleep.
        (0..random.below(400)).for_each(|_| std::hint::spin_loop());
        if doorbell.park(|| consumer.has_claims()) {
            stage.bell.wait(stage);
            doorbell.wake_up();
        }
    }
    (consumer, reader)
}

impl Reader {
    fn see(&mut self, bytes: &[u8], stage: &Stage) {
        let (producer, seq) = identify(bytes);
        assert!(
            bytes == record(producer, seq, stage.trial.payload_bytes_max),
            "a record is not what its producer wrote"
        );
        let (next, skipped) = &mut self.expected[producer as usize];
        assert!(
            seq >= *next,
            "record {seq} of producer {producer} comes a second time or too late, after {next}"
        );
        skipped.extend(*next..seq);
        *next = seq + 1;
        stage.seen[producer as usize].store(seq + 1, Ordering::Release);
    }

    /// The numbers of all offers of a producer that did not come out of the ring.
    fn missing_of(&mut self, producer: u32, offers: u64) -> Vec<u64> {
        let (next, mut missing) = std::mem::take(&mut self.expected[producer as usize]);
        missing.extend(next..offers);
        missing
    }
}

/// Wakes the consumer's thread, and remembers it if that was not asleep yet.
#[derive(Default)]
struct Bell {
    sleeper: OnceLock<Thread>,
    rung: AtomicBool,
    /// Wakes by producers.
    rings: AtomicU64,
}

impl Bell {
    fn belongs_to_me(&self) {
        self.sleeper.set(thread::current()).unwrap();
    }

    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    fn wait(&self, stage: &Stage) {
        while !self.rung.swap(false, Ordering::Acquire) {
            thread::park_timeout(PATIENCE);
            stage.assert_in_time("the sleeping consumer");
        }
    }
}

/// Bytes in front of the payload: producer, number, length of the record, checksum of all the rest.
const HEADER_BYTES: usize = 4 + 8 + 4 + 8;
const CHECKSUM_AT: usize = HEADER_BYTES - 8;

/// The record of an offer, a pure function: anybody can write it again and compare.
fn record(producer: u32, seq: u64, payload_bytes_max: usize) -> Vec<u8> {
    let mut random = Random::new((u64::from(producer) << 40) ^ seq);
    let len = HEADER_BYTES + random.below(payload_bytes_max as u64 + 1) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&producer.to_le_bytes());
    bytes.extend_from_slice(&seq.to_le_bytes());
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Whose record this is; panics when it is not a whole one.
fn identify(bytes: &[u8]) -> (u32, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(half(12) as usize, bytes.len(), "a record has another length than its producer gave it");
    assert_eq!(word(CHECKSUM_AT), checksum(bytes), "a record is torn");
    (half(0), word(4))
}

/// FNV-1a over all bytes but its own place.
fn checksum(bytes: &[u8]) -> u64 {
    let (before, after) = (&bytes[..CHECKSUM_AT], &bytes[HEADER_BYTES..]);
    before.iter().chain(after).fold(0xcbf2_9ce4_8422_2325, |sum: u64, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// SplitMix64: enough for lengths and pauses, and the same in each run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Where the producers and the consumer run. Only threads of the trial are pinned, never the one that runs the test, which
/// `cargo test` may use for another test afterwards.
#[derive(Clone, Copy, Debug)]
enum Cpus {
    Any,
    One,
    Two,
}

impl Cpus {
    /// Binds the calling thread, the `number`-th of its trial, to one CPU.
    fn pin(self, number: u32) {
        let count = match self {
            Self::Any => return,
            Self::One => 1,
            Self::Two => 2,
        };
        // SAFETY: a `cpu_set_t` is a plain array of bits, for which all zeros is a value.
        let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live set of the size that is given with it.
        let got = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut allowed) };
        assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
        let cpus: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
            // SAFETY: the number is below CPU_SETSIZE.
            .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) })
            .take(count)
            .collect();
        let mine = cpus[number as usize % cpus.len()];
        // SAFETY: as above, all zeros is the empty set.
        let mut only: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the number is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(mine, &mut only) };
        // SAFETY: the pointer is to a live set of the size that is given with it; 0 is the calling thread.
        let set = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const only) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

/// How often the handler has stopped a thread, and how often that was between claim and commit.
static STOPS: AtomicU64 = AtomicU64::new(0);
static STOPS_INSIDE_A_CLAIM: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Constant at the start and nothing to drop, so that a signal handler may look at it.
    static INSIDE_A_CLAIM: AtomicBool = const { AtomicBool::new(false) };
}

/// Takes the CPU away from the thread for a millisecond, wherever it is.
extern "C" fn sleep_a_millisecond(_signal: libc::c_int) {
    STOPS.fetch_add(1, Ordering::Relaxed);
    if INSIDE_A_CLAIM.with(|inside| inside.load(Ordering::SeqCst)) {
        STOPS_INSIDE_A_CLAIM.fetch_add(1, Ordering::Relaxed);
    }
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // SAFETY: `nanosleep` may be called in a handler, and reads a live timespec.
    unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
}

fn install_sleeping_handler() {
    // SAFETY: all zeros is a `sigaction` with the default handler and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = sleep_a_millisecond as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler has the signature for flags without SA_SIGINFO, and does only what a handler may.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

/// The producers that live at this moment and may be sent a signal.
#[derive(Default)]
struct Targets(Mutex<Vec<libc::pthread_t>>);

impl Targets {
    fn with_me_in<R>(&self, work: impl FnOnce() -> R) -> R {
        // SAFETY: it has no precondition.
        let me = unsafe { libc::pthread_self() };
        self.0.lock().unwrap().push(me);
        // Also when `work` panics the thread must be off the list before it ends.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        self.0.lock().unwrap().retain(|&target| target != me);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Sends signals to producers at random moments until they have ended.
fn disturb(stage: &Stage) {
    let mut random = Random::new(7);
    while !stage.finished.load(Ordering::Acquire) {
        {
            let targets = stage.targets.0.lock().unwrap();
            if !targets.is_empty() {
                let target = targets[random.below(targets.len() as u64) as usize];
                // SAFETY: the thread lives: it leaves the list before it ends, and we hold the list.
                let sent = unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
                assert_eq!(sent, 0);
            }
        }
        thread::sleep(Duration::from_micros(100 + random.below(900)));
    }
}
