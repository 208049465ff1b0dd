//! The tape against serde_json: any value, encoded on the hot thread and rendered on the worker, is byte for byte what serde_json
//! prints, and is refused where serde_json refuses.
//!
//! The limit is part of the input. Above it an event may be refused as too large, by either end; below it nothing may differ,
//! also when the tape does not fit and the JSON does.

#![no_main]

use jetring::__internals::{AnyValue, encode_and_render};
use libfuzzer_sys::fuzz_target;

/// Above what any input can print.
const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    // Made anew for each look, because some values change when they are looked at.
    let expected = serde_json::to_vec(&AnyValue::from_bytes(bytes)).ok();
    let printed = encode_and_render(&AnyValue::from_bytes(bytes), BYTES_MAX);
    assert!(printed == expected, "{:?}: {} and not {}", AnyValue::from_bytes(bytes), text(&printed), text(&expected));

    let Some((&limit, rest)) = bytes.split_first() else { return };
    let value = AnyValue::from_bytes(rest);
    if value.is_steady() {
        let expected = serde_json::to_vec(&value).ok();
        let limit = usize::from(limit) * 8;
        match encode_and_render(&value, limit) {
            Some(json) => assert!(Some(json) == expected, "{value:?} below {limit}"),
            None => assert!(expected.is_none_or(|json| json.len() > limit), "{value:?} below {limit}"),
        }
    }
});

fn text(json: &Option<Vec<u8>>) -> String {
    json.as_ref().map_or("refused".to_owned(), |json| String::from_utf8_lossy(json).into_owned())
}
