//! A directory with anything in it can be opened, and what could be read of it before can be read after.
//!
//! The fuzzer cannot guess checksums, so it begins with a whole log and changes its files: bytes of its own in any place, pieces of one file
//! in another, files cut off, deleted, doubled under other names, or its own from the first byte; and numbers of any size, whose checksums are right.

#![no_main]

use arbitrary::Arbitrary;
use jetring::__internals::{spool_forge, spool_golden, spool_recover};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

#[derive(Arbitrary, Debug)]
enum Change {
    Overwrite { file: u8, at: u16, bytes: Vec<u8> },
    Move { from: u8, at: u16, length: u16, to: u8, to_at: u16 },
    Cut { file: u8, length: u16 },
    Grow { file: u8, zeros: u16 },
    Delete { file: u8 },
    Double { file: u8, id: u64 },
    Own { id: u64, bytes: Vec<u8> },
    Named { name: String, bytes: Vec<u8> },
    Forge { kind: u8, choice: u8, numbers: [u64; 4] },
}

type Files = BTreeMap<String, Vec<u8>>;

fuzz_target!(|changes: Vec<Change>| {
    let mut files = spool_golden();
    let are_forged = changes.iter().any(|change| matches!(change, Change::Forge { .. }));
    for change in changes.into_iter().take(16) {
        apply(&mut files, change);
    }
    spool_recover(&files, are_forged);
});

fn apply(files: &mut Files, change: Change) {
    match change {
        Change::Overwrite { file, at, bytes } => write(files, file, at, &bytes),
        Change::Move { from, at, length, to, to_at } => {
            let Some(source) = nth(files, from).and_then(|name| files.get(&name)) else { return };
            let start = usize::from(at).min(source.len());
            let end = (start + usize::from(length)).min(source.len());
            let piece = source[start..end].to_vec();
            write(files, to, to_at, &piece);
        }
        Change::Cut { file, length } => {
            if let Some(bytes) = nth(files, file).and_then(|name| files.get_mut(&name)) {
                bytes.truncate(length.into());
            }
        }
        Change::Grow { file, zeros } => {
            if let Some(bytes) = nth(files, file).and_then(|name| files.get_mut(&name)) {
                bytes.resize(bytes.len() + usize::from(zeros), 0);
            }
        }
        Change::Delete { file } => drop(nth(files, file).map(|name| files.remove(&name))),
        Change::Double { file, id } => {
            if let Some(bytes) = nth(files, file).and_then(|name| files.get(&name)).cloned() {
                files.insert(format!("{id:016x}.seg"), bytes);
            }
        }
        Change::Forge { kind, choice, numbers } => spool_forge(files, kind, choice, numbers),
        Change::Own { id, bytes } => drop(files.insert(format!("{id:016x}.seg"), bytes)),
        // A name has no separators.
        Change::Named { name, bytes } => drop(files.insert(name.replace('/', "_"), bytes)),
    }
}

fn nth(files: &Files, file: u8) -> Option<String> {
    files.keys().nth(usize::from(file) % files.len().max(1)).cloned()
}

fn write(files: &mut Files, file: u8, at: u16, bytes: &[u8]) {
    let Some(target) = nth(files, file).and_then(|name| files.get_mut(&name)) else { return };
    let at = usize::from(at).min(target.len());
    target.resize(target.len().max(at + bytes.len()), 0);
    target[at..at + bytes.len()].copy_from_slice(bytes);
}
