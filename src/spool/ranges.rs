//! Which sequences, and exactly how many.

use serde::Serialize;
use std::fmt;
use std::ops::Range;

/// Ranges that are listed one by one. What comes after is counted.
const LISTED_MAX: usize = 256;

/// Sequences, in rising ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ranges {
    /// How many sequences, always exactly.
    pub sequences: u64,
    /// The ranges, first and last sequence of each; the first 256 of them.
    pub listed: Vec<(u64, u64)>,
}

impl Ranges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.sequences = self.sequences.saturating_add(range.end - range.start);
        let may_list = self.listed.len() < LISTED_MAX;
        match self.listed.last_mut() {
            Some((_, last)) if *last + 1 == range.start => *last = range.end - 1,
            _ if may_list => self.listed.push((range.start, range.end - 1)),
            _ => {}
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sequences == 0
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sequences)?;
        let mut listed = 0;
        for (index, &(first, last)) in self.listed.iter().enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            match first == last {
                true => write!(f, "{before}{first}")?,
                false => write!(f, "{before}{first} to {last}")?,
            }
            listed += last - first + 1;
        }
        match () {
            () if self.listed.is_empty() => Ok(()),
            () if listed < self.sequences => f.write_str(", …)"),
            () => f.write_str(")"),
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_are_counted_beyond_those_that_are_listed() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.to_string(), "0");
        ranges.add(3..5);
        ranges.add(5..6);
        ranges.add(9..10);
        ranges.add(10..10);
        assert_eq!(ranges.to_string(), "4 (3 to 5, 9)");
        (10..2000).for_each(|at| ranges.add(at * 2..at * 2 + 1));
        assert_eq!((ranges.sequences, ranges.listed.len()), (4 + 1990, LISTED_MAX));
        assert!(ranges.to_string().ends_with(", …)"));
    }
}
