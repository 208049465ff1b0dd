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

    /// A message was stored.
    pub(crate) fn acked(&mut self) {
        if self.window >= self.max {
            return;
        }
        if self.window < self.threshold {
            self.window += 1;
            return;
        }
        self.credit += 1;
        if self.credit >= self.window {
            self.credit = 0;
            self.window += 1;
        }
    }

    /// Something went wrong: feel the way again, with one message.
    pub(crate) fn restart(&mut self) {
        self.window = 1;
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
        (0..congestion.window()).for_each(|_| congestion.acked());
        congestion.window()
    }

    #[test]
    fn the_window_doubles_each_round_trip_up_to_its_maximum() {
        let mut congestion = Congestion::new(100);
        let windows: Vec<_> = (0..8).map(|_| round_trip(&mut congestion)).collect();
        assert_eq!(windows, [2, 4, 8, 16, 32, 64, 100, 100]);
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
