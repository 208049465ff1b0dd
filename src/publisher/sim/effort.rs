//! What the client does of its own accord. A wait, however it comes about, costs next to nothing; a core with a deadline that stays in the past,
//! or one that tries again without a pause, shows here.
//!
//! Turns for nothing, messages and questions are paid for. They are earned by time, and by what gives the client something to do: events,
//! fates, and connections that come and go, which can put a whole window on its way again.

use super::Micros;

/// Earned each second.
const A_SECOND: u64 = 60;

/// Earned by each event that is taken, and by each that meets its fate.
const AN_EVENT: u64 = 4;

/// Earned by a connection that comes or goes, times the window.
const A_CONNECTION: u64 = 3;

/// Kept at most, beside some windows.
const BURST: u64 = 300;

#[derive(Debug)]
pub(super) struct Effort {
    left: u64,
    max: u64,
    window: u64,
    earned_at: Micros,
}

impl Effort {
    pub(super) fn new(now: Micros, window: usize) -> Self {
        let window = window as u64;
        let max = BURST + 2 * A_CONNECTION * window;
        Self { left: max, max, window, earned_at: now }
    }

    pub(super) fn events(&mut self, events: usize) {
        self.earn(AN_EVENT * events as u64);
    }

    pub(super) fn connection(&mut self) {
        self.earn(A_CONNECTION * self.window);
    }

    fn earn(&mut self, earned: u64) {
        self.left = self.max.min(self.left + earned);
    }

    /// Pays for one of something. Panics if it was too often.
    pub(super) fn spend(&mut self, now: Micros, what: &str) {
        let earned = (now - self.earned_at) * A_SECOND / 1_000_000;
        if earned > 0 {
            self.earned_at = now;
            self.earn(earned);
        }
        assert!(self.left > 0, "no rest: too many of {what}");
        self.left -= 1;
    }
}
