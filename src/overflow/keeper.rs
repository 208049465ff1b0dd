//! The thread that keeps the spool: it appends what the worker sends, reads it back page by page, notes what may have been sent on, and deletes what
//! has met its fate.
//!
//! **A disk that fails** holds nobody up for ever. What it does not take waits here, is tried again now and then, and goes back to the worker as it
//! is when all that was written before it has gone: then the order is kept, and the spool is as if it were not there. What it cannot read is
//! tried a few times, and then counted as lost, up to the next segment.
//!
//! **A directory that is deleted** is made anew. What was in it is lost, and counted.

use super::backlog::Backlog;
use super::identity::Identity;
use super::inquiry::Listing;
use super::losses::Losses;
use super::page::Page;
use crate::config::{SpoolFull, SpoolSync};
use crate::foreign::contained;
use crate::spool::LogId;
use crate::spool::batch::Batch;
use crate::spool::log::Refusal;
use crate::spool::sent::Sent;
use crate::spool::tended::{Hush, Place, RETRY, Tended};
use crate::timer;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Orders that share a sync, if so many are waiting.
const GROUP_MAX: usize = 64;

/// Between two attempts at what the disk refuses.
const PAUSE: Duration = Duration::from_millis(250);

/// How long what is written waits for its sync on a disk that refuses it, before the worker hears that it is written and no more. Then it can be
/// sent; it does not count as spooled.
const SYNC_PATIENCE: Duration = Duration::from_secs(1);

/// What the worker asks of its keeper.
#[derive(Debug)]
pub(super) enum Order {
    Append(Post),
    /// A page is wanted, as soon as there is one, of the log that was opened as the one of this number.
    Read {
        opening: u64,
    },
    /// The next post that the disk refuses is wanted back, when everything before it has been read.
    Return,
    /// What has met its fate.
    Note(Progress),
    /// What is it that may have been sent by another process?
    List,
    /// What cannot be written now, and from now on, is refused.
    TryForTheLastTime,
}

/// Records on their way to the log.
#[derive(Debug, Default)]
pub(super) struct Post {
    pub(super) batch: Batch,
    /// If they are shadows of what is in the window: whose, record by record.
    pub(super) shadows: Vec<Shadow>,
    /// These are the last words of a bus.
    pub(super) is_urgent: bool,
}

/// A record of what is in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shadow {
    /// The number of the message.
    pub(super) number: u64,
    /// Which of its events.
    pub(super) index: usize,
}

impl Post {
    fn is_shadow(&self) -> bool {
        !self.shadows.is_empty()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// As in [`Sent`].
    pub(super) confirmed: u64,
    pub(super) floor: u64,
    pub(super) stream: u64,
    pub(super) since: u64,
    pub(super) is_packed: bool,
}

impl Progress {
    pub(super) fn of(sent: Sent) -> Self {
        let Sent { confirmed, floor, stream, since, is_packed, .. } = sent;
        Self { confirmed, floor, stream, since, is_packed }
    }
}

/// What a keeper says.
#[derive(Debug)]
pub(super) enum Told {
    Opened {
        opening: u64,
        log: LogId,
        sent: Sent,
        end: u64,
    },
    Written {
        post: Post,
        sequences: Range<u64>,
    },
    /// What is told as written from here on is not on the disk, although the policy wants it to be, until [`Synced`](Self::Synced) follows.
    Unsynced,
    Synced,
    /// There is no room for these.
    Refused(Post),
    /// These could not be written, and everything before them has been read.
    Returned(Page),
    Page(Page),
    /// The oldest records were deleted to make room: all below this sequence. What of them was not handed out is lost.
    Evicted {
        to: u64,
        losses: Losses,
    },
    /// What was to be noted is.
    Noted,
    /// The log is not there any more.
    Gone,
    Listed(Listing),
    Ended,
}

pub(super) struct Keeper {
    place: Place,
    when_full: SpoolFull,
    identity: Identity,
    orders: Receiver<Order>,
    tell: UnboundedSender<Told>,
    backlog: Option<Backlog>,
    openings: u64,
    /// What is written and waits for its sync.
    waiting: VecDeque<(Post, Range<u64>)>,
    /// Since when a sync is refused.
    refused_since: Option<Instant>,
    /// The worker has heard of records that are not synced.
    is_told_unsynced: bool,
    /// What the disk does not take.
    stuck: VecDeque<Post>,
    /// Pages that are wanted.
    reads: usize,
    /// A post that is stuck is wanted back.
    is_wanted_back: bool,
    /// When what has failed is tried again.
    retry_at: Option<Instant>,
    /// What fails is not tried again.
    has_last_try: bool,
    trouble: Hush,
}

impl Keeper {
    pub(super) fn new(
        mut place: Place,
        identity: Identity,
        orders: Receiver<Order>,
        tell: UnboundedSender<Told>,
    ) -> Self {
        // Who makes room has to tell first whose events they are.
        let when_full = std::mem::replace(&mut place.options.when_full, SpoolFull::DropNewest);
        Self {
            place,
            when_full,
            identity,
            orders,
            tell,
            backlog: None,
            openings: 0,
            waiting: VecDeque::new(),
            refused_since: None,
            is_told_unsynced: false,
            stuck: VecDeque::new(),
            reads: 0,
            is_wanted_back: false,
            retry_at: None,
            has_last_try: false,
            trouble: Hush::default(),
        }
    }

    /// Keeps the log until nobody sends any more.
    pub(super) fn run(mut self) {
        self.begin();
        while let Ok(order) = self.next_order() {
            self.turn(order);
        }
        self.close();
    }

    pub(super) fn begin(&mut self) {
        if self.backlog.is_none() {
            self.open();
        }
    }

    /// Carries out an order, and those that wait already, and whatever is due.
    pub(super) fn turn(&mut self, order: Option<Order>) {
        if let Some(order) = order {
            self.carry_out(order);
            for _ in 1..GROUP_MAX {
                let Ok(next) = self.orders.try_recv() else { break };
                self.carry_out(next);
            }
        }
        self.try_again_if_due();
        self.tend();
        self.serve();
    }

    fn say(&self, told: Told) {
        // The worker may be gone; then nobody wants to hear it.
        let _ = self.tell.send(told);
    }

    fn open(&mut self) {
        match self.place.open() {
            Ok(tended) => self.take(tended),
            Err(error) => {
                self.complain(&format!("the spool cannot be opened: {error}"));
            }
        }
    }

    /// Keeps a log that is open.
    pub(super) fn take(&mut self, tended: Tended) {
        self.openings += 1;
        // Who asked for pages of another log asks again.
        self.reads = 0;
        let (sent, end) = (tended.log.sent(), tended.log.sequences().end);
        self.say(Told::Opened { opening: self.openings, log: tended.log.id(), sent, end });
        self.backlog = Some(Backlog::new(tended));
    }

    /// Something does not work, and is tried again.
    fn complain(&mut self, trouble: &str) {
        if self.trouble.may_speak() {
            contained(
                || tracing::warn!(path = %self.place.path.display(), "{trouble}; it is tried again, and until then events wait in memory only"),
            );
        }
        self.retry_at = Some(timer::now() + PAUSE);
    }

    /// When [`turn`](Self::turn) has to be called even if there is no order.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let sync = self.backlog.as_ref().and_then(|backlog| backlog.tended.next_sync());
        let waiting = self.backlog.as_ref().filter(|_| self.wants_sync());
        let waiting = waiting.map(|backlog| backlog.tended.synced_at() + RETRY);
        [sync, waiting, self.retry_at].into_iter().flatten().min()
    }

    fn next_order(&self) -> Result<Option<Order>, RecvTimeoutError> {
        let order = match self.next_due() {
            None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => self.orders.recv_timeout(due.saturating_duration_since(timer::now())),
        };
        match order {
            Ok(order) => Ok(Some(order)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        }
    }

    /// What is ordered already; an error if nobody sends any more.
    #[cfg(all(test, not(jetring_loom)))]
    pub(super) fn try_order(&self) -> Result<Option<Order>, RecvTimeoutError> {
        match self.orders.try_recv() {
            Ok(order) => Ok(Some(order)),
            Err(std::sync::mpsc::TryRecvError::Empty) => Ok(None),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            // Behind what waits already.
            Order::Append(post) if !self.stuck.is_empty() && !post.is_shadow() => self.stuck.push_back(post),
            Order::Append(post) => {
                if let Some(post) = self.append(post) {
                    self.stuck.push_back(post);
                }
            }
            Order::Read { opening } => self.reads += usize::from(opening == self.openings),
            Order::Return => self.is_wanted_back = true,
            Order::Note(progress) => {
                if let Some(backlog) = &mut self.backlog {
                    backlog.note(progress);
                }
                self.say(Told::Noted);
            }
            Order::List => {
                let listing = self.backlog.as_ref().map(|backlog| backlog.list(&self.identity));
                self.say(Told::Listed(listing.and_then(Result::ok).unwrap_or_default()));
            }
            Order::TryForTheLastTime => {
                self.has_last_try = true;
                self.try_stuck_for_the_last_time();
            }
        }
    }

    /// What has failed, once more.
    fn try_again_if_due(&mut self) {
        if self.retry_at.is_none_or(|at| at > timer::now()) {
            return;
        }
        self.retry_at = None;
        if self.backlog.is_none() {
            self.open();
        }
        while let Some(post) = self.stuck.pop_front() {
            if let Some(post) = self.append(post) {
                self.stuck.push_front(post);
                break;
            }
        }
    }

    // ---- in ----------------------------------------------------------------------------------------------------------------

    /// Writes records, or says that there is no room. What has to be tried again is returned.
    fn append(&mut self, mut post: Post) -> Option<Post> {
        loop {
            let Some(backlog) = &mut self.backlog else { return self.delay(post) };
            if post.is_shadow() {
                backlog.announce_shadow(post.batch.len() as u64);
            }
            match backlog.tended.log.append(&mut post.batch, post.is_urgent) {
                Ok(sequences) => {
                    self.written(post, sequences);
                    return None;
                }
                Err(Refusal::Full)
                    if !post.is_urgent && self.when_full == SpoolFull::DropOldest && self.evict() => {}
                Err(Refusal::Full) => {
                    if post.is_urgent {
                        contained(
                            || tracing::warn!(path = %self.place.path.display(), "the spool has no room for the last reports of the bus; what was lost stays undeclared"),
                        );
                    }
                    self.say(Told::Refused(post));
                    return None;
                }
                Err(Refusal::Gone) => self.lose_log(),
                Err(Refusal::Failed(error)) => {
                    self.complain(&format!("the spool cannot be written: {error}"));
                    return self.delay(post);
                }
            }
        }
    }

    fn delay(&mut self, post: Post) -> Option<Post> {
        if self.retry_at.is_none() {
            self.retry_at = Some(timer::now() + PAUSE);
        }
        // Shadows are in the window, and not held up by this.
        if post.is_shadow() || self.has_last_try {
            self.say(Told::Refused(post));
            return None;
        }
        Some(post)
    }

    fn written(&mut self, post: Post, sequences: Range<u64>) {
        let Some(backlog) = &mut self.backlog else { return };
        if post.is_shadow() {
            backlog.add_shadow(sequences.clone());
        }
        if backlog.tended.log.wants_sync() {
            backlog.tended.sync();
        }
        self.waiting.push_back((post, sequences));
        if !self.is_synced_first() {
            self.tell_written();
        }
    }

    /// Whether the policy is that nothing counts as spooled before it is on the disk.
    fn is_synced_first(&self) -> bool {
        self.place.sync == SpoolSync::EveryBatch
    }

    fn wants_sync(&self) -> bool {
        !self.waiting.is_empty() || self.is_told_unsynced
    }

    /// The same of records that are not on the disk.
    fn tell_unsynced(&mut self) {
        let is_news = self.is_synced_first() && !self.waiting.is_empty() && !self.is_told_unsynced;
        if is_news {
            self.is_told_unsynced = true;
            self.say(Told::Unsynced);
        }
        self.tell_written();
    }

    /// The same of records that are.
    fn tell_synced(&mut self) {
        self.tell_written();
        if std::mem::take(&mut self.is_told_unsynced) {
            self.say(Told::Synced);
        }
    }

    fn tell_written(&mut self) {
        let Some(backlog) = &mut self.backlog else { return };
        backlog.tell_all();
        for (post, sequences) in std::mem::take(&mut self.waiting) {
            self.say(Told::Written { post, sequences });
        }
    }

    /// Deletes the oldest segment, after a look at whose events are lost with it. Returns whether there was one to delete.
    fn evict(&mut self) -> bool {
        self.tell_unsynced();
        let Some(backlog) = &mut self.backlog else { return false };
        let Some(oldest) = backlog.tended.log.oldest() else { return false };
        let losses = backlog.losses(&self.identity, oldest.clone());
        if let Err(refusal) = backlog.tended.log.evict_oldest() {
            contained(|| tracing::debug!(?refusal, "the oldest segment cannot be deleted"));
            return false;
        }
        backlog.tended.tell_evicted();
        backlog.skip_to(oldest.end);
        self.say(Told::Evicted { to: oldest.end, losses });
        true
    }

    fn lose_log(&mut self) {
        contained(
            || tracing::error!(path = %self.place.path.display(), "the directory of the spool is gone; what was in it is lost, and it is made anew"),
        );
        self.tell_unsynced();
        self.backlog = None;
        self.is_told_unsynced = false;
        self.say(Told::Gone);
        self.open();
    }

    // ---- out ---------------------------------------------------------------------------------------------------------------

    fn tend(&mut self) {
        let Some(backlog) = &mut self.backlog else {
            self.place.meter.set_failing(true);
            return;
        };
        if !self.waiting.is_empty() || self.is_told_unsynced {
            match backlog.tended.sync() {
                true => {
                    self.refused_since = None;
                    self.tell_synced();
                }
                false => {
                    let since = *self.refused_since.get_or_insert_with(timer::now);
                    if timer::now() >= since + SYNC_PATIENCE {
                        self.tell_unsynced();
                    }
                }
            }
        }
        let Some(backlog) = &mut self.backlog else { return };
        backlog.tended.sync_if_due();
        backlog.tended.measure();
        self.place.meter.set_failing(!self.stuck.is_empty() || self.refused_since.is_some());
    }

    /// Hands out what is wanted.
    fn serve(&mut self) {
        loop {
            let has_unread = self.backlog.as_mut().is_some_and(Backlog::passes_to_unread);
            if !has_unread {
                return self.give_back();
            }
            let Some(backlog) = self.backlog.as_mut().filter(|_| self.reads > 0) else { return };
            match backlog.read(&self.identity) {
                Ok(page) => {
                    self.reads -= 1;
                    self.say(Told::Page(page));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.lose_log(),
                Err(error) => return self.complain(&format!("the spool cannot be read: {error}")),
            }
        }
    }

    /// All that was written has been read, so what the disk refuses may go without it.
    fn give_back(&mut self) {
        if !self.is_wanted_back {
            return;
        }
        if let Some(post) = self.stuck.pop_front() {
            self.is_wanted_back = false;
            self.say(Told::Returned(Page::of_batch(&post.batch)));
        }
    }

    fn try_stuck_for_the_last_time(&mut self) {
        for post in std::mem::take(&mut self.stuck) {
            if let Some(post) = self.append(post) {
                self.say(Told::Refused(post));
            }
        }
    }

    pub(super) fn close(mut self) {
        self.try_stuck_for_the_last_time();
        if let Some(backlog) = &mut self.backlog {
            // Nobody waits for it any more, and what was written must not be forgotten.
            while backlog.tended.log.has_unsynced() && !backlog.tended.sync() {
                std::thread::sleep(RETRY);
            }
        }
        self.tell_synced();
        if let Some(backlog) = self.backlog.take() {
            backlog.close();
        }
        self.say(Told::Ended);
    }
}
