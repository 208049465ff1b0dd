//! The schemas are committed, are what the code says, and are true of what a real stream holds.

use crate::cli::{assert_refused, assert_status, jetring, json_of, stderr, stdout};
use crate::server::messages;
use crate::support::{CLOSE, Numbered, STREAM, ask, bus_with, server_with_stream, small};
use boon::{Compiler, SchemaIndex};
use jetring::envelope::Envelope;
use jetring::report::{GAP, STARTED, STATS, STOPPED};
use jetring::schema::{ENVELOPE, Schemas};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The schemas of the wire, ready to judge by.
struct Judge {
    schemas: boon::Schemas,
    by_name: BTreeMap<String, SchemaIndex>,
}

impl Judge {
    fn new(wire: &Schemas) -> Self {
        let (mut compiler, mut schemas) = (Compiler::new(), boon::Schemas::new());
        compiler.enable_format_assertions();
        let mut compile = |(name, schema): (&str, &Value)| {
            let place = format!("schema:{name}");
            compiler.add_resource(&place, schema.clone()).expect("it is a schema");
            let index =
                compiler.compile(&place, &mut schemas).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            (name.to_owned(), index)
        };
        let by_name = wire.iter().map(&mut compile).collect();
        Self { schemas, by_name }
    }

    fn takes(&self, name: &str, value: &Value) -> bool {
        self.schemas.validate(value, self.by_name[name]).is_ok()
    }

    #[track_caller]
    fn assert_takes(&self, name: &str, value: &Value) {
        if let Err(error) = self.schemas.validate(value, self.by_name[name]) {
            panic!("{error:#}\nin {value:#}");
        }
    }

    /// The message, and if it is a report its body. Returns the kind of the report.
    #[track_caller]
    fn assert_takes_message(&self, subject: &str, message: &[u8]) -> Option<&'static str> {
        let value: Value = serde_json::from_slice(message).expect("a message is JSON");
        self.assert_takes(ENVELOPE, &value);
        let kind = [STARTED, GAP, STATS, STOPPED].into_iter().find(|kind| subject.ends_with(kind))?;
        self.assert_takes(kind, &value["body"]);
        Some(kind)
    }
}

#[test]
fn the_committed_schemas_are_what_the_code_says() {
    let committed = Schemas::read(docs().join("schema")).expect("they are there");
    assert_eq!(committed, Schemas::of_jetring(), "`make schema` writes them anew");
}

#[test]
fn whatever_a_real_stream_holds_is_as_its_schema_says() {
    let server = server_with_stream();
    let bus = bus_with(&server.url(), |config| {
        small(config);
        config.delivery.stats_interval = Duration::from_millis(100);
    });
    // Faster than a small queue can take, so that some are shed.
    while bus.stats().dropped.total() == 0 {
        bus.publish("a", &Numbered::new(0, 1));
    }
    jetring::request_scope("q-1", || bus.publish("b.c", &json!({"any": ["thing", null]})));
    assert!(bus.flush(CLOSE).complete);
    let read = || ask(messages(&server.url(), STREAM));
    let has = |kind: &str| read().iter().any(|(_, subject, _)| subject.ends_with(kind));
    crate::server::wait_until("its ledger and its gap are published", || has(STATS) && has(GAP));
    assert!(bus.close(CLOSE).complete);

    let judge = Judge::new(&Schemas::of_jetring());
    let mut seen = BTreeMap::new();
    for (_, subject, payload) in read() {
        *seen.entry(judge.assert_takes_message(&subject, &payload)).or_insert(0) += 1;
    }
    let kinds: Vec<_> = seen.keys().copied().collect();
    assert_eq!(kinds, [None, Some(GAP), Some(STARTED), Some(STATS), Some(STOPPED)], "{seen:?}");
}

#[test]
fn the_schemas_refuse_what_is_not_so() {
    let judge = Judge::new(&Schemas::of_jetring());
    let good = json!({"version": "v1", "timestamp": "2026-07-06T14:56:50.5Z", "producer": "00f1e2d3c4b5a697.0", "seq": 1, "body": 1});
    judge.assert_takes(ENVELOPE, &good);
    for (member, bad) in [
        ("version", json!("v2")),
        ("timestamp", json!("yesterday")),
        ("producer", json!("me")),
        ("seq", json!(0)),
        ("seq", json!("1")),
        ("requestId", json!(7)),
        ("requestId", Value::Null),
    ] {
        let mut envelope = good.clone();
        envelope[member] = bad;
        assert!(!judge.takes(ENVELOPE, &envelope), "{envelope}");
    }
    for producer in ["00f1e2d3c4b5a697.bus", "00f1e2d3c4b5a697.3.bus", "00f1e2d3c4b5a697.15"] {
        let mut envelope = good.clone();
        envelope["producer"] = json!(producer);
        judge.assert_takes(ENVELOPE, &envelope);
    }
    assert!(!judge.takes(STARTED, &json!({"process": "00f1e2d3c4b5a697"})));
}

/// Each line of a block of JSON in the page is a message, or what is said to be a body.
#[test]
fn the_examples_of_the_wire_contract_are_messages() {
    let page = std::fs::read_to_string(docs().join("wire.md")).expect("it is there");
    let judge = Judge::new(&Schemas::of_jetring());
    let blocks = page.split("```json\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let (mut examples, mut kinds) = (0, BTreeMap::new());
    for line in blocks.flat_map(|(block, _)| block.lines()) {
        let (subject, message) = line.split_once(' ').expect("a subject, and what came on it");
        let kind = judge.assert_takes_message(subject, message.as_bytes());
        Envelope::parse(message.as_bytes()).expect("it is an envelope");
        kinds.insert(kind, line);
        examples += 1;
    }
    assert!(examples >= 6 && kinds.len() == 5, "events, and each kind of report: {kinds:?}");
}

#[test]
fn the_tool_prints_the_schemas_writes_them_and_compares_them() {
    let output = jetring(&["schema"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output), Schemas::of_jetring().to_json());
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("it is text").to_owned();
    assert_status(&jetring(&["schema", "--out", &path("old")], ""), 0);
    assert_eq!(Schemas::read(path("old")).expect("they are there"), Schemas::of_jetring());

    assert_status(&jetring(&["schema", "--out", &path("new")], ""), 0);
    let output = jetring(&["schema", "check", &path("old"), &path("new")], "");
    assert_status(&output, 0);
    assert!(stdout(&output).contains("ok     _bus.gap: unchanged"), "{}", stdout(&output));

    let mut gap = Schemas::of_jetring().get(GAP).expect("it is there").clone();
    gap["properties"]["because"] = json!({"type": "string"});
    gap["required"].as_array_mut().expect("a list").push(json!("because"));
    std::fs::write(path("new/_bus.gap.json"), gap.to_string()).expect("it can be written");
    let output = jetring(&["schema", "check", &path("old"), &path("new")], "");
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains(
            "breaks _bus.gap: changed\n       new readers of old events: because: it may be absent"
        ),
        "{}",
        stdout(&output)
    );
    let output = jetring(&["schema", "check", "--readers", "old", &path("old"), &path("new"), "--json"], "");
    assert_status(&output, 0);
    assert_eq!(json_of(&output)["compatible"], true);
    let output = jetring(&["schema", "check", &path("new"), &path("old"), "--json"], "");
    assert_status(&output, 1);
    let found = json_of(&output);
    let gap = found["schemas"].as_array().expect("a list").iter().find(|schema| schema["name"] == GAP);
    assert_eq!(
        gap.expect("it is there")["breaks"],
        json!([{"readers": "old", "place": "because", "why": "it may be absent"}])
    );
}

#[test]
fn schemas_that_cannot_be_read_are_named() {
    let output = jetring(&["schema", "check", "/nonexistent", "docs"], "");
    assert_status(&output, 1);
    assert!(stderr(&output).contains("/nonexistent"), "{}", stderr(&output));
    assert_refused(&["schema", "check", "a", "b", "--readers", "some"], 2, &["old, new, all"]);
}
