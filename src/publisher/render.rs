//! From a record of a ring to a message for the server: its number, its subject, its envelope.
//!
//! All formatting happens here, on the worker, and none on the hot thread. The envelope is written where it stays, behind
//! those of the messages before it.

use super::route::Routes;
use super::stamp::Stamper;
use super::window::{Message, Origin};
use crate::clock::Timestamp;
use crate::envelope::{Parts, Writer};
use crate::ledger::Reason;
use crate::record;
use crate::subject::Subjects;
use serde::de::IgnoredAny;

/// Makes messages of records.
pub(crate) struct Renderer {
    pub(crate) stamper: Stamper,
    /// Whether envelopes carry producer and number.
    stamps: bool,
    routes: Routes,
    writer: Writer,
}

impl Renderer {
    pub(crate) fn new(subjects: Subjects, stamps: bool, stamper: Stamper) -> Self {
        Self { stamper, stamps, routes: Routes::new(subjects), writer: Writer::new() }
    }

    /// Makes an event's message and appends its payload to `out`. An error means that it is dropped, whatever was appended.
    #[inline]
    pub(crate) fn message(
        &mut self,
        ring: usize,
        record: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Message, Reason> {
        let Some((head, body)) = record::parse(record) else {
            // Only a bug of ours can bring us here. The event still has to be accounted for.
            return Err(Reason::Serialize);
        };
        let seq = self.stamper.number(ring, head.lost);
        let route = self.routes.of(head.name);
        if head.unchecked && serde_json::from_slice::<IgnoredAny>(body).is_err() {
            self.stamper.lost(ring, seq, &route.name, Reason::Serialize);
            return Err(Reason::Serialize);
        }
        let message = Message { origin: Origin::Ring(ring), seq, route, offered: head.timestamp.0 };
        self.envelope(&message, head.request_id, out, |out| out.extend_from_slice(body));
        Ok(message)
    }

    /// Gives an event its number, so that it stands in a gap, and no more.
    pub(crate) fn discard(&mut self, ring: usize, record: &[u8], reason: Reason) {
        if let Some((head, _)) = record::parse(record) {
            let seq = self.stamper.number(ring, head.lost);
            let route = self.routes.of(head.name);
            self.stamper.lost(ring, seq, &route.name, reason);
        }
    }

    /// Makes the message of a report of the bus itself and appends its payload to `out`.
    pub(crate) fn report(&mut self, name: &str, body: &[u8], out: &mut Vec<u8>) -> Message {
        let (seq, route) = (self.stamper.number_report(), self.routes.of(name));
        let message = Message { origin: Origin::Bus, seq, route, offered: Timestamp::now().0 };
        self.envelope(&message, None, out, |out| out.extend_from_slice(body));
        message
    }

    #[inline]
    fn envelope(
        &mut self,
        message: &Message,
        request_id: Option<&str>,
        out: &mut Vec<u8>,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        let stamp = self.stamps.then(|| (&**self.stamper.names().of(message.origin), message.seq));
        let parts = Parts { timestamp: Timestamp(message.offered), request_id, stamp };
        self.writer.write(&parts, out, body);
    }
}
