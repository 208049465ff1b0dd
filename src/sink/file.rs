//! `file:DIR`: a directory in the place of a server, with the same messages in a [log](crate::spool).
//!
//! ```text
//!   worker thread                                  keeper thread
//!   send ──► batch ─┐                              ┌─► append ──► sync, by the policy
//!                   └── event: hand the batch over ┘                 │
//!   event ◄──────────────── a reply for each message ◄───────────────┘
//! ```
//!
//! A disk can take its time, so a thread of its own waits for it, the *keeper*, and the worker goes on: it takes events from the rings,
//! keeps deadlines, and ends in time. Messages go over in batches, without a copy beside that into the batch.
//!
//! When a message is acknowledged is a matter of [`SpoolSync`]: with `every-batch` when it is on the disk, else when it is
//! written. What a full log refuses is dropped as `spool_full`; but not the reports of the bus, for which there is room for longer.
//! What the disk refuses waits and is tried again, with all that was sent behind it, so that the order stays.
//!
//! The pipeline is not told that there is no server. After a doubt (a keeper that was silent for too long) it looks for what it has sent
//! by reading, as it would in a stream.

mod keeper;

use super::{ConnectionLost, Sink, SinkEvent};
use crate::config::Config;
use crate::foreign::contained;
use crate::ledger::Reason;
use crate::metrics::SpoolMeter;
use crate::publisher::outgoing::{Address, Sending, Token};
use crate::publisher::reply::Reply;
use crate::publisher::retry::Verdict;
use crate::publisher::window::Origin;
use crate::spool::batch::Batch;
use crate::spool::tended::Place;
use crate::thread::{self, Thread};
use keeper::{Keeper, Order};
use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub(crate) struct FileSink {
    place: Place,
    connection: Option<Connection>,
    /// Counts the connections, so that the last words of one are not taken for those of the next.
    epoch: u64,
    /// Told by keepers.
    told: mpsc::UnboundedReceiver<(u64, Told)>,
    tell: mpsc::UnboundedSender<(u64, Told)>,
    /// Told by us, or taken out of what was told at once.
    events: VecDeque<SinkEvent>,
    headers: Vec<u8>,
    /// Refusals for the time being that we know of.
    refusals: u64,
}

struct Connection {
    /// The keeper ends when this is gone.
    orders: std_mpsc::Sender<Order>,
    post: Post,
}

/// Messages on their way to the log, and who waits for an answer to each.
#[derive(Debug, Default)]
struct Post {
    batch: Batch,
    tokens: Vec<Token>,
    /// They are reports of the bus.
    is_urgent: bool,
    /// How many refusals for the time being were known when they were sent.
    refusals: u64,
}

/// What a keeper says.
#[derive(Debug)]
enum Told {
    Event(SinkEvent),
    /// The same answer to each of these: stored, from this sequence on.
    Stored {
        post: Post,
        first_sequence: u64,
    },
    /// None of these was stored.
    Refused {
        post: Post,
        verdict: Verdict,
        text: String,
    },
    /// The keeper has ended.
    Ended,
}

impl FileSink {
    pub(crate) fn new(path: PathBuf, config: &Config, meter: Arc<SpoolMeter>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let place = Place::new(path, &config.spool, meter);
        Self {
            place,
            connection: None,
            epoch: 0,
            told,
            tell,
            events: VecDeque::new(),
            headers: Vec::new(),
            refusals: 0,
        }
    }

    /// Gives the keeper what has gathered.
    fn hand_over(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if connection.post.tokens.is_empty() {
            return;
        }
        let mut post = std::mem::take(&mut connection.post);
        post.refusals = self.refusals;
        // A keeper that is gone has said so, and nobody waits for an answer then.
        let _ = connection.orders.send(Order::Append(post));
    }

    fn order(&mut self, order: Order) {
        self.hand_over();
        if let Some(connection) = &self.connection {
            let _ = connection.orders.send(order);
        }
    }

    fn accept(&mut self, (epoch, told): (u64, Told)) {
        if epoch != self.epoch {
            return;
        }
        let stored =
            |first: u64, index: usize| Reply::Stored { sequence: first + index as u64, duplicate: false };
        match told {
            Told::Event(event) => {
                if matches!(event, SinkEvent::Disconnected(_)) {
                    self.connection = None;
                }
                self.events.push_back(event);
            }
            Told::Stored { post, first_sequence } => {
                let replies = post.tokens.iter().enumerate();
                self.events.extend(
                    replies.map(|(index, &token)| SinkEvent::Reply(token, stored(first_sequence, index))),
                );
                self.take_back(post);
            }
            Told::Refused { post, verdict, text } => {
                if matches!(verdict, Verdict::Retry(_)) && post.refusals == self.refusals {
                    // What was sent before we knew is refused too: it must not come before what is sent again.
                    self.hand_over();
                    self.refusals += 1;
                }
                let refused = || Reply::Refused { verdict, text: text.clone() };
                self.events.extend(post.tokens.iter().map(|&token| SinkEvent::Reply(token, refused())));
                self.take_back(post);
            }
            Told::Ended => {
                self.connection = None;
                self.events.push_back(SinkEvent::Disconnected("the log was closed".to_owned()));
            }
        }
    }

    /// Keeps the memory of a batch for the next one.
    fn take_back(&mut self, mut post: Post) {
        if let Some(connection) =
            self.connection.as_mut().filter(|connection| connection.post.tokens.is_empty())
        {
            post.batch.clear();
            post.tokens.clear();
            connection.post = post;
        }
    }
}

impl Sink for FileSink {
    fn connect(&mut self) {
        self.epoch += 1;
        let (orders, received) = std_mpsc::channel();
        let keeper = Keeper::new(self.place.clone(), received, self.epoch, self.tell.clone());
        let (epoch, tell) = (self.epoch, self.tell.clone());
        let keep = move || {
            thread::with(Thread::serve);
            // Nothing of the keeper is used after a panic, which a subscriber of our log may have; the next one reads the directory as after
            // a process that was killed.
            if contained(|| keeper.run()).is_none() {
                let _ = tell.send((epoch, Told::Ended));
            }
        };
        match std::thread::Builder::new().name("jetring-file".to_owned()).spawn(keep) {
            Ok(_) => self.connection = Some(Connection { orders, post: Post::default() }),
            Err(error) => {
                self.events.push_back(SinkEvent::Disconnected(format!("no thread for the log: {error}")))
            }
        }
    }

    fn disconnect(&mut self) {
        self.hand_over();
        self.epoch += 1;
        self.connection = None;
        self.events.clear();
        self.events.push_back(SinkEvent::Disconnected(format!("{} was silent", self.place.path.display())));
    }

    fn look_up_stream(&mut self) {
        self.order(Order::Look);
    }

    fn read(&mut self, from: u64, to: u64) {
        self.order(Order::Read { from, to });
    }

    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost> {
        let Address::Single(token) = sending.address else { return Err(ConnectionLost) };
        let is_urgent = sending.id.is_some_and(|id| id.origin == Origin::Bus);
        self.headers.clear();
        // A record is known by its place.
        sending.headers().each_beside_id(|name, value| {
            write!(self.headers, "{name}: {value}\r\n").expect("a vector takes whatever is written to it");
        });
        let Some(connection) = &mut self.connection else { return Err(ConnectionLost) };
        if connection.post.is_urgent != is_urgent || connection.post.batch.is_full() {
            self.hand_over();
        }
        let Some(Connection { post, .. }) = &mut self.connection else { return Err(ConnectionLost) };
        post.is_urgent = is_urgent;
        let room = post.batch.room().expect("a full batch was handed over");
        match room.push(sending.subject, &self.headers, sending.payload) {
            Ok(()) => post.tokens.push(token),
            Err(_too_large) => {
                let verdict = Verdict::Final(Reason::TooLarge);
                let text = "larger than a record of the log".to_owned();
                self.events.push_back(SinkEvent::Reply(token, Reply::Refused { verdict, text }));
            }
        }
        Ok(())
    }

    async fn event(&mut self) -> SinkEvent {
        self.hand_over();
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            match self.told.recv().await {
                Some(told) => self.accept(told),
                // We hold a sender ourselves, so the channel does not close.
                None => std::future::pending().await,
            }
        }
    }

    fn try_event(&mut self) -> Option<SinkEvent> {
        self.hand_over();
        while self.events.is_empty() {
            let told = self.told.try_recv().ok()?;
            self.accept(told);
        }
        self.events.pop_front()
    }

    async fn close(&mut self, patience: Duration) {
        self.hand_over();
        if self.connection.take().is_none() {
            return;
        }
        let deadline = tokio::time::Instant::from_std(Instant::now() + patience);
        let ended = async {
            while let Some((epoch, told)) = self.told.recv().await {
                // One that could not open the log has ended with that word.
                let is_end = matches!(told, Told::Ended | Told::Event(SinkEvent::Disconnected(_)));
                if epoch == self.epoch && is_end {
                    return;
                }
            }
        };
        if tokio::time::timeout_at(deadline, ended).await.is_err() {
            contained(|| {
                tracing::warn!("the log could not be closed in time; it is closed when the disk lets it be")
            });
        }
    }
}
