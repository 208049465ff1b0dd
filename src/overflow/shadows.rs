//! What the window holds, on its way to the log: when the spool becomes active, and when a bus ends.

use super::keeper::Shadow;
use super::{Overflow, identity};
use crate::publisher::packer::Event;
use crate::publisher::pipeline::{Open, Pipeline};
use crate::publisher::window::{Message, Origin};
use std::time::Instant;

impl Overflow {
    /// From here on events go to the log, behind what the window holds.
    pub(crate) fn activate(&mut self, now: Instant, pipeline: &mut Pipeline) {
        if self.is_active {
            return;
        }
        self.is_active = true;
        self.send_note(now, pipeline);
        self.shadow(pipeline);
    }

    /// Writes everything down that is open, and hands out nothing more.
    pub(crate) fn lay_down(&mut self, now: Instant, pipeline: &mut Pipeline) {
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
        pipeline.show_reports(|open| {
            if !self.shadowed.contains_key(&open.number) {
                self.post.is_urgent = true;
                self.add_shadow(0, Event::of(open.message), open.payload, &open);
            }
        });
        self.hand_over();
    }

    fn shadow(&mut self, pipeline: &mut Pipeline) {
        self.hand_over();
        // What is sent between this and the moment when it is written must be recognised too.
        pipeline.name_unspooled();
        pipeline.show_unspooled(|open| {
            // One that is on its way is as good as written, and twice would be sent twice.
            if open.wholes.iter().chain([&open.number]).any(|number| self.shadowed.contains_key(number)) {
                return;
            }
            let Some(packed) = &open.message.packed else {
                return self.add_shadow(0, Event::of(open.message), open.payload, &open);
            };
            let unpacked = packed.unpack();
            let Some(lines) = unpacked.as_ref() else { return };
            for (index, (&event, line)) in packed.events.iter().zip(lines.iter()).enumerate() {
                if event.sequence.is_none() {
                    self.add_shadow(index, event, line, &open);
                }
            }
        });
        self.hand_over();
    }

    /// Adds an event of a message. The events of a frame may go to the log in several posts: they are as many as its lines were short.
    fn add_shadow(&mut self, index: usize, event: Event, payload: &[u8], open: &Open<'_>) {
        let (shadow, message) = (Shadow { number: open.number, index }, open.message);
        self.write_headers(event.origin, event.seq, message);
        if !open.bore_its_id {
            identity::write_without_id(&mut self.headers);
        }
        let Self { post, headers, identity, .. } = self;
        let subject = identity.recorded_subject(&message.route);
        let room = post.batch.room().expect("a full batch was handed over");
        if room.push(&subject, headers, payload).is_err() {
            // Larger than any record can be, and than any event of ours.
            return;
        }
        self.post.shadows.push(shadow);
        *self.shadowed.entry(shadow.number).or_default() += 1;
        self.hand_over_if_full();
    }

    /// What has become of a shadow is known.
    pub(super) fn end_shadow(&mut self, shadow: Shadow) {
        if let Some(on_their_way) = self.shadowed.get_mut(&shadow.number) {
            *on_their_way -= 1;
            if *on_their_way == 0 {
                self.shadowed.remove(&shadow.number);
            }
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
