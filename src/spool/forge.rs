//! Directories as a bug or an attacker may leave them: any number in any place, with the checksum that belongs to it.

use super::batch::{HEAD_BYTES, Head};
use super::checksum::{Seed, u32_at};
use super::number::LIMIT;
use super::position::Position;
use super::segment::{self, HEADER_BYTES, Header};
use super::sent::Sent;
use super::slots::{self, Content};
use super::storage::memory::Memory;
use super::survey::Survey;
use super::{LogId, trial};
use std::collections::BTreeMap;

type Files = BTreeMap<String, Vec<u8>>;

/// The kinds of [`forge`].
pub(crate) const KINDS: u8 = 6;

/// Changes a file, or adds one, as four numbers and a choice say.
pub(crate) fn forge(files: &mut Files, kind: u8, choice: u8, numbers: [u64; 4]) {
    let survey = Survey::take(&Memory::of(files)).expect("it can be looked at");
    let Some(log) = survey.log() else { return };
    let [a, b, c, d] = numbers.map(number);
    let segments: Vec<u64> = files.keys().filter_map(|name| segment::id_of(name)).collect();
    let id = segments.get(usize::from(choice) % segments.len().max(1)).copied().unwrap_or(1);
    match kind % KINDS {
        0 => {
            let position = Position { start: a.min(b), end: a.max(b), evicted: c, is_closed: choice < 128 };
            write_slot(files, log, &position, d);
        }
        1 => {
            let sent = Sent {
                confirmed: a.min(b),
                mark: a.max(b),
                floor: c,
                stream: d,
                ahead: (a.min(d), a.max(d)),
                since: b,
                is_packed: choice < 128,
            };
            write_slot(files, log, &sent, c);
        }
        2 => {
            let header = Header::new(log, id, a, b);
            overwrite(files, &segment::name(id), 0, &header.encode());
        }
        3 | 4 => change_first_batch(files, log, id, kind % KINDS == 4, [a, b, c]),
        _ => {
            // A segment that nobody has written.
            let mut batch = trial::batch([c, c.wrapping_add(1)]);
            batch.set_first_sequence(b);
            let header = Header::new(log, a, d, 0);
            let sealed =
                batch.seal(Seed::of_segment(log, a), HEADER_BYTES as u64).map(|parts| parts.concat());
            // What no reader would take is not written.
            let bytes = [&header.encode()[..], &sealed.unwrap_or_default()].concat();
            files.insert(segment::name(a), bytes);
        }
    }
}

/// Numbers that are not drawn by chance: small ones, and those at which something may end.
fn number(drawn: u64) -> u64 {
    let small = (drawn >> 8) % 32;
    match drawn % 16 {
        0..6 => small,
        6 => 1 << 40,
        7 => 1 << 50,
        8 => LIMIT - 1 - small,
        9 => LIMIT,
        10 => LIMIT + 1 + small,
        11 => 1 << 63,
        12 => u64::MAX - small,
        13 => u64::MAX,
        _ => drawn >> (small % 64),
    }
}

fn write_slot<T: Content>(files: &mut Files, log: LogId, content: &T, generation: u64) {
    let bytes = files.entry(T::NAME.to_owned()).or_default();
    bytes.resize(slots::FILE_BYTES as usize, 0);
    let offset = slots::OFFSETS[(generation % 2) as usize];
    let slot = slots::encode(content, generation, Seed::of_file(log, T::NAME), offset);
    overwrite(files, T::NAME, offset as usize, &slot);
}

/// Changes what the first batch of a segment says of itself, or what its table says of its first record.
fn change_first_batch(files: &mut Files, log: LogId, id: u64, of_table: bool, [a, b, c]: [u64; 3]) {
    let (name, seed, offset) = (segment::name(id), Seed::of_segment(log, id), HEADER_BYTES as u64);
    let Some(bytes) = files.get_mut(&name) else { return };
    let Some(mut head) = bytes.get(HEADER_BYTES..).and_then(|bytes| Head::decode(bytes, seed, offset)) else {
        return;
    };
    let table = HEADER_BYTES + HEAD_BYTES..HEADER_BYTES + HEAD_BYTES + head.count * 8;
    if of_table {
        bytes[table.start..table.start + 4].copy_from_slice(&(a as u32).to_le_bytes());
        head.table_sum = seed.sum(table.start as u64, &bytes[table.clone()]);
        debug_assert_eq!(u32_at(bytes, table.start), a as u32);
    } else {
        (head.first_sequence, head.count, head.body_bytes) = (a, b as u32 as usize, c as u32 as usize);
    }
    overwrite(files, &name, HEADER_BYTES, &head.encode(seed, offset));
}

fn overwrite(files: &mut Files, name: &str, at: usize, bytes: &[u8]) {
    let Some(file) = files.get_mut(name) else { return };
    file.resize(file.len().max(at + bytes.len()), 0);
    file[at..at + bytes.len()].copy_from_slice(bytes);
}
