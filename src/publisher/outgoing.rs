//! What goes out: a message or a word about a batch, with an address that its answer will bear.

use super::packer::Packed;
use super::stamp::ProducerNames;
use super::window::{Message, Origin};
use crate::frame::{self, Encoding};
use crate::trace::{TRACEPARENT, TraceParent};
use bytes::Bytes;

/// Something to send, in the order in which it is handed out.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) address: Address,
    pub(crate) subject: &'a Bytes,
    /// By which the server recognises what it has stored already. It is dear, so it is there only where it is needed.
    pub(crate) id: Option<MessageId>,
    /// Empty if this is a word about a batch.
    pub(crate) payload: &'a [u8],
    /// What there is to say of the payload, if it is a packed frame.
    pub(crate) packed: Option<&'a Packed>,
    pub(crate) trace: Option<&'a TraceParent>,
}

impl<'a> Sending<'a> {
    pub(crate) fn headers(&self) -> Headers<'a> {
        Headers { id: self.id, frame: self.packed.map(FrameHeaders::of), trace: self.trace }
    }
}

/// The headers of a message. The sink writes them and the pipeline measures them, both by [`each`](Self::each), so a size that is
/// compared with a limit of the server is the size on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers<'a> {
    pub(crate) id: Option<MessageId>,
    pub(crate) frame: Option<FrameHeaders>,
    pub(crate) trace: Option<&'a TraceParent>,
}

/// What the headers of a packed frame say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHeaders {
    pub(crate) events: usize,
    pub(crate) encoding: Option<Encoding>,
}

impl FrameHeaders {
    pub(crate) fn of(packed: &Packed) -> Self {
        Self { events: packed.events.len(), encoding: packed.encoding }
    }
}

impl<'a> Headers<'a> {
    /// No headers take more bytes than this; most take a third of it.
    pub(crate) const BYTES_MAX: usize = 256;

    /// All headers that `message` can have. Its id is one of them: the message needs it if it has to be sent again.
    pub(crate) fn of(message: &'a Message) -> Self {
        let frame = message.packed.as_deref().map(FrameHeaders::of);
        Self { id: Some(message.id()), frame, trace: message.trace.as_deref() }
    }

    /// Shows the name and the value of each header, in order.
    pub(crate) fn each(&self, names: &ProducerNames, mut show: impl FnMut(&'static str, &str)) {
        if let Some(MessageId { origin, seq }) = self.id {
            let events = self.frame.map(|frame| format!("+{}", frame.events)).unwrap_or_default();
            show(MESSAGE_ID, &format!("{}-{seq}{events}", names.of(origin)));
        }
        self.each_beside_id(show);
    }

    /// The same without the id.
    pub(crate) fn each_beside_id(&self, mut show: impl FnMut(&'static str, &str)) {
        if let Some(FrameHeaders { events, encoding }) = self.frame {
            show(frame::CONTENT_TYPE, frame::NDJSON);
            show(frame::COUNT, &events.to_string());
            if let Some(encoding) = encoding {
                show(frame::CONTENT_ENCODING, encoding.name());
            }
        }
        if let Some(trace) = self.trace {
            show(TRACEPARENT, trace.as_str());
        }
    }

    /// The bytes that they take on the wire, which the server counts as it counts those of the payload.
    pub(crate) fn bytes(&self, names: &ProducerNames) -> usize {
        let mut bytes = 0;
        self.each(names, |name, value| bytes += name.len() + ": ".len() + value.len() + "\r\n".len());
        let bytes = if bytes > 0 { "NATS/1.0\r\n".len() + bytes + "\r\n".len() } else { 0 };
        debug_assert!(bytes <= Self::BYTES_MAX, "{bytes} bytes of headers");
        bytes
    }
}

/// The header with the id of a message.
pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Travels in the reply subject, so that an answer names what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A publish with an acknowledgement of its own.
    Single(Token),
    /// A part of a fast-ingest batch.
    Batch(BatchToken),
}

/// Names an attempt to send a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) number: u64,
    pub(crate) attempt: u32,
}

/// Names a part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchToken {
    /// Never used twice by one pipeline.
    pub(crate) batch: u64,
    /// Messages for each acknowledgement that we ask for; the same throughout a batch.
    pub(crate) flow: u16,
    /// Its place in the batch, from 1.
    pub(crate) seq: u64,
    pub(crate) op: Op,
}

/// What to do with a part of a batch, by its number in ADR-50.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Stores the first message and begins a batch.
    Start = 0,
    /// Stores another message.
    Append = 1,
    /// Stores the last message. With the place 1 it is a batch of its own.
    Commit = 2,
    /// Ends the batch and stores nothing.
    End = 3,
    /// Asks for the last acknowledgement again.
    Ping = 4,
}

impl Op {
    /// The operation of this number.
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        [Self::Start, Self::Append, Self::Commit, Self::End, Self::Ping]
            .into_iter()
            .find(|&op| op as u64 == number)
    }
}

/// `Nats-Msg-Id`: the producer of a message and its number there. That of a packed frame is the one of its first event, with the number of
/// its events behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageId {
    pub(crate) origin: Origin,
    pub(crate) seq: u64,
}
