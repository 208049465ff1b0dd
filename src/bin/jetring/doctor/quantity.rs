//! Sizes and times in findings: rounded, for people.

use std::time::Duration;

/// `0.21 ms`, `4.0 s`, `2 min`, `3.2 days`.
pub(super) fn time(time: Duration) -> String {
    const UNITS: [(f64, &str); 5] =
        [(86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")];
    let seconds = time.as_secs_f64();
    // A unit is used from twice its size on, so that 90 minutes are not 1.5 hours.
    let is_fit = |&&(size, _): &&(f64, &str)| seconds >= 2.0 * size || size == 1.0 && seconds >= 1.0;
    let (size, unit) = UNITS.iter().find(is_fit).copied().unwrap_or((1e-3, "ms"));
    format!("{} {unit}", rounded(seconds / size))
}

/// `17 B`, `64 KiB`, `1.5 GiB`.
pub(super) fn bytes(bytes: f64) -> String {
    const UNITS: [(f64, &str); 4] = [
        ((1u64 << 40) as f64, "TiB"),
        ((1u64 << 30) as f64, "GiB"),
        ((1u64 << 20) as f64, "MiB"),
        (1024.0, "KiB"),
    ];
    let (size, unit) = UNITS.iter().find(|&&(size, _)| bytes >= size).copied().unwrap_or((1.0, "B"));
    format!("{} {unit}", rounded(bytes / size))
}

/// `1,234`, `12`, `0.4`.
pub(super) fn number(number: f64) -> String {
    if number < 10.0 {
        return rounded(number);
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A digit behind the point where there are few before it, and two below one.
fn rounded(number: f64) -> String {
    if number < 1.0 && number > 0.0 {
        return format!("{number:.2}");
    }
    let tenths = (number * 10.0).round() / 10.0;
    if number < 100.0 && tenths.fract() > 0.0 {
        return format!("{tenths:.1}");
    }
    format!("{number:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_to_what_one_reads() {
        for (micros, text) in [
            (210, "0.21 ms"),
            (5_000_000, "5 s"),
            (1_000_000, "1 s"),
            (90_000_000, "90 s"),
            (120_000_000, "2 min"),
            (5_400_000_000, "90 min"),
            (3_599_999_700, "60 min"),
            (276_480_000_000, "3.2 days"),
            (0, "0 ms"),
        ] {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn sizes_and_numbers_too() {
        assert_eq!([17.0, 65536.0, 1.5 * 1_073_741_824.0].map(bytes), ["17 B", "64 KiB", "1.5 GiB"]);
        assert_eq!([0.4, 12.0, 1234.0, 1_234_567.0].map(number), ["0.40", "12", "1,234", "1,234,567"]);
    }
}
