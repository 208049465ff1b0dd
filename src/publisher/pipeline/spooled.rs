//! What the spool asks of the pipeline: which open events it does not have yet, and from where in the stream they would have to be looked for.

use super::Pipeline;
use crate::publisher::window::Message;
use std::num::NonZeroU64;
use std::time::Instant;

impl Pipeline {
    /// Takes a message out of a spool of which nobody could tell whether another process has sent it. It bears its id, and when it is given
    /// up it is not counted as dropped.
    pub(crate) fn push_doubtful<E>(
        &mut self,
        now: Instant,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Message, E>,
    ) -> Result<(), E> {
        self.window.push(write)?;
        self.window.doubt_last(now);
        Ok(())
    }

    /// Shows the open messages with events that are not in the spool, each with its number and its payload, in order.
    pub(crate) fn show_unspooled(&self, mut show: impl FnMut(u64, &Message, &[u8])) {
        for (number, entry) in self.window.unspooled() {
            show(number, &entry.message, self.window.payload_of(entry));
        }
    }

    /// Shows the open reports of the bus that are not in the spool, each with its number and its payload, in order.
    pub(crate) fn show_reports(&self, mut show: impl FnMut(u64, &Message, &[u8])) {
        for (number, entry) in self.window.open_reports() {
            show(number, &entry.message, self.window.payload_of(entry));
        }
    }

    /// As [`Window::set_spooled`](crate::publisher::window::Window::set_spooled).
    pub(crate) fn set_spooled(&mut self, number: u64, index: usize, sequence: NonZeroU64) -> bool {
        self.window.set_spooled(number, index, sequence)
    }

    /// As [`Window::forget_spooled`](crate::publisher::window::Window::forget_spooled).
    pub(crate) fn forget_spooled(&mut self) {
        self.window.forget_spooled();
    }

    /// As [`Window::forget_spooled_below`](crate::publisher::window::Window::forget_spooled_below).
    pub(crate) fn forget_spooled_below(&mut self, start: u64) {
        self.window.forget_spooled_below(start);
    }

    /// Whether half of the window is taken, if so many messages with so many bytes are about to be pushed.
    pub(crate) fn is_half_full_beside(&self, messages: usize, bytes: usize) -> bool {
        let is_half = |taken: usize, limit: usize| taken >= limit.div_ceil(2);
        is_half(self.window.span() + messages, self.limits.window_events)
            || is_half(self.window.bytes() + bytes, self.limits.window_bytes)
    }

    /// A sequence of the stream above which all stands that is open and stored, and when that stream was made, if it was ever seen.
    pub(crate) fn floor(&self) -> (u64, Option<&str>) {
        (self.floor, self.created.as_deref())
    }
}
