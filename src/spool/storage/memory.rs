//! A disk for tests, which keeps what it was told to keep, and may forget the rest.
//!
//! Each file has three versions of its bytes: what a reader sees, what is *pending* (written and not synced), and what is on the
//! platter. A power failure keeps of the pending writes any blocks of 512 bytes, as a seed says, and of the pending changes of
//! names the first few, since a journal writes them in order. A sync that fails forgets what it was to write: readers still see
//! it, but no later sync brings it back, which is what Linux does (Rebello et al., "Can Applications Recover from fsync
//! Failures?", ATC 2020).
//!
//! Every operation that changes something is a step, and a fault can be set for any step.

use super::{File, Ownership, Space, Storage};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A torn write keeps or loses so many bytes.
const BLOCK: usize = 512;

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power fails just before it. Everything fails from then on, until [`Memory::restart`].
    Crash,
    /// It fails, with nothing or a part of it done.
    Io,
    /// The same, because there is no room.
    Full,
}

/// A directory in memory. Clones are the same directory.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: BTreeMap<u64, Bytes>,
    /// By name, the file; as readers see it.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since the last sync, in order.
    pending_names: Vec<NameChange>,
    next_file: u64,
    capacity: u64,
    steps: u64,
    faults: Vec<(u64, Fault)>,
    /// All of this kind from that step on.
    broken_from: Option<(u64, Fault)>,
    has_crashed: bool,
    refuses_syncs: bool,
    is_locked: bool,
    /// Counts restarts, so that a lock of the process that crashed frees nothing.
    life: u64,
}

#[derive(Clone, Debug, Default)]
struct Bytes {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    Remove(String),
    Rename(String, String),
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            next_file: 0,
            capacity: 1 << 30,
            steps: 0,
            faults: Vec::new(),
            broken_from: None,
            has_crashed: false,
            refuses_syncs: false,
            is_locked: false,
            life: 0,
        })))
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Steps so far.
    #[cfg(all(test, not(jetring_loom)))]
    pub(crate) fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Sets a fault, so many steps from now.
    pub(crate) fn fail_after(&self, steps: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.steps + steps;
        state.faults.push((at, fault));
    }

    /// From now on every step fails so, until [`mend`](Self::mend).
    pub(crate) fn break_down(&self, fault: Fault) {
        let mut state = self.state();
        state.broken_from = Some((state.steps, fault));
    }

    pub(crate) fn mend(&self) {
        let mut state = self.state();
        state.broken_from = None;
        state.faults.clear();
    }

    /// Files are written, and not brought to the disk, as long as this is so.
    #[cfg(all(test, not(jetring_loom)))]
    pub(crate) fn refuse_syncs(&self, refuses: bool) {
        self.state().refuses_syncs = refuses;
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.state().has_crashed
    }

    /// The process is killed; the system lives on, and with it all that was written.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.has_crashed = false;
        state.is_locked = false;
        state.life += 1;
        state.faults.clear();
        state.broken_from = None;
    }

    /// The power fails, if it has not yet, and comes back. What was not synced is there in parts that `seed` chooses.
    pub(crate) fn restart(&self, seed: u64) {
        let mut state = self.state();
        let mut random = SplitMix(seed);
        let pending = std::mem::take(&mut state.pending_names);
        let kept = random.below(pending.len() as u64 + 1) as usize;
        let mut names = state.durable_names.clone();
        pending.into_iter().take(kept).for_each(|change| change.apply(&mut names));
        state.files.values_mut().for_each(|file| file.lose_power(&mut random));
        state.durable_names.clone_from(&names);
        state.names = names;
        drop(state);
        self.kill();
    }

    /// Files by name, as they are seen.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(name, file)| (name.clone(), state.files[file].seen.clone())).collect()
    }

    /// A disk with these files, all of them synced.
    pub(crate) fn of(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let memory = Self::new();
        let mut state = memory.state();
        for (name, bytes) in files {
            let file = state.next_file;
            state.next_file += 1;
            state
                .files
                .insert(file, Bytes { seen: bytes.clone(), durable: bytes.clone(), pending: Vec::new() });
            state.names.insert(name.clone(), file);
        }
        state.durable_names = state.names.clone();
        drop(state);
        memory
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a step, and says what goes wrong with it.
    fn step(&mut self) -> io::Result<()> {
        if self.has_crashed {
            return Err(dead());
        }
        self.steps += 1;
        let now = self.steps;
        let set = self.faults.iter().find(|(at, _)| *at == now).map(|&(_, fault)| fault);
        let broken = self.broken_from.filter(|&(from, _)| now > from).map(|(_, fault)| fault);
        let fault = set.or(broken);
        match fault {
            None => Ok(()),
            Some(Fault::Crash) => {
                self.has_crashed = true;
                Err(dead())
            }
            Some(Fault::Io) => Err(io::Error::other("input/output error")),
            Some(Fault::Full) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.has_crashed { Err(dead()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.seen.len() as u64).sum()
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
        let (seen, durable, pending) = (&self.names, &self.durable_names, &self.pending_names);
        let is_added = |file: u64| {
            pending.iter().any(|change| matches!(change, NameChange::Add(_, added) if *added == file))
        };
        let is_named = |file: u64| seen.values().chain(durable.values()).any(|&named| named == file);
        let gone: Vec<u64> =
            self.files.keys().copied().filter(|&file| !is_named(file) && !is_added(file)).collect();
        // A file without any name takes no room.
        for file in gone {
            self.files.insert(file, Bytes::default());
        }
    }

    fn file_of(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, file) => drop(names.insert(name, file)),
            Self::Remove(name) => drop(names.remove(&name)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

impl Bytes {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.seen, |_| true);
        self.pending.push(write);
    }

    fn sync(&mut self) {
        for write in self.pending.drain(..) {
            write.apply(&mut self.durable, |_| true);
        }
    }

    fn lose_power(&mut self, random: &mut SplitMix) {
        for write in std::mem::take(&mut self.pending) {
            write.apply(&mut self.durable, |_block| random.below(2) == 0);
        }
        self.seen = self.durable.clone();
    }
}

impl Write {
    /// Carries out what `keep` says of each block.
    fn apply(&self, bytes: &mut Vec<u8>, mut keep: impl FnMut(usize) -> bool) {
        match self {
            Self::Length(length) => {
                if keep(0) {
                    bytes.resize(*length, 0);
                }
            }
            Self::Bytes { offset, bytes: written } => {
                let end = offset + written.len();
                let mut at = *offset;
                while at < end {
                    let next = (at / BLOCK + 1) * BLOCK;
                    let next = next.min(end);
                    if keep(at / BLOCK) {
                        if bytes.len() < next {
                            bytes.resize(next, 0);
                        }
                        bytes[at..next].copy_from_slice(&written[at - offset..next - offset]);
                    }
                    at = next;
                }
            }
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("the power has failed")
}

impl Storage for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.step()?;
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Bytes::default());
        state.change(NameChange::Add(name.to_owned(), file));
        let life = state.life;
        Ok(Box::new(MemoryFile { memory: self.clone(), file, life }))
    }

    fn open(&self, name: &str, _for_writing: bool) -> io::Result<Box<dyn File>> {
        let state = self.state();
        state.alive()?;
        Ok(Box::new(MemoryFile { memory: self.clone(), file: state.file_of(name)?, life: state.life }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file_of(from)?;
        state.step()?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file_of(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.step()?;
        state.change(NameChange::Add(to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file_of(name)?;
        state.step()?;
        state.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        state.alive()?;
        Ok(Space {
            total: state.capacity,
            free: state.capacity.saturating_sub(state.used()),
            files: u64::MAX,
        })
    }

    fn lock(&self) -> io::Result<Box<dyn Ownership>> {
        let mut state = self.state();
        state.alive()?;
        if std::mem::replace(&mut state.is_locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock { memory: self.clone(), life: state.life }))
    }
}

#[derive(Debug)]
struct MemoryLock {
    memory: Memory,
    life: u64,
}

impl Ownership for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        if state.life == self.life {
            state.is_locked = false;
        }
    }
}

#[derive(Debug)]
struct MemoryFile {
    memory: Memory,
    file: u64,
    life: u64,
}

impl MemoryFile {
    /// The file, unless the process that has opened it is no more.
    fn with<T>(&self, then: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.memory.state();
        if state.life != self.life {
            return Err(dead());
        }
        then(&mut state, self.file)
    }

    fn bytes(state: &mut State, file: u64) -> &mut Bytes {
        state.files.entry(file).or_default()
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|state, file| {
            state.alive()?;
            Ok(Self::bytes(state, file).seen.len() as u64)
        })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, file| {
            state.alive()?;
            let bytes = &Self::bytes(state, file).seen;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            // Never all at once, so that nobody relies on it.
            let read = rest.len().min(buffer.len()).min(100_003);
            buffer[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        })
    }

    fn write_at(&mut self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.with(|state, file| {
            let whole = parts.concat();
            let outcome = state.step();
            let grows =
                (offset as usize + whole.len()).saturating_sub(Self::bytes(state, file).seen.len()) as u64;
            let has_room = state.used() + grows <= state.capacity;
            // What fails, also by a crash, may have done a part of its work.
            let written = match &outcome {
                Ok(()) if has_room => whole.len(),
                Ok(()) | Err(_) => whole.len() / 2,
            };
            let bytes = whole[..written].to_vec();
            Self::bytes(state, file).write(Write::Bytes { offset: offset as usize, bytes });
            outcome?;
            if has_room { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        })
    }

    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.step()?;
            let length = Self::bytes(state, file).seen.len();
            if state.used() + (bytes as usize).saturating_sub(length) as u64 > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if length < bytes as usize {
                Self::bytes(state, file).write(Write::Length(bytes as usize));
            }
            Ok(())
        })
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.with(|state, file| {
            state.step()?;
            Self::bytes(state, file).write(Write::Length(bytes as usize));
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state, file| {
            let refused =
                if state.refuses_syncs { Err(io::Error::other("input/output error")) } else { Ok(()) };
            let outcome = state.step().and(refused);
            let has_crashed = state.has_crashed;
            let bytes = Self::bytes(state, file);
            match outcome {
                Ok(()) => bytes.sync(),
                // The power failed before anything was decided.
                Err(_) if has_crashed => {}
                // The pages count as clean now, and are not on the disk.
                Err(_) => bytes.pending.clear(),
            }
            outcome
        })
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.with(|state, file| {
            state.alive()?;
            let bytes = &Self::bytes(state, file).seen;
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            Ok(rest.iter().position(|&byte| byte != 0).map(|at| offset + at as u64))
        })
    }

    fn is_linked(&self) -> io::Result<bool> {
        self.with(|state, file| {
            state.alive()?;
            Ok(state.names.values().any(|&named| named == file))
        })
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::spool::storage::read_full;

    fn content(memory: &Memory, name: &str) -> Option<Vec<u8>> {
        memory.snapshot().remove(name)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_survives_in_parts() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let memory = Memory::new();
            let mut file = memory.create("a").unwrap();
            file.write_at(&[&[1; 600]], 0).unwrap();
            file.sync().unwrap();
            memory.sync().unwrap();
            file.write_at(&[&[2; 900]], 300).unwrap();
            memory.restart(seed);
            let bytes = content(&memory, "a").unwrap();
            assert_eq!(bytes[..300], [1; 300]);
            assert!(file.write_at(&[b"x"], 0).is_err(), "its process is gone");
            seen.insert(bytes);
        }
        // Blocks 0 (from 300), 1 and 2, each kept or not, and the length follows the last one kept: all eight.
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn names_survive_in_the_order_of_their_changes() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let memory = Memory::new();
            memory.create("a").unwrap();
            memory.create("b").unwrap();
            memory.remove("a").unwrap();
            memory.restart(seed);
            seen.insert(memory.names().unwrap().concat());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "a", "ab", "b"]);
    }

    #[test]
    fn a_sync_that_failed_is_not_made_good_by_the_next_one() {
        let memory = Memory::new();
        let mut file = memory.create("a").unwrap();
        memory.sync().unwrap();
        file.write_at(&[b"gone"], 0).unwrap();
        memory.fail_after(1, Fault::Io);
        assert!(file.sync().is_err());
        let mut bytes = [0; 4];
        assert_eq!((read_full(&*file, &mut bytes, 0).unwrap(), &bytes), (4, b"gone"));
        file.sync().unwrap();
        memory.restart(0);
        assert_eq!(content(&memory, "a").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_says_so() {
        let memory = Memory::new();
        memory.set_capacity(100);
        let mut file = memory.create("a").unwrap();
        assert!(super::super::is_full(&file.write_at(&[&[1; 101]], 0).unwrap_err()));
        assert!(super::super::is_full(&file.allocate(101).unwrap_err()));
        file.allocate(100).unwrap();
        assert_eq!(memory.space().unwrap().free, 0);
    }
}
