//! A record that comes out of the log: its events, whose they are, and what is known of them.

use super::identity::{self, Identity};
use super::inquiry::{Findings, Unfound};
use crate::clock::Timestamp;
use crate::envelope::timestamp_of;
use crate::frame::{self, Frame};
use crate::publisher::packer::Event;
use crate::spool::LogId;
use crate::spool::batch::Message as Record;
use crate::spool::cursor::headers_of;
use crate::trace::{TRACEPARENT, TraceParent};
use std::borrow::Cow;
use std::num::NonZeroU64;
use std::time::Instant;

/// A record that is to be handed out.
pub(crate) struct Handout<'a> {
    pub(crate) record: Record<'a>,
    pub(super) sequence: Option<NonZeroU64>,
    pub(super) log: Option<LogId>,
    pub(super) identity: &'a Identity,
    /// What is known of it, if another process may have sent it.
    pub(super) findings: Option<&'a Findings>,
    /// If a part of it was handed out, what is left.
    pub(super) rest: Option<&'a Rest>,
}

/// A frame of which so many events, up to this place, were handed out.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) frame: Frame<'static>,
    pub(super) events: usize,
    pub(super) end: usize,
}

fn header<'a>(headers: &'a [u8], name: &str) -> Option<&'a str> {
    headers_of(headers).find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// What is known of an event of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is not stored.
    Open,
    /// It may be stored. Until then, if that is known, the server recognises it by its id, or it is in a stream that is no more.
    Doubtful {
        until: Option<Instant>,
    },
    Stored,
    /// It is not, and must not be any more.
    Overtaken,
    /// Nobody can tell whether it is stored, and the server would not recognise it.
    Undecided,
}

/// The events of a record: one, unless it is a frame. What cannot be unpacked is taken as it is.
pub(super) fn unpack<'a>(headers: &[u8], payload: &'a [u8]) -> Frame<'a> {
    frame::unpack(|name| header(headers, name), payload).unwrap_or_else(|_| Frame::of_one(payload))
}

impl Handout<'_> {
    /// The events of the record.
    pub(crate) fn frame(&self) -> Cow<'_, Frame<'_>> {
        self.rest.map_or_else(|| Cow::Owned(self.unpack()), |rest| Cow::Borrowed(&rest.frame))
    }

    /// Of these, how many were handed out already, and where in the frame they end.
    pub(crate) fn handed_out(&self) -> (usize, usize) {
        self.rest.map_or((0, 0), |rest| (rest.events, rest.end))
    }

    /// As [`unpack`].
    pub(super) fn unpack(&self) -> Frame<'_> {
        unpack(self.record.headers, self.record.payload)
    }

    /// The subject to which it is sent.
    pub(crate) fn subject(&self) -> Cow<'_, [u8]> {
        self.identity.subject_of(self.record.subject)
    }

    /// The trace of its event.
    pub(crate) fn trace(&self) -> Option<TraceParent> {
        header(self.record.headers, TRACEPARENT)?.parse().ok()
    }

    /// Whose event this is, the one with this number in its record.
    pub(crate) fn event(&self, index: usize, event: &[u8]) -> Event {
        let sequence = self.sequence.map_or(0, NonZeroU64::get);
        let log = self.log.unwrap_or(LogId::NONE);
        let (origin, seq) = self.identity.of(log, sequence, self.record.headers, index, event);
        let offered = timestamp_of(event).unwrap_or_else(Timestamp::now).0;
        Event { origin, seq, offered, sequence: self.sequence }
    }

    pub(crate) fn known(&self, now: Instant, index: usize) -> Known {
        let Some(findings) = self.findings else { return Known::Open };
        let place = (self.sequence.map_or(0, NonZeroU64::get), index);
        if findings.stored.contains(&place) {
            return Known::Stored;
        }
        if findings.overtaken.contains(&place) {
            return Known::Overtaken;
        }
        if findings.undecided.contains(&place) {
            return Known::Undecided;
        }
        match findings.rest {
            Unfound::Absent => Known::Open,
            Unfound::Elsewhere => Known::Doubtful { until: None },
            Unfound::Known { until } if now < until && identity::bore_its_id(self.record.headers) => {
                Known::Doubtful { until: Some(until) }
            }
            Unfound::Known { .. } | Unfound::Unknown => Known::Undecided,
        }
    }
}
