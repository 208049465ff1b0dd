//! A bus that sends on what lies in a directory.

use super::handle::SpoolOf;
use super::{Bus, Partition, Shared, StartError};
use crate::config::{Config, WhenFull};
use crate::ledger::Accounts;
use crate::spool::tended::Place;
use crate::sync::Ordering;
use std::io;
use std::path::Path;
use std::sync::Arc;

impl Bus {
    /// Starts a bus that takes no events and sends what lies in a directory, in order: one of `file:DIR`, or the spool of a process that is not
    /// there any more. With partitions each has a directory in it, named by its number; what lies there for another number of partitions is sent, too.
    ///
    /// What is sent is deleted from the directory when it is acknowledged, a segment at a time. A bus that is closed before all is sent leaves the
    /// rest, and the next one goes on where it was. In the [ledger](Self::stats) these events are recovered, spooled, in flight, and acked. Until
    /// it is read, a packed frame counts as one event, and so does a report of the bus that wrote the directory.
    ///
    /// # Errors
    ///
    /// When the directory holds no log, cannot be read, or belongs to a bus that is running, and as [`start`](Self::start).
    pub fn replay(config: Config, directory: &Path) -> Result<Self, StartError> {
        Self::replay_with(config, directory, false)
    }

    /// The same, but an event that the stream does not take, or that we may not publish, is dropped and counted as
    /// [`Reason::NoStream`](crate::Reason::NoStream) or [`Reason::Permission`](crate::Reason::Permission). [`replay`](Self::replay) leaves it in the
    /// directory; see [`held_back`](Self::held_back).
    ///
    /// # Errors
    ///
    /// As [`replay`](Self::replay).
    pub fn replay_and_discard(config: Config, directory: &Path) -> Result<Self, StartError> {
        Self::replay_with(config, directory, true)
    }

    fn replay_with(mut config: Config, directory: &Path, discards: bool) -> Result<Self, StartError> {
        config.queue.when_full = WhenFull::Spool;
        config.spool.dir = Some(directory.to_owned());
        let open = |shared: &Shared, partition: &Partition| {
            shared.discards_spooled.store(discards, Ordering::Relaxed);
            shared.open_spool(partition)
        };
        let bus = Self::start_with(config, open)?;
        bus.shared.close_rings();
        Ok(bus)
    }

    /// Why events stay in the spool, if some must: the stream does not take their subject, or does not let us publish to it. They are never dropped for
    /// that; configure the stream that they were written for.
    pub fn held_back(&self) -> Option<&str> {
        self.shared.partitions.iter().find_map(|partition| partition.held_back())
    }
}

impl Shared {
    /// Opens the spool of a partition. It must be there, unless one of another number of partitions is.
    fn open_spool(&self, partition: &Partition) -> Result<SpoolOf, StartError> {
        let Some(directory) = partition.spool_dir(&self.config) else { return Ok(SpoolOf::None) };
        let meter = Arc::clone(&self.metrics.spools[partition.index]);
        let has_leftovers = self.partitions.iter().any(|partition| partition.leftover.is_some());
        let opened = match Place::new(directory.clone(), &self.config.spool, meter).open_existing() {
            Ok(opened) => opened,
            Err(error) if has_leftovers && error.kind() == io::ErrorKind::NotFound => {
                return Ok(SpoolOf::None);
            }
            Err(error) => return Err(StartError::Spool { directory, error }),
        };
        // Also before the worker takes its first look, nobody must think that there is nothing.
        let recovered = opened.log.sequences().end - opened.log.sent().confirmed;
        partition.publish_accounts(&Accounts { recovered, spooled: recovered, ..Accounts::default() });
        Ok(SpoolOf::Open(Box::new(opened)))
    }
}
