//! The judge: remembers everything, and says so when a promise is broken.
//!
//! It sees both sides, which nobody else does: what was offered and what the client says became of it, and what the server
//! stored. Whatever it finds wrong it says by panicking, as the core's own assertions do.
//!
//! | promise | looked at |
//! | --- | --- |
//! | each event meets one fate | whenever one does |
//! | what is acked was stored | whenever one is |
//! | what is dropped is not stored, and never will be | whenever one is, and whenever something is stored |
//! | no stream has an event twice | whenever something is stored |
//! | a producer's events are stored in their order | whenever something is stored |
//! | the law: offered = acked + dropped + indeterminate + held | after each turn of the client |
//! | what is indeterminate was sent and not answered | at the end: it is the only account that may be either way |
//! | a client that has crashed leaves no more behind than it held | when it crashes |

use super::server::Stored;
use super::wire::EventId;
use crate::publisher::pipeline::Fate;

#[derive(Debug, Default)]
pub(super) struct Judge {
    processes: Vec<Process>,
    pub(super) tally: Tally,
}

/// How many events met which fate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) offered: u64,
    pub(super) acked: u64,
    pub(super) dropped: u64,
    pub(super) indeterminate: u64,
    /// Held by clients that have crashed.
    pub(super) crashed: u64,
    pub(super) stored: u64,
}

#[derive(Debug, Default)]
struct Process {
    producers: Vec<Producer>,
}

#[derive(Debug, Default)]
struct Producer {
    /// By number, from 1.
    events: Vec<Event>,
    /// The stream that has the last of its events, and the number of that.
    last_stored: (usize, u64),
    /// The reports of the bus: in no account, and in no order.
    is_bus: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Event {
    fate: Option<Fate>,
    /// The last stream that stored it, and its sequence there; 0 for none.
    stored_in: (usize, u64),
    /// It was stored at some time.
    was_stored: bool,
    /// The server has lost it since, so nobody can tell that it was stored.
    was_lost: bool,
}

impl Judge {
    /// A client starts, with so many producers beside its reports. Returns its number.
    pub(super) fn start(&mut self, producers: usize) -> usize {
        let mut process = Process::default();
        process.producers.resize_with(producers + 1, Producer::default);
        process.producers[producers].is_bus = true;
        self.processes.push(process);
        self.processes.len() - 1
    }

    /// Gives an event its number.
    pub(super) fn offered(&mut self, process: usize, producer: usize) -> EventId {
        let of = &mut self.processes[process].producers[producer];
        of.events.push(Event::default());
        self.tally.offered += u64::from(!of.is_bus);
        EventId { process, producer, seq: of.events.len() as u64 }
    }

    pub(super) fn met(&mut self, id: EventId, fate: Fate) {
        let producer = &mut self.processes[id.process].producers[id.producer];
        let is_bus = producer.is_bus;
        let event = &mut producer.events[id.seq as usize - 1];
        assert!(event.fate.is_none(), "{id} met a second fate: {fate:?} after {:?}", event.fate);
        match fate {
            Fate::Acked { .. } => assert!(event.was_stored, "{id} is acked and was never stored"),
            Fate::Dropped(reason) => {
                let was_stored = event.was_stored && !event.was_lost;
                assert!(!was_stored, "{id} is dropped as {reason} and was stored");
            }
            Fate::Indeterminate => {}
        }
        event.fate = Some(fate);
        if is_bus {
            return;
        }
        match fate {
            Fate::Acked { .. } => self.tally.acked += 1,
            Fate::Dropped(_) => self.tally.dropped += 1,
            Fate::Indeterminate => self.tally.indeterminate += 1,
        }
    }

    pub(super) fn stored(&mut self, stored: Stored) {
        let id = stored.id;
        let producer = &mut self.processes[id.process].producers[id.producer];
        let event = &mut producer.events[id.seq as usize - 1];
        self.tally.stored += 1;
        assert!(
            event.stored_in.0 != stored.stream,
            "{id} is stored twice, as {} and as {}",
            event.stored_in.1,
            stored.sequence
        );
        if let Some(Fate::Dropped(reason)) = event.fate {
            panic!("{id} is stored after it was dropped as {reason}");
        }
        event.stored_in = (stored.stream, stored.sequence);
        (event.was_stored, event.was_lost) = (true, false);
        let (stream, last) = producer.last_stored;
        assert!(
            producer.is_bus || stream != stored.stream || last < id.seq,
            "{id} is stored behind number {last} of its producer"
        );
        producer.last_stored = (stored.stream, id.seq);
    }

    /// The server has lost what it had stored. They come newest first.
    pub(super) fn lost(&mut self, lost: Stored) {
        let id = lost.id;
        let producer = &mut self.processes[id.process].producers[id.producer];
        let event = &mut producer.events[id.seq as usize - 1];
        (event.stored_in, event.was_lost) = ((0, 0), true);
        let is_there = |event: &Event| event.stored_in.0 == lost.stream;
        let last = producer.events.iter().rposition(is_there).map_or(0, |at| at as u64 + 1);
        producer.last_stored = (lost.stream, last);
    }

    /// The law, while the client holds `held` events.
    pub(super) fn weigh(&self, held: u64) {
        let Tally { offered, acked, dropped, indeterminate, crashed, .. } = self.tally;
        let sum = acked + dropped + indeterminate + crashed + held;
        assert!(
            offered == sum,
            "the law is broken: {offered} offered, but {acked} acked + {dropped} dropped + {indeterminate} \
             indeterminate + {crashed} crashed + {held} held are {sum}"
        );
    }

    /// A client has crashed and took along what it held.
    pub(super) fn crashed(&mut self, process: usize, held: u64) {
        let rings = self.processes[process].producers.iter().filter(|producer| !producer.is_bus);
        let open = rings.flat_map(|producer| &producer.events).filter(|event| event.fate.is_none()).count();
        assert!(open as u64 == held, "{open} events are without a fate and the client held {held}");
        self.tally.crashed += held;
        self.weigh(0);
    }

    /// Whether the server acknowledged this event.
    pub(super) fn is_acked(&self, id: EventId) -> bool {
        let event = &self.processes[id.process].producers[id.producer].events[id.seq as usize - 1];
        matches!(event.fate, Some(Fate::Acked { .. }))
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "event {}.{}-{}", self.process, self.producer, self.seq)
    }
}
