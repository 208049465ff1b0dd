//! An event name on a bus, with what is known of it before an event comes: its number, and the head that its records begin with.
//!
//! The shortest way that there is leads through here; [`bus`](super) has the rest of it.

use super::{Bus, ROOM_MIN, RequestId, Title, dropped, reason_of};
use crate::event;
use crate::foreign::discard;
use crate::lane::Lane;
use crate::offer::Offer;
use crate::record::Template;
use crate::shed::NameId;
use crate::subject::Name;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// An event name, checked and resolved, on a bus.
#[derive(Clone)]
pub struct Topic {
    bus: Bus,
    name: Arc<str>,
    id: NameId,
    template: Option<Template>,
}

impl Topic {
    pub(super) fn new(bus: &Bus, name: &Name) -> Self {
        Self {
            id: bus.shared.catalogue.intern_patiently(name.as_str()),
            name: Arc::from(name.as_str()),
            template: Template::new(name.as_str()),
            bus: bus.clone(),
        }
    }

    /// Publishes `body` under this name.
    #[inline]
    pub fn publish<T: Serialize + ?Sized>(&self, body: &T) -> Offer {
        self.publish_with(|| body)
    }

    /// Publishes what `body` returns. It is not called when the event is going to be shed at once.
    #[inline]
    pub fn publish_with<T: Serialize>(&self, body: impl FnOnce() -> T) -> Offer {
        self.publish_to(self.bus.shared.lanes.of_this_thread(), body)
    }

    /// Publishes `body` to the stream of `key`, where the bus has [`partitions`](crate::Config::partitions): events with the same key are in one
    /// stream, and those of a thread are there in their order. The key itself is not sent.
    ///
    /// A thread's events without a key are all in one stream. Those of a thread that uses several keys, or a key now and then, are in
    /// several, with order only within each. Which stream is that of a key, [`partition_of`](crate::partition_of) tells. Without
    /// partitions this is [`publish`](Self::publish).
    #[inline]
    pub fn publish_keyed<T: Serialize + ?Sized>(&self, key: impl AsRef<[u8]>, body: &T) -> Offer {
        match self.bus.shared.lane_of(key) {
            Some(lane) => self.publish_to(lane, || body),
            None => self.bus.shared.drop_keyless(self.title()),
        }
    }

    /// The hot path, through this ring.
    #[inline]
    fn publish_to<T: Serialize>(&self, lane: &Lane, body: impl FnOnce() -> T) -> Offer {
        // Three ways out, each a call that is the last thing done here: so there is nothing to save on the stack.
        if !lane.is_free(ROOM_MIN) {
            return self.publish_at_limit(lane, body);
        }
        self.publish_open(lane, body)
    }

    /// There is room.
    #[inline(always)]
    fn publish_open<T: Serialize>(&self, lane: &Lane, body: impl FnOnce() -> T) -> Offer {
        match &self.template {
            Some(template) if !event::is_in_request() => {
                self.bus.shared.accept_usual(lane, self.id, template, body)
            }
            _ => self.publish_unusual(lane, body),
        }
    }

    /// The ring is closed, full, or has to be looked at more closely, or some name of the bus has a budget.
    #[cold]
    #[inline(never)]
    fn publish_at_limit<T: Serialize>(&self, lane: &Lane, body: impl FnOnce() -> T) -> Offer {
        if lane.is_budgeted() {
            return self.publish_budgeted(lane, body);
        }
        match lane.refusal(ROOM_MIN) {
            Some(refusal) => {
                let offer = dropped(lane, self.id, reason_of(refusal));
                discard(body);
                offer
            }
            None => self.publish_unusual(lane, body),
        }
    }

    /// Some name of the bus has a budget, perhaps this one.
    #[inline(never)]
    fn publish_budgeted<T: Serialize>(&self, lane: &Lane, body: impl FnOnce() -> T) -> Offer {
        let shared = &*self.bus.shared;
        if shared.budgets.table().is_some_and(|table| table.limits(self.id)) {
            return shared.publish_at_limit(lane, self.title(), None, body);
        }
        match lane.refusal(ROOM_MIN) {
            Some(refusal) => {
                let offer = dropped(lane, self.id, reason_of(refusal));
                discard(body);
                offer
            }
            None => self.publish_open(lane, body),
        }
    }

    /// The event belongs to a request, or its name is too long for a template.
    #[inline(never)]
    fn publish_unusual<T: Serialize>(&self, lane: &Lane, body: impl FnOnce() -> T) -> Offer {
        self.bus.shared.accept(lane, self.title(), None, 1, body)
    }

    /// Publishes `body` as part of the request `request_id`, whatever the current [scope](crate::request_scope) says.
    #[inline]
    pub fn publish_for<T: Serialize + ?Sized>(&self, request_id: &str, body: &T) -> Offer {
        let shared = &*self.bus.shared;
        shared.publish_titled(shared.lanes.of_this_thread(), self.title(), Some(request_id), || body)
    }

    /// Publishes a body that is JSON already.
    ///
    /// The bytes are copied as they are. They are checked behind the ring: if they are not JSON, the event is dropped and counted
    /// as [`Reason::Serialize`](crate::Reason::Serialize) there.
    #[inline]
    pub fn publish_json(&self, body: &[u8]) -> Offer {
        self.bus.shared.offer_json(self.title(), RequestId::of_scope(), body)
    }

    /// The bus that it publishes on.
    #[cfg(feature = "tracing-layer")]
    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    fn title(&self) -> Title<'_> {
        Title { name: &self.name, id: Some(self.id) }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("name", &self.name).finish_non_exhaustive()
    }
}
