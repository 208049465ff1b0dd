//! The one loop behind the rings.
//!
//! ```text
//!   loop {
//!       take events from the rings, as many as the window has room for     → stamp, envelope, pipeline.push
//!       carry out what the pipeline decides                                → sink.connect, sink.send, …
//!       book what has met its fate                                         → ledger, gaps
//!       report, flush, close, if it is time
//!       wait for an answer, an event, a command or a deadline
//!   }
//! ```
//!
//! It runs on a thread of its own with a runtime of its own, so a stalled runtime of the application cannot stop it, and it
//! cannot stop theirs. All decisions about delivery are the pipeline's; here is only what carries them out.
//!
//! # Sleeping
//!
//! As long as events come, the worker looks at the rings every linger time and nobody wakes it. After a while without
//! events it parks, and the next publish pays for one wake. It looks once a second all the same, since a thread that is stopped while it
//! wakes the worker wakes nobody.
//!
//! What becomes of it after a panic is told in [`rescue`].

mod ending;
mod pace;
mod pulse;
mod rescue;
mod spooling;
#[cfg(all(test, not(jetring_loom)))]
mod worlds;

pub(crate) use spooling::Spooling;

use super::books::book;
use super::notices::{Notices, note};
use super::packer::Packer;
use super::pipeline::{Fate, LinkAction, Pipeline};
use super::render::Renderer;
use super::stamp::Stamper;
use crate::bus::{Command, Done, Partition, Post, Shared};
use crate::frame::Compressor;
use crate::ledger::{Accounts, Reason};
use crate::metrics::Latencies;
use crate::report::{self, Started};
use crate::ring::Consumer;
use crate::sink::{Sink, SinkEvent};
use crate::sync::Ordering;
use crate::timer;
use ending::Closing;
use pace::Pace;
use pulse::Pulse;
use rescue::Lent;
use serde::Serialize;
use spooling::{SpoolEvent, spool_event};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// Events taken from one ring before the next one has its turn.
const DRAIN_BATCH: usize = 256;

/// Messages sent before answers are looked at again.
const SEND_BATCH: usize = 256;

/// Answers looked at before the rings are looked at again.
const EVENT_BATCH: usize = 1024;

/// How long the worker goes on looking at empty rings before it parks.
const IDLE_LINGER: Duration = Duration::from_millis(20);

/// How long the worker sleeps until it looks by itself, even if nobody wakes it: the producer that was about to may have been stopped. See
/// [`Doorbell`](crate::ring::Doorbell).
const PARKED_MAX: Duration = Duration::from_secs(1);

/// A turn that comes so late may follow a pause.
const LATE: Duration = Duration::from_millis(500);
const CATCH_UP_YIELDS: usize = 8;

/// The runtime's timers are no finer than this.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// What the runtime adds to a wait: it goes off at the next full millisecond, and the operating system is asked for whole ones.
/// A timer for a millisecond takes two of them.
const TIMER_ROUNDING: Duration = Duration::from_micros(999);

/// How often gaps are reported, and the longest sleep while anything is open.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How long reports alone hold up a close: a bus that is closed just after its start should still say so.
const REPORTS_PATIENCE: Duration = Duration::from_secs(1);

/// The part of a close's time that is kept for the last reports.
const LAST_WORDS: f64 = 0.2;
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// How long a worker that panics in our own code waits for claims that are not committed.
const DISCARD_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Worker<S> {
    shared: Arc<Shared>,
    /// Ours.
    partition: Arc<Partition>,
    consumers: Vec<Consumer>,
    commands: UnboundedReceiver<Command>,
    sink: S,
    pipeline: Pipeline,
    renderer: Renderer,
    /// Where events are put together, if they are.
    packer: Option<Packer>,
    /// Where events go that the window has no room for, if there is such a place.
    spooling: Option<Spooling<S>>,
    notices: Notices,
    accounts: Accounts,
    latencies: Latencies,
    flushes: Vec<Flush>,
    closing: Option<Closing>,
    /// Whose code runs.
    lent: Lent,
    connected_before: bool,
    /// Nothing is left to do but to answer.
    is_over: bool,
    reported_at: Instant,
    /// The last report of a gap, by the number that it has in the window.
    last_gap: Option<u64>,
    pulse: Pulse,
    measured_at: Instant,
    /// The ring that is looked at first.
    first_ring: usize,
    /// When the rings last had something.
    busy_at: Instant,
    pace: Pace,
    /// The turn, or the sleep before it, has done something.
    was_of_use: bool,
    /// A report was pushed that nobody has sent yet.
    has_reported: bool,
    /// For which events are dropped when the time for them is over.
    reason_at_the_end: Reason,
}

/// Somebody waits until all that was offered before has met its fate.
struct Flush {
    /// By ring, claims that must have been taken.
    claims: Vec<u64>,
    /// After they were taken: the pipeline's messages that must be settled.
    number: Option<u64>,
    deadline: Instant,
    done: Done,
}

/// What a sleep was ended by.
enum Woken {
    Event(SinkEvent),
    Command(Command),
    Spool(SpoolEvent),
    Doorbell,
    Time,
}

/// How the worker sleeps; see [`crate::ring::Doorbell`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// Looks at the rings again after the linger time.
    Dozing,
    /// Until it is woken, and not for long.
    Parked,
    /// Until a ring is over half full.
    Pressed,
    /// Until something else than an event happens.
    Deaf,
}

impl<S: Sink> Worker<S> {
    pub(crate) fn new(
        post: Post,
        sink: S,
        compressor: Option<Compressor>,
        mut spooling: Option<Spooling<S>>,
        seed: u64,
    ) -> Self {
        if let Some(spooling) = &mut spooling {
            spooling.overflow.set_packed(compressor.is_some());
        }
        let Post { shared, partition, consumers, commands, producers } = post;
        let now = timer::now();
        let mut pipeline = Pipeline::new(now, shared.limits(), producers.clone(), seed);
        let packer = compressor.map(|compressor| {
            pipeline.pack_with(compressor);
            Packer::new(shared.config.delivery.linger)
        });
        if shared.discards_spooled.load(Ordering::Relaxed) {
            pipeline.discard_spooled();
        }
        let stamper = Stamper::new(producers, consumers.len());
        let accounts = Accounts { taken: vec![0; consumers.len()], ..Accounts::default() };
        let (stamps, body_bytes_max) = (shared.config.delivery.stamp, shared.config.queue.max_event);
        let subjects = partition.stream.subjects.clone();
        let renderer = Renderer::new(Arc::clone(&shared), subjects, stamps, body_bytes_max, stamper);
        Self {
            pipeline,
            renderer,
            packer,
            spooling,
            latencies: Latencies::new(),
            pulse: Pulse::new(now, shared.config.delivery.stats_interval),
            shared,
            partition,
            consumers,
            commands,
            sink,
            notices: Notices::default(),
            accounts,
            flushes: Vec::new(),
            closing: None,
            lent: Lent::default(),
            connected_before: false,
            is_over: false,
            reported_at: now,
            last_gap: None,
            measured_at: now,
            first_ring: 0,
            busy_at: now,
            pace: Pace::new(now),
            was_of_use: false,
            has_reported: false,
            reason_at_the_end: Reason::Expired,
        }
    }

    /// Whether it has rings. One that has none sends what others have left, and has nothing to say of this process.
    fn is_of_this_process(&self) -> bool {
        self.partition.leftover.is_none()
    }

    fn say_started(&mut self) {
        if !self.is_of_this_process() {
            return;
        }
        let started = Started {
            process: self.renderer.stamper.names().process().to_owned(),
            producers: self.shared.lanes.len(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stats_seconds: self.shared.config.delivery.stats_interval.as_secs_f64(),
        };
        self.push_report(report::STARTED, &started);
    }

    /// Works until the bus is closed.
    async fn run(&mut self) {
        self.partition.bell.attach().await;
        let mut turned_at = timer::now();
        self.tend_spool(turned_at);
        loop {
            if timer::now().saturating_duration_since(turned_at) > LATE {
                self.hear_what_came_meanwhile().await;
            }
            let now = timer::now();
            turned_at = now;
            self.shared.metrics.turned();
            // Before events are taken, so that those which came after a pause find a fresh calibration.
            self.renew_calendar();
            self.spool_if_due(now);
            let mut taken = self.take_events(now);
            taken += self.refill(now);
            self.close_frames(now);
            self.pipeline.handle_time(now);
            let sent = self.carry_out(now).await;
            self.book(now);
            // What the keeper has said may be what the next turn waits for.
            let heard = self.tend_spool(now);
            self.report_gaps(now);
            self.report_stats(now);
            self.check_flushes(now);
            if self.check_close(now) {
                return self.end().await;
            }
            if taken > 0 || sent > 0 || heard || std::mem::take(&mut self.has_reported) {
                self.was_of_use = false;
                // The client's own task shares this thread and writes when we let it.
                tokio::task::yield_now().await;
                self.look_at_events(now);
            } else {
                self.wait(now).await;
            }
        }
    }

    fn renew_calendar(&mut self) {
        self.renderer.calendar.renew();
        if self.renderer.calendar.has_just_left_tsc() {
            self.lent.to(|| {
                tracing::warn!(
                    "the kernel does not use the processor's time stamp counter as a clock any more; events are dated by the system's clock from now on, which makes publishing slower"
                )
            });
        }
    }

    /// After a pause (of the process, or of the machine) the answers lie in the socket, unread. They are read before anybody judges
    /// that the server is silent.
    async fn hear_what_came_meanwhile(&mut self) {
        for _ in 0..CATCH_UP_YIELDS {
            // Lets the runtime look at the socket, and the client's task read it.
            tokio::task::yield_now().await;
            self.look_at_events(timer::now());
        }
    }

    // ---- in: events ----------------------------------------------------------------------------------------------------

    /// Moves events from the rings to the window, as many as it has room for.
    fn take_events(&mut self, now: Instant) -> usize {
        if now >= self.measured_at + TIMER_GRAIN {
            // Not at each turn: it reads the tails, whose cache lines the producers want for themselves.
            self.measured_at = now;
            self.shared.metrics.saw_queue_bytes(self.shared.lanes.used_bytes());
        }
        if self.spools() {
            return self.spool_events(now);
        }
        let (mut taken, mut more_waits) = (0, false);
        let rings = self.consumers.len();
        // Each ring gets its share of the room first, and then what the others left; the first of them changes from turn to
        // turn. Else the first ring would take every place that is freed in a full window.
        let share = (self.room() / rings.max(1)).max(1);
        self.first_ring = (self.first_ring + 1) % rings.max(1);
        for limit in [share, DRAIN_BATCH] {
            more_waits = false;
            for ring in (self.first_ring..rings).chain(0..self.first_ring) {
                let (records, is_cut_off) = self.take_from(now, ring, limit.min(DRAIN_BATCH));
                taken += records;
                more_waits |= is_cut_off;
            }
        }
        self.pipeline.expect_more(more_waits);
        if taken > 0 {
            self.busy_at = now;
            self.shared.metrics.batch.observe(taken as f64);
        }
        taken
    }

    /// Returns how many events were taken, and whether it was the limit, or the window, that ended it.
    fn take_from(&mut self, now: Instant, ring: usize, limit: usize) -> (usize, bool) {
        let room = self.room().min(limit);
        // Read before the rings are found empty: every refusal up to here precedes whatever is claimed after.
        let refused = self.refused(ring);
        let Self { consumers, pipeline, renderer, packer, accounts, .. } = self;
        let consumer = &mut consumers[ring];
        let drained = consumer.drain(room, |record| {
            let taken = match packer {
                None => pipeline.push(|payload| renderer.message(ring, record, payload)),
                Some(packer) => packer.take(now, ring, record, renderer, pipeline),
            };
            if let Err(reason) = taken {
                accounts.dropped.add(reason, 1);
            }
        });
        accounts.dropped.add(Reason::Serialize, drained.aborted as u64);
        accounts.taken[ring] = consumer.taken();
        let is_empty = drained.records < room && !drained.pending;
        if is_empty {
            renderer.stamper.pass_refusals(ring, refused);
        }
        let is_cut_off = if room == 0 { consumer.has_claims() } else { drained.records == room };
        (drained.records, is_cut_off)
    }

    /// How many offers a ring of ours has refused.
    fn refused(&self, ring: usize) -> u64 {
        let lane = self.shared.lanes.of_partition(self.partition.index).nth(ring);
        lane.map_or(0, |lane| lane.shed.lost())
    }

    /// How many events may be taken. Each may turn out to be a message of its own.
    fn room(&self) -> usize {
        match &self.packer {
            None => self.pipeline.room(),
            Some(packer) => self.pipeline.room_beside(packer.frames(), packer.bytes()),
        }
    }

    /// Hands over the frames whose time has come; all of them if somebody waits for the events in them.
    fn close_frames(&mut self, now: Instant) {
        let Some(packer) = &mut self.packer else { return };
        if self.closing.is_some() || !self.flushes.is_empty() {
            packer.close_all(&mut self.pipeline);
        } else {
            packer.close_due(now, &mut self.pipeline);
        }
    }

    /// Events that were taken from the rings and have not met their fate.
    fn open_events(&self) -> usize {
        let unwritten = self.spooling.as_ref().map_or(0, |spooling| spooling.overflow.unwritten());
        self.pipeline.open_events() + self.packer.as_ref().map_or(0, Packer::events) + unwritten as usize
    }

    // ---- out: what the pipeline decides --------------------------------------------------------------------------------

    async fn carry_out(&mut self, now: Instant) -> usize {
        while let Some(action) = self.pipeline.poll_link(now) {
            self.was_of_use = true;
            self.lent.to(|| match action {
                LinkAction::Connect => self.sink.connect(),
                LinkAction::Disconnect => self.sink.disconnect(),
                LinkAction::LookUpStream => self.sink.look_up_stream(),
                LinkAction::Read { from, to } => self.sink.read(from, to),
            });
        }
        let (mut sent, mut bytes) = (0, 0);
        let may_send = self.may_send(now);
        while may_send && sent < SEND_BATCH {
            let Some(sending) = self.pipeline.poll_send(now) else { break };
            sent += 1;
            bytes += sending.payload.len();
            if self.lent.during(self.sink.send(sending)).await.is_err() {
                self.lent.to(|| self.sink.disconnect());
                break;
            }
        }
        self.shared.metrics.sent(bytes);
        sent
    }

    async fn wait(&mut self, now: Instant) {
        let sleep = self.choose_sleep(now);
        let until = self.sleep_until(now, sleep);
        let was_of_use = std::mem::take(&mut self.was_of_use) || now < self.busy_at + IDLE_LINGER;
        let not_before = if was_of_use { None } else { self.pace.wasted(now) };
        let until = until.map(|until| not_before.map_or(until, |not_before| until.max(not_before)));
        let Self { lent, sink, partition, commands, spooling, .. } = self;
        let woken = lent.during(async {
            tokio::select! {
                event = sink.event() => Woken::Event(event),
                () = partition.bell.rung(), if sleep != Sleep::Deaf => Woken::Doorbell,
                Some(command) = commands.recv() => Woken::Command(command),
                event = spool_event(spooling) => Woken::Spool(event),
                () = timer::sleep_until(until) => Woken::Time,
            }
        });
        let woken = woken.await;
        self.was_of_use = !matches!(woken, Woken::Time);
        match woken {
            Woken::Event(event) => self.handle_event(timer::now(), event),
            Woken::Command(command) => self.handle_command(timer::now(), command),
            Woken::Spool(event) => self.handle_spool_event(timer::now(), event),
            Woken::Doorbell | Woken::Time => {}
        }
        self.partition.bell.doorbell.wake_up();
        self.look_at_events(timer::now());
    }

    /// Tells the producers how we sleep.
    fn choose_sleep(&self, now: Instant) -> Sleep {
        if self.wants_no_events() {
            return Sleep::Deaf;
        }
        if !self.takes_events(now) {
            // Those that are there wait. That they need not has to be seen when they become many.
            self.partition.bell.doorbell.doze();
            return Sleep::Pressed;
        }
        let idle = now >= self.busy_at + IDLE_LINGER;
        // A claim that is not committed yet forbids to park; it is looked for at each linger time, and not spun on.
        if idle && self.partition.bell.doorbell.park(|| self.consumers.iter().any(Consumer::has_claims)) {
            return Sleep::Parked;
        }
        self.partition.bell.doorbell.doze();
        Sleep::Dozing
    }

    /// Whether events could not be taken, however many of them come, so that being woken by them would be of no use.
    fn wants_no_events(&self) -> bool {
        match &self.spooling {
            _ if self.closing.is_some() => !self.consumers.iter().any(Consumer::has_claims),
            None => self.room() == 0,
            Some(spooling) => spooling.overflow.is_active() && !spooling.overflow.takes(),
        }
    }

    /// Whether the next turn takes what is in the rings.
    fn takes_events(&self, now: Instant) -> bool {
        match self.spooling.as_ref().filter(|_| self.spools()) {
            Some(spooling) => spooling.overflow.takes() && !self.waits_for_the_last_stretch(now),
            None => self.room() > 0,
        }
    }

    /// The next time that something has to be done even if nothing happens.
    fn sleep_until(&self, now: Instant, sleep: Sleep) -> Option<Instant> {
        let linger = self.shared.config.delivery.linger.max(TIMER_GRAIN);
        let next_look = match sleep {
            Sleep::Dozing => Some(now + (linger - TIMER_ROUNDING)),
            Sleep::Parked | Sleep::Pressed => Some(now + PARKED_MAX),
            Sleep::Deaf => None,
        };
        let round = (!self.pipeline.is_empty() || self.open_events() > 0 || self.renderer.stamper.has_gaps())
            .then(|| now + REPORT_INTERVAL);
        let stats = self.next_stats();
        let close = self.closing.as_ref().map(|closing| closing.next_deadline(now));
        let flush = self.flushes.iter().map(|flush| flush.deadline).min();
        let frame = self.packer.as_ref().and_then(|packer| packer.next_deadline(&self.pipeline));
        let others = [self.pipeline.next_deadline(), self.notices.next_deadline(), self.spool_deadline(now)];
        [next_look, round, stats, close, flush, frame].into_iter().chain(others).flatten().min()
    }

    // ---- what happens --------------------------------------------------------------------------------------------------

    fn look_at_events(&mut self, now: Instant) {
        for _ in 0..EVENT_BATCH {
            let Some(event) = self.lent.to(|| self.sink.try_event()) else { break };
            self.was_of_use = true;
            self.handle_event(now, event);
        }
        while let Ok(command) = self.commands.try_recv() {
            self.handle_command(now, command);
        }
    }

    fn handle_event(&mut self, now: Instant, event: SinkEvent) {
        match event {
            SinkEvent::Connected(server) => {
                self.partition.set_connected(true);
                if std::mem::replace(&mut self.connected_before, true) {
                    self.shared.metrics.reconnected();
                }
                self.pipeline.handle_connected(now, server);
            }
            SinkEvent::Disconnected(why) => {
                self.partition.set_connected(false);
                let (kind, text) = (("server", "disconnected"), format!("not connected: {why}"));
                self.lent.to(|| self.notices.occurred(now, kind, 1, text));
                self.pipeline.handle_disconnected(now);
            }
            SinkEvent::Stream(state) => self.pipeline.handle_stream(now, state),
            SinkEvent::Reply(token, reply) => self.pipeline.handle_reply(now, token, reply),
            SinkEvent::BatchReply(token, reply) => self.pipeline.handle_batch_reply(now, token, reply),
            SinkEvent::Read(read) => self.pipeline.handle_read(now, read),
            SinkEvent::Denied(subject) => {
                // What is no subject of ours is of no message of ours.
                if let Some(route) = self.renderer.route_of(&subject) {
                    self.pipeline.handle_denied(now, &route);
                }
            }
        }
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Flush { deadline, done } => {
                let claims = self.consumers.iter().map(Consumer::claimed).collect();
                self.flushes.push(Flush { claims, number: None, deadline, done });
            }
            Command::Close { deadline, done } => self.begin_to_close(now, deadline, done),
        }
    }

    // ---- the books -----------------------------------------------------------------------------------------------------

    fn book(&mut self, now: Instant) {
        let wall = self.renderer.calendar.now();
        let Self {
            pipeline, accounts, renderer, latencies, shared, spooling, partition, lent, closing, ..
        } = self;
        let mut has_progressed = false;
        for outcome in pipeline.drain_outcomes() {
            let is_kept = outcome.is_given_up
                && closing.is_none()
                && matches!(outcome.fate, Fate::Dropped(Reason::NoStream | Reason::Permission));
            if is_kept {
                let subject = String::from_utf8_lossy(&outcome.message.route.subject);
                let why = format!("the stream {} did not take {subject:?}", partition.stream.name);
                if partition.hold_back(why) {
                    lent.to(|| {
                        tracing::error!(
                            "events stay in the spool: the stream {} did not take {subject:?}",
                            partition.stream.name
                        )
                    });
                }
            }
            book(accounts, &mut renderer.stamper, latencies, wall, &outcome);
            if let Some(spooling) = spooling {
                spooling.overflow.settle(&outcome);
            }
            has_progressed = true;
        }
        shared.metrics.take_latencies(latencies);
        for notice in self.pipeline.drain_notices() {
            let stream = self.partition.stream.name.as_str();
            self.lent.to(|| note(&mut self.notices, &self.shared.metrics, stream, now, notice));
        }
        self.lent.to(|| self.notices.summarize(now));
        let oldest_packed = self.packer.as_ref().and_then(Packer::oldest_offered);
        let oldest = [self.pipeline.oldest_offered(), oldest_packed].into_iter().flatten().min();
        self.partition.set_oldest_offered(oldest);
        if has_progressed {
            self.was_of_use = true;
            self.spool_progressed(now);
        }
        self.accounts.in_flight = self.open_events() as u64;
        self.accounts.spooled = self.spooling.as_ref().map_or(0, |spooling| spooling.overflow.spooled());
        self.accounts.engine = self.pipeline.engine();
        self.partition.publish_accounts(&self.accounts);
    }

    fn report_gaps(&mut self, now: Instant) {
        // While there is no connection gaps are gathered, however long it takes, and cost no memory.
        // One report is on its way at a time: where their subject takes none, they would else pile up.
        let is_on_its_way = self.last_gap.is_some_and(|number| !self.pipeline.is_settled(number));
        let is_time = now >= self.reported_at + REPORT_INTERVAL;
        let due = is_time && !is_on_its_way && self.pipeline.is_connected();
        if due && self.renderer.stamper.has_gaps() {
            self.reported_at = now;
            self.push_gaps();
            self.last_gap = self.pipeline.next_number().checked_sub(1);
        }
    }

    fn push_gaps(&mut self) {
        let shared = Arc::clone(&self.shared);
        for (ring, lane) in shared.lanes.of_partition(self.partition.index).enumerate() {
            if let Some(gap) = self.renderer.stamper.take_gap(ring, &lane.shed, &shared.catalogue) {
                self.push_report(report::GAP, &gap);
            }
        }
        for gap in self.renderer.stamper.take_past_gaps() {
            self.push_report(report::GAP, &gap);
        }
    }

    fn push_report(&mut self, name: &str, body: &impl Serialize) {
        match serde_json::to_vec(body) {
            Ok(body) => {
                self.has_reported = true;
                let renderer = &mut self.renderer;
                let Ok(()) =
                    self.pipeline.push::<Infallible>(|payload| Ok(renderer.report(name, &body, payload)));
            }
            Err(error) => {
                self.lent.to(|| tracing::error!("a report of the bus cannot be serialized: {error}"));
            }
        }
    }
}
