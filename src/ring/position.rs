//! Pure arithmetic of the ring: positions that wrap, and the word that the producers fight over.
//!
//! A position counts lines for ever and wraps at 2^39. It is kept in the upper bits of its word, so that additions and
//! differences wrap by themselves:
//!
//! ```text
//!   63                                    25 24                       1   0
//!  ┌────────────────────────────────────────┬──────────────────────────┬────────┐
//!  │ position of the next claim, in lines   │ claims so far, mod 2^24  │ closed │   the tail word
//!  └────────────────────────────────────────┴──────────────────────────┴────────┘
//! ```
//!
//! A ring has at most 2^23 lines, so it holds at most half as many records as the tail can count, and positions span 2^16 laps of
//! the largest ring. Head and tail are at most one lap apart, so the difference of the two is exact. The difference to a value that
//! a thread read before it was stopped is not: the numbers may have come round since. [`producer`](super::producer) and
//! [`Ring::claimed`](super::Ring::claimed) say how they notice that.
//!
//! The models have numbers so small that they come round within a model.

/// Bits of a position, and of the count of claims.
const POSITION_BITS: u32 = if cfg!(all(test, jetring_loom)) {
    5
} else if cfg!(all(test, jetring_shuttle)) {
    6
} else {
    39
};
const CLAIMS_BITS: u32 = if cfg!(all(test, jetring_loom)) {
    4
} else if cfg!(all(test, jetring_shuttle)) {
    5
} else {
    24
};

const POSITION_SHIFT: u32 = u64::BITS - POSITION_BITS;
const CLAIMS_SHIFT: u32 = 1;
const _: () = assert!(CLAIMS_BITS + CLAIMS_SHIFT <= POSITION_SHIFT);

/// Claims are counted modulo this.
pub(super) const CLAIMS_MODULUS: u64 = 1 << CLAIMS_BITS;

/// Most lines of a ring: with more, it could hold more than half of the records that the tail can count.
pub(super) const LINES_MAX: u64 = CLAIMS_MODULUS / 2;
const _: () = assert!(LINES_MAX <= 1 << (POSITION_BITS - 2));

const CLAIMS_MASK: u64 = (CLAIMS_MODULUS - 1) << CLAIMS_SHIFT;
const POSITION_MASK: u64 = !(CLAIMS_MASK | Tail::CLOSED);

/// A place in the endless sequence of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u64);

impl Position {
    #[inline]
    pub(super) fn at_line(line: u64) -> Self {
        Self(line << POSITION_SHIFT)
    }

    #[inline]
    pub(super) fn from_word(word: u64) -> Self {
        Self(word & POSITION_MASK)
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn advance(self, lines: u64) -> Self {
        Self(self.0.wrapping_add(lines << POSITION_SHIFT))
    }

    /// Lines from `earlier` to here; negative if `earlier` is in truth the later one.
    #[inline]
    pub(super) fn distance_from(self, earlier: Self) -> i64 {
        (self.0.wrapping_sub(earlier.0) as i64) >> POSITION_SHIFT
    }

    /// The line of the array, for an array of `capacity_lines`, a power of two.
    #[inline]
    pub(super) fn index(self, capacity_lines: u64) -> usize {
        ((self.0 >> POSITION_SHIFT) & (capacity_lines - 1)) as usize
    }
}

/// The limit word: a position, and in the bits below it how often the limit was raised. So a word that has not changed since it was read
/// says that nobody has raised the limit since, even if its position has come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit(u64);

impl Limit {
    #[inline]
    pub(super) fn at(position: Position) -> Self {
        Self(position.0)
    }

    #[inline]
    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn position(self) -> Position {
        Position::from_word(self.0)
    }

    /// The limit after this one.
    #[inline]
    pub(super) fn moved_to(self, position: Position) -> Self {
        Self(position.0 | (self.0.wrapping_add(1) & !POSITION_MASK))
    }
}

/// The tail word taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail(u64);

impl Tail {
    /// The bit that says that no claim is accepted any more.
    pub(super) const CLOSED: u64 = 1;

    #[inline]
    pub(super) fn starting_at(position: Position) -> Self {
        Self(position.0)
    }

    #[inline]
    pub(super) fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn position(self) -> Position {
        Position::from_word(self.0)
    }

    #[inline]
    pub(super) fn claims(self) -> u64 {
        (self.0 & CLAIMS_MASK) >> CLAIMS_SHIFT
    }

    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    /// The tail after one more claim, which ends at `end`.
    #[inline]
    pub(super) fn claimed_until(self, end: Position) -> Self {
        let claims = self.0.wrapping_add(1 << CLAIMS_SHIFT) & CLAIMS_MASK;
        Self(end.0 | claims | (self.0 & Self::CLOSED))
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    const LAST_LINE: u64 = (1 << 39) - 1;

    #[test]
    fn distances_are_exact_across_the_end_of_the_numbers() {
        for start in [0, 1, 1 << 20, LAST_LINE - 3, LAST_LINE] {
            let start = Position::at_line(start);
            for lines in [0, 1, 2, 7, 1 << 14, 1 << 24] {
                let later = start.advance(lines);
                assert_eq!(later.distance_from(start), lines as i64);
                assert_eq!(start.distance_from(later), -(lines as i64));
            }
        }
    }

    #[test]
    fn a_position_comes_back_to_its_line_each_lap() {
        let position = Position::at_line(LAST_LINE - 1);
        for lap in 0..4 {
            assert_eq!(position.advance(lap * 16).index(16), 14);
        }
    }

    #[test]
    fn a_claim_changes_position_and_count_and_keeps_the_closed_bit() {
        let mut tail = Tail::starting_at(Position::at_line(LAST_LINE));
        for claims in 1..=5 {
            let end = tail.position().advance(3);
            tail = tail.claimed_until(end);
            assert_eq!((tail.position(), tail.claims(), tail.is_closed()), (end, claims, false));
        }
        let closed = Tail::from_word(tail.word() | Tail::CLOSED);
        assert!(closed.is_closed() && closed.claimed_until(closed.position()).is_closed());
    }

    #[test]
    fn a_limit_that_comes_back_to_a_position_is_another_one() {
        let [near, far] = [0, LAST_LINE].map(Position::at_line);
        let mut limit = Limit::at(near);
        for moves in 1..=1000 {
            let before = limit;
            limit = limit.moved_to(if moves % 2 == 0 { near } else { far });
            assert_eq!(limit.position(), if moves % 2 == 0 { near } else { far });
            assert!(limit != before && limit != Limit::at(near));
        }
        let last = Limit::from_word(near.word() | !POSITION_MASK);
        assert_eq!(last.moved_to(far), Limit::at(far));
    }

    #[test]
    fn the_count_of_claims_wraps_without_touching_the_position() {
        let mut tail = Tail::starting_at(Position::at_line(9));
        for _ in 0..CLAIMS_MODULUS {
            tail = tail.claimed_until(tail.position());
        }
        assert_eq!(tail, Tail::starting_at(Position::at_line(9)));
    }
}
