//! The spool: a log on disk between the rings and the window, for what the server does not take in time.
//!
//! ```text
//!                        ┌───────────────────────► window ───► server
//!     rings ──drain──────┤ as long as it has room    ▲
//!                        │                           │ pages, as room appears
//!                        ▼ once it has none          │
//!                     posts ───► log ───► pages ─────┘
//! ```
//!
//! Normally nothing is here: events go from the rings to the window. When the window has no room and a ring is more than half full, or when for
//! a while nothing has met its fate, the spool becomes *active*: then all events go to the end of the log, and the window is filled from its
//! front. So the order of each producer stays. When all of the log has been handed out, events go straight to the window again.
//!
//! **A record is an event**, printed, with its subject and its id. So events are counted by sequences, without reading them. Packed frames are
//! taken apart on their way in, and put together on their way out.
//!
//! **Shadows.** What is in the window when the spool becomes active is written to the log first, and stays in the window. So the log holds
//! everything from the oldest open event on, and neither the end of the process nor its kill loses any of it.
//!
//! **A backlog** that another process has left is sent from the front of the log in the same way, while events of this one go straight to the window:
//! their producers are others, so no order is owed between them. It takes half of the window then. What may have been sent before is looked
//! for in the stream first (`inquiry`).
//!
//! **What is lost** is counted as `spool_full`, whether it found no room, was deleted to make room, or is damaged. A gap says whose it was: as the record
//! says, or else as the records around it tell (`witness`). Of what nobody can tell the log says how many they are.
//!
//! | module | is |
//! | --- | --- |
//! | [`keeper`] | the thread that has the log |
//! | [`backlog`] | the log as it has it: what is read, handed out, and noted as sent |
//! | [`handed`] | what has been handed out, and up to where all of it has met its fate |
//! | [`notes`] | when it is noted what may be sent, and what has met its fate |
//! | [`floor`] | from where on in the stream what is in doubt would have to be looked for |
//! | [`page`], [`handout`] | a piece of the log on its way back; a record at its front |
//! | [`shadows`] | what the window holds, on its way to the log |
//! | [`identity`] | whose event a record is |
//! | [`losses`], [`witness`] | whose events were lost; how those around it tell whose a missing record was |
//! | [`inquiry`] | what another process has sent |

mod backlog;
mod floor;
mod handed;
mod handout;
mod identity;
mod inquiry;
mod keeper;
mod losses;
mod notes;
mod page;
mod shadows;
mod witness;

use handout::Rest;
pub(crate) use handout::{Handout, Known};
pub(crate) use inquiry::{Findings, Inquiry, Listing};

use crate::foreign::contained;
use crate::ledger::{Accounts, Reason};
use crate::publisher::pipeline::{Outcome, Pipeline};
use crate::publisher::render::Renderer;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::Message;
use crate::spool::LogId;
use crate::spool::tended::{Place, Tended};
use crate::thread::{self, Thread};
use floor::Floor;
use handed::Handed;
use identity::Identity;
pub(crate) use identity::Renaming;
use keeper::{Keeper, Order, Post, Progress, Shadow, Told};
use losses::Losses;
use page::{Front, Page};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Posts that may be on their way to the log. While a disk takes its time, the rings are where events wait.
const POSTS_MAX: usize = 8;

/// Pages that are asked for ahead.
const PAGES_AHEAD: usize = 2;

/// With so few events left in the log it is worth waiting until they have gone: then events go straight to the window again.
const LAST_STRETCH: u64 = 4096;

/// How often it is told what has met its fate.
const NOTE_INTERVAL: Duration = Duration::from_millis(100);

/// How long the server waits for such a note on a disk that takes its time.
const NOTE_PATIENCE: Duration = Duration::from_secs(1);

/// The spool of one worker, as the worker has it.
pub(crate) struct Overflow {
    /// The keeper ends when this is gone.
    orders: Option<std_mpsc::Sender<Order>>,
    told: mpsc::UnboundedReceiver<Told>,
    identity: Identity,
    /// The log, once it is open, and how often one was opened.
    log: Option<LogId>,
    opening: u64,
    is_active: bool,
    /// All that is open goes to the log, and nothing comes out of it any more.
    lays_down: bool,
    /// Events are sent in packed frames.
    is_packed: bool,
    /// The disk is not waited for any longer.
    has_last_try: bool,
    /// What gathers for the log.
    post: Post,
    /// Posts on their way that are no shadows.
    posted: usize,
    /// Messages whose shadows are on their way, and how many of each.
    shadowed: HashMap<u64, usize>,
    /// Events that gather, are on their way, or have come back unwritten.
    unwritten: u64,
    pages: VecDeque<Page>,
    /// Of the record at the front, what the window had no room for.
    rest: Option<Rest>,
    /// Pages that were asked for.
    reads: usize,
    /// What the disk refuses was asked for.
    wants_back: bool,
    handed: Handed,
    floor: Floor,
    /// Behind the last record.
    end: u64,
    /// All below was deleted from the log to make room, also what is still in memory.
    deleted_below: u64,
    /// Behind the last record that another process has written.
    inherited_end: u64,
    /// Events in the log that have not been handed out, or were given up.
    spooled: u64,
    /// How many of the last of them are not on the disk, although the policy wants them to be.
    unsynced: u64,
    /// What is told as written is not on the disk.
    syncs_fail: bool,
    /// What is known of the records that another process may have sent; none until it is.
    findings: Option<Findings>,
    /// Where they are.
    doubtful: [Range<u64>; 2],
    noted: Progress,
    /// Since when a note is on its way to the disk that must be there before anything is sent.
    noting_since: Option<Instant>,
    noted_at: Option<Instant>,
    headers: Vec<u8>,
}

impl Overflow {
    /// Starts the keeper of a log, which may have been opened already.
    pub(crate) fn start(
        place: Place,
        names: ProducerNames,
        renaming: Option<Renaming>,
        opened: Option<Tended>,
    ) -> io::Result<Self> {
        let identity = Identity::new(names).with_renaming(renaming);
        let (orders, received) = std_mpsc::channel();
        let (tell, told) = mpsc::unbounded_channel();
        let mut keeper = Keeper::new(place, identity.clone(), received, tell);
        // What is in it is known from the start then.
        if let Some(tended) = opened {
            keeper.take(tended);
        }
        let keep = move || {
            // A subscriber of our log must not wait here for a worker that waits for the disk.
            thread::with(Thread::serve);
            let _ = contained(|| keeper.run());
        };
        std::thread::Builder::new().name("jetring-spool".to_owned()).spawn(keep)?;
        Ok(Self::new(orders, told, identity))
    }

    fn new(orders: std_mpsc::Sender<Order>, told: mpsc::UnboundedReceiver<Told>, identity: Identity) -> Self {
        Self {
            orders: Some(orders),
            told,
            identity,
            log: None,
            opening: 0,
            is_active: false,
            lays_down: false,
            is_packed: false,
            has_last_try: false,
            post: Post::default(),
            posted: 0,
            shadowed: HashMap::new(),
            unwritten: 0,
            pages: VecDeque::new(),
            rest: None,
            reads: 0,
            wants_back: false,
            handed: Handed::new(0),
            floor: Floor::default(),
            end: 0,
            deleted_below: 0,
            inherited_end: 0,
            spooled: 0,
            unsynced: 0,
            syncs_fail: false,
            findings: None,
            doubtful: [0..0, 0..0],
            noted: Progress::default(),
            noting_since: None,
            noted_at: None,
            headers: Vec::new(),
        }
    }

    /// Says whether events are sent in packed frames. A later process must know it.
    pub(crate) fn set_packed(&mut self, is_packed: bool) {
        self.is_packed = is_packed;
    }

    /// Whether events go to the log.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Whether all that is open is being written down, for good.
    pub(crate) fn lays_down(&self) -> bool {
        self.lays_down
    }

    /// Events in the log, but for those that are in the window too, and for those that are not on the disk although the policy wants them to be.
    pub(crate) fn spooled(&self) -> u64 {
        self.spooled - self.unsynced()
    }

    /// Events that were taken from the rings and are in the window no more than they are spooled.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten + self.unsynced()
    }

    /// They are the last of the log, so what is handed out before them changes nothing.
    fn unsynced(&self) -> u64 {
        self.unsynced.min(self.spooled)
    }

    /// Whether events of this process are in the log and have not been handed out.
    pub(crate) fn holds_own(&self) -> bool {
        self.unwritten > 0 || (self.spooled > 0 && self.end > self.inherited_end)
    }

    /// Whether all that there is has a place in the log.
    pub(crate) fn is_settled(&self) -> bool {
        self.unwritten == 0 && !self.is_on_its_way()
    }

    /// Whether the disk has not said yet what became of something that it was given.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.posted > 0 || !self.shadowed.is_empty() || !self.post.batch.is_empty()
    }

    /// Whether that is the shadow of this message of the window.
    pub(crate) fn is_shadow_on_its_way(&self, number: u64) -> bool {
        self.shadowed.contains_key(&number)
    }

    /// Whether so little is left in the log that the rings may wait for it.
    pub(crate) fn is_on_the_last_stretch(&self) -> bool {
        self.spooled + self.unwritten <= LAST_STRETCH
    }

    fn order(&mut self, order: Order) {
        // A keeper that is gone has panicked; what it was given stays in flight, as with a disk that says nothing.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }

    // ---- in ----------------------------------------------------------------------------------------------------------------

    /// When all of the log has been handed out, events need not go there any more. Returns whether that is so from now on.
    pub(crate) fn rest_if_empty(&mut self) -> bool {
        let rests = self.is_active && !self.lays_down && self.spooled == 0 && self.unwritten == 0;
        self.is_active &= !rests;
        rests
    }

    /// Whether another event can be added now.
    pub(crate) fn takes(&self) -> bool {
        self.posted < POSTS_MAX
    }

    /// Adds an event, with what `write` appends as its payload. An error means that it is dropped.
    pub(crate) fn add(
        &mut self,
        message: &Message,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        self.write_headers(message.origin, message.seq, message);
        let subject = self.identity.recorded_subject(&message.route);
        let room = self.post.batch.room().expect("a full batch was handed over");
        room.push_written(&subject, &self.headers, write)?;
        self.unwritten += 1;
        self.hand_over_if_full();
        Ok(())
    }

    fn hand_over_if_full(&mut self) {
        if self.post.batch.is_full() {
            self.hand_over();
        }
    }

    /// Gives the keeper what has gathered.
    pub(crate) fn hand_over(&mut self) {
        if self.post.batch.is_empty() {
            return;
        }
        let post = std::mem::take(&mut self.post);
        if post.shadows.is_empty() {
            self.posted += 1;
        }
        self.order(Order::Append(post));
    }

    /// What the disk refuses from now on comes back refused, and is not tried again.
    pub(crate) fn try_for_the_last_time(&mut self) {
        self.hand_over();
        if !std::mem::replace(&mut self.has_last_try, true) {
            self.order(Order::TryForTheLastTime);
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------------------

    /// Asks for pages, if it is known which events of the log have been sent. If the server could take something, and nothing is left but what the
    /// disk refuses, that is asked for.
    pub(crate) fn ask(&mut self, could_send: bool) {
        let all_is_out = self.spooled == 0 && self.pages.is_empty() && self.unwritten > 0;
        if could_send && all_is_out && !self.lays_down && !self.wants_back {
            self.wants_back = true;
            self.order(Order::Return);
        }
        let may_read = self.log.is_none() || self.findings.is_some();
        while may_read && !self.lays_down && self.pages.len() + self.reads < PAGES_AHEAD {
            self.reads += 1;
            self.order(Order::Read { opening: self.opening });
        }
    }

    /// What is to be handed out next; [`pop`](Self::pop) follows.
    pub(crate) fn next(&mut self) -> Option<Handout<'_>> {
        while !self.lays_down
            && let Some(page) = self.pages.front_mut()
        {
            match page.front() {
                None => drop(self.pages.pop_front()),
                Some(Front::Passed { to }) => {
                    self.handed.pass_to(to);
                    page.pop();
                }
                Some(Front::Record { .. }) => return self.front(),
            }
        }
        None
    }

    fn front(&self) -> Option<Handout<'_>> {
        let Front::Record { sequence, message: record } = self.pages.front()?.front()? else { return None };
        let is_in_doubt =
            |sequence: NonZeroU64| self.doubtful.iter().any(|range| range.contains(&sequence.get()));
        let findings = self.findings.as_ref().filter(|_| sequence.is_some_and(is_in_doubt));
        let (log, identity, rest) = (self.log, &self.identity, self.rest.as_ref());
        Some(Handout { record, sequence, log, identity, findings, rest })
    }

    /// The record that [`next`](Self::next) gave was handed out, with so many events that are open.
    pub(crate) fn pop(&mut self, open: u32) {
        let rest = self.rest.take();
        let Some(page) = self.pages.front_mut() else { return };
        if let Some(Front::Record { sequence, .. }) = page.front() {
            match sequence {
                Some(sequence) => {
                    self.spooled -= 1;
                    match rest {
                        None => self.handed.hand_out(sequence.get(), open),
                        Some(_) => {
                            self.handed.hand_out_more(sequence.get(), open);
                            self.handed.settle(sequence.get());
                        }
                    }
                }
                None => self.unwritten -= 1,
            }
        }
        page.pop();
        self.forget_findings_if_passed();
    }

    /// A part of it was handed out: so many of its events, which end at this place of its frame. So many of them are open.
    pub(crate) fn pop_part(&mut self, open: u32, events: usize, end: usize) {
        let Some(handout) = self.front() else { return };
        let sequence = handout.sequence.map(NonZeroU64::get);
        let frame = handout.rest.is_none().then(|| handout.unpack().into_owned());
        match (&mut self.rest, frame) {
            (Some(rest), _) => {
                (rest.events, rest.end) = (events, end);
                sequence.into_iter().for_each(|sequence| self.handed.hand_out_more(sequence, open));
            }
            (none, Some(frame)) => {
                *none = Some(Rest { frame, events, end });
                // What is left of it is one open event more.
                sequence.into_iter().for_each(|sequence| self.handed.hand_out(sequence, open + 1));
            }
            (None, None) => {}
        }
    }

    /// What is known of records that another process may have sent is of use until they have been handed out.
    fn forget_findings_if_passed(&mut self) {
        let passed = self.handed.next();
        if let Some(findings) = &mut self.findings
            && !findings.is_empty()
            && self.doubtful.iter().all(|range| range.end <= passed)
        {
            *findings = Findings::default();
            self.doubtful = [0..0, 0..0];
        }
    }

    /// A message has met its fate, or was given up.
    pub(crate) fn settle(&mut self, outcome: &Outcome) {
        let message = &outcome.message;
        let events = message.packed.as_ref().map_or(&[][..], |packed| &packed.events);
        let sequences = events.iter().filter_map(|event| event.sequence);
        let own = message.sequence.filter(|_| message.packed.is_none());
        for sequence in sequences.chain(own) {
            match outcome.is_given_up {
                true => self.spooled += 1,
                false => self.handed.settle(sequence.get()),
            }
        }
    }

    /// What is in memory and was deleted from the log is in memory only: it does not stay there for the next process.
    pub(crate) fn forget_deleted(&mut self, pipeline: &mut Pipeline) {
        let forget = |page: &mut Page| page.forget_places_below(self.deleted_below);
        let forgotten: u64 = self.pages.iter_mut().map(forget).sum();
        self.unwritten += forgotten;
        self.spooled -= forgotten;
        pipeline.forget_spooled_below(self.deleted_below);
    }

    /// What has come back unwritten, and not been handed out, is dropped.
    pub(crate) fn drop_returned(&mut self, reason: Reason, renderer: &mut Renderer, accounts: &mut Accounts) {
        let mut losses = Losses::default();
        self.rest = None;
        for page in &mut self.pages {
            page.drain_unwritten(|record| losses.add(&self.identity, record.subject, record.headers));
        }
        self.unwritten -= losses.events;
        accounts.dropped.add(reason, losses.events);
        losses.declare(reason, renderer);
    }

    // ---- what the keeper says ----------------------------------------------------------------------------------------------

    /// Waits for the keeper to say something. May be cancelled without losing anything.
    pub(crate) async fn event(&mut self) -> Happening {
        match self.told.recv().await {
            Some(told) => Happening(told),
            // The keeper is gone, and nothing follows.
            None => std::future::pending().await,
        }
    }

    /// Whether the keeper is gone, and has not said that it ends.
    pub(crate) fn is_alone(&self) -> bool {
        self.told.is_closed() && self.told.is_empty()
    }

    /// What it has said already.
    pub(crate) fn try_event(&mut self) -> Option<Happening> {
        self.told.try_recv().ok().map(Happening)
    }

    /// Takes what the keeper says into account. Returns what another process may have sent, if that is to be found out now.
    pub(crate) fn handle(
        &mut self,
        Happening(told): Happening,
        pipeline: &mut Pipeline,
        renderer: &mut Renderer,
        accounts: &mut Accounts,
    ) -> Option<Listing> {
        match told {
            Told::Opened { opening, log, sent, end } => {
                (self.log, self.opening, self.reads) = (Some(log), opening, 0);
                (self.end, self.inherited_end, self.deleted_below) = (end, end, 0);
                self.handed = Handed::new(sent.confirmed);
                let recovered = end - sent.confirmed;
                self.spooled += recovered;
                accounts.recovered += recovered;
                if recovered > 0 {
                    contained(|| {
                        tracing::info!(events = recovered, "an earlier process has left events in the spool")
                    });
                }
                self.noted = Progress::of(sent);
                // Who had not seen a stream had not sent anything.
                self.doubtful = if sent.stream == 0 { [0..0, 0..0] } else { sent.doubtful() };
                if self.doubtful.iter().any(|range| !range.is_empty()) {
                    self.findings = None;
                    self.order(Order::List);
                } else {
                    self.findings = Some(Findings::default());
                }
            }
            Told::Listed(listing) if listing.is_whole && listing.doubts.is_empty() => {
                self.learn(Findings::default());
            }
            Told::Listed(listing) => return Some(listing),
            Told::Written { post, sequences } => self.written(post, sequences.start..sequences.end, pipeline),
            Told::Unsynced => self.syncs_fail = true,
            Told::Synced => (self.syncs_fail, self.unsynced) = (false, 0),
            Told::Refused(post) => self.refused(&post, renderer, accounts),
            Told::Returned(page) => {
                self.posted -= 1;
                self.wants_back = false;
                self.pages.push_back(page);
            }
            Told::Page(page) => {
                self.reads = self.reads.saturating_sub(1);
                self.lose(page.missing, accounts);
                page.losses.declare(Reason::SpoolFull, renderer);
                self.pages.push_back(page);
            }
            Told::Evicted { to, losses } => {
                self.deleted_below = to;
                self.lose(losses.events, accounts);
                losses.declare(Reason::SpoolFull, renderer);
                // However much is deleted, this is one word.
                if self.pages.is_empty() {
                    self.pages.push_back(Page::default());
                }
                self.pages.back_mut().into_iter().for_each(|page| page.pass_to(to));
            }
            Told::Gone => self.forget(pipeline, accounts),
            Told::Noted => self.noting_since = None,
            Told::Ended => {}
        }
        None
    }

    /// It is known now what of the doubtful records is stored, as far as it can be.
    pub(crate) fn learn(&mut self, findings: Findings) {
        self.findings = Some(findings);
    }

    fn written(&mut self, post: Post, sequences: Range<u64>, pipeline: &mut Pipeline) {
        let records = sequences.end - sequences.start;
        self.end = sequences.end;
        if post.shadows.is_empty() {
            self.posted -= 1;
            self.unwritten -= records;
            self.spooled += records;
            self.unsynced += if self.syncs_fail { records } else { 0 };
        } else {
            for (&shadow, sequence) in post.shadows.iter().zip(sequences) {
                self.end_shadow(shadow);
                let Shadow { number, index } = shadow;
                let place = NonZeroU64::new(sequence);
                // What has met its fate meanwhile is in the log for nothing.
                let is_open = place.is_some_and(|place| pipeline.set_spooled(number, index, place));
                self.handed.hand_out_ahead(sequence, u32::from(is_open));
            }
        }
        self.take_back(post);
    }

    fn refused(&mut self, post: &Post, renderer: &mut Renderer, accounts: &mut Accounts) {
        if !post.shadows.is_empty() {
            return post.shadows.iter().for_each(|&shadow| self.end_shadow(shadow));
        }
        self.posted -= 1;
        let mut losses = Losses::default();
        for record in post.batch.messages() {
            losses.add(&self.identity, record.subject, record.headers);
        }
        self.unwritten -= losses.events;
        accounts.dropped.add(Reason::SpoolFull, losses.events);
        losses.declare(Reason::SpoolFull, renderer);
    }

    fn lose(&mut self, events: u64, accounts: &mut Accounts) {
        self.spooled -= events;
        accounts.dropped.add(Reason::SpoolFull, events);
    }

    /// The log is gone. What is in memory of it goes on without it, the rest is lost.
    fn forget(&mut self, pipeline: &mut Pipeline, accounts: &mut Accounts) {
        let in_pages = self.pages.iter().map(|page| page.records_in_log() as u64).sum::<u64>();
        self.pages.iter_mut().for_each(Page::forget_places);
        self.unwritten += in_pages;
        self.spooled -= in_pages;
        self.lose(self.spooled, accounts);
        (self.syncs_fail, self.unsynced) = (false, 0);
        self.log = None;
        self.findings = None;
        self.handed = Handed::new(0);
        pipeline.forget_spooled();
    }

    /// Keeps the memory of a batch for the next one.
    fn take_back(&mut self, mut post: Post) {
        if self.post.batch.is_empty() && self.post.shadows.is_empty() {
            post.batch.clear();
            post.shadows.clear();
            post.is_urgent = false;
            self.post = post;
        }
    }

    /// Lets the keeper end, which brings everything to the disk first. It is over when [`Happening::is_the_end`].
    pub(crate) fn close(&mut self, now: Instant, pipeline: &Pipeline) {
        if self.orders.is_none() {
            return;
        }
        self.hand_over();
        if self.log.is_some() {
            self.send_note(now, pipeline);
        }
        self.orders = None;
    }
}

/// Something that the keeper has said.
pub(crate) struct Happening(Told);

impl Happening {
    /// Whether the keeper has ended.
    pub(crate) fn is_the_end(&self) -> bool {
        matches!(self.0, Told::Ended)
    }
}

#[cfg(all(test, not(jetring_loom)))]
pub(crate) mod by_hand;
#[cfg(all(test, not(jetring_loom)))]
mod damaged;
#[cfg(all(test, not(jetring_loom)))]
mod lives;
#[cfg(all(test, not(jetring_loom)))]
mod tests;
#[cfg(any(all(test, not(jetring_loom)), feature = "__internals"))]
pub(crate) mod trial;
