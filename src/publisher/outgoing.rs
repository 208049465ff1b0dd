//! What goes out: a message or a word about a batch, with an address that its answer will bear.

use super::packer::Packed;
use super::window::Origin;
use crate::trace::TraceParent;
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

/// `Nats-Msg-Id`: the producer of a message and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MessageId {
    pub(crate) origin: Origin,
    pub(crate) seq: u64,
}
