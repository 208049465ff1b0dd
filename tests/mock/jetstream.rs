use std::time::Duration;

use async_nats::jetstream::stream::{self, RawMessageErrorKind};
use async_nats::jetstream::{self, context::PublishErrorKind};
use serde_json::{Value, json};

use crate::server::{connect, stream_config, wait_until};
use crate::target::{Target, ask, on_both};
use crate::wire::{Wire, refused};

on_both! {
    a_stream_is_made_changed_and_deleted,
    what_cannot_be_made_is_refused,
    streams_are_listed,
    a_publish_is_acknowledged_with_stream_and_sequence,
    what_is_only_to_be_traced_is_not_stored,
    an_id_is_stored_once_within_the_window,
    expectations_that_are_not_met_refuse,
    a_stream_that_discards_new_messages_is_full,
    limits_remove_the_oldest_messages,
    a_message_is_found_by_sequence_and_by_subject,
    messages_are_deleted_and_purged,
    a_client_library_does_all_of_it,
}

fn a_stream_is_made_changed_and_deleted(target: &Target) {
    let mut wire = Wire::connect(target);
    let missing = wire.api("STREAM.INFO.main", Value::Null);
    assert_eq!(missing["type"], "io.nats.jetstream.api.v1.stream_info_response");
    assert_eq!(refused(&missing), (404, 10059, "stream not found"));
    let wanted = json!({ "name": "main", "subjects": ["event.1.>"], "allow_batched": true });
    let made = wire.api("STREAM.CREATE.main", wanted.clone());
    assert_eq!(made["type"], "io.nats.jetstream.api.v1.stream_create_response");
    assert_eq!(made["did_create"], true);
    assert_eq!(wire.api("STREAM.CREATE.main", wanted)["config"], made["config"], "the same again is as good");
    let info = wire.api("STREAM.INFO.main", Value::Null);
    assert_eq!((&info["created"], &info["config"]), (&made["created"], &made["config"]));
    for (member, expected) in [
        ("name", json!("main")),
        ("subjects", json!(["event.1.>"])),
        ("retention", json!("limits")),
        ("discard", json!("old")),
        ("storage", json!("file")),
        ("num_replicas", json!(1)),
        ("max_msgs", json!(-1)),
        ("max_bytes", json!(-1)),
        ("max_age", json!(0)),
        ("max_msg_size", json!(-1)),
        ("max_msgs_per_subject", json!(-1)),
        ("duplicate_window", json!(120_000_000_000u64)),
        ("allow_batched", json!(true)),
        ("allow_direct", json!(false)),
    ] {
        assert_eq!(info["config"][member], expected, "{member}");
    }
    for (member, expected) in [("messages", 0), ("first_seq", 0), ("last_seq", 0), ("consumer_count", 0)] {
        assert_eq!(info["state"][member], expected, "{member}");
    }
    let changed =
        wire.api("STREAM.UPDATE.main", json!({ "name": "main", "subjects": ["event.>"], "max_msgs": 7 }));
    assert_eq!(changed["type"], "io.nats.jetstream.api.v1.stream_update_response");
    assert_eq!((&changed["config"]["max_msgs"], &changed["created"]), (&json!(7), &made["created"]));
    assert_eq!(wire.store("event.2.a", &[], "hi"), json!({ "stream": "main", "seq": 1 }));
    assert_eq!(wire.api("STREAM.DELETE.main", Value::Null)["success"], true);
    assert_eq!(refused(&wire.api("STREAM.DELETE.main", Value::Null)).1, 10059);
    assert_eq!(wire.request("event.2.a", &[], "hi").status(), "503");
}

fn what_cannot_be_made_is_refused(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.1.>"], json!({}));
    for (request, config, expected) in [
        ("STREAM.CREATE.main", json!({ "name": "main", "subjects": ["event.2.>"] }), (400, 10058)),
        ("STREAM.CREATE.other", json!({ "name": "other", "subjects": ["event.*.x"] }), (400, 10065)),
        ("STREAM.CREATE.other", json!({ "name": "another", "subjects": ["x"] }), (400, 10056)),
        ("STREAM.CREATE.other", Value::Null, (400, 10056)),
        ("STREAM.CREATE.other", json!({ "name": "other", "num_replicas": 3 }), (500, 10074)),
        ("STREAM.UPDATE.other", json!({ "name": "other", "subjects": ["x"] }), (404, 10059)),
        (
            "STREAM.UPDATE.main",
            json!({ "name": "main", "subjects": ["event.1.>"], "storage": "memory" }),
            (500, 10052),
        ),
    ] {
        let answer = wire.api(request, config.clone());
        let (code, err_code, _) = refused(&answer);
        assert_eq!((code, err_code), expected, "{request} {config}");
    }
    let half = wire.request("$JS.API.STREAM.CREATE.other", &[], "{").json();
    assert_eq!((refused(&half).0, refused(&half).1), (400, 10025));
}

fn streams_are_listed(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("a", &["a.>"], json!({}));
    wire.make_stream("b", &["b.>"], json!({}));
    let all = wire.api("STREAM.NAMES", Value::Null);
    assert_eq!((&all["total"], &all["streams"]), (&json!(2), &json!(["a", "b"])));
    assert_eq!(wire.api("STREAM.NAMES", json!({ "subject": "b.1" }))["streams"], json!(["b"]));
    let list = wire.api("STREAM.LIST", Value::Null);
    assert_eq!((&list["total"], &list["streams"][1]["config"]["name"]), (&json!(2), &json!("b")));
    assert_eq!(wire.api("INFO", Value::Null)["streams"], 2);
}

fn a_publish_is_acknowledged_with_stream_and_sequence(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.1.>"], json!({}));
    wire.make_stream("silent", &["silent"], json!({ "no_ack": true }));
    for sequence in 1..=3 {
        assert_eq!(wire.store("event.1.a", &[], "hi"), json!({ "stream": "main", "seq": sequence }));
    }
    // It goes to subscribers as well.
    wire.say("SUB event.1.> 1\r\n");
    wire.publish("event.1.b", "", &[], "hello");
    assert_eq!(wire.hear_one().payload, "hello");
    wire.publish("silent", "_INBOX.wire", &[], "hi");
    // Each answer is one to a question about the stream.
    wait_until("it is stored", || wire.api("STREAM.INFO.silent", Value::Null)["state"]["messages"] == 1);
    let info = wire.api("STREAM.INFO.main", json!({ "subjects_filter": ">" }));
    assert_eq!(info["state"]["subjects"], json!({ "event.1.a": 3, "event.1.b": 1 }));
    // 30 bytes besides subject and payload.
    assert_eq!(info["state"]["bytes"], 4 * (30 + 9) + 3 * 2 + 5);
}

fn what_is_only_to_be_traced_is_not_stored(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({}));
    wire.say("SUB event.a 1\r\n");
    let headers = [("Nats-Trace-Dest", "_INBOX.traces"), ("Nats-Trace-Only", "true")];
    wire.publish("event.a", "_INBOX.wire", &headers, "hi");
    assert_eq!(wire.hear_all(), []);
    assert_eq!(wire.store("event.b", &[], "hi"), json!({ "stream": "main", "seq": 1 }));
}

fn an_id_is_stored_once_within_the_window(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({ "duplicate_window": 200_000_000 }));
    let id = [("Nats-Msg-Id", "i")];
    assert_eq!(wire.store("event.a", &id, "hi"), json!({ "stream": "main", "seq": 1 }));
    let duplicate = json!({ "stream": "main", "seq": 1, "duplicate": true });
    assert_eq!(wire.store("event.b", &id, "other"), duplicate);
    let mut again = Value::Null;
    wait_until("the id is forgotten", || {
        again = wire.store("event.a", &id, "hi");
        again != duplicate
    });
    assert_eq!(again, json!({ "stream": "main", "seq": 2 }));
}

fn expectations_that_are_not_met_refuse(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({}));
    wire.store("event.b", &[], "hi");
    wire.store("event.a", &[("Nats-Msg-Id", "i")], "hi");
    for (header, value, err_code, words) in [
        ("Nats-Expected-Stream", "other", 10060, "expected stream does not match"),
        ("Nats-Expected-Last-Sequence", "7", 10071, "wrong last sequence: 2"),
        ("Nats-Expected-Last-Subject-Sequence", "1", 10071, "wrong last sequence: 2"),
        ("Nats-Expected-Last-Msg-Id", "j", 10070, "wrong last msg ID: i"),
    ] {
        let answer = wire.store("event.a", &[(header, value)], "hi");
        assert_eq!(refused(&answer), (400, err_code, words), "{header}");
        assert_eq!((&answer["stream"], &answer["seq"]), (&json!("main"), &json!(0)));
    }
    for (header, value) in [
        ("Nats-Expected-Stream", "main"),
        ("Nats-Expected-Last-Sequence", "3"),
        ("Nats-Expected-Last-Subject-Sequence", "4"),
        ("Nats-Expected-Last-Subject-Sequence", "5"),
    ] {
        let answer = wire.store("event.a", &[(header, value)], "hi");
        assert!(answer["error"].is_null(), "{header}: {answer}");
    }
    // The last message had none.
    let answer = wire.store("event.a", &[("Nats-Expected-Last-Msg-Id", "i")], "hi");
    assert_eq!(refused(&answer), (400, 10070, "wrong last msg ID: "));
}

fn a_stream_that_discards_new_messages_is_full(target: &Target) {
    let mut wire = Wire::connect(target);
    for (name, limit, words) in [
        ("number", json!({ "max_msgs": 1 }), "maximum messages exceeded"),
        ("bytes", json!({ "max_bytes": 60 }), "maximum bytes exceeded"),
        (
            "subject",
            json!({ "max_msgs_per_subject": 1, "discard_new_per_subject": true }),
            "maximum messages per subject exceeded",
        ),
    ] {
        let mut config = limit;
        config["discard"] = "new".into();
        wire.make_stream(name, &[name], config);
        assert_eq!(wire.store(name, &[], "hi"), json!({ "stream": name, "seq": 1 }));
        assert_eq!(refused(&wire.store(name, &[], "hi")), (503, 10077, words));
    }
    wire.make_stream("small", &["small"], json!({ "max_msg_size": 3 }));
    let too_large = (400, 10054, "message size exceeds maximum allowed");
    assert_eq!(refused(&wire.store("small", &[], "four")), too_large);
    assert_eq!(refused(&wire.store("small", &[("A", "b")], "hi")), too_large, "headers count");
    assert_eq!(wire.store("small", &[], "hi"), json!({ "stream": "small", "seq": 1 }));
}

fn limits_remove_the_oldest_messages(target: &Target) {
    let mut wire = Wire::connect(target);
    for (name, limit, first) in [
        ("number", json!({ "max_msgs": 2 }), 4),
        ("bytes", json!({ "max_bytes": 80 }), 4),
        ("subject", json!({ "max_msgs_per_subject": 1 }), 5),
        ("nothing", json!({}), 1),
    ] {
        wire.make_stream(name, &[name], limit);
        for sequence in 1..=5 {
            assert_eq!(wire.store(name, &[], "hi"), json!({ "stream": name, "seq": sequence }));
        }
        let state = wire.api(&format!("STREAM.INFO.{name}"), Value::Null)["state"].clone();
        assert_eq!((&state["first_seq"], &state["last_seq"]), (&json!(first), &json!(5)), "{name}");
        assert_eq!(state["messages"], 6 - first, "{name}");
    }
    wire.make_stream("age", &["age"], json!({ "max_age": 200_000_000, "duplicate_window": 100_000_000 }));
    wire.store("age", &[], "hi");
    wait_until("the message is too old", || {
        wire.api("STREAM.INFO.age", Value::Null)["state"]["messages"] == 0
    });
    let state = wire.api("STREAM.INFO.age", Value::Null)["state"].clone();
    assert_eq!((&state["first_seq"], &state["last_seq"]), (&json!(2), &json!(1)));
}

fn a_message_is_found_by_sequence_and_by_subject(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({ "allow_direct": true }));
    wire.make_stream("indirect", &["indirect"], json!({}));
    wire.store("event.a", &[("Nats-Msg-Id", "i")], "one");
    wire.store("event.b", &[], "two");
    wire.store("event.a", &[], "");
    let found = [
        (json!({ "seq": 2 }), Some(2)),
        (json!({ "last_by_subj": "event.a" }), Some(3)),
        (json!({ "seq": 1, "next_by_subj": "event.*" }), Some(1)),
        (json!({ "seq": 2, "next_by_subj": "event.a" }), Some(3)),
        (json!({ "seq": 9 }), None),
        (json!({ "last_by_subj": "event.z" }), None),
    ];
    for (question, sequence) in found {
        let told = wire.api("STREAM.MSG.GET.main", question.clone());
        let direct = wire.request("$JS.API.DIRECT.GET.main", &[], &question.to_string());
        match sequence {
            Some(sequence) => {
                assert_eq!(told["message"]["seq"], sequence, "{question}");
                assert_eq!(direct.header("Nats-Sequence"), Some(&*sequence.to_string()), "{question}");
            }
            None => {
                assert_eq!(refused(&told), (404, 10037, "no message found"), "{question}");
                assert_eq!(direct.status(), "404 Message Not Found", "{question}");
            }
        }
    }
    let first = wire.api("STREAM.MSG.GET.main", json!({ "seq": 1 }))["message"].clone();
    assert_eq!((&first["subject"], &first["data"]), (&json!("event.a"), &json!("b25l")));
    assert_eq!(first["hdrs"], "TkFUUy8xLjANCk5hdHMtTXNnLUlkOiBpDQoNCg==");
    let empty = wire.api("STREAM.MSG.GET.main", json!({ "seq": 3 }))["message"].clone();
    assert!(empty["data"].is_null() && empty["hdrs"].is_null(), "{empty}");
    let direct = wire.request("$JS.API.DIRECT.GET.main", &[], r#"{"seq":1}"#);
    assert_eq!((direct.payload.as_str(), direct.header("Nats-Msg-Id")), ("one", Some("i")));
    assert_eq!(
        (direct.header("Nats-Subject"), direct.header("Nats-Stream")),
        (Some("event.a"), Some("main"))
    );
    assert_eq!(wire.request("$JS.API.DIRECT.GET.main.event.b", &[], "").payload, "two");
    assert_eq!(wire.request("$JS.API.DIRECT.GET.main", &[], "").status(), "408 Empty Request");
    assert_eq!(wire.request("$JS.API.DIRECT.GET.indirect", &[], r#"{"seq":1}"#).status(), "503");
    assert_eq!(refused(&wire.api("STREAM.MSG.GET.main", Value::Null)), (400, 10003, "bad request"));
    assert_eq!(refused(&wire.api("STREAM.MSG.GET.none", json!({ "seq": 1 }))).1, 10059);
}

fn messages_are_deleted_and_purged(target: &Target) {
    let mut wire = Wire::connect(target);
    wire.make_stream("main", &["event.>"], json!({}));
    for subject in ["event.a", "event.b", "event.a", "event.b", "event.a", "event.b"] {
        wire.store(subject, &[], "hi");
    }
    assert_eq!(wire.api("STREAM.MSG.DELETE.main", json!({ "seq": 2 }))["success"], true);
    let gone = wire.api("STREAM.MSG.DELETE.main", json!({ "seq": 2 }));
    assert_eq!(refused(&gone), (400, 10043, "sequence 2 not found"));
    let never_there = wire.api("STREAM.MSG.DELETE.main", json!({ "seq": 99 }));
    assert_eq!(refused(&never_there), (500, 10057, "stream store EOF"));
    assert_eq!(refused(&wire.api("STREAM.MSG.GET.main", json!({ "seq": 2 }))).1, 10037);
    let state = wire.api("STREAM.INFO.main", Value::Null)["state"].clone();
    assert_eq!(
        (&state["first_seq"], &state["messages"], &state["num_deleted"]),
        (&json!(1), &json!(5), &json!(1))
    );
    assert_eq!(wire.api("STREAM.PURGE.main", json!({ "filter": "event.a", "keep": 1 }))["purged"], 2);
    let before_all = wire.api("STREAM.MSG.DELETE.main", json!({ "seq": 1 }));
    assert_eq!(refused(&before_all), (500, 10057, "no message found"));
    assert_eq!(wire.api("STREAM.PURGE.main", json!({ "seq": 5 }))["purged"], 1);
    assert_eq!(refused(&wire.api("STREAM.PURGE.main", json!({ "seq": 5, "keep": 1 }))).1, 10003);
    assert_eq!(wire.api("STREAM.PURGE.main", Value::Null)["purged"], 2);
    let state = wire.api("STREAM.INFO.main", Value::Null)["state"].clone();
    assert_eq!(
        (&state["first_seq"], &state["last_seq"], &state["messages"]),
        (&json!(7), &json!(6), &json!(0))
    );
}

fn a_client_library_does_all_of_it(target: &Target) {
    ask(async {
        let context = jetstream::new(connect(&target.url()).await);
        let nobody = context.publish("event.1.a", "hi".into()).await.unwrap().await.unwrap_err();
        assert_eq!(nobody.kind(), PublishErrorKind::StreamNotFound);
        let config = stream::Config {
            allow_batch_publish: true,
            duplicate_window: Duration::from_secs(60),
            ..stream_config("main", &["event.1.>"])
        };
        let stream = context.create_stream(config).await.unwrap();
        for sequence in 1..=20 {
            let acked = context.publish("event.1.a", "hi".into()).await.unwrap().await.unwrap();
            assert_eq!((acked.sequence, acked.duplicate), (sequence, false));
        }
        let message = stream.get_raw_message(20).await.unwrap();
        assert_eq!((message.subject.as_str(), &*message.payload), ("event.1.a", &b"hi"[..]));
        let missing = stream.get_raw_message(21).await.unwrap_err();
        assert_eq!(missing.kind(), RawMessageErrorKind::NoMessageFound);
        assert_eq!(stream.direct_get(1).await.unwrap().sequence, 1);
        assert!(stream.delete_message(1).await.unwrap());
        let mut stream = context.get_stream("main").await.unwrap();
        let info = stream.info().await.unwrap();
        assert_eq!((info.state.first_sequence, info.state.last_sequence, info.state.messages), (2, 20, 19));
        assert!(info.config.allow_batch_publish && info.config.allow_direct);
        assert_eq!(stream.purge().await.unwrap().purged, 19);
        assert!(context.delete_stream("main").await.unwrap().success);
    });
}
