//! What stands between the handles and the workers: their threads, and what is asked of them.
//!
//! What a handle asks is asked of all workers at once, and answered when the last of them has answered, or has ended.

use super::{Partition, Shared};
use crate::config::Endpoint;
use crate::entropy;
use crate::foreign::contained;
use crate::frame::Compressor;
use crate::ledger::Report;
use crate::nats::sink::NatsSink;
use crate::overflow::{Overflow, Renaming};
use crate::publisher::packer;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::worker::{Spooling, Worker};
use crate::ring::Consumer;
use crate::sink::Sink;
use crate::sink::file::FileSink;
use crate::sink::null::NullSink;
use crate::spool::tended::{Place, Tended};
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use crate::thread::{self, Thread};
use crate::timer;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long after its deadline a close may return: the time in which events that were not delivered get their account, in the spool or as
/// dropped.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Where the answer to a command goes.
pub(super) enum Answer {
    /// To a thread that waits for it, for as long as the command may take.
    Thread(std_mpsc::SyncSender<Report>),
    /// To a future, which may have been dropped.
    Task(oneshot::Sender<Report>),
    Nobody,
}

impl Answer {
    fn give(self, report: Report) {
        match self {
            Self::Thread(asker) => drop(asker.try_send(report)),
            Self::Task(asker) => drop(asker.send(report)),
            Self::Nobody => {}
        }
    }

    fn is_awaited(&self) -> bool {
        match self {
            Self::Thread(_) => true,
            Self::Task(asker) => !asker.is_closed(),
            Self::Nobody => false,
        }
    }
}

/// What handles ask of a worker.
pub(crate) enum Command {
    Flush { deadline: Instant, done: Done },
    Close { deadline: Instant, done: Done },
}

/// What a worker is given: its partition, and what it alone has of it.
pub(crate) struct Post {
    pub(crate) shared: Arc<Shared>,
    pub(crate) partition: Arc<Partition>,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) producers: ProducerNames,
}

/// Starts a worker's thread with a runtime of its own.
pub(super) fn spawn_worker(post: Post, spool: SpoolOf) -> std::io::Result<()> {
    let overflow = start_overflow(&post, spool)?;
    spawn(post, move |Office { runtime, post, compressor }| {
        let config = Arc::clone(&post.shared.config);
        match &config.url {
            Endpoint::Nats(servers) => {
                let stream = post.partition.stream.name.clone();
                let producers = post.producers.clone();
                let sink = || NatsSink::new(Arc::clone(&config), stream.clone(), servers, producers.clone());
                let former = post.partition.leftover.as_ref().map(|leftover| {
                    let stream = leftover.stream.clone();
                    NatsSink::new(Arc::clone(&config), stream, servers, producers.clone())
                });
                let spooling = overflow
                    .map(|overflow| Spooling::new(Instant::now(), overflow, sink()).with_former(former));
                work_with(sink, &runtime, post, compressor, spooling);
            }
            Endpoint::File(path) => {
                let meter = Arc::clone(&post.shared.metrics.spools[post.partition.index]);
                let sink = || FileSink::new(path.clone(), &config, Arc::clone(&meter));
                work_with(sink, &runtime, post, compressor, None);
            }
            Endpoint::Null => work_with(NullSink::default, &runtime, post, compressor, None),
        }
    })
}

/// As [`spawn_worker`], for a bus whose messages stay in the process, whatever its `url` says.
#[cfg(feature = "testing")]
pub(super) fn spawn_capturing_worker(post: Post, store: Arc<crate::testing::Store>) -> std::io::Result<()> {
    spawn(post, move |Office { runtime, post, compressor }| {
        let subjects = post.partition.stream.subjects.clone();
        let sink = || crate::testing::CaptureSink::new(Arc::clone(&store), subjects.clone());
        work_with(sink, &runtime, post, compressor, None);
    })
}

/// What a worker needs on its thread.
struct Office {
    runtime: tokio::runtime::Runtime,
    post: Post,
    compressor: Option<Compressor>,
}

/// Starts the thread of a worker. What may fail is done before.
fn spawn(post: Post, work: impl FnOnce(Office) + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compressor = packer::compressor(&post.shared.config.delivery)?;
    let name = format!("jetring-{}", post.partition.index);
    let shared = Arc::clone(&post.shared);
    let work = move || {
        thread::with(Thread::serve);
        // The worker contains its panics itself. One that comes before or after it, from a span of the log or the end of the runtime, must
        // not leave rings open that nobody drains, nor a payload whose `Drop` ends the process.
        if contained(|| work(Office { runtime, post, compressor })).is_none() {
            shared.close_rings();
        }
    };
    std::thread::Builder::new().name(name).spawn(work)?;
    Ok(())
}

/// The spool of a partition.
pub(super) enum SpoolOf {
    /// As it is configured.
    Configured,
    /// The same, and it is open already.
    Open(Box<Tended>),
    None,
}

/// Starts the spool of a partition, if there is one.
fn start_overflow(post: &Post, spool: SpoolOf) -> std::io::Result<Option<Overflow>> {
    let Post { shared, partition, producers, .. } = post;
    let Some(path) = partition.spool_dir(&shared.config) else { return Ok(None) };
    let opened = match spool {
        SpoolOf::Configured => None,
        SpoolOf::Open(tended) => Some(*tended),
        SpoolOf::None => return Ok(None),
    };
    let meter = Arc::clone(&shared.metrics.spools[partition.index]);
    let place = Place::new(path, &shared.config.spool, meter);
    let former = partition.leftover.as_ref().map(|leftover| leftover.subjects.clone());
    let renaming = former.map(|from| Renaming { from, to: partition.stream.subjects.clone() });
    Overflow::start(place, producers.clone(), renaming, opened).map(Some)
}

/// `sink` makes one, and another one if that had to be given up.
fn work_with<S: Sink>(
    sink: impl Fn() -> S,
    runtime: &tokio::runtime::Runtime,
    post: Post,
    compressor: Option<Compressor>,
    spooling: Option<Spooling<S>>,
) {
    // Of several workers the log has to say which.
    let is_one_of_several = post.shared.partitions.len() > 1;
    let stream = post.partition.stream.name.clone();
    let span = || tracing::error_span!("partition", %stream).entered();
    let _entered = is_one_of_several.then(|| contained(span)).flatten();
    Worker::new(post, sink(), compressor, spooling, entropy::number()).work(runtime, &sink);
}

/// Closes the bus when the last handle to it is gone.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    /// To each worker.
    commands: Box<[mpsc::UnboundedSender<Command>]>,
}

/// The workers end a little before the caller's deadline, so that the report comes in time.
fn worker_deadline(deadline: Duration) -> Instant {
    let early = deadline.mul_f64(0.95).max(deadline.saturating_sub(Duration::from_millis(20)));
    let now = timer::now();
    // A deadline beyond what the clock can express is as good as a day.
    now.checked_add(early).unwrap_or(now + Duration::from_secs(86_400))
}

impl Handle {
    /// A handle, and a post for the worker of each partition, with its consumers.
    pub(super) fn new(
        shared: Arc<Shared>,
        consumers: Vec<Vec<Consumer>>,
        producers: &ProducerNames,
    ) -> (Self, Vec<Post>) {
        let partitions = shared.partitions.len();
        let (commands, received): (Vec<_>, Vec<_>) =
            (0..partitions).map(|_| mpsc::unbounded_channel()).unzip();
        let post = |((partition, consumers), commands): ((&Arc<Partition>, _), _)| Post {
            shared: Arc::clone(&shared),
            partition: Arc::clone(partition),
            consumers,
            commands,
            producers: producers.of_partition(partition.index, shared.config.partitions),
        };
        // What was left by others comes through no ring.
        let consumers = consumers.into_iter().chain(std::iter::repeat_with(Vec::new));
        let posts = shared.partitions.iter().zip(consumers).zip(received).map(post).collect();
        (Self { shared, commands: commands.into() }, posts)
    }

    pub(super) fn flush(&self, deadline: Duration, answer: Answer) {
        let deadline = worker_deadline(deadline);
        self.command(answer, |done| Command::Flush { deadline, done });
    }

    pub(super) fn close(&self, deadline: Duration, answer: Answer) {
        self.shared.close_rings();
        let deadline = worker_deadline(deadline);
        self.command(answer, |done| Command::Close { deadline, done });
    }

    /// Hands the command to the workers. One that has ended drops it, which answers as well.
    fn command(&self, answer: Answer, command: impl Fn(Done) -> Command) {
        if self.shared.is_inert() {
            self.shared.say_inert();
            return answer.give(self.shared.report_now());
        }
        let answers = Arc::new(Answers {
            shared: Arc::clone(&self.shared),
            complete: AtomicU64::new(0),
            answer: Some(answer),
        });
        for (commands, partition) in self.commands.iter().zip(&self.shared.partitions) {
            let _ = commands.send(command(Done::new(&answers, partition)));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.shared.is_inert() {
            // Nobody is at the other end, and telling them would wake the runtime of the parent's worker.
            return std::mem::forget(std::mem::take(&mut self.commands));
        }
        self.close(self.shared.config.shutdown.timeout, Answer::Nobody);
    }
}

/// What a worker answers by. If it ends before it does, its balance answers.
pub(crate) struct Done {
    answers: Arc<Answers>,
    partition: Arc<Partition>,
    complete: Option<bool>,
}

impl Done {
    fn new(answers: &Arc<Answers>, partition: &Arc<Partition>) -> Self {
        Self { answers: Arc::clone(answers), partition: Arc::clone(partition), complete: None }
    }

    /// Whether anybody still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.answers.answer.as_ref().is_some_and(Answer::is_awaited)
    }

    /// Says whether everything that was asked for has met its fate.
    pub(crate) fn answer(mut self, complete: bool) {
        self.complete = Some(complete);
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        let Self { answers, partition, complete } = self;
        let complete = complete.unwrap_or_else(|| answers.shared.stats_of(partition).held() == 0);
        // Relaxed: who drops the last reference to the answers sees what was done through all others.
        answers.complete.fetch_add(u64::from(complete), Ordering::Relaxed);
    }
}

/// Gathers the answers of all workers. The caller has its own when the last of them is given, which is when this is dropped.
struct Answers {
    shared: Arc<Shared>,
    /// How many workers have said that everything has met its fate.
    complete: AtomicU64,
    /// There until it is given.
    answer: Option<Answer>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let complete = self.complete.load(Ordering::Relaxed) == self.shared.partitions.len() as u64;
        let report = Report { stats: self.shared.stats(), complete };
        // It wakes who waits, and the waker of a task is user code; there may be a panic on its way here already.
        contained(|| answer.give(report));
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::bus::Bus;
    use crate::config::Config;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Asks three workers that answer so, in this order; one that ends without an answer has none. Returns what the caller hears.
    fn asked(bus: &Bus, answers: [Option<bool>; 3]) -> bool {
        let (tell, heard) = std_mpsc::sync_channel(1);
        let gathered = Arc::new(Answers {
            shared: Arc::clone(&bus.shared),
            complete: AtomicU64::new(0),
            answer: Some(Answer::Thread(tell)),
        });
        let asked = [0, 1, 2].map(|index| Done::new(&gathered, &bus.shared.partitions[index]));
        drop(gathered);
        for (done, answer) in asked.into_iter().zip(answers) {
            assert!(heard.try_recv().is_err(), "not before the last one");
            match answer {
                Some(complete) => done.answer(complete),
                None => drop(done),
            }
        }
        heard.try_recv().unwrap().complete
    }

    fn bus(url: &str) -> Bus {
        let mut config = Config::new(url, "main", 1).unwrap();
        config.partitions = 3;
        Bus::start(config).unwrap()
    }

    #[test]
    fn the_last_worker_answers_for_all() {
        let bus = bus("null:");
        assert!(asked(&bus, [Some(true), Some(true), Some(true)]));
        assert!(!asked(&bus, [Some(true), Some(false), Some(true)]));
    }

    #[test]
    fn a_worker_that_ends_without_an_answer_answers_by_what_it_holds() {
        let empty = bus("null:");
        assert!(asked(&empty, [Some(true), None, None]));
        let holding = bus("nats://127.0.0.1:1");
        for key in 0..100 {
            assert!(holding.publish_keyed("a", [key], &0).is_accepted());
        }
        assert!(asked(&holding, [Some(true), Some(true), Some(true)]));
        for index in 0..3 {
            let mut answers = [Some(true); 3];
            answers[index] = None;
            assert!(!asked(&holding, answers), "partition {index} holds events");
        }
    }

    /// Only a hang takes so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Each holds its partition.
    #[test]
    fn flushes_and_closes_whose_futures_were_dropped_are_forgotten_before_their_deadline() {
        let bus = bus("nats://127.0.0.1:1");
        for key in 0..100 {
            assert!(bus.publish_keyed("a", [key], &0).is_accepted());
        }
        let held = || -> usize { bus.shared.partitions.iter().map(Arc::strong_count).sum() };
        let before = held();
        let mut context = Context::from_waker(Waker::noop());
        let hour = Duration::from_secs(3600);
        for _ in 0..200 {
            assert!(pin!(bus.flush_async(hour)).poll(&mut context).is_pending());
        }
        let wait_until_forgotten = |but: usize| {
            let start = Instant::now();
            while held() > before + but {
                assert!(start.elapsed() < PATIENCE, "{} are still there", held() - before);
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        // A flush that somebody waits for stays, one with each worker. It also has the workers look.
        let mut awaited = Box::pin(bus.flush_async(hour));
        assert!(awaited.as_mut().poll(&mut context).is_pending());
        wait_until_forgotten(3);
        assert_eq!(held(), before + 3);
        for _ in 0..200 {
            assert!(pin!(bus.close_async(hour)).poll(&mut context).is_pending());
        }
        drop(awaited);
        assert!(pin!(bus.close_async(hour)).poll(&mut context).is_pending());
        wait_until_forgotten(0);
    }

    /// The thread would wait for itself: it is the one that delivers.
    #[test]
    fn a_thread_that_serves_a_bus_has_its_answer_at_once() {
        let bus = bus("nats://127.0.0.1:1");
        assert!(bus.publish("a", &0).is_accepted());
        let ask = || {
            thread::with(Thread::serve);
            let mut context = Context::from_waker(Waker::noop());
            let hour = Duration::from_secs(3600);
            // None of them returns before an hour has passed, if it waits.
            let [flushed, closed] = [bus.flush(hour), bus.close(hour)];
            assert!(pin!(bus.flush_async(hour)).poll(&mut context).is_ready());
            assert!(pin!(bus.close_async(hour)).poll(&mut context).is_ready());
            [flushed, closed].map(|report| (report.complete, report.stats.held()))
        };
        let answers = std::thread::scope(|scope| scope.spawn(ask).join().unwrap());
        assert_eq!(answers, [(false, 1), (false, 1)]);
    }
}
