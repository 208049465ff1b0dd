//! What a bus with another number of partitions has left below a spool's directory.
//!
//! ```text
//!   partitions = 1    DIR/            stream main       event.1.>
//!   partitions = 3    DIR/0 … DIR/2   streams main-0 …  event.1.0.> …
//! ```
//!
//! When the number changes, some of these directories belong to no partition any more. What waits in one of them is sent by the bus that finds it, to
//! the streams that it has now: all of a directory goes to one of them, so the order of each thread stays, and each event goes to the subject that its name
//! has there.

use super::cursor::Cursor;
use super::storage::Storage;
use super::storage::disk::Disk;
use super::survey::Survey;
use crate::config::{Config, Endpoint};
use crate::partition::{PARTITIONS_MAX, Stream};
use crate::subject::{StreamName, Subjects};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of another number of partitions in which events wait. See [`leftovers`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// The directory.
    pub directory: PathBuf,
    /// Events that wait in it. A packed frame counts as one.
    pub events: u64,
    /// The stream that they were for.
    pub stream: StreamName,
    /// The partition that sends them now.
    pub partition: usize,
    /// Their subjects.
    pub(crate) subjects: Subjects,
}

/// Looks for events that were left below `spool.dir` by a bus with another number of partitions. There are none without such a directory.
///
/// # Errors
///
/// When a directory cannot be read.
pub fn leftovers(config: &Config) -> io::Result<Vec<Leftover>> {
    let Some(dir) = config.spool.dir.as_ref().filter(|_| matches!(config.url, Endpoint::Nats(_))) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (directory, former, number) in candidates(config, dir) {
        if let Some(events @ 1..) = waiting(&directory)? {
            let Stream { name, subjects } = former;
            let partition = number % config.partitions;
            found.push(Leftover { directory, events, stream: name, partition, subjects });
        }
    }
    Ok(found)
}

/// Directories that are not those of this configuration, and what they were for.
fn candidates(config: &Config, dir: &Path) -> Vec<(PathBuf, Stream, usize)> {
    let of_partition = |number| {
        let name = config.stream.of_partition(number);
        let subjects = Subjects::of_partition(&config.subject_prefix, config.chain_id, number);
        (dir.join(number.to_string()), Stream { name, subjects }, number)
    };
    let subjects = Subjects::new(&config.subject_prefix, config.chain_id);
    let whole = (dir.to_owned(), Stream { name: config.stream.clone(), subjects }, 0);
    match config.partitions {
        1 => (0..PARTITIONS_MAX).map(of_partition).collect(),
        partitions => [whole].into_iter().chain((partitions..PARTITIONS_MAX).map(of_partition)).collect(),
    }
}

/// How many events wait in a directory; `None` if there is no log in it.
fn waiting(directory: &Path) -> io::Result<Option<u64>> {
    let storage: Arc<dyn Storage> = match Disk::open(directory) {
        Ok(disk) => Arc::new(disk),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let survey = Survey::take(&*storage)?;
    let Some(cursor) = Cursor::of(storage, &survey) else { return Ok(None) };
    let sequences = cursor.sequences()?;
    let confirmed =
        survey.sent.content.map_or(sequences.start, |sent| sent.within(sequences.clone()).confirmed);
    Ok(Some(sequences.end - confirmed))
}
