//! A log with what its keeper does for it, whoever sends to it: it is opened with a word about what was found, synced when the policy says
//! so, measured, and closed when all of it is on the disk.

use super::cursor::Cursor;
use super::log::{Log, Options};
use super::recovery::Recovery;
use super::storage::Storage;
use super::storage::disk::Disk;
use crate::config::{Spool, SpoolSync};
use crate::foreign::contained;
use crate::metrics::SpoolMeter;
use crate::timer;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two attempts to sync what a failing disk refuses.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

/// The same trouble is logged so often.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Where a log is, and how it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) sync: SpoolSync,
    pub(crate) meter: Arc<SpoolMeter>,
}

impl Place {
    pub(crate) fn new(path: PathBuf, spool: &Spool, meter: Arc<SpoolMeter>) -> Self {
        let options = Options::new(spool.max_bytes as u64, spool.when_full, spool.sync != SpoolSync::None);
        Self { path, options, sync: spool.sync, meter }
    }

    /// Opens the log, and says what was found. [`io::ErrorKind::WouldBlock`] if it has an owner.
    pub(crate) fn open(&self) -> io::Result<Tended> {
        self.open_in(Arc::new(Disk::make(&self.path)?))
    }

    /// The same, if there is a log. [`io::ErrorKind::NotFound`] if there is none.
    pub(crate) fn open_existing(&self) -> io::Result<Tended> {
        let storage: Arc<dyn Storage> = Arc::new(Disk::open(&self.path)?);
        match Cursor::open(Arc::clone(&storage))? {
            Some(_) => self.open_in(storage),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "there is no log in this directory")),
        }
    }

    /// The same in a storage that is there.
    pub(crate) fn open_in(&self, storage: Arc<dyn Storage>) -> io::Result<Tended> {
        let opened = Log::open(Arc::clone(&storage), self.options);
        let (log, recovery) = opened.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "it is in use by another bus"),
            _ => error,
        })?;
        tell_recovery(&self.path.display(), &recovery);
        let tended = Tended {
            place: self.clone(),
            storage,
            log,
            recovery,
            synced_at: timer::now(),
            evicted_told: Hush::default(),
            failure_told: Hush::default(),
        };
        tended.measure();
        Ok(tended)
    }
}

/// A log that is kept.
#[derive(Debug)]
pub(crate) struct Tended {
    place: Place,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) log: Log,
    /// What was found when it was opened.
    pub(crate) recovery: Recovery,
    /// When a sync was last asked for.
    synced_at: Instant,
    evicted_told: Hush,
    failure_told: Hush,
}

impl Tended {
    pub(crate) fn path(&self) -> impl fmt::Display + '_ {
        self.place.path.display()
    }

    /// When the policy wants the next sync.
    pub(crate) fn next_sync(&self) -> Option<Instant> {
        match self.place.sync {
            SpoolSync::Interval(interval) if self.log.has_unsynced() => Some(self.synced_at + interval),
            _ => None,
        }
    }

    /// When a sync was last tried.
    pub(crate) fn synced_at(&self) -> Instant {
        self.synced_at
    }

    pub(crate) fn sync_if_due(&mut self) {
        if self.next_sync().is_some_and(|due| due <= timer::now()) {
            self.sync();
        }
    }

    /// Whether it worked.
    pub(crate) fn sync(&mut self) -> bool {
        let synced = self.log.sync();
        self.synced_at = timer::now();
        if let Err(error) = &synced
            && self.failure_told.may_speak()
        {
            contained(
                || tracing::warn!(path = %self.path(), %error, "what was written cannot be brought to the disk; it is tried again"),
            );
        }
        synced.is_ok()
    }

    /// Says at times what was deleted to make room.
    pub(crate) fn tell_evicted(&mut self) {
        if !self.evicted_told.is_over() {
            return;
        }
        let evicted = self.log.take_evicted();
        if !evicted.is_empty() && self.evicted_told.may_speak() {
            contained(
                || tracing::warn!(path = %self.path(), sequences = %evicted, "the log is full: its oldest messages were deleted"),
            );
        }
    }

    pub(crate) fn measure(&self) {
        let counts = self.log.counts();
        self.place.meter.set(counts.written, counts.synced, self.log.bytes());
    }

    /// Ends the log, with all of it on the disk as far as the disk lets it be.
    pub(crate) fn close(self) {
        self.measure();
        let Self { place, log, .. } = self;
        if let Err(error) = log.close() {
            contained(
                || tracing::warn!(path = %place.path.display(), %error, "the log could not be closed in good order; its next owner does it"),
            );
        }
    }
}

/// Keeps a trouble from being told too often.
#[derive(Debug, Default)]
pub(crate) struct Hush {
    told_at: Option<Instant>,
}

impl Hush {
    fn is_over(&self) -> bool {
        self.told_at.is_none_or(|at| timer::now() >= at + TELL_INTERVAL)
    }

    /// Whether it is time to say it again; then it counts as said.
    pub(crate) fn may_speak(&mut self) -> bool {
        let is_over = self.is_over();
        if is_over {
            self.told_at = Some(timer::now());
        }
        is_over
    }
}

/// Says what was found when the log was opened, if it is worth a word.
fn tell_recovery(path: &dyn fmt::Display, recovery: &Recovery) {
    if recovery.is_unclean {
        contained(|| tracing::info!(%path, "the log was not closed by its last owner"));
    }
    for damage in &recovery.damage {
        contained(|| tracing::warn!(%path, "{damage}"));
    }
    for file in &recovery.quarantined {
        contained(
            || tracing::warn!(%path, "a damaged segment was put aside as {file}; what was whole of it is kept"),
        );
    }
    if !recovery.missing.is_empty() {
        contained(|| tracing::warn!(%path, sequences = %recovery.missing, "messages are missing in the log"));
    }
}
