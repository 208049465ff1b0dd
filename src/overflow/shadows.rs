//! What the window holds, on its way to the log: when the spool becomes active, and when a bus ends.

use super::Overflow;
use crate::publisher::packer::Event;
use crate::publisher::pipeline::Pipeline;
use crate::publisher::window::{Message, Origin};
use std::time::Instant;

impl Overflow {
    /// From here on events go to the log, behind what the window holds.
    pub(crate) fn activate(&mut self, now: Instant, pipeline: &Pipeline) {
        if self.is_active {
            return;
        }
        self.is_active = true;
        self.send_note(now, pipeline);
        self.shadow(pipeline);
    }

    /// Writes everything down that is open, and hands out nothing more.
    pub(crate) fn lay_down(&mut self, now: Instant, pipeline: &Pipeline) {
        if std::mem::replace(&mut self.lays_down, true) {
            return;
        }
        self.is_active = true;
        self.send_note(now, pipeline);
        // Also when it was active: what the disk had refused and given back is in the window without a shadow.
        self.shadow(pipeline);
    }

    /// Writes down the reports of the bus that nobody has answered: they say what was lost, and are the last to be said. So they have room of their
    /// own in a full log.
    pub(crate) fn lay_reports_down(&mut self, pipeline: &Pipeline) {
        self.hand_over();
        self.post.is_urgent = true;
        pipeline.show_reports(|number, message, payload| {
            self.add_shadow(number, &[(Event::of(message), payload)], message);
        });
        self.hand_over();
    }

    fn shadow(&mut self, pipeline: &Pipeline) {
        self.hand_over();
        pipeline.show_unspooled(|number, message, payload| match &message.packed {
            None => self.add_shadow(number, &[(Event::of(message), payload)], message),
            Some(packed) => {
                let unpacked = packed.unpack();
                let Some(lines) = unpacked.as_ref() else { return };
                let events = packed.events.iter().copied().zip(lines.iter());
                let events: Vec<_> = events.filter(|(event, _)| event.sequence.is_none()).collect();
                self.add_shadow(number, &events, message);
            }
        });
        self.hand_over();
    }

    fn add_shadow(&mut self, number: u64, events: &[(Event, &[u8])], message: &Message) {
        // One that is on its way is as good as written, and twice would be sent twice.
        if !self.shadowed.insert(number) {
            return;
        }
        let before = self.post.batch.len();
        for (event, payload) in events {
            self.write_headers(event.origin, event.seq, message);
            if self.post.batch.push(&message.route.subject, &self.headers, payload).is_err() {
                // Larger than any record can be, and than any event of ours.
                break;
            }
        }
        let added = self.post.batch.len() - before;
        if added == 0 {
            self.shadowed.remove(&number);
            return;
        }
        self.post.shadows.push((number, added));
        if self.post.batch.is_full() {
            self.hand_over();
        }
    }

    /// What a record says beside its payload: whose event it is, and of which trace.
    pub(super) fn write_headers(&mut self, origin: Origin, seq: u64, message: &Message) {
        self.headers.clear();
        self.identity.write(origin, seq, &mut self.headers);
        if let Some(trace) = &message.trace {
            trace.write_header(&mut self.headers);
        }
    }
}
