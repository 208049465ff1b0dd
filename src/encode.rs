//! From a value to the bytes of a record, on the hot thread, and from there to JSON, on the worker.
//!
//! ```text
//!  hot thread                                             worker
//!  ──────────                                             ──────
//!  value ── Serialize ──► tape ── copy ──► ring ──drain──► render ──► JSON
//!           `tape.rs`     on the stack                    `render.rs`
//! ```
//!
//! Printing JSON is most of what a publish would cost, so the hot thread does not print. It walks the value once and notes
//! what is to be printed: tags, raw numbers, copied text, in the alphabet of [`op`]. The worker prints that, byte for byte as
//! serde_json would have.
//!
//! The tape is put together in a [`Buffer`] of the thread's own, and only then is a place of exactly its length claimed in
//! the ring. Writing straight into the ring would save the copy, 10 ns of 60 at most, and would have to claim before the length is
//! known: either the largest event for each, or after a walk that only counts, which costs more than the copy and may be wrong
//! when the value changes in between. And user code would run between claim and commit, where it could panic or take
//! its time, and hold up all that is behind it.
//!
//! What user code can do wrong stays here: a `Serialize` that fails, panics, publishes itself, or never ends is an error
//! of this one event. So is one of which a piece has failed, and that goes on as if it had not: the tape knows.
//!
//! # Too large
//!
//! The limit is meant for the JSON, whose length nobody knows here. A tape that does not fit into it is printed on the spot,
//! to see whether its JSON does (numbers may be shorter in print); one that fits although its JSON does not (control
//! characters print as six) is found by the worker. Either way the event is counted as too large. What serde_json prints here is looked at by
//! the worker, as any JSON that is not of our own printing ([`json`]).
//!
//! Read next: [`crate::record`] for what stands before the body.

mod buffer;
mod json;
mod op;
mod render;
mod tape;

#[cfg(any(test, feature = "__internals"))]
pub(crate) mod any;
#[cfg(all(test, not(jetring_loom)))]
mod tests;

use crate::clock::Ticks;
use crate::foreign::contained;
use crate::ledger::Reason;
use crate::record::{self, Body, Head, Template};
use buffer::{Buffer, Pen, ROOM, STACK_BYTES, Texts};
use serde::Serialize;
use std::io;
use std::mem::MaybeUninit;

pub(crate) use json::{DEPTH_MAX, is_json};
pub(crate) use render::{quoted, render};

/// Why there are no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// The body is longer than allowed.
    TooLarge,
    /// The body's `Serialize` returned an error or panicked.
    Failed,
}

impl EncodeError {
    /// What the event is dropped as.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::TooLarge,
            Self::Failed => Reason::Serialize,
        }
    }
}

/// Puts head and body together and shows them to `push`. The body may have `body_bytes_max` bytes of JSON.
#[inline]
pub(crate) fn with_record<T: Serialize, R>(
    head: &Head<'_>,
    body: impl FnOnce() -> T,
    body_bytes_max: usize,
    push: impl FnOnce(&[u8]) -> R,
) -> Result<R, EncodeError> {
    let append = |pen: &mut Pen<'_, '_>| append_head(pen, head);
    with_parts(head.len(), append, body, body_bytes_max, push)
}

/// As [`with_record`], with a head that is made ready but for its first two fields.
#[inline]
pub(crate) fn with_template<T: Serialize, R>(
    template: &Template,
    (timestamp, lost): (Ticks, u64),
    body: impl FnOnce() -> T,
    body_bytes_max: usize,
    push: impl FnOnce(&[u8]) -> R,
) -> Result<R, EncodeError> {
    // There is room, as for any head.
    let append = |pen: &mut Pen<'_, '_>| _ = pen.put_first(&template.head(timestamp, lost), template.len());
    with_parts(template.len(), append, body, body_bytes_max, push)
}

#[inline(always)]
fn with_parts<T: Serialize, R>(
    head_len: usize,
    append_head: impl FnOnce(&mut Pen<'_, '_>),
    body: impl FnOnce() -> T,
    body_bytes_max: usize,
    push: impl FnOnce(&[u8]) -> R,
) -> Result<R, EncodeError> {
    let mut stack = [const { MaybeUninit::uninit() }; STACK_BYTES];
    let mut buffer = Buffer::new(&mut stack, head_len + body_bytes_max);
    append_head(&mut buffer.pen());
    // After a panic the bytes written so far are thrown away, and nothing else of ours was touched.
    match contained(|| append_body(&mut buffer, &body(), body_bytes_max)) {
        Some(appended) => appended?,
        None => return Err(EncodeError::Failed),
    }
    Ok(push(buffer.bytes()))
}

/// Shows the bytes of a head alone to `push`, for a body that needs no encoding.
#[inline]
pub(crate) fn with_head<R>(head: &Head<'_>, push: impl FnOnce(&[u8]) -> R) -> R {
    let mut stack = [const { MaybeUninit::uninit() }; STACK_BYTES];
    let mut buffer = Buffer::new(&mut stack, record::OVERHEAD_BYTES_MAX);
    append_head(&mut buffer.pen(), head);
    push(buffer.bytes())
}

#[inline]
fn append_head(pen: &mut Pen<'_, '_>, head: &Head<'_>) {
    // What is written over when a value does not fit must be longer than any name with a number behind it.
    const { assert!(record::OVERHEAD_BYTES_MAX + op::SHORT_MAX + 2 + ROOM <= STACK_BYTES) };
    // There is room: the buffer is empty, and made for this head at least.
    let _ = pen.put_with(head.fixed(), head.name);
    if let Some(request_id) = head.request_id {
        let _ = pen.put_with([], request_id.as_bytes());
    }
    if let Some(trace) = &head.trace {
        let _ = pen.put_with([], trace.as_bytes());
    }
    if let Some(sample) = head.sample_bytes() {
        let _ = pen.put(sample);
    }
}

/// What the way of an event that has failed needs to know, the buffer can tell. Kept here until the end of the walk, it would cost every
/// event a register.
#[inline]
fn append_body<T: Serialize>(buffer: &mut Buffer<'_>, body: &T, bytes_max: usize) -> Result<(), EncodeError> {
    walk(buffer, body);
    if !buffer.is_broken() {
        return Ok(());
    }
    append_unusual(buffer, body, bytes_max)
}

/// Makes the tape. If the buffer is not broken then, it is one.
#[inline(always)]
fn walk<T: Serialize>(buffer: &mut Buffer<'_>, body: &T) {
    // The pen that comes back from a walk is laid down at once.
    if !buffer.ready().is_ok_and(|ready| body.serialize(ready).is_ok()) {
        buffer.spoil();
    }
}

/// The way of an event that has failed, or whose tape does not fit.
#[cold]
fn append_unusual<T: Serialize>(
    buffer: &mut Buffer<'_>,
    body: &T,
    bytes_max: usize,
) -> Result<(), EncodeError> {
    // Behind the head.
    let start = buffer.bytes_max() - bytes_max;
    if !buffer.is_spoiled() && buffer.texts() == Texts::Came {
        // In the tape they would have been looked at when it is printed. In JSON that is printed here they cannot be told from what is around
        // them any more: `1,2` in an array would be two elements.
        buffer.truncate(start);
        buffer.check_texts();
        walk(buffer, body);
    }
    if buffer.is_hopeless() {
        return Err(EncodeError::TooLarge);
    }
    if buffer.is_spoiled() {
        return Err(EncodeError::Failed);
    }
    buffer.truncate(start);
    append_json(buffer, body, bytes_max)
}

/// The way of an event whose tape does not fit.
fn append_json<T: Serialize>(buffer: &mut Buffer<'_>, body: &T, bytes_max: usize) -> Result<(), EncodeError> {
    buffer.patch(record::BODY_AT, [Body::Json as u8]);
    let mut writer = Bounded { end: buffer.len() + bytes_max, pen: buffer.pen(), len: 0, overflowed: false };
    match serde_json::to_writer(&mut writer, body) {
        Ok(()) | Err(_) if writer.overflowed => Err(EncodeError::TooLarge),
        Ok(()) => Ok(()),
        Err(_) => Err(EncodeError::Failed),
    }
}

/// Both ends at once, for tests and fuzzing: what the worker prints of what the hot thread has encoded.
#[cfg(any(test, feature = "__internals"))]
pub(crate) fn encode_and_render<T: Serialize + ?Sized>(value: &T, bytes_max: usize) -> Option<Vec<u8>> {
    let timestamp = crate::clock::Ticks(0);
    let head = Head {
        timestamp,
        lost: 0,
        name: b"test",
        request_id: None,
        trace: None,
        sample: 1,
        body: Body::Tape,
    };
    let printed = with_record(
        &head,
        || value,
        bytes_max,
        |bytes| {
            let (head, body) = record::parse(bytes).expect("a record");
            let mut json = Vec::new();
            let printed = match head.body {
                Body::Tape => render(body, &mut json),
                Body::Json => is_json(body, DEPTH_MAX).then(|| json.extend_from_slice(body)),
            };
            printed.map(|()| json)
        },
    );
    printed.ok().flatten()
}

/// How many times the limit a value may be before it is ended by an error. Up to there it is walked to its end and its bytes
/// are thrown away, because an error of serde_json allocates.
const WALKED: usize = 16;

/// A writer that stops at a limit, and ends a value that is far above it.
struct Bounded<'buffer, 'stack> {
    pen: Pen<'buffer, 'stack>,
    end: usize,
    /// Bytes of the value so far, thrown away or not.
    len: usize,
    overflowed: bool,
}

impl io::Write for Bounded<'_, '_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len();
        if !self.overflowed && self.pen.len() + bytes.len() <= self.end {
            self.overflowed = self.pen.put_with([], bytes).is_err();
            return Ok(());
        }
        self.overflowed = true;
        if self.len <= self.end * WALKED { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
