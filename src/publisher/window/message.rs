//! A message, and who numbered it.

use crate::publisher::outgoing::MessageId;
use crate::publisher::packer::Packed;
use crate::publisher::route::Route;
use crate::spool::LogId;
use crate::trace::TraceParent;
use bytes::Bytes;
use std::fmt;
use std::num::NonZeroU64;
use std::rc::Rc;

/// Who numbered a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// An event, from the ring of this index.
    Ring(usize),
    /// A report of the bus about itself; not in the ledger.
    Bus,
    /// A producer of another process, which has left the event in a spool. What its bus reported of itself is an event like any other to us.
    Past(Past),
    /// The log that holds a message of which it does not say who numbered it. Its number is its place there.
    Log(LogId),
}

/// A producer that is not ours, as `<16 hex>.<ring>` names it, or `<16 hex>.bus`, or `<16 hex>.<partition>.bus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    process: u64,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Ring(u32),
    /// Of a partition, if there are several.
    Bus(Option<u32>),
}

impl Past {
    /// Reads a name; none if it is not that of a producer. What is read prints as it was.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (process, part) = name.split_once('.')?;
        let part = match part.strip_suffix("bus") {
            Some("") => Part::Bus(None),
            Some(partition) => Part::Bus(Some(partition.strip_suffix('.')?.parse().ok()?)),
            None => Part::Ring(part.parse().ok()?),
        };
        let past = Self { process: u64::from_str_radix(process, 16).ok()?, part };
        (past.to_string() == name).then_some(past)
    }

    /// Whether both are of one process.
    pub(crate) fn is_of_the_process_of(self, other: Self) -> bool {
        self.process == other.process
    }

    /// Whether it numbers the reports of a bus.
    pub(crate) fn is_bus(self) -> bool {
        matches!(self.part, Part::Bus(_))
    }
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.", self.process)?;
        match self.part {
            Part::Ring(ring) => write!(f, "{ring}"),
            Part::Bus(None) => write!(f, "bus"),
            Part::Bus(Some(partition)) => write!(f, "{partition}.bus"),
        }
    }
}

/// A message as the worker hands it over, but for its payload. What is said of one event is of a frame's first.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) origin: Origin,
    /// The number with its producer, as in the envelope.
    pub(crate) seq: u64,
    /// Its name and its subject.
    pub(crate) route: Rc<Route>,
    /// When the event was offered, in nanoseconds since 1970, for its age.
    pub(crate) offered: u64,
    /// The events and the payload, if the message is a packed frame.
    pub(crate) packed: Option<Rc<Packed>>,
    /// The place of the event in the spool, if it is there. Each event of a frame has its own.
    pub(crate) sequence: Option<NonZeroU64>,
    /// Goes with it as a header. A frame has none.
    pub(crate) trace: Option<Rc<TraceParent>>,
}

/// Messages of one lane must be stored in the order in which they were handed over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Producer(Origin),
    /// Of packed frames, since each may hold events of many producers.
    Subject(Bytes),
}

impl Message {
    /// How many events of the ledger it is; none if it is a report.
    pub(crate) fn events(&self) -> usize {
        match (&self.packed, self.origin) {
            (Some(packed), _) => packed.events.len(),
            (None, _) => usize::from(!self.is_report()),
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        match &self.packed {
            Some(_) => Lane::Subject(self.route.subject.clone()),
            None => Lane::Producer(self.origin),
        }
    }

    /// Whether it has come out of a spool, or is in it too, so that another process may send it again.
    pub(crate) fn is_spooled(&self) -> bool {
        match &self.packed {
            Some(packed) => packed.events.iter().any(|event| event.sequence.is_some()),
            None => self.sequence.is_some(),
        }
    }

    /// What the server recognises it by.
    pub(crate) fn id(&self) -> MessageId {
        MessageId { origin: self.origin, seq: self.seq }
    }

    /// Whether it is a report of the bus about itself, which stands in no account.
    pub(crate) fn is_report(&self) -> bool {
        match self.origin {
            Origin::Bus => true,
            // Of the bus that has written the log.
            Origin::Log(_) => self.route.is_of_the_bus(),
            Origin::Ring(_) | Origin::Past(_) => false,
        }
    }
}
