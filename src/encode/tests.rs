//! The tape against serde_json, and what user code can do wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod misuse;

use super::any::{self, AnyValue};
use super::*;
use crate::clock::Ticks;
use proptest::prelude::*;
use serde::Serializer;
use serde::ser::Error;
use serde_json::value::RawValue;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

const HEAD: Head<'static> = Head {
    timestamp: Ticks(1),
    lost: 0,
    name: b"test",
    request_id: Some("id"),
    trace: None,
    sample: 1,
    body: Body::Tape,
};

/// What the worker makes of the value, and whether it came as a tape.
fn encode<T: Serialize + ?Sized>(body: &T, bytes_max: usize) -> Result<(String, Body), EncodeError> {
    with_record(
        &HEAD,
        || body,
        bytes_max,
        |bytes| {
            let (head, body) = record::parse(bytes).unwrap();
            let mut json = Vec::new();
            let printed = match head.body {
                Body::Tape => render(body, &mut json),
                Body::Json => is_json(body, DEPTH_MAX).then(|| json.extend_from_slice(body)),
            };
            // The worker drops it where nothing is printed.
            printed.map(|()| (String::from_utf8(json).unwrap(), head.body)).ok_or(EncodeError::Failed)
        },
    )
    .flatten()
}

#[track_caller]
fn is_printed_as_serde_json_prints_it<T: Serialize + ?Sized>(value: &T) {
    let expected = serde_json::to_string(value).map_err(|_| EncodeError::Failed);
    assert_eq!(encode(value, 1 << 20), expected.map(|json| (json, Body::Tape)));
}

#[test]
fn a_template_makes_the_same_record_as_its_head() {
    for name in ["a", "priceEstimate", &"n".repeat(44), &"n".repeat(45), &"n".repeat(255)] {
        for bytes_max in [1, 64, 1 << 16] {
            let head = Head {
                timestamp: Ticks(7),
                lost: 9,
                name: name.as_bytes(),
                request_id: None,
                trace: None,
                sample: 1,
                body: Body::Tape,
            };
            let plain = with_record(&head, || (), bytes_max, <[u8]>::to_vec);
            let made = Template::new(name).map(|template| {
                with_template(&template, (head.timestamp, head.lost), || (), bytes_max, <[u8]>::to_vec)
            });
            assert_eq!(made, (name.len() <= 44).then_some(plain));
        }
    }
}

struct With<F>(F);

impl<F: Fn() -> Result<u32, &'static str>> Serialize for With<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.0)().map_err(S::Error::custom)?.serialize(serializer)
    }
}

#[test]
fn numbers_of_all_widths() {
    is_printed_as_serde_json_prints_it(&(i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
    is_printed_as_serde_json_prints_it(&(u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
    is_printed_as_serde_json_prints_it(&[0.0, -0.0, 1.0, 0.1, 1e16, 1e-7, 5e-324, f64::MAX, f64::EPSILON]);
    is_printed_as_serde_json_prints_it(&[0.1_f32, 1e10, 16_777_216.0, f32::MIN_POSITIVE, f32::MAX]);
    is_printed_as_serde_json_prints_it(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    is_printed_as_serde_json_prints_it(&[f32::NAN, f32::INFINITY]);
}

#[test]
fn text_of_all_kinds() {
    is_printed_as_serde_json_prints_it(&('a', '"', '\u{7f}', '😀', "", "\0\u{1f} \"\\/\u{2028}é😀"));
    for len in (0..70).chain([254, 255, 256, 257, STACK_BYTES, 70_000]) {
        is_printed_as_serde_json_prints_it(&"x".repeat(len));
        is_printed_as_serde_json_prints_it(&format!("{}\n", "é".repeat(len)));
    }
    is_printed_as_serde_json_prints_it(&format_args!("{}-{:?}", 1, "two\t"));
}

#[test]
fn what_derives_make_of_structs_and_enums() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype(u8);
    #[derive(Serialize)]
    struct Tuple(u8, &'static str);
    #[derive(Serialize)]
    struct Empty {}
    #[derive(Serialize)]
    enum Kind {
        Unit,
        Newtype(u8),
        Tuple(u8, u8),
        Struct { a: u8, b: Option<&'static str> },
        Empty {},
    }
    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Internal {
        A { x: u8 },
        B,
    }
    #[derive(Serialize)]
    #[serde(tag = "t", content = "c")]
    enum Adjacent {
        A(u8, u8),
        B,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Untagged {
        A(u8),
        B { x: u8 },
    }
    #[derive(Serialize)]
    struct Flat {
        first: u8,
        #[serde(flatten)]
        inner: BTreeMap<&'static str, u8>,
        #[serde(flatten)]
        kind: Internal,
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        #[serde(rename = "quo\"ted")]
        last: (),
    }
    is_printed_as_serde_json_prints_it(&(Unit, Newtype(1), Tuple(1, "x"), Empty {}, [(); 0], [[1]; 2]));
    is_printed_as_serde_json_prints_it(&[
        Kind::Unit,
        Kind::Newtype(1),
        Kind::Tuple(1, 2),
        Kind::Struct { a: 1, b: None },
        Kind::Empty {},
    ]);
    is_printed_as_serde_json_prints_it(&(Internal::A { x: 1 }, Internal::B, Adjacent::A(1, 2), Adjacent::B));
    is_printed_as_serde_json_prints_it(&(Untagged::A(1), Untagged::B { x: 2 }));
    let inner = BTreeMap::from([("x", 1), ("y", 2)]);
    is_printed_as_serde_json_prints_it(&Flat {
        first: 1,
        inner,
        kind: Internal::A { x: 1 },
        left_out: None,
        last: (),
    });
}

#[test]
fn keys_of_maps_are_strings_or_become_strings_or_are_refused() {
    #[derive(Serialize, PartialEq, Eq, Hash)]
    enum Key {
        Unit,
        Newtype(u8),
    }
    #[derive(Serialize, PartialEq, Eq, Hash)]
    struct Id(u64);
    is_printed_as_serde_json_prints_it(&HashMap::from([(true, 1)]));
    is_printed_as_serde_json_prints_it(&HashMap::from([(-5_i128, 1)]));
    is_printed_as_serde_json_prints_it(&HashMap::from([('"', 1)]));
    is_printed_as_serde_json_prints_it(&HashMap::from([(Some("x"), 1)]));
    is_printed_as_serde_json_prints_it(&HashMap::from([(Key::Unit, 1)]));
    is_printed_as_serde_json_prints_it(&HashMap::from([(Id(7), BTreeMap::from([(1, 2), (3, 4)]))]));
    for refused in [
        encode(&HashMap::from([(None::<u8>, 1)]), 100),
        encode(&HashMap::from([((), 1)]), 100),
        encode(&HashMap::from([((1, 2), 1)]), 100),
        encode(&HashMap::from([(Key::Newtype(1), 1)]), 100),
        encode(&HashMap::from([(vec![1], 1)]), 100),
    ] {
        assert_eq!(refused, Err(EncodeError::Failed));
    }
}

#[test]
fn what_other_crates_serialize_in_their_own_way() {
    is_printed_as_serde_json_prints_it(&chrono::DateTime::<chrono::Utc>::from_timestamp_nanos(1_234_567_890));
    is_printed_as_serde_json_prints_it(&chrono::NaiveDate::from_ymd_opt(2026, 11, 23));
    is_printed_as_serde_json_prints_it(&std::time::Duration::from_millis(1_500));
    is_printed_as_serde_json_prints_it(&"127.0.0.1:4222".parse::<std::net::SocketAddr>().unwrap());
    is_printed_as_serde_json_prints_it(&std::path::Path::new("/a/b"));
    is_printed_as_serde_json_prints_it(&RawValue::from_string("{ \"as\" : [it, is] }".into()).ok());
    is_printed_as_serde_json_prints_it(&RawValue::from_string("{ \"as\" :  [1.50e3 ] }".into()).unwrap());
    is_printed_as_serde_json_prints_it(
        &serde_json::json!({"a": [1, -2, 3.5, null, "x", {"y": true}], "b": {}}),
    );
}

#[test]
fn a_hundred_levels_deep() {
    let deep = (0..100).fold(serde_json::json!("core"), |inner, level| match level % 2 {
        0 => serde_json::json!([inner]),
        _ => serde_json::json!({ "in": inner }),
    });
    is_printed_as_serde_json_prints_it(&deep);
}

#[test]
fn a_value_that_changes_from_look_to_look_is_taken_as_it_was_at_one_look() {
    struct Growing(Cell<usize>);
    impl Serialize for Growing {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.set(self.0.get() + 1);
            vec![self.0.get(); self.0.get()].serialize(serializer)
        }
    }
    let growing = Growing(Cell::new(0));
    for looks in 1..200 {
        let expected = serde_json::to_string(&vec![looks; looks]).unwrap();
        assert_eq!(encode(&growing, 1 << 20), Ok((expected, Body::Tape)));
    }
    // The tape of the look does not fit, and the JSON is that of the next one.
    let growing = Growing(Cell::new(20));
    let (json, body) = encode(&growing, 100).unwrap();
    assert_eq!((json, body), (serde_json::to_string(&vec![22; 22]).unwrap(), Body::Json));
}

#[test]
fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let body = "x".repeat(98);
    assert_eq!(encode(&body, 100).map(|(json, _)| json.len()), Ok(100));
    assert_eq!(encode(&"x".repeat(1000), 999), Err(EncodeError::TooLarge));
    assert_eq!(encode(&vec![7_u64; 100_000], 99), Err(EncodeError::TooLarge), "it is not walked to its end");
    // What would fit again after a part that did not is not taken either.
    let long = "x".repeat(700);
    assert_eq!(encode(&(&long, 1, &long), 999), Err(EncodeError::TooLarge));
    assert_eq!(encode(&1, 100).unwrap().0, "1", "the failure leaves nothing behind");
}

#[test]
fn a_tape_that_does_not_fit_is_no_reason_to_refuse_its_json() {
    let numbers = vec![7_u64; 1000];
    let json = serde_json::to_string(&numbers).unwrap();
    assert_eq!(encode(&numbers, json.len()), Ok((json.clone(), Body::Json)));
    assert_eq!(encode(&numbers, json.len() - 1), Err(EncodeError::TooLarge));
}

#[test]
fn a_tape_that_does_not_fit_leaves_the_head_alone_however_long_that_is() {
    let (name, request_id) = ("n".repeat(255), "r".repeat(record::REQUEST_ID_BYTES_MAX));
    let trace = format!("00-{:032x}-{:016x}-01", 7, 8).parse().unwrap();
    let shortest = Head { name: b"n", request_id: None, ..HEAD };
    let longest =
        Head { name: name.as_bytes(), request_id: Some(&request_id), trace: Some(trace), sample: 9, ..HEAD };
    assert_eq!(longest.len(), record::OVERHEAD_BYTES_MAX);
    // The room is used up by many small pieces, or by one that is as long as the whole may be.
    for (numbers, text) in [(100, 0), (1000, 0), (100, 1500), (100, 9000)] {
        let body = (vec![7_u64; numbers], "x".repeat(text), vec![7_u64; numbers]);
        let json = serde_json::to_string(&body).unwrap();
        for head in [shortest, longest] {
            let is_right = |bytes: &[u8]| {
                record::parse(bytes) == Some((Head { body: Body::Json, ..head }, json.as_bytes()))
            };
            assert_eq!(with_record(&head, || &body, json.len(), is_right), Ok(true), "{numbers} {text}");
        }
    }
}

#[test]
fn a_serialize_that_fails_or_panics_is_an_error_of_that_event_alone() {
    assert_eq!(encode(&(1, With(|| Err("no"))), 100), Err(EncodeError::Failed));
    assert_eq!(encode(&(1, With(|| panic!("as a user's bug would"))), 100), Err(EncodeError::Failed));
    assert_eq!(encode(&(1, With(|| Ok(2))), 100).unwrap().0, "[1,2]");
}

#[test]
fn a_display_that_fails_is_an_error_even_if_nobody_minds() {
    struct Broken;
    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half of it")?;
            Err(std::fmt::Error)
        }
    }
    struct Careless;
    impl Serialize for Careless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut seq = serializer.serialize_seq(None)?;
            let _ = seq.serialize_element(&Shown(Broken));
            seq.end()
        }
    }
    struct Shown<T>(T);
    impl<T: std::fmt::Display> Serialize for Shown<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&self.0)
        }
    }
    assert_eq!(encode(&Careless, 100), Err(EncodeError::Failed));
    assert_eq!(encode(&Shown(Broken), 100), Err(EncodeError::Failed));
}

#[test]
fn a_serialize_that_publishes_does_not_disturb_the_event_around_it() {
    let nested = With(|| {
        assert_eq!(encode("inner", 100).unwrap().0, "\"inner\"");
        assert_eq!(encode(&"x".repeat(5000), 1 << 20).unwrap().0.len(), 5002);
        Ok(2)
    });
    assert_eq!(encode(&(1, &nested, 3), 100).unwrap().0, "[1,2,3]");
    let long = "y".repeat(5000);
    assert_eq!(
        encode(&(&long, &nested, 3), 1 << 20).unwrap().0,
        serde_json::to_string(&(&long, 2, 3)).unwrap()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_value_is_printed_as_serde_json_prints_it(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let printed = encode(&AnyValue::from_bytes(&bytes), 1 << 20);
        if let Ok((_, body)) = &printed {
            prop_assert_eq!(*body, Body::Tape);
        }
        any::judge(&bytes, printed.as_ref().ok().map(|(json, _)| json.as_bytes()));
    }

    /// Of some the tape does not fit, and the JSON does or does not.
    #[test]
    fn any_value_that_hardly_fits_is_printed_as_serde_json_prints_it_or_not_at_all(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        bytes_max in 1..3000usize,
    ) {
        let value = AnyValue::from_bytes(&bytes);
        match encode(&value, bytes_max) {
            _ if !value.is_steady() => {}
            Ok((json, _)) => any::judge(&bytes, Some(json.as_bytes())),
            Err(EncodeError::TooLarge) => {
                // Which it may be before it has failed.
                let expected = any::expected(&bytes).flatten();
                prop_assert!(expected.is_none_or(|json| json.len() > bytes_max));
            }
            Err(EncodeError::Failed) => prop_assert!(any::expected(&bytes).flatten().is_none()),
        }
    }

    #[test]
    fn no_bytes_break_the_renderer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = render(&bytes, &mut Vec::new());
    }
}
