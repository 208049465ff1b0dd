//! Whose events a spool has lost, by producer and subject, so that a gap can say so.

use super::identity::Identity;
use crate::publisher::window::Origin;
use std::collections::HashMap;

#[derive(Debug, Default)]
pub(super) struct Losses {
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
        let Some((origin, seq)) = identity.read(headers) else { return };
        if !self.lost.contains_key(subject) {
            self.lost.insert(subject.into(), HashMap::new());
        }
        let Some(of_subject) = self.lost.get_mut(subject) else { return };
        let lost = of_subject.entry(origin).or_insert(Lost { range: (seq, seq), events: 0 });
        lost.range = (lost.range.0.min(seq), lost.range.1.max(seq));
        lost.events += 1;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Origin, Lost)> {
        self.lost.iter().flat_map(|(subject, of_subject)| {
            of_subject.iter().map(|(&origin, &lost)| (&**subject, origin, lost))
        })
    }
}
