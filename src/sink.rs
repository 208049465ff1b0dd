//! Where messages go. The worker drives a sink; the sink knows nothing of events, accounts or retries.

pub(crate) mod file;
pub(crate) mod null;

use crate::publisher::outgoing::{BatchToken, Sending, Token};
use crate::publisher::pipeline::{Read, ServerInfo, StreamState};
use crate::publisher::reply::{BatchReply, Reply};
use bytes::Bytes;
use std::time::Duration;

/// A connection that can be made, lost, and made again. All calls come from the worker's one task.
pub(crate) trait Sink {
    /// Begins to connect; [`SinkEvent::Connected`] or [`SinkEvent::Disconnected`] will follow.
    fn connect(&mut self);

    /// Ends the connection. Nothing that was sent on it is answered any more; [`SinkEvent::Disconnected`] will follow.
    fn disconnect(&mut self);

    /// Asks for the stream; [`SinkEvent::Stream`] will follow.
    fn look_up_stream(&mut self);

    /// Reads the messages of the stream with these sequences; [`SinkEvent::Read`] will follow.
    fn read(&mut self, from: u64, to: u64);

    /// Hands something to the connection. An error means that the connection is gone.
    async fn send(&mut self, sending: Sending<'_>) -> Result<(), ConnectionLost>;

    /// Waits for something to happen. May be cancelled without losing anything.
    async fn event(&mut self) -> SinkEvent;

    /// What has happened already, without waiting.
    fn try_event(&mut self) -> Option<SinkEvent>;

    /// Ends in good order, at most for so long. Nothing is asked of it after that.
    async fn close(&mut self, _patience: Duration) {}
}

/// The connection is gone.
#[derive(Debug)]
pub(crate) struct ConnectionLost;

/// What a sink has to say.
#[derive(Debug)]
pub(crate) enum SinkEvent {
    Connected(ServerInfo),
    /// The connection was lost, or could not be made. Says why.
    Disconnected(String),
    Stream(StreamState),
    Reply(Token, Reply),
    BatchReply(BatchToken, BatchReply),
    Read(Read),
    /// The server does not permit publishing to this subject.
    Denied(Bytes),
}
