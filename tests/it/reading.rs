//! Reading a stream back: what `tap`, `verify` and every proof here stand on.

use crate::server::{
    NatsServer, PATIENCE, Reserved, connect, create_stream, stream_config, stream_state, wait_at_most,
};
use crate::support::{CLOSE, STREAM, SUBJECTS, ask, bus, config, server_with_stream};
use async_nats::jetstream::stream::{RetentionPolicy, Stream};
use async_nats::jetstream::{self, stream};
use futures_util::TryStreamExt;
use jetring::reader::{From, Reader, ReaderError};
use serde_json::{Value, json};

/// More than a reader asks for at once, so that most of it is still on the server.
const EVENTS: u64 = 20_000;

/// Enough for a test that reads them one by one.
const FEW: u64 = 2_000;

fn filled_server() -> NatsServer {
    let server = server_with_stream();
    publish(&server, EVENTS);
    server
}

fn publish(server: &NatsServer, events: u64) {
    let bus = bus(&server.url());
    let topic = bus.topic("read").expect("a valid name");
    for number in 0..events {
        while !topic.publish(&number).is_accepted() {
            std::thread::yield_now();
        }
    }
    assert!(bus.close(CLOSE).complete);
}

async fn open(url: &str) -> Reader {
    Reader::open(&config(url), "event.1.read", From::All, false).await.expect("it opens")
}

/// Reads to the end, and returns how many messages came. A reader that hangs fails the test.
async fn read_out(reader: &mut Reader) -> u64 {
    let mut read = 0;
    loop {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await.expect("a reader comes to its end");
        if next.expect("it reads").is_none() {
            return read;
        }
        read += 1;
    }
}

async fn stream_of(server: &NatsServer) -> Stream {
    jetstream::new(connect(&server.url()).await).get_stream(STREAM).await.expect("it is there")
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
        let mut reader = open(&server.url()).await;
        // Events that found no room were offered again, so there may be refusals, but not fewer events.
        assert_eq!(read_out(&mut reader).await, EVENTS);
    });
}

#[test]
fn what_is_removed_during_a_reading_does_not_keep_it_from_its_end() {
    let server = filled_server();
    ask(async move {
        let mut reader = open(&server.url()).await;
        reader.next().await.expect("it reads").expect("there are events");
        stream_of(&server).await.purge().await.expect("a stream can be purged");
        assert!(read_out(&mut reader).await < EVENTS, "most of it was still on the server");
    });
}

#[test]
fn what_comes_after_the_last_message_was_removed_is_not_read() {
    let server = server_with_stream();
    publish(&server, 3);
    ask(async move {
        let mut reader = open(&server.url()).await;
        let stream = stream_of(&server).await;
        stream.purge().await.expect("a stream can be purged");
        let publish = jetstream::new(connect(&server.url()).await);
        for _ in 0..3 {
            let ack = publish.publish("event.1.read", "later".into()).await.expect("it is sent");
            ack.await.expect("it is stored");
        }
        while let Some(received) = reader.next().await.expect("it reads") {
            assert_ne!(&received.payload[..], b"later");
        }
    });
}

#[test]
fn a_reading_does_not_believe_a_consumer_that_has_nothing_more() {
    let server = server_with_stream();
    publish(&server, FEW);
    ask(async move {
        let mut reader = open(&server.url()).await;
        reader.next().await.expect("it reads").expect("there are events");
        // As from a replica that has not caught up, nothing comes from this consumer any more.
        let stream = stream_of(&server).await;
        let consumers: Vec<String> = stream.consumer_names().try_collect().await.expect("it can list them");
        let context = jetstream::new(connect(&server.url()).await);
        for consumer in &consumers {
            let pause = json!({ "pause_until": "2100-01-01T00:00:00Z" });
            let paused = context.request(format!("CONSUMER.PAUSE.{STREAM}.{consumer}"), &pause).await;
            let paused: Value = paused.expect("it answers");
            assert_eq!(paused["paused"], true, "{paused}");
        }
        assert_eq!((consumers.len(), read_out(&mut reader).await), (1, FEW - 1));
    });
}

#[test]
fn a_work_queue_and_an_interest_stream_are_read_whole_and_nothing_is_taken_out() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let server = NatsServer::start();
        let url = server.url();
        ask(async {
            let config = stream::Config { retention, ..stream_config(STREAM, &[SUBJECTS]) };
            create_stream(&url, config).await;
            let consumer = jetstream::consumer::pull::Config {
                durable_name: Some("worker".to_owned()),
                ..Default::default()
            };
            stream_of(&server).await.create_consumer(consumer).await.expect("the only consumer");
        });
        publish(&server, FEW);
        ask(async {
            for _ in 0..2 {
                let mut reader = open(&url).await;
                assert_eq!(read_out(&mut reader).await, FEW, "{retention:?}");
            }
            assert!(stream_state(&url, STREAM).await.messages >= FEW);
        });
    }
}

#[test]
fn one_who_follows_a_work_queue_sees_what_comes() {
    let server = NatsServer::start();
    let url = server.url();
    ask(async {
        let config =
            stream::Config { retention: RetentionPolicy::WorkQueue, ..stream_config(STREAM, &[SUBJECTS]) };
        create_stream(&url, config).await;
        let mut reader = Reader::open(&crate::support::config(&url), "event.1.read", From::New, true)
            .await
            .expect("it opens");
        let context = jetstream::new(connect(&url).await);
        let ack = context.publish("event.1.read", "new".into()).await.expect("it is sent");
        ack.await.expect("it is stored");
        let next = tokio::time::timeout(PATIENCE, reader.next()).await.expect("it comes");
        assert_eq!(&next.expect("it reads").expect("a reader that follows has no end").payload[..], b"new");
    });
}

#[test]
fn a_replica_that_lags_behind_is_not_taken_for_the_stream() {
    let mut servers = cluster();
    let config = stream::Config { num_replicas: 3, ..stream_config(STREAM, &[SUBJECTS]) };
    ask(create_stream(&servers[0].url(), config));
    let mut stored = 0;
    for round in 0..3 {
        let leader = leader_of(&servers[0]);
        let follower = (leader + 1 + round % 2) % 3;
        servers[follower].kill();
        publish(&servers[leader], EVENTS);
        stored += EVENTS;
        servers[follower].restart();
        ask(async {
            let mut reader = open(&servers[follower].url()).await;
            assert_eq!(read_out(&mut reader).await, stored, "round {round}");
        });
    }
}

/// Three servers whose names end with their place.
fn cluster() -> Vec<NatsServer> {
    let routes: Vec<Reserved> = (0..3).map(|_| NatsServer::reserve()).collect();
    let all: Vec<_> = routes.iter().map(|route| format!("{:?}", route.url())).collect();
    let start = |(at, route): (usize, &Reserved)| {
        let (port, all) = (route.port(), all.join(", "));
        let cluster = format!(
            "server_name: n{at}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{all}] }}"
        );
        NatsServer::builder().config(cluster).start_without_waiting(NatsServer::reserve())
    };
    let mut servers: Vec<NatsServer> = routes.iter().enumerate().map(start).collect();
    servers.iter_mut().for_each(NatsServer::wait_until_ready);
    servers
}

/// The place of the server that leads the stream, once all replicas are current.
fn leader_of(server: &NatsServer) -> usize {
    let mut leader = None;
    wait_at_most(PATIENCE * 3, "the stream has a leader and current replicas", || {
        let cluster = ask(async { stream_of(server).await.cached_info().cluster.clone() });
        let cluster = cluster.expect("it is a cluster");
        leader = cluster.leader.filter(|_| cluster.replicas.iter().all(|replica| replica.current));
        leader.is_some()
    });
    let name = leader.expect("it was waited for");
    name.trim_start_matches('n').parse().expect("a name ends with its place")
}
