//! The thread that keeps a log: it opens it, appends, syncs, answers, and closes it when nobody sends any more.
//!
//! What it was given it brings to an end, whatever has become of who gave it: the log has one owner, so the next connection comes only when
//! this one is through, and then sees all of it. While the disk refuses to sync what was taken, the keeper tries again and takes nothing more.
//! It never forgets what it has not brought to the disk, for the system would not tell the next one that it is not there.

use super::{Post, Told};
use crate::config::SpoolSync;
use crate::ledger::Reason;
use crate::publisher::pipeline::{Read, ServerInfo, StoredMessage, StreamInfo, StreamState};
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::server::ServerVersion;
use crate::sink::SinkEvent;
use crate::spool::batch::RECORD_BYTES_MAX;
use crate::spool::cursor::{Cursor, Item};
use crate::spool::log::Refusal;
use crate::spool::tended::{Place, RETRY, Tended};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Batches that share a sync, if so many are waiting.
const GROUP_MAX: usize = 64;

/// Of a record so much may be subject and headers.
const RECORD_SPARE: usize = 128 << 10;

/// What the sink asks of its keeper.
#[derive(Debug)]
pub(super) enum Order {
    Append(Post),
    Look,
    Read { from: u64, to: u64 },
}

pub(super) struct Keeper {
    place: Place,
    orders: Receiver<Order>,
    epoch: u64,
    tell: UnboundedSender<(u64, Told)>,
}

/// Why a keeper ends before it is asked to.
enum End {
    /// Nobody sends any more.
    Asked,
    /// The directory is gone.
    Lost,
}

impl Keeper {
    pub(super) fn new(
        place: Place,
        orders: Receiver<Order>,
        epoch: u64,
        tell: UnboundedSender<(u64, Told)>,
    ) -> Self {
        Self { place, orders, epoch, tell }
    }

    pub(super) fn run(self) {
        let path = self.place.path.display();
        let tended = match self.place.open() {
            Ok(tended) => tended,
            Err(error) => return self.disconnected(format!("{path}: {error}")),
        };
        let server =
            ServerInfo { max_payload: RECORD_BYTES_MAX - RECORD_SPARE, version: ServerVersion::NONE };
        self.say(Told::Event(SinkEvent::Connected(server)));
        Kept { keeper: self, tended, waiting: Vec::new(), refused: None }.run();
    }

    fn disconnected(&self, why: String) {
        self.say(Told::Event(SinkEvent::Disconnected(why)));
    }

    /// The sink may be gone; then nobody wants to hear it.
    fn say(&self, told: Told) {
        let _ = self.tell.send((self.epoch, told));
    }
}

struct Refused {
    /// As in [`Post::refusals`].
    refusals: u64,
    cause: Cause,
    text: String,
}

/// A keeper with its log.
struct Kept {
    keeper: Keeper,
    tended: Tended,
    /// What is written and waits for the sync to be answered, with its first sequence.
    waiting: Vec<(Post, u64)>,
    /// The last refusal for the time being: what was sent before the sink knew of it is refused too.
    refused: Option<Refused>,
}

impl Kept {
    fn run(mut self) {
        let end = loop {
            match self.next_order() {
                Ok(Some(order)) => {
                    if let Err(end) = self.carry_out(order) {
                        break end;
                    }
                }
                Ok(None) => self.tended.sync_if_due(),
                Err(end) => break end,
            }
            self.tended.measure();
        };
        match end {
            End::Lost => {
                let why = format!("{} is gone", self.keeper.place.path.display());
                self.keeper.disconnected(why);
            }
            End::Asked => self.close(),
        }
    }

    /// Waits for an order, at most until a sync is due.
    fn next_order(&self) -> Result<Option<Order>, End> {
        let order = match self.tended.next_sync() {
            None => self.keeper.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => self.keeper.orders.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        match order {
            Ok(order) => Ok(Some(order)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(End::Asked),
        }
    }

    /// Carries out an order, and those that wait already, which share its sync.
    fn carry_out(&mut self, first: Order) -> Result<(), End> {
        self.carry_out_one(first)?;
        for _ in 1..GROUP_MAX {
            let Ok(next) = self.keeper.orders.try_recv() else { break };
            self.carry_out_one(next)?;
        }
        self.settle_waiting();
        self.tended.sync_if_due();
        Ok(())
    }

    fn carry_out_one(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Append(post) => return self.append(post),
            Order::Look => {
                self.settle_waiting();
                self.keeper.say(Told::Event(SinkEvent::Stream(self.look())));
            }
            Order::Read { from, to } => {
                self.settle_waiting();
                let read = self.read(from, to).unwrap_or(Read::Failed);
                self.keeper.say(Told::Event(SinkEvent::Read(read)));
            }
        }
        Ok(())
    }

    fn append(&mut self, mut post: Post) -> Result<(), End> {
        if let Some(refused) = self.refused.as_ref().filter(|refused| post.refusals <= refused.refusals) {
            let (verdict, text) = (Verdict::Retry(refused.cause), refused.text.clone());
            self.keeper.say(Told::Refused { post, verdict, text });
            return Ok(());
        }
        let appended = self.tended.log.append(&mut post.batch, post.is_urgent);
        self.tended.tell_evicted();
        let (verdict, text) = match appended {
            Ok(sequences) => {
                if self.tended.log.wants_sync() {
                    self.tended.sync();
                }
                if self.keeper.place.sync == SpoolSync::EveryBatch {
                    self.waiting.push((post, sequences.start));
                } else {
                    self.keeper.say(Told::Stored { post, first_sequence: sequences.start });
                }
                return Ok(());
            }
            Err(Refusal::Gone) => return Err(End::Lost),
            // A report that is dropped would make a declared loss an undeclared one.
            Err(Refusal::Full) if post.is_urgent => (Verdict::Retry(Cause::StreamFull), self.full()),
            Err(Refusal::Full) => (Verdict::Final(Reason::SpoolFull), self.full()),
            Err(Refusal::Failed(error)) => {
                (Verdict::Retry(Cause::Unavailable), format!("{}: {error}", self.keeper.place.path.display()))
            }
        };
        if let Verdict::Retry(cause) = verdict {
            self.refused = Some(Refused { refusals: post.refusals, cause, text: text.clone() });
        }
        self.keeper.say(Told::Refused { post, verdict, text });
        Ok(())
    }

    fn full(&self) -> String {
        format!("the log in {} is full", self.keeper.place.path.display())
    }

    // ---- syncs -------------------------------------------------------------------------------------------------------------

    /// Brings to the disk what waits for that, however long it takes, and answers it.
    fn settle_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        while !self.tended.sync() {
            std::thread::sleep(RETRY);
        }
        for (post, first_sequence) in self.waiting.drain(..) {
            self.keeper.say(Told::Stored { post, first_sequence });
        }
    }

    fn close(mut self) {
        self.settle_waiting();
        // Also without a policy that says so: nobody waits for it any more.
        while self.tended.log.has_unsynced() && !self.tended.sync() {
            std::thread::sleep(RETRY);
        }
        self.tended.close();
        self.keeper.say(Told::Ended);
    }

    // ---- questions ---------------------------------------------------------------------------------------------------------

    fn look(&self) -> StreamState {
        let sequences = self.tended.log.sequences();
        StreamState::Found(StreamInfo {
            subjects: vec![">".to_owned()],
            allows_batches: false,
            created: self.tended.log.id().to_string(),
            first_sequence: sequences.start,
            last_sequence: sequences.end - 1,
            duplicate_window: Duration::ZERO,
            message_bytes_max: None,
            bytes_max: None,
        })
    }

    fn read(&self, from: u64, to: u64) -> io::Result<Read> {
        let mut messages = Vec::new();
        if let Some(mut cursor) = Cursor::open(Arc::clone(&self.tended.storage))? {
            cursor.skip_to(from);
            while let Some(item) = cursor.next()? {
                match item {
                    Item::Message(stored) if stored.sequence > to => break,
                    Item::Message(stored) if stored.sequence >= from => messages.push(StoredMessage {
                        subject: Bytes::copy_from_slice(stored.subject),
                        payload: Bytes::copy_from_slice(stored.payload),
                        frame_headers: Vec::new(),
                    }),
                    Item::Message(_) | Item::Missing(_) | Item::Damage(_) => {}
                }
            }
        }
        let holes = (to + 1 - from).saturating_sub(messages.len() as u64);
        Ok(Read::Page { messages, holes })
    }
}
