//! Chance, from a seed: SplitMix64 (Steele, Lea, Flood, 2014), which is small, quick and the same on every machine.
//!
//! Every part of a world has a generator of its own, so that one of them can be left out without changing what the others draw.

use super::Micros;

#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of the part called `part` in the world of `seed`.
    pub(super) fn new(seed: u64, part: u64) -> Self {
        let mut random = Self(seed ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, or 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// A number between the two, both included.
    pub(super) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A time between the two whose order of magnitude is drawn evenly: as many short ones as long ones.
    pub(super) fn time(&mut self, shortest: Micros, longest: Micros) -> Micros {
        let doublings = u64::from((longest / shortest.max(1)).max(1).ilog2());
        let ceiling = (shortest << self.between(0, doublings + 1)).min(longest);
        self.between(shortest, ceiling.max(shortest))
    }
}
