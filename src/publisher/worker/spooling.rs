//! The worker's dealings with the [spool](crate::overflow): when events go there, and how they come back.

use super::ending::Closing;
use super::{DRAIN_BATCH, IDLE_LINGER, Worker};
use crate::foreign::contained;
use crate::ledger::Reason;
use crate::overflow::{Findings, Happening, Inquiry, Known, Overflow};
use crate::publisher::packer::{Event, Packer};
use crate::publisher::pipeline::Pipeline;
use crate::publisher::window::Message;
use crate::sink::{Sink, SinkEvent};
use crate::timer;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Records taken out of the log before the rings are looked at again.
const REFILL_BATCH: usize = 1024;

/// The part of a close's time that is kept for writing down what is open.
const LAYING_DOWN: f64 = 0.3;
const LAYING_DOWN_MAX: Duration = Duration::from_secs(3);

/// A spool, and a second sink for what it has to ask the stream.
pub(crate) struct Spooling<S> {
    pub(super) overflow: Overflow,
    /// Until it is needed, which is once at most.
    inquirer: Option<S>,
    /// The same for the stream for which the records were, if that is another one.
    former: Option<S>,
    pub(super) inquiry: Option<Inquiry<S>>,
    /// When an event last met its fate, or none was open.
    progressed_at: Instant,
    /// Nobody could tell of an event whether it is stored, and this was said.
    has_undecided: bool,
    /// The keeper has ended.
    is_closed: bool,
}

/// What has happened around the spool.
pub(super) enum SpoolEvent {
    Keeper(Happening),
    Inquiry(SinkEvent),
}

impl<S: Sink> Spooling<S> {
    pub(crate) fn new(now: Instant, overflow: Overflow, inquirer: S) -> Self {
        Self {
            overflow,
            inquirer: Some(inquirer),
            former: None,
            inquiry: None,
            progressed_at: now,
            has_undecided: false,
            is_closed: false,
        }
    }

    /// The records were for another stream, of which this sink is.
    pub(crate) fn with_former(self, former: Option<S>) -> Self {
        Self { former, ..self }
    }

    /// Waits for something to happen. May be cancelled without losing anything.
    pub(super) async fn event(&mut self) -> SpoolEvent {
        let Self { overflow, inquiry, .. } = self;
        let Some(inquiry) = inquiry else { return SpoolEvent::Keeper(overflow.event().await) };
        tokio::select! {
            happening = overflow.event() => SpoolEvent::Keeper(happening),
            event = inquiry.event() => SpoolEvent::Inquiry(event),
        }
    }
}

/// Waits for something to happen around a spool that may not be there.
pub(super) async fn spool_event<S: Sink>(spooling: &mut Option<Spooling<S>>) -> SpoolEvent {
    match spooling {
        Some(spooling) => spooling.event().await,
        None => std::future::pending().await,
    }
}

impl<S: Sink> Worker<S> {
    // ---- in ----------------------------------------------------------------------------------------------------------------

    /// Whether events go to the spool at the moment.
    pub(super) fn spools(&self) -> bool {
        self.spooling.as_ref().is_some_and(|spooling| spooling.overflow.is_active())
    }

    /// Sends events to the spool from now on, if the window cannot take them, or nothing has met its fate for a while.
    pub(super) fn spool_if_due(&mut self, now: Instant) {
        self.note_progress_of_nothing(now);
        if self.spools() || !self.needs_spool(now) {
            return;
        }
        let Self { spooling, packer, pipeline, notices, .. } = self;
        let Some(spooling) = spooling else { return };
        if let Some(packer) = packer {
            packer.close_all(pipeline);
        }
        spooling.overflow.activate(now, pipeline);
        let text = "NATS is slower than the publishers, or away: events go to the spool";
        self.lent.to(|| notices.occurred(now, ("spool", "used"), 1, text.to_owned()));
    }

    /// When all of the log has been handed out, and the window is well, events need not go there any more. As long as nothing meets its fate they
    /// go there, even if the log is empty: its place is behind what the window holds.
    fn rest_if_due(&mut self, now: Instant) {
        if !self.spools() || self.needs_spool(now) {
            return;
        }
        let Self { spooling, notices, .. } = self;
        if spooling.as_mut().is_some_and(|spooling| spooling.overflow.rest_if_empty()) {
            let text = "the spool is empty: events go straight to the server again";
            self.lent.to(|| notices.came_about(now, ("spool", "empty"), text.to_owned()));
        }
    }

    /// Whether events have to go to the spool, whatever is there already.
    fn needs_spool(&self, now: Instant) -> bool {
        let is_crowded = || self.room() == 0 && self.fullest_ring_is_over(2);
        self.spooling.is_some() && (self.is_stuck(now) || is_crowded())
    }

    /// Whether nothing has met its fate for a while.
    fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|stuck_at| stuck_at <= now)
    }

    /// When that will be so, if nothing does until then.
    fn stuck_at(&self) -> Option<Instant> {
        let spooling = self.spooling.as_ref().filter(|_| self.open_events() > 0)?;
        Some(spooling.progressed_at + self.shared.config.delivery.ack_timeout)
    }

    /// Whether one of the rings is filled to more than this part of it.
    fn fullest_ring_is_over(&self, part: usize) -> bool {
        let mut lanes = self.shared.lanes.of_partition(self.partition.index);
        lanes.any(|lane| lane.ring.used_bytes() * part > lane.ring.capacity_bytes())
    }

    /// Moves events from the rings to the spool, as many as it takes.
    pub(super) fn spool_events(&mut self, now: Instant) -> usize {
        if self.waits_for_the_last_stretch(now) {
            return 0;
        }
        let rings = self.consumers.len();
        self.first_ring = (self.first_ring + 1) % rings.max(1);
        let mut taken = 0;
        for ring in (self.first_ring..rings).chain(0..self.first_ring) {
            taken += self.spool_from(ring);
        }
        if let Some(spooling) = &mut self.spooling {
            spooling.overflow.hand_over();
        }
        if taken > 0 {
            self.busy_at = now;
            self.shared.metrics.batch.observe(taken as f64);
        }
        taken
    }

    /// What little is left in the log goes to the window first, if it can, and the rings have room for what comes meanwhile. Else there would
    /// always be something in the log.
    pub(super) fn waits_for_the_last_stretch(&self, now: Instant) -> bool {
        let is_last = |spooling: &Spooling<S>| {
            let overflow = &spooling.overflow;
            !overflow.lays_down() && spooling.inquiry.is_none() && overflow.is_on_the_last_stretch()
        };
        self.spooling.as_ref().is_some_and(is_last)
            && !self.is_stuck(now)
            && self.pipeline.is_connected()
            && self.room() > 0
            && !self.fullest_ring_is_over(4)
    }

    fn spool_from(&mut self, ring: usize) -> usize {
        let takes = self.spooling.as_ref().is_some_and(|spooling| spooling.overflow.takes());
        self.spool_batch_from(ring, if takes { DRAIN_BATCH } else { 0 })
    }

    fn spool_batch_from(&mut self, ring: usize, limit: usize) -> usize {
        let refused = self.refused(ring);
        let Self { consumers, renderer, spooling, accounts, .. } = self;
        let Some(overflow) = spooling.as_mut().map(|spooling| &mut spooling.overflow) else { return 0 };
        let drained = consumers[ring].drain(limit, |record| {
            let added = renderer.number(ring, record).and_then(|event| {
                let message = event.message.clone();
                overflow.add(&message, |out| renderer.write(&event, out))
            });
            if let Err(reason) = added {
                accounts.dropped.add(reason, 1);
            }
        });
        accounts.dropped.add(Reason::Serialize, drained.aborted as u64);
        accounts.taken[ring] = consumers[ring].taken();
        if drained.records < limit && !drained.pending {
            renderer.stamper.pass_refusals(ring, refused);
        }
        drained.records
    }

    // ---- out ---------------------------------------------------------------------------------------------------------------

    /// Moves events from the log to the window, as many as it has room for. Returns how many records it was.
    pub(super) fn refill(&mut self, now: Instant) -> usize {
        let mut records = 0;
        while records < REFILL_BATCH && self.may_refill(now) && self.hand_out(now) {
            records += 1;
        }
        let could_send = self.pipeline.is_connected() && self.room() > 0;
        let Some(spooling) = &mut self.spooling else { return 0 };
        spooling.overflow.ask(could_send);
        // What is held back does not follow, and a batch must not wait for it.
        let more_waits = self.partition.held_back().is_none() && spooling.overflow.next().is_some();
        // As long as events come from the rings too, it has been said whether more of these wait.
        if more_waits || spooling.overflow.is_active() {
            self.pipeline.expect_more(more_waits);
        }
        records
    }

    /// Whether the window has room for what comes out of the log: all of it, or half while events come that may go there directly.
    fn may_refill(&self, now: Instant) -> bool {
        let Some(spooling) = &self.spooling else { return false };
        // A close does not wait for what another process has left: it is safe where it is.
        let is_left_alone = self.closing.is_some() && !spooling.overflow.holds_own();
        if is_left_alone || self.room() == 0 {
            return false;
        }
        // Before the stream was looked at nobody knows what it takes.
        if !self.pipeline.knows_its_stream() {
            return false;
        }
        if self.spools() || now >= self.busy_at + IDLE_LINGER {
            return true;
        }
        let (frames, bytes) = self.packer.as_ref().map_or((0, 0), |packer| (packer.frames(), packer.bytes()));
        !self.pipeline.is_half_full_beside(frames, bytes)
    }

    /// Hands out the next record of the log, as far as there is room for its events. Returns false if there is none.
    fn hand_out(&mut self, now: Instant) -> bool {
        let Self { spooling, pipeline, packer, renderer, accounts, notices, partition, .. } = self;
        let Some(Spooling { overflow, has_undecided, .. }) = spooling else { return false };
        let Some(handout) = overflow.next() else { return false };
        let Some(route) = renderer.route_of(&handout.subject()) else {
            // A whole log can be so.
            let text = "a record of the spool has a subject to which no message can be sent; it is dropped";
            contained(|| notices.occurred(now, ("spool", "unroutable"), 1, text.to_owned()));
            let frame = handout.frame();
            for (index, printed) in frame.iter().enumerate() {
                let Event { origin, seq, .. } = handout.event(index, printed);
                renderer.declare_lost(handout.record.subject, origin, (seq, seq), 1, Reason::Rejected);
            }
            accounts.dropped.add(Reason::Rejected, frame.len() as u64);
            accounts.recovered = (accounts.recovered + frame.len() as u64).saturating_sub(1);
            overflow.pop(0);
            return true;
        };
        if let Some(why) = pipeline.keeps_in_spool(&route) {
            if partition.hold_back(format!("the stream {} {why}", partition.stream.name)) {
                contained(|| {
                    tracing::error!(
                        "the stream {} {why}: the events in the spool stay there from this one on. Configure the stream that they were written for, or \
                         send them there by `jetring replay`; `jetring replay --discard` gives up what the stream does not take",
                        partition.stream.name
                    )
                });
            }
            return false;
        }
        let (frame, trace) = (handout.frame(), handout.trace().map(Rc::new));
        let (mut index, end) = handout.handed_out();
        let mut rest = frame.iter_from(index, end);
        let (mut open, mut events, mut undecided) = (0, 0, 0);
        // What others have put into the directory may have any number of events.
        while has_room(pipeline, packer)
            && let Some(printed) = rest.next()
        {
            let Event { origin, seq, offered, sequence } = handout.event(index, printed);
            let (to, trace) = (Rc::clone(&route), trace.clone());
            let message = Message { origin, seq, route: to, offered, packed: None, sequence, trace };
            let counts = u64::from(!message.is_report());
            events += counts;
            match handout.known(now, index) {
                Known::Open => {
                    open += 1;
                    // Reports are never packed, whosever they are.
                    let packer = packer.as_mut().filter(|_| !message.route.is_of_the_bus());
                    push(now, message, printed, packer, pipeline);
                }
                Known::Doubtful { until } => {
                    open += 1;
                    // By itself, since the server knows it by its own id, if at all.
                    let Ok(()) = pipeline.push_doubtful(now, until, |out| copy(printed, message, out));
                }
                Known::Undecided => {
                    undecided += counts;
                    renderer.stamper.indeterminate(origin, seq, &route.name);
                }
                Known::Stored => accounts.acked += counts,
                Known::Overtaken => {
                    accounts.dropped.add(Reason::Rejected, counts);
                    renderer.stamper.lost(origin, seq, &route.name, Reason::Rejected);
                }
            }
            index += 1;
        }
        accounts.recovered += events;
        accounts.indeterminate += undecided;
        if undecided > 0 && !std::mem::replace(has_undecided, true) {
            contained(|| {
                tracing::warn!(
                    "nobody can tell whether an earlier process has sent some of what it has left: messages were removed from the stream meanwhile, and the server may have forgotten their ids. These events are not sent again, and count as indeterminate"
                )
            });
        }
        if rest.len() > 0 {
            let end = frame.passed_by(&rest);
            overflow.pop_part(open, index, end);
            return true;
        }
        // A record counted as an event until it was read.
        accounts.recovered = accounts.recovered.saturating_sub(1);
        overflow.pop(open);
        true
    }

    // ---- what happens ------------------------------------------------------------------------------------------------------

    pub(super) fn handle_spool_event(&mut self, now: Instant, event: SpoolEvent) {
        match event {
            SpoolEvent::Keeper(happening) => self.handle_keeper(now, happening),
            SpoolEvent::Inquiry(event) => {
                let Some(inquiry) = self.spooling.as_mut().and_then(|spooling| spooling.inquiry.as_mut())
                else {
                    return;
                };
                if let Some(findings) = inquiry.handle(now, event) {
                    self.end_inquiry(now, findings);
                }
            }
        }
    }

    fn handle_keeper(&mut self, now: Instant, happening: Happening) {
        let is_packed = self.packer.is_some();
        let Self { spooling, pipeline, renderer, accounts, .. } = self;
        let Some(spooling) = spooling else { return };
        let Some(mut listing) = spooling.overflow.handle(happening, pipeline, renderer, accounts) else {
            return;
        };
        listing.is_of_former = spooling.former.is_some();
        match spooling.former.take().or_else(|| spooling.inquirer.take()) {
            Some(sink) => {
                let inquiry = Inquiry::new(now, sink, listing, is_packed);
                contained(|| {
                    tracing::info!(
                        events = inquiry.doubts(),
                        "an earlier process may have sent some of what it has left; the stream is read before it is sent again"
                    )
                });
                spooling.inquiry = Some(inquiry);
            }
            // Another log was put in the place of ours while we were running.
            None => spooling.overflow.learn(Findings::unknown()),
        }
    }

    fn end_inquiry(&mut self, now: Instant, findings: Findings) {
        let is_packed = self.packer.is_some();
        if let Some(spooling) = &mut self.spooling {
            if findings.is_elsewhere()
                && let (Some(sink), Some(former)) = (spooling.inquirer.take(), spooling.inquiry.take())
            {
                let mut listing = former.into_listing();
                listing.is_of_former = false;
                spooling.inquiry = Some(Inquiry::new(now, sink, listing, is_packed));
                return;
            }
            contained(|| tracing::info!(stored = findings.stored(), "the stream was read"));
            spooling.overflow.learn(findings);
            spooling.inquiry = None;
        }
    }

    /// Reads what the keeper has said, and lets time pass. Returns whether it has said anything.
    pub(super) fn tend_spool(&mut self, now: Instant) -> bool {
        let mut heard = false;
        while let Some(happening) = self.spooling.as_mut().and_then(|spooling| spooling.overflow.try_event())
        {
            self.handle_keeper(now, happening);
            heard = true;
        }
        if let Some(inquiry) = self.spooling.as_mut().and_then(|spooling| spooling.inquiry.as_mut()) {
            inquiry.handle_time(now);
        }
        self.note_progress_of_nothing(now);
        let Some(spooling) = &mut self.spooling else { return heard };
        spooling.overflow.note(now, &self.pipeline);
        self.rest_if_due(now);
        heard
    }

    /// While nothing is open, nothing can be stuck.
    fn note_progress_of_nothing(&mut self, now: Instant) {
        if self.open_events() == 0 {
            self.spool_progressed(now);
        }
    }

    /// Events have met their fate.
    pub(super) fn spool_progressed(&mut self, now: Instant) {
        if let Some(spooling) = &mut self.spooling {
            spooling.progressed_at = now;
        }
    }

    /// Whether anything may be sent, for all the spool knows.
    pub(super) fn may_send(&mut self, now: Instant) -> bool {
        let Self { spooling, pipeline, .. } = self;
        spooling.as_mut().is_none_or(|spooling| spooling.overflow.may_send(now, pipeline))
    }

    /// The next time that something has to be done for the spool even if nothing happens.
    pub(super) fn spool_deadline(&self, now: Instant) -> Option<Instant> {
        let spooling = self.spooling.as_ref()?;
        let overflow = &spooling.overflow;
        let stuck = self.stuck_at().filter(|_| !overflow.is_active());
        // The doorbell tells of a ring that has become half full, but only once; the window may have become full since.
        let crowded = (!overflow.is_active() && self.needs_spool(now)).then_some(now);
        let inquiry = spooling.inquiry.as_ref().map(Inquiry::next_deadline);
        let closing = self.closing.as_ref().filter(|closing| !closing.last_words_said);
        let laying_down = closing.filter(|_| !overflow.lays_down()).map(Closing::lay_down_at);
        [stuck, crowded, inquiry, laying_down, overflow.next_deadline()].into_iter().flatten().min()
    }

    // ---- close -------------------------------------------------------------------------------------------------------------

    /// Towards the end of a close everything that is open is written down. Returns whether that has been done, once it has begun.
    pub(super) fn lay_down_if_due(&mut self, now: Instant) -> Option<bool> {
        let is_time = self.closing.as_ref().is_some_and(|closing| now >= closing.lay_down_at());
        let Self { spooling, packer, pipeline, .. } = self;
        let spooling = spooling.as_mut()?;
        if is_time && !spooling.overflow.lays_down() {
            if let Some(packer) = packer {
                packer.close_all(pipeline);
            }
            spooling.overflow.lay_down(now, pipeline);
        }
        spooling.overflow.lays_down().then(|| spooling.overflow.is_settled())
    }

    /// The time is over: what is left in the rings goes to the log, too, and the disk has its last try. Returns whether something is on its way
    /// there.
    pub(super) fn lay_down_the_rest(&mut self) -> bool {
        for ring in 0..self.consumers.len() {
            // The rings are closed, so this ends, and it is no more than they had room for.
            while self.spool_batch_from(ring, DRAIN_BATCH) > 0 {}
        }
        let Some(spooling) = &mut self.spooling else { return false };
        spooling.overflow.try_for_the_last_time();
        spooling.overflow.is_on_its_way()
    }

    /// What was deleted from the log does not stay there.
    pub(super) fn forget_deleted(&mut self) {
        let Self { spooling, pipeline, .. } = self;
        if let Some(spooling) = spooling {
            spooling.overflow.forget_deleted(pipeline);
        }
    }

    /// Ends what the disk has not taken.
    pub(super) fn drop_returned(&mut self, reason: Reason) {
        let Self { spooling, renderer, accounts, .. } = self;
        if let Some(spooling) = spooling {
            spooling.overflow.drop_returned(reason, renderer, accounts);
        }
    }

    /// Leaves the reports that nobody has answered to the next process. Who was offered nothing and has lost nothing has nothing to say.
    pub(super) fn lay_reports_down(&mut self) {
        let stats = self.shared.stats_of(&self.partition);
        if let Some(spooling) = &mut self.spooling
            && (stats.offered > stats.recovered || stats.dropped.total() > 0)
        {
            spooling.overflow.lay_reports_down(&self.pipeline);
        }
    }

    /// Lets the keeper bring everything to the disk, and end. It is told what has met its fate when it has said all that there is to say, so that
    /// the next process does not take it up again. Returns at `deadline` if that takes longer.
    pub(super) async fn close_spool(&mut self, deadline: Instant) {
        while !self.is_spool_closed() {
            let Self { spooling, pipeline, .. } = self;
            let Some(spooling) = spooling else { return };
            if !spooling.overflow.is_on_its_way() {
                spooling.overflow.close(timer::now(), pipeline);
            }
            let happening = tokio::select! {
                happening = spooling.overflow.event() => happening,
                () = timer::sleep_until(Some(deadline)) => return,
            };
            spooling.is_closed = happening.is_the_end();
            self.handle_keeper(timer::now(), happening);
        }
    }

    /// Whether nothing more will be heard of a spool.
    pub(super) fn is_spool_closed(&self) -> bool {
        self.spooling.as_ref().is_none_or(|spooling| spooling.is_closed || spooling.overflow.is_alone())
    }
}

/// Whether the window takes another event.
fn has_room(pipeline: &Pipeline, packer: &Option<Packer>) -> bool {
    let room = match packer {
        None => pipeline.room(),
        Some(packer) => pipeline.room_beside(packer.frames(), packer.bytes()),
    };
    room > 0
}

/// Moves a printed event to the window, through a packer if there is one.
fn push(
    now: Instant,
    message: Message,
    printed: &[u8],
    packer: Option<&mut Packer>,
    pipeline: &mut Pipeline,
) {
    if let Some(packer) = packer {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(printed);
            Ok(())
        };
        let put = packer.put(now, &message, write, pipeline);
        debug_assert!(put.is_ok(), "what is printed already can be copied");
        return;
    }
    let Ok(()) = pipeline.push(|out| copy(printed, message, out));
}

fn copy(printed: &[u8], message: Message, out: &mut Vec<u8>) -> Result<Message, Infallible> {
    out.extend_from_slice(printed);
    Ok(message)
}

impl Closing {
    /// When what is open is written down.
    fn lay_down_at(&self) -> Instant {
        let time = self.give_up_at.saturating_duration_since(self.since);
        self.give_up_at - time.mul_f64(LAYING_DOWN).min(LAYING_DOWN_MAX)
    }
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::bus::Bus;
    use crate::config::{Config, Spool, SpoolFull};
    use crate::frame;
    use crate::sink::null::NullSink;
    use crate::spool::batch::Batch;
    use crate::spool::log::{Log, Options};
    use crate::spool::storage::disk::Disk;
    use crate::spool::tended::Place;
    use std::path::Path;
    use std::sync::Arc;

    const WINDOW: usize = 64;

    /// A directory that somebody has prepared: one record, a frame of so many empty lines, behind and before a plain one.
    fn prepare(path: &Path, lines: usize) {
        let options = Options::new(1 << 30, SpoolFull::DropNewest, true);
        let (mut log, _) = Log::open(Arc::new(Disk::open(path).unwrap()), options).unwrap();
        let headers = format!("{}: {}\r\n{}: {lines}\r\n", frame::CONTENT_TYPE, frame::NDJSON, frame::COUNT);
        let mut batch = Batch::default();
        batch.room().unwrap().push(b"event.1.a", b"", b"1").unwrap();
        batch.room().unwrap().push(b"event.1.a", headers.as_bytes(), &vec![b'\n'; lines]).unwrap();
        batch.room().unwrap().push(b"event.1.a", b"", b"2").unwrap();
        log.append(&mut batch, false).unwrap();
        log.close().unwrap();
    }

    #[test]
    fn a_frame_of_any_number_of_events_goes_to_the_window_in_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let lines = 100_000;
        prepare(directory.path(), lines);
        let mut config = Config::new("null:", "main", 1).unwrap();
        config.delivery.max_in_flight = WINDOW;
        let (bus, mut posts) = Bus::prepare(config).unwrap();
        let post = posts.remove(0);
        let place = Place::new(directory.path().to_owned(), &Spool::default(), Arc::default());
        let overflow = Overflow::start(place, post.producers.clone(), None, None).unwrap();
        let spooling = Spooling::new(Instant::now(), overflow, NullSink::default());
        let mut worker = Worker::new(post, NullSink::default(), None, Some(spooling), 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let events = lines as u64 + 2;
        while bus.stats().acked < events {
            let now = Instant::now();
            if !worker.tend_spool(now) && worker.open_events() == 0 {
                std::thread::yield_now();
            }
            worker.refill(now);
            // Reports of the bus may be pushed beyond the window.
            assert!(worker.open_events() <= WINDOW + 8, "{}", worker.open_events());
            worker.pipeline.handle_time(now);
            runtime.block_on(worker.carry_out(now));
            worker.look_at_events(now);
            worker.book(now);
            let stats = bus.stats();
            assert_eq!(stats.check(), Ok(()), "{stats:?}");
        }
        let stats = bus.stats();
        assert_eq!((stats.recovered, stats.acked, stats.held()), (events, events, 0), "{stats:?}");
        let Some(Spooling { overflow, .. }) = &mut worker.spooling else { panic!("it has a spool") };
        assert!(overflow.next().is_none() && overflow.is_settled() && overflow.spooled() == 0);
    }
}
