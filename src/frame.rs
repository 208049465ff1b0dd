//! Packed frames: many envelopes of one subject in one message, written and read.
//!
//! ```text
//!   Content-Type: application/x-ndjson
//!   Content-Encoding: lz4                         (or zstd; absent if the payload is not compressed)
//!   Jetring-Count: 79
//!
//!   {"version":"v1",…,"producer":"00f1e2d3c4b5a697.0","seq":42,"body":{…}}⏎
//!   {"version":"v1",…,"producer":"00f1e2d3c4b5a697.0","seq":43,"body":{…}}⏎
//!   …
//! ```
//!
//! A server stores some ten thousand messages of 32 KiB in the time that it takes to store a hundred thousand small ones. So a bus whose
//! `delivery.framing` is `packed` puts the events of a subject together, in order, one a line. What makes a message a frame is its
//! header [`COUNT`]; any other message is read as a frame of one, so that a reader need not know how a stream was written.
//!
//! A line break inside an event (allowed between the parts of a JSON value, and seen in bodies that were JSON before they came here) becomes
//! a space. The order of events is that of each thread and subject: two subjects have two frames, and one of them is sent first.
//!
//! # Limits of a reader
//!
//! A few bytes can unpack to gigabytes, and who can write to a stream can put them there. [`unpack`] takes from one message at most
//! [`UNPACKED_BYTES_MAX`] bytes and at most [`RATIO_MAX`] times its payload, and stops where the first of these is passed. While it
//! works it needs as much again, and up to 16 MiB for the decoder. What this crate writes is always within the limits: a frame that
//! would compress further than the ratio is sent uncompressed.
//!
//! # Features
//!
//! Reading and writing lz4 and zstd are cargo features, `lz4` (Rust only) and `zstd` (which builds the C library). A frame whose feature
//! is off is refused with a sentence that says so.

mod encoding;

pub(crate) use encoding::{Compressor, Encoding};

use std::borrow::Cow;
use std::iter::FusedIterator;

/// The header that makes a message a frame: how many events it holds.
pub const COUNT: &str = "Jetring-Count";

/// The header with the kind of content, for readers who know nothing of us; see [`NDJSON`].
pub const CONTENT_TYPE: &str = "Content-Type";

/// The [`CONTENT_TYPE`] of a frame: one JSON value a line.
pub const NDJSON: &str = "application/x-ndjson";

/// The header with the compression, `lz4` (its frame format) or `zstd`.
pub const CONTENT_ENCODING: &str = "Content-Encoding";

/// The most that one message unpacks to, in bytes: room for two events of the largest size that can be configured.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// How many times the size of its payload a message may unpack to. Events that differ in nothing but time and number compress some
/// thirtyfold, and lz4 can go no further than 255.
pub const RATIO_MAX: usize = 256;

/// The events of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    content: Cow<'a, [u8]>,
    /// Of a packed frame, how many lines there are.
    lines: Option<usize>,
}

/// Unpacks a message: what its headers say, asked for by name, and its payload.
///
/// # Errors
///
/// When the headers are not those of a frame, the payload is not what they say, or it would unpack to more than the
/// [limits](self#limits-of-a-reader) allow. Whether its lines are envelopes is not looked at.
///
/// # Examples
///
/// ```
/// use jetring::envelope::Envelope;
/// use jetring::frame::unpack;
///
/// let headers = [("Content-Type", "application/x-ndjson"), ("Jetring-Count", "2")];
/// let payload = br#"{"version":"v1","timestamp":"2026-07-06T14:56:50Z","body":1}
/// {"version":"v1","timestamp":"2026-07-06T14:56:51Z","body":2}
/// "#;
///
/// let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
/// let frame = unpack(header, payload)?;
/// let bodies: Vec<_> = frame.iter().map(|event| Envelope::parse(event).unwrap().body.get()).collect();
/// assert_eq!(bodies, ["1", "2"]);
/// # Ok::<_, jetring::frame::FrameError>(())
/// ```
pub fn unpack<'a, 'h>(
    header: impl Fn(&str) -> Option<&'h str>,
    payload: &'a [u8],
) -> Result<Frame<'a>, FrameError> {
    let Some(count) = header(COUNT) else {
        return Ok(Frame::of_one(payload));
    };
    let said = count.parse().map_err(|_| FrameError::Count(count.to_owned()))?;
    let content = match header(CONTENT_ENCODING) {
        None => Cow::Borrowed(payload),
        Some(name) => Cow::Owned(Encoding::of_name(name)?.decompress(payload)?),
    };
    let found = count_lines(&content);
    if found != said {
        return Err(FrameError::Lines { said, found });
    }
    Ok(Frame { content, lines: Some(found) })
}

impl<'a> Frame<'a> {
    /// A message that is not packed.
    pub(crate) fn of_one(payload: &'a [u8]) -> Self {
        Self { content: Cow::Borrowed(payload), lines: None }
    }

    pub(crate) fn into_owned(self) -> Frame<'static> {
        Frame { content: Cow::Owned(self.content.into_owned()), lines: self.lines }
    }
}

impl Frame<'_> {
    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.lines.unwrap_or(1)
    }

    /// Whether it holds none. A bus does not write such frames.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the message was a frame, and not a plain message. Plain messages are in the order of their thread, whatever their
    /// subjects; frames only of their thread and subject.
    pub fn is_packed(&self) -> bool {
        self.lines.is_some()
    }

    /// The events, in order: each the bytes of one [`Envelope`](crate::envelope::Envelope).
    pub fn iter(&self) -> Events<'_> {
        self.iter_from(0, 0)
    }

    /// The events behind the first `events` of them, which end at `end`.
    pub(crate) fn iter_from(&self, events: usize, end: usize) -> Events<'_> {
        Events { rest: &self.content[end..], left: self.len() - events, is_packed: self.is_packed() }
    }

    /// Where the events end that these have passed.
    pub(crate) fn passed_by(&self, events: &Events<'_>) -> usize {
        self.content.len() - events.rest.len()
    }
}

impl<'f> IntoIterator for &'f Frame<'_> {
    type Item = &'f [u8];
    type IntoIter = Events<'f>;

    fn into_iter(self) -> Events<'f> {
        self.iter()
    }
}

/// The events of a [`Frame`].
#[derive(Clone, Debug)]
pub struct Events<'f> {
    rest: &'f [u8],
    left: usize,
    is_packed: bool,
}

impl<'f> Iterator for Events<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        self.left = self.left.checked_sub(1)?;
        let end = if self.is_packed { memchr::memchr(b'\n', self.rest) } else { None };
        let (event, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(event)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Events<'_> {}
impl FusedIterator for Events<'_> {}

/// The break after the last line may be missing.
fn count_lines(content: &[u8]) -> usize {
    let unfinished = content.last().is_some_and(|&last| last != b'\n');
    memchr::memchr_iter(b'\n', content).count() + usize::from(unfinished)
}

/// Makes a line of the event that was appended to `out` from `start` on.
#[inline]
pub(crate) fn end_line(out: &mut Vec<u8>, start: usize) {
    // In JSON a line break can only stand between two tokens, where a space means the same. (In a text it is escaped.)
    let mut at = start;
    while let Some(found) = memchr::memchr2(b'\n', b'\r', &out[at..]) {
        at += found;
        out[at] = b' ';
    }
    out.push(b'\n');
}

/// Why a message cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The header [`COUNT`] is no number.
    #[error("the header Jetring-Count is {0:?}, which is no number of events")]
    Count(String),
    /// There are more or fewer lines than the header says.
    #[error("a frame of {found} events, whose header Jetring-Count says {said}")]
    Lines {
        /// By the header.
        said: usize,
        /// By their line breaks.
        found: usize,
    },
    /// The header [`CONTENT_ENCODING`] names something else than lz4 and zstd.
    #[error("the header Content-Encoding is {0:?}; known are lz4 and zstd")]
    UnknownEncoding(String),
    /// This program was built without what is needed.
    #[error("compressed as {0}, and jetring was built without its feature \"{0}\"")]
    FeatureOff(&'static str),
    /// The payload is not what its encoding makes.
    #[error("not a whole {encoding} frame: {problem}")]
    Corrupt {
        /// The encoding that its header names.
        encoding: &'static str,
        /// What the decoder says.
        problem: String,
    },
    /// The payload would unpack to more than is allowed.
    #[error(
        "{payload_bytes} bytes of {encoding} unpack to more than {bytes_max}: at most 16 MiB and 256 times the payload are taken"
    )]
    TooLarge {
        /// The encoding that its header names.
        encoding: &'static str,
        /// Bytes of the payload.
        payload_bytes: usize,
        /// Bytes that it may unpack to.
        bytes_max: usize,
    },
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    /// A message as the worker makes it.
    struct Message {
        headers: Vec<(&'static str, String)>,
        payload: Vec<u8>,
    }

    impl Message {
        fn of(events: &[&[u8]], encoding: Option<Encoding>) -> Self {
            let mut content = Vec::new();
            for event in events {
                let start = content.len();
                content.extend_from_slice(event);
                end_line(&mut content, start);
            }
            let mut compressor = Compressor::new(encoding).unwrap();
            let (encoding, payload) = match compressor.compress(&content) {
                Some((encoding, compressed)) => (Some(encoding), compressed.to_vec()),
                None => (None, content),
            };
            Self::new(events.len(), encoding.map(Encoding::name), payload)
        }

        fn new(count: usize, encoding: Option<&str>, payload: Vec<u8>) -> Self {
            let mut headers = vec![(COUNT, count.to_string()), (CONTENT_TYPE, NDJSON.to_owned())];
            headers.extend(encoding.map(|name| (CONTENT_ENCODING, name.to_owned())));
            Self { headers, payload }
        }

        fn unpack(&self) -> Result<Frame<'_>, FrameError> {
            let header = |name: &str| self.headers.iter().find(|(known, _)| *known == name);
            unpack(|name| header(name).map(|(_, value)| value.as_str()), &self.payload)
        }

        #[track_caller]
        fn is_refused(&self, words: &str) {
            let refusal = self.unpack().unwrap_err().to_string();
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    fn encodings() -> impl Iterator<Item = Option<Encoding>> {
        std::iter::once(None)
            .chain(Encoding::ALL.into_iter().filter(|encoding| encoding.is_built()).map(Some))
    }

    fn compressed(encoding: Encoding, content: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(Some(encoding)).unwrap();
        match compressor.compress(content) {
            Some((_, compressed)) => compressed.to_vec(),
            None => panic!("the test's own content does not compress"),
        }
    }

    /// Lines that differ in a number, as those of a bus do.
    fn lines(bytes: usize) -> Vec<u8> {
        let line =
            |number| format!("{{\"seq\":{number},\"body\":{{\"estimator\":\"two-hop\"}}}}\n").into_bytes();
        (0..).flat_map(line).take(bytes).collect()
    }

    #[test]
    fn a_plain_message_is_a_frame_of_one_whatever_stands_in_it() {
        for payload in [&b"{}"[..], b"", b"two\nlines\n", b"\xff"] {
            let frame = unpack(|name| (name == CONTENT_ENCODING).then_some("lz4"), payload).unwrap();
            assert_eq!(frame.iter().collect::<Vec<_>>(), [payload]);
            assert_eq!((frame.len(), frame.is_packed()), (1, false));
        }
    }

    #[test]
    fn line_breaks_inside_an_event_become_spaces() {
        let message = Message::of(&[b"{\n\"a\":\r\n1}", b"2\n"], None);
        let frame = message.unpack().unwrap();
        assert_eq!(frame.iter().collect::<Vec<_>>(), [&b"{ \"a\":  1}"[..], b"2 "]);
    }

    #[test]
    fn the_break_after_the_last_line_may_be_missing() {
        let message = Message::new(2, None, b"1\n2".to_vec());
        assert_eq!(message.unpack().unwrap().iter().collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn a_count_that_is_wrong_or_none_is_refused() {
        Message::new(3, None, b"1\n2\n".to_vec()).is_refused("2 events, whose header Jetring-Count says 3");
        Message::new(1, None, Vec::new()).is_refused("0 events, whose header Jetring-Count says 1");
        for count in ["", "-1", "two", "99999999999999999999"] {
            let refusal = unpack(|name| (name == COUNT).then_some(count), b"1\n").unwrap_err();
            assert!(refusal.to_string().contains(&format!("{count:?}, which is no number")), "{refusal}");
        }
    }

    #[test]
    fn an_unknown_encoding_is_refused_by_name() {
        Message::new(1, Some("gzip"), Vec::new()).is_refused("\"gzip\"; known are lz4 and zstd");
    }

    #[test]
    fn a_feature_that_is_off_is_named() {
        for encoding in Encoding::ALL.into_iter().filter(|encoding| !encoding.is_built()) {
            let words = format!("without its feature \"{}\"", encoding.name());
            Message::new(1, Some(encoding.name()), Vec::new()).is_refused(&words);
            assert!(Compressor::new(Some(encoding)).is_err());
        }
    }

    #[test]
    fn compressed_frames_of_every_size_of_block_come_out_as_they_went_in() {
        for encoding in encodings().flatten() {
            for bytes in [100, 64 << 10, (64 << 10) + 1, 300 << 10, 2 << 20, (4 << 20) + 1, 9 << 20] {
                let content = lines(bytes);
                assert!(encoding.decompress(&compressed(encoding, &content)).unwrap() == content, "{bytes}");
            }
        }
    }

    #[test]
    fn a_part_that_does_not_compress_is_stored_as_it_is() {
        // A block of random bytes before one of zeros, so that the whole is worth it.
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let content: Vec<u8> = (0..8 << 20).map(|at| if at < 4 << 20 { random() } else { 0 }).collect();
        for encoding in encodings().flatten() {
            assert!(encoding.decompress(&compressed(encoding, &content)).unwrap() == content);
        }
    }

    #[test]
    fn what_would_become_no_smaller_is_sent_as_it_is() {
        for encoding in encodings() {
            assert_eq!(Message::of(&[b"1"], encoding).payload, b"1\n");
        }
    }

    #[test]
    fn what_a_reader_would_refuse_is_sent_as_it_is() {
        let text = vec![b'x'; 8 << 20];
        for encoding in encodings() {
            let message = Message::of(&[&text], encoding);
            assert_eq!(message.unpack().unwrap().iter().collect::<Vec<_>>(), [&text]);
        }
    }

    #[cfg(all(feature = "lz4", feature = "zstd"))]
    #[test]
    fn bombs_are_refused_by_their_size() {
        for encoding in encodings().flatten() {
            let content = lines(UNPACKED_BYTES_MAX + 1);
            let payload = match encoding {
                // The compressor itself makes nothing that large.
                Encoding::Lz4 => lz4_of(&content),
                Encoding::Zstd => ::zstd::bulk::compress(&content, 1).unwrap(),
            };
            Message::new(1, Some(encoding.name()), payload).is_refused("unpack to more than 16777216");
        }
    }

    #[cfg(all(feature = "lz4", feature = "zstd"))]
    fn lz4_of(content: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn zeros_by_the_megabyte_are_refused_by_their_ratio_and_a_huge_window_by_its_size() {
        let payload = ::zstd::bulk::compress(&vec![0; 4 << 20], 1).unwrap();
        let words = format!("unpack to more than {}: at most", payload.len() * RATIO_MAX);
        Message::new(1, Some("zstd"), payload).is_refused(&words);
        // A frame whose header asks for a window of 2 GiB: RFC 8878, section 3.1.1.1.2.
        let payload = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        Message::new(0, Some("zstd"), payload).is_refused("not a whole zstd frame");
    }

    #[test]
    fn a_payload_that_was_cut_or_has_a_tail_is_refused() {
        for encoding in encodings().flatten() {
            let content = lines(10_000);
            let (count, payload) = (count_lines(&content), compressed(encoding, &content));
            for cut in [0, 1, 5, 10, payload.len() / 2, payload.len() - 5] {
                let message = Message::new(count, Some(encoding.name()), payload[..cut].to_vec());
                assert!(message.unpack().is_err(), "{encoding:?} cut at {cut}");
            }
            let tail = [&payload[..], b"tail"].concat();
            Message::new(count, Some(encoding.name()), tail).is_refused("4 bytes behind its end");
            let twice = [&payload[..], &payload[..]].concat();
            assert!(Message::new(count, Some(encoding.name()), twice).unpack().is_err());
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            events in proptest::collection::vec(proptest::collection::vec(0u8..=127, 0..300), 1..60),
        ) {
            let events: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
            let is_break = |byte: &u8| *byte == b'\n' || *byte == b'\r';
            let expected: Vec<Vec<u8>> = events
                .iter()
                .map(|event| event.iter().map(|byte| if is_break(byte) { b' ' } else { *byte }).collect())
                .collect();
            for encoding in encodings() {
                let message = Message::of(&events, encoding);
                let frame = message.unpack().unwrap();
                prop_assert!(frame.is_packed());
                prop_assert_eq!(frame.iter().len(), events.len());
                prop_assert!(frame.iter().eq(expected.iter().map(Vec::as_slice)));
            }
        }

        /// Where the input is not ours, any answer will do but a panic.
        #[test]
        fn bytes_of_no_kind_are_read_or_refused(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            count in 0..4usize,
            encoding in prop_oneof![Just(None), Just(Some("lz4")), Just(Some("zstd"))],
        ) {
            if let Ok(frame) = Message::new(count, encoding, payload).unpack() {
                prop_assert_eq!(frame.iter().count(), count);
            }
        }
    }
}
