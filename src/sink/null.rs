//! `null:` takes every message and acknowledges it at once. For benches, which measure all that comes before the network.

use super::{ConnectionLost, Sink, SinkEvent};
use crate::publisher::pipeline::{ServerLimits, StreamState, Token};
use crate::publisher::reply::Reply;
use crate::publisher::window::Message;
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
        self.events.push_back(SinkEvent::Connected(ServerLimits { max_payload: usize::MAX }));
    }

    fn disconnect(&mut self) {
        self.events.clear();
        self.events.push_back(SinkEvent::Disconnected("told to".to_owned()));
    }

    fn look_up_stream(&mut self) {
        self.events.push_back(SinkEvent::Stream(StreamState::Unknown));
    }

    async fn send(&mut self, token: Token, _: &Message, _: &[u8]) -> Result<(), ConnectionLost> {
        self.stored += 1;
        self.events
            .push_back(SinkEvent::Reply(token, Reply::Stored { sequence: self.stored, duplicate: false }));
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
