use serde_json::{Value, json};

use crate::target::{Target, on_both};
use crate::wire::{Wire, refused};

on_both! {
    a_batch_is_acknowledged_as_it_was_granted,
    a_message_alone_is_a_batch,
    an_end_stores_nothing,
    a_gap_ends_the_batch_before_it,
    a_place_that_comes_again_ends_the_batch,
    a_ping_repeats_the_last_acknowledgement_and_finds_gaps,
    what_is_unknown_or_malformed_is_refused,
    a_stream_that_takes_no_batches_says_so,
    duplicates_count_and_are_not_stored,
    a_message_that_is_refused_ends_the_batch_before_it,
    a_first_message_that_is_refused_begins_nothing,
    one_that_is_too_large_leaves_a_gap,
    in_mode_ok_a_gap_is_told_and_passed_over,
    several_batches_share_the_flow,
    a_full_stream_ends_a_batch,
}

const START: u8 = 0;
const APPEND: u8 = 1;
const COMMIT: u8 = 2;
const END: u8 = 3;
const PING: u8 = 4;

/// A client with a stream that takes batches, and one that does not.
struct Batches {
    wire: Wire,
    mode: &'static str,
}

impl Batches {
    fn on(target: &Target) -> Self {
        let mut wire = Wire::connect(target);
        wire.make_stream("main", &["event.>"], json!({ "allow_batched": true, "allow_direct": true }));
        wire.make_stream("plain", &["plain.>"], json!({}));
        wire.say("SUB _INBOX.b.> 1\r\nSUB _INBOX.fence 2\r\n");
        Self { wire, mode: "fail" }
    }

    /// Says a part of a batch and returns what is answered.
    fn part(&mut self, batch: &str, flow: u32, place: u64, op: u8) -> Vec<Value> {
        self.part_with(batch, flow, place, op, &[], "x")
    }

    fn part_with(
        &mut self,
        batch: &str,
        flow: u32,
        place: u64,
        op: u8,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> Vec<Value> {
        let reply = format!("_INBOX.b.{batch}.{flow}.{}.{place}.{op}.$FI", self.mode);
        self.said("event.a", &reply, headers, payload)
    }

    /// What is answered to a message before what is answered to the next one, which the stream refuses.
    fn said(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &str) -> Vec<Value> {
        self.wire.publish(subject, reply, headers, payload);
        let stream_subject = if subject.starts_with("plain") { "plain.a" } else { "event.a" };
        self.wire.publish(stream_subject, "_INBOX.fence", &[("Nats-Expected-Stream", "none")], "");
        let mut answers = Vec::new();
        loop {
            let message = self.wire.hear_one();
            match message.sid.as_str() {
                "2" => return answers,
                _ => {
                    assert_eq!(message.subject, reply, "an answer goes where it was asked for");
                    answers.push(message.json());
                }
            }
        }
    }
}

fn ack(place: u64, granted: u64) -> Value {
    json!({ "type": "ack", "seq": place, "msgs": granted })
}

fn gap(expected: u64, came: u64) -> Value {
    json!({ "type": "gap", "last_seq": expected, "seq": came })
}

fn ended(batch: &str, count: u64, sequence: u64) -> Value {
    json!({ "stream": "main", "seq": sequence, "batch": batch, "count": count })
}

const NOTHING: [Value; 0] = [];

fn a_batch_is_acknowledged_as_it_was_granted(target: &Target) {
    let mut batches = Batches::on(target);
    assert_eq!(batches.part("b", 3, 1, START), [ack(0, 3)]);
    for place in 2..=6 {
        let expected = if place % 3 == 0 { vec![ack(place, 3)] } else { Vec::new() };
        assert_eq!(batches.part("b", 3, place, APPEND), expected, "place {place}");
    }
    assert_eq!(batches.part("b", 3, 7, COMMIT), [ended("b", 7, 7)]);
    let over = batches.part("b", 3, 8, APPEND);
    assert_eq!(
        over,
        [json!({
            "error": { "code": 400, "err_code": 10208, "description": "batch publish ID unknown" },
            "stream": "main",
            "seq": 0,
        })]
    );
    // An acknowledgement that falls due with a commit is not sent.
    assert_eq!(batches.part("c", 1, 1, START), [ack(0, 1), ack(1, 1)]);
    assert_eq!(batches.part("c", 1, 2, APPEND), [ack(2, 1)]);
    assert_eq!(batches.part("c", 1, 3, COMMIT), [ended("c", 3, 10)]);
}

fn a_message_alone_is_a_batch(target: &Target) {
    let mut batches = Batches::on(target);
    assert_eq!(batches.part("b", 500, 1, COMMIT), [ended("b", 1, 1)]);
    // So one can have the same name again.
    assert_eq!(batches.part("b", 500, 1, COMMIT), [ended("b", 1, 2)]);
}

fn an_end_stores_nothing(target: &Target) {
    let mut batches = Batches::on(target);
    assert_eq!(batches.part("b", 500, 1, START), [ack(0, 500)]);
    assert_eq!(batches.part("b", 500, 2, APPEND), NOTHING);
    assert_eq!(batches.part("b", 500, 3, END), [ended("b", 2, 2)]);
    assert_eq!(refused(&batches.part("b", 500, 3, END)[0]).1, 10208);
}

fn a_gap_ends_the_batch_before_it(target: &Target) {
    let mut batches = Batches::on(target);
    batches.part("b", 500, 1, START);
    batches.part("b", 500, 2, APPEND);
    assert_eq!(batches.part("b", 500, 5, APPEND), [gap(3, 5), ended("b", 2, 2)]);
    assert_eq!(refused(&batches.part("b", 500, 6, APPEND)[0]).1, 10208);
    // An end may come with any place, and says how far the batch has come.
    batches.part("c", 500, 1, START);
    assert_eq!(batches.part("c", 500, 9, END), [gap(2, 9), ended("c", 1, 3)]);
}

fn a_place_that_comes_again_ends_the_batch(target: &Target) {
    let mut batches = Batches::on(target);
    batches.part("b", 500, 1, START);
    batches.part("b", 500, 2, APPEND);
    assert_eq!(batches.part("b", 500, 2, APPEND), [gap(3, 2), ended("b", 2, 2)]);
}

fn a_ping_repeats_the_last_acknowledgement_and_finds_gaps(target: &Target) {
    let mut batches = Batches::on(target);
    batches.part("b", 2, 1, START);
    assert_eq!(batches.part("b", 2, 2, APPEND), [ack(2, 2)]);
    batches.part("b", 2, 3, APPEND);
    assert_eq!(batches.part("b", 2, 3, PING), [ack(2, 2)]);
    assert_eq!(batches.part("b", 2, 9, PING), [gap(4, 10), ended("b", 3, 3)]);
    assert_eq!(refused(&batches.part("b", 2, 3, PING)[0]).1, 10208);
}

fn what_is_unknown_or_malformed_is_refused(target: &Target) {
    let mut batches = Batches::on(target);
    let long = format!("_INBOX.b.{}.9.fail.1.0.$FI", "u".repeat(65));
    for (reply, err_code) in [
        ("_INBOX.b.u.9.fail.5.1.$FI", 10208),
        ("_INBOX.b.u.9.fail.5.3.$FI", 10208),
        ("_INBOX.b.u.9.fail.5.4.$FI", 10208),
        ("_INBOX.b.u.9.fail.1.4.$FI", 10208),
        ("_INBOX.b.u.9.fail.1.3.$FI", 10206),
        ("_INBOX.b.u.9.fail.1.1.$FI", 10206),
        ("_INBOX.b.u.9.fail.5.0.$FI", 10206),
        ("_INBOX.b.u.9.fail.0.0.$FI", 10206),
        ("_INBOX.b.u.9.fail.2.7.$FI", 10206),
        ("_INBOX.b.u.9.maybe.1.0.$FI", 10206),
        ("_INBOX.b.$FI", 10206),
        (&long, 10207),
    ] {
        let answers = batches.said("event.a", reply, &[], "x");
        assert_eq!(answers.iter().map(|answer| refused(answer).1).collect::<Vec<_>>(), [err_code], "{reply}");
    }
    // A flow that makes no sense is ten.
    assert_eq!(batches.said("event.a", "_INBOX.b.u.x.fail.1.0.$FI", &[], "x"), [ack(0, 10)]);
}

fn a_stream_that_takes_no_batches_says_so(target: &Target) {
    let mut batches = Batches::on(target);
    let answers = batches.said("plain.a", "_INBOX.b.u.9.fail.1.0.$FI", &[], "x");
    assert_eq!(refused(&answers[0]), (400, 10205, "batch publish is disabled"));
    batches.part("b", 500, 1, START);
    let plain = json!({ "name": "main", "subjects": ["event.>"], "allow_direct": true });
    let changed = batches.wire.api("STREAM.UPDATE.main", plain);
    assert!(changed["error"].is_null(), "{changed}");
    for op in [APPEND, END] {
        assert_eq!(refused(&batches.part("b", 500, 2, op)[0]).1, 10205);
    }
}

fn duplicates_count_and_are_not_stored(target: &Target) {
    let mut batches = Batches::on(target);
    let id = [("Nats-Msg-Id", "i")];
    assert_eq!(batches.part_with("b", 2, 1, START, &id, "x"), [ack(0, 2)]);
    assert_eq!(batches.part_with("b", 2, 2, APPEND, &id, "x"), [ack(2, 2)]);
    assert_eq!(batches.part_with("b", 2, 3, COMMIT, &id, "x"), [ended("b", 3, 1)]);
    let mut alone = ended("c", 1, 1);
    alone["duplicate"] = true.into();
    assert_eq!(batches.part_with("c", 500, 1, COMMIT, &id, "x"), [alone]);
}

fn a_message_that_is_refused_ends_the_batch_before_it(target: &Target) {
    let mut batches = Batches::on(target);
    batches.part("b", 500, 1, START);
    let wrong = [("Nats-Expected-Last-Sequence", "9999")];
    let error = json!({ "code": 400, "err_code": 10071, "description": "wrong last sequence: 1" });
    assert_eq!(
        batches.part_with("b", 500, 2, APPEND, &wrong, "x"),
        [json!({ "type": "err", "seq": 2, "error": error }), ended("b", 1, 1)]
    );
    assert_eq!(refused(&batches.part("b", 500, 3, APPEND)[0]).1, 10208);
}

fn a_first_message_that_is_refused_begins_nothing(target: &Target) {
    let mut batches = Batches::on(target);
    let wrong = [("Nats-Expected-Last-Sequence", "9999")];
    let error = json!({
        "error": { "code": 400, "err_code": 10071, "description": "wrong last sequence: 0" },
        "stream": "main",
        "seq": 0,
    });
    assert_eq!(batches.part_with("b", 500, 1, START, &wrong, "x"), [ack(0, 500), error.clone()]);
    assert_eq!(refused(&batches.part("b", 500, 2, APPEND)[0]).1, 10208);
    assert_eq!(batches.part_with("b", 500, 1, COMMIT, &wrong, "x"), [error]);
}

fn one_that_is_too_large_leaves_a_gap(target: &Target) {
    let mut batches = Batches::on(target);
    let limited = json!({ "name": "main", "subjects": ["event.>"], "allow_direct": true, "allow_batched": true, "max_msg_size": 10 });
    let changed = batches.wire.api("STREAM.UPDATE.main", limited);
    assert!(changed["error"].is_null(), "{changed}");
    let large = "x".repeat(11);
    let first = batches.part_with("a", 500, 1, START, &[], &large);
    assert_eq!(first.iter().map(|answer| refused(answer).1).collect::<Vec<_>>(), [10054]);
    batches.part("b", 500, 1, START);
    assert_eq!(refused(&batches.part_with("b", 500, 2, APPEND, &[], &large)[0]).1, 10054);
    assert_eq!(batches.part("b", 500, 3, APPEND), [gap(2, 3), ended("b", 1, 1)]);
    // If the place comes with a message that fits, nothing was missing.
    batches.part("c", 500, 1, START);
    assert_eq!(refused(&batches.part_with("c", 500, 2, COMMIT, &[], &large)[0]).1, 10054);
    assert_eq!(batches.part("c", 500, 2, COMMIT), [ended("c", 2, 3)]);
}

fn in_mode_ok_a_gap_is_told_and_passed_over(target: &Target) {
    let mut batches = Batches::on(target);
    batches.mode = "ok";
    assert_eq!(batches.part("b", 2, 1, START), [ack(0, 2)]);
    // What is missing counts, so an acknowledgement may fall due with it.
    assert_eq!(batches.part("b", 2, 3, APPEND), [gap(2, 3), ack(2, 2)]);
    assert_eq!(batches.part("b", 2, 4, APPEND), [ack(4, 2)]);
    assert_eq!(batches.part("b", 2, 7, APPEND), [gap(5, 7), ack(6, 2)]);
    assert_eq!(batches.part("b", 2, 8, COMMIT), [ended("b", 8, 5)]);
}

fn several_batches_share_the_flow(target: &Target) {
    let mut batches = Batches::on(target);
    assert_eq!(batches.part("a", 500, 1, START), [ack(0, 500)]);
    // The second one begins slowly.
    assert_eq!(batches.part("b", 500, 1, START), [ack(0, 1), ack(1, 2)]);
    assert_eq!(batches.part("b", 500, 2, APPEND), NOTHING);
    assert_eq!(batches.part("b", 500, 3, APPEND), [ack(3, 4)]);
    assert_eq!(batches.part("b", 500, 4, COMMIT), [ended("b", 4, 5)]);
    assert_eq!(batches.part("a", 500, 2, COMMIT), [ended("a", 2, 6)]);
}

fn a_full_stream_ends_a_batch(target: &Target) {
    let mut batches = Batches::on(target);
    batches.part("b", 500, 1, START);
    let full = json!({
        "name": "main", "subjects": ["event.>"], "allow_direct": true, "allow_batched": true, "max_msgs": 1, "discard": "new",
    });
    let changed = batches.wire.api("STREAM.UPDATE.main", full);
    assert!(changed["error"].is_null(), "{changed}");
    let error = json!({ "code": 503, "err_code": 10077, "description": "maximum messages exceeded" });
    assert_eq!(
        batches.part("b", 500, 2, APPEND),
        [json!({ "type": "err", "seq": 2, "error": error }), ended("b", 1, 1)]
    );
    let refused_first = batches.part("c", 500, 1, COMMIT);
    assert_eq!(refused(&refused_first[0]), (503, 10077, "maximum messages exceeded"));
}
