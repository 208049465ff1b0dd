//! One connection: bytes in, operations to the broker, bytes out.

use super::broker::Outgoing;
use super::protocol;
use super::{READ_BYTES, Shared};
use bytes::BytesMut;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// How long a client may take to close a connection that we have ended. Were it closed at once with something unread in it, the client's
/// system would throw away what it was told last.
const LINGER: Duration = Duration::from_secs(1);

/// Serves a client until the connection ends.
pub(super) async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let Some((id, wake)) = shared.broker().admit() else { return };
    let _ = socket.set_nodelay(true);
    let (from_client, to_client) = socket.into_split();
    let writing = async {
        write(to_client, &shared, id, &wake).await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = read(from_client, &shared, id) => {}
        () = writing => {}
    }
    shared.broker().forget(id);
}

/// Ends when the client has closed.
async fn read(mut from_client: OwnedReadHalf, shared: &Shared, id: u64) {
    let mut received = BytesMut::with_capacity(READ_BYTES);
    let mut is_sound = true;
    let mut frozen = shared.broker().frozen.subscribe();
    loop {
        received.reserve(READ_BYTES);
        if !matches!(from_client.read_buf(&mut received).await, Ok(1..)) {
            return;
        }
        while is_sound {
            // The sender is a part of the broker, which we hold.
            let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
            let mut broker = shared.broker();
            let payload_max = broker.max_payload;
            match protocol::parse(&mut received, payload_max) {
                Ok(None) => break,
                Ok(Some(op)) => broker.handle(Instant::now(), id, op),
                Err(violation) => {
                    broker.violate(id, violation);
                    is_sound = false;
                }
            }
        }
        if !is_sound {
            // What comes behind it means nothing, and is read so that the client hears why.
            received.clear();
        }
        shared.deadlines_changed.notify_one();
    }
}

/// Ends when the client has been told everything, or does not listen any more.
async fn write(mut to_client: OwnedWriteHalf, shared: &Shared, id: u64, wake: &Notify) {
    let mut frozen = shared.broker().frozen.subscribe();
    loop {
        let _ = frozen.wait_for(|is_frozen| !is_frozen).await;
        let Some(Outgoing { bytes, is_last }) = shared.broker().take_outgoing(id) else { return };
        if to_client.write_all(&bytes).await.is_err() {
            return shared.broker().end(id);
        }
        if is_last {
            let _ = to_client.shutdown().await;
            return;
        }
        if bytes.is_empty() {
            wake.notified().await;
        }
    }
}
