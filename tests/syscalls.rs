//! A publish makes no system call, but for a wake of a worker that sleeps.
//!
//! The kernel itself is the witness. A thread puts itself under a seccomp filter that traps every system call:
//!
//! ```text
//!   hot thread                kernel                          handler of SIGSYS, same thread
//!   syscall n ──────────────► filter: 6th argument magic?
//!                             no: SIGSYS ───────────────────► COUNTS[n] += 1
//!                             yes: done ◄──────────────────── syscall n with the same arguments and the magic as 6th
//!   goes on with the result ◄──────────────────────────────── result into the saved register
//! ```
//!
//! So everything works as before and is counted. The magic is a multiple of the page size, since the sixth argument of
//! `mmap` is an offset that must be one (of anonymous memory it means nothing), and its lower half is not zero, since that
//! of `futex` is a set of bits of which at least one must be set. Calls that need their sixth argument for more than that
//! are not made here.
//!
//! What the vDSO answers (`clock_gettime` on all usual machines) never reaches the kernel and is not counted; on a machine
//! without it the clock would show up here, and the test would say so by its number.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unsafe_code, reason = "a filter and a signal handler are made of system calls")]

use std::arch::asm;
use std::collections::BTreeMap;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jetring::{Bus, Config, Offer, Reason, Rings};
use serde::Serialize;

const CALLS: u64 = 100_000;

/// Wakes that are allowed in all of [`CALLS`]: one for each time that the worker has fallen asleep meanwhile.
const WAKES_MAX: u64 = 16;

const MAGIC: u64 = 0x6a65_7472_696e_6000;

/// Calls by number; the last place is for all numbers beyond. Written by the handler, hence an array and not a map.
static COUNTS: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

/// One test at a time, since the counts are the process's.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[derive(Serialize)]
struct Estimate {
    quote_id: u64,
    estimator: &'static str,
    in_token: &'static str,
    out_token: &'static str,
    price: f64,
    gas: Option<u64>,
}

fn estimate(quote_id: u64) -> Estimate {
    Estimate {
        quote_id,
        estimator: "direct",
        in_token: "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2",
        out_token: "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        price: 3_287.114,
        gas: Some(184_203),
    }
}

#[test]
fn accepting_makes_no_system_call_but_a_few_wakes() {
    let mut config = Config::new("null:", "main", 1).expect("it is valid");
    config.queue.capacity = 256 << 20;
    config.queue.rings = Rings::Count(std::num::NonZeroUsize::MIN);
    let bus = Bus::start(config).expect("it is valid");
    let calls = publishes(&bus, Offer::Accepted);
    let wakes = of(&calls, libc::SYS_write) + of(&calls, libc::SYS_futex);
    println!("{CALLS} accepted events: {wakes} wakes, all system calls by number: {calls:?}");
    // Who wakes asks first which process it is in: in a forked child there is nobody to wake.
    let asked = of(&calls, libc::SYS_getpid);
    assert_eq!(wakes + asked, calls.values().sum::<u64>(), "system calls other than wakes: {calls:?}");
    assert!(asked <= WAKES_MAX, "asked {asked} times");
    assert!(wakes <= WAKES_MAX, "{wakes} wakes");
    let report = bus.close(Duration::from_secs(15));
    assert_eq!(report.stats.check(), Ok(()));
    assert_eq!(report.stats.acked, report.stats.offered);
}

#[test]
fn a_worker_that_sleeps_is_woken_by_one_call() {
    let bus = Bus::start(Config::new("null:", "main", 1).expect("it is valid")).expect("it is valid");
    let mut woken = 0;
    until("the worker slept when an event came", || {
        let calls = counted(|| assert!(bus.publish("estimate", &estimate(1)).is_accepted()));
        woken = of(&calls, libc::SYS_write);
        woken > 0
    });
    assert_eq!(woken, 1);
}

#[test]
fn shedding_makes_no_system_call() {
    let mut config = Config::new("nats://127.0.0.1:1", "main", 1).expect("it is valid");
    config.queue.capacity = 64 << 10;
    config.queue.max_event = 4 << 10;
    config.delivery.max_in_flight = 16;
    let bus = Bus::start(config).expect("it is valid");
    let calls = publishes(&bus, Offer::Dropped(Reason::QueueFull));
    println!("{CALLS} events that found the ring full: system calls by number: {calls:?}");
    assert_eq!(calls, BTreeMap::new());
}

#[test]
fn publishing_before_init_makes_no_system_call() {
    let calls = counted(|| {
        for number in 0..CALLS {
            assert_eq!(
                jetring::publish("estimate", &estimate(number)),
                Offer::Dropped(Reason::NotInitialized)
            );
        }
    });
    assert_eq!(calls, BTreeMap::new());
}

#[test]
fn the_witness_sees_one_call_as_one() {
    let mut pid = 0;
    // SAFETY: getpid takes nothing and returns a number.
    let calls = counted(|| pid = unsafe { libc::syscall(libc::SYS_getpid) });
    assert_eq!(calls, BTreeMap::from([(libc::SYS_getpid, 1)]));
    assert_eq!(u32::try_from(pid), Ok(std::process::id()), "the call was made in truth");
}

#[test]
fn what_is_witnessed_works_as_before() {
    let mut read = String::new();
    let calls = counted(|| read = std::fs::read_to_string("/proc/self/comm").unwrap_or_default());
    assert!(of(&calls, libc::SYS_read) >= 1 && !read.is_empty(), "{calls:?}: {read:?}");
}

/// System calls of a thread that publishes; window and ring are filled before if the events are to be shed.
fn publishes(bus: &Bus, expected: Offer) -> BTreeMap<i64, u64> {
    if expected == Offer::Accepted {
        assert_eq!(bus.publish("estimate", &estimate(0)), expected);
    } else {
        until("window and ring are full", || {
            // The report that the bus has started takes one place of the window.
            let window_is_full = bus.stats().in_flight == 15;
            while bus.publish("estimate", &0).is_accepted() {}
            window_is_full
        });
    }
    let mut as_expected = 0;
    let calls = counted(|| {
        // The thread's first call: it takes its buffer, which stays.
        bus.publish("estimate", &estimate(0));
        forget();
        as_expected =
            (0..CALLS).filter(|&number| bus.publish("estimate", &estimate(number)) == expected).count();
    });
    assert_eq!(as_expected as u64, CALLS, "answers of {expected:?}");
    calls
}

/// The system calls of `work`, by number. It runs on a thread of its own, since a filter cannot be taken off again.
fn counted(work: impl FnOnce() + Send) -> BTreeMap<i64, u64> {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    handle_sigsys();
    let witnessed = || {
        trap_system_calls();
        forget();
        work();
        // In an array first: a map would ask for memory while it is being counted.
        let counts: [u64; COUNTS.len()] =
            std::array::from_fn(|number| COUNTS[number].load(Ordering::Relaxed));
        (0..).zip(counts).filter(|&(_, count)| count > 0).collect()
    };
    thread::scope(|scope| scope.spawn(witnessed).join().expect("what is counted does not fail"))
}

fn forget() {
    COUNTS.iter().for_each(|count| count.store(0, Ordering::Relaxed));
}

fn of(calls: &BTreeMap<i64, u64>, number: i64) -> u64 {
    calls.get(&number).copied().unwrap_or(0)
}

/// Looks now and then, at longer intervals each time, since a worker sleeps only after it was left alone for a while.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut pause = Duration::from_millis(1);
    while !holds() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        thread::sleep(pause);
        pause *= 2;
    }
}

/// Installs the handler, once for the process.
fn handle_sigsys() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: zero is a valid sigaction, whose fields that matter are set below.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigsys as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: the action is alive, and its handler has the signature that SA_SIGINFO asks for.
        let result = unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) };
        assert_eq!(result, 0, "sigaction: {}", std::io::Error::last_os_error());
    });
}

/// Counts the trapped call and makes it in the thread's place. It is async-signal-safe: it adds to an atomic and makes one
/// system call.
extern "C" fn on_sigsys(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes the interrupted thread's context, which is ours alone until we return.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let register = |index: libc::c_int| registers[index as usize] as u64;
    // The kernel puts the number of a trapped call back where the caller had it.
    let number = register(libc::REG_RAX);
    let arguments = [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8].map(register);
    COUNTS[(number as usize).min(COUNTS.len() - 1)].fetch_add(1, Ordering::Relaxed);
    let [first, second, third, fourth, fifth] = arguments;
    let result: u64;
    // SAFETY: this is the very call that the thread was making, with its arguments; only the sixth is ours, which
    // none of the calls that are made here needs (see the top of this file).
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            in("r8") fifth,
            in("r9") MAGIC,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    registers[libc::REG_RAX as usize] = result as i64;
}

/// Puts the calling thread under the filter, for the rest of its life.
fn trap_system_calls() {
    const ARCHITECTURE: u32 = 4;
    const NUMBER: u32 = 0;
    /// The sixth argument; its lower half comes first.
    const SIXTH: u32 = 16 + 5 * 8;
    const X86_64: u32 = 0xc000_003e;

    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let skip_if =
        |value, then, otherwise| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, then, otherwise);
    let answer = |value| step(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    let mut program = [
        load(ARCHITECTURE),
        skip_if(X86_64, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        skip_if(libc::SYS_rt_sigreturn as u32, 4, 0),
        load(SIXTH),
        skip_if(MAGIC as u32, 0, 3),
        load(SIXTH + 4),
        skip_if((MAGIC >> 32) as u32, 0, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_TRAP),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: prctl takes numbers only; the filter and its program live until the call that copies them returns.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter) == 0
    };
    assert!(installed, "this system takes no seccomp filter: {}", std::io::Error::last_os_error());
}

fn step(code: u32, value: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: then, jf: otherwise, k: value }
}
