//! What the worker takes for JSON against what serde_json reads: the same bytes, with each text a `String`, up to the same depth. And what it
//! takes, an envelope with it is read with, and by serde_json as a whole, but for numbers that no `f64` can hold.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use jetring::__internals::{is_json, is_readable_json, write_envelope};
use jetring::envelope::Envelope;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let is_taken = is_json(bytes);
    assert_eq!(is_taken, is_readable_json(bytes), "{}", String::from_utf8_lossy(bytes));
    // simd-json refuses more: numbers beyond 64 bits, say.
    if !is_taken {
        let text = str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<Value>(text).is_ok());
        assert!(!text || bytes.len() > 126, "serde_json reads it");
        return;
    }
    let mut message = Vec::new();
    write_envelope(1, None, Some(("00000000000000ff.0", 1)), 1, bytes, &mut message);
    assert_eq!(Envelope::parse(&message).unwrap().body.get().trim(), str::from_utf8(bytes).unwrap().trim());
    if let Err(error) = serde_json::from_slice::<Value>(&message) {
        assert!(error.to_string().starts_with("number out of range"), "{error}");
    }
});
