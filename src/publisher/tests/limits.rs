//! What the server takes at most, to the byte.

use super::rig::{Rig, Script, message};
use crate::config::Mode;
use crate::ledger::Reason;
use crate::publisher::outgoing::{Headers, MessageId};
use crate::publisher::pipeline::Fate;
use crate::publisher::stamp::ProducerNames;
use crate::publisher::window::{Origin, Past};
use crate::spool::LogId;
use std::convert::Infallible;

const MAX_PAYLOAD: usize = 4096;

/// An id in a log is the longest there is; that of a report in a spool, the longest with a name.
fn origins() -> [Origin; 4] {
    let past = Past::parse("ffffffffffffffff.4294967295.bus").unwrap();
    [Origin::Ring(3), Origin::Bus, Origin::Past(past), Origin::Log(LogId::NONE)]
}

#[test]
fn whoever_numbered_a_message_it_is_sent_if_and_only_if_the_server_takes_it() {
    let names = ProducerNames::new(0, 8);
    for mode in [Mode::Async, Mode::Auto] {
        for origin in origins() {
            for seq in [7, u64::MAX] {
                let id = Some(MessageId { origin, seq });
                let headers = Headers { id, frame: None, trace: None }.bytes(&names);
                for (len, fits) in [(MAX_PAYLOAD - headers, true), (MAX_PAYLOAD - headers + 1, false)] {
                    let mut rig = Rig::with_max_payload(mode, MAX_PAYLOAD);
                    let pushed: Result<(), Infallible> = rig.pipeline.push(|payload| {
                        payload.resize(payload.len() + len, b' ');
                        Ok(message(origin, seq, "event.1.a"))
                    });
                    pushed.unwrap();
                    assert_eq!(rig.send_all(|_| Script::Store).len(), usize::from(fits), "{origin:?} {len}");
                    rig.deliver();
                    rig.collect();
                    let fate = rig.outcomes.first().map(|outcome| outcome.fate);
                    let expected =
                        if fits { Fate::Acked { duplicate: false } } else { Fate::Dropped(Reason::TooLarge) };
                    assert_eq!(fate, Some(expected), "{origin:?} {len}");
                }
            }
        }
    }
}
