//! The worker's log: the first time at once, and then a count every ten seconds, never a line for each event.

use super::pipeline::Notice;
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a summary is logged.
const INTERVAL: Duration = Duration::from_secs(10);

/// Kinds of notices that are told apart: more than there are, since causes and reasons are closed sets.
const KINDS_MAX: usize = 64;

/// What happened, and of which sort: `("dropped", "no_stream")`.
type Kind = (&'static str, &'static str);

/// Occurrences by kind, since each was last logged.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    kinds: BTreeMap<Kind, Tally>,
}

#[derive(Debug)]
struct Tally {
    logged_at: Instant,
    is_trouble: bool,
    count: u64,
    text: String,
}

impl Notices {
    /// Counts `count` occurrences of `kind`; logs the text if the kind is new or was quiet for long.
    pub(crate) fn occurred(&mut self, now: Instant, kind: Kind, count: u64, text: String) {
        self.tell(now, kind, true, count, text);
    }

    /// The same for what is no trouble.
    pub(crate) fn came_about(&mut self, now: Instant, kind: Kind, text: String) {
        self.tell(now, kind, false, 1, text);
    }

    fn tell(&mut self, now: Instant, kind: Kind, is_trouble: bool, count: u64, text: String) {
        if let Some(known) = self.kinds.get_mut(&kind) {
            known.count += count;
            known.text = text;
            return;
        }
        if self.kinds.len() < KINDS_MAX {
            // Noted before it is said, so that a subscriber that panics at it is not asked again at once.
            self.kinds.insert(kind, Tally { logged_at: now, is_trouble, count: 0, text: String::new() });
            match is_trouble {
                true => tracing::warn!(kind = kind.0, sort = kind.1, count, "{text}"),
                false => tracing::info!(kind = kind.0, sort = kind.1, count, "{text}"),
            }
        }
    }

    /// Logs the summaries that are due.
    pub(crate) fn summarize(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.kinds.retain(|&kind, known| {
            if now < known.logged_at + INTERVAL {
                return true;
            }
            let next = Tally { logged_at: now, is_trouble: known.is_trouble, count: 0, text: String::new() };
            let tally = std::mem::replace(known, next);
            let happened = tally.count > 0;
            if happened {
                due.push((kind, tally));
            }
            happened
        });
        let seconds = INTERVAL.as_secs();
        for (kind, Tally { is_trouble, count, text, .. }) in due {
            match is_trouble {
                true => tracing::warn!(kind = kind.0, sort = kind.1, count, seconds, "{text}"),
                false => tracing::info!(kind = kind.0, sort = kind.1, count, seconds, "{text}"),
            }
        }
    }

    /// When a summary is due next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.kinds.values().map(|known| known.logged_at + INTERVAL).min()
    }
}

/// Logs and counts what the pipeline has noticed.
pub(super) fn note(notices: &mut Notices, metrics: &Metrics, stream: &str, now: Instant, notice: Notice) {
    match notice {
        Notice::Retry { cause, messages, text } => {
            metrics.retried(cause, messages);
            notices.occurred(now, ("retry", cause.as_str()), messages, format!("{text}; will be sent again"));
        }
        Notice::Refused { reason, events, text } => {
            notices.occurred(
                now,
                ("dropped", reason.as_str()),
                events,
                format!("{text}; dropped as {reason}"),
            );
        }
        Notice::Denied { messages, subject } => {
            notices.occurred(
                now,
                ("server", "denied"),
                messages,
                format!("not permitted to publish to {subject:?}"),
            );
        }
        Notice::Engine(engine) => {
            let text = format!("events are sent by the engine {engine}");
            notices.came_about(now, ("engine", engine.as_str()), text);
        }
        Notice::EngineRefused => {
            let text =
                "the stream does not allow fast batches (allow_batched), and delivery.mode is fast; waiting";
            notices.occurred(now, ("server", "engine_refused"), 1, text.to_owned());
        }
        Notice::ReadBack { messages } => {
            let text = format!("the stream is read back to see which of {messages} messages it has stored");
            notices.occurred(now, ("server", "read_back"), 1, text);
        }
        Notice::Undecided { events } => {
            let text = "not even the stream can tell whether an event is stored; it is indeterminate";
            notices.occurred(now, ("indeterminate", "undecided"), events, text.to_owned());
        }
        Notice::StreamMissing => {
            notices.occurred(
                now,
                ("server", "no_stream"),
                1,
                format!("there is no stream {stream:?}; waiting for it"),
            );
        }
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    /// Collects what is logged, by counting events.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<usize>>);

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            *self.0.lock().expect("no test panics here") += 1;
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn a_storm_is_one_line_at_once_and_one_every_ten_seconds() -> io::Result<()> {
        let lines = Lines::default();
        with_default(lines.clone(), || {
            let mut notices = Notices::default();
            let start = Instant::now();
            for millis in 0..60_000 {
                let now = start + Duration::from_millis(millis);
                notices.occurred(now, ("retry", "full"), 1, "the stream is full".to_owned());
                notices.summarize(now);
            }
            assert_eq!(*lines.0.lock().expect("no test panics here"), 1 + 5);
            // After a quiet interval the kind is forgotten, and its next occurrence is logged at once again.
            notices.summarize(start + Duration::from_secs(70));
            notices.summarize(start + Duration::from_secs(80));
            let before = *lines.0.lock().expect("no test panics here");
            notices.occurred(start + Duration::from_secs(81), ("retry", "full"), 1, "again".to_owned());
            assert_eq!(*lines.0.lock().expect("no test panics here"), before + 1);
        });
        Ok(())
    }
}
