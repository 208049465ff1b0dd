//! A message on its way, and the block of headers that it may have.
//!
//! Headers are kept as they came, since a server passes them on to the byte. What a stream wants to know of them is looked up in
//! the block.

use bytes::Bytes;
use std::fmt::Write;

/// The first line of a block of headers.
const VERSION: &str = "NATS/1.0";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) reply: Option<String>,
    /// From `NATS/1.0` to the empty line; empty if there are none.
    pub(super) headers: Bytes,
    pub(super) payload: Bytes,
}

/// A message for whoever has subscribed to a subject, mostly its own. What a consumer delivers bears the subject of the stream and
/// goes to who has asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) to: String,
    pub(super) message: Message,
}

impl Delivery {
    /// An answer.
    pub(super) fn answer(to: &str, payload: impl Into<Bytes>) -> Self {
        Self::of(Message { subject: to.to_owned(), payload: payload.into(), ..Message::default() })
    }

    /// An answer that is a status: a number, its words, and headers.
    pub(super) fn status(to: &str, status: &str, headers: &[(&str, &str)]) -> Self {
        let headers = block(status, headers);
        Self::of(Message { subject: to.to_owned(), headers, ..Message::default() })
    }

    /// To the subject of the message.
    pub(super) fn of(message: Message) -> Self {
        Self { to: message.subject.clone(), message }
    }
}

impl Message {
    /// The value of a header; the first one if there are several.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        pairs(&self.headers).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The bytes that count against limits.
    pub(super) fn len(&self) -> usize {
        self.headers.len() + self.payload.len()
    }
}

/// The headers of a block. Lines that are none are passed over.
pub(super) fn pairs(block: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let lines = std::str::from_utf8(block).unwrap_or_default().split("\r\n").skip(1);
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

/// A block with a status, which may be empty, and headers.
pub(super) fn block(status: &str, headers: &[(&str, &str)]) -> Bytes {
    let mut text = VERSION.to_owned();
    if !status.is_empty() {
        let _ = write!(text, " {status}");
    }
    text.push_str("\r\n");
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    text.into()
}

/// A block with more headers behind those that it has.
pub(super) fn extended(block_before: &[u8], headers: &[(&str, &str)]) -> Bytes {
    let added = block("", headers);
    match block_before.strip_suffix(b"\r\n") {
        Some(before) => [before, &added[VERSION.len() + 2..]].concat().into(),
        None => added,
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_name() {
        let message =
            Message { headers: block("", &[("A", "1"), ("B", "x: y"), ("A", "2")]), ..Message::default() };
        assert_eq!(&*message.headers, b"NATS/1.0\r\nA: 1\r\nB: x: y\r\nA: 2\r\n\r\n");
        assert_eq!(
            (message.header("A"), message.header("B"), message.header("C")),
            (Some("1"), Some("x: y"), None)
        );
        for block in [&b""[..], b"\xff", b"NATS/1.0", b"no\r\nno\r\n"] {
            assert_eq!(pairs(block).count(), 0);
        }
    }

    #[test]
    fn a_block_is_extended_behind_what_it_has() {
        let both = b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n";
        assert_eq!(&*extended(&block("", &[("A", "1")]), &[("B", "2")]), both);
        assert_eq!(&*extended(b"", &[("A", "1"), ("B", "2")]), both);
        assert_eq!(&*block("404 No Messages", &[]), b"NATS/1.0 404 No Messages\r\n\r\n");
    }
}
