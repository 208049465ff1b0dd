//! `a * b / d` over `u128`, with the product in 256 bits.
//!
//! A reserve of 10^22 and an amount of 10^18 are ordinary, and their product does not fit 128 bits. Most quotients take the
//! quick way all the same; the long way is schoolbook division in digits of 64 bits (Knuth, TAOCP 4.3.1, algorithm D; the two
//! digit form is `divlu` of Warren, "Hacker's Delight"). It was chosen over shift-and-subtract, which takes 128 rounds.

/// `a * b / d`, rounded down. `None` when `d` is zero or the quotient does not fit.
pub(crate) fn mul_div(a: u128, b: u128, d: u128) -> Option<u128> {
    if let Some(product) = a.checked_mul(b) {
        return product.checked_div(d);
    }
    let (high, low) = multiply(a, b);
    // This is also the case of a zero divisor.
    if high >= d {
        return None;
    }
    Some(divide(high, low, d))
}

/// `a * b / d`, rounded up. `None` when `d` is zero or the quotient does not fit.
pub(crate) fn mul_div_up(a: u128, b: u128, d: u128) -> Option<u128> {
    let quotient = mul_div(a, b, d)?;
    // The remainder is below 2^128, so its low half is all of it.
    let exact = quotient.wrapping_mul(d) == a.wrapping_mul(b);
    if exact { Some(quotient) } else { quotient.checked_add(1) }
}

/// The whole product, as its high and its low half.
pub(crate) fn multiply(a: u128, b: u128) -> (u128, u128) {
    let (a1, a0) = digits(a);
    let (b1, b0) = digits(b);
    let low = a0 * b0;
    // One digit's product and two digits more is exactly what 128 bits can hold.
    let cross = a1 * b0 + (low >> 64);
    let middle = a0 * b1 + (cross & DIGIT);
    (a1 * b1 + (cross >> 64) + (middle >> 64), middle << 64 | low & DIGIT)
}

const DIGIT: u128 = u64::MAX as u128;

fn digits(value: u128) -> (u128, u128) {
    (value >> 64, value & DIGIT)
}

/// The quotient of a 256-bit value by `d`. The high half must be below `d`, or the quotient would not fit.
fn divide(high: u128, low: u128, d: u128) -> u128 {
    debug_assert!(high < d);
    // A divisor with its top bit set makes each guess at a digit at most two too large.
    let shift = d.leading_zeros();
    let d = d << shift;
    let high = if shift == 0 { high } else { high << shift | low >> (128 - shift) };
    let (low1, low0) = digits(low << shift);

    let (q1, rest) = quotient_digit(high, low1, d);
    let (q0, _) = quotient_digit(rest, low0, d);
    q1 << 64 | q0
}

/// One digit of the quotient, and the rest: of `high` and one digit `next` behind it, divided by `d`.
fn quotient_digit(high: u128, next: u128, d: u128) -> (u128, u128) {
    let (d1, d0) = digits(d);
    let mut digit = high / d1;
    let mut rest = high % d1;
    while digit > DIGIT || digit * d0 > (rest << 64 | next) {
        digit -= 1;
        rest += d1;
        if rest > DIGIT {
            break;
        }
    }
    // The true rest is below `d`, so arithmetic modulo 2^128 finds it.
    (digit, (high << 64 | next).wrapping_sub(digit.wrapping_mul(d)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::amount;
    use super::*;

    /// Shift and subtract, a bit at a time.
    fn divide_bit_by_bit(mut high: u128, low: u128, d: u128) -> u128 {
        let mut quotient = 0;
        for bit in (0..128).rev() {
            let carry = high >> 127 == 1;
            high = high << 1 | low >> bit & 1;
            quotient <<= 1;
            if carry || high >= d {
                high = high.wrapping_sub(d);
                quotient |= 1;
            }
        }
        quotient
    }

    fn check(a: u128, b: u128, d: u128) {
        let (high, low) = multiply(a, b);
        assert_eq!(low, a.wrapping_mul(b));
        if high >= d {
            assert_eq!((mul_div(a, b, d), mul_div_up(a, b, d)), (None, None));
            return;
        }
        let quotient = divide_bit_by_bit(high, low, d);
        assert_eq!(divide(high, low, d), quotient, "{a} * {b} / {d}");
        assert_eq!(mul_div(a, b, d), Some(quotient));
        let exact = multiply(quotient, d) == (high, low);
        let up = if exact { Some(quotient) } else { quotient.checked_add(1) };
        assert_eq!(mul_div_up(a, b, d), up);
    }

    proptest! {
        #[test]
        fn agrees_with_division_bit_by_bit(a in amount(), b in amount(), d in amount()) {
            check(a, b, d);
        }

        #[test]
        fn dividing_a_product_by_a_factor_gives_the_other(a in amount(), b in 1..=u128::MAX) {
            prop_assert_eq!(mul_div(a, b, b), Some(a));
            prop_assert_eq!(mul_div_up(a, b, b), Some(a));
        }
    }

    /// Random numbers hardly ever need the second correction of a digit; all-ones and lone bits do.
    #[test]
    fn agrees_at_the_edges_of_the_digits() {
        let edges = [
            0,
            1,
            2,
            DIGIT - 1,
            DIGIT,
            DIGIT + 1,
            DIGIT + 2,
            1 << 127,
            (1 << 127) - 1,
            (1 << 127) + DIGIT,
            u128::MAX - DIGIT,
            u128::MAX - 1,
            u128::MAX,
        ];
        for a in edges {
            for b in edges {
                for d in edges {
                    check(a, b, d);
                }
            }
        }
    }
}
