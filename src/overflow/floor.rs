//! From where on in the stream one would have to look for what is in doubt, and since when it may be there.
//!
//! The pipeline knows a floor above which everything stands that is open and stored. A record may have met its fate, though, and be in doubt to the
//! next process all the same, as long as one before it in the log is open: for what is confirmed is a run from the front of the log. Such a record is
//! stored above the floor of the time when it was handed out, and perhaps below that of now. So a floor that is seen counts only when all has
//! been confirmed that was out by then:
//!
//! ```text
//!   log   ░░░░░░░░▒▒▒▒░▒▒░░▒▒│                      ░ has met its fate    ▒ is open
//!                 ▲          ▲
//!             confirmed     out: a floor that is seen now counts when everything up to here is confirmed
//! ```
//!
//! The same holds for the time before which nothing of it was sent: the two are seen together, and count together.

/// Whatever may be stored stands above this sequence of the stream, and was not sent before this time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) floor: u64,
    pub(super) since: u64,
}

/// The bound that is noted with what is confirmed.
#[derive(Debug, Default)]
pub(super) struct Floor {
    stream: u64,
    bound: Bound,
    /// One that was seen, and behind the last record that was out then.
    next: Option<(Bound, u64)>,
}

impl Floor {
    /// This is the bound of what is open now, in the stream with this tag. All records below `confirmed` have met their fate, and none from `out`
    /// on was handed out; it is none where that is not known, since shadows are on their way to the log. Returns the one that counts.
    pub(super) fn see(&mut self, stream: u64, bound: Bound, confirmed: u64, out: Option<u64>) -> Bound {
        let is_nothing_out = out.is_some_and(|out| out <= confirmed);
        if stream != self.stream {
            // What is out may have been sent when another stream was there, or none could be seen.
            let since = if self.stream == 0 { bound.since } else { bound.since.min(self.bound.since) };
            *self = Self { stream, bound: Bound { since, ..bound }, next: None };
        }
        if let Some((next, _)) = self.next.take_if(|&mut (_, out)| out <= confirmed) {
            self.bound = next;
        }
        if is_nothing_out {
            // Nothing is in doubt.
            (self.bound, self.next) = (bound, None);
        } else if bound.floor < self.bound.floor {
            // The stream has lost its end, and grows there again.
            (self.bound.floor, self.next) = (bound.floor, None);
        }
        self.next = self.next.or_else(|| out.map(|out| (bound, out)));
        self.bound
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    impl Floor {
        /// Sees a floor, at a time that is as high.
        fn sees(&mut self, stream: u64, floor: u64, confirmed: u64, out: Option<u64>) -> u64 {
            self.see(stream, Bound { floor, since: floor }, confirmed, out).floor
        }
    }

    #[test]
    fn a_floor_counts_when_all_is_confirmed_that_was_out_when_it_was_seen() {
        let mut floor = Floor::default();
        assert_eq!(floor.sees(7, 100, 1, Some(1)), 100);
        assert_eq!(floor.sees(7, 150, 1, Some(5)), 100, "four are out");
        assert_eq!(floor.sees(7, 200, 3, Some(9)), 100);
        assert_eq!(floor.sees(7, 250, 5, Some(9)), 150, "those four are confirmed");
        assert_eq!(floor.sees(7, 300, 8, Some(12)), 150);
        assert_eq!(floor.sees(7, 350, 9, Some(12)), 250);
        assert_eq!(floor.sees(7, 400, 12, Some(12)), 400, "nothing is out");
    }

    #[test]
    fn while_shadows_are_on_their_way_no_floor_begins_to_count() {
        let mut floor = Floor::default();
        assert_eq!(floor.sees(7, 100, 1, Some(1)), 100);
        assert_eq!(floor.sees(7, 150, 1, Some(5)), 100);
        assert_eq!(floor.sees(7, 200, 5, None), 150, "one that was seen before they were");
        assert_eq!(floor.sees(7, 250, 5, None), 150);
        assert_eq!(floor.sees(7, 300, 5, Some(8)), 150);
        assert_eq!(floor.sees(7, 350, 8, None), 300);
    }

    #[test]
    fn another_stream_has_floors_of_its_own_and_one_that_was_cut_a_lower_one() {
        let mut floor = Floor::default();
        assert_eq!(floor.sees(7, 100, 1, Some(5)), 100);
        assert_eq!(floor.sees(8, 3, 1, Some(5)), 3);
        assert_eq!(floor.sees(8, 9, 1, Some(6)), 3);
        assert_eq!(floor.sees(8, 0, 2, Some(7)), 0);
        assert_eq!(floor.sees(8, 20, 5, Some(7)), 0);
    }

    #[test]
    fn what_is_out_keeps_its_time_when_the_stream_is_another_one_or_has_lost_its_end() {
        let mut floor = Floor::default();
        let since = |floor: &mut Floor, stream, height, since, out| {
            floor.see(stream, Bound { floor: height, since }, 1, Some(out)).since
        };
        assert_eq!(since(&mut floor, 7, 100, 1000, 1), 1000);
        assert_eq!(since(&mut floor, 7, 100, 2000, 5), 1000);
        assert_eq!(since(&mut floor, 8, 3, 3000, 5), 1000, "it was sent before that was seen");
        assert_eq!(since(&mut floor, 8, 0, 4000, 5), 1000);
        assert_eq!(since(&mut floor, 8, 9, 5000, 1), 5000, "nothing is out");
    }
}
