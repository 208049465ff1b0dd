//! How long a server may be silent.
//!
//! ```text
//!   sent        last heard                    the stream is asked        the connection is given up
//!    │              │◄──────── span ─────────►│                                 │
//!    ├──────────────┼─────────────────────────┼─────────────────────────────────┼──►
//!                   │◄────────────────── ack timeout ──────────────────────────►│
//! ```
//!
//! A change of leader swallows messages and answers without a word, and a connection that is dead says nothing either. The ack
//! timeout tells the second, and is long, since giving up a connection that is only slow makes everything slower. The first is
//! told sooner by asking: a look at the stream goes behind all that was sent, through the same connection, so when it is answered
//! nothing of that is on its way to the server any more, however slow the way is.
//!
//! When to ask follows the times that answers have taken so far, as TCP's retransmission timeout does (RFC 6298): their mean and four
//! times their deviation, doubled each time that asking was no use. An answer counts only if its message was sent once (Karn's
//! algorithm).

use std::time::{Duration, Instant};

/// Sooner nobody is asked: a server that syncs a file, or collects its garbage, is silent for a while.
pub(crate) const SPAN_MIN: Duration = Duration::from_millis(750);

/// What a new time counts for in the mean (1/8), and in the deviation (1/4).
const MEAN_PART: u32 = 8;
const DEVIATION_PART: u32 = 4;

/// Beyond that a span is at its maximum anyway.
const DOUBLINGS_MAX: u32 = 16;

#[derive(Clone, Debug)]
pub(crate) struct Patience {
    ack_timeout: Duration,
    /// Mean and mean deviation of the times that answers took; none yet.
    times: Option<(Duration, Duration)>,
    doublings: u32,
    /// When the server last said anything.
    heard_at: Option<Instant>,
    /// Since when it is silent, if it was silent for longer than the span.
    silent_since: Option<Instant>,
}

impl Patience {
    pub(crate) fn new(ack_timeout: Duration) -> Self {
        Self { ack_timeout, times: None, doublings: 0, heard_at: None, silent_since: None }
    }

    /// The server has said something.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard_at = Some(now);
        self.silent_since = None;
    }

    /// A message that was sent once was answered after so long.
    #[inline]
    pub(crate) fn answered(&mut self, after: Duration) {
        self.doublings = 0;
        self.times = Some(match self.times {
            None => (after, after / 2),
            Some((mean, deviation)) => (
                mean - mean / MEAN_PART + after / MEAN_PART,
                deviation - deviation / DEVIATION_PART + mean.abs_diff(after) / DEVIATION_PART,
            ),
        });
    }

    /// How long the server may say nothing while something has no answer.
    fn span(&self) -> Duration {
        let Some((mean, deviation)) = self.times else { return self.ack_timeout };
        let span = (mean + deviation * 4).max(SPAN_MIN);
        (span * (1 << self.doublings)).min(self.ack_timeout)
    }

    /// When the stream is to be asked, if the oldest that has no answer was sent then and nothing is heard.
    pub(crate) fn ends_at(&self, sent_at: Instant) -> Instant {
        self.quiet_since(sent_at) + self.span()
    }

    /// When half of that time is over.
    pub(crate) fn half_ends_at(&self, sent_at: Instant) -> Instant {
        self.quiet_since(sent_at) + self.span() / 2
    }

    /// The span is over.
    pub(crate) fn end(&mut self, sent_at: Instant) {
        let since = self.quiet_since(sent_at);
        self.silent_since.get_or_insert(since);
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
    }

    /// When the connection is to be given up, if the server goes on being silent.
    pub(crate) fn gives_up_at(&self) -> Option<Instant> {
        self.silent_since.map(|since| since + self.ack_timeout)
    }

    /// Whether the server has said nothing for the ack timeout, asked or not.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.heard_at.is_none_or(|heard| heard + self.ack_timeout <= now)
    }

    fn quiet_since(&self, sent_at: Instant) -> Instant {
        self.heard_at.map_or(sent_at, |heard| heard.max(sent_at))
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    const ACK_TIMEOUT: Duration = Duration::from_secs(5);

    fn with_answers_after(times: &[u64]) -> Patience {
        let mut patience = Patience::new(ACK_TIMEOUT);
        times.iter().for_each(|&time| patience.answered(Duration::from_millis(time)));
        patience
    }

    #[test]
    fn the_span_follows_the_answers_between_its_limits() {
        assert_eq!(Patience::new(ACK_TIMEOUT).span(), ACK_TIMEOUT, "nothing is known yet");
        assert_eq!(with_answers_after(&[1, 2, 1]).span(), SPAN_MIN);
        assert_eq!(with_answers_after(&[400]).span(), Duration::from_millis(1200));
        let steady = with_answers_after(&[2000; 50]).span();
        assert!((2000..2100).contains(&steady.as_millis()), "{steady:?}");
        assert_eq!(with_answers_after(&[1, 9000, 1, 9000]).span(), ACK_TIMEOUT);
    }

    #[test]
    fn a_span_that_was_no_use_is_doubled_until_an_answer_comes() {
        let now = Instant::now();
        let mut patience = with_answers_after(&[1]);
        let spans = [1, 2, 3, 4].map(|_| {
            patience.end(now);
            patience.span()
        });
        assert_eq!(spans, [SPAN_MIN * 2, SPAN_MIN * 4, ACK_TIMEOUT, ACK_TIMEOUT]);
        (0..100).for_each(|_| patience.end(now));
        assert_eq!(patience.span(), ACK_TIMEOUT);
        patience.answered(Duration::from_millis(1));
        assert_eq!(patience.span(), SPAN_MIN);
    }

    #[test]
    fn it_begins_with_the_later_of_sending_and_hearing_and_hearing_ends_it() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut patience = with_answers_after(&[1]);
        assert_eq!(patience.ends_at(at(10)), at(760));
        assert_eq!(patience.half_ends_at(at(10)), at(385));
        patience.hear(at(100));
        assert_eq!(patience.ends_at(at(10)), at(850));
        assert_eq!(patience.gives_up_at(), None);
        patience.end(at(10));
        assert_eq!(patience.gives_up_at(), Some(at(5100)));
        patience.hear(at(900));
        assert_eq!(patience.gives_up_at(), None);
        assert!(!patience.is_over(at(5899)) && patience.is_over(at(5900)));
    }
}
