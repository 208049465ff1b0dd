//! Addresses of what we send, as reply subjects, so that an answer names what it answers.
//!
//! ```text
//!   <inbox>.<number>.<attempt>                                       a publish with an acknowledgement of its own
//!   <inbox>.<number>-<part>.<attempt>                                the same, of a piece of a frame that was cut
//!   <inbox>.<process>-<batch>.<flow>.fail.<place>.<operation>.$FI    a part of a fast-ingest batch, as ADR-50 wants it
//! ```
//!
//! All are under one wildcard subscription, and nothing has to be kept for an answer. The client wants to own what it sends, so
//! subjects and payloads are written one behind the other into blocks, and what it gets are counted references into them: one
//! allocation for a block, none for a message.

use crate::publisher::outgoing::{Address, BatchToken, Op, Token};
use crate::publisher::window::PARTS;
use bytes::{Bytes, BytesMut};

/// Large enough that a block holds a hundred events, and small enough to stay in the second-level cache.
const BLOCK_BYTES: usize = 64 << 10;

/// Writes what one connection sends.
#[derive(Debug)]
pub(super) struct Writer {
    inbox: String,
    /// Tells our batches from those of other processes.
    process: String,
    block: BytesMut,
    /// The batch of `batch_prefix`.
    batch: Option<(u64, u16)>,
    /// `<inbox>.<process>-<batch>.<flow>.fail.`
    batch_prefix: Vec<u8>,
}

impl Writer {
    pub(super) fn new(inbox: String, process: &str) -> Self {
        Self {
            inbox,
            process: process.to_owned(),
            block: BytesMut::with_capacity(BLOCK_BYTES),
            batch: None,
            batch_prefix: Vec::new(),
        }
    }

    /// The reply subject for an answer to what has this address.
    pub(super) fn reply(&mut self, address: Address) -> Bytes {
        match address {
            Address::Single(token) => {
                self.reserve(self.inbox.len() + 34);
                self.block.extend_from_slice(self.inbox.as_bytes());
                self.number_after_dot(token.number / PARTS);
                if !token.number.is_multiple_of(PARTS) {
                    self.block.extend_from_slice(b"-");
                    self.block.extend_from_slice(itoa::Buffer::new().format(token.number % PARTS).as_bytes());
                }
                self.number_after_dot(u64::from(token.attempt));
            }
            Address::Batch(token) => {
                self.turn_to_batch(token.batch, token.flow);
                self.reserve(self.batch_prefix.len() + 28);
                self.block.extend_from_slice(&self.batch_prefix);
                self.block.extend_from_slice(itoa::Buffer::new().format(token.seq).as_bytes());
                self.number_after_dot(token.op as u64);
                self.block.extend_from_slice(b".$FI");
            }
        }
        self.block.split().freeze()
    }

    /// A copy of a payload.
    pub(super) fn payload(&mut self, payload: &[u8]) -> Bytes {
        if payload.is_empty() {
            return Bytes::new();
        }
        self.reserve(payload.len());
        self.block.extend_from_slice(payload);
        self.block.split().freeze()
    }

    fn reserve(&mut self, bytes: usize) {
        if self.block.capacity() < bytes {
            self.block = BytesMut::with_capacity(BLOCK_BYTES.max(bytes));
        }
    }

    fn number_after_dot(&mut self, number: u64) {
        self.block.extend_from_slice(b".");
        self.block.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn turn_to_batch(&mut self, batch: u64, flow: u16) {
        if self.batch != Some((batch, flow)) {
            self.batch = Some((batch, flow));
            self.batch_prefix = format!("{}.{}-{batch}.{flow}.fail.", self.inbox, self.process).into_bytes();
        }
    }
}

/// The address in the reply subject that an answer was sent to.
pub(super) fn parse(subject: &str) -> Option<Address> {
    let mut tokens = subject.rsplit('.');
    let last = tokens.next()?;
    if last != "$FI" {
        let (attempt, number) = (last.parse().ok()?, tokens.next()?);
        let (number, part) = number.split_once('-').unwrap_or((number, "0"));
        let (number, part): (u64, u64) = (number.parse().ok()?, part.parse().ok()?);
        let number = number.checked_mul(PARTS)?.checked_add(part)?;
        return Some(Address::Single(Token { number, attempt }));
    }
    let op = Op::from_number(tokens.next()?.parse().ok()?)?;
    let seq = tokens.next()?.parse().ok()?;
    let _gap_mode = tokens.next()?;
    let flow = tokens.next()?.parse().ok()?;
    let (_process, batch) = tokens.next()?.rsplit_once('-')?;
    Some(Address::Batch(BatchToken { batch: batch.parse().ok()?, flow, seq, op }))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer::new("_INBOX.abc".to_owned(), "00ff")
    }

    fn batch(batch: u64, seq: u64, op: Op) -> Address {
        Address::Batch(BatchToken { batch, flow: 500, seq, op })
    }

    #[test]
    fn an_answer_finds_what_it_answers() {
        let mut writer = writer();
        for address in [
            Address::Single(Token { number: 0, attempt: 1 }),
            Address::Single(Token { number: u64::MAX, attempt: u32::MAX }),
            batch(1, 1, Op::Start),
            batch(u64::MAX, u64::MAX, Op::Ping),
            batch(1, 7, Op::Commit),
        ] {
            let subject = writer.reply(address);
            assert_eq!(parse(std::str::from_utf8(&subject).unwrap_or_default()), Some(address));
        }
        for subject in [
            "_INBOX.abc",
            "_INBOX.abc.x.1",
            "_INBOX.abc.1.",
            "",
            "$FI",
            "1.0.$FI",
            "_INBOX.a.p-1.5.fail.1.9.$FI",
        ] {
            assert_eq!(parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn batches_are_named_as_the_protocol_wants_them() {
        let subject = writer().reply(batch(3, 42, Op::Append));
        assert_eq!(&*subject, b"_INBOX.abc.00ff-3.500.fail.42.1.$FI");
    }

    #[test]
    fn what_was_written_stays_as_it_was_when_the_block_is_full() {
        let mut writer = writer();
        let written: Vec<(u64, Bytes, Bytes)> = (0..2000)
            .map(|seq| {
                let payload = writer.payload(&vec![seq as u8; 40 * (seq as usize % 7)]);
                (seq, writer.reply(batch(1, seq, Op::Append)), payload)
            })
            .collect();
        let large = writer.payload(&vec![7; 3 * BLOCK_BYTES]);
        assert!(large.len() == 3 * BLOCK_BYTES && large.iter().all(|&byte| byte == 7));
        for (seq, reply, payload) in written {
            assert_eq!(
                parse(std::str::from_utf8(&reply).unwrap_or_default()),
                Some(batch(1, seq, Op::Append))
            );
            assert!(
                payload.len() == 40 * (seq as usize % 7) && payload.iter().all(|&byte| byte == seq as u8)
            );
        }
    }
}
