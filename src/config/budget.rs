//! What the events of one name may take of a bus.

use super::units::within;
use super::{Config, ConfigError};
use crate::shed::NAME_BYTES_MAX;
use crate::subject::NameError;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// What the events of one name may take of a bus (`[event-bus.events.NAME]`, and [`Bus::set_budget`](crate::Bus::set_budget) at run time). The
/// default is no limit at all.
///
/// An event that is above its rate or its share is refused as [`Reason::QueueFull`](crate::Reason::QueueFull), at once, whatever
/// `queue.when-full` says. One that its sample leaves out is [`Offer::SampledOut`](crate::Offer::SampledOut).
///
/// ```
/// use jetring::{Budget, Config};
///
/// let mut traces = Budget::default();
/// traces.sample = 100;
/// traces.share = "0.25".parse()?;
///
/// let mut config = Config::new("null:", "main", 1)?;
/// config.events.insert("trace".parse()?, traces);
/// let bus = jetring::Bus::start(config)?;
///
/// // Somebody is looking for something: all of it, for a while.
/// traces.sample = 1;
/// bus.set_budget("trace", traces)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// How many events a second there may be, over all threads of the bus (`rate`). Default: as many as come; 1 to 1,000,000. What comes
    /// above it is refused.
    pub rate: Option<u32>,
    /// How many of them may come at once after a pause (`burst`). Default: those of a second; 1 to 1,000,000. It needs `rate`.
    pub burst: Option<u32>,
    /// Up to which part of its ring an event may fill it (`share`). Default: all of it, 1; above 0. While a ring is fuller than that, by whichever
    /// events, those of this name are refused, and the room that is left is for the others.
    pub share: Share,
    /// One request in so many is kept (`sample`). Default: 1, all; up to 1,000,000. Which requests are kept is told by their ids alone, so all
    /// events of a request that have the same `sample` share its fate, in every process; see [`keeps_request`](crate::keeps_request). Of the
    /// events outside of a request, each is kept or left out by chance. What is kept says in its envelope how many events it stands for.
    pub sample: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { rate: None, burst: None, share: Share::WHOLE, sample: 1 }
    }
}

impl Budget {
    pub(super) const RATE: RangeInclusive<u32> = 1..=1_000_000;
    pub(super) const BURST: RangeInclusive<u32> = 1..=1_000_000;
    pub(super) const SAMPLE: RangeInclusive<u32> = 1..=1_000_000;

    /// Checks what types do not.
    pub(crate) fn check(&self) -> Result<(), BudgetError> {
        let problem = |number: Option<u32>, range| number.and_then(|number| within(number, range).err());
        for (key, problem) in [
            ("rate", problem(self.rate, &Self::RATE)),
            ("burst", problem(self.burst, &Self::BURST)),
            ("sample", problem(Some(self.sample), &Self::SAMPLE)),
        ] {
            if let Some(problem) = problem {
                return Err(BudgetError::Value { key, problem });
            }
        }
        match (self.rate, self.burst) {
            (None, Some(_)) => Err(BudgetError::Incomplete),
            _ => Ok(()),
        }
    }
}

/// A part of a ring: above 0, up to all of it. Kept to the millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self(Self::PARTS);

    const PARTS: u32 = 1_000_000;

    /// The part of `bytes` that it is.
    pub(crate) fn of(self, bytes: usize) -> u64 {
        (bytes as u128 * u128::from(self.0) / u128::from(Self::PARTS)) as u64
    }
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl TryFrom<f64> for Share {
    type Error = ShareError;

    fn try_from(share: f64) -> Result<Self, ShareError> {
        let parts = (share * f64::from(Self::PARTS)).round();
        let is_share = share <= 1.0 && parts >= 1.0;
        if is_share { Ok(Self(parts as u32)) } else { Err(ShareError(share.to_string())) }
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let share: f64 = text.parse().map_err(|_| ShareError(format!("{text:?}")))?;
        share.try_into()
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / f64::from(Self::PARTS))
    }
}

/// A number or text is no [`Share`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0} is no share; allowed are numbers above 0 up to 1, as 0.25")]
pub struct ShareError(String);

/// Why an event name cannot have a [`Budget`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A number is out of its range.
    #[error("{key}: {problem}")]
    Value {
        /// The part of the budget, as the configuration calls it.
        key: &'static str,
        /// The number, and what is allowed.
        problem: String,
    },
    /// There is a burst, and no rate.
    #[error("burst needs rate beside it")]
    Incomplete,
    /// The name is longer than 64 bytes, or the bus has met too many names, of which it tells some 250 apart.
    #[error(
        "it can have no budget: a bus tells names of up to 64 bytes apart, and some 250 of them, and this is one of the others"
    )]
    Unnumbered,
}

impl Config {
    /// What is wrong with the budget of any name.
    pub(super) fn check_budgets(&self) -> Result<(), ConfigError> {
        for (name, budget) in &self.events {
            let is_numbered = name.as_str().len() <= NAME_BYTES_MAX;
            let checked = if is_numbered { budget.check() } else { Err(BudgetError::Unnumbered) };
            checked.map_err(|error| ConfigError::of_budget(name.as_str(), error))?;
        }
        Ok(())
    }
}

impl ConfigError {
    pub(crate) fn of_budget(name: &str, error: BudgetError) -> Self {
        let key = format!("events.{name}");
        match error {
            BudgetError::Value { key: part, problem } => Self::in_code(&format!("{key}.{part}"), problem),
            BudgetError::Incomplete => Self::incomplete(&format!("{key}.burst"), "rate"),
            error => Self::in_code(&key, error.to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_printed_and_taken_of_a_ring() {
        for (text, printed, of_a_thousand) in
            [("1", "1", 1000), ("0.25", "0.25", 250), ("1e-6", "0.000001", 0), (".5", "0.5", 500)]
        {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.to_string().as_str(), share.of(1000)), (printed, of_a_thousand));
            assert_eq!(printed.parse(), Ok(share));
        }
        assert_eq!(Share::WHOLE.of(1 << 30), 1 << 30);
        for text in ["0", "-0.5", "1.1", "1e-9", "NaN", "inf", "half", ""] {
            let refusal = text.parse::<Share>().unwrap_err().to_string();
            assert!(
                refusal.ends_with("is no share; allowed are numbers above 0 up to 1, as 0.25"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_budget_is_checked_by_the_ranges_of_its_parts() {
        assert_eq!(Budget::default().check(), Ok(()));
        let refusal = |change: fn(&mut Budget)| {
            let mut budget = Budget::default();
            change(&mut budget);
            budget.check().unwrap_err().to_string()
        };
        for (refusal, expected) in [
            (refusal(|b| b.rate = Some(0)), "rate: 0 is out of range; allowed are 1 to 1000000"),
            (refusal(|b| b.sample = 0), "sample: 0 is out of range; allowed are 1 to 1000000"),
            (refusal(|b| b.burst = Some(1)), "burst needs rate beside it"),
            (
                refusal(|b| (b.rate, b.burst) = (Some(1), Some(2_000_000))),
                "burst: 2000000 is out of range; allowed are 1 to 1000000",
            ),
        ] {
            assert_eq!(refusal, expected);
        }
    }
}
