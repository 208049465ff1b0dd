//! What stands between the handles and the worker: its thread, and what they ask of it.

use super::Shared;
use crate::config::Endpoint;
use crate::frame::Compressor;
use crate::ledger::Report;
use crate::nats::sink::NatsSink;
use crate::publisher::packer;
use crate::publisher::stamp::{ProducerNames, Stamper};
use crate::publisher::worker::Worker;
use crate::ring::Consumer;
use crate::sink::Sink;
use crate::sink::null::NullSink;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What a waiting caller gets.
pub(crate) type Done = Box<dyn FnOnce(Report) + Send>;

/// What handles ask of the worker.
pub(crate) enum Command {
    Flush { deadline: Instant, done: Done },
    Close { deadline: Instant, done: Done },
}

/// Starts the worker's thread with a runtime of its own.
pub(super) fn spawn_worker(
    shared: Arc<Shared>,
    consumers: Vec<Consumer>,
    commands: mpsc::UnboundedReceiver<Command>,
    producers: ProducerNames,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let compressor = packer::compressor(&shared.config.delivery)?;
    let work = move || {
        let sink_config = Arc::clone(&shared.config);
        match &sink_config.url {
            Endpoint::Nats(servers) => {
                let sink = NatsSink::new(Arc::clone(&sink_config), servers, producers.clone());
                work_with(sink, &runtime, shared, consumers, commands, producers, compressor);
            }
            Endpoint::Null => {
                let sink = NullSink::default();
                work_with(sink, &runtime, shared, consumers, commands, producers, compressor);
            }
        }
    };
    std::thread::Builder::new().name("jetring-0".to_owned()).spawn(work)?;
    Ok(())
}

fn work_with(
    sink: impl Sink,
    runtime: &tokio::runtime::Runtime,
    shared: Arc<Shared>,
    consumers: Vec<Consumer>,
    commands: mpsc::UnboundedReceiver<Command>,
    producers: ProducerNames,
    compressor: Option<Compressor>,
) {
    let stamper = Stamper::new(producers, consumers.len());
    let worker =
        Worker::new(Arc::clone(&shared), consumers, commands, sink, stamper, compressor, rand::random());
    // AssertUnwindSafe: after a panic nothing of the worker is used any more; the ledger keeps what it last published.
    if catch_unwind(AssertUnwindSafe(|| runtime.block_on(worker.run()))).is_err() {
        tracing::error!("the worker has panicked, which is a bug of jetring; the bus is closed");
        shared.metrics.set_connected(false);
        shared.close_rings();
    }
}

/// Closes the bus when the last handle to it is gone.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::UnboundedSender<Command>,
}

/// The worker ends a little before the caller's deadline, so that its report comes in time.
fn worker_deadline(deadline: Duration) -> Instant {
    let early = deadline.mul_f64(0.95).max(deadline.saturating_sub(Duration::from_millis(20)));
    let now = Instant::now();
    // A deadline beyond what the clock can express is as good as a day.
    now.checked_add(early).unwrap_or(now + Duration::from_secs(86_400))
}

impl Handle {
    pub(super) fn flush(&self, deadline: Duration, done: Done) {
        self.command(Command::Flush { deadline: worker_deadline(deadline), done });
    }

    pub(super) fn close(&self, deadline: Duration, done: Done) {
        self.shared.close_rings();
        self.command(Command::Close { deadline: worker_deadline(deadline), done });
    }

    /// Hands the command to the worker, or answers it with the final balance if the worker has ended.
    fn command(&self, command: Command) {
        let Err(mpsc::error::SendError(command)) = self.commands.send(command) else { return };
        let (Command::Flush { done, .. } | Command::Close { done, .. }) = command;
        done(self.shared.report_now());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close(self.shared.config.shutdown.timeout, Box::new(drop));
    }
}
