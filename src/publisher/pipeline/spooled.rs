//! What the spool asks of the pipeline: which open events it does not have yet, and from where in the stream they would have to be looked for.

use super::{Entry, Pipeline, State};
use crate::publisher::window::Message;
use std::num::NonZeroU64;
use std::time::Instant;

/// An open message, as the spool sees it.
pub(crate) struct Open<'a> {
    pub(crate) number: u64,
    /// The numbers of the frames that it was cut out of.
    pub(crate) wholes: Vec<u64>,
    pub(crate) message: &'a Message,
    pub(crate) payload: &'a [u8],
    /// If the server has any of its events, it would recognise it by its own id.
    pub(crate) bore_its_id: bool,
}

impl Pipeline {
    /// Takes a message out of a spool of which nobody could tell whether another process has sent it. When it is given up it is not counted as
    /// dropped. It is not sent from `until` on, when the server may have forgotten the id of what that process sent.
    pub(crate) fn push_doubtful<E>(
        &mut self,
        now: Instant,
        until: Option<Instant>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Message, E>,
    ) -> Result<(), E> {
        self.window.push(write)?;
        self.window.doubt_last(now, until);
        Ok(())
    }

    /// From now on the open messages with events that are not in the spool are sent with their ids only.
    pub(crate) fn name_unspooled(&mut self) {
        self.window.name_unspooled();
    }

    /// Shows the open messages with events that are not in the spool, in order.
    pub(crate) fn show_unspooled(&self, mut show: impl FnMut(Open<'_>)) {
        self.window.unspooled().for_each(|(number, entry)| show(self.open(number, entry)));
    }

    /// Shows the open reports of the bus that are not in the spool, in order.
    pub(crate) fn show_reports(&self, mut show: impl FnMut(Open<'_>)) {
        self.window.open_reports().for_each(|(number, entry)| show(self.open(number, entry)));
    }

    fn open<'a>(&'a self, number: u64, entry: &'a Entry) -> Open<'a> {
        let Entry { message, .. } = entry;
        let bore_its_id = message.packed.is_none() && entry.is_named();
        let wholes = entry.wholes().collect();
        Open { number, wholes, message, payload: self.window.payload_of(entry), bore_its_id }
    }

    /// When the oldest of the open messages was sent that may be stored.
    pub(crate) fn sent_since(&self) -> Option<Instant> {
        let sent_at = |entry: &Entry| match (entry.doubt, entry.state) {
            (Some(doubt), _) => Some(doubt.since),
            (None, State::Sent { at, .. }) => Some(at),
            (None, State::Waiting | State::Parked | State::Settled) => None,
        };
        self.window.tried().filter_map(|number| self.window.get(number).and_then(sent_at)).min()
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
        let floor = self.lot.floor().map_or(self.floor, |floor| floor.min(self.floor));
        (floor, self.created.as_deref())
    }
}
