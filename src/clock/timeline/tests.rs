//! The timeline in a world of our own making, where the truth is known.

use super::*;
use crate::clock::ERROR_NANOS;
use proptest::collection::vec;
use proptest::prelude::*;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;
const HOUR: u64 = 3_600 * SECOND;

/// A counter and a wall clock. Time itself is counted in nanoseconds by a third clock, which nobody but the world sees.
struct World {
    now: u64,
    counter_start: u64,
    hertz: u64,
    /// Since when, what the wall showed then, and how fast it runs; the last one holds.
    wall: Vec<(u64, u64, i64)>,
    timeline: Timeline,
    /// When the timeline learned from a sample that was not spoiled.
    good_samples: Vec<u64>,
    /// The same of those that were, with their width.
    spoiled_samples: Vec<(u64, u64)>,
    /// When the wall was set, and how far; and the sum of what it was set back.
    steps: Vec<(u64, u64)>,
    set_back: u64,
    /// Greatest difference of two rates, in millionths.
    rates_differ: u64,
    /// What the lanes were last given.
    lasts: Vec<u64>,
    waiting: Vec<(usize, u64)>,
    /// Since when another counter is read, and what it began with.
    changed: Option<(u64, u64)>,
}

/// Widest sample that is not spoiled.
const WIDTH_MAX: u64 = 200;

#[derive(Clone, Copy, Debug)]
struct Width {
    nanos: u64,
    /// Where in the sample the wall was read, in hundredths.
    read_at: u64,
}

#[derive(Clone, Debug)]
enum Happening {
    /// The wall clock runs so many millionths faster than the third clock from now on.
    Rate(i64),
    Step(i64),
    /// Nobody looks at the clock, and nobody publishes.
    Pause(u64),
    /// Another counter takes the place of this one.
    Change,
    /// A turn of the worker, after this time; an event of each of these lanes is published at this hundredth of it.
    Turn {
        after: u64,
        events: Vec<(usize, u64)>,
        widths: Vec<Width>,
        takes: bool,
    },
}

impl World {
    fn new(counter_start: u64, hertz: u64) -> Self {
        let mut world = Self {
            now: 0,
            counter_start,
            hertz,
            wall: vec![(0, 1_790_000_000 * SECOND, 0)],
            timeline: Timeline::new(
                Sample { before: 0, wall: 0, after: 0 },
                Sample { before: 1, wall: 1, after: 1 },
            ),
            good_samples: Vec::new(),
            spoiled_samples: Vec::new(),
            steps: Vec::new(),
            set_back: 0,
            rates_differ: 0,
            lasts: vec![0; 4],
            waiting: Vec::new(),
            changed: None,
        };
        let width = Width { nanos: 60, read_at: 50 };
        let first = world.sample(width);
        world.now += FIRST_INTERVAL_NANOS;
        world.timeline = Timeline::new(first, world.sample(width));
        world.good_samples.push(world.now);
        world
    }

    fn ticks_at(&self, at: u64) -> Ticks {
        if let Some((since, base)) = self.changed
            && at >= since
        {
            return Ticks(base.wrapping_add(at));
        }
        Ticks(
            self.counter_start
                .wrapping_add((u128::from(at) * u128::from(self.hertz) / u128::from(SECOND)) as u64),
        )
    }

    fn wall_at(&self, at: u64) -> u64 {
        let &(since, wall, ppm) =
            self.wall.iter().rfind(|(since, ..)| *since <= at).expect("it began at zero");
        let passed = i128::from(at - since);
        (i128::from(wall) + passed + passed * i128::from(ppm) / 1_000_000) as u64
    }

    fn set_wall(&mut self, step: i64, ppm: i64) {
        let wall = self.wall_at(self.now).saturating_add_signed(step);
        let others = self.wall.iter().map(|(.., other)| other.abs_diff(ppm)).max();
        self.rates_differ = self.rates_differ.max(others.unwrap_or(0));
        self.wall.push((self.now, wall, ppm));
        if step != 0 {
            self.steps.push((self.now, step.unsigned_abs()));
            self.set_back += step.min(0).unsigned_abs();
        }
    }

    fn rate(&self) -> i64 {
        self.wall.last().expect("it began").2
    }

    /// Takes a sample, which takes its time.
    fn sample(&mut self, width: Width) -> Sample {
        let before = self.ticks_at(self.now).0;
        let wall = self.wall_at(self.now + width.nanos * width.read_at / 100);
        self.now += width.nanos;
        Sample { before, wall, after: self.ticks_at(self.now).0 }
    }

    fn samples(&mut self, widths: &[Width]) {
        let taken = std::array::from_fn(|index| self.sample(widths[index % widths.len()]));
        self.timeline.learn(Sample::narrowest(taken));
        match widths.iter().map(|width| width.nanos).min() {
            Some(width) if width > WIDTH_MAX => self.spoiled_samples.push((self.now, width)),
            _ => self.good_samples.push(self.now),
        }
    }

    /// The counter is replaced, as `Clock::leave_tsc` does; only once.
    fn change_counter(&mut self) {
        if self.changed.is_some() {
            return;
        }
        let base = self.ticks_at(self.now).0.wrapping_add(1 << 62) | 1;
        self.changed = Some((self.now, base));
        let sample = self.sample(GOOD);
        self.timeline.change_counter(base, sample);
        self.good_samples.push(self.now);
    }

    fn renew(&mut self, widths: &[Width]) {
        if self.timeline.is_due(self.ticks_at(self.now)) {
            self.samples(widths);
        }
    }

    fn convert(&mut self, lane: usize, at: u64, widths: &[Width]) -> u64 {
        let ticks = self.ticks_at(at);
        if self.timeline.is_beyond(ticks) {
            self.samples(widths);
        }
        self.timeline.timestamp(lane, ticks).0
    }

    /// An event that is converted at once.
    fn stamp(&mut self, lane: usize) -> u64 {
        self.convert(lane, self.now, &[GOOD])
    }

    fn turns(&mut self, count: usize, after: u64) {
        for _ in 0..count {
            self.now += after;
            self.renew(&[GOOD]);
        }
    }

    #[track_caller]
    fn assert_right(&mut self, lane: usize) {
        let (truth, stamp) = (self.wall_at(self.now), self.stamp(lane));
        assert!(
            stamp.abs_diff(truth) <= ERROR_NANOS + 60,
            "{stamp} is {} off",
            stamp as i128 - truth as i128
        );
    }

    /// Everything that must hold for one event, whatever has happened.
    fn check(&mut self, lane: usize, at: u64, widths: &[Width]) -> Result<(), TestCaseError> {
        let stamp = self.convert(lane, at, widths);
        let (truth, last) = (self.wall_at(at), self.lasts[lane]);
        self.lasts[lane] = stamp;
        if stamp < last {
            prop_assert!(
                self.set_back > HELD_NANOS_MAX,
                "decreased by {} without a great step back",
                last - stamp
            );
            return Ok(());
        }
        let (bound, steps) = self.allowance(at);
        if stamp == last && stamp > truth {
            // Held, or a lane's neighbour.
            prop_assert!(stamp - truth <= HELD_NANOS_MAX.min(self.set_back) + bound + 3 * steps);
            return Ok(());
        }
        let error = stamp.abs_diff(truth);
        prop_assert!(error <= bound + 3 * steps, "{error} ns off, {bound} is the bound, {steps} the steps");
        Ok(())
    }

    /// The error that is promised for a reading, and the sum of all steps near it, which may add to that. A step that is small for
    /// the gap that it is found in, two steps one after the other, or what a spoiled sample leaves to be corrected, may be
    /// taken for a change of rate until the next sample.
    fn allowance(&self, at: u64) -> (u64, u64) {
        let after = self.good_samples.partition_point(|&taken| taken <= at);
        // After a step, a rate is known again after so many samples.
        let since = self.good_samples[after.saturating_sub(AGREED_MIN as usize + 2)];
        // A rate that changed within a gap is mixed with the old one, and goes on so until the next sample.
        let before = self.good_samples[after.saturating_sub(2)];
        let until = self.good_samples.get(after).copied().unwrap_or(self.now);
        let near = |list: &[(u64, u64)]| -> Vec<u64> {
            list.iter().filter(|(at, _)| (since..=until).contains(at)).map(|(_, size)| *size).collect()
        };
        let (spoiled, steps) = (near(&self.spoiled_samples), near(&self.steps));
        let width = spoiled.iter().copied().max().unwrap_or(WIDTH_MAX);
        let drift = (until - before) * self.rates_differ / 1_000_000;
        let mistaken = match spoiled.len() + steps.len() {
            0 => 0,
            1 => (until - before) / 200,
            _ => (until - before) / 2,
        };
        (ERROR_NANOS + width + drift + mistaken, steps.iter().sum())
    }
}

const GOOD: Width = Width { nanos: 60, read_at: 30 };

fn widths() -> impl Strategy<Value = Vec<Width>> {
    let narrow = (20..WIDTH_MAX, 0..=100_u64);
    let spoiled = (WIDTH_MAX + 1..5 * MILLI, 0..=100_u64);
    let one = prop_oneof![4 => narrow, 1 => spoiled].prop_map(|(nanos, read_at)| Width { nanos, read_at });
    prop_oneof![
        9 => vec(one, 5),
        // All of them are spoiled.
        1 => (WIDTH_MAX + 1..5 * MILLI, 0..=100_u64).prop_map(|(nanos, read_at)| vec![Width { nanos, read_at }]),
    ]
}

fn turn() -> impl Strategy<Value = Happening> {
    let after = prop_oneof![4 => 1_000..2 * MILLI, 2 => 5 * MILLI..30 * MILLI, 1 => 100 * MILLI..SECOND];
    (after, vec((0..4_usize, 0..=100_u64), 0..6), widths(), prop::bool::weighted(0.8))
        .prop_map(|(after, events, widths, takes)| Happening::Turn { after, events, widths, takes })
}

fn happening() -> impl Strategy<Value = Happening> {
    let step = prop_oneof![1_000..10 * MILLI as i64, 10 * MILLI as i64..30 * SECOND as i64];
    prop_oneof![
        24 => turn(),
        1 => (-200..=200_i64).prop_map(Happening::Rate),
        1 => (step, any::<bool>()).prop_map(|(step, back)| Happening::Step(if back { -step } else { step })),
        1 => (0..HOUR).prop_map(Happening::Pause),
        1 => Just(Happening::Change),
    ]
}

fn counter_start() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), (0..HOUR).prop_map(|before| u64::MAX - before), any::<u64>()]
}

proptest! {

    #[test]
    fn timestamps_are_right_to_the_bound_whatever_happens(
        start in counter_start(),
        hertz in prop_oneof![Just(1_000_000_000), Just(2_596_110_000), 1_000_000_000..5_000_000_000_u64],
        happenings in vec(happening(), 1..200),
    ) {
        let mut world = World::new(start, hertz);
        for happening in happenings {
            match happening {
                Happening::Rate(ppm) => world.set_wall(0, ppm),
                Happening::Step(step) => world.set_wall(step, world.rate()),
                Happening::Pause(nanos) => world.now += nanos,
                Happening::Change => world.change_counter(),
                Happening::Turn { after, events, widths, takes } => {
                    let mut published: Vec<_> =
                        events.iter().map(|&(lane, at)| (lane, world.now + after * at / 100)).collect();
                    published.sort_by_key(|(_, at)| *at);
                    world.waiting.extend(published);
                    world.now += after;
                    world.renew(&widths);
                    for (lane, at) in if takes { std::mem::take(&mut world.waiting) } else { Vec::new() } {
                        world.check(lane, at, &widths)?;
                    }
                }
            }
        }
        for (lane, at) in std::mem::take(&mut world.waiting) {
            world.check(lane, at, &[GOOD])?;
        }
        // Left in peace, everything is right soon, also after a step back that had to be waited for.
        world.turns(20, 10 * MILLI);
        world.now += HELD_NANOS_MAX;
        world.turns(20, 10 * MILLI);
        for lane in 0..4 {
            world.assert_right(lane);
        }
    }
}

fn worlds() -> impl Iterator<Item = World> {
    let starts = [0, u64::MAX - 5 * MILLI, 1 << 63];
    starts.into_iter().flat_map(|start| [1_000_000_000, 2_596_110_000].map(|hertz| World::new(start, hertz)))
}

#[test]
fn a_steady_clock_is_one_segment_and_right_for_months() {
    for mut world in worlds() {
        world.set_wall(0, 17);
        for _ in 0..3_000 {
            world.turns(1, HOUR);
            world.turns(5, 5 * MILLI);
            world.assert_right(0);
        }
        assert!(world.timeline.segments.len() <= 3, "{:?}", world.timeline.segments);
    }
}

#[test]
fn an_event_that_waited_for_minutes_gets_its_own_moment() {
    for mut world in worlds() {
        let mut waiting = Vec::new();
        for second in 0..600 {
            world.set_wall(0, [0, 40, -150, 3][second % 4]);
            world.turns(2, SECOND / 2);
            waiting.push((world.now, world.wall_at(world.now)));
        }
        for (at, truth) in waiting {
            let stamp = world.convert(0, at, &[GOOD]);
            assert!(stamp.abs_diff(truth) <= ERROR_NANOS + 60, "{} ns off", stamp as i128 - truth as i128);
        }
    }
}

#[test]
fn another_counter_goes_on_where_the_first_one_ended() {
    for mut world in worlds() {
        world.set_wall(0, 40);
        world.turns(100, 10 * MILLI);
        let waiting = (world.now, world.wall_at(world.now));
        world.now += 5 * MILLI;
        let late = world.ticks_at(world.now + SECOND);
        world.change_counter();
        let changed = world.wall_at(world.now);
        for _ in 0..1_000 {
            world.turns(1, 3 * MILLI);
            world.assert_right(0);
        }
        let stamp = world.convert(1, waiting.0, &[GOOD]);
        assert!(stamp.abs_diff(waiting.1) <= ERROR_NANOS + 60);
        // Nothing of the old counter is later than the change, however wild its reading.
        assert!(world.timeline.timestamp(2, late).0 <= changed);
    }
}

#[test]
fn a_step_forth_is_followed_with_the_next_sample() {
    for mut world in worlds() {
        for step in [20_000, 5 * MILLI, SECOND, 24 * HOUR] {
            world.turns(20, 10 * MILLI);
            world.set_wall(step as i64, world.rate());
            world.turns(1, 10 * MILLI);
            world.assert_right(0);
            world.now += 5 * MILLI;
            world.assert_right(0);
        }
    }
}

#[test]
fn a_small_step_back_is_held_until_the_wall_has_caught_up() {
    for mut world in worlds() {
        world.turns(20, 10 * MILLI);
        let before = world.stamp(0);
        world.set_wall(-(SECOND as i64) / 2, 0);
        for _ in 0..49 {
            world.turns(1, 10 * MILLI);
            // The line had gone on until the step was seen.
            assert!(world.stamp(0) >= before && world.stamp(0) <= before + 10 * MILLI + ERROR_NANOS);
        }
        world.turns(3, 10 * MILLI);
        world.assert_right(0);
        world.assert_right(1);
    }
}

#[test]
fn a_great_step_back_is_followed() {
    for mut world in worlds() {
        for step in [2 * SECOND, HOUR] {
            world.turns(20, 10 * MILLI);
            let (late, before) = (world.now, world.stamp(0));
            world.set_wall(-(step as i64), 0);
            world.turns(1, 10 * MILLI);
            world.assert_right(0);
            let after = world.stamp(0);
            assert!(after < before);
            // What was published before the step and comes now belongs to what was taken just before it.
            assert_eq!(world.convert(0, late, &[GOOD]), after);
            world.assert_right(0);
        }
    }
}

#[test]
fn small_steps_back_do_not_add_up_to_a_long_standstill() {
    for mut world in worlds() {
        world.turns(20, 10 * MILLI);
        for _ in 0..10 {
            world.set_wall(-(SECOND as i64) * 9 / 10, 0);
            world.turns(1, 10 * MILLI);
            let (truth, stamp) = (world.wall_at(world.now), world.stamp(0));
            assert!(stamp <= truth + HELD_NANOS_MAX + ERROR_NANOS, "{} ns ahead", stamp - truth);
        }
    }
}

#[test]
fn an_idle_night_does_not_disturb_the_first_event_of_the_morning() {
    for mut world in worlds() {
        for step in [0, 100 * MILLI as i64, -(HOUR as i64), 24 * HOUR as i64] {
            world.turns(20, 10 * MILLI);
            world.now += 4 * HOUR;
            world.set_wall(step, -30);
            world.now += 4 * HOUR;
            let (at, truth) = (world.now, world.wall_at(world.now));
            world.now += 50_000;
            world.renew(&[GOOD]);
            let stamp = world.convert(2, at, &[GOOD]);
            assert!(stamp.abs_diff(truth) <= 2 * ERROR_NANOS, "{} ns off", stamp as i128 - truth as i128);
        }
    }
}

#[test]
fn a_counter_that_begins_anew_does_not_end_the_world() {
    for mut world in worlds() {
        world.turns(20, 10 * MILLI);
        let (old, before) = (world.ticks_at(world.now), world.stamp(0));
        world.now += MILLI;
        // As after a suspend that has cleared the counter.
        let ticks_now = world.ticks_at(world.now).0.wrapping_sub(world.counter_start);
        world.counter_start = old.0.wrapping_sub(ticks_now + HOUR);
        world.turns(1, MILLI);
        world.assert_right(0);
        let stamp = world.timeline.timestamp(0, old).0;
        assert!(stamp >= before && stamp <= world.wall_at(world.now) + ERROR_NANOS, "an event of before");
        world.turns(20, 10 * MILLI);
        world.assert_right(0);
    }
}

#[test]
fn another_rate_of_the_counter_is_learned() {
    for mut world in worlds() {
        for percent in [50, 90, 110, 200] {
            world.turns(20, 10 * MILLI);
            // The machine was moved to a host with another counter, which goes on where the old one was.
            let ticks = world.ticks_at(world.now).0;
            world.hertz = world.hertz * percent / 100;
            let offset = world.ticks_at(world.now).0.wrapping_sub(ticks);
            world.counter_start = world.counter_start.wrapping_sub(offset);
            world.turns(10, 10 * MILLI);
            world.assert_right(1);
            world.now += MILLI;
            world.renew(&[GOOD]);
            world.now += MILLI / 2;
            world.assert_right(2);
        }
    }
}

#[test]
fn a_bad_beginning_is_overcome() {
    for (first, second) in [(0, SECOND), (SECOND, 0), (0, 0), (0, 20_000), (5, HOUR)] {
        for mut world in worlds() {
            let [first, second] = [first, second].map(|wall| {
                world.now += FIRST_INTERVAL_NANOS;
                Sample { wall, ..world.sample(GOOD) }
            });
            world.timeline = Timeline::new(first, second);
            world.turns(40, MILLI);
            world.assert_right(0);
        }
    }
}

#[test]
fn a_clock_that_is_read_slowly_is_followed_to_the_width_of_its_samples() {
    for mut world in worlds() {
        for turn in 0..2_000 {
            world.now += MILLI;
            world.renew(&[Width { nanos: 8_000, read_at: turn * 37 % 100 }]);
            let (truth, stamp) = (world.wall_at(world.now), world.convert(0, world.now, &[GOOD]));
            assert!(stamp.abs_diff(truth) <= 16_000 + ERROR_NANOS, "{} ns off", stamp.abs_diff(truth));
        }
    }
}
