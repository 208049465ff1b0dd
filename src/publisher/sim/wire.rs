//! What travels between client and server: the parts of a NATS message that either side looks at.

use super::Micros;
use crate::publisher::outgoing::{BatchToken, Token};
use bytes::Bytes;

/// Who published an event, and its number: what the stamp in its envelope says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    /// Which start of the client.
    pub(super) process: usize,
    /// Which of its producers; one past the last ring are its reports.
    pub(super) producer: usize,
    pub(super) seq: u64,
}

/// From the client to the server.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Publish(Publish),
    /// `$JS.API.STREAM.INFO`
    Info {
        reply: Reply,
    },
    /// `$JS.API.STREAM.MSG.GET` for each sequence from the first to the last.
    Read {
        from: u64,
        to: u64,
        reply: Reply,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) subject: usize,
    /// The event in it; a word about a batch has none that would be stored.
    pub(super) id: EventId,
    pub(super) payload: Bytes,
    /// It carries a `Nats-Msg-Id`, made of its [`EventId`].
    pub(super) has_message_id: bool,
    /// Its reply subject is one of a fast-ingest batch, and says so much of it.
    pub(super) batch: Option<BatchToken>,
    pub(super) reply: Reply,
}

/// A reply subject: the inbox of one connection, and what the client recognises the answer by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) connection: usize,
    pub(super) tag: Tag,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Message(Token),
    Batch(BatchToken),
    Request(u64),
    /// Nobody asked.
    None,
}

/// From the server to the client.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) to: Reply,
    pub(super) body: Body,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    /// A `PubAck`.
    Stored { sequence: u64, duplicate: bool },
    /// A `PubAck` with an error; of a batch it is the last word.
    Refused(Refusal),
    /// Status 503: nobody has subscribed to the subject.
    NoResponders,
    /// `{"type":"ack"}`: all up to `seq` are stored, and the next ack comes after `messages` more.
    Flow { seq: u64, messages: u64 },
    /// `{"type":"gap"}`: another one was expected.
    Gap,
    /// `{"type":"err"}`: this message of the batch was refused.
    Failed { seq: u64, refusal: Refusal },
    /// The `PubAck` at the end of a batch: its first `count` messages are stored.
    Ended { sequence: u64, count: u64 },
    /// The stream as it is; `None` if there is no such stream.
    Info(Option<Info>),
    /// The messages of a range, with their subjects.
    Messages(Vec<(usize, Bytes)>),
    /// `-ERR 'Permissions Violation for Publish to …'`, which names no message.
    Denied { subject: usize },
}

/// An error of `server/errors.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) err_code: u32,
    pub(super) text: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Info {
    /// Subjects from this one on are not taken.
    pub(super) subjects: usize,
    pub(super) allows_batches: bool,
    /// When it was made, which tells it from one of the same name.
    pub(super) created: usize,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) duplicate_window: Micros,
}

impl Request {
    /// Bytes on the wire, roughly: a cut at any byte falls into long messages more often than into short ones.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Publish(publish) => 100 + publish.payload.len() as u64,
            Self::Info { .. } | Self::Read { .. } => 80,
        }
    }
}

impl Answer {
    pub(super) fn size(&self) -> u64 {
        match self.body {
            Body::Refused(_) | Body::Failed { .. } => 150,
            Body::Info(_) | Body::Messages(_) => 1000,
            _ => 70,
        }
    }
}
