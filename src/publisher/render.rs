//! From a record of a ring to a message for the server: its number, its subject, its envelope.
//!
//! All formatting happens here, on the worker, and none on the hot thread.

use super::stamp::Stamper;
use super::window::{Message, Origin};
use crate::bus::Shared;
use crate::clock::{Calendar, Timestamp};
use crate::envelope::Parts;
use crate::ledger::Reason;
use crate::record;
use bytes::Bytes;
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::sync::Arc;

/// Event names whose subject is kept ready. More are made anew each time the table is full.
const ROUTES_MAX: usize = 4096;

/// Makes messages of records.
pub(crate) struct Renderer {
    shared: Arc<Shared>,
    pub(crate) stamper: Stamper,
    pub(crate) calendar: Calendar,
    routes: HashMap<Box<str>, Route>,
    scratch: Vec<u8>,
}

#[derive(Clone)]
struct Route {
    name: Arc<str>,
    subject: Bytes,
}

impl Renderer {
    pub(crate) fn new(shared: Arc<Shared>, stamper: Stamper) -> Self {
        let calendar = Calendar::new(shared.clock);
        Self { shared, stamper, calendar, routes: HashMap::new(), scratch: Vec::new() }
    }

    /// Makes an event's message. An error means that it is dropped.
    pub(crate) fn message(&mut self, ring: usize, bytes: &[u8]) -> Result<Message, Reason> {
        let Some((head, body)) = record::parse(bytes) else {
            // Only a bug of ours can bring us here. The event still has to be accounted for.
            return Err(Reason::Serialize);
        };
        let seq = self.stamper.number(ring, head.lost);
        let route = self.route(head.name);
        if head.unchecked && serde_json::from_slice::<IgnoredAny>(body).is_err() {
            self.stamper.lost(ring, seq, &route.name, Reason::Serialize);
            return Err(Reason::Serialize);
        }
        let origin = Origin::Ring(ring);
        let timestamp = self.calendar.timestamp(ring, head.timestamp);
        let payload = self.envelope(origin, seq, timestamp, head.request_id, body);
        Ok(Message { origin, seq, name: route.name, subject: route.subject, payload, offered: timestamp.0 })
    }

    /// Gives an event its number, so that it stands in a gap, and no more.
    pub(crate) fn discard(&mut self, ring: usize, bytes: &[u8], reason: Reason) {
        if let Some((head, _)) = record::parse(bytes) {
            let seq = self.stamper.number(ring, head.lost);
            let route = self.route(head.name);
            self.stamper.lost(ring, seq, &route.name, reason);
        }
    }

    /// Makes the message of a report of the bus itself.
    pub(crate) fn report(&mut self, name: &str, body: &[u8]) -> Message {
        let (origin, seq, timestamp) = (Origin::Bus, self.stamper.number_report(), self.calendar.now());
        let payload = self.envelope(origin, seq, timestamp, None, body);
        let route = self.route(name);
        Message { origin, seq, name: route.name, subject: route.subject, payload, offered: timestamp.0 }
    }

    fn envelope(
        &mut self,
        origin: Origin,
        seq: u64,
        timestamp: Timestamp,
        request_id: Option<&str>,
        body: &[u8],
    ) -> Bytes {
        let stamped = self.shared.config.delivery.stamp;
        let stamp = stamped.then(|| (&**self.stamper.names().of(origin), seq));
        self.scratch.clear();
        Parts { timestamp, request_id, stamp, body }.write_to(&mut self.scratch);
        Bytes::copy_from_slice(&self.scratch)
    }

    fn route(&mut self, name: &str) -> Route {
        if let Some(route) = self.routes.get(name) {
            return route.clone();
        }
        if self.routes.len() >= ROUTES_MAX {
            self.routes.clear();
        }
        let route = Route { name: Arc::from(name), subject: Bytes::from(self.shared.subjects.subject(name)) };
        self.routes.insert(name.into(), route.clone());
        route
    }
}
