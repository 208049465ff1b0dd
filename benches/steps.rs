//! Every instruction of a call, one at a time: how many there are, and which of them lock the bus, fence or call the kernel.
//!
//! ```text
//!   parent                          child (fork: this thread alone, no worker beside it)
//!   waits ◄────────────────────── SIGTRAP: int3, the first marker
//!   single step ─────────────────► one instruction of the work
//!     │ looks at the next one     ◄── SIGTRAP
//!     └─ is it int3? no: again; yes: that was the work, go on to the next call
//! ```
//!
//! The kernel is the witness, the code is the one that ships, and the numbers do not depend on how busy the machine is. Nor
//! do they depend on its processor or its C library as far as the judged ones go: what runs outside of our executable (`memcpy`, which
//! chooses itself by the processor, the vDSO) is counted apart, and of ours it counts as one call. A repeated string instruction is one
//! instruction, however often it traps.
//!
//! Shared by `benches/guards.rs` and `tests/locked.rs`. Linux on x86-64 only.

#![allow(unsafe_code, reason = "one process that steps through another is made of system calls")]

use std::arch::asm;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

/// Seconds that one child may take. A child that is forked while another thread holds a lock which it needs would wait for ever.
const SECONDS_MAX: u32 = 60;

/// Forks until a child was not forked at a bad moment.
const FORKS_MAX: usize = 5;

/// How a child ends that may not be traced, and one whose work did not do what was expected.
const EXIT_DENIED: i32 = 77;
const EXIT_FAILED: i32 = 78;

/// What one call executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Instructions of this executable.
    pub(crate) own: u64,
    /// Instructions of others: the C library, the vDSO.
    pub(crate) foreign: u64,
    /// How often it went from ours to theirs.
    pub(crate) calls: u64,
    /// Instructions with a lock prefix, or that lock without one.
    pub(crate) locked: Vec<Instruction>,
    /// MFENCE, LFENCE and SFENCE.
    pub(crate) fences: Vec<Instruction>,
    /// Entries into the kernel.
    pub(crate) system_calls: Vec<Instruction>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// In the executable's file, for `addr2line -e`, if it is ours.
    address: usize,
    bytes: [u8; 16],
}

impl fmt::Debug for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}: {:02x?}", self.address, &self.bytes[..8])
    }
}

/// Why nothing was counted.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This machine does not let a process trace its child.
    Denied,
    /// The work returned false, panicked, or did not end.
    Broken(String),
}

/// Executes `prepare` and then `work` so many times in a child of its own, and counts each. Both return whether all is as expected.
///
/// Neither may allocate, lock or wait for another thread: they may have been forked while another thread held the lock.
pub(crate) fn count(
    calls: usize,
    mut prepare: impl FnMut() -> bool,
    mut work: impl FnMut() -> bool,
) -> Result<Vec<Steps>, Failure> {
    let mut failure = Failure::Denied;
    let _pinned = Pinned::here();
    for _ in 0..FORKS_MAX {
        // By the bare system call, since the C library's would tell the bus, which closes itself in a child.
        // SAFETY: the child only executes what its caller promises to be fit for it, and ends without coming back.
        let child = unsafe { libc::syscall(libc::SYS_fork) } as libc::pid_t;
        if child == 0 {
            be_traced(calls, &mut prepare, &mut work);
        }
        assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
        match trace(child, calls) {
            Ok(steps) => return Ok(steps),
            Err(Failure::Denied) => return Err(Failure::Denied),
            Err(broken) => failure = broken,
        }
    }
    Err(failure)
}

/// The most common of several calls, and how many there are of it. Rarely a call does something besides, as taking its own time.
pub(crate) fn most_common(calls: &[Steps]) -> (&Steps, usize) {
    let alike = |steps: &Steps| {
        calls.iter().filter(|other| (other.own, other.calls) == (steps.own, steps.calls)).count()
    };
    let best = calls.iter().max_by_key(|steps| alike(steps)).expect("there was a call");
    (best, alike(best))
}

/// Keeps this thread, and children forked by it, on one processor. Parent and child take turns at each instruction, and waking each other
/// across processors is several times as dear.
struct Pinned(libc::cpu_set_t);

impl Pinned {
    fn here() -> Self {
        // SAFETY: a set is plain bits, of which none is a valid choice to begin with; the kernel fills in the second.
        unsafe {
            let [mut one, mut before]: [libc::cpu_set_t; 2] = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of_val(&before), &raw mut before);
            libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap_or(0), &mut one);
            libc::sched_setaffinity(0, size_of_val(&one), &raw const one);
            Self(before)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: puts back what the kernel gave.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0), &raw const self.0) };
    }
}

// ---- the child ----------------------------------------------------------------------------------------------------------

fn be_traced(calls: usize, prepare: &mut dyn FnMut() -> bool, work: &mut dyn FnMut() -> bool) -> ! {
    let exit = |code| {
        // SAFETY: ends this process at once, without running what the parent has registered for its own end.
        unsafe { libc::_exit(code) }
    };
    // SAFETY: both calls take numbers only.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
        exit(EXIT_DENIED);
    }
    // SAFETY: as above.
    unsafe { libc::alarm(SECONDS_MAX) };
    let works = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        prepare() && (0..calls).all(|_| between_markers(work))
    }));
    exit(if works.unwrap_or(false) { 0 } else { EXIT_FAILED })
}

#[inline(never)]
fn between_markers(work: &mut dyn FnMut() -> bool) -> bool {
    mark();
    let works = work();
    mark();
    works
}

#[inline(always)]
fn mark() {
    // SAFETY: the parent handles the trap, and the instruction changes nothing.
    unsafe { asm!("int3", options(nostack)) }
}

// ---- the parent ---------------------------------------------------------------------------------------------------------

enum Stop {
    Trap,
    Exited(i32),
    Other(i32),
}

fn trace(child: libc::pid_t, calls: usize) -> Result<Vec<Steps>, Failure> {
    let mut tracer = Tracer { child, own: own_text(), known: HashMap::new() };
    let mut all = Vec::with_capacity(calls);
    let result = loop {
        match tracer.wait() {
            Stop::Exited(0) if all.len() == calls => return Ok(all),
            Stop::Exited(EXIT_DENIED) => return Err(Failure::Denied),
            Stop::Exited(code) => {
                return Err(Failure::Broken(format!(
                    "the child ended with {code} after {} calls",
                    all.len()
                )));
            }
            Stop::Other(signal) => break Failure::Broken(format!("the child got signal {signal}")),
            Stop::Trap => match tracer.step_through() {
                Ok(steps) => all.push(steps),
                Err(failure) => break failure,
            },
        }
        tracer.resume(libc::PTRACE_CONT);
    };
    tracer.kill();
    Err(result)
}

struct Tracer {
    child: libc::pid_t,
    /// Where our executable's code is: the same in parent and child.
    own: Vec<(Range<usize>, usize)>,
    /// Instructions by address.
    known: HashMap<usize, ([u8; 16], Kind)>,
}

impl Tracer {
    /// From behind the first marker to behind the second.
    fn step_through(&mut self) -> Result<Steps, Failure> {
        let (mut steps, mut before, mut was_own) = (Steps::default(), 0, true);
        loop {
            let at = self.instruction_pointer();
            let (bytes, kind) = *self.known.entry(at).or_insert_with(|| {
                let bytes = peek(self.child, at);
                (bytes, Kind::of(&bytes))
            });
            if kind == Kind::Marker {
                self.resume(libc::PTRACE_CONT);
                return match self.wait() {
                    Stop::Trap => Ok(steps),
                    Stop::Exited(_) | Stop::Other(_) => Err(Failure::Broken("a marker was lost".to_owned())),
                };
            }
            // A repeated string instruction stops after each repetition, with the instruction pointer where it was.
            if kind != Kind::Repeated || at != before {
                let own = self.own.iter().find(|(range, _)| range.contains(&at));
                let (is_own, address) = (own.is_some(), at - own.map_or(0, |(_, base)| *base));
                steps.own += u64::from(is_own);
                steps.foreign += u64::from(!is_own);
                steps.calls += u64::from(was_own && !is_own);
                was_own = is_own;
                match kind {
                    Kind::Locked => steps.locked.push(Instruction { address, bytes }),
                    Kind::Fence => steps.fences.push(Instruction { address, bytes }),
                    Kind::SystemCall => steps.system_calls.push(Instruction { address, bytes }),
                    Kind::Other | Kind::Repeated | Kind::Marker => {}
                }
            }
            before = at;
            self.resume(libc::PTRACE_SINGLESTEP);
            match self.wait() {
                Stop::Trap => {}
                Stop::Exited(code) => {
                    return Err(Failure::Broken(format!("the child ended with {code} in the middle")));
                }
                Stop::Other(signal) => {
                    return Err(Failure::Broken(format!("the child got signal {signal} in the middle")));
                }
            }
        }
    }

    fn instruction_pointer(&self) -> usize {
        let offset =
            std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
        // SAFETY: reads a word of a child that is stopped.
        unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.child, offset, 0) as usize }
    }

    fn resume(&self, how: libc::c_uint) {
        // SAFETY: lets a child that is stopped go on, without a signal.
        unsafe { libc::ptrace(how, self.child, 0, 0) };
    }

    fn wait(&self) -> Stop {
        let mut status = 0;
        // SAFETY: waits for our own child, and the status is alive.
        let waited = unsafe { libc::waitpid(self.child, &raw mut status, 0) };
        assert_eq!(waited, self.child, "waitpid: {}", std::io::Error::last_os_error());
        match status {
            status if libc::WIFEXITED(status) => Stop::Exited(libc::WEXITSTATUS(status)),
            status if libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGTRAP => Stop::Trap,
            status if libc::WIFSTOPPED(status) => Stop::Other(libc::WSTOPSIG(status)),
            status => Stop::Exited(-libc::WTERMSIG(status)),
        }
    }

    fn kill(&self) {
        // SAFETY: ends our own child, which was not waited for yet.
        unsafe { libc::kill(self.child, libc::SIGKILL) };
        self.wait();
    }
}

/// The sixteen bytes from an address on. Beyond the end of what is mapped they are zero.
fn peek(child: libc::pid_t, address: usize) -> [u8; 16] {
    let word = |at: usize| {
        // SAFETY: reads a word of a child that is stopped; where there is none, the kernel says so.
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, child, at, 0) };
        (word as u64).to_le_bytes()
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&word(address));
    bytes[8..].copy_from_slice(&word(address + 8));
    bytes
}

/// Where the code of this executable is, and what to take off an address for one in the file.
fn own_text() -> Vec<(Range<usize>, usize)> {
    let executable = std::env::current_exe().expect("an executable has a path");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux shows what is mapped");
    let own: Vec<(Range<usize>, &str)> = maps
        .lines()
        .filter(|line| line.ends_with(&*executable.to_string_lossy()))
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (from, to) = fields.next()?.split_once('-')?;
            let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
            Some((range, fields.next()?))
        })
        .collect();
    let base = own.iter().map(|(range, _)| range.start).min().unwrap_or(0);
    let text: Vec<_> =
        own.into_iter().filter(|(_, rights)| rights.contains('x')).map(|(range, _)| (range, base)).collect();
    assert!(!text.is_empty(), "no code of {} in:\n{maps}", executable.display());
    text
}

// ---- what an instruction is ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Marker,
    Locked,
    Fence,
    SystemCall,
    Repeated,
    Other,
}

impl Kind {
    /// Only as much of the encoding as these need: prefixes, opcode, and the byte behind it.
    fn of(bytes: &[u8; 16]) -> Self {
        let is_prefix = |byte: &u8| {
            matches!(byte, 0xf0 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x66 | 0x67)
        };
        let prefixes = bytes.iter().take_while(|byte| is_prefix(byte)).count();
        let (prefixes, rest) = bytes.split_at(prefixes);
        if prefixes.contains(&0xf0) {
            return Self::Locked;
        }
        let is_rex = rest.first().is_some_and(|byte| (0x40..=0x4f).contains(byte));
        let (opcode, operand) = match &rest[usize::from(is_rex)..] {
            [0x0f, second, operand, ..] => (0x0f00 | u16::from(*second), *operand),
            [first, operand, ..] => (u16::from(*first), *operand),
            _ => return Self::Other,
        };
        let is_in_memory = operand < 0xc0;
        let is_repeated = prefixes.iter().any(|prefix| matches!(prefix, 0xf2 | 0xf3));
        match opcode {
            0xcc if prefixes.is_empty() => Self::Marker,
            // XCHG with memory locks by itself.
            0x86 | 0x87 if is_in_memory => Self::Locked,
            // SYSCALL, SYSENTER, INT 80h.
            0x0f05 | 0x0f34 => Self::SystemCall,
            0xcd if operand == 0x80 => Self::SystemCall,
            // LFENCE, MFENCE, SFENCE; with a prefix the same bytes are something else.
            0x0fae if operand >= 0xe8 && prefixes.is_empty() => Self::Fence,
            // MOVS, CMPS, STOS, LODS, SCAS.
            0xa4..=0xa7 | 0xaa..=0xaf if is_repeated => Self::Repeated,
            _ => Self::Other,
        }
    }
}
