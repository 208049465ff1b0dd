//! Whose events a spool has lost, by producer and subject, so that a gap can say so.

use super::identity::Identity;
use crate::ledger::Reason;
use crate::publisher::render::Renderer;
use crate::publisher::window::Origin;
use crate::spool::batch::TooLarge;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// All of them, also those of which nothing more is known.
    pub(super) events: u64,
    lost: HashMap<Box<[u8]>, HashMap<Origin, Lost>>,
}

/// Events of one producer: so many, within these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) range: (u64, u64),
    pub(super) events: u64,
}

impl Losses {
    /// A record was lost.
    pub(super) fn add(&mut self, identity: &Identity, subject: &[u8], headers: &[u8]) {
        self.events += 1;
        if let Some((origin, seq)) = identity.read(headers) {
            self.attribute(subject, origin, Lost { range: (seq, seq), events: 1 });
        }
    }

    /// Of the events that are lost, these are known. The subject is empty if that is not.
    pub(super) fn attribute(&mut self, subject: &[u8], origin: Origin, of_origin: Lost) {
        if !self.lost.contains_key(subject) {
            self.lost.insert(subject.into(), HashMap::new());
        }
        let Some(of_subject) = self.lost.get_mut(subject) else { return };
        let lost = of_subject.entry(origin).or_insert(Lost { events: 0, ..of_origin });
        lost.range = (lost.range.0.min(of_origin.range.0), lost.range.1.max(of_origin.range.1));
        lost.events += of_origin.events;
    }

    /// Lets a gap say whose events were lost.
    pub(super) fn declare(&self, reason: Reason, renderer: &mut Renderer) {
        for (subject, origin, Lost { range, events }) in self.iter() {
            renderer.declare_lost(subject, origin, range, events, reason);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Origin, Lost)> {
        self.lost.iter().flat_map(|(subject, of_subject)| {
            of_subject.iter().map(|(&origin, &lost)| (&**subject, origin, lost))
        })
    }
}

impl From<TooLarge> for Reason {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}
