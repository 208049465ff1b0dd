//! What happens in a run, line by line, if somebody reads it.

use super::Micros;
use std::fmt::Arguments;

#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    pub(super) is_on: bool,
}

impl Trace {
    pub(super) fn line(self, now: Micros, line: Arguments<'_>) {
        println!("{:>4}.{:06}  {line}", now / 1_000_000, now % 1_000_000);
    }
}

/// Formats its line only if somebody reads it.
macro_rules! say {
    ($trace:expr, $now:expr, $($line:tt)+) => {
        if $trace.is_on {
            $trace.line($now, format_args!($($line)+));
        }
    };
}

pub(super) use say;
