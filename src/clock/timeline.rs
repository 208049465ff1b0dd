//! Which moment of the wall clock a reading of the counter was. Pure: it is told samples, and has no clock itself.
//!
//! ```text
//!  wall ▲                                             . ' ← the open segment goes on into the future
//!       │                                   ____o___.'
//!       │                    ________o_____/    └ newest sample
//!       │        ___o_______/        └ anchor of the open segment
//!       │  o____/   └ the rate has changed here
//!       └──────────────────────────────────────────────────► ticks
//! ```
//!
//! The timeline is a chain of straight segments through samples. A **sample** is a reading of the wall clock between two readings of
//! the counter, so the wall showed this moment somewhere within the bracket, and nothing more is known. Among the moments that a
//! sample allows, the one nearest to the line so far is believed. So a narrow sample corrects the line to within
//! its own width, and a wide one, of a thread that was preempted in the middle, does not disturb it: it either allows what the line
//! says or shows that the wall has moved.
//!
//! **Rate.** The open segment runs from its anchor to the newest sample, and on at that slope. With each sample the baseline grows
//! and the noise of a sample weighs less. All samples since the anchor must lie within a tolerance of the line; this is
//! kept as a cone of slopes, which each sample narrows ("swinging door", E. H. Bristol 1990). A sample outside the cone means that the rate
//! has changed: the segment ends at the sample before, and the next begins. So a steady clock is one segment
//! for hours, and the chain remembers a long time at little cost.
//!
//! **Which events.** A reading newer than the newest sample is on the prolongation of the open segment; the caller renews before the
//! prolongation gets longer than the baseline (see [`Timeline::is_due`]). An older one, of an event that has waited in its ring, is
//! looked up in the chain.
//!
//! **Steps.** If a sample is off the line by more than a change of rate could explain, the wall clock was set, or the counter stood still
//! (a suspended machine). What is smaller than that, which is a thousandth of the time between the two samples, passes for a change of rate
//! until the next one. After a step a new segment begins, at the old rate. When exactly it happened is not known, so the readings
//! between the two samples are divided at the middle: the ones near the new sample count as after the step, however long ago the old
//! one was. A rate that no longer fits looks like step after step, with the same slope from each to the next; when three such slopes
//! agree, they are the rate.
//!
//! **Another counter.** The counter may be replaced by one whose readings begin far ahead of the old one's ([`Timeline::change_counter`]). Then a
//! new segment begins, and the old ones stay for the readings of before. None of these is given a moment after the change.
//!
//! **Backwards.** Events of a lane never go back in time by a small step: they are held at the last moment that was given out until the
//! wall clock has caught up, at most for [`HELD_NANOS_MAX`]. Had they to be held longer, the step is followed and a new **epoch** begins;
//! the first event of a lane in a new epoch may be earlier than the one before it.

use super::{Ticks, Timestamp};
use std::collections::VecDeque;

/// A clock that was set back by no more than this is waited for; by more, it is followed.
pub(super) const HELD_NANOS_MAX: u64 = 1_000_000_000;

/// Time between two samples, once the rate is known well. A clock that is slewed by 500 ppm, the most that the kernel's own
/// steering does, is 5 µs off after this time; five samples cost a microsecond.
pub(super) const INTERVAL_NANOS: u64 = 10_000_000;

/// The same, when nothing but one sample is known.
pub(super) const FIRST_INTERVAL_NANOS: u64 = 200_000;

/// How far a sample may be from the line of its segment, besides the samples' own uncertainty.
const TOLERANCE_NANOS: u64 = 250;

/// A sample that is further off the line than this part of the time since the one before it is a step. NTP may slew by half of it.
const SLEW_MAX_DIVISOR: u64 = 1_000;

/// No step is smaller than this.
const STEP_NANOS_MIN: u64 = 1_000;

/// Two slopes agree if they differ by no more than this part of them.
const AGREEMENT_DIVISOR: u64 = 64;

/// A slope that so many others before it agree with is a rate. Steps by chance hardly agree twice.
const AGREED_MIN: u32 = 2;

/// Segments that are remembered. One is at least an interval long, and many minutes while the clock is steady.
const SEGMENTS_MAX: usize = 1024;

/// Samples taken at once.
pub(super) const SAMPLES: usize = 5;

/// A rate has this many bits behind the point. A day's rounding is below a nanosecond with them.
const FRACTION_BITS: u32 = 48;

/// The wall clock, read between two readings of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) before: u64,
    /// Nanoseconds since 1970.
    pub(super) wall: u64,
    pub(super) after: u64,
}

impl Sample {
    /// Of samples taken one after the other, the one that says most. An interrupt or a preemption widens one of them, hardly all.
    pub(super) fn narrowest(samples: [Self; SAMPLES]) -> Self {
        samples
            .into_iter()
            .fold(samples[0], |best, sample| if sample.width() < best.width() { sample } else { best })
    }

    /// In ticks. A counter that went backwards in between gives a width that hardly another sample exceeds.
    fn width(&self) -> u64 {
        self.after.wrapping_sub(self.before)
    }

    fn middle(&self) -> u64 {
        self.before.wrapping_add(self.width() / 2)
    }
}

/// See the essay above.
#[derive(Debug)]
pub(super) struct Timeline {
    /// In the order of time, never empty; the last one is open.
    segments: VecDeque<Segment>,
    /// Where the open segment begins.
    anchor: Point,
    /// The least and the greatest slope at which a line from the anchor passes all samples since, within the tolerance.
    cone: (i128, i128),
    /// Ticks; see [`is_due`](Self::is_due).
    interval: i64,
    /// Half the width that samples usually have, in nanoseconds.
    uncertainty: u64,
    /// If the newest sample was a step: the slope to it from the sample before, and how many before agree with it.
    stepped: Option<(i128, u32)>,
    /// The latest moment of this epoch that the line had reached when it was set back.
    ceiling: u64,
    lanes: Vec<Lane>,
    /// If the counter was replaced: the first reading of the new one, and the moment of the change.
    changed: Option<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    ticks: u64,
    wall: u64,
}

/// A part of the timeline: a line through a point.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// The first reading that it holds for.
    from: u64,
    /// The last sample on it.
    point: Point,
    /// Nanoseconds a tick, with [`FRACTION_BITS`] behind the point.
    rate: u64,
    epoch: u32,
}

/// What the last event of a lane was given.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    last: u64,
    epoch: u32,
}

impl Timeline {
    /// Two samples, a fraction of a millisecond apart, make a beginning.
    pub(super) fn new(first: Sample, second: Sample) -> Self {
        let anchor = Point { ticks: first.middle(), wall: first.wall };
        let next = Point { ticks: second.middle(), wall: second.wall };
        // If the wall was set in between the slope is nonsense, and is found out as a wrong rate soon.
        let rate = anchor.slope_to(next).and_then(rate_of).unwrap_or(1 << FRACTION_BITS);
        let mut timeline = Self {
            segments: VecDeque::with_capacity(SEGMENTS_MAX),
            anchor,
            cone: ANY_SLOPE,
            interval: 0,
            uncertainty: half_width_nanos(first, rate).max(half_width_nanos(second, rate)),
            stepped: None,
            ceiling: 0,
            lanes: Vec::new(),
            changed: None,
        };
        timeline.segments.push_back(Segment { from: anchor.ticks, point: next, rate, epoch: 0 });
        timeline.narrow_cone(next);
        timeline.set_interval();
        timeline
    }

    /// Whether the next sample is due. The time between samples is that of the baseline so far, within limits: so the error of
    /// the slope is not multiplied by more than one.
    #[inline]
    pub(super) fn is_due(&self, now: Ticks) -> bool {
        let since = distance(self.newest().ticks, now.0);
        // A distance below zero is a counter that has begun anew.
        since >= self.interval || since < 0
    }

    /// Whether this reading is so far from the newest sample that one must be taken before it is converted.
    #[inline]
    pub(super) fn is_beyond(&self, ticks: Ticks) -> bool {
        distance(self.newest().ticks, ticks.0) > self.interval.saturating_mul(2)
    }

    /// Learns from a sample.
    pub(super) fn learn(&mut self, sample: Sample) {
        let (open, ticks) = (*self.open(), sample.middle());
        let gap = distance(open.point.ticks, ticks);
        if gap <= 0 {
            // The counter has begun anew, and no reading of before means anything.
            self.ceiling = self.ceiling.max(open.point.wall);
            self.segments.clear();
            self.begin(ticks, Point { ticks, wall: sample.wall }, open);
            return;
        }
        let uncertainty = half_width_nanos(sample, open.rate);
        // Follows a wide sample slowly, since the next one is narrow again if only this one was spoiled.
        self.uncertainty = uncertainty.min(self.uncertainty + self.uncertainty / 8 + 1);
        let predicted = open.at(ticks);
        let (least, most) =
            (sample.wall.saturating_sub(uncertainty), sample.wall.saturating_add(uncertainty));
        let point = Point { ticks, wall: predicted.clamp(least, most) };
        if point.wall.abs_diff(predicted) <= self.explained(gap) {
            self.stepped = None;
            self.extend(point);
        } else {
            self.ceiling = self.ceiling.max(predicted);
            // Where a spoiled sample lies is too vague for a slope.
            let is_narrow = uncertainty <= STEP_NANOS_MIN + 16 * self.uncertainty;
            self.stepped = open.point.slope_to(point).filter(|_| is_narrow).map(|slope| match self.stepped {
                Some((before, agreed)) if agree(slope, before) => (slope, agreed + 1),
                _ => (slope, 0),
            });
            let confirmed = self.stepped.filter(|(_, agreed)| *agreed >= AGREED_MIN);
            let rate = confirmed.and_then(|(slope, _)| rate_of(slope)).unwrap_or(open.rate);
            let middle = open.point.ticks.wrapping_add(gap as u64 / 2);
            self.begin(middle, point, Segment { rate, ..open });
        }
    }

    /// Readings before `first` are of another counter, which was replaced before this timeline began.
    pub(super) fn begin_behind(&mut self, first: u64) {
        self.changed = Some(Point { ticks: first, wall: self.anchor.wall });
    }

    /// Readings from `first` on are nanoseconds of another counter, of which this is a sample.
    pub(super) fn change_counter(&mut self, first: u64, sample: Sample) {
        let open = *self.open();
        let point = Point { ticks: sample.middle(), wall: sample.wall };
        let latest = self.lanes.iter().filter(|lane| lane.epoch == open.epoch).map(|lane| lane.last).max();
        self.ceiling = self.ceiling.max(open.point.wall).max(latest.unwrap_or(0));
        self.changed = Some(Point { ticks: first, wall: sample.wall });
        self.stepped = None;
        self.begin(first, point, Segment { rate: 1 << FRACTION_BITS, ..open });
        self.uncertainty = half_width_nanos(sample, self.open().rate);
    }

    /// The moment of a reading, for an event of this lane.
    #[inline]
    pub(super) fn timestamp(&mut self, lane: usize, ticks: Ticks) -> Timestamp {
        // After the caller's renewal only a reading of before a restart of the counter can still seem to lie in the future.
        let ticks = if self.is_beyond(ticks) { self.newest().ticks } else { ticks.0 };
        let segment = self.segment_of(ticks);
        let (mut moment, epoch) = (segment.at(ticks), segment.epoch);
        if let Some(changed) = self.changed
            && distance(changed.ticks, ticks) < 0
        {
            // Of the other counter. If no line is left of it, nothing is known but that it was before.
            let is_known = distance(changed.ticks, segment.from) < 0;
            moment = if is_known { moment.min(changed.wall) } else { changed.wall };
        }
        if lane >= self.lanes.len() {
            self.lanes.resize(lane + 1, Lane::default());
        }
        let lane = &mut self.lanes[lane];
        if epoch > lane.epoch {
            *lane = Lane { last: moment, epoch };
        } else if epoch == lane.epoch {
            lane.last = lane.last.max(moment);
        }
        // What is of an older epoch than its predecessor waited for its place in the ring, and comes to stand with it.
        Timestamp(lane.last)
    }

    /// How far, in nanoseconds, a sample so many ticks after the newest one may be off the line without being a step.
    fn explained(&self, gap: i64) -> u64 {
        // What the samples' own noise does to the slope, and that to the prolongation. Without a baseline the slope is an old one.
        let noise = match distance(self.anchor.ticks, self.newest().ticks) {
            0 => self.uncertainty * 4,
            baseline => self.uncertainty.saturating_mul(4 * (gap / baseline).max(1) as u64),
        };
        (STEP_NANOS_MIN + nanos(gap as u64, self.open().rate) / SLEW_MAX_DIVISOR).saturating_add(noise)
    }

    /// Goes on with the open segment, or begins a new one where it ended if the rate has changed.
    fn extend(&mut self, point: Point) {
        let fits = |&slope: &i128| (self.cone.0..=self.cone.1).contains(&slope);
        if self.anchor.slope_to(point).filter(fits).is_none() {
            let open = *self.open();
            self.begin(open.point.ticks, open.point, open);
        }
        self.narrow_cone(point);
        let rate = self.anchor.slope_to(point).and_then(rate_of);
        let open = self.open_mut();
        open.point = point;
        open.rate = rate.unwrap_or(open.rate);
        self.set_interval();
    }

    /// Begins a segment at a point, which holds from a reading on and goes on at the rate of the one before.
    fn begin(&mut self, from: u64, point: Point, before: Segment) {
        let mut epoch = before.epoch;
        if self.ceiling > point.wall.saturating_add(HELD_NANOS_MAX) {
            (epoch, self.ceiling) = (epoch + 1, 0);
        }
        if self.segments.len() == SEGMENTS_MAX {
            self.segments.pop_front();
        }
        self.segments.push_back(Segment { from, point, epoch, ..before });
        (self.anchor, self.cone) = (point, ANY_SLOPE);
        self.set_interval();
    }

    fn narrow_cone(&mut self, point: Point) {
        let tolerance = TOLERANCE_NANOS + 2 * self.uncertainty;
        let to = |wall| self.anchor.slope_to(Point { wall, ..point });
        let (least, most) =
            (to(point.wall.saturating_sub(tolerance)), to(point.wall.saturating_add(tolerance)));
        self.cone.0 = self.cone.0.max(least.unwrap_or(i128::MIN));
        self.cone.1 = self.cone.1.min(most.unwrap_or(i128::MAX));
    }

    fn set_interval(&mut self) {
        let open = self.open();
        let baseline = distance(self.anchor.ticks, open.point.ticks);
        let [least, most] = [FIRST_INTERVAL_NANOS, INTERVAL_NANOS].map(|nanos| ticks(nanos, open.rate));
        self.interval = baseline.clamp(least, most);
    }

    #[inline]
    fn segment_of(&self, ticks: u64) -> &Segment {
        let open = self.open();
        if distance(open.from, ticks) >= 0 {
            return open;
        }
        let behind = self.segments.partition_point(|segment| distance(segment.from, ticks) >= 0);
        // Older than all that is remembered: the oldest is the nearest.
        self.segments.get(behind.saturating_sub(1)).unwrap_or(open)
    }

    #[inline]
    fn newest(&self) -> Point {
        self.open().point
    }

    #[inline]
    fn open(&self) -> &Segment {
        self.segments.back().expect("there is always an open segment")
    }

    fn open_mut(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an open segment")
    }
}

impl Segment {
    #[inline]
    fn at(&self, ticks: u64) -> u64 {
        let since = i128::from(distance(self.point.ticks, ticks)) * i128::from(self.rate);
        let wall = i128::from(self.point.wall) + (since >> FRACTION_BITS);
        wall.clamp(0, i128::from(u64::MAX)) as u64
    }
}

impl Point {
    /// Nanoseconds a tick, with [`FRACTION_BITS`] behind the point; none if the other one is not later by the counter.
    fn slope_to(self, other: Self) -> Option<i128> {
        let ticks = distance(self.ticks, other.ticks);
        let nanos = i128::from(other.wall) - i128::from(self.wall);
        (ticks > 0).then(|| (nanos << FRACTION_BITS) / i128::from(ticks))
    }
}

const ANY_SLOPE: (i128, i128) = (i128::MIN, i128::MAX);

/// From one reading to another, which may be the earlier one; the counter may have passed its end in between.
#[inline]
fn distance(from: u64, to: u64) -> i64 {
    to.wrapping_sub(from) as i64
}

fn agree(slope: i128, other: i128) -> bool {
    slope.abs_diff(other) <= slope.unsigned_abs() / u128::from(AGREEMENT_DIVISOR)
}

/// A slope that can be a rate: of a counter between a quarter of a megahertz and sixteen gigahertz.
fn rate_of(slope: i128) -> Option<u64> {
    let rates = 1 << (FRACTION_BITS - 4)..1 << (FRACTION_BITS + 12);
    u64::try_from(slope).ok().filter(|rate| rates.contains(rate))
}

fn nanos(ticks: u64, rate: u64) -> u64 {
    u64::try_from((u128::from(ticks) * u128::from(rate)) >> FRACTION_BITS).unwrap_or(u64::MAX)
}

/// At least one.
fn ticks(nanos: u64, rate: u64) -> i64 {
    let ticks = (u128::from(nanos) << FRACTION_BITS) / u128::from(rate.max(1));
    i64::try_from(ticks).unwrap_or(i64::MAX).max(1)
}

/// How far the moment of a sample may be from its middle. Not more than a day: what is more is as good as nothing.
fn half_width_nanos(sample: Sample, rate: u64) -> u64 {
    (nanos(sample.width(), rate) / 2 + 1).min(86_400_000_000_000)
}

#[cfg(all(test, not(jetring_loom)))]
mod tests;
