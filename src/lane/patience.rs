//! The wait of a publish for room, where `queue.when-full` is `block`.
//!
//! The event is made already, so a try is a push and nothing else: whoever has waited has its place in the same step, and nobody can take
//! it away in between. Its time is that of the call and not that of the end of the wait.
//!
//! **Nobody wakes it.** It looks again by itself, at first at once and then after pauses that grow up to [`PAUSE_MAX`]. A wake would come
//! sooner by half a pause at most, and would have to be paid by the worker, with a system call for each thread that waits, at the very
//! moment when it is the bottleneck; and the worker's own looks at the rings are a millisecond apart, too. What has gathered in a ring of a
//! usual size is work for longer than that, so the worker does not run dry meanwhile.
//!
//! **It ends.** By its limit; at once by a close, which the next push is told by the ring; and on a [thread that serves a
//! bus](Thread::serves_a_bus) it does not begin.

use crate::ring::{Refusal, Ring};
use crate::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Tries that only let others run in between: the worker may be about to give lines back.
const YIELDS: u32 = 8;

/// The pauses after that, each twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// Pushes a record that was refused a moment ago, trying again for at most `limit`.
///
/// Returns the last refusal.
pub(super) fn push(ring: &Ring, parts: &[&[u8]], refused: Refusal, limit: Duration) -> Result<(), Refusal> {
    if thread::with(Thread::serves_a_bus) {
        return Err(refused);
    }
    let (start, mut last, mut pauses) = (Instant::now(), refused, 0);
    // Who was too slow among others needs another try as much as who found no room.
    while matches!(last, Refusal::Full | Refusal::Contended) {
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        pause(pauses, left);
        pauses += 1;
        match ring.push(parts) {
            Ok(()) => return Ok(()),
            Err(refusal) => last = refusal,
        }
    }
    Err(last)
}

/// The pause after so many others, never beyond what is left.
fn pause(earlier: u32, left: Duration) {
    match earlier.checked_sub(YIELDS) {
        None => std::thread::yield_now(),
        Some(doublings) => {
            let pause = 1u32.checked_shl(doublings).map_or(PAUSE_MAX, |factor| PAUSE_MIN * factor);
            std::thread::sleep(pause.min(PAUSE_MAX).min(left));
        }
    }
}

#[cfg(all(test, not(any(jetring_loom, jetring_shuttle))))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::ring::{Consumer, Doorbell};
    use std::sync::Arc;

    const LIMIT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    /// A ring that is full.
    fn full() -> (Arc<Ring>, Consumer) {
        let (ring, consumer) = Ring::new(4 * 64, 64, Arc::new(Doorbell::new(|| {})));
        (0..4).for_each(|byte: u8| ring.push(&[&[byte; 64]]).unwrap());
        (ring, consumer)
    }

    fn wait(ring: &Ring, limit: Duration) -> (Result<(), Refusal>, Duration) {
        let start = Instant::now();
        (push(ring, &[b"late"], Refusal::Full, limit), start.elapsed())
    }

    #[test]
    fn it_waits_no_shorter_than_its_limit_and_then_says_what_was_in_its_way() {
        let (ring, _consumer) = full();
        let (pushed, took) = wait(&ring, LIMIT);
        assert_eq!(pushed, Err(Refusal::Full));
        assert!(took >= LIMIT, "{took:?}");
    }

    #[test]
    fn it_goes_on_when_there_is_room() {
        let (ring, mut consumer) = full();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| wait(&ring, LONG).0);
            assert_eq!(consumer.drain(1, |_| {}).records, 1);
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
        let mut last = Vec::new();
        assert_eq!(consumer.drain(9, |record| last = record.to_vec()).records, 4);
        assert_eq!(last, b"late");
    }

    #[test]
    fn a_close_ends_it() {
        let (ring, _consumer) = full();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| wait(&ring, LONG));
            ring.close();
            let (pushed, took) = waits.join().unwrap();
            assert_eq!(pushed, Err(Refusal::Closed));
            assert!(took < LONG);
        });
    }

    #[test]
    fn a_thread_that_serves_a_bus_does_not_wait() {
        let (ring, _consumer) = full();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                thread::with(Thread::serve);
                wait(&ring, LONG)
            });
            let (pushed, took) = serving.join().unwrap();
            assert_eq!(pushed, Err(Refusal::Full));
            assert!(took < LONG);
        });
    }

    #[test]
    fn no_pause_is_longer_than_what_is_left() {
        let start = Instant::now();
        pause(u32::MAX, Duration::from_micros(1));
        pause(YIELDS + 31, Duration::from_micros(1));
        assert!(start.elapsed() < LONG);
    }
}
