//! The ring beside what one would use instead: a slot queue of vectors, and tokio's channel.
//!
//! | contender | an event costs its producer |
//! | --- | --- |
//! | `jetring` | a copy into the ring |
//! | `array_queue_of_vec` | a `Vec`, filled by a copy, in a `crossbeam_queue::ArrayQueue` |
//! | `mpsc_of_bytes`, `mpsc_of_vec` | a `Bytes` or a `Vec`, filled by a copy, through `try_send` of a bounded `tokio::sync::mpsc` |
//!
//! The allocation belongs to the others' price: an event that leaves its thread must live somewhere, and a ring of bytes is
//! where. All have room for the same number of bytes. Each contender is checked before it is measured: what comes out is what
//! went in. With two cores or fewer, the groups with more threads than cores measure the scheduler as much as the queues.

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement,
};
use crossbeam_queue::ArrayQueue;
use jetring::__internals::{Consumer, Doorbell, Ring};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

criterion_group!(benches, push, drain, deliver, refuse);
criterion_main!(benches);

const CAPACITY_BYTES: usize = 4 << 20;
const RECORD_BYTES_MAX: usize = 4096;
const SIZES: [usize; 3] = [128, 512, RECORD_BYTES_MAX];
/// Pushes between two drains: the largest records still fill only half of the room.
const BATCH: usize = CAPACITY_BYTES / RECORD_BYTES_MAX / 2;

/// One thread pushes, and nobody else is there. Drains lie outside of the measurement.
fn push(criterion: &mut Criterion) {
    for size in SIZES {
        let mut group = group(criterion, &format!("push_{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        push_with::<RingQueue>(&mut group, size);
        push_with::<SlotQueue>(&mut group, size);
        push_with::<Channel<Bytes>>(&mut group, size);
        push_with::<Channel<Vec<u8>>>(&mut group, size);
    }
}

fn push_with<Q: Queue>(group: &mut Group<'_>, size: usize) {
    let event = vec![7; size];
    bench::<Q>(group, size, |sender, queue, iterations| {
        timed_in_batches(iterations, |batch| {
            let began = Instant::now();
            for _ in 0..batch {
                black_box(Q::try_push(sender, black_box(&event)));
            }
            let elapsed = began.elapsed();
            assert_eq!(queue.drain(batch, |_| ()), batch);
            elapsed
        })
    });
}

/// The consumer takes 64 events that are there, and looks at their first bytes. Pushes lie outside of the measurement.
fn drain(criterion: &mut Criterion) {
    let mut group = group(criterion, "drain_64_of_512");
    group.throughput(Throughput::Elements(64));
    drain_with::<RingQueue>(&mut group);
    drain_with::<SlotQueue>(&mut group);
    drain_with::<Channel<Bytes>>(&mut group);
    drain_with::<Channel<Vec<u8>>>(&mut group);
}

fn drain_with<Q: Queue>(group: &mut Group<'_>) {
    let event = [7; 512];
    bench::<Q>(group, event.len(), |sender, queue, iterations| {
        let mut elapsed = Duration::ZERO;
        for _ in 0..iterations {
            assert!((0..64).all(|_| Q::try_push(sender, &event)));
            let began = Instant::now();
            let drained = queue.drain(64, |bytes| {
                black_box(bytes[0]);
            });
            elapsed += began.elapsed();
            assert_eq!(drained, 64);
        }
        elapsed
    });
}

/// Producers push as fast as they can, and wait when there is no room; a consumer drains until all events have come.
fn deliver(criterion: &mut Criterion) {
    for producers in [1, 2, 4] {
        let mut group = group(criterion, &format!("deliver_512_from_{producers}"));
        group.throughput(Throughput::Elements(1));
        deliver_with::<RingQueue>(&mut group, producers);
        deliver_with::<SlotQueue>(&mut group, producers);
        deliver_with::<Channel<Bytes>>(&mut group, producers);
    }
}

fn deliver_with<Q: Queue>(group: &mut Group<'_>, producers: u64) {
    bench::<Q>(group, 512, |sender, queue, iterations| delivered::<Q>(sender, queue, producers, iterations));
}

/// The time from the start of all producers to the last event; panics unless exactly the events that were sent have come.
fn delivered<Q: Queue>(sender: &Q::Sender, queue: &mut Q, producers: u64, events: u64) -> Duration {
    let start = Barrier::new(producers as usize + 1);
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let (sender, start) = (sender.clone(), &start);
            scope.spawn(move || {
                let mut event = [0; 512];
                start.wait();
                for number in (producer..events).step_by(producers as usize) {
                    event[..8].copy_from_slice(&number.to_le_bytes());
                    while !Q::try_push(&sender, &event) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        start.wait();
        let began = Instant::now();
        let (mut count, mut sum) = (0, 0u64);
        while count < events {
            let drained = queue.drain(64, |bytes| sum = sum.wrapping_add(first_word(bytes)));
            count += drained as u64;
            if drained == 0 {
                std::thread::yield_now();
            }
        }
        let elapsed = began.elapsed();
        assert_eq!((count, sum), (events, (0..events).fold(0, u64::wrapping_add)));
        elapsed
    })
}

/// A queue without room says no. The others must make the event before they can be told; their own look at the fill level
/// would be a race as soon as there are two producers.
fn refuse(criterion: &mut Criterion) {
    let mut group = group(criterion, "refuse_512");
    refuse_with::<RingQueue>(&mut group);
    refuse_with::<SlotQueue>(&mut group);
    refuse_with::<Channel<Bytes>>(&mut group);
    refuse_with::<Channel<Vec<u8>>>(&mut group);
}

fn refuse_with<Q: Queue>(group: &mut Group<'_>) {
    let event = [7; 512];
    bench::<Q>(group, event.len(), |sender, queue, iterations| {
        while Q::try_push(sender, &event) {}
        let began = Instant::now();
        for _ in 0..iterations {
            assert!(!Q::try_push(sender, black_box(&event)));
        }
        let elapsed = began.elapsed();
        assert!(queue.drain(usize::MAX, |_| ()) >= CAPACITY_BYTES / 512);
        elapsed
    });
}

type Group<'a> = BenchmarkGroup<'a, measurement::WallTime>;

/// Short runs: these numbers are read side by side, and not held against a limit.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

/// Checks a contender, and then measures it.
fn bench<Q: Queue>(
    group: &mut Group<'_>,
    size: usize,
    mut run: impl FnMut(&Q::Sender, &mut Q, u64) -> Duration,
) {
    let (sender, mut queue) = Q::new(CAPACITY_BYTES / size);
    assert_gives_what_it_took::<Q>(&sender, &mut queue, size);
    group.bench_function(BenchmarkId::from_parameter(Q::NAME), |bencher| {
        bencher.iter_custom(|iterations| run(&sender, &mut queue, iterations));
    });
}

/// Some laps of events of all lengths up to `size`, each one different.
fn assert_gives_what_it_took<Q: Queue>(sender: &Q::Sender, queue: &mut Q, size: usize) {
    for lap in 0..3 * CAPACITY_BYTES / size / 64 {
        let events: Vec<Vec<u8>> = (0..64)
            .map(|number| (0..size - number % size).map(|at| (at + number * 31 + lap) as u8).collect())
            .collect();
        for event in &events {
            assert!(Q::try_push(sender, event), "{} has no room", Q::NAME);
        }
        let mut drained = Vec::new();
        assert_eq!(queue.drain(65, |bytes| drained.push(bytes.to_vec())), 64, "{}", Q::NAME);
        assert!(drained == events, "{} gives something else than it took", Q::NAME);
    }
}

fn timed_in_batches(iterations: u64, mut run: impl FnMut(usize) -> Duration) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let batch = left.min(BATCH as u64);
        elapsed += run(batch as usize);
        left -= batch;
    }
    elapsed
}

fn first_word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().copied().map_or(0, u64::from_le_bytes)
}

/// What all contenders can do; the value itself is the consumer's end.
trait Queue: Sized {
    const NAME: &str;
    type Sender: Clone + Send;

    fn new(events: usize) -> (Self::Sender, Self);
    /// Copies an event in, unless there is no room.
    fn try_push(sender: &Self::Sender, event: &[u8]) -> bool;
    /// Hands out up to `events_max` events that are there, and says how many.
    fn drain(&mut self, events_max: usize, each: impl FnMut(&[u8])) -> usize;
}

struct RingQueue(Consumer);

impl Queue for RingQueue {
    const NAME: &str = "jetring";
    type Sender = Arc<Ring>;

    fn new(_events: usize) -> (Arc<Ring>, Self) {
        let (ring, consumer) = Ring::new(CAPACITY_BYTES, RECORD_BYTES_MAX, Arc::new(Doorbell::new(|| {})));
        (ring, Self(consumer))
    }

    #[inline]
    fn try_push(ring: &Arc<Ring>, event: &[u8]) -> bool {
        ring.push(&[event]).is_ok()
    }

    #[inline]
    fn drain(&mut self, events_max: usize, each: impl FnMut(&[u8])) -> usize {
        self.0.drain(events_max, each).records
    }
}

struct SlotQueue(Arc<ArrayQueue<Vec<u8>>>);

impl Queue for SlotQueue {
    const NAME: &str = "array_queue_of_vec";
    type Sender = Arc<ArrayQueue<Vec<u8>>>;

    fn new(events: usize) -> (Self::Sender, Self) {
        let queue = Arc::new(ArrayQueue::new(events));
        (Arc::clone(&queue), Self(queue))
    }

    #[inline]
    fn try_push(queue: &Self::Sender, event: &[u8]) -> bool {
        queue.push(event.to_vec()).is_ok()
    }

    #[inline]
    fn drain(&mut self, events_max: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < events_max
            && let Some(event) = self.0.pop()
        {
            each(&event);
            drained += 1;
        }
        drained
    }
}

struct Channel<T>(mpsc::Receiver<T>);

/// What goes through a channel.
trait Event: AsRef<[u8]> + Send + 'static {
    const CHANNEL_NAME: &str;
    fn copy_of(event: &[u8]) -> Self;
}

impl Event for Bytes {
    const CHANNEL_NAME: &str = "mpsc_of_bytes";

    #[inline]
    fn copy_of(event: &[u8]) -> Self {
        Self::copy_from_slice(event)
    }
}

impl Event for Vec<u8> {
    const CHANNEL_NAME: &str = "mpsc_of_vec";

    #[inline]
    fn copy_of(event: &[u8]) -> Self {
        event.to_vec()
    }
}

impl<T: Event> Queue for Channel<T> {
    const NAME: &str = T::CHANNEL_NAME;
    type Sender = mpsc::Sender<T>;

    fn new(events: usize) -> (Self::Sender, Self) {
        let (sender, receiver) = mpsc::channel(events);
        (sender, Self(receiver))
    }

    #[inline]
    fn try_push(sender: &Self::Sender, event: &[u8]) -> bool {
        sender.try_send(T::copy_of(event)).is_ok()
    }

    #[inline]
    fn drain(&mut self, events_max: usize, mut each: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < events_max
            && let Ok(event) = self.0.try_recv()
        {
            each(event.as_ref());
            drained += 1;
        }
        drained
    }
}
