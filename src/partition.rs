//! Partitions: one bus over several streams.
//!
//! A stream has one leader and one queue of what comes in, so there is a limit to what it takes. Past it events are spread over N
//! streams, each with a worker and a connection of its own. Which stream an event goes to is computed here, in the client: a
//! fast-ingest batch must know its stream, which a mapping of subjects in the server would hide.
//!
//! ```text
//!               ┌─ rings 0, N, 2N, …     ─► worker 0 ─► stream main-0    takes event.<chain_id>.0.>
//!   publish ────┼─ rings 1, N+1, 2N+1, … ─► worker 1 ─► stream main-1    takes event.<chain_id>.1.>
//!               └─ …                                    …
//! ```
//!
//! A thread has one ring, so its events go to one stream. An event that is published with a key goes to the stream of the key,
//! through the one ring that the thread has there. Order is that of a ring: of a thread's events in a stream, hence of those without a
//! key, and of those with the same key. Between streams there is none.
//!
//! With one partition, which is the default, there is one stream, called as configured, and no token in its subjects.

use crate::config::Config;
use crate::subject::{StreamName, Subjects};

/// Most partitions of a bus: each has a thread, a connection, and its part of the queue.
pub(crate) const PARTITIONS_MAX: usize = 64;

/// A stream that a bus publishes to, and its subjects there. See [`Config::streams`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stream {
    /// The name of the stream: that of the configuration, with the number of the partition behind it if there are several.
    pub name: StreamName,
    /// The subjects of the events that go there.
    pub subjects: Subjects,
}

impl Config {
    /// The streams of a bus with this configuration, one for each partition, in their order.
    ///
    /// ```
    /// let mut config = jetring::Config::new("nats://localhost:4222", "main", 1)?;
    /// config.partitions = 3;
    /// let last = &config.streams()[2];
    /// assert_eq!((last.name.as_str(), last.subjects.all().as_str()), ("main-2", "event.1.2.>"));
    /// # Ok::<_, jetring::ConfigError>(())
    /// ```
    #[must_use]
    pub fn streams(&self) -> Vec<Stream> {
        let Self { stream, subject_prefix, chain_id, .. } = self;
        if self.partitions <= 1 {
            let subjects = Subjects::new(subject_prefix, *chain_id);
            return vec![Stream { name: stream.clone(), subjects }];
        }
        let of = |partition| Stream {
            name: stream.of_partition(partition),
            subjects: Subjects::of_partition(subject_prefix, *chain_id, partition),
        };
        (0..self.partitions.min(PARTITIONS_MAX)).map(of).collect()
    }
}

/// The partition of `key`, of so many: what the server's own mapping `{{partition(N, …)}}` computes, 32-bit FNV-1a modulo N.
///
/// # Panics
///
/// When `partitions` is zero.
///
/// # Examples
///
/// ```
/// assert_eq!(jetring::partition_of("WETH-USDC", 3), jetring::partition_of(b"WETH-USDC", 3));
/// ```
#[must_use]
pub fn partition_of(key: impl AsRef<[u8]>, partitions: usize) -> usize {
    fnv1a(key.as_ref()) as usize % partitions
}

/// FNV-1a of 32 bits (Fowler, Noll, Vo; RFC 9923), as Go's `fnv.New32a` computes it for the server.
fn fnv1a(bytes: &[u8]) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    bytes.iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Of the test vectors that its authors publish.
        for (text, hash) in [
            ("", 0x811c_9dc5),
            ("a", 0xe40c_292c),
            ("b", 0xe70c_2de5),
            ("foo", 0xa9f3_7ed7),
            ("foobar", 0xbf9c_f968),
        ] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn the_partition_is_the_servers() {
        // From the documentation of NATS, "Deterministic subject token partitioning". That a server maps so: tests/it/partitions.rs.
        for (key, partition) in [("1a", 1), ("1b", 0), ("2a", 2), ("2b", 9)] {
            assert_eq!(partition_of(key, 10), partition, "{key}");
        }
        for (key, partition) in [("customerid5", 1), ("customerid6", 0)] {
            assert_eq!(partition_of(key, 3), partition, "{key}");
        }
    }

    #[test]
    fn one_partition_is_the_stream_as_it_was_and_several_have_their_number() {
        let mut config = Config::new("null:", "main", 7).unwrap();
        let names = |config: &Config| -> Vec<(String, String)> {
            let name = |stream: Stream| (stream.name.to_string(), stream.subjects.subject("a.b"));
            config.streams().into_iter().map(name).collect()
        };
        let named = |name: &str, subject: &str| (name.to_owned(), subject.to_owned());
        assert_eq!(names(&config), [named("main", "event.7.a.b")]);
        config.partitions = 2;
        assert_eq!(names(&config), [named("main-0", "event.7.0.a.b"), named("main-1", "event.7.1.a.b")]);
    }

    #[test]
    fn keys_are_spread_over_all_partitions() {
        let mut counts = [0; 8];
        (0..8000).for_each(|i| counts[partition_of(format!("key-{i}"), 8)] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
