//! What is measured end to end: a table of groups, each of them one load given to several clients.

use super::peer::{Compression, Engine, Framing, Peer};
use crate::event::Size;
use Compression::{Lz4, Zstd};
use Engine::{Async, Fast};
use Framing::{Packed, Plain};
use std::fmt;
use std::time::Duration;

/// Repetitions of every cell.
pub(crate) const REPETITIONS: usize = 5;

/// How the stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    File,
    Memory,
}

/// One load given to one client.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) group: &'static str,
    pub(crate) peer: Peer,
    pub(crate) size: Size,
    pub(crate) threads: u64,
    pub(crate) storage: Storage,
    pub(crate) replicas: usize,
    /// Between two events; none: as fast as they get through.
    pub(crate) every: Option<Duration>,
    pub(crate) events: u64,
    pub(crate) warm_up: u64,
}

/// A load, before it is given to anybody.
struct Group {
    id: &'static str,
    size: Size,
    threads: u64,
    storage: Storage,
    replicas: usize,
    every: Option<Duration>,
    peers: Vec<Peer>,
}

const USUAL: Group = Group {
    id: "",
    size: Size::B414,
    threads: 1,
    storage: Storage::File,
    replicas: 1,
    every: None,
    peers: Vec::new(),
};

const fn ours(engine: Engine, framing: Framing) -> Peer {
    Peer::Jetring { engine, framing }
}

/// All cells. Within a repetition they are measured in this order.
pub(crate) fn cells() -> Vec<Cell> {
    // Whoever publishes on files, and our ways of doing so.
    let rivals = [Peer::Original, Peer::JetstreamExtra, Peer::C];
    let plain = [ours(Async, Plain), ours(Fast, Plain)];
    let packed = [ours(Fast, Packed(Compression::None))];
    let all: Vec<Peer> = rivals.into_iter().chain(plain).chain(packed).collect();
    let everything = [
        Peer::OriginalWithIds,
        Peer::Python,
        ours(Async, Packed(Compression::None)),
        ours(Fast, Packed(Lz4)),
        ours(Fast, Packed(Zstd)),
    ];
    let two_threads = [Peer::Original].into_iter().chain([Async, Fast].into_iter().flat_map(|engine| {
        let framings = [Plain].into_iter().chain([Compression::None, Lz4, Zstd].map(Packed));
        framings.map(move |framing| ours(engine, framing))
    }));
    let slow = [Peer::Sync, Peer::Original, Peer::C].into_iter().chain(plain).chain(packed);
    let groups = [
        // The main question: the usual event, a file, one server.
        Group { id: "file-414", peers: all.iter().copied().chain(everything).collect(), ..USUAL },
        Group { id: "file-128", size: Size::B128, peers: all.clone(), ..USUAL },
        Group { id: "file-4096", size: Size::B4096, peers: all.clone(), ..USUAL },
        // Is it the disk?
        Group { id: "memory-414", storage: Storage::Memory, peers: all.clone(), ..USUAL },
        // Does a second publishing thread help?
        Group { id: "threads-2", threads: 2, peers: two_threads.collect(), ..USUAL },
        // Three servers, on the same cores.
        Group { id: "r3-file-414", replicas: 3, peers: all.clone(), ..USUAL },
        Group {
            id: "r3-memory-414",
            replicas: 3,
            storage: Storage::Memory,
            peers: vec![Peer::Original, ours(Async, Plain), ours(Fast, Plain)],
            ..USUAL
        },
        // What does waiting for more cost somebody who publishes little?
        Group { id: "light", every: Some(Duration::from_millis(1)), peers: slow.collect(), ..USUAL },
    ];
    groups.iter().flat_map(|group| group.peers.iter().map(|&peer| group.cell(peer))).collect()
}

impl Group {
    fn cell(&self, peer: Peer) -> Cell {
        let Self { id, size, threads, storage, replicas, every, .. } = *self;
        let events = match every {
            Some(every) => (LIGHT.as_nanos() / every.as_nanos()) as u64,
            None => flood(size, replicas, peer),
        };
        let warm_up = if every.is_some() { 500 } else { events / 10 };
        Cell { group: id, peer, size, threads, storage, replicas, every, events, warm_up }
    }
}

/// How long a slow load lasts.
const LIGHT: Duration = Duration::from_secs(3);

/// Events that take one to two seconds, so that the ends of a run do not count.
fn flood(size: Size, replicas: usize, peer: Peer) -> u64 {
    let plain = match size {
        Size::B128 => 300_000,
        Size::B414 => 200_000,
        Size::B4096 | Size::K64 => 40_000,
    };
    let of_peer = match peer {
        Peer::Jetring { framing: Packed(_), .. } if size == Size::B4096 => 2 * plain,
        Peer::Jetring { framing: Packed(_), .. } => 5 * plain,
        Peer::Python => plain / 10,
        _ => plain,
    };
    of_peer / replicas as u64
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Memory => "memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_cell_is_measured_once_beside_the_original() {
        let cells = cells();
        let distinct: HashSet<_> = cells.iter().map(|cell| (cell.group, cell.peer.to_string())).collect();
        assert_eq!(distinct.len(), cells.len());
        for cell in &cells {
            assert!(cells.iter().any(|other| other.group == cell.group && other.peer == Peer::Original));
            assert_eq!((cell.events % cell.threads, cell.warm_up % cell.threads), (0, 0), "{cell:?}");
        }
    }
}
