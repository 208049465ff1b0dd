//! What is written at once: a batch of records, whole or not there at all.
//!
//! ```text
//!   ┌────────────────────────────── head, 32 bytes ─────────────────────────────┐
//!   │ magic │ checksum │ first sequence │ count │ body bytes │ checksum │ 0     │
//!   │       │ of head  │                │       │            │ of table │       │
//!   ├─────────────────────┬─────────────────────┬───┬───────────────────────────┤
//!   │ length, checksum    │ length, checksum    │ … │   table, 8 bytes a record
//!   ├─────────────────────┴─────────┬───────────┴───┴───────────────────────────┤
//!   │ record │ record │ …           │ zeros up to a multiple of 8                body
//!   └────────┴────────┴─────────────┴───────────────────────────────────────────┘
//!                record:  kind u8 │ 0 u8 │ subject bytes u16 │ header bytes u32 │ subject │ headers │ payload
//! ```
//!
//! The head says how long everything is, and is checked before it is believed. The table tells the records apart without looking into
//! them, so a damaged record costs itself and not its neighbours, and a damaged length cannot lead anywhere. All checksums begin with the place
//! (see [`checksum`](super::checksum)). A batch of which a part is missing at the end of a log is one that was never finished, and none of
//! it is seen.
//!
//! **Writer and reader share their limits.** A record goes into a [`Room`], and only a batch that is not full has one. A head goes to the
//! disk by [`Head::new`], which is also how one is read: what the reader would refuse is an error of the writer, before anything is written.
//! The reader takes more records a batch than the writer puts there, because an earlier writer did not look often enough.
//!
//! A batch keeps its bytes until the disk has confirmed them: if it refuses, they are written again somewhere else, and sealed anew,
//! since the place is part of the checksums.

use super::checksum::{Seed, u16_at, u32_at};
use super::number::{self, sequence_at};
use std::io;
use std::ops::Range;

/// Bytes before the table.
pub(super) const HEAD_BYTES: usize = 32;

/// Batches begin at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;

/// The bytes of the largest record: more than any event may have with its envelope, and less than anybody could use to exhaust our memory.
pub(crate) const RECORD_BYTES_MAX: usize = 16 << 20;

/// A batch with so many records is full. More of them gain nothing, and the table stays small.
pub(crate) const RECORDS_MAX: usize = 4096;

/// Records in a batch that is read. An earlier writer added all events of a packed frame without counting them, and a frame of the shortest
/// lines has 32,768: so this is more than any of its batches has.
const RECORDS_READ_MAX: usize = 1 << 16;

/// A batch with so many bytes is full.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// The body of any batch has at most so many bytes: one that is not full takes one more record.
const BODY_BYTES_MAX: usize = RECORDS_READ_MAX * ENTRY_BYTES + BATCH_BYTES + RECORD_BYTES_MAX;

/// Not text in any encoding, and not zero.
const MAGIC: u32 = 0xF5C1_B47C;

const ENTRY_BYTES: usize = 8;
const RECORD_HEAD_BYTES: usize = 8;
const MESSAGE: u8 = 1;

/// Records on their way into the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    /// Bytes of each record.
    lengths: Vec<u32>,
    records: Vec<u8>,
    /// Of the first record; given by the log.
    first_sequence: u64,
    /// Head and table, sealed for a place.
    front: Vec<u8>,
}

/// The record would be larger than [`RECORD_BYTES_MAX`], or its subject longer than can be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Batch {
    /// Room for one more record; `None` if the batch is full, and the record goes into the next one.
    pub(crate) fn room(&mut self) -> Option<Room<'_>> {
        (!self.is_full()).then_some(Room { batch: self })
    }

    /// Records without a look at how many there are, as an earlier writer put them there.
    #[cfg(all(test, not(jetring_loom)))]
    pub(super) fn overfilled<'a>(records: impl IntoIterator<Item = (&'a [u8], &'a [u8], Vec<u8>)>) -> Self {
        let mut batch = Self::default();
        for (subject, headers, payload) in records {
            Room { batch: &mut batch }.push(subject, headers, &payload).expect("it is small");
        }
        batch
    }

    /// The messages in it, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let mut at = 0;
        self.lengths.iter().filter_map(move |&length| {
            let record = &self.records[at..at + length as usize];
            at += length as usize;
            Message::decode(record)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Whether another record should go into the next batch.
    pub(crate) fn is_full(&self) -> bool {
        self.lengths.len() >= RECORDS_MAX || self.records.len() >= BATCH_BYTES
    }

    pub(crate) fn clear(&mut self) {
        self.lengths.clear();
        self.records.clear();
        self.front.clear();
    }

    /// The bytes that it takes in a segment.
    pub(super) fn bytes(&self) -> usize {
        HEAD_BYTES + self.body_bytes()
    }

    pub(super) fn sequences(&self) -> Range<u64> {
        self.first_sequence..self.first_sequence.saturating_add(self.lengths.len() as u64)
    }

    pub(super) fn set_first_sequence(&mut self, first_sequence: u64) {
        self.first_sequence = first_sequence;
    }

    fn body_bytes(&self) -> usize {
        (self.lengths.len() * ENTRY_BYTES + self.records.len()).next_multiple_of(ALIGNMENT as usize)
    }

    /// The bytes to be written at `offset` of the segment that `seed` stands for. An error means that they could not be read again.
    pub(super) fn seal(&mut self, seed: Seed, offset: u64) -> io::Result<[&[u8]; 3]> {
        let table_bytes = self.lengths.len() * ENTRY_BYTES;
        self.front.clear();
        self.front.resize(HEAD_BYTES, 0);
        let mut at = 0;
        for &length in &self.lengths {
            let record = &self.records[at..at + length as usize];
            let place = offset + (HEAD_BYTES + table_bytes + at) as u64;
            self.front.extend_from_slice(&length.to_le_bytes());
            self.front.extend_from_slice(&seed.sum(place, record).to_le_bytes());
            at += length as usize;
        }
        let table_sum = seed.sum(offset + HEAD_BYTES as u64, &self.front[HEAD_BYTES..]);
        let body_bytes = self.body_bytes();
        let head = Head::new(self.first_sequence, self.lengths.len(), body_bytes, table_sum)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no reader would take this batch"))?;
        self.front[..HEAD_BYTES].copy_from_slice(&head.encode(seed, offset));
        let padding = body_bytes - table_bytes - self.records.len();
        Ok([&self.front, &self.records, &[0; ALIGNMENT as usize][..padding]])
    }
}

/// A place in a batch that is not full, for one record.
pub(crate) struct Room<'a> {
    batch: &'a mut Batch,
}

impl Room<'_> {
    /// Adds a message. Headers are lines, each `Name: value` with CR and LF behind it.
    pub(crate) fn push(self, subject: &[u8], headers: &[u8], payload: &[u8]) -> Result<(), TooLarge> {
        self.push_written(subject, headers, |out| {
            out.extend_from_slice(payload);
            Ok(())
        })
    }

    /// The same with a payload that `write` appends. What fails is not added.
    pub(crate) fn push_written<E: From<TooLarge>>(
        self,
        subject: &[u8],
        headers: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let subject_bytes = u16::try_from(subject.len()).map_err(|_| TooLarge)?;
        let header_bytes = u32::try_from(headers.len()).map_err(|_| TooLarge)?;
        let Batch { lengths, records, .. } = self.batch;
        let start = records.len();
        records.extend_from_slice(&[MESSAGE, 0]);
        records.extend_from_slice(&subject_bytes.to_le_bytes());
        records.extend_from_slice(&header_bytes.to_le_bytes());
        records.extend_from_slice(subject);
        records.extend_from_slice(headers);
        let pushed = write(records).and_then(|()| Ok(length_of(records.len() - start)?));
        match pushed {
            Ok(length) => lengths.push(length),
            Err(_) => records.truncate(start),
        }
        pushed.map(drop)
    }

    /// Takes over a record as it stands in another batch.
    pub(super) fn push_record(self, record: &[u8]) -> Result<(), TooLarge> {
        self.batch.lengths.push(length_of(record.len())?);
        self.batch.records.extend_from_slice(record);
        Ok(())
    }
}

/// The length of a record, if that is within its limit.
fn length_of(bytes: usize) -> Result<u32, TooLarge> {
    u32::try_from(bytes).ok().filter(|&length| length as usize <= RECORD_BYTES_MAX).ok_or(TooLarge)
}

/// What the head of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first_sequence: u64,
    pub(super) count: usize,
    pub(super) body_bytes: usize,
    pub(super) table_sum: u32,
}

impl Head {
    /// A head whose numbers are within their limits; `None` if they are not.
    fn new(first_sequence: u64, count: usize, body_bytes: usize, table_sum: u32) -> Option<Self> {
        let is_possible = first_sequence > 0
            && (1..=RECORDS_READ_MAX).contains(&count)
            && body_bytes <= BODY_BYTES_MAX
            && body_bytes >= count * (ENTRY_BYTES + RECORD_HEAD_BYTES)
            && body_bytes.is_multiple_of(ALIGNMENT as usize)
            && first_sequence.saturating_add(count as u64) <= number::LIMIT;
        is_possible.then_some(Self { first_sequence, count, body_bytes, table_sum })
    }

    pub(super) fn encode(&self, seed: Seed, offset: u64) -> [u8; HEAD_BYTES] {
        let mut block = [0; HEAD_BYTES];
        block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&self.first_sequence.to_le_bytes());
        // Both are bounded by constants far below what fits.
        block[16..20].copy_from_slice(&(self.count as u32).to_le_bytes());
        block[20..24].copy_from_slice(&(self.body_bytes as u32).to_le_bytes());
        block[24..28].copy_from_slice(&self.table_sum.to_le_bytes());
        let sum = seed.sum(offset, &block[8..]);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
        block
    }

    /// Reads a head; what is none, or was made for another place, is `None`.
    pub(super) fn decode(block: &[u8], seed: Seed, offset: u64) -> Option<Self> {
        if block.len() < HEAD_BYTES || u32_at(block, 0) != MAGIC {
            return None;
        }
        if u32_at(block, 4) != seed.sum(offset, &block[8..HEAD_BYTES]) {
            return None;
        }
        let (count, body_bytes) = (u32_at(block, 16) as usize, u32_at(block, 20) as usize);
        Self::new(sequence_at(block, 8)?, count, body_bytes, u32_at(block, 24))
    }

    pub(super) fn sequences(&self) -> Range<u64> {
        self.first_sequence..self.first_sequence + self.count as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        (HEAD_BYTES + self.body_bytes) as u64
    }

    /// What of the body is whole; the body may be cut off.
    pub(super) fn check(&self, body: &[u8], seed: Seed, offset: u64) -> Checked {
        let table_bytes = self.count * ENTRY_BYTES;
        let body_offset = offset + HEAD_BYTES as u64;
        if body.len() < table_bytes || seed.sum(body_offset, &body[..table_bytes]) != self.table_sum {
            return Checked {
                records: vec![None; self.count],
                damaged: Vec::new(),
                is_finished: false,
                is_whole: false,
            };
        }
        let (mut at, mut damaged) = (table_bytes, Vec::new());
        let records: Vec<_> = body[..table_bytes]
            .chunks_exact(ENTRY_BYTES)
            .enumerate()
            .map(|(index, entry)| {
                let (length, sum) = (u32_at(entry, 0) as usize, u32_at(entry, 4));
                let range = at..at.saturating_add(length);
                at = range.end;
                let record = body.get(range.clone())?;
                if seed.sum(body_offset + range.start as u64, record) == sum {
                    return Some(range);
                }
                damaged.push((index, range));
                None
            })
            .collect();
        let is_padding_whole = body.len() == self.body_bytes
            && body.get(at..).is_some_and(|padding| {
                padding.len() < ALIGNMENT as usize && padding.iter().all(|&byte| byte == 0)
            });
        let is_finished = is_padding_whole && records.last().is_some_and(Option::is_some);
        let is_whole = is_padding_whole && records.iter().all(Option::is_some);
        Checked { records, damaged, is_finished, is_whole }
    }
}

/// What is whole of a batch whose head is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Where in the body each record stands; none if it is damaged. No record is whole if the table is not.
    pub(super) records: Vec<Option<Range<usize>>>,
    /// Which records are damaged, and where they stand; only if the table is whole.
    pub(super) damaged: Vec<(usize, Range<usize>)>,
    /// The end is whole: all of it was written, and what is damaged was damaged later.
    pub(super) is_finished: bool,
    /// All records, and what is behind them.
    pub(super) is_whole: bool,
}

/// A record taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) subject: &'a [u8],
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a record; `None` if it is of a kind that we do not know, or its lengths contradict each other.
    pub(super) fn decode(record: &'a [u8]) -> Option<Self> {
        if record.first() != Some(&MESSAGE) {
            return None;
        }
        Self::decode_any(record)
    }

    /// The same of a record that is damaged, or of a kind that we do not know: what it would say if it were a message. Whether that is so is for
    /// the caller to see.
    pub(crate) fn decode_any(record: &'a [u8]) -> Option<Self> {
        if record.len() < RECORD_HEAD_BYTES {
            return None;
        }
        let (subject_bytes, header_bytes) = (usize::from(u16_at(record, 2)), u32_at(record, 4) as usize);
        let (subject, rest) = record[RECORD_HEAD_BYTES..].split_at_checked(subject_bytes)?;
        let (headers, payload) = rest.split_at_checked(header_bytes)?;
        Some(Self { subject, headers, payload })
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::spool::LogId;

    const OFFSET: u64 = 64;
    const HEADERS: &[u8] = b"Nats-Msg-Id: 00000000000000fe.0-1\r\n";

    fn seed() -> Seed {
        Seed::of_segment(LogId([3; 16]), 5)
    }

    fn sealed() -> Vec<u8> {
        let mut batch = Batch::default();
        batch.room().unwrap().push(b"event.1.a", b"A: b\r\n", b"{}").unwrap();
        batch.room().unwrap().push(b"", b"", b"").unwrap();
        batch.room().unwrap().push(b"event.1.b", b"", &[7; 300]).unwrap();
        batch.set_first_sequence(41);
        let bytes = batch.seal(seed(), OFFSET).unwrap().concat();
        assert_eq!(bytes.len(), batch.bytes());
        bytes
    }

    /// The records that can be read out of a batch; none if its head cannot.
    fn read(bytes: &[u8], offset: u64) -> Option<Vec<Option<Vec<u8>>>> {
        let head = Head::decode(bytes, seed(), offset)?;
        let body = &bytes[HEAD_BYTES..];
        let checked = head.check(body, seed(), offset);
        Some(checked.records.into_iter().map(|range| range.map(|range| body[range].to_vec())).collect())
    }

    #[test]
    fn what_goes_in_comes_out() {
        let bytes = sealed();
        let head = Head::decode(&bytes, seed(), OFFSET).unwrap();
        assert_eq!((head.sequences(), head.bytes()), (41..44, bytes.len() as u64));
        let records: Vec<Vec<u8>> = read(&bytes, OFFSET).unwrap().into_iter().map(Option::unwrap).collect();
        let message = Message::decode(&records[0]).unwrap();
        assert_eq!(message, Message { subject: b"event.1.a", headers: b"A: b\r\n", payload: b"{}" });
        assert_eq!(Message::decode(&records[1]), Some(Message { subject: b"", headers: b"", payload: b"" }));
        assert_eq!(Message::decode(&records[2]).unwrap().payload, [7; 300]);
    }

    #[test]
    fn a_flipped_bit_costs_one_record_or_is_in_head_or_table_or_padding() {
        let bytes = sealed();
        let whole = read(&bytes, OFFSET).unwrap();
        let records_begin = HEAD_BYTES + 3 * ENTRY_BYTES;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Some(records) = read(&flipped, OFFSET) else {
                assert!(bit / 8 < HEAD_BYTES, "byte {}", bit / 8);
                continue;
            };
            let damaged = records.iter().filter(|record| record.is_none()).count();
            assert!(records.iter().zip(&whole).all(|(now, before)| now.is_none() || now == before));
            match bit / 8 {
                at if at < HEAD_BYTES => panic!("the head passed with bit {bit} flipped"),
                at if at < records_begin => assert_eq!(damaged, 3),
                _ => assert!(damaged <= 1),
            }
        }
    }

    #[test]
    fn a_payload_that_is_written_in_place_is_as_one_that_is_copied_unless_it_fails() {
        let (mut copied, mut written) = (Batch::default(), Batch::default());
        copied.room().unwrap().push(b"a", b"", b"one").unwrap();
        let put = |bytes: &'static [u8]| {
            move |out: &mut Vec<u8>| {
                out.extend_from_slice(bytes);
                Ok::<(), TooLarge>(())
            }
        };
        written.room().unwrap().push_written(b"a", b"", put(b"one")).unwrap();
        let failed = written.room().unwrap().push_written(b"b", b"", |out| {
            out.push(1);
            Err(TooLarge)
        });
        let too_large = written.room().unwrap().push_written(b"b", b"", |out| {
            out.extend(std::iter::repeat_n(0, RECORD_BYTES_MAX));
            Ok::<(), TooLarge>(())
        });
        assert_eq!((failed, too_large), (Err(TooLarge), Err(TooLarge)));
        assert_eq!((&written.lengths, &written.records), (&copied.lengths, &copied.records));
        written.room().unwrap().push(b"c", b"H: v\r\n", b"two").unwrap();
        let payloads: Vec<_> = written.messages().map(|message| message.payload).collect();
        assert_eq!(payloads, [b"one", b"two"]);
    }

    #[test]
    fn a_batch_elsewhere_is_none() {
        assert!(read(&sealed(), OFFSET + 8).is_none());
        let other = Seed::of_segment(LogId([3; 16]), 6);
        assert!(Head::decode(&sealed(), other, OFFSET).is_none());
    }

    #[test]
    fn the_largest_batch_that_can_be_written_can_be_read() {
        let mut batch = Batch::default();
        while batch.len() < RECORDS_MAX - 1 {
            batch.room().unwrap().push(b"", b"", b"").unwrap();
        }
        let small = batch.records.len();
        batch.lengths.pop();
        batch.records.truncate(small - RECORD_HEAD_BYTES);
        let filling = BATCH_BYTES - 1 - batch.records.len() - RECORD_HEAD_BYTES;
        batch.room().unwrap().push(b"", b"", &vec![1; filling]).unwrap();
        let largest = RECORD_BYTES_MAX - RECORD_HEAD_BYTES;
        batch.room().unwrap().push(b"", b"", &vec![2; largest]).unwrap();
        assert!(batch.room().is_none() && batch.len() == RECORDS_MAX);
        batch.set_first_sequence(1);
        let bytes = batch.seal(seed(), OFFSET).unwrap().concat();
        assert!(read(&bytes, OFFSET).unwrap().iter().all(Option::is_some));
    }

    #[test]
    fn a_batch_that_an_earlier_writer_has_overfilled_is_read() {
        // As many events as a frame can have, behind a batch that is not quite full.
        for records in [RECORDS_MAX + 1, RECORDS_MAX - 1 + (32 << 10)] {
            let mut batch = Batch::overfilled((0..records).map(|_| (&b"event.1.a"[..], HEADERS, Vec::new())));
            batch.set_first_sequence(1);
            let bytes = batch.seal(seed(), OFFSET).unwrap().concat();
            let read = read(&bytes, OFFSET).unwrap();
            assert!(read.len() == records && read.iter().all(Option::is_some));
        }
    }

    #[test]
    fn what_no_reader_would_take_is_not_sealed() {
        let mut batch = Batch::default();
        batch.set_first_sequence(1);
        assert!(batch.seal(seed(), OFFSET).is_err(), "it is empty");
        batch.room().unwrap().push(b"", b"", b"").unwrap();
        assert!(batch.seal(seed(), OFFSET).is_ok());
        batch.set_first_sequence(u64::MAX);
        assert!(batch.seal(seed(), OFFSET).is_err(), "its last sequence is none");
        let mut batch = Batch::overfilled((0..=RECORDS_READ_MAX).map(|_| (&b""[..], &b""[..], Vec::new())));
        batch.set_first_sequence(1);
        assert!(batch.seal(seed(), OFFSET).is_err(), "it has too many records");
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_is_written() {
        let mut batch = Batch::default();
        assert_eq!(batch.room().unwrap().push(b"", b"", &vec![0; RECORD_BYTES_MAX]), Err(TooLarge));
        assert_eq!(batch.room().unwrap().push(&[b'a'; 1 << 16], b"", b""), Err(TooLarge));
        assert!(batch.is_empty() && batch.records.is_empty());
    }

    #[test]
    fn a_record_of_another_kind_or_with_impossible_lengths_is_no_message() {
        for record in
            [&[][..], &[2, 0, 0, 0, 0, 0, 0, 0], &[1, 0, 9, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 255, 255, 255, 255]]
        {
            assert_eq!(Message::decode(record), None);
        }
    }
}
