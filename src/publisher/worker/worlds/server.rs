//! A server of these worlds, and the sink that talks to it.

use super::seconds;
use crate::ledger::Reason;
use crate::publisher::outgoing::{Address, Op, Sending};
use crate::publisher::pipeline::{Read, ServerInfo, StreamInfo, StreamState};
use crate::publisher::reply::{BatchReply, Failure, Reply};
use crate::publisher::retry::{Cause, Verdict};
use crate::publisher::server::ServerVersion;
use crate::sink::{ConnectionLost, Sink, SinkEvent};
use crate::timer;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long the server takes to answer.
const LATENCY: Duration = Duration::from_micros(300);

/// How long a client waits for a server that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What is the matter with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Up,
    /// It takes batches.
    Batched,
    /// Nobody listens.
    Refused,
    /// It takes connections, and ends them at once.
    Flapping,
    /// It says nothing more, on no connection.
    Frozen,
    /// It cannot be looked at.
    Unseen,
    Missing,
    Full,
    /// The same, of a stream that takes batches.
    FullBatched,
    Sealed,
    Denied,
    Unavailable,
    TooMany,
}

impl Server {
    pub(super) const TROUBLES: [Self; 12] = [
        Self::Refused,
        Self::Flapping,
        Self::Frozen,
        Self::Unseen,
        Self::Missing,
        Self::Full,
        Self::FullBatched,
        Self::Sealed,
        Self::Denied,
        Self::Unavailable,
        Self::TooMany,
        // Of a stream without batches where nothing else is wanted.
        Self::Up,
    ];

    fn refusal(self) -> Option<(Verdict, &'static str)> {
        Some(match self {
            Self::Missing => (Verdict::Retry(Cause::NoStream), "no responders"),
            Self::Full | Self::FullBatched => {
                (Verdict::Retry(Cause::StreamFull), "maximum messages exceeded")
            }
            Self::Sealed => (Verdict::Final(Reason::Rejected), "invalid operation on sealed stream"),
            Self::Unavailable => (Verdict::Retry(Cause::Unavailable), "temporarily unavailable"),
            Self::TooMany => (Verdict::Retry(Cause::TooManyRequests), "too many requests"),
            _ => return None,
        })
    }

    pub(super) fn takes_batches(self) -> bool {
        matches!(self, Self::Batched | Self::FullBatched)
    }
}

pub(super) struct Net {
    pub(super) server: Server,
    pub(super) is_connected: bool,
    /// What will be heard, and when.
    pub(super) coming: VecDeque<(Instant, SinkEvent)>,
    pub(super) heard: VecDeque<SinkEvent>,
    /// Messages, and the events in them.
    pub(super) stored: u64,
    pub(super) stored_events: u64,
}

impl Net {
    fn after(&mut self, delay: Duration, event: SinkEvent) {
        let at = timer::now() + delay;
        let place = self.coming.partition_point(|(due, _)| *due <= at);
        self.coming.insert(place, (at, event));
    }

    pub(super) fn hear(&mut self, now: Instant) {
        while self.coming.front().is_some_and(|(due, _)| *due <= now) {
            let (_, event) = self.coming.pop_front().unwrap();
            match event {
                SinkEvent::Connected(_) => self.is_connected = true,
                SinkEvent::Disconnected(_) => self.lose(),
                _ => {}
            }
            self.heard.push_back(event);
        }
    }

    /// Nothing that was sent is answered any more.
    fn lose(&mut self) {
        self.is_connected = false;
        self.coming.clear();
    }
}

/// A sink of this server.
pub(super) struct Model(pub(super) Rc<RefCell<Net>>);

impl Sink for Model {
    fn connect(&mut self) {
        let mut net = self.0.borrow_mut();
        let server = ServerInfo { max_payload: 1 << 20, version: ServerVersion(2, 15, 1) };
        match net.server {
            Server::Refused => net.after(LATENCY, SinkEvent::Disconnected("refused".to_owned())),
            Server::Frozen => net.after(CONNECT_TIMEOUT, SinkEvent::Disconnected("silent".to_owned())),
            Server::Flapping => {
                net.after(LATENCY, SinkEvent::Connected(server));
                net.after(LATENCY * 2, SinkEvent::Disconnected("flapping".to_owned()));
            }
            _ => net.after(LATENCY, SinkEvent::Connected(server)),
        }
    }

    fn disconnect(&mut self) {
        let mut net = self.0.borrow_mut();
        net.lose();
        net.heard.push_back(SinkEvent::Disconnected("told to".to_owned()));
    }

    fn look_up_stream(&mut self) {
        let mut net = self.0.borrow_mut();
        let (server, stored) = (net.server, net.stored);
        let (delay, state) = match server {
            Server::Missing => (LATENCY, StreamState::Missing),
            Server::Unseen | Server::Frozen => (LOOK_TIMEOUT, StreamState::Unknown),
            _ => {
                let info = StreamInfo {
                    subjects: vec!["event.1.>".to_owned()],
                    allows_batches: server.takes_batches(),
                    created: "once".to_owned(),
                    first_sequence: 1,
                    last_sequence: stored,
                    duplicate_window: seconds(120),
                    message_bytes_max: None,
                    bytes_max: None,
                };
                (LATENCY, StreamState::Found(info))
            }
        };
        net.after(delay, SinkEvent::Stream(state));
    }

    fn read(&mut self, from: u64, to: u64) {
        // Others have removed them.
        let holes = to + 1 - from;
        self.0.borrow_mut().after(LATENCY, SinkEvent::Read(Read::Page { messages: Vec::new(), holes }));
    }

    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost> {
        let mut net = self.0.borrow_mut();
        if !net.is_connected {
            return Err(ConnectionLost);
        }
        let server = net.server;
        if server == Server::Frozen {
            return Ok(());
        }
        if server == Server::Denied {
            net.after(LATENCY, SinkEvent::Denied(sending.subject.clone()));
            return Ok(());
        }
        let refusal = server.refusal();
        if refusal.is_none() && !sending.payload.is_empty() {
            net.stored += 1;
            net.stored_events += sending.packed.map_or(1, |packed| packed.events.len() as u64);
        }
        let sequence = net.stored;
        net.after(
            LATENCY,
            match (sending.address, refusal) {
                (Address::Single(token), None) => {
                    SinkEvent::Reply(token, Reply::Stored { sequence, duplicate: false })
                }
                (Address::Single(token), Some((verdict, text))) => {
                    SinkEvent::Reply(token, Reply::Refused { verdict, text: text.to_owned() })
                }
                (Address::Batch(token), None) => {
                    let reply = match token.op {
                        Op::Start | Op::Append | Op::Ping => BatchReply::Ack { seq: token.seq, messages: 1 },
                        Op::Commit => BatchReply::Ended { count: token.seq, sequence },
                        Op::End => BatchReply::Ended { count: token.seq - 1, sequence },
                    };
                    SinkEvent::BatchReply(token, reply)
                }
                (Address::Batch(token), Some((verdict, text))) => {
                    let failure =
                        if token.op == Op::End { Failure::Unknown } else { Failure::Other(verdict) };
                    SinkEvent::BatchReply(token, BatchReply::Failed { failure, text: text.to_owned() })
                }
            },
        );
        Ok(())
    }

    async fn event(&mut self) -> SinkEvent {
        poll_fn(|_| match self.0.borrow_mut().heard.pop_front() {
            Some(event) => Poll::Ready(event),
            // The one who sleeps looks again.
            None => Poll::Pending,
        })
        .await
    }

    fn try_event(&mut self) -> Option<SinkEvent> {
        self.0.borrow_mut().heard.pop_front()
    }
}
