//! The client protocol of NATS: what clients say, taken apart, and what they are told.
//!
//! ```text
//!   PUB <subject> [reply] <bytes>⏎ payload ⏎            HPUB <subject> [reply] <header bytes> <bytes>⏎ headers, payload ⏎
//!   SUB <subject> [queue] <sid>⏎     UNSUB <sid> [max]⏎     CONNECT {…}⏎     PING⏎     PONG⏎
//! ```
//!
//! What comes is not trusted. A line longer than [`LINE_BYTES_MAX`] and a payload longer than the server takes are refused before
//! anything is kept of them, so that a connection's memory has a limit.

use super::message::Message;
use bytes::{Buf, BufMut, BytesMut};
use serde::Deserialize;

/// The server's default of `max_control_line`.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientOp {
    Connect(ConnectOptions),
    Ping,
    Pong,
    Subscribe { subject: String, queue: Option<String>, sid: String },
    Unsubscribe { sid: String, max: Option<u64> },
    Publish(Message),
}

/// What a client says of itself that matters here; the defaults are those of the server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ConnectOptions {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) echo: bool,
    pub(super) headers: bool,
    pub(super) no_responders: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { verbose: true, pedantic: true, echo: true, headers: false, no_responders: false }
    }
}

/// Why the connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    UnknownOperation,
    LineTooLong,
    PayloadTooLong,
    /// The arguments are not those of the operation. The server says nothing to it.
    Arguments,
}

impl Violation {
    /// What the server says before it closes.
    pub(super) fn words(self) -> Option<&'static str> {
        match self {
            Self::UnknownOperation => Some("Unknown Protocol Operation"),
            Self::LineTooLong => Some("maximum control line exceeded"),
            Self::PayloadTooLong => Some("Maximum Payload Violation"),
            Self::Arguments => None,
        }
    }
}

/// Takes the next operation out of what was received; `None` if it is not there as a whole yet.
pub(super) fn parse(received: &mut BytesMut, payload_max: usize) -> Result<Option<ClientOp>, Violation> {
    let searched = &received[..received.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', searched) else {
        return if searched.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Violation::LineTooLong) };
    };
    let line = received[..end].strip_suffix(b"\r").unwrap_or(&received[..end]);
    let line = std::str::from_utf8(line).map_err(|_| Violation::UnknownOperation)?;
    let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let mut arguments = rest.split_ascii_whitespace();
    let op = match name.to_ascii_uppercase().as_str() {
        "PUB" => return publish(received, end + 1, false, payload_max),
        "HPUB" => return publish(received, end + 1, true, payload_max),
        "PING" => ClientOp::Ping,
        "PONG" => ClientOp::Pong,
        "CONNECT" => ClientOp::Connect(serde_json::from_str(rest).map_err(|_| Violation::Arguments)?),
        "SUB" => subscribe(&arguments.collect::<Vec<_>>())?,
        "UNSUB" => {
            let sid = arguments.next().ok_or(Violation::Arguments)?.to_owned();
            let max = arguments.next().map(str::parse).transpose().map_err(|_| Violation::Arguments)?;
            ClientOp::Unsubscribe { sid, max: max.filter(|&max| max > 0) }
        }
        _ => return Err(Violation::UnknownOperation),
    };
    received.advance(end + 1);
    Ok(Some(op))
}

fn subscribe(arguments: &[&str]) -> Result<ClientOp, Violation> {
    let (subject, queue, sid) = match *arguments {
        [subject, sid] => (subject, None, sid),
        [subject, queue, sid] => (subject, Some(queue.to_owned()), sid),
        _ => return Err(Violation::Arguments),
    };
    Ok(ClientOp::Subscribe { subject: subject.to_owned(), queue, sid: sid.to_owned() })
}

/// A publish whose line ends before `at`.
fn publish(
    received: &mut BytesMut,
    at: usize,
    has_headers: bool,
    payload_max: usize,
) -> Result<Option<ClientOp>, Violation> {
    let line = std::str::from_utf8(&received[..at]).map_err(|_| Violation::UnknownOperation)?;
    let mut arguments: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
    let mut length = || arguments.pop()?.parse::<usize>().ok();
    let bytes = length().ok_or(Violation::Arguments)?;
    let header_bytes = if has_headers { length().ok_or(Violation::Arguments)? } else { 0 };
    let (subject, reply) = match *arguments {
        [subject] => (subject.to_owned(), None),
        [subject, reply] => (subject.to_owned(), Some(reply.to_owned())),
        _ => return Err(Violation::Arguments),
    };
    if bytes > payload_max {
        return Err(Violation::PayloadTooLong);
    }
    if header_bytes > bytes {
        return Err(Violation::Arguments);
    }
    if received.len() < at + bytes + 2 {
        received.reserve(at + bytes + 2 - received.len());
        return Ok(None);
    }
    if &received[at + bytes..at + bytes + 2] != b"\r\n" {
        return Err(Violation::UnknownOperation);
    }
    received.advance(at);
    let headers = received.split_to(header_bytes).freeze();
    let payload = received.split_to(bytes - header_bytes).freeze();
    received.advance(2);
    Ok(Some(ClientOp::Publish(Message { subject, reply, headers, payload })))
}

/// Writes a message for a subscription.
pub(super) fn write_message(out: &mut BytesMut, sid: &str, message: &Message) {
    let reply = message.reply.as_deref().map(|reply| format!("{reply} ")).unwrap_or_default();
    let (subject, headers) = (&message.subject, message.headers.len());
    let line = match headers {
        0 => format!("MSG {subject} {sid} {reply}{}\r\n", message.payload.len()),
        _ => format!("HMSG {subject} {sid} {reply}{headers} {}\r\n", message.len()),
    };
    out.reserve(line.len() + message.len() + 2);
    out.put_slice(line.as_bytes());
    out.put_slice(&message.headers);
    out.put_slice(&message.payload);
    out.put_slice(b"\r\n");
}

pub(super) fn write_error(out: &mut BytesMut, words: &str) {
    out.put_slice(format!("-ERR '{words}'\r\n").as_bytes());
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::prelude::*;

    /// All operations in some bytes that come one by one, and the violation that ends them, if one does.
    fn parsed(bytes: &[u8]) -> (Vec<ClientOp>, Option<Violation>) {
        let (mut received, mut ops) = (BytesMut::new(), Vec::new());
        for &byte in bytes {
            received.put_u8(byte);
            match parse(&mut received, 16) {
                Ok(op) => ops.extend(op),
                Err(violation) => return (ops, Some(violation)),
            }
        }
        (ops, None)
    }

    #[test]
    fn operations_are_read_however_they_are_cut() {
        let (ops, violation) = parsed(
            b"CONNECT {\"verbose\":false,\"headers\":true}\r\nping\r\nPUB a.b 2\r\nhi\r\nPUB a r 0\r\n\r\n\
              HPUB a r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nSUB a.* 1\r\nSUB  a\tq 2\r\nUNSUB 1\r\nUNSUB 2 7\r\nPONG\r\n",
        );
        assert_eq!(violation, None);
        let message = |subject: &str, reply: Option<&str>, headers: &'static str, payload: &'static str| {
            let reply = reply.map(str::to_owned);
            let (headers, payload) = (headers.into(), payload.into());
            ClientOp::Publish(Message { subject: subject.to_owned(), reply, headers, payload })
        };
        let subscribe = |subject: &str, queue: Option<&str>, sid: &str| ClientOp::Subscribe {
            subject: subject.to_owned(),
            queue: queue.map(str::to_owned),
            sid: sid.to_owned(),
        };
        let options = ConnectOptions { verbose: false, headers: true, ..ConnectOptions::default() };
        assert_eq!(
            ops,
            [
                ClientOp::Connect(options),
                ClientOp::Ping,
                message("a.b", None, "", "hi"),
                message("a", Some("r"), "", ""),
                message("a", Some("r"), "NATS/1.0\r\n\r\n", "hi"),
                subscribe("a.*", None, "1"),
                subscribe("a", Some("q"), "2"),
                ClientOp::Unsubscribe { sid: "1".to_owned(), max: None },
                ClientOp::Unsubscribe { sid: "2".to_owned(), max: Some(7) },
                ClientOp::Pong,
            ]
        );
    }

    #[test]
    fn what_is_not_the_protocol_ends_the_connection() {
        let long_line = [b"PUB ".as_slice(), &[b'a'; LINE_BYTES_MAX]].concat();
        for (bytes, expected) in [
            (&b"BOGUS\r\n"[..], Violation::UnknownOperation),
            (b"\xff\xff\r\n", Violation::UnknownOperation),
            (b"PUB a 2\r\nhixx", Violation::UnknownOperation),
            (b"PUB a 17\r\n", Violation::PayloadTooLong),
            (b"PUB a x\r\n", Violation::Arguments),
            (b"PUB a -1\r\n", Violation::Arguments),
            (b"PUB 1\r\n", Violation::Arguments),
            (b"PUB a 99999999999999999999999999\r\n", Violation::Arguments),
            (b"HPUB a 3 2\r\n", Violation::Arguments),
            (b"SUB a\r\n", Violation::Arguments),
            (b"UNSUB\r\n", Violation::Arguments),
            (b"CONNECT {\r\n", Violation::Arguments),
            (&long_line, Violation::LineTooLong),
        ] {
            assert_eq!(parsed(bytes), (Vec::new(), Some(expected)), "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        /// Nor is anything kept of it that has no limit.
        #[test]
        fn no_bytes_make_the_parser_panic(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "(PUB|HPUB|SUB|UNSUB|CONNECT|PING)[ a-z0-9.*>{}\"\r\n]{0,40}\r\n.{0,20}".prop_map(String::into_bytes),
            ]
        ) {
            parsed(&bytes);
        }

        #[test]
        fn a_message_is_read_as_it_was_written(subject in "[a-z]{1,5}", reply in proptest::option::of("[a-z]{1,5}"), payload in ".{0,4}") {
            let message = Message { subject, reply, payload: payload.into(), ..Message::default() };
            let mut out = BytesMut::new();
            write_message(&mut out, "1", &message);
            let as_publish = String::from_utf8(out.to_vec()).unwrap().replacen("MSG", "PUB", 1).replacen(" 1 ", " ", 1);
            prop_assert_eq!(parsed(as_publish.as_bytes()), (vec![ClientOp::Publish(message)], None));
        }
    }
}
