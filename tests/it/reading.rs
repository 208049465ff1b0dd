//! Reading a stream back: what `tap`, `verify` and every proof here stand on.

use crate::server::NatsServer;
use crate::support::{CLOSE, ask, bus, config, server_with_stream};
use jetring::reader::{From, Reader, ReaderError};

/// More than a reader asks for at once, so that most of it is still on the server.
const EVENTS: u64 = 20_000;

fn filled_server() -> NatsServer {
    let server = server_with_stream();
    let bus = bus(&server.url());
    let topic = bus.topic("read").expect("a valid name");
    for number in 0..EVENTS {
        while !topic.publish(&number).is_accepted() {
            std::thread::yield_now();
        }
    }
    assert!(bus.close(CLOSE).complete);
    server
}

#[test]
fn a_connection_that_is_lost_is_an_error_and_not_the_end_of_the_stream() {
    let mut server = filled_server();
    let url = server.url();
    ask(async move {
        let mut reader = Reader::open(&config(&url), "event.1.>", From::All, false).await.expect("it opens");
        assert!(reader.pending() >= EVENTS);
        reader.next().await.expect("it reads").expect("there are events");
        server.kill();
        let error = loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends as if all had been read"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReaderError::Stream(_)), "{error}");
    });
}

#[test]
fn a_reading_ends_with_the_last_message_that_was_there() {
    let server = filled_server();
    ask(async move {
        let mut reader =
            Reader::open(&config(&server.url()), "event.1.read", From::All, false).await.expect("it opens");
        let mut read = 0;
        while reader.next().await.expect("it reads").is_some() {
            read += 1;
        }
        // Events that found no room were offered again, so there may be refusals, but not fewer events.
        assert_eq!(read, EVENTS);
    });
}
