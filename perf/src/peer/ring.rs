//! jetring's ring by itself: copied bytes in, the bytes out, as the other queues do it.
//!
//! The ring is private to jetring; its feature `__internals` opens it to this repository and to nobody else. It is here because the
//! bus's worker does for each event what the consumers of the other queues leave undone, so that only the bare ring can be
//! compared with them. There are as many rings as a bus makes, a thread keeps to one by its number, and one consumer
//! drains all in turn. It looks every millisecond, and is woken earlier by a ring that is over half full, as the bus's worker is.

use super::queues::Queue;
use super::{CAPACITY_BYTES, Gate, LINGER};
use crate::event::Fill;
use jetring::__internals::{Consumer, Doorbell, Ring};
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

/// As a bus has by default.
const RINGS_PER_CORE: usize = 2;
const RINGS_MAX: usize = 16;

/// The bus's default for its largest event.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// Records between two moments at which room is given back; what the bus's worker takes at once.
const BATCH: usize = 256;

/// The rings of a bus, and nothing else of it.
#[derive(Debug)]
pub(crate) struct BareRing;

/// A thread's ring, and a buffer for messages that have to be made.
#[derive(Debug)]
pub(crate) struct Lane {
    ring: Arc<Ring>,
    scratch: Vec<u8>,
}

/// All rings' other ends.
#[derive(Debug)]
pub(crate) struct Drain {
    consumers: Vec<Consumer>,
    doorbell: Arc<Doorbell>,
    /// Whom the doorbell wakes, once that thread has begun.
    sleeper: Arc<OnceLock<Thread>>,
}

impl Queue for BareRing {
    type Sender = Lane;
    type Receiver = Drain;

    fn new(producers: usize, _: usize, bytes: usize) -> (Vec<Lane>, Drain) {
        let sleeper = Arc::new(OnceLock::<Thread>::new());
        let doorbell = {
            let sleeper = Arc::clone(&sleeper);
            Arc::new(Doorbell::new(move || sleeper.get().into_iter().for_each(Thread::unpark)))
        };
        let make = |_| Ring::new(CAPACITY_BYTES / rings(), RECORD_BYTES_MAX, Arc::clone(&doorbell));
        let (rings, consumers): (Vec<_>, Vec<_>) = (0..rings()).map(make).unzip();
        let lane = |producer: usize| Lane {
            ring: Arc::clone(&rings[producer % rings.len()]),
            scratch: Vec::with_capacity(2 * bytes),
        };
        ((0..producers).map(lane).collect(), Drain { consumers, doorbell, sleeper })
    }

    #[inline]
    fn try_send(lane: &mut Lane, fill: &mut impl Fill, number: u64) -> bool {
        let Lane { ring, scratch } = lane;
        fill.lend(number, scratch, |message| ring.push(&[message]).is_ok())
    }

    fn consume(receiver: Drain, senders_gone: &Gate, mut each: impl FnMut(&[u8])) {
        let Drain { mut consumers, doorbell, sleeper } = receiver;
        sleeper.get_or_init(thread::current);
        loop {
            let is_last = senders_gone.is_open();
            let mut turn =
                || -> usize { consumers.iter_mut().map(|ring| ring.drain(BATCH, &mut each).records).sum() };
            while turn() > 0 {}
            if is_last {
                return;
            }
            doorbell.doze();
            thread::park_timeout(LINGER);
            doorbell.wake_up();
        }
    }
}

fn rings() -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (cores * RINGS_PER_CORE).min(RINGS_MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::event::{Ready, Size};
    use crate::peer::queues::Queued;
    use crate::peer::{End, Peer, Producer, Setup};

    #[test]
    fn threads_beyond_the_rings_share_them_and_all_that_is_accepted_comes_out_in_order() {
        let producers = 2 * rings() + 1;
        let setup = Setup { size: Size::B414, producers, held: false, url: None };
        let mut peer = Queued::<BareRing, Ready>::start(&setup).unwrap();
        let mut hands: Vec<_> = (0..producers).map(|index| peer.producer(index)).collect();
        let offers = (0..1000).flat_map(|number| (0..producers).map(move |producer| (producer, number)));
        let accepted = offers.filter(|&(producer, number)| hands[producer].offer(number)).count() as u64;
        assert!(accepted >= 1000, "{accepted}");
        drop(hands);
        assert_eq!(peer.finish(accepted, End::Delivered).unwrap().received, accepted);
    }

    #[test]
    fn all_rings_together_have_the_capacity_of_the_other_queues() {
        let (_, drain) = BareRing::new(1, CAPACITY_BYTES / 414, 414);
        let bytes: usize = drain.consumers.iter().map(|consumer| consumer.ring().capacity_bytes()).sum();
        // A ring rounds its part down to a power of two.
        assert!(bytes <= CAPACITY_BYTES && bytes > CAPACITY_BYTES / 2, "{bytes}");
        assert!(!rings().is_power_of_two() || bytes == CAPACITY_BYTES, "{bytes}");
    }
}
