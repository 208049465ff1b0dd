//! The tape against serde_json: any value, encoded on the hot thread and rendered on the worker, is byte for byte what serde_json
//! prints, and is refused where serde_json refuses.
//!
//! Some values do not keep to serde's rules: they swallow the errors of their pieces, call things out of order, have text that is not JSON. What
//! is printed of them, if anything, is JSON all the same; and nothing is if a piece has failed.
//!
//! The limit is part of the input. Above it an event may be refused as too large, by either end; below it nothing may differ,
//! also when the tape does not fit and the JSON does.

#![no_main]

use jetring::__internals::{AnyValue, encode_and_render, expected, judge};
use libfuzzer_sys::fuzz_target;

/// Above what any input can print.
const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    judge(bytes, encode_and_render(&AnyValue::from_bytes(bytes), BYTES_MAX).as_deref());

    let Some((&limit, rest)) = bytes.split_first() else { return };
    let value = AnyValue::from_bytes(rest);
    if value.is_steady() {
        let limit = usize::from(limit) * 8;
        match encode_and_render(&value, limit) {
            // It may be longer than the limit: that is the worker's to find.
            Some(json) => judge(rest, Some(&json)),
            None => {
                let expected = expected(rest).flatten();
                assert!(expected.is_none_or(|json| json.len() > limit), "{value:?} below {limit}");
            }
        }
    }
});
