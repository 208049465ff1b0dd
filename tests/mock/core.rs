use async_nats::client::RequestErrorKind;
use futures_util::StreamExt;

use crate::server::connect;
use crate::target::{Target, ask, on_both};
use crate::wire::{Heard, Message, Wire};

on_both! {
    the_greeting_says_what_a_client_must_know,
    wildcards_match_tokens,
    a_subscription_ends_with_its_last_message,
    one_member_of_a_queue_group_gets_a_message,
    where_nobody_listens_a_request_is_told_so,
    headers_pass_through_to_the_byte,
    a_verbose_connection_confirms_everything,
    subjects_that_are_none_are_complained_of,
    who_wants_no_echo_gets_none,
    what_is_not_the_protocol_ends_the_connection,
    a_client_library_requests_and_replies,
}

fn subjects_and_sids(heard: &[Heard]) -> Vec<(String, String)> {
    let mut messages: Vec<_> = heard
        .iter()
        .map(|heard| match heard {
            Heard::Message(message) => (message.subject.clone(), message.sid.clone()),
            other => panic!("{other:?} in the place of a message"),
        })
        .collect();
    // The order of subscriptions is not promised.
    messages.sort();
    messages
}

fn pairs<'a>(expected: &[(&'a str, &'a str)]) -> Vec<(String, String)> {
    expected.iter().map(|(subject, sid)| ((*subject).to_owned(), (*sid).to_owned())).collect()
}

fn the_greeting_says_what_a_client_must_know(target: &Target) {
    let info = Wire::with(target, None).info;
    assert_eq!(info["headers"], true, "{info}");
    assert_eq!(info["jetstream"], true, "{info}");
    assert_eq!(info["max_payload"], 1 << 20, "{info}");
    assert_eq!(info["proto"], 1, "{info}");
    for member in ["server_id", "server_name", "version", "host"] {
        assert!(info[member].is_string(), "{member}: {info}");
    }
}

fn wildcards_match_tokens(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.say("SUB a.* 1\r\nSUB a.> 2\r\nSUB a.b 3\r\nSUB *.b 4\r\nSUB a 5\r\n");
    for (subject, sids) in
        [("a.b", &["1", "2", "3", "4"][..]), ("a.b.c", &["2"]), ("a", &["5"]), ("x.b", &["4"]), ("x", &[])]
    {
        wire.publish(subject, "", &[], "hi");
        let expected: Vec<_> = sids.iter().map(|sid| (subject, *sid)).collect();
        assert_eq!(subjects_and_sids(&wire.hear_all()), pairs(&expected), "{subject}");
    }
}

fn a_subscription_ends_with_its_last_message(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.say("SUB a 1\r\nSUB a 2\r\nSUB a 3\r\nPUB a 0\r\n\r\n");
    assert_eq!(wire.hear_all().len(), 3);
    // The maximum counts from the beginning.
    wire.say("UNSUB 1\r\nUNSUB 2 1\r\nUNSUB 3 2\r\nPUB a 0\r\n\r\nPUB a 0\r\n\r\n");
    assert_eq!(subjects_and_sids(&wire.hear_all()), pairs(&[("a", "3")]));
}

fn one_member_of_a_queue_group_gets_a_message(target: &Target) {
    const MESSAGES: usize = 20;
    let mut wire = Wire::connect(target);
    wire.say("SUB q g 1\r\nSUB q g 2\r\nSUB q 3\r\n");
    for _ in 0..MESSAGES {
        wire.publish("q", "", &[], "");
    }
    let heard = subjects_and_sids(&wire.hear_all());
    let of_group = heard.iter().filter(|(_, sid)| sid != "3").count();
    assert_eq!((of_group, heard.len()), (MESSAGES, 2 * MESSAGES), "{heard:?}");
}

fn where_nobody_listens_a_request_is_told_so(target: &Target) {
    let mut wire = Wire::connect(target);
    let answer = wire.request("nobody", &[], "hi");
    assert_eq!(answer.headers, "NATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n");
    assert_eq!((answer.payload.as_str(), answer.reply), ("", None));
    wire.say("SUB somebody 1\r\n");
    wire.publish("somebody", "_INBOX.wire", &[], "");
    wire.publish("nobody", "", &[], "");
    assert_eq!(subjects_and_sids(&wire.hear_all()), pairs(&[("somebody", "1")]));
    let mut unwilling = Wire::with(target, Some(r#"{"verbose":false}"#));
    unwilling.say("SUB r 1\r\nPUB nobody r 0\r\n\r\n");
    assert_eq!(unwilling.hear_all(), []);
}

fn headers_pass_through_to_the_byte(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.say("SUB h 1\r\n");
    wire.publish("h", "r", &[("A", "b"), ("a-B", "x: y")], "hi");
    wire.publish("h", "", &[("A", "b")], "");
    let message = |reply: Option<&str>, headers: &str, payload: &str| {
        Heard::Message(Message {
            subject: "h".to_owned(),
            sid: "1".to_owned(),
            reply: reply.map(str::to_owned),
            headers: headers.to_owned(),
            payload: payload.to_owned(),
        })
    };
    assert_eq!(
        wire.hear_all(),
        [
            message(Some("r"), "NATS/1.0\r\nA: b\r\na-B: x: y\r\n\r\n", "hi"),
            message(None, "NATS/1.0\r\nA: b\r\n\r\n", ""),
        ]
    );
}

fn a_verbose_connection_confirms_everything(target: &Target) {
    let mut wire = Wire::with(target, Some(r#"{"verbose":true}"#));
    wire.say("SUB a 1\r\nPUB b 0\r\n\r\nUNSUB 1\r\n");
    assert_eq!(wire.hear_all(), [Heard::Ok, Heard::Ok, Heard::Ok, Heard::Ok]);
    let mut silent_about_itself = Wire::with(target, None);
    silent_about_itself.say("PUB b 0\r\n\r\n");
    assert_eq!(silent_about_itself.hear_all(), [Heard::Ok]);
}

fn subjects_that_are_none_are_complained_of(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.say("SUB a..b 1\r\nSUB a.>.b 2\r\nPUB a.* 0\r\n\r\n");
    let complaint = |words: &str| Heard::Error(words.to_owned());
    assert_eq!(
        wire.hear_all(),
        [complaint("Invalid Subject"), complaint("Invalid Subject"), complaint("Invalid Publish Subject")]
    );
    // Client libraries are not so strict with what they publish: they name the filter of a consumer in a subject.
    let mut lenient = Wire::with(target, Some(r#"{"verbose":false,"pedantic":false}"#));
    lenient.say("SUB > 1\r\nSUB a..b 2\r\nPUB a.* 0\r\n\r\n");
    let heard = lenient.hear_all();
    assert_eq!((heard.len(), &heard[0]), (2, &complaint("Invalid Subject")), "{heard:?}");
    assert!(matches!(&heard[1], Heard::Message(message) if message.subject == "a.*"), "{heard:?}");
}

fn who_wants_no_echo_gets_none(target: &Target) {
    let mut wire = Wire::with(target, Some(r#"{"verbose":false,"echo":false}"#));
    let mut other = Wire::connect(target);
    wire.say("SUB a 1\r\nPUB a 0\r\n\r\n");
    assert_eq!(wire.hear_all(), []);
    other.say("PUB a 0\r\n\r\n");
    other.hear_all();
    assert_eq!(wire.hear_all().len(), 1);
}

fn what_is_not_the_protocol_ends_the_connection(target: &Target) {
    let long_line = format!("PUB {} 0\r\n\r\n", "a".repeat(5000));
    for (text, words) in [
        ("BOGUS\r\n", Some("Unknown Protocol Operation")),
        ("PUB a 2\r\nhixx\r\n", Some("Unknown Protocol Operation")),
        ("PUB a 2000000\r\n", Some("Maximum Payload Violation")),
        (&long_line, Some("maximum control line exceeded")),
        ("PUB a x\r\n", None),
        ("SUB a\r\n", None),
    ] {
        let mut wire = Wire::connect(target);
        wire.say(text);
        let expected: Vec<Heard> = words.map(|words| Heard::Error(words.to_owned())).into_iter().collect();
        assert_eq!(wire.hear_to_the_end(), expected, "{}", &text[..text.len().min(20)]);
    }
    let mut without_headers = Wire::with(target, Some(r#"{"verbose":false,"headers":false}"#));
    without_headers.publish("a", "", &[("A", "b")], "");
    assert_eq!(without_headers.hear_to_the_end(), []);
}

fn a_client_library_requests_and_replies(target: &Target) {
    ask(async {
        let (asking, answering) = (connect(&target.url()).await, connect(&target.url()).await);
        let mut questions = answering.subscribe("question.*").await.unwrap();
        answering.flush().await.unwrap();
        let answer = tokio::spawn(async move {
            let question = questions.next().await.unwrap();
            answering.publish(question.reply.unwrap(), question.payload).await.unwrap();
            answering.flush().await.unwrap();
        });
        // The subscription may be on its way still.
        let echoed = loop {
            match asking.request("question.1", "hi".into()).await {
                Ok(echoed) => break echoed,
                Err(error) => assert_eq!(error.kind(), RequestErrorKind::NoResponders),
            }
        };
        assert_eq!(&*echoed.payload, b"hi");
        answer.await.unwrap();
        let nobody = asking.request("nobody", "".into()).await.unwrap_err();
        assert_eq!(nobody.kind(), RequestErrorKind::NoResponders);
    });
}
