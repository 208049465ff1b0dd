//! Limits of the server and the stream, to the byte.

use crate::cli::{command, json_of};
use crate::server::{NatsServer, create_stream, stream_config, wait_until};
use crate::support::{CLOSE, LOAD, Numbered, STREAM, SUBJECTS, ask};
use jetring::{Bus, Config, Framing};

/// Events without a stamp have the longest ids there are: their log, and their place in it.
#[test]
fn records_of_a_log_are_sent_or_dropped_to_the_byte_and_the_connection_stays() {
    const MAX_PAYLOAD: usize = 2048;
    const EVENTS: u64 = 400;
    for mode in ["async", "auto"] {
        let parent = tempfile::tempdir().expect("a temporary directory");
        let path = parent.path().join("events");
        let path = path.to_str().expect("our own path");
        let mut config = Config::new(&format!("file:{path}"), STREAM, 1).expect("the url is valid");
        // The place of an event in its frame makes its number a long one.
        (config.delivery.stamp, config.delivery.framing) = (false, Framing::Packed);
        let bus = Bus::start(config).expect("the configuration is valid");
        for number in 0..EVENTS {
            // One byte longer each, from what fits to what does not.
            let event = Numbered::with_text(number, MAX_PAYLOAD - 350 + number as usize);
            wait_until("there is room", || bus.has_room(MAX_PAYLOAD * 2));
            assert!(bus.publish(LOAD, &event).is_accepted());
        }
        assert_eq!(bus.close(CLOSE).stats.acked, EVENTS);

        let server = NatsServer::builder().config(format!("max_payload: {MAX_PAYLOAD}")).start();
        ask(create_stream(&server.url(), stream_config(STREAM, &[SUBJECTS])));
        let mut replay = command(&["replay", path, "--url", &server.url(), "--json"])
            .env("JETRING_EVENT_BUS__DELIVERY__MODE", mode)
            .env("JETRING_EVENT_BUS__DELIVERY__FRAMING", "plain")
            .spawn()
            .expect("the tool starts");
        wait_until("all have met their fate", || replay.try_wait().expect("it is ours").is_some());
        let balance = json_of(&replay.wait_with_output().expect("it ends"));
        let too_large = balance["dropped"]["too_large"].as_u64().unwrap_or(0);
        assert!((50..EVENTS - 50).contains(&too_large), "{balance}");
        assert_eq!(balance["acked"].as_u64(), Some(EVENTS - too_large), "{balance}");
    }
}
