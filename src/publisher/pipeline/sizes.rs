//! How large a message may be.
//!
//! | limit | known by | a plain message above it | a frame above it |
//! | --- | --- | --- | --- |
//! | `max_payload` of the server | each connection | is not sent: the server would end the connection | is cut |
//! | `max_msg_size` of the stream | each look | is sent, as the limit may have changed, and refused | is cut |
//! | `max_bytes` of the stream | each look | is sent, refused, and dropped | is cut: no frame takes more than half of it |
//! | one that nobody tells | a refusal | | is halved |
//!
//! So a frame is cut when it is about to be sent and above a limit that is known, or when it was refused for its size; in both cases only
//! once it is certain that it is not stored. One in doubt is looked for in the stream first: in pieces it would not be recognised, neither by its
//! id nor by its bytes. A copy of it may still be on its way through a connection that was left, but who takes no such message now does
//! not take that one.
//!
//! After a refusal for its size everything is drained and the stream looked at, so what follows is closed and cut by what it takes now. Where it
//! may not be looked at, frames become half as large with each refusal, for as long as the connection lasts.

use super::{Link, Pipeline, StreamInfo};
use crate::frame::Compressor;
use crate::publisher::outgoing::Headers;
use crate::publisher::packer::Sealer;
use crate::publisher::window::Entry;

/// The limits, in bytes of a message with its headers.
#[derive(Debug)]
pub(super) struct Sizes {
    server: usize,
    stream: usize,
    /// Half of the smallest frame that was refused and that no known limit forbids.
    guessed: usize,
    /// A frame was refused for its size since the last look.
    must_ask: bool,
    /// A frame's lines must not be more, whatever its headers say; the least of the limits, without these.
    content: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let unlimited = usize::MAX;
        Self { server: unlimited, stream: unlimited, guessed: unlimited, must_ask: false, content: unlimited }
    }
}

impl Sizes {
    fn max(&self) -> usize {
        self.server.min(self.stream).min(self.guessed)
    }

    fn renew(&mut self) {
        self.content = self.max().saturating_sub(Headers::BYTES_MAX);
    }

    /// The stream was looked at, or that was tried.
    pub(super) fn has_asked(&mut self) {
        self.must_ask = false;
    }
}

impl Pipeline {
    /// How frames are compressed.
    pub(crate) fn pack_with(&mut self, compressor: Compressor) {
        self.sealer = Sealer::new(compressor);
    }

    pub(crate) fn sealer(&mut self) -> &mut Sealer {
        &mut self.sealer
    }

    /// How many bytes the lines of a frame may have, as far as it is known.
    #[inline]
    pub(crate) fn content_bytes_max(&self) -> usize {
        self.sizes.content
    }

    pub(super) fn learn_server_size(&mut self, max_payload: usize) {
        (self.sizes.server, self.sizes.guessed) = (max_payload, usize::MAX);
        self.sizes.renew();
    }

    pub(super) fn learn_stream_size(&mut self, info: &StreamInfo) {
        let message = info.message_bytes_max.unwrap_or(usize::MAX);
        let bytes = info.bytes_max.map_or(usize::MAX, |bytes| bytes / 2);
        (self.sizes.stream, self.sizes.guessed) = (message.min(bytes), usize::MAX);
        self.sizes.renew();
    }

    /// Whether it should be found out what the stream takes, now that all answers are in.
    pub(super) fn wants_to_learn_sizes(&self) -> bool {
        self.sizes.must_ask && matches!(self.link, Link::Draining | Link::Resolving)
    }

    /// Whether this is a frame of several events whose fate is open.
    pub(super) fn is_divisible(&self, number: u64) -> bool {
        self.window.get(number).is_some_and(is_divisible)
    }

    /// The stream has refused this frame for its size, so it waits to be cut.
    pub(super) fn refuse_size(&mut self, number: u64) {
        self.window.mark_refused(number, None);
        self.window.mark_too_large(number);
        let Some(entry) = self.window.get(number) else { return };
        let bytes = self.bytes_of(entry);
        if bytes <= self.sizes.max() {
            self.sizes.guessed = bytes / 2;
            self.sizes.renew();
        }
        self.sizes.must_ask = true;
    }

    /// Whether this message cannot be sent again as it is.
    pub(super) fn must_be_cut(&self, number: u64) -> bool {
        self.window.get(number).is_some_and(|entry| is_divisible(entry) && self.is_too_large(entry))
    }

    /// Cuts a frame that waits, if it has to be and it is certain that it is not stored. Returns whether it looked into that.
    pub(super) fn cut_if_too_large(&mut self, number: u64) -> bool {
        let Some(entry) = self.window.get(number) else { return false };
        if !is_divisible(entry) || entry.is_in_doubt() || !self.is_too_large(entry) {
            return false;
        }
        let (whole, bytes) = (entry.message.clone(), self.window.payload_of(entry).len());
        let pieces = self.sealer.cut(&whole, self.sizes.content);
        let pieces = self.window.replace(number, pieces);
        if !pieces.is_empty() {
            self.lot.replace(number, &whole, bytes, &pieces, &self.window);
        }
        true
    }

    fn is_too_large(&self, entry: &Entry) -> bool {
        let (max, len) = (self.sizes.max(), self.window.payload_of(entry).len());
        // The headers are measured only if it may come to that.
        entry.is_too_large || (len > max.saturating_sub(Headers::BYTES_MAX) && self.bytes_of(entry) > max)
    }

    /// The bytes of a message, with its headers.
    pub(super) fn bytes_of(&self, entry: &Entry) -> usize {
        self.window.payload_of(entry).len() + Headers::of(&entry.message).bytes(&self.names)
    }
}

fn is_divisible(entry: &Entry) -> bool {
    let has_several = entry.message.packed.as_ref().is_some_and(|packed| packed.events.len() > 1);
    has_several && !entry.is_settled() && !entry.is_indivisible
}
