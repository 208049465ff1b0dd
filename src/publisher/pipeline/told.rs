//! What the pipeline tells the worker: the fates of messages, and what an operator should hear of.

use crate::ledger::Reason;
use crate::publisher::engine::Engine;
use crate::publisher::retry::Cause;
use crate::publisher::window::Message;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked { duplicate: bool },
    Dropped(Reason),
    Indeterminate,
}

/// A message that has met its fate.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) message: Message,
    pub(crate) fate: Fate,
    /// From the sending of the answered attempt to its answer.
    pub(crate) ack_latency: Option<Duration>,
    /// It met its fate by being given up.
    pub(crate) is_given_up: bool,
}

/// Something that an operator should hear of. The worker counts and logs it.
#[derive(Debug)]
pub(crate) enum Notice {
    Retry {
        cause: Cause,
        messages: u64,
        text: String,
    },
    /// So many events were dropped, the first of them for what the text says.
    Refused {
        reason: Reason,
        events: u64,
        text: String,
    },
    /// So many messages were denied, the first of them to this subject.
    Denied {
        messages: u64,
        subject: String,
    },
    StreamMissing,
    /// The configured engine is not allowed by the stream, so nothing is sent.
    EngineRefused,
    /// Events are sent in this way from now on.
    Engine(Engine),
    /// The stream is read to see what it has stored of so many messages.
    ReadBack {
        messages: u64,
    },
    /// Not even the stream can tell of so many messages whether they are stored.
    Undecided {
        events: u64,
    },
}

/// What was noticed since the worker last asked. What happens to many messages is one notice, with one text: nothing is formatted for each.
#[derive(Debug, Default)]
pub(super) struct Noticed(pub(super) Vec<Notice>);

impl Noticed {
    pub(super) fn push(&mut self, notice: Notice) {
        self.0.push(notice);
    }

    pub(super) fn refused(&mut self, reason: Reason, text: impl FnOnce() -> String) {
        let known = self.0.iter_mut().find_map(|notice| match notice {
            Notice::Refused { reason: known, events, .. } if *known == reason => Some(events),
            _ => None,
        });
        match known {
            Some(events) => *events += 1,
            None => self.0.push(Notice::Refused { reason, events: 1, text: text() }),
        }
    }

    pub(super) fn retry(&mut self, cause: Cause, messages: u64, text: &str) {
        let known = self.0.iter_mut().find_map(|notice| match notice {
            Notice::Retry { cause: known, messages, .. } if *known == cause => Some(messages),
            _ => None,
        });
        match known {
            Some(known) => *known += messages,
            None => self.0.push(Notice::Retry { cause, messages, text: text.to_owned() }),
        }
    }

    pub(super) fn undecided(&mut self) {
        let known = self.0.iter_mut().find_map(|notice| match notice {
            Notice::Undecided { events } => Some(events),
            _ => None,
        });
        match known {
            Some(events) => *events += 1,
            None => self.0.push(Notice::Undecided { events: 1 }),
        }
    }

    pub(super) fn denied(&mut self, subject: &[u8]) {
        let known = self.0.iter_mut().find_map(|notice| match notice {
            Notice::Denied { messages, .. } => Some(messages),
            _ => None,
        });
        match known {
            Some(messages) => *messages += 1,
            None => {
                let subject = String::from_utf8_lossy(subject).into_owned();
                self.0.push(Notice::Denied { messages: 1, subject });
            }
        }
    }
}
