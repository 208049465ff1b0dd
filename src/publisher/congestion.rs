//! How many messages may be unanswered at once.
//!
//! As in TCP: after any trouble the window starts at one message, doubles with each round trip up to a threshold, and grows
//! by one a round trip above it. When the server says that it has too much to do, the threshold is halved.
//!
//! The single first message matters for order: while it is not known whether the server takes messages at all, only one
//! can be refused, so none that was sent after it can have been stored before it.

/// The window, in messages.
#[derive(Clone, Debug)]
pub(crate) struct Congestion {
    max: usize,
    window: usize,
    threshold: usize,
    /// Acknowledgements since the window last grew, above the threshold.
    credit: usize,
}

impl Congestion {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, window: 1, threshold: max, credit: 0 }
    }

    pub(crate) fn window(&self) -> usize {
        self.window
    }

    /// So many messages were stored.
    pub(crate) fn acked(&mut self, messages: usize) {
        let fast = messages.min(self.threshold.min(self.max).saturating_sub(self.window));
        self.window += fast;
        self.credit += messages - fast;
        while self.credit >= self.window && self.window < self.max {
            self.credit -= self.window;
            self.window += 1;
        }
        self.credit = self.credit.min(self.window);
    }

    /// Something went wrong: feel the way again, with one message.
    pub(crate) fn restart(&mut self) {
        self.window = 1;
        self.credit = 0;
    }

    /// Acknowledgements take long: less at once, but there is no need to feel the way.
    pub(crate) fn slowed(&mut self) {
        self.threshold = (self.window / 2).max(1);
        self.window = self.threshold;
        self.credit = 0;
    }

    /// The server has too much to do.
    pub(crate) fn overloaded(&mut self) {
        self.threshold = (self.window / 2).max(1);
        self.restart();
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    fn round_trip(congestion: &mut Congestion) -> usize {
        congestion.acked(congestion.window());
        congestion.window()
    }

    #[test]
    fn the_window_doubles_each_round_trip_up_to_its_maximum() {
        let mut congestion = Congestion::new(100);
        let windows: Vec<_> = (0..8).map(|_| round_trip(&mut congestion)).collect();
        assert_eq!(windows, [2, 4, 8, 16, 32, 64, 100, 100]);
    }

    #[test]
    fn acknowledgements_one_by_one_open_the_window_as_those_of_many_do() {
        let (mut single, mut many) = (Congestion::new(100), Congestion::new(100));
        single.overloaded();
        many.overloaded();
        for _ in 0..40 {
            let window = many.window();
            many.acked(window);
            (0..window).for_each(|_| single.acked(1));
            assert!(single.window().abs_diff(many.window()) <= 1, "{single:?} {many:?}");
        }
    }

    #[test]
    fn slow_acknowledgements_halve_the_window_and_it_grows_back_by_one_a_round_trip() {
        let mut congestion = Congestion::new(100);
        while round_trip(&mut congestion) < 100 {}
        congestion.slowed();
        let windows: Vec<_> = (0..3).map(|_| round_trip(&mut congestion)).collect();
        assert_eq!(windows, [51, 52, 53]);
    }

    #[test]
    fn after_an_overload_it_doubles_to_half_of_what_was_too_much_and_then_creeps() {
        let mut congestion = Congestion::new(100);
        while round_trip(&mut congestion) < 32 {}
        congestion.overloaded();
        let windows: Vec<_> = (0..7).map(|_| round_trip(&mut congestion)).collect();
        assert_eq!(windows, [2, 4, 8, 16, 17, 18, 19]);
    }
}
