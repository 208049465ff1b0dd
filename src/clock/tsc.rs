//! The processor's time stamp counter, and whether it can be believed. The only file of the clock with `unsafe` in it.
//!
//! Believed is a counter that two witnesses vouch for:
//!
//! - the processor, which says "invariant" (CPUID 8000_0007h, EDX bit 8): one rate in all power states, and no stop;
//! - on Linux the kernel, whose clock source is `tsc`. It has compared the counters of all cores with each other and the
//!   rate with other clocks, and leaves `tsc` if they are not as they should be. This also shows that programs may read the
//!   counter at all, since the vDSO reads it in the program's name for every `SystemTime::now`.
//!
//! Any other clock source is a no, as is one that cannot be read. In a virtual machine that shows an invariant counter Linux
//! takes `tsc` by itself and ranks `kvm-clock` below it (`arch/x86/kernel/kvmclock.c`); if `kvm-clock`, `xen` or
//! Hyper-V's page is in use all the same, the host has not promised the rate (it may change when the machine is moved to another
//! host), or an administrator has decided so. A wrong no costs some twenty nanoseconds an event, a wrong yes wrong times.
//!
//! The kernel may change its mind at any time, so it is asked again once a second ([`is_left_by_kernel`]). Then only a name counts that can be
//! read and is another one: a process that has no file descriptor left, or has gone to another root, has heard nothing.
//!
//! Other systems have no such file, and the processor's word has to do.

pub(super) use imp::*;

use std::path::Path;

/// Where Linux tells its clock source.
pub(super) const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// What Linux calls the counter.
const NAME: &str = "tsc";

/// The kernel's clock source, as `source` tells it; none if that cannot be read.
fn clock_source(source: &Path) -> Option<String> {
    std::fs::read_to_string(source).ok().map(|name| name.trim().to_owned())
}

/// Whether the kernel has left the counter for another clock, as `source` tells.
pub(super) fn is_left_by_kernel(source: &Path) -> bool {
    cfg!(target_os = "linux") && clock_source(source).is_some_and(|name| name != NAME)
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod imp {
    #![allow(unsafe_code, reason = "the instructions that read the counter are unsafe functions")]
    // What is unsafe of these intrinsics differs between the compilers that we support.
    #![allow(unused_unsafe, reason = "CPUID has become a safe function lately")]

    use std::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

    /// Reads the counter, in no order to the instructions around it.
    #[inline(always)]
    pub(in crate::clock) fn read() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and the kernel lets programs use it: see `is_trusted`.
        unsafe { _rdtsc() }
    }

    /// Reads the counter after all that precedes has been done, and before what follows begins.
    #[inline]
    pub(in crate::clock) fn read_in_order() -> u64 {
        // SAFETY: SSE2, which has the fence, is a part of x86-64; for the counter see `read`.
        unsafe {
            _mm_lfence();
            let ticks = _rdtsc();
            _mm_lfence();
            ticks
        }
    }

    pub(in crate::clock) fn is_trusted() -> bool {
        const HIGHEST: u32 = 0x8000_0000;
        const POWER: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;

        // SAFETY: every x86-64 processor has the instruction, and it only writes registers; leaf 8000_0007h is asked for only if
        // the processor says that it has it.
        let invariant = unsafe { __cpuid(HIGHEST).eax >= POWER && __cpuid(POWER).edx & INVARIANT != 0 };
        invariant && kernel_uses_it()
    }

    fn kernel_uses_it() -> bool {
        use super::{CLOCK_SOURCE, NAME, clock_source};
        !cfg!(target_os = "linux")
            || clock_source(std::path::Path::new(CLOCK_SOURCE)).is_some_and(|name| name == NAME)
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod imp {
    /// Never called, since nobody trusts this counter.
    #[inline(always)]
    pub(in crate::clock) fn read() -> u64 {
        0
    }

    pub(in crate::clock) fn read_in_order() -> u64 {
        0
    }

    pub(in crate::clock) fn is_trusted() -> bool {
        false
    }
}
