//! Sizes and times as people write them: `16MiB`, `10kB`, `5s`, `250us`.
//!
//! A number without a unit is bytes or milliseconds. Fractions are refused rather than rounded: there is always a smaller
//! unit. Both types print the way that they are read, so that a message about a limit can be copied into the file.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) struct Bytes(pub(super) usize);

impl Bytes {
    /// Powers of two first, largest first: printing takes the first that divides.
    const UNITS: [(&'static str, usize); 7] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("B", 1),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1000),
    ];
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is no size; allowed are forms as \"16MiB\", \"64KiB\", \"1GiB\", \"10kB\", or bytes"
            )
        };
        let (number, unit) = split(text);
        let number: usize = number.parse().map_err(|_| expected())?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let named = |&&(name, _): &&(&str, usize)| name.eq_ignore_ascii_case(unit);
        let &(_, bytes) = Self::UNITS.iter().find(named).ok_or_else(expected)?;
        number.checked_mul(bytes).map(Self).ok_or_else(expected)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |&&(_, bytes): &&(&str, usize)| self.0 != 0 && self.0.is_multiple_of(bytes);
        let (unit, bytes) = Self::UNITS.iter().find(divides).copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Largest first: printing takes the first that divides.
    const UNITS: [(&'static str, Duration); 5] = [
        ("m", Duration::from_secs(60)),
        ("s", Duration::from_secs(1)),
        ("ms", Duration::from_millis(1)),
        ("us", Duration::from_micros(1)),
        ("ns", Duration::from_nanos(1)),
    ];
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            format!(
                "{text:?} is no duration; allowed are forms as \"250us\", \"1ms\", \"5s\", \"2m\", or milliseconds"
            )
        };
        let (number, unit) = split(text);
        let number: u32 = number.parse().map_err(|_| expected())?;
        let unit = if unit.is_empty() { "ms" } else { unit };
        let &(_, length) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(expected)?;
        length.checked_mul(number).map(Self).ok_or_else(expected)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let divides = |&&(_, length): &&(&str, Duration)| nanos.is_multiple_of(length.as_nanos());
        let (unit, length) =
            Self::UNITS.iter().find(divides).copied().unwrap_or(("ns", Duration::from_nanos(1)));
        write!(f, "{}{unit}", nanos / length.as_nanos())
    }
}

/// Gives `value` back if it lies in `range`, and otherwise says what does.
pub(super) fn within<T: PartialOrd + fmt::Display>(value: T, range: &RangeInclusive<T>) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("{value} is out of range; allowed are {} to {}", range.start(), range.end()))
}

/// Cuts a text into its digits and its unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_printed() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("1000", 1000, "1000B"),
            ("64B", 64, "64B"),
            ("64KiB", 65_536, "64KiB"),
            (" 16 MiB ", 16 << 20, "16MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("10kB", 10_000, "10000B"),
            ("3MB", 3_000_000, "3000000B"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("16mib", 16 << 20, "16MiB"),
        ] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!((size, size.to_string().as_str()), (Bytes(bytes), printed), "{text}");
            assert_eq!(printed.parse(), Ok(size));
        }
    }

    #[test]
    fn a_duration_is_read_and_printed() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("1500", 1_500_000_000, "1500ms"),
            ("250us", 250_000, "250us"),
            ("1ms", 1_000_000, "1ms"),
            ("5s", 5_000_000_000, "5s"),
            ("2m", 120_000_000_000, "2m"),
            ("17ns", 17, "17ns"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                (span, span.to_string().as_str()),
                (Span(Duration::from_nanos(nanos)), printed),
                "{text}"
            );
            assert_eq!(printed.parse(), Ok(span));
        }
    }

    #[test]
    fn what_is_no_number_with_a_unit_is_refused() {
        for text in
            ["", "lots", "-1", "1.5MiB", "1 apple", "MiB", "99999999999999999999", "18446744073709551615KiB"]
        {
            let refusal = text.parse::<Bytes>().unwrap_err();
            assert!(refusal.starts_with(&format!("{text:?} is no size; allowed are")), "{refusal}");
        }
        for text in ["", "soon", "-1s", "1.5s", "1h", "s", "99999999999"] {
            let refusal = text.parse::<Span>().unwrap_err();
            assert!(refusal.starts_with(&format!("{text:?} is no duration; allowed are")), "{refusal}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_told_the_range() {
        let range = Bytes(64 << 10)..=Bytes(1 << 30);
        assert_eq!(within(Bytes(64 << 10), &range), Ok(Bytes(64 << 10)));
        assert_eq!(
            within(Bytes(2 << 30), &range),
            Err("2GiB is out of range; allowed are 64KiB to 1GiB".to_owned())
        );
    }
}
