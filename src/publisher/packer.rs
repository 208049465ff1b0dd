//! Packed frames in the making.
//!
//! ```text
//!                       open frames, one for a subject
//!                    ┌──────────────────────────────────┐
//!   event ──print──► │ a │ {…}⏎{…}⏎{…}⏎                 │ ── full, or its time is over ──► compress ──► window
//!                    │ b │ {…}⏎                         │
//!                    └──────────────────────────────────┘
//! ```
//!
//! An event is printed into the open frame of its subject, and is not copied again: a frame that is not compressed is sent out of the
//! memory that it was printed to, and one that is leaves behind only what it was compressed to.
//!
//! A frame is closed
//!
//! - when it is full: [`FRAME_BYTES`], or what the server takes at most;
//! - when it would be sent at once, and nothing is unanswered: who publishes little does not wait for company;
//! - when it would be sent at once, and has waited for the linger time;
//! - when somebody waits for its events (flush, close), or too many are open.
//!
//! So in an outage, or behind a full window, frames go on growing until they are full: they could not be sent anyway.
//!
//! From then on a frame is one message of the window. It has one fate, its bytes never change, and its events are booked one by one when
//! it has met its fate. Frames of one subject leave in the order of their events, those of two subjects in any order.

use super::pipeline::{FRAME_HEADER_BYTES_MAX, Pipeline};
use super::render::Renderer;
use super::route::Route;
use super::window::{Message, Origin};
use crate::frame::{Compressor, Encoding, end_line};
use crate::ledger::Reason;
use bytes::Bytes;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A frame with so many bytes is full, before it is compressed.
pub(crate) const FRAME_BYTES: usize = 32 << 10;

/// Room behind a frame that is nearly full, for the event that fills it: as large as most events are.
const FRAME_ROOM: usize = 4 << 10;

/// Subjects that have a frame open at a time. Beyond it the oldest frame is closed for each that is opened.
const OPEN_MAX: usize = 256;

/// What a closed frame holds.
pub(crate) struct Packed {
    pub(crate) payload: Bytes,
    pub(crate) encoding: Option<Encoding>,
    /// In the order of their lines; there is at least one.
    pub(crate) events: Vec<Event>,
}

/// An event of a frame, for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) ring: usize,
    pub(crate) seq: u64,
    /// As in [`Message`].
    pub(crate) offered: u64,
}

impl Packed {
    /// The memory that it takes, but for half as much again at most.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.events.len() * size_of::<Event>()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("bytes", &self.payload.len())
            .field("encoding", &self.encoding)
            .field("events", &self.events.len())
            .finish()
    }
}

/// The open frames of one worker.
pub(crate) struct Packer {
    open: Vec<Open>,
    compressor: Compressor,
    linger: Duration,
    /// The largest frame that the server takes, unless it is a single event.
    bytes_max: usize,
    /// Events in open frames, and the bytes of these frames.
    events: usize,
    bytes: usize,
    /// Memory for the next frame.
    spare: Vec<u8>,
}

struct Open {
    route: Rc<Route>,
    content: Vec<u8>,
    events: Vec<Event>,
    since: Instant,
}

impl Packer {
    pub(crate) fn new(compressor: Compressor, linger: Duration) -> Self {
        Self {
            open: Vec::new(),
            compressor,
            linger,
            bytes_max: usize::MAX,
            events: 0,
            bytes: 0,
            spare: Vec::new(),
        }
    }

    /// The server takes messages of so many bytes, headers included.
    pub(crate) fn set_max_payload(&mut self, max_payload: usize) {
        self.bytes_max = max_payload.saturating_sub(FRAME_HEADER_BYTES_MAX);
    }

    /// Frames that are open; each will be a message.
    pub(crate) fn frames(&self) -> usize {
        self.open.len()
    }

    /// Bytes of the open frames.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Events in the open frames.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// When the oldest event in an open frame was offered, in nanoseconds since 1970.
    pub(crate) fn oldest_offered(&self) -> Option<u64> {
        self.open.iter().filter_map(|open| open.events.first()).map(|event| event.offered).min()
    }

    /// When [`close_due`](Self::close_due) should be called next.
    pub(crate) fn next_deadline(&self, pipeline: &Pipeline) -> Option<Instant> {
        if !pipeline.is_hungry() {
            return None;
        }
        self.open.iter().map(|open| open.since + self.linger).min()
    }

    /// Prints an event into its frame. An error means that it is dropped.
    #[inline]
    pub(crate) fn take(
        &mut self,
        now: Instant,
        ring: usize,
        record: &[u8],
        renderer: &mut Renderer,
        pipeline: &mut Pipeline,
    ) -> Result<(), Reason> {
        let event = renderer.number(ring, record)?;
        let at = self.frame_of(now, &event.message.route, pipeline);
        let open = &mut self.open[at];
        let start = open.content.len();
        if let Err(reason) = renderer.write(&event, &mut open.content) {
            open.content.truncate(start);
            if open.events.is_empty() {
                self.remove(at);
            }
            return Err(reason);
        }
        end_line(&mut open.content, start);
        let bytes = open.content.len();
        open.events.push(Event { ring, seq: event.message.seq, offered: event.message.offered });
        self.events += 1;
        self.bytes += bytes - start;
        if bytes >= FRAME_BYTES.min(self.bytes_max) {
            self.close_full(now, at, start, pipeline);
        }
        Ok(())
    }

    /// Closes the frames whose time has come.
    pub(crate) fn close_due(&mut self, now: Instant, pipeline: &mut Pipeline) {
        if self.open.is_empty() || !pipeline.is_hungry() {
            return;
        }
        let is_idle = pipeline.is_idle();
        let mut at = 0;
        while let Some(open) = self.open.get(at) {
            if is_idle || open.since + self.linger <= now {
                self.close(at, pipeline);
            } else {
                at += 1;
            }
        }
    }

    /// Closes all frames.
    pub(crate) fn close_all(&mut self, pipeline: &mut Pipeline) {
        while !self.open.is_empty() {
            self.close(0, pipeline);
        }
    }

    /// Where the open frame of this subject is. If there is none, one is opened.
    #[inline]
    fn frame_of(&mut self, now: Instant, route: &Rc<Route>, pipeline: &mut Pipeline) -> usize {
        let at = route.open_at.get();
        match self.open.get(at) {
            Some(open) if Rc::ptr_eq(&open.route, route) => at,
            _ => self.look_for_frame(now, route, pipeline),
        }
    }

    #[cold]
    fn look_for_frame(&mut self, now: Instant, route: &Rc<Route>, pipeline: &mut Pipeline) -> usize {
        // A route may have been made anew for a subject whose frame is open.
        let found = self.open.iter().position(|open| open.route.subject == route.subject);
        if let Some(at) = found {
            return at;
        }
        if self.open.len() >= OPEN_MAX {
            let oldest = (0..self.open.len()).min_by_key(|&at| self.open[at].since).unwrap_or(0);
            self.close(oldest, pipeline);
        }
        self.open(now, Rc::clone(route))
    }

    fn open(&mut self, now: Instant, route: Rc<Route>) -> usize {
        let at = self.open.len();
        route.open_at.set(at);
        let mut content = std::mem::take(&mut self.spare);
        content.reserve_exact(FRAME_BYTES + FRAME_ROOM);
        self.open.push(Open { route, content, events: Vec::new(), since: now });
        at
    }

    /// Closes a frame that its last event, which begins at `start`, has filled. If it is too large for the server with that event,
    /// the event begins the next frame.
    fn close_full(&mut self, now: Instant, at: usize, start: usize, pipeline: &mut Pipeline) {
        let bytes_max = self.bytes_max;
        let open = &mut self.open[at];
        let (bytes, route) = (open.content.len(), Rc::clone(&open.route));
        let last = if bytes > bytes_max && start > 0 { open.events.pop() } else { None };
        let Some(last) = last else {
            self.close(at, pipeline);
            return;
        };
        let line = open.content.split_off(start);
        self.events -= 1;
        self.bytes -= line.len();
        self.close(at, pipeline);
        let at = self.open(now, route);
        self.events += 1;
        self.bytes += line.len();
        let open = &mut self.open[at];
        open.content.extend_from_slice(&line);
        open.events.push(last);
        if line.len() >= FRAME_BYTES.min(bytes_max) {
            self.close(at, pipeline);
        }
    }

    fn close(&mut self, at: usize, pipeline: &mut Pipeline) {
        let Open { route, content, events, .. } = self.remove(at);
        let Some(&Event { ring, seq, offered }) = events.first() else { return };
        self.events -= events.len();
        self.bytes -= content.len();
        let (encoding, payload) = self.payload(content);
        let packed = Some(Rc::new(Packed { payload, encoding, events }));
        pipeline.push_packed(Message { origin: Origin::Ring(ring), seq, route, offered, packed });
    }

    /// The payload that this content becomes.
    fn payload(&mut self, mut content: Vec<u8>) -> (Option<Encoding>, Bytes) {
        let (encoding, payload) = match self.compressor.compress(&content) {
            Some((encoding, compressed)) => (Some(encoding), Bytes::copy_from_slice(compressed)),
            // A frame that is far from full must not hold the memory of a full one.
            None if content.len() < content.capacity() / 2 => (None, Bytes::copy_from_slice(&content)),
            None => return (None, Bytes::from(content)),
        };
        if content.capacity() <= FRAME_BYTES + FRAME_ROOM {
            content.clear();
            self.spare = content;
        }
        (encoding, payload)
    }

    fn remove(&mut self, at: usize) -> Open {
        let removed = self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at) {
            moved.route.open_at.set(at);
        }
        removed
    }
}
