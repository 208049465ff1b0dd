//! What applications hold: a bus and its topics.
//!
//! An event's way through this file is the hot path, and it is all there is of it: look whether the ring has room, read the
//! counter, note the body on the stack, claim and copy. The rest happens in [`publisher::worker`](crate::publisher), and a wait for
//! room, where one is wanted, behind [`Lane::push`].

mod budget;
#[cfg(feature = "testing")]
mod capture;
mod handle;
mod partition;
mod replay;
mod topic;

use crate::budget::Budgets;
use crate::clock::{Clock, HasClock};
use crate::config::{Config, ConfigError, WhenFull};
use crate::encode::{self, EncodeError};
use crate::entropy;
use crate::event::{self, Event};
use crate::foreign::{contained, discard};
use crate::fork;
use crate::lane::{Lane, Lanes};
use crate::ledger::{Dropped, Reason, Report, Stats};
use crate::metrics::{self, Distribution, Metrics, PUBLISH_SAMPLE};
use crate::offer::Offer;
use crate::publisher::pipeline::Limits;
use crate::publisher::stamp::ProducerNames;
use crate::record::{self, Body, Head, Template};
use crate::ring::Refusal;
use crate::shed::{Catalogue, NameId};
use crate::spool::leftovers;
use crate::subject::{Name, NameError};
use crate::sync::Ordering;
use crate::sync::plain::AtomicBool;
use crate::thread::{self, Thread};
use handle::{Answer, Handle, SpoolOf};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub(crate) use handle::{CLOSE_GRACE, Command, Done, Post};
use partition::Bell;
pub(crate) use partition::Partition;
pub use topic::Topic;

/// A handle to a bus. Cheap to clone; all clones are the same bus.
///
/// Publishing never blocks (unless it is told to, by [`WhenFull::Block`](crate::WhenFull::Block)), allocates (after a thread's first
/// call), makes a system call (but for a wake of the sleeping worker) or panics, in whatever state the server is. When the last handle is dropped the worker closes the bus by itself, with
/// the configured shutdown timeout. Nobody waits for it: a return from `main`, `std::process::exit` or a signal ends it wherever it is, and
/// what is not stored by then is lost without a count. So a process should call [`close`](Self::close) before it ends.
///
/// It works in any thread, also one that is ending or panicking. In a forked child the handles do nothing: what is published is dropped as
/// [`Reason::Closed`], `flush` and `close` return at once, with what the child offered and not complete, and a log line says so; a child
/// that publishes starts a bus of its own. It is not made for signal handlers: one that publishes while its thread is publishing is
/// not safe from itself.
#[derive(Clone)]
pub struct Bus {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl Bus {
    /// Starts a bus: its rings, and its worker on a thread of its own, one for each partition. Does not wait for the network; a server
    /// that is not there yet is tried for ever, and what is accepted in the meantime is delivered then.
    ///
    /// # Errors
    ///
    /// When fields of the configuration contradict each other, or the operating system gives no thread.
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, |_, _| Ok(SpoolOf::Configured))
    }

    fn start_with(
        config: Config,
        open: impl Fn(&Shared, &Partition) -> Result<SpoolOf, StartError>,
    ) -> Result<Self, StartError> {
        let (bus, posts) = Self::prepare(config)?;
        let spools = posts.iter().map(|post| open(&bus.shared, &post.partition));
        let spools: Vec<SpoolOf> = spools.collect::<Result<_, _>>()?;
        for (post, spool) in posts.into_iter().zip(spools) {
            // If a thread is not to be had, the bus is dropped, and closes those that are there.
            handle::spawn_worker(post, spool)?;
        }
        Ok(bus)
    }

    /// All of a bus but the threads of its workers.
    pub(crate) fn prepare(config: Config) -> Result<(Self, Vec<Post>), ConfigError> {
        config.check()?;
        let bells: Vec<_> = (0..config.partitions).map(|_| Bell::new()).collect();
        let doorbells: Vec<_> = bells.iter().map(|bell| Arc::clone(&bell.doorbell)).collect();
        let (lanes, consumers) = Lanes::new(&config.queue, &doorbells);
        let rings = consumers.iter().map(Vec::len);
        let partitions = partitions(&config, bells.into_iter().zip(rings));
        let producers = ProducerNames::new(entropy::number(), lanes.len());
        let ring_bytes = lanes.capacity_bytes() / lanes.len();
        let metrics = Metrics::new(partitions.len());
        let shared = Arc::new(Shared {
            lanes,
            partitions,
            catalogue: Catalogue::new(),
            budgets: Budgets::new(ring_bytes),
            clock: Clock::detect(),
            metrics: metrics.expect("names, labels and buckets of our metrics are constants, and tested"),
            config: Arc::new(config),
            started: Instant::now(),
            process: producers.process().into(),
            counts_uninitialized: AtomicBool::new(false),
            misnamed: AtomicBool::new(false),
            discards_spooled: AtomicBool::new(false),
            inert: OnceLock::new(),
            said_inert: AtomicBool::new(false),
        });
        shared.set_configured_budgets()?;
        fork::register(&shared);
        let (handle, posts) = Handle::new(Arc::clone(&shared), consumers, &producers);
        Ok((Self { shared, handle: Arc::new(handle) }, posts))
    }

    /// Publishes `body` as an event called `name`, on the subject `event.<chain_id>.<name>`.
    ///
    /// The body is walked once, on this thread, and printed later, on the worker's; a second time only if it is about as large as
    /// `queue.max-event`. A name that is not valid is counted as [`Reason::Rejected`]; see [`Name`] for what is. A [`topic`](Self::topic)
    /// checks the name once and costs less.
    #[inline]
    pub fn publish<T: Serialize + ?Sized>(&self, name: &str, body: &T) -> Offer {
        self.publish_with(name, || body)
    }

    /// Publishes a typed event.
    #[inline]
    pub fn publish_event<E: Event + ?Sized>(&self, event: &E) -> Offer {
        self.publish(E::SUBJECT, event)
    }

    /// Publishes what `body` returns. It is not called when the event is going to be shed at once.
    #[inline]
    pub fn publish_with<T: Serialize>(&self, name: &str, body: impl FnOnce() -> T) -> Offer {
        if !Name::is_valid(name) {
            let offer = self.shared.misname(name);
            discard(body);
            return offer;
        }
        let (lane, title) = (self.shared.lanes.of_this_thread(), Title { name, id: None });
        self.shared.publish_titled(lane, title, None, body)
    }

    /// Publishes `body` to the stream of `key`; see [`Topic::publish_keyed`].
    #[inline]
    pub fn publish_keyed<T: Serialize + ?Sized>(&self, name: &str, key: impl AsRef<[u8]>, body: &T) -> Offer {
        if !Name::is_valid(name) {
            let offer = self.shared.misname(name);
            discard(key);
            return offer;
        }
        let title = Title { name, id: None };
        match self.shared.lane_of(key) {
            Some(lane) => self.shared.publish_titled(lane, title, None, || body),
            None => self.shared.drop_keyless(title),
        }
    }

    /// Checks and resolves an event name once, for many publishes.
    ///
    /// # Errors
    ///
    /// When the name is not valid.
    pub fn topic(&self, name: &str) -> Result<Topic, NameError> {
        Ok(Topic::new(self, &name.parse()?))
    }

    /// Whether this thread's ring has room for an event with a body of `body_bytes` at the moment.
    ///
    /// For callers that would rather wait than lose an event; other threads may be faster. It knows nothing of [budgets](Self::set_budget).
    pub fn has_room(&self, body_bytes: usize) -> bool {
        self.shared.has_room(self.shared.lanes.of_this_thread(), body_bytes)
    }

    /// As [`has_room`](Self::has_room), for an event that is published with this key.
    pub fn has_room_keyed(&self, key: impl AsRef<[u8]>, body_bytes: usize) -> bool {
        self.shared.has_room(self.shared.lanes.of_key(key.as_ref()), body_bytes)
    }

    /// One consistent snapshot of the ledger.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How long acknowledged events took from `publish` to the acknowledgement, over all since the start: the metric
    /// `event_bus_delivery_latency_seconds` with buckets of 3 % (of 3 µs below 100 µs), for percentiles.
    pub fn delivery_latency(&self) -> Distribution {
        self.shared.metrics.delivery_latency()
    }

    /// Whether the worker is connected to a server at the moment; with partitions, whether all workers are.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// The part that the names of all this bus's producers have in common: 16 hexadecimal digits, random for each start.
    pub fn process(&self) -> &str {
        &self.shared.process
    }

    /// Registers the metrics of this bus.
    ///
    /// `MetricsEndpoint`, with the cargo feature `metrics-endpoint`, serves a registry to Prometheus where the service itself serves
    /// no HTTP.
    ///
    /// # Errors
    ///
    /// When the registry has metrics of these names already.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        metrics::register(registry, Arc::downgrade(&self.shared))
    }

    /// Waits until everything that was offered before this call has met its fate, at most for `deadline`.
    ///
    /// Blocks the calling thread and needs no runtime; [`flush_async`](Self::flush_async) is for asynchronous code. On a thread that serves a
    /// bus, where a subscriber of the log may call it, it returns at once: the thread would wait for itself.
    pub fn flush(&self, deadline: Duration) -> Report {
        self.ask(|answer| self.handle.flush(deadline, answer), deadline)
    }

    /// As [`flush`](Self::flush), for asynchronous code, on any runtime with or without timers. A future that is dropped asks for nothing any
    /// more.
    pub async fn flush_async(&self, deadline: Duration) -> Report {
        self.ask_async(|answer| self.handle.flush(deadline, answer)).await
    }

    /// Ends the bus: refuses new events at once, delivers what was accepted for at most `deadline`, publishes what was lost,
    /// and returns the final balance. What is not delivered by then is in the spool, if there is one, or counted: as dropped if it never
    /// left, as indeterminate if it may be stored.
    ///
    /// That may take up to three seconds longer than `deadline`, also if that is zero. If it takes even longer, because a disk does not answer, the
    /// report is not [`complete`](Report::complete), and the worker counts the rest when it can.
    ///
    /// Can be called from any thread, and more than once. Blocks the calling thread;
    /// [`close_async`](Self::close_async) is for asynchronous code. On a thread that serves a bus it returns at once, as
    /// [`flush`](Self::flush) does, and the bus closes all the same.
    pub fn close(&self, deadline: Duration) -> Report {
        self.ask(|answer| self.handle.close(deadline, answer), deadline.saturating_add(CLOSE_GRACE))
    }

    /// As [`close`](Self::close), for asynchronous code, on any runtime with or without timers. If the future is dropped, the bus closes all
    /// the same.
    pub async fn close_async(&self, deadline: Duration) -> Report {
        self.ask_async(|answer| self.handle.close(deadline, answer)).await
    }

    fn ask(&self, ask: impl FnOnce(Answer), patience: Duration) -> Report {
        if thread::with(Thread::serves_a_bus) {
            ask(Answer::Nobody);
            return self.shared.report_now();
        }
        let (answer, report) = mpsc::sync_channel(1);
        ask(Answer::Thread(answer));
        report.recv_timeout(patience).unwrap_or_else(|_| self.shared.report_now())
    }

    async fn ask_async(&self, ask: impl FnOnce(Answer)) -> Report {
        if thread::with(Thread::serves_a_bus) {
            ask(Answer::Nobody);
            return self.shared.report_now();
        }
        let (answer, report) = oneshot::channel();
        ask(Answer::Task(answer));
        report.await.unwrap_or_else(|_| self.shared.report_now())
    }

    /// Whether this is a forked child of the process that has started it.
    pub(crate) fn is_inert(&self) -> bool {
        self.shared.is_inert()
    }

    /// Takes over the count of what was published before there was a bus.
    pub(crate) fn count_uninitialized(&self) {
        self.shared.counts_uninitialized.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Why a bus cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gives no thread or no runtime for the worker.
    #[error("the worker cannot be started: {0}")]
    Worker(#[from] std::io::Error),
    /// The directory that is to be replayed cannot be.
    #[error("{}: {error}", .directory.display())]
    Spool {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        error: std::io::Error,
    },
}

// ---- below: what the handles share with the worker ----------------------------------------------------------------------

/// A ring with less room than this, which is that for any head, counts as full before an event is encoded. Without it, a full ring that
/// has a line or two left would let every event be encoded first and then refuse it.
const ROOM_MIN: usize = record::OVERHEAD_BYTES_MAX;

/// The name of an event, with what is known of it already.
#[derive(Clone, Copy)]
struct Title<'a> {
    name: &'a str,
    id: Option<NameId>,
}

/// The request that an event belongs to.
enum RequestId<'a> {
    /// That of the thread's [scope](crate::request_scope), if it is in one.
    Scope(Option<event::RequestId>),
    Given(&'a str),
}

impl<'a> RequestId<'a> {
    /// That which was given with the event, or else that of the scope.
    #[inline]
    fn new(given: Option<&'a str>) -> Self {
        given.map_or_else(Self::of_scope, Self::Given)
    }

    #[inline]
    fn of_scope() -> Self {
        Self::Scope(event::request_id())
    }

    #[inline]
    fn as_deref(&self) -> Option<&str> {
        match self {
            Self::Scope(id) => id.as_deref(),
            Self::Given(id) => Some(id),
        }
    }
}

/// What hot threads, handles and the workers share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    /// The rings of all partitions.
    pub(crate) lanes: Lanes,
    /// At least one.
    pub(crate) partitions: Box<[Arc<Partition>]>,
    pub(crate) catalogue: Catalogue,
    pub(crate) budgets: Budgets,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    started: Instant,
    /// What the names of all producers have in common.
    process: Box<str>,
    /// This is the process-wide bus, so what was published before it belongs to its ledger.
    counts_uninitialized: AtomicBool,
    /// An invalid name was logged already.
    misnamed: AtomicBool,
    /// What lies in a spool and the stream does not take is dropped.
    pub(crate) discards_spooled: AtomicBool,
    /// There in a forked child: what had been refused before the fork.
    inert: OnceLock<Dropped>,
    /// And that was logged already.
    said_inert: AtomicBool,
}

impl HasClock for Shared {
    fn clock(&self) -> &Clock {
        &self.clock
    }
}

impl Shared {
    /// Publishes an event that has no topic, or a request of its own. Where there is room and nobody has a budget it leaves here, by so few
    /// instructions that they can stand in the caller.
    #[inline]
    fn publish_titled<T: Serialize>(
        &self,
        lane: &Lane,
        title: Title<'_>,
        given: Option<&str>,
        body: impl FnOnce() -> T,
    ) -> Offer {
        if lane.is_free(ROOM_MIN) {
            return self.accept(lane, title, given, 1, body);
        }
        self.publish_at_limit(lane, title, given, body)
    }

    fn has_room(&self, lane: &Lane, body_bytes: usize) -> bool {
        // What can never be taken needs no room: publishing it says why.
        let body_bytes = body_bytes.min(self.config.queue.max_event);
        lane.ring.would_refuse(record::OVERHEAD_BYTES_MAX + body_bytes) != Some(Refusal::Full)
    }

    /// The rest of the hot path, for an event of a topic that belongs to no request.
    #[inline(never)]
    fn accept_usual<T: Serialize>(
        &self,
        lane: &Lane,
        id: NameId,
        template: &Template,
        body: impl FnOnce() -> T,
    ) -> Offer {
        let timer = self.timer();
        let stamp = (self.clock.now(), lane.shed.lost());
        let push = |record: &[u8]| lane.push(&[record]);
        let offer = match encode::with_template(template, stamp, body, self.config.queue.max_event, push) {
            Ok(Ok(())) => Offer::Accepted,
            Ok(Err(refusal)) => Self::refuse(lane, id, refusal),
            Err(error) => Self::drop_unencoded(lane, id, error),
        };
        self.observe(timer);
        offer
    }

    /// The same for any event, which stands for `sample` of its kind. A request id that is given counts more than that of the scope.
    #[inline(never)]
    fn accept<T: Serialize>(
        &self,
        lane: &Lane,
        title: Title<'_>,
        given: Option<&str>,
        sample: u32,
        body: impl FnOnce() -> T,
    ) -> Offer {
        let timer = self.timer();
        let request_id = RequestId::new(given);
        let max = self.config.queue.max_event;
        let offer = match self.head(lane, title, (request_id.as_deref(), sample), Body::Tape) {
            Ok(head) => match encode::with_record(&head, body, max, |record| lane.push(&[record])) {
                Ok(pushed) => self.pushed(lane, title, pushed),
                Err(error) => self.shed(lane, title, error.reason()),
            },
            Err(reason) => {
                let offer = self.shed(lane, title, reason);
                discard(body);
                offer
            }
        };
        self.observe(timer);
        offer
    }

    /// The ring of a key, which is user code until its bytes are there, and when it is dropped. `None` if it panics before.
    #[inline]
    fn lane_of(&self, key: impl AsRef<[u8]>) -> Option<&Lane> {
        let lane = contained(|| self.lanes.of_key(key.as_ref()));
        discard(key);
        lane
    }

    /// The event's key has panicked.
    #[cold]
    fn drop_keyless(&self, title: Title<'_>) -> Offer {
        self.shed(self.lanes.of_this_thread(), title, Reason::Serialize)
    }

    fn offer_json(&self, title: Title<'_>, request_id: RequestId<'_>, body: &[u8]) -> Offer {
        let timer = self.timer();
        let lane = self.lanes.of_this_thread();
        if body.len() > self.config.queue.max_event {
            return self.shed(lane, title, Reason::TooLarge);
        }
        let len = record::OVERHEAD_BYTES_MAX + body.len();
        let sample = match self.admit(lane, title, request_id.as_deref(), len) {
            Ok(sample) => sample,
            Err(offer) => return offer,
        };
        let offer = match self.head(lane, title, (request_id.as_deref(), sample), Body::Json) {
            Ok(head) => {
                let pushed = encode::with_head(&head, |head| lane.push(&[head, body]));
                self.pushed(lane, title, pushed)
            }
            Err(reason) => self.shed(lane, title, reason),
        };
        self.observe(timer);
        offer
    }

    /// What precedes the body.
    #[inline]
    fn head<'a>(
        &self,
        lane: &Lane,
        title: Title<'a>,
        (request_id, sample): (Option<&'a str>, u32),
        body: Body,
    ) -> Result<Head<'a>, Reason> {
        if request_id.is_some_and(|id| id.len() > record::REQUEST_ID_BYTES_MAX) {
            return Err(Reason::TooLarge);
        }
        Ok(Head {
            timestamp: self.clock.now(),
            lost: lane.shed.lost(),
            name: title.name.as_bytes(),
            request_id,
            trace: event::trace_parent(),
            sample,
            body,
        })
    }

    #[inline]
    fn pushed(&self, lane: &Lane, title: Title<'_>, pushed: Result<(), Refusal>) -> Offer {
        match pushed {
            Ok(()) => Offer::Accepted,
            Err(refusal) => self.shed(lane, title, reason_of(refusal)),
        }
    }

    #[cold]
    fn refuse(lane: &Lane, id: NameId, refusal: Refusal) -> Offer {
        dropped(lane, id, reason_of(refusal))
    }

    #[cold]
    fn drop_unencoded(lane: &Lane, id: NameId, error: EncodeError) -> Offer {
        dropped(lane, id, error.reason())
    }

    #[cold]
    fn shed(&self, lane: &Lane, title: Title<'_>, reason: Reason) -> Offer {
        dropped(lane, title.id.unwrap_or_else(|| self.catalogue.intern(title.name)), reason)
    }

    #[cold]
    fn misname(&self, name: &str) -> Offer {
        // Counted first: whatever a subscriber of the log does, the event is offered.
        let offer = dropped(self.lanes.of_this_thread(), NameId::OTHER, Reason::Rejected);
        if !self.misnamed.swap(true, Ordering::Relaxed)
            && let Err(error) = Name::check(name)
        {
            contained(|| {
                tracing::error!("{error}; such events are dropped as rejected, and this is said once");
            });
        }
        offer
    }

    /// Times one call in [`PUBLISH_SAMPLE`] of each thread.
    #[inline]
    fn timer(&self) -> Option<Instant> {
        thread::with(|thread| thread.is_sampled(PUBLISH_SAMPLE)).then(Instant::now)
    }

    #[inline]
    fn observe(&self, timer: Option<Instant>) {
        if let Some(start) = timer {
            self.metrics.publish.observe(start.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let Config { queue, delivery, .. } = &*self.config;
        Limits {
            window_events: delivery.max_in_flight,
            window_bytes: delivery.max_in_flight_bytes,
            message_bytes_max: queue.max_event + record::OVERHEAD_BYTES_MAX,
            ack_timeout: delivery.ack_timeout,
            mode: delivery.mode,
        }
    }
}

/// Those of the configuration, and one for each directory that a bus with another number of them has left.
fn partitions(config: &Config, regular: impl Iterator<Item = (Bell, usize)>) -> Box<[Arc<Partition>]> {
    let streams = config.streams();
    let leftovers = match config.queue.when_full {
        WhenFull::Spool => leftovers(config),
        _ => Ok(Vec::new()),
    };
    let leftovers = leftovers.unwrap_or_else(|error| {
        contained(
            || tracing::warn!(dir = ?config.spool.dir, %error, "it is not known whether a bus with another number of partitions has left events here"),
        );
        Vec::new()
    });
    for leftover in &leftovers {
        let to = &streams[leftover.partition].name;
        contained(
            || tracing::warn!(directory = %leftover.directory.display(), events = leftover.events, stream = %leftover.stream, %to, "a bus with another number of partitions has left events; they are sent to a stream of this one"),
        );
    }
    let regular =
        streams.iter().cloned().zip(regular).map(|(stream, (bell, rings))| (stream, bell, rings, None));
    let left = leftovers.into_iter().map(|leftover| {
        let stream = streams[leftover.partition].clone();
        (stream, Bell::new(), 0, Some(leftover))
    });
    let all = regular.chain(left).enumerate();
    all.map(|(index, (stream, bell, rings, leftover))| {
        Arc::new(Partition::new(index, stream, bell, rings, leftover))
    })
    .collect()
}

/// Counts a refusal.
#[inline]
fn dropped(lane: &Lane, name: NameId, reason: Reason) -> Offer {
    lane.shed.count(thread::with(Thread::number), name, reason);
    Offer::Dropped(reason)
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Full => Reason::QueueFull,
        Refusal::Contended => Reason::Contended,
        Refusal::TooLong => Reason::TooLarge,
        Refusal::Closed => Reason::Closed,
    }
}
