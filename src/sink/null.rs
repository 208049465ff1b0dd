//! `null:` takes every message and acknowledges it at once. For benches, which measure all that comes before the network.

use super::{ConnectionLost, Sink, SinkEvent};
use crate::publisher::engine::ServerVersion;
use crate::publisher::outgoing::{Address, Op, Sending};
use crate::publisher::pipeline::{Read, ServerInfo, StreamState};
use crate::publisher::reply::{BatchReply, Reply};
use std::collections::VecDeque;
use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct NullSink {
    events: VecDeque<SinkEvent>,
    stored: u64,
    never: Notify,
}

impl Sink for NullSink {
    fn connect(&mut self) {
        let server = ServerInfo { max_payload: usize::MAX, version: ServerVersion::NONE };
        self.events.push_back(SinkEvent::Connected(server));
    }

    fn disconnect(&mut self) {
        self.events.clear();
        self.events.push_back(SinkEvent::Disconnected("told to".to_owned()));
    }

    fn look_up_stream(&mut self) {
        self.events.push_back(SinkEvent::Stream(StreamState::Unknown));
    }

    fn read(&mut self, from: u64, to: u64) {
        // Nothing is kept.
        self.events.push_back(SinkEvent::Read(Read::Page { messages: Vec::new(), holes: to + 1 - from }));
    }

    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost> {
        self.stored += 1;
        let sequence = self.stored;
        self.events.push_back(match sending.address {
            Address::Single(token) => SinkEvent::Reply(token, Reply::Stored { sequence, duplicate: false }),
            Address::Batch(token) => SinkEvent::BatchReply(
                token,
                match token.op {
                    Op::Start | Op::Append | Op::Ping => BatchReply::Ack { seq: token.seq, messages: 1 },
                    Op::Commit => BatchReply::Ended { count: token.seq, sequence },
                    Op::End => BatchReply::Ended { count: token.seq - 1, sequence },
                },
            ),
        });
        Ok(())
    }

    async fn event(&mut self) -> SinkEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.never.notified().await;
        }
    }

    fn try_event(&mut self) -> Option<SinkEvent> {
        self.events.pop_front()
    }
}
