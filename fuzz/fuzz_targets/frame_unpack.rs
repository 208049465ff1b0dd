//! A message from the network is unpacked or refused, never more than the limits allow, and what was packed comes out again.
//!
//! The first byte of the input chooses what the headers say; the rest is the payload as it is, so that a compressed frame can stand in the
//! corpus as a file and be mutated. Then the same payload, cut into pieces, is packed and unpacked.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use jetring::__internals::pack;
use jetring::frame::{CONTENT_ENCODING, COUNT, RATIO_MAX, UNPACKED_BYTES_MAX, unpack};
use libfuzzer_sys::fuzz_target;

/// What the header may name: nothing, what we know, and what we do not.
const ENCODINGS: [Option<&str>; 4] = [None, Some("lz4"), Some("zstd"), Some("LZ4")];

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, payload)) = bytes.split_first() else { return };
    let encoding = ENCODINGS[usize::from(choice) % ENCODINGS.len()];
    any_message_is_unpacked_within_limits_or_refused(usize::from(choice) / ENCODINGS.len(), encoding, payload);
    what_is_packed_comes_out_again(usize::from(choice) + 1, encoding, payload);
});

fn any_message_is_unpacked_within_limits_or_refused(count: usize, encoding: Option<&str>, payload: &[u8]) {
    // The count is guessed once more, by the answer, so that a frame which unpacks is also looked into.
    let refusal = match unpacked(&count.to_string(), encoding, payload) {
        Ok(bytes) => return is_within_limits(bytes, encoding, payload),
        Err(refusal) => refusal,
    };
    assert!(!refusal.is_empty());
    let found = refusal.strip_prefix("a frame of ").and_then(|rest| rest.split(' ').next());
    if let Some(found) = found {
        is_within_limits(unpacked(found, encoding, payload).unwrap(), encoding, payload);
    }
    assert!(unpacked("", encoding, payload).is_err());
}

/// Bytes of all events, or the words of the refusal.
fn unpacked(count: &str, encoding: Option<&str>, payload: &[u8]) -> Result<usize, String> {
    let header = |name: &str| match name {
        COUNT => Some(count),
        CONTENT_ENCODING => encoding,
        _ => None,
    };
    let frame = unpack(header, payload).map_err(|refusal| refusal.to_string())?;
    assert_eq!(frame.iter().count(), frame.len());
    assert!(frame.iter().all(|event| !event.contains(&b'\n')));
    Ok(frame.iter().map(|event| event.len() + 1).sum())
}

/// With a break after each event, the last one of which may not have been there.
fn is_within_limits(bytes: usize, encoding: Option<&str>, payload: &[u8]) {
    let limit = match encoding {
        None => payload.len(),
        Some(_) => UNPACKED_BYTES_MAX.min(payload.len() * RATIO_MAX),
    };
    assert!(bytes <= limit + 1, "{bytes} bytes of events out of {}", payload.len());
}

fn what_is_packed_comes_out_again(pieces: usize, encoding: Option<&str>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let events: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(pieces)).collect();
    let Some((count, encoding, payload)) = pack(&events, encoding) else { return };
    let count = count.to_string();
    let header = |name: &str| match name {
        COUNT => Some(count.as_str()),
        CONTENT_ENCODING => encoding,
        _ => None,
    };
    let frame = unpack(header, &payload).unwrap();
    let is_break = |byte: u8| byte == b'\n' || byte == b'\r';
    assert_eq!(frame.len(), events.len());
    for (event, packed) in events.iter().zip(&frame) {
        let same = |(&before, &after): (&u8, &u8)| before == after || (is_break(before) && after == b' ');
        assert!(event.len() == packed.len() && event.iter().zip(packed).all(same));
    }
}
