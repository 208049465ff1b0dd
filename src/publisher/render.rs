//! From a record of a ring to a message for the server: its number, its subject, its envelope.
//!
//! All formatting happens here, on the worker, and none on the hot thread. The envelope is written where it stays, behind
//! those of the messages before it.

use super::route::{Route, Routes};
use super::stamp::Stamper;
use super::window::{Message, Origin};
use crate::clock::{Calendar, HasClock, Timestamp};
use crate::encode;
use crate::envelope::{Parts, Writer};
use crate::ledger::Reason;
use crate::record::{self, Body, Head};
use crate::subject::Subjects;
use std::rc::Rc;
use std::sync::Arc;

/// An event that has its number.
pub(crate) struct Numbered<'r> {
    pub(crate) message: Message,
    head: Head<'r>,
    body: &'r [u8],
}

/// Makes messages of records.
pub(crate) struct Renderer {
    pub(crate) stamper: Stamper,
    /// Whether envelopes carry producer and number.
    stamps: bool,
    body_bytes_max: usize,
    pub(crate) calendar: Calendar,
    routes: Routes,
    writer: Writer,
}

impl Renderer {
    pub(crate) fn new(
        clock: Arc<impl HasClock + 'static>,
        subjects: Subjects,
        stamps: bool,
        body_bytes_max: usize,
        stamper: Stamper,
    ) -> Self {
        Self {
            stamper,
            stamps,
            body_bytes_max,
            calendar: Calendar::new(clock),
            routes: Routes::new(subjects),
            writer: Writer::new(),
        }
    }

    /// Makes an event's message and appends its payload to `out`. An error means that it is dropped, whatever was appended.
    #[inline]
    pub(crate) fn message(
        &mut self,
        ring: usize,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Message, Reason> {
        let event = self.number(ring, record)?;
        self.write(&event, out)?;
        Ok(event.message)
    }

    /// The first half of [`message`](Self::message): the event has its number and its subject, and is not written yet.
    #[inline]
    pub(crate) fn number<'r>(&mut self, ring: usize, record: &'r [u8]) -> Result<Numbered<'r>, Reason> {
        let Some((head, body, route)) = self.read(record) else {
            // Only a bug of ours can bring us here. The event still has to be accounted for.
            return Err(Reason::Serialize);
        };
        let seq = self.stamper.number(ring, head.lost);
        let offered = self.calendar.timestamp(ring, head.timestamp).0;
        let origin = Origin::Ring(ring);
        let trace = head.trace.map(Rc::new);
        let message = Message { origin, seq, route, offered, packed: None, sequence: None, trace };
        Ok(Numbered { message, head, body })
    }

    /// The second half: appends the payload to `out`. An error means that the event is dropped, whatever was appended.
    #[inline]
    pub(crate) fn write(&mut self, event: &Numbered<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
        let Numbered { message, head, body } = event;
        let bytes_max = self.body_bytes_max;
        self.envelope(message, (head.request_id, head.sample), out, |out| {
            print(head.body, body, bytes_max, out)
        })
        .inspect_err(|&reason| self.stamper.lost(message.origin, message.seq, &message.route.name, reason))
    }

    /// Gives an event its number, so that it stands in a gap, and no more.
    pub(crate) fn discard(&mut self, ring: usize, record: &[u8], reason: Reason) {
        if let Some((head, _, route)) = self.read(record) {
            let seq = self.stamper.number(ring, head.lost);
            self.stamper.lost(Origin::Ring(ring), seq, &route.name, reason);
        }
    }

    /// The route of a message that comes out of a spool; none if no message could be sent there.
    pub(crate) fn route_of(&mut self, subject: &[u8]) -> Option<Rc<Route>> {
        self.routes.of_subject(subject)
    }

    /// So many events, from one number of their producer to another, were lost in a spool.
    pub(crate) fn declare_lost(
        &mut self,
        subject: &[u8],
        origin: Origin,
        range: (u64, u64),
        events: u64,
        reason: Reason,
    ) {
        match self.routes.of_subject(subject) {
            Some(route) => self.stamper.lost_many(origin, range, events, &route.name, reason),
            None => self.stamper.lost_unnamed(origin, range, events, reason),
        }
    }

    /// Takes a record apart; `None` if it is not one.
    #[inline]
    fn read<'r>(&mut self, record: &'r [u8]) -> Option<(Head<'r>, &'r [u8], Rc<Route>)> {
        let (head, body) = record::parse(record)?;
        let route = self.routes.of(head.name)?;
        Some((head, body, route))
    }

    /// Makes the message of a report of the bus itself and appends its payload to `out`.
    pub(crate) fn report(&mut self, name: &str, body: &[u8], out: &mut Vec<u8>) -> Message {
        let seq = self.stamper.number_report();
        let route = self.routes.of(name.as_bytes()).expect("a name is text");
        let (origin, offered) = (Origin::Bus, self.calendar.now().0);
        let message = Message { origin, seq, route, offered, packed: None, sequence: None, trace: None };
        self.envelope(&message, (None, 1), out, |out| out.extend_from_slice(body));
        message
    }

    #[inline]
    fn envelope<R>(
        &mut self,
        message: &Message,
        (request_id, sample): (Option<&str>, u32),
        out: &mut Vec<u8>,
        body: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let producer = self.stamps.then(|| self.stamper.names().of(message.origin));
        let stamp = producer.as_deref().map(|producer| (producer, message.seq));
        let parts = Parts { timestamp: Timestamp(message.offered), request_id, stamp, sample };
        self.writer.write(&parts, out, body)
    }
}

/// Appends the body as JSON. An error says why there is none.
#[inline]
fn print(kind: Body, body: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), Reason> {
    match kind {
        Body::Tape => {
            let start = out.len();
            // A `RawValue` may hold anything, and a value may be nested as deep as its author likes.
            encode::render(body, out).ok_or(Reason::Serialize)?;
            return if out.len() - start <= bytes_max { Ok(()) } else { Err(Reason::TooLarge) };
        }
        Body::Json if encode::is_json(body, encode::DEPTH_MAX) => out.extend_from_slice(body),
        Body::Json => return Err(Reason::Serialize),
    }
    Ok(())
}
