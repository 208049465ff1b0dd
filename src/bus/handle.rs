//! What stands between the handles and the workers: their threads, and what is asked of them.
//!
//! What a handle asks is asked of all workers at once, and answered when the last of them has answered, or has ended.

use super::{Partition, Shared};
use crate::config::Endpoint;
use crate::frame::Compressor;
use crate::ledger::Report;
use crate::nats::sink::NatsSink;
use crate::publisher::packer;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::worker::Worker;
use crate::ring::Consumer;
use crate::sink::Sink;
use crate::sink::null::NullSink;
use crate::sync::Ordering;
use crate::sync::plain::AtomicU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a waiting caller gets.
pub(super) type Answer = Box<dyn FnOnce(Report) + Send>;

/// How a worker answers: whether everything of its partition has met its fate.
pub(crate) type Done = Box<dyn FnOnce(bool) + Send>;

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
fn spawn_worker(post: Post) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compressor = packer::compressor(&post.shared.config.delivery)?;
    let name = format!("jetring-{}", post.partition.index);
    let work = move || {
        let config = Arc::clone(&post.shared.config);
        match &config.url {
            Endpoint::Nats(servers) => {
                let stream = post.partition.stream.name.clone();
                let sink = NatsSink::new(Arc::clone(&config), stream, servers, post.producers.clone());
                work_with(sink, &runtime, post, compressor);
            }
            Endpoint::Null => work_with(NullSink::default(), &runtime, post, compressor),
        }
    };
    std::thread::Builder::new().name(name).spawn(work)?;
    Ok(())
}

fn work_with(sink: impl Sink, runtime: &tokio::runtime::Runtime, post: Post, compressor: Option<Compressor>) {
    let (shared, partition) = (Arc::clone(&post.shared), Arc::clone(&post.partition));
    // Of several workers the log has to say which.
    let is_one_of_several = shared.partitions.len() > 1;
    let span = is_one_of_several.then(|| tracing::error_span!("partition", stream = %partition.stream.name));
    let _entered = span.map(tracing::Span::entered);
    let worker = Worker::new(post, sink, compressor, rand::random());
    // AssertUnwindSafe: after a panic nothing of the worker is used any more; the ledger keeps what it last published.
    if catch_unwind(AssertUnwindSafe(|| runtime.block_on(worker.run()))).is_err() {
        tracing::error!("the worker has panicked, which is a bug of jetring; the bus is closed");
        partition.set_connected(false);
        // All rings, not only ours: a bus that takes some threads' events and loses others' would be harder to notice and to explain.
        // The other workers deliver what their rings hold.
        shared.close_rings();
    }
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
    let now = Instant::now();
    // A deadline beyond what the clock can express is as good as a day.
    now.checked_add(early).unwrap_or(now + Duration::from_secs(86_400))
}

impl Handle {
    /// Starts a worker for each partition, with its consumers.
    pub(super) fn start(
        shared: Arc<Shared>,
        consumers: Vec<Vec<Consumer>>,
        producers: &ProducerNames,
    ) -> std::io::Result<Self> {
        let partitions = shared.partitions.len();
        let (commands, received): (Vec<_>, Vec<_>) =
            (0..partitions).map(|_| mpsc::unbounded_channel()).unzip();
        // Before the threads: if one of them is not to be had, this is dropped, and closes those that are there.
        let handle = Self { shared: Arc::clone(&shared), commands: commands.into() };
        for ((partition, consumers), commands) in shared.partitions.iter().zip(consumers).zip(received) {
            spawn_worker(Post {
                shared: Arc::clone(&shared),
                partition: Arc::clone(partition),
                consumers,
                commands,
                producers: producers.of_partition(partition.index, partitions),
            })?;
        }
        Ok(handle)
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

    /// Hands the command to the workers. For one that has ended, its final balance answers.
    fn command(&self, answer: Answer, command: impl Fn(Done) -> Command) {
        let answers = Answers::new(Arc::clone(&self.shared), answer);
        for (commands, partition) in self.commands.iter().zip(&self.shared.partitions) {
            let Err(mpsc::error::SendError(command)) = commands.send(command(Answers::of_one(&answers)))
            else {
                continue;
            };
            let (Command::Flush { done, .. } | Command::Close { done, .. }) = command;
            done(self.shared.stats_of(partition).held() == 0);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close(self.shared.config.shutdown.timeout, Box::new(drop));
    }
}

/// Gathers the answers of all workers. The last of them to answer, or to drop its [`Done`] because it panics, answers the caller:
/// that is when this is dropped.
struct Answers {
    shared: Arc<Shared>,
    /// How many workers have said that everything has met its fate.
    complete: AtomicU64,
    /// There until it is given.
    answer: Mutex<Option<Answer>>,
}

impl Answers {
    fn new(shared: Arc<Shared>, answer: Answer) -> Arc<Self> {
        Arc::new(Self { shared, complete: AtomicU64::new(0), answer: Mutex::new(Some(answer)) })
    }

    /// What one worker answers by.
    fn of_one(answers: &Arc<Self>) -> Done {
        let answers = Arc::clone(answers);
        Box::new(move |complete| {
            // Relaxed: who drops the last reference sees what was done through all others.
            answers.complete.fetch_add(u64::from(complete), Ordering::Relaxed);
        })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let Some(answer) = self.answer.get_mut().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let complete = self.complete.load(Ordering::Relaxed) == self.shared.partitions.len() as u64;
        answer(Report { stats: self.shared.stats(), complete });
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::bus::Bus;
    use crate::config::Config;
    use std::sync::mpsc as std_mpsc;

    /// Asks three workers that answer so, in this order; one that ends without an answer has none. Returns what the caller hears.
    fn asked(answers: [Option<bool>; 3]) -> Report {
        let mut config = Config::new("null:", "main", 1).unwrap();
        config.partitions = 3;
        let bus = Bus::start(config).unwrap();
        let (tell, heard) = std_mpsc::channel();
        let gathered =
            Answers::new(Arc::clone(&bus.shared), Box::new(move |report| tell.send(report).unwrap()));
        let asked = answers.map(|answer| (Answers::of_one(&gathered), answer));
        drop(gathered);
        for (done, answer) in asked {
            assert!(heard.try_recv().is_err(), "not before the last one");
            match answer {
                Some(complete) => done(complete),
                None => drop(done),
            }
        }
        heard.try_recv().unwrap()
    }

    #[test]
    fn the_last_worker_answers_for_all() {
        assert!(asked([Some(true), Some(true), Some(true)]).complete);
        assert!(!asked([Some(true), Some(false), Some(true)]).complete);
    }

    #[test]
    fn a_worker_that_ends_without_an_answer_keeps_nobody_waiting() {
        assert!(!asked([Some(true), Some(true), None]).complete);
        assert!(!asked([None, None, None]).complete);
    }
}
